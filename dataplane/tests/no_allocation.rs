//! A worker in steady state allocates and frees nothing, in either direction, whatever comes.
#![expect(unsafe_code, reason = "a global allocator that counts")]

#[expect(
    dead_code,
    reason = "the bed of the worker tests, of which this one needs a part"
)]
#[path = "worker/bed.rs"]
mod bed;
#[expect(
    dead_code,
    reason = "the gateway of several workers, of which this one needs a part"
)]
#[path = "cores/bed.rs"]
mod cores;

use bed as packets;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use bed::*;
use hitless_dataplane::aead::Engine;
use hitless_dataplane::cell::Cell as LeaseCell;
use hitless_dataplane::command::Command;
use hitless_dataplane::sad::{InboundSa, OutboundSa, Sad};
use hitless_dataplane::watch::capture::{Choice, capture};
use hitless_dataplane::watch::trace::{Filter, trace};
use hitless_sa::{ChildSa, EspSuite, Lease, SaId, SequenceNumber, Spi};

thread_local! {
    static COUNTED: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Counts what the current thread asks of the heap while it is told to.
struct Counting;

fn count() {
    // The thread may be going away, with its counter gone already.
    let _ = COUNTED.try_with(|counted| counted.set(counted.get().map(|so_far| so_far + 1)));
}

// SAFETY: every call is passed on to the system allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Heap operations of one turn.
fn turn(gateway: &mut Gateway, now: hitless_sa::Instant) -> usize {
    COUNTED.set(Some(0));
    gateway.worker.turn(now);
    COUNTED.take().unwrap_or(0)
}

#[test]
fn the_counter_counts() {
    COUNTED.set(Some(0));
    drop(std::hint::black_box(vec![1u8; 100]));
    assert_eq!(COUNTED.take(), Some(2));
}

#[test]
fn nothing_is_allocated_in_steady_state_in_either_direction() {
    let mut bed = Bed::new();
    bed.warm_up();
    let to_b: Vec<_> = (0..32).map(|n| udp(HOST_A, HOST_B, &[n; 700])).collect();
    let to_a: Vec<_> = (0..32).map(|n| udp(HOST_B, HOST_A, &[n; 90])).collect();
    let mut operations = 0;
    for round in 0..400 {
        // Time goes on far enough for checkpoints, probes of neighbours and their expiry.
        bed.now += Duration::from_millis(137);
        to_b.iter().for_each(|packet| bed.a.host_sends(packet));
        to_a.iter().for_each(|packet| bed.b.host_sends(packet));
        for _ in 0..4 {
            operations += turn(&mut bed.a, bed.now);
            operations += turn(&mut bed.b, bed.now);
            bed.a
                .take_wire()
                .iter()
                .for_each(|f| assert!(bed.b.wire.push_frame(f)));
            bed.b
                .take_wire()
                .iter()
                .for_each(|f| assert!(bed.a.wire.push_frame(f)));
        }
        // The hosts answer what they are asked, so that the neighbours stay.
        bed.settle();
        assert_eq!(bed.b.delivered.len(), 32, "round {round}");
        assert_eq!(bed.a.delivered.len(), 32, "round {round}");
        bed.a.delivered.clear();
        bed.b.delivered.clear();
    }
    assert_eq!(operations, 0);
    let mut told = 0;
    bed.a.handle.checkpoints.drain(|_, _| told += 1);
    assert_eq!(told, 1, "checkpoints were published meanwhile");
}

#[test]
fn nothing_is_allocated_with_any_suite_or_engine() {
    let engines = Engine::all().filter(|engine| engine.is_available());
    for (engine, suite) in
        engines.flat_map(|engine| EspSuite::ALL.iter().map(move |s| (engine, *s)))
    {
        let mut bed = Bed::with(Settings {
            suite,
            engines: [engine; 2],
            ..Settings::default()
        });
        bed.warm_up();
        let mut operations = 0;
        for round in 0..3u8 {
            for n in 0..40usize {
                let size = n * 31;
                bed.a.host_sends(&udp(HOST_A, HOST_B, &vec![round; size]));
            }
            for _ in 0..3 {
                operations += turn(&mut bed.a, bed.now);
                for frame in bed.a.take_wire() {
                    bed.b.wire.push_frame(&frame);
                }
                operations += turn(&mut bed.b, bed.now);
            }
            bed.settle();
        }
        assert_eq!(
            (operations, bed.b.delivered.len()),
            (0, 120),
            "{suite:?} {engine:?}"
        );
    }
}

#[test]
fn nothing_is_allocated_while_packets_are_traced_and_captured() {
    let mut bed = Bed::new();
    bed.warm_up();
    let both = Choice {
        outer: true,
        inner: true,
        ..Choice::default()
    };
    for gateway in [&mut bed.a, &mut bed.b] {
        let frames = gateway.worker.frame_account().total;
        let (tracer, traces) = trace(8, Filter::default(), frames);
        let (tap, captures) = capture(64, both.clone());
        gateway.send(Command::Trace(Some(tracer)));
        gateway.send(Command::Capture(Some(tap)));
        // Their other ends stay, unread: full rings cost no more.
        std::mem::forget((traces, captures));
    }
    bed.settle();
    let mut operations = 0;
    for round in 0..20u8 {
        bed.now += Duration::from_millis(10);
        bed.a.host_sends(&udp(HOST_A, HOST_B, &[round; 300]));
        bed.a.host_sends(&udp(HOST_A, [8, 8, 8, 8], b"no policy"));
        operations += turn(&mut bed.a, bed.now);
        for frame in bed.a.take_wire() {
            bed.b.wire.push_frame(&frame);
        }
        operations += turn(&mut bed.b, bed.now);
        bed.settle();
    }
    assert_eq!(operations, 0);
    assert_eq!(bed.b.delivered.len(), 20);
}

#[test]
fn nothing_is_allocated_for_what_is_refused_held_or_parked() {
    let mut bed = Bed::new();
    bed.warm_up();
    let low = Lease {
        high_water: SequenceNumber(100),
        ..PLENTY
    };
    bed.install(PLENTY, low);
    bed.settle();
    let honest: Vec<_> = (0..8).map(|n| udp(HOST_A, HOST_B, &[n; 60])).collect();
    let mut operations = 0;
    for round in 0..60u8 {
        bed.now += Duration::from_millis(250);
        honest.iter().for_each(|packet| bed.a.host_sends(packet));
        for target in [[198, 51, 100, 1], [8, 8, 8, 8], [203, 0, 113, 66], INSIDE_A] {
            bed.a.host_sends(&udp(HOST_A, target, b"x"));
        }
        bed.a.host_sends(&echo(HOST_A, INSIDE_A));
        bed.a
            .host_sends(&hops_later(&udp(HOST_A, HOST_B, b"x"), 63));
        bed.b.wire_brings(&raw(OUTSIDE_A, OUTSIDE_B, 50, &[9; 64]));
        bed.b.wire_brings(&udp(HOST_A, HOST_B, b"clear"));
        bed.b
            .wire_brings(&udp_ports([192, 0, 2, 99], OUTSIDE_B, 500, 500, b"IKE"));
        // A different host each time that never answers.
        bed.a.host_sends(&udp(HOST_A, [10, 2, 1, round], b"nobody"));
        bed.b.host_sends(&[round; 60]);
        if round % 20 == 10 {
            bed.b.cell.raise(Lease {
                high_water: SequenceNumber(u64::from(round) * 9),
                ..low
            });
        }
        operations += turn(&mut bed.a, bed.now);
        operations += turn(&mut bed.b, bed.now);
        for frame in bed.a.take_wire() {
            bed.b.wire.push_frame(&frame);
        }
        operations += turn(&mut bed.b, bed.now);
        bed.settle();
        let _ = drain(&mut bed.b.handle.punt);
        bed.a.events();
        bed.b.events();
    }
    assert_eq!(operations, 0);
    assert!(bed.b.handle.counters.esp().parked > 0);
    bed.b.send(Command::Announce);
    assert_eq!(turn(&mut bed.b, bed.now), 0);
}

#[test]
fn nothing_is_allocated_for_what_workers_hand_to_each_other_or_share() {
    let mut gate = cores::Gate::new(2);
    gate.install(1, cores::Spread::Bound(1));
    gate.install(2, cores::Spread::All);
    let mut operations = 0;
    for round in 0..100 {
        for n in 0..64 {
            let sa = 1 + n % 2;
            gate.peer_sends((round + n as usize / 2) % 2, sa, b"in");
            gate.host_sends(0, sa, b"out");
        }
        for _ in 0..8 {
            for core in &mut gate.cores {
                COUNTED.set(Some(0));
                core.worker.turn(gate.now);
                operations += COUNTED.take().unwrap_or(0);
            }
        }
        gate.settle();
        assert_eq!(gate.payloads().len(), 64);
    }
    assert_eq!((operations, gate.drops()), (0, 0));
    assert!(gate.cores[1].handle.counters.esp().taken_over > 3000);
}

/// The halves of a Child SA that its peer sends to by `outbound`.
fn halves(
    like: &ChildSa,
    counter: u32,
    slot: u32,
    outbound: u32,
) -> (Box<InboundSa>, Box<OutboundSa>) {
    let child = ChildSa {
        id: sa_id(counter),
        inbound_spi: Spi(0x0100_0000 + counter),
        outbound_spi: Spi(outbound),
        ..like.clone()
    };
    let cell = || Arc::new(LeaseCell::new(SequenceNumber(1), PLENTY));
    let floor = SequenceNumber(0);
    let inbound = InboundSa::new(&child, cell(), floor, slot, Engine::AwsLc).unwrap();
    let outbound = OutboundSa::new(&child, cell(), slot, Engine::AwsLc).unwrap();
    (Box::new(inbound), Box::new(outbound))
}

/// Heap operations of an SA that takes a slot, and of the end of the one that had it.
fn replace(sad: &mut Sad, old: SaId, new: (Box<InboundSa>, Box<OutboundSa>)) -> usize {
    COUNTED.set(Some(0));
    let gone = sad.remove(old);
    let inbound = sad.insert_inbound(new.0);
    let outbound = sad.insert_outbound(new.1);
    let operations = COUNTED.take().unwrap_or(0);
    assert!(inbound.is_ok_and(|old| old.is_none()));
    assert!(outbound.is_ok_and(|old| old.is_none()));
    drop(gone);
    operations
}

#[test]
fn nothing_is_allocated_as_sas_come_and_go_in_a_full_worker() {
    // As many as fill a table of a power of two to the last place.
    const SAS: u32 = 448;
    let like = Bed::new().child(true);
    let mut sad = Sad::new(SAS as usize);
    let mut names = Vec::new();
    for slot in 0..SAS {
        let (inbound, outbound) = halves(&like, slot, slot, 0xc000_0000 + slot);
        names.push(inbound.id);
        assert!(sad.insert_inbound(inbound).is_ok() && sad.insert_outbound(outbound).is_ok());
    }
    let mut operations = 0;
    for counter in SAS..SAS * 8 {
        let slot = (counter * 7) % SAS;
        let new = halves(&like, counter, slot, 0xc000_0000 + counter);
        let id = new.0.id;
        let old = std::mem::replace(&mut names[slot as usize], id);
        operations += replace(&mut sad, old, new);
    }
    assert_eq!(operations, 0);
}

#[test]
fn nothing_is_allocated_however_many_peers_choose_one_spi() {
    const SAS: u32 = 64;
    let like = Bed::new().child(true);
    let mut sad = Sad::new(SAS as usize);
    let mut operations = 0;
    for counter in 0..SAS * 3 {
        // At first nobody has the slot.
        let old = sa_id(counter.wrapping_sub(SAS));
        let new = halves(&like, counter, counter % SAS, 0xc000_0001);
        operations += replace(&mut sad, old, new);
    }
    assert_eq!(operations, 0);
}

#[test]
fn nothing_is_allocated_as_sas_succeed_each_other() {
    let mut sad = Sad::new(8);
    let names: Vec<_> = (0..9000).map(sa_id).collect();
    COUNTED.set(Some(0));
    for pair in names.windows(2) {
        sad.succeed(pair[0], Some(pair[1]));
    }
    for pair in names.chunks_exact(2) {
        sad.succeed(pair[0], Some(pair[1]));
    }
    for name in &names {
        sad.succeed(*name, None);
    }
    assert_eq!(COUNTED.take(), Some(0));
}
