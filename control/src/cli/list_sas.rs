//! `hitless list-sas`.

use clap::Args;

use super::{Outcome, Target, print, print_json};
use crate::api::{self, Reply, Request};

/// List IKE SAs and Child SAs, as `swanctl --list-sas` does
#[derive(Args, Debug)]
#[command(
    long_about = "List IKE SAs and Child SAs, as `swanctl --list-sas` does.\n\n\
        `*` marks our SPI. A standby shows its copies as PASSIVE.",
    after_help = "Examples:\n  hitless list-sas\n  hitless list-sas --ike office --json"
)]
pub struct ListSas {
    /// Only IKE SAs of this connection
    #[arg(short, long, value_name = "NAME")]
    ike: Option<String>,
    #[command(flatten)]
    target: Target,
}

impl ListSas {
    pub fn execute(&self) -> Outcome {
        let request = Request::ListSas {
            connection: self.ike.clone(),
        };
        match self.target.ask(&request)? {
            Reply::Sas { sas } if self.target.json => print_json(&sas),
            Reply::Sas { sas } if sas.is_empty() => print("no IKE SA\n"),
            Reply::Sas { sas } => print(&api::list_sas(&sas)),
            _ => Err(self.target.other_reply()),
        }
    }
}
