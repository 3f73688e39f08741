//! Frames, runs, and packets that move between them.

use proptest::prelude::*;

use super::*;

/// `length` octets that tell a packet from others.
fn octets(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8 ^ seed).collect()
}

#[test]
fn a_packet_takes_a_frame_if_it_fits_and_a_run_if_not() {
    let mut pool = Pool::with_runs(2, 2).unwrap();
    assert_eq!((pool.packets(), pool.available()), (4, 4));
    for (length, run) in [(0, false), (1792, false), (1793, true), (9984, true)] {
        let packet = pool.copy_in(&octets(length, 1)).unwrap();
        assert_eq!(packet.is_run(), run, "{length}");
        assert_eq!(pool.bytes(&packet), octets(length, 1));
        assert_eq!(packet.headroom(), HEADROOM);
        let room = if run { RUN_SIZE } else { FRAME_SIZE };
        assert_eq!(packet.tailroom(), room - HEADROOM - length);
        assert_eq!(pool.available(), 3);
        pool.free(packet);
    }
    assert!(pool.copy_in(&octets(9985, 1)).is_none());
    assert_eq!((pool.available(), pool.available_frames()), (4, 2));
}

#[test]
fn without_runs_long_packets_find_no_room_and_cost_nothing() {
    let mut pool = Pool::new(2).unwrap();
    assert!(pool.copy_in(&octets(1793, 1)).is_none());
    let mut packet = pool.copy_in(&octets(1792, 1)).unwrap();
    assert!(!pool.append(&mut packet, 1));
    assert_eq!(pool.bytes(&packet), octets(1792, 1));
    pool.free(packet);
    assert_eq!((pool.available(), pool.largest_packet()), (2, 1792));
}

/// ESP's trailer and ICV behind a packet that fills its frame.
#[test]
fn a_packet_that_outgrows_its_frame_moves_into_a_run() {
    let mut pool = Pool::with_runs(1, 1).unwrap();
    let mut packet = pool.copy_in(&octets(1790, 3)).unwrap();
    assert!(pool.append(&mut packet, 2));
    assert!(!packet.is_run());
    assert!(pool.append(&mut packet, 20) && packet.is_run());
    assert_eq!(pool.bytes(&packet)[..1790], octets(1790, 3));
    assert_eq!((packet.len(), packet.headroom()), (1812, HEADROOM));
    assert_eq!((pool.available(), pool.available_frames()), (1, 1));
    assert!(!pool.append(&mut packet, RUN_SIZE));
    pool.free(packet);

    // The last run is in use: the packet stays what it was.
    let run = pool.allocate_run().unwrap();
    let mut packet = pool.copy_in(&octets(1790, 3)).unwrap();
    assert!(!pool.append(&mut packet, 3));
    assert_eq!(pool.bytes(&packet), octets(1790, 3));
    pool.free(packet);
    pool.free(run);
    assert_eq!(pool.available(), 2);
}

#[test]
fn the_frames_of_a_run_are_known_by_its_first() {
    let pool = Pool::with_runs(7, 3).unwrap();
    assert_eq!(pool.frames_in_all(), 22);
    let firsts: Vec<_> = (5..14).map(|frame| pool.first_of_run(frame)).collect();
    let (one, two) = (Some(7), Some(12));
    assert_eq!(
        firsts,
        [None, None, one, one, one, one, one, two, two],
        "runs start behind the frames"
    );
}

/// Two tokens of one frame would be two owners of its octets.
#[test]
#[should_panic(expected = "a packet of another pool")]
fn a_packet_is_not_freed_into_another_pool() {
    let (mut pool, mut other) = (Pool::new(1).unwrap(), Pool::new(1).unwrap());
    let packet = pool.allocate().unwrap();
    other.free(packet);
}

#[test]
#[should_panic(expected = "first == frame")]
fn a_run_is_not_reclaimed_by_its_middle() {
    let mut pool = Pool::with_runs(1, 1).unwrap();
    let first = pool.allocate_run().unwrap().into_frame();
    let _ = pool.reclaim(first + 1, 0, 0);
}

fn release(pool: &mut Pool, packets: Vec<Packet>) {
    packets.into_iter().for_each(|packet| pool.free(packet));
    assert_eq!(pool.available(), pool.frames());
}

#[test]
fn the_octets_of_many_packets_are_written_at_once_and_stay_apart() {
    let mut pool = Pool::new(4).unwrap();
    let sizes = [FRAME_SIZE - HEADROOM, 0, 7];
    let mut packets: Vec<_> = sizes
        .iter()
        .map(|&size| pool.copy_in(&vec![0xee; size]).unwrap())
        .collect();
    assert!(pool.trim_front(&mut packets[2], 2));
    let tagged = packets.iter_mut().zip(1u8..);
    let all: Vec<_> = pool.each_bytes_mut(tagged).collect();
    for (octets, value) in all {
        octets.fill(value);
    }
    for (packet, value) in packets.iter().zip(1u8..) {
        assert!(pool.bytes(packet).iter().all(|&octet| octet == value));
    }
    let lengths: Vec<_> = packets.iter().map(Packet::len).collect();
    assert_eq!(lengths, [FRAME_SIZE - HEADROOM, 0, 5]);
    release(&mut pool, packets);
}

#[test]
#[should_panic(expected = "a packet of another pool")]
fn a_packet_of_another_pool_is_refused() {
    let (mut pool, mut other) = (Pool::new(1).unwrap(), Pool::new(1).unwrap());
    let (mut own, mut foreign) = (pool.allocate().unwrap(), other.allocate().unwrap());
    let both = [(&mut own, ()), (&mut foreign, ())];
    let slices = pool.each_bytes_mut(both.into_iter()).count();
    assert_eq!(slices, 2, "not reached");
}

#[derive(Clone, Debug)]
enum Step {
    Take(usize),
    Free(usize),
    Append(usize, usize),
    Prepend(usize, usize),
    TrimFront(usize, usize),
    Truncate(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = || prop_oneof![0_usize..300, 1700_usize..2100, 0_usize..11_000];
    let which = || 0_usize..8;
    let step = prop_oneof![
        length().prop_map(Step::Take),
        which().prop_map(Step::Free),
        (which(), length()).prop_map(|(which, n)| Step::Append(which, n)),
        (which(), 0_usize..300).prop_map(|(which, n)| Step::Prepend(which, n)),
        (which(), length()).prop_map(|(which, n)| Step::TrimFront(which, n)),
        (which(), length()).prop_map(|(which, n)| Step::Truncate(which, n)),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// Against plain vectors: no operation touches another packet, and every frame is somewhere.
    #[test]
    fn packets_are_vectors_that_do_not_overlap(steps in steps()) {
        let mut pool = Pool::with_runs(3, 3).unwrap();
        let mut held: Vec<(Packet, Vec<u8>)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            let seed = number as u8;
            match step {
                Step::Take(length) => {
                    let content = octets(length, seed);
                    if let Some(packet) = pool.copy_in(&content) {
                        held.push((packet, content));
                    }
                }
                Step::Free(which) if which < held.len() => pool.free(held.swap_remove(which).0),
                Step::Append(which, count) if which < held.len() => {
                    let (packet, content) = &mut held[which];
                    if pool.append(packet, count) {
                        let old = content.len();
                        content.extend(octets(count, seed));
                        pool.bytes_mut(packet)[old..].copy_from_slice(&content[old..]);
                    }
                }
                Step::Prepend(which, count) if which < held.len() => {
                    let (packet, content) = &mut held[which];
                    if pool.prepend(packet, count) {
                        content.splice(..0, octets(count, seed));
                        pool.bytes_mut(packet)[..count].copy_from_slice(&content[..count]);
                    }
                }
                Step::TrimFront(which, count) if which < held.len() => {
                    let (packet, content) = &mut held[which];
                    if pool.trim_front(packet, count) {
                        content.drain(..count);
                    }
                }
                Step::Truncate(which, length) if which < held.len() => {
                    let (packet, content) = &mut held[which];
                    if pool.truncate(packet, length) {
                        content.truncate(length);
                    }
                }
                _ => {}
            }
            prop_assert_eq!(pool.available() + held.len(), pool.packets());
            for (packet, content) in &held {
                prop_assert_eq!(pool.bytes(packet), &content[..]);
            }
        }
        for (packet, _) in held {
            pool.free(packet);
        }
        prop_assert_eq!(pool.available(), 6);
    }
}
