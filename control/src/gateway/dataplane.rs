//! The gateway's end of the workers: commands that wait for room in a ring, and punted packets.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hitless_dataplane::checkpoint::Checkpoint;
use hitless_dataplane::command::{Command, Event};
use hitless_dataplane::counters::Counters;
use hitless_dataplane::port::Port;
use hitless_dataplane::worker::{Leadership, WorkerHandle};
use hitless_sa::Instant;

/// Packets of ours that wait for room in a worker's ring: a takeover of thousands of IKE SAs has
/// something to say to each peer at once.
const WAITING_PACKETS: usize = 8192;

/// Commands that wait for room in a worker's ring: some for each SA that it has room for. A worker that
/// takes none of them never will; what it would do after it lacks one, nobody knows.
const WAITING_COMMANDS: usize = 512 * 1024;

/// The gateway's end of one worker.
struct End {
    handle: WorkerHandle,
    /// Commands that the ring had no room for, oldest first.
    queued: VecDeque<Command>,
    /// Commands that the ring has taken so far.
    delivered: u64,
}

impl End {
    fn flush(&mut self) {
        while let Some(command) = self.queued.pop_front() {
            if let Err(command) = self.handle.send(command) {
                return self.queued.push_front(command);
            }
            self.delivered += 1;
        }
    }
}

/// All workers of one gateway.
pub struct Dataplane {
    workers: Vec<End>,
    /// Commands that may wait for one worker.
    most: usize,
    /// Workers that have ended or are given up, and commands that were dropped because of them.
    lost: BTreeSet<usize>,
    dropped_commands: u64,
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
        let end = |handle| End {
            handle,
            queued: VecDeque::new(),
            delivered: 0,
        };
        Dataplane {
            workers: workers.into_iter().map(end).collect(),
            most: WAITING_COMMANDS,
            lost: BTreeSet::new(),
            dropped_commands: 0,
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

    /// The control thread gets on; without another word they stop after `until`.
    pub fn attend(&self, until: Instant) {
        self.leadership.attend(until);
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
        let end = &mut self.workers[worker];
        let waiting = end.queued.len();
        if waiting >= self.most || self.lost.contains(&worker) {
            self.dropped_commands += 1 + waiting as u64;
            end.queued = VecDeque::new();
            self.lost.insert(worker);
            return;
        }
        end.queued.push_back(command);
        if waiting == 0 {
            end.flush();
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
        self.workers.iter_mut().for_each(End::flush);
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
            let end = self.workers.get_mut(index);
            if let Some(taken) = end.and_then(|end| take(&mut end.handle)) {
                self.first = (index + 1) % count;
                return Some((index, taken));
            }
        }
        None
    }

    /// Sends an IP packet of ours by the first worker, which routes it.
    pub fn inject(&mut self, packet: Vec<u8>) {
        let room = self.workers.first();
        let room = room.map_or(0, |end| end.handle.punt.mtu());
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
        let Some(end) = self.workers.first_mut() else {
            return;
        };
        while let Some(packet) = self.packets.front() {
            if !end.handle.inject(packet) {
                return;
            }
            self.packets.pop_front();
        }
    }

    /// How many commands a worker's ring has taken so far, and how many wait for room in it.
    pub fn progress(&self, worker: usize) -> (u64, usize) {
        let end = self.workers.get(worker);
        end.map_or((0, 0), |end| (end.delivered, end.queued.len()))
    }

    /// Workers whose threads have ended, or that are given up.
    pub fn lost(&mut self) -> &BTreeSet<usize> {
        let workers = self.workers.iter().enumerate();
        let ended = workers.filter(|(_, end)| end.handle.is_abandoned());
        self.lost.extend(ended.map(|(index, _)| index));
        &self.lost
    }

    /// Commands for those.
    pub fn dropped_commands(&self) -> u64 {
        self.dropped_commands
    }

    /// The newest checkpoint of every SA that has one, with the worker that published it.
    pub fn drain_checkpoints(&mut self, mut take: impl FnMut(usize, Checkpoint)) {
        for (index, end) in self.workers.iter_mut().enumerate() {
            let checkpoints = &mut end.handle.checkpoints;
            checkpoints.drain(|_, checkpoint| take(index, checkpoint));
        }
    }

    /// Each worker's counters.
    pub fn counters(&self) -> impl Iterator<Item = &Arc<Counters>> {
        self.workers.iter().map(|end| &end.handle.counters)
    }

    /// Packets of ours that were lost on the way to a worker.
    pub fn inject_full(&self) -> u64 {
        self.inject_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hitless_dataplane::worker::{CheckpointSettings, Worker, WorkerSettings, worker};

    fn dataplane(workers: usize) -> (Dataplane, Vec<Worker>) {
        let leadership = Leadership::new(false);
        let settings = |id| WorkerSettings {
            id,
            interfaces: Vec::new(),
            pool_frames: 64,
            pool_runs: 0,
            checkpoint: CheckpointSettings::default(),
            sa_capacity: 8,
        };
        let made = (0..workers).map(|id| {
            let made = worker(settings(id), Vec::new(), Arc::clone(&leadership));
            made.unwrap()
        });
        let (running, handles) = made.unzip();
        (Dataplane::new(handles, leadership), running)
    }

    fn nothing_waits(dataplane: &Dataplane) -> bool {
        dataplane.workers.iter().all(|end| end.queued.is_empty())
    }

    #[test]
    fn commands_behind_a_worker_that_takes_none_are_bounded_and_it_is_given_up() {
        let (mut dataplane, mut running) = dataplane(2);
        dataplane.most = 100;
        for number in 0..1_000_000u64 {
            // The first one runs, the second one does not.
            dataplane.broadcast(|| Command::Barrier(number));
            running[0].turn(Instant(number));
            dataplane.flush();
            while dataplane.poll_event().is_some() {}
            if !dataplane.lost().is_empty() {
                break;
            }
        }
        assert_eq!(*dataplane.lost(), BTreeSet::from([1]));
        assert_eq!(dataplane.dropped_commands(), 101);
        assert!(nothing_waits(&dataplane));
        dataplane.send(1, Command::Announce);
        dataplane.send(0, Command::Barrier(7));
        assert_eq!(dataplane.dropped_commands(), 102);
        running[0].turn(Instant(0));
        assert!(matches!(
            dataplane.poll_event(),
            Some((0, Event::Barrier(7)))
        ));
        // So is the other one, if it takes none either.
        for number in 0..10_000 {
            dataplane.send(0, Command::Barrier(number));
        }
        assert_eq!(*dataplane.lost(), BTreeSet::from([0, 1]));
        assert!(nothing_waits(&dataplane));
    }

    #[test]
    fn nothing_waits_for_workers_that_have_ended() {
        let (mut dataplane, mut running) = dataplane(3);
        assert!(dataplane.lost().is_empty());
        running.pop();
        assert_eq!(*dataplane.lost(), BTreeSet::from([2]));
        running.clear();
        assert_eq!(*dataplane.lost(), BTreeSet::from([0, 1, 2]));
        for _ in 0..10_000 {
            dataplane.send(0, Command::Announce);
        }
        assert_eq!(dataplane.dropped_commands(), 10_000);
    }

    #[test]
    fn what_waits_enters_the_ring_as_the_worker_makes_room() {
        let (mut dataplane, mut running) = dataplane(1);
        let (mut sent, mut before) = (0, 0);
        while dataplane.progress(0).1 < 3 {
            dataplane.send(0, Command::Barrier(sent));
            sent += 1;
            let (delivered, waiting) = dataplane.progress(0);
            assert_eq!(delivered + waiting as u64, sent);
            before = delivered;
        }
        dataplane.flush();
        assert_eq!(dataplane.progress(0), (before, 3));
        running[0].turn(Instant(0));
        dataplane.flush();
        assert_eq!(dataplane.progress(0), (sent, 0));
    }
}
