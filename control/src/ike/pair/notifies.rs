//! Notifications that one end sends seldom, and that the other has to heed.

use hitless_sa::{Mode, TfcPadding};

use super::{C, P, Pair};
use crate::ike::message::{Exchange, Header, Notify, NotifyKind, Payload, emit};
use crate::ike::settings::Mobike;
use crate::ike::{Event, Input, Resume};

fn update(more: &[Payload]) -> Vec<Payload> {
    let update = Payload::notify(NotifyKind::UPDATE_SA_ADDRESSES, &[]);
    [&[update], more].concat()
}

fn kinds(payloads: &[Payload]) -> Vec<NotifyKind> {
    let kind = |p: &Payload| match p {
        Payload::Notify(n) => Some(n.kind),
        _ => None,
    };
    payloads.iter().filter_map(kind).collect()
}

fn mobile() -> Pair {
    Pair::with(1, |_, settings| {
        settings.connections[0].roads.mobike = Mobike::Offer;
    })
}

/// What the peer answers to an update of addresses.
fn answer(pair: &mut Pair, from: usize, payloads: &[Payload]) -> Vec<NotifyKind> {
    let to = 1 - from;
    let id = pair.next_ids(to).1;
    let request = pair.forge(from, false, id, payloads);
    let answer = pair.give(to, &request).remove(0);
    kinds(&pair.read(from, &answer).1)
}

#[test]
fn rfc4555_section_3_9_no_nats_allowed_is_compared_with_where_the_message_came_from() {
    // Source and destination address, source and destination port.
    let right = [192, 0, 2, 1, 192, 0, 2, 2, 0x11, 0x94, 0x11, 0x94];
    let mut translated = right;
    translated[3] = 9;
    let mut port = right;
    port[9] = 0x95;
    let cases: [(&[u8], bool); 6] = [
        (&right, true),
        (&translated, false),
        (&port, false),
        (&right[..11], false),
        (&[], false),
        (&[0; 36], false),
    ];
    for (data, good) in cases {
        let mut pair = mobile();
        let sent = Payload::notify(NotifyKind::NO_NATS_ALLOWED, data);
        let answered = answer(&mut pair, C, &update(&[sent]));
        let refused = answered.contains(&NotifyKind::UNEXPECTED_NAT_DETECTED);
        assert_eq!(refused, !good, "{data:?}");
    }
}

#[test]
fn rfc4555_section_3_5_a_responder_that_may_not_update_is_told_unacceptable_addresses() {
    let mut pair = mobile();
    let ike = pair.engines[C].sas.values_mut().next().unwrap();
    ike.mobike.as_mut().unwrap().both_ways = false;
    let path = ike.path;
    let answered = answer(&mut pair, P, &update(&[]));
    assert!(answered.contains(&NotifyKind::UNACCEPTABLE_ADDRESSES));
    assert_eq!(pair.ike(C).path, path, "nothing moves");
}

/// The peer refuses where we are: we stay, say so, and the IKE SA lives.
#[test]
fn rfc4555_section_3_5_unacceptable_addresses_end_an_update() {
    let mut pair = mobile();
    let ike = pair.ike(C).local_spi;
    let local = "192.0.2.77".parse().unwrap();
    let id = pair.next_ids(C).0;
    let said = pair.input(C, Input::Relocate { ike, local });
    assert_eq!(said.len(), 1);
    let refusal = Payload::notify(NotifyKind::UNACCEPTABLE_ADDRESSES, &[]);
    let answer = pair.forge(P, true, id, &[refusal]);
    pair.give(C, &answer);
    let told = |e: &Event| matches!(e, Event::NegotiationFailed { reason, .. } if reason.contains("UNACCEPTABLE_ADDRESSES"));
    assert!(pair.events[C].iter().any(told));
    assert!(pair.ike(C).window.outstanding.is_empty());
}

#[test]
fn rfc7296_section_1_3_1_a_peer_without_tfc_padding_gets_none() {
    let padded = |pair: &Pair, host: usize| pair.ike(host).children[0].sa.options.padding;
    let mut pair = Pair::with(1, |_, settings| {
        settings.connections[0].children[0].options.padding = TfcPadding::ToMtu;
    });
    assert_eq!(padded(&pair, C), TfcPadding::ToMtu);
    // The peer answers a rekeying with ESP_TFC_PADDING_NOT_SUPPORTED.
    let old = pair.ike(C).children[0].sa.id;
    let request = pair.input(C, Input::RekeyChild(old)).remove(0);
    let answer = pair.give(P, &request).remove(0);
    let (header, mut payloads) = pair.read(C, &answer);
    let kind = NotifyKind::ESP_TFC_PADDING_NOT_SUPPORTED;
    payloads.push(Payload::notify(kind, &[]));
    let answer = pair.forge_as(P, &header, &payloads);
    pair.give(C, &answer);
    let new = pair
        .ike(C)
        .children
        .iter()
        .find(|c| c.sa.id != old)
        .unwrap();
    assert_eq!(new.sa.options.padding, TfcPadding::None);
    // And so it is on the member that takes over, and with the next configuration.
    pair.take_over(Resume::Exact);
    let new = pair
        .ike(C)
        .children
        .iter()
        .find(|c| c.sa.id != old)
        .unwrap();
    assert_eq!(new.sa.options.padding, TfcPadding::None);
}

/// The initiator of CREATE_CHILD_SA can say it too.
#[test]
fn rfc7296_section_1_3_1_tfc_padding_is_refused_by_a_request_too() {
    let mut pair = Pair::with(1, |_, settings| {
        settings.connections[0].children[0].options.padding = TfcPadding::To(1000);
    });
    let old = pair.ike(C).children[0].sa.id;
    let request = pair.input(C, Input::RekeyChild(old)).remove(0);
    let (header, mut payloads) = pair.read(P, &request);
    payloads.push(Payload::notify(
        NotifyKind::ESP_TFC_PADDING_NOT_SUPPORTED,
        &[],
    ));
    let request = pair.forge_as(C, &header, &payloads);
    pair.give(P, &request);
    let newest = pair.ike(P).children.last().unwrap();
    assert_eq!(newest.sa.options.padding, TfcPadding::None);
    assert_eq!(newest.sa.mode, Mode::Tunnel);
}

#[test]
fn rfc7296_section_2_9_single_pair_required_says_what_to_configure() {
    let mut pair = Pair::new(1);
    let sa = pair.ike(C).children[0].sa.id;
    let request = pair.input(C, Input::RekeyChild(sa)).remove(0);
    let header = Header::parse(&request).unwrap();
    let refusal = Payload::notify(NotifyKind::SINGLE_PAIR_REQUIRED, &[]);
    let answer = Header {
        response: true,
        initiator: !header.initiator,
        ..header
    };
    let answer = pair.forge_as(P, &answer, &[refusal]);
    pair.give(C, &answer);
    let told = |e: &Event| matches!(e, Event::NegotiationFailed { reason, .. } if reason.contains("one address in local_ts"));
    assert!(pair.events[C].iter().any(told), "{:?}", pair.events[C]);
    // The old one stays.
    assert_eq!(pair.ike(C).children[0].sa.id, sa);
}

#[test]
fn rfc7296_section_2_9_additional_ts_possible_is_told_to_whom_was_narrowed() {
    // The peer has two children; what it is asked for covers both.
    let mut pair = Pair::with(2, |host, settings| {
        if host == C {
            let children = &mut settings.connections[0].children;
            children.truncate(1);
            children[0].local_ts = vec!["10.1.0.0/16".parse().unwrap()];
            children[0].remote_ts = vec!["10.2.0.0/16".parse().unwrap()];
        }
    });
    assert_eq!(pair.ike(C).children.len(), 1);
    let sa = pair.ike(C).children[0].sa.id;
    let request = pair.input(C, Input::RekeyChild(sa)).remove(0);
    let answer = pair.give(P, &request).remove(0);
    let (_, payloads) = pair.read(C, &answer);
    assert!(kinds(&payloads).contains(&NotifyKind::ADDITIONAL_TS_POSSIBLE));
    // Where nothing was left out nothing is said.
    let mut pair = Pair::new(2);
    let sa = pair.ike(C).children[0].sa.id;
    let request = pair.input(C, Input::RekeyChild(sa)).remove(0);
    let answer = pair.give(P, &request).remove(0);
    let (_, payloads) = pair.read(C, &answer);
    assert!(!kinds(&payloads).contains(&NotifyKind::ADDITIONAL_TS_POSSIBLE));
}

/// So many SAs of one child as there are workers at the initiator, if both like.
#[test]
fn rfc9611_section_4_one_sa_for_each_worker_is_negotiated_and_fails_over() {
    for (ours, theirs, made) in [(4, 1, 4), (4, 0, 1), (0, 4, 1), (1, 1, 1)] {
        let mut pair = Pair::with(1, |host, settings| {
            let child = &mut settings.connections[0].children[0];
            child.per_cpu_sas = [ours, theirs][host];
        });
        let resources = |pair: &Pair, host: usize| -> Vec<Option<u16>> {
            let children = pair.ike(host).children.iter();
            children.map(|c| c.sa.options.resource).collect()
        };
        let grouped = ours > 0 && theirs > 0;
        let expected: Vec<Option<u16>> = (0..made).map(|n| grouped.then_some(n)).collect();
        for host in [C, P] {
            assert_eq!(resources(&pair, host), expected, "{ours} {theirs}");
        }
        let same = pair.ike(P).children.iter();
        assert!(
            same.clone()
                .all(|c| c.sa.local_ts == pair.ike(P).children[0].sa.local_ts)
        );
        for host in [C, P] {
            pair.take_over_at(host, Resume::Exact);
            let known = resources(&pair, host);
            assert_eq!(known, expected, "the successor knows which is which");
            // What takes the place of one is for the same worker.
            let last = pair.ike(host).children.last().unwrap().sa.id;
            for request in pair.input(host, Input::RekeyChild(last)) {
                pair.exchange(1 - host, &request);
            }
            for end in [C, P] {
                let newest = pair.ike(end).children.last().unwrap();
                assert_ne!(newest.sa.id, last);
                assert_eq!(newest.sa.options.resource, *expected.last().unwrap());
            }
        }
    }
}

/// Who asked for them asks again, however often the peer deletes them: once in a while.
#[test]
fn rfc9611_section_4_one_that_is_lost_is_made_again_after_a_pause() {
    for taken_over in [false, true] {
        let mut pair = Pair::with(1, |_, settings| {
            settings.connections[0].children[0].per_cpu_sas = 4;
        });
        let made = |pair: &Pair| [C, P].map(|host| pair.ike(host).children.len());
        let close = |pair: &mut Pair| {
            let lost = pair.ike(P).children[1].sa.id;
            for request in pair.input(P, Input::TerminateChild(lost)) {
                pair.exchange(C, &request);
            }
            made(pair)
        };
        let later = |pair: &mut Pair, seconds: u64| {
            pair.now += std::time::Duration::from_secs(seconds);
            for request in pair.input(C, Input::Timeout) {
                pair.exchange(P, &request);
            }
            made(pair)
        };
        assert_eq!(made(&pair), [4, 4]);
        assert_eq!(close(&mut pair), [3, 3]);
        if taken_over {
            pair.take_over(Resume::Exact);
            assert_eq!(later(&mut pair, 1), [4, 4], "whoever leads then asks");
            continue;
        }
        assert_eq!(later(&mut pair, 30), [3, 3]);
        assert_eq!(close(&mut pair), [2, 2]);
        assert_eq!(later(&mut pair, 31), [4, 4], "all that are missing by then");
        assert_eq!(close(&mut pair), [3, 3]);
        assert_eq!(later(&mut pair, 58), [3, 3], "and not soon again");
        assert_eq!(later(&mut pair, 3), [4, 4]);
        let resources = pair.ike(C).children.iter();
        let mut resources: Vec<_> = resources.map(|c| c.sa.options.resource).collect();
        resources.sort_unstable();
        assert_eq!(resources, [0, 1, 2, 3].map(Some), "for who had lost theirs");
    }
}

#[test]
fn rfc9611_section_5_a_peer_that_wants_too_many_meets_ts_max_queue() {
    let mut pair = Pair::with(1, |host, settings| {
        let child = &mut settings.connections[0].children[0];
        child.per_cpu_sas = [80, 2][host];
    });
    let most = crate::ike::resource::MOST;
    for host in [C, P] {
        assert_eq!(pair.ike(host).children.len(), most);
    }
    let told = |e: &Event| matches!(e, Event::NegotiationFailed { reason, .. } if reason.contains("TS_MAX_QUEUE"));
    assert_eq!(
        pair.events[C].iter().filter(|e| told(e)).count(),
        1,
        "asked once too often"
    );
    assert!(pair.outputs(C).is_empty());
}

#[test]
fn what_is_said_in_clear_after_the_initial_exchanges_is_ignored() {
    let mut pair = Pair::new(1);
    let header = pair
        .ike(C)
        .header(Exchange::Informational, false, hitless_sa::MessageId(2));
    let contact = Notify::new(NotifyKind::INITIAL_CONTACT, &[]);
    let clear = emit(&header, &[Payload::Notify(contact)]);
    assert_eq!(pair.give(P, &clear), Vec::<Vec<u8>>::new());
}

/// As strongSwan says it where it cannot in IKE_AUTH; only who sent IKE_AUTH can send it again.
#[test]
fn rfc4478_section_3_auth_lifetime_may_come_in_an_informational_exchange() {
    let told = |pair: &mut Pair, to: usize, data: &[u8]| {
        let notify = Payload::notify(NotifyKind::AUTH_LIFETIME, data);
        assert_eq!(answer(pair, 1 - to, &[notify]), []);
        let at = pair.ike(to).authenticated.reauth_at;
        at.map(|at| at.since(pair.now).as_secs())
    };
    for (asked, taken_over) in [(C, false), (C, true), (P, false), (P, true)] {
        let mut pair = Pair::begun_by(asked, 1, |_, settings| {
            let connection = &mut settings.connections[0];
            (connection.dpd_delay, connection.rekey_time) = Default::default();
            connection.children[0].rekey_time = Default::default();
        });
        let old = pair.ike(asked).local_spi;
        let seconds = |seconds: u32| seconds.to_be_bytes();
        for data in [&[] as &[u8], &[0; 3], &[0; 5]] {
            assert_eq!(told(&mut pair, asked, data), None);
        }
        let first = told(&mut pair, asked, &seconds(u32::MAX));
        assert!(first.is_some_and(|time| time > 1000));
        let sooner = told(&mut pair, asked, &seconds(1000));
        assert!(sooner.is_some_and(|time| (600..=900).contains(&time)));
        assert_eq!(told(&mut pair, asked, &seconds(5000)), sooner);
        if taken_over {
            pair.take_over_at(asked, Resume::Exact);
        }
        let at = pair.ike(asked).authenticated.reauth_at.expect("a time");
        assert_eq!(Some(at.since(pair.now).as_secs()), sooner);
        pair.now = at;
        for request in pair.input(asked, Input::Timeout) {
            pair.exchange(1 - asked, &request);
        }
        for host in [C, P] {
            assert_eq!(pair.engines[host].sas.len(), 1);
        }
        assert_ne!(pair.ike(asked).local_spi, old);
        assert_eq!(pair.ike(asked).authenticated.reauth_at, None);
        // Who answered says it, and is not told.
        assert_eq!(told(&mut pair, 1 - asked, &seconds(1000)), None);
    }
}
