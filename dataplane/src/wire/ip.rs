//! A packet of either family, for what does not care which.

use std::net::IpAddr;

use crate::verdict::DropReason;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};

/// A checked header.
#[derive(Clone, Copy)]
pub enum Ip<'a> {
    V4(Ipv4<'a>),
    V6(Ipv6<'a>),
}

impl<'a> Ip<'a> {
    /// Checks the header of whichever family the packet says it is.
    pub fn parse(octets: &'a [u8]) -> Result<Ip<'a>, DropReason> {
        match octets.first().map(|first| first >> 4) {
            Some(4) => Ipv4::parse(octets).map(Ip::V4),
            Some(6) => Ipv6::parse(octets).map(Ip::V6),
            _ => Err(DropReason::Malformed),
        }
    }

    /// Source address.
    pub fn source(self) -> IpAddr {
        match self {
            Ip::V4(ip) => ip.source().into(),
            Ip::V6(ip) => ip.source().into(),
        }
    }

    /// Destination address.
    pub fn destination(self) -> IpAddr {
        match self {
            Ip::V4(ip) => ip.destination().into(),
            Ip::V6(ip) => ip.destination().into(),
        }
    }
}

/// Takes one off the TTL or hop limit. False if it would reach zero; then the packet is as it was.
#[must_use]
#[inline]
pub fn decrement_hops(packet: &mut [u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => ipv4::decrement_ttl(packet),
        Some(6) => ipv6::decrement_hop_limit(packet),
        _ => false,
    }
}

/// The sum over the pseudo header in front of a transport header (RFC 768, RFC 8200 section 8.1),
/// for [`checksum`](super::checksum) to start from.
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u32 {
    let words = |octets: &[u8]| -> u32 {
        octets
            .chunks_exact(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum()
    };
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => words(&address.octets()),
        IpAddr::V6(address) => words(&address.octets()),
    };
    let length = (length as u32 >> 16) + (length as u32 & 0xffff);
    address(source) + address(destination) + u32::from(protocol) + length
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum;

    #[test]
    fn checksums_of_another_implementation_hold_in_both_families() {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        etherparse::PacketBuilder::ipv4([10, 1, 0, 1], [10, 2, 0, 2], 9)
            .udp(1, 2)
            .write(&mut v4, b"odd")
            .unwrap();
        etherparse::PacketBuilder::ipv6([0xfd; 16], [0x2a; 16], 9)
            .udp(1, 2)
            .write(&mut v6, b"odd")
            .unwrap();
        for (packet, header) in [(v4, ipv4::HEADER), (v6, ipv6::HEADER)] {
            let ip = Ip::parse(&packet).unwrap();
            let (from, to) = (ip.source(), ip.destination());
            let sum = pseudo_header(from, to, 17, packet.len() - header);
            assert_eq!(checksum(sum, &packet[header..]), 0);
        }
        assert!(Ip::parse(&[0x55; 60]).is_err() && Ip::parse(&[]).is_err());
        assert!(!decrement_hops(&mut [0x55; 60]) && !decrement_hops(&mut []));
    }
}
