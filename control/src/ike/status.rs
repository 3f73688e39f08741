//! What `hitless list-sas` shows, in the layout of `swanctl --list-sas`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hitless_sa::{IkeSpi, Instant, MessageId, Mode, SaId, Spi, TrafficSelector};

use super::child::ChildState;
use super::established::{IkeSa, State};
use super::initial::Initiator;
use super::proposal::Identification;

/// State of an IKE SA or Child SA, in strongSwan's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SaState {
    Connecting,
    /// Held for another member.
    Passive,
    Established,
    Rekeying,
    Rekeyed,
    Deleting,
    /// A Child SA in use.
    Installed,
}

impl SaState {
    pub const fn name(self) -> &'static str {
        match self {
            SaState::Connecting => "CONNECTING",
            SaState::Passive => "PASSIVE",
            SaState::Established => "ESTABLISHED",
            SaState::Rekeying => "REKEYING",
            SaState::Rekeyed => "REKEYED",
            SaState::Deleting => "DELETING",
            SaState::Installed => "INSTALLED",
        }
    }
}

/// One IKE SA.
#[derive(Clone, Debug)]
pub struct IkeSaStatus {
    /// `connections.<name>`.
    pub name: String,
    pub unique_id: u32,
    pub state: SaState,
    /// We are its original initiator.
    pub initiator: bool,
    pub local_spi: IkeSpi,
    /// Zero before the peer has answered.
    pub remote_spi: IkeSpi,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub local_id: Identification,
    /// `%any` before the peer is authenticated.
    pub remote_id: Identification,
    /// The user who logged in with EAP.
    pub remote_eap_id: Option<Identification>,
    /// `AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519`; empty before it is agreed on.
    pub proposal: String,
    pub established_ago: Option<Duration>,
    pub rekeying_in: Option<Duration>,
    /// Message ID of our next request.
    pub next_request: MessageId,
    /// Message ID of the peer's next request.
    pub expected_request: MessageId,
    pub message_id_sync: bool,
    pub replay_counter_sync: bool,
    /// Virtual addresses that we have from the peer, and the name servers that came with them.
    pub local_vips: Vec<IpAddr>,
    pub dns: Vec<IpAddr>,
    /// Those that the peer has from us.
    pub remote_vips: Vec<IpAddr>,
    /// How the peer proved who it is: `psk`, or the kind of signature; empty before.
    pub authenticated: String,
    /// SHA-256 of its certificate, in hex.
    pub certificate: Option<String>,
    /// A postquantum pre-shared key is mixed in (RFC 8784).
    pub ppk: bool,
    pub reauthenticating_in: Option<Duration>,
    pub children: Vec<ChildStatus>,
}

/// One Child SA.
#[derive(Clone, Debug)]
pub struct ChildStatus {
    /// `children.<name>`.
    pub name: String,
    pub sa: SaId,
    /// Position of the child in the configuration of its connection, from one.
    pub reqid: u32,
    pub state: SaState,
    pub mode: Mode,
    pub encapsulated: bool,
    /// `AES_GCM_16-128/ESN`.
    pub proposal: String,
    pub inbound_spi: Spi,
    pub outbound_spi: Spi,
    /// Outbound traffic uses it.
    pub sending: bool,
    pub installed_ago: Duration,
    pub rekeying_in: Option<Duration>,
    pub ending_in: Option<Duration>,
    pub local_ts: Vec<TrafficSelector>,
    pub remote_ts: Vec<TrafficSelector>,
}

/// An IKE SA that we are about to establish.
pub(super) fn connecting(initiator: &Initiator) -> IkeSaStatus {
    IkeSaStatus {
        name: initiator.connection.name.clone(),
        unique_id: 0,
        state: SaState::Connecting,
        initiator: true,
        local_spi: initiator.spi,
        remote_spi: IkeSpi(0),
        local: initiator.path.local,
        remote: initiator.path.remote,
        local_id: initiator.connection.local_id.clone(),
        remote_id: Identification::Any,
        remote_eap_id: None,
        proposal: String::new(),
        established_ago: None,
        rekeying_in: None,
        next_request: MessageId(0),
        expected_request: MessageId(0),
        message_id_sync: false,
        replay_counter_sync: false,
        local_vips: Vec::new(),
        dns: Vec::new(),
        remote_vips: Vec::new(),
        authenticated: String::new(),
        certificate: None,
        ppk: false,
        reauthenticating_in: None,
        children: Vec::new(),
    }
}

/// An IKE SA that is established, here or (`passive`) on another member.
pub(super) fn established(ike: &IkeSa, now: Instant, passive: bool) -> IkeSaStatus {
    let state = match ike.state {
        _ if passive => SaState::Passive,
        State::Established if ike.is_rekeying() => SaState::Rekeying,
        State::Established => SaState::Established,
        State::Rekeyed { .. } => SaState::Rekeyed,
        State::Deleting | State::Gone => SaState::Deleting,
    };
    let proven = &ike.authenticated.proven;
    IkeSaStatus {
        name: ike.connection.name.clone(),
        unique_id: ike.unique,
        state,
        initiator: ike.initiator,
        local_spi: ike.local_spi,
        remote_spi: ike.remote_spi,
        local: ike.path.local,
        remote: ike.path.remote,
        local_id: ike.local_id.clone(),
        remote_id: ike.remote_id.clone(),
        remote_eap_id: proven.user.clone(),
        proposal: ike.proposal.name(),
        established_ago: Some(now.since(ike.established)),
        rekeying_in: ike.rekey_at.map(|at| at.since(now)),
        next_request: ike.window.next_request,
        expected_request: ike.window.expected,
        message_id_sync: ike.message_id_sync,
        replay_counter_sync: ike.replay_counter_sync,
        local_vips: ike.addresses.taken.clone(),
        dns: ike.addresses.dns.clone(),
        remote_vips: ike.addresses.given.clone(),
        authenticated: proven.method.clone(),
        certificate: proven.certificate.map(|digest| hex(&digest)),
        ppk: ike.authenticated.ppk,
        reauthenticating_in: ike.authenticated.reauth_at.map(|at| at.since(now)),
        children: children(ike, now),
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn children(ike: &IkeSa, now: Instant) -> Vec<ChildStatus> {
    let reqid = |name: &str| {
        let position = ike.connection.children.iter().position(|c| c.name == name);
        position.map_or(0, |p| u32::try_from(p + 1).unwrap_or(u32::MAX))
    };
    let status = |child: &super::child::Installed| ChildStatus {
        name: child.name.clone(),
        sa: child.sa.id,
        reqid: reqid(&child.name),
        state: match child.state {
            ChildState::Installed => SaState::Installed,
            ChildState::Rekeying => SaState::Rekeying,
            ChildState::Rekeyed => SaState::Rekeyed,
            ChildState::Deleting => SaState::Deleting,
        },
        mode: child.sa.mode,
        encapsulated: child.sa.encapsulation.is_some(),
        proposal: format!(
            "{}{}",
            child.sa.suite.name(),
            if child.sa.esn { "/ESN" } else { "" }
        ),
        inbound_spi: child.sa.inbound_spi,
        outbound_spi: child.sa.outbound_spi,
        sending: child.sending,
        installed_ago: now.since(child.installed),
        rekeying_in: child.rekey_at.map(|at| at.since(now)),
        ending_in: child.life_at.map(|at| at.since(now)),
        local_ts: child.sa.local_ts.clone(),
        remote_ts: child.sa.remote_ts.clone(),
    };
    ike.children.iter().map(status).collect()
}
