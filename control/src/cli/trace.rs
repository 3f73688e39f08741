//! `hitless trace`: the way of single packets.

use clap::{Args, Subcommand};

use super::filter::FilterOptions;
use super::{Outcome, Target, print, print_json};
use crate::api::{self, Reply, Request};

/// Follow the next packets through the stages of the packet path
#[derive(Subcommand, Debug)]
#[command(
    after_help = "Examples:\n  hitless trace add 10\n  hitless trace add 1 --filter sa=office.net\n  hitless trace show"
)]
pub enum TraceCommand {
    Add(Add),
    Show(Show),
    Clear(Clear),
}

/// Follow the next N packets of each worker, in place of an earlier trace
#[derive(Args, Debug)]
#[command(
    long_about = "Follow the next N packets of each worker, in place of an earlier trace.\n\n\
        A packet is followed from the port that brings it until it is sent, dropped or given to \
        the control thread. The workers pay for a trace only until N packets have come.",
    after_help = "Examples:\n  hitless trace add 10\n  hitless trace add 5 --filter port=inside"
)]
pub struct Add {
    /// Packets of each worker, 1 to 1000
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    packets: u32,
    #[command(flatten)]
    filter: FilterOptions,
    #[command(flatten)]
    target: Target,
}

/// Show the packets that have been followed
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hitless trace show --json")]
pub struct Show {
    #[command(flatten)]
    target: Target,
}

/// End the trace and forget it
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  hitless trace clear")]
pub struct Clear {
    #[command(flatten)]
    target: Target,
}

impl TraceCommand {
    pub fn execute(&self) -> Outcome {
        let (request, target) = match self {
            TraceCommand::Add(add) => {
                let packets = add.packets;
                let filter = add.filter.parse()?;
                (Request::TraceAdd { packets, filter }, &add.target)
            }
            TraceCommand::Show(show) => (Request::TraceShow {}, &show.target),
            TraceCommand::Clear(clear) => (Request::TraceClear {}, &clear.target),
        };
        match target.ask(&request)? {
            Reply::Trace(report) if target.json => print_json(&report),
            Reply::Trace(report) => print(&api::trace(&report)),
            Reply::Done { message } => target.sentence(&message),
            _ => Err(target.other_reply()),
        }
    }
}
