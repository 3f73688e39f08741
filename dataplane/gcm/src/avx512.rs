//! VAES and VPCLMULQDQ on 512 bits: four blocks an instruction.
//!
//! A packet is seen as a row of blocks that begins with its ESP header, 16 octets before the text. The
//! header's lane is where the additional data belongs in GHASH, and where the counter has the value 1
//! that encrypts the ICV: one counter sequence and one row of powers do for everything. Masked loads and
//! stores keep the header, and what is behind the text, untouched.
//!
//! Multiplication in GHASH follows RFC 8452 appendix A: octets reversed, H times x.
//!
//! Every function here is `#[inline]` with the same features, so that it becomes part of the loop that
//! calls it; a test of the package compares the lists.

#![expect(
    unsafe_code,
    reason = "loads and stores through pointers that a `Task` vouches for"
)]

/// Unrolls the rounds of AES after the first key: `$round!(instruction, which key)` for each, and
/// `$between!(n)` for 1 to 10 between the first ten. A loop would not be unrolled, and every key be loaded through an
/// index.
macro_rules! all_rounds {
    ($rounds:expr, $round:ident, $between:ident, $middle:ident, $last:ident) => {
        $round!($middle, |key| key.middle::<1>());
        $between!(1);
        $round!($middle, |key| key.middle::<2>());
        $between!(2);
        $round!($middle, |key| key.middle::<3>());
        $between!(3);
        $round!($middle, |key| key.middle::<4>());
        $between!(4);
        $round!($middle, |key| key.middle::<5>());
        $between!(5);
        $round!($middle, |key| key.middle::<6>());
        $between!(6);
        $round!($middle, |key| key.middle::<7>());
        $between!(7);
        $round!($middle, |key| key.middle::<8>());
        $between!(8);
        $round!($middle, |key| key.middle::<9>());
        $between!(9);
        $between!(10);
        if $rounds > 10 {
            $round!($middle, |key| key.middle::<10>());
            $round!($middle, |key| key.middle::<11>());
        }
        if $rounds > 12 {
            $round!($middle, |key| key.middle::<12>());
            $round!($middle, |key| key.middle::<13>());
        }
        $round!($last, |key| key.last());
    };
}

mod long;
mod short;

use std::arch::x86_64::*;

use crate::job::{HEADER, Task, members};

/// The octets of a vector that are not the ESP header's.
const PAST_HEADER: u64 = u64::MAX << HEADER;

/// Seals or opens the packets in `set`, whose keys have equally many rounds. Says which are good.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
pub(crate) fn run<const OPEN: bool>(tasks: &[Task<'_>], set: u32) -> u32 {
    let mut bins = [0u32; short::SHAPES + 1];
    let mut one_key = true;
    let first = tasks[set.trailing_zeros() as usize].key();
    for i in members(set) {
        let task = &tasks[i];
        one_key &= std::ptr::eq(first, task.key());
        bins[short::shape(task.blocks())] |= 1 << i;
    }
    let [one, two, three, long] = bins;
    let mut good = if one_key {
        short::run::<1, OPEN, true>(tasks, one)
            | short::run::<2, OPEN, true>(tasks, two)
            | short::run::<3, OPEN, true>(tasks, three)
    } else {
        short::run::<1, OPEN, false>(tasks, one)
            | short::run::<2, OPEN, false>(tasks, two)
            | short::run::<3, OPEN, false>(tasks, three)
    };
    if long != 0 {
        good |= long::run::<OPEN>(tasks, long);
    }
    good
}

/// The counter block of a packet but for the counter: zero, IV, zero, in every lane. The salt is in the
/// first round key.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn nonce(task: &Task<'_>) -> __m512i {
    // SAFETY: the IV is the 8 octets before the text, which are the packet's.
    let iv = unsafe { _mm_loadl_epi64(task.text().sub(8).cast()) };
    _mm512_broadcast_i32x4(_mm_bslli_si128::<4>(iv))
}

/// The value `1 + 4 * vector` and the next three, as the counters of four blocks that have none yet.
/// Exact for the first 255 blocks of a packet.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn counters(vector: usize) -> __m512i {
    let four = _mm512_set_epi32(
        4 << 24,
        0,
        0,
        0,
        3 << 24,
        0,
        0,
        0,
        2 << 24,
        0,
        0,
        0,
        1 << 24,
        0,
        0,
        0,
    );
    let step = (vector as i32) << 26;
    _mm512_add_epi32(four, _mm512_maskz_set1_epi32(0x8888, step))
}

/// A round key in every lane.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn broadcast(block: *const u128) -> __m512i {
    // SAFETY: callers pass pointers that `Key` and `Task` made from fields of 16 octets.
    unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(block.cast())) }
}

/// Reverses the octets of each block: what GHASH calculates with.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn reverse(blocks: __m512i) -> __m512i {
    let order = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm512_shuffle_epi8(blocks, _mm512_broadcast_i32x4(order))
}

/// A sum of products, lane by lane, not yet reduced: 256 bits, of which `middle` is in the middle.
#[derive(Clone, Copy)]
struct Sum {
    low: __m512i,
    middle: __m512i,
    high: __m512i,
}

impl Sum {
    #[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
    #[inline]
    fn zero() -> Sum {
        let zero = _mm512_setzero_si512();
        Sum {
            low: zero,
            middle: zero,
            high: zero,
        }
    }

    /// Adds the products of the lanes.
    #[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
    #[inline]
    fn add(&mut self, a: __m512i, b: __m512i) {
        let inner = _mm512_clmulepi64_epi128::<0x01>(a, b);
        let outer = _mm512_clmulepi64_epi128::<0x10>(a, b);
        self.low = _mm512_xor_si512(self.low, _mm512_clmulepi64_epi128::<0x00>(a, b));
        self.high = _mm512_xor_si512(self.high, _mm512_clmulepi64_epi128::<0x11>(a, b));
        self.middle = _mm512_xor_si512(_mm512_xor_si512(self.middle, inner), outer);
    }

    /// The sum of the lanes, in the first.
    #[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
    #[inline]
    fn across(self) -> Sum {
        Sum {
            low: across(self.low),
            middle: across(self.middle),
            high: across(self.high),
        }
    }

    /// Each lane modulo the polynomial.
    #[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
    #[inline]
    fn reduce(self) -> __m512i {
        let low = _mm512_xor_si512(self.low, _mm512_bslli_epi128::<8>(self.middle));
        let high = _mm512_xor_si512(self.high, _mm512_bsrli_epi128::<8>(self.middle));
        let polynomial = _mm512_set1_epi64(0xc2 << 56);
        let once = _mm512_clmulepi64_epi128::<0x00>(low, polynomial);
        let low = _mm512_xor_si512(_mm512_shuffle_epi32::<0x4e>(low), once);
        let twice = _mm512_clmulepi64_epi128::<0x00>(low, polynomial);
        let low = _mm512_xor_si512(_mm512_shuffle_epi32::<0x4e>(low), twice);
        _mm512_xor_si512(high, low)
    }
}

/// The sum of the lanes, in the first.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn across(lanes: __m512i) -> __m512i {
    let two = _mm256_xor_si256(
        _mm512_castsi512_si256(lanes),
        _mm512_extracti64x4_epi64::<1>(lanes),
    );
    let one = _mm_xor_si128(
        _mm256_castsi256_si128(two),
        _mm256_extracti128_si256::<1>(two),
    );
    _mm512_zextsi128_si512(one)
}
