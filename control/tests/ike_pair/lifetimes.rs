//! Lifetimes in time, octets and packets, and what becomes of them when a member dies.

use std::time::Duration;

use hitless::ike::sessions::Volume;
use hitless::ike::settings::EngineSettings;
use hitless::ike::{Event, Input, Resume};

use crate::world::{A, B, SECOND, World, settings};

fn with(change: impl Fn(&mut EngineSettings)) -> World {
    let mut a = settings(A);
    change(&mut a);
    let mut world = World::new(3, a, settings(B));
    world.run(SECOND);
    world.assert_agreement(1);
    world
}

fn limited(seed: u64) -> World {
    let mut a = settings(A);
    let lifetimes = &mut a.connections[0].children[0].lifetimes;
    lifetimes.bytes = Volume {
        rekey: 1_000_000,
        life: 1_100_000,
        rand: 100_000,
    };
    lifetimes.packets = Volume {
        rekey: 5000,
        life: 0,
        rand: 0,
    };
    let mut world = World::new(seed, a, settings(B));
    world.run(SECOND);
    world.assert_agreement(1);
    world
}

fn carry(world: &mut World, bytes: u64, packets: u64) {
    let sa = world.sa(A).id;
    world.input(A, Input::Carried { sa, bytes, packets });
}

fn rekeyed(world: &World) -> usize {
    world.hosts[A].count(|e| matches!(e, Event::ChildRekeyed { .. }))
}

#[test]
fn a_child_sa_is_replaced_after_its_octets_and_its_packets() {
    let mut world = limited(4);
    let first = world.sa(A).id;
    carry(&mut world, 899_999, 4999);
    world.run(SECOND);
    assert_eq!((rekeyed(&world), world.sa(A).id), (0, first));
    carry(&mut world, 1_000_000, 4999);
    world.run(SECOND);
    world.assert_agreement(1);
    assert_eq!(rekeyed(&world), 1);
    // The successor counts from nothing, and has other limits of its own.
    let second = world.sa(A).id;
    assert_ne!(first, second);
    carry(&mut world, 10, 5000);
    world.run(SECOND);
    world.assert_agreement(1);
    assert_eq!(rekeyed(&world), 2);
}

/// The margin of chance: not two SAs at the same octet, and none beyond the limit.
#[test]
fn rand_bytes_spread_the_rekeyings() {
    let early = |seed: u64, bytes: u64| {
        let mut world = limited(seed);
        carry(&mut world, bytes, 0);
        world.run(SECOND);
        rekeyed(&world)
    };
    let at_half: usize = (0..12).map(|seed| early(seed, 950_000)).sum();
    assert!((1..12).contains(&at_half), "{at_half} of 12");
    assert_eq!(early(1, 899_999), 0);
}

#[test]
fn a_child_sa_ends_after_life_bytes_though_nothing_replaced_it() {
    let mut world = limited(5);
    let sa = world.sa(A).id;
    world.hosts[A].settings.connections[0].children[0].start = false;
    carry(&mut world, 1_100_000, 0);
    world.run(SECOND / 2);
    assert!(!world.hosts[A].sad.contains_key(&sa));
    assert_eq!(rekeyed(&world), 0);
}

/// The limits are the SA's: a successor neither draws lots again nor begins anew.
#[test]
fn limits_of_octets_and_of_time_fail_over() {
    let limit = |fail_over: bool| {
        let mut world = limited(6);
        if fail_over {
            world.fail_over(A, Resume::Exact);
        }
        let mut bytes = 899_000;
        while rekeyed(&world) == 0 {
            bytes += 1000;
            carry(&mut world, bytes, 0);
            world.run(SECOND / 10);
        }
        bytes
    };
    assert_eq!(limit(false), limit(true));

    let mut a = settings(A);
    let child = &mut a.connections[0].children[0];
    child.lifetimes.life_time = Some(SECOND * 100);
    child.start = false;
    let mut world = World::new(3, a, settings(B));
    world.run(SECOND);
    // Nothing starts by itself here.
    assert!(world.hosts[A].sad.is_empty());
    world.input(
        A,
        Input::Initiate {
            connection: "peer".to_owned(),
            child: None,
        },
    );
    world.run(SECOND * 59);
    assert_eq!(world.hosts[A].sad.len(), 1);
    // A standby reads a record as it comes; here it is read late, so it has to be fresh.
    let ike = world.ike(A);
    world.input(A, Input::Liveness(ike));
    world.run(SECOND);
    world.fail_over(A, Resume::Exact);
    world.run(SECOND * 39);
    assert_eq!(world.hosts[A].sad.len(), 1, "not yet");
    world.run(SECOND * 3);
    assert_eq!(
        world.hosts[A].sad.len(),
        0,
        "and not later: {:?}",
        world.hosts[A].events
    );
}

/// A's IKE SA is to be rekeyed after 100 s, and ends 10 s later if it was not.
fn bounded() -> World {
    with(|a| {
        let connection = &mut a.connections[0];
        connection.rekey_time = SECOND * 100;
        connection.session.over_time = Some(SECOND * 10);
        connection.session.rand_time = Some(Duration::ZERO);
    })
}

#[test]
fn a_rekeyed_ike_sa_has_a_time_of_its_own() {
    let mut world = bounded();
    let old = world.ike(A);
    world.run(SECOND * 98);
    assert_eq!(world.ike(A), old, "without chance it is not early");
    world.run(SECOND * 3);
    let new = world.ike(A);
    assert_ne!(new, old);
    world.assert_agreement(1);
    world.run(SECOND * 90);
    assert_eq!(world.ike(A), new);
}

/// The peer refuses every rekeying, and answers all else.
#[test]
fn over_time_ends_an_ike_sa_that_could_not_be_rekeyed_though_a_member_died() {
    for fail_over in [None, Some(50), Some(105)] {
        let mut world = bounded();
        let (old, theirs) = (world.ike(A), world.ike(B));
        let refusal = "aes256gcm16-prfsha384-ecp384".parse().unwrap();
        world.hosts[B].settings.connections[0].proposals = vec![refusal];
        world.fail_over(B, Resume::Exact);
        let mut left = 108;
        if let Some(at) = fail_over {
            world.run(SECOND * (at - 1));
            // A standby reads a record as it comes; here it is read late, so it has to be fresh.
            world.input(A, Input::Liveness(old));
            world.run(SECOND);
            world.fail_over(A, Resume::Exact);
            left -= at;
        }
        world.run(SECOND * left);
        assert_eq!(world.ike(A), old, "{fail_over:?}: not yet");
        world.run(SECOND * 3);
        let ended = |e: &Event| matches!(e, Event::IkeDeleted { ike, .. } if *ike == old);
        assert!(world.hosts[A].saw(ended), "{fail_over:?}: and not later");
        assert!(!world.ike_sas(B).contains(&theirs));
    }
}
