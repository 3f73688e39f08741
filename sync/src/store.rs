//! A standby's copy of the leader's objects, and what it recorded for each Child SA.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use hitless_sa::{Lease, SaId};
use zeroize::Zeroizing;

use crate::message::WireSa;
use crate::{Checkpoint, ObjectId};

/// Missing checkpoints asked for in one packet, and SAs looked at for them.
const LACKS: usize = 16;
const LOOKED_AT: usize = 1024;

/// An opaque body, shared by the object and by the records on their way; wiped with the last.
pub(crate) type Body = Arc<Zeroizing<Vec<u8>>>;

/// One object as it was received.
pub(crate) struct Stored {
    pub version: u64,
    pub body: Body,
    pub children: Vec<SaId>,
    /// The session (numbered by this member) that it came in.
    pub session: u64,
}

/// What is recorded of one Child SA: `rec` of `lease-holes`.
pub(crate) struct Recorded {
    pub object: ObjectId,
    pub lease: Lease,
    /// The record counts only in the session that it was made in (R10, hole A17).
    pub session: u64,
    /// Nobody has a right to these keys any more.
    pub no_right: bool,
    pub esn: bool,
    pub skip_sum: u64,
    pub checkpoint: Option<Checkpoint>,
    /// The exact end, received but not yet sealed by the handover (R15).
    pub last: Option<(Lease, Vec<u8>)>,
}

#[derive(Default)]
pub(crate) struct Store {
    pub objects: BTreeMap<ObjectId, Stored>,
    pub sas: BTreeMap<SaId, Recorded>,
}

impl Store {
    /// Removes an object and its children; false if there was none.
    pub fn remove(&mut self, object: ObjectId) -> bool {
        let Some(stored) = self.objects.remove(&object) else {
            return false;
        };
        for sa in stored.children {
            self.remove_sa(object, sa);
        }
        true
    }

    /// Removes a child unless another object has taken it over meanwhile (a rekeyed IKE SA
    /// inherits its Child SAs, RFC 7296 section 2.18).
    fn remove_sa(&mut self, object: ObjectId, sa: SaId) {
        if self
            .sas
            .get(&sa)
            .is_some_and(|recorded| recorded.object == object)
        {
            self.sas.remove(&sa);
        }
    }

    /// Replaces an object; children that the new version lacks are dropped.
    pub fn replace(&mut self, object: ObjectId, stored: Stored) {
        let children = stored.children.clone();
        if let Some(old) = self.objects.insert(object, stored) {
            for sa in old.children {
                if !children.contains(&sa) {
                    self.remove_sa(object, sa);
                }
            }
        }
    }

    /// Some SAs of this session without a checkpoint, after the one that was asked for last: all
    /// have their turn.
    pub fn lacks(&self, session: u64, last: &mut Option<SaId>) -> Vec<WireSa> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.sas.range((from, Bound::Unbounded)).take(LOOKED_AT);
        let mut looked = None;
        let mut lacks = Vec::new();
        for (sa, recorded) in later {
            looked = Some(*sa);
            let lacking = recorded.session == session && recorded.checkpoint.is_none();
            if lacking && !recorded.no_right {
                lacks.push(WireSa::new(*sa));
            }
            if lacks.len() == LACKS {
                break;
            }
        }
        *last = looked;
        lacks
    }

    /// Objects that did not come in this session.
    pub fn strangers(&self, session: u64) -> Vec<ObjectId> {
        self.objects
            .iter()
            .filter(|(_, stored)| stored.session != session)
            .map(|(object, _)| *object)
            .collect()
    }
}
