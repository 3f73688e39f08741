//! The rules of the lease protocol that the model can do without, one at a time: each that is taken
//! away must bring a repeated number.

use serde::Serialize;

/// A rule. The numbers are those of the protocol's own wording.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Rule 2: the first offer to a standby binds the sender at once.
    FirstOfferBinds,
    /// Rule 3: a grant for another incarnation is ignored.
    GrantNamesIncarnation,
    /// Rule 3: a grant of an epoch below one's own is ignored.
    LowerEpochRefused,
    /// Rule 3: recorded first, then acknowledged.
    RecordBeforeAck,
    /// Rule 4: an acknowledgement counts for the present epoch alone.
    AckOfThisEpoch,
    /// Rule 4: an acknowledgement counts for both present incarnations alone.
    AckOfThisIncarnation,
    /// Rule 4, made sharp: incarnations rise, and nobody goes back to an earlier one.
    IncarnationsRise,
    /// Rule 5: the epoch is on disk before the first packet leaves.
    EpochDurable,
    /// Rule 5: sending goes on one above the recorded grant.
    OneAboveTheGrant,
    /// Rule 5: three members and more take over by a majority.
    Majority,
    /// Rule 5, made sharp: a vote names the epoch whose rights it gives, and whoever has promised
    /// one above that gives none.
    VoteNamesItsBase,
    /// Rule 5, made sharp: who has promised a later epoch takes over on no record of this one.
    PromiseEndsRights,
    /// Rule 6: a restarted member keeps its epoch.
    EpochKeptOverRestart,
    /// Rule 7: no standby is left out by the active's own decision.
    NoDismissal,
    /// R2: a grant counts in the session that it was offered in; who has left that ignores it.
    GrantNamesSession,
    /// R2: an acknowledgement counts in the session that it was given in.
    AckOfThisSession,
    /// R9: a learner has no right before it is admitted, and can be given up until then.
    RightAtAdmit,
    /// R9: a learner is not admitted before it has acknowledged that an SA was deleted that it was
    /// sent a copy of.
    DeletionIsOwed,
    /// R9: what was sent of an SA before its deletion is not recorded behind it.
    DeletionIsTheLast,
    /// R13: a standby that leaves gives its rights up before it says so.
    LeavingEndsRights,
    /// R13: what frees a leader of a session is younger than that session: it answers a challenge
    /// that was drawn when the session began.
    ReleaseNeedsFreshWord,
    /// R13: the word of a member that has led a later epoch frees nobody.
    ReleaseNotAboveLed,
    /// R12: a leader gives its epoch another name alone only while nobody has a right in it.
    RenameOnlyUnbound,
    /// Made sharp: a record only rises within an epoch.
    RecordOnlyRises,
    /// Made sharp: a committed CREATE_CHILD_SA request carries first grants, which bind both.
    RequestCarriesGrants,
    /// Rule 10: the exact end leaves after an irrevocable step-down.
    FinalAfterStepDown,
    /// Rule 10: and after every worker has passed the barrier.
    FinalAfterBarrier,
    /// Inbound: nothing above the recorded high water is delivered.
    HighWaterBinds,
    /// Inbound: on takeover everything up to the high water counts as seen.
    FloorAtTakeover,
    /// Inbound: a parked packet is looked at again when it is released.
    ParkedLookedAtAgain,
}

impl Rule {
    pub const ALL: &'static [Rule] = &[
        Rule::FirstOfferBinds,
        Rule::GrantNamesIncarnation,
        Rule::LowerEpochRefused,
        Rule::RecordBeforeAck,
        Rule::AckOfThisEpoch,
        Rule::AckOfThisIncarnation,
        Rule::IncarnationsRise,
        Rule::EpochDurable,
        Rule::OneAboveTheGrant,
        Rule::Majority,
        Rule::VoteNamesItsBase,
        Rule::PromiseEndsRights,
        Rule::EpochKeptOverRestart,
        Rule::NoDismissal,
        Rule::GrantNamesSession,
        Rule::AckOfThisSession,
        Rule::RightAtAdmit,
        Rule::DeletionIsOwed,
        Rule::DeletionIsTheLast,
        Rule::LeavingEndsRights,
        Rule::ReleaseNeedsFreshWord,
        Rule::ReleaseNotAboveLed,
        Rule::RenameOnlyUnbound,
    ];

    /// Those that `handover.rs` can do without.
    pub const CLOSER: &'static [Rule] = &[
        Rule::RecordOnlyRises,
        Rule::RequestCarriesGrants,
        Rule::FinalAfterStepDown,
        Rule::FinalAfterBarrier,
        Rule::HighWaterBinds,
        Rule::FloorAtTakeover,
        Rule::ParkedLookedAtAgain,
    ];

    /// What the rule says.
    pub const fn says(self) -> &'static str {
        match self {
            Rule::FirstOfferBinds => "2: the first offer binds its sender",
            Rule::GrantNamesIncarnation => "3: a grant for another incarnation is ignored",
            Rule::LowerEpochRefused => "3: a grant of a lower epoch is ignored",
            Rule::RecordBeforeAck => "3: recorded, then acknowledged",
            Rule::AckOfThisEpoch => "4: acknowledgements of this epoch alone count",
            Rule::AckOfThisIncarnation => "4: acknowledgements of these incarnations alone count",
            Rule::IncarnationsRise => "4: incarnations rise, and none comes back",
            Rule::EpochDurable => "5: the epoch is durable before the first packet",
            Rule::OneAboveTheGrant => "5: sending goes on at the grant plus one",
            Rule::Majority => "5: a majority decides among three",
            Rule::VoteNamesItsBase => "5: a vote is for one base, above which nothing is promised",
            Rule::PromiseEndsRights => "5: a promise ends the rights of earlier epochs",
            Rule::EpochKeptOverRestart => "6: a restart keeps the epoch",
            Rule::NoDismissal => "7: no standby is left out by the active alone",
            Rule::GrantNamesSession => "R2: a grant counts in its session alone",
            Rule::AckOfThisSession => "R2: an acknowledgement counts in its session alone",
            Rule::RightAtAdmit => "R9: no right before Admit",
            Rule::DeletionIsOwed => "R9: no Admit before a deletion is acknowledged",
            Rule::DeletionIsTheLast => "R9: nothing is recorded behind a deletion",
            Rule::LeavingEndsRights => "R13: who leaves gives its rights up first",
            Rule::ReleaseNeedsFreshWord => "R13: only a word younger than the session frees it",
            Rule::ReleaseNotAboveLed => "R13: who has led a later epoch frees nobody",
            Rule::RenameOnlyUnbound => "R12: an epoch is renamed alone only while nobody is bound",
            Rule::RecordOnlyRises => "a record only rises within an epoch",
            Rule::RequestCarriesGrants => "a committed request carries first grants",
            Rule::FinalAfterStepDown => "10: FINAL leaves after the step-down",
            Rule::FinalAfterBarrier => "10: FINAL leaves after every worker's barrier",
            Rule::HighWaterBinds => "inbound: nothing above the high water is delivered",
            Rule::FloorAtTakeover => "inbound: everything up to the high water counts as seen",
            Rule::ParkedLookedAtAgain => "inbound: a parked packet is looked at again",
        }
    }

    /// Whether the rule says something only among three members.
    pub const fn needs_three(self) -> bool {
        matches!(
            self,
            Rule::Majority | Rule::VoteNamesItsBase | Rule::PromiseEndsRights
        )
    }
}
