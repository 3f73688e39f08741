//! Packet buffers: one type, from one pool for each worker.
//!
//! A [`Packet`] is a move-only token for a frame of its worker's [`Pool`]; its octets are reached
//! through the pool. There is one token for each frame, so owning the token is owning the frame,
//! and tokens cannot be made outside of this package. Each frame has head room for outer headers
//! and tail room for ESP's trailer and ICV.
//!
//! ```text
//!  | frame 0 | frame 1 | ... |  run 0: 5 adjacent frames  |  run 1  | ...
//!  free list of frames        free list of runs
//! ```
//!
//! A packet too long for a frame lives in a *run*: adjacent frames, so that the cipher, the
//! checksums and every header wrapper see one slice, and nothing on the path knows of chains. How
//! many runs there are is a setting, none by default; a worker keeps some for IKE besides. Drivers that deliver a packet in several
//! frames gather it into a run; one that sends a run names its frames one by one.
#![expect(
    unsafe_code,
    reason = "slices of several frames at once, each owned through its token"
)]

use std::io;
use std::ops::Range;

use crate::memory::Memory;
use crate::sync::unique;

/// Octets in a frame; also the AF_XDP chunk size.
pub const FRAME_SIZE: usize = 2048;
/// Octets kept free in front of a packet: XDP's own head room, enough for all outer headers.
pub const HEADROOM: usize = 256;
/// Adjacent frames of a run.
pub const RUN_FRAMES: usize = 5;
/// Octets in a run.
pub const RUN_SIZE: usize = RUN_FRAMES * FRAME_SIZE;
/// Octets of the longest frame that a run must hold, with all that ESP adds: a jumbo frame.
pub const LARGEST_FRAME: usize = 9216 + 18;

/// Head room that a packet needs which does not go out as it is.
pub(crate) const LEAST_HEADROOM: usize = 32;
/// The longest packet that a frame holds behind the standard head room, and a run.
pub(crate) const LARGEST_IN_FRAME: usize = FRAME_SIZE - HEADROOM;
/// Runs that a worker keeps for messages of ours and to us (RFC 7296 section 2: IKE messages may be
/// longer than any link takes). Each is needed for a moment only.
const KEPT_RUNS: u32 = 4;
pub(crate) const LARGEST_IN_RUN: usize = RUN_SIZE - HEADROOM;
/// What ESP may append to the largest frame, padding of up to 255 octets with it, still fits.
const _: () = assert!(LARGEST_FRAME + 255 + 64 <= LARGEST_IN_RUN && RUN_SIZE <= u16::MAX as usize);

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
    /// Octets of its frame or run.
    capacity: u16,
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

    /// Which frame it is in: its own as long as the packet lives.
    pub(crate) fn frame(&self) -> FrameIndex {
        self.frame
    }

    /// Octets that can be prepended.
    pub fn headroom(&self) -> usize {
        usize::from(self.offset)
    }

    /// Octets that can be appended.
    pub fn tailroom(&self) -> usize {
        usize::from(self.capacity) - usize::from(self.offset) - usize::from(self.length)
    }

    /// Whether the packet lives in a run of frames.
    pub fn is_run(&self) -> bool {
        usize::from(self.capacity) > FRAME_SIZE
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
    /// First frames of the runs that are free.
    free_runs: Vec<FrameIndex>,
    /// Frames that are not part of a run; runs come after them.
    frames: u32,
    runs: u32,
    /// Runs that ports and ESP never get.
    kept: u32,
}

impl Pool {
    /// A pool of `frames` frames, all free, and no run.
    pub fn new(frames: u32) -> io::Result<Pool> {
        Pool::with_runs(frames, 0)
    }

    /// A pool of `frames` frames and of `runs` runs on top, all free.
    pub fn with_runs(frames: u32, runs: u32) -> io::Result<Pool> {
        let in_all = (runs as usize)
            .checked_mul(RUN_FRAMES)
            .and_then(|in_runs| in_runs.checked_add(frames as usize))
            .filter(|all| FrameIndex::try_from(*all).is_ok())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let memory = Memory::new(in_all * FRAME_SIZE)?;
        let first = |run| frames + run * RUN_FRAMES as u32;
        Ok(Pool {
            id: unique(),
            memory,
            free: (0..frames).rev().collect(),
            free_runs: (0..runs).rev().map(first).collect(),
            frames,
            runs,
            kept: 0,
        })
    }

    /// A worker's pool: `runs` runs for jumbo packets, and some for IKE messages on top.
    pub fn for_worker(frames: u32, runs: u32) -> io::Result<Pool> {
        let in_all = runs.checked_add(KEPT_RUNS);
        let in_all = in_all.ok_or(io::ErrorKind::OutOfMemory)?;
        let pool = Pool::with_runs(frames, in_all)?;
        Ok(Pool {
            kept: KEPT_RUNS,
            ..pool
        })
    }

    /// An empty packet with the standard head room, unless all frames are in use.
    pub fn allocate(&mut self) -> Option<Packet> {
        let frame = self.free.pop()?;
        Some(self.token(frame, HEADROOM, 0))
    }

    /// An empty packet with the standard head room in a run, unless all runs are in use but those
    /// that are kept.
    pub fn allocate_run(&mut self) -> Option<Packet> {
        match self.free_runs.len() > self.kept as usize {
            true => self.allocate_any_run(),
            false => None,
        }
    }

    fn allocate_any_run(&mut self) -> Option<Packet> {
        let first = self.free_runs.pop()?;
        Some(self.token(first, HEADROOM, 0))
    }

    /// As [`Pool::allocate_for`], for a message of ours or to us.
    pub(crate) fn allocate_own(&mut self, octets: usize) -> Option<Packet> {
        if octets <= LARGEST_IN_FRAME {
            self.allocate()
        } else if octets <= LARGEST_IN_RUN {
            self.allocate_any_run()
        } else {
            None
        }
    }

    /// An empty packet with the standard head room and with room for `octets` behind it, unless
    /// nothing that large is free.
    pub fn allocate_for(&mut self, octets: usize) -> Option<Packet> {
        if octets <= LARGEST_IN_FRAME {
            self.allocate()
        } else if octets <= LARGEST_IN_RUN {
            self.allocate_run()
        } else {
            None
        }
    }

    /// An empty packet of `octets` octets that does not go out as it is, and needs little head room: so
    /// more of them fit into a frame. `own` ones may be in a run that is kept.
    pub(crate) fn allocate_inbound(&mut self, octets: usize, own: bool) -> Option<Packet> {
        let spare = HEADROOM - LEAST_HEADROOM;
        let within = octets > LARGEST_IN_FRAME && octets <= LARGEST_IN_FRAME + spare;
        let mut packet = match own {
            _ if within => self.allocate()?,
            true => self.allocate_own(octets)?,
            false => self.allocate_for(octets)?,
        };
        let grown = match within {
            false => self.append(&mut packet, octets),
            true => self.prepend(&mut packet, spare) && self.append(&mut packet, octets - spare),
        };
        if !grown {
            self.free(packet);
            return None;
        }
        Some(packet)
    }

    fn token(&self, frame: FrameIndex, offset: usize, length: usize) -> Packet {
        let capacity = match frame < self.frames {
            true => FRAME_SIZE,
            false => RUN_SIZE,
        };
        Packet {
            pool: self.id,
            frame,
            offset: offset as u16,
            length: length as u16,
            capacity: capacity as u16,
        }
    }

    /// A packet with a copy of `octets`, unless nothing that large is free.
    pub fn copy_in(&mut self, octets: &[u8]) -> Option<Packet> {
        let packet = self.allocate_for(octets.len())?;
        Some(self.filled(packet, octets))
    }

    /// As [`Pool::copy_in`], of a message of ours.
    pub(crate) fn copy_own_in(&mut self, octets: &[u8]) -> Option<Packet> {
        let packet = self.allocate_own(octets.len())?;
        Some(self.filled(packet, octets))
    }

    /// As [`Pool::copy_in`], of a packet that does not go out as it is.
    pub(crate) fn copy_inbound_in(&mut self, octets: &[u8]) -> Option<Packet> {
        let mut packet = self.allocate_inbound(octets.len(), false)?;
        self.bytes_mut(&mut packet).copy_from_slice(octets);
        Some(packet)
    }

    fn filled(&mut self, mut packet: Packet, octets: &[u8]) -> Packet {
        packet.length = octets.len() as u16;
        self.bytes_mut(&mut packet).copy_from_slice(octets);
        packet
    }

    /// Takes a packet back.
    pub fn free(&mut self, packet: Packet) {
        // A frame of another pool would have a second token here.
        assert_eq!(packet.pool, self.id, "a packet of another pool");
        match packet.is_run() {
            false => self.free.push(packet.into_frame()),
            true => self.free_runs.push(packet.into_frame()),
        }
    }

    /// Takes back a frame, or a run by its first frame, whose token a driver gave up with
    /// [`Packet::into_frame`].
    ///
    /// The caller vouches that the index came from there and that the driver is done with it. Two
    /// tokens of one frame would break what [`Pool::each_bytes_mut`] rests on, so this is for the
    /// ports of this package alone, which keep a ledger of what they have given up.
    pub(crate) fn reclaim(&mut self, frame: FrameIndex, offset: usize, length: usize) -> Packet {
        assert!(self.first_of_run(frame).is_none_or(|first| first == frame));
        let packet = self.token(frame, offset, length);
        assert!((frame as usize) < self.frames_in_all());
        assert!(offset + length <= usize::from(packet.capacity));
        packet
    }

    /// The first frame of the run that this frame is part of, if it is part of one.
    pub fn first_of_run(&self, frame: FrameIndex) -> Option<FrameIndex> {
        let behind = frame.checked_sub(self.frames)?;
        Some(frame - behind % RUN_FRAMES as u32)
    }

    /// Packets that are free: frames and runs.
    pub fn available(&self) -> usize {
        self.free.len() + self.free_runs.len()
    }

    /// Frames that are free, runs left out: what drivers may fill their rings with.
    pub fn available_frames(&self) -> usize {
        self.free.len()
    }

    /// Packets in all: frames and runs. Of these [`Pool::available`] are free.
    pub fn packets(&self) -> usize {
        self.frames as usize + self.runs as usize
    }

    /// Frames that are not part of a run.
    pub fn frames(&self) -> usize {
        self.frames as usize
    }

    /// Runs, with those that are kept.
    pub fn runs(&self) -> usize {
        self.runs as usize
    }

    /// Whether ports may bring packets too long for a frame.
    pub fn takes_jumbo(&self) -> bool {
        self.runs > self.kept
    }

    /// Frames of the memory, those of runs with them: every [`FrameIndex`] is below.
    pub fn frames_in_all(&self) -> usize {
        self.frames as usize + self.runs as usize * RUN_FRAMES
    }

    /// The longest packet that comes in with the standard head room.
    pub fn largest_packet(&self) -> usize {
        match self.takes_jumbo() {
            false => LARGEST_IN_FRAME,
            true => LARGEST_IN_RUN,
        }
    }

    /// The longest one that does not go out as it is.
    pub(crate) fn largest_inbound(&self) -> usize {
        self.largest_packet().max(FRAME_SIZE - LEAST_HEADROOM)
    }

    /// The packet's octets.
    pub fn bytes(&self, packet: &Packet) -> &[u8] {
        self.memory.slice(packet.address(), packet.len())
    }

    /// The packet's octets, for writing.
    pub fn bytes_mut(&mut self, packet: &mut Packet) -> &mut [u8] {
        self.memory.slice_mut(packet.address(), packet.len())
    }

    /// Says anew where in its frame a packet lies. False, and no change, if it would not lie within.
    #[inline]
    #[must_use]
    pub(crate) fn set_range(&mut self, packet: &mut Packet, offset: usize, length: usize) -> bool {
        let fits =
            offset <= FRAME_SIZE && length <= usize::from(packet.capacity).saturating_sub(offset);
        if fits {
            packet.offset = offset as u16;
            packet.length = length as u16;
        }
        fits
    }

    /// Copies octets of one packet over octets of another, both of which must have them.
    #[must_use]
    pub fn copy_between(
        &mut self,
        source: &Packet,
        range: Range<usize>,
        target: &mut Packet,
        at: usize,
    ) -> bool {
        let length = range.len();
        let fits = range.start <= range.end
            && range.end <= source.len()
            && at
                .checked_add(length)
                .is_some_and(|end| end <= target.len());
        if fits {
            let from = source.address() + range.start;
            self.memory.copy(from, target.address() + at, length);
        }
        fits
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
        // SAFETY: no two of the ranges overlap. Each lies within the frame or run of its packet:
        // offset and length are only changed within it. No two packets are of one frame or run: all
        // are of this pool (asserted), which gives out one token for each; tokens cannot be copied,
        // and these are borrowed exclusively, so that they differ and stay as they are.
        unsafe { self.memory.disjoint_mut(ranges) }
    }

    /// The whole frames of many packets at once, for writing, each with where the packet begins in it
    /// and with what came along. None of them may be a run.
    #[inline]
    pub(crate) fn each_frame_mut<'a, T: 'a>(
        &'a mut self,
        packets: impl Iterator<Item = (&'a mut Packet, T)> + 'a,
    ) -> impl Iterator<Item = (&'a mut [u8; FRAME_SIZE], usize, T)> {
        let id = self.id;
        let ranges = packets.map(move |(packet, with)| {
            assert!(packet.pool == id && !packet.is_run());
            let start = packet.frame as usize * FRAME_SIZE;
            (start, FRAME_SIZE, (packet.headroom(), with))
        });
        // SAFETY: no two of the ranges overlap: each is one whole frame, and that of a packet which is
        // not a run is part of no other packet. No two packets are of one frame, as for
        // `each_bytes_mut`.
        let frames = unsafe { self.memory.disjoint_mut(ranges) };
        frames.filter_map(|(range, (offset, with))| Some((range.first_chunk_mut()?, offset, with)))
    }

    /// Grows the packet at the front by `count` octets: what [`Pool::trim_front`] cut off there, else
    /// of unspecified content.
    #[must_use]
    pub fn prepend(&mut self, packet: &mut Packet, count: usize) -> bool {
        let fits = count <= packet.headroom();
        if fits {
            packet.offset -= count as u16;
            packet.length += count as u16;
        }
        fits
    }

    /// Grows the packet at the end by `count` octets of unspecified content. One that outgrows its
    /// frame moves into a run, if one is free.
    #[must_use]
    pub fn append(&mut self, packet: &mut Packet, count: usize) -> bool {
        let fits = count <= packet.tailroom() || self.outgrow(packet, count);
        if fits {
            packet.length += count as u16;
        }
        fits
    }

    /// Moves a packet into a run with room for `count` octets behind it: rare, for it takes a
    /// packet that nearly fills its frame and a link whose frames are larger.
    #[cold]
    fn outgrow(&mut self, packet: &mut Packet, count: usize) -> bool {
        if packet.is_run() || count > LARGEST_IN_RUN - packet.len() {
            return false;
        }
        let Some(mut run) = self.allocate_run() else {
            return false;
        };
        run.length = packet.length;
        self.memory
            .copy(packet.address(), run.address(), packet.len());
        let frame = std::mem::replace(packet, run);
        self.free(frame);
        true
    }

    /// Moves what a frame holds out of a run, if a frame is free.
    pub(crate) fn shrink(&mut self, packet: &mut Packet) {
        if !packet.is_run() || packet.len() > LARGEST_IN_FRAME {
            return;
        }
        if let Some(mut frame) = self.allocate() {
            frame.length = packet.length;
            self.memory
                .copy(packet.address(), frame.address(), packet.len());
            let run = std::mem::replace(packet, frame);
            self.free(run);
        }
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
mod tests;
