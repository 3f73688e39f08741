//! Requests that others have overtaken, which a window of several lets happen (RFC 4555 sections 3.5
//! and 3.6).

use std::net::{IpAddr, SocketAddr};

use hitless_sa::MessageId;

use super::{Newest, is_host};
use crate::ike::message::{NotifyKind, Payload};
use crate::ike::pair::{C, P, Pair};
use crate::ike::settings::{Mobike, WindowSize};
use crate::ike::{Input, Resume};

fn address(text: &str) -> IpAddr {
    let address = text.parse().unwrap();
    assert!(is_host(address));
    address
}

/// C began it; both take updates, and several requests at once.
fn wide() -> Pair {
    Pair::with(1, |_, settings| {
        let connection = &mut settings.connections[0];
        connection.encap = false;
        connection.roads.mobike = Mobike::Offer;
        connection.roads.window_size = WindowSize::new(8).unwrap();
    })
}

fn update() -> Payload {
    Payload::notify(NotifyKind::UPDATE_SA_ADDRESSES, &[])
}

fn other(octets: [u8; 4]) -> Payload {
    Payload::notify(NotifyKind::ADDITIONAL_IP4_ADDRESS, &octets)
}

/// What a host answers to a request of the other one from some address; `id` counts from its next.
fn hears(pair: &mut Pair, to: usize, from: &str, id: u32, payloads: &[Payload]) -> Vec<NotifyKind> {
    let request = pair.forge(1 - to, false, id, payloads);
    let local = pair.ike(to).path.local;
    let input = Input::Datagram {
        local,
        remote: SocketAddr::new(address(from), 4500),
        payload: &request,
    };
    let said = pair.input(to, input);
    let answers = said.iter().map(|datagram| pair.read(1 - to, datagram));
    let (_, answer) = answers
        .into_iter()
        .find(|(header, _)| header.response)
        .expect("an answer");
    let kind = |payload: &Payload| match payload {
        Payload::Notify(notify) => Some(notify.kind),
        _ => None,
    };
    answer.iter().filter_map(kind).collect()
}

/// Where a host has its peer, or would have it.
fn place(pair: &Pair, host: usize) -> IpAddr {
    let ike = pair.ike(host);
    let provisional = ike.mobike.as_ref().and_then(|mobike| mobike.provisional);
    provisional.map_or(ike.path, |(path, _)| path).remote.ip()
}

fn others(pair: &Pair, host: usize) -> Vec<IpAddr> {
    pair.ike(host)
        .mobike
        .as_ref()
        .expect("MOBIKE")
        .others
        .clone()
}

const OLD: &str = "198.51.100.7";
const NEW: &str = "198.51.100.8";

#[test]
fn rfc4555_section_3_5_an_update_that_was_overtaken_is_answered_and_moves_nothing() {
    for host in [C, P] {
        for taken_over in [false, true] {
            let mut pair = wide();
            let next = pair.next_ids(host).1;
            let cookie = Payload::notify(NotifyKind::COOKIE2, &[7; 8]);
            // A request that says nothing of addresses does not count.
            assert_eq!(hears(&mut pair, host, NEW, next + 4, &[]), []);
            assert_eq!(hears(&mut pair, host, NEW, next + 2, &[update()]), []);
            assert_eq!(place(&pair, host), address(NEW));
            if taken_over {
                pair.take_over_at(host, Resume::Exact);
            }
            let answer = hears(&mut pair, host, OLD, next, &[update(), cookie]);
            assert_eq!(answer, [NotifyKind::COOKIE2]);
            assert_eq!(place(&pair, host), address(NEW), "{host} {taken_over}");
            // One that is newer does.
            assert_eq!(hears(&mut pair, host, OLD, next + 3, &[update()]), []);
            assert_eq!(place(&pair, host), address(OLD));
        }
    }
}

#[test]
fn rfc4555_section_3_6_other_addresses_are_those_that_were_named_last() {
    let [first, second] = [[192, 0, 2, 77], [192, 0, 2, 78]];
    for host in [C, P] {
        for taken_over in [false, true] {
            let mut pair = wide();
            let home = pair.ike(host).path.remote.ip().to_string();
            let next = pair.next_ids(host).1;
            hears(&mut pair, host, &home, next + 2, &[other(second)]);
            if taken_over {
                pair.take_over_at(host, Resume::Exact);
            }
            // An update that was overtaken by that alone moves all the same.
            hears(&mut pair, host, NEW, next + 1, &[update(), other(first)]);
            assert_eq!(others(&pair, host), [IpAddr::from(second)]);
            assert_eq!(place(&pair, host), address(NEW));
            hears(&mut pair, host, &home, next, &[other(first)]);
            assert_eq!(others(&pair, host), [IpAddr::from(second)]);
            hears(&mut pair, host, &home, next + 3, &[other(first)]);
            assert_eq!(others(&pair, host), [IpAddr::from(first)]);
        }
    }
}

/// Its Message IDs begin anew (RFC 7296 section 2.2).
#[test]
fn a_successor_hears_of_addresses_from_its_first_request_on() {
    for host in [C, P] {
        let mut pair = wide();
        for ike in pair.engines[host].sas.values_mut() {
            ike.mobike.as_mut().expect("MOBIKE").newest = Newest {
                update: Some(MessageId(5)),
                others: Some(MessageId(5)),
            };
        }
        let old = pair.ike(host).local_spi;
        for datagram in pair.input(host, Input::RekeyIke(old)) {
            pair.exchange(1 - host, &datagram);
        }
        assert_eq!(pair.engines[host].sas.len(), 1);
        assert_ne!(pair.ike(host).local_spi, old);
        let next = pair.next_ids(host).1;
        let said = [update(), other([192, 0, 2, 78])];
        hears(&mut pair, host, NEW, next, &said);
        assert_eq!(place(&pair, host), address(NEW));
        assert_eq!(others(&pair, host), [address("192.0.2.78")]);
    }
}
