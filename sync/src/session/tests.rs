//! What a learner must have acknowledged before it is admitted, and what goes before what.

use std::sync::Arc;

use hitless_sa::{MemberId, SequenceNumber};
use zeroize::Zeroizing;

use super::*;
use crate::leading::{Context, Leading};
use crate::lease::Spent;
use crate::lease::tests::sa;

const EPOCH: hitless_sa::Epoch = hitless_sa::Epoch {
    counter: 1,
    leader: MemberId(1),
    incarnation: Incarnation(1),
};

fn led(version: u64) -> LedObject {
    LedObject {
        version,
        released: version,
        body: Arc::new(Zeroizing::new(vec![0; 900])),
        children: Vec::new(),
    }
}

/// A leader, and what it works with.
fn leads(test: impl FnOnce(&mut Leading, &mut Context<'_>)) {
    let settings = Settings::new(MemberId(1), Vec::new(), [0; 32]);
    let (mut outputs, mut spent) = (VecDeque::new(), Spent::default());
    let mut cx = Context {
        settings: &settings,
        incarnation: Incarnation(1),
        now: Instant(1),
        outputs: &mut outputs,
        spent: &mut spent,
    };
    test(&mut Leading::new(EPOCH, None), &mut cx);
}

#[test]
fn d13_a_lease_and_a_change_go_before_what_a_joiner_still_has_to_copy() {
    let settings = Settings::new(MemberId(1), Vec::new(), [0; 32]);
    let mut objects: BTreeMap<ObjectId, LedObject> =
        (1..=5_000).map(|n| (ObjectId(n), led(1))).collect();
    let mut outputs = VecDeque::new();
    let mut spent = Spent::default();
    let mut cx = Context {
        settings: &settings,
        incarnation: Incarnation(1),
        now: Instant(1),
        outputs: &mut outputs,
        spent: &mut spent,
    };
    let mut leading = Leading::new(EPOCH, None);
    leading.commit(
        &mut cx,
        ObjectId(1),
        1,
        Some(Zeroizing::new(vec![1])),
        vec![sa(1)],
    );
    let sid = Sid::default();
    let mut session = Session::new(sid, Incarnation(1), Instant(1), 0);
    session.copy(&objects);
    session.acknowledge(session.last_record());
    session.shares.insert(sa(1), Lease::default());
    // Some of the copy is on its way. Then a lease runs low, and an object changes.
    session.build(Instant(1), &settings, &objects, &leading.sas);
    let mut packet = Packet::default();
    let retransmit = Duration::from_millis(10);
    assert!(session.fill((Instant(1), false), retransmit, &leading.sas, &mut packet));
    session.offer(sa(1));
    objects.insert(ObjectId(4_999), led(2));
    session.touch(ObjectId(4_999), 2);
    let mut packet = Packet::default();
    assert!(session.fill((Instant(2), false), retransmit, &leading.sas, &mut packet));
    assert_eq!(packet.offers.len(), 1);
    assert_ne!(packet.offers[0].lease().grant, SequenceNumber(0));
    // What is in flight is bounded; the change is the next record after it.
    let before = session.last_record();
    assert!(before <= 1 + FLIGHT_RECORDS as u64);
    session.acknowledge(before);
    session.build(Instant(3), &settings, &objects, &leading.sas);
    let first = session.flight.front().unwrap().record();
    assert_eq!(
        (first.n, first.object, first.version),
        (before + 1, 4_999, 2)
    );
}

const TWO: MemberId = MemberId(2);
const RETRANSMIT: Duration = Duration::from_millis(10);

/// The number of the last record for 2, and what it is sent next.
fn next(leading: &mut Leading, cx: &Context<'_>) -> (u64, Packet) {
    let session = leading.sessions.get_mut(&TWO).unwrap();
    let mut packet = Packet::default();
    session.build(cx.now, cx.settings, &leading.objects, &leading.sas);
    session.fill((cx.now, false), RETRANSMIT, &leading.sas, &mut packet);
    (session.last_record(), packet)
}

/// A leader with two objects, and a learner that has acknowledged the copy of both.
fn copied(leading: &mut Leading, cx: &mut Context<'_>) {
    for object in [1, 2] {
        let body = Some(Zeroizing::new(vec![1]));
        leading.commit(cx, ObjectId(object), 1, body, vec![sa(object as u32)]);
    }
    let session = Session::new(Sid::default(), Incarnation(1), cx.now, 0);
    leading.open_session(TWO, session);
    let session = leading.sessions.get_mut(&TWO).unwrap();
    session.entered = true;
    session.acknowledge(1);
    let (sent, _) = next(leading, cx);
    leading.sessions.get_mut(&TWO).unwrap().acknowledge(sent);
}

/// The cell has used so much, and may use more: the learner, which bounds nothing, has not
/// recorded it.
fn used(leading: &mut Leading, cx: &mut Context<'_>, object: u32) {
    let usage = crate::Usage {
        sa: sa(object),
        cursor: SequenceNumber(4_000),
        inbound_top: SequenceNumber(0),
        esn: true,
    };
    leading.usage(cx, usage);
    assert!(leading.sas[&sa(object)].limit.grant.0 > 1 << 12);
}

fn is_bound(leading: &mut Leading, cx: &mut Context<'_>) -> bool {
    cx.now += RETRANSMIT;
    leading.review_sessions(cx, true);
    leading.sessions[&TWO].bound.is_some()
}

/// R9: what a learner has of an object whose deletion left without it was used beyond its records.
#[test]
fn r9_a_learner_that_lacks_a_deletion_is_not_admitted() {
    leads(|leading, cx| {
        copied(leading, cx);
        used(leading, cx, 1);
        leading.commit(cx, ObjectId(1), 2, None, Vec::new());
        assert!(!leading.sas.contains_key(&sa(1)), "it was released");
        for _ in 0..3 {
            assert!(!is_bound(leading, cx));
        }
        let (sent, _) = next(leading, cx);
        let session = leading.sessions.get_mut(&TWO).unwrap();
        session.acknowledge(sent);
        assert!(session.versions.len() == 1 && session.owes.is_empty());
        assert!(is_bound(leading, cx));
    });
}

/// R9: nor one that lacks the version before a deletion that waits for it.
#[test]
fn r9_a_learner_that_lacks_what_left_before_a_held_deletion_is_not_admitted() {
    leads(|leading, cx| {
        copied(leading, cx);
        used(leading, cx, 1);
        // Its SA is replaced by another one without the learner.
        let body = Some(Zeroizing::new(vec![2]));
        leading.commit(cx, ObjectId(1), 2, body, vec![sa(3)]);
        assert!(!leading.sas.contains_key(&sa(1)), "it was released");
        leading.sessions.get_mut(&TWO).unwrap().closing = true;
        leading.commit(cx, ObjectId(1), 3, None, Vec::new());
        for _ in 0..3 {
            assert!(!is_bound(leading, cx));
        }
        let (sent, _) = next(leading, cx);
        leading.sessions.get_mut(&TWO).unwrap().acknowledge(sent);
        leading.settle_held(cx);
        assert!(is_bound(leading, cx));
    });
}

/// R9: an SA that a held version removes is in the learner's copy until then.
#[test]
fn r9_a_learner_that_lacks_the_lease_of_an_sa_that_is_about_to_end_is_not_admitted() {
    leads(|leading, cx| {
        copied(leading, cx);
        used(leading, cx, 1);
        leading.review_sessions(cx, false);
        let session = leading.sessions.get_mut(&TWO).unwrap();
        session.close(&leading.sas);
        let body = Some(Zeroizing::new(vec![2]));
        leading.commit(cx, ObjectId(1), 2, body, Vec::new());
        assert!(leading.sas.contains_key(&sa(1)), "it waits");
        for _ in 0..3 {
            assert!(!is_bound(leading, cx));
        }
        let offered = leading.sas[&sa(1)].offered;
        let session = leading.sessions.get_mut(&TWO).unwrap();
        session.acknowledge_lease(sa(1), offered, offered);
        assert!(is_bound(leading, cx));
    });
}

/// R9: a copy of very much holds nothing up, and what was used meanwhile is recorded before Admit.
#[test]
fn r9_a_learner_bounds_nothing_before_it_was_sent_everything_and_everything_after() {
    leads(|leading, cx| {
        let change = |leading: &mut Leading, cx: &mut Context<'_>, object: u32, version| {
            let body = Some(Zeroizing::new(vec![1]));
            let id = ObjectId(object.into());
            leading.commit(cx, id, version, body, vec![sa(object)]);
            leading.objects[&id].released == version
        };
        assert!(change(leading, cx, 1, 1) && change(leading, cx, 2, 1));
        let session = Session::new(Sid::default(), Incarnation(1), Instant(1), 0);
        leading.open_session(TWO, session);
        let used = |cursor| crate::Usage {
            sa: sa(2),
            cursor: SequenceNumber(cursor),
            inbound_top: SequenceNumber(0),
            esn: true,
        };
        let bound = |leading: &Leading| leading.sessions[&TWO].bound.is_some();
        // It answers, and is sent the copy: meanwhile leases are extended and changes leave.
        let session = leading.sessions.get_mut(&TWO).unwrap();
        session.entered = true;
        session.acknowledge(1);
        let (sent, packet) = next(leading, cx);
        assert_eq!((sent, packet.records.len()), (3, 2));
        leading.usage(cx, used(4_000));
        let extended = leading.sas[&sa(2)].limit;
        assert!(extended.grant.0 > 1 << 12);
        assert!(change(leading, cx, 1, 2));
        // From here on they wait for it.
        leading.review_sessions(cx, true);
        assert!(leading.sessions[&TWO].closing && !bound(leading));
        assert!(!change(leading, cx, 1, 3));
        leading.usage(cx, used(extended.grant.0));
        assert_eq!(leading.sas[&sa(2)].limit, extended);
        // The records are not enough: what was extended without it is offered to it.
        cx.now += RETRANSMIT * 2;
        let (sent, packet) = next(leading, cx);
        let offered = leading.sas[&sa(2)].offered;
        let mut offers = packet.offers.iter();
        assert!(offers.any(|offer| offer.sa() == Some(sa(2)) && offer.lease() == offered));
        let session = leading.sessions.get_mut(&TWO).unwrap();
        session.acknowledge(sent);
        leading.review_sessions(cx, true);
        assert!(!bound(leading));
        let session = leading.sessions.get_mut(&TWO).unwrap();
        session.acknowledge_lease(sa(2), offered, offered);
        cx.now += RETRANSMIT;
        leading.review_sessions(cx, true);
        assert!(bound(leading));
    });
}

/// Many paths lose what is larger than a packet of theirs, and heartbeats are to arrive.
#[test]
fn a_record_that_makes_a_datagram_large_leaves_beside_the_heartbeat_and_not_in_it() {
    let (settings, sas) = (
        Settings::new(MemberId(1), Vec::new(), [0; 32]),
        BTreeMap::new(),
    );
    let body = Arc::new(Zeroizing::new(vec![0; DATAGRAM_TARGET]));
    let large = LedObject { body, ..led(1) };
    let objects = BTreeMap::from([(ObjectId(1), led(1)), (ObjectId(2), large)]);
    let mut session = Session::new(Sid::default(), Incarnation(1), Instant(1), 0);
    session.copy(&objects);
    session.acknowledge(1);
    session.build(Instant(1), &settings, &objects, &sas);
    let mut carried = Vec::new();
    for beats in [true, false, true] {
        let mut packet = Packet::default();
        session.fill((Instant(1), beats), RETRANSMIT, &sas, &mut packet);
        carried.push(packet.records.iter().map(|r| r.object).collect::<Vec<_>>());
    }
    // The small one travels with it.
    assert_eq!(carried, [vec![1], vec![2], vec![]]);
    // Once more, when nobody has acknowledged it.
    session.acknowledge(2);
    let mut packet = Packet::default();
    let later = Instant(1) + RETRANSMIT;
    assert!(session.fill((later, true), RETRANSMIT, &sas, &mut packet));
    assert!(packet.records.is_empty());
    assert!(session.fill((later, false), RETRANSMIT, &sas, &mut packet));
    assert_eq!(packet.records.len(), 1);
}
