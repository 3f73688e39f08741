//! What a peer that is authenticated can make grow, and what ends without having made anything.

use std::time::Duration;

use hitless_sa::IkeSpi;

use super::{C, P, Pair};
use crate::ike::Event;
use crate::ike::Input;
use crate::ike::established::State;
use crate::ike::message::{Header, NotifyKind, Payload};
use crate::ike::proposal::Identification;

/// The peer rekeys its newest IKE SA, and what it says of the old one is lost: its Deletes. `None` if it
/// was refused.
fn rekeys(pair: &mut Pair) -> Option<Vec<Vec<u8>>> {
    let newest = |pair: &Pair| -> IkeSpi {
        let mut sas = pair.engines[P].sas.values();
        let newest = sas.find(|ike| ike.state == State::Established);
        newest.expect("an IKE SA that lives").local_spi
    };
    let old = newest(pair);
    let mut deletes = Vec::new();
    for request in pair.input(P, Input::RekeyIke(old)) {
        for answer in pair.give(C, &request) {
            deletes.extend(pair.give(P, &answer));
        }
    }
    (newest(pair) != old).then_some(deletes)
}

#[test]
fn rfc7296_section_2_25_a_peer_that_never_deletes_what_it_rekeys_waits() {
    let mut pair = Pair::new(1);
    let mut deletes = Vec::new();
    for _ in 0..20 {
        deletes.extend(rekeys(&mut pair).unwrap_or_default());
    }
    assert_eq!(pair.engines[C].sas.len(), 5);
    assert_eq!(deletes.len(), 4);
    // Once it has, it may again.
    for delete in deletes {
        pair.exchange(C, &delete);
    }
    assert_eq!(pair.engines[C].sas.len(), 1);
    let old = pair.ike(C).local_spi;
    pair.now += Duration::from_secs(60);
    for request in pair.input(P, Input::Timeout) {
        pair.exchange(C, &request);
    }
    assert_ne!(pair.ike(C).local_spi, old);
    assert_eq!(pair.engines[C].sas.len(), 1);
}

/// Whoever fills the gateway up cannot double that by rekeying, and whoever deletes can rekey.
#[test]
fn what_was_replaced_counts_against_ikesa_limit_too() {
    let mut pair = Pair::with(1, |host, settings| {
        settings.limits.ikesa_limit = if host == C { 2 } else { 0 };
    });
    let kept = (0..20).filter_map(|_| rekeys(&mut pair)).count();
    assert_eq!((kept, pair.engines[C].sas.len()), (2, 3));
}

fn taken(pair: &Pair) -> usize {
    pair.engines[C].ids.taken()
}

/// We ask for a successor of the Child SA, and the request is lost.
fn asks(pair: &mut Pair) -> Vec<u8> {
    let child = pair.ike(C).children[0].sa.id;
    let said = pair.input(C, Input::RekeyChild(child));
    said.into_iter().next().expect("a request")
}

#[test]
fn an_offer_that_is_given_up_frees_its_spi() {
    let mut pair = Pair::new(1);
    assert_eq!(taken(&pair), 1);
    let ike = pair.ike(C).local_spi;
    for _ in 0..10 {
        asks(&mut pair);
        assert_eq!(taken(&pair), 2);
        let (engine, now) = (&mut pair.engines[C], pair.now);
        engine.with(now, &mut pair.entropy, ike, |ike, turn| {
            ike.abandon(turn);
            ike.queue.clear();
        });
        assert_eq!(taken(&pair), 1);
    }
}

/// RFC 7296 section 2.21.1: nobody has authenticated the answer to IKE_SA_INIT, and more of them may come.
#[test]
fn answers_that_no_auth_follows_cost_no_spi() {
    let mut pair = Pair::with(1, |host, settings| {
        if host == C {
            // No secret is for this one.
            let mut other = settings.connections[0].clone();
            settings.secrets[0].ids = vec![other.local_id.clone()];
            other.name = "other".to_owned();
            other.local_id = Identification::Fqdn("nobody.test".to_owned());
            other.children[0].start = false;
            settings.connections.push(other);
        }
    });
    let before = taken(&pair);
    let initiate = Input::Initiate {
        connection: "other".to_owned(),
        child: Some("net0".to_owned()),
    };
    let request = pair.input(C, initiate).remove(0);
    let answer = pair.give(P, &request).remove(0);
    for _ in 0..10 {
        assert!(pair.give(C, &answer).is_empty());
        let failed = |event: &Event| matches!(event, Event::AuthenticationFailed { .. });
        assert!(std::mem::take(&mut pair.events[C]).iter().any(failed));
        assert_eq!(taken(&pair), before);
    }
}

#[test]
fn an_ike_sa_that_ends_frees_the_spis_of_what_it_was_making() {
    let mut pair = Pair::new(1);
    asks(&mut pair);
    let (engine, now) = (&mut pair.engines[C], pair.now);
    let ike = *engine.sas.keys().next().unwrap();
    engine.with(now, &mut pair.entropy, ike, |ike, turn| {
        ike.destroy(turn, "the test says so");
    });
    assert_eq!(taken(&pair), 0);
}

#[test]
fn an_answer_that_makes_nothing_frees_the_spi_once_the_peer_is_told() {
    let mut pair = Pair::new(1);
    let request = asks(&mut pair);
    let header = Header {
        response: true,
        initiator: !Header::parse(&request).unwrap().initiator,
        ..Header::parse(&request).unwrap()
    };
    let empty = pair.forge_as(P, &header, &[]);
    let delete = pair.give(C, &empty);
    let (_, payloads) = pair.read(P, &delete[0]);
    assert!(matches!(payloads.as_slice(), [Payload::Delete(_)]));
    assert_eq!(taken(&pair), 1);
}

/// RFC 7296 section 2.25: what cannot be now is told so, and tried again.
#[test]
fn without_a_free_spi_there_is_no_new_child_sa_and_no_waiting_for_one() {
    let mut pair = Pair::new(1);
    pair.engines[C].ids.take_all();
    let child = pair.ike(P).children[0].sa.id;
    let request = pair.input(P, Input::RekeyChild(child));
    let answer = pair.give(C, &request[0]);
    let (_, payloads) = pair.read(P, &answer[0]);
    let refused =
        |p: &Payload| matches!(p, Payload::Notify(n) if n.kind == NotifyKind::TEMPORARY_FAILURE);
    assert!(payloads.iter().any(refused));
    pair.give(P, &answer[0]);
    let own = pair.ike(C).children[0].sa.id;
    assert!(pair.input(C, Input::RekeyChild(own)).is_empty());
}
