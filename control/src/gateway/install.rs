//! Child SAs into the workers and out of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::Command;
use hitless_dataplane::replay::{AntiReplay, WindowState};
use hitless_dataplane::sad::{Bound, InboundSa, OutboundSa, SaError};
use hitless_sa::{ChildSa, Lease, SaId, SequenceNumber, Workers};
use hitless_sync::TakeoverSa;

use super::children::{Carried, Direction};
use super::silence::Silence;
use super::{Event, Gateway, Output};
use crate::ike::{self, ChildChange};
use crate::keylog::KeyLines;

impl Gateway {
    /// Makes one change of a Child SA in the dataplane.
    pub(super) fn apply(&mut self, change: ChildChange, leases: &BTreeMap<SaId, Lease>) {
        match change {
            ChildChange::Install {
                child,
                connection,
                name,
                send,
            } => {
                let lease = leases.get(&child.id).copied().unwrap_or_default();
                if self.doubtful.remove(&child.id) {
                    self.rightless.push(child.id);
                }
                // A predecessor's exchange that is completed without a right yields such an SA
                // (`lease-holes` R11): the peer may use it, we may not.
                if !leases.contains_key(&child.id) && !self.inherited.contains_key(&child.id) {
                    self.rightless.push(child.id);
                }
                self.install(child, connection, name, send, lease);
            }
            ChildChange::Send(sa) => {
                let chosen = self.children.use_for_sending(sa);
                self.succeed(&chosen.former, sa);
                self.begins_to_send(sa);
            }
            ChildChange::Update(child) => {
                let (sa, local, remote) = (child.id, child.local, child.remote);
                let encapsulation = child.encapsulation;
                let keepalive = child.options.keepalive;
                let Some(carried) = self.children.get(sa) else {
                    return;
                };
                let moved = (carried.child.local, carried.child.remote) != (local, remote);
                // The addresses of transport mode are its selectors.
                let narrowed = |c: &ChildSa| (c.local_ts.clone(), c.remote_ts.clone());
                self.policies_changed |= narrowed(&carried.child) != narrowed(&child);
                self.children.update(child);
                self.dataplane.broadcast(|| Command::Update {
                    sa,
                    local,
                    remote,
                    encapsulation,
                    keepalive,
                });
                // Wireshark looks its keys up by address.
                if moved {
                    self.log_keys(sa);
                }
            }
            ChildChange::Remove(sa) => {
                self.inherited.remove(&sa);
                self.leaps.remove(&sa);
                self.doubtful.remove(&sa);
                if self.take_out(sa) {
                    self.dataplane.broadcast(|| Command::Remove(sa));
                }
            }
        }
    }

    /// Takes an SA out of those that are carried; whether it was there. One that no policy leads to
    /// leaves them as they are.
    fn take_out(&mut self, sa: SaId) -> bool {
        let Some((gone, successor)) = self.children.remove(sa) else {
            self.policies_changed |= self.publication.never_comes(sa);
            return false;
        };
        self.policies_changed |= gone.send;
        match successor {
            Some(successor) => self.succeed(&[sa], successor),
            // Another SA may carry the same traffic.
            None => self.publication.urgent |= gone.send,
        }
        true
    }

    /// What policies send by these goes by another SA, which takes their place before there are new
    /// policies: of many SAs those take a while, and the peer may have no use for the former any more.
    fn succeed(&mut self, former: &[SaId], sa: SaId) {
        for old in former.iter().copied() {
            let new = Some(sa);
            self.dataplane.broadcast(|| Command::Succeed { old, new });
            self.publication.succeeded(old);
        }
    }

    /// A fresh cell for this leadership (`lease-holes` R3); one above the recorded grant and
    /// everything up to the recorded high water as seen if the SA is inherited (R11).
    fn install(
        &mut self,
        child: Arc<ChildSa>,
        connection: String,
        name: String,
        send: bool,
        lease: Lease,
    ) {
        let sa = child.id;
        if self.children.get(sa).is_some() {
            // A second cell in one leadership would give its numbers again (S1).
            debug_assert!(false, "{sa} is installed already");
            return;
        }
        let inherited = self.inherited.remove(&sa);
        let (first, mut floor, mut lease) = match &inherited {
            Some(t) => (t.first, t.floor, t.lease.max(lease)),
            None => (SequenceNumber(1), SequenceNumber(0), lease),
        };
        let tuning = self.settings.tuning();
        tuning.break_rights(&mut floor, &mut lease);
        let first = self.former.get(&sa).copied().unwrap_or(first);
        let handed_over = inherited.as_ref().filter(|_| !tuning.no_floor);
        let window = first_window(&child, floor, handed_over);
        let cell = Arc::new(Cell::new(first, lease));
        // No worker has drawn from it yet: the first number is above the leap.
        if let Some(delta) = self.leaps.remove(&sa) {
            cell.leap(delta);
        }
        let slot = self.children.take_slot();
        let home = child.inbound_spi.0 as usize % self.dataplane.len().max(1);
        let mut carried = Carried::new(child, cell, slot, (connection, name), floor, home);
        let halves = self.halves(&mut carried, window);
        carried.delta = inherited.as_ref().map_or(0, |t| t.delta);
        carried.silence = Silence::new(inherited.is_some());
        let checkpoint = inherited.as_ref().and_then(|t| t.checkpoint);
        carried.inherit(checkpoint.unwrap_or_default());
        // Known from here on, so that one that fails is taken out as a whole.
        self.children.insert(carried);
        let (inbound, outbound) = match halves {
            Ok(halves) => halves,
            Err(error) => return self.unusable(sa, error.to_string()),
        };
        self.log_keys(sa);
        // Without a checkpoint nothing says where the predecessor came to.
        let left_out = |_| checkpoint.map_or(SequenceNumber(1), |c| c.outbound_next);
        self.enter_grant(sa, SequenceNumber(0), inherited.as_ref().map(left_out));
        for (worker, half) in inbound {
            self.dataplane
                .send(worker, Command::InstallInbound(Box::new(half)));
        }
        for (worker, mut half) in outbound {
            // Of several workers that send, one keeps the NAT's mapping.
            half.keep_alive_at_once = inherited.is_some() && worker == home;
            self.dataplane
                .send(worker, Command::InstallOutbound(Box::new(half)));
        }
        self.tell_home(sa);
        // What came without a right does not take the traffic of what has one.
        let rightless = self.retrieval.rightless.remove(&sa);
        if send && !(rightless && self.children.is_served(sa)) {
            let chosen = self.children.use_for_sending(sa);
            self.succeed(&chosen.former, sa);
            let foreseen = self.publication.foresaw(sa);
            if !(chosen.alone && foreseen) {
                self.begins_to_send(sa);
            }
        }
    }

    /// The keys of an SA for Wireshark, if the user asked for them.
    fn log_keys(&mut self, sa: SaId) {
        if self.settings.config().control.key_log.is_some()
            && let Some(carried) = self.children.get(sa)
        {
            let lines = KeyLines::new(&carried.child);
            self.outputs.push_back(Output::KeyLog(lines));
        }
    }

    /// The keys of an IKE SA that has just come to be, likewise.
    pub(super) fn log_ike_keys(&mut self, event: &ike::Event) {
        let ike = match event {
            ike::Event::IkeEstablished { ike, .. } => *ike,
            ike::Event::IkeRekeyed { new, .. } => *new,
            _ => return,
        };
        if self.settings.config().control.key_log.is_some()
            && let Some(lines) = self.engine.key_lines(ike)
        {
            self.outputs.push_back(Output::KeyLog(lines));
        }
    }

    /// The halves that the SA's workers get (`workers` of its child).
    fn halves(&self, carried: &mut Carried, window: AntiReplay) -> Result<Halves, SaError> {
        let engine = self.settings.aead();
        let (child, cell) = (&Arc::clone(&carried.child), &Arc::clone(&carried.cell));
        let (slot, at_home) = (carried.slot, carried.home);
        let mut tally = |worker, direction| carried.tally(worker, direction);
        let spread = child.options.workers;
        let several = spread == Workers::All && self.dataplane.len() > 1;
        let window = if several { window.share() } else { window };
        let (mut inbound, mut outbound) = (Vec::new(), Vec::new());
        for worker in 0..self.dataplane.len() {
            let (cell, home) = (|| Arc::clone(cell), worker == at_home);
            if home || several {
                let window = window.clone();
                let mut half = InboundSa::with_window(child, cell(), window, slot, engine)?;
                half.counters = tally(worker, Direction::In);
                half.releases_unmarked = self.settings.tuning().releases_unmarked;
                inbound.push((worker, half));
            }
            if home || spread != Workers::One {
                let mut half = OutboundSa::new(child, cell(), slot, engine)?;
                half.counters = tally(worker, Direction::Out);
                outbound.push((worker, half));
            }
        }
        carried.shared = several.then_some(window);
        Ok((inbound, outbound))
    }

    /// Tells the workers without a receiving half whom an SA's packets are for.
    pub(super) fn tell_home(&mut self, sa: SaId) {
        let Some(carried) = self.children.get(sa).filter(|c| c.shared.is_none()) else {
            return;
        };
        let (slot, home) = (carried.slot, carried.home);
        let alone = carried.child.options.workers == Workers::One;
        let bound = Bound {
            spi: carried.child.inbound_spi,
            owner: home,
            outbound: alone.then_some(carried.child.outbound_spi),
        };
        for worker in (0..self.dataplane.len()).filter(|worker| *worker != home) {
            self.dataplane
                .send(worker, Command::Bind { sa, slot, bound });
        }
    }

    /// The workers cannot carry it: none of them does, and its traffic is dropped, not sent in
    /// clear.
    pub(super) fn unusable(&mut self, sa: SaId, reason: String) {
        // Every worker may refuse both halves: it is told of once.
        if !self.take_out(sa) {
            return;
        }
        self.policies_changed |= self.publication.never_comes(sa);
        self.dataplane.broadcast(|| Command::Remove(sa));
        self.tell(Event::Unusable { sa, reason });
    }
}

/// Receiving and sending halves, each with its worker.
type Halves = (Vec<(usize, InboundSa)>, Vec<(usize, OutboundSa)>);

/// What counts as seen when an SA begins here: everything up to the floor, unless a predecessor that
/// stopped for good has said what it really saw (R15).
fn first_window(
    child: &ChildSa,
    floor: SequenceNumber,
    inherited: Option<&TakeoverSa>,
) -> AntiReplay {
    let handed_over = inherited.and_then(|sa| sa.window.as_deref());
    let state = handed_over.and_then(WindowState::from_bytes);
    let window = state.and_then(|state| AntiReplay::inherit(child.replay_window, &state));
    window.unwrap_or_else(|| AntiReplay::new(child.replay_window, floor))
}
