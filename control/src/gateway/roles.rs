//! What this member is to the cluster: standing by, leading, handing over, stepping down.

use hitless_dataplane::command::Command;
use hitless_dataplane::replay::WindowState;
use hitless_sa::{Entropy, Epoch, IkeSpi, Instant, SaId};
use hitless_sync::{DrainedSa, Input as SyncInput, Left, StepDown, TakeoverObject};

use super::drain::Drain;
use super::drill::Drill;
use super::{Event, Gateway};

/// SAs whose windows are handed over at most: the service waits for that.
const WINDOWS: usize = 4096;
/// Numbers of each. No network holds packets back for longer.
const WINDOW: u32 = 1024;

impl Gateway {
    /// Keeps a standby's copy of an IKE SA; an older copy of one that cannot be read is wrong.
    pub(super) fn store(&mut self, now: Instant, ike: IkeSpi, version: u64, body: &[u8]) -> bool {
        let before = self.shown(ike);
        let stored = self.engine.store(now, ike, version, body);
        if let Err(error) = &stored {
            self.forget(ike);
            self.counts.unreadable += 1;
            self.fail_drill(ike, &error.to_string());
            self.unreadable(ike, error.to_string());
        } else {
            self.drill(now, ike);
        }
        self.policies_changed |= before != self.shown(ike);
        stored.is_ok()
    }

    /// A standby's copy is obsolete.
    pub(super) fn forget(&mut self, ike: IkeSpi) {
        self.policies_changed |= !self.shown(ike).is_empty();
        self.engine.forget(ike);
        self.drilled.forget(ike);
    }

    /// Leads: the SAs that are inherited are installed as IKE resumes theirs and its commits are
    /// recorded; the others get new keys.
    pub(super) fn lead(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        epoch: Epoch,
        base: Option<Epoch>,
        objects: Vec<TakeoverObject>,
        left_over: Left,
    ) {
        let alike = |all: bool, left: bool| all && (left || left_over.objects == 0);
        let exact = alike(objects.iter().all(|object| object.exact), left_over.exact);
        let mut children = objects.iter().flat_map(|object| &object.children);
        let handed_over = children.any(|sa| sa.window.is_some());
        let handed_over = handed_over || left_over.objects > 0 && left_over.handed_over;
        self.skip = 0;
        self.gradual = left_over.objects > 0;
        self.inherited.clear();
        self.leaps.clear();
        let mut lost = Vec::new();
        for object in objects {
            self.beat();
            lost.extend(self.inherit(now, object));
        }
        self.drilled.leave();
        self.takeovers += u64::from(base.is_some());
        self.dataplane.set_leading(true);
        self.late.lead(now, handed_over);
        self.dataplane.broadcast(|| Command::Strangers(true));
        if !handed_over {
            self.dataplane.broadcast(|| Command::Announce);
        }
        let sas = self.inherited.len() + left_over.sas;
        self.engine.set_replicated(self.node.may_be_beside());
        self.engine.lead_planned(now, entropy, exact);
        // Few are gone on with already; at the next turn it is over even then.
        self.publication.left = self.left_to_inherit().max(1);
        let event = Event::Leads {
            epoch,
            base,
            sas,
            skip: (left_over.objects == 0).then_some(self.skip),
            exact,
        };
        self.tell(event);
        for (ike, version) in lost {
            self.give_up(now, entropy, ike, version + 1, &[]);
        }
    }

    /// Stops carrying traffic. The node then asks for the exact ends, goes on without any if the workers
    /// do not answer in time, or takes it all back.
    pub(super) fn start_drain(&mut self, now: Instant) {
        self.handing_over = true;
        if !self.settings.tuning().final_too_soon {
            self.stop_carrying();
        }
        self.barriers += 1;
        let barrier = self.barriers;
        self.drain = Some(Drain::new(barrier, self.dataplane.len()));
        // Workers have stopped when they take these, and answer them before the barrier.
        let busy = self.children.iter().filter(|carried| carried.receives(now));
        let own = busy.filter(|carried| carried.shared.is_none());
        let asked = own.take(WINDOWS).map(|c| (c.home, c.child.id));
        for (home, sa) in asked.collect::<Vec<_>>() {
            let question = barrier;
            self.dataplane
                .send(home, Command::QueryWindow { sa, question });
        }
        self.dataplane.broadcast(|| Command::Barrier(barrier));
    }

    /// What a receiving half has seen.
    pub(super) fn window_known(&mut self, sa: SaId, question: u64, state: Option<WindowState>) {
        if let (Some(drain), Some(state)) = (&mut self.drain, state) {
            drain.known(sa, question, state);
        }
    }

    /// Every worker has passed a burst boundary since leadership went off.
    pub(super) fn barrier_passed(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        worker: usize,
        barrier: u64,
    ) {
        let Some(drain) = &mut self.drain else { return };
        if drain.passed(worker, barrier) {
            self.node.handle(now, entropy, SyncInput::Drained);
        }
    }

    /// What the cells say now is final (`lease-holes` A4, R15): all workers have passed the barrier.
    pub(super) fn freeze(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        let drain = self.drain.take();
        let mut windows = drain.map(Drain::into_windows).unwrap_or_default();
        let too_soon = self.settings.tuning().final_too_soon;
        // Frozen before they are read: whatever a worker does, these are the last numbers.
        let mut drained = Vec::with_capacity(self.children.len());
        self.look_at_all(|carried| {
            if !too_soon {
                carried.cell.freeze();
            }
            let mut lease = carried.cell.used();
            // An SA that heard nothing in this leadership has still everything behind it that its
            // predecessors may have delivered (S3): `seen_top` begins at the floor.
            lease.high_water = lease.high_water.max(carried.seen_top);
            let shared = carried.shared.as_ref().filter(|_| carried.receives(now));
            let state = match shared {
                Some(window) => window.export(),
                None => windows.remove(&carried.child.id),
            };
            let newest = state.and_then(|state| state.newest(WINDOW));
            drained.push(DrainedSa {
                sa: carried.child.id,
                lease,
                window: newest.map(|state| state.to_bytes()).unwrap_or_default(),
            });
        });
        self.node.handle(now, entropy, SyncInput::Ends(drained));
    }

    /// The switchover is off, and no cell was frozen: the workers go on with the ones that they have, IKE
    /// with what it was told to forget.
    pub(super) fn resume_leading(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.drain = None;
        self.handing_over = false;
        self.take_back(now);
        for (ike, version) in std::mem::take(&mut self.refused) {
            self.discard(now, entropy, ike, version);
        }
    }

    /// Leadership off, cells frozen, nothing that waited ever leaves. Passive copies come back
    /// from the new leader.
    pub(super) fn step_down(&mut self, now: Instant, reason: StepDown) {
        if reason == StepDown::Switchover {
            self.handed_over(now);
        } else {
            self.stop_forwarding();
            self.keep_copies(now);
        }
        self.break_end();
        let carried: Vec<SaId> = self.children.clear();
        self.handing_over = false;
        self.drain = None;
        self.held.clear();
        self.refused.clear();
        self.too_large.clear();
        self.inherited.clear();
        self.leaps.clear();
        self.doubtful.clear();
        self.rightless.clear();
        self.retrieval.rightless.clear();
        self.blackouts.clear();
        self.engine.step_down();
        self.drilled = Drill::anew();
        self.dataplane.forget_packets();
        for sa in carried {
            self.beat();
            self.dataplane.broadcast(|| Command::Remove(sa));
        }
        self.policies_changed = true;
        self.publication.urgent = true;
        self.tell(Event::SteppedDown { reason });
    }
}
