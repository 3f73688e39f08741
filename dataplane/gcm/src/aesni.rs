//! AES-NI and PCLMULQDQ: one block an instruction, packet by packet, eight blocks at a time.
//!
//! How a packet is taken to pieces, and one block is multiplied, is here for AVX2 too.

#![expect(
    unsafe_code,
    reason = "loads and stores through pointers, and a packet as a slice"
)]

use std::arch::x86_64::*;

use crate::job::{Task, members};
use crate::key::Key;

/// Octets that are encrypted, and hashed, together.
pub(crate) const PIECE: usize = 128;

/// Makes `run` of a tier out of its `encrypt` and `hash`, all three with the same features.
macro_rules! packet_by_packet {
    ($features:literal) => {
        /// Seals or opens the packets in `set`, and says which are good.
        #[target_feature(enable = $features)]
        pub(crate) fn run<const OPEN: bool>(tasks: &[Task<'_>], set: u32) -> u32 {
            let mut good = 0;
            for i in members(set) {
                good |= u32::from(packet::<OPEN>(&tasks[i])) << i;
            }
            good
        }

        /// Seals or opens a packet, and says whether it is good.
        #[target_feature(enable = $features)]
        #[inline]
        fn packet<const OPEN: bool>(task: &Task<'_>) -> bool {
            let key = task.key();
            let nonce = nonce(task);
            let zero = _mm_setzero_si128();
            let mut hash = multiply(load(task.additional()), load(key.power(1)));
            // SAFETY: the text is the task's to read and write, and no other reference to it exists.
            let text = unsafe { std::slice::from_raw_parts_mut(task.text(), task.length()) };
            let mut counter = 2;
            for piece in text.chunks_mut(PIECE) {
                let blocks = piece.len().div_ceil(16);
                if let Ok(whole) = <&mut [u8; PIECE]>::try_from(&mut *piece) {
                    if OPEN {
                        hash = self::hash(key, hash, whole, blocks);
                    }
                    encrypt(key, nonce, counter, whole);
                    if !OPEN {
                        hash = self::hash(key, hash, whole, blocks);
                    }
                } else {
                    let mut padded = [0; PIECE];
                    padded[..piece.len()].copy_from_slice(piece);
                    if OPEN {
                        hash = self::hash(key, hash, &padded, blocks);
                    }
                    encrypt(key, nonce, counter, &mut padded);
                    piece.copy_from_slice(&padded[..piece.len()]);
                    if !OPEN {
                        // The key stream behind the text must not be hashed.
                        padded[piece.len()..].fill(0);
                        hash = self::hash(key, hash, &padded, blocks);
                    }
                }
                counter += (PIECE / 16) as u32;
            }
            hash = multiply(
                _mm_xor_si128(hash, load(task.lengths())),
                load(key.power(1)),
            );
            let icv = _mm_xor_si128(reverse(hash), encrypt_one(key, nonce));
            let at = task.text().wrapping_add(task.length()).cast();
            if OPEN {
                // The whole ICV at once: no octet decides a branch.
                // SAFETY: the 16 octets behind the text are the packet's, and ours to read.
                let difference = _mm_xor_si128(icv, unsafe { _mm_loadu_si128(at) });
                _mm_movemask_epi8(_mm_cmpeq_epi8(difference, zero)) == 0xffff
            } else {
                // SAFETY: the 16 octets behind the text are the packet's, and ours to write.
                unsafe { _mm_storeu_si128(at, icv) };
                true
            }
        }
    };
}
pub(crate) use packet_by_packet;

packet_by_packet!("aes,pclmulqdq,sse4.1,ssse3");

/// Adds the key stream to a piece, the first block of it encrypted from `counter`.
#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3")]
#[inline]
fn encrypt(key: &Key, nonce: __m128i, counter: u32, piece: &mut [u8; PIECE]) {
    let mut states = [_mm_setzero_si128(); PIECE / 16];
    for (counter, state) in (counter..).zip(&mut states) {
        let block = _mm_insert_epi32::<3>(nonce, counter.swap_bytes().cast_signed());
        *state = _mm_xor_si128(block, load(key.first()));
    }
    for round in key.middles() {
        let round = load(round);
        for state in &mut states {
            *state = _mm_aesenc_si128(*state, round);
        }
    }
    let last = load(key.last());
    for (state, block) in states.iter().zip(piece.as_chunks_mut::<16>().0) {
        let stream = _mm_aesenclast_si128(*state, last);
        let text = _mm_xor_si128(load(block.as_ptr().cast()), stream);
        // SAFETY: a block is 16 octets.
        unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), text) };
    }
}

/// Hashes the first blocks of a piece, one at least: one reduction for all of them.
#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3")]
#[inline]
fn hash(key: &Key, hash: __m128i, piece: &[u8; PIECE], blocks: usize) -> __m128i {
    let zero = _mm_setzero_si128();
    let (mut low, mut middle, mut high) = (zero, zero, zero);
    let mut seed = hash;
    let powers = (1..=blocks).rev();
    for (block, power) in piece.as_chunks::<16>().0.iter().zip(powers) {
        let block = _mm_xor_si128(reverse(load(block.as_ptr().cast())), seed);
        seed = zero;
        let h = load(key.power(power));
        low = _mm_xor_si128(low, _mm_clmulepi64_si128::<0x00>(block, h));
        middle = _mm_xor_si128(middle, _mm_clmulepi64_si128::<0x01>(block, h));
        middle = _mm_xor_si128(middle, _mm_clmulepi64_si128::<0x10>(block, h));
        high = _mm_xor_si128(high, _mm_clmulepi64_si128::<0x11>(block, h));
    }
    reduce(low, middle, high)
}

/// The counter block of a packet but for the counter: zero, IV, zero. The salt is in the first round
/// key.
#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3")]
#[inline]
pub(crate) fn nonce(task: &Task<'_>) -> __m128i {
    // SAFETY: the IV is the 8 octets before the text, which are the packet's.
    let iv = unsafe { _mm_loadl_epi64(task.text().sub(8).cast()) };
    _mm_slli_si128::<4>(iv)
}

/// The block with the counter 1, encrypted: what the hash is added to.
#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3")]
#[inline]
pub(crate) fn encrypt_one(key: &Key, nonce: __m128i) -> __m128i {
    let block = _mm_insert_epi32::<3>(nonce, 1 << 24);
    let mut state = _mm_xor_si128(block, load(key.first()));
    for round in key.middles() {
        state = _mm_aesenc_si128(state, load(round));
    }
    _mm_aesenclast_si128(state, load(key.last()))
}

/// The product of two elements of the field.
#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3")]
#[inline]
pub(crate) fn multiply(a: __m128i, b: __m128i) -> __m128i {
    let middle = _mm_xor_si128(
        _mm_clmulepi64_si128::<0x01>(a, b),
        _mm_clmulepi64_si128::<0x10>(a, b),
    );
    reduce(
        _mm_clmulepi64_si128::<0x00>(a, b),
        middle,
        _mm_clmulepi64_si128::<0x11>(a, b),
    )
}

/// A sum of products, of which `middle` is in the middle of 256 bits, modulo the polynomial.
#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3")]
#[inline]
pub(crate) fn reduce(low: __m128i, middle: __m128i, high: __m128i) -> __m128i {
    let mut low = _mm_xor_si128(low, _mm_slli_si128::<8>(middle));
    let high = _mm_xor_si128(high, _mm_srli_si128::<8>(middle));
    // Montgomery: each step adds a multiple of the polynomial that clears 64 low bits.
    let polynomial = _mm_set_epi64x(0, 0xc2 << 56);
    for _ in 0..2 {
        let multiple = _mm_clmulepi64_si128::<0x00>(low, polynomial);
        low = _mm_xor_si128(_mm_shuffle_epi32::<0x4e>(low), multiple);
    }
    _mm_xor_si128(high, low)
}

/// Reverses the octets of a block: what GHASH calculates with.
#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3")]
#[inline]
pub(crate) fn reverse(block: __m128i) -> __m128i {
    let order = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm_shuffle_epi8(block, order)
}

/// A block of a key, of a task, or of text.
#[target_feature(enable = "aes,pclmulqdq,sse4.1,ssse3")]
#[inline]
pub(crate) fn load(block: *const u128) -> __m128i {
    // SAFETY: callers pass pointers to 16 octets, made from references.
    unsafe { _mm_loadu_si128(block.cast()) }
}
