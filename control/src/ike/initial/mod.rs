//! IKE_SA_INIT and IKE_AUTH (RFC 7296 sections 1.2, 2.1, 2.6, 2.15).
//!
//! Half-open IKE SAs live here until both sides are authenticated. They are not replicated: a peer
//! whose initial exchange a failover interrupts starts it again, and is told so (`disowned.rs`).

mod disowned;
mod half_open;
mod initiator;
mod initiators;
mod responder;

use hitless_sa::SaId;

pub(super) use half_open::HalfOpen;
pub(super) use initiator::Initiator;
pub(super) use initiators::Initiators;
pub(super) use responder::{Admission, LoginStands, Responder, stateless};

use super::child::{self, Making, Terms};
use super::contents::Contents;
use super::established::IkeSa;
use super::fragments::Fragmenting;
use super::message::{NotifyKind, Payload};
use super::nat::Path;
use super::output::Event;
use super::proposal::Identification;
use super::settings::Connection;
use super::turn::Turn;

/// What a message did to a half-open IKE SA.
pub(super) enum Progress {
    Waiting,
    Established(Box<IkeSa>),
    /// It is over; the `children` are to be tried again later.
    Failed,
}

/// Whether a connection is meant for this pair of addresses.
pub(super) fn addresses_match(connection: &Connection, path: Path) -> bool {
    let remote =
        connection.remote_addrs.is_empty() || connection.remote_addrs.contains(&path.remote.ip());
    remote && connection.local_addrs.contains(&path.local.ip())
}

/// What IKE_SA_INIT says that we support, for the connections that the peer may be meant by.
fn extensions<'c>(connections: impl Iterator<Item = &'c Connection> + Clone) -> Vec<Payload> {
    let mut kinds = Vec::new();
    if connections.clone().any(|c| c.fragmentation.negotiates()) {
        kinds.push(NotifyKind::IKEV2_FRAGMENTATION_SUPPORTED);
    }
    // RFC 9370 section 2.2.1: whoever proposes additional key exchanges says so.
    let hybrid = |c: &Connection| c.proposals.iter().any(|p| !p.additional.is_empty());
    if connections.clone().any(hybrid) {
        kinds.push(NotifyKind::INTERMEDIATE_EXCHANGE_SUPPORTED);
    }
    let payloads = kinds.into_iter().map(|kind| Payload::notify(kind, &[]));
    payloads.collect()
}

/// What a connection and what the peer says make of fragments (RFC 7383 section 2.3).
fn fragmenting(connection: &Connection, contents: &Contents<'_>) -> Fragmenting {
    let theirs = contents.has(NotifyKind::IKEV2_FRAGMENTATION_SUPPORTED);
    Fragmenting::new(connection, theirs)
}

/// Our identity: the configured one, or our address.
pub(super) fn local_identity(connection: &Connection, path: Path) -> Identification {
    match &connection.local_id {
        Identification::Any => Identification::Address(path.local.ip()),
        id => id.clone(),
    }
}

/// Whether an identity is one peer's, and not a pattern for many.
fn is_specific(id: &Identification) -> bool {
    match id {
        Identification::Any => false,
        Identification::Fqdn(name) | Identification::Email(name) => !name.starts_with('*'),
        Identification::Dn(name) => !name.is_pattern(),
        _ => true,
    }
}

/// Nonces of the initial exchange, from which the first Child SA's keys come too.
struct Nonces {
    initiator: Vec<u8>,
    responder: Vec<u8>,
}

/// Installs the Child SA of IKE_AUTH (RFC 7296 sections 1.2 and 2.17).
fn install_first(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    nonces: &Nonces,
    terms: Terms,
    (id, spi): (SaId, hitless_sa::Spi),
) {
    let (to_responder, to_initiator) = ike.keys.child_keys(
        None,
        (&nonces.initiator, &nonces.responder),
        &[],
        terms.proposal.suite,
    );
    let (inbound_key, outbound_key) = if ike.initiator {
        (to_initiator, to_responder)
    } else {
        (to_responder, to_initiator)
    };
    turn.events.push(Event::ChildEstablished {
        ike: ike.local_spi,
        sa: id,
        child: terms.name.clone(),
    });
    let making = Making {
        id,
        spi,
        inbound_key,
        outbound_key,
        replaces: None,
    };
    let name = terms.name.clone();
    child::install(ike, turn, terms, making, true);
    if ike.initiator {
        crate::ike::resource::go_on(ike, turn, &name);
    }
}
