//! What a captured Ethernet frame is, as far as the audit cares: ESP (RFC 4303; bare, or in UDP as
//! RFC 3948 has it), an IKE message (RFC 7296 section 3.1), an ICMP echo, or something else. Only
//! the audit uses this decoder: it is deliberately not the dataplane's and not IKE's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ESP: u8 = 50;
const PROTOCOL_ICMPV6: u8 = 58;
const PORT_IKE: u16 = 500;
const PORT_NAT_TRAVERSAL: u16 = 4500;
const ETHERNET_HEADER: usize = 14;
const IPV6_HEADER: usize = 40;

/// A decoded frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    Esp(Esp<'a>),
    Ike(Ike<'a>),
    Echo(Echo),
    /// A NAT keepalive (RFC 3948 section 2.3).
    Keepalive,
    /// An IP fragment: the audit cannot look inside.
    Fragment,
    /// An IP packet of no interest.
    Ip(Flow),
    /// Neither IPv4 nor IPv6, such as ARP.
    NotIp,
    /// Claims to be something whose header does not fit.
    Malformed(&'static str),
}

/// Between whom, and by which protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Flow {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
}

/// An ESP packet with an explicit IV of 8 octets, as AES-GCM has it (RFC 4106 section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Esp<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Inside UDP.
    pub encapsulated: bool,
    pub spi: u32,
    /// The 32 bits that travel.
    pub sequence: u32,
    pub iv: u64,
    /// The whole ESP packet, from the SPI to the ICV.
    pub packet: &'a [u8],
}

/// The header of an IKE message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ike<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub initiator_spi: u64,
    pub responder_spi: u64,
    pub exchange: u8,
    /// The I flag: sent by the original initiator of the IKE SA.
    pub initiator: bool,
    /// The R flag.
    pub response: bool,
    pub message_id: u32,
    /// The whole message, without a non-ESP marker.
    pub message: &'a [u8],
}

/// An ICMP echo request or reply (RFC 792, RFC 4443 section 4); what the hosts behind the gateways exchange.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Echo {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub reply: bool,
    pub identifier: u16,
    pub sequence: u16,
}

/// Decodes one frame. `frame` may be longer than what is in it: Ethernet pads short packets.
pub fn decode(frame: &[u8]) -> Frame<'_> {
    let Some(ethertype) = be16(frame, 12) else {
        return Frame::Malformed("Ethernet");
    };
    let packet = frame.get(ETHERNET_HEADER..).unwrap_or_default();
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(packet),
        ETHERTYPE_IPV6 => ipv6(packet),
        _ => Frame::NotIp,
    }
}

fn ipv4(packet: &[u8]) -> Frame<'_> {
    let malformed = Frame::Malformed("IPv4");
    let (Some(&first), Some(total), Some(fragment)) =
        (packet.first(), be16(packet, 2), be16(packet, 6))
    else {
        return malformed;
    };
    let header = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header < 20 {
        return malformed;
    }
    let (Some(payload), Some(&protocol), Some(source), Some(destination)) = (
        packet.get(header..usize::from(total)),
        packet.get(9),
        be32(packet, 12),
        be32(packet, 16),
    ) else {
        return malformed;
    };
    let flow = Flow {
        source: Ipv4Addr::from_bits(source).into(),
        destination: Ipv4Addr::from_bits(destination).into(),
        protocol,
    };
    // More fragments to come, or not the first one.
    if fragment & 0x3fff != 0 {
        return Frame::Fragment;
    }
    transport(flow, payload)
}

fn ipv6(packet: &[u8]) -> Frame<'_> {
    let (Some(length), Some(&protocol), Some(addresses)) = (
        be16(packet, 4),
        packet.get(6),
        packet.get(8..).and_then(<[u8]>::first_chunk::<32>),
    ) else {
        return Frame::Malformed("IPv6");
    };
    let (source, destination) = addresses.split_at(16);
    let (Ok(source), Ok(destination)) = (
        <[u8; 16]>::try_from(source),
        <[u8; 16]>::try_from(destination),
    ) else {
        return Frame::Malformed("IPv6");
    };
    let Some(payload) = packet.get(IPV6_HEADER..IPV6_HEADER + usize::from(length)) else {
        return Frame::Malformed("IPv6");
    };
    let flow = Flow {
        source: Ipv6Addr::from(source).into(),
        destination: Ipv6Addr::from(destination).into(),
        protocol,
    };
    transport(flow, payload)
}

fn transport(flow: Flow, payload: &[u8]) -> Frame<'_> {
    match flow.protocol {
        PROTOCOL_ESP => esp(flow, payload, false),
        PROTOCOL_UDP => udp(flow, payload),
        PROTOCOL_ICMP => echo(flow, payload, [8, 0]),
        PROTOCOL_ICMPV6 => echo(flow, payload, [128, 129]),
        _ => Frame::Ip(flow),
    }
}

fn udp(flow: Flow, segment: &[u8]) -> Frame<'_> {
    let (Some(source), Some(destination), Some(length)) =
        (be16(segment, 0), be16(segment, 2), be16(segment, 4))
    else {
        return Frame::Malformed("UDP");
    };
    let Some(payload) = segment.get(8..usize::from(length)) else {
        return Frame::Malformed("UDP");
    };
    if [source, destination].contains(&PORT_NAT_TRAVERSAL) {
        // RFC 3948 section 2: a zero where the SPI would be marks IKE, a lone 0xff a keepalive.
        return match (payload, be32(payload, 0)) {
            ([0xff], _) => Frame::Keepalive,
            (_, Some(0)) => ike(flow, payload.get(4..).unwrap_or_default()),
            _ => esp(flow, payload, true),
        };
    }
    if [source, destination].contains(&PORT_IKE) {
        return ike(flow, payload);
    }
    Frame::Ip(flow)
}

fn esp(flow: Flow, packet: &[u8], encapsulated: bool) -> Frame<'_> {
    let (Some(spi), Some(sequence), Some(high), Some(low)) = (
        be32(packet, 0),
        be32(packet, 4),
        be32(packet, 8),
        be32(packet, 12),
    ) else {
        return Frame::Malformed("ESP");
    };
    Frame::Esp(Esp {
        source: flow.source,
        destination: flow.destination,
        encapsulated,
        spi,
        sequence,
        iv: u64::from(high) << 32 | u64::from(low),
        packet,
    })
}

fn ike(flow: Flow, message: &[u8]) -> Frame<'_> {
    let malformed = Frame::Malformed("IKE");
    let (Some(initiator_spi), Some(responder_spi), Some(message_id), Some(length)) = (
        be64(message, 0),
        be64(message, 8),
        be32(message, 20),
        be32(message, 24),
    ) else {
        return malformed;
    };
    let (Some(&exchange), Some(&flags), Ok(length)) =
        (message.get(18), message.get(19), usize::try_from(length))
    else {
        return malformed;
    };
    if length != message.len() {
        return malformed;
    }
    Frame::Ike(Ike {
        source: flow.source,
        destination: flow.destination,
        initiator_spi,
        responder_spi,
        exchange,
        initiator: flags & 0x08 != 0,
        response: flags & 0x20 != 0,
        message_id,
        message,
    })
}

fn echo(flow: Flow, segment: &[u8], [request, reply]: [u8; 2]) -> Frame<'_> {
    let (Some(&kind), Some(identifier), Some(sequence)) =
        (segment.first(), be16(segment, 4), be16(segment, 6))
    else {
        return Frame::Malformed("ICMP");
    };
    if ![request, reply].contains(&kind) {
        return Frame::Ip(flow);
    }
    Frame::Echo(Echo {
        source: flow.source,
        destination: flow.destination,
        reply: kind == reply,
        identifier,
        sequence,
    })
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|octets| u16::from_be_bytes(*octets))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|octets| u32::from_be_bytes(*octets))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|octets| u64::from_be_bytes(*octets))
}
