//! Authentic packets that wait for their SA's high water to rise (rule R8 of the lease protocol).
//! Bounded; a packet does not outlive its cell, nor wait longer than it is worth.

use std::collections::VecDeque;
use std::time::Duration;

use hitless_sa::{Instant, SequenceNumber};
use smallvec::SmallVec;

use crate::command::Event;
use crate::counters::SaCounters;
use crate::pool::Packet;
use crate::port::BURST;
use crate::report::Kind;
use crate::sad::Admission;
use crate::verdict::DropReason;
use crate::worker::Worker;

/// Packets that wait at the same time on one worker.
pub const CAPACITY: usize = 256;
/// Packets of one SA among them: its neighbours want to wait too.
const CAPACITY_EACH: usize = CAPACITY / 4;
/// How long a packet may wait; a high water that takes longer is a standby that is gone.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// A decrypted inner packet that has not been marked as seen.
pub(crate) struct Parked {
    pub(crate) packet: Packet,
    pub(crate) slot: u32,
    pub(crate) number: SequenceNumber,
    pub(crate) since: Instant,
}

/// The ring.
pub(crate) struct Park(VecDeque<Parked>);

impl Park {
    pub(crate) fn new() -> Park {
        Park(VecDeque::with_capacity(CAPACITY))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a packet with this number may wait. A copy of one that waits may not, if it would be
    /// a replay in the end: who has captured one authentic packet could fill the room with it.
    fn admits(
        &self,
        slot: u32,
        number: SequenceNumber,
        anti_replay: bool,
    ) -> Result<(), DropReason> {
        let mut waiting = 0;
        for parked in self.0.iter().filter(|parked| parked.slot == slot) {
            if anti_replay && parked.number == number {
                return Err(DropReason::Replay);
            }
            waiting += 1;
        }
        match waiting < CAPACITY_EACH {
            true => Ok(()),
            false => Err(DropReason::HighWater),
        }
    }

    /// Takes a packet in, or gives it back if there is no room.
    pub(crate) fn push(&mut self, parked: Parked) -> Result<(), Parked> {
        if self.0.len() >= CAPACITY {
            return Err(parked);
        }
        self.0.push_back(parked);
        Ok(())
    }

    /// The one that has waited longest.
    pub(crate) fn pop(&mut self) -> Option<Parked> {
        self.0.pop_front()
    }
}

impl Worker {
    /// Keeps an authentic packet until its high water has risen (rule R8).
    pub(crate) fn park(&mut self, now: Instant, packet: Packet, slot: u32, number: SequenceNumber) {
        let mut anti_replay = true;
        if let Some(sa) = self.sad.inbound_in_slot(slot) {
            anti_replay = sa.window.is_on();
            let event = || Event::HighWater {
                sa: sa.id,
                wanted: number,
            };
            let id = sa.id;
            self.reports.hint_of(Kind::HighWater, id, now, event);
        }
        if let Err(reason) = self.park.admits(slot, number, anti_replay) {
            return self.drop_inbound(slot, packet, reason);
        }
        if self.frames.watch.on {
            self.frames.watch.parked(&packet);
        }
        let parked = Parked {
            packet,
            slot,
            number,
            since: now,
        };
        match self.park.push(parked) {
            Ok(()) => self.frames.counters.count_parked(),
            Err(parked) => self.drop_inbound(slot, parked.packet, DropReason::HighWater),
        }
    }

    /// Admits again what waits: checks and marks now, not when it was parked (holes B1 and B3).
    pub(crate) fn release(&mut self, now: Instant) {
        let mut departures = SmallVec::new();
        for _ in 0..self.park.len() {
            let Some(parked) = self.park.pop() else {
                break;
            };
            let verdict = match self.sad.inbound_in_slot(parked.slot) {
                Some(sa) => sa.admit_again(parked.number),
                None => Err(DropReason::HighWater),
            };
            match verdict {
                Ok(Admission::Deliver) => {
                    self.deliver(now, parked.packet, parked.slot, &mut departures);
                }
                Ok(Admission::Wait) if now.since(parked.since) < PATIENCE => {
                    // It has just left a place free.
                    if let Err(parked) = self.park.push(parked) {
                        self.drop_inbound(parked.slot, parked.packet, DropReason::HighWater);
                    }
                }
                Ok(Admission::Wait) => {
                    self.drop_inbound(parked.slot, parked.packet, DropReason::HighWater);
                }
                Err(reason) => self.drop_inbound(parked.slot, parked.packet, reason),
            }
            if departures.len() == BURST {
                self.outbound(now, &mut departures);
            }
        }
        self.outbound(now, &mut departures);
        self.links.flush(&mut self.frames);
    }

    /// Drops what waits for the high water of some slots.
    pub(crate) fn drop_parked(&mut self, dies: impl Fn(u32) -> bool, reason: DropReason) {
        self.sift_parked(dies, |worker, parked| {
            worker.drop_inbound(parked.slot, parked.packet, reason);
        });
    }

    /// Drops what waits for the high water of a receiving half that has left its slot, and had these
    /// counters.
    pub(crate) fn drop_parked_of(&mut self, slot: u32, counters: &SaCounters) {
        self.sift_parked(
            |parked| parked == slot,
            |worker, parked| {
                let reason = DropReason::HighWater;
                worker.frames.drop_of(counters, parked.packet, reason);
            },
        );
    }

    fn sift_parked(&mut self, dies: impl Fn(u32) -> bool, drop: impl Fn(&mut Worker, Parked)) {
        for _ in 0..self.park.len() {
            let Some(parked) = self.park.pop() else {
                return;
            };
            if dies(parked.slot) {
                drop(self, parked);
            } else if let Err(parked) = self.park.push(parked) {
                self.drop_inbound(parked.slot, parked.packet, DropReason::HighWater);
            }
        }
    }
}
