//! IPv4 headers (RFC 791).

use std::net::Ipv4Addr;

use crate::verdict::DropReason;
use crate::wire::checksum;

/// Octets of a header without options.
pub const HEADER: usize = 20;
/// Protocol numbers that hitless treats by name.
pub const ICMP: u8 = 1;
pub const IPIP: u8 = 4;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ESP: u8 = 50;
/// Time to live of packets that start here.
pub const INITIAL_TTL: u8 = 64;

/// A checked header: version 4, lengths that fit each other and the octets given, good checksum.
#[derive(Clone, Copy)]
pub struct Ipv4<'a> {
    header: &'a [u8; HEADER],
    header_length: usize,
    total_length: usize,
    octets: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// Checks the header (RFC 1812 section 5.2.2). What lies behind the total length is not part
    /// of the packet (Ethernet padding).
    #[inline]
    pub fn parse(octets: &'a [u8]) -> Result<Ipv4<'a>, DropReason> {
        let header: &[u8; HEADER] = octets.first_chunk().ok_or(DropReason::Malformed)?;
        let header_length = usize::from(header[0] & 0x0f) * 4;
        let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let sane = header[0] >> 4 == 4
            && header_length >= HEADER
            && total_length >= header_length
            && total_length <= octets.len();
        if !sane {
            return Err(DropReason::Malformed);
        }
        let sum = match header_length {
            // Almost always, and of a length that is known to the compiler.
            HEADER => checksum(0, header),
            _ => checksum(0, octets.get(..header_length).ok_or(DropReason::Malformed)?),
        };
        if sum != 0 {
            return Err(DropReason::BadChecksum);
        }
        Ok(Ipv4 {
            header,
            header_length,
            total_length,
            octets,
        })
    }

    /// Octets of the header, options included.
    pub fn header_length(self) -> usize {
        self.header_length
    }

    /// Octets of the packet.
    pub fn total_length(self) -> usize {
        self.total_length
    }

    /// DSCP and ECN (RFC 2474, RFC 3168).
    pub fn tos(self) -> u8 {
        self.header[1]
    }

    /// Whether "don't fragment" is set.
    pub fn dont_fragment(self) -> bool {
        self.header[6] & 0x40 != 0
    }

    /// Whether this is a part of a larger packet.
    pub fn is_fragment(self) -> bool {
        self.header[6] & 0x20 != 0 || !self.is_first_fragment()
    }

    /// Flags and fragment offset as they stand there.
    pub fn fragment_field(self) -> u16 {
        u16::from_be_bytes([self.header[6], self.header[7]])
    }

    /// What the fragments of one packet have in common.
    pub fn identification(self) -> u16 {
        u16::from_be_bytes([self.header[4], self.header[5]])
    }

    /// Whether it holds the start of the payload.
    pub fn is_first_fragment(self) -> bool {
        self.fragment_field() & 0x1fff == 0
    }

    /// Time to live.
    pub fn ttl(self) -> u8 {
        self.header[8]
    }

    /// Protocol of the payload.
    pub fn protocol(self) -> u8 {
        self.header[9]
    }

    /// Source address.
    pub fn source(self) -> Ipv4Addr {
        let [.., a, b, c, d, _, _, _, _] = *self.header;
        Ipv4Addr::new(a, b, c, d)
    }

    /// Destination address.
    pub fn destination(self) -> Ipv4Addr {
        let [.., a, b, c, d] = *self.header;
        Ipv4Addr::new(a, b, c, d)
    }

    /// What the packet carries.
    pub fn payload(self) -> &'a [u8] {
        self.octets
            .get(self.header_length..self.total_length)
            .unwrap_or(&[])
    }
}

/// The start of a packet as an ICMP error quotes it: perhaps only its header and eight octets more
/// (RFC 792), changed by the routers that it passed.
#[derive(Clone, Copy)]
pub struct Quoted<'a> {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub total_length: usize,
    /// What is there of its payload.
    pub payload: &'a [u8],
}

impl<'a> Quoted<'a> {
    /// Reads a header with the start of a payload behind it.
    pub fn parse(octets: &'a [u8]) -> Option<Quoted<'a>> {
        let header: &[u8; HEADER] = octets.first_chunk()?;
        let header_length = usize::from(header[0] & 0x0f) * 4;
        let first_part = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
        if header[0] >> 4 != 4 || header_length < HEADER || !first_part {
            return None;
        }
        let [.., a, b, c, d, e, f, g, h] = *header;
        Some(Quoted {
            source: Ipv4Addr::new(a, b, c, d),
            destination: Ipv4Addr::new(e, f, g, h),
            protocol: header[9],
            total_length: usize::from(u16::from_be_bytes([header[2], header[3]])),
            payload: octets.get(header_length..)?,
        })
    }
}

/// Takes one off the TTL and corrects the checksum (RFC 1624). False if it would reach zero; then
/// the packet is as it was.
#[must_use]
pub fn decrement_ttl(packet: &mut [u8]) -> bool {
    packet.first_chunk_mut().is_some_and(decrement)
}

/// The same of a header.
#[inline]
#[must_use]
pub(crate) fn decrement(header: &mut [u8; HEADER]) -> bool {
    if header[8] <= 1 {
        return false;
    }
    let old = u16::from_be_bytes([header[8], header[9]]);
    header[8] -= 1;
    let new = u16::from_be_bytes([header[8], header[9]]);
    let sum = u16::from_be_bytes([header[10], header[11]]);
    // RFC 1624 section 3, equation 3: HC' = ~(~HC + ~m + m').
    let mut folded = u32::from(!sum) + u32::from(!old) + u32::from(new);
    folded = (folded & 0xffff) + (folded >> 16);
    folded = (folded & 0xffff) + (folded >> 16);
    header[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    true
}

/// Writes a header without options for a packet that starts here; identification 0 is right for
/// an atomic packet (RFC 6864 section 4.1). False if it does not fit.
#[must_use]
pub fn write(packet: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> bool {
    let Ok(length) = u16::try_from(packet.len()) else {
        return false;
    };
    let Some(header) = packet.first_chunk_mut::<HEADER>() else {
        return false;
    };
    *header = [0; HEADER];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[6] = 0x40;
    header[8] = INITIAL_TTL;
    header[9] = protocol;
    header[12..16].copy_from_slice(&source.octets());
    header[16..].copy_from_slice(&destination.octets());
    let sum = checksum(0, header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(payload: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        etherparse::PacketBuilder::ipv4([10, 1, 0, 5], [10, 2, 0, 6], 7)
            .udp(1, 2)
            .write(&mut octets, payload)
            .unwrap();
        octets
    }

    #[test]
    fn reads_what_another_implementation_wrote() {
        let octets = packet(b"payload");
        let ip = Ipv4::parse(&octets).unwrap();
        assert_eq!(ip.source(), Ipv4Addr::new(10, 1, 0, 5));
        assert_eq!(ip.destination(), Ipv4Addr::new(10, 2, 0, 6));
        assert_eq!((ip.ttl(), ip.protocol()), (7, UDP));
        assert_eq!(ip.payload().len(), 8 + 7);
        assert!(!ip.is_fragment());
    }

    #[test]
    fn padding_behind_the_total_length_is_not_payload() {
        let mut octets = packet(b"x");
        octets.resize(60, 0xaa);
        assert_eq!(Ipv4::parse(&octets).unwrap().payload().len(), 9);
    }

    #[test]
    fn rfc_1812_section_5_2_2_refuses_every_truncation_and_header_bit_flip() {
        let octets = packet(b"payload");
        for length in 0..octets.len() {
            assert!(Ipv4::parse(&octets[..length]).is_err(), "{length} octets");
        }
        for bit in 0..HEADER * 8 {
            let mut flipped = octets.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Ipv4::parse(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_is_written_is_valid_elsewhere() {
        let mut octets = [0; 30];
        assert!(write(
            &mut octets,
            Ipv4Addr::new(192, 0, 2, 1),
            Ipv4Addr::LOCALHOST,
            ICMP
        ));
        let (header, rest) = etherparse::Ipv4Header::from_slice(&octets).unwrap();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!((header.total_len, rest.len()), (30, 10));
        assert!(!write(
            &mut [0; 19],
            Ipv4Addr::LOCALHOST,
            Ipv4Addr::LOCALHOST,
            ICMP
        ));
    }

    proptest! {
        #[test]
        fn ttl_down_to_one_keeps_the_checksum_right_rfc_1624(
            source: [u8; 4], destination: [u8; 4], ttl in 2u8..=255,
        ) {
            let mut octets = Vec::new();
            etherparse::PacketBuilder::ipv4(source, destination, ttl)
                .udp(1, 2).write(&mut octets, &[]).unwrap();
            for left in (1..ttl).rev() {
                prop_assert!(decrement_ttl(&mut octets));
                prop_assert_eq!(Ipv4::parse(&octets).unwrap().ttl(), left);
            }
            prop_assert!(!decrement_ttl(&mut octets));
        }
    }
}
