//! What a [`Node`](crate::Node) is told once: who is configured, how patient it is, how large its
//! leases are, and what survived its last crash.

use std::time::Duration;

use hitless_sa::{Epoch, Incarnation, Lease, MemberId, SequenceNumber};

use crate::message::features;

/// One configured member of the group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    pub id: MemberId,
    /// The greater is preferred as leader; the id breaks ties.
    pub priority: u8,
}

/// What the active does about a bound standby that has fallen silent (`lease-holes` R20).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Degraded {
    /// Use what is left of the leases, and replace SAs by keys that the silent standby never saw.
    #[default]
    Rekey,
    /// Stop at the leases and hold every IKE output until the standby is back or removed.
    Strict,
    /// Have the witness elect this leader anew, which takes the silent standby's right away: then
    /// go on as if it had never been. If the witness does not answer either, as `Rekey`.
    Witness,
}

/// How large leases are. The packet rate moves them between the bounds (`lease-holes`, SIZES).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseSizes {
    /// The lease that rides in the record that announces an SA.
    pub first: Lease,
    /// Bounds of what an outbound lease reaches ahead of the cursor, for ESN.
    pub outbound: (u64, u64),
    /// The same for 32-bit numbers, where every skip counts against 2^32.
    pub outbound_short: (u64, u64),
    /// Bounds of what an inbound lease reaches ahead of the highest authenticated number: a
    /// strict takeover drops that much, so it is small.
    pub inbound: (u64, u64),
    /// Time that an outbound lease must last beyond `vouch`: an IKE exchange with the peer, in
    /// which a degraded member replaces the SA.
    pub exchange: Duration,
}

impl Default for LeaseSizes {
    fn default() -> LeaseSizes {
        LeaseSizes {
            first: Lease {
                grant: SequenceNumber(1 << 12),
                high_water: SequenceNumber(64),
            },
            outbound: (1 << 16, 1 << 29),
            outbound_short: (1 << 12, 1 << 23),
            inbound: (8, 1 << 29),
            exchange: Duration::from_millis(200),
        }
    }
}

/// The configuration of one member of one group.
#[derive(Clone, Debug)]
pub struct Settings {
    pub me: MemberId,
    /// Every configured member, this one included.
    pub members: Vec<Member>,
    /// Digest of what all members must agree on; a member with another one is not talked to
    /// (`lease-holes` A10).
    pub config_hash: [u8; 32],
    /// Digest of what all members had better have alike (the networks of their ports), or 0: a member
    /// with another one is told of.
    pub layout: u64,
    /// Time between two messages to each other member.
    pub heartbeat: Duration,
    /// How many heartbeats may be missed before the active counts as dead.
    pub missed: u32,
    /// How long a member that starts waits for the others before it leads on nothing.
    pub hold: Duration,
    /// D of `lease-holes` R16: silence after which an IKE output leaves without this standby's
    /// acknowledgement, and after which a standby no longer trusts its Message IDs. At least
    /// 1.5 times `heartbeat * missed`, plus a round trip.
    pub vouch: Duration,
    pub degraded: Degraded,
    /// The member that only votes: it keeps its promises on a disk of its own, and has no copy, no
    /// key and no address. It makes a majority where two members alone would have none, so a
    /// standby may take over only with its vote, and a leader that has lost its standby is rid of
    /// it by that vote (`lease-holes` R10, R12).
    pub witness: Option<MemberId>,
    /// Give the lead to an admitted member of higher priority.
    pub preempt: bool,
    pub leases: LeaseSizes,
    /// Take packets from a predecessor that they came to after it had handed over.
    pub late: bool,
    /// Up to so many objects a new leader takes all at once, more of them one by one.
    pub at_once: usize,
    /// Rules that a test switches off to prove that it would notice.
    #[doc(hidden)]
    pub mutant: Mutant,
}

impl Settings {
    /// Defaults for `me` among `members`: 10 ms heartbeats, three may be missed.
    pub fn new(me: MemberId, members: Vec<Member>, config_hash: [u8; 32]) -> Settings {
        Settings {
            me,
            members,
            config_hash,
            layout: 0,
            heartbeat: Duration::from_millis(10),
            missed: 3,
            hold: Duration::from_millis(500),
            vouch: Duration::from_millis(100),
            degraded: Degraded::Rekey,
            witness: None,
            preempt: false,
            leases: LeaseSizes::default(),
            late: true,
            at_once: 256,
            mutant: Mutant::default(),
        }
    }

    /// What this member says that it can do.
    pub(crate) fn features(&self) -> u64 {
        let late = if self.late { features::LATE } else { 0 };
        late | features::RETRIEVE
    }

    /// Whether this member only votes.
    pub(crate) fn votes_only(&self) -> bool {
        self.witness == Some(self.me)
    }

    /// Silence after which an active counts as dead.
    pub fn takeover(&self) -> Duration {
        self.heartbeat * self.missed.max(1)
    }

    /// A silence of the leader after which a standby with the right takes over: as many heartbeats as
    /// are to be missed, and what the next one may come later than the last.
    pub(crate) fn silence(&self) -> Duration {
        self.takeover() + self.heartbeat / 4
    }

    /// How long a member without rights waits in silence before it leads on nothing (R12).
    pub(crate) fn patience(&self) -> Duration {
        self.takeover() * 5
    }
}

/// What a member's disk keeps, written atomically and synchronously (`lease-holes` R1).
///
/// A lost or rolled-back file is a new identity: the operator removes the old member first. A member
/// that starts without its file (a container without a volume, a tmpfs) claims an incarnation that
/// the others know. They refuse every packet of it, as [`Event::RepeatedIncarnation`] or
/// [`Event::StaleIncarnation`], neither follow nor admit it, and stay degraded; it stays
/// [`Role::Out`] as long as another member leads. What to do: put the file where it outlives a
/// restart, remove the member from every configuration, and add it under an id that was never used.
///
/// The others keep what they have seen in memory only: do not start them again before that.
///
/// [`Event::RepeatedIncarnation`]: crate::Event::RepeatedIncarnation
/// [`Event::StaleIncarnation`]: crate::Event::StaleIncarnation
/// [`Role::Out`]: crate::Role::Out
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Durable {
    /// Raised by one, durably, at each start before the node is made.
    pub incarnation: Incarnation,
    /// The highest inheriting epoch in which this member acknowledged or voted.
    pub promised: Option<Epoch>,
    /// The highest inheriting epoch that this member may have led.
    pub led: Option<Epoch>,
}

/// One switch for each rule whose loss a test must notice. Never set outside tests.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mutant {
    /// Records what came last instead of the maximum (R6, hole A2).
    pub record_last: bool,
    /// Uses session messages whatever their session (R2, holes A1, A11).
    pub any_session: bool,
    /// Goes on extending an SA by itself after its first offer left (R5, holes A6, B4).
    pub offer_unbound: bool,
    /// Takes over at the recorded grant instead of one above it (R11).
    pub no_plus_one: bool,
    /// Leads before its epoch is durable (R1).
    pub lead_before_durable: bool,
    /// Counts an SA as solo although its secrets were offered (R4, hole A7).
    pub fresh_although_offered: bool,
    /// Takes any hello for fresh, without the echo of a challenge (R2, hole A14).
    pub no_challenge: bool,
    /// Releases IKE outputs without waiting for D (R16, hole C1).
    pub no_vouch_wait: bool,
    /// Applies records in any order (R6, hole A12).
    pub any_order: bool,
    /// Takes over without a majority (R10).
    pub no_majority: bool,
    /// Votes whatever it promised before (R10).
    pub vote_twice: bool,
    /// Ignores what a returning member has led (R13b).
    pub ignore_led: bool,
    /// Uses numbers as soon as they are offered, whoever has recorded them: a deposed active never
    /// starves (R7).
    pub unacknowledged: bool,
    /// Acknowledges an extension and does not record it (R6).
    pub ack_unrecorded: bool,
    /// Offers nothing beyond the first lease of an SA: whoever uses it up waits for ever (R7).
    pub no_extension: bool,
    /// Takes over so many numbers above the last checkpoint, as RFC 6027 section 3.4 has it,
    /// instead of above the recorded grant (R11).
    pub guessed_skip: Option<u64>,
    /// Never knows that it has heard all that was sent: each takeover has to ask the peers (R16).
    pub never_vouches: bool,
    /// Takes over on nothing, as if there were no copy: the peers make everything anew (R11).
    pub forgets: bool,
    /// Sends the ends of its leases while its workers go on (R15, holes A3 and A4).
    pub final_before_step_down: bool,
    /// Leads on with what was left of its leases although their ends have left (R14).
    pub residual_after_final: bool,
    /// Has the right of the epoch that its leader is re-elected in, whether its session goes on or not.
    pub carries_itself: bool,
    /// Takes a switchover back although the ends of its leases have left (R15).
    pub resumes_after_final: bool,
    /// Not a mutant: says in each message and record what only the next version knows.
    pub next_version: bool,
    /// One standby's acknowledgement is enough to release an IKE output (R16, hole C3).
    pub any_standby: bool,
}

/// Fields that nobody knows, octets and a number; another version; bits of what nobody can do.
const OF_A_MESSAGE: &[u8] = &[
    0xfa, 0x3f, 3, 1, 2, 3, 0xc0, 0x3e, 9, 0x08, 2, 0x90, 0x08, 0xff, 0x01,
];

impl Mutant {
    /// What a message says beside the rest.
    pub(crate) fn more(&self) -> &'static [u8] {
        match self.next_version {
            true => OF_A_MESSAGE,
            false => &[],
        }
    }

    /// What a record of the gateway's says beside the rest, likewise.
    pub fn more_of_a_record(&self) -> &'static [u8] {
        match self.next_version {
            true => OF_A_MESSAGE.split_at(9).0,
            false => &[],
        }
    }
}
