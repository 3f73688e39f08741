//! The SPD: what is protected, what passes in clear, what is discarded (RFC 4301 section 4.4.1).
//! Ordered, first match wins; without a match a packet is discarded (section 5.1). Built by the
//! control thread, then only read but for its counts; a change is a new database.

mod cache;
mod classifier;
mod inside;
mod tally;

use std::net::IpAddr;

use hitless_sa::{SaId, TrafficSelector};
use smallvec::SmallVec;

use crate::flow::{Flow, Ports};
use crate::port::BURST;
use crate::prefetch::prefetch;
use classifier::{Classifier, Coordinate, LOCAL_PORT, PROTOCOL, Point, REMOTE_PORT, Volume};
use inside::Inside;
use tally::Tally;

pub(crate) use cache::FlowCache;
pub use tally::PolicyTraffic;

/// From so many policies on the tree outgrows the caches, and searches gain by taking turns.
const LARGE: usize = if cfg!(test) { 20 } else { 32_768 };

/// Above every protocol: what IPv6 extension headers hide in a later fragment.
const UNKNOWN_PROTOCOL: u32 = 1 << 8;

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
    /// What a packet that hides its ports may belong to: the policies that keep traffic from going
    /// in clear, as if they named neither ports nor, over IPv6, a protocol.
    veiled_v4: Classifier<u32>,
    veiled_v6: Classifier<u128>,
    inside: Inside,
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
        Spd::build(policies, tallies, workers, &Inside::default())
    }

    /// The same of a gateway whose protected side has these routes: its policies have the hosts that
    /// they know by longer prefixes.
    #[must_use]
    pub fn beside(mut self, routes: &[(IpAddr, u8)]) -> Spd {
        self.inside = Inside::new(routes).with(&self.policies);
        self
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
        Spd::build(policies, tallies, self.workers, &self.inside)
    }

    fn build(policies: Vec<Policy>, tallies: Vec<Tally>, workers: usize, inside: &Inside) -> Spd {
        let volumes = |v4| (0..).zip(&policies).filter(move |(_, p)| is_v4(p) == v4);
        let veiled = |v4| volumes(v4).filter(|(_, policy)| sees_ports(policy));
        Spd {
            veiled_v4: Classifier::new(
                veiled(true).flat_map(|(n, policy)| unveiled(n, volume(policy, v4_address))),
            ),
            veiled_v6: Classifier::new(
                veiled(false).flat_map(|(n, policy)| unveiled(n, volume(policy, v6_address))),
            ),
            v4: Classifier::new(volumes(true).map(|(n, policy)| (n, volume(policy, v4_address)))),
            v6: Classifier::new(volumes(false).map(|(n, policy)| (n, volume(policy, v6_address)))),
            inside: inside.with(&policies),
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

    /// Whether a packet that a route would send to the protected side is to be protected instead.
    #[inline]
    pub(crate) fn takes(&self, flow: &Flow) -> bool {
        self.claims(flow.destination) && self.protects(flow)
    }

    #[cold]
    fn protects(&self, flow: &Flow) -> bool {
        let action = self.outbound(flow).map(|found| found.action);
        matches!(action, Some(Action::Protect(_)))
    }

    /// Whether that may be so of a packet to this host.
    #[inline]
    pub(crate) fn claims(&self, host: IpAddr) -> bool {
        self.inside.claims(host)
    }

    /// Whether it may be so of any.
    pub(crate) fn claims_any(&self) -> bool {
        self.inside.is_claimed()
    }

    /// The policy for a packet that came in clear to the unprotected side (RFC 4301 section 5.2).
    #[inline]
    pub fn inbound(&self, flow: &Flow) -> Option<Match> {
        let ports = ports(flow);
        self.find((flow.destination, ports.1), (flow.source, ports.0), flow)
    }

    /// As [`Spd::outbound`], of a burst at once: while one search waits for memory the others go on.
    /// `found` is as long as `flows`.
    pub fn outbound_all(&self, flows: &[Flow], found: &mut [Option<Match>]) {
        if self.policies.len() < LARGE {
            for (found, flow) in found.iter_mut().zip(flows) {
                *found = self.outbound(flow);
            }
            return;
        }
        let mut v4: Burst<u32> = Burst::default();
        let mut v6: Burst<u128> = Burst::default();
        for (at, flow) in flows.iter().enumerate() {
            let ports = ports(flow);
            match point((flow.source, ports.0), (flow.destination, ports.1), flow) {
                Some(Place::V4(point)) => v4.add(at, point),
                Some(Place::V6(point)) => v6.add(at, point),
                None => {}
            }
        }
        let mut note = |at: usize, policy: Option<u32>| {
            if let (Some(found), Some(flow)) = (found.get_mut(at), flows.get(at)) {
                let matched = policy.and_then(|policy| self.matched(policy));
                *found =
                    matched.filter(|found| self.may_be(found, flow.source, flow.destination, flow));
            }
        };
        v4.search(&self.v4, &mut note);
        v6.search(&self.v6, &mut note);
    }

    #[inline]
    fn find(&self, local: (IpAddr, u32), remote: (IpAddr, u32), flow: &Flow) -> Option<Match> {
        let policy = match point(local, remote, flow)? {
            Place::V4(point) => self.v4.find(&point),
            Place::V6(point) => self.v6.find(&point),
        };
        self.matched(policy?)
            .filter(|found| self.may_be(found, local.0, remote.0, flow))
    }

    /// Whether what was found for a packet holds although its ports may be hidden. A later fragment
    /// does not go in clear if the rest of its datagram may be bound by an earlier policy to be
    /// protected or discarded (RFC 4301 section 7.4).
    #[inline]
    fn may_be(&self, found: &Match, local: IpAddr, remote: IpAddr, flow: &Flow) -> bool {
        flow.ports != Ports::Opaque
            || found.action != Action::Bypass
            || !self.is_veiled(found, local, remote, flow)
    }

    #[cold]
    fn is_veiled(&self, found: &Match, local: IpAddr, remote: IpAddr, flow: &Flow) -> bool {
        let first = match point((local, 0), (remote, 0), flow) {
            Some(Place::V4(point)) => self.veiled_v4.find(&point),
            Some(Place::V6(mut point)) => {
                if flow.hides_protocol()
                    && let Some(protocol) = point.get_mut(PROTOCOL)
                {
                    *protocol = UNKNOWN_PROTOCOL.into();
                }
                self.veiled_v6.find(&point)
            }
            None => None,
        };
        first.is_some_and(|first| (first as usize) < found.policy)
    }

    #[inline]
    fn matched(&self, policy: u32) -> Option<Match> {
        let policy = policy as usize;
        let action = self.policies.get(policy)?.action;
        Some(Match { policy, action })
    }

    /// Notes that a worker handled a packet of so many octets by a policy.
    #[inline]
    pub(crate) fn count(&self, worker: usize, policy: usize, direction: Direction, octets: usize) {
        self.count_all(worker, policy, direction, (1, octets));
    }

    /// As [`Spd::count`], of several packets with so many octets together.
    #[inline]
    pub(crate) fn count_all(
        &self,
        worker: usize,
        policy: usize,
        direction: Direction,
        (packets, octets): (usize, usize),
    ) {
        if let Some(tally) = self.tallies.get(policy) {
            tally.add(worker, direction, [packets as u64, octets as u64]);
        }
    }

    /// Asks for what says where [`Spd::count`] counts.
    #[inline]
    pub(crate) fn prefetch_tally(&self, policy: usize) {
        if let Some(tally) = self.tallies.get(policy) {
            prefetch(tally);
        }
    }

    /// Asks for where it counts, when that is known.
    #[inline]
    pub(crate) fn prefetch_share(&self, worker: usize, policy: usize) {
        if let Some(tally) = self.tallies.get(policy) {
            tally.prefetch_counts(worker);
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

/// What a packet is in the tree of its family.
enum Place {
    V4(Point<u32>),
    V6(Point<u128>),
}

/// Of two addresses with their ports; none if they are of two families.
#[inline]
fn point(local: (IpAddr, u32), remote: (IpAddr, u32), flow: &Flow) -> Option<Place> {
    let protocol = u32::from(flow.protocol);
    match (local.0, remote.0) {
        (IpAddr::V4(ours), IpAddr::V4(theirs)) => Some(Place::V4([
            ours.into(),
            theirs.into(),
            protocol,
            local.1,
            remote.1,
        ])),
        (IpAddr::V6(ours), IpAddr::V6(theirs)) => Some(Place::V6([
            ours.into(),
            theirs.into(),
            protocol.into(),
            local.1.into(),
            remote.1.into(),
        ])),
        _ => None,
    }
}

/// The packets of a burst that are of one family.
struct Burst<A> {
    at: SmallVec<[usize; BURST]>,
    points: SmallVec<[Point<A>; BURST]>,
}

impl<A> Default for Burst<A> {
    fn default() -> Burst<A> {
        Burst {
            at: SmallVec::new(),
            points: SmallVec::new(),
        }
    }
}

impl<A: Coordinate> Burst<A> {
    fn add(&mut self, at: usize, point: Point<A>) {
        self.at.push(at);
        self.points.push(point);
    }

    fn search(&self, tree: &Classifier<A>, note: &mut impl FnMut(usize, Option<u32>)) {
        // No more than a burst at a time, whatever the caller has: nothing is allocated.
        for (at, points) in self.at.chunks(BURST).zip(self.points.chunks(BURST)) {
            let mut found = [None; BURST];
            tree.find_all(points, &mut found);
            for (at, policy) in at.iter().zip(found) {
                note(*at, policy);
            }
        }
    }
}

/// Whether a policy keeps traffic from going in clear, and does so by looking at its ports or, which
/// IPv6 may hide too, its protocol.
fn sees_ports(policy: &Policy) -> bool {
    let Policy { local, remote, .. } = policy;
    let sees = |side: &TrafficSelector| !side.is_any_port() || side.protocol != 0;
    policy.action != Action::Bypass && (sees(local) || sees(remote))
}

/// What a policy matches if ports do not count, and the same for a protocol that cannot be seen.
fn unveiled<A: Coordinate>(policy: u32, volume: Volume<A>) -> [(u32, Volume<A>); 2] {
    let mut known = volume;
    let nowhere = volume.is_empty();
    for ports in [LOCAL_PORT, REMOTE_PORT] {
        if let (Some(low), Some(high), false) =
            (known.low.get_mut(ports), known.high.get_mut(ports), nowhere)
        {
            (*low, *high) = (A::LEAST, A::from(TrafficSelector::OPAQUE_PORT));
        }
    }
    let mut unknown = known;
    if let (Some(low), Some(high), false) = (
        unknown.low.get_mut(PROTOCOL),
        unknown.high.get_mut(PROTOCOL),
        nowhere,
    ) {
        (*low, *high) = (A::from(UNKNOWN_PROTOCOL), A::from(UNKNOWN_PROTOCOL));
    }
    [(policy, known), (policy, unknown)]
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
