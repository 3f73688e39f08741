//! The network of the faults: two members, one strongSwan with many tunnels, a host behind each
//! side, and the captures. It outlives a fault: what died is started again for the next one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Wish;
use super::audit::Question;
use super::disk::SmallDisk;
use super::traffic::Traffic;
use super::waits::Waits;
use crate::capture::{Capture, Direction};
use crate::clock;
use crate::error::LabError;
use crate::gateway::{self, Member};
use crate::netns::Namespace;
use crate::process::Program;
use crate::scenario::Bench;
use crate::strongswan::{IkeSa, StrongSwan};
use crate::topology::{
    CLUSTER_NETWORK, CLUSTER_OUTSIDE, OUTSIDE, OUTSIDE_PREFIX, PORT_MEMBERS, SWITCH_INSIDE, SYNC,
    SYNC_INTERFACE, Topology,
};

/// The host behind the cluster.
pub const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 2, 0, 2));
/// The cluster on the outside, as captures have it.
pub const CLUSTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const CLUSTER_ID: &str = "cluster.test";
const SECRET: &str = "not-so-secret-psk-0123456789";
pub const IKE: &str = "aes128gcm16-prfsha256-x25519";
/// kernel-libipsec has no extended sequence numbers.
const ESP: &str = "aes128gcm16";
/// The peers' outside addresses begin here, within the cluster's network.
const FIRST_PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 3, 1);
/// strongSwan and this machine are tried with so many.
pub const MOST_TUNNELS: u16 = 1_000;
const UP: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 4;
const ROLES: Duration = Duration::from_secs(30);
/// For what a fault has to make happen, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// The line of a member's file that is of the inside port alone.
const PROTECTED: &str = "protected = true\n";
/// A neighbour that nobody is: what is sent to it is lost.
const NOBODY: &str = "02:de:ad:00:00:01";

/// The peer's address inside a tunnel.
pub fn inner_address(tunnel: u16) -> IpAddr {
    let [high, low] = (tunnel + 1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 64, high, low))
}

fn outer_address(tunnel: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FIRST_PEER) + u32::from(tunnel))
}

/// Fields are dropped in this order: processes before namespaces.
pub struct Bed<'a> {
    pub bench: &'a Bench,
    pub directory: PathBuf,
    wish: Wish,
    binary: PathBuf,
    connections: String,
    /// For the daemons, in the next start.
    pub environment: Vec<(&'static str, PathBuf)>,
    /// In the next start they monitor the host behind them.
    pub monitor: bool,
    /// The sync link loses some datagrams.
    pub lossy: bool,
    pub members: [Option<Member>; 2],
    pub peer: StrongSwan,
    pub disks: [SmallDisk; 2],
    _witness: Option<(Member, Namespace)>,
    pub lab: Topology,
}

impl<'a> Bed<'a> {
    pub fn new(bench: &'a Bench, wish: &Wish, number: u32) -> Result<Bed<'a>, LabError> {
        Self::new_in(bench, wish, &format!("faults-{number}"))
    }

    /// Builds the network, starts members and peer, and waits until every tunnel is up.
    pub fn new_in(bench: &'a Bench, wish: &Wish, name: &str) -> Result<Bed<'a>, LabError> {
        let directory = bench.subdirectory(name)?;
        bench.say("building the network");
        let lab = Topology::new()?;
        peer_addresses(&lab, wish.tunnels, &directory)?;
        let disk = |index: usize| SmallDisk::new(&directory.join(format!("m{}/state", index + 1)));
        let disks = [disk(0)?, disk(1)?];
        let binary = gateway::binary()?;
        bench.say("starting the members");
        let witness = match wish.degraded.as_str() {
            "witness" => Some(start_witness(&binary, &lab, &directory, wish)?),
            _ => None,
        };
        let connections = member_connections(wish.tunnels, false).unwrap_or_default();
        let start = |index| {
            let text = configuration(index, &directory, wish, &connections, false);
            Member::start_with(&binary, &lab, index, &directory, &text, &[])
        };
        let mut members = [Some(start(0)?), Some(start(1)?)];
        wait_for_roles(&mut members)?;
        bench.say(&format!("strongSwan brings {} tunnels up", wish.tunnels));
        let text = peer_connections(wish.tunnels, true).unwrap_or_default();
        let peer = StrongSwan::start_with(&lab.peer, "peer", &directory, &text, "")?;
        let mut bed = Bed {
            bench,
            directory,
            wish: wish.clone(),
            binary,
            connections,
            environment: Vec::new(),
            monitor: false,
            lossy: false,
            members,
            peer,
            disks,
            _witness: witness,
            lab,
        };
        wait_for_tunnels(&bed.peer, bed.wish.tunnels)?;
        bed.wait_for_agreement()?;
        Ok(bed)
    }

    /// Waits until the cluster has every tunnel that the peer has. While a crowd of them comes up on
    /// a busy machine the lead may change, and what one member alone had agreed is not known to the
    /// other one: such a tunnel is begun anew.
    fn wait_for_agreement(&mut self) -> Result<(), LabError> {
        for _ in 0..ATTEMPTS {
            let leader = self.wait_for_roles()?;
            let known = self.member(leader)?.established_spis()?;
            let mut peers = self.peer.list_sas()?;
            peers.retain(|sa| is_up(sa) && !known.contains(&sa.spis()));
            if peers.is_empty() {
                return Ok(());
            }
            let count = peers.len();
            let what = format!("{count} tunnels that the active does not have begin anew");
            self.bench.say(&what);
            for sa in peers {
                begin_anew(&self.peer, sa.name.trim_start_matches('c'));
            }
            wait_for_tunnels(&self.peer, self.wish.tunnels)?;
        }
        Err(LabError::Late {
            what: "the active having every tunnel of the peer".to_owned(),
            limit: UP * ATTEMPTS,
        })
    }

    /// Starts what is not running, and waits until one member leads and the other one could take
    /// over; gives the leader.
    pub fn settle(&mut self) -> Result<usize, LabError> {
        for index in 0..2 {
            if self.members[index].is_none() {
                self.restart(index)?;
            }
        }
        self.wait_for_roles()
    }

    pub fn wait_for_roles(&mut self) -> Result<usize, LabError> {
        wait_for_roles(&mut self.members)
    }

    /// Starts a member that does not run.
    pub fn restart(&mut self, index: usize) -> Result<(), LabError> {
        self.members[index] = None;
        let text = configuration(
            index,
            &self.directory,
            &self.wish,
            &self.connections,
            self.monitor,
        );
        let started = Member::start_with(
            &self.binary,
            &self.lab,
            index,
            &self.directory,
            &text,
            &self.environment,
        )?;
        self.members[index] = Some(started);
        Ok(())
    }

    /// Waits until something is so that a fault has to bring about.
    pub fn until(
        &mut self,
        what: &str,
        mut is: impl FnMut(&mut Self) -> Result<bool, LabError>,
    ) -> Result<(), LabError> {
        clock::until(what, PATIENCE, || Ok(is(self)?.then_some(())))
    }

    pub fn member(&mut self, index: usize) -> Result<&mut Member, LabError> {
        let name = || format!("m{} does not run", index + 1);
        self.members[index]
            .as_mut()
            .ok_or_else(|| LabError::Usage(name()))
    }

    /// Sync datagrams from that member are lost: the other one's Ethernet address is wrong for it.
    pub fn mute_sync(&self, from: usize) -> Result<(), LabError> {
        let to = SYNC[1 - from];
        self.lab.members[from]
            .ip(&[
                "neigh",
                "replace",
                to,
                "lladdr",
                NOBODY,
                "dev",
                SYNC_INTERFACE,
                "nud",
                "permanent",
            ])
            .map(drop)
    }

    pub fn unmute_sync(&self, from: usize) -> Result<(), LabError> {
        let to = SYNC[1 - from];
        self.lab.members[from]
            .ip(&["neigh", "del", to, "dev", SYNC_INTERFACE])
            .map(drop)
    }

    /// Takes a port of the inside switch out of it, or puts it back: whoever is there has a link,
    /// and reaches nobody.
    pub fn patch(&self, port: &str, connected: bool) -> Result<(), LabError> {
        let words: &[&str] = match connected {
            true => &["link", "set", port, "master", SWITCH_INSIDE],
            false => &["link", "set", port, "nomaster"],
        };
        self.lab.switch.ip(words).map(drop)
    }

    /// What `hitless audit` is to be asked about captures of this name.
    pub fn question(&self, name: &str) -> Question {
        Question::about(&self.binary, &self.directory, name).with_ledgers(&self.directory)
    }

    /// Looks how long the members' threads wait for a core.
    pub fn waits(&self) -> Waits {
        Waits::start(self.members.iter().flatten().map(Member::id).collect())
    }

    /// Pulls a cable at the switch, or plugs it in again.
    pub fn cable(&self, port: &str, plugged: bool) -> Result<(), LabError> {
        let state = if plugged { "up" } else { "down" };
        self.lab.switch.ip(&["link", "set", port, state]).map(drop)
    }
}

/// What the members' files say of their heartbeats.
pub fn heartbeats(wish: &Wish) -> String {
    format!(
        "heartbeat = \"{}ms\"\nmissed = {}\ndegraded = \"{}\"",
        wish.heartbeat_ms, wish.missed, wish.degraded
    )
}

/// Processes before namespaces: they are dropped in this order.
fn start_witness(
    binary: &Path,
    lab: &Topology,
    directory: &Path,
    wish: &Wish,
) -> Result<(Member, Namespace), LabError> {
    let namespace = lab.witness()?;
    let witness = Member::witness(binary, &namespace, directory, &heartbeats(wish))?;
    Ok((witness, namespace))
}

fn configuration(
    index: usize,
    directory: &Path,
    wish: &Wish,
    connections: &str,
    monitor: bool,
) -> String {
    let own = directory.join(format!("m{}", index + 1));
    let text = gateway::configuration(index, &own, &heartbeats(wish), connections);
    match monitor {
        true => text.replacen(
            PROTECTED,
            &format!("{PROTECTED}monitor = [\"{HOST}\"]\n"),
            1,
        ),
        false => text,
    }
}

/// Waits until the peer has every tunnel. One that came to a member which then lost the lead in the
/// midst of the first exchange is begun anew: strongSwan would be patient for minutes.
pub fn wait_for_tunnels(peer: &StrongSwan, tunnels: u16) -> Result<(), LabError> {
    let up = || -> Result<BTreeSet<String>, LabError> {
        let sas = peer.list_sas()?;
        Ok(sas.into_iter().filter(is_up).map(|sa| sa.name).collect())
    };
    for _ in 0..ATTEMPTS {
        let all = clock::until("every tunnel up", UP, || {
            Ok((up()?.len() >= usize::from(tunnels)).then_some(()))
        });
        match all {
            Err(LabError::Late { .. }) => {}
            other => return other,
        }
        let up = up()?;
        for tunnel in (0..tunnels).filter(|tunnel| !up.contains(&format!("c{tunnel}"))) {
            begin_anew(peer, &tunnel.to_string());
        }
    }
    Err(LabError::Late {
        what: "every tunnel up".to_owned(),
        limit: UP * ATTEMPTS,
    })
}

/// Whether there is one to be ended, and whether it comes up, shows later.
fn begin_anew(peer: &StrongSwan, tunnel: &str) {
    let (ike, child) = (format!("c{tunnel}"), format!("net{tunnel}"));
    let _: Result<String, LabError> = peer.swanctl(&["--terminate", "--ike", &ike, "--force"]);
    let _: Result<String, LabError> =
        peer.swanctl(&["--initiate", "--child", &child, "--timeout", "5"]);
}

/// What names the peer's IKE SAs that have a Child SA.
pub fn spis(peer: &StrongSwan) -> Result<BTreeSet<(String, String)>, LabError> {
    let mut sas = peer.list_sas()?;
    sas.retain(is_up);
    let names = sas
        .into_iter()
        .map(|sa| (sa.initiator_spi, sa.responder_spi));
    Ok(names.collect())
}

pub fn traffic(lab: &Topology, wish: &Wish) -> Result<Traffic, LabError> {
    Traffic::start(&lab.peer, &lab.host_b, wish.busy(), wish.rate)
}

/// What each member sends on the outside.
pub fn captures(lab: &Topology, name: &str, directory: &Path) -> Result<[Capture; 2], LabError> {
    let on_port = |index: usize| {
        let (port, name) = (PORT_MEMBERS[index], format!("{name}-m{}", index + 1));
        Capture::start(&lab.switch, port, Direction::In, &name, directory)
    };
    Ok([on_port(0)?, on_port(1)?])
}

pub fn wait_for_roles(members: &mut [Option<Member>; 2]) -> Result<usize, LabError> {
    clock::until("one active member and one standby", ROLES, || {
        let mut roles = Vec::new();
        for member in members.iter_mut().flatten() {
            member.check_running()?;
            roles.push(member.role().unwrap_or_default());
        }
        let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
        Ok(match roles.as_slice() {
            ["active", "standby"] => Some(0),
            ["standby", "active"] => Some(1),
            _ => None,
        })
    })
}

fn is_up(sa: &IkeSa) -> bool {
    sa.state == "ESTABLISHED" && sa.installed().is_some()
}

/// One outside and one inside address for each tunnel.
pub fn peer_addresses(lab: &Topology, tunnels: u16, directory: &Path) -> Result<(), LabError> {
    let mut batch = String::new();
    for tunnel in 0..tunnels {
        let _ = writeln!(
            batch,
            "addr add {}/{OUTSIDE_PREFIX} dev {OUTSIDE}\naddr add {}/32 dev lo",
            outer_address(tunnel),
            inner_address(tunnel)
        );
    }
    let file = directory.join("addresses");
    std::fs::write(&file, batch).map_err(LabError::io("writing the peer's addresses"))?;
    let file = file.display().to_string();
    Program::new(["ip", "-n", lab.peer.name(), "-batch", &file])
        .run()
        .map(drop)
}

/// The members' side: one connection for each peer, which the members begin if they are the ones.
pub fn member_connections(tunnels: u16, begin: bool) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let action = if begin { "start" } else { "none" };
    for tunnel in 0..tunnels {
        writeln!(
            text,
            r#"[connections.c{tunnel}]
local_addrs = ["{CLUSTER_OUTSIDE}"]
remote_addrs = ["{}"]
proposals = ["{IKE}"]
local = {{ auth = "psk", id = "{CLUSTER_ID}" }}
remote = {{ auth = "psk", id = "c{tunnel}.peer.test" }}
dpd_delay = "10s"
takeover = "auto"
[connections.c{tunnel}.children.net]
esp_proposals = ["{ESP}"]
local_ts = ["{CLUSTER_NETWORK}"]
remote_ts = ["{}/32"]
start_action = "{action}"
"#,
            outer_address(tunnel),
            inner_address(tunnel)
        )?;
    }
    writeln!(text, "[secrets.peers]\nsecret = \"{SECRET}\"")?;
    Ok(text)
}

/// strongSwan's side, which begins the connections or waits for them.
pub fn peer_connections(tunnels: u16, begin: bool) -> Result<String, std::fmt::Error> {
    let mut text = "connections {\n".to_owned();
    let action = if begin { "start" } else { "none" };
    for tunnel in 0..tunnels {
        writeln!(
            text,
            "  c{tunnel} {{\n    version = 2\n    local_addrs = {}\n    \
             remote_addrs = {CLUSTER_OUTSIDE}\n    proposals = {IKE}\n    mobike = no\n    \
             encap = yes\n    dpd_delay = 10s\n    rekey_time = 0\n    \
             local {{\n      auth = psk\n      id = c{tunnel}.peer.test\n    }}\n    \
             remote {{\n      auth = psk\n      id = {CLUSTER_ID}\n    }}\n    \
             children {{\n      net{tunnel} {{\n        local_ts = {}/32\n        \
             remote_ts = {CLUSTER_NETWORK}\n        esp_proposals = {ESP}\n        \
             rekey_time = 0\n        start_action = {action}\n      }}\n    }}\n  }}",
            outer_address(tunnel),
            inner_address(tunnel)
        )?;
    }
    write!(
        text,
        "}}\nsecrets {{\n  ike-1 {{\n    secret = \"{SECRET}\"\n  }}\n}}\n"
    )?;
    Ok(text)
}

/// The side of a strongSwan that stands in for a member: one connection for all peers.
pub fn stand_in_connections() -> String {
    format!(
        "connections {{\n  peers {{\n    version = 2\n    local_addrs = {CLUSTER_OUTSIDE}\n    \
         proposals = {IKE}\n    mobike = no\n    encap = yes\n    dpd_delay = 10s\n    \
         rekey_time = 0\n    unique = never\n    \
         local {{\n      auth = psk\n      id = {CLUSTER_ID}\n    }}\n    \
         remote {{\n      auth = psk\n      id = *.peer.test\n    }}\n    \
         children {{\n      net {{\n        local_ts = {CLUSTER_NETWORK}\n        \
         remote_ts = 10.64.0.0/16\n        esp_proposals = {ESP}\n        \
         rekey_time = 0\n      }}\n    }}\n  }}\n}}\n\
         secrets {{\n  ike-1 {{\n    secret = \"{SECRET}\"\n  }}\n}}\n"
    )
}
