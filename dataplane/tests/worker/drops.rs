//! Every reason to drop a packet, provoked and counted: once, alone, with nothing delivered and no
//! frame lost.

use std::sync::Arc;
use std::time::Duration;

use hitless_dataplane::aead::{Engine, EspKey};
use hitless_dataplane::command::{Command, Event};
use hitless_dataplane::counters::SaCounters;
use hitless_dataplane::esp::seal_datagram;
use hitless_dataplane::sad::Bound;
use hitless_dataplane::spd::Spd;
use hitless_dataplane::verdict::DropReason;
use hitless_sa::{EspSuite, KeyMaterial, Lease, SequenceNumber, Spi};

use crate::bed::*;

const ESP: u8 = 50;
const STRANGER: [u8; 4] = [192, 0, 2, 99];

/// An ESP packet from A to B with content that A's own worker would never send.
pub fn forge(number: u64, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let material = KeyMaterial::new(&[2; 36]);
    let key = EspKey::new(Engine::AwsLc, EspSuite::Aes256Gcm16, &material).unwrap();
    let (spi, number) = (Spi(0xbbbb_0001), SequenceNumber(number));
    let esp = seal_datagram(&key, spi, number, true, next_header, payload).unwrap();
    raw(OUTSIDE_A, OUTSIDE_B, ESP, &esp)
}

/// Brings about one drop for this reason, on either gateway, and nothing else that is dropped.
fn provoke(reason: DropReason) -> Bed {
    if matches!(reason, DropReason::NoBuffer | DropReason::SequenceOverflow) {
        return provoke_special(reason);
    }
    let mut bed = Bed::new();
    bed.warm_up();
    let ways = [by_frames, by_esp, by_policy, by_lack_of_room, by_waiting];
    let provoked = ways.iter().filter(|way| way(&mut bed, reason)).count();
    assert_eq!(provoked, 1, "ways to provoke {reason:?}");
    bed
}

/// Frames and packets that are wrong in themselves, or not for the gateway to handle.
fn by_frames(bed: &mut Bed, reason: DropReason) -> bool {
    let packet = udp(HOST_A, HOST_B, b"payload");
    match reason {
        DropReason::Malformed => bed.a.host_sends(&packet[..19]),
        DropReason::BadChecksum => {
            let mut damaged = packet;
            damaged[8] ^= 1;
            bed.a.host_sends(&damaged);
        }
        DropReason::Fragment => {
            bed.a
                .wire_brings(&fragment(raw(STRANGER, OUTSIDE_A, 89, &[7; 64])));
        }
        DropReason::NotForUs => bed.a.host_sends(&udp(HOST_A, INSIDE_A, b"no such service")),
        DropReason::NatKeepalive => {
            bed.a
                .wire_brings(&udp_ports(STRANGER, OUTSIDE_A, 4500, 4500, &[0xff]));
        }
        DropReason::Unsupported => {
            let mut frame = frame(bed.a.inside_mac, bed.a.host_mac, &[0x60; 60]);
            frame[12..14].copy_from_slice(&[0x88, 0xcc]);
            assert!(bed.a.host.push_frame(&frame));
        }
        DropReason::FragmentOverlap => {
            for _ in 0..2 {
                bed.a
                    .wire_brings(&fragment(raw(STRANGER, OUTSIDE_A, ESP, &[7; 64])));
            }
        }
        DropReason::FragmentTimeout => {
            bed.a
                .wire_brings(&fragment(raw(STRANGER, OUTSIDE_A, ESP, &[7; 64])));
            bed.settle();
            bed.advance(Duration::from_secs(61));
        }
        DropReason::FragmentLimit => {
            for identification in 0..9 {
                let mut packet = raw(STRANGER, OUTSIDE_A, ESP, &[7; 64]);
                packet[5] = identification;
                bed.a.wire_brings(&fragment(packet));
            }
        }
        DropReason::FragmentTooLong => {
            let mut packet = raw(STRANGER, OUTSIDE_A, ESP, &[7; 64]);
            // At octet 63,488.
            (packet[6], packet[7]) = (0x3f, 0);
            bed.a.wire_brings(&hops_later(&packet, 0));
        }
        DropReason::IcmpRefused => bed.a.wire_brings(&too_big(1400, &[0x45; 60])),
        DropReason::PathMtu => {
            let esp = bed.seal(&packet);
            bed.a.wire_brings(&too_big(1400, &esp));
        }
        _ => return false,
    }
    true
}

/// The first part of a larger packet.
fn fragment(mut packet: Vec<u8>) -> Vec<u8> {
    packet[6] = 0x20;
    hops_later(&packet, 0)
}

/// A router's word that a packet of A's was too big.
pub fn too_big(mtu: u16, quoted: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let header =
        etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
    etherparse::PacketBuilder::ipv4(STRANGER, OUTSIDE_A, 64)
        .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(header))
        .write(&mut packet, quoted)
        .unwrap();
    packet
}

/// ESP that is wrong, or right with content that is wrong.
fn by_esp(bed: &mut Bed, reason: DropReason) -> bool {
    let packet = udp(HOST_A, HOST_B, b"payload");
    let forged = match reason {
        DropReason::Runt => raw(OUTSIDE_A, OUTSIDE_B, ESP, &[0xbb; 3]),
        DropReason::SpiZero => raw(OUTSIDE_A, OUTSIDE_B, ESP, &[0; 64]),
        DropReason::UnknownSpi => raw(OUTSIDE_A, OUTSIDE_B, ESP, &[9; 64]),
        DropReason::Replay => {
            let esp = bed.seal(&packet);
            bed.b.wire_brings(&esp);
            bed.settle();
            bed.b.delivered.clear();
            esp
        }
        DropReason::Integrity => {
            let mut esp = bed.seal(&packet);
            *esp.last_mut().unwrap() ^= 1;
            esp
        }
        DropReason::Congestion => {
            let mut esp = bed.seal(&packet);
            esp[1] |= 3;
            hops_later(&esp, 0)
        }
        DropReason::BadPadding => forge_padding(),
        DropReason::BadNextHeader => forge(50, 17, &packet),
        DropReason::Dummy => forge(50, 59, &[0; 40]),
        DropReason::SelectorMismatch => forge(50, 4, &udp([10, 9, 0, 5], HOST_B, b"whose?")),
        // Out of a tunnel: no error goes back there.
        DropReason::TtlExceeded => forge(50, 4, &hops_later(&packet, 63)),
        _ => return false,
    };
    bed.b.wire_brings(&forged);
    true
}

/// Packets that are right but not allowed.
fn by_policy(bed: &mut Bed, reason: DropReason) -> bool {
    match reason {
        DropReason::NotActive => {
            bed.a.leadership.set(false);
            bed.a.host_sends(&udp(HOST_A, HOST_B, b"x"));
        }
        DropReason::PolicyDiscard => bed.a.host_sends(&udp(HOST_A, [203, 0, 113, 66], b"x")),
        DropReason::NoPolicy => bed.a.host_sends(&udp(HOST_A, [8, 8, 8, 8], b"x")),
        DropReason::NoSa => bed.a.host_sends(&udp(HOST_A, [198, 51, 100, 1], b"x")),
        DropReason::ClearText => bed.a.wire_brings(&udp(HOST_B, HOST_A, b"in clear")),
        DropReason::NoRoute => bed.a.host_sends(&udp(HOST_A, [203, 0, 113, 1], b"no way")),
        DropReason::LeaseExhausted => {
            bed.install(Lease::default(), PLENTY);
            bed.a.host_sends(&udp(HOST_A, HOST_B, b"x"));
        }
        _ => return false,
    }
    true
}

/// More, or larger, than there is room for.
fn by_lack_of_room(bed: &mut Bed, reason: DropReason) -> bool {
    let packet = udp(HOST_A, HOST_B, b"payload");
    match reason {
        // Its sender is told so.
        DropReason::TooBig => bed.a.host_sends(&udp(HOST_A, HOST_B, &[1; 1465])),
        DropReason::PuntFull | DropReason::PuntStranger => {
            // Half of the room is for messages with both SPIs.
            let (count, message) = match reason {
                DropReason::PuntFull => (257, &[7; 28][..]),
                _ => (130, &b"IKE"[..]),
            };
            for _ in 0..count {
                bed.a
                    .wire_brings(&udp_ports(STRANGER, OUTSIDE_A, 500, 500, message));
                bed.a.worker.turn(bed.now);
            }
        }
        DropReason::TransmitFull => {
            for _ in 0..257 {
                bed.a.host_sends(&packet);
                bed.a.worker.turn(bed.now);
            }
        }
        DropReason::HandOver => {
            // To a worker that there is none of: no ring is fuller.
            let bound = Bound {
                spi: Spi(0xaaaa_0001),
                owner: 1,
                outbound: Some(Spi(0xaaaa_0001)),
            };
            let (sa, slot) = (sa_id(1), 0);
            bed.a.send(Command::Bind { sa, slot, bound });
            bed.settle();
            bed.a.host_sends(&packet);
        }
        _ => return false,
    }
    true
}

/// Packets that wait for something that does not come.
fn by_waiting(bed: &mut Bed, reason: DropReason) -> bool {
    match reason {
        DropReason::HighWater => {
            bed.install(PLENTY, Lease::default());
            for _ in 0..65 {
                bed.a.host_sends(&udp(HOST_A, HOST_B, b"x"));
                bed.step();
            }
        }
        DropReason::NeighbourUnresolved => {
            bed.b
                .wire_brings(&forge(50, 4, &udp(HOST_A, [10, 2, 0, 77], b"nobody")));
            for _ in 0..5 {
                bed.advance(Duration::from_secs(1));
            }
        }
        DropReason::Outdated => {
            bed.b
                .wire_brings(&forge(50, 4, &udp(HOST_A, [10, 2, 0, 77], b"nobody")));
            bed.settle();
            bed.b.send(Command::Routes(Arc::default()));
        }
        _ => return false,
    }
    true
}

fn provoke_special(reason: DropReason) -> Bed {
    let packet = udp(HOST_A, HOST_B, b"payload");
    if reason == DropReason::NoBuffer {
        let mut bed = Bed::with(Settings {
            frames: 8,
            ..Settings::default()
        });
        bed.warm_up();
        for _ in 0..9 {
            bed.a.host_sends(&packet);
        }
        return bed;
    }
    let mut bed = Bed::with(Settings {
        esn: false,
        ..Settings::default()
    });
    bed.warm_up();
    bed.install_from(SequenceNumber(1 << 32), PLENTY, PLENTY);
    bed.a.host_sends(&packet);
    bed
}

/// Padding that claims more than there is (fixed in a well-known gateway only in 2026).
fn forge_padding() -> Vec<u8> {
    let material = KeyMaterial::new(&[2; 36]);
    let key = EspKey::new(Engine::AwsLc, EspSuite::Aes256Gcm16, &material).unwrap();
    let (spi, number) = (0xbbbb_0001u32.to_be_bytes(), 50u64.to_be_bytes());
    let text = [[0u8; 30].as_slice(), &[0xff, 4], &[0; 16]].concat();
    let mut esp = [&spi, &number[4..], &number, &text].concat();
    assert!(key.seal_packet(&mut esp, Some(0)));
    raw(OUTSIDE_A, OUTSIDE_B, ESP, &esp)
}

/// The half of the SA that a drop is counted with too, in the way that `provoke` brings it about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Half {
    /// B's receiving half.
    Inbound,
    /// A's sending half.
    Outbound,
    /// No SA has the packet: it was dropped before one was found, or after it was handed on.
    None,
}

/// One row for each reason: a new one does not compile without.
fn half(reason: DropReason) -> Half {
    match reason {
        DropReason::Replay
        | DropReason::Integrity
        | DropReason::BadPadding
        | DropReason::BadNextHeader
        | DropReason::Dummy
        | DropReason::Congestion
        | DropReason::SelectorMismatch
        | DropReason::TtlExceeded
        | DropReason::HighWater => Half::Inbound,
        DropReason::LeaseExhausted | DropReason::SequenceOverflow | DropReason::TooBig => {
            Half::Outbound
        }
        DropReason::NotActive
        | DropReason::Malformed
        | DropReason::BadChecksum
        | DropReason::Fragment
        | DropReason::NotForUs
        | DropReason::Runt
        | DropReason::SpiZero
        | DropReason::UnknownSpi
        | DropReason::PolicyDiscard
        | DropReason::NoPolicy
        | DropReason::NoSa
        | DropReason::ClearText
        | DropReason::NoRoute
        | DropReason::NeighbourUnresolved
        | DropReason::Outdated
        | DropReason::NoBuffer
        | DropReason::PuntFull
        | DropReason::PuntStranger
        | DropReason::TransmitFull
        | DropReason::NatKeepalive
        | DropReason::PathMtu
        | DropReason::IcmpRefused
        | DropReason::FragmentOverlap
        | DropReason::FragmentTimeout
        | DropReason::FragmentLimit
        | DropReason::FragmentTooLong
        | DropReason::HandOver
        | DropReason::Unsupported => Half::None,
    }
}

#[test]
fn every_reason_of_an_sa_is_counted_once_by_that_half_and_by_no_other() {
    for reason in DropReason::ALL {
        let mut bed = provoke(*reason);
        bed.settle();
        let counted = |half: &SaCounters| half.drops().collect::<Vec<_>>();
        let halves = [
            (Half::Inbound, counted(&bed.b.inbound)),
            (Half::Outbound, counted(&bed.a.outbound)),
            (Half::None, counted(&bed.a.inbound)),
            (Half::None, counted(&bed.b.outbound)),
        ];
        for (which, counted) in halves {
            let here = which != Half::None && which == half(*reason);
            let wanted = if here { vec![(*reason, 1)] } else { Vec::new() };
            assert_eq!(counted, wanted, "{reason:?} by {which:?}");
        }
        if *reason == DropReason::SelectorMismatch {
            assert_eq!(bed.b.inbound.packets(), 1, "one delivered before");
        }
    }
}

#[test]
fn packets_and_octets_of_an_sa_are_exact_on_its_worker_in_both_directions() {
    let mut bed = Bed::new();
    bed.warm_up();
    let before = [&bed.a.outbound, &bed.b.inbound].map(|c| (c.packets(), c.bytes()));
    for length in 1..=40usize {
        bed.a.host_sends(&udp(HOST_A, HOST_B, &vec![7; length]));
    }
    bed.settle();
    assert_eq!(bed.b.delivered.len(), 40);
    // IPv4 and UDP headers around 1, 2, ... 40 octets.
    let octets = 40 * 28 + 40 * 41 / 2;
    for (half, (packets, bytes)) in [&bed.a.outbound, &bed.b.inbound].iter().zip(before) {
        assert_eq!(half.packets() - packets, 40);
        assert_eq!(half.bytes() - bytes, octets);
    }
    assert_eq!(bed.b.inbound.window_top(), bed.b.cell.inbound_top());
}

#[test]
fn every_reason_is_counted_once_and_alone() {
    for reason in DropReason::ALL {
        let mut bed = provoke(*reason);
        bed.settle();
        let drops: Vec<_> = [&bed.a, &bed.b]
            .iter()
            .flat_map(|gateway| gateway.handle.counters.drops().collect::<Vec<_>>())
            .collect();
        assert_eq!(drops, [(*reason, 1)], "provoking {reason:?}");
        let innocent = match reason {
            // Provoked by more than there is room for; what had room arrived.
            DropReason::NoBuffer => 8,
            DropReason::TransmitFull => 256,
            _ => 0,
        };
        assert_eq!(bed.b.delivered.len(), innocent, "delivered: {reason:?}");
        let told = matches!(reason, DropReason::TooBig | DropReason::TtlExceeded);
        let told = usize::from(told);
        assert_eq!(bed.a.delivered.len(), told, "came back: {reason:?}");
    }
}

#[test]
fn unverified_packets_move_no_window_rfc_4303_section_3_4_3() {
    let mut bed = Bed::new();
    bed.warm_up();
    let good = bed.seal(&udp(HOST_A, HOST_B, b"good"));
    for _ in 0..17 {
        let mut far = forge(1 << 20, 4, &udp(HOST_A, HOST_B, b"far"));
        *far.last_mut().unwrap() ^= 1;
        bed.b.wire_brings(&far);
    }
    bed.settle();
    assert_eq!(bed.b.dropped(DropReason::Integrity), 17);
    assert_eq!(
        bed.b.cell.inbound_top().0,
        1,
        "hole B6: only authentic numbers count"
    );
    bed.b.wire_brings(&good);
    bed.settle();
    assert_eq!(bed.b.delivered.len(), 1);
}

#[test]
fn eight_copies_in_one_burst_are_delivered_once() {
    let mut bed = Bed::new();
    bed.warm_up();
    let esp = bed.seal(&udp(HOST_A, HOST_B, b"once"));
    for _ in 0..8 {
        bed.b.wire_brings(&esp);
    }
    bed.settle();
    assert_eq!(bed.b.delivered.len(), 1);
    assert_eq!(bed.b.dropped(DropReason::Replay), 7);
}

#[test]
fn too_big_with_df_tells_the_sender_what_fits_rfc_4301_section_8_2_1() {
    let mut bed = Bed::new();
    bed.warm_up();
    bed.a.host_sends(&udp(HOST_A, HOST_B, &[1; 1465]));
    bed.settle();
    assert_eq!(bed.a.dropped(DropReason::TooBig), 1);
    assert_eq!(bed.a.delivered.len(), 1);
    let error = &bed.a.delivered[0][14..];
    assert_eq!((error[9], error[20], error[21]), (1, 3, 4));
    let fits = usize::from(u16::from_be_bytes([error[26], error[27]]));
    // Exactly what it says goes through, and one octet more does not.
    bed.a.host_sends(&udp(HOST_A, HOST_B, &vec![2; fits - 28]));
    bed.settle();
    assert_eq!(bed.b.delivered.len(), 1);
    bed.a.host_sends(&udp(HOST_A, HOST_B, &vec![2; fits - 27]));
    bed.settle();
    assert_eq!(bed.a.dropped(DropReason::TooBig), 2);
}

#[test]
fn time_exceeded_is_told_to_a_host_on_the_protected_side_only() {
    let mut bed = Bed::new();
    bed.warm_up();
    bed.a
        .host_sends(&hops_later(&udp(HOST_A, HOST_B, b"x"), 63));
    bed.settle();
    assert_eq!(bed.a.dropped(DropReason::TtlExceeded), 1);
    assert_eq!(bed.a.delivered.len(), 1);
    assert_eq!(bed.a.delivered[0][14 + 20], 11);
    assert!(bed.wire.is_empty());
}

#[test]
fn hints_name_what_is_missing_and_are_limited_in_rate() {
    let mut bed = Bed::new();
    bed.warm_up();
    bed.a.events();
    for number in 0..50 {
        bed.a.host_sends(&udp(HOST_A, [198, 51, 100, 1], b"x"));
        bed.a.host_sends(&udp(HOST_A, [198, 51, 100, 1], b"x"));
        // Each SPI is named once.
        let spi = [&[9, 9, 9, number], &[9; 60][..]].concat();
        bed.a.wire_brings(&raw(OUTSIDE_B, OUTSIDE_A, ESP, &spi));
        bed.a.wire_brings(&raw(OUTSIDE_B, OUTSIDE_A, ESP, &spi));
    }
    bed.settle();
    assert_eq!(bed.a.dropped(DropReason::NoSa), 100);
    assert_eq!(bed.a.dropped(DropReason::UnknownSpi), 100);
    let (mut acquires, mut named) = (0, std::collections::BTreeSet::new());
    for event in bed.a.events() {
        match event {
            Event::Acquire { policy, flow } => {
                assert_eq!(policy, 2);
                assert_eq!(flow.destination, std::net::IpAddr::from([198, 51, 100, 1]));
                acquires += 1;
            }
            Event::UnknownSpi { spi, source } => {
                assert!(named.insert(spi), "{spi} is named twice");
                assert_eq!(source, (OUTSIDE_B, 0).into());
            }
            _ => panic!("another event"),
        }
    }
    assert_eq!((acquires, named.len()), (1, 50), "one policy, fifty SPIs");
}

#[test]
fn without_policies_nothing_passes() {
    let mut bed = Bed::new();
    bed.warm_up();
    bed.a
        .send(Command::Policies(std::sync::Arc::new(Spd::default())));
    bed.a.host_sends(&udp(HOST_A, HOST_B, b"x"));
    bed.a.wire_brings(&udp(HOST_B, HOST_A, b"x"));
    bed.settle();
    assert_eq!(bed.a.dropped(DropReason::NoPolicy), 2);
    assert!(bed.wire.is_empty() && bed.a.delivered.is_empty());
}
