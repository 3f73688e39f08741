//! Quick crash detection (RFC 6290): a member that has lost everything proves it, and nobody else
//! can.

use hitless::ike::message::{Exchange, Header, NotifyKind, Parsed, Payload, emit, parse};
use hitless::ike::sessions::ClusterSecret;
use hitless::ike::settings::EngineSettings;
use hitless::ike::{Engine, Event, Input, Output, Resume};

use crate::world::{A, B, Packet, SECOND, World, settings};

fn detecting(host: usize) -> EngineSettings {
    let mut settings = settings(host);
    settings.connections[0].session.crash_detection = true;
    let secret = [b"secret of the cluster A", b"secret of the cluster B"][host];
    settings.cluster_secret = ClusterSecret::new("test", secret);
    settings
}

pub fn established(seed: u64) -> World {
    let mut world = World::new(seed, detecting(A), detecting(B));
    world.run(SECOND);
    world.assert_agreement(1);
    world
}

/// The host loses all that it knows but the cluster's secret.
fn crash(world: &mut World, host: usize) {
    world.restart(host);
}

fn lost(world: &World, host: usize) -> usize {
    let by_token =
        |e: &Event| matches!(e, Event::IkeDeleted { reason, .. } if reason.contains("6290"));
    world.hosts[host].count(by_token)
}

/// What an attacker would write, with a token or without.
fn claim(world: &World, host: usize, token: Option<&[u8]>) -> Packet {
    let last = world.hosts[host].sent.last().unwrap();
    let Ok(Parsed::Protected { header, .. }) = parse(last) else {
        panic!("not a protected message");
    };
    let header = Header {
        response: true,
        initiator: !header.initiator,
        ..header
    };
    let mut payloads = vec![Payload::notify(NotifyKind::INVALID_IKE_SPI, &[])];
    payloads.extend(token.map(|t| Payload::notify(NotifyKind::QUICK_CRASH_DETECTION, t)));
    let [to, from] = [host, 1 - host].map(|end| (crate::world::address(end), 500).into());
    Packet {
        from,
        to,
        payload: emit(&header, &payloads),
    }
}

#[test]
fn rfc6290_section_4_5_a_peer_that_restarted_is_found_in_one_round_trip() {
    for (maker, taker) in [(B, A), (A, B)] {
        let mut world = established(1);
        let old = world.ike(taker);
        world.hosts[maker].settings.connections[0].children[0].start = false;
        crash(&mut world, maker);
        world.input(taker, Input::Liveness(old));
        let end = world.now + SECOND / 10;
        while lost(&world, taker) == 0 && world.step(end) {}
        assert_eq!(lost(&world, taker), 1, "at once");
        world.run(SECOND);
        if taker == A {
            // Who is to keep it up makes it anew at once.
            world.assert_agreement(1);
            assert_ne!(world.ike(taker), old);
        } else {
            assert!(world.ike_sas(taker).is_empty());
        }
    }
}

#[test]
fn without_the_extension_the_same_takes_all_retransmissions() {
    let mut world = World::established(1);
    let old = world.ike(A);
    crash(&mut world, B);
    world.input(A, Input::Liveness(old));
    world.run(SECOND * 20);
    assert_eq!(world.ike_sas(A), [old]);
}

/// RFC 6290 section 4.3: the SPIs are others now, and so are the tokens, of both ends.
#[test]
fn rfc6290_section_4_3_a_rekeyed_ike_sa_has_tokens_of_its_own() {
    for (maker, taker) in [(B, A), (A, B)] {
        for rekeys in [A, B] {
            let mut world = established(2);
            let old = world.ike(rekeys);
            world.input(rekeys, Input::RekeyIke(old));
            world.run(SECOND);
            world.assert_agreement(1);
            world.hosts[maker].settings.connections[0].children[0].start = false;
            crash(&mut world, maker);
            world.input(taker, Input::Liveness(world.ike(taker)));
            let end = world.now + SECOND / 10;
            while world.step(end) {}
            assert_eq!(lost(&world, taker), 1, "maker {maker}, rekeyed by {rekeys}");
        }
    }
}

/// The taker's successor knows the token, the maker's successor the IKE SA.
#[test]
fn tokens_and_ike_sas_fail_over() {
    let mut world = established(3);
    let maker = world.hosts[B].settings.member;
    world.fail_over(A, Resume::Exact);
    world.fail_over(B, Resume::Exact);
    world.run(SECOND * 60);
    world.assert_agreement(1);
    assert_eq!((lost(&world, A), lost(&world, B)), (0, 0));
    let old = world.ike(A);
    // Another member does not know what the maker may have: it shows none.
    crash(&mut world, B);
    world.input(A, Input::Liveness(old));
    world.run(SECOND);
    assert_eq!(lost(&world, A), 0);
    world.hosts[B].settings.member = maker;
    crash(&mut world, B);
    world.run(SECOND * 4);
    assert_eq!(lost(&world, A), 1);
    world.assert_agreement(1);
}

/// RFC 6290 section 8 and RFC 6311: the IKE SA lives as long as a standby has it.
#[test]
fn rfc6290_section_8_a_standby_shows_no_token_and_a_leader_none_of_a_live_ike_sa() {
    let mut world = established(4);
    let ike = world.ike(A);
    world.input(A, Input::Liveness(ike));
    let request = world.intercept().pop().unwrap();
    let mut standby = Engine::new(world.hosts[B].settings.clone());
    let datagram = Input::Datagram {
        local: request.to,
        remote: request.from,
        payload: &request.payload,
    };
    let now = world.now;
    standby.handle(now, &mut world.entropy, datagram.clone());
    while let Some(output) = standby.poll_output() {
        assert!(matches!(output, Output::Event(_)), "{output:?}");
    }
    // With the IKE SA itself a stranger's message gets no token either.
    let mut damaged = request.clone();
    *damaged.payload.last_mut().unwrap() ^= 1;
    let before = world.hosts[B].sent.len();
    world.deliver(&damaged);
    assert_eq!(world.hosts[B].sent.len(), before);
    // Nor with another first SPI beside ours.
    let mut other = request;
    other.payload[3] ^= 1;
    world.deliver(&other);
    assert_eq!(world.hosts[B].sent.len(), before);
    // The same as leader of nothing, to show that the messages are such that would be answered.
    crash(&mut world, B);
    world.deliver(&other);
    assert_eq!(world.hosts[B].sent.len(), before + 1);
}

#[test]
fn rfc6290_section_4_5_only_the_token_counts_and_only_as_an_answer() {
    let mut world = established(5);
    let ike = world.ike(A);
    crash(&mut world, B);
    world.input(A, Input::Liveness(ike));
    let request = world.intercept().pop().unwrap();
    for wrong in [None, Some(vec![]), Some(vec![0; 32]), Some(vec![0; 128])] {
        let packet = claim(&world, A, wrong.as_deref());
        world.deliver(&packet);
        assert_eq!(world.ike_sas(A), [ike], "{wrong:?}");
    }
    world.deliver(&request);
    let true_answer = world.intercept().pop().unwrap();
    // Every truncation and every flipped bit.
    for length in 0..true_answer.payload.len() {
        let mut packet = true_answer.clone();
        packet.payload.truncate(length);
        world.deliver(&packet);
        assert_eq!(world.ike_sas(A), [ike], "{length} octets");
    }
    for position in (0..16).chain(41..true_answer.payload.len()) {
        let mut packet = true_answer.clone();
        packet.payload[position] ^= 4;
        world.deliver(&packet);
        assert_eq!(world.ike_sas(A), [ike], "octet {position}");
    }
    let mut elsewhere = true_answer.clone();
    elsewhere.from = "198.51.100.1:500".parse().unwrap();
    world.deliver(&elsewhere);
    assert_eq!(world.ike_sas(A), [ike]);
    world.deliver(&true_answer);
    assert_eq!(lost(&world, A), 1);
}

#[test]
fn rfc6290_section_4_5_a_token_that_nobody_asked_for_is_ignored() {
    let mut world = established(6);
    let ike = world.ike(A);
    world.input(A, Input::Liveness(ike));
    let request = world.intercept().pop().unwrap();
    world.deliver(&request);
    world.run(SECOND);
    // The maker forgets afterwards, and an attacker keeps what it says.
    crash(&mut world, B);
    world.deliver(&request);
    let answer = world.intercept();
    let answer = answer
        .iter()
        .find(|p| p.payload[18] == Exchange::Informational.number());
    world.deliver(answer.expect("a token"));
    assert_eq!(world.ike_sas(A), [ike]);
}

/// RFC 6290 section 9.2: an attacker that asks for tokens leaves those of others to them.
#[test]
fn rfc6290_section_9_2_a_flood_from_one_source_takes_no_token_from_another() {
    let mut b = detecting(B);
    b.connections[0].remote_addrs.clear();
    let mut world = World::new(9, detecting(A), b);
    world.run(SECOND);
    let ike = world.ike(A);
    crash(&mut world, B);
    world.input(A, Input::Liveness(ike));
    let honest = world.intercept().pop().unwrap();
    let before = world.hosts[B].sent.len();
    let mut forged = honest.clone();
    forged.from = "203.0.113.9:500".parse().unwrap();
    // As requests of IKE_AUTH they might get a hint besides.
    for exchange in [Exchange::Informational, Exchange::IkeAuth] {
        forged.payload[18] = exchange.number();
        for _ in 0..2000 {
            world.deliver(&forged);
        }
    }
    let shown = world.hosts[B].sent.len() - before;
    assert!((1..100).contains(&shown), "{shown}");
    world.deliver(&honest);
    assert_eq!(world.hosts[B].sent.len(), before + shown + 1);
}

/// RFC 3948 section 2.3: nothing else keeps the mapping while there is no Child SA.
#[test]
fn rfc3948_section_2_3_an_ike_sa_without_child_sa_keeps_its_nat_mapping() {
    let childless = |host| {
        let mut settings = settings(host);
        settings.connections[0].dpd_delay = Default::default();
        settings
    };
    let mut b = childless(B);
    b.connections[0].remote_addrs = Vec::new();
    let mut world = World::new(7, childless(A), b);
    world.intercept();
    world.nat = Some("203.0.113.9:6789".parse().unwrap());
    world.run(SECOND * 3);
    world.assert_agreement(1);
    let keepalives = |world: &World, host: usize| {
        let sent = world.hosts[host].sent.iter();
        sent.filter(|payload| **payload == [0xff]).count()
    };
    world.run(SECOND * 60);
    assert_eq!(keepalives(&world, A), 0, "the dataplane sends those");
    // The operator closes the Child SA, and A makes no other.
    let sa = world.sa(A).id;
    world.input(A, Input::TerminateChild(sa));
    world.run(SECOND * 61);
    assert_eq!(world.hosts[A].sad.len(), 0);
    assert_eq!(keepalives(&world, A), 4);
    assert_eq!(keepalives(&world, B), 0);
    // It would start what was terminated.
    world.hosts[A].settings.connections[0].children[0].start = false;
    world.fail_over(A, Resume::Exact);
    world.run(SECOND * 41);
    assert!(keepalives(&world, A) >= 6, "the successor goes on");
}

/// RFC 6311 section 10: both may be negotiated, and one of them is used: a member that knows the
/// IKE SA synchronises it, one that has lost it proves its crash.
#[test]
fn rfc6311_r44_crash_detection_and_synchronisation_exclude_each_other_in_use() {
    let synced = |e: &Event| matches!(e, Event::MessageIdSynced { .. });
    let mut world = established(44);
    let ike = world.ike(A);
    world.fail_over(B, Resume::MessageIdSync { replay_delta: None });
    world.run(5 * SECOND);
    assert_eq!((world.hosts[A].count(synced), lost(&world, A)), (1, 0));
    assert_eq!(world.ike(A), ike);
    let mut world = established(44);
    crash(&mut world, B);
    world.input(A, Input::Liveness(ike));
    world.run(SECOND);
    assert_eq!((world.hosts[A].count(synced), lost(&world, A)), (0, 1));
}

/// The answer to a rekeying is on its way while the peer uses the new IKE SA already: it is no
/// crash that we do not know that one yet.
#[test]
fn rfc6290_section_4_3_no_token_for_an_ike_sa_that_is_being_made() {
    let mut world = established(8);
    let ike = world.ike(A);
    world.input(A, Input::RekeyIke(ike));
    let request = world.intercept().pop().unwrap();
    world.deliver(&request);
    let answer = world.intercept();
    let new = world.ike_sas(B).into_iter().find(|spi| {
        let known = |e: &Event| matches!(e, Event::IkeRekeyed { new, .. } if new == spi);
        world.hosts[B].saw(known)
    });
    world.input(B, Input::Liveness(new.expect("a successor")));
    let early = world.intercept().pop().unwrap();
    let before = world.hosts[A].sent.len();
    world.deliver(&early);
    assert_eq!(world.hosts[A].sent.len(), before, "silence");
    for packet in &answer {
        world.deliver(packet);
    }
    world.run(SECOND * 10);
    world.assert_agreement(1);
    assert_eq!((lost(&world, A), lost(&world, B)), (0, 0));
}

/// What was being told when the member died is told again by one that does not know whether it
/// arrived.
#[test]
fn rfc6290_section_4_3_a_token_on_its_way_at_an_inexact_takeover_is_given_again() {
    let mut world = established(9);
    let (ike, maker) = (world.ike(A), world.hosts[A].settings.member);
    world.input(A, Input::RekeyIke(ike));
    for _ in 0..2 {
        for packet in world.intercept() {
            world.deliver(&packet);
        }
    }
    // The token of the successor, and the end of the old IKE SA.
    assert!(!world.intercept().is_empty());
    world.fail_over(A, Resume::Probe);
    world.run(SECOND * 60);
    world.assert_agreement(1);
    world.hosts[A].settings.member = maker;
    crash(&mut world, A);
    let ike = world.ike(B);
    world.input(B, Input::Liveness(ike));
    world.run(SECOND * 4);
    assert_eq!(lost(&world, B), 1);
}
