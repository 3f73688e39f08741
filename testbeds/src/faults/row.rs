//! One row of the table: what a fault cost.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::ha;
use super::plot::Timeline;
use crate::error::LabError;

/// What one fault cost.
#[derive(Serialize, Clone, PartialEq, Debug, Default)]
pub struct Row {
    pub fault: String,
    pub what: String,
    /// How often it was done; of each figure the worst, of losses the sum.
    pub times: u32,
    pub passed: bool,
    /// Something was found and is not judged; the notes say why.
    pub excused: bool,
    /// From the fault to the first ESP packet of the member that took over.
    pub takeover_ms: Option<f64>,
    /// What threads of the members waited for a core meanwhile, together.
    pub waited_ms: Option<f64>,
    /// The most that one of them waited in as long as a silence that makes a member look dead.
    pub longest_wait_ms: Option<f64>,
    /// How many heartbeats the member that took over had missed.
    pub heartbeats_missed: Option<f64>,
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
        self.longest_wait_ms = worst(self.longest_wait_ms, other.longest_wait_ms);
        self.heartbeats_missed = worst(self.heartbeats_missed, other.heartbeats_missed);
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
        self.excused |= other.excused;
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.1}"));
        let verdict = match (self.passed, self.excused) {
            (true, false) => "ok  ",
            (true, true) => "ok* ",
            (false, _) => "FAIL",
        };
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
        assert!(whole.to_string().starts_with("FAIL") && !whole.excused);
        assert_eq!(
            (whole.audit.as_str(), whole.problems),
            ("1 repeated numbers", vec!["run 2: x".to_owned()])
        );
    }

    #[test]
    fn what_is_not_judged_shows() {
        let mut whole = Row {
            passed: true,
            ..Row::default()
        };
        assert!(whole.to_string().starts_with("ok  "));
        whole.add(Row {
            passed: true,
            excused: true,
            ..Row::default()
        });
        assert!(whole.to_string().starts_with("ok* "));
    }
}
