//! The SPD: what is protected, what passes in clear, what is discarded (RFC 4301 section 4.4.1).
//! Ordered, first match wins; without a match a packet is discarded (section 5.1). Built by the
//! control thread, then only read; a change is a new database.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hitless_sa::{SaId, TrafficSelector};

use crate::flow::{Flow, Ports};

/// What happens to the traffic of a policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Through the tunnel: with the Child SA to send on, once there is one.
    Protect(Option<SaId>),
    /// In clear.
    Bypass,
    /// Not at all.
    Discard,
}

/// One entry: what is ours, what is theirs, and what happens between the two.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    pub local: TrafficSelector,
    pub remote: TrafficSelector,
    pub action: Action,
}

/// A policy that matched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Match {
    /// Its place in the database.
    pub policy: usize,
    pub action: Action,
}

/// The ordered database.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Spd(Vec<Policy>);

impl Spd {
    /// A database of these policies, the first being the strongest.
    pub fn new(policies: Vec<Policy>) -> Spd {
        Spd(policies)
    }

    /// The policies in order.
    pub fn policies(&self) -> &[Policy] {
        &self.0
    }

    /// The policy for a packet that would leave the protected side (RFC 4301 section 5.1).
    pub fn outbound(&self, flow: &Flow) -> Option<Match> {
        self.find(|policy| {
            flow.source_within(&policy.local) && flow.destination_within(&policy.remote)
        })
    }

    /// The policy for a packet that came in clear to the unprotected side (RFC 4301 section 5.2).
    pub fn inbound(&self, flow: &Flow) -> Option<Match> {
        self.find(|policy| {
            flow.source_within(&policy.remote) && flow.destination_within(&policy.local)
        })
    }

    fn find(&self, matches: impl Fn(&Policy) -> bool) -> Option<Match> {
        self.0
            .iter()
            .enumerate()
            .find(|(_, policy)| matches(policy))
            .map(|(index, policy)| Match {
                policy: index,
                action: policy.action,
            })
    }
}

/// Flows whose policy is remembered.
const REMEMBERED: usize = 2048;
/// Up to so many policies a search is as quick as remembering.
const SHORT: usize = 8;

/// A flow, and what the database said about it.
type Remembered = (Flow, Option<Match>);

/// What the database said about recent outbound flows: a first match is the same until the database
/// changes, and a long list costs a search for each packet otherwise (RFC 4301 section 4.4.1 allows
/// caching of decorrelated entries; whole flows are decorrelated). Direct-mapped, so a flood of new
/// flows costs searches, never memory.
pub(crate) struct FlowCache {
    entries: Box<[Option<Remembered>]>,
    hasher: FixedState,
}

impl FlowCache {
    pub(crate) fn new() -> FlowCache {
        FlowCache {
            entries: vec![None; REMEMBERED].into_boxed_slice(),
            hasher: FixedState::default(),
        }
    }

    /// Forgets all: the database has changed.
    pub(crate) fn clear(&mut self) {
        self.entries.fill(None);
    }

    /// What [`Spd::outbound`] says.
    pub(crate) fn outbound(&mut self, spd: &Spd, flow: &Flow) -> Option<Match> {
        if spd.policies().len() <= SHORT {
            return spd.outbound(flow);
        }
        let ports = match flow.ports {
            Ports::Of(source, destination) => Some((source, destination)),
            Ports::Opaque => None,
        };
        let key = (flow.source, flow.destination, flow.protocol, ports);
        let at = self.hasher.hash_one(key) as usize % REMEMBERED;
        let Some(entry) = self.entries.get_mut(at) else {
            return spd.outbound(flow);
        };
        match entry {
            Some((known, found)) if known == flow => *found,
            _ => {
                let found = spd.outbound(flow);
                *entry = Some((*flow, found));
                found
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Ports;

    fn policy(local: &str, remote: &str, action: Action) -> Policy {
        Policy {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            action,
        }
    }

    fn flow(source: &str, destination: &str) -> Flow {
        Flow {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: 17,
            ports: Ports::Of(1000, 2000),
        }
    }

    fn action(found: Option<Match>) -> Option<Action> {
        found.map(|m| m.action)
    }

    #[test]
    fn first_match_wins_rfc_4301_section_4_4_1() {
        let spd = Spd::new(vec![
            policy("10.1.0.0/16", "10.2.0.9", Action::Discard),
            policy("10.1.0.0/16", "10.2.0.0/16", Action::Protect(None)),
            policy("10.1.0.0/16", "0.0.0.0/0", Action::Bypass),
        ]);
        let out = |to| action(spd.outbound(&flow("10.1.0.1", to)));
        assert_eq!(out("10.2.0.9"), Some(Action::Discard));
        assert_eq!(out("10.2.0.8"), Some(Action::Protect(None)));
        assert_eq!(out("8.8.8.8"), Some(Action::Bypass));
        assert_eq!(spd.outbound(&flow("10.9.0.1", "10.2.0.8")), None);
    }

    #[test]
    fn inbound_is_the_mirror_image_of_outbound() {
        let spd = Spd::new(vec![policy(
            "10.1.0.0/16",
            "10.2.0.0/16",
            Action::Protect(None),
        )]);
        assert!(spd.inbound(&flow("10.2.0.1", "10.1.0.1")).is_some());
        assert!(spd.inbound(&flow("10.1.0.1", "10.2.0.1")).is_none());
    }

    #[test]
    fn a_later_fragment_matches_only_policies_for_every_port_rfc_4301_section_7() {
        let mut narrow = policy("10.1.0.0/16", "10.2.0.0/16", Action::Bypass);
        (narrow.remote.start_port, narrow.remote.end_port) = (2000, 2000);
        let spd = Spd::new(vec![narrow]);
        let mut packet = flow("10.1.0.1", "10.2.0.1");
        assert!(spd.outbound(&packet).is_some());
        packet.ports = Ports::Opaque;
        assert!(spd.outbound(&packet).is_none());
    }

    #[test]
    fn the_cache_says_what_the_database_says_also_after_a_change() {
        let many = |shift: u8| {
            let prefix = |n: u8| format!("10.{}.0.0/16", n.wrapping_add(shift));
            let one = |n: u8| policy("0.0.0.0/0", &prefix(n), Action::Protect(None));
            Spd::new((0..200).map(one).collect())
        };
        let mut cache = FlowCache::new();
        for shift in [0, 100] {
            let spd = many(shift);
            cache.clear();
            for round in 0..2 {
                for n in 0..5000u16 {
                    let [high, low] = n.to_be_bytes();
                    let flow = flow("10.1.0.1", &format!("10.{low}.{high}.1"));
                    let expected = spd.outbound(&flow);
                    assert_eq!(cache.outbound(&spd, &flow), expected, "{round} {n}");
                }
            }
        }
    }
}
