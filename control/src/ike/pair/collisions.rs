//! Requests that cross, and the very words of each answer: RFC 7296 sections 2.25.1 and 2.25.2, one
//! sentence a test. Loss, failover and what is left in the end are in `tests/ike_pair/collisions.rs`.

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
