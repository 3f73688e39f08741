//! A witness: a third member that only votes (`lease-holes` R10, R12 and R20; design, `degraded`).

mod cluster;

use cluster::{Weather, World};
use hitless_sa::MemberId;
use hitless_sync::{Degraded, Role, Settings};

const WITNESS: usize = 2;

fn witnessed(settings: &mut Settings) {
    settings.witness = Some(MemberId(3));
    settings.degraded = Degraded::Witness;
}

fn settled(seed: u64) -> World {
    let mut world = World::with(seed, 3, Weather::CALM, witnessed);
    world.restarts = false;
    world.keep_leads = true;
    assert!(world.run_until(3_000, World::settled), "{seed}");
    assert_eq!(world.leader(), Some(0));
    world.run(200);
    world
}

/// Both directions of all that go in and out of a member.
fn isolate(world: &mut World, index: usize) {
    let me = MemberId(index as u8 + 1);
    for other in (1..=3).map(MemberId).filter(|other| *other != me) {
        world.cut.extend([(me, other), (other, me)]);
    }
}

#[test]
fn a_witness_never_leads_and_holds_no_record() {
    let mut world = settled(1);
    let status = world.status(WITNESS).unwrap();
    assert_eq!((status.role, status.objects, status.sas), (Role::Out, 0, 0));
    world.crash(0);
    world.crash(1);
    world.run(5_000);
    assert_eq!(world.role(WITNESS), Some(Role::Out));
    world.check().unwrap();
}

#[test]
fn the_standby_takes_over_with_the_vote_of_the_witness() {
    let mut world = settled(2);
    let before = world.status(0).unwrap().epoch;
    world.crash(0);
    assert!(world.run_until(100, |world| world.leader() == Some(1)));
    let (base, objects) = world.sites[1].leads.last().unwrap();
    assert_eq!((*base, objects.is_empty()), (before, false));
    // It goes on alone, on the old keys.
    let packets = world.oracle.packets;
    world.run(2_000);
    assert!(world.oracle.packets > packets + 1_000);
    world.check().unwrap();
}

#[test]
fn a_leader_without_its_standby_is_elected_anew_and_keeps_its_keys() {
    let mut world = settled(3);
    let before = world.status(0).unwrap().epoch;
    world.crash(1);
    assert!(world.run_until(400, |world| world.status(0).unwrap().epoch > before));
    let packets = world.oracle.packets;
    world.run(2_000);
    let status = world.status(0).unwrap();
    assert!(!status.degraded && status.role == Role::Leading);
    assert!(world.oracle.packets > packets + 1_000, "beyond every grant");
    assert_eq!(world.sites[0].leads.len(), 1);
    world.check().unwrap();
}

/// The arbiter decides who goes on, and only one does.
#[test]
fn a_partition_leaves_the_side_of_the_witness() {
    for (lonely, other) in [(0, 1), (1, 0)] {
        let mut world = settled(4);
        let before = world.status(0).unwrap().epoch;
        isolate(&mut world, lonely);
        let elected = |world: &World| {
            let status = world.status(other).unwrap();
            status.role == Role::Leading && status.epoch > before
        };
        assert!(world.run_until(400, elected), "member {other}");
        world.run(1_000);
        let inherits = world.sites[other].leads.last().unwrap().0;
        assert!(other == 0 || inherits == before);
        world.check().unwrap();
        world.cut.clear();
        assert!(world.run_until(3_000, World::settled));
        assert_eq!(world.leader(), Some(other));
        world.check().unwrap();
    }
}

/// A standby that hears the witness, but not a leader that the witness hears, stays one.
#[test]
fn d16_a_broken_sync_link_alone_elects_nobody_but_the_leader() {
    let mut world = settled(5);
    let (one, two) = (MemberId(1), MemberId(2));
    world.cut.extend([(one, two), (two, one)]);
    world.run(2_000);
    assert_eq!(world.leader(), Some(0));
    assert_eq!(world.sites[0].leads.len(), 1);
    assert!(world.sites[1].leads.is_empty());
    world.check().unwrap();
}

#[test]
fn without_witness_and_standby_the_leader_rekeys() {
    let mut world = World::with(6, 3, Weather::CALM, witnessed);
    world.restarts = false;
    assert!(world.run_until(3_000, World::settled));
    world.crash(WITNESS);
    world.run(500);
    world.crash(1);
    let packets = world.oracle.packets;
    world.run(3_000);
    assert!(world.oracle.packets > packets + 1_000, "on keys of its own");
    world.check().unwrap();
}

#[test]
fn a_cluster_with_a_witness_in_every_weather() {
    for seed in 0..60 {
        let mut world = World::with(
            seed,
            3,
            Weather::of(&mut cluster::random::Random(seed)),
            witnessed,
        );
        world.run(3_000);
        world.calm();
        world
            .check()
            .unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        assert!(world.run_until(8_000, World::settled), "seed {seed}");
        world
            .check()
            .unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

#[test]
fn nothing_of_an_ike_sa_is_ever_sent_to_a_witness() {
    let mut world = settled(7);
    let captured = world.intercept(MemberId(1), MemberId(3), 500);
    assert!(captured.len() > 20);
    // A beat and no more.
    assert!(captured.iter().all(|packet| packet.len() < 250));
}
