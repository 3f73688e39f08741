//! Two gateways back to back, with a host behind each, all on memory ports:
//!
//! ```text
//!  host A 10.1.0.5 -- 10.1.0.1 [A] 192.0.2.1 == wire == 192.0.2.2 [B] 10.2.0.1 -- 10.2.0.5 host B
//! ```
//!
//! The wire is in the test's hands: it sees, keeps, changes or forges every frame.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use etherparse::{EtherType, Ethernet2Header, PacketBuilder};
use hitless_dataplane::aead::Engine;
use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::{Command, Event};
use hitless_dataplane::fib::{Fib, Route};
use hitless_dataplane::port::MacAddress;
use hitless_dataplane::port::memory::{self, MemoryPort};
use hitless_dataplane::sad::{InboundSa, OutboundSa};
use hitless_dataplane::spd::{Action, Policy, Spd};
use hitless_dataplane::verdict::DropReason;
use hitless_dataplane::worker::{
    CheckpointSettings, Interface, Leadership, Worker, WorkerHandle, WorkerSettings, worker,
};
use hitless_sa::{
    ChildSa, EspSuite, Incarnation, Instant, KeyMaterial, Lease, MemberId, Mode, SaId,
    SequenceNumber, Spi, TrafficSelector, UdpEncapsulation,
};

pub const INSIDE: usize = 0;
pub const OUTSIDE: usize = 1;
pub const MTU: usize = 1500;
/// Grant and high water that tests which are not about leases never reach.
pub const PLENTY: Lease = Lease {
    grant: SequenceNumber(1 << 40),
    high_water: SequenceNumber(1 << 40),
};

pub const HOST_A: [u8; 4] = [10, 1, 0, 5];
pub const HOST_B: [u8; 4] = [10, 2, 0, 5];
pub const INSIDE_A: [u8; 4] = [10, 1, 0, 1];
pub const INSIDE_B: [u8; 4] = [10, 2, 0, 1];
pub const OUTSIDE_A: [u8; 4] = [192, 0, 2, 1];
pub const OUTSIDE_B: [u8; 4] = [192, 0, 2, 2];

pub fn sa_id(counter: u32) -> SaId {
    SaId {
        creator: MemberId(1),
        incarnation: Incarnation(1),
        counter,
    }
}

/// One gateway with the far ends of its cables.
pub struct Gateway {
    pub worker: Worker,
    pub handle: WorkerHandle,
    pub leadership: Arc<Leadership>,
    /// The cell of the Child SA that [`Bed::install`] made last.
    pub cell: Arc<Cell>,
    pub host: MemoryPort,
    pub host_address: [u8; 4],
    pub host_mac: MacAddress,
    pub wire: MemoryPort,
    pub inside_mac: MacAddress,
    pub outside_mac: MacAddress,
    /// Frames that came out on the protected side, ARP left out.
    pub delivered: Vec<Vec<u8>>,
    /// Whether the host answers ARP.
    pub host_answers: bool,
}

impl Gateway {
    fn new(number: u8, settings: &Settings, policies: Vec<Policy>) -> Gateway {
        let (inside, host) = memory::link(256, MTU);
        let (outside, wire) = memory::link(256, MTU);
        let mac = |last| [2, 0, 0, 0, number, last];
        let interface = |mac, address: [u8; 4], length, protected| Interface {
            mac,
            addresses: vec![(IpAddr::from(address), length)],
            mtu: MTU,
            protected,
        };
        let leadership = Leadership::new(true);
        let worker_settings = WorkerSettings {
            id: usize::from(number),
            interfaces: vec![
                interface(mac(1), [10, number, 0, 1], 16, true),
                interface(mac(2), [192, 0, 2, number], 24, false),
            ],
            pool_frames: settings.frames,
            checkpoint: settings.checkpoint,
            sa_capacity: 8,
        };
        let (worker, handle) = worker(
            worker_settings,
            vec![Box::new(inside), Box::new(outside)],
            Arc::clone(&leadership),
        )
        .unwrap();
        let mut gateway = Gateway {
            worker,
            handle,
            leadership,
            cell: Arc::new(Cell::new(SequenceNumber(1), PLENTY)),
            host,
            host_address: [10, number, 0, 5],
            host_mac: mac(5),
            wire,
            inside_mac: mac(1),
            outside_mac: mac(2),
            delivered: Vec::new(),
            host_answers: true,
        };
        let route = |address: [u8; 4], length, port| Route {
            prefix: (IpAddr::from(address), length),
            port,
            next_hop: None,
        };
        gateway.send(Command::Routes(Arc::new(Fib::new(&[
            route([10, number, 0, 0], 16, INSIDE),
            route([192, 0, 2, 0], 24, OUTSIDE),
        ]))));
        gateway.send(Command::Policies(Arc::new(Spd::new(policies))));
        gateway
    }

    pub fn send(&mut self, command: Command) {
        assert!(
            self.handle.send(command).is_ok(),
            "the command ring is full"
        );
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.handle.counters.dropped(reason)
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.handle.poll_event()).collect()
    }

    /// A packet from the host behind it.
    pub fn host_sends(&mut self, packet: &[u8]) {
        let frame = frame(self.inside_mac, self.host_mac, packet);
        assert!(self.host.push_frame(&frame));
    }

    /// A packet from somebody on the wire.
    pub fn wire_brings(&mut self, packet: &[u8]) {
        let frame = frame(self.outside_mac, [2, 0, 0, 0, 9, 9], packet);
        assert!(self.wire.push_frame(&frame));
    }

    /// Every frame that waits on the wire.
    pub fn take_wire(&mut self) -> Vec<Vec<u8>> {
        drain(&mut self.wire)
    }

    /// The host takes its frames, and answers ARP.
    fn serve_host(&mut self) {
        for received in drain(&mut self.host) {
            if received[12..14] != [0x08, 0x06] {
                self.delivered.push(received);
            } else if self.host_answers && received[20..22] == [0, 1] {
                let answer = arp(2, self.host_mac, self.host_address, &received[22..32]);
                if received[38..42] == self.host_address {
                    assert!(self.host.push_frame(&answer));
                }
            }
        }
    }

    /// Every frame is somewhere.
    pub fn assert_no_leak(&self) {
        let account = self.worker.frame_account();
        let sum = account.free + account.in_ports + account.parked + account.held;
        assert_eq!(sum, account.total, "{account:?}");
    }
}

/// Both gateways and the time.
pub struct Bed {
    pub a: Gateway,
    pub b: Gateway,
    pub now: Instant,
    /// Frames that crossed the wire, ARP left out.
    pub wire: Vec<Vec<u8>>,
    settings: Settings,
}

/// What tests vary.
#[derive(Clone, Copy)]
pub struct Settings {
    pub encapsulation: Option<UdpEncapsulation>,
    pub checkpoint: CheckpointSettings,
    pub esn: bool,
    /// Frames of each worker's pool.
    pub frames: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            encapsulation: None,
            checkpoint: CheckpointSettings::default(),
            esn: true,
            frames: 1024,
        }
    }
}

impl Bed {
    /// With a Child SA pair between the two, in the first slot.
    pub fn new() -> Bed {
        Bed::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Bed {
        let policies = |a: &str, b: &str| {
            let policy = |local: &str, remote: &str, action| Policy {
                local: local.parse().unwrap(),
                remote: remote.parse().unwrap(),
                action,
            };
            vec![
                policy(a, "203.0.113.66", Action::Discard),
                policy(a, "203.0.113.0/24", Action::Bypass),
                policy(a, "198.51.100.0/24", Action::Protect(None)),
                policy(a, b, Action::Protect(Some(sa_id(1)))),
            ]
        };
        let (net_a, net_b) = ("10.1.0.0/16", "10.2.0.0/16");
        let mut bed = Bed {
            a: Gateway::new(1, &settings, policies(net_a, net_b)),
            b: Gateway::new(2, &settings, policies(net_b, net_a)),
            now: Instant::default() + Duration::from_secs(100),
            wire: Vec::new(),
            settings,
        };
        bed.install(PLENTY, PLENTY);
        bed.settle();
        bed.a.events();
        bed.b.events();
        bed
    }

    /// The description of the Child SA as one side holds it.
    pub fn child(&self, side_a: bool) -> ChildSa {
        let key = |seed: u8| KeyMaterial::new(&[seed; 36]);
        let (a, b) = (Spi(0xaaaa_0001), Spi(0xbbbb_0001));
        let net = |text: &str| vec![text.parse::<TrafficSelector>().unwrap()];
        let (net_a, net_b) = (net("10.1.0.0/16"), net("10.2.0.0/16"));
        let (end_a, end_b) = (Ipv4Addr::from(OUTSIDE_A), Ipv4Addr::from(OUTSIDE_B));
        let child = ChildSa {
            id: sa_id(1),
            mode: Mode::Tunnel,
            inbound_spi: a,
            outbound_spi: b,
            suite: EspSuite::Aes256Gcm16,
            esn: self.settings.esn,
            inbound_key: key(1),
            outbound_key: key(2),
            local: end_a.into(),
            remote: end_b.into(),
            encapsulation: self.settings.encapsulation,
            local_ts: net_a.clone(),
            remote_ts: net_b.clone(),
            replay_window: 1024,
            options: hitless_sa::SaOptions::default(),
        };
        if side_a {
            return child;
        }
        ChildSa {
            inbound_spi: b,
            outbound_spi: a,
            inbound_key: key(2),
            outbound_key: key(1),
            local: end_b.into(),
            remote: end_a.into(),
            local_ts: net_b,
            remote_ts: net_a,
            ..child
        }
    }

    /// Installs the Child SA on both sides under fresh cells.
    pub fn install(&mut self, lease_a: Lease, lease_b: Lease) {
        self.install_from(SequenceNumber(1), lease_a, lease_b);
    }

    /// As [`Bed::install`], sending from a later number.
    pub fn install_from(&mut self, first: SequenceNumber, lease_a: Lease, lease_b: Lease) {
        for (side_a, lease) in [(true, lease_a), (false, lease_b)] {
            let child = self.child(side_a);
            let cell = Arc::new(Cell::new(first, lease));
            let gateway = if side_a { &mut self.a } else { &mut self.b };
            let floor = SequenceNumber(0);
            let engine = Engine::AwsLc;
            let inbound = InboundSa::new(&child, Arc::clone(&cell), floor, 0, engine).unwrap();
            let outbound = OutboundSa::new(&child, Arc::clone(&cell), 0, engine).unwrap();
            gateway.send(Command::InstallInbound(Box::new(inbound)));
            gateway.send(Command::InstallOutbound(Box::new(outbound)));
            gateway.cell = cell;
        }
    }

    /// One turn of each gateway, frames carried as they are.
    pub fn step(&mut self) -> bool {
        let handled = self.a.worker.turn(self.now) + self.b.worker.turn(self.now);
        let mut moved = false;
        for frame in self.a.take_wire() {
            moved = true;
            self.b.wire.push_frame(&frame);
            self.note(frame);
        }
        for frame in self.b.take_wire() {
            moved = true;
            self.a.wire.push_frame(&frame);
            self.note(frame);
        }
        self.a.serve_host();
        self.b.serve_host();
        handled > 0 || moved
    }

    /// Runs until nothing moves.
    pub fn settle(&mut self) {
        for _ in 0..1000 {
            if !self.step() {
                self.a.assert_no_leak();
                self.b.assert_no_leak();
                return;
            }
        }
        panic!("never comes to rest");
    }

    pub fn advance(&mut self, by: Duration) {
        self.now += by;
        self.settle();
    }

    fn note(&mut self, frame: Vec<u8>) {
        if frame[12..14] != [0x08, 0x06] {
            self.wire.push(frame);
        }
    }

    /// Sends from host A, and gives the ESP packet that leaves A instead of carrying it to B.
    pub fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        self.a.host_sends(packet);
        self.a.worker.turn(self.now);
        let mut frames = self.a.take_wire();
        assert_eq!(
            frames.len(),
            1,
            "{:?}",
            self.a.handle.counters.drops().collect::<Vec<_>>()
        );
        frames.remove(0)[14..].to_vec()
    }

    /// Lets both gateways find each other and their hosts.
    pub fn warm_up(&mut self) {
        self.a.host_sends(&udp(HOST_A, HOST_B, b"warm"));
        self.b.host_sends(&udp(HOST_B, HOST_A, b"warm"));
        self.settle();
        assert_eq!((self.a.delivered.len(), self.b.delivered.len()), (1, 1));
        self.a.delivered.clear();
        self.b.delivered.clear();
        self.wire.clear();
    }
}

pub fn drain(port: &mut MemoryPort) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while port.pop_frame(|frame| frames.push(frame.to_vec())) {}
    frames
}

/// An Ethernet frame around an IPv4 packet.
pub fn frame(destination: MacAddress, source: MacAddress, packet: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header {
        destination,
        source,
        ether_type: EtherType::IPV4,
    };
    [&header.to_bytes()[..], packet].concat()
}

/// A UDP packet.
pub fn udp(from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    udp_ports(from, to, 4000, 5000, payload)
}

pub fn udp_ports(from: [u8; 4], to: [u8; 4], source: u16, target: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(from, to, 64)
        .udp(source, target)
        .write(&mut packet, payload)
        .unwrap();
    packet
}

/// An echo request.
pub fn echo(from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(from, to, 64)
        .icmpv4_echo_request(7, 8)
        .write(&mut packet, b"ping")
        .unwrap();
    packet
}

/// A raw IPv4 packet of some protocol.
pub fn raw(from: [u8; 4], to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(from, to, 64)
        .write(&mut packet, etherparse::IpNumber(protocol), payload)
        .unwrap();
    packet
}

/// A packet as it looks after so many routers.
pub fn hops_later(packet: &[u8], hops: u8) -> Vec<u8> {
    let mut later = packet.to_vec();
    for _ in 0..hops {
        later[8] -= 1;
    }
    let (header, _) = etherparse::Ipv4Header::from_slice(&later).unwrap();
    later[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    later
}

/// A packet that may be fragmented.
pub fn without_df(packet: &[u8]) -> Vec<u8> {
    let mut without = packet.to_vec();
    without[6] &= !0x40;
    hops_later(&without, 0)
}

/// An ARP frame; `target` is the other side's Ethernet and IPv4 address.
pub fn arp(operation: u8, mac: MacAddress, address: [u8; 4], target: &[u8]) -> Vec<u8> {
    let to = if operation == 1 {
        [0xff; 6].as_slice()
    } else {
        &target[..6]
    };
    let fixed = [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation];
    [to, &mac, &fixed, &mac, &address, target].concat()
}
