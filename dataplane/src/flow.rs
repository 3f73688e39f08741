//! What traffic selectors look at in an IP packet (RFC 4301 section 4.4.1.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hitless_sa::TrafficSelector;

/// IPv6 extension headers that are walked over; a packet with more is not matched.
const MAX_EXTENSION_HEADERS: usize = 8;

/// Addresses, protocol and ports of one packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flow {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The transport protocol, behind any IPv6 extension headers.
    pub protocol: u8,
    pub ports: Ports,
}

/// The ports of a packet, as far as it has any.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ports {
    /// Source and destination. For ICMP both are type and code, for Mobile IPv6 the type of its
    /// header (RFC 7296 section 3.13.1).
    Of(u16, u16),
    /// A protocol without ports, a later fragment, or too short: only a selector for every port, or
    /// for OPAQUE ones, matches (RFC 4301 section 4.4.1.1).
    Opaque,
}

impl Flow {
    /// Reads a packet that begins with its IP header. `None` if it is too short for its own headers.
    #[inline]
    pub fn parse(packet: &[u8]) -> Option<Flow> {
        match packet.first()? >> 4 {
            4 => Flow::parse_v4(packet),
            6 => Flow::parse_v6(packet),
            _ => None,
        }
    }

    #[inline]
    fn parse_v4(packet: &[u8]) -> Option<Flow> {
        let header: &[u8; 20] = packet.first_chunk()?;
        let header_length = usize::from(header[0] & 0x0f) * 4;
        if header_length < header.len() {
            return None;
        }
        let payload = packet.get(header_length..)?;
        let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
        let protocol = header[9];
        Some(Flow {
            source: Ipv4Addr::from([header[12], header[13], header[14], header[15]]).into(),
            destination: Ipv4Addr::from([header[16], header[17], header[18], header[19]]).into(),
            protocol,
            ports: match fragment_offset {
                0 => Ports::parse(protocol, payload),
                _ => Ports::Opaque,
            },
        })
    }

    fn parse_v6(packet: &[u8]) -> Option<Flow> {
        let (header, mut payload) = packet.split_first_chunk::<40>()?;
        let source: [u8; 16] = *header[8..].first_chunk()?;
        let destination: [u8; 16] = *header[24..].first_chunk()?;
        let mut flow = Flow {
            source: Ipv6Addr::from(source).into(),
            destination: Ipv6Addr::from(destination).into(),
            protocol: header[6],
            ports: Ports::Opaque,
        };
        for _ in 0..MAX_EXTENSION_HEADERS {
            // RFC 8200 section 4: each begins with the next header and, but for the fragment
            // header, its own length in units of eight octets after the first eight.
            let length = match flow.protocol {
                0 | 43 | 60 => (usize::from(*payload.get(1)?) + 1) * 8,
                44 => 8,
                _ => {
                    flow.ports = Ports::parse(flow.protocol, payload);
                    return Some(flow);
                }
            };
            let (extension, rest) = payload.split_at_checked(length)?;
            let is_fragment = flow.protocol == 44;
            flow.protocol = extension[0];
            if is_fragment && u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 != 0 {
                return Some(flow);
            }
            payload = rest;
        }
        None
    }

    /// Whether even the transport protocol cannot be seen: the first fragment has the rest of the
    /// extension headers, and this is a later one.
    pub(crate) fn hides_protocol(&self) -> bool {
        self.source.is_ipv6() && matches!(self.protocol, 0 | 43 | 44 | 60)
    }

    /// Whether one of `local` matches the source and one of `remote` the destination, as a packet
    /// that leaves us must.
    pub fn matches_outbound(&self, local: &[TrafficSelector], remote: &[TrafficSelector]) -> bool {
        local.iter().any(|selector| self.source_within(selector))
            && remote
                .iter()
                .any(|selector| self.destination_within(selector))
    }

    /// Whether one of `remote` matches the source and one of `local` the destination, as a packet
    /// that comes from the peer must.
    pub fn matches_inbound(&self, local: &[TrafficSelector], remote: &[TrafficSelector]) -> bool {
        self.matches_outbound(remote, local)
    }

    /// Whether the selector covers source address, protocol and source port.
    #[inline]
    pub fn source_within(&self, selector: &TrafficSelector) -> bool {
        match self.ports {
            Ports::Of(port, _) => selector.matches(self.source, self.protocol, port),
            Ports::Opaque => selector.matches_opaque(self.source, self.protocol),
        }
    }

    /// Whether the selector covers destination address, protocol and destination port.
    #[inline]
    pub fn destination_within(&self, selector: &TrafficSelector) -> bool {
        match self.ports {
            Ports::Of(_, port) => selector.matches(self.destination, self.protocol, port),
            Ports::Opaque => selector.matches_opaque(self.destination, self.protocol),
        }
    }
}

impl Ports {
    #[inline]
    fn parse(protocol: u8, payload: &[u8]) -> Ports {
        match (protocol, payload) {
            // TCP, UDP, DCCP, SCTP, UDP-Lite begin with the two ports.
            (6 | 17 | 33 | 132 | 136, [a, b, c, d, ..]) => {
                Ports::Of(u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
            }
            (1 | 58, [kind, code, ..]) => {
                let port = u16::from_be_bytes([*kind, *code]);
                Ports::Of(port, port)
            }
            (135, [_, _, kind, ..]) => {
                let port = u16::from_be_bytes([*kind, 0]);
                Ports::Of(port, port)
            }
            _ => Ports::Opaque,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn tcp_v4() -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([10, 1, 0, 1], [10, 2, 0, 2], 9)
            .tcp(1000, 80, 1, 1)
            .write(&mut packet, b"data")
            .unwrap();
        packet
    }

    /// IPv6 with a chain of extension headers of eight octets each, then UDP from 7 to 9.
    fn v6(chain: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[8] = 0x20;
        packet[24] = 0x30;
        let protocols = [chain, &[17]].concat();
        packet[6] = protocols[0];
        for next in &protocols[1..] {
            packet.extend([*next, 0, 0, 1, 0, 0, 0, 0]);
        }
        packet.extend([0, 7, 0, 9, 0, 8, 0, 0]);
        packet
    }

    fn selector(text: &str) -> TrafficSelector {
        text.parse().unwrap()
    }

    #[test]
    fn reads_addresses_protocol_and_ports() {
        let flow = Flow::parse(&tcp_v4()).unwrap();
        assert_eq!(flow.source, IpAddr::from([10, 1, 0, 1]));
        assert_eq!(flow.destination, IpAddr::from([10, 2, 0, 2]));
        assert_eq!((flow.protocol, flow.ports), (6, Ports::Of(1000, 80)));
    }

    #[test]
    fn looks_behind_ipv4_options() {
        let mut packet = tcp_v4();
        packet[0] = 0x46;
        packet.splice(20..20, [1, 1, 1, 0]);
        assert_eq!(Flow::parse(&packet).unwrap().ports, Ports::Of(1000, 80));
    }

    #[test]
    fn looks_behind_ipv6_extension_headers() {
        for chain in [&[][..], &[0], &[0, 43, 60]] {
            let flow = Flow::parse(&v6(chain)).unwrap();
            assert_eq!((flow.protocol, flow.ports), (17, Ports::Of(7, 9)));
        }
        // Offset 0 of a fragmented packet has its ports; the flag "more" is not part of the offset.
        assert_eq!(Flow::parse(&v6(&[44])).unwrap().ports, Ports::Of(7, 9));
        assert_eq!(Flow::parse(&v6(&[0; 9])), None, "too many");
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        let mut packet = tcp_v4();
        packet[7] = 1;
        assert_eq!(Flow::parse(&packet).unwrap().ports, Ports::Opaque);
        let mut packet = v6(&[44]);
        packet[43] = 8;
        let flow = Flow::parse(&packet).unwrap();
        assert_eq!((flow.protocol, flow.ports), (17, Ports::Opaque));
    }

    #[test]
    fn icmp_type_and_code_are_the_port() {
        let mut packet = tcp_v4();
        packet[9] = 1;
        packet[20] = 8;
        packet[21] = 3;
        assert_eq!(
            Flow::parse(&packet).unwrap().ports,
            Ports::Of(0x0803, 0x0803)
        );
    }

    #[test]
    fn rfc4301_opaque_ports_match_only_a_selector_for_all_ports() {
        let mut packet = tcp_v4();
        packet[7] = 1;
        let flow = Flow::parse(&packet).unwrap();
        let any = selector("10.1.0.0/16");
        let web = TrafficSelector {
            start_port: 0,
            end_port: 1023,
            ..any
        };
        assert!(flow.source_within(&any));
        assert!(!flow.source_within(&web));
        let opaque = selector("10.1.0.0/16[tcp/opaque]");
        assert!(flow.source_within(&opaque));
        assert!(!Flow::parse(&tcp_v4()).unwrap().source_within(&opaque));
    }

    #[test]
    fn rfc4301_section_4_4_1_1_the_type_of_a_mobility_header_is_the_port() {
        let mut packet = v6(&[0, 135]);
        packet[50] = 5;
        let flow = Flow::parse(&packet).unwrap();
        assert_eq!(
            (flow.protocol, flow.ports),
            (135, Ports::Of(0x0500, 0x0500))
        );
    }

    #[test]
    fn source_and_destination_are_matched_each_with_its_side() {
        let flow = Flow::parse(&tcp_v4()).unwrap();
        let (ours, theirs) = ([selector("10.1.0.0/16")], [selector("10.2.0.0/16")]);
        assert!(flow.matches_outbound(&ours, &theirs));
        assert!(!flow.matches_outbound(&theirs, &ours));
        assert!(flow.matches_inbound(&theirs, &ours));
        assert!(!flow.matches_inbound(&ours, &theirs));
        assert!(!flow.matches_outbound(&[], &theirs));
        let web = TrafficSelector {
            protocol: 6,
            start_port: 80,
            end_port: 80,
            ..theirs[0]
        };
        assert!(flow.matches_outbound(&ours, &[selector("::/0"), web]));
        assert!(!flow.matches_outbound(&[web], &theirs));
        let udp = TrafficSelector {
            protocol: 17,
            ..theirs[0]
        };
        assert!(!flow.matches_outbound(&ours, &[udp]));
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(mut packet in proptest::collection::vec(any::<u8>(), 0..120),
                                   first in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()]) {
            if let Some(octet) = packet.first_mut() {
                *octet = first;
            }
            let _ = Flow::parse(&packet);
        }
    }

    #[test]
    fn every_truncation_is_safe() {
        for packet in [tcp_v4(), v6(&[0, 44])] {
            for length in 0..packet.len() {
                let flow = Flow::parse(&packet[..length]);
                assert!(length >= 20 || flow.is_none());
            }
        }
    }
}
