//! What the worker itself says and hears: ARP, neighbour discovery, ICMP, and the punt port to the
//! control thread.

use std::net::IpAddr;

use hitless_sa::Instant;
use smallvec::SmallVec;

use crate::command::Event;
use crate::flow::Flow;
use crate::fragment;
use crate::handover::Errand;
use crate::neighbour::{Neighbour, News};
use crate::path::{Departure, Sorted};
use crate::pmtu::TooBig;
use crate::pool::{Packet, Pool};
use crate::port::BURST;
use crate::report::Kind;
use crate::spd::Action;
use crate::verdict::DropReason;
use crate::wire::icmp::{self, Error};
use crate::wire::icmpv6;
use crate::wire::ike::is_of_a_stranger;
use crate::wire::ip::Ip;
use crate::wire::ipv6::{self, Ipv6};
use crate::worker::{PUNT, Worker};

/// Octets of an IPv4 packet that every host and every path takes whole, or nearly (RFC 791).
const EVERY_HOST: usize = 576;
/// Octets of an IPv6 packet that every link takes (RFC 8200 section 5).
const LEAST_MTU: usize = 1280;
/// Errors that wait for the end of a turn, at most.
pub(crate) const TOLD: usize = 16;

impl Worker {
    /// ARP: answers for our addresses, learns who else is there.
    pub(crate) fn receive_arp(&mut self, now: Instant, port: usize, packet: Packet) {
        let news = self.links.arp(&mut self.frames, now, port, packet);
        self.tell_neighbour(now, news);
    }

    /// Neighbour discovery: the same for IPv6.
    pub(crate) fn receive_neighbour(&mut self, now: Instant, port: usize, packet: Packet) {
        let news = self.links.discovery(&mut self.frames, now, port, packet);
        self.tell_neighbour(now, news);
    }

    fn tell_neighbour(&mut self, now: Instant, news: Option<News>) {
        while let Some(Neighbour { port, address }) = self.links.alive() {
            let event = || Event::Answered { port, address };
            self.reports.hint(Kind::Answered, now, event);
        }
        if let Some(news) = news {
            let event = || Event::NeighbourLearned(news);
            self.reports.hint_of(Kind::Neighbour, news, now, event);
        }
    }

    /// Hands an IP packet to the control thread. Half of the room is for IKE SAs that there are: a
    /// flood of strangers must not keep a peer's sign of life out.
    pub(crate) fn punt(&mut self, packet: Packet) {
        let crowded = self.punt.room() < PUNT / 2;
        if crowded && is_of_a_stranger(self.frames.pool.bytes(&packet)) {
            self.frames.drop(packet, DropReason::PuntStranger);
        } else if self.punt.push_frame(self.frames.pool.bytes(&packet)) {
            self.frames.counters.count_punted();
            if self.frames.watch.on {
                self.frames.watch.punted(&packet);
            }
            self.frames.pool.free(packet);
        } else {
            self.frames.drop(packet, DropReason::PuntFull);
        }
    }

    /// Sends IP packets that the control thread injected: they are its own (IKE), so no policy is
    /// asked (RFC 4301 section 4.4.1: IKE bypasses). Parcels among them go the way of packets that
    /// have just come. Returns how many there were.
    pub(crate) fn inject(&mut self, now: Instant) -> usize {
        let Worker { punt, frames, .. } = self;
        let mut burst: SmallVec<[(u64, Packet); BURST]> = SmallVec::new();
        let mut injected = 0;
        // What is too long for a frame goes out before the next one is taken.
        while injected < BURST && !burst.last().is_some_and(|(_, packet)| packet.is_run()) {
            let taken = punt.pop_marked(|mark, octets| match frames.pool.copy_own_in(octets) {
                Some(packet) => burst.push((mark, packet)),
                None => frames.counters.count_drop(DropReason::NoBuffer),
            });
            if !taken {
                break;
            }
            injected += 1;
        }
        if injected == 0 {
            return 0;
        }
        let leading = self.leads();
        let mut sorted = Sorted::default();
        for (mark, packet) in burst {
            // What another leadership had to say is not said in this one.
            if !leading || mark != self.term.0 {
                self.frames.drop(packet, DropReason::NotActive);
            } else if let Some(own) = self.unpack(now, packet, &mut sorted) {
                self.send_own(now, own);
            }
        }
        if !sorted.is_empty() {
            self.inbound_and_outbound(now, &mut sorted);
        }
        self.links.flush(&mut self.frames);
        injected
    }

    /// Sends a packet of our own, in fragments if it is too long for the link: there is nobody to be
    /// told that it is. No error about one is heeded, so routers may fragment it too (over IPv4), and
    /// fragments are such as every link takes (over IPv6, RFC 8200 section 5).
    fn send_own(&mut self, now: Instant, mut packet: Packet) {
        if packet.len() <= EVERY_HOST {
            return self.route(now, packet);
        }
        let identification = self.next_identification();
        let octets = self.frames.pool.bytes_mut(&mut packet);
        let least = match Ip::parse(octets) {
            Ok(Ip::V6(_)) => LEAST_MTU,
            _ => usize::MAX,
        };
        fragment::permit(octets, identification as u16);
        let to = Ip::parse(octets).map(Ip::destination);
        let way = to.ok().and_then(|to| self.way(to));
        let out = way.and_then(|(port, _)| self.links.interface(port));
        let mtu = out.map_or(usize::MAX, |out| out.mtu);
        let (Some((port, next_hop)), true) = (way, packet.len() > mtu) else {
            return self.route(now, packet);
        };
        match fragment::split_sent(&mut self.frames, packet, mtu.min(least), identification) {
            Ok(fragments) => {
                for mut fragment in fragments {
                    self.frames.pool.shrink(&mut fragment);
                    self.links
                        .send(&mut self.frames, now, fragment, port, next_hop);
                }
            }
            Err((packet, reason)) => self.frames.drop(packet, reason),
        }
    }

    /// An error about a packet of ours that was too big: heeded if it quotes an SA of ours and tells
    /// what can be (RFC 4301 section 8.2). The next inner packet that no longer fits is answered.
    /// It may come to a worker that has not the SA: `handed_over` says that it has been passed on.
    pub(crate) fn receive_too_big(&mut self, now: Instant, packet: Packet, handed_over: bool) {
        let error = TooBig::parse(self.frames.pool.bytes(&packet));
        let owner = error.and_then(|error| self.sad.quoted_elsewhere(&error));
        if let Some(owner) = owner.filter(|_| !handed_over) {
            return self.hand_over(packet, owner, Errand::Heed);
        }
        let link = error
            .and_then(|error| self.way(error.destination))
            .and_then(|(port, _)| self.links.interface(port))
            .map_or(0, |interface| interface.mtu);
        let heeded = error.is_some_and(|error| {
            let v6 = error.source.is_ipv6();
            self.sad
                .quoted_by(&error)
                .is_some_and(|sa| sa.cell.path_mtu().learn(error.mtu, v6, link, now))
        });
        let reason = match heeded {
            true => DropReason::PathMtu,
            false => DropReason::IcmpRefused,
        };
        self.frames.drop(packet, reason);
    }

    /// Answers an echo request from the protected side or out of a tunnel: the answer takes the
    /// way that traffic of ours to that host takes.
    pub(crate) fn answer_echo(
        &mut self,
        now: Instant,
        mut packet: Packet,
        departures: &mut SmallVec<[Departure; BURST]>,
    ) {
        if let Err(reason) = turn_echo(&mut self.frames.pool, &mut packet) {
            return self.frames.drop(packet, reason);
        }
        let Some(flow) = Flow::parse(self.frames.pool.bytes(&packet)) else {
            return self.frames.drop(packet, DropReason::Malformed);
        };
        self.send_or_depart(now, packet, flow, departures);
    }

    /// Answers an echo request that came in clear and may: so does the answer. One that names a host
    /// of the protected side as its source did not come from there, and no answer crosses the
    /// boundary to it (RFC 4301 section 5.2).
    pub(crate) fn answer_echo_in_clear(&mut self, now: Instant, mut packet: Packet) {
        if let Err(reason) = turn_echo(&mut self.frames.pool, &mut packet) {
            return self.frames.drop(packet, reason);
        }
        let to = Ip::parse(self.frames.pool.bytes(&packet)).map(Ip::destination);
        let way = to.ok().and_then(|to| self.way(to));
        match way.is_some_and(|(port, _)| self.links.is_protected(port)) {
            true => self.frames.drop(packet, DropReason::NoPolicy),
            false => self.route(now, packet),
        }
    }

    /// Drops a packet and tells its sender why (RFC 1812 section 4.3.2, limited in rate by section
    /// 4.3.2.8): on the protected side at once, behind a tunnel at the end of the turn.
    pub(crate) fn refuse(
        &mut self,
        now: Instant,
        packet: Packet,
        reason: DropReason,
        error: Error,
    ) {
        if !self.tell_behind(now, &packet, error)
            && self.told.len() < TOLD
            && let Some(message) = self.protected_error(now, &packet, error)
        {
            self.told.push(message);
        }
        self.frames.drop(packet, reason);
    }

    /// Once a turn: what the senders of refused packets are told through a tunnel. Nobody is told
    /// anything about an error, so that this comes to an end.
    #[cold]
    pub(crate) fn tell_refused(&mut self, now: Instant) {
        let mut departures = self.told.drain(..).collect();
        self.outbound(now, &mut departures);
        self.links.flush(&mut self.frames);
    }

    /// Tells the sender of a packet what became of it, wherever it is: on the protected side, or
    /// behind the tunnel that the packet came by. The error quotes what was protected, so that it
    /// goes through a tunnel or not at all.
    pub(crate) fn tell_sender(
        &mut self,
        now: Instant,
        packet: &Packet,
        error: Error,
        departures: &mut SmallVec<[Departure; BURST]>,
    ) {
        if self.tell_behind(now, packet, error) {
            return;
        }
        if let Some(message) = self.protected_error(now, packet, error) {
            departures.push(message);
        }
    }

    /// An error that goes through a tunnel, if one leads to the sender.
    fn protected_error(
        &mut self,
        now: Instant,
        packet: &Packet,
        error: Error,
    ) -> Option<Departure> {
        let mut ports = 0..self.links.len();
        let message = ports.find_map(|port| self.error_about(now, packet, error, port))?;
        let flow = Flow::parse(self.frames.pool.bytes(&message));
        let found = flow.and_then(|flow| Some((flow, self.spd.outbound(&flow)?.action)));
        match found {
            Some((flow, Action::Protect(_))) => Some(Departure {
                packet: message,
                flow,
            }),
            _ => {
                self.frames.pool.free(message);
                None
            }
        }
    }

    /// Tells the sender of a packet on the protected side, from our address there. True if that is
    /// where it is, or if there is nobody to be told: the packet is our own, or nothing at all.
    fn tell_behind(&mut self, now: Instant, packet: &Packet, error: Error) -> bool {
        let source = Ip::parse(self.frames.pool.bytes(packet)).map(Ip::source);
        let Some(source) = source.ok().filter(|own| !self.addresses.contains(*own)) else {
            return true;
        };
        let way = self.way(source).map(|(port, _)| port);
        let behind = |port: &usize| self.links.is_protected(*port) && !self.spd.claims(source);
        let Some(port) = way.filter(behind) else {
            return false;
        };
        if let Some(message) = self.error_about(now, packet, error, port) {
            self.route(now, message);
        }
        true
    }

    /// An error from our address on a port, which must be of the protected side.
    fn error_about(
        &mut self,
        now: Instant,
        packet: &Packet,
        error: Error,
        port: usize,
    ) -> Option<Packet> {
        let octets = self.frames.pool.bytes(packet);
        let offending = Ip::parse(octets).ok()?;
        let useful = match offending {
            // Whatever its DF says: what might be fragmented and still is too big goes into more
            // fragments than we make.
            Ip::V4(ip) => icmp::may_complain_about(ip),
            Ip::V6(ip) => icmpv6::may_complain_about(ip),
        };
        if !useful {
            return None;
        }
        let interface = self.links.interface(port).filter(|i| i.protected)?;
        let mut own = interface.addresses.iter().map(|(ours, _)| *ours);
        let from = own.find(|ours| ours.is_ipv4() == offending.source().is_ipv4())?;
        if !self.reports.allow(Kind::IcmpError, now) {
            return None;
        }
        let mut message = [0; icmpv6::ERROR_MAX];
        let length = match (from, offending) {
            (IpAddr::V4(from), Ip::V4(ip)) => {
                icmp::write_error(&mut message, from, ip, octets, error)?
            }
            (IpAddr::V6(from), Ip::V6(ip)) => {
                icmpv6::write_error(&mut message, from, ip, octets, error)?
            }
            _ => return None,
        };
        self.frames.pool.copy_in(message.get(..length)?)
    }
}

/// Turns an echo request of either family into its reply in place. Extension headers of the request
/// are left out of it.
fn turn_echo(pool: &mut Pool, packet: &mut Packet) -> Result<(), DropReason> {
    let octets = pool.bytes_mut(packet);
    if octets.first().is_none_or(|first| first >> 4 != 6) {
        return icmp::answer_echo(octets);
    }
    let extensions = Ipv6::parse(octets)?.upper()?.offset - ipv6::HEADER;
    if extensions > 0 {
        icmpv6::strip_extensions(octets, extensions).ok_or(DropReason::Malformed)?;
        if !pool.trim_front(packet, extensions) {
            return Err(DropReason::Malformed);
        }
    }
    icmpv6::answer_echo(pool.bytes_mut(packet))
}
