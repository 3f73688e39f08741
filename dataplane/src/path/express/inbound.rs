//! The lane from ESP to the inner packet (RFC 4301 section 5.2, RFC 4303 section 3.4), in three passes
//! like the plain way. Nothing is changed by a packet until all is known about it, so that one which
//! turns out odd goes on by the steps of the plain way as if it had come there.

use std::net::IpAddr;

use hitless_sa::{Instant, Mode, SequenceNumber, Spi};
use smallvec::SmallVec;

use super::egress::Egress;
use super::front::{Outer, Sight};
use super::inner::{Ends, Inner};
use super::{Place, Rest};
use crate::aead::{self, EspKey, Job};
use crate::esp;
use crate::flow::Flow;
use crate::path::inbound::{Opening, moved};
use crate::path::{Arrival, Came, Departure, Sorted};
use crate::pool::Packet;
use crate::port::{BURST, Burst};
use crate::sad::InboundSa;
use crate::wire::ethernet;
use crate::wire::ip::decrement_hops;
use crate::worker::Worker;

/// What is known of a packet so far. It is still the frame that came.
#[derive(Clone, Copy, Default)]
pub(super) struct Entry {
    outer: Outer,
    place: Place,
    slot: u32,
    number: SequenceNumber,
    high: Option<u32>,
    /// Whether the lane takes it.
    taken: bool,
    verified: bool,
    /// Whether its number is marked already, and what it carries known.
    marked: bool,
    /// The port that it leaves by.
    port: u16,
}

impl Entry {
    /// Of a packet that is ESP for us, the one at this place in its burst.
    #[inline]
    pub(super) fn look(&mut self, frame: &[u8], sight: &Sight, at: u8, encapsulated: bool) {
        let pair = sight.pair;
        // Nothing of an earlier packet stays, least of all that it was verified.
        *self = Entry {
            outer: sight.outer(frame, encapsulated),
            place: Place { at, pair },
            ..Entry::default()
        };
    }
}

/// Where the last packet went: most go where the one before went.
#[derive(Default)]
struct LastWay {
    ends: Ends,
    /// Of no use while its MTU is 0.
    egress: Egress,
}

/// What has come out: of the SA at hand, and of all.
#[derive(Default)]
struct Tally {
    slot: u32,
    packets: usize,
    octets: usize,
    all: (usize, usize),
}

impl Worker {
    /// Takes what it can of packets of which there is an entry each; the rest goes the plain way as it
    /// came. What turns out odd after it has been decrypted goes on by the steps of the plain way.
    pub(super) fn express_inbound(
        &mut self,
        now: Instant,
        packets: &mut Burst,
        sorted: &mut Sorted,
        rest: &mut Rest,
    ) {
        // 1. The SA, the number, the replay check.
        self.find_receivers(packets);
        if !self.take_all(packets, rest) {
            self.leave_some(packets, rest);
        }
        // 2. ICV and decryption, in one go.
        self.open_all(packets);
        // 3. What an authentic packet changes, and where it goes.
        self.clear_all(now, packets, sorted);
    }

    /// The slots that the packets name. What their SAs consist of is asked for all at once, in steps,
    /// for each says where the next one is.
    fn find_receivers(&mut self, packets: &Burst) {
        // No slot is that high.
        const NONE: (u32, u32) = (0, u32::MAX);
        let Worker {
            sad,
            express,
            schedule,
            frames,
            ..
        } = self;
        // Those that differ from the one before: slot, and whose packet it was.
        let mut each: SmallVec<[(u32, u8); BURST]> = SmallVec::new();
        let mut last = NONE;
        for (at, (entry, _)) in (0..).zip(express.entries.iter_mut().zip(packets)) {
            let spi = entry.outer.spi;
            if spi != last.0 {
                let slot = sad.slot_of_spi(Spi(spi));
                last = (spi, slot.unwrap_or(NONE.1));
                sad.prefetch_slot(last.1);
                schedule.prefetch(last.1);
                each.push((last.1, at));
            }
            entry.slot = last.1;
        }
        // Of one SA everything is at hand since the last burst, but for what another worker has changed.
        if let [(slot, _)] = each.as_slice() {
            let esp = packets.first().zip(express.entries.first());
            let esp = esp.and_then(|(packet, entry)| entry.outer.esp(frames.pool.bytes(packet)));
            if let (Some(sa), Some(esp)) = (sad.inbound_in(*slot), esp) {
                sa.prefetch_shared(esp::low(esp));
            }
        } else {
            for (slot, _) in &each {
                sad.prefetch_inbound(*slot);
            }
            for (slot, at) in &each {
                let at = usize::from(*at);
                let (Some(entry), Some(packet)) = (express.entries.get(at), packets.get(at)) else {
                    continue;
                };
                let esp = entry.outer.esp(frames.pool.bytes(packet));
                if let (Some(sa), Some(esp)) = (sad.inbound_in(*slot), esp) {
                    sa.prefetch_rest(esp.len(), esp::low(esp));
                }
            }
        }
    }

    /// Pass 1: which packets the lane takes. Whether it takes all.
    fn take_all(&mut self, packets: &Burst, rest: &mut Rest) -> bool {
        let Worker {
            sad,
            express,
            frames,
            ..
        } = self;
        let mut all = true;
        for (entry, packet) in express.entries.iter_mut().zip(packets) {
            let found = sad
                .inbound_in(entry.slot)
                .filter(|_| !rest.wants(entry.place))
                .and_then(|sa| number(sa, entry.outer.esp(frames.pool.bytes(packet))?));
            match found {
                Some((number, high)) => {
                    (entry.number, entry.high, entry.taken) = (number, high, true);
                }
                None => {
                    rest.mark(entry.place);
                    all = false;
                }
            }
        }
        all
    }

    /// Parts those that the lane does not take from the others, whose entries go with them.
    #[cold]
    fn leave_some(&mut self, packets: &mut Burst, rest: &mut Rest) {
        let mut taken = Burst::new();
        let entries = *self.express.entries;
        for (packet, entry) in packets.drain(..).zip(entries) {
            if !entry.taken {
                rest.take(packet, entry.place);
            } else {
                self.express.entries[taken.len() % BURST] = entry;
                taken.push(packet);
            }
        }
        packets.append(&mut taken);
    }

    /// Pass 2: verifies and decrypts (RFC 4303 section 3.4.4).
    fn open_all(&mut self, packets: &mut Burst) {
        let Worker {
            sad,
            frames,
            express,
            ..
        } = self;
        let with_entries = packets.iter_mut().zip(express.entries.iter_mut());
        let each = frames.pool.each_bytes_mut(with_entries);
        // The key of the packet before.
        let mut last: Option<(u32, &EspKey)> = None;
        aead::open_burst(each.filter_map(|(frame, entry)| {
            let key = match last {
                Some((slot, key)) if slot == entry.slot => key,
                _ => sad.opening_key(entry.slot)?,
            };
            last = Some((entry.slot, key));
            Some(Job {
                key,
                esp: frame.get_mut(entry.outer.range())?,
                high: entry.high,
                ok: &mut entry.verified,
            })
        }));
    }

    /// Pass 3: what is plain leaves together, if it can.
    fn clear_all(&mut self, now: Instant, packets: &mut Burst, sorted: &mut Sorted) {
        if packets.is_empty() {
            return;
        }
        let mut tally = Tally {
            slot: self.express.entries[0].slot,
            ..Tally::default()
        };
        let mut way = LastWay::default();
        self.mark_together(now, packets, &mut way);
        let mut cleared = 0;
        let mut same_port = true;
        for (at, packet) in packets.iter_mut().enumerate() {
            let before = way.egress.port;
            if !self.clear(now, packet, at, &mut way, &mut tally) {
                break;
            }
            same_port &= at == 0 || way.egress.port == before;
            cleared += 1;
        }
        if cleared == packets.len() && same_port {
            self.links
                .queue_all(&mut self.frames, usize::from(way.egress.port), packets);
        } else {
            self.clear_apart(now, packets, cleared, &mut tally, sorted);
        }
        self.end_run(now, &mut tally);
        let (packets, octets) = tally.all;
        self.frames.counters.count_opened(packets, octets);
    }

    /// Marks the first packets of the burst, if they are of an SA that several workers receive, in one go
    /// up to the first odd one: each time that a worker writes to a window the others wait.
    fn mark_together(&mut self, now: Instant, packets: &Burst, way: &mut LastWay) {
        let slot = self.express.entries[0].slot;
        let shared = |sa: &&InboundSa| sa.window.shared().is_some();
        if self.sad.inbound_in(slot).filter(shared).is_none() {
            return;
        }
        let mut numbers: SmallVec<[SequenceNumber; BURST]> = SmallVec::new();
        for (at, packet) in packets.iter().enumerate() {
            let entry = &self.express.entries[at % BURST];
            let (number, inner) = match entry.slot == slot {
                true => (entry.number, self.look_inside(packet, at)),
                false => break,
            };
            let Some(inner) = inner.filter(|inner| self.judge(now, *inner, way).is_some()) else {
                break;
            };
            self.express.inners[at % BURST] = inner;
            numbers.push(number);
        }
        let window = self.sad.inbound_in(slot).and_then(|sa| sa.window.shared());
        let accepted = window.map_or(0, |window| window.mark_all(&numbers));
        for (at, entry) in self.express.entries.iter_mut().enumerate() {
            entry.marked = accepted >> at & 1 != 0;
        }
    }

    /// The same where that is not so, of packets of which the first ones have been cleared. They leave
    /// in the order in which they came.
    #[cold]
    fn clear_apart(
        &mut self,
        now: Instant,
        packets: &mut Burst,
        cleared: usize,
        tally: &mut Tally,
        sorted: &mut Sorted,
    ) {
        let mut way = LastWay::default();
        for (at, mut packet) in packets.drain(..).enumerate() {
            if at < cleared || self.clear(now, &mut packet, at, &mut way, tally) {
                let port = usize::from(self.express.entries[at % BURST].port);
                self.links.queue(&mut self.frames, port, packet);
            } else {
                let entry = self.express.entries[at % BURST];
                self.accept_plainly(now, packet, &entry, &mut sorted.departures);
            }
        }
    }

    /// Makes a packet the frame that leaves, unless there is anything odd about it: then it stays as it
    /// is.
    #[inline(always)]
    fn clear(
        &mut self,
        now: Instant,
        packet: &mut Packet,
        at: usize,
        way: &mut LastWay,
        tally: &mut Tally,
    ) -> bool {
        let entry = &self.express.entries[at % BURST];
        let (slot, number, headers) = (entry.slot, entry.number, entry.outer.headers);
        let marked = entry.marked;
        if tally.slot != slot {
            self.end_run(now, tally);
            tally.slot = slot;
        }
        let inner = self.look_inside(packet, at);
        let Some(octets) = inner.and_then(|inner| self.judge(now, inner, way)) else {
            return false;
        };
        // Check-and-mark (rule R8). One that was seen already, in this burst, is odd.
        let Some(sa) = self.sad.inbound_in_slot(slot) else {
            return false;
        };
        if !marked && !sa.window.mark(number) {
            return false;
        }
        sa.authenticated = sa.authenticated.max(number);
        let start = usize::from(headers) + esp::prefix(sa.key.suite()) - ethernet::HEADER;
        tally.packets += 1;
        tally.octets += octets;
        // TTL, and Ethernet where the IV was.
        let pool = &mut self.frames.pool;
        let cut =
            pool.trim_front(packet, start) && pool.truncate(packet, ethernet::HEADER + octets);
        let mut lower = false;
        if let Some((header, inner)) = pool.bytes_mut(packet).split_first_chunk_mut() {
            *header = way.egress.header;
            lower = decrement_hops(inner);
        }
        debug_assert!(cut && lower, "the packet has been looked at");
        self.express.entries[at % BURST].port = way.egress.port;
        true
    }

    /// What a packet carries, if it is authentic and nothing about it is odd.
    #[inline(always)]
    fn look_inside(&self, packet: &Packet, at: usize) -> Option<Inner> {
        let entry = &self.express.entries[at % BURST];
        if entry.marked {
            return Some(self.express.inners[at % BURST]);
        }
        let sa = self.sad.inbound_in(entry.slot)?;
        inner(sa, entry, self.frames.pool.bytes(packet))
    }

    /// The length of what a packet carries, if there is a way for it.
    #[inline(always)]
    fn judge(&mut self, now: Instant, inner: Inner, way: &mut LastWay) -> Option<usize> {
        if way.ends != inner.ends {
            self.find_way(now, inner.ends, way)?;
        }
        (inner.length <= way.egress.mtu).then_some(usize::from(inner.length))
    }

    /// The way of packets between these hosts, if it leads to the protected side.
    #[inline]
    fn find_way(&mut self, now: Instant, ends: Ends, way: &mut LastWay) -> Option<()> {
        let onward = ends.destination == way.ends.destination;
        let good = match ends.v4() {
            // Of a destination that the packet before went to the answer is known.
            Some((source, destination)) => {
                self.addresses.may_send_v4(source)
                    && (onward || self.addresses.may_receive_v4(destination))
            }
            None => self.is_between_others(ends),
        };
        if !good {
            return None;
        }
        if !onward {
            let egress = self.egress(now, ends.destination)?;
            if !egress.protected {
                return None;
            }
            way.egress = egress;
        }
        way.ends = ends;
        Some(())
    }

    #[inline(never)]
    fn is_between_others(&self, ends: Ends) -> bool {
        let (source, destination) = ends.addresses();
        self.addresses.is_between_others(source, destination)
    }

    /// What is odd about a packet that was decrypted, the plain way finds out.
    #[cold]
    fn accept_plainly(
        &mut self,
        now: Instant,
        mut packet: Packet,
        entry: &Entry,
        departures: &mut SmallVec<[Departure; BURST]>,
    ) {
        let Entry {
            outer,
            slot,
            number,
            high,
            verified,
            marked,
            ..
        } = *entry;
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
            came: Came::default(),
        };
        let opening = Opening {
            arrival,
            slot,
            number,
            high,
            verified,
            marked,
        };
        self.accept(now, opening, departures);
    }

    /// Counts what came of the SA at hand, and reports its highest authentic number (rule R8).
    #[inline]
    fn end_run(&mut self, now: Instant, tally: &mut Tally) {
        let slot = tally.slot;
        let packets = std::mem::take(&mut tally.packets);
        let octets = std::mem::take(&mut tally.octets);
        let Some(sa) = self.sad.inbound_in_slot(slot) else {
            return;
        };
        match sa.window.is_shared() {
            false => sa.cell.note_inbound_top_alone(sa.authenticated),
            true => sa.cell.note_inbound_top(sa.authenticated),
        }
        sa.counters.note_window(sa.window.top(), sa.window.lost());
        if packets > 0 {
            sa.counters.count_packets(packets, octets);
            sa.last_use = now;
            tally.all.0 += packets;
            tally.all.1 += octets;
            self.note_uses(slot, now, packets as u32);
        }
    }
}

/// The number of a packet that is worth decrypting, and its high half if the ICV covers that.
#[inline]
fn number(sa: &InboundSa, esp: &[u8]) -> Option<(SequenceNumber, Option<u32>)> {
    // Of one that was taken over the plain way knows more.
    if sa.mode != Mode::Tunnel || sa.copies_dscp() || sa.is_below_floor() {
        return None;
    }
    let number = esp::number(esp, sa.key.suite(), &sa.window, sa.esn).ok()?;
    Some((number, esp::high(number, sa.esn)))
}

/// What a packet carries, if it is authentic and nothing about it is odd.
#[inline(always)]
fn inner(sa: &InboundSa, entry: &Entry, frame: &[u8]) -> Option<Inner> {
    let (outer, number) = (&entry.outer, entry.number);
    // Congestion has to be passed on (RFC 6040 section 4.2), and a peer that moved to be told of.
    let odd = !entry.verified
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
