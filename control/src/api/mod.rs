//! The daemon's interface for `hitless status` and its siblings: one JSON object a line, over a
//! unix socket that the daemon's own group may use.
//!
//! ```text
//!  cli -> client::call -> socket -> Server::poll -> (ClientId, Request) -> control thread
//!                                   Server::reply <- (ClientId, Reply)  <-
//! ```
//!
//! The server never blocks and has no thread: the control thread polls it between packets.

pub mod client;
mod cluster;
mod long_reply;
mod metrics;
mod operate;
mod report;
mod server;
mod show;
mod show_text;
mod table;
mod text;
mod watch;
mod watch_text;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use cluster::{ClassReport, ClusterReport, DrillReport, UnservedReport, cluster};
pub use long_reply::LongReply;
pub use metrics::{MetricFamily, MetricKind, MetricSample, MetricsReport, metrics};
pub use operate::Choice;
pub use report::{
    ChildSaStatus, DropStatus, GatewayStatus, IkeSaStatus, IkeState, LeaseStatus, MemberStatus,
    PortStatus, Role, SyncStatus,
};
pub use server::{ClientId, MOST_CLIENTS, Server, ServerError};
pub use show::{
    DropCount, Frames, InboundReport, NeighbourReport, OutboundReport, PolicyCount, PolicyReport,
    RouteReport, SaReport, Show, Shown, TrafficReport, UdpPorts, WindowReport, WorkerCount,
    WorkerPort, WorkerReport,
};
pub use show_text::show;
pub use text::{list_sas, status};
pub use watch::{
    CaptureDirection, CaptureReport, CaptureSide, CapturedPacket, LinkType, TraceReport, TraceStep,
    TracedPacket, WatchFilter,
};
pub use watch_text::trace;

/// Longest request, its line end included.
pub const LONGEST_LINE: usize = 64 * 1024;

/// What a client may ask: `{"request":"status"}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    Status {},
    ListSas {
        /// Only IKE SAs of this connection.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        connection: Option<String>,
    },
    /// One view of the packet path.
    Show {
        what: Show,
    },
    /// Follow the next packets of each worker, in place of an earlier trace.
    TraceAdd {
        packets: u32,
        #[serde(default)]
        filter: WatchFilter,
    },
    /// What the trace has seen.
    TraceShow {},
    /// End the trace and forget it.
    TraceClear {},
    /// Begin a capture, to be read at once and often.
    CaptureStart {
        side: CaptureSide,
        /// At most so many.
        packets: u64,
        #[serde(default)]
        filter: WatchFilter,
    },
    /// What has been captured since; answered within a moment, with packets or without.
    CaptureRead {
        capture: u64,
    },
    CaptureStop {
        capture: u64,
    },
    /// Bring a child up; with `ike` that connection's.
    Initiate {
        child: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ike: Option<String>,
        /// Answer when it is up, or after so long at most: at once if this is 0.
        #[serde(default, skip_serializing_if = "at_once")]
        wait_ms: u64,
    },
    /// Close SAs.
    Terminate {
        choice: Choice,
        #[serde(default, skip_serializing_if = "at_once")]
        wait_ms: u64,
    },
    /// Replace SAs by such with fresh keys.
    Rekey {
        choice: Choice,
        #[serde(default, skip_serializing_if = "at_once")]
        wait_ms: u64,
    },
    /// Send clients to another gateway.
    Redirect {
        choice: Choice,
        to: IpAddr,
    },
    /// Read connections and secrets anew.
    Reload {},
    /// Hand the lead to a standby, without a skip.
    Switchover {
        #[serde(default, skip_serializing_if = "at_once")]
        wait_ms: u64,
    },
    /// Say what that would do.
    SwitchoverPlan {},
    /// What would be lost if the active died now.
    Cluster {},
    /// Every figure.
    Metrics {},
}

/// Whether an order is answered as soon as it is given.
fn at_once(wait_ms: &u64) -> bool {
    *wait_ms == 0
}

/// What the daemon answers: `{"reply":"done","message":".."}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    Status(Box<GatewayStatus>),
    Cluster(Box<ClusterReport>),
    Metrics(Box<MetricsReport>),
    Sas {
        sas: Vec<IkeSaStatus>,
    },
    Shown {
        shown: Shown,
    },
    Trace(Box<TraceReport>),
    CaptureStarted {
        capture: u64,
    },
    Captured(Box<CaptureReport>),
    Done {
        message: String,
    },
    /// The request was understood and is not done, or was not understood.
    Refused {
        reason: String,
    },
}
