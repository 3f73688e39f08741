//! The gateway's end of the workers: commands that wait for room in a ring, and punted packets.

use std::collections::VecDeque;
use std::sync::Arc;

use hitless_dataplane::checkpoint::Checkpoint;
use hitless_dataplane::command::{Command, Event};
use hitless_dataplane::counters::Counters;
use hitless_dataplane::port::Port;
use hitless_dataplane::worker::{Leadership, WorkerHandle};

/// Packets of ours that wait for room in a worker's ring: a takeover of thousands of IKE SAs has
/// something to say to each peer at once.
const WAITING_PACKETS: usize = 8192;

/// All workers of one gateway.
pub struct Dataplane {
    workers: Vec<WorkerHandle>,
    /// Commands that a worker's ring had no room for, oldest first.
    queued: Vec<VecDeque<Command>>,
    leadership: Arc<Leadership>,
    /// Packets to inject that the first worker's ring had no room for.
    packets: VecDeque<Vec<u8>>,
    /// Packets to inject that were lost: too many waited, or one was too large for a frame.
    inject_full: u64,
    /// The worker that is asked first for events and for punted packets: each in turn, so that a
    /// flood at one does not starve the others.
    first: usize,
}

impl Dataplane {
    /// Takes the control ends of the workers.
    pub fn new(workers: Vec<WorkerHandle>, leadership: Arc<Leadership>) -> Dataplane {
        let queued = workers.iter().map(|_| VecDeque::new()).collect();
        Dataplane {
            workers,
            queued,
            leadership,
            packets: VecDeque::new(),
            inject_full: 0,
            first: 0,
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

    /// Stops them within a burst; what still comes is labelled and punted.
    pub fn hand_over(&self) {
        self.leadership.hand_over();
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

    /// Retries the commands and the packets that waited.
    pub fn flush(&mut self) {
        for (worker, queue) in self.workers.iter_mut().zip(&mut self.queued) {
            while let Some(command) = queue.pop_front() {
                if let Err(command) = worker.send(command) {
                    queue.push_front(command);
                    break;
                }
            }
        }
        self.flush_packets();
    }

    /// The next event of any worker, with the worker's index.
    pub fn poll_event(&mut self) -> Option<(usize, Event)> {
        self.in_turn(WorkerHandle::poll_event)
    }

    /// The next punted IP packet, copied out of the ring.
    pub fn poll_punt(&mut self, packet: &mut Vec<u8>) -> bool {
        packet.clear();
        let taken = self.in_turn(|worker| {
            let taken = worker
                .punt
                .pop_frame(|octets| packet.extend_from_slice(octets));
            taken.then_some(())
        });
        taken.is_some()
    }

    /// What the first worker that has something gives, beginning with the one after the last.
    fn in_turn<T>(
        &mut self,
        mut take: impl FnMut(&mut WorkerHandle) -> Option<T>,
    ) -> Option<(usize, T)> {
        let count = self.workers.len();
        let order = (self.first..count).chain(0..self.first.min(count));
        for index in order {
            if let Some(taken) = self.workers.get_mut(index).and_then(&mut take) {
                self.first = (index + 1) % count;
                return Some((index, taken));
            }
        }
        None
    }

    /// Sends an IP packet of ours by the first worker, which routes it.
    pub fn inject(&mut self, packet: Vec<u8>) {
        let room = self.workers.first().map_or(0, |worker| worker.punt.mtu());
        // One that never fits would keep all others from leaving.
        if packet.len() > room || self.packets.len() >= WAITING_PACKETS {
            self.inject_full += 1;
            return;
        }
        self.packets.push_back(packet);
        self.flush_packets();
    }

    /// Packets that wait say nothing any more.
    pub fn forget_packets(&mut self) {
        self.packets.clear();
    }

    fn flush_packets(&mut self) {
        let Some(worker) = self.workers.first_mut() else {
            return;
        };
        while let Some(packet) = self.packets.front() {
            if !worker.inject(packet) {
                return;
            }
            self.packets.pop_front();
        }
    }

    /// A worker whose thread has ended.
    pub fn lost(&self) -> Option<usize> {
        self.workers.iter().position(WorkerHandle::is_abandoned)
    }

    /// The newest checkpoint of every SA that has one, with the worker that published it.
    pub fn drain_checkpoints(&mut self, mut take: impl FnMut(usize, Checkpoint)) {
        for (index, worker) in self.workers.iter_mut().enumerate() {
            worker
                .checkpoints
                .drain(|_, checkpoint| take(index, checkpoint));
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
