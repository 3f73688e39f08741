//! IKE SAs that a new leader has taken over and not gone on with yet.
//!
//! A takeover of tens of thousands of IKE SAs must let the first packets flow at once, whatever their
//! number is: so the engine leads all of them from the start, and goes on with each (`IkeSa::resume`:
//! its timers, its first commit, its Child SAs for the workers) when anything concerns it, or when
//! its turn has come, a few at a time. What everything else asks for - which IKE SAs there are, of
//! which peer, with which Child SAs - is kept while they are still another member's.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use hitless_sa::{ChildSa, Entropy, IkeSpi, Instant, SaId, Spi};

use super::engine::Engine;
use super::established::IkeSa;
use super::index::Index;
use super::output::{Commit, Event, Output, Resume};
use super::takeover;
use super::turn::Turn;

/// So many are gone on with at once, if it is known how: a takeover of few needs no turns.
const AT_ONCE: usize = 256;

/// What is kept of stored IKE SAs, and how to go on with those that wait. All of it is kept up while
/// they are another member's, so that leading them takes no look at each.
#[derive(Default)]
pub(super) struct Resuming {
    /// The index of the stored ones, for the time when they are led.
    index: Index,
    /// By the SPI that the peer sends to.
    spis: BTreeMap<Spi, IkeSpi>,
    /// Those that came out of an exchange of another one, behind that one's SPI.
    heirs: BTreeSet<(IkeSpi, IkeSpi)>,
    /// Those of which there are heirs here, or were.
    ancestors: BTreeSet<IkeSpi>,
    planned: BTreeMap<IkeSpi, Resume>,
    /// Message IDs are exact, of those that nothing is planned for.
    exact: bool,
    waiting: usize,
    /// The last one whose turn has come.
    looked: Option<IkeSpi>,
}

impl Resuming {
    /// An IKE SA of another member is stored; whether the one whose exchange made it is, too.
    pub fn stored(&mut self, ike: &IkeSa, ancestor_is_here: bool) {
        let spi = ike.local_spi;
        self.index.insert(ike);
        self.show(ike);
        if let Some(old) = ike.predecessor {
            self.heirs.insert((old, spi));
            if ancestor_is_here {
                self.ancestors.insert(old);
            }
        }
        if self.heirs_of(spi).next().is_some() {
            self.ancestors.insert(spi);
        }
    }

    fn show(&mut self, ike: &IkeSa) {
        for child in &ike.children {
            self.index.insert_child(child.sa.id, ike.local_spi);
            self.spis.insert(child.sa.inbound_spi, ike.local_spi);
        }
    }

    fn heirs_of(&self, old: IkeSpi) -> impl Iterator<Item = IkeSpi> + '_ {
        let heirs = self.heirs.range((old, IkeSpi(0))..=(old, IkeSpi(u64::MAX)));
        heirs.map(|(_, heir)| *heir)
    }

    /// It is stored no more.
    pub fn forgotten(&mut self, ike: &IkeSa) {
        let spi = ike.local_spi;
        self.index.remove(ike);
        for child in &ike.children {
            if self.index.of_child(child.sa.id) == Some(spi) {
                self.index.remove_child(child.sa.id);
            }
            if self.spis.get(&child.sa.inbound_spi) == Some(&spi) {
                self.spis.remove(&child.sa.inbound_spi);
            }
        }
        if let Some(old) = ike.predecessor {
            self.heirs.remove(&(old, spi));
        }
        self.ancestors.remove(&spi);
    }
}

impl Engine {
    /// Keeps an IKE SA that another member leads.
    pub(super) fn keep(&mut self, mut ike: Box<IkeSa>) {
        ike.waiting = true;
        let old = ike.predecessor;
        let ancestor = old.is_some_and(|old| self.passive.contains_key(&old));
        self.resuming.stored(&ike, ancestor);
        // Whoever else leads gives them to nobody else.
        self.ids.leases.hold(&ike);
        self.passive.insert(ike.local_spi, ike);
    }

    /// Keeps it no more.
    pub(super) fn drop_kept(&mut self, spi: IkeSpi) -> Option<Box<IkeSa>> {
        let ike = self.passive.remove(&spi)?;
        self.resuming.forgotten(&ike);
        self.ids.leases.release(&ike);
        // Its record may have shown what its heirs have.
        for heir in self.resuming.heirs_of(spi).collect::<Vec<_>>() {
            if let Some(heir) = self.passive.get(&heir) {
                self.resuming.show(heir);
            }
        }
        Some(ike)
    }

    /// Leads what is kept. A successor that no exchange acknowledges is dropped and given back, if the
    /// exchange will make it again: the record of the one that it comes of may also be from long before.
    /// What a successor has inherited, its predecessor's older record may still show.
    fn take_over(&mut self) -> Vec<IkeSa> {
        let mut discarded = Vec::new();
        for old in std::mem::take(&mut self.resuming.ancestors) {
            let Some(ancestor) = self.passive.get(&old) else {
                continue;
            };
            let heirs = self.resuming.heirs_of(old);
            let to_come = |heir: &IkeSpi| {
                let heir = self.passive.get(heir);
                heir.is_some_and(|heir| ancestor.is_yet_to_make(heir))
            };
            let heirs: Vec<(IkeSpi, bool)> = heirs.map(|heir| (heir, to_come(&heir))).collect();
            for (heir, to_come) in heirs {
                if to_come {
                    discarded.extend(self.drop_kept(heir).map(|ike| *ike));
                    continue;
                }
                let Some(heir) = self.passive.get(&heir) else {
                    continue;
                };
                self.resuming.show(heir);
                let inherited: Vec<SaId> = heir.children.iter().map(|c| c.sa.id).collect();
                if let Some(ancestor) = self.passive.get_mut(&old) {
                    ancestor.children.retain(|c| !inherited.contains(&c.sa.id));
                }
            }
        }
        self.index = std::mem::take(&mut self.resuming.index);
        self.resuming.heirs.clear();
        self.sas = std::mem::take(&mut self.passive);
        self.resuming.waiting = self.sas.len();
        self.resuming.looked = None;
        discarded
    }

    /// How to go on with an IKE SA that is stored, or led and waits. False if it does not wait any
    /// more, or never did.
    pub fn plan(&mut self, spi: IkeSpi, how: Resume) -> bool {
        let waits = self.find(spi).is_some_and(|ike| ike.waiting);
        if waits {
            self.resuming.planned.insert(spi, how);
        }
        waits
    }

    /// Leads: every stored IKE SA becomes ours, resumed as planned, or else as is safe if all Message
    /// IDs are exact or not.
    pub fn lead_planned(&mut self, now: Instant, entropy: &mut dyn Entropy, exact: bool) {
        self.leading = true;
        let discarded = self.take_over();
        self.resuming.exact = exact;
        if self.waiting() <= AT_ONCE.min(self.resuming.planned.len()) {
            self.resume_some(now, entropy, AT_ONCE);
        }
        // Their predecessors come first: they are recorded with the Child SAs that these show too,
        // which would otherwise go with them.
        for old in discarded.iter().filter_map(|ike| ike.predecessor) {
            self.go_on_with(now, entropy, old);
        }
        for ike in discarded {
            let version = ike.version + 1;
            self.discarded.insert(ike.local_spi, version);
            self.outputs.push_back(Output::Commit(Commit {
                ike: ike.local_spi,
                version,
                record: None,
                transmits: Vec::new(),
                changes: Vec::new(),
            }));
        }
        self.start_all(now, entropy);
    }

    /// Leads one more, stored just now, besides those that are led; it waits as they do or did.
    pub fn take_in(&mut self, spi: IkeSpi) {
        let Some(mut ike) = self.drop_kept(spi) else {
            return;
        };
        // A record from long before may show what a successor has by now. That one has it, unless the
        // other one has been gone on with.
        let ancestor = ike.predecessor.and_then(|old| self.sas.get_mut(&old));
        let ancestor = ancestor.filter(|old| old.waiting && !old.is_yet_to_make(&ike));
        if let Some(old) = ancestor {
            old.children
                .retain(|child| ike.child(child.sa.id).is_none());
        }
        let carried = |sa| {
            let owner = self.index.of_child(sa).filter(|owner| *owner != spi);
            let owner = owner.and_then(|owner| self.sas.get(&owner));
            owner.is_some_and(|owner| owner.child(sa).is_some())
        };
        ike.children.retain(|child| !carried(child.sa.id));
        self.ids.leases.hold(&ike);
        self.index.insert(&ike);
        for child in &ike.children {
            self.index.insert_child(child.sa.id, spi);
            self.resuming.spis.insert(child.sa.inbound_spi, spi);
        }
        self.sas.insert(spi, ike);
        self.resuming.waiting += 1;
    }

    /// The same, and asks its peer where it stands.
    pub fn adopt(&mut self, now: Instant, entropy: &mut dyn Entropy, spi: IkeSpi) {
        self.take_in(spi);
        self.plan(spi, Resume::Probe);
        self.go_on_with(now, entropy, spi);
    }

    /// Whether an IKE SA that is led has this Child SA.
    pub fn leads_child(&self, sa: SaId) -> bool {
        self.index.of_child(sa).is_some()
    }

    /// Goes on with so many of the IKE SAs that wait; gives how many are left.
    pub fn resume_some(&mut self, now: Instant, entropy: &mut dyn Entropy, count: usize) -> usize {
        for spi in self.next_waiting(count) {
            self.go_on_with(now, entropy, spi);
        }
        self.waiting()
    }

    /// So many of those that wait.
    pub fn next_waiting(&mut self, count: usize) -> Vec<IkeSpi> {
        if self.waiting() == 0 {
            return Vec::new();
        }
        let behind = self
            .resuming
            .looked
            .map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.sas.range((behind, Bound::Unbounded));
        let waiting = later.filter(|(_, ike)| ike.waiting).map(|(spi, _)| *spi);
        let next: Vec<IkeSpi> = waiting.take(count).collect();
        self.resuming.looked = next.last().copied();
        next
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.resuming.waiting
    }

    /// Whether one waits.
    pub fn waits(&self, spi: IkeSpi) -> bool {
        self.sas.get(&spi).is_some_and(|ike| ike.waiting)
    }

    /// The Child SA that a peer sends to on this SPI, if it was stored when the takeover began and
    /// others still wait.
    pub fn child_stored_at(&self, spi: Spi) -> Option<SaId> {
        let ike = self.find(*self.resuming.spis.get(&spi)?)?;
        let child = ike.children.iter().find(|c| c.sa.inbound_spi == spi)?;
        Some(child.sa.id)
    }

    /// The Child SAs that an IKE SA sends on.
    pub fn sending_children(&self, spi: IkeSpi) -> impl Iterator<Item = &Arc<ChildSa>> {
        let children = self.find(spi).into_iter().flat_map(|ike| &ike.children);
        children
            .filter(|child| child.sending)
            .map(|child| &child.sa)
    }

    /// Those of all that are stored, or led and wait, with their connections' and their own names.
    pub fn waiting_children(&self) -> impl Iterator<Item = (&str, &str, &Arc<ChildSa>)> {
        let led = self.sas.values().filter(|ike| ike.waiting);
        let led = led.take(self.waiting());
        let all = self.passive.values().chain(led);
        all.flat_map(|ike| {
            let sending = ike.children.iter().filter(|child| child.sending);
            sending.map(|child| (ike.connection.name.as_str(), child.name.as_str(), &child.sa))
        })
    }

    /// The IKE SA that waits and of which a peer sends on this SPI.
    pub fn waiting_at(&self, spi: Spi) -> Option<IkeSpi> {
        let ike = self.resuming.spis.get(&spi).copied()?;
        self.waits(ike).then_some(ike)
    }

    /// The peer sends on an SPI of an IKE SA that waits: that one is next. False if there is none.
    pub fn resume_spi(&mut self, now: Instant, entropy: &mut dyn Entropy, spi: Spi) -> bool {
        let waiting = self.waiting_at(spi);
        waiting.is_some_and(|ike| self.go_on_with(now, entropy, ike))
    }

    /// Goes on with one if it waits.
    pub fn go_on_with(&mut self, now: Instant, entropy: &mut dyn Entropy, spi: IkeSpi) -> bool {
        let Some(ike) = self.sas.get_mut(&spi).filter(|ike| ike.waiting) else {
            return false;
        };
        ike.waiting = false;
        let exact = self.resuming.exact;
        let planned = self.resuming.planned.remove(&spi);
        let how = planned
            .unwrap_or_else(|| takeover::resume(ike.connection.takeover, exact, ike.facts(), None));
        self.resuming.waiting -= 1;
        if self.resuming.waiting == 0 {
            self.resuming = Resuming::default();
        }
        // The predecessor's files may be lost with it.
        if self.settings.key_log
            && let Some(lines) = self.key_lines(spi)
        {
            self.outputs.push_back(Output::Event(Event::Keys(lines)));
        }
        self.resume(now, entropy, spi, how);
        true
    }

    fn resume(&mut self, now: Instant, entropy: &mut dyn Entropy, spi: IkeSpi, how: Resume) {
        let Some(mut ike) = self.sas.remove(&spi) else {
            return;
        };
        let at_once = self.asks_at_once(now, &ike, how);
        let mut turn = Turn::new(now, entropy, &self.settings, &mut self.ids);
        let connection = self.by_name.get(&ike.connection.name);
        ike.resume(&mut turn, (how, at_once), connection);
        let results = turn.finish();
        self.settle(now, entropy, ike, results);
        if at_once {
            self.note_begun(now, spi);
        }
    }
}
