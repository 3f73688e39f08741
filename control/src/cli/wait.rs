//! How long a command waits for what it ordered.

use std::time::Duration;

use clap::Args;

/// Waiting for the end of it.
#[derive(Args, Debug)]
pub struct Wait {
    /// Wait so long for it to be done, and fail if it is not; 0 only gives the order
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=3600))]
    timeout: u64,
}

impl Wait {
    pub fn time(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    pub fn milliseconds(&self) -> u64 {
        self.timeout * 1000
    }
}
