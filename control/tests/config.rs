//! The configuration file: what is accepted, and what a user reads about what is not.

use std::path::Path;
use std::time::Duration;

use hitless::config::{Aead, Config, Degraded, Driver, EXAMPLE, IdlePolicy, XdpMode};
use hitless_sa::MemberId;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse("gateway.toml", text, Path::new("/nonexistent")).map_err(|e| e.render(false))
}

fn replaced(from: &str, to: &str) -> Result<Config, String> {
    assert!(EXAMPLE.contains(from), "{from}");
    parse(&EXAMPLE.replacen(from, to, 1))
}

#[test]
fn show() {
    for (a, b) in [
        ("heartbeat = \"10ms\"", "heartbaet = \"10ms\""),
        ("degraded = \"rekey\"", "degraded = \"strickt\""),
        ("secret = \"change me\"", "sercet = \"change me\""),
        (
            "[ports.inside]\ninterface = \"eth1\"",
            "[ports.inside]\ninterface = \"eth0\"",
        ),
        ("protected = true ", "protected = false "),
        ("[control]", "[controll]"),
        ("[dataplane]", "dataplane = 3\n[dataplan]"),
        (
            "{ id = 2, priority = 100, sync_addr = \"10.0.0.2:4510\" }",
            "{ id = 1, sync_addr = \"10.0.0.1\" }",
        ),
        ("hold = \"10s\"", "hold = 10"),
        ("[cluster]", "[cluster"),
    ] {
        println!("{}", replaced(a, b).unwrap_err());
    }
    println!("{}", parse("").unwrap_err());
}
