//! The ledger against a kernel that says anything.

use proptest::prelude::*;

use super::*;

fn descriptor(address: u64, length: u32) -> Descriptor {
    Descriptor {
        address,
        length,
        options: 0,
    }
}

/// Sends a packet of `length` octets, and gives its descriptors.
fn send(ledger: &mut Ledger, pool: &mut Pool, length: usize) -> Vec<Descriptor> {
    let packet = pool.copy_in(&vec![0; length]).unwrap();
    let parts = parts(&packet);
    ledger.transmit(packet, &parts);
    parts.to_vec()
}

#[test]
fn a_frame_comes_back_once() {
    let mut pool = Pool::new(4).unwrap();
    let mut ledger = Ledger::new(&pool);
    let sent = send(&mut ledger, &mut pool, 60);
    assert_eq!(sent, [descriptor(256, 60)]);
    ledger.fill(3);
    assert_eq!((ledger.receiving(), ledger.transmitting()), (1, 1));
    let place = Place {
        frame: 3,
        offset: 256,
        length: 60,
    };
    let received = descriptor(3 * 2048 + 256, 60);
    assert_eq!(ledger.received(received), Received::Packet(place));
    assert_eq!(ledger.received(received), Received::Unknown);
    assert_eq!(ledger.completed(3 * 2048), Completed::Unknown);
    assert_eq!(ledger.completed(100), Completed::Packet(0));
    assert_eq!(ledger.completed(100), Completed::Unknown);
    assert_eq!((ledger.receiving(), ledger.transmitting()), (0, 0));
}

/// No descriptor leaves its frame, together they are the packet, and all but the last continue.
#[test]
fn a_run_is_sent_frame_by_frame_and_held_until_the_last_is_back() {
    let mut pool = Pool::with_runs(3, 2).unwrap();
    let mut ledger = Ledger::new(&pool);
    for (length, count) in [(1793, 2), (3840, 2), (3841, 3), (9234, 5)] {
        let sent = send(&mut ledger, &mut pool, length);
        assert_eq!(sent.len(), count, "{length}");
        let mut next = 3 * 2048 + 256;
        for (index, part) in sent.iter().enumerate() {
            assert_eq!(part.address, next);
            assert!(part.address % 2048 + u64::from(part.length) <= 2048);
            let last = index + 1 == count;
            assert_eq!(part.options & libc::XDP_PKT_CONTD == 0, last);
            next += u64::from(part.length);
        }
        assert_eq!(next, 3 * 2048 + 256 + length as u64);
        for (index, part) in sent.iter().rev().enumerate() {
            assert_eq!(ledger.transmitting(), 1);
            let completed = ledger.completed(part.address);
            match index + 1 == count {
                false => assert_eq!(completed, Completed::Part),
                true => assert_eq!(completed, Completed::Packet(3)),
            }
        }
        assert_eq!(ledger.transmitting(), 0);
        let run = pool.reclaim(3, 0, 0);
        pool.free(run);
    }
}

#[test]
fn a_packet_that_leaves_its_frame_is_none() {
    let mut ledger = Ledger::new(&Pool::new(1).unwrap());
    for (length, good) in [(1792, true), (1793, false), (u32::MAX, false)] {
        ledger.fill(0);
        let received = ledger.received(descriptor(256, length));
        assert_eq!(matches!(received, Received::Packet(_)), good);
        assert_eq!(received == Received::Empty(0), !good);
    }
    assert_eq!(ledger.receiving(), 0);
}

proptest! {
    /// No kernel can make the ledger lose count, or place a packet outside its frame.
    #[test]
    fn whatever_the_kernel_says_the_count_is_exact(
        words in prop::collection::vec(
            (any::<bool>(), prop_oneof![0_u64..26 * 2048, any::<u64>()], any::<u32>()),
            0..96,
        ),
    ) {
        let mut pool = Pool::with_runs(16, 2).unwrap();
        let mut ledger = Ledger::new(&pool);
        for _ in 0..8 {
            send(&mut ledger, &mut pool, 60);
        }
        for _ in 0..2 {
            send(&mut ledger, &mut pool, 5000);
        }
        for frame in 8..16 {
            ledger.fill(frame);
        }
        let mut back = std::collections::BTreeSet::new();
        for (receive, address, length) in words {
            if receive {
                match ledger.received(descriptor(address, length % 4096)) {
                    Received::Packet(place) => {
                        prop_assert!(place.offset + place.length <= FRAME_SIZE);
                        prop_assert!((8..16).contains(&place.frame));
                        prop_assert!(back.insert(place.frame));
                    }
                    Received::Empty(frame) => prop_assert!(back.insert(frame)),
                    Received::Unknown => {}
                }
            } else if let Completed::Packet(frame) = ledger.completed(address) {
                prop_assert!(frame < 8 || frame == 16 || frame == 21);
                prop_assert!(back.insert(frame));
            }
        }
        let held = ledger.receiving() + ledger.transmitting();
        prop_assert_eq!(held + back.len(), 18);
    }
}
