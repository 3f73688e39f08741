//! What the CPU could do at best: the AES rounds and carry-less multiplications of AES-GCM, four blocks
//! an instruction, with nothing waiting for anything and no counter, hash or ICV that anyone could use.
//! For benches to draw beside real figures. Encrypts nothing: never call it on data that matters.

#![expect(unsafe_code, reason = "instructions that only some CPUs have")]

use std::arch::x86_64::*;

use crate::detect::Tier;

/// Vectors in flight.
const WIDTH: usize = 4;

/// Takes packets of ESP, header and ICV included, through the instructions of AES with this many rounds
/// and of GHASH. False, and nothing done, if this CPU lacks the best tier.
pub fn run(rounds: usize, packets: &mut [&mut [u8]]) -> bool {
    let available = Tier::Avx512.is_available();
    if available {
        for esp in packets {
            // The header's lane and the text; the lengths and the reduction are not counted.
            let end = esp.len().saturating_sub(crate::job::ICV);
            // SAFETY: the CPU has the features.
            unsafe { packet(rounds, &mut esp[..end]) };
        }
    }
    available
}

#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn packet(rounds: usize, row: &mut [u8]) {
    let mut sums = [_mm512_setzero_si512(); 4];
    let mut rows = row.chunks_exact_mut(WIDTH * 64);
    for row in &mut rows {
        vectors::<WIDTH>(rounds, row, &mut sums);
    }
    let rest = rows.into_remainder();
    match rest.len().div_ceil(64) {
        0 => (),
        1 => vectors::<1>(rounds, rest, &mut sums),
        2 => vectors::<2>(rounds, rest, &mut sums),
        3 => vectors::<3>(rounds, rest, &mut sums),
        _ => vectors::<4>(rounds, rest, &mut sums),
    }
    std::hint::black_box(&mut sums);
}

#[target_feature(enable = "avx512bw,avx512vl,vaes,vpclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
fn vectors<const V: usize>(rounds: usize, row: &mut [u8], sums: &mut [__m512i; 4]) {
    let key = _mm512_set1_epi8(0x3c);
    let mut states = [key; V];
    for (v, state) in states.iter_mut().enumerate() {
        *state = _mm512_set1_epi32(v as i32);
    }
    for _ in 0..rounds / 2 {
        for state in &mut states {
            *state = _mm512_aesenc_epi128(*state, key);
        }
        for state in &mut states {
            *state = _mm512_aesenc_epi128(*state, key);
        }
    }
    for (state, octets) in states.iter().zip(row.chunks_mut(64)) {
        let mask = u64::MAX >> (64 - octets.len());
        let at = octets.as_mut_ptr().cast();
        // SAFETY: the mask selects as many octets as the chunk has.
        let text = unsafe { _mm512_maskz_loadu_epi8(mask, at) };
        // SAFETY: likewise.
        unsafe { _mm512_mask_storeu_epi8(at, mask, _mm512_xor_si512(text, *state)) };
        let products = [
            _mm512_clmulepi64_epi128::<0x00>(text, key),
            _mm512_clmulepi64_epi128::<0x01>(text, key),
            _mm512_clmulepi64_epi128::<0x10>(text, key),
            _mm512_clmulepi64_epi128::<0x11>(text, key),
        ];
        for (sum, product) in sums.iter_mut().zip(products) {
            *sum = _mm512_xor_si512(*sum, product);
        }
    }
}
