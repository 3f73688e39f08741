//! `hitless terminate`.

use clap::Args;

use super::choice::ChoiceArgs;
use super::wait::Wait;
use super::{Outcome, Target};
use crate::api::Request;

/// Close SAs, as `swanctl --terminate` does
#[derive(Args, Debug)]
#[command(
    long_about = "Close SAs; they are not started again before `hitless initiate`, a reload or \
        another leader. Ask the active member.",
    after_help = "Examples:\n  hitless terminate --ike office\n  hitless terminate --child net\n  hitless terminate --ike-id 3"
)]
pub struct Terminate {
    #[command(flatten)]
    choice: ChoiceArgs,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    target: Target,
}

impl Terminate {
    pub fn execute(&self) -> Outcome {
        let choice = self.choice.choice();
        let wait_ms = self.wait.milliseconds();
        let request = Request::Terminate { choice, wait_ms };
        self.target.order_and_wait(&request, self.wait.time())
    }
}
