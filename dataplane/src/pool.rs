//! Packet buffers: one type, from one pool for each worker.
//!
//! A [`Packet`] is a move-only token for a frame of its worker's [`Pool`]; its octets are reached
//! through the pool. There is one token for each frame, so owning the token is owning the frame,
//! and tokens cannot be made outside of this package. Each frame has head room for outer headers
//! and tail room for ESP's trailer and ICV.
#![expect(
    unsafe_code,
    reason = "slices of several frames at once, each owned through its token"
)]

use std::io;

use crate::memory::Memory;
use crate::sync::unique;

/// Octets in a frame; also the AF_XDP chunk size.
pub const FRAME_SIZE: usize = 2048;
/// Octets kept free in front of a packet: XDP's own head room, enough for all outer headers.
pub const HEADROOM: usize = 256;

/// The frame of a pool, without the right to use it: a descriptor for rings.
pub type FrameIndex = u32;

/// Which pool of this process a token belongs to.
type PoolId = u32;

/// A packet: the one token of its frame. It must go back to its pool or to a port; dropping it
/// leaks the frame, which debug builds refuse.
#[derive(Debug)]
#[must_use = "give the packet to a port or back to the pool"]
pub struct Packet {
    pool: PoolId,
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
    pub(crate) fn into_frame(self) -> FrameIndex {
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
    id: PoolId,
    memory: Memory,
    free: Vec<FrameIndex>,
}

impl Pool {
    /// A pool of `frames` frames, all free.
    pub fn new(frames: u32) -> io::Result<Pool> {
        let memory = Memory::new(frames as usize * FRAME_SIZE)?;
        Ok(Pool {
            id: unique(),
            memory,
            free: (0..frames).rev().collect(),
        })
    }

    /// An empty packet with the standard head room, unless the pool is exhausted.
    pub fn allocate(&mut self) -> Option<Packet> {
        let frame = self.free.pop()?;
        Some(Packet {
            pool: self.id,
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
    /// The caller vouches that the index came from there and that the driver is done with it. Two
    /// tokens of one frame would break what [`Pool::each_bytes_mut`] rests on, so this is for the
    /// ports of this package alone, which keep a ledger of what they have given up.
    pub(crate) fn reclaim(&mut self, frame: FrameIndex, offset: usize, length: usize) -> Packet {
        assert!((frame as usize) < self.frames() && offset + length <= FRAME_SIZE);
        Packet {
            pool: self.id,
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

    /// The octets of many packets at once, for writing, each with what came along with it.
    pub fn each_bytes_mut<'a, T: 'a>(
        &'a mut self,
        packets: impl Iterator<Item = (&'a mut Packet, T)> + 'a,
    ) -> impl Iterator<Item = (&'a mut [u8], T)> {
        let id = self.id;
        let ranges = packets.map(move |(packet, with)| {
            assert_eq!(packet.pool, id, "a packet of another pool");
            (packet.address(), packet.len(), with)
        });
        // SAFETY: no two of the ranges overlap. Each lies within the frame of its packet: offset and
        // length are only changed within it. No two packets are of one frame: all are of this pool
        // (asserted), which gives out one token for each frame; tokens cannot be copied, and these
        // are borrowed exclusively, so that they differ and stay as they are.
        unsafe { self.memory.disjoint_mut(ranges) }
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn release(pool: &mut Pool, packets: Vec<Packet>) {
        packets.into_iter().for_each(|packet| pool.free(packet));
        assert_eq!(pool.available(), pool.frames());
    }

    #[test]
    fn the_octets_of_many_packets_are_written_at_once_and_stay_apart() {
        let mut pool = Pool::new(4).unwrap();
        let sizes = [FRAME_SIZE - HEADROOM, 0, 7];
        let mut packets: Vec<_> = sizes
            .iter()
            .map(|&size| pool.copy_in(&vec![0xee; size]).unwrap())
            .collect();
        assert!(pool.trim_front(&mut packets[2], 2));
        let tagged = packets.iter_mut().zip(1u8..);
        let all: Vec<_> = pool.each_bytes_mut(tagged).collect();
        for (octets, value) in all {
            octets.fill(value);
        }
        for (packet, value) in packets.iter().zip(1u8..) {
            assert!(pool.bytes(packet).iter().all(|&octet| octet == value));
        }
        let lengths: Vec<_> = packets.iter().map(Packet::len).collect();
        assert_eq!(lengths, [FRAME_SIZE - HEADROOM, 0, 5]);
        release(&mut pool, packets);
    }

    #[test]
    #[should_panic(expected = "a packet of another pool")]
    fn a_packet_of_another_pool_is_refused() {
        let (mut pool, mut other) = (Pool::new(1).unwrap(), Pool::new(1).unwrap());
        let (mut own, mut foreign) = (pool.allocate().unwrap(), other.allocate().unwrap());
        let both = [(&mut own, ()), (&mut foreign, ())];
        let slices = pool.each_bytes_mut(both.into_iter()).count();
        assert_eq!(slices, 2, "not reached");
    }
}
