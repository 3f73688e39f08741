//! Which connections are meant for a pair of addresses, found without asking each of thousands.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::nat::Path;
use super::settings::Connection;

/// The numbers of connections, in the order of the configuration.
type Numbers = BTreeSet<usize>;

/// Made anew with each configuration.
#[derive(Default)]
pub(super) struct Meant {
    /// By our address, for peers that may be anywhere.
    anywhere: BTreeMap<IpAddr, Numbers>,
    /// By our address and the peer's.
    pairs: BTreeMap<(IpAddr, IpAddr), Numbers>,
}

impl Meant {
    pub fn new(connections: &[Arc<Connection>]) -> Meant {
        let mut meant = Meant::default();
        for (number, connection) in connections.iter().enumerate() {
            for local in &connection.local_addrs {
                if connection.remote_addrs.is_empty() {
                    meant.anywhere.entry(*local).or_default().insert(number);
                }
                for remote in &connection.remote_addrs {
                    let pair = (*local, *remote);
                    meant.pairs.entry(pair).or_default().insert(number);
                }
            }
        }
        meant
    }

    /// Whether any is meant for them. Strangers ask this as often as they like.
    pub fn any(&self, path: Path) -> bool {
        let (local, remote) = (path.local.ip(), path.remote.ip());
        self.pairs.contains_key(&(local, remote)) || self.anywhere.contains_key(&local)
    }

    /// Those of `connections`, of which this was made, in their order.
    pub fn among(&self, connections: &[Arc<Connection>], path: Path) -> Vec<Arc<Connection>> {
        let (local, remote) = (path.local.ip(), path.remote.ip());
        let here = self.pairs.get(&(local, remote)).into_iter().flatten();
        let anywhere = self.anywhere.get(&local).into_iter().flatten();
        let mut numbers: Vec<usize> = here.chain(anywhere).copied().collect();
        // Two runs in order each, of which one is mostly empty.
        numbers.sort_unstable();
        let named = numbers.into_iter();
        named.filter_map(|n| connections.get(n).cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::export::tests::settings;
    use crate::ike::initial::addresses_match;

    #[test]
    fn it_finds_those_that_match_in_the_order_of_the_file() {
        let one = settings(0).connections.remove(0);
        let (here, there) = (one.local_addrs.clone(), one.remote_addrs.clone());
        let other: IpAddr = [198, 51, 100, 9].into();
        let connection = |name: &str, local: &[IpAddr], remote: &[IpAddr]| {
            let mut connection = one.clone();
            connection.name = name.to_owned();
            (connection.local_addrs, connection.remote_addrs) = (local.to_vec(), remote.to_vec());
            Arc::new(connection)
        };
        let all = [
            connection("anywhere", &here, &[]),
            connection("there", &here, &[there[0], other, there[0]]),
            connection("elsewhere", &here, &[other]),
            connection("not here", &[other], &there),
            connection("both", &[other, here[0]], &there),
            connection("anywhere again", &[here[0], other], &[]),
        ];
        let meant = Meant::new(&all);
        for local in [here[0], other] {
            for remote in [there[0], other, here[0]] {
                let path = Path {
                    local: (local, 500).into(),
                    remote: (remote, 500).into(),
                };
                let found = meant.among(&all, path);
                let expected = all.iter().filter(|c| addresses_match(c, path));
                assert_eq!(meant.any(path), !found.is_empty());
                let names = |c: &Arc<Connection>| c.name.clone();
                let found: Vec<_> = found.iter().map(names).collect();
                assert_eq!(found, expected.map(names).collect::<Vec<_>>());
            }
        }
    }
}
