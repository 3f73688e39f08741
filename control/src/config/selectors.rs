//! `local_ts` and `remote_ts` of a child: networks, or `dynamic` for a virtual address or, where none
//! is given, for the address that IKE runs from.

use hitless_sa::{Mode, TrafficSelector};
use toml::de::DeValue;

use super::document::Section;
use super::pools::Surroundings;
use super::report::Refusal;
use super::value;
use crate::ike::settings::Dynamic;

/// What a child protects.
pub(super) struct Ends {
    pub local_ts: Vec<TrafficSelector>,
    pub remote_ts: Vec<TrafficSelector>,
    pub dynamic: Dynamic,
}

/// One end: the selectors, and which of them are dynamic.
type End = (Vec<TrafficSelector>, Vec<TrafficSelector>);

pub(super) fn read(
    section: &Section<'_>,
    mode: Mode,
    surroundings: &Surroundings<'_>,
) -> Option<Ends> {
    let (vips, pools) = (surroundings.vips(), surroundings.named());
    let transport = mode == Mode::Transport;
    if transport && !(vips.is_empty() && pools.is_empty()) {
        section.refuse(
            "mode",
            Refusal::new(
                format!(
                    "{}: no virtual address in transport mode",
                    section.name("mode")
                ),
                "write mode = \"tunnel\", or leave out vips and pools",
            ),
        );
        return None;
    }
    let (local, remote) = (
        Side {
            key: "local_ts",
            example: "10.1.0.0/16",
            addresses: surroundings.local(),
            implied: transport || !vips.is_empty(),
            transport,
        },
        Side {
            key: "remote_ts",
            example: "10.2.0.0/16",
            addresses: surroundings.remote(),
            implied: transport || !pools.is_empty(),
            transport,
        },
    );
    let (local, remote) = (local.read(section), remote.read(section));
    let selectors = |end: &Option<End>| end.as_ref().map(|(selectors, _)| selectors.clone());
    check_families(
        section,
        selectors(&local).as_deref(),
        selectors(&remote).as_deref(),
    );
    let ((local_ts, local), (remote_ts, remote)) = (local?, remote?);
    Some(Ends {
        local_ts,
        remote_ts,
        dynamic: Dynamic { local, remote },
    })
}

/// How one of the two keys is read.
struct Side {
    key: &'static str,
    example: &'static str,
    /// The most that `dynamic` may come to.
    addresses: Vec<TrafficSelector>,
    /// The key may be missing: then it is `dynamic`.
    implied: bool,
    transport: bool,
}

/// What a selector says.
enum Word {
    Network(TrafficSelector),
    /// With the protocol and ports of this one.
    Dynamic(TrafficSelector),
}

impl Side {
    fn read(&self, section: &Section<'_>) -> Option<End> {
        let what = ("name a network", self.example);
        let listed = section.filled(self.key, what, |value: &DeValue<'_>| self.word(value));
        let words = match listed.ok()? {
            Some(words) => words.into_iter().map(|word| word.value).collect(),
            None if self.implied => vec![Word::Dynamic(TrafficSelector::prefix([0; 4].into(), 0)?)],
            None => {
                let example = format!("{} = [\"{}\"]", self.key, self.example);
                section.missing(self.key, &example);
                return None;
            }
        };
        let (mut selectors, mut dynamic) = (Vec::new(), Vec::new());
        for word in words {
            match word {
                Word::Network(network) => selectors.push(network),
                Word::Dynamic(what) => {
                    for address in &self.addresses {
                        let one = TrafficSelector {
                            start: address.start,
                            end: address.end,
                            ..what
                        };
                        selectors.push(one);
                        dynamic.push(one);
                    }
                }
            }
        }
        Some((selectors, dynamic))
    }

    fn word(&self, value: &DeValue<'_>) -> Result<Word, Refusal> {
        let dynamic = value
            .as_str()
            .and_then(|t| t.trim().strip_prefix("dynamic"));
        if let Some(rest) = dynamic {
            let any = DeValue::String(format!("0.0.0.0/0{rest}").into());
            let parsed = value::parsed::<TrafficSelector>("dynamic[tcp/80]")(&any);
            return parsed.map(Word::Dynamic);
        }
        let network = value::parsed::<TrafficSelector>(self.example)(value)?;
        if self.transport {
            return Err(Refusal::new(
                "transport mode protects what the two gateways themselves say to each other",
                format!("leave {} out, or write \"dynamic\"", self.key),
            ));
        }
        Ok(Word::Network(network))
    }
}

/// A packet has one family: a network needs one of its own family at the other end.
fn check_families(
    section: &Section<'_>,
    local: Option<&[TrafficSelector]>,
    remote: Option<&[TrafficSelector]>,
) {
    let (Some(local), Some(remote)) = (local, remote) else {
        return;
    };
    for (key, ours, theirs) in [("local_ts", local, remote), ("remote_ts", remote, local)] {
        let alone = ours.iter().find(|ts| {
            let same = |other: &TrafficSelector| other.start.is_ipv4() == ts.start.is_ipv4();
            !theirs.iter().any(same)
        });
        let Some(alone) = alone else { continue };
        let family = value::family(alone.start);
        let refusal = Refusal::new(
            format!(
                "{}: {alone} has no {family} network at the other end",
                section.name(key)
            ),
            format!("local_ts and remote_ts both need an {family} network, or neither"),
        );
        section.refuse(key, refusal);
        return;
    }
}
