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
use crate::classify::Addresses;
use crate::memory;
use crate::pool::Packet;
use crate::port::{BURST, Burst, MacAddress};
use crate::worker::Worker;
use egress::Egresses;
use flows::{Flows, Key};
use front::{Kind, Sight};
use inbound::Entry;
use inner::Inner;
use outbound::{Note, Runs};
use record::Record;

/// What a worker's lane knows.
pub(crate) struct Express {
    on: bool,
    /// Packets that have taken it.
    taken: u64,
    egresses: Egresses,
    flows: Flows,
    /// One for each slot.
    records: Box<[Record]>,
    /// Of the packets that are leaving now.
    notes: Box<[Note; BURST]>,
    runs: Box<Runs>,
    /// Of the packets that are entering now.
    entries: Box<[Entry; BURST]>,
    /// What those carry whose numbers are marked already.
    inners: Box<[Inner; BURST]>,
}

impl Express {
    /// For so many SAs. Allocates all that it ever needs.
    pub(crate) fn new(capacity: usize) -> Express {
        Express {
            on: true,
            taken: 0,
            egresses: Egresses::new(),
            flows: Flows::new(capacity),
            records: memory::table(capacity, Record::default),
            notes: Box::new([Note::default(); BURST]),
            runs: Box::default(),
            entries: Box::new([Entry::default(); BURST]),
            inners: Box::new([Inner::default(); BURST]),
        }
    }

    /// Whether packets take the lane at all.
    pub(crate) fn set(&mut self, on: bool) {
        self.on = on;
    }

    /// Packets that have taken the lane.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// The SPD has changed.
    pub(crate) fn forget_flows(&mut self) {
        self.flows.clear();
    }

    /// Other hosts are behind policies, and not on the protected side.
    pub(crate) fn forget_sides(&mut self) {
        self.egresses.clear();
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
            record.hold = None;
        }
    }

    #[inline]
    fn record(&self, slot: u32) -> Option<&Record> {
        self.records.get(slot as usize)
    }
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
        let all = burst.len();
        let mut rest = Rest::default();
        // Mostly a port has traffic of one kind, which stays where it is.
        if protected && self.all_leave(burst, own) {
            self.express_outbound(now, burst, &mut rest);
        } else if !protected && self.all_enter(burst, own) {
            self.express_inbound(now, burst, sorted, &mut rest);
        } else {
            let mut leaving = Burst::new();
            let mut entering = Burst::new();
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
        self.express.taken += (all - rest.packets.len()) as u64;
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
        let mut last = Key::default();
        for ((at, packet), note) in (0..).zip(burst).zip(express.notes.iter_mut()) {
            let frame = frames.pool.bytes(packet);
            let (kind, sight) = front::look(frame, own);
            if kind != Kind::Stream || sight.hops <= 1 {
                return false;
            }
            note.look(&express.flows, frame, &sight, at, &mut last);
        }
        true
    }

    /// Whether all of a burst is ESP for us; notes what is seen of it.
    #[inline]
    fn all_enter(&mut self, burst: &Burst, own: MacAddress) -> bool {
        let Worker {
            frames,
            express,
            addresses,
            ..
        } = self;
        let mut last = None;
        (0..)
            .zip(burst)
            .zip(express.entries.iter_mut())
            .all(|((at, packet), entry)| {
                let frame = frames.pool.bytes(packet);
                let (kind, sight) = front::look(frame, own);
                let encapsulated = kind == Kind::Encapsulated;
                if kind != Kind::Esp && !encapsulated {
                    return false;
                }
                entry.look(frame, &sight, at, encapsulated);
                // Most come from the peer that the one before came from.
                let ends = sight.ends_v4(frame);
                let known = ends.is_some() && ends == last;
                last = ends;
                known || is_for_us(addresses, frame, &sight)
            })
    }

    /// Parts a burst into what leaves, what enters, and the rest.
    fn part(
        &mut self,
        burst: &mut Burst,
        (own, protected): (MacAddress, bool),
        leaving: &mut Burst,
        entering: &mut Burst,
        rest: &mut Rest,
    ) {
        let mut last = Key::default();
        for (at, packet) in (0..).zip(burst.drain(..)) {
            let frame = self.frames.pool.bytes(&packet);
            let (kind, sight) = front::look(frame, own);
            let place = Place {
                at,
                pair: sight.pair,
            };
            match kind {
                Kind::Esp | Kind::Encapsulated if is_for_us(&self.addresses, frame, &sight) => {
                    if let Some(entry) = self.express.entries.get_mut(entering.len()) {
                        entry.look(frame, &sight, at, kind == Kind::Encapsulated);
                    }
                    entering.push(packet);
                }
                Kind::Stream | Kind::Encapsulated if protected && sight.hops > 1 => {
                    let Express { notes, flows, .. } = &mut self.express;
                    if let Some(note) = notes.get_mut(leaving.len()) {
                        note.look(flows, frame, &sight, at, &mut last);
                    }
                    leaving.push(packet);
                }
                Kind::Nothing => rest.packets.push((at, packet)),
                _ => rest.take(packet, place),
            }
        }
    }
}

/// Whether a packet is for one of our addresses, and from one that is neither ours nor no host's.
#[inline]
fn is_for_us(addresses: &Addresses, frame: &[u8], sight: &Sight) -> bool {
    let ends = sight.addresses(frame);
    ends.is_some_and(|(source, destination)| addresses.is_from_host_to_us(source, destination))
}
