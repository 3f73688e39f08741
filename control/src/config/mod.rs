//! The configuration: a TOML file in swanctl's words, read once into a validated [`Config`].
//!
//! ```text
//!  file -> document (tables with positions) -> one file for each section -> check (across sections)
//!                                        \-> Problem, many at once -> report (carets) -> stderr
//! ```
//!
//! What leaves this module holds: every value is in range, every reference resolves, every
//! connection has a proposal, a secret and an address of ours. Nothing later checks again.
//! Secrets are never printed, not even in the source lines that an error quotes.

mod types;

pub use types::{
    Aead, Checkpoint, ClusterConfig, Config, ControlConfig, DEFAULT_CONFIG, DEFAULT_SOCKET,
    DEFAULT_STATE_DIR, DataplaneConfig, Degraded, Driver, IdlePolicy, Peer, PortConfig, Prefix,
    RouteConfig, SyncConfig, XdpMode,
};
