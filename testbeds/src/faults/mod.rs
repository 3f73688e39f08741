//! Real faults under real peers: strongSwan with many tunnels, traffic through every one of them,
//! and one fault after another. `hitless-testbeds faults` prints what each of them cost.
//!
//! ```text
//!  bed.rs (network, members, peer) -> kinds.rs (what is done) -> traffic.rs, captures
//!                                                                    | what arrived, what was sent
//!                            judge.rs -> row.rs: outage, loss, SAs, audit -> table, JSON, plot.rs
//! ```

mod audit;
pub(crate) mod bed;
mod crowd;
pub mod degraded;
mod disk;
mod expected;
mod ha;
mod judge;
mod kinds;
mod lossy;
mod plot;
mod row;
mod takeovers;
mod traffic;
mod waits;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use hitless::audit::Audit;
use serde::Serialize;

use crate::capture::Capture;
use crate::clock;
use crate::error::LabError;
use crate::scenario::{Bench, milliseconds};
use bed::Bed;
pub use bed::MOST_TUNNELS;
use judge::Evidence;
use kinds::Diary;
pub use kinds::Fault;
pub use plot::Timeline;
pub use row::Row;
use traffic::Traffic;

const BEFORE: Duration = Duration::from_secs(1);
/// What a takeover may take beyond the silence that shows a death: 50 ms in all at the default timers
/// (10 ms, 3 missed).
const BEYOND: Duration = Duration::from_millis(20);
/// Traffic at the end of a trial must have come through every tunnel in this time.
const LAST: Duration = Duration::from_millis(1500);

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub tunnels: u16,
    /// Tunnels that carry traffic, if not all do.
    pub busy: Option<u16>,
    /// Datagrams a second, each way, over all tunnels that carry any.
    pub rate: u32,
    pub faults: Vec<Fault>,
    /// Failovers in a row, after the faults.
    pub failovers: u32,
    /// Kills each of a cluster with few, with many and with very many tunnels: how long a takeover
    /// takes.
    pub takeovers: u32,
    /// The same with so many SAs of peers of ours, several numbers.
    pub crowd: Vec<u32>,
    /// And the same kill to strongSwan's `ha` plugin.
    pub with_ha: bool,
    pub heartbeat_ms: u32,
    pub missed: u32,
    /// What an active does without a standby: `rekey`, `strict`, or `witness`, which there is then.
    pub degraded: String,
    pub after: Duration,
    /// Traffic must flow everywhere so soon after a fault is over.
    pub patience: Duration,
    /// Where plots go.
    pub plots: Option<PathBuf>,
}

impl Wish {
    /// How many tunnels carry traffic.
    fn busy(&self) -> u16 {
        self.busy.unwrap_or(self.tunnels).min(self.tunnels)
    }
}

/// The table.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct Table {
    pub tunnels: u16,
    pub rate: u32,
    pub heartbeat_ms: u32,
    pub missed: u32,
    pub rows: Vec<Row>,
    /// How many of them passed while something that was found is not judged: `ok*`.
    pub excused: usize,
    /// What could not be done here, and why.
    pub left_out: Vec<(String, String)>,
}

impl Table {
    /// Rows of hitless of which something is not judged.
    fn not_judged(&self) -> usize {
        let ours = self.rows.iter().filter(|row| !row.is_other());
        ours.filter(|row| row.passed && row.excused).count()
    }

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
        excused: 0,
        left_out: Vec::new(),
    };
    if !wish.faults.is_empty() || wish.failovers > 0 {
        let mut course = Course {
            bed: Bed::new(bench, wish, 0)?,
            wish: wish.clone(),
            wire: Audit::default(),
        };
        for (number, fault) in (1..).zip(&wish.faults) {
            if let Some(why) = fault.impossible() {
                table.left_out.push((fault.name().to_owned(), why));
                continue;
            }
            let row = course.attempt(*fault, fault.name())?;
            row.plot(wish.plots.as_deref())?;
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
            row.plot(wish.plots.as_deref())?;
            tell(&row);
            table.rows.push(row);
        }
    }
    if wish.takeovers > 0 {
        takeovers::run(bench, wish, |row| {
            tell(&row);
            table.rows.push(row);
        })?;
    }
    for sas in &wish.crowd {
        let row = crowd::run(bench, wish, *sas)?;
        row.plot(wish.plots.as_deref())?;
        tell(&row);
        table.rows.push(row);
    }
    if wish.with_ha {
        match ha::run(bench, wish) {
            Ok(row) => {
                row.plot(wish.plots.as_deref())?;
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
    table.excused = table.not_judged();
    Ok(table)
}

/// One bed through all of its faults.
struct Course<'a> {
    bed: Bed<'a>,
    wish: Wish,
    /// What all trials on this bed have captured.
    wire: Audit,
}

impl Course<'_> {
    /// The same on a new network.
    fn renew(self, number: u32) -> Result<Self, LabError> {
        let (bench, wish) = (self.bed.bench, self.wish);
        drop(self.bed);
        let bed = Bed::new(bench, &wish, number)?;
        let wire = Audit::default();
        Ok(Course { bed, wish, wire })
    }

    /// The same; what cannot be carried out is a row that failed, and not the end of the table.
    fn attempt(&mut self, fault: Fault, name: &str) -> Result<Row, LabError> {
        self.trial(fault, name).or_else(|error| match error {
            LabError::Interrupted => Err(error),
            error => Ok(Row {
                fault: fault.name().to_owned(),
                what: fault.says().to_owned(),
                times: 1,
                audit: "-".to_owned(),
                problems: vec![format!("it could not be carried out: {error}")],
                ..Row::default()
            }),
        })
    }

    /// Kills one active after the other, and adds what came of each; ends with one that could not
    /// be carried out.
    fn kills(
        &mut self,
        whole: &mut Row,
        count: u32,
        name: &str,
        mut each: impl FnMut(&Row, &str) -> Result<(), LabError>,
    ) -> Result<(), LabError> {
        for number in 1..=count {
            let name = format!("{name}-{number:03}");
            let row = self.attempt(Fault::Kill, &name)?;
            each(&row, &name)?;
            let broken = row.packets_sent == 0;
            whole.add(row);
            if broken {
                break;
            }
        }
        whole.judge_all(std::mem::take(&mut self.wire));
        Ok(())
    }

    /// Does it; `name` is that of the captures.
    fn trial(&mut self, fault: Fault, name: &str) -> Result<Row, LabError> {
        let say = |what: &str| self.bed.bench.say(&format!("{name}: {what}"));
        say(fault.says());
        let mut row = Row {
            fault: fault.name().to_owned(),
            what: fault.says().to_owned(),
            times: 1,
            ..Row::default()
        };
        self.bed.settle()?;
        fault.prepare(&mut self.bed)?;
        self.bed.settle()?;
        let before = bed::spis(&self.bed.peer)?;
        let captures = bed::captures(&self.bed.lab, name, &self.bed.directory)?;
        let traffic = bed::traffic(&self.bed.lab, &self.wish)?;
        let waits = self.bed.waits();
        clock::pass(BEFORE)?;
        // Asked for at the last moment: it may have changed while all that was set up.
        let active = self.bed.wait_for_roles()?;
        let mut diary = Diary::default();
        let before_it = self.bed.member(1 - active)?.log().len();
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
        match flow_again(&traffic, whole, self.wish.patience, &mut diary)? {
            Ok(whole) => row.whole_again_ms = Some(milliseconds(whole.saturating_sub(struck))),
            Err(problem) => row.problems.push(problem),
        }
        clock::pass(LAST)?;
        let end = clock::wall();
        let flow = traffic.stop()?;
        let waited = waits.stop();
        let captured = captures.map(Capture::stop);
        self.keep_statuses(name);
        let log = self.bed.member(1 - active)?.log();
        let said = log.get(before_it..).unwrap_or_default().to_owned();
        let expected = fault.expected(&self.wish);
        let evidence = Evidence {
            flow,
            captured,
            active,
            struck,
            end,
            tunnels: self.wish.tunnels,
            busy: self.wish.busy(),
            rate: self.wish.rate,
            expected,
            question: self.bed.question(name),
            waited,
            said,
            sas: [before, bed::spis(&self.bed.peer)?],
        };
        Ok(row.finish(evidence, diary, &mut self.wire))
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
        let folder = self
            .wish
            .plots
            .as_ref()
            .map(|plots| plots.join("failovers"));
        self.kills(&mut whole, count, "failover", |row, name| {
            row.plot_as(folder.as_deref(), name)
        })?;
        Ok(whole)
    }

    fn keep_statuses(&mut self, moment: &str) {
        for member in self.bed.members.iter().flatten() {
            // For whoever looks into the logs; without it there is nothing to see there.
            let _: Result<(), LabError> = member.keep_status(moment);
        }
    }
}

/// Waits for traffic through every tunnel after that moment, and gives when there was; or that there was
/// none, which somebody has to be told.
fn flow_again(
    traffic: &Traffic,
    after: Duration,
    patience: Duration,
    diary: &mut Diary,
) -> Result<Result<Duration, String>, LabError> {
    let flows = clock::until("traffic through every tunnel", patience, || {
        Ok(traffic.flows_since(after).then_some(()))
    });
    match flows {
        Ok(()) => Ok(Ok(diary.note("traffic everywhere"))),
        Err(LabError::Interrupted) => Err(LabError::Interrupted),
        Err(_) => {
            diary.note("some tunnel is still silent");
            Ok(Err(format!(
                "{patience:?} after it some tunnel had not carried traffic both ways"
            )))
        }
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
        if self.rows.iter().any(|row| row.excused) {
            writeln!(
                f,
                "ok*: not everything that was found is judged: the notes say what, and why"
            )?;
        }
        let ours = || self.rows.iter().filter(|row| !row.is_other());
        let failed = ours().filter(|row| !row.passed).count();
        let (all, excused) = (ours().count(), self.excused);
        write!(
            f,
            "faults: {all} rows, {failed} failed, {excused} ok* (not all judged)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_may_fail_but_an_empty_table_is_no_success() {
        let mut table = Table {
            tunnels: 1,
            rate: 1,
            heartbeat_ms: 10,
            missed: 3,
            rows: Vec::new(),
            excused: 0,
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
        assert_eq!(table.not_judged(), 0);
        for row in &mut table.rows {
            row.excused = true;
        }
        // One of somebody else does not count.
        assert_eq!(table.not_judged(), 1);
        table.excused = table.not_judged();
        assert!(
            table
                .to_string()
                .ends_with("1 rows, 0 failed, 1 ok* (not all judged)")
        );
        table.rows[0].passed = false;
        assert!(!table.passed() && table.not_judged() == 0);
    }
}
