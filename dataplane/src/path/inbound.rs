//! From ESP to the inner packet: SAD, replay check, ICV, high water, selectors (RFC 4301 section 5.2,
//! RFC 4303 section 3.4).

use std::net::SocketAddr;

use hitless_sa::{Instant, Spi};
use smallvec::SmallVec;

use super::{Arrival, Departure, Sorted};
use crate::classify::{Class, classify};
use crate::command::Event;
use crate::ecn;
use crate::esp;
use crate::pool::Packet;
use crate::port::BURST;
use crate::report::Kind;
use crate::sad::{Admission, InboundSa};
use crate::verdict::DropReason;
use crate::wire::ipv4;
use crate::worker::Worker;

impl Worker {
    /// ESP that came for us (RFC 4301 section 5.2, RFC 4303 section 3.4).
    pub(super) fn inbound(&mut self, now: Instant, sorted: &mut Sorted) {
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
                    self.frames.drop_of(&sa.counters, packet, reason);
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
                self.frames
                    .drop_of(&sa.counters, packet, DropReason::Congestion);
                continue;
            }
            // 5. High water, then check-and-mark.
            match sa.admit(number, packet.len(), now) {
                Ok(Admission::Deliver) => {
                    self.deliver(now, packet, slot, &mut sorted.departures);
                }
                Ok(Admission::Wait) => self.park(now, packet, slot, number),
                Err(reason) => self.frames.drop_of(&sa.counters, packet, reason),
            }
        }
        // 6. Once a burst, report the highest authentic number of each SA.
        for slot in used {
            if let Some(sa) = self.sad.inbound_in_slot(slot) {
                sa.cell.note_inbound_top(sa.authenticated);
                sa.counters.note_window(sa.window.top(), sa.window.lost());
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
            return self.drop_inbound(slot, packet, DropReason::SelectorMismatch);
        }
        self.frames.counters.count_opened(octets.len());
        // 8. What it is. ESP or IKE inside ESP is not for us.
        let flow = match classify(octets, &self.addresses) {
            Ok((Class::Forward(flow), _)) => flow,
            Ok((Class::Echo(_), _)) => return self.answer_echo(now, packet, departures),
            Ok((Class::Esp { .. } | Class::Ike, _)) => {
                return self.drop_inbound(slot, packet, DropReason::NotForUs);
            }
            Err(reason) => return self.drop_inbound(slot, packet, reason),
        };
        // 9. TTL, and the way.
        if !ipv4::decrement_ttl(self.frames.pool.bytes_mut(&mut packet)) {
            return self.drop_inbound(slot, packet, DropReason::TtlExceeded);
        }
        self.send_or_depart(now, packet, flow, departures);
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
