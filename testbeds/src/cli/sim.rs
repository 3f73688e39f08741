//! `hitless-testbeds sim`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hitless_testbeds::error::LabError;
use hitless_testbeds::{clock, sim};

use super::{json, print};

/// Run the gateway in a simulated network that misbehaves, once for each seed. Needs nothing.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  hitless-testbeds sim --for 30m --json > night.1.json\n  \
        hitless-testbeds sim --for 30m --json --first NEXT > night.2.json\n  \
        hitless-testbeds sim --merge night.1.json night.2.json\n  \
        hitless-testbeds sim --with redirect --seeds 300"
)]
pub struct Sim {
    /// How many seeds; without it 100, all crash points, or with --for as many as there is time for.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of them; one below which a run stopped goes on from there.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Stop after so long (90s, 30m, 8h), and say which seed comes next.
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    limit: Option<Duration>,
    /// Run nothing: sum up what earlier runs printed with --json.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["seeds", "limit", "mutants"])]
    merge: Vec<PathBuf>,
    /// From one seed to the next.
    #[arg(long, default_value_t = 1)]
    every: u64,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Give each seed's tunnel this as well, with what may happen to it.
    #[arg(long, value_name = "FEATURE", value_parser = sim::features::Feature::named)]
    with: Option<&'static sim::features::Feature>,
    /// Not random faults: one crash after each single output of each exchange, enumerated.
    #[arg(long, visible_alias = "enumerate", conflicts_with = "with")]
    crash_points: bool,
    /// Tell on stderr what happens.
    #[arg(long)]
    verbose: bool,
    /// Not the gateway as it is: with one bug at a time planted, until a seed shows it.
    #[arg(long, conflicts_with_all = ["crash_points", "verbose", "first"])]
    mutants: bool,
}

/// Of the simulator, if nothing bounds them.
const DEFAULT_SEEDS: u64 = 100;

/// A time such as `90s`, `30m` or `8h`.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; write 90s, 30m or 8h");
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let all = number.checked_mul(seconds).ok_or_else(wrong)?;
    Ok(Duration::from_secs(all))
}

impl Sim {
    pub fn carry_out(&self) -> Result<bool, LabError> {
        if self.mutants {
            return self.hunt_mutants();
        }
        let summary = match self.merge.is_empty() {
            true => self.run()?,
            false => self.sum_up()?,
        };
        if self.json {
            print(&json(&summary, "the summary")?)?;
        } else {
            print(&summary.to_string())?;
        }
        Ok(summary.violations.is_empty())
    }

    fn run(&self) -> Result<sim::Summary, LabError> {
        let seeds = match (self.seeds, self.limit) {
            (None, None) if self.crash_points => {
                Some(sim::plan::crash_points() / self.every.max(1))
            }
            (None, None) => Some(DEFAULT_SEEDS),
            (seeds, _) => seeds,
        };
        let mut wish = sim::Wish::seeds(self.first, seeds.unwrap_or(u64::MAX));
        wish.every = self.every;
        wish.crash_points = self.crash_points;
        wish.verbose = self.verbose;
        wish.with = self.with;
        clock::watch_signals()?;
        let mut watch = sim::Watch::begin(seeds, self.limit);
        let summary = sim::run(wish, |so_far| watch.goes_on(so_far));
        if seeds.is_none_or(|seeds| summary.seeds < seeds)
            && let Some(next) = summary.next()
        {
            eprintln!("to go on: --first {next}");
        }
        Ok(summary)
    }

    fn sum_up(&self) -> Result<sim::Summary, LabError> {
        let mut whole = sim::Summary::default();
        for path in &self.merge {
            let shown = path.display().to_string();
            let text = std::fs::read(path).map_err(LabError::io(shown.clone()))?;
            let unreadable = |detail: String| LabError::Unreadable {
                what: shown,
                detail,
            };
            let part = serde_json::from_slice(&text);
            let part: sim::Summary = part.map_err(|error| unreadable(error.to_string()))?;
            whole
                .join(part)
                .map_err(|overlap| LabError::Usage(format!("{}: {overlap}", path.display())))?;
        }
        Ok(whole)
    }

    fn hunt_mutants(&self) -> Result<bool, LabError> {
        let seeds = self.seeds.unwrap_or(DEFAULT_SEEDS);
        let table = sim::run_mutants(seeds, |caught| eprintln!("{caught}"));
        match self.json {
            true => println!("{}", json(&table, "the table")?),
            false => println!("{table}"),
        }
        Ok(table.all_caught())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_has_a_unit() {
        let seconds = |text| super::span(text).map(|span| span.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("30m"), Ok(1800));
        assert_eq!(seconds("8h"), Ok(28_800));
        for wrong in ["", "s", "30", "-1s", "1d", "9999999999999999999h", "3ü"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
