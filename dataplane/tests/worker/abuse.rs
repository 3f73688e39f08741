//! What somebody could make of copies, of dummies, and of packets that wait; and a hub between two
//! tunnels, whose senders are told what fits.

use std::sync::Arc;
use std::time::Duration;

use hitless_dataplane::aead::Engine;
use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::{Command, Event};
use hitless_dataplane::fib::{Fib, Route};
use hitless_dataplane::sad::{InboundSa, OutboundSa};
use hitless_dataplane::spd::{Action, Spd};
use hitless_dataplane::verdict::DropReason;
use hitless_sa::{ChildSa, Lease, SequenceNumber, Spi, UdpEncapsulation};

use crate::bed::*;
use crate::drops::forge;

const NAT: UdpEncapsulation = UdpEncapsulation {
    local_port: 4500,
    remote_port: 4500,
};
const OUTSIDER: [u8; 4] = [203, 0, 113, 9];

fn up_to(high_water: u64) -> Lease {
    Lease {
        high_water: SequenceNumber(high_water),
        ..PLENTY
    }
}

#[test]
fn rfc7296_section_2_23_a_copy_of_a_packet_that_waits_moves_no_peer() {
    let mut bed = Bed::with(Settings {
        encapsulation: Some(NAT),
        ..Settings::default()
    });
    bed.warm_up();
    bed.install(PLENTY, up_to(0));
    let esp = bed.seal(&udp(HOST_A, HOST_B, b"waits"));
    bed.b.wire_brings(&esp);
    bed.settle();
    assert_eq!(bed.b.worker.frame_account().parked, 1);
    let mut copy = esp;
    copy[20..22].copy_from_slice(&40_000u16.to_be_bytes());
    bed.b.wire_brings(&copy);
    bed.settle();
    bed.b.cell.raise(PLENTY);
    bed.settle();
    bed.b.wire_brings(&copy);
    bed.settle();
    assert_eq!(bed.b.delivered.len(), 1);
    assert_eq!(bed.b.dropped(DropReason::Replay), 2);
    let moved = |event: &Event| matches!(event, Event::PeerMoved { .. });
    assert_eq!(
        bed.b.events().iter().filter(|event| moved(event)).count(),
        0
    );
    // A dummy is the peer's word as well.
    let mut dummy = udp_ports(
        OUTSIDE_A,
        OUTSIDE_B,
        40_000,
        4500,
        &forge(9, 59, &[0; 40])[20..],
    );
    dummy = hops_later(&dummy, 0);
    bed.b.wire_brings(&dummy);
    bed.settle();
    assert_eq!(bed.b.dropped(DropReason::Dummy), 1);
    assert_eq!(
        bed.b.events().iter().filter(|event| moved(event)).count(),
        1
    );
}

#[test]
fn rfc4303_section_2_6_a_dummy_above_the_high_water_costs_no_packet_that_waits() {
    let mut bed = Bed::new();
    bed.warm_up();
    bed.install(PLENTY, up_to(0));
    for n in 0..3 {
        bed.a.host_sends(&udp(HOST_A, HOST_B, &[n]));
    }
    bed.settle();
    assert_eq!(bed.b.worker.frame_account().parked, 3);
    // More than a window further.
    bed.b.wire_brings(&forge(5000, 59, &[0; 40]));
    bed.settle();
    assert_eq!(bed.b.dropped(DropReason::Dummy), 1);
    bed.b.cell.raise(up_to(100));
    bed.settle();
    assert_eq!(bed.b.delivered.len(), 3);
    assert_eq!(bed.b.dropped(DropReason::Replay), 0);
}

/// Host A's way to an outsider in clear, by a router that has not been heard of.
fn routes(router: &str) -> Command {
    let route = |prefix: [u8; 4], length, port, next_hop: Option<&str>| Route {
        prefix: (prefix.into(), length),
        port,
        next_hop: next_hop.map(|hop| hop.parse().unwrap()),
    };
    Command::Routes(Arc::new(Fib::new(&[
        route([10, 1, 0, 0], 16, INSIDE, None),
        route([192, 0, 2, 0], 24, OUTSIDE, None),
        route([203, 0, 113, 0], 24, OUTSIDE, Some(router)),
    ])))
}

/// A bed whose A holds a packet in clear, and one of ESP for a peer that does not answer.
fn bed_that_holds() -> Bed {
    let mut bed = Bed::new();
    bed.warm_up();
    bed.a.send(routes("192.0.2.77"));
    bed.a.send(Command::Update {
        sa: sa_id(1),
        local: OUTSIDE_A.into(),
        remote: [192, 0, 2, 78].into(),
        encapsulation: None,
        keepalive: None,
    });
    bed.a.host_sends(&udp(HOST_A, OUTSIDER, b"in clear"));
    bed.a.host_sends(&udp(HOST_A, HOST_B, b"protected"));
    bed.settle();
    assert_eq!(bed.a.worker.frame_account().held, 2);
    bed.wire.clear();
    bed
}

/// The neighbours of A answer at last.
fn neighbours_answer(bed: &mut Bed) {
    for last in [77, 78, 79] {
        let answer = arp(
            2,
            [2, 0, 0, 0, 7, last],
            [192, 0, 2, last],
            &[&bed.a.outside_mac[..], &OUTSIDE_A].concat(),
        );
        assert!(bed.a.wire.push_frame(&answer));
    }
    bed.settle();
}

#[test]
fn rfc4301_section_5_1_what_waits_for_a_neighbour_leaves_by_no_policy_that_has_gone() {
    let protect = policy(
        "10.1.0.0/16",
        "10.2.0.0/16",
        Action::Protect(Some(sa_id(1))),
    );
    for (action, kept) in [
        (Some(Action::Protect(None)), false),
        (Some(Action::Discard), false),
        (None, false),
        (Some(Action::Bypass), true),
    ] {
        let mut bed = bed_that_holds();
        let now = action.map(|action| policy("10.1.0.0/16", "203.0.113.0/24", action));
        let all = now.into_iter().chain([protect.clone()]).collect();
        bed.a.send(Command::Policies(Arc::new(Spd::new(all))));
        bed.settle();
        assert_eq!(bed.a.dropped(DropReason::Outdated), u64::from(!kept));
        neighbours_answer(&mut bed);
        let mut protocols: Vec<u8> = bed.wire.iter().map(|frame| frame[23]).collect();
        protocols.sort_unstable();
        let expected: &[u8] = if kept { &[17, 50] } else { &[50] };
        assert_eq!(protocols, expected, "{action:?}");
    }
}

#[test]
fn what_waits_for_a_router_in_clear_does_not_go_by_it_when_it_is_none_any_more() {
    for (router, kept) in [("192.0.2.77", true), ("192.0.2.79", false)] {
        let mut bed = bed_that_holds();
        bed.a.send(routes(router));
        bed.settle();
        assert_eq!(bed.a.dropped(DropReason::Outdated), u64::from(!kept));
        neighbours_answer(&mut bed);
        assert_eq!(bed.wire.len(), 1 + usize::from(kept));
    }
}

#[test]
fn what_a_tunnel_brought_and_waits_for_its_host_is_delivered_whatever_policies_come() {
    let mut bed = Bed::new();
    bed.b.host_answers = false;
    bed.a.host_sends(&udp(HOST_A, HOST_B, b"first"));
    bed.settle();
    assert_eq!(bed.b.worker.frame_account().held, 1);
    let again = policy(
        "10.2.0.0/16",
        "10.1.0.0/16",
        Action::Protect(Some(sa_id(1))),
    );
    bed.b
        .send(Command::Policies(Arc::new(Spd::new(vec![again]))));
    bed.b.host_answers = true;
    bed.advance(Duration::from_millis(1100));
    assert_eq!(bed.b.delivered.len(), 1);
    assert_eq!(bed.b.dropped(DropReason::Outdated), 0);
}

/// Makes B a hub: what comes from A goes on to 10.3.0.0/16 through another tunnel, which is narrower.
fn hub(bed: &mut Bed) {
    let from_a = ChildSa {
        local_ts: vec!["10.2.0.0/15".parse().unwrap()],
        ..bed.child(false)
    };
    let onward = ChildSa {
        id: sa_id(2),
        inbound_spi: Spi(0xbbbb_0002),
        outbound_spi: Spi(0xcccc_0001),
        remote: [192, 0, 2, 3].into(),
        encapsulation: Some(NAT),
        local_ts: vec!["10.0.0.0/14".parse().unwrap()],
        remote_ts: vec!["10.3.0.0/16".parse().unwrap()],
        ..bed.child(false)
    };
    let cell = Arc::new(Cell::new(SequenceNumber(1), PLENTY));
    let floor = SequenceNumber(0);
    let inbound = InboundSa::new(&from_a, Arc::clone(&bed.b.cell), floor, 0, Engine::AwsLc);
    let outbound = OutboundSa::new(&onward, cell, 1, Engine::AwsLc);
    bed.b
        .send(Command::InstallInbound(Box::new(inbound.unwrap())));
    bed.b
        .send(Command::InstallOutbound(Box::new(outbound.unwrap())));
    bed.b.send(Command::Policies(Arc::new(Spd::new(vec![
        policy(
            "10.2.0.0/15",
            "10.1.0.0/16",
            Action::Protect(Some(sa_id(1))),
        ),
        policy(
            "10.1.0.0/16",
            "10.3.0.0/16",
            Action::Protect(Some(sa_id(2))),
        ),
    ]))));
    bed.settle();
}

#[test]
fn rfc4301_section_8_2_a_sender_behind_one_tunnel_is_told_what_fits_through_the_next() {
    let mut bed = Bed::new();
    bed.warm_up();
    hub(&mut bed);
    let onward = |length: usize| udp(HOST_A, [10, 3, 0, 5], &vec![7; length - 28]);
    bed.b.wire_brings(&forge(100, 4, &onward(1446)));
    bed.settle();
    assert_eq!(bed.b.dropped(DropReason::TooBig), 1);
    let errors: Vec<_> = bed.a.delivered.drain(..).collect();
    let [error] = errors.as_slice() else {
        panic!("told {} times", errors.len());
    };
    let error = &error[14..];
    assert_eq!(
        (&error[12..16], &error[16..20]),
        (&INSIDE_B[..], &HOST_A[..])
    );
    assert_eq!((error[9], &error[20..22]), (1, &[3, 4][..]));
    let fits = usize::from(u16::from_be_bytes([error[26], error[27]]));
    assert!((1400..1446).contains(&fits), "{fits}");
    // What was told is right, and told to nobody else.
    bed.wire.clear();
    bed.b.wire_brings(&forge(101, 4, &onward(fits)));
    bed.b.wire_brings(&forge(102, 4, &onward(fits + 4)));
    bed.settle();
    assert_eq!(bed.a.delivered.len(), 1);
    assert_eq!(bed.b.dropped(DropReason::TooBig), 2);
    assert_eq!(bed.b.worker.frame_account().held, 1, "for the other peer");
    bed.b.assert_no_leak();
}

#[test]
fn rfc4861_section_7_2_3_a_flood_of_solicitations_makes_us_forget_nobody_whom_we_send_to() {
    let mut bed = Bed::with(Settings {
        outer_v6: true,
        ..Settings::default()
    });
    bed.warm_up();
    let mac = [2, 0, 0, 0, 9, 9];
    for n in 0..4000u16 {
        let mut from = v6(0xf, 0);
        from[10..12].copy_from_slice(&(n + 1).to_be_bytes());
        let asked = discovery((135, 0), (from, OUTSIDE6_A), OUTSIDE6_A, Some(mac));
        let asked = frame(bed.a.outside_mac, mac, &asked[14..]);
        assert!(bed.a.wire.push_frame(&asked));
        bed.now += Duration::from_micros(100);
        bed.a.worker.turn(bed.now);
        let answers = bed.a.take_wire();
        assert!(answers.len() == 1 && is_discovery(&answers[0]), "{n}");
        assert_eq!(answers[0][..6], mac);
    }
    bed.a.host_sends(&udp6(HOST6_A, HOST6_B, b"still known"));
    bed.a.worker.turn(bed.now);
    let sent = bed.a.take_wire();
    assert_eq!(sent.len(), 1);
    assert!(!is_discovery(&sent[0]), "asked for again");
}
