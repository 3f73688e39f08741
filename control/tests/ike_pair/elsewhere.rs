//! A peer with several addresses (`remote_addrs`), of which not all answer, or want us.

use std::net::IpAddr;
use std::time::Duration;

use hitless::ike::settings::EngineSettings;
use hitless::ike::{Event, Input, Resume};
use zeroize::Zeroizing;

use crate::world::{A, B, SECOND, World, address, settings};

/// Long enough for an address that does not answer, where there are others.
const PATIENCE: Duration = Duration::from_secs(20);

fn dead() -> IpAddr {
    "192.0.2.66".parse().unwrap()
}

fn mute() -> IpAddr {
    "192.0.2.67".parse().unwrap()
}

/// A knows the peer by these addresses.
fn knowing(addresses: &[IpAddr]) -> EngineSettings {
    let mut a = settings(A);
    a.connections[0].remote_addrs = addresses.to_vec();
    a
}

fn world(addresses: &[IpAddr]) -> World {
    let mut world = World::new(71, knowing(addresses), settings(B));
    world.unreachable = vec![dead(), mute()];
    world
}

fn is_silence(event: &Event) -> bool {
    matches!(event, Event::NegotiationFailed { reason, .. } if reason == "no answer")
}

#[test]
fn an_address_that_does_not_answer_gives_way_to_the_next() {
    let mut world = world(&[dead(), mute(), address(B)]);
    world.run(PATIENCE);
    assert!(world.ike_sas(A).is_empty(), "the second one's turn");
    world.run(PATIENCE);
    world.assert_agreement(1);
    assert_eq!(world.hosts[A].count(is_silence), 2);
    assert_eq!(world.sa(A).remote, address(B));
}

/// Once for each address, then as often as before.
#[test]
fn where_none_answers_all_are_tried_again_later() {
    let mut world = world(&[dead(), mute()]);
    world.run(4 * PATIENCE);
    assert!(world.hosts[A].count(is_silence) >= 3);
    world.unreachable.retain(|address| *address != mute());
    // Whoever is there now.
    let of_b = &mut world.hosts[B].settings;
    of_b.connections[0].local_addrs.push(mute());
    let file = of_b.clone();
    let now = world.now;
    world.hosts[B].engine.reload(now, &mut world.entropy, file);
    world.run(4 * PATIENCE);
    world.assert_agreement(1);
    assert_eq!(world.sa(A).remote, mute());
}

/// RFC 7296 section 2.21.2: the first gateway has another key than ours.
#[test]
fn rfc7296_section_2_21_2_a_refusal_is_the_one_gateways_and_not_the_others() {
    let first = mute();
    let mut b = settings(B);
    let mut stranger = b.connections[0].clone();
    stranger.name = "stranger".to_owned();
    stranger.local_addrs = vec![first];
    stranger.local_id = "stranger.test".parse().unwrap();
    b.connections.push(stranger);
    let mut world = World::new(72, knowing(&[first, address(B)]), b);
    world.run(10 * SECOND);
    world.assert_agreement(1);
    let refused = |e: &Event| matches!(e, Event::AuthenticationFailed { .. });
    assert_eq!(world.hosts[A].count(refused), 1);
    assert_eq!(world.sa(A).remote, address(B));
}

/// The last one's refusal is the end, until it is tried again.
#[test]
fn a_refusal_by_all_ends_it() {
    let second = mute();
    let mut a = knowing(&[address(B), second]);
    a.secrets[0].secret = Zeroizing::new(b"another".to_vec());
    a.connections[0].children[0].start = false;
    let mut b = settings(B);
    b.connections[0].local_addrs.push(second);
    let mut world = World::new(73, a, b);
    let start = Input::Initiate {
        connection: "peer".to_owned(),
        child: None,
    };
    world.input(A, start);
    world.run(PATIENCE);
    assert!(world.hosts[A].engine.status(world.now).is_empty());
    let refused = |e: &Event| matches!(e, Event::AuthenticationFailed { .. });
    assert_eq!(world.hosts[A].count(refused), 2, "one of each address");
}

/// A member dies while it tries the second address: the next one comes to the third as well.
#[test]
fn who_takes_over_goes_through_the_addresses_too() {
    let mut world = world(&[dead(), mute(), address(B)]);
    world.run(PATIENCE + SECOND);
    world.fail_over(A, Resume::Exact);
    world.run(3 * PATIENCE);
    world.assert_agreement(1);
    assert_eq!(world.sa(A).remote, address(B));
}

/// The new IKE_SA_INIT of the next address is lost as any other one is.
#[test]
fn rfc7296_section_2_1_what_goes_to_the_next_address_is_repeated_too() {
    let mut world = world(&[dead(), address(B)]);
    while !world.hosts[A].saw(is_silence) {
        let end = world.now + PATIENCE;
        assert!(world.step(end));
    }
    assert_eq!(world.intercept().len(), 1, "the first one to B");
    world.run(10 * SECOND);
    world.assert_agreement(1);
}
