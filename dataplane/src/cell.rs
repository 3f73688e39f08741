//! The write-ahead lease of one SA in one leadership (rules R3, R5, R8 of the lease protocol).
//!
//! A cell is made when its member begins to lead the SA, is shared by the control thread and every
//! worker that holds the SA, and is never reset: another leadership gets another cell, so a worker
//! that was paused in between cannot draw old numbers against a new limit (hole A5).
//!
//! Heads up: the top bit of the three shared words says "frozen". A draw is a compare-and-swap of
//! the cursor, so the instant at which `freeze` sets the bit is the instant after which no draw
//! succeeds, and the cursor that it returns is exact. Numbers therefore end at 2^63.

use hitless_sa::{Lease, SequenceNumber};

use crate::pmtu::PathMtu;
use crate::prefetch::prefetch;
use crate::sync::{AtomicU64, Ordering};

const FROZEN: u64 = 1 << 63;
/// The last number of any SA: the cursor behind it still leaves the top bit free.
const LAST: u64 = FROZEN - 2;

/// What may still be sent and delivered on one SA in one leadership: a cache line for each direction,
/// so that with many SAs a burst misses few of them.
pub struct Cell {
    sending: Sending,
    receiving: Receiving,
}

/// What workers that send contend for, and what they read with it.
#[repr(align(64))]
struct Sending {
    /// The next number to draw.
    cursor: AtomicU64,
    limit: AtomicU64,
    /// Written only when an error about a packet of the SA has come, to whichever worker.
    path_mtu: PathMtu,
    stalls: AtomicU64,
}

/// What workers that receive read with every burst, and what they report.
#[repr(align(64))]
struct Receiving {
    high_water: AtomicU64,
    inbound_top: AtomicU64,
}

impl Cell {
    /// A cell that draws from `first` up to the lease's grant and delivers up to its high water.
    /// Number 0 is never sent (RFC 4303 section 3.3.3).
    pub fn new(first: SequenceNumber, lease: Lease) -> Cell {
        Cell {
            sending: Sending {
                cursor: AtomicU64::new(first.0.clamp(1, LAST + 1)),
                limit: AtomicU64::new(lease.grant.0.min(LAST)),
                path_mtu: PathMtu::default(),
                stalls: AtomicU64::new(0),
            },
            receiving: Receiving {
                high_water: AtomicU64::new(lease.high_water.0.min(LAST)),
                inbound_top: AtomicU64::new(0),
            },
        }
    }

    /// Asks for what a draw needs.
    #[inline]
    pub(crate) fn prefetch_sending(&self) {
        prefetch(&self.sending);
    }

    /// Asks for what a delivery needs.
    #[inline]
    pub(crate) fn prefetch_receiving(&self) {
        prefetch(&self.receiving);
    }

    /// Takes up to `count` numbers, fewer if the limit is near, none once frozen. What is drawn is
    /// burned: it is never given back, so draw what this burst needs and no more (D15).
    #[inline]
    pub fn draw(&self, count: u32) -> Block {
        let count = u64::from(count);
        let mut cursor = self.sending.cursor.load(Ordering::Relaxed);
        let taken = loop {
            if cursor & FROZEN != 0 {
                break 0;
            }
            // The limit only rises, so an old value of it is a safe one.
            let limit = self.sending.limit.load(Ordering::Acquire) & !FROZEN;
            let taken = count.min((limit + 1).saturating_sub(cursor));
            if taken == 0 {
                break 0;
            }
            // Never past the limit (D1): a cursor that ran ahead would pass every later limit too.
            match self.sending.cursor.compare_exchange_weak(
                cursor,
                cursor + taken,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break taken,
                Err(now) => cursor = now,
            }
        };
        if taken < count {
            self.sending.stalls.fetch_add(1, Ordering::Relaxed);
        }
        Block {
            next: cursor,
            end: cursor + taken,
        }
    }

    /// Raises the bounds to what the standbys have recorded. A lower bound, which an old message may
    /// carry, changes nothing, and nothing changes a frozen cell.
    pub fn raise(&self, lease: Lease) {
        let upward = |to: u64| move |now: u64| (now & FROZEN == 0).then(|| now.max(to.min(LAST)));
        let (release, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
        // A refused update is a frozen cell, which is meant to stay as it is.
        let _ = self
            .sending
            .limit
            .fetch_update(release, relaxed, upward(lease.grant.0));
        let _ =
            self.receiving
                .high_water
                .fetch_update(release, relaxed, upward(lease.high_water.0));
    }

    /// Steps down for good: nothing is drawn or delivered from now on. Returns the cursor, which
    /// moves no more: every number below it may have been used, none from it on has been.
    ///
    /// A worker that asked [`Cell::may_deliver`] a moment ago may still be delivering; the barrier
    /// of rule R14 waits for that.
    pub fn freeze(&self) -> SequenceNumber {
        self.receiving.high_water.fetch_or(FROZEN, Ordering::AcqRel);
        self.sending.limit.fetch_or(FROZEN, Ordering::AcqRel);
        SequenceNumber(self.sending.cursor.fetch_or(FROZEN, Ordering::AcqRel) & !FROZEN)
    }

    /// Leaves `delta` numbers out: the peer is a cluster that took over and counts them as seen
    /// (RFC 6311 section 5.2). The lease has to catch up before anything is drawn again.
    pub fn leap(&self, delta: u64) {
        let forward = |cursor: u64| {
            (cursor & FROZEN == 0).then(|| cursor.saturating_add(delta).min(LAST + 1))
        };
        // A refused update is a frozen cell, which draws nothing anyway.
        let _ = self
            .sending
            .cursor
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, forward);
    }

    /// The last number drawn and the highest number authenticated: exact once leadership is off and
    /// every worker has passed a barrier.
    pub fn used(&self) -> Lease {
        Lease {
            grant: SequenceNumber(self.cursor().0 - 1),
            high_water: self.inbound_top(),
        }
    }

    /// Whether the member has stepped down from this cell.
    pub fn frozen(&self) -> bool {
        self.sending.cursor.load(Ordering::Acquire) & FROZEN != 0
    }

    /// The highest number that may be drawn.
    pub fn limit(&self) -> SequenceNumber {
        SequenceNumber(self.sending.limit.load(Ordering::Acquire) & !FROZEN)
    }

    /// The number that the next draw begins with.
    pub fn cursor(&self) -> SequenceNumber {
        SequenceNumber(self.sending.cursor.load(Ordering::Acquire) & !FROZEN)
    }

    /// How many numbers can still be drawn: what the low-water scan looks at.
    pub fn remaining(&self) -> u64 {
        let cursor = self.sending.cursor.load(Ordering::Acquire);
        if cursor & FROZEN != 0 {
            return 0;
        }
        (self.limit().0 + 1).saturating_sub(cursor)
    }

    /// The highest number that may be delivered.
    pub fn high_water(&self) -> SequenceNumber {
        SequenceNumber(self.receiving.high_water.load(Ordering::Acquire) & !FROZEN)
    }

    /// What is known of the way of the SA's packets: one truth for all workers that send on it.
    #[inline]
    pub(crate) fn path_mtu(&self) -> &PathMtu {
        &self.sending.path_mtu
    }

    /// Whether an authentic packet with this number may be delivered now (R8).
    #[inline]
    pub fn may_deliver(&self, number: SequenceNumber) -> bool {
        let high_water = self.receiving.high_water.load(Ordering::Acquire);
        high_water & FROZEN == 0 && number.0 <= high_water
    }

    /// Reports the highest authenticated number of a burst, delivered or waiting: the SA's
    /// `authenticated`. Only numbers whose ICV verified belong here (B6).
    #[inline]
    pub fn note_inbound_top(&self, number: SequenceNumber) {
        let top = &self.receiving.inbound_top;
        // A load first: of late packets none is news.
        if top.load(Ordering::Relaxed) < number.0 {
            top.fetch_max(number.0, Ordering::Relaxed);
        }
    }

    /// The same for the only worker that receives on the SA, which needs no locked instruction.
    #[inline]
    pub(crate) fn note_inbound_top_alone(&self, number: SequenceNumber) {
        let top = &self.receiving.inbound_top;
        if top.load(Ordering::Relaxed) < number.0 {
            top.store(number.0, Ordering::Relaxed);
        }
    }

    /// The highest authenticated number that a worker reported.
    pub fn inbound_top(&self) -> SequenceNumber {
        SequenceNumber(self.receiving.inbound_top.load(Ordering::Relaxed))
    }

    /// How many draws got less than they asked for.
    pub fn lease_stalls(&self) -> u64 {
        self.sending.stalls.load(Ordering::Relaxed)
    }
}

/// Numbers that a worker drew for one burst. Not `Clone`: each number exists once. What is left when
/// it is dropped stays unused for ever.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "drawn numbers are burned"]
pub struct Block {
    next: u64,
    end: u64,
}

impl Block {
    /// The first number, and the one behind the last: nothing is left of the block.
    #[inline]
    pub(crate) fn into_bounds(self) -> (u64, u64) {
        (self.next, self.end)
    }
}

impl Iterator for Block {
    type Item = SequenceNumber;

    #[inline]
    fn next(&mut self) -> Option<SequenceNumber> {
        let number = SequenceNumber(self.next);
        (self.next < self.end).then(|| {
            self.next += 1;
            number
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.end - self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Block {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lease(grant: u64, high_water: u64) -> Lease {
        Lease {
            grant: SequenceNumber(grant),
            high_water: SequenceNumber(high_water),
        }
    }

    fn cell(first: u64, grant: u64) -> Cell {
        Cell::new(SequenceNumber(first), lease(grant, 0))
    }

    fn numbers(block: Block) -> Vec<u64> {
        block.map(|number| number.0).collect()
    }

    #[test]
    fn draws_up_to_the_limit_and_never_runs_ahead_of_it() {
        // D1: the cursor of an exhausted lease must not run past the limits to come.
        let cell = cell(101, 110);
        assert_eq!(numbers(cell.draw(4)), [101, 102, 103, 104]);
        assert_eq!(numbers(cell.draw(32)), [105, 106, 107, 108, 109, 110]);
        for _ in 0..1000 {
            assert_eq!(cell.draw(32).len(), 0);
        }
        assert_eq!(cell.cursor(), SequenceNumber(111));
        assert_eq!(cell.lease_stalls(), 1001);
        cell.raise(lease(112, 0));
        assert_eq!(numbers(cell.draw(32)), [111, 112]);
        assert_eq!(cell.draw(0).len(), 0);
        assert_eq!(cell.lease_stalls(), 1002);
    }

    #[test]
    fn a_new_sa_without_a_grant_sends_nothing_and_never_number_zero() {
        let cell = Cell::new(SequenceNumber(0), Lease::default());
        assert_eq!(cell.draw(1).len(), 0);
        assert_eq!(cell.remaining(), 0);
        cell.raise(lease(1, 0));
        assert_eq!(cell.remaining(), 1);
        assert_eq!(numbers(cell.draw(2)), [1]);
    }

    #[test]
    fn a_lower_lease_changes_nothing() {
        // A2: an old grant that arrives late.
        let cell = Cell::new(SequenceNumber(1), lease(10, 20));
        cell.raise(lease(5, 30));
        cell.raise(lease(12, 8));
        assert_eq!(cell.limit(), SequenceNumber(12));
        assert_eq!(cell.high_water(), SequenceNumber(30));
    }

    #[test]
    fn a_frozen_cell_stays_frozen() {
        // R14: step-down is irrevocable, and the cursor that FINAL carries is exact.
        let cell = Cell::new(SequenceNumber(1), lease(10, 10));
        let before = cell.draw(3);
        assert!(cell.may_deliver(SequenceNumber(10)));
        assert_eq!(cell.freeze(), SequenceNumber(4));
        assert_eq!(cell.freeze(), SequenceNumber(4));
        cell.raise(lease(1000, 1000));
        assert!(cell.frozen());
        assert_eq!(cell.draw(1).len(), 0);
        assert!(!cell.may_deliver(SequenceNumber(1)));
        assert_eq!(cell.remaining(), 0);
        assert_eq!(
            (cell.cursor().0, cell.limit().0, cell.high_water().0),
            (4, 10, 10)
        );
        assert_eq!(numbers(before), [1, 2, 3]);
    }

    #[test]
    fn numbers_end_before_the_bit_that_freezes() {
        let cell = cell(LAST - 1, u64::MAX);
        assert!(!cell.frozen());
        assert_eq!(numbers(cell.draw(32)), [LAST - 1, LAST]);
        assert_eq!(cell.draw(32).len(), 0);
        assert!(!cell.frozen());
        let beyond = Cell::new(SequenceNumber(u64::MAX), lease(u64::MAX, u64::MAX));
        assert_eq!(beyond.draw(1).len(), 0);
        assert!(!beyond.frozen() && beyond.may_deliver(SequenceNumber(LAST)));
        assert!(!beyond.may_deliver(SequenceNumber(u64::MAX)));
    }

    #[test]
    fn the_inbound_top_only_rises() {
        let cell = cell(1, 0);
        for number in [5, 3, 9, 9, 1] {
            cell.note_inbound_top(SequenceNumber(number));
        }
        assert_eq!(cell.inbound_top(), SequenceNumber(9));
    }

    proptest! {
        #[test]
        fn every_number_is_drawn_once_and_in_order(
            first in 1u64..100,
            steps in proptest::collection::vec((0u32..40, 0u64..200), 1..100),
        ) {
            let cell = cell(first, 0);
            let mut expected = first;
            for (count, limit) in steps {
                cell.raise(lease(limit, 0));
                for number in cell.draw(count) {
                    prop_assert_eq!(number.0, expected);
                    prop_assert!(number <= cell.limit());
                    expected += 1;
                }
                prop_assert_eq!(cell.cursor().0, expected);
            }
        }
    }
}
