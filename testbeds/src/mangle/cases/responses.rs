//! Wrong responses to a gateway that initiates, under the keys of the IKE SA. What is not authentic
//! is dropped, and the honest response counts. What is authentic and unusable fails the exchange, and
//! what the other end believes in meanwhile is deleted (RFC 7296 section 2.21.2).

use super::auth::{auth, header};
use crate::mangle::bed::Bed;
use crate::mangle::judge::Expected::{
    Accepted, FailedAlive, FailedChildless, FailedGone, OneOf, Quiet, Silence, WithdrawnChild,
    WithdrawnIke,
};
use crate::mangle::peer::{GROUP, Peer, SECRET, Sealing, esp_transforms};
use crate::mangle::wire::{
    self, AUTH, CRITICAL, INITIATOR, Message, PROTOCOL_ESP, Raw, TSI, UNKNOWN, aes_gcm, delete,
    notify, proposal, security_association, selector, traffic_selectors, transform,
};
use crate::mangle::{Case, case};

/// A CREATE_CHILD_SA response with other payloads: SA, TSi, TSr, Nonce, KE.
fn child(bed: &mut Bed, change: impl FnOnce(&mut Vec<Raw>)) -> Vec<Vec<u8>> {
    bed.peer.esp[3] ^= 1;
    let payloads = bed.peer.create_payloads();
    created(bed, payloads, change)
}

/// A response to the rekeying of the IKE SA: SA, Nonce, KE.
fn new_ike(bed: &mut Bed, spi: &[u8], change: impl FnOnce(&mut Vec<Raw>)) -> Vec<Vec<u8>> {
    let payloads = bed.peer.rekey_payloads(spi);
    created(bed, payloads, change)
}

fn created(
    bed: &mut Bed,
    mut payloads: Vec<Raw>,
    change: impl FnOnce(&mut Vec<Raw>),
) -> Vec<Vec<u8>> {
    change(&mut payloads);
    let message = bed
        .peer
        .answer(wire::CREATE_CHILD_SA, bed.asked(), payloads);
    vec![bed.peer.seal(&message)]
}

/// An INFORMATIONAL response.
fn life(bed: &mut Bed, payloads: Vec<Raw>, change: impl FnOnce(&mut Message)) -> Vec<Vec<u8>> {
    let mut message = bed.peer.answer(wire::INFORMATIONAL, bed.asked(), payloads);
    change(&mut message);
    vec![bed.peer.seal(&message)]
}

pub const ASKED_AUTH: &[Case] = &[
    // IKE_AUTH.
    case(
        "a wrong ICV in the IKE_AUTH response",
        "RFC 7296 2.21.2",
        Silence,
        |b| {
            let message = b.peer.message(wire::IKE_AUTH, b.peer.auth_payloads());
            vec![b.peer.seal_as(&message, Sealing::forged())]
        },
    ),
    case(
        "AUTHENTICATION_FAILED in clear to IKE_AUTH",
        "RFC 7296 2.21.2",
        Silence,
        |b| {
            vec![
                b.peer
                    .message(wire::IKE_AUTH, vec![notify(24, &[])])
                    .octets(),
            ]
        },
    ),
    case(
        "Message ID 2 in the IKE_AUTH response",
        "RFC 7296 2.2",
        Silence,
        |b| header(b, |m| m.id = 2),
    ),
    case(
        "CREATE_CHILD_SA in answer to IKE_AUTH",
        "RFC 7296 1.2",
        Silence,
        |b| header(b, |m| m.exchange = wire::CREATE_CHILD_SA),
    ),
    case(
        "IKE_AUTH without response flag",
        "RFC 7296 3.1",
        Silence,
        |b| header(b, |m| m.flags = 0),
    ),
    case(
        "IKE_SA_INIT response again, another one",
        "RFC 7296 2.1",
        Silence,
        |b| {
            let mut other = b.peer.init();
            other.payloads.push(Raw::new(wire::VENDOR, [1]));
            vec![other.octets()]
        },
    ),
    case(
        "malformed payloads in the IKE_AUTH response",
        "RFC 7296 2.21.2",
        OneOf(&[Silence, FailedGone]),
        |b| auth(b, |p| p[0].length = Some(9000)),
    ),
    case(
        "unknown critical payload in the IKE_AUTH response",
        "RFC 7296 2.5",
        OneOf(&[Silence, FailedGone]),
        |b| auth(b, |p| p.push(Raw::new(UNKNOWN, []).flagged(CRITICAL))),
    ),
    case(
        "AUTHENTICATION_FAILED",
        "RFC 7296 2.21.2",
        FailedGone,
        |b| auth(b, |p| *p = vec![notify(24, &[])]),
    ),
    case("an unknown error", "RFC 7296 3.10.1", FailedGone, |b| {
        auth(b, |p| *p = vec![notify(8222, &[])])
    }),
    case(
        "an IKE_AUTH response without payloads",
        "RFC 7296 2.21.2",
        FailedGone,
        |b| auth(b, Vec::clear),
    ),
    case(
        "an IKE_AUTH response without AUTH",
        "RFC 7296 2.21.2",
        FailedGone,
        |b| auth(b, |p| drop(p.remove(1))),
    ),
    case(
        "AUTH by a wrong secret",
        "RFC 7296 2.21.2",
        WithdrawnIke,
        |b| {
            let body = b.peer.proof("guessed", &Peer::our_identity());
            auth(b, |p| p[1].body = body)
        },
    ),
    case(
        "the gateway's own AUTH, reflected",
        "RFC 7296 2.15",
        WithdrawnIke,
        |b| {
            let theirs = b.peer.open(&b.last.0.clone()).unwrap_or_default();
            let proof = theirs.into_iter().find(|(kind, _)| *kind == AUTH);
            auth(b, |p| {
                p[1].body = proof.map(|(_, body)| body).unwrap_or_default()
            })
        },
    ),
    case(
        "another identity with a right proof",
        "RFC 7296 2.21.2",
        WithdrawnIke,
        |b| {
            let other = Peer::identity(2, b"elsewhere.test");
            let body = b.peer.proof(SECRET, &other);
            auth(b, |p| (p[0].body, p[1].body) = (other, body))
        },
    ),
    case(
        "TS_UNACCEPTABLE for the first Child SA",
        "RFC 7296 1.2",
        FailedChildless,
        |b| {
            auth(b, |p| {
                p.truncate(2);
                p.push(notify(38, &[]));
            })
        },
    ),
    case(
        "an ESP cipher that was not offered",
        "RFC 7296 2.7",
        WithdrawnChild,
        |b| {
            let mut transforms = esp_transforms(false);
            transforms[0] = aes_gcm(256);
            let chosen = proposal(1, PROTOCOL_ESP, &b.peer.esp, transforms);
            auth(b, |p| p[2] = security_association(&[chosen]))
        },
    ),
    case(
        "selectors wider than was asked",
        "RFC 7296 2.9",
        WithdrawnChild,
        |b| {
            let all = selector([0; 4], [255; 4]);
            auth(b, |p| p[3] = traffic_selectors(TSI, 1, &[all]))
        },
    ),
    case(
        "an SA without selectors in the response",
        "RFC 7296 1.2",
        WithdrawnChild,
        |b| auth(b, |p| p.truncate(3)),
    ),
];

pub const ASKED_CHILD: &[Case] = &[
    // CREATE_CHILD_SA.
    case("the right answer", "RFC 7296 1.3.1", Accepted, |b| {
        child(b, |_| {})
    }),
    case(
        "a wrong ICV in the response",
        "RFC 7296 2.21.4",
        Silence,
        |b| {
            let message = b
                .peer
                .answer(wire::CREATE_CHILD_SA, b.asked(), b.peer.create_payloads());
            vec![b.peer.seal_as(&message, Sealing::forged())]
        },
    ),
    case(
        "a response with the next Message ID",
        "RFC 7296 2.3",
        Silence,
        |b| {
            let message = b.peer.answer(
                wire::CREATE_CHILD_SA,
                b.asked() + 1,
                b.peer.create_payloads(),
            );
            vec![b.peer.seal(&message)]
        },
    ),
    case(
        "INFORMATIONAL in answer to CREATE_CHILD_SA",
        "RFC 7296 1.3",
        OneOf(&[Silence, WithdrawnChild]),
        |b| {
            let message = b.peer.answer(wire::INFORMATIONAL, b.asked(), Vec::new());
            vec![b.peer.seal(&message)]
        },
    ),
    case(
        "malformed payloads in the response",
        "RFC 7296 2.21.3",
        OneOf(&[Silence, FailedAlive]),
        |b| child(b, |p| p[0].length = Some(9000)),
    ),
    case(
        "unknown critical payload in a response",
        "RFC 7296 2.5",
        OneOf(&[Silence, FailedAlive]),
        |b| child(b, |p| p.push(Raw::new(UNKNOWN, []).flagged(CRITICAL))),
    ),
    case("NO_PROPOSAL_CHOSEN", "RFC 7296 1.3", FailedAlive, |b| {
        child(b, |p| *p = vec![notify(14, &[])])
    }),
    case("TEMPORARY_FAILURE", "RFC 7296 2.25", FailedAlive, |b| {
        child(b, |p| *p = vec![notify(43, &[])])
    }),
    case("NO_ADDITIONAL_SAS", "RFC 7296 1.3", FailedAlive, |b| {
        child(b, |p| *p = vec![notify(35, &[])])
    }),
    case(
        "an unknown error in a response",
        "RFC 7296 3.10.1",
        FailedAlive,
        |b| child(b, |p| *p = vec![notify(8333, &[])]),
    ),
    case(
        "INVALID_KE_PAYLOAD for an unknown group",
        "RFC 7296 1.3",
        FailedAlive,
        |b| child(b, |p| *p = vec![notify(17, &[3, 3])]),
    ),
    case(
        "a response without payloads",
        "RFC 7296 1.3",
        WithdrawnChild,
        |b| child(b, Vec::clear),
    ),
    case(
        "no Nonce in a response",
        "RFC 7296 1.3.1",
        WithdrawnChild,
        |b| child(b, |p| drop(p.remove(3))),
    ),
    case(
        "no KE in a response",
        "RFC 7296 1.3.1",
        WithdrawnChild,
        |b| child(b, |p| drop(p.remove(4))),
    ),
    case(
        "KE zero in a response",
        "RFC 8031 3.2",
        WithdrawnChild,
        |b| child(b, |p| p[4] = wire::key_exchange(GROUP, &[0; 32])),
    ),
    case(
        "a cipher that nobody offered",
        "RFC 7296 2.7",
        WithdrawnChild,
        |b| {
            let chosen = proposal(
                1,
                PROTOCOL_ESP,
                &[1, 2, 3, 4],
                vec![aes_gcm(256), transform(4, 31), transform(5, 0)],
            );
            child(b, |p| p[0] = security_association(&[chosen]))
        },
    ),
    case(
        "selectors wider than the offer",
        "RFC 7296 2.9",
        WithdrawnChild,
        |b| {
            let all = selector([0; 4], [255; 4]);
            child(b, |p| p[1] = traffic_selectors(TSI, 1, &[all]))
        },
    ),
    case(
        "transport mode that nobody asked for",
        "RFC 7296 1.3.1",
        WithdrawnChild,
        |b| child(b, |p| p.push(notify(16391, &[]))),
    ),
];

pub const ASKED_REKEY: &[Case] = &[
    // Rekeying of the IKE SA.
    case(
        "an IKE SA with SPI zero",
        "RFC 7296 3.1",
        FailedAlive,
        |b| new_ike(b, &[0; 8], |_| {}),
    ),
    case(
        "an IKE SA without SPI",
        "RFC 7296 3.3.1",
        FailedAlive,
        |b| new_ike(b, &[], |_| {}),
    ),
    case(
        "an IKE SA without Nonce",
        "RFC 7296 1.3.2",
        FailedAlive,
        |b| new_ike(b, &[7; 8], |p| drop(p.remove(1))),
    ),
    case("an IKE SA without KE", "RFC 7296 1.3.2", FailedAlive, |b| {
        new_ike(b, &[7; 8], |p| drop(p.remove(2)))
    }),
    case("an IKE SA with KE zero", "RFC 8031 3.2", FailedAlive, |b| {
        new_ike(b, &[7; 8], |p| p[2] = wire::key_exchange(GROUP, &[0; 32]))
    }),
    case(
        "a refusal of the rekeying",
        "RFC 7296 1.3.2",
        FailedAlive,
        |b| new_ike(b, &[], |p| *p = vec![notify(14, &[])]),
    ),
    case(
        "an ESP SA in place of an IKE SA",
        "RFC 7296 1.3.2",
        FailedAlive,
        |b| {
            let payloads = b.peer.create_payloads();
            new_ike(b, &[], |p| *p = payloads)
        },
    ),
];

pub const ASKED_LIFE: &[Case] = &[
    // Liveness.
    case("a sign of life", "RFC 7296 1.4", Quiet, |b| {
        life(b, Vec::new(), |_| {})
    }),
    case(
        "unknown status in a sign of life",
        "RFC 7296 3.10.1",
        Quiet,
        |b| life(b, vec![notify(39_998, &[])], |_| {}),
    ),
    case(
        "unknown error in a sign of life",
        "RFC 7296 3.10.1",
        Quiet,
        |b| life(b, vec![notify(8444, &[])], |_| {}),
    ),
    case(
        "a Delete in a response to no Delete",
        "RFC 7296 1.4.1",
        Quiet,
        |b| {
            life(
                b,
                vec![delete(PROTOCOL_ESP, 4, 1, &b.peer.esp.clone())],
                |_| {},
            )
        },
    ),
    case("a sign of life twice", "RFC 7296 2.3", Silence, |b| {
        let twice = life(b, Vec::new(), |_| {});
        b.deliver(&twice[0]);
        b.look();
        twice
    }),
    case(
        "a sign of life from the future",
        "RFC 7296 2.3",
        Silence,
        |b| life(b, Vec::new(), |m| m.id += 5),
    ),
    case("a sign of life in clear", "RFC 7296 2.4", Silence, |b| {
        vec![
            b.peer
                .answer(wire::INFORMATIONAL, b.asked(), Vec::new())
                .octets(),
        ]
    }),
    case(
        "a sign of life with the gateway's flag",
        "RFC 7296 3.1",
        Silence,
        |b| life(b, Vec::new(), |m| m.flags |= INITIATOR),
    ),
    case(
        "CREATE_CHILD_SA in answer to a sign of life",
        "RFC 7296 1.4",
        OneOf(&[Silence, Quiet]),
        |b| life(b, Vec::new(), |m| m.exchange = wire::CREATE_CHILD_SA),
    ),
];
