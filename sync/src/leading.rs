//! The leader's book: objects, leases, what is held back, and the sessions that bound them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hitless_sa::{Epoch, Incarnation, Instant, Lease, MemberId, SaId};
use zeroize::Zeroizing;

use crate::estate::Estate;
use crate::lease::{Rate, Spent};
use crate::message::BODY_LIMIT;
use crate::post::count;
use crate::session::Session;
use crate::store::{Body, Recorded, Store, Stored};
use crate::vote::Campaign;
use crate::{Checkpoint, Degraded, Event, ObjectId, Output, Settings};

/// What a step needs from the node around it.
pub(crate) struct Context<'a> {
    pub settings: &'a Settings,
    pub incarnation: Incarnation,
    pub now: Instant,
    pub outputs: &'a mut VecDeque<Output>,
    pub spent: &'a mut Spent,
}

impl Context<'_> {
    pub fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}

/// The longest rest of a member whose sessions come to nothing is two to the power of that, less one,
/// times the patience of a member without rights.
const LONGEST_REST: u32 = 3;

/// A learner that is silent for so many times the patience of a member without rights is gone.
const LOST: u32 = 10;

/// What a look at one object and its Child SAs may take, and as much as that is left for other work.
const A_LOOK: Duration = Duration::from_micros(1);

/// The newest state of an object, released or still held.
pub(crate) struct LedObject {
    pub version: u64,
    /// The newest version whose outputs have left.
    pub released: u64,
    pub body: Body,
    pub children: Vec<SaId>,
}

/// One Child SA of the leader.
pub(crate) struct LedSa {
    pub object: ObjectId,
    /// Without it the keys are only known, never used (S5).
    pub right: bool,
    /// A version that has it was released: the peer may use it.
    pub live: bool,
    /// What the cell may use.
    pub limit: Lease,
    /// The highest offer; never below `limit` (R5).
    pub offered: Lease,
    pub cursor: u64,
    pub top: u64,
    pub esn: bool,
    pub skip_sum: u64,
    pub checkpoint: Option<Checkpoint>,
    pub outbound: Rate,
    pub inbound: Rate,
    pub asked: Option<Instant>,
}

impl LedSa {
    fn new(object: ObjectId, right: bool, first: Lease) -> LedSa {
        LedSa {
            object,
            right,
            live: false,
            limit: Lease::default(),
            offered: if right { first } else { Lease::default() },
            cursor: 1,
            top: 0,
            esn: false,
            skip_sum: 0,
            checkpoint: None,
            outbound: Rate::default(),
            inbound: Rate::default(),
            asked: None,
        }
    }
}

/// A commit whose outputs wait.
struct Held {
    children: Vec<SaId>,
    gone: Vec<SaId>,
}

/// How far a planned switchover has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Active,
    /// Workers pass the barrier, and the target proves that it is there by acknowledging this record.
    Draining {
        target: MemberId,
        until: Instant,
        asked: u64,
        drained: bool,
    },
    /// The exact ends are on their way, or about to be: this epoch is over for us (R15).
    Final {
        target: MemberId,
        until: Instant,
        /// However far the target has come by then.
        latest: Instant,
        /// What of the ends the target has applied.
        applied: u64,
        sent: bool,
    },
}

/// What one session says about one held commit.
enum Verdict {
    Ready,
    Wait,
    /// D has passed: leave without this standby.
    Unvouched,
    Discard,
}

pub(crate) struct Leading {
    pub epoch: Epoch,
    pub base: Option<Epoch>,
    pub objects: BTreeMap<ObjectId, LedObject>,
    pub sas: BTreeMap<SaId, LedSa>,
    pub sessions: BTreeMap<MemberId, Session>,
    /// Inherited, and not in the book yet.
    pub estate: Estate,
    pub phase: Phase,
    /// A switchover is wanted, and until when it waits for packets that wait for their lease.
    pub parked_until: Option<Instant>,
    pub silent: Vec<MemberId>,
    /// This leader stands for a higher epoch of its own (R10).
    pub campaign: Option<Campaign>,
    /// An election that brought no majority in time. Its epoch is used again: who has promised it
    /// can promise no other above the same base.
    pub stood: Option<Campaign>,
    /// Not again before this.
    pub campaign_after: Instant,
    held: BTreeMap<(ObjectId, u64), Held>,
    /// SAs that some held commit removes.
    leaving: BTreeSet<SaId>,
    /// SAs that a discarded commit would have removed; the next one of the object does.
    leftover: BTreeMap<ObjectId, Vec<SaId>>,
    /// Members whose sessions come to nothing, and how often in a row; when each may have another.
    stalled: BTreeMap<MemberId, (u32, Instant)>,
    /// When this leader was last away, until then.
    woke: Option<Instant>,
    /// Looks at held commits so far: what a test bounds.
    pub judged: std::cell::Cell<u64>,
}

impl Leading {
    pub fn new(epoch: Epoch, base: Option<Epoch>) -> Leading {
        Leading {
            epoch,
            base,
            objects: BTreeMap::new(),
            sas: BTreeMap::new(),
            sessions: BTreeMap::new(),
            estate: Estate::default(),
            phase: Phase::Active,
            parked_until: None,
            silent: Vec::new(),
            campaign: None,
            stood: None,
            campaign_after: Instant(0),
            held: BTreeMap::new(),
            leaving: BTreeSet::new(),
            leftover: BTreeMap::new(),
            stalled: BTreeMap::new(),
            woke: None,
            judged: std::cell::Cell::new(0),
        }
    }

    pub fn bare(&self) -> bool {
        self.base.is_none()
    }

    /// The engine changed an object.
    pub fn commit(
        &mut self,
        cx: &mut Context<'_>,
        object: ObjectId,
        version: u64,
        body: Option<Zeroizing<Vec<u8>>>,
        children: Vec<SaId>,
    ) {
        self.inherit_named(cx, object, &children);
        let newest = self.newest(object);
        let refusal = if self.phase != Phase::Active {
            Some("a switchover is under way")
        } else if version == 0 || newest.is_some_and(|newest| version <= newest) {
            Some("its version does not rise")
        } else if body.as_ref().is_some_and(|body| body.len() > BODY_LIMIT) {
            Some("it does not fit into a datagram")
        } else {
            None
        };
        if let Some(reason) = refusal {
            cx.outputs.push_back(Output::Discard { object, version });
            cx.event(Event::CommitRefused { object, reason });
            return;
        }
        let children = if body.is_some() { children } else { Vec::new() };
        let before = self.objects.get(&object);
        let released = before.map_or(0, |before| before.released);
        let mut gone = self.leftover.remove(&object).unwrap_or_default();
        gone.extend(before.iter().flat_map(|before| &before.children));
        // A child that another object has taken over meanwhile is not ours to remove.
        let owned = |sa: &SaId| self.sas.get(sa).is_some_and(|led| led.object == object);
        gone.retain(|sa| !children.contains(sa) && owned(sa));
        for sa in &children {
            let former = self.sas.get(sa).map(|led| led.object);
            self.adopt(cx, object, *sa);
            if let Some(former) = former.filter(|former| *former != object) {
                let sessions = self.sessions.values_mut();
                sessions.for_each(|session| session.inherits(object, former));
            }
        }
        match body {
            Some(body) => {
                let led = LedObject {
                    version,
                    released,
                    body: Arc::new(body),
                    children: children.clone(),
                };
                self.objects.insert(object, led);
            }
            None => {
                self.objects.remove(&object);
            }
        }
        for session in self.sessions.values_mut() {
            session.touch(object, version);
        }
        self.leaving.extend(&gone);
        self.held.insert((object, version), Held { children, gone });
        self.abandon(cx);
        self.settle_object(cx, object);
    }

    fn newest(&self, object: ObjectId) -> Option<u64> {
        let held = self
            .held
            .range((object, 0)..=(object, u64::MAX))
            .next_back()
            .map(|((_, version), _)| *version);
        held.max(self.objects.get(&object).map(|led| led.version))
    }

    /// A child of a commit: known, or new with its first lease. Only an SA that this incarnation
    /// made and never used before is new; keys of any other origin give no right (hole A13). What
    /// an earlier commit removes does not come back.
    fn adopt(&mut self, cx: &mut Context<'_>, object: ObjectId, sa: SaId) {
        let leaving = self.leaving.contains(&sa);
        if let Some(known) = self.sas.get_mut(&sa) {
            known.object = object;
            known.right &= !leaving;
            return;
        }
        let ours = sa.creator == cx.settings.me && sa.incarnation == cx.incarnation;
        let right = ours && cx.spent.spend(sa);
        if !right {
            cx.event(Event::NoRight {
                reason: "an SA that this incarnation did not make, or made before",
            });
        }
        let led = LedSa::new(object, right, cx.settings.leases.first);
        self.sas.insert(sa, led);
    }

    /// Whether a packet may wait for the lease of its SA: it is authenticated already, and nobody else can
    /// be given it.
    pub fn has_parked(&self) -> bool {
        let mut sas = self.sas.values();
        sas.any(|led| led.right && led.top > led.limit.high_water.0)
    }

    /// Looks at everything that is held. Due when a session begins, ends or falls silent, and now
    /// and then while one is silent; what an acknowledgement frees is looked at alone.
    pub fn settle_held(&mut self, cx: &mut Context<'_>) {
        if self.phase != Phase::Active {
            return;
        }
        self.abandon(cx);
        let mut objects: Vec<ObjectId> = self.held.keys().map(|(object, _)| *object).collect();
        objects.dedup();
        for object in objects {
            self.settle_object(cx, object);
        }
    }

    /// Releases what every bound standby has acknowledged of an object, or what D has freed (R16),
    /// in the order of its versions.
    pub fn settle_object(&mut self, cx: &mut Context<'_>, object: ObjectId) {
        if self.phase != Phase::Active {
            return;
        }
        while let Some((&(_, version), _)) =
            self.held.range((object, 0)..=(object, u64::MAX)).next()
        {
            let mut late = Vec::new();
            let mut verdict = Verdict::Ready;
            for (member, session) in &self.sessions {
                match self.judge(cx, session, object, version) {
                    Verdict::Ready => {}
                    Verdict::Unvouched => late.push(*member),
                    _ if self.one_has(cx, object, version) => {}
                    worse => {
                        verdict = worse;
                        break;
                    }
                }
            }
            match verdict {
                Verdict::Discard => {
                    self.discard(object, version);
                    cx.outputs.push_back(Output::Discard { object, version });
                    return;
                }
                Verdict::Wait => return,
                Verdict::Ready | Verdict::Unvouched => {
                    for member in late {
                        if let Some(session) = self.sessions.get_mut(&member) {
                            session.unvouched = !cx.settings.mutant.no_vouch_wait;
                        }
                    }
                    self.release(cx, object, version);
                }
            }
        }
    }

    /// Whether some standby has acknowledged it: enough for a mutant.
    fn one_has(&self, cx: &Context<'_>, object: ObjectId, version: u64) -> bool {
        let mut sessions = self.sessions.values();
        cx.settings.mutant.any_standby && sessions.any(|session| session.has(object, version))
    }

    fn discard(&mut self, object: ObjectId, version: u64) {
        let leftover = self.leftover.entry(object).or_default();
        self.held.retain(|(o, v), held| {
            let keep = *o != object || *v < version;
            if !keep {
                self.leaving.retain(|sa| !held.gone.contains(sa));
                leftover.append(&mut held.gone);
            }
            keep
        });
    }

    fn judge(
        &self,
        cx: &Context<'_>,
        session: &Session,
        object: ObjectId,
        version: u64,
    ) -> Verdict {
        self.judged.set(self.judged.get() + 1);
        if !session.binds() || session.has(object, version) {
            return Verdict::Ready;
        }
        let waited = session.silent_for(cx.now) >= cx.settings.vouch;
        if cx.settings.mutant.no_vouch_wait && session.silent_for(cx.now) >= cx.settings.heartbeat {
            return Verdict::Unvouched;
        }
        if !waited || cx.settings.degraded == Degraded::Strict {
            return Verdict::Wait;
        }
        // Hole D0: an SA whose secrets were offered but never acknowledged stays without a lease.
        let doomed = |sa: &SaId| {
            let never = session.shares.get(sa) == Some(&Lease::default());
            never && self.sas.get(sa).is_some_and(|led| led.right && !led.live)
        };
        let children = self.held.get(&(object, version)).map(|held| &held.children);
        if !cx.settings.mutant.fresh_although_offered
            && children.is_some_and(|children| children.iter().any(doomed))
        {
            return Verdict::Discard;
        }
        Verdict::Unvouched
    }

    fn release(&mut self, cx: &mut Context<'_>, object: ObjectId, version: u64) {
        let Some(held) = self.held.remove(&(object, version)) else {
            return;
        };
        for session in self.sessions.values_mut() {
            session.released(object, version);
        }
        if let Some(led) = self.objects.get_mut(&object) {
            led.released = led.released.max(version);
        } else if self.newest(object).is_none() {
            for session in self.sessions.values_mut() {
                session.forget_object(object);
            }
        }
        for sa in &held.gone {
            self.leaving.remove(sa);
            let back = self
                .objects
                .get(&object)
                .is_some_and(|led| led.children.contains(sa));
            if !back && self.sas.get(sa).is_some_and(|led| led.object == object) {
                self.remove_sa(*sa);
            }
        }
        let mut leases = Vec::with_capacity(held.children.len());
        for sa in held.children {
            self.settle_limit(cx, sa);
            let Some(led) = self.sas.get_mut(&sa).filter(|led| led.right) else {
                continue;
            };
            led.live = true;
            leases.push((sa, led.limit));
        }
        cx.outputs.push_back(Output::Committed {
            object,
            version,
            leases,
        });
    }

    fn remove_sa(&mut self, sa: SaId) {
        self.sas.remove(&sa);
        for session in self.sessions.values_mut() {
            session.forget_sa(sa);
        }
    }

    pub fn checkpoint(&mut self, sa: SaId, checkpoint: Checkpoint) {
        let Some(led) = self.sas.get_mut(&sa) else {
            return;
        };
        // What a predecessor knew still holds: workers count anew in each leadership.
        let known = led.checkpoint.unwrap_or_default();
        led.checkpoint = Some(checkpoint.after(known));
        for session in self.sessions.values_mut() {
            session.checkpoint(sa);
        }
    }

    /// A standby joins: it gets a copy of everything, deletions that are still held included.
    pub fn open_session(&mut self, member: MemberId, mut session: Session) {
        session.copy(&self.objects);
        for (object, version) in self.held.keys() {
            if !self.objects.contains_key(object) {
                session.touch(*object, *version);
            }
        }
        self.sessions.insert(member, session);
    }

    /// A session is over and its standby holds no right in it: what it bounded is free.
    pub fn release_session(&mut self, cx: &mut Context<'_>, member: MemberId) {
        if let Some(session) = self.sessions.get(&member) {
            let served = session.has_served(cx.settings.hold);
            self.note_end(cx, member, served, session.answers());
        }
        if self.close_session(cx, member) {
            cx.event(Event::SessionReleased { member });
        }
    }

    /// The same where it ends by no fault of the standby's.
    pub fn close_session(&mut self, cx: &mut Context<'_>, member: MemberId) -> bool {
        let Some(session) = self.sessions.remove(&member) else {
            return false;
        };
        for sa in session.shares.keys() {
            self.settle_limit(cx, *sa);
        }
        self.settle_held(cx);
        session.bound.is_some()
    }

    /// This leader was away until now: who fell silent meanwhile, or gave it up, is not to blame.
    pub fn woke(&mut self, now: Instant) {
        self.woke = Some(now);
        for session in self.sessions.values_mut() {
            session.woke(now);
        }
    }

    /// A session bounds every SA that it was given until it is given up. Who lets it come to that again
    /// and again gets the next one later and later, but not for an end soon after its leader was away;
    /// a standby that has served for a while starts anew.
    fn note_end(&mut self, cx: &Context<'_>, member: MemberId, served: bool, answered: bool) {
        let away = |woke| cx.now.since(woke) <= cx.settings.vouch;
        if served {
            self.stalled.remove(&member);
        } else if answered && !self.woke.is_some_and(away) {
            let (times, until) = self.stalled.entry(member).or_default();
            let longer = (1 << (*times).min(LONGEST_REST)) - 1;
            *until = cx.now + cx.settings.patience() * longer;
            *times = times.saturating_add(1);
        }
    }

    /// Whether this member has to wait for its next session.
    pub fn rests(&self, now: Instant, member: MemberId) -> bool {
        let stalled = self.stalled.get(&member);
        stalled.is_some_and(|(_, until)| now < *until)
    }

    fn silent(&self, cx: &Context<'_>, bound: bool) -> Vec<MemberId> {
        self.sessions
            .iter()
            .filter(|(_, session)| session.bound.is_some() == bound)
            .filter(|(_, session)| session.silent_for(cx.now) >= cx.settings.vouch)
            .map(|(member, _)| *member)
            .collect()
    }

    /// Learners that went silent have no right: nothing waits for them any more, and nothing is lost
    /// (hole D7). What they have of the copy they keep for a while, for a busy machine is silent too.
    fn abandon(&mut self, cx: &mut Context<'_>) {
        let lost = cx.settings.patience() * LOST;
        for member in self.silent(cx, false) {
            let Some(session) = self.sessions.get(&member) else {
                continue;
            };
            if session.closing {
                self.loosen(cx, member);
            } else if !session.answers() || session.silent_for(cx.now) >= lost {
                cx.event(Event::SessionAbandoned { member });
                self.release_session(cx, member);
            }
        }
    }

    /// A learner goes back to where it only copies: what it bounded is free.
    fn loosen(&mut self, cx: &mut Context<'_>, member: MemberId) {
        let Some(session) = self.sessions.get_mut(&member) else {
            return;
        };
        session.closing = false;
        let shares: Vec<SaId> = session.shares.keys().copied().collect();
        self.note_end(cx, member, false, true);
        for sa in shares {
            self.settle_limit(cx, sa);
        }
        self.settle_held(cx);
    }

    /// Learners that have the whole copy, and answer, are to be admitted soon.
    fn close_copies(&mut self, cx: &mut Context<'_>) {
        let sessions = self.sessions.iter();
        let copied = sessions.filter(|(member, session)| {
            let answers = session.silent_for(cx.now) < cx.settings.vouch;
            session.is_copied() && !session.closing && answers && !self.rests(cx.now, **member)
        });
        for member in copied.map(|(member, _)| *member).collect::<Vec<_>>() {
            if let Some(session) = self.sessions.get_mut(&member) {
                session.close(&self.sas);
            }
        }
    }

    /// Admits learners that are current (R9), and tells of bound ones that are silent (R20).
    pub fn review_sessions(&mut self, cx: &mut Context<'_>, beat: bool) {
        self.abandon(cx);
        if self.phase == Phase::Active {
            self.close_copies(cx);
        }
        for session in self.sessions.values_mut() {
            session.probe(cx.now, cx.settings.vouch);
        }
        let missing = self.silent(cx, true);
        if beat || missing != self.silent {
            self.settle_held(cx);
        }
        // The question costs a look at everything: once a heartbeat is often enough.
        if beat && self.phase == Phase::Active && self.campaign.is_none() {
            self.admit(cx);
        }
        if missing != self.silent {
            self.silent.clone_from(&missing);
            cx.outputs.push_back(Output::Degraded {
                on: !missing.is_empty(),
                members: missing,
            });
            self.ask_starved(cx);
        }
        for session in self.sessions.values_mut() {
            session.unvouched &= session.backlog() != 0;
        }
    }

    fn admit(&mut self, cx: &mut Context<'_>) {
        let (objects, sas) = (&self.objects, &self.sas);
        for (member, session) in &mut self.sessions {
            if session.bound.is_some() || cx.now < session.next_look {
                continue;
            }
            // A look at very many is not to take all the time there is.
            session.next_look = cx.now + A_LOOK * count(objects.len());
            if session.current(objects, sas) {
                session.bound = Some(session.applied());
                session.bound_at = cx.now;
                cx.outputs.push_back(Output::Event(Event::Admitted {
                    member: *member,
                    epoch: self.epoch,
                }));
            }
        }
    }

    /// What is left of a leadership: copies without any right (R14).
    pub fn into_store(self) -> Store {
        let mut store = Store::default();
        for (object, led) in self.objects {
            let stored = Stored {
                version: led.version,
                body: led.body,
                children: led.children,
                session: 0,
            };
            store.objects.insert(object, stored);
        }
        for (sa, led) in self.sas {
            let recorded = Recorded {
                object: led.object,
                lease: led.limit,
                session: 0,
                no_right: true,
                esn: led.esn,
                skip_sum: led.skip_sum,
                checkpoint: led.checkpoint,
                last: None,
            };
            store.sas.insert(sa, recorded);
        }
        self.estate.into_copies(&mut store);
        store
    }
}
