//! The standby's end of a session: records, acknowledges, and knows what it could vouch for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hitless_sa::{Epoch, Incarnation, Instant, Lease, MemberId, SaId};
use zeroize::Zeroizing;

use crate::early::Early;
use crate::message::{DELETE, FINAL, Grant, HAND_OVER, Packet, Record, STORE, Sid};
use crate::narrow::Largest;
use crate::store::{Recorded, Store, Stored};
use crate::{Event, ObjectId, Output, Settings};

/// Follows one leader in one session.
pub(crate) struct Following {
    pub leader: MemberId,
    pub incarnation: Incarnation,
    pub epoch: Epoch,
    pub bare: bool,
    pub sid: Sid,
    /// This member's own number of the session; records count only in theirs.
    pub session: u64,
    /// Has the right to take over (R9).
    pub admitted: bool,
    /// The leader sent the exact ends and stopped (R15), not before this time of ours.
    handed_over: Option<u64>,
    pub last_beat: Instant,
    /// The leader has given its epoch up.
    pub gone: bool,
    /// When this member first wanted to take over from this leader, if it could not so far.
    pub stood: Option<Instant>,
    /// A takeover could not be written; not tried again before this.
    pub not_before: Instant,
    /// Something new is to be acknowledged.
    pub ack_due: bool,
    /// Recorded leases to acknowledge.
    pub acks: BTreeMap<SaId, Lease>,
    /// The last SA whose missing checkpoint was asked for, and when.
    pub asked_up_to: Option<SaId>,
    asked_at: Option<Instant>,
    applied: u64,
    early: Early,
    /// The newest time of ours that the leader had seen, and whether outputs had left unheard.
    echo: u64,
    unvouched: bool,
    /// Of the leader's messages.
    pub largest: Largest,
}

impl Following {
    pub fn new(
        leader: (MemberId, Incarnation),
        epoch: (Epoch, bool),
        sid: Sid,
        session: u64,
        now: Instant,
    ) -> Following {
        Following {
            leader: leader.0,
            incarnation: leader.1,
            epoch: epoch.0,
            bare: epoch.1,
            sid,
            session,
            admitted: false,
            handed_over: None,
            last_beat: now,
            gone: false,
            stood: None,
            not_before: now,
            ack_due: true,
            acks: BTreeMap::new(),
            asked_up_to: None,
            asked_at: None,
            applied: 0,
            early: Early::default(),
            echo: 0,
            unvouched: false,
            largest: Largest::default(),
        }
    }

    /// Checkpoints are sent once and may be lost: whether to ask for missing ones now.
    pub fn repair_due(&mut self, now: Instant, every: Duration) -> bool {
        let due = self.admitted && self.asked_at.is_none_or(|at| now.since(at) >= every);
        if due {
            self.asked_at = Some(now);
        }
        due
    }

    pub fn handed_over(&self) -> bool {
        self.handed_over.is_some()
    }

    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// R16: no output can have left that this member does not know, because its newest message
    /// was heard less than D ago, by a clock that is at most 1 % slow. Who has handed over is
    /// silent for longer, but not for ever: without a leader it leads on nothing (R12), and asks
    /// the peers for new keys with Message IDs of its own.
    pub fn vouched(&self, now: Instant, settings: &Settings) -> bool {
        let patience = settings.patience();
        let (heard, span) = match self.handed_over {
            Some(echo) => (echo, patience),
            None => (self.echo, settings.vouch.min(patience)),
        };
        let trusted = span - span / 100;
        let exact = self.admitted && !self.unvouched && !settings.mutant.never_vouches;
        exact && heard != 0 && now < Instant(heard) + trusted
    }

    /// Applies what a packet of this session carries.
    pub fn receive(
        &mut self,
        settings: &Settings,
        packet: &mut Packet,
        for_me: bool,
        store: &mut Store,
        outputs: &mut VecDeque<Output>,
    ) {
        // The flag belongs to the echo that it travelled with: an older packet cannot clear it.
        if for_me && packet.time_echo > self.echo {
            self.echo = packet.time_echo;
            self.unvouched = packet.unvouched;
        } else if for_me && packet.time_echo == self.echo {
            self.unvouched |= packet.unvouched;
        }
        for record in &mut packet.records {
            self.apply(settings, record, store, outputs);
        }
        for offer in &packet.offers {
            if let Some(sa) = offer.sa() {
                self.record(settings, sa, offer, store);
            }
        }
        for wire in &packet.checkpoints {
            let recorded = wire.sa().and_then(|sa| store.sas.get_mut(&sa));
            if let Some(recorded) = recorded.filter(|r| r.session == self.session) {
                let newer = wire.checkpoint();
                let older = recorded.checkpoint.unwrap_or_default();
                if newer.outbound_next >= older.outbound_next
                    && newer.inbound_top >= older.inbound_top
                {
                    recorded.checkpoint = Some(newer);
                }
            }
        }
        if !self.admitted && packet.admit.is_some_and(|n| n <= self.applied) {
            self.admitted = true;
            self.ack_due = true;
            for object in store.strangers(self.session) {
                store.remove(object);
                outputs.push_back(Output::Forget { object });
            }
            outputs.push_back(Output::Event(Event::Admitted {
                member: settings.me,
                epoch: self.epoch,
            }));
        }
    }

    /// R6: a step of the stream is applied after the one before it; an older one is only
    /// acknowledged again, and one that comes too early waits for the others.
    fn apply(
        &mut self,
        settings: &Settings,
        record: &mut Record,
        store: &mut Store,
        outputs: &mut VecDeque<Output>,
    ) {
        self.ack_due = true;
        if record.n > self.applied.saturating_add(1) && !settings.mutant.any_order {
            return self.early.keep(self.applied, record);
        }
        if record.n > self.applied || settings.mutant.any_order {
            self.step(settings, record, store, outputs);
        }
        while let Some(mut next) = self.early.after(self.applied) {
            self.step(settings, &mut next, store, outputs);
        }
    }

    fn step(
        &mut self,
        settings: &Settings,
        record: &mut Record,
        store: &mut Store,
        outputs: &mut VecDeque<Output>,
    ) {
        let object = ObjectId(record.object);
        match record.kind {
            STORE => self.store(settings, record, store, outputs),
            DELETE if store.remove(object) => outputs.push_back(Output::Forget { object }),
            FINAL => {
                let end = record.children.first();
                let recorded = end
                    .and_then(Grant::sa)
                    .and_then(|sa| store.sas.get_mut(&sa))
                    .filter(|recorded| recorded.session == self.session);
                if let (Some(recorded), Some(end)) = (recorded, end) {
                    recorded.last = Some((end.lease(), std::mem::take(&mut record.window)));
                }
            }
            HAND_OVER => self.handed_over = Some(self.echo),
            // A later version's step: it is counted, so that the stream goes on.
            _ => {}
        }
        self.applied = self.applied.max(record.n);
    }

    fn store(
        &mut self,
        settings: &Settings,
        record: &mut Record,
        store: &mut Store,
        outputs: &mut VecDeque<Output>,
    ) {
        let object = ObjectId(record.object);
        let body = Zeroizing::new(std::mem::take(&mut record.body));
        let children: Vec<SaId> = record.children.iter().filter_map(Grant::sa).collect();
        for child in &record.children {
            let Some(sa) = child.sa() else { continue };
            let known = store.sas.get(&sa).filter(|r| r.session == self.session);
            let before = known.map_or_else(Lease::default, |r| r.lease);
            let recorded = Recorded {
                object,
                lease: raised(settings, before, child.lease()),
                session: self.session,
                no_right: child.no_right || known.is_some_and(|r| r.no_right),
                esn: child.esn,
                skip_sum: child.skip_sum,
                checkpoint: known.and_then(|r| r.checkpoint),
                last: None,
            };
            store.sas.insert(sa, recorded);
        }
        outputs.push_back(Output::Store {
            object,
            version: record.version,
            body: body.clone(),
        });
        let stored = Stored {
            version: record.version,
            body: Arc::new(body),
            children,
            session: self.session,
        };
        store.replace(object, stored);
    }

    /// Records an offer: within a session a record only rises (R6, hole A2).
    fn record(&mut self, settings: &Settings, sa: SaId, offer: &Grant, store: &mut Store) {
        let recorded = store
            .sas
            .get_mut(&sa)
            .filter(|recorded| recorded.session == self.session && !recorded.no_right);
        if let Some(recorded) = recorded {
            let lease = raised(settings, recorded.lease, offer.lease());
            if !settings.mutant.ack_unrecorded {
                recorded.lease = lease;
            }
            recorded.esn = offer.esn;
            self.acks.insert(sa, lease);
            self.ack_due = true;
        }
    }
}

fn raised(settings: &Settings, before: Lease, offer: Lease) -> Lease {
    if settings.mutant.record_last {
        offer
    } else {
        before.max(offer)
    }
}
