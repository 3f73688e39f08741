//! The `hitless` command.

use std::process::ExitCode;

use clap::Parser;
use hitless::cli::{self, Cli, Command, DemoOptions, Failure, Outcome, RunOptions};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(options) => run(&options),
        Command::Demo(options) => demo(&options),
        Command::Status(command) => command.execute(),
        Command::ListSas(command) => command.execute(),
        Command::Switchover(command) => command.execute(),
        Command::Config(command) => command.execute(),
    };
    cli::finish(outcome)
}

fn run(options: &RunOptions) -> Outcome {
    let _config = options.prepare()?;
    Err(Failure::failed("the daemon is not built in"))
}

fn demo(_options: &DemoOptions) -> Outcome {
    Err(Failure::failed("the demo is not built in"))
}
