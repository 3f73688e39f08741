//! The anti-replay window of an inbound SA (RFC 4303 section 3.4.3 and Appendix A).
//!
//! A ring of bits, one for each of the last `size` numbers up to the highest one seen. The packet
//! path infers the full number, checks it before it decrypts, and marks it once the ICV verified.
//! A new window holds every number up to 0 as seen, so that nothing below the first number, and not
//! number 0 itself, needs a rule of its own.
//!
//! [`ReplayWindow`] belongs to one worker, [`SharedWindow`] to several at once, and [`AntiReplay`]
//! is whichever of them an SA has, or none.

mod guard;
mod shared;

use hitless_sa::SequenceNumber;

use crate::prefetch::prefetch;

pub use guard::{AntiReplay, Horizon};
pub use shared::SharedWindow;

/// Fewest numbers in a window.
pub const MIN_WINDOW: u32 = 64;
/// Most numbers in a window.
pub const MAX_WINDOW: u32 = 65_536;

/// Why a number was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayReject {
    /// Marked before.
    Seen,
    /// Left of the window: it can no longer be told whether it was seen.
    TooOld,
}

/// The numbers seen on one SA.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    /// Bit `n % size` belongs to number `n`.
    bitmap: Box<[u64]>,
    /// Size less one, a mask of low bits.
    mask: u64,
    top: u64,
    lost: u64,
}

/// A window's content, for replication. Bit `n % 64` of word `n / 64 % words` belongs to number `n`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WindowState {
    pub top: SequenceNumber,
    pub bitmap: Vec<u64>,
}

impl WindowState {
    /// The top, then the words, each in eight octets.
    pub fn to_bytes(&self) -> Vec<u8> {
        let words = std::iter::once(&self.top.0).chain(&self.bitmap);
        words.flat_map(|word| word.to_be_bytes()).collect()
    }

    /// The same for the last so many numbers; what is left of them counts as seen. Nothing if this
    /// is no window's state.
    pub fn newest(&self, numbers: u32) -> Option<WindowState> {
        let mut narrow = ReplayWindow::new(numbers);
        narrow.import(self).then(|| narrow.export())
    }

    /// What [`WindowState::to_bytes`] gave. [`ReplayWindow::import`] judges whether it is a window.
    pub fn from_bytes(octets: &[u8]) -> Option<WindowState> {
        let (words, []) = octets.as_chunks::<8>() else {
            return None;
        };
        let mut words = words.iter().map(|word| u64::from_be_bytes(*word));
        let top = SequenceNumber(words.next()?);
        Some(WindowState {
            top,
            bitmap: words.take(MAX_WINDOW as usize / 64 + 1).collect(),
        })
    }
}

impl ReplayWindow {
    /// A window that has seen nothing. `size` is raised to a power of two from 64 to 65,536.
    pub fn new(size: u32) -> ReplayWindow {
        let size = size.clamp(MIN_WINDOW, MAX_WINDOW).next_power_of_two();
        ReplayWindow {
            bitmap: vec![u64::MAX; size as usize / 64].into(),
            mask: u64::from(size) - 1,
            top: 0,
            lost: 0,
        }
    }

    /// Numbers in the window.
    pub fn size(&self) -> u32 {
        self.mask as u32 + 1
    }

    /// The highest number seen.
    pub fn top(&self) -> SequenceNumber {
        SequenceNumber(self.top)
    }

    /// Numbers that fell out of the window unseen.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The full number of a packet that carries `low` (RFC 4303 Appendix A2.2). The ICV covers the
    /// high half, so a wrong guess fails to verify.
    #[inline]
    pub fn infer(&self, low: u32, esn: bool) -> SequenceNumber {
        infer(self.top(), self.mask as u32, low, esn)
    }

    /// Whether a packet with this number may be accepted if its ICV verifies. Changes nothing.
    #[inline]
    pub fn check(&self, number: SequenceNumber) -> Result<(), ReplayReject> {
        let n = number.0;
        if n > self.top {
            Ok(())
        } else if self.top - n > self.mask {
            Err(ReplayReject::TooOld)
        } else if self.bitmap[self.word(n)] & bit(n) != 0 {
            Err(ReplayReject::Seen)
        } else {
            Ok(())
        }
    }

    /// Asks for a number's bit.
    #[inline]
    fn prefetch(&self, low: u32) {
        if let Some(word) = self.bitmap.get(self.word(u64::from(low))) {
            prefetch(word);
        }
    }

    /// Checks and marks an authenticated number; false if it was seen before or is too old.
    #[inline]
    pub fn mark(&mut self, number: SequenceNumber) -> bool {
        let n = number.0;
        let ahead = n.wrapping_sub(self.top);
        let place = n % 64;
        if (1..=place).contains(&ahead) {
            // Mostly it is one of the next few, and all that leave for them were seen.
            let index = self.word(n);
            let word = &mut self.bitmap[index];
            let leaving = (u64::MAX >> (64 - ahead)) << (place + 1 - ahead);
            let unseen = !*word & leaving;
            if unseen != 0 {
                self.lost = self.lost.saturating_add(unseen.count_ones().into());
            }
            *word = *word & !leaving | 1 << place;
            self.top = n;
            return true;
        }
        if n > self.top {
            self.advance(n);
        } else if self.check(number).is_err() {
            return false;
        }
        self.bitmap[self.word(n)] |= bit(n);
        true
    }

    /// Takes back that a number within the window was seen.
    fn forget(&mut self, number: SequenceNumber) {
        let word = self.word(number.0);
        self.bitmap[word] &= !bit(number.0);
    }

    /// Counts every number up to `floor` as seen: what a takeover does with the high water.
    pub fn leap(&mut self, floor: SequenceNumber) {
        if floor.0 >= self.top {
            self.bitmap.fill(u64::MAX);
            self.top = floor.0;
        } else if self.top - floor.0 <= self.mask {
            let bottom = self.top.saturating_sub(self.mask);
            for n in bottom..=floor.0 {
                self.bitmap[self.word(n)] |= bit(n);
            }
        }
    }

    /// The content, for a member that takes over.
    pub fn export(&self) -> WindowState {
        WindowState {
            top: self.top(),
            bitmap: self.bitmap.to_vec(),
        }
    }

    /// Adds what another member's window had seen to this one, whatever the two sizes: nothing that
    /// either has seen or given up can be accepted afterwards. False, and no change, if the state is
    /// no window's.
    #[must_use]
    pub fn import(&mut self, state: &WindowState) -> bool {
        let Some(other) = ReplayWindow::from_state(state) else {
            return false;
        };
        let mut merged = ReplayWindow {
            bitmap: vec![u64::MAX; self.bitmap.len()].into(),
            mask: self.mask,
            top: self.top.max(other.top),
            lost: self.lost,
        };
        for n in merged.top.saturating_sub(merged.mask)..=merged.top {
            let number = SequenceNumber(n);
            if self.check(number).is_ok() && other.check(number).is_ok() {
                merged.forget(number);
            }
        }
        *self = merged;
        true
    }

    fn from_state(state: &WindowState) -> Option<ReplayWindow> {
        let size = u32::try_from(state.bitmap.len()).ok()?.checked_mul(64)?;
        let valid = size.is_power_of_two() && (MIN_WINDOW..=MAX_WINDOW).contains(&size);
        valid.then(|| ReplayWindow {
            bitmap: state.bitmap.as_slice().into(),
            mask: u64::from(size) - 1,
            top: state.top.0,
            lost: 0,
        })
    }

    /// Moves the top to `n`, which lies above it, and forgets what falls out on the left.
    #[inline]
    fn advance(&mut self, n: u64) {
        let distance = n - self.top;
        if distance > self.mask {
            let unseen: u32 = self.bitmap.iter().map(|word| word.count_zeros()).sum();
            let skipped = distance - self.mask - 1;
            self.lost = self
                .lost
                .saturating_add(u64::from(unseen))
                .saturating_add(skipped);
            self.bitmap.fill(0);
        } else {
            let mut at = self.top + 1;
            let mut left = distance;
            while left > 0 {
                let run = left.min(64 - at % 64);
                let leaving = u64::MAX >> (64 - run) << (at % 64);
                let index = self.word(at);
                let word = &mut self.bitmap[index];
                self.lost = self
                    .lost
                    .saturating_add(u64::from((!*word & leaving).count_ones()));
                *word &= !leaving;
                at = at.wrapping_add(run);
                left -= run;
            }
        }
        self.top = n;
    }

    /// Which word holds a number's bit: always within the bitmap, whose length is `size / 64`.
    #[inline]
    fn word(&self, n: u64) -> usize {
        ((n & self.mask) / 64) as usize
    }
}

#[inline]
fn bit(n: u64) -> u64 {
    1 << (n % 64)
}

/// The number that carries `low`, by where the receiver stands: the one that is neither more than
/// `reach` behind `top` nor 2^32 or more ahead of that (RFC 4303 Appendix A2.2, where `reach` is
/// the window's size less one).
#[inline]
fn infer(top: SequenceNumber, reach: u32, low: u32, esn: bool) -> SequenceNumber {
    if !esn {
        return SequenceNumber(u64::from(low));
    }
    let bottom = top.low().wrapping_sub(reach);
    let high = if top.low() >= reach {
        // Case A: the window lies within one subspace.
        top.high().wrapping_add(u32::from(low < bottom))
    } else {
        // Case B: the window spans two subspaces. The one before the first does not exist; what
        // could only lie there is ahead in the first.
        top.high().saturating_sub(u32::from(low >= bottom))
    };
    SequenceNumber(u64::from(high) << 32 | u64::from(low))
}

#[cfg(all(test, not(loom)))]
mod tests;
