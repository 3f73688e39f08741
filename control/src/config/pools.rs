//! `[pools.NAME]`: virtual addresses for peers, in swanctl's words, and what a connection says about
//! addresses that are given, taken or changed on the way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hitless_sa::TrafficSelector;
use toml::de::DeValue;

use super::connections::check_name;
use super::document::Section;
use super::report::Refusal;
use super::suggest::nearest;
use super::value;
use crate::ike::settings::{Childless, Mobike, Pool, Roads};

const ADDRS: &str = "10.3.0.0/24";

pub(super) fn read(root: &Section<'_>) -> Vec<Pool> {
    let Some(section) = root.section("pools") else {
        return Vec::new();
    };
    let mut pools: Vec<Pool> = Vec::new();
    for (name, section) in section.named() {
        check_name(&section, &name);
        let Some(pool) = pool(&section, name) else {
            continue;
        };
        let overlaps = |other: &&Pool| other.first <= pool.last && pool.first <= other.last;
        if let Some(other) = pools.iter().find(overlaps) {
            let refusal = Refusal::new(
                format!(
                    "{}: overlaps with pools.{}",
                    section.name("addrs"),
                    other.name
                ),
                "an address belongs to one pool: move one of the two",
            );
            section.refuse("addrs", refusal);
        }
        pools.push(pool);
    }
    pools
}

fn pool(section: &Section<'_>, name: String) -> Option<Pool> {
    let example = format!("addrs = \"{ADDRS}\"");
    let addrs = section.required("addrs", &example, addrs);
    let dns = section.list("dns", value::address);
    section.finish(&[("netmask", "leave it out: a virtual address is one host's")]);
    let (first, last) = addrs?.value;
    Some(Pool {
        name,
        first,
        last,
        dns: dns
            .unwrap_or_default()
            .into_iter()
            .map(|d| d.value)
            .collect(),
    })
}

/// A network, of which the first and the last address stay free as in strongSwan, or a range.
fn addrs(value: &DeValue<'_>) -> Result<(IpAddr, IpAddr), Refusal> {
    let range = value.as_str().and_then(|text| text.split_once('-'));
    if let Some((first, last)) = range {
        let parse = |text: &str| text.trim().parse::<IpAddr>().ok();
        return match (parse(first), parse(last)) {
            (Some(first), Some(last)) if first <= last && first.is_ipv4() == last.is_ipv4() => {
                Ok((first, last))
            }
            _ => Err(Refusal::new(
                "not a range of addresses",
                "write it like \"10.3.0.10-10.3.0.99\"",
            )),
        };
    }
    let network = value::parsed::<TrafficSelector>(ADDRS)(value)?;
    if network.protocol != 0 || !network.is_any_port() {
        return Err(Refusal::new(
            "a pool has addresses, no ports",
            format!("write it like \"{ADDRS}\""),
        ));
    }
    Ok(match (network.start, network.end) {
        (IpAddr::V4(a), IpAddr::V4(b)) if u32::from(b) - u32::from(a) > 1 => {
            let inner = [u32::from(a) + 1, u32::from(b) - 1].map(Ipv4Addr::from);
            (inner[0].into(), inner[1].into())
        }
        // The first one means every router there (RFC 4291 section 2.6.1).
        (IpAddr::V6(a), IpAddr::V6(b)) if u128::from(b) - u128::from(a) > 1 => {
            (Ipv6Addr::from(u128::from(a) + 1).into(), b.into())
        }
        (first, last) => (first, last),
    })
}

const CHILDLESS: &[(&str, Childless)] = &[
    ("allow", Childless::Allow),
    ("prefer", Childless::Prefer),
    ("force", Childless::Force),
    ("never", Childless::Never),
];

/// `mobike`, `vips`, `pools` and `childless` of a connection.
pub(super) fn roads(section: &Section<'_>, pools: &[Pool]) -> Option<Roads> {
    let mobike = section.or("mobike", Mobike::default(), |value: &DeValue<'_>| {
        value::boolean(value).map(|on| if on { Mobike::Offer } else { Mobike::Refuse })
    });
    let vips = section.list("vips", value::parsed::<IpAddr>("0.0.0.0"));
    let named = section.list("pools", |value: &DeValue<'_>| {
        let name = value::text(value)?;
        let names = || pools.iter().map(|pool| pool.name.as_str());
        if names().any(|known| known == name) {
            return Ok(name);
        }
        let help = match nearest(&name, names()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("add\n[pools.{name}]\naddrs = \"{ADDRS}\""),
        };
        Err(Refusal::new(
            format!("no pool {}", value::quoted(&name)),
            help,
        ))
    });
    let wrong = section.has("vips") && vips.is_none() || section.has("pools") && named.is_none();
    let childless = section.or("childless", Childless::default(), value::word(CHILDLESS));
    if wrong {
        return None;
    }
    let values = |vips: Vec<super::document::Located<IpAddr>>| {
        vips.into_iter().map(|vip| vip.value).collect()
    };
    let named = named.unwrap_or_default().into_iter();
    Some(Roads {
        mobike,
        vips: values(vips.unwrap_or_default()),
        pools: named.map(|name| name.value).collect(),
        childless,
    })
}

/// What a connection says about addresses, for the selectors of its children.
pub(super) struct Surroundings<'a> {
    pub local_addrs: &'a [IpAddr],
    pub remote_addrs: &'a [IpAddr],
    pub roads: &'a Roads,
    pub pools: &'a [Pool],
}

impl Surroundings<'_> {
    /// The most that `dynamic` may come to on our side.
    pub fn local(&self) -> Vec<TrafficSelector> {
        let vips = self.roads.vips.iter();
        let addresses = if self.roads.vips.is_empty() {
            self.local_addrs.iter()
        } else {
            vips
        };
        addresses.filter_map(|address| host(*address)).collect()
    }

    /// The most that it may come to on the peer's.
    pub fn remote(&self) -> Vec<TrafficSelector> {
        if !self.roads.pools.is_empty() {
            let named = |pool: &&Pool| self.roads.pools.contains(&pool.name);
            let pools = self.pools.iter().filter(named);
            let range = |pool: &Pool| {
                host(pool.first).map(|first| TrafficSelector {
                    end: pool.last,
                    ..first
                })
            };
            return pools.filter_map(range).collect();
        }
        if self.remote_addrs.is_empty() {
            let mut any: Vec<_> = self.local_addrs.iter().filter_map(anywhere).collect();
            any.sort_unstable();
            any.dedup();
            return any;
        }
        let addresses = self.remote_addrs.iter();
        addresses.filter_map(|address| host(*address)).collect()
    }
}

/// One address; all of its family if it is unspecified.
fn host(address: IpAddr) -> Option<TrafficSelector> {
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let length = if address.is_unspecified() { 0 } else { whole };
    TrafficSelector::prefix(address, length)
}

fn anywhere(like: &IpAddr) -> Option<TrafficSelector> {
    TrafficSelector::prefix(*like, 0)
}
