//! Copies of packets for a capture file. The worker fills a ring of fixed slots; when it is full the
//! copy is not made, and counted: a capture never holds traffic up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hitless_sa::{EspSuite, Instant, SaId, SequenceNumber};
use rtrb::{Consumer, Producer, RingBuffer};

use super::Numbered;
use super::trace::SaFilter;
use crate::verdict::DropReason;

/// Octets of a packet that are kept.
pub const SNAP: usize = 2048;
/// Packets that wait for the control thread.
pub const CAPACITY: usize = 1024;

/// Where a packet was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// A frame that a port of the unprotected side brought.
    Received { port: usize },
    /// A frame that was given to one.
    Sent { port: usize },
    /// An inner packet that has just been decrypted.
    Opened,
    /// An inner packet that is about to be encrypted.
    Sealing,
    /// A frame, an IP packet or ESP, as far as it came before it was dropped.
    Dropped(DropReason),
}

/// A copy.
#[derive(Clone)]
pub struct Captured {
    pub at: Instant,
    pub place: Place,
    /// The SA and the full number, where they are known.
    pub sa: Option<(SaId, SequenceNumber)>,
    /// Octets of the packet; the copy may be shorter.
    pub length: usize,
    kept: usize,
    octets: [u8; SNAP],
}

impl Captured {
    /// The copy.
    pub fn octets(&self) -> &[u8] {
        self.octets.get(..self.kept).unwrap_or_default()
    }
}

/// Which packets are copied.
#[derive(Clone, Default, Debug)]
pub struct Choice {
    /// Frames on the unprotected side, and what was dropped of them that nobody decrypted.
    pub outer: bool,
    /// Inner packets, and whatever was dropped.
    pub inner: bool,
    /// Frames of this port only; inner packets have none.
    pub port: Option<usize>,
    /// Packets of one SA only.
    pub sa: Option<(SaId, SaFilter)>,
}

/// A worker's end of a capture.
pub struct Tap {
    choice: Choice,
    left: u64,
    packets: Producer<Captured>,
    lost: Arc<AtomicU64>,
}

/// The control thread's end.
pub struct Captures {
    packets: Consumer<Captured>,
    lost: Arc<AtomicU64>,
}

/// A capture of at most `count` packets.
pub fn capture(count: u64, choice: Choice) -> (Box<Tap>, Captures) {
    let (producer, consumer) = RingBuffer::new(CAPACITY);
    let lost = Arc::<AtomicU64>::default();
    let tap = Tap {
        choice,
        left: count,
        packets: producer,
        lost: Arc::clone(&lost),
    };
    let captures = Captures {
        packets: consumer,
        lost,
    };
    (Box::new(tap), captures)
}

impl Captures {
    /// The oldest copy that has not been taken.
    pub fn next_packet(&mut self) -> Option<Captured> {
        self.packets.pop().ok()
    }

    /// Packets that were not copied for want of room.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Tap {
    pub(super) fn take(&mut self, at: Instant, place: Place, sa: Option<Numbered>, octets: &[u8]) {
        if self.left == 0 || !self.wants(place, sa, octets) {
            return;
        }
        let kept = octets.len().min(SNAP);
        let mut copy = [0; SNAP];
        if let (Some(to), Some(from)) = (copy.get_mut(..kept), octets.get(..kept)) {
            to.copy_from_slice(from);
        }
        let captured = Captured {
            at,
            place,
            sa,
            length: octets.len(),
            kept,
            octets: copy,
        };
        match self.packets.push(captured) {
            Ok(()) => self.left -= 1,
            Err(_) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn wants(&self, place: Place, sa: Option<Numbered>, octets: &[u8]) -> bool {
        let (side, port) = match place {
            Place::Received { port } | Place::Sent { port } => (self.choice.outer, Some(port)),
            Place::Opened | Place::Sealing => (self.choice.inner, None),
            Place::Dropped(reason) => (self.choice.inner || is_sealed(reason), None),
        };
        let here = match (self.choice.port, port) {
            (Some(wanted), Some(port)) => wanted == port,
            _ => true,
        };
        let of_sa = match (&self.choice.sa, sa) {
            (None, _) => true,
            (Some((wanted, _)), Some((sa, _))) => *wanted == sa,
            (Some((_, filter)), None) => {
                let frame = matches!(place, Place::Received { .. } | Place::Sent { .. });
                filter.matches(octets, frame) || (!frame && filter.matches(octets, true))
            }
        };
        side && here && of_sa
    }
}

/// Whether what is dropped for this reason has never been anything but a packet of the unprotected
/// side, as it came. Behind a wrong ICV may be the right text, and behind the others a text in clear.
fn is_sealed(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::Runt
            | DropReason::SpiZero
            | DropReason::UnknownSpi
            | DropReason::ClearText
            | DropReason::PathMtu
            | DropReason::IcmpRefused
            | DropReason::PuntFull
            | DropReason::PuntStranger
    )
}

/// The inner packet in the ESP of a tunnel, as long as it is not encrypted: as much of the text as
/// its own IP header says.
pub(super) fn inner(suite: EspSuite, esp: &[u8]) -> Option<&[u8]> {
    const HEADER: usize = 8;
    let text = esp.get(HEADER + suite.iv_length()..)?;
    let length = match (text.first()? >> 4, text) {
        (4, [_, _, l0, l1, ..]) => usize::from(u16::from_be_bytes([*l0, *l1])),
        (6, [_, _, _, _, l0, l1, ..]) => 40 + usize::from(u16::from_be_bytes([*l0, *l1])),
        _ => return None,
    };
    text.get(..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_bounded_and_what_it_misses_is_counted() {
        let choice = Choice {
            outer: true,
            ..Choice::default()
        };
        let (mut tap, mut captures) = capture(5000, choice);
        let place = Place::Received { port: 0 };
        for _ in 0..CAPACITY + 3 {
            tap.take(Instant(1), place, None, &[7; 3000]);
        }
        assert_eq!(captures.lost(), 3);
        let first = captures.next_packet().unwrap();
        assert_eq!((first.length, first.octets().len()), (3000, SNAP));
        tap.take(Instant(1), Place::Opened, None, &[7; 60]);
        assert_eq!(captures.lost(), 3, "inner packets are not wanted");
    }

    #[test]
    fn without_inner_packets_nothing_is_taken_that_was_dropped_in_clear() {
        for (inner, all) in [(false, false), (true, true)] {
            let choice = Choice {
                outer: true,
                inner,
                ..Choice::default()
            };
            let (mut tap, mut captures) = capture(5000, choice);
            for reason in DropReason::ALL {
                tap.take(Instant(1), Place::Dropped(*reason), None, &[7; 60]);
            }
            let taken: Vec<Place> =
                std::iter::from_fn(|| captures.next_packet().map(|p| p.place)).collect();
            for reason in [
                DropReason::SelectorMismatch,
                DropReason::Dummy,
                DropReason::Integrity,
                DropReason::Replay,
                DropReason::NoSa,
                DropReason::Malformed,
            ] {
                assert_eq!(taken.contains(&Place::Dropped(reason)), all);
            }
            assert!(taken.contains(&Place::Dropped(DropReason::UnknownSpi)));
        }
    }

    #[test]
    fn no_more_are_taken_than_were_asked_for() {
        let choice = Choice {
            outer: true,
            port: Some(1),
            ..Choice::default()
        };
        let (mut tap, mut captures) = capture(2, choice);
        for port in [0, 1, 0, 1, 1] {
            tap.take(Instant(1), Place::Sent { port }, None, &[7; 60]);
        }
        let taken: Vec<Place> =
            std::iter::from_fn(|| captures.next_packet().map(|p| p.place)).collect();
        assert_eq!(taken, [Place::Sent { port: 1 }; 2]);
        assert_eq!(captures.lost(), 0);
    }
}
