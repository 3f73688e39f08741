//! Members, messages, and the one question: has a number been sent twice?
//!
//! A message once sent stays for ever and may arrive at any moment, as often as it likes, or never:
//! loss, delay, duplication and reordering in one. One SA; numbers, epochs and restarts are bounded
//! so that every state can be visited.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use super::rules::Rule;

/// Counter and leader: two leaders never share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch {
    pub counter: u8,
    pub leader: u8,
}

/// What an active member knows of a standby that it has offered a grant to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Bound {
    incarnation: u8,
    offered: u8,
    acknowledged: Option<u8>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Role {
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
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Member {
    role: Role,
    incarnation: u8,
    /// The highest epoch that it led, followed or voted for.
    epoch: Epoch,
    /// What of that is on disk.
    durable: Epoch,
    /// The grant that it recorded, and in which epoch.
    record: Option<(Epoch, u8)>,
}

/// A grant as it is offered, and as it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Claim {
    epoch: Epoch,
    from: u8,
    from_incarnation: u8,
    to: u8,
    to_incarnation: u8,
    grant: u8,
}

/// What travels between members.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Message {
    /// A member has started: whoever leads may offer it a grant.
    Here {
        from: u8,
        incarnation: u8,
    },
    Grant(Claim),
    Ack(Claim),
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
    /// An active offers a member of that incarnation so many numbers.
    Offer(u8, u8, u8, u8),
    /// An active leaves a standby out; only without rule 7.
    Dismiss(u8, u8),
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
    members: Vec<Member>,
    wire: BTreeSet<Message>,
    /// The numbers that were sent, a bit each.
    sent: u32,
    /// How many members have sent.
    senders: u8,
    pub repeated: bool,
    restarts: u8,
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
    /// Numbers in the largest lease: their size adapts, so smaller ones follow larger ones.
    pub lease: u8,
    /// The rule that is left out, if any.
    pub without: Option<Rule>,
}

impl Cluster {
    fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// An offer that member `from` could make to incarnation `incarnation` of member `to` now.
    fn offer(&self, state: &State, from: u8, to: u8, incarnation: u8, size: u8) -> Option<u8> {
        let Role::Active { limit, bound, .. } = &state.members.get(usize::from(from))?.role else {
            return None;
        };
        let known = bound.get(usize::from(to))?;
        let earlier = known.is_some_and(|b| b.incarnation > incarnation);
        if earlier && self.has(Rule::IncarnationsRise) {
            return None;
        }
        let present = known.filter(|b| b.incarnation == incarnation);
        // Never below the present limit; one extension at a time.
        if present.is_some_and(|b| b.acknowledged.is_none_or(|a| a < b.offered)) {
            return None;
        }
        let grant = limit.saturating_add(size);
        (grant <= self.numbers).then_some(grant)
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
        };
        member.record = None;
    }

    fn nobody(&self) -> Vec<Option<Bound>> {
        vec![None; usize::from(self.members)]
    }

    fn adopt(member: &mut Member, epoch: Epoch) {
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
                    *base == member.epoch || !self.has(Rule::PromiseEndsRights)
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
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn arrive(&self, state: &mut State, message: Message, at: u8) -> Option<()> {
        let member = state.members.get_mut(usize::from(at))?;
        match message {
            Message::Here { .. } => None,
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
        member.record = Some((of, recorded));
        Some(Claim {
            epoch,
            from: at,
            from_incarnation: member.incarnation,
            to: offer.from,
            to_incarnation: offer.from_incarnation,
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
        let durable = match self.has(Rule::EpochKeptOverRestart) {
            true => member.durable,
            false => Epoch::default(),
        };
        let incarnation = member.incarnation + 1;
        *member = Member {
            role: Role::Standby,
            incarnation,
            epoch: durable,
            durable,
            record: None,
        };
        state.restarts += 1;
        let from = at;
        state.wire.insert(Message::Here { from, incarnation });
        Some(())
    }

    fn use_next(&self, state: &mut State, at: u8) -> Option<()> {
        let Role::Active { next, limit, .. } = &mut state.members.get_mut(usize::from(at))?.role
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
        Message::Here { .. } => Some(u8::MAX),
        Message::Grant(claim) | Message::Ack(claim) => Some(claim.to),
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
                epoch,
                durable: epoch,
                record: None,
            }
        };
        let mut members: Vec<Member> = (0..self.members).map(member).collect();
        if let Some(active) = members.first_mut() {
            self.lead(active, first, 1);
        }
        let here = |from| Message::Here {
            from,
            incarnation: 0,
        };
        vec![State {
            members,
            wire: (0..self.members).map(here).collect(),
            sent: 0,
            senders: 0,
            repeated: false,
            restarts: 0,
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
            let Role::Active { bound, .. } = &member.role else {
                continue;
            };
            steps.extend([Step::Use(at), Step::Extend(at)]);
            for message in &state.wire {
                if let Message::Here { from, incarnation } = *message
                    && from != at
                {
                    let sizes = 1..=self.lease;
                    steps.extend(sizes.map(|size| Step::Offer(at, from, incarnation, size)));
                }
            }
            if !self.has(Rule::NoDismissal) {
                let left_out = (0u8..).zip(bound).filter(|(_, b)| b.is_some());
                steps.extend(left_out.map(|(to, _)| Step::Dismiss(at, to)));
            }
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
            Step::Offer(at, to, incarnation, size) => {
                let grant = self.offer(&state, at, to, incarnation, size)?;
                let member = state.members.get_mut(usize::from(at))?;
                let Role::Active { epoch, bound, .. } = &mut member.role else {
                    return None;
                };
                let epoch = *epoch;
                let place = bound.get_mut(usize::from(to))?;
                let before = place.filter(|b| b.incarnation == incarnation);
                *place = Some(Bound {
                    incarnation,
                    offered: grant,
                    acknowledged: before.and_then(|b| b.acknowledged),
                });
                let offer = Message::Grant(Claim {
                    epoch,
                    from: at,
                    from_incarnation: member.incarnation,
                    to,
                    to_incarnation: incarnation,
                    grant,
                });
                state.wire.insert(offer);
            }
            Step::Dismiss(at, to) => {
                let Role::Active { bound, .. } = &mut state.members.get_mut(usize::from(at))?.role
                else {
                    return None;
                };
                *bound.get_mut(usize::from(to))? = None;
            }
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
