//! IKE fragmentation (RFC 7383) between two engines, and over a failover.

use hitless::ike::fragments::Fragmentation;
use hitless::ike::{Event, Input, Resume};

use crate::world::{A, B, Packet, SECOND, World, settings};

/// Next payload of the IKE header that announces an encrypted fragment.
const SKF: u8 = 53;
/// IP and UDP headers and the non-ESP marker.
const AROUND: usize = 32;

fn world(seed: u64, size: u16) -> World {
    let [a, b] = [A, B].map(|host| {
        let mut settings = settings(host);
        settings.connections[0].fragment_size = size;
        settings
    });
    World::new(seed, a, b)
}

pub fn established(seed: u64, size: u16) -> World {
    let mut world = world(seed, size);
    world.run(SECOND);
    world.assert_agreement(1);
    world
}

fn is_fragment(datagram: &[u8]) -> bool {
    datagram[16] == SKF
}

fn fragments(world: &World, host: usize) -> usize {
    let sent = world.hosts[host].sent.iter();
    sent.filter(|d| is_fragment(d)).count()
}

fn dropped(world: &World, host: usize, reason: &str) -> usize {
    let is = |e: &Event| matches!(e, Event::Dropped { reason: r, .. } if *r == reason);
    world.hosts[host].count(is)
}

/// RFC 7383 section 2.5: also before IKE_AUTH completes, and no datagram is longer than agreed.
#[test]
fn rfc7383_section_2_5_every_exchange_goes_in_fragments_of_the_size_that_is_set() {
    for size in [120, 150, 200] {
        let mut world = established(1, size);
        let (ike, sa) = (world.ike(A), world.sa(A).id);
        world.input(A, Input::RekeyChild(sa));
        world.run(2 * SECOND);
        world.input(B, Input::RekeyIke(world.ike(B)));
        world.run(2 * SECOND);
        world.assert_agreement(1);
        assert_ne!(world.ike(A), ike);
        for host in [A, B] {
            assert!(fragments(&world, host) >= 2, "{size}");
            let encrypted = world.hosts[host].sent.iter().filter(|d| d[18] != 34);
            for datagram in encrypted {
                assert!(datagram.len() + AROUND <= usize::from(size), "{size}");
            }
        }
    }
}

/// RFC 7383 section 2.3: only if both sides said so in IKE_SA_INIT.
#[test]
fn rfc7383_section_2_3_fragments_are_sent_only_if_both_sides_support_them() {
    for (ours, theirs, from_a, from_b) in [
        (Fragmentation::Yes, Fragmentation::Yes, true, true),
        (Fragmentation::Yes, Fragmentation::Accept, true, false),
        (Fragmentation::Accept, Fragmentation::Yes, false, true),
        (Fragmentation::Yes, Fragmentation::No, false, false),
        (Fragmentation::No, Fragmentation::Yes, false, false),
    ] {
        let [mut a, mut b] = [A, B].map(|host| {
            let mut settings = settings(host);
            settings.connections[0].fragment_size = 150;
            settings
        });
        a.connections[0].fragmentation = ours;
        b.connections[0].fragmentation = theirs;
        let mut world = World::new(2, a, b);
        world.run(SECOND);
        world.assert_agreement(1);
        let sent = (fragments(&world, A) > 0, fragments(&world, B) > 0);
        assert_eq!(sent, (from_a, from_b), "{ours:?} {theirs:?}");
    }
}

#[test]
fn rfc7383_lost_doubled_and_reordered_fragments_still_make_every_message() {
    for seed in 0..10 {
        let mut world = world(seed, 150);
        world.faults.loss = 120;
        world.faults.duplication = 200;
        world.faults.delay = SECOND / 20;
        world.run(60 * SECOND);
        world.faults = Default::default();
        world.run(60 * SECOND);
        world.assert_agreement(1);
        if let Some(ike) = world.ike_sas(B).first().copied() {
            world.faults.loss = 120;
            world.input(B, Input::RekeyIke(ike));
            world.run(60 * SECOND);
            world.faults = Default::default();
            world.run(60 * SECOND);
            world.assert_agreement(1);
        }
    }
}

/// The request of A's next rekeying, in fragments, and B's answer to them.
fn request(world: &mut World) -> Vec<Packet> {
    let sa = world.sa(A).id;
    world.input(A, Input::RekeyChild(sa));
    let packets = world.intercept();
    assert!(packets.len() > 2 && packets.iter().all(|p| is_fragment(&p.payload)));
    packets
}

/// RFC 7383 section 2.6.1: "respond only if the Fragment Number is 1"; and S4: byte for byte, also
/// by a member that took over.
#[test]
fn rfc7383_section_2_6_1_the_first_fragment_of_an_answered_request_brings_the_response_again() {
    for takeover in [false, true] {
        let mut world = established(3, 150);
        let packets = request(&mut world);
        let before = world.hosts[B].sent.len();
        for packet in &packets {
            world.deliver(packet);
        }
        let answer = world.hosts[B].sent[before..].to_vec();
        assert!(answer.len() > 1 && answer.iter().all(|d| is_fragment(d)));
        world.intercept();
        if takeover {
            world.fail_over(B, Resume::Exact);
            world.intercept();
        }
        for (index, packet) in packets.iter().enumerate() {
            let before = world.hosts[B].sent.len();
            world.deliver(packet);
            let again = &world.hosts[B].sent[before..];
            if index == 0 {
                assert_eq!(again, answer, "takeover: {takeover}");
            } else {
                assert!(again.is_empty());
            }
        }
    }
}

/// The request is sent again by whoever took over, fragment by fragment the same.
#[test]
fn rfc7383_an_outstanding_request_in_fragments_is_repeated_by_the_new_active_member() {
    let mut world = established(4, 150);
    let packets = request(&mut world);
    world.fail_over(A, Resume::Exact);
    let again = world.intercept();
    assert_eq!(
        again.iter().map(|p| &p.payload).collect::<Vec<_>>(),
        packets.iter().map(|p| &p.payload).collect::<Vec<_>>()
    );
    for packet in again {
        world.inject(packet);
    }
    world.run(2 * SECOND);
    world.assert_agreement(1);
}

/// A takeover between two fragments of a message: the sender repeats all of them.
#[test]
fn a_takeover_in_the_middle_of_a_message_costs_one_retransmission() {
    for taken in 1..3 {
        let mut world = established(5, 150);
        let packets = request(&mut world);
        for packet in packets.iter().take(taken) {
            world.deliver(packet);
        }
        world.fail_over(B, Resume::Exact);
        world.run(20 * SECOND);
        world.assert_agreement(1);
        assert_eq!(
            world.hosts[B].count(|e| matches!(e, Event::ChildRekeyed { .. })),
            1
        );
    }
}

/// RFC 7383 section 2.5.2: what stays unanswered is divided anew, with more fragments, and goes on
/// like that; the halves that arrived before are of no use then.
#[test]
fn rfc7383_section_2_5_2_unanswered_requests_are_sent_in_smaller_fragments() {
    // A path that loses all that is longer than 620 octets.
    let hybrid = "aes256gcm16-prfsha256-x25519-ke1_mlkem768";
    let [a, b] = [A, B].map(|host| {
        let mut settings = settings(host);
        settings.connections[0].proposals = vec![hybrid.parse().unwrap()];
        settings
    });
    let mut world = World::new(6, a, b);
    let end = world.now + 60 * SECOND;
    let mut lost = 0;
    while world.now < end {
        for packet in world.intercept() {
            let request = packet.to.ip() == crate::world::address(B);
            if request && packet.payload.len() + AROUND > 620 {
                lost += 1;
            } else {
                world.inject(packet);
            }
        }
        if !world.step(end) {
            break;
        }
    }
    world.assert_agreement(1);
    assert!(lost >= 3, "{lost}");
}

/// RFC 7383 section 2.6: nothing enters the reassembly before its integrity is verified, and what
/// enters is bounded.
#[test]
fn rfc7383_section_2_6_forged_fragments_change_nothing() {
    let mut world = established(7, 150);
    let packets = request(&mut world);
    world.deliver(&packets[0]);
    for (index, octet) in (28..40).chain([60, 100]).enumerate() {
        let mut forged = packets[1].clone();
        let octet = octet.min(forged.payload.len() - 1);
        forged.payload[octet] ^= 1 << (index % 8);
        world.deliver(&forged);
    }
    // Numbers that contradict each other, too many, none.
    for place in [[0, 0, 0, 0], [0, 0, 0, 3], [0, 4, 0, 3], [0, 1, 255, 255]] {
        let mut forged = packets[1].clone();
        forged.payload[32..36].copy_from_slice(&place);
        world.deliver(&forged);
    }
    assert!(dropped(&world, B, "too many fragments") >= 1);
    for packet in packets.iter().skip(1) {
        world.deliver(packet);
    }
    world.run(2 * SECOND);
    world.assert_agreement(1);
}

#[test]
fn rfc7383_section_2_6_replayed_fragments_of_a_message_under_way_are_dropped_before_decryption() {
    let mut world = established(8, 150);
    let packets = request(&mut world);
    world.deliver(&packets[0]);
    for _ in 0..5 {
        world.deliver(&packets[0]);
    }
    assert_eq!(dropped(&world, B, "fragment seen before"), 5);
}
