//! UDP headers (RFC 768) and what shares port 4500 (RFC 3948 section 2).

/// Octets of the header.
pub const HEADER: usize = 8;
/// IKE (RFC 7296 section 2).
pub const IKE_PORT: u16 = 500;
/// IKE and ESP behind NAT (RFC 3948).
pub const NAT_PORT: u16 = 4500;

/// A checked header: its length fits the octets given.
#[derive(Clone, Copy)]
pub struct Udp<'a> {
    header: &'a [u8; HEADER],
    payload: &'a [u8],
}

impl<'a> Udp<'a> {
    /// The datagram in the payload of an IP packet. Its checksum is not looked at here.
    pub fn parse(octets: &'a [u8]) -> Option<Udp<'a>> {
        let header: &[u8; HEADER] = octets.first_chunk()?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let payload = octets.get(HEADER..length)?;
        Some(Udp { header, payload })
    }

    /// Source port.
    pub fn source_port(self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// Destination port.
    pub fn destination_port(self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// What the datagram carries.
    pub fn payload(self) -> &'a [u8] {
        self.payload
    }
}

/// A checksum as it is sent: zero would mean that there is none (RFC 768).
pub fn sent_checksum(sum: u16) -> u16 {
    if sum == 0 { 0xffff } else { sum }
}

/// What a datagram on port 4500 is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NatTraversal {
    /// Four zero octets, then IKE (RFC 3948 section 2.2).
    Ike,
    /// A single 0xFF (RFC 3948 section 2.3).
    Keepalive,
    /// Anything else (RFC 3948 section 2.1).
    Esp,
}

impl NatTraversal {
    /// Looks at the first octets of a datagram's payload.
    pub fn of(payload: &[u8]) -> NatTraversal {
        match payload {
            [0xff] => NatTraversal::Keepalive,
            [0, 0, 0, 0, ..] => NatTraversal::Ike,
            _ => NatTraversal::Esp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_field_rules() {
        let octets = [0x01, 0xf4, 0x11, 0x94, 0, 10, 0, 0, 7, 8, 9];
        let udp = Udp::parse(&octets).unwrap();
        assert_eq!(
            (udp.source_port(), udp.destination_port()),
            (IKE_PORT, NAT_PORT)
        );
        assert_eq!(udp.payload(), [7, 8]);
        for length in 0..10 {
            assert!(Udp::parse(&octets[..length]).is_none(), "{length} octets");
        }
        assert!(
            Udp::parse(&[0, 0, 0, 0, 0, 7, 0, 0]).is_none(),
            "shorter than itself"
        );
    }

    #[test]
    fn rfc_3948_section_2() {
        assert_eq!(NatTraversal::of(&[0xff]), NatTraversal::Keepalive);
        assert_eq!(NatTraversal::of(&[0, 0, 0, 0]), NatTraversal::Ike);
        assert_eq!(NatTraversal::of(&[0xff, 0xff, 0, 0]), NatTraversal::Esp);
        assert_eq!(NatTraversal::of(&[0, 0, 0]), NatTraversal::Esp);
        assert_eq!(NatTraversal::of(&[]), NatTraversal::Esp);
    }
}
