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
mod report;
mod server;
mod show;
mod show_text;
mod table;
mod text;

use serde::{Deserialize, Serialize};

pub use report::{
    ChildSaStatus, DropStatus, GatewayStatus, IkeSaStatus, IkeState, LeaseStatus, MemberStatus,
    PortStatus, Role, SyncStatus,
};
pub use server::{ClientId, MOST_CLIENTS, Server, ServerError};
pub use show::{
    DropCount, Frames, InboundReport, NeighbourReport, OutboundReport, PolicyReport, RouteReport,
    SaReport, Show, Shown, TrafficReport, UdpPorts, WindowReport, WorkerCount, WorkerPort,
    WorkerReport,
};
pub use show_text::show;
pub use text::{list_sas, status};

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
    /// Hand the lead to a standby, without a skip.
    Switchover {},
}

/// What the daemon answers: `{"reply":"done","message":".."}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    Status(Box<GatewayStatus>),
    Sas {
        sas: Vec<IkeSaStatus>,
    },
    Shown {
        shown: Shown,
    },
    Done {
        message: String,
    },
    /// The request was understood and is not done, or was not understood.
    Refused {
        reason: String,
    },
}
