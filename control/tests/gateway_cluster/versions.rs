//! Whole gateways of version N and N + 1 (the upgrade path): the newer one says more in every message
//! and every record, and the tunnel goes to and fro between them; then one of them dies.

use std::collections::BTreeMap;
use std::time::Duration;

use hitless::gateway::{Event, Tuning};
use hitless::ike;
use hitless::ike::Input;
use hitless::lab::Topology;
use hitless_sync::Event as SyncEvent;

use crate::world::{PEER, World};

const IKE_AUTH: u8 = 35;

fn with_newer(seed: u64, newer: &[u8]) -> World {
    let topology = Topology::new(2, "open sesame".to_owned());
    let members = (1..=2).map(|id| topology.member(id).unwrap());
    let mut tuning = Tuning::default();
    tuning.sync.next_version = true;
    let tunings: BTreeMap<u8, Tuning> = newer.iter().map(|who| (*who, tuning)).collect();
    let mut world = World::tuned(seed, members.collect(), topology.peer().unwrap(), tunings);
    world.come_up();
    world
}

/// Nothing of what the other says is taken for damage, nor means anything by itself.
fn understood(event: &Event) -> bool {
    let strange = matches!(
        event,
        Event::Unreadable { .. }
            | Event::Unusable { .. }
            | Event::Sync(
                SyncEvent::Malformed { .. }
                    | SyncEvent::UnexpectedLate { .. }
                    | SyncEvent::NoRight { .. }
            )
    );
    !strange
}

fn hand_over(world: &mut World) {
    let active = world.leader().unwrap();
    world.until("a standby that may lead", |world| {
        let now = world.now;
        world.gateway(active).can_switch_over(now).is_ok()
    });
    let from = world.events.len();
    world.ask(active, |gateway, now, entropy| {
        gateway.switchover(now, entropy);
    });
    world.until("a switchover", |world| world.leader() == Some(3 - active));
    let exact = world.since(from).any(|(_, event)| {
        matches!(
            event,
            Event::Leads {
                base: Some(_),
                exact: true,
                skip: None | Some(0),
                ..
            }
        )
    });
    assert!(exact, "{active} hands over all that it knows");
    world.until("a standby", World::standby_is_ready);
    world.traffic_flows();
}

#[test]
fn gateways_of_two_versions_hand_a_tunnel_to_and_fro_and_survive_the_death_of_either() {
    for (seed, newer, dies) in [
        (130, &[1][..], 1),
        (131, &[1], 2),
        (132, &[2], 1),
        (133, &[1, 2], 2),
    ] {
        let mut world = with_newer(seed, newer);
        let began = world.now;
        hand_over(&mut world);
        // A record of each kind of exchange is made by either.
        for ike in [false, true, false] {
            let from = world.events.len();
            let (spi, children) = world.gateway(PEER).ike_sas()[0].clone();
            let input = match ike {
                true => Input::RekeyIke(spi),
                false => Input::RekeyChild(children[0]),
            };
            world.ask(PEER, |gateway, now, entropy| {
                gateway.ike(now, entropy, input)
            });
            world.until("a rekeying", |world| {
                world.since(from).any(|(who, event)| {
                    let done = matches!(
                        event,
                        Event::Ike(ike::Event::ChildRekeyed { .. } | ike::Event::IkeRekeyed { .. })
                    );
                    who == PEER && done
                })
            });
            world.run(Duration::from_secs(1));
            hand_over(&mut world);
        }
        if world.leader() != Some(dies) {
            hand_over(&mut world);
        }
        let lost = (world.a.sent().len(), world.received()[1]);
        world.kill(dies);
        world.until("a takeover", |world| world.leader() == Some(3 - dies));
        world.traffic_flows();
        world.start(dies);
        world.until("a standby", World::standby_is_ready);
        hand_over(&mut world);
        assert!(world.a.sent().len() - lost.0 < world.received()[1] - lost.1 + 500);
        assert!(
            !world.exchanges_since(began).contains(&IKE_AUTH),
            "seed {seed}"
        );
        let strange: Vec<_> = world.since(0).filter(|(_, e)| !understood(e)).collect();
        assert!(strange.is_empty(), "seed {seed}: {strange:?}");
        world.audit();
    }
}

/// A standby whose file lacks a connection cannot take its SAs over. It says so and counts it, in
/// `hitless status` too, before it has to.
#[test]
fn a_standby_without_the_connection_says_that_it_cannot_take_it_over() {
    let topology = Topology::new(2, "open sesame".to_owned());
    let members = (1..=2).map(|id| {
        let mut config = topology.member(id).unwrap();
        config.connections[0].name = format!("of-{id}");
        config
    });
    let mut world = World::with(134, members.collect(), topology.peer().unwrap());
    world.until("a tunnel", |world| {
        world.tunnel_is_up() && world.leader().is_some()
    });
    world.run(Duration::from_secs(1));
    let standby = 3 - world.leader().unwrap();
    assert!(world.drops(standby, "record_unreadable") > 0);
    let named = |reason: &str| reason.contains("give all members the same configuration");
    let said = |event: &Event| matches!(event, Event::Unreadable { reason, .. } if named(reason));
    assert!(world.happened(standby, said));
}
