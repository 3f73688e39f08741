//! Asking the caches for what a burst needs soon, so that the misses of its packets overlap.
#![expect(unsafe_code, reason = "the prefetch instruction")]

use std::ops::Range;

/// Octets that come at a time.
const LINE: usize = 64;

/// Asks for the whole of a value.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    prefetch_range(value, 0..size_of::<T>());
}

/// Asks for so many octets at the start of a value.
#[inline]
pub(crate) fn prefetch_start<T>(value: &T, octets: usize) {
    prefetch_range(value, 0..octets);
}

/// Asks for the lines of these octets of a value, which begins with one if it matters.
#[inline]
pub(crate) fn prefetch_range<T>(value: &T, octets: Range<usize>) {
    let start = std::ptr::from_ref(value).cast::<i8>();
    let (mut offset, end) = (octets.start / LINE * LINE, octets.end.min(size_of::<T>()));
    while offset < end {
        hint(start.wrapping_add(offset));
        offset += LINE;
    }
}

/// Other machines get along without.
#[inline]
fn hint(address: *const i8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of every x86-64. A prefetch reads nothing that the program could see
        // and never faults, whatever the address; this one lies within a borrowed value.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
