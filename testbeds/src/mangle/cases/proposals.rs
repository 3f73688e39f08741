//! Transform junk: the SA payload of IKE_SA_INIT (RFC 7296 section 3.3).

use hitless::ike::message::NotifyKind;

use super::init::payload;
use crate::mangle::bed::Bed;
use crate::mangle::judge::Expected::{self, OneOf, Refused, Silence, Usual};
use crate::mangle::peer::{GROUP, ike_proposal, ike_transforms};
use crate::mangle::wire::{
    PROTOCOL_AH, PROTOCOL_ESP, PROTOCOL_IKE, Proposal, Raw, SA, aes_gcm, proposal,
    security_association, transform,
};
use crate::mangle::{Case, case};

const NOTHING_IN_COMMON: Expected = Refused(NotifyKind::NO_PROPOSAL_CHOSEN);

/// IKE_SA_INIT with these proposals.
fn sa(bed: &mut Bed, proposals: &[Proposal]) -> Vec<Vec<u8>> {
    payload(bed, 0, |p| *p = security_association(proposals))
}

/// IKE_SA_INIT whose one proposal is changed.
fn one(bed: &mut Bed, change: impl FnOnce(&mut Proposal)) -> Vec<Vec<u8>> {
    let mut proposal = ike_proposal();
    change(&mut proposal);
    sa(bed, &[proposal])
}

/// IKE_SA_INIT whose SA payload is changed, octet by octet.
fn octets(bed: &mut Bed, change: impl FnOnce(&mut Vec<u8>)) -> Vec<Vec<u8>> {
    payload(bed, 0, |p| change(&mut p.body))
}

pub const NOTHING: &[Case] = &[
    case(
        "an SA without proposal",
        "RFC 7296 3.3",
        OneOf(&[Silence, NOTHING_IN_COMMON]),
        |bed| sa(bed, &[]),
    ),
    case(
        "a proposal without transforms",
        "RFC 7296 3.3",
        NOTHING_IN_COMMON,
        |bed| one(bed, |p| p.transforms.clear()),
    ),
    case(
        "no encryption",
        "RFC 7296 3.3.3",
        NOTHING_IN_COMMON,
        |bed| one(bed, |p| drop(p.transforms.remove(0))),
    ),
    case("no PRF", "RFC 7296 3.3.3", NOTHING_IN_COMMON, |bed| {
        one(bed, |p| drop(p.transforms.remove(1)))
    }),
    case("no group", "RFC 7296 3.3.3", NOTHING_IN_COMMON, |bed| {
        one(bed, |p| drop(p.transforms.remove(2)))
    }),
    case(
        "unknown transform type",
        "RFC 7296 3.3.6",
        NOTHING_IN_COMMON,
        |bed| one(bed, |p| p.transforms.push(transform(77, 1))),
    ),
    case(
        "unknown transform type, then a good proposal",
        "RFC 7296 3.3.6",
        Usual,
        |bed| {
            let mut bad = ike_proposal();
            bad.transforms.push(transform(77, 1));
            let mut good = ike_proposal();
            good.number = 2;
            sa(bed, &[bad, good])
        },
    ),
    case(
        "unknown ciphers beside a known one",
        "RFC 7296 3.3.6",
        Usual,
        |bed| {
            one(bed, |p| {
                p.transforms
                    .extend([transform(1, 999), transform(2, 999), transform(4, 999)])
            })
        },
    ),
    case(
        "only unknown ciphers",
        "RFC 7296 3.3.6",
        NOTHING_IN_COMMON,
        |bed| one(bed, |p| p.transforms[0].id = 999),
    ),
    case(
        "unknown attribute, short form",
        "RFC 7296 3.3.6",
        NOTHING_IN_COMMON,
        |bed| one(bed, |p| p.transforms[0].attributes.extend([0x80, 99, 0, 1])),
    ),
    case(
        "unknown attribute, long form",
        "RFC 7296 3.3.6",
        NOTHING_IN_COMMON,
        |bed| {
            one(bed, |p| {
                p.transforms[1].attributes.extend([0, 99, 0, 2, 1, 1])
            })
        },
    ),
    case(
        "attribute longer than its transform",
        "RFC 7296 3.3.5",
        Silence,
        |bed| {
            one(bed, |p| {
                p.transforms[1].attributes.extend([0, 99, 0, 200, 1, 1])
            })
        },
    ),
    case("half an attribute", "RFC 7296 3.3.5", Silence, |bed| {
        one(bed, |p| p.transforms[1].attributes.extend([0x80, 14]))
    }),
    case(
        "AES without key length",
        "RFC 7296 3.3.5",
        NOTHING_IN_COMMON,
        |bed| one(bed, |p| p.transforms[0].attributes.clear()),
    ),
    case("key length 0", "RFC 7296 3.3.5", NOTHING_IN_COMMON, |bed| {
        one(bed, |p| p.transforms[0] = aes_gcm(0))
    }),
    case(
        "key length 129",
        "RFC 7296 3.3.5",
        NOTHING_IN_COMMON,
        |bed| one(bed, |p| p.transforms[0] = aes_gcm(129)),
    ),
    case(
        "two key lengths in one transform",
        "RFC 7296 3.3.5",
        NOTHING_IN_COMMON,
        |bed| one(bed, |p| p.transforms[0].attributes.extend([0x80, 14, 1, 0])),
    ),
    case(
        "key length of a group",
        "RFC 7296 3.3.5",
        OneOf(&[NOTHING_IN_COMMON, Usual]),
        |bed| one(bed, |p| p.transforms[2].attributes.extend([0x80, 14, 1, 0])),
    ),
    case(
        "integrity with a combined-mode cipher",
        "RFC 5282 8",
        NOTHING_IN_COMMON,
        |bed| one(bed, |p| p.transforms.push(transform(3, 12))),
    ),
    case(
        "integrity NONE with a combined-mode cipher",
        "RFC 7296 3.3.3",
        Usual,
        |bed| one(bed, |p| p.transforms.push(transform(3, 0))),
    ),
    case(
        "ESN in an IKE proposal",
        "RFC 7296 3.3.3",
        NOTHING_IN_COMMON,
        |bed| one(bed, |p| p.transforms.push(transform(5, 0))),
    ),
    case("every transform twice", "RFC 7296 3.3", Usual, |bed| {
        one(bed, |p| p.transforms.extend(ike_transforms()))
    }),
    case(
        "the transforms in another order",
        "RFC 7296 3.3",
        Usual,
        |bed| one(bed, |p| p.transforms.reverse()),
    ),
    case("200 groups, ours the last", "RFC 7296 3.3", Usual, |bed| {
        one(bed, |p| {
            p.transforms.truncate(2);
            p.transforms.extend((1000..1200).map(|id| transform(4, id)));
            p.transforms.push(transform(4, GROUP));
        })
    }),
    case("protocol ESP", "RFC 7296 3.3.1", NOTHING_IN_COMMON, |bed| {
        let esp = proposal(1, PROTOCOL_ESP, &[1, 2, 3, 4], ike_transforms());
        sa(bed, &[esp])
    }),
    case("protocol AH", "RFC 7296 3.3.1", NOTHING_IN_COMMON, |bed| {
        let ah = proposal(1, PROTOCOL_AH, &[1, 2, 3, 4], ike_transforms());
        sa(bed, &[ah])
    }),
    case(
        "unknown protocol 99",
        "RFC 7296 3.3.1",
        NOTHING_IN_COMMON,
        |bed| one(bed, |p| p.protocol = 99),
    ),
    case("an SPI of 4 octets", "RFC 7296 3.3.1", Silence, |bed| {
        one(bed, |p| p.spi = vec![1; 4])
    }),
    case(
        "an SPI of 8 octets",
        "RFC 7296 3.3.1",
        OneOf(&[Silence, NOTHING_IN_COMMON]),
        |bed| one(bed, |p| p.spi = vec![1; 8]),
    ),
    case(
        "SPI size past the proposal",
        "RFC 7296 3.3.1",
        Silence,
        |bed| one(bed, |p| p.spi_size = Some(200)),
    ),
    case(
        "proposal number 5 first",
        "RFC 7296 3.3.1",
        OneOf(&[Usual, Silence, NOTHING_IN_COMMON]),
        |bed| one(bed, |p| p.number = 5),
    ),
    case(
        "two proposals of one number",
        "RFC 7296 3.3.1",
        OneOf(&[Usual, Silence, NOTHING_IN_COMMON]),
        |bed| sa(bed, &[ike_proposal(), ike_proposal()]),
    ),
    case(
        "more transforms counted than there are",
        "RFC 7296 3.3.1",
        Silence,
        |bed| one(bed, |p| p.count = Some(9)),
    ),
    case(
        "fewer transforms counted than there are",
        "RFC 7296 3.3.1",
        Silence,
        |bed| one(bed, |p| p.count = Some(1)),
    ),
    case(
        "the last proposal says that more follow",
        "RFC 7296 3.3.1",
        Silence,
        |bed| one(bed, |p| p.mark = Some(2)),
    ),
    case(
        "unknown mark of a proposal",
        "RFC 7296 3.3.1",
        Silence,
        |bed| one(bed, |p| p.mark = Some(7)),
    ),
    case("proposal length zero", "RFC 7296 3.3.1", Silence, |bed| {
        octets(bed, |o| o[2..4].copy_from_slice(&[0, 0]))
    }),
    case(
        "proposal length past the payload",
        "RFC 7296 3.3.1",
        Silence,
        |bed| octets(bed, |o| o[2..4].copy_from_slice(&[0x7f, 0xff])),
    ),
    case("transform length zero", "RFC 7296 3.3.2", Silence, |bed| {
        octets(bed, |o| o[10..12].copy_from_slice(&[0, 0]))
    }),
    case(
        "transform length past the proposal",
        "RFC 7296 3.3.2",
        Silence,
        |bed| octets(bed, |o| o[10..12].copy_from_slice(&[0x7f, 0xff])),
    ),
    case(
        "reserved octets of the SA payload",
        "RFC 7296 3.3",
        Usual,
        |bed| octets(bed, |o| (o[1], o[9]) = (0xff, 0xff)),
    ),
    case(
        "an octet behind the proposals",
        "RFC 7296 3.3",
        Silence,
        |bed| octets(bed, |o| o.push(0)),
    ),
    case(
        "255 proposals, a good one last",
        "RFC 7296 3.3",
        Usual,
        |bed| sa(bed, &many(254)),
    ),
    case(
        "300 proposals",
        "RFC 7296 3.3.1",
        OneOf(&[Silence, NOTHING_IN_COMMON]),
        |bed| sa(bed, &many(299)),
    ),
    case(
        "an SA payload of 60,000 zeros",
        "RFC 7296 3.3",
        Silence,
        |bed| payload(bed, 0, |p| *p = Raw::new(SA, vec![0; 60_000])),
    ),
];

/// So many proposals that nobody takes, and a good one.
fn many(bad: usize) -> Vec<Proposal> {
    let junk = |number: usize| {
        let number = (number + 1).min(255) as u8;
        proposal(number, PROTOCOL_IKE, &[], vec![transform(1, 999)])
    };
    let mut proposals: Vec<Proposal> = (0..bad).map(junk).collect();
    let mut good = ike_proposal();
    good.number = 255;
    proposals.push(good);
    proposals
}
