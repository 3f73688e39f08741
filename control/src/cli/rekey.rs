//! `hitless rekey`.

use clap::Args;

use super::choice::ChoiceArgs;
use super::{Outcome, Target};
use crate::api::Request;

/// Replace SAs by such with fresh keys, as `swanctl --rekey` does
#[derive(Args, Debug)]
#[command(
    long_about = "Replace SAs by such with fresh keys; no packet is lost. Ask the active member.",
    after_help = "Examples:\n  hitless rekey --ike office\n  hitless rekey --child net"
)]
pub struct Rekey {
    #[command(flatten)]
    choice: ChoiceArgs,
    #[command(flatten)]
    target: Target,
}

impl Rekey {
    pub fn execute(&self) -> Outcome {
        let choice = self.choice.choice();
        self.target.order(&Request::Rekey { choice })
    }
}
