//! `hitless cluster`.

use clap::{Args, Subcommand};

use super::{Outcome, Target, print, print_json};
use crate::api::{self, Reply, Request};

/// What the members are to each other
#[derive(Subcommand, Debug)]
#[command(after_help = "Example:\n  hitless cluster status")]
pub enum ClusterCommand {
    Status(ClusterStatus),
}

/// Show what would be lost if the active died now
#[derive(Args, Debug)]
#[command(
    long_about = "Show what would be lost if the active died now.\n\n\
        Of each kind of SA the greatest number of outbound numbers that a takeover would skip, and \
        the inbound packets that a strict takeover may refuse; SAs that a standby could not carry \
        on, and why; how far the standbys are behind. The active answers for its standbys, a \
        standby for itself.",
    after_help = "Examples:\n  hitless cluster status\n  hitless cluster status --json"
)]
pub struct ClusterStatus {
    #[command(flatten)]
    target: Target,
}

impl ClusterCommand {
    pub fn execute(&self) -> Outcome {
        let ClusterCommand::Status(ClusterStatus { target }) = self;
        match target.ask(&Request::Cluster {})? {
            Reply::Cluster(report) if target.json => print_json(&report),
            Reply::Cluster(report) => print(&api::cluster(&report)),
            _ => Err(target.other_reply()),
        }
    }
}
