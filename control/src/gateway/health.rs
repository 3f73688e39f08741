//! Whether this member could do the work of an active: its workers run, its links are up, its next
//! hops answer (`next_hops.rs`).
//!
//! A worker that has died shows by its thread; one that is stuck shows by a barrier that it does not
//! pass in time. Either way, and with a link down, this member says that it is not healthy: it
//! yields to a standby that is, and as a standby it is slow to take over. With nobody better it goes
//! on: half a gateway is more than none. For a worker it yields at once: no barrier is waited for, and
//! no standby's hold.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hitless_dataplane::command::Command;
use hitless_sa::{Entropy, Instant};
use hitless_sync::Input as SyncInput;

use super::relapse::Relapses;
use super::{Event, Gateway};

/// From one pulse of a worker to the next.
const PULSE: Duration = Duration::from_millis(20);
/// A worker that does not answer for so long is stuck. A busy host deschedules a thread for less.
const STUCK: Duration = Duration::from_millis(200);

/// A barrier that a worker has been asked to pass.
struct Pulse {
    barrier: u64,
    /// Since when the worker owes it.
    since: Instant,
    /// Commands that its ring has taken, and how many it has with this one.
    delivered: u64,
    with_it: u64,
}

impl Pulse {
    /// Behind what waits for room in the worker's ring, `waiting` with this one: none of that if it has
    /// entered already.
    fn new(barrier: u64, now: Instant, (delivered, waiting): (u64, usize)) -> Pulse {
        Pulse {
            barrier,
            since: now,
            delivered,
            with_it: delivered + waiting as u64,
        }
    }

    /// A worker that takes what is ahead of it is not stuck, however much that is.
    fn look(&mut self, now: Instant, delivered: u64) {
        if self.delivered < self.with_it && delivered > self.delivered {
            (self.delivered, self.since) = (delivered, now);
        }
    }

    fn is_overdue(&self, now: Instant) -> bool {
        now.since(self.since) >= STUCK
    }
}

/// What is known of this member's parts.
#[derive(Default)]
pub(super) struct Health {
    /// The workers whose threads have ended, or that were given up as they took no commands: for good.
    lost: BTreeSet<usize>,
    /// The barrier that each worker has been asked to pass.
    asked: BTreeMap<usize, Pulse>,
    next_pulse: Instant,
    stuck: BTreeSet<usize>,
    relapses: Relapses,
    /// Workers that run, were stuck so often of late, and are not trusted yet.
    resting: Vec<(usize, u32)>,
    /// Ports without a carrier.
    down: BTreeSet<usize>,
    /// What was last said.
    told: Vec<String>,
    /// The longest time that the control thread has been away from its sockets.
    pub longest_turn: Duration,
}

impl Gateway {
    /// The carrier of a port has come or gone.
    pub fn set_link(&mut self, now: Instant, entropy: &mut dyn Entropy, port: usize, up: bool) {
        let changed = match up {
            true => self.health.down.remove(&port),
            false => self.health.down.insert(port),
        };
        if changed {
            self.next_hops.forget(port);
            self.review_health(now, entropy);
            self.settle(now, entropy);
        }
    }

    /// What a turn of the thread that runs this took.
    pub fn note_turn(&mut self, took: Duration) {
        self.health.longest_turn = self.health.longest_turn.max(took);
    }

    /// Why this member could not do all the work of an active, in words; empty if it could.
    pub(super) fn ailments(&self) -> Vec<String> {
        let lost = self.health.lost.iter();
        let lost = lost.map(|worker| format!("worker {worker} has ended, or takes no commands"));
        let stuck = self.health.stuck.iter();
        let stuck = stuck.map(|worker| format!("worker {worker} is stuck"));
        let resting = self.health.resting.iter();
        let resting = resting
            .map(|(worker, times)| format!("worker {worker} was stuck {times} times of late"));
        let ports = &self.settings.config().ports;
        let down = self.health.down.iter().filter_map(|port| ports.get(*port));
        let down = down.map(|port| format!("the link of port {} is down", port.name));
        let silent = self.next_hops.down().filter_map(|(port, address)| {
            let port = ports.get(port)?;
            Some(format!(
                "next hop {address} of port {} does not answer",
                port.name
            ))
        });
        let workers = lost.chain(stuck).chain(resting);
        workers.chain(down).chain(silent).collect()
    }

    /// Asks every worker for a sign of life, now and then, and notes who gives none.
    pub(super) fn watch_workers(&mut self, now: Instant) {
        let lost = self.dataplane.lost().difference(&self.health.lost);
        for worker in lost.copied().collect::<Vec<_>>() {
            self.health.lost.insert(worker);
            self.tell(Event::WorkerLost { worker });
        }
        for (worker, pulse) in &mut self.health.asked {
            pulse.look(now, self.dataplane.progress(*worker).0);
        }
        let asked = self.health.asked.iter();
        let stuck = asked.filter(|(_, pulse)| pulse.is_overdue(now));
        let stuck = stuck.map(|(worker, _)| *worker).collect();
        let before = std::mem::replace(&mut self.health.stuck, stuck);
        let health = &mut self.health;
        health.relapses.note(now, &before, &health.stuck);
        health.resting = health.relapses.resting(now).collect();
        if now >= self.health.next_pulse {
            self.health.next_pulse = now + PULSE;
            self.barriers += 1;
            let barrier = self.barriers;
            for worker in 0..self.dataplane.len() {
                // One at a time: a ring that nobody empties must not fill up.
                if let Entry::Vacant(place) = self.health.asked.entry(worker) {
                    self.dataplane.send(worker, Command::Barrier(barrier));
                    place.insert(Pulse::new(barrier, now, self.dataplane.progress(worker)));
                }
            }
        }
    }

    /// A worker has passed a barrier: it lives.
    pub(super) fn pulse(&mut self, worker: usize, barrier: u64) {
        let asked = self.health.asked.get(&worker);
        if asked.is_some_and(|asked| asked.barrier <= barrier) {
            self.health.asked.remove(&worker);
        }
    }

    pub(super) fn review_health(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        let ailments = self.ailments();
        if ailments == self.health.told {
            return;
        }
        let healthy = ailments.is_empty();
        let halted = !self.health.lost.is_empty() || !self.health.stuck.is_empty();
        self.health.told.clone_from(&ailments);
        self.tell(Event::Health { ailments });
        self.node
            .handle(now, entropy, SyncInput::Health { healthy, halted });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_stuck_if_it_takes_nothing_and_not_if_much_is_ahead_of_its_pulse() {
        let at = |milliseconds: u64| Instant(7) + Duration::from_millis(milliseconds);
        // 30 of 50 are ahead in the queue, and ten leave it every 150 ms.
        let mut pulse = Pulse::new(1, at(0), (20, 30));
        for (round, delivered) in [30, 40, 50].into_iter().enumerate() {
            let now = at(150 * (round as u64 + 1));
            pulse.look(now, delivered);
            assert!(!pulse.is_overdue(now));
        }
        // It is in the ring: what enters after it says nothing.
        pulse.look(at(600), 60);
        assert!(!pulse.is_overdue(at(649)) && pulse.is_overdue(at(650)));
        // Nothing leaves the queue, or nothing was in it.
        for waiting in [0, 30] {
            let mut pulse = Pulse::new(1, at(0), (20, waiting));
            pulse.look(at(200), 20);
            assert!(pulse.is_overdue(at(200)));
        }
    }
}
