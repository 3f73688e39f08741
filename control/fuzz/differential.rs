//! The same octets for us and for the crate `ipsec-parser`: whatever we accept it reads alike. It is
//! more lenient, so that nothing follows from what it accepts. The fuzz target, its corpus and the
//! property tests of the messages share this.

use hitless::ike::message::{Parsed, Payload, Proposal, parse};
use ipsec_parser::{
    IkeV2PayloadContent, IkeV2Proposal, parse_ikev2_header, parse_ikev2_payload_authentication,
    parse_ikev2_payload_generic, parse_ikev2_payload_ident_init, parse_ikev2_payload_kex,
    parse_ikev2_payload_nonce, parse_ikev2_payload_notify, parse_ikev2_payload_sa,
};

/// Number, protocol, SPI, and type and ID of each transform.
type SeenProposal = (u8, u8, Vec<u8>, Vec<(u8, u16)>);

/// Both SPIs, exchange, flags, Message ID, payloads.
pub type Message = (u64, u64, u8, u8, u32, Vec<Seen>);

/// What both say of one payload, in common words.
#[derive(PartialEq, Debug)]
pub enum Seen {
    Proposals(Vec<SeenProposal>),
    KeyExchange(u16, Vec<u8>),
    Identity(u8, Vec<u8>),
    /// The method and the length alone: `ipsec-parser` 0.7.0 forgets the three reserved octets.
    Auth(u8, usize),
    Nonce(Vec<u8>),
    Notify(u8, Vec<u8>, u16),
    /// A kind that is compared by its place in the chain only.
    Kind(u8),
}

fn ours(payload: &Payload) -> Seen {
    match payload {
        Payload::SecurityAssociation(proposals) if !proposals.is_empty() => {
            let one = |p: &Proposal| {
                let transforms = p.transforms.iter().map(|t| (t.kind, t.id)).collect();
                (p.number, p.protocol.number(), p.spi.clone(), transforms)
            };
            Seen::Proposals(proposals.iter().map(one).collect())
        }
        Payload::KeyExchange { method, data } => Seen::KeyExchange(*method, data.clone()),
        Payload::IdInitiator(id) => match id.raw.split_at_checked(4) {
            Some((head, name)) => Seen::Identity(head[0], name.to_vec()),
            None => Seen::Kind(payload.kind().0),
        },
        Payload::Auth { method, data } => Seen::Auth(*method, data.len()),
        Payload::Nonce(nonce) => Seen::Nonce(nonce.clone()),
        Payload::Notify(n) => Seen::Notify(n.protocol, n.spi.clone(), n.kind.0),
        other => Seen::Kind(other.kind().0),
    }
}

fn proposal(p: &IkeV2Proposal<'_>) -> SeenProposal {
    let transforms = p.transforms.iter();
    let transforms = transforms.map(|t| (t.transform_type.0, t.transform_id));
    let spi = p.spi.unwrap_or_default().to_vec();
    (p.proposal_num, p.protocol_id.0, spi, transforms.collect())
}

fn content(kind: u8, body: &[u8]) -> Option<Seen> {
    let length = u16::try_from(body.len()).ok()?;
    let parsed = match kind {
        33 if !body.is_empty() => parse_ikev2_payload_sa(body, length),
        34 => parse_ikev2_payload_kex(body, length),
        35 => parse_ikev2_payload_ident_init(body, length),
        39 => parse_ikev2_payload_authentication(body, length),
        40 => parse_ikev2_payload_nonce(body, length),
        // It counts the generic header too, here alone.
        41 => parse_ikev2_payload_notify(body, length.checked_add(4)?),
        kind => return Some(Seen::Kind(kind)),
    };
    let (_, parsed) = parsed.ok()?;
    Some(match parsed {
        IkeV2PayloadContent::SA(proposals) => {
            Seen::Proposals(proposals.iter().map(proposal).collect())
        }
        IkeV2PayloadContent::KE(ke) => Seen::KeyExchange(ke.dh_group.0, ke.kex_data.to_vec()),
        IkeV2PayloadContent::IDi(id) => Seen::Identity(id.id_type.0, id.ident_data.to_vec()),
        IkeV2PayloadContent::Authentication(auth) => {
            Seen::Auth(auth.auth_method.0, auth.auth_data.len())
        }
        IkeV2PayloadContent::Nonce(nonce) => Seen::Nonce(nonce.nonce_data.to_vec()),
        IkeV2PayloadContent::Notify(n) => {
            let spi = n.spi.unwrap_or_default().to_vec();
            Seen::Notify(n.protocol_id.0, spi, n.notify_type.0)
        }
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
        seen.push(content(kind, generic.payload)?);
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
    let seen = (
        header.initiator_spi.0,
        header.responder_spi.0,
        header.exchange.number(),
        flags,
        header.message_id.0,
        payloads.iter().map(ours).collect(),
    );
    Some((seen, theirs(datagram)))
}
