//! What `hitless-testbeds faults --plots DIR` wrote, for the page: each fault as its hosts saw it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::page::Plot;
use super::strips::{self, Strip};

/// What of the time around a fault is shown: until its last event, and some more.
const FROM_MS: i64 = -100;
const LEAST_MS: i64 = 1_500;
const AFTER_MS: i64 = 200;
/// Milliseconds of one bar at least, and how many of them at most.
const BAR_MS: i64 = 5;
const BARS: i64 = 400;

/// One fault, as far as the page shows it; there is more in the file.
#[derive(Deserialize)]
struct Row {
    fault: String,
    passed: bool,
    outage_in_ms: Option<f64>,
    outage_out_ms: Option<f64>,
    packets_sent: u64,
    packets_lost: u64,
    sas_lost: u64,
    audit: String,
    timeline: Option<Timeline>,
}

/// Packets in each bin from `from_ms` on.
#[derive(Deserialize)]
struct Timeline {
    from_ms: i64,
    bin_ms: i64,
    inbound: Vec<u64>,
    outbound: Vec<u64>,
    events: Vec<(f64, String)>,
}

/// Who writes them.
const COMMAND: &str = "hitless-testbeds faults --plots DIR";

/// Everything that a directory has, in the order of the names.
pub fn plot(directory: &Path) -> Result<Plot, Box<dyn Error>> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .map_err(|error| {
            let shown = directory.display();
            format!("--faults {shown}: {error}; it takes what `{COMMAND}` writes")
        })?
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .collect();
    files.sort();
    let mut rows = Vec::new();
    for file in files {
        rows.push(super::parsed::<Row>(&file, "--faults", COMMAND)?);
    }
    if rows.is_empty() {
        let shown = directory.display();
        let error = format!("--faults {shown}: nothing is there of what `{COMMAND}` writes");
        return Err(error.into());
    }
    Ok(draw(&rows))
}

fn draw(rows: &[Row]) -> Plot {
    let timelines = || rows.iter().filter_map(|row| row.timeline.as_ref());
    let last = timelines().map(Timeline::last).max().unwrap_or(LEAST_MS);
    let bar = (last - FROM_MS + BARS - 1) / BARS;
    let bar = ((bar + BAR_MS - 1) / BAR_MS * BAR_MS).max(BAR_MS);
    let strips: Vec<Strip> = rows
        .iter()
        .filter_map(|row| Some(strip(row, row.timeline.as_ref()?, bar)))
        .collect();
    let mut text = format!(
        "Packets that the hosts on both sides received in each {bar} ms, through tunnels to \
         strongSwan in network namespaces, around each fault."
    );
    for row in rows {
        let outage = row.outage_in_ms.unwrap_or(f64::NAN);
        let outage = outage.max(row.outage_out_ms.unwrap_or(f64::NAN));
        let verdict = if row.passed { "" } else { ", FAILED" };
        let _ = write!(
            text,
            " {}: outage {outage:.0} ms, {} of {} packets and {} SAs lost, audit {}{verdict}.",
            row.fault, row.packets_lost, row.packets_sent, row.sas_lost, row.audit
        );
    }
    Plot {
        name: "faults",
        title: "Faults as hosts see them",
        text: text.into(),
        svg: strips::render(&strips, "ms after the fault began"),
    }
}

impl Timeline {
    /// Where the last event ends what is to be seen; no further than packets were counted.
    fn last(&self) -> i64 {
        let events = self.events.iter().map(|(at, _)| *at);
        let last = events.fold(0.0, f64::max) as i64 + AFTER_MS;
        let counted = self.inbound.len().min(self.outbound.len()) as i64;
        last.max(LEAST_MS)
            .min(self.from_ms + counted * self.bin_ms.max(1))
    }
}

fn strip(row: &Row, timeline: &Timeline, bar: i64) -> Strip {
    let bins = timeline.inbound.iter().zip(&timeline.outbound);
    let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
    for (bin, (inbound, outbound)) in (0..).zip(bins) {
        let at = timeline.from_ms + bin * timeline.bin_ms;
        if (FROM_MS..timeline.last()).contains(&at) {
            let from = FROM_MS + (at - FROM_MS) / bar * bar;
            *counts.entry(from).or_default() += inbound + outbound;
        }
    }
    let counts = counts.into_iter();
    Strip {
        name: row.fault.clone(),
        counts: counts.map(|(at, n)| (at as f64, n as f64)).collect(),
        bar: bar as f64,
        events: timeline.events.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_a_strip_and_its_figures() {
        let row = |name: &str| {
            format!(
                r#"{{"fault":"{name}","what":"","times":1,"passed":true,"outage_in_ms":31.5,
                "outage_out_ms":30.0,"packets_sent":900,"packets_lost":7,"sas_lost":0,
                "audit":"clean","timeline":{{"from_ms":-500,"bin_ms":1,
                "inbound":{:?},"outbound":{:?},"events":[[0.0,"{name}"],[40.0,"first ESP"]]}}}}"#,
                vec![1; 1000],
                vec![2; 1000]
            )
        };
        let rows: [Row; 2] =
            ["kill", "zombie"].map(|name| serde_json::from_str(&row(name)).unwrap());
        let plot = draw(&rows);
        // 500 ms of packets after each fault, and 100 before it.
        assert_eq!(plot.svg.matches("<rect").count(), 2 * 600 / BAR_MS as usize);
        assert!(plot.svg.contains("15 at 0 ms") && plot.svg.contains("first ESP"));
        let said = "zombie: outage 32 ms, 7 of 900 packets and 0 SAs lost, audit clean.";
        assert!(plot.text.contains(said), "{}", plot.text);
    }

    #[test]
    fn the_last_event_of_a_long_fault_is_in_view() {
        let bins = vec![1; 9_500];
        let row = format!(
            r#"{{"fault":"strongswan-ha kill","passed":false,"outage_in_ms":8200.0,
            "outage_out_ms":null,"packets_sent":9,"packets_lost":7,"sas_lost":0,"audit":"clean",
            "timeline":{{"from_ms":-500,"bin_ms":1,"inbound":{bins:?},"outbound":{bins:?},
            "events":[[0.0,"kill"],[8200.0,"flows"]]}}}}"#
        );
        let plot = draw(&[serde_json::from_str(&row).unwrap()]);
        assert!(
            plot.svg.contains("flows") && plot.svg.contains(">8000<"),
            "{}",
            plot.svg
        );
        let bars = plot.svg.matches("<rect").count() as i64;
        assert!((BARS / 2..=BARS + 1).contains(&bars), "{bars}");
        assert!(plot.svg.contains("50 at -100 ms"), "two ways, 25 ms");
    }

    #[test]
    fn a_directory_without_faults_is_an_error_that_names_it() {
        let error = plot(Path::new("/nonexistent")).err().unwrap().to_string();
        assert!(error.contains("/nonexistent"), "{error}");
    }
}
