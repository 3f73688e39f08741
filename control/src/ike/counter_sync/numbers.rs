//! The Message IDs that a synchronisation leaves behind, up to the last of them; and what the windows
//! had in them.

use std::time::Duration;

use super::rules::values;
use super::*;
use crate::ike::last_ids::{CLOSE_FROM, REKEY_FROM};
use crate::ike::message::{Delete, Header};
use crate::ike::pair::{C, P, Pair};
use crate::ike::settings::WindowSize;
use crate::ike::{Input, Resume};

/// Time passes, and both talk.
fn pass(pair: &mut Pair, seconds: u32) {
    for _ in 0..seconds {
        pair.now += Duration::from_secs(1);
        for host in [C, P] {
            let said = pair.input(host, Input::Timeout);
            for datagram in said {
                for answer in pair.give(1 - host, &datagram) {
                    pair.exchange(host, &answer);
                }
            }
        }
    }
}

/// An IKE SA with which nothing happens by itself.
fn quiet() -> Pair {
    Pair::with(1, |host, settings| {
        let connection = &mut settings.connections[0];
        (connection.dpd_delay, connection.rekey_time) = (Duration::ZERO, Duration::ZERO);
        connection.children[0].rekey_time = Duration::ZERO;
        connection.children[0].start = host == C;
    })
}

impl Pair {
    /// Both have come so far: `host` with requests, the other with answers.
    fn come_to(&mut self, host: usize, id: MessageId) {
        for end in [C, P] {
            let ike = self.engines[end].sas.values_mut().next().expect("one");
            match end == host {
                true => ike.window.next_request = id,
                false => {
                    ike.window.synchronise(ike.window.next_request, id);
                }
            }
        }
        let ike = self.ike(host).local_spi;
        for request in self.input(host, Input::Liveness(ike)) {
            self.exchange(1 - host, &request);
        }
    }

    fn rekeyed(&self, host: usize) -> usize {
        let rekeyed = |e: &&Event| matches!(e, Event::IkeRekeyed { .. });
        self.events[host].iter().filter(rekeyed).count()
    }
}

/// "In the unlikely event that Message IDs grow too large to fit in 32 bits, the IKE SA MUST be closed
/// or rekeyed." A peer that says that it is nearly there takes us there.
#[test]
fn rfc7296_section_2_2_message_ids_never_wrap_whatever_a_synchronisation_says() {
    let last = CLOSE_FROM.0 - 1;
    for end in [u32::MAX, CLOSE_FROM.0] {
        let mut pair = Pair::new(1);
        let (next, seen) = pair.next_ids(P);
        for wrong in [values(end, next), values(seen, end), values(end, end)] {
            assert_eq!(pair.ask(wrong, &[]), None, "{wrong:?}");
            assert_eq!(pair.next_ids(P), (next, seen));
        }
    }
    // What may be declared is answered, and the IKE SA is rekeyed soon, whoever is that far.
    for (send, receive) in [(0, last), (last, 0), (last, last), (REKEY_FROM.0, 0)] {
        let mut pair = quiet();
        let (next, seen) = pair.next_ids(P);
        let answer = pair.ask(values(send.max(seen), receive.max(next)), &[]);
        let answer = answer.expect("it may be so");
        assert_eq!(pair.next_ids(P), (answer.send.0, answer.receive.0));
        let mut exchanges = Vec::new();
        for _ in 0..600 {
            pair.now += Duration::from_secs(1);
            let said = pair.input(P, Input::Timeout);
            exchanges.extend(said.iter().map(|d| Header::parse(d).unwrap()));
            if !exchanges.is_empty() {
                break;
            }
        }
        let first = exchanges.first().expect("something is asked");
        assert_eq!(first.exchange, Exchange::CreateChildSa);
        assert_eq!(first.message_id, answer.send);
        assert!(pair.ike(P).is_rekeying(), "{send} {receive}");
    }
}

#[test]
fn rfc7296_section_2_2_what_a_peer_answers_to_a_synchronisation_cannot_use_them_up() {
    let mut pair = Pair::new(1);
    pair.take_over(Resume::MessageIdSync { replay_delta: None });
    let before = pair.next_ids(C);
    let asked = pair.ike(C).sync.clone().unwrap().values;
    for (send, receive) in [(asked.receive.0, u32::MAX), (u32::MAX, asked.send.0)] {
        let answer = MessageIdSync {
            send: MessageId(send),
            receive: MessageId(receive),
            ..asked
        };
        let answer = pair.forge(P, true, 0, &[answer.payload()]);
        pair.give(C, &answer);
        assert!(pair.ike(C).sync.is_some());
        assert_eq!(pair.next_ids(C), before);
    }
}

#[test]
fn rfc7296_section_2_2_an_ike_sa_that_has_used_half_of_them_is_rekeyed_after_a_failover_too() {
    for host in [C, P] {
        let mut pair = quiet();
        let old = pair.ike(host).local_spi;
        pair.come_to(host, MessageId(REKEY_FROM.0 - 3));
        assert_eq!(pair.rekeyed(host), 0);
        pair.come_to(host, REKEY_FROM);
        // Another member finds it so.
        if host == C {
            pair.take_over(Resume::Exact);
        }
        pass(&mut pair, 300);
        assert_eq!([pair.rekeyed(C), pair.rekeyed(P)], [1, 1], "once");
        for end in [C, P] {
            assert_eq!(pair.engines[end].sas.len(), 1);
            assert_eq!(pair.ike(end).children.len(), 1);
            let (next, expected) = pair.next_ids(end);
            assert!(next.max(expected) < 100, "they begin anew");
        }
        assert_ne!(pair.ike(host).local_spi, old);
    }
}

#[test]
fn rfc7296_section_2_2_an_ike_sa_near_the_end_of_them_is_closed_and_begun_anew() {
    for host in [C, P] {
        let mut pair = quiet();
        let old = pair.ike(host).local_spi;
        pair.come_to(host, CLOSE_FROM);
        pass(&mut pair, 300);
        assert_eq!([pair.rekeyed(C), pair.rekeyed(P)], [0, 0]);
        for end in [C, P] {
            assert_eq!(pair.engines[end].sas.len(), 1, "{host}");
            assert_ne!(pair.ike(end).local_spi, old);
            assert_eq!(pair.ike(end).children.len(), 1);
        }
    }
}

#[test]
fn rfc7296_section_2_2_nothing_is_asked_or_answered_under_the_last_one() {
    for own in [1, 5] {
        let mut pair = Pair::new(1);
        for end in [C, P] {
            let ike = pair.engines[end].sas.values_mut().next().unwrap();
            ike.window.own = own;
            ike.window.synchronise(MessageId::END, MessageId::END);
        }
        let before = pair.next_ids(P);
        for id in [u32::MAX, 0, 1] {
            let request = pair.forge(C, false, id, &[]);
            assert_eq!(pair.give(P, &request), Vec::<Vec<u8>>::new(), "{id}");
            assert_eq!(pair.next_ids(P), before);
        }
        let ike = pair.ike(P).local_spi;
        assert_eq!(pair.input(P, Input::Liveness(ike)), Vec::<Vec<u8>>::new());
        assert!(
            pair.engines[P].sas.is_empty(),
            "there is nothing left to say"
        );
    }
}

/// Windows of five at both ends; the peer's requests begin at 3 now, and so do the cluster's.
fn wide(first: usize) -> Pair {
    let mut pair = Pair::begun_by(first, 1, |_, settings| {
        settings.connections[0].roads.window_size = WindowSize::new(5).unwrap();
    });
    for host in [C, P] {
        let ike = pair.ike(host).local_spi;
        while pair.next_ids(host).0 < 3 {
            for request in pair.input(host, Input::Liveness(ike)) {
                pair.exchange(1 - host, &request);
            }
        }
    }
    assert_eq!([pair.next_ids(C), pair.next_ids(P)], [(3, 3), (3, 3)]);
    pair
}

/// What the peer answers to (M1, P1), as it stands in the response.
fn octets(pair: &mut Pair, send: u32, receive: u32) -> [u32; 2] {
    let asked = values(send, receive);
    let request = pair.forge(C, false, 0, &[asked.payload()]);
    let answer = pair.give(P, &request).remove(0);
    let (_, payloads) = pair.read(C, &answer);
    let [Payload::Notify(notify)] = payloads.as_slice() else {
        panic!("{payloads:?}")
    };
    assert_eq!((notify.kind.0, notify.data.len()), (16422, 12));
    let (nonce, ids) = notify.data.split_at(4);
    assert_eq!(nonce, asked.nonce);
    let id = |octets: &[u8]| u32::from_be_bytes(octets.try_into().unwrap());
    [id(&ids[..4]), id(&ids[4..])]
}

/// Section 9: "if the window size is 5, the window is 3-7, and it has sent requests 3, 4, 5, 6, and 7
/// and received responses only for 4, 5, 6, and 7", it reports 8; "and got requests 4, 5, 6, and 7 but
/// not yet received request 3", 8 too.
#[test]
fn rfc6311_r42_r43_the_answer_reports_eight_and_eight() {
    for first in [C, P] {
        let mut pair = wide(first);
        let ike = pair.ike(P).local_spi;
        for id in 3..8 {
            let said = pair.input(P, Input::Liveness(ike));
            assert_eq!(Header::parse(&said[0]).unwrap().message_id, MessageId(id));
        }
        for id in 4..8 {
            let answer = pair.forge(C, true, id, &[]);
            pair.give(P, &answer);
            let request = pair.forge(C, false, id, &[]);
            assert_eq!(pair.give(P, &request).len(), 1);
        }
        let window = &pair.ike(P).window;
        assert_eq!(
            window.outstanding.keys().collect::<Vec<_>>(),
            [&MessageId(3)]
        );
        assert_eq!(window.gaps.iter().collect::<Vec<_>>(), [&MessageId(3)]);
        assert_eq!(octets(&mut pair, 8, 3), [8, 8], "R42, R43");
        // Neither the one nor the other is waited for any more.
        let late = pair.forge(C, true, 3, &[]);
        pair.give(P, &late);
        let late = pair.forge(C, false, 3, &[]);
        assert_eq!(pair.give(P, &late), Vec::<Vec<u8>>::new());
        assert_eq!(pair.next_ids(P), (8, 8));
    }
}

/// "No tasks active: P2 uses next; task active: next + 1": the one that is active has had its number.
#[test]
fn rfc6311_h7_with_a_task_active_it_is_the_next_one() {
    for (first, active) in [(C, 0), (C, 1), (C, 3), (P, 0), (P, 1), (P, 3)] {
        let mut pair = wide(first);
        let ike = pair.ike(P).local_spi;
        let child = pair.ike(P).children[0].sa.id;
        for task in 0..active {
            let input = match task {
                0 => Input::RekeyChild(child),
                _ => Input::Liveness(ike),
            };
            assert_eq!(pair.input(P, input).len(), 1);
        }
        let request = pair.forge(C, false, 0, &[values(4, 0).payload()]);
        let said = pair.give(P, &request);
        let (_, payloads) = pair.read(C, &said[0]);
        let [Payload::Notify(notify)] = payloads.as_slice() else {
            panic!("{payloads:?}")
        };
        let answer = MessageIdSync::parse(notify).unwrap();
        assert_eq!((answer.send.0, answer.receive.0), (3 + active, 4));
        // What has to be asked is asked anew, under that.
        let again = said[1..].iter().map(|d| Header::parse(d).unwrap());
        let again: Vec<_> = again.map(|h| (h.exchange, h.message_id.0)).collect();
        let rekeying = (Exchange::CreateChildSa, 3 + active);
        assert_eq!(again, vec![rekeying; usize::from(active > 0)]);
    }
}

/// Section 8.1: "drop all received IKE messages whose Message ID is outside the declared window", by the
/// peer that has answered, whatever they are.
#[test]
fn rfc6311_r38_the_peer_drops_what_is_below_what_it_has_declared() {
    for mut pair in Pair::in_both_roles(1) {
        let (next, seen) = pair.next_ids(P);
        let ike = pair.ike(P).local_spi;
        pair.input(P, Input::Liveness(ike));
        let answer = pair.ask(values(seen + 20, next + 10), &[]).unwrap();
        let before = (pair.next_ids(P), pair.ike(P).children.len());
        let told = pair.events[P].len();
        let inbound = pair.ike(C).children[0].sa.inbound_spi;
        let shapes = [
            (Exchange::Informational, vec![]),
            (
                Exchange::Informational,
                vec![Payload::Delete(Delete::Esp(vec![inbound]))],
            ),
            (Exchange::Informational, vec![Payload::Delete(Delete::Ike)]),
            (Exchange::CreateChildSa, vec![Payload::Nonce(vec![7; 32])]),
            (Exchange::IkeFollowupKe, vec![]),
        ];
        for (exchange, payloads) in &shapes {
            for id in 0..answer.receive.0 {
                let header = pair.ike(C).header(*exchange, false, MessageId(id));
                let request = pair.forge_as(C, &header, payloads);
                let said = pair.give(P, &request);
                assert_eq!(said, Vec::<Vec<u8>>::new(), "{id} {exchange:?}");
            }
            // Nor is there an answer to anything that was asked before.
            for id in 0..answer.send.0 {
                let header = pair.ike(C).header(*exchange, true, MessageId(id));
                let response = pair.forge_as(C, &header, payloads);
                assert_eq!(pair.give(P, &response), Vec::<Vec<u8>>::new());
            }
        }
        assert_eq!((pair.next_ids(P), pair.ike(P).children.len()), before);
        let after = &pair.events[P][told..];
        let dropped = |e: &Event| matches!(e, Event::Dropped { .. });
        assert!(after.iter().all(dropped), "{after:?}");
        // What it has declared it takes.
        let request = pair.forge(C, false, answer.receive.0, &[]);
        assert_eq!(pair.give(P, &request).len(), 1);
    }
}
