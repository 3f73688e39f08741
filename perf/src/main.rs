//! What hitless can do on this machine, beside what others can.
//!
//! ```text
//!  esp       worker, port to port, beside bare aws-lc-rs      lookup    SPD and FIB by themselves
//!  io        ESP over the kernel's ports, beside a loop that only forwards (as root)
//!  ike       IKE SAs a second        sync   records a second   failover  takeovers of the demo
//!  crowd     many IKE SAs at once
//!  all       everything above        report the same as one HTML page with plots
//! ```
//!
//! Timings on shared machines drift, so every figure of the packet path stands beside one of the bare
//! cipher that was taken in the same round, and the ratio is what to read.

mod clock;
mod compare;
mod crowd;
mod esp;
mod failover;
mod ike;
mod io;
mod lookup;
mod machine;
mod pktgen;
mod print;
mod progress;
mod rate;
mod report;
mod results;
mod sync;
mod takeover;

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
        after_help = "Examples:\n  hitless-perf esp\n  hitless-perf esp --only sizes,sas --rounds 1000 --pin 1 --json\n  \
            hitless-perf esp --only overhead --instructions"
    )]
    Esp {
        #[command(flatten)]
        options: esp::Options,
        #[command(flatten)]
        printing: Printing,
    },
    /// IKE SAs established and Child SAs rekeyed, two engines on one core
    #[command(after_help = "Example: hitless-perf ike --json")]
    Ike(Plain),
    /// Many IKE SAs: how fast a responder makes them, their memory, and all kept alive by timers
    #[command(
        after_help = "Examples:\n  hitless-perf crowd --sas 100000\n  hitless-perf crowd --over udp\n  sudo hitless-perf crowd --beside strongswan --sas 2000\n\n\
        On a busy machine compare what a second of the responder's core answers, of runs side by side.\n\
        With strongSwan alone, to be set beside --over udp:\n  \
        sudo testbeds/responder strongswan -- sh -c 'hitless-perf crowd --against 192.0.2.1 \\\n    \
        --from 192.0.2.101 --sas 2000 --pid $RESPONDER'"
    )]
    Crowd(crowd::Options),
    /// Commits and leases recorded by a standby, two members on one core
    #[command(after_help = "Example: hitless-perf sync --pin 1")]
    Sync(Plain),
    /// Takeovers of the demo's cluster, as its hosts see them
    #[command(
        after_help = "Examples:\n  hitless-perf failover --trials 20 --json\n  hitless-perf failover --trials 1 --tunnels 1,1000"
    )]
    Failover {
        #[command(flatten)]
        options: failover::Options,
        #[command(flatten)]
        printing: Printing,
    },
    /// ESP over AF_XDP, AF_PACKET and TAP beside a loop that only forwards (as root)
    #[command(
        after_help = "Examples:\n  sudo hitless-perf io\n  sudo hitless-perf io --drivers af_xdp --sizes 64,512,1400 --json"
    )]
    Io {
        #[command(flatten)]
        options: io::Options,
        #[command(flatten)]
        printing: Printing,
    },
    /// Everything above
    #[command(after_help = "Example: hitless-perf all --rounds 100 --json > results.json")]
    All {
        #[command(flatten)]
        esp: esp::Options,
        #[command(flatten)]
        failover: failover::Options,
        #[command(flatten)]
        printing: Printing,
    },
    /// Send packets out of a port at a rate, and count what becomes of them
    #[command(
        after_help = pktgen::EXAMPLES
    )]
    Pktgen(Box<pktgen::Options>),
    /// What Debian offers beside us, installed and run on the same sizes
    #[command(after_help = "Example: sudo hitless-perf compare --runs 10 --json")]
    Compare(compare::Options),
    /// Everything on one HTML page with plots
    #[command(
        after_help = "Examples:\n  hitless-perf report\n  hitless-perf report --input results.json --output page.html --svg plots --mangle mangle.json"
    )]
    Report {
        #[command(flatten)]
        report: report::Options,
        #[command(flatten)]
        esp: esp::Options,
        #[command(flatten)]
        failover: failover::Options,
        #[command(flatten)]
        printing: Printing,
    },
    /// What `esp --instructions` runs under valgrind
    #[command(hide = true)]
    CountOverhead { case: String },
    /// Policies and routes looked up in tables of up to 100,000
    #[command(after_help = "Example: hitless-perf lookup --json")]
    Lookup(Plain),
}

/// Options of what has no others.
#[derive(Args, Clone, Debug)]
struct Plain {
    #[command(flatten)]
    pin: machine::Pin,
    #[command(flatten)]
    printing: Printing,
}

impl Plain {
    /// Measures on its core.
    fn measure(
        self,
        work: impl FnOnce() -> Result<(), Box<dyn Error>>,
    ) -> Result<Printing, Box<dyn Error>> {
        self.pin.cores().take(0);
        work()?;
        Ok(self.printing)
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print::note(error);
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
        Command::Ike(plain) => plain.measure(|| {
            results.ike = Some(ike::run()?);
            Ok(())
        })?,
        Command::Crowd(options) => return print::result(&crowd::run(&options)?, options.json),
        Command::Sync(plain) => plain.measure(|| {
            results.sync = Some(sync::run()?);
            Ok(())
        })?,
        Command::Lookup(plain) => plain.measure(|| {
            results.lookup = Some(lookup::run()?);
            Ok(())
        })?,
        Command::Io { options, printing } => {
            results.io = Some(io::run(&options)?);
            printing
        }
        Command::Failover { options, printing } => {
            results.failover = Some(failover::run(&options)?);
            results.crowd = crowds(&options)?;
            printing
        }
        Command::All {
            esp,
            failover,
            printing,
        } => {
            all(&mut results, &esp, &failover)?;
            printing
        }
        Command::CountOverhead { case } => return esp::count(&case),
        Command::Compare(options) => return print::result(&compare::run(&options)?, options.json),
        Command::Pktgen(options) => return print::result(&pktgen::run(&options)?, options.json),
        Command::Report {
            report,
            esp,
            failover,
            printing,
        } => {
            let besides = report::prepare(&report)?;
            match &report.input {
                Some(path) => results = report::read(path)?,
                None => all(&mut results, &esp, &failover)?,
            }
            report::write(&report, besides, &results)?;
            if !printing.json {
                return Ok(());
            }
            printing
        }
    };
    print::result(&results, printing.json)
}

/// Takeovers of as many tunnels as are asked for.
fn crowds(options: &failover::Options) -> Result<Option<Vec<results::CrowdLine>>, Box<dyn Error>> {
    let lines: Result<Vec<_>, _> = options.tunnels.iter().map(|n| takeover::run(*n)).collect();
    Ok(Some(lines?).filter(|lines| !lines.is_empty()))
}

/// Everything; takeovers first, whose threads must not inherit the core of the others.
fn all(
    results: &mut Results,
    esp: &esp::Options,
    failover: &failover::Options,
) -> Result<(), Box<dyn Error>> {
    results.failover = Some(failover::run(failover)?);
    results.crowd = crowds(failover)?;
    let io = io::Options::like(esp);
    match io::run(&io) {
        Ok(lines) => results.io = Some(lines),
        // The rest needs no privilege.
        Err(error) => print::note(format_args!("kernel ports are left out: {error}")),
    }
    results.esp = Some(esp::run(esp)?);
    results.lookup = Some(lookup::run()?);
    results.ike = Some(ike::run()?);
    results.sync = Some(sync::run()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Arguments;

    #[test]
    fn the_command_line_fits_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_cannot_have_a_meaning_is_refused() {
        for wrong in [
            "report --input r.json --rounds 10",
            "report --input r.json --only sizes",
            "report --input r.json --trials 2",
            "failover --tunnels 0",
            "pktgen --port memory --count 0",
            "pktgen --port memory --flows 0",
            "ike --pin 4096",
        ] {
            let words = ["hitless-perf"].into_iter().chain(wrong.split(' '));
            assert!(Arguments::try_parse_from(words).is_err(), "{wrong}");
        }
    }
}
