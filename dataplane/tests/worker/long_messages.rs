//! IKE messages that no link takes whole: RFC 7296 section 2 wants 3,000 octets to pass, and a chain of
//! certificates without RFC 7383 is longer still.

use hitless_dataplane::verdict::DropReason;

use crate::bed::*;

/// Octets of IPv4 and of UDP headers, of IPv6 and UDP headers.
const FRONT: usize = 28;
const FRONT_V6: usize = 48;

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8 | 1).collect()
}

fn message(v6: bool, payload: &[u8]) -> Vec<u8> {
    if !v6 {
        return udp_ports(OUTSIDE_A, OUTSIDE_B, 500, 500, payload);
    }
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv6(OUTSIDE6_A, OUTSIDE6_B, 64)
        .udp(500, 500)
        .write(&mut packet, payload)
        .unwrap();
    packet
}

fn narrow(outside_mtu: usize) -> Bed {
    let mut bed = Bed::with(Settings {
        outside_mtu,
        ..Settings::default()
    });
    bed.warm_up();
    // The neighbours find each other over IPv6 too.
    assert!(bed.a.handle.inject(&message(true, b"first")));
    bed.settle();
    drain(&mut bed.b.handle.punt);
    bed.wire.clear();
    bed
}

fn crosses(bed: &mut Bed, v6: bool, length: usize, mtu: usize) {
    let front = if v6 { FRONT_V6 } else { FRONT };
    let sent = message(v6, &payload(length));
    assert!(bed.a.handle.inject(&sent), "{length}");
    bed.settle();
    let longest = bed.wire.iter().map(|frame| frame.len() - 14).max();
    assert!(longest.is_some_and(|longest| longest <= mtu), "{longest:?}");
    let arrived = drain(&mut bed.b.handle.punt);
    assert_eq!(arrived.len(), 1, "{length} octets, IPv6 {v6}");
    assert_eq!(arrived[0].len(), sent.len());
    assert_eq!(arrived[0][front..], sent[front..]);
    bed.wire.clear();
}

#[test]
fn rfc7296_section_2_messages_longer_than_the_link_takes_arrive_whole() {
    for mtu in [1280, 1500, 1700] {
        let mut bed = narrow(mtu);
        for v6 in [false, true] {
            for length in [600, 1200, 1300, 1472, 1473, 1700, 1800, 3000, 8192 + 4] {
                crosses(&mut bed, v6, length, mtu);
            }
        }
    }
}

#[test]
fn what_a_long_message_needs_is_free_for_the_next_one() {
    let mut bed = narrow(1500);
    for _ in 0..100 {
        let sent = message(false, &payload(5000));
        assert!((0..3).all(|_| bed.a.handle.inject(&sent)));
        bed.settle();
        assert_eq!(drain(&mut bed.b.handle.punt).len(), 3);
    }
}

/// No error about it is heeded, so that a router on the way must be free to fragment it (RFC 791).
#[test]
fn routers_may_fragment_what_not_every_path_takes() {
    let mut bed = narrow(1500);
    for (length, may) in [(500, false), (600, true), (1400, true)] {
        let sent = message(false, &payload(length));
        assert!(bed.a.handle.inject(&sent));
        bed.settle();
        assert_eq!(bed.wire.len(), 1);
        let (header, _) = etherparse::Ipv4Header::from_slice(&bed.wire[0][14..]).unwrap();
        assert_eq!(!header.dont_fragment, may, "{length}");
        assert_eq!(header.identification != 0, may, "RFC 6864 section 4.1");
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        bed.wire.clear();
    }
}

/// The room for long messages is for IKE alone: ESP that comes in fragments has what it had.
#[test]
fn esp_in_fragments_does_not_take_the_room_of_ike() {
    let mut bed = narrow(1500);
    let long = raw(OUTSIDE_A, OUTSIDE_B, 50, &payload(3000));
    for (start, end) in [(0, 1480), (1480, 2960), (2960, 3000)] {
        let mut part = raw(OUTSIDE_A, OUTSIDE_B, 50, &long[20 + start..20 + end]);
        let more = if end < 3000 { 0x2000 } else { 0 };
        let field = (start / 8) as u16 | more;
        part[4..6].copy_from_slice(&[0, 9]);
        part[6..8].copy_from_slice(&field.to_be_bytes());
        bed.b.wire_brings(&hops_later(&part, 0));
    }
    bed.settle();
    assert_eq!(bed.b.dropped(DropReason::FragmentTooLong), 1);
    assert!(bed.b.delivered.is_empty());
}
