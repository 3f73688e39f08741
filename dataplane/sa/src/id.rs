//! Identifiers and counters.

use std::fmt;

/// Security Parameters Index of an ESP SA (RFC 4303 section 2.1). 0..=255 are reserved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(pub u32);

/// SPI of an IKE SA: eight octets chosen by one side (RFC 7296 section 2.6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeSpi(pub u64);

/// An ESP sequence number, always the full 64 bits inside hitless; the wire carries the low half.
///
/// The AEAD IV of a packet is this number, big endian, so that a number sent twice under one key
/// is a nonce sent twice (invariant S2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SequenceNumber(pub u64);

impl SequenceNumber {
    /// The low 32 bits, as ESP carries them (RFC 4303 section 2.2.1).
    pub const fn low(self) -> u32 {
        self.0 as u32
    }

    /// The high 32 bits, which only the ICV sees (RFC 4303 section 2.2.1).
    pub const fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Message ID of an IKE exchange (RFC 7296 section 2.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct MessageId(pub u32);

impl MessageId {
    /// Stands for no exchange: it is where they end, for they never wrap (RFC 7296 section 2.2).
    pub const END: MessageId = MessageId(u32::MAX);

    /// The next one, and [`MessageId::END`] after that.
    #[must_use]
    pub const fn next(self) -> MessageId {
        MessageId(self.0.saturating_add(1))
    }
}

/// A configured member of the cluster, 1..=255. It also owns a part of the SPI space and of the
/// IV space of IKE's encrypted payloads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MemberId(pub u8);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How often a member has started: durable, raised at each start before any message leaves
/// (`lease-holes` R2). 24 bits are used where it selects an IV space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Incarnation(pub u32);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A term of leadership: ordered by counter, then leader, then the leader's incarnation, so that
/// two leaders never share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch {
    pub counter: u64,
    pub leader: MemberId,
    pub incarnation: Incarnation,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.counter, self.leader, self.incarnation)
    }
}

/// Names one Child SA pair for the whole cluster and for ever: who made it, in which incarnation,
/// and a running number. Never reused, unlike an SPI.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SaId {
    pub creator: MemberId,
    pub incarnation: Incarnation,
    pub counter: u32,
}

impl fmt::Display for SaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.creator, self.incarnation, self.counter)
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spi({self})")
    }
}

impl fmt::Display for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IkeSpi({self})")
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
