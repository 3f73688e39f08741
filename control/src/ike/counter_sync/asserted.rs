//! Which of both capabilities there are on an IKE SA: what IKE_AUTH says, and what becomes of it.

use super::rules::replay;
use super::*;
use crate::ike::export::tests::settings;
use crate::ike::message::Header;
use crate::ike::pair::{C, P, Pair};
use crate::ike::{Engine, Input, Resume};

/// The two capabilities among payloads.
fn asserted(payloads: &[Payload]) -> [bool; 2] {
    [16420, 16421].map(|kind| payloads.contains(&Payload::notify(NotifyKind(kind), &[])))
}

/// R5 and R6 as they stand in the messages: "the responder MUST NOT assert a capability that the
/// initiator did not", and what only one of them has there is not.
#[test]
fn rfc6311_r5_ike_auth_says_of_each_capability_what_both_have() {
    for pattern in 0u8..16 {
        let bit = |n: u8| pattern & (1 << n) != 0;
        let withheld = [[bit(0), bit(1)], [bit(2), bit(3)]];
        for first in [C, P] {
            let mut pair = Pair::new(1);
            pair.engines = [C, P].map(|host| {
                let mut settings = settings(host);
                let connection = &mut settings.connections[0];
                connection.children[0].start = host == first;
                let [message_ids, replay_counters] = withheld[host];
                connection.roads.withheld.message_id_sync = message_ids;
                connection.roads.withheld.replay_counter_sync = replay_counters;
                Engine::new(settings)
            });
            for host in [1 - first, first] {
                let engine = &mut pair.engines[host];
                engine.lead(pair.now, &mut pair.entropy, &mut |_| Resume::Exact);
            }
            let mut said = vec![pair.outputs(first).remove(0)];
            for host in [1 - first, first, 1 - first, first] {
                let last = said.last().unwrap().clone();
                said.extend(pair.give(host, &last).into_iter().next());
            }
            let [_, _, request, response] = said.as_slice() else {
                panic!("two exchanges, {}", said.len())
            };
            let of = |host: usize, datagram: &[u8]| {
                let header = Header::parse(datagram).unwrap();
                assert_eq!(header.exchange, Exchange::IkeAuth);
                asserted(&pair.read(host, datagram).1)
            };
            let ours = withheld[first].map(|withheld| !withheld);
            let theirs = withheld[1 - first].map(|withheld| !withheld);
            let both = [ours[0] && theirs[0], ours[1] && theirs[1]];
            assert_eq!(of(1 - first, request), ours, "{withheld:?}");
            assert_eq!(of(first, response), both, "{withheld:?}");
            for host in [C, P] {
                let ike = pair.ike(host);
                assert_eq!([ike.message_id_sync, ike.replay_counter_sync], both);
            }
        }
    }
}

/// R31: "this mechanism ... can be used only if all IPsec SAs under that IKE SA use ESN, or none". The
/// file that IKE_AUTH went by may be another one by now.
#[test]
fn rfc6311_r31_a_child_without_esn_beside_one_with_it_ends_the_synchronisation_of_replay_counters()
{
    let mut pair = Pair::new(1);
    assert!(pair.ike(C).synchronises_replay());
    for host in [P, C] {
        let mut settings = pair.engines[host].settings.clone();
        let children = &mut settings.connections[0].children;
        let mut other = children[0].clone();
        other.name = "short".to_owned();
        other.esp_proposals = vec!["aes128gcm16-x25519-noesn".parse().unwrap()];
        for selectors in [&mut other.local_ts, &mut other.remote_ts] {
            let text = selectors[0].to_string().replacen(".0.0", ".7.0", 1);
            selectors[0] = text.parse().unwrap();
        }
        children.push(other);
        let engine = &mut pair.engines[host];
        engine.reload(pair.now, &mut pair.entropy, settings);
    }
    pair.settle(C);
    let esn = |host: usize, pair: &Pair| -> Vec<bool> {
        let children = pair.ike(host).children.iter();
        children.map(|child| child.sa.esn).collect()
    };
    for host in [C, P] {
        assert_eq!(esn(host, &pair), [true, false]);
        let spi = pair.ike(host).local_spi;
        assert!(!pair.engines[host].facts(spi).unwrap().replay_counter_sync);
    }
    // As cluster we ask for no delta,
    let said = pair.take_over(Resume::MessageIdSync {
        replay_delta: Some(77),
    });
    assert_eq!(pair.read(P, &said[0]).1.len(), 1);
    let answer = pair.give(P, &said[0]).remove(0);
    pair.give(C, &answer);
    let ike = pair.ike(C).local_spi;
    let said = pair.input(C, Input::ReplayCounterSync { ike, delta: 5 });
    assert_eq!(said, Vec::<Vec<u8>>::new());
    // and as peer we follow none.
    let (_, seen) = pair.next_ids(P);
    let alone = pair.forge(C, false, seen, &[replay(&[0, 0, 0, 9])]);
    assert_eq!(pair.give(P, &alone).len(), 1);
    assert_eq!(pair.deltas(P), []);
    // Without the odd one it is as before, and the delta as long as for those that are left.
    for host in [C, P] {
        let child = pair.ike(host).children[0].sa.id;
        pair.engines[host]
            .sas
            .values_mut()
            .next()
            .unwrap()
            .children
            .retain(|c| c.sa.id != child);
    }
    let said = pair.input(C, Input::ReplayCounterSync { ike, delta: 5 });
    assert_eq!(pair.read(P, &said[0]).1, [replay(&[0, 0, 0, 5])]);
    let alone = pair.forge(C, false, seen + 1, &[replay(&[0, 0, 0, 5])]);
    pair.give(P, &alone);
    assert_eq!(pair.deltas(P), [(1, 5)]);
}

/// H4: after a rekeying 0 is the current Message ID, and a delta alone uses that (R11); otherwise it is
/// that of no request at all.
#[test]
fn rfc6311_h4_a_delta_alone_with_message_id_0_counts_only_where_that_is_the_current_one() {
    for mut pair in Pair::in_both_roles(1) {
        let delta = replay(&9u64.to_be_bytes());
        let stray = pair.forge(C, false, 0, std::slice::from_ref(&delta));
        let before = pair.next_ids(P);
        assert_eq!(pair.give(P, &stray), Vec::<Vec<u8>>::new());
        assert_eq!((pair.deltas(P), pair.next_ids(P)), (vec![], before));
        let ike = pair.ike(C).local_spi;
        for request in pair.input(C, Input::RekeyIke(ike)) {
            pair.exchange(P, &request);
        }
        assert_eq!(pair.next_ids(P), (0, 0), "a new one");
        let current = pair.forge(C, false, 0, std::slice::from_ref(&delta));
        let answer = pair.give(P, &current);
        assert_eq!(pair.read(C, &answer[0]).1, [], "R32");
        assert_eq!((pair.deltas(P), pair.next_ids(P)), (vec![(1, 9)], (0, 1)));
        // The same again is a repetition, another one is late.
        assert_eq!(pair.give(P, &current), answer);
        let late = pair.forge(C, false, 0, &[replay(&10u64.to_be_bytes())]);
        assert_eq!(pair.give(P, &late), Vec::<Vec<u8>>::new());
        assert_eq!(pair.deltas(P), [(1, 9)]);
    }
}
