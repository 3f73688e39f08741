//! One window for an SA whose packets are received on several cores at once.
//!
//! ```text
//!   top      the highest number seen, only ever raised
//!   word[i]  lap 48 | seen 16      one block of 16 numbers; block b lies in word b % words
//! ```
//!
//! A word says itself which block it stands for: the lap counts how often the ring has been gone
//! round. So there is no clearing of what lies ahead and no order between `top` and the words. A
//! number is accepted by the compare-and-swap that sets its bit in a word of its own lap, or that
//! turns a word of an earlier lap into one of its own. Within a lap bits are only ever set, and no
//! word returns to an earlier lap; hence **a number is accepted once, whatever the cores do**, and
//! relaxed ordering is enough: each word stands for itself.
//!
//! `top` says what is left of the window (RFC 4303 section 3.4.3) and how to infer the high half.
//! Whoever raises it sets the bits that it leaves behind, and counts those that were not set as
//! lost. Every bit is thereby set once, by who accepts the number or by who gives it up, so `lost`
//! is exact as well.
//!
//! Decryption happens between [`SharedWindow::check`] and [`SharedWindow::mark`], on all cores at
//! the same time.

use crossbeam::utils::CachePadded;
use hitless_sa::SequenceNumber;

use super::{MAX_WINDOW, MIN_WINDOW, ReplayReject, ReplayWindow, infer};
use crate::prefetch::prefetch;
use crate::sync::{AtomicU64, Ordering};

/// Numbers in a word.
const BLOCK: u64 = 16;
/// The bits of a word that say what was seen.
const SEEN: u64 = (1 << BLOCK) - 1;
/// Laps are counted so far, and compared as on a clock: a word would have to be left out for 2^47
/// laps, years at any rate, to be taken for a later one.
const LAPS: u64 = u64::MAX >> BLOCK;
const HALF: u64 = LAPS / 2;

/// The numbers seen on one SA, on whichever worker.
pub struct SharedWindow {
    top: CachePadded<AtomicU64>,
    lost: CachePadded<AtomicU64>,
    words: Box<[AtomicU64]>,
    /// Words less one, a mask of low bits.
    ring: u64,
    /// Bits of a block's number that choose its word.
    ring_bits: u32,
    /// Numbers in the window less one.
    reach: u64,
}

/// How the lap of a block compares with the one that its word holds.
enum Lap {
    Same,
    /// The word is so many laps behind.
    Behind(u64),
    /// The block is gone: another one has its word.
    Gone,
}

impl SharedWindow {
    /// What a single worker's window has seen, for several.
    pub fn new(window: &ReplayWindow) -> SharedWindow {
        // Room for the window wherever it begins within a block: a number that takes over a word
        // then lies further right of what the word held than the window is wide.
        let count = (u64::from(window.size()) / BLOCK + 1).next_power_of_two();
        let (ring, ring_bits) = (count - 1, count.trailing_zeros());
        let top = window.top().0;
        let newest = top / BLOCK;
        let words = (0..count).map(|word| {
            // The newest block of this word that begins at or before the top. Before the first
            // block there are others, all seen.
            let block = newest.wrapping_sub(newest.wrapping_sub(word) & ring);
            let seen = (0..BLOCK).filter(|bit| {
                let number = block.wrapping_mul(BLOCK).wrapping_add(*bit);
                block > newest || (number <= top && window.check(SequenceNumber(number)).is_err())
            });
            let seen = seen.fold(0, |seen, bit| seen | 1 << bit);
            AtomicU64::new(((block >> ring_bits) & LAPS) << BLOCK | seen)
        });
        SharedWindow {
            words: words.collect(),
            top: CachePadded::new(AtomicU64::new(top)),
            lost: CachePadded::new(AtomicU64::new(window.lost())),
            ring,
            ring_bits,
            reach: u64::from(window.size()) - 1,
        }
    }

    /// What was seen, for a single worker. Exact only once no worker has this one any more.
    pub fn to_window(&self) -> ReplayWindow {
        let mut window = ReplayWindow::new(self.size());
        let top = self.top();
        window.leap(top);
        let oldest = top.0.saturating_sub(self.reach);
        for number in (oldest..=top.0).map(SequenceNumber) {
            if self.check(number).is_ok() {
                window.forget(number);
            }
        }
        window.lost = self.lost();
        window
    }

    /// Numbers in the window.
    pub fn size(&self) -> u32 {
        (self.reach as u32 + 1).clamp(MIN_WINDOW, MAX_WINDOW)
    }

    /// The highest number seen.
    pub fn top(&self) -> SequenceNumber {
        SequenceNumber(self.top.load(Ordering::Relaxed))
    }

    /// Numbers that fell out of the window unseen.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// As [`ReplayWindow::infer`].
    #[inline]
    pub fn infer(&self, low: u32, esn: bool) -> SequenceNumber {
        infer(self.top(), self.reach as u32, low, esn)
    }

    /// Whether a packet with this number may be accepted if its ICV verifies. Changes nothing, and
    /// promises nothing: another core may be first.
    #[inline]
    pub fn check(&self, number: SequenceNumber) -> Result<(), ReplayReject> {
        let (n, top) = (number.0, self.top().0);
        if n > top {
            return Ok(());
        }
        if top - n > self.reach {
            return Err(ReplayReject::TooOld);
        }
        let word = self.word(n).load(Ordering::Relaxed);
        match self.lap(n, word) {
            Lap::Same if word & bit(n) != 0 => Err(ReplayReject::Seen),
            Lap::Same | Lap::Behind(_) => Ok(()),
            Lap::Gone => Err(ReplayReject::TooOld),
        }
    }

    /// Asks for the top, and for the word of a number.
    #[inline]
    pub(super) fn prefetch(&self, low: u32) {
        prefetch(&*self.top);
        prefetch(self.word(u64::from(low)));
    }

    /// Checks and marks an authenticated number; true for one caller at most.
    #[inline]
    pub fn mark(&self, number: SequenceNumber) -> bool {
        self.mark_all(&[number]) != 0
    }

    /// The same of up to 32 numbers, in their order; says which are accepted, the first in the lowest
    /// bit. What other cores wait for is written once for all neighbours in a block, and the top once:
    /// they may see a number marked for a moment before the top has risen to it, as they may when the
    /// core that marks it is slow.
    pub fn mark_all(&self, numbers: &[SequenceNumber]) -> u32 {
        let numbers = numbers.get(..u32::BITS as usize).unwrap_or(numbers);
        let top = self.top().0;
        let mut highest = top;
        let mut accepted = 0u32;
        let mut at = 0;
        while let Some(first) = numbers.get(at) {
            let rest = numbers.get(at..).unwrap_or_default();
            let (bits, members) = neighbours(rest, |n| highest.saturating_sub(n) > self.reach);
            let mut unset = match bits {
                0 => 0,
                bits => self.set(first.0, bits).unwrap_or(0),
            };
            for number in rest.iter().take(members) {
                // The first of two that are equal has it.
                if unset & bit(number.0) != 0 {
                    unset &= !bit(number.0);
                    accepted |= 1 << at;
                    highest = highest.max(number.0);
                }
                at += 1;
            }
        }
        if highest > top {
            let before = self.top.fetch_max(highest, Ordering::Relaxed);
            if highest > before {
                self.leave_behind(before, highest);
            }
        }
        accepted
    }

    /// Sets bits in the block of number `n`; gives those that were not set before, or nothing if
    /// the block is gone. What an earlier block in the same word had not seen is lost, as are the
    /// blocks in between that were never there.
    #[inline]
    fn set(&self, n: u64, bits: u64) -> Option<u64> {
        let cell = self.word(n);
        let mut word = cell.load(Ordering::Relaxed);
        loop {
            let (next, unset, lost) = match self.lap(n, word) {
                Lap::Same => (word | bits, bits & !word, 0),
                Lap::Behind(laps) => {
                    let unseen = u64::from((!word & SEEN).count_ones());
                    let lost = (laps - 1).saturating_mul(BLOCK).saturating_add(unseen);
                    (self.lap_of(n) << BLOCK | bits, bits, lost)
                }
                Lap::Gone => return None,
            };
            if unset == 0 {
                return Some(0);
            }
            let (done, failed) = (Ordering::Relaxed, Ordering::Relaxed);
            match cell.compare_exchange_weak(word, next, done, failed) {
                Ok(_) => {
                    self.lose(lost);
                    return Some(unset);
                }
                Err(now) => word = now,
            }
        }
    }

    /// Gives up the numbers that the window leaves behind as its top moves.
    #[inline]
    fn leave_behind(&self, before: u64, now: u64) {
        let Some(last) = now.checked_sub(self.reach + 1) else {
            return;
        };
        let first = (before + 1).saturating_sub(self.reach + 1);
        // Once round the ring is enough: each word counts the laps that it is behind.
        let newest = last / BLOCK;
        for block in (first / BLOCK).max(newest.saturating_sub(self.ring))..=newest {
            let bits = match block == newest {
                true => SEEN >> (BLOCK - 1 - last % BLOCK),
                false => SEEN,
            };
            let unset = self.set(block * BLOCK, bits).unwrap_or(0);
            self.lose(u64::from(unset.count_ones()));
        }
    }

    fn lose(&self, numbers: u64) {
        if numbers > 0 {
            self.lost.fetch_add(numbers, Ordering::Relaxed);
        }
    }

    /// The word of a number: always within the ring, whose length is a power of two.
    #[inline]
    fn word(&self, n: u64) -> &AtomicU64 {
        &self.words[((n / BLOCK) & self.ring) as usize]
    }

    #[inline]
    fn lap_of(&self, n: u64) -> u64 {
        ((n / BLOCK) >> self.ring_bits) & LAPS
    }

    #[inline]
    fn lap(&self, n: u64, word: u64) -> Lap {
        match self.lap_of(n).wrapping_sub(word >> BLOCK) & LAPS {
            0 => Lap::Same,
            laps if laps <= HALF => Lap::Behind(laps),
            _ => Lap::Gone,
        }
    }
}

#[inline]
fn bit(n: u64) -> u64 {
    1 << (n % BLOCK)
}

/// The bits of the first number and of all next to it that lie in the same block, and how many these
/// are: one at least. One that is too old has no bit.
#[inline]
fn neighbours(numbers: &[SequenceNumber], too_old: impl Fn(u64) -> bool) -> (u64, usize) {
    let mut bits = 0;
    let mut members = 0;
    let block = numbers.first().map(|first| first.0 / BLOCK);
    for number in numbers {
        let other = Some(number.0 / BLOCK) != block;
        if other || too_old(number.0) {
            return (bits, members.max(1));
        }
        bits |= bit(number.0);
        members += 1;
    }
    (bits, members)
}
