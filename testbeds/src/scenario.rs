//! What a scenario is, what it reports, and the list of all of them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hitless::audit::{self, Exchange};
use serde::Serialize;

use crate::clock;
use crate::error::LabError;
use crate::faults;
use crate::scenarios;

/// A named experiment.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Scenario {
    pub name: &'static str,
    /// One line for `list`.
    pub about: &'static str,
    /// Names for `--variant`; all are run unless one is named. Never empty.
    pub variants: &'static [&'static str],
    /// Runs one variant.
    #[serde(skip)]
    pub run: fn(&Bench, &str) -> Result<Report, LabError>,
}

/// All scenarios.
pub const ALL: &[Scenario] = &[
    scenarios::certs_strongswan::SCENARIO,
    scenarios::eap_strongswan::SCENARIO,
    scenarios::failover_strongswan::SCENARIO,
    scenarios::failover_strongswan::CONTROL,
    scenarios::flood_strongswan::SCENARIO,
    faults::degraded::SCENARIO,
    scenarios::roads_strongswan::SCENARIO,
    scenarios::mobike_strongswan::SCENARIO,
    scenarios::nat_strongswan::SCENARIO,
    scenarios::ike_strongswan::SCENARIO,
    scenarios::transfer_strongswan::SCENARIO,
    scenarios::tunnels_strongswan::SCENARIO,
    scenarios::libreswan::SCENARIO,
];

/// Where a run leaves its files, and to whom it tells how it goes.
#[derive(Clone, Debug)]
pub struct Bench {
    directory: PathBuf,
    started: Instant,
}

impl Bench {
    /// Makes a directory for logs, captures and configuration.
    pub fn new() -> Result<Self, LabError> {
        let name = format!("hitless-testbeds-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).map_err(LabError::io("making the log directory"))?;
        Ok(Self {
            directory,
            started: clock::now(),
        })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A directory within.
    pub fn subdirectory(&self, name: &str) -> Result<PathBuf, LabError> {
        let directory = self.directory.join(name);
        let what = directory.display().to_string();
        std::fs::create_dir_all(&directory).map_err(LabError::io(what))?;
        Ok(directory)
    }

    /// Tells a person where the run is.
    pub fn say(&self, text: &str) {
        let seconds = clock::now().duration_since(self.started).as_secs_f64();
        eprintln!("[{seconds:6.2}s] {text}");
    }

    /// Removes the files of a run that nobody needs to look into.
    pub fn discard(self) -> Result<(), LabError> {
        std::fs::remove_dir_all(&self.directory).map_err(LabError::io("removing the logs"))
    }
}

/// What a run found. The names of the fields are an interface: other programs read the JSON.
/// `null` means that the scenario did not come so far, or does not measure it.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Report {
    pub scenario: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    pub passed: bool,
    /// Why nothing was tried: then nothing has passed either, and nothing failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// What the hosts felt: the longest time without an answer to a ping, around the kill.
    pub outage_ms: Option<f64>,
    /// From the kill to the first ESP packet that the cluster sent afterwards.
    pub takeover_ms: Option<f64>,
    /// Pings without an answer, both directions together.
    pub packets_lost: Option<u64>,
    /// (destination, SPI, number) seen more than once, identical or not.
    pub repeated_sequence_numbers: Option<u64>,
    /// Replayed ESP packets whose content was delivered again.
    pub replays_accepted: Option<u64>,
    /// IKE_AUTH messages after the kill.
    pub ike_auth_after_failover: Option<u64>,
    /// Sequence numbers that the takeover left out.
    pub skip: Option<u64>,
    pub checks: Vec<Check>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<Report>,
}

/// One thing that had to hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    pub name: String,
    pub passed: bool,
    pub detail: String,
}

impl Report {
    pub fn new(scenario: &str, variant: &str) -> Self {
        Self {
            scenario: scenario.to_owned(),
            variant: Some(variant.to_owned()),
            ..Self::default()
        }
    }

    /// Records whether something held.
    pub fn check(&mut self, name: &str, passed: bool, detail: impl Into<String>) {
        self.checks.push(Check {
            name: name.to_owned(),
            passed,
            detail: detail.into(),
        });
    }

    /// No IKE_AUTH after the kill: the tunnels were carried on.
    pub fn no_new_ike_auth(&mut self, messages: usize) {
        self.ike_auth_after_failover = Some(messages as u64);
        let detail = format!("{messages} messages");
        self.check("no-new-ike-auth", messages == 0, detail);
    }

    /// Signs of life (RFC 7296 section 2.4): `source` asked for some in that time, and got every one.
    pub fn liveness(
        &mut self,
        name: &str,
        wire: &audit::Report,
        source: IpAddr,
        (from, until): (Duration, Duration),
    ) {
        let requests = wire.exchanges_from(source, Exchange::Informational, from);
        let within: Vec<_> = requests.iter().filter(|(r, _)| r.time < until).collect();
        let answered = within.iter().filter(|(_, answer)| answer.is_some()).count();
        let detail = format!("{} requests, {answered} answered", within.len());
        self.check(name, answered > 0 && answered == within.len(), detail);
    }

    /// Decides: passed if there were checks and all held.
    pub fn conclude(mut self) -> Self {
        self.passed = !self.checks.is_empty() && self.checks.iter().all(|check| check.passed);
        self
    }

    /// A report on one variant that this machine cannot carry out, and what it lacks.
    pub fn skipped(scenario: &str, variant: &str, why: &str) -> Self {
        Self {
            skipped: Some(why.to_owned()),
            ..Self::new(scenario, variant)
        }
    }

    /// Whether something was tried and did not hold.
    pub fn failed(&self) -> bool {
        !self.passed && self.skipped.is_none()
    }

    /// A report on one variant that could not be carried out.
    pub fn broken(scenario: &str, variant: &str, error: &LabError) -> Self {
        let mut report = Self::new(scenario, variant);
        report.check("carried-out", false, error.to_string());
        report
    }

    /// Joins the reports of all variants: the worst of each figure, and every check. It is skipped if
    /// all of them are.
    pub fn join(scenario: &str, variants: Vec<Report>) -> Self {
        let worst = |field: fn(&Report) -> Option<u64>| variants.iter().filter_map(field).max();
        let longest =
            |field: fn(&Report) -> Option<f64>| variants.iter().filter_map(field).reduce(f64::max);
        let checks = variants.iter().flat_map(|report| {
            let variant = report.variant.clone().unwrap_or_default();
            report.checks.iter().map(move |check| Check {
                name: format!("{variant}/{}", check.name),
                ..check.clone()
            })
        });
        let reasons: Option<Vec<&str>> = variants.iter().map(|r| r.skipped.as_deref()).collect();
        let skipped = reasons.filter(|reasons| !reasons.is_empty());
        let passed = variants.iter().any(|report| report.passed);
        Self {
            scenario: scenario.to_owned(),
            variant: None,
            passed: passed && !variants.iter().any(Report::failed),
            skipped: skipped.map(|reasons| reasons.join("; ")),
            outage_ms: longest(|report| report.outage_ms),
            takeover_ms: longest(|report| report.takeover_ms),
            packets_lost: worst(|report| report.packets_lost),
            repeated_sequence_numbers: worst(|report| report.repeated_sequence_numbers),
            replays_accepted: worst(|report| report.replays_accepted),
            ike_auth_after_failover: worst(|report| report.ike_auth_after_failover),
            skip: worst(|report| report.skip),
            checks: checks.collect(),
            variants,
        }
    }

    /// For a person.
    pub fn text(&self) -> String {
        let verdict = match (&self.skipped, self.passed) {
            (Some(_), _) => "SKIPPED",
            (None, true) => "PASSED",
            (None, false) => "FAILED",
        };
        let number = |value: Option<u64>| value.map_or("-".to_owned(), |n| n.to_string());
        let time = |value: Option<f64>| value.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"));
        let mut lines = vec![format!("{}: {verdict}", self.scenario)];
        for report in self.variants.iter().chain([self]) {
            if let (Some(variant), Some(why)) = (&report.variant, &report.skipped) {
                lines.push(format!("  skip {variant}: {why}"));
            }
        }
        if self.skipped.is_some() {
            return lines.join("\n");
        }
        for check in &self.checks {
            let mark = if check.passed { "ok  " } else { "FAIL" };
            lines.push(format!("  {mark} {}: {}", check.name, check.detail));
        }
        for (name, value) in [
            ("outage", time(self.outage_ms)),
            ("takeover", time(self.takeover_ms)),
            ("packets lost", number(self.packets_lost)),
            (
                "repeated sequence numbers",
                number(self.repeated_sequence_numbers),
            ),
            ("replays accepted", number(self.replays_accepted)),
            (
                "IKE_AUTH after failover",
                number(self.ike_auth_after_failover),
            ),
            ("sequence numbers skipped", number(self.skip)),
        ] {
            lines.push(format!("  {name:<26} {value}"));
        }
        lines.join("\n")
    }
}

/// Milliseconds with one decimal, as reports show them.
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(variant: &str, outage: f64, lost: Option<u64>, passed: bool) -> Report {
        let mut report = Report::new("s", variant);
        report.outage_ms = Some(outage);
        report.packets_lost = lost;
        report.check("x", passed, "");
        report.conclude()
    }

    #[test]
    fn the_worst_of_all_variants_is_reported() {
        let variants = vec![
            report("a", 7.0, Some(3), true),
            report("b", 9.0, None, false),
        ];
        let joined = Report::join("s", variants);
        assert_eq!(
            (joined.outage_ms, joined.packets_lost),
            (Some(9.0), Some(3))
        );
        assert!(!joined.passed);
        assert_eq!(joined.checks[1].name, "b/x");
    }

    #[test]
    fn nothing_checked_is_nothing_passed() {
        assert!(!Report::new("s", "v").conclude().passed);
        assert!(!Report::join("s", Vec::new()).passed);
        assert!(!Report::broken("s", "v", &LabError::Interrupted).passed);
    }

    #[test]
    fn what_is_skipped_has_neither_passed_nor_failed() {
        let skipped = || Report::skipped("s", "c", "no peer");
        let all = Report::join("s", vec![skipped()]);
        assert!(!all.passed && !all.failed());
        assert_eq!(all.text(), "s: SKIPPED\n  skip c: no peer");
        let some = Report::join("s", vec![report("a", 1.0, None, true), skipped()]);
        assert!(some.passed && some.skipped.is_none());
        assert!(
            some.text()
                .starts_with("s: PASSED\n  skip c: no peer\n  ok   a/x: ")
        );
        let bad = Report::join("s", vec![report("a", 1.0, None, false), skipped()]);
        assert!(bad.failed());
    }

    #[test]
    fn the_json_keys_are_stable() {
        let json = serde_json::to_value(report("a", 1.5, Some(2), true)).expect("plain data");
        let keys: Vec<&str> = json
            .as_object()
            .expect("a table")
            .keys()
            .map(String::as_str)
            .collect();
        for key in [
            "scenario",
            "passed",
            "outage_ms",
            "takeover_ms",
            "packets_lost",
            "repeated_sequence_numbers",
            "replays_accepted",
            "ike_auth_after_failover",
            "skip",
            "checks",
        ] {
            assert!(keys.contains(&key), "{key} is missing in {keys:?}");
        }
        assert_eq!(json["checks"][0]["name"], "x");
        assert!(json["skip"].is_null());
    }
}
