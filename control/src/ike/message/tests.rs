//! Ordinary and hostile messages.

#[path = "../../../fuzz/differential.rs"]
mod another_reader;
mod differential;
mod property;

use hitless_sa::{IkeSpi, MessageId, Spi};

use super::*;
use crate::ike::octets;

const HEADER: Header = Header {
    initiator_spi: IkeSpi(0x0102030405060708),
    responder_spi: IkeSpi(0),
    exchange: Exchange::IkeSaInit,
    initiator: true,
    response: false,
    message_id: MessageId(0),
};

/// A message with one payload of the given type and body.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let body = body.to_vec();
    let kind = PayloadKind(kind);
    emit(
        &HEADER,
        &[Payload::Unknown {
            kind,
            critical: false,
            body,
        }],
    )
}

fn parse_one(kind: u8, body: &str) -> Result<Payload, MessageError> {
    match parse(&message(kind, &octets(body)))? {
        Parsed::Clear { mut payloads, .. } => Ok(payloads.remove(0)),
        other => panic!("no SK payload was written: {other:?}"),
    }
}

fn fault(kind: u8, body: &str) -> Fault {
    match parse_one(kind, body) {
        Err(MessageError::Payload { kind: at, fault }) if at.0 == kind => fault,
        other => panic!("payload {kind} {body}: {other:?}"),
    }
}

fn read(datagram: &[u8]) -> Result<(Header, Vec<Payload>), MessageError> {
    parse(datagram).map(|parsed| match parsed {
        Parsed::Clear { header, payloads } => (header, payloads),
        Parsed::Protected { header, .. } | Parsed::Fragment { header, .. } => (header, Vec::new()),
    })
}

/// RFC 7296 section 3.1.
#[test]
fn header_on_the_wire() {
    let header = Header {
        responder_spi: IkeSpi(0x1112131415161718),
        exchange: Exchange::Informational,
        initiator: false,
        response: true,
        message_id: MessageId(0x21222324),
        ..HEADER
    };
    let datagram = emit(&header, &[]);
    let expected = octets("0102030405060708111213141516171800202520212223240000001c");
    assert_eq!(datagram, expected);
    assert_eq!(Header::parse(&datagram), Ok(header));
}

#[test]
fn header_is_checked_before_all_else() {
    let good = message(43, &[]);
    let changed = |at: usize, value: u8| {
        let mut datagram = good.clone();
        datagram[at] = value;
        read(&datagram).map(|(header, _)| header)
    };
    // Section 2.5: the minor version and the version flag are ignored, like reserved flags.
    assert_eq!(changed(17, 0x2f), Ok(HEADER));
    assert_eq!(changed(19, 0x08 | 0x10 | 0xc7), Ok(HEADER));
    for major in [0u8, 1, 3, 15] {
        let error = changed(17, major << 4).unwrap_err();
        assert_eq!(error, MessageError::MajorVersion(major));
        assert_eq!(error.notify(), Some(NotifyKind::INVALID_MAJOR_VERSION));
    }
    let (claimed, actual) = (33, 32);
    assert_eq!(
        changed(27, 33),
        Err(MessageError::HeaderLength { claimed, actual })
    );
    let claimed = 0xff00_0020;
    assert_eq!(
        changed(24, 0xff),
        Err(MessageError::HeaderLength { claimed, actual })
    );
    let mut zero = good.clone();
    zero[..8].fill(0);
    assert_eq!(read(&zero), Err(MessageError::ZeroSpi));
    for length in 0..HEADER_LENGTH {
        assert_eq!(read(&good[..length]), Err(MessageError::NoHeader(length)));
    }
}

#[test]
fn a_message_ends_at_64_kib() {
    let mut longest = message(43, &vec![0; MAX_MESSAGE_LENGTH - 32]);
    assert!(read(&longest).is_ok());
    longest.push(0);
    assert_eq!(read(&longest), Err(MessageError::TooLong(65_536)));
    // What its length field cannot say is clipped when written.
    assert_eq!(message(43, &vec![0; 70_000]).len(), 28 + 65_535);
}

/// RFC 7296 section 3.2.
#[test]
fn payload_lengths_below_four_and_beyond_the_end_are_refused() {
    for kind in 1..=255 {
        let good = message(kind, &[0; 20]);
        let with_length = |length: u16| {
            let mut datagram = good.clone();
            datagram[30..32].copy_from_slice(&length.to_be_bytes());
            read(&datagram).unwrap_err()
        };
        let kind = PayloadKind(kind);
        for claimed in [0, 1, 2, 3, 25, 26, 255, 256, 0xffff] {
            let fault = Fault::Length { claimed, left: 24 };
            assert_eq!(with_length(claimed), MessageError::Payload { kind, fault });
        }
        for length in 0..4 {
            let mut cut = good[..28 + length].to_vec();
            cut[27] = 28 + length as u8;
            let fault = Fault::NoHeader;
            assert_eq!(read(&cut), Err(MessageError::Payload { kind, fault }));
        }
    }
}

#[test]
fn a_chain_that_ends_early_or_never_is_refused() {
    let mut early = message(43, &[0; 8]);
    early[16] = 0;
    let (kind, fault) = (PayloadKind::NONE, Fault::Trailing(12));
    assert_eq!(read(&early), Err(MessageError::Payload { kind, fault }));

    let mut endless = message(43, &[]);
    endless[28] = 43;
    let (kind, fault) = (PayloadKind::VENDOR_ID, Fault::NoHeader);
    assert_eq!(read(&endless), Err(MessageError::Payload { kind, fault }));
}

#[test]
fn payloads_are_counted() {
    let many = vec![Payload::VendorId(Vec::new()); MAX_PAYLOADS];
    assert_eq!(read(&emit(&HEADER, &many)).unwrap().1.len(), MAX_PAYLOADS);
    let more = vec![Payload::VendorId(Vec::new()); MAX_PAYLOADS + 1];
    let error = read(&emit(&HEADER, &more)).unwrap_err();
    assert_eq!(error, MessageError::TooManyPayloads);
    assert_eq!(error.notify(), Some(NotifyKind::NO_PROPOSAL_CHOSEN));
}

/// RFC 7383 section 2.5: the number is from one to the total.
#[test]
fn rfc7383_section_2_5_fragments_on_the_wire() {
    let read = |body: &str| match parse(&message(53, &octets(body))) {
        Ok(Parsed::Fragment { place, .. }) => Some((place.number, place.total)),
        _ => None,
    };
    assert_eq!(read("00010001aabb"), Some((1, 1)));
    assert_eq!(read("0002ffff"), Some((2, 65535)));
    for body in ["00000000", "00000001", "00020001", "000100", ""] {
        assert_eq!(read(body), None, "{body}");
    }
}

/// RFC 7296 section 2.5.
#[test]
fn critical_counts_only_for_types_that_we_do_not_know() {
    for kind in 1..=255u8 {
        let mut datagram = message(kind, &octets("0000000000000000000000000000000000000000"));
        datagram[29] = 0x80;
        let kind = PayloadKind(kind);
        let result = read(&datagram);
        match kind.0 {
            46 => assert!(matches!(parse(&datagram), Ok(Parsed::Protected { .. }))),
            53 => assert!(result.is_err(), "fragments count from one"),
            33..=48 => {
                let refused = Err(MessageError::UnsupportedCritical(kind));
                assert_ne!(result, refused);
            }
            _ => {
                let error = result.unwrap_err();
                assert_eq!(error, MessageError::UnsupportedCritical(kind));
                assert_eq!(
                    error.notify(),
                    Some(NotifyKind::UNSUPPORTED_CRITICAL_PAYLOAD)
                );
                datagram[29] = 0x7f;
                assert_eq!(read(&datagram).unwrap().1[0].kind(), kind);
            }
        }
    }
}

/// RFC 7296 section 3.14.
#[test]
fn the_sk_payload_is_the_last() {
    let mut datagram = message(46, &[0; 32]);
    // Its next payload is the first one inside, so the chain ends with it.
    datagram[28] = 41;
    assert!(matches!(parse(&datagram), Ok(Parsed::Protected { .. })));
    datagram.extend([0, 0, 0, 4]);
    let length = datagram.len() as u8;
    datagram[27] = length;
    let (kind, fault) = (PayloadKind::SK, Fault::Misplaced);
    assert_eq!(parse(&datagram), Err(MessageError::Payload { kind, fault }));
}

#[test]
fn payloads_in_front_of_the_sk_payload_are_checked_and_not_kept() {
    let unknown = |kind, critical| Payload::Unknown {
        kind: PayloadKind(kind),
        critical,
        body: vec![0; 16],
    };
    let datagram = emit(&HEADER, &[unknown(43, false), unknown(46, false)]);
    let header = HEADER;
    let datagram = datagram.as_slice();
    assert_eq!(parse(datagram), Ok(Parsed::Protected { header, datagram }));
    assert_eq!(locate_sealed(datagram).unwrap().body, 28 + 20 + 4);
    let datagram = emit(&HEADER, &[unknown(99, true), unknown(46, false)]);
    assert_eq!(
        parse(&datagram),
        Err(MessageError::UnsupportedCritical(PayloadKind(99)))
    );
}

/// RFC 7296 section 3.3: an SA payload as strongSwan writes it, and each way to break it.
#[test]
fn security_association_on_the_wire() {
    let body = "0200002c01010004\
                0300000c0100000c800e0080030000080300000c03000008020000050000000804000013\
                0000002002030402aabbccdd\
                0300000c01000014800e01000000000805000001";
    let Ok(Payload::SecurityAssociation(proposals)) = parse_one(33, body) else {
        panic!("{:?}", parse_one(33, body));
    };
    assert_eq!(proposals[0].protocol, Protocol::Ike);
    assert_eq!(
        proposals[0].transforms,
        [
            Transform::new(1, 12, Some(128)),
            Transform::new(3, 12, None),
            Transform::new(2, 5, None),
            Transform::new(4, 19, None),
        ]
    );
    assert_eq!(proposals[1].esp_spi(), Some(Spi(0xaabbccdd)));
    assert_eq!(proposals[1].transforms[0], Transform::new(1, 20, Some(256)));
}

#[test]
fn broken_security_associations() {
    let esp = |size: &str| format!("0000{size}01030401aabbccdd0000000805000001");
    assert!(parse_one(33, &esp("0014")).is_ok());
    // Substructure lengths of 0 to 3, into the next field, and past the end.
    for size in ["0000", "0001", "0002", "0003", "0015", "ffff"] {
        assert_eq!(fault(33, &esp(size)), Fault::Truncated, "{size}");
    }
    for size in ["0004", "0008", "0013"] {
        assert_eq!(fault(33, &esp(size)), Fault::Chain, "{size}");
    }
    // "More" with nothing behind it, "last" with something behind it, and neither.
    for mark in ["02", "01", "03", "ff"] {
        assert_eq!(
            fault(33, &esp("0014").replacen("00", mark, 1)),
            Fault::Chain
        );
    }
    assert_eq!(
        fault(33, &format!("{}{}", esp("0014"), esp("0014"))),
        Fault::Chain
    );
    // Transforms: wrong count, wrong mark, wrong length, torn attribute.
    assert_eq!(
        fault(33, "0000001401030402aabbccdd0000000805000001"),
        Fault::Count
    );
    assert_eq!(
        fault(33, "0000001401030400aabbccdd0000000805000001"),
        Fault::Count
    );
    assert_eq!(
        fault(33, "0000001401030401aabbccdd0300000805000001"),
        Fault::Chain
    );
    assert_eq!(
        fault(33, "0000001401030401aabbccdd0200000805000001"),
        Fault::Chain
    );
    assert_eq!(
        fault(33, "0000001401030401aabbccdd0000000005000001"),
        Fault::Truncated
    );
    assert_eq!(
        fault(33, "0000001401030401aabbccdd0000000905000001"),
        Fault::Truncated
    );
    assert_eq!(
        fault(33, "0000001601030401aabbccdd0000000a05000001800e"),
        Fault::Truncated
    );
    assert_eq!(
        fault(33, "0000001801030401aabbccdd0000000c05000001000e0001"),
        Fault::Truncated
    );
}

#[test]
fn spi_sizes_that_contradict_the_protocol() {
    for (protocol, sizes) in [(1u8, vec![0, 8]), (2, vec![4]), (3, vec![4])] {
        for size in 0..=255u8 {
            let spi = "11".repeat(size.into());
            let length = 8 + usize::from(size);
            let body = format!("0000{length:04x}01{protocol:02x}{size:02x}00{spi}");
            if sizes.contains(&size) {
                assert!(parse_one(33, &body).is_ok(), "{body}");
            } else {
                assert_eq!(fault(33, &body), Fault::SpiSize { protocol, size });
            }
        }
    }
    // A size that reaches past the proposal.
    assert_eq!(fault(33, "0000000801030400"), Fault::Truncated);
    assert_eq!(fault(33, "0000000b01030400aabbcc"), Fault::Truncated);
    assert_eq!(fault(41, "0305400001020304"), Fault::Truncated);
}

/// RFC 7296 section 3.3.6.
#[test]
fn unknown_attributes_are_kept_so_that_their_transform_is_not_chosen() {
    let body = "0000002601030401aabbccdd0000001a0100000c\
                8011000100120002beef800e0080800e0100";
    let Ok(Payload::SecurityAssociation(proposals)) = parse_one(33, body) else {
        panic!("{:?}", parse_one(33, body));
    };
    let transform = &proposals[0].transforms[0];
    assert_eq!(transform.key_length, Some(128));
    assert_eq!(
        transform.unknown_attributes,
        octets("8011000100120002beef800e0100")
    );
}

#[test]
fn proposals_end_at_255() {
    let proposal = |mark: u8| [mark, 0, 0, 8, 1, 9, 0, 0];
    let list = |count: usize| {
        let mut body: Vec<u8> = (1..count).flat_map(|_| proposal(2)).collect();
        body.extend(proposal(0));
        read(&message(33, &body))
    };
    assert!(list(255).is_ok());
    let (kind, fault) = (PayloadKind::SA, Fault::TooMany);
    assert_eq!(list(256), Err(MessageError::Payload { kind, fault }));
    assert_eq!(list(8000), Err(MessageError::Payload { kind, fault }));
}

/// RFC 7296 sections 3.4, 3.5, 3.8 and 3.9.
#[test]
fn fixed_fields_of_short_payloads() {
    for kind in [34, 35, 36, 39, 44, 45] {
        for body in ["", "00", "0000", "000000"] {
            assert_eq!(fault(kind, body), Fault::Truncated, "{kind} {body}");
        }
    }
    for body in ["", "00", "0000", "000000"] {
        assert_eq!(fault(41, body), Fault::Truncated);
        assert_eq!(fault(42, body), Fault::Truncated);
    }
    for (length, fits) in [
        (0, false),
        (15, false),
        (16, true),
        (256, true),
        (257, false),
    ] {
        assert_eq!(
            parse_one(40, &"00".repeat(length)).is_ok(),
            fits,
            "{length}"
        );
    }
    for (kind, length) in [(1, 4), (5, 16)] {
        for octets in 0..20 {
            let body = format!("{kind:02x}000000{}", "0a".repeat(octets));
            match octets == length {
                true => assert!(parse_one(35, &body).is_ok()),
                false => assert_eq!(fault(35, &body), Fault::Address),
            }
        }
    }
    let method = 31;
    let data = vec![0xab];
    assert_eq!(
        parse_one(34, "001f0000ab"),
        Ok(Payload::KeyExchange { method, data })
    );
}

/// RFC 7296 section 3.11.
#[test]
fn deletes() {
    let delete = |body| match parse_one(42, body) {
        Ok(Payload::Delete(delete)) => delete,
        other => panic!("{other:?}"),
    };
    assert_eq!(delete("01000000"), Delete::Ike);
    assert_eq!(
        delete("0304000200000100000001ff"),
        Delete::Esp(vec![Spi(256), Spi(511)])
    );
    assert_eq!(delete("03040000"), Delete::Esp(Vec::new()));
    assert!(matches!(
        delete("0204000100000100"),
        Delete::Other { protocol: 2, .. }
    ));
    assert_eq!(fault(42, "0304000200000100"), Fault::Count);
    assert_eq!(fault(42, "0304ffff00000100"), Fault::Count);
    assert_eq!(fault(42, "030400010000010000"), Fault::Count);
    assert_eq!(fault(42, "0304000000000100"), Fault::Count);
    assert_eq!(fault(42, "0100000000000000"), Fault::Trailing(4));
    for (body, protocol, size) in [
        ("010800010102030405060708", 1, 8),
        ("030800010102030405060708", 3, 8),
        ("03000001", 3, 0),
        ("02000001", 2, 0),
        ("0000ffff", 0, 0),
    ] {
        assert_eq!(fault(42, body), Fault::SpiSize { protocol, size }, "{body}");
    }
}

/// RFC 7296 section 3.13.
#[test]
fn traffic_selectors() {
    let one = "01000000070600100050005f0a0000000a0000ff";
    let Ok(Payload::TsInitiator(selectors)) = parse_one(44, one) else {
        panic!("{:?}", parse_one(44, one));
    };
    assert_eq!(selectors[0].to_string(), "10.0.0.0/24[tcp/80-95]");
    // Too few, too many, an unknown type beside a known one, OPAQUE ports, a reversed range.
    assert_eq!(fault(44, &one.replacen("01", "02", 1)), Fault::Truncated);
    assert_eq!(fault(44, &one.replacen("01", "00", 1)), Fault::Count);
    let unknown = "020000000900000cffffffffffffffff070600100050005f0a0000000a0000ff";
    assert_eq!(parse_one(44, unknown), Ok(Payload::TsInitiator(selectors)));
    assert!(parse_one(44, "0100000007000010ffff00000a0000000a0000ff").is_ok());
    assert_eq!(
        fault(45, "01000000070000100000ffff0a0000ff0a000000"),
        Fault::Address
    );
    for length in ["0000", "0003", "0004", "0007", "000f", "0011", "ffff"] {
        let body = format!("010000000700{length}0000ffff0a0000000a0000ff");
        assert_eq!(fault(44, &body), Fault::Truncated, "{length}");
    }
    let long = "01000000070000140000ffff0a0000000a0000ff00000000";
    assert_eq!(fault(44, long), Fault::Address);
    // IPv4 addresses under the type of IPv6.
    assert_eq!(
        fault(44, "01000000080000100000ffff0a0000000a0000ff"),
        Fault::Truncated
    );
}

#[test]
fn errors_name_the_payload_and_the_fault() {
    let print = |kind, body| parse_one(kind, body).unwrap_err().to_string();
    assert_eq!(
        print(40, "00"),
        "Nonce payload: a nonce of 1 octets, not 16 to 256"
    );
    assert_eq!(
        print(42, "03000001"),
        "D payload: SPI size 0 does not fit protocol 3"
    );
    assert_eq!(
        MessageError::UnsupportedCritical(PayloadKind(200)).to_string(),
        "type 200 payload is critical and unknown"
    );
    assert_eq!(NotifyKind::COOKIE.to_string(), "COOKIE");
    assert_eq!(NotifyKind(40_960).to_string(), "notify 40960");
    assert!(NotifyKind::CHILD_SA_NOT_FOUND.is_error() && !NotifyKind::INITIAL_CONTACT.is_error());
}

#[test]
fn lists_longer_than_their_count_are_clipped_and_stay_well_formed() {
    let transforms = vec![Transform::new(1, 20, Some(128)); 300];
    let proposal = Proposal {
        number: 1,
        protocol: Protocol::Ike,
        spi: Vec::new(),
        transforms: Vec::new(),
    };
    let long = Proposal {
        transforms,
        ..proposal.clone()
    };
    let sent = [
        Payload::SecurityAssociation(vec![proposal; 300]),
        Payload::SecurityAssociation(vec![long]),
        Payload::TsInitiator(vec!["10.0.0.0/8".parse().unwrap(); 300]),
    ];
    let (_, received) = read(&emit(&HEADER, &sent)).unwrap();
    let lengths = received.iter().map(|payload| match payload {
        Payload::SecurityAssociation(list) if list.len() > 1 => list.len(),
        Payload::SecurityAssociation(list) => list[0].transforms.len(),
        Payload::TsInitiator(list) => list.len(),
        other => panic!("{other:?}"),
    });
    assert_eq!(lengths.collect::<Vec<_>>(), [255, 255, 255]);
}
