//! The way of the next packets through the stages, as VPP's `trace add` shows it.
//!
//! The worker writes notes into a ring as long as they can be; the control thread puts those of one
//! packet together. A packet is known by its frame, which is its own from the port to its end.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hitless_sa::{Instant, SaId, SequenceNumber, Spi, TrafficSelector};
use rtrb::{Consumer, Producer, RingBuffer};

use super::{Seen, look};
use crate::flow::Flow;
use crate::pool::FrameIndex;
use crate::spd::Match;
use crate::verdict::DropReason;

/// Packets that one trace can follow on one worker.
pub const MOST: u32 = 1000;
/// Notes that one packet makes, and some more.
const NOTES: usize = 16;

/// What a packet met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    Received {
        port: usize,
        length: usize,
    },
    /// It is ESP for us, with the low half of its number.
    Esp {
        spi: Spi,
        low: u32,
    },
    /// It is clear text that wants to cross to the unprotected side.
    Flow(Flow),
    /// What the SPD says; `None` is the default, to discard.
    Policy(Option<Match>),
    InboundSa(SaId),
    OutboundSa(SaId),
    /// The number that the window inferred, and that it has not seen.
    Fresh(SequenceNumber),
    /// The number that was drawn from the lease.
    Drawn(SequenceNumber),
    /// The ICV is right, the text decrypted.
    Verified,
    /// Below the high water, marked in the window, and what the selectors allow.
    Admitted,
    Sealed,
    Way {
        port: usize,
        next_hop: IpAddr,
    },
    /// Waits for its SA's high water.
    Parked,
    /// Waits for its next hop's Ethernet address.
    Held,
    /// To the control thread.
    Punted,
    Sent {
        port: usize,
        length: usize,
    },
    Dropped(DropReason),
}

impl Stage {
    /// Whether nothing comes after it.
    pub const fn is_last(self) -> bool {
        matches!(self, Stage::Sent { .. } | Stage::Punted | Stage::Dropped(_))
    }
}

/// A stage of one packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Note {
    /// Number of the packet in this trace, from 0.
    pub packet: u32,
    pub at: Instant,
    pub stage: Stage,
}

/// Which packets are followed.
#[derive(Clone, Default, Debug)]
pub struct Filter {
    /// Only those that this port brings.
    pub port: Option<usize>,
    /// Only those of one SA.
    pub sa: Option<SaFilter>,
}

/// What packets of one SA look like.
#[derive(Clone, Debug)]
pub struct SaFilter {
    pub inbound_spi: Spi,
    pub outbound_spi: Spi,
    pub local_ts: Box<[TrafficSelector]>,
    pub remote_ts: Box<[TrafficSelector]>,
}

impl SaFilter {
    /// Whether a frame (or a packet, without Ethernet header) is one of its.
    pub(crate) fn matches(&self, octets: &[u8], ethernet: bool) -> bool {
        match look(octets, ethernet) {
            Seen::Esp(spi, _) => spi == self.inbound_spi || spi == self.outbound_spi,
            Seen::Clear(flow) => {
                flow.matches_outbound(&self.local_ts, &self.remote_ts)
                    || flow.matches_inbound(&self.local_ts, &self.remote_ts)
            }
            Seen::Other => false,
        }
    }
}

/// What a frame carries.
#[derive(Clone, Copy, Default)]
struct Followed {
    /// Number of the packet, and one.
    packet: u32,
    /// It has been decrypted, and no more is known of it yet.
    verified: bool,
}

/// A worker's end of a trace.
pub struct Tracer {
    filter: Filter,
    left: u32,
    next: u32,
    frames: Box<[Followed]>,
    notes: Producer<Note>,
    lost: Arc<AtomicU64>,
}

/// The control thread's end.
pub struct Traces {
    notes: Consumer<Note>,
    lost: Arc<AtomicU64>,
}

/// A trace of the next `packets` packets (at most [`MOST`]) of a worker with so many frames.
pub fn trace(packets: u32, filter: Filter, frames: usize) -> (Box<Tracer>, Traces) {
    let packets = packets.min(MOST);
    let (producer, consumer) = RingBuffer::new(packets.max(1) as usize * NOTES);
    let lost = Arc::<AtomicU64>::default();
    let tracer = Tracer {
        filter,
        left: packets,
        next: 0,
        frames: vec![Followed::default(); frames].into_boxed_slice(),
        notes: producer,
        lost: Arc::clone(&lost),
    };
    let traces = Traces {
        notes: consumer,
        lost,
    };
    (Box::new(tracer), traces)
}

impl Traces {
    /// The oldest note that has not been taken.
    pub fn next_note(&mut self) -> Option<Note> {
        self.notes.pop().ok()
    }

    /// Notes that found no room.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Tracer {
    /// A packet has come. Whatever its frame carried before is over.
    pub(super) fn begin(&mut self, frame: FrameIndex, at: Instant, port: usize, octets: &[u8]) {
        let wanted = self.left > 0
            && self.filter.port.is_none_or(|only| only == port)
            && self
                .filter
                .sa
                .as_ref()
                .is_none_or(|sa| sa.matches(octets, true));
        let Some(followed) = self.frames.get_mut(frame as usize) else {
            return;
        };
        *followed = Followed::default();
        if wanted {
            self.left -= 1;
            self.next += 1;
            followed.packet = self.next;
            let length = octets.len();
            self.note(frame, at, Stage::Received { port, length });
        }
    }

    /// A packet has met something.
    pub(super) fn note(&mut self, frame: FrameIndex, at: Instant, stage: Stage) {
        let Some(followed) = self.frames.get_mut(frame as usize) else {
            return;
        };
        let Some(packet) = followed.packet.checked_sub(1) else {
            return;
        };
        // What goes on after decryption has passed the window and the selectors: nothing else may.
        let went_on = matches!(stage, Stage::Sent { .. } | Stage::Held | Stage::Flow(_));
        let admitted = followed.verified && went_on;
        followed.verified = stage == Stage::Verified;
        if stage.is_last() {
            *followed = Followed::default();
        }
        let mut push = |stage| {
            if self.notes.push(Note { packet, at, stage }).is_err() {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        };
        if admitted {
            push(Stage::Admitted);
        }
        push(stage);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(traces: &mut Traces, packet: u32) -> Vec<Stage> {
        let notes = std::iter::from_fn(|| traces.next_note());
        let notes = notes.filter(|note| note.packet == packet);
        notes.map(|note| note.stage).collect()
    }

    #[test]
    fn only_so_many_packets_are_followed_and_each_to_its_end() {
        let (mut tracer, mut traces) = trace(1, Filter::default(), 4);
        tracer.begin(2, Instant(1), 0, &[0; 60]);
        tracer.begin(3, Instant(1), 0, &[0; 60]);
        tracer.note(3, Instant(1), Stage::Punted);
        tracer.note(2, Instant(1), Stage::Dropped(DropReason::Fragment));
        // The frame carries another packet now.
        tracer.note(2, Instant(2), Stage::Sealed);
        tracer.begin(2, Instant(2), 0, &[0; 60]);
        tracer.note(2, Instant(2), Stage::Sealed);
        let wanted = [
            Stage::Received {
                port: 0,
                length: 60,
            },
            Stage::Dropped(DropReason::Fragment),
        ];
        assert_eq!(stages(&mut traces, 0), wanted);
        assert_eq!(traces.lost(), 0);
    }

    #[test]
    fn what_goes_on_after_decryption_was_admitted_and_what_is_dropped_was_not() {
        let sent = Stage::Sent { port: 1, length: 9 };
        let (mut tracer, mut traces) = trace(2, Filter::default(), 2);
        for (frame, end) in [(0, sent), (1, Stage::Dropped(DropReason::Dummy))] {
            tracer.begin(frame, Instant(1), 0, &[]);
            tracer.note(frame, Instant(1), Stage::Verified);
            tracer.note(frame, Instant(1), end);
        }
        let notes: Vec<Note> = std::iter::from_fn(|| traces.next_note()).collect();
        let admitted = notes.iter().filter(|note| note.stage == Stage::Admitted);
        assert_eq!(admitted.map(|note| note.packet).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn notes_that_find_no_room_are_counted_and_frames_out_of_range_are_not_followed() {
        let (mut tracer, traces) = trace(1, Filter::default(), 1);
        tracer.begin(0, Instant(1), 0, &[]);
        for _ in 0..NOTES {
            tracer.note(0, Instant(1), Stage::Sealed);
        }
        assert_eq!(traces.lost(), 1);
        tracer.begin(7, Instant(1), 0, &[]);
        tracer.note(7, Instant(1), Stage::Sealed);
        assert_eq!(traces.lost(), 1);
    }
}
