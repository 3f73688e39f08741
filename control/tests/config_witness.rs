//! `[cluster]` with a witness.

use std::path::Path;

use hitless::config::{Config, ConfigError, Degraded};

fn parse(id: u8, degraded: &str, members: &str) -> Result<Config, ConfigError> {
    let text = format!(
        "[cluster]\nname = \"hq\"\nid = {id}\ndegraded = \"{degraded}\"\nmembers = [{members}]\n\
         secret = \"0123456789abcdef\"\nstate_dir = \"/var/lib/hitless\"\n"
    );
    Config::parse("witness.toml", &text, Path::new("."))
}

const TWO: &str =
    "{ id = 1, sync_addr = \"10.0.0.1:4510\" }, { id = 2, sync_addr = \"10.0.0.2:4510\" }";

fn with(more: &str) -> String {
    format!("{TWO}, {more}")
}

#[test]
fn a_witness_needs_no_ports_and_has_no_workers() {
    let members = with("{ id = 3, sync_addr = \"10.0.0.3:4510\", witness = true }");
    let config = parse(3, "witness", &members).unwrap();
    assert!(config.cluster.votes_only());
    assert_eq!(config.cluster.degraded, Degraded::Witness);
    assert_eq!((config.ports.len(), config.dataplane.workers), (0, 0));
    // A member does.
    let error = parse(1, "witness", &members).unwrap_err().to_string();
    assert!(error.contains("ports"), "{error}");
}

#[test]
fn a_witness_is_one_of_three_and_named_where_it_is_asked_for() {
    let none = with("{ id = 3, sync_addr = \"10.0.0.3:4510\" }");
    let error = parse(3, "witness", &none).unwrap_err().to_string();
    assert!(error.contains("there is no witness"), "{error}");
    let two = "{ id = 1, sync_addr = \"10.0.0.1:4510\" }, { id = 3, sync_addr = \"10.0.0.3:4510\", witness = true }";
    let error = parse(3, "rekey", two).unwrap_err().to_string();
    assert!(error.contains("a witness beside one member"), "{error}");
    let both = with(
        "{ id = 3, sync_addr = \"10.0.0.3:4510\", witness = true }, { id = 4, sync_addr = \"10.0.0.4:4510\", witness = true }",
    );
    let error = parse(3, "rekey", &both).unwrap_err().to_string();
    assert!(error.contains("two members are witnesses"), "{error}");
}

/// Members that differ in it must not form a cluster (`lease-holes` A10).
#[test]
fn who_is_the_witness_is_part_of_the_fingerprint() {
    let hash = |members: &str| parse(3, "rekey", members).map(|config| config.cluster_hash());
    let witness = hash(&with(
        "{ id = 3, sync_addr = \"10.0.0.3:4510\", witness = true }",
    ))
    .unwrap();
    let other = parse(
        4,
        "rekey",
        &with(
            "{ id = 3, sync_addr = \"10.0.0.3:4510\" }, { id = 4, sync_addr = \"10.0.0.4:4510\", witness = true }",
        ),
    );
    assert_ne!(witness, other.unwrap().cluster_hash());
}
