//! One thread at a time; `tests/loom.rs` has the interleavings.

use super::*;
use proptest::prelude::*;

fn lease(grant: u64, high_water: u64) -> Lease {
    Lease {
        grant: SequenceNumber(grant),
        high_water: SequenceNumber(high_water),
    }
}

fn new(first: u64, lease: Lease) -> Cell {
    Cell::new(SequenceNumber(first), lease)
}

fn numbers(block: Block) -> Vec<u64> {
    block.map(|number| number.0).collect()
}

#[test]
fn draws_up_to_the_limit_and_never_runs_ahead_of_it() {
    // D1: the cursor of an exhausted lease must not run past the limits to come.
    let cell = new(101, lease(110, 0));
    let draw = |count| numbers(cell.draw(count));
    assert_eq!(draw(4), [101, 102, 103, 104]);
    assert_eq!(draw(32), [105, 106, 107, 108, 109, 110]);
    for _ in 0..1000 {
        assert_eq!(draw(32).len(), 0);
    }
    assert_eq!(cell.cursor(), SequenceNumber(111));
    assert_eq!(cell.lease_stalls(), 1001);
    cell.raise(lease(112, 0));
    assert_eq!(draw(32), [111, 112]);
    assert_eq!(draw(0).len(), 0);
    assert_eq!(cell.lease_stalls(), 1002);
}

#[test]
fn a_new_sa_without_a_grant_sends_nothing_and_never_number_zero() {
    let cell = new(0, Lease::default());
    assert_eq!(cell.draw(1).len(), 0);
    assert_eq!(cell.remaining(), 0);
    cell.raise(lease(1, 0));
    assert_eq!(cell.remaining(), 1);
    assert_eq!(numbers(cell.draw(2)), [1]);
}

#[test]
fn a_lower_lease_changes_nothing() {
    // A2: an old grant that arrives late.
    let cell = new(1, lease(10, 20));
    cell.raise(lease(5, 30));
    cell.raise(lease(12, 8));
    assert_eq!(cell.limit(), SequenceNumber(12));
    assert_eq!(cell.high_water(), SequenceNumber(30));
}

#[test]
fn a_frozen_cell_stays_frozen() {
    // R14: step-down is irrevocable, and the cursor that FINAL carries is exact.
    let cell = new(1, lease(10, 10));
    let before = cell.draw(3);
    assert!(cell.may_deliver(SequenceNumber(10)));
    assert_eq!(cell.freeze(), SequenceNumber(4));
    assert_eq!(cell.freeze(), SequenceNumber(4));
    cell.raise(lease(1000, 1000));
    cell.leap(5);
    assert!(cell.frozen());
    assert_eq!(cell.draw(1).len(), 0);
    assert!(!cell.may_deliver(SequenceNumber(1)));
    assert_eq!(cell.remaining(), 0);
    let bounds = (cell.cursor().0, cell.limit().0, cell.high_water().0);
    assert_eq!(bounds, (4, 10, 10));
    assert_eq!(cell.used(), lease(3, 0));
    assert_eq!(numbers(before), [1, 2, 3]);
}

#[test]
fn rfc6311_section_5_2_a_leap_leaves_numbers_out_and_waits_for_the_lease() {
    let cell = new(1, lease(10, 0));
    assert_eq!(cell.draw(3).len(), 3);
    cell.leap(4);
    assert_eq!((cell.cursor().0, cell.remaining()), (8, 3));
    assert_eq!(numbers(cell.draw(2)), [8, 9]);
    cell.leap(100);
    assert_eq!((cell.cursor().0, cell.remaining()), (110, 0));
    assert_eq!(cell.draw(1).len(), 0);
    cell.raise(lease(111, 0));
    assert_eq!(numbers(cell.draw(4)), [110, 111]);
    cell.leap(u64::MAX);
    cell.raise(lease(u64::MAX, 0));
    assert_eq!(cell.draw(1).len(), 0);
    assert!(!cell.frozen());
}

#[test]
fn numbers_end_before_the_bit_that_freezes() {
    let cell = new(LAST - 1, lease(u64::MAX, 0));
    assert!(!cell.frozen());
    assert_eq!(numbers(cell.draw(32)), [LAST - 1, LAST]);
    assert_eq!(cell.draw(32).len(), 0);
    assert!(!cell.frozen());
    let beyond = new(u64::MAX, lease(u64::MAX, u64::MAX));
    assert_eq!(beyond.draw(1).len(), 0);
    assert!(!beyond.frozen() && beyond.may_deliver(SequenceNumber(LAST)));
    assert!(!beyond.may_deliver(SequenceNumber(u64::MAX)));
}

#[test]
fn what_workers_that_send_need_is_on_one_cache_line() {
    assert_eq!((size_of::<Sending>(), size_of::<Receiving>()), (64, 64));
}

#[test]
fn the_inbound_top_only_rises() {
    let cell = new(1, lease(0, 0));
    for number in [5, 3, 9, 9, 1] {
        cell.note_inbound_top(SequenceNumber(number));
    }
    assert_eq!(cell.inbound_top(), SequenceNumber(9));
}

proptest! {
    #[test]
    fn every_number_is_drawn_once_and_in_order(
        first in 1u64..100,
        steps in proptest::collection::vec((0u32..40, 0u64..200, 0u64..3), 1..100),
    ) {
        let cell = new(first, lease(0, 0));
        let mut expected = first;
        for (count, limit, delta) in &steps {
            cell.raise(lease(*limit, 0));
            cell.leap(*delta);
            expected += delta;
            for number in cell.draw(*count) {
                prop_assert_eq!(number.0, expected);
                prop_assert!(number <= cell.limit());
                expected += 1;
            }
            prop_assert_eq!(cell.cursor().0, expected);
        }
    }
}
