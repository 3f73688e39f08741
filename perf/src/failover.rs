//! Takeovers as hosts see them: the demo's cluster loses its active member, again and again.

use std::error::Error;

use clap::Args;

use crate::progress::Progress;
use crate::results::FailoverLine;

/// Milliseconds in one bar of the timeline, and how far it reaches around the crash.
const BIN_MS: i64 = 1;
const BEFORE_MS: i64 = 50;
const AFTER_MS: i64 = 150;

/// Options of `hitless-perf failover`.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Options {
    /// How many takeovers
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub trials: u64,
    /// And takeovers of so many tunnels, through two whole gateways
    #[arg(long, value_delimiter = ',', value_name = "N,N,...",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub tunnels: Vec<usize>,
}

/// Runs the demo with a seed for each trial.
pub fn run(options: &Options) -> Result<Vec<FailoverLine>, Box<dyn Error>> {
    let mut progress = Progress::new("failover", options.trials as usize);
    (1..=options.trials)
        .map(|seed| {
            progress.step(&format!("seed {seed}"));
            trial(seed)
        })
        .collect()
}

fn trial(seed: u64) -> Result<FailoverLine, Box<dyn Error>> {
    let (result, arrivals) = hitless::demo::measure(seed)?;
    let count = |from: i64| {
        let within = from * 1000..(from + BIN_MS) * 1000;
        arrivals.iter().filter(|at| within.contains(at)).count() as u64
    };
    let bins = (-BEFORE_MS..AFTER_MS).step_by(BIN_MS as usize);
    Ok(FailoverLine {
        seed,
        outage_ms: result.outage_ms,
        takeover_ms: result.takeover_ms,
        packets_lost: result.packets_lost,
        packets_sent: result.packets_sent,
        repeated_sequence_numbers: result.repeated_sequence_numbers,
        replays_accepted: result.replays_accepted,
        timeline: bins.map(|from| (from, count(from))).collect(),
    })
}
