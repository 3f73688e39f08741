//! Bad input to the control plane, counted by reason. The workers count their own.

use std::collections::BTreeMap;
use std::time::Duration;

use hitless_sa::{Instant, MemberId};
use hitless_sync::Event as SyncEvent;

use crate::ike::{self, Event as E};

/// How often one member's bad datagrams are told of; all are counted.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// Failed negotiations that are told of in that time: anybody can cause them.
const TOLD_FAILURES: u32 = 16;

/// Whether an event is of a kind.
type Is = fn(&ike::Event) -> bool;

/// What is told of IKE with peers in figures, and which event each is.
const HANDSHAKES: [(&str, Is); 13] = [
    ("ike_established", |e| matches!(e, E::IkeEstablished { .. })),
    ("ike_rekeyed", |e| matches!(e, E::IkeRekeyed { .. })),
    ("ike_deleted", |e| matches!(e, E::IkeDeleted { .. })),
    ("child_established", |e| {
        matches!(e, E::ChildEstablished { .. })
    }),
    ("child_rekeyed", |e| matches!(e, E::ChildRekeyed { .. })),
    ("child_deleted", |e| matches!(e, E::ChildDeleted { .. })),
    ("message_id_sync_sent", |e| {
        matches!(e, E::MessageIdSyncSent { .. })
    }),
    ("message_id_synced", |e| {
        matches!(e, E::MessageIdSynced { .. })
    }),
    ("replay_counter_sync_sent", |e| {
        matches!(e, E::ReplayCounterSyncSent { .. })
    }),
    ("replay_counter_sync_received", |e| {
        matches!(e, E::ReplayCounterSync { .. })
    }),
    ("relocated", |e| matches!(e, E::Relocated { .. })),
    ("authentication_failed", |e| {
        matches!(e, E::AuthenticationFailed { .. })
    }),
    ("negotiation_failed", |e| {
        matches!(e, E::NegotiationFailed { .. })
    }),
];

/// What was dropped or refused, and why.
#[derive(Default)]
pub(super) struct Counts {
    /// Punted packets that carry no IKE message.
    pub punt_refused: u64,
    /// Messages of ours that no IP packet can carry.
    pub unsendable: u64,
    /// Copies of IKE SAs that this member could not take over: it has another configuration.
    pub unreadable: u64,
    /// IKE between us and peers; the reasons are the program's own words, so they are few.
    ike: BTreeMap<&'static str, u64>,
    /// What handshakes came to, in the order of `HANDSHAKES`.
    handshakes: [u64; HANDSHAKES.len()],
    /// Datagrams of members that could be read but not be used.
    sync: BTreeMap<&'static str, u64>,
    /// When a member's bad datagrams were last told of.
    told: BTreeMap<(MemberId, &'static str), Instant>,
    /// Failures of IKE that were told of since then.
    failures: (Instant, u32),
}

impl Counts {
    /// Counts what an event of IKE says about bad input. False if it is one failure too many to be
    /// told of, too.
    pub fn ike(&mut self, now: Instant, event: &ike::Event) -> bool {
        for (count, (_, is)) in self.handshakes.iter_mut().zip(HANDSHAKES) {
            *count += u64::from(is(event));
        }
        match event {
            ike::Event::Dropped { reason, .. } => {
                *self.ike.entry(reason).or_default() += 1;
                return true;
            }
            ike::Event::AuthenticationFailed { .. } | ike::Event::NegotiationFailed { .. } => {}
            _ => return true,
        }
        let (since, told) = &mut self.failures;
        if now.since(*since) >= TELL_AGAIN {
            (*since, *told) = (now, 0);
        }
        *told += 1;
        *told <= TOLD_FAILURES
    }

    /// Counts what an event of the sync node says about bad input. False if it says no more than
    /// another one a moment ago: a member with another configuration sends a hundred a second.
    pub fn sync(&mut self, now: Instant, event: &SyncEvent) -> bool {
        let (member, reason) = match event {
            SyncEvent::Malformed { member } => (*member, "sync_malformed"),
            SyncEvent::ConfigMismatch { member } => (*member, "sync_config_mismatch"),
            SyncEvent::StaleIncarnation { member, .. } => (*member, "sync_stale_incarnation"),
            SyncEvent::RepeatedIncarnation { member, .. } => (*member, "sync_repeated_incarnation"),
            SyncEvent::UnexpectedLate { member } => (*member, "sync_unexpected_late"),
            SyncEvent::UnexpectedRetrieval { member } => (*member, "sync_unexpected_retrieval"),
            SyncEvent::UnknownMember { member } => (*member, "sync_unknown_member"),
            _ => return true,
        };
        *self.sync.entry(reason).or_default() += 1;
        let told = self.told.entry((member, reason));
        let mut news = false;
        told.and_modify(|told| news = now.since(*told) >= TELL_AGAIN)
            .or_insert_with(|| {
                news = true;
                now
            });
        if news {
            self.told.insert((member, reason), now);
        }
        news
    }

    /// What IKE with peers came to.
    pub fn handshakes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = HANDSHAKES.into_iter().zip(self.handshakes);
        counts.map(|((name, _), count)| (name, count))
    }

    /// Everything that is not zero, by name.
    pub fn list(&self) -> impl Iterator<Item = (String, u64)> {
        let single = [
            ("punt_refused", self.punt_refused),
            ("ike_unsendable", self.unsendable),
            ("record_unreadable", self.unreadable),
        ];
        let single = single.into_iter().map(|(name, n)| (name.to_owned(), n));
        let failed = self
            .handshakes()
            .filter(|(name, _)| name.ends_with("_failed"));
        let failed = failed.map(|(event, n)| (name(event), n));
        let ike = self.ike.iter().map(|(reason, n)| (name(reason), *n));
        let sync = self.sync.iter().map(|(name, n)| ((*name).to_owned(), *n));
        single
            .chain(failed)
            .chain(ike)
            .chain(sync)
            .filter(|(_, n)| *n > 0)
    }
}

/// A reason as a counter's name: no white space, so that columns can be cut.
fn name(reason: &str) -> String {
    let word = |c: char| match c {
        c if c.is_ascii_alphanumeric() => c.to_ascii_lowercase(),
        _ => '_',
    };
    format!("ike_{}", reason.chars().map(word).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_floods_is_counted_each_time_and_told_of_once_a_second() {
        let mut counts = Counts::default();
        let event = SyncEvent::ConfigMismatch {
            member: MemberId(2),
        };
        let start = Instant(1_000_000_000);
        let told = (0..250u64).filter(|i| {
            let now = start + Duration::from_millis(i * 10);
            counts.sync(now, &event)
        });
        assert_eq!(told.count(), 3);
        let list: Vec<_> = counts.list().collect();
        assert_eq!(list, [("sync_config_mismatch".to_owned(), 250)]);
    }

    #[test]
    fn failures_that_anybody_can_cause_are_counted_each_time_and_told_of_a_few_times_a_second() {
        let mut counts = Counts::default();
        let event = ike::Event::NegotiationFailed {
            peer: "192.0.2.1:500".parse().unwrap(),
            reason: "no common IKE proposal".to_owned(),
        };
        let start = Instant(1_000_000_000);
        let told = (0..3000u64).filter(|i| {
            let now = start + Duration::from_millis(*i);
            counts.ike(now, &event)
        });
        assert_eq!(told.count(), 3 * TOLD_FAILURES as usize);
        let list: Vec<_> = counts.list().collect();
        assert_eq!(list, [("ike_negotiation_failed".to_owned(), 3000)]);
    }

    #[test]
    fn a_reason_becomes_one_word() {
        assert_eq!(
            name("message ID above the window"),
            "ike_message_id_above_the_window"
        );
    }
}
