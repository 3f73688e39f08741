//! Configuration of both ends.

use std::path::Path;

use crate::gateway;
use crate::topology::{CLUSTER_NETWORK, CLUSTER_OUTSIDE, OUTSIDE_PREFIX, PEER_NETWORK};

/// Where charon is, behind or beyond the NAT, and its second client.
pub const CHARON: &str = "10.1.0.2";
pub const CHARON_TOO: &str = "10.1.0.3";
/// What charon protects where it is the responder.
pub const FAR_HOST: &str = "10.9.0.1";

const SECRET: &str = "not-so-secret-psk-0123456789";
const IKE: &str = "aes128gcm16-prfsha256-x25519";
const ESP: &str = "aes128gcm16";

/// A member's file where clients come through the NAT.
pub fn gateway_of_clients(index: usize, directory: &Path) -> String {
    member(
        index,
        directory,
        &format!(
            r#"[pools.clients]
addrs = "10.3.0.0/24"

[connections.clients]
proposals = ["{IKE}"]
local = {{ auth = "psk", id = "cluster.test" }}
remote = {{ auth = "psk", id = "*.clients.test" }}
pools = ["clients"]
dpd_delay = "30s"

[connections.clients.children.net]
esp_proposals = ["{ESP}"]
local_ts = ["{CLUSTER_NETWORK}"]
"#
        ),
    )
}

/// A member's file where the cluster is behind the NAT.
pub fn behind(index: usize, directory: &Path) -> String {
    let text = member(
        index,
        directory,
        &format!(
            r#"[connections.head]
local_addrs = ["{CLUSTER_OUTSIDE}"]
remote_addrs = ["{CHARON}"]
proposals = ["{IKE}"]
local = {{ auth = "psk", id = "branch.test" }}
remote = {{ auth = "psk", id = "head.test" }}
mobike = false
dpd_delay = "2s"

[connections.head.children.net]
esp_proposals = ["{ESP}"]
local_ts = ["{CLUSTER_NETWORK}"]
remote_ts = ["{FAR_HOST}/32"]
start_action = "start"
"#
        ),
    );
    let addresses = format!("addresses = [\"{CLUSTER_OUTSIDE}/{OUTSIDE_PREFIX}\"]");
    let route = format!("{addresses}\nroutes = [\"{PEER_NETWORK} via 192.0.2.2\"]");
    text.replace(&addresses, &route)
}

fn member(index: usize, directory: &Path, connections: &str) -> String {
    let connections = format!("{connections}\n[secrets.all]\nsecret = \"{SECRET}\"\n");
    let text = gateway::configuration(index, directory, gateway::PATIENT, &connections);
    gateway::with_key_log(directory, &text)
}

/// charon's `swanctl.conf`: two clients, one of them with MOBIKE.
pub fn clients() -> String {
    let one = client("one", CHARON, "no", "dpd_delay = 2s");
    let two = client("two", CHARON_TOO, "yes", "dpd_delay = 2s");
    whole(&(one + &two))
}

/// The same as the responder, beyond the NAT.
pub fn head() -> String {
    whole(&format!(
        "  head {{
    version = 2
    local_addrs = {CHARON}
    remote_addrs = %any
    proposals = {IKE}
    mobike = no
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
        local_ts = {FAR_HOST}/32
        remote_ts = {CLUSTER_NETWORK}
        esp_proposals = {ESP}
        rekey_time = 0
      }}
    }}
  }}
"
    ))
}

fn whole(connections: &str) -> String {
    format!(
        "connections {{
{connections}}}
secrets {{
  ike-1 {{
    secret = \"{SECRET}\"
  }}
}}
"
    )
}

fn client(name: &str, address: &str, mobike: &str, liveness: &str) -> String {
    format!(
        "  {name} {{
    version = 2
    local_addrs = {address}
    remote_addrs = {CLUSTER_OUTSIDE}
    proposals = {IKE}
    vips = 0.0.0.0
    mobike = {mobike}
    {liveness}
    rekey_time = 0
    local {{
      auth = psk
      id = {name}.clients.test
    }}
    remote {{
      auth = psk
      id = cluster.test
    }}
    children {{
      {name} {{
        remote_ts = {CLUSTER_NETWORK}
        esp_proposals = {ESP}
        rekey_time = 0
      }}
    }}
  }}
"
    )
}
