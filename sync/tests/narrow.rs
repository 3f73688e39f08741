//! A path that loses what is large: heartbeats arrive, and records do not. It is named.

mod cluster;

use cluster::World;
use cluster::intercept::{CHECKSUM, sealed};
use hitless_sa::MemberId;
use hitless_sync::{Event, Input};

const ONE: MemberId = MemberId(1);
const TWO: MemberId = MemberId(2);

fn told(world: &World) -> usize {
    let events = world.sites[0].events.iter();
    events
        .filter(|event| matches!(event, Event::NarrowPath { member: TWO, .. }))
        .count()
}

fn narrow(world: &World) -> Option<usize> {
    world.status(0).unwrap().members[0].narrow
}

/// Messages of more octets are lost on their way to 2.
fn run_narrow(world: &mut World, milliseconds: u64, most: usize) {
    for _ in 0..milliseconds {
        for packet in world.intercept(ONE, TWO, 1) {
            if packet.len() <= most {
                world.launch(ONE, TWO, packet, 200_000);
            }
        }
    }
}

/// A change of an IKE SA whose record takes so many octets.
fn commit(world: &mut World, octets: usize) {
    let change = world.sites[0].gateway.create();
    let commit = Input::Commit {
        object: change.object,
        version: change.version,
        body: Some(vec![0; octets].into()),
        children: Vec::new(),
    };
    // It is lost when it leaves first, whatever its size.
    world.cut.insert((ONE, TWO));
    world.handle(0, commit);
    world.cut.clear();
}

#[test]
fn a_path_that_loses_what_is_large_is_named_until_something_as_large_arrives() {
    // At any time between two heartbeats.
    for seed in 0..24 {
        let most = [1_200, 1_472][seed as usize % 2];
        let mut world = World::settled_with(seed, 2, |_| {});
        world.exchanges = false;
        run_narrow(&mut world, 500 + seed / 2, most);
        commit(&mut world, 400);
        run_narrow(&mut world, 500, most);
        assert_eq!((told(&world), narrow(&world)), (0, None));
        commit(&mut world, 1_600);
        run_narrow(&mut world, 1_000, most);
        assert_eq!(told(&world), 1);
        assert!(narrow(&world).is_some_and(|octets| octets > 1_600));
        // Heartbeats arrive: nobody takes the active for dead.
        assert_eq!(world.leader(), Some(0));
        assert!(world.status(0).unwrap().degraded);
        // The path is mended.
        world.run(100);
        assert_eq!((told(&world), narrow(&world)), (1, None));
        assert!(!world.status(0).unwrap().degraded);
    }
}

/// It takes everything, and acknowledges nothing: that is no matter of size.
#[test]
fn a_standby_that_does_not_acknowledge_is_not_taken_for_a_narrow_path() {
    let mut world = World::settled_with(8, 2, |_| {});
    world.exchanges = false;
    commit(&mut world, 4_000);
    // "Every record up to 1 is applied", in place of what it says.
    let mute = |packet: &[u8]| sealed(&[&packet[CHECKSUM..], &[0xf0, 1, 1]].concat());
    world.heard_as(TWO, ONE, 1_000, mute);
    assert!(world.status(0).unwrap().degraded);
    assert_eq!((told(&world), narrow(&world)), (0, None));
}

/// What counts is what the path has to carry, and not the record in it.
#[test]
fn a_limit_just_below_the_message_is_noticed_although_the_record_is_smaller() {
    let most = 1_472;
    let mut world = World::settled_with(9, 2, |_| {});
    world.exchanges = false;
    run_narrow(&mut world, 500, most);
    // Such messages as still pass, and one that is a few octets larger than the limit.
    for octets in (1_300..1_480).step_by(4) {
        commit(&mut world, octets);
        run_narrow(&mut world, 1_000, most);
        if told(&world) > 0 {
            let named = narrow(&world).unwrap();
            assert!((most + 1..most + 16).contains(&named), "{named}");
            return;
        }
        assert!(!world.status(0).unwrap().degraded, "{octets}");
    }
    panic!("nothing was lost");
}
