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
use crate::ike::settings::{
    Childless, Mobike, Pool, Roads, SyncAfterTakeover, Unique, WindowSize, Withheld,
};
use crate::ike::window::MAX_WINDOW;

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

const UNIQUE: &[(&str, Unique)] = &[
    ("never", Unique::Never),
    ("no", Unique::No),
    ("replace", Unique::Replace),
    ("keep", Unique::Keep),
];

const SYNCS: &[(&str, SyncAfterTakeover)] = &[
    ("eager", SyncAfterTakeover::Eager),
    ("lazy", SyncAfterTakeover::Lazy),
];

/// `mobike`, `vips`, `pools`, `childless`, `window_size`, `unique` and `sync_after_takeover` of a
/// connection.
pub(super) fn roads(section: &Section<'_>, pools: &[Pool]) -> Option<Roads> {
    let mobike = section.or("mobike", Mobike::default(), |value: &DeValue<'_>| {
        value::boolean(value).map(|on| if on { Mobike::Offer } else { Mobike::Refuse })
    });
    let vips = section.given_list("vips", value::parsed::<IpAddr>("0.0.0.0"));
    let named = section.given_list("pools", |value: &DeValue<'_>| {
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
    let childless = section.or("childless", Childless::default(), value::word(CHILDLESS));
    let redirect_to = section.optional("redirect_to", value::address);
    let follows = section.or("follow_redirects", true, value::boolean);
    let widths = value::integer(1, MAX_WINDOW.into());
    let window_size = section.or("window_size", 1, widths);
    let unique = section.or("unique", Unique::default(), value::word(UNIQUE));
    let words = value::word(SYNCS);
    let sync = section.or("sync_after_takeover", SyncAfterTakeover::default(), words);
    let (vips, named) = (vips.ok()?, named.ok()?);
    let values = |vips: Vec<super::document::Located<IpAddr>>| {
        vips.into_iter().map(|vip| vip.value).collect()
    };
    let named = named.unwrap_or_default().into_iter();
    Some(Roads {
        mobike,
        vips: values(vips.unwrap_or_default()),
        pools: named.map(|name| name.value).collect(),
        childless,
        redirect_to: redirect_to.map(|to| to.value),
        ignores_redirects: !follows,
        sync_after_takeover: sync,
        withheld: Withheld::default(),
        window_size: WindowSize::new(window_size as u32).unwrap_or_default(),
        unique,
    })
}

/// What a connection says about addresses, for the selectors of its children; `None` where it is
/// wrong.
pub(super) struct Surroundings<'a> {
    pub local_addrs: Option<&'a [IpAddr]>,
    pub remote_addrs: Option<&'a [IpAddr]>,
    pub roads: Option<&'a Roads>,
    pub pools: &'a [Pool],
}

impl Surroundings<'_> {
    /// Virtual addresses that we want.
    pub fn vips(&self) -> &[IpAddr] {
        self.roads.map_or(&[], |roads| &roads.vips)
    }

    /// Names of the pools that peers get addresses from.
    pub fn named(&self) -> &[String] {
        self.roads.map_or(&[], |roads| &roads.pools)
    }

    /// The most that `dynamic` may come to on our side.
    pub fn local(&self) -> Vec<TrafficSelector> {
        let own = self.local_addrs.unwrap_or_default();
        let vips = self.vips();
        let addresses = if vips.is_empty() { own } else { vips };
        addresses.iter().filter_map(|a| host(*a)).collect()
    }

    /// The most that it may come to on the peer's.
    pub fn remote(&self) -> Vec<TrafficSelector> {
        let (local, remote) = (self.local_addrs, self.remote_addrs);
        if !self.named().is_empty() {
            let named = |pool: &&Pool| self.named().contains(&pool.name);
            let pools = self.pools.iter().filter(named);
            let range = |pool: &Pool| {
                host(pool.first).map(|first| TrafficSelector {
                    end: pool.last,
                    ..first
                })
            };
            return pools.filter_map(range).collect();
        }
        let remote = remote.unwrap_or_default();
        if remote.is_empty() {
            let local = local.unwrap_or_default().iter();
            let mut any: Vec<_> = local.filter_map(anywhere).collect();
            any.sort_unstable();
            any.dedup();
            return any;
        }
        remote.iter().filter_map(|a| host(*a)).collect()
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use hitless_sa::Mode;

    use super::*;
    use crate::config::Config;

    const BASE: &str = r#"
[cluster]
name = "t"
id = 1
[ports.outside]
driver = "memory"
addresses = ["192.0.2.1/24", "2001:db8:f::1/64"]
protected = false
[ports.inside]
driver = "memory"
addresses = ["10.1.0.1/16", "2001:db8:1::1/64"]
protected = true
[pools.clients]
addrs = "10.3.0.0/24"
dns = ["10.1.0.53"]
[pools.six]
addrs = "2001:db8:3::/120"
[secrets.any]
secret = "0123456789abcdef"
[connections.c]
proposals = ["aes128gcm16-prfsha256-x25519"]
local = { id = "hq.test" }
"#;

    /// With these lines for the connection, and for its child.
    fn parse(connection: &str, child: &str) -> Result<Config, String> {
        let text = format!(
            "{BASE}{connection}\n[connections.c.children.n]\n\
             esp_proposals = [\"aes128gcm16\"]\n{child}\n"
        );
        Config::parse("t.toml", &text, Path::new(".")).map_err(|error| error.to_string())
    }

    fn selectors(list: &[&str]) -> Vec<TrafficSelector> {
        list.iter().map(|s| s.parse().unwrap()).collect()
    }

    #[test]
    fn pools_leave_the_first_and_last_address_of_a_network_free() {
        let config = parse(
            "",
            "local_ts = [\"10.1.0.0/16\"]\nremote_ts = [\"10.2.0.0/16\"]",
        );
        let pools = config.unwrap().pools;
        let ends = |pool: &Pool| (pool.first.to_string(), pool.last.to_string());
        let (v4, v6) = (ends(&pools[0]), ends(&pools[1]));
        assert_eq!(v4, ("10.3.0.1".to_owned(), "10.3.0.254".to_owned()));
        assert_eq!(
            v6,
            ("2001:db8:3::1".to_owned(), "2001:db8:3::ff".to_owned())
        );
        assert_eq!(pools[0].dns.len(), 1);
    }

    #[test]
    fn with_pools_the_other_end_is_the_pool_and_with_vips_ours_is_open() {
        let networks = "local_ts = [\"10.1.0.0/16\", \"2001:db8:1::/64\"]";
        let config = parse("pools = [\"clients\", \"six\"]", networks).unwrap();
        let child = &config.connections[0].children[0];
        let pools = selectors(&["10.3.0.1..10.3.0.254", "2001:db8:3::1..2001:db8:3::ff"]);
        assert_eq!(child.remote_ts, pools);
        assert_eq!(child.dynamic.remote, pools);
        assert!(child.dynamic.local.is_empty());
        let config = parse(
            "vips = [\"0.0.0.0\"]\nremote_addrs = [\"192.0.2.9\"]",
            "local_ts = [\"dynamic[tcp/22]\"]\nremote_ts = [\"10.2.0.0/16\"]",
        );
        let child = &config.unwrap().connections[0].children[0];
        assert_eq!(child.local_ts, selectors(&["0.0.0.0/0[tcp/22]"]));
        assert_eq!(child.dynamic.local, child.local_ts);
    }

    #[test]
    fn transport_mode_is_between_the_addresses_of_ike() {
        let remote = "remote_addrs = [\"192.0.2.9\"]\nlocal_addrs = [\"192.0.2.1\"]";
        let config = parse(remote, "mode = \"transport\"").unwrap();
        let child = &config.connections[0].children[0];
        assert_eq!(child.mode, Mode::Transport);
        assert_eq!(child.local_ts, selectors(&["192.0.2.1/32"]));
        assert_eq!(child.remote_ts, selectors(&["192.0.2.9/32"]));
        assert_eq!(child.dynamic.remote, child.remote_ts);
        let anybody = parse(
            "",
            "mode = \"transport\"\nlocal_ts = [\"dynamic[udp/1701]\"]",
        );
        let child = &anybody.unwrap().connections[0].children[0];
        assert_eq!(child.remote_ts, selectors(&["0.0.0.0/0", "::/0"]));
    }

    #[test]
    fn mistakes_name_their_place_and_their_fix() {
        let networks = "local_ts = [\"10.1.0.0/16\"]";
        let cases = [
            (
                "pools = [\"client\"]",
                networks,
                "did you mean \"clients\"?",
            ),
            ("pools = [\"x\"]", networks, "[pools.x]"),
            ("vips = [\"10.3.0\"]", networks, "connections.c.vips"),
            ("mobike = \"on\"", networks, "connections.c.mobike"),
            ("childless = \"yes\"", networks, "\"prefer\""),
            ("sync_after_takeover = \"later\"", networks, "\"eager\""),
            ("window_size = 0", networks, "between 1 and 64"),
            ("unique = \"yes\"", networks, "\"replace\""),
            ("", networks, "remote_ts"),
            (
                "",
                "mode = \"transport\"\nlocal_ts = [\"10.1.0.0/16\"]",
                "dynamic",
            ),
            (
                "pools = [\"clients\"]",
                "mode = \"transport\"",
                "vips and pools",
            ),
        ];
        for (connection, child, expected) in cases {
            let error = parse(connection, child).unwrap_err();
            assert!(error.contains(expected), "{connection} {child}: {error}");
        }
        for (addrs, expected) in [
            ("10.3.0.9-10.3.0.1", "range"),
            ("10.3.0.0/24[tcp]", "no ports"),
            ("10.3.0.128/25", "overlaps with pools.clients"),
        ] {
            let text = format!("{BASE}[pools.more]\naddrs = \"{addrs}\"\n");
            let error = Config::parse("t.toml", &text, Path::new(".")).unwrap_err();
            assert!(error.to_string().contains(expected), "{addrs}: {error}");
        }
    }
}
