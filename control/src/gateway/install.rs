//! Child SAs into the workers and out of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::Command;
use hitless_dataplane::sad::{InboundSa, OutboundSa, SaError};
use hitless_sa::{ChildSa, Lease, SaId, SequenceNumber};

use super::children::{Carried, Direction};
use super::silence::Silence;
use super::{Event, Gateway, Output};
use crate::ike::ChildChange;
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
                // A predecessor's exchange that is completed without a right yields such an SA
                // (`lease-holes` R11): the peer may use it, we may not.
                if !leases.contains_key(&child.id) && !self.inherited.contains_key(&child.id) {
                    self.rightless.push(child.id);
                }
                self.install(child, connection, name, send, lease);
            }
            ChildChange::Send(sa) => {
                self.children.use_for_sending(sa);
                self.policies_changed = true;
            }
            ChildChange::Update(child) => {
                let (sa, local, remote) = (child.id, child.local, child.remote);
                let encapsulation = child.encapsulation;
                let Some(carried) = self.children.get_mut(sa) else {
                    return;
                };
                let moved = (carried.child.local, carried.child.remote) != (local, remote);
                carried.child = child;
                self.dataplane.broadcast(|| Command::Update {
                    sa,
                    local,
                    remote,
                    encapsulation,
                });
                // Wireshark looks its keys up by address.
                if moved {
                    self.log_keys(sa);
                }
            }
            ChildChange::Remove(sa) => {
                self.inherited.remove(&sa);
                if self.children.remove(sa).is_some() {
                    self.dataplane.broadcast(|| Command::Remove(sa));
                    self.policies_changed = true;
                }
            }
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
        if tuning.no_floor {
            floor = SequenceNumber(0);
        }
        if tuning.no_high_water {
            lease.high_water = SequenceNumber(u64::MAX);
        }
        let cell = Arc::new(Cell::new(first, lease));
        let slot = self.children.take_slot();
        let home = child.inbound_spi.0 as usize % self.dataplane.len().max(1);
        let halves = self.halves(&child, &cell, floor, slot);
        let mut carried = Carried::new(child, cell, slot, (connection, name), floor, home);
        carried.delta = inherited.as_ref().map_or(0, |t| t.delta);
        carried.silence = Silence::new(inherited.is_some());
        let halves = halves.map(|(mut inbound, mut outbound)| {
            inbound.counters = carried.tally(home, Direction::In);
            for (worker, half) in outbound.iter_mut().enumerate() {
                half.counters = carried.tally(worker, Direction::Out);
            }
            (inbound, outbound)
        });
        // Known from here on, so that one that fails is taken out as a whole.
        self.children.insert(carried);
        let (inbound, outbound) = match halves {
            Ok(halves) => halves,
            Err(error) => return self.unusable(sa, error.to_string()),
        };
        self.log_keys(sa);
        self.dataplane
            .send(home, Command::InstallInbound(Box::new(inbound)));
        for (worker, outbound) in outbound.into_iter().enumerate() {
            self.dataplane
                .send(worker, Command::InstallOutbound(Box::new(outbound)));
        }
        if send {
            self.children.use_for_sending(sa);
        }
        self.policies_changed = true;
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

    /// The receiving half for its home worker and a sending half for each.
    fn halves(
        &self,
        child: &ChildSa,
        cell: &Arc<Cell>,
        floor: SequenceNumber,
        slot: u32,
    ) -> Result<(InboundSa, Vec<OutboundSa>), SaError> {
        let engine = self.settings.aead();
        let inbound = InboundSa::new(child, Arc::clone(cell), floor, slot, engine)?;
        let outbound = (0..self.dataplane.len())
            .map(|_| OutboundSa::new(child, Arc::clone(cell), slot, engine));
        Ok((inbound, outbound.collect::<Result<_, _>>()?))
    }

    /// The workers cannot carry it: none of them does, and its traffic is dropped, not sent in
    /// clear.
    pub(super) fn unusable(&mut self, sa: SaId, reason: String) {
        // Every worker may refuse both halves: it is told of once.
        if self.children.remove(sa).is_none() {
            return;
        }
        self.dataplane.broadcast(|| Command::Remove(sa));
        self.policies_changed = true;
        self.outputs
            .push_back(Output::Event(Event::Unusable { sa, reason }));
    }
}
