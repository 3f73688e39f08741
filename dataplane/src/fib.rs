//! The forwarding table: longest prefix wins (RFC 1812 section 5.2.4.3). Built once by the control
//! thread, then only read; a change is a new table.

use std::net::{IpAddr, Ipv4Addr};

/// Where packets to a prefix go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Address and prefix length; host bits are ignored.
    pub prefix: (IpAddr, u8),
    /// Index of the port.
    pub port: usize,
    /// Next router, or nothing if the prefix is on the link.
    pub next_hop: Option<IpAddr>,
}

/// What a lookup finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop {
    /// Index of the port.
    pub port: usize,
    /// Next router, or nothing if the destination is on the link.
    pub next_hop: Option<IpAddr>,
}

/// Routes of one family and one prefix length, ordered by their prefix.
struct Length {
    bits: u8,
    routes: Vec<(u128, Hop)>,
}

/// Routes by prefix length, longest first.
#[derive(Default)]
pub struct Fib {
    v4: Vec<Length>,
    v6: Vec<Length>,
}

impl Fib {
    /// A table of these routes. Of two for the same prefix the first counts; a route whose prefix
    /// is longer than an address, or whose next hop is of another family, is left out.
    pub fn new(routes: &[Route]) -> Fib {
        let mut fib = Fib::default();
        for route in routes {
            let (address, bits) = route.prefix;
            let family = if address.is_ipv4() {
                &mut fib.v4
            } else {
                &mut fib.v6
            };
            let mixed = route
                .next_hop
                .is_some_and(|hop| hop.is_ipv4() != address.is_ipv4());
            if bits > width(address) || mixed {
                continue;
            }
            let at = match family.binary_search_by(|l| bits.cmp(&l.bits)) {
                Ok(at) => at,
                Err(at) => {
                    let routes = Vec::new();
                    family.insert(at, Length { bits, routes });
                    at
                }
            };
            let key = masked(address, bits);
            let hop = Hop {
                port: route.port,
                next_hop: route.next_hop,
            };
            if let Some(length) = family.get_mut(at)
                && let Err(place) = length.routes.binary_search_by_key(&key, |(k, _)| *k)
            {
                length.routes.insert(place, (key, hop));
            }
        }
        fib
    }

    /// Where a packet to `destination` goes.
    pub fn lookup(&self, destination: IpAddr) -> Option<Hop> {
        let family = if destination.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        };
        family.iter().find_map(|length| {
            let key = masked(destination, length.bits);
            let at = length.routes.binary_search_by_key(&key, |(k, _)| *k).ok()?;
            length.routes.get(at).map(|(_, hop)| *hop)
        })
    }

    /// As [`Fib::lookup`], with the neighbour to hand an IPv4 packet to.
    pub fn lookup_v4(&self, destination: Ipv4Addr) -> Option<(usize, Ipv4Addr)> {
        let hop = self.lookup(destination.into())?;
        match hop.next_hop {
            Some(IpAddr::V4(router)) => Some((hop.port, router)),
            Some(IpAddr::V6(_)) => None,
            None => Some((hop.port, destination)),
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first `bits` of the address as a number.
fn masked(address: IpAddr, bits: u8) -> u128 {
    let value = match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    };
    let host = u32::from(width(address).saturating_sub(bits));
    value.checked_shr(host).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn route(prefix: &str, bits: u8, port: usize, next_hop: Option<&str>) -> Route {
        Route {
            prefix: (prefix.parse().unwrap(), bits),
            port,
            next_hop: next_hop.map(|hop| hop.parse().unwrap()),
        }
    }

    #[test]
    fn longest_prefix_wins_rfc_1812_section_5_2_4_3() {
        let fib = Fib::new(&[
            route("0.0.0.0", 0, 1, Some("192.0.2.254")),
            route("10.1.0.0", 16, 0, None),
            route("10.1.2.0", 24, 2, Some("10.1.0.9")),
            route("10.1.2.3", 32, 3, None),
            route("2001:db8::", 32, 4, None),
        ]);
        let port = |text: &str| fib.lookup(text.parse().unwrap()).map(|hop| hop.port);
        assert_eq!(port("10.1.2.3"), Some(3));
        assert_eq!(port("10.1.2.4"), Some(2));
        assert_eq!(port("10.1.3.4"), Some(0));
        assert_eq!(port("8.8.8.8"), Some(1));
        assert_eq!(port("2001:db8::1"), Some(4));
        assert_eq!(port("2001:db9::1"), None);
        assert_eq!(
            fib.lookup_v4(Ipv4Addr::new(8, 8, 8, 8)),
            Some((1, Ipv4Addr::new(192, 0, 2, 254)))
        );
        let on_link = Ipv4Addr::new(10, 1, 9, 9);
        assert_eq!(fib.lookup_v4(on_link), Some((0, on_link)));
    }

    #[test]
    fn nonsense_routes_are_left_out() {
        let fib = Fib::new(&[
            route("10.0.0.0", 33, 0, None),
            route("0.0.0.0", 0, 0, Some("2001:db8::1")),
        ]);
        assert_eq!(fib.lookup("10.0.0.1".parse().unwrap()), None);
    }

    proptest! {
        #[test]
        fn agrees_with_a_linear_search(
            routes in prop::collection::vec((any::<u32>(), 0u8..=32), 1..40), picks: [u32; 8],
        ) {
            let routes: Vec<Route> = routes.iter().enumerate().map(|(port, (address, bits))| Route {
                prefix: (Ipv4Addr::from(*address).into(), *bits), port, next_hop: None,
            }).collect();
            let fib = Fib::new(&routes);
            let near = routes.iter().map(|r| r.prefix.0);
            for address in near.chain(picks.map(|p| Ipv4Addr::from(p).into())) {
                let naive = routes.iter()
                    .filter(|r| masked(r.prefix.0, r.prefix.1) == masked(address, r.prefix.1))
                    .rev().max_by_key(|r| r.prefix.1).map(|r| (r.port, r.prefix.1));
                let found = fib.lookup(address).map(|hop| (hop.port, routes[hop.port].prefix.1));
                prop_assert_eq!(found, naive);
            }
        }
    }
}
