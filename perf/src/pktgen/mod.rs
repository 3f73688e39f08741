//! `hitless-perf pktgen`: packets out of a port at a rate, and what becomes of them counted where
//! they arrive. Each carries its run, flow, number and time, so that loss, duplicates, reordering and
//! delay are told apart exactly.
//!
//! ```text
//!  source.rs  packets and their stamps -> port.rs -> whatever is tested -> port.rs -> sink.rs
//! ```

mod port;
mod sink;
mod source;

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use hitless_dataplane::port::{BURST, Burst, MacAddress};
use serde::Serialize;

use crate::clock::Moment;
use port::{End, Mac, PortSpec};
use sink::{Arrivals, Sink};
use source::{Shape, Source};

/// Options of `hitless-perf pktgen`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Where packets go out: af_packet:IF, af_xdp:IF, tap:IF, pcap:FILE or memory
    #[arg(long, value_name = "PORT")]
    port: PortSpec,
    /// Where they arrive; the same port unless given (the far end with memory)
    #[arg(long, value_name = "PORT")]
    sink: Option<PortSpec>,
    /// Octets of the IP packets: a number, FIRST-LAST, or imix
    #[arg(long, default_value = "64")]
    size: Sizes,
    /// Flows, told apart by source port and address
    #[arg(long, default_value_t = 1, value_name = "N")]
    flows: u32,
    /// Packets a second, such as 10k or 1.5M, or max
    #[arg(long, default_value = "10k")]
    rate: PacketRate,
    /// How long, such as 500ms, 10s or 2m
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Stop after so many packets
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// How long to wait for the last ones
    #[arg(long, default_value = "500ms", value_parser = duration, value_name = "TIME")]
    drain: Duration,
    /// Source address of the first flows
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 10)), value_name = "ADDRESS")]
    src: IpAddr,
    /// Destination address
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::new(10, 2, 0, 10)), value_name = "ADDRESS")]
    dst: IpAddr,
    /// First UDP source port
    #[arg(long, default_value_t = 1024, value_name = "PORT")]
    sport: u16,
    /// UDP destination port
    #[arg(long, default_value_t = 9, value_name = "PORT")]
    dport: u16,
    /// Ethernet address of the next hop; asked for by ARP with --gateway
    #[arg(long, value_name = "MAC")]
    dst_mac: Option<Mac>,
    /// IPv4 address of the next hop
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<Ipv4Addr>,
    /// Send the frames of a capture instead, again and again
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Lengths of IP packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sizes {
    Range(usize, usize),
    Imix,
}

impl FromStr for Sizes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Sizes, &'static str> {
        const HELP: &str = "write octets, FIRST-LAST or imix";
        if text == "imix" {
            return Ok(Sizes::Imix);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.parse().map_err(|_| HELP);
        let (first, last) = (number(first)?, number(last)?);
        match (source::LEAST..=source::GREATEST).contains(&first) && last <= source::GREATEST {
            true if first <= last => Ok(Sizes::Range(first, last)),
            _ => Err("packets of 56 to 9000 octets can carry a stamp; over IPv6 76 at least"),
        }
    }
}

/// Packets a second; nothing for as many as possible.
#[derive(Clone, Copy, PartialEq, Debug)]
struct PacketRate(Option<f64>);

impl FromStr for PacketRate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<PacketRate, &'static str> {
        if text == "max" {
            return Ok(PacketRate(None));
        }
        let (number, unit) = match text.char_indices().last() {
            Some((at, 'k')) => (text.get(..at), 1e3),
            Some((at, 'M')) => (text.get(..at), 1e6),
            _ => (Some(text), 1.0),
        };
        let rate = number.and_then(|number| number.parse::<f64>().ok());
        match rate.map(|rate| rate * unit) {
            Some(rate) if rate > 0.0 && rate.is_finite() => Ok(PacketRate(Some(rate))),
            _ => Err("write packets a second, such as 1000, 10k or 1.5M, or max"),
        }
    }
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    const HELP: &str = "write a time such as 500ms, 10s or 2m";
    let at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or(HELP)?;
    let (number, unit) = text.split_at(at);
    let number: f64 = number.parse().map_err(|_| HELP)?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        _ => return Err(HELP),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| HELP)
}

/// What was sent and what arrived.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PktgenResult {
    pub seconds: f64,
    /// Given to the port and taken by it.
    pub sent: u64,
    /// Refused by the port: its ring was full.
    pub refused: u64,
    /// Of the frames sent, those refused taken for average ones.
    pub sent_bytes: u64,
    pub sent_pps: f64,
    #[serde(flatten)]
    pub arrivals: Arrivals,
    pub received_pps: f64,
    /// Sent and never seen.
    pub lost: u64,
}

impl fmt::Display for PktgenResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrivals = &self.arrivals;
        writeln!(
            f,
            "sent       {:>12}  {:>12.0} a second, {:.3} Gbit/s; {} refused by the port",
            self.sent,
            self.sent_pps,
            self.sent_bytes as f64 * 8.0 / self.seconds / 1e9,
            self.refused
        )?;
        writeln!(
            f,
            "received   {:>12}  {:>12.0} a second; {} others",
            arrivals.received, self.received_pps, arrivals.foreign
        )?;
        writeln!(f, "lost       {:>12}", self.lost)?;
        writeln!(f, "duplicated {:>12}", arrivals.duplicated)?;
        writeln!(f, "reordered  {:>12}", arrivals.reordered)?;
        writeln!(f, "altered    {:>12}", arrivals.altered)?;
        writeln!(
            f,
            "delay us   p50 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}",
            arrivals.p50_us, arrivals.p99_us, arrivals.p999_us, arrivals.max_us
        )
    }
}

/// Sends, counts, and tells.
pub fn run(options: &Options) -> Result<PktgenResult, Box<dyn Error>> {
    let mut ends = port::open(
        &options.port,
        options.sink.as_ref(),
        options.src,
        options.dst,
    )?;
    run_between(options, &mut ends)
}

/// The Ethernet address that frames go to.
fn next_hop(options: &Options, ends: &mut Ends) -> Result<MacAddress, Box<dyn Error>> {
    match (options.dst_mac, options.gateway) {
        (Some(mac), _) => Ok(mac.0),
        (None, Some(gateway)) => Ok(ends.out.resolve(gateway, options.src)?),
        (None, None) if options.port.needs_mac() && options.replay.is_none() => {
            Err("give --dst-mac, or --gateway to ask for it".into())
        }
        (None, None) => Ok(ends.sink().mac),
    }
}

/// What to try when nothing arrived.
fn hint([a, b, c, d, e, f]: MacAddress) {
    crate::print::note(format_args!(
        "nothing arrived: straight to the sink goes --dst-mac \
         {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}, its own address and not the \
         interface's; through a gateway, give its --gateway"
    ));
}

fn run_between(options: &Options, ends: &mut Ends) -> Result<PktgenResult, Box<dyn Error>> {
    let started = Moment::now();
    let mut sink = Sink::new(options.flows)?;
    let next_hop = next_hop(options, ends)?;
    let shape = Shape {
        macs: (next_hop, ends.out.mac),
        addresses: (options.src, options.dst),
        ports: (options.sport, options.dport),
        flows: options.flows,
        sizes: match options.size {
            Sizes::Imix => crate::esp::imix(12),
            Sizes::Range(first, last) => (first..=last).collect(),
        },
    };
    let mut source = match &options.replay {
        Some(path) => Source::replay(port::frames_of(path)?)?,
        None => Source::new(shape, sink.run())?,
    };
    let begun = Moment::now();
    let mut sent = Sent::default();
    let most = options.count.unwrap_or(u64::MAX);
    let mut told = Duration::ZERO;
    loop {
        let elapsed = begun.elapsed();
        if elapsed >= options.duration || sent.offered >= most {
            break;
        }
        let due = match options.rate.0 {
            Some(rate) => ((elapsed.as_secs_f64() * rate) as u64 + 1).min(most),
            None => most,
        };
        sent.burst(&mut source, &mut ends.out, due, started);
        ends.collect(&mut sink, started);
        if !options.json && elapsed >= told + Duration::from_secs(1) {
            told = elapsed;
            let received = sink.arrivals().received;
            crate::print::note(format_args!(
                "{:>4.0} s: {} sent, {received} received",
                elapsed.as_secs_f64(),
                sent.offered
            ));
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let stopped = Moment::now();
    while stopped.elapsed() < options.drain && sink.arrivals().received < sent.offered {
        ends.out.poll();
        ends.collect(&mut sink, started);
    }
    let refused = ends.out.refused();
    let arrivals = sink.arrivals();
    if arrivals.received == 0 && sent.offered > 0 {
        hint(ends.sink().mac);
    }
    let taken = sent.offered.saturating_sub(refused);
    Ok(PktgenResult {
        seconds,
        sent: taken,
        refused,
        sent_bytes: match sent.offered {
            0 => 0,
            offered => (u128::from(sent.octets) * u128::from(taken) / u128::from(offered)) as u64,
        },
        sent_pps: taken as f64 / seconds,
        received_pps: arrivals.received as f64 / seconds,
        lost: taken.saturating_sub(arrivals.received - arrivals.duplicated),
        arrivals,
    })
}

/// Both ends of what is tested; one may be the other.
struct Ends {
    out: End,
    into: Option<End>,
}

impl Ends {
    fn sink(&self) -> &End {
        self.into.as_ref().unwrap_or(&self.out)
    }

    /// Takes what has arrived, and answers whoever asks for our addresses.
    fn collect(&mut self, sink: &mut Sink, started: Moment) {
        let now = started.elapsed().as_nanos() as u64;
        if let Some(into) = &mut self.into {
            into.receive(|frame| sink.note(frame, now));
            // Somebody may ask for the sender's address, too.
            self.out.receive(|_| {});
        } else {
            self.out.receive(|frame| sink.note(frame, now));
        }
    }
}

/// What was given to the port.
#[derive(Default)]
struct Sent {
    offered: u64,
    octets: u64,
}

impl Sent {
    /// A burst of those that are due.
    fn burst(&mut self, source: &mut Source, out: &mut End, due: u64, started: Moment) {
        let mut burst = Burst::new();
        let now = started.elapsed().as_nanos() as u64;
        while self.offered < due && burst.len() < BURST {
            let frame = source.next(now);
            let Some(packet) = out.pool.copy_in(frame) else {
                // All are on their way: the same one again, later.
                source.take_back();
                break;
            };
            self.octets += frame.len() as u64;
            self.offered += 1;
            burst.push(packet);
        }
        match burst.is_empty() {
            true => out.poll(),
            false => out.port.transmit(&mut out.pool, &mut burst),
        }
    }
}

#[cfg(test)]
mod tests;
