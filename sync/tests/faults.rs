//! What one fault must not do to the service: another configuration, a disk that refuses, hangs or is
//! slow, an end that comes while the other member is still joining.

mod cluster;

use std::time::Duration;

use cluster::{Disk, MILLISECOND, Weather, World};
use hitless_sa::MemberId;
use hitless_sync::{Degraded, Event, Input, Mutant, Role};

fn settled(seed: u64, members: u8, witness: bool) -> World {
    World::settled_with(seed, members, |settings| {
        if witness {
            settings.witness = Some(MemberId(3));
            settings.degraded = Degraded::Witness;
        }
    })
}

fn leads(world: &World, index: usize) -> bool {
    world.role(index) == Some(Role::Leading)
}

/// Dies, and comes back with another `[cluster]` section.
fn change_section(world: &mut World, index: usize) {
    world.crash(index);
    world.settings.config_hash = [8; 32];
    world.start(index);
}

#[test]
fn a_member_with_another_cluster_section_does_not_lead_beside_the_active() {
    for seed in 0..5 {
        let mut world = settled(seed, 2, false);
        change_section(&mut world, 1);
        assert!(!world.run_until(8_000, |world| leads(world, 1)), "{seed}");
        assert!(leads(&world, 0), "{seed}");
        let differs = |world: &World, who| world.status(who).unwrap().members[0].differs;
        assert!(differs(&world, 0) && differs(&world, 1), "{seed}");
        // It is there when the active is gone.
        world.crash(0);
        assert!(world.run_until(3_000, |world| leads(world, 1)), "{seed}");
        world.check().unwrap();
    }
}

#[test]
fn of_two_members_whose_cluster_sections_differ_one_leads_in_the_end() {
    for seed in 0..5 {
        let mut world = settled(seed, 2, false);
        world.exchanges = false;
        let (one, two) = (MemberId(1), MemberId(2));
        world.cut.extend([(one, two), (two, one)]);
        change_section(&mut world, 1);
        let both = |world: &World| leads(world, 0) && leads(world, 1);
        assert!(world.run_until(5_000, both), "{seed}");
        world.cut.clear();
        world.run(1_000);
        // Who has the tunnels.
        assert!(leads(&world, 0) && !leads(&world, 1), "{seed}");
        assert!(!world.run_until(5_000, both), "{seed}");
        world.check().unwrap();
    }
}

/// The newest lead of a member is on nothing but copies, none of which it may use.
fn leads_bare(world: &World, index: usize) -> bool {
    let (base, objects) = world.sites[index].leads.last().unwrap();
    let mut children = objects.iter().flat_map(|object| &object.children);
    base.is_none() && !objects.is_empty() && children.all(|child| child.rekey_only)
}

#[test]
fn r1_a_standby_that_cannot_write_leads_on_new_keys() {
    for (seed, disk) in [(1, Disk::Refuses), (2, Disk::Hangs), (3, Disk::Refuses)] {
        let mut world = settled(seed, 2, false);
        world.sites[1].writes = disk;
        world.crash(0);
        assert!(world.run_until(4_000, |world| leads(world, 1)), "{seed}");
        assert!(leads_bare(&world, 1), "{seed}");
        let packets = world.oracle.packets;
        world.run(1_000);
        assert!(world.oracle.packets > packets + 500, "{seed}");
        world.check().unwrap();
    }
}

#[test]
fn a_standby_that_cannot_write_does_not_keep_who_comes_back_from_the_service() {
    for (seed, disk) in [(1, Disk::Refuses), (2, Disk::Hangs), (3, Disk::Hangs)] {
        let mut world = settled(seed, 2, false);
        world.sites[1].writes = disk;
        world.crash(0);
        world.run(100);
        world.start(0);
        assert!(world.run_until(5_000, World::settled), "{seed}");
        let packets = world.oracle.packets;
        world.run(1_000);
        assert!(world.oracle.packets > packets + 500, "{seed}");
        world.check().unwrap();
    }
}

#[test]
fn a_disk_that_refuses_for_a_while_costs_no_right() {
    for seed in 1..4 {
        let mut world = settled(seed, 2, false);
        let base = world.status(0).unwrap().epoch;
        world.sites[1].writes = Disk::Refuses;
        world.crash(0);
        world.run(1_000);
        let ill = |world: &World| world.status(1).unwrap().unwritten_for;
        assert!(ill(&world) > Some(Duration::from_millis(800)), "{seed}");
        world.sites[1].writes = Disk::Works;
        assert!(world.run_until(1_000, |world| leads(world, 1)), "{seed}");
        assert_eq!(ill(&world), None, "{seed}");
        assert_eq!(world.sites[1].leads.last().unwrap().0, base, "{seed}");
        world.check().unwrap();
    }
}

/// The write that a standby gave up is done after all, before it hears the leader again that it took
/// for dead.
#[test]
fn r14_an_epoch_that_is_only_on_disk_ends_nobody_s_lead() {
    for seed in 1..6 {
        let mut world = settled(seed, 2, false);
        world.exchanges = false;
        let epoch = world.status(0).unwrap().epoch;
        let (one, two) = (MemberId(1), MemberId(2));
        world.sites[1].writes = Disk::Takes(2_600 * MILLISECOND);
        world.cut.extend([(one, two), (two, one)]);
        // It does not write, gives its right up, leads on nothing, and later its promise is on disk.
        world.run(3_000);
        let inherits = |(base, _): &(Option<_>, _)| base.is_some();
        assert!(!world.sites[1].leads.iter().any(inherits), "{seed}");
        assert_ne!(world.role(1), Some(Role::TakingOver), "{seed}");
        world.sites[1].writes = Disk::Works;
        world.cut.clear();
        for _ in 0..100 {
            world.run(20);
            assert!(leads(&world, 0), "{seed}: {epoch:?}");
        }
        assert!(world.run_until(5_000, World::settled), "{seed}");
        assert_eq!(world.leader(), Some(0), "{seed}");
        world.check().unwrap();
    }
}

/// (the slow disks, how slow)
const SLOW: [(&[usize], u64); 5] = [
    (&[1, 2], 150),
    (&[1, 2], 1_000),
    (&[1], 1_000),
    (&[2], 1_000),
    (&[2], 150),
];

#[test]
fn r10_slow_disks_cost_the_successor_no_right() {
    for witness in [false, true] {
        for (seed, (slow, time)) in SLOW.into_iter().enumerate() {
            let mut world = settled(seed as u64, 3, witness);
            let base = world.status(0).unwrap().epoch;
            for index in slow {
                world.sites[*index].writes = Disk::Takes(time * MILLISECOND);
            }
            world.crash(0);
            let story = format!("witness {witness}, {slow:?} take {time} ms");
            let succeeded = world.run_until(5_000, |world| world.leader().is_some());
            assert!(succeeded, "{story}");
            let leader = world.leader().unwrap();
            assert_eq!(world.sites[leader].leads.last().unwrap().0, base, "{story}");
            world.check().unwrap();
        }
    }
}

#[test]
fn r12_a_slow_disk_costs_a_leader_that_lost_its_standby_no_right() {
    for seed in 0..4 {
        let mut world = settled(seed, 3, true);
        let before = world.status(0).unwrap().epoch;
        for index in [0, 2] {
            world.sites[index].writes = Disk::Takes(300 * MILLISECOND);
        }
        world.crash(1);
        let elected = |world: &World| world.status(0).unwrap().epoch > before;
        assert!(world.run_until(1_200, elected), "{seed}");
        assert_eq!(world.sites[0].leads.len(), 1);
        world.check().unwrap();
    }
}

#[test]
fn who_is_about_to_end_waits_for_a_standby_that_is_joining() {
    for seed in 0..8 {
        let mut world = settled(seed, 2, false);
        world.crash(1);
        world.run(50);
        world.start(1);
        let role = [Role::Out, Role::Learning][seed as usize % 2];
        let joins = |world: &World| {
            let heard = world.status(0).unwrap().members[0].role;
            heard == Some(role) && world.role(1) == Some(role)
        };
        assert!(world.run_until(1_000, joins), "{seed}");
        let base = world.status(0).unwrap().epoch;
        world.handle(0, Input::Shutdown);
        assert!(world.run_until(1_500, |world| leads(world, 1)), "{seed}");
        assert_eq!(world.sites[1].leads.last().unwrap().0, base, "{seed}");
        world.check().unwrap();
    }
}

fn stopped(world: &World) -> bool {
    world.sites[0].events.contains(&Event::Stopped)
}

#[test]
fn who_is_about_to_end_waits_neither_for_nobody_nor_for_ever() {
    let mut world = settled(1, 2, false);
    world.crash(1);
    world.run(300);
    world.handle(0, Input::Shutdown);
    assert!(world.run_until(5, stopped));
    // One that has never tried all its copies.
    let mut world = settled(2, 2, false);
    let broken = std::collections::BTreeMap::new();
    world.handle(
        1,
        Input::Ready {
            ready: false,
            broken,
        },
    );
    world.run(50);
    world.handle(0, Input::Shutdown);
    assert!(!world.run_until(1_000, stopped));
    assert!(world.run_until(1_000, stopped));
    world.check().unwrap();
}

#[test]
fn with_slow_heartbeats_an_end_takes_no_longer_than_a_process_is_given() {
    for index in [0, 1] {
        let mut world = World::with(3, 2, Weather::CALM, |settings| {
            settings.heartbeat = Duration::from_secs(1);
            settings.vouch = Duration::from_secs(5);
            settings.hold = Duration::from_secs(4);
        });
        world.restarts = false;
        assert!(world.run_until(60_000, World::settled));
        let broken = std::collections::BTreeMap::new();
        let ready = false;
        world.handle(1, Input::Ready { ready, broken });
        world.run(3_000);
        if index == 1 {
            world.cut.insert((MemberId(1), MemberId(2)));
        }
        world.handle(index, Input::Shutdown);
        let ended = |world: &World| world.sites[index].events.contains(&Event::Stopped);
        assert!(world.run_until(6_500, ended), "member {}", index + 1);
        world.check().unwrap();
    }
}

/// Rights of the last reign, or none: what a disk that fails and recovers did to service and keys.
#[test]
fn a_cluster_whose_disks_fail_for_long_serves_again() {
    for seed in 0..40 {
        let mut world = World::new(seed, 2 + (seed % 2) as u8, Weather::CALM, Mutant::default());
        assert!(world.run_until(3_000, World::settled), "seed {seed}");
        let ill = world.random.below(world.sites.len() as u64) as usize;
        world.sites[ill].writes = match world.random.below(3) {
            0 => Disk::Hangs,
            1 => Disk::Refuses,
            _ => Disk::Takes(world.random.range(100, 3_000) * MILLISECOND),
        };
        let leader = world.leader().unwrap();
        let dies = if leader == ill {
            (ill + 1) % world.sites.len()
        } else {
            leader
        };
        world.crash(dies);
        let served = |world: &World| world.leader().is_some();
        world.run(400);
        assert!(world.run_until(9_000, served), "seed {seed}: nobody leads");
        world.run(500);
        let packets = world.oracle.packets;
        world.run(500);
        assert!(world.oracle.packets > packets, "seed {seed}: no packet");
        world
            .check()
            .unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}
