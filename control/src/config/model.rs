//! What a configuration holds once it is validated.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hitless_dataplane::aead::Engine;
use hitless_dataplane::port::af_xdp::AfXdpMode;
use hitless_dataplane::port::pcap::Pace;
use hitless_dataplane::worker::CheckpointSettings;
use hitless_sa::MemberId;
use hitless_sync::Degraded;
use zeroize::Zeroizing;

use crate::ike::settings::{Connection, Limits, Pool, Secret};

/// A whole configuration file.
#[derive(Clone, Debug)]
pub struct Config {
    pub cluster: ClusterConfig,
    /// In the order of the file; a route's port and a worker's port index count in this order.
    pub ports: Vec<PortConfig>,
    pub dataplane: DataplaneConfig,
    /// In the order of the file, which is the order of policies.
    pub connections: Vec<Connection>,
    pub pools: Vec<Pool>,
    /// Children (connection, child) with `start_action = "trap"`: brought up by the first packet.
    pub on_demand: BTreeSet<(String, String)>,
    pub secrets: Vec<Secret>,
    pub ike: Limits,
    pub control: ControlConfig,
    /// What is legal but probably not meant; to be logged.
    pub warnings: Vec<String>,
    /// The file that it was read from, if any.
    pub path: Option<PathBuf>,
    pub(super) has_inline_secrets: bool,
}

/// `[cluster]`.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    pub name: String,
    /// This member.
    pub id: MemberId,
    /// Higher leads first where nothing else decides.
    pub priority: u8,
    /// The channel to the other members; `None` when this member is alone.
    pub sync: Option<SyncConfig>,
    pub own_secret: OwnSecret,
    pub heartbeat: Duration,
    /// Heartbeats missed before a takeover.
    pub missed: u32,
    pub degraded: Degraded,
    /// The member that only votes.
    pub witness: Option<MemberId>,
    /// Whether the member of the highest priority takes the lead back.
    pub preempt: bool,
    /// How long a member that starts waits for the others before it leads on nothing.
    pub hold: Duration,
    /// How long the old active forwards what still comes to it after a planned switchover.
    pub late: Duration,
    /// Where the epoch file lives.
    pub state_dir: PathBuf,
}

/// The secret of a gateway alone, if it has one: what it keeps over a restart.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct OwnSecret(pub Option<Zeroizing<Vec<u8>>>);

impl fmt::Debug for OwnSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "redacted" } else { "none" })
    }
}

impl ClusterConfig {
    /// What only this cluster knows.
    pub fn secret(&self) -> Option<&Zeroizing<Vec<u8>>> {
        let shared = self.sync.as_ref().map(|sync| &sync.secret);
        shared.or(self.own_secret.0.as_ref())
    }

    /// Whether this member is the witness.
    pub fn votes_only(&self) -> bool {
        self.witness == Some(self.id)
    }
}

/// How a member reaches the others.
#[derive(Clone)]
pub struct SyncConfig {
    /// Our address on the sync network.
    pub listen: SocketAddr,
    pub peers: Vec<Peer>,
    /// Pre-shared key of the cluster: every sync message is encrypted with keys made from it.
    pub secret: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for SyncConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncConfig")
            .field("listen", &self.listen)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// Another member of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    pub id: MemberId,
    pub priority: u8,
    pub address: SocketAddr,
}

/// An address and the length of its prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    pub address: IpAddr,
    pub length: u8,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// One `[ports.<name>]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortConfig {
    pub name: String,
    pub driver: Driver,
    /// The kernel's name of the interface; the port's own where there is none.
    pub interface: String,
    /// Receive queues, one for each worker in turn.
    pub queues: Vec<u32>,
    /// The cluster's addresses on this network.
    pub addresses: Vec<Prefix>,
    pub routes: Vec<RouteConfig>,
    /// Next hops that must answer, or this member is not fit to be active.
    pub monitor: Vec<IpAddr>,
    /// Whether clear-text hosts are behind this port (true) or IPsec peers (false).
    pub protected: bool,
    /// The cluster's Ethernet address on this network, which moves with the lead.
    pub mac: [u8; 6],
}

impl PortConfig {
    /// Which side, and which networks are there: alike for every member, whatever it calls the port.
    pub fn place(&self) -> (bool, BTreeSet<String>) {
        let networks = self
            .addresses
            .iter()
            .copied()
            .filter_map(super::ports::network);
        (self.protected, networks.map(|it| it.to_string()).collect())
    }

    /// The kernel's name of the interface, if the port has one.
    pub fn kernel_interface(&self) -> Option<&str> {
        match self.driver {
            Driver::AfXdp(_) | Driver::AfPacket | Driver::Tap { .. } => Some(&self.interface),
            Driver::Pcap(_) | Driver::Memory => None,
        }
    }
}

/// How frames are received and sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Driver {
    AfXdp(AfXdpConfig),
    /// Packet sockets: every driver and every kernel.
    AfPacket,
    /// An interface whose far end we are.
    Tap {
        mtu: Option<usize>,
    },
    /// Files instead of a network.
    Pcap(PcapConfig),
    /// A cable to another gateway of the same process: the demo and the simulator.
    Memory,
}

impl Driver {
    /// The word in the configuration.
    pub const fn name(&self) -> &'static str {
        match self {
            Driver::AfXdp(_) => "af_xdp",
            Driver::AfPacket => "af_packet",
            Driver::Tap { .. } => "tap",
            Driver::Pcap(_) => "pcap",
            Driver::Memory => "memory",
        }
    }
}

/// What only AF_XDP has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AfXdpConfig {
    pub mode: AfXdpMode,
    /// Let the network driver write into our frames, if it can.
    pub zero_copy: bool,
    pub ring_size: u32,
}

impl Default for AfXdpConfig {
    fn default() -> AfXdpConfig {
        AfXdpConfig {
            mode: AfXdpMode::Auto,
            zero_copy: false,
            ring_size: 2048,
        }
    }
}

/// What only captures have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PcapConfig {
    pub read: Option<PathBuf>,
    pub write: Option<PathBuf>,
    pub pace: Pace,
    pub mtu: usize,
}

/// A route out of the port that it stands under.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteConfig {
    pub prefix: Prefix,
    /// Next hop on the port's network; `None` for hosts that answer there themselves.
    pub via: Option<IpAddr>,
}

/// `[dataplane]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataplaneConfig {
    pub workers: usize,
    /// The core of each worker; empty leaves the choice to the kernel.
    pub cores: Vec<usize>,
    /// Packet buffers of each worker, 2 KiB each.
    pub frames: u32,
    /// Packets of each worker that may be longer than a buffer (jumbo frames), 10 KiB each.
    pub jumbo_packets: u32,
    pub aead: Aead,
    pub checkpoint: CheckpointSettings,
    pub idle: IdlePolicy,
}

/// Which implementation encrypts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Aead {
    /// What the dataplane holds to be fastest on this CPU.
    #[default]
    Auto,
    /// The best tier of burst kernels that this CPU has.
    Burst,
    /// This one and no other.
    Only(Engine),
}

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IdlePolicy {
    /// Spin, then yield, then sleep until a packet comes.
    #[default]
    Adaptive,
    /// Spin for ever: lowest latency, a whole core for each worker.
    Spin,
}

/// `[control]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlConfig {
    /// The unix socket of `hitless status` and its siblings.
    pub socket: PathBuf,
    /// A level or filter for the log: `info`, `debug`, `info,hitless::ike=debug`.
    pub log: String,
    /// Where the keys of every Child SA are written for Wireshark, if anywhere.
    pub key_log: Option<PathBuf>,
    /// Where each grant of sequence numbers is written for `hitless audit --ledger`, if anywhere.
    pub grant_log: Option<PathBuf>,
}

/// Where the control socket is unless the file or the command line says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/hitless/hitless.sock";
/// Where the configuration is unless the command line says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/hitless/hitless.toml";
/// Where durable state is unless the file says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/hitless";
