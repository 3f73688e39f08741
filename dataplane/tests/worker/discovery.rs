//! Neighbour discovery (RFC 4861): what the worker answers, asks, believes and does not.

use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use hitless_dataplane::command::{Command, Event};
use hitless_dataplane::neighbour::News;
use hitless_dataplane::verdict::DropReason;

use crate::bed::*;

fn bed() -> Bed {
    Bed::with(Settings {
        outer_v6: true,
        ..Settings::default()
    })
}

/// A message: type, flags, destination, target, Ethernet address.
type Said = (u8, u8, [u8; 16], [u8; 16], Vec<u8>);

/// The neighbour discovery among some frames.
fn discoveries(frames: &[Vec<u8>]) -> Vec<Said> {
    let take = |frame: &[u8], at: usize| *frame[at..].first_chunk::<16>().unwrap();
    frames
        .iter()
        .filter(|frame| is_discovery(frame))
        .map(|frame| {
            let sliced = SlicedPacket::from_ethernet(frame).unwrap();
            let (Some(TransportSlice::Icmpv6(icmp)), Some(NetSlice::Ipv6(ip))) =
                (&sliced.transport, &sliced.net)
            else {
                panic!("no ICMPv6");
            };
            let header = ip.header();
            assert!(icmp.is_checksum_valid(header.source(), header.destination()));
            assert_eq!(header.hop_limit(), 255, "RFC 4861 section 7.1");
            let mac = frame[frame.len() - 6..].to_vec();
            (frame[54], frame[58], take(frame, 38), take(frame, 62), mac)
        })
        .collect()
}

pub const STRANGER6: [u8; 16] = v6(0xf, 99);
pub const STRANGER_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];

/// The group of nodes whose address ends like this one (RFC 4291 section 2.7.1).
fn solicited_node(target: [u8; 16]) -> [u8; 16] {
    let mut group = [0; 16];
    (group[0], group[1], group[11], group[12]) = (0xff, 2, 1, 0xff);
    group[13..].copy_from_slice(&target[13..]);
    group
}

#[test]
fn rfc4861_section_7_2_4_solicitations_for_our_addresses_are_answered_and_for_others_not() {
    let mut bed = bed();
    let link_local: [u8; 16] = {
        let [_, b, c, d, e, f] = bed.a.outside_mac;
        [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, b, c, 0xff, 0xfe, d, e, f]
    };
    for target in [OUTSIDE6_A, link_local] {
        let ends = (STRANGER6, solicited_node(target));
        let asked = discovery((135, 0), ends, target, Some(STRANGER_MAC));
        assert!(bed.a.wire.push_frame(&asked));
        bed.a.worker.turn(bed.now);
        let answers = bed.a.take_wire();
        let answer = (136, 0xe0, STRANGER6, target, bed.a.outside_mac.to_vec());
        assert_eq!(discoveries(&answers), [answer]);
        assert_eq!(answers[0][..6], STRANGER_MAC);
    }
    // RFC 4862 section 5.4: somebody without an address wants ours; everybody hears the answer.
    let ends = ([0; 16], solicited_node(OUTSIDE6_A));
    let asked = discovery((135, 0), ends, OUTSIDE6_A, None);
    assert!(bed.a.wire.push_frame(&asked));
    bed.a.worker.turn(bed.now);
    let mut all_nodes = [0; 16];
    (all_nodes[0], all_nodes[1], all_nodes[15]) = (0xff, 2, 1);
    let answer = (136, 0xa0, all_nodes, OUTSIDE6_A, bed.a.outside_mac.to_vec());
    assert_eq!(discoveries(&bed.a.take_wire()), [answer]);
    // Another's address, and one of ours that is not on this link.
    for target in [v6(0xf, 50), INSIDE6_A] {
        let ends = (STRANGER6, solicited_node(target));
        let asked = discovery((135, 0), ends, target, Some(STRANGER_MAC));
        assert!(bed.a.wire.push_frame(&asked));
    }
    bed.a.worker.turn(bed.now);
    assert!(bed.a.take_wire().is_empty());
    assert_eq!(bed.a.dropped(DropReason::NotForUs), 2);
    bed.a.assert_no_leak();
}

#[test]
fn rfc4861_section_7_1_hostile_discovery_changes_nothing() {
    let mut bed = bed();
    bed.a.host_sends(&udp6(HOST6_A, HOST6_B, b"warm"));
    bed.settle();
    let liar = [2, 0, 0, 0, 6, 6];
    let claim = |target| discovery((136, 0x20), (target, v6(0xf, 1)), target, Some(liar));
    let to_a = |mut frame: Vec<u8>| {
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 1, 2]);
        frame
    };
    // Through a router, damaged, our own address, a group as Ethernet address, another link's.
    let mut routed = to_a(claim(OUTSIDE6_B));
    routed[21] = 254;
    let mut damaged = to_a(claim(OUTSIDE6_B));
    damaged[70] ^= 1;
    let ours = to_a(claim(OUTSIDE6_A));
    let ends = (OUTSIDE6_B, OUTSIDE6_A);
    let group = to_a(discovery(
        (136, 0x20),
        ends,
        OUTSIDE6_B,
        Some([3, 0, 0, 0, 0, 1]),
    ));
    let elsewhere = to_a(claim(HOST6_A));
    let bare = to_a(discovery((136, 0x20), ends, OUTSIDE6_B, None));
    // A redirect and a router's advertisement: a gateway is told its routes by its administrator.
    let mut redirect = to_a(claim(OUTSIDE6_B));
    redirect[54] = 137;
    let sum = u16::from_be_bytes([redirect[56], redirect[57]]) - 0x0100;
    redirect[56..58].copy_from_slice(&sum.to_be_bytes());
    for frame in [
        &routed, &damaged, &ours, &group, &elsewhere, &bare, &redirect,
    ] {
        assert!(bed.a.wire.push_frame(frame));
    }
    bed.a.events();
    bed.a.worker.turn(bed.now);
    let count = |reason| bed.a.dropped(reason);
    assert_eq!(count(DropReason::Malformed), 3);
    assert_eq!(count(DropReason::BadChecksum), 1);
    assert_eq!(count(DropReason::NotForUs), 3);
    assert!(bed.a.events().is_empty());
    bed.a.host_sends(&udp6(HOST6_A, HOST6_B, b"x"));
    bed.a.worker.turn(bed.now);
    assert_eq!(bed.a.take_wire()[0][..6], bed.b.outside_mac);
}

#[test]
fn rfc4861_section_7_2_5_a_neighbour_that_moves_is_followed_and_asked() {
    let mut bed = bed();
    bed.a.host_sends(&udp6(HOST6_A, HOST6_B, b"warm"));
    bed.settle();
    bed.a.events();
    let new_mac = [2, 0, 0, 0, 3, 3];
    let mut all_nodes = [0; 16];
    (all_nodes[0], all_nodes[1], all_nodes[15]) = (0xff, 2, 1);
    let ends = (OUTSIDE6_B, all_nodes);
    let told = discovery((136, 0x20), ends, OUTSIDE6_B, Some(new_mac));
    assert!(bed.a.wire.push_frame(&told));
    bed.a.worker.turn(bed.now);
    assert!(bed.a.events().iter().any(|event| matches!(
        event,
        Event::NeighbourLearned(news) if (news.neighbour.port, news.mac) == (OUTSIDE, new_mac)
    )));
    bed.now += Duration::from_secs(2);
    bed.a.host_sends(&udp6(HOST6_A, HOST6_B, b"x"));
    bed.a.worker.turn(bed.now);
    let frames = bed.a.take_wire();
    assert!(frames.iter().all(|frame| frame[..6] == new_mac));
    // Nobody had asked, so it is asked for, in unicast (RFC 4861 section 7.3.3).
    let asked = discoveries(&frames);
    assert_eq!(asked.len(), 1);
    assert_eq!(
        (asked[0].0, asked[0].2, asked[0].3),
        (135, OUTSIDE6_B, OUTSIDE6_B)
    );
}

#[test]
fn rfc4861_section_7_2_2_packets_wait_for_a_neighbour_which_is_asked_three_times() {
    let mut bed = bed();
    bed.b.host_answers = false;
    for n in 1..=5u8 {
        bed.a.host_sends(&udp6(HOST6_A, HOST6_B, &[n]));
        bed.settle();
    }
    assert_eq!(bed.b.worker.frame_account().held, 5);
    assert_eq!(bed.b.dropped(DropReason::NeighbourUnresolved), 0);
    bed.b.host_answers = true;
    bed.advance(Duration::from_secs(1));
    bed.settle();
    let bodies: Vec<u8> = bed.b.delivered.iter().map(|frame| frame[62]).collect();
    assert_eq!(bodies, [1, 2, 3, 4, 5]);
    // Silence: three questions, then what waits is lost.
    bed.b.host_answers = false;
    let unknown = v6(2, 77);
    bed.a.host_sends(&udp6(HOST6_A, unknown, b"x"));
    let mut asked = 0;
    for _ in 0..60 {
        bed.now += Duration::from_millis(100);
        bed.a.worker.turn(bed.now);
        bed.a
            .take_wire()
            .iter()
            .for_each(|frame| assert!(bed.b.wire.push_frame(frame)));
        bed.b.worker.turn(bed.now);
        bed.b
            .take_wire()
            .iter()
            .for_each(|frame| assert!(bed.a.wire.push_frame(frame)));
        let frames = drain(&mut bed.b.host);
        let group = solicited_node(unknown);
        asked += discoveries(&frames)
            .iter()
            .filter(|(kind, _, to, target, _)| (*kind, *to, *target) == (135, group, unknown))
            .count();
    }
    assert_eq!(
        (asked, bed.b.dropped(DropReason::NeighbourUnresolved)),
        (3, 1)
    );
    bed.b.assert_no_leak();
}

#[test]
fn rfc4861_section_7_2_6_an_announcement_tells_every_ipv6_address_three_times() {
    let mut bed = bed();
    bed.a.send(Command::Announce);
    let mut times = Vec::new();
    for tick in 0..30u64 {
        bed.a.worker.turn(bed.now);
        let (wire, host) = (bed.a.take_wire(), drain(&mut bed.a.host));
        if !wire.is_empty() {
            times.push(tick * 50);
            for (frames, address, mac) in [
                (&wire, OUTSIDE6_A, bed.a.outside_mac),
                (&host, INSIDE6_A, bed.a.inside_mac),
            ] {
                let told = discoveries(frames);
                assert_eq!(told.len(), 2, "the link-local address too");
                let (kind, flags, to, target, said) = &told[0];
                // Unsolicited, from a router, overriding; to all nodes.
                assert_eq!((*kind, *flags, *target), (136, 0xa0, address));
                assert_eq!((to[..2].to_vec(), to[15]), (vec![0xff, 2], 1));
                assert_eq!(said[..], mac);
            }
        }
        bed.now += Duration::from_millis(50);
    }
    assert_eq!(times, [0, 200, 1000]);
}

/// A card gives answers to one of its queues, whoever asked.
#[test]
fn rfc4861_section_7_2_5_an_answer_to_another_workers_question_is_told_and_not_kept() {
    let mut bed = bed();
    bed.warm_up();
    bed.a.events();
    let answer = |target| {
        discovery(
            (136, 0x60),
            (target, OUTSIDE6_A),
            target,
            Some(STRANGER_MAC),
        )
    };
    let mut told = |said: &[u8]| {
        bed.now += Duration::from_secs(1);
        let to_us = frame(bed.a.outside_mac, STRANGER_MAC, &said[14..]);
        assert!(bed.a.wire.push_frame(&to_us));
        bed.a.worker.turn(bed.now);
        let told = bed.a.events().into_iter().filter(|event| {
            matches!(event, Event::NeighbourLearned(news)
                if (news.neighbour.port, news.mac) == (OUTSIDE, STRANGER_MAC))
        });
        told.count()
    };
    // Nobody is known by that address, and nobody is after it either.
    for _ in 0..2 {
        assert_eq!(told(&answer(STRANGER6)), 1);
    }
    // Unsolicited, it answers no question; without the override flag it is nothing to anybody.
    let unasked = discovery(
        (136, 0x00),
        (STRANGER6, OUTSIDE6_A),
        STRANGER6,
        Some(STRANGER_MAC),
    );
    assert_eq!(told(&unasked), 0);
    // Without the override flag it does not correct what is known.
    let other = discovery(
        (136, 0x40),
        (OUTSIDE6_B, OUTSIDE6_A),
        OUTSIDE6_B,
        Some(STRANGER_MAC),
    );
    assert_eq!(told(&other), 0);
}

/// What one worker hears of a neighbour that it does not use, another one does.
#[test]
fn rfc4861_section_7_2_5_what_is_told_corrects_what_was_heard_with_the_override_flag_only() {
    let known = [2, 0, 0, 0, 4, 4];
    // With these flags, the Ethernet address that the other worker goes by afterwards.
    let goes_by = |flags: u8| {
        let (mut hears, mut uses) = (bed(), bed());
        for bed in [&mut hears, &mut uses] {
            bed.warm_up();
            bed.a.events();
        }
        let address = std::net::Ipv6Addr::from(STRANGER6).into();
        let news = News::certain(OUTSIDE, address, known);
        uses.a.send(Command::Neighbour(news));
        uses.a.worker.turn(uses.now);
        let ends = (STRANGER6, OUTSIDE6_A);
        let said = discovery((136, flags), ends, STRANGER6, Some(STRANGER_MAC));
        let to_us = frame(hears.a.outside_mac, STRANGER_MAC, &said[14..]);
        assert!(hears.a.wire.push_frame(&to_us));
        hears.a.worker.turn(hears.now);
        for event in hears.a.events() {
            if let Event::NeighbourLearned(news) = event {
                uses.a.send(Command::Neighbour(news));
            }
        }
        uses.a.worker.turn(uses.now);
        uses.a.take_wire();
        // It asks him: the answer goes where he is known to be.
        let asks = discovery((135, 0), (STRANGER6, OUTSIDE6_A), OUTSIDE6_A, None);
        let to_us = frame(uses.a.outside_mac, STRANGER_MAC, &asks[14..]);
        assert!(uses.a.wire.push_frame(&to_us));
        uses.a.worker.turn(uses.now);
        let answers = uses.a.take_wire();
        assert_eq!(answers.len(), 1);
        <[u8; 6]>::try_from(&answers[0][..6]).unwrap()
    };
    // Unsolicited or solicited, without the override flag and with it.
    assert_eq!([goes_by(0x00), goes_by(0x40)], [known; 2]);
    assert_eq!([goes_by(0x20), goes_by(0x60)], [STRANGER_MAC; 2]);
}

/// The packets of a tunnel may come to another worker at any time, which is not to wait for an answer
/// that was given just now.
#[test]
fn rfc4861_section_7_2_5_what_one_worker_asked_for_another_one_knows() {
    let (mut asks, mut uses) = (bed(), bed());
    asks.a.host_sends(&udp6(HOST6_A, HOST6_B, b"x"));
    asks.settle();
    for event in asks.a.events() {
        if let Event::NeighbourLearned(news) = event {
            uses.a.send(Command::Neighbour(news));
        }
    }
    uses.a.worker.turn(uses.now);
    uses.a.host_sends(&udp6(HOST6_A, HOST6_B, b"x"));
    uses.a.worker.turn(uses.now);
    let frames = uses.a.take_wire();
    assert_eq!(discoveries(&frames), []);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0][..6], asks.b.outside_mac);
}
