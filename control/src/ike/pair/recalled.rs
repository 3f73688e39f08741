//! The peer asks for a successor once more, for it has none of what we made (`recall.rs`).

use std::time::Duration;

use hitless_sa::{IkeSpi, MessageId};

use super::{C, P, Pair};
use crate::ike::Input;
use crate::ike::established::State;
use crate::ike::message::{Exchange, Header, NotifyKind, Payload};
use crate::ike::tasks::Task;

/// The peer asked for a successor, which one member made; it heard another one's refusal. Our old IKE SA,
/// the successor, and our answer.
fn refused_elsewhere(pair: &mut Pair) -> (IkeSpi, IkeSpi, Vec<u8>) {
    let (old, theirs) = (pair.ike(C).local_spi, pair.ike(P).local_spi);
    let request = pair.input(P, Input::RekeyIke(theirs)).remove(0);
    let id = Header::parse(&request).unwrap().message_id;
    let header = pair.ike(C).header(Exchange::CreateChildSa, true, id);
    let busy = Payload::notify(NotifyKind::TEMPORARY_FAILURE, &[]);
    let refusal = pair.forge_as(C, &header, &[busy]);
    let answer = pair.give(C, &request).remove(0);
    let mut spis = pair.engines[C].sas.keys().copied();
    let heir = spis.find(|spi| *spi != old).expect("a successor");
    assert!(pair.engines[C].sas[&old].children.is_empty());
    assert!(pair.give(P, &refusal).is_empty());
    (old, heir, answer)
}

/// The peer asks again when it has waited (RFC 7296 section 2.25); gives what it is answered.
fn ask_again(pair: &mut Pair) -> Vec<u8> {
    pair.now += Duration::from_secs(5);
    let request = pair.input(P, Input::Timeout).remove(0);
    let header = Header::parse(&request).unwrap();
    assert_eq!(header.exchange, Exchange::CreateChildSa);
    pair.give(C, &request).remove(0)
}

#[test]
fn what_asks_for_a_successor_has_none_rfc7296_section_2_18() {
    let mut pair = Pair::begun_by(P, 2, |_, _| {});
    let children: Vec<_> = pair.ike(C).children.iter().map(|c| c.sa.id).collect();
    let (old, heir, _) = refused_elsewhere(&mut pair);
    let answer = ask_again(&mut pair);
    let (_, said) = pair.read(P, &answer);
    let busy = Payload::notify(NotifyKind::TEMPORARY_FAILURE, &[]);
    assert_eq!(said, [busy], "as long as it is not sure");
    assert_eq!(pair.engines[C].sas.keys().collect::<Vec<_>>(), [&old]);
    let back: Vec<_> = pair.ike(C).children.iter().map(|c| c.sa.id).collect();
    assert_eq!(back, children);
    assert_eq!(pair.ike(C).state, State::Established);
    assert!(pair.ike(C).successors.is_empty());
    assert!(
        back.iter()
            .all(|sa| pair.engines[C].ike_of(*sa) == Some(old))
    );
    pair.give(P, &answer);
    // And the next time it gets one that it takes.
    let answer = ask_again(&mut pair);
    pair.exchange(P, &answer);
    for host in [C, P] {
        let ike = pair.ike(host);
        assert_eq!(pair.engines[host].sas.len(), 1);
        assert_eq!((ike.state, ike.children.len()), (State::Established, 2));
    }
    let now = pair.ike(C).local_spi;
    assert!(now != old && now != heir);
}

/// What the successor was to do is done where the peer hears it.
#[test]
fn what_the_successor_was_asked_for_comes_back_with_its_children() {
    for ends in [false, true] {
        let mut pair = Pair::begun_by(P, 1, |_, _| {});
        let (old, heir, _) = refused_elsewhere(&mut pair);
        let child = pair.engines[C].sas[&heir].children[0].sa.id;
        let order = match ends {
            false => Input::RekeyChild(child),
            true => Input::Terminate { ike: heir },
        };
        assert_eq!(pair.input(C, order).len(), 1);
        ask_again(&mut pair);
        pair.now += Duration::from_millis(1);
        let said = pair.input(C, Input::Timeout).remove(0);
        let header = Header::parse(&said).unwrap();
        let exchange = match ends {
            false => Exchange::CreateChildSa,
            true => Exchange::Informational,
        };
        assert_eq!(header.exchange, exchange);
        assert_eq!(header.responder_spi, old);
        assert_eq!(pair.ike(C).terminated, ends);
    }
}

/// Whoever takes over in between finds each Child SA in one of them.
#[test]
fn a_successor_that_was_recalled_is_recorded_as_gone_last() {
    use crate::ike::Output;
    let mut pair = Pair::begun_by(P, 1, |_, _| {});
    let (old, heir, _) = refused_elsewhere(&mut pair);
    pair.now += Duration::from_secs(5);
    let request = pair.input(P, Input::Timeout).remove(0);
    let (local, remote) = (
        "192.0.2.1:4500".parse().unwrap(),
        "192.0.2.2:4500".parse().unwrap(),
    );
    let input = Input::Datagram {
        local,
        remote,
        payload: &request,
    };
    pair.engines[C].handle(pair.now, &mut pair.entropy, input);
    let mut commits = Vec::new();
    while let Some(output) = pair.engines[C].poll_output() {
        if let Output::Commit(commit) = output {
            commits.push((commit.ike, commit.record.is_some()));
            let changes = commit.changes.len();
            assert_eq!(changes, 0, "the Child SAs go on");
        }
    }
    assert_eq!(commits, [(old, true), (heir, false)]);
}

#[test]
fn a_successor_that_the_peer_may_have_is_not_recalled() {
    let doubted = |prepare: &dyn Fn(&mut Pair, IkeSpi, IkeSpi), ahead: bool| {
        let mut pair = Pair::begun_by(P, 1, |_, _| {});
        let (old, heir, _) = refused_elsewhere(&mut pair);
        pair.now += Duration::from_secs(1);
        prepare(&mut pair, old, heir);
        let (engine, now) = (&mut pair.engines[C], pair.now);
        engine.with(now, &mut pair.entropy, old, |ike, turn| {
            let expected = ike.window.expected.0;
            let id = if ahead { expected } else { expected - 1 };
            ike.doubt_successor(turn, MessageId(id));
        });
        engine.sas.len() == 1
    };
    assert!(doubted(&|_, _, _| {}, true));
    // The one that was answered, or one that was asked before it.
    assert!(!doubted(&|_, _, _| {}, false));
    // It has asked for something there, or answered.
    let asked = |pair: &mut Pair, _, heir: IkeSpi| {
        let heir = pair.engines[C].sas.get_mut(&heir).unwrap();
        heir.window.answered(MessageId(0), None, Vec::new());
    };
    assert!(!doubted(&asked, true));
    let answered = |pair: &mut Pair, _, heir: IkeSpi| {
        pair.input(C, Input::Liveness(heir));
        let heir = pair.engines[C].sas.get_mut(&heir).unwrap();
        assert!(heir.window.confirm(MessageId(0)));
    };
    assert!(!doubted(&answered, true));
    let unanswered = |pair: &mut Pair, _, heir| {
        pair.input(C, Input::Liveness(heir));
    };
    assert!(doubted(&unanswered, true));
    // The peer may be deleting the old one right now, for we asked it to.
    let deleting = |pair: &mut Pair, old: IkeSpi, _| {
        let (engine, now) = (&mut pair.engines[C], pair.now);
        engine.with(now, &mut pair.entropy, old, |ike, turn| {
            ike.schedule(now, Task::DeleteIke);
            ike.advance(turn);
        });
    };
    assert!(!doubted(&deleting, true));
}

/// The answer was late, and is of no use any more.
#[test]
fn the_answer_that_the_peer_did_not_take_makes_nothing() {
    let mut pair = Pair::begun_by(P, 1, |_, _| {});
    let (_, _, late) = refused_elsewhere(&mut pair);
    let answer = ask_again(&mut pair);
    pair.give(P, &late);
    pair.give(P, &answer);
    assert_eq!([C, P].map(|host| pair.engines[host].sas.len()), [1, 1]);
}
