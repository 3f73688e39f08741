//! A gateway that sends its client to another one (RFC 5685). B is all the gateways: each of its
//! addresses is one.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hitless::ike::{Event, Input, Resume};

use crate::world::{A, B, Faults, SECOND, World, address, settings};

const REDIRECT: [u8; 2] = 16407u16.to_be_bytes();
const REDIRECTED_FROM: [u8; 2] = 16408u16.to_be_bytes();

pub fn gateway(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

/// A client and gateways 2, 3, ...; each sends clients on to the one that is named, if one is.
pub fn world(seed: u64, onward: &[Option<u8>], change: impl FnOnce(&mut World)) -> World {
    let mut b = settings(B);
    let connection = b.connections.remove(0);
    for (n, to) in (2..).zip(onward) {
        let mut connection = connection.clone();
        connection.name = format!("gateway-{n}");
        connection.local_addrs = vec![gateway(n)];
        connection.roads.redirect_to = to.map(gateway);
        b.connections.push(connection);
    }
    let mut world = World::new(seed, settings(A), b);
    change(&mut world);
    world
}

fn moved(world: &World, to: u8) {
    world.assert_agreement(1);
    assert_eq!(world.sa(A).remote, gateway(to));
    assert_eq!(world.sa(B).local, gateway(to));
}

fn firsts(world: &World) -> Vec<&Vec<u8>> {
    world.hosts[A].sent.iter().filter(|d| d[18] == 34).collect()
}

fn says(datagram: &[u8], notify: [u8; 2]) -> bool {
    // Notifications without protocol and SPI.
    let wanted = [0, 0, notify[0], notify[1]];
    datagram.windows(4).any(|octets| octets == wanted)
}

#[test]
fn rfc5685_section_3_a_client_goes_where_ike_sa_init_sends_it_and_says_where_it_comes_from() {
    let mut world = world(1, &[Some(3), None], |_| ());
    world.run(SECOND);
    moved(&world, 3);
    let firsts = firsts(&world);
    assert_eq!(firsts.len(), 2);
    assert!(!says(firsts[0], REDIRECTED_FROM) && says(firsts[1], REDIRECTED_FROM));
    // Either end fails over afterwards.
    world.fail_over(A, Resume::Exact);
    world.fail_over(B, Resume::Exact);
    world.input(A, Input::RekeyChild(world.sa(A).id));
    world.run(SECOND);
    moved(&world, 3);
}

#[test]
fn rfc5685_section_3_a_client_that_does_not_follow_is_served() {
    let mut a = settings(A);
    a.connections[0].roads.ignores_redirects = true;
    let mut b = settings(B);
    b.connections[0].roads.redirect_to = Some(gateway(3));
    let mut world = World::new(2, a, b);
    world.run(SECOND);
    moved(&world, 2);
}

#[test]
fn rfc5685_section_3_a_redirect_without_our_nonce_or_that_leads_nowhere_is_not_followed() {
    let mut world = world(3, &[Some(3), None], |_| ());
    let first = world.intercept().remove(0);
    world.deliver(&first);
    let redirect = world.intercept().remove(0);
    assert!(says(&redirect.payload, REDIRECT));
    // Kind and length of the identity, and the nonce; what is between is the address.
    let length = redirect.payload.len();
    for position in (36..38).chain(42..length) {
        let mut forged = redirect.clone();
        forged.payload[position] ^= 1;
        world.deliver(&forged);
        assert!(world.intercept().is_empty(), "octet {position}");
    }
    // To the gateway itself.
    let mut forged = redirect.clone();
    forged.payload[41] = 2;
    world.deliver(&forged);
    assert!(world.intercept().is_empty());
    world.inject(redirect);
    world.run(SECOND);
    moved(&world, 3);
}

/// B learns in IKE_AUTH that the connection is the one that is sent on to gateway 3.
pub fn by_ike_auth(seed: u64) -> World {
    let mut b = settings(B);
    let mut onward = b.connections[0].clone();
    onward.roads.redirect_to = Some(gateway(3));
    onward.name = "onward".to_owned();
    let mut other = onward.clone();
    other.name = "other".to_owned();
    other.remote_id = "c.test".parse().unwrap();
    other.roads.redirect_to = None;
    let mut new = other.clone();
    new.name = "new".to_owned();
    new.remote_id = onward.remote_id.clone();
    new.local_addrs = vec![gateway(3)];
    b.connections = vec![onward, other, new];
    World::new(seed, settings(A), b)
}

/// RFC 5685 section 6: which connection is meant is known in IKE_AUTH alone.
#[test]
fn rfc5685_section_6_a_client_goes_where_ike_auth_sends_it_and_deletes_the_ike_sa() {
    let mut world = by_ike_auth(4);
    world.run(2 * SECOND);
    moved(&world, 3);
    let established = |e: &Event| matches!(e, Event::IkeEstablished { .. });
    assert_eq!(world.hosts[A].count(established), 2);
    assert!(says(firsts(&world)[1], REDIRECTED_FROM));
    world.fail_over(B, Resume::Exact);
    world.run(60 * SECOND);
    moved(&world, 3);
}

#[test]
fn rfc5685_section_5_a_gateway_sends_its_client_away_and_the_tunnel_is_never_down() {
    let mut world = world(5, &[None, None], |_| ());
    world.run(SECOND);
    moved(&world, 2);
    let ike = world.ike(B);
    let to = gateway(3);
    world.input(B, Input::Redirect { ike, to });
    let end = world.now + 2 * SECOND;
    while world.step(end) {
        assert!(!world.hosts[A].sad.is_empty() && !world.hosts[B].sad.is_empty());
    }
    moved(&world, 3);
    world.run(60 * SECOND);
    moved(&world, 3);
}

/// Another gateway that does not take the client leaves it where it is, free to be sent elsewhere;
/// and so does a client's reload, with which whatever it had begun is forgotten.
#[test]
fn rfc5685_section_5_a_redirect_that_fails_or_is_reloaded_leaves_the_client_free() {
    for reloaded in [false, true] {
        let mut world = world(12, &[None, None], |world| {
            let mut settings = world.hosts[B].settings.clone();
            let mut strict = settings.connections[0].clone();
            strict.name = "strict".to_owned();
            strict.local_addrs = vec![gateway(9)];
            strict.remote_id = "c.test".parse().unwrap();
            settings.connections.push(strict);
            reload(world, B, settings);
        });
        world.run(SECOND);
        moved(&world, 2);
        let (ike, to) = (world.ike(B), gateway(9));
        world.input(B, Input::Redirect { ike, to });
        if reloaded {
            for packet in world.intercept() {
                world.deliver(&packet);
            }
            // Its first words to the other gateway, and its answer to this one.
            let (answer, _): (Vec<_>, Vec<_>) = world
                .intercept()
                .into_iter()
                .partition(|p| p.to.ip() == gateway(2));
            answer.iter().for_each(|packet| world.deliver(packet));
            let settings = world.hosts[A].settings.clone();
            reload(&mut world, A, settings);
        }
        world.run(SECOND);
        moved(&world, 2);
        let (ike, to) = (world.ike(B), gateway(3));
        world.input(B, Input::Redirect { ike, to });
        world.run(2 * SECOND);
        moved(&world, 3);
    }
}

/// It begins again where its connection says, if the first gateway is not there any more either.
#[test]
fn rfc5685_section_5_after_a_failed_redirect_the_client_goes_back_to_its_own_gateway() {
    let mut world = world(13, &[None, None], |_| ());
    world.run(SECOND);
    let (ike, to) = (world.ike(B), gateway(9));
    world.input(B, Input::Redirect { ike, to });
    world.run(300 * SECOND);
    moved(&world, 2);
}

fn reload(world: &mut World, host: usize, settings: hitless::ike::settings::EngineSettings) {
    world.hosts[host].settings = settings.clone();
    let engine = &mut world.hosts[host].engine;
    engine.reload(world.now, &mut world.entropy, settings);
    world.input(host, Input::Timeout);
}

/// What was begun before a failover of either end is done after it.
#[test]
fn rfc5685_section_5_a_redirection_survives_a_failover_of_either_end() {
    for host in [A, B] {
        for delivered in [false, true] {
            let mut world = world(6, &[None, None], |_| ());
            world.run(SECOND);
            let (ike, to) = (world.ike(B), gateway(3));
            world.input(B, Input::Redirect { ike, to });
            let request = world.intercept();
            if delivered {
                // The client knows, and what it answers and begins is lost.
                request.iter().for_each(|packet| world.deliver(packet));
                world.intercept();
            }
            world.fail_over(host, Resume::Exact);
            world.run(90 * SECOND);
            moved(&world, 3);
        }
    }
}

#[test]
fn rfc5685_section_5_a_client_after_rekeying_is_still_one_and_a_gateway_never() {
    let mut world = world(7, &[None, None], |_| ());
    world.run(SECOND);
    world.input(B, Input::RekeyIke(world.ike(B)));
    world.run(SECOND);
    // The client would redirect the gateway.
    let (ike, to) = (world.ike(A), gateway(9));
    world.input(A, Input::Redirect { ike, to });
    world.run(SECOND);
    moved(&world, 2);
    let (ike, to) = (world.ike(B), gateway(3));
    world.input(B, Input::Redirect { ike, to });
    world.run(2 * SECOND);
    moved(&world, 3);
}

/// Section 7: "MAX_REDIRECTS" in "REDIRECT_LOOP_DETECT_PERIOD".
#[test]
fn rfc5685_section_7_a_loop_ends_after_five_redirects() {
    let mut world = world(8, &[Some(3), Some(4), Some(2)], |_| ());
    world.run(Duration::from_millis(900));
    assert_eq!(firsts(&world).len(), 6);
    let tired = |e: &Event| matches!(e, Event::NegotiationFailed { reason, .. } if reason.contains("more than 5 times"));
    assert_eq!(world.hosts[A].count(tired), 1);
    // Two that send clients to each other: the second one sees where the client comes from.
    let mut world = self::world(9, &[Some(3), Some(2)], |_| ());
    world.run(SECOND);
    moved(&world, 3);
    let from = SocketAddr::new(address(A), 500);
    assert_eq!(world.sa(A).local, from.ip());
}

/// RFC 5685 section 3, of IKE_SESSION_RESUME, which takes the place of IKE_SA_INIT (RFC 5723): a
/// client that came back with a ticket can be sent away like any other, by any member.
#[test]
fn rfc5685_section_3_a_resumed_client_can_be_redirected() {
    let mut world = crate::resume::world(10, |host, settings| {
        if host == B {
            let mut other = settings.connections[0].clone();
            other.name = "other".to_owned();
            other.local_addrs = vec![gateway(3)];
            settings.connections.push(other);
        }
    });
    crate::resume::crash(&mut world);
    world.run(SECOND);
    assert_eq!(crate::resume::resumed(&world), 1);
    moved(&world, 2);
    world.fail_over(B, Resume::Exact);
    let (ike, to) = (world.ike(B), gateway(3));
    world.input(B, Input::Redirect { ike, to });
    world.run(60 * SECOND);
    moved(&world, 3);
    // A gateway that sends everybody on sends on whoever resumes, too.
    world.hosts[B].settings.connections[1].roads.redirect_to = Some(gateway(2));
    crate::resume::crash(&mut world);
    world.run(60 * SECOND);
    moved(&world, 2);
}

/// Whatever of a followed redirect is lost, late or twice there: one IKE SA is left.
#[test]
fn rfc5685_section_5_one_ike_sa_is_left_of_a_redirection() {
    for seed in 100..140 {
        let mut world = world(seed, &[None, None], |_| ());
        world.run(SECOND);
        let (ike, to) = (world.ike(B), gateway(3));
        world.faults = Faults {
            loss: 250,
            duplication: 300,
            delay: SECOND / 2,
        };
        world.input(B, Input::Redirect { ike, to });
        world.run(20 * SECOND);
        if seed % 2 == 0 {
            world.fail_over(if seed % 4 == 0 { A } else { B }, Resume::Exact);
        }
        world.run(20 * SECOND);
        world.faults = Faults::default();
        world.run(240 * SECOND);
        world.assert_agreement(1);
    }
}

/// RFC 6311 section 10: a gateway sends its client away and dies. Whoever takes over synchronises the IKE
/// SA that it inherits, then the client is sent away all the same, by that one; on what the client makes
/// with the other gateway there is nothing to synchronise, until a member of that one dies.
#[test]
fn rfc6311_r44_a_redirect_amid_a_takeover_comes_after_the_synchronisation() {
    let sync = Resume::MessageIdSync { replay_delta: None };
    let synced =
        |world: &World| world.hosts[A].count(|e| matches!(e, Event::MessageIdSynced { .. }));
    let mut world = world(44, &[None, None], |_| ());
    world.run(SECOND);
    let (ike, to) = (world.ike(B), gateway(3));
    world.input(B, Input::Redirect { ike, to });
    assert_eq!(world.intercept().len(), 1, "lost");
    world.fail_over(B, sync);
    world.run(5 * SECOND);
    assert_eq!(synced(&world), 1);
    world.run(60 * SECOND);
    moved(&world, 3);
    assert_eq!(synced(&world), 1);
    let ike = world.ike(A);
    world.fail_over(B, sync);
    world.run(5 * SECOND);
    moved(&world, 3);
    assert_eq!((synced(&world), world.ike(A)), (2, ike));
}
