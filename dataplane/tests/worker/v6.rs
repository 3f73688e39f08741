//! Both families, inside and outside: the four pairs, and what a router says over ICMPv6. Checked
//! with an independent decoder.

use std::time::Duration;

use etherparse::{Icmpv6Type, IpNumber, NetSlice, SlicedPacket, TransportSlice, UdpHeader};
use hitless_dataplane::command::Command;
use hitless_dataplane::neighbour::News;
use hitless_dataplane::verdict::DropReason;
use hitless_sa::{Dscp, SaOptions, UdpEncapsulation};

use crate::bed::*;
use crate::discovery::{STRANGER_MAC, STRANGER6};

const NAT: UdpEncapsulation = UdpEncapsulation {
    local_port: 4500,
    remote_port: 4501,
};
const NAT_BACK: u16 = 4501;

/// Outer family, encapsulation.
fn tunnels() -> impl Iterator<Item = (bool, Option<UdpEncapsulation>)> {
    [
        (false, None),
        (true, None),
        (false, Some(NAT)),
        (true, Some(NAT)),
    ]
    .into_iter()
}

fn bed(outer_v6: bool, encapsulation: Option<UdpEncapsulation>) -> Bed {
    // Ports are seen from A; B's are the mirror image only if they are equal, and B sends little.
    Bed::with(Settings {
        outer_v6,
        encapsulation,
        options: SaOptions {
            flow_label: 0x4_2042,
            hop_limit: 77,
            ..SaOptions::default()
        },
        ..Settings::default()
    })
}

/// A packet of either family from A's host to B's, or back.
fn inner(six: bool, back: bool, payload: &[u8]) -> Vec<u8> {
    match (six, back) {
        (false, false) => udp(HOST_A, HOST_B, payload),
        (false, true) => udp(HOST_B, HOST_A, payload),
        (true, false) => udp6(HOST6_A, HOST6_B, payload),
        (true, true) => udp6(HOST6_B, HOST6_A, payload),
    }
}

/// ESP inside the frame, its outer headers being valid and as configured.
fn check_outer(frame: &[u8], outer_v6: bool, encapsulation: Option<UdpEncapsulation>) -> Vec<u8> {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let payload = match &sliced.net {
        Some(NetSlice::Ipv6(ip)) if outer_v6 => {
            let header = ip.header().to_header();
            assert_eq!(
                (header.source, header.destination),
                (OUTSIDE6_A, OUTSIDE6_B)
            );
            assert_eq!(
                (header.hop_limit, header.flow_label.value()),
                (77, 0x4_2042)
            );
            assert_eq!(usize::from(header.payload_length) + 54, frame.len());
            let esp = encapsulation.map_or(IpNumber(50), |_| IpNumber(17));
            assert_eq!(header.next_header, esp);
            if encapsulation.is_some() {
                let (udp, body) = UdpHeader::from_slice(&frame[54..]).unwrap();
                let right = udp.calc_checksum_ipv6(&header, body).unwrap();
                assert_eq!(udp.checksum, right, "RFC 8200 section 8.1");
            }
            &frame[54..]
        }
        Some(NetSlice::Ipv4(ip)) if !outer_v6 => {
            let header = ip.header().to_header();
            assert_eq!((header.source, header.destination), (OUTSIDE_A, OUTSIDE_B));
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(header.time_to_live, 77);
            assert_eq!(usize::from(header.total_len) + 14, frame.len());
            if encapsulation.is_some() {
                assert_eq!(frame[40..42], [0, 0], "RFC 3948 section 2.1");
            }
            &frame[34..]
        }
        other => panic!("{other:?}"),
    };
    match encapsulation {
        None => payload.to_vec(),
        Some(ports) => {
            let (udp, esp) = UdpHeader::from_slice(payload).unwrap();
            assert_eq!(
                (udp.source_port, udp.destination_port),
                (ports.local_port, ports.remote_port)
            );
            assert_eq!(usize::from(udp.length), payload.len());
            esp.to_vec()
        }
    }
}

/// As the peer would send it: to the port that we listen on.
fn to_our_port(frame: &[u8], outer_v6: bool) -> Vec<u8> {
    let mut packet = frame[14..].to_vec();
    let at = if outer_v6 { 40 } else { 20 };
    packet[at + 2..at + 4].copy_from_slice(&4500u16.to_be_bytes());
    packet
}

#[test]
fn rfc4303_section_3_1_2_tunnel_4in4_6in6_4in6_6in4_plain_and_in_udp() {
    for (outer_v6, encapsulation) in tunnels() {
        for six in [false, true] {
            let mut bed = bed(outer_v6, encapsulation);
            for size in [0, 1, 2, 3, 4, 21, 49, 512, 1300] {
                let packet = inner(six, false, &vec![size as u8; size]);
                bed.a.host_sends(&packet);
                bed.settle();
                let frame = bed.wire.pop().unwrap();
                let esp = check_outer(&frame, outer_v6, encapsulation);
                assert_eq!(esp[..4], 0xbbbb_0001u32.to_be_bytes());
                // RFC 4303 section 2.4: the least padding, so the odd 49 is not over-padded.
                let text = (packet.len() + 2).next_multiple_of(4);
                assert_eq!(esp.len(), 16 + text + 16);
                if size > 8 {
                    assert!(!frame.windows(size).any(|w| w == vec![size as u8; size]));
                }
                if encapsulation.is_some() {
                    bed.b.wire_brings(&to_our_port(&frame, outer_v6));
                    bed.settle();
                }
                let delivered = bed.b.delivered.pop().unwrap();
                assert_eq!(
                    delivered[14..],
                    hops_later(&packet, 2),
                    "{outer_v6} {six} {size}"
                );
                assert!(bed.b.delivered.is_empty());
                let kind = if six { [0x86, 0xdd] } else { [0x08, 0x00] };
                assert_eq!(delivered[12..14], kind);
            }
            let drops: Vec<_> = bed.a.handle.counters.drops().collect();
            assert_eq!(drops, []);
        }
    }
}

#[test]
fn bursts_of_257_in_both_directions_in_all_four_pairs_are_counted_exactly() {
    for outer_v6 in [false, true] {
        for six in [false, true] {
            let mut bed = bed(outer_v6, None);
            let body = |n: u16| n.to_be_bytes().repeat(30);
            for n in 0..257u16 {
                bed.a.host_sends(&inner(six, false, &body(n)));
                bed.b.host_sends(&inner(six, true, &body(n)));
                if n % 200 == 199 || n == 0 {
                    bed.settle();
                }
            }
            bed.settle();
            for (gateway, back) in [(&bed.b, false), (&bed.a, true)] {
                assert_eq!(gateway.delivered.len(), 257);
                for (n, delivered) in (0..).zip(&gateway.delivered) {
                    let expected = hops_later(&inner(six, back, &body(n)), 2);
                    assert_eq!(delivered[14..], expected);
                }
                let esp = gateway.handle.counters.esp();
                let octets = 257 * inner(six, back, &body(0)).len() as u64;
                assert_eq!((esp.packets_in, esp.packets_out), (257, 257));
                assert_eq!((esp.bytes_in, esp.bytes_out), (octets, octets));
            }
        }
    }
}

#[test]
fn an_empty_inner_payload_and_lengths_around_one_to_eight_cipher_blocks_pass() {
    for outer_v6 in [false, true] {
        let mut bed = bed(outer_v6, None);
        for blocks in 1..=8usize {
            for length in [blocks * 16 - 1, blocks * 16, blocks * 16 + 1] {
                for six in [false, true] {
                    let header = if six { 40 } else { 20 };
                    let Some(payload) = length.checked_sub(header) else {
                        continue;
                    };
                    let packet = match six {
                        false => raw(HOST_A, HOST_B, 200, &vec![7; payload]),
                        true => raw6(HOST6_A, HOST6_B, 200, &vec![7; payload]),
                    };
                    bed.a.host_sends(&packet);
                    bed.settle();
                    let delivered = bed.b.delivered.pop().unwrap();
                    assert_eq!(delivered[14..], hops_later(&packet, 2), "{length}");
                }
            }
        }
        for empty in [
            raw(HOST_A, HOST_B, 200, &[]),
            raw6(HOST6_A, HOST6_B, 200, &[]),
        ] {
            bed.a.host_sends(&empty);
            bed.settle();
            assert_eq!(bed.b.delivered.pop().unwrap()[14..], hops_later(&empty, 2));
        }
    }
}

fn raw6(from: [u8; 16], to: [u8; 16], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv6(from, to, 64)
        .write(&mut packet, IpNumber(protocol), payload)
        .unwrap();
    packet
}

#[test]
fn rfc3948_ports_changed_on_a_live_sa_over_ipv6() {
    let mut bed = bed(true, Some(NAT));
    let (local, remote) = (OUTSIDE6_A.into(), OUTSIDE6_B.into());
    for port in [NAT_BACK, 40_000, 40_001] {
        let encapsulation = Some(UdpEncapsulation {
            local_port: 4500,
            remote_port: port,
        });
        bed.a.send(Command::Update {
            sa: sa_id(1),
            local,
            remote,
            encapsulation,
            keepalive: None,
        });
        bed.a.host_sends(&udp6(HOST6_A, HOST6_B, b"x"));
        bed.settle();
        check_outer(&bed.wire.pop().unwrap(), true, encapsulation);
    }
    assert_eq!(bed.a.handle.counters.esp().packets_out, 3);
}

#[test]
fn rfc6040_section_4_1_dscp_and_ecn_cross_the_families_as_configured() {
    let plain = SaOptions::default();
    let cases = [
        (plain, 5),
        (
            SaOptions {
                copy_ecn: false,
                ..plain
            },
            4,
        ),
        (
            SaOptions {
                dscp: Dscp::Fixed(46),
                ..plain
            },
            46 << 2 | 1,
        ),
        (
            SaOptions {
                dscp: Dscp::Fixed(46),
                copy_ecn: false,
                ..plain
            },
            46 << 2,
        ),
    ];
    for (options, expected) in cases {
        for (outer_v6, six) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut bed = Bed::with(Settings {
                outer_v6,
                options,
                ..Settings::default()
            });
            let mut packet = inner(six, false, b"x");
            match six {
                false => packet[1] = 5,
                true => (packet[0], packet[1]) = (0x60, 0x50),
            }
            let packet = hops_later(&packet, 0);
            bed.a.host_sends(&packet);
            bed.settle();
            let frame = bed.wire.pop().unwrap();
            let class = match outer_v6 {
                false => frame[15],
                true => frame[14] << 4 | frame[15] >> 4,
            };
            assert_eq!(class, expected);
            assert_eq!(bed.b.delivered[0][14..], hops_later(&packet, 2));
        }
    }
}

/// The types of the ICMPv6 messages among some frames, each being valid.
fn icmp_types(frames: &[Vec<u8>]) -> Vec<Icmpv6Type> {
    let mut types = Vec::new();
    for frame in frames.iter().filter(|frame| !is_discovery(frame)) {
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        if let (Some(TransportSlice::Icmpv6(icmp)), Some(NetSlice::Ipv6(ip))) =
            (&sliced.transport, &sliced.net)
        {
            let header = ip.header();
            assert!(icmp.is_checksum_valid(header.source(), header.destination()));
            types.push(icmp.icmp_type());
        }
    }
    types
}

fn replies(frames: &[Vec<u8>]) -> usize {
    let is_reply = |kind: &&Icmpv6Type| matches!(kind, Icmpv6Type::EchoReply(_));
    icmp_types(frames).iter().filter(is_reply).count()
}

#[test]
fn rfc4443_section_4_2_echo_is_answered_on_both_sides_and_through_the_tunnel() {
    let mut bed = bed(true, None);
    for address in [INSIDE6_A, OUTSIDE6_A] {
        bed.a.host_sends(&echo6(HOST6_A, address));
    }
    bed.settle();
    assert_eq!(replies(&bed.a.delivered), 2);
    bed.a.delivered.clear();
    // In clear from the unprotected side, to the outer address.
    bed.a.send(Command::Neighbour(News::certain(
        OUTSIDE,
        STRANGER6.into(),
        STRANGER_MAC,
    )));
    bed.a.wire_brings(&echo6(STRANGER6, OUTSIDE6_A));
    bed.a.worker.turn(bed.now);
    assert_eq!(replies(&bed.a.take_wire()), 1);
    // In clear to an address that policy protects: no.
    bed.a.wire_brings(&echo6(HOST6_B, INSIDE6_A));
    bed.settle();
    assert_eq!(bed.a.dropped(DropReason::ClearText), 1);
    // Through the tunnel to the far gateway's inner address: the answer comes the same way.
    bed.wire.clear();
    bed.a.host_sends(&echo6(HOST6_A, INSIDE6_B));
    bed.settle();
    assert_eq!((replies(&bed.a.delivered), replies(&bed.wire)), (1, 0));
    assert_eq!(bed.wire.len(), 2);
}

#[test]
fn rfc8201_section_4_a_packet_too_big_says_what_fits_through_the_tunnel() {
    for outer_v6 in [false, true] {
        let mut bed = bed(outer_v6, None);
        bed.a.host_sends(&udp6(HOST6_A, HOST6_B, &[1; 1452]));
        bed.settle();
        assert_eq!(bed.a.dropped(DropReason::TooBig), 1);
        let types = icmp_types(&bed.a.delivered);
        let [Icmpv6Type::PacketTooBig { mtu }] = types[..] else {
            panic!("{types:?}");
        };
        let sent = &bed.a.delivered[0];
        assert_eq!(sent[22..38], INSIDE6_A);
        // Exactly what it says goes through, and one octet more does not.
        bed.a
            .host_sends(&udp6(HOST6_A, HOST6_B, &vec![2; mtu as usize - 48]));
        bed.settle();
        assert_eq!(bed.b.delivered.len(), 1);
        assert!(bed.wire[0].len() <= 14 + MTU);
        bed.a
            .host_sends(&udp6(HOST6_A, HOST6_B, &vec![2; mtu as usize - 47]));
        bed.settle();
        assert_eq!(bed.a.dropped(DropReason::TooBig), 2);
    }
}

#[test]
fn rfc4443_section_2_4_errors_are_limited_in_rate_and_never_about_errors_or_groups() {
    let mut bed = bed(true, None);
    bed.a.host_sends(&udp6(HOST6_A, HOST6_B, b"warm"));
    bed.settle();
    let dying = |mut packet: Vec<u8>| {
        packet[7] = 1;
        packet
    };
    bed.a.host_sends(&dying(udp6(HOST6_A, HOST6_B, b"x")));
    bed.settle();
    assert!(matches!(
        icmp_types(&bed.a.delivered)[..],
        [Icmpv6Type::TimeExceeded(_)]
    ));
    bed.a.delivered.clear();
    // About an error: nothing.
    let error = raw6(HOST6_A, HOST6_B, 58, &[1, 0, 0, 0, 0, 0, 0, 0]);
    bed.a.host_sends(&dying(error));
    bed.settle();
    assert!(bed.a.delivered.is_empty());
    // A flood: at most 16 in 100 ms.
    bed.now += Duration::from_secs(1);
    for _ in 0..100 {
        bed.a.host_sends(&dying(udp6(HOST6_A, HOST6_B, b"x")));
    }
    bed.settle();
    assert_eq!(bed.a.delivered.len(), 16);
    assert_eq!(bed.a.dropped(DropReason::TtlExceeded), 102);
    // Nobody outside learns anything.
    assert_eq!(bed.wire.len(), 1);
}

#[test]
fn rfc7296_section_2_ike_over_ipv6_is_punted_and_injected_packets_are_sent() {
    let mut bed = bed(true, None);
    let message = |from, to, port, payload: &[u8]| {
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv6(from, to, 64)
            .udp(port, port)
            .write(&mut packet, payload)
            .unwrap();
        packet
    };
    let on_500 = message(STRANGER6, OUTSIDE6_A, 500, b"IKE_SA_INIT");
    let on_4500 = message(STRANGER6, OUTSIDE6_A, 4500, b"\0\0\0\0IKE_AUTH");
    bed.a.wire_brings(&on_500);
    bed.a.wire_brings(&on_4500);
    bed.a
        .wire_brings(&message(STRANGER6, OUTSIDE6_A, 4500, &[0xff]));
    bed.settle();
    assert_eq!(drain(&mut bed.a.handle.punt), [on_500, on_4500]);
    assert_eq!(bed.a.dropped(DropReason::NatKeepalive), 1);
    let message = message(OUTSIDE6_A, OUTSIDE6_B, 500, b"to the peer");
    assert!(bed.a.handle.inject(&message));
    bed.settle();
    assert_eq!(bed.wire.len(), 1);
    assert_eq!(drain(&mut bed.b.handle.punt), [message]);
}

#[test]
fn frames_for_groups_carry_nothing_but_discovery() {
    let mut bed = bed(true, None);
    let mut frame = frame(
        [0x33, 0x33, 0, 0, 0, 1],
        bed.a.host_mac,
        &udp6(HOST6_A, HOST6_B, b"x"),
    );
    assert!(bed.a.host.push_frame(&frame));
    frame[..6].copy_from_slice(&[0x33, 0x33, 0xff, 0, 0, 1]);
    assert!(bed.a.host.push_frame(&frame));
    bed.settle();
    assert_eq!(bed.a.dropped(DropReason::NotForUs), 2);
    assert!(bed.wire.is_empty());
}
