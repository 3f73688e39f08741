//! A gateway with several workers, each with a queue of both ports, and a peer that is the test
//! itself: it seals and opens with the SAs' keys, and chooses the queue of every packet.
//!
//! ```text
//!   host 10.2.0.5 ==inside queues==  [worker 0, worker 1, ..]  ==outside queues==  peer 192.0.2.1
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use hitless_dataplane::aead::{Engine, EspKey};
use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::{Command, Event};
use hitless_dataplane::esp;
use hitless_dataplane::fib::{Fib, Route};
use hitless_dataplane::handover;
use hitless_dataplane::neighbour::News;
use hitless_dataplane::port::memory::{self, MemoryPort};
use hitless_dataplane::replay::AntiReplay;
use hitless_dataplane::sad::{Bound, InboundSa, OutboundSa};
use hitless_dataplane::spd::{Action, Policy, Spd};
use hitless_dataplane::verdict::DropReason;
use hitless_dataplane::worker::{
    CheckpointSettings, Interface, Leadership, Worker, WorkerHandle, WorkerSettings, worker,
};
use hitless_sa::{
    ChildSa, EspSuite, Instant, KeyMaterial, Mode, SequenceNumber, Spi, TrafficSelector,
};

use crate::packets::{
    HOST_B as HOST, INSIDE, MTU, OUTSIDE, OUTSIDE_A as PEER, OUTSIDE_B as GATEWAY, PLENTY, drain,
    frame, raw, sa_id, udp, without_df,
};

const INSIDE_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
const OUTSIDE_MAC: [u8; 6] = [2, 0, 0, 0, 2, 2];
const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];
const CABLE: usize = 4096;

/// One worker with the far ends of its queues.
pub struct Core {
    pub worker: Worker,
    pub handle: WorkerHandle,
    pub host: MemoryPort,
    pub wire: MemoryPort,
}

/// Which workers have an SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spread {
    /// One has both halves and gets everything.
    Bound(usize),
    /// One receives, all send.
    Receives(usize),
    /// All do both.
    All,
}

/// The gateway.
pub struct Gate {
    pub cores: Vec<Core>,
    pub leadership: Arc<Leadership>,
    pub cells: BTreeMap<u32, Arc<Cell>>,
    /// The peer's numbers, and what it has accepted: once each.
    pub sent: BTreeMap<u32, u64>,
    pub heard: BTreeMap<u32, Vec<u64>>,
    windows: BTreeMap<u32, AntiReplay>,
    /// Inner packets delivered, with the queue that they left by.
    pub delivered: Vec<(usize, Vec<u8>)>,
    /// Frames that left outside and are no ESP.
    pub clear: usize,
    pub now: Instant,
}

pub fn key(sa: u32, inbound: bool) -> EspKey {
    EspKey::new(Engine::AwsLc, EspSuite::Aes128Gcm16, &material(sa, inbound)).unwrap()
}

fn material(sa: u32, inbound: bool) -> KeyMaterial {
    KeyMaterial::new(&[sa as u8 * 2 + u8::from(inbound); 20])
}

/// The host behind the peer that SA number `sa` is for.
pub fn far_host(sa: u32) -> [u8; 4] {
    [10, 1, sa as u8, 5]
}

pub fn child(sa: u32) -> ChildSa {
    let net = |text: &str| vec![text.parse::<TrafficSelector>().unwrap()];
    ChildSa {
        id: sa_id(sa),
        mode: Mode::Tunnel,
        inbound_spi: Spi(0xbbbb_0000 + sa),
        outbound_spi: Spi(0xaaaa_0000 + sa),
        suite: EspSuite::Aes128Gcm16,
        esn: true,
        inbound_key: material(sa, true),
        outbound_key: material(sa, false),
        local: Ipv4Addr::from(GATEWAY).into(),
        remote: Ipv4Addr::from(PEER).into(),
        encapsulation: None,
        local_ts: net("10.2.0.0/16"),
        remote_ts: net(&format!("10.1.{sa}.0/24")),
        replay_window: 65_536,
        options: hitless_sa::SaOptions::default(),
    }
}

impl Gate {
    pub fn new(workers: usize) -> Gate {
        let leadership = Leadership::new(true);
        let interface = |mac, address: [u8; 4], length, protected| Interface {
            mac,
            addresses: vec![(IpAddr::from(address), length)],
            mtu: MTU,
            protected,
        };
        let mut queues = Vec::new();
        let (mut made, mut handles) = (Vec::new(), Vec::new());
        for id in 0..workers {
            let (inside, host) = memory::link(CABLE, MTU);
            let (outside, wire) = memory::link(CABLE, MTU);
            let settings = WorkerSettings {
                id,
                interfaces: vec![
                    interface(INSIDE_MAC, [10, 2, 0, 1], 16, true),
                    interface(OUTSIDE_MAC, GATEWAY, 24, false),
                ],
                pool_frames: 1024,
                pool_runs: 0,
                checkpoint: CheckpointSettings::default(),
                sa_capacity: 16,
            };
            let ports: Vec<Box<dyn hitless_dataplane::port::Port>> =
                vec![Box::new(inside), Box::new(outside)];
            let (worker, handle) = worker(settings, ports, Arc::clone(&leadership)).unwrap();
            made.push(worker);
            handles.push(handle);
            queues.push((host, wire));
        }
        handover::connect(&mut made);
        let cores = made.into_iter().zip(handles).zip(queues);
        let cores = cores.map(|((worker, handle), (host, wire))| Core {
            worker,
            handle,
            host,
            wire,
        });
        let mut gate = Gate {
            cores: cores.collect(),
            leadership,
            cells: BTreeMap::new(),
            sent: BTreeMap::new(),
            heard: BTreeMap::new(),
            windows: BTreeMap::new(),
            delivered: Vec::new(),
            clear: 0,
            now: Instant::default() + Duration::from_secs(100),
        };
        gate.set_up();
        gate
    }

    fn set_up(&mut self) {
        let route = |address: [u8; 4], length, port| Route {
            prefix: (IpAddr::from(address), length),
            port,
            next_hop: None,
        };
        let fib = Arc::new(Fib::new(&[
            route([10, 2, 0, 0], 16, INSIDE),
            route([192, 0, 2, 0], 24, OUTSIDE),
        ]));
        self.broadcast(|| Command::Routes(Arc::clone(&fib)));
        for (port, address) in [(INSIDE, HOST), (OUTSIDE, PEER)] {
            self.broadcast(|| Command::Neighbour(News::certain(port, address.into(), FAR_MAC)));
        }
        let sas: Vec<u32> = (1..8).collect();
        self.policies(&sas);
        self.settle();
    }

    /// Policies that protect what these SAs are for.
    pub fn policies(&mut self, sas: &[u32]) {
        let policies = sas.iter().map(|sa| Policy {
            local: "10.2.0.0/16".parse().unwrap(),
            remote: format!("10.1.{sa}.0/24").parse().unwrap(),
            action: Action::Protect(Some(sa_id(*sa))),
        });
        let spd = Arc::new(Spd::new(policies.collect()));
        self.broadcast(|| Command::Policies(Arc::clone(&spd)));
    }

    pub fn broadcast(&mut self, command: impl Fn() -> Command) {
        for core in 0..self.cores.len() {
            self.send(core, command());
        }
    }

    pub fn send(&mut self, core: usize, command: Command) {
        assert!(self.cores[core].handle.send(command).is_ok());
    }

    /// Installs an SA under a fresh cell.
    pub fn install(&mut self, sa: u32, spread: Spread) {
        let cell = Arc::new(Cell::new(SequenceNumber(1), PLENTY));
        let child = child(sa);
        let mut window = AntiReplay::new(child.replay_window, SequenceNumber(0));
        if spread == Spread::All {
            window = window.share();
        }
        for core in 0..self.cores.len() {
            let (receives, sends) = match spread {
                Spread::Bound(owner) => (owner == core, owner == core),
                Spread::Receives(owner) => (owner == core, true),
                Spread::All => (true, true),
            };
            if receives {
                let (cell, window) = (Arc::clone(&cell), window.clone());
                let half = InboundSa::with_window(&child, cell, window, sa, Engine::AwsLc).unwrap();
                self.send(core, Command::InstallInbound(Box::new(half)));
            }
            if sends {
                let half = OutboundSa::new(&child, Arc::clone(&cell), sa, Engine::AwsLc).unwrap();
                self.send(core, Command::InstallOutbound(Box::new(half)));
            }
            if let Spread::Bound(owner) | Spread::Receives(owner) = spread
                && owner != core
            {
                let bound = Bound {
                    spi: child.inbound_spi,
                    owner,
                    outbound: matches!(spread, Spread::Bound(_)).then_some(child.outbound_spi),
                };
                let (sa, slot) = (child.id, sa);
                self.send(core, Command::Bind { sa, slot, bound });
            }
        }
        self.cells.insert(sa, cell);
        self.sent.insert(sa, 0);
        self.heard.insert(sa, Vec::new());
        let everything = AntiReplay::new(65_536, SequenceNumber(0));
        self.windows.insert(sa, everything);
        self.settle();
    }

    /// The peer's next packet on an SA, as an IP packet.
    pub fn seal(&mut self, sa: u32, payload: &[u8]) -> Vec<u8> {
        let sent = self.sent.get_mut(&sa).unwrap();
        *sent += 1;
        sealed(sa, *sent, payload)
    }

    /// The peer sends, and the network card puts it into this queue.
    pub fn peer_sends(&mut self, queue: usize, sa: u32, payload: &[u8]) {
        let packet = self.seal(sa, payload);
        self.bring(queue, &packet);
    }

    pub fn bring(&mut self, queue: usize, packet: &[u8]) {
        assert!(self.cores[queue].wire.push_frame(&outside_frame(packet)));
    }

    /// The host sends to the host that this SA is for.
    pub fn host_sends(&mut self, queue: usize, sa: u32, payload: &[u8]) {
        let frame = inside_frame(sa, payload);
        assert!(self.cores[queue].host.push_frame(&frame));
    }

    /// One turn of a worker.
    pub fn turn(&mut self, core: usize) -> usize {
        let handled = self.cores[core].worker.turn(self.now);
        self.collect(core);
        handled
    }

    /// Takes what has come out of a worker's queues.
    pub fn collect(&mut self, core: usize) {
        for frame in drain(&mut self.cores[core].host) {
            self.delivered.push((core, frame[14..].to_vec()));
        }
        for frame in drain(&mut self.cores[core].wire) {
            self.peer_hears(&frame);
        }
    }

    fn peer_hears(&mut self, frame: &[u8]) {
        if frame[12..14] != [8, 0] || frame[23] != 50 {
            self.clear += usize::from(frame[12..14] == [8, 0]);
            return;
        }
        let mut octets = frame[34..].to_vec();
        let sa = esp::spi(&octets).unwrap().0 - 0xaaaa_0000;
        let window = self.windows.get_mut(&sa).unwrap();
        // The IV is the number (S2): a repeated one would be refused here as a replay.
        let number = u64::from_be_bytes(octets[8..16].try_into().unwrap());
        let opened = esp::open_datagram(&key(sa, false), true, window, &mut octets);
        assert!(opened.is_ok(), "{opened:?}: number {number}");
        self.heard.get_mut(&sa).unwrap().push(number);
    }

    /// Runs until nothing moves.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let handled: usize = (0..self.cores.len()).map(|core| self.turn(core)).sum();
            if handled == 0 {
                return self.assert_no_leak();
            }
        }
        panic!("never comes to rest");
    }

    pub fn assert_no_leak(&self) {
        for core in &self.cores {
            let account = core.worker.frame_account();
            let sum = account.free + account.in_ports + account.parked + account.held;
            assert_eq!(sum, account.total, "{account:?}");
        }
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        let cores = self.cores.iter();
        cores.map(|core| core.handle.counters.dropped(reason)).sum()
    }

    pub fn drops(&self) -> u64 {
        let all = self
            .cores
            .iter()
            .flat_map(|core| core.handle.counters.drops());
        all.map(|(_, count)| count).sum()
    }

    pub fn events(&mut self, core: usize) -> Vec<Event> {
        std::iter::from_fn(|| self.cores[core].handle.poll_event()).collect()
    }

    /// Packets of an SA that each worker has counted, in and out, as it gives them back.
    pub fn counted(&mut self, sa: u32) -> Vec<(u64, u64)> {
        use hitless_dataplane::command::Retired;
        for core in 0..self.cores.len() {
            self.events(core);
        }
        self.broadcast(|| Command::Remove(sa_id(sa)));
        self.settle();
        let cores = 0..self.cores.len();
        let counted = cores.map(|core| {
            let mut counts = (0, 0);
            for event in self.events(core) {
                match event {
                    Event::Retired(Retired::Inbound(half)) => counts.0 += half.counters.packets(),
                    Event::Retired(Retired::Outbound(half)) => counts.1 += half.counters.packets(),
                    _ => {}
                }
            }
            counts
        });
        counted.collect()
    }

    /// The payloads delivered, in order.
    pub fn payloads(&mut self) -> Vec<Vec<u8>> {
        let packets = std::mem::take(&mut self.delivered).into_iter();
        packets.map(|(_, packet)| packet[28..].to_vec()).collect()
    }
}

/// A frame as it comes from the peer.
pub fn outside_frame(packet: &[u8]) -> Vec<u8> {
    frame(OUTSIDE_MAC, FAR_MAC, packet)
}

/// A frame of the host's, for the host that this SA is for.
pub fn inside_frame(sa: u32, payload: &[u8]) -> Vec<u8> {
    frame(INSIDE_MAC, FAR_MAC, &udp(HOST, far_host(sa), payload))
}

/// The peer's packet with this number on an SA.
pub fn sealed(sa: u32, number: u64, payload: &[u8]) -> Vec<u8> {
    let inner = without_df(&udp(far_host(sa), HOST, payload));
    let (spi, number) = (Spi(0xbbbb_0000 + sa), SequenceNumber(number));
    let esp = esp::seal_datagram(&key(sa, true), spi, number, true, 4, &inner).unwrap();
    raw(PEER, GATEWAY, 50, &esp)
}

/// A router's word that a packet of this SA was too big for a link of this MTU.
pub fn too_big(mtu: u16, sa: u32) -> Vec<u8> {
    let spi = 0xaaaa_0000 + sa;
    let quoted = raw(
        GATEWAY,
        PEER,
        50,
        &[spi.to_be_bytes(), [0, 0, 0, 9]].concat(),
    );
    let header =
        etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4([203, 0, 113, 1], GATEWAY, 64)
        .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(header))
        .write(&mut packet, &quoted)
        .unwrap();
    packet
}
