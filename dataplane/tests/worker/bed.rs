//! Two gateways back to back, with a host behind each, all on memory ports:
//!
//! ```text
//!  host A 10.1.0.5 -- 10.1.0.1 [A] 192.0.2.1 == wire == 192.0.2.2 [B] 10.2.0.1 -- 10.2.0.5 host B
//!  2001:db8:1::5        ..:1::1 [A] ..:f::1           ..:f::2 [B] ..:2::1         2001:db8:2::5
//! ```
//!
//! The wire is in the test's hands: it sees, keeps, changes or forges every frame.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use etherparse::{EtherType, Ethernet2Header, PacketBuilder};
use hitless_dataplane::aead::Engine;
use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::{Command, Event};
use hitless_dataplane::counters::SaCounters;
use hitless_dataplane::fib::{Fib, Route};
use hitless_dataplane::port::fault::{FaultPort, Faults};
use hitless_dataplane::port::memory::{self, MemoryPort};
use hitless_dataplane::port::{MacAddress, Port};
use hitless_dataplane::sad::{InboundSa, OutboundSa};
use hitless_dataplane::spd::{Action, Policy, Spd};
use hitless_dataplane::verdict::DropReason;
use hitless_dataplane::worker::{
    CheckpointSettings, Interface, Leadership, Worker, WorkerHandle, WorkerSettings, worker,
};
use hitless_sa::{
    ChildSa, EspSuite, Incarnation, Instant, KeyMaterial, Lease, MemberId, Mode, SaId, SaOptions,
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

pub const HOST6_A: [u8; 16] = v6(1, 5);
pub const HOST6_B: [u8; 16] = v6(2, 5);
pub const INSIDE6_A: [u8; 16] = v6(1, 1);
pub const INSIDE6_B: [u8; 16] = v6(2, 1);
pub const OUTSIDE6_A: [u8; 16] = v6(0xf, 1);
pub const OUTSIDE6_B: [u8; 16] = v6(0xf, 2);

/// A host of 2001:db8:net::/64.
pub const fn v6(net: u8, host: u8) -> [u8; 16] {
    let mut octets = [0; 16];
    (octets[0], octets[1], octets[2], octets[3]) = (0x20, 0x01, 0x0d, 0xb8);
    (octets[5], octets[15]) = (net, host);
    octets
}

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
    /// What the halves of that Child SA count.
    pub inbound: Arc<SaCounters>,
    pub outbound: Arc<SaCounters>,
    pub host: MemoryPort,
    pub host_address: [u8; 4],
    pub host6_address: [u8; 16],
    pub host_mac: MacAddress,
    pub wire: MemoryPort,
    pub inside_mac: MacAddress,
    pub outside_mac: MacAddress,
    /// Frames that came out on the protected side, ARP and neighbour discovery left out.
    pub delivered: Vec<Vec<u8>>,
    /// Whether the host answers ARP and neighbour solicitations.
    pub host_answers: bool,
}

impl Gateway {
    fn new(number: u8, settings: &Settings, policies: Vec<Policy>) -> Gateway {
        let (inside, host) = memory::link(256, settings.inside_mtu);
        let (outside, wire) = memory::link(256, settings.outside_mtu);
        let mac = |last| [2, 0, 0, 0, number, last];
        let interface = |mac, address: [u8; 4], length, six: [u8; 16], protected| Interface {
            mac,
            addresses: vec![(IpAddr::from(address), length), (IpAddr::from(six), 64)],
            mtu: usize::MAX,
            protected,
        };
        let leadership = Leadership::new(true);
        let worker_settings = WorkerSettings {
            id: usize::from(number),
            interfaces: vec![
                interface(mac(1), [10, number, 0, 1], 16, v6(number, 1), true),
                interface(mac(2), [192, 0, 2, number], 24, v6(0xf, number), false),
            ],
            pool_frames: settings.frames,
            pool_runs: settings.runs,
            checkpoint: settings.checkpoint,
            sa_capacity: 64,
        };
        let (worker, handle) = worker(
            worker_settings,
            vec![Box::new(inside), settings.outside_port(number, outside)],
            Arc::clone(&leadership),
        )
        .unwrap();
        let mut gateway = Gateway {
            worker,
            handle,
            leadership,
            cell: Arc::new(Cell::new(SequenceNumber(1), PLENTY)),
            inbound: Arc::default(),
            outbound: Arc::default(),
            host,
            host_address: [10, number, 0, 5],
            host6_address: v6(number, 5),
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
            Route {
                prefix: (IpAddr::from(v6(number, 0)), 64),
                port: INSIDE,
                next_hop: None,
            },
            Route {
                prefix: (IpAddr::from(v6(0xf, 0)), 64),
                port: OUTSIDE,
                next_hop: None,
            },
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

    /// The host takes its frames, and answers ARP and neighbour solicitations.
    fn serve_host(&mut self) {
        for received in drain(&mut self.host) {
            if is_discovery(&received) {
                let asked = received[54] == 135 && received[62..78] == self.host6_address;
                if asked && self.host_answers {
                    let asker = *received[22..38].first_chunk().unwrap();
                    let answer = advertisement(self.host6_address, asker, self.host_mac, 0x60);
                    assert!(self.host.push_frame(&answer));
                }
            } else if received[12..14] != [0x08, 0x06] {
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
    /// Frames that crossed the wire, ARP and neighbour discovery left out.
    pub wire: Vec<Vec<u8>>,
    settings: Settings,
}

/// What tests vary.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub encapsulation: Option<UdpEncapsulation>,
    pub checkpoint: CheckpointSettings,
    pub esn: bool,
    pub suite: EspSuite,
    /// What A and B encrypt with.
    pub engines: [Engine; 2],
    /// Whether the tunnel's endpoints are the IPv6 ones.
    pub outer_v6: bool,
    pub options: SaOptions,
    /// Frames of each worker's pool.
    pub frames: u32,
    /// Runs of each worker's pool, for jumbo frames.
    pub runs: u32,
    pub inside_mtu: usize,
    pub outside_mtu: usize,
    /// What each gateway's outside port does to packets, in both directions, from a seed.
    pub faults: Option<(u64, Faults)>,
}

impl Settings {
    /// The end of the wire, with the faults that are wanted.
    fn outside_port(&self, number: u8, wire: MemoryPort) -> Box<dyn Port> {
        match self.faults {
            Some((seed, faults)) => {
                let seed = seed ^ u64::from(number);
                Box::new(FaultPort::new(Box::new(wire), seed, faults, faults))
            }
            None => Box::new(wire),
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            encapsulation: None,
            checkpoint: CheckpointSettings::default(),
            esn: true,
            suite: EspSuite::Aes256Gcm16,
            engines: [Engine::default(), Engine::AwsLc],
            outer_v6: false,
            options: SaOptions::default(),
            frames: 1024,
            runs: 0,
            inside_mtu: MTU,
            outside_mtu: MTU,
            faults: None,
        }
    }
}

impl Bed {
    /// With a Child SA pair between the two, in the first slot.
    pub fn new() -> Bed {
        Bed::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Bed {
        let policies = |a: &str, b: &str, a6: &str, b6: &str| {
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
                policy(a6, b6, Action::Protect(Some(sa_id(1)))),
            ]
        };
        let (net_a, net_b) = ("10.1.0.0/16", "10.2.0.0/16");
        let (six_a, six_b) = ("2001:db8:1::/64", "2001:db8:2::/64");
        let mut bed = Bed {
            a: Gateway::new(1, &settings, policies(net_a, net_b, six_a, six_b)),
            b: Gateway::new(2, &settings, policies(net_b, net_a, six_b, six_a)),
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
        let suite = self.settings.suite;
        let key = |seed: u8| KeyMaterial::new(&vec![seed; suite.key_material_length()]);
        let (a, b) = (Spi(0xaaaa_0001), Spi(0xbbbb_0001));
        let net = |v4: &str, v6: &str| -> Vec<TrafficSelector> {
            vec![v4.parse().unwrap(), v6.parse().unwrap()]
        };
        let net_a = net("10.1.0.0/16", "2001:db8:1::/64");
        let net_b = net("10.2.0.0/16", "2001:db8:2::/64");
        let (end_a, end_b) = match self.settings.outer_v6 {
            true => (IpAddr::from(OUTSIDE6_A), IpAddr::from(OUTSIDE6_B)),
            false => (IpAddr::from(OUTSIDE_A), IpAddr::from(OUTSIDE_B)),
        };
        let child = ChildSa {
            id: sa_id(1),
            mode: Mode::Tunnel,
            inbound_spi: a,
            outbound_spi: b,
            suite,
            esn: self.settings.esn,
            inbound_key: key(1),
            outbound_key: key(2),
            local: end_a,
            remote: end_b,
            encapsulation: self.settings.encapsulation,
            local_ts: net_a.clone(),
            remote_ts: net_b.clone(),
            replay_window: 1024,
            options: self.settings.options,
        };
        if side_a {
            return child;
        }
        ChildSa {
            inbound_spi: b,
            outbound_spi: a,
            inbound_key: key(2),
            outbound_key: key(1),
            local: end_b,
            remote: end_a,
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
            let engine = self.settings.engines[usize::from(!side_a)];
            let inbound = InboundSa::new(&child, Arc::clone(&cell), floor, 0, engine).unwrap();
            let outbound = OutboundSa::new(&child, Arc::clone(&cell), 0, engine).unwrap();
            gateway.inbound = Arc::clone(&inbound.counters);
            gateway.outbound = Arc::clone(&outbound.counters);
            gateway.send(Command::InstallInbound(Box::new(inbound)));
            gateway.send(Command::InstallOutbound(Box::new(outbound)));
            gateway.cell = cell;
        }
    }

    /// Other engines for what is installed from now on.
    pub fn set_engines(&mut self, engines: [Engine; 2]) {
        self.settings.engines = engines;
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
        if frame[12..14] != [0x08, 0x06] && !is_discovery(&frame) {
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

/// Whether the frame is neighbour discovery (RFC 4861).
pub fn is_discovery(frame: &[u8]) -> bool {
    frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && (133..=137).contains(&frame[54])
}

/// A frame with a neighbour solicitation or advertisement: type and flags, then an option of the
/// type that goes with it, unless there is no Ethernet address to tell.
pub fn discovery(
    (kind, flags): (u8, u8),
    (from, to): ([u8; 16], [u8; 16]),
    target: [u8; 16],
    mac: Option<MacAddress>,
) -> Vec<u8> {
    let mut body = vec![flags, 0, 0, 0];
    body.extend_from_slice(&target);
    if let Some(mac) = mac {
        body.extend_from_slice(&[kind - 134, 1]);
        body.extend_from_slice(&mac);
    }
    let message = etherparse::Icmpv6Type::Unknown {
        type_u8: kind,
        code_u8: 0,
        bytes5to8: [flags, 0, 0, 0],
    };
    let mut packet = Vec::new();
    PacketBuilder::ipv6(from, to, 255)
        .icmpv6(message)
        .write(&mut packet, &body[4..])
        .unwrap();
    let group = match to[0] {
        0xff => [0x33, 0x33, to[12], to[13], to[14], to[15]],
        _ => [2, 0, 0, 0, 1, 1],
    };
    frame(group, mac.unwrap_or([2, 0, 0, 0, 9, 9]), &packet)
}

/// A neighbour advertisement, sent to a gateway's inside.
fn advertisement(target: [u8; 16], to: [u8; 16], mac: MacAddress, flags: u8) -> Vec<u8> {
    let mut frame = discovery((136, flags), (target, to), target, Some(mac));
    frame[..6].copy_from_slice(&[2, 0, 0, 0, to[5], 1]);
    frame
}

/// An Ethernet frame around an IP packet.
pub fn frame(destination: MacAddress, source: MacAddress, packet: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header {
        destination,
        source,
        ether_type: match packet.first().map(|first| first >> 4) {
            Some(6) => EtherType::IPV6,
            _ => EtherType::IPV4,
        },
    };
    [&header.to_bytes()[..], packet].concat()
}

pub fn policy(local: &str, remote: &str, action: Action) -> Policy {
    Policy {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        action,
    }
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

/// A UDP packet over IPv6.
pub fn udp6(from: [u8; 16], to: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(from, to, 64)
        .udp(4000, 5000)
        .write(&mut packet, payload)
        .unwrap();
    packet
}

/// An echo request over IPv6.
pub fn echo6(from: [u8; 16], to: [u8; 16]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(from, to, 64)
        .icmpv6_echo_request(7, 8)
        .write(&mut packet, b"ping")
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
    if packet[0] >> 4 == 6 {
        later[7] -= hops;
        return later;
    }
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

/// A packet in parts of at most `size` octets of payload.
pub fn parts(packet: &[u8], size: usize, identification: u32) -> Vec<Vec<u8>> {
    let v6 = packet[0] >> 4 == 6;
    let (header, body) = packet.split_at(if v6 { 40 } else { 20 });
    let count = body.len().div_ceil(size);
    let cut = |(index, part): (usize, &[u8])| {
        let (position, more) = ((index * size) as u16, index + 1 < count);
        let mut fragment = header.to_vec();
        if v6 {
            let field = (position | u16::from(more)).to_be_bytes();
            fragment.extend_from_slice(&[header[6], 0, field[0], field[1]]);
            fragment.extend_from_slice(&identification.to_be_bytes());
            fragment[6] = 44;
            let payload = (part.len() + 8) as u16;
            fragment[4..6].copy_from_slice(&payload.to_be_bytes());
            fragment.extend_from_slice(part);
            return fragment;
        }
        fragment.extend_from_slice(part);
        let total = fragment.len() as u16;
        fragment[2..4].copy_from_slice(&total.to_be_bytes());
        fragment[4..6].copy_from_slice(&identification.to_be_bytes()[2..]);
        let field = ((position / 8) | (u16::from(more) << 13)).to_be_bytes();
        fragment[6..8].copy_from_slice(&field);
        hops_later(&fragment, 0)
    };
    body.chunks(size).enumerate().map(cut).collect()
}
