//! A worker between two ports, port to port on one core: outbound from clear frames, inbound from
//! ESP frames, each ready in buffers before the clock starts. Numbers are drawn from leases and
//! checkpoints published as in a gateway.

pub mod cipher;
pub mod feed;

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hitless_dataplane::aead::{Engine, EspKey};
use hitless_dataplane::cell::Cell;
use hitless_dataplane::checkpoint::{self, Collector};
use hitless_dataplane::command::Command;
use hitless_dataplane::esp;
use hitless_dataplane::fib::{Fib, Route};
use hitless_dataplane::neighbour::News;
use hitless_dataplane::pool::Pool;
use hitless_dataplane::port::{MacAddress, Port};
use hitless_dataplane::replay::{AntiReplay, ReplayWindow, SharedWindow};
use hitless_dataplane::sad::{InboundSa, OutboundSa};
use hitless_dataplane::spd::{Action, Policy, Spd};
use hitless_dataplane::wire::{ethernet, ipv4};
use hitless_dataplane::worker::{
    self, CheckpointSettings, Interface, Leadership, Worker, WorkerHandle, WorkerSettings,
};
use hitless_sa::{
    ChildSa, EspSuite, Incarnation, Instant, KeyMaterial, Lease, MemberId, Mode, SaId, SaOptions,
    SequenceNumber, Spi, TrafficSelector, UdpEncapsulation,
};

use feed::{Feed, MTU, Script, Sink};

/// Packets in buffers at a time: they stay in the second-level cache, as a busy port's do.
pub const IN_FLIGHT: usize = 256;

/// Frames of the worker's pool.
const FRAMES: u32 = 1024;
/// The worker's own address on both ports, which frames to it go to.
pub const GATEWAY: MacAddress = [2, 0, 0, 0, 0, 1];
/// The next hop on both sides.
pub const NEIGHBOUR: MacAddress = [2, 0, 0, 0, 0, 2];
const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const OUR_HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
/// The host behind the first SA; each further SA has the next one.
const THEIR_HOSTS: u32 = 0x0a80_0000;
/// The first SPIs.
const SPIS: u32 = 0x0100_0000;
const FAR_SPIS: u32 = 0x0200_0000;
/// Numbers in the anti-replay window.
const WINDOW: u32 = 4096;
const NAT_PORT: u16 = 4500;
const IPV4_IN_ESP: u8 = 4;
const PROTECTED: usize = 0;
const OUTSIDE: usize = 1;
/// More than any run uses.
const PLENTY: Lease = Lease {
    grant: SequenceNumber(1 << 31),
    high_water: SequenceNumber(1 << 31),
};

/// Which way packets cross the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Encrypt,
    Decrypt,
}

impl Direction {
    pub const BOTH: [Direction; 2] = [Direction::Encrypt, Direction::Decrypt];

    pub fn name(self) -> &'static str {
        match self {
            Direction::Encrypt => "encrypt",
            Direction::Decrypt => "decrypt",
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub engine: Engine,
    pub suite: EspSuite,
    pub esn: bool,
    /// ESP in UDP (RFC 3948).
    pub udp: bool,
    /// SAs, each with a policy of its own; packets take them in random order.
    pub sas: u32,
    /// Policies in front of them that match nothing.
    pub policies: u32,
    /// Flows of each SA.
    pub flows: u16,
    pub checkpoints: bool,
}

impl Setup {
    /// One SA with AES-GCM-16-128, one flow.
    pub fn plain(engine: Engine) -> Setup {
        Setup {
            engine,
            suite: EspSuite::Aes128Gcm16,
            esn: false,
            udp: false,
            sas: 1,
            policies: 0,
            flows: 1,
            checkpoints: true,
        }
    }

    fn child(&self, n: u32) -> Result<ChildSa, Box<dyn Error>> {
        let network = |address: Ipv4Addr, length| {
            TrafficSelector::prefix(address.into(), length).ok_or("no prefix")
        };
        let key = |seed| KeyMaterial::new(&vec![seed; self.suite.key_material_length()]);
        Ok(ChildSa {
            id: sa_id(n),
            mode: Mode::Tunnel,
            inbound_spi: Spi(SPIS + n),
            outbound_spi: Spi(FAR_SPIS + n),
            suite: self.suite,
            esn: self.esn,
            inbound_key: key(7),
            outbound_key: key(9),
            local: LOCAL.into(),
            remote: REMOTE.into(),
            encapsulation: self.udp.then_some(UdpEncapsulation {
                local_port: NAT_PORT,
                remote_port: NAT_PORT,
            }),
            local_ts: vec![network(OUR_HOST, 24)?],
            remote_ts: vec![network(their_host(n), 32)?],
            replay_window: WINDOW,
            options: SaOptions::default(),
        })
    }

    fn spd(&self, workers: usize) -> Result<Spd, Box<dyn Error>> {
        let policy = |local: Ipv4Addr, remote: Ipv4Addr, length, action| {
            let selector = |address: Ipv4Addr, length| {
                TrafficSelector::prefix(address.into(), length).ok_or("no prefix")
            };
            let (local, remote) = (selector(local, 24)?, selector(remote, length)?);
            Ok::<_, Box<dyn Error>>(Policy {
                local,
                remote,
                action,
            })
        };
        let unused = (0..self.policies).map(|n| {
            let remote = Ipv4Addr::from(0xac10_0000 + n * 64);
            policy(OUR_HOST, remote, 26, Action::Discard)
        });
        let used = (0..self.sas).map(|n| {
            let action = Action::Protect(Some(sa_id(n)));
            policy(OUR_HOST, their_host(n), 32, action)
        });
        let all = unused.chain(used).collect::<Result<_, _>>()?;
        Ok(Spd::for_workers(all, workers))
    }
}

fn sa_id(n: u32) -> SaId {
    SaId {
        creator: MemberId(1),
        incarnation: Incarnation(1),
        counter: n + 1,
    }
}

fn their_host(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(THEIR_HOSTS + n)
}

/// What an SA has outside the worker, and which of its numbers arrive there.
#[derive(Clone)]
pub struct Part {
    pub cell: Arc<Cell>,
    /// Shared with other workers; a worker's own unless given.
    window: Option<Arc<SharedWindow>>,
    /// The first number, and from one to the next.
    numbers: (u64, u64),
}

/// For the SAs of a setup, for one worker.
pub fn parts(setup: &Setup) -> Vec<Part> {
    let part = |_| Part {
        cell: Arc::new(Cell::new(SequenceNumber(1), PLENTY)),
        window: None,
        numbers: (1, 1),
    };
    (0..setup.sas).map(part).collect()
}

/// For one fat SA on several workers: for each its part.
pub fn fat_parts(workers: usize) -> Vec<Part> {
    let cell = Arc::new(Cell::new(SequenceNumber(1), PLENTY));
    let window = Arc::new(SharedWindow::new(&ReplayWindow::new(WINDOW)));
    let part = |worker| Part {
        cell: Arc::clone(&cell),
        window: Some(Arc::clone(&window)),
        numbers: (worker as u64 + 1, workers as u64),
    };
    (0..workers).map(part).collect()
}

/// A worker with its SAs between two ports.
pub struct Bench {
    worker: Worker,
    handle: WorkerHandle,
    direction: Direction,
    setup: Setup,
    /// Seals what the worker is to open.
    far_key: EspKey,
    /// Of each SA the next number, and the step to the one after it.
    far_next: Vec<(u64, u64)>,
    random: Random,
    script: Arc<Script>,
    sent: Arc<AtomicU64>,
    now: Instant,
    tick: Duration,
}

impl Bench {
    /// Worker `id`, whose SAs have these parts, between a feed that hands out what it is loaded with
    /// and a sink.
    pub fn new(
        setup: Setup,
        direction: Direction,
        id: usize,
        parts: &[Part],
    ) -> Result<Bench, Box<dyn Error>> {
        let script = Arc::new(Script::default());
        let sent = Arc::new(AtomicU64::new(0));
        let feed = Box::new(Feed::new(Arc::clone(&script)));
        let sink = Box::new(Sink {
            sent: Arc::clone(&sent),
        });
        let mut bench = Bench::between(setup, direction, id, parts, feed, sink)?;
        (bench.script, bench.sent) = (script, sent);
        Ok(bench)
    }

    /// As [`Bench::new`], between ports of the caller's.
    pub fn between(
        setup: Setup,
        direction: Direction,
        id: usize,
        parts: &[Part],
        from: Box<dyn Port>,
        to: Box<dyn Port>,
    ) -> Result<Bench, Box<dyn Error>> {
        let pool = Pool::new(FRAMES)?;
        Bench::over(setup, direction, id, parts, (pool, from, to))
    }

    /// As [`Bench::between`], with the pool that the ports know (an AF_XDP socket's memory).
    pub fn over(
        setup: Setup,
        direction: Direction,
        id: usize,
        parts: &[Part],
        (pool, from, to): (Pool, Box<dyn Port>, Box<dyn Port>),
    ) -> Result<Bench, Box<dyn Error>> {
        let ports = match direction {
            Direction::Encrypt => vec![from, to],
            Direction::Decrypt => vec![to, from],
        };
        let interface = |address: Ipv4Addr, protected| Interface {
            mac: GATEWAY,
            addresses: vec![(address.into(), 24)],
            mtu: MTU,
            protected,
        };
        let checkpoint = match setup.checkpoints {
            true => CheckpointSettings {
                packets: 10_000,
                interval: Duration::from_millis(500),
            },
            false => CheckpointSettings {
                packets: u32::MAX,
                interval: Duration::from_secs(1 << 30),
            },
        };
        let settings = WorkerSettings {
            id,
            interfaces: vec![interface(INSIDE, true), interface(LOCAL, false)],
            pool_frames: FRAMES,
            pool_runs: 0,
            checkpoint,
            sa_capacity: setup.sas as usize,
        };
        let leadership = Leadership::new(true);
        let (worker, handle) = worker::worker_with_pool(pool, settings, ports, leadership)?;
        let child = setup.child(0)?;
        let mut bench = Bench {
            worker,
            handle,
            direction,
            setup,
            far_key: EspKey::new(setup.engine, child.suite, &child.inbound_key)?,
            far_next: parts.iter().map(|part| part.numbers).collect(),
            random: Random(0x9e37_79b9 + id as u64),
            script: Arc::default(),
            sent: Arc::default(),
            now: Instant(1),
            tick: Duration::from_millis(1),
        };
        bench.install(parts)?;
        Ok(bench)
    }

    fn install(&mut self, parts: &[Part]) -> Result<(), Box<dyn Error>> {
        let setup = self.setup;
        for (n, part) in (0..).zip(parts) {
            let child = setup.child(n)?;
            let floor = SequenceNumber(0);
            let window = match &part.window {
                Some(shared) => AntiReplay::Shared(Arc::clone(shared)),
                None => AntiReplay::new(child.replay_window, floor),
            };
            let cell = || Arc::clone(&part.cell);
            let inbound = InboundSa::with_window(&child, cell(), window, n, setup.engine)?;
            let outbound = OutboundSa::new(&child, cell(), n, setup.engine)?;
            self.send(Command::InstallInbound(Box::new(inbound)))?;
            self.send(Command::InstallOutbound(Box::new(outbound)))?;
        }
        let connected = |prefix: Ipv4Addr, port| Route {
            prefix: (prefix.into(), 24),
            port,
            next_hop: None,
        };
        let routes = [connected(INSIDE, PROTECTED), connected(LOCAL, OUTSIDE)];
        let neighbour = |port, address: Ipv4Addr| {
            Command::Neighbour(News::certain(port, address.into(), NEIGHBOUR))
        };
        let spd = setup.spd(self.worker.id() + 1)?;
        for command in [
            Command::Policies(Arc::new(spd)),
            Command::Routes(Arc::new(Fib::new(&routes))),
            neighbour(PROTECTED, OUR_HOST),
            neighbour(OUTSIDE, REMOTE),
        ] {
            self.send(command)?;
        }
        self.settle();
        Ok(())
    }

    /// Lets the worker take every command.
    fn settle(&mut self) {
        while self.worker.turn(self.now) > 0 {
            while self.handle.poll_event().is_some() {}
        }
    }

    fn send(&mut self, command: Command) -> Result<(), Box<dyn Error>> {
        if self.handle.command_slots() == 0 {
            self.settle();
        }
        self.handle
            .send(command)
            .map_err(|_| "the command ring is full".into())
    }

    /// Loads one packet of each length into buffers.
    pub fn load(&mut self, lengths: &[usize]) -> Result<(), Box<dyn Error>> {
        let frames = lengths
            .iter()
            .map(|length| self.frame(*length))
            .collect::<Result<_, _>>()?;
        *self
            .script
            .frames
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = frames;
        self.serve();
        self.script.load.store(true, Ordering::Relaxed);
        self.worker.turn(self.now);
        Ok(())
    }

    /// What the control thread does beside: it collects checkpoints and events. Time goes on.
    pub fn serve(&mut self) {
        self.handle.checkpoints.drain(|_, _| {});
        while self.handle.poll_event().is_some() {}
        self.now += self.tick;
    }

    /// So much time goes on with each load from now on; a millisecond unless told otherwise.
    pub fn set_tick(&mut self, tick: Duration) {
        self.tick = tick;
    }

    /// The end of the checkpoints, for another thread to collect them.
    pub fn take_checkpoints(&mut self) -> Collector {
        std::mem::replace(&mut self.handle.checkpoints, checkpoint::channel(0).1)
    }

    /// One turn of the worker. Returns what it handled.
    pub fn turn(&mut self) -> usize {
        self.worker.turn(self.now)
    }

    /// Lets the worker turn until all that was loaded has been taken.
    pub fn run(&mut self) {
        while self.script.waiting.load(Ordering::Relaxed) > 0 {
            self.worker.turn(self.now);
        }
    }

    /// Packets that have left into the sink of [`Bench::new`].
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Fails unless all that was loaded has left since there were so many.
    pub fn expect(&self, before: u64, loaded: usize) -> Result<(), Box<dyn Error>> {
        let sent = self.sent() - before;
        match sent == loaded as u64 {
            true => Ok(()),
            false => {
                let drops = self.drops();
                Err(format!("{sent} of {loaded} packets came out: {drops:?}").into())
            }
        }
    }

    /// What was dropped, and why.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        let drops = self.handle.counters.drops();
        drops
            .map(|(reason, count)| (reason.name(), count))
            .collect()
    }

    /// The next frame to arrive, its inner packet of this length.
    pub fn frame(&mut self, length: usize) -> Result<Vec<u8>, Box<dyn Error>> {
        let n = (self.random.draw() % u64::from(self.setup.sas)) as u32;
        let flow = (self.random.draw() % u64::from(self.setup.flows)) as u16;
        let mut frame = vec![0; ethernet::HEADER];
        let _ = ethernet::write(&mut frame, GATEWAY, NEIGHBOUR, ethernet::IPV4);
        match self.direction {
            Direction::Encrypt => frame.extend(inner(OUR_HOST, their_host(n), flow, length)),
            Direction::Decrypt => {
                let (next, step) = self.far_next.get_mut(n as usize).ok_or("no such SA")?;
                let number = SequenceNumber(*next);
                *next += *step;
                let inner = inner(their_host(n), OUR_HOST, flow, length);
                let (spi, esn) = (Spi(SPIS + n), self.setup.esn);
                let sealed =
                    esp::seal_datagram(&self.far_key, spi, number, esn, IPV4_IN_ESP, &inner)
                        .map_err(|reason| reason.name())?;
                frame.extend(self.outer(&sealed));
            }
        }
        Ok(frame)
    }

    fn outer(&self, sealed: &[u8]) -> Vec<u8> {
        let mut outer = vec![0; ipv4::HEADER];
        let protocol = if self.setup.udp {
            let port = NAT_PORT.to_be_bytes();
            let length = (8 + sealed.len() as u16).to_be_bytes();
            // RFC 3948 section 2.1: the UDP checksum is zero.
            outer.extend([port, port, length, [0, 0]].concat());
            ipv4::UDP
        } else {
            ipv4::ESP
        };
        outer.extend(sealed);
        let _ = ipv4::write(&mut outer, REMOTE, LOCAL, protocol);
        outer
    }
}

/// A UDP packet of this many octets.
fn inner(from: Ipv4Addr, to: Ipv4Addr, flow: u16, length: usize) -> Vec<u8> {
    let mut packet = vec![0; length];
    let udp = (length - ipv4::HEADER) as u16;
    packet[20..22].copy_from_slice(&(7000 + flow).to_be_bytes());
    packet[22..24].copy_from_slice(&7007u16.to_be_bytes());
    packet[24..26].copy_from_slice(&udp.to_be_bytes());
    let _ = ipv4::write(&mut packet, from, to, ipv4::UDP);
    packet
}

/// xorshift64: which SA and flow is next.
pub struct Random(pub u64);

impl Random {
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
