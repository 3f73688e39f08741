//! Checkpoints on their way from a worker to its control thread: the newest one of an SA replaces an
//! older one, and the worker never waits.
//!
//! Each SA has a slot, a sequence lock made of atomics; a ring tells the collector which slots are
//! new. A slot is in the ring at most once (its `queued` flag), so a ring as long as there are slots
//! is never full. When the collector meets a slot that is being written it leaves it: it has
//! cleared `queued` before it read, so the publisher, which sets the flag after it wrote, will find
//! it clear and put the slot into the ring again. Neither side ever retries.

use std::sync::Arc;

use crossbeam::utils::CachePadded;
use hitless_sa::{Incarnation, MemberId, SaId, SequenceNumber};

use crate::memory;
use crate::prefetch::prefetch;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// What a worker last knew of one SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    pub sa: SaId,
    /// The next outbound number to be drawn.
    pub outbound_next: SequenceNumber,
    /// The highest authenticated inbound number.
    pub inbound_top: SequenceNumber,
    pub packets_out: u64,
    pub bytes_out: u64,
    pub packets_in: u64,
    pub bytes_in: u64,
}

const WORDS: usize = 8;

impl Checkpoint {
    fn to_words(self) -> [u64; WORDS] {
        [
            u64::from(self.sa.creator.0) << 32 | u64::from(self.sa.incarnation.0),
            u64::from(self.sa.counter),
            self.outbound_next.0,
            self.inbound_top.0,
            self.packets_out,
            self.bytes_out,
            self.packets_in,
            self.bytes_in,
        ]
    }

    fn from_words(words: [u64; WORDS]) -> Checkpoint {
        let [
            maker,
            counter,
            next,
            top,
            packets_out,
            bytes_out,
            packets_in,
            bytes_in,
        ] = words;
        Checkpoint {
            sa: SaId {
                creator: MemberId((maker >> 32) as u8),
                incarnation: Incarnation(maker as u32),
                counter: counter as u32,
            },
            outbound_next: SequenceNumber(next),
            inbound_top: SequenceNumber(top),
            packets_out,
            bytes_out,
            packets_in,
            bytes_in,
        }
    }
}

/// A channel for the checkpoints of `capacity` SAs, each with a slot below `capacity`.
pub fn channel(capacity: usize) -> (Publisher, Collector) {
    let (sender, receiver) = mailbox(capacity);
    (Publisher(sender), Collector(receiver))
}

/// The worker's end.
pub struct Publisher(Sender<WORDS>);

impl Publisher {
    /// Replaces the slot's checkpoint. A slot beyond the channel's capacity is ignored: the SAD
    /// admits none.
    #[inline]
    pub fn publish(&mut self, slot: u32, checkpoint: &Checkpoint) {
        self.0.publish(slot, checkpoint.to_words());
    }
}

impl Publisher {
    /// Asks for where the slot's checkpoint is written.
    #[inline]
    pub(crate) fn prefetch(&self, slot: u32) {
        if let Some(slot) = self.0.shared.slots.get(slot as usize) {
            prefetch(slot);
        }
    }
}

/// The control thread's end.
pub struct Collector(Receiver<WORDS>);

impl Collector {
    /// Hands out every checkpoint that is newer than the one that it last handed out for its slot.
    pub fn drain(&mut self, mut take: impl FnMut(u32, Checkpoint)) {
        self.0
            .drain(|slot, words| take(slot, Checkpoint::from_words(words)));
    }
}

/// The mailbox under the channel, for messages of `N` words. Public for the model checker, which can
/// search two words exhaustively but not eight.
pub fn mailbox<const N: usize>(capacity: usize) -> (Sender<N>, Receiver<N>) {
    let length = capacity.max(1).next_power_of_two();
    let shared = Arc::new(Shared {
        slots: memory::table(capacity, Slot::new),
        ring: (0..length).map(|_| AtomicU32::new(0)).collect(),
        tail: CachePadded::new(AtomicU64::new(0)),
    });
    let sender = Sender {
        shared: Arc::clone(&shared),
        tail: 0,
    };
    let receiver = Receiver {
        delivered: vec![0; capacity],
        shared,
        head: 0,
    };
    (sender, receiver)
}

struct Shared<const N: usize> {
    slots: Box<[Slot<N>]>,
    ring: Box<[AtomicU32]>,
    /// Entries ever put into the ring.
    tail: CachePadded<AtomicU64>,
}

struct Slot<const N: usize> {
    /// Even: stable. Odd: being written. 0: never written.
    version: AtomicU64,
    words: [AtomicU64; N],
    /// In the ring and not yet taken out.
    queued: AtomicBool,
}

impl<const N: usize> Slot<N> {
    fn new() -> Slot<N> {
        Slot {
            version: AtomicU64::new(0),
            words: std::array::from_fn(|_| AtomicU64::new(0)),
            queued: AtomicBool::new(false),
        }
    }

    /// A message and its version, unless the publisher wrote in between.
    fn read(&self) -> Option<(u64, [u64; N])> {
        let before = self.version.load(Ordering::Acquire);
        // Acquire on each word: a new word brings with it the odd version stored before it.
        let words = std::array::from_fn(|i| self.words[i].load(Ordering::Acquire));
        let after = self.version.load(Ordering::Relaxed);
        (before == after && before.is_multiple_of(2)).then_some((before, words))
    }
}

/// The publishing end of a [`mailbox`].
pub struct Sender<const N: usize> {
    shared: Arc<Shared<N>>,
    tail: u64,
}

impl<const N: usize> Sender<N> {
    /// Replaces a slot's message.
    #[inline]
    pub fn publish(&mut self, index: u32, message: [u64; N]) {
        let shared = &*self.shared;
        let Some(slot) = shared.slots.get(index as usize) else {
            return;
        };
        let version = slot.version.load(Ordering::Relaxed);
        slot.version.store(version + 1, Ordering::Relaxed);
        for (word, value) in slot.words.iter().zip(message) {
            word.store(value, Ordering::Release);
        }
        slot.version.store(version + 2, Ordering::Release);
        if !slot.queued.swap(true, Ordering::AcqRel) {
            // The entry that this one overwrites has been taken: of `length + 1` entries two are of
            // one slot, and that slot's flag was seen clear, which the collector does in order.
            let place = self.tail as usize & (shared.ring.len() - 1);
            shared.ring[place].store(index, Ordering::Relaxed);
            self.tail += 1;
            shared.tail.store(self.tail, Ordering::Release);
        }
    }
}

/// The collecting end of a [`mailbox`].
pub struct Receiver<const N: usize> {
    shared: Arc<Shared<N>>,
    head: u64,
    /// The version last handed out, for each slot.
    delivered: Vec<u64>,
}

impl<const N: usize> Receiver<N> {
    /// Hands out the newest message of every slot that has a new one.
    pub fn drain(&mut self, mut take: impl FnMut(u32, [u64; N])) {
        let shared = &*self.shared;
        let tail = shared.tail.load(Ordering::Acquire);
        while self.head != tail {
            let place = self.head as usize & (shared.ring.len() - 1);
            let index = shared.ring[place].load(Ordering::Relaxed);
            self.head += 1;
            let (Some(slot), Some(delivered)) = (
                shared.slots.get(index as usize),
                self.delivered.get_mut(index as usize),
            ) else {
                continue;
            };
            slot.queued.swap(false, Ordering::AcqRel);
            // Nothing to read now means that the publisher is about to queue the slot again.
            if let Some((version, message)) = slot.read()
                && version != *delivered
            {
                *delivered = version;
                take(index, message);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn checkpoint(counter: u32, value: u64) -> Checkpoint {
        Checkpoint {
            sa: SaId {
                creator: MemberId(3),
                incarnation: Incarnation(0x00ab_cdef),
                counter,
            },
            outbound_next: SequenceNumber(value),
            inbound_top: SequenceNumber(value + 1),
            packets_out: value + 2,
            bytes_out: value + 3,
            packets_in: value + 4,
            bytes_in: value + 5,
        }
    }

    fn drained(collector: &mut Collector) -> Vec<(u32, Checkpoint)> {
        let mut all = Vec::new();
        collector.drain(|slot, checkpoint| all.push((slot, checkpoint)));
        all
    }

    #[test]
    fn the_newest_replaces_older_ones() {
        let (mut publisher, mut collector) = channel(3);
        for round in 0..1000 {
            publisher.publish(2, &checkpoint(7, round));
            publisher.publish(0, &checkpoint(8, round));
        }
        assert_eq!(
            drained(&mut collector),
            [(2, checkpoint(7, 999)), (0, checkpoint(8, 999))]
        );
        assert_eq!(drained(&mut collector), []);
    }

    #[test]
    fn the_ring_holds_every_slot_through_many_turns() {
        for capacity in [1usize, 2, 3, 5, 8] {
            let (mut publisher, mut collector) = channel(capacity);
            for round in 0..50u64 {
                let order = (0..capacity as u32).map(|i| (i + round as u32) % capacity as u32);
                for slot in order.clone() {
                    publisher.publish(slot, &checkpoint(slot, round));
                }
                let expected: Vec<_> = order.map(|slot| (slot, checkpoint(slot, round))).collect();
                assert_eq!(drained(&mut collector), expected);
            }
        }
    }

    #[test]
    fn a_slot_beyond_the_capacity_is_ignored_and_an_end_may_be_gone() {
        let (mut publisher, mut collector) = channel(1);
        publisher.publish(1, &checkpoint(1, 1));
        assert_eq!(drained(&mut collector), []);
        publisher.publish(0, &checkpoint(1, 2));
        drop(publisher);
        assert_eq!(drained(&mut collector), [(0, checkpoint(1, 2))]);
        let (mut publisher, collector) = channel(0);
        drop(collector);
        publisher.publish(0, &checkpoint(1, 1));
    }

    #[test]
    fn nothing_torn_or_older_arrives_while_the_worker_publishes() {
        const ROUNDS: u64 = 100_000;
        let (mut publisher, mut collector) = channel(2);
        let worker = std::thread::spawn(move || {
            for round in 1..=ROUNDS {
                publisher.publish((round % 2) as u32, &checkpoint(1, round));
            }
        });
        let mut last = [0; 2];
        while last != [ROUNDS, ROUNDS - 1] {
            collector.drain(|slot, got| {
                let round = got.outbound_next.0;
                assert_eq!(got, checkpoint(1, round));
                assert!(round > last[slot as usize]);
                last[slot as usize] = round;
            });
            std::thread::yield_now();
        }
        worker.join().unwrap();
    }
}
