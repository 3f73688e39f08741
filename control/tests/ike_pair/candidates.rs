//! Several connections between the same two addresses: IKE_SA_INIT is for any of them, and IKE_AUTH says
//! which is meant.

use hitless::ike::fragments::Fragmentation;
use hitless::ike::proposal::Identification;
use hitless::ike::settings::{Childless, Connection, EngineSettings};

use crate::world::{A, B, SECOND, World, settings};

/// A, and a B with a connection for somebody else before the one that A means.
fn ends(
    ours: impl FnOnce(&mut Connection),
    other: impl FnOnce(&mut Connection),
    meant: impl FnOnce(&mut Connection),
) -> [EngineSettings; 2] {
    let [mut a, mut b] = [A, B].map(settings);
    ours(&mut a.connections[0]);
    let mut first = b.connections[0].clone();
    first.name = "other".to_owned();
    first.remote_id = Identification::Fqdn("other.test".to_owned());
    other(&mut first);
    meant(&mut b.connections[0]);
    b.connections.insert(0, first);
    [a, b]
}

fn up([a, b]: [EngineSettings; 2]) -> World {
    let mut world = World::new(1, a, b);
    world.run(5 * SECOND);
    world.assert_agreement(1);
    let status = &world.hosts[B].engine.status(world.now)[0];
    assert_eq!(status.name, "peer");
    world
}

fn fragments(world: &World, host: usize) -> usize {
    let sent = world.hosts[host].sent.iter();
    sent.filter(|datagram| datagram[16] == 53).count()
}

#[test]
fn rfc7383_section_2_3_fragments_are_taken_if_any_connection_takes_them() {
    let small = |c: &mut Connection| c.fragment_size = 150;
    let none = |c: &mut Connection| c.fragmentation = Fragmentation::No;
    let world = up(ends(small, none, |_| {}));
    assert!(fragments(&world, A) > 1);
    // What was said counts, also for one that says otherwise.
    let world = up(ends(small, |_| {}, none));
    assert!(fragments(&world, A) > 1);
    assert_eq!(fragments(&world, B), 0);
}

#[test]
fn rfc7383_section_2_5_1_they_are_as_long_as_the_connection_that_is_meant_wants_them() {
    let world = up(ends(|_| {}, |_| {}, |c| c.fragment_size = 150));
    assert!(fragments(&world, B) > 1);
    let world = up(ends(|_| {}, |c| c.fragment_size = 150, |_| {}));
    assert_eq!(fragments(&world, B), 0);
}

#[test]
fn rfc6023_section_4_an_ike_sa_begins_without_a_child_sa_if_every_connection_lets_it() {
    let prefers = |c: &mut Connection| c.roads.childless = Childless::Prefer;
    let never = |c: &mut Connection| c.roads.childless = Childless::Never;
    up(ends(prefers, |_| {}, never));
    up(ends(prefers, never, |_| {}));
}

#[test]
fn rfc7296_section_2_7_a_proposal_is_chosen_that_the_connection_can_have_that_is_meant() {
    let proposals = |list: &[&str]| -> Vec<_> {
        let parsed = list.iter().map(|text| format!("{text}-x25519").parse());
        parsed.map(Result::unwrap).collect()
    };
    let (first, second) = ("aes256gcm16-prfsha384", "aes128gcm16-prfsha256");
    let world = up(ends(
        |c| c.proposals = proposals(&[first, second]),
        |c| c.proposals = proposals(&[first, second]),
        |c| c.proposals = proposals(&[second]),
    ));
    let status = &world.hosts[B].engine.status(world.now)[0];
    assert!(status.proposal.starts_with("AES_GCM_16-128/"));
    // What no more have than anything else is taken by our order.
    let world = up(ends(
        |c| c.proposals = proposals(&[second, first]),
        |c| c.proposals = proposals(&[first, second]),
        |c| c.proposals = proposals(&[first, second]),
    ));
    let status = &world.hosts[B].engine.status(world.now)[0];
    assert!(status.proposal.starts_with("AES_GCM_16-256/"));
}

#[test]
fn rfc7296_section_2_23_esp_is_encapsulated_if_the_connection_that_is_meant_wants_it() {
    let world = up(ends(|_| {}, |_| {}, |c| c.encap = true));
    for host in [A, B] {
        assert!(world.sa(host).encapsulation.is_some());
    }
}
