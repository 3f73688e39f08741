//! What a report amounts to: faults, which are violations whoever built the gateway, and notes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use super::exchanges::{Exchange, IkeEvent};
use super::ledger::{EspKey, Stream};
use super::permits::Permits;
use super::report::{Places, Report, TapId};
use super::tenures::{Split, hidden};

/// Examples named for each kind of fault.
const EXAMPLES: usize = 3;

/// What is expected of the captures.
#[derive(Clone, Debug)]
pub struct Expectations {
    /// A greater step to a higher number cannot be told from one backwards by a receiver that
    /// infers the high half (RFC 4303 appendix A2.2).
    pub greatest_skip: u64,
    /// A packet that is further behind the highest number is no reordering: somebody began again.
    pub reordering: u64,
    /// Failovers during the captures: an IKE SA may be synchronised once for each (RFC 6311).
    pub failovers: Option<u64>,
    /// Which numbers each SA was allowed to use, whoever sent them.
    pub permits: Permits,
    /// And by the member whose port a tap is.
    pub members: BTreeMap<TapId, Permits>,
}

impl Default for Expectations {
    fn default() -> Expectations {
        Expectations {
            greatest_skip: 1 << 31,
            reordering: 4096,
            failovers: None,
            permits: Permits::default(),
            members: BTreeMap::new(),
        }
    }
}

/// One kind of violation.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Stable, for tools.
    pub kind: &'static str,
    pub count: u64,
    /// The first of them, in words.
    pub examples: Vec<String>,
}

/// The verdict. The names of the fields are an interface.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub clean: bool,
    /// Everything that was to be judged could be; if not, `notes` says what could not.
    pub conclusive: bool,
    pub frames: u64,
    pub esp_packets: u64,
    pub sas: usize,
    pub ike_messages: usize,
    pub greatest_skip: u64,
    pub reordered: u64,
    /// Requests with Message ID 0 in INFORMATIONAL, one that was repeated counted once: Message ID
    /// synchronisations, and the original responder's first ordinary request.
    pub synchronisations: u64,
    pub ike_auth_messages: usize,
    pub faults: Vec<Finding>,
    /// Why this proves less than it says.
    pub notes: Vec<String>,
}

/// Collects findings of one kind.
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, kind: &'static str, what: String) {
        self.count(kind, 1, what);
    }

    fn count(&mut self, kind: &'static str, count: u64, what: String) {
        let index = match self.0.iter().position(|finding| finding.kind == kind) {
            Some(index) => index,
            None => {
                self.0.push(Finding {
                    kind,
                    count: 0,
                    examples: Vec::new(),
                });
                self.0.len() - 1
            }
        };
        if let Some(finding) = self.0.get_mut(index) {
            finding.count += count;
            if finding.examples.len() < EXAMPLES {
                finding.examples.push(what);
            }
        }
    }
}

/// Judges captures.
pub fn judge(report: &Report, expect: &Expectations) -> Verdict {
    let mut faults = Findings(Vec::new());
    numbers(report, &mut faults);
    order(report, expect, &mut faults);
    let mut lacking = Findings(Vec::new());
    permitted(report, expect, &mut lacking);
    // What some of whose grants were lost may have been permitted all the same.
    if expect.permits.lost() == 0 {
        faults.0.append(&mut lacking.0);
    }
    message_ids(report, &mut faults);
    let zeros = synchronisations(report);
    answers_to_zero(report, &zeros, &mut faults);
    let most = too_many(report, expect, &zeros, &mut faults);
    let sent = report.sent.values();
    let mut doubts = doubts(report, expect);
    doubts.extend(lacking.0.iter().map(unproved));
    doubts.extend(most);
    Verdict {
        clean: faults.0.is_empty(),
        conclusive: doubts.is_empty(),
        frames: report.frames,
        esp_packets: report.esp_packets(),
        sas: report.sent.len(),
        ike_messages: report.ike.len(),
        greatest_skip: sent.clone().map(|s| s.greatest_jump).max().unwrap_or(0),
        reordered: sent.map(|s| s.reordered).sum(),
        synchronisations: zeros.values().map(|digests| digests.len() as u64).sum(),
        ike_auth_messages: report.count_after(Exchange::IkeAuth, std::time::Duration::ZERO),
        faults: faults.0,
        notes: doubts
            .into_iter()
            .chain(foreign(report))
            .chain(passed_over(report))
            .chain(splits(report))
            .collect(),
    }
}

/// S1 and S2.
fn numbers(report: &Report, faults: &mut Findings) {
    for repeated in &report.repeated {
        let kind = match repeated.distinct {
            true => "repeated-number",
            false => "packet-sent-twice",
        };
        let what = format!(
            "{}: number {} again at {:.6}",
            repeated.key,
            repeated.number,
            repeated.time.as_secs_f64()
        );
        faults.add(kind, what);
    }
    // Beyond those that were kept in detail.
    let kept = report.repeated.len() as u64;
    let all = report.repeated_sequence_numbers();
    if all > kept {
        faults.count("repeated-number", all - kept, "and more".to_owned());
    }
    for repeated in &report.repeated_ivs {
        let what = format!(
            "{}: IV {:016x} with numbers {} and {}",
            repeated.key, repeated.iv, repeated.numbers.0, repeated.numbers.1
        );
        faults.add("repeated-iv", what);
    }
    let kept = report.repeated_ivs.len() as u64;
    if report.repeated_iv_count > kept {
        let more = report.repeated_iv_count - kept;
        faults.count("repeated-iv", more, "and more".to_owned());
    }
}

/// Order across a failover: neither back nor too far ahead.
fn order(report: &Report, expect: &Expectations, faults: &mut Findings) {
    for (key, stream) in &report.sent {
        if stream.greatest_step_back > expect.reordering {
            let what = format!(
                "{key}: {} behind the highest number at {:.6}",
                stream.greatest_step_back,
                stream.greatest_step_back_time.as_secs_f64()
            );
            // Each of two members that lead goes on where it may: one below the other.
            let split = report.places == Places::OneForAll
                && hidden(
                    &report.splits,
                    stream.source,
                    stream.greatest_step_back_time,
                );
            let kind = match split {
                true => "went-back-of-a-split",
                false => "went-back",
            };
            faults.add(kind, what);
        }
        if stream.greatest_jump > expect.greatest_skip {
            let what = format!(
                "{key}: {} ahead at {:.6}",
                stream.greatest_jump,
                stream.greatest_jump_time.as_secs_f64()
            );
            faults.add("skipped-too-far", what);
        }
    }
}

/// The ledger of what was granted.
fn permitted(report: &Report, expect: &Expectations, faults: &mut Findings) {
    if expect.permits.is_empty() {
        return;
    }
    let sources = granted_sources(report, &expect.permits);
    for (key, stream) in &report.sent {
        if !sources.contains(&stream.source) {
            continue;
        }
        let Some(last) = expect.permits.last(key.spi) else {
            let what = format!(
                "{key}: {} sent on it, which the ledger lacks",
                stream.source
            );
            faults.count("sent-without-a-grant", stream.packets, what);
            continue;
        };
        let allowed = expect.permits.greatest_gap(key.spi);
        if allowed.is_some_and(|allowed| stream.greatest_jump > allowed) {
            let what = format!(
                "{key}: {} skipped at once, more than any lease held",
                stream.greatest_jump
            );
            faults.add("skipped-more-than-a-lease", what);
        }
        if half_seen(stream, last) {
            continue;
        }
        for (number, taps) in report.used(*key) {
            if number > last {
                let what = format!("{key}: number {number} was used, {last} was granted");
                faults.add("beyond-the-grant", what);
            } else if !expect.permits.holds(key.spi, number) {
                let what = format!("{key}: number {number} was used, no grant holds it");
                faults.add("outside-the-grants", what);
            }
            for (tap, _) in taps {
                let own = expect.members.get(tap);
                if own.is_some_and(|own| !own.holds(key.spi, number)) {
                    let what = format!(
                        "{key}: number {number} in file {} was not granted to that member",
                        tap.0 + 1
                    );
                    faults.add("not-granted-to-the-sender", what);
                }
            }
        }
    }
}

/// Only the low halves travel, and the grants are beyond them.
fn half_seen(stream: &Stream, last: u64) -> bool {
    stream.iv_not_number > 0 && last > u64::from(u32::MAX)
}

/// Whose grants the ledger holds. It has SPIs alone, so the other side is whoever uses none of them.
fn granted_sources(report: &Report, permits: &Permits) -> BTreeSet<IpAddr> {
    let known = report
        .sent
        .iter()
        .filter(|(key, _)| permits.last(key.spi).is_some());
    known.map(|(_, stream)| stream.source).collect()
}

/// One IKE SA, one side, one kind of message, one Message ID.
type Slot = (u64, u64, IpAddr, bool, (u32, Option<(u16, u16)>));

/// A request that has the Message ID of a synchronisation.
fn zero(event: &IkeEvent) -> bool {
    event.exchange == Exchange::Informational && event.message_id == 0
}

/// One Message ID, one message (RFC 7296 section 2.1).
fn message_ids(report: &Report, faults: &mut Findings) {
    let mut first: BTreeMap<Slot, &IkeEvent> = BTreeMap::new();
    for event in &report.ike {
        // An IKE_SA_INIT may be sent again with a cookie or another group.
        if event.exchange == Exchange::IkeSaInit || zero(event) {
            continue;
        }
        let sa = (event.initiator_spi, event.responder_spi, event.source);
        // Fragments of one message have one Message ID (RFC 7383 section 2.5).
        let number = (event.message_id, event.fragment);
        let slot = (sa.0, sa.1, sa.2, event.response, number);
        let earlier = *first.entry(slot).or_insert(event);
        if earlier.digest != event.digest {
            // Members that cannot hear each other do not know which Message IDs the other one uses.
            let split = report.places == Places::OneForAll
                && earlier.tap != event.tap
                && hidden(&report.splits, event.source, earlier.time);
            let kind = match (event.response, split) {
                (true, false) => "two-responses",
                (false, false) => "two-requests",
                (true, true) => "two-responses-of-a-split",
                (false, true) => "two-requests-of-a-split",
            };
            let what = format!(
                "IKE SA {:016x}-{:016x}: {} with Message ID {} from {} differs at {:.6} from that at \
                 {:.6}",
                sa.0,
                sa.1,
                event.exchange,
                event.message_id,
                event.source,
                event.time.as_secs_f64(),
                earlier.time.as_secs_f64()
            );
            faults.add(kind, what);
        }
    }
}

/// Message ID 0 of an INFORMATIONAL exchange may be that of several requests, and each of them has one
/// response (RFC 6311 section 5.1: a synchronisation that is sent again is answered as before).
fn answers_to_zero(
    report: &Report,
    zeros: &BTreeMap<Side, BTreeMap<u64, u64>>,
    faults: &mut Findings,
) {
    type Fragment = Option<(u16, u16)>;
    let mut answers: BTreeMap<(u64, u64, bool, Fragment), BTreeSet<u64>> = BTreeMap::new();
    for event in report.ike.iter().filter(|e| zero(e) && e.response) {
        let (initiator, responder) = (event.initiator_spi, event.responder_spi);
        let side = (initiator, responder, event.initiator, event.fragment);
        answers.entry(side).or_default().insert(event.digest);
    }
    // Whatever address the other side asked from.
    let mut requests: BTreeMap<(u64, u64, bool), BTreeSet<u64>> = BTreeMap::new();
    for ((initiator, responder, _, is_initiator), digests) in zeros {
        let side = (*initiator, *responder, !is_initiator);
        requests.entry(side).or_default().extend(digests.keys());
    }
    for ((initiator, responder, is_initiator, _), answers) in answers {
        // Of requests that were not captured nothing is known.
        let asked = requests.get(&(initiator, responder, is_initiator));
        if let Some(asked) = asked.filter(|asked| answers.len() > asked.len()) {
            let what = format!(
                "IKE SA {initiator:016x}-{responder:016x}: {} different responses with Message ID 0 to {} \
                 requests",
                answers.len(),
                asked.len()
            );
            faults.add("two-responses", what);
        }
    }
}

/// One IKE SA and one side of it; whether that is its original initiator.
type Side = (u64, u64, IpAddr, bool);

/// The different requests with Message ID 0, each with the tenure in which it was first sent.
fn synchronisations(report: &Report) -> BTreeMap<Side, BTreeMap<u64, u64>> {
    let mut zeros: BTreeMap<Side, BTreeMap<u64, u64>> = BTreeMap::new();
    for event in report
        .ike
        .iter()
        .filter(|event| zero(event) && !event.response)
    {
        let (initiator, responder) = (event.initiator_spi, event.responder_spi);
        let side = (initiator, responder, event.source, event.initiator);
        let digests = zeros.entry(side).or_default();
        digests.entry(event.digest).or_insert(event.tenure);
    }
    zeros
}

/// One synchronisation for each IKE SA and failover (RFC 6311 section 7). Failovers are known if
/// somebody says how many there were, or if the ports of all members were captured: then whoever
/// sends changes with each. If neither, that is a doubt as soon as there are several.
fn too_many(
    report: &Report,
    expect: &Expectations,
    zeros: &BTreeMap<Side, BTreeMap<u64, u64>>,
    faults: &mut Findings,
) -> Vec<String> {
    let (mut unknown, mut unknown_first) = (0, 0);
    let inits = report.ike.iter();
    let inits = inits.filter(|event| event.exchange == Exchange::IkeSaInit);
    let begun: BTreeSet<u64> = inits.map(|event| event.initiator_spi).collect();
    for ((initiator, responder, source, is_initiator), digests) in zeros {
        // The first ordinary request of either side has Message ID 0, and that of who began with an
        // IKE_SA_INIT was this. Who began with the rekeying of another IKE SA made none.
        let ordinary = u64::from(!is_initiator);
        let perhaps = ordinary.max(u64::from(!begun.contains(initiator)));
        let count = digests.len() as u64;
        let most = match (expect.failovers, report.places) {
            (Some(failovers), _) => failovers,
            (None, Places::OneForAll) if report.taps > 1 => {
                digests.values().collect::<BTreeSet<_>>().len() as u64
            }
            (None, _) if count > 1 + ordinary => {
                unknown += 1;
                continue;
            }
            (None, _) => continue,
        };
        if count > most + ordinary && count <= most + perhaps {
            unknown_first += 1;
        } else if count > most + ordinary {
            let what = format!(
                "IKE SA {initiator:016x}-{responder:016x}: {count} different requests with Message \
                 ID 0 from {source}"
            );
            faults.add("too-many-synchronisations", what);
        }
    }
    let mut doubts = Vec::new();
    if unknown > 0 {
        doubts.push(format!(
            "{unknown} IKE SAs were synchronised more than once: say how often the gateway failed \
             over (--failovers)"
        ));
    }
    if unknown_first > 0 {
        doubts.push(format!(
            "{unknown_first} IKE SAs, whose IKE_SA_INIT was not captured, have one request with Message \
             ID 0 too many, unless they are of a rekeying: then it is their first"
        ));
    }
    doubts
}

/// Why the captures prove less than they ought to.
fn doubts(report: &Report, expect: &Expectations) -> Vec<String> {
    let mut doubts = Vec::new();
    if report.esp_packets() == 0 {
        doubts.push("no ESP was seen".to_owned());
    }
    for (count, what) in [
        (
            report.cut,
            "frames are cut: capture whole ones (tcpdump -s 0)",
        ),
        (report.fragments, "IP fragments cannot be looked into"),
        (
            report.malformed.values().sum(),
            "frames could not be decoded",
        ),
        (report.ike_not_kept, "IKE messages were too many to be kept"),
    ] {
        if count > 0 {
            doubts.push(format!("{count} {what}"));
        }
    }
    if expect.permits.lost() > 0 {
        doubts.push(format!(
            "{} grants are missing in the ledger",
            expect.permits.lost()
        ));
    }
    if expect.permits.is_empty() {
        return doubts;
    }
    let known = |key: &EspKey| expect.permits.last(key.spi);
    if !report.sent.keys().any(|key| known(key).is_some()) {
        doubts.push("no SA of the ledger was seen".to_owned());
    }
    let half = report
        .sent
        .iter()
        .filter(|(key, stream)| known(key).is_some_and(|last| half_seen(stream, last)));
    let half = half.count();
    if half > 0 {
        doubts.push(format!(
            "{half} SAs show only the low half of their numbers, and were granted higher ones"
        ));
    }
    doubts
}

/// What would be a fault if the ledger were whole.
fn unproved(finding: &Finding) -> String {
    let example = finding.examples.first().map_or("", String::as_str);
    format!(
        "{} may be for want of what the ledger lost: {}: {example}",
        finding.count, finding.kind
    )
}

fn foreign(report: &Report) -> Option<String> {
    let foreign: u64 = report.sent.values().map(|s| s.iv_not_number).sum();
    (foreign > 0).then(|| {
        format!(
            "{foreign} packets have an IV that is not their number: of extended sequence numbers \
             only the low half shows in them"
        )
    })
}

/// `hitless capture` writes both; what is in clear repeats what the frames carry.
fn passed_over(report: &Report) -> Option<String> {
    let count = report.passed_over;
    (count > 0).then(|| format!("{count} packets that are no Ethernet frames were passed over"))
}

/// Members that led at once: no number may be repeated even then, but Message IDs can be.
fn splits(report: &Report) -> impl Iterator<Item = String> {
    let together = report.places == Places::OneForAll;
    let splits = report.splits.iter().filter(move |_| together);
    let each = splits.flat_map(|(source, splits)| splits.iter().map(move |split| (source, split)));
    each.map(|(source, Split { from, to, .. })| {
        format!(
            "{source} was sent from in two files at once from {:.6} to {:.6}: a split, both members \
             led, each for itself",
            from.as_secs_f64(),
            to.as_secs_f64()
        )
    })
    .take(EXAMPLES)
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} frames: {} ESP packets of {} SAs, {} IKE messages ({} of IKE_AUTH)",
            self.frames, self.esp_packets, self.sas, self.ike_messages, self.ike_auth_messages
        )?;
        writeln!(
            f,
            "greatest skip {}, {} packets out of order, {} requests with Message ID 0",
            self.greatest_skip, self.reordered, self.synchronisations
        )?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for fault in &self.faults {
            writeln!(f, "FAULT {}: {}", fault.kind, fault.count)?;
            for example in &fault.examples {
                writeln!(f, "  {example}")?;
            }
        }
        match (self.clean, self.conclusive) {
            (true, true) => writeln!(f, "clean"),
            (true, false) => writeln!(f, "nothing wrong was seen, but not all could be judged"),
            (false, _) => writeln!(f, "NOT clean"),
        }
    }
}
