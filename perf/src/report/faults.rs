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

/// Where the same command puts each of many failovers in a row.
const IN_A_ROW: &str = "failovers";

/// Everything that a directory has, in the order of the names: each fault, then each failover of many in a
/// row.
pub fn plots(directory: &Path) -> Result<Vec<Plot>, Box<dyn Error>> {
    let rows = rows(directory)?;
    if rows.is_empty() {
        let shown = directory.display();
        let error = format!("--faults {shown}: nothing is there of what `{COMMAND}` writes");
        return Err(error.into());
    }
    let mut plots = vec![faults(&rows)];
    let in_a_row = directory.join(IN_A_ROW);
    if in_a_row.is_dir() {
        plots.extend(failovers(&self::rows(&in_a_row)?));
    }
    Ok(plots)
}

fn rows(directory: &Path) -> Result<Vec<Row>, Box<dyn Error>> {
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
    files.sort_by_key(|path| order(path));
    let rows = files
        .iter()
        .map(|file| super::parsed(file, "--faults", COMMAND));
    Ok(rows.collect::<Result<_, _>>()?)
}

/// By name; those that end in a number, which has no zeros in front, by that.
fn order(path: &Path) -> (String, u64) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    (name.to_owned(), stem[name.len()..].parse().unwrap_or(0))
}

fn faults(rows: &[Row]) -> Plot {
    let (bar, svg) = draw(rows);
    let mut text = format!(
        "Packets that the hosts on both sides received in each {bar} ms, through tunnels to \
         strongSwan in network namespaces, around each fault: above the line what the cluster \
         decrypted, below it what it encrypted."
    );
    for row in rows {
        let verdict = if row.passed { "" } else { ", FAILED" };
        let _ = write!(
            text,
            " {}: outage {:.0} ms, {} of {} packets and {} SAs lost, audit {}{verdict}.",
            row.fault,
            row.outage_ms(),
            row.packets_lost,
            row.packets_sent,
            row.sas_lost,
            row.audit
        );
    }
    Plot {
        name: "faults",
        title: "Faults as hosts see them",
        text: text.into(),
        svg,
    }
}

/// Each of many, with one line for all of them.
fn failovers(rows: &[Row]) -> Option<Plot> {
    let mut outages: Vec<f64> = rows.iter().map(Row::outage_ms).collect();
    outages.sort_by(f64::total_cmp);
    let (median, longest) = (*outages.get(outages.len() / 2)?, *outages.last()?);
    let lost: u64 = rows.iter().map(|row| row.packets_lost).sum();
    let sent: u64 = rows.iter().map(|row| row.packets_sent).sum();
    let sas: u64 = rows.iter().map(|row| row.sas_lost).sum();
    let failed = rows.iter().filter(|row| !row.passed).count();
    let (bar, svg) = draw(rows);
    let text = format!(
        "SIGKILL to whoever leads, {} times in a row, as above ({bar} ms): outage {median:.0} ms at the \
         median and {longest:.0} ms at most, {lost} of {sent} packets and {sas} SAs lost, {failed} FAILED.",
        rows.len(),
    );
    Some(Plot {
        name: "failovers",
        title: "Each failover in a row",
        text: text.into(),
        svg,
    })
}

/// How wide a bar is, and all of them.
fn draw(rows: &[Row]) -> (i64, String) {
    let timelines = || rows.iter().filter_map(|row| row.timeline.as_ref());
    let last = timelines().map(Timeline::last).max().unwrap_or(LEAST_MS);
    let bar = (last - FROM_MS + BARS - 1) / BARS;
    let bar = ((bar + BAR_MS - 1) / BAR_MS * BAR_MS).max(BAR_MS);
    let strips: Vec<Strip> = rows
        .iter()
        .filter_map(|row| Some(strip(row, row.timeline.as_ref()?, bar)))
        .collect();
    (bar, strips::render(&strips, "ms after the fault began"))
}

impl Row {
    /// The longest silence, one way or the other.
    fn outage_ms(&self) -> f64 {
        let [inbound, outbound] = [self.outage_in_ms, self.outage_out_ms];
        let endless = f64::INFINITY;
        inbound.unwrap_or(endless).max(outbound.unwrap_or(endless))
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

    /// Packets of one way in each bar.
    fn bars(&self, bins: &[u64], bar: i64) -> Vec<(f64, f64)> {
        let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
        for (bin, count) in (0..).zip(bins) {
            let at = self.from_ms + bin * self.bin_ms;
            if (FROM_MS..self.last()).contains(&at) {
                *counts.entry((at - FROM_MS) / bar).or_default() += count;
            }
        }
        let counts = counts.into_iter();
        counts
            .map(|(index, count)| ((FROM_MS + index * bar) as f64, count as f64))
            .collect()
    }
}

fn strip(row: &Row, timeline: &Timeline, bar: i64) -> Strip {
    Strip {
        name: row.fault.clone(),
        counts: timeline.bars(&timeline.inbound, bar),
        opposite: timeline.bars(&timeline.outbound, bar),
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
        let plot = faults(&rows);
        // 500 ms of packets each way after each fault, and 100 before it.
        let bars = 2 * 2 * 600 / BAR_MS as usize;
        assert_eq!(plot.svg.matches("<rect").count(), bars);
        for part in ["5 at 0 ms", "10 at 0 ms", "first ESP"] {
            assert!(plot.svg.contains(part), "{part}");
        }
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
        let plot = faults(&[serde_json::from_str(&row).unwrap()]);
        assert!(
            plot.svg.contains("flows") && plot.svg.contains(">8000<"),
            "{}",
            plot.svg
        );
        let bars = plot.svg.matches("<rect").count() as i64;
        assert!((BARS..=2 * BARS + 2).contains(&bars), "{bars}");
        assert!(plot.svg.contains("25 at -100 ms"), "25 ms");
        let said = "strongswan-ha kill: outage inf ms";
        assert!(plot.text.contains(said), "one way never came back");
    }

    #[test]
    fn each_failover_in_a_row_has_a_strip_in_the_order_in_which_they_were() {
        let directory = std::env::temp_dir().join(format!("hitless-faults-{}", std::process::id()));
        let in_a_row = directory.join(IN_A_ROW);
        fs::create_dir_all(&in_a_row).unwrap();
        let row = |name: &str| {
            format!(
                r#"{{"fault":"{name}","passed":true,"outage_in_ms":20.0,"outage_out_ms":30.0,
                "packets_sent":100,"packets_lost":2,"sas_lost":0,"audit":"clean","timeline":
                {{"from_ms":0,"bin_ms":1,"inbound":[1],"outbound":[1],"events":[]}}}}"#
            )
        };
        fs::write(directory.join("kill.json"), row("kill")).unwrap();
        for which in [10, 9] {
            let name = format!("failover {which}");
            fs::write(in_a_row.join(format!("failover-{which}.json")), row(&name)).unwrap();
        }
        let drawn = plots(&directory);
        fs::remove_dir_all(&directory).unwrap();
        let drawn = drawn.unwrap();
        let names: Vec<_> = drawn.iter().map(|plot| plot.name).collect();
        assert_eq!(names, ["faults", "failovers"]);
        let [ninth, tenth] = ["failover 9", "failover 10"].map(|name| drawn[1].svg.find(name));
        assert!(ninth.is_some() && ninth < tenth);
        let said = "2 times in a row, as above (5 ms): outage 30 ms at the median";
        assert!(drawn[1].text.contains(said), "{}", drawn[1].text);
    }

    #[test]
    fn a_directory_without_faults_is_an_error_that_names_it() {
        let error = plots(Path::new("/nonexistent")).err().unwrap().to_string();
        assert!(error.contains("/nonexistent"), "{error}");
    }
}
