//! A member dies with a request asked, and the next one has to synchronise Message IDs (RFC 6311), which
//! ends what is outstanding: what the peer has made for it must not be lost with its answer.

use std::time::Duration;

use hitless::ike::{Event, Input, Resume};

use crate::failover::Exchange;
use crate::world::{A, B, SECOND, World};

const SYNC: Resume = Resume::MessageIdSync { replay_delta: None };
/// An answer that was lost is asked for again by then, and what follows from it is done.
const SOON: Duration = Duration::from_secs(5);
/// What is left of two exchanges that crossed is gone by then.
const GRACE: Duration = Duration::from_secs(40);

fn synced(event: &Event) -> bool {
    matches!(event, Event::MessageIdSynced { .. })
}

/// Whether either end has lost the IKE SA, or begun another one.
fn ended(event: &Event) -> bool {
    match event {
        Event::IkeEstablished { .. } => true,
        Event::IkeDeleted { reason, .. } => reason.starts_with("no answer"),
        _ => false,
    }
}

/// At each step of what the member had asked, with and without what was on the wire then.
#[test]
fn rfc6311_r42_what_a_predecessor_asked_is_asked_for_again_before_the_synchronisation() {
    let exchanges = [
        (Exchange::RekeyChild(A), SOON),
        (Exchange::RekeyIke(A), SOON),
        (Exchange::BothRekeyChild, GRACE),
        (Exchange::BothRekeyIke, GRACE),
        (Exchange::ChildAndIke, GRACE),
    ];
    for (exchange, time) in exchanges {
        for (steps, lost) in (0..12).flat_map(|steps| [(steps, false), (steps, true)]) {
            // Where the peer has asked as well, its answer is lost with the synchronisation.
            if lost && time == GRACE {
                continue;
            }
            let mut world = exchange.start(21);
            let end = world.now + SECOND;
            let taken = (0..steps).take_while(|_| world.step(end)).count();
            if lost {
                world.intercept();
            }
            let theirs = world.hosts[B].events.len();
            world.fail_over(A, SYNC);
            world.run(time);
            eprintln!("{exchange:?}, after {steps} steps, lost {lost}");
            world.assert_agreement(1);
            assert!(!world.hosts[A].saw(ended), "{:?}", world.hosts[A].events);
            let since = &world.hosts[B].events[theirs..];
            assert!(!since.iter().any(ended), "{since:?}");
            let sa = world.sa(A).id;
            world.input(A, Input::RekeyChild(sa));
            world.run(3 * SECOND);
            world.assert_agreement(1);
            if taken < steps {
                break;
            }
        }
    }
}

/// The peer made the new IKE SA, and nobody read that it did. The Child SAs go there, and so does the
/// question how many numbers the peer is to leave out.
#[test]
fn rfc6311_r29_the_delta_goes_where_the_child_sas_went() {
    let mut world = World::established(22);
    let old = world.ike(A);
    world.input(A, Input::RekeyIke(old));
    let request = world.intercept().remove(0);
    world.deliver(&request);
    world.intercept();
    let replay_delta = Some(77);
    world.fail_over(A, Resume::MessageIdSync { replay_delta });
    world.run(SOON);
    world.assert_agreement(1);
    assert_ne!(world.ike(A), old);
    let sa = world.sa(B).id;
    let deltas = world.hosts[B]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::ReplayCounterSync {
                children, delta, ..
            } => Some((children.clone(), *delta)),
            _ => None,
        });
    assert_eq!(deltas.collect::<Vec<_>>(), [(vec![sa], 77)]);
    assert_eq!(
        world.hosts[B].count(synced),
        2,
        "of the old one, and of the new"
    );
}

/// The predecessor had its answer and went on, behind its record: the peer ignores what is repeated.
/// That costs a second, and the Message IDs are synchronised all the same.
#[test]
fn rfc6311_r14_a_peer_that_is_past_what_is_repeated_is_synchronised_with_a_second_later() {
    let mut world = World::established(23);
    let (ike, sa) = (world.ike(A), world.sa(A).id);
    world.input(A, Input::RekeyChild(sa));
    let records = world.hosts[A].records.clone();
    world.run(SECOND);
    for _ in 0..3 {
        world.input(A, Input::Liveness(ike));
        world.run(SECOND);
    }
    world.fail_over_with(A, records, SYNC);
    world.run(Duration::from_millis(900));
    assert!(!world.hosts[A].saw(synced));
    world.run(SECOND);
    assert!(world.hosts[A].saw(synced));
    world.run(SOON);
    assert_eq!((world.ike(A), world.hosts[A].saw(ended)), (ike, false));
}

/// Each member dies while it repeats what the first one asked: the next one owes the same.
#[test]
fn rfc6311_r17_members_that_die_while_they_repeat_it_lose_nothing() {
    let mut world = World::established(24);
    let ike = world.ike(A);
    world.input(A, Input::RekeyIke(ike));
    let request = world.intercept().remove(0);
    world.deliver(&request);
    let answer = world.intercept();
    for _ in 0..3 {
        world.fail_over(A, SYNC);
        let again = world.intercept().remove(0);
        assert_eq!(again.payload, request.payload);
        assert!(!world.hosts[A].saw(synced));
    }
    for packet in answer {
        world.deliver(&packet);
    }
    world.run(SOON);
    world.assert_agreement(1);
    assert!(!world.hosts[A].saw(ended));
}
