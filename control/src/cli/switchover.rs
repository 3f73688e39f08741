//! `hitless switchover`.

use clap::Args;

use super::{Outcome, Target};
use crate::api::Request;

/// Hand the lead to a standby, without a skip
#[derive(Args, Debug)]
#[command(
    long_about = "Hand the lead to a standby, for maintenance. Ask the active member.\n\n\
        It stops, reports the exact counters of every SA, and the standby goes on from there: no \
        sequence number is skipped, none is repeated.",
    after_help = "Examples:\n  hitless switchover --plan\n  hitless switchover && systemctl stop hitless"
)]
pub struct Switchover {
    /// Only say who would take over, and with what
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    target: Target,
}

impl Switchover {
    pub fn execute(&self) -> Outcome {
        let request = match self.plan {
            true => Request::SwitchoverPlan {},
            false => Request::Switchover {},
        };
        self.target.order(&request)
    }
}
