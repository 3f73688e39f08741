//! `hitless-testbeds model`.

use clap::Args;
use hitless_testbeds::error::LabError;
use hitless_testbeds::model;

use super::{json, print};

/// Search the lease rules as a model, whole and with each rule left out: a minute or two, and
/// a gigabyte. Needs nothing.
#[derive(Args)]
#[command(after_help = "Example: hitless-testbeds model --full")]
pub struct Model {
    /// As far as before a release: some minutes and gigabytes.
    #[arg(long)]
    full: bool,
    /// Print one JSON object instead of text, with the history of each repeated number.
    #[arg(long)]
    json: bool,
}

impl Model {
    pub fn carry_out(&self) -> Result<bool, LabError> {
        let depth = match self.full {
            true => model::Depth::Full,
            false => model::Depth::Quick,
        };
        let summary = model::run(depth, |search| eprintln!("{search}"));
        match self.json {
            true => print(&json(&summary, "the searches")?)?,
            false => print(&summary.to_string())?,
        }
        Ok(summary.as_expected())
    }
}
