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

/// What is known of this member's parts.
#[derive(Default)]
pub(super) struct Health {
    /// The worker whose thread has ended: for good.
    lost: Option<usize>,
    /// The barrier that each worker has been asked to pass, and when.
    asked: BTreeMap<usize, (u64, Instant)>,
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
        if self.health.lost.is_none()
            && let Some(worker) = self.dataplane.lost()
        {
            self.health.lost = Some(worker);
            self.tell(Event::WorkerLost { worker });
        }
        let overdue = |(_, since): &(u64, Instant)| now.since(*since) >= STUCK;
        let asked = self.health.asked.iter();
        let stuck = asked.filter(|(_, asked)| overdue(asked));
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
                    place.insert((barrier, now));
                    self.dataplane.send(worker, Command::Barrier(barrier));
                }
            }
        }
    }

    /// A worker has passed a barrier: it lives.
    pub(super) fn pulse(&mut self, worker: usize, barrier: u64) {
        let asked = self.health.asked.get(&worker);
        if asked.is_some_and(|(asked, _)| *asked <= barrier) {
            self.health.asked.remove(&worker);
        }
    }

    pub(super) fn review_health(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        let ailments = self.ailments();
        if ailments == self.health.told {
            return;
        }
        let healthy = ailments.is_empty();
        let halted = self.health.lost.is_some() || !self.health.stuck.is_empty();
        self.health.told.clone_from(&ailments);
        self.tell(Event::Health { ailments });
        self.node
            .handle(now, entropy, SyncInput::Health { healthy, halted });
    }
}
