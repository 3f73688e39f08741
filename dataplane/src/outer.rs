//! The headers in front of ESP: IPv4 and, behind a NAT, UDP (RFC 4303 section 3.1, RFC 3948).

use std::net::Ipv4Addr;

use hitless_sa::UdpEncapsulation;

const IPV4_LENGTH: usize = 20;
const UDP_LENGTH: usize = 8;
const TTL: u8 = 64;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ESP: u8 = 50;

/// A header ready but for what differs from packet to packet: length, DSCP, ECN, identification.
#[derive(Clone, Debug)]
pub struct OuterHeader {
    template: [u8; IPV4_LENGTH + UDP_LENGTH],
    length: usize,
    /// Sum of the template's IPv4 header as 16-bit words.
    sum: u32,
}

impl OuterHeader {
    /// Headers for ESP between two tunnel endpoints.
    pub fn new(
        local: Ipv4Addr,
        remote: Ipv4Addr,
        encapsulation: Option<UdpEncapsulation>,
    ) -> OuterHeader {
        let mut template = [0; IPV4_LENGTH + UDP_LENGTH];
        template[0] = 0x45;
        template[8] = TTL;
        template[9] = match encapsulation {
            Some(_) => PROTOCOL_UDP,
            None => PROTOCOL_ESP,
        };
        template[12..16].copy_from_slice(&local.octets());
        template[16..20].copy_from_slice(&remote.octets());
        if let Some(ports) = encapsulation {
            template[20..22].copy_from_slice(&ports.local_port.to_be_bytes());
            template[22..24].copy_from_slice(&ports.remote_port.to_be_bytes());
            // The UDP checksum stays zero (RFC 3948 section 2.1).
        }
        let sum = template[..IPV4_LENGTH]
            .chunks_exact(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        OuterHeader {
            template,
            length: IPV4_LENGTH + encapsulation.map_or(0, |_| UDP_LENGTH),
            sum,
        }
    }

    /// Octets in front of ESP.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Writes the headers into the front of `packet`, which is long enough for them and goes on with
    /// ESP. False if it is not, or if it is longer than IPv4 can say.
    ///
    /// DF is clear, so the identification must differ between packets (RFC 6864 section 4.3): the
    /// low bits of the sequence number do.
    #[inline]
    #[must_use]
    pub fn write(&self, packet: &mut [u8], tos: u8, identification: u16) -> bool {
        let Ok(total) = u16::try_from(packet.len()) else {
            return false;
        };
        let Some(header) = packet.get_mut(..self.length) else {
            return false;
        };
        header.copy_from_slice(&self.template[..self.length]);
        header[1] = tos;
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header[4..6].copy_from_slice(&identification.to_be_bytes());
        let sum = self.sum + u32::from(tos) + u32::from(total) + u32::from(identification);
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !((folded + (folded >> 16)) as u16);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        if let Some(length) = header.get_mut(24..26) {
            length.copy_from_slice(&(total - IPV4_LENGTH as u16).to_be_bytes());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::Ipv4HeaderSlice;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lengths_and_checksum_are_right_for_every_packet(
            local: [u8; 4], remote: [u8; 4], tos: u8, identification: u16, esp in 0usize..2000,
            ports in proptest::option::of(any::<(u16, u16)>()),
        ) {
            let encapsulation = ports.map(|(local_port, remote_port)| UdpEncapsulation {
                local_port,
                remote_port,
            });
            let outer = OuterHeader::new(local.into(), remote.into(), encapsulation);
            let mut packet = vec![0xff; outer.len() + esp];
            prop_assert!(outer.write(&mut packet, tos, identification));
            let header = Ipv4HeaderSlice::from_slice(&packet).unwrap();
            prop_assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            prop_assert_eq!(usize::from(header.total_len()), packet.len());
            prop_assert_eq!((header.source(), header.destination()), (local, remote));
            prop_assert_eq!(header.identification(), identification);
            prop_assert_eq!(packet[1], tos);
            prop_assert!(packet[outer.len()..].iter().all(|&octet| octet == 0xff));
        }
    }

    #[test]
    fn the_checksum_is_right_for_every_sum() {
        let outer = OuterHeader::new([255, 254, 253, 252].into(), [9, 8, 7, 6].into(), None);
        for identification in 0..=u16::MAX {
            let mut packet = [0; 20];
            assert!(outer.write(&mut packet, 0xb8, identification));
            let header = Ipv4HeaderSlice::from_slice(&packet).unwrap();
            assert_eq!(
                header.header_checksum(),
                header.to_header().calc_header_checksum()
            );
        }
    }

    #[test]
    fn refuses_what_it_does_not_fit() {
        let outer = OuterHeader::new(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, None);
        assert!(!outer.write(&mut [0; 19], 0, 0));
        assert!(!outer.write(&mut vec![0; 65_536], 0, 0));
        assert!(outer.write(&mut vec![0; 65_535], 0, 0));
    }
}
