//! The SPD: what is protected, what passes in clear, what is discarded (RFC 4301 section 4.4.1).
//! Ordered, first match wins; without a match a packet is discarded (section 5.1). Built by the
//! control thread, then only read; a change is a new database.

use hitless_sa::{SaId, TrafficSelector};

use crate::flow::Flow;

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
}
