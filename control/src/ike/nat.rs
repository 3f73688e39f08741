//! NAT detection and the float to port 4500 (RFC 7296 section 2.23).

use std::net::SocketAddr;
use std::time::Duration;

use hitless_sa::{IkeSpi, TrafficSelector, UdpEncapsulation};

use super::crypto::prf::nat_detection;
use super::ends;
use super::message::{Notify, NotifyKind, Payload};
use super::output::Transmit;

pub(super) const IKE_PORT: u16 = 500;
pub(super) const NAT_PORT: u16 = 4500;
/// Default interval of keepalives (RFC 3948 section 4).
pub(super) const KEEPALIVE: Duration = Duration::from_secs(20);

/// Both ends of the UDP flow of an IKE SA, as we see them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Path {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

impl Path {
    pub fn transmit(self, payload: Vec<u8>) -> Transmit {
        Transmit {
            local: self.local,
            remote: self.remote,
            payload,
        }
    }

    /// To port 4500, unless a NAT mapped the peer's already.
    pub fn float(&mut self) {
        self.local.set_port(NAT_PORT);
        if self.remote.port() == IKE_PORT {
            self.remote.set_port(NAT_PORT);
        }
    }
}

/// What NAT detection found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Nat {
    /// We are behind one.
    pub local: bool,
    /// The peer is, or says so.
    pub remote: bool,
    /// `encap = yes`.
    pub forced: bool,
}

impl Nat {
    pub fn detected(self) -> bool {
        self.local || self.remote || self.forced
    }

    /// The ports of ESP in UDP, where a NAT needs it (RFC 3948).
    pub fn encapsulation(self, path: Path) -> Option<UdpEncapsulation> {
        self.detected().then(|| UdpEncapsulation {
            local_port: path.local.port(),
            remote_port: path.remote.port(),
        })
    }
}

/// The selectors of a transport mode SA as this side sees the addresses in them: a NAT in front of an
/// end put another one in its place, which that end cannot know (RFC 7296 section 2.23.1).
pub(super) fn seen(
    nat: Nat,
    path: Path,
    local_ts: &[TrafficSelector],
    remote_ts: &[TrafficSelector],
) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
    let substitute = |behind: bool, selectors: &[TrafficSelector], address: SocketAddr| {
        let one = |selector: &TrafficSelector| match behind && selector.start == selector.end {
            true => ends::host(selector, address.ip()),
            false => *selector,
        };
        selectors.iter().map(one).collect()
    };
    (
        substitute(nat.local, local_ts, path.local),
        substitute(nat.remote, remote_ts, path.remote),
    )
}

/// Both notifications for a message that we send. With random octets for a `fake` source the peer
/// detects a NAT, and encapsulates.
pub(super) fn notifications(
    initiator: IkeSpi,
    responder: IkeSpi,
    path: Path,
    fake: Option<[u8; 20]>,
) -> [Payload; 2] {
    let source = fake.unwrap_or_else(|| nat_detection(initiator, responder, path.local));
    let destination = nat_detection(initiator, responder, path.remote);
    [
        (NotifyKind::NAT_DETECTION_SOURCE_IP, source),
        (NotifyKind::NAT_DETECTION_DESTINATION_IP, destination),
    ]
    .map(|(kind, data)| Payload::notify(kind, &data))
}

/// What the peer's notifications say. Without any there is no NAT traversal.
pub(super) fn detect<'a>(
    initiator: IkeSpi,
    responder: IkeSpi,
    path: Path,
    notifies: impl Iterator<Item = &'a Notify> + Clone,
) -> Nat {
    let none_matches = |kind: NotifyKind, address: SocketAddr| {
        let expected = nat_detection(initiator, responder, address);
        let mut digests = notifies.clone().filter(|n| n.kind == kind).peekable();
        digests.peek().is_some() && !digests.any(|n| n.data == expected)
    };
    Nat {
        local: none_matches(NotifyKind::NAT_DETECTION_DESTINATION_IP, path.local),
        remote: none_matches(NotifyKind::NAT_DETECTION_SOURCE_IP, path.remote),
        forced: false,
    }
}
