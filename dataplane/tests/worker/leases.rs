//! Leases as a worker obeys them: outbound grants, inbound high water, step-down, barriers.

use std::sync::Arc;
use std::time::Duration;

use hitless_dataplane::aead::Engine;
use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::{Command, Event};
use hitless_dataplane::neighbour::News;
use hitless_dataplane::replay::WindowState;
use hitless_dataplane::sad::InboundSa;
use hitless_dataplane::verdict::DropReason;
use hitless_sa::{Lease, SequenceNumber};

use crate::bed::*;

fn lease(grant: u64, high_water: u64) -> Lease {
    Lease {
        grant: SequenceNumber(grant),
        high_water: SequenceNumber(high_water),
    }
}

/// A bed whose B delivers up to `high_water` only.
fn bed_with_high_water(high_water: u64) -> Bed {
    let mut bed = Bed::new();
    bed.warm_up();
    bed.install(PLENTY, lease(1 << 40, high_water));
    bed.settle();
    bed.b.events();
    bed
}

fn send(bed: &mut Bed, count: u8) {
    for n in 1..=count {
        bed.a.host_sends(&udp(HOST_A, HOST_B, &[n; 9]));
    }
    bed.settle();
}

fn bodies(gateway: &Gateway) -> Vec<u8> {
    gateway.delivered.iter().map(|frame| frame[42]).collect()
}

#[test]
fn a_grant_is_used_to_its_last_number_and_not_beyond_s1() {
    let mut bed = Bed::new();
    bed.warm_up();
    bed.install(lease(5, 1 << 40), PLENTY);
    send(&mut bed, 8);
    assert_eq!(bed.wire.len(), 5);
    assert_eq!(bed.a.dropped(DropReason::LeaseExhausted), 3);
    assert_eq!(bed.a.handle.counters.esp().lease_stalls, 1);
    assert_eq!(
        bed.a.cell.cursor(),
        SequenceNumber(6),
        "D1: the cursor stays at the limit"
    );
    bed.a.cell.raise(lease(7, 1 << 40));
    send(&mut bed, 3);
    let numbers: Vec<u8> = bed.wire.iter().map(|frame| frame[14 + 20 + 7]).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn packets_above_the_high_water_wait_and_are_delivered_when_it_rises_r8() {
    let mut bed = bed_with_high_water(2);
    send(&mut bed, 5);
    assert_eq!(bodies(&bed.b), [1, 2]);
    let account = bed.b.worker.frame_account();
    assert_eq!(account.parked, 3);
    assert_eq!(
        bed.b.cell.inbound_top(),
        SequenceNumber(5),
        "what is asked for"
    );
    let wanted = bed.b.events().into_iter().find_map(|event| match event {
        Event::HighWater { sa, wanted } if sa == sa_id(1) => Some(wanted),
        _ => None,
    });
    assert_eq!(wanted, Some(SequenceNumber(3)));
    bed.b.cell.raise(lease(0, 4));
    bed.settle();
    assert_eq!(bodies(&bed.b), [1, 2, 3, 4]);
    bed.b.cell.raise(lease(0, 9));
    bed.settle();
    assert_eq!(bodies(&bed.b), [1, 2, 3, 4, 5]);
    assert_eq!(bed.b.handle.counters.drops().count(), 0);
    assert_eq!(bed.b.handle.counters.esp().packets_in, 1 + 5);
}

#[test]
fn of_two_copies_one_waits_and_is_delivered_once_b3() {
    let mut bed = bed_with_high_water(0);
    let esp = bed.seal(&udp(HOST_A, HOST_B, &[1; 9]));
    for copy in 0..2 {
        bed.b.wire_brings(&esp);
        bed.settle();
        assert_eq!(bed.b.worker.frame_account().parked, 1);
        assert_eq!(bed.b.dropped(DropReason::Replay), copy);
    }
    bed.b.cell.raise(lease(0, 9));
    bed.settle();
    bed.b.wire_brings(&esp);
    bed.settle();
    assert_eq!(bodies(&bed.b), [1]);
    assert_eq!(bed.b.dropped(DropReason::Replay), 2);
}

#[test]
fn what_waits_dies_with_its_cell_b1() {
    // Another leadership: the same SA under a new cell that would allow the number.
    let mut bed = bed_with_high_water(0);
    send(&mut bed, 1);
    let before = Arc::clone(&bed.b.inbound);
    bed.install(PLENTY, PLENTY);
    bed.settle();
    assert!(bed.b.delivered.is_empty());
    assert_eq!(bed.b.dropped(DropReason::HighWater), 1);
    assert_eq!(
        (before.drops().count(), bed.b.inbound.drops().count()),
        (1, 0)
    );
    // The SA removed.
    let mut bed = bed_with_high_water(0);
    send(&mut bed, 1);
    bed.b.send(Command::Remove(sa_id(1)));
    bed.settle();
    assert_eq!(bed.b.dropped(DropReason::HighWater), 1);
    // The cell frozen, then raised too late.
    let mut bed = bed_with_high_water(0);
    send(&mut bed, 1);
    bed.b.cell.freeze();
    bed.b.cell.raise(PLENTY);
    bed.settle();
    assert_eq!(bed.b.dropped(DropReason::NotActive), 1);
    assert!(bed.b.delivered.is_empty());
}

#[test]
fn nobody_waits_for_ever() {
    let mut bed = bed_with_high_water(0);
    send(&mut bed, 3);
    bed.advance(Duration::from_millis(999));
    assert_eq!(bed.b.worker.frame_account().parked, 3);
    bed.advance(Duration::from_millis(1));
    assert_eq!(bed.b.dropped(DropReason::HighWater), 3);
}

#[test]
fn a_frozen_cell_sends_and_delivers_nothing() {
    let mut bed = Bed::new();
    bed.warm_up();
    let late = bed.seal(&udp(HOST_A, HOST_B, b"late"));
    bed.a.cell.freeze();
    bed.b.cell.freeze();
    bed.a.host_sends(&udp(HOST_A, HOST_B, b"x"));
    bed.b.wire_brings(&late);
    bed.settle();
    assert_eq!(bed.a.dropped(DropReason::NotActive), 1);
    assert_eq!(bed.b.dropped(DropReason::NotActive), 1);
    assert!(bed.wire.is_empty() && bed.b.delivered.is_empty());
}

#[test]
fn who_does_not_lead_says_nothing_at_all() {
    says_nothing_after(|bed| bed.b.leadership.set(false));
}

#[test]
fn a_worker_whose_control_thread_hangs_says_nothing_at_all_until_it_gets_on() {
    let mut bed = says_nothing_after(|bed| bed.now += Duration::from_millis(2_001));
    bed.b.host_answers = true;
    bed.b.leadership.attend(bed.now + Duration::from_secs(2));
    bed.settle();
    // What waited is gone; what comes now has its way.
    let before = bed.wire.len();
    bed.b.host_sends(&udp(HOST_B, HOST_A, b"x"));
    bed.settle();
    assert_eq!(bed.wire.len(), before + 1);
}

/// A bed whose side B does not lead any more after that.
fn says_nothing_after(end: fn(&mut Bed)) -> Bed {
    let mut bed = bed_with_high_water(0);
    bed.b.leadership.attend(bed.now + Duration::from_secs(2));
    send(&mut bed, 2);
    bed.b.worker.turn(bed.now);
    // Something that waits for a neighbour, too.
    bed.b.host_answers = false;
    bed.b.send(Command::Announce);
    bed.settle();
    let late = bed.seal(&udp(HOST_A, HOST_B, b"late"));
    end(&mut bed);
    bed.b.wire_brings(&late);
    bed.b.host_sends(&udp(HOST_B, HOST_A, b"x"));
    bed.b.host_sends(&echo(HOST_B, INSIDE_B));
    let who_has = arp(
        1,
        bed.b.host_mac,
        HOST_B,
        &[&[0; 6][..], &INSIDE_B].concat(),
    );
    assert!(bed.b.host.push_frame(&who_has));
    assert!(
        bed.b
            .handle
            .inject(&udp_ports(OUTSIDE_B, OUTSIDE_A, 500, 500, b"IKE"))
    );
    bed.wire.clear();
    for _ in 0..20 {
        bed.now += Duration::from_millis(100);
        bed.b.worker.turn(bed.now);
    }
    assert!(
        bed.b.take_wire().is_empty(),
        "nothing on the unprotected side"
    );
    assert!(
        drain(&mut bed.b.host).is_empty(),
        "nothing on the protected side"
    );
    // Two parked, then ESP, clear text, echo, ARP and the injected packet.
    assert_eq!(bed.b.dropped(DropReason::NotActive), 7);
    bed.b.assert_no_leak();
    bed
}

#[test]
fn a_barrier_is_answered_when_all_earlier_bursts_are_out_r14() {
    let mut bed = Bed::new();
    bed.warm_up();
    for _ in 0..100 {
        bed.a.host_sends(&udp(HOST_A, HOST_B, b"x"));
    }
    bed.a.worker.turn(bed.now);
    bed.a.leadership.set(false);
    let cursor = bed.a.cell.freeze();
    bed.a.send(Command::Barrier(42));
    bed.a.worker.turn(bed.now);
    assert!(
        bed.a
            .events()
            .iter()
            .any(|event| matches!(event, Event::Barrier(42)))
    );
    let sent = bed.a.take_wire().len() as u64;
    assert_eq!(
        cursor,
        SequenceNumber(2 + sent),
        "FINAL tells exactly what was used"
    );
    for _ in 0..5 {
        bed.a.worker.turn(bed.now);
    }
    assert!(bed.a.take_wire().is_empty());
    assert_eq!(bed.a.dropped(DropReason::NotActive), 100 - sent);
}

#[test]
fn what_waits_for_a_neighbour_does_not_leave_after_a_barrier_nor_in_a_later_leadership_r14() {
    const NEWCOMER: [u8; 4] = [10, 2, 0, 77];
    let mut bed = Bed::new();
    bed.warm_up();
    bed.a.host_sends(&udp(HOST_A, NEWCOMER, b"waits"));
    bed.settle();
    assert_eq!(bed.b.worker.frame_account().held, 1);
    bed.b.leadership.set(false);
    bed.b.send(Command::Neighbour(News::certain(
        INSIDE,
        NEWCOMER.into(),
        bed.b.host_mac,
    )));
    bed.b.send(Command::Barrier(7));
    bed.b.worker.turn(bed.now);
    let passed = |event: &Event| matches!(event, Event::Barrier(7));
    assert!(bed.b.events().iter().any(passed));
    assert_eq!(bed.b.dropped(DropReason::NotActive), 1);
    assert_eq!(bed.b.worker.frame_account().held, 0);
    bed.b.assert_no_leak();
    // What the control thread injects flushes the bursts, and so does another leadership.
    let ike = udp_ports(OUTSIDE_B, OUTSIDE_A, 500, 500, b"IKE");
    assert!(bed.b.handle.inject(&ike));
    bed.b.worker.turn(bed.now);
    bed.b.leadership.set(true);
    for _ in 0..5 {
        bed.b.worker.turn(bed.now);
    }
    assert!(drain(&mut bed.b.host).is_empty(), "nothing leaves");
    bed.b.assert_no_leak();
    // The neighbour has been learnt all the same.
    bed.a.host_sends(&udp(HOST_A, NEWCOMER, b"goes"));
    bed.settle();
    assert_eq!(bodies(&bed.b), [b'g']);
}

/// Seed 13848 of the simulator: a worker was paused, and what it had sealed for a router that it did
/// not know yet left in a later leadership of its member, behind the numbers of another member.
#[test]
fn what_waits_does_not_leave_in_a_later_leadership_although_the_worker_slept_through_the_change_r14()
 {
    const NEWCOMER: [u8; 4] = [10, 2, 0, 77];
    let mut bed = bed_with_high_water(1);
    // Opened, and held for a neighbour; opened, and parked for the high water.
    for body in [b"held", b"park"] {
        bed.a.host_sends(&udp(HOST_A, NEWCOMER, body));
    }
    bed.settle();
    let account = bed.b.worker.frame_account();
    assert_eq!((account.held, account.parked), (1, 1));
    // Given to the worker, and not taken.
    let ike = udp_ports(OUTSIDE_B, OUTSIDE_A, 500, 500, b"old");
    assert!(bed.b.handle.inject(&ike));
    bed.wire.clear();
    let dropped = bed.b.dropped(DropReason::NotActive);
    bed.b.leadership.set(false);
    bed.b.leadership.set(true);
    bed.b.cell.raise(PLENTY);
    bed.b.send(Command::Neighbour(News::certain(
        INSIDE,
        NEWCOMER.into(),
        bed.b.host_mac,
    )));
    bed.b.send(Command::Barrier(7));
    bed.b.send(Command::Announce);
    let ike = udp_ports(OUTSIDE_B, OUTSIDE_A, 500, 500, b"new");
    assert!(bed.b.handle.inject(&ike));
    bed.b.worker.turn(bed.now);
    let passed = |event: &Event| matches!(event, Event::Barrier(7));
    assert!(bed.b.events().iter().any(passed));
    assert_eq!(bed.b.dropped(DropReason::NotActive) - dropped, 3);
    bed.b.assert_no_leak();
    // What the new leadership has to say is said.
    bed.b.worker.turn(bed.now);
    let sent = bed.b.take_wire();
    let said = |body: &[u8]| sent.iter().any(|frame| frame.ends_with(body));
    assert!(said(b"new") && !said(b"old"));
    let announced = drain(&mut bed.b.host);
    assert!(
        !announced.is_empty(),
        "the announcement is of this leadership"
    );
    assert!(
        !announced
            .iter()
            .any(|frame| frame.ends_with(b"held") || frame.ends_with(b"park"))
    );
    bed.b.assert_no_leak();
}

#[test]
fn a_window_is_told_on_request_and_an_unknown_sa_has_none() {
    let mut bed = Bed::new();
    bed.warm_up();
    send(&mut bed, 3);
    for (sa, question) in [(sa_id(1), 5), (sa_id(9), 6)] {
        bed.b.send(Command::QueryWindow { sa, question });
    }
    bed.settle();
    let windows: Vec<_> = bed
        .b
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Window {
                sa,
                question,
                state,
            } => Some((sa, question, state.map(|state| state.top))),
            _ => None,
        })
        .collect();
    assert_eq!(
        windows,
        [(sa_id(1), 5, Some(SequenceNumber(4))), (sa_id(9), 6, None)]
    );
}

#[test]
fn commands_wait_until_their_answers_have_room() {
    let mut bed = Bed::new();
    bed.warm_up();
    bed.a.events();
    let (mut asked, mut answered) = (0, Vec::new());
    while asked < 5000 {
        while asked < 5000 && bed.a.handle.send(Command::Barrier(asked)).is_ok() {
            asked += 1;
        }
        for _ in 0..40 {
            bed.a.worker.turn(bed.now);
        }
        answered.extend(bed.a.events());
    }
    for _ in 0..200 {
        bed.a.worker.turn(bed.now);
        answered.extend(bed.a.events());
    }
    let numbers: Vec<u64> = answered
        .into_iter()
        .filter_map(|event| match event {
            Event::Barrier(number) => Some(number),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, (0..5000).collect::<Vec<u64>>());
}

#[test]
fn a_second_sa_for_a_taken_slot_or_spi_comes_back() {
    use hitless_dataplane::aead::Engine;
    use hitless_dataplane::command::Retired;
    use hitless_dataplane::sad::{Conflict, InboundSa};
    let mut bed = Bed::new();
    let mut child = bed.child(true);
    child.id = sa_id(2);
    let cell = bed.a.cell.clone();
    let second = InboundSa::new(&child, cell, SequenceNumber(0), 1, Engine::AwsLc).unwrap();
    bed.a.send(Command::InstallInbound(Box::new(second)));
    bed.settle();
    let events = bed.a.events();
    let refused = |event: &Event| matches!(event, Event::Refused { sa, conflict: Conflict::SpiTaken } if *sa == sa_id(2));
    assert!(events.iter().any(refused));
    let back =
        |event: &Event| matches!(event, Event::Retired(Retired::Inbound(sa)) if sa.id == sa_id(2));
    assert!(events.iter().any(back));
}

/// A bed whose B has taken its SA over with this floor.
fn bed_after_takeover(floor: u64) -> Bed {
    let mut bed = Bed::new();
    bed.warm_up();
    let child = bed.child(false);
    let cell = Arc::new(Cell::new(SequenceNumber(1), PLENTY));
    let floor = SequenceNumber(floor);
    let inbound = InboundSa::new(&child, cell, floor, 0, Engine::AwsLc).unwrap();
    bed.install(PLENTY, PLENTY);
    bed.b.send(Command::InstallInbound(Box::new(inbound)));
    bed.settle();
    bed.b.events();
    bed
}

/// How often B has said since the last time that its peer is below the floor.
fn told_below_floor(bed: &mut Bed) -> usize {
    let events = bed.b.events();
    let below = |event: &&Event| matches!(event, Event::BelowFloor { sa } if *sa == sa_id(1));
    events.iter().filter(below).count()
}

fn window_of_b(bed: &mut Bed) -> Option<WindowState> {
    let (sa, question) = (sa_id(1), 7);
    bed.b.send(Command::QueryWindow { sa, question });
    bed.settle();
    bed.b.events().into_iter().find_map(|event| match event {
        Event::Window { state, .. } => state,
        _ => None,
    })
}

#[test]
fn a_forged_packet_below_the_floor_is_not_reported() {
    let mut bed = bed_after_takeover(40);
    let before = window_of_b(&mut bed);
    assert!(before.is_some());
    let esp = bed.seal(&udp(HOST_A, HOST_B, b"x"));
    // Number, IV, text and ICV damaged in turn.
    let forged: Vec<Vec<u8>> = [27, 28, 40, esp.len() - 1]
        .into_iter()
        .map(|at| {
            let mut copy = esp.clone();
            copy[at] ^= 1;
            copy
        })
        .collect();
    for packet in &forged {
        bed.b.wire_brings(packet);
        bed.settle();
        assert_eq!(told_below_floor(&mut bed), 0);
    }
    assert_eq!(bed.b.dropped(DropReason::Replay), 4);
    bed.b.wire_brings(&esp);
    bed.settle();
    assert_eq!(told_below_floor(&mut bed), 1, "the peer itself");
    assert_eq!(bed.b.dropped(DropReason::Replay), 5);
    assert_eq!(window_of_b(&mut bed), before, "nothing was marked");
    assert!(bed.b.delivered.is_empty());
    bed.b.assert_no_leak();
}

#[test]
fn forgeries_below_the_floor_cost_sixteen_decryptions_in_a_tenth_of_a_second() {
    let mut bed = bed_after_takeover(40);
    let esp = bed.seal(&udp(HOST_A, HOST_B, b"x"));
    let mut forged = esp.clone();
    forged[40] ^= 1;
    for _ in 0..16 {
        bed.b.wire_brings(&forged);
    }
    bed.b.wire_brings(&esp);
    bed.settle();
    assert_eq!(told_below_floor(&mut bed), 0, "the limit is spent");
    bed.advance(Duration::from_millis(100));
    bed.b.wire_brings(&esp);
    bed.settle();
    assert_eq!(told_below_floor(&mut bed), 1);
}

#[test]
fn who_is_below_the_floor_of_a_takeover_is_reported_until_a_packet_is_accepted() {
    let mut bed = bed_after_takeover(3);
    send(&mut bed, 2);
    assert_eq!(told_below_floor(&mut bed), 2);
    send(&mut bed, 2);
    assert_eq!(
        told_below_floor(&mut bed),
        1,
        "the third is refused, the fourth is above the floor"
    );
    let again = bed.wire[0].clone();
    bed.b.wire.push_frame(&again);
    bed.settle();
    assert_eq!(
        told_below_floor(&mut bed),
        0,
        "an old packet after that is a replay and nothing else"
    );
}
