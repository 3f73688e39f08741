//! pcapng files. Written: one section, nanoseconds, a comment on a packet where there is something
//! to say. Read: both byte orders, several sections, every resolution of time, and any block that
//! holds a packet; other blocks are passed over.

use std::io::{self, Write};
use std::time::Duration;

use super::{LINK_TYPE_ETHERNET, PcapError, Record, SNAPSHOT_LENGTH, word};

/// Block types.
pub(super) const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Options: the end of the list, a comment, an interface's name, resolution and offset of its time.
const END: u16 = 0;
const COMMENT: u16 = 1;
const NAME: u16 = 2;
const RESOLUTION: u16 = 9;
const OFFSET: u16 = 14;

/// Type, length, and the length again at the end.
const FRAMING: usize = 12;
/// Octets of a block at most: a frame, with options.
const LONGEST_BLOCK: usize = SNAPSHOT_LENGTH + 65_536;
/// Interfaces of a section at most.
const INTERFACES: usize = 1024;

/// Writes frames to a capture file.
pub struct PcapngWriter<W: Write> {
    sink: W,
    block: Vec<u8>,
}

impl<W: Write> PcapngWriter<W> {
    /// Writes the section and its interfaces, which packets then name by their position.
    pub fn new(sink: W, interfaces: &[&str]) -> io::Result<Self> {
        let mut writer = Self {
            sink,
            block: Vec::new(),
        };
        writer.begin(SECTION);
        writer.word(BYTE_ORDER);
        writer.word(1); // version 1.0
        writer.block.extend([0xff; 8]); // length of the section: unknown
        writer.end()?;
        for name in interfaces {
            writer.begin(INTERFACE);
            writer.word(LINK_TYPE_ETHERNET);
            writer.word(SNAPSHOT_LENGTH as u32);
            writer.option(NAME, name.as_bytes());
            writer.option(RESOLUTION, &[9]);
            writer.option(END, &[]);
            writer.end()?;
        }
        Ok(writer)
    }

    /// Writes one frame; `time` counts from the Unix epoch. What is longer than
    /// [`SNAPSHOT_LENGTH`] is cut, as the format foresees.
    pub fn write(&mut self, interface: u32, time: Duration, frame: &[u8]) -> io::Result<()> {
        self.write_with(interface, time, frame, "")
    }

    /// As [`PcapngWriter::write`], with a comment on the packet if it is not empty.
    pub fn write_with(
        &mut self,
        interface: u32,
        time: Duration,
        frame: &[u8],
        comment: &str,
    ) -> io::Result<()> {
        let kept = frame.get(..SNAPSHOT_LENGTH).unwrap_or(frame);
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.begin(ENHANCED_PACKET);
        self.word(interface);
        self.word((time >> 32) as u32);
        self.word(time as u32);
        self.word(kept.len() as u32);
        self.word(u32::try_from(frame.len()).unwrap_or(u32::MAX));
        self.block.extend_from_slice(kept);
        self.pad();
        if !comment.is_empty() {
            self.option(COMMENT, comment.as_bytes());
            self.option(END, &[]);
        }
        self.end()
    }

    /// Hands what is buffered to the sink's own target.
    pub fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }

    /// Flushes and gives the sink back.
    pub fn finish(mut self) -> io::Result<W> {
        self.sink.flush()?;
        Ok(self.sink)
    }

    fn begin(&mut self, kind: u32) {
        self.block.clear();
        self.word(kind);
        self.word(0);
    }

    fn word(&mut self, value: u32) {
        self.block.extend(value.to_le_bytes());
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
        self.block.extend(code.to_le_bytes());
        self.block.extend((value.len() as u16).to_le_bytes());
        self.block.extend_from_slice(value);
        self.pad();
    }

    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn end(&mut self) -> io::Result<()> {
        let length = self.block.len() as u32 + 4;
        self.word(length);
        if let Some(place) = self.block.get_mut(4..8) {
            place.copy_from_slice(&length.to_le_bytes());
        }
        self.sink.write_all(&self.block)
    }
}

/// What packets of an interface need to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Interface {
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
                    return self.packet(&block).map(Some);
                }
                _ => {}
            }
        }
        Ok(None)
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
        let link_type = self.half(block.body, 0).ok_or(wrong)?;
        if u32::from(link_type) != LINK_TYPE_ETHERNET {
            return Err(PcapError::LinkType(u32::from(link_type)));
        }
        if self.interfaces.len() >= INTERFACES {
            return Err(wrong);
        }
        let mut interface = Interface {
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

    fn packet(&self, block: &Block<'a>) -> Result<Record<'a>, PcapError> {
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
        Ok(Record {
            time: interface.time(time),
            frame: frame.ok_or(wrong)?,
            original_length,
        })
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
