//! Addresses and configurations of the lab's gateways, in the words that a user would write.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;

use super::extras::{self, End, Extras, Lane, Redirect};
use crate::config::{Config, ConfigError};

pub const CLUSTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Where the peer is for everybody else, if it is behind a NAT.
pub const NAT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
pub const CLUSTER_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
pub const PEER_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// The host behind the peer.
pub const HOST_A: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
/// The host behind the cluster.
pub const HOST_B: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 10);

/// The number of the peer, or of its first member.
const FIRST_PEER: u8 = 9;
/// Where the second address of a side is, counted in parts of the network behind its first; members
/// that move the tunnel have the parts before.
const ANNEX: u8 = 5;

/// The addresses of one side of the gateways.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Family {
    #[default]
    V4,
    V6,
}

/// What is on the protected networks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stations {
    pub host_a: IpAddr,
    pub peer: IpAddr,
    pub host_b: IpAddr,
    pub cluster: IpAddr,
}

impl Family {
    /// The family that an address has.
    pub fn of(address: IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// Who is on the protected networks.
    pub fn stations(self) -> Stations {
        let six = |network, host| Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host).into();
        match self {
            Family::V4 => Stations {
                host_a: HOST_A.into(),
                peer: PEER_INSIDE.into(),
                host_b: HOST_B.into(),
                cluster: CLUSTER_INSIDE.into(),
            },
            Family::V6 => Stations {
                host_a: six(1, 0x10),
                peer: six(1, 1),
                host_b: six(2, 0x10),
                cluster: six(2, 1),
            },
        }
    }

    /// The cluster and the peer, between which the tunnel is.
    fn ends(self) -> [IpAddr; 2] {
        let six = |host| Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, host).into();
        match self {
            Family::V4 => [CLUSTER.into(), PEER.into()],
            Family::V6 => [six(1), six(2)],
        }
    }

    /// The addresses that either side may have on the outside, the one in common use first: the
    /// cluster's and the peer's.
    pub fn doors(self) -> [[IpAddr; 2]; 2] {
        self.ends()
            .map(|first| [first, extras::shifted(first, ANNEX)])
    }

    /// Behind the cluster and behind the peer.
    fn networks(self) -> [&'static str; 2] {
        match self {
            Family::V4 => ["10.2.0.0/24", "10.1.0.0/24"],
            Family::V6 => ["2001:db8:2::/64", "2001:db8:1::/64"],
        }
    }

    fn prefix_length(self) -> u8 {
        match self {
            Family::V4 => 24,
            Family::V6 => 64,
        }
    }
}

/// What differs from one lab to another.
#[derive(Clone, Debug)]
pub struct Topology {
    pub members: u8,
    /// Members of the peer: it is a cluster as well if there are two.
    pub peers: u8,
    /// Of the tunnel's ends.
    pub outside: Family,
    /// Of what the tunnel carries.
    pub inside: Family,
    pub secret: String,
    pub ike_proposal: &'static str,
    pub esp_proposal: &'static str,
    pub dpd_delay: &'static str,
    pub takeover: &'static str,
    /// What a member does without a standby.
    pub degraded: &'static str,
    /// Packets between two checkpoints of a cell, and the longest time.
    pub checkpoint: (u32, &'static str),
    /// Requests that may be outstanding at once.
    pub window_size: u32,
    /// What the tunnel has beyond that.
    pub extras: Extras,
}

impl Topology {
    /// A cluster of so many members with the usual algorithms.
    pub fn new(members: u8, secret: String) -> Topology {
        Topology {
            members,
            peers: 1,
            outside: Family::V4,
            inside: Family::V4,
            secret,
            ike_proposal: "aes128gcm16-prfsha256-x25519",
            esp_proposal: "aes128gcm16-x25519-esn",
            dpd_delay: "30s",
            takeover: "auto",
            degraded: "rekey",
            checkpoint: (1000, "50ms"),
            window_size: 1,
            extras: Extras::default(),
        }
    }

    /// Between which hosts traffic goes.
    pub fn lanes(&self) -> Vec<Lane> {
        self.extras.lanes(self.inside)
    }

    /// The configuration of a member, which answers unless somebody else than the peer begins.
    pub fn member(&self, member: u8) -> Result<Config, ConfigError> {
        let mut cluster = self.cluster("lab", member, 1..=self.members);
        if self.extras.mobike {
            cluster.push_str("preempt = true\n");
        }
        let remote = match self.extras.nat {
            true => vec![NAT.into()],
            false => self.peer_addresses(),
        };
        let sides = Sides {
            cluster: &cluster,
            outside: self.member_addresses(member),
            inside: self.inside.stations().cluster,
            remote,
            end: End::Cluster,
        };
        self.parse(&format!("member {member}"), &sides)
    }

    /// Where a member is on the outside: all are at the same addresses, unless they move the tunnel.
    fn member_addresses(&self, member: u8) -> Vec<IpAddr> {
        let [[shared, annex], _] = self.outside.doors();
        match self.extras.mobike {
            true => vec![extras::shifted(shared, member - 1)],
            false if self.extras.has_annex() => vec![shared, annex],
            false => vec![shared],
        }
    }

    fn peer_addresses(&self) -> Vec<IpAddr> {
        let [_, [first, second]] = self.outside.doors();
        match self.extras.moves {
            true => vec![first, second],
            false => vec![first],
        }
    }

    /// The configuration of the peer, which initiates as a rule: a cluster of one, or the first of two.
    pub fn peer(&self) -> Result<Config, ConfigError> {
        self.peer_member(0)
    }

    /// The same for that one of the peer's members, from 0.
    pub fn peer_member(&self, number: u8) -> Result<Config, ConfigError> {
        let first = FIRST_PEER;
        let cluster = match self.peers {
            0 | 1 => format!("name = \"peer\"\nid = {first}\n"),
            more => self.cluster("peer", first + number, first..=first + more - 1),
        };
        // The first one of each: whoever is sent elsewhere is told so.
        let mut remote: Vec<IpAddr> = (1..=self.members)
            .filter_map(|member| self.member_addresses(member).into_iter().next())
            .collect();
        remote.dedup();
        let sides = Sides {
            cluster: &cluster,
            outside: self.peer_addresses(),
            inside: self.inside.stations().peer,
            remote,
            end: End::Peer,
        };
        self.parse("peer", &sides)
    }

    /// The section of a cluster with these members.
    fn cluster(&self, name: &str, member: u8, all: RangeInclusive<u8>) -> String {
        let witness = (self.extras.witness && *all.start() == 1).then_some(self.members);
        let list = all.map(|id| {
            let (priority, address) = (200 - id, sync_address(id));
            let votes = match witness == Some(id) {
                true => ", witness = true",
                false => "",
            };
            format!("{{ id = {id}, priority = {priority}, sync_addr = \"{address}\"{votes} }}")
        });
        let list = list.collect::<Vec<_>>().join(", ");
        format!(
            "name = \"{name}\"\nid = {member}\nmembers = [{list}]\nsecret = \"{}-{name}-cluster\"\n\
             hold = \"1s\"\ndegraded = \"{}\"\n",
            self.secret, self.degraded
        )
    }

    fn parse(&self, name: &str, sides: &Sides<'_>) -> Result<Config, ConfigError> {
        let Topology {
            secret,
            checkpoint: (packets, interval),
            extras,
            ..
        } = self;
        let Sides {
            cluster,
            outside,
            inside,
            end,
            ..
        } = sides;
        let addresses = outside
            .iter()
            .map(|address| format!("\"{address}/{}\"", self.outside.prefix_length()));
        let addresses = addresses.collect::<Vec<_>>().join(", ");
        let connections = self.connections(sides);
        let text = format!(
            r#"
[cluster]
{cluster}
[ports.outside]
driver = "memory"
addresses = [{addresses}]
protected = false
[ports.protected]
driver = "memory"
addresses = ["{inside}/{}"]
protected = true
[dataplane]
workers = {}
checkpoint = {{ packets = {packets}, interval = "{interval}" }}
{connections}[secrets.tunnel]
secret = "{secret}"
{}"#,
            self.inside.prefix_length(),
            extras.workers(),
            extras.sections(*end, self.inside, secret),
        );
        Config::parse(name, &text, Path::new("."))
    }

    /// All connections of a side. Where clients are sent elsewhere before they have a Child SA the
    /// tunnels are there, and at the cluster's first address is a connection for each that says so.
    fn connections(&self, sides: &Sides<'_>) -> String {
        let all = || 0..=self.extras.more_connections;
        let when = self.extras.redirect.filter(|_| sides.end == End::Cluster);
        let (Some(when @ (Redirect::Init | Redirect::Auth)), &[first, annex]) =
            (when, &sides.outside[..])
        else {
            let tunnels = all().map(|number| self.connection(number, sides, &sides.outside));
            return tunnels.collect();
        };
        let mut text: String = all()
            .map(|number| self.connection(number, sides, &[annex]))
            .collect();
        for number in all() {
            let door = self.connection(number, sides, &[first]);
            let door = door.replace("[connections.tunnel", "[connections.door");
            let order = format!("redirect_to = \"{annex}\"\nlocal = ");
            text.push_str(&door.replacen("local = ", &order, 1));
        }
        if when == Redirect::Auth {
            // Somebody else may stay: who it is shows in IKE_AUTH.
            let lobby = self.connection(0, sides, &[first]);
            let lobby = lobby.replace("[connections.tunnel", "[connections.lobby");
            text.push_str(&lobby.replace("\"peer.lab\"", "\"nobody.lab\""));
        }
        text
    }

    /// One connection with its children. It is the peer's identity that tells one from another.
    fn connection(&self, number: u8, sides: &Sides<'_>, local: &[IpAddr]) -> String {
        let Topology {
            dpd_delay,
            takeover,
            window_size,
            extras,
            ..
        } = self;
        let Sides { remote, end, .. } = sides;
        let start = match extras.starts(*end) {
            true => "start",
            false => "none",
        };
        let [local_id, remote_id] = match end {
            End::Cluster => ["cluster".to_owned(), extras::numbered("peer", number)],
            End::Peer => [extras::numbered("peer", number), "cluster".to_owned()],
        };
        let plain = format!(
            "esp_proposals = [{}]\nreplay_window = 4096\nstart_action = \"{start}\"\n",
            extras.proposals(*end, self.esp_proposal)
        );
        let quoted = |addresses: &[IpAddr]| {
            let quoted = addresses.iter().map(|address| format!("\"{address}\""));
            quoted.collect::<Vec<_>>().join(", ")
        };
        format!(
            r#"[connections.{}]
local_addrs = [{}]
remote_addrs = [{}]
proposals = [{}]
local = {{ auth = "psk", id = "{local_id}.lab" }}
remote = {{ auth = "psk", id = "{remote_id}.lab" }}
dpd_delay = "{dpd_delay}"
takeover = "{takeover}"
window_size = {window_size}
{}{}"#,
            extras::numbered("tunnel", number),
            quoted(local),
            quoted(remote),
            extras.proposals(*end, self.ike_proposal),
            extras.connection(number, *end, self.inside),
            extras.children(number, *end, self.inside, self.inside.networks(), &plain),
        )
    }
}

/// What differs between the two ends of the tunnels.
struct Sides<'a> {
    cluster: &'a str,
    /// Its addresses there.
    outside: Vec<IpAddr>,
    inside: IpAddr,
    remote: Vec<IpAddr>,
    end: End,
}

/// Where a member listens on the sync network.
pub fn sync_address(member: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::from([10, 255, 0, member]), 4510)
}
