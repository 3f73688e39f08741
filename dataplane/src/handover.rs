//! Packets handed from one worker to another: to the one that holds their SA (RFC 4303 section 3.4.2
//! by SPI, where the network card spreads packets by something else), or to the one that an SA is
//! bound to.
//!
//! ```text
//!   worker 0 --parcels--> worker 1        one bounded ring for each ordered pair,
//!            <-buffers---                 and one back for the buffers
//! ```
//!
//! Every worker has a pool of its own, so a packet is copied into a buffer of the sender's stock,
//! and out of it into the other's pool. A second core has to fetch each of its cache lines anyway,
//! and a frame of an AF_XDP socket can only leave by that socket. A ring keeps the order. Two workers
//! that disagree about an SA do not throw its packets to and fro: one that was handed over goes on
//! once more at most, to where its SA has just moved.
//!
//! A receiving half moves by the same ring, in front of the packets that come after it: none is lost
//! on the way, and there is never a second window.

use std::sync::Arc;

use hitless_sa::{Instant, SaId};
use rtrb::{Consumer, Producer, RingBuffer};
use smallvec::SmallVec;

use crate::command::{Event, Retired};
use crate::counters::SaCounters;
use crate::path::{Came, Sorted};
use crate::pool::{Packet, Pool};
use crate::port::BURST;
use crate::sad::InboundSa;
use crate::verdict::DropReason;
use crate::worker::Worker;

/// Packets of one worker that are on their way to others, or not taken yet.
pub const STOCK: usize = 512;
/// Receiving halves that are on their way from one worker to another beside that.
const HALVES: usize = 64;

/// Rings that a packet comes over at most.
pub(crate) const HOPS: u8 = 2;

/// What the other worker is to do with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Errand {
    /// Open the ESP that this IP packet for us carries, which has come over so many rings.
    Open(u8),
    /// Seal this inner packet for that SA. Policy has been asked; the SA may have gone since.
    Seal(SaId),
    /// Heed this error about a packet that was too big.
    Heed,
}

enum Parcel {
    Packet {
        errand: Errand,
        length: usize,
        octets: Box<[u8]>,
    },
    /// An SA whose packets the other worker receives from now on.
    Half(Box<InboundSa>),
}

/// What has come.
enum Arrived {
    /// A packet, unless the pool had no frame for it.
    Packet(Errand, Option<Packet>),
    Half(Box<InboundSa>),
}

/// What one worker shares with another one.
struct Way {
    parcels: Producer<Parcel>,
    /// Buffers that come back.
    empties: Consumer<Box<[u8]>>,
    arriving: Consumer<Parcel>,
    returning: Producer<Box<[u8]>>,
}

/// The ways of one worker to the others; none if it is alone.
#[derive(Default)]
pub(crate) struct Ways {
    /// By the other's index; none to itself.
    ways: Vec<Option<Way>>,
    stock: Vec<Box<[u8]>>,
}

impl Ways {
    /// Sends a copy on its way.
    fn send(&mut self, to: usize, errand: Errand, octets: &[u8]) -> Result<(), DropReason> {
        if self.stock.is_empty() {
            self.restock();
        }
        let Some(Some(way)) = self.ways.get_mut(to) else {
            return Err(DropReason::HandOver);
        };
        let mut buffer = self.stock.pop().ok_or(DropReason::HandOver)?;
        let Some(space) = buffer.get_mut(..octets.len()) else {
            self.stock.push(buffer);
            return Err(DropReason::TooBig);
        };
        space.copy_from_slice(octets);
        let parcel = Parcel::Packet {
            errand,
            length: octets.len(),
            octets: buffer,
        };
        match way.parcels.push(parcel) {
            Ok(()) => Ok(()),
            Err(rtrb::PushError::Full(parcel)) => {
                if let Parcel::Packet { octets, .. } = parcel {
                    self.stock.push(octets);
                }
                Err(DropReason::HandOver)
            }
        }
    }

    /// Sends a receiving half on its way, or gives it back.
    fn send_half(&mut self, to: usize, half: Box<InboundSa>) -> Result<(), Box<InboundSa>> {
        let Some(Some(way)) = self.ways.get_mut(to) else {
            return Err(half);
        };
        match way.parcels.push(Parcel::Half(half)) {
            Err(rtrb::PushError::Full(Parcel::Half(half))) => Err(half),
            _ => Ok(()),
        }
    }

    /// Takes back the buffers that any of the others has emptied.
    fn restock(&mut self) {
        for way in self.ways.iter_mut().flatten() {
            while let Ok(buffer) = way.empties.pop() {
                self.stock.push(buffer);
            }
        }
    }

    /// What has waited longest from a worker; a packet is copied into `pool`. A half waits, and
    /// what came after it, until there is `room` for its answer.
    fn receive(&mut self, from: usize, pool: &mut Pool, room: bool) -> Option<Arrived> {
        let way = self.ways.get_mut(from)?.as_mut()?;
        if !room && matches!(way.arriving.peek(), Ok(Parcel::Half(_))) {
            return None;
        }
        match way.arriving.pop().ok()? {
            Parcel::Half(half) => Some(Arrived::Half(half)),
            Parcel::Packet {
                errand,
                length,
                octets,
            } => {
                let packet = octets.get(..length).unwrap_or_default();
                let packet = match errand {
                    Errand::Open(_) => pool.copy_inbound_in(packet),
                    Errand::Seal(_) | Errand::Heed => pool.copy_in(packet),
                };
                // The sender's ring has a place for each of its buffers.
                let _ = way.returning.push(octets);
                Some(Arrived::Packet(errand, packet))
            }
        }
    }
}

/// Connects the workers of one gateway, each to each, before they run. A worker's index here is the
/// one that commands name, and its [`id`](crate::worker::WorkerSettings::id). Allocates all buffers
/// that packets on their way ever need.
///
/// # Panics
///
/// If the workers do not stand in the order of their ids, from 0: packets would go to others than
/// commands name.
pub fn connect(workers: &mut [Worker]) {
    let in_order = workers.iter().map(Worker::id).eq(0..workers.len());
    assert!(in_order, "workers stand in the order of their ids");
    let count = workers.len();
    if count < 2 {
        return;
    }
    let pools = workers.iter().map(|worker| &worker.frames.pool);
    let room = pools.map(Pool::largest_inbound).max().unwrap_or(0);
    let buffer = || vec![0; room].into_boxed_slice();
    let mut all: Vec<Ways> = (0..count)
        .map(|_| Ways {
            ways: (0..count).map(|_| None).collect(),
            stock: (0..STOCK).map(|_| buffer()).collect(),
        })
        .collect();
    for left in 0..count {
        for right in left + 1..count {
            let (there, arriving_there) = RingBuffer::new(STOCK + HALVES);
            let (back, arriving_back) = RingBuffer::new(STOCK + HALVES);
            let (empty_there, empties_back) = RingBuffer::new(STOCK);
            let (empty_back, empties_there) = RingBuffer::new(STOCK);
            all[left].ways[right] = Some(Way {
                parcels: there,
                empties: empties_back,
                arriving: arriving_back,
                returning: empty_back,
            });
            all[right].ways[left] = Some(Way {
                parcels: back,
                empties: empties_there,
                arriving: arriving_there,
                returning: empty_there,
            });
        }
    }
    for (worker, ways) in workers.iter_mut().zip(all) {
        worker.ways = ways;
    }
}

impl Worker {
    /// Gives a packet to another worker. If that does not keep up, it is dropped here.
    pub(crate) fn hand_over(&mut self, packet: Packet, to: usize, errand: Errand) {
        match self.ways.send(to, errand, self.frames.pool.bytes(&packet)) {
            Ok(()) => {
                self.frames.counters.count_handed_over();
                self.frames.pool.free(packet);
            }
            Err(reason) => self.frames.drop(packet, reason),
        }
    }

    /// Handles a burst from each of the other workers. Returns the packets taken.
    pub(crate) fn take_over(&mut self, now: Instant) -> usize {
        let mut taken = 0;
        for from in 0..self.ways.ways.len() {
            taken += self.take_over_from(now, from);
        }
        taken
    }

    fn take_over_from(&mut self, now: Instant, from: usize) -> usize {
        // Once a burst (rule R3).
        let leading = self.leads();
        let mut sorted = Sorted::default();
        let mut sealings: SmallVec<[(Packet, SaId); BURST]> = SmallVec::new();
        let mut taken = 0;
        while taken < BURST {
            let room = self.reports.has_room();
            let (errand, packet) = match self.ways.receive(from, &mut self.frames.pool, room) {
                Some(Arrived::Packet(errand, packet)) => (errand, packet),
                Some(Arrived::Half(half)) => {
                    self.inbound_and_outbound(now, &mut sorted);
                    self.take_half(half);
                    continue;
                }
                None => break,
            };
            taken += 1;
            match (packet, errand) {
                (None, _) => self.frames.counters.count_drop(DropReason::NoBuffer),
                (Some(packet), Errand::Open(_)) if !leading => self.not_active_any_more(packet),
                (Some(packet), _) if !leading => self.frames.drop(packet, DropReason::NotActive),
                (Some(packet), Errand::Open(hops)) => {
                    self.arrive_again(packet, Came { hops, from }, &mut sorted);
                }
                (Some(packet), Errand::Seal(sa)) => sealings.push((packet, sa)),
                (Some(packet), Errand::Heed) => self.receive_too_big(now, packet, true),
            }
        }
        if taken > 0 {
            self.frames.counters.count_taken_over(taken);
            self.inbound_and_outbound(now, &mut sorted);
            self.seal_for(now, sealings);
            self.links.flush(&mut self.frames);
        }
        taken
    }

    /// Gives the receiving half of an SA to another worker, and from now on its packets after it.
    /// What waits for its high water does not go with it.
    pub(crate) fn move_half(&mut self, id: SaId, to: usize, counters: Arc<SaCounters>) {
        let taken = self.sad.slot_of(id).zip(self.sad.take_inbound(id, to));
        let Some((slot, (mut half, bound))) = taken else {
            return self.reports.answer(Event::Stayed { sa: id });
        };
        let counted_here = std::mem::replace(&mut half.counters, counters);
        if let Err(mut half) = self.ways.send_half(to, half) {
            half.counters = counted_here;
            self.sad.put_back(half, bound);
            return self.reports.answer(Event::Stayed { sa: id });
        }
        self.drop_parked_of(slot, &counted_here);
        self.publish(slot);
    }

    /// Receives on an SA from now on, unless it has gone in the meantime, or has another cell.
    fn take_half(&mut self, half: Box<InboundSa>) {
        let (id, slot) = (half.id, half.slot);
        match self.sad.arrive(half) {
            Ok(()) => {
                self.publish(slot);
                self.reports.answer(Event::Moved { sa: id });
            }
            Err(half) => self.reports.answer(Event::Retired(Retired::Inbound(half))),
        }
    }
}
