//! Valid frames to be spoilt.

use std::net::IpAddr;

use hitless_dataplane::wire::{checksum, ip::pseudo_header};

use super::dice::mend;
use super::pair::{INSIDE, OUTSIDE, PEER, SAS, TARGET, far_host, host, mac, outside, shape};
use crate::esp_peer::{Refused, Rig};

/// Sizes of inner payloads in sealed seeds.
const SIZES: [usize; 6] = [0, 1, 49, 100, 700, 1300];

/// An IP packet whose header is right, of the family of its addresses.
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let fixed = [0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0];
            [&fixed[..], &from.octets(), &to.octets()].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let fixed = [0x60, 0, 0, 0, 0, 0, protocol, 255];
            [&fixed[..], &from.octets(), &to.octets()].concat()
        }
        _ => Vec::new(),
    };
    packet.extend(payload);
    mend(&mut packet, true);
    packet
}

/// The same with the checksum of the payload, at that offset of it.
fn summed(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8], at: usize) -> Vec<u8> {
    let mut payload = payload.to_vec();
    let seed = match from {
        // ICMP has no pseudo-header.
        IpAddr::V4(_) if protocol == 1 => 0,
        _ => pseudo_header(from, to, protocol, payload.len()),
    };
    let sum = checksum(seed, &payload);
    payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    ip(from, to, protocol, &payload)
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

fn arp(operation: u8) -> Vec<u8> {
    let sender = [&mac(PEER, OUTSIDE)[..], &[192, 0, 2, 99]].concat();
    let fixed = [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation];
    let mut octets = [&[0xff; 6][..], &mac(PEER, OUTSIDE), &fixed, &sender].concat();
    octets.extend(mac(TARGET, OUTSIDE));
    octets.extend([192, 0, 2, TARGET]);
    octets
}

/// What a gateway sends to the target through each SA: its frames, as they come from the wire.
///
/// # Errors
/// If it never comes to rest.
pub fn sealed(peer: &mut Rig) -> Result<Vec<Vec<u8>>, Refused> {
    for sa in 0..SAS {
        for (n, size) in SIZES.into_iter().enumerate() {
            let payload = vec![n as u8; size];
            let (from, to) = (far_host(sa), host(TARGET, shape(sa).inner));
            let inner = match n % 2 {
                0 => ip(from, to, 17, &udp(50_000, 40_000, &payload)),
                _ => ip(from, to, 200, &payload),
            };
            let mut to_peer = frame(INSIDE, &inner);
            to_peer[..6].copy_from_slice(&mac(PEER, INSIDE));
            if !peer.push(INSIDE, &to_peer) {
                return Err(Refused("the peer takes no packet".to_owned()));
            }
        }
    }
    peer.run()?;
    let mut frames = Vec::new();
    while peer.pop(OUTSIDE, |octets| frames.push(octets.to_vec())) {}
    match frames.len() == SAS * SIZES.len() {
        true => Ok(frames),
        false => Err(Refused(format!("the peer sealed {} packets", frames.len()))),
    }
}

/// Frames on the outside that are not ESP under a key.
pub fn plain_outside() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for family in [4, 6] {
        let (us, peer) = (outside(TARGET, family), outside(PEER, family));
        let icmp = if family == 4 { 1 } else { 58 };
        let quoted = ip(us, peer, 50, &[0xbb; 28]);
        let error = |kind, code, rest: [u8; 4]| {
            let message = [&[kind, code, 0, 0][..], &rest, &quoted].concat();
            summed(peer, us, icmp, &message, 2)
        };
        for payload in [&[0; 64][..], &[0xff], &[0xbb; 3], &[0xbb; 90]] {
            packets.push(summed(peer, us, 17, &udp(4500, 4500, payload), 6));
        }
        packets.push(summed(peer, us, 17, &udp(500, 500, &[0x11; 60]), 6));
        for payload in [&[0; 40][..], &[0xbb; 90], &[0xbb; 5]] {
            packets.push(ip(peer, us, 50, payload));
        }
        let echo = if family == 4 { 8 } else { 128 };
        packets.push(summed(peer, us, icmp, &[echo, 0, 0, 0, 0, 1, 0, 1], 2));
        // Errors that lie about a path and about a port.
        let (too_big, code, port) = if family == 4 {
            (3, 4, (3, 3))
        } else {
            (2, 0, (1, 4))
        };
        packets.push(error(too_big, code, [0, 0, 0, 68]));
        packets.push(error(port.0, port.1, [0; 4]));
        packets.push(ip(
            host(PEER, family),
            host(TARGET, family),
            17,
            &udp(1, 2, b"clear"),
        ));
    }
    let (us, peer) = (outside(TARGET, 6), outside(PEER, 6));
    if let IpAddr::V6(target) = us {
        let message = |kind, option| {
            let head = [&[kind, 0, 0, 0, 0x60, 0, 0, 0][..], &target.octets()].concat();
            let option = [&[option, 1][..], &mac(PEER, OUTSIDE)].concat();
            summed(peer, us, 58, &[head, option].concat(), 2)
        };
        packets.extend([message(135, 1), message(136, 2)]);
    }
    // The first fragment of an ESP packet, and its last, of both families.
    for (offset, more) in [(0u16, 1u16), (16, 0)] {
        let mut first = ip(outside(PEER, 4), outside(TARGET, 4), 50, &[0xbb; 128]);
        first[6..8].copy_from_slice(&((offset / 8) | (more << 13)).to_be_bytes());
        mend(&mut first, true);
        packets.push(first);
        let [high, low] = (offset | more).to_be_bytes();
        let payload = [&[50, 0, high, low, 0, 0, 0, 7][..], &[0xbb; 128]].concat();
        packets.push(ip(peer, us, 44, &payload));
    }
    let mut frames: Vec<_> = packets
        .iter()
        .map(|packet| frame(OUTSIDE, packet))
        .collect();
    frames.extend([arp(1), arp(2)]);
    frames
}

/// Frames on the inside.
pub fn inside() -> Vec<Vec<u8>> {
    let mut packets: Vec<_> = (0..SAS)
        .map(|sa| {
            let (from, to) = (host(TARGET, shape(sa).inner), far_host(sa));
            ip(from, to, 17, &udp(40_000, 50_000, &[7; 90]))
        })
        .collect();
    let v4 = host(TARGET, 4);
    let mut fragment = ip(v4, far_host(0), 17, &[9; 600]);
    fragment[6] = 0x20;
    mend(&mut fragment, true);
    packets.push(fragment);
    packets.push(ip(v4, far_host(1), 6, &[0x50; 1400]));
    packets.push(summed(
        v4,
        IpAddr::from([10, TARGET, 0, 1]),
        1,
        &[8, 0, 0, 0, 0, 1, 0, 1],
        2,
    ));
    packets.push(ip(
        v4,
        IpAddr::from([198, 51, 100, 1]),
        17,
        &udp(1, 2, b"nowhere"),
    ));
    packets.iter().map(|packet| frame(INSIDE, packet)).collect()
}
