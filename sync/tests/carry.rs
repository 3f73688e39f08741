//! The loss of one standby of several is no loss of another: its session, and its right, go on in the
//! epoch that its leader is re-elected in (`lease-holes` R10, R12).

mod cluster;

use cluster::World;
use hitless_sa::MemberId;
use hitless_sync::{Degraded, Event, Mutant, Role};

const ONE: MemberId = MemberId(1);
const TWO: MemberId = MemberId(2);
const THREE: MemberId = MemberId(3);

fn settled(seed: u64, members: u8, mutant: Mutant) -> World {
    World::settled_with(seed, members, |settings| settings.mutant = mutant)
}

fn sessions(world: &World, index: usize) -> usize {
    let opened = |event: &&Event| matches!(event, Event::SessionOpened { .. });
    world.sites[index].events.iter().filter(opened).count()
}

/// Of all members the last one is lost, and the leader is elected without it.
fn loses_one(world: &mut World) {
    let before = world.status(0).unwrap().epoch;
    world.crash(world.sites.len() - 1);
    let elected = |world: &World| world.status(0).unwrap().epoch > before;
    assert!(world.run_until(1_000, elected));
}

#[test]
fn r12_the_sessions_of_the_other_standbys_go_on() {
    for members in [3, 4, 5] {
        let mut world = settled(u64::from(members), members, Mutant::default());
        let others = 1..usize::from(members) - 1;
        let before: Vec<_> = others.clone().map(|one| sessions(&world, one)).collect();
        loses_one(&mut world);
        let epoch = world.status(0).unwrap().epoch;
        world.run(5);
        for one in others.clone() {
            let status = world.status(one).unwrap();
            assert_eq!((status.role, status.epoch), (Role::Admitted, epoch));
        }
        world.run(300);
        let after: Vec<_> = others.map(|one| sessions(&world, one)).collect();
        assert_eq!(after, before, "of {members}");
        let status = world.status(0).unwrap();
        let able = status.members.iter().filter(|member| member.able).count();
        assert_eq!((able, status.degraded), (usize::from(members) - 2, false));
        let packets = world.oracle.packets;
        world.run(200);
        assert!(world.oracle.packets > packets + 200, "of {members}");
        world.check().unwrap();
    }
}

#[test]
fn r12_a_leader_that_dies_soon_after_a_standby_is_succeeded_by_the_other() {
    for seed in 0..20 {
        let mut world = settled(seed, 3, Mutant::default());
        loses_one(&mut world);
        let epoch = world.status(0).unwrap().epoch;
        // It is there again, and has no copy yet.
        world.start(2);
        let told = |world: &World| world.status(1).unwrap().epoch == epoch;
        assert!(world.run_until(20, told), "seed {seed}");
        world.run(seed % 5);
        world.crash(0);
        let succeeded = world.run_until(150, |world| world.leader() == Some(1));
        assert!(succeeded, "seed {seed}: {:?}", world.sites[1].events);
        let (base, objects) = world.sites[1].leads.last().unwrap();
        assert_eq!(*base, epoch, "seed {seed}");
        assert!(objects.iter().all(|object| object.exact), "seed {seed}");
        let mut children = objects.iter().flat_map(|object| &object.children);
        assert!(children.all(|child| !child.rekey_only), "seed {seed}");
        world.run(300);
        world.check().unwrap();
    }
}

/// 1 is elected without 2, which has given it its vote all the same, and nobody hears 2.
fn dismissed(seed: u64, mutant: Mutant) -> Result<(), String> {
    // No SA that starves meanwhile is replaced by one that 2 has never heard of.
    let mut world = World::settled_with(seed, 3, |settings| {
        settings.degraded = Degraded::Strict;
        settings.mutant = mutant;
    });
    world.exchanges = false;
    let before = world.status(0).unwrap().epoch;
    world.cut.extend([(TWO, ONE), (TWO, THREE)]);
    let elected = |world: &World| world.status(0).unwrap().epoch > before;
    assert!(world.run_until(1_000, elected), "seed {seed}");
    world.run(20);
    let voted = world.sites[1].disk.promised > before;
    assert!(voted, "seed {seed}");
    world.check()?;
    // Then 1 is not heard any more.
    world.cut.clear();
    world.cut.extend([(ONE, TWO), (ONE, THREE)]);
    world.run(600);
    world.check()
}

#[test]
fn r12_who_has_voted_has_no_right_before_it_is_told_that_its_session_goes_on() {
    let mutant = Mutant {
        carries_itself: true,
        ..Mutant::default()
    };
    for seed in 0..20 {
        dismissed(seed, Mutant::default()).unwrap();
    }
    let found = (0..20).filter_map(|seed| dismissed(seed, mutant).err());
    let found: Vec<_> = found.collect();
    assert!(found.iter().any(|what| what.starts_with('S')), "{found:?}");
}
