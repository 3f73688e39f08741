//! pcapng files as they are written (draft-ietf-opsawg-pcapng): interfaces with names, nanoseconds,
//! packets with a direction and a comment. Each block is written whole, so that a file that was cut
//! off can be read up to there.

use std::io::{self, Write};
use std::time::Duration;

use super::ng::{BYTE_ORDER, END, ENHANCED_PACKET, FRAMING, INTERFACE, RESOLUTION, SECTION};
use super::{Direction, LinkType, SNAPSHOT_LENGTH};

const STATISTICS: u32 = 5;

/// Options: a comment, an interface's name, a packet's flags, the program, the packets lost.
const COMMENT: u16 = 1;
const NAME: u16 = 2;
const FLAGS: u16 = 2;
const APPLICATION: u16 = 4;
const LOST: u16 = 5;
const NANOSECONDS: u8 = 9;

/// What is written of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// As [`PcapngWriter::interface`] gave it.
    pub interface: u32,
    /// Since the Unix epoch.
    pub time: Duration,
    pub direction: Direction,
    /// Octets of the packet; fewer may be here. What is longer than [`SNAPSHOT_LENGTH`] is cut.
    pub length: u32,
    pub octets: &'a [u8],
    /// None if it is empty.
    pub comment: &'a str,
}

/// Writes packets to a capture file.
pub struct PcapngWriter<W: Write> {
    sink: W,
    block: Vec<u8>,
    interfaces: u32,
}

impl<W: Write> PcapngWriter<W> {
    /// Begins a capture.
    pub fn new(sink: W) -> io::Result<Self> {
        let mut writer = Self {
            sink,
            block: Vec::new(),
            interfaces: 0,
        };
        writer.begin(SECTION);
        writer.word(BYTE_ORDER);
        writer.word(1); // version 1.0
        writer.long(u64::MAX); // length of the section: unknown
        let application = concat!("hitless ", env!("CARGO_PKG_VERSION"));
        writer.option(APPLICATION, application.as_bytes());
        writer.end_with_options()?;
        Ok(writer)
    }

    /// Tells of an interface; gives its number, for its packets.
    pub fn interface(&mut self, name: &str, link_type: LinkType) -> io::Result<u32> {
        self.begin(INTERFACE);
        self.word(link_type as u32);
        self.word(SNAPSHOT_LENGTH as u32);
        self.option(NAME, name.as_bytes());
        self.option(RESOLUTION, &[NANOSECONDS]);
        self.end_with_options()?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// Writes one packet.
    pub fn packet(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let octets = entry.octets;
        let kept = octets.get(..SNAPSHOT_LENGTH).unwrap_or(octets);
        let length = u32::try_from(octets.len()).unwrap_or(u32::MAX);
        self.begin(ENHANCED_PACKET);
        self.word(entry.interface);
        self.time(entry.time);
        self.word(kept.len() as u32);
        self.word(entry.length.max(length));
        self.block.extend_from_slice(kept);
        self.pad();
        let direction: u32 = match entry.direction {
            Direction::Unknown => 0,
            Direction::In => 1,
            Direction::Out => 2,
        };
        self.option(FLAGS, &direction.to_le_bytes());
        if !entry.comment.is_empty() {
            self.option(COMMENT, entry.comment.as_bytes());
        }
        self.end_with_options()
    }

    /// Says how many packets of an interface the capture had no room for.
    pub fn lost(&mut self, interface: u32, time: Duration, packets: u64) -> io::Result<()> {
        self.begin(STATISTICS);
        self.word(interface);
        self.time(time);
        self.option(LOST, &packets.to_le_bytes());
        self.end_with_options()
    }

    /// Hands what is buffered to the sink's own target.
    pub fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }

    fn begin(&mut self, kind: u32) {
        self.block.clear();
        self.word(kind);
        self.word(0);
    }

    fn word(&mut self, value: u32) {
        self.block.extend(value.to_le_bytes());
    }

    fn long(&mut self, value: u64) {
        self.block.extend(value.to_le_bytes());
    }

    fn time(&mut self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.word((time >> 32) as u32);
        self.word(time as u32);
    }

    /// Longer values than a length field can say are cut: a comment is for people.
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

    fn end_with_options(&mut self) -> io::Result<()> {
        self.option(END, &[]);
        let length = (self.block.len() + FRAMING - 8) as u32;
        self.word(length);
        if let Some(place) = self.block.get_mut(4..8) {
            place.copy_from_slice(&length.to_le_bytes());
        }
        self.sink.write_all(&self.block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocks_are_those_of_the_draft() {
        let mut octets = Vec::new();
        let mut writer = PcapngWriter::new(&mut octets).unwrap();
        let interface = writer.interface("out", LinkType::Ethernet).unwrap();
        let packet = Entry {
            interface,
            time: Duration::from_nanos(0x0000_0001_0000_0002),
            direction: Direction::In,
            length: 9,
            octets: &[1, 2, 3],
            comment: "why",
        };
        writer.packet(&packet).unwrap();
        writer.lost(interface, Duration::from_nanos(5), 7).unwrap();
        let mut words = octets
            .chunks_exact(4)
            .map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
        let mut next = |count: usize| words.by_ref().take(count).collect::<Vec<u32>>();
        assert_eq!(next(1), [0x0a0d_0d0a]);
        let length = next(1)[0];
        let rest = next(length as usize / 4 - 2);
        assert_eq!(rest[..2], [0x1a2b_3c4d, 1]);
        assert_eq!(rest.last(), Some(&length));
        let name = u32::from_le_bytes(*b"out\0");
        let limit = SNAPSHOT_LENGTH as u32;
        let described = [1, 40, 1, limit, 2 | 3 << 16, name, 9 | 1 << 16, 9, 0, 40];
        assert_eq!(next(10), described);
        let (why, data) = (*b"why\0", [1, 2, 3, 0]);
        let [why, data] = [why, data].map(u32::from_le_bytes);
        let body = [0, 1, 2, 3, 9, data, 2 | 4 << 16, 1, 1 | 3 << 16, why, 0];
        assert_eq!(next(14), [&[6, 56][..], &body, &[56]].concat());
        assert_eq!(next(10), [5, 40, 0, 0, 5, 5 | 8 << 16, 7, 0, 0, 40]);
        assert!(next(1).is_empty());
    }
}
