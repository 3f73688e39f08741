//! The express lane changes nothing but what packets cost: two pairs of gateways get the same traffic and
//! the same commands, one pair with the lane and one without, and must do the same. Only two things may
//! differ: the order of packets of different flows, and with it which of them has which number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use etherparse::PacketBuilder;
use hitless_dataplane::aead::Engine;
use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::Command;
use hitless_dataplane::counters::{EspTraffic, SaCounters};
use hitless_dataplane::fib::{Fib, Route};
use hitless_dataplane::sad::{InboundSa, OutboundSa};
use hitless_dataplane::spd::{Action, Policy, PolicyTraffic, Spd};
use hitless_dataplane::verdict::DropReason;
use hitless_sa::{
    ChildSa, DontFragment, Dscp, EspSuite, KeyMaterial, Lease, MssClamp, SequenceNumber, Spi,
    TfcPadding, UdpEncapsulation,
};
use proptest::prelude::*;

use crate::bed::*;
use crate::twins::{self, Twins};

/// SAs between A and B: the first for most traffic, each of the others for one UDP port.
const SAS: u32 = 3;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// Hosts of both sides send all these at once.
    Send(Vec<Sent>),
    /// Time goes by.
    Wait(u64),
    /// An SA gets new keys and numbers, of which so many may be sent.
    Install { sa: u32, grant: u64, esn: bool },
    /// An SA is removed.
    Remove(u32),
    /// More may be sent and delivered.
    Raise(u32, u64),
    /// An SA's member steps down.
    Freeze(u32),
    /// The SPD says now that a port's traffic goes by this SA, or is not protected.
    Policies(u32),
    /// The way to the peer disappears, or is there again.
    Route(bool),
    /// The peer's Ethernet address changes as it says itself.
    Neighbour(u8),
    /// Somebody on the way says that packets of an SA were too big.
    Narrow(u32, u16),
    /// A leads, or not.
    Lead(bool),
}

/// A packet of a host.
#[derive(Clone, Debug)]
struct Sent {
    from_a: bool,
    host: u8,
    port: u16,
    tos: u8,
    size: usize,
    shape: Shape,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Udp,
    Tcp,
    Syn,
    V6,
    Echo,
    Fragment,
    Options,
    LastHop,
    BadChecksum,
    Padded,
    MayFragment,
    Discarded,
    InClear,
    NoSa,
    Gateway,
    NatPort,
    NotOurs,
}

fn shape() -> impl Strategy<Value = Shape> {
    use Shape::*;
    prop_oneof![
        12 => Just(Udp),
        6 => Just(Tcp),
        5 => Just(V6),
        1 => prop::sample::select(vec![
            Syn, Echo, Fragment, Options, LastHop, BadChecksum, Padded, MayFragment, Discarded,
            InClear, NoSa, Gateway, NatPort, NotOurs,
        ]),
    ]
}

fn sent() -> impl Strategy<Value = Sent> {
    let size = prop_oneof![8 => 0usize..200, 1 => 1300usize..1472];
    let of = (
        any::<bool>(),
        5u8..9,
        0u16..4,
        prop_oneof![4 => Just(0u8), 1 => any::<u8>()],
    );
    (of, size, shape()).prop_map(|((from_a, host, port, tos), size, shape)| Sent {
        from_a,
        host,
        port: 5000 + port,
        tos,
        size,
        shape,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let sa = 0..SAS;
    prop_oneof![
        30 => prop::collection::vec(sent(), 1..70).prop_map(Step::Send),
        4 => prop_oneof![0u64..300, 900u64..1100, 29_000u64..31_000].prop_map(Step::Wait),
        3 => (sa.clone(), prop_oneof![1u64..40, Just(1 << 40)], any::<bool>())
            .prop_map(|(sa, grant, esn)| Step::Install { sa, grant, esn }),
        1 => sa.clone().prop_map(Step::Remove),
        2 => (sa.clone(), 1u64..1000).prop_map(|(sa, to)| Step::Raise(sa, to)),
        1 => sa.clone().prop_map(Step::Freeze),
        2 => (0..=SAS).prop_map(Step::Policies),
        1 => any::<bool>().prop_map(Step::Route),
        1 => (2u8..4).prop_map(Step::Neighbour),
        1 => (sa, 576u16..1500).prop_map(|(sa, mtu)| Step::Narrow(sa, mtu)),
        1 => any::<bool>().prop_map(Step::Lead),
    ]
}

impl Sent {
    /// The frame as the host sends it, to a gateway's inside.
    fn frame(&self, gateway: &Gateway) -> Vec<u8> {
        let (net, far) = if self.from_a { (1, 2) } else { (2, 1) };
        let from = [10, net, 0, self.host];
        let to = match self.shape {
            Shape::Discarded => [203, 0, 113, 66],
            Shape::InClear => [203, 0, 113, 5],
            Shape::NoSa => [198, 51, 100, 7],
            Shape::Gateway => [10, net, 0, 1],
            _ => [10, far, 0, 5],
        };
        let payload = vec![self.host; self.size];
        let v4 = |hops| PacketBuilder::ipv4(from, to, hops);
        let mut packet = Vec::new();
        let mut write = |builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>| {
            builder.write(&mut packet, &payload).unwrap();
        };
        match self.shape {
            Shape::LastHop => write(v4(1).udp(4000, self.port)),
            Shape::NatPort => write(v4(9).udp(4000, 4500)),
            Shape::V6 => {
                write(PacketBuilder::ipv6(v6(net, self.host), v6(far, 5), 9).udp(4000, self.port))
            }
            Shape::Tcp => v4(9)
                .tcp(4000, 80, 1, 1)
                .ack(1)
                .write(&mut packet, &payload)
                .unwrap(),
            Shape::Syn => {
                let payload = &payload[..self.size.min(100)];
                packet = twins::opening(v4(9).tcp(4000, 80, 1, 1), payload);
            }
            Shape::Echo | Shape::Gateway => packet = echo(from, to),
            Shape::Options => {
                write(v4(9).udp(4000, self.port));
                packet = twins::with_options(packet);
            }
            _ => write(v4(9).udp(4000, self.port)),
        }
        if packet[0] >> 4 == 6 {
            packet[0] |= self.tos >> 4;
            packet[1] |= self.tos << 4;
        } else {
            packet[1] = self.tos;
            packet = hops_later(&packet, 0);
            packet = match self.shape {
                Shape::Fragment => twins::first_fragment(packet),
                Shape::MayFragment => twins::with_flags(packet, 0),
                Shape::BadChecksum => twins::with_bad_checksum(packet),
                _ => packet,
            };
        }
        let mac = match self.shape {
            Shape::NotOurs => [2, 7, 7, 7, 7, 7],
            _ => gateway.inside_mac,
        };
        let mut frame = frame(mac, gateway.host_mac, &packet);
        if let Shape::Padded = self.shape {
            frame.resize(frame.len().max(60) + 3, 0xee);
        }
        frame
    }
}

/// A pair of gateways, and what was installed in them.
struct Side {
    bed: Bed,
    settings: Settings,
    cells: BTreeMap<(bool, u32), Arc<Cell>>,
    counters: Vec<[Arc<SaCounters>; 2]>,
    spds: Vec<Arc<Spd>>,
    installed: u8,
}

/// What half an SA has counted: packets, octets, drops.
type Half = (u64, u64, Vec<(DropReason, u64)>);

/// All that can be seen of a pair, since it was last looked at.
#[derive(PartialEq, Debug)]
struct Seen {
    /// What the hosts behind A and B got, by flow, in its order. Errors are counted only.
    delivered: [BTreeMap<Vec<u8>, Vec<Vec<u8>>>; 2],
    /// What crossed the wire, without what differs: identification, number, ciphertext.
    wire: Vec<Vec<u8>>,
    /// The SPIs and numbers on the wire.
    numbers: Vec<Vec<u8>>,
    drops: [Vec<(DropReason, u64)>; 2],
    esp: [EspTraffic; 2],
    sas: Vec<[Half; 2]>,
    policies: Vec<Option<PolicyTraffic>>,
}

impl Side {
    fn new(settings: Settings, on: bool) -> Side {
        let mut bed = Bed::with(settings);
        // Who waits for a neighbour, and who is one too many, would depend on the order.
        bed.warm_up();
        for _ in 0..2 {
            bed.a.host_sends(&udp6(HOST6_A, HOST6_B, b"warm"));
            bed.b.host_sends(&udp6(HOST6_B, HOST6_A, b"warm"));
            bed.settle();
        }
        bed.a.worker.set_express(on);
        bed.b.worker.set_express(on);
        let mut side = Side {
            bed,
            settings,
            cells: BTreeMap::new(),
            counters: Vec::new(),
            spds: Vec::new(),
            installed: 0,
        };
        side.policies(1);
        for sa in 0..SAS {
            side.install(sa, 1 << 40, settings.esn);
        }
        side.bed.settle();
        side.seen();
        side
    }

    fn child(&self, side_a: bool, sa: u32, esn: bool) -> ChildSa {
        let own = self.bed.child(side_a);
        let seed = self.installed.wrapping_mul(8) + sa as u8 * 2;
        let key = |n: u8| {
            KeyMaterial::new(&vec![
                seed.wrapping_add(n);
                self.settings.suite.key_material_length()
            ])
        };
        let (receives, sends) = if side_a { (0, 1) } else { (1, 0) };
        ChildSa {
            id: sa_id(1 + sa),
            esn,
            inbound_spi: Spi(own.inbound_spi.0 + sa),
            outbound_spi: Spi(own.outbound_spi.0 + sa),
            inbound_key: key(receives),
            outbound_key: key(sends),
            ..own
        }
    }

    fn install(&mut self, sa: u32, grant: u64, esn: bool) {
        self.installed = self.installed.wrapping_add(1);
        for side_a in [true, false] {
            let child = self.child(side_a, sa, esn);
            // Without ESN the numbers end soon.
            let first = if esn { (1 << 32) - 20 } else { (1 << 32) - 300 };
            let lease = Lease {
                grant: SequenceNumber(first + grant),
                high_water: SequenceNumber(first + grant),
            };
            let cell = Arc::new(Cell::new(SequenceNumber(first), lease));
            let floor = SequenceNumber(first - 1);
            let engine = self.settings.engines[usize::from(!side_a)];
            let inbound = InboundSa::new(&child, Arc::clone(&cell), floor, sa, engine).unwrap();
            let outbound = OutboundSa::new(&child, Arc::clone(&cell), sa, engine).unwrap();
            self.counters.push([
                Arc::clone(&inbound.counters),
                Arc::clone(&outbound.counters),
            ]);
            let gateway = self.gateway(side_a);
            gateway.send(Command::Remove(child.id));
            gateway.send(Command::InstallInbound(Box::new(inbound)));
            gateway.send(Command::InstallOutbound(Box::new(outbound)));
            self.cells.insert((side_a, sa), cell);
        }
    }

    fn gateway(&mut self, side_a: bool) -> &mut Gateway {
        if side_a {
            &mut self.bed.a
        } else {
            &mut self.bed.b
        }
    }

    /// The SA for UDP port 5002; port 5003 has always the last one.
    fn policies(&mut self, sa: u32) {
        for side_a in [true, false] {
            let (own, far) = if side_a { (1, 2) } else { (2, 1) };
            let policy = |far: &str, port: &str, action| Policy {
                local: format!("10.{own}.0.0/16").parse().unwrap(),
                remote: format!("{far}{port}").parse().unwrap(),
                action,
            };
            let far4 = format!("10.{far}.0.0/16");
            let wanted = match sa {
                SAS => Action::Discard,
                sa => Action::Protect(Some(sa_id(1 + sa))),
            };
            let main = Action::Protect(Some(sa_id(1)));
            let spd = Arc::new(Spd::for_workers(
                vec![
                    policy("203.0.113.66", "", Action::Discard),
                    policy("203.0.113.0/24", "", Action::Bypass),
                    policy("198.51.100.0/24", "", Action::Protect(None)),
                    policy(&far4, "[udp/5002]", wanted),
                    policy(&far4, "[udp/5003]", Action::Protect(Some(sa_id(SAS)))),
                    policy(&far4, "", main),
                    Policy {
                        local: format!("2001:db8:{own}::/64").parse().unwrap(),
                        remote: format!("2001:db8:{far}::/64").parse().unwrap(),
                        action: main,
                    },
                ],
                3,
            ));
            self.gateway(side_a)
                .send(Command::Policies(Arc::clone(&spd)));
            self.spds.push(spd);
        }
    }

    fn route(&mut self, there: bool) {
        let route = |prefix: &str, bits, port| Route {
            prefix: (prefix.parse().unwrap(), bits),
            port,
            next_hop: None,
        };
        let mut routes = vec![
            route("10.1.0.0", 16, INSIDE),
            route("2001:db8:1::", 64, INSIDE),
            route("192.0.2.0", 24, OUTSIDE),
            route("2001:db8:f::", 64, OUTSIDE),
        ];
        if !there {
            routes.truncate(2);
        }
        let fib = Arc::new(Fib::new(&routes));
        self.bed.a.send(Command::Routes(fib));
    }

    /// What a router would say about a packet of an SA that A sent.
    fn narrow(&mut self, sa: u32, mtu: u16) {
        if self.settings.outer_v6 || self.settings.encapsulation.is_some() {
            return;
        }
        let spi = self.child(true, sa, true).outbound_spi.0;
        let quoted = raw(
            OUTSIDE_A,
            OUTSIDE_B,
            50,
            &[spi.to_be_bytes(), [0; 4]].concat(),
        );
        let mut message = vec![3, 4, 0, 0, 0, 0];
        message.extend(mtu.to_be_bytes());
        message.extend(quoted);
        let sum = hitless_dataplane::wire::checksum(0, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let packet = raw([192, 0, 2, 77], OUTSIDE_A, 1, &message);
        self.bed.a.wire_brings(&packet);
    }

    fn take(&mut self, step: &Step, order_counts: bool) {
        match step {
            Step::Send(packets) => {
                for sent in packets {
                    let mut sent = sent.clone();
                    if order_counts {
                        // Where it matters who comes first all are of one pair of hosts.
                        sent.host = 5;
                        if let Shape::V6 = sent.shape {
                            sent.shape = Shape::Udp;
                        }
                    }
                    let gateway = self.gateway(sent.from_a);
                    let frame = sent.frame(gateway);
                    gateway.host.push_frame(&frame);
                }
            }
            // The lane asks again for a stale neighbour also if there is no number then for the packet.
            Step::Wait(_) if order_counts => {}
            Step::Wait(ms) => self.bed.now += Duration::from_millis(*ms),
            Step::Install { sa, grant, esn } => self.install(*sa, *grant, *esn),
            Step::Remove(sa) => {
                self.bed.a.send(Command::Remove(sa_id(1 + sa)));
                self.bed.b.send(Command::Remove(sa_id(1 + sa)));
            }
            Step::Raise(sa, by) => {
                for cell in [true, false].map(|side| Arc::clone(&self.cells[&(side, *sa)])) {
                    let to = SequenceNumber(cell.limit().0 + by);
                    cell.raise(Lease {
                        grant: to,
                        high_water: to,
                    });
                }
            }
            Step::Freeze(sa) => {
                self.cells[&(true, *sa)].freeze();
            }
            Step::Policies(sa) => self.policies(*sa),
            Step::Route(there) => self.route(*there),
            Step::Neighbour(last) => {
                // B says so in a gratuitous ARP; its frames go on to come.
                let mac = [2, 0, 0, 0, 2, *last];
                let claim = arp(
                    2,
                    mac,
                    OUTSIDE_B,
                    &[[2, 0, 0, 0, 1, 2, 192, 0], [2, 1, 0, 0, 0, 0, 0, 0]].concat()[..10],
                );
                self.bed.a.wire.push_frame(&claim);
            }
            Step::Narrow(sa, mtu) => self.narrow(*sa, *mtu),
            Step::Lead(on) => self.bed.a.leadership.set(*on),
        }
        self.bed.settle();
    }

    fn seen(&mut self) -> Seen {
        let delivered = [&mut self.bed.a, &mut self.bed.b].map(|gateway| {
            let mut flows: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
            for frame in gateway.delivered.drain(..) {
                let (key, frame) = flow(frame);
                flows.entry(key).or_default().push(frame);
            }
            gateway.events();
            flows
        });
        let frames = std::mem::take(&mut self.bed.wire);
        let mut wire: Vec<_> = frames.iter().map(|frame| outer(frame)).collect();
        wire.sort();
        let mut numbers: Vec<_> = frames.iter().filter_map(|frame| number(frame)).collect();
        numbers.sort();
        let both = [&self.bed.a, &self.bed.b].map(|gateway| &gateway.handle.counters);
        let of = |counters: &SaCounters| {
            let drops = counters.drops().collect();
            (counters.packets(), counters.bytes(), drops)
        };
        Seen {
            delivered,
            wire,
            numbers,
            // The lane asks again for a neighbour that a packet without a number does not get to; who
            // does not lead drops the question. What SAs drop for this reason is compared below.
            drops: both.map(|counters| {
                let drops = counters.drops();
                drops
                    .filter(|(why, _)| *why != DropReason::NotActive)
                    .collect()
            }),
            // Two draws may stall where one did.
            esp: both.map(|counters| EspTraffic {
                lease_stalls: 0,
                ..counters.esp()
            }),
            sas: self.counters.iter().map(|[a, b]| [of(a), of(b)]).collect(),
            policies: self
                .spds
                .iter()
                .flat_map(|spd| (0..spd.policies().len()).map(|n| spd.traffic(n)))
                .collect(),
        }
    }
}

/// Which flow a frame to a host is of, and what of it must be the same.
fn flow(frame: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let v6 = frame[12] == 0x86;
    let (protocol, addresses, ports) = match v6 {
        true => (20, 22..54, 54..58),
        false => (23, 26..34, 34..38),
    };
    // The last part of a packet may be shorter.
    let ports = frame.get(ports).unwrap_or_default();
    // Errors are limited in rate: how many there are is the same, not about which packets.
    let error = ports.first().is_some_and(|kind| match v6 {
        false => frame[protocol] == 1 && (3..=12).contains(kind),
        true => frame[protocol] == 58 && (1..=4).contains(kind),
    });
    if error {
        return (vec![frame[protocol]], Vec::new());
    }
    let parts = [&frame[protocol..=protocol], &frame[addresses], ports];
    (parts.concat(), frame)
}

/// The headers of a frame on the wire, but for the identification and what depends on it.
fn outer(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let length = (frame.len() as u16).to_be_bytes();
    let end = match frame[12] {
        0x86 => 54,
        _ => {
            frame[18..20].fill(0);
            frame[24..26].fill(0);
            34
        }
    };
    frame.truncate(end);
    frame.extend(length);
    frame
}

/// SPI and number of a frame with ESP.
fn number(frame: &[u8]) -> Option<Vec<u8>> {
    let (protocol, start) = match frame[12] {
        0x86 => (frame[20], 54),
        _ => (frame[23], 34),
    };
    match protocol {
        50 => Some(frame.get(start..start + 8)?.to_vec()),
        17 => Some(frame.get(start + 8..start + 16)?.to_vec()),
        _ => None,
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let suites = vec![
        EspSuite::Aes128Gcm16,
        EspSuite::Aes256Gcm16,
        EspSuite::ChaCha20Poly1305,
        EspSuite::Aes128CbcHmacSha256,
        EspSuite::Aes256Gcm16ImplicitIv,
    ];
    let engines = vec![Engine::default(), Engine::AwsLc];
    (
        prop_oneof![3 => Just(EspSuite::Aes128Gcm16), 1 => prop::sample::select(suites)],
        prop::sample::select(engines),
        any::<[bool; 4]>(),
        (any::<[bool; 2]>(), 0u8..3, 0u8..64, 2u8.., 0u32..1 << 20),
    )
        .prop_map(|(suite, engine, [outer_v6, udp, odd, clamp], outer)| {
            let mut settings = Settings {
                suite,
                outer_v6,
                engines: [engine; 2],
                encapsulation: udp.then_some(UdpEncapsulation {
                    local_port: 4500,
                    remote_port: 4500,
                }),
                ..Settings::default()
            };
            let ([copy_dscp, copy_ecn], df, dscp, hop_limit, flow_label) = outer;
            settings.options.dscp = match copy_dscp {
                true => Dscp::Copy,
                false => Dscp::Fixed(dscp),
            };
            settings.options.copy_ecn = copy_ecn;
            settings.options.dont_fragment =
                [DontFragment::Copy, DontFragment::Set, DontFragment::Clear][usize::from(df)];
            settings.options.hop_limit = hop_limit;
            settings.options.flow_label = flow_label;
            settings.options.mss = if clamp {
                MssClamp::ToMtu
            } else {
                MssClamp::None
            };
            if odd && suite == EspSuite::Aes256Gcm16 {
                settings.options.padding = TfcPadding::To(100);
            }
            settings
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn with_the_lane_and_without_it_the_same_happens(
        settings in settings(), steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut sides = Twins::new(|on| Side::new(settings, on));
        // Where there are fewer numbers than packets, the order says who gets one.
        let mut scarce = BTreeSet::new();
        for step in &steps {
            match step {
                Step::Install { sa, grant, esn } if *grant < 1 << 32 || !esn => scarce.insert(*sa),
                Step::Install { sa, .. } => scarce.remove(sa),
                Step::Freeze(sa) => scarce.insert(*sa),
                _ => false,
            };
            sides.both(|side| side.take(step, !scarce.is_empty()));
            sides.assert_alike(Side::seen, step);
        }
    }
}

#[test]
fn known_flows_take_the_lane_in_both_directions() {
    // Else the comparison would compare the plain way with itself.
    let mut side = Side::new(Settings::default(), true);
    let sent = Sent {
        from_a: true,
        host: 5,
        port: 5000,
        tos: 0,
        size: 60,
        shape: Shape::Udp,
    };
    for _ in 0..4 {
        side.take(&Step::Send(vec![sent.clone(); 40]), false);
    }
    assert_eq!(
        side.seen().delivered[1]
            .values()
            .map(Vec::len)
            .sum::<usize>(),
        160
    );
    let taken = side.bed.a.worker.express_packets();
    assert!(taken > 80, "{taken}");
}
