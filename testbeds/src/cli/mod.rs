//! The command line of the testbeds, one file for each command or two; `bench.rs` is what those share
//! that run in namespaces.
//!
//! Exit status: 0 if nothing failed (what is skipped says so), 1 if a check failed, 2 if nothing could be run.

mod bench;
mod faults;
mod mangle;
mod model;
mod mutate;
mod run;
mod sim;
mod tables;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hitless_testbeds::error::LabError;
use hitless_testbeds::{esp_peer, guard};

const EXIT_CODES: &str = "\
Exit codes:
  0  nothing failed; what is skipped says so
  1  a check failed
  2  nothing could be run";

/// Scenarios for hitless, with real peers in network namespaces.
#[derive(Parser)]
#[command(name = "hitless-testbeds", version, after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(run::List),
    Run(run::Run),
    Faults(faults::Faults),
    Sim(sim::Sim),
    Model(model::Model),
    Mutate(mutate::Mutate),
    Mangle(mangle::Mangle),
    Matrix(tables::Matrix),
    Conformance(tables::Conformance),
    /// Drive one worker for a suite in another language, over stdin and stdout.
    #[command(
        after_help = "Example: HITLESS_TESTBEDS=target/debug/hitless-testbeds python3 -m unittest \
        discover -s testbeds/scapy"
    )]
    EspPeer,
    /// Remove what the process with this id leaves when it is killed; its pipe is our stdin.
    #[command(hide = true)]
    Guard {
        runner: u32,
    },
}

impl Arguments {
    pub fn carry_out(&self) -> ExitCode {
        let outcome = match &self.command {
            Command::List(list) => list.carry_out(),
            Command::Run(run) => run.carry_out(),
            Command::Faults(faults) => faults.carry_out(),
            Command::Sim(sim) => sim.carry_out(),
            Command::Model(model) => model.carry_out(),
            Command::Mutate(mutate) => mutate.carry_out(),
            Command::Matrix(matrix) => matrix.carry_out(),
            Command::Mangle(mangle) => mangle.carry_out(),
            Command::Conformance(table) => table.carry_out(),
            Command::EspPeer => serve(),
            Command::Guard { runner } => guard::watch(*runner).map(|()| true),
        };
        exit(outcome)
    }
}

fn serve() -> Result<bool, LabError> {
    let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
    esp_peer::serve(input, std::io::BufWriter::new(output))
        .map(|()| true)
        .map_err(LabError::io("the pipe"))
}

fn exit(outcome: Result<bool, LabError>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("hitless-testbeds: {error}");
            ExitCode::from(2)
        }
    }
}

/// Writes a result. A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> Result<(), LabError> {
    let mut out = std::io::stdout().lock();
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"));
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(LabError::io("stdout")(error))
        }
        _ => Ok(()),
    }
}

fn json(value: &impl serde::Serialize, what: &str) -> Result<String, LabError> {
    serde_json::to_string(value).map_err(|error| LabError::Unreadable {
        what: what.to_owned(),
        detail: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_fits_together_and_every_command_has_an_example() {
        let command = super::Arguments::command();
        command.clone().debug_assert();
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let help = sub.clone().render_long_help().to_string();
            assert!(help.contains("Example"), "{}: {help}", sub.get_name());
        }
    }
}
