//! Every fault by itself, all together, and no frame lost by any of them.

use proptest::prelude::*;

use super::*;
use crate::port::memory::{MemoryPort, link};

/// A faulty port with its pool, and the far end of its cable.
struct Bench {
    port: FaultPort,
    far: MemoryPort,
    pool: Pool,
}

impl Bench {
    fn new(seed: u64, receive: Faults, transmit: Faults) -> Bench {
        let (near, far) = link(1024, 1500);
        Bench {
            port: FaultPort::new(Box::new(near), seed, receive, transmit),
            far,
            pool: Pool::new(1024).unwrap(),
        }
    }

    fn assert_accounted(&self, in_hand: usize) {
        let sum = self.pool.available() + self.port.frames_held() + in_hand;
        assert_eq!(sum, self.pool.packets());
    }

    /// Sends numbered frames to the port; what it receives, in order.
    fn receive(&mut self, count: u32, turns: u32) -> Vec<Vec<u8>> {
        for number in 0..count {
            assert!(self.far.push_frame(&frame(number)));
        }
        let mut received = Vec::new();
        for _ in 0..turns {
            let mut burst = Burst::new();
            self.port.receive(&mut self.pool, &mut burst);
            assert!(burst.len() <= BURST);
            self.assert_accounted(burst.len());
            for packet in burst {
                received.push(self.pool.bytes(&packet).to_vec());
                self.pool.free(packet);
            }
        }
        received
    }

    /// Sends numbered frames through the port; what arrives, in order.
    fn transmit(&mut self, count: u32, turns: u32) -> Vec<Vec<u8>> {
        for first in (0..count).step_by(BURST) {
            let numbers = first..count.min(first + BURST as u32);
            let mut burst: Burst = numbers
                .map(|number| self.pool.copy_in(&frame(number)).unwrap())
                .collect();
            self.port.transmit(&mut self.pool, &mut burst);
            assert!(burst.is_empty());
            self.assert_accounted(0);
        }
        for _ in 0..turns {
            self.port.poll(&mut self.pool);
            self.assert_accounted(0);
        }
        let mut arrived = Vec::new();
        while self.far.pop_frame(|frame| arrived.push(frame.to_vec())) {}
        arrived
    }
}

fn frame(number: u32) -> Vec<u8> {
    [&number.to_be_bytes()[..], &[0x5a; 60]].concat()
}

fn numbers(frames: &[Vec<u8>]) -> Vec<u32> {
    let number = |frame: &Vec<u8>| u32::from_be_bytes(frame[..4].try_into().unwrap());
    frames.iter().map(number).collect()
}

#[test]
fn without_faults_it_is_a_cable() {
    let mut bench = Bench::new(1, Faults::default(), Faults::default());
    let all: Vec<u32> = (0..500).collect();
    assert_eq!(numbers(&bench.receive(500, 20)), all);
    assert_eq!(numbers(&bench.transmit(500, 1)), all);
    assert_eq!(bench.port.faults(), FaultCounters::default());
    assert_eq!(bench.port.mtu(), 1500);
}

#[test]
fn loss_is_as_likely_as_asked_and_counted() {
    let faults = Faults {
        loss: 100_000,
        ..Faults::default()
    };
    let mut bench = Bench::new(7, faults, faults);
    let received = bench.receive(1000, 40).len() as u64;
    let sent = bench.transmit(1000, 1).len() as u64;
    assert_eq!(bench.port.faults().lost, 2000 - received - sent);
    assert!((850..=950).contains(&received), "{received}");
    assert!((850..=950).contains(&sent), "{sent}");
    assert_ne!(received, sent, "each direction has its own numbers");
}

#[test]
fn duplicates_follow_their_packets() {
    let faults = Faults {
        duplication: MILLION,
        ..Faults::default()
    };
    let mut bench = Bench::new(7, faults, faults);
    let twice: Vec<u32> = (0..200).flat_map(|number| [number, number]).collect();
    assert_eq!(numbers(&bench.receive(200, 20)), twice);
    assert_eq!(numbers(&bench.transmit(200, 1)), twice);
    assert_eq!(bench.port.faults().duplicated, 400);
}

#[test]
fn a_duplicate_without_a_frame_is_counted() {
    let faults = Faults {
        duplication: MILLION,
        ..Faults::default()
    };
    let mut bench = Bench::new(7, faults, Faults::default());
    bench.pool = Pool::new(3).unwrap();
    for number in 0..3 {
        assert!(bench.far.push_frame(&frame(number)));
    }
    let mut burst = Burst::new();
    bench.port.receive(&mut bench.pool, &mut burst);
    assert_eq!((burst.len(), bench.port.counters().no_buffer), (3, 3));
    burst.into_iter().for_each(|packet| bench.pool.free(packet));
}

#[test]
fn corruption_flips_one_bit() {
    let faults = Faults {
        corruption: MILLION,
        ..Faults::default()
    };
    let mut bench = Bench::new(3, faults, faults);
    for (number, received) in bench.receive(200, 10).iter().enumerate() {
        let sent = frame(number as u32);
        let flipped = |(a, b): (&u8, &u8)| (a ^ b).count_ones();
        let bits: u32 = sent.iter().zip(received).map(flipped).sum();
        assert_eq!((bits, received.len()), (1, sent.len()));
    }
    assert_eq!(bench.port.faults().corrupted, 200);
}

#[test]
fn reordering_loses_nothing_and_is_bounded() {
    let faults = Faults {
        reordering: 300_000,
        overtakers: 5,
        ..Faults::default()
    };
    let mut bench = Bench::new(3, faults, faults);
    for order in [
        numbers(&bench.receive(500, 30)),
        numbers(&bench.transmit(500, 10)),
    ] {
        assert!(!order.is_sorted());
        for (place, number) in order.iter().enumerate() {
            // Up to five of those behind it, and what they in turn released, go first.
            assert!(
                place.abs_diff(*number as usize) <= 10,
                "{number} at {place}"
            );
        }
        let mut sorted = order;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..500).collect::<Vec<_>>());
    }
    assert!(bench.port.faults().reordered > 200);
}

#[test]
fn delayed_packets_come_by_themselves() {
    let faults = Faults {
        delay: MILLION,
        turns: 10,
        ..Faults::default()
    };
    let mut bench = Bench::new(3, faults, faults);
    assert!(bench.far.push_frame(&frame(0)));
    assert!(bench.receive(0, 1).is_empty());
    assert_eq!(bench.port.frames_held(), 1);
    assert_eq!(numbers(&bench.receive(0, 10)), [0]);
    assert_eq!(numbers(&bench.transmit(1, 10)), [0]);
    assert_eq!(bench.port.faults().delayed, 2);
}

#[test]
fn closing_gives_back_what_waits_and_dropping_leaks_it_quietly() {
    let faults = Faults {
        delay: MILLION,
        turns: 10,
        ..Faults::default()
    };
    let mut bench = Bench::new(3, faults, faults);
    bench.receive(20, 1);
    bench.transmit(20, 0);
    assert_eq!(bench.port.frames_held(), 40);
    assert_eq!(Box::new(bench.port).close(&mut bench.pool), 0);
    assert_eq!(bench.pool.available(), 1024);

    let mut bench = Bench::new(3, faults, faults);
    bench.receive(20, 1);
    drop(bench.port);
    assert_eq!(bench.pool.available(), 1004);
}

fn faults() -> impl Strategy<Value = Faults> {
    let likely = || prop_oneof![Just(0), 0..MILLION, Just(MILLION)];
    (
        likely(),
        likely(),
        likely(),
        likely(),
        0u32..9,
        likely(),
        0u32..9,
    )
        .prop_map(
            |(loss, duplication, corruption, reordering, overtakers, delay, turns)| Faults {
                loss,
                duplication,
                corruption,
                reordering,
                overtakers,
                delay,
                turns,
            },
        )
}

proptest! {
    /// The same seed gives the same faults, and whatever they are every frame is somewhere
    /// (asserted after every turn), and in the end free.
    #[test]
    fn a_seed_decides_and_no_frame_is_lost(
        seed in any::<u64>(), receive in faults(), transmit in faults(), count in 0u32..300,
    ) {
        let run = || {
            let mut bench = Bench::new(seed, receive, transmit);
            let received = bench.receive(count, 60);
            let sent = bench.transmit(count, 60);
            let faults = bench.port.faults();
            let held = bench.port.frames_held();
            (received, sent, faults, held)
        };
        let (received, sent, faults, held) = run();
        prop_assert_eq!(run(), (received.clone(), sent.clone(), faults, held));
        prop_assert_eq!(held, 0);
        let expected = u64::from(count) * 2 + faults.duplicated - faults.lost;
        prop_assert_eq!((received.len() + sent.len()) as u64, expected);
    }
}
