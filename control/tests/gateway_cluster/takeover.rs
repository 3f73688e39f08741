//! A tunnel survives the loss of the active member, planned or not.

use std::time::Duration;

use hitless::gateway::Event;
use hitless::ike::{self, Input};
use hitless_sync::StepDown;

use crate::world::{PEER, World};

const IKE_SA_INIT: u8 = 34;
const IKE_AUTH: u8 = 35;

#[test]
fn a_tunnel_comes_up_and_traffic_flows_both_ways() {
    let mut world = World::with_traffic(1);
    world.traffic_flows();
    let [a, b] = [world.a.sent().len(), world.b.sent().len()];
    world.traffic = false;
    world.run(Duration::from_millis(50));
    assert_eq!(world.received(), [b, a], "every probe arrives");
    world.audit();
}

#[test]
fn rfc6311_r25_r26_a_takeover_keeps_the_tunnel_above_the_recorded_grant() {
    let mut world = World::with_traffic(2);
    let active = world.leader().unwrap();
    let lease = world.status(active).leases[0].clone();
    let crash = world.now;
    world.kill(active);
    world.until("a takeover", |world| world.leader().is_some());
    world.traffic_flows();
    world.run(Duration::from_millis(500));

    let standby = world.leader().unwrap();
    assert_ne!(standby, active);
    let leads = world
        .events
        .iter()
        .rev()
        .find_map(|(_, who, event)| match event {
            Event::Leads {
                base,
                exact,
                sas,
                skip,
                ..
            } if *who == standby => Some((base.is_some(), *exact, *sas, skip.unwrap_or_default())),
            _ => None,
        });
    let (inherits, exact, sas, skip) = leads.unwrap();
    assert!(inherits && exact && sas == 1, "{leads:?}");
    assert!(skip < 1 << 31, "{skip}");
    let exchanges = world.exchanges_since(crash);
    assert!(
        !exchanges.contains(&IKE_SA_INIT) && !exchanges.contains(&IKE_AUTH),
        "{exchanges:?}"
    );
    let after: Vec<u64> = world
        .esp()
        .iter()
        .filter(|esp| esp.port == usize::from(standby))
        .map(|esp| esp.number)
        .collect();
    // S1: the active had used at most what it was granted; the standby begins above its record.
    assert!(
        after[0] > lease.grant,
        "{} after a grant of {}",
        after[0],
        lease.grant
    );
    assert!(
        after[0] < lease.grant + (1 << 20),
        "{} after {}",
        after[0],
        lease.grant
    );
    world.audit();
}

#[test]
fn rfc6311_r39_what_was_recorded_before_a_crash_is_not_accepted_after_it() {
    // S3 and the floor H of a strict takeover.
    let mut world = World::with_traffic(3);
    let active = world.leader().unwrap();
    let old: Vec<Vec<u8>> = world
        .esp()
        .into_iter()
        .filter(|esp| esp.port == usize::from(PEER))
        .map(|esp| esp.frame)
        .collect();
    let high_water = world.status(active).leases[0].high_water;
    world.kill(active);
    world.until("a takeover", |world| world.leader().is_some());
    world.traffic_flows();
    world.traffic = false;
    world.run(Duration::from_millis(100));
    let standby = world.leader().unwrap();
    assert!(world.status(standby).leases[0].high_water > high_water);

    let (received, replays) = (world.received(), world.drops(standby, "replay"));
    let mut replayed = 0;
    for frames in old.chunks(16) {
        for frame in frames {
            replayed += u64::from(world.outside.inject(frame));
        }
        world.run(Duration::from_millis(1));
    }
    assert!(replayed > 100, "{replayed}");
    assert_eq!(world.received(), received);
    assert_eq!(world.drops(standby, "replay"), replays + replayed);
    world.audit();
}

#[test]
fn a_switchover_by_request_skips_no_number() {
    let mut world = World::with_traffic(4);
    let active = world.leader().unwrap();
    let standby = 3 - active;
    let before = world.now;
    let now = world.now;
    assert_eq!(
        world.gateway(active).can_switch_over(now).unwrap().0,
        standby
    );
    world.ask(active, |gateway, now, entropy| {
        gateway.switchover(now, entropy)
    });
    world.until("a switchover", |world| world.leader() == Some(standby));
    let gap = world.now.since(before);
    world.traffic_flows();
    world.run(Duration::from_millis(200));
    world.traffic = false;
    world.run(Duration::from_millis(100));

    let esp = world.esp();
    let last = esp.iter().rfind(|e| e.port == usize::from(active)).unwrap();
    let first = esp.iter().find(|e| e.port == usize::from(standby)).unwrap();
    assert_eq!((first.spi, first.number), (last.spi, last.number + 1));
    assert!(world.happened(active, |event| {
        matches!(
            event,
            Event::SteppedDown {
                reason: StepDown::Switchover
            }
        )
    }));
    assert!(gap < Duration::from_millis(30), "{gap:?}");
    // What was under way while nobody led is all that is lost: a probe a millisecond.
    let lost = world.a.sent().len() - world.b.received().len();
    assert!(
        lost <= 2 + gap.as_millis() as usize,
        "{lost} lost in {gap:?}"
    );
    let exchanges = world.exchanges_since(before);
    assert!(!exchanges.contains(&IKE_AUTH), "{exchanges:?}");
    world.audit();
}

#[test]
fn an_ike_message_during_a_handover_does_not_stall_the_gateway() {
    // Every commit is refused then; IKE must not make it anew for ever.
    let mut world = World::with_traffic(5);
    let active = world.leader().unwrap();
    let sa = world.gateway(active).ike_sas()[0].1[0];
    world.ask(active, |gateway, now, entropy| {
        gateway.switchover(now, entropy)
    });
    world.ask(active, |gateway, now, entropy| {
        gateway.ike(now, entropy, Input::RekeyChild(sa));
    });
    world.until("a switchover", |world| world.leader() == Some(3 - active));
    world.traffic_flows();
    world.audit();
}

#[test]
fn a_switchover_there_and_back_and_a_crash_after_it() {
    let mut world = World::with_traffic(6);
    for _ in 0..3 {
        let active = world.leader().unwrap();
        world.ask(active, |gateway, now, entropy| {
            gateway.switchover(now, entropy)
        });
        world.until("a switchover", |world| world.leader() == Some(3 - active));
        world.until("a standby", World::standby_is_ready);
        world.traffic_flows();
    }
    let active = world.leader().unwrap();
    world.kill(active);
    world.until("a takeover", |world| world.leader().is_some());
    world.traffic_flows();
    world.audit();
}

#[test]
fn the_peer_rekeys_the_tunnel_after_a_takeover() {
    let mut world = World::with_traffic(7);
    let active = world.leader().unwrap();
    world.kill(active);
    world.until("a takeover", |world| world.leader().is_some());
    world.traffic_flows();
    for _ in 0..2 {
        let from = world.events.len();
        let sas = world.gateway(PEER).ike_sas();
        let (ike, child) = (sas[0].0, sas[0].1[0]);
        world.ask(PEER, |gateway, now, entropy| {
            gateway.ike(now, entropy, Input::RekeyChild(child));
        });
        world.until("a Child SA rekeying", |world| {
            world.since(from).any(|(who, event)| {
                who == PEER && matches!(event, Event::Ike(ike::Event::ChildRekeyed { .. }))
            })
        });
        world.traffic_flows();
        world.ask(PEER, |gateway, now, entropy| {
            gateway.ike(now, entropy, Input::RekeyIke(ike));
        });
        world.until("an IKE SA rekeying", |world| {
            world.since(from).any(|(who, event)| {
                who == PEER && matches!(event, Event::Ike(ike::Event::IkeRekeyed { .. }))
            })
        });
        world.run(Duration::from_secs(1));
        world.traffic_flows();
    }
    assert_eq!(world.gateway(PEER).ike_sas().len(), 1);
    world.audit();
}

/// Kills the active at each moment of an exchange that `ask` starts, a quarter of a millisecond
/// apart.
fn killed_during(seed: u64, ask: impl Fn(&mut World, u8)) {
    for moment in 0..24 {
        let mut world = World::with_traffic(seed + moment);
        let active = world.leader().unwrap();
        let crash = world.now;
        ask(&mut world, active);
        for _ in 0..moment {
            world.step();
        }
        world.kill(active);
        world.until("a takeover", |world| world.leader().is_some());
        world.traffic_flows();
        // Long enough for what one side still asks of the other to be answered.
        world.pace = Duration::from_millis(20);
        world.run(Duration::from_secs(12));
        world.pace = Duration::from_millis(1);
        world.traffic_flows();
        let exchanges = world.exchanges_since(crash);
        assert!(
            !exchanges.contains(&IKE_AUTH),
            "moment {moment}: {exchanges:?}"
        );
        let ours = world.list_sas(3 - active);
        let theirs = world.list_sas(PEER);
        assert_eq!((ours.len(), theirs.len()), (1, 1), "moment {moment}");
        let (ours, theirs) = (&ours[0].children, &theirs[0].children);
        assert_eq!((ours.len(), theirs.len()), (1, 1), "moment {moment}");
        assert_eq!(ours[0].spi_in, theirs[0].spi_out, "moment {moment}");
        world.audit();
    }
}

#[test]
fn an_active_killed_at_any_moment_of_the_peers_child_rekeying_loses_nothing() {
    killed_during(1000, |world, _| {
        let child = world.gateway(PEER).ike_sas()[0].1[0];
        world.ask(PEER, |gateway, now, entropy| {
            gateway.ike(now, entropy, Input::RekeyChild(child));
        });
    });
}

#[test]
fn an_active_killed_at_any_moment_of_its_own_child_rekeying_loses_nothing() {
    killed_during(2000, |world, active| {
        let child = world.gateway(active).ike_sas()[0].1[0];
        world.ask(active, |gateway, now, entropy| {
            gateway.ike(now, entropy, Input::RekeyChild(child));
        });
    });
}

#[test]
fn an_active_killed_at_any_moment_of_the_peers_ike_rekeying_loses_nothing() {
    killed_during(3000, |world, _| {
        let ike = world.gateway(PEER).ike_sas()[0].0;
        world.ask(PEER, |gateway, now, entropy| {
            gateway.ike(now, entropy, Input::RekeyIke(ike));
        });
    });
}

#[test]
fn an_active_killed_at_any_moment_of_its_own_ike_rekeying_loses_nothing() {
    killed_during(4000, |world, active| {
        let ike = world.gateway(active).ike_sas()[0].0;
        world.ask(active, |gateway, now, entropy| {
            gateway.ike(now, entropy, Input::RekeyIke(ike));
        });
    });
}

#[test]
fn an_active_killed_at_any_moment_of_a_switchover_loses_nothing() {
    killed_during(5000, |world, active| {
        world.ask(active, |gateway, now, entropy| {
            gateway.switchover(now, entropy)
        });
    });
}
