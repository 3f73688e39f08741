//! Planned switchovers under traffic: nothing is lost, nothing comes twice.

use std::time::Duration;

use hitless::gateway::Event;
use hitless::lab::Topology;

use crate::world::World;

/// Traffic both ways without a break; each round hands the lead over. The probes that each host
/// sent and the other did not receive.
pub fn lost_in_switchovers(world: &mut World, rounds: usize) -> [usize; 2] {
    for _ in 0..rounds {
        let active = world.leader().unwrap();
        world.ask(active, |gateway, now, entropy| {
            gateway.switchover(now, entropy);
        });
        world.until("a successor", |world| {
            world.leader().is_some_and(|leader| leader != active)
        });
        world.until("a standby", World::standby_is_ready);
        world.run(Duration::from_millis(400));
    }
    world.traffic = false;
    world.run(Duration::from_secs(1));
    world.audit();
    let [a, b] = world.received();
    [world.b.sent().len() - a, world.a.sent().len() - b]
}

fn figure(world: &mut World, who: u8, series: &str) -> f64 {
    let now = world.now;
    let report = world.gateway(who).metrics(now);
    let text = hitless::api::metrics(&report);
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.expect("it is told").trim().parse().expect("a number")
}

const FORWARDED: &str = "hitless_late_packets_total{end=\"forwarded\"}";
const TAKEN: &str = "hitless_late_packets_total{end=\"taken\"}";

#[test]
fn switchovers_under_traffic_lose_no_packet_and_repeat_none() {
    let mut world = World::with_traffic(70);
    let lost = lost_in_switchovers(&mut world, 6);
    assert_eq!(lost, [0, 0]);
    let [forwarded, taken] = [FORWARDED, TAKEN].map(|series| {
        let ends = [1, 2].map(|who| figure(&mut world, who, series));
        ends.iter().sum::<f64>()
    });
    assert!(forwarded > 0.0, "nothing came late: this proves nothing");
    assert_eq!(forwarded, taken);
    let skips = world.since(0).filter(
        |(_, event)| matches!(event, Event::Leads { base: Some(_), skip, .. } if skip.is_some_and(|skip| skip > 0))
            || matches!(event, Event::Inherited { skip } if *skip > 0),
    );
    assert_eq!(skips.count(), 0);
}

/// A label of a late packet names the network and its side: not a place in somebody's file, nor the order
/// of Ethernet addresses, which may come of names that each member has its own of.
#[test]
fn late_packets_find_their_network_where_the_ports_have_another_order() {
    let topology = Topology::new(2, "open sesame".to_owned());
    let mut members = [1, 2].map(|id| topology.member(id).unwrap());
    members[1].ports.reverse();
    let [first, second] = members[1].ports.as_mut_slice() else {
        panic!("two ports");
    };
    std::mem::swap(&mut first.mac, &mut second.mac);
    let mut world = World::with(74, members.into(), topology.peer().unwrap());
    world.come_up();
    assert_eq!(lost_in_switchovers(&mut world, 6), [0, 0]);
    let taken: f64 = [1, 2]
        .map(|who| figure(&mut world, who, TAKEN))
        .iter()
        .sum();
    assert!(taken > 0.0, "nothing came late: this proves nothing");
}

/// Nobody leads while the standby is waited for, and what comes meanwhile is forwarded however long that
/// takes: the time of forwarding is counted from when the other one leads.
#[test]
fn forwarding_outlasts_a_handing_over_that_takes_longer() {
    const LATE: Duration = Duration::from_millis(2);
    let topology = Topology::new(2, "open sesame".to_owned());
    let members = (1..=2).map(|id| {
        let mut config = topology.member(id).unwrap();
        config.cluster.late = LATE;
        config
    });
    let mut world = World::with(77, members.collect(), topology.peer().unwrap());
    world.come_up();
    let active = world.leader().unwrap();
    // What it acknowledges is lost for a while.
    world.network.fate = Some(Box::new(move |from, _, _| from == active));
    world.ask(active, |gateway, now, entropy| {
        gateway.switchover(now, entropy);
    });
    world.run(6 * LATE);
    assert_eq!(world.leader(), None, "nobody may yet");
    world.network.fate = None;
    world.until("a successor", |world| {
        world.leader().is_some_and(|leader| leader != active)
    });
    world.run(Duration::from_millis(400));
    world.traffic = false;
    world.run(Duration::from_secs(1));
    world.audit();
    let [a, b] = world.received();
    assert_eq!((a, b), (world.b.sent().len(), world.a.sent().len()));
}

#[test]
fn without_forwarding_a_switchover_loses_what_comes_late() {
    let topology = Topology::new(2, "open sesame".to_owned());
    let members = (1..=2).map(|id| {
        let mut config = topology.member(id).unwrap();
        config.cluster.late = Duration::ZERO;
        config
    });
    let mut world = World::with(71, members.collect(), topology.peer().unwrap());
    world.come_up();
    let lost = lost_in_switchovers(&mut world, 6);
    assert!(lost[0] > 0 && lost[1] > 0, "{lost:?}");
}

#[test]
fn a_shutdown_forwards_late_packets_before_the_process_ends() {
    let mut world = World::with_traffic(72);
    let active = world.leader().unwrap();
    world.ask(active, |gateway, now, entropy| {
        gateway.shut_down(now, entropy);
    });
    world.until("its end", |world| {
        world.sync_happened(active, |event| *event == hitless_sync::Event::Stopped)
    });
    world.kill(active);
    assert_eq!(world.leader(), Some(3 - active));
    world.run(Duration::from_millis(400));
    world.traffic = false;
    world.run(Duration::from_secs(1));
    world.audit();
    let [a, b] = world.received();
    assert_eq!((a, b), (world.b.sent().len(), world.a.sent().len()));
}

/// Nobody has noticed yet that the standby is dead: it was handed nothing, so nothing is over.
#[test]
fn a_switchover_to_a_standby_that_has_just_died_is_taken_back() {
    for (seed, late) in [(75, true), (76, false)] {
        let topology = Topology::new(2, "open sesame".to_owned());
        let members = (1..=2).map(|id| {
            let mut config = topology.member(id).unwrap();
            if !late {
                config.cluster.late = Duration::ZERO;
            }
            config
        });
        let mut world = World::with(seed, members.collect(), topology.peer().unwrap());
        world.come_up();
        let active = world.leader().unwrap();
        // A standby that is gone for long costs keys that are used.
        world.traffic = false;
        world.run(Duration::from_millis(200));
        let sas = world.gateway(active).ike_sas();
        let since = world.events.len();
        world.kill(3 - active);
        world.ask(active, |gateway, now, entropy| {
            gateway.switchover(now, entropy);
        });
        assert!(!world.gateway(active).leading());
        let took = world.now;
        world.until("it to go on", |world| world.leader() == Some(active));
        let took = world.now.since(took);
        assert!(took < Duration::from_millis(60), "{took:?}");
        world.run(Duration::from_secs(2));
        assert_eq!(world.gateway(active).ike_sas(), sas);
        let leads = |(_, event): &(u8, &Event)| matches!(event, Event::Leads { .. });
        assert_eq!(world.since(since).filter(leads).count(), 0);
        assert!(world.sync_happened(active, |event| *event
            == hitless_sync::Event::SwitchoverRefused {
                reason: hitless_sync::NoSwitchover::StandbyLost
            }));
        world.traffic = true;
        world.traffic_flows();
        world.start(3 - active);
        world.until("a standby", World::standby_is_ready);
        world.run(Duration::from_millis(400));
        lost_in_switchovers(&mut world, 1);
        assert_eq!(world.leader(), Some(3 - active));
    }
}
