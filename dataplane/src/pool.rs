//! Packet buffers: one type, from one pool for each worker.
//!
//! A [`Packet`] is a move-only token for a frame of its worker's [`Pool`]; its octets are reached
//! through the pool. There is one token for each frame, so owning the token is owning the frame,
//! and everything but the mapping itself is safe code. Each frame has head room for outer headers
//! and tail room for ESP's trailer and ICV.

use std::io;

use crate::memory::Memory;

/// Octets in a frame; also the AF_XDP chunk size.
pub const FRAME_SIZE: usize = 2048;
/// Octets kept free in front of a packet: XDP's own head room, enough for all outer headers.
pub const HEADROOM: usize = 256;

/// The frame of a pool, without the right to use it: a descriptor for rings.
pub type FrameIndex = u32;

/// A packet: the one token of its frame. It must go back to its pool or to a port; dropping it
/// leaks the frame, which debug builds refuse.
#[derive(Debug)]
#[must_use = "give the packet to a port or back to the pool"]
pub struct Packet {
    frame: FrameIndex,
    offset: u16,
    length: u16,
}

impl Packet {
    /// Octets in the packet.
    pub fn len(&self) -> usize {
        usize::from(self.length)
    }

    /// Whether the packet has no octets.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Octets that can be prepended.
    pub fn headroom(&self) -> usize {
        usize::from(self.offset)
    }

    /// Octets that can be appended.
    pub fn tailroom(&self) -> usize {
        FRAME_SIZE - usize::from(self.offset) - usize::from(self.length)
    }

    /// Where the packet starts in the pool's memory.
    pub fn address(&self) -> usize {
        self.frame as usize * FRAME_SIZE + usize::from(self.offset)
    }

    /// Gives up the token: the frame now belongs to whoever holds the index (a driver's ring).
    pub fn into_frame(self) -> FrameIndex {
        let frame = self.frame;
        std::mem::forget(self);
        frame
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        debug_assert!(
            std::thread::panicking(),
            "a packet was dropped: its frame has leaked"
        );
    }
}

/// All frames of one worker.
pub struct Pool {
    memory: Memory,
    free: Vec<FrameIndex>,
}

impl Pool {
    /// A pool of `frames` frames, all free.
    pub fn new(frames: u32) -> io::Result<Pool> {
        let memory = Memory::new(frames as usize * FRAME_SIZE)?;
        Ok(Pool {
            memory,
            free: (0..frames).rev().collect(),
        })
    }

    /// An empty packet with the standard head room, unless the pool is exhausted.
    pub fn allocate(&mut self) -> Option<Packet> {
        let frame = self.free.pop()?;
        Some(Packet {
            frame,
            offset: HEADROOM as u16,
            length: 0,
        })
    }

    /// A packet with a copy of `octets`, unless the pool is exhausted or they do not fit.
    pub fn copy_in(&mut self, octets: &[u8]) -> Option<Packet> {
        if octets.len() > FRAME_SIZE - HEADROOM {
            return None;
        }
        let mut packet = self.allocate()?;
        packet.length = octets.len() as u16;
        self.bytes_mut(&mut packet).copy_from_slice(octets);
        Some(packet)
    }

    /// Takes a packet back.
    pub fn free(&mut self, packet: Packet) {
        self.free.push(packet.into_frame());
    }

    /// Takes back a frame whose token a driver gave up with [`Packet::into_frame`].
    ///
    /// The caller vouches that the index came from there and that the driver is done with it; a
    /// wrong one cannot break memory safety, only mix packets up.
    pub fn reclaim(&mut self, frame: FrameIndex, offset: usize, length: usize) -> Packet {
        assert!((frame as usize) < self.frames() && offset + length <= FRAME_SIZE);
        Packet {
            frame,
            offset: offset as u16,
            length: length as u16,
        }
    }

    /// Frames that are free.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Frames in all.
    pub fn frames(&self) -> usize {
        self.memory.length() / FRAME_SIZE
    }

    /// The packet's octets.
    pub fn bytes(&self, packet: &Packet) -> &[u8] {
        self.memory.slice(packet.address(), packet.len())
    }

    /// The packet's octets, for writing.
    pub fn bytes_mut(&mut self, packet: &mut Packet) -> &mut [u8] {
        self.memory.slice_mut(packet.address(), packet.len())
    }

    /// Grows the packet at the front by `count` octets of unspecified content.
    #[must_use]
    pub fn prepend(&mut self, packet: &mut Packet, count: usize) -> bool {
        let fits = count <= packet.headroom();
        if fits {
            packet.offset -= count as u16;
            packet.length += count as u16;
        }
        fits
    }

    /// Grows the packet at the end by `count` octets of unspecified content.
    #[must_use]
    pub fn append(&mut self, packet: &mut Packet, count: usize) -> bool {
        let fits = count <= packet.tailroom();
        if fits {
            packet.length += count as u16;
        }
        fits
    }

    /// Cuts `count` octets off the front.
    #[must_use]
    pub fn trim_front(&mut self, packet: &mut Packet, count: usize) -> bool {
        let fits = count <= packet.len();
        if fits {
            packet.offset += count as u16;
            packet.length -= count as u16;
        }
        fits
    }

    /// Shortens the packet to `length` octets.
    #[must_use]
    pub fn truncate(&mut self, packet: &mut Packet, length: usize) -> bool {
        let fits = length <= packet.len();
        if fits {
            packet.length = length as u16;
        }
        fits
    }

    /// The memory, for registering it with a driver.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}
