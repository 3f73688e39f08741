//! What the worker answers by itself: ARP, echo; and the punt port.

use std::time::Duration;

use etherparse::{Icmpv4Type, SlicedPacket, TransportSlice};
use hitless_dataplane::command::{Command, Event};
use hitless_dataplane::neighbour::News;
use hitless_dataplane::verdict::DropReason;

use crate::bed::*;

fn arps(frames: &[Vec<u8>]) -> Vec<&Vec<u8>> {
    frames
        .iter()
        .filter(|frame| frame[12..14] == [8, 6])
        .collect()
}

#[test]
fn arp_for_our_addresses_is_answered_and_for_others_not() {
    let mut bed = Bed::new();
    bed.warm_up();
    let asker = [2, 0, 0, 0, 9, 9];
    let ask = |address: [u8; 4]| arp(1, asker, [192, 0, 2, 99], &[&[0; 6][..], &address].concat());
    bed.a.wire.push_frame(&ask(OUTSIDE_A));
    // Another's address, and one of ours that is not on this link.
    bed.a.wire.push_frame(&ask([192, 0, 2, 50]));
    bed.a.wire.push_frame(&ask(INSIDE_A));
    bed.a.worker.turn(bed.now);
    let frames = bed.a.take_wire();
    assert_eq!(frames.len(), 1);
    let expected = arp(
        2,
        bed.a.outside_mac,
        OUTSIDE_A,
        &[&asker[..], &[192, 0, 2, 99]].concat(),
    );
    assert_eq!(frames[0], expected);
    assert_eq!(bed.a.dropped(DropReason::NotForUs), 2);
    bed.a.assert_no_leak();
}

#[test]
fn a_claim_to_our_address_is_not_believed() {
    let mut bed = Bed::new();
    bed.warm_up();
    let liar = [2, 0, 0, 0, 6, 6];
    let claim = arp(1, liar, OUTSIDE_A, &[&[0; 6][..], &OUTSIDE_A].concat());
    bed.a.wire.push_frame(&claim);
    bed.a.worker.turn(bed.now);
    assert!(bed.a.take_wire().is_empty());
    assert_eq!(bed.a.dropped(DropReason::NotForUs), 1);
}

#[test]
fn who_moves_is_followed() {
    let mut bed = Bed::new();
    bed.warm_up();
    let new_mac = [2, 0, 0, 0, 3, 3];
    let gratuitous = arp(1, new_mac, OUTSIDE_B, &[&[0; 6][..], &OUTSIDE_B].concat());
    bed.a.events();
    bed.a.wire.push_frame(&gratuitous);
    bed.a.worker.turn(bed.now);
    assert!(bed.a.events().iter().any(|event| matches!(
        event,
        Event::NeighbourLearned(news) if (news.neighbour.port, news.mac) == (OUTSIDE, new_mac)
    )));
    bed.a.host_sends(&udp(HOST_A, HOST_B, b"x"));
    bed.a.worker.turn(bed.now);
    assert_eq!(bed.a.take_wire()[0][..6], new_mac);
}

/// A card gives answers to one of its queues: what is confirmed there is to be asked for again by the
/// other worker, which did ask.
#[test]
fn rfc826_an_answer_to_another_workers_question_is_told_each_time() {
    let mut bed = Bed::new();
    bed.warm_up();
    bed.a.events();
    let known = bed.b.outside_mac;
    let ends = [&bed.a.outside_mac[..], &OUTSIDE_A].concat();
    let mut told = |operation| {
        bed.now += Duration::from_secs(1);
        bed.a
            .wire
            .push_frame(&arp(operation, known, OUTSIDE_B, &ends));
        bed.a.worker.turn(bed.now);
        let events = bed.a.events().into_iter();
        let learned = |event: &Event| matches!(event, Event::NeighbourLearned(_));
        events.filter(learned).count()
    };
    assert_eq!([told(2), told(2)], [1, 1]);
    // A question of his is no answer.
    assert_eq!(told(1), 0);
}

#[test]
fn an_announcement_goes_out_three_times_in_a_second() {
    let mut bed = Bed::new();
    bed.warm_up();
    bed.a.send(Command::Announce);
    let mut times = Vec::new();
    for tick in 0..30u64 {
        bed.a.worker.turn(bed.now);
        let (wire, host) = (bed.a.take_wire(), drain(&mut bed.a.host));
        if !wire.is_empty() {
            times.push(tick * 50);
            let own =
                |mac, address: [u8; 4]| arp(1, mac, address, &[&[0; 6][..], &address].concat());
            assert_eq!(arps(&wire), [&own(bed.a.outside_mac, OUTSIDE_A)]);
            assert_eq!(arps(&host), [&own(bed.a.inside_mac, INSIDE_A)]);
        }
        bed.now += Duration::from_millis(50);
    }
    assert_eq!(times, [0, 200, 1000]);
}

#[test]
fn packets_wait_for_a_neighbour_and_go_when_it_answers() {
    let mut bed = Bed::new();
    bed.b.host_answers = false;
    for n in 1..=5u8 {
        bed.a.host_sends(&udp(HOST_A, HOST_B, &[n]));
        bed.settle();
    }
    assert_eq!(bed.b.worker.frame_account().held, 5);
    assert_eq!(bed.b.dropped(DropReason::NeighbourUnresolved), 0);
    let answer = arp(
        2,
        bed.b.host_mac,
        HOST_B,
        &[&bed.b.inside_mac[..], &INSIDE_B].concat(),
    );
    assert!(bed.b.host.push_frame(&answer));
    bed.settle();
    let bodies: Vec<u8> = bed.b.delivered.iter().map(|frame| frame[42]).collect();
    assert_eq!(bodies, [1, 2, 3, 4, 5]);
}

#[test]
fn a_neighbour_that_control_knows_needs_no_question() {
    let mut bed = Bed::new();
    bed.b.host_answers = false;
    bed.b.send(Command::Neighbour(News::certain(
        INSIDE,
        HOST_B.into(),
        bed.b.host_mac,
    )));
    bed.a.host_sends(&udp(HOST_A, HOST_B, b"x"));
    bed.settle();
    assert_eq!(bed.b.delivered.len(), 1);
}

/// The echo replies among some frames.
fn replies(frames: &[Vec<u8>]) -> usize {
    let is_reply = |frame: &&Vec<u8>| {
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        matches!(
            sliced.transport,
            Some(TransportSlice::Icmpv4(icmp)) if matches!(icmp.icmp_type(), Icmpv4Type::EchoReply(_))
        )
    };
    frames.iter().filter(is_reply).count()
}

#[test]
fn echo_is_answered_on_both_sides_and_through_the_tunnel() {
    let mut bed = Bed::new();
    bed.warm_up();
    // From the protected side, to either address.
    bed.a.host_sends(&echo(HOST_A, INSIDE_A));
    bed.a.host_sends(&echo(HOST_A, OUTSIDE_A));
    bed.settle();
    assert_eq!(replies(&bed.a.delivered), 2);
    bed.a.delivered.clear();
    // In clear from the unprotected side, to the outer address.
    let stranger = arp(
        2,
        [2, 0, 0, 0, 9, 9],
        [192, 0, 2, 99],
        &[&bed.a.outside_mac[..], &OUTSIDE_A].concat(),
    );
    bed.a.wire.push_frame(&stranger);
    bed.a.wire_brings(&echo([192, 0, 2, 99], OUTSIDE_A));
    bed.a.worker.turn(bed.now);
    assert_eq!(replies(&bed.a.take_wire()), 1);
    // In clear to an address that policy protects: no.
    bed.a.wire_brings(&echo(HOST_B, INSIDE_A));
    bed.settle();
    assert_eq!(bed.a.dropped(DropReason::ClearText), 1);
    // Through the tunnel to the far gateway's inner address: the answer comes the same way.
    bed.wire.clear();
    bed.a.host_sends(&echo(HOST_A, INSIDE_B));
    bed.settle();
    assert_eq!(replies(&bed.a.delivered), 1);
    assert_eq!(replies(&bed.wire), 0, "not in clear");
    assert_eq!(bed.wire.len(), 2);
}

#[test]
fn rfc4301_section_5_2_a_clear_echo_request_with_a_protected_source_is_not_answered_into_the_lan() {
    let mut bed = Bed::new();
    bed.warm_up();
    bed.b.wire_brings(&echo(HOST_B, OUTSIDE_B));
    bed.settle();
    assert_eq!(bed.b.delivered.len(), 0);
    assert_eq!(bed.b.dropped(DropReason::NoPolicy), 1);
    assert!(bed.wire.is_empty());
    bed.b.assert_no_leak();
}

#[test]
fn ike_is_punted_whole_and_injected_packets_are_sent() {
    let mut bed = Bed::new();
    bed.warm_up();
    let on_500 = udp_ports([192, 0, 2, 99], OUTSIDE_A, 500, 500, b"IKE_SA_INIT");
    let on_4500 = udp_ports([192, 0, 2, 99], OUTSIDE_A, 4500, 4500, b"\0\0\0\0IKE_AUTH");
    bed.a.wire_brings(&on_500);
    bed.a.wire_brings(&on_4500);
    bed.settle();
    assert_eq!(drain(&mut bed.a.handle.punt), [on_500, on_4500]);
    assert_eq!(bed.a.handle.counters.punted(), 2);
    let message = udp_ports(OUTSIDE_A, OUTSIDE_B, 500, 500, b"to the peer");
    assert!(bed.a.handle.inject(&message));
    bed.settle();
    assert_eq!(bed.wire.len(), 1);
    assert_eq!(bed.wire[0][14..], message);
    assert_eq!(drain(&mut bed.b.handle.punt), [message]);
}

#[test]
fn strangers_leave_half_of_the_punt_port_to_ike_sas_that_there_are() {
    let mut bed = Bed::new();
    bed.warm_up();
    let stranger = udp_ports([192, 0, 2, 99], OUTSIDE_A, 500, 500, &[0; 28]);
    let peer = udp_ports([192, 0, 2, 98], OUTSIDE_A, 500, 500, &[7; 28]);
    for _ in 0..400 {
        bed.a.wire_brings(&stranger);
        bed.a.worker.turn(bed.now);
    }
    for _ in 0..100 {
        bed.a.wire_brings(&peer);
        bed.a.worker.turn(bed.now);
    }
    let punted = drain(&mut bed.a.handle.punt);
    let of = |message: &Vec<u8>| punted.iter().filter(|p| *p == message).count();
    assert_eq!(of(&peer), 100);
    assert!((120..=130).contains(&of(&stranger)), "{}", of(&stranger));
    let dropped = bed.a.dropped(DropReason::PuntStranger);
    assert_eq!(dropped as usize, 400 - of(&stranger));
}

#[test]
fn frames_to_other_stations_and_broadcasts_are_not_forwarded_rfc_1812_section_5_3_4() {
    let mut bed = Bed::new();
    bed.warm_up();
    for destination in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [2, 0, 0, 0, 7, 7]] {
        let frame = frame(destination, bed.a.host_mac, &udp(HOST_A, HOST_B, b"x"));
        assert!(bed.a.host.push_frame(&frame));
    }
    bed.settle();
    assert_eq!(bed.a.dropped(DropReason::NotForUs), 3);
    assert!(bed.wire.is_empty());
}
