//! Configuration of both ends. The users' passwords are the same at both, but for Bob's.

use std::path::Path;

use crate::gateway;
use crate::topology::{CLUSTER_OUTSIDE, PEER_NETWORK, PEER_OUTSIDE};

/// What charon gives away: an address of a host behind the cluster, to be seen at work.
pub const TAKEN: &str = "10.2.0.7";
/// Our user at charon's.
pub const OURS: &str = "carol";

const IKE: &str = "aes128gcm16-prfsha256-x25519";
const ESP: &str = "aes128gcm16";

/// A member's file; the certificates lie one directory above its own.
pub fn member(index: usize, directory: &Path) -> String {
    let connections = format!(
        r#"[pools.clients]
addrs = "10.3.0.0/24"
dns = ["10.2.0.53"]

# Road warriors.
[connections.users]
proposals = ["{IKE}"]
local = {{ auth = "pubkey", certs = ["../gw-ecdsa.crt", "../sub.crt"], id = "gw.test" }}
remote = {{ auth = "eap-mschapv2", id = "%any", eap_id = "%any" }}
pools = ["clients"]
dpd_delay = "30s"

[connections.users.children.net]
esp_proposals = ["{ESP}"]
local_ts = ["10.2.0.0/26"]

# A road warrior ourselves.
[connections.head]
remote_addrs = ["{PEER_OUTSIDE}"]
proposals = ["{IKE}"]
local = {{ auth = "eap-mschapv2", id = "branch.test", eap_id = "{OURS}" }}
remote = {{ auth = "pubkey", cacerts = ["../root.crt"], id = "our-ecdsa.test" }}
vips = ["0.0.0.0"]
dpd_delay = "30s"

[connections.head.children.taken]
esp_proposals = ["{ESP}"]
remote_ts = ["{PEER_NETWORK}"]
start_action = "start"

[secrets.private-gw]
file = "../gw-ecdsa.key"

[secrets.eap-alice]
id = "alice"
secret = "wonderland"

[secrets.eap-bob]
id = "bob"
secret = "builder"

[secrets.eap-{OURS}]
id = "{OURS}"
secret = "christmas"
"#
    );
    let text = gateway::configuration(index, directory, gateway::PATIENT, &connections);
    gateway::with_key_log(directory, &text)
}

/// charon's `swanctl.conf`: a client for each user, and the gateway that we are a client of.
pub fn swanctl() -> String {
    let clients: String = ["alice", "bob", "mallory"].map(client).concat();
    let secrets = [
        ("alice", "wonderland"),
        ("bob", "fixer"),
        ("mallory", "wonderland"),
        (OURS, "christmas"),
    ];
    let secrets = secrets.map(|(user, password)| {
        format!("  eap-{user} {{\n    id = {user}\n    secret = \"{password}\"\n  }}\n")
    });
    format!(
        "connections {{
{clients}  head {{
    version = 2
    local_addrs = {PEER_OUTSIDE}
    remote_addrs = {CLUSTER_OUTSIDE}
    proposals = {IKE}
    pools = branch
    send_cert = always
    encap = yes
    rekey_time = 0
    local {{
      auth = pubkey
      certs = ecdsa.crt
      id = our-ecdsa.test
    }}
    remote {{
      auth = eap-mschapv2
      id = branch.test
      eap_id = %any
    }}
    children {{
      taken {{
        local_ts = {PEER_NETWORK}
        esp_proposals = {ESP}
        rekey_time = 0
      }}
    }}
  }}
}}
pools {{
  branch {{
    addrs = {TAKEN}/32
  }}
}}
secrets {{
{}}}
",
        secrets.concat()
    )
}

/// All of them have one IKE identity, as clients have that use their address or the machine's name.
fn client(user: &str) -> String {
    format!(
        "  {user} {{
    version = 2
    local_addrs = {PEER_OUTSIDE}
    remote_addrs = {CLUSTER_OUTSIDE}
    proposals = {IKE}
    vips = 0.0.0.0
    encap = yes
    dpd_delay = 30s
    rekey_time = 0
    local {{
      auth = eap-mschapv2
      id = laptop.test
      eap_id = {user}
    }}
    remote {{
      auth = pubkey
      id = gw.test
      cacerts = root.crt
    }}
    children {{
      {user} {{
        remote_ts = 10.2.0.0/26
        esp_proposals = {ESP}
        rekey_time = 0
      }}
    }}
  }}
"
    )
}
