//! What the daemon tells about itself: plain data, for JSON and for text.

use serde::{Deserialize, Serialize};

/// Where an IKE SA is in its life; strongSwan's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum IkeState {
    Connecting,
    Established,
    /// A standby's copy.
    Passive,
    Rekeying,
    Rekeyed,
    Deleting,
}

impl IkeState {
    pub const fn name(self) -> &'static str {
        match self {
            IkeState::Connecting => "CONNECTING",
            IkeState::Established => "ESTABLISHED",
            IkeState::Passive => "PASSIVE",
            IkeState::Rekeying => "REKEYING",
            IkeState::Rekeyed => "REKEYED",
            IkeState::Deleting => "DELETING",
        }
    }
}

/// One IKE SA.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct IkeSaStatus {
    /// Name of the connection.
    pub name: String,
    /// A small number that a person can say.
    pub unique_id: u64,
    pub state: IkeState,
    /// 16 hexadecimal digits.
    pub initiator_spi: String,
    pub responder_spi: String,
    /// Whether we initiated it.
    pub initiator: bool,
    pub local_id: String,
    pub local_host: String,
    pub local_port: u16,
    pub remote_id: String,
    /// The user, if the peer logged in with EAP.
    #[serde(default)]
    pub remote_eap_id: Option<String>,
    pub remote_host: String,
    pub remote_port: u16,
    /// Virtual addresses that we have from the peer, the name servers that came with them, and
    /// the addresses that the peer has from us.
    #[serde(default)]
    pub local_vips: Vec<String>,
    #[serde(default)]
    pub dns: Vec<String>,
    #[serde(default)]
    pub remote_vips: Vec<String>,
    /// `AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519`; empty before there is one.
    pub algorithms: String,
    /// Seconds since it was established.
    #[serde(rename = "established_seconds")]
    pub established: Option<u64>,
    /// Seconds until it is rekeyed.
    #[serde(rename = "rekey_time_seconds")]
    pub rekey_time: Option<u64>,
    /// Seconds until a new IKE_AUTH takes its place.
    #[serde(rename = "reauth_time_seconds", default)]
    pub reauth_time: Option<u64>,
    /// How the peer proved who it is.
    #[serde(default)]
    pub authenticated: String,
    /// SHA-256 of its certificate, in hex.
    #[serde(default)]
    pub certificate: Option<String>,
    /// Whether a postquantum pre-shared key is mixed in (RFC 8784).
    #[serde(default)]
    pub ppk: bool,
    /// Message IDs: the next request of ours, and the next that we expect.
    pub next_message_id: u32,
    pub expected_message_id: u32,
    /// Whether RFC 6311 Message ID synchronisation was negotiated.
    pub message_id_sync: bool,
    pub children: Vec<ChildSaStatus>,
}

/// One Child SA.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ChildSaStatus {
    pub name: String,
    pub unique_id: u64,
    pub reqid: u32,
    /// `INSTALLED`, `REKEYING`, `REKEYED`, `DELETING`, ...; strongSwan's names.
    pub state: String,
    /// `TUNNEL`.
    pub mode: String,
    /// ESP in UDP.
    pub encapsulated: bool,
    /// `AES_GCM_16-128`; with `/CURVE_25519` after a rekey that made fresh keys.
    pub algorithms: String,
    pub esn: bool,
    /// 8 hexadecimal digits.
    pub spi_in: String,
    pub spi_out: String,
    /// Seconds since it was installed.
    #[serde(rename = "installed_seconds")]
    pub installed: u64,
    /// Seconds until it is rekeyed, and until it must be gone.
    #[serde(rename = "rekey_time_seconds")]
    pub rekey_time: Option<u64>,
    #[serde(rename = "life_time_seconds")]
    pub life_time: Option<u64>,
    pub bytes_in: u64,
    pub packets_in: u64,
    /// Seconds since the last packet.
    #[serde(rename = "used_in_seconds_ago")]
    pub used_in: Option<u64>,
    pub bytes_out: u64,
    pub packets_out: u64,
    #[serde(rename = "used_out_seconds_ago")]
    pub used_out: Option<u64>,
    pub local_ts: Vec<String>,
    pub remote_ts: Vec<String>,
    /// Numbers of the lease; `None` where this member holds none.
    pub lease: Option<LeaseStatus>,
}

/// What the recorded lease still allows on one Child SA.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// The cluster's name for the SA: creator.incarnation.counter.
    pub sa: String,
    /// `connection.child`.
    pub child: String,
    /// Next outbound number.
    pub next: u64,
    /// Highest outbound number that is recorded, so that it may be used.
    pub grant: u64,
    /// Highest inbound number authenticated.
    pub inbound_top: u64,
    /// Highest inbound number that may be delivered.
    pub high_water: u64,
    /// How often a worker wanted more numbers than there were.
    pub stalls: u64,
}

impl LeaseStatus {
    /// Outbound numbers left.
    pub fn remaining(&self) -> u64 {
        self.grant.saturating_add(1).saturating_sub(self.next)
    }
}

/// What a member does now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Carries the tunnels.
    Active,
    /// Could take over now.
    Standby,
    /// Copies the active's state, and could not take over yet.
    Learning,
    /// Between two of the others.
    Changing,
    /// Follows nobody.
    Out,
    /// Not heard for so long that it counts as dead.
    Silent,
}

impl Role {
    pub const ALL: [Role; 6] = [
        Role::Active,
        Role::Standby,
        Role::Learning,
        Role::Changing,
        Role::Out,
        Role::Silent,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Role::Active => "active",
            Role::Standby => "standby",
            Role::Learning => "learning",
            Role::Changing => "changing",
            Role::Out => "out",
            Role::Silent => "silent",
        }
    }
}

/// The whole gateway, as one member sees it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// Of this program.
    pub version: String,
    pub cluster: String,
    pub member: u8,
    pub incarnation: u32,
    pub role: Role,
    /// `counter.leader.incarnation` of the epoch that is led or followed.
    pub epoch: Option<String>,
    pub leader: Option<u8>,
    /// Seconds since the start.
    #[serde(rename = "uptime_seconds")]
    pub uptime: u64,
    /// The active waits for a silent standby.
    pub degraded: bool,
    /// The other members.
    pub members: Vec<MemberStatus>,
    pub sync: SyncStatus,
    pub ike_sas: u64,
    pub child_sas: u64,
    /// Those with the fewest numbers left, first; `hitless show sa` has all.
    pub leases: Vec<LeaseStatus>,
    pub packets_in: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub bytes_out: u64,
    /// Reasons that have been counted.
    pub drops: Vec<DropStatus>,
    /// The AEAD engine in use.
    pub aead: String,
    pub workers: u64,
    /// The file that every key is written to, if the user asked for that.
    #[serde(default)]
    pub key_log: Option<String>,
    pub ports: Vec<PortStatus>,
}

/// Another member.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MemberStatus {
    pub id: u8,
    pub address: String,
    pub priority: u8,
    /// What it last said; `None` if it never did.
    pub role: Option<Role>,
    pub incarnation: Option<u32>,
    pub healthy: bool,
    /// Milliseconds since its last message.
    #[serde(rename = "silent_for_milliseconds")]
    pub silent_for: Option<u64>,
    /// Has the right to take over from us.
    pub bound: bool,
    /// Could use it now.
    #[serde(default)]
    pub able: bool,
    /// Records on their way to it.
    pub backlog: u64,
}

/// How far the standbys are behind.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SyncStatus {
    /// Commits whose IKE messages wait for an acknowledgement.
    pub held: u64,
    /// Milliseconds that the oldest of those has waited.
    #[serde(rename = "lag_milliseconds")]
    pub lag: u64,
    /// Objects replicated.
    pub objects: u64,
    /// As a standby: Message IDs would be exact in a takeover now.
    pub vouched: bool,
}

/// Packets dropped for one reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DropStatus {
    pub reason: String,
    /// The kernel's name in /proc/net/xfrm_stat, or empty.
    pub xfrm: String,
    pub packets: u64,
}

/// One port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PortStatus {
    pub name: String,
    /// `af_xdp`, ...
    pub driver: String,
    /// The kernel's name of it.
    pub interface: String,
    /// What the driver came to: `native`, `skb`, `zero-copy`; or empty.
    pub mode: String,
    pub protected: bool,
    pub mac: String,
    pub addresses: Vec<String>,
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    /// Dropped by the port itself.
    pub dropped: u64,
}
