//! What goes into a [`Node`](crate::Node) and what comes out of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hitless_sa::{Epoch, Incarnation, Lease, MemberId, SaId, SequenceNumber, Spi};
use zeroize::Zeroizing;

use crate::Durable;
use crate::fitness::Flaw;
use crate::switchover::NoSwitchover;

/// Names one replicated object for the whole cluster: the SPI that we chose for an IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectId(pub u64);

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What the active's cell of one SA shows now. Given for every SA that moved, every tick: the
/// level and not the edge decides when a lease is extended (`lease-holes` D12).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    pub sa: SaId,
    /// The next outbound number to be drawn.
    pub cursor: SequenceNumber,
    /// Highest authenticated inbound number, parked packets included.
    pub inbound_top: SequenceNumber,
    /// Extended sequence numbers; without them leases stay below 2^32.
    pub esn: bool,
}

/// What workers publish about one SA from time to time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checkpoint {
    pub outbound_next: SequenceNumber,
    pub inbound_top: SequenceNumber,
    pub packets_out: u64,
    pub bytes_out: u64,
    pub packets_in: u64,
    pub bytes_in: u64,
}

impl Checkpoint {
    /// This one, knowing that an earlier one held: numbers only rise.
    #[must_use]
    pub fn after(self, earlier: Checkpoint) -> Checkpoint {
        Checkpoint {
            outbound_next: self.outbound_next.max(earlier.outbound_next),
            inbound_top: self.inbound_top.max(earlier.inbound_top),
            ..self
        }
    }
}

/// The exact end of one SA, after every worker has passed the barrier (`lease-holes` R15).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrainedSa {
    pub sa: SaId,
    /// `grant` is the last number drawn, `high_water` the highest one marked.
    pub lease: Lease,
    /// The replay window, opaque here.
    pub window: Vec<u8>,
}

/// What happens to a node.
pub enum Input<'a> {
    /// An authenticated, decrypted message of another member.
    Datagram {
        from: MemberId,
        payload: &'a [u8],
    },
    /// The time of `poll_timeout` has come. Harmless when early.
    Timeout,
    /// The write that [`Output::Persist`] asked for is on disk.
    Persisted,
    /// It is not, or nobody knows.
    PersistFailed,
    /// The IKE engine of the active changed an object.
    Commit {
        object: ObjectId,
        /// Rises with each commit of the object.
        version: u64,
        /// The state that results; `None` deletes the object and all its children.
        body: Option<Zeroizing<Vec<u8>>>,
        /// Every Child SA whose keys the body holds or can yield (`lease-holes` R4).
        children: Vec<SaId>,
    },
    /// Where the cells of the active stand.
    Usage(Vec<Usage>),
    Checkpoint {
        sa: SaId,
        checkpoint: Checkpoint,
    },
    /// Answer to [`Output::Drain`]: every worker has passed the barrier.
    Drained,
    /// Answer to [`Output::Freeze`]: where each cell ended.
    Ends(Vec<DrainedSa>),
    /// The operator wants another member to lead.
    Switchover,
    /// The process is about to end: hand over or resign, then [`Event::Stopped`].
    Shutdown,
    /// Packets that came to this member after it had handed over, for the one that it handed over
    /// to ([`Node::successor`](crate::Node::successor)); 57,344 octets together at most.
    Late {
        to: MemberId,
        packets: Vec<Vec<u8>>,
    },
    /// SA_Retr by SPI: this leader hears ESP that it has no SA for.
    Retrieve {
        spi: Spi,
    },
    /// Answer to [`Output::Retrieve`], if there is one.
    Retrieved {
        to: MemberId,
        object: ObjectId,
        version: u64,
        body: &'a [u8],
    },
    /// Whether this member could do the work of an active.
    Health {
        healthy: bool,
        /// A worker has ended or is stuck: what it carries is not served, and no barrier is passed.
        halted: bool,
    },
    /// Whether this member has tried every copy that it would carry on (the drill), and what is wrong
    /// with which of them: those it would replace, or lose.
    Ready {
        ready: bool,
        broken: BTreeMap<SaId, Flaw>,
    },
}

/// One object that a new active carries on.
pub struct TakeoverObject {
    pub object: ObjectId,
    pub version: u64,
    /// No output can have left that implies a later version (`lease-holes` R16): Message IDs are
    /// exact, outstanding messages may be sent again identically.
    pub exact: bool,
    /// Shared with the node, so that a takeover copies no record.
    pub body: Arc<Zeroizing<Vec<u8>>>,
    pub children: Vec<TakeoverSa>,
}

/// What a new active has inherited besides the objects that it is given with the lead. It takes them
/// in its own time, by [`Node::inherit`](crate::Node::inherit).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Left {
    pub objects: usize,
    pub sas: usize,
    /// Every object is exact ([`TakeoverObject::exact`]).
    pub exact: bool,
    /// The predecessor handed over: there are windows ([`TakeoverSa::window`]).
    pub handed_over: bool,
}

/// One Child SA that a new active carries on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TakeoverSa {
    pub sa: SaId,
    /// The keys are known but there is no right to use them, in either direction: replace the SA.
    /// All that follows is meaningless then.
    pub rekey_only: bool,
    /// First number to send: one above everything that the predecessor may have used.
    pub first: SequenceNumber,
    /// Every inbound number up to here counts as seen.
    pub floor: SequenceNumber,
    /// What the new cell starts with.
    pub lease: Lease,
    /// The newest checkpoint received, if any.
    pub checkpoint: Option<Checkpoint>,
    /// Numbers certainly or possibly skipped: recorded grant less last known use.
    pub skip: u64,
    /// All that takeovers have skipped so far, this one included.
    pub skip_sum: u64,
    /// What IPSEC_REPLAY_COUNTER_SYNC must ask the peer for (RFC 6311 section 5.2): `H - c`.
    pub delta: u64,
    /// The predecessor's replay window, after a planned switchover.
    pub window: Option<Vec<u8>>,
}

/// Why a member stopped leading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StepDown {
    /// Another member leads an epoch that inherits from ours or lies above it.
    Deposed { by: Epoch },
    /// Two members led disjoint keys and the other one holds more.
    Outranked { by: Epoch },
    /// A standby that had the right to take over came back without memory, after it had led.
    SuccessorLost { by: Epoch },
    /// A planned switchover came to its end.
    Switchover,
    /// `Shutdown`, with nobody to hand over to.
    Shutdown,
}

/// Why an SA must be replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RekeyReason {
    /// A bound standby is silent and the lease runs out (`lease-holes` R20).
    LeaseRunsOut,
    /// Takeovers have skipped too much of the number space (`lease-holes` D14).
    SkipSum,
    /// 32-bit numbers come to their end.
    NumbersRunOut,
}

impl fmt::Display for RekeyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RekeyReason::LeaseRunsOut => "its lease runs out and the standby is silent",
            RekeyReason::SkipSum => "takeovers have skipped too many of its sequence numbers",
            RekeyReason::NumbersRunOut => "its sequence numbers run out",
        })
    }
}

/// What a node wants done, in this order.
pub enum Output {
    /// Send, protected, to another member. At most 60,000 octets.
    Datagram {
        to: MemberId,
        payload: Zeroizing<Vec<u8>>,
    },
    /// Write, atomically and synchronously, off this thread; then `Persisted` or `PersistFailed`.
    Persist(Durable),
    /// Lead: make fresh cells, announce the addresses, carry traffic.
    Lead {
        epoch: Epoch,
        /// The epoch whose rights are inherited; `None` leads on nothing but new keys.
        base: Option<Epoch>,
        /// Those to go on with at once: all, unless they are very many.
        objects: Vec<TakeoverObject>,
        left: Left,
    },
    /// A commit named what had been inherited and not been asked for: as if it had been, by
    /// [`Node::inherit`](crate::Node::inherit).
    Inherited(Box<TakeoverObject>),
    /// Leadership off, cells frozen, all rights gone. This member follows from now on, or leads
    /// again by another `Lead`, which lists what it still has a copy of.
    StepDown {
        reason: StepDown,
    },
    /// Leadership off, stop IKE; pass the barrier, then [`Input::Drained`]. Nothing is over yet.
    Drain,
    /// Freeze all cells for ever, then [`Input::Ends`].
    Freeze,
    /// As if there had been no [`Output::Drain`]: leadership on, with the same cells. What was
    /// discarded since then is made anew now.
    Resume,
    /// Raise a cell.
    Lease {
        sa: SaId,
        lease: Lease,
    },
    /// Release the outputs of this version and of older ones, and use its children with at least
    /// these leases.
    Committed {
        object: ObjectId,
        version: u64,
        leases: Vec<(SaId, Lease)>,
    },
    /// Never release this version, nor a later one committed meanwhile: a silent standby may hold
    /// its secrets. Make the exchange anew with fresh nonce, key exchange, SPI and SA id, in a
    /// higher version, now (`lease-holes` D0). Also the answer to a commit that was refused.
    Discard {
        object: ObjectId,
        version: u64,
    },
    /// A standby's copy of an object, for the passive engine.
    Store {
        object: ObjectId,
        version: u64,
        body: Zeroizing<Vec<u8>>,
    },
    /// The copy is obsolete.
    Forget {
        object: ObjectId,
    },
    /// Whether this leader waits for a silent standby.
    Degraded {
        on: bool,
        members: Vec<MemberId>,
    },
    /// Packets that came late to the member that handed over to this one, or is about to.
    Late {
        from: MemberId,
        packets: Vec<Vec<u8>>,
    },
    /// A leader asks for the object that an SPI belongs to.
    Retrieve {
        from: MemberId,
        spi: Spi,
    },
    /// What was asked for: a copy without a right, to be committed by this leader under a higher
    /// version, or dropped.
    Retrieved {
        from: MemberId,
        object: ObjectId,
        version: u64,
        body: Zeroizing<Vec<u8>>,
    },
    /// Replace this SA by keys that were never offered.
    RekeyNow {
        sa: SaId,
        reason: RekeyReason,
    },
    Event(Event),
}

/// For the log, counters and tests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Restarted {
        member: MemberId,
        incarnation: Incarnation,
    },
    SessionOpened {
        member: MemberId,
        epoch: Epoch,
    },
    /// A standby that has not been admitted went silent; nothing is lost.
    SessionAbandoned {
        member: MemberId,
    },
    /// A bound standby gave up its rights, provably.
    SessionReleased {
        member: MemberId,
    },
    Admitted {
        member: MemberId,
        epoch: Epoch,
    },
    Suspected {
        leader: MemberId,
        silent_for: Duration,
    },
    /// The active gave up its epoch, by restart or on purpose.
    LeaderGone {
        leader: MemberId,
    },
    /// Old keys could not be carried on, and why.
    NoRight {
        reason: &'static str,
    },
    ConfigMismatch {
        member: MemberId,
    },
    /// Messages of so many octets do not reach it, and smaller ones do: the path loses IP fragments, or its
    /// MTU is smaller than that of a link's ends.
    NarrowPath {
        member: MemberId,
        octets: usize,
    },
    /// Its ports are on other networks than ours. Said once by each of its incarnations.
    LayoutDiffers {
        member: MemberId,
    },
    /// A packet of a lower incarnation than the highest seen of this member: delayed by the network,
    /// if there are few. If they do not end, the member lost its epoch file or got an old one, and
    /// is not admitted: see [`Durable`].
    StaleIncarnation {
        member: MemberId,
        incarnation: Incarnation,
    },
    /// A packet of another process than the one that was first heard under this incarnation: the
    /// member lost its epoch file, or two machines run as one member (`lease-holes` A20). It is
    /// refused, so that no IV and no SA number is used twice: see [`Durable`] for what to do.
    RepeatedIncarnation {
        member: MemberId,
        incarnation: Incarnation,
    },
    Malformed {
        member: MemberId,
    },
    UnknownMember {
        member: MemberId,
    },
    /// Late packets of a member that did not hand over to this one; they are dropped.
    UnexpectedLate {
        member: MemberId,
    },
    /// An SA_Retr of a member that does not lead, or an answer for one that does not.
    UnexpectedRetrieval {
        member: MemberId,
    },
    PersistFailed,
    SwitchoverRefused {
        reason: NoSwitchover,
    },
    CommitRefused {
        object: ObjectId,
        reason: &'static str,
    },
    /// `Shutdown` is complete: the process may end.
    Stopped,
}

/// What a member does now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// Knows no leader to follow.
    Out,
    /// Copies the leader's objects; has no rights.
    Learning,
    /// May take over.
    Admitted,
    /// Taking over: waits for its disk.
    TakingOver,
    Leading,
    /// Stopped using its leases for a planned switchover.
    HandingOver,
}

/// How one other member looks from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberStatus {
    pub id: MemberId,
    pub priority: u8,
    pub incarnation: Option<Incarnation>,
    /// What it last said about itself.
    pub role: Option<Role>,
    pub healthy: bool,
    pub silent_for: Option<Duration>,
    /// As leader: whether it holds the right to take over from us.
    pub bound: bool,
    /// ... and could use it now: it is heard, answers, is well and has tried its copies.
    pub able: bool,
    /// As leader: records on their way to it.
    pub backlog: usize,
    /// It is heard, and what all members must agree on differs: neither leads beside the other.
    pub differs: bool,
    /// Its ports are on other networks than ours: what only one of us reaches is lost with a takeover.
    pub elsewhere: bool,
    /// As leader: messages of so many octets do not reach it, and smaller ones do.
    pub narrow: Option<usize>,
}

/// A picture for `hitless status`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    pub role: Role,
    /// The epoch led or followed.
    pub epoch: Option<Epoch>,
    /// The epoch that the led one inherits from.
    pub base: Option<Epoch>,
    pub leader: Option<MemberId>,
    pub members: Vec<MemberStatus>,
    pub objects: usize,
    pub sas: usize,
    pub degraded: bool,
    /// As standby: Message IDs would be exact in a takeover now.
    pub vouched: bool,
    pub durable: Durable,
    /// How long its disk has been refusing, or owing an answer.
    pub unwritten_for: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6311_section_5_2_the_last_known_number_does_not_fall_at_a_takeover() {
        let at = |next, top, packets_in| Checkpoint {
            outbound_next: SequenceNumber(next),
            inbound_top: SequenceNumber(top),
            packets_in,
            ..Checkpoint::default()
        };
        // A new leader's workers have heard nothing yet: its delta would be all of `H`.
        assert_eq!(at(900, 0, 0).after(at(500, 400, 70)), at(900, 400, 0));
        assert_eq!(at(901, 450, 3).after(at(900, 400, 0)), at(901, 450, 3));
    }
}
