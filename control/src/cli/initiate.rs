//! `hitless initiate`.

use clap::Args;

use super::wait::Wait;
use super::{Outcome, Target};
use crate::api::Request;

/// Bring a child up, as `swanctl --initiate` does
#[derive(Args, Debug)]
#[command(
    long_about = "Bring a child up, with its IKE SA if there is none, and wait until it is. Ask the active member.",
    after_help = "Example:\n  hitless initiate --child net --ike office"
)]
pub struct Initiate {
    /// The child
    #[arg(short, long, value_name = "NAME")]
    child: String,
    /// Its connection, if several have a child of that name
    #[arg(short, long, value_name = "NAME")]
    ike: Option<String>,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    target: Target,
}

impl Initiate {
    pub fn execute(&self) -> Outcome {
        let (child, ike) = (self.child.clone(), self.ike.clone());
        let wait_ms = self.wait.milliseconds();
        let request = Request::Initiate {
            child,
            ike,
            wait_ms,
        };
        self.target.order_and_wait(&request, self.wait.time())
    }
}
