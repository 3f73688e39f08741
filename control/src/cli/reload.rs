//! `hitless reload`.

use clap::Args;

use super::{Outcome, Target};
use crate::api::Request;

/// Read connections and secrets anew, as `swanctl --load-all` does
#[derive(Args, Debug)]
#[command(
    long_about = "Read connections and secrets anew from the file that the daemon was started with.\n\n\
        What did not change goes on undisturbed: SAs whose connection is gone or means another peer \
        are closed, the others take the new settings at their next rekeying. Everything else in \
        the file needs a restart, and is refused. In a cluster reload the standby members first: \
        they must know a connection before its SAs come.",
    after_help = "Example:\n  hitless config check && hitless reload"
)]
pub struct Reload {
    #[command(flatten)]
    target: Target,
}

impl Reload {
    pub fn execute(&self) -> Outcome {
        self.target.order(&Request::Reload {})
    }
}
