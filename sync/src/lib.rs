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
//!
//! What a member that lies can and cannot break. A stranger can do nothing: the channel below
//! authenticates, and [`Node`] hears only configured members with the same fingerprint. A member
//! that has the cluster's key holds every key of every SA, so it can always encrypt a number again
//! or read what it likes; no protocol prevents that. What the others do is still bounded:
//! - An acknowledgement of more than was offered is cut to the offer, and one of an earlier session,
//!   epoch or incarnation is ignored: a liar makes the leader use numbers that it has not recorded,
//!   and repeats them itself if it then takes over. The leader's own numbers stay unique.
//! - Acknowledging objects that it has not kept costs the exact Message IDs of its own takeover.
//! - An epoch that a member claims to lead or to have led counts only if it names that member, and
//!   lies above the present one; that somebody follows one, only if it names a third. So a liar
//!   deposes the real leader, which stops at its lease: service, not safety. Votes are promises
//!   on the voters' disks: two members that lie make a false majority of three, one does not.
//! - Never acknowledging, or less than was offered, holds IKE messages for 2 D at most, then the leader
//!   is degraded (`contact.rs`). A joiner that acknowledges nothing is given nothing to bound, and one
//!   that stops gets its next session later and later (`leading.rs`).
//! - Nothing that it sends makes a member panic or grow without bound (`tests/hostile.rs`,
//!   `tests/liar.rs`).
//!
//! draft-vidya-ipsec-failover-redundancy in these terms (V1 to V16): SA_Stor is the stream of
//! records to every standby, each with the IKE SA, its Child SAs and their selectors (V9), through
//! ESP between the members (V1 to V3), SPIs partitioned by member (V6). SA_Retr in bulk by Server ID
//! is the session that a member joins, of its group (V7). SA_Retr by SPI (V8, V12) is
//! [`Input::Retrieve`]: a standby of a session misses no record, so only what another member made
//! behind a partition can be unknown, and what it gives is without a right (`lease-holes` R18). So a
//! success brings the IKE SA, and CREATE_CHILD_SA under it replaces what the packet came by (V13,
//! V15); the packet itself is dropped and counted, as after a failure.
//!
//! What the caller owes in return:
//! - Outputs are obeyed in order and all of them before the next wait; where that takes longer than a
//!   heartbeat, [`Node::beat`] is asked in between; `Persist` is answered, and
//!   the incarnation is raised on disk before each `Node::new`.
//! - Each `Lead` means fresh cells, from what it lists and what [`Node::inherit`] gives later, and from
//!   nothing else. `StepDown` and `Freeze` freeze all of them for ever. A child that a `Committed` version lacks is gone for ever.
//! - A commit lists every Child SA whose keys its body holds *or can yield*, and an SA id is never
//!   used twice. When a rekeyed IKE SA inherits children, its first commit precedes the one in
//!   which the old IKE SA loses them: the newest commit that names a child owns it.
//! - After `Discard` the same object is committed again, without the SA ids that were new in what
//!   was discarded. A refused deletion is committed again too.

mod beat;
mod contact;
mod disk;
mod early;
mod election;
mod estate;
mod event;
mod fitness;
mod following;
mod grant;
mod haste;
mod late;
mod leading;
mod lease;
mod message;
mod narrow;
mod node;
mod peer;
mod post;
mod redact;
mod reign;
mod retrieve;
mod risk;
mod session;
mod settings;
mod store;
mod switchover;
mod takeover;
mod vote;

pub use event::{
    Checkpoint, DrainedSa, Event, Input, Left, MemberStatus, ObjectId, Output, RekeyReason, Role,
    Status, StepDown, TakeoverObject, TakeoverSa, Usage,
};
pub use fitness::Flaw;
pub use message::BODY_LIMIT;
pub use node::Node;
pub use risk::{ClassRisk, Reckoning, Risk, Unserved};
#[doc(hidden)]
pub use settings::Mutant;
pub use settings::{Degraded, Durable, LeaseSizes, Member, Settings};
pub use switchover::NoSwitchover;
