//! The network of the demo: two members, a peer gateway, a host behind each side.
//!
//! ```text
//!  host a --- peer ---+ outside switch +--- member 1 ---+ protected switch +--- host b
//!                     |                +--- member 2 ---+                  |
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use hitless_dataplane::port::memory::{self, MemoryPort};
use hitless_sa::Instant;

use crate::config::{Config, ConfigError};
use crate::lab::{Host, MTU, Switch};

pub const CLUSTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const CLUSTER_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
const PEER_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
pub const HOST_A: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
pub const HOST_B: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 10);
/// Frames that a cable holds.
const CABLE: usize = 512;
/// Octets of a probe.
const PROBE: usize = 256;

/// Everything outside the gateways.
pub struct World {
    pub outside: Switch,
    pub protected: Switch,
    pub a: Host,
    pub b: Host,
}

impl World {
    /// The network, and the ends of the cables for the peer and for each member: outside first,
    /// protected second, as in the configurations.
    pub fn new(members: usize) -> (World, Vec<MemoryPort>, Vec<Vec<MemoryPort>>) {
        let (peer_outside, switch_end) = memory::link(CABLE, MTU);
        let (peer_protected, a) = memory::link(CABLE, MTU);
        let mut outside = vec![switch_end];
        let mut protected = Vec::new();
        let mut cables = Vec::new();
        for _ in 0..members {
            let (member_outside, outside_end) = memory::link(CABLE, MTU);
            let (member_protected, protected_end) = memory::link(CABLE, MTU);
            outside.push(outside_end);
            protected.push(protected_end);
            cables.push(vec![member_outside, member_protected]);
        }
        let (b, protected_end) = memory::link(CABLE, MTU);
        protected.push(protected_end);
        let world = World {
            outside: Switch::new(outside),
            protected: Switch::new(protected),
            a: Host::new(a, [2, 0, 0, 0, 0xa, 1], HOST_A, PEER_INSIDE, PROBE),
            b: Host::new(b, [2, 0, 0, 0, 0xb, 1], HOST_B, CLUSTER_INSIDE, PROBE),
        };
        (world, vec![peer_outside, peer_protected], cables)
    }

    /// Moves every frame that waits.
    pub fn turn(&mut self, now: Instant) -> usize {
        self.outside.turn(now) + self.protected.turn(now) + self.a.turn(now) + self.b.turn(now)
    }
}

/// Where a member listens on the sync network.
pub fn sync_address(member: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::from([10, 255, 0, member]), 4510)
}

/// The configuration of a member, in the words that a user would write.
pub fn member_config(member: u8, members: u8, secret: &str) -> Result<Config, ConfigError> {
    let list = (1..=members)
        .map(|id| {
            let priority = 200 - id;
            format!("{{ id = {id}, priority = {priority}, sync_addr = \"{}\" }}", sync_address(id))
        })
        .collect::<Vec<_>>()
        .join(", ");
    let cluster = format!(
        "name = \"demo\"\nid = {member}\nmembers = [{list}]\nsecret = \"{secret}-cluster\"\n\
         hold = \"1s\"\n"
    );
    let sides = Sides {
        cluster: &cluster,
        outside: CLUSTER,
        inside: CLUSTER_INSIDE,
        remote: PEER,
        ids: ["cluster.demo", "peer.demo"],
        networks: ["10.2.0.0/24", "10.1.0.0/24"],
        start: "none",
    };
    parse(&format!("member {member}"), &sides, secret)
}

/// The configuration of the peer: a cluster of one, which initiates.
pub fn peer_config(secret: &str) -> Result<Config, ConfigError> {
    let sides = Sides {
        cluster: "name = \"peer\"\nid = 9\n",
        outside: PEER,
        inside: PEER_INSIDE,
        remote: CLUSTER,
        ids: ["peer.demo", "cluster.demo"],
        networks: ["10.1.0.0/24", "10.2.0.0/24"],
        start: "start",
    };
    parse("peer", &sides, secret)
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

fn parse(name: &str, sides: &Sides<'_>, secret: &str) -> Result<Config, ConfigError> {
    let Sides { cluster, outside, inside, remote, ids, networks, start } = sides;
    let text = format!(
        r#"
[cluster]
{cluster}
[ports.outside]
driver = "memory"
addresses = ["{outside}/24"]
[ports.protected]
driver = "memory"
addresses = ["{inside}/24"]
protected = true
[dataplane]
checkpoint = {{ packets = 1000, interval = "50ms" }}
[connections.tunnel]
local_addrs = ["{outside}"]
remote_addrs = ["{remote}"]
proposals = ["aes128gcm16-prfsha256-x25519"]
local = {{ auth = "psk", id = "{}" }}
remote = {{ auth = "psk", id = "{}" }}
dpd_delay = "30s"
[connections.tunnel.children.net]
esp_proposals = ["aes128gcm16-x25519-esn"]
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
