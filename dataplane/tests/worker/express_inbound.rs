//! The express lane inbound changes nothing but what packets cost: two workers, one with the lane and
//! one without, get the same frames, commands and times, and must do the same. Only the order between
//! flows is free.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use etherparse::PacketBuilder;
use hitless_dataplane::aead::{Engine, EspKey};
use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::{Command, Event};
use hitless_dataplane::counters::SaCounters;
use hitless_dataplane::esp;
use hitless_dataplane::fib::{Fib, Route};
use hitless_dataplane::neighbour::News;
use hitless_dataplane::port::MacAddress;
use hitless_dataplane::port::memory::{self, MemoryPort};
use hitless_dataplane::replay::AntiReplay;
use hitless_dataplane::sad::{InboundSa, OutboundSa};
use hitless_dataplane::verdict::DropReason;
use hitless_dataplane::worker::{
    CheckpointSettings, Interface, Leadership, Worker, WorkerHandle, WorkerSettings, worker,
};
use hitless_sa::{
    ChildSa, EspSuite, Instant, KeyMaterial, Lease, Mode, MssClamp, SaOptions, SequenceNumber, Spi,
    UdpEncapsulation,
};
use proptest::prelude::*;

use crate::bed::{
    self, HOST_A, HOST6_A, INSIDE, INSIDE_A, INSIDE6_A, OUTSIDE, OUTSIDE_A, OUTSIDE_B, OUTSIDE6_A,
    OUTSIDE6_B, PLENTY, sa_id,
};
use crate::twins::{self, Twins};

const SAS: usize = 9;
const MTU: usize = 1000;
const OWN: [MacAddress; 3] = [[2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 1, 3]];
/// A second port of the protected side, and the host there.
const BESIDE: usize = 2;
const HOST_BESIDE: [u8; 4] = [10, 1, 128, 5];
const PEER: MacAddress = [2, 0, 0, 0, 2, 2];
const NAT: UdpEncapsulation = UdpEncapsulation {
    local_port: 4500,
    remote_port: 4500,
};
/// The high water of the SA that has one which tests reach.
const LOW: u64 = 12;
/// The last number before the high half changes, but for a few.
const BEFORE_WRAP: u64 = 0xffff_fff0;

/// The SA in a slot: each another kind.
fn child(slot: usize) -> ChildSa {
    let suites = [
        EspSuite::Aes128Gcm16,
        EspSuite::Aes256Gcm16,
        EspSuite::ChaCha20Poly1305,
        EspSuite::Aes128Gcm16,
        EspSuite::Aes128Gcm16,
        EspSuite::Aes256CbcHmacSha256,
        EspSuite::Aes192Gcm16,
        EspSuite::Aes128Gcm16ImplicitIv,
        EspSuite::Aes128Gmac,
    ];
    let suite = suites[slot];
    let v6 = slot == 2;
    let any = || {
        vec![
            "10.2.0.0/16".parse().unwrap(),
            "2001:db8:2::/64".parse().unwrap(),
        ]
    };
    ChildSa {
        id: sa_id(slot as u32 + 1),
        mode: if slot == 4 {
            Mode::Transport
        } else {
            Mode::Tunnel
        },
        inbound_spi: Spi(0xaaaa_0000 + slot as u32),
        outbound_spi: Spi(0xbbbb_0000 + slot as u32),
        suite,
        esn: slot == 1 || slot == 8,
        inbound_key: KeyMaterial::new(&vec![slot as u8 + 1; suite.key_material_length()]),
        outbound_key: KeyMaterial::new(&vec![99; suite.key_material_length()]),
        local: if v6 {
            OUTSIDE6_A.into()
        } else {
            OUTSIDE_A.into()
        },
        remote: if v6 {
            OUTSIDE6_B.into()
        } else {
            OUTSIDE_B.into()
        },
        encapsulation: (slot == 1 || slot == 3).then_some(NAT),
        local_ts: vec![
            "10.1.0.0/16".parse().unwrap(),
            "2001:db8:1::/64".parse().unwrap(),
        ],
        remote_ts: match slot {
            3 => vec!["10.2.0.0/16[udp/4000]".parse().unwrap()],
            _ => any(),
        },
        replay_window: [64, 64, 128, 64, 64, 1024, 64, 0, 64][slot],
        options: SaOptions {
            copy_dscp_in: slot == 5,
            mss: MssClamp::To(600),
            ..SaOptions::default()
        },
    }
}

/// A worker with the far ends of its cables.
struct Twin {
    worker: Worker,
    handle: WorkerHandle,
    leadership: Arc<Leadership>,
    host: MemoryPort,
    host_beside: MemoryPort,
    wire: MemoryPort,
    cells: Vec<Arc<Cell>>,
    counters: Vec<Arc<SaCounters>>,
    /// What came out, by port and flow, in order.
    out: BTreeMap<(bool, Vec<u8>), Vec<Vec<u8>>>,
    told: Vec<String>,
}

impl Twin {
    fn new(lane: bool) -> Twin {
        let (inside, host) = memory::link(256, MTU);
        let (beside, host_beside) = memory::link(256, MTU);
        let (outside, wire) = memory::link(256, 1600);
        let interface = |port: usize, v4: [u8; 4], six: [u8; 16]| Interface {
            mac: OWN[port],
            addresses: vec![(IpAddr::from(v4), 16), (IpAddr::from(six), 64)],
            mtu: usize::MAX,
            protected: port != OUTSIDE,
        };
        let settings = WorkerSettings {
            id: 0,
            interfaces: vec![
                interface(INSIDE, INSIDE_A, INSIDE6_A),
                interface(OUTSIDE, OUTSIDE_A, OUTSIDE6_A),
                interface(BESIDE, [10, 1, 128, 1], bed::v6(3, 1)),
            ],
            pool_frames: 1024,
            pool_runs: 0,
            checkpoint: CheckpointSettings {
                packets: 20,
                interval: Duration::from_millis(50),
            },
            sa_capacity: SAS,
        };
        let leadership = Leadership::new(true);
        let ports: Vec<Box<dyn hitless_dataplane::port::Port>> =
            vec![Box::new(inside), Box::new(outside), Box::new(beside)];
        let (mut worker, handle) = worker(settings, ports, Arc::clone(&leadership)).unwrap();
        worker.set_express(lane);
        let mut twin = Twin {
            worker,
            handle,
            leadership,
            host,
            host_beside,
            wire,
            cells: Vec::new(),
            counters: Vec::new(),
            out: BTreeMap::new(),
            told: Vec::new(),
        };
        for slot in 0..SAS {
            twin.install(slot);
        }
        twin.routes();
        twin.neighbour(5);
        twin
    }

    fn send(&mut self, command: Command) {
        assert!(self.handle.send(command).is_ok());
    }

    fn install(&mut self, slot: usize) {
        let child = child(slot);
        let high_water = if slot == 6 { LOW } else { 1 << 40 };
        let lease = Lease {
            high_water: SequenceNumber(high_water),
            ..PLENTY
        };
        let cell = Arc::new(Cell::new(SequenceNumber(1), lease));
        let floor = SequenceNumber(if slot == 1 { BEFORE_WRAP } else { 0 });
        let mut window = AntiReplay::new(child.replay_window, floor);
        if slot == 6 || slot == 8 {
            window = window.share();
        }
        let (number, engine) = (slot as u32, Engine::default());
        let inbound =
            InboundSa::with_window(&child, Arc::clone(&cell), window, number, engine).unwrap();
        let outbound = OutboundSa::new(&child, Arc::clone(&cell), number, engine).unwrap();
        self.counters.push(Arc::clone(&inbound.counters));
        self.cells.push(cell);
        self.send(Command::InstallInbound(Box::new(inbound)));
        self.send(Command::InstallOutbound(Box::new(outbound)));
    }

    fn routes(&mut self) {
        let route = |address: IpAddr, length, port| Route {
            prefix: (address, length),
            port,
            next_hop: None,
        };
        let fib = Fib::new(&[
            route([10, 1, 0, 0].into(), 16, INSIDE),
            route([10, 1, 128, 0].into(), 24, BESIDE),
            route([192, 0, 2, 0].into(), 24, OUTSIDE),
            route(HOST6_A.into(), 64, INSIDE),
        ]);
        self.send(Command::Routes(Arc::new(fib)));
    }

    /// The host's Ethernet address.
    fn neighbour(&mut self, last: u8) {
        for address in [IpAddr::from(HOST_A), HOST6_A.into()] {
            self.send(Command::Neighbour(News::certain(
                INSIDE,
                address,
                [2, 0, 0, 0, 1, last],
            )));
        }
        self.send(Command::Neighbour(News::certain(
            BESIDE,
            HOST_BESIDE.into(),
            [2, 0, 0, 0, 3, last],
        )));
    }

    fn turn(&mut self, now: Instant) {
        while self.worker.turn(now) > 0 {}
        for (protected, frames) in [
            (true, bed::drain(&mut self.host)),
            (true, bed::drain(&mut self.host_beside)),
            (false, bed::drain(&mut self.wire)),
        ] {
            for frame in frames {
                let flow = match frame[12..14] {
                    [8, 0] => frame[26..34].to_vec(),
                    [0x86, 0xdd] => frame[22..54].to_vec(),
                    _ => Vec::new(),
                };
                self.out.entry((protected, flow)).or_default().push(frame);
            }
        }
        while let Some(event) = self.handle.poll_event() {
            self.told.extend(match event {
                Event::PeerMoved { sa, remote } => Some(format!("{sa} moved to {remote}")),
                Event::HighWater { sa, wanted } => Some(format!("{sa} wants {}", wanted.0)),
                Event::BelowFloor { sa } => Some(format!("{sa} below floor")),
                Event::UnknownSpi { spi, source } => Some(format!("{spi:?} from {source}")),
                _ => None,
            });
        }
    }

    /// All that can be seen of it.
    fn account(&mut self) -> Vec<String> {
        let mut lines = std::mem::take(&mut self.told);
        lines.sort();
        let counters = &self.handle.counters;
        lines.push(format!("{:?}", drops(counters.drops())));
        lines.push(format!(
            "{:?} {:?}",
            counters.esp(),
            self.worker.frame_account()
        ));
        for (cell, sa) in self.cells.iter().zip(&self.counters) {
            lines.push(format!(
                "{} packets, {} octets, top {}, {} lost, {:?}, authentic {}",
                sa.packets(),
                sa.bytes(),
                sa.window_top().0,
                sa.window_lost(),
                drops(sa.drops()),
                cell.inbound_top().0,
            ));
        }
        let mut checkpoints = Vec::new();
        self.handle.checkpoints.drain(|slot, it| {
            checkpoints.push(format!("{slot} {it:?}"));
        });
        checkpoints.sort();
        lines.extend(checkpoints);
        lines
    }
}

/// What was dropped and why. A packet whose number the window has left behind, or seen, is refused as
/// a replay if that was before its burst, else perhaps for its ICV or for congestion, neither of which
/// marks it: what was before depends on the lane.
fn drops(counts: impl Iterator<Item = (DropReason, u64)>) -> BTreeMap<&'static str, u64> {
    let mut drops = BTreeMap::new();
    for (reason, count) in counts.filter(|(_, count)| *count > 0) {
        let name = match reason {
            DropReason::Replay | DropReason::Integrity | DropReason::Congestion => "unmarked",
            _ => reason.name(),
        };
        *drops.entry(name).or_default() += count;
    }
    drops
}

/// What is inside.
#[derive(Clone, Copy, Debug)]
enum Content {
    Udp,
    Udp6,
    Tcp,
    /// It leaves by another port.
    Beside,
    /// It opens a connection.
    TcpOpening,
    OtherProtocol,
    Fragment,
    Options,
    Extension6,
    /// IPv6 between addresses that stand for IPv4's.
    Mapped6,
    BadChecksum,
    LastHop,
    FromElsewhere,
    ToUs,
    ToNobody,
    ToUnknownNeighbour,
    Echo,
    Dummy,
    Nonsense,
    BadPadding,
}

/// What happened to a packet on its way.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Nothing,
    PaddedFrame,
    BadIcv,
    OtherSpi,
    CutShort,
    OtherMac,
    OuterFragment,
    OtherPort,
}

#[derive(Clone, Debug)]
enum Step {
    Packet {
        slot: usize,
        ahead: i64,
        content: Content,
        octets: usize,
        tos: u8,
        tfc: usize,
        fate: Fate,
    },
    Turn,
    Wait(u16),
    Raise,
    Neighbour(u8),
    Routes,
    Reinstall(usize),
    Remove(usize),
    Endpoint(u8),
    Lead(bool),
}

fn content() -> impl Strategy<Value = Content> {
    use Content::*;
    let odd = [
        TcpOpening,
        OtherProtocol,
        Fragment,
        Options,
        Extension6,
        Mapped6,
        BadChecksum,
        LastHop,
        FromElsewhere,
        ToUs,
        ToNobody,
        ToUnknownNeighbour,
        Echo,
        Dummy,
        Nonsense,
        BadPadding,
    ];
    prop_oneof![
        12 => Just(Udp),
        4 => Just(Udp6),
        4 => Just(Tcp),
        3 => Just(Beside),
        3 => prop::sample::select(odd.to_vec()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    use Fate::*;
    let fates = [
        PaddedFrame,
        BadIcv,
        OtherSpi,
        CutShort,
        OtherMac,
        OuterFragment,
        OtherPort,
    ];
    let fate = prop_oneof![12 => Just(Nothing), 1 => prop::sample::select(fates.to_vec())];
    let ahead = prop_oneof![14 => Just(1i64), 1 => -3..3i64, 1 => -200..300i64];
    let slot = prop_oneof![3 => Just(0usize), 4 => 0..SAS];
    let tos = prop_oneof![4 => Just(0u8), 1 => 0..=3u8, 1 => any::<u8>()];
    let octets = prop_oneof![3 => 0..200usize, 1 => 0..1300usize];
    let tfc = prop_oneof![5 => Just(0usize), 1 => 1..80usize];
    let packet = (slot, ahead, content(), octets, tos, tfc, fate).prop_map(
        |(slot, ahead, content, octets, tos, tfc, fate)| Step::Packet {
            slot,
            ahead,
            content,
            octets,
            tos,
            tfc,
            fate,
        },
    );
    prop_oneof![
        60 => packet,
        4 => Just(Step::Turn),
        1 => (1..2000u16).prop_map(Step::Wait),
        1 => Just(Step::Raise),
        1 => (5..8u8).prop_map(Step::Neighbour),
        1 => Just(Step::Routes),
        1 => (0..SAS).prop_map(Step::Reinstall),
        1 => (0..SAS).prop_map(Step::Remove),
        1 => (2..4u8).prop_map(Step::Endpoint),
        1 => prop::bool::weighted(0.8).prop_map(Step::Lead),
    ]
}

/// The inner packet and its next header. Each SA has flows of its own.
fn inner(slot: usize, content: Content, octets: usize) -> (u8, Vec<u8>) {
    let host = [10, 2, slot as u8, 7];
    let data = vec![0x5a; octets];
    let to = |to: [u8; 4]| (4, bed::udp(host, to, &data));
    let (_, plain) = to(HOST_A);
    let mut built = Vec::new();
    let v4 = || PacketBuilder::ipv4(host, HOST_A, 64);
    match content {
        Content::Udp => (4, plain),
        Content::Beside => to(HOST_BESIDE),
        Content::Udp6 => (41, bed::udp6(bed::v6(2, slot as u8 + 1), HOST6_A, &data)),
        Content::Tcp | Content::TcpOpening => {
            let tcp = v4().tcp(4000, 80, 1, 1000);
            if let Content::TcpOpening = content {
                return (4, twins::opening(tcp, &data));
            }
            tcp.ack(7).write(&mut built, &data).unwrap();
            (4, built)
        }
        Content::OtherProtocol => (4, bed::raw(host, HOST_A, 47, &data)),
        Content::Fragment => (4, twins::first_fragment(plain)),
        Content::Options => (4, twins::with_options(plain)),
        Content::Extension6 => {
            let mut packet = bed::udp6(bed::v6(2, slot as u8 + 1), HOST6_A, &data);
            packet[6] = 60;
            packet.splice(40..40, [17, 0, 1, 4, 0, 0, 0, 0]);
            let length = packet.len() as u16 - 40;
            packet[4..6].copy_from_slice(&length.to_be_bytes());
            (41, packet)
        }
        Content::Mapped6 => {
            let mapped = |v4: [u8; 4]| std::net::Ipv4Addr::from(v4).to_ipv6_mapped().octets();
            (41, bed::udp6(mapped(host), mapped(HOST_A), &data))
        }
        Content::BadChecksum => (4, twins::with_bad_checksum(plain)),
        Content::LastHop => (4, bed::hops_later(&plain, 63)),
        Content::FromElsewhere => (4, bed::udp([10, 77, slot as u8, 7], HOST_A, &data)),
        Content::ToUs => to(INSIDE_A),
        Content::ToNobody => to([172, 16, 0, 1]),
        Content::ToUnknownNeighbour => to([10, 1, 0, 200]),
        Content::Echo => (4, bed::echo(host, INSIDE_A)),
        Content::Dummy => (59, data),
        Content::Nonsense => (4, data),
        Content::BadPadding => (4, plain),
    }
}

/// A frame with ESP, from outside.
fn frame(slot: usize, mut sealed: Vec<u8>, tos: u8, fate: Fate) -> Vec<u8> {
    let child = child(slot);
    match fate {
        Fate::BadIcv => *sealed.last_mut().unwrap() ^= 1,
        Fate::OtherSpi => sealed[0] ^= 0x40,
        Fate::CutShort => sealed.truncate(sealed.len().min(30)),
        _ => {}
    }
    if child.encapsulation.is_some() {
        let port: u16 = if matches!(fate, Fate::OtherPort) {
            4501
        } else {
            4500
        };
        let length = 8 + sealed.len() as u16;
        let header = [port, 4500, length, 0].map(u16::to_be_bytes).concat();
        sealed.splice(0..0, header);
    }
    let protocol = if child.encapsulation.is_some() {
        17
    } else {
        50
    };
    let mut packet = match child.local {
        IpAddr::V4(_) => bed::raw(OUTSIDE_B, OUTSIDE_A, protocol, &sealed),
        IpAddr::V6(_) => {
            let mut packet = Vec::new();
            PacketBuilder::ipv6(OUTSIDE6_B, OUTSIDE6_A, 64)
                .write(&mut packet, etherparse::IpNumber(protocol), &sealed)
                .unwrap();
            packet
        }
    };
    match packet[0] >> 4 {
        4 => {
            packet[1] = tos;
            packet = match fate {
                Fate::OuterFragment => twins::first_fragment(packet),
                _ => bed::hops_later(&packet, 0),
            };
        }
        _ => {
            packet[0] = 0x60 | tos >> 4;
            packet[1] = tos << 4;
        }
    }
    let mac = if matches!(fate, Fate::OtherMac) {
        PEER
    } else {
        OWN[OUTSIDE]
    };
    let mut frame = bed::frame(mac, PEER, &packet);
    if matches!(fate, Fate::PaddedFrame) {
        frame.extend([0; 9]);
    }
    frame
}

/// The peer of all SAs, and both workers.
struct Pair {
    twins: Twins<Twin>,
    keys: Vec<EspKey>,
    next: [u64; SAS],
    now: Instant,
    waiting: usize,
}

impl Pair {
    fn new() -> Pair {
        let key = |slot| {
            let child = child(slot);
            EspKey::new(Engine::AwsLc, child.suite, &child.inbound_key).unwrap()
        };
        let mut next = [1; SAS];
        next[1] = BEFORE_WRAP + 1;
        Pair {
            twins: Twins::new(Twin::new),
            keys: (0..SAS).map(key).collect(),
            next,
            now: Instant(1_000_000_000),
            waiting: 0,
        }
    }

    fn both(&mut self, act: impl Fn(&mut Twin)) {
        self.twins.both(act);
    }

    fn turn(&mut self) {
        self.now += Duration::from_millis(1);
        self.waiting = 0;
        let now = self.now;
        self.both(|twin| twin.turn(now));
    }

    fn packet(&mut self, slot: usize, ahead: i64, inside: (u8, Vec<u8>)) -> Option<Vec<u8>> {
        let number = self.next[slot].saturating_add_signed(ahead - 1).max(1);
        self.next[slot] = self.next[slot].max(number + 1);
        let (child, (next_header, payload)) = (child(slot), inside);
        let number = SequenceNumber(if child.esn {
            number
        } else {
            number & 0xffff_ffff
        });
        let (key, spi) = (&self.keys[slot], child.inbound_spi);
        esp::seal_datagram(key, spi, number, child.esn, next_header, &payload).ok()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Packet {
                slot,
                ahead,
                content,
                octets,
                tos,
                tfc,
                fate,
            } => {
                let mut inside = inner(slot, content, octets);
                if slot == 4 {
                    inside = (17, inside.1.split_off(inside.1.len().min(20)));
                }
                inside.1.extend(vec![0; tfc]);
                if let Some(sealed) = self.packet(slot, ahead, inside) {
                    let frame = frame(slot, sealed, tos, fate);
                    self.both(|twin| assert!(twin.wire.push_frame(&frame)));
                    self.waiting += 1;
                }
                if self.waiting >= 100 {
                    self.turn();
                }
            }
            Step::Turn => self.turn(),
            Step::Wait(ms) => {
                self.now += Duration::from_millis(ms.into());
                self.turn();
            }
            Step::Raise => self.both(|twin| {
                let cell = &twin.cells[6];
                let high_water = SequenceNumber(cell.high_water().0 + 10);
                cell.raise(Lease {
                    high_water,
                    ..PLENTY
                });
            }),
            Step::Neighbour(last) => self.both(|twin| twin.neighbour(last)),
            Step::Routes => self.both(Twin::routes),
            Step::Reinstall(slot) => self.both(|twin| twin.install(slot)),
            Step::Remove(slot) => self.both(|twin| {
                twin.send(Command::Remove(sa_id(slot as u32 + 1)));
            }),
            Step::Endpoint(last) => self.both(|twin| {
                let remote = SocketAddr::from(([192, 0, 2, last], 4500));
                twin.send(Command::Update {
                    sa: sa_id(2),
                    local: OUTSIDE_A.into(),
                    remote: remote.ip(),
                    encapsulation: Some(NAT),
                    keepalive: None,
                });
            }),
            Step::Lead(on) => self.lead(on),
        }
    }

    /// In another term neighbours are asked for again, and the lane looks them up for packets too
    /// that are dropped without it: none waits as the term changes.
    fn lead(&mut self, on: bool) {
        self.turn();
        self.both(|twin| twin.leadership.set(on));
        self.turn();
        self.both(|twin| twin.neighbour(1));
    }

    fn check(&mut self) {
        self.lead(true);
        // Checkpoints are due after so many packets, which the lane counts together, and in the end
        // after so long. One more of each SA makes both tell of what was authentic but dropped since.
        self.both(|twin| twin.cells.iter().for_each(|cell| cell.raise(PLENTY)));
        self.turn();
        for slot in 0..SAS {
            let (content, fate) = (Content::Udp, Fate::Nothing);
            self.step(&Step::Packet {
                slot,
                ahead: 1,
                content,
                octets: 9,
                tos: 0,
                tfc: 0,
                fate,
            });
        }
        for _ in 0..2 {
            self.turn();
            self.now += Duration::from_millis(100);
        }
        self.turn();
        self.twins.assert_alike(Twin::account, &"all");
        self.twins.assert_alike(|twin| twin.out.clone(), &"all");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn with_and_without_the_lane_inbound_packets_fare_alike(
        steps in prop::collection::vec(step(), 1..250),
    ) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step);
        }
        pair.check();
    }
}

#[test]
fn long_runs_of_one_sa_fare_alike_across_window_high_half_and_checkpoints() {
    let mut pair = Pair::new();
    for number in 0..3_000 {
        let slot = [0, 1, 8, 2][number / 40 % 4];
        let inside = inner(slot, Content::Udp, number % 300);
        let sealed = pair.packet(slot, 1, inside).unwrap();
        let frame = frame(slot, sealed, 0, Fate::Nothing);
        pair.both(|twin| assert!(twin.wire.push_frame(&frame)));
        if number % 64 == 63 {
            pair.turn();
        }
    }
    pair.check();
    let delivered: usize = pair.twins.with_lane().out.values().map(Vec::len).sum();
    // And one in the end from each SA in tunnel mode.
    assert_eq!(delivered, 3_000 + SAS - 1);
}

#[test]
fn rfc4301_section_5_2_ipv6_between_mapped_addresses_does_not_pass_selectors_for_ipv4() {
    let mut pair = Pair::new();
    for content in [Content::Udp, Content::Mapped6, Content::Udp] {
        let sealed = pair.packet(0, 1, inner(0, content, 9)).unwrap();
        let frame = frame(0, sealed, 0, Fate::Nothing);
        pair.both(|twin| assert!(twin.wire.push_frame(&frame)));
    }
    pair.check();
    let mut lane = pair.twins.with_lane().out.values().flatten();
    assert!(lane.all(|frame| frame[12..15] == [8, 0, 0x45]));
    let refused = pair.twins.with_lane().counters[0].drops();
    assert_eq!(drops(refused).get("selector_mismatch"), Some(&1));
}
