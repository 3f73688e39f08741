//! Configuration of both ends: a tunnel that is there before the flood, and one that comes up in it.

use std::path::Path;

use crate::gateway;
use crate::topology::{CLUSTER_NETWORK, CLUSTER_OUTSIDE, PEER_NETWORK, PEER_OUTSIDE};

const SECRET: &str = "not-so-secret-psk-0123456789";
const IKE: &str = "aes128gcm16-prfsha256-x25519";
const ESP: &str = "aes128gcm16";
/// What the second tunnel leads to, at the peer itself.
pub const LATE_ADDRESS: &str = "10.9.0.1";
/// The names of both connections and of their children, and the networks at the peer.
pub const EARLY: (&str, &str) = ("early", PEER_NETWORK);
pub const LATE: (&str, &str) = ("late", "10.9.0.0/24");

/// A member's file: it serves anybody who knows the secret, from anywhere.
pub fn member(index: usize, directory: &Path) -> String {
    let connections = [EARLY, LATE].map(|(name, network)| {
        format!(
            r#"[connections.{name}]
local_addrs = ["{CLUSTER_OUTSIDE}"]
proposals = ["{IKE}"]
local = {{ auth = "psk", id = "cluster.test" }}
remote = {{ auth = "psk", id = "{name}.test" }}
dpd_delay = "2s"

[connections.{name}.children.{name}]
esp_proposals = ["{ESP}"]
local_ts = ["{CLUSTER_NETWORK}"]
remote_ts = ["{network}"]
start_action = "none"

"#
        )
    });
    let text = connections.concat() + &format!("[secrets.all]\nsecret = \"{SECRET}\"\n");
    gateway::configuration(index, directory, gateway::PATIENT, &text)
}

/// charon's `swanctl.conf`.
pub fn swanctl() -> String {
    let connections = [EARLY, LATE].map(|(name, network)| {
        format!(
            "  {name} {{
    version = 2
    local_addrs = {PEER_OUTSIDE}
    remote_addrs = {CLUSTER_OUTSIDE}
    proposals = {IKE}
    mobike = no
    encap = yes
    dpd_delay = 2s
    rekey_time = 0
    local {{
      auth = psk
      id = {name}.test
    }}
    remote {{
      auth = psk
      id = cluster.test
    }}
    children {{
      {name} {{
        local_ts = {network}
        remote_ts = {CLUSTER_NETWORK}
        esp_proposals = {ESP}
        rekey_time = 0
      }}
    }}
  }}
"
        )
    });
    let connections = connections.concat();
    format!(
        "connections {{\n{connections}}}\nsecrets {{\n  ike-1 {{\n    secret = \"{SECRET}\"\n  }}\n}}\n"
    )
}
