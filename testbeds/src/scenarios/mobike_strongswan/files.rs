//! Configuration of both ends.

use std::path::Path;

use crate::gateway;
use crate::topology::{
    CLUSTER_NETWORK, CLUSTER_OUTSIDE, OUTSIDE_PREFIX, PEER_NETWORK, PEER_OUTSIDE,
};

/// Where the second member is, and the address that an operator gives it later.
pub const SECOND: &str = "192.0.2.9";
pub const THIRD: &str = "192.0.2.10";

const SECRET: &str = "not-so-secret-psk-0123456789";
const IKE: &str = "aes128gcm16-prfsha256-x25519";
const ESP: &str = "aes128gcm16";

/// The addresses of each member's port, and the one that its connection uses.
const MEMBERS: [(&[&str], &str); 2] = [
    (&[CLUSTER_OUTSIDE], CLUSTER_OUTSIDE),
    (&[SECOND, THIRD], SECOND),
];

/// A member's file.
pub fn member(index: usize, directory: &Path) -> String {
    let [first, second] = MEMBERS;
    let (addresses, local) = if index == 0 { first } else { second };
    let text = gateway::configuration(index, directory, gateway::PATIENT, &connections(local));
    let text = gateway::with_key_log(directory, &text);
    let port: Vec<String> = addresses
        .iter()
        .map(|address| format!("\"{address}/{OUTSIDE_PREFIX}\""))
        .collect();
    text.replace(
        &format!("\"{CLUSTER_OUTSIDE}/{OUTSIDE_PREFIX}\""),
        &port.join(", "),
    )
}

/// The same with another address for the connection.
pub fn elsewhere(text: &str, local: &str) -> String {
    text.replace(
        &format!("local_addrs = [\"{SECOND}\"]"),
        &format!("local_addrs = [\"{local}\"]"),
    )
}

fn connections(local: &str) -> String {
    format!(
        r#"[connections.head]
local_addrs = ["{local}"]
remote_addrs = ["{PEER_OUTSIDE}"]
proposals = ["{IKE}"]
local = {{ auth = "psk", id = "branch.test" }}
remote = {{ auth = "psk", id = "head.test" }}
mobike = true
dpd_delay = "30s"

[connections.head.children.net]
esp_proposals = ["{ESP}"]
local_ts = ["{CLUSTER_NETWORK}"]
remote_ts = ["{PEER_NETWORK}"]
start_action = "start"

[secrets.all]
secret = "{SECRET}"
"#
    )
}

/// charon's `swanctl.conf`: it answers alone, and takes us from anywhere.
pub fn swanctl() -> String {
    format!(
        "connections {{
  branch {{
    version = 2
    local_addrs = {PEER_OUTSIDE}
    remote_addrs = %any
    proposals = {IKE}
    mobike = yes
    rekey_time = 0
    local {{
      auth = psk
      id = head.test
    }}
    remote {{
      auth = psk
      id = branch.test
    }}
    children {{
      net {{
        local_ts = {PEER_NETWORK}
        remote_ts = {CLUSTER_NETWORK}
        esp_proposals = {ESP}
        rekey_time = 0
      }}
    }}
  }}
}}
secrets {{
  ike-1 {{
    secret = \"{SECRET}\"
  }}
}}
"
    )
}
