//! What a router owes: fragments put together, path MTUs learnt and told, segments clamped, and
//! nothing in clear when an SA goes.

use std::sync::Arc;
use std::time::Duration;

use etherparse::{IpNumber, PacketBuilder};
use hitless_dataplane::aead::{Engine, EspKey};
use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::Command;
use hitless_dataplane::esp::seal_datagram;
use hitless_dataplane::neighbour::News;
use hitless_dataplane::sad::OutboundSa;
use hitless_dataplane::verdict::DropReason;
use hitless_sa::{
    DontFragment, EspSuite, KeyMaterial, MssClamp, SaOptions, SequenceNumber, Spi, TfcPadding,
    UdpEncapsulation,
};

use crate::bed::*;
use crate::drops::too_big;

const NAT: UdpEncapsulation = UdpEncapsulation {
    local_port: 4500,
    remote_port: 4500,
};

/// ESP from A to B around this inner packet, as A would seal it.
fn sealed(number: u64, inner: &[u8]) -> Vec<u8> {
    let key = KeyMaterial::new(&[2; 36]);
    let key = EspKey::new(Engine::AwsLc, EspSuite::Aes256Gcm16, &key).unwrap();
    let next_header = if inner[0] >> 4 == 6 { 41 } else { 4 };
    let number = SequenceNumber(number);
    seal_datagram(&key, Spi(0xbbbb_0001), number, true, next_header, inner).unwrap()
}

/// The outer packet around ESP.
fn outer(v6: bool, udp: bool, esp: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    match (v6, udp) {
        (false, false) => packet = raw(OUTSIDE_A, OUTSIDE_B, 50, esp),
        (false, true) => packet = udp_ports(OUTSIDE_A, OUTSIDE_B, 4500, 4500, esp),
        (true, false) => PacketBuilder::ipv6(OUTSIDE6_A, OUTSIDE6_B, 64)
            .write(&mut packet, IpNumber(50), esp)
            .unwrap(),
        (true, true) => PacketBuilder::ipv6(OUTSIDE6_A, OUTSIDE6_B, 64)
            .udp(4500, 4500)
            .write(&mut packet, esp)
            .unwrap(),
    }
    packet
}

#[test]
fn rfc4303_section_3_4_1_esp_that_comes_in_fragments_is_put_together_first() {
    for (v6, encapsulated) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut bed = Bed::with(Settings {
            outer_v6: v6,
            encapsulation: encapsulated.then_some(NAT),
            ..Settings::default()
        });
        bed.b.send(Command::Neighbour(News::certain(
            INSIDE,
            HOST_B.into(),
            bed.b.host_mac,
        )));
        // 1900 octets of payload in fragments of 1400, and many small ones, in either order. What
        // comes out of the first is larger than the host's link takes: two fragments of it arrive.
        for (number, size, length) in [(1, 1400, 1900), (2, 256, 1300), (3, 1400, 1400)] {
            let inner = without_df(&udp(HOST_A, HOST_B, &vec![number as u8; length - 28]));
            let whole = outer(v6, encapsulated, &sealed(number, &inner));
            let mut pieces = parts(&whole, size, number as u32);
            if number == 2 {
                pieces.reverse();
            }
            for piece in &pieces {
                bed.b.wire_brings(piece);
            }
            bed.settle();
            let esp = bed.b.handle.counters.esp();
            assert_eq!(esp.packets_in, number, "{v6} {encapsulated} {size}");
            assert_eq!(bed.b.worker.frame_account().held, 0);
        }
        assert_eq!(bed.b.delivered.len(), 4);
        let drops: Vec<_> = bed.b.handle.counters.drops().collect();
        assert_eq!(drops, []);
    }
}

/// A planned switchover amid the fragments of a packet: those that came before it go on to the member that
/// gets the rest.
#[test]
fn fragments_that_wait_at_a_handover_are_put_together_at_the_successor() {
    let mut bed = Bed::new();
    bed.warm_up();
    let inner = without_df(&udp(HOST_A, HOST_B, &[7; 1300]));
    let number = bed.b.handle.counters.esp().packets_in + 1;
    let pieces = parts(&outer(false, false, &sealed(number, &inner)), 512, 1);
    let (before, after) = pieces.split_at(2);
    before.iter().for_each(|piece| bed.b.wire_brings(piece));
    bed.settle();
    assert_eq!(bed.b.worker.frame_account().held, 2);
    bed.b.events();
    bed.b.leadership.hand_over();
    after.iter().for_each(|piece| bed.b.wire_brings(piece));
    bed.settle();
    let parcels = drain(&mut bed.b.handle.punt);
    assert_eq!(parcels.len(), pieces.len());
    assert_eq!(bed.b.worker.frame_account().held, 0);
    // The same worker stands for the successor.
    bed.b.leadership.set(true);
    for parcel in &parcels {
        assert!(bed.b.handle.inject(parcel));
    }
    let delivered = bed.b.delivered.len();
    bed.settle();
    assert_eq!(bed.b.delivered.len(), delivered + 1);
    bed.b.assert_no_leak();
}

#[test]
fn rfc8200_section_4_5_fragments_that_overlap_or_are_replayed_open_nothing() {
    for v6 in [false, true] {
        let mut bed = Bed::with(Settings {
            outer_v6: v6,
            ..Settings::default()
        });
        let inner = udp(HOST_A, HOST_B, &[7; 1000]);
        let whole = outer(v6, false, &sealed(1, &inner));
        let mut lying = parts(&whole, 512, 1);
        // The second part once more, eight octets earlier.
        let mut overlap = lying[1].clone();
        match v6 {
            true => overlap[42..44].copy_from_slice(&(504u16 | 1).to_be_bytes()),
            false => {
                overlap[7] -= 1;
                overlap = hops_later(&overlap, 0);
            }
        }
        lying.insert(1, overlap);
        for piece in &lying {
            bed.b.wire_brings(piece);
        }
        bed.settle();
        assert!(bed.b.delivered.is_empty());
        assert_eq!(
            bed.b.dropped(DropReason::FragmentOverlap),
            lying.len() as u64
        );
        // The honest packet itself, fragmented otherwise, is the first with its number.
        for piece in &parts(&whole, 600, 2) {
            bed.b.wire_brings(piece);
        }
        bed.settle();
        assert_eq!(bed.b.delivered.len(), 1);
        for piece in &parts(&whole, 600, 3) {
            bed.b.wire_brings(piece);
        }
        bed.settle();
        assert_eq!(bed.b.dropped(DropReason::Replay), 1);
        assert_eq!(bed.b.delivered.len(), 1);
    }
}

#[test]
fn ike_in_ip_fragments_reaches_the_control_thread_whole() {
    let mut bed = Bed::new();
    let v4 = udp_ports([192, 0, 2, 99], OUTSIDE_A, 500, 500, &[7; 1700]);
    let mut v6 = Vec::new();
    PacketBuilder::ipv6(crate::discovery::STRANGER6, OUTSIDE6_A, 64)
        .udp(4500, 4500)
        .write(&mut v6, &[0; 1700])
        .unwrap();
    let mut v4 = without_df(&v4);
    v4[5] = 9;
    let v4 = hops_later(&v4, 0);
    for whole in [&v4, &v6] {
        for piece in &parts(whole, 800, 9) {
            bed.a.wire_brings(piece);
        }
    }
    bed.settle();
    assert!(drain(&mut bed.a.handle.punt) == [v4, v6]);
}

/// A router's word, over IPv6, that a packet of A's was too big.
fn too_big_v6(mtu: u32, quoted: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(crate::discovery::STRANGER6, OUTSIDE6_A, 64)
        .icmpv6(etherparse::Icmpv6Type::PacketTooBig { mtu })
        .write(&mut packet, &quoted[..quoted.len().min(1200)])
        .unwrap();
    packet
}

/// The MTU in the last error that A's host got, and its number of errors.
fn told(bed: &Bed) -> (usize, usize) {
    let errors = bed.a.delivered.iter().filter_map(|frame| {
        let packet = &frame[14..];
        let mtu = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
        match packet[0] >> 4 {
            6 if packet[6] == 58 && packet[40] == 2 => Some(mtu(46)),
            4 if packet[9] == 1 && packet[20..22] == [3, 4] => Some(mtu(26)),
            _ => None,
        }
    });
    let errors: Vec<usize> = errors.collect();
    (errors.last().copied().unwrap_or(0), errors.len())
}

#[test]
fn rfc4301_section_8_2_a_path_mtu_told_about_our_esp_is_told_to_senders_and_ages() {
    for outer_v6 in [false, true] {
        let mut bed = Bed::with(Settings {
            outer_v6,
            options: SaOptions {
                dont_fragment: DontFragment::Set,
                ..SaOptions::default()
            },
            ..Settings::default()
        });
        bed.a.host_sends(&udp(HOST_A, HOST_B, b"warm"));
        bed.settle();
        let large = udp(HOST_A, HOST_B, &[7; 1390]);
        let esp = bed.seal(&large);
        if !outer_v6 {
            assert_eq!(esp[6] & 0x40, 0x40, "DF, else no router says anything");
        }
        let error = match outer_v6 {
            true => too_big_v6(1300, &esp),
            false => too_big(1300, &esp[..28]),
        };
        bed.a.wire_brings(&error);
        bed.settle();
        assert_eq!(bed.a.dropped(DropReason::PathMtu), 1);
        // The next one is answered: with DF and over IPv6, with what fits, exactly.
        bed.a.host_sends(&large);
        bed.a.host_sends(&udp6(HOST6_A, HOST6_B, &[7; 1390]));
        bed.settle();
        let (fits, errors) = told(&bed);
        // IPv6 senders are never told less than 1280.
        assert_eq!((fits, errors), (1280, 2));
        bed.wire.clear();
        // Without DF it goes in fragments, each within the path's MTU; so do 1280 octets of IPv6.
        bed.a.host_sends(&without_df(&large));
        bed.settle();
        assert_eq!(bed.wire.len(), 2);
        assert!(bed.wire.iter().all(|frame| frame.len() <= 14 + 1300));
        // Ten minutes later it is tried again (RFC 1191 section 6.3).
        bed.now += Duration::from_secs(601);
        bed.wire.clear();
        bed.a.host_sends(&large);
        bed.settle();
        assert_eq!(told(&bed).1, 2);
        assert_eq!(bed.wire.len(), 1);
    }
}

#[test]
fn rfc2473_section_7_1_ipv6_of_1280_octets_goes_through_the_narrowest_tunnel() {
    let mut bed = Bed::with(Settings {
        outer_v6: true,
        ..Settings::default()
    });
    bed.a.host_sends(&udp6(HOST6_A, HOST6_B, b"warm"));
    bed.settle();
    let esp = bed.seal(&udp6(HOST6_A, HOST6_B, &[7; 1300]));
    bed.a.wire_brings(&too_big_v6(1280, &esp));
    bed.settle();
    bed.b.delivered.clear();
    bed.wire.clear();
    let packet = udp6(HOST6_A, HOST6_B, &[9; 1280 - 48]);
    bed.a.host_sends(&packet);
    bed.settle();
    // Fragmented behind ESP, put together by B.
    assert_eq!(bed.wire.len(), 2);
    assert!(
        bed.wire
            .iter()
            .all(|frame| frame.len() <= 14 + 1280 && frame[20] == 44)
    );
    assert_eq!(bed.b.delivered[0][14..], hops_later(&packet, 2));
    assert_eq!(told(&bed).1, 0);
}

#[test]
fn rfc4213_section_3_2_2_ipv6_of_1280_octets_goes_through_an_ipv4_tunnel_whatever_df_says() {
    for dont_fragment in [DontFragment::Copy, DontFragment::Set, DontFragment::Clear] {
        let mut bed = Bed::with(Settings {
            outside_mtu: 1300,
            options: SaOptions {
                dont_fragment,
                ..SaOptions::default()
            },
            ..Settings::default()
        });
        bed.a.host_sends(&udp6(HOST6_A, HOST6_B, b"warm"));
        bed.settle();
        bed.b.delivered.clear();
        bed.wire.clear();
        let packet = udp6(HOST6_A, HOST6_B, &[9; 1232]);
        bed.a.host_sends(&packet);
        bed.settle();
        assert_eq!(bed.wire.len(), 2);
        assert!(bed.wire.iter().all(|frame| frame[20] & 0x40 == 0));
        assert_eq!(bed.b.delivered[0][14..], hops_later(&packet, 2));
        assert_eq!(told(&bed).1, 0);
    }
}

#[test]
fn rfc8200_section_4_5_and_rfc6864_section_4_3_identifications_do_not_follow_the_sas_own_numbers() {
    for outer_v6 in [false, true] {
        let mut bed = Bed::with(Settings {
            outside_mtu: 1300,
            outer_v6,
            ..Settings::default()
        });
        bed.a.host_sends(&udp6(HOST6_A, HOST6_B, b"warm"));
        bed.settle();
        let mut seen = Vec::new();
        for _ in 0..2 {
            bed.wire.clear();
            for _ in 0..20 {
                bed.a.host_sends(&udp6(HOST6_A, HOST6_B, &[9; 1232]));
            }
            bed.settle();
            assert_eq!(bed.wire.len(), 40);
            let name = |frame: &Vec<u8>| match outer_v6 {
                true => frame[58..62].to_vec(),
                false => frame[18..20].to_vec(),
            };
            let mut names: Vec<_> = bed.wire.iter().map(name).collect();
            names.dedup();
            assert_eq!(names.len(), 20, "two fragments have one name");
            seen.append(&mut names);
            // A new SA between the same two endpoints starts from its first number.
            bed.install(PLENTY, PLENTY);
            bed.settle();
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 40);
    }
}

#[test]
fn lost_fragments_do_not_keep_their_sources_next_ones_out() {
    let mut bed = Bed::new();
    bed.warm_up();
    let inner = udp(HOST_A, HOST_B, &[7; 1000]);
    let whole = outer(false, false, &sealed(100, &inner));
    for identification in 0..8 {
        bed.b.wire_brings(&parts(&whole, 600, identification)[0]);
    }
    bed.settle();
    bed.now += Duration::from_secs(50);
    for piece in &parts(&whole, 600, 77) {
        bed.b.wire_brings(piece);
    }
    bed.settle();
    assert_eq!(bed.b.delivered.len(), 1);
    assert_eq!(bed.b.dropped(DropReason::FragmentLimit), 1);
}

#[test]
fn rfc1812_section_5_2_6_what_is_bypassed_or_decrypted_is_fragmented_for_a_narrow_link_or_refused()
{
    // Decrypted, for a LAN that is narrower than the tunnel.
    let mut bed = Bed::with(Settings {
        inside_mtu: 1300,
        ..Settings::default()
    });
    bed.warm_up();
    bed.b.host_sends(&udp(HOST_B, HOST_A, b"warm"));
    bed.settle();
    bed.a.delivered.clear();
    bed.b.delivered.clear();
    bed.wire.clear();
    for (number, inner) in [
        (100, without_df(&udp(HOST_A, HOST_B, &[7; 1300]))),
        (101, udp(HOST_A, HOST_B, &[7; 1300])),
        (102, udp6(HOST6_A, HOST6_B, &[7; 1300])),
    ] {
        bed.b
            .wire_brings(&outer(false, false, &sealed(number, &inner)));
        bed.settle();
    }
    assert_eq!(bed.b.delivered.len(), 2, "fragments of the first");
    assert_eq!(bed.b.dropped(DropReason::TooBig), 2);
    // The others' sender is told, through the tunnel and not in clear.
    assert_eq!(told(&bed), (1300, 2));
    assert_eq!(bed.wire.len(), 2);
    let clear = |frame: &Vec<u8>| frame.windows(12).any(|w| w == [7; 12]);
    assert!(!bed.wire.iter().any(clear));
    // Bypassed, for a wire that is narrower than the LAN.
    let mut bed = Bed::with(Settings {
        outside_mtu: 1300,
        ..Settings::default()
    });
    bed.warm_up();
    crate::tunnel::route_default(&mut bed);
    bed.a.delivered.clear();
    let large = udp(HOST_A, [203, 0, 113, 9], &[7; 1390]);
    bed.a.host_sends(&without_df(&large));
    bed.settle();
    assert_eq!((bed.wire.len(), told(&bed).1), (2, 0));
    bed.a.host_sends(&large);
    bed.settle();
    assert_eq!((bed.wire.len(), told(&bed)), (2, (1300, 1)));
    bed.a.assert_no_leak();
}

#[test]
fn rfc1812_section_5_3_1_a_packet_that_dies_behind_the_tunnel_is_reported_through_the_tunnel() {
    for v6 in [false, true] {
        let mut bed = Bed::new();
        let mut packet = match v6 {
            false => udp(HOST_A, HOST_B, b"not for the wire"),
            true => udp6(HOST6_A, HOST6_B, b"not for the wire"),
        };
        // Alive at A, dead at B.
        packet[if v6 { 7 } else { 8 }] = 2;
        bed.a.host_sends(&hops_later(&packet, 0));
        bed.settle();
        assert_eq!(bed.b.dropped(DropReason::TtlExceeded), 1);
        let [told] = &bed.a.delivered[..] else {
            panic!("{v6}: {:?}", bed.a.delivered);
        };
        let (at, kind, from) = match v6 {
            false => (34, 11, told[26..30] == INSIDE_B),
            true => (54, 3, told[22..38] == INSIDE6_B),
        };
        assert!(told[at] == kind && from);
        let clear = |frame: &Vec<u8>| frame.windows(12).any(|w| w == b"not for the ");
        assert!(!bed.wire.iter().any(clear));
        assert_eq!(bed.wire.len(), 2);
        bed.b.assert_no_leak();
    }
}

#[test]
fn rfc4301_section_8_2_errors_that_lie_are_counted_and_change_nothing() {
    let mut bed = Bed::new();
    bed.warm_up();
    let large = udp(HOST_A, HOST_B, &[7; 1390]);
    let esp = bed.seal(&large);
    let changed = |at: usize, value: u8| {
        let mut other = esp[..60].to_vec();
        other[at] = value;
        other
    };
    let lies = [
        // An SPI, a peer, a source that are not this SA's; another protocol.
        too_big(1300, &changed(20, 9)),
        too_big(1300, &changed(19, 77)),
        too_big(1300, &changed(15, 77)),
        too_big(1300, &changed(9, 51)),
        too_big(1300, &changed(9, 17)),
        // Too short to name an SA; later fragment; no packet of ours at all.
        too_big(1300, &esp[..23]),
        too_big(1300, &changed(7, 1)),
        too_big(1300, b"nothing"),
        // Values that cannot be.
        too_big(575, &esp[..60]),
        too_big(1500, &esp[..60]),
        too_big(65_535, &esp[..60]),
    ];
    for lie in &lies {
        bed.a.wire_brings(lie);
    }
    bed.settle();
    assert_eq!(bed.a.dropped(DropReason::IcmpRefused), lies.len() as u64);
    assert_eq!(bed.a.dropped(DropReason::PathMtu), 0);
    bed.wire.clear();
    bed.a.host_sends(&large);
    bed.settle();
    assert_eq!((bed.wire.len(), told(&bed).1), (1, 0));
}

#[test]
fn rfc4301_section_8_1_outer_df_is_copied_set_or_cleared_as_configured() {
    for (policy, expected) in [
        (DontFragment::Copy, [true, false, true]),
        (DontFragment::Set, [true; 3]),
        (DontFragment::Clear, [false; 3]),
    ] {
        let mut bed = Bed::with(Settings {
            options: SaOptions {
                dont_fragment: policy,
                ..SaOptions::default()
            },
            ..Settings::default()
        });
        let with = udp(HOST_A, HOST_B, b"x");
        let packets = [
            with.clone(),
            without_df(&with),
            udp6(HOST6_A, HOST6_B, b"x"),
        ];
        let flags = packets.map(|packet| {
            bed.a.host_sends(&packet);
            bed.settle();
            let frame = bed.wire.pop().unwrap();
            hops_later(&frame[14..], 0);
            frame[20] & 0x40 != 0
        });
        assert_eq!(flags, expected, "{policy:?}");
    }
}

#[test]
fn rfc4459_section_3_2_tcp_connections_through_the_tunnel_learn_what_fits() {
    let open = |options: &[u8]| {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(HOST_A, HOST_B, 64)
            .tcp(1000, 80, 7, 9)
            .syn()
            .options_raw(options)
            .unwrap()
            .write(&mut packet, b"")
            .unwrap();
        packet
    };
    for (setting, expected) in [
        (MssClamp::None, 1460),
        (MssClamp::To(1200), 1200),
        // 1500 less IPv4, ESP's 36 and what alignment costs, then IPv4 and TCP inside.
        (MssClamp::ToMtu, 1446 - 40),
    ] {
        let mut bed = Bed::with(Settings {
            options: SaOptions {
                mss: setting,
                ..SaOptions::default()
            },
            ..Settings::default()
        });
        bed.a.host_sends(&open(&[2, 4, 0x05, 0xb4]));
        bed.settle();
        let delivered = &bed.b.delivered[0];
        let mss = u16::from_be_bytes([delivered[14 + 42], delivered[14 + 43]]);
        assert_eq!(mss, expected);
        let (ip, rest) = etherparse::Ipv4Header::from_slice(&delivered[14..]).unwrap();
        let (tcp, _) = etherparse::TcpHeader::from_slice(rest).unwrap();
        assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(&ip, &[]).unwrap());
    }
}

#[test]
fn rfc4459_section_3_2_connections_opened_out_of_the_tunnel_learn_what_fits_too() {
    for (setting, expected) in [
        (MssClamp::None, 1460),
        (MssClamp::To(1200), 1200),
        (MssClamp::ToMtu, 1446 - 40),
    ] {
        // The far gateway clamps nothing.
        let mut bed = Bed::new();
        bed.warm_up();
        let mut child = bed.child(false);
        child.options.mss = setting;
        let cell = Arc::new(Cell::new(SequenceNumber(1), PLENTY));
        let half = OutboundSa::new(&child, cell, 0, Engine::default()).unwrap();
        bed.b.send(Command::InstallOutbound(Box::new(half)));
        let mut packet = Vec::new();
        PacketBuilder::ipv4(HOST_A, HOST_B, 64)
            .tcp(1000, 80, 7, 9)
            .syn()
            .options_raw(&[2, 4, 0x05, 0xb4])
            .unwrap()
            .write(&mut packet, b"")
            .unwrap();
        bed.a.host_sends(&packet);
        bed.settle();
        let (ip, rest) = etherparse::Ipv4Header::from_slice(&bed.b.delivered[0][14..]).unwrap();
        let (tcp, _) = etherparse::TcpHeader::from_slice(rest).unwrap();
        let mss = u16::from_be_bytes([rest[22], rest[23]]);
        assert_eq!(mss, expected);
        assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(&ip, &[]).unwrap());
    }
}

#[test]
fn rfc4303_section_2_7_tfc_padding_hides_lengths_and_is_stripped() {
    for (padding, expected) in [(TfcPadding::To(1000), 1000), (TfcPadding::ToMtu, 1446)] {
        let mut bed = Bed::with(Settings {
            options: SaOptions {
                padding,
                ..SaOptions::default()
            },
            ..Settings::default()
        });
        for size in [0, 1, 100, 900] {
            for packet in [
                udp(HOST_A, HOST_B, &vec![7; size]),
                udp6(HOST6_A, HOST6_B, &vec![7; size]),
            ] {
                bed.a.host_sends(&packet);
                bed.settle();
                let frame = bed.wire.pop().unwrap();
                // Header, IV, text aligned to four with its trailer, ICV.
                let text = (expected + 2usize).next_multiple_of(4);
                assert_eq!(frame.len(), 14 + 20 + 16 + text + 16);
                assert_eq!(bed.b.delivered.pop().unwrap()[14..], hops_later(&packet, 2));
            }
        }
        // Longer ones are as long as they are.
        if padding == TfcPadding::To(1000) {
            bed.a.host_sends(&udp(HOST_A, HOST_B, &[7; 1100]));
            bed.settle();
            assert!(bed.wire.pop().unwrap().len() > 14 + 20 + 1100);
        }
    }
}

#[test]
fn rfc4303_section_2_6_dummy_packets_go_out_on_request_and_are_dropped_silently() {
    let mut bed = Bed::new();
    bed.warm_up();
    bed.a.send(Command::Dummies {
        sa: sa_id(1),
        count: 40,
        octets: 700,
    });
    bed.settle();
    bed.a.host_sends(&udp(HOST_A, HOST_B, &[7; 672]));
    bed.settle();
    assert_eq!(bed.wire.len(), 41);
    let (dummies, real) = bed.wire.split_at(40);
    assert!(dummies.iter().all(|frame| frame.len() == real[0].len()));
    // Each with a number of its own, and a DSCP that tells nothing.
    let numbers: Vec<u8> = bed.wire.iter().map(|frame| frame[14 + 20 + 7]).collect();
    assert_eq!(numbers, (2..=42).collect::<Vec<u8>>());
    assert_eq!(bed.b.dropped(DropReason::Dummy), 40);
    assert_eq!(bed.b.delivered.len(), 1);
    // The replay of one is a replay.
    let dummy = dummies[5][14..].to_vec();
    bed.b.wire_brings(&dummy);
    bed.settle();
    assert_eq!(bed.b.dropped(DropReason::Replay), 1);
    // To nobody, nothing.
    bed.wire.clear();
    bed.a.send(Command::Dummies {
        sa: sa_id(9),
        count: 1,
        octets: 1,
    });
    bed.settle();
    assert!(bed.wire.is_empty());
}

#[test]
fn rfc3948_section_2_3_keepalives_go_when_nothing_else_does_to_the_ports_of_the_sa() {
    for outer_v6 in [false, true] {
        let mut bed = Bed::with(Settings {
            outer_v6,
            encapsulation: Some(NAT),
            options: SaOptions {
                keepalive: Some(Duration::from_secs(20)),
                ..SaOptions::default()
            },
            ..Settings::default()
        });
        bed.a.send(Command::Update {
            sa: sa_id(1),
            local: bed.child(true).local,
            remote: bed.child(true).remote,
            encapsulation: Some(UdpEncapsulation {
                local_port: 4500,
                remote_port: 4500,
            }),
            keepalive: Some(Duration::from_secs(20)),
        });
        let mut at = Vec::new();
        for second in 0..70 {
            // Busy for the first 15 seconds: then nothing is needed.
            if second < 15 {
                bed.a.host_sends(&udp(HOST_A, HOST_B, b"busy"));
            }
            bed.settle();
            let header = if outer_v6 { 54 } else { 34 };
            for frame in bed.wire.drain(..) {
                let from_a = frame[6..12] == bed.a.outside_mac;
                if from_a && frame.len() == header + 9 {
                    at.push(second);
                    assert_eq!(frame[header..header + 6], [0x11, 0x94, 0x11, 0x94, 0, 9]);
                    assert_eq!(frame[header + 8], 0xff);
                    let sum = [frame[header + 6], frame[header + 7]];
                    assert_eq!(sum == [0, 0], !outer_v6);
                }
            }
            for _ in 0..100 {
                bed.now += Duration::from_millis(10);
                bed.a.worker.turn(bed.now);
                bed.b.worker.turn(bed.now);
            }
        }
        assert_eq!(at.len(), 2, "{at:?}");
        assert!(at[0] >= 34 && at[1] >= at[0] + 20, "{at:?}");
        // The peer drops them silently.
        assert_eq!(bed.b.dropped(DropReason::NatKeepalive), 2);
    }
}

#[test]
fn rfc6040_section_4_2_and_rfc2983_the_outer_dscp_comes_in_where_configured() {
    for copy_dscp_in in [false, true] {
        let mut bed = Bed::with(Settings {
            options: SaOptions {
                copy_dscp_in,
                ..SaOptions::default()
            },
            ..Settings::default()
        });
        bed.warm_up();
        let packet = udp(HOST_A, HOST_B, b"x");
        let mut esp = bed.seal(&packet);
        esp[1] = 46 << 2;
        bed.b.wire_brings(&hops_later(&esp, 0));
        bed.settle();
        let tos = bed.b.delivered[0][15];
        assert_eq!(tos, if copy_dscp_in { 46 << 2 } else { 0 });
    }
}

#[test]
fn removing_an_sa_while_traffic_flows_lets_nothing_out_in_clear() {
    for outer_v6 in [false, true] {
        let mut bed = Bed::with(Settings {
            outer_v6,
            ..Settings::default()
        });
        let secret = b"not for the wire, not one octet of it";
        bed.warm_up();
        for round in 0..20 {
            for _ in 0..20 {
                bed.a.host_sends(&udp(HOST_A, HOST_B, secret));
                bed.a.host_sends(&udp6(HOST6_A, HOST6_B, secret));
            }
            match round {
                7 => bed.a.send(Command::Remove(sa_id(1))),
                13 => bed.install(PLENTY, PLENTY),
                _ => {}
            }
            bed.settle();
        }
        assert_eq!(bed.a.dropped(DropReason::NoSa), 6 * 40);
        let clear = |frame: &&Vec<u8>| frame.windows(12).any(|w| w == &secret[..12]);
        assert_eq!(bed.wire.iter().filter(clear).count(), 0);
        assert_eq!(bed.wire.len(), 14 * 40);
    }
}
