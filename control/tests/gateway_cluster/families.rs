//! IPv4 and IPv6, inside and outside of the tunnel: all four pairs come up and survive a takeover.

use std::time::Duration;

use hitless::lab::{Family, Topology};

use crate::world::{ESP, PEER, UDP, World, carried};

const IKE_SA_INIT: u8 = 34;
const IKE_AUTH: u8 = 35;

/// A tunnel is negotiated, carries traffic both ways, and is carried on when the active dies.
fn story(seed: u64, outside: Family, inside: Family) -> World {
    let topology = Topology {
        outside,
        inside,
        ..Topology::new(2, "open sesame".to_owned())
    };
    let mut world = World::of(seed, &topology);
    world.come_up();
    world.traffic_flows();
    let active = world.leader().unwrap();
    let grant = world.status(active).leases[0].grant;
    let crash = world.now;
    world.kill(active);
    world.until("a takeover", |world| world.leader().is_some());
    world.traffic_flows();
    world.run(Duration::from_millis(300));

    let standby = world.leader().unwrap();
    assert_ne!(standby, active);
    let exchanges = world.exchanges_since(crash);
    assert!(
        !exchanges.contains(&IKE_SA_INIT) && !exchanges.contains(&IKE_AUTH),
        "{exchanges:?}"
    );
    let esp = world.esp();
    let first = esp.iter().find(|esp| esp.port == usize::from(standby));
    assert!(first.unwrap().number > grant, "above the recorded grant");
    assert!(esp.iter().any(|esp| esp.port == usize::from(PEER)));
    for captured in world.outside.capture() {
        // Nothing of the tunnel's in the other family.
        if let Some((ESP | UDP, _)) = carried(&captured.frame) {
            let version = captured.frame[14] >> 4;
            assert_eq!(version == 6, outside == Family::V6, "{captured:?}");
        }
    }
    world.audit();
    world
}

#[test]
fn a_tunnel_over_ipv6_carries_ipv4_and_survives_a_takeover() {
    story(41, Family::V6, Family::V4);
}

#[test]
fn a_tunnel_over_ipv4_carries_ipv6_and_survives_a_takeover() {
    story(42, Family::V4, Family::V6);
}

#[test]
fn a_tunnel_over_ipv6_carries_ipv6_and_survives_a_takeover() {
    story(43, Family::V6, Family::V6);
}

#[test]
fn rfc7296_section_2_23_hashes_over_ipv6_addresses_find_no_nat_where_there_is_none() {
    let mut world = story(44, Family::V6, Family::V6);
    for who in [PEER, world.leader().unwrap()] {
        let sas = world.list_sas(who);
        assert!(!sas.is_empty());
        for sa in &sas {
            assert!(sa.local_host.starts_with("2001:db8:f::"), "{sa:?}");
            // A NAT would have moved it to port 4500.
            assert_eq!((sa.local_port, sa.remote_port), (500, 500));
        }
    }
    let esp = world.esp();
    assert!(!esp.is_empty(), "ESP travels by itself (RFC 4303)");
}
