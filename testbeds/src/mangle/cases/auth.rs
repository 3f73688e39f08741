//! IKE_AUTH to a gateway that responds. The peer has keys, but is not authenticated: what is wrong
//! with its integrity is met with silence, and what is wrong inside is told in the protected
//! response (RFC 7296 sections 2.5 and 2.21.2). A Child SA that is refused leaves the IKE SA
//! (section 1.2).

use hitless::ike::message::NotifyKind;

use crate::mangle::bed::Bed;
use crate::mangle::judge::Expected::{
    self, Again, ChildRefused, Childless, OneOf, Refused, RefusedWith, Silence, Usual,
};
use crate::mangle::peer::{Peer, SECRET, Sealing, esp_transforms};
use crate::mangle::wire::{
    self, AUTH, CRITICAL, Message, PROTOCOL_AH, PROTOCOL_ESP, RESPONSE, Raw, TSI, TSR, UNKNOWN,
    notify, proposal, security_association, selector, traffic_selectors, transform,
};
use crate::mangle::{Case, case};

const NOT_AUTHENTICATED: Expected = Refused(NotifyKind::AUTHENTICATION_FAILED);
const INVALID: Expected = Refused(NotifyKind::INVALID_SYNTAX);
const NO_PROPOSAL: Expected = ChildRefused(NotifyKind::NO_PROPOSAL_CHOSEN);
const NO_SELECTORS: Expected = ChildRefused(NotifyKind::TS_UNACCEPTABLE);
/// Places of IKE_AUTH's payloads.
const ID: usize = 0;
const PROOF: usize = 1;
const SA: usize = 2;
const FIRST: usize = 3;

/// IKE_AUTH of either side with other payloads: IDi, AUTH, SA, TSi, TSr.
pub fn auth(bed: &mut Bed, change: impl FnOnce(&mut Vec<Raw>)) -> Vec<Vec<u8>> {
    let mut payloads = bed.peer.auth_payloads();
    change(&mut payloads);
    let message = bed.peer.message(wire::IKE_AUTH, payloads);
    vec![bed.peer.seal(&message)]
}

/// IKE_AUTH with another header.
pub fn header(bed: &mut Bed, change: impl FnOnce(&mut Message)) -> Vec<Vec<u8>> {
    let mut message = bed.peer.message(wire::IKE_AUTH, bed.peer.auth_payloads());
    change(&mut message);
    vec![bed.peer.seal(&message)]
}

/// IKE_AUTH with something wrong with its SK payload.
fn sealed(bed: &mut Bed, wrong: Sealing) -> Vec<Vec<u8>> {
    let message = bed.peer.message(wire::IKE_AUTH, bed.peer.auth_payloads());
    vec![bed.peer.seal_as(&message, wrong)]
}

/// IKE_AUTH by another identity, whose proof is right.
fn identity(bed: &mut Bed, body: Vec<u8>) -> Vec<Vec<u8>> {
    let proof = bed.peer.proof(SECRET, &body);
    auth(bed, |p| {
        p[ID].body = body;
        p[PROOF].body = proof;
    })
}

/// IKE_AUTH with another ESP proposal.
fn esp(bed: &mut Bed, change: impl FnOnce(&mut wire::Proposal)) -> Vec<Vec<u8>> {
    let mut offered = proposal(1, PROTOCOL_ESP, &bed.peer.esp, esp_transforms(false));
    change(&mut offered);
    auth(bed, |p| p[SA] = security_association(&[offered]))
}

/// IKE_AUTH whose TSi has other octets.
fn selectors(bed: &mut Bed, change: impl FnOnce(&mut Vec<u8>)) -> Vec<Vec<u8>> {
    auth(bed, |p| change(&mut p[FIRST].body))
}

pub const HALF_OPEN: &[Case] = &[
    // The header and the protection.
    case(
        "IKE_AUTH with Message ID 0",
        "RFC 7296 2.2",
        Silence,
        |bed| header(bed, |m| m.id = 0),
    ),
    case(
        "IKE_AUTH with Message ID 2",
        "RFC 7296 2.2",
        Silence,
        |bed| header(bed, |m| m.id = 2),
    ),
    case("IKE_AUTH as a response", "RFC 7296 2.2", Silence, |bed| {
        header(bed, |m| m.flags |= RESPONSE)
    }),
    case(
        "IKE_AUTH without initiator flag",
        "RFC 7296 3.1",
        Silence,
        |bed| header(bed, |m| m.flags = 0),
    ),
    case(
        "IKE_AUTH to another SPI",
        "RFC 7296 1.5, 2.21.4",
        OneOf(&[Silence, Expected::InClear(NotifyKind::INVALID_IKE_SPI)]),
        |bed| header(bed, |m| m.responder ^= 1),
    ),
    case(
        "IKE_AUTH from another SPI",
        "RFC 7296 2.21.4",
        Silence,
        |bed| header(bed, |m| m.initiator ^= 1),
    ),
    case(
        "CREATE_CHILD_SA before IKE_AUTH",
        "RFC 7296 1.2",
        Silence,
        |bed| header(bed, |m| m.exchange = wire::CREATE_CHILD_SA),
    ),
    case(
        "INFORMATIONAL before IKE_AUTH",
        "RFC 7296 1.2",
        Silence,
        |bed| header(bed, |m| m.exchange = wire::INFORMATIONAL),
    ),
    case(
        "IKE_INTERMEDIATE that was not negotiated",
        "RFC 9242 3.1",
        Silence,
        |bed| header(bed, |m| m.exchange = 43),
    ),
    case("IKE_AUTH in clear", "RFC 7296 2.21.2", Silence, |bed| {
        let payloads = bed.peer.auth_payloads();
        vec![bed.peer.message(wire::IKE_AUTH, payloads).octets()]
    }),
    case(
        "IKE_AUTH with a wrong ICV",
        "RFC 7296 2.21.2",
        Silence,
        |bed| sealed(bed, Sealing::forged()),
    ),
    case(
        "IKE_AUTH cut by one octet",
        "RFC 7296 3.1",
        Silence,
        |bed| {
            let mut datagram = header(bed, |_| {});
            datagram.iter_mut().for_each(|d| d.truncate(d.len() - 1));
            datagram
        },
    ),
    case(
        "an SK payload of 4 octets",
        "RFC 7296 3.14",
        Silence,
        |bed| {
            let payloads = vec![Raw::new(wire::SK, [])];
            vec![bed.peer.message(wire::IKE_AUTH, payloads).octets()]
        },
    ),
    case(
        "an SK payload of IV and ICV alone",
        "RFC 7296 3.14",
        Silence,
        |bed| {
            let payloads = vec![Raw::new(wire::SK, [0; 24])];
            vec![bed.peer.message(wire::IKE_AUTH, payloads).octets()]
        },
    ),
    case("200 octets of padding", "RFC 7296 3.14", Usual, |bed| {
        sealed(
            bed,
            Sealing {
                padding: 200,
                ..Sealing::default()
            },
        )
    }),
    // Who it is.
    case(
        "a wrong secret",
        "RFC 7296 2.21.2",
        NOT_AUTHENTICATED,
        |bed| {
            let body = bed.peer.proof("guessed", &Peer::our_identity());
            auth(bed, |p| p[PROOF].body = body)
        },
    ),
    case(
        "AUTH of zeros",
        "RFC 7296 2.21.2",
        NOT_AUTHENTICATED,
        |bed| {
            auth(bed, |p| {
                p[PROOF].body = [&[2, 0, 0, 0][..], &[0; 32]].concat()
            })
        },
    ),
    case(
        "AUTH without data",
        "RFC 7296 2.21.2",
        NOT_AUTHENTICATED,
        |bed| auth(bed, |p| p[PROOF].body.truncate(4)),
    ),
    case(
        "AUTH cut by one octet",
        "RFC 7296 2.21.2",
        NOT_AUTHENTICATED,
        |bed| auth(bed, |p| p[PROOF].body.truncate(35)),
    ),
    case(
        "AUTH that another method made",
        "RFC 7296 2.21.2",
        NOT_AUTHENTICATED,
        |bed| auth(bed, |p| p[PROOF].body[0] = 1),
    ),
    case(
        "AUTH of an unknown method",
        "RFC 7296 2.21.2",
        NOT_AUTHENTICATED,
        |bed| auth(bed, |p| p[PROOF].body[0] = 201),
    ),
    case(
        "no AUTH, which asks for EAP",
        "RFC 7296 2.16",
        NOT_AUTHENTICATED,
        |bed| auth(bed, |p| drop(p.remove(PROOF))),
    ),
    case(
        "no identity",
        "RFC 7296 2.21.2",
        OneOf(&[NOT_AUTHENTICATED, INVALID]),
        |bed| auth(bed, |p| drop(p.remove(ID))),
    ),
    case(
        "an unknown identity",
        "RFC 7296 2.21.2",
        NOT_AUTHENTICATED,
        |bed| identity(bed, Peer::identity(2, b"stranger.test")),
    ),
    case(
        "an identity of an unknown type",
        "RFC 7296 2.21.2",
        NOT_AUTHENTICATED,
        |bed| identity(bed, Peer::identity(99, b"mangler.test")),
    ),
    case(
        "an address of 5 octets as identity",
        "RFC 7296 3.5",
        OneOf(&[NOT_AUTHENTICATED, INVALID]),
        |bed| identity(bed, Peer::identity(1, &[192, 0, 2, 9, 9])),
    ),
    case(
        "an identity without data",
        "RFC 7296 3.5",
        OneOf(&[NOT_AUTHENTICATED, INVALID]),
        |bed| identity(bed, Peer::identity(2, b"")),
    ),
    case(
        "the gateway's own identity",
        "RFC 7296 2.21.2",
        NOT_AUTHENTICATED,
        |bed| identity(bed, Peer::their_identity()),
    ),
    case(
        "an identity that is not the proven one",
        "RFC 7296 2.15",
        NOT_AUTHENTICATED,
        |bed| auth(bed, |p| p[ID].body[3] = 1),
    ),
    case(
        "an IDr that is not the gateway's",
        "RFC 7296 2.21.2",
        NOT_AUTHENTICATED,
        |bed| {
            let other = Raw::new(wire::IDR, Peer::identity(2, b"elsewhere.test"));
            auth(bed, |p| p.insert(1, other))
        },
    ),
    case(
        "two AUTH payloads, the first wrong",
        "RFC 7296 2.21.2",
        OneOf(&[NOT_AUTHENTICATED, INVALID]),
        |bed| auth(bed, |p| p.insert(1, Raw::new(AUTH, [2, 0, 0, 0, 9]))),
    ),
    // The payloads inside.
    case(
        "unknown critical payload in IKE_AUTH",
        "RFC 7296 2.5",
        RefusedWith(NotifyKind::UNSUPPORTED_CRITICAL_PAYLOAD, &[UNKNOWN]),
        |bed| auth(bed, |p| p.push(Raw::new(UNKNOWN, [1]).flagged(CRITICAL))),
    ),
    case(
        "unknown payload in IKE_AUTH, not critical",
        "RFC 7296 2.5",
        Usual,
        |bed| auth(bed, |p| p.insert(0, Raw::new(UNKNOWN, [1]))),
    ),
    case(
        "payload length past the end of IKE_AUTH",
        "RFC 7296 2.21.2",
        INVALID,
        |bed| auth(bed, |p| p[ID].length = Some(60_000)),
    ),
    case(
        "octets behind the payloads of IKE_AUTH",
        "RFC 7296 2.21.2",
        INVALID,
        |bed| auth(bed, |p| p[4].body.extend([0; 7])),
    ),
    case(
        "pad length past the content",
        "RFC 7296 3.14",
        OneOf(&[Silence, INVALID]),
        |bed| {
            sealed(
                bed,
                Sealing {
                    content: Some(Vec::new()),
                    pad_length: Some(9),
                    ..Sealing::default()
                },
            )
        },
    ),
    case(
        "IKE_AUTH without payloads",
        "RFC 7296 2.21.2",
        OneOf(&[NOT_AUTHENTICATED, INVALID]),
        |bed| auth(bed, Vec::clear),
    ),
    case(
        "the payloads of IKE_AUTH in another order",
        "RFC 7296 2.5",
        Usual,
        |bed| auth(bed, |p| p.reverse()),
    ),
    case(
        "errors notified in IKE_AUTH",
        "RFC 7296 3.10.1",
        Usual,
        |bed| {
            auth(bed, |p| {
                p.extend([notify(24, &[]), notify(7, &[]), notify(9999, &[])])
            })
        },
    ),
    case("an identity of 3 octets", "RFC 7296 3.5", INVALID, |bed| {
        auth(bed, |p| p[ID].body.truncate(3))
    }),
    // The Child SA.
    case("no SA and no selectors", "RFC 6023 3", Childless, |bed| {
        auth(bed, |p| p.truncate(2))
    }),
    case(
        "an SA without selectors",
        "RFC 7296 3.10.1",
        NO_PROPOSAL,
        |bed| auth(bed, |p| p.truncate(3)),
    ),
    case(
        "an SA with TSi alone",
        "RFC 7296 3.10.1",
        NO_PROPOSAL,
        |bed| auth(bed, |p| p.truncate(4)),
    ),
    case("unknown ESP cipher", "RFC 7296 1.2", NO_PROPOSAL, |bed| {
        esp(bed, |p| p.transforms[0].id = 999)
    }),
    // An old peer means 32-bit numbers by it.
    case(
        "no ESN transform",
        "RFC 7296 3.3.3",
        OneOf(&[NO_PROPOSAL, Usual]),
        |bed| esp(bed, |p| p.transforms.truncate(1)),
    ),
    case(
        "ESN of unknown kind",
        "RFC 7296 3.3.3",
        NO_PROPOSAL,
        |bed| esp(bed, |p| p.transforms[1].id = 7),
    ),
    case(
        "a PRF in an ESP proposal",
        "RFC 7296 3.3.3",
        NO_PROPOSAL,
        |bed| esp(bed, |p| p.transforms.push(transform(2, 5))),
    ),
    case(
        "protocol AH for the Child SA",
        "RFC 7296 1.2",
        NO_PROPOSAL,
        |bed| esp(bed, |p| p.protocol = PROTOCOL_AH),
    ),
    case("ESP SPI of 8 octets", "RFC 7296 3.3.1", INVALID, |bed| {
        esp(bed, |p| p.spi = vec![1; 8])
    }),
    case("ESP SPI of no octets", "RFC 7296 3.3.1", INVALID, |bed| {
        esp(bed, |p| p.spi.clear())
    }),
    case("ESP SPI zero", "RFC 4303 2.1", NO_PROPOSAL, |bed| {
        esp(bed, |p| p.spi = vec![0; 4])
    }),
    case("reserved ESP SPI 255", "RFC 4303 2.1", NO_PROPOSAL, |bed| {
        esp(bed, |p| p.spi = vec![0, 0, 0, 255])
    }),
    case(
        "selectors of other networks",
        "RFC 7296 2.9",
        NO_SELECTORS,
        |bed| {
            let other = selector([172, 16, 0, 0], [172, 16, 0, 255]);
            auth(bed, |p| p[FIRST] = traffic_selectors(TSI, 1, &[other]))
        },
    ),
    case(
        "selectors of everything, which are narrowed",
        "RFC 7296 2.9",
        Usual,
        |bed| {
            let all = || vec![selector([0; 4], [255; 4])];
            auth(bed, |p| {
                p[FIRST] = traffic_selectors(TSI, 1, &all());
                p[FIRST + 1] = traffic_selectors(TSR, 1, &all());
            })
        },
    ),
    case(
        "a range that ends before it starts",
        "RFC 7296 3.13.1",
        INVALID,
        |bed| {
            let wrong = selector([10, 9, 9, 9], [10, 9, 0, 0]);
            auth(bed, |p| p[FIRST] = traffic_selectors(TSI, 1, &[wrong]))
        },
    ),
    case(
        "ports that end before they start",
        "RFC 7296 3.13.1",
        OneOf(&[NO_SELECTORS, INVALID]),
        |bed| selectors(bed, |o| o[8..12].copy_from_slice(&[0, 9, 0, 8])),
    ),
    case(
        "no selectors in TSi",
        "RFC 7296 3.13",
        OneOf(&[NO_SELECTORS, INVALID]),
        |bed| auth(bed, |p| p[FIRST] = traffic_selectors(TSI, 0, &[])),
    ),
    case(
        "more selectors counted than there are",
        "RFC 7296 3.13",
        INVALID,
        |bed| selectors(bed, |o| o[0] = 255),
    ),
    case(
        "fewer selectors counted than there are",
        "RFC 7296 3.13",
        INVALID,
        |bed| selectors(bed, |o| o[0] = 0),
    ),
    case("selector length 3", "RFC 7296 3.13.1", INVALID, |bed| {
        selectors(bed, |o| o[6..8].copy_from_slice(&[0, 3]))
    }),
    case(
        "selector length past the payload",
        "RFC 7296 3.13.1",
        INVALID,
        |bed| selectors(bed, |o| o[6..8].copy_from_slice(&[0, 200])),
    ),
    case(
        "an IPv6 selector of 16 octets",
        "RFC 7296 3.13.1",
        INVALID,
        |bed| selectors(bed, |o| o[4] = 8),
    ),
    case(
        "selectors of an unknown type alone",
        "RFC 7296 2.9",
        NO_SELECTORS,
        |bed| selectors(bed, |o| o[4] = 99),
    ),
    case(
        "an unknown selector type beside a known one",
        "RFC 7296 2.9",
        Usual,
        |bed| {
            let known = selector([10, 9, 0, 0], [10, 9, 255, 255]);
            let unknown = vec![99, 0, 0, 8, 1, 2, 3, 4];
            auth(bed, |p| {
                p[FIRST] = traffic_selectors(TSI, 2, &[unknown, known])
            })
        },
    ),
    case(
        "255 selectors, ours the last",
        "RFC 7296 2.9",
        Usual,
        |bed| {
            let mut all = vec![selector([172, 16, 0, 0], [172, 16, 0, 255]); 254];
            all.push(selector([10, 9, 0, 0], [10, 9, 255, 255]));
            auth(bed, |p| p[FIRST] = traffic_selectors(TSI, 255, &all))
        },
    ),
    case(
        "transport mode where tunnels are configured",
        "RFC 7296 1.3.1",
        Usual,
        |bed| auth(bed, |p| p.push(notify(16391, &[]))),
    ),
    case("IPCOMP_SUPPORTED", "RFC 7296 2.22", Usual, |bed| {
        auth(bed, |p| p.push(notify(16387, &[1, 2, 2])))
    }),
    case(
        "IKE_AUTH again after it was refused",
        "RFC 7296 2.1",
        Again,
        |bed| {
            let body = bed.peer.proof("guessed", &Peer::our_identity());
            let wrong = auth(bed, |p| p[PROOF].body = body);
            bed.deliver(&wrong[0]);
            bed.last.1 = bed.sent.last().cloned().unwrap_or_default();
            bed.look();
            wrong
        },
    ),
];

pub const ESTABLISHED: &[Case] = &[
    // Repetitions.
    case("IKE_AUTH again", "RFC 7296 2.1", Again, |bed| {
        vec![bed.last.0.clone()]
    }),
    case(
        "IKE_SA_INIT of an IKE SA that is up",
        "RFC 7296 2.1",
        OneOf(&[Silence, Usual]),
        |bed| {
            let mut message = bed.peer.init();
            message.responder = 0;
            vec![message.octets()]
        },
    ),
];
