//! An established IKE SA: Message IDs, replays, protection, and INFORMATIONAL. What is authentic
//! and wrong is told (RFC 7296 section 2.21.3), what is not is dropped (section 2.21.4).

use hitless::ike::message::NotifyKind;

use crate::mangle::bed::Bed;
use crate::mangle::judge::Expected::{
    self, Again, ChildDeleted, Empty, Gone, OneOf, Refused, RefusedWith, Silence,
};
use crate::mangle::peer::Sealing;
use crate::mangle::wire::{
    self, CRITICAL, Message, PROTOCOL_AH, PROTOCOL_ESP, PROTOCOL_IKE, RESPONSE, Raw, UNKNOWN,
    VENDOR, delete, notify, notify_about,
};
use crate::mangle::{Case, case};

const INVALID: Expected = Refused(NotifyKind::INVALID_SYNTAX);
/// RFC 7296 section 3.10.1, for whatever has no error of its own: nothing is malformed.
const NOT_AGREED: Expected = Refused(NotifyKind::NO_PROPOSAL_CHOSEN);

/// INFORMATIONAL with these payloads.
pub fn inform(bed: &mut Bed, payloads: Vec<Raw>) -> Vec<Vec<u8>> {
    let message = bed.peer.message(wire::INFORMATIONAL, payloads);
    vec![bed.peer.seal(&message)]
}

/// An empty INFORMATIONAL with another header.
fn header(bed: &mut Bed, change: impl FnOnce(&mut Message)) -> Vec<Vec<u8>> {
    let mut message = bed.peer.message(wire::INFORMATIONAL, Vec::new());
    change(&mut message);
    vec![bed.peer.seal(&message)]
}

/// INFORMATIONAL with something wrong with its SK payload.
fn sealed(bed: &mut Bed, wrong: Sealing) -> Vec<Vec<u8>> {
    let message = bed
        .peer
        .message(wire::INFORMATIONAL, vec![Raw::new(VENDOR, [1, 2])]);
    vec![bed.peer.seal_as(&message, wrong)]
}

/// INFORMATIONAL with a payload of two octets that claims another length.
fn claims(bed: &mut Bed, length: u16) -> Vec<Vec<u8>> {
    let mut raw = Raw::new(VENDOR, [1, 2]);
    raw.length = Some(length);
    inform(bed, vec![raw])
}

/// Delete of our half of the Child SA.
pub(super) fn delete_child(bed: &Bed) -> Raw {
    delete(PROTOCOL_ESP, 4, 1, &bed.peer.esp)
}

pub const ESTABLISHED: &[Case] = &[
    // Message IDs (RFC 7296 sections 2.2 and 2.3).
    case(
        "a request one ahead of the window",
        "RFC 7296 2.3",
        Silence,
        |bed| header(bed, |m| m.id += 1),
    ),
    case("a request 2^31 ahead", "RFC 7296 2.3", Silence, |bed| {
        header(bed, |m| m.id += 1 << 31)
    }),
    case(
        "Message ID 2^32 - 1 in an IKE SA",
        "RFC 7296 2.2",
        Silence,
        |bed| header(bed, |m| m.id = u32::MAX),
    ),
    case(
        "a request below the window",
        "RFC 7296 2.3",
        Silence,
        |bed| header(bed, |m| m.id = 0),
    ),
    case(
        "another request with the last Message ID",
        "RFC 7296 2.1",
        OneOf(&[Silence, Again]),
        |bed| header(bed, |m| m.id -= 1),
    ),
    case("a replayed request", "RFC 7296 2.1", Again, |bed| {
        let request = inform(bed, vec![Raw::new(VENDOR, [1])]);
        bed.deliver(&request[0]);
        bed.last.1 = bed.sent.last().cloned().unwrap_or_default();
        bed.look();
        bed.peer.next += 1;
        request
    }),
    case(
        "a replay from before the last request",
        "RFC 7296 2.3",
        Silence,
        |bed| {
            let old = inform(bed, vec![Raw::new(VENDOR, [1])]);
            bed.deliver(&old[0]);
            bed.peer.next += 1;
            let last = inform(bed, Vec::new());
            bed.deliver(&last[0]);
            bed.peer.next += 1;
            bed.look();
            old
        },
    ),
    case("a response to nothing", "RFC 7296 2.21.4", Silence, |bed| {
        header(bed, |m| m.flags |= RESPONSE)
    }),
    // The header.
    case(
        "no initiator flag in an IKE SA",
        "RFC 7296 3.1",
        Silence,
        |bed| header(bed, |m| m.flags = 0),
    ),
    case(
        "reserved flags in an IKE SA",
        "RFC 7296 3.1",
        Empty,
        |bed| header(bed, |m| m.flags |= 0xc7),
    ),
    case(
        "minor version 9 in an IKE SA",
        "RFC 7296 2.5",
        Empty,
        |bed| header(bed, |m| m.version = 0x29),
    ),
    case(
        "major version 3 in an IKE SA",
        "RFC 7296 2.5",
        OneOf(&[
            Silence,
            Expected::InClear(NotifyKind::INVALID_MAJOR_VERSION),
        ]),
        |bed| header(bed, |m| m.version = 0x30),
    ),
    case(
        "a wrong initiator's SPI",
        "RFC 7296 2.21.4",
        Silence,
        |bed| header(bed, |m| m.initiator ^= 1),
    ),
    case(
        "a wrong responder's SPI",
        "RFC 7296 2.21.4",
        Silence,
        |bed| header(bed, |m| m.responder ^= 1),
    ),
    case("both SPIs exchanged", "RFC 7296 2.21.4", Silence, |bed| {
        header(bed, |m| {
            (m.initiator, m.responder) = (m.responder, m.initiator)
        })
    }),
    case(
        "IKE_SA_INIT in an IKE SA",
        "RFC 7296 3.10.1",
        OneOf(&[Silence, NOT_AGREED]),
        |bed| header(bed, |m| m.exchange = wire::IKE_SA_INIT),
    ),
    case(
        "IKE_AUTH in an IKE SA",
        "RFC 7296 3.10.1",
        NOT_AGREED,
        |bed| header(bed, |m| m.exchange = wire::IKE_AUTH),
    ),
    case(
        "unknown exchange type in an IKE SA",
        "RFC 7296 3.10.1",
        NOT_AGREED,
        |bed| header(bed, |m| m.exchange = 240),
    ),
    case(
        "IKE_INTERMEDIATE in an IKE SA",
        "RFC 9242 3.1",
        NOT_AGREED,
        |bed| header(bed, |m| m.exchange = 43),
    ),
    case(
        "IKE_FOLLOWUP_KE of nothing",
        "RFC 9370 2.2.4",
        OneOf(&[INVALID, Refused(NotifyKind::STATE_NOT_FOUND)]),
        |bed| header(bed, |m| m.exchange = 44),
    ),
    // The protection.
    case("a wrong ICV", "RFC 7296 2.21.4", Silence, |bed| {
        sealed(bed, Sealing::forged())
    }),
    case(
        "a wrong ICV around a Delete",
        "RFC 7296 2.21.4",
        Silence,
        |bed| {
            let message = bed
                .peer
                .message(wire::INFORMATIONAL, vec![delete(PROTOCOL_IKE, 0, 0, &[])]);
            vec![bed.peer.seal_as(&message, Sealing::forged())]
        },
    ),
    case(
        "INFORMATIONAL in clear in an IKE SA",
        "RFC 7296 2.21.4",
        Silence,
        |bed| vec![bed.peer.message(wire::INFORMATIONAL, Vec::new()).octets()],
    ),
    case(
        "Delete of the IKE SA in clear",
        "RFC 7296 2.21.4",
        Silence,
        |bed| {
            vec![
                bed.peer
                    .message(wire::INFORMATIONAL, vec![delete(PROTOCOL_IKE, 0, 0, &[])])
                    .octets(),
            ]
        },
    ),
    case("INVALID_IKE_SPI in clear", "RFC 7296 2.4", Silence, |bed| {
        let mut message = bed.peer.message(wire::INFORMATIONAL, vec![notify(4, &[])]);
        message.flags |= RESPONSE;
        vec![message.octets()]
    }),
    case(
        "AUTHENTICATION_FAILED in clear",
        "RFC 7296 2.21.4",
        Silence,
        |bed| {
            vec![
                bed.peer
                    .message(wire::INFORMATIONAL, vec![notify(24, &[])])
                    .octets(),
            ]
        },
    ),
    case(
        "an SK payload with an octet behind it",
        "RFC 7296 3.14",
        Silence,
        |bed| {
            sealed(
                bed,
                Sealing {
                    behind: vec![0],
                    ..Sealing::default()
                },
            )
        },
    ),
    case(
        "a payload behind the SK payload",
        "RFC 7296 3.14",
        Silence,
        |bed| {
            sealed(
                bed,
                Sealing {
                    behind: vec![0, 0, 0, 8, 1, 2, 3, 4],
                    ..Sealing::default()
                },
            )
        },
    ),
    case(
        "SK payload longer than the message",
        "RFC 7296 3.2",
        Silence,
        |bed| {
            sealed(
                bed,
                Sealing {
                    length: Some(9000),
                    ..Sealing::default()
                },
            )
        },
    ),
    case(
        "an unprotected Delete in front of the SK payload",
        "RFC 7296 3.14",
        OneOf(&[Silence, Empty]),
        |bed| {
            let before = vec![delete(PROTOCOL_IKE, 0, 0, &[])];
            sealed(
                bed,
                Sealing {
                    before,
                    ..Sealing::default()
                },
            )
        },
    ),
    case(
        "an SK payload within the SK payload",
        "RFC 7296 3.14",
        INVALID,
        |bed| inform(bed, vec![Raw::new(wire::SK, [0; 40])]),
    ),
    case("255 octets of padding", "RFC 7296 3.14", Empty, |bed| {
        sealed(
            bed,
            Sealing {
                padding: 255,
                ..Sealing::default()
            },
        )
    }),
    case(
        "pad length past the content of a request",
        "RFC 7296 2.21.3",
        INVALID,
        |bed| {
            sealed(
                bed,
                Sealing {
                    content: Some(vec![0; 3]),
                    pad_length: Some(4),
                    ..Sealing::default()
                },
            )
        },
    ),
    case(
        "an empty SK payload that promises a payload",
        "RFC 7296 2.21.3",
        INVALID,
        |bed| {
            sealed(
                bed,
                Sealing {
                    content: Some(Vec::new()),
                    ..Sealing::default()
                },
            )
        },
    ),
    // The payloads inside.
    case(
        "unknown critical payload in an IKE SA",
        "RFC 7296 2.5",
        RefusedWith(NotifyKind::UNSUPPORTED_CRITICAL_PAYLOAD, &[UNKNOWN]),
        |bed| inform(bed, vec![Raw::new(UNKNOWN, [1]).flagged(CRITICAL)]),
    ),
    case(
        "unknown payload in an IKE SA, not critical",
        "RFC 7296 2.5",
        Empty,
        |bed| inform(bed, vec![Raw::new(UNKNOWN, [1])]),
    ),
    case(
        "payload length 2 in an IKE SA",
        "RFC 7296 2.21.3",
        INVALID,
        |bed| claims(bed, 2),
    ),
    case(
        "payload length past the end in an IKE SA",
        "RFC 7296 2.21.3",
        INVALID,
        |bed| claims(bed, 0xffff),
    ),
    case(
        "10,000 payloads in an IKE SA",
        "RFC 7296 2.21.3",
        Refused(NotifyKind::NO_PROPOSAL_CHOSEN),
        |bed| inform(bed, vec![Raw::new(VENDOR, []); 10_000]),
    ),
    case(
        "payloads of IKE_AUTH in an INFORMATIONAL",
        "RFC 7296 1.4",
        OneOf(&[Empty, INVALID]),
        |bed| {
            let payloads = bed.peer.auth_payloads();
            inform(bed, payloads)
        },
    ),
    // Notifications.
    case(
        "a notified error of unknown type",
        "RFC 7296 3.10.1",
        Empty,
        |bed| inform(bed, vec![notify(9000, &[])]),
    ),
    case(
        "a notified status of unknown type",
        "RFC 7296 3.10.1",
        Empty,
        |bed| inform(bed, vec![notify(39_999, &[7; 900])]),
    ),
    case(
        "INVALID_SYNTAX notified in a request",
        "RFC 7296 2.21.3",
        Empty,
        |bed| inform(bed, vec![notify(7, &[])]),
    ),
    case(
        "AUTHENTICATION_FAILED in a request",
        "RFC 7296 2.21.2",
        Gone,
        |bed| inform(bed, vec![notify(24, &[])]),
    ),
    case(
        "INVALID_SPI of an SPI that is not known",
        "RFC 7296 1.5",
        Empty,
        |bed| inform(bed, vec![notify(11, &[9, 9, 9, 9])]),
    ),
    case(
        "INVALID_SELECTORS of 3 octets",
        "RFC 7296 3.10.1",
        Empty,
        |bed| {
            inform(
                bed,
                vec![notify_about(PROTOCOL_ESP, &[1, 2, 3, 4], 39, &[0, 1, 2])],
            )
        },
    ),
    case(
        "60 times SET_WINDOW_SIZE of zero",
        "RFC 7296 2.3",
        OneOf(&[Empty, INVALID]),
        |bed| inform(bed, vec![notify(16385, &[0; 4]); 60]),
    ),
    case(
        "SET_WINDOW_SIZE of 3 octets",
        "RFC 7296 2.3",
        Empty,
        |bed| inform(bed, vec![notify(16385, &[0, 0, 9])]),
    ),
    case("Notify of 2 octets", "RFC 7296 2.21.3", INVALID, |bed| {
        inform(bed, vec![Raw::new(wire::NOTIFY, [0, 0])])
    }),
    case(
        "Notify with an SPI past its end",
        "RFC 7296 2.21.3",
        INVALID,
        |bed| inform(bed, vec![Raw::new(wire::NOTIFY, [3, 99, 0x40, 9, 1])]),
    ),
    // Deletes (RFC 7296 sections 1.4.1 and 3.11).
    case("Delete of an unknown SPI", "RFC 7296 1.4.1", Empty, |bed| {
        inform(bed, vec![delete(PROTOCOL_ESP, 4, 1, &[9, 9, 9, 9])])
    }),
    case(
        "Delete of the gateway's SPI, not ours",
        "RFC 7296 1.4.1",
        Empty,
        |bed| {
            inform(
                bed,
                vec![delete(PROTOCOL_ESP, 4, 1, &bed.peer.other_esp.clone())],
            )
        },
    ),
    case(
        "Delete of 4,000 unknown SPIs",
        "RFC 7296 1.4.1",
        Empty,
        |bed| inform(bed, vec![delete(PROTOCOL_ESP, 4, 4000, &[7; 16_000])]),
    ),
    case(
        "Delete of no SPI",
        "RFC 7296 3.11",
        OneOf(&[Empty, INVALID]),
        |bed| inform(bed, vec![delete(PROTOCOL_ESP, 4, 0, &[])]),
    ),
    case(
        "Delete with more SPIs counted than there are",
        "RFC 7296 3.11",
        INVALID,
        |bed| inform(bed, vec![delete(PROTOCOL_ESP, 4, 9, &bed.peer.esp.clone())]),
    ),
    case(
        "Delete with fewer SPIs counted than there are",
        "RFC 7296 3.11",
        INVALID,
        |bed| inform(bed, vec![delete(PROTOCOL_ESP, 4, 0, &bed.peer.esp.clone())]),
    ),
    case(
        "Delete with SPIs of 3 octets",
        "RFC 7296 3.11",
        INVALID,
        |bed| inform(bed, vec![delete(PROTOCOL_ESP, 3, 1, &[1, 2, 3])]),
    ),
    case(
        "Delete with SPIs of no octets",
        "RFC 7296 3.11",
        INVALID,
        |bed| inform(bed, vec![delete(PROTOCOL_ESP, 0, 9, &[])]),
    ),
    case("Delete for AH", "RFC 7296 1.4.1", Empty, |bed| {
        inform(bed, vec![delete(PROTOCOL_AH, 4, 1, &bed.peer.esp.clone())])
    }),
    case(
        "Delete for an unknown protocol",
        "RFC 7296 3.11",
        OneOf(&[Empty, INVALID]),
        |bed| inform(bed, vec![delete(99, 4, 1, &[1, 2, 3, 4])]),
    ),
    case(
        "Delete of the IKE SA with an SPI",
        "RFC 7296 3.11",
        OneOf(&[INVALID, Gone]),
        |bed| inform(bed, vec![delete(PROTOCOL_IKE, 8, 1, &[7; 8])]),
    ),
    case("Delete of 3 octets", "RFC 7296 2.21.3", INVALID, |bed| {
        inform(bed, vec![Raw::new(wire::DELETE, [3, 4, 0])])
    }),
    case(
        "Delete of the Child SA",
        "RFC 7296 1.4.1",
        ChildDeleted,
        |bed| inform(bed, vec![delete_child(bed)]),
    ),
    case(
        "Delete of the Child SA, twice in one message",
        "RFC 7296 1.4.1",
        ChildDeleted,
        |bed| inform(bed, vec![delete_child(bed), delete_child(bed)]),
    ),
    case(
        "Delete of the Child SA and of an unknown one",
        "RFC 7296 1.4.1",
        ChildDeleted,
        |bed| {
            let spis = [&bed.peer.esp[..], &[9, 9, 9, 9]].concat();
            inform(bed, vec![delete(PROTOCOL_ESP, 4, 2, &spis)])
        },
    ),
    case("Delete of the IKE SA", "RFC 7296 1.4.1", Gone, |bed| {
        inform(bed, vec![delete(PROTOCOL_IKE, 0, 0, &[])])
    }),
    case(
        "Delete of the IKE SA and of its Child SA",
        "RFC 7296 1.4.1",
        Gone,
        |bed| {
            inform(
                bed,
                vec![delete_child(bed), delete(PROTOCOL_IKE, 0, 0, &[])],
            )
        },
    ),
    // RFC 6311, which was not negotiated here.
    case(
        "IKEV2_MESSAGE_ID_SYNC that was not negotiated",
        "RFC 6311 5.1",
        OneOf(&[Silence, Empty]),
        |bed| {
            let sync = notify(16422, &[0, 0, 0, 1, 0, 0, 0, 99, 0, 0, 0, 99]);
            let mut message = bed.peer.message(wire::INFORMATIONAL, vec![sync]);
            message.id = 0;
            vec![bed.peer.seal(&message)]
        },
    ),
    case(
        "UPDATE_SA_ADDRESSES that was not negotiated",
        "RFC 4555 3.5",
        Empty,
        |bed| inform(bed, vec![notify(16400, &[])]),
    ),
];
