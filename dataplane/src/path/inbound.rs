//! From ESP to the inner packet: SAD, replay check, ICV, high water, selectors (RFC 4301 section 5.2,
//! RFC 4303 section 3.4).

use std::net::{IpAddr, SocketAddr};

use hitless_sa::{Instant, Mode, SequenceNumber, Spi};
use smallvec::SmallVec;

use super::{Arrival, Came, Departure, Sorted, way};
use crate::aead::{self, Job};
use crate::classify::{Class, classify};
use crate::command::Event;
use crate::ecn;
use crate::esp;
use crate::flow::Flow;
use crate::handover::{Errand, HOPS};
use crate::mss;
use crate::pool::Packet;
use crate::port::BURST;
use crate::report::Kind;
use crate::sad::{Admission, InboundSa};
use crate::verdict::DropReason;
use crate::wire::icmp::Error;
use crate::wire::ip::decrement_hops;
use crate::worker::Worker;

/// A packet whose SA and number are known, on its way through the AEAD.
pub(crate) struct Opening {
    pub(crate) arrival: Arrival,
    pub(crate) slot: u32,
    pub(crate) number: SequenceNumber,
    pub(crate) high: Option<u32>,
    pub(crate) verified: bool,
    /// Whether its number has been marked for it.
    pub(crate) marked: bool,
}

type Openings = SmallVec<[Opening; BURST]>;

impl Worker {
    /// ESP that came for us (RFC 4301 section 5.2, RFC 4303 section 3.4), in three passes over the
    /// burst. What the first one sees of a window is its state before the burst, so the last one
    /// checks again when it marks.
    pub(super) fn inbound(&mut self, now: Instant, sorted: &mut Sorted) {
        // 1. The SA, the number, the replay check.
        let mut openings = Openings::new();
        let slots = self.slots_of(&sorted.arrivals);
        for (arrival, slot) in sorted.arrivals.drain(..).zip(slots) {
            self.look_up(now, arrival, slot, &mut openings);
        }
        if self.frames.watch.on {
            self.watch_openings(&openings);
        }
        // 2. ICV and decryption, in one go.
        self.open(&mut openings);
        if self.frames.watch.on {
            self.watch_opened(&openings);
        }
        // 3. What an authentic packet changes, and where it goes.
        let mut used: SmallVec<[u32; BURST]> = SmallVec::new();
        for opening in openings.drain(..) {
            if opening.verified && !used.contains(&opening.slot) {
                used.push(opening.slot);
            }
            self.accept(now, opening, &mut sorted.departures);
        }
        // 4. Once a burst, report the highest authentic number of each SA (rule R8).
        for slot in used {
            if let Some(sa) = self.sad.inbound_in_slot(slot) {
                sa.cell.note_inbound_top(sa.authenticated);
                sa.counters.note_window(sa.window.top(), sa.window.lost());
            }
        }
    }

    /// The slots that the packets name, whose SAs are asked for all at once.
    fn slots_of(&self, arrivals: &[Arrival]) -> SmallVec<[Option<u32>; BURST]> {
        let mut slots: SmallVec<[Option<u32>; BURST]> = SmallVec::new();
        for arrival in arrivals {
            let spi = esp::spi(self.frames.pool.bytes(&arrival.packet));
            // SPI 0 never is one (RFC 4303 section 2.1).
            let slot = spi
                .filter(|spi| spi.0 != 0)
                .and_then(|spi| self.sad.slot_of_spi(spi));
            if let Some(slot) = slot
                && slots.last() != Some(&Some(slot))
            {
                self.sad.prefetch_slot(slot);
            }
            slots.push(slot);
        }
        let mut last = None;
        for slot in &slots {
            if let Some(slot) = slot
                && last != Some(slot)
            {
                self.sad.prefetch_inbound(*slot);
                last = Some(slot);
            }
        }
        slots
    }

    /// Pass 1: SA, sequence number, replay check.
    fn look_up(
        &mut self,
        now: Instant,
        mut arrival: Arrival,
        slot: Option<u32>,
        openings: &mut Openings,
    ) {
        // 1. The SA (RFC 4303 section 3.4.2).
        let esp = self.frames.pool.bytes_mut(&mut arrival.packet);
        let Some(sa) = slot.and_then(|slot| self.sad.inbound_in_slot(slot)) else {
            let spi = esp::spi(esp);
            return self.elsewhere(now, arrival, spi);
        };
        if openings.last().map(|last| last.slot) != Some(sa.slot) {
            sa.prefetch_rest(esp.len(), esp::low(esp));
        }
        // 2. Its number, and whether it is new (section 3.4.3).
        let (number, below) = match esp::number(esp, sa.key.suite(), &sa.window, sa.esn) {
            // A peer far below the floor of a takeover looks like one that is far ahead.
            Ok(number) => (Ok(number), number > sa.window.top()),
            Err(reason) => (Err(reason), reason == DropReason::Replay),
        };
        // Nobody but the peer may say that it is below the floor. The limit comes first: a flood of
        // forgeries costs no more than a few decryptions.
        if below && sa.is_below_floor() && sa.below_floor.allow(now) {
            let authentic = match number {
                Ok(_) => esp::is_authentic_below(esp, sa),
                Err(_) => esp::is_authentic(esp, sa),
            };
            if authentic {
                // Limited by the SA alone: after a takeover all of them have this to say at once.
                self.reports.offer(Event::BelowFloor { sa: sa.id });
                return self
                    .frames
                    .drop_of(&sa.counters, arrival.packet, DropReason::Replay);
            }
        }
        match number {
            Ok(number) => openings.push(Opening {
                slot: sa.slot,
                number,
                high: esp::high(number, sa.esn),
                verified: false,
                marked: false,
                arrival,
            }),
            Err(reason) => self.frames.drop_of(&sa.counters, arrival.packet, reason),
        }
    }

    /// Pass 2: verifies and decrypts (RFC 4303 section 3.4.4).
    fn open(&mut self, openings: &mut Openings) {
        let Worker { sad, frames, .. } = self;
        let packets = openings.iter_mut().map(|opening| {
            let Opening {
                arrival,
                slot,
                high,
                verified,
                ..
            } = opening;
            (&mut arrival.packet, (*slot, *high, verified))
        });
        let each = frames.pool.each_bytes_mut(packets);
        aead::open_burst(each.filter_map(|(esp, (slot, high, ok))| {
            let key = sad.opening_key(slot)?;
            Some(Job { key, esp, high, ok })
        }));
    }

    /// Pass 3: what an authentic packet changes, and where it goes.
    pub(super) fn accept(
        &mut self,
        now: Instant,
        opening: Opening,
        departures: &mut SmallVec<[Departure; BURST]>,
    ) {
        let Opening {
            arrival,
            slot,
            number,
            verified,
            marked,
            ..
        } = opening;
        let remote = arrival.remote();
        let Arrival {
            mut packet,
            headers,
            port,
            tos,
            came,
            ..
        } = arrival;
        let Some(sa) = self.sad.inbound_in_slot(slot) else {
            return self.frames.drop(packet, DropReason::UnknownSpi);
        };
        if !verified {
            return self
                .frames
                .drop_of(&sa.counters, packet, DropReason::Integrity);
        }
        // 1. The newest one tells where the peer is (RFC 7296 section 2.23), and to which worker its
        //    packets come: once its number is marked, as a copy of one that waits may be anybody's.
        let tells = number > sa.window.top() && (moved(sa, remote.ip(), port) || came.hops == 1);
        // 2. Trailer and inner length (RFC 4303 section 3.4.4).
        let front = (headers, port.is_some());
        if let Err(reason) = esp::unwrap(&mut self.frames.pool, &mut packet, sa, number, front) {
            self.frames.drop_of(&sa.counters, packet, reason);
            if tells {
                self.tell_whereabouts(now, slot, number, (remote, port, came));
            }
            return;
        }
        // 3. Congestion on the way is passed on to the inner packet (RFC 6040 section 4.2).
        if sa.mode == Mode::Tunnel {
            let inner = self.frames.pool.bytes_mut(&mut packet);
            if !ecn::leave_tunnel(tos, inner, sa.options.copy_dscp_in) {
                let reason = DropReason::Congestion;
                return self.frames.drop_of(&sa.counters, packet, reason);
            }
        }
        // 4. High water, then check-and-mark (rule R8).
        let admission = match marked {
            true => Ok(Admission::Deliver),
            false => sa.admit(number),
        };
        match admission {
            Ok(Admission::Deliver) => {
                if tells {
                    self.tell_whereabouts(now, slot, number, (remote, port, came));
                }
                self.deliver(now, packet, slot, departures);
            }
            Ok(Admission::Wait) => self.park(now, packet, slot, number),
            Err(reason) => self.frames.drop_of(&sa.counters, packet, reason),
        }
    }

    /// Where a packet came from whose number was above all others, and to which worker, if that is news
    /// and the number has been marked for it.
    #[cold]
    fn tell_whereabouts(
        &mut self,
        now: Instant,
        slot: u32,
        number: SequenceNumber,
        (remote, port, came): (SocketAddr, Option<u16>, Came),
    ) {
        let Some(sa) = self.sad.inbound_in_slot(slot) else {
            return;
        };
        let id = sa.id;
        if number > sa.window.top() {
            return;
        }
        let strayed = (came.hops == 1).then_some(came.from);
        if moved(sa, remote.ip(), port) {
            let event = || Event::PeerMoved { sa: id, remote };
            self.reports.hint_of(Kind::PeerMoved, id, now, event);
        }
        if let Some(to) = strayed {
            let event = || Event::Strayed { sa: id, to };
            self.reports.hint_of(Kind::Strayed, id, now, event);
        }
    }

    /// A host behind us that opens or accepts a connection is told what it may send through the
    /// tunnel, as the one behind the peer is (RFC 4459 section 3.2). Only if the SA sends here too:
    /// else its sender does not know the way.
    fn clamp_opening(&mut self, now: Instant, packet: &mut Packet, slot: u32) {
        let octets = self.frames.pool.bytes_mut(packet);
        if !mss::opens(octets) {
            return;
        }
        let Some(sa) = self.sad.outbound_mut(slot) else {
            return;
        };
        let Some((port, _)) = way(&self.fib, sa.remote) else {
            return;
        };
        let link = self.links.interface(port).map_or(0, |out| out.mtu);
        let fits = sa.fitting(octets, sa.cell.path_mtu().limit(link, now));
        mss::clamp(octets, sa.options.mss, fits);
    }

    /// ESP that names no SA of this worker: of another one's, perhaps.
    fn elsewhere(&mut self, now: Instant, arrival: Arrival, spi: Option<Spi>) {
        let remote = arrival.remote();
        let mut packet = arrival.packet;
        match spi.and_then(|spi| self.sad.inbound_owner(spi)) {
            Some((_, owner))
                if arrival.came.hops < HOPS
                    && self.frames.pool.prepend(&mut packet, arrival.headers) =>
            {
                self.hand_over(packet, owner, Errand::Open(arrival.came.hops + 1));
            }
            _ => self.refuse_spi(now, packet, spi, (remote, arrival.headers)),
        }
    }

    /// ESP that names no SA of ours.
    fn refuse_spi(
        &mut self,
        now: Instant,
        mut packet: Packet,
        spi: Option<Spi>,
        (source, headers): (SocketAddr, usize),
    ) {
        let reason = match spi {
            None => DropReason::Runt,
            Some(Spi(0)) => DropReason::SpiZero,
            Some(spi) => {
                self.reports.unknown_spi(now, spi, source);
                if self.strangers && self.frames.pool.prepend(&mut packet, headers) {
                    return self.stranger(packet);
                }
                DropReason::UnknownSpi
            }
        };
        self.frames.drop(packet, reason);
    }

    /// An authentic inner packet whose number has been marked.
    pub(crate) fn deliver(
        &mut self,
        now: Instant,
        mut packet: Packet,
        slot: u32,
        departures: &mut SmallVec<[Departure; BURST]>,
    ) {
        // 5. It must be one that this SA may carry (RFC 4301 section 5.2, step 4).
        let octets = self.frames.pool.bytes(&packet);
        let length = octets.len();
        let classified = classify(octets, &self.addresses);
        let flow = match &classified {
            Ok((Class::Forward(flow) | Class::Echo(flow), _)) => Some(*flow),
            _ => Flow::parse(octets),
        };
        let sa = self.sad.inbound_in_slot(slot);
        let allowed = match flow.zip(sa) {
            Some((flow, sa)) if sa.allows(&flow) => {
                sa.count(length, now);
                true
            }
            _ => false,
        };
        self.note_use(slot, now);
        if !allowed {
            return self.drop_inbound(slot, packet, DropReason::SelectorMismatch);
        }
        self.frames.counters.count_opened(1, length);
        // 6. What it is. ESP or IKE inside ESP is not for us.
        let flow = match classified {
            Ok((Class::Forward(flow), _)) => flow,
            Ok((Class::Echo(_), _)) => return self.answer_echo(now, packet, departures),
            Ok((Class::Fragment, _)) => {
                return self.drop_inbound(slot, packet, DropReason::Fragment);
            }
            Ok((Class::Esp(_) | Class::Ike | Class::Neighbour | Class::TooBig, _)) => {
                return self.drop_inbound(slot, packet, DropReason::NotForUs);
            }
            Err(reason) => return self.drop_inbound(slot, packet, reason),
        };
        // 7. TTL, and the way.
        if !decrement_hops(self.frames.pool.bytes_mut(&mut packet)) {
            self.tell_sender(now, &packet, Error::TimeExceeded, departures);
            return self.drop_inbound(slot, packet, DropReason::TtlExceeded);
        }
        self.clamp_opening(now, &mut packet, slot);
        self.send_or_depart(now, packet, flow, departures);
    }
}

/// Whether a packet came from elsewhere than the SA sends to. Only with UDP encapsulation may a
/// peer move without being asked (RFC 7296 section 2.23).
pub(super) fn moved(sa: &InboundSa, remote: IpAddr, port: Option<u16>) -> bool {
    match (sa.encapsulation, port) {
        (Some(ports), Some(port)) => sa.remote != remote || ports.remote_port != port,
        _ => false,
    }
}
