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
        they must know a connection before its SAs come.\n\n\
        A changed secret or certificate counts for whoever authenticates from now on, tickets \
        included. What a peer has proved stays proved, as with strongSwan, until reauth_time or the \
        end of its IKE_SA: to have it prove itself now, `hitless terminate --ike NAME` and, where \
        this end begins, `hitless initiate --child CHILD --ike NAME`.",
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
