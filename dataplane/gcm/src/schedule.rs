//! Expanding a key, once in its life: the key schedule of FIPS 197 section 5.2 and the powers of H.
//! By AES-NI and PCLMULQDQ, which every tier has: no table that a cache could give away.

#![expect(unsafe_code, reason = "instructions that only some CPUs have")]

use std::arch::x86_64::{
    __m128i, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_clmulepi64_si128, _mm_cvtsi128_si32,
    _mm_set1_epi32, _mm_setzero_si128, _mm_shuffle_epi32, _mm_slli_si128, _mm_srli_si128,
    _mm_xor_si128,
};

use zeroize::Zeroize;

use crate::detect::Tier;

/// Round keys of AES-256, the longest schedule.
const MOST: usize = 15;

/// x^127 + x^126 + x^121: what x^128 leaves behind besides 1, octets reversed (RFC 8452 appendix A).
const REDUCTION: u128 = 0xc2 << 120;

/// Round keys while the key is being expanded.
pub(crate) struct Schedule {
    keys: [u128; MOST],
    rounds: usize,
}

impl Schedule {
    /// Expands 16, 24 or 32 octets. The caller has found the tier available.
    pub(crate) fn new(tier: Tier, aes_key: &[u8]) -> Schedule {
        assert!(tier != Tier::None && tier.is_available());
        let words = aes_key.len() / 4;
        let mut schedule = Schedule {
            keys: [0; MOST],
            rounds: (words + 6).min(MOST - 1),
        };
        let mut bytes = [0u32; MOST * 4];
        // SAFETY: every tier but `None` has AES-NI, and this one is available.
        unsafe { expand(aes_key, &mut bytes[..4 * (schedule.rounds + 1)]) };
        for (key, words) in schedule.keys.iter_mut().zip(bytes.chunks_exact(4)) {
            for (i, word) in words.iter().enumerate() {
                *key |= u128::from(*word) << (32 * i);
            }
        }
        bytes.zeroize();
        schedule
    }

    /// Round keys 0 to the last.
    pub(crate) fn round_keys(&self) -> &[u128] {
        &self.keys[..=self.rounds]
    }

    /// Fills in powers of H, H itself last.
    pub(crate) fn powers(&mut self, powers: &mut [u128]) {
        // SAFETY: `new` has found AES-NI and PCLMULQDQ available.
        unsafe { fill_powers(self.round_keys(), powers) };
    }
}

impl Drop for Schedule {
    fn drop(&mut self) {
        self.keys.zeroize();
    }
}

/// FIPS 197 section 5.2, on words whose first octet is the lowest.
#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3")]
fn expand(aes_key: &[u8], words: &mut [u32]) {
    let length = aes_key.len() / 4;
    for (word, octets) in words.iter_mut().zip(aes_key.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*octets);
    }
    let mut round_constant = 1u32;
    for i in length..words.len() {
        let mut word = words[i - 1];
        if i % length == 0 {
            word = substitute(word.rotate_right(8)) ^ round_constant;
            round_constant = (round_constant << 1) ^ ((round_constant >> 7) * 0x11b);
        } else if length > 6 && i % length == 4 {
            word = substitute(word);
        }
        words[i] = words[i - length] ^ word;
    }
}

/// SubWord: the last round of AES on four columns alike, so that its row shift changes nothing.
#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3")]
fn substitute(word: u32) -> u32 {
    let columns = _mm_set1_epi32(word.cast_signed());
    _mm_cvtsi128_si32(_mm_aesenclast_si128(columns, _mm_setzero_si128())).cast_unsigned()
}

/// H is the zero block encrypted (NIST SP 800-38D section 7.1, step 1); each power is the one before
/// times H.
#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3")]
fn fill_powers(round_keys: &[u128], powers: &mut [u128]) {
    let [first, middle @ .., last] = round_keys else {
        return;
    };
    let mut block = vector(*first);
    for key in middle {
        block = _mm_aesenc_si128(block, vector(*key));
    }
    let h = scalar(_mm_aesenclast_si128(block, vector(*last))).swap_bytes();
    // Times x, which makes up for the reversed octets (RFC 8452 appendix A, mulX_POLYVAL).
    let h = (h << 1) ^ ((h >> 127) * (REDUCTION | 1));
    let mut power = h;
    for place in powers.iter_mut().rev() {
        *place = power;
        power = scalar(multiply(vector(power), vector(h)));
    }
}

/// The product of two field elements divided by x^128, as RFC 8452 defines `dot`.
#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3")]
fn multiply(a: __m128i, b: __m128i) -> __m128i {
    let middle = _mm_xor_si128(
        _mm_clmulepi64_si128::<0x01>(a, b),
        _mm_clmulepi64_si128::<0x10>(a, b),
    );
    let mut low = _mm_clmulepi64_si128::<0x00>(a, b);
    low = _mm_xor_si128(low, _mm_slli_si128::<8>(middle));
    let mut high = _mm_clmulepi64_si128::<0x11>(a, b);
    high = _mm_xor_si128(high, _mm_srli_si128::<8>(middle));
    // Montgomery: each step adds a multiple of the polynomial that clears 64 low bits.
    let polynomial = vector(REDUCTION >> 64);
    for _ in 0..2 {
        let multiple = _mm_clmulepi64_si128::<0x00>(low, polynomial);
        low = _mm_xor_si128(_mm_shuffle_epi32::<0x4e>(low), multiple);
    }
    _mm_xor_si128(high, low)
}

#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3")]
fn vector(value: u128) -> __m128i {
    // SAFETY: both are 16 octets of which every pattern is valid.
    unsafe { std::mem::transmute(value) }
}

#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3")]
fn scalar(value: __m128i) -> u128 {
    // SAFETY: both are 16 octets of which every pattern is valid.
    unsafe { std::mem::transmute(value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::tier;

    fn octets(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    /// FIPS 197 appendix A: the last round key of each example.
    #[test]
    fn fips197_appendix_a_key_expansion() {
        let examples = [
            (
                "2b7e151628aed2a6abf7158809cf4f3c",
                "d014f9a8c9ee2589e13f0cc8b6630ca6",
            ),
            (
                "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
                "e98ba06f448c773c8ecc720401002202",
            ),
            (
                "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
                "fe4890d1e6188d0b046df344706c631e",
            ),
        ];
        if tier() == Tier::None {
            return;
        }
        for (key, last) in examples {
            let schedule = Schedule::new(tier(), &octets(key));
            assert_eq!(
                schedule.round_keys().last().unwrap().to_le_bytes(),
                octets(last).as_slice()
            );
        }
    }

    /// RFC 8452 appendix A: dot(a, b) of its example.
    #[test]
    fn rfc8452_appendix_a_product() {
        if tier() == Tier::None {
            return;
        }
        let element = |hex: &str| u128::from_le_bytes(octets(hex).try_into().unwrap());
        let a = element("66e94bd4ef8a2c3b884cfa59ca342b2e");
        let b = element("ff000000000000000000000000000000");
        // SAFETY: a tier is available, and each has PCLMULQDQ.
        let product = unsafe { scalar(multiply(vector(a), vector(b))) };
        assert_eq!(product, element("ebe563401e7e91ea3ad6426b8140c394"));
    }
}
