//! Page-aligned memory for packet frames, which a kernel driver may share, and large tables in huge pages.
#![expect(
    unsafe_code,
    reason = "mmap, and slices of memory that the kernel also writes"
)]

use std::io;
use std::ptr::NonNull;

const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;

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
    /// Maps `length` zeroed octets, in huge pages if there are any and it is worth it.
    pub fn new(length: usize) -> io::Result<Memory> {
        match length >= HUGE_PAGE {
            true => Memory::aligned(length),
            false => Memory::map(length),
        }
    }

    /// A mapping that begins where a huge page may: of a larger one, what is in front and behind goes.
    fn aligned(length: usize) -> io::Result<Memory> {
        let larger = length
            .checked_add(HUGE_PAGE)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let whole = Memory::map(larger)?;
        let in_front = whole.base.as_ptr().align_offset(HUGE_PAGE) / PAGE * PAGE;
        let behind = whole.length - in_front;
        let kept = length.next_multiple_of(PAGE);
        let base = whole.base.as_ptr();
        std::mem::forget(whole);
        // SAFETY: both ranges are whole pages of the mapping that was just made, nobody knows of them,
        // and `base` is not used for them again. One that is empty is left alone.
        unsafe {
            if in_front > 0 {
                libc::munmap(base.cast(), in_front);
            }
            if behind > kept {
                libc::munmap(base.add(in_front + kept).cast(), behind - kept);
            }
        }
        // SAFETY: the range lies in the mapping.
        let base = unsafe { base.add(in_front) };
        let base = NonNull::new(base).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: what is left of the mapping. Huge pages are a wish, not a need.
        unsafe { libc::madvise(base.as_ptr().cast(), length, libc::MADV_HUGEPAGE) };
        Ok(Memory { base, length })
    }

    fn map(length: usize) -> io::Result<Memory> {
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

/// So many values side by side, in huge pages if there are any and it is worth it: of a large table that
/// is read here and there each page would have to be looked up anew.
pub(crate) fn table<T>(count: usize, value: impl FnMut() -> T) -> Box<[T]> {
    let mut table = Vec::with_capacity(count);
    let free = table.spare_capacity_mut();
    let octets = size_of_val(free);
    if octets >= HUGE_PAGE {
        let in_front = free.as_ptr().cast::<u8>().align_offset(PAGE);
        let length = (octets - in_front) / PAGE * PAGE;
        let base = free.as_mut_ptr().cast::<u8>().wrapping_add(in_front);
        // SAFETY: whole pages of memory that belongs to the table and has nothing in it. The advice
        // changes how it is mapped, not what it holds; if it is refused the pages stay small.
        unsafe { libc::madvise(base.cast(), length, libc::MADV_HUGEPAGE) };
    }
    table.extend(std::iter::repeat_with(value).take(count));
    table.into_boxed_slice()
}
