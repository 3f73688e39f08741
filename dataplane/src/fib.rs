//! The forwarding table: longest prefix wins (RFC 1812 section 5.2.4.3). Built once by the control
//! thread, then only read; a change is a new table.

mod trie;

use std::collections::BTreeMap;
use std::net::IpAddr;

use trie::{Prefix, Trie};

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

/// Two tries, one for each family, and the hops that their leaves name.
#[derive(Default, Debug)]
pub struct Fib {
    v4: Trie,
    v6: Trie,
    hops: Vec<Hop>,
}

impl Fib {
    /// A table of these routes. Of two for the same prefix the first counts; a route whose prefix
    /// is longer than an address, or whose next hop is of another family, is left out.
    pub fn new(routes: &[Route]) -> Fib {
        let mut hops = Vec::new();
        let mut numbers = BTreeMap::new();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for route in routes {
            let (address, bits) = route.prefix;
            let mixed = route
                .next_hop
                .is_some_and(|hop| hop.is_ipv4() != address.is_ipv4());
            if bits > width(address) || mixed {
                continue;
            }
            let hop = Hop {
                port: route.port,
                next_hop: route.next_hop,
            };
            let number = *numbers.entry((hop.port, hop.next_hop)).or_insert_with(|| {
                hops.push(hop);
                hops.len() as u32 - 1
            });
            let family = if address.is_ipv4() { &mut v4 } else { &mut v6 };
            family.push(Prefix::new(key(address), bits, number));
        }
        Fib {
            v4: Trie::new(v4),
            v6: Trie::new(v6),
            hops,
        }
    }

    /// The routers, and by which port each is reached.
    pub fn routers(&self) -> impl Iterator<Item = (usize, IpAddr)> {
        let routers = self.hops.iter();
        routers.filter_map(|hop| Some((hop.port, hop.next_hop?)))
    }

    /// Where a packet to `destination` goes.
    #[inline]
    pub fn lookup(&self, destination: IpAddr) -> Option<Hop> {
        let number = match destination {
            IpAddr::V4(to) => self.v4.find(u64::from(u32::from(to)) << 32, 0),
            IpAddr::V6(to) => {
                let key = u128::from(to);
                self.v6.find((key >> 64) as u64, key as u64)
            }
        }?;
        self.hops.get(number as usize).copied()
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address as a number whose first bit is the highest, whatever its family.
#[inline]
fn key(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)) << 96,
        IpAddr::V6(a) => a.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

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
        let hop = |text: &str| fib.lookup(text.parse().unwrap()).map(|hop| hop.next_hop);
        assert_eq!(hop("8.8.8.8"), Some(Some("192.0.2.254".parse().unwrap())));
        assert_eq!(hop("10.1.9.9"), Some(None), "on the link");
    }

    #[test]
    fn nonsense_routes_are_left_out() {
        let fib = Fib::new(&[
            route("10.0.0.0", 33, 0, None),
            route("0.0.0.0", 0, 0, Some("2001:db8::1")),
        ]);
        assert_eq!(fib.lookup("10.0.0.1".parse().unwrap()), None);
    }

    /// The longest of the prefixes that hold the address; of equal ones the first.
    fn naive(routes: &[Route], address: IpAddr) -> Option<usize> {
        let holds = |route: &&Route| {
            let (prefix, bits) = route.prefix;
            let host = 128 - u32::from(bits);
            let same = (key(prefix) ^ key(address)).checked_shr(host).unwrap_or(0) == 0;
            same && prefix.is_ipv4() == address.is_ipv4()
        };
        let longest = routes.iter().filter(holds).rev();
        longest
            .max_by_key(|route| route.prefix.1)
            .map(|route| route.port)
    }

    fn any_route() -> impl Strategy<Value = Route> {
        let v4 = (any::<u32>(), any::<u8>(), 0u8..=32).prop_map(|(far, near, bits)| {
            // Some near each other, so that prefixes nest.
            let address = if near < 128 {
                u32::from(near) << 20 | far & 0xff
            } else {
                far
            };
            (IpAddr::from(Ipv4Addr::from(address)), bits)
        });
        let v6 = (any::<u128>(), any::<u8>(), 0u8..=128).prop_map(|(far, near, bits)| {
            let address = if near < 128 {
                u128::from(near) << 100 | far & 0xff
            } else {
                far
            };
            (IpAddr::from(std::net::Ipv6Addr::from(address)), bits)
        });
        prop_oneof![v4, v6].prop_map(|prefix| Route {
            prefix,
            port: 0,
            next_hop: None,
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_linear_search_in_both_families(
            prefixes in prop::collection::vec(any_route(), 1..60), picks: [u32; 8], picks_v6: [u128; 8],
        ) {
            let number = |(port, route): (usize, &Route)| Route { port, ..*route };
            let routes: Vec<Route> = prefixes.iter().enumerate().map(number).collect();
            let fib = Fib::new(&routes);
            let near = routes.iter().flat_map(|route| {
                let (address, bits) = route.prefix;
                let host = u128::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
                let base = key(address) & !host;
                let edges = [key(address), base, base | host, base.wrapping_sub(1), (base | host).wrapping_add(1)];
                edges.map(|edge| match address {
                    IpAddr::V4(_) => IpAddr::from(Ipv4Addr::from((edge >> 96) as u32)),
                    IpAddr::V6(_) => IpAddr::from(std::net::Ipv6Addr::from(edge)),
                })
            });
            let far = picks.map(|p| IpAddr::from(Ipv4Addr::from(p)));
            let far_v6 = picks_v6.map(|p| IpAddr::from(std::net::Ipv6Addr::from(p)));
            for address in near.chain(far).chain(far_v6) {
                let found = fib.lookup(address).map(|hop| hop.port);
                prop_assert_eq!(found, naive(&routes, address), "{}", address);
            }
        }
    }

    #[test]
    fn a_hundred_thousand_routes_take_a_few_steps_and_little_memory_each() {
        let scattered = |n: u32| n.wrapping_mul(2_654_435_769);
        let v4 = |n| (IpAddr::from(Ipv4Addr::from(scattered(n) & !0xff)), 24u8);
        let v6 = |n| {
            let address = 0x2001u128 << 112 | u128::from(scattered(n)) << 80;
            (IpAddr::from(std::net::Ipv6Addr::from(address)), 48u8)
        };
        for make in [&v4 as &dyn Fn(u32) -> (IpAddr, u8), &v6] {
            let routes: Vec<Route> = (0..100_000)
                .map(|n| Route {
                    prefix: make(n),
                    port: n as usize % 7,
                    next_hop: None,
                })
                .collect();
            let fib = Fib::new(&routes);
            for route in routes.iter().step_by(97) {
                assert_eq!(
                    fib.lookup(route.prefix.0).map(|hop| hop.port),
                    Some(route.port)
                );
            }
            let octets = fib.v4.memory() + fib.v6.memory();
            assert!(octets < 200 * routes.len(), "{octets} octets");
        }
    }
}
