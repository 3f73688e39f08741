//! The SPD: what is protected, what passes in clear, what is discarded (RFC 4301 section 4.4.1).
//! Ordered, first match wins; without a match a packet is discarded (section 5.1). Built by the
//! control thread, then only read but for its counts; a change is a new database.

mod cache;
mod classifier;
mod tally;

use std::net::IpAddr;

use hitless_sa::{SaId, TrafficSelector};

use crate::flow::{Flow, Ports};
use classifier::{Classifier, Coordinate, Point, Volume};
use tally::Tally;

pub(crate) use cache::FlowCache;
pub use tally::PolicyTraffic;

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

/// Which way a packet goes across the boundary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Outbound,
    Inbound,
}

/// The ordered database.
#[derive(Debug)]
pub struct Spd {
    policies: Vec<Policy>,
    tallies: Vec<Tally>,
    workers: usize,
    v4: Classifier<u32>,
    v6: Classifier<u128>,
}

impl Default for Spd {
    fn default() -> Spd {
        Spd::new(Vec::new())
    }
}

impl Spd {
    /// A database of these policies, the first being the strongest.
    pub fn new(policies: Vec<Policy>) -> Spd {
        Spd::for_workers(policies, 0)
    }

    /// As [`Spd::new`], in which the workers with numbers below `workers` count without disturbing
    /// each other. The others count as exactly, at the price of a locked instruction.
    pub fn for_workers(policies: Vec<Policy>, workers: usize) -> Spd {
        let tallies = policies.iter().map(|_| Tally::new(workers)).collect();
        Spd::build(policies, tallies, workers)
    }

    /// The database that takes this one's place: a policy with the same selectors and the same kind
    /// of action goes on counting where it was, also while workers change over.
    pub fn successor(&self, policies: Vec<Policy>) -> Spd {
        let mut before = tally::Inheritance::new(&self.policies, &self.tallies);
        let tallies = policies
            .iter()
            .map(|policy| {
                let inherited = before.take(policy);
                inherited.unwrap_or_else(|| Tally::new(self.workers))
            })
            .collect();
        Spd::build(policies, tallies, self.workers)
    }

    fn build(policies: Vec<Policy>, tallies: Vec<Tally>, workers: usize) -> Spd {
        let volumes = |v4| (0..).zip(&policies).filter(move |(_, p)| is_v4(p) == v4);
        Spd {
            v4: Classifier::new(volumes(true).map(|(n, policy)| (n, volume(policy, v4_address)))),
            v6: Classifier::new(volumes(false).map(|(n, policy)| (n, volume(policy, v6_address)))),
            policies,
            tallies,
            workers,
        }
    }

    /// The policies in order.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// The policy for a packet that would leave the protected side (RFC 4301 section 5.1).
    #[inline]
    pub fn outbound(&self, flow: &Flow) -> Option<Match> {
        let ports = ports(flow);
        self.find((flow.source, ports.0), (flow.destination, ports.1), flow)
    }

    /// The policy for a packet that came in clear to the unprotected side (RFC 4301 section 5.2).
    #[inline]
    pub fn inbound(&self, flow: &Flow) -> Option<Match> {
        let ports = ports(flow);
        self.find((flow.destination, ports.1), (flow.source, ports.0), flow)
    }

    #[inline]
    fn find(&self, local: (IpAddr, u32), remote: (IpAddr, u32), flow: &Flow) -> Option<Match> {
        let protocol = u32::from(flow.protocol);
        let policy = match (local.0, remote.0) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let point = [ours.into(), theirs.into(), protocol, local.1, remote.1];
                self.v4.find(&point)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let ports = [protocol, local.1, remote.1].map(u128::from);
                let [protocol, our_port, their_port] = ports;
                let point = [ours.into(), theirs.into(), protocol, our_port, their_port];
                self.v6.find(&point)
            }
            _ => None,
        }? as usize;
        let action = self.policies.get(policy)?.action;
        Some(Match { policy, action })
    }

    /// Notes that a worker handled a packet of so many octets by a policy.
    #[inline]
    pub(crate) fn count(&self, worker: usize, policy: usize, direction: Direction, octets: usize) {
        if let Some(tally) = self.tallies.get(policy) {
            tally.add(worker, direction, octets as u64);
        }
    }

    /// What a policy has handled, in all workers together.
    pub fn traffic(&self, policy: usize) -> Option<PolicyTraffic> {
        self.tallies.get(policy).map(Tally::read)
    }
}

/// Source and destination port, or what stands for those that cannot be seen.
#[inline]
fn ports(flow: &Flow) -> (u32, u32) {
    match flow.ports {
        Ports::Of(source, destination) => (source.into(), destination.into()),
        Ports::Opaque => (TrafficSelector::OPAQUE_PORT, TrafficSelector::OPAQUE_PORT),
    }
}

fn is_v4(policy: &Policy) -> bool {
    policy.local.start.is_ipv4()
}

fn v4_address(address: IpAddr) -> Option<u32> {
    match address {
        IpAddr::V4(address) => Some(address.into()),
        IpAddr::V6(_) => None,
    }
}

fn v6_address(address: IpAddr) -> Option<u128> {
    match address {
        IpAddr::V6(address) => Some(address.into()),
        IpAddr::V4(_) => None,
    }
}

/// What a policy matches, as a box. Empty if its selectors are of two families.
fn volume<A: Coordinate>(policy: &Policy, address: fn(IpAddr) -> Option<A>) -> Volume<A> {
    let Policy { local, remote, .. } = policy;
    let addresses = |selector: &TrafficSelector| {
        let range = (address(selector.start), address(selector.end));
        match range {
            (Some(start), Some(end)) => (start, end),
            _ => (A::GREATEST, A::LEAST),
        }
    };
    let protocols = |selector: &TrafficSelector| match selector.protocol {
        0 => (0, u32::from(u8::MAX)),
        one => (one.into(), one.into()),
    };
    let number = |(low, high): (u32, u32)| (A::from(low), A::from(high));
    let both = (protocols(local), protocols(remote));
    let protocol = (both.0.0.max(both.1.0), both.0.1.min(both.1.1));
    let sides = [
        addresses(local),
        addresses(remote),
        number(protocol),
        number(local.port_range()),
        number(remote.port_range()),
    ];
    let (low, high): (Point<A>, Point<A>) =
        (sides.map(|(low, _)| low), sides.map(|(_, high)| high));
    Volume { low, high }
}

#[cfg(test)]
mod tests;
