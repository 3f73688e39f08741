//! `hitless-testbeds mangle`.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::Args;
use hitless_testbeds::error::LabError;
use hitless_testbeds::mangle;

use super::{json, print};

/// Speak IKEv2 to a gateway with real keys, each message wrong in another way, and print what
/// comes back beside what the RFC says. Needs nothing.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  hitless-testbeds mangle fragment\n  sudo testbeds/responder mangle -- sh -c 'hitless-testbeds mangle --against 192.0.2.1 \\\n    --from 192.0.2.101 --socket $HITLESS_SOCKET'"
)]
pub struct Mangle {
    /// Only the cases with this in their name.
    #[arg(default_value = "")]
    filter: String,
    /// Not an engine in this process but this daemon, which has been told of the mangling peer
    /// (testbeds/responder does that).
    #[arg(long, value_name = "ADDRESS", requires_all = ["from", "socket"])]
    against: Option<Ipv4Addr>,
    /// Our own address then.
    #[arg(long, value_name = "ADDRESS", requires = "against")]
    from: Option<Ipv4Addr>,
    /// The daemon's control socket then.
    #[arg(long, value_name = "PATH", requires = "against")]
    socket: Option<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

impl Mangle {
    pub fn carry_out(&self) -> Result<bool, LabError> {
        let table = match (self.against, self.from, &self.socket) {
            (Some(gateway), Some(from), Some(socket)) => {
                let socket = socket.clone();
                let target = mangle::Target {
                    gateway,
                    from,
                    socket,
                };
                mangle::run_against(&target, &self.filter, |row| {
                    if !row.passed {
                        eprintln!("{}: {}", row.action, row.seen);
                    }
                })
            }
            _ => mangle::run(&self.filter),
        };
        match self.json {
            true => print(&json(&table, "the table")?)?,
            false => print(&table.to_string())?,
        }
        Ok(table.passed)
    }
}
