//! `[ports.NAME]`: the networks that the cluster's addresses live on.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aws_lc_rs::digest;
use hitless_sa::TrafficSelector;
use toml::de::DeValue;

use super::document::{Located, Section};
use super::drivers;
use super::model::{PortConfig, Prefix, RouteConfig};
use super::report::{Refusal, Span};
use super::value::{self, quoted};

const EXAMPLE: &str = "[ports.outside]\ninterface = \"eth0\"\naddresses = [\"203.0.113.1/24\"]\nprotected = false\n\n[ports.inside]\ninterface = \"eth1\"\naddresses = [\"10.1.0.1/16\"]\nprotected = true";

/// Every port, in the order of the file. `workers` is `None` if that is not known for an error.
pub(super) fn read(
    root: &Section<'_>,
    cluster: Option<&str>,
    workers: Option<usize>,
) -> Option<Vec<PortConfig>> {
    let section = root.required_section("ports", EXAMPLE)?;
    let problems = section.problems();
    let mut seen = Seen::default();
    let mut ports = Vec::new();
    let mut complete = true;
    for (name, section) in section.named() {
        match one(&section, &name, cluster.unwrap_or_default(), workers) {
            Some((port, located)) => {
                seen.check(&section, &port, &located);
                ports.push(port);
            }
            None => complete = false,
        }
    }
    for (protected, what, example) in [
        (false, "towards the peers", "protected = false"),
        (true, "towards the hosts behind us", "protected = true"),
    ] {
        if complete && !ports.iter().any(|port| port.protected == protected) {
            let refusal = Refusal::new(
                format!("ports: no port {what}"),
                format!("a gateway needs one port with {example}"),
            );
            problems.refuse(&section.span, refusal);
        }
    }
    complete.then_some(ports)
}

/// Where the values stand that are compared across ports.
struct Places {
    interface: Located<String>,
    addresses: Vec<Located<Prefix>>,
    routes: Vec<Located<RouteConfig>>,
}

fn one(
    section: &Section<'_>,
    name: &str,
    cluster: &str,
    workers: Option<usize>,
) -> Option<(PortConfig, Places)> {
    let found = drivers::read(section, name, workers);
    let addresses = section.required_list(
        "addresses",
        (
            "give the cluster an address on this network",
            "203.0.113.1/24",
        ),
        value::prefix,
    );
    let routes = section.list("routes", route).unwrap_or_default();
    let monitor = section.list("monitor", value::address).unwrap_or_default();
    let protected = section.required(
        "protected",
        "protected = true for the hosts' side, false for the peers' side",
        value::boolean,
    );
    let mac = section.or("mac", derived_mac(cluster, name), value::mac);
    section.finish(drivers::FOREIGN);

    let (found, addresses) = (found?, addresses?);
    check_routes(section, &addresses, &routes);
    for hop in &monitor {
        check_next_hop(section, &addresses, "monitor", (hop.value, &hop.span));
    }
    let port = PortConfig {
        name: name.to_owned(),
        driver: found.driver,
        interface: found.interface.value.clone(),
        queues: found.queues,
        addresses: addresses.iter().map(|a| a.value).collect(),
        routes: routes.iter().map(|r| r.value).collect(),
        monitor: monitor.iter().map(|hop| hop.value).collect(),
        protected: protected?.value,
        mac,
    };
    let places = Places {
        interface: found.interface,
        addresses,
        routes,
    };
    Some((port, places))
}

/// `10.0.0.0/8 via 10.1.0.254`, `default via 203.0.113.254`, or a prefix alone.
fn route(value: &DeValue<'_>) -> Result<RouteConfig, Refusal> {
    const HELP: &str = "write \"10.0.0.0/8 via 10.1.0.254\", or \"default via 203.0.113.254\"";
    let text = value::text(value)?;
    let mut words = text.split_whitespace();
    let prefix = words.next().unwrap_or("default");
    let via = match (words.next(), words.next(), words.next()) {
        (None, _, _) => None,
        (Some("via"), Some(next_hop), None) => {
            let next_hop: IpAddr = next_hop
                .parse()
                .map_err(|_| Refusal::new(format!("{} is no address", quoted(next_hop)), HELP))?;
            Some(next_hop)
        }
        _ => {
            return Err(Refusal::new(
                format!("{} is not a route", quoted(&text)),
                HELP,
            ));
        }
    };
    let prefix = value::parse_prefix(match (prefix, via) {
        // Of the family that its next hop has.
        ("default", Some(IpAddr::V6(_))) => "::/0",
        ("default", _) => "0.0.0.0/0",
        (prefix, _) => prefix,
    })?;
    if let Some(network) = network(prefix)
        && network.start != prefix.address
    {
        return Err(Refusal::new(
            format!("{prefix} has bits set after its length"),
            format!("the network is {network}"),
        ));
    }
    if let Some(via) = via
        && via.is_ipv4() != prefix.address.is_ipv4()
    {
        return Err(Refusal::new(
            format!("the next hop of {prefix}, {via}, is of the other family"),
            format!("name an {} router", value::family(prefix.address)),
        ));
    }
    Ok(RouteConfig { prefix, via })
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

pub(super) fn network(prefix: Prefix) -> Option<TrafficSelector> {
    TrafficSelector::prefix(prefix.address, prefix.length)
}

fn check_routes(
    section: &Section<'_>,
    addresses: &[Located<Prefix>],
    routes: &[Located<RouteConfig>],
) {
    for route in routes {
        if let Some(via) = route.via {
            check_next_hop(section, addresses, "routes", (via, &route.span));
        }
    }
}

/// One that this port reaches without another router.
fn check_next_hop(
    section: &Section<'_>,
    addresses: &[Located<Prefix>],
    key: &str,
    (via, span): (IpAddr, &Span),
) {
    let connected = addresses
            .iter()
            .filter_map(|a| network(a.value))
            .any(|network| network.contains_address(via))
            // Every port with an IPv6 address has the link's own network (RFC 4291 section 2.5.6).
            || is_link_local(via) && addresses.iter().any(|a| a.address.is_ipv6());
    let own = addresses.iter().any(|a| a.address == via);
    if connected && !own {
        return;
    }
    let why = if own {
        "is our own address"
    } else {
        "is on none of this port's networks"
    };
    let refusal = Refusal::new(
        format!("{}: next hop {via} {why}", section.name(key)),
        "name a router that this port reaches without another router",
    );
    section.problems().refuse(span, refusal);
}

/// What no two ports may share.
#[derive(Default)]
struct Seen {
    interfaces: BTreeMap<String, String>,
    addresses: BTreeMap<IpAddr, String>,
    routes: BTreeMap<Prefix, String>,
}

impl Seen {
    fn check(&mut self, section: &Section<'_>, port: &PortConfig, places: &Places) {
        let problems = section.problems();
        let twice = |what: &str, first: &str| {
            Refusal::new(
                format!("{}: {what} already belongs to ports.{first}", section.path),
                "each belongs to one port",
            )
        };
        let name = || port.name.clone();
        if let Some(first) = self.interfaces.insert(port.interface.clone(), name()) {
            let what = format!("interface {}", quoted(&port.interface));
            problems.refuse(&places.interface.span, twice(&what, &first));
        }
        for address in &places.addresses {
            if let Some(first) = self.addresses.insert(address.address, name()) {
                problems.refuse(
                    &address.span,
                    twice(&format!("address {}", address.address), &first),
                );
            }
        }
        for route in &places.routes {
            if let Some(first) = self.routes.insert(route.prefix, name()) {
                problems.refuse(
                    &route.span,
                    twice(&format!("a route to {}", route.prefix), &first),
                );
            }
        }
    }
}

/// A locally administered unicast address, the same on every member that has the same cluster and
/// port names.
fn derived_mac(cluster: &str, port: &str) -> [u8; 6] {
    let text = format!("hitless mac\n{cluster}\n{port}");
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let mut mac = [0x02; 6];
    for (octet, hashed) in mac.iter_mut().skip(1).zip(hash.as_ref()) {
        *octet = *hashed;
    }
    mac
}
