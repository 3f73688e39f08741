//! What the database said about recent outbound flows: a first match is the same until the database
//! changes (RFC 4301 section 4.4.1 allows caching of decorrelated entries; whole flows are
//! decorrelated). Direct-mapped, so a flood of new flows costs searches, never memory.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use smallvec::SmallVec;

use super::{Match, Spd};
use crate::flow::Flow;
use crate::port::BURST;

/// Flows whose policy is remembered.
const REMEMBERED: usize = 2048;
/// Up to so many policies a search is as quick as remembering.
const SHORT: usize = 8;

/// A flow, what a database said about it, and which one: the number of [`FlowCache::clear`] calls
/// before.
#[derive(Clone, Copy)]
struct Entry {
    database: u64,
    flow: Flow,
    found: Option<Match>,
}

/// See the module.
pub(crate) struct FlowCache {
    entries: Box<[Option<Entry>]>,
    hasher: FixedState,
    database: u64,
}

impl FlowCache {
    pub(crate) fn new() -> FlowCache {
        FlowCache {
            entries: vec![None; REMEMBERED].into_boxed_slice(),
            hasher: FixedState::default(),
            database: 0,
        }
    }

    /// Forgets all: the database has changed. What is remembered of the old one is never believed
    /// again, and need not be touched.
    pub(crate) fn clear(&mut self) {
        self.database += 1;
    }

    /// What [`Spd::outbound`] says of each flow, of a burst at most.
    pub(crate) fn outbound(
        &mut self,
        spd: &Spd,
        flows: &[Flow],
    ) -> SmallVec<[Option<Match>; BURST]> {
        let mut all: SmallVec<[Option<Match>; BURST]> = flows.iter().map(|_| None).collect();
        if spd.policies().len() <= SHORT {
            for (found, flow) in all.iter_mut().zip(flows) {
                *found = spd.outbound(flow);
            }
            return all;
        }
        // 1. What is remembered.
        let mut unknown: SmallVec<[Flow; BURST]> = SmallVec::new();
        let mut places: SmallVec<[(usize, usize); BURST]> = SmallVec::new();
        for (at, (found, flow)) in all.iter_mut().zip(flows).enumerate() {
            let place = self.place(flow);
            match self.entries.get(place) {
                Some(Some(known)) if known.database == self.database && known.flow == *flow => {
                    *found = known.found;
                }
                _ => {
                    unknown.push(*flow);
                    places.push((at, place));
                }
            }
        }
        if unknown.is_empty() {
            return all;
        }
        // 2. The rest is searched for, and remembered.
        let mut answers: SmallVec<[Option<Match>; BURST]> = unknown.iter().map(|_| None).collect();
        spd.outbound_all(&unknown, &mut answers);
        for ((flow, found), (at, place)) in unknown.into_iter().zip(answers).zip(places) {
            if let Some(answer) = all.get_mut(at) {
                *answer = found;
            }
            if let Some(entry) = self.entries.get_mut(place) {
                let database = self.database;
                *entry = Some(Entry {
                    database,
                    flow,
                    found,
                });
            }
        }
        all
    }

    fn place(&self, flow: &Flow) -> usize {
        self.hasher.hash_one(flow) as usize % REMEMBERED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Ports;
    use crate::spd::{Action, Policy};

    fn policy(remote: &str, action: Action) -> Policy {
        Policy {
            local: "0.0.0.0/0".parse().unwrap(),
            remote: remote.parse().unwrap(),
            action,
        }
    }

    fn flow(source: [u8; 4], destination: [u8; 4]) -> Flow {
        Flow {
            source: source.into(),
            destination: destination.into(),
            protocol: 17,
            ports: Ports::Of(1000, 2000),
        }
    }

    fn ask(cache: &mut FlowCache, spd: &Spd, flow: &Flow) -> Option<Match> {
        cache.outbound(spd, std::slice::from_ref(flow))[0]
    }

    fn many(shift: u8) -> Spd {
        let prefix = |n: u8| format!("10.{}.0.0/16", n.wrapping_add(shift));
        let one = |n: u8| policy(&prefix(n), Action::Protect(None));
        Spd::new((0..200).map(one).collect())
    }

    #[test]
    fn the_cache_says_what_the_database_says_also_after_a_change() {
        let mut cache = FlowCache::new();
        for shift in [0, 100] {
            let spd = many(shift);
            cache.clear();
            for round in 0..2 {
                for n in 0..5000u16 {
                    let [high, low] = n.to_be_bytes();
                    let flow = flow([10, 1, 0, 1], [10, low, high, 1]);
                    let expected = spd.outbound(&flow);
                    assert_eq!(ask(&mut cache, &spd, &flow), expected, "{round} {n}");
                }
            }
        }
    }

    #[test]
    fn no_stale_entry_is_believed_after_a_policy_was_added_or_removed() {
        let mut cache = FlowCache::new();
        let packet = flow([10, 9, 0, 1], [10, 5, 0, 1]);
        let before = many(0);
        let protected = ask(&mut cache, &before, &packet);
        assert_eq!(protected.map(|m| m.action), Some(Action::Protect(None)));
        let mut policies = before.policies().to_vec();
        policies.insert(0, policy("10.5.0.0/24", Action::Discard));
        let added = Spd::new(policies.clone());
        cache.clear();
        let found = ask(&mut cache, &added, &packet).unwrap();
        assert_eq!((found.policy, found.action), (0, Action::Discard));
        policies.retain(|policy| !policy.remote.contains_address(packet.destination));
        cache.clear();
        assert_eq!(ask(&mut cache, &Spd::new(policies), &packet), None);
        // And back: what was remembered of the first database is not what counts now.
        cache.clear();
        assert_eq!(ask(&mut cache, &before, &packet), protected);
    }

    #[test]
    fn flows_that_collide_push_each_other_out_and_each_gets_its_own_policy() {
        let mut cache = FlowCache::new();
        let spd = many(0);
        let one = flow([10, 9, 0, 1], [10, 5, 0, 1]);
        let place = cache.place(&one);
        let others = (0u32..).map(|n| {
            let [_, _, c, d] = n.to_be_bytes();
            flow([10, 9, 0, 1], [10, 6, c, d])
        });
        let mut colliding = others.filter(|other| cache.place(other) == place);
        let other = colliding.next().unwrap();
        drop(colliding);
        for _ in 0..3 {
            assert_eq!(ask(&mut cache, &spd, &one), spd.outbound(&one));
            assert_eq!(ask(&mut cache, &spd, &other), spd.outbound(&other));
        }
        assert_ne!(spd.outbound(&one), spd.outbound(&other));
    }

    #[test]
    fn flows_that_differ_in_one_field_only_are_remembered_apart() {
        let mut policies = many(0).policies().to_vec();
        let mut web = policy("10.5.0.0/16", Action::Bypass);
        web.remote.protocol = 6;
        (web.remote.start_port, web.remote.end_port) = (80, 80);
        policies.insert(0, web);
        let spd = Spd::new(policies);
        let mut cache = FlowCache::new();
        let base = Flow {
            protocol: 6,
            ports: Ports::Of(1, 80),
            ..flow([10, 9, 0, 1], [10, 5, 0, 1])
        };
        let variants = [
            base,
            Flow {
                protocol: 17,
                ..base
            },
            Flow {
                ports: Ports::Of(80, 1),
                ..base
            },
            Flow {
                ports: Ports::Opaque,
                ..base
            },
        ];
        for _ in 0..2 {
            for (n, variant) in variants.iter().enumerate() {
                let bypassed =
                    ask(&mut cache, &spd, variant).map(|m| m.action) == Some(Action::Bypass);
                assert_eq!(bypassed, n == 0);
            }
        }
    }
}
