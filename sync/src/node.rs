//! The facade: inputs in, outputs out, and which role hears which input.
//!
//! `election.rs` decides who leads, `post.rs` writes datagrams, `switchover.rs` hands over. The
//! rooms of the roles are `leading.rs` with `session.rs`, and `following.rs` with `store.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hitless_sa::{Entropy, Instant, MemberId};
use zeroize::Zeroizing;

use crate::beat::Standing;
use crate::disk::{Forsworn, Unwritten};
use crate::fitness::{Broken, Drill};
use crate::following::Following;
use crate::haste::Haste;
use crate::leading::{Context, Leading, Phase};
use crate::lease::Spent;
use crate::message::{Packet, Sid, WireEpoch, WireSa};
use crate::narrow::Arrives;
use crate::peer::{Own, Peer, Reading, differ};
use crate::reign::Reigns;
use crate::store::Store;
use crate::vote::Campaign;
use crate::{Durable, Event, Input, MemberStatus, ObjectId, Output, Role, Settings, Status};

/// What a member is now, with what only that role knows.
pub(crate) enum State {
    Out(Out),
    Following(Box<Following>),
    /// Decided; waits for its disk.
    TakingOver(Box<TakingOver>),
    Leading(Box<Leading>),
}

impl State {
    /// A fresh start outside of everything; its nonce is drawn with the next input.
    pub fn out(now: Instant) -> State {
        State::Out(Out {
            quiet: now,
            woke: None,
            nonce: 0,
        })
    }
}

/// No leader to follow, no right to lead with.
pub(crate) struct Out {
    /// Since when nobody is known to lead.
    pub quiet: Instant,
    /// When it woke first since then: what was said while it slept waits to be read.
    pub woke: Option<Instant>,
    /// The nonce of the session that this member asks for.
    pub nonce: u64,
}

pub(crate) struct TakingOver {
    pub following: Following,
    pub campaign: Campaign,
}

/// One member of one group.
pub struct Node {
    pub(crate) settings: Settings,
    pub(crate) durable: Durable,
    /// Names this process in every packet (hole A20); drawn with the first input.
    pub(crate) process: u64,
    /// The write that is under way.
    pub(crate) writing: Option<Durable>,
    /// No write before this, after one has failed.
    pub(crate) write_after: Instant,
    /// No try before this, if nothing needs to be written.
    pub(crate) try_after: Instant,
    pub(crate) unwritten: Option<Unwritten>,
    pub(crate) forsworn: Option<Forsworn>,
    pub(crate) peers: BTreeMap<MemberId, Peer>,
    pub(crate) state: State,
    /// The copy of a standby; empty while leading.
    pub(crate) store: Store,
    pub(crate) spent: Spent,
    /// Sessions of this member as a standby so far.
    pub(crate) sessions: u64,
    /// The highest epoch counter ever heard of.
    pub(crate) counter: u64,
    pub(crate) healthy: bool,
    /// A worker of it has ended or is stuck.
    pub(crate) halted: bool,
    pub(crate) drill: Drill,
    /// Since when this member runs without a break: one that has slept has not listened.
    pub(crate) awake: Instant,
    /// Until when a shutdown may take.
    pub(crate) stopping: Option<Instant>,
    pub(crate) stopped: bool,
    /// The session that a stopping standby resigns from.
    pub(crate) resigned: Option<(MemberId, Sid)>,
    pub(crate) started: Instant,
    pub(crate) led_before: bool,
    pub(crate) reigns: Reigns,
    pub(crate) haste: Haste,
    pub(crate) now: Instant,
    pub(crate) next_beat: Instant,
    pub(crate) beat_due: bool,
    /// When the other members are owed a word of this one, if its caller is busy until then.
    pub(crate) next_word: Instant,
    /// What they were last told that this member is.
    pub(crate) told: Option<Standing>,
    /// Members that are written to before the next heartbeat.
    pub(crate) poke: BTreeSet<MemberId>,
    pub(crate) serial: u64,
    pub(crate) unsent: bool,
    pub(crate) outputs: VecDeque<Output>,
}

impl Node {
    /// A member that has just started. `durable.incarnation` must already have been raised, and
    /// written.
    pub fn new(settings: Settings, durable: Durable, now: Instant) -> Node {
        let others = settings.members.iter().filter(|m| m.id != settings.me);
        let peers = others.map(|m| (m.id, Peer::new(*m))).collect();
        let known = durable.promised.max(durable.led);
        Node {
            settings,
            durable,
            process: 0,
            writing: None,
            write_after: now,
            try_after: now,
            unwritten: None,
            forsworn: None,
            peers,
            state: State::out(now),
            store: Store::default(),
            spent: Spent::default(),
            sessions: 0,
            counter: known.map_or(0, |epoch| epoch.counter),
            healthy: true,
            halted: false,
            drill: Drill::default(),
            awake: now,
            stopping: None,
            stopped: false,
            resigned: None,
            started: now,
            led_before: false,
            reigns: Reigns::default(),
            haste: Haste::default(),
            now,
            next_beat: now,
            beat_due: false,
            next_word: now,
            told: None,
            poke: BTreeSet::new(),
            serial: 0,
            unsent: false,
            outputs: VecDeque::new(),
        }
    }

    /// Takes one input. Several may be given before the outputs are drained: what they cause is
    /// then coalesced into fewer datagrams.
    pub fn handle(&mut self, now: Instant, entropy: &mut dyn Entropy, input: Input<'_>) {
        if now.since(self.now) > self.settings.heartbeat * 2 {
            self.awake = now;
            self.lead(|leading, _| leading.woke(now));
            if let State::Out(out) = &mut self.state {
                out.woke.get_or_insert(now);
            }
        }
        self.now = now.max(self.now);
        self.unsent = true;
        self.draw_nonces(entropy);
        match input {
            Input::Datagram { from, payload } => self.datagram(from, payload, entropy),
            Input::Timeout => {}
            Input::Persisted => self.persisted(),
            Input::PersistFailed => self.persist_failed(),
            Input::Late { to, packets } => self.send_late(to, packets),
            Input::Retrieve { spi } => self.ask_for(spi),
            Input::Retrieved {
                to,
                object,
                version,
                body,
            } => self.answer_with(to, object, version, body),
            Input::Health { healthy, halted } => (self.healthy, self.halted) = (healthy, halted),
            Input::Ready { ready, broken } => {
                self.drill = Drill {
                    done: ready,
                    broken,
                };
            }
            Input::Switchover => self.switchover(),
            Input::Shutdown => self.shutdown(),
            Input::Drained => self.drained(),
            Input::Ends(ends) => self.ended(&ends),
            Input::Commit {
                object,
                version,
                body,
                children,
            } => {
                if !self.lead(|leading, cx| leading.commit(cx, object, version, body, children)) {
                    self.outputs.push_back(Output::Discard { object, version });
                }
            }
            Input::Usage(usages) => {
                self.lead(|leading, cx| {
                    for usage in usages {
                        leading.usage(cx, usage);
                    }
                });
            }
            Input::Checkpoint { sa, checkpoint } => {
                self.lead(|leading, _| leading.checkpoint(sa, checkpoint));
            }
        }
        self.advance(entropy);
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() && std::mem::take(&mut self.unsent) {
            self.post();
        }
        self.outputs.pop_front()
    }

    /// The newest state of an object that this leader was given.
    pub fn body(&self, object: ObjectId) -> Option<&Zeroizing<Vec<u8>>> {
        match &self.state {
            State::Leading(leading) => {
                let led = leading.objects.get(&object).map(|led| &*led.body);
                led.or_else(|| leading.estate.get(object).map(|stored| &*stored.body))
            }
            _ => None,
        }
    }

    /// How often this leader asked whether a held commit may go, for a test of what a commit costs.
    #[doc(hidden)]
    pub fn judged(&self) -> u64 {
        match &self.state {
            State::Leading(leading) => leading.judged.get(),
            _ => 0,
        }
    }

    /// How often this leader looked at a record to find what is due, for a test of what a hand-over costs.
    #[doc(hidden)]
    pub fn looked(&self) -> u64 {
        match &self.state {
            State::Leading(leading) => leading.sessions.values().map(|s| s.looked).sum(),
            _ => 0,
        }
    }

    /// When to come back with [`Input::Timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        // One that has come and was not followed waits for another member: the next heartbeat is soon.
        let suspicion = self.suspicion().filter(|at| *at > self.now);
        Some(suspicion.map_or(self.next_beat, |at| at.min(self.next_beat)))
    }

    /// Runs a step of the leader; false if this member is none.
    pub(crate) fn lead(&mut self, step: impl FnOnce(&mut Leading, &mut Context<'_>)) -> bool {
        let State::Leading(leading) = &mut self.state else {
            return false;
        };
        let mut cx = Context {
            settings: &self.settings,
            incarnation: self.durable.incarnation,
            now: self.now,
            outputs: &mut self.outputs,
            spent: &mut self.spent,
        };
        step(leading, &mut cx);
        true
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn datagram(&mut self, from: MemberId, payload: &[u8], entropy: &mut dyn Entropy) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return self.event(Event::UnknownMember { member: from });
        };
        let Some(mut packet) = Packet::open(payload) else {
            return self.event(Event::Malformed { member: from });
        };
        if packet.config != self.settings.config_hash {
            peer.differs(self.now, &packet);
            self.outranked_by_another_section(from);
            return self.event(Event::ConfigMismatch { member: from });
        }
        let incarnation = self.durable.incarnation;
        if !packet.late.is_empty() {
            let present = peer.is_present(incarnation, &packet);
            return self.take_late(from, present, std::mem::take(&mut packet.late));
        }
        if !packet.retrieve.is_empty() || packet.retrieved.is_some() {
            let present = peer.is_present(incarnation, &packet);
            return self.retrieval(from, present, packet);
        }
        peer.other = None;
        let layout = self.settings.layout;
        let own = Own {
            incarnation,
            layout,
        };
        let Some(reading) = peer.observe(self.now, own, &packet, &mut self.outputs) else {
            return;
        };
        for epoch in [packet.promised, packet.led, packet.epoch] {
            let counter = epoch.map_or(0, |epoch| epoch.counter);
            self.counter = self.counter.max(counter);
        }
        if let State::Following(following) = &mut self.state
            && following.leader == from
        {
            let span = self.settings.patience() * 2;
            following.largest.note(self.now, span, payload.len());
        }
        self.count_vote(from, &packet);
        self.asked(from, &packet);
        match &self.state {
            State::Out(_) => self.heard_out(from, &mut packet, &reading),
            State::Following(_) => self.heard_following(from, &mut packet, &reading),
            State::TakingOver(_) => {}
            State::Leading(_) => self.heard_leading(from, &packet, &reading, entropy),
        }
    }

    /// Nobody to follow: a session that answers our nonce is one.
    fn heard_out(&mut self, from: MemberId, packet: &mut Packet, reading: &Reading) {
        let State::Out(out) = &self.state else { return };
        let answered = packet.session.filter(|sid| sid.standby == out.nonce);
        let said = self.peers.get(&from).and_then(|peer| peer.said);
        let leads = said.and_then(|said| said.leads());
        if reading.newest && leads.is_some() {
            self.poke.insert(from);
        }
        let (Some(sid), Some(epoch), true) = (answered, leads, reading.for_me) else {
            return;
        };
        let same = packet.epoch.and_then(WireEpoch::epoch) == Some(epoch);
        // R6: nothing is recorded below what was promised, unless it is the same term.
        let allowed = self.promised() <= Some(epoch);
        let own = epoch.leader == from && epoch.incarnation.0 == packet.incarnation;
        if !same || !allowed || !own || self.stopping.is_some() || self.settings.votes_only() {
            return;
        }
        self.sessions += 1;
        let leader = (from, epoch.incarnation);
        self.reigns.complete = false;
        let following = Following::new(leader, (epoch, packet.bare), sid, self.sessions, self.now);
        self.state = State::Following(Box::new(following));
        self.event(Event::SessionOpened {
            member: from,
            epoch,
        });
        self.heard_following(from, packet, reading);
    }

    fn heard_following(&mut self, from: MemberId, packet: &mut Packet, reading: &Reading) {
        self.follow_on(from, packet, reading);
        let said = self.peers.get(&from).and_then(|peer| peer.said);
        let State::Following(following) = &mut self.state else {
            return;
        };
        let epoch = packet.epoch.and_then(WireEpoch::epoch);
        if from != following.leader {
            // Another leader that inherits from above: the right is void (R6). A bare one
            // deposes nobody (hole D17).
            let rival = said.filter(|said| !said.bare).and_then(|said| said.leads());
            if rival.is_some_and(|rival| rival > following.epoch) {
                self.leave();
            }
            return;
        }
        if packet.incarnation != following.incarnation.0 {
            return self.leader_gone();
        }
        let in_session = packet.session == Some(following.sid);
        let same_term = epoch == Some(following.epoch);
        if in_session && same_term && packet.role >= 5
            || self.settings.mutant.any_session && packet.session.is_some()
        {
            if reading.newest {
                following.last_beat = self.now;
                following.stood = None;
            }
            let outputs = &mut self.outputs;
            let store = &mut self.store;
            following.receive(&self.settings, packet, reading.for_me, store, outputs);
            if following.admitted {
                self.reigns.admitted();
            }
            return;
        }
        if !reading.newest {
            return;
        }
        let leads = said.and_then(|said| said.leads());
        if leads != Some(following.epoch) {
            self.leader_gone();
        } else if reading.for_me && !following.admitted {
            // It leads on, but knows nothing of this session any more.
            self.leave();
        }
    }

    fn heard_leading(
        &mut self,
        from: MemberId,
        packet: &Packet,
        reading: &Reading,
        entropy: &mut dyn Entropy,
    ) {
        self.note_haste(from, packet.incarnation);
        if self.deposed(from, packet, reading) {
            return;
        }
        let now = self.now;
        let for_me = reading.for_me;
        let any_session = self.settings.mutant.any_session;
        let mut arrives = None;
        self.lead(|leading, cx| {
            let (mut had, mut moved) = (Vec::new(), Vec::new());
            let mut resigned = false;
            let sas = &leading.sas;
            if let Some(session) = leading.sessions.get_mut(&from) {
                let current = session.incarnation.0 == packet.incarnation;
                let ours = packet.session == Some(session.sid) && current && for_me;
                if ours || any_session && packet.session.is_some() {
                    session.entered = true;
                    resigned = packet.resign;
                    session.confirmed |= packet.role == 3;
                    for lacking in packet.lacks.iter().filter_map(WireSa::sa) {
                        // If there is none, nothing is sent.
                        session.checkpoint(lacking);
                    }
                    (had, moved) = session.acknowledge(packet.applied);
                    for ack in &packet.recorded {
                        let sa = ack.sa();
                        let known = sa.and_then(|sa| Some((sa, sas.get(&sa)?)));
                        if let Some((sa, led)) = known {
                            session.acknowledge_lease(sa, ack.lease(), led.offered);
                            moved.push(sa);
                        }
                    }
                }
                // Who has left the session vouches for nothing in it any more: only words in it
                // count as a sign of life.
                if ours && reading.newest {
                    session.word(now, packet.time, cx.settings.vouch);
                    session.broken = Broken::heard(packet);
                    arrives = Arrives::heard(session, packet, now, cx.settings.vouch);
                }
            }
            for sa in moved {
                leading.settle_limit(cx, sa);
            }
            for object in had {
                leading.settle_object(cx, object);
            }
            if resigned {
                leading.release_session(cx, from);
            }
        });
        if let Some(arrives) = arrives {
            self.path(from, arrives);
        }
        self.joined(from, packet, reading, entropy);
    }

    /// What follows from the new state and the time.
    fn advance(&mut self, entropy: &mut dyn Entropy) {
        let beat = self.now >= self.next_beat;
        if beat {
            // Heartbeats leave as often as the settings say however late each is, but for those that
            // were missed.
            let pause = self.pause();
            let next = self.next_beat + pause;
            self.next_beat = if next > self.now {
                next
            } else {
                self.now + pause
            };
            self.beat_due = true;
        }
        match &self.state {
            State::Out(_) => self.review_out(),
            State::Following(_) => self.review_following(),
            State::TakingOver(_) => self.review_takeover(),
            State::Leading(_) => {
                self.lead(|leading, cx| leading.review_sessions(cx, beat));
                self.review_phase();
            }
        }
        self.review_disk();
        self.draw_nonces(entropy);
    }

    pub(crate) fn role(&self) -> Role {
        match &self.state {
            State::Out(_) => Role::Out,
            State::Following(following) if self.has_right(following) => Role::Admitted,
            State::Following(_) => Role::Learning,
            State::TakingOver(_) => Role::TakingOver,
            State::Leading(leading) if leading.phase == Phase::Active => Role::Leading,
            State::Leading(_) => Role::HandingOver,
        }
    }

    /// What this member does now.
    pub fn status(&self, now: Instant) -> Status {
        let mut status = Status {
            role: self.role(),
            epoch: None,
            base: None,
            leader: None,
            members: self
                .peers
                .values()
                .map(|peer| self.member(peer, now))
                .collect(),
            objects: self.store.objects.len(),
            sas: self.store.sas.len(),
            degraded: false,
            vouched: false,
            durable: self.durable,
            unwritten_for: self.disk_fails().map(|since| now.since(since)),
        };
        match &self.state {
            State::Out(_) => {}
            State::Following(following) => {
                status.epoch = Some(following.epoch);
                status.leader = Some(following.leader);
                status.vouched = following.vouched(now, &self.settings);
            }
            State::TakingOver(taking) => {
                status.epoch = Some(taking.campaign.epoch);
                status.vouched = taking.following.vouched(now, &self.settings);
            }
            State::Leading(leading) => {
                status.epoch = Some(leading.epoch);
                status.base = leading.base;
                status.leader = Some(self.settings.me);
                status.objects = leading.count();
                status.sas = leading.sas.len() + leading.estate.len().1;
                status.degraded = !leading.silent.is_empty();
            }
        }
        status
    }

    fn member(&self, peer: &Peer, now: Instant) -> MemberStatus {
        let id = peer.member.id;
        let (session, able) = match &self.state {
            State::Leading(leading) => {
                let able = self.able(now, leading).any(|(able, _)| able == id);
                (leading.sessions.get(&id), able)
            }
            _ => (None, false),
        };
        MemberStatus {
            id,
            priority: peer.member.priority,
            incarnation: peer.incarnation,
            role: peer.said.and_then(|said| said.role),
            healthy: peer.said.is_some_and(|said| said.healthy),
            silent_for: peer.said.map(|said| now.since(said.at)),
            bound: session.is_some_and(|session| session.bound.is_some()),
            able,
            backlog: session.map_or(0, |session| session.backlog()),
            differs: peer.other_lately(now, self.settings.patience()).is_some(),
            narrow: peer.narrow,
            elsewhere: peer
                .said
                .is_some_and(|said| differ(self.settings.layout, said.layout)),
        }
    }
}
