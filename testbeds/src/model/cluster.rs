//! Members, messages, and the one question: has a number been sent twice?
//!
//! A message once sent stays for ever and may arrive at any moment, as often as it likes, or never:
//! loss, delay, duplication and reordering in one. One SA; numbers, epochs and restarts are bounded
//! so that every state can be visited. How sessions begin and end is in `session.rs`.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use super::rules::Rule;

/// Counter and leader: two leaders never share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch {
    pub counter: u8,
    pub leader: u8,
}

/// What an active member knows of a standby that it has offered a grant to: their session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Bound {
    pub incarnation: u8,
    pub nonce: u8,
    pub offered: u8,
    pub acknowledged: Option<u8>,
    /// It may have the right to take over; before, it can be given up.
    pub admitted: bool,
    /// It has not acknowledged that the SA was deleted.
    pub owes: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Role {
    Down,
    Standby,
    /// Stands for an epoch, with the votes of these members (a bit each).
    Candidate {
        votes: u8,
        first: u8,
    },
    Active {
        /// The epoch that it leads; it may have promised itself a later one.
        epoch: Epoch,
        next: u8,
        limit: u8,
        /// One place for each member; its own stays empty.
        bound: Vec<Option<Bound>>,
        /// The votes for its re-election, from when it has stood for one.
        again: Option<u8>,
        /// The SA was deleted, and is in no book any more.
        deleted: bool,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Member {
    pub role: Role,
    pub incarnation: u8,
    /// How often it has left a session in this incarnation: the nonce of the one that it asks for,
    /// or is in.
    pub nonce: u8,
    /// The highest epoch that it led, followed or voted for.
    pub epoch: Epoch,
    /// What of that is on disk.
    pub durable: Epoch,
    /// The highest epoch that it led, on disk as well.
    pub led: Epoch,
    /// The grant that it recorded, and in which epoch.
    pub record: Option<(Epoch, u8)>,
    /// What it recorded it may use.
    pub admitted: bool,
    /// The epoch and the session in which it has heard of the deletion.
    pub ended: Option<(Epoch, u8)>,
}

/// A grant as it is offered, and as it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Claim {
    pub(super) epoch: Epoch,
    pub(super) from: u8,
    pub(super) from_incarnation: u8,
    pub(super) to: u8,
    pub(super) to_incarnation: u8,
    /// The standby's name of the session.
    pub(super) nonce: u8,
    pub(super) grant: u8,
}

/// A member asks for a session, and says with it that it has no right in an older one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Word {
    pub(super) from: u8,
    pub(super) incarnation: u8,
    pub(super) nonce: u8,
    pub(super) led: Epoch,
}

/// What travels between members.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Message {
    /// A member has started, or left a session: whoever leads may offer it a grant.
    Here(Word),
    Grant(Claim),
    Ack(Claim),
    /// From now on the standby may take over.
    Admit(Claim),
    /// The SA was deleted; and the standby has heard so.
    Delete(Claim),
    Deleted(Claim),
    /// Asks everybody for a vote: to inherit what was granted in the base epoch.
    Stand {
        epoch: Epoch,
        base: Epoch,
    },
    Vote {
        epoch: Epoch,
        from: u8,
    },
}

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// An active sends the next number.
    Use(u8),
    /// A solo active extends its own limit.
    Extend(u8),
    /// An active offers the member that asked so many numbers.
    Offer(u8, Word, u8),
    /// An active leaves a standby out: one that has no right yet, or without rule 7.
    Dismiss(u8, u8),
    /// A standby, a candidate or an active gives up what it has, and asks for a session anew.
    Leave(u8),
    /// An active hears that a standby has left their session.
    Release(u8, Word),
    /// An active admits a standby that has acknowledged all that is used.
    Admit(u8, u8),
    /// An active gives its epoch a higher counter.
    Rename(u8, u8),
    /// An active deletes the SA.
    Delete(u8),
    /// A standby suspects the active; or an active among three wants to be rid of a standby.
    TakeOver(u8),
    Crash(u8),
    Restart(u8),
    /// The message is in the set already; it arrives at this member.
    Arrive(Message, u8),
}

/// A state of the whole cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    pub(super) members: Vec<Member>,
    pub(super) wire: BTreeSet<Message>,
    /// The numbers that were sent, a bit each.
    sent: u32,
    /// How many members have sent.
    senders: u8,
    pub repeated: bool,
    restarts: u8,
    pub(super) leaves: u8,
    pub(super) renames: u8,
}

/// The protocol within bounds.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub members: u8,
    /// Numbers of the SA.
    pub numbers: u8,
    /// The highest epoch counter, the first being 1.
    pub epochs: u8,
    pub restarts: u8,
    /// How often a member leaves its session without a restart.
    pub leaves: u8,
    /// How often a leader gives its epoch another name without a vote.
    pub renames: u8,
    /// A standby has a right from Admit on; else from its first record.
    pub admission: bool,
    /// An active may delete the SA.
    pub deletes: bool,
    /// Numbers in the largest lease: their size adapts, so smaller ones follow larger ones.
    pub lease: u8,
    /// The rule that is left out, if any.
    pub without: Option<Rule>,
}

impl Cluster {
    pub(super) fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// An offer that member `from` could make to one that asked for it, and what it has of it.
    fn offer(&self, member: &Member, word: Word, size: u8) -> Option<(u8, Option<Bound>)> {
        let Role::Active {
            epoch,
            limit,
            bound,
            deleted: false,
            ..
        } = &member.role
        else {
            return None;
        };
        let known = *bound.get(usize::from(word.from))?;
        let present = known.filter(|b| word.is_of(b));
        if present.is_none() && !self.heard(*epoch, known, word) {
            return None;
        }
        // Never below the present limit; one extension at a time.
        if present.is_some_and(|b| b.acknowledged.is_none_or(|a| a < b.offered)) {
            return None;
        }
        let grant = limit.saturating_add(size);
        (grant <= self.numbers).then_some((grant, present))
    }

    fn make_offer(&self, state: &mut State, at: u8, word: Word, size: u8) -> Option<()> {
        let member = state.members.get_mut(usize::from(at))?;
        let (grant, before) = self.offer(member, word, size)?;
        let Role::Active { epoch, bound, .. } = &mut member.role else {
            return None;
        };
        *bound.get_mut(usize::from(word.from))? = Some(Bound {
            incarnation: word.incarnation,
            nonce: word.nonce,
            offered: grant,
            acknowledged: before.and_then(|b| b.acknowledged),
            admitted: before.map_or(!self.admission, |b| b.admitted),
            owes: false,
        });
        state.wire.insert(Message::Grant(Claim {
            epoch: *epoch,
            from: at,
            from_incarnation: member.incarnation,
            to: word.from,
            to_incarnation: word.incarnation,
            nonce: word.nonce,
            grant,
        }));
        Some(())
    }

    fn is_solo(&self, bound: &[Option<Bound>]) -> bool {
        // Rule 2: from the moment that the first offer may have left, it binds.
        let binds = |b: &Bound| self.has(Rule::FirstOfferBinds) || b.acknowledged.is_some();
        !bound.iter().flatten().any(binds)
    }

    /// Leads from `first`, alone until it makes an offer.
    fn lead(&self, member: &mut Member, epoch: Epoch, first: u8) {
        member.role = Role::Active {
            epoch,
            next: first,
            limit: first.saturating_sub(1),
            bound: self.nobody(),
            again: None,
            deleted: false,
        };
        (member.record, member.admitted) = (None, false);
        if self.has(Rule::EpochDurable) {
            member.led = epoch;
        }
    }

    pub(super) fn nobody(&self) -> Vec<Option<Bound>> {
        vec![None; usize::from(self.members)]
    }

    pub(super) fn adopt(member: &mut Member, epoch: Epoch) {
        member.epoch = epoch;
        member.durable = epoch;
    }

    fn majority(&self, votes: u8) -> bool {
        votes.count_ones() * 2 > u32::from(self.members) || !self.has(Rule::Majority)
    }

    fn take_over(&self, state: &mut State, at: u8) -> Option<()> {
        let member = state.members.get_mut(usize::from(at))?;
        let next = |base: Epoch| {
            let (counter, leader) = (base.counter + 1, at);
            (counter <= self.epochs).then_some(Epoch { counter, leader })
        };
        let (epoch, base) = match &mut member.role {
            Role::Standby => {
                let usable = |(base, _): &(Epoch, u8)| {
                    let present = *base == member.epoch || !self.has(Rule::PromiseEndsRights);
                    present && member.admitted
                };
                let (base, grant) = member.record.filter(usable)?;
                let epoch = next(base)?;
                let first = grant + u8::from(self.has(Rule::OneAboveTheGrant));
                member.epoch = epoch;
                if self.has(Rule::EpochDurable) {
                    member.durable = epoch;
                }
                // Two members: the one that has the record decides alone.
                if self.members == 2 || !self.has(Rule::Majority) {
                    self.lead(member, epoch, first);
                    return Some(());
                }
                let votes = 1 << at;
                member.role = Role::Candidate { votes, first };
                (epoch, base)
            }
            // Re-election (rule 7), to be rid of one that is bound. It goes on within what it has.
            Role::Active {
                epoch: base,
                bound,
                again: again @ None,
                ..
            } if self.members > 2 && bound.iter().any(Option::is_some) => {
                let (epoch, base) = (next(*base)?, *base);
                *again = Some(1 << at);
                Cluster::adopt(member, epoch);
                (epoch, base)
            }
            _ => return None,
        };
        state.wire.insert(Message::Stand { epoch, base });
        Some(())
    }

    /// Rule 5: one that has promised nothing above the base gives its vote, and with it its rights.
    fn asked(&self, member: &mut Member, epoch: Epoch, base: Epoch) -> Option<()> {
        let free = match self.has(Rule::VoteNamesItsBase) {
            true => member.epoch <= base && base < epoch,
            false => member.epoch < epoch,
        };
        if !free || member.role != Role::Standby {
            return None;
        }
        Cluster::adopt(member, epoch);
        Some(())
    }

    fn elected(&self, member: &mut Member, of: Epoch, from: u8) -> Option<()> {
        if of != member.epoch {
            return None;
        }
        match &mut member.role {
            Role::Candidate { votes, first } => {
                *votes |= 1 << from;
                let (votes, first) = (*votes, *first);
                if self.majority(votes) {
                    self.lead(member, of, first);
                }
            }
            Role::Active {
                epoch,
                bound,
                again: again @ Some(_),
                ..
            } => {
                let votes = again.unwrap_or(0) | 1 << from;
                *again = Some(votes);
                // Another epoch, in which nobody has a right yet.
                if self.majority(votes) {
                    (*epoch, *bound, *again) = (of, self.nobody(), None);
                    member.led = of;
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn arrive(&self, state: &mut State, message: Message, at: u8) -> Option<()> {
        let member = state.members.get_mut(usize::from(at))?;
        match message {
            Message::Here(_) => None,
            Message::Admit(claim) => Cluster::admitted(member, claim),
            Message::Delete(claim) => {
                let told = Cluster::deleted(member, claim)?;
                state.wire.insert(Message::Deleted(told)).then_some(())
            }
            Message::Deleted(claim) => Cluster::told(member, claim),
            Message::Grant(offer) => {
                let ack = self.granted(member, offer, at)?;
                state.wire.insert(Message::Ack(ack));
                Some(())
            }
            Message::Ack(ack) => self.acknowledged(member, ack),
            Message::Stand { epoch, base } => {
                self.asked(member, epoch, base)?;
                state.wire.insert(Message::Vote { epoch, from: at });
                Some(())
            }
            Message::Vote { epoch, from } => self.elected(member, epoch, from),
        }
    }

    /// Rule 3: what a standby does about a grant, and its answer.
    fn granted(&self, member: &mut Member, offer: Claim, at: u8) -> Option<Claim> {
        let Claim { epoch, grant, .. } = offer;
        let stranger = offer.to_incarnation != member.incarnation;
        if stranger && self.has(Rule::GrantNamesIncarnation) {
            return None;
        }
        let left = !stranger && offer.nonce != member.nonce;
        if left && self.has(Rule::GrantNamesSession) {
            return None;
        }
        let ended = member.ended == Some((epoch, offer.nonce));
        if ended && self.has(Rule::DeletionIsTheLast) {
            return None;
        }
        let lower = epoch < member.epoch;
        if lower && self.has(Rule::LowerEpochRefused) || epoch.leader == at {
            return None;
        }
        let leads = matches!(member.role, Role::Active { .. } | Role::Candidate { .. });
        if leads && epoch <= member.epoch {
            return None;
        }
        // A higher epoch: step down first, which erases what was recorded before.
        let kept = member.record.filter(|(of, _)| *of == epoch && !leads);
        member.role = Role::Standby;
        Cluster::adopt(member, epoch.max(member.epoch));
        let acknowledged = kept.map_or(grant, |(_, before)| before.max(grant));
        let of = if lower { member.epoch } else { epoch };
        // Without the rule an extension is acknowledged that a crash then forgets.
        let recorded = match self.has(Rule::RecordBeforeAck) {
            true => acknowledged,
            false => kept.map_or(grant, |(_, before)| before),
        };
        let right = !self.admission || !self.has(Rule::RightAtAdmit);
        member.admitted = right || member.admitted && kept.is_some();
        member.record = Some((of, recorded));
        Some(Claim {
            epoch,
            from: at,
            from_incarnation: member.incarnation,
            to: offer.from,
            to_incarnation: offer.from_incarnation,
            nonce: member.nonce,
            grant: acknowledged,
        })
    }

    /// Rule 4: what an active does about an acknowledgement.
    fn acknowledged(&self, member: &mut Member, ack: Claim) -> Option<()> {
        let own = ack.to_incarnation == member.incarnation;
        let Role::Active {
            epoch,
            limit,
            bound,
            ..
        } = &mut member.role
        else {
            return None;
        };
        if ack.epoch != *epoch && self.has(Rule::AckOfThisEpoch) {
            return None;
        }
        let standby = bound.get_mut(usize::from(ack.from))?.as_mut()?;
        let present = own && standby.incarnation == ack.from_incarnation;
        if !present && self.has(Rule::AckOfThisIncarnation) {
            return None;
        }
        let left = present && standby.nonce != ack.nonce;
        if left && self.has(Rule::AckOfThisSession) {
            return None;
        }
        standby.acknowledged = standby.acknowledged.max(Some(ack.grant));
        // The smallest that all who are bound have acknowledged.
        let all = bound.iter().flatten().map(|b| b.acknowledged);
        let least = all.min().flatten().unwrap_or(0);
        *limit = (*limit).max(least.min(self.numbers));
        Some(())
    }

    /// Rule 6: what a member still knows after a restart.
    fn restart(&self, state: &mut State, at: u8) -> Option<()> {
        let member = state.members.get_mut(usize::from(at))?;
        let (durable, led) = match self.has(Rule::EpochKeptOverRestart) {
            true => (member.durable, member.led),
            false => <(Epoch, Epoch)>::default(),
        };
        let incarnation = member.incarnation + 1;
        *member = Member {
            role: Role::Standby,
            incarnation,
            // Nonces are drawn, and rise here for our sake alone: an earlier one may come back.
            nonce: 0,
            epoch: durable,
            durable,
            led,
            record: None,
            admitted: false,
            ended: None,
        };
        let word = Word::of(at, member);
        state.restarts += 1;
        state.wire.insert(Message::Here(word));
        Some(())
    }

    fn use_next(&self, state: &mut State, at: u8) -> Option<()> {
        let Role::Active {
            next,
            limit,
            deleted: false,
            ..
        } = &mut state.members.get_mut(usize::from(at))?.role
        else {
            return None;
        };
        if *next > *limit || *next > self.numbers {
            return None;
        }
        let bit = 1u32 << *next;
        *next += 1;
        state.repeated |= state.sent & bit != 0;
        state.sent |= bit;
        state.senders |= 1 << at;
        Some(())
    }
}

/// Who a message is for: one member, or everybody.
fn receivers(message: Message, members: u8) -> impl Iterator<Item = u8> {
    let only = match message {
        Message::Here(_) => Some(u8::MAX),
        Message::Grant(claim)
        | Message::Ack(claim)
        | Message::Admit(claim)
        | Message::Delete(claim)
        | Message::Deleted(claim) => Some(claim.to),
        Message::Stand { .. } => None,
        Message::Vote { epoch, .. } => Some(epoch.leader),
    };
    (0..members).filter(move |at| only.is_none_or(|one| one == *at))
}

impl Model for Cluster {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let first = Epoch {
            counter: 1,
            leader: 0,
        };
        let member = |at| {
            let epoch = if at == 0 { first } else { Epoch::default() };
            Member {
                role: Role::Standby,
                incarnation: 0,
                nonce: 0,
                epoch,
                durable: epoch,
                led: epoch,
                record: None,
                admitted: false,
                ended: None,
            }
        };
        let mut members: Vec<Member> = (0..self.members).map(member).collect();
        if let Some(active) = members.first_mut() {
            self.lead(active, first, 1);
        }
        // Asked before anybody led.
        let here = |from| {
            Message::Here(Word {
                from,
                ..Word::default()
            })
        };
        vec![State {
            members,
            wire: (0..self.members).map(here).collect(),
            sent: 0,
            senders: 0,
            repeated: false,
            restarts: 0,
            leaves: 0,
            renames: 0,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for (at, member) in (0u8..).zip(&state.members) {
            if member.role == Role::Down {
                if state.restarts < self.restarts {
                    steps.push(Step::Restart(at));
                }
                continue;
            }
            steps.extend([Step::Crash(at), Step::TakeOver(at)]);
            if state.leaves < self.leaves {
                steps.push(Step::Leave(at));
            }
            let Role::Active { bound, .. } = &member.role else {
                continue;
            };
            steps.extend([Step::Use(at), Step::Extend(at)]);
            if self.deletes {
                steps.push(Step::Delete(at));
            }
            for message in &state.wire {
                if let Message::Here(word) = *message
                    && word.from != at
                {
                    steps.push(Step::Release(at, word));
                    steps.extend((1..=self.lease).map(|size| Step::Offer(at, word, size)));
                }
            }
            self.sessions(state, at, bound, steps);
        }
        for message in &state.wire {
            for at in receivers(*message, self.members) {
                let up = state
                    .members
                    .get(usize::from(at))
                    .is_some_and(|m| m.role != Role::Down);
                if up {
                    steps.push(Step::Arrive(*message, at));
                }
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Use(at) => self.use_next(&mut state, at)?,
            Step::Extend(at) => {
                let Role::Active { limit, bound, .. } =
                    &mut state.members.get_mut(usize::from(at))?.role
                else {
                    return None;
                };
                if !self.is_solo(bound) || *limit >= self.numbers {
                    return None;
                }
                *limit += 1;
            }
            Step::Offer(at, word, size) => self.make_offer(&mut state, at, word, size)?,
            Step::Dismiss(at, to) => self.dismiss(&mut state, at, to)?,
            Step::Leave(at) => self.leave(&mut state, at)?,
            Step::Release(at, word) => self.release(&mut state, at, word)?,
            Step::Admit(at, to) => self.admit(&mut state, at, to)?,
            Step::Delete(at) => self.delete(&mut state, at)?,
            Step::Rename(at, counter) => self.rename(&mut state, at, counter)?,
            Step::TakeOver(at) => self.take_over(&mut state, at)?,
            Step::Crash(at) => state.members.get_mut(usize::from(at))?.role = Role::Down,
            Step::Restart(at) => self.restart(&mut state, at)?,
            Step::Arrive(message, at) => self.arrive(&mut state, message, at)?,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Cluster>> {
        vec![
            Property::always(super::REPEATED, |_, state: &State| !state.repeated),
            // Not for want of trying: takeovers do happen, and whoever took over does send.
            Property::sometimes(super::CARRIED_ON, |_, state: &State| {
                state.senders.count_ones() > 1
            }),
        ]
    }
}
