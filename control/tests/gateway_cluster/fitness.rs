//! Who is fit to be active: links, workers, and the drill of a standby's copies.

use std::time::Duration;

use hitless::api::Role;
use hitless::gateway::Event;
use hitless::ike;
use hitless::lab::Topology;

use crate::world::{PEER, World};

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
    let began = world.now;
    world.until("the other one to lead", |world| {
        world.leader() == Some(3 - first)
    });
    // The time after which it is stuck, and a few heartbeats.
    let took = world.now.since(began);
    assert!(took < Duration::from_millis(260), "{took:?}");
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
fn a_stuck_worker_yields_to_a_standby_that_has_just_joined() {
    let mut world = World::with_traffic(67);
    let first = world.leader().unwrap();
    world.kill(3 - first);
    world.run(Duration::from_millis(200));
    world.start(3 - first);
    world.until("the standby to join", World::standby_is_ready);
    world.stuck.insert(first);
    let began = world.now;
    world.until("the other one to lead", |world| {
        world.leader() == Some(3 - first)
    });
    let took = world.now.since(began);
    assert!(took < Duration::from_millis(260), "{took:?}");
    world.traffic_flows();
    world.audit();
}

#[test]
fn a_member_whose_worker_is_stuck_again_and_again_gets_the_lead_back_later_and_later() {
    let topology = Topology::new(2, "open sesame".to_owned());
    let members = (1..=2).map(|id| {
        let mut config = topology.member(id).unwrap();
        config.cluster.preempt = true;
        config
    });
    let mut world = World::with(69, members.collect(), topology.peer().unwrap());
    world.come_up();
    let preferred = world.leader().unwrap();
    let since = world.events.len();
    for _ in 0..20 {
        world.run(Duration::from_secs(3));
        // For long enough to be noticed.
        world.stuck.insert(preferred);
        world.run(Duration::from_millis(300));
        world.stuck.clear();
    }
    let led =
        |(who, event): &(u8, &Event)| *who == preferred && matches!(event, Event::Leads { .. });
    let back = world.since(since).filter(led).count();
    assert!((1..=5).contains(&back), "{back} times in a minute");
    let resting = |event: &Event| matches!(event, Event::Health { ailments } if ailments.iter().any(|a| a.contains("times of late")));
    assert!(world.happened(preferred, resting));
    world.traffic_flows();
    world.audit();
}

#[test]
fn a_standby_has_drilled_every_copy_and_says_what_a_takeover_would_cost() {
    // An even seed: what is inherited is all taken at once, and its skip told with the lead.
    let mut world = World::with_traffic(68);
    let first = world.leader().unwrap();
    let second = 3 - first;
    // Quiet for longer than from one checkpoint to the next.
    world.traffic = false;
    world.run(Duration::from_secs(2));
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
    // Nothing was sent since: what both said is what happens.
    assert_eq!(skip, Some(standby.classes[0].greatest_skip));
    assert_eq!(skip, Some(active.classes[0].greatest_skip));
    world.traffic = true;
    world.traffic_flows();
    world.audit();
}

#[test]
fn a_copy_that_fails_its_drill_is_named_and_goes_on_by_new_keys_alone() {
    for seed in [64, 65] {
        let mut world = World::with_traffic(seed);
        let first = world.leader().unwrap();
        let second = 3 - first;
        world.kill(second);
        world.broken_copies.insert(second);
        world.start(second);
        world.until("the standby to join", World::standby_is_ready);
        world.run(Duration::from_millis(100));
        let now = world.now;
        let active = world.gateway(first).cluster(now);
        let standby = world.gateway(second).cluster(now);
        assert_eq!(standby.drill.unwrap().failed, 1);
        for report in [&active, &standby] {
            // It would take over, and what it would not carry on is named.
            assert_eq!((report.standbys, report.unserved), (1, 1), "{report:?}");
            assert!(
                report.named[0].reason.contains("failed the drill"),
                "{report:?}"
            );
        }
        let refused = world.gateway(first).switchover_plan(now);
        assert!(refused.is_err(), "{refused:?}");
        let (crash, from) = (world.now, world.events.len());
        world.kill(first);
        world.until("a takeover", |world| world.leader() == Some(second));
        world.until("new keys", |world| {
            world.since(from).any(|(who, event)| {
                who == PEER && matches!(event, Event::Ike(ike::Event::ChildRekeyed { .. }))
            })
        });
        world.traffic_flows();
        let exchanges = world.exchanges_since(crash);
        assert!(!exchanges.contains(&35), "no IKE_AUTH: {exchanges:?}");
        let now = world.now;
        assert_eq!(world.gateway(second).cluster(now).standbys, 0);
        world.audit();
    }
}

#[test]
fn a_dead_standby_is_none_in_the_report_and_in_the_metrics() {
    let mut world = World::with_traffic(66);
    let first = world.leader().unwrap();
    world.kill(3 - first);
    world.run(Duration::from_millis(60));
    let now = world.now;
    let report = world.gateway(first).cluster(now);
    assert_eq!((report.standbys, report.exact), (0, false));
    assert!(report.unserved > 0, "{report:?}");
    let text = hitless::api::cluster(&report);
    assert!(text.contains("NOBODY could take over"), "{text}");
    assert!(
        text.contains("has the right to take over but could not now"),
        "{text}"
    );
    let metrics = hitless::api::metrics(&world.gateway(first).metrics(now));
    assert!(metrics.contains("\nhitless_standbys 0\n"), "{metrics}");
    world.start(3 - first);
    world.until("a standby", |world| {
        let now = world.now;
        world.gateway(first).cluster(now).standbys == 1
    });
}

/// A standby whose configuration lacks a connection would lose its tunnels, and says so.
#[test]
fn a_copy_that_a_standby_cannot_read_is_told_of_until_it_is_reloaded() {
    let topology = Topology::new(2, "open sesame".to_owned());
    let whole = topology.member(2).unwrap();
    let mut without = whole.clone();
    without.connections.clear();
    let members = vec![topology.member(1).unwrap(), without];
    let mut world = World::with(80, members, topology.peer().unwrap());
    world.come_up();
    assert_eq!(world.leader(), Some(1));
    // No change of the SA is told meanwhile, but by a reload.
    world.run(Duration::from_millis(100));
    let now = world.now;
    let active = world.gateway(1).cluster(now);
    assert_eq!((active.standbys, active.unserved), (1, 1), "{active:?}");
    assert!(active.named[0].reason.contains("standby's copy"));
    let standby = world.gateway(2).cluster(now);
    assert_eq!(standby.unserved, 1, "{standby:?}");
    let reason = &standby.named[0].reason;
    assert!(reason.contains("no connection"), "{reason}");
    let drill = standby.drill.unwrap();
    assert_eq!((drill.passed, drill.waiting, drill.failed), (0, 0, 1));
    world.ask(2, |gateway, now, entropy| {
        let said = gateway.reload(now, entropy, whole).unwrap();
        assert!(said.ends_with("; 1 IKE_SA can be read now"), "{said}");
    });
    world.run(Duration::from_millis(50));
    let now = world.now;
    let active = world.gateway(1).cluster(now);
    assert_eq!((active.standbys, active.unserved), (1, 0), "{active:?}");
    let drill = world.gateway(2).cluster(now).drill.unwrap();
    assert_eq!((drill.passed, drill.waiting, drill.failed), (1, 0, 0));
    world.kill(1);
    world.until("a takeover", |world| world.leader() == Some(2));
    let exact = |event: &Event| {
        matches!(
            event,
            Event::Leads {
                base: Some(_),
                exact: true,
                ..
            }
        )
    };
    assert!(world.happened(2, exact));
    world.traffic_flows();
    world.audit();
}

/// It leads on nothing, and the other one may have an IKE SA with the same peer: it cannot assert that
/// there is no other (RFC 7296 section 2.4).
#[test]
fn who_starts_behind_a_cut_sync_link_ends_no_ike_sa_of_the_others() {
    let mut world = World::with_traffic(82);
    let first = world.leader().unwrap();
    let second = 3 - first;
    world.traffic = false;
    let peers = world.gateway(PEER).ike_sas();
    world.network.isolated.insert(second);
    world.kill(second);
    world.start(second);
    world.until("both to lead", |world| world.leaders().len() == 2);
    world.ask(second, |gateway, now, entropy| {
        gateway.initiate(now, entropy, "net", None).unwrap();
    });
    world.until("an IKE SA of its own", |world| {
        !world.gateway(second).ike_sas().is_empty()
    });
    world.run(Duration::from_secs(1));
    let here = world.gateway(PEER).ike_sas();
    assert_eq!(here.len(), 2);
    assert!(
        peers
            .iter()
            .all(|(ike, _)| here.iter().any(|(it, _)| it == ike))
    );
    // Once they hear each other there is one that leads, and no other.
    world.network.isolated.clear();
    world.until("one to lead", |world| world.leader().is_some());
    world.until("a standby", World::standby_is_ready);
    world.traffic = true;
    world.traffic_flows();
    world.audit();
}
