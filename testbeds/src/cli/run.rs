//! `hitless-testbeds list` and `run`.

use clap::Args;
use hitless_testbeds::error::LabError;
use hitless_testbeds::scenario::{ALL, Bench, Report, Scenario};

use super::bench::on_a_bench;
use super::{json, print};

/// List the scenarios.
#[derive(Args)]
#[command(after_help = "Example: hitless-testbeds list")]
pub struct List {
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Run one scenario. Needs root.
#[derive(Args)]
#[command(after_help = "Examples:\n  hitless-testbeds run ike-strongswan\n  \
        hitless-testbeds run failover-strongswan --variant exact --keep")]
pub struct Run {
    /// A name that `list` shows.
    name: String,
    /// Only this variant.
    #[arg(long)]
    variant: Option<String>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Keep logs and captures even if all passed.
    #[arg(long)]
    keep: bool,
}

impl List {
    pub fn carry_out(&self) -> Result<bool, LabError> {
        match self.json {
            true => print(&json(&ALL, "the list")?)?,
            false => print(&list())?,
        }
        Ok(true)
    }
}

fn list() -> String {
    let line = |scenario: &Scenario| {
        let variants = scenario.variants.join(", ");
        let (name, about) = (scenario.name, scenario.about);
        format!("{name:<24} {about}\n{:<24} variants: {variants}", "")
    };
    let lines: Vec<String> = ALL.iter().map(line).collect();
    lines.join("\n")
}

impl Run {
    pub fn carry_out(&self) -> Result<bool, LabError> {
        let scenario = self.scenario()?;
        let variants = self.variants(scenario)?;
        let run = |bench: &Bench| Self::run_variants(bench, scenario, &variants);
        let report = on_a_bench(self.keep, run, |report| !report.failed())?;
        self.print(&report)?;
        Ok(!report.failed())
    }

    fn run_variants(
        bench: &Bench,
        scenario: &Scenario,
        variants: &[&str],
    ) -> Result<Report, LabError> {
        let mut reports = Vec::new();
        for variant in variants {
            bench.say(&format!("{} / {variant}", scenario.name));
            let report = match (scenario.run)(bench, variant) {
                Ok(report) => report,
                Err(LabError::Interrupted) => return Err(LabError::Interrupted),
                Err(error) => Report::broken(scenario.name, variant, &error),
            };
            reports.push(report);
        }
        Ok(Report::join(scenario.name, reports))
    }

    fn scenario(&self) -> Result<&'static Scenario, LabError> {
        let found = ALL.iter().find(|scenario| scenario.name == self.name);
        let text = || format!("no scenario {:?}; see `hitless-testbeds list`", self.name);
        found.ok_or_else(|| LabError::Usage(text()))
    }

    fn variants(&self, scenario: &'static Scenario) -> Result<Vec<&'static str>, LabError> {
        let wanted = |name: &&&str| self.variant.as_deref().is_none_or(|only| only == **name);
        let variants: Vec<_> = scenario.variants.iter().filter(wanted).copied().collect();
        if variants.is_empty() {
            let known = scenario.variants.join(", ");
            return Err(LabError::Usage(format!(
                "--variant: {} has {known}",
                scenario.name
            )));
        }
        Ok(variants)
    }

    fn print(&self, report: &Report) -> Result<(), LabError> {
        if !self.json {
            print(&report.text())?;
            return Ok(());
        }
        print(&json(report, "the report")?)?;
        Ok(())
    }
}
