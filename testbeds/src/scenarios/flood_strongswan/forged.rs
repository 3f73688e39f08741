//! IKE_SA_INIT requests from addresses that nobody has, as frames.

use std::net::Ipv4Addr;

use hitless_dataplane::wire::checksum;

/// Half of the sources answer ARP, by the peer's kernel, so that what is sent to them goes out; the
/// others do not.
pub const THERE: &str = "192.0.128.0/17";
const NOT_THERE: [u8; 3] = [192, 0, 64];
const PORT: u16 = 500;

/// The frames of a flood, each with a source, an SPI and a nonce of its own.
#[derive(Debug)]
pub struct Forged {
    /// Destination and source.
    pub stations: [[u8; 6]; 2],
    pub to: Ipv4Addr,
}

impl Forged {
    /// The frame of this number.
    pub fn frame(&self, n: u32) -> Vec<u8> {
        let message = message(n);
        let [high, low] = ((n >> 1) as u16).to_be_bytes();
        let source = match n & 1 {
            0 => [192, 0, 0x80 | high, low],
            _ => [NOT_THERE[0], NOT_THERE[1], NOT_THERE[2] | high & 0x3f, low],
        };
        let length = |all: usize| u16::try_from(all).unwrap_or(u16::MAX).to_be_bytes();
        let mut ip = vec![0x45, 0];
        ip.extend(length(28 + message.len()));
        ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        ip.extend(source);
        ip.extend(self.to.octets());
        let sum = checksum(0, &ip);
        ip.splice(10..12, sum.to_be_bytes());
        let [there, here] = self.stations;
        let mut frame = [&there[..], &here, &[0x08, 0x00], &ip].concat();
        // From none of IKE's ports: charon would have to read the answers to those that are there.
        let port = 10_000 + (n % 50_000) as u16;
        frame.extend(port.to_be_bytes());
        frame.extend(PORT.to_be_bytes());
        frame.extend(length(8 + message.len()));
        // RFC 768: no checksum.
        frame.extend([0, 0]);
        frame.extend(message);
        frame
    }
}

/// AES-GCM-128, HMAC-SHA2-256 and X25519, as half of the world would ask for (RFC 7296 section 3.3).
fn message(n: u32) -> Vec<u8> {
    let transforms = [
        &[3, 0, 0, 12, 1, 0, 0, 20, 0x80, 0x0e, 0, 128][..],
        &[3, 0, 0, 8, 2, 0, 0, 5],
        &[0, 0, 0, 8, 4, 0, 0, 31],
    ]
    .concat();
    // Any 32 octets are a key of X25519 (RFC 7748 section 5).
    let random = octets(n);
    let mut body = vec![34, 0, 0, 40, 0, 0, 0, 36, 1, 1, 0, 3];
    body.extend(transforms);
    body.extend([40, 0, 0, 40, 0, 31, 0, 0]);
    body.extend(random);
    body.extend([0, 0, 0, 36]);
    body.extend(random);
    let mut message = [&[0xf1, 0x00, 0xd0, 0x0d], &n.to_be_bytes()[..], &[0; 8]].concat();
    message.extend([33, 0x20, 34, 0x08, 0, 0, 0, 0]);
    message.extend((28 + body.len() as u32).to_be_bytes());
    message.extend(body);
    message
}

/// Different for each number; nothing here has to be hard to guess.
fn octets(n: u32) -> [u8; 32] {
    let mut state = u64::from(n) ^ 0x9e37_79b9_7f4a_7c15;
    std::array::from_fn(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hitless::audit::wire::{Frame, decode};
    use hitless::ike::message::parse;

    use super::*;

    #[test]
    fn every_frame_is_an_ike_sa_init_request_of_its_own() {
        let forged = Forged {
            stations: [[2; 6], [4; 6]],
            to: Ipv4Addr::new(192, 0, 2, 1),
        };
        let (mut sources, mut spis) = (BTreeSet::new(), BTreeSet::new());
        for n in 0..2000 {
            let frame = forged.frame(n);
            assert_eq!(checksum(0, &frame[14..34]), 0);
            let Frame::Ike(ike) = decode(&frame) else {
                panic!("{n}: no IKE");
            };
            assert_eq!(
                (ike.exchange, ike.responder_spi, ike.response),
                (34, 0, false)
            );
            parse(ike.message).expect("a message as RFC 7296 has it");
            sources.insert(ike.source);
            spis.insert(ike.initiator_spi);
        }
        assert_eq!((sources.len(), spis.len()), (2000, 2000));
    }
}
