//! Session resumption (RFC 5723): with a ticket a peer comes back to whatever member leads.

use std::time::Duration;

use hitless::ike::message::{Exchange, Parsed, Payload, emit, parse};
use hitless::ike::sessions::{ClusterSecret, Tickets};
use hitless::ike::settings::{Cookies, EngineSettings};
use hitless::ike::{Event, Input, Resume};

use crate::world::{A, B, Packet, SECOND, World, settings};

pub const NOON: Duration = Duration::from_secs(1_800_000_000);
pub const TICKETS: Duration = Duration::from_secs(3600);

/// A is the client, B the gateway that gives tickets.
fn resuming(host: usize) -> EngineSettings {
    let mut settings = settings(host);
    let session = &mut settings.connections[0].session;
    session.tickets = Some(Tickets {
        ticket_time: TICKETS,
        resumption_time: TICKETS * 24,
    });
    session.crash_detection = true;
    settings.cluster_secret = ClusterSecret::new("test", b"the secret of the cluster");
    settings
}

pub fn world(seed: u64, change: impl Fn(usize, &mut EngineSettings)) -> World {
    let [a, b] = [A, B].map(|host| {
        let mut settings = resuming(host);
        settings.time_of_day =
            hitless::ike::auth::TimeOfDay::new(hitless_sa::Instant(1_000_000_000_000), NOON);
        change(host, &mut settings);
        settings
    });
    let mut world = World::new(seed, a, b);
    world.run(SECOND);
    world.assert_agreement(1);
    world
}

/// Exchange types of the messages that a host sent since.
pub fn exchanges(world: &World, host: usize, since: usize) -> Vec<u8> {
    let sent = world.hosts[host].sent[since..].iter();
    sent.filter_map(|payload| payload.get(18).copied())
        .collect()
}

/// B loses everything, and A learns of it.
pub fn crash(world: &mut World) -> usize {
    world.restart(B);
    lose(world)
}

pub fn lose(world: &mut World) -> usize {
    let since = world.hosts[A].sent.len();
    let ike = world.ike(A);
    world.input(A, Input::Liveness(ike));
    since
}

pub const INIT: u8 = 34;
pub const RESUME: u8 = 38;
const AUTH: u8 = 35;

pub fn resumed(world: &World) -> usize {
    world.hosts[B].count(|e| matches!(e, Event::IkeResumed { .. }))
}

#[test]
fn rfc5723_section_4_3_a_client_comes_back_without_a_key_exchange() {
    let mut world = world(1, |_, _| {});
    let since = crash(&mut world);
    world.run(SECOND);
    world.assert_agreement(1);
    let sent = exchanges(&world, A, since);
    assert!(sent.contains(&RESUME) && !sent.contains(&INIT), "{sent:?}");
    assert_eq!(resumed(&world), 1);
    // With a ticket of the new IKE SA once more, from a member that had none of this.
    let since = crash(&mut world);
    world.run(SECOND);
    world.assert_agreement(1);
    assert!(!exchanges(&world, A, since).contains(&INIT));
    // The new IKE SA is one like any other.
    let (ike, sa) = (world.ike(A), world.sa(B).id);
    world.input(A, Input::RekeyIke(ike));
    world.input(B, Input::RekeyChild(sa));
    world.run(SECOND * 60);
    world.assert_agreement(1);
}

/// RFC 6311 section 10: both may be negotiated, and one of them is used. A member that knows the IKE SA
/// synchronises it, and the ticket stays where it is; to one that has lost it the client comes back with
/// the ticket, and what that makes can be synchronised again.
#[test]
fn rfc6311_r44_resumption_and_synchronisation_exclude_each_other_in_use() {
    let sync = Resume::MessageIdSync { replay_delta: None };
    let synced =
        |world: &World| world.hosts[A].count(|e| matches!(e, Event::MessageIdSynced { .. }));
    let mut world = world(44, |_, _| {});
    let (ike, maker) = (world.ike(A), world.hosts[B].settings.member);
    let since = world.hosts[A].sent.len();
    world.fail_over(B, sync);
    world.run(SECOND * 5);
    assert_eq!((synced(&world), world.ike(A)), (1, ike));
    assert!(!exchanges(&world, A, since).contains(&RESUME));
    // The token that proves its crash is of the member that made the IKE SA.
    world.hosts[B].settings.member = maker;
    let since = crash(&mut world);
    world.run(SECOND);
    world.assert_agreement(1);
    assert!(exchanges(&world, A, since).contains(&RESUME));
    assert_eq!((synced(&world), resumed(&world)), (1, 1));
    let resumed = world.ike(A);
    world.fail_over(B, sync);
    world.run(SECOND * 5);
    world.assert_agreement(1);
    assert_eq!((synced(&world), world.ike(A)), (2, resumed));
}

/// What the client holds is in its record; so is that it has to ask for another after a rekeying.
#[test]
fn the_ticket_of_a_client_fails_over_and_so_does_its_wish_for_another() {
    for rekey in [false, true] {
        let mut world = world(2, |_, _| {});
        if rekey {
            let ike = world.ike(A);
            world.input(A, Input::RekeyIke(ike));
            world.run(SECOND);
        }
        world.fail_over(A, Resume::Exact);
        world.run(SECOND * 5);
        world.assert_agreement(1);
        let since = crash(&mut world);
        world.run(SECOND);
        world.assert_agreement(1);
        let sent = exchanges(&world, A, since);
        assert!(sent.contains(&RESUME) && !sent.contains(&INIT), "{sent:?}");
    }
}

/// RFC 5723 section 6.2: with the IKE SA that it was given on, a ticket has had its day.
#[test]
fn rfc5723_section_6_2_rekeying_invalidates_the_ticket_and_the_client_asks_for_another() {
    for rekeyed_by in [A, B] {
        for asked in [false, true] {
            let mut world = world(12, |_, _| {});
            let ike = world.ike(rekeyed_by);
            world.input(rekeyed_by, Input::RekeyIke(ike));
            world.run(SECOND / 2);
            world.assert_agreement(1);
            if asked {
                world.run(5 * SECOND);
            }
            let since = crash(&mut world);
            world.run(2 * SECOND);
            world.assert_agreement(1);
            let sent = exchanges(&world, A, since);
            assert_eq!(sent.contains(&RESUME), asked, "{sent:?}");
            assert_eq!(sent.contains(&INIT), !asked, "{sent:?}");
        }
    }
}

/// RFC 5723 section 5: a resumption authenticates nobody anew, and so the time to do so goes on.
#[test]
fn a_resumption_does_not_put_off_the_client_s_own_reauthentication() {
    const REAUTH: Duration = Duration::from_secs(1_000);
    let mut world = world(13, |host, settings| {
        if host == A {
            settings.connections[0].auth.reauth_time = REAUTH;
        }
    });
    world.run(800 * SECOND);
    let since = crash(&mut world);
    world.run(SECOND);
    assert_eq!(resumed(&world), 1);
    assert!(!exchanges(&world, A, since).contains(&INIT));
    // The member that takes over knows it too.
    world.fail_over(A, Resume::Exact);
    world.run(200 * SECOND);
    world.assert_agreement(1);
    assert!(exchanges(&world, A, since).contains(&INIT));
}

/// The resumed IKE SA fails over like any other, on both ends, at every step.
#[test]
fn a_resumption_survives_the_death_of_either_end_at_every_step() {
    for host in [A, B] {
        for steps in 0..12 {
            let mut world = world(3, |_, _| {});
            crash(&mut world);
            let end = world.now + SECOND;
            for _ in 0..steps {
                world.step(end);
            }
            world.fail_over(host, Resume::Exact);
            world.run(SECOND * 80);
            world.assert_agreement(1);
        }
    }
}

/// The ticket goes over the wire in clear. Who replays it has not the keys of the session: nothing
/// of the client's comes of it, on this member or the next one.
#[test]
fn rfc5723_section_9_1_a_stolen_ticket_leads_nowhere() {
    let mut world = world(4, |_, _| {});
    crash(&mut world);
    world.run(SECOND);
    world.assert_agreement(1);
    let since = world.hosts[A].sent.len();
    let sent = world.hosts[A].sent.iter().rev();
    let request = sent.clone().find(|p| p.get(18) == Some(&RESUME)).cloned();
    let auth = sent.clone().find(|p| p.get(18) == Some(&AUTH)).cloned();
    let (ike, sa) = (world.ike(B), world.sa(B).id);
    let packet = |payload: Vec<u8>| Packet {
        from: "192.0.2.1:500".parse().unwrap(),
        to: "192.0.2.2:500".parse().unwrap(),
        payload,
    };
    for (other, fails_over) in [(false, false), (true, false), (true, true)] {
        if fails_over {
            world.fail_over(B, Resume::Exact);
        }
        let mut replay = request.clone().unwrap();
        if other {
            replay[0] ^= 0x55;
        }
        let before = world.hosts[B].sent.len();
        world.deliver(&packet(replay.clone()));
        let answer = world.hosts[B].sent.get(before).expect("an answer").clone();
        let Ok(Parsed::Clear { payloads, .. }) = parse(&answer) else {
            panic!("not in clear");
        };
        let nonce = |payload: &Payload| matches!(payload, Payload::Nonce(_));
        assert!(payloads.iter().any(nonce), "it is a ticket");
        // What the client proved was for the nonce and the SPI of another answer.
        let mut proof = auth.clone().unwrap();
        proof[..8].copy_from_slice(&replay[..8]);
        proof[8..16].copy_from_slice(&answer[8..16]);
        world.deliver(&packet(proof));
        world.run(SECOND * 60);
        assert_eq!((world.ike(B), world.sa(B).id), (ike, sa));
        world.assert_agreement(1);
    }
    // And the client presents it no more.
    let again = exchanges(&world, A, since);
    assert!(!again.contains(&RESUME), "{again:?}");
}

fn falls_back(mut world: World, prepare: impl Fn(&mut World)) {
    let old = world.ike(A);
    prepare(&mut world);
    let since = crash(&mut world);
    // With another secret there is no token either.
    world.run(SECOND * 80);
    world.assert_agreement(1);
    assert_ne!(world.ike(A), old);
    assert!(exchanges(&world, A, since).contains(&INIT), "in full");
    assert_eq!(resumed(&world), 0);
}

/// RFC 5723 section 4.3.2: the policy of today counts, not that of the ticket.
#[test]
fn rfc5723_section_4_3_2_a_ticket_that_does_not_count_leads_to_the_full_exchange() {
    let of_gateway = |change: fn(&mut EngineSettings)| {
        falls_back(world(5, |_, _| {}), |world| {
            change(&mut world.hosts[B].settings);
        });
    };
    // Another secret of the cluster.
    of_gateway(|b| {
        b.cluster_secret = ClusterSecret::new("test", b"another secret of it");
        b.connections[0].session.crash_detection = true;
    });
    of_gateway(|b| b.connections[0].session.tickets = None);
    of_gateway(|b| b.connections[0].name = "renamed".to_owned());
    of_gateway(|b| b.time_of_day = Default::default());
}

/// A gateway that has never heard of the exchange says nothing.
#[test]
fn rfc5723_section_4_3_silence_leads_to_the_full_exchange_too() {
    let mut world = world(6, |_, _| {});
    let old = world.ike(A);
    crash(&mut world);
    let end = world.now + SECOND * 20;
    // Everything of that exchange is lost.
    loop {
        let kept: Vec<Packet> = world.intercept();
        for packet in kept {
            if packet.payload.get(18) != Some(&RESUME) {
                world.deliver(&packet);
            }
        }
        if world.now >= end {
            break;
        }
        // Sooner than anything arrives by itself.
        world.run(Duration::from_micros(500));
    }
    world.run(SECOND * 5);
    world.assert_agreement(1);
    assert_ne!(world.ike(A), old);
    assert_eq!(resumed(&world), 0);
}

#[test]
fn rfc5723_section_6_2_what_was_deleted_is_not_resumed_and_what_expired_neither() {
    let mut world = world(7, |_, _| {});
    let ike = world.ike(B);
    let since = world.hosts[A].sent.len();
    world.input(B, Input::Terminate { ike });
    world.run(SECOND * 10);
    world.assert_agreement(1);
    assert!(!exchanges(&world, A, since).contains(&RESUME));
}

/// A ticket is renewed in good time, so that it is there when it is needed.
#[test]
fn tickets_are_renewed_before_they_expire() {
    let mut world = world(8, |_, _| {});
    world.run(TICKETS * 2);
    world.assert_agreement(1);
    let since = crash(&mut world);
    world.run(SECOND);
    assert!(!exchanges(&world, A, since).contains(&INIT));
    world.assert_agreement(1);
}

/// RFC 5723 section 4.3.3: a gateway under load demands a cookie here too.
#[test]
fn rfc5723_section_4_3_3_cookies_hold_for_the_exchange_too() {
    let mut world = world(9, |host, settings| {
        if host == B {
            settings.limits.cookies = Cookies::Always;
        }
    });
    world.restart(B);
    let since = lose(&mut world);
    world.run(SECOND);
    world.assert_agreement(1);
    let sent = exchanges(&world, A, since);
    assert_eq!(sent.iter().filter(|e| **e == RESUME).count(), 2, "{sent:?}");
    assert_eq!(resumed(&world), 1);
}

/// Truncated, damaged, and with payloads missing: an answer in clear or none, and no IKE SA.
#[test]
fn hostile_requests_to_resume_end_in_a_refusal() {
    let mut world = world(10, |_, _| {});
    crash(&mut world);
    let end = world.now + SECOND;
    let mut request = None;
    while request.is_none() && world.step(end) {
        let sent = world.hosts[A].sent.iter();
        request = sent.rev().find(|p| p.get(18) == Some(&RESUME)).cloned();
    }
    let request = request.unwrap();
    let packet = |payload: Vec<u8>| Packet {
        from: "192.0.2.1:500".parse().unwrap(),
        to: "192.0.2.2:500".parse().unwrap(),
        payload,
    };
    for length in 0..request.len() {
        world.deliver(&packet(request[..length].to_vec()));
    }
    for position in 28..request.len() {
        let mut damaged = request.clone();
        damaged[position] ^= 0x20;
        world.deliver(&packet(damaged));
    }
    let Ok(Parsed::Clear { header, payloads }) = parse(&request) else {
        panic!("not in clear");
    };
    assert_eq!(header.exchange, Exchange::IkeSessionResume);
    for left_out in 0..payloads.len() {
        let mut some = payloads.clone();
        some.remove(left_out);
        world.deliver(&packet(emit(&header, &some)));
    }
    world.run(SECOND * 40);
    world.assert_agreement(1);
}
