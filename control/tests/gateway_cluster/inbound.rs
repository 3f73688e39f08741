//! What a takeover makes of inbound numbers: `takeover_inbound` for each peer, and the delta that
//! RFC 6311 asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use hitless::config::Config;
use hitless::gateway::{Event, Tuning};
use hitless::ike;
use hitless::ike::settings::{TakeoverInbound, Withheld};
use hitless::lab::Topology;
use hitless_sa::Instant;

use crate::world::{PEER, World};

struct Outcome {
    /// Packets of the peer that came after the takeover and were refused as seen.
    refused: u64,
    /// From the takeover to the first packet of the peer that was delivered.
    silence: Duration,
    /// When new keys were made, if they were.
    rekeyed: Option<Duration>,
}

/// The active dies under traffic; its last checkpoint is old.
fn takeover(seed: u64, policy: TakeoverInbound) -> Outcome {
    let mut topology = Topology::new(2, "open sesame".to_owned());
    topology.checkpoint = (1_000_000, "10s");
    let members = (1..=2).map(|id| {
        let mut config = topology.member(id).unwrap();
        config.connections[0].inbound = policy;
        config
    });
    let mut world = World::with(seed, members.collect(), topology.peer().unwrap());
    world.come_up();
    world.run(Duration::from_secs(12));
    let active = world.leader().unwrap();
    let successor = 3 - active;
    world.kill(active);
    let from = world.events.len();
    world.until("a takeover", |world| world.leader() == Some(successor));
    let (led, before) = (world.now, world.b.received().len());
    world.until("a packet of the peer", |world| {
        world.b.received().len() > before
    });
    let silence = world.now.since(led);
    world.run(Duration::from_secs(1));
    world.traffic_flows();
    world.audit();
    let rekeyed = world.events[from..].iter().find(|(_, who, event)| {
        *who == PEER && matches!(event, Event::Ike(ike::Event::ChildRekeyed { .. }))
    });
    let rekeyed: Option<Instant> = rekeyed.map(|(at, ..)| *at);
    Outcome {
        refused: world.drops(successor, "replay"),
        silence,
        rekeyed: rekeyed.map(|at| at.since(led)),
    }
}

#[test]
fn rfc6027_section_3_5_strict_refuses_learn_accepts_and_rekey_replaces() {
    let strict = takeover(100, TakeoverInbound::Strict);
    let learn = takeover(100, TakeoverInbound::Learn);
    let rekey = takeover(100, TakeoverInbound::Rekey);
    assert!(strict.refused > 0 && strict.rekeyed.is_none());
    assert_eq!((learn.refused, learn.rekeyed), (0, None));
    assert!(learn.silence < strict.silence, "{:?}", learn.silence);
    let soon = Duration::from_millis(50);
    assert!(rekey.rekeyed.is_some_and(|after| after < soon));
}

/// A peer that can not be asked to skip numbers, and sends one packet a second: it would be refused for
/// as many seconds as the high water is ahead.
#[test]
fn d10_a_slow_sa_of_a_peer_without_rfc6311_is_replaced_after_a_strict_takeover() {
    let topology = Topology::new(2, "open sesame".to_owned());
    let members = (1..=2).map(|id| topology.member(id).unwrap());
    let tuning = Tuning {
        withheld: Withheld {
            message_id_sync: true,
            replay_counter_sync: true,
        },
        ..Tuning::default()
    };
    let tunings = BTreeMap::from([(PEER, tuning)]);
    let mut world = World::tuned(103, members.collect(), topology.peer().unwrap(), tunings);
    world.come_up();
    world.pace = Duration::from_secs(1);
    world.run(Duration::from_secs(20));
    let active = world.leader().unwrap();
    let successor = 3 - active;
    let old = world.list_sas(active)[0].children[0].spi_in.clone();
    world.kill(active);
    let (from, before) = (world.events.len(), world.received()[1]);
    world.until("a takeover", |world| world.leader() == Some(successor));
    world.run(Duration::from_secs(5));
    let synchronised =
        |event: &Event| matches!(event, Event::Ike(ike::Event::ReplayCounterSync { .. }));
    assert!(!world.since(from).any(|(_, event)| synchronised(event)));
    let children = &world.list_sas(successor)[0].children;
    assert_ne!(children[0].spi_in, old, "it was replaced");
    // The first packet shows that it is refused, the second takes the successor.
    let received = world.received()[1] - before;
    assert!(received >= 3, "{received} of 5");
    world.pace = Duration::from_millis(1);
    world.traffic_flows();
    world.audit();
}

#[test]
fn rfc6311_section_5_2_the_delta_that_cluster_status_shows_is_the_one_that_is_asked_for() {
    let mut topology = Topology::new(2, "open sesame".to_owned());
    topology.takeover = "message-id-sync";
    let mut world = World::of(101, &topology);
    world.come_up();
    let active = world.leader().unwrap();
    let successor = 3 - active;
    let now = world.now;
    let plan = world.gateway(active).switchover_plan(now).unwrap();
    assert!(plan.contains("replay counter delta 0"), "{plan}");
    let shown = world.gateway(active).cluster(now).classes[0].greatest_delta;
    world.kill(active);
    world.run(Duration::from_millis(2));
    let now = world.now;
    let copy = world.gateway(successor).cluster(now).classes[0].greatest_delta;
    assert!(copy > 0);
    assert!(
        shown >= copy,
        "{shown} of the active, {copy} of the standby"
    );
    world.until("a takeover", |world| world.leader() == Some(successor));
    let asked = |event: &Event| match event {
        Event::Ike(ike::Event::ReplayCounterSync { delta, .. }) => Some(*delta),
        _ => None,
    };
    world.until("the question", |world| {
        world.happened(PEER, |event| asked(event).is_some())
    });
    world.run(Duration::from_secs(2));
    let deltas: Vec<u64> = world
        .since(0)
        .filter_map(|(_, event)| asked(event))
        .collect();
    // Once (section 7, R35), and exactly that.
    assert_eq!(deltas, [copy]);
    world.traffic_flows();
    world.audit();
}

/// R29: "the delta to the outgoing counters of all Child SAs", whether they carry traffic or not.
#[test]
fn rfc6311_section_5_2_r29_the_delta_leaps_over_the_numbers_of_three_children() {
    let mut topology = Topology::new(2, "open sesame".to_owned());
    topology.takeover = "message-id-sync";
    let several = |mut config: Config| {
        let children = &mut config.connections[0].children;
        for number in [3, 4] {
            let mut child = children[0].clone();
            child.name = format!("net{number}");
            // Of the same networks, and of a protocol that nobody speaks.
            for selectors in [&mut child.local_ts, &mut child.remote_ts] {
                selectors[0].protocol = 50 + number;
            }
            child.dynamic = Default::default();
            children.push(child);
        }
        config
    };
    let members = (1..=2).map(|id| several(topology.member(id).unwrap()));
    let peer = several(topology.peer().unwrap());
    let mut world = World::with(102, members.collect(), peer);
    world.come_up();
    let next = |world: &mut World| -> BTreeMap<String, (String, u64)> {
        let leases = world.status(PEER).leases.into_iter();
        leases.map(|l| (l.child, (l.sa, l.next))).collect()
    };
    world.until("three children", |world| next(world).len() == 3);
    world.until("a standby", World::standby_is_ready);
    world.run(Duration::from_secs(1));
    let active = world.leader().unwrap();
    world.kill(active);
    let before = next(&mut world);
    let asked = |world: &World| {
        world.since(0).find_map(|(who, event)| match event {
            Event::Ike(ike::Event::ReplayCounterSync { delta, .. }) if who == PEER => Some(*delta),
            _ => None,
        })
    };
    world.until("the question", |world| asked(world).is_some());
    let delta = asked(&world).unwrap();
    assert!(delta > 0);
    for (child, (sa, next)) in next(&mut world) {
        let (same, before) = &before[&child];
        assert_eq!(sa, *same, "{child} was not replaced");
        assert!(next >= before + delta, "{child}: {before}, {delta}, {next}");
    }
    world.traffic_flows();
    world.audit();
}
