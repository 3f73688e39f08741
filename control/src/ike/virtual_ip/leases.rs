//! Which virtual address is whose.
//!
//! Nothing of this is recorded by itself: every IKE SA has the addresses that it was given in its
//! own record, and whoever leads it holds them. So a new active member knows every lease that a
//! peer was ever told of, and gives none of them a second time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use aws_lc_rs::digest;
use hitless_sa::IkeSpi;

use crate::ike::established::IkeSa;
use crate::ike::proposal::Identification;
use crate::ike::settings::{Connection, Pool};

/// The pools, and the addresses of them that are in use.
pub(in crate::ike) struct Leases {
    pools: Vec<Pool>,
    held: BTreeMap<IpAddr, Lease>,
}

/// An address in use; by several IKE SAs while one replaces another.
struct Lease {
    holder: Holder,
    ikes: BTreeSet<IkeSpi>,
}

/// A peer, by its name and how that was proven.
pub(in crate::ike) struct Holder {
    /// Folded.
    id: Identification,
    connection: Arc<Connection>,
}

impl Holder {
    pub fn of(ike: &IkeSa) -> Holder {
        Holder {
            id: ike.peer().folded().into_owned(),
            connection: ike.connection.clone(),
        }
    }

    /// Another one by the same name may have proven it by less, or, with a secret, to another identity
    /// of ours by another secret.
    fn is(&self, other: &Holder) -> bool {
        let towards = |holder: &Holder| holder.connection.local_id.folded().into_owned();
        self.id == other.id
            && self.connection.believes_as(&other.connection)
            && towards(self) == towards(other)
    }
}

/// What a peer asks for.
pub(in crate::ike) struct Wish<'a> {
    pub pools: &'a [String],
    pub holder: &'a Holder,
    /// The address; unspecified for any of its family.
    pub address: IpAddr,
    /// Its other IKE SAs are dead (RFC 7296 section 2.4): their address is free for it.
    pub alone: bool,
}

impl Leases {
    pub fn new(pools: Vec<Pool>) -> Leases {
        Leases {
            pools,
            held: BTreeMap::new(),
        }
    }

    /// Notes what an IKE SA holds.
    pub fn hold(&mut self, ike: &IkeSa) {
        for address in &ike.addresses.given {
            let lease = self.held.entry(*address).or_insert_with(|| Lease {
                holder: Holder::of(ike),
                ikes: BTreeSet::new(),
            });
            lease.ikes.insert(ike.local_spi);
        }
    }

    /// The IKE SA is gone, or no longer ours.
    pub fn release(&mut self, ike: &IkeSa) {
        for address in &ike.addresses.given {
            let Some(lease) = self.held.get_mut(address) else {
                continue;
            };
            lease.ikes.remove(&ike.local_spi);
            if lease.ikes.is_empty() {
                self.held.remove(address);
            }
        }
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.held.clear();
    }

    /// An address for a peer, and the name servers that go with it.
    pub fn find(&self, wish: &Wish<'_>) -> Option<(IpAddr, &[IpAddr])> {
        let named = wish.pools.iter();
        let pools = named.filter_map(|name| self.pools.iter().find(|p| p.name == *name));
        let mut fitting = pools.filter(|p| p.first.is_ipv4() == wish.address.is_ipv4());
        fitting.find_map(|pool| Some((self.find_in(pool, wish)?, pool.dns.as_slice())))
    }

    fn find_in(&self, pool: &Pool, wish: &Wish<'_>) -> Option<IpAddr> {
        let within = |address: &IpAddr| (pool.first..=pool.last).contains(address);
        let theirs = |lease: &Lease| lease.holder.is(wish.holder);
        if within(&wish.address) && self.held.get(&wish.address).is_none_or(theirs) {
            return Some(wish.address);
        }
        let mut held = self.held.range(pool.first..=pool.last);
        if wish.alone
            && let Some((address, _)) = held.find(|(_, lease)| theirs(lease))
        {
            return Some(*address);
        }
        self.free(pool, &wish.holder.id)
    }

    /// A free address: the same one for the same peer as long as nobody else has it, on every
    /// member and after every restart, for it comes from the peer's identity.
    fn free(&self, pool: &Pool, holder: &Identification) -> Option<IpAddr> {
        let (first, last) = (number(pool.first), number(pool.last));
        let size = last.checked_sub(first)?.saturating_add(1);
        let start = first + digest(holder) % size;
        let held = |from: u128, to: u128| {
            let range = address(pool.first, from)..=address(pool.first, to);
            self.held.range(range).map(|(held, _)| number(*held))
        };
        // The first gap from there on, and then from the beginning.
        let gap = |from: u128, to: u128| {
            let mut candidate = from;
            for taken in held(from, to) {
                if taken != candidate {
                    break;
                }
                candidate = candidate.checked_add(1)?;
            }
            (candidate <= to).then_some(candidate)
        };
        let before = || start.checked_sub(1).filter(|end| *end >= first);
        let found = gap(start, last).or_else(|| gap(first, before()?));
        found.map(|number| address(pool.first, number))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address of a number, in the family of another one.
fn address(like: IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

/// Spreads identities over a pool.
fn digest(holder: &Identification) -> u128 {
    let hash = digest::digest(&digest::SHA256, &holder.to_body());
    let first = hash.as_ref().first_chunk::<16>();
    first.map_or(0, |octets| u128::from_be_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::auth::{EapUsers, RemoteAuth};
    use crate::ike::export::tests::settings;
    use proptest::prelude::*;

    fn pool(first: &str, last: &str) -> Leases {
        Leases::new(vec![Pool {
            name: "clients".to_owned(),
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
            dns: Vec::new(),
        }])
    }

    fn holder(name: &str) -> Holder {
        Holder {
            id: format!("{name}.test").parse().unwrap(),
            connection: Arc::new(settings(0).connections.remove(0)),
        }
    }

    impl Leases {
        fn take(&mut self, spi: u64, name: &str, wanted: &str, alone: bool) -> Option<IpAddr> {
            let holder = holder(name);
            let (address, _) = self.find(&Wish {
                pools: &["clients".to_owned()],
                holder: &holder,
                address: wanted.parse().unwrap(),
                alone,
            })?;
            let lease = self.held.entry(address).or_insert_with(|| Lease {
                holder,
                ikes: BTreeSet::new(),
            });
            lease.ikes.insert(IkeSpi(spi));
            Some(address)
        }

        fn end(&mut self, spi: u64) {
            for lease in self.held.values_mut() {
                lease.ikes.remove(&IkeSpi(spi));
            }
            self.held.retain(|_, lease| !lease.ikes.is_empty());
        }
    }

    #[test]
    fn a_pool_is_given_out_to_the_last_address_and_no_further() {
        for (first, last, any) in [
            ("10.3.0.1", "10.3.0.9", "0.0.0.0"),
            ("2001:db8::fff8", "2001:db8::1:0", "::"),
        ] {
            let mut leases = pool(first, last);
            let all: BTreeSet<_> = (0..9)
                .map(|n| leases.take(n, &format!("c{n}"), any, false).unwrap())
                .collect();
            assert_eq!(all.len(), 9);
            assert_eq!(leases.take(9, "late", any, false), None);
            leases.end(4);
            assert!(leases.take(9, "late", any, false).is_some());
        }
    }

    #[test]
    fn a_peer_gets_the_same_address_again() {
        let mut leases = pool("10.3.0.0", "10.3.255.255");
        let first = leases.take(1, "a", "0.0.0.0", false).unwrap();
        leases.end(1);
        assert_eq!(leases.take(2, "a", "0.0.0.0", false), Some(first));
        // Make before break: it names the address that it has.
        assert_eq!(leases.take(3, "a", &first.to_string(), false), Some(first));
        leases.end(2);
        assert!(leases.held.contains_key(&first));
        // It comes back without memory of the old one (INITIAL_CONTACT).
        assert_eq!(leases.take(4, "a", "0.0.0.0", true), Some(first));
    }

    #[test]
    fn two_devices_of_one_identity_and_a_thief_get_others() {
        let mut leases = pool("10.3.0.0", "10.3.255.255");
        let first = leases.take(1, "a", "0.0.0.0", false).unwrap();
        let second = leases.take(2, "a", "0.0.0.0", false).unwrap();
        let thief = leases.take(3, "b", &first.to_string(), true).unwrap();
        assert!(first != second && first != thief && second != thief);
        let outside = leases.take(4, "c", "192.0.2.9", false).unwrap();
        assert_ne!(outside, "192.0.2.9".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_holder_is_whoever_proves_its_name_alike_to_the_same_of_us() {
        let with = |change: fn(&mut Connection)| {
            let mut connection = settings(0).connections.remove(0);
            change(&mut connection);
            let connection = Arc::new(connection);
            let id = holder("a").id;
            Holder { id, connection }
        };
        let first = holder("a");
        assert!(first.is(&holder("a")) && !first.is(&holder("b")));
        assert!(first.is(&with(|c| c.name = "renamed".to_owned())));
        let by_password: fn(&mut Connection) = |c| {
            c.name = "other".to_owned();
            c.auth.remote = RemoteAuth::Eap(EapUsers::ByIkeIdentity);
        };
        assert!(!first.is(&with(by_password)));
        assert!(with(by_password).is(&with(by_password)));
        assert!(!first.is(&with(|c| c.local_id = "other.test".parse().unwrap())));
    }

    #[test]
    fn another_family_or_an_unknown_pool_gives_none() {
        let mut leases = pool("10.3.0.0", "10.3.0.255");
        assert_eq!(leases.take(1, "a", "::", false), None);
        leases.pools.clear();
        assert_eq!(leases.take(1, "a", "0.0.0.0", false), None);
    }

    proptest! {
        #[test]
        fn no_address_has_two_holders_whatever_comes_and_goes(
            steps in prop::collection::vec((0u64..24, any::<bool>(), 0u8..20), 1..200),
        ) {
            let mut leases = pool("10.3.0.1", "10.3.0.16");
            let mut live: BTreeMap<u64, (String, IpAddr)> = BTreeMap::new();
            for (spi, begins, wanted) in steps {
                if live.remove(&spi).is_some() {
                    leases.end(spi);
                }
                if !begins {
                    continue;
                }
                let name = format!("c{}", spi % 12);
                let wanted = format!("10.3.0.{wanted}");
                if let Some(address) = leases.take(spi, &name, &wanted, false) {
                    let others = live.values().filter(|(_, a)| *a == address);
                    for (other, _) in others {
                        prop_assert_eq!(other, &name);
                    }
                    live.insert(spi, (name, address));
                } else {
                    let taken: BTreeSet<_> = live.values().map(|(_, a)| *a).collect();
                    prop_assert_eq!(taken.len(), 16);
                }
            }
        }
    }
}
