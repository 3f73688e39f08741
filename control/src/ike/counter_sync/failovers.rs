//! RFC 6311 as one member of a cluster after the other speaks it: what each declares above what the
//! one before declared, what it repeats, and when it asks afresh.

use std::time::Duration;

use super::*;
use crate::ike::pair::{C, P, Pair};
use crate::ike::settings::Takeover;
use crate::ike::window::MAX_WINDOW;
use crate::ike::{Input, Resume};

const SYNC: Resume = Resume::MessageIdSync { replay_delta: None };

/// What a request of the cluster's declares.
fn declared(pair: &Pair, request: &[u8]) -> MessageIdSync {
    let (_, payloads) = pair.read(P, request);
    let contents = Contents::of(&payloads);
    let notify = contents.notify(NotifyKind::IKEV2_MESSAGE_ID_SYNC);
    notify
        .and_then(MessageIdSync::parse)
        .expect("a synchronisation")
}

/// Each member dies with its question asked: the peer has answered, and nobody read it. What the
/// next one declares is above that, or the peer would drop it (R18).
#[test]
fn rfc6311_r17_each_failover_declares_more_than_the_one_before() {
    for mut pair in Pair::in_both_roles(1) {
        let mut highest = pair.next_ids(P).1;
        for failover in 1..=4 {
            let request = pair.take_over(SYNC).remove(0);
            let asked = declared(&pair, &request);
            assert!(
                asked.send.0 > highest,
                "failover {failover}: {} is not above {highest}",
                asked.send.0
            );
            highest = asked.send.0;
            let answer = pair.give(P, &request);
            assert_eq!(answer.len(), 1, "failover {failover} is answered at once");
            if failover == 4 {
                pair.give(C, &answer[0]);
            }
        }
        assert_eq!(pair.next_ids(C).0, highest);
        assert!(pair.ike(C).sync.is_none());
    }
}

/// Somebody else has answered a request of the peer's since: it is ahead. That is found out, and not by
/// another synchronisation.
#[test]
fn rfc6311_r35_a_peer_that_is_ahead_after_the_synchronisation_is_probed() {
    let mut pair = Pair::with(1, |_, settings| {
        settings.connections[0].takeover = Takeover::MessageIdSync;
    });
    let request = pair.take_over(SYNC).remove(0);
    let answer = pair.give(P, &request).remove(0);
    pair.give(C, &answer);
    let expected = pair.next_ids(C).1;
    let ahead = pair.forge(P, false, expected + 1, &[]);
    let said = pair.give(C, &ahead);
    assert!(pair.ike(C).probe.is_some() && pair.ike(C).sync.is_none());
    let asks = |datagram: &Vec<u8>| {
        let header = Header::parse(datagram).expect("a message");
        !header.response && header.message_id == MessageId(0)
    };
    assert!(!said.iter().any(asks));
}

/// The cluster's half: the same octets a few times, for an answer may be lost; then another nonce and
/// a higher M1, for the peer may have taken what it heard and have gone on. All one failover (R35).
#[test]
fn rfc6311_h1_the_cluster_repeats_the_same_octets_and_then_asks_for_more() {
    for mut pair in Pair::in_both_roles(1) {
        let mut request = pair.take_over(SYNC).remove(0);
        let mut answer = Vec::new();
        for round in 1..ROUNDS {
            let first = declared(&pair, &request);
            answer = pair.give(P, &request);
            assert_eq!(answer.len(), 1, "round {round}");
            let mut repetitions = 0;
            let fresh = loop {
                pair.now += Duration::from_millis(250);
                let said = pair.input(C, Input::Timeout);
                assert!(said.len() <= 1, "one question at a time");
                match said.into_iter().next() {
                    Some(same) if same == request => repetitions += 1,
                    Some(other) => break other,
                    None => {}
                }
            };
            assert_eq!(repetitions, RETRANSMISSIONS, "round {round}");
            let next = declared(&pair, &fresh);
            assert_ne!(next.nonce, first.nonce);
            assert!(next.send.0 >= first.send.0 + MAX_WINDOW, "round {round}");
            assert_eq!(next.receive, first.receive);
            request = fresh;
        }
        // What answers an earlier round counts no more (R22); what answers the last one does.
        pair.give(C, &answer[0]);
        assert!(pair.ike(C).sync.is_some());
        let last = pair.give(P, &request).remove(0);
        pair.give(C, &last);
        assert!(pair.ike(C).sync.is_none());
        let sent = |e: &&Event| matches!(e, Event::MessageIdSyncSent { .. });
        assert_eq!(pair.events[C].iter().filter(sent).count(), 1, "R35");
    }
}
