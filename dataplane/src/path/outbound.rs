//! From the inner packet to ESP: SPD, lease, encapsulation (RFC 4301 section 5.1, RFC 4303 section
//! 3.3).

use std::net::IpAddr;

use hitless_sa::{Instant, SaId, SequenceNumber};
use smallvec::SmallVec;

use super::{Departure, way};
use crate::aead::{self, Job};
use crate::cell::Block;
use crate::command::Event;
use crate::esp;
use crate::fragment;
use crate::handover::Errand;
use crate::pool::Packet;
use crate::port::BURST;
use crate::report::Kind;
use crate::spd::{Action, Direction};
use crate::verdict::DropReason;
use crate::wire::icmp::Error;
use crate::worker::Worker;

/// A packet that has an SA and a way for its outer packet.
struct Sealing {
    packet: Packet,
    slot: u32,
    port: usize,
    next_hop: IpAddr,
}

/// One whose ESP header, IV and trailer are in place.
struct Wrapped {
    sealing: Sealing,
    number: SequenceNumber,
    high: Option<u32>,
    /// DSCP and ECN of the inner packet.
    tos: u8,
    /// Octets of the inner packet.
    inner: usize,
    sealed: bool,
}

/// Packets to seal in one go: a burst, and some room for fragments.
const SEALINGS: usize = BURST + 2 * fragment::MAX;

type Sealings = SmallVec<[Sealing; SEALINGS]>;
type Wrappings = SmallVec<[Wrapped; SEALINGS]>;
type Jobs<'a> = SmallVec<[Job<'a>; SEALINGS]>;

/// What one SA needs in this burst, then what it got.
struct Draw {
    slot: u32,
    wanted: u32,
    block: Option<Block>,
}

impl Worker {
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

    /// Packets that another worker has found the SA for.
    pub(crate) fn seal_for(
        &mut self,
        now: Instant,
        packets: impl IntoIterator<Item = (Packet, SaId)>,
    ) {
        let mut sealings = Sealings::new();
        for (packet, sa) in packets {
            match self.sad.slot_of(sa) {
                Some(slot) => self.way_through(now, packet, slot, &mut sealings),
                None => self.frames.drop(packet, DropReason::NoSa),
            }
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
        // 3. A number for each packet, in the order in which they came, and ESP around it.
        let mut wrapped = Wrappings::new();
        for sealing in sealings.drain(..) {
            let number = draws
                .iter_mut()
                .find(|draw| draw.slot == sealing.slot)
                .and_then(|draw| draw.block.as_mut())
                .and_then(Iterator::next);
            self.wrap(sealing, number, &mut wrapped);
        }
        // 4. Encryption and ICV, in one go.
        self.seal(&mut wrapped);
        // 5. Outer headers, and out.
        for wrapped in wrapped.drain(..) {
            self.dispatch(now, wrapped);
        }
    }

    /// What policy does with a packet (RFC 4301 section 5.1, steps 2 and 3).
    fn protect(&mut self, now: Instant, departure: Departure, sealings: &mut Sealings) {
        let Departure { packet, flow } = departure;
        let reason = match self.flows.outbound(&self.spd, &flow) {
            None => DropReason::NoPolicy,
            Some(found) => {
                let octets = packet.len();
                self.spd
                    .count(self.id(), found.policy, Direction::Outbound, octets);
                match found.action {
                    Action::Discard => DropReason::PolicyDiscard,
                    Action::Bypass => return self.route(now, packet),
                    Action::Protect(id) => match id.and_then(|id| self.sad.slot_of(id)) {
                        Some(slot) => {
                            return match self.sad.outbound_owner(slot) {
                                Some((sa, to)) => self.hand_over(packet, to, Errand::Seal(sa)),
                                None => self.way_through(now, packet, slot, sealings),
                            };
                        }
                        None => {
                            let policy = found.policy;
                            let event = || Event::Acquire { policy, flow };
                            self.reports.hint(Kind::Acquire, now, event);
                            DropReason::NoSa
                        }
                    },
                }
            }
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
                let error = Error::TooBig { mtu };
                self.refuse(now, packet, reason, error);
            }
        }
    }

    /// Makes a packet the text of ESP, under the number that was drawn for it.
    fn wrap(
        &mut self,
        mut sealing: Sealing,
        number: Option<SequenceNumber>,
        wrapped: &mut Wrappings,
    ) {
        let inner = sealing.packet.len();
        let reason = match (self.sad.outbound_mut(sealing.slot), number) {
            (Some(sa), Some(number)) => {
                match esp::wrap(&mut self.frames.pool, &mut sealing.packet, sa, number) {
                    Ok(tos) => {
                        return wrapped.push(Wrapped {
                            sealing,
                            number,
                            high: esp::high(number, sa.esn),
                            tos,
                            inner,
                            sealed: false,
                        });
                    }
                    Err(reason) => reason,
                }
            }
            (Some(sa), None) if sa.cell.frozen() => DropReason::NotActive,
            (Some(_), None) => DropReason::LeaseExhausted,
            (None, _) => DropReason::NoSa,
        };
        self.frames.drop(sealing.packet, reason);
    }

    /// Encrypts, and writes the ICV (RFC 4303 section 3.3.2).
    fn seal(&mut self, wrapped: &mut Wrappings) {
        let Worker { sad, frames, .. } = self;
        let packets = wrapped.iter_mut().map(|wrapped| {
            let Wrapped {
                sealing,
                high,
                sealed,
                ..
            } = wrapped;
            (&mut sealing.packet, (sealing.slot, *high, sealed))
        });
        let (mut jobs, verdicts): (Jobs<'_>, SmallVec<[&mut bool; SEALINGS]>) = frames
            .pool
            .each_bytes_mut(packets)
            .filter_map(|(esp, (slot, high, sealed))| {
                let key = sad.sealing_key(slot)?;
                let job = Job {
                    key,
                    esp,
                    high,
                    ok: false,
                };
                Some((job, sealed))
            })
            .unzip();
        aead::seal_burst(&mut jobs);
        for (job, sealed) in jobs.iter().zip(verdicts) {
            *sealed = job.ok;
        }
    }

    /// Puts the outer headers in front, and sends. Nothing leaves that was not sealed (S6).
    fn dispatch(&mut self, now: Instant, wrapped: Wrapped) {
        let Wrapped {
            sealing,
            number,
            tos,
            inner,
            sealed,
            ..
        } = wrapped;
        let Sealing {
            mut packet,
            slot,
            port,
            next_hop,
        } = sealing;
        let addressed = match self.sad.outbound_mut(slot) {
            Some(sa) if sealed => esp::address(&mut self.frames.pool, &mut packet, sa, number, tos)
                .map(|()| {
                    sa.packets += 1;
                    sa.bytes += inner as u64;
                    sa.last_use = now;
                }),
            _ => Err(DropReason::NoSa),
        };
        if let Err(reason) = addressed {
            return self.frames.drop(packet, reason);
        }
        self.frames.counters.count_sealed(inner);
        self.note_use(slot, now);
        self.links
            .send(&mut self.frames, now, packet, port, next_hop);
    }
}
