//! Inherited Child SAs that the peer may have no more.
//!
//! A predecessor that lived on behind a partition can have replaced a Child SA with the peer; its
//! successor then sends into the void, on an IKE SA that is well. Nothing tells it so: the peer
//! drops ESP for an SPI that it does not know. So an inherited Child SA that sends and hears
//! nothing is replaced, once. For a flow that only ever goes one way that is one needless rekeying
//! after a takeover.
//!
//! Two members that both believe to lead can also use one Message ID for two requests, and a peer
//! that takes the second for a repetition gives it the answer to the first: an SA with wrong keys.
//! So a new Child SA that has never heard anything is replaced too, but only while the peer is heard
//! on SPIs that we do not know, and not soon, for anybody can forge those: unless a member has just
//! joined, which may have led beside us.

use std::time::Duration;

use hitless_sa::{Instant, SequenceNumber};

/// Silence that is not yet suspicious, of an inherited SA and of a new one.
const PATIENCE: Duration = Duration::from_secs(2);
const PATIENCE_NEW: Duration = Duration::from_secs(10);
/// After a member has joined a new SA is as suspicious as an inherited one for so long: what it used
/// of Message IDs meets what we use meanwhile.
pub(super) const DOUBT: Duration = Duration::from_secs(10);

/// What has been heard of one Child SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Silence {
    inherited: bool,
    cursor: SequenceNumber,
    top: SequenceNumber,
    /// When it sent first since it heard last; of a new one, when a foreign SPI was heard.
    spoke: Option<Instant>,
    /// When that was looked into last.
    noted: Instant,
    /// Replaced: nothing more to watch.
    over: bool,
}

impl Silence {
    /// Of an SA that was just installed.
    pub fn new(inherited: bool) -> Silence {
        Silence {
            inherited,
            cursor: SequenceNumber::default(),
            top: SequenceNumber::default(),
            spoke: None,
            noted: Instant::default(),
            over: false,
        }
    }

    /// Where the cell stands: what was sent and heard. At `foreign` the peer was last heard on an SPI
    /// that we do not know; it may be a forgery, so it counts only while this SA hears nothing: as if
    /// the SA had sent. In doubt a member has joined lately. True once, when the SA has been silent for
    /// too long.
    pub fn note(
        &mut self,
        now: Instant,
        (cursor, top): (SequenceNumber, SequenceNumber),
        foreign: Option<Instant>,
        doubt: bool,
    ) -> bool {
        let first = self.cursor == SequenceNumber::default();
        let foreign = foreign.filter(|at| *at > self.noted);
        self.noted = now;
        if top > self.top || first {
            self.spoke = None;
            self.over |= !self.inherited && !first;
        } else {
            let sent = self.inherited && cursor > self.cursor;
            self.spoke = self.spoke.or(foreign).or(sent.then_some(now));
        }
        self.cursor = cursor;
        self.top = top;
        let patience = if self.inherited || doubt {
            PATIENCE
        } else {
            PATIENCE_NEW
        };
        let suspicious = self.spoke.is_some_and(|spoke| now.since(spoke) >= patience);
        !self.over && {
            self.over = suspicious;
            suspicious
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant(milliseconds * 1_000_000)
    }

    #[test]
    fn one_that_sends_and_hears_nothing_is_suspicious_once() {
        let mut silence = Silence::new(true);
        let mut found = Vec::new();
        for step in 0..100 {
            let cursor = SequenceNumber(5000 + step);
            if silence.note(at(step * 100), (cursor, SequenceNumber(9)), None, false) {
                found.push(step);
            }
        }
        assert_eq!(found, [21]);
    }

    #[test]
    fn one_that_hears_or_says_nothing_is_not() {
        let mut silence = Silence::new(true);
        for step in 0..100 {
            let cursor = SequenceNumber(5000 + step);
            // Every second it hears something.
            let stands = (cursor, SequenceNumber(9 + step / 10));
            assert!(!silence.note(at(step * 100), stands, None, false));
        }
        let mut idle = Silence::new(true);
        for step in 0..100 {
            let stands = (SequenceNumber(5000), SequenceNumber(9));
            assert!(!idle.note(at(step * 100), stands, None, false));
        }
    }

    #[test]
    fn a_foreign_spi_counts_only_while_it_is_silent() {
        let (cursor, top) = (SequenceNumber(5000), SequenceNumber(9));
        let mut silence = Silence::new(true);
        assert!(!silence.note(at(0), (cursor, top), None, false));
        let (first, more) = (Some(at(100)), (cursor, SequenceNumber(10)));
        assert!(!silence.note(at(200), more, first, false));
        assert!(
            !silence.note(at(5000), more, first, false),
            "it was heard since"
        );
        let again = Some(at(5001));
        assert!(!silence.note(at(6999), more, again, false));
        assert!(
            !silence.note(at(7000), more, Some(at(6999)), false),
            "from the first time on"
        );
        assert!(silence.note(at(7001), more, Some(at(7000)), false));
    }

    #[test]
    fn a_new_one_needs_foreign_spis_and_silence_from_the_start() {
        let numbers = |step: u64| (SequenceNumber(1 + step), SequenceNumber(0));
        let mut silence = Silence::new(false);
        for step in 0..100 {
            assert!(!silence.note(at(step * 1000), numbers(step), None, false));
        }
        let foreign = Some(at(100_000));
        assert!(!silence.note(at(109_999), numbers(100), foreign, false));
        assert!(silence.note(at(110_000), numbers(100), foreign, false));
        let mut heard = Silence::new(false);
        assert!(!heard.note(at(0), numbers(0), None, false));
        let stands = (SequenceNumber(1), SequenceNumber(1));
        assert!(!heard.note(at(1), stands, None, false));
        assert!(!heard.note(at(60_000), stands, Some(at(2)), false));
    }

    #[test]
    fn a_new_one_is_suspicious_sooner_after_a_member_has_joined_but_never_without_foreign_spis() {
        let numbers = |step: u64| (SequenceNumber(1 + step), SequenceNumber(0));
        let mut silence = Silence::new(false);
        for step in 0..100 {
            assert!(!silence.note(at(step * 1000), numbers(step), None, true));
        }
        let foreign = Some(at(100_000));
        assert!(!silence.note(at(103_000), numbers(100), foreign, false));
        assert!(silence.note(at(103_001), numbers(100), foreign, true));
        assert!(!silence.note(at(109_000), numbers(101), foreign, true));
    }
}
