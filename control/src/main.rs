//! The `hitless` command.

use std::process::ExitCode;

use clap::Parser;
use hitless::cli::{self, Cli, Command, DemoOptions, Failure, Outcome, RunOptions, Witness};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(options) => run(&options),
        Command::Witness(options) => witness(&options),
        Command::Demo(options) => demo(&options),
        Command::Status(command) => command.execute(),
        Command::ListSas(command) => command.execute(),
        Command::Initiate(command) => command.execute(),
        Command::Terminate(command) => command.execute(),
        Command::Rekey(command) => command.execute(),
        Command::Redirect(command) => command.execute(),
        Command::Reload(command) => command.execute(),
        Command::Show(command) => command.execute(),
        Command::Trace(command) => command.execute(),
        Command::Capture(command) => command.execute(),
        Command::Switchover(command) => command.execute(),
        Command::Audit(command) => command.execute(),
        Command::Cluster(command) => command.execute(),
        Command::Metrics(command) => command.execute(),
        Command::Config(command) => command.execute(),
    };
    cli::finish(outcome)
}

fn run(options: &RunOptions) -> Outcome {
    let config = options.prepare()?;
    hitless::daemon::run(config).map_err(Failure::failed)
}

fn witness(options: &Witness) -> Outcome {
    let config = options.prepare()?;
    hitless::daemon::run(config).map_err(Failure::failed)
}

fn demo(options: &DemoOptions) -> Outcome {
    hitless::demo::run(options).map_err(Failure::failed)
}
