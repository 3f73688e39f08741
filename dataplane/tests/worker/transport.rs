//! Transport mode (RFC 4303 section 3.1.1) between gateway A and a peer on the wire, which this test
//! plays: it seals and opens with the datagram functions, octet by octet apart from the worker.

use std::sync::Arc;

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, UdpHeader};
use hitless_dataplane::aead::{Engine, EspKey};
use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::Command;
use hitless_dataplane::esp::{open_datagram, seal_datagram};
use hitless_dataplane::neighbour::News;
use hitless_dataplane::replay::AntiReplay;
use hitless_dataplane::sad::{InboundSa, OutboundSa};
use hitless_dataplane::spd::{Action, Policy, Spd};
use hitless_dataplane::verdict::DropReason;
use hitless_sa::{
    ChildSa, EspSuite, KeyMaterial, Mode, SequenceNumber, Spi, TrafficSelector, UdpEncapsulation,
};

use crate::bed::*;

const PEER: [u8; 4] = [192, 0, 2, 99];
const PEER6: [u8; 16] = v6(0xf, 99);
const NAT: UdpEncapsulation = UdpEncapsulation {
    local_port: 4500,
    remote_port: 4500,
};
const OUT: Spi = Spi(0xcccc_0001);
const IN: Spi = Spi(0xdddd_0001);

fn key(seed: u8) -> EspKey {
    let material = KeyMaterial::new(&[seed; 36]);
    EspKey::new(Engine::AwsLc, EspSuite::Aes256Gcm16, &material).unwrap()
}

/// Gateway A with a transport mode SA to the peer, for itself and for its hosts.
fn bed(six: bool, encapsulation: Option<UdpEncapsulation>) -> Bed {
    let mut bed = Bed::new();
    let all = |texts: [&str; 2]| -> Vec<TrafficSelector> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    };
    let local_ts = match six {
        false => all(["192.0.2.1", "10.1.0.5"]),
        true => all(["2001:db8:f::1", "2001:db8:1::5"]),
    };
    let remote: TrafficSelector = if six { "2001:db8:f::63" } else { "192.0.2.99" }
        .parse()
        .unwrap();
    let child = ChildSa {
        id: sa_id(2),
        mode: Mode::Transport,
        inbound_spi: IN,
        outbound_spi: OUT,
        inbound_key: KeyMaterial::new(&[8; 36]),
        outbound_key: KeyMaterial::new(&[9; 36]),
        local: local_ts[0].start,
        remote: remote.start,
        encapsulation,
        local_ts: local_ts.clone(),
        remote_ts: vec![remote],
        ..bed.child(true)
    };
    let cell = Arc::new(Cell::new(SequenceNumber(1), PLENTY));
    let (floor, engine) = (SequenceNumber(0), Engine::AwsLc);
    let inbound = InboundSa::new(&child, Arc::clone(&cell), floor, 1, engine).unwrap();
    let outbound = OutboundSa::new(&child, cell, 1, engine).unwrap();
    bed.a.send(Command::InstallInbound(Box::new(inbound)));
    bed.a.send(Command::InstallOutbound(Box::new(outbound)));
    let protect = |local| Policy {
        local,
        remote,
        action: Action::Protect(Some(sa_id(2))),
    };
    let policies = local_ts.into_iter().map(protect).collect();
    bed.a.send(Command::Policies(Arc::new(Spd::new(policies))));
    let address = remote.start;
    bed.a.send(Command::Neighbour(News::certain(
        OUTSIDE,
        address,
        [2, 0, 0, 0, 9, 9],
    )));
    bed.a.worker.turn(bed.now);
    bed
}

/// ESP as the peer seals it, without anything in front.
fn seal(number: u64, next_header: u8, payload: &[u8]) -> Vec<u8> {
    seal_datagram(
        &key(8),
        IN,
        SequenceNumber(number),
        true,
        next_header,
        payload,
    )
    .unwrap()
}

/// Next header and payload of what A sealed.
fn open(esp: &[u8]) -> (u8, Vec<u8>) {
    let mut esp = esp.to_vec();
    assert_eq!(esp[..4], OUT.0.to_be_bytes());
    let mut window = AntiReplay::new(64, SequenceNumber(0));
    let (next_header, range) = open_datagram(&key(9), true, &mut window, &mut esp).unwrap();
    (next_header, esp[range].to_vec())
}

/// As many turns as several bursts need.
fn turns(bed: &mut Bed) {
    for _ in 0..10 {
        bed.a.worker.turn(bed.now);
    }
}

/// Everything that A sends on the wire now, without Ethernet.
fn sent(bed: &mut Bed) -> Vec<Vec<u8>> {
    bed.a.worker.turn(bed.now);
    let frames = bed.a.take_wire();
    frames
        .into_iter()
        .map(|frame| frame[14..].to_vec())
        .collect()
}

/// The one packet that A sends: its headers in front of ESP, then next header and payload inside.
fn sent_one(bed: &mut Bed, headers: usize) -> (Vec<u8>, u8, Vec<u8>) {
    let packets = sent(bed);
    let drops: Vec<_> = bed.a.handle.counters.drops().collect();
    assert_eq!(packets.len(), 1, "{drops:?}");
    let (front, esp) = packets[0].split_at(headers);
    let (next_header, payload) = open(esp);
    (front.to_vec(), next_header, payload)
}

fn v4_header(octets: &[u8], whole: usize) -> Ipv4Header {
    let (header, _) = Ipv4Header::from_slice(octets).unwrap();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    assert_eq!(usize::from(header.total_len), whole);
    header
}

#[test]
fn rfc4303_section_3_1_1_ipv4_keeps_its_header_and_options_in_front_of_esp() {
    for encapsulation in [None, Some(NAT)] {
        let udp = encapsulation.map_or(0, |_| 8);
        for options in [&[][..], &[1, 1, 1, 0]] {
            let mut bed = bed(false, encapsulation);
            let mut packet = Vec::new();
            PacketBuilder::ip(etherparse::IpHeaders::Ipv4(
                Ipv4Header {
                    options: options.try_into().unwrap(),
                    ..Ipv4Header::new(0, 64, IpNumber::TCP, HOST_A, PEER).unwrap()
                },
                Default::default(),
            ))
            .tcp(1000, 80, 7, 9)
            .write(&mut packet, b"some data")
            .unwrap();
            bed.a.host_sends(&packet);
            let kept = 20 + options.len();
            let packets = sent(&mut bed);
            let header = v4_header(&packets[0], packets[0].len());
            assert_eq!((header.source, header.destination), (HOST_A, PEER));
            assert_eq!(header.time_to_live, 63);
            assert_eq!(header.options.as_slice(), options);
            assert_eq!(header.protocol.0, if udp > 0 { 17 } else { 50 });
            if udp > 0 {
                let (udp, _) = UdpHeader::from_slice(&packets[0][kept..]).unwrap();
                assert_eq!((udp.source_port, udp.checksum), (4500, 0));
                assert_eq!(usize::from(udp.length), packets[0].len() - kept);
            }
            let (next_header, payload) = open(&packets[0][kept + udp..]);
            assert_eq!((next_header, &payload[..]), (6, &packet[kept..]));
        }
    }
}

#[test]
fn rfc4303_section_3_1_1_ipv6_extension_headers_go_where_they_belong() {
    const PADDED: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];
    const ATOMIC: [u8; 7] = [0, 0, 0, 1, 2, 3, 4];
    // The chain, and how many of it stay in clear.
    let cases: [(&[u8], usize); 8] = [
        (&[], 0),
        (&[0], 1),
        (&[43], 1),
        (&[44], 1),
        (&[60], 0),
        (&[0, 44], 2),
        (&[0, 60], 1),
        (&[0, 60, 43, 44, 60], 4),
    ];
    for (chain, in_clear) in cases {
        for encapsulation in [None, Some(NAT)] {
            let udp = encapsulation.map_or(0, |_| 8);
            let mut bed = bed(true, encapsulation);
            let mut body = Vec::new();
            for (index, kind) in chain.iter().enumerate() {
                body.push(*chain.get(index + 1).unwrap_or(&200));
                body.extend(if *kind == 44 { ATOMIC } else { PADDED });
            }
            body.extend(b"the transport's");
            let first = *chain.first().unwrap_or(&200);
            let mut packet = Vec::new();
            PacketBuilder::ipv6(HOST6_A, PEER6, 64)
                .write(&mut packet, IpNumber(200), &body)
                .unwrap();
            packet[6] = first;
            bed.a.host_sends(&packet);
            let kept = 40 + 8 * in_clear;
            let (front, next_header, payload) = sent_one(&mut bed, kept + udp);
            let (header, rest) = Ipv6Header::from_slice(&front).unwrap();
            assert_eq!((header.source, header.destination), (HOST6_A, PEER6));
            assert_eq!(header.hop_limit, 63);
            let esp = if udp > 0 { 17 } else { 50 };
            // What is in clear is as it was, but for the last name.
            let mut expected = body[..8 * in_clear].to_vec();
            match in_clear {
                0 => assert_eq!(header.next_header.0, esp),
                _ => expected[8 * (in_clear - 1)] = esp,
            }
            assert_eq!(rest[..8 * in_clear], expected);
            assert_eq!(
                next_header,
                *chain.get(in_clear).unwrap_or(&200),
                "{chain:?}"
            );
            assert_eq!(payload, body[8 * in_clear..]);
            if udp > 0 {
                assert_ne!(rest[8 * in_clear + 6..8 * in_clear + 8], [0, 0]);
            }
        }
    }
}

#[test]
fn rfc8200_section_8_1_udp_around_transport_mode_over_ipv6_has_its_checksum() {
    let mut bed = bed(true, Some(NAT));
    for size in 0..20 {
        bed.a
            .host_sends(&udp6(HOST6_A, PEER6, &vec![size; usize::from(size)]));
        let packet = sent(&mut bed).remove(0);
        let (header, rest) = Ipv6Header::from_slice(&packet).unwrap();
        let (udp, esp) = UdpHeader::from_slice(rest).unwrap();
        assert_eq!(udp.checksum, udp.calc_checksum_ipv6(&header, esp).unwrap());
    }
}

#[test]
fn an_echo_in_transport_mode_is_answered_in_transport_mode_in_both_families_and_in_udp() {
    for (six, encapsulation) in [
        (false, None),
        (true, None),
        (false, Some(NAT)),
        (true, Some(NAT)),
    ] {
        let mut bed = bed(six, encapsulation);
        let (request, headers) = match six {
            false => (echo(PEER, OUTSIDE_A), 20),
            true => (echo6(PEER6, OUTSIDE6_A), 40),
        };
        let kind = if six { 58 } else { 1 };
        let esp = seal(1, kind, &request[headers..]);
        let mut packet = Vec::new();
        match (six, encapsulation) {
            (false, None) => PacketBuilder::ipv4(PEER, OUTSIDE_A, 64)
                .write(&mut packet, IpNumber(50), &esp)
                .unwrap(),
            (true, None) => PacketBuilder::ipv6(PEER6, OUTSIDE6_A, 64)
                .write(&mut packet, IpNumber(50), &esp)
                .unwrap(),
            (false, Some(_)) => packet = udp_ports(PEER, OUTSIDE_A, 4500, 4500, &esp),
            (true, Some(_)) => PacketBuilder::ipv6(PEER6, OUTSIDE6_A, 64)
                .udp(4500, 4500)
                .write(&mut packet, &esp)
                .unwrap(),
        }
        bed.a.wire_brings(&packet);
        let front = headers + encapsulation.map_or(0, |_| 8);
        let (front, next_header, payload) = sent_one(&mut bed, front);
        assert_eq!(next_header, kind);
        // The answer put together again is valid.
        let mut answer = front[..headers].to_vec();
        answer.extend_from_slice(&payload);
        let sliced = match six {
            false => {
                let length = answer.len() as u16;
                answer[2..4].copy_from_slice(&length.to_be_bytes());
                answer[9] = 1;
                answer = hops_later(&answer, 0);
                etherparse::SlicedPacket::from_ip(&answer).unwrap()
            }
            true => {
                answer[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
                answer[6] = 58;
                etherparse::SlicedPacket::from_ip(&answer).unwrap()
            }
        };
        match sliced.transport {
            Some(etherparse::TransportSlice::Icmpv4(icmp)) => {
                assert_eq!(hitless_dataplane::wire::checksum(0, &payload), 0);
                assert_eq!((payload[0], icmp.payload()), (0, &b"ping"[..]));
            }
            Some(etherparse::TransportSlice::Icmpv6(icmp)) => {
                assert!(icmp.is_checksum_valid(OUTSIDE6_A, PEER6));
                assert_eq!((payload[0], icmp.payload()), (129, &b"ping"[..]));
            }
            other => panic!("{other:?}"),
        }
        let counts = bed.a.handle.counters.esp();
        assert_eq!((counts.packets_in, counts.packets_out), (1, 1));
    }
}

#[test]
fn extension_headers_in_front_of_and_behind_esp_are_understood_inbound() {
    let request = echo6(PEER6, OUTSIDE6_A);
    let padded = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let atomic = |next: u8| [next, 0, 0, 0, 0, 0, 0, 9];
    // Hop-by-hop and an atomic fragment in clear, destination options encrypted.
    for (front, first) in [
        (vec![], 50),
        (vec![padded(50)], 0),
        (vec![atomic(50)], 44),
        (vec![padded(44), atomic(50)], 0),
    ] {
        for options in [false, true] {
            let mut bed = bed(true, None);
            let inside = match options {
                false => request[40..].to_vec(),
                true => [&padded(58)[..], &request[40..]].concat(),
            };
            let esp = seal(1, if options { 60 } else { 58 }, &inside);
            let body = [front.concat(), esp].concat();
            let mut packet = Vec::new();
            PacketBuilder::ipv6(PEER6, OUTSIDE6_A, 64)
                .write(&mut packet, IpNumber(200), &body)
                .unwrap();
            packet[6] = first;
            bed.a.wire_brings(&packet);
            let (_, next_header, payload) = sent_one(&mut bed, 40);
            assert_eq!(
                (next_header, payload[0], &payload[8..]),
                (58, 129, &b"ping"[..])
            );
        }
    }
}

#[test]
fn the_wrong_mode_inside_and_strangers_are_refused() {
    // What comes, and why it goes no further.
    let inner = udp(HOST_B, HOST_A, b"in a tunnel");
    let stranger = |esp: &[u8]| raw([192, 0, 2, 98], OUTSIDE_A, 50, esp);
    let peer = |esp: &[u8]| raw(PEER, OUTSIDE_A, 50, esp);
    let plain = echo(PEER, OUTSIDE_A);
    for (packet, reason) in [
        (peer(&seal(1, 4, &inner)), DropReason::BadNextHeader),
        (peer(&seal(1, 41, &inner)), DropReason::BadNextHeader),
        (peer(&seal(1, 59, &inner)), DropReason::Dummy),
        (
            stranger(&seal(1, 1, &plain[20..])),
            DropReason::SelectorMismatch,
        ),
        (peer(&seal(1, 17, &inner[20..])), DropReason::NotForUs),
    ] {
        let mut bed = bed(false, None);
        bed.a.wire_brings(&packet);
        assert!(sent(&mut bed).is_empty());
        let drops: Vec<_> = bed.a.handle.counters.drops().collect();
        assert_eq!(drops, [(reason, 1)]);
        // It was authentic, so its number is spent (RFC 4303 section 3.4.3).
        bed.a.wire_brings(&packet);
        assert!(sent(&mut bed).is_empty());
        assert_eq!(bed.a.dropped(DropReason::Replay), 1);
    }
}

#[test]
fn rfc4303_section_3_3_4_fragments_are_not_protected_and_large_packets_are_fragmented_after_esp() {
    let mut bed = bed(false, None);
    let mut fragment = udp(HOST_A, PEER, &[1; 100]);
    fragment[6] = 0x20;
    bed.a.host_sends(&hops_later(&fragment, 0));
    assert!(sent(&mut bed).is_empty());
    assert_eq!(bed.a.dropped(DropReason::Fragment), 1);
    // May be fragmented: one ESP packet in two parts.
    let large = without_df(&udp(HOST_A, PEER, &[7; 1472]));
    bed.a.host_sends(&large);
    let parts = sent(&mut bed);
    assert_eq!(parts.len(), 2);
    let mut esp = Vec::new();
    for part in &parts {
        assert!(part.len() <= MTU);
        let header = v4_header(part, part.len());
        assert_eq!(usize::from(header.fragment_offset.byte_offset()), esp.len());
        esp.extend_from_slice(&part[20..]);
    }
    assert_eq!(open(&esp), (17, large[20..].to_vec()));
    // May not: its sender is told what fits, exactly.
    bed.a.host_sends(&udp(HOST_A, PEER, &[7; 1472]));
    bed.settle();
    let error = &bed.a.delivered[0][14..];
    assert_eq!((error[9], error[20], error[21]), (1, 3, 4));
    let fits = usize::from(u16::from_be_bytes([error[26], error[27]]));
    for (size, parts) in [(fits - 28, 1), (fits - 27, 0)] {
        bed.a.host_sends(&udp(HOST_A, PEER, &vec![7; size]));
        assert_eq!(sent(&mut bed).len(), parts);
    }
}

#[test]
fn bursts_of_257_in_transport_mode_are_all_sealed_and_counted() {
    for six in [false, true] {
        let mut bed = bed(six, None);
        for n in 0..257u16 {
            let packet = match six {
                false => udp(HOST_A, PEER, &n.to_be_bytes()),
                true => udp6(HOST6_A, PEER6, &n.to_be_bytes()),
            };
            bed.a.host_sends(&packet);
            if n == 128 {
                turns(&mut bed);
            }
        }
        turns(&mut bed);
        let packets = {
            let mut packets = sent(&mut bed);
            packets.retain(|packet| packet.len() > 40);
            packets
        };
        // The link holds 256; what had no room there is counted.
        let full = bed.a.dropped(DropReason::TransmitFull);
        assert_eq!(packets.len() as u64 + full, 257);
        for (n, packet) in (0u16..).zip(&packets) {
            let (_, payload) = open(&packet[if six { 40 } else { 20 }..]);
            assert_eq!(payload[8..], n.to_be_bytes());
        }
        assert_eq!(bed.a.handle.counters.esp().packets_out, 257);
    }
}
