//! `hitless redirect`.

use std::net::IpAddr;

use clap::Args;

use super::{Outcome, Target};
use crate::api::{Choice, Request};

/// Send clients to another gateway (RFC 5685)
#[derive(Args, Debug)]
#[command(
    long_about = "Ask the clients of a connection to go to another gateway (RFC 5685): they take \
        their tunnels along, make before break. Only those go that began the IKE SA and said that \
        they can be redirected; who is still here after half a minute is closed, and may come back. \
        Ask the active member. `redirect_to` in the configuration sends away those that come.",
    after_help = "Examples:\n  hitless redirect --ike office --to 203.0.113.9\n  hitless redirect --ike-id 3 --to 2001:db8::9 --json"
)]
pub struct Redirect {
    #[command(flatten)]
    clients: Clients,
    /// The other gateway's address
    #[arg(short, long, value_name = "ADDRESS")]
    to: IpAddr,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct Clients {
    /// IKE SAs of this connection
    #[arg(short, long, value_name = "NAME")]
    ike: Option<String>,
    /// The IKE SA of this number, as list-sas shows it
    #[arg(short = 'I', long, value_name = "ID")]
    ike_id: Option<u64>,
}

impl Redirect {
    pub fn execute(&self) -> Outcome {
        let choice = Choice {
            ike: self.clients.ike.clone(),
            ike_id: self.clients.ike_id,
            ..Choice::default()
        };
        let to = self.to;
        self.target.order(&Request::Redirect { choice, to })
    }
}
