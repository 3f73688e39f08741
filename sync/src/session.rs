//! The leader's end of a session: what one standby has been sent and has acknowledged.
//!
//! Objects travel in an ordered stream, n by n, each record with the first leases of its
//! children; leases of known SAs are offered beside it and acknowledged one by one. Priority:
//! offers, then changed objects, then the initial copy, then checkpoints (hole D13).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use hitless_sa::{Incarnation, Instant, Lease, SaId};
use prost::Message;

use crate::contact::{Contact, Offers};
use crate::fitness::Broken;
use crate::leading::{LedObject, LedSa};
use crate::message::{
    CHECKSUM, DATAGRAM_TARGET, DELETE, FINAL, Grant, HAND_OVER, PROBE, Packet, Record, STORE, Sid,
    WireCheckpoint,
};
use crate::store::Body;
use crate::{DrainedSa, ObjectId, Settings};

/// Records on their way at once, and their octets: so much of a copy delays a grant at most. Of the exact
/// ends of a switchover there may be more records, and as many octets.
const FLIGHT_RECORDS: usize = 64;
pub(crate) const FLIGHT_OCTETS: usize = 256 * 1024;

/// Octets that one offer or one checkpoint takes at most.
const OFFER: usize = 64;
const CHECKPOINT: usize = 96;

/// What one record of the stream does.
#[derive(Clone)]
pub(crate) enum Step {
    Store {
        object: ObjectId,
        version: u64,
        body: Body,
    },
    Delete {
        object: ObjectId,
        version: u64,
    },
    Final {
        window: Vec<u8>,
    },
    HandOver,
    /// Nothing but to be acknowledged.
    Probe,
}

/// A record that has been given its number; it never changes again.
struct Flight {
    n: u64,
    step: Step,
    children: Vec<Grant>,
    /// First and last.
    since: Option<Instant>,
    sent: Option<Instant>,
    /// Octets that it takes, once it was sent.
    size: usize,
    /// Octets of the message that it left in last, with what was in that before it.
    datagram: usize,
}

impl Flight {
    fn octets(&self) -> usize {
        match &self.step {
            Step::Store { body, .. } => body.len(),
            Step::Final { window } => window.len(),
            Step::Delete { .. } | Step::HandOver | Step::Probe => 0,
        }
    }

    fn record(&self) -> Record {
        let mut record = Record::default();
        record.n = self.n;
        record.children.clone_from(&self.children);
        match &self.step {
            Step::Store {
                object,
                version,
                body,
            } => {
                record.kind = STORE;
                record.object = object.0;
                record.version = *version;
                record.body = body.to_vec();
            }
            Step::Delete { object, version } => {
                record.kind = DELETE;
                record.object = object.0;
                record.version = *version;
            }
            Step::Final { window } => {
                record.kind = FINAL;
                record.window.clone_from(window);
            }
            Step::HandOver => record.kind = HAND_OVER,
            Step::Probe => record.kind = PROBE,
        }
        record
    }
}

/// One standby, as its leader sees it.
pub(crate) struct Session {
    pub sid: Sid,
    pub incarnation: Incarnation,
    /// Admit may have left, and named this record: from then on only the standby itself can give
    /// its right up (R9, R13).
    pub bound: Option<u64>,
    pub bound_at: Instant,
    /// It has been sent all there is, answers, and is to be admitted: leases and outputs wait for it
    /// as if it were.
    pub closing: bool,
    /// Whether it may be admitted is not asked before this: the question costs a look at everything.
    pub next_look: Instant,
    /// The standby has spoken in the session.
    pub entered: bool,
    /// The standby says that it is admitted.
    pub confirmed: bool,
    pub contact: Contact,
    /// What it says of its copies.
    pub broken: Broken,
    /// Outputs have left without this standby's acknowledgement (R16).
    pub unvouched: bool,
    next: u64,
    applied: u64,
    flight: VecDeque<Flight>,
    /// The first that was never sent, and the last that only asks for an answer.
    unsent: u64,
    probed: u64,
    /// When each record left last, in the order of time; and octets that have left and are not
    /// acknowledged. What is due is found from here: a switchover has tens of thousands of records.
    left: VecDeque<(Instant, u64)>,
    afloat: usize,
    /// Looks at records so far: what a test bounds.
    pub looked: u64,
    dirty: BTreeMap<ObjectId, u64>,
    urgent: VecDeque<ObjectId>,
    hurried: BTreeSet<ObjectId>,
    bulk: VecDeque<ObjectId>,
    /// Objects that have lost SAs to others, which may still be to be built.
    heirs: BTreeMap<ObjectId, BTreeSet<ObjectId>>,
    /// Newest version acknowledged.
    versions: BTreeMap<ObjectId, u64>,
    /// What was released since the copy began, a deletion too, and has not been acknowledged: what the
    /// standby has instead is of the past, and its SAs may have been used beyond what it has recorded
    /// (R9). An object that is gone, or about to be, is in no other book.
    owes: BTreeMap<ObjectId, u64>,
    /// Every SA of which a secret may have been sent here, and the lease acknowledged (R4, R7).
    pub shares: BTreeMap<SaId, Lease>,
    /// Offers not yet acknowledged.
    offers: Offers,
    /// Those that wait to be sent, and those that were, in the order of time.
    ready: VecDeque<SaId>,
    sent: VecDeque<(Instant, SaId)>,
    checkpoints: BTreeSet<SaId>,
}

impl Session {
    /// With a standby whose clock showed `echo` when it was heard last.
    pub fn new(sid: Sid, incarnation: Incarnation, now: Instant, echo: u64) -> Session {
        let mut session = Session {
            sid,
            incarnation,
            bound: None,
            bound_at: now,
            closing: false,
            next_look: now,
            entered: false,
            confirmed: false,
            contact: Contact::new(now, echo),
            broken: Broken::default(),
            unvouched: false,
            next: 1,
            applied: 0,
            flight: VecDeque::new(),
            unsent: 1,
            probed: 0,
            left: VecDeque::new(),
            afloat: 0,
            looked: 0,
            dirty: BTreeMap::new(),
            urgent: VecDeque::new(),
            hurried: BTreeSet::new(),
            bulk: VecDeque::new(),
            heirs: BTreeMap::new(),
            versions: BTreeMap::new(),
            owes: BTreeMap::new(),
            shares: BTreeMap::new(),
            offers: Offers::default(),
            ready: VecDeque::new(),
            sent: VecDeque::new(),
            checkpoints: BTreeSet::new(),
        };
        // Who answers nothing, because its disk refuses say, is given nothing to answer for.
        session.ask();
        session
    }

    /// Whether it has answered at all: before that no SA is bound to it.
    pub fn answers(&self) -> bool {
        self.applied > 0
    }

    /// Whether it was an admitted standby, and answered, for so long.
    pub fn has_served(&self, hold: Duration) -> bool {
        self.bound.is_some() && self.contact.answered().since(self.bound_at) >= hold
    }

    pub fn silent_for(&self, now: Instant) -> Duration {
        self.contact.silent_for(now)
    }

    /// A word of the standby in this session, after what it acknowledges.
    pub fn word(&mut self, now: Instant, time: u64, patience: Duration) {
        self.contact.word(now, time, self.owed(), patience);
    }

    /// The leader was away until now.
    pub fn woke(&mut self, now: Instant) {
        let owed = self.owed();
        self.contact.woke(now, owed);
    }

    /// Since when the oldest record or offer that was sent waits for its acknowledgement.
    fn owed(&self) -> Option<Instant> {
        let record = self.flight.front().and_then(|flight| flight.since);
        record.into_iter().chain(self.offers.owed()).min()
    }

    /// Who owes an answer is not forgiven because what it was asked is gone meanwhile (an SA that
    /// was replaced): it has one more thing to acknowledge.
    pub fn probe(&mut self, now: Instant, patience: Duration) {
        let overdue = self.contact.is_overdue(now, self.owed(), patience);
        let waits = self
            .flight
            .front()
            .is_some_and(|flight| flight.n <= self.probed);
        if overdue && !waits {
            self.ask();
        }
    }

    /// Asks for a sign of life; returns the record that is to be acknowledged.
    pub fn ask(&mut self) -> u64 {
        self.append(Step::Probe, Vec::new());
        self.probed = self.last_record();
        self.probed
    }

    /// Starts the copy of everything.
    pub fn copy(&mut self, objects: &BTreeMap<ObjectId, LedObject>) {
        self.bulk = objects.keys().copied().collect();
        self.dirty = objects.iter().map(|(o, led)| (*o, led.version)).collect();
    }

    /// An object changed: its newest version goes out ahead of the copy.
    pub fn touch(&mut self, object: ObjectId, version: u64) {
        self.dirty.insert(object, version);
        if self.hurried.insert(object) {
            self.urgent.push_back(object);
        }
    }

    /// An object has taken an SA over from another one (a rekeyed IKE SA inherits its Child SAs, RFC 7296
    /// section 2.18). Whatever is built of the former one lacks that SA, and a standby that hears so first
    /// forgets what it has recorded for it, while the leader goes by what was acknowledged (S1): so the
    /// heir is built first.
    pub fn inherits(&mut self, heir: ObjectId, former: ObjectId) {
        self.heirs.entry(former).or_default().insert(heir);
        // It has come back.
        if let Some(heirs) = self.heirs.get_mut(&heir) {
            heirs.remove(&former);
        }
    }

    /// An object that has to be built before this one.
    fn first_to_build(
        &mut self,
        object: ObjectId,
        tried: &BTreeSet<(ObjectId, ObjectId)>,
    ) -> Option<ObjectId> {
        let heirs = self.heirs.get_mut(&object)?;
        heirs.retain(|heir| self.dirty.contains_key(heir));
        let heir = heirs.iter().find(|heir| !tried.contains(&(object, **heir)));
        let heir = heir.copied();
        if heirs.is_empty() {
            self.heirs.remove(&object);
        }
        heir
    }

    /// Whether leases and outputs wait for this standby: a bound one always, a learning one once it
    /// has been sent all there is (R9). What it was sent before gives no right without an Admit, and
    /// that waits until it has recorded what is used and released by then: so a copy of very much,
    /// and a learner that takes its time, hold nothing up.
    pub fn binds(&self) -> bool {
        self.bound.is_some() || self.closing
    }

    /// Whether a learner could be admitted once it has acknowledged what is on its way.
    pub fn is_copied(&self) -> bool {
        self.bound.is_none() && self.answers() && self.bulk.is_empty()
    }

    /// From now on leases and outputs wait for it, so that there is an end to what it lacks: leases
    /// that were extended without it are offered to it (R5).
    pub fn close(&mut self, sas: &BTreeMap<SaId, LedSa>) {
        self.closing = true;
        let lacks = |(sa, acked): (&SaId, &Lease)| {
            let led = sas.get(sa).filter(|led| led.right)?;
            (acked.min(led.offered) != led.offered).then_some(*sa)
        };
        let lacking: Vec<SaId> = self.shares.iter().filter_map(lacks).collect();
        for sa in lacking {
            self.offer(sa);
        }
    }

    pub fn has(&self, object: ObjectId, version: u64) -> bool {
        self.versions.get(&object).is_some_and(|v| *v >= version)
    }

    pub fn backlog(&self) -> usize {
        self.flight.len() + self.dirty.len()
    }

    /// Whether it has acknowledged all that was released, what was released without it too: so it could be
    /// handed everything.
    pub fn is_told(&self) -> bool {
        self.owes.is_empty()
    }

    /// The last number given out.
    pub fn last_record(&self) -> u64 {
        self.next - 1
    }

    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Whether every object is acknowledged as released, a deletion as well, and every lease as used, of
    /// an SA that a held version removes too: the standby may be admitted (R9, hole C2).
    pub fn current(
        &self,
        objects: &BTreeMap<ObjectId, LedObject>,
        sas: &BTreeMap<SaId, LedSa>,
    ) -> bool {
        self.entered
            && self.closing
            && self.is_copied()
            && self.owes.is_empty()
            && objects
                .iter()
                .all(|(object, led)| led.released == 0 || self.has(*object, led.released))
            && sas.iter().all(|(sa, led)| {
                let acked = self.shares.get(sa).copied().unwrap_or_default();
                !led.right || led.limit.min(acked) == led.limit
            })
    }

    /// The standby has applied the stream up to `n`: the objects that it has now, and the SAs whose
    /// acknowledged lease moved.
    pub fn acknowledge(&mut self, n: u64) -> (Vec<ObjectId>, Vec<SaId>) {
        let n = n.min(self.last_record());
        let (mut had, mut moved) = (Vec::new(), Vec::new());
        self.applied = self.applied.max(n);
        while self.flight.front().is_some_and(|flight| flight.n <= n) {
            let Some(flight) = self.flight.pop_front() else {
                break;
            };
            self.afloat = self.afloat.saturating_sub(flight.size);
            self.unsent = self.unsent.max(flight.n + 1);
            let deletes = matches!(flight.step, Step::Delete { .. });
            if let Step::Store {
                object, version, ..
            }
            | Step::Delete { object, version } = flight.step
            {
                had.push(object);
                let owed = self.owes.get(&object).copied().unwrap_or_default();
                if owed <= version {
                    self.owes.remove(&object);
                }
                // A deletion that has been released is asked for by nobody any more.
                if !(deletes && owed == version) {
                    let known = self.versions.entry(object).or_default();
                    *known = version.max(*known);
                }
            }
            for child in &flight.children {
                if let Some(sa) = child.sa().filter(|_| !child.no_right) {
                    self.raise(sa, child.lease());
                    moved.push(sa);
                }
            }
        }
        (had, moved)
    }

    /// A version has left, whether this standby has it or not.
    pub fn released(&mut self, object: ObjectId, version: u64) {
        if !self.has(object, version) {
            self.owes.insert(object, version);
        }
    }

    /// An object is deleted here and there: nobody asks for it any more.
    pub fn forget_object(&mut self, object: ObjectId) {
        self.versions.remove(&object);
        self.heirs.remove(&object);
    }

    /// The standby has recorded a lease. Clamped to what was offered (R7, hole A11).
    pub fn acknowledge_lease(&mut self, sa: SaId, lease: Lease, offered: Lease) {
        self.raise(sa, lease.min(offered));
        let acked = self.shares.get(&sa).copied().unwrap_or_default();
        self.offers.reached(sa, acked, offered);
    }

    fn raise(&mut self, sa: SaId, lease: Lease) {
        if let Some(acked) = self.shares.get_mut(&sa) {
            *acked = acked.max(lease);
        }
    }

    /// A lease was raised: offer it, if the standby knows the SA.
    pub fn offer(&mut self, sa: SaId) {
        if self.shares.contains_key(&sa) && self.offers.queue(sa) {
            self.ready.push_back(sa);
        }
    }

    pub fn checkpoint(&mut self, sa: SaId) {
        if self.shares.contains_key(&sa) {
            self.checkpoints.insert(sa);
        }
    }

    pub fn forget_sa(&mut self, sa: SaId) {
        self.shares.remove(&sa);
        self.offers.forget(sa);
        self.checkpoints.remove(&sa);
    }

    /// Appends the exact ends and the handover (R15).
    pub fn hand_over(&mut self, ends: &[DrainedSa]) {
        for end in ends {
            let step = Step::Final {
                window: end.window.clone(),
            };
            self.append(step, vec![Grant::new(end.sa, end.lease)]);
        }
        self.append(Step::HandOver, Vec::new());
    }

    fn append(&mut self, step: Step, children: Vec<Grant>) {
        self.flight.push_back(Flight {
            n: self.next,
            step,
            children,
            since: None,
            sent: None,
            size: 0,
            datagram: 0,
        });
        self.next += 1;
    }

    /// The octets of the message with the record that the standby waits for, if it was sent in vain for so
    /// long.
    pub fn in_vain(&self, now: Instant, patience: Duration) -> Option<usize> {
        let next = self.flight.front()?;
        let since = next.since.filter(|since| now.since(*since) >= patience);
        since.map(|_| next.datagram)
    }

    /// Where a record is that is on its way, or has to be.
    fn place(&self, n: u64) -> Option<usize> {
        let first = self.flight.front()?.n;
        let place = usize::try_from(n.checked_sub(first)?).ok()?;
        (place < self.flight.len()).then_some(place)
    }

    /// The record that is to be sent next: one that was not acknowledged in time, or a new one.
    fn due(&mut self, now: Instant, retransmit: Duration) -> Option<usize> {
        while let Some((at, n)) = self.left.front().copied() {
            self.looked += 1;
            let place = self.place(n);
            // Acknowledged, or sent again since, if it is another time.
            let last = place.and_then(|place| self.flight.get(place)?.sent);
            if last == Some(at) {
                if now.since(at) >= retransmit {
                    return place;
                }
                break;
            }
            self.left.pop_front();
        }
        self.looked += 1;
        self.place(self.unsent)
            .filter(|_| self.afloat < FLIGHT_OCTETS)
    }

    /// A record has left for the first time, or once more.
    fn leaves(&mut self, now: Instant, place: usize, size: usize) {
        let Some(flight) = self.flight.get_mut(place) else {
            return;
        };
        flight.since = flight.since.or(Some(now));
        flight.sent = Some(now);
        self.left.push_back((now, flight.n));
        if flight.n == self.unsent {
            flight.size = size;
            self.afloat += size;
            self.unsent += 1;
        }
    }

    /// Turns changed objects into records while the window has room. From here on their secrets
    /// may have left: their SAs are bound to this standby (R4, R5).
    pub fn build(
        &mut self,
        now: Instant,
        settings: &Settings,
        objects: &BTreeMap<ObjectId, LedObject>,
        sas: &BTreeMap<SaId, LedSa>,
    ) {
        if !self.answers() {
            return;
        }
        let silent = self.silent_for(now) >= settings.vouch;
        let mut octets: usize = self.flight.iter().map(Flight::octets).sum();
        let mut withheld = Vec::new();
        let mut tried = BTreeSet::new();
        while self.flight.len() < FLIGHT_RECORDS && octets < FLIGHT_OCTETS {
            let Some(object) = self.urgent.pop_front().or_else(|| self.bulk.pop_front()) else {
                break;
            };
            self.hurried.remove(&object);
            let Some(version) = self.dirty.get(&object).copied() else {
                continue;
            };
            if let Some(heir) = self.first_to_build(object, &tried) {
                if withheld.contains(&heir) {
                    withheld.push(object);
                    continue;
                }
                // Once: two that inherit from each other wait for one of them alone.
                tried.insert((object, heir));
                for next in [object, heir] {
                    self.hurried.insert(next);
                    self.urgent.push_front(next);
                }
                continue;
            }
            let Some(led) = objects.get(&object) else {
                self.dirty.remove(&object);
                self.append(Step::Delete { object, version }, Vec::new());
                continue;
            };
            // From D on, no new secret is offered to a silent standby (R16): the SAs would be
            // bound to somebody who may never answer.
            let shared = |sa: &SaId| self.shares.contains_key(sa);
            if silent && !led.children.iter().all(shared) {
                withheld.push(object);
                continue;
            }
            self.dirty.remove(&object);
            octets += led.body.len();
            let children = self.bind(led, sas);
            let step = Step::Store {
                object,
                version: led.version,
                body: led.body.clone(),
            };
            self.append(step, children);
        }
        for object in withheld {
            self.hurried.insert(object);
            self.urgent.push_back(object);
        }
    }

    fn bind(&mut self, led: &LedObject, sas: &BTreeMap<SaId, LedSa>) -> Vec<Grant> {
        let mut children = Vec::with_capacity(led.children.len());
        for sa in &led.children {
            self.shares.entry(*sa).or_default();
            let Some(known) = sas.get(sa) else { continue };
            children.push(Grant {
                skip_sum: known.skip_sum,
                no_right: !known.right,
                esn: known.esn,
                ..Grant::new(*sa, known.offered)
            });
        }
        children
    }

    /// What every packet to this standby says of its session.
    pub fn head(&self, packet: &mut Packet) {
        packet.session = Some(self.sid);
        packet.time_echo = self.contact.echo;
        packet.admit = self.bound;
        packet.unvouched = self.unvouched;
    }

    /// Fills a packet with what is due; false if nothing was. A record that makes it large leaves alone:
    /// a path that loses it loses no heartbeat with it, or the standby would take its leader for dead.
    pub fn fill(
        &mut self,
        (now, beats): (Instant, bool),
        retransmit: Duration,
        sas: &BTreeMap<SaId, LedSa>,
        packet: &mut Packet,
    ) -> bool {
        let mut room = DATAGRAM_TARGET.saturating_sub(packet.encoded_len());
        self.requeue(now, retransmit);
        while room > OFFER
            && let Some(sa) = self.ready.pop_front()
        {
            if !self.offers.waits(sa) {
                continue;
            }
            let Some(known) = sas.get(&sa) else {
                self.offers.forget(sa);
                continue;
            };
            let mut grant = Grant::new(sa, known.offered);
            grant.esn = known.esn;
            room = room.saturating_sub(grant.encoded_len() + 3);
            packet.offers.push(grant);
            self.offers.sent(now, sa, known.offered);
            self.sent.push_back((now, sa));
        }
        while let Some(place) = self.due(now, retransmit) {
            let Some(record) = self.flight.get(place).map(Flight::record) else {
                break;
            };
            let size = record.encoded_len() + 5;
            let empty = !beats && packet.records.is_empty() && packet.offers.is_empty();
            if size > room && !empty {
                return true;
            }
            room = room.saturating_sub(size);
            packet.records.push(record);
            self.leaves(now, place, size);
            // Whatever else is in it: the path takes all of that or nothing.
            if let Some(flight) = self.flight.get_mut(place) {
                flight.datagram = CHECKSUM + packet.encoded_len();
            }
        }
        while room > CHECKPOINT
            && let Some(sa) = self.checkpoints.pop_first()
        {
            let Some(checkpoint) = sas.get(&sa).and_then(|led| led.checkpoint.as_ref()) else {
                continue;
            };
            let wire = WireCheckpoint::new(sa, checkpoint);
            room = room.saturating_sub(wire.encoded_len() + 3);
            packet.checkpoints.push(wire);
        }
        !(packet.offers.is_empty() && packet.records.is_empty() && packet.checkpoints.is_empty())
    }

    /// Offers that were not acknowledged in time are sent again.
    fn requeue(&mut self, now: Instant, retransmit: Duration) {
        while let Some((at, sa)) = self.sent.front().copied()
            && now.since(at) >= retransmit
        {
            self.sent.pop_front();
            // Acknowledged, or sent again since, if it is another time.
            if self.offers.sent_at(sa, at) {
                self.offer(sa);
            }
        }
    }
}

#[cfg(test)]
mod tests;
