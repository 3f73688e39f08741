//! The packet that came out of a tunnel, by its first octets: only one that is whole, plain and to be
//! forwarded is told apart, the rest is odd.

use std::net::IpAddr;

use super::egress::{is_v4_key, v4_key, v6_key};
use crate::esp;
use crate::wire::{checksum, ipv4, ipv6};

/// "More fragments", and the offset.
const FRAGMENT: u16 = 0x3fff;
const SYN: u8 = 0x02;
/// Where TCP's flags are.
const FLAGS: usize = 13;

/// Source and destination of a packet, IPv4 ones as IPv6 maps them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Ends {
    pub(super) source: u128,
    pub(super) destination: u128,
}

impl Ends {
    /// The addresses themselves.
    pub(super) fn addresses(&self) -> (IpAddr, IpAddr) {
        let address = |key: u128| std::net::Ipv6Addr::from(key).to_canonical();
        (address(self.source), address(self.destination))
    }

    /// Both, if they are IPv4's.
    #[inline]
    pub(super) fn v4(&self) -> Option<(u32, u32)> {
        let v4 = is_v4_key(self.destination);
        v4.then_some((self.source as u32, self.destination as u32))
    }
}

/// A plain packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Inner {
    /// Octets of the packet.
    pub(super) length: u16,
    pub(super) ends: Ends,
}

impl Inner {
    /// Looks at the payload of ESP, behind which there may be TFC padding (RFC 4303 section 2.7). A
    /// plain packet has an intact IP header without options or extensions, hops left, is no fragment,
    /// and opens no TCP connection: such a one may have to be rewritten (RFC 4459 section 3.2).
    #[inline(always)]
    pub(super) fn look(next_header: u8, payload: &[u8]) -> Option<Inner> {
        match next_header {
            esp::NEXT_HEADER_IPV4 => Inner::look_v4(payload),
            esp::NEXT_HEADER_IPV6 => Inner::look_v6(payload),
            _ => None,
        }
    }

    #[inline(always)]
    fn look_v4(payload: &[u8]) -> Option<Inner> {
        let (header, upper) = payload.split_first_chunk::<{ ipv4::HEADER }>()?;
        let [
            first,
            _,
            l0,
            l1,
            _,
            _,
            f0,
            f1,
            hops,
            protocol,
            _,
            _,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ] = *header;
        let length = u16::from_be_bytes([l0, l1]);
        let plain = first == 0x45
            && (ipv4::HEADER..=payload.len()).contains(&usize::from(length))
            && u16::from_be_bytes([f0, f1]) & FRAGMENT == 0
            && hops > 1
            && checksum(0, header) == 0
            && (protocol != ipv4::TCP || continues(upper, usize::from(length) - ipv4::HEADER));
        plain.then_some(Inner {
            length,
            ends: Ends {
                source: v4_key([s0, s1, s2, s3]),
                destination: v4_key([d0, d1, d2, d3]),
            },
        })
    }

    #[inline]
    fn look_v6(payload: &[u8]) -> Option<Inner> {
        let (header, upper) = payload.split_first_chunk::<{ ipv6::HEADER }>()?;
        let [first, _, _, _, l0, l1, protocol, hops, ..] = *header;
        let behind = u16::from_be_bytes([l0, l1]);
        let length = behind.checked_add(ipv6::HEADER as u16)?;
        let plain = first >> 4 == 6
            && usize::from(length) <= payload.len()
            && hops > 1
            && match protocol {
                ipv4::UDP | ipv6::ICMP | ipv4::ESP => true,
                ipv4::TCP => continues(upper, usize::from(behind)),
                _ => false,
            };
        let source = header.get(8..)?.first_chunk::<16>()?;
        plain.then_some(Inner {
            length,
            ends: Ends {
                source: v6_key(*source)?,
                destination: v6_key(*header.last_chunk()?)?,
            },
        })
    }
}

/// Whether a TCP segment of so many octets belongs to a connection that is open.
#[inline]
fn continues(segment: &[u8], octets: usize) -> bool {
    octets > FLAGS && segment.get(FLAGS).is_some_and(|flags| flags & SYN == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use crate::classify::{Addresses, Class, classify};

    /// TCP, UDP and something else, of either family.
    fn packets() -> Vec<(u8, Vec<u8>)> {
        let mut packets = Vec::new();
        for (next_header, v6) in [(4, false), (41, true)] {
            let from = || match v6 {
                false => PacketBuilder::ipv4([10, 2, 0, 9], [10, 1, 0, 7], 9),
                true => PacketBuilder::ipv6([0x2a; 16], [0xfd; 16], 9),
            };
            let mut each = [const { Vec::new() }; 3];
            from().tcp(7, 80, 1, 1).write(&mut each[0], b"x").unwrap();
            from().udp(7, 4500).write(&mut each[1], b"x").unwrap();
            from().write(&mut each[2], 50.into(), &[1; 9]).unwrap();
            packets.extend(each.map(|packet| (next_header, packet)));
        }
        packets
    }

    #[test]
    fn plain_packets_are_told_apart_rfc4303_section_2_7_tfc_padding_is_not_theirs() {
        for (next_header, packet) in packets() {
            let padded = [&packet[..], &[0; 40]].concat();
            for payload in [&packet, &padded] {
                let inner = Inner::look(next_header, payload).unwrap();
                assert_eq!(usize::from(inner.length), packet.len());
                let flow = crate::flow::Flow::parse(&packet).unwrap();
                assert_eq!(inner.ends.addresses(), (flow.source, flow.destination));
                assert_eq!(inner.ends.v4().is_some(), next_header == 4);
            }
            assert_eq!(Inner::look(45 - next_header, &packet), None);
            assert_eq!(Inner::look(59, &packet), None);
        }
    }

    #[test]
    fn rfc4291_section_2_5_5_2_addresses_that_stand_for_those_of_ipv4_are_odd() {
        let mapped = std::net::Ipv4Addr::new(10, 1, 0, 7).to_ipv6_mapped();
        let (_, packet) = packets().swap_remove(4);
        assert!(Inner::look(41, &packet).is_some());
        // Source, destination, both.
        for places in [&[8][..], &[24], &[8, 24]] {
            let mut packet = packet.clone();
            for at in places {
                packet[*at..at + 16].copy_from_slice(&mapped.octets());
            }
            assert_eq!(Inner::look(41, &packet), None);
        }
    }

    #[test]
    fn what_is_cut_short_or_opens_a_connection_is_odd() {
        for (next_header, mut packet) in packets() {
            for length in 0..packet.len() {
                assert_eq!(Inner::look(next_header, &packet[..length]), None);
            }
            let header = if next_header == 4 { 20 } else { 40 };
            if packet[if next_header == 4 { 9 } else { 6 }] == 6 {
                packet[header + FLAGS] |= SYN;
                assert_eq!(Inner::look(next_header, &packet), None);
            }
        }
    }

    proptest! {
        /// What the lane forwards is what the plain way would have: the same octets, between the same
        /// hosts, with hops left.
        #[test]
        fn what_is_plain_would_be_forwarded_by_the_plain_way_too(
            which in 0usize..6,
            changes in prop::collection::vec((0usize..56, any::<u8>()), 0..4),
            mend: bool,
        ) {
            let (next_header, mut packet) = packets().swap_remove(which);
            for (at, value) in changes {
                if let Some(octet) = packet.get_mut(at) { *octet = value; }
            }
            if mend && next_header == 4 {
                packet[10..12].fill(0);
                let sum = checksum(0, &packet[..20]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            let addresses = Addresses::new(&[([192, 0, 2, 1].into(), 24), ([0x30; 16].into(), 64)]);
            if let Some(inner) = Inner::look(next_header, &packet) {
                let (from, to) = inner.ends.addresses();
                let others = addresses.is_between_others(from, to);
                match classify(&packet, &addresses) {
                    Ok((Class::Forward(flow), length)) => {
                        prop_assert_eq!(length, usize::from(inner.length));
                        prop_assert_eq!((flow.source, flow.destination), (from, to));
                        prop_assert!(others);
                        prop_assert!(!crate::mss::opens(&packet));
                        prop_assert!(crate::wire::ip::decrement_hops(&mut packet));
                    }
                    _ => prop_assert!(!others),
                }
            }
        }
    }
}
