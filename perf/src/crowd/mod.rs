//! Many IKE SAs with a Child SA each: what a responder needs to make one, what each weighs, and
//! whether all of them stay.
//!
//! ```text
//!  alone.rs      two engines on one core, no network, virtual time
//!  sockets.rs    initiators (flock.rs) on UDP sockets, to our own responder (answerer.rs) or to a gateway
//!  beside.rs     our daemon and strongSwan's, one after the other, for the same initiators
//!  meter.rs      what the responder takes of the machine
//! ```

mod alone;
mod answerer;
mod beside;
mod flock;
mod meter;
mod sockets;

use std::error::Error;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::machine::Pin;
use crate::pktgen::duration;
use meter::Meter;
use sockets::Task;

/// What `hitless-perf crowd` can be told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// IKE SAs, with one Child SA each
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sas: u32,
    /// How messages travel
    #[arg(long, value_enum, default_value_t = Over::Nothing)]
    pub over: Over,
    /// Not to ourselves but to this gateway, on port 4500. It knows its peers as c0.peer.test,
    /// c1.peer.test, ... by the secret "0123456789abcdef", and is cluster.test. Only for a gateway of
    /// yours: to others this is a flood
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "from",
        conflicts_with = "over"
    )]
    pub against: Option<Ipv4Addr>,
    /// The first of our 32 addresses to speak from
    #[arg(long, value_name = "ADDRESS", requires = "against")]
    pub from: Option<Ipv4Addr>,
    /// The process that answers there, if it is on this machine: its time and memory are measured
    #[arg(long, value_name = "ID", requires = "against")]
    pub pid: Option<u32>,
    /// Our daemon and this one, each with a core and a namespace of its own (as root)
    #[arg(long, value_enum, conflicts_with_all = ["over", "against"])]
    pub beside: Option<Other>,
    /// Without sockets: how often each IKE SA is asked for a sign of life, in virtual time
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Over sockets: each IKE SA is asked for a sign of life after so long
    #[arg(long, default_value = "20s", value_parser = duration, value_name = "TIME")]
    pub dpd: Duration,
    /// Over sockets: how long all of them are kept
    #[arg(long, default_value = "25s", value_parser = duration, value_name = "TIME")]
    pub hold: Duration,
    #[command(flatten)]
    pub pin: Pin,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// How messages travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Over {
    /// Handed over as they are, two engines on one core
    Nothing,
    /// UDP sockets on loopback
    Udp,
}

/// Who else answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Other {
    /// Debian's charon, with ESP in user space
    Strongswan,
}

/// What came of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    Alone(alone::Crowd),
    Sockets(sockets::Sockets),
    Beside(Box<beside::Beside>),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Alone(crowd) => crowd.fmt(f),
            Outcome::Sockets(sockets) => sockets.fmt(f),
            Outcome::Beside(both) => both.fmt(f),
        }
    }
}

/// Makes them all, and sees that all of them stay.
pub fn run(options: &Options) -> Result<Outcome, Box<dyn Error>> {
    let task = Task {
        sas: options.sas,
        dpd: options.dpd,
        hold: options.hold,
        pin: options.pin.clone(),
    };
    let sockets =
        options.over == Over::Udp || options.against.is_some() || options.beside.is_some();
    if sockets && (options.dpd.is_zero() || options.hold <= options.dpd) {
        return Err(
            "--hold must be longer than --dpd, and that more than nothing: or nobody is asked"
                .into(),
        );
    }
    if let Some(Other::Strongswan) = options.beside {
        return Ok(Outcome::Beside(Box::new(beside::run(&task)?)));
    }
    if let (Some(gateway), Some(from)) = (options.against, options.from) {
        let meter = options.pid.map(Meter::process);
        let sockets = sockets::against(&task, gateway.into(), from, meter.as_ref())?;
        return Ok(Outcome::Sockets(sockets));
    }
    Ok(match options.over {
        Over::Nothing => Outcome::Alone(alone::run(options.sas, options.rounds, &options.pin)?),
        Over::Udp => Outcome::Sockets(sockets::here(&task)?),
    })
}
