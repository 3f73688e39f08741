//! VAES and VPCLMULQDQ on 256 bits: two blocks an instruction, packet by packet, eight blocks at a time.

#![expect(
    unsafe_code,
    reason = "loads and stores through pointers, and a packet as a slice"
)]

use std::arch::x86_64::*;

use crate::aesni::{PIECE, encrypt_one, load, multiply, nonce, packet_by_packet, reduce, reverse};
use crate::job::{Task, members};
use crate::key::Key;

packet_by_packet!("aes,pclmulqdq,sse4.1,ssse3,avx2,vaes,vpclmulqdq");

/// Adds the key stream to a piece, the first block of it encrypted from `counter`.
#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3,avx2,vaes,vpclmulqdq")]
#[inline]
fn encrypt(key: &Key, nonce: __m128i, counter: u32, piece: &mut [u8; PIECE]) {
    let mut states = [_mm256_setzero_si256(); PIECE / 32];
    for (counter, state) in (counter..).step_by(2).zip(&mut states) {
        let next = counter.wrapping_add(1);
        let one = _mm_insert_epi32::<3>(nonce, counter.swap_bytes().cast_signed());
        let other = _mm_insert_epi32::<3>(nonce, next.swap_bytes().cast_signed());
        *state = _mm256_xor_si256(_mm256_set_m128i(other, one), twice(key.first()));
    }
    for round in key.middles() {
        let round = twice(round);
        for state in &mut states {
            *state = _mm256_aesenc_epi128(*state, round);
        }
    }
    let last = twice(key.last());
    for (state, blocks) in states.iter().zip(piece.as_chunks_mut::<32>().0) {
        let stream = _mm256_aesenclast_epi128(*state, last);
        // SAFETY: two blocks are 32 octets.
        let text = unsafe { _mm256_loadu_si256(blocks.as_ptr().cast()) };
        // SAFETY: likewise.
        unsafe {
            let text = _mm256_xor_si256(text, stream);
            _mm256_storeu_si256(blocks.as_mut_ptr().cast(), text);
        }
    }
}

/// Hashes the first blocks of a piece, one at least: one reduction for all of them.
#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3,avx2,vaes,vpclmulqdq")]
#[inline]
fn hash(key: &Key, hash: __m128i, piece: &[u8; PIECE], blocks: usize) -> __m128i {
    let zero = _mm256_setzero_si256();
    let (mut low, mut middle, mut high) = (zero, zero, zero);
    let mut seed = _mm256_zextsi128_si256(hash);
    let order = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let order = _mm256_broadcastsi128_si256(order);
    // A last block without a neighbour has zeros beside it, which are multiplied by what follows H.
    let powers = (1..=blocks).rev().step_by(2);
    for (two, power) in piece.as_chunks::<32>().0.iter().zip(powers) {
        // SAFETY: two blocks are 32 octets.
        let two = unsafe { _mm256_loadu_si256(two.as_ptr().cast()) };
        let two = _mm256_xor_si256(_mm256_shuffle_epi8(two, order), seed);
        seed = zero;
        // SAFETY: the power is H^1 at least; 48 octets of the key at least follow it.
        let h = unsafe { _mm256_loadu_si256(key.power(power).cast()) };
        low = _mm256_xor_si256(low, _mm256_clmulepi64_epi128::<0x00>(two, h));
        middle = _mm256_xor_si256(middle, _mm256_clmulepi64_epi128::<0x01>(two, h));
        middle = _mm256_xor_si256(middle, _mm256_clmulepi64_epi128::<0x10>(two, h));
        high = _mm256_xor_si256(high, _mm256_clmulepi64_epi128::<0x11>(two, h));
    }
    reduce(across(low), across(middle), across(high))
}

/// A block of a key, twice.
#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3,avx2,vaes,vpclmulqdq")]
#[inline]
fn twice(block: *const u128) -> __m256i {
    _mm256_broadcastsi128_si256(load(block))
}

/// The sum of both lanes.
#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3,avx2,vaes,vpclmulqdq")]
#[inline]
fn across(lanes: __m256i) -> __m128i {
    _mm_xor_si128(
        _mm256_castsi256_si128(lanes),
        _mm256_extracti128_si256::<1>(lanes),
    )
}
