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

mod express;
mod inbound;
mod outbound;

pub(crate) use express::Express;
pub(crate) use inbound::Opening;
pub(crate) use outbound::{Sealing, Wrapped};

use std::net::{IpAddr, SocketAddr};

use hitless_sa::Instant;
use smallvec::SmallVec;

use crate::classify::{Class, OuterHeaders, classify};
use crate::fib::Fib;
use crate::flow::Flow;
use crate::fragment;
use crate::pool::Packet;
use crate::port::{BURST, Burst};
use crate::spd::{Action, Direction};
use crate::verdict::DropReason;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::icmp::Error;
use crate::wire::ip::{Ip, decrement_hops};
use crate::worker::Worker;

/// A burst after sorting. Every packet received becomes one entry at most, so neither list ever
/// outgrows its inline room.
#[derive(Default)]
pub(crate) struct Sorted {
    arrivals: SmallVec<[Arrival; BURST]>,
    pub(crate) departures: SmallVec<[Departure; BURST]>,
}

impl Sorted {
    pub(crate) fn is_empty(&self) -> bool {
        self.arrivals.is_empty() && self.departures.is_empty()
    }

    /// The packets that are ESP for us.
    pub(crate) fn arriving(&self) -> impl Iterator<Item = &Packet> {
        self.arrivals.iter().map(|arrival| &arrival.packet)
    }
}

/// The way of a packet through the workers.
#[derive(Clone, Copy, Default)]
pub(crate) struct Came {
    /// Rings between workers that it has come over.
    pub(crate) hops: u8,
    /// The worker at the other end of the last one.
    pub(crate) from: usize,
}

/// A packet that starts at its ESP header.
pub(crate) struct Arrival {
    pub(crate) packet: Packet,
    /// Octets of IP and UDP headers in front of ESP, which are still in the frame.
    headers: usize,
    source: IpAddr,
    /// The UDP port that it came from, if encapsulated.
    port: Option<u16>,
    /// DSCP and ECN of the outer header.
    tos: u8,
    came: Came,
}

impl Arrival {
    /// Where it came from.
    fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.source, self.port.unwrap_or(0))
    }
}

/// An IP packet that wants to cross to the unprotected side.
pub(crate) struct Departure {
    pub(crate) packet: Packet,
    pub(crate) flow: Flow,
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
        if self.frames.watch.on {
            self.watch_received(now, port, &burst);
        }
        // Once a burst (rule R3): who does not lead handles nothing and sends nothing.
        if !self.leads() {
            for packet in burst.drain(..) {
                self.not_active(port, packet);
            }
            return received;
        }
        let mut sorted = Sorted::default();
        // Who watches wants to see every step.
        if !self.frames.watch.on {
            self.express(port, now, &mut burst, &mut sorted);
        }
        for packet in burst.drain(..) {
            self.sort(port, now, packet, &mut sorted);
        }
        if self.frames.watch.on {
            self.watch_sorted(&sorted);
        }
        if !sorted.is_empty() {
            self.inbound_and_outbound(now, &mut sorted);
        }
        self.links.flush(&mut self.frames);
        received
    }

    /// Runs each half over its part of a burst.
    pub(crate) fn inbound_and_outbound(&mut self, now: Instant, sorted: &mut Sorted) {
        self.inbound(now, sorted);
        self.outbound(now, &mut sorted.departures);
    }

    /// An IP packet with ESP for us that came to another worker.
    pub(crate) fn arrive_again(&mut self, packet: Packet, came: Came, sorted: &mut Sorted) {
        match classify(self.frames.pool.bytes(&packet), &self.addresses) {
            Ok((Class::Esp(outer), _)) => self.arrive(packet, outer, came, sorted),
            Ok(_) => self.frames.drop(packet, DropReason::NotForUs),
            Err(reason) => self.frames.drop(packet, reason),
        }
    }

    /// ESP for us, which begins behind its outer headers.
    fn arrive(&mut self, mut packet: Packet, outer: OuterHeaders, came: Came, sorted: &mut Sorted) {
        let OuterHeaders {
            length: headers,
            source,
            port,
            tos,
        } = outer;
        match self.frames.pool.trim_front(&mut packet, headers) {
            true => sorted.arrivals.push(Arrival {
                packet,
                source,
                port,
                tos,
                headers,
                came,
            }),
            false => self.frames.drop(packet, DropReason::Malformed),
        }
    }

    /// Ethernet, then what the IP packet is.
    fn sort(&mut self, port: usize, now: Instant, mut packet: Packet, sorted: &mut Sorted) {
        // 1. The frame: IP or ARP, and for us.
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
            ethernet::IPV4 | ethernet::IPV6 if ours => {}
            // Neighbours ask by multicast (RFC 4861 section 7.2.1).
            ethernet::IPV6 if ethernet::is_ipv6_group(frame.destination()) => {}
            // RFC 1812 section 5.3.4: never forward what came as a link-layer broadcast.
            ethernet::IPV4 | ethernet::IPV6 | ethernet::ARP => {
                return self.frames.drop(packet, DropReason::NotForUs);
            }
            _ => return self.frames.drop(packet, DropReason::Unsupported),
        }
        // 2. The packet, without Ethernet header and padding.
        if !self.frames.pool.trim_front(&mut packet, ethernet::HEADER) {
            return self.frames.drop(packet, DropReason::Malformed);
        }
        self.sort_ip(port, now, packet, ours, sorted);
    }

    /// What an IP packet is to us; `ours` if its frame was for our Ethernet address.
    pub(crate) fn sort_ip(
        &mut self,
        port: usize,
        now: Instant,
        packet: Packet,
        ours: bool,
        sorted: &mut Sorted,
    ) {
        let Some((packet, class)) = self.whole(now, packet, ours) else {
            return;
        };
        if !ours && class != Class::Neighbour {
            return self.frames.drop(packet, DropReason::NotForUs);
        }
        // Where it goes next. ESP and IKE bypass the SPD (RFC 4301 section 4.4.1.3, RFC 7296).
        let protected = self.links.is_protected(port);
        match class {
            Class::Esp(outer) => self.arrive(packet, outer, Came::default(), sorted),
            Class::Ike => self.punt(packet),
            Class::Neighbour => self.receive_neighbour(now, port, packet),
            Class::TooBig => self.receive_too_big(now, packet, false),
            // Of a whole one there is none.
            Class::Fragment => self.frames.drop(packet, DropReason::Fragment),
            Class::Echo(_) if protected => self.answer_echo(now, packet, &mut sorted.departures),
            Class::Forward(flow) if protected => {
                self.forward(now, packet, flow, &mut sorted.departures);
            }
            Class::Echo(flow) => self.clear_text(now, packet, flow, true),
            Class::Forward(flow) => self.clear_text(now, packet, flow, false),
        }
    }

    /// What an IP packet is. A part of one waits for the others.
    fn whole(&mut self, now: Instant, packet: Packet, ours: bool) -> Option<(Packet, Class)> {
        let (packet, class) = self.classified(packet)?;
        if !ours || class != Class::Fragment {
            return Some((packet, class));
        }
        let whole = self.reassembly.take(&mut self.frames, now, packet)?;
        let (whole, class) = self.classified(whole)?;
        // The runs that are kept are for IKE alone.
        if whole.is_run() && class != Class::Ike && !self.frames.pool.takes_jumbo() {
            self.frames.drop(whole, DropReason::FragmentTooLong);
            return None;
        }
        Some((whole, class))
    }

    /// What an IP packet is, and the packet without what the frame was padded with.
    pub(crate) fn classified(&mut self, mut packet: Packet) -> Option<(Packet, Class)> {
        let reason = match classify(self.frames.pool.bytes(&packet), &self.addresses) {
            Ok((class, length)) => match self.frames.pool.truncate(&mut packet, length) {
                true => return Some((packet, class)),
                false => DropReason::Malformed,
            },
            Err(reason) => reason,
        };
        self.frames.drop(packet, reason);
        None
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
        if !decrement_hops(self.frames.pool.bytes_mut(&mut packet)) {
            return self.refuse(now, packet, DropReason::TtlExceeded, Error::TimeExceeded);
        }
        self.send_or_depart(now, packet, flow, departures);
    }

    /// Clear text that came to the unprotected side (RFC 4301 section 5.2, step 3b).
    fn clear_text(&mut self, now: Instant, mut packet: Packet, flow: Flow, echo: bool) {
        // 1. What policy protects must not come in clear.
        let found = self.spd.inbound(&flow);
        if let Some(found) = found {
            let octets = packet.len();
            self.spd
                .count(self.id(), found.policy, Direction::Inbound, octets);
        }
        let reason = match found.map(|found| found.action) {
            Some(Action::Protect(_)) => DropReason::ClearText,
            Some(Action::Discard) => DropReason::PolicyDiscard,
            // An echo request for ourselves needs no policy: neither it nor its answer crosses the
            // boundary, which is why no answer goes to the protected side.
            Some(Action::Bypass) | None if echo => {
                return self.answer_echo_in_clear(now, packet);
            }
            None => DropReason::NoPolicy,
            Some(Action::Bypass) => {
                // 2. Bypass: forward like any router.
                if decrement_hops(self.frames.pool.bytes_mut(&mut packet)) {
                    return self.route(now, packet);
                }
                DropReason::TtlExceeded
            }
        };
        self.frames.drop(packet, reason);
    }

    /// Sends a packet that is bound for the protected side. What is not is outbound traffic, also
    /// when it came out of a tunnel (RFC 4301 section 5.2, step 5): another tunnel's, perhaps, and
    /// never clear by accident. It needs no route of its own, only its outer packet does. Nor does a
    /// wider route of the protected side keep what a policy protects.
    pub(crate) fn send_or_depart(
        &mut self,
        now: Instant,
        packet: Packet,
        flow: Flow,
        departures: &mut SmallVec<[Departure; BURST]>,
    ) {
        match self.way(flow.destination) {
            Some((port, next_hop)) if self.links.is_protected(port) && !self.spd.takes(&flow) => {
                if let Err((packet, error)) = self.send_fitting(now, packet, port, next_hop) {
                    self.tell_sender(now, &packet, error, departures);
                    self.frames.drop(packet, DropReason::TooBig);
                }
            }
            _ => departures.push(Departure { packet, flow }),
        }
    }

    /// Sends a packet wherever the forwarding table says.
    pub(crate) fn route(&mut self, now: Instant, packet: Packet) {
        let destination = Ip::parse(self.frames.pool.bytes(&packet)).map(Ip::destination);
        match destination.map(|to| self.way(to)) {
            Ok(Some((port, next_hop))) => {
                if let Err((packet, error)) = self.send_fitting(now, packet, port, next_hop) {
                    self.refuse(now, packet, DropReason::TooBig, error);
                }
            }
            Ok(None) => self.frames.drop(packet, DropReason::NoRoute),
            Err(reason) => self.frames.drop(packet, reason),
        }
    }

    /// Sends a packet, in fragments if the link is too narrow for it and it may be fragmented
    /// (RFC 1812 section 5.2.6). Else it comes back, with what its sender ought to know.
    fn send_fitting(
        &mut self,
        now: Instant,
        packet: Packet,
        port: usize,
        next_hop: IpAddr,
    ) -> Result<(), (Packet, Error)> {
        let mtu = self.links.interface(port).map_or(usize::MAX, |out| out.mtu);
        if packet.len() <= mtu {
            self.links
                .send(&mut self.frames, now, packet, port, next_hop);
            return Ok(());
        }
        match fragment::split(&mut self.frames, packet, mtu) {
            Ok(fragments) => {
                for fragment in fragments {
                    self.links
                        .send(&mut self.frames, now, fragment, port, next_hop);
                }
                Ok(())
            }
            Err((packet, DropReason::TooBig)) => {
                let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                Err((packet, Error::TooBig { mtu }))
            }
            Err((packet, reason)) => {
                self.frames.drop(packet, reason);
                Ok(())
            }
        }
    }

    /// Drops a packet that came by the SA in this slot, which counts it too.
    pub(crate) fn drop_inbound(&mut self, slot: u32, packet: Packet, reason: DropReason) {
        match self.sad.inbound_in_slot(slot) {
            Some(sa) => self.frames.drop_of(&sa.counters, packet, reason),
            None => self.frames.drop(packet, reason),
        }
    }

    /// Drops a packet that was to go by the SA in this slot, which counts it too.
    pub(crate) fn drop_outbound(&mut self, slot: u32, packet: Packet, reason: DropReason) {
        match self.sad.outbound_mut(slot) {
            Some(sa) => self.frames.drop_of(&sa.counters, packet, reason),
            None => self.frames.drop(packet, reason),
        }
    }

    /// Port and neighbour for a destination.
    pub(crate) fn way(&self, destination: IpAddr) -> Option<(usize, IpAddr)> {
        way(&self.fib, destination)
    }
}

pub(crate) fn way(fib: &Fib, destination: IpAddr) -> Option<(usize, IpAddr)> {
    let hop = fib.lookup(destination)?;
    Some((hop.port, hop.next_hop.unwrap_or(destination)))
}
