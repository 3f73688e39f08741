//! Captures of Ethernet frames: read from pcap and pcapng, written as either.
//!
//! A file may be hostile or cut off: every length is checked against what is there and against a
//! fixed bound before it is used, and what is wrong is named with its offset. Formats: `classic.rs`
//! (pcap, draft-ietf-opsawg-pcap), `ng.rs` and `ng_write.rs` (pcapng, draft-ietf-opsawg-pcapng).

mod classic;
mod ng;
mod ng_write;

use std::time::Duration;

pub use classic::PcapWriter;
pub use ng_write::{Entry, PcapngWriter};

/// Longest frame that is read or written; tcpdump's own default snapshot length.
pub const SNAPSHOT_LENGTH: usize = 262_144;

/// What the packets of an interface begin with (tcpdump.org/linktypes.html).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum LinkType {
    Ethernet = 1,
    /// LINKTYPE_RAW: an IPv4 or IPv6 header.
    Ip = 101,
    /// LINKTYPE_USER0.
    Other = 147,
}

/// Which way a packet went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Unknown,
    In,
    Out,
}

/// Why a capture cannot be read (any further).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PcapError {
    /// Shorter than a file header.
    NoHeader,
    /// Neither pcap nor pcapng.
    Magic(u32),
    /// Nothing in it was captured on Ethernet.
    LinkType(u32),
    /// The record or block at this offset ends behind the end of the file: it was cut off.
    Truncated { offset: usize },
    /// The record or block at this offset claims more than a frame may have.
    TooLong { offset: usize, length: u32 },
    /// The record at this offset has a fraction of a second that is a second or more.
    Time { offset: usize },
    /// The block at this offset contradicts itself.
    Block { offset: usize },
    /// The packet at this offset came from an interface that the file does not describe.
    Interface { offset: usize, number: u32 },
}

impl std::fmt::Display for PcapError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoHeader => write!(f, "shorter than a capture's file header"),
            Self::Magic(magic) => write!(
                f,
                "neither pcap nor pcapng (magic {magic:#010x}); convert it with \
                 `editcap -F pcapng`"
            ),
            Self::LinkType(kind) => write!(f, "link type {kind}, but only Ethernet (1) is read"),
            Self::Truncated { offset } => write!(f, "cut off in the record at offset {offset}"),
            Self::TooLong { offset, length } => {
                write!(f, "record at offset {offset} claims {length} octets")
            }
            Self::Time { offset } => write!(f, "impossible time in the record at offset {offset}"),
            Self::Block { offset } => write!(f, "impossible block at offset {offset}"),
            Self::Interface { offset, number } => write!(
                f,
                "the packet at offset {offset} is from interface {number}, which no block before \
                 it describes"
            ),
        }
    }
}

impl std::error::Error for PcapError {}

/// One captured frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Since the Unix epoch.
    pub time: Duration,
    pub frame: &'a [u8],
    /// Length on the wire; more than `frame.len()` if the capture cut the frame.
    pub original_length: u32,
}

/// Reads a capture that is in memory, of either format. After an error the iteration ends.
#[derive(Clone, Debug)]
pub struct PcapReader<'a> {
    format: Format<'a>,
    ended: bool,
}

#[derive(Clone, Debug)]
enum Format<'a> {
    Classic(classic::Reader<'a>),
    Ng(ng::Reader<'a>),
}

impl<'a> PcapReader<'a> {
    /// Checks the file header.
    pub fn new(bytes: &'a [u8]) -> Result<Self, PcapError> {
        let magic = word(bytes, 0, false).ok_or(PcapError::NoHeader)?;
        let format = match magic {
            ng::SECTION => Format::Ng(ng::Reader::new(bytes)?),
            _ => Format::Classic(classic::Reader::new(bytes, magic)?),
        };
        Ok(Self {
            format,
            ended: false,
        })
    }

    /// How many packets so far were of other links than Ethernet, in a file that has both. They are
    /// not read.
    pub fn passed_over(&self) -> u64 {
        match &self.format {
            Format::Classic(_) => 0,
            Format::Ng(reader) => reader.passed_over(),
        }
    }
}

impl<'a> Iterator for PcapReader<'a> {
    type Item = Result<Record<'a>, PcapError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let record = match &mut self.format {
            Format::Classic(reader) => reader.record(),
            Format::Ng(reader) => reader.record(),
        };
        self.ended = !matches!(record, Ok(Some(_)));
        record.transpose()
    }
}

fn word(bytes: &[u8], at: usize, big_endian: bool) -> Option<u32> {
    let octets = bytes.get(at..)?.first_chunk::<4>()?;
    Some(if big_endian {
        u32::from_be_bytes(*octets)
    } else {
        u32::from_le_bytes(*octets)
    })
}
