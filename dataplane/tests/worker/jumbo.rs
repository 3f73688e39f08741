//! Packets longer than a frame of the pool: they live in runs of frames, and whatever ESP appends to
//! them may cross or begin a frame.

use hitless_dataplane::pool::{FRAME_SIZE, HEADROOM};
use hitless_dataplane::verdict::DropReason;
use hitless_sa::UdpEncapsulation;

use crate::bed::*;

/// Octets of IPv4 and UDP headers in front of the payload of a test packet.
const HEADERS: usize = 28;
/// Where an inner packet starts in its frame or run.
const START: usize = HEADROOM + 14;

fn jumbo_bed(encapsulation: Option<UdpEncapsulation>, outer_v6: bool) -> Bed {
    let mut bed = Bed::with(Settings {
        encapsulation,
        outer_v6,
        runs: 64,
        inside_mtu: 9216,
        outside_mtu: 9216,
        ..Settings::default()
    });
    bed.warm_up();
    bed
}

/// A packet of `length` octets in all, none like its neighbours.
fn packet(length: usize) -> Vec<u8> {
    let payload: Vec<u8> = (HEADERS..length).map(|n| (n % 251) as u8).collect();
    udp(HOST_A, HOST_B, &payload)
}

fn crosses(bed: &mut Bed, length: usize) {
    let sent = packet(length);
    bed.a.host_sends(&sent);
    bed.settle();
    assert_eq!(bed.b.delivered.len(), 1, "{length}");
    assert_eq!(bed.b.delivered[0][14..], hops_later(&sent, 2), "{length}");
    let answer = udp(HOST_B, HOST_A, &sent[HEADERS..]);
    bed.b.host_sends(&answer);
    bed.settle();
    assert_eq!(bed.a.delivered[0][14..], hops_later(&answer, 2), "{length}");
    bed.a.delivered.clear();
    bed.b.delivered.clear();
}

fn crosses_in_ipv6(bed: &mut Bed, length: usize) {
    let sent = udp6(HOST6_A, HOST6_B, &packet(length - 48 + HEADERS)[HEADERS..]);
    assert_eq!(sent.len(), length);
    bed.a.host_sends(&sent);
    bed.settle();
    assert_eq!(bed.b.delivered.len(), 1, "{length}");
    assert_eq!(bed.b.delivered[0][14..], hops_later(&sent, 2), "{length}");
    bed.b.delivered.clear();
}

fn all_free(gateway: &Gateway) -> bool {
    let account = gateway.worker.frame_account();
    account.free == account.total
}

/// The lengths that VPP tests with its buffers of 2,048 octets, and a jumbo frame's.
#[test]
fn rfc4303_section_2_large_packets_go_through_the_tunnel_both_ways() {
    let nat = UdpEncapsulation {
        local_port: 4500,
        remote_port: 4500,
    };
    for (encapsulation, outer_v6) in [
        (None, false),
        (Some(nat), false),
        (None, true),
        (Some(nat), true),
    ] {
        let mut bed = jumbo_bed(encapsulation, outer_v6);
        for length in [1970, 2004, 4010, 4020, 9000] {
            crosses(&mut bed, length);
            crosses(&mut bed, length + HEADERS);
            crosses_in_ipv6(&mut bed, length);
        }
        assert!(all_free(&bed.a) && all_free(&bed.b));
        assert_eq!(bed.a.handle.counters.drops().count(), 0);
        assert_eq!(bed.b.handle.counters.drops().count(), 0);
    }
}

/// Every length whose trailer or ICV (at most 3 + 2 + 16 octets) ends near the end of a frame: it
/// crosses into the next one, begins it, or just fits; and lengths that fill a frame on arrival and
/// outgrow it.
#[test]
fn rfc4303_section_2_trailer_and_icv_may_cross_or_begin_a_frame() {
    let mut bed = jumbo_bed(None, false);
    for frames in 1..=4 {
        let end = frames * FRAME_SIZE - START;
        for length in end - 24..end + 4 {
            crosses(&mut bed, length);
        }
    }
    assert!(all_free(&bed.a) && all_free(&bed.b));
    assert_eq!(bed.a.handle.counters.drops().count(), 0);
    assert_eq!(bed.b.handle.counters.drops().count(), 0);
}

/// Many at once: runs come back, and those that find none free are lost and counted at the port.
#[test]
fn bursts_of_jumbo_packets_leave_no_run_behind() {
    let mut bed = jumbo_bed(None, false);
    for round in 0..20 {
        for n in 0..30 {
            bed.a.host_sends(&packet(8000 + 10 * n + round));
        }
        bed.settle();
        assert_eq!(bed.b.delivered.len(), 30);
        bed.b.delivered.clear();
    }
    assert!(all_free(&bed.a) && all_free(&bed.b));
}

/// RFC 4301 section 8.2: from a jumbo network through a tunnel over an ordinary one.
#[test]
fn rfc4301_section_8_2_a_jumbo_packet_is_fragmented_before_a_narrow_tunnel() {
    let mut bed = Bed::with(Settings {
        runs: 64,
        inside_mtu: 9000,
        ..Settings::default()
    });
    bed.warm_up();
    let sent = without_df(&packet(9000));
    bed.a.host_sends(&sent);
    bed.settle();
    assert_eq!((bed.wire.len(), bed.b.delivered.len()), (7, 7));
    let mut payload = Vec::new();
    for delivered in &bed.b.delivered {
        let (header, body) = etherparse::Ipv4Header::from_slice(&delivered[14..]).unwrap();
        assert_eq!(header.fragment_offset.byte_offset() as usize, payload.len());
        payload.extend_from_slice(body);
    }
    assert_eq!(payload, sent[20..]);
    assert!(all_free(&bed.a) && all_free(&bed.b));

    // One that must not be fragmented is refused with an ICMP error (RFC 1191).
    bed.a.host_sends(&packet(9000));
    bed.settle();
    assert_eq!(bed.a.dropped(DropReason::TooBig), 1);
    assert_eq!(bed.a.delivered.len(), 1);
    assert!(all_free(&bed.a) && all_free(&bed.b));
}

/// Without runs long frames are the port's to count, and nothing else changes.
#[test]
fn a_pool_without_runs_refuses_jumbo_frames() {
    let mut bed = Bed::with(Settings {
        inside_mtu: 9000,
        outside_mtu: 9000,
        ..Settings::default()
    });
    bed.warm_up();
    bed.a.host_sends(&packet(4000));
    bed.settle();
    assert!(bed.wire.is_empty() && bed.b.delivered.is_empty());
    crosses(&mut bed, 1700);
    assert!(all_free(&bed.a) && all_free(&bed.b));
}

#[test]
fn rfc1191_section_4_what_would_go_into_more_fragments_than_we_make_is_told_of_though_df_is_clear()
{
    let mut bed = Bed::with(Settings {
        runs: 64,
        inside_mtu: 9216,
        outside_mtu: 1000,
        ..Settings::default()
    });
    bed.warm_up();
    bed.a.host_sends(&without_df(&packet(4000)));
    bed.settle();
    assert!(bed.wire.len() > 4, "in fragments");
    assert!(bed.a.delivered.is_empty());
    bed.wire.clear();
    bed.a.host_sends(&without_df(&packet(9000)));
    bed.settle();
    assert!(bed.wire.is_empty());
    assert_eq!(bed.a.dropped(DropReason::TooBig), 1);
    let [error] = bed.a.delivered.as_slice() else {
        panic!("told {} times", bed.a.delivered.len());
    };
    assert_eq!((error[23], &error[34..36]), (1, &[3, 4][..]));
    assert!(all_free(&bed.a));
}
