//! One member's process around its node: cells that draw and deliver, and an IKE engine that
//! commits. Everything here dies with the process.

use std::collections::{BTreeMap, BTreeSet};

use hitless_sa::{Incarnation, Lease, MemberId, SaId, SequenceNumber};
use hitless_sync::{Checkpoint, DrainedSa, ObjectId, Output, TakeoverObject, Usage};
use zeroize::Zeroizing;

use super::oracle::{Oracle, Term};
use super::random::Random;

/// The lease cell and the window of one SA in one leadership.
pub struct Cell {
    pub cursor: u64,
    pub lease: Lease,
    floor: u64,
    seen: BTreeSet<u64>,
    pub top: u64,
}

impl Cell {
    fn new(first: u64, floor: u64, lease: Lease) -> Cell {
        Cell {
            cursor: first,
            lease,
            floor,
            seen: BTreeSet::new(),
            top: floor,
        }
    }
}

/// A change that the engine wants.
pub struct Change {
    pub object: ObjectId,
    pub version: u64,
    pub children: Vec<SaId>,
    pub delete: bool,
    /// Of its body.
    pub octets: usize,
}

#[derive(Clone, Default)]
struct Object {
    version: u64,
    children: Vec<SaId>,
}

pub struct Gateway {
    me: MemberId,
    incarnation: Incarnation,
    counter: u32,
    objects_made: u64,
    pub leading: bool,
    pub term: Term,
    pub cells: BTreeMap<SaId, Cell>,
    /// What was released.
    objects: BTreeMap<ObjectId, Object>,
    /// What was committed: children, the installed ones among them, whether it deletes.
    pending: BTreeMap<(ObjectId, u64), (Vec<SaId>, bool)>,
    newest: BTreeMap<ObjectId, u64>,
    /// SAs that only wait for the answer of the peer: listed, not used.
    half: BTreeSet<SaId>,
    pub redo: Vec<Redo>,
    pub committed: u64,
    pub discarded: u64,
    pub drain: bool,
    /// The cells have ended.
    pub frozen: bool,
}

/// What the engine owes.
pub enum Redo {
    Object(ObjectId),
    Sa(SaId),
}

impl Gateway {
    pub fn new(me: MemberId, incarnation: Incarnation) -> Gateway {
        Gateway {
            me,
            incarnation,
            counter: 0,
            objects_made: 0,
            leading: false,
            term: 0,
            cells: BTreeMap::new(),
            objects: BTreeMap::new(),
            pending: BTreeMap::new(),
            newest: BTreeMap::new(),
            half: BTreeSet::new(),
            redo: Vec::new(),
            committed: 0,
            discarded: 0,
            drain: false,
            frozen: false,
        }
    }

    fn new_sa(&mut self) -> SaId {
        self.counter += 1;
        SaId {
            creator: self.me,
            incarnation: self.incarnation,
            counter: self.counter,
        }
    }

    fn change(&mut self, object: ObjectId, children: Vec<SaId>, delete: bool) -> Change {
        let version = self.newest.get(&object).copied().unwrap_or(0) + 1;
        self.newest.insert(object, version);
        self.pending
            .insert((object, version), (children.clone(), delete));
        Change {
            object,
            version,
            children,
            delete,
            octets: 40,
        }
    }

    /// The newest children of an object, committed or still held; `None` once it is deleted.
    fn children(&self, object: ObjectId) -> Option<Vec<SaId>> {
        let held = self
            .pending
            .range((object, 0)..=(object, u64::MAX))
            .next_back();
        match held {
            Some((_, (_, true))) => None,
            Some((_, (children, false))) => Some(children.clone()),
            None => self
                .objects
                .get(&object)
                .map(|object| object.children.clone()),
        }
    }

    pub fn create(&mut self) -> Change {
        let object = self.new_object();
        let sa = self.new_sa();
        self.change(object, vec![sa], false)
    }

    fn new_object(&mut self) -> ObjectId {
        self.objects_made += 1;
        let made_by = u64::from(self.me.0) << 48 | u64::from(self.incarnation.0) << 24;
        ObjectId(made_by | self.objects_made)
    }

    pub fn delete(&mut self, object: ObjectId) -> Option<Change> {
        self.children(object)?;
        Some(self.change(object, Vec::new(), true))
    }

    /// One that has Child SAs.
    pub fn any_object(&self) -> Option<ObjectId> {
        let mut objects = self.objects.iter();
        let found = objects.find(|(_, object)| !object.children.is_empty());
        found.map(|(object, _)| *object)
    }

    /// A liveness check: the state moves, the children stay.
    pub fn touch(&mut self, object: ObjectId) -> Change {
        let children = self.children(object).unwrap_or_default();
        self.change(object, children, false)
    }

    /// A rekeyed IKE SA inherits the Child SAs of the old one, which loses them and is deleted (RFC 7296
    /// section 2.18).
    pub fn rekey(&mut self, object: ObjectId) -> Option<[Change; 3]> {
        let children = self.children(object)?;
        let heir = self.new_object();
        let heir = self.change(heir, children, false);
        let emptied = self.change(object, Vec::new(), false);
        Some([heir, emptied, self.change(object, Vec::new(), true)])
    }

    /// Whether its last exchange is over: what that waits for would be waited for by its heir as well.
    fn is_idle(&self, object: ObjectId) -> bool {
        let mut held = self.pending.range((object, 0)..=(object, u64::MAX));
        held.next().is_none()
    }

    /// Some exchange of some IKE SA.
    pub fn exchange(&mut self, random: &mut Random) -> Vec<Change> {
        let known: Vec<ObjectId> = self.newest.keys().copied().collect();
        let object = random.pick(&known);
        let rekeyed = object.filter(|_| random.below(11) == 10);
        match rekeyed.filter(|object| self.is_idle(*object)) {
            Some(object) => self.rekey(object).into_iter().flatten().collect(),
            None => object
                .and_then(|o| self.change_of(o, random))
                .into_iter()
                .collect(),
        }
    }

    fn change_of(&mut self, object: ObjectId, random: &mut Random) -> Option<Change> {
        let mut children = self.children(object)?;
        match random.below(10) {
            // A liveness check.
            0..=4 => {}
            // A CREATE_CHILD_SA request: the keys can be derived, the SA is not used yet.
            5 => {
                let sa = self.new_sa();
                self.half.insert(sa);
                children.push(sa);
            }
            // Its response: what was half is whole.
            6 | 7 => self.half.retain(|sa| !children.contains(sa)),
            8 => {
                let sa = self.new_sa();
                children.push(sa);
                if children.len() > 3 {
                    children.remove(0);
                }
            }
            _ if self.objects.len() > 2 => return Some(self.change(object, Vec::new(), true)),
            _ => {}
        }
        Some(self.change(object, children, false))
    }

    /// Makes anew what was refused, replaces what has no lease.
    pub fn repair(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for redo in std::mem::take(&mut self.redo) {
            match redo {
                Redo::Object(object) => {
                    let known = self.objects.contains_key(&object)
                        || self.pending.range((object, 0)..=(object, u64::MAX)).count() > 0;
                    if !known {
                        changes.push(self.change(object, Vec::new(), true));
                        continue;
                    }
                    let Some(mut children) = self.children(object) else {
                        continue;
                    };
                    let sa = self.new_sa();
                    children.push(sa);
                    changes.push(self.change(object, children, false));
                }
                Redo::Sa(sa) => {
                    let owner = self.objects.iter().find(|(_, o)| o.children.contains(&sa));
                    let Some(object) = owner.map(|(object, _)| *object) else {
                        continue;
                    };
                    let Some(mut children) = self.children(object) else {
                        continue;
                    };
                    children.retain(|child| *child != sa);
                    children.push(self.new_sa());
                    changes.push(self.change(object, children, false));
                }
            }
        }
        changes
    }

    /// For the message of a failed seed.
    pub fn picture(&self) -> String {
        let cells: Vec<_> = self
            .cells
            .iter()
            .map(|(sa, cell)| (sa.to_string(), cell.cursor, cell.lease.grant.0))
            .collect();
        format!(
            "cells {cells:?}, pending {:?}, committed {}, discarded {}, objects {}",
            self.pending.keys(),
            self.committed,
            self.discarded,
            self.objects.len()
        )
    }

    /// Whether a change is still wanted: one that an earlier one rested on may have been refused.
    pub fn holds(&self, change: &Change) -> bool {
        self.pending.contains_key(&(change.object, change.version))
    }

    /// What the node wants done here.
    pub fn obey(&mut self, output: &Output, oracle: &mut Oracle) {
        match output {
            Output::Lead {
                epoch,
                base,
                objects,
                ..
            } => {
                self.term = oracle.lead(self.me, *epoch, *base, objects);
                self.lead(objects);
            }
            Output::StepDown { .. } => self.freeze(),
            Output::Drain => {
                self.leading = false;
                self.drain = true;
            }
            Output::Freeze => self.frozen = true,
            Output::Resume => {
                self.leading = true;
                self.drain = false;
            }
            Output::Lease { sa, lease } => {
                if let Some(cell) = self.cells.get_mut(sa) {
                    cell.lease = cell.lease.max(*lease);
                }
            }
            Output::Committed {
                object,
                version,
                leases,
            } => self.release(*object, *version, leases, oracle),
            Output::Discard { object, version } => {
                self.discarded += 1;
                let range = (*object, *version)..=(*object, u64::MAX);
                let gone: Vec<_> = self.pending.range(range).map(|(key, _)| *key).collect();
                for key in gone {
                    let (children, _) = self.pending.remove(&key).unwrap_or_default();
                    // What was to be another object's is nobody's any more.
                    for sa in children {
                        if !self.is_child(sa) {
                            self.cells.remove(&sa);
                        }
                    }
                }
                self.redo.push(Redo::Object(*object));
            }
            Output::RekeyNow { sa, .. } => self.redo.push(Redo::Sa(*sa)),
            _ => {}
        }
    }

    fn freeze(&mut self) {
        self.leading = false;
        self.cells.clear();
        self.pending.clear();
        self.redo.clear();
    }

    fn lead(&mut self, objects: &[TakeoverObject]) {
        self.freeze();
        self.leading = true;
        self.drain = false;
        self.frozen = false;
        self.half.clear();
        self.objects.clear();
        self.newest.clear();
        for object in objects {
            let children: Vec<SaId> = object.children.iter().map(|child| child.sa).collect();
            for child in &object.children {
                if child.rekey_only {
                    self.redo.push(Redo::Sa(child.sa));
                } else {
                    let cell = Cell::new(child.first.0, child.floor.0, child.lease);
                    self.cells.insert(child.sa, cell);
                }
            }
            self.newest.insert(object.object, object.version);
            let version = object.version;
            self.objects
                .insert(object.object, Object { version, children });
        }
    }

    /// Whether an object has it, or is about to.
    fn is_child(&self, sa: SaId) -> bool {
        let mut held = self.pending.values().map(|(children, _)| children);
        let mut released = self.objects.values().map(|object| &object.children);
        held.any(|children| children.contains(&sa)) || released.any(|c| c.contains(&sa))
    }

    fn release(
        &mut self,
        object: ObjectId,
        version: u64,
        leases: &[(SaId, Lease)],
        oracle: &mut Oracle,
    ) {
        let Some((children, delete)) = self.pending.remove(&(object, version)) else {
            oracle.violate(format!("{object} version {version} was not held"));
            return;
        };
        oracle.release(self.term, object, version, delete);
        self.committed += 1;
        let before = self.objects.remove(&object).unwrap_or_default();
        for sa in before.children.iter().filter(|sa| !children.contains(sa)) {
            // It may have moved to another object.
            if !self.is_child(*sa) {
                self.cells.remove(sa);
            }
        }
        for (sa, lease) in leases.iter().filter(|(sa, _)| !self.half.contains(sa)) {
            let cell = self
                .cells
                .entry(*sa)
                .or_insert_with(|| Cell::new(1, 0, Lease::default()));
            cell.lease = cell.lease.max(*lease);
        }
        if delete {
            self.newest.remove(&object);
        } else {
            self.objects.insert(object, Object { version, children });
        }
    }

    /// Workers send what the lease allows.
    pub fn draw(&mut self, random: &mut Random, oracle: &mut Oracle) {
        if !self.leading {
            return;
        }
        for (sa, cell) in &mut self.cells {
            for _ in 0..random.below(4) {
                if cell.cursor <= cell.lease.grant.0 {
                    oracle.send(self.me, *sa, cell.cursor);
                    cell.cursor += 1;
                }
            }
        }
    }

    /// A copy of the peer's packet n arrives here, parked or not.
    pub fn receive(&mut self, sa: SaId, n: u64, oracle: &mut Oracle) {
        if !self.leading {
            return;
        }
        let Some(cell) = self.cells.get_mut(&sa) else {
            return;
        };
        cell.top = cell.top.max(n);
        if n <= cell.lease.high_water.0 && n > cell.floor && cell.seen.insert(n) {
            oracle.deliver(self.me, sa, n);
        }
    }

    pub fn usage(&self) -> Vec<Usage> {
        self.cells
            .iter()
            .map(|(sa, cell)| Usage {
                sa: *sa,
                cursor: SequenceNumber(cell.cursor),
                inbound_top: SequenceNumber(cell.top),
                esn: true,
            })
            .collect()
    }

    pub fn checkpoints(&self) -> Vec<(SaId, Checkpoint)> {
        self.cells
            .iter()
            .map(|(sa, cell)| {
                let checkpoint = Checkpoint {
                    outbound_next: SequenceNumber(cell.cursor),
                    inbound_top: SequenceNumber(cell.top),
                    ..Checkpoint::default()
                };
                (*sa, checkpoint)
            })
            .collect()
    }

    /// Where the cells ended, for ever.
    pub fn ends(&self) -> Vec<DrainedSa> {
        let ends = self.cells.iter().map(|(sa, cell)| DrainedSa {
            sa: *sa,
            lease: Lease {
                grant: SequenceNumber(cell.cursor - 1),
                high_water: SequenceNumber(cell.seen.last().copied().unwrap_or(cell.floor)),
            },
            window: vec![1, 2, 3],
        });
        ends.collect()
    }
}

pub fn body(change: &Change) -> Option<Zeroizing<Vec<u8>>> {
    (!change.delete).then(|| Zeroizing::new(vec![change.version as u8; change.octets]))
}
