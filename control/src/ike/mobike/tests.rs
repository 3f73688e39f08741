//! Whose addresses count towards a peer that takes updates from the initiator alone, as all but us do.

use std::net::{IpAddr, SocketAddr};

use crate::ike::message::{NotifyKind, Payload};
use crate::ike::pair::{C, P, Pair};
use crate::ike::settings::Mobike;
use crate::ike::{Event, Input, Resume};

const MOVED: [&str; 2] = ["198.51.100.1", "198.51.100.2"];

fn moved(host: usize) -> IpAddr {
    MOVED[host].parse().unwrap()
}

/// C began it, and this end rekeyed it.
fn rekeyed_by(host: usize) -> Pair {
    let mut pair = Pair::with(1, |host, settings| {
        let connection = &mut settings.connections[0];
        connection.encap = false;
        connection.local_addrs.push(moved(host));
        connection.remote_addrs.push(moved(1 - host));
        if host == C {
            connection.roads.mobike = Mobike::Offer;
        }
    });
    for engine in &mut pair.engines {
        for ike in engine.sas.values_mut() {
            ike.mobike.as_mut().unwrap().both_ways = false;
        }
    }
    let old = pair.ike(host).local_spi;
    say(&mut pair, host, Input::RekeyIke(old));
    for host in [C, P] {
        assert_eq!(pair.engines[host].sas.len(), 1);
    }
    assert_ne!(pair.ike(host).local_spi, old);
    assert_eq!(pair.ike(C).initiator, host == C);
    // The newest record is that of the one that is left.
    let liveness = Input::Liveness(pair.ike(C).local_spi);
    say(&mut pair, C, liveness);
    pair
}

fn say(pair: &mut Pair, host: usize, input: Input<'_>) {
    for datagram in pair.input(host, input) {
        pair.exchange(1 - host, &datagram);
    }
}

/// Hands on what an end says, with both where they are, until there is nothing left to say.
fn talk(pair: &mut Pair, from: usize, said: Vec<Vec<u8>>) {
    let places: [SocketAddr; 2] = [C, P].map(|host| pair.ike(host).path.local);
    for payload in said {
        let to = 1 - from;
        let input = Input::Datagram {
            local: places[to],
            remote: places[from],
            payload: &payload,
        };
        let answers = pair.input(to, input);
        talk(pair, to, answers);
    }
}

fn relocate(pair: &mut Pair, host: usize) -> Vec<Vec<u8>> {
    let (ike, local) = (pair.ike(host).local_spi, moved(host));
    pair.input(host, Input::Relocate { ike, local })
}

#[test]
fn rfc4555_section_1_3_who_began_the_first_ike_sa_moves_whoever_rekeyed_it() {
    for rekeying in [C, P] {
        for taken_over in [None, Some(C), Some(P)] {
            let mut pair = rekeyed_by(rekeying);
            if let Some(host) = taken_over {
                let said = pair.take_over_at(host, Resume::Exact);
                talk(&mut pair, host, said);
            }
            let said = relocate(&mut pair, C);
            talk(&mut pair, C, said);
            let (ours, theirs) = (pair.ike(C).path, pair.ike(P).path);
            assert_eq!(ours.local.ip(), moved(C));
            assert_eq!(theirs.remote.ip(), moved(C), "{rekeying} {taken_over:?}");
            assert_eq!(theirs.local, ours.remote);
            let refused = |e: &Event| matches!(e, Event::NegotiationFailed { .. });
            assert!(!pair.events[C].iter().any(refused));
        }
    }
}

#[test]
fn rfc4555_section_3_6_who_did_not_begin_only_names_its_addresses_whoever_rekeyed() {
    for rekeying in [C, P] {
        let mut pair = rekeyed_by(rekeying);
        let said = relocate(&mut pair, P);
        let updates =
            |payload: &Payload| *payload == Payload::notify(NotifyKind::UPDATE_SA_ADDRESSES, &[]);
        for datagram in &said {
            let (_, payloads) = pair.read(C, datagram);
            assert!(!payloads.iter().any(updates), "{rekeying}");
        }
        assert!(!said.is_empty());
        talk(&mut pair, P, said);
        let before = pair.engines[P].settings.connections[0].local_addrs[0];
        assert_eq!(pair.ike(C).path.remote.ip(), before, "not followed");
    }
}
