//! `hitless metrics`: the figures of `status` and `cluster status` for a monitoring system, in the
//! text format of Prometheus (version 0.0.4).
//!
//! Names are `hitless_` and what is counted, in base units; counters end in `_total`. What each one
//! means stands in its HELP line, so that the output documents itself. Nothing listens for HTTP:
//! `hitless metrics > FILE.prom` is for the textfile collector that every node exporter has.

use serde::{Deserialize, Serialize};

use super::text::Text;

/// Everything that is measured.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct MetricsReport {
    pub families: Vec<MetricFamily>,
}

/// One name with all that is counted under it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MetricFamily {
    pub name: String,
    pub help: String,
    pub kind: MetricKind,
    pub samples: Vec<MetricSample>,
}

/// Whether it only rises, until the daemon starts again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetricKind {
    Counter,
    Gauge,
}

/// One value.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MetricSample {
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl MetricsReport {
    /// Adds a family without samples; those that follow are its.
    pub fn family(&mut self, kind: MetricKind, name: &str, help: &str) -> &mut MetricsReport {
        self.families.push(MetricFamily {
            name: name.to_owned(),
            help: help.to_owned(),
            kind,
            samples: Vec::new(),
        });
        self
    }

    /// Adds a sample to the newest family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) -> &mut MetricsReport {
        if let Some(family) = self.families.last_mut() {
            let labels = labels.iter();
            let labels = labels.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            family.samples.push(MetricSample {
                labels: labels.collect(),
                value,
            });
        }
        self
    }

    /// A family of one sample that needs no label.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) -> &mut MetricsReport {
        self.family(MetricKind::Gauge, name, help)
            .sample(&[], value)
    }

    /// The same of what only rises.
    pub fn counter(&mut self, name: &str, help: &str, value: f64) -> &mut MetricsReport {
        self.family(MetricKind::Counter, name, help)
            .sample(&[], value)
    }
}

/// The text format. Families without a sample are left out.
pub fn metrics(report: &MetricsReport) -> String {
    let mut out = Text::default();
    for family in report.families.iter().filter(|f| !f.samples.is_empty()) {
        write_family(&mut out, family);
    }
    out.0
}

fn write_family(out: &mut Text, family: &MetricFamily) {
    let MetricFamily { name, help, .. } = family;
    let kind = match family.kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
    };
    writeln!(out, "# HELP {name} {}", escaped(help, false));
    writeln!(out, "# TYPE {name} {kind}");
    for sample in &family.samples {
        write!(out, "{name}");
        for (index, (label, value)) in sample.labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            write!(out, "{before}{label}=\"{}\"", escaped(value, true));
        }
        if !sample.labels.is_empty() {
            write!(out, "}}");
        }
        writeln!(out, " {}", sample.value);
    }
}

/// Backslashes and line ends in the way of the format, and quotes inside of quotes.
fn escaped(text: &str, quoted: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quoted => out.push_str("\\\""),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_the_format() {
        let mut report = MetricsReport::default();
        report
            .family(MetricKind::Counter, "hitless_a_total", "a\nb \\ \"c\"")
            .sample(&[("reason", "x\"y\\z\n"), ("where", "here")], 7.0)
            .sample(&[], 9_007_199_254_740_992.0)
            .gauge("hitless_lag_seconds", "lag", 0.25)
            .family(MetricKind::Gauge, "hitless_empty", "nothing");
        let text = "# HELP hitless_a_total a\\nb \\\\ \"c\"\n# TYPE hitless_a_total counter\n\
            hitless_a_total{reason=\"x\\\"y\\\\z\\n\",where=\"here\"} 7\n\
            hitless_a_total 9007199254740992\n\
            # HELP hitless_lag_seconds lag\n# TYPE hitless_lag_seconds gauge\n\
            hitless_lag_seconds 0.25\n";
        assert_eq!(metrics(&report), text);
    }
}
