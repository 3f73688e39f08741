//! Packets of at most three vectors, header included: four at a time from the first round to the ICV.
//!
//! Four packets make one vector of everything of which a packet has one: the sum of its lanes, its
//! lengths, its reduction, its ICV.

#![expect(
    unsafe_code,
    reason = "loads and stores through pointers that a `Task` vouches for"
)]

use std::arch::x86_64::*;

use super::{PAST_HEADER, Sum, broadcast, counters, nonce, reverse};
use crate::job::Task;
use crate::key::Key;

/// Kinds of short packets: one vector, two, three.
pub(super) const SHAPES: usize = 3;

/// The shape of a packet with so many blocks of text, or `SHAPES` for a long one.
#[inline]
pub(super) fn shape(blocks: usize) -> usize {
    blocks.min(12) / 4
}

/// Seals or opens the packets in `set`, all of `V` vectors, all with one key if `ONE_KEY`.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn run<const V: usize, const OPEN: bool, const ONE_KEY: bool>(
    tasks: &[Task<'_>],
    set: u32,
) -> u32 {
    let mut rest = set;
    let mut good = 0;
    while rest.count_ones() >= 4 {
        let before = rest;
        let four = [
            take(tasks, &mut rest),
            take(tasks, &mut rest),
            take(tasks, &mut rest),
            take(tasks, &mut rest),
        ];
        let verdicts = group::<4, V, OPEN, ONE_KEY>(four);
        good |= _pdep_u32(verdicts, before);
    }
    while rest != 0 {
        let before = rest;
        let verdict = group::<1, V, OPEN, true>([take(tasks, &mut rest)]);
        good |= _pdep_u32(verdict, before);
    }
    good
}

/// Takes the first packet out of a set.
#[inline]
fn take<'t, 'p>(tasks: &'t [Task<'p>], set: &mut u32) -> &'t Task<'p> {
    let first = set.trailing_zeros() as usize;
    *set &= set.wrapping_sub(1);
    &tasks[first]
}

/// Seals or opens `P` packets. Bit by bit, says which are good.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn group<const P: usize, const V: usize, const OPEN: bool, const ONE_KEY: bool>(
    tasks: [&Task<'_>; P],
) -> u32 {
    let streams = streams::<P, V, ONE_KEY>(&tasks);
    let zero = _mm512_setzero_si512();
    let mut sums = [Sum::zero(); 4];
    let mut encrypted_ones = [zero; 4];
    for (p, task) in tasks.iter().enumerate() {
        sums[p] = text::<V, OPEN>(task, &streams[p]);
        encrypted_ones[p] = streams[p][0];
    }
    let mut sum = Sum {
        low: fold([sums[0].low, sums[1].low, sums[2].low, sums[3].low]),
        middle: fold([
            sums[0].middle,
            sums[1].middle,
            sums[2].middle,
            sums[3].middle,
        ]),
        high: fold([sums[0].high, sums[1].high, sums[2].high, sums[3].high]),
    };
    let mut lengths = zero;
    let mut h = broadcast(tasks[0].key().power(1));
    for (p, task) in tasks.iter().enumerate() {
        let lane = 0xf << (4 * p);
        lengths = _mm512_mask_mov_epi32(lengths, lane, broadcast(task.lengths()));
        if !ONE_KEY {
            h = _mm512_mask_mov_epi32(h, lane, broadcast(task.key().power(1)));
        }
    }
    sum.add(lengths, h);
    let icvs = _mm512_xor_si512(reverse(sum.reduce()), first_lanes(encrypted_ones));
    if OPEN {
        verify(&tasks, icvs)
    } else {
        write(&tasks, icvs);
        u32::MAX >> (32 - P)
    }
}

/// The key stream of each packet: counters from 1, encrypted.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn streams<const P: usize, const V: usize, const ONE_KEY: bool>(
    tasks: &[&Task<'_>; P],
) -> [[__m512i; V]; P] {
    let mut states = [[_mm512_setzero_si512(); V]; P];
    for (task, states) in tasks.iter().zip(&mut states) {
        let first = _mm512_xor_si512(nonce(task), broadcast(task.key().first()));
        for (v, state) in states.iter_mut().enumerate() {
            *state = _mm512_xor_si512(first, counters(v));
        }
    }
    macro_rules! round {
        ($instruction:ident, $key:expr) => {
            let pick: fn(&Key) -> *const u128 = $key;
            let mut key = broadcast(pick(tasks[0].key()));
            for (task, states) in tasks.iter().zip(&mut states) {
                if !ONE_KEY {
                    key = broadcast(pick(task.key()));
                }
                for state in states {
                    *state = $instruction(*state, key);
                }
            }
        };
    }
    macro_rules! nothing {
        ($_:literal) => {};
    }
    all_rounds!(
        tasks[0].key().rounds(),
        round,
        nothing,
        _mm512_aesenc_epi128,
        _mm512_aesenclast_epi128
    );
    states
}

/// Encrypts or decrypts the text of a packet in place, and hashes it and the additional data.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn text<const V: usize, const OPEN: bool>(task: &Task<'_>, stream: &[__m512i; V]) -> Sum {
    let octets = 16 + task.length();
    let last = u64::MAX >> ((64 * V) - octets);
    let powers: *const u128 = task.key().power(task.blocks() + 2);
    let mut sum = Sum::zero();
    for (v, stream) in stream.iter().enumerate() {
        let first = if v == 0 { PAST_HEADER } else { u64::MAX };
        let mask = if v == V - 1 { first & last } else { first };
        let at = task.text().wrapping_sub(16).wrapping_add(64 * v);
        // SAFETY: of this vector the mask selects octets of the text only, which are ours to read.
        let before = unsafe { _mm512_maskz_loadu_epi8(mask, at.cast()) };
        let after = _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(before, *stream));
        // SAFETY: the same octets, which are ours to write.
        unsafe { _mm512_mask_storeu_epi8(at.cast(), mask, after) };
        let mut blocks = reverse(if OPEN { before } else { after });
        if v == 0 {
            blocks = _mm512_mask_mov_epi32(blocks, 0xf, broadcast(task.additional()));
        }
        // SAFETY: the vector begins at a power of H, at H^1 at the least, since the last block is
        // multiplied by H^2; 48 octets of the key at least follow H^1. Lanes past H^2 have zero blocks.
        let powers = unsafe { _mm512_loadu_si512(powers.add(4 * v).cast()) };
        sum.add(blocks, powers);
    }
    sum
}

/// One vector of four: lane by lane, the sum of the lanes of each.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn fold([a, b, c, d]: [__m512i; 4]) -> __m512i {
    let ab = _mm512_xor_si512(
        _mm512_shuffle_i64x2::<0x44>(a, b),
        _mm512_shuffle_i64x2::<0xee>(a, b),
    );
    let cd = _mm512_xor_si512(
        _mm512_shuffle_i64x2::<0x44>(c, d),
        _mm512_shuffle_i64x2::<0xee>(c, d),
    );
    _mm512_xor_si512(
        _mm512_shuffle_i64x2::<0x88>(ab, cd),
        _mm512_shuffle_i64x2::<0xdd>(ab, cd),
    )
}

/// One vector of four: the first lane of each.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn first_lanes([a, b, c, d]: [__m512i; 4]) -> __m512i {
    let ab = _mm256_inserti128_si256::<1>(_mm512_castsi512_si256(a), _mm512_castsi512_si128(b));
    let cd = _mm256_inserti128_si256::<1>(_mm512_castsi512_si256(c), _mm512_castsi512_si128(d));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(ab), cd)
}

/// Writes one lane behind each text.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn write<const P: usize>(tasks: &[&Task<'_>; P], icvs: __m512i) {
    let lanes = [
        _mm512_castsi512_si128(icvs),
        _mm512_extracti32x4_epi32::<1>(icvs),
        _mm512_extracti32x4_epi32::<2>(icvs),
        _mm512_extracti32x4_epi32::<3>(icvs),
    ];
    for (task, icv) in tasks.iter().zip(lanes) {
        // SAFETY: the 16 octets behind the text are the packet's, and ours to write.
        unsafe { _mm_storeu_si128(task.text().add(task.length()).cast(), icv) };
    }
}

/// Compares one lane with what is behind each text, all at once: no octet decides a branch.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn verify<const P: usize>(tasks: &[&Task<'_>; P], icvs: __m512i) -> u32 {
    let mut received = [_mm512_setzero_si512(); 4];
    for (task, received) in tasks.iter().zip(&mut received) {
        // SAFETY: the 16 octets behind the text are the packet's, and ours to read.
        let icv = unsafe { _mm_loadu_si128(task.text().add(task.length()).cast()) };
        *received = _mm512_castsi128_si512(icv);
    }
    let halves = u32::from(_mm512_cmpeq_epi64_mask(icvs, first_lanes(received)));
    _pext_u32(halves & halves >> 1, 0x55) & (u32::MAX >> (32 - P))
}
