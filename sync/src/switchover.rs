//! Planned endings: switchover by exact ends (`lease-holes` R15), resignation, shutdown.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hitless_sa::{Instant, Lease, MemberId, SaId, SequenceNumber};

use crate::leading::{Leading, LedSa, Phase};
use crate::message::Sid;
use crate::node::{Node, State};
use crate::store::Store;
use crate::{DrainedSa, Event, Output, Settings, StepDown};

/// How long workers may take to pass the barrier before the standby takes over from its record.
const BARRIER: Duration = Duration::from_millis(100);

/// How long who is about to end waits for a standby that is not ready: it serves meanwhile. Less than
/// a process is given to end.
const FAREWELL: Duration = Duration::from_millis(1500);

/// Why no switchover can start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoSwitchover {
    NotLeading,
    UnderWay,
    /// A new epoch is being voted on.
    Campaign,
    NoStandby,
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

impl Node {
    /// The best standby that could take over now: with every SA, unless this member carries some
    /// traffic no more and there is none.
    fn target(&self, now: Instant, leading: &Leading) -> Option<MemberId> {
        let any = self.halted || !self.healthy || self.stopping.is_some();
        let ranked = self.able(now, leading).filter_map(|(member, _)| {
            let peer = self.peers.get(&member)?;
            let fit = peer.said.is_some_and(|said| said.healthy);
            (fit || any).then_some((fit, peer.member.priority, member))
        });
        ranked.max().map(|(_, _, member)| member)
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
        self.target(now, leading).ok_or(NoSwitchover::NoStandby)
    }

    /// Starts to hand over to the best standby.
    pub(crate) fn switchover(&mut self) {
        let target = match self.switchover_target(self.now) {
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
            leading.phase = Phase::Draining { target, until };
            cx.outputs.push_back(Output::Drain);
        });
        // A barrier that cannot be passed is not waited for: the standby takes over from its record.
        if self.halted {
            self.drained(&[]);
        }
    }

    /// The workers have stopped: from here on this epoch is over for us, whatever happens.
    pub(crate) fn drained(&mut self, ends: &[DrainedSa]) {
        let until = self.now + self.settings.takeover() * 5;
        self.lead(|leading, cx| {
            let Phase::Draining { target, .. } = leading.phase else {
                return;
            };
            leading.phase = Phase::Final { target, until };
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
        match leading.phase {
            Phase::Active => {
                self.review_campaign();
                match self.stopping {
                    Some(until) => self.review_farewell(until),
                    None => self.review_active(),
                }
            }
            // No barrier, no exact ends (R14): the standby takes over from its record.
            Phase::Draining { until, .. } if self.now >= until => self.drained(&[]),
            Phase::Final { until, .. } if self.now >= until => {
                self.step_down(StepDown::Switchover);
            }
            Phase::Draining { .. } | Phase::Final { .. } => {}
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
        if !votes && self.target(self.now, leading).is_some() {
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
        self.stopping = Some(self.now + self.settings.takeover() * 5);
        match &self.state {
            State::Leading(leading) => {
                if leading.phase == Phase::Active {
                    let until = self.now + FAREWELL;
                    self.stopping = self.stopping.max(Some(until));
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
