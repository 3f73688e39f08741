//! The lane from ESP to the inner packet (RFC 4301 section 5.2, RFC 4303 section 3.4), in three passes
//! like the plain way. Nothing is changed by a packet until all is known about it, so that one which
//! turns out odd goes on by the steps of the plain way as if it had come there.

use std::net::IpAddr;

use hitless_sa::{Instant, Mode, SequenceNumber};
use smallvec::SmallVec;

use super::egress::Egress;
use super::front::Outer;
use super::inner::{Ends, Inner};
use super::{Entering, Enterings, Rest};
use crate::aead::{self, Job};
use crate::esp;
use crate::flow::Flow;
use crate::path::inbound::{Opening, moved};
use crate::path::{Arrival, Departure, Sorted};
use crate::pool::Packet;
use crate::port::BURST;
use crate::sad::InboundSa;
use crate::wire::ethernet;
use crate::wire::ip::decrement_hops;
use crate::worker::Worker;

/// A packet whose SA and number are known. It is still the frame that came.
struct Candidate {
    packet: Packet,
    outer: Outer,
    slot: u32,
    number: SequenceNumber,
    high: Option<u32>,
    verified: bool,
}

type Candidates = SmallVec<[Candidate; BURST]>;

/// Where the last packet went: most go where the one before went.
type LastWay = Option<(Ends, Egress)>;

/// What one SA's packets in a row come to.
#[derive(Default)]
struct Tally {
    packets: usize,
    octets: usize,
}

impl Worker {
    /// Takes what it can; the rest goes the plain way as it came. What turns out odd after it has been
    /// decrypted goes on by the steps of the plain way.
    pub(super) fn express_inbound(
        &mut self,
        now: Instant,
        entering: &mut Enterings,
        sorted: &mut Sorted,
        rest: &mut Rest,
    ) {
        // 1. The SA, the number, the replay check.
        let slots = self.slots_entering(entering);
        let mut candidates = Candidates::new();
        for (entering, slot) in entering.drain(..).zip(slots) {
            match self.candidate(&entering, slot) {
                Some((number, high)) if !rest.wants(entering.place) => candidates.push(Candidate {
                    packet: entering.packet,
                    outer: entering.outer,
                    slot,
                    number,
                    high,
                    verified: false,
                }),
                _ => rest.take(entering.packet, entering.place),
            }
        }
        // 2. ICV and decryption, in one go.
        self.open_candidates(&mut candidates);
        // 3. What an authentic packet changes, and where it goes.
        let (mut all, mut run) = (Tally::default(), Tally::default());
        let mut last_way = None;
        let mut slot = candidates.first().map_or(0, |first| first.slot);
        for mut candidate in candidates.drain(..) {
            if candidate.slot != slot {
                self.end_run(now, slot, &mut run, &mut all);
                slot = candidate.slot;
            }
            match self.clear(now, &mut candidate, &mut last_way) {
                Some((port, octets)) => {
                    run.packets += 1;
                    run.octets += octets;
                    self.links.queue(&mut self.frames, port, candidate.packet);
                }
                None => self.accept_plainly(now, candidate, &mut sorted.departures),
            }
        }
        self.end_run(now, slot, &mut run, &mut all);
        self.frames.counters.count_opened(all.packets, all.octets);
    }

    /// The slots that the packets name. What their SAs consist of is asked for all at once, in steps,
    /// for each says where the next one is.
    fn slots_entering(&self, entering: &Enterings) -> SmallVec<[u32; BURST]> {
        // No slot is that high.
        const NONE: (u32, u32) = (0, u32::MAX);
        let mut slots: SmallVec<[u32; BURST]> = SmallVec::new();
        // Those that differ from the one before, and whose packet it was.
        let mut each: SmallVec<[(u32, &Entering); BURST]> = SmallVec::new();
        let mut last = NONE;
        for packet in entering {
            let spi = packet.outer.spi;
            if spi != last.0 {
                let slot = self.sad.slot_of_spi(hitless_sa::Spi(spi));
                last = (spi, slot.unwrap_or(NONE.1));
                self.sad.prefetch_slot(last.1);
                self.prefetch_use(last.1);
                each.push((last.1, packet));
            }
            slots.push(last.1);
        }
        // Of one SA everything is at hand since the last burst.
        if each.len() > 1 {
            for (slot, _) in &each {
                self.sad.prefetch_inbound(*slot);
            }
            for (slot, packet) in &each {
                if let (Some(sa), Some(esp)) = (self.sad.inbound_in(*slot), self.esp(packet)) {
                    sa.prefetch_rest(esp.len(), esp::low(esp));
                }
            }
        }
        slots
    }

    /// The ESP packet in a frame.
    #[inline]
    fn esp(&self, entering: &Entering) -> Option<&[u8]> {
        entering.outer.esp(self.frames.pool.bytes(&entering.packet))
    }

    /// Pass 1: the number of a packet, and its high half if the ICV covers that.
    #[inline]
    fn candidate(&self, entering: &Entering, slot: u32) -> Option<(SequenceNumber, Option<u32>)> {
        let sa = self.sad.inbound_in(slot)?;
        // Of one that was taken over the plain way knows more.
        let usual = sa.mode == Mode::Tunnel && !sa.copies_dscp() && !sa.is_below_floor();
        if !usual {
            return None;
        }
        let esp = self.esp(entering)?;
        let number = esp::number(esp, sa.key.suite(), &sa.window, sa.esn).ok()?;
        Some((number, esp::high(number, sa.esn)))
    }

    /// Pass 2: verifies and decrypts (RFC 4303 section 3.4.4).
    fn open_candidates(&mut self, candidates: &mut Candidates) {
        let Worker { sad, frames, .. } = self;
        let packets = candidates.iter_mut().map(|candidate| {
            let Candidate {
                packet,
                outer,
                slot,
                high,
                verified,
                ..
            } = candidate;
            (packet, (*outer, *slot, *high, verified))
        });
        let each = frames.pool.each_bytes_mut(packets);
        aead::open_burst(each.filter_map(|(frame, (outer, slot, high, ok))| {
            let key = sad.opening_key(slot)?;
            let esp = frame.get_mut(outer.range())?;
            Some(Job { key, esp, high, ok })
        }));
    }

    /// Pass 3: makes a packet the frame that leaves, unless there is anything odd about it. Gives the
    /// port, and the octets of the inner packet.
    #[inline]
    fn clear(
        &mut self,
        now: Instant,
        candidate: &mut Candidate,
        last_way: &mut LastWay,
    ) -> Option<(usize, usize)> {
        let sa = self.sad.inbound_in(candidate.slot)?;
        let frame = self.frames.pool.bytes(&candidate.packet);
        let inner = inner(sa, candidate, frame)?;
        let way = match last_way {
            Some((ends, way)) if *ends == inner.ends => *way,
            _ => self.way_of(now, &inner.ends, last_way)?,
        };
        if inner.length > way.mtu {
            return None;
        }
        // Check-and-mark (rule R8). Seen already, in this burst, it goes the plain way, to be counted.
        let number = candidate.number;
        let sa = self.sad.inbound_in_slot(candidate.slot)?;
        if !sa.window.mark(number) {
            return None;
        }
        sa.authenticated = sa.authenticated.max(number);
        // TTL, and Ethernet where the IV was.
        let start = usize::from(candidate.outer.headers) + esp::prefix(sa.key.suite());
        let (packet, octets) = (&mut candidate.packet, usize::from(inner.length));
        let cut = self
            .frames
            .pool
            .trim_front(packet, start.saturating_sub(ethernet::HEADER))
            && self.frames.pool.truncate(packet, ethernet::HEADER + octets);
        let frame = self.frames.pool.bytes_mut(packet);
        if let Some((header, inner)) = frame.split_first_chunk_mut() {
            *header = way.header;
            let lower = decrement_hops(inner);
            debug_assert!(cut && lower, "the packet has been looked at");
        }
        Some((usize::from(way.port), octets))
    }

    /// The way of packets between these hosts, if it leads to the protected side.
    fn way_of(&mut self, now: Instant, ends: &Ends, last_way: &mut LastWay) -> Option<Egress> {
        let (source, destination) = ends.addresses();
        if !self.addresses.is_between_others(source, destination) {
            return None;
        }
        let (way, _) = self.egress(now, ends.destination)?;
        if !way.protected {
            return None;
        }
        *last_way = Some((*ends, way));
        Some(way)
    }

    /// What is odd about a packet that was decrypted, the plain way finds out.
    #[cold]
    fn accept_plainly(
        &mut self,
        now: Instant,
        candidate: Candidate,
        departures: &mut SmallVec<[Departure; BURST]>,
    ) {
        let Candidate {
            mut packet,
            outer,
            slot,
            number,
            high,
            verified,
        } = candidate;
        let source = outer.source(self.frames.pool.bytes(&packet));
        let headers = usize::from(outer.headers);
        let cut = self.frames.pool.trim_front(&mut packet, headers)
            && self
                .frames
                .pool
                .truncate(&mut packet, usize::from(outer.length));
        debug_assert!(cut, "the front has measured it");
        let arrival = Arrival {
            packet,
            headers: headers.saturating_sub(ethernet::HEADER),
            source,
            port: outer.port(),
            tos: outer.tos,
            hops: 0,
        };
        let opening = Opening {
            arrival,
            slot,
            number,
            high,
            verified,
        };
        self.accept(now, opening, departures);
    }

    /// Counts what came of an SA's packets in a row, and reports the highest authentic number (rule
    /// R8).
    #[inline]
    fn end_run(&mut self, now: Instant, slot: u32, run: &mut Tally, all: &mut Tally) {
        let Some(sa) = self.sad.inbound_in_slot(slot) else {
            return;
        };
        sa.cell.note_inbound_top(sa.authenticated);
        sa.counters.note_window(sa.window.top(), sa.window.lost());
        let Tally { packets, octets } = std::mem::take(run);
        if packets > 0 {
            sa.counters.count_packets(packets, octets);
            sa.last_use = now;
            all.packets += packets;
            all.octets += octets;
            self.note_uses(slot, now, packets as u32);
        }
    }
}

/// What a packet carries, if it is authentic and nothing about it is odd.
#[inline]
fn inner(sa: &InboundSa, candidate: &Candidate, frame: &[u8]) -> Option<Inner> {
    let (outer, number) = (&candidate.outer, candidate.number);
    // Congestion has to be passed on (RFC 6040 section 4.2), and a peer that moved to be told of.
    let odd = !candidate.verified
        || outer.tos & 1 != 0
        || !sa.cell.may_deliver(number)
        || (outer.is_encapsulated()
            && number > sa.window.top()
            && moved(sa, outer.source(frame), outer.port()));
    if odd {
        return None;
    }
    let text = esp::text(outer.esp(frame)?, sa.key.suite());
    let (next_header, payload) = esp::strip_trailer(text).ok()?;
    let octets = text.get(..payload)?;
    let inner = Inner::look(next_header, octets)?;
    // It must be one that this SA may carry (RFC 4301 section 5.2, step 4).
    let allowed = match inner.ends.v4() {
        Some((source, destination)) if sa.allows_usual(source, destination) => true,
        _ => Flow::parse(octets.get(..usize::from(inner.length))?)
            .is_some_and(|flow| sa.allows(&flow)),
    };
    allowed.then_some(inner)
}

impl Outer {
    /// Where ESP lies in the frame.
    #[inline]
    fn range(&self) -> std::ops::Range<usize> {
        let start = usize::from(self.headers);
        start..start + usize::from(self.length)
    }

    /// The ESP packet in the frame.
    #[inline]
    fn esp<'f>(&self, frame: &'f [u8]) -> Option<&'f [u8]> {
        frame.get(self.range())
    }

    /// Who sent the frame, by its outer IP header.
    fn source(&self, frame: &[u8]) -> IpAddr {
        let ip = frame.get(ethernet::HEADER..).unwrap_or_default();
        match self.v6 {
            false => {
                let octets = ip.get(12..).and_then(<[u8]>::first_chunk::<4>);
                octets.copied().unwrap_or_default().into()
            }
            true => {
                let octets = ip.get(8..).and_then(<[u8]>::first_chunk::<16>);
                octets.copied().unwrap_or_default().into()
            }
        }
    }
}
