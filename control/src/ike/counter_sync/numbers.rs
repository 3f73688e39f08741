//! The Message IDs that a synchronisation leaves behind, up to the last of them.

use std::time::Duration;

use super::rules::values;
use super::*;
use crate::ike::last_ids::{CLOSE_FROM, REKEY_FROM};
use crate::ike::message::Header;
use crate::ike::pair::{C, P, Pair};
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
    /// One end hears this; both go on until they have nothing to say.
    fn exchange(&mut self, host: usize, datagram: &[u8]) {
        for answer in self.give(host, datagram) {
            self.exchange(1 - host, &answer);
        }
    }

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
