//! Address resolution for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use crate::port::MacAddress;

/// Octets of a packet.
pub const LENGTH: usize = 28;
/// Hardware type Ethernet, protocol type IPv4, and their address lengths.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// What the packet does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    Request,
    Reply,
}

/// A whole packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    pub operation: Operation,
    pub sender_mac: MacAddress,
    pub sender: Ipv4Addr,
    pub target_mac: MacAddress,
    pub target: Ipv4Addr,
}

impl Arp {
    /// Reads what follows an Ethernet header; padding behind it is allowed.
    pub fn parse(octets: &[u8]) -> Option<Arp> {
        let packet: &[u8; LENGTH] = octets.first_chunk()?;
        let rest: &[u8; LENGTH - 6] = packet.strip_prefix(&ETHERNET_IPV4)?.first_chunk()?;
        let operation = match u16::from_be_bytes([rest[0], rest[1]]) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return None,
        };
        let mac = |at: usize| -> Option<MacAddress> { rest.get(at..)?.first_chunk().copied() };
        let address = |at: usize| -> Option<Ipv4Addr> {
            rest.get(at..)?
                .first_chunk::<4>()
                .map(|a| Ipv4Addr::from(*a))
        };
        Some(Arp {
            operation,
            sender_mac: mac(2)?,
            sender: address(8)?,
            target_mac: mac(12)?,
            target: address(18)?,
        })
    }

    /// The packet's octets.
    pub fn emit(&self) -> [u8; LENGTH] {
        let mut octets = [0; LENGTH];
        octets[..6].copy_from_slice(&ETHERNET_IPV4);
        octets[7] = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        octets[8..14].copy_from_slice(&self.sender_mac);
        octets[14..18].copy_from_slice(&self.sender.octets());
        octets[18..24].copy_from_slice(&self.target_mac);
        octets[24..].copy_from_slice(&self.target.octets());
        octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO_HAS: Arp = Arp {
        operation: Operation::Request,
        sender_mac: [2, 0, 0, 0, 0, 9],
        sender: Ipv4Addr::new(192, 0, 2, 9),
        target_mac: [0; 6],
        target: Ipv4Addr::new(192, 0, 2, 1),
    };

    #[test]
    fn rfc_826_layout() {
        let octets = WHO_HAS.emit();
        assert_eq!(octets[..8], [0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(Arp::parse(&octets), Some(WHO_HAS));
        let reply = Arp {
            operation: Operation::Reply,
            ..WHO_HAS
        };
        assert_eq!(Arp::parse(&reply.emit()), Some(reply));
    }

    #[test]
    fn refuses_every_truncation_and_other_hardware() {
        let octets = WHO_HAS.emit();
        for length in 0..LENGTH {
            assert_eq!(Arp::parse(&octets[..length]), None);
        }
        for at in 0..8 {
            let mut other = octets;
            other[at] ^= 0x40;
            assert_eq!(Arp::parse(&other), None, "octet {at}");
        }
    }
}
