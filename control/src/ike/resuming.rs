//! IKE SAs that a new leader has taken over and not gone on with yet.
//!
//! A takeover of tens of thousands of IKE SAs must let the first packets flow at once, whatever their
//! number is: so the engine leads all of them from the start, and goes on with each (`IkeSa::resume`:
//! its timers, its first commit, its Child SAs for the workers) when anything concerns it, or when
//! its turn has come, a few at a time. What everything else asks for - which IKE SAs there are, of
//! which peer, with which Child SAs - is kept while they are still another member's.

use std::collections::BTreeMap;

use hitless_sa::{Entropy, IkeSpi, Instant, SaId, Spi};

use super::engine::Engine;
use super::established::IkeSa;
use super::index::Index;
use super::output::Resume;
use super::turn::Turn;

/// So many are gone on with at once: a takeover of few needs no turns.
const AT_ONCE: usize = 256;

/// What is kept of stored IKE SAs, and how to go on with those that wait.
#[derive(Default)]
pub(super) struct Resuming {
    /// The index of the stored ones, for the time when they are led.
    index: Index,
    /// By the SPI that the peer sends to.
    spis: BTreeMap<Spi, IkeSpi>,
    waiting: BTreeMap<IkeSpi, Resume>,
}

impl Resuming {
    /// An IKE SA of another member is stored.
    pub fn stored(&mut self, ike: &IkeSa) {
        self.index.insert(ike);
        for child in &ike.children {
            self.index.insert_child(child.sa.id, ike.local_spi);
            self.spis.insert(child.sa.inbound_spi, ike.local_spi);
        }
    }

    /// It is stored no more.
    pub fn forgotten(&mut self, ike: &IkeSa) {
        self.index.remove(ike);
        for child in &ike.children {
            if self.index.of_child(child.sa.id) == Some(ike.local_spi) {
                self.index.remove_child(child.sa.id);
            }
            if self.spis.get(&child.sa.inbound_spi) == Some(&ike.local_spi) {
                self.spis.remove(&child.sa.inbound_spi);
            }
        }
    }

    /// How to go on with one that waits; it waits no more.
    pub fn take(&mut self, ike: IkeSpi) -> Option<Resume> {
        self.waiting.remove(&ike)
    }
}

impl Engine {
    /// Leads what was stored. `plan` says how to go on with each.
    pub(super) fn take_over(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        kept: Vec<IkeSa>,
        plan: &mut dyn FnMut(IkeSpi) -> Resume,
    ) {
        self.index = std::mem::take(&mut self.resuming.index);
        for ike in &kept {
            self.ids.leases.hold(ike);
            // The record of its predecessor may still show what it has inherited.
            for child in ike.children.iter().filter(|_| ike.predecessor.is_some()) {
                self.index.insert_child(child.sa.id, ike.local_spi);
            }
        }
        let spis: Vec<IkeSpi> = kept.iter().map(|ike| ike.local_spi).collect();
        self.sas = kept.into_iter().map(|ike| (ike.local_spi, ike)).collect();
        let waiting = spis.into_iter().map(|spi| (spi, plan(spi)));
        self.resuming.waiting = waiting.collect();
        if self.resuming.waiting.len() <= AT_ONCE {
            self.resume_some(now, entropy, AT_ONCE);
        }
    }

    /// Leads one more, stored just now, besides those that are led: its peer is asked where it stands.
    pub fn adopt(&mut self, now: Instant, entropy: &mut dyn Entropy, spi: IkeSpi) {
        let Some(ike) = self.passive.remove(&spi) else {
            return;
        };
        self.resuming.forgotten(&ike);
        self.ids.leases.hold(&ike);
        self.index.insert(&ike);
        for child in &ike.children {
            self.index.insert_child(child.sa.id, spi);
        }
        self.sas.insert(spi, ike);
        self.resume(now, entropy, spi, Resume::Probe);
    }

    /// Whether an IKE SA that is led has this Child SA.
    pub fn leads_child(&self, sa: SaId) -> bool {
        self.index.of_child(sa).is_some()
    }

    /// Goes on with so many of the IKE SAs that wait; gives how many are left.
    pub fn resume_some(&mut self, now: Instant, entropy: &mut dyn Entropy, count: usize) -> usize {
        for _ in 0..count {
            let Some((spi, how)) = self.resuming.waiting.pop_first() else {
                self.resuming.spis.clear();
                return 0;
            };
            self.resume(now, entropy, spi, how);
        }
        self.waiting()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.resuming.waiting.len()
    }

    /// The peer sends on an SPI of an IKE SA that waits: that one is next. False if there is none.
    pub fn resume_spi(&mut self, now: Instant, entropy: &mut dyn Entropy, spi: Spi) -> bool {
        let Some(ike) = self.resuming.spis.get(&spi).copied() else {
            return false;
        };
        let Some(how) = self.resuming.take(ike) else {
            return false;
        };
        self.resume(now, entropy, ike, how);
        true
    }

    pub(super) fn resume(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        spi: IkeSpi,
        how: Resume,
    ) {
        let Some(mut ike) = self.sas.remove(&spi) else {
            return;
        };
        let mut turn = Turn::new(now, entropy, &self.settings, &mut self.ids);
        ike.resume(&mut turn, how);
        let results = turn.finish();
        self.settle(now, entropy, ike, results);
    }
}
