//! `hitless metrics`.

use clap::Args;

use super::{Outcome, Target, print, print_json};
use crate::api::{self, Reply, Request};

/// Print every figure for a monitoring system
#[derive(Args, Debug)]
#[command(
    long_about = "Print every figure in the text format of Prometheus: the role, what a takeover \
        would cost, sync lag, lease stalls, IKE handshakes, packets, drops by reason.\n\n\
        Each HELP line says what its figure means. Nothing listens for HTTP: write a file for the \
        textfile collector of the node exporter, by a timer.",
    after_help = "Examples:\n  hitless metrics\n  \
        hitless metrics > /var/lib/node_exporter/hitless.prom.new && \
        mv /var/lib/node_exporter/hitless.prom.new /var/lib/node_exporter/hitless.prom"
)]
pub struct Metrics {
    #[command(flatten)]
    target: Target,
}

impl Metrics {
    pub fn execute(&self) -> Outcome {
        match self.target.ask(&Request::Metrics {})? {
            Reply::Metrics(report) if self.target.json => print_json(&report),
            Reply::Metrics(report) => print(&api::metrics(&report)),
            _ => Err(self.target.other_reply()),
        }
    }
}
