//! `hitless witness`: a member that only votes.

use clap::Args;

use super::{Failure, RunOptions};
use crate::config::Config;

/// Run the witness of a cluster, which only votes
#[derive(Args, Debug)]
#[command(
    long_about = "Run the witness of a cluster, in the foreground, until SIGTERM or SIGINT.\n\n\
        It holds no key, no copy and no address, and forwards nothing; it needs a disk for its \
        promises, and a way to both members that does not fail with the way between them. Its file \
        needs only [cluster], the same as on the members but for its id.",
    after_help = "Example:\n  hitless witness --config /etc/hitless/witness.toml"
)]
pub struct Witness {
    #[command(flatten)]
    run: RunOptions,
}

impl Witness {
    /// Reads the configuration, which must be a witness's, and starts the log.
    pub fn prepare(&self) -> Result<Config, Failure> {
        let config = self.run.prepare()?;
        if !config.cluster.votes_only() {
            return Err(Failure::usage(format!(
                "cluster.id: member {} is no witness; write witness = true in its entry of \
                 cluster.members, on every member, or start it with `hitless run`",
                config.cluster.id
            )));
        }
        Ok(config)
    }
}
