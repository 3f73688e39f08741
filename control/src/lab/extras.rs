//! What a tunnel has beyond the plain one: each feature by itself, in the words of a configuration.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::topology::Family;

/// Octets of the last part of an address, from one network's part to the next.
const STRIDE: u16 = 16;

/// When a client is sent to the cluster's other address (RFC 5685).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Redirect {
    /// In the answer to IKE_SA_INIT (section 3).
    Init,
    /// In the answer to IKE_AUTH (section 6).
    Auth,
    /// By the operator, while the IKE SA is there (section 5).
    Later,
}

/// Who makes the tunnel, if not the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begins {
    /// The cluster, and the peer answers.
    Cluster,
    /// Each of them, at once or not.
    Both,
}

/// What is asked for. Nothing of it is the plain tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extras {
    /// So many Child SAs more, each between a part of one network and a part of the other.
    pub more_children: u8,
    /// So many connections more between the same gateways, under identities of their own and with
    /// a child each between further parts of the networks.
    pub more_connections: u8,
    /// One more in transport mode, between the gateways themselves.
    pub transport: bool,
    /// A postquantum pre-shared key, which nothing goes without (RFC 8784).
    pub ppk: bool,
    /// The peer's host has its address from a pool of the cluster.
    pub virtual_ip: bool,
    /// ESP in UDP, whether or not there is a NAT.
    pub encap: bool,
    /// IKE messages in parts of 576 octets (RFC 7383).
    pub small_fragments: bool,
    /// Tokens that prove a restart (RFC 6290).
    pub crash_detection: bool,
    /// Tickets (RFC 5723).
    pub resumption: bool,
    /// A second key exchange, in every exchange that makes keys (RFC 9370).
    pub ml_kem: bool,
    /// Packets after which a Child SA is replaced.
    pub packets: Option<u32>,
    /// A new IKE_AUTH every two seconds, before the old IKE SA is deleted (RFC 7296 section 2.8.3).
    pub reauthentication: bool,
    /// Each member has an address of its own, to which it moves the tunnel (RFC 4555); the first
    /// takes the lead back, as peers begin there.
    pub mobike: bool,
    /// Two workers on either side, and an SA for each (RFC 9611).
    pub per_cpu_sas: bool,
    /// After a takeover a peer is asked where it stands when that is needed.
    pub lazy: bool,
    /// After a takeover every SA gets new keys, for the numbers that the dead member may have delivered.
    pub rekeys_inbound: bool,
    /// The peer is behind a NAT.
    pub nat: bool,
    /// The last of the members only votes.
    pub witness: bool,
    /// The cluster has two addresses, and sends its clients from one to the other.
    pub redirect: Option<Redirect>,
    /// IKE_AUTH makes no Child SA: the first one has an exchange of its own (RFC 6023).
    pub childless: bool,
    /// How many IKE SAs a peer may have, in the configuration's word.
    pub unique: Option<&'static str>,
    /// Octets after which a Child SA is replaced.
    pub octets: Option<u32>,
    /// The peer asks for wider selectors than the cluster has (RFC 7296 section 2.9).
    pub narrow: bool,
    /// The peer has two addresses, and may go from one to the other (RFC 4555).
    pub moves: bool,
    /// Nobody begins without a cookie (RFC 7296 section 2.6).
    pub cookies: bool,
    /// The peer tries another group first: INVALID_KE_PAYLOAD (RFC 7296 section 1.2 and 1.3).
    pub other_group: bool,
    /// A name server comes with the address.
    pub dns: bool,
    /// Others begin than the peer: what a peer says below who begins, whoever that is, says.
    pub begins: Option<Begins>,
}

/// A part of each protected network, and a host on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lane {
    pub host_a: IpAddr,
    pub host_b: IpAddr,
    /// Behind the cluster and behind the peer.
    networks: [String; 2],
}

/// Which end of the tunnel is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Cluster,
    Peer,
}

impl Extras {
    /// Where traffic goes: by each tunnel-mode Child SA.
    pub fn lanes(&self, inside: Family) -> Vec<Lane> {
        let stations = inside.stations();
        let length = match inside {
            Family::V4 => 28,
            Family::V6 => 124,
        };
        let lane = |number: u8| {
            let host_a = match self.virtual_ip && number <= self.more_children {
                true => stations.host_a,
                false => shifted(stations.host_a, number),
            };
            let host_b = shifted(stations.host_b, number);
            let network = |host: IpAddr| format!("{host}/{length}");
            Lane {
                host_a,
                host_b,
                networks: [network(host_b), network(host_a)],
            }
        };
        let lanes = 0..=self.more_children + self.more_connections;
        lanes.map(lane).collect()
    }

    /// Whether this end makes the tunnel.
    pub(super) fn starts(&self, end: End) -> bool {
        match self.begins {
            None => end == End::Peer,
            Some(Begins::Cluster) => end == End::Cluster,
            Some(Begins::Both) => true,
        }
    }

    /// Which part an end has in what is made by one that begins and one that answers: where both begin
    /// the peer is taken for the one that does.
    fn role(&self, end: End) -> End {
        match (self.begins, end) {
            (Some(Begins::Cluster), End::Cluster) => End::Peer,
            (Some(Begins::Cluster), End::Peer) => End::Cluster,
            _ => end,
        }
    }

    /// Workers of each gateway.
    pub fn workers(&self) -> usize {
        1 + usize::from(self.per_cpu_sas)
    }

    /// Whether the networks are divided among several children.
    fn divides(&self) -> bool {
        self.more_children + self.more_connections > 0
    }

    /// Whether the cluster has a second address on the outside.
    pub(super) fn has_annex(&self) -> bool {
        self.redirect.is_some()
    }

    /// Proposals of IKE and ESP with what is wanted of them, the first one first.
    pub(super) fn proposals(&self, end: End, plain: &str) -> String {
        let with = match self.ml_kem {
            true => plain.replace("-x25519", "-x25519-ke1_mlkem768"),
            false => plain.to_owned(),
        };
        match self.other_group && self.role(end) == End::Peer {
            true => format!("\"{}\", \"{with}\"", with.replace("-x25519", "-ecp256")),
            false => format!("\"{with}\""),
        }
    }

    /// Lines of a connection. Only the first one has an address for its host.
    pub(super) fn connection(&self, number: u8, end: End, inside: Family) -> String {
        let mut lines = String::new();
        let virtual_ip = self.virtual_ip && number == 0;
        let both = [
            (self.ppk, "ppk_id = \"ppk.lab\"\nppk_required = true"),
            (self.encap, "encap = true"),
            (self.small_fragments, "fragment_size = 576"),
            (self.crash_detection, "crash_detection = true"),
            (self.resumption, "resumption = true"),
        ];
        let cluster = [
            (virtual_ip, "pools = [\"clients\"]"),
            (false, ""),
            (false, ""),
            (false, ""),
        ];
        let peer = [
            (virtual_ip, vips(inside)),
            (self.reauthentication, "reauth_time = \"2s\""),
            (self.mobike || self.moves, "mobike = true"),
            (self.childless, "childless = \"force\""),
        ];
        let own = match self.role(end) {
            End::Cluster => cluster,
            End::Peer => peer,
        };
        let lazy = self.lazy && end == End::Cluster;
        let rekeys = self.rekeys_inbound && end == End::Cluster;
        let taken_over = [
            (lazy, "sync_after_takeover = \"lazy\""),
            (rekeys, "takeover_inbound = \"rekey\""),
        ];
        for (wanted, line) in both.into_iter().chain(own).chain(taken_over) {
            if wanted {
                lines.push_str(line);
                lines.push('\n');
            }
        }
        // Who never hears of a first contact says nothing of one either.
        let unique = self
            .unique
            .filter(|word| end == End::Cluster || *word == "never");
        if let Some(word) = unique {
            // Writing to a string does not fail.
            let _ = writeln!(lines, "unique = \"{word}\"");
        }
        lines
    }

    /// The sections of the children of a connection; `plain` is what all of them say, `networks` what lies
    /// behind the cluster and behind the peer.
    pub(super) fn children(
        &self,
        connection: u8,
        end: End,
        inside: Family,
        networks: [&str; 2],
        plain: &str,
    ) -> String {
        let mut text = String::new();
        let own = |lane: &(u8, Lane)| lane.0.saturating_sub(self.more_children) == connection;
        let lanes = (0_u8..).zip(self.lanes(inside)).filter(own);
        for (number, lane) in lanes {
            let name = numbered("net", number);
            let [behind_cluster, behind_peer] = match self.divides() {
                true => lane.networks.each_ref().map(String::as_str),
                false if self.narrow && self.role(end) == End::Peer => wide(inside),
                false => networks,
            };
            let behind_peer = match self.virtual_ip && connection == 0 {
                true => "dynamic",
                false => behind_peer,
            };
            let (local, remote) = match end {
                End::Cluster => (behind_cluster, behind_peer),
                End::Peer => (behind_peer, behind_cluster),
            };
            let selectors = format!("local_ts = [\"{local}\"]\nremote_ts = [\"{remote}\"]\n");
            self.child(&mut text, (connection, &name), &selectors, plain);
        }
        if self.transport && connection == 0 {
            self.child(&mut text, (0, "gateways"), "mode = \"transport\"\n", plain);
        }
        text
    }

    fn child(&self, text: &mut String, (connection, name): (u8, &str), own: &str, plain: &str) {
        let connection = numbered("tunnel", connection);
        let section = format!("[connections.{connection}.children.{name}]\n{own}{plain}");
        text.push_str(&section);
        if self.per_cpu_sas {
            text.push_str("per_cpu_sas = \"yes\"\n");
        }
        // Writing to a string does not fail.
        if let Some(packets) = self.packets {
            let _ = writeln!(text, "rekey_packets = {packets}");
        }
        if let Some(octets) = self.octets {
            let _ = writeln!(text, "rekey_bytes = {octets}");
        }
    }

    /// Sections of their own.
    pub(super) fn sections(&self, end: End, inside: Family, secret: &str) -> String {
        let mut text = String::new();
        if self.ppk {
            let ppk = format!("[secrets.ppk-lab]\nid = \"ppk.lab\"\nsecret = \"{secret}-ppk\"\n");
            text.push_str(&ppk);
        }
        if self.virtual_ip && end == End::Cluster {
            let client = inside.stations().host_a;
            let pool = format!("[pools.clients]\naddrs = \"{client}-{client}\"\n");
            text.push_str(&pool);
            if self.dns {
                let _ = writeln!(text, "dns = [\"{}\"]", inside.stations().host_b);
            }
        }
        if self.cookies && self.role(end) == End::Cluster {
            text.push_str("[ike]\ncookies = \"always\"\n");
        }
        text
    }
}

/// The first is just called so.
pub(super) fn numbered(name: &str, number: u8) -> String {
    match number {
        0 => name.to_owned(),
        number => format!("{name}{}", number + 1),
    }
}

/// Any address of a family.
fn vips(family: Family) -> &'static str {
    match family {
        Family::V4 => "vips = [\"0.0.0.0\"]",
        Family::V6 => "vips = [\"::\"]",
    }
}

/// More than what lies behind the cluster and behind the peer.
fn wide(inside: Family) -> [&'static str; 2] {
    match inside {
        Family::V4 => ["10.2.0.0/16", "10.1.0.0/16"],
        Family::V6 => ["2001:db8:2::/48", "2001:db8:1::/48"],
    }
}

/// What has the same place in a later part of a network.
pub(super) fn shifted(host: IpAddr, number: u8) -> IpAddr {
    let by = STRIDE * u16::from(number);
    match host {
        IpAddr::V4(host) => IpAddr::from((u32::from(host) + u32::from(by)).to_be_bytes()),
        IpAddr::V6(host) => IpAddr::from((u128::from(host) + u128::from(by)).to_be_bytes()),
    }
}
