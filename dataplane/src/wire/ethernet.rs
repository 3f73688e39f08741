//! Ethernet II frames.

use std::net::Ipv6Addr;

use crate::port::MacAddress;

/// Octets of the header.
pub const HEADER: usize = 14;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// The address of everybody on the link.
pub const BROADCAST: MacAddress = [0xff; 6];

/// The header of a frame.
#[derive(Clone, Copy)]
pub struct Ethernet<'a>(&'a [u8; HEADER]);

impl<'a> Ethernet<'a> {
    /// The header, if the frame is long enough to have one.
    pub fn parse(frame: &'a [u8]) -> Option<Ethernet<'a>> {
        frame.first_chunk().map(Ethernet)
    }

    /// Who the frame is for.
    pub fn destination(self) -> MacAddress {
        let [a, b, c, d, e, f, ..] = *self.0;
        [a, b, c, d, e, f]
    }

    /// Who sent it.
    pub fn source(self) -> MacAddress {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.0;
        [a, b, c, d, e, f]
    }

    /// What it carries.
    pub fn ether_type(self) -> u16 {
        u16::from_be_bytes([self.0[12], self.0[13]])
    }
}

/// Whether the address is one of those that IPv6 multicast uses (RFC 2464 section 7).
pub fn is_ipv6_group(address: MacAddress) -> bool {
    address.starts_with(&[0x33, 0x33])
}

/// The group address for an IPv6 multicast address (RFC 2464 section 7).
pub fn ipv6_group(address: Ipv6Addr) -> MacAddress {
    let [.., a, b, c, d] = address.octets();
    [0x33, 0x33, a, b, c, d]
}

/// Whether the address names a group, broadcast included.
pub fn is_group(address: MacAddress) -> bool {
    address[0] & 1 == 1
}

/// Writes a header at the front of `frame`, unless it is too short for one.
#[must_use]
pub fn write(
    frame: &mut [u8],
    destination: MacAddress,
    source: MacAddress,
    ether_type: u16,
) -> bool {
    let Some(header) = frame.first_chunk_mut::<HEADER>() else {
        return false;
    };
    header[..6].copy_from_slice(&destination);
    header[6..12].copy_from_slice(&source);
    header[12..].copy_from_slice(&ether_type.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_it_reads() {
        let mut frame = [0; 20];
        let (to, from) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        assert!(write(&mut frame, to, from, ARP));
        let read = Ethernet::parse(&frame).unwrap();
        assert_eq!(
            (read.destination(), read.source(), read.ether_type()),
            (to, from, ARP)
        );
        let (other, _) = etherparse::Ethernet2Header::from_slice(&frame).unwrap();
        assert_eq!((other.destination, other.source), (to, from));
    }

    #[test]
    fn a_short_frame_has_no_header() {
        for length in 0..HEADER {
            assert!(Ethernet::parse(&[0; HEADER][..length]).is_none());
            assert!(!write(
                &mut [0; HEADER][..length],
                BROADCAST,
                BROADCAST,
                IPV4
            ));
        }
    }
}
