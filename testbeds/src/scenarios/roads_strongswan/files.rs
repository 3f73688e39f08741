//! Configuration of both ends.

use std::path::Path;

use crate::gateway;
use crate::topology::{CLUSTER_OUTSIDE, PEER_NETWORK};

/// What the cluster gives away; the second client gets another one than the first.
pub const POOL: &str = "10.3.0.0/24";
/// The name server that comes with it, and the one that charon tells of.
pub const OUR_DNS: &str = "10.2.0.53";
pub const THEIR_DNS: &str = "10.1.0.53";
/// What charon gives away: an address of a host behind the cluster, to be seen at work.
pub const TAKEN: &str = "10.2.0.7";
/// A second host behind the cluster, with a child of its own.
pub const OTHER_HOST: &str = "10.2.0.65";
/// What charon protects besides, with a child of its own.
pub const ALSO: &str = "10.4.0.1";
/// Where charon moves to.
pub const MOVED: &str = "192.0.2.3";

const SECRET: &str = "not-so-secret-psk-0123456789";
const IKE: &str = "aes128gcm16-prfsha256-x25519";
const ESP: &str = "aes128gcm16";

/// A member's file.
pub fn member(index: usize, directory: &Path) -> String {
    let text = gateway::configuration(index, directory, gateway::PATIENT, &connections());
    gateway::with_key_log(directory, &text)
}

/// The pool, and the connections in both roles.
fn connections() -> String {
    format!(
        r#"[pools.clients]
addrs = "{POOL}"
dns = ["{OUR_DNS}"]

# Clients anywhere, with an address of ours each, and a child for each part of the network.
[connections.clients]
proposals = ["{IKE}"]
local = {{ auth = "psk", id = "cluster.test" }}
remote = {{ auth = "psk", id = "*.clients.test" }}
pools = ["clients"]
dpd_delay = "30s"

[connections.clients.children.net]
esp_proposals = ["{ESP}"]
local_ts = ["10.2.0.0/26"]

[connections.clients.children.more]
esp_proposals = ["{ESP}"]
local_ts = ["10.2.0.64/26"]

# A client ourselves.
[connections.head]
remote_addrs = ["192.0.2.2"]
proposals = ["{IKE}"]
local = {{ auth = "psk", id = "branch.test" }}
remote = {{ auth = "psk", id = "head.test" }}
vips = ["0.0.0.0"]
dpd_delay = "30s"

[connections.head.children.taken]
esp_proposals = ["{ESP}"]
remote_ts = ["{PEER_NETWORK}"]
start_action = "start"

[connections.head.children.also]
esp_proposals = ["{ESP}"]
remote_ts = ["{ALSO}/32"]
start_action = "start"

[secrets.all]
secret = "{SECRET}"
"#
    )
}

/// charon's `swanctl.conf`: two clients of ours, and the head office that we are a client of.
pub fn swanctl() -> String {
    let first = child("net", "10.2.0.0/26") + &child("more", "10.2.0.64/26");
    let clients = client("one", &first) + &client("two", &child("second", "10.2.0.0/26"));
    format!(
        "connections {{
{clients}  head {{
    version = 2
    local_addrs = 192.0.2.2
    remote_addrs = {CLUSTER_OUTSIDE}
    proposals = {IKE}
    pools = branch
    encap = yes
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
      taken {{
        local_ts = {PEER_NETWORK}
        esp_proposals = {ESP}
        rekey_time = 0
      }}
      also {{
        local_ts = {ALSO}/32
        esp_proposals = {ESP}
        rekey_time = 0
      }}
    }}
  }}
}}
pools {{
  branch {{
    addrs = {TAKEN}/32
    dns = {THEIR_DNS}
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

fn client(name: &str, children: &str) -> String {
    format!(
        "  {name} {{
    version = 2
    local_addrs = %any
    remote_addrs = {CLUSTER_OUTSIDE}
    proposals = {IKE}
    vips = 0.0.0.0
    mobike = yes
    dpd_delay = 30s
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
{children}    }}
  }}
"
    )
}

fn child(name: &str, network: &str) -> String {
    format!(
        "      {name} {{
        remote_ts = {network}
        esp_proposals = {ESP}
        rekey_time = 0
      }}
"
    )
}
