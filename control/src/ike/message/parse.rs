//! Octets to values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hitless_sa::{IkeSpi, MessageId, Spi, TrafficSelector};

use super::configuration::Configuration;
use super::{
    Delete, Exchange, Fault, HEADER_LENGTH, Header, IdBody, MAX_MESSAGE_LENGTH, MAX_PAYLOADS,
    MessageError, Notify, NotifyKind, PAYLOAD_HEADER_LENGTH, Payload, PayloadKind, Proposal,
    Protocol, Transform,
};
use crate::ike::proposal::Identification;

/// A message of which everything that is not encrypted has been read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed<'a> {
    /// Without SK payload: IKE_SA_INIT, and answers to unknown SPIs.
    Clear {
        header: Header,
        payloads: Vec<Payload>,
    },
    /// With an SK payload; `crypto::sk` opens the datagram. Payloads in front of the SK payload
    /// are checked but not kept: no exchange has a use for them.
    Protected { header: Header, datagram: &'a [u8] },
    /// With an SKF payload (RFC 7383): a part of a message.
    Fragment {
        header: Header,
        place: FragmentPlace,
        datagram: &'a [u8],
    },
}

/// Fragment Number and Total Fragments (RFC 7383 section 2.5): the first is from one to the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FragmentPlace {
    pub number: u16,
    pub total: u16,
}

/// Where the SK payload of a datagram lies.
pub(in crate::ike) struct Sealed {
    /// Type of the first payload inside.
    pub first: PayloadKind,
    /// Offset of the IV: just behind the generic header, and behind the place of a fragment.
    pub body: usize,
    /// It is an SKF payload.
    pub place: Option<FragmentPlace>,
}

impl Header {
    /// Reads and checks the header alone, so that a message with bad payloads can be answered.
    pub fn parse(datagram: &[u8]) -> Result<Header, MessageError> {
        header_and_first(datagram).map(|(header, _)| header)
    }
}

/// Reads a datagram (without non-ESP marker): the header, and all payloads that are not encrypted.
pub fn parse(datagram: &[u8]) -> Result<Parsed<'_>, MessageError> {
    let (header, first) = header_and_first(datagram)?;
    match walk(datagram, first)? {
        (payloads, None) => Ok(Parsed::Clear { header, payloads }),
        (_, Some(Sealed { place: None, .. })) => Ok(Parsed::Protected { header, datagram }),
        (
            _,
            Some(Sealed {
                place: Some(place), ..
            }),
        ) => Ok(Parsed::Fragment {
            header,
            place,
            datagram,
        }),
    }
}

/// Finds the SK or SKF payload.
pub(in crate::ike) fn locate_sealed(datagram: &[u8]) -> Result<Sealed, MessageError> {
    let (_, first) = header_and_first(datagram)?;
    let (_, sealed) = walk(datagram, first)?;
    sealed.ok_or(MessageError::NotProtected)
}

/// Reads a chain of payloads that fills `octets`, as it is found inside an SK payload.
pub(in crate::ike) fn parse_payloads(
    first: PayloadKind,
    octets: &[u8],
) -> Result<Vec<Payload>, MessageError> {
    match walk_chain(first, octets)? {
        (payloads, None) => Ok(payloads),
        (_, Some(sealed)) => Err(MessageError::Payload {
            kind: match sealed.place {
                None => PayloadKind::SK,
                Some(_) => PayloadKind::SKF,
            },
            fault: Fault::Misplaced,
        }),
    }
}

fn header_and_first(datagram: &[u8]) -> Result<(Header, PayloadKind), MessageError> {
    if datagram.len() > MAX_MESSAGE_LENGTH {
        return Err(MessageError::TooLong(datagram.len()));
    }
    let mut reader = Reader(datagram);
    let mut read = || -> Result<_, Fault> {
        let initiator_spi = IkeSpi(reader.u64()?);
        let responder_spi = IkeSpi(reader.u64()?);
        let [first, version, exchange, flags] = reader.array()?;
        let (message_id, length) = (reader.u32()?, reader.u32()?);
        let header = Header {
            initiator_spi,
            responder_spi,
            exchange: Exchange::from_number(exchange),
            initiator: flags & FLAG_INITIATOR != 0,
            response: flags & FLAG_RESPONSE != 0,
            message_id: MessageId(message_id),
        };
        Ok((header, PayloadKind(first), version >> 4, length))
    };
    let (header, first, major, length) =
        read().map_err(|_| MessageError::NoHeader(datagram.len()))?;
    // RFC 7296 section 2.5: the minor version and the V flag are ignored, the major is not.
    if major != 2 {
        return Err(MessageError::MajorVersion(major));
    }
    if usize::try_from(length) != Ok(datagram.len()) {
        return Err(MessageError::HeaderLength {
            claimed: length,
            actual: datagram.len(),
        });
    }
    if header.initiator_spi == IkeSpi(0) {
        return Err(MessageError::ZeroSpi);
    }
    Ok((header, first))
}

pub(super) const FLAG_INITIATOR: u8 = 0x08;
pub(super) const FLAG_RESPONSE: u8 = 0x20;
pub(super) const FLAG_CRITICAL: u8 = 0x80;

fn walk(
    datagram: &[u8],
    first: PayloadKind,
) -> Result<(Vec<Payload>, Option<Sealed>), MessageError> {
    let octets = datagram.get(HEADER_LENGTH..).unwrap_or_default();
    let (payloads, sealed) = walk_chain(first, octets)?;
    Ok((
        payloads,
        sealed.map(|s| Sealed {
            body: s.body + HEADER_LENGTH,
            ..s
        }),
    ))
}

/// Follows the chain to its end or to an SK payload, whose body offset is relative to `octets`.
fn walk_chain(
    first: PayloadKind,
    octets: &[u8],
) -> Result<(Vec<Payload>, Option<Sealed>), MessageError> {
    let mut payloads = Vec::new();
    let mut kind = first;
    let mut left = octets;
    while kind != PayloadKind::NONE {
        if payloads.len() == MAX_PAYLOADS {
            return Err(MessageError::TooManyPayloads);
        }
        let at = |fault| MessageError::Payload { kind, fault };
        let raw = split_payload(left).map_err(at)?;
        if matches!(kind, PayloadKind::SK | PayloadKind::SKF) {
            // RFC 7296 section 3.14: it is the last; its next payload is the first one inside.
            if !raw.rest.is_empty() {
                return Err(at(Fault::Misplaced));
            }
            let mut body = Reader(raw.body);
            let place = match kind {
                PayloadKind::SKF => Some(fragment_place(&mut body).map_err(at)?),
                _ => None,
            };
            let sealed = Sealed {
                first: raw.next,
                body: octets.len() - body.0.len(),
                place,
            };
            return Ok((payloads, Some(sealed)));
        }
        if raw.critical && !kind.is_defined() {
            return Err(MessageError::UnsupportedCritical(kind));
        }
        payloads.push(parse_body(kind, raw.critical, raw.body).map_err(at)?);
        (kind, left) = (raw.next, raw.rest);
    }
    match left.len() {
        0 => Ok((payloads, None)),
        octets => Err(MessageError::Payload {
            kind: payloads.last().map_or(PayloadKind::NONE, Payload::kind),
            fault: Fault::Trailing(octets),
        }),
    }
}

/// RFC 7383 section 2.5: the number is at least one, the total not below it; and only the first
/// fragment names a payload inside, which nothing depends on.
fn fragment_place(body: &mut Reader<'_>) -> Result<FragmentPlace, Fault> {
    let (number, total) = (body.u16()?, body.u16()?);
    let fits = number > 0 && number <= total;
    fits.then_some(FragmentPlace { number, total })
        .ok_or(Fault::Count)
}

/// One payload of a chain (RFC 7296 section 3.2).
struct RawPayload<'a> {
    next: PayloadKind,
    critical: bool,
    body: &'a [u8],
    /// What follows the payload.
    rest: &'a [u8],
}

fn split_payload(octets: &[u8]) -> Result<RawPayload<'_>, Fault> {
    let mut reader = Reader(octets);
    let [next, flags] = reader.array().map_err(|_| Fault::NoHeader)?;
    let claimed = reader.u16().map_err(|_| Fault::NoHeader)?;
    let body = usize::from(claimed)
        .checked_sub(PAYLOAD_HEADER_LENGTH)
        .and_then(|length| reader.take(length).ok())
        .ok_or(Fault::Length {
            claimed,
            left: octets.len(),
        })?;
    Ok(RawPayload {
        next: PayloadKind(next),
        critical: flags & FLAG_CRITICAL != 0,
        body,
        rest: reader.0,
    })
}

fn parse_body(kind: PayloadKind, critical: bool, body: &[u8]) -> Result<Payload, Fault> {
    Ok(match kind {
        PayloadKind::SA => Payload::SecurityAssociation(proposals(body)?),
        PayloadKind::KE => {
            let mut reader = Reader(body);
            let [high, low, _, _] = reader.array()?;
            Payload::KeyExchange {
                method: u16::from_be_bytes([high, low]),
                data: reader.0.to_vec(),
            }
        }
        PayloadKind::ID_INITIATOR => Payload::IdInitiator(identification(body)?),
        PayloadKind::ID_RESPONDER => Payload::IdResponder(identification(body)?),
        PayloadKind::AUTH => {
            let mut reader = Reader(body);
            let [method, _, _, _] = reader.array()?;
            Payload::Auth {
                method,
                data: reader.0.to_vec(),
            }
        }
        PayloadKind::NONCE => match body.len() {
            // RFC 7296 section 3.9: "the size of the Nonce Data MUST be between 16 and 256
            // octets, inclusive".
            16..=256 => Payload::Nonce(body.to_vec()),
            octets => return Err(Fault::NonceLength(octets)),
        },
        PayloadKind::NOTIFY => Payload::Notify(notify(body)?),
        PayloadKind::DELETE => Payload::Delete(delete(body)?),
        PayloadKind::VENDOR_ID => Payload::VendorId(body.to_vec()),
        PayloadKind::CP => Payload::Configuration(Configuration::parse(body)?),
        PayloadKind::TS_INITIATOR => Payload::TsInitiator(traffic_selectors(body)?),
        PayloadKind::TS_RESPONDER => Payload::TsResponder(traffic_selectors(body)?),
        kind => Payload::Unknown {
            kind,
            critical,
            body: body.to_vec(),
        },
    })
}

/// SA payload (RFC 7296 section 3.3).
fn proposals(body: &[u8]) -> Result<Vec<Proposal>, Fault> {
    const MORE: u8 = 2;
    let mut reader = Reader(body);
    let mut proposals = Vec::new();
    let mut more = !body.is_empty();
    while more {
        if proposals.len() == usize::from(u8::MAX) {
            return Err(Fault::TooMany);
        }
        let (mark, mut inner) = reader.substructure()?;
        more = more_follow(mark, MORE, &reader)?;
        let [number, protocol, spi_size, count] = inner.array()?;
        let protocol_id = Protocol::from_number(protocol);
        let fits = match protocol_id {
            // RFC 7296 section 3.3.1: zero in an initial exchange, eight in a rekey.
            Protocol::Ike => matches!(spi_size, 0 | 8),
            Protocol::Ah | Protocol::Esp => spi_size == 4,
            Protocol::Other(_) => true,
        };
        if !fits {
            return Err(Fault::SpiSize {
                protocol,
                size: spi_size,
            });
        }
        let spi = inner.take(usize::from(spi_size))?.to_vec();
        let transforms = transforms(inner.0)?;
        if transforms.len() != usize::from(count) {
            return Err(Fault::Count);
        }
        proposals.push(Proposal {
            number,
            protocol: protocol_id,
            spi,
            transforms,
        });
    }
    Ok(proposals)
}

/// Transforms of one proposal (RFC 7296 section 3.3.2).
fn transforms(body: &[u8]) -> Result<Vec<Transform>, Fault> {
    const MORE: u8 = 3;
    let mut reader = Reader(body);
    let mut transforms = Vec::new();
    let mut more = !body.is_empty();
    while more {
        let (mark, mut inner) = reader.substructure()?;
        more = more_follow(mark, MORE, &reader)?;
        let [kind, _, high, low] = inner.array()?;
        let mut transform = Transform::new(kind, u16::from_be_bytes([high, low]), None);
        attributes(inner, &mut transform)?;
        transforms.push(transform);
    }
    Ok(transforms)
}

/// Transform attributes (RFC 7296 section 3.3.5).
fn attributes(mut reader: Reader<'_>, transform: &mut Transform) -> Result<(), Fault> {
    const SHORT_FORM: u16 = 0x8000;
    const KEY_LENGTH: u16 = SHORT_FORM | 14;
    while !reader.0.is_empty() {
        let start = reader.0;
        let (kind, value) = (reader.u16()?, reader.u16()?);
        if kind == KEY_LENGTH && transform.key_length.is_none() {
            transform.key_length = Some(value);
            continue;
        }
        if kind & SHORT_FORM == 0 {
            reader.take(usize::from(value))?;
        }
        let attribute = start.len() - reader.0.len();
        transform
            .unknown_attributes
            .extend(start.iter().take(attribute));
    }
    Ok(())
}

fn more_follow(mark: u8, more: u8, rest: &Reader<'_>) -> Result<bool, Fault> {
    match (mark, rest.0.is_empty()) {
        (0, true) => Ok(false),
        (mark, false) if mark == more => Ok(true),
        _ => Err(Fault::Chain),
    }
}

/// Identification payload (RFC 7296 section 3.5).
fn identification(body: &[u8]) -> Result<IdBody, Fault> {
    let mut reader = Reader(body);
    let [kind, _, _, _] = reader.array()?;
    let id = Identification::from_wire(kind, reader.0).ok_or(Fault::Address)?;
    Ok(IdBody {
        id,
        raw: body.to_vec(),
    })
}

/// Notify payload (RFC 7296 section 3.10).
fn notify(body: &[u8]) -> Result<Notify, Fault> {
    let mut reader = Reader(body);
    let [protocol, spi_size] = reader.array()?;
    let kind = NotifyKind(reader.u16()?);
    let spi = reader.take(usize::from(spi_size))?.to_vec();
    Ok(Notify {
        protocol,
        spi,
        kind,
        data: reader.0.to_vec(),
    })
}

/// Delete payload (RFC 7296 section 3.11).
fn delete(body: &[u8]) -> Result<Delete, Fault> {
    let mut reader = Reader(body);
    let [protocol, spi_size] = reader.array()?;
    let count = usize::from(reader.u16()?);
    let spis = reader.0;
    let wrong_size = Fault::SpiSize {
        protocol,
        size: spi_size,
    };
    match (Protocol::from_number(protocol), spi_size) {
        (Protocol::Ike, 0) if spis.is_empty() => return Ok(Delete::Ike),
        (Protocol::Ike, 0) => return Err(Fault::Trailing(spis.len())),
        (Protocol::Esp, 4) => {}
        (Protocol::Ike | Protocol::Esp, _) | (_, 0) => return Err(wrong_size),
        _ => {}
    }
    if count.checked_mul(usize::from(spi_size)) != Some(spis.len()) {
        return Err(Fault::Count);
    }
    if Protocol::from_number(protocol) != Protocol::Esp {
        return Ok(Delete::Other {
            protocol,
            spi_size,
            spis: spis.to_vec(),
        });
    }
    let mut esp = Vec::with_capacity(count);
    while !reader.0.is_empty() {
        esp.push(Spi(reader.u32()?));
    }
    Ok(Delete::Esp(esp))
}

/// Traffic Selector payload (RFC 7296 section 3.13). Selector types that we do not know match no
/// packet of ours and are left out, which narrows to the others.
fn traffic_selectors(body: &[u8]) -> Result<Vec<TrafficSelector>, Fault> {
    let mut reader = Reader(body);
    let [count, _, _, _] = reader.array()?;
    let mut selectors = Vec::new();
    for _ in 0..count {
        let [kind, protocol] = reader.array()?;
        let length = usize::from(reader.u16()?);
        let mut inner = Reader(reader.take(length.checked_sub(4).ok_or(Fault::Truncated)?)?);
        if !matches!(kind, TS_IPV4 | TS_IPV6) {
            continue;
        }
        let (start_port, end_port) = (inner.u16()?, inner.u16()?);
        let (start, end): (IpAddr, IpAddr) = if kind == TS_IPV4 {
            let (start, end): ([u8; 4], [u8; 4]) = (inner.array()?, inner.array()?);
            (Ipv4Addr::from(start).into(), Ipv4Addr::from(end).into())
        } else {
            let (start, end): ([u8; 16], [u8; 16]) = (inner.array()?, inner.array()?);
            (Ipv6Addr::from(start).into(), Ipv6Addr::from(end).into())
        };
        if !inner.0.is_empty() || start > end {
            return Err(Fault::Address);
        }
        selectors.push(TrafficSelector {
            protocol,
            start_port,
            end_port,
            start,
            end,
        });
    }
    match reader.0.len() {
        0 => Ok(selectors),
        _ => Err(Fault::Count),
    }
}

pub(super) const TS_IPV4: u8 = 7;
pub(super) const TS_IPV6: u8 = 8;

/// Octets that have not been read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, octets: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(octets).ok_or(Fault::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Fault::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_be_bytes)
    }

    /// A proposal or transform: its more-or-last mark and its content (RFC 7296 section 3.3).
    fn substructure(&mut self) -> Result<(u8, Reader<'a>), Fault> {
        let [mark, _] = self.array()?;
        let length = usize::from(self.u16()?);
        let content = self.take(length.checked_sub(4).ok_or(Fault::Truncated)?)?;
        Ok((mark, Reader(content)))
    }
}
