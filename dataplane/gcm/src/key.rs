//! A key of one direction of an SA, expanded: the powers of H that a kernel multiplies with, and the
//! round keys, in the order in which a short packet reads them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use zeroize::Zeroize;

use crate::detect::{Tier, tier};

/// Powers of H in a key: a piece of twelve vectors of four blocks, and one more for the lengths.
pub(crate) const POWERS: usize = 49;

/// Blocks in front of them, so that what packets of a size read begins with a cache line.
const IN_FRONT: usize = 3;

/// Round keys between the first and the last, of AES-256.
pub(crate) const MIDDLE: usize = 13;

/// AES-GCM key and salt, ready for use. Wiped when dropped, never printed.
///
/// The layout is what the kernels count on: a vector that begins at a power of H may read past H^1
/// into what follows (it multiplies that by zero), and with AES-128 a packet of up to 96 octets of text
/// reads the last six cache lines but one, the first of which to be read says what the key is.
#[repr(C, align(64))]
pub struct Key {
    /// Unused.
    in_front: [u128; IN_FRONT],
    /// H^49 .. H^1, each times x and with its octets reversed, as `multiply` wants them.
    powers: [u128; POWERS],
    /// Round key 0, the salt already added to where the nonce begins.
    first: u128,
    last: u128,
    rounds: u32,
    tier: Tier,
    /// Round keys 1 up to the one before the last.
    middle: [u128; MIDDLE],
}

impl Key {
    /// Expands a key of 16, 24 or 32 octets for the best tier of this CPU. `None` if it has another
    /// length, or the CPU has no tier.
    pub fn new(aes_key: &[u8], salt: [u8; 4]) -> Option<Box<Key>> {
        Key::with_tier(tier(), aes_key, salt)
    }

    /// Expands a key for one tier. `None` also if this CPU cannot run it.
    pub fn with_tier(tier: Tier, aes_key: &[u8], salt: [u8; 4]) -> Option<Box<Key>> {
        let mut key = Box::new(Key::empty(tier, aes_key.len())?);
        key.expand(aes_key, salt);
        Some(key)
    }

    /// As [`Key::with_tier`], for several holders. It is expanded in its place: a copy would stay behind.
    pub fn shared(tier: Tier, aes_key: &[u8], salt: [u8; 4]) -> Option<Arc<Key>> {
        let mut key = Arc::new(Key::empty(tier, aes_key.len())?);
        Arc::get_mut(&mut key)?.expand(aes_key, salt);
        Some(key)
    }

    /// Room for a key of so many octets.
    fn empty(tier: Tier, octets: usize) -> Option<Key> {
        if tier == Tier::None || !tier.is_available() {
            return None;
        }
        let rounds = match octets {
            16 => 10,
            24 => 12,
            32 => 14,
            _ => return None,
        };
        Some(Key {
            in_front: [0; IN_FRONT],
            powers: [0; POWERS],
            first: 0,
            last: 0,
            rounds,
            tier,
            middle: [0; MIDDLE],
        })
    }

    #[cfg(target_arch = "x86_64")]
    fn expand(&mut self, aes_key: &[u8], salt: [u8; 4]) {
        let mut schedule = crate::schedule::Schedule::new(self.tier, aes_key);
        schedule.powers(&mut self.powers);
        let rounds = schedule.round_keys();
        if let [first, middle @ .., last] = rounds {
            self.first = *first ^ u128::from(u32::from_le_bytes(salt));
            self.last = *last;
            for (to, from) in self.middle.iter_mut().zip(middle) {
                *to = *from;
            }
        }
    }

    /// No tier is available here, so no key is ever made.
    #[cfg(not(target_arch = "x86_64"))]
    fn expand(&mut self, _: &[u8], _: [u8; 4]) {}

    /// The tier whose kernels use this key.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// AES rounds: 10, 12 or 14.
    #[inline]
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Where round key 0, with the salt, is.
    #[inline]
    pub(crate) fn first(&self) -> *const u128 {
        &raw const self.first
    }

    /// Where round key `round` is, 1 for the one after the first.
    #[inline]
    pub(crate) fn middle<const ROUND: usize>(&self) -> *const u128 {
        const { assert!(ROUND >= 1 && ROUND <= MIDDLE) };
        &raw const self.middle[ROUND - 1]
    }

    /// The round keys between the first and the last.
    #[inline]
    pub(crate) fn middles(&self) -> &[u128] {
        &self.middle[..(self.rounds as usize - 1).min(MIDDLE)]
    }

    /// Where the last round key is.
    #[inline]
    pub(crate) fn last(&self) -> *const u128 {
        &raw const self.last
    }

    /// Where H^`power` is, 1 to 49; the next lower ones follow, and 112 octets of the key at least
    /// after H^1.
    #[inline]
    pub(crate) fn power(&self, power: usize) -> *const u128 {
        debug_assert!((1..=POWERS).contains(&power));
        // The pointer is made from the whole key, so that it may be read past the powers.
        let key: *const Key = self;
        key.cast::<u128>().wrapping_add(Key::place(power))
    }

    /// Where H^`power` is, in blocks.
    #[inline]
    const fn place(power: usize) -> usize {
        IN_FRONT + POWERS - power
    }

    /// The octets of a key that a packet with so much text reads, for prefetching them. AES-128 has
    /// fewer round keys than the others.
    #[inline]
    pub fn read_for(text: usize, aes128: bool) -> Range<usize> {
        // A power for each block, for the additional data and for the lengths.
        let powers = (text.div_ceil(16) + 2).min(POWERS);
        let unused = if aes128 { MIDDLE - 9 } else { 0 };
        Key::place(powers) * 16..size_of::<Key>() - unused * 16
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, redacted)", self.tier)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.powers.zeroize();
        self.first.zeroize();
        self.middle.zeroize();
        self.last.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_takes_seventeen_cache_lines() {
        assert_eq!(size_of::<Key>(), 17 * 64);
    }

    #[test]
    fn what_a_packet_reads_is_whole_cache_lines() {
        let middle = std::mem::offset_of!(Key, middle);
        assert_eq!(std::mem::offset_of!(Key, powers), Key::place(POWERS) * 16);
        for (text, aes128, lines) in [(68, true, 11..16), (68, false, 11..17), (84, true, 11..16)] {
            let octets = Key::read_for(text, aes128);
            assert_eq!(octets.start / 64..octets.end.div_ceil(64), lines);
        }
        let all = Key::read_for(9000, false);
        assert_eq!(
            (all.start, all.end),
            (Key::place(POWERS) * 16, size_of::<Key>())
        );
        assert_eq!(Key::read_for(0, true).end, middle + 9 * 16);
    }

    #[test]
    fn refuses_keys_of_another_length_and_tiers_without_a_kernel() {
        for octets in [0, 1, 15, 17, 20, 31, 33, 64] {
            assert!(Key::new(&vec![0; octets], [0; 4]).is_none(), "{octets}");
        }
        assert!(Key::with_tier(Tier::None, &[0; 16], [0; 4]).is_none());
    }

    #[test]
    fn a_key_is_not_printed() {
        for tier in Tier::KERNELS.into_iter().filter(|tier| tier.is_available()) {
            let key = Key::with_tier(tier, &[0x5a; 16], [0x5a; 4]).unwrap();
            assert_eq!(format!("{key:?}"), format!("Key({tier}, redacted)"));
        }
    }
}
