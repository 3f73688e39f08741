//! CREATE_CHILD_SA: rekeying of both kinds, and what can collide.

use std::time::Duration;

use hitless::ike::{Event, Input, Resume};

use crate::world::{A, B, SECOND, World, settings};

#[test]
fn a_child_sa_is_rekeyed_by_either_side_rfc7296_1_3_3() {
    for host in [A, B] {
        let mut world = World::established(1);
        let old = world.sa(host);
        world.input(host, Input::RekeyChild(old.id));
        world.run(SECOND);
        world.assert_agreement(1);
        assert_ne!(world.sa(host).inbound_key, old.inbound_key);
        assert!(world.hosts[host].saw(|e| matches!(e, Event::ChildRekeyed { .. })));
        assert!(world.sa(A).id != old.id && world.sa(B).id != old.id);
    }
}

#[test]
fn a_child_sa_is_rekeyed_without_key_exchange_rfc7296_1_3_3() {
    let mut both = [settings(A), settings(B)];
    for settings in &mut both {
        let child = &mut settings.connections[0].children[0];
        child.esp_proposals = vec!["aes128gcm16".parse().unwrap()];
    }
    let [a, b] = both;
    let mut world = World::new(2, a, b);
    world.run(SECOND);
    let old = world.sa(A);
    assert!(!old.esn);
    world.input(A, Input::RekeyChild(old.id));
    world.run(SECOND);
    world.assert_agreement(1);
    assert_ne!(world.sa(A).inbound_key, old.inbound_key);
}

#[test]
fn a_rekey_tries_the_group_that_the_responder_wants_rfc7296_1_3() {
    let (mut a, mut b) = (settings(A), settings(B));
    a.connections[0].children[0].esp_proposals = vec![
        "aes128gcm16-x25519-esn".parse().unwrap(),
        "aes128gcm16-ecp256-esn".parse().unwrap(),
    ];
    b.connections[0].children[0].esp_proposals = vec!["aes128gcm16-ecp256-esn".parse().unwrap()];
    let mut world = World::new(3, a, b);
    world.run(SECOND);
    let old = world.sa(A);
    world.input(A, Input::RekeyChild(old.id));
    world.run(SECOND);
    world.assert_agreement(1);
    assert_ne!(world.sa(A).id, old.id);
}

#[test]
fn the_responder_of_a_rekey_sends_on_the_new_sa_only_when_the_initiator_has_it_rfc7296_2_8() {
    let mut world = World::established(4);
    let old = world.sa(A);
    world.input(A, Input::RekeyChild(old.id));
    let request = world.intercept().remove(0);
    world.deliver(&request);
    assert_eq!(world.hosts[B].sad.len(), 2);
    let new = world.hosts[B]
        .sad
        .values()
        .find(|(_, _, send)| !send)
        .expect("receives only");
    let new = new.0.id;
    // Authenticated traffic on it proves that the initiator has it.
    world.input(B, Input::Traffic { sa: new });
    assert!(world.hosts[B].sad[&new].2);
    world.run(SECOND);
    world.assert_agreement(1);
}

#[test]
fn an_ike_sa_is_rekeyed_by_either_side_rfc7296_2_18() {
    for host in [A, B] {
        let mut world = World::established(5);
        let (ike, sa) = (world.ike(host), world.sa(host));
        world.input(host, Input::RekeyIke(ike));
        world.run(SECOND);
        world.assert_agreement(1);
        assert_ne!(world.ike(host), ike);
        assert_eq!(world.sa(host).id, sa.id, "Child SAs stay");
        assert_eq!(world.living(A), 1);
        assert_eq!(world.living(B), 1);
        // The new one works, both ways, and so does rekeying it again.
        for side in [A, B] {
            let sa = world.sa(side).id;
            world.input(side, Input::RekeyChild(sa));
            world.run(SECOND);
            world.assert_agreement(1);
            let ike = world.ike(side);
            world.input(side, Input::RekeyIke(ike));
            world.run(SECOND);
            world.assert_agreement(1);
        }
    }
}

#[test]
fn simultaneous_child_rekeying_leaves_one_sa_rfc7296_2_8_1() {
    for seed in 0..20 {
        let mut world = World::established(seed);
        let (a, b) = (world.sa(A).id, world.sa(B).id);
        world.input(A, Input::RekeyChild(a));
        world.input(B, Input::RekeyChild(b));
        world.run(2 * SECOND);
        world.assert_agreement(1);
        assert!(!world.hosts[A].sad.contains_key(&a), "the old one is gone");
    }
}

#[test]
fn simultaneous_ike_rekeying_leaves_one_sa_rfc7296_2_8_2() {
    for seed in 0..20 {
        let mut world = World::established(seed);
        let (a, b) = (world.ike(A), world.ike(B));
        world.input(A, Input::RekeyIke(a));
        world.input(B, Input::RekeyIke(b));
        world.run(2 * SECOND);
        world.assert_agreement(1);
        assert_ne!(world.ike(A), a);
        assert_eq!(world.living(A), 1);
        assert_eq!(world.living(B), 1);
    }
}

#[test]
fn rekeying_of_a_child_and_of_its_ike_sa_collide_rfc7296_2_25_2() {
    for seed in 0..10 {
        let mut world = World::established(seed);
        let (sa, ike) = (world.sa(A).id, world.ike(B));
        world.input(A, Input::RekeyChild(sa));
        world.input(B, Input::RekeyIke(ike));
        world.run(20 * SECOND);
        world.assert_agreement(1);
        assert!(!world.hosts[A].sad.contains_key(&sa), "rekeyed in the end");
        assert_ne!(world.ike(B), ike, "rekeyed in the end");
    }
}

#[test]
fn rekeying_of_a_child_that_the_peer_deletes_rfc7296_2_25_1() {
    let mut world = World::established(6);
    let (a, b) = (world.sa(A), world.sa(B));
    // B rekeys and finishes, but A's own rekey request crosses B's Delete.
    world.input(B, Input::RekeyChild(b.id));
    let request = world.intercept().remove(0);
    world.deliver(&request);
    let response = world.intercept().remove(0);
    world.deliver(&response);
    let delete = world.intercept().remove(0);
    world.input(A, Input::RekeyChild(a.id)); // replaced already: not wanted any more
    let wanted = world.intercept();
    world.inject(delete);
    wanted.into_iter().for_each(|packet| world.inject(packet));
    world.run(5 * SECOND);
    world.assert_agreement(1);
    // B's rekeying is the one that counts, and A's made none beside it.
    assert!(!world.hosts[A].sad.contains_key(&a.id));
    assert!(!world.hosts[B].sad.contains_key(&b.id));
}

#[test]
fn a_child_that_the_peer_does_not_know_is_made_anew_rfc7296_2_25_1() {
    let mut world = World::established(7);
    let old = world.hosts[A].records.clone();
    let a = world.sa(A).id;
    world.input(A, Input::RekeyChild(a));
    world.run(SECOND);
    // A goes back to what it knew before: a Child SA that B has deleted.
    world.fail_over_with(A, old, Resume::Probe);
    world.run(3 * SECOND);
    world.input(A, Input::RekeyChild(a));
    world.run(3 * SECOND);
    assert!(!world.hosts[A].sad.contains_key(&a));
    let sa = world.sa(A);
    let peer = world.hosts[B]
        .sad
        .values()
        .find(|(p, _, _)| p.inbound_spi == sa.outbound_spi);
    assert_eq!(peer.expect("B has it too").0.inbound_key, sa.outbound_key);
}

#[test]
fn lifetimes_rekey_children_and_ike_sas() {
    let mut both = [settings(A), settings(B)];
    for settings in &mut both {
        settings.connections[0].rekey_time = Duration::from_secs(100);
        settings.connections[0].children[0].rekey_time = Duration::from_secs(30);
    }
    let [a, b] = both;
    let mut world = World::new(8, a, b);
    world.run(Duration::from_secs(1000));
    world.assert_agreement(1);
    let ikes = world.hosts[A].count(|e| matches!(e, Event::IkeRekeyed { .. }));
    let children = world.hosts[A].count(|e| matches!(e, Event::ChildRekeyed { .. }));
    assert!((9..40).contains(&ikes), "{ikes}");
    assert!((30..120).contains(&children), "{children}");
    assert_eq!(
        world.hosts[A].count(|e| matches!(e, Event::IkeEstablished { .. })),
        1
    );
}

/// The peer has answered a rekeying of the IKE SA, and the member that asked died before it had the
/// answer. Its successor finds the Message IDs out: it asks again before its first probe, which would
/// let the peer forget that answer (RFC 7296 section 2.3), although nothing leaves before the commit.
#[test]
fn an_inexact_takeover_amid_a_rekeying_of_the_ike_sa_keeps_the_tunnel_rfc7296_2_3() {
    for host in [A, B] {
        let mut world = World::established(9);
        let (ike, sa) = (world.ike(host), world.sa(host).id);
        world.input(host, Input::RekeyIke(ike));
        let request = world.intercept().remove(0);
        world.deliver(&request);
        world.intercept();
        world.lag = SECOND / 20;
        world.fail_over(host, Resume::Probe);
        world.run(120 * SECOND);
        world.assert_agreement(1);
        assert_ne!(world.ike(host), ike, "rekeyed");
        assert_eq!(world.sa(host).id, sa, "Child SAs stay");
        assert!(!world.hosts[host].saw(|e| matches!(e, Event::IkeEstablished { .. })));
    }
}
