//! Who could take over, as `hitless cluster status` says it and as it then happens: the dead, the ill,
//! those that have not tried their copies, and those of which a copy failed.

mod cluster;

use std::collections::BTreeMap;

use cluster::{Weather, World};
use hitless_sa::SaId;
use hitless_sync::{Degraded, Flaw, Input, Mutant, Risk, Role, TakeoverSa, Unserved};

fn risk(world: &World, index: usize) -> Risk {
    world.sites[index].node.as_ref().unwrap().risk()
}

fn settled(seed: u64, members: u8, degraded: Degraded) -> World {
    let mut world = World::with(seed, members, Weather::CALM, |settings| {
        settings.degraded = degraded;
    });
    world.restarts = false;
    world.keep_leads = true;
    assert!(world.run_until(3_000, World::settled), "seed {seed}");
    assert_eq!(world.leader(), Some(0));
    world.run(100);
    world
}

/// What the drill of a member says from now on.
fn drilled(world: &mut World, index: usize, ready: bool, broken: &[SaId]) {
    let broken = broken.iter().map(|sa| (*sa, Flaw::default())).collect();
    world.handle(index, Input::Ready { ready, broken });
    world.run(30);
}

fn an_sa(world: &World) -> SaId {
    *world.sites[0].gateway.cells.keys().next().unwrap()
}

fn inherited(world: &World, index: usize) -> Vec<TakeoverSa> {
    let (base, objects) = world.sites[index].leads.last().unwrap();
    assert!(base.is_some());
    let children = objects.iter().flat_map(|object| &object.children);
    children.cloned().collect()
}

#[test]
fn a_dead_standby_could_not_take_over_whatever_right_it_holds() {
    for (seed, degraded) in [(1, Degraded::Rekey), (2, Degraded::Strict)] {
        let mut world = settled(seed, 2, degraded);
        assert_eq!((risk(&world, 0).standbys, risk(&world, 0).unserved), (1, 0));
        world.crash(1);
        world.run(40);
        for _ in 0..10 {
            let risk = risk(&world, 0);
            assert_eq!((risk.standbys, risk.exact), (0, false), "{degraded:?}");
            assert!(risk.unserved > 0 && risk.named.len() == risk.unserved);
            assert!(
                risk.named
                    .iter()
                    .all(|(_, why)| *why == Unserved::NoStandby)
            );
            let status = world.status(0).unwrap();
            assert!(!status.members[0].able);
            world.run(200);
        }
        world.start(1);
        assert!(world.run_until(2_000, |world| risk(world, 0).standbys == 1));
        world.check().unwrap();
    }
}

#[test]
fn a_standby_that_is_ill_or_has_not_tried_its_copies_is_not_counted() {
    let mut world = settled(3, 2, Degraded::Rekey);
    drilled(&mut world, 1, false, &[]);
    assert_eq!((risk(&world, 0).standbys, risk(&world, 1).standbys), (0, 0));
    assert!(risk(&world, 0).unserved > 0);
    drilled(&mut world, 1, true, &[]);
    assert_eq!((risk(&world, 0).standbys, risk(&world, 1).standbys), (1, 1));
    let (healthy, halted) = (false, false);
    world.handle(1, Input::Health { healthy, halted });
    world.run(30);
    assert_eq!((risk(&world, 0).standbys, risk(&world, 1).standbys), (0, 0));
}

#[test]
fn r11_what_failed_its_drill_is_named_and_is_only_replaced() {
    let mut world = settled(4, 2, Degraded::Rekey);
    world.exchanges = false;
    world.run(50);
    let sa = an_sa(&world);
    drilled(&mut world, 1, true, &[sa]);
    for index in [0, 1] {
        let risk = risk(&world, index);
        assert_eq!((risk.standbys, risk.unserved), (1, 1), "{index}");
        assert_eq!(risk.named, [(sa, Unserved::Drill(Flaw::Keys))]);
    }
    assert!(world.status(0).unwrap().members[0].able);
    // It is no standby to hand over to: this member leads on with every SA.
    world.handle(0, Input::Switchover);
    world.run(100);
    assert_eq!(world.leader(), Some(0));
    world.crash(0);
    assert!(world.run_until(300, |world| world.leader() == Some(1)));
    let inherited = inherited(&world, 1);
    assert!(inherited.len() > 1);
    for child in inherited {
        assert_eq!(child.rekey_only, child.sa == sa, "{}", child.sa);
    }
    world.run(200);
    // Replaced: the old number space is never used again, and all are served.
    assert!(!world.sites[1].gateway.cells.contains_key(&sa));
    world.check().unwrap();
}

#[test]
fn many_broken_copies_are_counted_beyond_those_that_are_named() {
    let mut world = settled(5, 2, Degraded::Rekey);
    world.exchanges = false;
    let mut broken: Vec<SaId> = world.sites[0].gateway.cells.keys().copied().collect();
    let own = broken.len();
    let incarnation = broken[0].incarnation;
    broken.extend((0..100).map(|n| SaId {
        creator: hitless_sa::MemberId(9),
        incarnation,
        counter: n,
    }));
    drilled(&mut world, 1, true, &broken);
    let risk = risk(&world, 0);
    assert_eq!(risk.unserved, own + (broken.len() - 32));
}

#[test]
fn of_two_standbys_the_one_that_has_tried_its_copies_takes_over() {
    for (seed, broken) in [(6, false), (7, true), (8, false), (9, true)] {
        let mut world = settled(seed, 3, Degraded::Rekey);
        let sa = an_sa(&world);
        // 2 is preferred.
        match broken {
            true => drilled(&mut world, 1, true, &[sa]),
            false => drilled(&mut world, 1, false, &[]),
        }
        let crash = world.now;
        world.crash(0);
        assert!(
            world.run_until(400, |world| world.leader().is_some()),
            "seed {seed}"
        );
        assert_eq!(world.leader(), Some(2), "seed {seed}");
        let took = (world.now - crash) / cluster::MILLISECOND;
        assert!(took < 60, "it waits for nobody: {took} ms");
        assert!(inherited(&world, 2).iter().all(|child| !child.rekey_only));
        world.run(200);
        world.check().unwrap();
    }
}

#[test]
fn with_nobody_better_an_unready_member_leads_within_a_bound() {
    for members in [2, 3] {
        let mut world = settled(10, members, Degraded::Rekey);
        for index in 1..usize::from(members) {
            drilled(&mut world, index, false, &[]);
        }
        world.crash(0);
        let leads = |world: &World| world.leader().is_some();
        assert!(world.run_until(500, leads), "{members} members");
        world.run(200);
        world.check().unwrap();
    }
}

#[test]
fn a_handover_goes_to_who_is_ready_and_away_from_who_is_no_longer() {
    let mut world = settled(11, 3, Degraded::Rekey);
    drilled(&mut world, 1, false, &[]);
    world.handle(0, Input::Switchover);
    assert!(world.run_until(200, |world| world.leader() == Some(2)));
    world.check().unwrap();

    // The target finds that it is not ready only when everything is given to it.
    let mut world = settled(12, 3, Degraded::Rekey);
    world.handle(0, Input::Switchover);
    let broken = BTreeMap::new();
    world.handle(
        1,
        Input::Ready {
            ready: false,
            broken,
        },
    );
    assert!(world.run_until(1_000, |world| {
        world.leader().is_some_and(|leader| leader > 0)
    }));
    assert_eq!(world.leader(), Some(2));
    assert!(!inherited(&world, 2).is_empty());
    world.run(300);
    world.check().unwrap();
}

#[test]
fn what_is_said_to_be_at_risk_is_what_a_takeover_then_skips_and_refuses() {
    let (mut skipped, mut refused) = (0, 0);
    for seed in 20..40 {
        let mut world = World::new(seed, 2, Weather::CALM, Mutant::default());
        world.restarts = false;
        world.keep_leads = true;
        assert!(world.run_until(2_000, World::settled));
        world.run(300 + seed * 7);
        // Everything that was used is known, and everything offered is acknowledged.
        (world.traffic, world.exchanges) = (false, false);
        world.run(300);
        let cells = &world.sites[0].gateway.cells;
        let used: Vec<(SaId, u64, u64)> =
            cells.iter().map(|(sa, c)| (*sa, c.cursor, c.top)).collect();
        let [ours, theirs] = [0, 1].map(|index| risk(&world, index));
        world.crash(0);
        assert!(world.run_until(200, |world| world.role(1) == Some(Role::Leading)));
        let children = inherited(&world, 1);
        let (mut skip, mut blackout, mut each) = (0, 0, 0);
        for (sa, cursor, top) in used {
            let child = children
                .iter()
                .find(|child| child.sa == sa && !child.rekey_only);
            let Some(child) = child else { continue };
            skip = skip.max(child.first.0 - cursor);
            blackout += child.floor.0 - top;
            each = each.max(child.floor.0 - top);
        }
        for said in [&ours.extended, &theirs.extended] {
            let promised = (
                said.greatest_skip,
                said.packets_at_risk,
                said.greatest_blackout,
            );
            assert_eq!(promised, (skip, blackout, each), "seed {seed}");
            let delta = children.iter().map(|child| child.delta).max();
            assert_eq!(Some(said.greatest_delta), delta, "seed {seed}");
        }
        assert_eq!(
            ours.extended.sas + ours.short.sas,
            children.len(),
            "seed {seed}"
        );
        skipped += skip;
        refused += blackout;
    }
    assert!(skipped > 0 && refused > 0);
}

#[test]
fn a_member_whose_workers_are_stuck_hands_over_without_barrier_and_without_hold() {
    for (seed, broken) in [(40, false), (41, true), (42, false)] {
        let mut world = settled(seed, 2, Degraded::Rekey);
        world.crash(1);
        world.run(30);
        world.start(1);
        assert!(world.run_until(2_000, World::settled));
        if broken {
            let sa = an_sa(&world);
            drilled(&mut world, 1, true, &[sa]);
        }
        // It knows that it is admitted, and its hold has just begun.
        assert!(world.run_until(100, |world| risk(world, 0).standbys == 1));
        let (healthy, halted) = (false, true);
        world.handle(0, Input::Health { healthy, halted });
        // Its workers never pass the barrier.
        world.sites[0].gateway.drain = false;
        let began = world.now;
        let taken = world.run_until(1_000, |world| world.leader() == Some(1));
        let took = (world.now - began) / cluster::MILLISECOND;
        assert!(taken && took < 25, "seed {seed}: {took} ms");
        assert!(!inherited(&world, 1).is_empty());
        world.run(200);
        world.check().unwrap();
    }
}

#[test]
fn an_ill_active_hands_over_to_who_carries_most_and_to_a_fit_one_first() {
    // Of two members: a copy that failed its drill is better than a link that is down.
    let mut world = settled(50, 2, Degraded::Rekey);
    world.exchanges = false;
    world.run(300);
    let sa = an_sa(&world);
    drilled(&mut world, 1, true, &[sa]);
    world.run(300);
    assert_eq!(world.leader(), Some(0), "a healthy one keeps the lead");
    let (healthy, halted) = (false, false);
    world.handle(0, Input::Health { healthy, halted });
    assert!(world.run_until(500, |world| world.leader() == Some(1)));
    for child in inherited(&world, 1) {
        assert_eq!(child.rekey_only, child.sa == sa, "{}", child.sa);
    }
    world.check().unwrap();
    // Of three: the fit one, though the other is preferred.
    let mut world = settled(51, 3, Degraded::Rekey);
    world.exchanges = false;
    world.run(300);
    let sa = an_sa(&world);
    drilled(&mut world, 1, true, &[sa]);
    world.handle(0, Input::Health { healthy, halted });
    assert!(world.run_until(500, |world| world.leader().is_some_and(|l| l != 0)));
    assert_eq!(world.leader(), Some(2));
    assert!(inherited(&world, 2).iter().all(|child| !child.rekey_only));
    world.run(200);
    world.check().unwrap();
}

/// `lease-holes` R15: who has sent the exact ends never uses its epoch again, and votes; whether it
/// goes on as a standby or ends.
#[test]
fn r15_a_leader_of_three_elects_its_successor_before_it_ends() {
    for (seed, end) in [(13, Input::Switchover), (14, Input::Shutdown)] {
        let mut world = settled(seed, 3, Degraded::Rekey);
        world.handle(0, end);
        let led = world.run_until(100, |world| world.role(1) == Some(Role::Leading));
        assert!(led, "{:?}", world.sites[1].events);
        // An SA that was announced in that moment has a first lease, of which nothing was used.
        let mut children = inherited(&world, 1);
        children.retain(|child| child.checkpoint.is_some());
        assert!(!children.is_empty() && children.iter().all(|child| child.skip == 0));
        world.run(500);
        world.check().unwrap();
    }
}

/// What a member thinks of itself is what it says of itself: else of two that share no keys each is the
/// better one in its own eyes, and neither makes way.
#[test]
fn of_two_leaders_without_common_keys_the_ready_one_stays() {
    for seed in 60..64 {
        let mut world = World::with(seed, 2, Weather::CALM, |_| {});
        world.restarts = false;
        let (one, two) = (world.sites[0].id, world.sites[1].id);
        world.cut.extend([(one, two), (two, one)]);
        let leads = |world: &World, index| world.role(index) == Some(Role::Leading);
        let both = |world: &World| leads(world, 0) && leads(world, 1);
        assert!(world.run_until(3_000, both), "seed {seed}");
        // The preferred one.
        drilled(&mut world, 0, false, &[]);
        world.exchanges = false;
        world.cut.clear();
        assert!(world.run_until(3_000, World::settled), "seed {seed}");
        assert_eq!(world.leader(), Some(1), "seed {seed}");
        world.run(200);
        world.check().unwrap();
    }
}

#[test]
fn at_a_cold_start_the_ready_one_leads_and_no_other() {
    for seed in 64..68 {
        let mut world = World::with(seed, 2, Weather::CALM, |_| {});
        world.restarts = false;
        drilled(&mut world, 0, false, &[]);
        assert!(world.run_until(3_000, World::settled), "seed {seed}");
        assert_eq!(world.leader(), Some(1), "seed {seed}");
        assert!(world.sites[0].disk.led.is_none(), "seed {seed}");
        world.run(200);
        world.check().unwrap();
    }
}

#[test]
fn r16_a_copy_that_could_not_be_carried_costs_no_other_its_message_ids() {
    for seed in 60..70 {
        let mut world = settled(seed, 2, Degraded::Rekey);
        let broken = an_sa(&world);
        drilled(&mut world, 1, true, &[broken]);
        world.crash(0);
        assert!(world.run_until(70, |world| world.leader() == Some(1)));
        let (_, objects) = world.sites[1].leads.last().unwrap();
        assert!(objects.iter().all(|object| object.exact), "seed {seed}");
        let sas = inherited(&world, 1);
        assert!(sas.iter().all(|sa| sa.rekey_only == (sa.sa == broken)));
        world.run(200);
        world.check().unwrap();
    }
}
