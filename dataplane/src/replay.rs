//! The anti-replay window of an inbound SA (RFC 4303 section 3.4.3 and Appendix A).
//!
//! A ring of bits, one for each of the last `size` numbers up to the highest one seen. The packet
//! path infers the full number, checks it before it decrypts, and marks it once the ICV verified.
//! A new window holds every number up to 0 as seen, so that nothing below the first number, and not
//! number 0 itself, needs a rule of its own.

use hitless_sa::SequenceNumber;

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
        if !esn {
            return SequenceNumber(u64::from(low));
        }
        let top = self.top();
        let bottom = top.low().wrapping_sub(self.mask as u32);
        let high = if u64::from(top.low()) >= self.mask {
            // Case A: the window lies within one subspace.
            top.high().wrapping_add(u32::from(low < bottom))
        } else {
            // Case B: the window spans two subspaces. The one before the first does not exist;
            // what could only lie there is ahead in the first.
            top.high().saturating_sub(u32::from(low >= bottom))
        };
        SequenceNumber(u64::from(high) << 32 | u64::from(low))
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

    /// Checks and marks an authenticated number; false if it was seen before or is too old.
    #[inline]
    pub fn mark(&mut self, number: SequenceNumber) -> bool {
        let n = number.0;
        if n > self.top {
            self.advance(n);
        } else if self.check(number).is_err() {
            return false;
        }
        self.bitmap[self.word(n)] |= bit(n);
        true
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
                let word = merged.word(n);
                merged.bitmap[word] &= !bit(n);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(window: &mut ReplayWindow, numbers: impl IntoIterator<Item = u64>) -> Vec<bool> {
        numbers
            .into_iter()
            .map(|n| window.mark(SequenceNumber(n)))
            .collect()
    }

    fn at(size: u32, top: u64) -> ReplayWindow {
        let mut window = ReplayWindow::new(size);
        window.leap(SequenceNumber(top));
        window
    }

    #[test]
    fn sizes_are_powers_of_two_from_64_to_65536() {
        for (asked, got) in [(0, 64), (64, 64), (65, 128), (1000, 1024), (65_536, 65_536)] {
            assert_eq!(ReplayWindow::new(asked).size(), got);
        }
        assert_eq!(ReplayWindow::new(u32::MAX).size(), 65_536);
    }

    #[test]
    fn the_edges_of_the_window() {
        for size in [64, 1024, 65_536] {
            let width = u64::from(size);
            let mut window = ReplayWindow::new(size);
            assert!(!window.mark(SequenceNumber(0)), "0 is never sent");
            assert_eq!(
                marked(&mut window, [1, 1, width + 100, width + 100]),
                [true, false, true, false]
            );
            let bottom = 101;
            assert_eq!(
                window.check(SequenceNumber(bottom - 1)),
                Err(ReplayReject::TooOld)
            );
            assert_eq!(
                marked(&mut window, [bottom, bottom, 200, 200]),
                [true, false, true, false]
            );
            assert_eq!(marked(&mut window, [width + 99, width + 101]), [true, true]);
            assert_eq!(
                window.check(SequenceNumber(bottom)),
                Err(ReplayReject::TooOld)
            );
        }
    }

    #[test]
    fn rfc4303_appendix_a2_case_a_the_window_within_one_subspace() {
        let window = at(64, 2 << 32 | 1000);
        for (low, high) in [
            (1000, 2),
            (937, 2),
            (936, 3),
            (0, 3),
            (1001, 2),
            (u32::MAX, 2),
        ] {
            assert_eq!(
                window.infer(low, true),
                SequenceNumber(u64::from(high as u32) << 32 | u64::from(low))
            );
        }
        // Tl = W - 1 is the last of case A: the window begins at low half 0.
        assert_eq!(at(64, 2 << 32 | 63).infer(0, true).high(), 2);
        assert_eq!(at(64, 2 << 32 | 63).infer(u32::MAX, true).high(), 2);
    }

    #[test]
    fn rfc4303_appendix_a2_case_b_the_window_over_two_subspaces() {
        let window = at(64, 2 << 32 | 10);
        let bottom = 10u32.wrapping_sub(63);
        for (low, high) in [
            (10, 2),
            (0, 2),
            (11, 2),
            (bottom - 1, 2),
            (bottom, 1),
            (u32::MAX, 1),
        ] {
            assert_eq!(
                window.infer(low, true),
                SequenceNumber(u64::from(high as u32) << 32 | u64::from(low))
            );
        }
        // Tl = W - 2 is the last of case B: the window begins one before the subspace.
        assert_eq!(at(64, 2 << 32 | 62).infer(u32::MAX, true).high(), 1);
    }

    #[test]
    fn no_subspace_lies_before_the_first() {
        let window = ReplayWindow::new(64);
        assert_eq!(window.infer(u32::MAX, true), SequenceNumber(0xffff_ffff));
        assert_eq!(window.infer(1, true), SequenceNumber(1));
    }

    #[test]
    fn nothing_overflows_at_the_last_numbers() {
        let mut window = at(64, u64::MAX - 1);
        assert_eq!(
            window.infer(5, true),
            SequenceNumber(5),
            "the high half wraps"
        );
        assert_eq!(window.check(SequenceNumber(5)), Err(ReplayReject::TooOld));
        assert_eq!(
            marked(&mut window, [u64::MAX, u64::MAX, u64::MAX - 1]),
            [true, false, false]
        );
        window.leap(SequenceNumber(u64::MAX));
        assert!(ReplayWindow::new(64).mark(SequenceNumber(u64::MAX)));
        assert!(!window.mark(SequenceNumber(1)));
    }

    #[test]
    fn epochs_are_crossed_both_ways() {
        // The ESN wrap rows of the ESP conformance list.
        let mut window = at(64, 0xffff_fff0);
        assert_eq!(window.infer(5, true), SequenceNumber(0x1_0000_0005));
        assert!(window.mark(SequenceNumber(0x1_0000_0005)));
        assert_eq!(window.infer(0xffff_fffd, true), SequenceNumber(0xffff_fffd));
        assert_eq!(
            marked(&mut window, [0xffff_fffd, 0xffff_fffd]),
            [true, false]
        );
        // 32-bit numbers do not cross.
        assert_eq!(window.infer(5, false), SequenceNumber(5));
    }

    #[test]
    fn lost_is_zero_until_the_window_was_filled_and_exact_then() {
        let mut window = ReplayWindow::new(64);
        marked(&mut window, (1..=64).filter(|&n| n != 7));
        assert_eq!(window.lost(), 0);
        marked(&mut window, 65..=71);
        assert_eq!(window.lost(), 1, "7 has left");
        marked(&mut window, (72..172).step_by(2).chain(172..=236));
        assert_eq!(window.lost(), 51, "every second of 100");
        marked(&mut window, 337..=401);
        assert_eq!(window.lost(), 151, "a hole of 100");
    }

    #[test]
    fn a_leap_counts_everything_up_to_the_floor_as_seen() {
        let mut window = ReplayWindow::new(64);
        marked(&mut window, [10, 20, 100]);
        window.leap(SequenceNumber(60));
        assert_eq!(
            marked(&mut window, [50, 60, 61, 99, 100]),
            [false, false, true, true, false]
        );
        window.leap(SequenceNumber(1000));
        assert_eq!(window.top(), SequenceNumber(1000));
        assert_eq!(
            marked(&mut window, [937, 999, 1000, 1001]),
            [false, false, false, true]
        );
        window.leap(SequenceNumber(3));
        assert_eq!(window.top(), SequenceNumber(1001));
    }
}
