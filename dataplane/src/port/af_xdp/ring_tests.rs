//! Rings over plain memory, with the kernel's side played by the test.
#![expect(unsafe_code, reason = "the test writes the kernel's side of a ring")]

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const LAYOUT: Layout = Layout {
    producer: 0,
    consumer: 64,
    flags: 128,
    entries: 192,
};

/// A ring of 8 whose indexes both stand at `start`.
fn ring<T: Entry>(start: u32) -> Ring<T> {
    let ring = Ring::new(None, 0, LAYOUT, 8).unwrap();
    ring.producer().store(start, Ordering::Relaxed);
    ring.consumer().store(start, Ordering::Relaxed);
    ring
}

fn read<T: Entry>(ring: &Ring<T>, index: u32) -> T {
    // SAFETY: the slot is within the ring, and this thread is both sides of it.
    unsafe { ring.slot(index).read() }
}

proptest! {
    /// Against a plain queue, with indexes that wrap around 2^32.
    #[test]
    fn a_producer_is_a_bounded_queue(
        start in prop_oneof![Just(0), Just(u32::MAX - 5), any::<u32>()],
        steps in prop::collection::vec((0_u32..12, 0_u32..12), 1..40),
    ) {
        let mut producer = Producer::<u64>::over(ring(start));
        let (mut model, mut value, mut consumed) = (VecDeque::new(), 0, start);
        for (push, consume) in steps {
            prop_assert_eq!(producer.room() as usize, 8 - model.len());
            for _ in 0..push {
                let pushed = producer.push(value);
                prop_assert_eq!(pushed, model.len() < 8);
                if pushed {
                    model.push_back(value);
                }
                value += 1;
            }
            producer.publish();
            prop_assert_eq!(producer.pending() as usize, model.len());
            let visible = producer.ring.producer().load(Ordering::Relaxed);
            for _ in 0..consume.min(visible.wrapping_sub(consumed)) {
                prop_assert_eq!(Some(read(&producer.ring, consumed)), model.pop_front());
                consumed = consumed.wrapping_add(1);
            }
            producer.ring.consumer().store(consumed, Ordering::Relaxed);
        }
    }

    /// Whatever the kernel's index says, at most a ring's worth of entries is read.
    #[test]
    fn a_consumer_reads_what_was_produced_and_never_more_than_the_ring(
        start in prop_oneof![Just(0), Just(u32::MAX - 5), any::<u32>()],
        claims in prop::collection::vec(prop_oneof![0_u32..12, any::<u32>()], 1..20),
    ) {
        let mut consumer = Consumer::<Descriptor>::over(ring(start));
        let mut next = start;
        for claim in claims {
            for index in 0..claim.min(8) {
                let index = next.wrapping_add(index);
                let entry = Descriptor { address: u64::from(index), length: 60, options: 0 };
                // SAFETY: the slot is within the ring, and this thread is both sides of it.
                unsafe { consumer.ring.slot(index).write(entry) };
            }
            consumer.ring.producer().store(next.wrapping_add(claim), Ordering::Relaxed);
            let mut read = 0;
            while let Some(entry) = consumer.pop() {
                prop_assert_eq!(entry.address, u64::from(next.wrapping_add(read)));
                read += 1;
            }
            prop_assert_eq!(read, if claim <= 8 { claim } else { 0 });
            consumer.release();
            next = next.wrapping_add(read);
            prop_assert_eq!(consumer.ring.consumer().load(Ordering::Relaxed), next);
        }
    }
}

#[test]
fn nothing_is_visible_before_publish_nor_free_before_release() {
    let mut producer = Producer::<u64>::over(ring(7));
    assert!(producer.push(1));
    assert_eq!(producer.ring.producer().load(Ordering::Relaxed), 7);
    producer.publish();
    assert_eq!(producer.ring.producer().load(Ordering::Relaxed), 8);

    let mut consumer = Consumer::<u64>::over(ring(7));
    consumer.ring.producer().store(8, Ordering::Relaxed);
    assert!(consumer.pop().is_some());
    assert_eq!(consumer.ring.consumer().load(Ordering::Relaxed), 7);
    consumer.release();
    assert_eq!(consumer.ring.consumer().load(Ordering::Relaxed), 8);
}

#[test]
fn a_layout_outside_the_mapping_is_refused() {
    for wrong in [u64::MAX, 1 << 40, 3] {
        let layout = Layout {
            producer: wrong,
            ..LAYOUT
        };
        assert!(Ring::<u64>::new(None, 0, layout, 8).is_err());
    }
}
