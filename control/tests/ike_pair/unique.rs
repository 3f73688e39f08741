//! INITIAL_CONTACT and `unique` (RFC 7296 section 2.4), and who refuses an IKE SA without a Child SA
//! (RFC 6023).

use std::collections::BTreeSet;
use std::time::Duration;

use hitless::ike::settings::{Childless, EngineSettings, Unique};
use hitless::ike::{Event, Input, Resume};
use hitless_sa::{IkeSpi, Incarnation};

use crate::world::{A, B, Host, SECOND, World, address, settings, several};

fn with(host: usize, unique: Unique) -> EngineSettings {
    let mut settings = settings(host);
    settings.connections[0].roads.unique = unique;
    settings
}

/// A loses all it knows and comes again, as a new life of itself, to a B with this policy.
fn come_again(a: Unique, b: Unique, b_fails_over: bool) -> (World, IkeSpi) {
    let mut world = World::new(1, with(A, a), with(B, b));
    world.run(SECOND);
    world.assert_agreement(1);
    let old = world.ike(B);
    if b_fails_over {
        world.fail_over(B, Resume::Exact);
        world.run(SECOND);
    }
    world.hosts[B].events.clear();
    start_anew(&mut world, with(A, a));
    (world, old)
}

/// A knows nothing of what it had.
fn start_anew(world: &mut World, mut settings: EngineSettings) {
    settings.incarnation = Incarnation(2);
    world.hosts[A] = Host::new(settings);
    world.lead(A, Resume::Exact);
    world.run(3 * SECOND);
}

/// A, at another address, of which B lets it be.
fn elsewhere(mut settings: EngineSettings) -> EngineSettings {
    settings.connections[0].local_addrs = vec!["198.51.100.1".parse().unwrap()];
    settings
}

fn from_anywhere(mut settings: EngineSettings) -> EngineSettings {
    settings.connections[0].remote_addrs.clear();
    settings
}

const REAUTH: Duration = Duration::from_secs(600);

/// B, by whose AUTH_LIFETIME A has to reauthenticate.
fn demanding(unique: Unique) -> EngineSettings {
    let mut settings = from_anywhere(with(B, unique));
    settings.connections[0].auth.reauth_time = REAUTH;
    settings
}

fn refused(event: &Event) -> bool {
    matches!(event, Event::AuthenticationFailed { .. })
}

#[test]
fn initial_contact_ends_the_other_ike_sas_of_the_peer_rfc7296_2_4() {
    for unique in [Unique::No, Unique::Replace, Unique::Keep] {
        for fails_over in [false, true] {
            let (world, old) = come_again(Unique::No, unique, fails_over);
            world.assert_agreement(1);
            assert_ne!(world.ike(B), old, "{unique:?}");
            assert_eq!(world.living(B), 1, "the standby knows");
        }
    }
}

#[test]
fn unique_never_neither_sends_nor_honours_initial_contact_rfc7296_2_4() {
    for (a, b) in [(Unique::Never, Unique::No), (Unique::No, Unique::Never)] {
        let (world, old) = come_again(a, b, false);
        let sas = world.ike_sas(B);
        assert_eq!(sas.len(), 2, "{a:?} {b:?}");
        assert!(sas.contains(&old));
    }
}

#[test]
fn unique_replace_deletes_the_others_without_initial_contact() {
    let (mut world, old) = come_again(Unique::Never, Unique::Replace, true);
    // A knows nothing of the old one, and does not answer its Delete.
    world.run(200 * SECOND);
    world.assert_agreement(1);
    assert_ne!(world.ike(B), old);
}

#[test]
fn unique_keep_refuses_another_one_without_initial_contact() {
    let b = from_anywhere(with(B, Unique::Keep));
    let mut world = World::new(1, with(A, Unique::Never), b);
    world.run(SECOND);
    let old = world.ike(B);
    world.fail_over(B, Resume::Exact);
    world.run(SECOND);
    world.unreachable.push(address(A));
    start_anew(&mut world, elsewhere(with(A, Unique::Never)));
    assert_eq!(world.ike_sas(B), [old]);
    assert_eq!(world.hosts[B].sad.len(), 1);
    assert!(world.ike_sas(A).is_empty());
    assert!(world.hosts[B].saw(refused) && world.hosts[A].saw(refused));
    // Once the old one has gone, the peer is let in.
    world.input(B, Input::Terminate { ike: old });
    world.run(400 * SECOND);
    world.assert_agreement(1);
}

/// What is authorised as one peer is one peer, however it spells its name.
#[test]
fn a_peer_with_its_name_in_capitals_is_the_same_peer() {
    let capitals = |unique| {
        let mut a = with(A, unique);
        a.connections[0].local_id = "A.TEST".parse().unwrap();
        a
    };
    // It has no second IKE SA where one is kept.
    let b = from_anywhere(with(B, Unique::Keep));
    let mut world = World::new(1, with(A, Unique::Never), b);
    world.run(SECOND);
    let old = world.ike(B);
    start_anew(&mut world, elsewhere(capitals(Unique::Never)));
    assert_eq!(world.ike_sas(B), [old]);
    assert!(world.hosts[B].saw(refused));
    // Nor more than ikesa_limit_id.
    let mut b = from_anywhere(with(B, Unique::Never));
    b.limits.ikesa_limit_id = 1;
    let mut world = World::new(1, with(A, Unique::Never), b);
    world.run(SECOND);
    let old = world.ike(B);
    start_anew(&mut world, elsewhere(capitals(Unique::Never)));
    assert_eq!(world.ike_sas(B), [old]);
    // And INITIAL_CONTACT ends what it had before.
    let mut world = World::new(1, with(A, Unique::No), with(B, Unique::No));
    world.run(SECOND);
    let old = world.ike(B);
    start_anew(&mut world, capitals(Unique::No));
    world.assert_agreement(1);
    assert_ne!(world.ike(B), old);
    assert_eq!(world.living(B), 1);
}

/// What `hitless terminate` and `rekey` take names one SA, though another member made some of them.
#[test]
fn running_numbers_are_given_once_whoever_leads() {
    let mut world = World::new(1, with(A, Unique::Never), with(B, Unique::Never));
    world.run(SECOND);
    world.fail_over(B, Resume::Exact);
    start_anew(&mut world, with(A, Unique::Never));
    let status = world.hosts[B].engine.status(world.now);
    let numbers: BTreeSet<u32> = status.iter().map(|ike| ike.unique_id).collect();
    assert_eq!((status.len(), numbers.len()), (2, 2));
    let children = status.iter().flat_map(|ike| &ike.children);
    let numbers: BTreeSet<u32> = children.clone().map(|child| child.sa.counter).collect();
    assert_eq!((children.count(), numbers.len()), (2, 2));
}

/// Make-before-break says no INITIAL_CONTACT, and what AUTH_LIFETIME demands is not refused.
#[test]
fn rfc7296_section_2_8_3_a_reauthentication_is_let_in_whatever_unique_says() {
    for unique in [Unique::No, Unique::Replace, Unique::Keep] {
        let mut ends = [with(A, Unique::No), demanding(unique)];
        for (host, end) in ends.iter_mut().enumerate() {
            end.connections[0].children = several(host, 3);
        }
        let [a, b] = ends;
        let mut world = World::new(5, a, b);
        world.run(SECOND);
        let end = world.now + 3 * REAUTH;
        while world.step(end) {
            let sad = world.hosts[B].sad.values();
            let there: BTreeSet<_> = sad.map(|(_, name, _)| name.clone()).collect();
            assert_eq!(
                there.len(),
                3,
                "{unique:?}: not a moment without any of them"
            );
        }
        world.run(SECOND);
        world.assert_agreement(3);
        let established = |e: &Event| matches!(e, Event::IkeEstablished { .. });
        assert!(world.hosts[B].count(established) >= 4, "{unique:?}");
        assert!(!world.hosts[B].saw(refused));
    }
}

/// A client may reauthenticate from elsewhere, when it is time to; before that it is a second one.
#[test]
fn unique_keep_lets_a_peer_in_from_elsewhere_once_it_has_to_come() {
    for (after, comes_in) in [(REAUTH / 2, false), (REAUTH / 10 * 9, true)] {
        let mut b = demanding(Unique::Keep);
        b.connections[0].dpd_delay = Duration::ZERO;
        let mut world = World::new(6, with(A, Unique::Never), b);
        world.run(SECOND);
        let old = world.ike(B);
        world.unreachable.push(address(A));
        world.now += after;
        start_anew(&mut world, elsewhere(with(A, Unique::Never)));
        assert_eq!(world.hosts[B].saw(refused), !comes_in, "{after:?}");
        let there = world.ike_sas(B);
        assert_eq!(there.len(), 1 + usize::from(comes_in));
        assert!(there.contains(&old), "not hurried");
        // The peer has forgotten it, and does not delete it itself.
        if comes_in {
            world.run(200 * SECOND);
            world.assert_agreement(1);
            assert_ne!(world.ike(B), old);
        }
    }
}

#[test]
fn initial_contact_is_not_believed_before_the_peer_is_authenticated_rfc7296_2_4() {
    let mut world = World::established(2);
    let old = world.ike(B);
    let mut settings = settings(A);
    settings.incarnation = Incarnation(2);
    settings.secrets[0].secret = zeroize::Zeroizing::new(b"wrong".to_vec());
    world.hosts[A] = Host::new(settings);
    world.lead(A, Resume::Exact);
    world.run(SECOND);
    assert!(world.hosts[B].saw(refused));
    assert_eq!(world.ike_sas(B), [old]);
}

#[test]
fn initial_contact_is_sent_for_the_only_connection_between_two_rfc7296_2_4() {
    // Two connections between the same identities: the second must not end the first.
    let (mut a, mut b) = (settings(A), settings(B));
    for (host, settings) in [(A, &mut a), (B, &mut b)] {
        let mut second = settings.connections[0].clone();
        second.name = "second".to_owned();
        second.children = vec![crate::world::child(host, "other", host == A)];
        settings.connections.push(second);
    }
    let mut world = World::new(3, a, b);
    world.run(5 * SECOND);
    assert_eq!(world.ike_sas(A).len(), 2);
    assert_eq!(world.ike_sas(B).len(), 2);
}

#[test]
fn childless_never_refuses_an_ike_sa_without_a_child_sa_rfc6023_4() {
    let (mut a, mut b) = (settings(A), settings(B));
    a.connections[0].roads.childless = Childless::Prefer;
    b.connections[0].roads.childless = Childless::Never;
    // Told nothing of CHILDLESS_IKEV2_SUPPORTED, A asks with a Child SA.
    let mut world = World::new(4, a.clone(), b.clone());
    world.run(SECOND);
    world.assert_agreement(1);
    // One that has no child configured asks without all the same.
    a.connections[0].children.clear();
    let mut world = World::new(4, a, b);
    let connection = "peer".to_owned();
    world.input(
        A,
        Input::Initiate {
            connection,
            child: None,
        },
    );
    world.run(SECOND);
    assert!(world.ike_sas(A).is_empty() && world.ike_sas(B).is_empty());
    let refused = |e: &Event| matches!(e, Event::NegotiationFailed { reason, .. } if reason.contains("without a Child SA"));
    assert!(world.hosts[B].saw(refused));
}

/// A's tunnel over IPv6, or B with both.
fn over_ipv6(host: usize, mut settings: EngineSettings) -> EngineSettings {
    let addresses = ["2001:db8::1", "2001:db8::2"].map(|address| address.parse().unwrap());
    let connection = &mut settings.connections[0];
    if host == A {
        connection.local_addrs = vec![addresses[A]];
        connection.remote_addrs = vec![addresses[B]];
    } else {
        connection.local_addrs.push(addresses[B]);
        connection.remote_addrs.clear();
    }
    settings
}

/// strongSwan keeps its contacts by protocol, and says so once for each.
#[test]
fn initial_contact_over_ipv6_leaves_the_ike_sa_over_ipv4_rfc7296_2_4() {
    for fails_over in [false, true] {
        let mut world = World::new(1, with(A, Unique::No), over_ipv6(B, with(B, Unique::No)));
        world.run(SECOND);
        let old = world.ike(B);
        start_anew(&mut world, over_ipv6(A, with(A, Unique::No)));
        assert_eq!(world.living(B), 2, "one each");
        assert!(!world.hosts[B].sad.is_empty());
        if fails_over {
            world.fail_over(B, Resume::Exact);
            world.run(SECOND);
            assert_eq!(world.living(B), 2);
        }
        // Over IPv4 once more: that one ends, and that one alone.
        start_anew(&mut world, with(A, Unique::No));
        assert_eq!(world.living(B), 2);
        let all = world.ike_sas(B);
        assert!(!all.contains(&old), "{all:?}");
    }
}

/// A's new life begins one of two children; the other one is B's to begin, whatever ended the IKE SA that
/// it was on.
#[test]
fn a_child_that_is_wanted_is_made_on_the_ike_sa_that_came_instead() {
    for unique in [Unique::No, Unique::Replace] {
        let a = |start: bool| {
            let mut settings = with(
                A,
                if unique == Unique::No {
                    Unique::No
                } else {
                    Unique::Never
                },
            );
            settings.connections[0].children = several(A, 2);
            for child in &mut settings.connections[0].children {
                child.start = start && child.name == "net0";
            }
            settings
        };
        let mut b = with(B, unique);
        b.connections[0].children = several(B, 2);
        for child in &mut b.connections[0].children {
            child.start = true;
        }
        let mut world = World::new(1, a(false), b);
        world.run(3 * SECOND);
        assert_eq!(world.hosts[B].sad.len(), 2);
        let old = world.ike(B);
        start_anew(&mut world, a(true));
        world.run(200 * SECOND);
        assert_ne!(world.ike(B), old);
        assert_eq!(
            (world.living(B), world.hosts[B].sad.len()),
            (1, 2),
            "{unique:?}"
        );
        assert_eq!(world.hosts[A].sad.len(), 2);
    }
}
