//! Packet rates of the dataplane, beside the bare AEAD in the same run.
//!
//! ```text
//!  feed.rs  frames that are ready in buffers -> Worker::turn, timed -> sink    esp.rs
//!                                                aws-lc-rs alone, timed        aead.rs
//! ```
//!
//! Timings on shared machines drift, so every figure stands beside one of the bare cipher that was
//! taken in the same round, and the ratio is what to read.

mod aead;
mod clock;
mod esp;
mod feed;
mod report;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures the hitless dataplane.
#[derive(Parser)]
#[command(
    name = "hitless-perf",
    version,
    after_help = "Example: hitless-perf esp --json"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// ESP in tunnel mode, AES-GCM-16-128, port to port on one core, both directions.
    #[command(after_help = "Example: hitless-perf esp --rounds 50 --core 1")]
    Esp(esp::Options),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Esp(options) => match esp::run(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("hitless-perf: {error}");
                ExitCode::FAILURE
            }
        },
    }
}
