//! The headers in front of ESP: IPv4 or IPv6 and, behind a NAT, UDP (RFC 4303 section 3.1,
//! RFC 3948).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hitless_sa::{DontFragment, Dscp, SaOptions, UdpEncapsulation};

use crate::wire::ip::pseudo_header;
use crate::wire::{checksum, ipv4, ipv6, udp};

const LONGEST: usize = ipv6::HEADER + udp::HEADER;
/// Bits of the traffic class.
const DSCP: u8 = 0xfc;
const ECN: u8 = 0x03;
/// The flag in its header word.
const DF: u32 = 0x4000;

/// A header ready but for what differs from packet to packet: lengths, DSCP, ECN, identification,
/// checksums.
#[derive(Clone, Debug)]
pub struct OuterHeader {
    template: [u8; LONGEST],
    /// Octets of the IP header.
    ip: usize,
    /// Octets of it all.
    length: usize,
    /// IPv4: the sum of the template's header as 16-bit words. IPv6: of what a UDP checksum covers
    /// of the headers, but for the length.
    sum: u32,
    /// Bits of the inner traffic class that the outer one repeats.
    repeated: u8,
    /// The others.
    fixed: u8,
    /// Whether the inner packet's DF is repeated.
    copy_df: bool,
}

/// What outer headers may take over from the inner one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inner {
    /// DSCP and ECN.
    pub tos: u8,
    /// An IPv4 packet with DF, or an IPv6 packet, which has no need of the bit.
    pub dont_fragment: bool,
}

/// A header as far as it is ready, and what [`OuterHeader::write`] does to the rest of it.
#[derive(Clone, Copy)]
pub(crate) struct Template<'a> {
    pub(crate) octets: &'a [u8],
    /// IPv4: the sum of the header as 16-bit words.
    pub(crate) sum: u32,
    pub(crate) repeated: u8,
    pub(crate) fixed: u8,
    pub(crate) copy_df: bool,
}

/// The endpoints of a tunnel are of different families.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MixedFamilies;

impl fmt::Display for MixedFamilies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tunnel's endpoints must be both IPv4 or both IPv6")
    }
}

impl std::error::Error for MixedFamilies {}

impl OuterHeader {
    /// Headers for ESP between two tunnel endpoints.
    pub fn new(
        local: IpAddr,
        remote: IpAddr,
        encapsulation: Option<UdpEncapsulation>,
        options: &SaOptions,
    ) -> Result<OuterHeader, MixedFamilies> {
        let mut outer = match (local, remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                OuterHeader::v4(local, remote, encapsulation, options)
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                OuterHeader::v6(local, remote, encapsulation, options)
            }
            _ => return Err(MixedFamilies),
        };
        let dscp = match options.dscp {
            Dscp::Copy => DSCP,
            Dscp::Fixed(dscp) => {
                outer.fixed = dscp << 2;
                0
            }
        };
        outer.copy_df = options.dont_fragment == DontFragment::Copy;
        outer.repeated = dscp | if options.copy_ecn { ECN } else { 0 };
        Ok(outer)
    }

    fn v4(
        local: Ipv4Addr,
        remote: Ipv4Addr,
        encapsulation: Option<UdpEncapsulation>,
        options: &SaOptions,
    ) -> OuterHeader {
        let mut outer = OuterHeader::empty(ipv4::HEADER, encapsulation);
        let header = &mut outer.template;
        header[0] = 0x45;
        if options.dont_fragment == DontFragment::Set {
            header[6] = (DF >> 8) as u8;
        }
        header[8] = options.hop_limit;
        header[9] = protocol(encapsulation);
        header[12..16].copy_from_slice(&local.octets());
        header[16..20].copy_from_slice(&remote.octets());
        // The UDP checksum stays zero (RFC 3948 section 2.1).
        outer.sum = sum(&header[..ipv4::HEADER]);
        outer
    }

    fn v6(
        local: Ipv6Addr,
        remote: Ipv6Addr,
        encapsulation: Option<UdpEncapsulation>,
        options: &SaOptions,
    ) -> OuterHeader {
        let mut outer = OuterHeader::empty(ipv6::HEADER, encapsulation);
        let header = &mut outer.template;
        header[..4].copy_from_slice(&(options.flow_label & 0x000f_ffff).to_be_bytes());
        header[0] |= 0x60;
        header[6] = protocol(encapsulation);
        header[7] = options.hop_limit;
        header[8..24].copy_from_slice(&local.octets());
        header[24..40].copy_from_slice(&remote.octets());
        outer.sum =
            pseudo_header(local.into(), remote.into(), ipv4::UDP, 0) + sum(&header[ipv6::HEADER..]);
        outer
    }

    fn empty(ip: usize, encapsulation: Option<UdpEncapsulation>) -> OuterHeader {
        let mut template = [0; LONGEST];
        if let Some(ports) = encapsulation {
            template[ip..ip + 2].copy_from_slice(&ports.local_port.to_be_bytes());
            template[ip + 2..ip + 4].copy_from_slice(&ports.remote_port.to_be_bytes());
        }
        OuterHeader {
            template,
            ip,
            length: ip + encapsulation.map_or(0, |_| udp::HEADER),
            sum: 0,
            repeated: 0,
            fixed: 0,
            copy_df: false,
        }
    }

    /// Octets in front of ESP.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub fn len(&self) -> usize {
        self.length
    }

    /// What is ready of it.
    pub(crate) fn template(&self) -> Template<'_> {
        Template {
            octets: self.template.get(..self.length).unwrap_or_default(),
            sum: self.sum,
            repeated: self.repeated,
            fixed: self.fixed,
            copy_df: self.copy_df,
        }
    }

    /// Writes the headers into the front of `packet`, which is long enough for them and goes on with
    /// ESP. False if it is not, or if it is longer than the headers can say. ESP is in place: over
    /// IPv6 the UDP checksum covers it, and must not be zero (RFC 8200 section 8.1).
    ///
    /// Where DF is clear the identification must differ between packets of all SAs of the same
    /// endpoints (RFC 6864 section 4.3).
    #[inline]
    #[must_use]
    pub fn write(&self, packet: &mut [u8], inner: Inner, identification: u16) -> bool {
        let (Ok(total), Ok(payload)) = (
            u16::try_from(packet.len()),
            u16::try_from(packet.len().saturating_sub(self.ip)),
        ) else {
            return false;
        };
        let (Some(header), Some(template)) = (
            packet.get_mut(..self.length),
            self.template.get(..self.length),
        ) else {
            return false;
        };
        header.copy_from_slice(template);
        let tos = inner.tos & self.repeated | self.fixed;
        if self.ip == ipv4::HEADER {
            header[1] = tos;
            header[2..4].copy_from_slice(&total.to_be_bytes());
            header[4..6].copy_from_slice(&identification.to_be_bytes());
            let flags = if self.copy_df && inner.dont_fragment {
                DF
            } else {
                0
            };
            header[6] |= (flags >> 8) as u8;
            let sum =
                self.sum + u32::from(tos) + u32::from(total) + u32::from(identification) + flags;
            header[10..12].copy_from_slice(&(!fold(sum)).to_be_bytes());
        } else {
            header[0] |= tos >> 4;
            header[1] |= tos << 4;
            header[4..6].copy_from_slice(&payload.to_be_bytes());
        }
        if let Some(length) = header.get_mut(self.ip + 4..self.ip + 6) {
            length.copy_from_slice(&payload.to_be_bytes());
        }
        if self.length == LONGEST {
            self.checksum(packet);
        }
        true
    }

    /// Writes the UDP checksum over IPv6.
    fn checksum(&self, packet: &mut [u8]) {
        if let Some((headers, esp)) = packet.split_at_mut_checked(LONGEST)
            && let Some(header) = headers.last_chunk_mut::<{ udp::HEADER }>()
        {
            let length = udp::HEADER + esp.len();
            // The length counts twice: in the pseudo header and in UDP's own.
            let sum = checksum(self.sum + 2 * length as u32, esp);
            header[6..].copy_from_slice(&udp::sent_checksum(sum).to_be_bytes());
        }
    }
}

fn protocol(encapsulation: Option<UdpEncapsulation>) -> u8 {
    encapsulation.map_or(ipv4::ESP, |_| ipv4::UDP)
}

/// The sum of 16-bit words, not folded.
fn sum(octets: &[u8]) -> u32 {
    octets
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum()
}

#[inline]
fn fold(sum: u32) -> u16 {
    let folded = (sum & 0xffff) + (sum >> 16);
    (folded + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, UdpHeader};
    use proptest::prelude::*;

    fn ports(ports: Option<(u16, u16)>) -> Option<UdpEncapsulation> {
        ports.map(|(local_port, remote_port)| UdpEncapsulation {
            local_port,
            remote_port,
        })
    }

    fn inner(tos: u8, dont_fragment: bool) -> Inner {
        Inner { tos, dont_fragment }
    }

    fn options() -> impl Strategy<Value = SaOptions> {
        (any::<[bool; 2]>(), 0u8..3, 0u8..64, 1u8.., 0u32..1 << 20).prop_map(
            |([dscp, copy_ecn], df, value, hop_limit, flow_label)| SaOptions {
                dscp: if dscp { Dscp::Copy } else { Dscp::Fixed(value) },
                copy_ecn,
                dont_fragment: match df {
                    0 => DontFragment::Copy,
                    1 => DontFragment::Set,
                    _ => DontFragment::Clear,
                },
                hop_limit,
                flow_label,
                ..SaOptions::default()
            },
        )
    }

    /// The traffic class that the settings make of an inner one.
    fn expected_class(options: &SaOptions, tos: u8) -> u8 {
        let dscp = match options.dscp {
            Dscp::Copy => tos & DSCP,
            Dscp::Fixed(dscp) => dscp << 2,
        };
        dscp | if options.copy_ecn { tos & ECN } else { 0 }
    }

    proptest! {
        #[test]
        fn ipv4_lengths_and_checksum_are_right_for_every_packet(
            local: [u8; 4], remote: [u8; 4], tos: u8, identification: u16, df: bool, esp in 0usize..2000,
            udp in proptest::option::of(any::<(u16, u16)>()), options in options(),
        ) {
            let outer = OuterHeader::new(local.into(), remote.into(), ports(udp), &options).unwrap();
            let mut packet = vec![0xff; outer.len() + esp];
            prop_assert!(outer.write(&mut packet, inner(tos, df), identification));
            let slice = Ipv4HeaderSlice::from_slice(&packet).unwrap();
            let header = slice.to_header();
            prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
            prop_assert_eq!(usize::from(header.total_len), packet.len());
            prop_assert_eq!((header.source, header.destination), (local, remote));
            prop_assert_eq!(header.identification, identification);
            prop_assert_eq!(header.time_to_live, options.hop_limit);
            let expected_df = match options.dont_fragment {
                DontFragment::Copy => df,
                other => other == DontFragment::Set,
            };
            prop_assert_eq!(header.dont_fragment, expected_df);
            prop_assert_eq!(packet[1], expected_class(&options, tos));
            prop_assert!(packet[outer.len()..].iter().all(|&octet| octet == 0xff));
            if let Some((from, to)) = udp {
                let (header, _) = UdpHeader::from_slice(&packet[20..]).unwrap();
                prop_assert_eq!((header.source_port, header.destination_port), (from, to));
                prop_assert_eq!((header.length, header.checksum), (esp as u16 + 8, 0), "RFC 3948 2.1");
            }
        }

        #[test]
        fn rfc8200_section_8_1_ipv6_headers_and_the_udp_checksum_are_right_for_every_packet(
            local: [u8; 16], remote: [u8; 16], tos: u8, fill: u8, esp in 0usize..2000,
            udp in proptest::option::of(any::<(u16, u16)>()), options in options(),
        ) {
            let outer = OuterHeader::new(local.into(), remote.into(), ports(udp), &options).unwrap();
            let mut packet = vec![fill; outer.len() + esp];
            prop_assert!(outer.write(&mut packet, inner(tos, false), 7));
            let header = Ipv6HeaderSlice::from_slice(&packet).unwrap().to_header();
            prop_assert_eq!(usize::from(header.payload_length), packet.len() - 40);
            prop_assert_eq!((header.source, header.destination), (local, remote));
            prop_assert_eq!(header.flow_label.value(), options.flow_label);
            prop_assert_eq!(header.hop_limit, options.hop_limit);
            prop_assert_eq!(header.traffic_class, expected_class(&options, tos));
            if let Some((from, to)) = udp {
                let (udp, esp) = UdpHeader::from_slice(&packet[40..]).unwrap();
                prop_assert_eq!((udp.source_port, udp.destination_port), (from, to));
                let right = udp.calc_checksum_ipv6(&header, esp).unwrap();
                prop_assert_eq!(udp.checksum, right);
                prop_assert!(udp.checksum != 0);
            }
        }
    }

    #[test]
    fn the_ipv4_checksum_is_right_for_every_sum() {
        let (from, to) = ([255, 254, 253, 252], [9, 8, 7, 6]);
        let options = SaOptions::default();
        let outer = OuterHeader::new(from.into(), to.into(), None, &options).unwrap();
        for identification in 0..=u16::MAX {
            let mut packet = [0; 20];
            assert!(outer.write(
                &mut packet,
                inner(0xb8, identification % 3 == 0),
                identification
            ));
            let header = Ipv4HeaderSlice::from_slice(&packet).unwrap();
            assert_eq!(
                header.header_checksum(),
                header.to_header().calc_header_checksum()
            );
        }
    }

    #[test]
    fn rfc8200_section_8_1_a_udp_checksum_of_zero_is_sent_as_ones() {
        let ends = [IpAddr::from([0x20; 16]), IpAddr::from([0x30; 16])];
        let udp = ports(Some((4500, 4500)));
        let outer = OuterHeader::new(ends[0], ends[1], udp, &SaOptions::default()).unwrap();
        let zeros = (0..=u16::MAX).filter(|n| {
            let mut packet = [0; LONGEST + 2];
            packet[LONGEST..].copy_from_slice(&n.to_be_bytes());
            assert!(outer.write(&mut packet, inner(0, false), 0));
            assert_ne!(packet[46..48], [0, 0]);
            packet[46..48] == [0xff, 0xff]
        });
        assert_eq!(zeros.count(), 1);
    }

    #[test]
    fn refuses_what_it_does_not_fit() {
        let options = SaOptions::default();
        let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        let outer = OuterHeader::new(v4, v4, None, &options).unwrap();
        assert!(!outer.write(&mut [0; 19], inner(0, false), 0));
        assert!(!outer.write(&mut vec![0; 65_536], inner(0, false), 0));
        assert!(outer.write(&mut vec![0; 65_535], inner(0, false), 0));
        let mixed = OuterHeader::new(v4, v6, None, &options);
        assert_eq!(mixed.err(), Some(MixedFamilies));
    }
}
