//! One row of the table: what a fault cost, judged from what arrived and what was sent.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use hitless::audit::pcap::PcapReader;
use hitless::audit::wire::{self, Frame};
use hitless::audit::{Audit, Exchange, TapId};
use serde::Serialize;

use super::audit::Question;
use super::kinds::{Diary, Expected, Takeover};
use super::plot::Timeline;
use super::traffic::{Flow, WAYS, Way};
use super::waits::Waited;
use super::{LAST, bed, ha};
use crate::error::LabError;
use crate::scenario::milliseconds;

const CLUSTER: IpAddr = bed::CLUSTER;
/// What both members send is one tap: a number that both use is a repeat.
const MEMBERS: TapId = TapId(0);
/// What a plot shows of the time before and after a fault.
const SHOWN_BEFORE: i64 = 500;
/// And after the last event; the whole at least, and at most.
const SHOWN_AFTER: f64 = 500.0;
const SHOWN_LEAST: f64 = 1_500.0;
const SHOWN_MOST: f64 = 60_000.0;

/// Whoever sends ESP in the last so much before a fault leads.
const JUST_BEFORE: Duration = Duration::from_millis(200);

/// What a row is judged from.
pub(super) struct Evidence {
    pub flow: Flow,
    pub captured: [Result<Vec<u8>, LabError>; 2],
    /// Who led when it was struck.
    pub active: usize,
    pub struck: Duration,
    pub end: Duration,
    pub tunnels: u16,
    pub expected: Expected,
    pub question: Question,
    /// What the machine made the members wait.
    pub waited: Waited,
    /// IKE SAs of the peer, before and after.
    pub sas: [BTreeSet<(String, String)>; 2],
}

/// What one fault cost.
#[derive(Serialize, Clone, PartialEq, Debug, Default)]
pub struct Row {
    pub fault: String,
    pub what: String,
    /// How often it was done; of each figure the worst, of losses the sum.
    pub times: u32,
    pub passed: bool,
    /// From the fault to the first ESP packet of the member that took over.
    pub takeover_ms: Option<f64>,
    /// What threads of the members waited for a core meanwhile, together.
    pub waited_ms: Option<f64>,
    /// The longest time in which nothing at all arrived, and in which some tunnel was silent.
    pub outage_in_ms: Option<f64>,
    pub outage_out_ms: Option<f64>,
    pub slowest_tunnel_ms: Option<f64>,
    /// From the fault until the cluster was whole again and every tunnel carried traffic both ways;
    /// how long the fault lasted is part of it.
    pub whole_again_ms: Option<f64>,
    pub packets_sent: u64,
    pub packets_lost: u64,
    pub sas_lost: u64,
    pub delivered_twice: u64,
    pub repeated_sequence_numbers: u64,
    pub audit: String,
    /// What ought not to be.
    pub problems: Vec<String>,
    /// What does not count as one, and why.
    pub notes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
}

impl Row {
    /// A row of somebody else, for comparison.
    pub fn is_other(&self) -> bool {
        self.fault.starts_with(ha::PREFIX)
    }

    /// All that can be said of it.
    pub(super) fn finish(mut self, evidence: Evidence, mut diary: Diary, all: &mut Audit) -> Row {
        let Evidence {
            flow,
            captured,
            active,
            struck,
            end,
            tunnels,
            expected,
            question,
            waited,
            sas: [before, after],
        } = evidence;
        if before.len() < usize::from(tunnels) {
            let up = before.len();
            self.problems
                .push(format!("only {up} tunnels were up before it"));
        }
        self.judge_flow(&flow, struck, end, tunnels);
        if expected.lossless && self.packets_lost > 0 {
            let lost = self.packets_lost;
            self.problems
                .push(format!("{lost} packets lost where none may be"));
        }
        let led = captured[1 - active]
            .as_deref()
            .is_ok_and(|file| led_before(file, struck));
        let first = self.judge_captures(captured, active, struck, &mut diary, all);
        self.judge_audit(&question);
        match led {
            true => {
                let other = 2 - active;
                self.problems
                    .push(format!("m{other} led already: it hit a standby"));
            }
            false => self.judge_takeover(expected.takeover, first, struck, &waited),
        }
        self.judge_sas(&before, &after);
        self.show(&flow, struck, &diary);
        self.passed = self.problems.is_empty();
        self
    }

    fn judge_takeover(
        &mut self,
        expected: Takeover,
        first: Option<Duration>,
        struck: Duration,
        waited: &Waited,
    ) {
        let took = first.map(|first| first.saturating_sub(struck));
        let waits = first.map(|first| waited.between(struck, first));
        self.takeover_ms = took.map(milliseconds);
        self.waited_ms = waits.map(milliseconds);
        match (expected, took) {
            (Takeover::Never(_), None) | (Takeover::AtAnyTime, Some(_)) => {}
            (_, None) => self.problems.push("nobody took over".to_owned()),
            (Takeover::Within(limit), Some(took)) => {
                let waits = waits.unwrap_or_default();
                if took > limit + waits {
                    self.problems.push(format!(
                        "the takeover took {took:.1?}; {limit:?} is the most, and {waits:.1?} for \
                         what the machine made it wait"
                    ));
                }
            }
            (Takeover::Never(silence), Some(_)) => {
                let worst = waited.worst_within(silence);
                let what = "the other member took over, which nothing asked for".to_owned();
                // As long as this it may have looked dead.
                match worst >= silence / 2 {
                    true => self.notes.push(format!(
                        "{what}; the machine gave a member no core for {worst:.1?}"
                    )),
                    false => self.problems.push(what),
                }
            }
        }
    }

    fn judge_flow(&mut self, flow: &Flow, struck: Duration, end: Duration, tunnels: u16) {
        let ms = |time: Option<Duration>| time.map(milliseconds);
        self.outage_in_ms = ms(flow.outage(Way::In, struck));
        self.outage_out_ms = ms(flow.outage(Way::Out, struck));
        let slowest = WAYS.map(|way| flow.slowest(way, struck));
        self.slowest_tunnel_ms = match slowest {
            [Some(a), Some(b)] => Some(milliseconds(a.max(b))),
            _ => None,
        };
        self.packets_sent = flow.sent();
        self.packets_lost = flow.lost();
        self.delivered_twice = flow.delivered_twice();
        if self.delivered_twice > 0 {
            let twice = self.delivered_twice;
            self.problems
                .push(format!("{twice} packets were delivered twice"));
        }
        let alive = WAYS.map(|way| flow.alive_since(way, end.saturating_sub(LAST)));
        if alive.iter().any(|alive| *alive < usize::from(tunnels)) {
            let [inbound, outbound] = alive;
            self.problems.push(format!(
                "of {tunnels} tunnels {inbound} carry traffic in and {outbound} out in the end"
            ));
        }
    }

    /// What was sent; gives when the member that was not the active sent its first ESP.
    pub(super) fn judge_captures(
        &mut self,
        captured: [Result<Vec<u8>, LabError>; 2],
        active: usize,
        struck: Duration,
        diary: &mut Diary,
        all: &mut Audit,
    ) -> Option<Duration> {
        let mut audit = Audit::default();
        let mut took_over = None;
        for (index, file) in captured.iter().enumerate() {
            let file = match file {
                Ok(file) => file,
                Err(error) => {
                    self.problems
                        .push(format!("the audit is not whole: {error}"));
                    continue;
                }
            };
            for audit in [&mut audit, &mut *all] {
                if let Err(error) = audit.observe_pcap(MEMBERS, file) {
                    self.problems.push(format!("a capture: {error}"));
                }
            }
            if index != active
                && let Some(first) = first_esp(file, struck)
            {
                took_over = Some(first);
                diary
                    .0
                    .push((first, "first ESP of the other member".to_owned()));
            }
        }
        let report = audit.report();
        self.repeated_sequence_numbers = report.repeated_sequence_numbers();
        let leaked = report.leaked(|address| match address {
            IpAddr::V4(address) => address.octets()[0] == 10,
            IpAddr::V6(_) => false,
        });
        let again = report.count_after(Exchange::IkeAuth, struck) as u64;
        for (count, what) in [(leaked, "packets in clear"), (again, "new IKE_AUTH")] {
            if count > 0 {
                self.problems.push(format!("{count} {what}"));
            }
        }
        took_over
    }

    /// What the command says of the same captures, and of what was granted.
    pub(super) fn judge_audit(&mut self, question: &Question) {
        let problems = match question.ask() {
            Ok(verdict) => {
                let excused = verdict.excused();
                if !excused.is_empty() {
                    let what = excused.join(", ");
                    self.notes.push(format!("audit: {what}, as both led"));
                }
                verdict.problems()
            }
            Err(error) => vec![error.to_string()],
        };
        self.audit = match problems.is_empty() {
            true => "clean".to_owned(),
            false => "NOT CLEAN".to_owned(),
        };
        let problems = problems.into_iter();
        self.problems
            .extend(problems.map(|what| format!("audit: {what}")));
    }

    /// The captures of all trials together: a number may come again in another one.
    pub(super) fn judge_all(&mut self, all: Audit) {
        let report = all.report();
        let repeated = report.repeated_sequence_numbers();
        self.repeated_sequence_numbers = self.repeated_sequence_numbers.max(repeated);
        if repeated > 0 || report.repeated_iv_count > 0 {
            let ivs = report.repeated_iv_count;
            self.audit = "NOT CLEAN".to_owned();
            let what = format!("{repeated} repeated numbers, {ivs} repeated IVs");
            self.fail(format!("audit over all runs: {what}"));
        }
    }

    fn judge_sas(
        &mut self,
        before: &BTreeSet<(String, String)>,
        after: &BTreeSet<(String, String)>,
    ) {
        self.sas_lost = before.difference(after).count() as u64;
        if self.sas_lost > 0 {
            let (lost, all) = (self.sas_lost, before.len());
            self.problems
                .push(format!("{lost} of {all} IKE SAs are gone"));
        }
    }

    fn show(&mut self, flow: &Flow, struck: Duration, diary: &Diary) {
        let from = struck.saturating_sub(Duration::from_millis(SHOWN_BEFORE.unsigned_abs()));
        let relative = |at: &Duration| (at.as_secs_f64() - struck.as_secs_f64()) * 1000.0;
        let events: Vec<(f64, String)> = diary
            .0
            .iter()
            .map(|(at, what)| (relative(at), what.clone()))
            .collect();
        let last = events.iter().map(|(at, _)| *at).fold(0.0, f64::max);
        let until = (last + SHOWN_AFTER).clamp(SHOWN_LEAST, SHOWN_MOST);
        let count = until as usize + SHOWN_BEFORE.unsigned_abs() as usize;
        let bins = |way| flow.histogram(way, from, Duration::from_millis(1), count);
        self.timeline = Some(Timeline {
            from_ms: -SHOWN_BEFORE,
            bin_ms: 1,
            inbound: bins(Way::In),
            outbound: bins(Way::Out),
            events,
        });
    }

    pub(super) fn plot(&self, folder: Option<&Path>) -> Result<(), LabError> {
        self.plot_as(folder, &self.fault.replace(' ', "-"))
    }

    /// Under a name of its own: there may be many of one fault.
    pub(super) fn plot_as(&self, folder: Option<&Path>, name: &str) -> Result<(), LabError> {
        let (Some(folder), Some(timeline)) = (folder, &self.timeline) else {
            return Ok(());
        };
        let what = || folder.display().to_string();
        std::fs::create_dir_all(folder).map_err(LabError::io(what()))?;
        // For `hitless-perf report --faults`.
        let row = serde_json::to_vec(self).map_err(|error| LabError::io(what())(error.into()))?;
        std::fs::write(folder.join(format!("{name}.json")), row).map_err(LabError::io(what()))?;
        let file = folder.join(format!("{name}.svg"));
        let title = format!(
            "{}: packets a millisecond at the receiving hosts",
            self.what
        );
        std::fs::write(file, timeline.svg(&title)).map_err(LabError::io(what()))
    }

    /// What ought not to be, found later.
    pub(super) fn fail(&mut self, problem: String) {
        self.problems.push(problem);
        self.passed = false;
    }

    /// The longest time in which nothing arrived, one way or the other.
    pub(super) fn outage_ms(&self) -> f64 {
        let [inbound, outbound] = [self.outage_in_ms, self.outage_out_ms];
        let endless = f64::INFINITY;
        inbound.unwrap_or(endless).max(outbound.unwrap_or(endless))
    }

    /// Another run of the same: the worst of each figure.
    pub(super) fn add(&mut self, other: Row) {
        let worst = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        self.times += 1;
        let run = self.times;
        // Shown is the one in which hosts waited longest.
        if self.timeline.is_none() || other.outage_ms() > self.outage_ms() {
            self.timeline = other.timeline;
        }
        self.takeover_ms = worst(self.takeover_ms, other.takeover_ms);
        self.waited_ms = worst(self.waited_ms, other.waited_ms);
        self.outage_in_ms = worst(self.outage_in_ms, other.outage_in_ms);
        self.outage_out_ms = worst(self.outage_out_ms, other.outage_out_ms);
        self.slowest_tunnel_ms = worst(self.slowest_tunnel_ms, other.slowest_tunnel_ms);
        self.whole_again_ms = worst(self.whole_again_ms, other.whole_again_ms);
        self.packets_sent += other.packets_sent;
        self.packets_lost += other.packets_lost;
        self.sas_lost += other.sas_lost;
        self.delivered_twice += other.delivered_twice;
        self.repeated_sequence_numbers += other.repeated_sequence_numbers;
        if !other.passed {
            self.audit = other.audit;
        }
        let notes = other.notes.into_iter();
        self.notes
            .extend(notes.map(|what| format!("run {run}: {what}")));
        let problems = other.problems.into_iter();
        self.problems
            .extend(problems.map(|what| format!("run {run}: {what}")));
        self.passed &= other.passed;
    }
}

/// When the cluster's first ESP packet at or after `from` was sent.
fn first_esp(file: &[u8], from: Duration) -> Option<Duration> {
    esp_times(file).find(|at| *at >= from)
}

/// How many of them in a time.
pub(super) fn esp_between(file: &[u8], from: Duration, to: Duration) -> usize {
    esp_times(file).filter(|at| (from..to).contains(at)).count()
}

fn esp_times(file: &[u8]) -> impl Iterator<Item = Duration> {
    let records = PcapReader::new(file).into_iter().flatten();
    records.map_while(Result::ok).filter_map(|record| {
        let ours = matches!(wire::decode(record.frame), Frame::Esp(esp) if esp.source == CLUSTER);
        ours.then_some(record.time)
    })
}

/// Whether this member sent the cluster's ESP just before a fault.
fn led_before(file: &[u8], struck: Duration) -> bool {
    first_esp(file, struck.saturating_sub(JUST_BEFORE)).is_some_and(|at| at < struck)
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.1}"));
        let verdict = if self.passed { "ok  " } else { "FAIL" };
        write!(
            f,
            "{verdict} {:<18} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7}/{:<7} {:>4} {:>5}  {}",
            self.fault,
            time(self.takeover_ms),
            time(self.outage_in_ms),
            time(self.outage_out_ms),
            time(self.slowest_tunnel_ms),
            time(self.whole_again_ms),
            self.packets_lost,
            self.packets_sent,
            self.sas_lost,
            self.delivered_twice,
            self.audit
        )?;
        for problem in &self.problems {
            write!(f, "\n       {problem}")?;
        }
        for note in &self.notes {
            write!(f, "\n       note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A capture of one ESP packet of the cluster.
    fn capture(at: Duration) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend_from_slice(&[8, 0, 0x45, 0, 0, 60, 0, 0, 0, 0, 64, 50, 0, 0]);
        let IpAddr::V4(cluster) = CLUSTER else {
            panic!("the bed is IPv4");
        };
        frame.extend_from_slice(&cluster.octets());
        frame.extend_from_slice(&[192, 0, 2, 99]);
        frame.extend_from_slice(&[0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        frame.resize(14 + 60, 0);
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        let length = frame.len() as u32;
        for word in [at.as_secs() as u32, at.subsec_micros(), length, length] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(&frame);
        file
    }

    const STRUCK: Duration = Duration::from_secs(100);

    /// What the captures of the two members say, struck at [`STRUCK`] where m1 leads.
    fn judged(other: Option<Duration>, takeover: Takeover, waits: &[(u64, u64)]) -> Row {
        let empty = capture(STRUCK)[..24].to_vec();
        let ms = Duration::from_millis;
        let waits = waits.iter().map(|(at, sum)| (STRUCK + ms(*at), ms(*sum)));
        let evidence = Evidence {
            flow: Flow::default(),
            captured: [Ok(capture(STRUCK)), Ok(other.map_or(empty, capture))],
            active: 0,
            struck: STRUCK,
            end: STRUCK,
            tunnels: 0,
            expected: Expected {
                takeover,
                lossless: false,
                split: false,
            },
            question: Question::about(Path::new("true"), Path::new("/nonexistent"), "x"),
            waited: Waited::of(waits.collect()),
            sas: [BTreeSet::new(), BTreeSet::new()],
        };
        Row::default().finish(evidence, Diary::default(), &mut Audit::default())
    }

    fn says(row: &Row, what: &str) -> bool {
        row.problems.iter().any(|problem| problem.contains(what))
    }

    /// A takeover in no time at all is none: leadership had changed between the question who leads
    /// and the kill.
    #[test]
    fn a_kill_that_hits_a_standby_is_no_failover() {
        let within = Takeover::Within(Duration::from_millis(50));
        let sound = judged(Some(STRUCK + Duration::from_millis(40)), within, &[]);
        assert_eq!(sound.takeover_ms, Some(40.0));
        assert!(!says(&sound, "led") && !says(&sound, "took"));
        let wrong = judged(Some(STRUCK - Duration::from_millis(40)), within, &[]);
        assert_eq!(wrong.takeover_ms, None);
        assert!(!wrong.passed && says(&wrong, "m2 led already: it hit a standby"));
    }

    #[test]
    fn a_takeover_has_its_time_and_what_the_machine_made_it_wait() {
        let within = Takeover::Within(Duration::from_millis(50));
        let late = Some(STRUCK + Duration::from_millis(90));
        assert!(says(&judged(late, within, &[]), "the takeover took 90"));
        let waits = [(0, 0), (80, 41)];
        let row = judged(late, within, &waits);
        assert!(!says(&row, "the takeover"), "{:?}", row.problems);
        assert_eq!(row.waited_ms, Some(41.0));
        assert!(says(&judged(None, within, &waits), "nobody took over"));
        assert!(!says(&judged(late, Takeover::AtAnyTime, &[]), "takeover"));
    }

    #[test]
    fn a_takeover_that_nothing_asked_for_is_one_unless_the_machine_did() {
        let never = Takeover::Never(Duration::from_millis(30));
        let other = Some(STRUCK + Duration::from_millis(40));
        assert!(says(&judged(other, never, &[]), "nothing asked for"));
        assert!(!says(&judged(None, never, &[]), "took over"));
        let starved = judged(other, never, &[(0, 0), (4, 0), (8, 16)]);
        assert!(!says(&starved, "asked for"));
        assert!(
            starved.notes[0].contains("no core for 16"),
            "{:?}",
            starved.notes
        );
    }

    #[test]
    fn an_audit_that_cannot_be_asked_is_not_clean() {
        let row = judged(None, Takeover::AtAnyTime, &[]);
        assert!(!row.passed && row.audit == "NOT CLEAN");
        assert!(says(&row, "audit: "));
    }

    #[test]
    fn runs_in_a_row_show_the_worst_and_the_sum() {
        let run = |outage, lost, passed| Row {
            outage_in_ms: Some(outage),
            packets_lost: lost,
            audit: if passed {
                "clean"
            } else {
                "1 repeated numbers"
            }
            .to_owned(),
            problems: if passed { vec![] } else { vec!["x".to_owned()] },
            passed,
            ..Row::default()
        };
        let mut whole = Row {
            passed: true,
            audit: "clean".to_owned(),
            ..Row::default()
        };
        for row in [run(5.0, 1, true), run(9.0, 2, false), run(7.0, 3, true)] {
            whole.add(row);
        }
        assert_eq!(
            (whole.times, whole.packets_lost, whole.passed),
            (3, 6, false)
        );
        assert_eq!((whole.outage_in_ms, whole.takeover_ms), (Some(9.0), None));
        assert_eq!(
            (whole.audit.as_str(), whole.problems),
            ("1 repeated numbers", vec!["run 2: x".to_owned()])
        );
    }
}
