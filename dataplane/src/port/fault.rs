//! A port that loses, repeats, reorders, corrupts and delays what goes through another port: the
//! network that protocols are made for, from a seed.
//!
//! The same seed and the same packets give the same faults. A port has no clock, so delay is counted
//! in turns of the worker and in packets that overtake. What waits here is counted in
//! [`Port::frames_held`] like any frame in a driver's ring.

use std::collections::VecDeque;

use super::{BURST, Burst, Port, PortCounters};
use crate::pool::{Packet, Pool};

/// Packets that wait in one direction; when so many do, more are neither delayed nor reordered.
const CAPACITY: usize = 256;
/// Probabilities are in parts of this.
pub const MILLION: u32 = 1_000_000;

/// How likely each fault is, in millionths, for one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// The packet is gone.
    pub loss: u32,
    /// A copy comes behind it.
    pub duplication: u32,
    /// One bit of it is flipped.
    pub corruption: u32,
    /// Up to `overtakers` packets overtake it.
    pub reordering: u32,
    pub overtakers: u32,
    /// It waits up to `turns` turns.
    pub delay: u32,
    pub turns: u32,
}

/// What was done to packets, in both directions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultCounters {
    pub lost: u64,
    pub duplicated: u64,
    pub corrupted: u64,
    pub reordered: u64,
    pub delayed: u64,
}

/// See the module.
pub struct FaultPort {
    inner: Box<dyn Port>,
    receive: Lane,
    transmit: Lane,
    counters: FaultCounters,
    /// Copies that found no free frame.
    no_buffer: u64,
}

impl FaultPort {
    /// Wraps a port. Each direction has its own faults and its own random numbers.
    pub fn new(inner: Box<dyn Port>, seed: u64, receive: Faults, transmit: Faults) -> FaultPort {
        FaultPort {
            inner,
            receive: Lane::new(receive, seed),
            transmit: Lane::new(transmit, seed ^ 0x5bd1_e995_9e37_79b9),
            counters: FaultCounters::default(),
            no_buffer: 0,
        }
    }

    /// What was done so far.
    pub fn faults(&self) -> FaultCounters {
        self.counters
    }

    /// Gives the inner port what is ready to be sent.
    fn forward(&mut self, pool: &mut Pool) {
        let mut burst = Burst::new();
        while self.transmit.take(&mut burst) {
            self.inner.transmit(pool, &mut burst);
        }
    }
}

impl Port for FaultPort {
    fn receive(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.receive.turn();
        let mut fresh = Burst::new();
        // What waits already fills a burst: let the inner port's own queue wait, too.
        if self.receive.ready.len() < BURST {
            self.inner.receive(pool, &mut fresh);
        }
        for packet in fresh {
            self.no_buffer += self.receive.pass(pool, packet, &mut self.counters);
        }
        self.receive.take(burst);
    }

    fn transmit(&mut self, pool: &mut Pool, burst: &mut Burst) {
        for packet in burst.drain(..) {
            self.no_buffer += self.transmit.pass(pool, packet, &mut self.counters);
        }
        self.forward(pool);
    }

    fn poll(&mut self, pool: &mut Pool) {
        self.transmit.turn();
        self.forward(pool);
        self.inner.poll(pool);
    }

    fn frames_held(&self) -> usize {
        self.inner.frames_held() + self.receive.held() + self.transmit.held()
    }

    fn mode(&self) -> &'static str {
        self.inner.mode()
    }

    fn close(mut self: Box<Self>, pool: &mut Pool) -> usize {
        self.receive.clear(pool);
        self.transmit.clear(pool);
        self.inner.close(pool)
    }

    fn mtu(&self) -> usize {
        self.inner.mtu()
    }

    fn counters(&self) -> PortCounters {
        let inner = self.inner.counters();
        PortCounters {
            no_buffer: inner.no_buffer + self.no_buffer,
            ..inner
        }
    }

    fn wake_descriptor(&self) -> Option<std::os::fd::RawFd> {
        self.inner.wake_descriptor()
    }
}

/// A packet that waits until so many turns or so many packets have passed.
struct Waiting {
    packet: Packet,
    turns: u32,
    overtakers: u32,
}

/// One direction.
struct Lane {
    faults: Faults,
    random: u64,
    waiting: Vec<Waiting>,
    ready: VecDeque<Packet>,
}

impl Lane {
    fn new(faults: Faults, seed: u64) -> Lane {
        Lane {
            faults,
            random: seed,
            waiting: Vec::with_capacity(CAPACITY),
            // What waits, a burst with its copies, and a burst that was ready before.
            ready: VecDeque::with_capacity(CAPACITY + 4 * BURST),
        }
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// Draws only for faults that can happen, so that each has the stream that it would have alone.
    fn happens(&mut self, millionths: u32) -> bool {
        millionths > 0 && self.below(u64::from(MILLION)) < u64::from(millionths)
    }

    /// Puts a packet on its way. Returns the copies that found no frame.
    fn pass(&mut self, pool: &mut Pool, mut packet: Packet, counters: &mut FaultCounters) -> u64 {
        if self.happens(self.faults.loss) {
            counters.lost += 1;
            pool.free(packet);
            return 0;
        }
        if self.happens(self.faults.corruption) && !packet.is_empty() {
            counters.corrupted += 1;
            let bit = self.below(packet.len() as u64 * 8) as usize;
            if let Some(octet) = pool.bytes_mut(&mut packet).get_mut(bit / 8) {
                *octet ^= 1 << (bit % 8);
            }
        }
        let mut no_buffer = 0;
        let copy = match self.happens(self.faults.duplication) {
            true => duplicate(pool, &packet),
            false => Ok(None),
        };
        self.send(packet, counters);
        match copy {
            Ok(Some(copy)) => {
                counters.duplicated += 1;
                self.send(copy, counters);
            }
            Ok(None) => {}
            Err(NoFrame) => no_buffer = 1,
        }
        no_buffer
    }

    /// Puts a packet behind those that are ready, now or later.
    fn send(&mut self, packet: Packet, counters: &mut FaultCounters) {
        let room = self.waiting.len() < CAPACITY;
        if room && self.happens(self.faults.delay) {
            counters.delayed += 1;
            let turns = 1 + self.below(u64::from(self.faults.turns.max(1))) as u32;
            let overtakers = u32::MAX;
            return self.waiting.push(Waiting {
                packet,
                turns,
                overtakers,
            });
        }
        if room && self.happens(self.faults.reordering) {
            counters.reordered += 1;
            let overtakers = 1 + self.below(u64::from(self.faults.overtakers.max(1))) as u32;
            // Where nothing comes to overtake it, it goes on all the same.
            return self.waiting.push(Waiting {
                packet,
                turns: overtakers,
                overtakers,
            });
        }
        self.ready.push_back(packet);
        for waiting in &mut self.waiting {
            waiting.overtakers = waiting.overtakers.saturating_sub(1);
        }
        self.release();
    }

    /// A turn has passed.
    fn turn(&mut self) {
        for waiting in &mut self.waiting {
            waiting.turns = waiting.turns.saturating_sub(1);
        }
        self.release();
    }

    /// What has waited long enough is ready, in the order in which it came.
    fn release(&mut self) {
        let due = |waiting: &mut Waiting| waiting.turns == 0 || waiting.overtakers == 0;
        for waiting in self.waiting.extract_if(.., due) {
            self.ready.push_back(waiting.packet);
        }
    }

    /// Fills a burst; false if there was nothing.
    fn take(&mut self, burst: &mut Burst) -> bool {
        while burst.len() < BURST {
            let Some(packet) = self.ready.pop_front() else {
                break;
            };
            burst.push(packet);
        }
        !burst.is_empty()
    }

    fn held(&self) -> usize {
        self.waiting.len() + self.ready.len()
    }

    fn drain(&mut self) -> impl Iterator<Item = Packet> {
        let waiting = self.waiting.drain(..).map(|waiting| waiting.packet);
        waiting.chain(self.ready.drain(..))
    }

    fn clear(&mut self, pool: &mut Pool) {
        self.drain().for_each(|packet| pool.free(packet));
    }
}

/// Without a pool its frames stay out of use until the pool goes.
impl Drop for Lane {
    fn drop(&mut self) {
        self.drain().for_each(|packet| {
            packet.into_frame();
        });
    }
}

/// No frame was free for a copy.
struct NoFrame;

fn duplicate(pool: &mut Pool, packet: &Packet) -> Result<Option<Packet>, NoFrame> {
    let length = packet.len();
    let mut copy = pool.allocate_for(length).ok_or(NoFrame)?;
    let copied =
        pool.append(&mut copy, length) && pool.copy_between(packet, 0..length, &mut copy, 0);
    debug_assert!(copied, "a frame for this length has this length");
    Ok(Some(copy))
}

#[cfg(test)]
#[path = "fault_tests.rs"]
mod tests;
