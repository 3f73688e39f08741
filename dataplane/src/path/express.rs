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
//! - `outbound`, `inbound`: the two halves; `inner`: what comes out of a tunnel
//!
//! Whatever is odd goes the plain way, at any step before a number is drawn or marked, and with it all
//! that follows between the same two addresses in the burst: no packet overtakes another of its flow.
//! Both ways do the same to a packet; a test of the package holds them against each other.

mod egress;
mod flows;
mod front;
mod inbound;
mod inner;
mod outbound;
mod record;

use hitless_sa::Instant;
use smallvec::SmallVec;

use super::Sorted;
use crate::pool::Packet;
use crate::port::{BURST, Burst, MacAddress};
use crate::worker::Worker;
use egress::Egresses;
use flows::Flows;
use front::{Kind, Outer, Sight};
use outbound::Note;
use record::Record;

/// What a worker's lane knows.
pub(crate) struct Express {
    on: bool,
    egresses: Egresses,
    flows: Flows,
    /// One for each slot.
    records: Box<[Record]>,
    /// Of the packets that are leaving now.
    notes: Box<[Note; BURST]>,
}

impl Express {
    /// For so many SAs. Allocates all that it ever needs.
    pub(crate) fn new(capacity: usize) -> Express {
        Express {
            on: true,
            egresses: Egresses::new(),
            flows: Flows::new(capacity),
            records: vec![Record::default(); capacity].into_boxed_slice(),
            notes: Box::new([Note::default(); BURST]),
        }
    }

    /// Whether packets take the lane at all.
    pub(crate) fn set(&mut self, on: bool) {
        self.on = on;
    }

    /// The SPD has changed.
    pub(crate) fn forget_flows(&mut self) {
        self.flows.clear();
    }

    /// The forwarding table has changed: what stayed on the protected side may not do so any more.
    pub(crate) fn forget_routes(&mut self) {
        self.egresses.clear();
        self.flows.clear();
    }

    /// The SA in a slot has changed, or gone.
    pub(crate) fn forget_slot(&mut self, slot: u32) {
        if let Some(record) = self.records.get_mut(slot as usize) {
            record.stamp = record.stamp.wrapping_add(1);
            record.state = 0;
        }
    }

    #[inline]
    fn record(&self, slot: u32) -> Option<&Record> {
        self.records.get(slot as usize)
    }
}

/// ESP for us, whole, whose outer headers hold.
pub(crate) struct Entering {
    /// The frame as it came.
    pub(crate) packet: Packet,
    pub(crate) outer: Outer,
    pub(crate) place: Place,
}

/// Where in its burst a packet stands, and between which addresses it goes.
#[derive(Clone, Copy, Default)]
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

    /// All that goes between these addresses from now on goes the plain way.
    #[inline]
    fn mark(&mut self, place: Place) {
        self.pairs |= 1 << place.pair;
    }

    /// Takes a packet, as it came, and from now on all that go between the same addresses.
    #[cold]
    pub(crate) fn take(&mut self, packet: Packet, place: Place) {
        self.mark(place);
        self.packets.push((place.at, packet));
    }

    /// The packets in the order in which they came.
    fn give_back(&mut self, burst: &mut Burst) {
        if !self.packets.is_sorted_by_key(|(at, _)| *at) {
            self.packets.sort_unstable_by_key(|(at, _)| *at);
        }
        burst.extend(self.packets.drain(..).map(|(_, packet)| packet));
    }
}

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
        // Mostly a port has traffic of one kind, which stays where it is.
        if protected && self.all_leave(burst, own) {
            self.express_outbound(now, burst, &mut rest);
        } else {
            let mut leaving = Burst::new();
            let mut entering = Enterings::new();
            self.part(
                burst,
                (own, protected),
                &mut leaving,
                &mut entering,
                &mut rest,
            );
            if !entering.is_empty() {
                self.express_inbound(now, &mut entering, sorted, &mut rest);
            }
            if !leaving.is_empty() {
                self.express_outbound(now, &mut leaving, &mut rest);
            }
        }
        if !rest.packets.is_empty() {
            rest.give_back(burst);
        }
    }

    /// Whether all of a burst may take the outbound lane; notes what is seen of them.
    #[inline]
    fn all_leave(&mut self, burst: &Burst, own: MacAddress) -> bool {
        let Worker {
            frames, express, ..
        } = self;
        (0..)
            .zip(burst)
            .zip(express.notes.iter_mut())
            .all(|((at, packet), note)| {
                let frame = frames.pool.bytes(packet);
                let (kind, sight) = front::look(frame, own);
                note.look(frame, &sight, at);
                kind == Kind::Stream && sight.hops > 1
            })
    }

    /// Parts a burst into what leaves, what enters, and the rest.
    fn part(
        &mut self,
        burst: &mut Burst,
        (own, protected): (MacAddress, bool),
        leaving: &mut Burst,
        entering: &mut Enterings,
        rest: &mut Rest,
    ) {
        for (at, packet) in (0..).zip(burst.drain(..)) {
            let frame = self.frames.pool.bytes(&packet);
            let (kind, sight) = front::look(frame, own);
            let place = Place {
                at,
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
                    if let Some(note) = self.express.notes.get_mut(leaving.len()) {
                        note.look(frame, &sight, at);
                    }
                    leaving.push(packet);
                }
                Kind::Nothing => rest.packets.push((at, packet)),
                _ => rest.take(packet, place),
            }
        }
    }

    /// Whether a packet is for one of our addresses, and from one that is neither ours nor no host's.
    #[inline]
    fn is_for_us(&self, frame: &[u8], sight: &Sight) -> bool {
        let addresses = sight.addresses(frame);
        addresses.is_some_and(|(source, destination)| {
            self.addresses.is_from_host_to_us(source, destination)
        })
    }
}
