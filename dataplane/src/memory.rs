//! Page-aligned memory for packet frames, which a kernel driver may share.
#![expect(
    unsafe_code,
    reason = "mmap, and slices of memory that the kernel also writes"
)]

use std::io;
use std::ptr::NonNull;

/// An anonymous mapping, unmapped when dropped. It hands out slices of ranges, never of the whole,
/// because the kernel may own other ranges at the same time (an AF_XDP fill ring).
pub struct Memory {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is owned by this value alone and has no thread affinity.
unsafe impl Send for Memory {}
// SAFETY: through a shared reference memory is only read, and only in ranges that the caller of
// `slice` owns; `slice_mut` needs an exclusive reference.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps `length` zeroed octets.
    pub fn new(length: usize) -> io::Result<Memory> {
        // SAFETY: a fresh anonymous mapping aliases nothing; the result is checked below.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the range is the mapping that was just made. Huge pages are a wish, not a need.
        unsafe { libc::madvise(base, length, libc::MADV_HUGEPAGE) };
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Memory { base, length })
    }

    /// Start of the mapping, for registering it with the kernel.
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Octets in the mapping.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The range, if it lies within the mapping.
    pub fn slice(&self, start: usize, length: usize) -> &[u8] {
        assert!(
            start
                .checked_add(length)
                .is_some_and(|end| end <= self.length)
        );
        // SAFETY: the range lies within the mapping (asserted), the mapping lives as long as
        // `self`, and the pool hands a frame to the kernel only when no `Packet` names it.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(start), length) }
    }

    /// The range for writing, if it lies within the mapping.
    pub fn slice_mut(&mut self, start: usize, length: usize) -> &mut [u8] {
        assert!(
            start
                .checked_add(length)
                .is_some_and(|end| end <= self.length)
        );
        // SAFETY: as for `slice`; exclusive because `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(start), length) }
    }

    /// Copies one range onto another, which may overlap it, if both lie within the mapping.
    pub fn copy(&mut self, from: usize, to: usize, length: usize) {
        for start in [from, to] {
            assert!(
                start
                    .checked_add(length)
                    .is_some_and(|end| end <= self.length)
            );
        }
        let base = self.base.as_ptr();
        // SAFETY: both ranges lie within the mapping (asserted), which `self` is borrowed for
        // exclusively; `copy` allows them to overlap.
        unsafe { std::ptr::copy(base.add(from), base.add(to), length) };
    }

    /// Several ranges for writing, each if it lies within the mapping, with what came along with it.
    ///
    /// # Safety
    /// No two of the ranges may overlap.
    pub(crate) unsafe fn disjoint_mut<'a, T: 'a>(
        &'a mut self,
        ranges: impl Iterator<Item = (usize, usize, T)> + 'a,
    ) -> impl Iterator<Item = (&'a mut [u8], T)> {
        let (base, end) = (self.base, self.length);
        ranges.map(move |(start, length, with)| {
            assert!(start.checked_add(length).is_some_and(|last| last <= end));
            // SAFETY: as for `slice_mut`; `self` stays borrowed exclusively for as long as any of
            // the slices lives, and they do not overlap (the caller's promise).
            let range = unsafe { std::slice::from_raw_parts_mut(base.as_ptr().add(start), length) };
            (range, with)
        })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and is not used after this.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}
