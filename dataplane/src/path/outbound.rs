//! From the inner packet to ESP: SPD, lease, encapsulation (RFC 4301 section 5.1, RFC 4303 section
//! 3.3).

use std::net::IpAddr;

use hitless_sa::{Instant, Mode, SaId, SequenceNumber};
use smallvec::SmallVec;

use super::{Departure, way};
use crate::aead::{self, Job};
use crate::cell::Block;
use crate::command::Event;
use crate::esp::{self, Front};
use crate::flow::Flow;
use crate::fragment;
use crate::handover::Errand;
use crate::mss;
use crate::pool::Packet;
use crate::port::BURST;
use crate::report::Kind;
use crate::sad::Remedy;
use crate::spd::{Action, Direction, Match};
use crate::verdict::DropReason;
use crate::wire::icmp::Error;
use crate::wire::ip::Ip;
use crate::worker::Worker;

/// A packet that has an SA and a way for its outer packet.
pub(crate) struct Sealing {
    pub(crate) packet: Packet,
    pub(crate) slot: u32,
    pub(crate) port: usize,
    pub(crate) next_hop: IpAddr,
    /// What the way takes.
    mtu: usize,
    /// Octets that the inner packet is padded to.
    pad_to: usize,
    /// Which draw of the burst it takes its number from.
    draw: usize,
}

/// One whose ESP header, IV and trailer are in place.
pub(crate) struct Wrapped {
    pub(crate) sealing: Sealing,
    pub(crate) number: SequenceNumber,
    high: Option<u32>,
    front: Front,
    /// Octets of the inner packet.
    inner: usize,
    pub(crate) sealed: bool,
}

/// Packets to seal in one go: a burst, and some room for fragments.
const SEALINGS: usize = BURST + 2 * fragment::MAX;

type Sealings = SmallVec<[Sealing; SEALINGS]>;
type Wrappings = SmallVec<[Wrapped; SEALINGS]>;

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
        if self.frames.watch.on {
            self.watch_departures(departures);
        }
        // 1. Policies, all searches of the burst at once.
        let flows: SmallVec<[Flow; BURST]> = departures.iter().map(|d| d.flow).collect();
        let policies = self.flows.outbound(&self.spd, &flows);
        let slots = self.slots_for(&policies);
        for ((departure, policy), slot) in departures.drain(..).zip(policies).zip(slots) {
            // 2. SA, the way of the outer packet, and whether it fits.
            self.protect(now, departure, (policy, slot), &mut sealings);
            // Fragments may make more packets than came; then a second draw is due.
            if sealings.len() + fragment::MAX > SEALINGS {
                self.seal_all(now, &mut sealings);
            }
        }
        self.seal_all(now, &mut sealings);
    }

    /// The slots of the SAs that protect the packets. These and the policies' counts are asked for
    /// all at once, in steps, for each says where the next one is.
    fn slots_for(&self, policies: &[Option<Match>]) -> SmallVec<[Option<u32>; BURST]> {
        let mut slots: SmallVec<[Option<u32>; BURST]> = SmallVec::new();
        // Those that differ from the one before: policy and slot.
        let mut each: SmallVec<[(usize, Option<u32>); BURST]> = SmallVec::new();
        for found in policies {
            let slot = match (found, each.last()) {
                (None, _) => None,
                (Some(found), Some((policy, slot))) if *policy == found.policy => *slot,
                (Some(found), _) => {
                    self.spd.prefetch_tally(found.policy);
                    let slot = match found.action {
                        Action::Protect(Some(id)) => self.sad.sending_slot(id),
                        _ => None,
                    };
                    if let Some(slot) = slot {
                        self.sad.prefetch_slot(slot);
                    }
                    each.push((found.policy, slot));
                    slot
                }
            };
            slots.push(slot);
        }
        for (policy, slot) in &each {
            self.spd.prefetch_share(self.id(), *policy);
            if let Some(slot) = slot {
                self.sad.prefetch_outbound(*slot);
            }
        }
        slots
    }

    /// Packets that another worker has found the SA for.
    pub(crate) fn seal_for(
        &mut self,
        now: Instant,
        packets: impl IntoIterator<Item = (Packet, SaId)>,
    ) {
        let mut sealings = Sealings::new();
        for (packet, sa) in packets {
            match self.sad.sending_slot(sa) {
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
        if self.frames.watch.on {
            self.watch_sealings(sealings);
        }
        // 3. One draw for each SA, of what this burst needs and no more (rule R3).
        let mut draws: SmallVec<[Draw; SEALINGS]> = SmallVec::new();
        for sealing in sealings.iter_mut() {
            let of = |draw: &Draw| draw.slot == sealing.slot;
            sealing.draw = draws.iter().rposition(of).unwrap_or_else(|| {
                draws.push(Draw {
                    slot: sealing.slot,
                    wanted: 0,
                    block: None,
                });
                draws.len() - 1
            });
            if let Some(draw) = draws.get_mut(sealing.draw) {
                draw.wanted += 1;
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
        // 4. A number for each packet, in the order in which they came, and ESP around it.
        let mut wrapped = Wrappings::new();
        for sealing in sealings.drain(..) {
            let number = draws
                .get_mut(sealing.draw)
                .and_then(|draw| draw.block.as_mut())
                .and_then(Iterator::next);
            self.wrap(sealing, number, &mut wrapped);
        }
        if self.frames.watch.on {
            self.watch_wrapped(&wrapped);
        }
        // 5. Encryption and ICV, in one go.
        self.seal(&mut wrapped);
        if self.frames.watch.on {
            self.watch_sealed(&wrapped);
        }
        // 6. Outer headers, and out.
        for wrapped in wrapped.drain(..) {
            self.dispatch(now, wrapped);
        }
    }

    /// Dummy packets, told from others by nobody on the way (RFC 4303 section 2.6).
    pub(crate) fn send_dummies(&mut self, now: Instant, sa: SaId, count: u16, octets: u16) {
        let slot = self.sad.slot_of(sa);
        let sending = slot.and_then(|slot| self.sad.outbound_mut(slot));
        let Some(sa) = sending.filter(|sa| sa.mode == Mode::Tunnel) else {
            return;
        };
        let (slot, remote) = (sa.slot, sa.remote);
        let Some((port, next_hop)) = self.way(remote).filter(|_| self.term.leads()) else {
            return;
        };
        let link = self.links.interface(port).map_or(0, |out| out.mtu);
        let mut sealings = Sealings::new();
        for _ in 0..count {
            let (Some(sa), Some(packet)) =
                (self.sad.outbound_mut(slot), self.frames.pool.allocate())
            else {
                self.frames.counters.count_drop(DropReason::NoBuffer);
                break;
            };
            let mtu = sa.cell.path_mtu().limit(link, now);
            sealings.push(Sealing {
                packet,
                slot,
                port,
                next_hop,
                mtu,
                pad_to: usize::from(octets).min(sa.inner_mtu(mtu)),
                draw: 0,
            });
            if sealings.len() == BURST {
                self.seal_all(now, &mut sealings);
            }
        }
        self.seal_all(now, &mut sealings);
        self.links.flush(&mut self.frames);
    }

    /// What policy does with a packet (RFC 4301 section 5.1, steps 2 and 3).
    fn protect(
        &mut self,
        now: Instant,
        departure: Departure,
        (policy, slot): (Option<Match>, Option<u32>),
        sealings: &mut Sealings,
    ) {
        let Departure { packet, flow } = departure;
        let reason = match policy {
            None => return self.no_way_out(packet, DropReason::NoPolicy),
            Some(found) => {
                let octets = packet.len();
                self.spd
                    .count(self.id(), found.policy, Direction::Outbound, octets);
                match found.action {
                    Action::Discard => DropReason::PolicyDiscard,
                    Action::Bypass => return self.route(now, packet),
                    Action::Protect(_) => match slot {
                        Some(slot) => {
                            return match self.sad.outbound_owner(slot) {
                                Some((sa, to)) => self.hand_over(packet, to, Errand::Seal(sa)),
                                None => {
                                    self.learn_flow(&flow, found.policy, slot);
                                    self.way_through(now, packet, slot, sealings);
                                }
                            };
                        }
                        None => {
                            let policy = found.policy;
                            let event = || Event::Acquire { policy, flow };
                            self.reports.hint_of(Kind::Acquire, policy, now, event);
                            return self.no_way_out(packet, DropReason::NoSa);
                        }
                    },
                }
            }
        };
        self.frames.drop(packet, reason);
    }

    /// The way of the outer packet, and whether it would fit: no number is burned otherwise.
    fn way_through(
        &mut self,
        now: Instant,
        mut packet: Packet,
        slot: u32,
        sealings: &mut Sealings,
    ) {
        let Some(sa) = self.sad.outbound_mut(slot) else {
            return self.frames.drop(packet, DropReason::NoSa);
        };
        if sealings.last().map(|last| last.slot) != Some(slot) {
            sa.key.prefetch(packet.len());
            sa.cell.prefetch_sending();
            sa.counters.prefetch();
        }
        let octets = self.frames.pool.bytes_mut(&mut packet);
        let found = match (sa.mode, sealings.last()) {
            // The way of the SA's last packet, which has the same endpoint.
            (Mode::Tunnel, Some(last)) if last.slot == slot => Some((last.port, last.next_hop)),
            (Mode::Tunnel, _) => way(&self.fib, sa.remote),
            (Mode::Transport, _) => {
                let destination = Ip::parse(octets).ok().map(Ip::destination);
                destination.and_then(|to| way(&self.fib, to))
            }
        };
        let Some((port, next_hop)) = found else {
            return self.drop_outbound(slot, packet, DropReason::NoRoute);
        };
        let link = self.links.interface(port).map_or(0, |out| out.mtu);
        let mtu = sa.cell.path_mtu().limit(link, now);
        let fits = sa.fitting(octets, mtu);
        mss::clamp(octets, sa.options.mss, fits);
        let pad_to = sa.pad_to(fits);
        let sealing = |packet| Sealing {
            packet,
            slot,
            port,
            next_hop,
            mtu,
            pad_to,
            draw: 0,
        };
        if packet.len() <= fits {
            return sealings.push(sealing(packet));
        }
        // RFC 4301 section 8.2: fragment what may be, else tell the sender how much goes through.
        let refused = match sa.too_big(octets) {
            Remedy::FragmentBefore => match fragment::split(&mut self.frames, packet, fits) {
                Ok(fragments) => return sealings.extend(fragments.into_iter().map(sealing)),
                Err(refused) => refused,
            },
            Remedy::FragmentAfter => return sealings.push(sealing(packet)),
            Remedy::Tell => (packet, DropReason::TooBig),
        };
        let (packet, reason) = refused;
        sa.counters.count_drop(reason);
        if reason != DropReason::TooBig {
            return self.frames.drop(packet, reason);
        }
        let mtu = u16::try_from(fits).unwrap_or(u16::MAX);
        self.refuse(now, packet, reason, Error::TooBig { mtu });
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
                let Sealing { packet, pad_to, .. } = &mut sealing;
                match esp::wrap(&mut self.frames.pool, packet, sa, number, *pad_to) {
                    Ok(front) => {
                        return wrapped.push(Wrapped {
                            sealing,
                            number,
                            high: esp::high(number, sa.esn),
                            front,
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
        self.drop_outbound(sealing.slot, sealing.packet, reason);
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
        let each = frames.pool.each_bytes_mut(packets);
        aead::seal_burst(each.filter_map(|(esp, (slot, high, ok))| {
            let key = sad.sealing_key(slot)?;
            Some(Job { key, esp, high, ok })
        }));
    }

    /// Puts the outer headers in front, and sends. Nothing leaves that was not sealed (S6).
    fn dispatch(&mut self, now: Instant, wrapped: Wrapped) {
        let Wrapped {
            sealing,
            front,
            inner,
            sealed,
            ..
        } = wrapped;
        let Sealing {
            mut packet,
            slot,
            port,
            next_hop,
            mtu,
            ..
        } = sealing;
        let identification = self.next_identification();
        let addressed = match self.sad.outbound_mut(slot) {
            Some(sa) if sealed => {
                let low = identification as u16;
                esp::address(&mut self.frames.pool, &mut packet, sa, low, front).map(|()| {
                    sa.counters.count_packets(1, inner);
                    sa.last_use = now;
                })
            }
            _ => Err(DropReason::NoSa),
        };
        if let Err(reason) = addressed {
            return self.drop_outbound(slot, packet, reason);
        }
        self.frames.counters.count_sealed(1, inner);
        self.note_use(slot, now);
        if packet.len() <= mtu {
            return self
                .links
                .send(&mut self.frames, now, packet, port, next_hop);
        }
        // Larger than the way takes, and nobody to be told: ESP itself is fragmented.
        match fragment::split_sent(&mut self.frames, packet, mtu, identification) {
            Ok(fragments) => {
                for fragment in fragments {
                    self.links
                        .send(&mut self.frames, now, fragment, port, next_hop);
                }
            }
            Err((packet, reason)) => self.drop_outbound(slot, packet, reason),
        }
    }
}
