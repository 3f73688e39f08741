//! A joiner whose copy is not complete, and a leader that is only slow: it does not lead on nothing
//! again and again, and it does once nobody else is left.

mod cluster;

use cluster::{MILLISECOND, Weather, World};
use hitless_sa::MemberId;
use hitless_sync::{Mutant, Role};

const LEADER: usize = 1;
const JOINER: usize = 0;

/// Member 2 has taken over and leads; member 1 has just started, and its disk refuses: it cannot
/// acknowledge anything, so it gets no copy.
fn joiner_without_copy(seed: u64) -> World {
    let mut world = World::new(seed, 2, Weather::CALM, Mutant::default());
    world.restarts = false;
    world.keep_leads = true;
    assert!(world.run_until(3_000, World::settled), "seed {seed}");
    assert_eq!(world.leader(), Some(JOINER));
    world.run(200);
    world.crash(JOINER);
    assert!(world.run_until(200, |world| world.leader() == Some(LEADER)));
    world.run(200);
    (world.traffic, world.exchanges) = (false, false);
    world.sites[JOINER].leads.clear();
    world.weather.write_failure = 1_000;
    world.start(JOINER);
    world.run(400);
    assert_ne!(world.role(JOINER), Some(Role::Admitted));
    world
}

fn stall(world: &mut World, index: usize, milliseconds: u64) {
    world.sites[index].paused_until = world.now + milliseconds * MILLISECOND;
}

fn reigns(world: &World) -> usize {
    world.sites[JOINER].leads.len()
}

#[test]
fn r12_a_joiner_that_was_stopped_itself_reads_what_was_said_before_it_leads_on_nothing() {
    for seed in 1..4 {
        let mut world = joiner_without_copy(seed);
        // Nobody hears it: it has no session to wait in.
        world.cut.insert((MemberId(1), MemberId(2)));
        world.run(400);
        assert_eq!(world.role(JOINER), Some(Role::Out));
        for stopped in [160, 200, 400, 900, 4_000] {
            for _ in 0..3 {
                // What it reads late it takes for as old as when it began to read.
                stall(&mut world, JOINER, stopped);
                world.cut.insert((MemberId(2), MemberId(1)));
                world.run(stopped - 1);
                world.cut.remove(&(MemberId(2), MemberId(1)));
                world.run(31);
            }
        }
        assert_eq!(reigns(&world), 0, "seed {seed}");
        world.check().unwrap();
    }
}

#[test]
fn r12_a_joiner_that_is_slow_and_gives_its_session_up_does_not_lead_meanwhile() {
    for seed in 30..34 {
        let mut world = joiner_without_copy(seed);
        for _ in 0..20 {
            stall(&mut world, JOINER, 180);
            world.run(190);
        }
        assert_eq!(reigns(&world), 0, "seed {seed}");
        world.weather.write_failure = 0;
        assert!(world.run_until(3_000, World::settled), "seed {seed}");
        world.check().unwrap();
    }
}

#[test]
fn r12_a_joiner_rests_longer_after_each_reign_that_a_better_leader_ended() {
    for seed in 60..63 {
        let mut world = joiner_without_copy(seed);
        for _ in 0..20 {
            stall(&mut world, LEADER, 700);
            world.run(800);
        }
        // 16 s: it would lead 20 times if it took every silence for a death.
        assert!(
            (1..=3).contains(&reigns(&world)),
            "{} reigns",
            reigns(&world)
        );
        world.weather.write_failure = 0;
        assert!(world.run_until(3_000, World::settled), "seed {seed}");
        assert_eq!(world.leader(), Some(LEADER));
        world.check().unwrap();
    }
}

#[test]
fn r12_a_joiner_leads_on_nothing_once_nobody_else_is_left_however_often_that_was_in_vain() {
    for (seed, vain) in [(80, 0), (81, 3), (82, 7)] {
        let mut world = joiner_without_copy(seed);
        for round in 0..vain {
            stall(&mut world, LEADER, 1_000 + round * 400);
            world.run(1_100 + round * 400);
        }
        world.crash(LEADER);
        let dead = world.now;
        assert!(
            world.run_until(7_000, |world| world.leader() == Some(JOINER)),
            "seed {seed}"
        );
        let took = (world.now - dead) / MILLISECOND;
        assert!(vain > 0 || took <= 600, "{took} ms");
        world.check().unwrap();
    }
}

/// Two heartbeats of three may be lost: the third comes when it comes, and not sooner.
#[test]
fn a_leader_is_suspected_when_as_many_heartbeats_are_missed_as_are_configured_and_not_sooner() {
    for seed in 90..94 {
        let mut world = World::new(seed, 2, Weather::CALM, Mutant::default());
        (world.restarts, world.keep_leads) = (false, true);
        assert!(world.run_until(3_000, World::settled), "seed {seed}");
        (world.traffic, world.exchanges) = (false, false);
        world.run(200);
        let (leader, standby) = (MemberId(1), MemberId(2));
        assert_eq!(world.leader(), Some(0));
        world.sites[1].leads.clear();
        for round in 0..200 {
            // Two heartbeats fall into it at most.
            world.cut.insert((leader, standby));
            world.run(19);
            world.cut.remove(&(leader, standby));
            world.run(100 + round % 10);
        }
        assert_eq!(world.sites[1].leads.len(), 0, "seed {seed}");
        world.check().unwrap();
    }
}

#[test]
fn a_standby_that_took_over_from_a_living_leader_is_more_patient_the_next_time() {
    for seed in 95..98 {
        let mut world = World::with(seed, 2, Weather::CALM, |settings| {
            settings.preempt = true;
            // As the gateway has it.
            settings.vouch = settings.takeover() * 3;
        });
        (world.restarts, world.keep_leads) = (false, true);
        assert!(world.run_until(3_000, World::settled), "seed {seed}");
        world.run(200);
        let (leader, standby) = (MemberId(1), MemberId(2));
        assert_eq!(world.leader(), Some(0));
        world.sites[1].leads.clear();
        // A silence of one and a half takeovers, again and again; the other one is preferred.
        let silence = world.settings.takeover().as_millis() as u64 * 3 / 2;
        for _ in 0..20 {
            world.cut.insert((leader, standby));
            world.run(silence);
            world.cut.remove(&(leader, standby));
            world.run(1_500);
        }
        assert_eq!(world.sites[1].leads.len(), 1, "seed {seed}: 20 without it");
        // A death is one even so, a little later.
        world.crash(0);
        assert!(
            world.run_until(silence * 2, |world| world.leader() == Some(1)),
            "seed {seed}"
        );
        // It can vouch for its copy all the same (R16).
        let (_, objects) = world.sites[1].leads.last().unwrap();
        assert!(!objects.is_empty() && objects.iter().all(|object| object.exact));
        world.check().unwrap();
    }
}
