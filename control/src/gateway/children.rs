//! The Child SAs that the dataplane carries: their cells and their slots.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use hitless_dataplane::cell::Cell;
use hitless_dataplane::checkpoint::Checkpoint as Published;
use hitless_dataplane::counters::SaCounters;
use hitless_dataplane::replay::AntiReplay;
use hitless_sa::{ChildSa, Instant, SaId, SequenceNumber};
use hitless_sync::{Checkpoint, Usage};

use super::kin::Kin;
use super::silence::Silence;

/// How often IKE is told that a peer lives: it counts in seconds.
const TELL_IKE: Duration = Duration::from_millis(100);

/// Packets that the network still holds are younger than this.
const LATELY: Duration = Duration::from_secs(2);

/// A half of a Child SA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Direction {
    In,
    Out,
}

/// One Child SA in the dataplane.
pub struct Carried {
    pub child: Arc<ChildSa>,
    /// The lease of this leadership. A fresh cell for every SA and leadership, never reset.
    pub cell: Arc<Cell>,
    /// Index in the workers' checkpoint tables.
    pub slot: u32,
    /// `connections.<connection>.children.<name>`.
    pub connection: String,
    pub name: String,
    /// Whether outbound traffic uses it.
    pub send: bool,
    /// Where the cell stood at the last scan.
    seen_cursor: SequenceNumber,
    pub seen_top: SequenceNumber,
    /// When IKE was last told that the peer lives.
    told: Option<Instant>,
    /// Numbers that the peer should skip after a takeover, until it was asked to (RFC 6311).
    pub delta: u64,
    /// Whether a packet was refused since the takeover, for being below the floor.
    pub refused: bool,
    /// The one worker that has the receiving half, and its window; with `shared` one of them.
    pub home: usize,
    /// The worker that the receiving half is on its way to.
    pub moving: Option<usize>,
    /// When it moved last.
    pub moved_at: Option<Instant>,
    /// The window, if several workers receive and share it.
    pub shared: Option<AntiReplay>,
    /// The lowest outbound number of this leadership.
    pub began: SequenceNumber,
    /// What each worker published last.
    published: BTreeMap<usize, Checkpoint>,
    /// What each half that a worker has or had counts; they outlive the half, and are its again if
    /// it comes back.
    tallies: BTreeMap<(usize, Direction), Arc<SaCounters>>,
    /// What it carried under other leaders.
    before: Checkpoint,
    /// The totals when the last checkpoint came.
    counted: Checkpoint,
    /// When each direction last moved.
    pub used_in: Option<Instant>,
    pub used_out: Option<Instant>,
    pub silence: Silence,
    /// Rises with each SA that is installed.
    order: u64,
}

impl Carried {
    /// An SA in a new leadership, not used yet.
    pub fn new(
        child: Arc<ChildSa>,
        cell: Arc<Cell>,
        slot: u32,
        names: (String, String),
        floor: SequenceNumber,
        home: usize,
    ) -> Carried {
        Carried {
            child,
            began: cell.cursor(),
            cell,
            slot,
            connection: names.0,
            name: names.1,
            send: false,
            seen_cursor: SequenceNumber(0),
            seen_top: floor,
            told: None,
            delta: 0,
            refused: false,
            home,
            moving: None,
            moved_at: None,
            shared: None,
            published: BTreeMap::new(),
            tallies: BTreeMap::new(),
            before: Checkpoint::default(),
            counted: Checkpoint::default(),
            used_in: None,
            used_out: None,
            silence: Silence::new(false),
            order: 0,
        }
    }

    /// Goes on counting where another leader was.
    pub fn inherit(&mut self, before: Checkpoint) {
        self.before = Checkpoint {
            packets_in: before.packets_in,
            bytes_in: before.bytes_in,
            packets_out: before.packets_out,
            bytes_out: before.bytes_out,
            ..Checkpoint::default()
        };
        self.counted = self.before;
    }

    /// Whether it is an SA of the same child for the same selectors and the same worker.
    fn same_traffic(&self, other: &Carried) -> bool {
        self.connection == other.connection
            && self.name == other.name
            && self.child.local_ts == other.child.local_ts
            && self.child.remote_ts == other.child.remote_ts
            && self.child.options.resource == other.child.options.resource
    }

    /// Where the cell stands, if that is news to the sync protocol: it moved, or it waits for more.
    pub fn usage(&mut self) -> Option<Usage> {
        let (cursor, inbound_top) = (self.cell.cursor(), self.cell.inbound_top());
        let moved = cursor != self.seen_cursor || inbound_top > self.seen_top;
        let waits = self.cell.remaining() == 0 || inbound_top >= self.cell.high_water();
        self.seen_cursor = cursor;
        (moved || waits).then_some(Usage {
            sa: self.child.id,
            cursor,
            inbound_top,
            esn: self.child.esn,
        })
    }

    /// Whether the peer sends on it these days, so that packets of its may be under way.
    pub fn receives(&self, now: Instant) -> bool {
        let lately = self.used_in.is_none_or(|at| now.since(at) <= LATELY);
        self.cell.inbound_top().0 > 0 && lately
    }

    /// Whether IKE should hear that the peer has sent something.
    pub fn heard(&mut self, now: Instant) -> bool {
        let inbound_top = self.cell.inbound_top();
        let due = self.told.is_none_or(|told| now.since(told) >= TELL_IKE);
        let heard = inbound_top > self.seen_top && due;
        if heard {
            self.told = Some(now);
        }
        self.seen_top = self.seen_top.max(inbound_top);
        heard
    }

    /// Remembers what a worker published; gives the checkpoint of the SA as a whole.
    pub fn note(&mut self, now: Instant, worker: usize, published: Published) -> Checkpoint {
        let checkpoint = Checkpoint {
            outbound_next: published.outbound_next,
            inbound_top: published.inbound_top,
            ..Checkpoint::default()
        };
        self.published.insert(worker, checkpoint);
        let (before, after) = (self.counted, self.counters());
        if after.packets_in > before.packets_in {
            self.used_in = Some(now);
        }
        if after.packets_out > before.packets_out {
            self.used_out = Some(now);
        }
        self.counted = after;
        after
    }

    /// The counters for a half on a worker: always the same ones.
    pub fn tally(&mut self, worker: usize, direction: Direction) -> Arc<SaCounters> {
        Arc::clone(self.tallies.entry((worker, direction)).or_default())
    }

    /// What each half counts, by worker.
    pub fn tallies(&self) -> impl Iterator<Item = (usize, Direction, &SaCounters)> {
        let tallies = self.tallies.iter();
        tallies.map(|((worker, direction), counters)| (*worker, *direction, counters.as_ref()))
    }

    /// Every worker counts its own packets; numbers are the SA's. Lifetimes go by these totals, so
    /// they go on where those of the last leader were when its last checkpoint left.
    pub fn counters(&self) -> Checkpoint {
        let mut sum = self.before;
        for one in self.published.values() {
            sum.outbound_next = sum.outbound_next.max(one.outbound_next);
            sum.inbound_top = sum.inbound_top.max(one.inbound_top);
        }
        for (_, direction, counters) in self.tallies() {
            let (packets, bytes) = match direction {
                Direction::In => (&mut sum.packets_in, &mut sum.bytes_in),
                Direction::Out => (&mut sum.packets_out, &mut sum.bytes_out),
            };
            *packets += counters.packets();
            *bytes += counters.bytes();
        }
        sum
    }
}

/// What it means that an SA sends from now on.
#[derive(Default)]
pub struct Chosen {
    /// There is no other one of the same child and the same selectors.
    pub alone: bool,
    /// Those of them that sent until now.
    pub former: Vec<SaId>,
}

/// All Child SAs in the dataplane.
#[derive(Default)]
pub struct Children {
    carried: BTreeMap<SaId, Carried>,
    kin: Kin,
    /// The last one that was looked at.
    looked: Option<SaId>,
    /// The least first: a slot above the workers' capacity is refused and must not be tried while
    /// a good one is free.
    free_slots: BTreeSet<u32>,
    next_slot: u32,
    installed: u64,
    /// Those that a worker has as its own (RFC 9611).
    resources: usize,
}

impl Children {
    /// A slot for a new SA; slots are reused.
    pub fn take_slot(&mut self) -> u32 {
        self.free_slots.pop_first().unwrap_or_else(|| {
            self.next_slot += 1;
            self.next_slot - 1
        })
    }

    /// Adds an SA that the workers were told to install.
    pub fn insert(&mut self, mut carried: Carried) {
        self.installed += 1;
        carried.order = self.installed;
        self.resources += usize::from(carried.child.options.resource.is_some());
        self.kin.insert(&carried);
        self.carried.insert(carried.child.id, carried);
    }

    /// Removes an SA; its cell is frozen, so that a worker that still holds it sends nothing. If it
    /// carried outbound traffic, the newest other SA of the same child does from now on: IKE names
    /// a successor when it has one, but two tunnels to one peer know nothing of each other. With it
    /// comes the SA that sends in its place.
    pub fn remove(&mut self, sa: SaId) -> Option<(Carried, Option<SaId>)> {
        let carried = self.carried.remove(&sa)?;
        carried.cell.freeze();
        self.resources -= usize::from(carried.child.options.resource.is_some());
        self.kin.remove(&carried);
        self.free_slots.insert(carried.slot);
        let mut successor = None;
        if carried.send {
            let others = self.kin.alike(&carried);
            let others = others.filter_map(|other| self.carried.get(&other));
            let heir = others.filter(|other| other.same_traffic(&carried));
            let heir = heir.max_by_key(|other| other.order);
            let heir = heir.map(|heir| heir.child.id);
            if let Some(heir) = heir.and_then(|heir| self.carried.get_mut(&heir)) {
                heir.send = true;
                successor = Some(heir.child.id);
            }
        }
        Some((carried, successor))
    }

    /// The same SA with other addresses or selectors.
    pub fn update(&mut self, child: Arc<ChildSa>) {
        if let Some(mut carried) = self.carried.remove(&child.id) {
            self.kin.remove(&carried);
            carried.child = child;
            self.kin.insert(&carried);
            self.carried.insert(carried.child.id, carried);
        }
    }

    /// Removes all of them.
    pub fn clear(&mut self) -> Vec<SaId> {
        let all: Vec<SaId> = self.carried.keys().copied().collect();
        for sa in &all {
            self.remove(*sa);
        }
        all
    }

    pub fn get(&self, sa: SaId) -> Option<&Carried> {
        self.carried.get(&sa)
    }

    pub fn get_mut(&mut self, sa: SaId) -> Option<&mut Carried> {
        self.carried.get_mut(&sa)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Carried> {
        self.carried.values()
    }

    /// Those behind one, in order.
    pub fn behind(&self, sa: Bound<SaId>) -> impl Iterator<Item = &Carried> {
        let behind = self.carried.range((sa, Bound::Unbounded));
        behind.map(|(_, carried)| carried)
    }

    /// Looks at so many of them, going on where the last look ended, and at when their peers were
    /// last heard on an SPI that nobody knows.
    pub fn look(&mut self, most: usize, mut look: impl FnMut(&mut Carried, Option<Instant>)) {
        let kin = &self.kin;
        let mut look = |carried: &mut Carried| {
            let foreign = kin.foreign(carried.child.remote);
            look(carried, foreign);
        };
        let mut left = most.min(self.carried.len());
        let behind = self.looked.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        let ahead = self.carried.range_mut((behind, Bound::Unbounded));
        for (sa, carried) in ahead.take(left) {
            look(carried);
            last = Some(*sa);
            left -= 1;
        }
        for (sa, carried) in self.carried.iter_mut().take(left) {
            look(carried);
            last = Some(*sa);
        }
        self.looked = last;
    }

    /// A peer was heard on an SPI that nobody knows.
    pub fn hear_foreign(&mut self, now: Instant, remote: IpAddr) {
        self.kin.hears_foreign(now, remote);
    }

    pub fn len(&self) -> usize {
        self.carried.len()
    }

    /// Whether another SA sends what this one could.
    pub fn is_served(&self, sa: SaId) -> bool {
        let Some(chosen) = self.carried.get(&sa) else {
            return false;
        };
        let mut alike = self.kin.alike(chosen).filter(|other| *other != sa);
        alike.any(|other| {
            let other = self.carried.get(&other);
            other.is_some_and(|other| other.send && other.same_traffic(chosen))
        })
    }

    /// Makes an SA the one that its child's outbound traffic uses; older ones of the same child
    /// and the same selectors stop sending.
    pub fn use_for_sending(&mut self, sa: SaId) -> Chosen {
        let Some(chosen) = self.carried.get(&sa) else {
            return Chosen::default();
        };
        let alike = self.kin.alike(chosen);
        let alike = alike.filter_map(|other| self.carried.get(&other));
        let alike = alike.filter(|other| other.same_traffic(chosen));
        let alike: Vec<SaId> = alike.map(|other| other.child.id).collect();
        let alone = alike.len() == 1;
        let mut former = Vec::new();
        for id in alike {
            if let Some(carried) = self.carried.get_mut(&id) {
                former.extend((carried.send && id != sa).then_some(id));
                carried.send = id == sa;
            }
        }
        Chosen { alone, former }
    }
}

impl Children {
    /// Whether the workers have SAs of their own.
    pub fn has_resources(&self) -> bool {
        self.resources > 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::protected::{Sending, tests::protection};
    use super::*;
    use hitless_dataplane::spd::Action;
    use hitless_sa::{
        EspSuite, Incarnation, KeyMaterial, Lease, MemberId, Mode, SaOptions, Spi, TrafficSelector,
    };

    fn child(counter: u32) -> Arc<ChildSa> {
        let network = |text: [u8; 4]| TrafficSelector::prefix(text.into(), 24).unwrap();
        let key = || KeyMaterial::new(&[7; 20]);
        Arc::new(ChildSa {
            id: id(counter),
            inbound_spi: Spi(0x1000 + counter),
            outbound_spi: Spi(0x2000 + counter),
            suite: EspSuite::Aes128Gcm16,
            inbound_key: key(),
            outbound_key: key(),
            esn: true,
            mode: Mode::Tunnel,
            local: [192, 0, 2, 1].into(),
            remote: [192, 0, 2, 2].into(),
            encapsulation: None,
            local_ts: vec![network([10, 2, 0, 0])],
            remote_ts: vec![network([10, 1, 0, 0])],
            replay_window: 64,
            options: SaOptions::default(),
        })
    }

    fn id(counter: u32) -> SaId {
        SaId {
            creator: MemberId(1),
            incarnation: Incarnation(1),
            counter,
        }
    }

    #[test]
    fn sas_with_other_selectors_on_either_side_do_not_succeed_one_another() {
        for other in [true, false] {
            let mut children = Children::default();
            carry(&mut children, 1, "net");
            let network = TrafficSelector::prefix([10, 9, 0, 0].into(), 24).unwrap();
            let mut sa = (*child(2)).clone();
            match other {
                true => sa.local_ts = vec![network],
                false => sa.remote_ts = vec![network],
            }
            let cell = Arc::new(Cell::new(SequenceNumber(1), Lease::default()));
            let slot = children.take_slot();
            let names = ("tunnel".to_owned(), "net".to_owned());
            let floor = SequenceNumber(0);
            children.insert(Carried::new(Arc::new(sa), cell, slot, names, floor, 0));
            assert!(!children.is_served(id(2)));
            let chosen = children.use_for_sending(id(2));
            assert!(chosen.alone && chosen.former.is_empty());
            assert!(children.get(id(1)).unwrap().send);
            let (gone, successor) = children.remove(id(1)).unwrap();
            assert!(gone.send);
            assert_eq!(successor, None);
        }
    }

    fn carry(children: &mut Children, counter: u32, name: &str) -> Arc<Cell> {
        carry_for(children, counter, name, None)
    }

    fn carry_for(
        children: &mut Children,
        counter: u32,
        name: &str,
        resource: Option<u16>,
    ) -> Arc<Cell> {
        let mut sa = (*child(counter)).clone();
        sa.options.resource = resource;
        let cell = Arc::new(Cell::new(SequenceNumber(1), Lease::default()));
        let slot = children.take_slot();
        let names = ("tunnel".to_owned(), name.to_owned());
        let floor = SequenceNumber(0);
        children.insert(Carried::new(
            Arc::new(sa),
            Arc::clone(&cell),
            slot,
            names,
            floor,
            0,
        ));
        children.use_for_sending(id(counter));
        cell
    }

    fn protecting(children: &Children) -> Vec<SaId> {
        protecting_of(children, 0)
    }

    fn protecting_of(children: &Children, worker: u16) -> Vec<SaId> {
        let protection = protection("tunnel", &["other", "net"]);
        let mut sending = Sending::default();
        for carried in children.iter().filter(|carried| carried.send) {
            let names = (carried.connection.as_str(), carried.name.as_str());
            protection.sends(&mut sending, names, &carried.child);
        }
        let policies = protection.policies(sending, worker + 1);
        let policies = policies[usize::from(worker)].iter();
        let protecting = policies.filter_map(|policy| match policy.action {
            Action::Protect(sa) => sa,
            Action::Bypass | Action::Discard => None,
        });
        protecting.collect()
    }

    #[test]
    fn rfc9611_section_4_each_worker_sends_on_its_own_sa() {
        let mut children = Children::default();
        for resource in 0..3u16 {
            carry_for(
                &mut children,
                7 - u32::from(resource),
                "net",
                Some(resource),
            );
        }
        assert!(children.has_resources());
        // Its own comes first, and the others behind it: the first that matches is used.
        let first = |children: &Children, worker| protecting_of(children, worker)[0];
        assert_eq!(
            [0, 1, 2].map(|w| first(&children, w)),
            [id(7), id(6), id(5)]
        );
        assert_eq!(protecting_of(&children, 1).len(), 3);
        // A worker without one takes one of the others'; the successor of one is for the same worker.
        assert_ne!(first(&children, 3), first(&children, 4));
        carry_for(&mut children, 9, "net", Some(1));
        assert_eq!(
            [0, 1, 2].map(|w| first(&children, w)),
            [id(7), id(9), id(5)]
        );
        children.remove(id(9));
        assert_eq!(
            first(&children, 1),
            id(6),
            "the one before it, if it is still there"
        );
    }

    #[test]
    fn a_look_goes_on_where_the_last_one_ended_and_meets_each_once_a_round() {
        let mut children = Children::default();
        for counter in 0..10 {
            carry(&mut children, counter, "net");
        }
        let looks = |children: &mut Children, most| {
            let mut seen = Vec::new();
            children.look(most, |carried, _| seen.push(carried.child.id.counter));
            seen
        };
        assert_eq!(looks(&mut children, 4), [0, 1, 2, 3]);
        assert_eq!(looks(&mut children, 4), [4, 5, 6, 7]);
        children.remove(id(7));
        assert_eq!(looks(&mut children, 4), [8, 9, 0, 1]);
        assert_eq!(looks(&mut children, 100).len(), 9);
        children.clear();
        assert!(looks(&mut children, 4).is_empty());
    }

    #[test]
    fn a_peer_that_is_heard_on_unknown_spis_is_noted_once_and_forgotten_with_its_last_sa() {
        let mut children = Children::default();
        carry(&mut children, 1, "net");
        let mut moved = ChildSa::clone(&child(1));
        let before = moved.remote;
        moved.remote = [192, 0, 2, 77].into();
        let now = moved.remote;
        children.update(Arc::new(moved));
        let heard = |children: &mut Children| {
            let mut heard = Vec::new();
            children.look(9, |_, foreign| heard.push(foreign));
            heard
        };
        children.hear_foreign(Instant(3), before);
        assert_eq!(heard(&mut children), [None], "its peer is elsewhere now");
        children.hear_foreign(Instant(4), now);
        children.hear_foreign(Instant(5), now);
        assert_eq!(heard(&mut children), [Some(Instant(5))]);
        children.remove(id(1));
        assert_eq!(children.kin.foreign(now), None);
    }

    #[test]
    fn one_sa_of_a_child_sends_and_the_newest_left_inherits() {
        let mut children = Children::default();
        carry(&mut children, 9, "net");
        carry(&mut children, 3, "net");
        carry(&mut children, 5, "other");
        // In the order of the file.
        assert_eq!(protecting(&children), [id(5), id(3)]);
        carry(&mut children, 4, "net");
        assert_eq!(protecting(&children), [id(5), id(4)]);
        // The order of installation decides, not that of the names.
        children.remove(id(4));
        assert_eq!(protecting(&children), [id(5), id(3)]);
        children.remove(id(3));
        assert_eq!(protecting(&children), [id(5), id(9)]);
        children.remove(id(5));
        children.remove(id(9));
        assert!(protecting(&children).is_empty());
    }

    #[test]
    fn a_cell_is_frozen_before_its_sa_is_gone() {
        let mut children = Children::default();
        let cell = carry(&mut children, 1, "net");
        let other = carry(&mut children, 2, "net");
        children.remove(id(1));
        assert!(cell.frozen() && !other.frozen());
        assert!(children.get(id(1)).is_none());
        assert_eq!(children.clear(), [id(2)]);
        assert!(other.frozen());
    }

    #[test]
    fn the_least_free_slot_is_taken_so_that_one_above_the_capacity_is_not_tried_in_vain() {
        let mut children = Children::default();
        for counter in 0..3 {
            carry(&mut children, counter, "net");
        }
        children.remove(id(0));
        // Slot 2 was refused by a worker.
        children.remove(id(2));
        assert_eq!(children.take_slot(), 0);
    }
}
