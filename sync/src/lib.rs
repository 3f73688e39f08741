//! The sync protocol of a cluster, sans-IO: replicated records, write-ahead leases, epochs and
//! roles, takeover.
//!
//! One [`Node`] is one member of one group (a virtual gateway). It reads no clock, opens no
//! socket, draws no randomness: the caller gives it [`Input`]s with the time, then drains
//! [`Output`]s, then waits until `poll_timeout`. Everything below speaks of *objects* (IKE SAs,
//! opaque octets here) and of their *children* (Child SAs, of which only the counters matter).
//!
//! What it promises (S1, S3, S4, S5 of the design): for one key no outbound number is used by two
//! members or twice by one; no inbound number is delivered twice; a successor that is told that an
//! object is `exact` knows every output that its predecessor released. The proofs are the tests
//! in `tests/`: a simulated cluster with an oracle, and a mutant for each rule.

mod election;
mod event;
mod following;
mod leading;
mod lease;
mod message;
mod node;
mod peer;
mod post;
mod redact;
mod session;
mod settings;
mod store;
mod switchover;
mod takeover;
mod vote;

pub use event::{
    Checkpoint, DrainedSa, Event, Input, MemberStatus, ObjectId, Output, RekeyReason, Role, Status,
    StepDown, TakeoverObject, TakeoverSa, Usage,
};
pub use node::Node;
#[doc(hidden)]
pub use settings::Mutant;
pub use settings::{Degraded, Durable, LeaseSizes, Member, Settings};
