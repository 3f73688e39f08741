//! IP and UDP around the IKE messages that workers punt and inject.

use std::net::{IpAddr, SocketAddr};

use hitless_dataplane::wire::udp::{IKE_PORT, Udp};
use hitless_dataplane::wire::{checksum, ipv4, udp};

use crate::ike::Transmit;

/// Stands before IKE on port 4500, where ESP's SPI would be (RFC 3948 section 2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// Addresses and IKE message of a punted packet: (ours, the peer's, message without marker).
pub fn ike_datagram(packet: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])> {
    let ip = ipv4::Ipv4::parse(packet).ok()?;
    if ip.protocol() != ipv4::UDP || ip.is_fragment() {
        return None;
    }
    let datagram = Udp::parse(ip.payload())?;
    if !checksum_holds(ip, datagram) {
        return None;
    }
    let local = SocketAddr::new(ip.destination().into(), datagram.destination_port());
    let remote = SocketAddr::new(ip.source().into(), datagram.source_port());
    let payload = match local.port() {
        IKE_PORT => datagram.payload(),
        _ => datagram.payload().strip_prefix(&NON_ESP_MARKER)?,
    };
    Some((local, remote, payload))
}

/// Zero means that the sender computed none (RFC 768).
fn checksum_holds(ip: ipv4::Ipv4<'_>, datagram: Udp<'_>) -> bool {
    let octets = ip.payload();
    let Some(octets) = octets.get(..udp::HEADER + datagram.payload().len()) else {
        return false;
    };
    octets.get(6..8) == Some(&[0, 0])
        || checksum(
            pseudo_header(ip.source(), ip.destination(), octets.len()),
            octets,
        ) == 0
}

/// The IP packet around a message of ours; `None` for IPv6, which the dataplane does not route yet.
pub fn udp_packet(transmit: &Transmit) -> Option<Vec<u8>> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (transmit.local.ip(), transmit.remote.ip())
    else {
        return None;
    };
    let marker: &[u8] = if transmit.local.port() == IKE_PORT {
        &[]
    } else {
        &NON_ESP_MARKER
    };
    let length = udp::HEADER + marker.len() + transmit.payload.len();
    let mut packet = vec![0; ipv4::HEADER];
    packet.reserve(length);
    packet.extend_from_slice(&transmit.local.port().to_be_bytes());
    packet.extend_from_slice(&transmit.remote.port().to_be_bytes());
    packet.extend_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(marker);
    packet.extend_from_slice(&transmit.payload);
    let sum = match checksum(
        pseudo_header(source, destination, length),
        &packet[ipv4::HEADER..],
    ) {
        0 => 0xffff,
        sum => sum,
    };
    packet[ipv4::HEADER + 6..ipv4::HEADER + 8].copy_from_slice(&sum.to_be_bytes());
    ipv4::write(&mut packet, source, destination, ipv4::UDP).then_some(packet)
}

/// The sum of the pseudo header (RFC 768), not folded.
fn pseudo_header(
    source: std::net::Ipv4Addr,
    destination: std::net::Ipv4Addr,
    length: usize,
) -> u32 {
    let half = |address: std::net::Ipv4Addr| {
        let address = u32::from(address);
        (address >> 16) + (address & 0xffff)
    };
    half(source) + half(destination) + u32::from(ipv4::UDP) + length as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transmit(port: u16) -> Transmit {
        Transmit {
            local: SocketAddr::new("192.0.2.1".parse().unwrap(), port),
            remote: SocketAddr::new("198.51.100.7".parse().unwrap(), port),
            payload: vec![7; 61],
        }
    }

    #[test]
    fn what_is_sent_is_read_back_with_and_without_marker() {
        for port in [500, 4500] {
            let transmit = transmit(port);
            let packet = udp_packet(&transmit).unwrap();
            let (local, remote, payload) = ike_datagram(&packet).unwrap();
            assert_eq!((local, remote), (transmit.remote, transmit.local));
            assert_eq!(payload, transmit.payload);
        }
    }

    #[test]
    fn a_damaged_or_truncated_packet_is_refused() {
        let packet = udp_packet(&transmit(4500)).unwrap();
        for length in 0..packet.len() {
            assert!(ike_datagram(&packet[..length]).is_none(), "{length} octets");
        }
        for position in 28..packet.len() {
            let mut damaged = packet.clone();
            damaged[position] ^= 0x10;
            assert!(ike_datagram(&damaged).is_none(), "octet {position}");
        }
    }
}
