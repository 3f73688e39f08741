//! Datagrams that no member wrote: they change nothing, and nothing panics (S7).

mod cluster;

use cluster::intercept::{CHECKSUM, sealed};
use cluster::random::Random;
use cluster::{Weather, World};
use hitless_sa::{Instant, MemberId};
use hitless_sync::{Event, Input, Mutant, Node, Output, Status};

/// A settled pair, and packets of every kind that one sent to the other.
fn pair(seed: u64) -> (World, Vec<(usize, Vec<u8>)>) {
    let mut world = World::new(seed, 2, Weather::CALM, Mutant::default());
    let mut packets = Vec::new();
    for (from, to) in [(1, 2), (2, 1)] {
        // From the first hello to grants, records, checkpoints and acknowledgements. What is
        // captured does not arrive: the copies of the other direction still do.
        for _ in 0..6 {
            world.run(17);
            let taken = world.intercept(MemberId(from), MemberId(to), 11);
            packets.extend(
                taken
                    .into_iter()
                    .map(|packet| (usize::from(to) - 1, packet)),
            );
        }
    }
    assert!(world.run_until(2_000, World::settled));
    packets.sort_by_key(|(_, packet)| packet.len());
    packets.dedup();
    (world, packets)
}

/// Feeds one datagram at a standstill of time; whether it changed anything.
fn changes(node: &mut Node, now: Instant, to: usize, payload: &[u8]) -> bool {
    let before = picture(node.status(now));
    let from = MemberId(if to == 0 { 2 } else { 1 });
    node.handle(now, &mut Random(1), Input::Datagram { from, payload });
    let mut acted = false;
    while let Some(output) = node.poll_output() {
        acted |= !matches!(output, Output::Event(Event::Malformed { .. }));
    }
    acted || picture(node.status(now)) != before
}

fn picture(status: Status) -> String {
    format!("{status:?}")
}

/// A node at rest: everything due has been done.
fn rest(world: &mut World, index: usize) -> (Instant, Node) {
    let mut node = world.sites[index].node.take().expect("it runs");
    let now = node.poll_timeout().expect("it beats");
    node.handle(now, &mut Random(1), Input::Timeout);
    while node.poll_output().is_some() {}
    (now, node)
}

/// Some packets of each direction, small and large.
fn samples(packets: Vec<(usize, Vec<u8>)>) -> Vec<(usize, Vec<u8>)> {
    let step = (packets.len() / 24).max(1);
    packets.into_iter().step_by(step).collect()
}

#[test]
fn truncated_flipped_and_random_datagrams_change_nothing() {
    let (mut world, packets) = pair(3);
    let packets = samples(packets);
    assert!(packets.len() >= 20);
    let mut nodes: Vec<_> = (0..2).map(|index| rest(&mut world, index)).collect();
    let mut random = Random(9);
    for (to, packet) in packets {
        let (now, node) = &mut nodes[to];
        for length in 0..packet.len() {
            assert!(
                !changes(node, *now, to, &packet[..length]),
                "cut to {length}"
            );
        }
        for bit in 0..packet.len() * 8 {
            let mut flipped = packet.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!changes(node, *now, to, &flipped), "bit {bit}");
        }
        for _ in 0..200 {
            let mut noise = vec![0; random.below(400) as usize];
            hitless_sa::Entropy::fill(&mut random, &mut noise);
            assert!(!changes(node, *now, to, &noise));
        }
    }
}

#[test]
fn a_lying_member_makes_no_member_panic() {
    for seed in 0..4 {
        let (mut world, packets) = pair(seed);
        let packets = samples(packets);
        let mut random = Random(seed);
        let mut nodes: Vec<_> = (0..2).map(|index| rest(&mut world, index)).collect();
        for round in 0..3_000 {
            let Some((to, packet)) = packets.get(random.below(packets.len() as u64) as usize)
            else {
                continue;
            };
            let mut body = packet[CHECKSUM..].to_vec();
            for _ in 0..random.range(1, 4) {
                let at = random.below(body.len() as u64) as usize;
                match random.below(3) {
                    0 => body[at] = random.next() as u8,
                    1 => body[at] = 0xff,
                    _ => body.truncate(at.max(1)),
                }
            }
            let (now, node) = &mut nodes[*to];
            *now += std::time::Duration::from_millis(round % 4);
            changes(node, *now, *to, &sealed(&body));
            node.handle(*now, &mut random, Input::Timeout);
            while let Some(output) = node.poll_output() {
                if let Output::Persist(_) = output {
                    node.handle(*now, &mut random, Input::Persisted);
                }
            }
        }
    }
}

#[test]
fn a_later_version_with_unknown_fields_is_understood() {
    let mut world = World::new(5, 2, Weather::CALM, Mutant::default());
    let (one, two) = (MemberId(1), MemberId(2));
    // From now on every packet of 1 comes from a later version: field 1 says 9, field 900 is new.
    for _ in 0..600 {
        for packet in world.intercept(one, two, 1) {
            let mut body = packet[CHECKSUM..].to_vec();
            body.extend_from_slice(&[0x08, 9, 0xa2, 0x38, 2, 1, 2]);
            world.launch(one, two, sealed(&body), 100_000);
        }
    }
    assert!(world.settled(), "{:?} {:?}", world.role(0), world.role(1));
    world.check().unwrap();
}

#[test]
fn strangers_and_other_configurations_are_not_heard() {
    let (mut world, packets) = pair(1);
    let (now, mut node) = rest(&mut world, 1);
    let (_, hello) = packets.into_iter().find(|(to, _)| *to == 1).unwrap();
    let before = picture(node.status(now));
    let stranger = Input::Datagram {
        from: MemberId(99),
        payload: &hello,
    };
    node.handle(now, &mut Random(1), stranger);
    let mut body = hello[CHECKSUM..].to_vec();
    let at = body
        .windows(32)
        .position(|octets| octets == [7; 32])
        .unwrap();
    body[at] = 8;
    let other = Input::Datagram {
        from: MemberId(1),
        payload: &sealed(&body),
    };
    node.handle(now, &mut Random(1), other);
    let mut events = Vec::new();
    while let Some(output) = node.poll_output() {
        match output {
            Output::Event(event) => events.push(event),
            other => panic!("{other:?}"),
        }
    }
    let expected = [
        Event::UnknownMember {
            member: MemberId(99),
        },
        Event::ConfigMismatch {
            member: MemberId(1),
        },
    ];
    assert_eq!(events, expected);
    // Nothing is taken from it but that it is there.
    let differs = before.replace("differs: false", "differs: true");
    assert_ne!(differs, before);
    assert_eq!(picture(node.status(now)), differs);
}
