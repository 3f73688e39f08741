//! Which frames of the pool this port's rings hold, and as what.
//!
//! The kernel names frames by address. Nothing that it names is believed unless the ledger says
//! that it holds that frame: so a repeated completion or a made-up address cannot turn one frame
//! into two packets, and the count of frames held is exact.

use super::ring::Descriptor;
use crate::pool::{FRAME_SIZE, FrameIndex};

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
    /// A packet in a frame that was ours to receive into.
    Packet(Place),
    /// A frame of ours, but no packet that lies within it: the frame is free again.
    Empty(FrameIndex),
    /// No frame that the ring holds.
    Unknown,
}

/// The frames of a pool, each with its holder.
#[derive(Debug)]
pub struct Ledger {
    holders: Vec<Holder>,
    receiving: usize,
    transmitting: usize,
}

impl Ledger {
    /// A ledger for a pool of `frames` frames, none of them held.
    pub fn new(frames: usize) -> Ledger {
        Ledger {
            holders: vec![Holder::Elsewhere; frames],
            receiving: 0,
            transmitting: 0,
        }
    }

    /// Frames in the fill and receive rings.
    pub fn receiving(&self) -> usize {
        self.receiving
    }

    /// Frames in the transmit and completion rings.
    pub fn transmitting(&self) -> usize {
        self.transmitting
    }

    /// Notes that the fill ring now holds a frame.
    pub fn fill(&mut self, frame: FrameIndex) {
        self.hold(frame, Holder::Receive);
        self.receiving += 1;
    }

    /// Notes that the transmit ring now holds a frame.
    pub fn transmit(&mut self, frame: FrameIndex) {
        self.hold(frame, Holder::Transmit);
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
        let continues = descriptor.options & libc::XDP_PKT_CONTD != 0;
        if length > FRAME_SIZE - offset || continues {
            return Received::Empty(frame);
        }
        Received::Packet(Place {
            frame,
            offset,
            length,
        })
    }

    /// Reads an address of the completion ring: the frame that is free again.
    pub fn completed(&mut self, address: u64) -> Option<FrameIndex> {
        let (frame, _) = self.take(address, Holder::Transmit)?;
        self.transmitting -= 1;
        Some(frame)
    }

    /// Takes all frames back from the fill ring of a socket that was never bound.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn descriptor(address: u64, length: u32) -> Descriptor {
        Descriptor {
            address,
            length,
            options: 0,
        }
    }

    #[test]
    fn a_frame_comes_back_once() {
        let mut ledger = Ledger::new(4);
        ledger.fill(3);
        ledger.transmit(2);
        assert_eq!((ledger.receiving(), ledger.transmitting()), (1, 1));
        let place = Place {
            frame: 3,
            offset: 256,
            length: 60,
        };
        let received = descriptor(3 * 2048 + 256, 60);
        assert_eq!(ledger.received(received), Received::Packet(place));
        assert_eq!(ledger.received(received), Received::Unknown);
        assert_eq!(ledger.completed(3 * 2048), None);
        assert_eq!(ledger.completed(2 * 2048 + 100), Some(2));
        assert_eq!(ledger.completed(2 * 2048 + 100), None);
        assert_eq!((ledger.receiving(), ledger.transmitting()), (0, 0));
    }

    #[test]
    fn a_packet_that_leaves_its_frame_or_continues_in_another_is_none() {
        let mut ledger = Ledger::new(1);
        for (length, options, good) in [
            (1792, 0, true),
            (1793, 0, false),
            (u32::MAX, 0, false),
            (60, libc::XDP_PKT_CONTD, false),
        ] {
            ledger.fill(0);
            let received = ledger.received(Descriptor {
                address: 256,
                length,
                options,
            });
            assert_eq!(matches!(received, Received::Packet(_)), good);
            assert_eq!(received == Received::Empty(0), !good);
        }
        assert_eq!(ledger.receiving(), 0);
    }

    proptest! {
        /// No kernel can make the ledger lose count, or place a packet outside its frame.
        #[test]
        fn whatever_the_kernel_says_the_count_is_exact(
            words in prop::collection::vec(
                (any::<bool>(), prop_oneof![0_u64..16 * 2048, any::<u64>()], any::<u32>()),
                0..64,
            ),
        ) {
            let mut ledger = Ledger::new(16);
            for frame in 0..8 {
                ledger.fill(frame);
                ledger.transmit(frame + 8);
            }
            let mut back = 0;
            for (receive, address, length) in words {
                if !receive {
                    back += usize::from(ledger.completed(address).is_some());
                    continue;
                }
                match ledger.received(descriptor(address, length % 4096)) {
                    Received::Packet(place) => {
                        prop_assert!(place.offset + place.length <= FRAME_SIZE);
                        prop_assert!(place.frame < 8);
                        back += 1;
                    }
                    Received::Empty(_) => back += 1,
                    Received::Unknown => {}
                }
            }
            prop_assert_eq!(ledger.receiving() + ledger.transmitting() + back, 16);
        }
    }
}
