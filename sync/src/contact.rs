//! Whether a standby still answers in its session. One that beats but acknowledges nothing would
//! hold every IKE message and every lease for ever, so its word counts as a sign of life only while
//! no record and no offer has waited for it longer than D. Its clock is echoed to it from the same
//! words and no others: it stops vouching for its copy before its leader stops waiting for it (R16).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hitless_sa::{Instant, Lease, SaId};

/// When a standby was heard.
pub(crate) struct Contact {
    /// Its newest word.
    heard: Instant,
    /// Its newest word with nothing overdue, and its own clock in it.
    answered: Instant,
    pub echo: u64,
    /// Its leader was away itself until then: what it said meanwhile waited to be read.
    awake: Instant,
}

impl Contact {
    pub fn new(now: Instant, echo: u64) -> Contact {
        Contact {
            heard: now,
            answered: now,
            echo,
            awake: now,
        }
    }

    /// The leader was away until now, and silence counts from now: longer to wait is always safe
    /// (R16). Not again for one that has not answered since it last was, or else one that never
    /// does would be waited for as long as the leader is slow.
    pub fn woke(&mut self, now: Instant, owed: Option<Instant>) {
        if self.answered >= self.awake && owed.is_none_or(|since| since >= self.awake) {
            self.awake = now;
        }
    }

    /// Whether an answer that is owed since then is overdue.
    pub fn is_overdue(&self, now: Instant, owed: Option<Instant>, patience: Duration) -> bool {
        owed.is_some_and(|since| now.since(since.max(self.awake)) > patience)
    }

    /// The newest word of its clock `time`, of one that owes an answer since `owed`.
    pub fn word(&mut self, now: Instant, time: u64, owed: Option<Instant>, patience: Duration) {
        self.heard = now;
        if !self.is_overdue(now, owed, patience) {
            (self.answered, self.echo) = (now, time);
        }
    }

    /// Silent, or it speaks and does not answer.
    pub fn silent_for(&self, now: Instant) -> Duration {
        now.since(self.answered.max(self.awake))
    }

    /// When it last owed nothing.
    pub fn answered(&self) -> Instant {
        self.answered
    }

    pub fn unheard_for(&self, now: Instant) -> Duration {
        now.since(self.heard)
    }
}

/// Leases offered and not yet acknowledged.
#[derive(Default)]
pub(crate) struct Offers {
    open: BTreeMap<SaId, Offer>,
    /// What has been sent and not reached, oldest first.
    owed: BTreeSet<(Instant, SaId)>,
}

#[derive(Default)]
struct Offer {
    /// When it was last sent, if it does not wait to be.
    sent: Option<Instant>,
    /// The oldest value that the standby owes, and the newest that it was sent: each since when.
    goal: Option<(Lease, Instant)>,
    newest: Option<(Lease, Instant)>,
}

impl Offers {
    /// Has it sent, now or again; false if it waits for that already.
    pub fn queue(&mut self, sa: SaId) -> bool {
        let known = self.open.get(&sa);
        let waits = known.is_some_and(|offer| offer.sent.is_none());
        self.open.entry(sa).or_default().sent = None;
        !waits
    }

    pub fn waits(&self, sa: SaId) -> bool {
        self.open.get(&sa).is_some_and(|offer| offer.sent.is_none())
    }

    /// Whether this was when it was last sent.
    pub fn sent_at(&self, sa: SaId, at: Instant) -> bool {
        self.open
            .get(&sa)
            .is_some_and(|offer| offer.sent == Some(at))
    }

    /// It leaves with this value.
    pub fn sent(&mut self, now: Instant, sa: SaId, lease: Lease) {
        let offer = self.open.entry(sa).or_default();
        offer.sent = Some(now);
        if offer.newest.is_none_or(|(newest, _)| newest != lease) {
            offer.newest = Some((lease, now));
        }
        if offer.goal.is_none() {
            offer.goal = Some((lease, now));
            self.owed.insert((now, sa));
        }
    }

    /// So far it is acknowledged, of what is offered now. One that is raised again and again is
    /// owed since the value that is not reached was sent, not since the first.
    pub fn reached(&mut self, sa: SaId, acked: Lease, offered: Lease) {
        let reaches = |lease: Lease| acked.min(lease) == lease;
        if reaches(offered) {
            return self.forget(sa);
        }
        let Some(offer) = self.open.get_mut(&sa) else {
            return;
        };
        if let Some((goal, since)) = offer.goal
            && reaches(goal)
        {
            self.owed.remove(&(since, sa));
            offer.goal = offer.newest.filter(|(newest, _)| !reaches(*newest));
            self.owed.extend(offer.goal.map(|(_, since)| (since, sa)));
        }
    }

    pub fn forget(&mut self, sa: SaId) {
        let offer = self.open.remove(&sa);
        if let Some((_, since)) = offer.and_then(|offer| offer.goal) {
            self.owed.remove(&(since, sa));
        }
    }

    /// Since when the standby owes the oldest answer.
    pub fn owed(&self) -> Option<Instant> {
        self.owed.first().map(|(since, _)| *since)
    }
}

#[cfg(test)]
mod tests {
    use hitless_sa::{Incarnation, MemberId, SequenceNumber};

    use super::*;

    const SA: SaId = SaId {
        creator: MemberId(1),
        incarnation: Incarnation(1),
        counter: 1,
    };

    fn lease(n: u64) -> Lease {
        Lease {
            grant: SequenceNumber(n),
            high_water: SequenceNumber(n),
        }
    }

    #[test]
    fn an_offer_is_owed_since_the_value_that_is_not_reached_was_sent() {
        let mut offers = Offers::default();
        assert!(offers.queue(SA) && !offers.queue(SA));
        assert_eq!(offers.owed(), None);
        offers.sent(Instant(1), SA, lease(10));
        offers.sent(Instant(2), SA, lease(20));
        offers.sent(Instant(3), SA, lease(20));
        assert_eq!(offers.owed(), Some(Instant(1)));
        // Less than was offered first is no answer.
        offers.reached(SA, lease(9), lease(30));
        assert_eq!(offers.owed(), Some(Instant(1)));
        offers.reached(SA, lease(10), lease(30));
        assert_eq!(offers.owed(), Some(Instant(2)));
        // What it was not sent yet it does not owe.
        offers.reached(SA, lease(20), lease(30));
        assert_eq!(offers.owed(), None);
        offers.sent(Instant(5), SA, lease(30));
        assert_eq!(offers.owed(), Some(Instant(5)));
        offers.reached(SA, lease(30), lease(30));
        assert_eq!(offers.owed(), None);
        assert!(offers.open.is_empty() && offers.owed.is_empty());
    }

    #[test]
    fn r16_a_word_of_who_owes_an_answer_moves_neither_the_silence_nor_the_echo() {
        let patience = Duration::from_nanos(100);
        let mut contact = Contact::new(Instant(0), 7);
        contact.word(Instant(50), 8, Some(Instant(0)), patience);
        contact.word(Instant(150), 9, Some(Instant(40)), patience);
        assert_eq!(
            (contact.silent_for(Instant(150)).as_nanos(), contact.echo),
            (100, 8)
        );
        assert_eq!(contact.unheard_for(Instant(150)), Duration::ZERO);
        contact.word(Instant(160), 10, Some(Instant(140)), patience);
        assert_eq!(
            (contact.silent_for(Instant(160)).as_nanos(), contact.echo),
            (0, 10)
        );
    }

    #[test]
    fn r16_silence_counts_from_when_the_leader_is_back_once_for_each_answer() {
        let patience = Duration::from_nanos(100);
        let silence = |contact: &Contact, now| contact.silent_for(Instant(now)).as_nanos();
        let mut contact = Contact::new(Instant(0), 7);
        contact.woke(Instant(500), Some(Instant(1)));
        assert_eq!(silence(&contact, 550), 50);
        contact.word(Instant(600), 8, Some(Instant(1)), patience);
        assert_eq!((silence(&contact, 600), contact.echo), (0, 8));
        // It owes the same when its leader has been away again.
        contact.woke(Instant(650), Some(Instant(1)));
        contact.word(Instant(650), 9, Some(Instant(1)), patience);
        assert_eq!((silence(&contact, 650), contact.echo), (50, 8));
        // It is not heard at all.
        let mut contact = Contact::new(Instant(0), 7);
        contact.woke(Instant(500), None);
        contact.woke(Instant(650), None);
        assert_eq!(silence(&contact, 650), 150);
    }
}
