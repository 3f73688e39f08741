//! What `hitless show` prints: plain data, for JSON and for text. Names of fields say their units.

use serde::{Deserialize, Serialize};

use super::{DropStatus, LeaseStatus};

/// What `hitless show` can be asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "show", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Show {
    /// Why packets were dropped.
    Drops {
        /// Only by this worker.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<u64>,
        /// Reasons that have not been counted as well.
        #[serde(default)]
        all: bool,
    },
    /// The Child SAs that the workers carry.
    Sas {
        /// Only this one: `connection.child`, a child, a connection, an SPI or the SA's own name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        which: Option<String>,
    },
    Workers {},
    Routes {},
    Policies {},
    Neighbours {},
}

/// The answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "show", rename_all = "kebab-case")]
pub enum Shown {
    Drops { drops: Vec<DropCount> },
    Sas { sas: Vec<SaReport> },
    Workers { workers: Vec<WorkerReport> },
    Routes { routes: Vec<RouteReport> },
    Policies { policies: Vec<PolicyReport> },
    Neighbours { neighbours: Vec<NeighbourReport> },
}

/// Packets dropped for one reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DropCount {
    pub reason: String,
    /// The kernel's name in /proc/net/xfrm_stat, or empty.
    pub xfrm: String,
    /// By all who were asked for.
    pub packets: u64,
    /// By worker; empty for what the control thread dropped.
    pub workers: Vec<WorkerCount>,
}

/// One worker's part of a count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WorkerCount {
    pub worker: u64,
    pub packets: u64,
}

/// UDP ports around ESP (RFC 3948).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UdpPorts {
    pub local: u16,
    pub remote: u16,
}

/// One Child SA as the workers carry it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SaReport {
    pub connection: String,
    pub child: String,
    /// The cluster's name for the SA: creator.incarnation.counter.
    pub sa: String,
    /// `TUNNEL` or `TRANSPORT`.
    pub mode: String,
    /// `AES_GCM_16-128`.
    pub suite: String,
    pub esn: bool,
    pub local: String,
    pub remote: String,
    /// ESP in UDP.
    pub encapsulation: Option<UdpPorts>,
    pub local_ts: Vec<String>,
    pub remote_ts: Vec<String>,
    pub inbound: InboundReport,
    pub outbound: OutboundReport,
    pub lease: LeaseStatus,
    /// Outbound numbers that the recorded grant still has.
    pub lease_left: u64,
    /// Inbound numbers between the highest one heard and the recorded high water.
    pub high_water_left: u64,
}

/// The receiving half.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct InboundReport {
    /// 8 hexadecimal digits.
    pub spi: String,
    /// Never the key itself.
    pub key: String,
    /// The worker that has the window.
    pub worker: u64,
    pub window: WindowReport,
    pub traffic: TrafficReport,
}

/// The replay window (RFC 4303 section 3.4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WindowReport {
    /// Its right edge.
    pub top: u64,
    /// Packets that it spans.
    pub size_packets: u64,
    /// Numbers that left it without having come.
    pub lost_packets: u64,
}

/// The sending half.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OutboundReport {
    pub spi: String,
    pub key: String,
    /// Whether the policies send on this SA now.
    pub used_by_policies: bool,
    pub traffic: TrafficReport,
}

/// What a half has carried and dropped.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TrafficReport {
    pub packets: u64,
    /// Of inner packets.
    pub bytes: u64,
    /// Since the last packet.
    pub used_seconds_ago: Option<u64>,
    /// Packets by the worker that handled them.
    pub workers: Vec<WorkerCount>,
    pub drops: Vec<DropStatus>,
}

/// One worker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WorkerReport {
    pub worker: u64,
    /// The core that it is pinned to.
    pub core: Option<u64>,
    /// The AEAD engine, and what of the CPU it uses.
    pub aead: String,
    /// Rounds of its loop, and those with something to do.
    pub calls: u64,
    pub busy_calls: u64,
    pub rx_packets: u64,
    pub rx_bursts: u64,
    /// A full burst is 32.
    pub packets_per_burst: f64,
    pub esp_in_packets: u64,
    pub esp_in_bytes: u64,
    pub esp_out_packets: u64,
    pub esp_out_bytes: u64,
    /// To the control thread.
    pub punted_packets: u64,
    pub dropped_packets: u64,
    /// Draws of sequence numbers that got fewer than they asked for.
    pub lease_stalls: u64,
    /// Authentic packets that waited for a high water.
    pub parked_packets: u64,
    /// Given to the worker that has their SA, and got from others for that reason.
    #[serde(default)]
    pub handed_over_packets: u64,
    #[serde(default)]
    pub taken_over_packets: u64,
    pub ports: Vec<WorkerPort>,
    pub frames: Frames,
}

/// A worker's queue of a port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WorkerPort {
    pub port: String,
    pub driver: String,
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    /// By the port itself.
    pub dropped_packets: u64,
}

/// Where a worker's packet buffers are; all but `total` add up to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Frames {
    pub total: u64,
    pub free: u64,
    pub in_ports: u64,
    /// Waiting for a high water.
    pub parked: u64,
    /// Waiting for a neighbour's address.
    pub held: u64,
}

/// One route.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RouteReport {
    pub prefix: String,
    pub port: String,
    /// `None` for a connected network.
    pub via: Option<String>,
}

/// One policy, in the order in which they are tried.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyReport {
    pub policy: u64,
    pub local: String,
    pub remote: String,
    /// `PROTECT`, `BYPASS` or `DISCARD`.
    pub action: String,
    /// The SA that protects, or would if this member led; `None` while none is up.
    pub sa: Option<String>,
    pub traffic: PolicyCount,
}

/// What a policy has handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PolicyCount {
    pub packets_out: u64,
    pub bytes_out: u64,
    /// What came in clear; what an SA delivers is counted with that.
    pub packets_in: u64,
    pub bytes_in: u64,
}

/// One neighbour that a worker has learned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NeighbourReport {
    pub address: String,
    pub port: String,
    pub mac: String,
    /// The worker that learned it first.
    pub worker: u64,
    /// Since it was learned or changed.
    pub seconds_ago: u64,
}
