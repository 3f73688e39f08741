//! Requests to a gateway that waits for the answer to its own: what goes with that is answered as ever,
//! what does not go with it meets TEMPORARY_FAILURE (RFC 7296 section 2.25).

use hitless::ike::message::NotifyKind;

use super::create::{REKEY, create, ike};
use super::inform::{delete_child, inform};
use crate::mangle::bed::Bed;
use crate::mangle::judge::Expected::{self, ChildDeleted, Empty, Gone, Refused, Usual};
use crate::mangle::peer::{OUR_NET, THEIR_NET};
use crate::mangle::wire::{
    PROTOCOL_ESP, PROTOCOL_IKE, Raw, TSI, TSR, delete, notify_about, selector, traffic_selectors,
};
use crate::mangle::{Case, case};

const LATER: Expected = Refused(NotifyKind::TEMPORARY_FAILURE);

/// CREATE_CHILD_SA for a Child SA, with these payloads in front.
fn create_child(bed: &mut Bed, front: Vec<Raw>) -> Vec<Vec<u8>> {
    create(bed, |payloads| {
        // Who asks is the initiator of the exchange.
        payloads[1] = traffic_selectors(TSI, 1, &[selector(OUR_NET.0, OUR_NET.1)]);
        payloads[2] = traffic_selectors(TSR, 1, &[selector(THEIR_NET.0, THEIR_NET.1)]);
        payloads.splice(0..0, front);
    })
}

fn rekey_child(bed: &mut Bed) -> Vec<Vec<u8>> {
    let about = notify_about(PROTOCOL_ESP, &bed.peer.esp, REKEY, &[]);
    create_child(bed, vec![about])
}

fn rekey_ike(bed: &mut Bed) -> Vec<Vec<u8>> {
    ike(bed, &[7; 8], |_| {})
}

fn close_child(bed: &mut Bed) -> Vec<Vec<u8>> {
    inform(bed, vec![delete_child(bed)])
}

fn close_ike(bed: &mut Bed) -> Vec<Vec<u8>> {
    inform(bed, vec![delete(PROTOCOL_IKE, 0, 0, &[])])
}

/// While it creates a Child SA, and while it asks for a sign of life.
pub const CLOSED: &[Case] = &[
    case(
        "a Delete of a Child SA crosses",
        "RFC 7296 1.4.1",
        ChildDeleted,
        close_child,
    ),
    case(
        "a Delete of the IKE SA crosses",
        "RFC 7296 1.4.1",
        Gone,
        close_ike,
    ),
];

/// While it creates a Child SA.
pub const ASKED_CHILD: &[Case] = &[
    case("a new Child SA crosses", "RFC 7296 1.3.1", Usual, |bed| {
        create_child(bed, Vec::new())
    }),
    case(
        "rekeying of a Child SA crosses",
        "RFC 7296 1.3.3",
        Usual,
        rekey_child,
    ),
    case(
        "rekeying of the IKE SA crosses",
        "RFC 7296 2.25.2",
        LATER,
        rekey_ike,
    ),
];

/// While it rekeys the IKE SA.
pub const ASKED_REKEY: &[Case] = &[
    case("a new Child SA crosses", "RFC 7296 2.25.2", LATER, |bed| {
        create_child(bed, Vec::new())
    }),
    case(
        "rekeying of a Child SA crosses",
        "RFC 7296 2.25.2",
        LATER,
        rekey_child,
    ),
    case(
        "rekeying of the IKE SA crosses",
        "RFC 7296 2.8.2",
        Usual,
        rekey_ike,
    ),
    case(
        "a Delete of a Child SA crosses",
        "RFC 7296 2.25.2",
        ChildDeleted,
        close_child,
    ),
    case(
        "a Delete of the IKE SA crosses",
        "RFC 7296 2.25.2",
        Gone,
        close_ike,
    ),
];

/// While it asks for a sign of life.
pub const ASKED_LIFE: &[Case] = &[case(
    "a question for a sign of life crosses",
    "RFC 7296 1.4",
    Empty,
    |bed| inform(bed, Vec::new()),
)];
