//! What the worker itself says and hears: ARP, ICMP, and the punt port to the control thread.

use std::net::IpAddr;

use hitless_sa::Instant;
use smallvec::SmallVec;

use crate::command::Event;
use crate::flow::Flow;
use crate::path::Departure;
use crate::pool::Packet;
use crate::port::{BURST, Burst, Port};
use crate::report::Kind;
use crate::verdict::DropReason;
use crate::wire::icmp::{self, Error};
use crate::wire::ipv4::Ipv4;
use crate::worker::Worker;

impl Worker {
    /// ARP: answers for our addresses, learns who else is there.
    pub(crate) fn receive_arp(&mut self, now: Instant, port: usize, packet: Packet) {
        let Some((neighbour, mac)) = self.links.arp(&mut self.frames, now, port, packet) else {
            return;
        };
        let event = || Event::NeighbourLearned {
            port: neighbour.port,
            address: neighbour.address.into(),
            mac,
        };
        self.reports.hint(Kind::Neighbour, now, event);
    }

    /// Hands an IP packet to the control thread.
    pub(crate) fn punt(&mut self, packet: Packet) {
        if self.punt.push_frame(self.frames.pool.bytes(&packet)) {
            self.frames.counters.count_punted();
            self.frames.pool.free(packet);
        } else {
            self.frames.drop(packet, DropReason::PuntFull);
        }
    }

    /// Sends IP packets that the control thread injected; they are its own (IKE), so no policy is
    /// asked (RFC 4301 section 4.4.1: IKE bypasses). Returns how many there were.
    pub(crate) fn inject(&mut self, now: Instant) -> usize {
        let mut burst = Burst::new();
        self.punt.receive(&mut self.frames.pool, &mut burst);
        let injected = burst.len();
        if injected == 0 {
            return 0;
        }
        let leading = self.leadership.leading();
        for packet in burst.drain(..) {
            match leading {
                true => self.route(now, packet),
                false => self.frames.drop(packet, DropReason::NotActive),
            }
        }
        self.links.flush(&mut self.frames);
        injected
    }

    /// Answers an echo request from the protected side or out of a tunnel: the answer takes the
    /// way that traffic of ours to that host takes.
    pub(crate) fn answer_echo(
        &mut self,
        now: Instant,
        mut packet: Packet,
        departures: &mut SmallVec<[Departure; BURST]>,
    ) {
        if let Err(reason) = icmp::answer_echo(self.frames.pool.bytes_mut(&mut packet)) {
            return self.frames.drop(packet, reason);
        }
        let Some(flow) = Flow::parse(self.frames.pool.bytes(&packet)) else {
            return self.frames.drop(packet, DropReason::Malformed);
        };
        self.send_or_depart(now, packet, flow, departures);
    }

    /// Answers an echo request that came in clear and may: so does the answer.
    pub(crate) fn answer_echo_in_clear(&mut self, now: Instant, mut packet: Packet) {
        match icmp::answer_echo(self.frames.pool.bytes_mut(&mut packet)) {
            Ok(()) => self.route(now, packet),
            Err(reason) => self.frames.drop(packet, reason),
        }
    }

    /// Drops a packet and, if its sender is on the protected side, tells it why (RFC 1812
    /// section 4.3.2, limited in rate by section 4.3.2.8).
    pub(crate) fn refuse(
        &mut self,
        now: Instant,
        packet: Packet,
        reason: DropReason,
        error: Error,
    ) {
        if let Some(message) = self.error_about(now, &packet, error) {
            self.route(now, message);
        }
        self.frames.drop(packet, reason);
    }

    fn error_about(&mut self, now: Instant, packet: &Packet, error: Error) -> Option<Packet> {
        let octets = self.frames.pool.bytes(packet);
        let offending = Ipv4::parse(octets).ok()?;
        let useful = offending.dont_fragment() || error == Error::TimeExceeded;
        if !useful || !icmp::may_complain_about(offending) {
            return None;
        }
        // Only to the protected side, and from our address there.
        let (port, _) = self.fib.lookup_v4(offending.source())?;
        let interface = self.links.interface(port).filter(|i| i.protected)?;
        let from = interface
            .addresses
            .iter()
            .find_map(|(ours, _)| match ours {
                IpAddr::V4(ours) => Some(*ours),
                IpAddr::V6(_) => None,
            })?;
        if !self.reports.allow(Kind::IcmpError, now) {
            return None;
        }
        let mut message = [0; icmp::ERROR_MAX];
        let length = icmp::write_error(&mut message, from, offending, octets, error)?;
        self.frames.pool.copy_in(message.get(..length)?)
    }
}
