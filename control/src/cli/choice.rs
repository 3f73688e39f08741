//! Which SAs a command is about.

use clap::Args;

use crate::api::Choice;

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
