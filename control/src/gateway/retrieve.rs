//! SA_Retr by SPI: an SA that another member made while this one could not hear it.
//!
//! A member that led behind a partition and steps down keeps for a while what it led (the attic).
//! The active that hears ESP of an SPI that it does not know asks for it, at a bounded rate; what
//! comes is the IKE SA with its Child SAs and selectors. This member takes the IKE SA over and
//! replaces the Child SAs, to whose numbers it has no right (S5): the tunnel is back without
//! IKE_AUTH.
//!
//! The packets themselves are dropped, counted as `unknown_spi`, after a success as well. To deliver
//! one, this member would have to know that nobody has delivered or will deliver its number (S3). The
//! member that kept the copy knows the end of its own use, but what it answers gives no right
//! (`lease-holes` R18): it may be asked by one active and then by the next, and its answer may come late
//! or twice, so that two members would begin at the same end. A right that passes once is what the
//! Handover of R15 is for, which this does not have; and outbound the same holds for nonces (S1, S5).
//! What it costs is the packets until CREATE_CHILD_SA is through, a round trip to the peer.
//!
//! SPIs cannot collide, nor answer for one another: each member makes them with its own id as their
//! first octet (R2, RFC 6311 section 3.3; `ike/ids.rs`), and names that owner.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hitless_sa::{Entropy, IkeSpi, Instant, MemberId, SaId, Spi};
use hitless_sync::{Input as SyncInput, ObjectId};
use zeroize::Zeroizing;

use super::Gateway;

/// From one question to the next: a forger of SPIs costs no more.
const PAUSE: Duration = Duration::from_millis(100);
/// The same of one SPI.
const AGAIN: Duration = Duration::from_secs(5);
/// SPIs that are remembered as asked for.
const ASKED: usize = 64;
/// How long what was led is kept.
const KEPT: Duration = Duration::from_secs(300);
/// IKE SAs that are remembered as ended.
const ENDED: usize = 65_536;

type Body = Arc<Zeroizing<Vec<u8>>>;

/// See the module.
#[derive(Default)]
pub(super) struct Retrieval {
    asked: BTreeMap<Spi, Instant>,
    last: Option<Instant>,
    /// What this member led when it stepped down, by the SPIs that it received on.
    attic: BTreeMap<Spi, IkeSpi>,
    kept: BTreeMap<IkeSpi, (u64, Body)>,
    until: Instant,
    /// Child SAs that were taken over so and are not installed yet.
    pub rightless: BTreeSet<SaId>,
    /// IKE SAs that ended under this member of late, and when.
    ended: BTreeSet<IkeSpi>,
    endings: VecDeque<(Instant, IkeSpi)>,
    /// When the last one ended that there was no room to remember.
    forgot: Option<Instant>,
    pub counts: RetrievalCounts,
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct RetrievalCounts {
    pub asked: u64,
    pub answered: u64,
    pub adopted: u64,
    /// Of IKE SAs that this member leads as well, and that the other one had gone on with.
    pub overtaken: u64,
    /// Answers that were not asked for, or known already, or could not be read.
    pub refused: u64,
}

impl Retrieval {
    /// Whether to ask for an SPI now.
    fn due(&mut self, now: Instant, spi: Spi) -> bool {
        let rested = self.last.is_none_or(|last| now.since(last) >= PAUSE);
        self.asked.retain(|_, at| now.since(*at) < AGAIN);
        if !rested || self.asked.len() >= ASKED || self.asked.contains_key(&spi) {
            return false;
        }
        self.last = Some(now);
        self.asked.insert(spi, now);
        true
    }

    /// An IKE SA ended here. A copy that somebody kept is older than that: it would ask with
    /// Message IDs that were used (S4).
    pub fn ended(&mut self, now: Instant, ike: IkeSpi) {
        if !self.ended.insert(ike) {
            return;
        }
        self.endings.push_back((now, ike));
        if self.endings.len() > ENDED
            && let Some((at, oldest)) = self.endings.pop_front()
        {
            self.ended.remove(&oldest);
            self.forgot = Some(at);
        }
    }

    /// Whether an IKE SA has ended here of late: of too many nobody knows, so each may have.
    fn may_have_ended(&self, ike: IkeSpi) -> bool {
        self.forgot.is_some() || self.ended.contains(&ike)
    }

    /// What is kept is no longer of use.
    pub fn tend(&mut self, now: Instant) {
        let old = |(at, _): &mut (Instant, IkeSpi)| now.since(*at) >= KEPT * 2;
        while let Some((_, ike)) = self.endings.pop_front_if(old) {
            self.ended.remove(&ike);
        }
        self.forgot = self.forgot.filter(|at| now.since(*at) < KEPT * 2);
        if now >= self.until && !self.kept.is_empty() {
            self.attic.clear();
            self.kept.clear();
        }
    }
}

impl Gateway {
    /// A packet of an SPI that no worker knows, of some member's part of the space.
    pub(super) fn ask_for(&mut self, now: Instant, entropy: &mut dyn Entropy, spi: Spi) {
        if self.link.is_some() && self.retrieval.due(now, spi) {
            self.retrieval.counts.asked += 1;
            self.node.handle(now, entropy, SyncInput::Retrieve { spi });
        }
    }

    /// This member has stepped down without handing over: nobody else may have what it made alone.
    pub(super) fn keep_copies(&mut self, now: Instant) {
        self.retrieval.attic.clear();
        self.retrieval.kept.clear();
        self.retrieval.until = now + KEPT;
        let mut led = Vec::with_capacity(self.children.len());
        self.look_at_all(|carried| led.push((carried.child.id, carried.child.inbound_spi)));
        for (sa, spi) in led {
            self.beat();
            let Some(ike) = self.engine.ike_of(sa) else {
                continue;
            };
            if let Some(copy) = self.node.copy(ObjectId(ike.0)) {
                self.retrieval.attic.insert(spi, ike);
                self.retrieval.kept.insert(ike, copy);
            }
        }
    }

    /// The active asks whose an SPI is.
    pub(super) fn answer_for(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        to: MemberId,
        spi: Spi,
    ) {
        let ike = self.retrieval.attic.get(&spi);
        let Some((ike, (version, body))) =
            ike.and_then(|ike| Some((*ike, self.retrieval.kept.get(ike)?.clone())))
        else {
            return;
        };
        self.retrieval.counts.answered += 1;
        let input = SyncInput::Retrieved {
            to,
            object: ObjectId(ike.0),
            version,
            body: &body,
        };
        self.node.handle(now, entropy, input);
    }

    /// A member has kept what was asked for.
    pub(super) fn adopt(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        ike: IkeSpi,
        version: u64,
        body: &[u8],
    ) {
        let ended = self.retrieval.may_have_ended(ike) || self.engine.buried(ike);
        if ended || !self.dataplane.leading() || self.handing_over {
            self.retrieval.counts.refused += 1;
            return;
        }
        if self.engine.facts(ike).is_some() {
            // Both have led it: this one goes on with it, behind what the other one did.
            let asked = |spi: Spi| self.retrieval.asked.contains_key(&spi);
            let copy = (ike, version, body);
            match self.engine.overtaken(now, entropy, copy, &asked) {
                true => self.retrieval.counts.overtaken += 1,
                false => self.retrieval.counts.refused += 1,
            }
            return;
        }
        let stored = self.engine.store(now, ike, version, body).is_ok();
        let children = self.engine.child_sas(ike);
        let wanted = |spi: &Spi| children.iter().any(|child| child.inbound_spi == *spi);
        // One that was rekeyed alone may show Child SAs that this member has: those stay as they are.
        let shared = children
            .iter()
            .any(|child| self.engine.leads_child(child.id));
        if !stored || shared || !self.retrieval.asked.keys().any(wanted) {
            self.engine.forget(ike);
            self.retrieval.counts.refused += 1;
            return;
        }
        self.retrieval.counts.adopted += 1;
        self.retrieval
            .rightless
            .extend(children.iter().map(|child| child.id));
        self.engine.adopt(now, entropy, ike);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc7296_section_2_2_what_ended_here_is_remembered_longer_than_any_copy_is_kept() {
        let mut retrieval = Retrieval::default();
        let start = Instant(1_000_000_000);
        retrieval.ended(start, IkeSpi(1));
        retrieval.ended(start + KEPT, IkeSpi(2));
        retrieval.tend(start + KEPT);
        assert!(retrieval.ended.contains(&IkeSpi(1)));
        retrieval.tend(start + KEPT * 2);
        assert_eq!(retrieval.ended, BTreeSet::from([IkeSpi(2)]));
        retrieval.tend(start + KEPT * 3);
        assert!(retrieval.ended.is_empty() && retrieval.endings.is_empty());
    }

    #[test]
    fn of_more_endings_than_are_remembered_each_counts_as_one_until_copies_of_it_are_gone() {
        let mut retrieval = Retrieval::default();
        let start = Instant(1_000_000_000);
        for ike in 0..ENDED as u64 {
            retrieval.ended(start, IkeSpi(ike));
        }
        assert!(!retrieval.may_have_ended(IkeSpi(u64::MAX)));
        retrieval.ended(start + KEPT, IkeSpi(ENDED as u64));
        assert_eq!(retrieval.endings.len(), ENDED);
        assert_eq!(retrieval.ended.len(), ENDED);
        for ike in [IkeSpi(0), IkeSpi(u64::MAX)] {
            assert!(retrieval.may_have_ended(ike));
        }
        // The forgotten one is so old that nobody has a copy.
        retrieval.tend(start + KEPT * 2);
        assert!(!retrieval.may_have_ended(IkeSpi(0)));
        assert!(retrieval.may_have_ended(IkeSpi(ENDED as u64)));
    }

    #[test]
    fn a_flood_of_unknown_spis_costs_ten_questions_a_second_and_each_is_asked_for_once() {
        let mut retrieval = Retrieval::default();
        let at = |ms: u64| Instant(1_000_000_000 + ms * 1_000_000);
        let asked = (0..10_000u64).filter(|n| retrieval.due(at(n / 10), Spi(*n as u32)));
        assert_eq!(asked.count(), 10);
        let again = (0..10_000u64).filter(|n| retrieval.due(at(20_000 + n), Spi(7)));
        assert_eq!(again.count(), 2);
    }
}
