//! A standby whose file is not the active's: what it would not carry on, and why, before it leads.

use std::time::Duration;

use hitless::api::Choice;
use hitless::config::Config;
use hitless::gateway::Event;
use hitless::lab::Topology;

use crate::world::World;

/// Two members and the file that member 2 should have; `change` is what it has instead.
fn with(seed: u64, change: impl FnOnce(&mut Config)) -> (World, Config) {
    let topology = Topology::new(2, "open sesame".to_owned());
    let alike = topology.member(2).unwrap();
    let mut other = alike.clone();
    change(&mut other);
    let members = vec![topology.member(1).unwrap(), other];
    let mut world = World::with(seed, members, topology.peer().unwrap());
    world.come_up();
    assert_eq!(world.leader(), Some(1));
    world.run(Duration::from_millis(100));
    (world, alike)
}

/// Both members name the one SA, and say why; the standby could take over all the same.
fn unserved(world: &mut World, reason: &str) {
    let now = world.now;
    for who in [1, 2] {
        let report = world.gateway(who).cluster(now);
        assert_eq!((report.standbys, report.unserved), (1, 1), "{report:?}");
        assert!(report.named[0].reason.contains(reason), "{report:?}");
        let text = hitless::api::cluster(&report);
        assert!(text.contains(reason), "{text}");
    }
    let told = |event: &Event| matches!(event, Event::WouldClose { .. });
    assert!(world.happened(2, told));
    let metrics = hitless::api::metrics(&world.gateway(1).metrics(now));
    assert!(
        metrics.contains("\nhitless_unserved_child_sas 1\n"),
        "{metrics}"
    );
    // Not with the SA: the lead is not handed to it where nothing is wrong with the active.
    let refused = world.gateway(1).switchover_plan(now);
    assert!(refused.is_err(), "{refused:?}");
}

fn mended(world: &mut World, alike: Config) {
    world.ask(2, |gateway, now, entropy| {
        gateway.reload(now, entropy, alike).unwrap();
    });
    world.run(Duration::from_millis(50));
    let now = world.now;
    for who in [1, 2] {
        let report = world.gateway(who).cluster(now);
        assert_eq!((report.standbys, report.unserved), (1, 0), "{report:?}");
    }
    world.gateway(1).switchover_plan(now).unwrap();
    world.kill(1);
    world.until("a takeover", |world| world.leader() == Some(2));
    world.traffic_flows();
    world.audit();
}

#[test]
fn a_connection_that_means_others_on_a_standby_is_told_of_until_it_is_reloaded() {
    for seed in [120, 121] {
        let (mut world, alike) = with(seed, |other| {
            let remote = &mut other.connections[0].remote_addrs;
            remote.push("192.0.2.77".parse().unwrap());
        });
        unserved(&mut world, "means other ends or users");
        mended(&mut world, alike);
    }
}

#[test]
fn a_child_that_protects_something_else_on_a_standby_is_told_of_until_it_is_reloaded() {
    let (mut world, alike) = with(122, |other| {
        let child = &mut other.connections[0].children[0];
        child.local_ts.truncate(1);
        child.remote_ts.push(child.local_ts[0]);
    });
    unserved(&mut world, "has not its child, or with other selectors");
    mended(&mut world, alike);
}

#[test]
fn an_address_that_a_standby_lacks_is_told_of_until_it_is_reloaded() {
    let (mut world, alike) = with(123, |other| {
        let connection = &mut other.connections[0];
        connection.local_addrs = vec!["192.0.2.88".parse().unwrap()];
    });
    unserved(&mut world, "has not the address that its peer sends to");
    mended(&mut world, alike);
}

#[test]
fn a_standby_that_lacks_what_an_sa_is_for_leads_all_the_same_where_the_active_dies() {
    let (mut world, _) = with(124, |other| {
        other.connections[0].children[0].remote_ts.truncate(0);
    });
    unserved(&mut world, "has not its child, or with other selectors");
    world.kill(1);
    world.until("a takeover", |world| world.leader() == Some(2));
}

#[test]
fn ports_on_other_networks_are_told_of_by_both_members_and_cost_no_right() {
    let (mut world, _) = with(125, |other| {
        let port = other.ports.iter_mut().find(|port| port.protected).unwrap();
        port.addresses[0].length -= 1;
    });
    let now = world.now;
    for (who, other) in [(1, 2), (2, 1)] {
        let report = world.gateway(who).cluster(now);
        assert_eq!((report.standbys, report.unserved), (1, 0), "{report:?}");
        let said = format!("the ports of member {other} are on other networks");
        assert!(hitless::api::cluster(&report).contains(&said), "{report:?}");
        let differs = |event: &Event| {
            matches!(
                event,
                Event::Sync(hitless_sync::Event::LayoutDiffers { .. })
            )
        };
        let all = world.events.iter().filter(|(_, at, _)| *at == who);
        assert_eq!(all.filter(|(_, _, event)| differs(event)).count(), 1);
        let metrics = hitless::api::metrics(&world.gateway(who).metrics(now));
        assert!(metrics.contains("\nhitless_cluster_warnings 1\n"));
    }
    world.gateway(1).switchover_plan(now).unwrap();
}

#[test]
fn members_alike_but_for_names_and_addresses_of_their_own_warn_of_nothing() {
    let (mut world, _) = with(126, |other| {
        other.ports[0].interface = "another".to_owned();
        other.ports.reverse();
    });
    let now = world.now;
    let report = world.gateway(2).cluster(now);
    assert!(report.warnings.is_empty(), "{report:?}");
}

/// Sync messages of more octets than a packet of the path takes are lost; heartbeats are not.
#[test]
fn a_sync_link_that_loses_what_is_large_is_named() {
    let mut world = World::with_traffic(127);
    let active = world.leader().unwrap();
    world.network.fate = Some(Box::new(move |from, _, datagram| {
        from != active || datagram.len() <= 600
    }));
    world.ask(active, |gateway, now, entropy| {
        let choice = Choice {
            child: Some("net".to_owned()),
            ..Choice::default()
        };
        gateway.rekey(now, entropy, &choice).unwrap();
    });
    world.run(Duration::from_secs(1));
    let now = world.now;
    let report = world.gateway(active).cluster(now);
    let said = format!("do not reach member {}", 3 - active);
    assert!(hitless::api::cluster(&report).contains(&said), "{report:?}");
    world.network.fate = None;
    world.until("a standby", World::standby_is_ready);
    world.run(Duration::from_secs(1));
    let now = world.now;
    let report = world.gateway(active).cluster(now);
    assert!(report.warnings.is_empty(), "{report:?}");
    world.audit();
}
