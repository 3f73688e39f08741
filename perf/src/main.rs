//! What hitless can do on this machine, beside what others can.
//!
//! ```text
//!  esp       worker, port to port, beside bare aws-lc-rs      lookup    SPD and FIB by themselves
//!  ike       IKE SAs a second        sync   records a second   failover  takeovers of the demo
//!  all       everything above        report the same as one HTML page with plots
//! ```
//!
//! Timings on shared machines drift, so every figure of the packet path stands beside one of the bare
//! cipher that was taken in the same round, and the ratio is what to read.

mod clock;
mod esp;
mod lookup;
mod machine;
mod progress;
mod results;

use std::error::Error;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use results::Results;

/// Measure hitless on this machine
#[derive(Parser)]
#[command(
    name = "hitless-perf",
    version,
    after_help = "Examples:\n  hitless-perf esp --only sizes\n  hitless-perf all --json > results.json"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// How results are printed.
#[derive(Args, Clone, Debug)]
struct Printing {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// ESP in tunnel mode, port to port, both directions, beside bare aws-lc-rs
    #[command(
        after_help = "Examples:\n  hitless-perf esp\n  hitless-perf esp --only sizes,sas --rounds 1000 --pin 1 --json"
    )]
    Esp {
        #[command(flatten)]
        options: esp::Options,
        #[command(flatten)]
        printing: Printing,
    },
    /// Policies and routes looked up in tables of up to 100,000
    #[command(after_help = "Example: hitless-perf lookup --json")]
    Lookup {
        #[command(flatten)]
        pin: machine::Pin,
        #[command(flatten)]
        printing: Printing,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hitless-perf: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    let mut results = Results::here();
    let printing = match command {
        Command::Esp { options, printing } => {
            results.esp = Some(esp::run(&options)?);
            printing
        }
        Command::Lookup { pin, printing } => {
            pin.cores().take(0);
            results.lookup = Some(lookup::run()?);
            printing
        }
    };
    print(&results, &printing)
}

fn print(results: &Results, printing: &Printing) -> Result<(), Box<dyn Error>> {
    if printing.json {
        println!("{}", serde_json::to_string_pretty(results)?);
    } else {
        print!("{results}");
    }
    Ok(())
}
