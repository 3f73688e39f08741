//! The command line: `hitless COMMAND`, one file for each command.
//!
//! Results go to stdout, errors to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage or wrong
//! configuration.

mod audit;
mod capture;
mod choice;
mod cluster;
mod config;
mod demo;
mod filter;
mod initiate;
mod list_sas;
mod metrics;
mod redirect;
mod rekey;
mod reload;
mod run;
mod show;
mod status;
mod switchover;
mod terminate;
mod trace;
mod wait;
mod witness;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use crate::api::{self, Reply, Request};
use crate::config::{ConfigError, DEFAULT_SOCKET};
use crate::log;

pub use audit::Audit;
pub use capture::Capture;
pub use cluster::ClusterCommand;
pub use config::ConfigCommand;
pub use demo::DemoOptions;
pub use initiate::Initiate;
pub use list_sas::ListSas;
pub use metrics::Metrics;
pub use redirect::Redirect;
pub use rekey::Rekey;
pub use reload::Reload;
pub use run::RunOptions;
pub use show::ShowCommand;
pub use status::Status;
pub use switchover::Switchover;
pub use terminate::Terminate;
pub use trace::TraceCommand;
pub use witness::Witness;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: the daemon refused, or there is none
  2  wrong usage, or a configuration that is wrong";

/// A userspace IPsec gateway whose tunnels survive the death of the machine that carries them.
#[derive(Parser, Debug)]
#[command(name = "hitless", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    Run(RunOptions),
    Witness(Witness),
    Demo(DemoOptions),
    Status(Status),
    ListSas(ListSas),
    Initiate(Initiate),
    Terminate(Terminate),
    Rekey(Rekey),
    Redirect(Redirect),
    Reload(Reload),
    #[command(subcommand)]
    Show(ShowCommand),
    #[command(subcommand)]
    Trace(TraceCommand),
    Capture(Capture),
    Switchover(Switchover),
    Audit(Audit),
    #[command(subcommand)]
    Cluster(ClusterCommand),
    Metrics(Metrics),
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// Which daemon to ask, and how to print what it says.
#[derive(Args, Debug)]
pub struct Target {
    /// The daemon's control socket [env: HITLESS_SOCKET] [default: /run/hitless/hitless.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Target {
    fn socket(&self) -> PathBuf {
        self.socket
            .clone()
            .or_else(|| std::env::var_os("HITLESS_SOCKET").map(PathBuf::from))
            .unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET))
    }

    /// Asks, and makes a refusal a failure.
    fn ask(&self, request: &Request) -> Result<Reply, Failure> {
        self.ask_and_wait(request, Duration::ZERO)
    }

    fn ask_and_wait(&self, request: &Request, work: Duration) -> Result<Reply, Failure> {
        match api::client::call_and_wait(&self.socket(), request, work) {
            Ok(Reply::Refused { reason }) => Err(Failure::failed(reason)),
            Ok(reply) => Ok(reply),
            Err(e) => Err(Failure::failed(e)),
        }
    }

    /// Asks for something that is answered by one sentence.
    fn order(&self, request: &Request) -> Outcome {
        self.order_and_wait(request, Duration::ZERO)
    }

    fn order_and_wait(&self, request: &Request, work: Duration) -> Outcome {
        match self.ask_and_wait(request, work)? {
            Reply::Done { message } => self.sentence(&message),
            _ => Err(self.other_reply()),
        }
    }

    fn sentence(&self, message: &str) -> Outcome {
        match self.json {
            true => print_json(&serde_json::json!({ "message": message })),
            false => print(&format!("{message}\n")),
        }
    }

    fn other_reply(&self) -> Failure {
        Failure::failed(format!(
            "the daemon on {} answered something else; is it of another version?",
            self.socket().display()
        ))
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    /// For stderr, complete.
    text: String,
}

impl Failure {
    /// Exit code 1.
    pub fn failed(why: impl fmt::Display) -> Failure {
        Failure {
            code: 1,
            text: format!("error: {why}"),
        }
    }

    /// Exit code 2.
    fn usage(why: impl fmt::Display) -> Failure {
        Failure {
            code: 2,
            text: format!("error: {why}"),
        }
    }

    /// Exit code 2, with the report.
    fn config(error: &ConfigError) -> Failure {
        Failure {
            code: 2,
            text: error.render(io::stderr().is_terminal()),
        }
    }
}

/// What a command comes to.
pub type Outcome = Result<ExitCode, Failure>;

/// Tells the user about a failure; the process's exit code.
pub fn finish(outcome: Outcome) -> ExitCode {
    log::flush();
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            // With stderr closed there is nobody left to tell.
            let _ = writeln!(io::stderr(), "{}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

/// Writes a result to stdout. A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to stdout: {e}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn print_json(value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(value).map_err(Failure::failed)?;
    print(&format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound_and_every_command_has_an_example() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        every_command_has_an_example(&command);
    }

    fn every_command_has_an_example(command: &clap::Command) {
        for sub in command.get_subcommands() {
            if sub.get_name() == "help" {
                continue;
            }
            let help = sub.clone().render_long_help().to_string();
            assert!(help.contains("Example"), "{}: {help}", sub.get_name());
            every_command_has_an_example(sub);
        }
    }
}
