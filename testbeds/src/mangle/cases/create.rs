//! CREATE_CHILD_SA to a gateway that responds: new Child SAs, rekeying of both kinds (RFC 7296
//! sections 1.3, 2.8 and 2.25).

use hitless::ike::message::NotifyKind;

use crate::mangle::bed::Bed;
use crate::mangle::judge::Expected::{self, OneOf, Refused, RefusedWith, Usual};
use crate::mangle::peer::{GROUP, esp_transforms, ike_transforms};
use crate::mangle::wire::{
    self, CRITICAL, PROTOCOL_AH, PROTOCOL_ESP, PROTOCOL_IKE, Proposal, Raw, TSI, UNKNOWN, notify,
    notify_about, proposal, security_association, selector, traffic_selectors, transform,
};
use crate::mangle::{Case, case};

const INVALID: Expected = Refused(NotifyKind::INVALID_SYNTAX);
const NO_PROPOSAL: Expected = Refused(NotifyKind::NO_PROPOSAL_CHOSEN);
const NO_SELECTORS: Expected = Refused(NotifyKind::TS_UNACCEPTABLE);
const OTHER_GROUP: Expected = RefusedWith(NotifyKind::INVALID_KE_PAYLOAD, &[0, GROUP as u8]);
const NOT_FOUND: Expected = Refused(NotifyKind::CHILD_SA_NOT_FOUND);
/// REKEY_SA.
pub(super) const REKEY: u16 = 16393;
/// Places of the payloads.
const SA: usize = 0;
const FIRST: usize = 1;
const FRESH: usize = 3;
const PUBLIC: usize = 4;

/// CREATE_CHILD_SA with other payloads: SA, TSi, TSr, Nonce, KE.
pub(super) fn create(bed: &mut Bed, change: impl FnOnce(&mut Vec<Raw>)) -> Vec<Vec<u8>> {
    bed.peer.esp[3] ^= 1;
    let mut payloads = bed.peer.create_payloads();
    bed.peer.esp[3] ^= 1;
    change(&mut payloads);
    let message = bed.peer.message(wire::CREATE_CHILD_SA, payloads);
    vec![bed.peer.seal(&message)]
}

/// The same with another ESP proposal.
fn esp(bed: &mut Bed, change: impl FnOnce(&mut Proposal)) -> Vec<Vec<u8>> {
    let mut offered = proposal(1, PROTOCOL_ESP, &[0xcc, 1, 2, 3], esp_transforms(true));
    change(&mut offered);
    create(bed, |p| p[SA] = security_association(&[offered]))
}

/// CREATE_CHILD_SA that rekeys the IKE SA, with other payloads: SA, Nonce, KE.
pub(super) fn ike(bed: &mut Bed, spi: &[u8], change: impl FnOnce(&mut Vec<Raw>)) -> Vec<Vec<u8>> {
    let mut payloads = bed.peer.rekey_payloads(spi);
    change(&mut payloads);
    let message = bed.peer.message(wire::CREATE_CHILD_SA, payloads);
    vec![bed.peer.seal(&message)]
}

pub const ESTABLISHED: &[Case] = &[
    // A new Child SA.
    case("one more Child SA", "RFC 7296 1.3.1", Usual, |bed| {
        create(bed, |_| {})
    }),
    case(
        "CREATE_CHILD_SA without payloads",
        "RFC 7296 3.10.1",
        INVALID,
        |bed| create(bed, Vec::clear),
    ),
    case(
        "CREATE_CHILD_SA without SA",
        "RFC 7296 3.10.1",
        INVALID,
        |bed| create(bed, |p| drop(p.remove(SA))),
    ),
    case(
        "CREATE_CHILD_SA without TSi",
        "RFC 7296 3.10.1",
        INVALID,
        |bed| create(bed, |p| drop(p.remove(FIRST))),
    ),
    case(
        "CREATE_CHILD_SA without Nonce",
        "RFC 7296 3.10.1",
        INVALID,
        |bed| create(bed, |p| drop(p.remove(FRESH))),
    ),
    case(
        "CREATE_CHILD_SA without KE",
        "RFC 7296 1.3",
        OneOf(&[OTHER_GROUP, NO_PROPOSAL, INVALID]),
        |bed| create(bed, |p| drop(p.remove(PUBLIC))),
    ),
    case("a nonce of 8 octets", "RFC 7296 3.9", INVALID, |bed| {
        create(bed, |p| p[FRESH].body.truncate(8))
    }),
    case("a nonce of 300 octets", "RFC 7296 3.9", INVALID, |bed| {
        create(bed, |p| p[FRESH].body = vec![1; 300])
    }),
    case(
        "KE of another group than the proposal",
        "RFC 7296 1.3",
        OTHER_GROUP,
        |bed| create(bed, |p| p[PUBLIC] = wire::key_exchange(14, &[9; 256])),
    ),
    case("KE of 12 octets", "RFC 8031 3.1", INVALID, |bed| {
        create(bed, |p| p[PUBLIC].body.truncate(16))
    }),
    case(
        "KE zero in CREATE_CHILD_SA",
        "RFC 8031 3.2",
        INVALID,
        |bed| create(bed, |p| p[PUBLIC] = wire::key_exchange(GROUP, &[0; 32])),
    ),
    case(
        "no group in the proposal",
        "RFC 7296 3.3.6",
        NO_PROPOSAL,
        |bed| esp(bed, |p| p.transforms.retain(|t| t.kind != 4)),
    ),
    case(
        "unknown cipher in CREATE_CHILD_SA",
        "RFC 7296 3.3.6",
        NO_PROPOSAL,
        |bed| esp(bed, |p| p.transforms[0].id = 4000),
    ),
    case(
        "unknown attribute in CREATE_CHILD_SA",
        "RFC 7296 3.3.6",
        NO_PROPOSAL,
        |bed| esp(bed, |p| p.transforms[0].attributes.extend([0x80, 50, 0, 1])),
    ),
    case(
        "unknown transform type in CREATE_CHILD_SA",
        "RFC 7296 3.3.6",
        NO_PROPOSAL,
        |bed| esp(bed, |p| p.transforms.push(transform(99, 1))),
    ),
    case(
        "AH in CREATE_CHILD_SA",
        "RFC 7296 3.3.1",
        NO_PROPOSAL,
        |bed| esp(bed, |p| p.protocol = PROTOCOL_AH),
    ),
    case("ESP SPI of 2 octets", "RFC 7296 3.3.1", INVALID, |bed| {
        esp(bed, |p| p.spi = vec![1, 2])
    }),
    case(
        "ESP SPI zero in CREATE_CHILD_SA",
        "RFC 4303 2.1",
        OneOf(&[NO_PROPOSAL, INVALID]),
        |bed| esp(bed, |p| p.spi = vec![0; 4]),
    ),
    case(
        "ESP SPI that the peer has given already",
        "RFC 7296 2.8",
        OneOf(&[NO_PROPOSAL, INVALID, Usual]),
        |bed| {
            let spi = bed.peer.esp.to_vec();
            esp(bed, |p| p.spi = spi)
        },
    ),
    case(
        "an ESP and an IKE proposal in one SA",
        "RFC 7296 3.3",
        OneOf(&[Usual, NO_PROPOSAL, INVALID]),
        |bed| {
            let esp = proposal(1, PROTOCOL_ESP, &[0xcc, 1, 2, 3], esp_transforms(true));
            let ike = proposal(2, PROTOCOL_IKE, &[7; 8], ike_transforms());
            create(bed, |p| p[SA] = security_association(&[esp, ike]))
        },
    ),
    case(
        "other networks in CREATE_CHILD_SA",
        "RFC 7296 2.9",
        NO_SELECTORS,
        |bed| {
            let other = selector([203, 0, 113, 0], [203, 0, 113, 255]);
            create(bed, |p| p[FIRST] = traffic_selectors(TSI, 1, &[other]))
        },
    ),
    case(
        "a range backwards in CREATE_CHILD_SA",
        "RFC 7296 3.13.1",
        INVALID,
        |bed| {
            let wrong = selector([10, 9, 9, 9], [10, 9, 0, 0]);
            create(bed, |p| p[FIRST] = traffic_selectors(TSI, 1, &[wrong]))
        },
    ),
    case(
        "255 selectors counted, one there",
        "RFC 7296 3.13",
        INVALID,
        |bed| create(bed, |p| p[FIRST].body[0] = 255),
    ),
    case(
        "unknown critical payload in CREATE_CHILD_SA",
        "RFC 7296 2.5",
        RefusedWith(NotifyKind::UNSUPPORTED_CRITICAL_PAYLOAD, &[UNKNOWN]),
        |bed| create(bed, |p| p.push(Raw::new(UNKNOWN, []).flagged(CRITICAL))),
    ),
    case(
        "a notified error in CREATE_CHILD_SA",
        "RFC 7296 3.10.1",
        Usual,
        |bed| create(bed, |p| p.push(notify(14, &[]))),
    ),
    // Rekeying of a Child SA.
    case(
        "REKEY_SA of an unknown SPI",
        "RFC 7296 2.25",
        NOT_FOUND,
        |bed| {
            create(bed, |p| {
                p.insert(0, notify_about(PROTOCOL_ESP, &[9, 9, 9, 9], REKEY, &[]))
            })
        },
    ),
    case(
        "REKEY_SA of the gateway's SPI, not ours",
        "RFC 7296 2.25",
        NOT_FOUND,
        |bed| {
            let theirs = bed.peer.other_esp;
            create(bed, |p| {
                p.insert(0, notify_about(PROTOCOL_ESP, &theirs, REKEY, &[]))
            })
        },
    ),
    case("REKEY_SA of AH", "RFC 7296 2.25", NOT_FOUND, |bed| {
        let ours = bed.peer.esp;
        create(bed, |p| {
            p.insert(0, notify_about(PROTOCOL_AH, &ours, REKEY, &[]))
        })
    }),
    case("REKEY_SA without SPI", "RFC 7296 1.3.3", NOT_FOUND, |bed| {
        create(bed, |p| p.insert(0, notify(REKEY, &[])))
    }),
    case(
        "REKEY_SA with an SPI of 8 octets",
        "RFC 7296 1.3.3",
        NOT_FOUND,
        |bed| {
            create(bed, |p| {
                p.insert(0, notify_about(PROTOCOL_ESP, &[1; 8], REKEY, &[]))
            })
        },
    ),
    case(
        "REKEY_SA with selectors of other networks",
        "RFC 7296 2.9.2",
        NO_SELECTORS,
        |bed| {
            let ours = bed.peer.esp;
            let other = selector([203, 0, 113, 0], [203, 0, 113, 255]);
            create(bed, |p| {
                p[FIRST] = traffic_selectors(TSI, 1, &[other]);
                p.insert(0, notify_about(PROTOCOL_ESP, &ours, REKEY, &[]));
            })
        },
    ),
    // Rekeying of the IKE SA.
    case(
        "IKE rekeying without SPI",
        "RFC 7296 3.3.1",
        INVALID,
        |bed| ike(bed, &[], |_| {}),
    ),
    case(
        "IKE rekeying with SPI zero",
        "RFC 7296 3.1",
        INVALID,
        |bed| ike(bed, &[0; 8], |_| {}),
    ),
    case(
        "IKE rekeying with an SPI of 4 octets",
        "RFC 7296 3.3.1",
        INVALID,
        |bed| ike(bed, &[1; 4], |_| {}),
    ),
    case(
        "IKE rekeying without Nonce",
        "RFC 7296 3.10.1",
        INVALID,
        |bed| ike(bed, &[7; 8], |p| drop(p.remove(1))),
    ),
    case(
        "IKE rekeying without KE",
        "RFC 7296 1.3.2",
        OneOf(&[OTHER_GROUP, INVALID]),
        |bed| ike(bed, &[7; 8], |p| drop(p.remove(2))),
    ),
    case(
        "IKE rekeying with another group",
        "RFC 7296 1.3",
        OTHER_GROUP,
        |bed| ike(bed, &[7; 8], |p| p[2] = wire::key_exchange(19, &[7; 64])),
    ),
    case(
        "IKE rekeying with KE zero",
        "RFC 8031 3.2",
        INVALID,
        |bed| ike(bed, &[7; 8], |p| p[2] = wire::key_exchange(GROUP, &[0; 32])),
    ),
    case(
        "IKE rekeying with unknown ciphers",
        "RFC 7296 3.3.6",
        NO_PROPOSAL,
        |bed| {
            let odd = proposal(1, PROTOCOL_IKE, &[7; 8], vec![transform(1, 900)]);
            ike(bed, &[7; 8], |p| p[0] = security_association(&[odd]))
        },
    ),
    case(
        "IKE rekeying without PRF",
        "RFC 7296 3.3.3",
        NO_PROPOSAL,
        |bed| {
            let mut transforms = ike_transforms();
            transforms.remove(1);
            let odd = proposal(1, PROTOCOL_IKE, &[7; 8], transforms);
            ike(bed, &[7; 8], |p| p[0] = security_association(&[odd]))
        },
    ),
];
