//! What an operator watches of single packets: a trace of the way of the next few (`trace.rs`) and
//! copies of them (`capture.rs`). Both belong to the control thread, which makes them with all the
//! memory that they ever need, and which gets them back to drop.
//!
//! While nothing is watched the path pays for one flag, looked at between the passes over a burst
//! and where a packet leaves the usual way (drop, punt, park): never once for each packet that
//! simply goes through.

pub mod capture;
pub mod trace;

use hitless_sa::{Instant, Mode, SequenceNumber, Spi};

use crate::flow::Flow;
use crate::frames::Frames;
use crate::path::{Departure, Opening, Sealing, Sorted, Wrapped};
use crate::pool::{Packet, Pool};
use crate::port::Burst;
use crate::verdict::DropReason;
use crate::wire::ethernet;
use crate::wire::udp::NAT_PORT;
use crate::worker::Worker;

use capture::{Place, Tap};
use trace::{Stage, Tracer};

/// What goes back to the control thread.
pub enum Watched {
    Trace(Box<Tracer>),
    Capture(Box<Tap>),
}

/// What is watched on one worker.
#[derive(Default)]
pub(crate) struct Watch {
    /// Whether there is anything to do: the one flag that the path looks at.
    pub(crate) on: bool,
    now: Instant,
    trace: Option<Box<Tracer>>,
    capture: Option<Box<Tap>>,
}

impl Watch {
    /// Begins or ends a trace; gives back the one before.
    pub(crate) fn set_trace(&mut self, trace: Option<Box<Tracer>>) -> Option<Watched> {
        let old = std::mem::replace(&mut self.trace, trace);
        self.on = self.trace.is_some() || self.capture.is_some();
        old.map(Watched::Trace)
    }

    /// Begins or ends a capture; gives back the one before.
    pub(crate) fn set_capture(&mut self, capture: Option<Box<Tap>>) -> Option<Watched> {
        let old = std::mem::replace(&mut self.capture, capture);
        self.on = self.trace.is_some() || self.capture.is_some();
        old.map(Watched::Capture)
    }

    pub(crate) fn set_time(&mut self, now: Instant) {
        self.now = now;
    }

    fn note(&mut self, packet: &Packet, stage: Stage) {
        if let Some(trace) = &mut self.trace {
            trace.note(packet.frame(), self.now, stage);
        }
    }

    /// A packet that ends here for this reason.
    pub(crate) fn dropped(&mut self, pool: &Pool, packet: &Packet, reason: DropReason) {
        self.note(packet, Stage::Dropped(reason));
        if let Some(capture) = &mut self.capture {
            let octets = pool.bytes(packet);
            capture.take(self.now, Place::Dropped(reason), None, octets);
        }
    }

    /// A packet that goes to the control thread.
    pub(crate) fn punted(&mut self, packet: &Packet) {
        self.note(packet, Stage::Punted);
    }

    /// A packet that waits for its SA's high water.
    pub(crate) fn parked(&mut self, packet: &Packet) {
        self.note(packet, Stage::Parked);
    }

    /// A packet that waits for its next hop's Ethernet address.
    pub(crate) fn held(&mut self, packet: &Packet) {
        self.note(packet, Stage::Held);
    }

    /// Frames that are given to a port.
    pub(crate) fn sent(&mut self, pool: &Pool, port: usize, protected: bool, burst: &Burst) {
        for packet in burst.iter() {
            let length = packet.len();
            self.note(packet, Stage::Sent { port, length });
            if let Some(capture) = &mut self.capture
                && !protected
            {
                let octets = pool.bytes(packet);
                capture.take(self.now, Place::Sent { port }, None, octets);
            }
        }
    }
}

/// The hooks of the path: each is called between two passes over a burst, while something is
/// watched.
impl Worker {
    /// Frames that a port has brought.
    pub(crate) fn watch_received(&mut self, now: Instant, port: usize, burst: &Burst) {
        let protected = self.links.is_protected(port);
        let Frames { pool, watch, .. } = &mut self.frames;
        watch.now = now;
        for packet in burst.iter() {
            let octets = pool.bytes(packet);
            if let Some(trace) = &mut watch.trace {
                trace.begin(packet.frame(), now, port, octets);
            }
            if let Some(capture) = &mut watch.capture
                && !protected
            {
                capture.take(now, Place::Received { port }, None, octets);
            }
        }
    }

    /// What the packets of a burst are.
    pub(crate) fn watch_sorted(&mut self, sorted: &Sorted) {
        let Frames { pool, watch, .. } = &mut self.frames;
        for packet in sorted.arriving() {
            let words = pool.bytes(packet).first_chunk::<8>();
            let (spi, low) = words.map_or((0, 0), |w| {
                let [s0, s1, s2, s3, n0, n1, n2, n3] = *w;
                (
                    u32::from_be_bytes([s0, s1, s2, s3]),
                    u32::from_be_bytes([n0, n1, n2, n3]),
                )
            });
            watch.note(packet, Stage::Esp { spi: Spi(spi), low });
        }
    }

    /// What policy will say to packets that want to leave.
    pub(crate) fn watch_departures(&mut self, departures: &[Departure]) {
        let watch = &mut self.frames.watch;
        for Departure { packet, flow } in departures {
            watch.note(packet, Stage::Flow(*flow));
            watch.note(packet, Stage::Policy(self.spd.outbound(flow)));
        }
    }

    /// Packets whose SA and number are known and new.
    pub(crate) fn watch_openings(&mut self, openings: &[Opening]) {
        for opening in openings {
            let Some(sa) = self.sad.inbound_in_slot(opening.slot) else {
                continue;
            };
            let watch = &mut self.frames.watch;
            watch.note(&opening.arrival.packet, Stage::InboundSa(sa.id));
            watch.note(&opening.arrival.packet, Stage::Fresh(opening.number));
        }
    }

    /// Packets that have been through the AEAD.
    pub(crate) fn watch_opened(&mut self, openings: &[Opening]) {
        let Frames { pool, watch, .. } = &mut self.frames;
        for opening in openings.iter().filter(|opening| opening.verified) {
            watch.note(&opening.arrival.packet, Stage::Verified);
            let sa = self.sad.inbound_in_slot(opening.slot);
            let tunnel = sa.filter(|sa| sa.mode == Mode::Tunnel);
            let (Some(sa), Some(capture)) = (tunnel, &mut watch.capture) else {
                continue;
            };
            let esp = pool.bytes(&opening.arrival.packet);
            if let Some(inner) = capture::inner(sa.key.suite(), esp) {
                let number = Some((sa.id, opening.number));
                capture.take(watch.now, Place::Opened, number, inner);
            }
        }
    }

    /// Packets that have an SA and a way.
    pub(crate) fn watch_sealings(&mut self, sealings: &[Sealing]) {
        for sealing in sealings {
            let Some(sa) = self.sad.outbound_mut(sealing.slot) else {
                continue;
            };
            let watch = &mut self.frames.watch;
            watch.note(&sealing.packet, Stage::OutboundSa(sa.id));
            let (port, next_hop) = (sealing.port, sealing.next_hop);
            watch.note(&sealing.packet, Stage::Way { port, next_hop });
        }
    }

    /// Packets that have a number and are not encrypted yet.
    pub(crate) fn watch_wrapped(&mut self, wrapped: &[Wrapped]) {
        let Frames { pool, watch, .. } = &mut self.frames;
        for one in wrapped {
            let packet = &one.sealing.packet;
            watch.note(packet, Stage::Drawn(one.number));
            let sa = self.sad.outbound_mut(one.sealing.slot);
            let tunnel = sa.filter(|sa| sa.mode == Mode::Tunnel);
            let (Some(sa), Some(capture)) = (tunnel, &mut watch.capture) else {
                continue;
            };
            if let Some(inner) = capture::inner(sa.key.suite(), pool.bytes(packet)) {
                let number = Some((sa.id, one.number));
                capture.take(watch.now, Place::Sealing, number, inner);
            }
        }
    }

    /// Packets that have been encrypted.
    pub(crate) fn watch_sealed(&mut self, wrapped: &[Wrapped]) {
        let watch = &mut self.frames.watch;
        for one in wrapped.iter().filter(|one| one.sealed) {
            watch.note(&one.sealing.packet, Stage::Sealed);
        }
    }
}

/// What a frame is to whoever looks for one SA's packets.
pub enum Seen {
    /// ESP, with its SPI and the low half of its number.
    Esp(Spi, u32),
    Clear(Flow),
    Other,
}

/// Reads a frame or a packet that begins with its IP header. A parser of its own: the path's takes
/// packets apart on their way, this one looks at them at any time.
pub fn look(octets: &[u8], ethernet: bool) -> Seen {
    let packet = match ethernet {
        true => octets.get(ethernet::HEADER..).unwrap_or_default(),
        false => octets,
    };
    let (protocol, payload) = match packet.first().map(|first| first >> 4) {
        Some(4) => {
            let header = packet
                .first()
                .map_or(0, |first| usize::from(first & 15) * 4);
            (packet.get(9).copied(), packet.get(header..))
        }
        Some(6) => (packet.get(6).copied(), packet.get(40..)),
        _ => return Seen::Other,
    };
    const ESP: u8 = 50;
    const UDP: u8 = 17;
    let payload = payload.unwrap_or_default();
    let esp = match (protocol, payload) {
        (Some(ESP), esp) => Some(esp),
        (Some(UDP), [s0, s1, d0, d1, _, _, _, _, esp @ ..]) => {
            let ports = [
                u16::from_be_bytes([*s0, *s1]),
                u16::from_be_bytes([*d0, *d1]),
            ];
            ports.contains(&NAT_PORT).then_some(esp)
        }
        _ => None,
    };
    match esp {
        Some([s0, s1, s2, s3, n0, n1, n2, n3, ..]) if [*s0, *s1, *s2, *s3] != [0; 4] => Seen::Esp(
            Spi(u32::from_be_bytes([*s0, *s1, *s2, *s3])),
            u32::from_be_bytes([*n0, *n1, *n2, *n3]),
        ),
        _ => Flow::parse(packet).map_or(Seen::Other, Seen::Clear),
    }
}

/// An SA and the number of one of its packets.
pub(crate) type Numbered = (hitless_sa::SaId, SequenceNumber);
