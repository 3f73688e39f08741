//! The same octets for us and for the crate `ipsec-parser`: whatever we accept it reads alike, field by
//! field. It is more lenient, so that nothing follows from what it accepts. The fuzz target, its corpus and the
//! property tests of the messages share this.

use std::net::IpAddr;

use hitless::ike::message::{Delete, IdBody, Parsed, Payload, Proposal, Transform, parse};
use ipsec_parser::{
    IkeV2PayloadContent, IkeV2Proposal, IkeV2RawTransform, TrafficSelector as TheirSelector,
    TrafficSelectorPayload as TheirSelectors, parse_ikev2_header,
    parse_ikev2_payload_authentication, parse_ikev2_payload_certificate,
    parse_ikev2_payload_delete, parse_ikev2_payload_generic, parse_ikev2_payload_ident_init,
    parse_ikev2_payload_ident_resp, parse_ikev2_payload_kex, parse_ikev2_payload_nonce,
    parse_ikev2_payload_notify, parse_ikev2_payload_sa, parse_ikev2_payload_ts_init,
    parse_ikev2_payload_ts_resp, parse_ikev2_payload_vendor_id,
};

/// Number, protocol, SPI, transforms.
type SeenProposal = (u8, u8, Vec<u8>, Vec<SeenTransform>);

/// Type, ID, key length, other attributes.
type SeenTransform = (u8, u16, Option<u16>, Vec<u8>);

/// Protocol, ports, addresses.
type SeenSelector = (u8, u16, u16, IpAddr, IpAddr);

/// Both SPIs, exchange, flags, Message ID, payloads.
pub type Message = (u64, u64, u8, u8, u32, Vec<Seen>);

/// What both say of one payload, in common words.
#[derive(PartialEq, Debug)]
pub enum Seen {
    Proposals(Vec<SeenProposal>),
    KeyExchange(u16, Vec<u8>),
    /// IDi or IDr.
    Identity(u8, u8, Vec<u8>),
    /// `ipsec-parser` 0.7.0 forgets the three reserved octets: the last three of the data are missing.
    Auth(u8, usize, Vec<u8>),
    Nonce(Vec<u8>),
    Notify(u8, Vec<u8>, u16, Vec<u8>),
    Delete(u8, u8, Vec<u8>),
    VendorId(Vec<u8>),
    /// TSi or TSr. `ipsec-parser` stops at a selector of another type, which we pass over.
    Selectors(u8, Vec<SeenSelector>),
    /// CERT: encoding and data.
    Certificate(u8, Vec<u8>),
    /// A kind that it has no reader for, or none that we use.
    Other(u8, bool, Vec<u8>),
    /// A kind that is compared by its place in the chain only.
    Kind(u8),
}

fn identity(kind: u8, id: &IdBody) -> Seen {
    match id.raw.split_at_checked(4) {
        Some((head, name)) => Seen::Identity(kind, head[0], name.to_vec()),
        None => Seen::Kind(kind),
    }
}

fn ours(payload: &Payload) -> Seen {
    let number = payload.kind().0;
    match payload {
        Payload::SecurityAssociation(proposals) if !proposals.is_empty() => {
            let transform =
                |t: &Transform| (t.kind, t.id, t.key_length, t.unknown_attributes.clone());
            let one = |p: &Proposal| {
                let transforms = p.transforms.iter().map(transform).collect();
                (p.number, p.protocol.number(), p.spi.clone(), transforms)
            };
            Seen::Proposals(proposals.iter().map(one).collect())
        }
        Payload::KeyExchange { method, data } => Seen::KeyExchange(*method, data.clone()),
        Payload::IdInitiator(id) | Payload::IdResponder(id) => identity(number, id),
        Payload::Auth { method, data } => {
            let seen = data.len().saturating_sub(3);
            Seen::Auth(*method, data.len(), data[..seen].to_vec())
        }
        Payload::Nonce(nonce) => Seen::Nonce(nonce.clone()),
        Payload::Notify(n) => Seen::Notify(n.protocol, n.spi.clone(), n.kind.0, n.data.clone()),
        Payload::Delete(delete) => match delete {
            Delete::Ike => Seen::Delete(1, 0, Vec::new()),
            Delete::Esp(spis) => {
                let octets = spis.iter().flat_map(|spi| spi.0.to_be_bytes());
                Seen::Delete(3, 4, octets.collect())
            }
            Delete::Other {
                protocol,
                spi_size,
                spis,
            } => Seen::Delete(*protocol, *spi_size, spis.clone()),
        },
        Payload::VendorId(id) => Seen::VendorId(id.clone()),
        Payload::TsInitiator(selectors) | Payload::TsResponder(selectors) => {
            let one = |ts: &hitless_sa::TrafficSelector| {
                (ts.protocol, ts.start_port, ts.end_port, ts.start, ts.end)
            };
            Seen::Selectors(number, selectors.iter().map(one).collect())
        }
        Payload::Unknown { kind, body, .. } if kind.0 == 37 => match body.split_first() {
            Some((encoding, data)) => Seen::Certificate(*encoding, data.to_vec()),
            None => Seen::Kind(37),
        },
        Payload::Unknown { critical, body, .. } => Seen::Other(number, *critical, body.clone()),
        other => Seen::Kind(other.kind().0),
    }
}

/// Key length and the rest of a transform's attributes (RFC 7296 section 3.3.5).
fn transform(t: &IkeV2RawTransform<'_>) -> SeenTransform {
    let mut rest = t.attributes.unwrap_or_default();
    let (mut key_length, mut others) = (None, Vec::new());
    while let Some(([a, b, c, d], behind)) = rest.split_first_chunk::<4>() {
        let value = u16::from_be_bytes([*c, *d]);
        if (*a, *b) == (0x80, 14) && key_length.is_none() {
            key_length = Some(value);
            rest = behind;
            continue;
        }
        let long = if a & 0x80 == 0 { usize::from(value) } else { 0 };
        let (attribute, behind) = rest.split_at((4 + long).min(rest.len()));
        others.extend(attribute);
        rest = behind;
    }
    (t.transform_type.0, t.transform_id, key_length, others)
}

fn proposal(p: &IkeV2Proposal<'_>) -> SeenProposal {
    let spi = p.spi.unwrap_or_default().to_vec();
    let transforms = p.transforms.iter().map(transform).collect();
    (p.proposal_num, p.protocol_id.0, spi, transforms)
}

fn selectors(number: u8, ts: &TheirSelectors<'_>) -> Seen {
    let address = |octets: &[u8]| match (<[u8; 4]>::try_from(octets), <[u8; 16]>::try_from(octets))
    {
        (Ok(four), _) => Some(IpAddr::from(four)),
        (_, Ok(sixteen)) => Some(IpAddr::from(sixteen)),
        _ => None,
    };
    let one = |ts: &TheirSelector<'_>| {
        let (start, end) = (address(ts.start_addr)?, address(ts.end_addr)?);
        Some((ts.ip_proto_id, ts.start_port, ts.end_port, start, end))
    };
    Seen::Selectors(number, ts.ts.iter().filter_map(one).collect())
}

fn content(kind: u8, critical: bool, body: &[u8]) -> Option<Seen> {
    let length = u16::try_from(body.len()).ok()?;
    // It counts the generic header too in a Notify, and twice in a Delete and a Vendor ID.
    let parsed = match kind {
        33 if !body.is_empty() => parse_ikev2_payload_sa(body, length),
        34 => parse_ikev2_payload_kex(body, length),
        35 => parse_ikev2_payload_ident_init(body, length),
        36 => parse_ikev2_payload_ident_resp(body, length),
        37 if !body.is_empty() => parse_ikev2_payload_certificate(body, length),
        39 => parse_ikev2_payload_authentication(body, length),
        40 => parse_ikev2_payload_nonce(body, length),
        41 => parse_ikev2_payload_notify(body, length.checked_add(4)?),
        42 => parse_ikev2_payload_delete(body, length.checked_add(4)?),
        43 => parse_ikev2_payload_vendor_id(body, length.checked_add(8)?),
        // None, and at least one that it does not know: it takes neither.
        44 | 45 if !matches!(body.get(4), Some(7 | 8)) => {
            return Some(Seen::Selectors(kind, Vec::new()));
        }
        44 => parse_ikev2_payload_ts_init(body, length),
        45 => parse_ikev2_payload_ts_resp(body, length),
        33 | 37 | 47 => return Some(Seen::Kind(kind)),
        kind => return Some(Seen::Other(kind, critical, body.to_vec())),
    };
    let (_, parsed) = parsed.ok()?;
    Some(match parsed {
        IkeV2PayloadContent::SA(proposals) => {
            Seen::Proposals(proposals.iter().map(proposal).collect())
        }
        IkeV2PayloadContent::KE(ke) => Seen::KeyExchange(ke.dh_group.0, ke.kex_data.to_vec()),
        IkeV2PayloadContent::IDi(id) | IkeV2PayloadContent::IDr(id) => {
            Seen::Identity(kind, id.id_type.0, id.ident_data.to_vec())
        }
        IkeV2PayloadContent::Certificate(c) => {
            Seen::Certificate(c.cert_encoding.0, c.cert_data.to_vec())
        }
        IkeV2PayloadContent::Authentication(auth) => {
            let data = auth.auth_data.get(3..).unwrap_or_default();
            Seen::Auth(auth.auth_method.0, auth.auth_data.len(), data.to_vec())
        }
        IkeV2PayloadContent::Nonce(nonce) => Seen::Nonce(nonce.nonce_data.to_vec()),
        IkeV2PayloadContent::Notify(n) => {
            let (spi, data) = (n.spi.unwrap_or_default(), n.notify_data.unwrap_or_default());
            Seen::Notify(
                n.protocol_id.0,
                spi.to_vec(),
                n.notify_type.0,
                data.to_vec(),
            )
        }
        IkeV2PayloadContent::Delete(d) => Seen::Delete(d.protocol_id.0, d.spi_size, d.spi.to_vec()),
        IkeV2PayloadContent::VendorID(v) => Seen::VendorId(v.vendor_id.to_vec()),
        IkeV2PayloadContent::TSi(ts) | IkeV2PayloadContent::TSr(ts) => selectors(kind, &ts),
        _ => return None,
    })
}

/// The header's fields and the payloads, as `ipsec-parser` reads them.
fn theirs(datagram: &[u8]) -> Option<Message> {
    let (mut rest, header) = parse_ikev2_header(datagram).ok()?;
    let mut kind = header.next_payload.0;
    let mut seen = Vec::new();
    while kind != 0 {
        let (after, generic) = parse_ikev2_payload_generic(rest).ok()?;
        seen.push(content(kind, generic.hdr.critical, generic.payload)?);
        kind = generic.hdr.next_payload_type.0;
        rest = after;
    }
    let exchange = header.exch_type.0;
    let (flags, id) = (header.flags & 0x28, header.msg_id);
    rest.is_empty()
        .then_some((header.init_spi, header.resp_spi, exchange, flags, id, seen))
}

/// What we accept of a datagram, and what the other parser reads of it.
pub fn readings(datagram: &[u8]) -> Option<(Message, Option<Message>)> {
    let Ok(Parsed::Clear { header, payloads }) = parse(datagram) else {
        return None;
    };
    let mut flags = 0;
    if header.initiator {
        flags |= 0x08;
    }
    if header.response {
        flags |= 0x20;
    }
    let theirs = theirs(datagram);
    let mut seen: Vec<Seen> = payloads.iter().map(ours).collect();
    let others = theirs.iter().flat_map(|message| &message.5);
    for (ours, theirs) in seen.iter_mut().zip(others) {
        if let (Seen::Selectors(_, ours), Seen::Selectors(_, theirs)) = (ours, theirs) {
            ours.truncate(theirs.len());
        }
    }
    let seen = (
        header.initiator_spi.0,
        header.responder_spi.0,
        header.exchange.number(),
        flags,
        header.message_id.0,
        seen,
    );
    Some((seen, theirs))
}
