//! Where policies and routes of the protected side speak of the same hosts. What the forwarding table
//! sends to the protected side does not cross the boundary, and no policy is asked for it (RFC 4301
//! section 3.1). But a policy that protects a part of a protected network - one remote office behind
//! `routes = ["10.0.0.0/8 via 10.1.0.254"]`, or a pool for clients inside the office's own network - says
//! where that part is: as with routes the longest prefix wins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hitless_sa::TrafficSelector;

use super::{Action, Policy};
use crate::fib::{Fib, Route};

/// The prefixes of both, each with its length in place of a port.
#[derive(Clone, Default, Debug)]
pub(super) struct Inside {
    routes: Arc<Fib>,
    claimed: Option<Arc<Fib>>,
}

impl Inside {
    /// Of the routes that lead to the protected side.
    pub(super) fn new(prefixes: &[(IpAddr, u8)]) -> Inside {
        Inside {
            routes: Arc::new(lengths(prefixes.iter().copied())),
            claimed: None,
        }
    }

    /// The same routes with other policies.
    pub(super) fn with(&self, policies: &[Policy]) -> Inside {
        let protected = policies
            .iter()
            .filter(|policy| matches!(policy.action, Action::Protect(_)));
        let remote = protected.flat_map(|policy| prefixes(&policy.remote));
        // Only what begins in a route can be a part of one.
        let claimed: Vec<_> = remote
            .filter(|(start, _)| self.routes.lookup(*start).is_some())
            .collect();
        Inside {
            routes: Arc::clone(&self.routes),
            claimed: (!claimed.is_empty()).then(|| Arc::new(lengths(claimed.into_iter()))),
        }
    }

    /// Whether there is any such policy.
    pub(super) fn is_claimed(&self) -> bool {
        self.claimed.is_some()
    }

    /// Whether policies know a host by a longer prefix than routes of the protected side.
    #[inline]
    pub(super) fn claims(&self, host: IpAddr) -> bool {
        let claimed = self.claimed.as_ref();
        claimed.is_some_and(|claimed| length(claimed, host) > length(&self.routes, host))
    }
}

fn lengths(prefixes: impl Iterator<Item = (IpAddr, u8)>) -> Fib {
    let routes: Vec<Route> = prefixes
        .map(|prefix| Route {
            prefix,
            port: prefix.1.into(),
            next_hop: None,
        })
        .collect();
    Fib::new(&routes)
}

fn length(fib: &Fib, host: IpAddr) -> Option<usize> {
    fib.lookup(host).map(|hop| hop.port)
}

/// The prefixes that a selector's addresses consist of: 254 at most, and mostly one.
fn prefixes(selector: &TrafficSelector) -> impl Iterator<Item = (IpAddr, u8)> {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => address.into(),
    };
    let v4 = selector.start.is_ipv4();
    let width: u32 = if v4 { 32 } else { 128 };
    let end = number(selector.end);
    let mixed = selector.end.is_ipv4() != v4;
    let mut next = Some(number(selector.start)).filter(|start| !mixed && *start <= end);
    std::iter::from_fn(move || {
        let start = next?;
        // As many host bits as the start has zeros and the rest of the range has room for.
        let room = match (end - start).checked_add(1) {
            Some(hosts) => hosts.ilog2(),
            None => u128::BITS,
        };
        let host = start.trailing_zeros().min(room).min(width);
        let last = start | u128::MAX.checked_shr(u128::BITS - host).unwrap_or(0);
        next = last.checked_add(1).filter(|next| *next <= end);
        let address = match v4 {
            true => Ipv4Addr::from(start as u32).into(),
            false => Ipv6Addr::from(start).into(),
        };
        Some((address, (width - host) as u8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: &str, end: &str) -> TrafficSelector {
        TrafficSelector {
            protocol: 0,
            start_port: 0,
            end_port: u16::MAX,
            start: start.parse().unwrap(),
            end: end.parse().unwrap(),
        }
    }

    fn protect(remote: TrafficSelector) -> Policy {
        Policy {
            local: range("0.0.0.0", "255.255.255.255"),
            remote,
            action: Action::Protect(None),
        }
    }

    fn prefix(text: &str) -> (IpAddr, u8) {
        let (address, bits) = text.split_once('/').unwrap();
        (address.parse().unwrap(), bits.parse().unwrap())
    }

    #[test]
    fn the_longest_prefix_wins_and_of_equal_ones_the_route() {
        let inside = Inside::new(&[prefix("10.0.0.0/8"), prefix("10.2.3.0/24")]);
        let claims = |inside: &Inside, host: &str| inside.claims(host.parse().unwrap());
        let office = inside.with(&[protect(range("10.2.0.0", "10.2.255.255"))]);
        assert!(office.is_claimed());
        assert!(claims(&office, "10.2.0.1"));
        assert!(!claims(&office, "10.2.3.1"), "a network of ours in theirs");
        assert!(!claims(&office, "10.3.0.1"));
        let same = inside.with(&[protect(range("10.0.0.0", "10.255.255.255"))]);
        assert!(!claims(&same, "10.2.0.1") && !claims(&same, "10.3.0.1"));
        // Everything, and what has nothing to do with the protected side, is no part of it.
        let all = [
            range("0.0.0.0", "255.255.255.255"),
            range("192.0.2.0", "192.0.2.255"),
        ];
        assert!(!inside.with(&all.map(protect)).is_claimed());
        let bypass = Policy {
            action: Action::Bypass,
            ..protect(range("10.2.0.0", "10.2.255.255"))
        };
        assert!(!inside.with(&[bypass]).is_claimed());
        let none = Inside::default().with(&[protect(range("10.2.0.0", "10.2.255.255"))]);
        assert!(!none.is_claimed(), "no protected side at all");
    }

    #[test]
    fn whole_families_are_one_prefix_and_nonsense_is_none() {
        let of = |start, end| prefixes(&range(start, end)).collect::<Vec<_>>();
        assert_eq!(of("0.0.0.0", "255.255.255.255"), [prefix("0.0.0.0/0")]);
        let all_v6 = of("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(all_v6, [prefix("::/0")]);
        assert_eq!(
            of("2001:db8::7", "2001:db8::7"),
            [prefix("2001:db8::7/128")]
        );
        assert_eq!(of("10.0.0.2", "10.0.0.1"), []);
        assert_eq!(of("10.0.0.1", "2001:db8::7"), []);
        let longest = of("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe");
        assert_eq!(longest.len(), 254);
    }

    proptest! {
        #[test]
        fn the_prefixes_of_a_range_are_its_addresses_each_once(start: u32, length: u32) {
            let end = start.saturating_add(length);
            let [from, to] = [start, end].map(|a| IpAddr::from(Ipv4Addr::from(a)));
            let selector = TrafficSelector { start: from, end: to, ..range("::", "::") };
            let mut next = u64::from(start);
            for (address, bits) in prefixes(&selector) {
                let IpAddr::V4(address) = address else { panic!("{address}") };
                prop_assert_eq!(u64::from(u32::from(address)), next);
                next += 1 << (32 - bits);
            }
            prop_assert_eq!(next, u64::from(end) + 1);
        }
    }
}
