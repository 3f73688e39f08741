//! What the configuration says about IKE, validated. Names are swanctl's.

use std::net::IpAddr;
use std::time::Duration;

use hitless_sa::{Incarnation, MemberId, Mode, SaOptions, TrafficSelector};
use zeroize::Zeroizing;

use super::auth::{AuthSettings, TimeOfDay};
use super::fragments::Fragmentation;
use super::proposal::{EspProposal, Identification, IkeProposal};
use super::sessions::{ClusterSecret, Lifetimes, SessionSettings};
use super::window::MAX_WINDOW;

/// What the engine must know besides its connections.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Owner of this engine's part of the SPI spaces and of the SK payloads' IV space.
    pub member: MemberId,
    pub incarnation: Incarnation,
    pub connections: Vec<Connection>,
    /// Virtual addresses for peers (`pools`).
    pub pools: Vec<Pool>,
    pub secrets: Vec<Secret>,
    /// What crash tokens are made with.
    pub cluster_secret: ClusterSecret,
    /// Half-open IKE SAs that are kept at most; beyond half of it cookies are demanded, and
    /// for MODP groups beyond an eighth.
    pub half_open_limit: usize,
    /// First retransmission after this long; then it doubles (RFC 7296 section 2.4).
    pub retransmit_timeout: Duration,
    /// Retransmissions before the peer counts as dead.
    pub retransmit_tries: u32,
    /// By which certificates are valid; `Engine::set_time_of_day` keeps it.
    pub time_of_day: TimeOfDay,
}

/// One peer, `connections.<name>`.
#[derive(Clone, Debug)]
pub struct Connection {
    pub name: String,
    /// Our addresses: the cluster's, never a member's own.
    pub local_addrs: Vec<IpAddr>,
    /// The peer's, empty for any.
    pub remote_addrs: Vec<IpAddr>,
    /// UDP port of the peer to initiate to (500), or 4500 to start there.
    pub remote_port: u16,
    pub proposals: Vec<IkeProposal>,
    pub fragmentation: Fragmentation,
    /// The longest IP datagram that carries a fragment of an IKE message.
    pub fragment_size: u16,
    pub local_id: Identification,
    pub remote_id: Identification,
    /// Force UDP encapsulation by faking NAT detection.
    pub encap: bool,
    /// Liveness check after this long without a packet; zero for never.
    pub dpd_delay: Duration,
    /// Lifetime of the IKE SA; zero for unlimited.
    pub rekey_time: Duration,
    /// How a takeover resumes the IKE SA.
    pub takeover: Takeover,
    /// What a takeover without a handover makes of inbound numbers.
    pub inbound: TakeoverInbound,
    pub roads: Roads,
    pub session: SessionSettings,
    pub auth: AuthSettings,
    pub children: Vec<Child>,
}

/// One `connections.<name>.children.<child>`.
#[derive(Clone, Debug)]
pub struct Child {
    pub name: String,
    pub mode: Mode,
    pub esp_proposals: Vec<EspProposal>,
    pub local_ts: Vec<TrafficSelector>,
    pub remote_ts: Vec<TrafficSelector>,
    /// Which of those stand for addresses that only the IKE SA tells.
    pub dynamic: Dynamic,
    /// Lifetime of the Child SA; zero for unlimited.
    pub rekey_time: Duration,
    /// How much longer than that, and how much it carries.
    pub lifetimes: Lifetimes,
    pub replay_window: u32,
    pub options: SaOptions,
    /// Initiate when the gateway starts to lead, and again whenever it is lost.
    pub start: bool,
}

/// A pre-shared key and the identities that may use it; empty for any.
#[derive(Clone)]
pub struct Secret {
    pub ids: Vec<Identification>,
    pub secret: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret")
            .field("ids", &self.ids)
            .finish_non_exhaustive()
    }
}

/// `takeover = auto | exact | message-id-sync | probe | rekey`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Takeover {
    /// Exact Message IDs where output commit vouches for them; else RFC 6311 if negotiated and
    /// safe for the peer; else probe.
    #[default]
    Auto,
    Exact,
    MessageIdSync,
    Probe,
    Rekey,
}

/// `takeover_inbound = strict | learn | rekey` (RFC 6027 section 3.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TakeoverInbound {
    /// Everything that the predecessor may have delivered counts as seen: no replay is accepted,
    /// and packets are lost until the peer's numbers have passed the recorded high water.
    #[default]
    Strict,
    /// Everything above the last checkpoint is accepted once: nothing is lost, and an attacker may
    /// replay what was delivered since that checkpoint.
    Learn,
    /// As strict, and every Child SA is replaced at once.
    Rekey,
}

/// Addresses of a connection that it finds out, gives or changes on its way.
#[derive(Clone, Default, Debug)]
pub struct Roads {
    /// Whether addresses may change (RFC 4555).
    pub mobike: Mobike,
    /// Virtual addresses to ask the peer for; unspecified for any (RFC 7296 section 2.19).
    pub vips: Vec<IpAddr>,
    /// Pools to give the peer virtual addresses from, by name.
    pub pools: Vec<String>,
    /// Whether IKE_AUTH makes a Child SA (RFC 6023).
    pub childless: Childless,
    pub window_size: WindowSize,
    pub unique: Unique,
}

/// `unique = never | no | replace | keep`: how many IKE SAs a peer may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unique {
    /// INITIAL_CONTACT is neither sent nor honoured.
    Never,
    /// Any number, until the peer says by INITIAL_CONTACT that it has no other.
    #[default]
    No,
    /// A new one takes the place of the others.
    Replace,
    /// A new one is refused while there is another.
    Keep,
}

/// `window_size`: requests that may be outstanding at once, ours and the peer's
/// (RFC 7296 section 2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowSize(u32);

impl WindowSize {
    /// `None` if it is none, or wider than [`MAX_WINDOW`].
    pub fn new(size: u32) -> Option<WindowSize> {
        (1..=MAX_WINDOW).contains(&size).then_some(WindowSize(size))
    }

    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for WindowSize {
    fn default() -> WindowSize {
        WindowSize(1)
    }
}

/// `mobike = yes | no`; without it, what the peer wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mobike {
    /// Where the peer offers it.
    #[default]
    Accept,
    /// Offered as initiator, too.
    Offer,
    Refuse,
}

/// `childless = allow | prefer | force | never` (RFC 6023).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Childless {
    /// As responder.
    #[default]
    Allow,
    /// As initiator too, if the responder can.
    Prefer,
    /// In either role: the first Child SA has a key exchange of its own.
    Force,
    Never,
}

/// `dynamic` in `local_ts` and `remote_ts`: those selectors of a child that stand for a virtual
/// address or, where there is none, for the IKE SA's own one. What they say meanwhile is the most
/// that may come of them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Dynamic {
    pub local: Vec<TrafficSelector>,
    pub remote: Vec<TrafficSelector>,
}

/// `[pools.NAME]`: virtual addresses and the name servers that go with them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    pub name: String,
    /// First and last address, of one family.
    pub first: IpAddr,
    pub last: IpAddr,
    pub dns: Vec<IpAddr>,
}
