//! What `dynamic` stands for on one IKE SA: virtual addresses (RFC 7296 section 2.19), or the
//! addresses that IKE itself runs between, which is what transport mode protects.

use std::net::IpAddr;

use hitless_sa::{Mode, TrafficSelector};

use super::established::IkeSa;
use super::nat::Path;
use super::settings::{Child, Connection};

/// The addresses at both ends; `None` while they are not known.
pub(super) struct Ends {
    local: Option<Vec<IpAddr>>,
    remote: Option<Vec<IpAddr>>,
    /// For transport mode, which protects what goes between these addresses and nothing else.
    there: IpAddr,
}

impl Ends {
    /// Of an IKE SA.
    pub fn of(ike: &IkeSa) -> Ends {
        let roads = &ike.connection.roads;
        let or_own = |virtual_ips: &[IpAddr], expected: bool, own: IpAddr| match expected {
            true => virtual_ips.to_vec(),
            false => vec![own],
        };
        let addresses = &ike.addresses;
        let (local, remote) = (ike.path.local.ip(), ike.proven);
        let there = ike.path.remote.ip();
        Ends {
            local: Some(or_own(&addresses.taken, !roads.vips.is_empty(), local)),
            remote: Some(or_own(&addresses.given, !roads.pools.is_empty(), remote)),
            there,
        }
    }

    /// In IKE_AUTH, where the virtual addresses are being asked for.
    pub fn asking(connection: &Connection, path: Path) -> Ends {
        let asks = !connection.roads.vips.is_empty();
        Ends {
            local: (!asks).then(|| vec![path.local.ip()]),
            remote: Some(vec![path.remote.ip()]),
            there: path.remote.ip(),
        }
    }

    /// The child with the selectors that it has here.
    pub fn resolve(&self, child: &Child) -> Child {
        let remote = match child.mode {
            Mode::Tunnel => self.remote.as_deref(),
            Mode::Transport => Some(std::slice::from_ref(&self.there)),
        };
        Child {
            local_ts: resolve(&child.local_ts, &child.dynamic.local, self.local.as_deref()),
            remote_ts: resolve(&child.remote_ts, &child.dynamic.remote, remote),
            ..child.clone()
        }
    }
}

/// Whether a tunnel of the connection protects whatever address the peer has.
pub(super) fn asks_for_address(connection: &Connection) -> bool {
    let mut children = connection.children.iter();
    connection.roads.pools.is_empty()
        && children.any(|child| child.mode == Mode::Tunnel && !child.dynamic.remote.is_empty())
}

fn resolve(
    selectors: &[TrafficSelector],
    dynamic: &[TrafficSelector],
    addresses: Option<&[IpAddr]>,
) -> Vec<TrafficSelector> {
    let Some(addresses) = addresses else {
        return selectors.to_vec();
    };
    let mut resolved = Vec::new();
    for selector in selectors {
        if !dynamic.contains(selector) {
            resolved.push(*selector);
            continue;
        }
        // A virtual address from elsewhere than the pools of today is still the peer's.
        let family = |a: &&IpAddr| a.is_ipv4() == selector.start.is_ipv4();
        for address in addresses.iter().filter(family) {
            let one = host(selector, *address);
            if !resolved.contains(&one) {
                resolved.push(one);
            }
        }
    }
    resolved
}

/// A selector for one address, with the protocol and ports of another.
pub(super) fn host(selector: &TrafficSelector, address: IpAddr) -> TrafficSelector {
    TrafficSelector {
        start: address,
        end: address,
        ..*selector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selectors(list: &[&str]) -> Vec<TrafficSelector> {
        list.iter().map(|s| s.parse().unwrap()).collect()
    }

    #[test]
    fn rfc7296_section_2_19_what_is_dynamic_becomes_the_virtual_address_of_its_family() {
        let all = selectors(&["10.3.0.0/16", "10.9.0.0/16", "2001:db8:3::/64"]);
        let dynamic = selectors(&["10.3.0.0/16", "2001:db8:3::/64"]);
        let v4: Vec<IpAddr> = vec!["10.3.0.7".parse().unwrap()];
        assert_eq!(
            resolve(&all, &dynamic, Some(&v4)),
            selectors(&["10.3.0.7/32", "10.9.0.0/16"])
        );
        assert_eq!(resolve(&all, &dynamic, None), all);
        assert_eq!(resolve(&dynamic, &dynamic, Some(&[])), Vec::new());
    }

    #[test]
    fn protocol_and_ports_of_a_dynamic_selector_stay() {
        let mut web = selectors(&["0.0.0.0/0"]);
        web[0].protocol = 6;
        web[0].start_port = 80;
        web[0].end_port = 80;
        let one = resolve(&web, &web, Some(&["192.0.2.1".parse().unwrap()]))[0];
        assert_eq!((one.protocol, one.start_port, one.end_port), (6, 80, 80));
        assert_eq!(one.prefix_length(), Some(32));
    }
}
