//! Who leads: cold start, suspicion, takeover, rivals, joining (`lease-holes` R9 to R14).

use std::time::Duration;

use hitless_sa::{Entropy, Epoch, Instant, MemberId};

use crate::disk::DEAD;
use crate::leading::{Context, Leading, Phase};
use crate::message::{Packet, Sid, WireEpoch};
use crate::node::{Node, State, TakingOver};
use crate::peer::Reading;
use crate::post::count;
use crate::session::Session;
use crate::switchover;
use crate::takeover::{self, Right};
use crate::vote::Campaign;
use crate::{Event, Role, StepDown};

/// Who is the better leader of two that share no keys: able, with more objects, with inherited
/// keys, preferred.
type Rank = (bool, u32, bool, u8, MemberId);

impl Node {
    fn patience(&self) -> Duration {
        self.settings.patience()
    }

    /// An epoch above all that are known; none above the last one, to which only a lie or a disk that is
    /// not what was written leads.
    pub(crate) fn next_epoch(&mut self) -> Option<Epoch> {
        self.counter = self.counter.checked_add(1)?;
        Some(Epoch {
            counter: self.counter,
            leader: self.settings.me,
            incarnation: self.durable.incarnation,
        })
    }

    fn my_rank(&self, objects: usize, inherits: bool) -> Rank {
        let me = self.settings.me;
        let members = &self.settings.members;
        let priority = members
            .iter()
            .find(|m| m.id == me)
            .map_or(0, |m| m.priority);
        let objects = count(objects);
        // As others are told of it (`say_fitness`), lest two be the better one, each in its own eyes; but
        // one that is stopping keeps its rank until it has handed over.
        (self.well(), objects, inherits, priority, me)
    }

    /// Without a leader and without rights: wait for one, or lead on nothing.
    pub(crate) fn review_out(&mut self) {
        if self.stopping.is_some() {
            return self.review_stopping();
        }
        if self.settings.votes_only() {
            return;
        }
        let patience = self.patience();
        let now = self.now;
        let mut best = true;
        let mut all = true;
        let mut taken = self.witnessed_leader();
        let mine = self.my_rank(self.store.objects.len(), false);
        let rest = self.rest_from_leading();
        let listening = self.settings.takeover();
        let witness = self.settings.witness;
        let others = self.peers.values();
        for peer in others.filter(|peer| Some(peer.member.id) != witness) {
            let other = peer.other_lately(now, patience);
            taken |= other.is_some_and(|other| other.leads.is_some());
            let said = peer.lately(now, patience);
            let Some((said, role)) = said.and_then(|said| Some((said, said.role?))) else {
                all = false;
                continue;
            };
            let member = peer.member;
            let rank = (
                said.healthy,
                said.objects,
                false,
                member.priority,
                member.id,
            );
            best &= mine > rank;
            taken |= role != Role::Out;
        }
        let State::Out(out) = &mut self.state else {
            return;
        };
        if taken {
            (out.quiet, out.woke) = (now, None);
            return;
        }
        let mut held_until = out.quiet + patience + rest;
        if !self.led_before {
            held_until = held_until.max(self.started + self.settings.hold);
        }
        let listened = out.woke.is_none_or(|woke| now >= woke + listening);
        let alone = listened && now >= held_until;
        // A better one that does not lead in three times that is no use.
        let overdue = listened && now >= held_until + (self.settings.hold + patience) * 2;
        if best && (all || alone) || overdue {
            self.lead_epoch(None);
        }
    }

    /// Whether another member may lead beside this one, with what this one has no copy of: it leads on
    /// nothing, and does not hear all of them.
    pub fn may_be_beside(&self) -> bool {
        let State::Leading(leading) = &self.state else {
            return false;
        };
        let witness = self.settings.witness;
        let others = self.peers.values();
        let mut others = others.filter(|peer| Some(peer.member.id) != witness);
        let patience = self.patience();
        leading.bare() && others.any(|peer| peer.lately(self.now, patience).is_none())
    }

    /// Leads a new epoch: inheriting from the session of a standby, or bare.
    fn lead_epoch(&mut self, inheriting: Option<(Epoch, Right)>) {
        let (epoch, right) = match inheriting {
            Some((epoch, right)) => (Some(epoch), Some(right)),
            None => (self.next_epoch(), None),
        };
        let Some(epoch) = epoch else {
            return;
        };
        let mut store = std::mem::take(&mut self.store);
        // What failed its drill is replaced: no number of it is drawn, none of it is delivered.
        // What is meant otherwise here is carried until IKE has closed it.
        let broken = std::mem::take(&mut self.drill.broken);
        for (sa, _) in broken.into_iter().filter(|(_, flaw)| flaw.is_of_keys()) {
            if let Some(recorded) = store.sas.get_mut(&sa) {
                recorded.no_right = true;
            }
        }
        let mut cx = Context {
            settings: &self.settings,
            incarnation: self.durable.incarnation,
            now: self.now,
            outputs: &mut self.outputs,
            spent: &mut self.spent,
        };
        let leading = takeover::lead(&mut cx, epoch, right, store);
        self.state = State::Leading(Box::new(leading));
        self.led_before = true;
        self.reigns.began(self.now);
        self.beat_due = true;
    }

    /// When a standby gives its leader up: the sooner if it has the right to take over. A copy that it
    /// could not carry is no reason to lose what it vouches for of all others.
    pub(crate) fn suspicion(&self) -> Option<Instant> {
        let State::Following(following) = &self.state else {
            return None;
        };
        let able = self.carries() && self.writes_as(self.role()) && following.admitted;
        let patience = if able {
            self.settings.silence() * self.caution()
                + self.settings.takeover() * self.better_standbys()
        } else {
            self.patience()
        };
        // What was said while this member slept waits to be read.
        let listened = self.awake + self.settings.heartbeat;
        let mut silence = (following.last_beat + patience).max(listened);
        if self.other_stands() {
            silence = silence.max(following.last_beat + DEAD);
        }
        Some(silence.max(following.not_before))
    }

    /// As standby: promise what is followed, and watch the leader.
    pub(crate) fn review_following(&mut self) {
        let State::Following(following) = &self.state else {
            return;
        };
        let (epoch, bare) = (following.epoch, following.bare);
        let admitted = following.admitted;
        let makes_way = admitted && self.makes_way();
        let ended = following.handed_over() || following.gone;
        if admitted && ended && self.now >= following.not_before && !makes_way {
            return self.take_over();
        }
        if self.suspicion().is_some_and(|at| self.now >= at) && !makes_way {
            let leader = following.leader;
            let silent_for = self.now.since(following.last_beat);
            self.event(Event::Suspected { leader, silent_for });
            if admitted {
                self.haste.suspects(epoch);
                return self.take_over();
            }
            return self.leave();
        }
        if !bare {
            self.want(Some(epoch), None);
        }
    }

    /// The leader has given its epoch up: by restart, or by leading another one (hole D5).
    pub(crate) fn leader_gone(&mut self) {
        let makes_way = self.makes_way();
        let State::Following(following) = &mut self.state else {
            return;
        };
        let (leader, admitted) = (following.leader, following.admitted);
        if !std::mem::replace(&mut following.gone, true) {
            self.event(Event::LeaderGone { leader });
        }
        if admitted && makes_way {
            // Another one is better: it stands first.
        } else if admitted {
            self.take_over();
        } else {
            self.leave();
        }
    }

    /// Gives up every right and looks for a leader again.
    pub(crate) fn leave(&mut self) {
        self.state = State::out(self.now);
        self.unsent = true;
    }

    fn take_over(&mut self) {
        // A right counts only while nothing above it was promised (R10).
        let State::Following(following) = &self.state else {
            return;
        };
        if self.promised() > Some(following.epoch) {
            self.event(Event::NoRight {
                reason: "a higher epoch was promised meanwhile",
            });
            return self.leave();
        }
        let Some(epoch) = self.next_epoch() else {
            self.event(Event::NoRight {
                reason: "no epoch is above the last one",
            });
            return self.leave();
        };
        let now = self.now;
        match std::mem::replace(&mut self.state, State::out(self.now)) {
            State::Following(mut following) => {
                following.stood.get_or_insert(now);
                self.state = State::TakingOver(Box::new(TakingOver {
                    following: *following,
                    campaign: Campaign::new(epoch, now),
                }));
                self.beat_due = true;
                self.next_beat = self.now + self.pause();
                self.review_takeover();
            }
            other => self.state = other,
        }
    }

    /// R1: the epoch is on disk before anything in it leaves; R10: with three or more members a
    /// majority has promised it.
    pub(crate) fn review_takeover(&mut self) {
        let State::TakingOver(taking) = &self.state else {
            return;
        };
        let epoch = taking.campaign.epoch;
        let elected = self.settings.members.len() == 2 || self.majority(&taking.campaign);
        let stood = taking.following.stood.unwrap_or(self.now);
        let lost = if self.disk_is_dead(stood) {
            Some("the disk of this member does not write: old keys are replaced")
        } else if !elected && self.is_lost(&taking.campaign, taking.following.epoch) {
            Some("no majority elects this member: old keys are replaced")
        } else {
            None
        };
        let following = &taking.following;
        let right = Right {
            base: following.epoch,
            session: following.session,
            handed_over: following.handed_over(),
            exact: following.vouched(self.now, &self.settings),
        };
        let led = self.durable.led == Some(epoch);
        if let Some(reason) = lost.filter(|_| !led) {
            self.event(Event::NoRight { reason });
            self.forswear(epoch);
            return self.leave();
        }
        self.want(Some(epoch), elected.then_some(epoch));
        self.note_campaign();
        if led || self.settings.mutant.lead_before_durable {
            let forgets = self.settings.mutant.forgets;
            self.lead_epoch((!forgets).then_some((epoch, right)));
        }
    }

    /// The disk refused: the right is kept, and used later.
    pub(crate) fn abort_takeover(&mut self) {
        if let State::TakingOver(taking) = &self.state
            && self.durable.promised >= Some(taking.campaign.epoch)
        {
            // Promised, perhaps elected: there is no way back below it, only another try.
            return;
        }
        match std::mem::replace(&mut self.state, State::out(self.now)) {
            State::TakingOver(taking) => {
                let mut following = taking.following;
                following.not_before = self.write_after;
                self.state = State::Following(Box::new(following));
            }
            other => self.state = other,
        }
    }

    /// Stops leading; what was led becomes a copy without rights (R14).
    pub(crate) fn step_down(&mut self, reason: StepDown) {
        self.reign_over(reason);
        match std::mem::replace(&mut self.state, State::out(self.now)) {
            State::Leading(leading) => {
                let ends = switchover::left_over(&self.settings, &leading);
                self.store = leading.into_store();
                for (sa, recorded) in &mut self.store.sas {
                    recorded.last = ends.get(sa).map(|used| (*used, Vec::new()));
                }
                self.outputs.push_back(crate::Output::StepDown { reason });
            }
            other => self.state = other,
        }
    }

    /// Two lead under different `[cluster]` sections, which share no right: one of them makes way. What
    /// they rank by is the same to both; their priorities may be what differs.
    pub(crate) fn outranked_by_another_section(&mut self, from: MemberId) {
        let State::Leading(leading) = &self.state else {
            return;
        };
        let recent = self.settings.takeover();
        let other = self.peers.get(&from);
        let Some(other) = other.and_then(|peer| peer.other_lately(self.now, recent)) else {
            return;
        };
        let (well, objects, inherits, _, me) = self.my_rank(leading.count(), !leading.bare());
        let theirs = (other.healthy, other.objects, !other.bare, from);
        if let Some(by) = other
            .leads
            .filter(|_| theirs > (well, objects, inherits, me))
        {
            self.step_down(StepDown::Outranked { by });
        }
    }

    /// Whether what was heard ends this leadership.
    pub(crate) fn deposed(&mut self, from: MemberId, packet: &Packet, reading: &Reading) -> bool {
        let State::Leading(leading) = &self.state else {
            return false;
        };
        let Some(said) = self.peers.get(&from).and_then(|peer| peer.said) else {
            return false;
        };
        let mine = leading.epoch;
        let bare = leading.bare();
        let session = leading.sessions.get(&from);
        let session = session.filter(|session| session.bound.is_some());
        let bound = session.is_some();
        let knows = session.is_some_and(|session| session.incarnation.0 == packet.incarnation);
        let anyone = leading
            .sessions
            .values()
            .any(|session| session.bound.is_some());
        let switching = leading.phase != Phase::Active;
        let leads = said.leads();
        // A bound standby has led an inheriting epoch above ours: it inherited from us (R14). If
        // it has lost that since, so have we (R13b).
        let led = packet.led.and_then(WireEpoch::epoch);
        if let Some(by) = led.filter(|led| *led > mine && led.leader == from && bound)
            && !self.settings.mutant.ignore_led
        {
            let reason = match (switching, leads) {
                (true, _) => StepDown::Switchover,
                (false, Some(_)) => StepDown::Deposed { by },
                (false, None) => StepDown::SuccessorLost { by },
            };
            self.step_down(reason);
            return true;
        }
        if let Some(by) = leads.filter(|_| reading.newest) {
            if !said.bare && by > mine && (bound || !bare) {
                self.step_down(StepDown::Deposed { by });
                return true;
            }
            let disjoint = said.bare || bare;
            let member = self.peers.get(&from).map(|peer| peer.member);
            let priority = member.map_or(0, |member| member.priority);
            let theirs = (said.healthy, said.objects, !said.bare, priority, from);
            let ours = self.my_rank(leading.count(), !bare);
            // Who holds a right in ours has heard of it, unless it has restarted since and none of it
            // was durable: it leads nothing lower. Whom we succeeded steps down for us (R14), not we
            // for it: else both would.
            let succeeded = leading.base.is_some_and(|base| base >= by);
            let possible = (!knows || by > mine) && !succeeded;
            if disjoint && possible && said.fresh && theirs > ours {
                self.step_down(StepDown::Outranked { by });
                return true;
            }
        }
        // Somebody follows an inheriting epoch above ours: it is led.
        let follows = said
            .epoch
            .filter(|_| matches!(said.role, Some(Role::Learning | Role::Admitted)));
        let other = |by: &Epoch| by.leader != from && self.peers.contains_key(&by.leader);
        let follows = follows.filter(|by| !said.bare && *by > mine && other(by));
        if let Some(by) = follows.filter(|_| reading.newest) {
            self.step_down(StepDown::Deposed { by });
            return true;
        }
        // It cannot record under our epoch. If nobody has a right in it, take a higher name.
        let promised = packet.promised.and_then(WireEpoch::epoch);
        if bare && !anyone && !switching && promised.is_some_and(|promised| promised > mine) {
            self.rename();
        }
        false
    }

    fn rename(&mut self) {
        if let Some(epoch) = self.next_epoch() {
            self.renamed(epoch, None);
        }
    }

    /// The epoch gets another name. Where it inherits from the old one, the sessions of the standbys that
    /// are heard go on in it: they bound it as before. No other counts any more (R12).
    pub(crate) fn renamed(&mut self, epoch: Epoch, base: Option<Epoch>) {
        let vouch = self.settings.vouch;
        self.lead(|leading, cx| {
            let carried = |session: &Session| base.is_some() && session.silent_for(cx.now) < vouch;
            let over = leading.sessions.iter();
            let over = over.filter(|(_, session)| !carried(session));
            for member in over.map(|(member, _)| *member).collect::<Vec<_>>() {
                leading.close_session(cx, member);
            }
            leading.epoch = epoch;
            leading.base = base;
            leading.campaign = None;
            leading.stood = None;
        });
    }

    /// A member asks for a session. Its challenged word that it holds no right in any older one
    /// with us is what frees that one (R13).
    pub(crate) fn joined(
        &mut self,
        from: MemberId,
        packet: &Packet,
        reading: &Reading,
        entropy: &mut dyn Entropy,
    ) {
        let State::Leading(leading) = &self.state else {
            return;
        };
        let fresh = reading.fresh || self.settings.mutant.no_challenge && reading.for_me;
        if packet.join == 0 || !fresh || leading.phase != Phase::Active {
            return;
        }
        // It could not be sent what is not in the book yet, and asks again with each heartbeat.
        if !leading.estate.is_empty() {
            return;
        }
        let above = |epoch: Option<WireEpoch>| {
            let epoch = epoch.and_then(WireEpoch::epoch);
            epoch.is_some_and(|epoch| epoch > leading.epoch)
        };
        if above(packet.led) && !self.settings.mutant.ignore_led {
            return;
        }
        // It has no right in any session with us (R13), and cannot record under our epoch: not
        // even in the session that answers this nonce.
        if above(packet.promised) && !self.settings.mutant.ignore_led {
            self.lead(|leading, cx| leading.release_session(cx, from));
            return;
        }
        let open = leading.sessions.get(&from);
        if open.is_some_and(|session| session.sid.standby == packet.join) {
            return;
        }
        let mut rests = false;
        self.lead(|leading, cx| {
            leading.release_session(cx, from);
            rests = leading.rests(cx.now, from);
        });
        if rests {
            return;
        }
        let sid = Sid {
            leader: entropy.u64(),
            standby: packet.join,
        };
        let incarnation = hitless_sa::Incarnation(packet.incarnation);
        let now = self.now;
        let said = self.peers.get(&from).and_then(|peer| peer.said);
        let echo = said.map_or(0, |said| said.time);
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.challenge = entropy.u64().max(1);
        }
        self.lead(|leading: &mut Leading, cx| {
            leading.open_session(from, Session::new(sid, incarnation, now, echo));
            cx.event(Event::SessionOpened {
                member: from,
                epoch: leading.epoch,
            });
        });
        self.poke.insert(from);
    }
}
