//! What an operator sees: `list-sas` and `status`.

use std::time::Duration;

use hitless::api;
use hitless::api::{IkeState, Role};

use crate::world::{PEER, World};

#[test]
fn list_sas_says_established_on_the_active_and_passive_on_the_standby() {
    let mut world = World::with_traffic(40);
    let active = world.leader().unwrap();
    let (mine, copy) = (world.list_sas(active), world.list_sas(3 - active));
    assert_eq!((mine.len(), copy.len()), (1, 1));
    assert_eq!(mine[0].state, IkeState::Established);
    assert_eq!(copy[0].state, IkeState::Passive);
    assert_eq!(mine[0].initiator_spi, copy[0].initiator_spi);
    assert_eq!(mine[0].children[0].spi_in, copy[0].children[0].spi_in);
    assert!(mine[0].children[0].lease.is_some() && copy[0].children[0].lease.is_none());
    let text = api::list_sas(&mine);
    assert!(
        text.contains("tunnel: #") && text.contains("ESTABLISHED, IKEv2"),
        "{text}"
    );
    assert!(text.contains("INSTALLED, TUNNEL"), "{text}");
    let text = api::list_sas(&copy);
    assert!(text.contains("PASSIVE, IKEv2"), "{text}");
}

#[test]
fn list_sas_counts_both_directions() {
    let mut world = World::with_traffic(41);
    world.traffic = false;
    world.run(Duration::from_millis(500));
    let active = world.leader().unwrap();
    let child = world.list_sas(active)[0].children[0].clone();
    let [a, b] = world.received();
    assert_eq!((child.packets_out, child.packets_in), (a as u64, b as u64));
    let peer = world.list_sas(PEER)[0].children[0].clone();
    assert_eq!((peer.packets_out, peer.packets_in), (b as u64, a as u64));
    assert!(child.used_in.is_some() && child.used_out.is_some());
}

#[test]
fn status_shows_roles_leases_and_drops() {
    let mut world = World::with_traffic(42);
    let active = world.leader().unwrap();
    let status = world.status(active);
    assert_eq!(status.role, Role::Active);
    assert_eq!((status.ike_sas, status.child_sas), (1, 1));
    let lease = &status.leases[0];
    assert!(
        lease.next <= lease.grant && lease.inbound_top <= lease.high_water,
        "{lease:?}"
    );
    assert!(lease.next > 1 && lease.inbound_top > 0, "{lease:?}");
    assert_eq!(lease.child, "tunnel.net");
    let standby = world.status(3 - active);
    assert_eq!(standby.role, Role::Standby);
    assert_eq!((standby.leader, standby.child_sas), (Some(active), 1));
    assert!(standby.leases.is_empty() && standby.sync.vouched);
    // The standby is flooded with what the switch does not know yet: counted, not carried.
    assert!(world.drops(3 - active, "not_active") > 0);
    let text = api::status(&world.status(3 - active));
    assert!(text.contains("not_active"), "{text}");
    let text = api::status(&status);
    assert!(
        text.contains("tunnel.net") && text.contains("active"),
        "{text}"
    );
}

#[test]
fn a_switchover_that_cannot_be_is_refused_with_the_reason() {
    let mut world = World::with_traffic(43);
    let active = world.leader().unwrap();
    let standby = 3 - active;
    let asked = |world: &mut World, who| {
        let now = world.now;
        world.gateway(who).can_switch_over(now)
    };
    assert_eq!(asked(&mut world, active).unwrap().0, standby);
    let reason = asked(&mut world, standby).unwrap_err();
    assert_eq!(
        reason,
        format!("this member is not active; ask member {active}")
    );
    // A standby that has just died still holds every lease, but will not answer.
    world.kill(standby);
    world.run(Duration::from_millis(40));
    assert!(
        asked(&mut world, active)
            .unwrap_err()
            .contains("no standby")
    );
    world.ask(active, |gateway, now, entropy| {
        gateway.switchover(now, entropy)
    });
    world.run(Duration::from_millis(100));
    assert_eq!(world.leader(), Some(active));
    world.traffic_flows();
}

#[test]
fn a_second_switchover_while_one_is_under_way_is_refused() {
    let mut world = World::with_traffic(44);
    let active = world.leader().unwrap();
    world.ask(active, |gateway, now, entropy| {
        gateway.switchover(now, entropy);
        let again = gateway.can_switch_over(now);
        assert_eq!(again.unwrap_err(), "a switchover is under way");
        gateway.switchover(now, entropy);
    });
    world.until("a switchover", |world| world.leader() == Some(3 - active));
    world.traffic_flows();
    world.audit();
}
