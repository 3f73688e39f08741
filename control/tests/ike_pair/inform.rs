//! INFORMATIONAL: Delete and liveness, and what happens when a peer is gone.

use std::time::Duration;

use hitless::ike::{Event, Input, Resume};

use crate::world::{A, B, SECOND, World};

#[test]
fn terminate_ends_both_sides_and_nothing_starts_again_rfc7296_1_4_1() {
    for host in [A, B] {
        let mut world = World::established(1);
        let ike = world.ike(host);
        world.input(host, Input::Terminate { ike });
        world.run(SECOND / 2);
        for side in [A, B] {
            assert!(world.ike_sas(side).is_empty());
            assert!(world.hosts[side].sad.is_empty());
            // The one that was asked keeps its answer (S4).
            let graves = world.hosts[side].records.len();
            assert_eq!(graves, usize::from(side != host));
        }
        // A starts `net` again when B ended it, not when its own user did.
        world.run(5 * SECOND);
        assert_eq!(world.hosts[A].sad.len(), usize::from(host == B));
    }
}

#[test]
fn crossing_deletes_end_both_sides_rfc7296_2_25_2() {
    let mut world = World::established(2);
    let (a, b) = (world.ike(A), world.ike(B));
    world.input(A, Input::Terminate { ike: a });
    world.input(B, Input::Terminate { ike: b });
    world.run(SECOND);
    for side in [A, B] {
        assert!(world.ike_sas(side).is_empty());
        assert!(world.hosts[side].sad.is_empty());
    }
}

#[test]
fn a_repeated_delete_gets_its_answer_although_the_ike_sa_is_gone() {
    let mut world = World::established(3);
    let ike = world.ike(A);
    world.input(A, Input::Terminate { ike });
    let delete = world.intercept().remove(0);
    world.deliver(&delete);
    let first = world.intercept().remove(0);
    world.deliver(&delete);
    let again = world.intercept().remove(0);
    assert_eq!(first.payload, again.payload);
    world.deliver(&again);
    assert!(world.ike_sas(A).is_empty());
}

/// Invariant S4: the answer to a Delete is an output as any other.
#[test]
fn rfc7296_section_2_1_a_successor_repeats_the_answer_to_a_delete() {
    let mut world = World::established(3);
    let ike = world.ike(A);
    world.input(A, Input::Terminate { ike });
    let delete = world.intercept().remove(0);
    world.deliver(&delete);
    let first = world.intercept().remove(0);
    for _ in 0..2 {
        world.fail_over(B, Resume::Exact);
        world.intercept();
        let mut other = delete.clone();
        other.payload.push(0);
        world.deliver(&other);
        assert!(world.intercept().is_empty(), "another request");
        world.deliver(&delete);
        let again = world.intercept().remove(0);
        assert_eq!(first.payload, again.payload);
        world.run(20 * SECOND);
    }
    world.run(61 * SECOND);
    assert!(world.hosts[B].records.is_empty(), "for a minute");
    world.deliver(&delete);
    assert!(world.intercept().is_empty());
}

#[test]
fn a_silent_peer_is_asked_and_answers_rfc7296_2_4() {
    let mut world = World::established(4);
    let sent = (world.hosts[A].sent.len(), world.hosts[B].sent.len());
    world.run(Duration::from_secs(30));
    // Whoever asks first knows, and so does the one that is asked.
    assert_eq!(
        (world.hosts[A].sent.len(), world.hosts[B].sent.len()),
        (sent.0 + 1, sent.1 + 1)
    );
    let confirmed = |e: &Event| matches!(e, Event::LivenessConfirmed { .. });
    assert!(world.hosts[A].saw(confirmed) || world.hosts[B].saw(confirmed));
    world.assert_agreement(1);
}

#[test]
fn traffic_is_a_sign_of_life_rfc7296_2_4() {
    let mut world = World::established(5);
    let sent = (world.hosts[A].sent.len(), world.hosts[B].sent.len());
    for _ in 0..60 {
        for host in [A, B] {
            let sa = world.sa(host).id;
            world.input(host, Input::Traffic { sa });
        }
        world.run(SECOND);
    }
    assert_eq!((world.hosts[A].sent.len(), world.hosts[B].sent.len()), sent);
}

#[test]
fn a_dead_peer_is_given_up_and_started_again_rfc7296_2_4() {
    let mut world = World::established(6);
    world.hosts[B].dead = true;
    // 20 s without a sign of life, then 1 + 2 + 4 + 8 + 16 + 32 s of retransmission.
    world.run(Duration::from_secs(90));
    assert!(world.hosts[A].sad.is_empty());
    assert!(world.hosts[A].saw(|e| matches!(e, Event::IkeDeleted { .. })));
    world.hosts[B] = crate::world::Host::new(crate::world::settings(B));
    world.lead(B, hitless::ike::Resume::Exact);
    world.run(Duration::from_secs(120));
    world.assert_agreement(1);
}

#[test]
fn retransmissions_are_identical_and_answered_identically_rfc7296_2_1() {
    let mut world = World::established(7);
    let ike = world.ike(A);
    world.input(A, Input::Liveness(ike));
    let first = world.intercept().remove(0);
    world.run(Duration::from_millis(1500));
    let (again, answers) = {
        let sent = &world.hosts[A].sent;
        (sent[sent.len() - 1].clone(), world.hosts[B].sent.clone())
    };
    assert_eq!(again, first.payload);
    let answer = answers.last().unwrap().clone();
    world.deliver(&first);
    assert_eq!(*world.hosts[B].sent.last().unwrap(), answer);
    assert_eq!(world.hosts[B].sent.len(), answers.len() + 1);
}

#[test]
fn message_ids_outside_the_window_are_dropped_rfc7296_2_3() {
    let mut world = World::established(8);
    let ike = world.ike(A);
    world.input(A, Input::Liveness(ike));
    let old = world.intercept().remove(0);
    world.deliver(&old);
    world.run(SECOND);
    world.input(A, Input::Liveness(ike));
    world.run(SECOND);
    let answers = world.hosts[B].sent.len();
    world.deliver(&old);
    assert_eq!(world.hosts[B].sent.len(), answers);
    let dropped = |e: &Event| matches!(e, Event::Dropped { reason, .. } if reason.contains("below the window"));
    assert!(world.hosts[B].saw(dropped));
}
