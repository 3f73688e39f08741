//! More than two members: failover after failover, slow standbys, preemption.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hitless::gateway::{Event, Tuning};
use hitless::lab::Topology;
use hitless_sync::LeaseSizes;

use crate::world::{PEER, World};

const IKE_AUTH: u8 = 35;

fn of(members: u8, seed: u64) -> World {
    let topology = Topology::new(members, "open sesame".to_owned());
    let mut world = World::of(seed, &topology);
    world.come_up();
    world
}

fn bound(world: &mut World, leader: u8, member: u8) -> bool {
    let members = world.status(leader).members;
    members.iter().any(|m| m.id == member && m.bound)
}

#[test]
fn of_five_members_three_lead_one_after_the_other_and_the_tunnel_is_the_same() {
    let mut world = of(5, 90);
    let (began, first) = (world.now, world.leader().unwrap());
    let spi = world.list_sas(first)[0].responder_spi.clone();
    let mut led = vec![first];
    for _ in 0..2 {
        let active = world.leader().unwrap();
        world.kill(active);
        world.until("a takeover", |world| world.leader().is_some());
        // As soon as each of the others may take over, the next one dies.
        world.until("standbys", World::standby_is_ready);
        led.push(world.leader().unwrap());
    }
    world.traffic_flows();
    led.dedup();
    assert_eq!(led.len(), 3, "{led:?}");
    let last = world.leader().unwrap();
    assert_eq!(world.list_sas(last)[0].responder_spi, spi);
    assert!(!world.exchanges_since(began).contains(&IKE_AUTH));
    world.audit();
}

#[test]
fn a_successor_that_dies_before_its_copy_is_made_leaves_the_ike_sa_and_no_right() {
    // M1 -> M2 -> M3: M3 holds M1's record, which M2 has overtaken, so it may not use old keys
    // (rule 5 of the leases); the IKE SA is anybody's, and gives new ones (rule 8).
    let mut world = of(3, 91);
    let (began, first) = (world.now, world.leader().unwrap());
    world.kill(first);
    world.until("a takeover", |world| world.leader().is_some());
    let second = world.leader().unwrap();
    world.kill(second);
    world.start(first);
    let third = 6 - first - second;
    world.until("the third", |world| world.leader() == Some(third));
    world.traffic_flows();
    assert!(!world.exchanges_since(began).contains(&IKE_AUTH));
    world.audit();
    world.start(second);
    world.until("all three", World::standby_is_ready);
    world.traffic_flows();
    world.audit();
}

#[test]
fn a17_a_record_of_the_first_is_none_of_what_the_second_sent_alone() {
    // M1 -> M2 -> M3: M2 sends, M3 hears nothing of it, and holds M1's record.
    for seed in 94..98 {
        let mut world = of(3, seed);
        let (began, first) = (world.now, world.leader().unwrap());
        world.kill(first);
        world.until("a takeover", |world| world.leader().is_some());
        let second = world.leader().unwrap();
        let third = 6 - first - second;
        world.network.isolated.insert(third);
        let sent = |world: &World, by: u8| {
            let own = world
                .esp()
                .into_iter()
                .filter(|esp| esp.port == usize::from(by));
            own.map(|esp| (esp.spi, esp.number))
                .collect::<BTreeSet<_>>()
        };
        world.run(Duration::from_millis(50));
        let alone = sent(&world, second);
        assert!(alone.len() > 10, "seed {seed}: {}", alone.len());
        world.kill(second);
        world.network.isolated.clear();
        world.start(first);
        world.until("the third", |world| world.leader() == Some(third));
        world.traffic_flows();
        // Not with these keys at all.
        let old: BTreeSet<u32> = alone.iter().map(|(spi, _)| *spi).collect();
        let after = sent(&world, third);
        assert!(!after.is_empty() && after.iter().all(|(spi, _)| !old.contains(spi)));
        assert!(!world.exchanges_since(began).contains(&IKE_AUTH));
        world.audit();
    }
}

#[test]
fn d14_skips_add_up_over_members_and_end_in_a_rekey() {
    let topology = Topology::new(2, "open sesame".to_owned());
    let members = (1..=2).map(|id| topology.member(id).unwrap());
    let leases = LeaseSizes {
        outbound: (1 << 28, 1 << 28),
        ..LeaseSizes::default()
    };
    let tuning = Tuning {
        leases: Some(leases),
        ..Tuning::default()
    };
    let tunings = (1..=2).map(|id| (id, tuning)).collect();
    let mut world = World::tuned(98, members.collect(), topology.peer().unwrap(), tunings);
    world.come_up();
    let began = world.now;
    for _ in 0..8 {
        let active = world.leader().unwrap();
        world.kill(active);
        world.until("a takeover", |world| world.leader().is_some());
        world.traffic_flows();
        world.start(active);
        world.until("a standby", World::standby_is_ready);
        // What is to be replaced is replaced.
        world.run(Duration::from_millis(500));
    }
    // What each key skipped, whoever skipped it.
    let mut last = BTreeMap::new();
    let mut skipped = BTreeMap::new();
    for esp in world
        .esp()
        .iter()
        .filter(|esp| esp.port != usize::from(PEER))
    {
        let before = last.insert(esp.spi, esp.number).unwrap_or(0);
        *skipped.entry(esp.spi).or_insert(0) += esp.number.saturating_sub(before + 1);
    }
    let most = skipped.values().copied().max().unwrap_or(0);
    assert!(most > 1 << 29, "they add up: {skipped:?}");
    assert!(most < 1 << 31, "{skipped:?}");
    assert!(skipped.len() > 1, "and end: {skipped:?}");
    assert!(!world.exchanges_since(began).contains(&IKE_AUTH));
    world.audit();
}

/// Waits until the leader has lost a standby by a majority, and goes on with the other as if there were
/// no third; brings it back with `heal`.
fn one_loses_its_right(
    world: &mut World,
    (leader, lame, other): (u8, u8, u8),
    epoch: Option<String>,
    heal: impl Fn(&mut World),
) {
    world.until("it to lose its right", |world| !bound(world, leader, lame));
    assert_eq!(world.leader(), Some(leader));
    assert_ne!(
        world.status(leader).epoch,
        epoch,
        "the leader is elected anew"
    );
    world.until("the other one to be bound again", |world| {
        bound(world, leader, other)
    });
    // Nothing waits for it any more.
    world.run(Duration::from_secs(1));
    let (sent, received) = (world.b.sent().len(), world.received()[0]);
    world.run(Duration::from_secs(1));
    let (sent, received) = (world.b.sent().len() - sent, world.received()[0] - received);
    assert!(received + 5 >= sent, "{received} of {sent}");
    assert!(!world.status(leader).degraded);
    heal(world);
    world.until("it to be bound again", |world| bound(world, leader, lame));
    // It may take over as well as the other one.
    world.kill(other);
    world.until("it to be the only standby", |world| {
        !bound(world, leader, other)
    });
    world.start(other);
    world.until("all three", World::standby_is_ready);
    world.kill(leader);
    world.until("a takeover", |world| world.leader().is_some());
    world.traffic_flows();
    world.audit();
}

#[test]
fn a_standby_that_beats_and_takes_nothing_loses_its_right_by_a_majority() {
    let mut world = of(3, 99);
    let leader = world.leader().unwrap();
    let slow = if leader == 3 { 2 } else { 3 };
    let epoch = world.status(leader).epoch;
    // What is said while nothing happens is beats, give or take the length of a number.
    world.traffic = false;
    world.run(Duration::from_millis(100));
    world.network.recorded = Some(Vec::new());
    world.run(Duration::from_millis(100));
    let idle = world.network.recorded.take().unwrap_or_default();
    let mut lengths: Vec<usize> = idle.iter().map(|(.., datagram)| datagram.len()).collect();
    lengths.sort_unstable();
    let beat = lengths[lengths.len() / 2] + 4;
    world.traffic = true;
    world.network.fate = Some(Box::new(move |from, to, datagram| {
        datagram.len() <= beat || ![from, to].contains(&slow)
    }));
    let heal = |world: &mut World| world.network.fate = None;
    one_loses_its_right(&mut world, (leader, slow, 6 - leader - slow), epoch, heal);
}

#[test]
fn a_dead_standby_loses_its_right_by_a_majority_and_gets_another_one_once_it_is_back() {
    let mut world = of(3, 92);
    let leader = world.leader().unwrap();
    let slow = if leader == 3 { 2 } else { 3 };
    let epoch = world.status(leader).epoch;
    world.kill(slow);
    let heal = |world: &mut World| world.start(slow);
    one_loses_its_right(&mut world, (leader, slow, 6 - leader - slow), epoch, heal);
}

#[test]
fn preemption_waits_for_the_whole_copy_and_a_bounded_hold_and_loses_no_packet() {
    let topology = Topology::new(2, "open sesame".to_owned());
    let members = (1..=2).map(|id| {
        let mut config = topology.member(id).unwrap();
        config.cluster.preempt = true;
        config
    });
    let mut world = World::with(93, members.collect(), topology.peer().unwrap());
    world.come_up();
    // The first one has the higher priority.
    assert_eq!(world.leader(), Some(1));
    world.kill(1);
    world.until("a takeover", |world| world.leader() == Some(2));
    world.run(Duration::from_millis(500));
    let lost = world.a.sent().len() - world.received()[1];
    let (from, began) = (world.events.len(), world.now);
    world.start(1);
    world.until("it to be bound", |world| bound(world, 2, 1));
    let joined = world.now;
    assert_eq!(world.leader(), Some(2));
    world.until("it to lead", |world| world.leader() == Some(1));
    let hold = Duration::from_secs(1);
    let waited = world.now.since(joined);
    assert!((hold / 2..hold * 3).contains(&waited), "{waited:?}");
    assert!(world.now.since(began) < Duration::from_secs(10));
    let exact = world.since(from).any(|(who, event)| {
        who == 1
            && matches!(
                event,
                Event::Leads {
                    base: Some(_),
                    skip: None | Some(0),
                    exact: true,
                    ..
                }
            )
    });
    assert!(exact, "handed over, not seized");
    // The lead stays there.
    world.run(Duration::from_secs(5));
    assert_eq!(world.leader(), Some(1));
    world.traffic = false;
    world.run(Duration::from_secs(1));
    assert_eq!(world.a.sent().len() - world.received()[1], lost);
    world.audit();
}
