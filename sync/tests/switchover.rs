//! Switchovers that come to nothing: the standby dies, falls silent or falls ill before it was handed
//! anything, and the active goes on in its epoch (`lease-holes` A3, A4, R14, R15).

mod cluster;

use std::time::Duration;

use cluster::World;
use hitless_sa::{MemberId, SaId, SequenceNumber};
use hitless_sync::{Event, Input, Mutant, NoSwitchover, Role, Usage};

const ONE: MemberId = MemberId(1);
const TWO: MemberId = MemberId(2);

fn refused(world: &World) -> bool {
    let lost = Event::SwitchoverRefused {
        reason: NoSwitchover::StandbyLost,
    };
    world.sites[0].events.contains(&lost)
}

/// Leads again within a moment, what it led, with the same cells.
fn goes_on(world: &mut World, seed: u64) {
    let before = world.status(0).unwrap().epoch;
    let cells: Vec<_> = world.sites[0].gateway.cells.keys().copied().collect();
    assert!(!cells.is_empty());
    let packets = world.oracle.packets;
    let back = world.run_until(100, |world| {
        world.role(0) == Some(Role::Leading) && !world.sites[0].gateway.drain
    });
    assert!(back && refused(world), "seed {seed}");
    let held = world.sites[0].gateway.cells.keys();
    assert_eq!(held.copied().collect::<Vec<_>>(), cells, "seed {seed}");
    world.run(300);
    assert_eq!(world.status(0).unwrap().epoch, before, "seed {seed}");
    assert_eq!(world.sites[0].leads.len(), 1, "seed {seed}: no new lead");
    assert!(world.oracle.packets > packets, "seed {seed}");
    world.check().unwrap();
}

#[test]
fn r15_a_standby_that_dies_in_the_drain_costs_no_key() {
    for seed in 0..30 {
        let mut world = World::settled_with(seed, 2, |_| {});
        // Nobody has noticed it yet, or the drain has begun.
        if seed % 2 == 0 {
            world.crash(1);
        }
        world.handle(0, Input::Switchover);
        assert_eq!(world.role(0), Some(Role::HandingOver));
        if seed % 2 == 1 {
            world.crash(1);
        }
        goes_on(&mut world, seed);
        // It comes back, and a later switchover succeeds.
        world.start(1);
        assert!(world.run_until(2_000, World::settled), "seed {seed}");
        world.run(100);
        world.handle(0, Input::Switchover);
        assert!(
            world.run_until(500, |world| world.leader() == Some(1)),
            "seed {seed}"
        );
        world.run(200);
        world.check().unwrap();
    }
}

#[test]
fn a_standby_that_falls_ill_in_the_drain_gets_nothing() {
    let mut world = World::settled_with(1, 2, |_| {});
    world.cut.insert((ONE, TWO));
    world.handle(0, Input::Switchover);
    let (healthy, halted) = (false, false);
    world.handle(1, Input::Health { healthy, halted });
    assert!(world.run_until(25, refused));
    world.cut.clear();
    goes_on(&mut world, 1);
}

#[test]
fn a_standby_that_speaks_and_does_not_answer_gets_nothing() {
    let mut world = World::settled_with(2, 2, |_| {});
    world.exchanges = false;
    // It hears nothing, so it acknowledges nothing, and takes over by its record in the end.
    world.cut.insert((ONE, TWO));
    world.handle(0, Input::Switchover);
    world.run(25);
    assert!(!world.sites[0].gateway.frozen && world.role(0) == Some(Role::HandingOver));
    world.run(1_000);
    assert_eq!(world.leader(), Some(1));
    let (base, objects) = world.sites[1].leads.last().unwrap();
    let mut children = objects.iter().flat_map(|object| &object.children);
    assert!(base.is_some() && children.all(|child| !child.rekey_only));
    world.check().unwrap();
}

#[test]
fn what_was_refused_in_the_drain_is_made_anew() {
    let mut world = World::settled_with(3, 2, |_| {});
    world.exchanges = false;
    world.run(100);
    world.crash(1);
    world.handle(0, Input::Switchover);
    let change = world.sites[0].gateway.create();
    let (object, version) = (change.object, change.version);
    world.commit(0, change);
    assert!(world.sites[0].discarded.contains(&(object, version)));
    goes_on(&mut world, 3);
    assert!(world.sites[0].gateway.repair().is_empty());
}

#[test]
fn of_two_standbys_the_other_one_gets_it() {
    for input in [|| Input::Shutdown, || Input::Switchover] {
        let mut world = World::settled_with(4, 3, |_| {});
        world.crash(1);
        // What only waits for a peer's answer has no end yet.
        let used: Vec<SaId> = world.sites[0].gateway.cells.keys().copied().collect();
        world.handle(0, input());
        assert!(world.run_until(200, |world| world.leader() == Some(2)));
        assert!(!refused(&world));
        let (base, objects) = world.sites[2].leads.last().unwrap();
        let children = objects.iter().flat_map(|object| &object.children);
        let mut children = children.filter(|child| used.contains(&child.sa));
        assert!(base.is_some() && children.all(|child| !child.rekey_only && child.skip == 0));
        world.run(200);
        world.check().unwrap();
    }
}

/// The ends have left, and 1 hears nothing of 2 any more.
fn ended(seed: u64, mutant: Mutant) -> Result<(), String> {
    let mut world = World::settled_with(seed, 2, |settings| settings.mutant = mutant);
    world.exchanges = false;
    world.handle(0, Input::Switchover);
    assert!(world.run_until(100, |world| world.sites[0].gateway.frozen));
    world.cut.insert((TWO, ONE));
    world.run(600);
    world.check()
}

#[test]
fn r15_once_the_ends_have_left_there_is_no_way_back() {
    let mutant = Mutant {
        resumes_after_final: true,
        ..Mutant::default()
    };
    assert!((0..20).any(|seed| ended(seed, mutant).is_err_and(|what| what.starts_with("S1"))));
    for seed in 0..20 {
        ended(seed, Mutant::default()).unwrap();
    }
}

/// A packet that waits for its lease is authenticated, and marked in no window: it would be lost.
#[test]
fn what_waits_for_its_lease_is_waited_for_and_not_for_long() {
    for answered in [true, false] {
        let mut world = World::settled_with(6, 2, |_| {});
        world.exchanges = false;
        world.run(100);
        let (sa, high_water) = {
            let (sa, cell) = world.sites[0].gateway.cells.first_key_value().unwrap();
            (*sa, cell.lease.high_water)
        };
        if !answered {
            world.cut.insert((ONE, TWO));
        }
        let usage = Usage {
            sa,
            cursor: SequenceNumber(1),
            inbound_top: SequenceNumber(high_water.0 + 1),
            esn: true,
        };
        world.handle(0, Input::Usage(vec![usage]));
        world.handle(0, Input::Switchover);
        assert_eq!(world.role(0), Some(Role::Leading), "not yet");
        let before = world.now;
        let began = |world: &World| world.role(0) == Some(Role::HandingOver);
        assert!(world.run_until(60, began), "{answered}");
        let lease = world.sites[0].gateway.cells[&sa].lease;
        assert_eq!(lease.high_water > high_water, answered);
        let site = &world.sites[0];
        let took = site.time(world.now).since(site.time(before));
        assert!(took <= Duration::from_millis(40), "{took:?}");
        world.check().unwrap();
    }
}

/// What left while the standby was not heard is in no copy of its.
#[test]
fn s4_after_an_outage_the_standby_is_told_what_it_missed_before_it_is_handed_anything() {
    for ends in [false, true] {
        let mut world = World::settled_with(5, 2, |_| {});
        world.exchanges = false;
        // Its answers are lost: what is committed leaves without them (R16).
        world.cut.insert((TWO, ONE));
        for _ in 0..1_000 {
            let change = world.sites[0].gateway.create();
            world.commit(0, change);
        }
        world.run(1_000);
        let made = world.status(0).unwrap().objects;
        assert!(made > 500, "{made}");
        world.cut.clear();
        let target = |world: &World| {
            let node = world.sites[0].node.as_ref().unwrap();
            node.switchover_target(world.sites[0].time(world.now))
        };
        let heard = world.run_until(1_000, |world| target(world) != Err(NoSwitchover::NoStandby));
        assert_eq!(target(&world), Err(NoSwitchover::Behind), "{heard}");
        if ends {
            world.handle(0, Input::Shutdown);
        } else {
            world.handle(0, Input::Switchover);
            let reason = NoSwitchover::Behind;
            let refused = Event::SwitchoverRefused { reason };
            assert!(world.sites[0].events.contains(&refused));
            assert!(world.run_until(1_000, |world| target(world).is_ok()));
            world.handle(0, Input::Switchover);
        }
        assert!(world.run_until(1_500, |world| world.leader() == Some(1)));
        assert!(world.sites[1].leads.last().unwrap().0.is_some());
        assert_eq!(world.status(1).unwrap().objects, made);
        world.run(200);
        world.check().unwrap();
    }
}
