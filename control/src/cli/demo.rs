//! `hitless demo`: a cluster, a peer and a failover in one process.

use std::path::PathBuf;

use clap::Args;

/// Show a failover: a cluster and its peer in one process
#[derive(Args, Clone, PartialEq, Eq, Debug)]
#[command(
    long_about = "Show a failover: two members, a peer and hosts in one process, over memory \
        ports. No privilege, no configuration, no network.",
    after_help = "Examples:\n  hitless demo\n  hitless demo --json --seed 7 --pcap /tmp/demo"
)]
pub struct DemoOptions {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Write captures of the wires into this directory
    #[arg(long, value_name = "DIR")]
    pub pcap: Option<PathBuf>,
    /// Seeds keys, identifiers and the moment of the crash
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}
