//! Fragments that are wrong (RFC 7383 sections 2.5 and 2.6): each is dropped for itself, and the
//! message that they should have made is answered when the right ones are there.

use hitless::ike::message::NotifyKind;

use crate::mangle::bed::Bed;
use crate::mangle::judge::Expected::{self, Again, Empty, OneOf, Refused, Silence, Usual};
use crate::mangle::peer::Sealing;
use crate::mangle::wire::{self, Raw, VENDOR};
use crate::mangle::{Case, Send, case};

/// Most are of one section.
const fn part(name: &'static str, expected: Expected, send: Send) -> Case {
    case(name, "RFC 7383 2.6", expected, send)
}

/// The content of an INFORMATIONAL with one payload that the gateway ignores.
fn content() -> (u8, Vec<u8>) {
    wire::chain(&[Raw::new(VENDOR, [7; 300])])
}

/// One fragment of a request with other content.
fn piece(bed: &mut Bed, place: (u16, u16), first: u8, content: &[u8]) -> Vec<u8> {
    let message = bed.peer.message(wire::INFORMATIONAL, Vec::new());
    let sealing = Sealing {
        place: Some(place),
        first: Some(first),
        content: Some(content.to_vec()),
        ..Sealing::default()
    };
    bed.peer.seal_as(&message, sealing)
}

/// The request in so many fragments.
fn cut(bed: &mut Bed, total: u16) -> Vec<Vec<u8>> {
    let (first, content) = content();
    let length = content.len().div_ceil(usize::from(total));
    let parts: Vec<&[u8]> = content.chunks(length).collect();
    let mut out = Vec::new();
    for (number, part) in (1..=total).zip(parts) {
        let first = if number == 1 { first } else { 0 };
        out.push(piece(bed, (number, total), first, part));
    }
    out
}

/// One bit of the ICV is wrong.
fn spoil(datagram: &mut [u8]) {
    if let Some(octet) = datagram.last_mut() {
        *octet ^= 1;
    }
}

/// Delivers datagrams that no answer follows yet, and forgets why they were dropped.
fn early(bed: &mut Bed, datagrams: &[Vec<u8>]) {
    for datagram in datagrams {
        bed.deliver(datagram);
    }
}

/// IKE_AUTH in two fragments.
fn auth(bed: &mut Bed) -> Vec<Vec<u8>> {
    let message = bed.peer.message(wire::IKE_AUTH, bed.peer.auth_payloads());
    let (first, content) = wire::chain(&message.payloads);
    let (one, two) = content.split_at(content.len() / 2);
    let mut out = Vec::new();
    for (number, first, part) in [(1, first, one), (2, 0, two)] {
        let sealing = Sealing {
            place: Some((number, 2)),
            first: Some(first),
            content: Some(part.to_vec()),
            ..Sealing::default()
        };
        out.push(bed.peer.seal_as(&message, sealing));
    }
    out
}

pub const ESTABLISHED: &[Case] = &[
    part("three fragments", Empty, |bed| cut(bed, 3)),
    part("fragments in reverse order", Empty, |bed| {
        cut(bed, 5).into_iter().rev().collect()
    }),
    part("one fragment of one", Empty, |bed| cut(bed, 1)),
    part("fragment number 0", Silence, |bed| {
        vec![piece(bed, (0, 2), VENDOR, &[1, 2])]
    }),
    part("fragment number above the total", Silence, |bed| {
        vec![piece(bed, (3, 2), VENDOR, &[1, 2])]
    }),
    part("no fragments in total", Silence, |bed| {
        vec![piece(bed, (0, 0), VENDOR, &[1, 2])]
    }),
    part("65,535 fragments in total", Silence, |bed| {
        vec![piece(bed, (1, 65_535), VENDOR, &[1, 2])]
    }),
    part("a fragment with a wrong ICV", Silence, |bed| {
        let mut datagrams = cut(bed, 2);
        datagrams.truncate(1);
        spoil(&mut datagrams[0]);
        datagrams
    }),
    part(
        "a fragment with a wrong ICV before the right ones",
        Empty,
        |bed| {
            let datagrams = cut(bed, 2);
            let mut forged = datagrams[1].clone();
            spoil(&mut forged);
            early(bed, &[forged]);
            datagrams
        },
    ),
    part("a fragment twice", Empty, |bed| {
        let datagrams = cut(bed, 3);
        vec![
            datagrams[0].clone(),
            datagrams[0].clone(),
            datagrams[1].clone(),
            datagrams[2].clone(),
        ]
    }),
    part("a fragment number twice with other content", Empty, |bed| {
        let datagrams = cut(bed, 3);
        let other = piece(bed, (1, 3), VENDOR, &[0xff; 90]);
        vec![
            datagrams[0].clone(),
            other,
            datagrams[1].clone(),
            datagrams[2].clone(),
        ]
    }),
    part("a coarser division after a finer one", Empty, |bed| {
        let (coarse, fine) = (cut(bed, 2), cut(bed, 4));
        early(bed, &fine[..3]);
        early(bed, &coarse);
        vec![fine[3].clone()]
    }),
    part("a finer division after a coarser one", Empty, |bed| {
        let (coarse, fine) = (cut(bed, 2), cut(bed, 4));
        early(bed, &coarse[..1]);
        fine
    }),
    part("the whole message after some fragments", Empty, |bed| {
        let datagrams = cut(bed, 2);
        early(bed, &datagrams[..1]);
        let message = bed
            .peer
            .message(wire::INFORMATIONAL, vec![Raw::new(VENDOR, [7; 300])]);
        vec![bed.peer.seal(&message)]
    }),
    part("a fragment of another exchange", Empty, |bed| {
        let datagrams = cut(bed, 2);
        early(bed, &datagrams[..1]);
        let mut message = bed.peer.message(wire::INFORMATIONAL, Vec::new());
        message.exchange = wire::CREATE_CHILD_SA;
        let sealing = Sealing {
            place: Some((2, 2)),
            content: Some(vec![1; 9]),
            ..Sealing::default()
        };
        let foreign = bed.peer.seal_as(&message, sealing);
        early(bed, &[foreign]);
        vec![datagrams[1].clone()]
    }),
    part("a fragment ahead of the window", Silence, |bed| {
        bed.peer.next += 1;
        let ahead = cut(bed, 2);
        bed.peer.next -= 1;
        ahead
    }),
    part("fragments of an answered request", Again, |bed| {
        let datagrams = cut(bed, 3);
        early(bed, &datagrams);
        bed.last.1 = bed.sent.last().cloned().unwrap_or_default();
        bed.look();
        bed.peer.next += 1;
        datagrams
    }),
    part("the first fragment of one of two", Expected::Quiet, |bed| {
        vec![cut(bed, 2).remove(0)]
    }),
    part("the other fragments say what comes first", Empty, |bed| {
        let (first, content) = content();
        let (one, two) = content.split_at(100);
        vec![
            piece(bed, (1, 2), first, one),
            piece(bed, (2, 2), wire::DELETE, two),
        ]
    }),
    part("a fragment with nothing in it", Empty, |bed| {
        let (first, content) = content();
        vec![
            piece(bed, (1, 2), first, &content),
            piece(bed, (2, 2), 0, &[]),
        ]
    }),
    part(
        "fragments of a malformed message",
        Refused(NotifyKind::INVALID_SYNTAX),
        |bed| {
            vec![
                piece(bed, (1, 2), VENDOR, &[0, 0, 0xff]),
                piece(bed, (2, 2), 0, &[0xff]),
            ]
        },
    ),
    part(
        "a payload in front of a fragment",
        OneOf(&[Silence, Empty]),
        |bed| {
            let message = bed.peer.message(wire::INFORMATIONAL, Vec::new());
            let before = vec![Raw::new(VENDOR, [1])];
            let sealing = Sealing {
                place: Some((1, 1)),
                before,
                ..Sealing::default()
            };
            vec![bed.peer.seal_as(&message, sealing)]
        },
    ),
    part("an octet behind a fragment", Silence, |bed| {
        let message = bed.peer.message(wire::INFORMATIONAL, Vec::new());
        let sealing = Sealing {
            place: Some((1, 1)),
            behind: vec![0],
            ..Sealing::default()
        };
        vec![bed.peer.seal_as(&message, sealing)]
    }),
    part("an SKF payload of 3 octets", Silence, |bed| {
        vec![
            bed.peer
                .message(wire::INFORMATIONAL, vec![Raw::new(wire::SKF, [0, 1, 0])])
                .octets(),
        ]
    }),
    part(
        "128 fragments of 65 KiB in all",
        OneOf(&[Silence, Refused(NotifyKind::INVALID_SYNTAX)]),
        |bed| {
            (1..=128)
                .map(|number| piece(bed, (number, 128), VENDOR, &[0; 600]))
                .collect()
        },
    ),
];

pub const HALF_OPEN: &[Case] = &[
    // A daemon's packet path has no room for it, which is said as such.
    case(
        "IKE_AUTH of 60,000 octets, whole",
        "RFC 7296 3.12",
        Usual,
        |bed| {
            let mut payloads = bed.peer.auth_payloads();
            payloads.push(Raw::new(VENDOR, vec![7; 60_000]));
            let message = bed.peer.message(wire::IKE_AUTH, payloads);
            vec![bed.peer.seal(&message)]
        },
    ),
    part("IKE_AUTH in fragments", Usual, auth),
    part("a fragment of IKE_AUTH with a wrong ICV", Silence, |bed| {
        let mut datagrams = auth(bed);
        datagrams.truncate(1);
        spoil(&mut datagrams[0]);
        datagrams
    }),
    part(
        "a fragment of IKE_AUTH with number 9 of 2",
        Silence,
        |bed| {
            let message = bed.peer.message(wire::IKE_AUTH, bed.peer.auth_payloads());
            let sealing = Sealing {
                place: Some((9, 2)),
                ..Sealing::default()
            };
            vec![bed.peer.seal_as(&message, sealing)]
        },
    ),
];

pub const NOTHING: &[Case] = &[case(
    "fragments that were not negotiated",
    "RFC 7383 2.3",
    Silence,
    |bed| {
        let mut message = bed.peer.init();
        message.payloads.truncate(3);
        let request = message.octets();
        bed.peer.sent_init(&request);
        bed.deliver(&request);
        let answer = bed.sent.last().cloned().unwrap_or_default();
        bed.peer.learn(&answer);
        bed.look();
        auth(bed)
    },
)];
