//! Why a message was refused: which payload, and what is wrong with it.

use std::fmt;

use super::{NotifyKind, PayloadKind};

/// Why a datagram is no IKE message that we can read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageError {
    /// Longer than a UDP datagram can be.
    TooLong(usize),
    /// Shorter than the IKE header.
    NoHeader(usize),
    /// Major version other than 2 (RFC 7296 section 2.5).
    MajorVersion(u8),
    /// The initiator's SPI is zero (RFC 7296 section 3.1).
    ZeroSpi,
    /// The header's length is not that of the datagram.
    HeaderLength { claimed: u32, actual: usize },
    /// More payloads than any exchange needs.
    TooManyPayloads,
    /// A payload that contradicts itself or its surroundings.
    Payload { kind: PayloadKind, fault: Fault },
    /// A payload of unknown type that must not be skipped (RFC 7296 section 2.5).
    UnsupportedCritical(PayloadKind),
    /// There is no SK payload, and there has to be one.
    NotProtected,
    /// The SK payload cannot be one of ours, or its integrity check failed.
    Protection(SkFault),
    /// The authenticated padding is longer than what it pads.
    Padding,
}

/// What is wrong with one payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Its generic header is cut off.
    NoHeader,
    /// Its length field is below 4, or reaches past the message.
    Length { claimed: u16, left: usize },
    /// It ends inside a field.
    Truncated,
    /// Octets follow its last field, or the last payload.
    Trailing(usize),
    /// A count in it disagrees with what it carries.
    Count,
    /// A "more" or "last" mark in it contradicts what follows.
    Chain,
    /// The SPI size does not fit the protocol.
    SpiSize { protocol: u8, size: u8 },
    /// A nonce must have 16 to 256 octets (RFC 7296 section 3.9).
    NonceLength(usize),
    /// An address of the wrong size for its type, or a range that ends before it starts.
    Address,
    /// More proposals than their one-octet number can count.
    TooMany,
    /// The SK payload must be the last, and is not found inside another (RFC 7296 section 3.14).
    Misplaced,
}

/// Why an SK payload could not be opened. Nothing that it says is authentic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SkFault {
    /// No room for IV, pad length and ICV.
    TooShort(usize),
    /// The ciphertext is not a whole number of cipher blocks.
    Blocks(usize),
    /// Forged, damaged, or for other keys.
    Icv,
}

impl MessageError {
    /// The error to tell the peer of, if the message was authentic or is answered in clear. What
    /// was never authenticated inside an IKE SA is dropped in silence (RFC 7296 section 2.21).
    pub fn notify(&self) -> Option<NotifyKind> {
        match self {
            MessageError::MajorVersion(_) => Some(NotifyKind::INVALID_MAJOR_VERSION),
            MessageError::UnsupportedCritical(_) => Some(NotifyKind::UNSUPPORTED_CRITICAL_PAYLOAD),
            // It is a limit of ours, and nothing is wrong with the message: INVALID_SYNTAX would end the
            // IKE SA (section 2.21.3). Section 3.10.1 has this one for whatever has none of its own.
            MessageError::TooManyPayloads => Some(NotifyKind::NO_PROPOSAL_CHOSEN),
            MessageError::Payload { .. } | MessageError::Padding => {
                Some(NotifyKind::INVALID_SYNTAX)
            }
            MessageError::TooLong(_)
            | MessageError::NoHeader(_)
            | MessageError::ZeroSpi
            | MessageError::HeaderLength { .. }
            | MessageError::NotProtected
            | MessageError::Protection(_) => None,
        }
    }

    /// A short constant name, for counting.
    pub fn reason(&self) -> &'static str {
        match self {
            MessageError::TooLong(_) => "message-too-long",
            MessageError::NoHeader(_) => "message-too-short",
            MessageError::MajorVersion(_) => "major-version",
            MessageError::ZeroSpi => "zero-spi",
            MessageError::HeaderLength { .. } => "message-length",
            MessageError::TooManyPayloads => "too-many-payloads",
            MessageError::Payload { .. } => "malformed-payload",
            MessageError::UnsupportedCritical(_) => "unsupported-critical-payload",
            MessageError::NotProtected => "not-protected",
            MessageError::Protection(_) => "integrity-check-failed",
            MessageError::Padding => "malformed-padding",
        }
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MessageError::TooLong(octets) => write!(f, "{octets} octets are too long a message"),
            MessageError::NoHeader(octets) => {
                write!(f, "{octets} octets are too short for an IKE header")
            }
            MessageError::MajorVersion(major) => write!(f, "IKE major version {major} is not 2"),
            MessageError::ZeroSpi => write!(f, "the initiator's SPI is zero"),
            MessageError::HeaderLength { claimed, actual } => {
                write!(
                    f,
                    "the header says {claimed} octets, the datagram has {actual}"
                )
            }
            MessageError::TooManyPayloads => write!(f, "too many payloads"),
            MessageError::Payload { kind, fault } => write!(f, "{kind} payload: {fault}"),
            MessageError::UnsupportedCritical(kind) => {
                write!(f, "{kind} payload is critical and unknown")
            }
            MessageError::NotProtected => write!(f, "no SK payload where one is needed"),
            MessageError::Protection(fault) => write!(f, "SK payload: {fault}"),
            MessageError::Padding => write!(f, "SK payload: padding longer than the content"),
        }
    }
}

impl std::error::Error for MessageError {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoHeader => write!(f, "its header is cut off"),
            Fault::Length { claimed, left } => {
                write!(f, "claims {claimed} octets where {left} are left")
            }
            Fault::Truncated => write!(f, "ends inside a field"),
            Fault::Trailing(octets) => write!(f, "{octets} octets follow its end"),
            Fault::Count => write!(f, "a count disagrees with the content"),
            Fault::Chain => write!(f, "a more-or-last mark contradicts what follows"),
            Fault::SpiSize { protocol, size } => {
                write!(f, "SPI size {size} does not fit protocol {protocol}")
            }
            Fault::NonceLength(octets) => write!(f, "a nonce of {octets} octets, not 16 to 256"),
            Fault::Address => write!(f, "an address of the wrong size, or a reversed range"),
            Fault::TooMany => write!(f, "more proposals than can be numbered"),
            Fault::Misplaced => write!(f, "not the last payload of the message"),
        }
    }
}

impl fmt::Display for SkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SkFault::TooShort(octets) => write!(f, "{octets} octets are too short"),
            SkFault::Blocks(octets) => write!(f, "{octets} octets are no whole blocks"),
            SkFault::Icv => write!(f, "integrity check failed"),
        }
    }
}
