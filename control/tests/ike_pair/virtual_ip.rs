//! Virtual addresses (RFC 7296 sections 2.19 and 3.15), and what becomes of them at a failover.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hitless::ike::settings::{Dynamic, EngineSettings, Pool};
use hitless::ike::{Event, Input, Resume};
use hitless_sa::{MemberId, TrafficSelector};

use crate::world::{A, B, Host, SECOND, World, settings};

fn selectors(list: &[&str]) -> Vec<TrafficSelector> {
    list.iter().map(|s| s.parse().unwrap()).collect()
}

fn pool(name: &str, first: &str, last: &str, dns: &[&str]) -> Pool {
    Pool {
        name: name.to_owned(),
        first: first.parse().unwrap(),
        last: last.parse().unwrap(),
        dns: dns.iter().map(|a| a.parse().unwrap()).collect(),
    }
}

/// A gateway with a pool of each family.
fn gateway() -> EngineSettings {
    let mut b = settings(B);
    b.pools = vec![
        pool("v4", "10.3.0.1", "10.3.0.4", &["10.2.0.53"]),
        pool(
            "v6",
            "2001:db8:3::1",
            "2001:db8:3::ffff",
            &["2001:db8:2::53"],
        ),
    ];
    let connection = &mut b.connections[0];
    connection.roads.pools = vec!["v4".to_owned(), "v6".to_owned()];
    connection.remote_addrs = Vec::new();
    connection.remote_id = "*.test".parse().unwrap();
    let child = &mut connection.children[0];
    child.local_ts = selectors(&["10.2.0.0/16", "2001:db8:2::/64"]);
    child.remote_ts = selectors(&["10.3.0.1..10.3.0.4", "2001:db8:3::1..2001:db8:3::ffff"]);
    child.dynamic = Dynamic {
        local: Vec::new(),
        remote: child.remote_ts.clone(),
    };
    b
}

/// A client that wants addresses.
fn client(vips: &[&str]) -> EngineSettings {
    let mut a = settings(A);
    let connection = &mut a.connections[0];
    connection.roads.vips = vips.iter().map(|a| a.parse().unwrap()).collect();
    let child = &mut connection.children[0];
    let open = |vip: &&&str| vip.contains(':');
    let mut local = Vec::new();
    if vips.iter().any(|vip| !open(&vip)) {
        local.push("0.0.0.0/0");
    }
    if vips.iter().any(|vip| open(&vip)) {
        local.push("::/0");
    }
    child.local_ts = selectors(&local);
    child.remote_ts = selectors(&["10.2.0.0/16", "2001:db8:2::/64"]);
    child.dynamic.local = child.local_ts.clone();
    a
}

fn up(seed: u64, vips: &[&str]) -> World {
    let mut world = World::new(seed, client(vips), gateway());
    world.run(SECOND);
    world.assert_agreement(1);
    world
}

/// The virtual addresses that the gateway's tunnels lead to.
fn given(world: &World) -> BTreeSet<IpAddr> {
    let sas = world.hosts[B].sad.values();
    let selectors = sas.flat_map(|(sa, _, _)| sa.remote_ts.clone());
    selectors
        .map(|ts| {
            assert_eq!(ts.start, ts.end, "one address");
            ts.start
        })
        .collect()
}

fn refused(world: &World, host: usize, what: &str) -> bool {
    world.hosts[host]
        .saw(|e| matches!(e, Event::NegotiationFailed { reason, .. } if reason.contains(what)))
}

#[test]
fn rfc7296_section_2_19_a_client_gets_an_address_and_selectors_for_it() {
    let world = up(1, &["0.0.0.0"]);
    let address = *given(&world).first().unwrap();
    assert!(address.is_ipv4() && address.to_string().starts_with("10.3.0."));
    assert_eq!(world.sa(A).local_ts.len(), 1);
    assert_eq!(world.sa(A).local_ts[0].start, address);
    let status = &world.hosts[A].engine.status(world.now)[0];
    assert_eq!(status.local_vips, [address]);
    assert_eq!(status.dns, ["10.2.0.53".parse::<IpAddr>().unwrap()]);
    let status = &world.hosts[B].engine.status(world.now)[0];
    assert_eq!(status.remote_vips, [address]);
}

#[test]
fn rfc7296_section_3_15_1_both_families_with_their_name_servers() {
    let world = up(2, &["0.0.0.0", "::"]);
    let addresses = given(&world);
    assert_eq!(addresses.iter().filter(|a| a.is_ipv6()).count(), 1);
    assert_eq!(addresses.len(), 2);
    assert_eq!(world.hosts[A].engine.status(world.now)[0].dns.len(), 2);
}

#[test]
fn rfc7296_section_2_19_a_client_may_name_the_address_that_it_wants() {
    let world = up(3, &["10.3.0.3"]);
    assert_eq!(given(&world), BTreeSet::from(["10.3.0.3".parse().unwrap()]));
    // One that is not to be had becomes another one, if the client takes any.
    let world = up(3, &["0.0.0.0"]);
    assert_eq!(given(&world).len(), 1);
}

#[test]
fn rfc7296_section_3_15_4_a_client_has_no_use_for_an_ike_sa_without_an_address() {
    let mut b = gateway();
    b.pools[0].last = b.pools[0].first;
    b.pools[0].first = "10.3.0.2".parse().unwrap();
    b.pools[0].last = "10.3.0.1".parse().unwrap();
    let mut world = World::new(4, client(&["0.0.0.0"]), b);
    world.run(SECOND / 2);
    assert!(refused(&world, A, "INTERNAL_ADDRESS_FAILURE"));
    for host in [A, B] {
        assert!(world.ike_sas(host).is_empty(), "{host}");
    }
}

#[test]
fn rfc7296_section_2_19_who_must_ask_and_does_not_is_told_so() {
    let mut a = settings(A);
    a.connections[0].children[0].remote_ts = selectors(&["10.2.0.0/16"]);
    let mut world = World::new(5, a, gateway());
    world.run(SECOND / 2);
    world.assert_agreement(0);
    assert!(refused(&world, A, "FAILED_CP_REQUIRED"));
}

#[test]
fn rfc7296_section_2_9_2_rekeying_keeps_the_address() {
    let mut world = up(6, &["0.0.0.0", "::"]);
    let before = given(&world);
    for host in [A, B] {
        let sa = world.sa(host).id;
        world.input(host, Input::RekeyChild(sa));
        world.run(SECOND);
        let ike = world.ike(host);
        world.input(host, Input::RekeyIke(ike));
        world.run(SECOND);
        world.assert_agreement(1);
        assert_eq!(given(&world), before);
        assert_eq!(
            world.hosts[B].engine.status(world.now)[0].remote_vips.len(),
            2
        );
    }
}

#[test]
fn an_address_is_free_again_when_the_ike_sa_is_deleted() {
    let mut b = gateway();
    b.pools[0].last = b.pools[0].first;
    let mut world = World::new(7, client(&["0.0.0.0"]), b);
    world.run(SECOND);
    world.assert_agreement(1);
    let first = given(&world);
    let ike = world.ike(A);
    world.input(A, Input::Terminate { ike });
    world.run(SECOND);
    assert!(world.ike_sas(B).is_empty());
    let mut other = client(&["0.0.0.0"]);
    other.connections[0].local_id = "other.test".parse().unwrap();
    world.hosts[A] = Host::new(other);
    world.lead(A, Resume::Exact);
    world.run(SECOND);
    world.assert_agreement(1);
    assert_eq!(given(&world), first);
}

#[test]
fn a_client_that_comes_back_without_memory_gets_its_address_again() {
    let mut world = up(8, &["0.0.0.0"]);
    let first = given(&world);
    world.hosts[A] = Host::new(client(&["0.0.0.0"]));
    world.lead(A, Resume::Exact);
    world.run(SECOND);
    world.assert_agreement(1);
    assert_eq!(given(&world), first);
}

#[test]
fn name_servers_are_told_in_the_order_of_the_configuration_and_once() {
    let dns = ["10.2.0.53", "10.2.0.9", "10.2.0.53", "10.2.0.77"];
    let mut b = gateway();
    b.pools[0] = pool("v4", "10.3.0.1", "10.3.0.4", &dns);
    let mut world = World::new(12, client(&["0.0.0.0"]), b);
    world.run(SECOND);
    let told = &world.hosts[A].engine.status(world.now)[0].dns;
    let told: Vec<String> = told.iter().map(IpAddr::to_string).collect();
    assert_eq!(told, ["10.2.0.53", "10.2.0.9", "10.2.0.77"]);
}

/// It is authorised as the same peer, so the address that it had is its own.
#[test]
fn a_client_that_spells_its_name_otherwise_gets_its_address_again() {
    let mut b = gateway();
    b.pools[0] = pool("v4", "10.3.0.1", "10.3.0.1", &[]);
    let mut world = World::new(13, client(&["0.0.0.0"]), b);
    world.run(SECOND);
    let first = given(&world);
    assert_eq!(first.len(), 1);
    let mut a = client(&["0.0.0.0"]);
    a.connections[0].local_id = "A.TEST".parse().unwrap();
    world.hosts[A] = Host::new(a);
    world.lead(A, Resume::Exact);
    world.run(SECOND);
    world.assert_agreement(1);
    assert_eq!(given(&world), first);
}

/// Another client comes in the first one's place; the first one's IKE SA lives on.
fn another_client(world: &mut World, name: &str) {
    let mut other = client(&["0.0.0.0"]);
    other.connections[0].local_id = format!("{name}.test").parse().unwrap();
    other.member = MemberId(name.bytes().last().unwrap());
    world.hosts[A] = Host::new(other);
    world.lead(A, Resume::Exact);
    world.run(SECOND);
}

#[test]
fn no_address_is_given_twice_after_a_failover() {
    for failover in [false, true] {
        let mut b = gateway();
        b.connections[0].dpd_delay = std::time::Duration::ZERO;
        let mut world = World::new(9, client(&["0.0.0.0"]), b);
        world.run(SECOND);
        for (count, name) in (2..).zip(["c", "d", "e"]) {
            if failover {
                world.fail_over(B, Resume::Exact);
            }
            another_client(&mut world, name);
            // The SADs of members that died are gone with them: the records tell.
            let status = world.hosts[B].engine.status(world.now);
            let vips: Vec<_> = status.iter().flat_map(|s| &s.remote_vips).collect();
            let different: BTreeSet<_> = vips.iter().collect();
            assert_eq!((vips.len(), different.len()), (count, count));
        }
        // Four addresses, four clients: the fifth gets none.
        if failover {
            world.fail_over(B, Resume::Exact);
        }
        another_client(&mut world, "f");
        assert!(refused(&world, B, "INTERNAL_ADDRESS_FAILURE"));
    }
}

#[test]
fn a_client_keeps_its_address_over_a_failover_of_either_end() {
    let mut world = up(10, &["0.0.0.0", "::"]);
    let before = given(&world);
    for host in [B, A, B] {
        world.fail_over(host, Resume::Exact);
        world.run(SECOND);
        let sa = world.sa(A).id;
        world.input(A, Input::RekeyChild(sa));
        world.run(SECOND);
        world.assert_agreement(1);
        assert_eq!(given(&world), before);
        let status = &world.hosts[A].engine.status(world.now)[0];
        assert_eq!((status.local_vips.len(), status.dns.len()), (2, 2));
    }
}

#[test]
fn rfc7296_section_2_8_3_reauthentication_keeps_the_address() {
    let mut a = client(&["0.0.0.0"]);
    a.connections[0].auth.reauth_time = 60 * SECOND;
    let mut world = World::new(11, a, gateway());
    world.run(SECOND);
    let (before, ike) = (given(&world), world.ike(A));
    world.run(100 * SECOND);
    world.assert_agreement(1);
    assert_ne!(world.ike(A), ike);
    assert_eq!(given(&world), before);
}
