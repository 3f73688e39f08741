//! Packets of four vectors and more: a pipeline of pieces, up to twelve vectors each.
//!
//! One step encrypts a piece and hashes a piece, the multiplications between the rounds, so that neither
//! waits for the other. To open, both are the same piece, hashed before it is decrypted. To seal, the
//! piece that is hashed is the one encrypted in the step before, be it of the packet before: a burst of
//! long packets never drains the pipeline.

#![expect(
    unsafe_code,
    reason = "loads and stores through pointers that a `Task` vouches for"
)]

use std::arch::x86_64::*;

use super::{PAST_HEADER, Sum, broadcast, counters, nonce, reverse};
use crate::job::{Task, members};
use crate::key::Key;

/// Vectors of a piece at most: so many states leave registers for the rest.
const MOST: usize = 12;

/// Vectors whose counters differ in their last octet only.
const SMALL: usize = 63;

/// Some vectors of a packet, and all that a step has to know of them.
struct Piece<'t, 'p> {
    task: &'t Task<'p>,
    /// Where its first vector begins.
    row: *mut u8,
    /// The power of H for its first block. Where the packet goes on, the last block has H^1; where it
    /// ends H^2, for the lengths come after it.
    powers: *const u128,
    /// How many vectors there are, four at least, and which vector of the packet is the first.
    vectors: usize,
    first: usize,
    /// The octets of the first and of the last vector that are text.
    first_mask: u64,
    last_mask: u64,
    /// Which quarter lanes of the last vector are for the lengths; bits 16 to 19 if it is full, none if
    /// the packet goes on.
    lengths_lane: u32,
    /// Whether the packet ends with it.
    ends: bool,
}

impl<'t, 'p> Piece<'t, 'p> {
    /// The piece of a packet that begins with this vector.
    #[inline]
    fn new(task: &'t Task<'p>, first: usize) -> Piece<'t, 'p> {
        let blocks = task.blocks() + 1 - 4 * first;
        let left = blocks.div_ceil(4);
        // No piece is much shorter than the others.
        let vectors = if left <= MOST {
            left
        } else {
            left.div_ceil(2).min(MOST)
        };
        let ends = vectors == left;
        let octets = 16 + task.length() - 64 * first;
        let last_blocks = blocks.wrapping_sub(4 * (vectors - 1));
        Piece {
            task,
            row: task.text().wrapping_sub(16).wrapping_add(64 * first),
            powers: task
                .key()
                .power(if ends { blocks + 1 } else { 4 * vectors }),
            vectors,
            first,
            first_mask: if first == 0 { PAST_HEADER } else { u64::MAX },
            last_mask: u64::MAX >> (64 * vectors).saturating_sub(octets),
            lengths_lane: if ends { 0xf << (4 * last_blocks) } else { 0 },
            ends,
        }
    }
}

/// Seals or opens the packets in `set`, which is not empty, and says which are good.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn run<const OPEN: bool>(tasks: &[Task<'_>], set: u32) -> u32 {
    if OPEN {
        open(tasks, set)
    } else {
        seal(tasks, set);
        set
    }
}

/// A piece and its ciphertext as it is hashed: octets reversed, zeros where there is no text. To read it
/// again out of the packet would mean to wait for masked stores.
struct Sealed<'t, 'p> {
    piece: Option<Piece<'t, 'p>>,
    blocks: [__m512i; MOST],
}

#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
fn seal(tasks: &[Task<'_>], set: u32) {
    let mut hash = _mm_setzero_si128();
    let mut encrypted_one = hash;
    // The piece that is encrypted and the one before, in turn, so that none is ever copied.
    let blocks = [_mm512_setzero_si512(); MOST];
    let mut even = Sealed {
        piece: None,
        blocks,
    };
    let mut odd = Sealed {
        piece: None,
        blocks,
    };
    let (mut place, mut behind) = (&mut even, &mut odd);
    for i in members(set) {
        let mut first = 0;
        loop {
            let piece = place.piece.insert(Piece::new(&tasks[i], first));
            let hashed = behind.piece.as_ref().map(|piece| (piece, &behind.blocks));
            let (next, stream) = step::<false>(piece, &mut place.blocks, hashed, hash);
            hash = next;
            if let Some((done, _)) = hashed
                && done.ends
            {
                write(done.task, hash, encrypted_one);
            }
            if first == 0 {
                encrypted_one = stream;
            }
            first += piece.vectors;
            let ends = piece.ends;
            (place, behind) = (behind, place);
            if ends {
                break;
            }
        }
    }
    if let Some(piece) = &behind.piece {
        let mut sum = Sum::zero();
        for vector in 1..piece.vectors - 1 {
            sum.add(behind.blocks[vector], powers(piece, vector));
        }
        let (first, last) = (behind.blocks[0], behind.blocks[piece.vectors - 1]);
        write(
            piece.task,
            end(piece, sum, first, last, hash),
            encrypted_one,
        );
    }
}

#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
fn open(tasks: &[Task<'_>], set: u32) -> u32 {
    let mut good = 0;
    let mut hash = _mm_setzero_si128();
    let mut encrypted_one = hash;
    let mut blocks = [_mm512_setzero_si512(); MOST];
    for i in members(set) {
        let mut first = 0;
        loop {
            let piece = Piece::new(&tasks[i], first);
            let (next, stream) = step::<true>(&piece, &mut blocks, None, hash);
            hash = next;
            if first == 0 {
                encrypted_one = stream;
            }
            first += piece.vectors;
            if piece.ends {
                good |= u32::from(verify(piece.task, hash, encrypted_one)) << i;
                break;
            }
        }
    }
    good
}

/// One step of the pipeline: seals `piece`, leaves its ciphertext in `blocks`, and hashes what was
/// sealed before; or opens `piece`. Returns the hash, and the first block of the key stream of `piece`.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn step<const OPEN: bool>(
    piece: &Piece<'_, '_>,
    blocks: &mut [__m512i; MOST],
    hashed: Option<(&Piece<'_, '_>, &[__m512i; MOST])>,
    hash: __m128i,
) -> (__m128i, __m128i) {
    match piece.vectors {
        4 => step_of::<4, OPEN>(piece, blocks, hashed, hash),
        5 => step_of::<5, OPEN>(piece, blocks, hashed, hash),
        6 => step_of::<6, OPEN>(piece, blocks, hashed, hash),
        7 => step_of::<7, OPEN>(piece, blocks, hashed, hash),
        8 => step_of::<8, OPEN>(piece, blocks, hashed, hash),
        9 => step_of::<9, OPEN>(piece, blocks, hashed, hash),
        10 => step_of::<10, OPEN>(piece, blocks, hashed, hash),
        11 => step_of::<11, OPEN>(piece, blocks, hashed, hash),
        // No piece is longer than `MOST`.
        _ => step_of::<MOST, OPEN>(piece, blocks, hashed, hash),
    }
}

#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline(never)]
fn step_of<const V: usize, const OPEN: bool>(
    piece: &Piece<'_, '_>,
    blocks: &mut [__m512i; MOST],
    hashed: Option<(&Piece<'_, '_>, &[__m512i; MOST])>,
    hash: __m128i,
) -> (__m128i, __m128i) {
    let key = piece.task.key();
    let mut states = counter_blocks::<V>(piece);
    let mut sum = Sum::zero();
    macro_rules! round {
        ($instruction:ident, $key:expr) => {
            let pick: fn(&Key) -> *const u128 = $key;
            let key = broadcast(pick(key));
            for state in &mut states {
                *state = $instruction(*state, key);
            }
        };
    }
    // Vectors in the middle of what is hashed; the first and the last come at the end.
    macro_rules! product {
        ($vector:literal) => {
            if OPEN {
                if $vector < V - 1 {
                    sum.add(reverse(text(piece, V, $vector)), powers(piece, $vector));
                }
            } else if let Some((hashed, blocks)) = hashed
                && $vector < hashed.vectors - 1
            {
                sum.add(blocks[$vector], powers(hashed, $vector));
            }
        };
    }
    all_rounds!(
        key.rounds(),
        round,
        product,
        _mm512_aesenc_epi128,
        _mm512_aesenclast_epi128
    );
    let mut next = hash;
    if OPEN {
        let first = reverse(text(piece, V, 0));
        let last = reverse(text(piece, V, V - 1));
        next = end(piece, sum, first, last, hash);
    } else if let Some((hashed, blocks)) = hashed {
        let last = blocks[(hashed.vectors - 1).min(MOST - 1)];
        next = end(hashed, sum, blocks[0], last, hash);
    }
    for (v, state) in states.iter().enumerate() {
        let mask = mask(piece, V, v);
        let after = _mm512_xor_si512(text(piece, V, v), *state);
        // SAFETY: the mask selects octets of the text only, which are ours to write.
        unsafe { _mm512_mask_storeu_epi8(piece.row.add(64 * v).cast(), mask, after) };
        if !OPEN {
            blocks[v] = reverse(_mm512_maskz_mov_epi8(mask, after));
        }
    }
    (next, _mm512_castsi512_si128(states[0]))
}

/// The octets of a vector that are text, in a piece of so many vectors.
#[inline]
fn mask(piece: &Piece<'_, '_>, vectors: usize, vector: usize) -> u64 {
    match vector {
        0 => piece.first_mask,
        _ if vector == vectors - 1 => piece.last_mask,
        _ => u64::MAX,
    }
}

/// A vector of text in a piece of so many vectors, zeros where it is not text.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn text(piece: &Piece<'_, '_>, vectors: usize, vector: usize) -> __m512i {
    let mask = mask(piece, vectors, vector);
    // SAFETY: the mask selects octets of the text only, which are ours to read.
    unsafe { _mm512_maskz_loadu_epi8(mask, piece.row.add(64 * vector).cast()) }
}

/// The counter blocks of a piece, the first round key added.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn counter_blocks<const V: usize>(piece: &Piece<'_, '_>) -> [__m512i; V] {
    let first = _mm512_xor_si512(nonce(piece.task), broadcast(piece.task.key().first()));
    let mut states = [first; V];
    if piece.first + V <= SMALL {
        let counter = counters(piece.first);
        for (v, state) in states.iter_mut().enumerate() {
            let step = _mm512_maskz_set1_epi32(0x8888, (v as i32) << 26);
            *state = _mm512_xor_si512(first, _mm512_add_epi32(counter, step));
        }
    } else {
        for (v, state) in states.iter_mut().enumerate() {
            let one = _mm512_set_epi32(4, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0);
            let step = _mm512_maskz_set1_epi32(0x8888, (4 * (piece.first + v)) as i32);
            let order = _mm_set_epi8(
                12, 13, 14, 15, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
            );
            let counter =
                _mm512_shuffle_epi8(_mm512_add_epi32(one, step), _mm512_broadcast_i32x4(order));
            *state = _mm512_xor_si512(first, counter);
        }
    }
    states
}

/// The powers of H for a vector of a piece.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn powers(piece: &Piece<'_, '_>, vector: usize) -> __m512i {
    // SAFETY: a piece begins at H^49 at most, and each of its vectors with one of its blocks, so this is
    // at H^1 at least; 48 octets of the key at least follow H^1.
    unsafe { _mm512_loadu_si512(piece.powers.add(4 * vector).cast()) }
}

/// Hashes the first and the last vector of a piece, and the lengths if the packet ends; returns the
/// hash. The hash so far goes into the first lane, at the start of a packet the additional data instead.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn end(
    piece: &Piece<'_, '_>,
    mut sum: Sum,
    first: __m512i,
    last: __m512i,
    hash: __m128i,
) -> __m128i {
    // The lengths have H^1, which stands after the last block's H^2. Most packets leave a lane free
    // there.
    let lengths = broadcast(piece.task.lengths());
    let last = _mm512_mask_mov_epi32(last, piece.lengths_lane as u16, lengths);
    sum.add(last, powers(piece, piece.vectors - 1));
    if piece.lengths_lane > 0xffff {
        let h = broadcast(piece.task.key().power(1));
        sum.add(_mm512_maskz_mov_epi32(0xf, lengths), h);
    }
    let seed = if piece.first == 0 {
        _mm512_castsi512_si128(broadcast(piece.task.additional()))
    } else {
        hash
    };
    // Last, since it is the hash that has to be waited for.
    let first = _mm512_xor_si512(first, _mm512_zextsi128_si512(seed));
    sum.add(first, powers(piece, 0));
    _mm512_castsi512_si128(sum.across().reduce())
}

/// The ICV: the hash, its octets in order again, and the first block of the key stream.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn icv(hash: __m128i, encrypted_one: __m128i) -> __m128i {
    let hash = _mm512_castsi512_si128(reverse(_mm512_castsi128_si512(hash)));
    _mm_xor_si128(hash, encrypted_one)
}

#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn write(task: &Task<'_>, hash: __m128i, encrypted_one: __m128i) {
    let at = task.text().wrapping_add(task.length());
    // SAFETY: the 16 octets behind the text are the packet's, and ours to write.
    unsafe { _mm_storeu_si128(at.cast(), icv(hash, encrypted_one)) };
}

/// Compares the whole ICV at once: no octet decides a branch.
#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn verify(task: &Task<'_>, hash: __m128i, encrypted_one: __m128i) -> bool {
    let at = task.text().wrapping_add(task.length());
    // SAFETY: the 16 octets behind the text are the packet's, and ours to read.
    let received = unsafe { _mm_loadu_si128(at.cast()) };
    _mm_cmpeq_epi64_mask(received, icv(hash, encrypted_one)) == 0b11
}
