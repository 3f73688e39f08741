//! Requests that cross, and the very words of each answer: RFC 7296 sections 2.25.1 and 2.25.2, one
//! sentence a test. Loss, failover and what is left in the end are in `tests/ike_pair/collisions.rs`.

use std::time::Duration;

use hitless_sa::IkeSpi;

use super::{C, P, Pair};
use crate::ike::Input;
use crate::ike::message::{Exchange, NotifyKind, Payload};

/// What one end begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    CreateChild,
    RekeyChild,
    CloseChild,
    RekeyIke,
    CloseIke,
}

use Act::{CloseChild, CloseIke, CreateChild, RekeyChild, RekeyIke};

/// What is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Later,
    Agreed,
    Deleted,
    Empty,
}

use Answer::{Agreed, Deleted, Empty, Later};

impl Act {
    fn begin(self, pair: &mut Pair, host: usize) -> Vec<u8> {
        let ike = pair.ike(host);
        let (spi, child) = (ike.local_spi, ike.children[0].sa.id);
        let connection = ike.connection.name.clone();
        let input = match self {
            CreateChild => Input::Initiate {
                connection,
                child: Some("net1".to_owned()),
            },
            RekeyChild => Input::RekeyChild(child),
            CloseChild => Input::TerminateChild(child),
            RekeyIke => Input::RekeyIke(spi),
            CloseIke => Input::Terminate { ike: spi },
        };
        let said = pair.input(host, input);
        assert_eq!(said.len(), 1, "{self:?}");
        said.into_iter().next().unwrap_or_default()
    }
}

fn answer_of(payloads: &[Payload]) -> Answer {
    let refused =
        |p: &Payload| matches!(p, Payload::Notify(n) if n.kind == NotifyKind::TEMPORARY_FAILURE);
    let agreed = |p: &Payload| matches!(p, Payload::SecurityAssociation(_));
    let deletes = |p: &Payload| matches!(p, Payload::Delete(_));
    match payloads {
        [] => Empty,
        [one] if refused(one) => Later,
        [one] if deletes(one) => Deleted,
        all if all.iter().any(agreed) => Agreed,
        other => panic!("{other:?}"),
    }
}

/// Both requests are on their way; what each end answers to the other's.
fn cross(ours: Act, theirs: Act) -> [Answer; 2] {
    let mut pair = Pair::with(2, |_, settings| {
        settings.connections[0].children[1].start = false;
    });
    let acts = [ours, theirs];
    let requests = [C, P].map(|host| acts[host].begin(&mut pair, host));
    let mut words = Vec::new();
    for host in [C, P] {
        let said = pair.give(host, &requests[1 - host]);
        let answer = said.into_iter().next().expect("an answer");
        let (header, payloads) = pair.read(1 - host, &answer);
        assert!(header.response, "{acts:?}");
        let exchange = match acts[1 - host] {
            CloseChild | CloseIke => Exchange::Informational,
            CreateChild | RekeyChild | RekeyIke => Exchange::CreateChildSa,
        };
        assert_eq!(header.exchange, exchange);
        words.push(answer_of(&payloads));
    }
    [words[C], words[P]]
}

/// What the end that is busy with the first says to the second, whichever end that is.
fn said(busy: Act, asked: Act) -> Answer {
    let one = cross(busy, asked)[C];
    assert_eq!(one, cross(asked, busy)[P], "either end says the same");
    one
}

/// "If a peer receives a request to rekey a Child SA that it is currently trying to close, it SHOULD
/// reply with TEMPORARY_FAILURE."
#[test]
fn rfc7296_section_2_25_1_rekeying_what_is_being_closed_meets_temporary_failure() {
    assert_eq!(said(CloseChild, RekeyChild), Later);
}

/// "... to rekey a Child SA that it is currently rekeying, it SHOULD reply as usual".
#[test]
fn rfc7296_section_2_25_1_rekeying_what_is_being_rekeyed_is_answered_as_usual() {
    assert_eq!(said(RekeyChild, RekeyChild), Agreed);
}

/// "... to close a Child SA that it is currently rekeying, it SHOULD reply as usual, with a Delete
/// payload."
#[test]
fn rfc7296_section_2_25_1_closing_what_is_being_rekeyed_is_answered_with_a_delete() {
    assert_eq!(said(RekeyChild, CloseChild), Deleted);
}

/// "... to close a Child SA that it is currently trying to close, it SHOULD reply without a Delete
/// payload."
#[test]
fn rfc7296_section_2_25_1_closing_what_is_being_closed_is_answered_without_a_delete() {
    assert_eq!(cross(CloseChild, CloseChild), [Empty, Empty]);
}

/// "If a peer receives a request to rekey the IKE SA, and it is currently creating, rekeying, or
/// closing a Child SA of that IKE SA, it SHOULD reply with TEMPORARY_FAILURE."
#[test]
fn rfc7296_section_2_25_2_no_new_ike_sa_while_a_child_sa_changes() {
    for busy in [CreateChild, RekeyChild, CloseChild] {
        assert_eq!(said(busy, RekeyIke), Later, "{busy:?}");
    }
}

/// "... to create or rekey a Child SA when it is currently rekeying the IKE SA, it SHOULD reply with
/// TEMPORARY_FAILURE"; "... to delete a Child SA when it is currently rekeying the IKE SA, it SHOULD
/// reply as usual, with a Delete payload."
#[test]
fn rfc7296_section_2_25_2_while_the_ike_sa_is_rekeyed_child_sas_are_only_closed() {
    for (asked, answer) in [
        (CreateChild, Later),
        (RekeyChild, Later),
        (CloseChild, Deleted),
    ] {
        assert_eq!(said(RekeyIke, asked), answer, "{asked:?}");
    }
}

/// "... to rekey an IKE SA that it is currently rekeying, it SHOULD reply as usual"; "... that it is
/// currently trying to close, it SHOULD reply with TEMPORARY_FAILURE."
#[test]
fn rfc7296_section_2_25_2_rekeying_an_ike_sa_that_is_rekeyed_or_closed() {
    assert_eq!(said(RekeyIke, RekeyIke), Agreed);
    // Only this way round: whoever answers the other one has no IKE SA to read with any more.
    assert_eq!(cross(CloseIke, RekeyIke)[C], Later);
}

/// "... to close an IKE SA that it is currently rekeying, it SHOULD reply as usual, and forget about
/// its own rekeying request"; "... that it is currently trying to close, it SHOULD reply as usual, and
/// forget about its own close request."
#[test]
fn rfc7296_section_2_25_2_closing_an_ike_sa_ends_whatever_was_begun() {
    for busy in [CreateChild, RekeyChild, CloseChild, RekeyIke, CloseIke] {
        let mut pair = Pair::with(2, |_, settings| {
            settings.connections[0].children[1].start = false;
        });
        busy.begin(&mut pair, C);
        let close = CloseIke.begin(&mut pair, P);
        let answers = pair.give(C, &close);
        assert_eq!(answers.len(), 1, "{busy:?}");
        assert_eq!(answer_of(&pair.read(P, &answers[0]).1), Empty, "{busy:?}");
        assert!(pair.engines[C].sas.is_empty(), "{busy:?}");
        pair.give(P, &answers[0]);
        assert!(pair.engines[P].sas.is_empty(), "{busy:?}");
    }
}

/// Both rekey the IKE SA, and the peer's request alone has arrived: the old one and the successor of
/// which it is not known yet what it is for.
fn crossed() -> (Pair, IkeSpi, IkeSpi, Vec<u8>) {
    let mut pair = Pair::new(1);
    let old = pair.ike(C).local_spi;
    RekeyIke.begin(&mut pair, C);
    let theirs = RekeyIke.begin(&mut pair, P);
    let answer = pair.give(C, &theirs).remove(0);
    let mut others = pair.engines[C].sas.keys().filter(|spi| **spi != old);
    let new = *others.next().expect("a successor");
    assert!(pair.engines[C].sas[&new].undecided);
    (pair, old, new, answer)
}

/// The nonces decide between two exchanges. A peer that holds its answer to ours back, and asks again
/// and again, gets no IKE SA for each.
#[test]
fn rfc7296_section_2_8_2_only_one_rekeying_crosses_ours() {
    let mut pair = Pair::new(1);
    RekeyIke.begin(&mut pair, C);
    let first = RekeyIke.begin(&mut pair, P);
    let (mut header, asked) = pair.read(C, &first);
    let answer = pair.give(C, &first).remove(0);
    assert_eq!(answer_of(&pair.read(P, &answer).1), Agreed);
    for _ in 0..5 {
        header.message_id = header.message_id.next();
        let again = pair.forge_as(P, &header, &asked);
        let answer = pair.give(C, &again).remove(0);
        assert_eq!(answer_of(&pair.read(P, &answer).1), Later);
        assert_eq!(pair.engines[C].sas.len(), 2);
    }
}

/// Whoever closes it does not wait for what the peer holds back.
#[test]
fn a_successor_that_is_not_decided_can_be_closed() {
    let (mut pair, _, new, _) = crossed();
    pair.input(C, Input::RekeyIke(new));
    let said = pair.input(C, Input::Terminate { ike: new });
    assert_eq!(said.len(), 1);
    let pending = pair.engines[C].sas[&new].pending.values();
    assert_eq!(pending.count(), 1);
}

/// It ends with its purpose, whatever became of the exchange that would have decided.
#[test]
fn a_successor_that_is_never_decided_is_forgotten() {
    let (mut pair, old, new, _) = crossed();
    pair.engines[C].sas.remove(&old);
    let end = pair.now + Duration::from_secs(3600);
    while let Some(due) = pair.engines[C].poll_timeout().filter(|at| *at < end) {
        pair.now = due;
        pair.input(C, Input::Timeout);
    }
    assert!(!pair.engines[C].sas.contains_key(&new));
}

/// Once it is known, nothing of that is left.
#[test]
fn a_successor_that_was_decided_stays() {
    let (mut pair, old, new, answer) = crossed();
    let delete = pair.give(P, &answer);
    assert_eq!(delete.len(), 1, "of the old one");
    pair.give(C, &delete[0]);
    assert!(!pair.engines[C].sas.contains_key(&old));
    let new = &pair.engines[C].sas[&new];
    assert!(!new.undecided && new.forget_at.is_none());
    assert_eq!(new.children.len(), 1);
}

/// A takeover that finds the Message IDs out gives up what was outstanding: the Child SAs go where the
/// peer has them, and stay when it closes the old IKE SA.
#[test]
fn rfc7296_section_2_8_2_a_rekeying_that_is_given_up_leaves_the_peer_s() {
    let (mut pair, old, new, answer) = crossed();
    let (now, engine) = (pair.now, &mut pair.engines[C]);
    engine.with(now, &mut pair.entropy, old, |ike, turn| ike.abandon(turn));
    pair.outputs(C);
    assert!(!pair.engines[C].sas[&new].undecided);
    assert_eq!(pair.engines[C].sas[&new].children.len(), 1);
    let delete = pair.give(P, &answer);
    pair.give(C, &delete[0]);
    assert!(!pair.engines[C].sas.contains_key(&old));
    assert_eq!(pair.engines[C].sas[&new].children.len(), 1);
}
