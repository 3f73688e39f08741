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

use super::kinds::Diary;
use super::plot::Timeline;
use super::traffic::{Flow, WAYS, Way};
use super::{LAST, bed, ha};
use crate::error::LabError;
use crate::scenario::milliseconds;

const CLUSTER: IpAddr = bed::CLUSTER;
/// What both members send is one tap: a number that both use is a repeat.
const MEMBERS: TapId = TapId(0);
/// What a plot shows of the time before and after a fault.
const SHOWN_BEFORE: i64 = 500;
const SHOWN: usize = 4_500;

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
    /// The other one has to take over.
    pub deposes: bool,
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
            deposes,
            sas: [before, after],
        } = evidence;
        if before.len() < usize::from(tunnels) {
            let up = before.len();
            self.problems
                .push(format!("only {up} tunnels were up before it"));
        }
        self.judge_flow(&flow, struck, end, tunnels);
        let led = captured[1 - active]
            .as_deref()
            .is_ok_and(|file| led_before(file, struck));
        self.judge_captures(captured, active, struck, &mut diary, all);
        if led {
            self.takeover_ms = None;
            let other = 2 - active;
            self.problems
                .push(format!("m{other} led already: it hit a standby"));
        } else if deposes && self.takeover_ms.is_none() {
            self.problems.push("nobody took over".to_owned());
        }
        self.judge_sas(&before, &after);
        self.show(&flow, struck, &diary);
        self.passed = self.problems.is_empty();
        self
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

    pub(super) fn judge_captures(
        &mut self,
        captured: [Result<Vec<u8>, LabError>; 2],
        active: usize,
        struck: Duration,
        diary: &mut Diary,
        all: &mut Audit,
    ) {
        let mut audit = Audit::default();
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
                self.takeover_ms = Some(milliseconds(first.saturating_sub(struck)));
                diary
                    .0
                    .push((first, "first ESP of the other member".to_owned()));
            }
        }
        let report = audit.report();
        self.repeated_sequence_numbers = report.repeated_sequence_numbers();
        let mut faults = Vec::new();
        let leaked = report.leaked(|address| match address {
            IpAddr::V4(address) => address.octets()[0] == 10,
            IpAddr::V6(_) => false,
        });
        for (count, what) in [
            (report.repeated_sequence_numbers(), "repeated numbers"),
            (report.repeated_iv_count, "repeated IVs"),
            (leaked, "packets in clear"),
            (report.cut, "frames cut"),
            (
                report.count_after(Exchange::IkeAuth, struck) as u64,
                "new IKE_AUTH",
            ),
        ] {
            if count > 0 {
                faults.push(format!("{count} {what}"));
            }
        }
        if report.esp_packets() == 0 {
            faults.push("no ESP seen".to_owned());
        }
        self.audit = match faults.is_empty() {
            true => "clean".to_owned(),
            false => faults.join(", "),
        };
        if !faults.is_empty() {
            self.problems.push(format!("audit: {}", self.audit));
        }
    }

    /// The captures of all trials together: a number may come again in another one.
    pub(super) fn judge_all(&mut self, all: Audit) {
        let report = all.report();
        let repeated = report.repeated_sequence_numbers();
        self.repeated_sequence_numbers = self.repeated_sequence_numbers.max(repeated);
        if repeated > 0 || report.repeated_iv_count > 0 {
            let ivs = report.repeated_iv_count;
            self.audit = format!("over all runs: {repeated} repeated numbers, {ivs} repeated IVs");
            self.problems.push(format!("audit {}", self.audit));
            self.passed = false;
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
        let bins = |way| flow.histogram(way, from, Duration::from_millis(1), SHOWN);
        let relative = |at: &Duration| (at.as_secs_f64() - struck.as_secs_f64()) * 1000.0;
        self.timeline = Some(Timeline {
            from_ms: -SHOWN_BEFORE,
            bin_ms: 1,
            inbound: bins(Way::In),
            outbound: bins(Way::Out),
            events: diary
                .0
                .iter()
                .map(|(at, what)| (relative(at), what.clone()))
                .collect(),
        });
    }

    pub(super) fn plot(&self, folder: Option<&Path>) -> Result<(), LabError> {
        let (Some(folder), Some(timeline)) = (folder, &self.timeline) else {
            return Ok(());
        };
        let what = || folder.display().to_string();
        std::fs::create_dir_all(folder).map_err(LabError::io(what()))?;
        let name = self.fault.replace(' ', "-");
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

    /// Another run of the same: the worst of each figure.
    pub(super) fn add(&mut self, other: Row) {
        let worst = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        self.times += 1;
        self.takeover_ms = worst(self.takeover_ms, other.takeover_ms);
        self.outage_in_ms = worst(self.outage_in_ms, other.outage_in_ms);
        self.outage_out_ms = worst(self.outage_out_ms, other.outage_out_ms);
        self.slowest_tunnel_ms = worst(self.slowest_tunnel_ms, other.slowest_tunnel_ms);
        self.whole_again_ms = worst(self.whole_again_ms, other.whole_again_ms);
        self.packets_sent += other.packets_sent;
        self.packets_lost += other.packets_lost;
        self.sas_lost += other.sas_lost;
        self.delivered_twice += other.delivered_twice;
        self.repeated_sequence_numbers += other.repeated_sequence_numbers;
        if other.audit != "clean" {
            self.audit = other.audit;
        }
        let run = self.times;
        let problems = other.problems.into_iter();
        self.problems
            .extend(problems.map(|what| format!("run {run}: {what}")));
        self.passed &= other.passed;
    }
}

/// When the cluster's first ESP packet at or after `from` was sent.
fn first_esp(file: &[u8], from: Duration) -> Option<Duration> {
    let records = PcapReader::new(file).ok()?.map_while(Result::ok);
    let mut sent = records.filter(|record| {
        record.time >= from
            && matches!(wire::decode(record.frame), Frame::Esp(esp) if esp.source == CLUSTER)
    });
    sent.next().map(|record| record.time)
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

    /// A takeover in no time at all is none: leadership had changed between the question who leads
    /// and the kill.
    #[test]
    fn a_kill_that_hits_a_standby_is_no_failover() {
        let struck = Duration::from_secs(100);
        let judged = |other: Duration| {
            let evidence = Evidence {
                flow: Flow::default(),
                captured: [Ok(capture(struck)), Ok(capture(other))],
                active: 0,
                struck,
                end: struck,
                tunnels: 0,
                deposes: true,
                sas: [BTreeSet::new(), BTreeSet::new()],
            };
            Row::default().finish(evidence, Diary::default(), &mut Audit::default())
        };
        let sound = judged(struck + Duration::from_millis(40));
        assert_eq!(sound.takeover_ms, Some(40.0));
        assert!(!sound.problems.iter().any(|what| what.contains("led")));
        let wrong = judged(struck - Duration::from_millis(40));
        assert_eq!(wrong.takeover_ms, None);
        assert!(!wrong.passed);
        let said = "m2 led already: it hit a standby".to_owned();
        assert!(wrong.problems.contains(&said), "{:?}", wrong.problems);
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
