//! IPv4 and IPv6 in the configuration: both are read, and what mixes them up is told.

use std::net::IpAddr;
use std::path::Path;

use hitless::config::{Config, ConfigError, EXAMPLE};

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse("gateway.toml", text, Path::new("/nonexistent"))
}

/// The example with these things changed.
fn changed(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(EXAMPLE.to_owned(), |text, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text.replacen(from, to, 1)
    })
}

const OUTSIDE: &str = "addresses = [\"203.0.113.1/24\"]";
const INSIDE: &str = "addresses = [\"10.1.0.1/16\"]";
const ROUTE: &str = "\"default via 203.0.113.254\"";
const LOCAL: &str = "local_addrs = [\"203.0.113.1\"]";
const REMOTE: &str = "remote_addrs = [\"198.51.100.7\"]";
const LOCAL_TS: &str = "local_ts = [\"10.1.0.0/16\"]";
const REMOTE_TS: &str = "remote_ts = [\"10.2.0.0/16\"]";

/// Ports with both families, a connection over IPv6 that carries both.
const DUAL: &[(&str, &str)] = &[
    (
        OUTSIDE,
        "addresses = [\"203.0.113.1/24\", \"2001:db8:f::1/64\"]",
    ),
    (
        ROUTE,
        "\"default via 203.0.113.254\", \"default via fe80::fe\"",
    ),
    (
        INSIDE,
        "addresses = [\"10.1.0.1/16\", \"2001:db8:1::1/64\"]",
    ),
    (LOCAL, "local_addrs = [\"2001:db8:f::1\"]"),
    (REMOTE, "remote_addrs = [\"2001:db8:e::7\"]"),
    (
        LOCAL_TS,
        "local_ts = [\"10.1.0.0/16\", \"2001:db8:1::/64\"]",
    ),
    (
        REMOTE_TS,
        "remote_ts = [\"10.2.0.0/16\", \"2001:db8:2::/64\"]",
    ),
];

#[test]
fn both_families_are_read_everywhere() {
    let config = parse(&changed(DUAL)).unwrap();
    let outside = &config.ports[0];
    let texts: Vec<String> = outside.addresses.iter().map(|a| a.to_string()).collect();
    assert_eq!(texts, ["203.0.113.1/24", "2001:db8:f::1/64"]);
    let routes = outside.routes.iter();
    let routes: Vec<_> = routes.map(|r| (r.prefix.to_string(), r.via)).collect();
    let via = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    assert_eq!(routes[0], ("0.0.0.0/0".to_owned(), via("203.0.113.254")));
    assert_eq!(routes[1], ("::/0".to_owned(), via("fe80::fe")));
    let office = &config.connections[0];
    assert_eq!(office.local_addrs, [via("2001:db8:f::1").unwrap()]);
    assert_eq!(office.remote_addrs, [via("2001:db8:e::7").unwrap()]);
    let net = &office.children[0];
    assert_eq!(net.local_ts[1].to_string(), "2001:db8:1::/64");
    assert_eq!(net.remote_ts[1].to_string(), "2001:db8:2::/64");
}

#[test]
fn ours_are_the_addresses_of_the_peers_family() {
    for (remote, ours) in [
        ("remote_addrs = [\"198.51.100.7\"]", &["203.0.113.1"][..]),
        ("remote_addrs = [\"2001:db8:e::7\"]", &["2001:db8:f::1"]),
    ] {
        let text = changed(DUAL)
            .replace("local_addrs = [\"2001:db8:f::1\"]", "#")
            .replace("remote_addrs = [\"2001:db8:e::7\"]", remote);
        let config = parse(&text).unwrap();
        let texts = config.connections[0].local_addrs.iter();
        let texts: Vec<String> = texts.map(IpAddr::to_string).collect();
        assert_eq!(texts, ours);
    }
    // Whoever it is may come over either.
    let text = changed(DUAL)
        .replace("local_addrs = [\"2001:db8:f::1\"]", "#")
        .replace("remote_addrs = [\"2001:db8:e::7\"]", "#")
        .replace("start_action = \"start\"", "start_action = \"none\"");
    assert_eq!(parse(&text).unwrap().connections[0].local_addrs.len(), 2);
}

/// What is changed in the example, and what is said about that.
const MIXED: &[(&str, &str, &str, &str)] = &[
    (
        REMOTE,
        "remote_addrs = [\"2001:db8:e::7\"]",
        "203.0.113.1 is IPv4, and 2001:db8:e::7 is IPv6",
        "a second connection for IPv4",
    ),
    (
        REMOTE,
        "remote_addrs = [\"198.51.100.7\", \"2001:db8:e::7\"]",
        "2001:db8:e::7 is IPv6, and 198.51.100.7 is IPv4",
        "a second connection for IPv6",
    ),
    (
        LOCAL,
        "local_addrs = [\"203.0.113.1\", \"2001:db8:f::1\"]",
        "2001:db8:f::1 is IPv6, and 198.51.100.7 is IPv4",
        "a second connection for IPv6",
    ),
    (
        LOCAL_TS,
        "local_ts = [\"2001:db8:1::/64\"]",
        "2001:db8:1::/64 has no IPv6 network at the other end",
        "both need an IPv6 network",
    ),
    (
        REMOTE_TS,
        "remote_ts = [\"10.2.0.0/16\", \"2001:db8:2::/64\"]",
        "remote_ts: 2001:db8:2::/64 has no IPv6 network",
        "both need an IPv6 network",
    ),
    (
        ROUTE,
        "\"2001:db8::/32 via 203.0.113.254\"",
        "the next hop of 2001:db8::/32, 203.0.113.254, is of the other family",
        "IPv6 router",
    ),
    (
        ROUTE,
        "\"default via fe80::1\"",
        "next hop fe80::1 is on none of this port's networks",
        "",
    ),
    (
        OUTSIDE,
        "addresses = [\"::ffff:203.0.113.1/120\"]",
        "is an IPv4 address written as IPv6",
        "write 203.0.113.1",
    ),
    (
        OUTSIDE,
        "addresses = [\"ff02::1/64\"]",
        "is the address of a group",
        "one station",
    ),
];

#[test]
fn what_mixes_families_is_named_with_its_line_and_a_way_out() {
    for (from, to, title, help) in MIXED {
        let text = changed(&[(*from, *to)]);
        let error = parse(&text).unwrap_err();
        let found = error
            .located()
            .find(|(_, _, t, h)| t.contains(title) && h.contains(help));
        assert!(
            found.is_some(),
            "{to}: expected {title} / {help}, got\n{error}"
        );
    }
    let text = changed(&[(REMOTE, "remote_addrs = [\"2001:db8:e::7\"]"), (LOCAL, "#")]);
    let report = parse(&text).unwrap_err().to_string();
    assert!(
        report.contains("no port that faces the peers has an IPv6 address"),
        "{report}"
    );
    assert!(report.contains("add an IPv6 address to a port"), "{report}");
}
