//! What ends an IKE SA without a Delete, and what does not (RFC 7296 sections 2.21.2 and 2.21.3); and
//! how much one Delete can ask for.

use hitless_sa::Spi;

use super::{C, P, Pair};
use crate::ike::Input;
use crate::ike::fragments::Fragmentation;
use crate::ike::message::{Delete, Exchange, Header, MAX_PAYLOADS, Notify, NotifyKind, Payload};
use crate::ike::work::Share;

fn one(said: Vec<Vec<u8>>) -> Vec<u8> {
    assert_eq!(said.len(), 1);
    said.into_iter().next().unwrap_or_default()
}

/// The peer rekeys the Child SA: what it says.
fn rekeying(pair: &mut Pair) -> (Header, Vec<Payload>) {
    let child = pair.ike(P).children[0].sa.id;
    let request = one(pair.input(P, Input::RekeyChild(child)));
    pair.read(C, &request)
}

fn says(payloads: &[Payload], kind: NotifyKind) -> bool {
    matches!(payloads, [Payload::Notify(notify)] if notify.kind == kind)
}

/// "If a peer parsing a request notices that it is badly formatted ... and it returns an INVALID_SYNTAX
/// notification, then this error notification is considered fatal in both peers".
#[test]
fn rfc7296_section_2_21_3_invalid_syntax_ends_the_ike_sa_of_both() {
    let mut pair = Pair::new(1);
    let (header, mut payloads) = rekeying(&mut pair);
    payloads.retain(|payload| !matches!(payload, Payload::Nonce(_)));
    let malformed = pair.forge_as(P, &header, &payloads);
    let answer = one(pair.give(C, &malformed));
    assert!(says(&pair.read(P, &answer).1, NotifyKind::INVALID_SYNTAX));
    assert!(pair.engines[C].sas.is_empty());
    // The answer was lost.
    assert_eq!(one(pair.give(C, &malformed)), answer);
    // No Delete follows.
    assert!(pair.give(P, &answer).is_empty());
    assert!(pair.engines[P].sas.is_empty());
}

/// What is well formed and makes no sense is refused, and nothing else.
#[test]
fn rfc7296_section_2_21_3_other_errors_leave_the_ike_sa_alone() {
    let mut pair = Pair::new(1);
    let (mut header, mut payloads) = rekeying(&mut pair);
    for payload in &mut payloads {
        if let Payload::Notify(notify) = payload {
            *notify = Notify::new(NotifyKind::REKEY_SA, &[]);
        }
    }
    let nameless = pair.forge_as(P, &header, &payloads);
    let answer = one(pair.give(C, &nameless));
    let (_, said) = pair.read(P, &answer);
    assert!(says(&said, NotifyKind::CHILD_SA_NOT_FOUND), "{said:?}");
    header.message_id = header.message_id.next();
    header.exchange = Exchange::IkeAuth;
    let strange = pair.forge_as(P, &header, &[]);
    let answer = one(pair.give(C, &strange));
    let (_, said) = pair.read(P, &answer);
    assert!(says(&said, NotifyKind::NO_PROPOSAL_CHOSEN), "{said:?}");
    assert_eq!(pair.ike(C).children.len(), 1);
}

/// More payloads than we read are no syntax error: the request is refused, also when it is repeated,
/// nothing of it is done, and the next one finds the IKE SA as it was.
#[test]
fn rfc7296_section_2_21_3_a_limit_of_ours_is_no_invalid_syntax() {
    let mut pair = Pair::new(1);
    let spi = pair.ike(P).children[0].sa.inbound_spi;
    let (id, _) = pair.next_ids(P);
    let mut payloads = vec![Payload::VendorId(Vec::new()); MAX_PAYLOADS];
    payloads.push(Payload::Delete(Delete::Esp(vec![spi])));
    let long = pair.forge(P, false, id, &payloads);
    let answer = one(pair.give(C, &long));
    let (_, said) = pair.read(P, &answer);
    assert!(says(&said, NotifyKind::NO_PROPOSAL_CHOSEN), "{said:?}");
    assert_eq!(one(pair.give(C, &long)), answer);
    assert_eq!(pair.ike(C).children.len(), 1);
    payloads.remove(0);
    let short = pair.forge(P, false, id + 1, &payloads);
    pair.give(C, &short);
    assert!(pair.ike(C).children.is_empty());
}

/// An initiator that does not accept our AUTH says so in an INFORMATIONAL exchange, and keeps nothing.
#[test]
fn rfc7296_section_2_21_2_authentication_failed_ends_the_ike_sa() {
    let mut pair = Pair::new(1);
    let (id, _) = pair.next_ids(P);
    let failed = Payload::notify(NotifyKind::AUTHENTICATION_FAILED, &[]);
    let told = pair.forge(P, false, id, &[failed]);
    let answer = one(pair.give(C, &told));
    assert!(pair.read(P, &answer).1.is_empty());
    assert!(pair.engines[C].sas.is_empty());
    assert_eq!(one(pair.give(C, &told)), answer, "lost");
}

/// As many SPIs as a message can carry are looked up, not searched for; and it is work that counts.
#[test]
fn rfc7296_section_1_4_1_a_delete_of_thousands_of_spis_is_bounded_and_counted() {
    let mut pair = Pair::with(2, |_, settings| {
        settings.connections[0].fragmentation = Fragmentation::No;
    });
    let theirs = |pair: &Pair| -> Vec<Spi> {
        let children = pair.ike(P).children.iter();
        children.map(|child| child.sa.inbound_spi).collect()
    };
    let children = theirs(&pair);
    let (id, _) = pair.next_ids(P);
    let few = pair.forge(P, false, id, &[Payload::Delete(Delete::Esp(vec![Spi(7)]))]);
    let share = Share::of_a_turn();
    pair.give(C, &few);
    let little = share.used();
    let mut spis: Vec<Spi> = (0..16_000).map(Spi).collect();
    spis.extend(children.iter().rev().chain(&children));
    let many = pair.forge(P, false, id + 1, &[Payload::Delete(Delete::Esp(spis))]);
    let share = Share::of_a_turn();
    let answer = one(pair.give(C, &many));
    assert!(share.used() > little + 900);
    let (_, said) = pair.read(P, &answer);
    assert!(matches!(&said[..], [Payload::Delete(Delete::Esp(ours))] if ours.len() == 2));
    assert!(pair.ike(C).children.is_empty());
}
