//! One SA between two members, looked at more closely than in `cluster.rs`: first grants that ride
//! in the request that makes the SA, planned switchovers, workers that pause between two steps, and
//! the packets that come in.
//!
//! Here nobody restarts, and a takeover is what a standby with a record may do at any time.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use super::rules::Rule;

/// Numbers up to which the leases reach, outbound and inbound.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Reach {
    grant: u8,
    high: u8,
}

impl Reach {
    fn max(self, other: Reach) -> Reach {
        Reach {
            grant: self.grant.max(other.grant),
            high: self.high.max(other.high),
        }
    }
}

/// What the members say; each may arrive at any time, and again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Message {
    Offer(u8, Reach),
    Ack(u8, Reach),
    /// The exact end of an epoch, and what was delivered in it.
    Final(u8, Reach, u16),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Role {
    Standby,
    Active,
    /// Leadership is off for good in this epoch; the workers have not all passed the barrier.
    Stopping,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Member {
    role: Role,
    epoch: u8,
    /// The cell: next number, what is granted, what was seen.
    next: u8,
    limit: Reach,
    seen: u16,
    /// Something was offered in this epoch: nothing is extended without an acknowledgement.
    bound: bool,
    offered: Reach,
    /// A worker has seen that its member leads, and is about to draw a number.
    draws: bool,
    /// A worker has found a packet new and permitted, and is about to deliver it.
    delivers: Option<u8>,
    /// Packets that wait for the high water.
    parked: [Option<u8>; 2],
    /// As standby: the epoch, what was recorded.
    record: Option<(u8, Reach)>,
}

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A worker finds that its member leads.
    Check(u8),
    /// It draws the next number and sends.
    Send(u8),
    /// A packet with this number comes in, perhaps not for the first time.
    Packet(u8, u8),
    /// A worker delivers what it has found permitted.
    Deliver(u8),
    /// A packet that waited is looked at again.
    Release(u8, u8),
    Offer(u8, Reach),
    /// A leader that has offered nothing yet extends its own leases.
    Extend(u8),
    /// The operator hands over: no worker begins anything new.
    Stop(u8),
    Final(u8),
    TakeOver(u8),
    Arrive(Message, u8),
}

/// A state of both members.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    members: [Member; 2],
    wire: BTreeSet<Message>,
    sent: u16,
    delivered: u16,
    pub repeated: bool,
    pub delivered_twice: bool,
    pub handed_over: bool,
    senders: u8,
}

/// The protocol within bounds.
#[derive(Clone, Debug)]
pub struct Handover {
    pub numbers: u8,
    /// The highest epoch, the first being 1. Odd ones are led by the first member, even ones by
    /// the second: who takes over takes the next that is its own.
    pub epochs: u8,
    pub without: Option<Rule>,
}

const fn up_to(number: u8) -> u16 {
    (1u16 << (number + 1)) - 1
}

impl Handover {
    fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn lead(&self, member: &mut Member, epoch: u8, end: Reach, seen: u16) {
        // Whatever a worker of the old cell is about to do it does before the new one is there.
        *member = Member {
            role: Role::Active,
            epoch,
            next: end.grant + 1,
            limit: end,
            seen,
            bound: false,
            offered: end,
            draws: false,
            delivers: None,
            parked: member.parked,
            record: None,
        };
    }

    fn successor(&self, at: u8, base: u8) -> Option<u8> {
        let epoch = base + 1;
        (epoch <= self.epochs && (epoch + 1) % 2 == at).then_some(epoch)
    }

    fn deliver(state: &mut State, at: usize, number: u8) {
        let bit = 1 << number;
        state.members[at].seen |= bit;
        state.delivered_twice |= state.delivered & bit != 0;
        state.delivered |= bit;
    }

    fn permitted(&self, member: &Member, number: u8) -> bool {
        number <= member.limit.high || !self.has(Rule::HighWaterBinds)
    }

    /// A packet comes in: new and permitted, or parked until it is.
    fn packet(&self, member: &mut Member, number: u8) -> Option<()> {
        if member.role != Role::Active || member.seen & 1 << number != 0 {
            return None;
        }
        if self.permitted(member, number) {
            if member.delivers.is_some() {
                return None;
            }
            member.delivers = Some(number);
        } else {
            *member.parked.iter_mut().find(|place| place.is_none())? = Some(number);
        }
        Some(())
    }

    fn release(&self, state: &mut State, at: usize, place: usize) -> Option<()> {
        let member = state.members.get_mut(at)?;
        let number = *member.parked.get(place)?;
        let number =
            number.filter(|n| member.role == Role::Active && self.permitted(member, *n))?;
        *member.parked.get_mut(place)? = None;
        let seen = member.seen & 1 << number != 0;
        if !seen || !self.has(Rule::ParkedLookedAtAgain) {
            Handover::deliver(state, at, number);
        }
        Some(())
    }

    fn offer(&self, state: &mut State, at: usize, reach: Reach) -> Option<()> {
        let member = state.members.get_mut(at)?;
        member.bound = true;
        member.offered = reach;
        let offer = Message::Offer(member.epoch, reach);
        state.wire.insert(offer).then_some(())
    }

    /// The last word of an epoch: how far it was used.
    fn finish(&self, state: &mut State, at: usize) -> Option<()> {
        let member = state.members.get_mut(at)?;
        let quiet = !member.draws && member.delivers.is_none();
        let stopped = member.role == Role::Stopping;
        let early = member.role == Role::Active && !self.has(Rule::FinalAfterStepDown);
        let barrier = quiet || !self.has(Rule::FinalAfterBarrier);
        if !(stopped || early) || !barrier {
            return None;
        }
        let highest = (0..=self.numbers).rev().find(|n| member.seen & 1 << n != 0);
        let end = Reach {
            grant: member.next - 1,
            high: highest.unwrap_or(0),
        };
        let last = Message::Final(member.epoch, end, member.seen);
        if stopped {
            member.role = Role::Standby;
        }
        state.wire.insert(last).then_some(())
    }

    fn take_over(&self, state: &mut State, at: u8) -> Option<()> {
        let member = state.members.get_mut(usize::from(at))?;
        let standby = member.role == Role::Standby;
        let (base, reach) = member
            .record
            .filter(|(of, _)| standby && *of == member.epoch)?;
        let epoch = self.successor(at, base)?;
        let seen = match self.has(Rule::FloorAtTakeover) {
            true => up_to(reach.high),
            false => 0,
        };
        self.lead(member, epoch, reach, seen);
        Some(())
    }

    fn arrive(&self, state: &mut State, message: Message, at: u8) -> Option<()> {
        let member = state.members.get_mut(usize::from(at))?;
        match message {
            Message::Offer(epoch, reach) => {
                if epoch < member.epoch || (epoch + 1) % 2 == at {
                    return None;
                }
                // A higher epoch: whatever it leads is over. A worker may still finish its step.
                let kept = member.record.filter(|(of, _)| *of == epoch);
                if member.role != Role::Standby || epoch > member.epoch {
                    member.role = Role::Standby;
                    member.epoch = epoch;
                }
                let before = kept.map_or(Reach::default(), |(_, before)| before);
                let recorded = match self.has(Rule::RecordOnlyRises) {
                    true => before.max(reach),
                    false => reach,
                };
                member.record = Some((epoch, recorded));
                state.wire.insert(Message::Ack(epoch, before.max(reach)));
                Some(())
            }
            Message::Ack(epoch, reach) => {
                if member.role != Role::Active || epoch != member.epoch {
                    return None;
                }
                let raised = member.limit.max(reach);
                let changed = raised != member.limit;
                member.limit = raised;
                changed.then_some(())
            }
            Message::Final(base, end, seen) => {
                let standby = member.role == Role::Standby;
                member
                    .record
                    .filter(|(of, _)| standby && *of == base && *of == member.epoch)?;
                let epoch = self.successor(at, base)?;
                self.lead(member, epoch, end, seen);
                state.handed_over = true;
                Some(())
            }
        }
    }

    /// Whether this member has the next offer to make, and which.
    fn offers(&self, member: &Member) -> impl Iterator<Item = Reach> {
        let limit = member.limit;
        let due = !member.bound || limit == limit.max(member.offered);
        let sizes = [(1, 0), (0, 1), (1, 1), (2, 1)];
        let numbers = self.numbers;
        sizes
            .into_iter()
            .map(move |(grant, high)| Reach {
                grant: limit.grant + grant,
                high: limit.high + high,
            })
            .filter(move |reach| due && reach.grant <= numbers && reach.high <= numbers)
    }
}

impl Model for Handover {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let first = Reach { grant: 1, high: 1 };
        let fresh = Member {
            role: Role::Standby,
            epoch: 0,
            next: 1,
            limit: Reach::default(),
            seen: 1,
            bound: false,
            offered: Reach::default(),
            draws: false,
            delivers: None,
            parked: [None; 2],
            record: None,
        };
        // The first has committed the request that makes the SA: the second could finish it.
        let claims = self.has(Rule::RequestCarriesGrants);
        let active = Member {
            role: Role::Active,
            epoch: 1,
            bound: claims,
            offered: if claims { first } else { Reach::default() },
            ..fresh.clone()
        };
        let reach = if claims { first } else { Reach::default() };
        vec![State {
            members: [active, fresh],
            wire: BTreeSet::from([Message::Offer(1, reach)]),
            sent: 0,
            delivered: 0,
            repeated: false,
            delivered_twice: false,
            handed_over: false,
            senders: 0,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for (at, member) in (0u8..).zip(&state.members) {
            // A worker that is in the midst of a step ends it, whatever became of its member.
            if member.draws {
                steps.push(Step::Send(at));
            }
            if member.delivers.is_some() {
                steps.push(Step::Deliver(at));
            }
            match member.role {
                Role::Standby => steps.push(Step::TakeOver(at)),
                Role::Stopping => steps.push(Step::Final(at)),
                Role::Active => {
                    if !member.draws && member.next <= self.numbers {
                        steps.push(Step::Check(at));
                    }
                    steps.extend((1..=self.numbers).map(|number| Step::Packet(at, number)));
                    steps.extend([0, 1].map(|place| Step::Release(at, place)));
                    steps.extend(self.offers(member).map(|reach| Step::Offer(at, reach)));
                    steps.extend([Step::Extend(at), Step::Stop(at)]);
                    if !self.has(Rule::FinalAfterStepDown) {
                        steps.push(Step::Final(at));
                    }
                }
            }
        }
        for message in &state.wire {
            let (epoch, to_leader) = match *message {
                Message::Ack(epoch, _) => (epoch, true),
                Message::Offer(epoch, _) | Message::Final(epoch, ..) => (epoch, false),
            };
            let leader = (epoch + 1) % 2;
            let at = if to_leader { leader } else { 1 - leader };
            steps.push(Step::Arrive(*message, at));
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Check(at) => state.members[usize::from(at)].draws = true,
            Step::Send(at) => {
                let member = &mut state.members[usize::from(at)];
                member.draws = false;
                // Without a number to draw the packet is dropped.
                if member.next <= member.limit.grant {
                    let bit = 1 << member.next;
                    member.next += 1;
                    state.repeated |= state.sent & bit != 0;
                    state.sent |= bit;
                    state.senders |= 1 << at;
                }
            }
            Step::Packet(at, number) => {
                self.packet(&mut state.members[usize::from(at)], number)?;
            }
            Step::Deliver(at) => {
                let number = state.members[usize::from(at)].delivers.take()?;
                Handover::deliver(&mut state, usize::from(at), number);
            }
            Step::Release(at, place) => {
                self.release(&mut state, usize::from(at), usize::from(place))?;
            }
            Step::Offer(at, reach) => self.offer(&mut state, usize::from(at), reach)?,
            Step::Extend(at) => {
                let member = &mut state.members[usize::from(at)];
                if member.bound || member.limit.grant >= self.numbers {
                    return None;
                }
                member.limit.grant += 1;
                member.limit.high += 1;
            }
            Step::Stop(at) => state.members[usize::from(at)].role = Role::Stopping,
            Step::Final(at) => self.finish(&mut state, usize::from(at))?,
            Step::TakeOver(at) => self.take_over(&mut state, at)?,
            Step::Arrive(message, at) => self.arrive(&mut state, message, at)?,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Handover>> {
        vec![
            Property::always(super::REPEATED, |_, state: &State| !state.repeated),
            Property::always(super::DELIVERED, |_, state: &State| !state.delivered_twice),
            Property::sometimes(super::CARRIED_ON, |_, state: &State| {
                state.senders == 3 && state.handed_over
            }),
        ]
    }
}
