//! Elections of three or more members (`lease-holes` R10): who may inherit the rights of an epoch.
//!
//! A vote is a promise on disk, and is cast by saying what is promised. A voter promises a
//! candidate's epoch only if it has promised nothing above the candidate's base; so two majorities
//! for one base would share a voter that promised twice. A leader stands too, with its own epoch
//! as base, to be rid of a bound standby that does not answer (R12). Voiding of lost elections is
//! left out: after a split vote old keys are replaced, not carried on.
//!
//! A standby that votes for its own leader stays in its session, and so does one that is not asked. Its
//! right in the old epoch ends with its promise. It has one in the new epoch from when its leader
//! says, in that session, that it leads it: a leader that left the standby out never uses the session
//! again, and one that did not goes by what the standby has recorded in it, as before. If it dies
//! between the vote and that word, the standby has no right.
//!
//! A leader that hands over votes for its target once the exact ends have left it. If the target dies then,
//! another standby gets no vote and old keys are replaced: nobody left knows whether the target has led by
//! that vote, and sent beyond what the other standby has recorded, so it cannot be given a second time
//! (S1). Without the vote the target would need that of the other standby, which gives its own right up
//! with it.

use std::collections::BTreeSet;
use std::time::Duration;

use hitless_sa::{Epoch, Instant, MemberId};

use crate::disk::DEAD;
use crate::following::Following;
use crate::leading::Phase;
use crate::message::{Packet, WireEpoch};
use crate::node::{Node, State};
use crate::peer::{Reading, Said, role};
use crate::post::count;
use crate::{Event, Role};

/// One member stands for one epoch.
pub(crate) struct Campaign {
    pub epoch: Epoch,
    /// Others that have promised it.
    votes: BTreeSet<MemberId>,
    began: Instant,
    /// When its own promise was on disk, and others could be asked.
    asks: Option<Instant>,
}

impl Campaign {
    pub fn new(epoch: Epoch, now: Instant) -> Campaign {
        Campaign {
            epoch,
            votes: BTreeSet::new(),
            began: now,
            asks: None,
        }
    }

    /// The same once more: votes are promises, and last.
    pub fn again(self, now: Instant) -> Campaign {
        Campaign {
            began: now,
            asks: None,
            ..self
        }
    }

    /// It may be over soon.
    pub fn is_young(&self, now: Instant, patience: Duration) -> bool {
        now.since(self.began) < patience
    }

    fn note(&mut self, now: Instant, promised: Option<Epoch>) {
        if promised == Some(self.epoch) {
            self.asks.get_or_insert(now);
        }
    }
}

/// A candidate speaks so many times as often as others do. Whoever heard the leader a moment later
/// than it refuses its first word, and what can be vouched for lasts hardly longer than a death
/// takes to be noticed (R16).
const HASTE: u32 = 4;

impl Node {
    /// From one heartbeat to the next.
    pub(crate) fn pause(&self) -> Duration {
        match &self.state {
            State::TakingOver(_) => self.settings.heartbeat / HASTE,
            _ => self.settings.heartbeat,
        }
    }

    /// A promise is on disk: whoever waits for it hears of it at once, and not when the next heartbeat
    /// is due.
    pub(crate) fn tell_promise(&mut self) {
        let stands = match &mut self.state {
            State::Following(following) => {
                following.ack_due = true;
                return;
            }
            State::TakingOver(_) => true,
            State::Leading(leading) => leading.campaign.is_some(),
            State::Out(_) => false,
        };
        self.beat_due |= stands;
        let candidate = self.durable.promised.map(|epoch| epoch.leader);
        self.poke
            .extend(candidate.filter(|id| self.peers.contains_key(id)));
    }

    /// Whether most of the configured members, this one included, have promised the epoch.
    pub(crate) fn majority(&self, campaign: &Campaign) -> bool {
        if self.settings.mutant.no_majority {
            return true;
        }
        let own = usize::from(self.durable.promised == Some(campaign.epoch));
        (campaign.votes.len() + own) * 2 > self.settings.members.len()
    }

    /// Candidates do not all stand at once: the preferred of those that may goes first.
    pub(crate) fn better_standbys(&self) -> u32 {
        if self.settings.members.len() <= 2 {
            return 0;
        }
        let me = self.settings.me;
        let members = &self.settings.members;
        let mine = members
            .iter()
            .find(|m| m.id == me)
            .map(|m| (m.priority, m.id));
        let better = self
            .fit_standbys()
            .filter(|peer| Some((peer.member.priority, peer.member.id)) > mine);
        count(better.count())
    }

    /// The newest epoch that somebody leads: what a witness tells those that may not hear it.
    pub(crate) fn leader_heard(&self) -> Option<Epoch> {
        let recent = self.settings.takeover();
        let said = self.peers.values();
        let said = said.filter_map(|peer| peer.lately(self.now, recent));
        said.filter_map(Said::leads).max()
    }

    /// Whether the witness hears a leader, so that nobody needs to lead on nothing.
    pub(crate) fn witnessed_leader(&self) -> bool {
        let witness = self.settings.witness.and_then(|id| self.peers.get(&id));
        let said = witness.and_then(|peer| peer.lately(self.now, self.settings.takeover()));
        let epoch = said.and_then(|said| said.epoch);
        epoch.is_some_and(|epoch| epoch.leader != self.settings.me)
    }

    /// Says that this member stands, once its own promise is on disk.
    pub(crate) fn stand(&self, campaign: &Campaign, base: Epoch, packet: &mut Packet) {
        if self.durable.promised == Some(campaign.epoch) {
            packet.candidate = Some(campaign.epoch.into());
            packet.candidate_base = Some(base.into());
        }
    }

    pub(crate) fn count_vote(&mut self, from: MemberId, packet: &Packet) {
        let campaign = match &mut self.state {
            State::TakingOver(taking) => &mut taking.campaign,
            State::Leading(leading) => match &mut leading.campaign {
                Some(campaign) => campaign,
                None => return,
            },
            State::Out(_) | State::Following(_) => return,
        };
        if packet.promised.and_then(WireEpoch::epoch) == Some(campaign.epoch) {
            campaign.votes.insert(from);
        }
    }

    /// A member asks for a vote. Who gives it gives up its own rights first.
    pub(crate) fn asked(&mut self, from: MemberId, packet: &Packet) {
        let epoch = packet.candidate.and_then(WireEpoch::epoch);
        let base = packet.candidate_base.and_then(WireEpoch::epoch);
        let (Some(epoch), Some(base)) = (epoch, base) else {
            return;
        };
        let own = epoch.leader == from && epoch.incarnation.0 == packet.incarnation;
        let free =
            self.durable.promised <= Some(base) && epoch > base || self.settings.mutant.vote_twice;
        if !own || !free || self.writing.is_some() {
            return;
        }
        let recent = self.settings.takeover();
        match &self.state {
            State::Out(_) if self.stopping.is_some() => return,
            State::Out(_) => {
                let leader = self.peers.get(&base.leader);
                let said = leader.and_then(|peer| peer.lately(self.now, recent));
                let alive = said.and_then(|said| said.leads()) == Some(base);
                if alive && base.leader != from {
                    return;
                }
            }
            State::Following(following) => {
                // A leader that is heard needs no successor (hole D16).
                let heard = self.now.since(following.last_beat) < recent;
                if following.epoch != base || heard && following.leader != from {
                    return;
                }
                if following.leader != from {
                    self.leave();
                }
            }
            // Who has sent the exact ends never uses the epoch again (R15), and may be about to end.
            State::Leading(leading)
                if leading.epoch == base
                    && matches!(leading.phase, Phase::Final { target, .. } if target == from) => {}
            State::TakingOver(_) | State::Leading(_) => return,
        }
        self.poke.insert(from);
        self.want(Some(epoch), None);
    }

    /// As standby: the leader was re-elected, and this session goes on in its new epoch.
    pub(crate) fn follow_on(&mut self, from: MemberId, packet: &Packet, reading: &Reading) {
        let State::Following(following) = &self.state else {
            return;
        };
        let known = (following.leader, following.incarnation.0, following.sid);
        let in_session = packet.session.map(|sid| (from, packet.incarnation, sid)) == Some(known);
        let leads = matches!(role(packet.role), Some(Role::Leading | Role::HandingOver));
        let epoch = packet.epoch.and_then(WireEpoch::epoch);
        let own = |epoch: &Epoch| {
            let leader = (epoch.leader, epoch.incarnation);
            leader == (from, following.incarnation) && from == following.leader && !packet.bare
        };
        // R6: nothing is recorded below what was promised.
        let allowed = |epoch: &Epoch| self.promised() <= Some(*epoch);
        let epoch = epoch.filter(own).filter(allowed);
        let told = in_session || self.settings.mutant.carries_itself;
        if let Some(epoch) = epoch.filter(|_| told && leads && reading.for_me)
            && let State::Following(following) = &mut self.state
            && following.epoch < epoch
        {
            (following.epoch, following.bare) = (epoch, false);
            following.ack_due = true;
        }
    }

    /// Whether a standby may take over: its right is one of the highest epoch that it has promised.
    pub(crate) fn has_right(&self, following: &Following) -> bool {
        following.admitted && self.promised() <= Some(following.epoch)
    }

    /// Votes can be counted from when the own promise is on disk.
    pub(crate) fn note_campaign(&mut self) {
        let promised = self.durable.promised;
        let campaign = match &mut self.state {
            State::TakingOver(taking) => Some(&mut taking.campaign),
            State::Leading(leading) => leading.campaign.as_mut(),
            State::Out(_) | State::Following(_) => None,
        };
        if let Some(campaign) = campaign {
            campaign.note(self.now, promised);
        }
    }

    /// Whether no majority came in time. Who neither promised nor refused may be writing: it is waited
    /// for as long as a disk may take.
    pub(crate) fn is_lost(&self, campaign: &Campaign, base: Epoch) -> bool {
        let Some(asks) = campaign.asks else {
            return self.now >= campaign.began + DEAD * 2;
        };
        let patience = self.settings.patience();
        let undecided = self.peers.values().any(|peer| {
            let said = peer.lately(self.now, patience);
            said.is_some_and(|said| {
                // Who refuses because it hears the leader has not left it, unless that one asks itself.
                let asked = said.role == Some(Role::Out)
                    || said.epoch == Some(base) && base.leader == self.settings.me;
                asked && said.promised <= Some(base)
            })
        });
        let writes = undecided && self.now < asks + DEAD;
        self.now >= asks + patience && !writes
    }

    /// Whether another member stands already: two at once would take each other's votes.
    pub(crate) fn other_stands(&self) -> bool {
        let recent = self.settings.takeover();
        let mut peers = self.peers.values();
        self.settings.members.len() > 2
            && peers.any(|peer| {
                let said = peer.lately(self.now, recent);
                said.is_some_and(|said| said.role == Some(Role::TakingOver))
            })
    }

    /// As leader: stand when a bound standby is lost, or when somebody has promised more than
    /// this epoch and can not record in it.
    pub(crate) fn review_campaign(&mut self) {
        let State::Leading(leading) = &self.state else {
            return;
        };
        let anyone = leading
            .sessions
            .values()
            .any(|session| session.bound.is_some());
        let patience = self.settings.patience();
        if let Some(campaign) = &leading.campaign {
            let (epoch, base) = (campaign.epoch, leading.epoch);
            let elected = !anyone || self.majority(campaign);
            let lost = !elected && self.is_lost(campaign, base);
            let dead = self.disk_is_dead(campaign.began);
            self.want(Some(epoch), elected.then_some(epoch));
            self.note_campaign();
            if elected && self.durable.led == Some(epoch) {
                self.renamed(epoch, Some(base));
                self.beat_due = true;
            } else if lost || dead {
                let again = self.now + patience * 4;
                self.lead(|leading, _| {
                    leading.stood = leading.campaign.take();
                    leading.campaign_after = again;
                });
                self.event(Event::NoRight {
                    reason: "no majority re-elects this leader: a lost standby still bounds it",
                });
            }
            return;
        }
        let lately = |peer: &&crate::peer::Peer| peer.lately(self.now, patience).is_some();
        let heard = self.peers.values().filter(lately).count() + 1;
        let reachable = heard * 2 > self.settings.members.len();
        let stuck = self.peers.values().filter(lately).any(|peer| {
            let promised = peer.said.and_then(|said| said.promised);
            promised > Some(leading.epoch)
        });
        let lost = self.settings.members.len() > 2 && !leading.silent.is_empty();
        let possible = !anyone || reachable && self.settings.members.len() > 2;
        let due = self.now >= leading.campaign_after && leading.phase == Phase::Active;
        let due = due && self.disk_fails().is_none();
        if due && possible && (stuck || lost) {
            let now = self.now;
            let fresh = leading.stood.is_none().then(|| self.next_epoch()).flatten();
            self.lead(|leading, _| {
                let stood = leading.stood.take().map(|stood| stood.again(now));
                leading.campaign = fresh.map(|epoch| Campaign::new(epoch, now)).or(stood);
            });
        }
    }
}
