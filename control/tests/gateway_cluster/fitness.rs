//! Who is fit to be active: links, workers, and the drill of a standby's copies.

use std::time::Duration;

use hitless::api::Role;
use hitless::gateway::Event;

use crate::world::World;

fn set_link(world: &mut World, who: u8, up: bool) {
    world.ask(who, |gateway, now, entropy| {
        gateway.set_link(now, entropy, 0, up)
    });
}

#[test]
fn a_member_with_a_dead_link_yields_to_one_with_a_live_link() {
    let mut world = World::with_traffic(61);
    let first = world.leader().unwrap();
    let second = 3 - first;
    // The hold of a standby that has just joined.
    world.run(Duration::from_secs(2));
    let now = world.now;
    let report = world.gateway(first).cluster(now);
    assert_eq!(report.ailments, Vec::<String>::new());
    set_link(&mut world, first, false);
    world.until("the other one to lead", |world| {
        world.leader() == Some(second)
    });
    world.traffic_flows();
    let now = world.now;
    let report = world.gateway(first).cluster(now);
    assert!(report.ailments[0].contains("link of port"), "{report:?}");
    assert_eq!(world.gateway(second).cluster(now).takeovers, 1);
    // With nobody better it goes on.
    set_link(&mut world, second, false);
    world.run(Duration::from_secs(3));
    assert_eq!(world.leader(), Some(second));
    set_link(&mut world, first, true);
    world.until("the healthy one to lead", |world| {
        world.leader() == Some(first)
    });
    world.traffic_flows();
    world.audit();
}

#[test]
fn a_stuck_worker_counts_as_dead() {
    let mut world = World::with_traffic(62);
    let first = world.leader().unwrap();
    world.run(Duration::from_secs(2));
    world.stuck.insert(first);
    world.until("the other one to lead", |world| {
        world.leader() == Some(3 - first)
    });
    world.traffic_flows();
    let stuck = |event: &Event| matches!(event, Event::Health { ailments } if ailments.iter().any(|a| a.contains("is stuck")));
    assert!(world.happened(first, stuck));
    world.stuck.clear();
    let well = |event: &Event| matches!(event, Event::Health { ailments } if ailments.is_empty());
    world.until("it to recover", |world| world.happened(first, well));
    world.run(Duration::from_secs(1));
    world.traffic_flows();
    world.audit();
}

#[test]
fn a_standby_has_drilled_every_copy_and_says_what_a_takeover_would_cost() {
    let mut world = World::with_traffic(63);
    let first = world.leader().unwrap();
    let second = 3 - first;
    world.run(Duration::from_millis(500));
    let now = world.now;
    let active = world.gateway(first).cluster(now);
    assert_eq!(
        (active.role, active.standbys, active.exact),
        (Role::Active, 1, true)
    );
    assert_eq!((active.unserved, active.drill), (0, None));
    assert!(active.classes[0].greatest_skip > 0, "{active:?}");
    assert!(active.classes[0].least_remaining > Some(0));
    let standby = world.gateway(second).cluster(now);
    let drill = standby.drill.unwrap();
    assert_eq!((drill.passed, drill.waiting, drill.failed), (1, 0, 0));
    assert_eq!(standby.standbys, 1);
    let plan = world.gateway(first).switchover_plan(now).unwrap();
    assert!(
        plan.starts_with(&format!("member {second} would take over")),
        "{plan}"
    );
    world.kill(first);
    world.until("a takeover", |world| world.leader() == Some(second));
    let skip = |event: &Event| match event {
        Event::Leads { skip, .. } => Some(*skip),
        _ => None,
    };
    let skips = world.events.iter().filter(|(_, who, _)| *who == second);
    let skip = skips.filter_map(|(_, _, event)| skip(event)).max().unwrap();
    // The standby knows what was used from checkpoints only.
    assert!(
        skip <= standby.classes[0]
            .greatest_skip
            .max(active.classes[0].greatest_skip)
            * 2
    );
    world.traffic_flows();
    world.audit();
}
