//! Which SAs a command is about.

use clap::Args;

use super::{Outcome, Target, print, print_json};
use crate::api::{Choice, Reply, Request};

/// SAs by name or number.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub struct ChoiceArgs {
    /// IKE SAs of this connection; with --child only that child's
    #[arg(short, long, value_name = "NAME")]
    ike: Option<String>,
    /// The IKE SA of this number, as list-sas shows it
    #[arg(short = 'I', long, value_name = "ID")]
    ike_id: Option<u64>,
    /// Child SAs of this name
    #[arg(short, long, value_name = "NAME")]
    child: Option<String>,
    /// The Child SA of this number
    #[arg(short = 'C', long, value_name = "ID")]
    child_id: Option<u64>,
}

impl ChoiceArgs {
    pub fn choice(&self) -> Choice {
        Choice {
            ike: self.ike.clone(),
            ike_id: self.ike_id,
            child: self.child.clone(),
            child_id: self.child_id,
        }
    }
}

/// Asks for something that is answered by one sentence.
pub fn order(target: &Target, request: &Request) -> Outcome {
    match target.ask(request)? {
        Reply::Done { message } if target.json => {
            print_json(&serde_json::json!({ "message": message }))
        }
        Reply::Done { message } => print(&format!("{message}\n")),
        _ => Err(target.other_reply()),
    }
}
