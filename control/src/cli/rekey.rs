//! `hitless rekey`.

use clap::Args;

use super::choice::ChoiceArgs;
use super::wait::Wait;
use super::{Outcome, Target};
use crate::api::Request;

/// Replace SAs by such with fresh keys, as `swanctl --rekey` does
#[derive(Args, Debug)]
#[command(
    long_about = "Replace SAs by such with fresh keys, and wait until they are; no packet is lost. Ask the active member.",
    after_help = "Examples:\n  hitless rekey --ike office\n  hitless rekey --child net"
)]
pub struct Rekey {
    #[command(flatten)]
    choice: ChoiceArgs,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    target: Target,
}

impl Rekey {
    pub fn execute(&self) -> Outcome {
        let choice = self.choice.choice();
        let wait_ms = self.wait.milliseconds();
        let request = Request::Rekey { choice, wait_ms };
        self.target.order_and_wait(&request, self.wait.time())
    }
}
