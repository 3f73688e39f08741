//! Workers on threads of their own with one fat SA, in a closed loop: so many packets under way and
//! no more, so that a core that does not get its turn delays the test and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hitless_dataplane::port::memory::MemoryPort;
use hitless_dataplane::thread::{Idle, spawn};
use hitless_dataplane::verdict::DropReason;
use hitless_dataplane::worker::WorkerHandle;
use hitless_sa::Instant;

use crate::bed::{Gate, Spread, inside_frame, outside_frame};

/// Packets of each direction under way at once, fewer than any ring or window holds.
const UNDER_WAY: u64 = 128;

/// What the test sees of a worker that runs on its own.
struct Far {
    handle: WorkerHandle,
    host: MemoryPort,
    wire: MemoryPort,
}

/// What came out.
#[derive(Default)]
struct Seen {
    delivered: BTreeSet<u64>,
    numbers: BTreeSet<u64>,
    /// Packets delivered again, and numbers sent again.
    twice: u64,
}

impl Seen {
    fn take(&mut self, far: &mut Far) {
        // Behind Ethernet, IPv4 and UDP the payload; behind Ethernet, IPv4 and ESP header the IV.
        let eight = |frame: &[u8]| u64::from_be_bytes(frame[42..50].try_into().unwrap());
        let (delivered, numbers) = (&mut self.delivered, &mut self.numbers);
        let mut twice = 0;
        while far
            .host
            .pop_frame(|frame| twice += u64::from(!delivered.insert(eight(frame))))
        {}
        while far
            .wire
            .pop_frame(|frame| twice += u64::from(!numbers.insert(eight(frame))))
        {}
        self.twice += twice;
    }
}

/// Packets both ways over one SA, each coming to one worker, and with `copies` to the next as well.
fn run(workers: usize, spread: Spread, packets: u64, copies: bool) {
    let mut gate = Gate::new(workers);
    gate.install(1, spread);
    let stop = Arc::new(AtomicBool::new(false));
    let ticks = Arc::new(AtomicU64::new(gate.now.0));
    let (mut threads, mut fars) = (Vec::new(), Vec::new());
    for core in std::mem::take(&mut gate.cores) {
        let (ticks, stop) = (Arc::clone(&ticks), Arc::clone(&stop));
        let clock = move || Instant(ticks.fetch_add(10, Ordering::Relaxed));
        threads.push(spawn(core.worker, None, clock, Idle::default(), stop).unwrap());
        let (handle, host, wire) = (core.handle, core.host, core.wire);
        fars.push(Far { handle, host, wire });
    }
    let mut seen = Seen::default();
    let mut sent = 0u64;
    loop {
        let done = seen.delivered.len().min(seen.numbers.len()) as u64;
        if done == packets {
            break;
        }
        if sent < packets && sent - done < UNDER_WAY {
            let queue = sent as usize % workers;
            let payload = sent.to_be_bytes();
            let frame = outside_frame(&gate.seal(1, &payload));
            if copies {
                // It may find its queue full of copies: then there is one fewer.
                fars[(queue + 1) % workers].wire.push_frame(&frame);
            }
            while !fars[queue].wire.push_frame(&frame) {
                fars.iter_mut().for_each(|far| seen.take(far));
                std::thread::yield_now();
            }
            assert!(fars[queue].host.push_frame(&inside_frame(1, &payload)));
            sent += 1;
        } else {
            std::thread::yield_now();
        }
        fars.iter_mut().for_each(|far| seen.take(far));
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    fars.iter_mut().for_each(|far| seen.take(far));
    assert_eq!(seen.twice, 0, "delivered twice, or a number used twice");
    assert_eq!(seen.delivered, (0..packets).collect());
    assert_eq!(seen.numbers, (1..=packets).collect());
    let replays = fars
        .iter()
        .map(|far| far.handle.counters.dropped(DropReason::Replay));
    let replays: u64 = replays.sum();
    let all = fars.iter().flat_map(|far| far.handle.counters.drops());
    let drops: u64 = all.map(|(_, count)| count).sum();
    assert_eq!(drops, replays, "copies and no other");
}

#[test]
fn one_fat_sa_on_two_threads_both_ways_gives_every_packet_once() {
    run(2, Spread::All, 20_000, false);
}

#[test]
fn rfc4303_section_3_4_3_copies_on_two_threads_at_once_are_accepted_once() {
    run(2, Spread::All, 20_000, true);
    run(3, Spread::All, 5_000, true);
}

#[test]
fn an_sa_bound_to_one_thread_gets_what_comes_to_the_others() {
    run(2, Spread::Bound(1), 20_000, false);
    run(3, Spread::Receives(0), 5_000, false);
}
