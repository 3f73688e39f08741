//! Addresses that change while the IKE SA stays (RFC 4555).
//!
//! ```text
//!   whoever moved                            the other end
//!   UPDATE_SA_ADDRESSES, from where it is -> moves at once, and asks back with COOKIE2
//! ```
//!
//! By RFC 4555 the initiator alone says which addresses are used. A gateway that took over at another
//! address cannot wait for that (draft-vidya-ipsec-failover-redundancy section 4.2), so between two
//! that assert it the responder may update too, as draft-smyslov-ipsecme-ikev2-r-mobike has it; the
//! initiator then holds the new address for provisional until a return routability check has come
//! back from it. Transport mode moves as well: there the addresses are the selectors.

mod answer;
mod ask;
mod mapping;
#[cfg(test)]
mod overtaken;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hitless_sa::MessageId;

use super::child::options;
use super::contents::Contents;
use super::established::IkeSa;
use super::message::{NotifyKind, Payload};
use super::nat::{NAT_PORT, Nat, Path};
use super::output::{ChildChange, Event};
use super::settings::{Connection, Mobike as Wish};
use super::turn::Turn;

pub(super) use answer::{answer, followed, heard_from};
pub(super) use ask::{
    complete, move_to, perform, readdressed, resend_path, stays, tell_again, took_over,
};
pub(super) use mapping::{ask_for_mapping, hear_of_mapping};

/// What tells our own notification from others of its private number: that the sender takes updates
/// from a responder (draft-smyslov-ipsecme-ikev2-r-mobike has no number assigned).
const RESPONDER_UPDATES: &[u8] = b"hitless r-mobike 1";

/// Addresses of a peer that are remembered.
const ADDRESSES: usize = 16;

/// What MOBIKE knows on one IKE SA, where both ends speak it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Mobike {
    /// The peer's addresses besides the one in use (section 3.6).
    pub others: Vec<IpAddr>,
    /// Both take updates from a responder.
    pub both_ways: bool,
    /// Where the responder says that it is, until it has answered from there.
    pub provisional: Option<(Path, Nat)>,
    pub newest: Newest,
}

/// Message IDs of the peer's newest requests of a kind. Where several may be under way an older one may
/// come after a newer: what it says of addresses is past (sections 3.5 and 3.6).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Newest {
    /// UPDATE_SA_ADDRESSES.
    pub update: Option<MessageId>,
    /// What other addresses there are.
    pub others: Option<MessageId>,
}

/// Something to ask of the peer when the window allows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Errand {
    /// We are at another address now.
    Update,
    /// Is the peer where it says that it is?
    Routability,
    /// Our other addresses are these.
    Announce,
}

/// A request of ours that is outstanding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    /// For these addresses.
    Update(Path),
    Routability {
        cookie: Vec<u8>,
        path: Path,
        /// It went to another address as well: whoever knows the cookie need not be at this one.
        copied: bool,
    },
    Announce,
}

impl Asked {
    pub fn errand(&self) -> Errand {
        match self {
            Asked::Update(_) => Errand::Update,
            Asked::Routability { .. } => Errand::Routability,
            Asked::Announce => Errand::Announce,
        }
    }
}

/// What we assert in IKE_AUTH; as responder only if the initiator did (section 3.1).
pub(super) fn capabilities(
    connection: &Connection,
    path: Path,
    peer: Option<&Contents<'_>>,
) -> Vec<Payload> {
    let wanted = match (connection.roads.mobike, peer) {
        (Wish::Refuse, _) => false,
        (wish, None) => wish == Wish::Offer,
        (_, Some(contents)) => contents.has(NotifyKind::MOBIKE_SUPPORTED),
    };
    if !wanted {
        return Vec::new();
    }
    let mut payloads = vec![
        Payload::notify(NotifyKind::MOBIKE_SUPPORTED, &[]),
        Payload::notify(NotifyKind::RESPONDER_MOBIKE, RESPONDER_UPDATES),
    ];
    let others = others(connection, path);
    // Nothing to say is said by silence at first (section 3.4).
    if !others.is_empty() {
        payloads.extend(additional(&others));
    }
    payloads
}

/// What both asserted; `None` if either did not.
pub(super) fn negotiated(
    connection: &Connection,
    initiator: bool,
    path: Path,
    peer: &Contents<'_>,
) -> Option<Mobike> {
    let wish = connection.roads.mobike;
    let ours = wish == Wish::Offer || wish == Wish::Accept && !initiator;
    if !ours || !peer.has(NotifyKind::MOBIKE_SUPPORTED) {
        return None;
    }
    let both_ways = peer
        .notify(NotifyKind::RESPONDER_MOBIKE)
        .is_some_and(|n| n.data == RESPONDER_UPDATES);
    let mut mobike = Mobike {
        both_ways,
        ..Mobike::default()
    };
    mobike.note_others(path, peer);
    Some(mobike)
}

impl IkeSa {
    /// Whether we are the initiator of RFC 4555: "the party who originally initiated the first IKE_SA (in
    /// a series of possibly several rekeyed IKE_SAs)" (section 1.3). The flag says who rekeyed last.
    fn began(&self) -> bool {
        self.authenticated.asked
    }
}

impl Mobike {
    /// For a successor, which has Message IDs of its own.
    pub fn handed_on(&self, newest: Newest) -> Mobike {
        Mobike {
            newest,
            ..self.clone()
        }
    }

    /// What a request says of the peer's other addresses.
    fn hear_of_others(&mut self, id: MessageId, path: Path, contents: &Contents<'_>) {
        if names_others(contents) && is_newest(&mut self.newest.others, id) {
            self.note_others(path, contents);
        }
    }

    /// The peer's other addresses: what it says now is all there are (section 3.6).
    fn note_others(&mut self, path: Path, contents: &Contents<'_>) {
        if !names_others(contents) {
            return;
        }
        let octets = contents.notifies.iter();
        let octets = octets.map(|n| (n.kind, n.data.as_slice()));
        let addresses = octets.filter_map(|(kind, data)| match kind {
            NotifyKind::ADDITIONAL_IP4_ADDRESS => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
            NotifyKind::ADDITIONAL_IP6_ADDRESS => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
            _ => None,
        });
        let usable = addresses.filter(|a| is_host(*a) && *a != path.remote.ip());
        self.others = usable.take(ADDRESSES).collect();
    }
}

/// Whether a message says which other addresses there are.
fn names_others(contents: &Contents<'_>) -> bool {
    [
        NotifyKind::ADDITIONAL_IP4_ADDRESS,
        NotifyKind::ADDITIONAL_IP6_ADDRESS,
        NotifyKind::NO_ADDITIONAL_ADDRESSES,
    ]
    .into_iter()
    .any(|kind| contents.has(kind))
}

/// Whether a request is newer than the newest of its kind, which it is then.
fn is_newest(newest: &mut Option<MessageId>, id: MessageId) -> bool {
    let is_newer = newest.is_none_or(|newest| newest < id);
    if is_newer {
        *newest = Some(id);
    }
    is_newer
}

/// Whether an address can be a peer's.
fn is_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(a) if a.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast)
}

/// Our addresses besides the one in use.
fn others(connection: &Connection, path: Path) -> Vec<IpAddr> {
    let ours = connection.local_addrs.iter();
    ours.copied().filter(|a| *a != path.local.ip()).collect()
}

/// All of our other addresses (section 3.6).
fn additional(others: &[IpAddr]) -> Vec<Payload> {
    if others.is_empty() {
        return vec![Payload::notify(NotifyKind::NO_ADDITIONAL_ADDRESSES, &[])];
    }
    let one = |address: &IpAddr| match address {
        IpAddr::V4(a) => Payload::notify(NotifyKind::ADDITIONAL_IP4_ADDRESS, &a.octets()),
        IpAddr::V6(a) => Payload::notify(NotifyKind::ADDITIONAL_IP6_ADDRESS, &a.octets()),
    };
    others.iter().map(one).collect()
}

/// IKE and every Child SA go on between these addresses from now on.
pub(super) fn relocate(ike: &mut IkeSa, turn: &mut Turn<'_>, path: Path, nat: Nat) {
    if (ike.path, ike.nat) == (path, nat) {
        return;
    }
    let moved = ike.path != path;
    (ike.path, ike.nat) = (path, nat);
    turn.dirty = true;
    for child in &mut ike.children {
        let mut sa = (*child.sa).clone();
        sa.relocate(path.local.ip(), path.remote.ip(), nat.encapsulation(path));
        // RFC 3948 section 4: who is behind a NAT keeps its mapping alive.
        let configured = ike.connection.child(&child.name);
        sa.options.keepalive = options(configured, nat, child.no_tfc).keepalive;
        if sa != *child.sa {
            child.sa = Arc::new(sa);
            turn.changes.push(ChildChange::Update(child.sa.clone()));
        }
    }
    if moved {
        turn.events.push(Event::Relocated {
            ike: ike.local_spi,
            local: path.local,
            remote: path.remote,
        });
    }
}

/// The same flow with another address at one end; IKE that moves does so on port 4500 (section 3.3).
fn at(address: IpAddr, before: SocketAddr) -> SocketAddr {
    match before.ip() == address {
        true => before,
        false => SocketAddr::new(address, NAT_PORT),
    }
}
