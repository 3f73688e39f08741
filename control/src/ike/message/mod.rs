//! IKE messages on the wire (RFC 7296 section 3): values, and how they are read and written.
//!
//! Everything that arrives here is hostile. `parse.rs` never allocates more than a small multiple
//! of the datagram, never trusts a length or count, and says which payload was at fault.

mod configuration;
mod emit;
mod error;
mod notify;
mod parse;

#[cfg(test)]
mod tests;

use std::fmt;

use hitless_sa::{IkeSpi, MessageId, Spi, TrafficSelector};

use super::proposal::Identification;

pub use configuration::{Attribute, AttributeKind, Configuration, ConfigurationKind};
pub use emit::emit;
pub use error::{Fault, MessageError, SkFault};
pub use notify::NotifyKind;
pub use parse::{FragmentPlace, Parsed, parse};

pub(super) use emit::{emit_header, emit_payloads, first_kind};
pub(super) use parse::{locate_sealed, parse_payloads};

/// Octets of the IKE header (RFC 7296 section 3.1).
pub const HEADER_LENGTH: usize = 28;
/// Octets of the generic payload header (RFC 7296 section 3.2).
pub const PAYLOAD_HEADER_LENGTH: usize = 4;
/// The longest message: what one UDP datagram could carry.
pub const MAX_MESSAGE_LENGTH: usize = 65_535;
/// The most payloads of one message, with ample room for vendor IDs and notifications.
pub const MAX_PAYLOADS: usize = 64;

/// The IKE header without what follows from the rest (RFC 7296 section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub initiator_spi: IkeSpi,
    /// Zero in the first message of an IKE SA.
    pub responder_spi: IkeSpi,
    pub exchange: Exchange,
    /// I flag: the sender is the original initiator of the IKE SA.
    pub initiator: bool,
    /// R flag: the message is a response.
    pub response: bool,
    pub message_id: MessageId,
}

/// Exchange type (RFC 7296 section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exchange {
    IkeSaInit,
    IkeAuth,
    CreateChildSa,
    Informational,
    /// RFC 5723.
    IkeSessionResume,
    /// RFC 9242.
    IkeIntermediate,
    /// RFC 9370.
    IkeFollowupKe,
    Other(u8),
}

impl Exchange {
    /// Whether it begins an IKE SA, in clear.
    pub const fn is_first(self) -> bool {
        matches!(self, Exchange::IkeSaInit | Exchange::IkeSessionResume)
    }

    pub const fn from_number(number: u8) -> Exchange {
        match number {
            34 => Exchange::IkeSaInit,
            35 => Exchange::IkeAuth,
            36 => Exchange::CreateChildSa,
            37 => Exchange::Informational,
            38 => Exchange::IkeSessionResume,
            43 => Exchange::IkeIntermediate,
            44 => Exchange::IkeFollowupKe,
            other => Exchange::Other(other),
        }
    }

    pub const fn number(self) -> u8 {
        match self {
            Exchange::IkeSaInit => 34,
            Exchange::IkeAuth => 35,
            Exchange::CreateChildSa => 36,
            Exchange::Informational => 37,
            Exchange::IkeSessionResume => 38,
            Exchange::IkeIntermediate => 43,
            Exchange::IkeFollowupKe => 44,
            Exchange::Other(other) => other,
        }
    }
}

/// Payload type (RFC 7296 section 3.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PayloadKind(pub u8);

impl PayloadKind {
    pub const NONE: PayloadKind = PayloadKind(0);
    pub const SA: PayloadKind = PayloadKind(33);
    pub const KE: PayloadKind = PayloadKind(34);
    pub const ID_INITIATOR: PayloadKind = PayloadKind(35);
    pub const ID_RESPONDER: PayloadKind = PayloadKind(36);
    pub const CERT: PayloadKind = PayloadKind(37);
    pub const CERTREQ: PayloadKind = PayloadKind(38);
    pub const AUTH: PayloadKind = PayloadKind(39);
    pub const NONCE: PayloadKind = PayloadKind(40);
    pub const NOTIFY: PayloadKind = PayloadKind(41);
    pub const DELETE: PayloadKind = PayloadKind(42);
    pub const VENDOR_ID: PayloadKind = PayloadKind(43);
    pub const TS_INITIATOR: PayloadKind = PayloadKind(44);
    pub const TS_RESPONDER: PayloadKind = PayloadKind(45);
    pub const SK: PayloadKind = PayloadKind(46);
    pub const CP: PayloadKind = PayloadKind(47);
    pub const EAP: PayloadKind = PayloadKind(48);
    /// RFC 7383.
    pub const SKF: PayloadKind = PayloadKind(53);

    /// Whether RFC 7296 defines it, or it is SKF: such a payload is never refused for its critical flag
    /// (section 2.5: "the critical flag MUST be ignored by the recipient if the recipient
    /// understands the payload type code").
    pub const fn is_defined(self) -> bool {
        matches!(self.0, 33..=48 | 53)
    }
}

impl fmt::Display for PayloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            PayloadKind::SA => "SA",
            PayloadKind::KE => "KE",
            PayloadKind::ID_INITIATOR => "IDi",
            PayloadKind::ID_RESPONDER => "IDr",
            PayloadKind::CERT => "CERT",
            PayloadKind::CERTREQ => "CERTREQ",
            PayloadKind::AUTH => "AUTH",
            PayloadKind::NONCE => "Nonce",
            PayloadKind::NOTIFY => "N",
            PayloadKind::DELETE => "D",
            PayloadKind::VENDOR_ID => "V",
            PayloadKind::TS_INITIATOR => "TSi",
            PayloadKind::TS_RESPONDER => "TSr",
            PayloadKind::SK => "SK",
            PayloadKind::CP => "CP",
            PayloadKind::EAP => "EAP",
            PayloadKind::SKF => "SKF",
            PayloadKind(other) => return write!(f, "type {other}"),
        };
        f.write_str(name)
    }
}

/// One payload of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    SecurityAssociation(Vec<Proposal>),
    KeyExchange {
        method: u16,
        data: Vec<u8>,
    },
    IdInitiator(IdBody),
    IdResponder(IdBody),
    Auth {
        method: u8,
        data: Vec<u8>,
    },
    Nonce(Vec<u8>),
    Notify(Notify),
    Delete(Delete),
    TsInitiator(Vec<TrafficSelector>),
    TsResponder(Vec<TrafficSelector>),
    VendorId(Vec<u8>),
    Configuration(Configuration),
    /// What we do not read: CERT, CERTREQ, EAP, and types of later RFCs.
    Unknown {
        kind: PayloadKind,
        critical: bool,
        body: Vec<u8>,
    },
}

impl Payload {
    pub const fn kind(&self) -> PayloadKind {
        match self {
            Payload::SecurityAssociation(_) => PayloadKind::SA,
            Payload::KeyExchange { .. } => PayloadKind::KE,
            Payload::IdInitiator(_) => PayloadKind::ID_INITIATOR,
            Payload::IdResponder(_) => PayloadKind::ID_RESPONDER,
            Payload::Auth { .. } => PayloadKind::AUTH,
            Payload::Nonce(_) => PayloadKind::NONCE,
            Payload::Notify(_) => PayloadKind::NOTIFY,
            Payload::Delete(_) => PayloadKind::DELETE,
            Payload::TsInitiator(_) => PayloadKind::TS_INITIATOR,
            Payload::TsResponder(_) => PayloadKind::TS_RESPONDER,
            Payload::VendorId(_) => PayloadKind::VENDOR_ID,
            Payload::Configuration(_) => PayloadKind::CP,
            Payload::Unknown { kind, .. } => *kind,
        }
    }

    /// A status or error about the exchange or the IKE SA itself.
    pub fn notify(kind: NotifyKind, data: &[u8]) -> Payload {
        Payload::Notify(Notify::new(kind, data))
    }
}

/// AUTH method "Shared Key Message Integrity Code" (RFC 7296 section 3.8).
pub const AUTH_METHOD_PSK: u8 = 2;

/// An identity and the octets that carried it, which AUTH covers: everything of the ID payload
/// but its generic header (RFC 7296 section 2.15, RestOfInitIDPayload).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdBody {
    pub id: Identification,
    pub raw: Vec<u8>,
}

impl IdBody {
    pub fn new(id: Identification) -> IdBody {
        let raw = id.to_body();
        IdBody { id, raw }
    }
}

/// Protocol ID (RFC 7296 section 3.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Ike,
    Ah,
    Esp,
    Other(u8),
}

impl Protocol {
    pub const fn from_number(number: u8) -> Protocol {
        match number {
            1 => Protocol::Ike,
            2 => Protocol::Ah,
            3 => Protocol::Esp,
            other => Protocol::Other(other),
        }
    }

    pub const fn number(self) -> u8 {
        match self {
            Protocol::Ike => 1,
            Protocol::Ah => 2,
            Protocol::Esp => 3,
            Protocol::Other(other) => other,
        }
    }
}

/// One proposal of an SA payload (RFC 7296 section 3.3.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    pub number: u8,
    pub protocol: Protocol,
    /// Empty in IKE_SA_INIT, eight octets in a rekey of the IKE SA, four for AH and ESP.
    pub spi: Vec<u8>,
    pub transforms: Vec<Transform>,
}

impl Proposal {
    /// The SPI of an ESP proposal.
    pub fn esp_spi(&self) -> Option<Spi> {
        let octets = self.spi.as_slice().try_into().ok()?;
        (self.protocol == Protocol::Esp).then_some(Spi(u32::from_be_bytes(octets)))
    }

    /// The new SPI in a rekey of an IKE SA.
    pub fn ike_spi(&self) -> Option<IkeSpi> {
        let octets = self.spi.as_slice().try_into().ok()?;
        (self.protocol == Protocol::Ike).then_some(IkeSpi(u64::from_be_bytes(octets)))
    }
}

/// One transform of a proposal (RFC 7296 section 3.3.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transform {
    pub kind: u8,
    pub id: u16,
    /// Attribute 14, the only one defined (RFC 7296 section 3.3.5).
    pub key_length: Option<u16>,
    /// Attributes that we do not know, as they came: with any of them the transform is not
    /// acceptable (RFC 7296 section 3.3.6).
    pub unknown_attributes: Vec<u8>,
}

impl Transform {
    pub const fn new(kind: u8, id: u16, key_length: Option<u16>) -> Transform {
        Transform {
            kind,
            id,
            key_length,
            unknown_attributes: Vec::new(),
        }
    }
}

/// Notify payload (RFC 7296 section 3.10).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notify {
    /// Zero unless `spi` names a Child SA.
    pub protocol: u8,
    pub spi: Vec<u8>,
    pub kind: NotifyKind,
    pub data: Vec<u8>,
}

impl Notify {
    /// About the exchange or the IKE SA itself.
    pub fn new(kind: NotifyKind, data: &[u8]) -> Notify {
        Notify {
            protocol: 0,
            spi: Vec::new(),
            kind,
            data: data.to_vec(),
        }
    }

    /// About an ESP SA: REKEY_SA, CHILD_SA_NOT_FOUND, INVALID_SELECTORS.
    pub fn about_esp(kind: NotifyKind, spi: Spi) -> Notify {
        Notify {
            protocol: Protocol::Esp.number(),
            spi: spi.0.to_be_bytes().to_vec(),
            kind,
            data: Vec::new(),
        }
    }

    /// The ESP SA that it is about.
    pub fn esp_spi(&self) -> Option<Spi> {
        let octets = self.spi.as_slice().try_into().ok()?;
        (self.protocol == Protocol::Esp.number()).then_some(Spi(u32::from_be_bytes(octets)))
    }
}

/// Delete payload (RFC 7296 section 3.11).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delete {
    /// The IKE SA that carries the message.
    Ike,
    /// The sender's inbound ESP SAs.
    Esp(Vec<Spi>),
    /// AH and whatever else we never negotiate; `spis` is a whole number of `spi_size` octets.
    Other {
        protocol: u8,
        spi_size: u8,
        spis: Vec<u8>,
    },
}
