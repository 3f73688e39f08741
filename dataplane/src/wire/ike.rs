//! What a worker sees of IKE: whether a message begins something new.

use crate::wire::ip::Ip;
use crate::wire::udp::{NAT_PORT, Udp};

/// The non-ESP marker before IKE on port 4500 (RFC 3948 section 2.2).
const MARKER: usize = 4;

/// Whether an IP packet with IKE belongs to no IKE SA yet: its responder has no SPI (RFC 7296
/// section 2.6), or there is no room for one. Anybody can send those, from any address.
pub(crate) fn is_of_a_stranger(packet: &[u8]) -> bool {
    responder_spi(packet).is_none_or(|spi| *spi == [0; 8])
}

fn responder_spi(packet: &[u8]) -> Option<&[u8; 8]> {
    let payload = match Ip::parse(packet).ok()? {
        Ip::V4(ip) => ip.payload(),
        Ip::V6(ip) => ip.from(ip.upper().ok()?.offset),
    };
    let datagram = Udp::parse(payload)?;
    let message = match datagram.destination_port() {
        NAT_PORT => datagram.payload().get(MARKER..)?,
        _ => datagram.payload(),
    };
    message.get(8..)?.first_chunk()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv4;

    fn packet(port: u16, message: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; ipv4::HEADER];
        packet.extend_from_slice(&500u16.to_be_bytes());
        packet.extend_from_slice(&port.to_be_bytes());
        packet.extend_from_slice(&(message.len() as u16 + 8).to_be_bytes());
        packet.extend_from_slice(&[0, 0]);
        packet.extend_from_slice(message);
        let (from, to) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        assert!(ipv4::write(&mut packet, from, to, ipv4::UDP));
        packet
    }

    #[test]
    fn a_message_without_a_responders_spi_is_of_a_stranger_on_either_port() {
        let mut first = [7; 28];
        first[8..16].fill(0);
        for (message, stranger) in [(&first[..], true), (&[7; 28], false), (&[7; 15], true)] {
            assert_eq!(is_of_a_stranger(&packet(500, message)), stranger);
            let marked = [&[0; 4], message].concat();
            assert_eq!(is_of_a_stranger(&packet(4500, &marked)), stranger);
        }
        assert!(is_of_a_stranger(&[]));
    }
}
