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
    /// What strangers may cost.
    pub limits: Limits,
    /// First retransmission after this long; then it doubles (RFC 7296 section 2.4).
    pub retransmit_timeout: Duration,
    /// Retransmissions before the peer counts as dead.
    pub retransmit_tries: u32,
    /// Whether the user wants keys for Wireshark (`control.key_log`): those of IKE_INTERMEDIATE, and of
    /// what is taken over.
    pub key_log: bool,
    /// By which certificates are valid; `Engine::set_time_of_day` keeps it.
    pub time_of_day: TimeOfDay,
}

impl EngineSettings {
    /// A member's, with everything else as it is where nobody says otherwise.
    pub fn new(
        member: MemberId,
        incarnation: Incarnation,
        connections: Vec<Connection>,
        secrets: Vec<Secret>,
    ) -> EngineSettings {
        EngineSettings {
            member,
            incarnation,
            connections,
            pools: Vec::new(),
            secrets,
            cluster_secret: ClusterSecret::default(),
            limits: Limits::default(),
            retransmit_timeout: Duration::from_secs(1),
            retransmit_tries: 5,
            key_log: false,
            time_of_day: TimeOfDay::default(),
        }
    }
}

/// `[ike]`: what those may cost that are not authenticated, and how much those may have that are. The
/// names are strongSwan's (`charon.*`) where it has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Half-open IKE SAs at most; no more are begun.
    pub init_limit_half_open: usize,
    /// A half-open IKE SA that a peer began is dropped after this long.
    pub half_open_timeout: Duration,
    pub cookies: Cookies,
    /// Half-open IKE SAs from which on cookies are demanded; for MODP groups a quarter of it.
    pub cookie_threshold: usize,
    /// The same for one address.
    pub cookie_threshold_ip: usize,
    /// Half-open IKE SAs of one address at most.
    pub block_threshold: usize,
    /// IKE_SA_INIT requests a second; 0 for any number.
    pub init_rate: u32,
    /// The same for one address.
    pub init_rate_ip: u32,
    /// Octets of fragments that wait in all half-open IKE SAs together. Their senders have done a
    /// key exchange with us and are nobody yet.
    pub waiting_fragments: usize,
    /// IKE SAs at most, those of other members that are kept here too; 0 for any number. No more are
    /// begun by peers.
    pub ikesa_limit: usize,
    /// The same for one identity: with `unique` = `never` or `no` it may begin one after the other.
    pub ikesa_limit_id: usize,
    /// Child SAs that a peer may have in one IKE SA, unless its connection has more.
    pub children_per_ike: usize,
    /// Inherited IKE SAs that find out where their peers stand, at once and in a second; 0 for any
    /// number in a second.
    pub takeover_sync_limit: usize,
    pub takeover_sync_rate: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            init_limit_half_open: 4096,
            half_open_timeout: Duration::from_secs(30),
            cookies: Cookies::Busy,
            cookie_threshold: 1024,
            cookie_threshold_ip: 64,
            block_threshold: 256,
            init_rate: 2000,
            init_rate_ip: 500,
            waiting_fragments: 16 << 20,
            ikesa_limit: 128 * 1024,
            ikesa_limit_id: 1024,
            children_per_ike: 80,
            takeover_sync_limit: 512,
            takeover_sync_rate: 2000,
        }
    }
}

/// `cookies = "busy" | "always" | "never"`: when an initiator must show that it receives at its
/// address (RFC 7296 section 2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Cookies {
    /// Above the thresholds, and above half of a rate.
    #[default]
    Busy,
    Always,
    Never,
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

impl Connection {
    /// The child of that name.
    pub fn child(&self, name: &str) -> Option<&Child> {
        self.children.iter().find(|child| child.name == name)
    }
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
    /// `per_cpu_sas`: so many SAs with these selectors, one for each worker (RFC 9611); 0 for one
    /// that all of them use.
    pub per_cpu_sas: u16,
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
    /// The gateway that clients are sent to (RFC 5685).
    pub redirect_to: Option<IpAddr>,
    /// `follow_redirects = false`.
    pub ignores_redirects: bool,
    pub window_size: WindowSize,
    pub unique: Unique,
    pub sync_after_takeover: SyncAfterTakeover,
    pub withheld: Withheld,
}

/// `sync_after_takeover = eager | lazy` (R33, R37, RFC 6311 section 7): when a peer is asked where
/// it stands, if it has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncAfterTakeover {
    /// As soon as the governor lets it.
    #[default]
    Eager,
    /// When a request of ours needs it, or the peer sends one, or ESP whose numbers count as seen.
    Lazy,
}

/// What of RFC 6311 is not asserted: a peer of the simulator may know one half of it, or nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Withheld {
    pub message_id_sync: bool,
    pub replay_counter_sync: bool,
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
