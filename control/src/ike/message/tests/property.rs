//! Any message, any damage to it, and random octets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hitless_sa::{IkeSpi, MessageId, Spi, TrafficSelector};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn octets_up_to(length: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=length)
}

fn identification() -> impl Strategy<Value = Identification> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|a| Identification::Address(Ipv4Addr::from(a).into())),
        any::<[u8; 16]>().prop_map(|a| Identification::Address(Ipv6Addr::from(a).into())),
        "[a-z.*]{1,20}".prop_map(Identification::Fqdn),
        "[a-z]{1,9}@[a-z.]{0,9}".prop_map(Identification::Email),
        octets_up_to(40).prop_map(Identification::KeyId),
        octets_up_to(40).prop_map(|data| Identification::Other { kind: 9, data }),
    ]
}

fn transform() -> impl Strategy<Value = Transform> {
    (any::<u8>(), any::<u16>(), any::<Option<u16>>())
        .prop_map(|(kind, id, key_length)| Transform::new(kind, id, key_length))
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let protocol_and_spi = prop_oneof![
        Just((1, Vec::new())),
        any::<[u8; 8]>().prop_map(|spi| (1, spi.to_vec())),
        any::<[u8; 4]>().prop_map(|spi| (2, spi.to_vec())),
        any::<[u8; 4]>().prop_map(|spi| (3, spi.to_vec())),
        octets_up_to(255).prop_map(|spi| (4, spi)),
    ];
    (any::<u8>(), protocol_and_spi, vec(transform(), 0..6)).prop_map(
        |(number, (protocol, spi), transforms)| Proposal {
            number,
            protocol: Protocol::from_number(protocol),
            spi,
            transforms,
        },
    )
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let range = prop_oneof![
        any::<[[u8; 4]; 2]>().prop_map(|pair| pair.map(|a| IpAddr::from(Ipv4Addr::from(a)))),
        any::<[[u8; 16]; 2]>().prop_map(|pair| pair.map(|a| IpAddr::from(Ipv6Addr::from(a)))),
    ];
    (any::<u8>(), any::<u16>(), any::<u16>(), range).prop_map(
        |(protocol, start_port, end_port, [a, b])| TrafficSelector {
            protocol,
            start_port,
            end_port,
            start: a.min(b),
            end: a.max(b),
        },
    )
}

pub(super) fn payload() -> impl Strategy<Value = Payload> {
    let delete = prop_oneof![
        Just(Delete::Ike),
        vec(any::<u32>().prop_map(Spi), 0..9).prop_map(Delete::Esp),
        vec(any::<[u8; 3]>(), 0..9).prop_map(|spis| Delete::Other {
            protocol: 9,
            spi_size: 3,
            spis: spis.concat(),
        }),
    ];
    let unknown_kind = prop_oneof![1u8..33, Just(37), Just(38), Just(48), 54u8..];
    let notify = (
        any::<u8>(),
        octets_up_to(255),
        any::<u16>(),
        octets_up_to(99),
    );
    prop_oneof![
        vec(proposal(), 0..5).prop_map(Payload::SecurityAssociation),
        (any::<u16>(), octets_up_to(99))
            .prop_map(|(method, data)| Payload::KeyExchange { method, data }),
        identification().prop_map(|id| Payload::IdInitiator(IdBody::new(id))),
        identification().prop_map(|id| Payload::IdResponder(IdBody::new(id))),
        (any::<u8>(), octets_up_to(99)).prop_map(|(method, data)| Payload::Auth { method, data }),
        vec(any::<u8>(), 16..=256).prop_map(Payload::Nonce),
        notify.prop_map(|(protocol, spi, kind, data)| Payload::Notify(Notify {
            protocol,
            spi,
            kind: NotifyKind(kind),
            data,
        })),
        delete.prop_map(Payload::Delete),
        vec(selector(), 0..9).prop_map(Payload::TsInitiator),
        vec(selector(), 0..9).prop_map(Payload::TsResponder),
        octets_up_to(99).prop_map(Payload::VendorId),
        (any::<u8>(), vec((0..0x8000u16, octets_up_to(20)), 0..9)).prop_map(
            |(kind, attributes)| {
                Payload::Configuration(Configuration {
                    kind: ConfigurationKind(kind),
                    attributes: attributes
                        .into_iter()
                        .map(|(kind, value)| Attribute {
                            kind: AttributeKind(kind),
                            value,
                        })
                        .collect(),
                })
            }
        ),
        (unknown_kind, octets_up_to(99)).prop_map(|(kind, body)| Payload::Unknown {
            kind: PayloadKind(kind),
            critical: PayloadKind(kind).is_defined(),
            body,
        }),
    ]
}

pub(super) fn header() -> impl Strategy<Value = Header> {
    (
        1u64..,
        any::<u64>(),
        any::<u8>(),
        any::<[bool; 2]>(),
        any::<u32>(),
    )
        .prop_map(
            |(initiator_spi, responder_spi, exchange, [initiator, response], id)| Header {
                initiator_spi: IkeSpi(initiator_spi),
                responder_spi: IkeSpi(responder_spi),
                exchange: Exchange::from_number(exchange),
                initiator,
                response,
                message_id: MessageId(id),
            },
        )
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(header in header(), payloads in vec(payload(), 0..9)) {
        let datagram = emit(&header, &payloads);
        prop_assert_eq!(read(&datagram), Ok((header, payloads)));
        prop_assert_eq!(Header::parse(&datagram), Ok(header));
    }

    #[test]
    fn every_truncation_is_an_error(payloads in vec(payload(), 1..5)) {
        let datagram = emit(&HEADER, &payloads);
        for length in 0..datagram.len() {
            let mut cut = datagram[..length].to_vec();
            prop_assert!(read(&cut).is_err());
            // The same with a header that knows its length: only the chain can tell.
            if let Some(field) = cut.get_mut(24..28) {
                field.copy_from_slice(&(length as u32).to_be_bytes());
            }
            prop_assert!(read(&cut).is_err());
        }
    }

    /// Whatever is understood of a damaged message is written and read to the same values.
    #[test]
    fn every_bit_flip_is_refused_or_understood(payloads in vec(payload(), 1..3)) {
        let datagram = emit(&HEADER, &payloads);
        for bit in 0..datagram.len() * 8 {
            let mut damaged = datagram.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(Parsed::Clear { header, payloads }) = parse(&damaged) {
                let again = emit(&header, &payloads);
                prop_assert_eq!(read(&again), Ok((header, payloads)));
            }
        }
    }

    #[test]
    fn random_octets_are_refused_or_understood(
        kind: u8, next: u8, body in octets_up_to(200), tail in octets_up_to(40),
    ) {
        for body in [body.clone(), octets("0000001401030401aabbccdd"), tail.clone()] {
            let mut datagram = message(kind, &body);
            datagram[28] = next;
            datagram.extend(&tail);
            let length = datagram.len() as u32;
            datagram[24..28].copy_from_slice(&length.to_be_bytes());
            if let Ok(Parsed::Clear { header, payloads }) = parse(&datagram) {
                let again = emit(&header, &payloads);
                prop_assert_eq!(read(&again), Ok((header, payloads)));
            }
        }
        let _ = parse(&body);
    }
}
