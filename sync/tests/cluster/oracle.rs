//! What no member knows: everything that was ever sent, delivered and released, by all of them.

use std::collections::{BTreeMap, BTreeSet};

use hitless_sa::{Epoch, MemberId, SaId};
use hitless_sync::{ObjectId, TakeoverObject};

/// One leadership of one process.
pub type Term = u64;

#[derive(Default)]
pub struct Oracle {
    sent: BTreeMap<SaId, BTreeMap<u64, MemberId>>,
    delivered: BTreeMap<SaId, BTreeMap<u64, MemberId>>,
    /// Highest number that each peer has sent.
    pub peers: BTreeMap<SaId, u64>,
    /// Versions that the world has seen, by the term that released them; `None` for a deletion.
    released: BTreeMap<Term, BTreeMap<ObjectId, (u64, bool)>>,
    /// Objects whose deletion was committed: a standby may know that before the world does.
    pub deleting: BTreeSet<ObjectId>,
    terms: BTreeMap<Epoch, Term>,
    last_term: Term,
    successors: BTreeMap<Epoch, Epoch>,
    /// The first violation.
    pub violation: Option<String>,
    pub takeovers: u64,
    pub exact: u64,
    pub skipped: u64,
    /// Numbers sent so far.
    pub packets: u64,
}

impl Oracle {
    pub fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// S1.
    pub fn send(&mut self, by: MemberId, sa: SaId, n: u64) {
        self.packets += 1;
        if let Some(before) = self.sent.entry(sa).or_default().insert(n, by) {
            self.violate(format!("S1: {sa} number {n} sent by {by} after {before}"));
        }
    }

    /// S3.
    pub fn deliver(&mut self, by: MemberId, sa: SaId, n: u64) {
        if let Some(before) = self.delivered.entry(sa).or_default().insert(n, by) {
            self.violate(format!(
                "S3: {sa} number {n} delivered by {by} after {before}"
            ));
        }
    }

    pub fn lead(
        &mut self,
        by: MemberId,
        epoch: Epoch,
        base: Option<Epoch>,
        objects: &[TakeoverObject],
    ) -> Term {
        self.last_term += 1;
        let term = self.last_term;
        self.name(epoch, term);
        if let Some(base) = base {
            self.takeovers += 1;
            // I2: one successor for each base.
            if let Some(other) = self.successors.insert(base, epoch) {
                self.violate(format!("I2: {base} inherited by {other} and by {epoch}"));
            }
            let before = self
                .terms
                .get(&base)
                .and_then(|term| self.released.get(term));
            let before = before.cloned().unwrap_or_default();
            self.successor_knows(by, &before, objects);
        }
        for object in objects {
            for child in &object.children {
                self.skipped += child.skip;
            }
            self.release(term, object.object, object.version, false);
        }
        term
    }

    /// S4.
    fn successor_knows(
        &mut self,
        by: MemberId,
        before: &BTreeMap<ObjectId, (u64, bool)>,
        objects: &[TakeoverObject],
    ) {
        for object in objects.iter().filter(|object| object.exact) {
            self.exact += 1;
            let known = before
                .get(&object.object)
                .map_or(0, |(version, _)| *version);
            if known > object.version {
                self.violate(format!(
                    "S4: {by} calls {} exact at {}, {known} was released",
                    object.object, object.version
                ));
            }
        }
        let here: BTreeSet<ObjectId> = objects.iter().map(|object| object.object).collect();
        let all_exact = !objects.is_empty() && objects.iter().all(|object| object.exact);
        for (object, (version, deleted)) in before {
            let lost = !deleted && !here.contains(object) && !self.deleting.contains(object);
            if all_exact && lost {
                self.violate(format!("S4: {by} lacks {object}, released at {version}"));
            }
        }
    }

    /// A leader may rename its epoch while nobody shares it.
    pub fn name(&mut self, epoch: Epoch, term: Term) {
        let known = *self.terms.entry(epoch).or_insert(term);
        if known != term {
            self.violate(format!("two leaderships are called {epoch}"));
        }
    }

    pub fn release(&mut self, term: Term, object: ObjectId, version: u64, deleted: bool) {
        let seen = self.released.entry(term).or_default();
        seen.insert(object, (version, deleted));
    }
}
