//! What the workers report: events, checkpoints, IKE packets, and where their cells stand.

use hitless_dataplane::command::{Command, Event as WorkerEvent};
use hitless_sa::{Entropy, Instant};
use hitless_sync::{Input as SyncInput, Usage};

use super::{Event, Gateway, Output, punt};
use crate::ike::Input;

/// Events taken from the workers in one turn.
const EVENTS_A_TURN: usize = 1024;
/// Punted packets taken in one turn: a flood of them must not keep leases from being extended.
const PUNTS_A_TURN: usize = 128;

impl Gateway {
    /// Takes what the workers have to say; returns how much it was.
    pub(super) fn take_events(&mut self, now: Instant, entropy: &mut dyn Entropy) -> usize {
        let mut work = 0;
        while work < EVENTS_A_TURN {
            let Some((worker, event)) = self.dataplane.poll_event() else {
                break;
            };
            work += 1;
            self.worker_event(now, entropy, worker, event);
        }
        let mut checkpoints = Vec::new();
        self.dataplane
            .drain_checkpoints(|worker, checkpoint| checkpoints.push((worker, checkpoint)));
        work += checkpoints.len();
        for (worker, published) in checkpoints {
            let sa = published.sa;
            let Some(carried) = self.children.get_mut(sa) else {
                continue;
            };
            let checkpoint = carried.note(now, worker, published);
            let input = SyncInput::Checkpoint { sa, checkpoint };
            self.node.handle(now, entropy, input);
        }
        work
    }

    fn worker_event(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        worker: usize,
        event: WorkerEvent,
    ) {
        match event {
            // Dropped here, so that no worker ever frees memory.
            WorkerEvent::Retired(_) => {}
            WorkerEvent::Barrier(barrier) => self.barrier_passed(now, entropy, worker, barrier),
            WorkerEvent::NeighbourLearned { port, address, mac } => {
                for other in (0..self.dataplane.len()).filter(|other| *other != worker) {
                    self.dataplane
                        .send(other, Command::Neighbour { port, address, mac });
                }
            }
            WorkerEvent::BelowFloor { sa } => self.below_floor(now, entropy, sa),
            WorkerEvent::PeerMoved { sa, remote } => {
                self.tell_ike(now, entropy, Input::ChildPeerMoved { sa, remote });
            }
            WorkerEvent::Refused { sa, conflict } => {
                self.unusable(sa, format!("a worker refused it: {conflict:?}"));
            }
            WorkerEvent::UnknownSpi { source, .. } => {
                let carried = self.children.iter_mut();
                for carried in carried.filter(|c| c.child.remote == source.ip()) {
                    if let Some(silence) = &mut carried.silence {
                        silence.foreign(now);
                    }
                }
            }
            // Hints that nobody asks for: the scan sees the high water, traps are not initiated.
            WorkerEvent::Acquire { .. }
            | WorkerEvent::HighWater { .. }
            | WorkerEvent::Window { .. } => {}
        }
    }

    /// Takes IKE packets; returns how many.
    pub(super) fn take_punts(&mut self, now: Instant, entropy: &mut dyn Entropy) -> usize {
        let mut work = 0;
        let mut packet = std::mem::take(&mut self.packet);
        while work < PUNTS_A_TURN && self.dataplane.poll_punt(&mut packet) {
            work += 1;
            match punt::ike_datagram(&packet) {
                Some((local, remote, payload)) => {
                    let input = Input::Datagram {
                        local,
                        remote,
                        payload,
                    };
                    self.tell_ike(now, entropy, input);
                    // One message, one commit: outputs leave before the next input is taken.
                    self.settle(now, entropy);
                }
                None => self.counts.punt_refused += 1,
            }
        }
        self.packet = packet;
        work
    }

    /// Looks at every cell: the level, not an edge, decides when a lease is extended
    /// (`lease-holes` D12).
    pub(super) fn scan(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.watch_workers(now, entropy);
        let mut usage = Vec::new();
        let mut seen = Vec::new();
        let mut silent = Vec::new();
        for carried in self.children.iter_mut() {
            let inbound_top = carried.cell.inbound_top();
            let cursor = carried.cell.cursor();
            if let Some(silence) = &mut carried.silence
                && silence.note(now, cursor, inbound_top)
            {
                silent.push(carried.child.id);
            }
            if inbound_top > carried.seen_top {
                carried.seen_top = inbound_top;
                seen.push(carried.child.id);
            }
            usage.push(Usage {
                sa: carried.child.id,
                cursor,
                inbound_top,
                esn: carried.child.esn,
            });
        }
        if self.dataplane.leading() && !usage.is_empty() {
            self.node.handle(now, entropy, SyncInput::Usage(usage));
        }
        for sa in seen {
            self.tell_ike(now, entropy, Input::Traffic { sa });
        }
        for sa in silent {
            self.outputs.push_back(Output::Event(Event::Silent { sa }));
            self.tell_ike(now, entropy, Input::RekeyChild(sa));
        }
    }

    /// A member without all of its workers is no active: another one takes over if it can.
    fn watch_workers(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        if self.worker_lost {
            return;
        }
        let Some(worker) = self.dataplane.lost() else {
            return;
        };
        self.worker_lost = true;
        self.outputs
            .push_back(Output::Event(Event::WorkerLost { worker }));
        let input = SyncInput::Health { healthy: false };
        self.node.handle(now, entropy, input);
    }
}
