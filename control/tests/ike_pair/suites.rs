//! Every ESP suite: negotiated, keyed alike at both ends, rekeyed, and carried over a failover.

use std::sync::Arc;

use hitless::ike::Input;
use hitless::ike::Resume;
use hitless_dataplane::aead::{Engine, EspKey};
use hitless_dataplane::esp::{open_datagram, seal_datagram};
use hitless_dataplane::replay::AntiReplay;
use hitless_sa::{ChildSa, EspSuite, SequenceNumber};

use crate::world::{A, B, SECOND, World, settings};

/// Both ends with these proposals for their Child SAs.
fn world(ours: &[&str], theirs: &[&str]) -> World {
    let with = |host: usize, proposals: &[&str]| {
        let mut settings = settings(host);
        let parsed = proposals.iter().map(|text| text.parse().unwrap());
        settings.connections[0].children[0].esp_proposals = parsed.collect();
        settings
    };
    let mut world = World::new(31, with(A, ours), with(B, theirs));
    world.run(SECOND);
    world
}

fn proposals() -> impl Iterator<Item = (EspSuite, bool, String)> {
    EspSuite::ALL.iter().flat_map(|&suite| {
        [true, false].map(|esn| {
            let word = if esn { "esn" } else { "noesn" };
            (suite, esn, format!("{}-x25519-{word}", suite.keyword()))
        })
    })
}

/// One packet from the one to the other with the keys that IKE gave each.
fn assert_traffic(sender: &ChildSa, receiver: &ChildSa, number: u64) {
    let engine = Engine::default();
    let outbound = EspKey::new(engine, sender.suite, &sender.outbound_key).unwrap();
    let inbound = EspKey::new(engine, receiver.suite, &receiver.inbound_key).unwrap();
    let (spi, number, esn) = (sender.outbound_spi, SequenceNumber(number), sender.esn);
    let mut esp = seal_datagram(&outbound, spi, number, esn, 4, b"an inner packet").unwrap();
    let mut window = AntiReplay::new(64, SequenceNumber(0));
    let (_, payload) = open_datagram(&inbound, receiver.esn, &mut window, &mut esp).unwrap();
    assert_eq!(&esp[payload], b"an inner packet");
    assert_eq!(window.top(), number);
}

fn assert_traffic_both_ways(world: &World, number: u64) {
    let (a, b) = (world.sa(A), world.sa(B));
    assert_traffic(&a, &b, number);
    assert_traffic(&b, &a, number);
}

#[test]
fn rfc7296_section_2_17_every_suite_is_negotiated_and_both_ends_derive_the_same_keys() {
    for (suite, esn, word) in proposals() {
        let mut world = world(&[&word], &[&word]);
        world.assert_agreement(1);
        let sa = world.sa(A);
        assert_eq!((sa.suite, sa.esn), (suite, esn), "{word}");
        let length = suite.key_material_length();
        assert_eq!(sa.inbound_key.expose().len(), length);
        assert_ne!(sa.inbound_key, sa.outbound_key);
        assert_traffic_both_ways(&world, 1);
        // A rekeying keeps the suite and changes the keys.
        world.input(A, Input::RekeyChild(sa.id));
        world.run(3 * SECOND);
        world.assert_agreement(1);
        assert_eq!(world.sa(A).suite, suite);
        assert_ne!(world.sa(A).outbound_key, sa.outbound_key);
        assert_traffic_both_ways(&world, 1);
    }
}

#[test]
fn every_suite_fails_over_on_either_side_with_the_traffic_keys_it_had() {
    for (suite, esn, word) in proposals() {
        for host in [A, B] {
            let mut world = world(&[&word], &[&word]);
            let (before, far) = (world.sa(host), world.sa(1 - host));
            world.fail_over(host, Resume::Exact);
            world.run(SECOND);
            world.assert_agreement(1);
            let after: Arc<ChildSa> = world.sa(host);
            assert_eq!((after.suite, after.esn), (suite, esn), "{word}");
            assert_eq!(after.inbound_key, before.inbound_key);
            assert_eq!(after.outbound_key, before.outbound_key);
            assert_eq!(after.outbound_spi, far.inbound_spi);
            assert_traffic_both_ways(&world, 70);
        }
    }
}

/// RFC 7296 section 2.7: the responder's order decides among what both have, and the key length is
/// part of what must be the same.
#[test]
fn rfc7296_section_2_7_suites_are_chosen_among_several_and_never_across_key_lengths() {
    let all: Vec<String> = proposals().map(|(_, _, word)| word).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let reversed: Vec<&str> = all.iter().rev().copied().collect();
    let both = world(&all, &reversed);
    both.assert_agreement(1);
    assert_eq!(both.sa(A).suite, EspSuite::ChaCha20Poly1305ImplicitIv);
    for (ours, theirs) in [
        ("aes128gcm16", "aes192gcm16"),
        ("aes128gmac", "aes128gcm16"),
        ("aes128-sha256", "aes256-sha256"),
        ("aes256-sha256", "aes256-sha512"),
        ("chacha20poly1305", "chacha20poly1305iiv"),
        ("aes256gcm16", "aes256gcm16iiv"),
    ] {
        let world = world(&[ours], &[theirs]);
        assert!(world.hosts[A].sad.is_empty() && world.hosts[B].sad.is_empty());
    }
}
