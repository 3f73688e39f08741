//! One way for packets: a generator, a cable to what forwards, and a cable to nobody.

use std::error::Error;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use hitless_bench::{Bench, Direction, GATEWAY, Setup, parts};
use hitless_dataplane::pool::Pool;
use hitless_dataplane::port::af_packet::{AfPacketPort, AfPacketSettings};
use hitless_dataplane::port::af_xdp::{AfXdpPort, AfXdpSettings};
use hitless_dataplane::port::tap::{TapPort, TapSettings};
use hitless_dataplane::port::{BURST, Burst, MacAddress, Port};

use super::Driver;
use crate::clock::Moment;

/// Of every link: room for 1,500 octets in ESP.
const MTU: usize = 1700;
/// For the rings of two AF_XDP sockets and what is between them.
const FRAMES: u32 = 8192;
/// The generator's address; nobody looks at it.
const GENERATOR: MacAddress = [2, 0, 0, 0, 0, 9];
/// Turns without a packet after which those that are missing are lost.
const PATIENCE: usize = 300;
/// Times that everybody else may run before a round: the kernel's own threads deliver, too.
const BREATHS: usize = 8;

/// Frames to send.
pub type Frames = Vec<Vec<u8>>;

/// What forwards.
enum Forwarder {
    /// A worker: ESP and all that belongs to it.
    Hitless(Box<Bench>),
    /// Receive a burst, send it.
    Bare {
        pool: Pool,
        from: Box<dyn Port>,
        to: Box<dyn Port>,
    },
}

/// See the module.
pub struct Lane {
    generator: AfPacketPort,
    pool: Pool,
    forwarder: Forwarder,
    mode: String,
    lost: u64,
}

impl Lane {
    /// With a worker in the middle.
    pub fn hitless(
        driver: Driver,
        setup: Setup,
        direction: Direction,
    ) -> Result<Lane, Box<dyn Error>> {
        Lane::new(driver, |pool, from, to| {
            let parts = parts(&setup);
            let bench = Bench::over(setup, direction, 0, &parts, (pool, from, to))?;
            Ok(Forwarder::Hitless(Box::new(bench)))
        })
    }

    /// With the shortest loop in the middle.
    pub fn bare(driver: Driver) -> Result<Lane, Box<dyn Error>> {
        Lane::new(driver, |pool, from, to| {
            Ok(Forwarder::Bare { pool, from, to })
        })
    }

    fn new(
        driver: Driver,
        forwarder: impl FnOnce(Pool, Box<dyn Port>, Box<dyn Port>) -> Result<Forwarder, Box<dyn Error>>,
    ) -> Result<Lane, Box<dyn Error>> {
        let mut pool = Pool::new(FRAMES)?;
        let mut open = || -> Result<(String, Box<dyn Port>), Box<dyn Error>> {
            let (near, far) = names();
            let port: Box<dyn Port> = match driver {
                Driver::AfXdp => {
                    cable(&near, &far)?;
                    let settings = AfXdpSettings::new(near, GATEWAY);
                    Box::new(AfXdpPort::open(&settings, &mut pool)?)
                }
                Driver::AfPacket => {
                    cable(&near, &far)?;
                    Box::new(packet_port(&near, GATEWAY, &pool)?)
                }
                Driver::Tap => {
                    let settings = TapSettings {
                        interface: near.clone(),
                        mtu: Some(MTU),
                        several: false,
                    };
                    return Ok((near, Box::new(TapPort::open(&settings, &pool)?)));
                }
            };
            Ok((far, port))
        };
        let (generator, from) = open()?;
        let (_, to) = open()?;
        let own = Pool::new(FRAMES)?;
        Ok(Lane {
            generator: packet_port(&generator, GENERATOR, &own)?,
            pool: own,
            mode: from.mode().to_owned(),
            forwarder: forwarder(pool, from, to)?,
            lost: 0,
        })
    }

    /// How frames travel, where there are several ways.
    pub fn mode(&self) -> String {
        self.mode.clone()
    }

    /// Packets that never came, of all rounds.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The next frames to arrive at the worker.
    pub fn frames(&mut self, size: usize, count: usize) -> Result<Frames, Box<dyn Error>> {
        match &mut self.forwarder {
            Forwarder::Hitless(bench) => (0..count).map(|_| bench.frame(size)).collect(),
            Forwarder::Bare { .. } => Err("only a worker knows what it can open".into()),
        }
    }

    /// Lays the frames ready, and gives the nanoseconds that each takes to be forwarded.
    pub fn round(&mut self, frames: &Frames) -> Result<f64, Box<dyn Error>> {
        for frames in frames.chunks(BURST) {
            let packets = frames.iter().filter_map(|frame| self.pool.copy_in(frame));
            let mut burst: Burst = packets.collect();
            self.generator.transmit(&mut self.pool, &mut burst);
        }
        (0..BREATHS).for_each(|_| std::thread::yield_now());
        let started = Moment::now();
        let (mut last, mut taken, mut idle) = (started, 0, 0);
        while taken < frames.len() && idle < PATIENCE {
            match self.forwarder.turn() {
                0 => idle += 1,
                count => {
                    (taken, idle) = (taken + count, 0);
                    last = Moment::now();
                }
            }
        }
        self.lost += frames.len().saturating_sub(taken) as u64;
        // Completions are reaped, checkpoints are told, outside the time that counts.
        self.forwarder.rest()?;
        match taken {
            0 => Err("no packet came through the kernel's port".into()),
            _ => Ok(last.since(started).as_secs_f64() * 1e9 / taken as f64),
        }
    }
}

impl Forwarder {
    fn turn(&mut self) -> usize {
        match self {
            Forwarder::Hitless(bench) => bench.turn(),
            Forwarder::Bare { pool, from, to } => {
                let mut burst = Burst::new();
                from.receive(pool, &mut burst);
                let count = burst.len();
                match count {
                    0 => to.poll(pool),
                    _ => to.transmit(pool, &mut burst),
                }
                count
            }
        }
    }

    fn rest(&mut self) -> Result<(), Box<dyn Error>> {
        for _ in 0..4 {
            self.turn();
        }
        if let Forwarder::Hitless(bench) = self {
            bench.serve();
            if !bench.drops().is_empty() {
                return Err(format!("packets were dropped: {:?}", bench.drops()).into());
            }
        }
        Ok(())
    }
}

/// New names for the ends of a cable.
fn names() -> (String, String) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    (format!("near{n}"), format!("far{n}"))
}

fn packet_port(
    interface: &str,
    mac: MacAddress,
    pool: &Pool,
) -> Result<AfPacketPort, Box<dyn Error>> {
    let settings = AfPacketSettings {
        interface: interface.to_owned(),
        mac,
        addresses: Vec::new(),
        queues: 1,
    };
    Ok(AfPacketPort::open(&settings, pool)?)
}

/// A veth pair, both ends up, without what real networks leave to hardware.
fn cable(near: &str, far: &str) -> Result<(), Box<dyn Error>> {
    let mtu = MTU.to_string();
    run(
        "ip",
        &[
            "link", "add", near, "mtu", &mtu, "type", "veth", "peer", "name", far, "mtu", &mtu,
        ],
    )?;
    for end in [near, far] {
        run(
            "ethtool",
            &[
                "-K", end, "tx", "off", "tso", "off", "gso", "off", "gro", "off",
            ],
        )?;
        run("ip", &["link", "set", end, "up"])?;
    }
    Ok(())
}

fn run(program: &str, words: &[&str]) -> Result<(), Box<dyn Error>> {
    let output = Command::new(program)
        .args(words)
        .output()
        .map_err(|error| format!("{program}: {error}; install Debian's iproute2 and ethtool"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{program} {}: {}", words.join(" "), said.trim()).into())
        }
    }
}

/// No IPv6 in this namespace: its chatter would be measured, too.
pub fn quiet() {
    for which in ["all", "default"] {
        // A kernel without IPv6 has no such file, and no chatter.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1");
    }
}
