//! The network of the failover scenarios. Every box is a namespace, every line a veth pair:
//!
//! ```text
//!   host-a ----- peer ------ [outside switch] ------ m1 ----- [inside switch] ----- host-b
//!  10.1.0.2   10.1.0.1         |                    |  sync     |                  10.2.0.2
//!             192.0.2.2        +------------------- m2 ---------+
//! ```
//!
//! 192.0.2.1 and 10.2.0.1 are the cluster's: no kernel has them. The same with IPv6 ([`V6`]): the
//! peer and the hosts have nothing else, and the members' kernels have none at all. m1 and m2 have one more cable
//! between them for the sync channel, 10.255.0.1 and 10.255.0.2. Both switches are in one namespace
//! of their own, where what each member sends can be seen on its port.

use std::io::Write as _;

use crate::error::LabError;
use crate::netns::{Namespace, cable};
use crate::process::Program;
use crate::syscall;

pub const PEER_OUTSIDE: &str = "192.0.2.2";
pub const CLUSTER_OUTSIDE: &str = "192.0.2.1";
/// What the members take for the outside network: room for more peers than the one.
pub const OUTSIDE_PREFIX: u8 = 16;
pub const PEER_NETWORK: &str = "10.1.0.0/24";
pub const CLUSTER_NETWORK: &str = "10.2.0.0/24";
pub const CLUSTER_INSIDE: &str = "10.2.0.1";
pub const HOST_A: &str = "10.1.0.2";
pub const HOST_B: &str = "10.2.0.2";

/// Who is where, in one family.
#[derive(Debug)]
pub struct Addresses {
    pub peer_outside: &'static str,
    pub cluster_outside: &'static str,
    /// What the members take for the length of the outside network's prefix.
    pub outside_prefix: u8,
    pub peer_network: &'static str,
    pub cluster_network: &'static str,
    pub peer_inside: &'static str,
    pub cluster_inside: &'static str,
    pub host_a: &'static str,
    pub host_b: &'static str,
    /// Of every network, as the peer and the hosts have it.
    prefix: u8,
    /// Makes a router of a Linux host.
    forwarding: &'static str,
}

pub const V4: &Addresses = &Addresses {
    peer_outside: PEER_OUTSIDE,
    cluster_outside: CLUSTER_OUTSIDE,
    outside_prefix: OUTSIDE_PREFIX,
    peer_network: PEER_NETWORK,
    cluster_network: CLUSTER_NETWORK,
    peer_inside: "10.1.0.1",
    cluster_inside: CLUSTER_INSIDE,
    host_a: HOST_A,
    host_b: HOST_B,
    prefix: 24,
    forwarding: "net.ipv4.ip_forward",
};

pub const V6: &Addresses = &Addresses {
    peer_outside: "2001:db8::2",
    cluster_outside: "2001:db8::1",
    outside_prefix: 64,
    peer_network: "fd01::/64",
    cluster_network: "fd02::/64",
    peer_inside: "fd01::1",
    cluster_inside: "fd02::1",
    host_a: "fd01::2",
    host_b: "fd02::2",
    prefix: 64,
    forwarding: "net.ipv6.conf.all.forwarding",
};

impl Addresses {
    /// Where a network of these is.
    pub fn with_prefix(&self, address: &str) -> String {
        format!("{address}/{}", self.prefix)
    }

    /// Makes a Linux host pass packets on between its networks.
    pub fn forward(&self, host: &Namespace) -> Result<(), LabError> {
        host.sysctl(self.forwarding, "1")
    }
}

pub const SYNC: [&str; 2] = ["10.255.0.1", "10.255.0.2"];

/// The witness's, which is on a cable of its own to each member.
pub const WITNESS: &str = "10.253.0.3";

/// Interfaces of a member.
pub const OUTSIDE: &str = "outside";
pub const INSIDE: &str = "inside";
pub const SYNC_INTERFACE: &str = "sync";
/// The interface of a host.
pub const HOST_INTERFACE: &str = "eth0";
/// Ports of the switches.
pub const PORT_PEER: &str = "o-peer";
pub const PORT_MEMBERS: [&str; 2] = ["o-m1", "o-m2"];
pub const PORT_MEMBERS_INSIDE: [&str; 2] = ["i-m1", "i-m2"];
/// The switches themselves.
const SWITCH_OUTSIDE: &str = "outside";
pub const SWITCH_INSIDE: &str = "inside";
const PORT_HOST_B: &str = "i-host-b";
const PORTS_OUTSIDE: [&str; 3] = [PORT_PEER, PORT_MEMBERS[0], PORT_MEMBERS[1]];
const PORTS_INSIDE: [&str; 3] = [PORT_MEMBERS_INSIDE[0], PORT_MEMBERS_INSIDE[1], PORT_HOST_B];

/// The namespaces, removed when this is dropped.
#[derive(Debug)]
pub struct Topology {
    pub switch: Namespace,
    pub peer: Namespace,
    pub members: [Namespace; 2],
    pub host_a: Namespace,
    pub host_b: Namespace,
}

impl Topology {
    /// Builds it all.
    pub fn new() -> Result<Self, LabError> {
        Self::of(V4)
    }

    /// The same in another family.
    pub fn of(addresses: &Addresses) -> Result<Self, LabError> {
        let lab = Self {
            switch: Namespace::new("switch")?,
            peer: Namespace::new("peer")?,
            members: [Namespace::new("m1")?, Namespace::new("m2")?],
            host_a: Namespace::new("host-a")?,
            host_b: Namespace::new("host-b")?,
        };
        if addresses.peer_outside.contains(':') {
            for station in [&lab.peer, &lab.host_a, &lab.host_b] {
                station.allow_ipv6()?;
            }
        }
        lab.cables()?;
        lab.switch.switch(SWITCH_OUTSIDE, &PORTS_OUTSIDE)?;
        lab.switch.switch(SWITCH_INSIDE, &PORTS_INSIDE)?;
        lab.place(addresses)?;
        Ok(lab)
    }

    fn cables(&self) -> Result<(), LabError> {
        let [m1, m2] = &self.members;
        cable((&self.switch, PORT_PEER), (&self.peer, OUTSIDE))?;
        cable((&self.switch, PORT_MEMBERS[0]), (m1, OUTSIDE))?;
        cable((&self.switch, PORT_MEMBERS[1]), (m2, OUTSIDE))?;
        cable((&self.switch, PORT_MEMBERS_INSIDE[0]), (m1, INSIDE))?;
        cable((&self.switch, PORT_MEMBERS_INSIDE[1]), (m2, INSIDE))?;
        cable((&self.switch, PORT_HOST_B), (&self.host_b, HOST_INTERFACE))?;
        cable((m1, SYNC_INTERFACE), (m2, SYNC_INTERFACE))?;
        cable((&self.peer, INSIDE), (&self.host_a, HOST_INTERFACE))
    }

    fn place(&self, at: &Addresses) -> Result<(), LabError> {
        for (station, interface, address) in [
            (&self.peer, OUTSIDE, at.peer_outside),
            (&self.peer, INSIDE, at.peer_inside),
            (&self.host_a, HOST_INTERFACE, at.host_a),
            (&self.host_b, HOST_INTERFACE, at.host_b),
        ] {
            station.address(interface, &at.with_prefix(address))?;
        }
        for (host, router) in [
            (&self.host_a, at.peer_inside),
            (&self.host_b, at.cluster_inside),
        ] {
            host.ip(&["route", "add", "default", "via", router])?;
        }
        for (member, address) in self.members.iter().zip(SYNC) {
            member.address(SYNC_INTERFACE, &format!("{address}/24"))?;
        }
        at.forward(&self.peer)
    }

    /// A place for a witness, with a way to each member that does not fail with the way between
    /// them.
    pub fn witness(&self) -> Result<Namespace, LabError> {
        let witness = Namespace::new("witness")?;
        witness.address("lo", &format!("{WITNESS}/32"))?;
        for (index, (member, address)) in self.members.iter().zip(SYNC).enumerate() {
            let end = format!("m{}", index + 1);
            cable((member, "witness"), (&witness, &end))?;
            member.ip(&["route", "add", WITNESS, "dev", "witness", "src", address])?;
            witness.ip(&["route", "add", address, "dev", &end, "src", WITNESS])?;
        }
        Ok(witness)
    }

    /// Makes hubs of the switches: every station hears every frame, so that two members that both
    /// answer to one address both get what is sent to it. Or switches again.
    pub fn flood(&self, hubs: bool) -> Result<(), LabError> {
        let learning = if hubs { "off" } else { "on" };
        for port in PORTS_OUTSIDE.iter().chain(&PORTS_INSIDE) {
            let (name, path) = (self.switch.name(), ["link", "set", "dev", port]);
            let words = ["bridge", "-n", name].into_iter().chain(path);
            Program::new(words.chain(["learning", learning, "flood", "on"])).run()?;
            // What was learned before would still be gone by.
            self.switch
                .ip(&["link", "set", port, "type", "bridge_slave", "fdb_flush"])?;
        }
        Ok(())
    }

    /// Makes `host` lose everything it would send to `address`, so that traffic from there flows
    /// one way only.
    pub fn mute(&self, host: &Namespace, address: &str) -> Result<(), LabError> {
        host.ip(&["route", "add", "blackhole", address]).map(drop)
    }

    /// Undoes [`Topology::mute`].
    pub fn unmute(&self, host: &Namespace, address: &str) -> Result<(), LabError> {
        host.ip(&["route", "del", "blackhole", address]).map(drop)
    }
}

/// Sends frames out of an interface, as they are.
pub fn inject<'a>(
    namespace: &Namespace,
    interface: &str,
    frames: impl Iterator<Item = &'a [u8]>,
) -> Result<u64, LabError> {
    let what = format!("injecting at {interface} of {}", namespace.name());
    let mut socket =
        syscall::packet_socket(&namespace.path(), interface).map_err(LabError::io(what.clone()))?;
    let mut sent = 0;
    for frame in frames {
        socket
            .write_all(frame)
            .map_err(LabError::io(what.clone()))?;
        sent += 1;
    }
    Ok(sent)
}
