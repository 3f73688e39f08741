//! Windows wider than one request (RFC 7296 section 2.3), and what tells a repetition from another
//! request, before and after a failover.

use std::time::Duration;

use hitless::ike::settings::{EngineSettings, WindowSize};
use hitless::ike::{Event, Input, Resume};
use hitless_sa::{MessageId, SaId};

use crate::world::{A, B, Packet, SECOND, World, is_response, message_id, settings, several};

const SYNC: Resume = Resume::MessageIdSync { replay_delta: None };

pub fn with_window(host: usize, children: usize, window: u32) -> EngineSettings {
    let mut settings = settings(host);
    settings.connections[0].children = several(host, children);
    settings.connections[0].roads.window_size = WindowSize::new(window).unwrap();
    settings
}

/// Two ends with so many Child SAs.
fn established(seed: u64, children: usize, windows: [u32; 2]) -> World {
    let [a, b] = [A, B].map(|host| with_window(host, children, windows[host]));
    let mut world = World::new(seed, a, b);
    world.run(3 * SECOND);
    world.assert_agreement(children);
    world
}

fn rekey_all(world: &mut World, host: usize) -> Vec<SaId> {
    let all: Vec<SaId> = world.hosts[host].sad.keys().copied().collect();
    for sa in &all {
        world.input(host, Input::RekeyChild(*sa));
    }
    all
}

fn no_new_ike_auth(world: &World) {
    for host in [A, B] {
        let again = |e: &Event| matches!(e, Event::IkeEstablished { .. });
        assert_eq!(world.hosts[host].count(again), 0, "no new IKE_AUTH");
    }
}

fn forget_events(world: &mut World) {
    for host in &mut world.hosts {
        host.events.clear();
    }
}

#[test]
fn several_requests_are_outstanding_at_once_in_both_roles_rfc7296_2_3() {
    for host in [A, B] {
        let mut world = established(1, 4, [4, 4]);
        let old = rekey_all(&mut world, host);
        let mut requests = world.intercept();
        assert_eq!(requests.len(), 4);
        let ids: Vec<u32> = requests.iter().map(message_id).collect();
        assert!(ids.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{ids:?}");
        // They are answered in the order in which they arrive.
        requests.reverse();
        for request in &requests {
            world.deliver(request);
        }
        let answers = world.intercept();
        let answered: Vec<u32> = answers.iter().map(message_id).collect();
        let reversed: Vec<u32> = ids.iter().rev().copied().collect();
        assert_eq!(answered, reversed);
        for answer in &answers {
            world.deliver(answer);
        }
        world.run(3 * SECOND);
        world.assert_agreement(4);
        assert!(old.iter().all(|sa| !world.hosts[host].sad.contains_key(sa)));
    }
}

#[test]
fn the_peer_s_window_is_never_exceeded_rfc7296_2_3() {
    for (windows, most) in [([8, 2], 2), ([2, 8], 2), ([1, 8], 1), ([8, 1], 1)] {
        let mut world = established(2, 5, windows);
        rekey_all(&mut world, A);
        let mut requests = world.intercept();
        assert_eq!(requests.len(), most, "{windows:?}");
        // An answer to the second alone opens nothing: X waits for X - N.
        if most == 2 {
            let second = requests.remove(1);
            world.deliver(&second);
            for answer in world.intercept() {
                world.deliver(&answer);
            }
            let new: Vec<Packet> = world.intercept();
            assert!(new.iter().all(|p| is_response(&p.payload)), "{windows:?}");
        }
        for request in requests {
            world.inject(request);
        }
        world.run(20 * SECOND);
        world.assert_agreement(5);
    }
}

#[test]
fn a_rekeyed_ike_sa_starts_with_one_until_it_is_told_more_rfc7296_2_3() {
    let mut world = established(3, 3, [3, 3]);
    let ike = world.ike(A);
    world.input(A, Input::RekeyIke(ike));
    world.run(3 * SECOND);
    rekey_all(&mut world, A);
    let first = world.intercept();
    assert_eq!(first.len(), 1);
    for request in first {
        world.inject(request);
    }
    world.run(3 * SECOND);
    world.assert_agreement(3);
    rekey_all(&mut world, A);
    assert_eq!(world.intercept().len(), 3);
}

#[test]
fn reordered_requests_survive_a_failover_at_every_step_rfc7296_2_3() {
    for asking in [A, B] {
        for dying in [A, B] {
            for steps in 0..9 {
                let mut world = established(4, 3, [3, 3]);
                forget_events(&mut world);
                rekey_all(&mut world, asking);
                let mut packets = world.intercept();
                packets.reverse();
                let mut answers = Vec::new();
                for packet in packets.iter().take(steps) {
                    world.deliver(packet);
                    answers.extend(world.intercept());
                }
                answers.reverse();
                for packet in answers.iter().take(steps.saturating_sub(3)) {
                    world.deliver(packet);
                }
                // Half of what is on the wire is lost with the member.
                world.intercept().truncate(1);
                let before = world.hosts[dying].sent.clone();
                world.fail_over(dying, Resume::Exact);
                if dying != asking {
                    assert_same_answers(&mut world, dying, &packets, &before);
                }
                world.run(80 * SECOND);
                world.assert_agreement(3);
                no_new_ike_auth(&world);
            }
        }
    }
}

/// Every request that was answered gets the same octets again (S4).
fn assert_same_answers(world: &mut World, host: usize, requests: &[Packet], before: &[Vec<u8>]) {
    for request in requests {
        let same = |p: &&Vec<u8>| is_response(p) && p[20..24] == request.payload[20..24];
        let Some(answer) = before.iter().rev().find(same).cloned() else {
            continue;
        };
        let sent = world.hosts[host].sent.len();
        world.deliver(request);
        let again = world.hosts[host].sent[sent..].iter().find(same);
        assert_eq!(again, Some(&answer), "octet for octet");
    }
}

#[test]
fn rfc6311_h8_message_ids_are_synchronised_with_wide_windows() {
    for (arrived, dying) in (0..8u32).flat_map(|bits| [(bits, A), (bits, B)]) {
        let mut world = established(5, 3, [3, 3]);
        forget_events(&mut world);
        let old = world.hosts[dying].records.clone();
        // Both ends have three requests outstanding; some arrived, and no answer did.
        for host in [A, B] {
            rekey_all(&mut world, host);
        }
        for (position, packet) in world.intercept().iter().enumerate() {
            if arrived >> (position % 3) & 1 == 1 {
                world.deliver(packet);
            }
        }
        world.intercept();
        world.fail_over_with(dying, old, SYNC);
        world.run(100 * SECOND);
        let synced = |e: &Event| matches!(e, Event::MessageIdSynced { .. });
        assert!(world.hosts[dying].saw(synced), "{arrived:b}");
        for host in [A, B] {
            assert_eq!(world.ike_sas(host).len(), 1);
            rekey_all(&mut world, host);
            world.run(40 * SECOND);
        }
        no_new_ike_auth(&world);
    }
}

#[test]
fn rfc6311_r42_r43_nothing_that_is_pending_is_waited_for() {
    let mut world = established(6, 3, [3, 3]);
    let ids = |world: &World, host: usize| {
        let status = world.hosts[host].engine.status(world.now);
        (status[0].next_request, status[0].expected_request)
    };
    let (next, expected) = ids(&world, B);
    // B asks three times; A has the last two and its answers are lost, and the other way round.
    rekey_all(&mut world, B);
    rekey_all(&mut world, A);
    for packet in world.intercept() {
        if message_id(&packet) != next.0 && message_id(&packet) != expected.0 {
            world.deliver(&packet);
        }
    }
    world.intercept();
    let above = |id: MessageId| MessageId(id.0 + 3);
    assert_eq!(ids(&world, B), (above(next), above(expected)), "R42, R43");
    world.fail_over(A, SYNC);
    world.run(60 * SECOND);
    let (next_request, _) = ids(&world, B);
    assert!(next_request >= above(next), "R20: above all that was used");
}

#[test]
fn probing_finds_the_message_id_of_a_peer_with_a_wide_window() {
    for exchanges in 0..6 {
        let mut world = established(7, 1, [3, 3]);
        let old = world.hosts[A].records.clone();
        for _ in 0..exchanges {
            for host in [A, B] {
                let ike = world.ike(host);
                world.input(host, Input::Liveness(ike));
                world.run(SECOND);
            }
        }
        world.fail_over_with(A, old, Resume::Probe);
        // The likeliest one is lost.
        world.intercept();
        world.run(Duration::from_secs(60));
        for host in [A, B] {
            let sa = world.sa(host);
            world.input(host, Input::RekeyChild(sa.id));
            world.run(60 * SECOND);
            world.assert_agreement(1);
            assert_ne!(world.sa(host).id, sa.id, "{exchanges} exchanges behind");
        }
    }
}

/// The answer to a probe is the first that is heard of the peer on this IKE SA: what it says of its window
/// tells the successor that the probe before it, which the peer never had, must be had yet.
#[test]
fn an_answered_probe_says_how_wide_the_peer_s_window_is_rfc7296_2_3() {
    let mut world = established(9, 1, [3, 3]);
    let ike = world.ike(A);
    world.input(A, Input::RekeyIke(ike));
    world.run(3 * SECOND);
    world.fail_over(A, Resume::Probe);
    world.intercept();
    world.run(SECOND / 5);
    let mut probes = world.intercept();
    let ids: Vec<u32> = probes.iter().map(message_id).collect();
    assert_eq!(ids, [0, 1], "the first one is lost again");
    world.inject(probes.remove(1));
    world.run(SECOND);
    for _ in 0..3 {
        let sa = world.sa(A).id;
        world.input(A, Input::RekeyChild(sa));
        world.run(SECOND);
        world.assert_agreement(1);
        assert_ne!(world.sa(A).id, sa);
    }
}

/// What was outstanding at the takeover the peer never had, and answers the probe behind it: with a window
/// of several it waits for that request, which goes on to be sent, and whose answer counts.
#[test]
fn an_answered_probe_leaves_what_the_peer_still_waits_for_rfc7296_2_3() {
    let mut world = established(10, 1, [3, 3]);
    let sa = world.sa(A).id;
    world.input(A, Input::RekeyChild(sa));
    let first = message_id(&world.intercept()[0]);
    world.fail_over(A, Resume::Probe);
    let again: Vec<u32> = world.intercept().iter().map(message_id).collect();
    assert_eq!(again, [first], "lost again");
    world.run(SECOND / 5);
    let probes = world.intercept();
    let ids: Vec<u32> = probes.iter().map(message_id).collect();
    assert_eq!(ids, [first + 1]);
    for probe in probes {
        world.inject(probe);
    }
    world.run(2 * SECOND);
    world.assert_agreement(1);
    assert_ne!(world.sa(A).id, sa, "the request that was outstanding");
    for _ in 0..4 {
        let sa = world.sa(A).id;
        world.input(A, Input::RekeyChild(sa));
        world.run(SECOND);
        world.assert_agreement(1);
        assert_ne!(world.sa(A).id, sa);
    }
}

#[test]
fn a_successor_tells_a_repetition_from_another_request_rfc7296_2_1() {
    for failovers in 0..3 {
        for window in [1, 4] {
            let mut world = established(8, 1, [window, window]);
            let old = world.hosts[B].records.clone();
            let (ike, sa) = (world.ike(B), world.sa(B).id);
            world.input(B, Input::Liveness(ike));
            let request = world.intercept().remove(0);
            world.deliver(&request);
            let answer = world.intercept().remove(0);
            for _ in 0..failovers {
                world.fail_over(A, Resume::Exact);
            }
            world.intercept();
            world.deliver(&request);
            assert_eq!(world.intercept().remove(0).payload, answer.payload);
            // Another member of the peer's cluster believes to lead, and uses the Message ID anew.
            world.fail_over_with(B, old, Resume::Exact);
            world.input(B, Input::RekeyChild(sa));
            let other = world.intercept().remove(0);
            assert_eq!(message_id(&other), message_id(&request));
            let sent = world.hosts[A].sent.len();
            world.deliver(&other);
            assert_eq!(world.hosts[A].sent.len(), sent, "no answer, and no old one");
            let reason = "another request with a used message ID";
            let told = |e: &Event| matches!(e, Event::Dropped { reason: r, .. } if *r == reason);
            assert!(world.hosts[A].saw(told));
        }
    }
}

#[test]
fn a_successor_tells_the_repetition_of_ike_auth_rfc7296_2_1() {
    let mut world = World::pair(9);
    let auth = loop {
        let packet = world.intercept().remove(0);
        world.deliver(&packet);
        if packet.payload[18] == 35 {
            break packet;
        }
    };
    let answer = world.intercept().remove(0);
    world.fail_over(B, Resume::Exact);
    world.intercept();
    world.deliver(&auth);
    assert_eq!(world.intercept().remove(0).payload, answer.payload);
}
