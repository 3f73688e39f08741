//! Eager and lazy synchronisation after a takeover, under a governor (R33, R35, R37, RFC 6311
//! section 7).

use std::time::Duration;

use hitless::ike::settings::{EngineSettings, Limits, Mobike, SyncAfterTakeover};
use hitless::ike::{Engine, Event, Input, Output, Resume};
use hitless_sa::MemberId;

use crate::resuming::{TUNNELS, crowd};
use crate::world::{A, B, SECOND, World, settings};

const MINUTE: Duration = Duration::from_secs(60);

fn sync(delta: u64) -> Resume {
    Resume::MessageIdSync {
        replay_delta: Some(delta),
    }
}

fn asked(event: &Event) -> bool {
    matches!(event, Event::MessageIdSyncSent { .. })
}

/// A is a cluster that asks when it must; nothing is asked for by itself.
fn lazy(seed: u64) -> World {
    let ends = [A, B].map(|host| {
        let mut settings = settings(host);
        let connection = &mut settings.connections[0];
        connection.dpd_delay = Duration::ZERO;
        connection.roads.sync_after_takeover = SyncAfterTakeover::Lazy;
        settings
    });
    let [a, b] = ends;
    let mut world = World::new(seed, a, b);
    world.run(SECOND);
    world.assert_agreement(1);
    world
}

/// What A sent since.
fn quiet_for(world: &mut World, time: Duration) -> bool {
    let before = world.hosts[A].sent.len();
    world.run(time);
    world.hosts[A].sent.len() == before
}

#[test]
fn rfc6311_r37_a_lazy_ike_sa_asks_nothing_until_something_needs_it() {
    for resume in [sync(9), Resume::Probe] {
        let mut world = lazy(1);
        world.fail_over(A, resume);
        // It is carried all the same.
        assert_eq!(world.hosts[A].sad.len(), 1);
        assert_eq!(world.hosts[A].engine.owing(), 1);
        assert!(quiet_for(&mut world, 60 * MINUTE));
        let (ike, sa) = (world.ike(A), world.sa(A).id);
        world.input(A, Input::RekeyChild(sa));
        world.run(5 * SECOND);
        world.assert_agreement(1);
        assert_ne!(
            world.sa(A).id,
            sa,
            "first the synchronisation, then the task"
        );
        assert_eq!(world.ike(A), ike);
        assert_eq!(world.hosts[A].engine.owing(), 0);
        assert!(quiet_for(&mut world, 60 * MINUTE), "once");
    }
}

#[test]
fn rfc6311_r33_a_packet_of_the_peer_makes_a_lazy_ike_sa_ask() {
    let mut world = lazy(2);
    let old = world.hosts[A].records.clone();
    for host in [A, B] {
        let ike = world.ike(host);
        world.input(host, Input::Liveness(ike));
        world.run(SECOND);
    }
    world.fail_over_with(A, old, sync(9));
    assert!(quiet_for(&mut world, MINUTE));
    let sa = world.sa(B).id;
    world.input(B, Input::RekeyChild(sa));
    // The peer's request is dropped (R38), and answered when it is repeated.
    world.run(20 * SECOND);
    world.assert_agreement(1);
    assert_ne!(world.sa(B).id, sa);
    assert_eq!(world.hosts[A].count(asked), 1);
}

#[test]
fn rfc6311_r33_esp_that_counts_as_seen_makes_a_lazy_ike_sa_ask() {
    let mut world = lazy(3);
    world.fail_over(A, sync(77));
    assert!(quiet_for(&mut world, MINUTE));
    let ike = world.ike(A);
    for _ in 0..3 {
        world.input(A, Input::ReplayCounterSync { ike, delta: 0 });
        world.run(SECOND);
    }
    let told = |e: &Event| matches!(e, Event::ReplayCounterSync { delta: 77, .. });
    assert_eq!(world.hosts[B].count(told), 1);
    assert_eq!(world.hosts[A].count(asked), 1);
}

#[test]
fn rfc6311_r37_a_lazy_ike_sa_asks_when_its_idle_time_comes() {
    let mut world = lazy(4);
    world.hosts[A].settings.connections[0].dpd_delay = 30 * SECOND;
    world.fail_over(A, Resume::Probe);
    assert!(quiet_for(&mut world, 28 * SECOND));
    assert!(!quiet_for(&mut world, 4 * SECOND));
    let ike = world.ike(A);
    world.run(MINUTE);
    assert_eq!(world.ike(A), ike);
}

#[test]
fn rfc6311_r35_a_thousand_old_packets_make_one_synchronisation() {
    let mut world = lazy(5);
    let mut old = Vec::new();
    for _ in 0..20 {
        let ike = world.ike(B);
        world.input(B, Input::Liveness(ike));
        let request = world.intercept().remove(0);
        world.inject(request.clone());
        old.push(request);
        world.run(SECOND);
    }
    for takeover in 1..=2 {
        world.fail_over(A, sync(1));
        for packet in old.iter().cycle().take(1000) {
            world.deliver(packet);
        }
        world.run(MINUTE);
        assert_eq!(world.hosts[A].count(asked), 1, "takeover {takeover}");
    }
}

#[test]
fn rfc6311_r35_what_a_member_did_not_come_to_ask_the_next_one_asks() {
    // The second takeover is an exact one: the record of the member between says what it owes.
    let mut world = lazy(6);
    world.fail_over(A, sync(40));
    assert!(quiet_for(&mut world, MINUTE));
    world.fail_over(A, Resume::Exact);
    assert_eq!(world.hosts[A].engine.owing(), 1);
    assert!(quiet_for(&mut world, MINUTE));
    // The third has numbers of its own to leave out, besides those that nobody has asked for.
    world.fail_over(A, sync(2));
    assert!(quiet_for(&mut world, MINUTE));
    let ike = world.ike(A);
    world.input(A, Input::Liveness(ike));
    world.run(SECOND);
    let told = |e: &Event| matches!(e, Event::ReplayCounterSync { delta: 42, .. });
    assert_eq!(world.hosts[B].count(told), 1);
    assert_eq!(world.hosts[A].count(asked), 1);
    // What was asked is owed no more.
    world.fail_over(A, Resume::Exact);
    assert_eq!(world.hosts[A].engine.owing(), 0);
    world.run(MINUTE);
    assert_eq!(world.hosts[A].count(asked), 0);
}

#[test]
fn a_request_that_the_dead_member_left_outstanding_is_needed_at_once() {
    for resume in [sync(9), Resume::Probe] {
        let mut world = lazy(7);
        let sa = world.sa(A).id;
        world.input(A, Input::RekeyChild(sa));
        world.intercept();
        world.fail_over(A, resume);
        world.run(10 * SECOND);
        world.assert_agreement(1);
        assert_ne!(world.sa(A).id, sa);
    }
}

/// Hundreds of IKE SAs that must probe, with room for ten at a time and a hundred in a second.
fn governed(how: SyncAfterTakeover) -> (World, Engine) {
    let limits = |limits: Limits| Limits {
        takeover_sync_limit: 10,
        takeover_sync_rate: 100,
        ..limits
    };
    let mut world = crowd();
    let mut settings = world.hosts[B].settings.clone();
    settings.limits = limits(settings.limits);
    for connection in &mut settings.connections {
        connection.roads.sync_after_takeover = how;
    }
    let mut engine = Engine::new(EngineSettings {
        member: MemberId(12),
        ..settings
    });
    for (ike, (version, body)) in &world.hosts[B].records {
        engine.store(world.now, *ike, *version, body).unwrap();
    }
    engine.lead(world.now, &mut world.entropy, &mut |_| Resume::Probe);
    engine.resume_some(world.now, &mut world.entropy, TUNNELS);
    (world, engine)
}

/// The requests that leave.
fn requests(engine: &mut Engine) -> Vec<hitless::ike::Transmit> {
    let mut requests = Vec::new();
    while let Some(output) = engine.poll_output() {
        match output {
            Output::Commit(commit) => requests.extend(commit.transmits),
            Output::Transmit(transmit) | Output::Retransmit { transmit, .. } => {
                requests.push(transmit);
            }
            Output::Event(_) => {}
        }
    }
    requests
}

#[test]
fn rfc6311_r37_eager_synchronisation_keeps_to_its_rate_and_its_number() {
    let (mut world, mut engine) = governed(SyncAfterTakeover::Eager);
    let start = world.now;
    let mut answered = 0;
    let mut most = 0;
    // Answers need 20 ms.
    let mut wire: std::collections::VecDeque<_> = Default::default();
    while answered < TUNNELS {
        let sent = requests(&mut engine);
        wire.extend(sent.into_iter().map(|t| (world.now + SECOND / 50, t)));
        most = most.max(wire.len());
        let ticks = engine.poll_timeout().filter(|at| *at > world.now);
        let arrives = wire.front().map(|(at, _)| *at);
        let next = [ticks, arrives].into_iter().flatten().min();
        world.now = next.expect("something goes on");
        while let Some((_, request)) = wire.pop_front_if(|(at, _)| *at <= world.now) {
            let before = world.hosts[A].sent.len();
            let ask = Input::Datagram {
                local: request.remote,
                remote: request.local,
                payload: &request.payload,
            };
            world.input(A, ask);
            let answers = world.hosts[A].sent[before..].to_vec();
            answered += answers.len();
            for payload in answers {
                let answer = Input::Datagram {
                    local: request.local,
                    remote: request.remote,
                    payload: &payload,
                };
                engine.handle(world.now, &mut world.entropy, answer);
            }
        }
        engine.handle(world.now, &mut world.entropy, Input::Timeout);
        let done = world.now.since(start).as_secs_f64();
        // A hundred in a second, and an eighth of that at the beginning.
        assert!(
            answered as f64 <= 13.0 + 100.0 * done,
            "{answered} in {done} s"
        );
    }
    assert!(most <= 10, "{most} at once");
    assert_eq!(engine.owing(), 0);
    let took = world.now.since(start);
    assert!(took < 4 * SECOND, "{took:?}");
}

#[test]
fn peers_that_do_not_answer_hold_up_nobody_for_long() {
    let (mut world, mut engine) = governed(SyncAfterTakeover::Eager);
    let mut begun = Vec::new();
    for _ in 0..8 {
        let end = world.now + SECOND;
        while let Some(at) = engine.poll_timeout().filter(|at| *at <= end) {
            world.now = world.now.max(at);
            engine.handle(world.now, &mut world.entropy, Input::Timeout);
        }
        world.now = end;
        begun.push(TUNNELS - engine.owing());
    }
    // Ten every two seconds, the next ones at the end of the second second.
    assert_eq!(begun, [10, 20, 20, 30, 30, 40, 40, 50]);
}

#[test]
fn what_is_needed_comes_before_what_is_eager() {
    let (mut world, mut engine) = governed(SyncAfterTakeover::Eager);
    requests(&mut engine);
    let last = engine.status(world.now).last().unwrap().local_spi;
    assert!(engine.owes(last));
    engine.handle(world.now, &mut world.entropy, Input::Liveness(last));
    assert!(engine.owes(last), "there is no room yet");
    let before = engine.owing();
    while engine.owing() == before {
        world.now = engine.poll_timeout().unwrap().max(world.now);
        engine.handle(world.now, &mut world.entropy, Input::Timeout);
    }
    assert!(!engine.owes(last));
}

#[test]
fn a_lazy_crowd_is_silent_and_its_needs_keep_to_the_number() {
    let (mut world, mut engine) = governed(SyncAfterTakeover::Lazy);
    assert_eq!((requests(&mut engine).len(), engine.owing()), (0, TUNNELS));
    for ike in engine.status(world.now) {
        let ike = ike.local_spi;
        engine.handle(world.now, &mut world.entropy, Input::Liveness(ike));
    }
    engine.handle(world.now, &mut world.entropy, Input::Timeout);
    assert_eq!(engine.owing(), TUNNELS - 10);
    assert_eq!(requests(&mut engine).len(), 10);
    engine.step_down();
    assert_eq!(engine.owing(), 0);
}

/// Where nothing is known of who moved the tunnel last, the peer is told where it is (RFC 4555 section
/// 3.5): when it is asked, not for that alone.
#[test]
fn rfc6311_r37_mobike_is_no_reason_for_a_lazy_ike_sa_to_ask() {
    let moved: std::net::IpAddr = "198.51.100.1".parse().unwrap();
    for resume in [sync(9), Resume::Probe] {
        let ends = [A, B].map(|host| {
            let mut settings = settings(host);
            let connection = &mut settings.connections[0];
            connection.dpd_delay = Duration::ZERO;
            connection.roads.sync_after_takeover = SyncAfterTakeover::Lazy;
            connection.roads.mobike = Mobike::Offer;
            connection.local_addrs.extend((host == A).then_some(moved));
            connection.remote_addrs.extend((host == B).then_some(moved));
            settings
        });
        let [a, b] = ends;
        let mut world = World::new(8, a, b);
        world.run(SECOND);
        // Whoever takes over does not know that the peer was told of another address.
        let (ike, before) = (world.ike(A), world.hosts[A].records.clone());
        world.input(A, Input::Relocate { ike, local: moved });
        world.run(SECOND);
        assert_eq!(world.sa(B).remote, moved);
        world.fail_over_with(A, before, resume);
        assert!(quiet_for(&mut world, 60 * MINUTE));
        assert_eq!(world.hosts[A].engine.owing(), 1);
        world.input(A, Input::Liveness(ike));
        world.run(20 * SECOND);
        assert_eq!(world.sa(B).remote, crate::world::address(A));
        assert!(quiet_for(&mut world, MINUTE), "once");
    }
}
