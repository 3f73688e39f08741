//! IKE messages octet by octet (RFC 7296 section 3), with every field at the writer's mercy; and a
//! reader of what comes back. It shares nothing with the gateway's own writer and reader.

/// Exchange types (RFC 7296 section 3.1).
pub const IKE_SA_INIT: u8 = 34;
pub const IKE_AUTH: u8 = 35;
pub const CREATE_CHILD_SA: u8 = 36;
pub const INFORMATIONAL: u8 = 37;

/// Flags of the header (RFC 7296 section 3.1).
pub const INITIATOR: u8 = 0x08;
pub const RESPONSE: u8 = 0x20;

/// Payload types (RFC 7296 section 3.2, RFC 7383 section 2.5).
pub const SA: u8 = 33;
pub const KE: u8 = 34;
pub const IDI: u8 = 35;
pub const IDR: u8 = 36;
pub const AUTH: u8 = 39;
pub const NONCE: u8 = 40;
pub const NOTIFY: u8 = 41;
pub const DELETE: u8 = 42;
pub const VENDOR: u8 = 43;
pub const TSI: u8 = 44;
pub const TSR: u8 = 45;
pub const SK: u8 = 46;
pub const EAP: u8 = 48;
pub const SKF: u8 = 53;
/// Of no RFC.
pub const UNKNOWN: u8 = 127;

/// Flag of the generic payload header (RFC 7296 section 3.2).
pub const CRITICAL: u8 = 0x80;

/// Protocols (RFC 7296 section 3.3.1).
pub const PROTOCOL_IKE: u8 = 1;
pub const PROTOCOL_AH: u8 = 2;
pub const PROTOCOL_ESP: u8 = 3;

const HEADER: usize = 28;
const GENERIC: usize = 4;

/// One payload; what is `None` is filled in as it should be.
#[derive(Clone, Debug)]
pub struct Raw {
    pub kind: u8,
    pub flags: u8,
    pub body: Vec<u8>,
    pub length: Option<u16>,
    pub next: Option<u8>,
}

impl Raw {
    pub fn new(kind: u8, body: impl Into<Vec<u8>>) -> Raw {
        Raw {
            kind,
            flags: 0,
            body: body.into(),
            length: None,
            next: None,
        }
    }

    pub fn flagged(self, flags: u8) -> Raw {
        Raw { flags, ..self }
    }
}

/// Notify about the exchange or the IKE SA (RFC 7296 section 3.10).
pub fn notify(kind: u16, data: &[u8]) -> Raw {
    notify_about(0, &[], kind, data)
}

pub fn notify_about(protocol: u8, spi: &[u8], kind: u16, data: &[u8]) -> Raw {
    let [high, low] = kind.to_be_bytes();
    let mut body = vec![protocol, spi.len() as u8, high, low];
    body.extend(spi);
    body.extend(data);
    Raw::new(NOTIFY, body)
}

/// Delete (RFC 7296 section 3.11), with a count of its own.
pub fn delete(protocol: u8, size: u8, count: u16, spis: &[u8]) -> Raw {
    let mut body = vec![protocol, size];
    body.extend(count.to_be_bytes());
    body.extend(spis);
    Raw::new(DELETE, body)
}

pub fn key_exchange(group: u16, public: &[u8]) -> Raw {
    let mut body = group.to_be_bytes().to_vec();
    body.extend([0, 0]);
    body.extend(public);
    Raw::new(KE, body)
}

/// One transform; `attributes` are octets as they are sent (RFC 7296 section 3.3.2).
#[derive(Clone, Debug)]
pub struct Transform {
    pub kind: u8,
    pub id: u16,
    pub attributes: Vec<u8>,
}

pub fn transform(kind: u8, id: u16) -> Transform {
    Transform {
        kind,
        id,
        attributes: Vec::new(),
    }
}

/// AES-GCM-16 with the attribute Key Length.
pub fn aes_gcm(bits: u16) -> Transform {
    let mut attributes = vec![0x80, 14];
    attributes.extend(bits.to_be_bytes());
    Transform {
        kind: 1,
        id: 20,
        attributes,
    }
}

/// One proposal; `None` in it is filled in as it should be.
#[derive(Clone, Debug)]
pub struct Proposal {
    pub number: u8,
    pub protocol: u8,
    pub spi: Vec<u8>,
    pub transforms: Vec<Transform>,
    pub spi_size: Option<u8>,
    pub count: Option<u8>,
    pub mark: Option<u8>,
}

pub fn proposal(number: u8, protocol: u8, spi: &[u8], transforms: Vec<Transform>) -> Proposal {
    Proposal {
        number,
        protocol,
        spi: spi.to_vec(),
        transforms,
        spi_size: None,
        count: None,
        mark: None,
    }
}

pub fn security_association(proposals: &[Proposal]) -> Raw {
    let mut body = Vec::new();
    for (index, proposal) in proposals.iter().enumerate() {
        let more = if index + 1 < proposals.len() { 2 } else { 0 };
        let mut inner = vec![
            proposal.number,
            proposal.protocol,
            proposal.spi_size.unwrap_or(proposal.spi.len() as u8),
            proposal.count.unwrap_or(proposal.transforms.len() as u8),
        ];
        inner.extend(&proposal.spi);
        for (index, transform) in proposal.transforms.iter().enumerate() {
            let more = if index + 1 < proposal.transforms.len() {
                3
            } else {
                0
            };
            let length = 8 + transform.attributes.len() as u16;
            inner.extend([more, 0]);
            inner.extend(length.to_be_bytes());
            inner.extend([transform.kind, 0]);
            inner.extend(transform.id.to_be_bytes());
            inner.extend(&transform.attributes);
        }
        body.extend([proposal.mark.unwrap_or(more), 0]);
        body.extend((GENERIC as u16 + inner.len() as u16).to_be_bytes());
        body.extend(inner);
    }
    Raw::new(SA, body)
}

/// One IPv4 traffic selector, any protocol and port (RFC 7296 section 3.13.1).
pub fn selector(first: [u8; 4], last: [u8; 4]) -> Vec<u8> {
    let mut octets = vec![7, 0, 0, 16, 0, 0, 0xff, 0xff];
    octets.extend(first);
    octets.extend(last);
    octets
}

pub fn traffic_selectors(kind: u8, count: u8, selectors: &[Vec<u8>]) -> Raw {
    let mut body = vec![count, 0, 0, 0];
    body.extend(selectors.concat());
    Raw::new(kind, body)
}

/// A message without what is encrypted; what is `None` is filled in as it should be.
#[derive(Clone, Debug)]
pub struct Message {
    pub initiator: u64,
    pub responder: u64,
    pub version: u8,
    pub exchange: u8,
    pub flags: u8,
    pub id: u32,
    pub length: Option<u32>,
    pub payloads: Vec<Raw>,
}

impl Message {
    /// In clear.
    pub fn octets(&self) -> Vec<u8> {
        let (first, chain) = chain(&self.payloads);
        let mut out = self.header(first, chain.len());
        out.extend(chain);
        out
    }

    /// The header in front of `behind` octets.
    pub fn header(&self, first: u8, behind: usize) -> Vec<u8> {
        let mut out = self.initiator.to_be_bytes().to_vec();
        out.extend(self.responder.to_be_bytes());
        out.extend([first, self.version, self.exchange, self.flags]);
        out.extend(self.id.to_be_bytes());
        let length = self.length.unwrap_or((HEADER + behind) as u32);
        out.extend(length.to_be_bytes());
        out
    }
}

/// Payloads one behind another, and the type of the first.
pub fn chain(payloads: &[Raw]) -> (u8, Vec<u8>) {
    let mut out = Vec::new();
    let first = payloads.first().map_or(0, |raw| raw.kind);
    for (index, raw) in payloads.iter().enumerate() {
        let next = payloads.get(index + 1).map_or(0, |raw| raw.kind);
        out.extend([raw.next.unwrap_or(next), raw.flags]);
        let length = raw.length.unwrap_or((GENERIC + raw.body.len()) as u16);
        out.extend(length.to_be_bytes());
        out.extend(&raw.body);
    }
    (first, out)
}

/// The fields of a header that came back.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub initiator: u64,
    pub responder: u64,
    pub first: u8,
    pub exchange: u8,
    pub flags: u8,
    pub id: u32,
}

/// Reads the header of a datagram whose length is right.
pub fn read_header(datagram: &[u8]) -> Option<Seen> {
    let field = |at: usize, octets: usize| -> Option<u64> {
        let octets = datagram.get(at..at + octets)?;
        Some(
            octets
                .iter()
                .fold(0, |sum, octet| sum << 8 | u64::from(*octet)),
        )
    };
    let octet = |at| datagram.get(at).copied();
    (field(24, 4)? == datagram.len() as u64).then_some(())?;
    Some(Seen {
        initiator: field(0, 8)?,
        responder: field(8, 8)?,
        first: octet(16)?,
        exchange: octet(18)?,
        flags: octet(19)?,
        id: field(20, 4)? as u32,
    })
}

/// Takes a chain of payloads apart: types and bodies. `None` if it does not end where it should.
pub fn read_chain(first: u8, octets: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
    let (mut kind, mut rest, mut found) = (first, octets, Vec::new());
    while kind != 0 {
        let [next, _, high, low] = *rest.first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (payload, behind) = rest.split_at_checked(length)?;
        found.push((kind, payload.get(GENERIC..)?.to_vec()));
        (kind, rest) = (next, behind);
    }
    rest.is_empty().then_some(found)
}

/// Type of a Notify payload's body, and its data.
pub fn read_notify(body: &[u8]) -> Option<(u16, Vec<u8>)> {
    let [_, size, high, low] = *body.first_chunk()?;
    let data = body.get(GENERIC + usize::from(size)..)?;
    Some((u16::from_be_bytes([high, low]), data.to_vec()))
}

/// The SPI of the first proposal of an SA payload.
pub fn read_spi(body: &[u8]) -> Option<Vec<u8>> {
    let size = usize::from(*body.get(6)?);
    body.get(8..8 + size).map(<[u8]>::to_vec)
}
