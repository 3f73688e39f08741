//! What an IKE SA has to do, and when: requests that wait for the window, lifetimes, liveness.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hitless_sa::{Instant, MessageId, SaId, Spi};

use super::child::{ChildState, Closing, Installed};
use super::create::{self, ChildOffer};
use super::established::{DELETE_GRACE, IkeSa, State};
use super::fragments::{self, Fragmenting, PATIENT_TRANSMISSIONS};
use super::message::Exchange;
use super::mobike::{self, Asked, Errand};
use super::rekey::{self, IkeOffer};
use super::turn::{Ids, Turn};
use super::unanswered::Unanswered;
use super::window::Due;
use super::{counter_sync, inform, probe, redirect, takeover};

/// Transmissions of a request that only fills a place in the peer's window.
const FILLINGS: u32 = 3;

/// Something to ask of the peer, when the window allows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Task {
    CreateChild(String),
    RekeyChild(SaId),
    RekeyIke,
    DeleteChild(SaId),
    /// The peer made a Child SA that we could not use.
    DeleteSpi(Spi),
    DeleteIke,
    Liveness,
    Mobike(Errand),
    /// Tell the peer the token of RFC 6290.
    CrashToken,
    /// Send the client to another gateway (RFC 5685).
    Redirect(IpAddr),
    /// Ask for another ticket (RFC 5723).
    AskTicket,
}

/// A task and the earliest time for it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Scheduled {
    pub at: Instant,
    pub task: Task,
}

/// What a request that is outstanding is for, with all that is needed to use its response.
pub(super) enum Pending {
    CreateChild(ChildOffer),
    RekeyIke(IkeOffer),
    DeleteChildren(Vec<SaId>),
    DeleteIke,
    Liveness,
    Mobike(Asked),
    /// What is told or asked in an INFORMATIONAL of its own, whose answer says nothing. A member that
    /// takes over without exact Message IDs does it again.
    Duty(Task),
    /// Nothing: a probe that the peer may have had before, and whose place in its window must not
    /// stay empty (`probe.rs`).
    Filler,
}

impl Pending {
    /// What kind of response it waits for.
    pub fn exchange(&self) -> Exchange {
        let followup = match self {
            Pending::CreateChild(offer) => offer.followup.is_some(),
            Pending::RekeyIke(offer) => offer.followup.is_some(),
            _ => false,
        };
        match self {
            _ if followup => Exchange::IkeFollowupKe,
            Pending::CreateChild(_) | Pending::RekeyIke(_) => Exchange::CreateChildSa,
            Pending::DeleteChildren(_)
            | Pending::DeleteIke
            | Pending::Liveness
            | Pending::Filler
            | Pending::Duty(_)
            | Pending::Mobike(_) => Exchange::Informational,
        }
    }

    /// No answer is waited for any more: what was to be made by one is not.
    pub fn release(&self, ids: &mut Ids) {
        if let Pending::CreateChild(offer) = self {
            ids.release(offer.spi);
        }
    }

    /// The task to do again when the request was given up.
    pub fn task(&self) -> Option<Task> {
        match self {
            Pending::CreateChild(offer) => Some(match offer.replaces {
                Some(old) => Task::RekeyChild(old),
                None => Task::CreateChild(offer.child.clone()),
            }),
            Pending::RekeyIke(_) => Some(Task::RekeyIke),
            Pending::DeleteChildren(ids) => ids.first().copied().map(Task::DeleteChild),
            Pending::DeleteIke => Some(Task::DeleteIke),
            Pending::Liveness | Pending::Filler => None,
            Pending::Duty(task) => Some(task.clone()),
            Pending::Mobike(asked) => Some(Task::Mobike(asked.errand())),
        }
    }

    /// Whether a task may be done while this is outstanding. What the peer would refuse meanwhile
    /// (RFC 7296 section 2.25), or what its outcome decides, waits.
    fn allows(&self, task: &Task) -> bool {
        match (self, task) {
            (Pending::RekeyIke(_) | Pending::DeleteIke, _)
            | (_, Task::RekeyIke | Task::DeleteIke)
            | (Pending::Mobike(_), Task::Mobike(_))
            | (Pending::CreateChild(_), Task::DeleteSpi(_)) => false,
            (Pending::CreateChild(offer), Task::CreateChild(name)) => offer.child != *name,
            (Pending::CreateChild(offer), Task::RekeyChild(id) | Task::DeleteChild(id)) => {
                offer.replaces != Some(*id)
            }
            (Pending::DeleteChildren(ids), Task::RekeyChild(id) | Task::DeleteChild(id)) => {
                !ids.contains(id)
            }
            _ => true,
        }
    }
}

impl IkeSa {
    /// Puts a task in the queue, once.
    pub fn schedule(&mut self, at: Instant, task: Task) {
        if !self.queue.iter().any(|s| s.task == task) {
            self.queue.push(Scheduled { at, task });
        }
    }

    /// What it wants to make, and was told to end, whether the peer was asked for it already or not.
    pub fn wants(&self, now: Instant) -> Vec<Scheduled> {
        if self.ends(now) {
            return vec![Scheduled {
                at: now,
                task: Task::DeleteIke,
            }];
        }
        if self.state != State::Established {
            return Vec::new();
        }
        // A deletion may follow from what was made: it is wanted when that has been made.
        let lasts = |task: &Task| match task {
            Task::CreateChild(_)
            | Task::RekeyChild(_)
            | Task::RekeyIke
            | Task::DeleteSpi(_)
            | Task::Redirect(_) => true,
            Task::DeleteChild(id) => self.child(*id).is_some_and(Installed::stays_closed),
            _ => false,
        };
        let all = self.asked_and_queued(now);
        all.filter(|scheduled| lasts(&scheduled.task)).collect()
    }

    /// The children that it has, makes, or is to make, as far as nobody wants their end.
    pub fn promised(&self, now: Instant) -> Vec<String> {
        if self.ends(now) {
            return Vec::new();
        }
        let lasting = self.children.iter().filter(|child| !child.stays_closed());
        let there = lasting.map(|child| child.name.clone());
        there.chain(self.missing()).collect()
    }

    /// What an exchange of ours makes was closed meanwhile, and nothing is to take its place.
    pub fn stays_closed(&self, offer: &ChildOffer) -> bool {
        let replaced = offer.replaces.and_then(|id| self.child(id));
        offer.closing == Some(Closing::ForGood) || replaced.is_some_and(Installed::stays_closed)
    }

    /// The children that it makes or is to make, and has none of.
    pub fn missing(&self) -> Vec<String> {
        let made = self.pending.values().filter_map(|pending| match pending {
            Pending::CreateChild(offer) => Some(&offer.child).filter(|_| !self.stays_closed(offer)),
            _ => None,
        });
        let queued = self.queue.iter().filter_map(|queued| match &queued.task {
            Task::CreateChild(name) => Some(name),
            _ => None,
        });
        let lasts = |name: &&String| {
            let mut all = self.children.iter().filter(|child| !child.stays_closed());
            all.any(|child| child.name == **name)
        };
        let missing = made.chain(queued).filter(|name| !lasts(name));
        missing
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// What the peer was asked for, and what waits to be.
    fn asked_and_queued(&self, now: Instant) -> impl Iterator<Item = Scheduled> {
        let asked = self.pending.values().filter_map(Pending::task);
        let asked = asked.map(move |task| Scheduled { at: now, task });
        asked.chain(self.queue.iter().cloned())
    }

    /// Child SAs of the peer that it is to be asked to delete.
    pub fn waiting_deletions(&self) -> usize {
        let tasks = self.queue.iter();
        tasks
            .filter(|s| matches!(s.task, Task::DeleteSpi(_)))
            .count()
    }

    /// Whether the peer is to be asked whether it receives what we send to its address (RFC 4555
    /// section 3.7), or was.
    pub fn wants_routability(&self) -> bool {
        let wanted = |task: &Task| matches!(task, Task::Mobike(mobike::Errand::Routability));
        let asked = |pending: &Pending| {
            matches!(pending, Pending::Mobike(mobike::Asked::Routability { .. }))
        };
        self.queue.iter().any(|s| wanted(&s.task)) || self.pending.values().any(asked)
    }

    /// Whether it is to end, and not for a successor.
    fn ends(&self, now: Instant) -> bool {
        let mut all = self.asked_and_queued(now);
        let told = all.any(|scheduled| scheduled.task == Task::DeleteIke);
        self.terminated || self.successors.is_empty() && (told || self.state == State::Deleting)
    }

    /// Wants this too, as far as it is not there or asked for.
    pub fn want(&mut self, wanted: Vec<Scheduled>) {
        for Scheduled { at, task } in wanted {
            let mut asked = self.pending.values().filter_map(Pending::task);
            let there = match &task {
                Task::CreateChild(name) => self.serves(name),
                Task::RekeyChild(id) | Task::DeleteChild(id) => self.child(*id).is_none(),
                _ => false,
            };
            let asked = asked.any(|asked| asked == task);
            if let Task::DeleteChild(id) = task
                && let Some(child) = self.child_mut(id)
            {
                child.closing = Some(Closing::ForGood);
            }
            if !there && !asked {
                self.schedule(at, task);
            }
        }
    }

    /// Forgets what it wants, and has asked for, but for what ends something.
    pub fn want_no_more(&mut self) {
        self.full = Some(0);
        let ends = |task: &Task| matches!(task, Task::DeleteIke | Task::DeleteChild(_));
        self.queue.retain(|scheduled| ends(&scheduled.task));
        self.pending
            .retain(|_, pending| pending.task().is_some_and(|task| ends(&task)));
    }

    /// Whether it can have no further Child SA (RFC 7296 section 1.3).
    pub fn is_full(&self) -> bool {
        self.full.is_some_and(|most| self.children.len() >= most)
    }

    /// Whether a Child SA of that name lives or is being made.
    pub fn serves(&self, child: &str) -> bool {
        let lives = self
            .children
            .iter()
            .any(|c| c.name == child && c.state != ChildState::Deleting);
        lives || self.is_making_child(child)
    }

    /// Whether one, or one more, of that name is asked for, or is to be.
    pub fn is_making_child(&self, child: &str) -> bool {
        let mut pending = self.pending.values();
        let pending =
            pending.any(|p| matches!(p, Pending::CreateChild(offer) if offer.child == child));
        let queued = self
            .queue
            .iter()
            .any(|s| matches!(&s.task, Task::CreateChild(name) if name == child));
        pending || queued
    }

    /// Whether it has a child, makes it, or is to, and nobody wants its end: one that is to be closed
    /// is no reason not to make it anew for whoever asks.
    pub fn keeps(&self, child: &str) -> bool {
        let mut children = self.children.iter();
        let mut queued = self.queue.iter();
        let mut pending = self.pending.values();
        // What the peer has deleted meanwhile may be refused a successor.
        let succeeds = |offer: &ChildOffer| {
            let old = offer.replaces.map(|id| self.child(id).is_some());
            offer.child == child && old != Some(false) && !self.stays_closed(offer)
        };
        children.any(|c| c.name == child && !c.stays_closed())
            || queued.any(|s| matches!(&s.task, Task::CreateChild(name) if name == child))
            || pending.any(|p| matches!(p, Pending::CreateChild(offer) if succeeds(offer)))
    }

    /// Whether a request may be sent now.
    fn is_free(&self) -> bool {
        self.window.has_room() && !self.is_finding_out() && self.owed.is_none()
    }

    /// Whether a task may be done now, as far as it depends on what is outstanding. While it is not
    /// known what an IKE SA is for, only whether it lives is asked - a peer that has lost it and its
    /// predecessor is found out on both at the same time, not on one after the other - and that it ends.
    pub fn allows(&self, task: &Task) -> bool {
        let known = !self.undecided || matches!(task, Task::Liveness | Task::DeleteIke);
        known && self.is_free() && self.pending.values().all(|pending| pending.allows(task))
    }

    /// The tasks that wait for nothing but their time, by their places in the queue. One that has
    /// to be alone is not overtaken, but by the end.
    fn startable(&self) -> impl Iterator<Item = (usize, Instant)> {
        let alone = |s: &Scheduled| matches!(s.task, Task::RekeyIke | Task::DeleteIke);
        let waits = self
            .queue
            .iter()
            .position(|s| alone(s) && !self.allows(&s.task));
        let first = move |position: usize| waits.is_none_or(|waits| position < waits);
        let all = self.queue.iter().enumerate();
        let allowed = all.filter(move |(position, s)| {
            (first(*position) || s.task == Task::DeleteIke) && self.allows(&s.task)
        });
        allowed.map(|(position, s)| (position, s.at))
    }

    /// Starts what is due as far as the window allows.
    pub fn advance(&mut self, turn: &mut Turn<'_>) {
        // What is asked leaves from the new address.
        if std::mem::take(&mut self.readdressed) {
            mobike::readdressed(self, turn);
        }
        self.mind_message_ids(turn);
        self.need_for_tasks(turn.now);
        while self.state != State::Gone {
            let due = self.startable().find(|(_, at)| *at <= turn.now);
            let Some(scheduled) = due.map(|(position, _)| self.queue.remove(position)) else {
                break;
            };
            turn.dirty = true;
            let busy = self.state != State::Established;
            match scheduled.task {
                Task::DeleteIke => inform::delete_ike(self, turn),
                // The peer may not know of the successor: the answer that tells it was lost, and is
                // asked for again where we were.
                Task::Mobike(errand) if matches!(self.state, State::Rekeyed { .. }) => {
                    mobike::perform(self, turn, errand);
                }
                _ if busy => {}
                Task::CreateChild(name) => create::request(self, turn, &name, None, None),
                Task::RekeyChild(id) => create::rekey(self, turn, id),
                Task::RekeyIke => rekey::request(self, turn, None),
                Task::DeleteChild(id) => inform::delete_child(self, turn, id),
                Task::DeleteSpi(spi) => inform::delete_spi(self, turn, spi),
                Task::CrashToken => self.give_token(turn),
                Task::AskTicket => self.ask_ticket(turn),
                Task::Mobike(errand) => mobike::perform(self, turn, errand),
                Task::Redirect(to) => redirect::request(self, turn, to),
                Task::Liveness => {
                    let besides = mobike::ask_for_mapping(self, turn);
                    self.request(turn, Exchange::Informational, &besides, Pending::Liveness);
                }
            }
        }
        self.replace_old(turn);
    }

    /// Timers.
    pub fn tick(&mut self, turn: &mut Turn<'_>) {
        self.reassembly.expire(turn.now);
        self.keep_mapping(turn);
        self.tick_unanswered(turn);
        counter_sync::tick(self, turn);
        probe::tick(self, turn);
        while self.owed.is_none() {
            match self.window.due(turn.now, turn.backoff()) {
                Due::Nothing => break,
                Due::Resend(id, _) | Due::Dead(id) if self.has_filled(id) => {
                    self.window.confirm(id);
                    let given_up = self.pending.remove(&id);
                    self.give_up(turn, given_up.into_iter().collect());
                    turn.dirty = true;
                }
                Due::Resend(id, _) if takeover::ignored(self, turn, id) => break,
                Due::Resend(id, _) if self.divide(turn, id) => {}
                Due::Resend(id, bytes) => {
                    let tries = turn.backoff().tries;
                    let path = mobike::resend_path(self, turn, id, tries);
                    turn.immediate.push(path.transmit(bytes));
                }
                Due::Dead(_) if takeover::doubt_silence(self, turn) => break,
                Due::Dead(_) => return self.lose(turn, "no answer"),
            }
        }
        if self.forget_at.is_some_and(|at| at <= turn.now) {
            return self.destroy(turn, "redundant");
        }
        if let State::Rekeyed { delete_at } = self.state
            && delete_at <= turn.now
        {
            self.state = State::Rekeyed {
                delete_at: turn.now + DELETE_GRACE,
            };
            self.schedule(turn.now, Task::DeleteIke);
        }
        if self.state == State::Established {
            self.lifetimes(turn);
        }
        self.advance(turn);
    }

    /// Whether a request that fills a place has been sent often enough: no answer means that it was
    /// answered to another member.
    fn has_filled(&self, id: MessageId) -> bool {
        let outstanding = self.window.outstanding.get(&id);
        outstanding.is_some_and(|o| o.fills && o.sent > FILLINGS)
    }

    /// Sends an outstanding request in smaller fragments, if it stayed unanswered for long and was
    /// sent in larger ones (RFC 7383 section 2.5.2). The content and the Message ID are the same.
    fn divide(&mut self, turn: &mut Turn<'_>, id: MessageId) -> bool {
        let Some(outstanding) = self
            .window
            .outstanding
            .get(&id)
            .filter(|o| o.sent >= PATIENT_TRANSMISSIONS)
        else {
            return false;
        };
        let Some((smaller, bytes)) = self.divided(turn, &outstanding.bytes) else {
            return false;
        };
        self.fragmenting = smaller;
        if let Some(outstanding) = self.window.outstanding.get_mut(&id) {
            outstanding.bytes = bytes.clone();
        }
        self.transmit(turn, bytes);
        true
    }

    fn divided(&self, turn: &mut Turn<'_>, flight: &[u8]) -> Option<(Fragmenting, Vec<u8>)> {
        let smaller = self.fragmenting.lowered(self.path)?;
        let flight = fragments::divide(&self.keys, turn, flight, smaller.limit(self.path))?;
        Some((smaller, flight))
    }

    fn lifetimes(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        if self.rekey_at.is_some_and(|at| at <= now) {
            self.rekey_at = None;
            self.schedule(now, Task::RekeyIke);
        }
        self.reauthenticate(turn);
        self.end_of_life(turn);
        self.renew_ticket(turn);
        let mut tasks = Vec::new();
        for child in &mut self.children {
            if child.rekey_at.is_some_and(|at| at <= now) {
                child.rekey_at = None;
                tasks.push(match child.state {
                    ChildState::Installed => Task::RekeyChild(child.sa.id),
                    // Replaced, and the peer that should have deleted it did not.
                    _ => Task::DeleteChild(child.sa.id),
                });
            }
        }
        for task in tasks {
            self.schedule(now, task);
        }
        if self.liveness_at().is_some_and(|at| at <= now) {
            self.schedule(now, Task::Liveness);
        }
    }

    fn liveness_at(&self) -> Option<Instant> {
        let delay = self.connection.dpd_delay;
        // What is only to be done later says nothing of the peer.
        let asking =
            !self.pending.is_empty() || self.queue.iter().any(|s| s.task == Task::Liveness);
        let due = !delay.is_zero() && !asking && self.state == State::Established;
        due.then(|| self.heard + delay)
    }

    /// When `tick` is needed next.
    pub fn deadline(&self) -> Option<Instant> {
        let established = self.state == State::Established;
        let rests = self.rests();
        let free = self.is_free() || rests;
        let delete_at = match self.state {
            State::Rekeyed { delete_at } => Some(delete_at),
            _ => None,
        };
        let lives = self.children.iter().filter_map(|c| c.life_at);
        let rekeys = self.children.iter().filter_map(|c| c.rekey_at);
        let children = rekeys.chain(lives).min();
        let queued = match rests {
            true => self.queue.iter().map(|s| s.at).min(),
            false => self.startable().map(|(_, at)| at).min(),
        };
        [
            self.window.deadline().filter(|_| self.owed.is_none()),
            self.unanswered.map(Unanswered::deadline),
            self.sync.as_ref().map(|s| s.resend_at),
            self.probe.as_ref().and_then(|p| p.deadline()),
            self.forget_at,
            self.reassembly.deadline(),
            self.keepalive_at(),
            delete_at,
            self.rekey_at.filter(|_| established),
            self.life_at().filter(|_| established),
            self.renew_at().filter(|_| established),
            self.authenticated.reauth_at.filter(|_| established),
            children.filter(|_| established),
            queued,
            self.liveness_at().filter(|_| free),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Gives up the outstanding requests; their tasks are done anew, in that order. Where the peer has
    /// rekeyed the IKE SA meanwhile, its exchange is the one that counts.
    pub fn abandon(&mut self, turn: &mut Turn<'_>) {
        self.abandon_below(turn, MessageId::END);
    }

    /// The same of those below a Message ID.
    pub fn abandon_below(&mut self, turn: &mut Turn<'_>, oldest: MessageId) {
        self.window.outstanding = self.window.outstanding.split_off(&oldest);
        let kept = self.pending.split_off(&oldest);
        let given_up = std::mem::replace(&mut self.pending, kept);
        self.give_up(turn, given_up.into_values().collect());
    }

    fn give_up(&mut self, turn: &mut Turn<'_>, given_up: Vec<Pending>) {
        given_up
            .iter()
            .for_each(|pending| pending.release(turn.ids));
        let theirs = given_up.iter().find_map(|pending| match pending {
            Pending::RekeyIke(offer) => offer.collision.as_ref().map(|theirs| theirs.ike),
            _ => None,
        });
        for pending in &given_up {
            if let Pending::CreateChild(offer) = pending
                && offer.replaces.is_some_and(|old| self.child(old).is_none())
            {
                create::missed(self, turn, offer);
            }
        }
        let tasks = given_up.iter().filter_map(Pending::task);
        let again = tasks.map(|task| Scheduled { at: turn.now, task });
        self.queue.splice(0..0, again.collect::<Vec<_>>());
        if let Some(theirs) = theirs {
            rekey::inherit(self, turn, theirs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::Input;
    use crate::ike::message::Header;
    use crate::ike::pair::{C, P, Pair};

    /// Seed 21557 of the simulator: a leader without a right to a Child SA asked for another one, and a
    /// standby that had been offered its secrets fell silent. The exchange was undone, and with it the
    /// wish: the SA without a right stayed for ever.
    #[test]
    fn what_a_discard_undoes_is_still_wanted_lease_holes_d0() {
        let mut pair = Pair::new(1);
        let (ike, _, before) = pair.records[C].clone();
        let child = pair.ike(C).children[0].sa.id;
        let exchanges = |datagrams: &[Vec<u8>]| -> Vec<Exchange> {
            let headers = datagrams.iter().map(|d| Header::parse(d).unwrap());
            headers.map(|header| header.exchange).collect()
        };
        let said = pair.input(C, Input::RekeyChild(child));
        assert_eq!(exchanges(&said), [Exchange::CreateChildSa]);
        for _ in 0..2 {
            let (now, version) = (pair.now, pair.records[C].1);
            let engine = &mut pair.engines[C];
            let back = engine.roll_back(now, &mut pair.entropy, ike, version, Some(&before));
            assert!(back.is_ok());
            let wanted = pair.ike(C).wants(now);
            assert_eq!(wanted.len(), 1);
            pair.now += std::time::Duration::from_millis(1);
            let mut again = pair.outputs(C);
            again.extend(pair.input(C, Input::Timeout));
            assert_eq!(exchanges(&again), [Exchange::CreateChildSa], "once");
        }
        // What was asked for before, and stays asked for, is not asked for twice.
        let (ike, version, asked) = pair.records[C].clone();
        let (now, engine) = (pair.now, &mut pair.engines[C]);
        let back = engine.roll_back(now, &mut pair.entropy, ike, version, Some(&asked));
        assert!(back.is_ok());
        assert!(pair.ike(C).queue.is_empty() && pair.ike(C).is_making());
    }

    /// Seed 9638 of the simulator: a standby fell silent while an IKE SA was made, and all of it was
    /// undone. Its children were to be up, and nobody ever asked for them again.
    #[test]
    fn an_ike_sa_that_a_discard_undoes_is_made_anew_lease_holes_d0() {
        for told_to_end in [false, true] {
            let mut pair = Pair::new(2);
            let (ike, version, _) = pair.records[C].clone();
            if told_to_end {
                pair.input(C, Input::Terminate { ike });
            }
            let (now, engine) = (pair.now, &mut pair.engines[C]);
            let back = engine.roll_back(now, &mut pair.entropy, ike, version, None);
            assert!(back.is_ok());
            assert!(pair.engines[C].sas.is_empty());
            pair.now += std::time::Duration::from_secs(2);
            let said = pair.input(C, Input::Timeout);
            let first = said.iter().map(|d| Header::parse(d).unwrap().exchange);
            let expected = match told_to_end {
                false => vec![Exchange::IkeSaInit],
                true => Vec::new(),
            };
            assert_eq!(first.collect::<Vec<_>>(), expected);
        }
    }

    /// Seed 2617 of the simulator: the peer deleted a Child SA while its successor was asked for, and
    /// then the IKE SA died. That successor is lost with it: nothing else would ever make the child.
    #[test]
    fn a_child_whose_successor_was_asked_for_is_made_anew_when_the_ike_sa_dies() {
        let mut pair = Pair::new(1);
        let [ours, theirs] = [C, P].map(|host| pair.ike(host).children[0].sa.id);
        pair.input(C, Input::RekeyChild(ours));
        for datagram in pair.input(P, Input::TerminateChild(theirs)) {
            pair.give(C, &datagram);
        }
        assert!(pair.ike(C).children.is_empty());
        let mut said = Vec::new();
        for _ in 0..50 {
            pair.now = pair.engines[C].poll_timeout().unwrap_or(pair.now);
            said = pair.input(C, Input::Timeout);
            if pair.engines[C].sas.is_empty() && !said.is_empty() {
                break;
            }
        }
        let first = Header::parse(&said[0]).unwrap();
        assert_eq!(first.exchange, Exchange::IkeSaInit);
    }

    /// Seed 14131 of the simulator: both replaced a Child SA, our request was lost, and the peer deleted
    /// its successor as well. Our request was refused at last, and nobody asked for another one.
    #[test]
    fn a_child_that_went_while_both_replaced_it_is_made_anew_rfc7296_section_2_25_1() {
        let mut pair = Pair::new(1);
        let [ours, theirs] = [C, P].map(|host| pair.ike(host).children[0].sa.id);
        let late = pair.input(C, Input::RekeyChild(ours));
        let asked = pair.input(P, Input::RekeyChild(theirs));
        converse(&mut pair, P, asked);
        let successor = pair.ike(P).children[0].sa.id;
        assert_ne!(successor, theirs);
        let deletes = pair.input(P, Input::TerminateChild(successor));
        converse(&mut pair, P, deletes);
        assert!(pair.ike(C).children.is_empty());
        converse(&mut pair, C, late);
        assert!(pair.ike(C).pending.is_empty());
        pair.now += std::time::Duration::from_secs(2);
        let again = pair.input(C, Input::Timeout);
        converse(&mut pair, C, again);
        assert_eq!(pair.ike(C).children.len(), 1);
    }

    /// Seed 8083 of the simulator: a child was to be replaced, the peer deleted it meanwhile, and the
    /// request was given up by a synchronisation of Message IDs. Nobody asked for the child any more.
    #[test]
    fn a_child_that_went_while_its_successor_was_asked_for_is_made_anew_when_that_is_given_up() {
        let mut pair = Pair::new(1);
        let [ours, theirs] = [C, P].map(|host| pair.ike(host).children[0].sa.id);
        let asked = pair.input(C, Input::RekeyChild(ours));
        let deletes = pair.input(P, Input::TerminateChild(theirs));
        converse(&mut pair, P, deletes);
        assert!(pair.ike(C).children.is_empty());
        // The answer is lost. Whoever misses the child sees that it is being made.
        pair.give(P, &asked[0]);
        pair.now += std::time::Duration::from_secs(2);
        pair.input(C, Input::Timeout);
        let spi = pair.ike(C).local_spi;
        let (now, engine) = (pair.now, &mut pair.engines[C]);
        engine.with(now, &mut pair.entropy, spi, |ike, turn| ike.abandon(turn));
        pair.now += std::time::Duration::from_secs(2);
        let again = pair.input(C, Input::Timeout);
        converse(&mut pair, C, again);
        assert_eq!(pair.ike(C).children.len(), 1);
    }

    /// What one end says goes to the other, and so on until there is nothing left to say.
    fn converse(pair: &mut Pair, from: usize, mut datagrams: Vec<Vec<u8>>) {
        let mut host = from;
        while !datagrams.is_empty() {
            host = 1 - host;
            let answers = datagrams.iter().flat_map(|d| pair.give(host, d));
            datagrams = answers.collect();
        }
    }

    /// What an operator closes stays closed, although what was under way is undone.
    #[test]
    fn an_order_to_end_outlives_a_discard() {
        let mut pair = Pair::new(1);
        let (ike, _, before) = pair.records[C].clone();
        let child = pair.ike(C).children[0].sa.id;
        pair.input(C, Input::RekeyChild(child));
        pair.input(C, Input::Terminate { ike });
        let (now, version) = (pair.now, pair.records[C].1);
        let engine = &mut pair.engines[C];
        let back = engine.roll_back(now, &mut pair.entropy, ike, version, Some(&before));
        assert!(back.is_ok());
        assert!(pair.ike(C).terminated);
        pair.now += std::time::Duration::from_millis(1);
        let mut said = pair.outputs(C);
        said.extend(pair.input(C, Input::Timeout));
        let header = Header::parse(said.last().unwrap()).unwrap();
        assert_eq!(header.exchange, Exchange::Informational);
        assert!(matches!(
            pair.ike(C).pending.values().next(),
            Some(Pending::DeleteIke)
        ));
    }
}
