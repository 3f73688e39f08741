//! What `hitless cluster status` says would be lost is what a takeover then loses.

mod cluster;

use cluster::{Weather, World};
use hitless_sa::SaId;
use hitless_sync::{Mutant, Risk, Role, Unserved};

fn risk(world: &World, index: usize) -> Risk {
    world.sites[index].node.as_ref().unwrap().risk()
}

#[test]
fn the_predicted_skip_bounds_the_one_that_happens() {
    let mut carried = 0;
    for seed in 0..30 {
        let mut world = World::new(seed, 2, Weather::CALM, Mutant::default());
        world.restarts = false;
        world.keep_leads = true;
        assert!(world.run_until(2_000, World::settled));
        world.run(300 + seed * 7);
        let (leader, standby) = (0, 1);
        let [ours, theirs] = [leader, standby].map(|index| risk(&world, index));
        assert_eq!((ours.standbys, theirs.standbys), (1, 1));
        assert!(ours.exact && theirs.exact);
        let cells = &world.sites[leader].gateway.cells;
        let cursors: Vec<(SaId, u64)> = cells.iter().map(|(sa, c)| (*sa, c.cursor)).collect();
        world.crash(leader);
        assert!(world.run_until(200, |world| world.role(1) == Some(Role::Leading)));
        let (_, objects) = world.sites[standby].leads.last().unwrap();
        let worst = ours.extended.greatest_skip.max(ours.short.greatest_skip);
        for child in objects.iter().flat_map(|object| &object.children) {
            let used = cursors.iter().find(|(sa, _)| *sa == child.sa);
            if child.rekey_only {
                continue;
            }
            let Some((_, cursor)) = used else { continue };
            let skipped = child.first.0 - cursor;
            assert!(skipped <= worst, "seed {seed}: {skipped} of {worst}");
            carried += 1;
        }
    }
    assert!(carried > 20, "{carried}");
}

#[test]
fn without_a_standby_every_sa_is_named_and_why() {
    let mut world = World::new(3, 2, Weather::CALM, Mutant::default());
    world.restarts = false;
    world.crash(1);
    assert!(world.run_until(3_000, |world| risk(world, 0).unserved > 0));
    let risk = risk(&world, 0);
    assert_eq!((risk.standbys, risk.exact), (0, false));
    let named = risk.named.iter();
    assert!(named.clone().count() > 0);
    assert!(named.clone().all(|(_, why)| *why == Unserved::NoStandby));
    assert!(Unserved::NoStandby.reason().contains("no member"));
}

/// What the leader holds for a standby that answers no more is behind, although that one could not take
/// over now.
#[test]
fn what_waits_for_a_silent_standby_is_behind() {
    let mut world = World::settled_with(4, 2, |_| {});
    world.exchanges = false;
    world.run(100);
    assert_eq!(risk(&world, 0).behind, 0);
    world.crash(1);
    assert!(world.run_until(200, |world| risk(world, 0).standbys == 0));
    let change = world.sites[0].gateway.create();
    world.commit(0, change);
    let bound = |world: &World| world.status(0).unwrap().members[0].bound;
    assert!(bound(&world));
    assert_eq!(risk(&world, 0).behind, 1);
}
