//! Transport mode between the addresses of the IKE SA, with and without a NAT between, and IKE SAs
//! that begin without a child (RFC 6023).

use std::time::Duration;

use hitless::ike::settings::{Childless, EngineSettings};
use hitless::ike::{Event, Input, Resume};
use hitless_sa::{Mode, TrafficSelector};

use crate::world::{A, B, SECOND, World, address, settings};

fn transport(host: usize) -> EngineSettings {
    let mut settings = settings(host);
    let child = &mut settings.connections[0].children[0];
    child.mode = Mode::Transport;
    child.local_ts = vec!["0.0.0.0/0[tcp]".parse().unwrap()];
    child.remote_ts = child.local_ts.clone();
    child.dynamic.local = child.local_ts.clone();
    child.dynamic.remote = child.local_ts.clone();
    settings
}

fn one(address: &str) -> Vec<TrafficSelector> {
    vec![format!("{address}/32[tcp]").parse().unwrap()]
}

fn assert_selectors(world: &World, host: usize, local: &str, remote: &str) {
    let sa = world.sa(host);
    assert_eq!(sa.mode, Mode::Transport);
    assert_eq!((&sa.local_ts, &sa.remote_ts), (&one(local), &one(remote)));
}

#[test]
fn rfc7296_section_1_3_1_the_addresses_of_ike_are_what_it_protects() {
    let mut world = World::new(1, transport(A), transport(B));
    world.run(SECOND);
    world.assert_agreement(1);
    assert_selectors(&world, A, "192.0.2.1", "192.0.2.2");
    for host in [A, B] {
        world.fail_over(host, Resume::Exact);
        let sa = world.sa(host).id;
        world.input(host, Input::RekeyChild(sa));
        world.run(SECOND);
        world.assert_agreement(1);
        assert_ne!(world.sa(host).id, sa);
        assert_selectors(&world, A, "192.0.2.1", "192.0.2.2");
    }
}

#[test]
fn rfc7296_section_2_23_1_each_end_has_the_addresses_that_it_sees_through_the_nat() {
    let mut b = transport(B);
    b.connections[0].remote_addrs = Vec::new();
    let mut world = World::new(2, transport(A), b);
    world.intercept();
    world.nat = Some("198.51.100.7:61234".parse().unwrap());
    world.run(3 * SECOND);
    for round in 0..3 {
        assert_selectors(&world, A, "192.0.2.1", "192.0.2.2");
        assert_selectors(&world, B, "192.0.2.2", "198.51.100.7");
        assert_eq!(world.sa(A).inbound_spi, world.sa(B).outbound_spi);
        // Rekeyed by each, the second time by a member that took over.
        let host = [A, B, A][round];
        if round > 0 {
            world.fail_over(host, Resume::Exact);
        }
        let sa = world.sa(host).id;
        world.input(host, Input::RekeyChild(sa));
        world.run(SECOND);
        assert_ne!(world.sa(host).id, sa);
    }
}

#[test]
fn rfc7296_section_2_23_1_a_client_that_wants_transport_falls_back_to_a_tunnel_or_to_nothing() {
    // The responder has a tunnel for it only: the initiator that insists gets no child.
    let mut b = settings(B);
    b.connections[0].remote_addrs = Vec::new();
    b.connections[0].children[0].remote_ts = vec!["0.0.0.0/0".parse().unwrap()];
    b.connections[0].children[0].local_ts = vec!["0.0.0.0/0".parse().unwrap()];
    let mut world = World::new(3, transport(A), b);
    world.run(SECOND / 2);
    world.assert_agreement(0);
    let mode = |e: &Event| matches!(e, Event::NegotiationFailed { reason, .. } if reason.contains("another mode"));
    assert!(world.hosts[A].saw(mode));
}

pub fn childless(a: Childless, b: Childless) -> World {
    let mut both = [settings(A), settings(B)];
    both[A].connections[0].roads.childless = a;
    both[B].connections[0].roads.childless = b;
    let [a, b] = both;
    let mut world = World::new(4, a, b);
    world.run(SECOND);
    world
}

#[test]
fn rfc6023_the_first_child_comes_by_create_child_sa() {
    use Childless::{Allow, Force, Never, Prefer};
    for (a, b, requests) in [
        (Allow, Allow, 2),
        (Prefer, Allow, 3),
        (Force, Allow, 3),
        (Prefer, Force, 3),
        (Prefer, Never, 2),
    ] {
        let world = childless(a, b);
        world.assert_agreement(1);
        assert_eq!(world.hosts[A].sent.len(), requests, "{a:?} {b:?}");
    }
}

#[test]
fn rfc6023_force_means_no_child_in_ike_auth() {
    use Childless::{Allow, Force, Never};
    let world = childless(Force, Never);
    assert!(world.ike_sas(B).is_empty());
    // The child that IKE_AUTH is refused comes when it is tried again.
    let mut world = childless(Allow, Force);
    let refused = |e: &Event| matches!(e, Event::NegotiationFailed { reason, .. } if reason.contains("NO_ADDITIONAL_SAS"));
    assert!(world.hosts[A].saw(refused));
    world.run(5 * SECOND);
    world.assert_agreement(1);
}

#[test]
fn rfc6023_a_childless_ike_sa_survives_a_failover_and_gets_its_child() {
    let mut a = settings(A);
    a.connections[0].roads.childless = Childless::Force;
    a.connections[0].children[0].start = false;
    let mut world = World::new(5, a, settings(B));
    let (connection, child) = ("peer".to_owned(), Some("net".to_owned()));
    world.input(A, Input::Initiate { connection, child });
    // IKE_AUTH is answered; CREATE_CHILD_SA is on its way.
    let end = world.now + SECOND;
    while world.ike_sas(A).is_empty() {
        assert!(world.step(end));
    }
    world.assert_agreement(0);
    world.fail_over(A, Resume::Exact);
    world.fail_over(B, Resume::Exact);
    world.run(Duration::from_secs(10));
    world.assert_agreement(1);
    assert_eq!(world.sa(A).local, address(A));
}
