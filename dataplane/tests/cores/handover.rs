//! SAs that one worker has, and packets that come to another one.

use std::sync::Arc;

use hitless_dataplane::aead::Engine;
use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::{Command, Event, Retired};
use hitless_dataplane::handover::STOCK;
use hitless_dataplane::sad::{Bound, Conflict, InboundSa};
use hitless_dataplane::verdict::DropReason;
use hitless_sa::{Lease, SequenceNumber, Spi};

use crate::bed::{Gate, Spread, child, sealed};
use crate::packets::{self, PLENTY, sa_id};

fn numbered(n: usize) -> Vec<u8> {
    (n as u32).to_be_bytes().to_vec()
}

fn number(payload: &[u8]) -> usize {
    u32::from_be_bytes(payload[..4].try_into().unwrap()) as usize
}

#[test]
fn an_sa_used_from_another_worker_is_handed_over_and_counted_on_its_owner_in_order() {
    let mut gate = Gate::new(3);
    gate.install(1, Spread::Bound(2));
    // More than a batch, of both directions, to a worker that does not have the SA.
    for n in 0..257 {
        gate.peer_sends(0, 1, &numbered(n));
        gate.host_sends(1, 1, &numbered(n));
    }
    gate.settle();
    let queues: Vec<usize> = gate.delivered.iter().map(|(queue, _)| *queue).collect();
    assert!(
        queues.iter().all(|queue| *queue == 2),
        "handled by its owner"
    );
    let numbers: Vec<usize> = gate.payloads().iter().map(|p| number(p)).collect();
    assert_eq!(numbers, (0..257).collect::<Vec<_>>(), "the order is kept");
    assert_eq!(gate.heard[&1], (1..=257).collect::<Vec<_>>());
    assert_eq!(gate.drops(), 0);
    let esp = |core: usize| gate.cores[core].handle.counters.esp();
    assert_eq!((esp(0).handed_over, esp(1).handed_over), (257, 257));
    assert_eq!(esp(2).taken_over, 514);
    assert_eq!((esp(2).packets_in, esp(2).packets_out), (257, 257));
    assert_eq!(gate.counted(1), [(0, 0), (0, 0), (257, 257)]);
}

#[test]
fn rfc4303_section_3_4_1_esp_that_came_in_fragments_is_handed_over_whole() {
    let mut gate = Gate::new(2);
    gate.install(1, Spread::Bound(1));
    // In a frame as it comes, and in one with less head room.
    for (identification, length) in [(1, 1_400), (2, 1_850)] {
        let whole = gate.seal(1, &vec![7; length]);
        for part in packets::parts(&whole, 1_400, identification) {
            gate.bring(0, &part);
        }
        gate.settle();
    }
    let esp = |core: usize| gate.cores[core].handle.counters.esp();
    assert_eq!((esp(0).handed_over, esp(1).packets_in), (2, 2));
    assert_eq!(gate.drops(), 0);
}

#[test]
fn what_a_slow_owner_does_not_take_is_dropped_and_counted_and_no_buffer_is_lost() {
    let mut gate = Gate::new(2);
    gate.install(1, Spread::Bound(1));
    for round in 1..=3u64 {
        for n in 0..STOCK + 88 {
            gate.peer_sends(0, 1, &numbered(n));
        }
        // Only the worker that hands over runs.
        while gate.turn(0) > 0 {}
        assert_eq!(gate.dropped(DropReason::HandOver), 88 * round);
        gate.settle();
        let delivered: Vec<usize> = gate.payloads().iter().map(|p| number(p)).collect();
        assert_eq!(delivered, (0..STOCK).collect::<Vec<_>>());
    }
    assert_eq!(gate.drops(), 3 * 88);
}

#[test]
fn a_packet_is_handed_over_twice_at_most_if_the_workers_disagree() {
    let mut gate = Gate::new(2);
    for core in 0..2 {
        let bound = Bound {
            spi: Spi(0xbbbb_0001),
            owner: 1 - core,
            outbound: Some(Spi(0xaaaa_0001)),
        };
        let (sa, slot) = (sa_id(1), 1);
        gate.send(core, Command::Bind { sa, slot, bound });
    }
    gate.settle();
    for queue in [0, 1] {
        gate.bring(queue, &sealed(1, 1, b"x"));
        gate.host_sends(queue, 1, b"x");
    }
    gate.settle();
    assert_eq!(gate.dropped(DropReason::UnknownSpi), 2);
    assert_eq!(gate.dropped(DropReason::NoSa), 2);
    assert_eq!((gate.drops(), gate.clear), (4, 0));
}

#[test]
fn only_what_is_authentic_and_new_says_to_which_worker_packets_come() {
    let mut gate = Gate::new(2);
    gate.install(1, Spread::Receives(0));
    let strayed = |e: &Event| matches!(e, Event::Strayed { sa, to: 1 } if *sa == sa_id(1));
    gate.peer_sends(1, 1, b"b");
    gate.settle();
    assert!(gate.events(0).iter().any(strayed));
    // Nobody else can say so: not by its SPI, not by what the peer sent once.
    let mut forged = sealed(1, 9, b"b");
    *forged.last_mut().unwrap() ^= 1;
    gate.bring(1, &sealed(1, 1, b"b"));
    gate.bring(1, &forged);
    gate.settle();
    assert!(!gate.events(0).iter().any(strayed));
    assert!(!gate.events(1).iter().any(strayed));
}

#[test]
fn an_sa_is_bound_and_unbound_by_command() {
    let mut gate = Gate::new(2);
    gate.install(1, Spread::Receives(0));
    // All send, one receives.
    gate.host_sends(1, 1, b"a");
    gate.peer_sends(1, 1, b"b");
    gate.settle();
    let esp = |gate: &Gate, core: usize| gate.cores[core].handle.counters.esp();
    assert_eq!(esp(&gate, 1).packets_out, 1);
    assert_eq!(esp(&gate, 0).packets_in, 1);
    let strayed = |e: &Event| matches!(e, Event::Strayed { sa, to: 1 } if *sa == sa_id(1));
    assert!(gate.events(0).iter().any(strayed), "control may move it");
    // Bound: what is to be sent goes to its owner too.
    let bound = Bound {
        spi: Spi(0xbbbb_0001),
        owner: 0,
        outbound: Some(Spi(0xaaaa_0001)),
    };
    let (sa, slot) = (sa_id(1), 1);
    gate.send(1, Command::Bind { sa, slot, bound });
    gate.host_sends(1, 1, b"c");
    gate.settle();
    assert_eq!(
        (esp(&gate, 1).packets_out, esp(&gate, 0).packets_out),
        (1, 1)
    );
    // Unbound: it sends here again, and does not know the SPI.
    gate.send(1, Command::Unbind(sa_id(1)));
    gate.host_sends(1, 1, b"d");
    gate.peer_sends(1, 1, b"e");
    gate.settle();
    assert_eq!(
        (esp(&gate, 1).packets_out, esp(&gate, 0).packets_out),
        (2, 1)
    );
    assert_eq!(gate.dropped(DropReason::UnknownSpi), 1);
    // Its SPI and slot are its own: another SA gets neither.
    let other = sa_id(2);
    gate.send(
        0,
        Command::Bind {
            sa: other,
            slot: 2,
            bound,
        },
    );
    gate.send(
        0,
        Command::Bind {
            sa: other,
            slot: 1,
            bound,
        },
    );
    gate.settle();
    let refused = gate.events(0).into_iter().filter_map(|event| match event {
        Event::Refused { sa, conflict } if sa == other => Some(conflict),
        _ => None,
    });
    let refused: Vec<Conflict> = refused.collect();
    assert_eq!(refused, [Conflict::SpiTaken; 2]);
}

#[test]
fn a_receiving_half_moves_between_workers_without_loss_or_a_second_window() {
    let mut gate = Gate::new(3);
    gate.install(1, Spread::Receives(0));
    let mut old = Vec::new();
    for n in 0..900u32 {
        // The packets keep coming to all three while the half goes round.
        let packet = gate.seal(1, &n.to_be_bytes());
        gate.bring(n as usize % 3, &packet);
        old.push(packet);
        let home = n as usize / 100 % 3;
        if n % 100 == 50 {
            let (sa, to) = (sa_id(1), (home + 1) % 3);
            gate.send(
                home,
                Command::Move {
                    sa,
                    to,
                    counters: Arc::default(),
                },
            );
        }
        if n % 7 == 0 {
            gate.turn(n as usize % 3);
        }
        if n % 100 == 99 {
            gate.settle();
            let moved = |e: &Event| matches!(e, Event::Moved { sa } if *sa == sa_id(1));
            let to = (home + 1) % 3;
            assert_eq!(gate.events(to).iter().filter(|e| moved(e)).count(), 1);
            // As control does: all the others hear where it is.
            let bound = Bound {
                spi: Spi(0xbbbb_0001),
                owner: to,
                outbound: None,
            };
            for core in (0..3).filter(|core| *core != to) {
                let (sa, slot) = (sa_id(1), 1);
                gate.send(core, Command::Bind { sa, slot, bound });
            }
            gate.settle();
        }
    }
    let mut delivered: Vec<usize> = gate.payloads().iter().map(|p| number(p)).collect();
    delivered.sort_unstable();
    assert_eq!(delivered, (0..900).collect::<Vec<_>>());
    assert_eq!(gate.drops(), 0);
    for (n, packet) in old.iter().enumerate() {
        gate.bring(n % 3, packet);
    }
    gate.settle();
    assert_eq!(gate.payloads().len(), 0);
    assert_eq!(gate.dropped(DropReason::Replay), 900);
}

#[test]
fn what_waits_when_its_receiving_half_moves_is_dropped_and_counted_by_it() {
    let mut gate = Gate::new(2);
    gate.install(1, Spread::Receives(0));
    let lease = Lease {
        high_water: SequenceNumber(0),
        ..PLENTY
    };
    let cell = Arc::new(Cell::new(SequenceNumber(1), lease));
    let half = InboundSa::new(&child(1), cell, SequenceNumber(0), 1, Engine::AwsLc).unwrap();
    let counters = Arc::clone(&half.counters);
    gate.send(0, Command::InstallInbound(Box::new(half)));
    gate.peer_sends(0, 1, b"waits");
    gate.settle();
    assert_eq!(gate.cores[0].worker.frame_account().parked, 1);
    let command = Command::Move {
        sa: sa_id(1),
        to: 1,
        counters: Arc::default(),
    };
    gate.send(0, command);
    gate.settle();
    assert_eq!(gate.dropped(DropReason::HighWater), 1);
    let counted: Vec<_> = counters.drops().collect();
    assert_eq!(counted, [(DropReason::HighWater, 1)]);
}

#[test]
fn a_half_that_cannot_move_stays() {
    let mut gate = Gate::new(2);
    gate.install(1, Spread::Receives(0));
    gate.install(2, Spread::All);
    for (sa, to) in [(1, 7), (2, 1), (3, 1)] {
        let sa = sa_id(sa);
        gate.send(
            0,
            Command::Move {
                sa,
                to,
                counters: Arc::default(),
            },
        );
        gate.settle();
        let stayed = |e: &Event| matches!(e, Event::Stayed { sa: stayed } if *stayed == sa);
        assert!(gate.events(0).iter().any(stayed), "{sa}");
    }
    for sa in [1, 2] {
        gate.peer_sends(0, sa, b"x");
    }
    gate.settle();
    assert_eq!(gate.payloads().len(), 2);
}

#[test]
fn a_half_that_cannot_move_leaves_what_is_sent_bound_as_it_was() {
    let mut gate = Gate::new(2);
    gate.install(1, Spread::Receives(0));
    let bound = Bound {
        spi: Spi(0xbbbb_0001),
        owner: 1,
        outbound: Some(Spi(0xaaaa_0001)),
    };
    let (sa, slot) = (sa_id(1), 1);
    gate.send(0, Command::Bind { sa, slot, bound });
    gate.send(
        0,
        Command::Move {
            sa,
            to: 7,
            counters: Arc::default(),
        },
    );
    gate.settle();
    let stayed = |e: &Event| matches!(e, Event::Stayed { .. });
    assert!(gate.events(0).iter().any(stayed));
    gate.host_sends(0, 1, b"x");
    gate.peer_sends(0, 1, b"y");
    gate.settle();
    // Sent by the worker that it is bound to, received where the half is.
    assert_eq!(gate.counted(1), [(1, 0), (0, 1)]);
}

#[test]
fn a_half_on_its_way_to_an_sa_that_has_gone_or_has_a_new_cell_is_given_back() {
    for again in [false, true] {
        let mut gate = Gate::new(2);
        gate.install(1, Spread::Receives(0));
        let (sa, to) = (sa_id(1), 1);
        gate.send(
            0,
            Command::Move {
                sa,
                to,
                counters: Arc::default(),
            },
        );
        gate.turn(0);
        gate.send(1, Command::Remove(sa));
        if again {
            gate.send(0, Command::Remove(sa));
            gate.install(1, Spread::Receives(0));
        }
        gate.settle();
        let events = gate.events(1);
        let back = |e: &Event| matches!(e, Event::Retired(Retired::Inbound(_)));
        assert_eq!(events.iter().filter(|e| back(e)).count(), 1);
        gate.bring(0, &sealed(1, 1, b"x"));
        gate.settle();
        assert_eq!(gate.payloads().len(), usize::from(again));
    }
}

#[test]
fn a_member_that_does_not_lead_drops_what_is_on_its_way_between_workers() {
    let mut gate = Gate::new(2);
    gate.install(1, Spread::Bound(1));
    for n in 0..10 {
        gate.peer_sends(0, 1, &numbered(n));
        gate.host_sends(0, 1, &numbered(n));
    }
    while gate.turn(0) > 0 {}
    gate.leadership.set(false);
    gate.settle();
    assert_eq!(gate.dropped(DropReason::NotActive), 20);
    assert!(gate.delivered.is_empty() && gate.heard[&1].is_empty());
}

#[test]
fn a_full_packet_crosses_and_a_larger_one_than_a_buffer_is_counted() {
    let mut gate = Gate::new(2);
    gate.install(1, Spread::Bound(1));
    gate.host_sends(0, 1, &[7; 1472]);
    gate.settle();
    assert_eq!(
        gate.heard[&1].len(),
        0,
        "too big for the tunnel, which its owner says"
    );
    assert_eq!(gate.dropped(DropReason::TooBig), 1);
    gate.host_sends(0, 1, &[7; 1400]);
    gate.settle();
    assert_eq!(gate.heard[&1], [1]);
}
