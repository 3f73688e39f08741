//! Requests to a gateway that waits for the answer to its own: what goes with that is answered as ever,
//! what does not go with it meets TEMPORARY_FAILURE (RFC 7296 section 2.25).

use hitless::ike::message::NotifyKind;

use crate::mangle::bed::Bed;
use crate::mangle::judge::Expected::{self, ChildDeleted, Empty, Gone, Refused, Usual};
use crate::mangle::peer::{OUR_NET, THEIR_NET};
use crate::mangle::wire::{
    self, PROTOCOL_ESP, PROTOCOL_IKE, Raw, TSI, TSR, delete, notify_about, selector,
    traffic_selectors,
};
use crate::mangle::{Case, case};

const LATER: Expected = Refused(NotifyKind::TEMPORARY_FAILURE);
/// REKEY_SA.
const REKEY: u16 = 16393;

fn request(bed: &mut Bed, exchange: u8, payloads: Vec<Raw>) -> Vec<Vec<u8>> {
    let message = bed.peer.message(exchange, payloads);
    vec![bed.peer.seal(&message)]
}

/// CREATE_CHILD_SA for a Child SA, with these payloads in front.
fn create(bed: &mut Bed, front: Vec<Raw>) -> Vec<Vec<u8>> {
    bed.peer.esp[3] ^= 1;
    let mut payloads = bed.peer.create_payloads();
    bed.peer.esp[3] ^= 1;
    // Who asks is the initiator of the exchange.
    payloads[1] = traffic_selectors(TSI, 1, &[selector(OUR_NET.0, OUR_NET.1)]);
    payloads[2] = traffic_selectors(TSR, 1, &[selector(THEIR_NET.0, THEIR_NET.1)]);
    request(bed, wire::CREATE_CHILD_SA, [front, payloads].concat())
}

fn rekey_child(bed: &mut Bed) -> Vec<Vec<u8>> {
    let about = notify_about(PROTOCOL_ESP, &bed.peer.esp, REKEY, &[]);
    create(bed, vec![about])
}

fn rekey_ike(bed: &mut Bed) -> Vec<Vec<u8>> {
    let payloads = bed.peer.rekey_payloads(&[7; 8]);
    request(bed, wire::CREATE_CHILD_SA, payloads)
}

fn close_child(bed: &mut Bed) -> Vec<Vec<u8>> {
    let ours = delete(PROTOCOL_ESP, 4, 1, &bed.peer.esp.clone());
    request(bed, wire::INFORMATIONAL, vec![ours])
}

fn close_ike(bed: &mut Bed) -> Vec<Vec<u8>> {
    let all = delete(PROTOCOL_IKE, 0, 0, &[]);
    request(bed, wire::INFORMATIONAL, vec![all])
}

fn life(bed: &mut Bed) -> Vec<Vec<u8>> {
    request(bed, wire::INFORMATIONAL, Vec::new())
}

/// While it creates a Child SA.
pub const ASKED_CHILD: &[Case] = &[
    case("a new Child SA crosses", "RFC 7296 1.3.1", Usual, |bed| {
        create(bed, Vec::new())
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

/// While it rekeys the IKE SA.
pub const ASKED_REKEY: &[Case] = &[
    case("a new Child SA crosses", "RFC 7296 2.25.2", LATER, |bed| {
        create(bed, Vec::new())
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
pub const ASKED_LIFE: &[Case] = &[
    case(
        "a question for a sign of life crosses",
        "RFC 7296 1.4",
        Empty,
        life,
    ),
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
