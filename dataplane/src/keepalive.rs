//! NAT keepalives (RFC 3948 section 2.3): one octet to the peer's UDP port when nothing else has gone
//! there for so long that a NAT might forget the mapping, and at once where a predecessor kept it.

use std::collections::VecDeque;
use std::time::Duration;

use hitless_sa::Instant;

use crate::sad::OutboundSa;
use crate::verdict::DropReason;
use crate::worker::Worker;

/// How often some SAs are looked at, and in how many portions all are: each once a second.
const PERIOD: Duration = Duration::from_millis(10);
const PORTIONS: usize = 100;
/// How often those are looked at that are due at once, and how many of them: a takeover has other
/// packets to send too.
const HASTE: Duration = Duration::from_millis(1);
const AT_ONCE: usize = 512;

/// Whose turn it is.
pub(crate) struct Keepalives {
    /// Whether there is any SA that wants them.
    wanted: bool,
    next_slot: u32,
    next_look: Instant,
    /// Slots of SAs whose first one is due at once, and most likely waits for a next hop.
    at_once: VecDeque<u32>,
    next_haste: Instant,
}

impl Keepalives {
    pub(crate) fn new(slots: usize) -> Keepalives {
        Keepalives {
            wanted: false,
            next_slot: 0,
            next_look: Instant::default(),
            at_once: VecDeque::with_capacity(slots),
            next_haste: Instant::default(),
        }
    }

    /// Notes what a new SA wants: its first interval begins now.
    pub(crate) fn begin(&mut self, sa: &mut OutboundSa, now: Instant) {
        self.wanted |= sa.options.keepalive.is_some();
        sa.kept_alive = now;
        let hurries = sa.keep_alive_at_once && sa.options.keepalive.is_some();
        // Without room its portion has its turn within a second.
        if hurries && self.at_once.len() < self.at_once.capacity() {
            self.at_once.push_back(sa.slot);
        }
    }
}

impl Worker {
    /// An SA that stays wants others from now on: a NAT on its new way has seen no more than the packets
    /// since then.
    pub(crate) fn keep_alive_every(&mut self, slot: u32, interval: Option<Duration>) {
        self.keepalives.wanted |= interval.is_some();
        if let Some(sa) = self.sad.outbound_mut(slot) {
            sa.options.keepalive = interval;
        }
    }

    /// Sends what is due, of a portion of the SAs.
    pub(crate) fn keep_alive(&mut self, now: Instant) {
        if !self.keepalives.wanted {
            return;
        }
        if !self.keepalives.at_once.is_empty() && now >= self.keepalives.next_haste {
            self.keepalives.next_haste = now + HASTE;
            self.keep_alive_at_once(now);
        }
        if now < self.keepalives.next_look {
            return;
        }
        self.keepalives.next_look = now + PERIOD;
        let slots = self.sad.capacity();
        for _ in 0..slots.div_ceil(PORTIONS) {
            let slot = self.keepalives.next_slot;
            self.keepalives.next_slot = if slot as usize + 1 < slots {
                slot + 1
            } else {
                0
            };
            self.keep_slot_alive(now, slot);
        }
    }

    /// Sends the first of some inherited SAs; those whose next hop is asked for wait.
    fn keep_alive_at_once(&mut self, now: Instant) {
        for _ in 0..self.keepalives.at_once.len().min(AT_ONCE) {
            let Some(slot) = self.keepalives.at_once.pop_front() else {
                return;
            };
            let half = self.sad.outbound_mut(slot);
            // Gone since, or its portion had its turn.
            let Some(sa) = half.filter(|sa| sa.keep_alive_at_once) else {
                continue;
            };
            let remote = sa.remote;
            let way = self.way(remote);
            let frames = &mut self.frames;
            let ready = way.is_none_or(|(port, hop)| self.links.is_ready(frames, now, port, hop));
            match ready {
                true => self.keep_slot_alive(now, slot),
                false => self.keepalives.at_once.push_back(slot),
            }
        }
    }

    fn keep_slot_alive(&mut self, now: Instant, slot: u32) {
        let Some(sa) = self.sad.outbound_mut(slot) else {
            return;
        };
        let Some(interval) = sa.options.keepalive else {
            return;
        };
        let quiet_since = sa.last_use.max(sa.kept_alive);
        let unused = sa.last_use == Instant::default();
        let at_once = std::mem::take(&mut sa.keep_alive_at_once) && unused;
        if sa.encapsulation.is_none() || !at_once && now.since(quiet_since) < interval {
            return;
        }
        sa.kept_alive = now;
        let (length, remote) = (sa.outer.len() + 1, sa.remote);
        let Some(mut packet) = self.frames.pool.allocate() else {
            return self.frames.counters.count_drop(DropReason::NoBuffer);
        };
        let written = self.frames.pool.append(&mut packet, length)
            && sa.write_keepalive(self.frames.pool.bytes_mut(&mut packet));
        match self.way(remote) {
            Some((port, next_hop)) if written => {
                self.links
                    .send(&mut self.frames, now, packet, port, next_hop);
            }
            Some(_) => self.frames.drop(packet, DropReason::TooBig),
            None => self.frames.drop(packet, DropReason::NoRoute),
        }
    }
}
