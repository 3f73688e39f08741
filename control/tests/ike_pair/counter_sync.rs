//! RFC 6311 between two engines, and probing.

use std::time::Duration;

use hitless::ike::settings::EngineSettings;
use hitless::ike::{Event, Input, Resume};

use crate::world::{A, B, SECOND, World, settings};

const SYNC: Resume = Resume::MessageIdSync { replay_delta: None };

fn synced(event: &Event) -> bool {
    matches!(event, Event::MessageIdSynced { .. })
}

/// A's record is older than the exchanges that follow, in both directions.
pub fn behind(seed: u64, exchanges: usize) -> (World, crate::world::Records) {
    let mut world = World::established(seed);
    let old = world.hosts[A].records.clone();
    for _ in 0..exchanges {
        for host in [A, B] {
            let ike = world.ike(host);
            world.input(host, Input::Liveness(ike));
            world.run(SECOND);
        }
    }
    (world, old)
}

fn works_both_ways(world: &mut World) {
    for host in [A, B] {
        let sa = world.sa(host);
        world.input(host, Input::RekeyChild(sa.id));
        world.run(3 * SECOND);
        world.assert_agreement(1);
        assert_ne!(world.sa(host).id, sa.id, "rekeyed");
    }
    assert_eq!(
        world.hosts[A].count(|e| matches!(e, Event::IkeEstablished { .. })),
        0
    );
}

#[test]
fn rfc6311_r9_message_ids_are_synchronised() {
    for exchanges in [0, 1, 2, 50] {
        let (mut world, old) = behind(1, exchanges);
        world.fail_over_with(A, old, SYNC);
        world.run(3 * SECOND);
        assert!(world.hosts[A].saw(synced), "{exchanges} exchanges behind");
        assert!(world.hosts[B].saw(synced));
        works_both_ways(&mut world);
    }
}

#[test]
fn rfc6311_r35_it_is_one_synchronisation_for_a_failover() {
    let (mut world, old) = behind(2, 2);
    world.fail_over_with(A, old, SYNC);
    world.run(60 * SECOND);
    let sent = |e: &Event| matches!(e, Event::MessageIdSyncSent { .. });
    assert_eq!(world.hosts[A].count(sent), 1);
    assert_eq!(world.hosts[B].count(synced), 1);
}

#[test]
fn rfc6311_h1_a_lost_answer_is_repeated_then_asked_for_afresh() {
    let (mut world, old) = behind(3, 2);
    world.fail_over_with(A, old, SYNC);
    let request = world.intercept().remove(0);
    world.deliver(&request);
    let answer = world.intercept().remove(0);
    // The same request again, with nothing newer seen: the same answer.
    world.deliver(&request);
    assert_eq!(world.intercept().remove(0).payload, answer.payload);
    // All answers to the first request are lost, so the cluster asks with higher values.
    world.hosts[B].dead = true;
    world.run(Duration::from_secs(16));
    world.hosts[B].dead = false;
    world.run(20 * SECOND);
    assert!(world.hosts[A].saw(synced));
    works_both_ways(&mut world);
    // A replay of the first request after newer messages is stale (R18).
    let count = world.hosts[B].sent.len();
    world.deliver(&request);
    assert_eq!(world.hosts[B].sent.len(), count);
}

/// The peer is a cluster too: what a member of it answered, and the highest M1 that it took, are known
/// to the one that goes on.
#[test]
fn rfc6311_h1_r18_an_answered_synchronisation_fails_over_with_the_peer() {
    let (mut world, old) = behind(19, 2);
    world.fail_over_with(A, old.clone(), SYNC);
    let first = world.intercept().remove(0);
    world.deliver(&first);
    let answer = world.intercept().remove(0);
    world.fail_over(B, Resume::Exact);
    world.intercept();
    // H1: bit-identical, by another member.
    world.deliver(&first);
    let again: Vec<Vec<u8>> = world.intercept().into_iter().map(|p| p.payload).collect();
    assert_eq!(again, [answer.payload]);
    assert!(!world.hosts[B].saw(synced), "it counts once");

    // R18: another question of a member with the same record declares the same M1, and no more.
    world.fail_over_with(A, old, SYNC);
    let stale = world.intercept().remove(0);
    assert_ne!(stale.payload, first.payload);
    world.deliver(&stale);
    assert!(world.intercept().is_empty() && !world.hosts[B].saw(synced));
    world.run(30 * SECOND);
    assert!(world.hosts[A].saw(synced) && world.hosts[B].saw(synced));
    works_both_ways(&mut world);
}

#[test]
fn rfc6311_r38_nothing_else_passes_while_the_synchronisation_is_pending() {
    let mut world = World::established(4);
    world.fail_over(A, SYNC);
    let request = world.intercept().remove(0);
    let ike = world.ike(B);
    world.input(B, Input::Liveness(ike));
    let liveness = world.intercept().remove(0);
    let sent = world.hosts[A].sent.len();
    world.deliver(&liveness);
    assert_eq!(world.hosts[A].sent.len(), sent, "dropped");
    world.inject(request);
    world.run(10 * SECOND);
    works_both_ways(&mut world);
}

#[test]
fn rfc6311_r22_r45_only_the_first_valid_answer_counts() {
    let (mut world, old) = behind(5, 2);
    world.fail_over_with(A, old.clone(), SYNC);
    let first = world.intercept().remove(0);
    world.deliver(&first);
    let answer = world.intercept().remove(0);
    // A second failover asks with another nonce: the answer to the first is not its answer (R22).
    world.fail_over_with(A, old, SYNC);
    world.intercept();
    world.deliver(&answer);
    assert!(!world.hosts[A].saw(synced));
    world.run(30 * SECOND);
    assert_eq!(world.hosts[A].count(synced), 1);
    world.deliver(&answer);
    assert_eq!(world.hosts[A].count(synced), 1);
    works_both_ways(&mut world);
}

#[test]
fn rfc6311_r17_a_second_failover_goes_above_the_first() {
    let (mut world, old) = behind(6, 3);
    world.fail_over_with(A, old, SYNC);
    // The first new member dies too, before and after it has its answer. Each one after it is answered
    // at its first question: 15 s later it would ask for more by itself (H1).
    for _ in 0..2 {
        world.fail_over(A, SYNC);
        world.run(5 * SECOND);
        assert!(world.hosts[A].saw(synced));
    }
    works_both_ways(&mut world);
    // The answer is lost with the member that would have read it.
    world.fail_over(A, SYNC);
    for packet in world.intercept() {
        world.deliver(&packet);
    }
    assert_eq!(world.intercept().len(), 1, "the answer");
    world.fail_over(A, SYNC);
    world.run(5 * SECOND);
    assert!(world.hosts[A].saw(synced));
    works_both_ways(&mut world);
}

#[test]
fn rfc6311_r18_a_synchronisation_below_what_was_seen_is_dropped() {
    let mut world = World::established(15);
    let old = world.hosts[A].records.clone();
    let ike = world.ike(A);
    for _ in 0..5000 {
        world.input(A, Input::Liveness(ike));
        // So many questions are more than are asked at once.
        world.input(A, Input::Timeout);
        for _ in 0..2 {
            let packet = world.intercept().remove(0);
            world.deliver(&packet);
        }
    }
    // The margin of the first request does not reach above them; that of the second does.
    world.fail_over_with(A, old, SYNC);
    world.run(10 * SECOND);
    assert!(!world.hosts[B].saw(synced));
    world.run(30 * SECOND);
    assert!(world.hosts[B].saw(synced));
    works_both_ways(&mut world);
}

#[test]
fn rfc6311_appendix_a4_both_ends_synchronise_at_once() {
    let mut world = World::established(7);
    world.fail_over(A, SYNC);
    world.fail_over(B, SYNC);
    world.run(20 * SECOND);
    assert!(world.hosts[A].saw(synced) && world.hosts[B].saw(synced));
    world.assert_agreement(1);
    for host in [A, B] {
        let sa = world.sa(host).id;
        world.input(host, Input::RekeyChild(sa));
        world.run(5 * SECOND);
        world.assert_agreement(1);
    }
}

#[test]
fn rfc6311_r42_an_outstanding_request_is_asked_anew_after_the_synchronisation() {
    let mut world = World::established(8);
    let sa = world.sa(B).id;
    // B's request is lost with the old member.
    world.input(B, Input::RekeyChild(sa));
    world.intercept();
    world.fail_over(A, SYNC);
    world.run(10 * SECOND);
    world.assert_agreement(1);
    assert!(!world.hosts[B].sad.contains_key(&sa), "rekeyed");
}

#[test]
fn rfc6311_r28_r29_the_replay_delta_names_every_child() {
    let (mut world, old) = behind(9, 1);
    let resume = Resume::MessageIdSync {
        replay_delta: Some(77),
    };
    world.fail_over_with(A, old, resume);
    world.run(3 * SECOND);
    let sa = world.sa(B).id;
    let told = |e: &Event| matches!(e, Event::ReplayCounterSync { children, delta: 77, .. } if *children == [sa]);
    assert_eq!(world.hosts[B].count(told), 1);
    works_both_ways(&mut world);
}

#[test]
fn rfc6311_r11_replay_counters_alone_are_a_regular_informational() {
    let next_request = |world: &World| world.hosts[A].engine.status(world.now)[0].next_request;
    let mut world = World::established(12);
    world.fail_over(A, Resume::Exact);
    let ike = world.ike(A);
    let next = next_request(&world);
    world.input(A, Input::ReplayCounterSync { ike, delta: 500 });
    world.run(SECOND);
    let sa = world.sa(B).id;
    let told = |e: &Event| matches!(e, Event::ReplayCounterSync { children, delta: 500, .. } if *children == [sa]);
    assert_eq!(world.hosts[B].count(told), 1);
    assert_eq!(
        next_request(&world),
        next.next(),
        "the current Message ID is used"
    );
    let none = Input::ReplayCounterSync { ike, delta: 0 };
    world.input(A, none);
    let delta = hitless::ike::takeover::MAX_REPLAY_DELTA + 1;
    world.input(A, Input::ReplayCounterSync { ike, delta });
    world.run(SECOND);
    assert_eq!(next_request(&world), next.next(), "H3: nothing was asked");
    works_both_ways(&mut world);
}

fn mixed_esn(host: usize) -> EngineSettings {
    let mut settings = settings(host);
    let child = &mut settings.connections[0].children[0];
    child.esp_proposals.push("aes256gcm16".parse().unwrap());
    settings
}

#[test]
fn rfc6311_r31_replay_counters_are_not_negotiated_with_mixed_esn() {
    let mut world = World::new(10, mixed_esn(A), settings(B));
    world.run(SECOND);
    let ike = world.ike(B);
    let facts = world.hosts[B].engine.facts(ike).unwrap();
    assert!(facts.message_id_sync && !facts.replay_counter_sync);
    let mut world = World::new(10, settings(A), mixed_esn(B));
    world.run(SECOND);
    let ike = world.ike(A);
    let facts = world.hosts[A].engine.facts(ike).unwrap();
    assert!(facts.message_id_sync && !facts.replay_counter_sync);
}

#[test]
fn rfc6311_h4_h5_capabilities_are_inherited_by_a_rekeyed_ike_sa() {
    let mut world = World::established(11);
    let ike = world.ike(A);
    world.input(A, Input::RekeyIke(ike));
    world.run(SECOND);
    let ike = world.ike(A);
    let facts = world.hosts[A].engine.facts(ike).unwrap();
    assert!(facts.message_id_sync && facts.replay_counter_sync);
    let theirs = world.ike(B);
    let facts = world.hosts[B].engine.facts(theirs).unwrap();
    assert!(facts.message_id_sync && facts.replay_counter_sync);
    // Message ID 0 is the next one in both directions, and a synchronisation is told from it.
    let replay_delta = Some(55);
    world.fail_over(A, Resume::MessageIdSync { replay_delta });
    world.run(5 * SECOND);
    assert!(world.hosts[A].saw(synced));
    let told = |e: &Event| matches!(e, Event::ReplayCounterSync { delta: 55, .. });
    assert_eq!(world.hosts[B].count(told), 1);
    works_both_ways(&mut world);
}

#[test]
fn probing_finds_the_message_id() {
    for exchanges in 0..6 {
        let (mut world, old) = behind(12, exchanges);
        world.fail_over_with(A, old, Resume::Probe);
        world.run(10 * SECOND);
        let alive = |e: &Event| matches!(e, Event::LivenessConfirmed { .. });
        assert!(world.hosts[A].saw(alive), "{exchanges} exchanges behind");
        works_both_ways(&mut world);
    }
}

#[test]
fn probing_with_an_exact_record_costs_one_exchange() {
    let mut world = World::established(13);
    let sent = world.hosts[A].sent.len();
    world.fail_over(A, Resume::Probe);
    world.run(5 * SECOND);
    assert_eq!(world.hosts[A].sent.len(), sent + 1);
    works_both_ways(&mut world);
}

/// The peer is further ahead than one member tries to find out. What that one sent its successor sends
/// again, and one more.
#[test]
fn a_successor_probes_above_all_that_its_predecessor_tried() {
    let (mut world, old) = behind(12, 16);
    world.fail_over_with(A, old, Resume::Probe);
    // All of the first round.
    world.run(4 * SECOND);
    let alive = |e: &Event| matches!(e, Event::LivenessConfirmed { .. });
    assert!(!world.hosts[A].saw(alive));
    world.fail_over(A, Resume::Probe);
    world.run(10 * SECOND);
    assert!(world.hosts[A].saw(alive));
    works_both_ways(&mut world);
}

/// The first probe is lost. It goes again with the commit of the second, which is held until a standby
/// has it: what is sent at once would be ahead of its record, and never leave.
#[test]
fn a_lost_first_probe_is_repeated_with_the_second_when_that_one_is_recorded() {
    let lag = SECOND / 20;
    let mut world = World::established(8);
    world.lag = lag;
    world.fail_over(A, Resume::Probe);
    world.run(lag);
    assert_eq!(world.intercept().len(), 1, "the first probe, lost");
    let alive = |e: &Event| matches!(e, Event::LivenessConfirmed { .. });
    // The second is due 200 ms after the first, leaves when it is recorded, and so does the answer.
    world.run(SECOND / 5 - lag);
    assert!(!world.hosts[A].saw(alive));
    world.run(2 * lag + SECOND / 100);
    assert!(world.hosts[A].saw(alive));
    world.lag = Duration::ZERO;
    works_both_ways(&mut world);
}

#[test]
fn a_peer_that_answers_no_probe_is_dead() {
    let mut world = World::established(14);
    world.hosts[B].dead = true;
    world.fail_over(A, Resume::Probe);
    world.run(100 * SECOND);
    assert!(world.hosts[A].sad.is_empty());
}

#[test]
fn rfc6311_r1_parallel_child_sas_stay() {
    let mut peer = settings(A);
    let one = peer.connections[0].children[0].clone();
    // The same selectors eight times.
    let named = |n: usize| {
        let mut child = one.clone();
        child.name = format!("net{n}");
        child
    };
    peer.connections[0].children = (0..8).map(named).collect();
    let mut world = World::new(16, peer, settings(B));
    world.run(Duration::from_secs(600));
    world.assert_agreement(8);
    world.fail_over(B, Resume::Exact);
    world.run(Duration::from_secs(600));
    world.assert_agreement(8);
}

/// The IV of an SK payload is a counter as well (the cipher is AES-GCM).
#[test]
fn rfc6311_r3_r4_no_iv_of_an_sk_payload_is_used_twice_by_any_member() {
    let mut world = World::established(17);
    for round in 0..6 {
        for host in [A, B] {
            let ike = world.ike(host);
            world.input(host, Input::Liveness(ike));
            let sa = world.sa(host).id;
            world.input(host, Input::RekeyChild(sa));
        }
        world.fail_over(round % 2, Resume::Exact);
        world.run(5 * SECOND);
    }
    for host in [A, B] {
        let protected = world.hosts[host].sent.iter().filter(|d| d[16] == 46);
        // Behind the header of the message and that of the payload.
        let ivs: Vec<(&[u8], &Vec<u8>)> = protected.map(|d| (&d[32..40], d)).collect();
        assert!(ivs.len() > 20);
        for (position, (iv, datagram)) in ivs.iter().enumerate() {
            let others = ivs[..position].iter().filter(|(other, _)| other == iv);
            for (_, other) in others {
                assert_eq!(other, datagram, "the same octets once more");
            }
        }
    }
}
