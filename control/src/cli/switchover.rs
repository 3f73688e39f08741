//! `hitless switchover`.

use clap::Args;

use super::wait::Wait;
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
    wait: Wait,
    #[command(flatten)]
    target: Target,
}

impl Switchover {
    pub fn execute(&self) -> Outcome {
        if self.plan {
            return self.target.order(&Request::SwitchoverPlan {});
        }
        let wait_ms = self.wait.milliseconds();
        let request = Request::Switchover { wait_ms };
        self.target.order_and_wait(&request, self.wait.time())
    }
}
