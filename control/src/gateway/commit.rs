//! Output commit (invariant S4): what IKE wants to send or install waits until every bound standby
//! has recorded the state that it implies.

use std::collections::{BTreeMap, VecDeque};

use hitless_sa::{Entropy, IkeSpi, Instant, Lease, SaId};
use hitless_sync::{BODY_LIMIT, Input as SyncInput, ObjectId};
use zeroize::Zeroizing;

use super::{Event, Gateway};
use crate::ike::{ChildChange, Commit, Transmit};

/// Changes of an IKE SA in a row that are refused because no record has room for them, before it is
/// given up.
const TOO_LARGE_AT_MOST: u32 = 8;

/// The encoding of an IKE SA.
type Body = Zeroizing<Vec<u8>>;

/// The commits of one IKE SA that wait, oldest first.
#[derive(Default)]
pub(super) struct Waiting {
    commits: VecDeque<Held>,
    /// The state that a discard went back to. Until the next commit is recorded, the node's own
    /// newest state is the discarded one.
    restored: Option<Body>,
}

/// The outputs of one commit.
struct Held {
    version: u64,
    /// The state before it, to go back to; `None` if the IKE SA is new.
    before: Option<Body>,
    changes: Vec<ChildChange>,
    transmits: Vec<Transmit>,
    since: Instant,
    /// No record has room for it: it is refused, and would be if it were made anew.
    too_large: bool,
}

impl Waiting {
    /// Commits that wait.
    pub fn len(&self) -> usize {
        self.commits.len()
    }

    /// Since when the oldest one waits.
    pub fn since(&self) -> Option<Instant> {
        self.commits.front().map(|held| held.since)
    }
}

impl Gateway {
    /// The record goes to the standby, the messages and SAs wait.
    pub(super) fn commit(&mut self, now: Instant, entropy: &mut dyn Entropy, commit: Commit) {
        let (body, children) = match commit.record {
            Some(mut record) => {
                let more = self.settings.tuning().sync.more_of_a_record();
                record.body.extend_from_slice(more);
                (Some(record.body), record.children)
            }
            None => {
                self.retrieval.ended(now, commit.ike);
                (None, Vec::new())
            }
        };
        if self.settings.tuning().no_output_commit {
            for transmit in &commit.transmits {
                self.transmit(transmit);
            }
        }
        let object = ObjectId(commit.ike.0);
        let too_large = body.as_ref().is_some_and(|body| body.len() > BODY_LIMIT);
        if !too_large {
            self.too_large.remove(&commit.ike);
        }
        let waiting = self.held.entry(commit.ike).or_default();
        let before = waiting.restored.take();
        waiting.commits.push_back(Held {
            version: commit.version,
            before: before.or_else(|| self.node.body(object).cloned()),
            changes: commit.changes,
            transmits: commit.transmits,
            since: now,
            too_large,
        });
        let input = SyncInput::Commit {
            object,
            version: commit.version,
            body,
            children,
        };
        self.node.handle(now, entropy, input);
    }

    /// What the standby does not hold yet may not leave, not even as a repetition.
    pub(super) fn retransmit(&mut self, ike: IkeSpi, version: u64, transmit: &Transmit) {
        let held = self.held.get(&ike).and_then(|w| w.commits.front());
        if held.is_none_or(|held| version < held.version) {
            self.transmit(transmit);
        }
    }

    /// The standby holds the record: SAs first, so that they are there when the peer uses them,
    /// then the messages, in the order of their versions.
    pub(super) fn release(&mut self, ike: IkeSpi, version: u64, leases: &[(SaId, Lease)]) {
        let leases: BTreeMap<SaId, Lease> = leases.iter().copied().collect();
        while let Some(waiting) = self.held.get_mut(&ike) {
            let ready = |held: &mut Held| held.version <= version;
            let Some(held) = waiting.commits.pop_front_if(ready) else {
                break;
            };
            if waiting.commits.is_empty() {
                self.held.remove(&ike);
            }
            for change in held.changes {
                self.apply(change, &leases);
            }
            for transmit in &held.transmits {
                self.transmit(transmit);
            }
        }
        for (sa, lease) in leases {
            self.raise(sa, lease);
        }
    }

    /// This version may never leave, nor what was committed after it: IKE goes back to the state
    /// before it (`lease-holes` D0). Older commits go on waiting.
    pub(super) fn discard(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        ike: IkeSpi,
        version: u64,
    ) {
        // A member that hands over makes nothing anew: its successor will, or it itself if it goes on.
        if self.handing_over {
            self.refused.entry(ike).or_insert(version);
            return;
        }
        let Some(waiting) = self.held.get_mut(&ike) else {
            return;
        };
        let keep = waiting.commits.partition_point(|c| c.version < version);
        let mut discarded = waiting.commits.split_off(keep);
        let Some(newest) = discarded.back().map(|held| held.version) else {
            return;
        };
        let too_large = discarded.iter().any(|held| held.too_large);
        let before = discarded.pop_front().and_then(|held| held.before);
        waiting.restored.clone_from(&before);
        let children = self.engine.children(ike);
        if too_large {
            // What was wanted would be refused again, for ever and within this turn.
            self.engine.want_no_more(ike);
        }
        let hopeless = too_large && self.refused_too_often(ike);
        let body = before.as_ref().filter(|_| !hopeless);
        let body = body.map(|body| body.as_slice());
        let back = self.engine.roll_back(now, entropy, ike, newest, body);
        if let Err(error) = &back {
            self.unreadable(ike, error.to_string());
        }
        if before.is_none() || back.is_err() || hopeless {
            self.held.remove(&ike);
            self.give_up(now, entropy, ike, newest + 1, &children);
        }
    }

    /// Whether an IKE SA that no record has room for grows again and again, by timers of its own or
    /// because the peer asks: it costs a turn each time.
    fn refused_too_often(&mut self, ike: IkeSpi) -> bool {
        let refused = self.too_large.entry(ike).or_default();
        *refused += 1;
        let hopeless = *refused >= TOO_LARGE_AT_MOST;
        if hopeless {
            let reason = format!(
                "its state would not fit into the {BODY_LIMIT} octets of a record, {refused} times; \
                 give its connection fewer children or selectors"
            );
            self.unreadable(ike, reason);
        }
        hopeless
    }

    /// An IKE SA of which nothing was released, or which cannot be read back, is gone for IKE. The
    /// standbys may have it: they must not carry it on.
    pub(super) fn give_up(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        ike: IkeSpi,
        version: u64,
        children: &[SaId],
    ) {
        self.too_large.remove(&ike);
        for sa in children {
            self.apply(ChildChange::Remove(*sa), &BTreeMap::new());
        }
        let input = SyncInput::Commit {
            object: ObjectId(ike.0),
            version,
            body: None,
            children: Vec::new(),
        };
        self.node.handle(now, entropy, input);
    }

    pub(super) fn unreadable(&mut self, ike: IkeSpi, reason: String) {
        self.tell(Event::Unreadable { ike, reason });
    }
}
