//! ESP port to port on one core: outbound from clear frames, inbound from ESP frames, each ready in
//! buffers before the clock starts. Leases are drawn and checkpoints published as in a gateway.

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use clap::Args;
use hitless_dataplane::aead::{Engine, EspKey};
use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::Command;
use hitless_dataplane::esp;
use hitless_dataplane::fib::{Fib, Route};
use hitless_dataplane::port::MacAddress;
use hitless_dataplane::sad::{InboundSa, OutboundSa};
use hitless_dataplane::spd::{Action, Policy, Spd};
use hitless_dataplane::wire::{ethernet, ipv4};
use hitless_dataplane::worker::{
    self, CheckpointSettings, Interface, Leadership, Worker, WorkerHandle, WorkerSettings,
};
use hitless_sa::{
    ChildSa, EspSuite, Incarnation, Instant, KeyMaterial, Lease, MemberId, Mode, SaId, SaOptions,
    SequenceNumber, Spi, TrafficSelector,
};

use crate::aead::Bare;
use crate::clock::time;
use crate::feed::{Feed, MTU, Script, Sink};
use crate::report::{Line, Report, Size};

/// Packets in buffers at a time: they stay in the second-level cache, as a busy port's do.
const IN_FLIGHT: usize = 256;
const SIZES: [usize; 5] = [64, 256, 512, 1024, 1400];
/// Simple IMIX: octets and share.
const IMIX: [(usize, usize); 3] = [(64, 7), (576, 4), (1500, 1)];
/// Rounds that warm caches and branch predictors up.
const WARM_UP: usize = 20;

const GATEWAY: MacAddress = [2, 0, 0, 0, 0, 1];
const NEIGHBOUR: MacAddress = [2, 0, 0, 0, 0, 2];
const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const OUR_HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const THEIR_HOST: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 10);
const SPI: Spi = Spi(0x0100_1000);
const IPV4_IN_ESP: u8 = 4;
const PROTECTED: usize = 0;
const OUTSIDE: usize = 1;

/// Options of `hitless-perf esp`.
#[derive(Args)]
pub struct Options {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Rounds of 256 packets for each size and direction.
    #[arg(long, default_value_t = 400)]
    rounds: usize,
    /// Core to run on; the last one unless given.
    #[arg(long)]
    core: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Outbound,
    Inbound,
}

/// Measures all sizes in both directions and prints the report.
pub fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let core = match options.core {
        Some(wanted) => cores.iter().find(|core| core.id == wanted),
        None => cores.last(),
    };
    match core {
        Some(core) if core_affinity::set_for_current(*core) => {}
        _ => eprintln!("hitless-perf: not pinned to a core; figures will be noisier"),
    }
    let engine = Engine::from_environment()?;
    let mut results = Vec::new();
    let mixes = SIZES.map(|size| (Size::Octets(size), vec![size; IN_FLIGHT]));
    let mixes = mixes.into_iter().chain([(Size::Mix("imix"), imix())]);
    for (size, lengths) in mixes {
        for direction in [Direction::Outbound, Direction::Inbound] {
            results.push(measure(engine, size, &lengths, direction, options.rounds)?);
            if !options.json {
                eprint!(".");
            }
        }
    }
    let report = Report {
        cpu: cpu(),
        engine: engine.name(),
        rounds: options.rounds,
        results,
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        eprintln!();
        println!("{report}");
    }
    Ok(())
}

/// Lengths in the proportions of IMIX, mixed evenly.
fn imix() -> Vec<usize> {
    let cycle = IMIX
        .iter()
        .flat_map(|(size, share)| std::iter::repeat_n(*size, *share));
    let mut cycle: Vec<usize> = cycle.collect();
    // Every fifth of twelve visits each once and keeps equal sizes apart.
    cycle = (0..cycle.len())
        .map(|i| cycle[i * 5 % cycle.len()])
        .collect();
    cycle.into_iter().cycle().take(IN_FLIGHT).collect()
}

fn measure(
    engine: Engine,
    size: Size,
    lengths: &[usize],
    direction: Direction,
    rounds: usize,
) -> Result<Line, Box<dyn Error>> {
    let mut bench = Bench::new(engine, direction)?;
    // What ESP encrypts: the inner packet, padding to four octets, the trailer.
    let texts: Vec<usize> = lengths
        .iter()
        .map(|length| (length + 2).next_multiple_of(4))
        .collect();
    let mut bare = Bare::new(&texts).map_err(|_| "aws-lc-rs refused the benchmark's key")?;
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    let mut ratios = Vec::new();
    for round in 0..WARM_UP + rounds {
        let elapsed = bench.round(lengths)?;
        let alone = match direction {
            Direction::Outbound => bare.seal(),
            Direction::Inbound => bare.open(),
        };
        let alone = alone.map_err(|_| "aws-lc-rs failed")?;
        if round >= WARM_UP {
            let each = |time: Duration| time.as_secs_f64() * 1e9 / lengths.len() as f64;
            ours.push(each(elapsed));
            theirs.push(each(alone));
            ratios.push(each(elapsed) / each(alone));
        }
    }
    let ns = median(&mut ours);
    let octets = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
    Ok(Line {
        size,
        direction: match direction {
            Direction::Outbound => "outbound",
            Direction::Inbound => "inbound",
        },
        mpps: 1e3 / ns,
        gbps: octets * 8.0 / ns,
        ns_per_packet: ns,
        aead_ns: median(&mut theirs),
        ratio_to_aead: median(&mut ratios),
    })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "unknown CPU".to_owned(), |(_, name)| name.to_owned())
}

/// A worker with one Child SA between two ports.
struct Bench {
    worker: Worker,
    handle: WorkerHandle,
    direction: Direction,
    script: Arc<Script>,
    sent: Arc<AtomicU64>,
    /// Seals what the worker is to open.
    far_key: EspKey,
    far_next: u64,
    cell: Arc<Cell>,
    now: Instant,
}

impl Bench {
    fn new(engine: Engine, direction: Direction) -> Result<Bench, Box<dyn Error>> {
        let script = Arc::new(Script::default());
        let sent = Arc::new(AtomicU64::new(0));
        let feed = Box::new(Feed::new(Arc::clone(&script)));
        let sink = Box::new(Sink {
            sent: Arc::clone(&sent),
        });
        let ports: Vec<Box<dyn hitless_dataplane::port::Port>> = match direction {
            Direction::Outbound => vec![feed, sink],
            Direction::Inbound => vec![sink, feed],
        };
        let interface = |address: Ipv4Addr, protected| Interface {
            mac: GATEWAY,
            addresses: vec![(address.into(), 24)],
            mtu: MTU,
            protected,
        };
        let settings = WorkerSettings {
            id: 0,
            interfaces: vec![interface(INSIDE, true), interface(LOCAL, false)],
            pool_frames: 1024,
            checkpoint: CheckpointSettings {
                packets: 10_000,
                interval: Duration::from_millis(500),
            },
            sa_capacity: 16,
        };
        let (worker, handle) = worker::worker(settings, ports, Leadership::new(true))?;
        let child = child()?;
        let far_key = EspKey::new(engine, child.suite, &child.inbound_key)?;
        let cell = Arc::new(Cell::new(SequenceNumber(1), lease(0)));
        let mut bench = Bench {
            worker,
            handle,
            direction,
            script,
            sent,
            far_key,
            far_next: 1,
            cell,
            now: Instant(1),
        };
        bench.install(&child, engine)?;
        Ok(bench)
    }

    fn install(&mut self, child: &ChildSa, engine: Engine) -> Result<(), Box<dyn Error>> {
        let cell = &self.cell;
        let inbound = InboundSa::new(child, Arc::clone(cell), SequenceNumber(0), 0, engine)?;
        let outbound = OutboundSa::new(child, Arc::clone(cell), 0, engine)?;
        let policy = Policy {
            local: child.local_ts[0],
            remote: child.remote_ts[0],
            action: Action::Protect(Some(child.id)),
        };
        let connected = |prefix: Ipv4Addr, port| Route {
            prefix: (prefix.into(), 24),
            port,
            next_hop: None,
        };
        let routes = [connected(INSIDE, PROTECTED), connected(LOCAL, OUTSIDE)];
        let neighbour = |port, address: Ipv4Addr| Command::Neighbour {
            port,
            address: address.into(),
            mac: NEIGHBOUR,
        };
        for command in [
            Command::InstallInbound(Box::new(inbound)),
            Command::InstallOutbound(Box::new(outbound)),
            Command::Policies(Arc::new(Spd::new(vec![policy]))),
            Command::Routes(Arc::new(Fib::new(&routes))),
            neighbour(PROTECTED, OUR_HOST),
            neighbour(OUTSIDE, REMOTE),
        ] {
            self.handle
                .send(command)
                .map_err(|_| "the command ring is full")?;
        }
        self.worker.turn(self.now);
        Ok(())
    }

    /// Loads one packet of each length, then times the worker until all have left.
    fn round(&mut self, lengths: &[usize]) -> Result<Duration, Box<dyn Error>> {
        let frames = lengths
            .iter()
            .map(|length| self.frame(*length))
            .collect::<Result<_, _>>()?;
        *self
            .script
            .frames
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = frames;
        // What the control thread does beside: leases rise, checkpoints are collected.
        self.cell
            .raise(lease(self.far_next.max(self.cell.cursor().0)));
        self.handle.checkpoints.drain(|_, _| {});
        while self.handle.poll_event().is_some() {}
        self.now += Duration::from_millis(1);
        self.script.load.store(true, Ordering::Relaxed);
        self.worker.turn(self.now);
        let before = self.sent.load(Ordering::Relaxed);
        let (worker, now, waiting) = (&mut self.worker, self.now, &self.script.waiting);
        let elapsed = time(|| {
            while waiting.load(Ordering::Relaxed) > 0 {
                worker.turn(now);
            }
        });
        let sent = self.sent.load(Ordering::Relaxed) - before;
        if sent != lengths.len() as u64 {
            let drops: Vec<_> = self
                .handle
                .counters
                .drops()
                .filter(|(_, n)| *n > 0)
                .collect();
            return Err(format!("{sent} of {} packets came out: {drops:?}", lengths.len()).into());
        }
        Ok(elapsed)
    }

    fn frame(&mut self, length: usize) -> Result<Vec<u8>, Box<dyn Error>> {
        let mut frame = vec![0; ethernet::HEADER];
        let _ = ethernet::write(&mut frame, GATEWAY, NEIGHBOUR, ethernet::IPV4);
        match self.direction {
            Direction::Outbound => frame.extend(inner(OUR_HOST, THEIR_HOST, length)),
            Direction::Inbound => {
                let number = SequenceNumber(self.far_next);
                self.far_next += 1;
                let inner = inner(THEIR_HOST, OUR_HOST, length);
                let sealed =
                    esp::seal_datagram(&self.far_key, SPI, number, false, IPV4_IN_ESP, &inner);
                let mut outer = vec![0; ipv4::HEADER];
                outer.extend(sealed.map_err(|reason| reason.name())?);
                let _ = ipv4::write(&mut outer, REMOTE, LOCAL, ipv4::ESP);
                frame.extend(outer);
            }
        }
        Ok(frame)
    }
}

/// Room for the next rounds.
fn lease(from: u64) -> Lease {
    Lease {
        grant: SequenceNumber(from + 100_000),
        high_water: SequenceNumber(from + 100_000),
    }
}

/// A UDP packet of this many octets.
fn inner(from: Ipv4Addr, to: Ipv4Addr, length: usize) -> Vec<u8> {
    let mut packet = vec![0; length];
    let udp = (length - ipv4::HEADER) as u16;
    packet[20..24].copy_from_slice(&[0x1b, 0x5f, 0x1b, 0x5f]);
    packet[24..26].copy_from_slice(&udp.to_be_bytes());
    let _ = ipv4::write(&mut packet, from, to, ipv4::UDP);
    packet
}

fn child() -> Result<ChildSa, Box<dyn Error>> {
    let network = |address: Ipv4Addr| {
        TrafficSelector::prefix(address.into(), 24).ok_or("a prefix of 24 is one")
    };
    Ok(ChildSa {
        id: SaId {
            creator: MemberId(1),
            incarnation: Incarnation(1),
            counter: 1,
        },
        mode: Mode::Tunnel,
        inbound_spi: SPI,
        outbound_spi: Spi(0x2000),
        suite: EspSuite::Aes128Gcm16,
        esn: false,
        inbound_key: KeyMaterial::new(&[7; 20]),
        outbound_key: KeyMaterial::new(&[9; 20]),
        local: LOCAL.into(),
        remote: REMOTE.into(),
        encapsulation: None,
        local_ts: vec![network(OUR_HOST)?],
        remote_ts: vec![network(THEIR_HOST)?],
        replay_window: 4096,
        options: SaOptions::default(),
    })
}
