//! Inherited Child SAs that the peer may have no more.
//!
//! A predecessor that lived on behind a partition can have replaced a Child SA with the peer; its
//! successor then sends into the void, on an IKE SA that is well. Nothing tells it so: the peer
//! drops ESP for an SPI that it does not know. So an inherited Child SA that sends and hears
//! nothing is replaced, once. For a flow that only ever goes one way that is one needless rekeying
//! after a takeover.

use std::time::Duration;

use hitless_sa::{Instant, SequenceNumber};

/// Silence that is not yet suspicious.
const PATIENCE: Duration = Duration::from_secs(2);

/// What has been heard of one Child SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Silence {
    cursor: SequenceNumber,
    top: SequenceNumber,
    /// When it sent first since it heard last.
    spoke: Option<Instant>,
    /// Replaced: nothing more to watch.
    over: bool,
}

impl Silence {
    /// Where the cell stands. True once, when the SA has been silent for too long.
    pub fn note(&mut self, now: Instant, cursor: SequenceNumber, top: SequenceNumber) -> bool {
        let first = self.cursor == SequenceNumber::default();
        if top > self.top || first {
            self.spoke = None;
        } else if cursor > self.cursor && self.spoke.is_none() {
            self.spoke = Some(now);
        }
        self.cursor = cursor;
        self.top = top;
        let suspicious = self.spoke.is_some_and(|spoke| now.since(spoke) >= PATIENCE);
        !self.over && {
            self.over = suspicious;
            suspicious
        }
    }

    /// The peer was heard on an SPI that we do not know. It may be a forgery, so it counts only
    /// while this SA hears nothing: as if the SA had sent.
    pub fn foreign(&mut self, now: Instant) {
        self.spoke.get_or_insert(now);
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
        let mut silence = Silence::default();
        let mut found = Vec::new();
        for step in 0..100 {
            let cursor = SequenceNumber(5000 + step);
            if silence.note(at(step * 100), cursor, SequenceNumber(9)) {
                found.push(step);
            }
        }
        assert_eq!(found, [21]);
    }

    #[test]
    fn one_that_hears_or_says_nothing_is_not() {
        let mut silence = Silence::default();
        for step in 0..100 {
            let cursor = SequenceNumber(5000 + step);
            // Every second it hears something.
            assert!(!silence.note(at(step * 100), cursor, SequenceNumber(9 + step / 10)));
        }
        let mut idle = Silence::default();
        for step in 0..100 {
            assert!(!idle.note(at(step * 100), SequenceNumber(5000), SequenceNumber(9)));
        }
    }

    #[test]
    fn a_foreign_spi_counts_only_while_it_is_silent() {
        let (cursor, mut top) = (SequenceNumber(5000), SequenceNumber(9));
        let mut silence = Silence::default();
        assert!(!silence.note(at(0), cursor, top));
        silence.foreign(at(100));
        top.0 += 1;
        assert!(!silence.note(at(200), cursor, top));
        assert!(!silence.note(at(5000), cursor, top));
        silence.foreign(at(5000));
        assert!(!silence.note(at(6999), cursor, top));
        assert!(silence.note(at(7000), cursor, top));
    }
}
