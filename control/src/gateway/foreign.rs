//! ESP of a peer for SPIs of this cluster that this member does not know.
//!
//! A deposed member that lived on behind a partition can have made a Child SA with the peer and
//! died with it: the peer goes on sending on that, and nothing here is amiss, so nobody mends it.
//! An SPI in a member's part of the space (R2, RFC 6311 section 3.3) that is heard for a while
//! without a break is such a Child SA, or a forgery; IKE then asks the peer, who alone knows, to
//! delete it (RFC 7296 section 1.4.1), and makes what is missing. Both are harmless if it was a
//! forgery, and bounded, here and there (`ike/takeover.rs`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use hitless_sa::{Instant, Spi};

use crate::allowance::Allowance;

/// What the network still holds of an SA that was just deleted, and what comes before its install,
/// is over sooner.
const PATIENCE: Duration = Duration::from_secs(1);
/// A longer break than this begins anew.
const BREAK: Duration = Duration::from_secs(1);
/// From one question to the next, of all SPIs, on the whole: a forger costs us no more.
const PAUSE: Duration = Duration::from_millis(10);
/// So many may come at once, after as long a time without any: each tunnel of a cluster that was
/// split may have one, and is silent until then.
const AT_ONCE: u32 = 256;
/// And of one SPI.
const AGAIN: Duration = Duration::from_secs(30);
/// SPIs that are watched at most.
const WATCHED: usize = 4096;

struct Heard {
    first: Instant,
    last: Instant,
    asked: Option<Instant>,
}

/// What was heard, of whom.
#[derive(Default)]
pub(super) struct Foreign {
    heard: BTreeMap<(IpAddr, Spi), Heard>,
    questions: Allowance,
}

impl Foreign {
    /// A packet was dropped for its SPI. True if IKE should look into it now.
    pub fn note(&mut self, now: Instant, source: IpAddr, spi: Spi) -> bool {
        let name = (source, spi);
        if self.heard.len() >= WATCHED && !self.heard.contains_key(&name) {
            self.heard.retain(|_, heard| {
                let recent = now.since(heard.last) <= BREAK;
                recent || heard.asked.is_some_and(|at| now.since(at) < AGAIN)
            });
            if self.heard.len() >= WATCHED {
                return false;
            }
        }
        let heard = self.heard.entry(name).or_insert(Heard {
            first: now,
            last: now,
            asked: None,
        });
        if now.since(heard.last) > BREAK {
            heard.first = now;
        }
        heard.last = now;
        let lasting = now.since(heard.first) >= PATIENCE;
        let fresh = heard.asked.is_none_or(|at| now.since(at) >= AGAIN);
        let rested = self.questions.is_left(now, PAUSE * AT_ONCE);
        let due = lasting && fresh && rested;
        if due {
            heard.asked = Some(now);
            self.questions.spend(now, PAUSE);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn at(milliseconds: u64) -> Instant {
        Instant(milliseconds * 1_000_000)
    }

    #[test]
    fn an_spi_that_is_heard_for_long_is_asked_about_and_not_soon_again() {
        let mut foreign = Foreign::default();
        let asked = (0..1000u64).filter(|step| foreign.note(at(step * 100), PEER, Spi(7)));
        assert_eq!(asked.collect::<Vec<_>>(), [10, 310, 610, 910]);
    }

    #[test]
    fn stragglers_of_a_deleted_sa_are_not_asked_about() {
        let mut foreign = Foreign::default();
        assert!((0..10).all(|step| !foreign.note(at(step * 100), PEER, Spi(7))));
        // A break.
        assert!((0..10).all(|step| !foreign.note(at(5000 + step * 100), PEER, Spi(7))));
    }

    #[test]
    fn a_flood_of_forged_spis_costs_few_questions_and_bounded_memory() {
        let mut foreign = Foreign::default();
        let mut asked = 0;
        for step in 0..100u64 {
            for spi in 0..10_000 {
                asked += usize::from(foreign.note(at(step * 100), PEER, Spi(spi)));
            }
            assert!(foreign.heard.len() <= WATCHED);
        }
        let most = 1_000 + AT_ONCE as usize;
        assert!((1..=most).contains(&asked), "{asked}");
    }

    #[test]
    fn all_tunnels_of_a_cluster_that_was_split_are_asked_about_in_one_turn() {
        let mut foreign = Foreign::default();
        let mut asked = 0;
        for step in 0..=10u64 {
            for spi in 0..200 {
                asked += usize::from(foreign.note(at(step * 100), PEER, Spi(spi)));
            }
        }
        assert_eq!(asked, 200);
    }
}
