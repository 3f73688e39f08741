//! Make-before-break reauthentication (RFC 7296 section 2.8.3), between two engines.

use std::time::Duration;

use hitless::ike::settings::EngineSettings;
use hitless::ike::{Event, Resume};

use crate::world::{A, B, SECOND, World, child, settings};

pub const REAUTH: Duration = Duration::from_secs(600);

fn with(host: usize, reauth_time: Duration) -> EngineSettings {
    let mut settings = settings(host);
    settings.connections[0].auth.reauth_time = reauth_time;
    let mut second = child(host, "second", host == A);
    let apart = |text: &str| vec![text.parse().unwrap()];
    let mut sides = [apart("10.3.0.0/16"), apart("10.4.0.0/16")];
    if host == B {
        sides.reverse();
    }
    [second.local_ts, second.remote_ts] = sides;
    settings.connections[0].children.push(second);
    settings
}

pub fn established(a: Duration, b: Duration) -> World {
    let mut world = World::new(5, with(A, a), with(B, b));
    world.run(SECOND);
    world.assert_agreement(2);
    world
}

fn names(world: &World, host: usize) -> Vec<String> {
    let sad = world.hosts[host].sad.values();
    let mut names: Vec<_> = sad.map(|(_, name, _)| name.clone()).collect();
    names.sort();
    names
}

#[test]
fn rfc7296_section_2_8_3_the_new_ike_sa_stands_before_the_old_one_goes() {
    let mut world = established(REAUTH, Duration::ZERO);
    let (old, before) = (world.ike(A), names(&world, A));
    let end = world.now + REAUTH;
    let mut most = 0;
    while world.step(end) {
        for host in [A, B] {
            // Never a moment without each of them.
            let mut there = names(&world, host);
            there.dedup();
            assert_eq!(there, before);
            most = most.max(world.ike_sas(host).len());
        }
        if world.ike_sas(A) != [old] && world.ike_sas(A).len() == 1 && names(&world, B).len() == 2 {
            break;
        }
    }
    assert_eq!(most, 2, "both at once");
    world.run(SECOND);
    world.assert_agreement(2);
    assert_ne!(world.ike(A), old);
    assert!(world.now.since(end) < SECOND * 2, "up to a tenth early");
    let contacts =
        |e: &Event| matches!(e, Event::IkeDeleted { reason, .. } if reason.contains("INITIAL"));
    assert!(!world.hosts[B].saw(contacts));
    // And again.
    let next = world.ike(A);
    world.run(REAUTH + SECOND);
    world.assert_agreement(2);
    assert_ne!(world.ike(A), next);
}

/// RFC 4478: the responder says by when; the initiator does it, also if it has no such setting.
#[test]
fn rfc4478_section_3_the_responder_s_lifetime_is_heeded() {
    let mut world = established(Duration::ZERO, REAUTH);
    let old = world.ike(B);
    world.run(REAUTH);
    world.assert_agreement(2);
    assert_ne!(world.ike(B), old);
    let established = |e: &Event| matches!(e, Event::IkeEstablished { .. });
    assert_eq!(world.hosts[B].count(established), 2);
}

/// RFC 4478 section 3: who does not reauthenticate is closed.
#[test]
fn rfc4478_section_3_an_initiator_that_does_not_come_back_is_closed() {
    let mut world = established(Duration::ZERO, REAUTH);
    let old = world.ike(B);
    // An initiator that has forgotten: its record says nothing of it.
    world.hosts[A].dead = true;
    world.run(REAUTH + REAUTH / 5);
    assert!(!world.ike_sas(B).contains(&old));
}

/// The peer rekeyed the IKE SA meanwhile: whose turn it is to authenticate stays the same.
#[test]
fn the_initiator_of_ike_auth_reauthenticates_whoever_rekeyed() {
    for host in [A, B] {
        let mut world = established(REAUTH, Duration::ZERO);
        world.run(REAUTH / 2);
        let ike = world.ike(host);
        world.input(host, hitless::ike::Input::RekeyIke(ike));
        world.run(SECOND);
        let rekeyed = world.ike(A);
        world.run(REAUTH / 2);
        world.assert_agreement(2);
        assert_ne!(world.ike(A), rekeyed);
        let established = |e: &Event| matches!(e, Event::IkeEstablished { .. });
        assert_eq!(world.hosts[A].count(established), 2, "one new IKE_AUTH");
    }
}

/// A member dies after each datagram of a reauthentication: the tunnels stay, and in the end there
/// is one new IKE SA.
#[test]
fn a_reauthentication_goes_on_at_another_member() {
    for host in [A, B] {
        for datagrams in 0..8 {
            let mut world = established(REAUTH, Duration::ZERO);
            let old = world.ike(A);
            world.run(REAUTH / 10 * 9 - SECOND * 2);
            let sent = world.hosts[A].sent.len() + world.hosts[B].sent.len();
            let end = world.now + REAUTH / 5;
            while world.hosts[A].sent.len() + world.hosts[B].sent.len() < sent + datagrams
                && world.step(end)
            {}
            world.fail_over(host, Resume::Exact);
            world.run(REAUTH * 2);
            world.assert_agreement(2);
            assert_ne!(world.ike(A), old, "{host} {datagrams}");
        }
    }
}

/// An unanswered attempt leaves the old one alone, and is made again.
#[test]
fn a_reauthentication_that_nobody_answers_harms_nothing() {
    let mut world = established(REAUTH, Duration::ZERO);
    let old = world.ike(A);
    let end = world.now + REAUTH + SECOND;
    let mut refused = 0;
    while world.step(end) {
        // IKE_SA_INIT is lost; all else arrives.
        let wire = world.intercept();
        for packet in wire {
            match packet.payload[18] {
                34 => refused += 1,
                _ => world.inject(packet),
            }
        }
    }
    assert!(refused > 1);
    world.assert_agreement(2);
    assert_eq!(world.ike(A), old);
    world.run(REAUTH);
    world.assert_agreement(2);
    assert_ne!(world.ike(A), old);
}

/// The peer rekeys the IKE SA while a new one is to take its place: the new one takes that of the
/// successor, whether IKE_AUTH is under way or the Child SAs that follow it.
#[test]
fn rfc7296_section_2_8_3_a_rekeying_that_crosses_leaves_one_ike_sa() {
    for datagrams in 0..9 {
        let mut world = established(REAUTH, Duration::ZERO);
        let old = world.ike(B);
        world.run(REAUTH / 10 * 9 - SECOND * 2);
        let sent = world.hosts[A].sent.len() + world.hosts[B].sent.len();
        let end = world.now + REAUTH / 5;
        while world.hosts[A].sent.len() + world.hosts[B].sent.len() <= sent + datagrams
            && world.step(end)
        {}
        world.input(B, hitless::ike::Input::RekeyIke(old));
        world.run(100 * SECOND);
        world.assert_agreement(2);
        assert_ne!(world.ike(B), old, "{datagrams}");
        let established = |e: &Event| matches!(e, Event::IkeEstablished { .. });
        assert_eq!(world.hosts[A].count(established), 2, "{datagrams}");
    }
}
