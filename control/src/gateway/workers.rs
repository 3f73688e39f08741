//! What the workers report: events, checkpoints, IKE packets, and where their cells stand.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hitless_dataplane::command::{Command, Event as WorkerEvent, Retired};
use hitless_dataplane::parcel::Parcel;
use hitless_sa::{Entropy, Instant, SaId, Spi, Workers};
use hitless_sync::Input as SyncInput;

use super::children::Direction;
use super::silence::DOUBT;
use super::{Event, Gateway, punt};
use crate::ike::Input;
use crate::ike::work::Share;

/// Events taken from the workers in one turn.
const EVENTS_A_TURN: usize = 1024;
/// Punted packets taken in one turn, unless what they ask for has taken its share before: a flood of
/// them must not keep leases from being extended, nor handshakes the heartbeats.
const PUNTS_A_TURN: usize = 128;

/// SAs looked at in one scan: with more of them each waits for some scans, which leases are long
/// enough for, and heartbeats are not.
const LOOKED_AT: usize = 4096;

/// How long a receiving half stays on a worker at least.
const SETTLED: Duration = Duration::from_millis(100);

impl Gateway {
    /// Takes what the workers have to say; returns how much it was.
    pub(super) fn take_events(&mut self, now: Instant, entropy: &mut dyn Entropy) -> usize {
        let mut work = 0;
        while work < EVENTS_A_TURN {
            let Some((worker, event)) = self.dataplane.poll_event() else {
                break;
            };
            work += 1;
            self.beat();
            self.worker_event(now, entropy, worker, event);
        }
        work + self.take_checkpoints(now, entropy)
    }

    fn take_checkpoints(&mut self, now: Instant, entropy: &mut dyn Entropy) -> usize {
        let mut checkpoints = Vec::new();
        self.dataplane
            .drain_checkpoints(|worker, checkpoint| checkpoints.push((worker, checkpoint)));
        let work = checkpoints.len();
        for (worker, published) in checkpoints {
            self.beat();
            let sa = published.sa;
            let Some(carried) = self.children.get_mut(sa) else {
                continue;
            };
            let checkpoint = carried.note(now, worker, published);
            let input = SyncInput::Checkpoint { sa, checkpoint };
            self.node.handle(now, entropy, input);
            let bytes = checkpoint.bytes_in.max(checkpoint.bytes_out);
            let packets = checkpoint.packets_in.max(checkpoint.packets_out);
            if self.engine.is_spent(sa, bytes, packets) {
                self.tell_ike(now, entropy, Input::Carried { sa, bytes, packets });
            }
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
            WorkerEvent::Retired(retired) => self.retired(now, entropy, &retired),
            WorkerEvent::Barrier(barrier) => {
                self.pulse(worker, barrier);
                self.late.passed(worker, barrier);
                self.barrier_passed(now, entropy, worker, barrier);
            }
            WorkerEvent::Answered { port, address } => self.next_hops.answered(port, address),
            WorkerEvent::NeighbourLearned(news) => {
                self.neighbours.learned(now, worker, news);
                for other in (0..self.dataplane.len()).filter(|other| *other != worker) {
                    self.dataplane.send(other, Command::Neighbour(news));
                }
            }
            WorkerEvent::BelowFloor { sa } => self.below_floor(now, entropy, sa),
            WorkerEvent::PeerMoved { sa, remote } => {
                self.tell_ike(now, entropy, Input::ChildPeerMoved { sa, remote });
            }
            WorkerEvent::Refused { sa, conflict } => {
                self.unusable(sa, format!("a worker refused it: {conflict:?}"));
            }
            WorkerEvent::UnknownSpi { spi, source } => {
                self.unknown_spi(now, entropy, spi, source.ip());
            }
            WorkerEvent::Strayed { sa, to } => self.follow(now, to, sa),
            WorkerEvent::Moved { sa } => self.moved(worker, sa),
            WorkerEvent::Stayed { sa } => {
                if let Some(carried) = self.children.get_mut(sa) {
                    carried.moving = None;
                }
            }
            WorkerEvent::Window {
                sa,
                question,
                state,
            } => self.window_known(sa, question, state),
            WorkerEvent::Acquire { flow, .. } => self.wanted(now, entropy, &flow),
            // A hint that nobody asks for: the scan sees the high water.
            WorkerEvent::HighWater { .. } => {}
        }
    }

    /// A packet of a peer for an SA that this member does not have.
    fn unknown_spi(&mut self, now: Instant, entropy: &mut dyn Entropy, spi: Spi, source: IpAddr) {
        if self.go_on_at(now, entropy, spi) {
            return;
        }
        self.children.hear_foreign(now, source);
        let ours = self.settings.owner(spi).is_some();
        if ours && self.dataplane.leading() {
            self.ask_for(now, entropy, spi);
        }
        if ours && self.dataplane.leading() && self.foreign.note(now, source, spi) {
            self.tell_ike(now, entropy, Input::UnknownSpi { source, spi });
        }
    }

    /// The receiving half of an SA lives on one worker, because its window does, and the others
    /// hand its packets over. That costs a copy, so the half follows them: the network card decides
    /// which queue, and so which worker, a peer's packets come to. Only authentic packets say so,
    /// and a half does not move often.
    fn follow(&mut self, now: Instant, worker: usize, sa: SaId) {
        let Some(carried) = self.children.get_mut(sa) else {
            return;
        };
        let recently = carried.moved_at.is_some_and(|at| now.since(at) < SETTLED);
        let any = carried.child.options.workers == Workers::Any;
        let free = any && carried.moving.is_none();
        if !free || carried.home == worker || recently {
            return;
        }
        carried.moving = Some(worker);
        carried.moved_at = Some(now);
        let home = carried.home;
        let (to, counters) = (worker, carried.tally(worker, Direction::In));
        self.dataplane
            .send(home, Command::Move { sa, to, counters });
    }

    /// The receiving half has come to a worker: the others hand their packets to that one.
    fn moved(&mut self, worker: usize, sa: SaId) {
        let Some(carried) = self.children.get_mut(sa) else {
            return;
        };
        carried.moving = None;
        carried.home = worker;
        // An update may have missed it on its way.
        let child = &carried.child;
        let update = Command::Update {
            sa,
            local: child.local,
            remote: child.remote,
            encapsulation: child.encapsulation,
            keepalive: child.options.keepalive,
        };
        self.dataplane.send(worker, update);
        self.tell_home(sa);
    }

    /// What a worker gave back is dropped here, so that no worker ever frees memory.
    fn retired(&mut self, now: Instant, entropy: &mut dyn Entropy, retired: &Retired) {
        let (sa, cell) = match retired {
            Retired::Inbound(half) => (half.id, &half.cell),
            Retired::Outbound(half) => (half.id, &half.cell),
            Retired::Policies(_) | Retired::Routes(_) | Retired::Watched(_) => return,
        };
        // Every other way out of a worker begins with the SA's end here, or with another cell.
        let current = self.children.get(sa);
        if !current.is_some_and(|carried| Arc::ptr_eq(&carried.cell, cell)) {
            return;
        }
        // The last checkpoint of a half was published before it was given back.
        self.take_checkpoints(now, entropy);
    }

    /// Takes IKE packets; returns how many.
    pub(super) fn take_punts(&mut self, now: Instant, entropy: &mut dyn Entropy) -> usize {
        let mut work = 0;
        let mut packet = std::mem::take(&mut self.packet);
        let share = Share::of_a_turn();
        while work < PUNTS_A_TURN && !share.is_spent() && self.dataplane.poll_punt(&mut packet) {
            work += 1;
            if self.late.forwards() {
                self.beat();
                self.forward_late(now, entropy, &packet);
                continue;
            }
            if Parcel::parse(&packet).is_some() {
                self.take_early(now, entropy, &packet);
                continue;
            }
            match punt::ike_datagram(&packet) {
                Some((local, remote, payload)) => {
                    let input = Input::Datagram {
                        local,
                        remote,
                        payload,
                    };
                    self.tell_ike(now, entropy, input);
                    // One message, one commit: outputs leave before the next input is taken.
                    self.carry(now, entropy);
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
        self.watch_workers(now);
        self.engine.set_replicated(self.node.may_be_beside());
        self.end_blackouts(now, entropy);
        let mut usage = Vec::new();
        let mut seen = Vec::new();
        let mut silent = Vec::new();
        let doubt = self.joined.is_some_and(|at| now.since(at) < DOUBT);
        self.children.look(LOOKED_AT, |carried, foreign| {
            let (cursor, inbound_top) = (carried.cell.cursor(), carried.cell.inbound_top());
            if carried
                .silence
                .note(now, (cursor, inbound_top), foreign, doubt)
            {
                silent.push(carried.child.id);
            }
            usage.extend(carried.usage());
            if carried.heard(now) {
                seen.push(carried.child.id);
            }
        });
        if self.dataplane.leading() && !usage.is_empty() {
            self.node.handle(now, entropy, SyncInput::Usage(usage));
        }
        for sa in seen {
            self.beat();
            self.tell_ike(now, entropy, Input::Traffic { sa });
        }
        for sa in silent {
            self.beat();
            self.tell(Event::Silent { sa });
            self.tell_ike(now, entropy, Input::RekeyChild(sa));
        }
    }
}
