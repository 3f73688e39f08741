//! What lets a session outlive an IKE SA, and what bounds it: quick crash detection (RFC 6290),
//! NAT keepalives, lifetimes.
//!
//! ```text
//!  settings.rs  what the configuration says     state.rs  what an IKE SA remembers, and its record
//!  crash.rs     tokens that prove a restart     keepalive.rs  an IKE SA alone behind a NAT
//!  lifetimes.rs when SAs are replaced and end
//! ```

pub(super) mod crash;
mod keepalive;
pub(super) mod lifetimes;
mod settings;
mod state;

pub use lifetimes::{Lifetimes, Volume};
pub use settings::{ClusterSecret, SessionSettings, Tickets};
pub(super) use state::{SessionRecord, SessionState};
