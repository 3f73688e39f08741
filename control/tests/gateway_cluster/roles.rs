//! Members come and go: restart, degraded operation, split brain, three members.

use std::time::Duration;

use hitless::gateway::Event;
use hitless::ike;
use hitless::lab::Topology;
use hitless_sync::Event as SyncEvent;

use crate::world::{PEER, World};

#[test]
fn a_standby_restarts_and_joins_again() {
    let mut world = World::with_traffic(20);
    let active = world.leader().unwrap();
    let standby = 3 - active;
    world.kill(standby);
    world.run(Duration::from_millis(300));
    let began = world.now;
    world.start(standby);
    world.until("the standby to join", World::standby_is_ready);
    let took = world.now.since(began);
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(world.leader(), Some(active));
    world.traffic_flows();
    world.kill(active);
    world.until("a takeover", |world| world.leader() == Some(standby));
    world.traffic_flows();
    world.audit();
}

#[test]
fn a_link_is_made_anew_soon_whichever_member_restarts() {
    for (seed, who) in [(21, 1), (22, 2)] {
        let mut world = World::with_traffic(seed);
        for _ in 0..3 {
            world.kill(who);
            world.run(Duration::from_millis(100));
            let began = world.now;
            world.start(who);
            world.until("a leader with a standby", World::standby_is_ready);
            let took = world.now.since(began);
            assert!(took < Duration::from_secs(2), "member {who}: {took:?}");
        }
        world.traffic_flows();
        world.audit();
    }
}

#[test]
fn both_members_restart_and_the_peer_finds_them_again() {
    let mut topology = Topology::new(2, "open sesame".to_owned());
    topology.dpd_delay = "1s";
    let mut world = World::of(23, &topology);
    world.come_up();
    world.kill(1);
    world.kill(2);
    world.run(Duration::from_millis(200));
    world.start(1);
    world.start(2);
    world.until("a leader with a standby", World::standby_is_ready);
    // The old keys are gone with the members: nobody may use them, the peer makes new ones.
    let from = world.events.len();
    world.until("a new tunnel", |world| {
        world.since(from).any(|(who, event)| {
            who == 0 && matches!(event, Event::Ike(ike::Event::ChildEstablished { .. }))
        })
    });
    world.traffic_flows();
    world.audit();
}

#[test]
fn degraded_traffic_goes_on_and_a_busy_sa_gets_fresh_keys() {
    let mut world = World::with_traffic(24);
    let active = world.leader().unwrap();
    world.kill(3 - active);
    world.until("degraded", |world| world.status(active).degraded);
    let from = world.events.len();
    world.until("new keys", |world| {
        world.since(from).any(|(who, event)| {
            who == active && matches!(event, Event::Ike(ike::Event::ChildRekeyed { .. }))
        })
    });
    let (received, sent) = (world.received(), world.a.sent().len());
    world.run(Duration::from_secs(5));
    // Solo keys need no grant: nothing stalls any more.
    let arrived = world.received()[1] - received[1];
    let expected = world.a.sent().len() - sent;
    assert!(arrived + 5 >= expected, "{arrived} of {expected}");
    // And they are shared again once a standby has joined.
    world.start(3 - active);
    world.until("the standby to join", World::standby_is_ready);
    assert!(!world.status(active).degraded);
    world.kill(active);
    world.until("a takeover", |world| world.leader() == Some(3 - active));
    world.traffic_flows();
    world.audit();
}

#[test]
fn rfc6311_r3_r4_a_split_brain_repeats_no_number_and_heals() {
    // What the old active did alone is lost when it steps down (hole D8): DPD finds it out.
    let mut topology = Topology::new(2, "open sesame".to_owned());
    topology.dpd_delay = "1s";
    let mut world = World::of(25, &topology);
    world.come_up();
    let active = world.leader().unwrap();
    world.network.isolated.insert(1);
    world.until("two leaders", |world| world.leaders().len() == 2);
    world.run(Duration::from_secs(2));
    world.audit();
    world.network.isolated.clear();
    world.until("one leader with a standby", World::standby_is_ready);
    assert!(world.happened(active, |event| matches!(event, Event::SteppedDown { .. })));
    world.traffic_flows();
    world.audit();
}

/// A world in which a leader that nobody hears has used Message IDs alone; then it is gone. Gives its
/// successor.
fn made_alone(seed: u64) -> (World, u8) {
    let mut world = World::with_traffic(seed);
    let old = world.leader().unwrap();
    world.network.isolated.insert(old);
    world.until("two leaders", |world| world.leaders().len() == 2);
    // Two replacements and their Deletes that the successor knows nothing of: its next request has
    // a Message ID of long ago, which the peer ignores.
    world.traffic = false;
    for _ in 0..2 {
        let from = world.events.len();
        world.ask(old, |gateway, now, entropy| {
            let sas = gateway.ike_sas().into_iter().flat_map(|(_, sas)| sas);
            for sa in sas.collect::<Vec<_>>() {
                gateway.ike(now, entropy, ike::Input::RekeyChild(sa));
            }
        });
        world.until("the replacement", |world| {
            world.since(from).any(|(who, event)| {
                who == PEER && matches!(event, Event::Ike(ike::Event::ChildDeleted { .. }))
            })
        });
    }
    world.run(Duration::from_millis(200));
    world.kill(old);
    world.network.isolated.clear();
    (world, 3 - old)
}

#[test]
fn rfc7296_section_2_3_requests_that_a_deposed_leader_made_alone_do_not_leave_its_successor_unheard()
 {
    let (mut world, _) = made_alone(27);
    world.traffic = true;
    let began = world.now;
    world.traffic_flows();
    let took = world.now.since(began);
    assert!(took < Duration::from_secs(8), "{took:?}");
    world.audit();
}

/// A request that the peer ignores is repeated ever more rarely; whatever else would mend the tunnel
/// waits for it. As soon as the peer is heard on an SA of the deposed leader it is given up.
#[test]
fn rfc7296_section_2_3_an_ignored_request_is_given_up_when_a_deposed_leaders_sa_is_heard() {
    let (mut world, successor) = made_alone(28);
    world.ask(successor, |gateway, now, entropy| {
        let sas = gateway.ike_sas().into_iter().flat_map(|(_, sas)| sas);
        for sa in sas.collect::<Vec<_>>() {
            gateway.ike(now, entropy, ike::Input::RekeyChild(sa));
        }
    });
    // Sent after 0, 0.5, 1.5 and 3.5 s; the next time would be after 7.5 s.
    world.run(Duration::from_millis(3_600));
    world.traffic = true;
    let began = world.now;
    world.traffic_flows();
    let took = world.now.since(began);
    assert!(took < Duration::from_secs(3), "{took:?}");
    world.audit();
}

#[test]
fn members_crash_in_turn_and_the_tunnel_is_the_same() {
    let mut world = World::with_traffic(26);
    let spi = world.list_sas(PEER)[0].responder_spi.clone();
    for round in 0..4 {
        let active = world.leader().unwrap();
        world.kill(active);
        world.until("a takeover", |world| world.leader().is_some());
        world.start(active);
        world.until("a standby", World::standby_is_ready);
        world.traffic_flows();
        let sas = world.list_sas(3 - active);
        assert_eq!(
            (sas.len(), &sas[0].responder_spi),
            (1, &spi),
            "round {round}"
        );
    }
    world.audit();
}

#[test]
fn copies_that_only_the_sync_node_has_kept_are_led_again() {
    // A leader that was deposed has told IKE to forget everything. Its node keeps copies without
    // a right; when the other member dies before they are given to this one again, it leads them:
    // the IKE SA goes on, and the Child SA gets new keys.
    let mut world = World::with_traffic(30);
    let active = world.leader().unwrap();
    world.network.isolated.insert(1);
    world.until("two leaders", |world| world.leaders().len() == 2);
    world.network.isolated.clear();
    let from = world.events.len();
    world.until("a step-down", |world| {
        world
            .since(from)
            .any(|(who, event)| who == active && matches!(event, Event::SteppedDown { .. }))
    });
    assert!(world.list_sas(active).is_empty());
    let crash = world.now;
    world.kill(3 - active);
    world.until("a leader", |world| world.leader() == Some(active));
    assert_eq!(world.list_sas(active).len(), 1);
    world.until("new keys", |world| {
        world.since(from).any(|(who, event)| {
            who == active && matches!(event, Event::Ike(ike::Event::ChildRekeyed { .. }))
        })
    });
    world.traffic_flows();
    let exchanges = world.exchanges_since(crash);
    assert!(!exchanges.contains(&35), "no IKE_AUTH: {exchanges:?}");
    world.audit();
}

#[test]
fn a_shutdown_of_the_active_hands_over() {
    let mut world = World::with_traffic(27);
    let active = world.leader().unwrap();
    world.ask(active, |gateway, now, entropy| {
        gateway.shut_down(now, entropy)
    });
    world.until("its end", |world| {
        world.sync_happened(active, |event| *event == SyncEvent::Stopped)
    });
    world.kill(active);
    world.until("a successor", |world| world.leader() == Some(3 - active));
    world.traffic_flows();
    let inherits = world.happened(3 - active, |event| {
        matches!(
            event,
            Event::Leads {
                base: Some(_),
                skip: None | Some(0),
                ..
            }
        )
    });
    assert!(inherits);
    world.audit();
}

#[test]
fn an_active_whose_disk_fails_goes_on_and_a_standby_whose_disk_fails_does_not_lead() {
    // R1: an epoch is durable before it is led.
    let mut world = World::with_traffic(28);
    let active = world.leader().unwrap();
    let standby = 3 - active;
    world.broken_disks.insert(standby);
    world.traffic_flows();
    world.kill(active);
    world.run(Duration::from_secs(1));
    assert!(world.leaders().is_empty());
    assert!(world.sync_happened(standby, |event| *event == SyncEvent::PersistFailed));
    world.broken_disks.clear();
    world.until("a takeover", |world| world.leader() == Some(standby));
    world.traffic_flows();
    world.audit();
}

#[test]
fn of_three_members_the_majority_carries_on() {
    let topology = Topology::new(3, "open sesame".to_owned());
    let mut world = World::of(29, &topology);
    world.come_up();
    let first = world.leader().unwrap();
    world.kill(first);
    world.until("a takeover", |world| world.leader().is_some());
    world.traffic_flows();
    assert_ne!(world.leader(), Some(first));
    world.audit();
}
