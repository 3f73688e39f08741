//! Packets through the tunnel, checked octet by octet with an independent decoder.

use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use hitless_dataplane::command::{Command, Event, Retired};
use hitless_dataplane::worker::CheckpointSettings;
use hitless_sa::UdpEncapsulation;

use crate::bed::*;

const NAT: UdpEncapsulation = UdpEncapsulation {
    local_port: 4500,
    remote_port: 4500,
};

fn both_ways(encapsulation: Option<UdpEncapsulation>) {
    let mut bed = Bed::with(Settings {
        encapsulation,
        ..Settings::default()
    });
    let mut sent = Vec::new();
    for size in [0, 1, 2, 3, 4, 21, 512, 1300] {
        let packet = udp(HOST_A, HOST_B, &vec![size as u8; size]);
        bed.a.host_sends(&packet);
        sent.push(packet);
        bed.settle();
    }
    assert_eq!(bed.b.delivered.len(), sent.len());
    for (sent, delivered) in sent.iter().zip(&bed.b.delivered) {
        // One router each side (RFC 4301 section 5.1.2.1): nothing else may differ.
        assert_eq!(delivered[..6], bed.b.host_mac);
        assert_eq!(delivered[14..], hops_later(sent, 2));
        assert!(SlicedPacket::from_ethernet(delivered).is_ok());
    }
    assert_eq!(bed.wire.len(), sent.len());
    for (number, (frame, sent)) in bed.wire.iter().zip(&sent).enumerate() {
        check_outer(frame, sent, encapsulation, number as u32 + 1);
    }
    // And back.
    let answer = udp(HOST_B, HOST_A, b"the answer");
    bed.b.host_sends(&answer);
    bed.settle();
    assert_eq!(bed.a.delivered.len(), 1);
    assert_eq!(bed.a.delivered[0][14..], hops_later(&answer, 2));
    assert_eq!(bed.a.handle.counters.drops().count(), 0);
    assert_eq!(bed.b.handle.counters.drops().count(), 0);
    let esp = bed.b.handle.counters.esp();
    assert_eq!((esp.packets_in, esp.packets_out), (sent.len() as u64, 1));
}

/// Outer headers valid and as configured, number as expected, nothing of the inner packet visible.
fn check_outer(frame: &[u8], sent: &[u8], encapsulation: Option<UdpEncapsulation>, number: u32) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else {
        panic!("no IPv4");
    };
    assert_eq!(ip.header().source(), OUTSIDE_A);
    assert_eq!(ip.header().destination(), OUTSIDE_B);
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    let esp = match (encapsulation, &sliced.transport) {
        (Some(ports), Some(TransportSlice::Udp(udp))) => {
            assert_eq!(udp.source_port(), ports.local_port);
            assert_eq!(udp.destination_port(), ports.remote_port);
            assert_eq!(udp.checksum(), 0, "RFC 3948 section 2.1");
            udp.payload()
        }
        (None, None) => ip.payload().payload,
        other => panic!("{other:?}"),
    };
    assert_eq!(esp[..4], 0xbbbb_0001u32.to_be_bytes());
    assert_eq!(esp[4..8], number.to_be_bytes());
    assert_eq!(
        esp[8..16],
        u64::from(number).to_be_bytes(),
        "the IV is the number (S2)"
    );
    if sent.len() > 28 + 8 {
        let body = &sent[28..];
        assert!(!frame.windows(body.len()).any(|window| window == body));
    }
}

#[test]
fn both_ways_in_esp() {
    both_ways(None);
}

#[test]
fn both_ways_in_udp_rfc_3948() {
    both_ways(Some(NAT));
}

#[test]
fn bursts_keep_their_order_and_their_numbers() {
    let mut bed = Bed::new();
    bed.warm_up();
    for n in 0..200u8 {
        bed.a.host_sends(&udp(HOST_A, HOST_B, &[n; 60]));
    }
    bed.settle();
    let order: Vec<u8> = bed.b.delivered.iter().map(|frame| frame[42]).collect();
    assert_eq!(order, (0..200).collect::<Vec<u8>>());
    let numbers: Vec<u8> = bed.wire.iter().map(|frame| frame[14 + 20 + 7]).collect();
    assert_eq!(numbers, (2..=201).collect::<Vec<u8>>());
}

#[test]
fn ethernet_padding_is_not_part_of_the_packet() {
    let mut bed = Bed::new();
    bed.warm_up();
    let packet = udp(HOST_A, HOST_B, b"x");
    let mut padded = packet.clone();
    padded.resize(46, 0xcc);
    bed.a.host_sends(&padded);
    bed.settle();
    let esp = bed.seal(&udp(HOST_A, HOST_B, b"y"));
    bed.settle();
    let padded_esp = [esp, vec![0xdd; 9]].concat();
    bed.b.wire_brings(&padded_esp);
    bed.settle();
    let lengths: Vec<usize> = bed.b.delivered.iter().map(Vec::len).collect();
    assert_eq!(lengths, [14 + packet.len(); 2]);
}

#[test]
fn bypass_goes_in_clear_both_ways() {
    let mut bed = Bed::new();
    let outsider = [203, 0, 113, 9];
    route_default(&mut bed);
    let packet = udp(HOST_A, outsider, b"in clear");
    bed.a.host_sends(&packet);
    bed.settle();
    assert_eq!(bed.wire.len(), 1);
    assert_eq!(bed.wire[0][14..], hops_later(&packet, 1));
    let answer = udp(outsider, HOST_A, b"welcome");
    bed.a.wire_brings(&answer);
    bed.settle();
    assert_eq!(bed.a.delivered.len(), 1);
    assert_eq!(bed.a.delivered[0][14..], hops_later(&answer, 1));
}

/// Gives A a default route through B.
pub fn route_default(bed: &mut Bed) {
    use hitless_dataplane::fib::{Fib, Route};
    let route = |prefix: &str, length, port, next_hop: Option<&str>| Route {
        prefix: (prefix.parse().unwrap(), length),
        port,
        next_hop: next_hop.map(|hop| hop.parse().unwrap()),
    };
    let routes = [
        route("10.1.0.0", 16, INSIDE, None),
        route("192.0.2.0", 24, OUTSIDE, None),
        route("0.0.0.0", 0, OUTSIDE, Some("192.0.2.2")),
    ];
    bed.a
        .send(Command::Routes(std::sync::Arc::new(Fib::new(&routes))));
    bed.settle();
}

#[test]
fn what_comes_out_of_a_tunnel_never_leaves_in_clear_on_the_unprotected_side() {
    let mut bed = Bed::new();
    bed.warm_up();
    // B's way to its own host now leads out again on the unprotected side.
    use hitless_dataplane::fib::{Fib, Route};
    let route = Route {
        prefix: ("0.0.0.0".parse().unwrap(), 0),
        port: OUTSIDE,
        next_hop: None,
    };
    bed.b
        .send(Command::Routes(std::sync::Arc::new(Fib::new(&[route]))));
    bed.a.host_sends(&udp(HOST_A, HOST_B, b"secret"));
    bed.settle();
    let clear = |frame: &&Vec<u8>| frame.windows(6).any(|window| window == b"secret");
    assert_eq!(bed.wire.iter().filter(clear).count(), 0);
    let no_policy = hitless_dataplane::verdict::DropReason::NoPolicy;
    assert_eq!(bed.b.dropped(no_policy), 1);
}

#[test]
fn a_peer_that_moved_is_reported_and_followed_only_on_command_rfc_7296_section_2_23() {
    let mut bed = Bed::with(Settings {
        encapsulation: Some(NAT),
        ..Settings::default()
    });
    bed.warm_up();
    let mut moved = bed.seal(&udp(HOST_A, HOST_B, b"from a new port"));
    moved[20..22].copy_from_slice(&40_000u16.to_be_bytes());
    bed.b.wire_brings(&moved);
    bed.settle();
    assert_eq!(bed.b.delivered.len(), 1);
    let events = bed.b.events();
    let remote = events.iter().find_map(|event| match event {
        Event::PeerMoved { sa, remote } if *sa == sa_id(1) => Some(*remote),
        _ => None,
    });
    assert_eq!(remote, Some("192.0.2.1:40000".parse().unwrap()));
    // A replay of it from yet another port tells nothing.
    moved[20..22].copy_from_slice(&41_000u16.to_be_bytes());
    bed.b.wire_brings(&moved);
    bed.settle();
    assert!(bed.b.events().is_empty());
    bed.b.send(Command::Update {
        sa: sa_id(1),
        local: bed.child(false).local,
        remote: bed.child(false).remote,
        encapsulation: Some(UdpEncapsulation {
            local_port: 4500,
            remote_port: 40_000,
        }),
        keepalive: None,
    });
    bed.b.host_sends(&udp(HOST_B, HOST_A, b"to the new port"));
    bed.b.worker.turn(bed.now);
    let frames = bed.b.take_wire();
    assert_eq!(frames[0][36..38], 40_000u16.to_be_bytes());
}

#[test]
fn a_removed_sa_comes_back_in_its_boxes_and_carries_nothing_any_more() {
    let mut bed = Bed::new();
    bed.warm_up();
    let late = bed.seal(&udp(HOST_A, HOST_B, b"late"));
    bed.b.send(Command::Remove(sa_id(1)));
    bed.settle();
    let events = bed.b.events();
    let inbound = |event: &Event| matches!(event, Event::Retired(Retired::Inbound(_)));
    let outbound = |event: &Event| matches!(event, Event::Retired(Retired::Outbound(_)));
    assert!(events.iter().any(inbound) && events.iter().any(outbound));
    let mut told = Vec::new();
    bed.b
        .handle
        .checkpoints
        .drain(|slot, checkpoint| told.push((slot, checkpoint)));
    assert_eq!(told.len(), 1, "the last counts are told before it goes");
    assert_eq!((told[0].1.packets_in, told[0].1.packets_out), (1, 1));
    bed.b.wire_brings(&late);
    bed.b.host_sends(&udp(HOST_B, HOST_A, b"nowhere"));
    bed.settle();
    use hitless_dataplane::verdict::DropReason::{NoSa, UnknownSpi};
    assert_eq!((bed.b.dropped(UnknownSpi), bed.b.dropped(NoSa)), (1, 1));
    assert!(bed.b.delivered.is_empty() && bed.wire.is_empty());
}

#[test]
fn checkpoints_come_every_so_many_packets_or_so_late_rfc_6027_section_3_3() {
    let checkpoint = CheckpointSettings {
        packets: 10,
        interval: Duration::from_millis(500),
    };
    let mut bed = Bed::with(Settings {
        checkpoint,
        ..Settings::default()
    });
    let told = |bed: &mut Bed| {
        let mut told = Vec::new();
        bed.a
            .handle
            .checkpoints
            .drain(|slot, c| told.push((slot, c)));
        told
    };
    for n in 1..=12u8 {
        bed.a.host_sends(&udp(HOST_A, HOST_B, &[n]));
        bed.settle();
    }
    let first = told(&mut bed);
    assert_eq!(first.len(), 1);
    let (slot, checkpoint) = first[0];
    assert_eq!(
        (slot, checkpoint.sa, checkpoint.packets_out),
        (0, sa_id(1), 10)
    );
    assert_eq!(checkpoint.outbound_next.0, 11);
    bed.advance(Duration::from_millis(499));
    assert!(told(&mut bed).is_empty());
    bed.advance(Duration::from_millis(1));
    let second = told(&mut bed);
    assert_eq!(second.len(), 1);
    assert_eq!(second[0].1.packets_out, 12);
    bed.advance(Duration::from_secs(5));
    assert!(told(&mut bed).is_empty(), "nothing new to tell");
}

#[test]
fn what_is_too_big_and_may_be_fragmented_is_fragmented_before_esp_rfc_4301_section_8_2() {
    let mut bed = Bed::new();
    bed.warm_up();
    let sizes = [1472, 1400, 1472];
    for (seed, size) in sizes.into_iter().enumerate() {
        let packet = udp(HOST_A, HOST_B, &vec![seed as u8; size]);
        bed.a.host_sends(&without_df(&packet));
    }
    bed.settle();
    assert_eq!(bed.wire.len(), 5, "the middle one fits");
    assert!(bed.wire.iter().all(|frame| frame.len() <= 14 + MTU));
    let mut payload = Vec::new();
    for frame in &bed.b.delivered {
        let (header, body) = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        payload.extend_from_slice(body);
    }
    let total: usize = sizes.iter().map(|size| size + 8).sum();
    assert_eq!(payload.len(), total);
    assert_eq!(bed.a.handle.counters.drops().count(), 0);
}

#[test]
fn a_whole_burst_that_must_be_fragmented_keeps_its_order() {
    let mut bed = Bed::new();
    bed.warm_up();
    for n in 0..64u8 {
        bed.a
            .host_sends(&without_df(&udp(HOST_A, HOST_B, &[n; 1472])));
    }
    bed.settle();
    let numbers: Vec<u8> = bed.wire.iter().map(|frame| frame[14 + 20 + 7]).collect();
    assert_eq!(numbers, (2..130).collect::<Vec<u8>>());
    let order: Vec<u8> = bed
        .b
        .delivered
        .iter()
        .map(|frame| *frame.last().unwrap())
        .collect();
    let expected: Vec<u8> = (0..64).flat_map(|n| [n, n]).collect();
    assert_eq!(order, expected);
}

#[test]
fn sas_that_alternate_in_one_burst_each_draw_once_and_in_order() {
    use hitless_dataplane::aead::Engine;
    use hitless_dataplane::cell::Cell;
    use hitless_dataplane::sad::OutboundSa;
    use hitless_dataplane::spd::{Action, Policy, Spd};
    use hitless_sa::{Lease, SequenceNumber, Spi};
    use std::sync::Arc;

    let mut bed = Bed::new();
    bed.warm_up();
    let mut child = bed.child(true);
    (child.id, child.outbound_spi) = (sa_id(2), Spi(0xcccc_0001));
    let lease = Lease {
        grant: SequenceNumber(1003),
        ..PLENTY
    };
    let cell = Arc::new(Cell::new(SequenceNumber(1000), lease));
    let second = OutboundSa::new(&child, Arc::clone(&cell), 1, Engine::AwsLc).unwrap();
    bed.a.send(Command::InstallOutbound(Box::new(second)));
    let policy = |remote: &str, id| Policy {
        local: "10.1.0.0/16".parse().unwrap(),
        remote: remote.parse().unwrap(),
        action: Action::Protect(Some(id)),
    };
    let policies = vec![
        policy("10.2.0.0/16", sa_id(1)),
        policy("10.3.0.0/16", sa_id(2)),
    ];
    bed.a.send(Command::Policies(Arc::new(Spd::new(policies))));
    for n in 0..6 {
        bed.a.host_sends(&udp(HOST_A, HOST_B, &[n]));
        bed.a.host_sends(&udp(HOST_A, [10, 3, 0, 5], &[n]));
    }
    bed.a.worker.turn(bed.now);
    let sent: Vec<(u8, u64)> = bed
        .a
        .take_wire()
        .iter()
        .map(|frame| {
            (
                frame[34],
                u64::from_be_bytes(*frame[42..].first_chunk().unwrap()),
            )
        })
        .collect();
    let expected = [
        (0xbb, 2),
        (0xcc, 1000),
        (0xbb, 3),
        (0xcc, 1001),
        (0xbb, 4),
        (0xcc, 1002),
        (0xbb, 5),
        (0xcc, 1003),
        (0xbb, 6),
        (0xbb, 7),
    ];
    assert_eq!(sent, expected);
    // One draw an SA: the second got 4 of 6 at once, and nothing beyond its grant.
    assert_eq!(cell.lease_stalls(), 1);
    use hitless_dataplane::verdict::DropReason::LeaseExhausted;
    assert_eq!(bed.a.dropped(LeaseExhausted), 2);
}

#[test]
fn congestion_in_the_tunnel_reaches_the_inner_packet_rfc_6040_section_4_2() {
    let mut bed = Bed::new();
    bed.warm_up();
    let mut packet = udp(HOST_A, HOST_B, b"ECN-capable");
    packet[1] = 0xb8 | 2;
    let mut esp = bed.seal(&hops_later(&packet, 0));
    assert_eq!(esp[1], 0xb8 | 2, "DSCP and ECN are copied out");
    esp[1] |= 3;
    bed.b.wire_brings(&hops_later(&esp, 0));
    bed.settle();
    packet[1] |= 3;
    assert_eq!(bed.b.delivered[0][14..], hops_later(&packet, 2));
}
