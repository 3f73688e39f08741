//! Reassembly: whatever the order, and whatever comes in between.

use std::sync::Arc;

use etherparse::{IpNumber, PacketBuilder};
use proptest::prelude::*;

use super::*;
use crate::counters::Counters;
use crate::fragment;
use crate::watch::Watch;

struct Bench {
    frames: Frames,
    reassembly: Reassembly,
}

fn at(seconds: u64) -> Instant {
    Instant::default() + Duration::from_secs(1000 + seconds)
}

/// A packet with ESP of so many octets, from a host of this number.
fn packet(v6: bool, host: u8, identification: u16, length: usize) -> Vec<u8> {
    let body: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
    let mut octets = Vec::new();
    match v6 {
        true => {
            let mut from = [0x20; 16];
            from[15] = host;
            PacketBuilder::ipv6(from, [0x30; 16], 9).write(&mut octets, IpNumber(50), &body)
        }
        false => PacketBuilder::ipv4([192, 0, 2, host], [192, 0, 2, 1], 9).write(
            &mut octets,
            IpNumber(50),
            &body,
        ),
    }
    .unwrap();
    if !v6 {
        octets[4..6].copy_from_slice(&identification.to_be_bytes());
        (octets[6], octets[7]) = (0, 0);
        mend_v4(&mut octets, 20, None).unwrap();
    }
    octets
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.reassembly
            .clear(&mut self.frames, DropReason::NotActive);
    }
}

impl Bench {
    fn new() -> Bench {
        Bench {
            frames: Frames {
                pool: Pool::new(256).unwrap(),
                counters: Arc::new(Counters::new(0)),
                watch: Watch::default(),
            },
            reassembly: Reassembly::new(),
        }
    }

    /// The fragments of a packet.
    fn split(&mut self, whole: &[u8], mtu: usize, identification: u32) -> Vec<Vec<u8>> {
        let packet = self.frames.pool.copy_in(&whole[..whole.len().min(1792)]);
        let mut packet = packet.unwrap();
        if whole.len() > 1792 {
            self.frames.pool.free(packet);
            packet = self
                .frames
                .pool
                .allocate_inbound(whole.len(), true)
                .unwrap();
            self.frames
                .pool
                .bytes_mut(&mut packet)
                .copy_from_slice(whole);
        }
        let parts = fragment::split_sent(&mut self.frames, packet, mtu, identification);
        let parts = parts.map_err(|(_, reason)| reason).unwrap();
        parts
            .into_iter()
            .map(|part| {
                let octets = self.frames.pool.bytes(&part).to_vec();
                self.frames.pool.free(part);
                octets
            })
            .collect()
    }

    fn give(&mut self, octets: &[u8], seconds: u64) -> Option<Vec<u8>> {
        let packet = self.frames.pool.copy_in(octets).unwrap();
        let whole = self.reassembly.take(&mut self.frames, at(seconds), packet);
        let octets = whole.map(|whole| {
            let octets = self.frames.pool.bytes(&whole).to_vec();
            self.frames.pool.free(whole);
            octets
        });
        assert_eq!(self.frames.pool.available() + self.reassembly.held(), 256);
        octets
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.frames.counters.dropped(reason)
    }
}

proptest! {
    #[test]
    fn rfc8200_section_4_5_the_whole_comes_back_in_any_order(
        v6: bool, length in 1400usize..1950, mtu in 576usize..1400, order in any::<prop::sample::Index>(),
        swap in any::<[prop::sample::Index; 4]>(),
    ) {
        let mut bench = Bench::new();
        let whole = packet(v6, 7, 9, length);
        let mut parts = bench.split(&whole, mtu, 0x0102_0304);
        let turn = order.index(parts.len());
        parts.rotate_left(turn);
        for pair in swap.chunks(2) {
            let (a, b) = (pair[0].index(parts.len()), pair[1].index(parts.len()));
            parts.swap(a, b);
        }
        let last = parts.len() - 1;
        for (index, part) in parts.iter().enumerate() {
            let got = bench.give(part, 0);
            prop_assert_eq!(got.is_some(), index == last);
            if let Some(got) = got {
                prop_assert_eq!(&got, &whole);
            }
        }
        prop_assert_eq!(bench.reassembly.held(), 0);
    }

    #[test]
    fn random_fragments_never_panic_nor_leak(
        v6: bool, pieces in prop::collection::vec((0u16..300, any::<bool>(), 0usize..200, 0u8..3), 1..60),
    ) {
        let mut bench = Bench::new();
        for (offset, more, length, host) in pieces {
            let whole = packet(v6, host, 1, length);
            let fragment = cut(&whole, offset * 8, more);
            bench.give(&fragment, 0);
        }
        bench.reassembly.clear(&mut bench.frames, DropReason::NotActive);
        prop_assert_eq!(bench.frames.pool.available(), 256);
    }
}

/// Makes a whole packet a fragment.
fn cut(whole: &[u8], position: u16, more: bool) -> Vec<u8> {
    let mut octets = whole.to_vec();
    if octets[0] >> 4 == 6 {
        let field = (position | u16::from(more)).to_be_bytes();
        let header = [octets[6], 0, field[0], field[1], 0, 0, 0, 1];
        octets.splice(40..40, header);
        octets[6] = ipv6::FRAGMENT;
        let payload = (octets.len() - 40) as u16;
        octets[4..6].copy_from_slice(&payload.to_be_bytes());
    } else {
        let field = ((position / 8) | (u16::from(more) << 13)).to_be_bytes();
        octets[6..8].copy_from_slice(&field);
        octets[10..12].fill(0);
        let sum = checksum(0, &octets[..20]);
        octets[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    octets
}

#[test]
fn rfc5722_section_4_what_overlaps_dies_with_all_that_still_comes_of_it() {
    for v6 in [false, true] {
        let piece = |position, length, more| cut(&packet(v6, 7, 9, length), position, more);
        // Each pair overlaps by an octet or more, at the start, at the end, inside, around.
        for (first, second) in [
            (piece(0, 80, true), piece(72, 80, true)),
            (piece(72, 80, true), piece(0, 80, true)),
            (piece(0, 160, true), piece(40, 8, true)),
            (piece(40, 8, true), piece(0, 160, true)),
            (piece(0, 80, true), piece(0, 88, true)),
            // Beyond an end, before what is there already, two different ends.
            (piece(80, 10, false), piece(96, 80, true)),
            (piece(96, 80, true), piece(80, 10, false)),
            (piece(80, 10, false), piece(160, 10, false)),
        ] {
            let mut bench = Bench::new();
            assert!(bench.give(&first, 0).is_none());
            assert!(bench.give(&second, 0).is_none());
            let beyond = bench.dropped(DropReason::FragmentTooLong);
            assert_eq!(bench.dropped(DropReason::FragmentOverlap) + beyond, 2);
            assert_eq!(bench.reassembly.held(), 0);
            // Not even what would complete it is taken any more.
            for part in [piece(0, 80, true), piece(80, 10, false)] {
                assert!(bench.give(&part, 1).is_none());
            }
            assert_eq!(bench.dropped(DropReason::FragmentOverlap) + beyond, 4);
            // Until it has been forgotten.
            for (part, done) in [(piece(0, 80, true), false), (piece(80, 10, false), true)] {
                assert_eq!(bench.give(&part, 61).is_some(), done);
            }
        }
    }
}

#[test]
fn rfc8200_section_4_5_an_exact_duplicate_does_no_harm_and_another_content_does() {
    let first = cut(&packet(true, 7, 9, 80), 0, true);
    let last = cut(&packet(true, 7, 9, 10), 80, false);
    let mut bench = Bench::new();
    assert!(bench.give(&first, 0).is_none());
    assert!(bench.give(&first, 0).is_none());
    assert_eq!(bench.dropped(DropReason::FragmentOverlap), 1);
    assert!(bench.give(&last, 0).is_some());
    let mut other = first.clone();
    *other.last_mut().unwrap() ^= 1;
    assert!(bench.give(&first, 0).is_none());
    assert!(bench.give(&other, 0).is_none());
    assert!(bench.give(&last, 0).is_none());
}

/// RFC 8200 section 4.5: a datagram has one end, and nothing is behind it.
#[test]
fn rfc8200_section_4_5_what_lies_behind_the_end_is_too_long_and_overlaps_nothing() {
    let first = cut(&packet(false, 7, 9, 80), 0, true);
    let last = cut(&packet(false, 7, 9, 10), 80, false);
    let far = cut(&packet(false, 7, 9, 80), 160, true);
    let longest = cut(&packet(false, 7, 9, 80), 65_440, true);
    for pair in [[&last, &far], [&far, &last], [&first, &longest]] {
        let mut bench = Bench::new();
        for part in pair {
            assert!(bench.give(part, 0).is_none());
        }
        assert_eq!(bench.dropped(DropReason::FragmentTooLong), 2);
        assert_eq!(bench.dropped(DropReason::FragmentOverlap), 0);
    }
}

#[test]
fn rfc1122_section_3_3_2_what_takes_too_long_is_given_up() {
    let mut bench = Bench::new();
    let (first, last) = (
        cut(&packet(false, 7, 9, 80), 0, true),
        cut(&packet(false, 7, 9, 10), 80, false),
    );
    bench.give(&first, 0);
    assert!(bench.give(&last, 59).is_some(), "in time");
    bench.give(&first, 100);
    bench.reassembly.tick(&mut bench.frames, at(159));
    assert_eq!(bench.reassembly.held(), 1);
    bench.reassembly.tick(&mut bench.frames, at(161));
    assert_eq!(bench.reassembly.held(), 0);
    assert_eq!(bench.dropped(DropReason::FragmentTimeout), 1);
    assert!(bench.give(&last, 162).is_none());
}

#[test]
fn a_flood_of_fragments_is_bounded_in_all_and_for_each_source() {
    let mut bench = Bench::new();
    for identification in 0..100 {
        bench.give(&cut(&packet(false, 7, identification, 80), 0, true), 0);
    }
    assert_eq!(bench.reassembly.held(), EACH_SOURCE);
    assert_eq!(bench.dropped(DropReason::FragmentLimit), 92);
    // The newest one has made room for itself.
    let last = cut(&packet(false, 7, 99, 10), 80, false);
    assert!(bench.give(&last, 0).is_some());
    bench.give(&cut(&packet(false, 7, 100, 80), 0, true), 0);
    // Others still get through, the oldest making room.
    for host in 8..=255 {
        bench.give(&cut(&packet(false, host, 1, 80), 0, true), 1);
        assert!(bench.reassembly.held() <= DATAGRAMS);
    }
    let honest = packet(false, 1, 77, 700);
    let parts = bench.split(&honest, 576, 0);
    assert!(bench.give(&parts[0], 2).is_none());
    assert_eq!(bench.give(&parts[1], 2), Some(honest));
    // Many small parts of one datagram.
    let mut bench = Bench::new();
    for n in 0..20 {
        bench.give(&cut(&packet(false, 7, 9, 8), n * 16, true), 0);
    }
    assert_eq!(bench.reassembly.held(), 0);
    assert_eq!(bench.dropped(DropReason::FragmentLimit), PARTS as u64 + 1);
    assert_eq!(bench.dropped(DropReason::FragmentOverlap), 11, "poisoned");
}

#[test]
fn held_fragments_make_room_for_an_honest_datagram_and_none_is_poisoned_for_it() {
    let mut bench = Bench::new();
    // One entry that overlapped and holds nothing, and as many fragments as there is room for: eight
    // datagrams of eight disjoint ones from each of two sources.
    bench.give(&cut(&packet(false, 5, 1, 80), 0, true), 0);
    bench.give(&cut(&packet(false, 5, 1, 80), 8, true), 0);
    for host in [6, 7] {
        for identification in 0..EACH_SOURCE as u16 {
            for part in 0..PARTS as u16 {
                bench.give(
                    &cut(&packet(false, host, identification, 8), part * 16, true),
                    1,
                );
            }
        }
    }
    assert_eq!(bench.reassembly.held(), HELD);
    // Honest ones come through one after the other, and at the same time.
    for identification in 0..20 {
        let honest = packet(false, 1, identification, 700);
        let parts = bench.split(&honest, 576, u32::from(identification));
        assert!(bench.give(&parts[0], 2).is_none());
        assert_eq!(
            bench.give(&parts[1], 2).map(|it| it.len()),
            Some(honest.len())
        );
    }
    for half in 0..2 {
        for host in 10..40 {
            let (position, length, more) = [(0, 80, true), (80, 10, false)][half];
            let part = cut(&packet(false, host, 9, length), position, more);
            assert_eq!(bench.give(&part, 3).is_some(), !more, "{host}");
            assert!(bench.reassembly.held() <= HELD);
        }
    }
    // The poison holds for all that.
    let overlapping = bench.dropped(DropReason::FragmentOverlap);
    bench.give(&cut(&packet(false, 5, 1, 10), 160, false), 3);
    assert_eq!(bench.dropped(DropReason::FragmentOverlap), overlapping + 1);
}

#[test]
fn what_is_no_fragment_of_anything_possible_is_refused() {
    let mut bench = Bench::new();
    for (position, length, more) in [
        (0, 81, true),
        (0, 0, true),
        (80, 0, false),
        (65_528, 80, false),
        (65_528, 8, true),
    ] {
        for v6 in [false, true] {
            assert!(
                bench
                    .give(&cut(&packet(v6, 7, 9, length), position, more), 0)
                    .is_none()
            );
        }
    }
    assert_eq!(bench.dropped(DropReason::Malformed), 10);
    // Larger than any packet that we could hold.
    bench.give(&cut(&packet(false, 7, 9, 800), 0, true), 0);
    bench.give(&cut(&packet(false, 7, 9, 800), 2000, true), 0);
    assert_eq!(bench.dropped(DropReason::FragmentTooLong), 2);
    assert_eq!(bench.reassembly.held(), 0);
}

#[test]
fn rfc3168_section_5_3_congestion_of_a_part_is_the_wholes() {
    for v6 in [false, true] {
        for (marks, expected) in [
            ([2, 2], Some(2)),
            ([2, 3], Some(3)),
            ([3, 2], Some(3)),
            ([1, 3], Some(3)),
            ([0, 0], Some(0)),
            ([0, 3], None),
            ([3, 0], None),
        ] {
            let mut bench = Bench::new();
            let mark = |length, ecn| {
                let mut whole = packet(v6, 7, 9, length);
                whole[1] |= if v6 { ecn << 4 } else { ecn };
                whole
            };
            bench.give(&cut(&mark(80, marks[0]), 0, true), 0);
            let whole = bench.give(&cut(&mark(10, marks[1]), 80, false), 0);
            let ecn = whole.map(|whole| match v6 {
                true => whole[1] >> 4 & 3,
                false => whole[1] & 3,
            });
            assert_eq!(ecn, expected, "{marks:?}");
            let dropped = bench.dropped(DropReason::Congestion);
            assert_eq!(dropped, if expected.is_none() { 2 } else { 0 });
        }
    }
}

#[test]
fn extension_headers_in_front_of_the_fragment_header_stay() {
    let mut bench = Bench::new();
    let fragment = |length, position, more| {
        let mut octets = cut(&packet(true, 7, 9, length), position, more);
        octets.splice(40..40, [ipv6::FRAGMENT, 0, 1, 4, 0, 0, 0, 0]);
        octets[6] = ipv6::HOP_BY_HOP;
        let payload = (octets.len() - 40) as u16;
        octets[4..6].copy_from_slice(&payload.to_be_bytes());
        octets
    };
    bench.give(&fragment(80, 0, true), 0);
    let whole = bench.give(&fragment(10, 80, false), 0).unwrap();
    let upper = Ipv6::parse(&whole).unwrap().upper().unwrap();
    assert_eq!(
        (upper.protocol, upper.offset, upper.fragment),
        (50, 48, None)
    );
    assert_eq!(whole.len(), 48 + 90);
}
