//! What a new leader has inherited and not taken into its book yet.
//!
//! A takeover must let the first packet flow at once, whatever the number of SAs is. So the copy of a
//! standby becomes the book of a leader object by object: when the gateway goes on with one
//! ([`Node::inherit`]), or when a commit names it or one of its Child SAs. The rights of what waits
//! are what they were: nothing is offered, extended or given to a standby before, and nobody joins
//! meanwhile, since nobody could be sent all of it.

use hitless_sa::SaId;

use crate::leading::{Context, Leading, LedObject};
use crate::node::{Node, State};
use crate::store::{Recorded, Store, Stored};
use crate::takeover::{self, Right};
use crate::{ObjectId, Output, TakeoverObject};

/// See the module.
#[derive(Default)]
pub(crate) struct Estate {
    right: Option<Right>,
    store: Store,
}

impl Estate {
    pub fn new(right: Option<Right>, store: Store) -> Estate {
        Estate { right, store }
    }

    /// Objects and SAs that wait.
    pub fn len(&self) -> (usize, usize) {
        (self.store.objects.len(), self.store.sas.len())
    }

    pub fn is_empty(&self) -> bool {
        self.store.objects.is_empty()
    }

    /// Every IKE SA goes on with exact Message IDs: of what does not come from the session that gave
    /// the right nothing is left in a standby that was admitted (R9).
    pub fn exact(&self) -> bool {
        self.right.is_some_and(|right| right.exact)
    }

    pub fn handed_over(&self) -> bool {
        self.right.is_some_and(|right| right.handed_over)
    }

    pub fn first(&self) -> Option<ObjectId> {
        let first = self.store.objects.first_key_value();
        first.map(|(object, _)| *object)
    }

    pub fn get(&self, object: ObjectId) -> Option<&Stored> {
        self.store.objects.get(&object)
    }

    /// The object that a Child SA waits with.
    fn object_of(&self, sa: SaId) -> Option<ObjectId> {
        let recorded = self.store.sas.get(&sa)?;
        Some(recorded.object).filter(|object| self.store.objects.contains_key(object))
    }

    /// Takes an object out, with the Child SAs that it owns. One of which another object is the
    /// owner stays for that.
    fn take(&mut self, object: ObjectId) -> Option<(Stored, Vec<(SaId, Recorded)>)> {
        let stored = self.store.objects.remove(&object)?;
        let sas = &mut self.store.sas;
        let owned = stored.children.iter().filter_map(|sa| {
            let own = sas.get(sa).is_some_and(|r| r.object == object);
            own.then(|| sas.remove(sa).map(|recorded| (*sa, recorded)))?
        });
        let owned = owned.collect();
        // SAs of no object: nothing could ever replace or delete them.
        if self.store.objects.is_empty() {
            self.store.sas.clear();
        }
        Some((stored, owned))
    }

    /// What is left of it when the leadership ends: copies without any right (R14).
    pub fn into_copies(self, copies: &mut Store) {
        for (object, mut stored) in self.store.objects {
            stored.session = 0;
            copies.objects.insert(object, stored);
        }
        for (sa, mut recorded) in self.store.sas {
            (recorded.session, recorded.no_right, recorded.last) = (0, true, None);
            copies.sas.insert(sa, recorded);
        }
    }
}

impl Leading {
    /// Takes one object of the estate into the book.
    pub fn inherit(&mut self, cx: &mut Context<'_>, object: ObjectId) -> Option<TakeoverObject> {
        let (stored, owned) = self.estate.take(object)?;
        let right = self.estate.right;
        let mut children = Vec::with_capacity(owned.len());
        let mut spent_up = Vec::new();
        for (sa, recorded) in owned {
            let (led, tired) = takeover::inherit(cx, right, &recorded);
            children.push(takeover::describe(cx, right, sa, &recorded, &led));
            spent_up.extend(tired.map(|reason| (sa, reason)));
            self.sas.insert(sa, led);
        }
        let current = right.is_some_and(|right| right.session == stored.session);
        let inherited = TakeoverObject {
            object,
            version: stored.version,
            exact: current && right.is_some_and(|right| right.exact),
            body: stored.body.clone(),
            children,
        };
        let led = LedObject {
            version: stored.version,
            released: stored.version,
            body: stored.body,
            children: stored.children,
        };
        self.objects.insert(object, led);
        for (sa, reason) in spent_up {
            self.ask(cx, sa, reason);
        }
        Some(inherited)
    }

    /// What a commit names is in the book before it is looked at: it would have no right otherwise.
    pub fn inherit_named(&mut self, cx: &mut Context<'_>, object: ObjectId, children: &[SaId]) {
        if self.estate.is_empty() {
            return;
        }
        let owners = children.iter().filter_map(|sa| self.estate.object_of(*sa));
        for object in owners.chain([object]).collect::<Vec<_>>() {
            if let Some(inherited) = self.inherit(cx, object) {
                let inherited = Box::new(inherited);
                cx.outputs.push_back(Output::Inherited(inherited));
            }
        }
    }

    /// Objects of the book and of the estate.
    pub fn count(&self) -> usize {
        self.objects.len() + self.estate.len().0
    }
}

impl Node {
    /// Takes an object that this leader has inherited into its book, and says how to go on with it;
    /// nothing if it was taken before.
    pub fn inherit(&mut self, object: ObjectId) -> Option<TakeoverObject> {
        let mut inherited = None;
        self.lead(|leading, cx| inherited = leading.inherit(cx, object));
        inherited
    }

    /// How many objects wait for [`Node::inherit`].
    pub fn left(&self) -> usize {
        match &self.state {
            State::Leading(leading) => leading.estate.len().0,
            _ => 0,
        }
    }

    /// The next object that waits for [`Node::inherit`].
    pub fn next_inherited(&self) -> Option<ObjectId> {
        match &self.state {
            State::Leading(leading) => leading.estate.first(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hitless_sa::{Epoch, Incarnation, Lease, MemberId, SequenceNumber};
    use zeroize::Zeroizing;

    use super::*;
    use crate::lease::tests::sa;

    fn store(objects: &[(u64, &[u32])]) -> Store {
        let mut store = Store::default();
        for (object, children) in objects {
            let stored = Stored {
                version: 1,
                body: Arc::new(Zeroizing::new(vec![1])),
                children: children.iter().map(|n| sa(*n)).collect(),
                session: 3,
            };
            store.objects.insert(ObjectId(*object), stored);
            for child in *children {
                let recorded = Recorded {
                    object: ObjectId(*object),
                    lease: Lease {
                        grant: SequenceNumber(100),
                        high_water: SequenceNumber(50),
                    },
                    session: 3,
                    no_right: false,
                    esn: true,
                    skip_sum: 0,
                    checkpoint: None,
                    last: None,
                };
                store.sas.insert(sa(*child), recorded);
            }
        }
        store
    }

    fn leading(objects: &[(u64, &[u32])]) -> Leading {
        let epoch = Epoch {
            counter: 2,
            leader: MemberId(2),
            incarnation: Incarnation(1),
        };
        let mut leading = Leading::new(epoch, Some(epoch));
        let right = Right {
            base: epoch,
            session: 3,
            handed_over: false,
            exact: true,
        };
        leading.estate = Estate::new(Some(right), store(objects));
        leading
    }

    #[test]
    fn r14_what_waits_when_the_lead_ends_is_a_copy_without_a_right() {
        let copies = leading(&[(1, &[10]), (2, &[20])]).into_store();
        assert_eq!((copies.objects.len(), copies.sas.len()), (2, 2));
        assert!(copies.sas.values().all(|r| r.no_right && r.session == 0));
        assert!(copies.objects.values().all(|stored| stored.session == 0));
    }

    #[test]
    fn an_sa_waits_with_its_owner_and_those_of_nobody_go() {
        let mut leading = leading(&[(1, &[10]), (2, &[10, 20])]);
        // The newest commit that names a child owns it.
        assert_eq!(leading.estate.object_of(sa(10)), Some(ObjectId(2)));
        let (_, owned) = leading.estate.take(ObjectId(1)).unwrap();
        assert!(owned.is_empty());
        leading.estate.store.sas.insert(sa(30), {
            let mut other = store(&[(3, &[30])]);
            other.sas.remove(&sa(30)).unwrap()
        });
        assert_eq!(leading.estate.object_of(sa(30)), None);
        let (_, owned) = leading.estate.take(ObjectId(2)).unwrap();
        assert_eq!(owned.len(), 2);
        assert_eq!(leading.estate.len(), (0, 0));
    }
}
