//! RFC 6311 rule by rule, with messages that no correct member would send: a cluster and a peer of
//! it, and words put into the mouth of either. What needs a takeover, loss or time is in
//! `tests/ike_pair/counter_sync.rs` and `windows.rs`; `testbeds/tests/tidy.rs` wants a test for each
//! rule.

use hitless_sa::Spi;

use super::*;
use crate::ike::message::Delete;
use crate::ike::pair::{C, P, Pair};
use crate::ike::settings::Takeover;
use crate::ike::takeover::{Facts, resume};
use crate::ike::{Engine, Input, Resume};

impl Pair {
    /// The cluster asks for (M1, P1); gives what the peer answers.
    pub(super) fn ask(&mut self, values: MessageIdSync, more: &[Payload]) -> Option<MessageIdSync> {
        let payloads = [&[values.payload()], more].concat();
        let request = self.forge(C, false, 0, &payloads);
        let answers = self.give(P, &request);
        let answer = answers.first()?;
        let (header, payloads) = self.read(C, answer);
        assert_eq!(
            (header.message_id, header.response),
            (MessageId(0), true),
            "R24"
        );
        let [Payload::Notify(notify)] = payloads.as_slice() else {
            panic!("R23: nothing else, {payloads:?}")
        };
        Some(MessageIdSync::parse(notify).expect("well formed"))
    }
}

pub(super) fn values(send: u32, receive: u32) -> MessageIdSync {
    MessageIdSync {
        nonce: [9, 8, 7, 6],
        send: MessageId(send),
        receive: MessageId(receive),
    }
}

pub(super) fn replay(data: &[u8]) -> Payload {
    Payload::notify(NotifyKind::IPSEC_REPLAY_COUNTER_SYNC, data)
}

#[test]
fn rfc6311_r5_a_responder_asserts_only_what_the_initiator_did() {
    let pair = Pair::new(1);
    let connection = &pair.ike(C).connection;
    let kinds = |payloads: &[Payload]| -> Vec<u16> {
        let kind = |p: &Payload| match p {
            Payload::Notify(n) => n.kind.0,
            _ => 0,
        };
        payloads.iter().map(kind).collect()
    };
    assert_eq!(kinds(&capabilities(connection, None)), [16420, 16421]);
    for asserted in [vec![], vec![16420], vec![16421], vec![16420, 16421]] {
        let asked = asserted
            .iter()
            .map(|kind| Payload::notify(NotifyKind(*kind), &[]));
        let asked: Vec<Payload> = asked.collect();
        let answer = capabilities(connection, Some(&Contents::of(&asked)));
        assert_eq!(kinds(&answer), asserted);
        let both = negotiated(connection, &Contents::of(&asked));
        assert_eq!(both, (asserted.contains(&16420), asserted.contains(&16421)));
    }
}

#[test]
fn rfc6311_r6_what_was_not_negotiated_is_ignored() {
    let mut pair = Pair::new(1);
    let before = pair.next_ids(P);
    let ike = pair.engines[P].sas.values_mut().next().unwrap();
    (ike.message_id_sync, ike.replay_counter_sync) = (false, false);
    assert_eq!(pair.ask(values(50, 0), &[replay(&[0, 0, 0, 9])]), None);
    assert_eq!(pair.next_ids(P), before);
    let alone = pair.forge(C, false, before.1, &[replay(&[0, 0, 0, 9])]);
    pair.give(P, &alone);
    assert_eq!(pair.deltas(P), []);
}

#[test]
fn rfc6311_r6_with_message_ids_alone_negotiated_they_count_and_the_delta_does_not() {
    for withholds in [C, P] {
        let mut pair = Pair::with(1, |host, settings| {
            let withheld = &mut settings.connections[0].roads.withheld;
            withheld.replay_counter_sync = host == withholds;
        });
        let (next, seen) = pair.next_ids(P);
        let delta = replay(&9u64.to_be_bytes());
        let answer = pair.ask(values(seen + 3, next), std::slice::from_ref(&delta));
        assert_eq!(answer.map(|a| a.receive.0), Some(seen + 3));
        assert_eq!(pair.deltas(P), [], "{withholds} withholds 16421");
        let alone = pair.forge(C, false, seen + 3, &[delta]);
        assert_eq!(
            pair.give(P, &alone).len(),
            1,
            "answered, for it is a request"
        );
        assert_eq!(pair.deltas(P), []);
        // Nor does the cluster ask for it.
        let resume = Resume::MessageIdSync {
            replay_delta: Some(77),
        };
        let said = pair.take_over(resume);
        assert_eq!(pair.read(P, &said[0]).1.len(), 1, "{withholds}");
    }
}

#[test]
fn rfc6311_r7_the_members_share_what_the_peer_can() {
    let pair = Pair::new(1);
    let (ike, version, body) = &pair.records[C];
    let mut standby = Engine::new(pair.engines[C].settings.clone());
    standby.store(pair.now, *ike, *version, body).unwrap();
    let facts = standby.facts(*ike).unwrap();
    assert!(facts.message_id_sync && facts.replay_counter_sync);
}

#[test]
fn rfc6311_r8_r13_r36_r37_it_is_used_where_negotiated_needed_and_wanted() {
    let both = Facts {
        message_id_sync: true,
        replay_counter_sync: true,
        combined_mode: false,
    };
    let plan = |policy, facts, delta| resume(policy, false, facts, delta);
    let sync = |replay_delta| Resume::MessageIdSync { replay_delta };
    assert_eq!(plan(Takeover::Auto, both, Some(5)), sync(Some(5)), "R8");
    // R13: plain IKEv2 towards a peer without the extension.
    assert_eq!(
        plan(Takeover::Auto, Facts::default(), Some(5)),
        Resume::Probe
    );
    // R36: nothing to leave out where nothing went.
    assert_eq!(plan(Takeover::Auto, both, Some(0)), sync(None));
    assert_eq!(plan(Takeover::Auto, both, None), sync(None));
    // R37: each peer has its own policy.
    assert_eq!(plan(Takeover::Exact, both, Some(5)), Resume::Exact);
}

#[test]
fn rfc6311_r9_r19_r20_r21_the_answer_is_the_higher_of_both_with_the_same_nonce() {
    let offsets = [0u32, 1, 7, 4000];
    for (more, expected) in offsets.into_iter().flat_map(|o| offsets.map(|p| (o, p))) {
        let mut pair = Pair::new(1);
        let (next, seen) = pair.next_ids(P);
        let asked = values(seen + more, next + expected);
        let answer = pair.ask(asked, &[]).expect("R9: answered");
        assert_eq!(answer.nonce, asked.nonce, "R21");
        assert_eq!(answer.receive.0, seen + more, "R19");
        assert_eq!(answer.send.0, next + expected, "R20");
        assert_eq!(pair.next_ids(P), (answer.send.0, answer.receive.0));
    }
    // R20: the cluster is behind, and the peer never goes back.
    let mut pair = Pair::new(1);
    let liveness = Input::Liveness(pair.ike(P).local_spi);
    let request = pair.input(P, liveness).remove(0);
    let answer = pair.give(C, &request).remove(0);
    pair.give(P, &answer);
    let (next, seen) = pair.next_ids(P);
    assert_eq!(pair.ask(values(seen, 0), &[]).unwrap().send.0, next);
}

/// Seed 15850 of the simulator: both sides asked where the other stood. What a probe had was used again
/// for the next request, and a probe that was late would have been answered in its place.
#[test]
fn rfc6311_r20_a_message_id_that_a_probe_had_is_not_used_again() {
    let mut pair = Pair::new(1);
    let expected = pair.next_ids(C).1;
    let mut probes = pair.take_over(Resume::Probe);
    for _ in 0..3 {
        pair.now += std::time::Duration::from_millis(250);
        probes.extend(pair.input(C, Input::Timeout));
    }
    let ids = |datagrams: &[Vec<u8>]| -> Vec<u32> {
        let headers = datagrams.iter().map(|d| Header::parse(d).unwrap());
        headers.map(|header| header.message_id.0).collect()
    };
    let last = *ids(&probes).iter().max().expect("a probe");
    assert!(last > pair.next_ids(C).0, "more than the first");
    let asked = values(expected, 0);
    let request = pair.forge(P, false, 0, &[asked.payload()]);
    let said = pair.give(C, &request);
    let (_, payloads) = pair.read(P, &said[0]);
    let [Payload::Notify(notify)] = payloads.as_slice() else {
        panic!("{payloads:?}")
    };
    let answer = MessageIdSync::parse(notify).unwrap();
    assert_eq!(answer.send.0, last + 1, "R20");
    assert_eq!(pair.next_ids(C).0, last + 1);
    let liveness = Input::Liveness(pair.ike(C).local_spi);
    let next = pair.input(C, liveness);
    assert_eq!(ids(&next), [last + 1]);
}

/// Seed 23055 of the simulator: a peer that had lost the IKE SA was repeated to for 63.5 s, and then
/// asked for its Message IDs for 22.5 s more.
#[test]
fn rfc6311_r33_a_peer_that_was_silent_for_a_minute_is_asked_for_its_message_ids_for_seconds_only() {
    let mut pair = Pair::with(1, |_, settings| {
        settings.connections[0].takeover = Takeover::MessageIdSync;
    });
    pair.take_over(Resume::Exact);
    let ike = pair.ike(C).local_spi;
    pair.input(C, Input::Liveness(ike));
    let step = std::time::Duration::from_millis(250);
    let (begun, mut asked_at) = (pair.now, None);
    while !pair.engines[C].sas.is_empty() {
        pair.now += step;
        pair.input(C, Input::Timeout);
        if pair.engines[C].sas.values().any(|ike| ike.sync.is_some()) {
            asked_at.get_or_insert(pair.now);
        }
        assert!(pair.now.since(begun).as_secs() < 200, "lost at last");
    }
    let asked_at = asked_at.expect("asked where the peer stands");
    assert!(
        asked_at.since(begun).as_secs() >= 60,
        "after the last repetition"
    );
    // Four transmissions of one request; without hurry it would be three such requests.
    let timeout = pair.engines[C].settings.retransmit_timeout;
    assert_eq!(pair.now.since(asked_at), timeout * 15);
}

/// The next member synchronises where the one before it probed, and does not end the IKE SA because
/// nobody answers the probes.
#[test]
fn rfc6311_r14_a_synchronisation_declares_what_is_above_the_probes_and_ends_them() {
    let mut pair = Pair::new(1);
    pair.take_over(Resume::Probe);
    for _ in 0..3 {
        pair.now += std::time::Duration::from_millis(250);
        pair.input(C, Input::Timeout);
    }
    let probed = pair.ike(C).unused();
    let said = pair.take_over(Resume::MessageIdSync { replay_delta: None });
    assert_eq!(said.len(), 1, "no probe");
    let (_, payloads) = pair.read(P, &said[0]);
    let Payload::Notify(notify) = &payloads[0] else {
        panic!("{payloads:?}")
    };
    let sent = MessageIdSync::parse(notify).unwrap();
    assert!(sent.send >= probed.max(above(probed)), "R14, R15");
    let answer = pair.give(P, &said[0]).remove(0);
    pair.give(C, &answer);
    let ike = pair.ike(C);
    assert!(ike.sync.is_none() && ike.probe.is_none());
}

#[test]
fn rfc6311_r10_r12_r14_r15_r16_r24_r27_r30_what_a_new_member_says() {
    for delta in [None, Some(77)] {
        let mut pair = Pair::new(1);
        let (next, expected) = pair.next_ids(C);
        let said = pair.take_over(Resume::MessageIdSync {
            replay_delta: delta,
        });
        // R33: at once, on taking control.
        let (header, payloads) = pair.read(P, &said[0]);
        assert_eq!(header.exchange, Exchange::Informational);
        assert_eq!(
            (header.message_id, header.response),
            (MessageId(0), false),
            "R24"
        );
        let Payload::Notify(first) = &payloads[0] else {
            panic!("{payloads:?}")
        };
        assert_eq!((first.kind.0, first.data.len()), (16422, 12), "R10");
        assert_eq!((first.protocol, first.spi.len()), (0, 0), "R30");
        let sent = MessageIdSync::parse(first).unwrap();
        // H8: MARGIN is more than any window.
        let window = crate::ike::window::MAX_WINDOW;
        assert!(sent.send.0 >= next + window, "R14, R15");
        assert_eq!(sent.receive.0, expected, "R16");
        match delta {
            None => assert_eq!(payloads.len(), 1, "R10: the sole notification"),
            Some(delta) => {
                // R12, R27: eight octets with ESN.
                let Payload::Notify(second) = &payloads[1] else {
                    panic!("{payloads:?}")
                };
                assert_eq!(
                    (second.kind.0, second.protocol, second.spi.len()),
                    (16423, 0, 0)
                );
                assert_eq!(second.data, u64::to_be_bytes(delta));
                assert_eq!(payloads.len(), 2);
            }
        }
    }
}

#[test]
fn rfc6311_r12_r27_without_esn_the_delta_has_four_octets() {
    let mut pair = Pair::with(1, |_, settings| {
        let child = &mut settings.connections[0].children[0];
        child.esp_proposals = vec!["aes128gcm16-x25519-noesn".parse().unwrap()];
    });
    assert!(!pair.ike(C).children[0].sa.esn);
    let said = pair.take_over(Resume::MessageIdSync {
        replay_delta: Some(0x0102_0304),
    });
    let (_, payloads) = pair.read(P, &said[0]);
    assert_eq!(payloads[1..], [replay(&[1, 2, 3, 4])]);
    assert_eq!(pair.give(P, &said[0]).len(), 1);
    assert_eq!(pair.deltas(P), [(1, 0x0102_0304)]);
}

#[test]
fn rfc6311_r11_replay_counters_alone_use_the_current_message_id() {
    let mut pair = Pair::new(1);
    let ike = pair.ike(C).local_spi;
    let (next, _) = pair.next_ids(C);
    let said = pair.input(C, Input::ReplayCounterSync { ike, delta: 5 });
    let (header, payloads) = pair.read(P, &said[0]);
    assert_eq!(header.message_id, MessageId(next));
    assert_eq!(payloads, [replay(&5u64.to_be_bytes())]);
    // R32: the response carries nothing for it.
    let answer = pair.give(P, &said[0]).remove(0);
    assert_eq!(pair.read(C, &answer).1, []);
}

#[test]
fn rfc6311_r18_r41_at_most_what_was_seen_is_dropped_silently() {
    for mut pair in Pair::in_both_roles(1) {
        let (next, seen) = pair.next_ids(P);
        for stale in 0..seen {
            assert_eq!(pair.ask(values(stale, next), &[]), None, "{stale}");
        }
        assert_eq!(pair.next_ids(P), (next, seen));
        assert!(pair.ask(values(seen + 9, next), &[]).is_some());
        // Earlier synchronisations count too.
        for stale in seen..=seen + 9 {
            assert_eq!(pair.ask(values(stale, next), &[]), None, "{stale}");
        }
        assert!(pair.ask(values(seen + 10, next), &[]).is_some());
        // R41: authenticated first. One bit off, and it is as if nothing had come.
        let before = pair.next_ids(P);
        let request = pair.forge(C, false, 0, &[values(seen + 500, next).payload()]);
        for position in 28..request.len() {
            let mut altered = request.clone();
            altered[position] ^= 1;
            assert_eq!(pair.give(P, &altered), Vec::<Vec<u8>>::new());
        }
        assert_eq!(pair.next_ids(P), before);
    }
}

#[test]
fn rfc6311_r22_r23_r45_only_the_one_right_answer_counts() {
    for mut pair in Pair::in_both_roles(1) {
        let said = pair.take_over(Resume::MessageIdSync { replay_delta: None });
        let sync = pair.ike(C).sync.clone().unwrap().values;
        let right = MessageIdSync {
            nonce: sync.nonce,
            send: sync.receive,
            receive: sync.send,
        };
        let other_nonce = MessageIdSync {
            nonce: [0; 4],
            ..right
        };
        let lower = MessageIdSync {
            receive: MessageId(1),
            ..right
        };
        let more = Payload::notify(NotifyKind::INITIAL_CONTACT, &[]);
        let wrong: [(u32, Vec<Payload>); 6] = [
            (0, vec![other_nonce.payload()]),
            (0, vec![lower.payload()]),
            (0, vec![right.payload(), more]),
            (0, vec![right.payload(), replay(&[0; 8])]),
            (1, vec![right.payload()]),
            (0, vec![]),
        ];
        for (id, payloads) in wrong {
            let answer = pair.forge(P, true, id, &payloads);
            pair.give(C, &answer);
            assert!(pair.ike(C).sync.is_some(), "{id} {payloads:?}");
        }
        let answer = pair.give(P, &said[0]).remove(0);
        pair.give(C, &answer);
        assert!(pair.ike(C).sync.is_none());
        let before = pair.next_ids(C);
        // R45: any other one is discarded, also with the same nonce.
        let second = MessageIdSync {
            receive: MessageId(90_000),
            ..right
        };
        let second = pair.forge(P, true, 0, &[second.payload()]);
        pair.give(C, &second);
        pair.give(C, &answer);
        assert_eq!(pair.next_ids(C), before);
    }
}

#[test]
fn rfc6311_r23_r30_a_request_of_another_shape_is_no_synchronisation() {
    for mut pair in Pair::in_both_roles(1) {
        let before = pair.next_ids(P);
        let good = values(before.1 + 50, before.0);
        let Payload::Notify(notify) = good.payload() else {
            panic!("a notification")
        };
        let with_protocol = Notify {
            protocol: 3,
            ..notify.clone()
        };
        let with_spi = Notify {
            spi: vec![1, 2, 3, 4],
            protocol: 3,
            ..notify.clone()
        };
        let short = Notify {
            data: notify.data[..11].to_vec(),
            ..notify.clone()
        };
        let wrong: Vec<Vec<Payload>> = vec![
            vec![Payload::Notify(with_protocol)],
            vec![Payload::Notify(with_spi)],
            vec![Payload::Notify(short)],
            vec![good.payload(), good.payload()],
            vec![good.payload(), Payload::Delete(Delete::Esp(vec![Spi(1)]))],
            vec![good.payload(), Payload::Delete(Delete::Ike)],
            vec![good.payload(), replay(&[0; 8]), replay(&[0; 8])],
            vec![replay(&[0; 8])],
        ];
        for payloads in wrong {
            let request = pair.forge(C, false, 0, &payloads);
            assert_eq!(
                pair.give(P, &request),
                Vec::<Vec<u8>>::new(),
                "{payloads:?}"
            );
            assert_eq!(pair.next_ids(P), before);
            assert_eq!(pair.deltas(P), []);
        }
        assert!(pair.ask(good, &[]).is_some());
    }
}

#[test]
fn rfc6311_r28_the_message_ids_come_first_and_may_drop_the_whole() {
    for mut pair in Pair::in_both_roles(1) {
        let (next, seen) = pair.next_ids(P);
        assert_eq!(
            pair.ask(values(seen - 1, next), &[replay(&[0, 0, 0, 9])]),
            None
        );
        assert_eq!(pair.deltas(P), []);
        assert!(
            pair.ask(values(seen, next), &[replay(&[0, 0, 0, 9])])
                .is_some()
        );
        assert_eq!(pair.deltas(P), [(1, 9)]);
    }
}

#[test]
fn rfc6311_r29_the_delta_is_for_all_child_sas() {
    for mut pair in Pair::in_both_roles(3) {
        let (next, seen) = pair.next_ids(P);
        let delta = replay(&u64::to_be_bytes(1 << 30));
        assert!(pair.ask(values(seen, next), &[delta]).is_some());
        assert_eq!(pair.deltas(P), [(3, 1 << 30)]);
    }
}

#[test]
fn rfc6311_r32_only_the_cluster_sends_replay_counters() {
    for mut pair in Pair::in_both_roles(1) {
        let ike = pair.ike(C).local_spi;
        let (next, _) = pair.next_ids(C);
        pair.input(C, Input::Liveness(ike));
        let answer = pair.forge(P, true, next, &[replay(&[0, 0, 0, 9])]);
        pair.give(C, &answer);
        assert_eq!(
            pair.next_ids(C).0,
            next + 1,
            "the answer to the liveness check"
        );
        assert_eq!(pair.deltas(C), []);
    }
}

#[test]
fn rfc6311_r33_r34_what_is_out_of_the_window_is_dropped_and_at_most_a_trigger() {
    let mut pair = Pair::new(1);
    let expected = pair.next_ids(C).1;
    let first = pair.forge(P, false, expected, &[]);
    assert_eq!(pair.give(C, &first).len(), 1);
    pair.take_over(Resume::Exact);
    let before = pair.next_ids(C);
    let ahead = pair.forge(P, false, before.1 + 3, &[]);
    assert_eq!(pair.give(C, &ahead), Vec::<Vec<u8>>::new());
    // It is found out where the peer stands; the request itself is not answered.
    let ike = pair.ike(C);
    assert!(ike.probe.is_some() || ike.sync.is_some());
    assert_eq!(pair.next_ids(C).1, before.1);
    let below = pair.forge(P, false, before.1 - 1, &[]);
    assert_eq!(pair.give(C, &below), Vec::<Vec<u8>>::new());
}

#[test]
fn rfc6311_r35_a_thousand_stale_packets_are_one_failover_event() {
    let mut pair = Pair::new(1);
    pair.take_over(Resume::MessageIdSync { replay_delta: None });
    let (_, expected) = pair.next_ids(C);
    for id in 0..1000 {
        let stale = pair.forge(P, false, (expected + id) % 97, &[]);
        assert_eq!(pair.give(C, &stale), Vec::<Vec<u8>>::new());
    }
    let sent = |e: &&Event| matches!(e, Event::MessageIdSyncSent { .. });
    assert_eq!(pair.events[C].iter().filter(sent).count(), 1);
}

#[test]
fn rfc6311_r46_the_numbers_are_iana_s() {
    let numbers = [
        (NotifyKind::IKEV2_MESSAGE_ID_SYNC_SUPPORTED, 16420),
        (NotifyKind::IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED, 16421),
        (NotifyKind::IKEV2_MESSAGE_ID_SYNC, 16422),
        (NotifyKind::IPSEC_REPLAY_COUNTER_SYNC, 16423),
    ];
    for (kind, number) in numbers {
        assert_eq!(kind.0, number);
    }
}

#[test]
fn rfc6311_h1_the_same_request_gets_the_same_octets_until_something_newer_came() {
    for mut pair in Pair::in_both_roles(1) {
        let (next, seen) = pair.next_ids(P);
        let request = pair.forge(C, false, 0, &[values(seen + 4, next).payload()]);
        let answer = pair.give(P, &request);
        assert_eq!(pair.give(P, &request), answer);
        let newer = pair.forge(C, false, seen + 4, &[]);
        assert_eq!(pair.give(P, &newer).len(), 1);
        assert_eq!(pair.give(P, &request), Vec::<Vec<u8>>::new());
    }
}

/// The examples of appendix A.2 and A.3 declare less than the peer has seen; R18 is normative.
#[test]
fn rfc6311_h2_the_examples_of_appendix_a_do_not_outweigh_r18() {
    for mut pair in Pair::in_both_roles(1) {
        let (next, seen) = pair.next_ids(P);
        let ike = pair.engines[P].sas.values_mut().next().unwrap();
        ike.window.expected = MessageId(5);
        ike.window.next_request = MessageId(4);
        assert!(seen < 5 && next < 5);
        assert_eq!(pair.ask(values(2, 3), &[]), None, "A.2");
        let answer = agree(values(2, 3), MessageId(4), MessageId(5));
        assert_eq!((answer.send.0, answer.receive.0), (4, 5), "its arithmetic");
    }
}

#[test]
fn rfc6311_h3_a_leap_that_breaks_the_high_half_is_refused() {
    for mut pair in Pair::in_both_roles(1) {
        for (delta, told) in [
            (MAX_REPLAY_DELTA + 1, 0),
            (u64::MAX, 0),
            (MAX_REPLAY_DELTA, 1),
        ] {
            let (next, seen) = pair.next_ids(P);
            let delta = replay(&delta.to_be_bytes());
            assert!(pair.ask(values(seen + 1, next), &[delta]).is_some());
            assert_eq!(pair.deltas(P).len(), told);
        }
    }
}

#[test]
fn rfc6311_h4_an_ordinary_request_with_message_id_0_is_told_by_its_content() {
    for mut pair in Pair::in_both_roles(1) {
        let ike = pair.ike(C).local_spi;
        let said = pair.input(C, Input::RekeyIke(ike));
        for datagram in said {
            for answer in pair.give(P, &datagram) {
                for delete in pair.give(C, &answer) {
                    for answer in pair.give(P, &delete) {
                        pair.give(C, &answer);
                    }
                }
            }
        }
        assert_eq!(pair.next_ids(P), (0, 0));
        let liveness = pair.forge(C, false, 0, &[]);
        assert_eq!(pair.give(P, &liveness).len(), 1);
        assert_eq!(pair.next_ids(P), (0, 1));
        let answer = pair.ask(values(1, 0), &[]).expect("a synchronisation");
        assert_eq!((answer.send.0, answer.receive.0), (0, 1));
    }
}

/// What IKE_AUTH says counts whatever becomes of the child. The rounds of a login: `initial/` and
/// `tests/ike_pair/eap.rs`.
#[test]
fn rfc6311_h6_the_capabilities_do_not_depend_on_the_child_sa() {
    let mut pair = Pair::new(1);
    let proposals = vec!["aes256gcm16-ecp384".parse().unwrap()];
    let mut peer = pair.engines[P].settings.clone();
    peer.connections[0].children[0].esp_proposals = proposals;
    let mut initiator = pair.engines[C].settings.clone();
    initiator.connections[0].children[0].esp_proposals = vec!["aes128gcm16".parse().unwrap()];
    pair.engines = [Engine::new(initiator), Engine::new(peer)];
    for host in [P, C] {
        let engine = &mut pair.engines[host];
        engine.lead(pair.now, &mut pair.entropy, &mut |_| Resume::Exact);
    }
    pair.settle(C);
    for host in [C, P] {
        let ike = pair.ike(host);
        assert!(ike.children.is_empty());
        assert!(ike.message_id_sync && ike.replay_counter_sync);
    }
}

#[test]
fn rfc6311_h7_a_synchronisation_is_no_ordinary_exchange() {
    let mut pair = Pair::new(1);
    let (_, seen) = pair.next_ids(P);
    let liveness = pair.forge(C, false, seen, &[]);
    let kept = pair.give(P, &liveness);
    let (next, seen) = pair.next_ids(P);
    let answer = pair.ask(values(seen, next), &[]).unwrap();
    assert_eq!(
        (answer.send.0, answer.receive.0),
        (next, seen),
        "nothing is counted"
    );
    // Nor is its answer the one to the request before.
    assert_eq!(pair.give(P, &liveness), kept);
    let next_one = pair.forge(C, false, seen, &[]);
    assert_eq!(pair.give(P, &next_one).len(), 1);
}
