//! What traffic selectors look at in an IP packet (RFC 4301 section 4.4.1.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hitless_sa::TrafficSelector;

/// IPv6 extension headers that are walked over; a packet with more is not matched.
const MAX_EXTENSION_HEADERS: usize = 8;

/// Addresses, protocol and ports of one packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The transport protocol, behind any IPv6 extension headers.
    pub protocol: u8,
    pub ports: Ports,
}

/// The ports of a packet, as far as it has any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ports {
    /// Source and destination. For ICMP both are type and code (RFC 7296 section 3.13.1).
    Of(u16, u16),
    /// A protocol without ports, a later fragment, or too short: only a selector for every port
    /// matches (RFC 4301 section 4.4.1.1, OPAQUE).
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
                0 | 43 | 60 | 135 => (usize::from(*payload.get(1)?) + 1) * 8,
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
            Ports::Opaque => self.opaque_within(self.source, selector),
        }
    }

    /// Whether the selector covers destination address, protocol and destination port.
    #[inline]
    pub fn destination_within(&self, selector: &TrafficSelector) -> bool {
        match self.ports {
            Ports::Of(_, port) => selector.matches(self.destination, self.protocol, port),
            Ports::Opaque => self.opaque_within(self.destination, selector),
        }
    }

    fn opaque_within(&self, address: IpAddr, selector: &TrafficSelector) -> bool {
        selector.start_port == 0
            && selector.end_port == u16::MAX
            && selector.matches(address, self.protocol, 0)
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
            _ => Ports::Opaque,
        }
    }
}
