//! IP and UDP around the IKE messages that workers punt and inject.

use std::net::{IpAddr, SocketAddr};

use hitless_dataplane::wire::ip::{Ip, pseudo_header};
use hitless_dataplane::wire::udp::{IKE_PORT, Udp};
use hitless_dataplane::wire::{checksum, ipv4, ipv6, udp};

use hitless_sa::Spi;

use crate::ike::Transmit;

/// Stands before IKE on port 4500, where ESP's SPI would be (RFC 3948 section 2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// A NAT keepalive stands alone (RFC 3948 section 2.3).
const KEEPALIVE: [u8; 1] = [0xff];

/// Addresses and IKE message of a punted packet: (ours, the peer's, message without marker).
pub fn ike_datagram(packet: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])> {
    let ip = Ip::parse(packet).ok()?;
    let payload = udp_payload(ip)?;
    let datagram = Udp::parse(payload)?;
    if !checksum_holds(ip, payload, datagram) {
        return None;
    }
    let local = SocketAddr::new(ip.destination(), datagram.destination_port());
    let remote = SocketAddr::new(ip.source(), datagram.source_port());
    let payload = match local.port() {
        IKE_PORT => datagram.payload(),
        _ => datagram.payload().strip_prefix(&NON_ESP_MARKER)?,
    };
    Some((local, remote, payload))
}

/// What follows the IP header, if that is a whole UDP datagram.
fn udp_payload(ip: Ip<'_>) -> Option<&[u8]> {
    match ip {
        Ip::V4(ip) => (ip.protocol() == ipv4::UDP && !ip.is_fragment()).then(|| ip.payload()),
        Ip::V6(ip) => {
            let upper = ip.upper().ok()?;
            let whole = upper.protocol == ipv4::UDP && upper.fragment.is_none();
            whole.then(|| ip.from(upper.offset))
        }
    }
}

/// The SPI of a whole ESP packet, in UDP or not (RFC 4303 section 2.1, RFC 3948 section 2.1).
pub fn esp_spi(packet: &[u8]) -> Option<Spi> {
    let ip = Ip::parse(packet).ok()?;
    let esp = match (udp_payload(ip), ip) {
        (Some(udp), _) => udp.get(udp::HEADER..)?,
        (None, Ip::V4(ip)) if ip.protocol() == ipv4::ESP => ip.payload(),
        (None, Ip::V4(_)) => return None,
        (None, Ip::V6(ip)) => {
            let upper = ip.upper().ok()?;
            (upper.protocol == ipv4::ESP).then(|| ip.from(upper.offset))?
        }
    };
    Some(Spi(u32::from_be_bytes(*esp.first_chunk()?)))
}

/// Over IPv4 zero means that the sender computed none (RFC 768); IPv6 wants one (RFC 8200
/// section 8.1).
fn checksum_holds(ip: Ip<'_>, payload: &[u8], datagram: Udp<'_>) -> bool {
    let Some(octets) = payload.get(..udp::HEADER + datagram.payload().len()) else {
        return false;
    };
    if octets.get(6..8) == Some(&[0, 0]) {
        return matches!(ip, Ip::V4(_));
    }
    let sum = pseudo_header(ip.source(), ip.destination(), ipv4::UDP, octets.len());
    checksum(sum, octets) == 0
}

/// The IP packet around a message of ours; `None` if its addresses are not of one family.
pub fn udp_packet(transmit: &Transmit) -> Option<Vec<u8>> {
    let keepalive = transmit.payload == KEEPALIVE;
    let marker: &[u8] = if keepalive || transmit.local.port() == IKE_PORT {
        &[]
    } else {
        &NON_ESP_MARKER
    };
    let (source, destination) = (transmit.local.ip(), transmit.remote.ip());
    let header = match destination {
        IpAddr::V4(_) => ipv4::HEADER,
        IpAddr::V6(_) => ipv6::HEADER,
    };
    let length = udp::HEADER + marker.len() + transmit.payload.len();
    let mut packet = Vec::with_capacity(header + length);
    packet.resize(header, 0);
    packet.extend_from_slice(&transmit.local.port().to_be_bytes());
    packet.extend_from_slice(&transmit.remote.port().to_be_bytes());
    packet.extend_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(marker);
    packet.extend_from_slice(&transmit.payload);
    let seed = pseudo_header(source, destination, ipv4::UDP, length);
    let sum = udp::sent_checksum(checksum(seed, &packet[header..]));
    packet[header + 6..header + 8].copy_from_slice(&sum.to_be_bytes());
    let written = match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4::write(&mut packet, from, to, ipv4::UDP),
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let hops = ipv6::INITIAL_HOP_LIMIT;
            ipv6::write(&mut packet, from, to, ipv4::UDP, hops)
        }
        _ => false,
    };
    written.then_some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transmit(port: u16, v6: bool) -> Transmit {
        let ends = match v6 {
            true => ["2001:db8::1", "2001:db8:7::7"],
            false => ["192.0.2.1", "198.51.100.7"],
        };
        let [local, remote] = ends.map(|end| SocketAddr::new(end.parse().unwrap(), port));
        Transmit {
            local,
            remote,
            payload: vec![7; 61],
        }
    }

    #[test]
    fn what_is_sent_is_read_back_with_and_without_marker() {
        for (port, v6) in [(500, false), (4500, false), (500, true), (4500, true)] {
            let transmit = transmit(port, v6);
            let packet = udp_packet(&transmit).unwrap();
            let (local, remote, payload) = ike_datagram(&packet).unwrap();
            assert_eq!((local, remote), (transmit.remote, transmit.local));
            assert_eq!(payload, transmit.payload);
        }
        let mixed = Transmit {
            remote: transmit(500, true).remote,
            ..transmit(500, false)
        };
        assert!(udp_packet(&mixed).is_none());
    }

    #[test]
    fn a_damaged_or_truncated_packet_is_refused() {
        for (v6, header) in [(false, 28), (true, 48)] {
            let packet = udp_packet(&transmit(4500, v6)).unwrap();
            for length in 0..packet.len() {
                assert!(ike_datagram(&packet[..length]).is_none(), "{length} octets");
            }
            for position in header..packet.len() {
                let mut damaged = packet.clone();
                damaged[position] ^= 0x10;
                assert!(ike_datagram(&damaged).is_none(), "octet {position}");
            }
        }
    }
}
