//! What a report amounts to: faults, which are violations whoever built the gateway, and notes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use super::exchanges::{Exchange, IkeEvent};
use super::permits::Permits;
use super::report::Report;

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
    /// Which numbers each SA was allowed to use.
    pub permits: Permits,
}

impl Default for Expectations {
    fn default() -> Expectations {
        Expectations {
            greatest_skip: 1 << 31,
            reordering: 4096,
            failovers: None,
            permits: Permits::default(),
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
    permitted(report, expect, &mut faults);
    let synchronisations = message_ids(report, expect, &mut faults);
    let streams = report.streams.values();
    let sas: BTreeSet<_> = report.streams.keys().map(|(key, _)| key).collect();
    Verdict {
        clean: faults.0.is_empty(),
        frames: report.frames,
        esp_packets: report.esp_packets(),
        sas: sas.len(),
        ike_messages: report.ike.len(),
        greatest_skip: streams.clone().map(|s| s.greatest_jump).max().unwrap_or(0),
        reordered: streams.map(|s| s.reordered).sum(),
        synchronisations,
        ike_auth_messages: report.count_after(Exchange::IkeAuth, std::time::Duration::ZERO),
        faults: faults.0,
        notes: notes(report),
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
            "SPI {:08x} to {}: number {} again at {:.6}",
            repeated.key.spi,
            repeated.key.destination,
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
            "SPI {:08x} to {}: IV {:016x} with numbers {} and {}",
            repeated.key.spi,
            repeated.key.destination,
            repeated.iv,
            repeated.numbers.0,
            repeated.numbers.1
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
    for ((key, tap), stream) in &report.streams {
        let name = format!(
            "SPI {:08x} to {}, file {}",
            key.spi,
            key.destination,
            tap.0 + 1
        );
        if stream.greatest_step_back > expect.reordering {
            let what = format!(
                "{name}: {} behind the highest number at {:.6}",
                stream.greatest_step_back,
                stream.greatest_step_back_time.as_secs_f64()
            );
            faults.add("went-back", what);
        }
        if stream.greatest_jump > expect.greatest_skip {
            let what = format!(
                "{name}: {} ahead at {:.6}",
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
    for ((key, _), stream) in &report.streams {
        let Some(last) = expect.permits.last(key.spi) else {
            continue;
        };
        if stream.highest > last {
            let what = format!(
                "SPI {:08x} to {}: number {} was used, {last} was granted",
                key.spi, key.destination, stream.highest
            );
            faults.add("beyond-the-grant", what);
        }
        let allowed = expect.permits.greatest_gap(key.spi);
        if allowed.is_some_and(|allowed| stream.greatest_jump > allowed) {
            let what = format!(
                "SPI {:08x} to {}: {} skipped at once, more than any lease held",
                key.spi, key.destination, stream.greatest_jump
            );
            faults.add("skipped-more-than-a-lease", what);
        }
    }
}

/// One IKE SA, one side, one kind of message, one Message ID.
type Slot = (u64, u64, IpAddr, bool, u32);

/// One Message ID, one message (RFC 7296 section 2.1); and how many synchronisations there were.
fn message_ids(report: &Report, expect: &Expectations, faults: &mut Findings) -> u64 {
    let mut first: BTreeMap<Slot, &IkeEvent> = BTreeMap::new();
    let mut zeros: BTreeMap<(u64, u64, IpAddr), BTreeSet<u64>> = BTreeMap::new();
    for event in &report.ike {
        let sa = (event.initiator_spi, event.responder_spi, event.source);
        // An IKE_SA_INIT may be sent again with a cookie or another group.
        if event.exchange == Exchange::IkeSaInit {
            continue;
        }
        if event.exchange == Exchange::Informational && event.message_id == 0 {
            if !event.response {
                zeros.entry(sa).or_default().insert(event.digest);
            }
            continue;
        }
        let slot = (sa.0, sa.1, sa.2, event.response, event.message_id);
        let earlier = *first.entry(slot).or_insert(event);
        // Fragments of one message have one Message ID (RFC 7383 section 2.5).
        let fragments = event.fragment || earlier.fragment;
        if earlier.digest != event.digest && !fragments {
            let kind = match event.response {
                true => "two-responses",
                false => "two-requests",
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
    for ((initiator, responder, source), requests) in &zeros {
        // One may be the original responder's first ordinary request.
        let most = expect.failovers.map(|failovers| failovers + 1);
        let count = requests.len() as u64;
        if most.is_some_and(|most| count > most) {
            let what = format!(
                "IKE SA {initiator:016x}-{responder:016x}: {count} different requests with Message \
                 ID 0 from {source}"
            );
            faults.add("too-many-synchronisations", what);
        }
    }
    zeros.values().map(|requests| requests.len() as u64).sum()
}

fn notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
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
            notes.push(format!("{count} {what}"));
        }
    }
    let foreign: u64 = report.streams.values().map(|s| s.iv_not_number).sum();
    if foreign > 0 {
        notes.push(format!(
            "{foreign} packets have an IV that is not their number: of extended sequence numbers \
             only the low half shows in them"
        ));
    }
    notes
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
        match (self.clean, self.esp_packets) {
            (true, 0) => writeln!(f, "nothing wrong, but no ESP was seen"),
            (true, _) => writeln!(f, "clean"),
            (false, _) => writeln!(f, "NOT clean"),
        }
    }
}
