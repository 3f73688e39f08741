//! Strangers: what they may make the engine keep, and what they may not do to others.

use std::net::SocketAddr;
use std::time::Duration;

use hitless::ike::proposal::Identification;
use hitless::ike::settings::{Cookies, Limits, Unique};
use hitless::ike::work::Share;
use hitless::ike::{Event, Input, Resume};

use crate::world::{A, B, Packet, SECOND, World, address, child, settings, several};

const COOKIE: [u8; 2] = 16390u16.to_be_bytes();

/// A world whose responder serves anybody; A's first request is not delivered yet.
fn world(seed: u64, limits: Limits) -> (World, Packet) {
    let mut b = settings(B);
    b.limits = limits;
    b.connections[0].remote_addrs.clear();
    let mut world = World::new(seed, settings(A), b);
    let first = world.intercept().remove(0);
    (world, first)
}

/// A request with another SPI from another address.
fn from(first: &Packet, remote: SocketAddr, spi: u64) -> Packet {
    let mut packet = first.clone();
    packet.from = remote;
    packet.payload[..8].copy_from_slice(&spi.to_be_bytes());
    packet
}

fn stranger(n: u32) -> SocketAddr {
    SocketAddr::new(std::net::Ipv4Addr::from(0x0a00_0000 + n).into(), 500)
}

/// The cookie in an answer.
fn cookie(answer: &Packet) -> Option<Vec<u8>> {
    let notify = &answer.payload[28..];
    (notify[6..8] == COOKIE).then(|| notify[8..].to_vec())
}

/// A request with a cookie in front.
fn with_cookie(request: &Packet, cookie: &[u8]) -> Packet {
    let mut packet = request.clone();
    let length = 8 + cookie.len();
    let mut notify = vec![packet.payload[16], 0, 0, length as u8, 0, 0];
    notify.extend_from_slice(&COOKIE);
    notify.extend_from_slice(cookie);
    packet.payload.splice(28..28, notify);
    packet.payload[16] = 41;
    let total = packet.payload.len() as u32;
    packet.payload[24..28].copy_from_slice(&total.to_be_bytes());
    packet
}

fn dropped(world: &World, reason: &str) -> usize {
    world.hosts[B].count(|e| matches!(e, Event::Dropped { reason: r, .. } if *r == reason))
}

/// What B sends to one request, if anything.
fn answer(world: &mut World, request: &Packet) -> Option<Packet> {
    world.deliver(request);
    world.intercept().pop()
}

#[test]
fn the_half_open_table_is_full_at_its_limit_and_empty_again_after_its_time() {
    let limits = Limits {
        init_limit_half_open: 500,
        half_open_timeout: 5 * SECOND,
        cookie_threshold: 100,
        init_rate: 0,
        ..Limits::default()
    };
    let (mut world, first) = world(1, limits);
    for n in 0..20_000 {
        let request = from(&first, stranger(n % 2000), n.into());
        let answer = answer(&mut world, &request);
        // Every fifth is a stranger that receives what is sent to it.
        if let Some(cookie) = answer.as_ref().and_then(cookie)
            && n % 5 == 0
        {
            world.deliver(&with_cookie(&request, &cookie));
        }
    }
    let served = world.hosts[B].sent.iter().filter(|d| d[8..16] != [0; 8]);
    // The networks that have more give way until all have the same.
    let gave_way = dropped(&world, "a half-open IKE SA gave way to another");
    assert_eq!(served.count(), 500 + gave_way);
    assert!((1..200).contains(&gave_way), "{gave_way}");
    assert!(dropped(&world, "too many half-open IKE SAs") > 3_000);
    assert!(dropped(&world, "cookie demanded") > 15_000);
    world.intercept();
    // No time has passed: nothing was let go, and all of it is, five seconds later.
    world.run(5 * SECOND);
    world.intercept();
    assert!(answer(&mut world, &first).is_some());
}

/// RFC 8019 section 4: those who have filled the table, each at its own address, are not all who is
/// served.
#[test]
fn rfc8019_section_4_a_few_real_sources_do_not_keep_out_everybody_else() {
    let limits = Limits {
        init_limit_half_open: 160,
        cookie_threshold: 40,
        block_threshold: 10,
        ..Limits::default()
    };
    let (mut world, first) = world(2, limits);
    let mut serve = |source: u32, spi: u64| {
        let request = from(&first, stranger(source), spi);
        let mut answered = answer(&mut world, &request);
        if let Some(cookie) = answered.as_ref().and_then(cookie) {
            answered = answer(&mut world, &with_cookie(&request, &cookie));
        }
        answered.is_some_and(|answer| answer.payload[8..16] != [0; 8])
    };
    for source in 0..16 {
        let served = (0..20).filter(|n| serve(source, 100 + n)).count();
        assert_eq!(served, 10, "of source {source}");
    }
    // As many as come, from wherever else, until they are no fewer than those; and these not again.
    let others = (1..=40).filter(|n| serve(n << 8, 7)).count();
    assert_eq!(others, 40);
    assert!(!serve(99, 7) || !serve(99, 8), "they have their share");
}

/// RFC 7296 section 2.1: the same answer, without the work; and no more of them than anybody needs
/// whose packets are lost.
#[test]
fn rfc7296_section_2_1_a_repetition_gets_the_answer_again_for_less_and_a_flood_of_them_does_not() {
    let limits = Limits {
        init_rate_ip: 50,
        ..Limits::default()
    };
    let (mut world, first) = world(3, limits);
    let request = from(&first, stranger(1), 7);
    let share = Share::new(0);
    let reply = answer(&mut world, &request).unwrap();
    let asked = share.used();
    let share = Share::new(0);
    assert_eq!(answer(&mut world, &request).unwrap().payload, reply.payload);
    assert!(share.used() * 4 < asked, "{} {asked}", share.used());
    let answers = (0..2_000).filter(|_| answer(&mut world, &request).is_some());
    let answers = answers.count();
    assert!((8..500).contains(&answers), "{answers}");
    assert_eq!(
        dropped(&world, "IKE_SA_INIT repeated too often"),
        2_000 - answers
    );
    // Others have theirs.
    let other = from(&first, stranger(2), 7);
    assert!(answer(&mut world, &other).is_some() && answer(&mut world, &other).is_some());
}

#[test]
fn one_address_has_so_many_half_open_ike_sas_and_half_of_them_need_a_cookie() {
    let limits = Limits {
        cookie_threshold_ip: 10,
        block_threshold: 30,
        ..Limits::default()
    };
    let (mut world, first) = world(2, limits);
    let (mut at_once, mut with) = (0, 0);
    for n in 0..100 {
        let remote = SocketAddr::new(stranger(1).ip(), 1000 + n);
        let request = from(&first, remote, u64::from(n) + 1);
        let Some(reply) = answer(&mut world, &request) else {
            continue;
        };
        match cookie(&reply) {
            None => at_once += 1,
            Some(cookie) => {
                with += usize::from(answer(&mut world, &with_cookie(&request, &cookie)).is_some())
            }
        }
    }
    assert_eq!((at_once, with), (10, 20));
    assert_eq!(
        dropped(&world, "too many half-open IKE SAs of one address"),
        70
    );
    // Others do not notice.
    let other = answer(&mut world, &from(&first, stranger(2), 7)).unwrap();
    assert_eq!(cookie(&other), None);
}

#[test]
fn rfc7296_section_2_6_a_cookie_is_of_no_use_from_another_address_or_for_another_spi() {
    let limits = Limits {
        cookies: Cookies::Always,
        ..Limits::default()
    };
    let (mut world, first) = world(3, limits);
    let request = from(&first, stranger(1), 1);
    let cookie = cookie(&answer(&mut world, &request).unwrap()).unwrap();
    for other in [
        from(&first, stranger(2), 1),
        from(&first, SocketAddr::new(stranger(1).ip(), 501), 1),
        from(&first, stranger(1), 2),
    ] {
        let reply = answer(&mut world, &with_cookie(&other, &cookie)).unwrap();
        assert_eq!(reply.payload[8..16], [0; 8], "another cookie is demanded");
    }
    assert_eq!(dropped(&world, "not a cookie of ours"), 3);
    for length in 1..cookie.len() {
        let reply = answer(&mut world, &with_cookie(&request, &cookie[..length])).unwrap();
        assert_eq!(reply.payload[8..16], [0; 8], "{length} octets");
    }
    let reply = answer(&mut world, &with_cookie(&request, &cookie)).unwrap();
    assert_ne!(reply.payload[8..16], [0; 8]);
}

/// The member that takes over does not know the cookies of the one that died, and asks again.
#[test]
fn rfc7296_section_2_6_a_cookie_of_the_member_that_died_is_followed_by_one_of_its_successor() {
    let (mut a, mut b) = (settings(A), settings(B));
    a.retransmit_timeout = Duration::from_millis(100);
    b.limits.cookies = Cookies::Always;
    let mut world = World::new(4, a, b);
    let first = world.intercept().remove(0);
    world.deliver(&first);
    let demand = world.intercept().remove(0);
    world.deliver(&demand);
    // A has sent its request with the cookie.
    let second = world.intercept().remove(0);
    assert_eq!(second.payload[16], 41);
    world.fail_over(B, Resume::Exact);
    world.inject(second);
    world.run(2 * SECOND);
    world.assert_agreement(1);
    let requests = world.hosts[A].sent.iter().filter(|d| d[18] == 34).count();
    assert_eq!(requests, 3, "without, with the old, with the new cookie");
    assert_eq!(dropped(&world, "not a cookie of ours"), 1);
}

#[test]
fn a_first_request_that_is_long_is_dropped_unread_and_none_is_kept_at_its_length() {
    let (mut world, first) = world(5, Limits::default());
    let mut long = first.clone();
    // A vendor ID in front, and all in all as long as a datagram can be.
    for (length, dropped_all) in [(8 * 1024, 0), (8 * 1024 + 1, 1), (65_000, 2)] {
        long.payload = first.payload.clone();
        let vendor = length - first.payload.len();
        let mut payload = vec![long.payload[16], 0];
        payload.extend_from_slice(&(vendor as u16).to_be_bytes());
        payload.resize(vendor, 7);
        long.payload.splice(28..28, payload);
        long.payload[16] = 43;
        long.payload[..8].copy_from_slice(&(length as u64).to_be_bytes());
        long.payload[24..28].copy_from_slice(&(length as u32).to_be_bytes());
        let answered = answer(&mut world, &long).is_some();
        assert_eq!(answered, dropped_all == 0, "{length}");
        assert_eq!(dropped(&world, "IKE_SA_INIT too long"), dropped_all);
    }
}

/// A's IKE_AUTH request, as it would arrive from another address than IKE_SA_INIT.
fn auth_from_elsewhere(world: &mut World, first: &Packet) -> Packet {
    world.deliver(first);
    let response = world.intercept().remove(0);
    world.deliver(&response);
    let mut request = world.intercept().remove(0);
    assert_eq!(request.payload[18], 35, "IKE_AUTH");
    request.from = "203.0.113.9:4500".parse().unwrap();
    request
}

/// Behind a NAT another port may be mapped to another address; RFC 4555 section 3.3 too has the addresses
/// from the first IKE_AUTH request.
#[test]
fn rfc7296_section_2_11_ike_auth_is_answered_where_it_came_from() {
    let (mut world, first) = world(7, Limits::default());
    let request = auth_from_elsewhere(&mut world, &first);
    let answer = answer(&mut world, &request).expect("an answer");
    assert_eq!(answer.to, request.from);
    let status = world.hosts[B].engine.status(world.now);
    let remotes: Vec<SocketAddr> = status.iter().map(|ike| ike.remote).collect();
    assert_eq!(remotes, [request.from]);
}

/// A copy of a request can come from anywhere, and an answer of IKE_AUTH can be long.
#[test]
fn a_half_open_ike_sa_answers_once_wherever_its_owner_is_and_repeats_that_to_nobody_else() {
    let mut a = settings(A);
    a.secrets[0].secret = zeroize::Zeroizing::new(b"another".to_vec());
    let mut b = settings(B);
    b.connections[0].remote_addrs.clear();
    let mut world = World::new(7, a, b);
    let first = world.intercept().remove(0);
    let request = auth_from_elsewhere(&mut world, &first);
    let refusal = answer(&mut world, &request).expect("a refusal");
    assert_eq!(refusal.to, request.from);
    let mut copy = request.clone();
    copy.from = "198.51.100.77:4500".parse().unwrap();
    for _ in 0..3 {
        assert!(answer(&mut world, &copy).is_none());
    }
    assert_eq!(dropped(&world, "half-open IKE SA of another address"), 3);
    // Another port is another mapping of the same NAT, and its owner was where it began.
    for from in [SocketAddr::new(request.from.ip(), 4501), first.from] {
        copy.from = from;
        let again = answer(&mut world, &copy).expect("the same refusal");
        assert_eq!((again.to, &again.payload), (from, &refusal.payload));
    }
}

#[test]
fn a_copy_from_where_no_connection_lets_the_peer_be_leaves_a_half_open_ike_sa_to_its_owner() {
    let mut world = World::new(7, settings(A), settings(B));
    let first = world.intercept().remove(0);
    let mut request = auth_from_elsewhere(&mut world, &first);
    assert!(answer(&mut world, &request).is_none());
    assert_eq!(dropped(&world, "half-open IKE SA of another address"), 1);
    request.from.set_ip(first.from.ip());
    world.inject(request);
    world.run(SECOND);
    world.assert_agreement(1);
}

/// RFC 7383: fragments of IKE_AUTH wait for each other before anybody is authenticated.
#[test]
fn fragments_of_strangers_wait_in_bounded_room_and_who_comes_later_is_served() {
    const ROOM: usize = 1000;
    let mut a = settings(A);
    a.connections[0].fragment_size = 150;
    let mut b = settings(B);
    b.connections[0].remote_addrs.clear();
    b.limits.waiting_fragments = ROOM;
    let mut world = World::new(6, a, b);
    let mut held = 0;
    // The same initiator again and again, which never sends its last fragment.
    for n in 0..40u16 {
        world.now += Duration::from_millis(10);
        let mut first = world.intercept();
        first.retain(|p| p.payload[18] == 34);
        let request = first.pop().expect("IKE_SA_INIT");
        world.deliver(&request);
        let response = world.intercept().pop().unwrap();
        world.deliver(&response);
        let fragments = world.intercept();
        assert!(fragments.len() > 2 && fragments.iter().all(|p| p.payload[16] == 53));
        for fragment in &fragments[..fragments.len() - 1] {
            world.deliver(fragment);
            held += 1;
        }
        if n < 39 {
            // A forgets, and begins again.
            let mut settings = world.hosts[A].settings.clone();
            settings.member = hitless_sa::MemberId(20 + n as u8);
            world.hosts[A] = crate::world::Host::new(settings);
            world.lead(A, Resume::Exact);
        } else {
            world.inject(fragments[fragments.len() - 1].clone());
        }
    }
    // Those that waited longest made room, one IKE SA after the other, and the last one is whole.
    let given_up = dropped(&world, "too many fragments for half-open IKE SAs");
    assert!((30..40).contains(&given_up), "{given_up}, {held} held");
    world.run(SECOND);
    world.assert_agreement(1);
}

/// Everything that a forger can send for an IKE SA that is half-open leaves it to its owner.
#[test]
fn garbage_for_a_half_open_ike_sa_does_not_disturb_its_initiator() {
    let (mut world, first) = world(7, Limits::default());
    world.deliver(&first);
    let response = world.intercept().remove(0);
    world.deliver(&response);
    let auth = world.intercept().remove(0);
    for n in 0..2000usize {
        let mut forged = auth.clone();
        let position = 28 + n % (forged.payload.len() - 28);
        forged.payload[position] ^= 1 + (n / 256) as u8;
        if n % 3 == 0 {
            // As a fragment.
            forged.payload[16] = 53;
        }
        if n % 2 == 0 {
            forged.from = stranger(n as u32);
        }
        world.deliver(&forged);
        assert!(world.intercept().is_empty(), "nothing to answer");
    }
    world.inject(auth);
    world.run(SECOND);
    world.assert_agreement(1);
    assert_eq!(world.sa(B).remote, address(A));
}

/// A has so many connections to B, each by an identity of its own and with so many children, all within
/// the one that B has for anybody.
fn greedy(connections: usize, children: usize, limits: Limits) -> World {
    let (mut a, mut b) = (settings(A), settings(B));
    b.limits = limits;
    b.connections[0].remote_id = Identification::Any;
    let connection = a.connections[0].clone();
    let many = |number: usize| {
        let child = |n: usize| {
            let mut child = child(A, &format!("net{n}"), true);
            child.local_ts = vec![format!("10.1.{n}.0/24").parse().unwrap()];
            child.remote_ts = vec![format!("10.2.{n}.0/24").parse().unwrap()];
            child
        };
        let mut one = connection.clone();
        one.name = format!("peer{number}");
        one.local_id = Identification::Fqdn(format!("a{number}.test"));
        one.children = (0..children).map(child).collect();
        one
    };
    a.connections = (0..connections).map(many).collect();
    World::new(5, a, b)
}

/// Child SAs of each IKE SA of B.
fn held(world: &World) -> Vec<usize> {
    let status = world.hosts[B].engine.status(world.now);
    let mut held: Vec<usize> = status.iter().map(|sa| sa.children.len()).collect();
    held.sort_unstable();
    held
}

fn refusals(world: &World, host: usize, kind: &str) -> usize {
    let refused = |event: &Event| match event {
        Event::NegotiationFailed { reason, .. } | Event::AuthenticationFailed { reason, .. } => {
            reason.contains(kind)
        }
        _ => false,
    };
    world.hosts[host].count(refused)
}

#[test]
fn rfc7296_section_1_3_an_authenticated_peer_gets_so_many_child_sas_and_others_get_theirs() {
    let limits = Limits {
        children_per_ike: 4,
        ..Limits::default()
    };
    let mut world = greedy(2, 7, limits);
    world.run(SECOND);
    assert_eq!(held(&world), [4, 4]);
    assert!(refusals(&world, A, "NO_ADDITIONAL_SAS") >= 6);
    for failover in 0..3 {
        // Each is replaced all the same, and asking again does not help.
        for sa in world.hosts[A].sad.keys().copied().collect::<Vec<_>>() {
            world.input(A, Input::RekeyChild(sa));
        }
        world.run(SECOND * 90);
        assert_eq!(held(&world), [4, 4], "{failover}");
        assert_eq!(world.hosts[A].sad.len(), 8);
        if failover < 2 {
            world.fail_over([B, A][failover], Resume::Exact);
        }
    }
    // What one gives back another gets.
    let sa = *world.hosts[A].sad.keys().next().unwrap();
    let name = world.hosts[A].sad[&sa].1.clone();
    world.input(A, Input::TerminateChild(sa));
    world.run(SECOND * 90);
    assert_eq!(held(&world), [4, 4]);
    let names = world.hosts[A].sad.values().filter(|(_, n, _)| *n == name);
    assert_eq!(names.count(), 1, "that of the other connection");
}

#[test]
fn what_a_connection_is_configured_for_is_not_refused() {
    let limits = Limits {
        children_per_ike: 1,
        ..Limits::default()
    };
    let (mut a, mut b) = (settings(A), settings(B));
    a.connections[0].children = several(A, 6);
    b.connections[0].children = several(B, 6);
    b.limits = limits;
    let mut world = World::new(6, a, b);
    world.run(SECOND);
    world.assert_agreement(6);
}

/// One identity with a connection for each IKE SA, and another one beside it.
#[test]
fn one_identity_has_as_many_ike_sas_as_ikesa_limit_id_allows() {
    let limits = Limits {
        ikesa_limit_id: 2,
        ..Limits::default()
    };
    let world = |unique: Unique| {
        let (mut a, mut b) = (settings(A), settings(B));
        b.limits = limits;
        b.connections[0].remote_id = Identification::Any;
        b.connections[0].roads.unique = unique;
        let connection = a.connections[0].clone();
        let many = |number: usize| {
            let mut one = connection.clone();
            one.name = format!("peer{number}");
            one.roads.unique = Unique::Never;
            if number == 3 {
                one.local_id = Identification::Fqdn("other.test".to_owned());
            }
            one
        };
        a.connections = (0..4).map(many).collect();
        let mut world = World::new(7, a, b);
        world.run(SECOND);
        world
    };
    let many = "as many IKE SAs as ikesa_limit_id allows";
    for unique in [Unique::Never, Unique::No] {
        let world = world(unique);
        assert_eq!(world.ike_sas(B).len(), 3, "{unique:?}");
        assert_eq!(refusals(&world, B, many), 1, "{unique:?}");
    }
    // What takes the place of another is not more.
    assert_eq!(refusals(&world(Unique::Replace), B, many), 0);
}

#[test]
fn there_are_as_many_ike_sas_as_ikesa_limit_allows_and_who_comes_back_is_one_of_them() {
    let limits = Limits {
        ikesa_limit: 2,
        ..Limits::default()
    };
    let mut world = greedy(3, 1, limits);
    world.run(SECOND);
    assert_eq!(held(&world), [1, 1]);
    let full = "as many IKE SAs as ikesa_limit allows";
    assert_eq!(refusals(&world, B, full), 1);
    // Those that another member led count; whoever has lost its own gets it anew.
    world.fail_over(B, Resume::Exact);
    world.restart(A);
    world.run(SECOND);
    assert_eq!(held(&world), [1, 1]);
    assert_eq!(refusals(&world, B, full), 1);
    assert_eq!(world.hosts[A].sad.len(), 2);
    // A place that becomes free is taken by whoever asks.
    let ike = world.ike_sas(A)[0];
    world.input(A, Input::Terminate { ike });
    world.run(SECOND * 120);
    assert_eq!(held(&world), [1, 1]);
    assert_eq!(world.ike_sas(A).len(), 2);
}
