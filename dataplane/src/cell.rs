//! The write-ahead lease of one SA in one leadership (rules R3, R5, R8 of the lease protocol).
//!
//! A cell is made when its member begins to lead the SA, is shared by the control thread and every
//! worker that holds the SA, and is never reset: another leadership gets another cell, so a worker
//! that was paused in between cannot draw old numbers against a new limit (hole A5).
//!
//! A draw is a compare-and-swap of the cursor, whoever else draws. What the control thread has to say
//! stands in words that draws only read.
//!
//! Heads up: the top bit of the shared words says "frozen", so numbers end at 2^63. The instant at
//! which `freeze` sets the cursor's is the instant after which no draw succeeds, and the cursor that it
//! returns is exact.

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
    /// A cell that draws from `first` up to the lease's grant and delivers up to its high water, for
    /// any number of workers. Number 0 is never sent (RFC 4303 section 3.3.3).
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
        let (done, failed) = (Ordering::AcqRel, Ordering::Relaxed);
        let mut cursor = self.sending.cursor.load(Ordering::Relaxed);
        let block = loop {
            let block = self.block(cursor, count);
            if block.next == block.end {
                break block;
            }
            let word = &self.sending.cursor;
            match word.compare_exchange_weak(cursor, block.end, done, failed) {
                Ok(_) => break block,
                Err(now) => cursor = now,
            }
        };
        if block.end - block.next < count {
            self.sending.stalls.fetch_add(1, Ordering::Relaxed);
        }
        block
    }

    /// What can be drawn at this cursor: never past the limit (D1), for a cursor that ran ahead would
    /// pass every later limit too.
    #[inline]
    fn block(&self, cursor: u64, count: u64) -> Block {
        // The limit only rises, so an old value of it is a safe one.
        let limit = self.sending.limit.load(Ordering::Acquire);
        let left = match limit & FROZEN {
            // A frozen cursor lies past every limit.
            0 => (limit + 1).saturating_sub(cursor),
            _ => 0,
        };
        Block {
            next: cursor,
            end: cursor + count.min(left),
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
    /// A worker that asked [`Cell::may_deliver`] a moment ago may still be delivering; the barrier of
    /// rule R14 waits for it.
    pub fn freeze(&self) -> SequenceNumber {
        self.receiving.high_water.fetch_or(FROZEN, Ordering::AcqRel);
        self.sending.limit.fetch_or(FROZEN, Ordering::AcqRel);
        let cursor = self.sending.cursor.fetch_or(FROZEN, Ordering::AcqRel);
        SequenceNumber(cursor & !FROZEN)
    }

    /// Leaves `delta` numbers out: the peer is a cluster that took over and counts them as seen
    /// (RFC 6311 section 5.2). The lease has to catch up before anything is drawn again.
    pub fn leap(&self, delta: u64) {
        let onward = |cursor: u64| {
            let to = cursor.saturating_add(delta).min(LAST + 1);
            (cursor & FROZEN == 0).then_some(to)
        };
        let (release, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
        // A refused update is a frozen cell.
        let _ = self.sending.cursor.fetch_update(release, relaxed, onward);
    }

    /// The last number drawn and the highest number authenticated: exact once the cell is frozen and
    /// every worker has passed a barrier.
    pub fn used(&self) -> Lease {
        Lease {
            grant: SequenceNumber(self.cursor().0 - 1),
            high_water: self.inbound_top(),
        }
    }

    /// Whether the member has stepped down from this cell.
    pub fn frozen(&self) -> bool {
        self.sending.limit.load(Ordering::Acquire) & FROZEN != 0
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
        let cursor = self.cursor().0;
        match self.sending.limit.load(Ordering::Acquire) {
            limit if limit & FROZEN == 0 => (limit + 1).saturating_sub(cursor),
            _ => 0,
        }
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
mod tests;
