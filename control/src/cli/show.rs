//! `hitless show`: one view of the packet path at a time.

use clap::{Args, Subcommand};

use super::{Outcome, Target, print, print_json};
use crate::api::{self, Reply, Request, Show, Shown};

/// Show one view of the packet path: drops, SAs, workers, routes, policies, neighbours
#[derive(Subcommand, Debug)]
#[command(
    after_help = "Examples:\n  hitless show drops\n  hitless show sa office.net\n  hitless show workers --json"
)]
pub enum ShowCommand {
    Drops(Drops),
    #[command(visible_alias = "sas")]
    Sa(Sas),
    Workers(Workers),
    Routes(Routes),
    Policies(Policies),
    Neighbours(Neighbours),
}

/// Why packets were dropped, with the kernel's name for the same reason
#[derive(Args, Debug)]
#[command(
    long_about = "Why packets were dropped, with the kernel's name for the same reason.\n\n\
        Every dropped packet has one reason and is counted once by its worker; a packet of an SA \
        is counted by the SA too: `hitless show sa`. The kernel's names are those of \
        /proc/net/xfrm_stat.",
    after_help = "Examples:\n  hitless show drops\n  hitless show drops --worker 0 --all --json"
)]
pub struct Drops {
    /// Only what this worker dropped
    #[arg(long, value_name = "N")]
    worker: Option<u64>,
    /// Reasons that have not been counted as well
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    target: Target,
}

/// Child SAs: numbers, window, lease, packets, octets and drops
#[derive(Args, Debug)]
#[command(
    long_about = "Child SAs that the workers carry: SPIs, mode, suite, endpoints, selectors, \
        replay window, lease, packets, octets (of inner packets) and drops by reason. Keys are \
        never shown.\n\nWithout a name, all of them.",
    after_help = "Examples:\n  hitless show sa\n  hitless show sa office.net\n  hitless show sa c8fb5536 --json"
)]
pub struct Sas {
    /// A connection, a child, connection.child, an SPI, or an SA's own name
    #[arg(value_name = "NAME|SPI")]
    which: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// Workers: calls, packets in each burst, ports, packet buffers, AEAD engine
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hitless show workers --json")]
pub struct Workers {
    #[command(flatten)]
    target: Target,
}

/// The forwarding table
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hitless show routes")]
pub struct Routes {
    #[command(flatten)]
    target: Target,
}

/// The policies (SPD), in the order in which they are tried
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hitless show policies --json")]
pub struct Policies {
    #[command(flatten)]
    target: Target,
}

/// Ethernet addresses that the workers have learned
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hitless show neighbours")]
pub struct Neighbours {
    #[command(flatten)]
    target: Target,
}

impl ShowCommand {
    pub fn execute(&self) -> Outcome {
        let (what, target) = match self {
            ShowCommand::Drops(c) => {
                let (worker, all) = (c.worker, c.all);
                (Show::Drops { worker, all }, &c.target)
            }
            ShowCommand::Sa(c) => {
                let which = c.which.clone();
                (Show::Sas { which }, &c.target)
            }
            ShowCommand::Workers(c) => (Show::Workers {}, &c.target),
            ShowCommand::Routes(c) => (Show::Routes {}, &c.target),
            ShowCommand::Policies(c) => (Show::Policies {}, &c.target),
            ShowCommand::Neighbours(c) => (Show::Neighbours {}, &c.target),
        };
        match target.ask(&Request::Show { what })? {
            Reply::Shown { shown } if target.json => print_shown(&shown),
            Reply::Shown { shown } => print(&api::show(&shown)),
            _ => Err(target.other_reply()),
        }
    }
}

/// The list itself, without a wrapper.
fn print_shown(shown: &Shown) -> Outcome {
    match shown {
        Shown::Drops { drops } => print_json(drops),
        Shown::Sas { sas } => print_json(sas),
        Shown::Workers { workers } => print_json(workers),
        Shown::Routes { routes } => print_json(routes),
        Shown::Policies { policies } => print_json(policies),
        Shown::Neighbours { neighbours } => print_json(neighbours),
    }
}
