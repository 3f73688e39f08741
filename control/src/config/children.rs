//! `[connections.NAME.children.NAME]`: what is protected, and how.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hitless_sa::{
    DontFragment, Dscp, Mode, MssClamp, SaOptions, TfcPadding, TrafficSelector, Workers,
};
use toml::de::DeValue;

use super::connections::{check_name, lifetime, proposals};
use super::document::Section;
use super::pools::Surroundings;
use super::report::Refusal;
use super::selectors;
use super::sessions;
use super::value;
use crate::ike::proposal::EspProposal;
use crate::ike::settings::{Child, Connection};

const ESP_PROPOSAL: &str = "aes128gcm16-x25519-esn";
/// Enough for a burst that several queues or links reorder.
const DEFAULT_WINDOW: u32 = 4096;
/// swanctl's default.
const CHILD_REKEY_TIME: Duration = Duration::from_secs(3600);

/// swanctl's words for a child that mean nothing here.
const FOREIGN_CHILD: &[(&str, &str)] = &[
    ("updown", "leave it out: the dataplane routes by itself"),
    (
        "hw_offload",
        "leave it out: the dataplane encrypts by itself",
    ),
    (
        "dpd_action",
        "leave it out: `start_action = \"start\"` brings a lost child back",
    ),
    (
        "close_action",
        "leave it out: `start_action = \"start\"` brings a lost child back",
    ),
    (
        "reqid",
        "leave it out: SAs are matched by connection and child",
    ),
    ("inactivity", "leave it out"),
    ("ah_proposals", "AH is not carried: use esp_proposals"),
];

/// Every child of a connection; those that the first packet brings up are also noted in
/// `on_demand`.
pub(super) fn read(
    section: &Section<'_>,
    connection: &str,
    surroundings: &Surroundings<'_>,
    on_demand: &mut BTreeSet<(String, String)>,
) -> Option<Vec<Child>> {
    let example = format!(
        "[connections.{connection}.children.net]\nesp_proposals = [\"{ESP_PROPOSAL}\"]\nlocal_ts = [\"10.1.0.0/16\"]\nremote_ts = [\"10.2.0.0/16\"]"
    );
    let children = section.required_section("children", &example)?;
    let named = children.named();
    let count = named.len();
    if count == 0 {
        let refusal = Refusal::new(
            format!("{}: empty", children.path),
            format!("add\n{example}"),
        );
        children.problems().refuse(&children.span, refusal);
    }
    let mut out = Vec::new();
    for (name, section) in named {
        check_name(&section, &name);
        let start = section.or("start_action", Action::None, value::word(STARTS));
        if start != Action::None && surroundings.remote_addrs.is_some_and(<[_]>::is_empty) {
            section.refuse(
                "start_action",
                Refusal::new(
                    format!("{}: nobody to start with", section.name("start_action")),
                    "name the peer in remote_addrs, or let the peer start",
                ),
            );
        }
        if start == Action::Trap {
            on_demand.insert((connection.to_owned(), name.clone()));
        }
        out.extend(child(&section, name, surroundings, start == Action::Start));
    }
    (out.len() == count).then_some(out)
}

const MODES: &[(&str, Mode)] = &[("tunnel", Mode::Tunnel), ("transport", Mode::Transport)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    None,
    Start,
    Trap,
}

const STARTS: &[(&str, Action)] = &[
    ("none", Action::None),
    ("start", Action::Start),
    ("trap", Action::Trap),
];

/// Which workers handle the SAs of a child.
const WORKERS: &[(&str, Workers)] = &[
    ("any", Workers::Any),
    ("all", Workers::All),
    ("one", Workers::One),
];

fn child(
    section: &Section<'_>,
    name: String,
    surroundings: &Surroundings<'_>,
    start: bool,
) -> Option<Child> {
    let esp_proposals = proposals::<EspProposal>(section, "esp_proposals", ESP_PROPOSAL);
    let mode = section.or("mode", Mode::Tunnel, value::word(MODES));
    let ends = selectors::read(section, mode, surroundings);
    let rekey_time = section.or("rekey_time", CHILD_REKEY_TIME, lifetime);
    let lifetimes = sessions::lifetimes(section, rekey_time);
    let replay_window = section.or("replay_window", DEFAULT_WINDOW, replay_window);
    let treatment = treatment(section);
    section.finish(FOREIGN_CHILD);
    let ends = ends?;
    Some(Child {
        name,
        mode,
        esp_proposals: esp_proposals?,
        local_ts: ends.local_ts,
        remote_ts: ends.remote_ts,
        dynamic: ends.dynamic,
        rekey_time,
        lifetimes,
        replay_window,
        options: treatment?,
        start,
    })
}

/// How packets are treated, in swanctl's words where it has them.
fn treatment(section: &Section<'_>) -> Option<SaOptions> {
    let plain = SaOptions::default();
    let (copy_out, copy_in) = section.or("copy_dscp", (true, false), value::word(COPY_DSCP));
    let dscp = section.or("set_dscp", None, |value: &DeValue<'_>| {
        value::integer(0, 63)(value).map(|dscp| Some(dscp as u8))
    });
    let copy_df = section.or("copy_df", false, value::boolean);
    let set_df = section.or("set_df", false, value::boolean);
    if copy_df && set_df {
        section.refuse(
            "set_df",
            Refusal::new(
                format!("{}: copy_df is on as well", section.name("set_df")),
                "leave one of the two out",
            ),
        );
        return None;
    }
    Some(SaOptions {
        dscp: match dscp {
            Some(dscp) => Dscp::Fixed(dscp),
            None if copy_out => Dscp::Copy,
            None => Dscp::Fixed(0),
        },
        copy_dscp_in: copy_in,
        copy_ecn: section.or("copy_ecn", plain.copy_ecn, value::boolean),
        dont_fragment: match (copy_df, set_df) {
            (true, _) => DontFragment::Copy,
            (_, true) => DontFragment::Set,
            _ => DontFragment::Clear,
        },
        padding: section.or("tfc_padding", plain.padding, tfc_padding),
        mss: section.or("mss_clamp", plain.mss, mss_clamp),
        keepalive: section.or("nat_keepalive", plain.keepalive, |value: &DeValue<'_>| {
            value::duration_within(Duration::from_secs(1), Duration::from_secs(3600))(value)
                .map(Some)
        }),
        workers: section.or("workers", plain.workers, value::word(WORKERS)),
        ..plain
    })
}

/// To the outer header, to the inner one.
const COPY_DSCP: &[(&str, (bool, bool))] = &[
    ("out", (true, false)),
    ("in", (false, true)),
    ("yes", (true, true)),
    ("no", (false, false)),
];

fn tfc_padding(value: &DeValue<'_>) -> Result<TfcPadding, Refusal> {
    if value.as_str() == Some("mtu") {
        return Ok(TfcPadding::ToMtu);
    }
    match value::integer(0, u64::from(u16::MAX))(value)? {
        0 => Ok(TfcPadding::None),
        octets => Ok(TfcPadding::To(octets as u16)),
    }
}

fn mss_clamp(value: &DeValue<'_>) -> Result<MssClamp, Refusal> {
    if value.as_str() == Some("mtu") {
        return Ok(MssClamp::ToMtu);
    }
    value::integer(536, u64::from(u16::MAX))(value).map(|octets| MssClamp::To(octets as u16))
}

/// RFC 4303 section 3.4.3 asks for 32 at least and wants 64; a power of two keeps it cheap. 0 is
/// swanctl's word for no anti-replay.
fn replay_window(value: &DeValue<'_>) -> Result<u32, Refusal> {
    let window = value::integer(0, u64::from(u32::MAX))(value)? as u32;
    if window == 0 || window.is_power_of_two() && (64..=65536).contains(&window) {
        return Ok(window);
    }
    let near = window.clamp(64, 65536).next_power_of_two();
    Err(Refusal::new(
        format!("a window of {window} packets is not possible"),
        format!("take a power of two from 64 to 65536, such as {near}, or 0 to accept replays"),
    ))
}

/// Selectors and the child that has them.
pub(super) type Policies = BTreeMap<(Vec<TrafficSelector>, Vec<TrafficSelector>), String>;

/// Two children with the same selectors: only the first would ever send.
pub(super) fn warn_of_twins(
    section: &Section<'_>,
    connection: &Connection,
    policies: &mut Policies,
) {
    for child in &connection.children {
        let name = format!("{}.{}", connection.name, child.name);
        let key = (child.local_ts.clone(), child.remote_ts.clone());
        if let Some(first) = policies.insert(key, name.clone()) {
            section.problems().warn(format!(
                "{name} has the same selectors as {first}, which stands first and takes all traffic"
            ));
        }
    }
}
