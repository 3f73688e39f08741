//! Addresses and configurations of the lab's gateways, in the words that a user would write.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::config::{Config, ConfigError};

pub const CLUSTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const CLUSTER_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
pub const PEER_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// The host behind the peer.
pub const HOST_A: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
/// The host behind the cluster.
pub const HOST_B: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 10);

/// What differs from one lab to another.
#[derive(Clone, Debug)]
pub struct Topology {
    pub members: u8,
    pub secret: String,
    pub ike_proposal: &'static str,
    pub esp_proposal: &'static str,
    pub dpd_delay: &'static str,
    pub takeover: &'static str,
    /// What a member does without a standby.
    pub degraded: &'static str,
}

impl Topology {
    /// A cluster of so many members with the usual algorithms.
    pub fn new(members: u8, secret: String) -> Topology {
        Topology {
            members,
            secret,
            ike_proposal: "aes128gcm16-prfsha256-x25519",
            esp_proposal: "aes128gcm16-x25519-esn",
            dpd_delay: "30s",
            takeover: "auto",
            degraded: "rekey",
        }
    }

    /// The configuration of a member, which answers.
    pub fn member(&self, member: u8) -> Result<Config, ConfigError> {
        let list = (1..=self.members).map(|id| {
            let (priority, address) = (200 - id, sync_address(id));
            format!("{{ id = {id}, priority = {priority}, sync_addr = \"{address}\" }}")
        });
        let list = list.collect::<Vec<_>>().join(", ");
        let cluster = format!(
            "name = \"lab\"\nid = {member}\nmembers = [{list}]\nsecret = \"{}-cluster\"\n\
             hold = \"1s\"\ndegraded = \"{}\"\n",
            self.secret, self.degraded
        );
        let sides = Sides {
            cluster: &cluster,
            outside: CLUSTER,
            inside: CLUSTER_INSIDE,
            remote: PEER,
            ids: ["cluster.lab", "peer.lab"],
            networks: ["10.2.0.0/24", "10.1.0.0/24"],
            start: "none",
        };
        self.parse(&format!("member {member}"), &sides)
    }

    /// The configuration of the peer: a cluster of one, which initiates.
    pub fn peer(&self) -> Result<Config, ConfigError> {
        let sides = Sides {
            cluster: "name = \"peer\"\nid = 9\n",
            outside: PEER,
            inside: PEER_INSIDE,
            remote: CLUSTER,
            ids: ["peer.lab", "cluster.lab"],
            networks: ["10.1.0.0/24", "10.2.0.0/24"],
            start: "start",
        };
        self.parse("peer", &sides)
    }

    fn parse(&self, name: &str, sides: &Sides<'_>) -> Result<Config, ConfigError> {
        let Topology {
            secret,
            ike_proposal,
            esp_proposal,
            dpd_delay,
            takeover,
            ..
        } = self;
        let Sides {
            cluster,
            outside,
            inside,
            remote,
            ids,
            networks,
            start,
        } = sides;
        let text = format!(
            r#"
[cluster]
{cluster}
[ports.outside]
driver = "memory"
addresses = ["{outside}/24"]
protected = false
[ports.protected]
driver = "memory"
addresses = ["{inside}/24"]
protected = true
[dataplane]
checkpoint = {{ packets = 1000, interval = "50ms" }}
[connections.tunnel]
local_addrs = ["{outside}"]
remote_addrs = ["{remote}"]
proposals = ["{ike_proposal}"]
local = {{ auth = "psk", id = "{}" }}
remote = {{ auth = "psk", id = "{}" }}
dpd_delay = "{dpd_delay}"
takeover = "{takeover}"
[connections.tunnel.children.net]
esp_proposals = ["{esp_proposal}"]
local_ts = ["{}"]
remote_ts = ["{}"]
replay_window = 4096
start_action = "{start}"
[secrets.tunnel]
secret = "{secret}"
"#,
            ids[0], ids[1], networks[0], networks[1]
        );
        Config::parse(name, &text, Path::new("."))
    }
}

/// What differs between the two ends of the tunnel.
struct Sides<'a> {
    cluster: &'a str,
    outside: Ipv4Addr,
    inside: Ipv4Addr,
    remote: Ipv4Addr,
    ids: [&'a str; 2],
    networks: [&'a str; 2],
    start: &'a str,
}

/// Where a member listens on the sync network.
pub fn sync_address(member: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::from([10, 255, 0, member]), 4510)
}
