//! Capture files in the pcapng format (draft-ietf-opsawg-pcapng): interfaces with names, packets
//! with comments, nanoseconds. Each block is written whole, so that a file that was cut off can be
//! read up to there.

use std::io::{self, Write};

/// LINKTYPE_ETHERNET, LINKTYPE_RAW and LINKTYPE_USER0 (tcpdump.org/linktypes.html).
pub const ETHERNET: u16 = 1;
pub const RAW_IP: u16 = 101;
pub const OTHER: u16 = 147;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;

const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_RESOLUTION: u16 = 9;
const PACKET_FLAGS: u16 = 2;
const USER_APPLICATION: u16 = 4;
const STATISTICS_DROPPED: u16 = 5;
const NANOSECONDS: u8 = 9;

/// Which way a packet went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Unknown,
    In,
    Out,
}

/// One packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub time: u64,
    pub direction: Direction,
    /// Octets of the packet; fewer may be here.
    pub length: u32,
    pub octets: &'a [u8],
    pub comment: &'a str,
}

/// Writes a capture.
pub struct Writer<W: Write> {
    sink: W,
    interfaces: u32,
}

impl<W: Write> Writer<W> {
    /// Begins a capture.
    pub fn new(sink: W) -> io::Result<Writer<W>> {
        let mut writer = Writer {
            sink,
            interfaces: 0,
        };
        let mut body = Vec::new();
        body.extend(BYTE_ORDER.to_le_bytes());
        // Version 1.0, and a section of unknown length.
        body.extend([1, 0, 0, 0]);
        body.extend(u64::MAX.to_le_bytes());
        let application = concat!("hitless ", env!("CARGO_PKG_VERSION"));
        option(&mut body, USER_APPLICATION, application.as_bytes());
        option(&mut body, OPTION_END, &[]);
        writer.block(SECTION_HEADER, &body)?;
        Ok(writer)
    }

    /// Tells of an interface; its number is for its packets.
    pub fn interface(&mut self, name: &str, link_type: u16) -> io::Result<u32> {
        let mut body = Vec::new();
        body.extend(link_type.to_le_bytes());
        body.extend([0; 2]);
        // No limit on the octets of a packet.
        body.extend(0u32.to_le_bytes());
        option(&mut body, INTERFACE_NAME, name.as_bytes());
        option(&mut body, INTERFACE_RESOLUTION, &[NANOSECONDS]);
        option(&mut body, OPTION_END, &[]);
        self.block(INTERFACE, &body)?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// Writes a packet.
    pub fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let mut body = Vec::with_capacity(packet.octets.len() + 128);
        body.extend(packet.interface.to_le_bytes());
        body.extend(((packet.time >> 32) as u32).to_le_bytes());
        body.extend((packet.time as u32).to_le_bytes());
        let kept = u32::try_from(packet.octets.len()).unwrap_or(u32::MAX);
        body.extend(kept.to_le_bytes());
        body.extend(packet.length.max(kept).to_le_bytes());
        body.extend(packet.octets);
        pad(&mut body);
        let direction: u32 = match packet.direction {
            Direction::Unknown => 0,
            Direction::In => 1,
            Direction::Out => 2,
        };
        option(&mut body, PACKET_FLAGS, &direction.to_le_bytes());
        if !packet.comment.is_empty() {
            option(&mut body, OPTION_COMMENT, packet.comment.as_bytes());
        }
        option(&mut body, OPTION_END, &[]);
        self.block(ENHANCED_PACKET, &body)
    }

    /// Says how many packets an interface lost because the capture had no room for them.
    pub fn lost(&mut self, interface: u32, time: u64, packets: u64) -> io::Result<()> {
        let mut body = Vec::new();
        body.extend(interface.to_le_bytes());
        body.extend(((time >> 32) as u32).to_le_bytes());
        body.extend((time as u32).to_le_bytes());
        option(&mut body, STATISTICS_DROPPED, &packets.to_le_bytes());
        option(&mut body, OPTION_END, &[]);
        self.block(STATISTICS, &body)
    }

    /// Hands over what is written so far.
    pub fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }

    /// A block around its body, which fills whole words.
    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len() + 12).map_err(io::Error::other)?;
        let mut block = Vec::with_capacity(body.len() + 12);
        block.extend(kind.to_le_bytes());
        block.extend(length.to_le_bytes());
        block.extend(body);
        block.extend(length.to_le_bytes());
        self.sink.write_all(&block)
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Longer ones than a length field can say are cut: a comment is for people.
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocks_are_those_of_the_draft() {
        let mut octets = Vec::new();
        let mut writer = Writer::new(&mut octets).unwrap();
        let eth = writer.interface("out", ETHERNET).unwrap();
        let packet = Packet {
            interface: eth,
            time: 0x0000_0001_0000_0002,
            direction: Direction::In,
            length: 9,
            octets: &[1, 2, 3],
            comment: "why",
        };
        writer.packet(&packet).unwrap();
        writer.lost(eth, 5, 7).unwrap();
        let mut words = octets
            .chunks_exact(4)
            .map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
        let mut next = || words.next().unwrap();
        assert_eq!(next(), 0x0a0d_0d0a);
        let length = next();
        let rest: Vec<u32> = (0..length / 4 - 2).map(|_| next()).collect();
        assert_eq!(rest[..2], [0x1a2b_3c4d, 1]);
        assert_eq!(rest.last(), Some(&length));
        let name = u32::from_le_bytes(*b"out\0");
        let interface = [
            1,
            12 + 8 + 8 + 8 + 4,
            1,
            0,
            2 | 3 << 16,
            name,
            9 | 1 << 16,
            9,
            0,
        ];
        assert_eq!((0..9).map(|_| next()).collect::<Vec<_>>(), interface);
        assert_eq!(next(), interface[1]);
        let why = u32::from_le_bytes(*b"why\0");
        let data = u32::from_le_bytes([1, 2, 3, 0]);
        let packet = [
            6,
            56,
            0,
            1,
            2,
            3,
            9,
            data,
            2 | 4 << 16,
            1,
            1 | 3 << 16,
            why,
            0,
            56,
        ];
        assert_eq!((0..14).map(|_| next()).collect::<Vec<_>>(), packet);
        let lost = [5, 40, 0, 0, 5, 5 | 8 << 16, 7, 0, 0, 40];
        assert_eq!((0..10).map(|_| next()).collect::<Vec<_>>(), lost);
        assert_eq!(words.next(), None);
    }
}
