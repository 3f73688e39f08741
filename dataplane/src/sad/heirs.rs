//! Which SA sends what policies send by another one, until they name it themselves.
//!
//! An SA is replaced by a command, of which a worker takes many in a turn: each goes through the few
//! that its SA sent for, never through all that wait for their policies. All memory is there from the
//! start.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hitless_sa::{Incarnation, MemberId, SaId};

/// SAs that policies name and others have replaced: more wait for their policies.
const ALL: usize = 4096;
/// The same of one heir.
const OF_ONE: u16 = 64;
/// No place.
const NONE: u16 = u16::MAX;

/// Of a place that is free.
const NOBODY: SaId = SaId {
    creator: MemberId(0),
    incarnation: Incarnation(0),
    counter: 0,
};

/// An SA that another one sends for, in the list of that one's.
#[derive(Clone, Copy)]
struct Former {
    id: SaId,
    heir: SaId,
    previous: u16,
    next: u16,
}

/// What one SA sends for.
#[derive(Clone, Copy)]
struct List {
    first: u16,
    length: u16,
}

/// See the module.
pub(super) struct Heirs {
    formers: Box<[Former]>,
    free: Vec<u16>,
    places: HashMap<SaId, u16, FixedState>,
    lists: HashMap<SaId, List, FixedState>,
}

impl Heirs {
    /// Of nobody. Allocates all that it ever needs: a table that is at most half full is tidied where
    /// it is.
    pub(super) fn new() -> Heirs {
        let hasher = FixedState::default();
        let free = Former {
            id: NOBODY,
            heir: NOBODY,
            previous: NONE,
            next: NONE,
        };
        Heirs {
            formers: vec![free; ALL].into_boxed_slice(),
            free: (0..ALL as u16).collect(),
            places: HashMap::with_capacity_and_hasher(2 * ALL, hasher.clone()),
            lists: HashMap::with_capacity_and_hasher(2 * ALL, hasher),
        }
    }

    /// Who sends for an SA.
    #[inline]
    pub(super) fn of(&self, id: SaId) -> Option<SaId> {
        if self.places.is_empty() {
            return None;
        }
        let place = *self.places.get(&id)?;
        self.formers.get(usize::from(place)).map(|it| it.heir)
    }

    /// What policies send by `old` goes by `new`, and with it what `old` sent for; or by itself again.
    pub(super) fn succeed(&mut self, old: SaId, new: Option<SaId>) {
        let Some(new) = new else {
            return self.remove(old);
        };
        // It sends for itself, whatever was before.
        self.remove(new);
        if old == new {
            return;
        }
        self.remove(old);
        let mut place = self.lists.remove(&old).map_or(NONE, |list| list.first);
        while let Some(former) = self.formers.get(usize::from(place)) {
            let next = former.next;
            self.join(place, new);
            place = next;
        }
        if let Some(place) = self.free.pop() {
            self.places.insert(old, place);
            if let Some(former) = self.formers.get_mut(usize::from(place)) {
                former.id = old;
            }
            self.join(place, new);
        }
    }

    /// An SA sends for itself.
    fn remove(&mut self, id: SaId) {
        let Some(place) = self.places.remove(&id) else {
            return;
        };
        self.free.push(place);
        let Some(former) = self.formers.get(usize::from(place)).copied() else {
            return;
        };
        if let Some(next) = self.formers.get_mut(usize::from(former.next)) {
            next.previous = former.previous;
        }
        if let Some(previous) = self.formers.get_mut(usize::from(former.previous)) {
            previous.next = former.next;
        }
        let Some(list) = self.lists.get_mut(&former.heir) else {
            return;
        };
        list.length -= 1;
        if list.first == place {
            list.first = former.next;
        }
        if list.length == 0 {
            self.lists.remove(&former.heir);
        }
    }

    /// Puts a former in front of those of an heir; one that has enough leaves it to its policies.
    fn join(&mut self, place: u16, heir: SaId) {
        let Some(former) = self.formers.get_mut(usize::from(place)) else {
            return;
        };
        let list = self.lists.entry(heir).or_insert(List {
            first: NONE,
            length: 0,
        });
        if list.length >= OF_ONE {
            self.places.remove(&former.id);
            self.free.push(place);
            return;
        }
        let first = std::mem::replace(&mut list.first, place);
        list.length += 1;
        (former.heir, former.previous, former.next) = (heir, NONE, first);
        if let Some(first) = self.formers.get_mut(usize::from(first)) {
            first.previous = place;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sa(counter: u32) -> SaId {
        SaId {
            creator: MemberId(1),
            incarnation: Incarnation(1),
            counter,
        }
    }

    #[test]
    fn an_heir_goes_through_its_own_and_has_a_bounded_number_of_them() {
        let mut heirs = Heirs::new();
        // One SA after another, each sending for all before it.
        for counter in 0..1000 {
            heirs.succeed(sa(counter), Some(sa(counter + 1)));
            assert!(heirs.lists.values().all(|list| list.length <= OF_ONE));
        }
        let sent_for = (0..1000).filter(|c| heirs.of(sa(*c)) == Some(sa(1000)));
        assert_eq!(sent_for.count(), usize::from(OF_ONE));
        // And many at once, by the same one.
        for counter in 2000..3000 {
            heirs.succeed(sa(counter), Some(sa(1)));
        }
        let sent_for = (2000..3000).filter(|c| heirs.of(sa(*c)) == Some(sa(1)));
        assert_eq!(sent_for.count(), usize::from(OF_ONE));
    }

    #[test]
    fn lists_are_as_those_of_a_plain_table() {
        let mut heirs = Heirs::new();
        let mut plain: BTreeMap<SaId, SaId> = BTreeMap::new();
        let mut random = 1u32;
        let mut draw = |below: u32| {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random % below
        };
        for _ in 0..20_000 {
            // So few that none has too many.
            let (old, new) = (sa(draw(40)), sa(draw(40)));
            let new = (draw(4) > 0).then_some(new);
            heirs.succeed(old, new);
            match new {
                None => drop(plain.remove(&old)),
                Some(new) => {
                    plain.remove(&new);
                    let heirs = plain.values_mut().filter(|heir| **heir == old);
                    heirs.for_each(|heir| *heir = new);
                    if old != new {
                        plain.insert(old, new);
                    }
                }
            }
            for id in (0..40).map(sa) {
                assert_eq!(heirs.of(id), plain.get(&id).copied());
            }
            assert_eq!(heirs.places.len() + heirs.free.len(), ALL);
        }
    }
}
