//! One successor for each epoch, and none before it is over: what goes wrong if ends are sent too soon,
//! if what was ended is used on, and if who was dismissed is elected (`lease-holes` A3, A4, A9, R14).

mod cluster;

use cluster::{Weather, World};
use hitless_sa::MemberId;
use hitless_sync::{Input, Mutant, Role};

const ONE: MemberId = MemberId(1);
const TWO: MemberId = MemberId(2);
const THREE: MemberId = MemberId(3);

fn settled(seed: u64, members: u8, mutant: Mutant) -> World {
    let mut world = World::new(seed, members, Weather::CALM, mutant);
    world.restarts = false;
    assert!(world.run_until(3_000, World::settled), "seed {seed}");
    world.run(200);
    assert_eq!(world.leader(), Some(0), "seed {seed}");
    world
}

fn cut(world: &mut World, one: MemberId, other: MemberId) {
    world.cut.extend([(one, other), (other, one)]);
}

/// Nobody repeats a number with every rule in place; without this one it is found out, as that.
fn proves(mutant: Mutant, kinds: &[&str], story: impl Fn(u64, Mutant) -> Result<(), String>) {
    for seed in 0..20 {
        story(seed, Mutant::default()).unwrap();
    }
    let found: Vec<_> = (0..20)
        .filter_map(|seed| story(seed, mutant).err())
        .collect();
    let right = |what: &&String| kinds.iter().any(|kind| what.starts_with(kind));
    assert!(
        found.iter().filter(right).count() > 0,
        "{mutant:?}: {found:?}"
    );
}

#[test]
fn a4_a_final_before_the_step_down_is_found_out() {
    let mutant = Mutant {
        final_before_step_down: true,
        ..Mutant::default()
    };
    proves(mutant, &["S1"], |seed, mutant| {
        let mut world = settled(seed, 2, mutant);
        world.handle(0, Input::Switchover);
        world.run(500);
        world.check()
    });
}

#[test]
fn r14_what_is_left_of_a_lease_after_its_final_is_nobodys() {
    let mutant = Mutant {
        residual_after_final: true,
        ..Mutant::default()
    };
    proves(mutant, &["S1"], |seed, mutant| {
        let mut world = settled(seed, 2, mutant);
        world.exchanges = false;
        world.handle(0, Input::Switchover);
        assert!(world.run_until(100, |world| world.sites[0].gateway.frozen));
        // The end arrives, and nothing that 1 could learn it from.
        world.cut.insert((TWO, ONE));
        world.run(600);
        let leads = (0..2).map(|index| world.role(index));
        assert!(leads.clone().all(|role| role == Some(Role::Leading)));
        world.cut.clear();
        world.check()
    });
}

#[test]
fn a9_a_dismissed_member_gets_no_vote_for_the_base_that_was_inherited() {
    let mutant = Mutant {
        vote_twice: true,
        ..Mutant::default()
    };
    proves(mutant, &["S", "I2"], |seed, mutant| {
        let mut world = settled(seed, 3, mutant);
        world.keep_leads = true;
        let base = world.status(0).unwrap().epoch;
        // 1 and 3 miss 2: 1 has itself elected without it.
        cut(&mut world, ONE, TWO);
        cut(&mut world, THREE, TWO);
        let voted = |world: &World| world.sites[2].disk.promised > base;
        assert!(world.run_until(1_000, voted), "seed {seed}");
        // 3 never hears that 1 was elected, and 2 asks it.
        world.cut.clear();
        world.cut.insert((ONE, THREE));
        cut(&mut world, ONE, TWO);
        let elected = |world: &World| {
            let status = world.status(0);
            status.is_some_and(|status| status.role == Role::Leading && status.epoch > base)
        };
        assert!(world.run_until(200, elected), "seed {seed}");
        cut(&mut world, ONE, THREE);
        world.run(1_000);
        world.check()?;
        let inherits = world.sites[1].leads.iter().any(|(of, _)| *of == base);
        match inherits {
            true => Err("I2: two successors of one epoch".to_owned()),
            false => Ok(()),
        }
    });
}

/// 2 was handed over to with the exact ends, leads by the vote of 1, and dies before 1 or 3 has heard much
/// of it. It has sent alone: if 1 gave its vote a second time because the switchover came to nothing, 3
/// would be a second successor to the same keys. So 3 replaces them.
#[test]
fn r10_the_vote_for_a_target_that_dies_is_not_given_back() {
    let mutant = Mutant {
        vote_twice: true,
        ..Mutant::default()
    };
    proves(mutant, &["S1", "I2"], |seed, mutant| {
        let mut world = settled(seed, 3, mutant);
        world.keep_leads = true;
        world.handle(0, Input::Switchover);
        assert!(world.run_until(100, |world| world.sites[0].gateway.frozen));
        cut(&mut world, TWO, THREE);
        assert!(
            world.run_until(200, |world| world.leader() == Some(1)),
            "seed {seed}"
        );
        // Alone until its end.
        cut(&mut world, ONE, TWO);
        world.run(100);
        world.crash(1);
        world.run(1_000);
        world.check()
    });
}
