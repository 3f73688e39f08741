//! Valid frames to be spoilt.

use super::pair::{
    HOST, INSIDE, OUTSIDE, PEER, PEER_OUTSIDE, SHAPES, TARGET, TARGET_OUTSIDE, far_host, mac,
};
use crate::esp_peer::{Refused, Rig};

/// Sizes of inner payloads in sealed seeds.
const SIZES: [usize; 6] = [0, 1, 49, 100, 700, 1300];

/// An IPv4 packet with a header checksum.
pub fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0];
    packet.extend(from);
    packet.extend(to);
    packet.extend(payload);
    super::dice::mend(&mut packet, true);
    packet
}

/// A UDP datagram without a checksum.
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16 + 8;
    let words = [source, destination, length, 0];
    let mut datagram: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    datagram.extend(payload);
    datagram
}

/// A frame for a port of the target.
pub fn frame(port: usize, packet: &[u8]) -> Vec<u8> {
    let kind = match packet.first().map(|first| first >> 4) {
        Some(6) => [0x86, 0xdd],
        _ => [0x08, 0x00],
    };
    [&mac(TARGET, port)[..], &mac(PEER, OUTSIDE), &kind, packet].concat()
}

fn arp(operation: u8, target: [u8; 4]) -> Vec<u8> {
    let sender = [&mac(PEER, OUTSIDE)[..], &[192, 0, 2, 99]].concat();
    let fixed = [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation];
    let mut octets = [&[0xff; 6][..], &mac(PEER, OUTSIDE), &fixed, &sender].concat();
    octets.extend(mac(TARGET, OUTSIDE));
    octets.extend(target);
    octets
}

/// What a gateway sends to the target through each SA: its frames, as they come from the wire.
///
/// # Errors
/// If it never comes to rest.
pub fn sealed(peer: &mut Rig) -> Result<Vec<Vec<u8>>, Refused> {
    for sa in 0..SHAPES.len() {
        for (n, size) in SIZES.into_iter().enumerate() {
            let payload = vec![n as u8; size];
            let inner = match n % 2 {
                0 => ipv4(far_host(sa), HOST, 17, &udp(50_000, 40_000, &payload)),
                _ => ipv4(far_host(sa), HOST, 200, &payload),
            };
            let to_peer = [&mac(PEER, INSIDE)[..], &[2; 6], &[8, 0], &inner].concat();
            if !peer.push(INSIDE, &to_peer) {
                return Err(Refused("the peer takes no packet".to_owned()));
            }
        }
    }
    peer.run()?;
    let mut frames = Vec::new();
    while peer.pop(OUTSIDE, |octets| frames.push(octets.to_vec())) {}
    match frames.len() == SHAPES.len() * SIZES.len() {
        true => Ok(frames),
        false => Err(Refused(format!("the peer sealed {} packets", frames.len()))),
    }
}

/// Frames on the outside that are not ESP under a key.
pub fn plain_outside() -> Vec<Vec<u8>> {
    let to_us = |protocol, payload: &[u8]| {
        frame(
            OUTSIDE,
            &ipv4(PEER_OUTSIDE, TARGET_OUTSIDE, protocol, payload),
        )
    };
    let quoted = ipv4(TARGET_OUTSIDE, PEER_OUTSIDE, 50, &[0xbb; 28]);
    let icmp = |kind, code, rest: [u8; 4]| [&[kind, code, 0, 0][..], &rest, &quoted].concat();
    vec![
        to_us(17, &udp(500, 500, &[0x11; 60])),
        to_us(17, &udp(4500, 4500, &[0; 64])),
        to_us(17, &udp(4500, 4500, &[0xff])),
        to_us(17, &udp(4500, 4500, &[0xbb; 3])),
        to_us(50, &[0; 40]),
        to_us(50, &[0xbb; 90]),
        to_us(50, &[0xbb; 5]),
        to_us(1, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]),
        // Errors that lie about a path and about a port.
        to_us(1, &icmp(3, 4, [0, 0, 0, 68])),
        to_us(1, &icmp(3, 3, [0; 4])),
        frame(OUTSIDE, &ipv4(far_host(0), HOST, 17, &udp(1, 2, b"clear"))),
        arp(1, TARGET_OUTSIDE),
        arp(2, TARGET_OUTSIDE),
    ]
}

/// Frames on the inside.
pub fn inside() -> Vec<Vec<u8>> {
    let mut frames: Vec<_> = (0..SHAPES.len())
        .map(|sa| {
            frame(
                INSIDE,
                &ipv4(HOST, far_host(sa), 17, &udp(40_000, 50_000, &[7; 90])),
            )
        })
        .collect();
    let mut fragment = ipv4(HOST, far_host(0), 17, &[9; 600]);
    fragment[6] = 0x20;
    super::dice::mend(&mut fragment, true);
    frames.push(frame(INSIDE, &fragment));
    frames.push(frame(INSIDE, &ipv4(HOST, far_host(1), 6, &[0x50; 1400])));
    frames.push(frame(
        INSIDE,
        &ipv4(HOST, [10, 1, 0, 1], 1, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]),
    ));
    frames.push(frame(
        INSIDE,
        &ipv4(HOST, [198, 51, 100, 1], 17, &udp(1, 2, b"nowhere")),
    ));
    frames
}
