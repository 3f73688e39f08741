//! A peer that rekeys its IKE SA again and again, and deletes none of those that it leaves behind.

use std::time::Duration;

use super::{C, P, Pair};
use crate::ike::Input;
use crate::ike::established::open;
use crate::ike::message::{Exchange, Header, NotifyKind, Payload, parse_payloads};
use crate::ike::{Event, Resume};

/// One rekeying more by the peer, of its newest IKE SA; its Delete of the old one is lost. Gives what
/// it was answered.
fn rekey(pair: &mut Pair) -> Vec<Payload> {
    let sas = pair.engines[P].sas.values();
    let newest = sas.max_by_key(|ike| ike.unique).expect("an IKE SA");
    let spi = newest.local_spi;
    let said = pair.input(P, Input::RekeyIke(spi));
    let request = said.first().expect("a request");
    let answer = pair.give(C, request).pop().expect("an answer");
    let ike = &pair.engines[P].sas[&spi];
    let header = Header::parse(&answer).unwrap();
    assert_eq!(header.exchange, Exchange::CreateChildSa);
    let opened = open(&ike.keys, &header, &answer).expect("authentic");
    let payloads = parse_payloads(opened.first, &opened.content).unwrap();
    let delete = pair.give(P, &answer);
    assert!(delete.len() <= 1);
    payloads
}

fn is_refused(payloads: &[Payload]) -> bool {
    let later =
        |p: &Payload| matches!(p, Payload::Notify(n) if n.kind == NotifyKind::TEMPORARY_FAILURE);
    payloads.iter().any(later)
}

#[test]
fn a_peer_that_rekeys_and_deletes_nothing_is_told_to_wait() {
    let mut pair = Pair::new(1);
    for _ in 0..8 {
        assert!(!is_refused(&rekey(&mut pair)));
    }
    assert_eq!(pair.engines[C].sas.len(), 9);
    assert!(is_refused(&rekey(&mut pair)));
    assert_eq!(pair.engines[C].sas.len(), 9);
    // We delete them ourselves; who does not answer that is dead.
    pair.now += Duration::from_secs(300);
    for _ in 0..100 {
        pair.input(C, Input::Timeout);
        pair.now += Duration::from_secs(10);
    }
    let gone = |event: &&Event| matches!(event, Event::IkeDeleted { .. });
    assert!(pair.events[C].iter().filter(gone).count() >= 8);
    assert!(pair.engines[C].ids.leaving.is_empty());
}

/// Whoever takes over starts to count anew, and not what was never left behind.
#[test]
fn who_takes_over_lets_the_peer_rekey() {
    let mut pair = Pair::new(1);
    pair.take_over(Resume::Exact);
    for _ in 0..8 {
        assert!(!is_refused(&rekey(&mut pair)));
    }
    assert!(is_refused(&rekey(&mut pair)));
}
