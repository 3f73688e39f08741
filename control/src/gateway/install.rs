//! Child SAs into the workers and out of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::Command;
use hitless_dataplane::sad::{InboundSa, OutboundSa};
use hitless_sa::{ChildSa, Lease, SaId, SequenceNumber};
use hitless_sync::Checkpoint;

use super::children::Carried;
use super::silence::Silence;
use super::{Event, Gateway, Output};
use crate::ike::ChildChange;

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
                self.install(child, connection, name, send, lease);
            }
            ChildChange::Send(sa) => {
                self.children.use_for_sending(sa);
                self.publish_policies();
            }
            ChildChange::Update(child) => {
                let (sa, local, remote) = (child.id, child.local, child.remote);
                let encapsulation = child.encapsulation;
                if let Some(carried) = self.children.get_mut(sa) {
                    carried.child = child;
                }
                self.dataplane.broadcast(|| Command::Update {
                    sa,
                    local,
                    remote,
                    encapsulation,
                });
            }
            ChildChange::Remove(sa) => {
                self.children.remove(sa);
                self.dataplane.broadcast(|| Command::Remove(sa));
                self.publish_policies();
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
        let inherited = self.inherited.remove(&sa);
        let (first, floor, lease) = match &inherited {
            Some(t) => (t.first, t.floor, t.lease.max(lease)),
            None => (SequenceNumber(1), SequenceNumber(0), lease),
        };
        let cell = Arc::new(Cell::new(first, lease));
        let slot = self.children.take_slot();
        let engine = self.settings.aead();
        let inbound = InboundSa::new(&child, Arc::clone(&cell), floor, slot, engine);
        match inbound {
            Ok(inbound) => {
                let home = child.inbound_spi.0 as usize % self.dataplane.len().max(1);
                self.dataplane
                    .send(home, Command::InstallInbound(Box::new(inbound)));
            }
            Err(error) => return self.unusable(sa, error.to_string()),
        }
        for worker in 0..self.dataplane.len() {
            match OutboundSa::new(&child, Arc::clone(&cell), slot, engine) {
                Ok(outbound) => {
                    self.dataplane
                        .send(worker, Command::InstallOutbound(Box::new(outbound)));
                }
                Err(error) => return self.unusable(sa, error.to_string()),
            }
        }
        let carried = Carried {
            child,
            cell,
            slot,
            connection,
            name,
            send: false,
            seen_top: floor,
            counters: Checkpoint::default(),
            used_in: None,
            used_out: None,
            silence: inherited.map(|_| Silence::default()),
        };
        self.children.insert(carried);
        if send {
            self.children.use_for_sending(sa);
        }
        self.publish_policies();
    }

    pub(super) fn unusable(&mut self, sa: SaId, reason: String) {
        self.outputs
            .push_back(Output::Event(Event::Unusable { sa, reason }));
    }
}
