//! The journey of a packet, in both directions, from top to bottom (RFC 4301 section 5).
//!
//! ```text
//!  protected side                                                  unprotected side
//!     receive -> classify -> TTL -> [outbound: SPD, lease, ESP] -> route -> send
//!        send <- route <- TTL <- [inbound: SAD, replay, ESP, high water, selectors] <- receive
//! ```
//!
//! A burst is sorted first, then each half runs over its part, so that an SA draws its sequence
//! numbers once for all its packets. No lock, no allocation, no log; what goes wrong is a verdict.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hitless_sa::{Instant, SequenceNumber, Spi};
use smallvec::SmallVec;

use crate::cell::Block;
use crate::classify::{Class, classify};
use crate::command::Event;
use crate::ecn;
use crate::esp;
use crate::fib::Fib;
use crate::flow::Flow;
use crate::fragment;
use crate::pool::Packet;
use crate::port::{BURST, Burst};
use crate::report::Kind;
use crate::sad::{Admission, InboundSa};
use crate::spd::Action;
use crate::verdict::DropReason;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::icmp::Error;
use crate::wire::ipv4::{self, Ipv4};
use crate::worker::Worker;

/// A burst after sorting. Every packet received becomes one entry at most, so neither list ever
/// outgrows its inline room.
#[derive(Default)]
pub(crate) struct Sorted {
    arrivals: SmallVec<[Arrival; BURST]>,
    departures: SmallVec<[Departure; BURST]>,
}

/// A packet that starts at its ESP header.
struct Arrival {
    packet: Packet,
    source: Ipv4Addr,
    /// The UDP port that it came from, if encapsulated.
    port: Option<u16>,
    /// DSCP and ECN of the outer header.
    tos: u8,
}

/// An IP packet that wants to cross to the unprotected side.
pub(crate) struct Departure {
    pub(crate) packet: Packet,
    pub(crate) flow: Flow,
}

/// A packet that has an SA and a way for its outer packet.
struct Sealing {
    packet: Packet,
    slot: u32,
    port: usize,
    next_hop: Ipv4Addr,
}

/// Packets to seal in one go: a burst, and some room for fragments.
const SEALINGS: usize = BURST + 2 * fragment::MAX;

type Sealings = SmallVec<[Sealing; SEALINGS]>;

/// What one SA needs in this burst, then what it got.
struct Draw {
    slot: u32,
    wanted: u32,
    block: Option<Block>,
}

impl Worker {
    /// Receives a burst from a port and runs it to completion. Returns the packets received.
    pub(crate) fn receive(&mut self, port: usize, now: Instant) -> usize {
        let mut burst = Burst::new();
        self.links.receive(&mut self.frames, port, &mut burst);
        let received = burst.len();
        if received == 0 {
            return 0;
        }
        // Once a burst (rule R3): who does not lead handles nothing and sends nothing.
        if !self.leadership.leading() {
            for packet in burst.drain(..) {
                self.frames.drop(packet, DropReason::NotActive);
            }
            return received;
        }
        let mut sorted = Sorted::default();
        for packet in burst.drain(..) {
            self.sort(port, now, packet, &mut sorted);
        }
        self.inbound(now, &mut sorted);
        self.outbound(now, &mut sorted.departures);
        self.links.flush(&mut self.frames);
        received
    }

    /// Ethernet, then what the IP packet is.
    fn sort(&mut self, port: usize, now: Instant, mut packet: Packet, sorted: &mut Sorted) {
        // 1. The frame: IPv4 or ARP, and for us.
        let octets = self.frames.pool.bytes(&packet);
        let (Some(frame), Some(interface)) = (Ethernet::parse(octets), self.links.interface(port))
        else {
            return self.frames.drop(packet, DropReason::Malformed);
        };
        let ours = frame.destination() == interface.mac;
        match frame.ether_type() {
            ethernet::ARP if ours || frame.destination() == ethernet::BROADCAST => {
                return self.receive_arp(now, port, packet);
            }
            ethernet::IPV4 if ours => {}
            // RFC 1812 section 5.3.4: never forward what came as a link-layer broadcast.
            ethernet::IPV4 | ethernet::ARP => {
                return self.frames.drop(packet, DropReason::NotForUs);
            }
            _ => return self.frames.drop(packet, DropReason::Unsupported),
        }
        // 2. The packet, without Ethernet header and padding.
        if !self.frames.pool.trim_front(&mut packet, ethernet::HEADER) {
            return self.frames.drop(packet, DropReason::Malformed);
        }
        let class = match classify(self.frames.pool.bytes(&packet), &self.addresses) {
            Ok((class, length)) if self.frames.pool.truncate(&mut packet, length) => class,
            Ok(_) => return self.frames.drop(packet, DropReason::Malformed),
            Err(reason) => return self.frames.drop(packet, reason),
        };
        // 3. Where it goes next. ESP and IKE bypass the SPD (RFC 4301 section 4.4.1.3, RFC 7296).
        let protected = self.links.is_protected(port);
        match class {
            Class::Esp {
                headers,
                source,
                port,
                tos,
            } => match self.frames.pool.trim_front(&mut packet, headers) {
                true => sorted.arrivals.push(Arrival {
                    packet,
                    source,
                    port,
                    tos,
                }),
                false => self.frames.drop(packet, DropReason::Malformed),
            },
            Class::Ike => self.punt(packet),
            Class::Echo(_) if protected => self.answer_echo(now, packet, &mut sorted.departures),
            Class::Forward(flow) if protected => {
                self.forward(now, packet, flow, &mut sorted.departures);
            }
            Class::Echo(flow) => self.clear_text(now, packet, flow, true),
            Class::Forward(flow) => self.clear_text(now, packet, flow, false),
        }
    }

    /// A packet from the protected side that goes on: outbound unless it stays there, where nothing
    /// crosses the boundary (RFC 4301 section 3.1).
    fn forward(
        &mut self,
        now: Instant,
        mut packet: Packet,
        flow: Flow,
        departures: &mut SmallVec<[Departure; BURST]>,
    ) {
        // RFC 4301 section 5.1.2.1: the TTL goes down before the packet enters the tunnel.
        if !ipv4::decrement_ttl(self.frames.pool.bytes_mut(&mut packet)) {
            return self.refuse(now, packet, DropReason::TtlExceeded, Error::TimeExceeded);
        }
        self.send_or_depart(now, packet, flow, departures);
    }

    /// Clear text that came to the unprotected side (RFC 4301 section 5.2, step 3b).
    fn clear_text(&mut self, now: Instant, mut packet: Packet, flow: Flow, echo: bool) {
        // 1. What policy protects must not come in clear.
        let reason = match self.spd.inbound(&flow).map(|found| found.action) {
            Some(Action::Protect(_)) => DropReason::ClearText,
            Some(Action::Discard) => DropReason::PolicyDiscard,
            // An echo request for ourselves needs no policy: nothing crosses the boundary.
            Some(Action::Bypass) | None if echo => {
                return self.answer_echo_in_clear(now, packet);
            }
            None => DropReason::NoPolicy,
            Some(Action::Bypass) => {
                // 2. Bypass: forward like any router.
                if ipv4::decrement_ttl(self.frames.pool.bytes_mut(&mut packet)) {
                    return self.route(now, packet);
                }
                DropReason::TtlExceeded
            }
        };
        self.frames.drop(packet, reason);
    }

    /// ESP that came for us (RFC 4301 section 5.2, RFC 4303 section 3.4).
    fn inbound(&mut self, now: Instant, sorted: &mut Sorted) {
        let mut used: SmallVec<[u32; BURST]> = SmallVec::new();
        for arrival in sorted.arrivals.drain(..) {
            let Arrival {
                mut packet,
                source,
                port,
                tos,
            } = arrival;
            // 1. The SA (RFC 4303 section 3.4.2). SPI 0 never is one (section 2.1).
            let remote = SocketAddr::new(source.into(), port.unwrap_or(0));
            let spi = esp::spi(self.frames.pool.bytes(&packet));
            let nonzero = spi.filter(|spi| spi.0 != 0);
            let Some(sa) = nonzero.and_then(|spi| self.sad.inbound_mut(spi)) else {
                self.refuse_spi(now, packet, spi, remote);
                continue;
            };
            // 2. Replay check, ICV, decryption, trailer (sections 3.4.3 and 3.4.4).
            let number = match esp::decapsulate(&mut self.frames.pool, &mut packet, sa) {
                Ok(number) => number,
                Err(reason) => {
                    // Nobody but the peer may say that it is below the floor. The limit comes
                    // first: a flood of forgeries costs no more than a few decryptions.
                    if reason == DropReason::Replay
                        && sa.is_below_floor()
                        && self.reports.allow(Kind::BelowFloor, now)
                        && esp::is_authentic(&mut self.frames.pool, &mut packet, sa)
                    {
                        self.reports.offer(Event::BelowFloor { sa: sa.id });
                    }
                    self.frames.drop(packet, reason);
                    continue;
                }
            };
            // 3. Authentic from here on: it may raise the high water (rule R8), and the newest one
            //    tells where the peer is (RFC 7296 section 2.23).
            let slot = sa.slot;
            if !used.contains(&slot) {
                used.push(slot);
            }
            if number > sa.window.top() && moved(sa, remote, port) {
                let event = || Event::PeerMoved { sa: sa.id, remote };
                self.reports.hint(Kind::PeerMoved, now, event);
            }
            // 4. Congestion on the way is passed on to the inner packet (RFC 6040 section 4.2).
            if !ecn::leave_tunnel(tos, self.frames.pool.bytes_mut(&mut packet)) {
                self.frames.drop(packet, DropReason::Congestion);
                continue;
            }
            // 5. High water, then check-and-mark.
            match sa.admit(number, packet.len(), now) {
                Ok(Admission::Deliver) => {
                    self.deliver(now, packet, slot, &mut sorted.departures);
                }
                Ok(Admission::Wait) => self.park(now, packet, slot, number),
                Err(reason) => self.frames.drop(packet, reason),
            }
        }
        // 6. Once a burst, report the highest authentic number of each SA.
        for slot in used {
            if let Some(sa) = self.sad.inbound_in_slot(slot) {
                sa.cell.note_inbound_top(sa.authenticated);
            }
        }
    }

    /// ESP that names no SA of ours.
    fn refuse_spi(&mut self, now: Instant, packet: Packet, spi: Option<Spi>, source: SocketAddr) {
        let reason = match spi {
            None => DropReason::Runt,
            Some(Spi(0)) => DropReason::SpiZero,
            Some(spi) => {
                let event = || Event::UnknownSpi { spi, source };
                self.reports.hint(Kind::UnknownSpi, now, event);
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
        // 7. It must be one that this SA may carry (RFC 4301 section 5.2, step 4).
        self.note_use(slot, now);
        let octets = self.frames.pool.bytes(&packet);
        let allowed = self
            .sad
            .inbound_in_slot(slot)
            .is_some_and(|sa| sa.selectors_match(octets));
        if !allowed {
            return self.frames.drop(packet, DropReason::SelectorMismatch);
        }
        self.frames.counters.count_opened(octets.len());
        // 8. What it is. ESP or IKE inside ESP is not for us.
        let flow = match classify(octets, &self.addresses) {
            Ok((Class::Forward(flow), _)) => flow,
            Ok((Class::Echo(_), _)) => return self.answer_echo(now, packet, departures),
            Ok((Class::Esp { .. } | Class::Ike, _)) => {
                return self.frames.drop(packet, DropReason::NotForUs);
            }
            Err(reason) => return self.frames.drop(packet, reason),
        };
        // 9. TTL, and the way.
        if !ipv4::decrement_ttl(self.frames.pool.bytes_mut(&mut packet)) {
            return self.frames.drop(packet, DropReason::TtlExceeded);
        }
        self.send_or_depart(now, packet, flow, departures);
    }

    /// Sends a packet that is bound for the protected side. What is not is outbound traffic, also
    /// when it came out of a tunnel (RFC 4301 section 5.2, step 5): another tunnel's, perhaps, and
    /// never clear by accident. It needs no route of its own, only its outer packet does.
    pub(crate) fn send_or_depart(
        &mut self,
        now: Instant,
        packet: Packet,
        flow: Flow,
        departures: &mut SmallVec<[Departure; BURST]>,
    ) {
        match self.way(flow.destination) {
            Some((port, next_hop)) if self.links.is_protected(port) => {
                self.links
                    .send(&mut self.frames, now, packet, port, next_hop);
            }
            _ => departures.push(Departure { packet, flow }),
        }
    }

    /// Packets that want to cross to the unprotected side (RFC 4301 section 5.1, RFC 4303
    /// section 3.3).
    pub(crate) fn outbound(&mut self, now: Instant, departures: &mut SmallVec<[Departure; BURST]>) {
        let mut sealings = Sealings::new();
        for departure in departures.drain(..) {
            // 1. Policy, SA, the way of the outer packet, and whether it fits.
            self.protect(now, departure, &mut sealings);
            // Fragments may make more packets than came; then a second draw is due.
            if sealings.len() + fragment::MAX > SEALINGS {
                self.seal_all(now, &mut sealings);
            }
        }
        self.seal_all(now, &mut sealings);
    }

    /// Numbers, ESP, and out.
    fn seal_all(&mut self, now: Instant, sealings: &mut Sealings) {
        // 2. One draw for each SA, of what this burst needs and no more (rule R3).
        let mut draws: SmallVec<[Draw; SEALINGS]> = SmallVec::new();
        for sealing in sealings.iter() {
            match draws.iter_mut().find(|draw| draw.slot == sealing.slot) {
                Some(draw) => draw.wanted += 1,
                None => draws.push(Draw {
                    slot: sealing.slot,
                    wanted: 1,
                    block: None,
                }),
            }
        }
        for draw in &mut draws {
            if let Some(sa) = self.sad.outbound_mut(draw.slot) {
                let block = sa.cell.draw(draw.wanted);
                if block.len() < draw.wanted as usize {
                    self.frames.counters.count_lease_stall();
                }
                draw.block = Some(block);
            }
        }
        // 3. A number for each packet, in the order in which they came.
        for sealing in sealings.drain(..) {
            let number = draws
                .iter_mut()
                .find(|draw| draw.slot == sealing.slot)
                .and_then(|draw| draw.block.as_mut())
                .and_then(Iterator::next);
            self.seal(now, sealing, number);
        }
    }

    /// What policy does with a packet (RFC 4301 section 5.1, steps 2 and 3).
    fn protect(&mut self, now: Instant, departure: Departure, sealings: &mut Sealings) {
        let Departure { packet, flow } = departure;
        let reason = match self.flows.outbound(&self.spd, &flow) {
            None => DropReason::NoPolicy,
            Some(found) => match found.action {
                Action::Discard => DropReason::PolicyDiscard,
                Action::Bypass => return self.route(now, packet),
                Action::Protect(id) => match id.and_then(|id| self.sad.slot_of(id)) {
                    Some(slot) => return self.way_through(now, packet, slot, sealings),
                    None => {
                        let policy = found.policy;
                        let event = || Event::Acquire { policy, flow };
                        self.reports.hint(Kind::Acquire, now, event);
                        DropReason::NoSa
                    }
                },
            },
        };
        self.frames.drop(packet, reason);
    }

    /// The way of the outer packet, and whether it would fit: no number is burned otherwise.
    fn way_through(&mut self, now: Instant, packet: Packet, slot: u32, sealings: &mut Sealings) {
        let Some(sa) = self.sad.outbound_mut(slot) else {
            return self.frames.drop(packet, DropReason::NoSa);
        };
        let Some((port, next_hop)) = way(&self.fib, sa.remote) else {
            return self.frames.drop(packet, DropReason::NoRoute);
        };
        let mtu = self.links.interface(port).map_or(0, |out| out.mtu);
        let inner_mtu = sa.inner_mtu(mtu);
        let sealing = |packet| Sealing {
            packet,
            slot,
            port,
            next_hop,
        };
        if packet.len() <= inner_mtu {
            return sealings.push(sealing(packet));
        }
        // RFC 4301 section 8.2: fragment what may be, else tell the sender how much goes through.
        match fragment::split(&mut self.frames, packet, inner_mtu) {
            Ok(fragments) => sealings.extend(fragments.into_iter().map(sealing)),
            Err((packet, reason)) => {
                let mtu = u16::try_from(inner_mtu).unwrap_or(u16::MAX);
                let error = Error::FragmentationNeeded { mtu };
                self.refuse(now, packet, reason, error);
            }
        }
    }

    /// Encapsulates and sends a packet under the number that was drawn for it.
    fn seal(&mut self, now: Instant, sealing: Sealing, number: Option<SequenceNumber>) {
        let Sealing {
            mut packet,
            slot,
            port,
            next_hop,
        } = sealing;
        let inner = packet.len();
        let sealed = match (self.sad.outbound_mut(slot), number) {
            (Some(sa), Some(number)) => {
                esp::encapsulate(&mut self.frames.pool, &mut packet, sa, number).map(|()| {
                    sa.packets += 1;
                    sa.bytes += inner as u64;
                    sa.last_use = now;
                })
            }
            (Some(sa), None) if sa.cell.frozen() => Err(DropReason::NotActive),
            (Some(_), None) => Err(DropReason::LeaseExhausted),
            (None, _) => Err(DropReason::NoSa),
        };
        if let Err(reason) = sealed {
            return self.frames.drop(packet, reason);
        }
        self.frames.counters.count_sealed(inner);
        self.note_use(slot, now);
        self.links
            .send(&mut self.frames, now, packet, port, next_hop);
    }

    /// Sends a packet wherever the forwarding table says.
    pub(crate) fn route(&mut self, now: Instant, packet: Packet) {
        let destination = Ipv4::parse(self.frames.pool.bytes(&packet)).map(Ipv4::destination);
        match destination.map(|to| self.way(to.into())) {
            Ok(Some((port, next_hop))) => {
                self.links
                    .send(&mut self.frames, now, packet, port, next_hop);
            }
            Ok(None) => self.frames.drop(packet, DropReason::NoRoute),
            Err(reason) => self.frames.drop(packet, reason),
        }
    }

    /// Port and neighbour for a destination.
    pub(crate) fn way(&self, destination: IpAddr) -> Option<(usize, Ipv4Addr)> {
        way(&self.fib, destination)
    }
}

fn way(fib: &Fib, destination: IpAddr) -> Option<(usize, Ipv4Addr)> {
    match destination {
        IpAddr::V4(destination) => fib.lookup_v4(destination),
        IpAddr::V6(_) => None,
    }
}

/// Whether a packet came from elsewhere than the SA sends to. Only with UDP encapsulation may a
/// peer move without being asked (RFC 7296 section 2.23).
fn moved(sa: &InboundSa, remote: SocketAddr, port: Option<u16>) -> bool {
    match (sa.encapsulation, port) {
        (Some(ports), Some(port)) => sa.remote != remote.ip() || ports.remote_port != port,
        _ => false,
    }
}
