//! Frames from an enemy, on either side: no panic, no lost frame, no number used or delivered twice,
//! and honest traffic goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use hitless_dataplane::verdict::DropReason;

use crate::bed::*;

/// A valid frame of some kind for gateway B, to be spoilt.
fn seed(bed: &mut Bed, kind: u8) -> Vec<u8> {
    let to_b = |packet: &[u8]| frame([2, 0, 0, 0, 2, 2], [2, 0, 0, 0, 9, 9], packet);
    match kind {
        0 => {
            let esp = bed.seal(&udp(HOST_A, HOST_B, &[0x5e; 40]));
            to_b(&esp)
        }
        1 => to_b(&udp_ports(OUTSIDE_A, OUTSIDE_B, 4500, 4500, &[0xbb; 60])),
        2 => to_b(&udp_ports(OUTSIDE_A, OUTSIDE_B, 500, 500, b"IKE message")),
        3 => to_b(&echo([192, 0, 2, 99], OUTSIDE_B)),
        4 => to_b(&udp(HOST_A, HOST_B, b"clear")),
        5 => arp(
            1,
            [2, 0, 0, 0, 9, 9],
            [192, 0, 2, 99],
            &[&[0; 6][..], &OUTSIDE_B].concat(),
        ),
        6 => arp(
            2,
            [2, 0, 0, 0, 9, 9],
            [192, 0, 2, 98],
            &[&[2, 0, 0, 0, 2, 2][..], &OUTSIDE_B].concat(),
        ),
        _ => to_b(&raw(OUTSIDE_A, OUTSIDE_B, 50, &[0xbb; 5])),
    }
}

/// Makes the IPv4 header checksum right again, so that damage reaches deeper.
fn mend(frame: &mut [u8]) {
    if frame.len() >= 34 && frame[12..14] == [8, 0] {
        let length = usize::from(frame[14] & 0xf).max(5) * 4;
        if let Some(header) = frame.get_mut(14..14 + length) {
            header[10..12].fill(0);
            let sum = hitless_dataplane::wire::checksum(0, header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

fn still_works(bed: &mut Bed) -> Result<(), TestCaseError> {
    bed.advance(Duration::from_secs(10));
    let _ = drain(&mut bed.b.handle.punt);
    bed.a.delivered.clear();
    bed.b.delivered.clear();
    // Neighbours may have been poisoned by forged ARP, which has no protection: put that right.
    let honest = arp(
        2,
        [2, 0, 0, 0, 1, 2],
        OUTSIDE_A,
        &[&[2, 0, 0, 0, 2, 2][..], &OUTSIDE_B].concat(),
    );
    bed.b.wire.push_frame(&honest);
    // Before B sends: it reads what hosts send first.
    bed.settle();
    bed.a.host_sends(&udp(HOST_A, HOST_B, b"honest"));
    bed.b.host_sends(&udp(HOST_B, HOST_A, b"honest"));
    bed.settle();
    prop_assert_eq!(bed.b.delivered.len(), 1);
    prop_assert_eq!(bed.a.delivered.len(), 1);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn random_frames_on_either_side(frames: Vec<(bool, Vec<u8>)>) {
        let mut bed = Bed::new();
        bed.warm_up();
        for (inside, octets) in frames {
            let port = if inside { &mut bed.b.host } else { &mut bed.b.wire };
            port.push_frame(&octets);
            bed.settle();
        }
        prop_assert!(bed.b.delivered.is_empty());
        still_works(&mut bed)?;
    }

    #[test]
    fn valid_frames_with_octets_changed_and_ends_cut(
        frames in prop::collection::vec(
            (0u8..8, prop::collection::vec((any::<Index>(), any::<u8>()), 0..4), any::<Index>(), any::<bool>()),
            1..24,
        ),
    ) {
        let mut bed = Bed::new();
        bed.warm_up();
        let mut seals = 0;
        for (kind, changes, cut, whole) in frames {
            let mut octets = seed(&mut bed, kind);
            seals += usize::from(kind == 0);
            for (at, value) in changes {
                let at = at.index(octets.len());
                octets[at] = value;
            }
            mend(&mut octets);
            if !whole {
                octets.truncate(cut.index(octets.len()));
            }
            // Twice, so that every authentic one is also a replay.
            bed.b.wire.push_frame(&octets);
            bed.b.wire.push_frame(&octets);
            bed.settle();
        }
        prop_assert!(bed.b.delivered.len() <= seals, "delivered more than was sealed");
        still_works(&mut bed)?;
    }

    #[test]
    fn duplicated_and_reordered_packets_are_delivered_once_each(
        order in prop::collection::vec(any::<Index>(), 1..150), raise_at in 0u64..40,
    ) {
        let mut bed = Bed::new();
        bed.warm_up();
        let high_water = hitless_sa::Lease {
            high_water: hitless_sa::SequenceNumber(raise_at),
            ..PLENTY
        };
        bed.install(PLENTY, high_water);
        bed.settle();
        let sealed: Vec<_> = (0..40u8).map(|n| bed.seal(&udp(HOST_A, HOST_B, &[n]))).collect();
        let mut sent = BTreeSet::new();
        for index in &order {
            let n = index.index(sealed.len());
            sent.insert(n as u8);
            bed.b.wire_brings(&sealed[n]);
            bed.settle();
        }
        bed.b.cell.raise(PLENTY);
        bed.settle();
        let mut delivered: Vec<u8> = bed.b.delivered.iter().map(|frame| frame[42]).collect();
        delivered.sort_unstable();
        prop_assert_eq!(delivered, sent.iter().copied().collect::<Vec<u8>>());
        prop_assert_eq!(bed.b.dropped(DropReason::Replay), (order.len() - sent.len()) as u64);
    }
}
