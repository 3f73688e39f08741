//! Real faults under real peers: strongSwan with many tunnels, traffic through every one of them,
//! and one fault after another. `hitless-testbeds faults` prints what each of them cost.
//!
//! ```text
//!  bed.rs (network, members, peer) -> kinds.rs (what is done) -> traffic.rs, captures
//!                                                                    | what arrived, what was sent
//!                                     Row: outage, loss, SAs, audit -> table, JSON, plot.rs
//! ```

mod bed;
mod disk;
mod ha;
mod kinds;
mod plot;
mod traffic;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use hitless::audit::pcap::PcapReader;
use hitless::audit::wire::{self, Frame};
use hitless::audit::{Audit, Exchange, TapId};
use serde::Serialize;

use crate::clock;
use crate::error::LabError;
use crate::scenario::{Bench, milliseconds};
use bed::Bed;
pub use bed::MOST_TUNNELS;
use kinds::Diary;
pub use kinds::Fault;
pub use plot::Timeline;
use traffic::{Flow, WAYS, Way};

const CLUSTER: IpAddr = bed::CLUSTER;
/// What both members send is one tap: a number that both use is a repeat.
const MEMBERS: TapId = TapId(0);
const BEFORE: Duration = Duration::from_secs(1);
/// Traffic at the end of a trial must have come through every tunnel in this time.
const LAST: Duration = Duration::from_millis(1500);
/// What a plot shows of the time before and after a fault.
const SHOWN_BEFORE: i64 = 500;
const SHOWN: usize = 4_500;

/// What to run.
#[derive(Clone, Debug)]
pub struct Wish {
    pub tunnels: u16,
    /// Datagrams a second, each way, over all tunnels.
    pub rate: u32,
    pub faults: Vec<Fault>,
    /// Failovers in a row, after the faults.
    pub failovers: u32,
    /// And the same kill to strongSwan's `ha` plugin.
    pub with_ha: bool,
    pub heartbeat_ms: u32,
    pub missed: u32,
    pub after: Duration,
    /// Traffic must flow everywhere so soon after a fault is over.
    pub patience: Duration,
    /// Where plots go.
    pub plots: Option<PathBuf>,
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

/// The table.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct Table {
    pub tunnels: u16,
    pub rate: u32,
    pub heartbeat_ms: u32,
    pub missed: u32,
    pub rows: Vec<Row>,
    /// What could not be done here, and why.
    pub left_out: Vec<(String, String)>,
}

impl Table {
    /// The rows of hitless; what stands beside them for comparison may fail.
    pub fn passed(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.passed || row.is_other())
    }
}

/// Runs everything. `tell` hears of each row.
pub fn run(bench: &Bench, wish: &Wish, mut tell: impl FnMut(&Row)) -> Result<Table, LabError> {
    let mut table = Table {
        tunnels: wish.tunnels,
        rate: wish.rate,
        heartbeat_ms: wish.heartbeat_ms,
        missed: wish.missed,
        rows: Vec::new(),
        left_out: Vec::new(),
    };
    if !wish.faults.is_empty() || wish.failovers > 0 {
        let mut course = Course {
            bed: Bed::new(bench, wish, 0)?,
            wish: wish.clone(),
        };
        for (number, fault) in (1..).zip(&wish.faults) {
            if let Some(why) = fault.impossible() {
                table.left_out.push((fault.name().to_owned(), why));
                continue;
            }
            let row = course.trial(*fault)?;
            let broken = !row.passed;
            tell(&row);
            table.rows.push(row);
            if broken {
                // The next one is to show its own doing. One network after the other: some of
                // their names are the same.
                course = course.renew(number)?;
            }
        }
        if wish.failovers > 0 {
            let row = course.in_a_row(wish.failovers)?;
            tell(&row);
            table.rows.push(row);
        }
    }
    if wish.with_ha {
        match ha::run(bench, wish) {
            Ok(row) => {
                tell(&row);
                table.rows.push(row);
            }
            Err(LabError::Interrupted) => return Err(LabError::Interrupted),
            // It stands beside ours for comparison: without it the table is still a table.
            Err(error) => {
                let row = (ha::PREFIX.to_owned(), error.to_string());
                table.left_out.push(row);
            }
        }
    }
    Ok(table)
}

/// One bed through all of its faults.
struct Course<'a> {
    bed: Bed<'a>,
    wish: Wish,
}

impl Course<'_> {
    /// The same on a new network.
    fn renew(self, number: u32) -> Result<Self, LabError> {
        let (bench, wish) = (self.bed.bench, self.wish);
        drop(self.bed);
        let bed = Bed::new(bench, &wish, number)?;
        Ok(Course { bed, wish })
    }

    fn trial(&mut self, fault: Fault) -> Result<Row, LabError> {
        let say = |what: &str| self.bed.bench.say(&format!("{}: {what}", fault.name()));
        say(fault.says());
        let mut row = Row {
            fault: fault.name().to_owned(),
            what: fault.says().to_owned(),
            times: 1,
            ..Row::default()
        };
        self.bed.settle()?;
        fault.prepare(&mut self.bed)?;
        let active = self.bed.settle()?;
        let before = bed::spis(&self.bed.peer)?;
        if before.len() < usize::from(self.wish.tunnels) {
            let up = before.len();
            row.problems
                .push(format!("only {up} tunnels were up before it"));
        }
        let captures = bed::captures(&self.bed.lab, fault.name(), &self.bed.directory)?;
        let traffic = bed::traffic(&self.bed.lab, &self.wish)?;
        clock::pass(BEFORE)?;
        let mut diary = Diary::default();
        let struck = fault.strike(&mut self.bed, active, self.wish.after, &mut diary);
        let struck = struck.or_else(|error| match error {
            LabError::Interrupted => Err(error),
            error => {
                row.problems.push(error.to_string());
                let first = diary.0.first().map(|(at, _)| *at);
                Ok(first.unwrap_or_else(clock::wall))
            }
        })?;
        let whole = clock::wall();
        let patience = self.wish.patience;
        let flows = clock::until("traffic through every tunnel", patience, || {
            Ok(traffic.flows_since(whole).then_some(()))
        });
        match flows {
            Ok(()) => row.whole_again_ms = Some(milliseconds(clock::wall().saturating_sub(struck))),
            Err(LabError::Interrupted) => return Err(LabError::Interrupted),
            // The streams themselves say below which of them are dead.
            Err(_) => {}
        }
        clock::pass(LAST)?;
        let end = clock::wall();
        let flow = traffic.stop()?;
        let [m1, m2] = captures;
        let captured = [m1.stop(), m2.stop()];
        self.keep_statuses(fault.name());
        row.judge_flow(&flow, struck, end, self.wish.tunnels);
        row.judge_captures(captured, active, struck, &mut diary);
        if fault.deposes() && row.takeover_ms.is_none() {
            row.problems.push("nobody took over".to_owned());
        }
        row.judge_sas(&before, &bed::spis(&self.bed.peer)?);
        row.show(&flow, struck, &diary);
        row.passed = row.problems.is_empty();
        self.plot(&row)?;
        Ok(row)
    }

    /// One SIGKILL after another, each to whoever leads then.
    fn in_a_row(&mut self, count: u32) -> Result<Row, LabError> {
        let mut whole = Row {
            fault: format!("failovers x{count}"),
            what: "SIGKILL to the active, again and again".to_owned(),
            passed: true,
            audit: "clean".to_owned(),
            ..Row::default()
        };
        for _ in 0..count {
            let row = self.trial(Fault::Kill)?;
            whole.add(row);
        }
        Ok(whole)
    }

    fn keep_statuses(&mut self, moment: &str) {
        for member in self.bed.members.iter().flatten() {
            // For whoever looks into the logs; without it there is nothing to see there.
            let _: Result<(), LabError> = member.keep_status(moment);
        }
    }

    fn plot(&self, row: &Row) -> Result<(), LabError> {
        row.plot(self.wish.plots.as_deref())
    }
}

impl Row {
    /// A row of somebody else, for comparison.
    pub fn is_other(&self) -> bool {
        self.fault.starts_with(ha::PREFIX)
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

    fn judge_captures(
        &mut self,
        captured: [Result<Vec<u8>, LabError>; 2],
        active: usize,
        struck: Duration,
        diary: &mut Diary,
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
            if let Err(error) = audit.observe_pcap(MEMBERS, file) {
                self.problems.push(format!("a capture: {error}"));
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

    fn plot(&self, folder: Option<&std::path::Path>) -> Result<(), LabError> {
        let (Some(folder), Some(timeline)) = (folder, &self.timeline) else {
            return Ok(());
        };
        let what = || folder.display().to_string();
        std::fs::create_dir_all(folder).map_err(LabError::io(what()))?;
        let file = folder.join(format!("{}.svg", self.fault.replace(' ', "-")));
        let title = format!(
            "{}: packets a millisecond at the receiving hosts",
            self.what
        );
        std::fs::write(file, timeline.svg(&title)).map_err(LabError::io(what()))
    }

    /// Another run of the same: the worst of each figure.
    fn add(&mut self, other: Row) {
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

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} tunnels to strongSwan, {} datagrams/s each way, heartbeat {} ms x {}; times in ms",
            self.tunnels, self.rate, self.heartbeat_ms, self.missed
        )?;
        writeln!(
            f,
            "     {:<18} {:>9} {:>9} {:>9} {:>9} {:>9} {:>15} {:>4} {:>5}  audit",
            "fault",
            "takeover",
            "outage in",
            "out",
            "slowest",
            "whole",
            "lost/sent",
            "SAs",
            "twice"
        )?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        for (fault, why) in &self.left_out {
            writeln!(f, "SKIP {fault:<18} {why}")?;
        }
        let ours = || self.rows.iter().filter(|row| !row.is_other());
        let failed = ours().filter(|row| !row.passed).count();
        write!(f, "faults: {} rows, {failed} failed", ours().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn others_may_fail_but_an_empty_table_is_no_success() {
        let mut table = Table {
            tunnels: 1,
            rate: 1,
            heartbeat_ms: 10,
            missed: 3,
            rows: Vec::new(),
            left_out: Vec::new(),
        };
        assert!(!table.passed());
        let row = |fault: &str, passed| Row {
            fault: fault.to_owned(),
            passed,
            ..Row::default()
        };
        table.rows = vec![row("kill", true), row("strongswan-ha kill", false)];
        assert!(table.passed());
        table.rows[0].passed = false;
        assert!(!table.passed());
    }
}
