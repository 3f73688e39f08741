//! Planned endings: switchover by exact ends (`lease-holes` R15), resignation, shutdown.
//!
//! ```text
//!  Drain, and a record that asks the standby for a sign of life
//!    -> workers have passed the barrier, and the standby has acknowledged: Freeze -> ends -> FINAL
//!    -> the standby could not take over any more: Resume, in the same epoch with the same cells
//! ```
//!
//! What a worker has authenticated and may not deliver yet cannot be given to anybody: a moment is spent
//! on its lease before all that.
//!
//! Until the cells are frozen nothing has been ended and nothing given away, so to go on is as if the
//! workers had paused. From then on the epoch is over for this member, whatever happens (R14).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hitless_sa::{Instant, Lease, MemberId, SaId, SequenceNumber};

use crate::leading::{Leading, LedSa, Phase};
use crate::message::Sid;
use crate::node::{Node, State};
use crate::session::Session;
use crate::store::Store;
use crate::{DrainedSa, Event, Output, Settings, StepDown};

/// How long workers may take to pass the barrier before the standby takes over from its record.
const BARRIER: Duration = Duration::from_millis(100);

/// How long a switchover waits for packets that wait for their lease: some round trips to the standby.
const PARKED: Duration = Duration::from_millis(20);

/// How long the exact ends may take at most, while the standby takes them: nobody carries anything then,
/// and from its record it could.
const LONGEST_FINAL: Duration = Duration::from_secs(1);

/// How long who is about to end waits for a standby that is not ready, at least: it serves meanwhile.
const FAREWELL: Duration = Duration::from_millis(1500);
/// How long an end may take at most, where heartbeats are slow: less than a process is given to end.
const LONGEST_FAREWELL: Duration = Duration::from_secs(5);

/// Why no switchover can start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoSwitchover {
    NotLeading,
    UnderWay,
    /// A new epoch is being voted on.
    Campaign,
    NoStandby,
    /// It was silent for a while, and is being told what has left without it.
    Behind,
    /// It had begun, and the standby could not be handed anything any more.
    StandbyLost,
}

impl fmt::Display for NoSwitchover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoSwitchover::NotLeading => "this member is not active",
            NoSwitchover::UnderWay => "a switchover is under way",
            NoSwitchover::Campaign => "the members vote on a new epoch: try again in a moment",
            NoSwitchover::NoStandby => {
                "no standby holds every lease; `hitless status` says what it waits for"
            }
            NoSwitchover::Behind => {
                "the standby is being told what it missed while it was silent: try again in a moment"
            }
            NoSwitchover::StandbyLost => {
                "the standby fell silent before it was handed anything: this member goes on"
            }
        })
    }
}

impl std::error::Error for NoSwitchover {}

/// Where a lease stands while it is in use: no end.
fn so_far((sa, led): (&SaId, &LedSa)) -> DrainedSa {
    DrainedSa {
        sa: *sa,
        lease: Lease {
            grant: SequenceNumber(led.cursor.saturating_sub(1)),
            high_water: SequenceNumber(led.top),
        },
        window: Vec::new(),
    }
}

/// What a mutant thinks that it may still use, from there on: nothing, in truth.
pub(crate) fn left_over(settings: &Settings, leading: &Leading) -> BTreeMap<SaId, Lease> {
    let ended = matches!(leading.phase, Phase::Final { .. });
    match settings.mutant.residual_after_final && ended {
        true => leading
            .sas
            .iter()
            .map(so_far)
            .map(|end| (end.sa, end.lease))
            .collect(),
        false => BTreeMap::new(),
    }
}

/// Whether a standby has everything that was released.
fn is_told(leading: &Leading, member: MemberId) -> bool {
    let session = leading.sessions.get(&member);
    session.is_some_and(Session::is_told)
}

impl Node {
    /// The best standby that could take over now: with every SA, unless this member carries some
    /// traffic no more and there is none.
    fn target(&self, now: Instant, leading: &Leading) -> Option<MemberId> {
        let any = self.halted || !self.healthy || self.stopping.is_some();
        let ranked = self.able(now, leading).filter_map(|(member, _)| {
            let peer = self.peers.get(&member)?;
            let fit = peer.said.is_some_and(|said| said.healthy);
            let told = is_told(leading, member);
            (fit || any).then_some((fit, told, peer.member.priority, member))
        });
        ranked.max().map(|(_, _, _, member)| member)
    }

    /// Who would lead after a switchover that starts now.
    pub fn switchover_target(&self, now: Instant) -> Result<MemberId, NoSwitchover> {
        let State::Leading(leading) = &self.state else {
            return Err(NoSwitchover::NotLeading);
        };
        if leading.phase != Phase::Active {
            return Err(NoSwitchover::UnderWay);
        }
        if leading.campaign.is_some() {
            return Err(NoSwitchover::Campaign);
        }
        let target = self.target(now, leading).ok_or(NoSwitchover::NoStandby)?;
        // What it is handed counts as all that there is (R15).
        match is_told(leading, target) {
            true => Ok(target),
            false => Err(NoSwitchover::Behind),
        }
    }

    /// Starts to hand over to the best standby.
    pub(crate) fn switchover(&mut self) {
        let target = self.switchover_target(self.now);
        let now = self.now;
        let mut waits = false;
        self.lead(|leading, _| {
            let wanted = target.is_ok() && leading.has_parked();
            let until = *leading.parked_until.get_or_insert(now + PARKED);
            waits = wanted && now < until;
            leading.parked_until = leading.parked_until.filter(|_| waits);
        });
        let target = match target {
            Ok(_) if waits => return,
            Ok(target) => target,
            Err(reason) => return self.event(Event::SwitchoverRefused { reason }),
        };
        let until = self.now + BARRIER;
        let too_soon = self.settings.mutant.final_before_step_down;
        self.lead(|leading, cx| {
            if let Some(session) = leading.sessions.get_mut(&target).filter(|_| too_soon) {
                session.hand_over(&leading.sas.iter().map(so_far).collect::<Vec<_>>());
                return;
            }
            let asked = leading.sessions.get_mut(&target).map(Session::ask);
            leading.phase = Phase::Draining {
                target,
                until,
                asked: asked.unwrap_or_default(),
                drained: false,
            };
            cx.outputs.push_back(Output::Drain);
        });
    }

    /// The workers have stopped.
    pub(crate) fn drained(&mut self) {
        self.lead(|leading, _| {
            if let Phase::Draining { drained, .. } = &mut leading.phase {
                *drained = true;
            }
        });
    }

    /// Whether a switchover that has begun comes to its end, goes back, or has to wait.
    fn review_draining(&mut self) {
        let State::Leading(leading) = &self.state else {
            return;
        };
        let Phase::Draining {
            target,
            until,
            asked,
            drained,
        } = leading.phase
        else {
            return;
        };
        if !self.could_take(target) {
            return self.resume();
        }
        let session = leading.sessions.get(&target);
        if session.is_none_or(|session| session.applied() < asked) {
            return;
        }
        // A barrier that cannot be passed is not waited for: without exact ends (R14) the standby
        // takes over from its record.
        if !drained && !self.halted && self.now < until {
            return;
        }
        let until = self.now + self.settings.takeover() * 5;
        let latest = until.max(self.now + LONGEST_FINAL);
        self.lead(|leading, cx| {
            leading.phase = Phase::Final {
                target,
                until,
                latest,
                applied: 0,
                sent: false,
            };
            if drained {
                cx.outputs.push_back(Output::Freeze);
            }
        });
        if !drained {
            self.ended(&[]);
        }
    }

    /// Whether a member could take over now.
    fn could_take(&self, member: MemberId) -> bool {
        let State::Leading(leading) = &self.state else {
            return false;
        };
        self.able(self.now, leading).any(|(able, _)| able == member)
    }

    /// Nothing has ended yet, and who was to go on could not.
    fn resume(&mut self) {
        self.lead(|leading, cx| {
            leading.phase = Phase::Active;
            cx.outputs.push_back(Output::Resume);
            for sa in leading.sas.keys().copied().collect::<Vec<_>>() {
                leading.settle_limit(cx, sa);
            }
            leading.settle_held(cx);
        });
        self.beat_due = true;
        // Another standby gets it, unless it was meant for the preferred one.
        if !self.settings.preempt && self.switchover_target(self.now).is_ok() {
            return self.switchover();
        }
        let reason = NoSwitchover::StandbyLost;
        self.event(Event::SwitchoverRefused { reason });
    }

    /// The cells have ended: from here on this epoch is over for us, whatever happens.
    pub(crate) fn ended(&mut self, ends: &[DrainedSa]) {
        self.lead(|leading, cx| {
            let Phase::Final { target, sent, .. } = &mut leading.phase else {
                return;
            };
            if std::mem::replace(sent, true) {
                return;
            }
            let target = *target;
            if cx.settings.mutant.residual_after_final {
                for end in ends {
                    let led = leading.sas.get_mut(&end.sa);
                    led.into_iter()
                        .for_each(|led| led.cursor = end.lease.grant.0 + 1);
                }
            }
            if let Some(session) = leading.sessions.get_mut(&target) {
                session.hand_over(ends);
            }
        });
    }

    /// Deadlines of a switchover, and reasons to start one.
    pub(crate) fn review_phase(&mut self) {
        let State::Leading(leading) = &self.state else {
            return;
        };
        let waits = leading.parked_until.is_some();
        match leading.phase {
            Phase::Active => {
                self.review_campaign();
                match self.stopping {
                    _ if waits => self.switchover(),
                    Some(until) => self.review_farewell(until),
                    None => self.review_active(),
                }
            }
            Phase::Draining { .. } => self.review_draining(),
            Phase::Final { target, .. }
                if self.settings.mutant.resumes_after_final && !self.could_take(target) =>
            {
                self.resume();
            }
            Phase::Final { .. } => self.review_final(),
        }
    }

    /// Very many ends take their time: as long as the standby takes them it is given more, and no more
    /// than it may cost.
    fn review_final(&mut self) {
        let (now, patience) = (self.now, self.settings.takeover() * 5);
        let mut over = false;
        self.lead(|leading, _| {
            let Phase::Final {
                target,
                until,
                latest,
                applied,
                ..
            } = &mut leading.phase
            else {
                return;
            };
            let session = leading.sessions.get(target);
            let newest = session.map_or(0, Session::applied);
            if newest > std::mem::replace(applied, newest) {
                *until = (now + patience).min(*latest);
            }
            over = now >= *until;
        });
        if over {
            self.step_down(StepDown::Switchover);
        }
    }

    fn review_active(&mut self) {
        let State::Leading(leading) = &self.state else {
            return;
        };
        // While an epoch is voted on nothing can start, and nobody asked.
        let target = self.target(self.now, leading);
        let Some(target) = target.filter(|_| leading.campaign.is_none()) else {
            return;
        };
        // Where some traffic is not carried, waiting to see whether the standby lasts costs more. What
        // it was not told while it was silent it is told first.
        let settled = leading.sessions.get(&target).is_some_and(|session| {
            let lasts = self.now.since(session.bound_at) >= self.settings.hold * self.caution();
            session.backlog() == 0 && (self.halted || lasts)
        });
        let mine = self
            .settings
            .members
            .iter()
            .find(|m| m.id == self.settings.me);
        let theirs = self.peers.get(&target).map(|peer| peer.member);
        let preferred = theirs.map(|m| m.priority) > mine.map(|m| m.priority);
        let preempted = self.settings.preempt && preferred;
        if settled && (preempted || !self.healthy) {
            self.switchover();
        }
    }

    /// Hands over before it ends: at once, or as soon as a standby that is on its way is ready.
    fn review_farewell(&mut self, until: Instant) {
        let State::Leading(leading) = &self.state else {
            return;
        };
        let ready = self.switchover_target(self.now).is_ok();
        let votes = leading.campaign.is_some();
        let vouch = self.settings.vouch;
        let mut sessions = leading.sessions.values();
        let copies = sessions.any(|session| session.silent_for(self.now) < vouch);
        let recent = self.settings.takeover();
        let mut peers = self.peers.values();
        let joins = peers.any(|peer| {
            let said = peer.lately(self.now, recent);
            said.is_some_and(|said| said.joins)
        });
        if ready {
            self.switchover();
        } else if self.now >= until || !(votes || copies || joins) {
            self.step_down(StepDown::Shutdown);
        }
    }

    /// The process is about to end.
    pub(crate) fn shutdown(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let patience = self.settings.patience();
        self.stopping = Some(self.now + patience.min(LONGEST_FAREWELL));
        match &self.state {
            State::Leading(leading) => {
                if leading.phase == Phase::Active {
                    let until = self.now + patience.clamp(FAREWELL, LONGEST_FAREWELL);
                    self.stopping = Some(until);
                    self.review_farewell(until);
                }
            }
            State::Following(following) => {
                let session: (MemberId, Sid) = (following.leader, following.sid);
                self.leave();
                self.resigned = Some(session);
                self.poke.insert(session.0);
            }
            // It might already be on disk that this member leads; it never will.
            State::TakingOver(_) => self.leave(),
            State::Out(_) => {}
        }
    }

    /// Out for good: done once the leader has let go, or time is up.
    pub(crate) fn review_stopping(&mut self) {
        let Some(until) = self.stopping else { return };
        let told = self.resigned.is_none_or(|(leader, sid)| {
            let said = self.peers.get(&leader).and_then(|peer| peer.said);
            said.is_none_or(|said| said.session != Some(sid))
        });
        if (told || self.now >= until) && !self.stopped {
            self.stopped = true;
            self.resigned = None;
            self.store = Store::default();
            self.event(Event::Stopped);
        }
    }
}
