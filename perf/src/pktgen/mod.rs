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
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use hitless_dataplane::port::{BURST, Burst, MacAddress};
use hitless_dataplane::wire::ethernet;
use serde::Serialize;

use crate::clock::Moment;
use port::{End, Mac, PortSpec};
use sink::{Arrivals, Sink};
use source::{Shape, Source};

/// What `--help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  hitless-perf pktgen --port memory --size imix --flows 1000 --rate max --duration 2s
  hitless-perf pktgen --port af_xdp:veth0 --sink af_xdp:veth1 --dst-mac 02:68:70:00:00:02
  hitless-perf pktgen --port af_packet:left --sink af_packet:right --gateway 10.1.0.1 --rate 1M
  hitless-perf pktgen --port af_packet:left --sink af_packet:right --gateway 10.1.0.1 \\
    --rate max --window 256 --size 512      # what a gateway carries without loss
  hitless-perf pktgen --port tap:tap0 --dst-mac 02:00:00:00:00:01 --replay traffic.pcap --json

As in Pktgen-DPDK: --size, --rate, --count, --burst, --src, --dst, --sport, --dport, --dst-mac; as with
TRex's -m: --rate 10kpps or 100Mbps. Sizes are of IP packets: 46 is Ethernet's smallest frame. Each
packet is stamped with its run, flow, number and time, so the sink tells loss, copies, reordering and
damage apart. testbeds/gateways makes two gateways and a namespace to run this in.";

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
    #[arg(long, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..))]
    flows: u32,
    /// Packets a second, such as 10k or 1.5M (or 1.5Mpps), bits of frames such as 100Mbps or 2Gbps,
    /// or max
    #[arg(long, default_value = "10k")]
    rate: PacketRate,
    /// How long, such as 500ms, 10s or 2m
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Closed loop: at most so many packets on their way; what is away for --lost-after is lost.
    /// With --rate max it finds what can be carried without loss
    #[arg(long, value_name = "N", conflicts_with = "replay",
          value_parser = clap::value_parser!(u64).range(1..))]
    window: Option<u64>,
    /// When a packet of --window counts as lost
    #[arg(long, default_value = "100ms", value_parser = duration, value_name = "TIME")]
    lost_after: Duration,
    /// Packets given to the port at a time
    #[arg(long, default_value_t = BURST, value_name = "N",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=BURST as u64))]
    burst: usize,
    /// Stop after so many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
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
    /// Send the frames of a capture instead, again and again; to --dst-mac or --gateway if given. They
    /// carry no stamp, so the sink counts those that arrive as "others"
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

/// How fast packets go out.
#[derive(Clone, Copy, PartialEq, Debug)]
enum PacketRate {
    /// As fast as the port takes them.
    Max,
    /// A second.
    Packets(f64),
    /// Bits of frames, a second.
    Bits(f64),
}

impl FromStr for PacketRate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<PacketRate, &'static str> {
        if text == "max" {
            return Ok(PacketRate::Max);
        }
        let bits = text.strip_suffix("bps");
        let text = bits.or(text.strip_suffix("pps")).unwrap_or(text);
        let (number, unit) = match text.char_indices().last() {
            Some((at, 'k')) => (text.get(..at), 1e3),
            Some((at, 'M' | 'm')) => (text.get(..at), 1e6),
            Some((at, 'G' | 'g')) if bits.is_some() => (text.get(..at), 1e9),
            _ => (Some(text), 1.0),
        };
        let rate = number.and_then(|number| number.parse::<f64>().ok());
        match rate.map(|rate| rate * unit) {
            Some(rate) if rate > 0.0 && rate.is_finite() => Ok(match bits {
                Some(_) => PacketRate::Bits(rate),
                None => PacketRate::Packets(rate),
            }),
            _ => Err(
                "write packets a second, such as 1000, 10k or 1.5Mpps, bits such as 2Gbps, or max",
            ),
        }
    }
}

pub fn duration(text: &str) -> Result<Duration, &'static str> {
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
    /// Longer than the port's MTU, and never given to it.
    pub too_long: u64,
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
            "sent       {:>12}  {:>12.0} a second, {:.3} Gbit/s",
            self.sent,
            self.sent_pps,
            self.sent_bytes as f64 * 8.0 / self.seconds / 1e9,
        )?;
        if self.refused > 0 {
            writeln!(
                f,
                "refused    {:>12}  the port's ring was full",
                self.refused
            )?;
        }
        if self.too_long > 0 {
            writeln!(
                f,
                "too long   {:>12}  for the MTU of the port",
                self.too_long
            )?;
        }
        writeln!(
            f,
            "received   {:>12}  {:>12.0} a second, {:.3} Gbit/s; {} others",
            arrivals.received,
            self.received_pps,
            arrivals.received_bytes as f64 * 8.0 / self.seconds / 1e9,
            arrivals.foreign
        )?;
        let share = self.lost as f64 / (self.sent as f64).max(1.0) * 100.0;
        writeln!(f, "lost       {:>12}  {share:.3} %", self.lost)?;
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

fn replay(options: &Options, path: &Path, to: MacAddress) -> Result<Source, Box<dyn Error>> {
    let named = options.dst_mac.is_some() || options.gateway.is_some();
    Ok(Source::replay(port::frames_of(path)?, named.then_some(to))?)
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
        Some(path) => replay(options, path, next_hop)?,
        None => Source::new(shape, sink.run())?,
    };
    let begun = Moment::now();
    let mut sent = Sent::default();
    let mut window = Window::new(options);
    let most = options.count.unwrap_or(u64::MAX);
    let mut told = Told::default();
    loop {
        let elapsed = begun.elapsed();
        if elapsed >= options.duration || sent.offered + sent.too_long >= most {
            break;
        }
        let due = match options.rate {
            PacketRate::Packets(rate) => (elapsed.as_secs_f64() * rate) as u64 + 1,
            PacketRate::Bits(rate) => sent.due_for_bits(elapsed.as_secs_f64() * rate),
            PacketRate::Max => most,
        };
        let due = due.min(most).min(window.due(sent.offered, &sink, elapsed));
        sent.burst(&mut source, &mut ends.out, due, started, options.burst);
        ends.collect(&mut sink, started);
        if !options.json {
            told.each_second(elapsed, sent.offered, sink.received());
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let stopped = Moment::now();
    while stopped.elapsed() < options.drain && sink.received() < sent.offered {
        ends.out.poll();
        ends.collect(&mut sink, started);
    }
    let refused = ends.out.refused();
    let arrivals = sink.arrivals();
    if arrivals.received + arrivals.foreign == 0 && sent.offered > 0 {
        hint(ends.sink().mac);
    }
    let taken = sent.offered.saturating_sub(refused);
    Ok(PktgenResult {
        seconds,
        sent: taken,
        refused,
        too_long: sent.too_long,
        sent_bytes: match sent.offered {
            0 => 0,
            offered => (u128::from(sent.octets) * u128::from(taken) / u128::from(offered)) as u64,
        },
        sent_pps: taken as f64 / seconds,
        received_pps: arrivals.received as f64 / seconds,
        lost: taken.saturating_sub(arrivals.of_ours(options.replay.is_some())),
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
    too_long: u64,
}

impl Sent {
    /// How many packets may have gone out once so many bits may have.
    fn due_for_bits(&self, bits: f64) -> u64 {
        match self.offered {
            0 => 1,
            offered => {
                let mean = self.octets as f64 * 8.0 / offered as f64;
                (bits / mean) as u64 + 1
            }
        }
    }

    /// A burst of those that are due.
    fn burst(
        &mut self,
        source: &mut Source,
        out: &mut End,
        due: u64,
        started: Moment,
        most: usize,
    ) {
        let mut burst = Burst::new();
        let now = started.elapsed().as_nanos() as u64;
        let longest = out.port.mtu() + ethernet::HEADER;
        while self.offered + self.too_long < due && burst.len() < most {
            let frame = source.next(now);
            if frame.len() > longest {
                self.too_long += 1;
                continue;
            }
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

/// How many packets are on their way, at most.
struct Window {
    size: Option<u64>,
    lost_after: Duration,
    /// Sent before this number and not there: lost.
    written_off: u64,
    /// What had been received when that last changed, and when.
    progress: (u64, Duration),
}

impl Window {
    fn new(options: &Options) -> Window {
        Window {
            size: options.window,
            lost_after: options.lost_after,
            written_off: 0,
            progress: (0, Duration::ZERO),
        }
    }

    /// How many may have been sent by now.
    fn due(&mut self, sent: u64, sink: &Sink, elapsed: Duration) -> u64 {
        let Some(size) = self.size else {
            return u64::MAX;
        };
        let received = sink.received();
        if received != self.progress.0 {
            self.progress = (received, elapsed);
        }
        // Nothing for so long: what is missing will not come any more.
        if elapsed > self.progress.1 + self.lost_after {
            self.progress.1 = elapsed;
            self.written_off = sent.saturating_sub(received);
        }
        received + self.written_off + size
    }
}

/// A line on stderr each second, as Pktgen-DPDK and TRex show them.
#[derive(Default)]
struct Told {
    at: Duration,
    sent: u64,
    received: u64,
}

impl Told {
    fn each_second(&mut self, elapsed: Duration, sent: u64, received: u64) {
        let since = elapsed.saturating_sub(self.at);
        if since < Duration::from_secs(1) {
            return;
        }
        let rate = |now: u64, before: u64| (now - before) as f64 / since.as_secs_f64();
        crate::print::note(format_args!(
            "{:>4.0} s: sent {sent} ({:.0}/s), received {received} ({:.0}/s)",
            elapsed.as_secs_f64(),
            rate(sent, self.sent),
            rate(received, self.received),
        ));
        (self.at, self.sent, self.received) = (elapsed, sent, received);
    }
}

#[cfg(test)]
mod tests;
