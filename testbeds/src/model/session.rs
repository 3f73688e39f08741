//! How sessions begin and end without a restart: leaving, the word that frees a leader, Admit, and
//! another name for an epoch (R9, R12, R13).
//!
//! A word is fresh if it answers a challenge that the leader drew when the session began. Who answers
//! that with another nonce has left the session since, and its nonces rise here: so a fresh word is
//! one with a later nonce, and one with an earlier nonce is older than the session.

use super::cluster::{Bound, Claim, Cluster, Epoch, Member, Message, Role, State, Step, Word};
use super::rules::Rule;

impl Word {
    pub(super) fn of(at: u8, member: &Member) -> Word {
        Word {
            from: at,
            incarnation: member.incarnation,
            nonce: member.nonce,
            led: member.led,
        }
    }

    /// Whether it asked for this session.
    pub(super) fn is_of(self, bound: &Bound) -> bool {
        (self.incarnation, self.nonce) == (bound.incarnation, bound.nonce)
    }
}

impl Cluster {
    /// What a leader may do about its sessions.
    pub(super) fn sessions(
        &self,
        state: &State,
        at: u8,
        bound: &[Option<Bound>],
        steps: &mut Vec<Step>,
    ) {
        for (to, bound) in (0u8..).zip(bound) {
            let Some(bound) = bound else { continue };
            if !bound.admitted {
                steps.push(Step::Admit(at, to));
            }
            if !bound.admitted || !self.has(Rule::NoDismissal) {
                steps.push(Step::Dismiss(at, to));
            }
        }
        if state.renames < self.renames {
            steps.extend((2..=self.epochs).map(|counter| Step::Rename(at, counter)));
        }
    }

    /// Whether the leader of `epoch` takes a member at its word: that it has no right in `known`.
    pub(super) fn heard(&self, epoch: Epoch, known: Option<Bound>, word: Word) -> bool {
        if word.led > epoch && self.has(Rule::ReleaseNotAboveLed) {
            return false;
        }
        let Some(known) = known else { return true };
        let rule = match word.incarnation == known.incarnation {
            true => Rule::ReleaseNeedsFreshWord,
            false => Rule::IncarnationsRise,
        };
        let younger = (word.incarnation, word.nonce) > (known.incarnation, known.nonce);
        younger || !self.has(rule)
    }

    /// A session is over by the word of its standby: what it bounded is free.
    pub(super) fn release(&self, state: &mut State, at: u8, word: Word) -> Option<()> {
        let Role::Active { epoch, bound, .. } = &mut state.members.get_mut(usize::from(at))?.role
        else {
            return None;
        };
        let place = bound.get_mut(usize::from(word.from))?;
        let over = place.filter(|known| !word.is_of(known))?;
        self.heard(*epoch, Some(over), word).then(|| *place = None)
    }

    pub(super) fn dismiss(&self, state: &mut State, at: u8, to: u8) -> Option<()> {
        let Role::Active { bound, .. } = &mut state.members.get_mut(usize::from(at))?.role else {
            return None;
        };
        *bound.get_mut(usize::from(to))? = None;
        Some(())
    }

    /// By suspicion without a right, by a vote, by resigning, by stepping down.
    pub(super) fn leave(&self, state: &mut State, at: u8) -> Option<()> {
        let member = state.members.get_mut(usize::from(at))?;
        member.role = Role::Standby;
        member.nonce += 1;
        if self.has(Rule::LeavingEndsRights) {
            (member.record, member.admitted, member.ended) = (None, false, None);
        }
        let word = Word::of(at, member);
        state.leaves += 1;
        state.wire.insert(Message::Here(word)).then_some(())
    }

    /// R9: from the moment that Admit may have left, only the standby can give its right up.
    pub(super) fn admit(&self, state: &mut State, at: u8, to: u8) -> Option<()> {
        let member = state.members.get_mut(usize::from(at))?;
        let Role::Active {
            epoch,
            limit,
            bound,
            deleted,
            ..
        } = &mut member.role
        else {
            return None;
        };
        let standby = bound.get_mut(usize::from(to))?.as_mut()?;
        // A book without the SA asks for nothing: what is owed of it stands elsewhere.
        let owed = standby.owes && self.has(Rule::DeletionIsOwed);
        let has_all = |grant: &u8| !owed && (*deleted || grant >= limit);
        let grant = standby.acknowledged.filter(has_all)?;
        standby.admitted = true;
        state.wire.insert(Message::Admit(Claim {
            epoch: *epoch,
            from: at,
            from_incarnation: member.incarnation,
            to,
            to_incarnation: standby.incarnation,
            nonce: standby.nonce,
            grant,
        }));
        Some(())
    }

    /// It counts in the session that it names, with what was acknowledged there.
    pub(super) fn admitted(member: &mut Member, claim: Claim) -> Option<()> {
        let here = (claim.to_incarnation, claim.nonce) == (member.incarnation, member.nonce);
        let recorded = member.record.is_some_and(|(of, _)| of == claim.epoch);
        let follows = here && recorded && member.role == Role::Standby;
        (follows && !member.admitted).then(|| member.admitted = true)
    }

    /// R9: what learners have of the SA may be below what was used, for nothing waited for them.
    pub(super) fn delete(&self, state: &mut State, at: u8) -> Option<()> {
        let member = state.members.get_mut(usize::from(at))?;
        let Role::Active {
            epoch,
            bound,
            deleted,
            ..
        } = &mut member.role
        else {
            return None;
        };
        if std::mem::replace(deleted, true) {
            return None;
        }
        for (to, standby) in (0u8..).zip(bound) {
            let Some(standby) = standby else { continue };
            standby.owes = true;
            state.wire.insert(Message::Delete(Claim {
                epoch: *epoch,
                from: at,
                from_incarnation: member.incarnation,
                to,
                to_incarnation: standby.incarnation,
                nonce: standby.nonce,
                grant: 0,
            }));
        }
        Some(())
    }

    /// As a standby, in the session that it names and behind what was recorded there: the copy is gone.
    pub(super) fn deleted(member: &mut Member, claim: Claim) -> Option<Claim> {
        let here = (claim.to_incarnation, claim.nonce) == (member.incarnation, member.nonce);
        let recorded = member.record.is_some_and(|(of, _)| of == claim.epoch);
        if !here || !recorded || member.role != Role::Standby {
            return None;
        }
        member.record = None;
        member.ended = Some((claim.epoch, claim.nonce));
        Some(Claim {
            from: claim.to,
            from_incarnation: claim.to_incarnation,
            to: claim.from,
            to_incarnation: claim.from_incarnation,
            ..claim
        })
    }

    /// As a leader: the standby has no copy any more.
    pub(super) fn told(member: &mut Member, claim: Claim) -> Option<()> {
        let Role::Active { epoch, bound, .. } = &mut member.role else {
            return None;
        };
        let standby = bound.get_mut(usize::from(claim.from))?.as_mut()?;
        let named = (claim.epoch, claim.from_incarnation, claim.nonce);
        let present = (*epoch, standby.incarnation, standby.nonce);
        let own = claim.to_incarnation == member.incarnation && named == present;
        (own && std::mem::take(&mut standby.owes)).then_some(())
    }

    /// Nobody has a right in the epoch: it needs no vote to get another name, in which learners begin
    /// anew. One that the leader stands for already, or one above all that it knows.
    pub(super) fn rename(&self, state: &mut State, at: u8, counter: u8) -> Option<()> {
        let member = state.members.get_mut(usize::from(at))?;
        let Role::Active {
            epoch,
            bound,
            again,
            ..
        } = &mut member.role
        else {
            return None;
        };
        let anyone = bound.iter().flatten().any(|standby| standby.admitted);
        if anyone && self.has(Rule::RenameOnlyUnbound) {
            return None;
        }
        let other = Epoch {
            counter,
            leader: at,
        };
        let due = match again {
            Some(_) => other == member.epoch,
            None => counter > member.epoch.counter,
        };
        due.then_some(())?;
        (*epoch, *bound, *again) = (other, self.nobody(), None);
        member.led = other;
        Cluster::adopt(member, other);
        state.renames += 1;
        Some(())
    }
}
