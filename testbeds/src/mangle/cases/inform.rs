//! An established IKE SA: Message IDs, replays, protection, and INFORMATIONAL. What is authentic
//! and wrong is told (RFC 7296 section 2.21.3), what is not is dropped (section 2.21.4).

use hitless::ike::message::NotifyKind;

use crate::mangle::Case;
use crate::mangle::bed::{Bed, Stage};
use crate::mangle::judge::Expected::{
    self, Again, ChildDeleted, Empty, Gone, OneOf, Refused, RefusedWith, Silence,
};
use crate::mangle::peer::Sealing;
use crate::mangle::wire::{
    self, CRITICAL, Message, PROTOCOL_AH, PROTOCOL_ESP, PROTOCOL_IKE, RESPONSE, Raw, UNKNOWN,
    VENDOR, delete, notify, notify_about,
};

const fn up(
    name: &'static str,
    rfc: &'static str,
    expected: Expected,
    send: fn(&mut Bed) -> Vec<Vec<u8>>,
) -> Case {
    Case {
        name,
        rfc,
        stage: Stage::Established,
        expected,
        send,
    }
}

const INVALID: Expected = Refused(NotifyKind::INVALID_SYNTAX);

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

/// Delete of our half of the Child SA.
fn delete_child(bed: &Bed) -> Raw {
    delete(PROTOCOL_ESP, 4, 1, &bed.peer.esp)
}

pub const CASES: &[Case] = &[
    // Message IDs (RFC 7296 sections 2.2 and 2.3).
    up(
        "a request one ahead of the window",
        "RFC 7296 2.3",
        Silence,
        |bed| header(bed, |m| m.id += 1),
    ),
    up("a request 2^31 ahead", "RFC 7296 2.3", Silence, |bed| {
        header(bed, |m| m.id += 1 << 31)
    }),
    up(
        "Message ID 2^32 - 1 in an IKE SA",
        "RFC 7296 2.2",
        Silence,
        |bed| header(bed, |m| m.id = u32::MAX),
    ),
    up(
        "a request below the window",
        "RFC 7296 2.3",
        Silence,
        |bed| header(bed, |m| m.id = 0),
    ),
    up(
        "another request with the last Message ID",
        "RFC 7296 2.1",
        OneOf(&[Silence, Again]),
        |bed| header(bed, |m| m.id -= 1),
    ),
    up("a replayed request", "RFC 7296 2.1", Again, |bed| {
        let request = inform(bed, vec![Raw::new(VENDOR, [1])]);
        bed.deliver(&request[0]);
        bed.last.1 = bed.sent.last().cloned().unwrap_or_default();
        bed.look();
        bed.peer.next += 1;
        request
    }),
    up(
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
    up("a response to nothing", "RFC 7296 2.21.4", Silence, |bed| {
        header(bed, |m| m.flags |= RESPONSE)
    }),
    // The header.
    up(
        "no initiator flag in an IKE SA",
        "RFC 7296 3.1",
        Silence,
        |bed| header(bed, |m| m.flags = 0),
    ),
    up(
        "reserved flags in an IKE SA",
        "RFC 7296 3.1",
        Empty,
        |bed| header(bed, |m| m.flags |= 0xc7),
    ),
    up(
        "minor version 9 in an IKE SA",
        "RFC 7296 2.5",
        Empty,
        |bed| header(bed, |m| m.version = 0x29),
    ),
    up(
        "major version 3 in an IKE SA",
        "RFC 7296 2.5",
        OneOf(&[
            Silence,
            Expected::InClear(NotifyKind::INVALID_MAJOR_VERSION),
        ]),
        |bed| header(bed, |m| m.version = 0x30),
    ),
    up(
        "a wrong initiator's SPI",
        "RFC 7296 2.21.4",
        Silence,
        |bed| header(bed, |m| m.initiator ^= 1),
    ),
    up(
        "a wrong responder's SPI",
        "RFC 7296 2.21.4",
        Silence,
        |bed| header(bed, |m| m.responder ^= 1),
    ),
    up("both SPIs exchanged", "RFC 7296 2.21.4", Silence, |bed| {
        header(bed, |m| {
            (m.initiator, m.responder) = (m.responder, m.initiator)
        })
    }),
    up(
        "IKE_SA_INIT in an IKE SA",
        "RFC 7296 2.21.3",
        OneOf(&[Silence, INVALID]),
        |bed| header(bed, |m| m.exchange = wire::IKE_SA_INIT),
    ),
    up("IKE_AUTH in an IKE SA", "RFC 7296 2.21.3", INVALID, |bed| {
        header(bed, |m| m.exchange = wire::IKE_AUTH)
    }),
    up(
        "unknown exchange type in an IKE SA",
        "RFC 7296 2.21.3",
        INVALID,
        |bed| header(bed, |m| m.exchange = 240),
    ),
    up(
        "IKE_INTERMEDIATE in an IKE SA",
        "RFC 9242 3.1",
        INVALID,
        |bed| header(bed, |m| m.exchange = 43),
    ),
    up(
        "IKE_FOLLOWUP_KE of nothing",
        "RFC 9370 2.2.4",
        OneOf(&[INVALID, Refused(NotifyKind::STATE_NOT_FOUND)]),
        |bed| header(bed, |m| m.exchange = 44),
    ),
    // The protection.
    up("a wrong ICV", "RFC 7296 2.21.4", Silence, |bed| {
        sealed(
            bed,
            Sealing {
                forged: true,
                ..Sealing::default()
            },
        )
    }),
    up(
        "a wrong ICV around a Delete",
        "RFC 7296 2.21.4",
        Silence,
        |bed| {
            let message = bed
                .peer
                .message(wire::INFORMATIONAL, vec![delete(PROTOCOL_IKE, 0, 0, &[])]);
            vec![bed.peer.seal_as(
                &message,
                Sealing {
                    forged: true,
                    ..Sealing::default()
                },
            )]
        },
    ),
    up(
        "INFORMATIONAL in clear in an IKE SA",
        "RFC 7296 2.21.4",
        Silence,
        |bed| vec![bed.peer.message(wire::INFORMATIONAL, Vec::new()).octets()],
    ),
    up(
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
    up("INVALID_IKE_SPI in clear", "RFC 7296 2.4", Silence, |bed| {
        let mut message = bed.peer.message(wire::INFORMATIONAL, vec![notify(4, &[])]);
        message.flags |= RESPONSE;
        vec![message.octets()]
    }),
    up(
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
    up(
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
    up(
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
    up(
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
    up(
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
    up(
        "an SK payload within the SK payload",
        "RFC 7296 3.14",
        INVALID,
        |bed| inform(bed, vec![Raw::new(wire::SK, [0; 40])]),
    ),
    up("255 octets of padding", "RFC 7296 3.14", Empty, |bed| {
        sealed(
            bed,
            Sealing {
                padding: 255,
                ..Sealing::default()
            },
        )
    }),
    up(
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
    up(
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
    up(
        "unknown critical payload in an IKE SA",
        "RFC 7296 2.5",
        RefusedWith(NotifyKind::UNSUPPORTED_CRITICAL_PAYLOAD, &[UNKNOWN]),
        |bed| inform(bed, vec![Raw::new(UNKNOWN, [1]).flagged(CRITICAL)]),
    ),
    up(
        "unknown payload in an IKE SA, not critical",
        "RFC 7296 2.5",
        Empty,
        |bed| inform(bed, vec![Raw::new(UNKNOWN, [1])]),
    ),
    up(
        "payload length 2 in an IKE SA",
        "RFC 7296 2.21.3",
        INVALID,
        |bed| {
            let mut raw = Raw::new(VENDOR, [1, 2]);
            raw.length = Some(2);
            inform(bed, vec![raw])
        },
    ),
    up(
        "payload length past the end in an IKE SA",
        "RFC 7296 2.21.3",
        INVALID,
        |bed| {
            let mut raw = Raw::new(VENDOR, [1, 2]);
            raw.length = Some(0xffff);
            inform(bed, vec![raw])
        },
    ),
    up(
        "10,000 payloads in an IKE SA",
        "RFC 7296 2.21.3",
        INVALID,
        |bed| inform(bed, vec![Raw::new(VENDOR, []); 10_000]),
    ),
    up(
        "payloads of IKE_AUTH in an INFORMATIONAL",
        "RFC 7296 1.4",
        OneOf(&[Empty, INVALID]),
        |bed| {
            let payloads = bed.peer.auth_payloads();
            inform(bed, payloads)
        },
    ),
    // Notifications.
    up(
        "a notified error of unknown type",
        "RFC 7296 3.10.1",
        Empty,
        |bed| inform(bed, vec![notify(9000, &[])]),
    ),
    up(
        "a notified status of unknown type",
        "RFC 7296 3.10.1",
        Empty,
        |bed| inform(bed, vec![notify(39_999, &[7; 900])]),
    ),
    up(
        "INVALID_SYNTAX notified in a request",
        "RFC 7296 2.21.3",
        Empty,
        |bed| inform(bed, vec![notify(7, &[])]),
    ),
    up(
        "AUTHENTICATION_FAILED in a request",
        "RFC 7296 2.21.3",
        OneOf(&[Empty, Gone]),
        |bed| inform(bed, vec![notify(24, &[])]),
    ),
    up(
        "INVALID_SPI of an SPI that is not known",
        "RFC 7296 1.5",
        Empty,
        |bed| inform(bed, vec![notify(11, &[9, 9, 9, 9])]),
    ),
    up(
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
    up(
        "60 times SET_WINDOW_SIZE of zero",
        "RFC 7296 2.3",
        OneOf(&[Empty, INVALID]),
        |bed| inform(bed, vec![notify(16385, &[0; 4]); 60]),
    ),
    up(
        "SET_WINDOW_SIZE of 3 octets",
        "RFC 7296 2.3",
        Empty,
        |bed| inform(bed, vec![notify(16385, &[0, 0, 9])]),
    ),
    up("Notify of 2 octets", "RFC 7296 2.21.3", INVALID, |bed| {
        inform(bed, vec![Raw::new(wire::NOTIFY, [0, 0])])
    }),
    up(
        "Notify with an SPI past its end",
        "RFC 7296 2.21.3",
        INVALID,
        |bed| inform(bed, vec![Raw::new(wire::NOTIFY, [3, 99, 0x40, 9, 1])]),
    ),
    // Deletes (RFC 7296 sections 1.4.1 and 3.11).
    up("Delete of an unknown SPI", "RFC 7296 1.4.1", Empty, |bed| {
        inform(bed, vec![delete(PROTOCOL_ESP, 4, 1, &[9, 9, 9, 9])])
    }),
    up(
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
    up(
        "Delete of 4,000 unknown SPIs",
        "RFC 7296 1.4.1",
        Empty,
        |bed| inform(bed, vec![delete(PROTOCOL_ESP, 4, 4000, &[7; 16_000])]),
    ),
    up(
        "Delete of no SPI",
        "RFC 7296 3.11",
        OneOf(&[Empty, INVALID]),
        |bed| inform(bed, vec![delete(PROTOCOL_ESP, 4, 0, &[])]),
    ),
    up(
        "Delete with more SPIs counted than there are",
        "RFC 7296 3.11",
        INVALID,
        |bed| inform(bed, vec![delete(PROTOCOL_ESP, 4, 9, &bed.peer.esp.clone())]),
    ),
    up(
        "Delete with fewer SPIs counted than there are",
        "RFC 7296 3.11",
        INVALID,
        |bed| inform(bed, vec![delete(PROTOCOL_ESP, 4, 0, &bed.peer.esp.clone())]),
    ),
    up(
        "Delete with SPIs of 3 octets",
        "RFC 7296 3.11",
        INVALID,
        |bed| inform(bed, vec![delete(PROTOCOL_ESP, 3, 1, &[1, 2, 3])]),
    ),
    up(
        "Delete with SPIs of no octets",
        "RFC 7296 3.11",
        INVALID,
        |bed| inform(bed, vec![delete(PROTOCOL_ESP, 0, 9, &[])]),
    ),
    up("Delete for AH", "RFC 7296 1.4.1", Empty, |bed| {
        inform(bed, vec![delete(PROTOCOL_AH, 4, 1, &bed.peer.esp.clone())])
    }),
    up(
        "Delete for an unknown protocol",
        "RFC 7296 3.11",
        OneOf(&[Empty, INVALID]),
        |bed| inform(bed, vec![delete(99, 4, 1, &[1, 2, 3, 4])]),
    ),
    up(
        "Delete of the IKE SA with an SPI",
        "RFC 7296 3.11",
        OneOf(&[INVALID, Gone]),
        |bed| inform(bed, vec![delete(PROTOCOL_IKE, 8, 1, &[7; 8])]),
    ),
    up("Delete of 3 octets", "RFC 7296 2.21.3", INVALID, |bed| {
        inform(bed, vec![Raw::new(wire::DELETE, [3, 4, 0])])
    }),
    up(
        "Delete of the Child SA",
        "RFC 7296 1.4.1",
        ChildDeleted,
        |bed| inform(bed, vec![delete_child(bed)]),
    ),
    up(
        "Delete of the Child SA, twice in one message",
        "RFC 7296 1.4.1",
        ChildDeleted,
        |bed| inform(bed, vec![delete_child(bed), delete_child(bed)]),
    ),
    up(
        "Delete of the Child SA and of an unknown one",
        "RFC 7296 1.4.1",
        ChildDeleted,
        |bed| {
            let spis = [&bed.peer.esp[..], &[9, 9, 9, 9]].concat();
            inform(bed, vec![delete(PROTOCOL_ESP, 4, 2, &spis)])
        },
    ),
    up("Delete of the IKE SA", "RFC 7296 1.4.1", Gone, |bed| {
        inform(bed, vec![delete(PROTOCOL_IKE, 0, 0, &[])])
    }),
    up(
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
    up(
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
    up(
        "UPDATE_SA_ADDRESSES that was not negotiated",
        "RFC 4555 3.5",
        Empty,
        |bed| inform(bed, vec![notify(16400, &[])]),
    ),
];
