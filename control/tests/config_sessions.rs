//! Lifetimes, crash detection and resumption in the configuration.

use std::path::Path;
use std::time::Duration;

use hitless::config::{Config, ConfigError, EXAMPLE};
use hitless::ike::sessions::{Tickets, Volume};

fn parse(connection: &str, child: &str) -> Result<Config, ConfigError> {
    let mut text = EXAMPLE.replacen("rekey_time = \"4h\"\n", &format!("{connection}\n"), 1);
    text = text.replacen("rekey_time = \"1h\"\n", &format!("{child}\n"), 1);
    assert_ne!(text, EXAMPLE);
    Config::parse("gateway.toml", &text, Path::new("/nonexistent"))
}

fn refusal(connection: &str, child: &str) -> String {
    parse(connection, child).unwrap_err().render(false)
}

#[test]
fn what_is_left_out_is_a_tenth_as_in_swanctl() {
    let config = parse("rekey_time = \"10h\"", "rekey_time = \"100m\"").unwrap();
    let connection = &config.connections[0];
    let minutes = |n: u64| Some(Duration::from_secs(n * 60));
    assert_eq!(connection.session.over_time, minutes(60));
    assert_eq!(connection.session.tickets, None);
    assert!(!connection.session.crash_detection);
    let lifetimes = connection.children[0].lifetimes;
    assert_eq!(
        (lifetimes.life_time, lifetimes.rand_time),
        (minutes(110), None)
    );
    assert_eq!(lifetimes.bytes, Volume::default());
    let never = parse("rekey_time = \"0s\"", "rekey_time = \"0s\"").unwrap();
    assert_eq!(never.connections[0].session.over_time, None);
    assert_eq!(never.connections[0].children[0].lifetimes.life_time, None);
}

#[test]
fn octets_and_packets_have_units_and_margins() {
    let config = parse(
        "crash_detection = true\nresumption = true\nover_time = \"5m\"\nrand_time = \"1m\"",
        "rekey_bytes = \"10g\"\nrekey_packets = 1000\nlife_packets = 3000\nrand_packets = 10\nlife_time = \"2h\"",
    )
    .unwrap();
    let connection = &config.connections[0];
    let hours = |n: u64| Duration::from_secs(n * 3600);
    let tickets = |ticket, whole| {
        Some(Tickets {
            ticket_time: hours(ticket),
            resumption_time: hours(whole),
        })
    };
    assert_eq!(connection.session.tickets, tickets(12, 24));
    for (connection, expected) in [
        ("ticket_time = \"2d\"", tickets(48, 48)),
        ("resumption_time = \"5h\"", tickets(5, 5)),
        ("reauth_time = \"8h\"", tickets(8, 8)),
        (
            "reauth_time = \"8h\"\nresumption_time = \"40h\"",
            tickets(12, 40),
        ),
    ] {
        let config = parse(&format!("resumption = true\n{connection}"), "").unwrap();
        assert_eq!(config.connections[0].session.tickets, expected);
    }
    assert_eq!(connection.session.rand_time, Some(Duration::from_secs(60)));
    let lifetimes = connection.children[0].lifetimes;
    let ten = 10 << 30;
    assert_eq!(
        (lifetimes.bytes.rekey, lifetimes.bytes.life),
        (ten, ten + ten / 10)
    );
    assert_eq!(lifetimes.bytes.rand, ten / 10);
    let packets = Volume {
        rekey: 1000,
        life: 3000,
        rand: 10,
    };
    assert_eq!(lifetimes.packets, packets);
}

#[test]
fn what_contradicts_itself_is_refused_with_place_and_way_out() {
    for (connection, child, words) in [
        ("", "rekey_time = \"2h\"\nlife_time = \"1h\"", "life_time"),
        ("", "rekey_bytes = 1000\nlife_bytes = 999", "life_bytes"),
        ("", "rekey_packets = 9\nrand_packets = 9", "rand_packets"),
        ("", "rekey_bytes = \"ten\"", "is no amount"),
        ("", "rekey_bytes = \"99999999999g\"", "is no amount"),
        ("rekey_time = \"90m\"\nrand_time = \"90m\"", "", "rand_time"),
        ("resumption = \"maybe\"", "", "resumption"),
        ("resumption = true\nticket_time = \"1s\"", "", "ticket_time"),
        (
            "ticket_time = \"12h\"\nresumption_time = \"11h\"",
            "",
            "resumption_time",
        ),
    ] {
        let text = refusal(connection, child);
        assert!(
            text.contains(words) && text.contains("gateway.toml:"),
            "{text}"
        );
    }
}

#[test]
fn a_gateway_without_cluster_is_told_what_it_cannot_give() {
    let text = r#"
[cluster]
name = "alone"
id = 1
[ports.outside]
driver = "memory"
mac = "02:00:5e:00:01:01"
addresses = ["192.0.2.1/24"]
protected = false
[ports.inside]
driver = "memory"
mac = "02:00:5e:00:01:02"
addresses = ["10.1.0.1/24"]
protected = true
[connections.office]
remote_addrs = ["192.0.2.2"]
proposals = ["aes128gcm16-prfsha256-x25519"]
crash_detection = true
[connections.office.children.net]
esp_proposals = ["aes128gcm16-x25519-esn"]
local_ts = ["10.1.0.0/16"]
remote_ts = ["10.2.0.0/16"]
[secrets.office]
ids = ["192.0.2.2"]
secret = "sixteen octets or more"
"#;
    let config = Config::parse("gateway.toml", text, Path::new("/nonexistent"));
    let config = config.unwrap_or_else(|e| panic!("{}", e.render(false)));
    let told = |w: &String| w.contains("connections.office") && w.contains("crash_detection");
    assert!(config.warnings.iter().any(told), "{:?}", config.warnings);
}
