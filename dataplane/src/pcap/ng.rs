//! pcapng files as they are read: both byte orders, several sections, every resolution of time, and
//! any block that holds a packet; other blocks are passed over, and so are packets of other links
//! than Ethernet beside those of one.

use std::time::Duration;

use super::{LinkType, PcapError, Record, SNAPSHOT_LENGTH, word};

/// Block types.
pub(super) const SECTION: u32 = 0x0a0d_0d0a;
pub(super) const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
pub(super) const ENHANCED_PACKET: u32 = 6;

pub(super) const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Options: the end of the list, the resolution and the offset of an interface's time.
pub(super) const END: u16 = 0;
pub(super) const RESOLUTION: u16 = 9;
const OFFSET: u16 = 14;

/// Type, length, and the length again at the end.
pub(super) const FRAMING: usize = 12;
/// Octets of a block at most: a frame, with options.
const LONGEST_BLOCK: usize = SNAPSHOT_LENGTH + 65_536;
/// Interfaces of a section at most.
const INTERFACES: usize = 1024;

/// What packets of an interface need to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Interface {
    link_type: u32,
    snapshot: u32,
    /// `if_tsresol`: a power of ten, or of two if the highest bit is set.
    resolution: u8,
    /// `if_tsoffset`: seconds that are added.
    offset: i64,
}

/// Where the reading of a file stands.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
    big_endian: bool,
    interfaces: Vec<Interface>,
    /// There was an interface on Ethernet.
    ethernet: bool,
    /// Packets of other links, and one of those.
    passed_over: u64,
    other_link: Option<u32>,
}

/// A block without its framing.
struct Block<'a> {
    kind: u32,
    body: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// A reader of a file that begins with a section.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, PcapError> {
        let mut reader = Self {
            bytes,
            offset: 0,
            big_endian: false,
            interfaces: Vec::new(),
            ethernet: false,
            passed_over: 0,
            other_link: None,
        };
        // The first section must be whole; whatever follows is told when it is reached.
        let first = reader.clone().block()?;
        first.map_or(Err(PcapError::NoHeader), |_| Ok(()))?;
        reader.interfaces.clear();
        Ok(reader)
    }

    /// The next packet, unless the file is at its end.
    pub(super) fn record(&mut self) -> Result<Option<Record<'a>>, PcapError> {
        while let Some(block) = self.block()? {
            match block.kind {
                SECTION => self.interfaces.clear(),
                INTERFACE => self.describe(&block)?,
                ENHANCED_PACKET | OBSOLETE_PACKET | SIMPLE_PACKET => {
                    let (link_type, record) = self.packet(&block)?;
                    if link_type == LinkType::Ethernet as u32 {
                        return Ok(Some(record));
                    }
                    self.passed_over += 1;
                    self.other_link = Some(link_type);
                }
                _ => {}
            }
        }
        match self.other_link {
            Some(link_type) if !self.ethernet => Err(PcapError::LinkType(link_type)),
            _ => Ok(None),
        }
    }

    /// How many packets were on other links than Ethernet, so far.
    pub(super) fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// The next block, whose lengths agree with each other and with the file.
    fn block(&mut self) -> Result<Option<Block<'a>>, PcapError> {
        let offset = self.offset;
        if offset >= self.bytes.len() {
            return Ok(None);
        }
        let truncated = PcapError::Truncated { offset };
        if word(self.bytes, offset, false).ok_or(truncated)? == SECTION {
            self.big_endian = match word(self.bytes, offset + 8, true).ok_or(truncated)? {
                BYTE_ORDER => true,
                order if order.swap_bytes() == BYTE_ORDER => false,
                _ => return Err(PcapError::Block { offset }),
            };
        }
        let kind = word(self.bytes, offset, self.big_endian).ok_or(truncated)?;
        let length = word(self.bytes, offset + 4, self.big_endian).ok_or(truncated)?;
        let octets = length as usize;
        if octets > LONGEST_BLOCK {
            return Err(PcapError::TooLong { offset, length });
        }
        if octets < FRAMING || !octets.is_multiple_of(4) {
            return Err(PcapError::Block { offset });
        }
        let whole = self.bytes.get(offset..offset + octets).ok_or(truncated)?;
        let body = whole.get(8..octets - 4).ok_or(truncated)?;
        if word(whole, octets - 4, self.big_endian) != Some(length) {
            return Err(PcapError::Block { offset });
        }
        self.offset = offset + octets;
        Ok(Some(Block { kind, body, offset }))
    }

    fn half(&self, bytes: &[u8], at: usize) -> Option<u16> {
        let octets = *bytes.get(at..)?.first_chunk::<2>()?;
        Some(match self.big_endian {
            true => u16::from_be_bytes(octets),
            false => u16::from_le_bytes(octets),
        })
    }

    /// Notes an interface.
    fn describe(&mut self, block: &Block<'_>) -> Result<(), PcapError> {
        let wrong = PcapError::Block {
            offset: block.offset,
        };
        let link_type = self.half(block.body, 0).ok_or(wrong)?.into();
        self.ethernet |= link_type == LinkType::Ethernet as u32;
        if self.interfaces.len() >= INTERFACES {
            return Err(wrong);
        }
        let mut interface = Interface {
            link_type,
            snapshot: word(block.body, 4, self.big_endian).ok_or(wrong)?,
            resolution: 6,
            offset: 0,
        };
        let mut rest = block.body.get(8..).unwrap_or_default();
        while let (Some(code), Some(length)) = (self.half(rest, 0), self.half(rest, 2)) {
            let length = usize::from(length);
            let value = rest.get(4..4 + length).ok_or(wrong)?;
            match (code, value) {
                (END, _) => break,
                (RESOLUTION, [resolution]) => interface.resolution = *resolution,
                (OFFSET, value) => {
                    let value = *value.first_chunk::<8>().ok_or(wrong)?;
                    interface.offset = match self.big_endian {
                        true => i64::from_be_bytes(value),
                        false => i64::from_le_bytes(value),
                    };
                }
                _ => {}
            }
            rest = rest
                .get(4 + length.next_multiple_of(4)..)
                .unwrap_or_default();
        }
        self.interfaces.push(interface);
        Ok(())
    }

    /// A packet, and the type of its link.
    fn packet(&self, block: &Block<'a>) -> Result<(u32, Record<'a>), PcapError> {
        let offset = block.offset;
        let wrong = PcapError::Block { offset };
        let field = |at| word(block.body, at, self.big_endian).ok_or(wrong);
        let number = match block.kind {
            ENHANCED_PACKET => field(0)?,
            OBSOLETE_PACKET => u32::from(self.half(block.body, 0).ok_or(wrong)?),
            _ => 0,
        };
        let interface = self.interfaces.get(number as usize);
        let interface = interface.ok_or(PcapError::Interface { offset, number })?;
        let (start, time, length, original_length) = match block.kind {
            SIMPLE_PACKET => {
                let original = field(0)?;
                let limit = match interface.snapshot {
                    0 => u32::MAX,
                    limit => limit,
                };
                (4, 0, original.min(limit), original)
            }
            _ => {
                let time = u64::from(field(4)?) << 32 | u64::from(field(8)?);
                (20, time, field(12)?, field(16)?)
            }
        };
        if length as usize > SNAPSHOT_LENGTH {
            return Err(PcapError::TooLong { offset, length });
        }
        let frame = block.body.get(start..start + length as usize);
        let record = Record {
            time: interface.time(time),
            frame: frame.ok_or(wrong)?,
            original_length,
        };
        Ok((interface.link_type, record))
    }
}

impl Interface {
    /// A packet's time since the Unix epoch.
    fn time(&self, ticks: u64) -> Duration {
        let exponent = u32::from(self.resolution & 0x7f);
        let ticks = u128::from(ticks);
        let nanoseconds = match self.resolution & 0x80 {
            0 if exponent <= 9 => ticks * 10_u128.pow(9 - exponent),
            0 => 10_u128
                .checked_pow(exponent - 9)
                .map_or(0, |unit| ticks / unit),
            _ => (ticks * 1_000_000_000) >> exponent,
        };
        let seconds = u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(u64::MAX);
        let seconds = seconds.saturating_add_signed(self.offset);
        Duration::new(seconds, (nanoseconds % 1_000_000_000) as u32)
    }
}

#[cfg(test)]
#[path = "ng_tests.rs"]
mod tests;
