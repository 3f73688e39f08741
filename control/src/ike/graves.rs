//! Graves: what is left of an IKE SA that the peer deleted, for the peer whose copy of our answer
//! was lost.
//!
//! The response to a Delete is an output like any other: the peer repeats its request until it has
//! it (RFC 7296 section 2.1), and a successor that has never heard of the IKE SA could not give the
//! same octets (invariant S4). So a deletion leaves a grave in the place of the record: a digest of
//! the request and the response, no key. It is replicated and committed as the IKE SA was, takes
//! nothing of any Child SA with it, and is gone after a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_lc_rs::digest;
use hitless_sa::{IkeSpi, Instant};

use super::engine::Engine;
use super::output::{Commit, Output, Transmit};
use super::work::{self, Share};
use super::{export, nat::Path};

/// strongSwan gives a request up after 165 s, but its sixth transmission comes at 76 s and the
/// fifth at 42: who has lost five has lost the peer.
pub(super) const LIFE: Duration = Duration::from_secs(60);
/// Kept at most; the oldest goes first.
const ROOM: usize = 8192;

/// A response that ended an IKE SA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Grave {
    /// SHA-256 of the request, or of the part of it that completed it.
    pub request: Vec<u8>,
    pub version: u64,
    /// In the order of sending.
    pub responses: Vec<Transmit>,
    pub until: Instant,
}

impl Grave {
    pub fn new(now: Instant, request: &[u8], version: u64, responses: Vec<Transmit>) -> Grave {
        Grave {
            request: fingerprint(request),
            version,
            responses,
            until: now + LIFE,
        }
    }

    /// Whether a request is the one that was answered: bit by bit, as RFC 7296 section 2.1 has it.
    fn answers(&self, request: &[u8]) -> bool {
        self.request == fingerprint(request)
    }
}

fn fingerprint(request: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, request).as_ref().to_vec()
}

/// All graves of a member, led or stored, by our SPI.
#[derive(Default)]
pub(super) struct Graves {
    graves: BTreeMap<IkeSpi, Grave>,
    order: BTreeSet<(Instant, IkeSpi)>,
}

impl Graves {
    /// Adds one; gives the one that had to make room.
    pub fn insert(&mut self, spi: IkeSpi, grave: Grave) -> Option<(IkeSpi, Grave)> {
        self.remove(spi);
        self.order.insert((grave.until, spi));
        self.graves.insert(spi, grave);
        if self.graves.len() <= ROOM {
            return None;
        }
        let (_, oldest) = self.order.first().copied()?;
        Some((oldest, self.remove(oldest)?))
    }

    pub fn remove(&mut self, spi: IkeSpi) -> Option<Grave> {
        let grave = self.graves.remove(&spi)?;
        self.order.remove(&(grave.until, spi));
        Some(grave)
    }

    pub fn contains(&self, spi: IkeSpi) -> bool {
        self.graves.contains_key(&spi)
    }

    pub fn get(&self, spi: IkeSpi) -> Option<&Grave> {
        self.graves.get(&spi)
    }

    pub fn clear(&mut self) {
        self.graves.clear();
        self.order.clear();
    }

    pub fn first(&self) -> Option<Instant> {
        self.order.first().map(|(until, _)| *until)
    }

    /// One whose time is over.
    pub fn due(&mut self, now: Instant) -> Option<(IkeSpi, Grave)> {
        let (until, spi) = self.order.first().copied()?;
        let grave = (until <= now).then(|| self.remove(spi))??;
        Some((spi, grave))
    }
}

impl Engine {
    /// The peer's request that just came has ended an IKE SA: its answer is kept, here and on the
    /// standby.
    pub(super) fn bury(&mut self, now: Instant, spi: IkeSpi, request: &[u8]) {
        if self.sas.contains_key(&spi) {
            return;
        }
        let commits = self.outputs.iter_mut().rev();
        let mut commits = commits.filter_map(|output| match output {
            Output::Commit(commit) if commit.ike == spi => Some(commit),
            _ => None,
        });
        let ended = commits.next().filter(|commit| commit.record.is_none());
        let Some(commit) = ended.filter(|commit| !commit.transmits.is_empty()) else {
            return;
        };
        let grave = Grave::new(now, request, commit.version, commit.transmits.clone());
        commit.record = Some(export::grave::export(spi, &grave, now));
        if let Some((oldest, grave)) = self.graves.insert(spi, grave) {
            self.level(oldest, &grave);
        }
    }

    /// The grave is there no more.
    fn level(&mut self, ike: IkeSpi, grave: &Grave) {
        self.outputs.push_back(Output::Commit(Commit {
            ike,
            version: grave.version + 1,
            record: None,
            transmits: Vec::new(),
            changes: Vec::new(),
        }));
    }

    /// Graves whose time is over.
    pub(super) fn level_graves(&mut self, now: Instant, share: &Share) {
        while !share.is_spent()
            && let Some((spi, grave)) = self.graves.due(now)
        {
            work::count(1);
            self.level(spi, &grave);
        }
    }

    /// A message for an IKE SA that is no more: the answer again, if it is the request again.
    pub(super) fn exhume(&mut self, path: Path, ours: IkeSpi, request: &[u8]) {
        let grave = self.graves.get(ours).filter(|grave| grave.answers(request));
        let Some(grave) = grave else {
            return self.dropped(path, "unknown IKE SA");
        };
        let again = grave.responses.iter().map(|transmit| Output::Retransmit {
            ike: ours,
            version: grave.version,
            transmit: transmit.clone(),
        });
        self.outputs.extend(again);
    }

    /// Whether an IKE SA of that SPI has ended, and its answer is kept.
    pub fn buried(&self, ike: IkeSpi) -> bool {
        self.graves.contains(ike)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grave(now: Instant) -> Grave {
        Grave::new(now, b"request", 3, Vec::new())
    }

    #[test]
    fn the_oldest_grave_makes_room() {
        let mut graves = Graves::default();
        for n in 0..ROOM as u64 {
            // Not in the order of their names.
            let spi = IkeSpi(n ^ 0x55);
            assert_eq!(graves.insert(spi, grave(Instant(n))), None);
        }
        let (spi, _) = graves
            .insert(IkeSpi(u64::MAX), grave(Instant(1 << 40)))
            .unwrap();
        assert_eq!(spi, IkeSpi(0x55));
        assert_eq!(graves.graves.len(), ROOM);
        assert_eq!(graves.graves.len(), graves.order.len());
    }

    #[test]
    fn a_grave_answers_the_same_octets_for_a_minute_rfc7296_2_1() {
        let mut graves = Graves::default();
        graves.insert(IkeSpi(7), grave(Instant(5)));
        assert!(graves.get(IkeSpi(7)).unwrap().answers(b"request"));
        assert!(!graves.get(IkeSpi(7)).unwrap().answers(b"requesT"));
        assert_eq!(graves.due(Instant(4) + LIFE), None);
        assert_eq!(graves.first(), Some(Instant(5) + LIFE));
        assert_eq!(graves.due(Instant(5) + LIFE).unwrap().0, IkeSpi(7));
        assert_eq!(graves.first(), None);
    }
}
