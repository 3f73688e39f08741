//! What a leap that a cluster asks for (RFC 6311 section 5.2) does to the numbers of its peer, when it is
//! as far as the RFC's own example, and as far as one may be.

use std::collections::BTreeMap;

use hitless::gateway::Event;
use hitless::ike::takeover::MAX_REPLAY_DELTA;
use hitless::ike::{self, Input};
use hitless::lab::Topology;

use crate::world::{PEER, World};

const IKE_AUTH: u8 = 35;

/// The active asks its peer for a leap, as after a takeover.
fn ask_for(world: &mut World, delta: u64) {
    let active = world.leader().unwrap();
    let ike = world.gateway(active).ike_sas()[0].0;
    world.ask(active, |gateway, now, entropy| {
        gateway.ike(now, entropy, Input::ReplayCounterSync { ike, delta });
    });
    world.until("the leap", |world| {
        world.happened(PEER, |event| {
            let asked =
                |e: &ike::Event| matches!(e, ike::Event::ReplayCounterSync { delta: d, .. } if *d == delta);
            matches!(event, Event::Ike(event) if asked(event))
        })
    });
}

/// The numbers that the peer sent since the capture was so long, by SPI.
fn sent_by_peer(world: &World, since: usize) -> BTreeMap<u32, Vec<u64>> {
    let mut numbers: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for esp in world.esp().into_iter().skip(since) {
        if esp.port == usize::from(PEER) {
            numbers.entry(esp.spi).or_default().push(esp.number);
        }
    }
    numbers
}

/// Whether a Child SA was replaced since the log was so long.
fn rekeyed(world: &World, since: usize) -> bool {
    let rekeyed = |event: &Event| matches!(event, Event::Ike(ike::Event::ChildRekeyed { .. }));
    world.since(since).any(|(_, event)| rekeyed(event))
}

/// 32-bit numbers: what is left of them after the leap is not used up. The SA is replaced at once, and
/// no number cycles (RFC 4303 section 3.3.3).
#[test]
fn rfc6311_h3_a_leap_over_nearly_all_32_bit_numbers_makes_the_peer_rekey_at_once() {
    for delta in [1 << 31, MAX_REPLAY_DELTA] {
        let mut topology = Topology::new(2, "open sesame".to_owned());
        topology.esp_proposal = "aes128gcm16-x25519";
        let mut world = World::of(500, &topology);
        world.come_up();
        let (log, capture, began) = (world.events.len(), world.esp().len(), world.now);
        ask_for(&mut world, delta);
        world.until("new keys", |world| rekeyed(world, log));
        world.traffic_flows();
        let numbers = sent_by_peer(&world, capture);
        assert_eq!(numbers.len(), 2, "the SA and its successor: {delta}");
        for of_one in numbers.values() {
            assert!(of_one.is_sorted() && of_one.iter().all(|n| *n <= u64::from(u32::MAX)));
        }
        let last = numbers.values().filter(|of_one| of_one[0] < 100).count();
        assert_eq!(last, 1, "the successor begins anew");
        assert!(!world.exchanges_since(began).contains(&IKE_AUTH));
        world.audit();
    }
}

/// With extended numbers the same leaps cost nothing: the cluster infers the high half of what comes,
/// and the SA goes on.
#[test]
fn rfc6311_r29_h3_a_leap_of_extended_numbers_keeps_the_sa() {
    for delta in [1 << 30, MAX_REPLAY_DELTA] {
        let mut world = World::with_traffic(501);
        let (log, capture) = (world.events.len(), world.esp().len());
        ask_for(&mut world, delta);
        world.traffic_flows();
        assert!(!rekeyed(&world, log));
        let numbers = sent_by_peer(&world, capture);
        assert_eq!(numbers.len(), 1);
        let leaps = numbers.values().all(|of_one| of_one.last() > Some(&delta));
        assert!(leaps, "{delta}");
        world.audit();
    }
}
