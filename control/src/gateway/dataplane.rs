//! The gateway's end of the workers: commands that wait for room in a ring, and punted packets.

use std::collections::VecDeque;
use std::sync::Arc;

use hitless_dataplane::checkpoint::Checkpoint;
use hitless_dataplane::command::{Command, Event};
use hitless_dataplane::counters::Counters;
use hitless_dataplane::worker::{Leadership, WorkerHandle};

/// All workers of one gateway.
pub struct Dataplane {
    workers: Vec<WorkerHandle>,
    /// Commands that a worker's ring had no room for, oldest first.
    queued: Vec<VecDeque<Command>>,
    leadership: Arc<Leadership>,
    /// Packets to inject that were lost because the ring was full.
    inject_full: u64,
}

impl Dataplane {
    /// Takes the control ends of the workers.
    pub fn new(workers: Vec<WorkerHandle>, leadership: Arc<Leadership>) -> Dataplane {
        let queued = workers.iter().map(|_| VecDeque::new()).collect();
        Dataplane {
            workers,
            queued,
            leadership,
            inject_full: 0,
        }
    }

    /// Number of workers.
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Lets the workers handle the cluster's packets, or stops them within a burst.
    pub fn set_leading(&self, leading: bool) {
        self.leadership.set(leading);
    }

    /// Whether the workers handle the cluster's packets.
    pub fn leading(&self) -> bool {
        self.leadership.leading()
    }

    /// Sends a command to one worker; it waits if the ring is full.
    pub fn send(&mut self, worker: usize, command: Command) {
        let queue = &mut self.queued[worker];
        if queue.is_empty() {
            if let Err(command) = self.workers[worker].send(command) {
                queue.push_back(command);
            }
        } else {
            queue.push_back(command);
        }
    }

    /// Sends the same command to every worker.
    pub fn broadcast(&mut self, command: impl Fn() -> Command) {
        for worker in 0..self.workers.len() {
            self.send(worker, command());
        }
    }

    /// Retries the commands that waited.
    pub fn flush(&mut self) {
        for (worker, queue) in self.workers.iter_mut().zip(&mut self.queued) {
            while let Some(command) = queue.pop_front() {
                if let Err(command) = worker.send(command) {
                    queue.push_front(command);
                    break;
                }
            }
        }
    }

    /// The next event of any worker, with the worker's index.
    pub fn poll_event(&mut self) -> Option<(usize, Event)> {
        let mut workers = self.workers.iter_mut().enumerate();
        workers.find_map(|(index, worker)| worker.poll_event().map(|event| (index, event)))
    }

    /// The next punted IP packet, copied out of the ring.
    pub fn poll_punt(&mut self, packet: &mut Vec<u8>) -> bool {
        packet.clear();
        let mut workers = self.workers.iter_mut();
        workers.any(|worker| {
            worker
                .punt
                .pop_frame(|octets| packet.extend_from_slice(octets))
        })
    }

    /// Sends an IP packet of ours by the first worker, which routes it.
    pub fn inject(&mut self, packet: &[u8]) {
        let sent = self
            .workers
            .first_mut()
            .is_some_and(|worker| worker.punt.push_frame(packet));
        if !sent {
            self.inject_full += 1;
        }
    }

    /// The newest checkpoint of every SA that has one.
    pub fn drain_checkpoints(&mut self, mut take: impl FnMut(Checkpoint)) {
        for worker in &mut self.workers {
            worker.checkpoints.drain(|_, checkpoint| take(checkpoint));
        }
    }

    /// Each worker's counters.
    pub fn counters(&self) -> impl Iterator<Item = &Arc<Counters>> {
        self.workers.iter().map(|worker| &worker.counters)
    }

    /// Packets of ours that were lost on the way to a worker.
    pub fn inject_full(&self) -> u64 {
        self.inject_full
    }
}
