//! Which frames of the pool this port's rings hold, and as what.
//!
//! The kernel names frames by address. Nothing that it names is believed unless the ledger says
//! that it holds that frame: so a repeated completion or a made-up address cannot turn one frame
//! into two packets, and the count of frames held is exact.
//!
//! A run of frames is sent as one descriptor for each of its frames that the packet touches, and is
//! held until the last of them has come back.

use super::ring::Descriptor;
use crate::pool::{FRAME_SIZE, FrameIndex, Packet, Pool, RUN_FRAMES};

/// Descriptors of one packet at most.
pub const PARTS: usize = RUN_FRAMES;

/// Who holds a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    /// Not this port.
    Elsewhere,
    /// The fill or receive ring.
    Receive,
    /// The transmit or completion ring.
    Transmit,
}

/// A received packet's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub frame: FrameIndex,
    pub offset: usize,
    pub length: usize,
}

/// What a descriptor on the receive ring turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// A packet, or a part of one, in a frame that was ours to receive into.
    Packet(Place),
    /// A frame of ours, but no packet that lies within it: the frame is free again.
    Empty(FrameIndex),
    /// No frame that the ring holds.
    Unknown,
}

/// What an address on the completion ring turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completed {
    /// This frame, or the run that begins with it, is free again.
    Packet(FrameIndex),
    /// A part of a packet of which other parts are still being sent.
    Part,
    /// No frame that the ring holds.
    Unknown,
}

/// The frames of a pool, each with its holder.
#[derive(Debug)]
pub struct Ledger {
    holders: Vec<Holder>,
    /// The first frame that is part of a run.
    runs: usize,
    /// Of each run, how many frames are being sent.
    unsent: Vec<u8>,
    receiving: usize,
    transmitting: usize,
}

impl Ledger {
    /// A ledger for a pool, with nothing held.
    pub fn new(pool: &Pool) -> Ledger {
        Ledger {
            holders: vec![Holder::Elsewhere; pool.frames_in_all()],
            runs: pool.frames(),
            unsent: vec![0; pool.runs()],
            receiving: 0,
            transmitting: 0,
        }
    }

    /// Frames in the fill and receive rings.
    pub fn receiving(&self) -> usize {
        self.receiving
    }

    /// Packets in the transmit and completion rings.
    pub fn transmitting(&self) -> usize {
        self.transmitting
    }

    /// Notes that the fill ring now holds a frame.
    pub fn fill(&mut self, frame: FrameIndex) {
        self.hold(frame, Holder::Receive);
        self.receiving += 1;
    }

    /// Notes that the transmit ring now holds a packet, which is to be sent as these descriptors.
    pub fn transmit(&mut self, packet: Packet, parts: &[Descriptor]) {
        for part in parts {
            let frame = part.address / FRAME_SIZE as u64;
            self.hold(frame as FrameIndex, Holder::Transmit);
        }
        let first = packet.into_frame() as usize;
        if let Some(behind) = first.checked_sub(self.runs) {
            self.unsent[behind / RUN_FRAMES] = parts.len() as u8;
        }
        self.transmitting += 1;
    }

    fn hold(&mut self, frame: FrameIndex, holder: Holder) {
        let entry = &mut self.holders[frame as usize];
        debug_assert_eq!(*entry, Holder::Elsewhere, "frame {frame} is held twice");
        *entry = holder;
    }

    /// Reads a descriptor of the receive ring.
    pub fn received(&mut self, descriptor: Descriptor) -> Received {
        let Some((frame, offset)) = self.take(descriptor.address, Holder::Receive) else {
            return Received::Unknown;
        };
        self.receiving -= 1;
        let length = descriptor.length as usize;
        if length > FRAME_SIZE - offset {
            return Received::Empty(frame);
        }
        Received::Packet(Place {
            frame,
            offset,
            length,
        })
    }

    /// Reads an address of the completion ring.
    pub fn completed(&mut self, address: u64) -> Completed {
        let Some((frame, _)) = self.take(address, Holder::Transmit) else {
            return Completed::Unknown;
        };
        let mut first = frame;
        if let Some(behind) = (frame as usize).checked_sub(self.runs) {
            let unsent = &mut self.unsent[behind / RUN_FRAMES];
            *unsent -= 1;
            if *unsent > 0 {
                return Completed::Part;
            }
            first = frame - (behind % RUN_FRAMES) as FrameIndex;
        }
        self.transmitting -= 1;
        Completed::Packet(first)
    }

    /// Takes all frames back from the receive side of a socket that was never bound, or is closed.
    pub fn unfill(&mut self) -> Vec<FrameIndex> {
        self.receiving = 0;
        let mut frames = Vec::new();
        for (frame, holder) in self.holders.iter_mut().enumerate() {
            if *holder == Holder::Receive {
                *holder = Holder::Elsewhere;
                frames.push(frame as FrameIndex);
            }
        }
        frames
    }

    fn take(&mut self, address: u64, holder: Holder) -> Option<(FrameIndex, usize)> {
        let size = FRAME_SIZE as u64;
        let frame = usize::try_from(address / size).ok()?;
        let entry = self.holders.get_mut(frame)?;
        if *entry != holder {
            return None;
        }
        *entry = Holder::Elsewhere;
        Some((frame as FrameIndex, (address % size) as usize))
    }
}

/// The descriptors that send a packet: one for each frame that it touches.
pub fn parts(packet: &Packet) -> smallvec::SmallVec<[Descriptor; PARTS]> {
    let end = packet.address() + packet.len();
    let mut parts = smallvec::SmallVec::new();
    let mut address = packet.address();
    while address < end {
        let next = end.min((address / FRAME_SIZE + 1) * FRAME_SIZE);
        parts.push(Descriptor {
            address: address as u64,
            length: (next - address) as u32,
            options: if next < end { libc::XDP_PKT_CONTD } else { 0 },
        });
        address = next;
    }
    parts
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
