//! The commented example: it means what it says, and what stands in its comments is accepted too.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use hitless::config::{
    Aead, AfXdpConfig, Config, ConfigError, Degraded, Driver, EXAMPLE, IdlePolicy, Peer, Prefix,
    RouteConfig,
};
use hitless::ike::proposal::Identification;
use hitless::ike::settings::Takeover;
use hitless_sa::{MemberId, Mode};

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse("gateway.toml", text, Path::new("/nonexistent"))
}

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix {
        address: address.parse().unwrap(),
        length: length.parse().unwrap(),
    }
}

#[test]
fn the_example_means_what_it_says() {
    let config = parse(EXAMPLE).unwrap();
    let cluster = &config.cluster;
    assert_eq!(cluster.name, "hq");
    assert_eq!((cluster.id, cluster.priority), (MemberId(1), 100));
    assert_eq!(cluster.heartbeat, Duration::from_millis(10));
    assert_eq!((cluster.missed, cluster.preempt), (3, false));
    assert_eq!(cluster.hold, Duration::from_secs(2));
    assert_eq!(cluster.degraded, Degraded::Rekey);
    assert_eq!(cluster.state_dir, Path::new("/var/lib/hitless"));
    let sync = cluster.sync.as_ref().unwrap();
    assert_eq!(sync.listen, "10.0.0.1:4510".parse::<SocketAddr>().unwrap());
    assert_eq!(sync.secret.len(), 16);
    let peer = Peer {
        id: MemberId(2),
        priority: 100,
        address: "10.0.0.2:4510".parse().unwrap(),
    };
    assert_eq!(sync.peers, [peer]);

    let [outside, inside] = config.ports.as_slice() else {
        panic!("{:?}", config.ports)
    };
    assert_eq!(
        (outside.name.as_str(), outside.protected),
        ("outside", false)
    );
    assert_eq!((inside.name.as_str(), inside.protected), ("inside", true));
    assert_eq!(outside.driver, Driver::AfXdp(AfXdpConfig::default()),);
    assert_eq!(
        (outside.interface.as_str(), outside.queues.as_slice()),
        ("eth0", [0].as_slice())
    );
    assert_eq!(outside.addresses, [prefix("203.0.113.1/24")]);
    let default_route = RouteConfig {
        prefix: prefix("0.0.0.0/0"),
        via: Some("203.0.113.254".parse().unwrap()),
    };
    assert_eq!(outside.routes, [default_route]);
    for port in [outside, inside] {
        assert_eq!(port.mac[0] & 3, 2, "locally administered, one station");
    }
    assert_ne!(outside.mac, inside.mac);

    assert_eq!(
        (config.dataplane.workers, config.dataplane.aead),
        (1, Aead::Auto)
    );
    assert_eq!(config.dataplane.idle, IdlePolicy::Adaptive);
    assert_eq!(config.dataplane.checkpoint.packets, 10_000);
    assert_eq!(
        config.dataplane.checkpoint.interval,
        Duration::from_millis(500)
    );
    assert_eq!(
        config.control.socket,
        Path::new("/run/hitless/hitless.sock")
    );
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn the_example_has_a_connection_in_swanctl_s_words() {
    let config = parse(EXAMPLE).unwrap();
    let [office] = config.connections.as_slice() else {
        panic!("{:?}", config.connections)
    };
    assert_eq!(
        office.local_addrs,
        ["203.0.113.1".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(
        office.remote_addrs,
        ["198.51.100.7".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(office.remote_port, 500);
    let proposals: Vec<_> = office.proposals.iter().map(ToString::to_string).collect();
    assert_eq!(
        proposals,
        [
            "aes128gcm16-prfsha256-x25519",
            "aes256gcm16-prfsha384-ecp384"
        ]
    );
    assert_eq!(
        office.local_id,
        Identification::Fqdn("hq.example.org".into())
    );
    assert_eq!(
        office.remote_id,
        Identification::Fqdn("office.example.org".into())
    );
    assert_eq!(office.dpd_delay, Duration::from_secs(30));
    assert_eq!(office.rekey_time, Duration::from_secs(4 * 3600));
    assert_eq!(office.takeover, Takeover::Auto);
    let [net] = office.children.as_slice() else {
        panic!("{:?}", office.children)
    };
    assert_eq!((net.name.as_str(), net.mode), ("net", Mode::Tunnel));
    assert_eq!(net.esp_proposals[0].to_string(), "aes128gcm16-x25519-esn");
    assert_eq!(net.local_ts[0].to_string(), "10.1.0.0/16");
    assert_eq!(net.remote_ts[0].to_string(), "10.2.0.0/16");
    assert_eq!(net.rekey_time, Duration::from_secs(3600));
    assert_eq!((net.replay_window, net.start), (4096, true));
    assert_eq!(config.secrets.len(), 1);
    assert_eq!(
        config.secrets[0].ids,
        std::slice::from_ref(&office.remote_id)
    );
    assert_eq!(*config.secrets[0].secret, b"change me");
}

fn needs_more(line: &str) -> bool {
    ["file = ", ".pem", "ppk", "eap-mschapv2", "carol"]
        .iter()
        .any(|word| line.contains(word))
}

#[test]
fn what_stands_in_comments_of_the_example_is_accepted_too() {
    // Every key that is commented out, but for those that read a file or exclude another key.
    let mut text = String::new();
    let mut uncommented = 0;
    for line in EXAMPLE.lines() {
        match line.strip_prefix("# ") {
            Some(rest) if rest.contains(" = ") && !needs_more(rest) => {
                text.push_str(rest);
                uncommented += 1;
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    assert!(
        uncommented > 35,
        "the comments are not read as examples any more"
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.ports[0].mac, [2, 0, 0x5e, 0, 0, 1]);
    assert_eq!(config.dataplane.cores, [2]);
}
