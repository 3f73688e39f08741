//! Values to octets.
//!
//! A count or length that its field cannot say is clipped, as is the list or data that it counts:
//! the message stays well formed. Configuration keeps all of them far below.

use std::net::IpAddr;

use hitless_sa::TrafficSelector;

use super::parse::{FLAG_CRITICAL, FLAG_INITIATOR, FLAG_RESPONSE, TS_IPV4, TS_IPV6};
use super::{
    Delete, HEADER_LENGTH, Header, Notify, PAYLOAD_HEADER_LENGTH, Payload, PayloadKind, Proposal,
    Protocol, Transform,
};

/// Major version 2, minor version 0 (RFC 7296 section 3.1).
const VERSION: u8 = 0x20;

/// Writes a message without SK payload.
pub fn emit(header: &Header, payloads: &[Payload]) -> Vec<u8> {
    let body = emit_payloads(payloads);
    let mut out = Vec::with_capacity(HEADER_LENGTH + body.len());
    emit_header(
        &mut out,
        header,
        first_kind(payloads),
        HEADER_LENGTH + body.len(),
    );
    out.extend(body);
    out
}

/// Writes the header of a message that has `length` octets in all.
pub(in crate::ike) fn emit_header(
    out: &mut Vec<u8>,
    header: &Header,
    first: PayloadKind,
    length: usize,
) {
    let mut flags = 0;
    if header.initiator {
        flags |= FLAG_INITIATOR;
    }
    if header.response {
        flags |= FLAG_RESPONSE;
    }
    out.extend(header.initiator_spi.0.to_be_bytes());
    out.extend(header.responder_spi.0.to_be_bytes());
    out.extend([first.0, VERSION, header.exchange.number(), flags]);
    out.extend(header.message_id.0.to_be_bytes());
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

/// The type that the header, or the SK payload's generic header, announces.
pub(in crate::ike) fn first_kind(payloads: &[Payload]) -> PayloadKind {
    payloads.first().map_or(PayloadKind::NONE, Payload::kind)
}

/// Writes a chain of payloads.
pub(in crate::ike) fn emit_payloads(payloads: &[Payload]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, payload) in payloads.iter().enumerate() {
        let next = payloads
            .get(index + 1)
            .map_or(PayloadKind::NONE, Payload::kind);
        let critical = match payload {
            Payload::Unknown { critical: true, .. } => FLAG_CRITICAL,
            _ => 0,
        };
        out.extend([next.0, critical]);
        let body = emit_body(payload);
        put_counted(&mut out, PAYLOAD_HEADER_LENGTH, &body);
    }
    out
}

/// A 16-bit length that also counts `before` octets, then the octets themselves.
fn put_counted(out: &mut Vec<u8>, before: usize, octets: &[u8]) {
    let fits = octets.len().min(usize::from(u16::MAX) - before);
    let length = u16::try_from(before + fits).unwrap_or(u16::MAX);
    out.extend(length.to_be_bytes());
    out.extend(octets.iter().take(fits));
}

fn count(items: usize) -> u8 {
    u8::try_from(items).unwrap_or(u8::MAX)
}

fn emit_body(payload: &Payload) -> Vec<u8> {
    let mut out = Vec::new();
    match payload {
        Payload::SecurityAssociation(proposals) => emit_proposals(&mut out, proposals),
        Payload::KeyExchange { method, data } => {
            out.extend(method.to_be_bytes());
            out.extend([0, 0]);
            out.extend(data);
        }
        Payload::IdInitiator(id) | Payload::IdResponder(id) => out.extend(&id.raw),
        Payload::Auth { method, data } => {
            out.extend([*method, 0, 0, 0]);
            out.extend(data);
        }
        Payload::Notify(notify) => emit_notify(&mut out, notify),
        Payload::Delete(delete) => emit_delete(&mut out, delete),
        Payload::TsInitiator(selectors) | Payload::TsResponder(selectors) => {
            emit_selectors(&mut out, selectors);
        }
        Payload::Configuration(configuration) => configuration.emit(&mut out),
        Payload::Nonce(body) | Payload::VendorId(body) | Payload::Unknown { body, .. } => {
            out.extend(body);
        }
    }
    out
}

fn emit_proposals(out: &mut Vec<u8>, proposals: &[Proposal]) {
    let proposals = proposals.get(..usize::from(u8::MAX)).unwrap_or(proposals);
    for (index, proposal) in proposals.iter().enumerate() {
        let transforms = &proposal.transforms;
        let transforms = transforms.get(..usize::from(u8::MAX)).unwrap_or(transforms);
        let spi_size = count(proposal.spi.len());
        let mut body = vec![
            proposal.number,
            proposal.protocol.number(),
            spi_size,
            count(transforms.len()),
        ];
        body.extend(proposal.spi.iter().take(usize::from(spi_size)));
        for (index, transform) in transforms.iter().enumerate() {
            let mark = if index + 1 == transforms.len() { 0 } else { 3 };
            emit_transform(&mut body, mark, transform);
        }
        let mark = if index + 1 == proposals.len() { 0 } else { 2 };
        out.extend([mark, 0]);
        put_counted(out, 4, &body);
    }
}

fn emit_transform(out: &mut Vec<u8>, mark: u8, transform: &Transform) {
    let mut body = vec![transform.kind, 0];
    body.extend(transform.id.to_be_bytes());
    if let Some(bits) = transform.key_length {
        body.extend([0x80, 14]);
        body.extend(bits.to_be_bytes());
    }
    body.extend(&transform.unknown_attributes);
    out.extend([mark, 0]);
    put_counted(out, 4, &body);
}

fn emit_notify(out: &mut Vec<u8>, notify: &Notify) {
    let spi_size = count(notify.spi.len());
    out.extend([notify.protocol, spi_size]);
    out.extend(notify.kind.0.to_be_bytes());
    out.extend(notify.spi.iter().take(usize::from(spi_size)));
    out.extend(&notify.data);
}

fn emit_delete(out: &mut Vec<u8>, delete: &Delete) {
    let (protocol, spi_size, spis) = match delete {
        Delete::Ike => (Protocol::Ike.number(), 0, Vec::new()),
        Delete::Esp(spis) => {
            let octets = spis.iter().flat_map(|spi| spi.0.to_be_bytes()).collect();
            (Protocol::Esp.number(), 4, octets)
        }
        Delete::Other {
            protocol,
            spi_size,
            spis,
        } => (*protocol, *spi_size, spis.clone()),
    };
    let size = usize::from(spi_size);
    let count = spis.len().checked_div(size).unwrap_or(0);
    let count = u16::try_from(count).unwrap_or(u16::MAX);
    out.extend([protocol, spi_size]);
    out.extend(count.to_be_bytes());
    out.extend(spis.iter().take(usize::from(count) * size));
}

fn emit_selectors(out: &mut Vec<u8>, selectors: &[TrafficSelector]) {
    out.extend([count(selectors.len()), 0, 0, 0]);
    for selector in selectors.iter().take(usize::from(u8::MAX)) {
        let mut body = Vec::with_capacity(36);
        body.extend(selector.start_port.to_be_bytes());
        body.extend(selector.end_port.to_be_bytes());
        let kind = match selector.start {
            IpAddr::V4(_) => TS_IPV4,
            IpAddr::V6(_) => TS_IPV6,
        };
        for address in [selector.start, selector.end] {
            match address {
                IpAddr::V4(address) => body.extend(address.octets()),
                IpAddr::V6(address) => body.extend(address.octets()),
            }
        }
        out.extend([kind, selector.protocol]);
        put_counted(out, 4, &body);
    }
}
