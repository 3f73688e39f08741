//! What is to end ends, whatever is rekeyed meanwhile (RFC 7296 sections 2.8 and 2.25).

use std::collections::VecDeque;
use std::time::Duration;

use hitless_sa::{IkeSpi, SaId};

use super::{C, P, Pair};
use crate::ike::child::Closing;
use crate::ike::established::State;
use crate::ike::rekey;
use crate::ike::tasks::Task;
use crate::ike::{Input, Resume};

fn one(said: Vec<Vec<u8>>) -> Vec<u8> {
    assert_eq!(said.len(), 1);
    said.into_iter().next().unwrap_or_default()
}

fn rekey_child(pair: &mut Pair, host: usize) -> (SaId, Vec<u8>) {
    let child = pair.ike(host).children[0].sa.id;
    (child, one(pair.input(host, Input::RekeyChild(child))))
}

/// Hands it to one end, and lets both talk on.
fn go_on(pair: &mut Pair, host: usize, datagram: &[u8]) {
    let mut said = VecDeque::from([(host, datagram.to_vec())]);
    while let Some((to, datagram)) = said.pop_front() {
        said.extend(pair.give(to, &datagram).into_iter().map(|d| (1 - to, d)));
    }
}

#[test]
fn rfc7296_section_2_25_1_what_the_peer_has_lost_and_is_closed_here_is_not_made_anew() {
    for close in [false, true] {
        let mut pair = Pair::new(1);
        pair.engines[P]
            .sas
            .values_mut()
            .next()
            .unwrap()
            .children
            .clear();
        let (child, request) = rekey_child(&mut pair, C);
        if close {
            assert!(pair.input(C, Input::TerminateChild(child)).is_empty());
        }
        let answer = one(pair.give(P, &request));
        pair.give(C, &answer);
        assert!(pair.ike(C).children.is_empty());
        assert_eq!(pair.ike(C).is_making(), !close);
    }
}

/// The peer closes it itself, before our request to rekey it is there.
#[test]
fn rfc7296_section_2_25_1_what_both_close_while_we_rekey_it_is_not_made_anew() {
    for (close, taken_over) in [(false, false), (true, false), (true, true)] {
        let mut pair = Pair::new(1);
        let (child, request) = rekey_child(&mut pair, C);
        if close {
            assert!(pair.input(C, Input::TerminateChild(child)).is_empty());
        }
        let theirs = pair.ike(P).children[0].sa.id;
        let delete = one(pair.input(P, Input::TerminateChild(theirs)));
        let answer = one(pair.give(C, &delete));
        assert!(pair.ike(C).children.is_empty());
        pair.give(P, &answer);
        let refusal = one(pair.give(P, &request));
        if taken_over {
            pair.take_over(Resume::Exact);
        }
        pair.give(C, &refusal);
        assert!(pair.ike(C).children.is_empty());
        assert_eq!(pair.ike(C).is_making(), !close, "{taken_over}");
    }
}

/// The file changed while we rekeyed it: what the exchange makes is what the old one said.
#[test]
fn what_is_closed_to_come_again_while_it_is_rekeyed_goes_with_its_successor() {
    for taken_over in [false, true] {
        let mut pair = Pair::new(1);
        let (_, request) = rekey_child(&mut pair, C);
        let mut file = pair.engines[C].settings.clone();
        file.connections[0].children[0]
            .local_ts
            .push("10.9.0.0/16".parse().unwrap());
        let now = pair.now;
        pair.engines[C].reload(now, &mut pair.entropy, file);
        assert!(pair.outputs(C).is_empty());
        if taken_over {
            let again = pair.take_over(Resume::Exact);
            assert!(again.is_empty() || again == [request.clone()]);
        }
        go_on(&mut pair, P, &request);
        assert_eq!(pair.ike(C).children.len(), 0);
        pair.now += Duration::from_secs(5);
        let said = pair.input(C, Input::Timeout);
        for datagram in said {
            go_on(&mut pair, P, &datagram);
        }
        let [ours, theirs] = [C, P].map(|host| pair.ike(host).children.len());
        assert_eq!((ours, theirs), (1, 1), "once more, by the new file");
    }
}

/// Our Delete overtakes the answer that made it, which was lost.
#[test]
fn rfc7296_section_1_4_1_a_delete_that_the_peer_could_not_understand_yet_is_said_again() {
    let mut pair = Pair::new(1);
    let (old, request) = rekey_child(&mut pair, P);
    let lost = one(pair.give(C, &request));
    let new = pair.ike(C).children[1].sa.clone();
    let (new, spi) = (new.id, new.inbound_spi);
    assert_ne!(new, old);
    let delete = one(pair.input(C, Input::TerminateChild(new)));
    let empty = one(pair.give(P, &delete));
    pair.give(C, &empty);
    // The peer asks again, and gets the answer at last.
    go_on(&mut pair, P, &lost);
    let left = [C, P].map(|host| pair.ike(host).children.len());
    assert_eq!(left, [0, 1]);
    pair.take_over(Resume::Exact);
    pair.now += Duration::from_secs(5);
    for datagram in pair.input(C, Input::Timeout) {
        go_on(&mut pair, P, &datagram);
    }
    // Who takes over starts what the file says.
    let left = &pair.ike(P).children;
    assert!(left.iter().all(|child| child.sa.outbound_spi != spi));
}

/// The peer deletes it as well, and so refuses to rekey it (RFC 7296 section 2.25.1).
#[test]
fn rfc7296_section_2_25_1_what_is_closed_is_not_made_anew_because_the_peer_was_busy_closing_it() {
    let mut pair = Pair::new(1);
    let (old, request) = rekey_child(&mut pair, C);
    assert!(pair.input(C, Input::TerminateChild(old)).is_empty());
    let theirs = pair.ike(P).children[0].sa.id;
    let delete = one(pair.input(P, Input::TerminateChild(theirs)));
    let busy = one(pair.give(P, &request));
    for datagram in pair.give(C, &delete) {
        go_on(&mut pair, P, &datagram);
    }
    go_on(&mut pair, C, &busy);
    let left = [C, P].map(|host| pair.ike(host).children.len());
    assert_eq!(left, [0, 0]);
    assert!(pair.engines[C].starts.first().is_none(), "it stays closed");
}

/// Whichever end began first, and so loses or wins.
#[test]
fn rfc7296_section_2_8_1_the_winner_of_a_collision_over_what_is_closed_is_closed() {
    for first in [C, P] {
        for lost in [false, true] {
            let mut pair = Pair::new(1);
            let (_, earlier) = rekey_child(&mut pair, first);
            let (_, later) = rekey_child(&mut pair, 1 - first);
            let [ours, theirs] = if first == C {
                [earlier, later]
            } else {
                [later, earlier]
            };
            let old = pair.ike(C).children[0].sa.id;
            let answer_of_c = one(pair.give(C, &theirs));
            assert!(pair.input(C, Input::TerminateChild(old)).is_empty());
            let answer_of_p = one(pair.give(P, &ours));
            // In order, or with an answer that is lost at first.
            if lost {
                go_on(&mut pair, P, &answer_of_c);
                go_on(&mut pair, C, &answer_of_p);
            } else {
                let then = pair.give(P, &answer_of_c);
                go_on(&mut pair, C, &answer_of_p);
                for datagram in then {
                    go_on(&mut pair, C, &datagram);
                }
            }
            let left = [C, P].map(|host| pair.ike(host).children.len());
            assert_eq!(left, [0, 0], "{first} began, {lost}");
        }
    }
}

/// RFC 7296 section 2.8: the successor that would have inherited was deleted by the peer.
#[test]
fn what_is_closed_and_has_nobody_to_inherit_it_is_not_started_again() {
    for (ike_sa, child) in [(false, false), (true, false), (false, true)] {
        let mut pair = Pair::new(1);
        let spi = pair.ike(C).local_spi;
        let (engine, now) = (&mut pair.engines[C], pair.now);
        engine.with(now, &mut pair.entropy, spi, |ike, turn| {
            ike.terminated = ike_sa;
            ike.children[0].closing = child.then_some(Closing::ForGood);
            rekey::inherit(ike, turn, IkeSpi(99));
        });
        assert_eq!(engine.starts.first().is_none(), ike_sa || child);
    }
}

/// The peer withholds an answer until its time is over, and rekeys then: RFC 4478 section 3, "MUST"
/// be closed.
#[test]
fn rfc4478_section_3_a_rekeying_by_the_peer_does_not_outrun_the_end_of_its_time() {
    let mut pair = Pair::with(1, |host, settings| {
        let connection = &mut settings.connections[0];
        (connection.rekey_time, connection.dpd_delay) = Default::default();
        if host == P {
            connection.auth.reauth_time = Duration::from_secs(600);
        }
    });
    let (client, gateway) = (pair.ike(C).local_spi, pair.ike(P).local_spi);
    let over = pair.ike(P).authenticated.reauth_at.expect("a time");
    pair.now = over.saturating_sub(Duration::from_millis(1));
    assert_eq!(pair.input(P, Input::Liveness(gateway)).len(), 1);
    pair.now = over;
    pair.input(P, Input::Timeout);
    assert!(pair.ike(P).queue.iter().any(|s| s.task == Task::DeleteIke));
    let request = one(pair.input(C, Input::RekeyIke(client)));
    pair.give(P, &request);
    let mut successors = pair.engines[P].sas.values();
    let successor = successors.find(|ike| ike.local_spi != gateway);
    assert!(successor.is_some_and(|ike| ike.state == State::Deleting));
}

/// The hard lifetime is one of keys: those that an answer brings late have their own.
#[test]
fn rfc7296_section_2_8_a_successor_that_comes_when_time_is_over_outlives_its_predecessor() {
    for agreed in [true, false] {
        let mut pair = Pair::with(1, |_, settings| {
            let connection = &mut settings.connections[0];
            connection.dpd_delay = Duration::ZERO;
            connection.children[0].rekey_time = Duration::ZERO;
            connection.session.over_time = Some(Duration::from_secs(1));
        });
        let old = pair.ike(C).local_spi;
        let over = pair.ike(C).session.life_at.expect("a time");
        pair.now = over.saturating_sub(Duration::from_millis(1));
        let request = one(pair.input(C, Input::RekeyIke(old)));
        pair.engines[C].sas.get_mut(&old).unwrap().rekey_at = None;
        if !agreed {
            // RFC 7296 section 2.25.2: TEMPORARY_FAILURE.
            rekey_child(&mut pair, P);
        }
        pair.now = over;
        pair.input(C, Input::Timeout);
        let answer = one(pair.give(P, &request));
        pair.give(C, &answer);
        pair.now = over + Duration::from_millis(1);
        pair.input(C, Input::Timeout);
        let mut states = pair.engines[C].sas.values();
        let lives = states.any(|ike| ike.local_spi != old && ike.state == State::Established);
        let ends = pair.engines[C].sas.get(&old);
        let ends = ends.is_some_and(|ike| ike.state == State::Deleting);
        assert_eq!((lives, ends), (agreed, !agreed));
    }
}
