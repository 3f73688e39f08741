//! The Child SAs that the dataplane carries: their cells, their slots and the policies that lead
//! to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use hitless_dataplane::cell::Cell;
use hitless_dataplane::spd::{Action, Policy, Spd};
use hitless_sa::{ChildSa, Instant, SaId, SequenceNumber, TrafficSelector};
use hitless_sync::Checkpoint;

use super::silence::Silence;

/// One Child SA in the dataplane.
pub struct Carried {
    pub child: Arc<ChildSa>,
    /// The lease of this leadership. A fresh cell for every SA and leadership, never reset.
    pub cell: Arc<Cell>,
    /// Index in the workers' checkpoint tables.
    pub slot: u32,
    /// `connections.<connection>.children.<name>`.
    pub connection: String,
    pub name: String,
    /// Whether outbound traffic uses it.
    pub send: bool,
    /// Highest authenticated inbound number at the last scan.
    pub seen_top: SequenceNumber,
    /// What the workers last published, and when each direction last moved.
    pub counters: Checkpoint,
    pub used_in: Option<Instant>,
    pub used_out: Option<Instant>,
    /// Watched for silence, if it was inherited.
    pub silence: Option<Silence>,
}

/// All Child SAs in the dataplane.
#[derive(Default)]
pub struct Children {
    carried: BTreeMap<SaId, Carried>,
    free_slots: Vec<u32>,
    next_slot: u32,
}

impl Children {
    /// A slot for a new SA; slots are reused.
    pub fn take_slot(&mut self) -> u32 {
        self.free_slots.pop().unwrap_or_else(|| {
            self.next_slot += 1;
            self.next_slot - 1
        })
    }

    /// Adds an SA that the workers were told to install.
    pub fn insert(&mut self, carried: Carried) {
        self.carried.insert(carried.child.id, carried);
    }

    /// Removes an SA; its cell is frozen, so that a worker that still holds it sends nothing.
    pub fn remove(&mut self, sa: SaId) -> Option<Carried> {
        let carried = self.carried.remove(&sa)?;
        carried.cell.freeze();
        self.free_slots.push(carried.slot);
        Some(carried)
    }

    /// Removes all of them.
    pub fn clear(&mut self) -> Vec<SaId> {
        let all: Vec<SaId> = self.carried.keys().copied().collect();
        for sa in &all {
            self.remove(*sa);
        }
        all
    }

    pub fn get(&self, sa: SaId) -> Option<&Carried> {
        self.carried.get(&sa)
    }

    pub fn get_mut(&mut self, sa: SaId) -> Option<&mut Carried> {
        self.carried.get_mut(&sa)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Carried> {
        self.carried.values()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Carried> {
        self.carried.values_mut()
    }

    /// Makes an SA the one that its child's outbound traffic uses; older ones of the same child
    /// and the same selectors stop sending.
    pub fn use_for_sending(&mut self, sa: SaId) {
        let Some(chosen) = self.carried.get(&sa) else {
            return;
        };
        let (connection, name) = (chosen.connection.clone(), chosen.name.clone());
        let remote = chosen.child.remote_ts.clone();
        for carried in self.carried.values_mut() {
            let same_child = carried.connection == connection && carried.name == name;
            if same_child && carried.child.remote_ts == remote {
                carried.send = carried.child.id == sa;
            }
        }
    }

    /// The policies in order: SAs that are up, then what the configuration wants protected even
    /// while no SA is up, so that it never leaves in clear.
    pub fn policies(&self, configured: &[Policy]) -> Spd {
        let mut policies = Vec::new();
        for carried in self.carried.values().filter(|carried| carried.send) {
            let action = Action::Protect(Some(carried.child.id));
            for local in &carried.child.local_ts {
                for remote in &carried.child.remote_ts {
                    policies.push(Policy {
                        local: *local,
                        remote: *remote,
                        action: action.clone(),
                    });
                }
            }
        }
        policies.extend(configured.iter().cloned());
        Spd::new(policies)
    }
}

/// PROTECT policies for every pair of selectors, with no SA yet.
pub fn protect(local: &[TrafficSelector], remote: &[TrafficSelector]) -> Vec<Policy> {
    let pairs = local
        .iter()
        .flat_map(|local| remote.iter().map(move |remote| (*local, *remote)));
    pairs
        .map(|(local, remote)| Policy {
            local,
            remote,
            action: Action::Protect(None),
        })
        .collect()
}
