//! Lifetimes in time, octets and packets, and what becomes of them when a member dies.

use std::collections::BTreeSet;
use std::time::Duration;

use hitless::ike::sessions::{Lifetimes, Volume};
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
    carrying(seed, |lifetimes| {
        lifetimes.packets = Volume {
            rekey: 5000,
            life: 0,
            rand: 0,
        };
    })
}

/// A's child has limits of octets, and others.
fn carrying(seed: u64, change: impl Fn(&mut Lifetimes)) -> World {
    let mut a = settings(A);
    let lifetimes = &mut a.connections[0].children[0].lifetimes;
    lifetimes.bytes = Volume {
        rekey: 1_000_000,
        life: 1_100_000,
        rand: 100_000,
    };
    change(lifetimes);
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

/// The margin of chance: not two SAs at the same octet or packet, and none beyond the limit.
#[test]
fn rand_bytes_and_rand_packets_spread_the_rekeyings() {
    let packets = |lifetimes: &mut Lifetimes| {
        lifetimes.packets = Volume {
            rekey: 5000,
            life: 0,
            rand: 1000,
        };
    };
    let early = |seed: u64, bytes: u64, number: u64| {
        let mut world = carrying(seed, packets);
        carry(&mut world, bytes, number);
        world.run(SECOND);
        rekeyed(&world)
    };
    for (bytes, number) in [(950_000, 0), (0, 4500)] {
        let at_half: usize = (0..12).map(|seed| early(seed, bytes, number)).sum();
        assert!((1..12).contains(&at_half), "{at_half} of 12");
    }
    for seed in 0..12 {
        assert_eq!(early(seed, 899_999, 3999), 0);
        assert_eq!(early(seed, 1_000_000, 0), 1);
        assert_eq!(early(seed, 0, 5000), 1);
    }
}

/// When the Child SA and the IKE SA of A are to be replaced, as the chance of each seed has it.
fn due(change: impl Fn(&mut EngineSettings)) -> [Vec<Duration>; 2] {
    let mut due = [Vec::new(), Vec::new()];
    for seed in 0..24 {
        let mut a = settings(A);
        let connection = &mut a.connections[0];
        connection.rekey_time = SECOND * 1000;
        connection.children[0].rekey_time = SECOND * 1000;
        change(&mut a);
        let mut world = World::new(seed, a, settings(B));
        world.run(SECOND);
        let status = &world.hosts[A].engine.status(world.now)[0];
        let child = &status.children[0];
        let after = [child.rekeying_in, status.rekeying_in].map(|at| at.unwrap());
        due[0].push(after[0] + child.installed_ago);
        due[1].push(after[1] + status.established_ago.unwrap());
        // And so it is.
        let (ike, sa) = (world.ike(A), world.sa(A).id);
        world.run(after[0] - SECOND / 10);
        assert_eq!(world.sa(A).id, sa);
        world.run(SECOND);
        assert_ne!(world.sa(A).id, sa);
        world.run(after[1].saturating_sub(after[0]) + SECOND);
        assert_ne!(world.ike(A), ike);
    }
    due
}

#[test]
fn rand_time_spreads_the_rekeyings_and_is_a_tenth_where_nothing_is_said() {
    let spread = |due: [Vec<Duration>; 2], least: u32| {
        for due in due {
            let (first, last) = (due.iter().min().unwrap(), due.iter().max().unwrap());
            assert!(*first >= SECOND * least && *last <= SECOND * 1000);
            // Over the whole margin, and no two alike: very many SAs of one age do not come due in bursts.
            let margin = SECOND * (1000 - least);
            assert!(*last - *first > margin / 2, "{first:?} to {last:?}");
            let different: BTreeSet<&Duration> = due.iter().collect();
            assert_eq!(different.len(), due.len(), "{due:?}");
        }
    };
    spread(due(|_| {}), 900);
    let half = |a: &mut EngineSettings| {
        let connection = &mut a.connections[0];
        connection.session.rand_time = Some(SECOND * 500);
        connection.children[0].lifetimes.rand_time = Some(SECOND * 500);
    };
    spread(due(half), 500);
    let none = |a: &mut EngineSettings| {
        let connection = &mut a.connections[0];
        connection.session.rand_time = Some(Duration::ZERO);
        connection.children[0].lifetimes.rand_time = Some(Duration::ZERO);
    };
    for due in due(none) {
        assert!(due.iter().all(|after| *after == SECOND * 1000), "{due:?}");
    }
}

#[test]
fn a_child_sa_ends_after_life_bytes_or_life_packets_though_nothing_replaced_it() {
    let packets = |lifetimes: &mut Lifetimes| {
        lifetimes.packets = Volume {
            rekey: 0,
            life: 6000,
            rand: 0,
        };
    };
    for (bytes, number, ends) in [(1_100_000, 0, true), (0, 6000, true), (0, 5999, false)] {
        let mut world = carrying(5, packets);
        let sa = world.sa(A).id;
        carry(&mut world, bytes, number);
        world.run(SECOND / 2);
        assert_eq!(!world.hosts[A].sad.contains_key(&sa), ends);
        assert_eq!(rekeyed(&world), 0);
    }
}

/// The limits are the SA's: a successor neither draws lots again nor begins anew.
#[test]
fn limits_of_octets_and_of_time_fail_over() {
    let world = |host: usize, change: &dyn Fn(&mut Lifetimes)| {
        let mut ends = [settings(A), settings(B)];
        ends[A].connections[0].children[0].start = false;
        change(&mut ends[host].connections[0].children[0].lifetimes);
        let [a, b] = ends;
        let mut world = World::new(6, a, b);
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
        world
    };
    // Of whoever began it, and of the other.
    for host in [A, B] {
        let limit = |fail_over: bool| {
            let mut world = world(host, &|lifetimes| {
                lifetimes.bytes = Volume {
                    rekey: 1_000_000,
                    life: 1_100_000,
                    rand: 100_000,
                };
            });
            world.run(SECOND);
            if fail_over {
                world.fail_over(host, Resume::Exact);
            }
            let rekeyed = |e: &Event| matches!(e, Event::ChildRekeyed { .. });
            let mut bytes = 899_000;
            while world.hosts[host].count(rekeyed) == 0 {
                bytes += 1000;
                let (sa, packets) = (world.sa(host).id, 0);
                world.input(host, Input::Carried { sa, bytes, packets });
                world.run(SECOND / 10);
            }
            bytes
        };
        assert_eq!(limit(false), limit(true), "{host}");

        let mut world = world(host, &|lifetimes| {
            lifetimes.life_time = Some(SECOND * 100);
        });
        world.run(SECOND * 59);
        assert_eq!(world.hosts[host].sad.len(), 1);
        // A standby reads a record as it comes; here it is read late, so it has to be fresh.
        let ike = world.ike(host);
        world.input(host, Input::Liveness(ike));
        world.run(SECOND);
        world.fail_over(host, Resume::Exact);
        world.run(SECOND * 39);
        assert_eq!(world.hosts[host].sad.len(), 1, "not yet");
        world.run(SECOND * 3);
        let events = &world.hosts[host].events;
        assert_eq!(world.hosts[host].sad.len(), 0, "not later: {events:?}");
    }
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
