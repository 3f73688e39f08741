//! RFC 3948 section 4: the NATs in front of many peers hear of a takeover at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hitless_dataplane::aead::Engine;
use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::Command;
use hitless_dataplane::sad::OutboundSa;
use hitless_dataplane::verdict::DropReason;
use hitless_sa::{ChildSa, SaOptions, SequenceNumber, Spi, UdpEncapsulation};

use crate::bed::{Bed, PLENTY, arp, sa_id};

/// More than may wait for one neighbour.
const INHERITED: u32 = 50;
const FIRST_SLOT: u32 = 8;
const NEXT_HOP: [u8; 4] = [192, 0, 2, 77];

/// Halves that a predecessor kept alive, all behind a next hop that is not known yet.
fn inherit(bed: &mut Bed, at_once: bool) {
    for n in 0..INHERITED {
        let child = ChildSa {
            id: sa_id(100 + n),
            outbound_spi: Spi(0xcccc_0000 + n),
            remote: NEXT_HOP.into(),
            encapsulation: Some(UdpEncapsulation {
                local_port: 4500,
                remote_port: 10_000 + n as u16,
            }),
            options: SaOptions {
                keepalive: Some(Duration::from_secs(20)),
                ..SaOptions::default()
            },
            ..bed.child(true)
        };
        let cell = Arc::new(Cell::new(SequenceNumber(1), PLENTY));
        let slot = FIRST_SLOT + n;
        let mut half = OutboundSa::new(&child, cell, slot, Engine::default()).unwrap();
        half.keep_alive_at_once = at_once;
        bed.a.send(Command::InstallOutbound(Box::new(half)));
    }
}

fn next_hop_answers(bed: &mut Bed) {
    let to = [&bed.a.outside_mac[..], &[192, 0, 2, 1]].concat();
    let answer = arp(2, [2, 0, 0, 0, 7, 7], NEXT_HOP, &to);
    assert!(bed.a.wire.push_frame(&answer));
}

/// Turns of gateway A for so many milliseconds; the ports behind the NATs that heard it.
fn run(bed: &mut Bed, milliseconds: u64, heard: &mut Vec<u16>) {
    for _ in 0..milliseconds * 4 {
        bed.now += Duration::from_micros(250);
        bed.a.worker.turn(bed.now);
        for frame in bed.a.take_wire() {
            if frame[12..14] == [8, 0] && frame.len() == 34 + 9 && frame[42] == 0xff {
                heard.push(u16::from_be_bytes([frame[36], frame[37]]));
            }
        }
    }
}

#[test]
fn inherited_mappings_are_refreshed_as_soon_as_the_next_hop_is_known() {
    let mut bed = Bed::new();
    inherit(&mut bed, true);
    let mut heard = Vec::new();
    run(&mut bed, 20, &mut heard);
    assert!(heard.is_empty());
    next_hop_answers(&mut bed);
    run(&mut bed, 3, &mut heard);
    let all: BTreeSet<u16> = heard.iter().copied().collect();
    assert_eq!((heard.len(), all.len()), (50, 50));
    // Once each.
    run(&mut bed, 2_000, &mut heard);
    assert_eq!(heard.len(), 50);
    assert_eq!(bed.a.dropped(DropReason::NeighbourUnresolved), 0);
    bed.a.assert_no_leak();
}

#[test]
fn one_whose_next_hop_never_answers_is_given_up_within_a_second() {
    let mut bed = Bed::new();
    inherit(&mut bed, true);
    let mut heard = Vec::new();
    run(&mut bed, 10_000, &mut heard);
    assert!(heard.is_empty());
    assert!(bed.a.dropped(DropReason::NeighbourUnresolved) > 0);
    bed.a.assert_no_leak();
}

#[test]
fn new_sas_have_mappings_of_their_own() {
    let mut bed = Bed::new();
    inherit(&mut bed, false);
    next_hop_answers(&mut bed);
    let mut heard = Vec::new();
    run(&mut bed, 5_000, &mut heard);
    assert!(heard.is_empty());
}

/// RFC 4555 section 3.8 and RFC 3948 section 4: an SA that moves behind a NAT keeps that one's mapping
/// alive from then on, and no more once it has left it.
#[test]
fn an_sa_that_moves_behind_a_nat_begins_to_keep_it_alive() {
    let mut bed = Bed::new();
    bed.warm_up();
    let mut heard = Vec::new();
    run(&mut bed, 25_000, &mut heard);
    assert!(heard.is_empty());
    let child = bed.child(true);
    let (interval, port) = (Duration::from_secs(20), 23_456);
    for (keepalive, expected) in [(Some(interval), &[port, port, port][..]), (None, &[])] {
        bed.a.send(Command::Update {
            sa: child.id,
            local: child.local,
            remote: child.remote,
            encapsulation: keepalive.map(|_| UdpEncapsulation {
                local_port: 4500,
                remote_port: port,
            }),
            keepalive,
        });
        heard.clear();
        run(&mut bed, 45_000, &mut heard);
        assert_eq!(heard, expected);
    }
}
