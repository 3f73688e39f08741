//! `hitless status`.

use clap::Args;

use super::{Outcome, Target, print, print_json};
use crate::api::{self, Reply, Request};

/// Show role, members, leases, ports and drops
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  hitless status\n  hitless status --json --socket /run/hitless/hitless.sock"
)]
pub struct Status {
    #[command(flatten)]
    target: Target,
}

impl Status {
    pub fn execute(&self) -> Outcome {
        match self.target.ask(&Request::Status {})? {
            Reply::Status(status) if self.target.json => print_json(&status),
            Reply::Status(status) => print(&api::status(&status)),
            _ => Err(self.target.other_reply()),
        }
    }
}
