//! The express lane: packets for which everything is known already, in few tight passes over a burst.
//!
//! ```text
//!  receive -> front -> leaving  -> outbound -> ports
//!                   -> entering -> inbound  -> ports
//!                   -> rest ----------------------------> the plain way, unchanged
//! ```
//!
//! - `front`: what a frame is, by its first octets
//! - `egress`: ports and Ethernet headers for destinations
//! - `outbound`, `inbound`: the two halves
//!
//! Whatever is odd goes the plain way, at any step before a number is drawn or marked, and with it all
//! that follows between the same two addresses in the burst: no packet overtakes another of its flow.
//! Both ways do the same to a packet; a test of the package holds them against each other.

mod egress;
mod front;
mod inbound;
mod outbound;

use hitless_sa::Instant;
use smallvec::SmallVec;

use super::Sorted;
use crate::pool::Packet;
use crate::port::{BURST, Burst};
use crate::worker::Worker;
pub(crate) use egress::Egresses;
use front::{Kind, Outer, Sight};

/// What a worker's lane knows.
pub(crate) struct Express {
    on: bool,
    pub(crate) egresses: Egresses,
}

impl Express {
    pub(crate) fn new() -> Express {
        Express {
            on: true,
            egresses: Egresses::new(),
        }
    }

    /// Whether packets take the lane at all.
    pub(crate) fn set(&mut self, on: bool) {
        self.on = on;
    }
}

/// ESP for us, whole, whose outer headers hold.
pub(crate) struct Entering {
    /// The frame as it came.
    pub(crate) packet: Packet,
    pub(crate) outer: Outer,
    pub(crate) place: Place,
}

/// TCP or UDP from the protected side, whole, with hops left.
pub(crate) struct Leaving {
    /// The frame as it came.
    pub(crate) packet: Packet,
    /// Octets of the IP packet.
    pub(crate) length: u16,
    pub(crate) v6: bool,
    pub(crate) place: Place,
}

/// Where in its burst a packet stands, and between which addresses it goes.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    at: u8,
    pair: u8,
}

/// A burst's packets that go the plain way.
#[derive(Default)]
pub(crate) struct Rest {
    packets: SmallVec<[(u8, Packet); BURST]>,
    /// A bit for each pair of addresses, several of which share one.
    pairs: u64,
}

impl Rest {
    /// Whether a packet must go the plain way because one before it did.
    #[inline]
    pub(crate) fn wants(&self, place: Place) -> bool {
        self.pairs >> place.pair & 1 != 0
    }

    /// Takes a packet, as it came, and from now on all that go between the same addresses.
    #[cold]
    pub(crate) fn take(&mut self, packet: Packet, place: Place) {
        self.pairs |= 1 << place.pair;
        self.packets.push((place.at, packet));
    }

    /// The packets in the order in which they came.
    fn into_order(mut self, burst: &mut Burst) {
        if !self.packets.is_sorted_by_key(|(at, _)| *at) {
            self.packets.sort_unstable_by_key(|(at, _)| *at);
        }
        burst.extend(self.packets.into_iter().map(|(_, packet)| packet));
    }
}

pub(crate) type Leavings = SmallVec<[Leaving; BURST]>;
pub(crate) type Enterings = SmallVec<[Entering; BURST]>;

impl Worker {
    /// Takes what it can of a burst; what is left in it goes the plain way.
    pub(super) fn express(
        &mut self,
        port: usize,
        now: Instant,
        burst: &mut Burst,
        sorted: &mut Sorted,
    ) {
        let Some(interface) = self.links.interface(port).filter(|_| self.express.on) else {
            return;
        };
        let (own, protected) = (interface.mac, interface.protected);
        let mut rest = Rest::default();
        let mut leaving = Leavings::new();
        let mut entering = Enterings::new();
        for (at, packet) in burst.drain(..).enumerate() {
            let frame = self.frames.pool.bytes(&packet);
            let (kind, sight) = front::look(frame, own);
            let place = Place {
                at: at as u8,
                pair: sight.pair,
            };
            match kind {
                Kind::Esp | Kind::Encapsulated if self.is_for_us(frame, &sight) => {
                    let outer = sight.outer(frame, kind == Kind::Encapsulated);
                    entering.push(Entering {
                        packet,
                        outer,
                        place,
                    });
                }
                Kind::Stream | Kind::Encapsulated if protected && sight.hops > 1 => {
                    leaving.push(Leaving {
                        packet,
                        length: sight.length,
                        v6: sight.v6,
                        place,
                    });
                }
                Kind::Nothing => rest.packets.push((place.at, packet)),
                _ => rest.take(packet, place),
            }
        }
        if !entering.is_empty() {
            self.express_inbound(now, &mut entering, sorted, &mut rest);
        }
        if !leaving.is_empty() {
            self.express_outbound(now, &mut leaving, &mut rest);
        }
        rest.into_order(burst);
    }

    /// Whether a packet is for one of our addresses, and from one that is neither ours nor no host's.
    #[inline]
    fn is_for_us(&self, frame: &[u8], sight: &Sight) -> bool {
        sight.addresses(frame).is_some_and(|(source, destination)| {
            self.addresses.is_from_host_to_us(source, destination)
        })
    }
}
