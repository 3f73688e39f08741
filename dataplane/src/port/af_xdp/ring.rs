//! The rings that an AF_XDP socket shares with the kernel.
//!
//! Each ring has one producer and one consumer, one of them the kernel: fill and transmit rings are
//! produced here, completion and receive rings are consumed here. Indexes run freely over 32 bits;
//! their low bits are the slot. A side writes slots first and its index after (release), and reads
//! the other's index first and slots after (acquire).
//!
//! The kernel's indexes are read with suspicion: one that claims more entries than the ring has is
//! taken as an empty ring, so that whatever is in shared memory no slot outside the ring is touched.
#![expect(unsafe_code, reason = "memory that the kernel also reads and writes")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// A frame's place in the shared memory (`struct xdp_desc`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Descriptor {
    /// Where the packet starts.
    pub address: u64,
    /// Its length.
    pub length: u32,
    /// Flags.
    pub options: u32,
}

/// What rings carry: fixed-size values without padding, for which any octets are valid.
pub trait Entry: Copy + sealed::Sealed {}
impl Entry for u64 {}
impl Entry for Descriptor {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u64 {}
    impl Sealed for super::Descriptor {}
}

/// Where the parts of a ring lie in its mapping (`struct xdp_ring_offset`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    pub producer: u64,
    pub consumer: u64,
    pub flags: u64,
    pub entries: u64,
}

/// A shared mapping, unmapped when dropped.
struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(descriptor: Option<BorrowedFd<'_>>, offset: i64, length: usize) -> io::Result<Mapping> {
        let (flags, descriptor) = match descriptor {
            Some(descriptor) => (
                libc::MAP_SHARED | libc::MAP_POPULATE,
                descriptor.as_raw_fd(),
            ),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of ours.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                descriptor,
                offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Mapping { base, length })
    }

    /// A pointer to `count` values of `T` at `offset`, if they lie within the mapping, aligned.
    fn part<T>(&self, offset: u64, count: usize) -> io::Result<NonNull<T>> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "impossible AF_XDP ring layout");
        let start = usize::try_from(offset).map_err(|_| wrong())?;
        let end = size_of::<T>()
            .checked_mul(count)
            .and_then(|size| start.checked_add(size));
        if end.is_none_or(|end| end > self.length) || start % align_of::<T>() != 0 {
            return Err(wrong());
        }
        // SAFETY: the offset lies within the mapping, as has just been checked.
        Ok(unsafe { self.base.add(start) }.cast())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length; the pointers into it live in the
        // ring that owns it and are not used after it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

/// A mapped ring, seen from neither side.
struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    _mapping: Mapping,
}

// SAFETY: the ring owns its mapping, which has no thread affinity; its methods take care of the
// other side being elsewhere, which the kernel always is.
unsafe impl<T: Entry> Send for Ring<T> {}

impl<T: Entry> Ring<T> {
    fn new(
        descriptor: Option<BorrowedFd<'_>>,
        offset: i64,
        layout: Layout,
        size: u32,
    ) -> io::Result<Ring<T>> {
        assert!(size.is_power_of_two());
        let length = layout.entries as usize + size as usize * size_of::<T>();
        let mapping = Mapping::new(descriptor, offset, length)?;
        Ok(Ring {
            producer: mapping.part(layout.producer, 1)?,
            consumer: mapping.part(layout.consumer, 1)?,
            flags: mapping.part(layout.flags, 1)?,
            entries: mapping.part(layout.entries, size as usize)?,
            size,
            _mapping: mapping,
        })
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: aligned, within the mapping that `self` owns, and only ever accessed atomically.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        // SAFETY: as for `producer`.
        let flags = unsafe { self.flags.as_ref() };
        flags.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// The slot of a free-running index.
    fn slot(&self, index: u32) -> *mut T {
        let slot = (index & (self.size - 1)) as usize;
        // SAFETY: the mask keeps `slot` below `size`, and `size` entries lie within the mapping.
        unsafe { self.entries.as_ptr().add(slot) }
    }
}

/// A ring that we fill.
pub struct Producer<T> {
    ring: Ring<T>,
    /// Our index: entries before it are written.
    next: u32,
    /// The kernel's index when it was last read.
    consumed: u32,
}

impl<T: Entry> Producer<T> {
    /// Maps the socket's ring at `offset`.
    pub fn map(
        descriptor: BorrowedFd<'_>,
        offset: i64,
        layout: Layout,
        size: u32,
    ) -> io::Result<Producer<T>> {
        Ring::new(Some(descriptor), offset, layout, size).map(Producer::over)
    }

    fn over(ring: Ring<T>) -> Producer<T> {
        Producer {
            next: ring.producer().load(Ordering::Relaxed),
            consumed: ring.consumer().load(Ordering::Acquire),
            ring,
        }
    }

    /// Writes an entry, unless the ring is full. The kernel sees it after [`Producer::publish`].
    #[must_use]
    pub fn push(&mut self, entry: T) -> bool {
        if self.next.wrapping_sub(self.consumed) >= self.ring.size {
            self.consumed = self.ring.consumer().load(Ordering::Acquire);
            if self.next.wrapping_sub(self.consumed) >= self.ring.size {
                return false;
            }
        }
        // SAFETY: the slot is within the ring, and the kernel has consumed what was in it (the
        // index was read with acquire) and does not look at it before `publish`.
        unsafe { self.ring.slot(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Entries that can be pushed now.
    pub fn room(&mut self) -> u32 {
        self.consumed = self.ring.consumer().load(Ordering::Acquire);
        let queued = self.next.wrapping_sub(self.consumed);
        self.ring.size.saturating_sub(queued)
    }

    /// Shows the kernel all that was pushed.
    pub fn publish(&mut self) {
        self.ring.producer().store(self.next, Ordering::Release);
    }

    /// Entries that the kernel has not consumed yet.
    pub fn pending(&self) -> u32 {
        let consumed = self.ring.consumer().load(Ordering::Acquire);
        self.next.wrapping_sub(consumed)
    }

    /// Whether the kernel sleeps until it is called. It may change its mind just after: whoever
    /// relies on it asks again later.
    pub fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }
}

/// A ring that the kernel fills.
pub struct Consumer<T> {
    ring: Ring<T>,
    /// Our index: entries before it are read.
    next: u32,
    /// The kernel's index when it was last read.
    produced: u32,
}

impl<T: Entry> Consumer<T> {
    /// Maps the socket's ring at `offset`.
    pub fn map(
        descriptor: BorrowedFd<'_>,
        offset: i64,
        layout: Layout,
        size: u32,
    ) -> io::Result<Consumer<T>> {
        Ring::new(Some(descriptor), offset, layout, size).map(Consumer::over)
    }

    fn over(ring: Ring<T>) -> Consumer<T> {
        let next = ring.consumer().load(Ordering::Relaxed);
        Consumer {
            next,
            produced: next,
            ring,
        }
    }

    /// Reads an entry, if there is one. Its slot is the kernel's again after
    /// [`Consumer::release`].
    pub fn pop(&mut self) -> Option<T> {
        if self.next == self.produced {
            let produced = self.ring.producer().load(Ordering::Acquire);
            if produced.wrapping_sub(self.next) > self.ring.size {
                return None;
            }
            self.produced = produced;
            if self.next == produced {
                return None;
            }
        }
        // SAFETY: the slot is within the ring, the kernel has written it (the index was read with
        // acquire) and does not write it again before `release`; any octets are a valid entry.
        let entry = unsafe { self.ring.slot(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Gives the slots of all that was popped back to the kernel.
    pub fn release(&mut self) {
        self.ring.consumer().store(self.next, Ordering::Release);
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
