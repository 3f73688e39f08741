//! A new leader goes on with very many IKE SAs a few at a time.

use std::collections::BTreeSet;

use hitless::ike::proposal::Identification;
use hitless::ike::settings::{EngineSettings, Limits};
use hitless::ike::{ChildChange, Commit, Engine, Event, Input, Output, Resume};
use hitless_sa::{IkeSpi, MemberId, SaId};

use crate::world::{A, B, Records, SECOND, World, settings};

pub const TUNNELS: usize = 300;

/// So many IKE SAs with a Child SA each, and an engine that has B's records and leads now.
fn taken_over() -> (World, Engine) {
    taken_over_but(0)
}

/// The same, without the last `missing` of the records.
fn taken_over_but(missing: usize) -> (World, Engine) {
    let mut world = crowd();
    let mut engine = Engine::new(EngineSettings {
        member: MemberId(12),
        ..world.hosts[B].settings.clone()
    });
    let records = world.hosts[B].records.iter();
    for (ike, (version, body)) in records.take(TUNNELS - missing) {
        engine.store(world.now, *ike, *version, body).unwrap();
    }
    engine.lead(world.now, &mut world.entropy, &mut |_| Resume::Exact);
    (world, engine)
}

/// A with so many IKE SAs with B, each of another connection.
pub fn crowd() -> World {
    let ends = [A, B].map(|host| {
        let mut settings = settings(host);
        settings.limits = Limits {
            init_limit_half_open: 2 * TUNNELS,
            cookie_threshold: 2 * TUNNELS,
            cookie_threshold_ip: 2 * TUNNELS,
            block_threshold: 2 * TUNNELS,
            init_rate: 0,
            init_rate_ip: 0,
            ..Limits::default()
        };
        let one = settings.connections.remove(0);
        settings.connections = (0..TUNNELS)
            .map(|number| {
                let mut connection = one.clone();
                connection.name = format!("c{number}");
                let id = Identification::Fqdn(format!("c{number}.test"));
                match host {
                    A => connection.local_id = id,
                    _ => connection.remote_id = id,
                }
                connection
            })
            .collect();
        settings
    });
    let [a, b] = ends;
    let mut world = World::new(1, a, b);
    world.run(10 * SECOND);
    assert_eq!(world.living(B), TUNNELS);
    world
}

/// The IKE SAs that commits are of, in order, and the Child SAs that they install.
fn commits(engine: &mut Engine) -> (Vec<IkeSpi>, Vec<SaId>) {
    let (mut ikes, mut installed) = (Vec::new(), Vec::new());
    while let Some(output) = engine.poll_output() {
        if let Output::Commit(Commit { ike, changes, .. }) = output {
            ikes.push(ike);
            installed.extend(changes.into_iter().filter_map(|change| match change {
                ChildChange::Install { child, .. } => Some(child.id),
                _ => None,
            }));
        }
    }
    (ikes, installed)
}

#[test]
fn a_takeover_of_hundreds_begins_with_those_that_packets_come_for() {
    let (mut world, mut engine) = taken_over();
    assert_eq!(engine.waiting(), TUNNELS);
    assert!(commits(&mut engine).0.is_empty());
    // They are all there for whoever asks.
    assert_eq!(engine.status(world.now).len(), TUNNELS);
    let (busy, _, _) = world.hosts[B].sad.values().nth(200).unwrap().clone();
    let ike = engine.ike_of(busy.id).expect("known before its turn");
    assert!(engine.resume_spi(world.now, &mut world.entropy, busy.inbound_spi));
    assert_eq!(commits(&mut engine), (vec![ike], vec![busy.id]));
    assert!(!engine.resume_spi(world.now, &mut world.entropy, busy.inbound_spi));
    assert_eq!(engine.waiting(), TUNNELS - 1);
}

#[test]
fn whatever_concerns_an_ike_sa_makes_it_go_on_first() {
    let (mut world, mut engine) = taken_over();
    let last = engine.status(world.now).last().unwrap().local_spi;
    engine.handle(world.now, &mut world.entropy, Input::Liveness(last));
    let (ikes, installed) = commits(&mut engine);
    // First what it goes on with, then what was asked for.
    assert_eq!((ikes, installed.len()), (vec![last, last], 1));
    assert_eq!(engine.waiting(), TUNNELS - 1);
}

#[test]
fn each_of_hundreds_is_installed_once_whatever_the_order() {
    let (mut world, mut engine) = taken_over();
    let spis: Vec<_> = world.hosts[B]
        .sad
        .values()
        .map(|(sa, _, _)| sa.inbound_spi)
        .collect();
    let mut installed = Vec::new();
    for spi in spis.iter().step_by(7) {
        assert!(engine.resume_spi(world.now, &mut world.entropy, *spi));
        installed.extend(commits(&mut engine).1);
    }
    let mut turns = 0;
    while engine.resume_some(world.now, &mut world.entropy, 50) > 0 {
        installed.extend(commits(&mut engine).1);
        turns += 1;
    }
    installed.extend(commits(&mut engine).1);
    assert!(turns >= 5, "{turns}");
    assert_eq!(installed.len(), TUNNELS);
    assert_eq!(installed.iter().collect::<BTreeSet<_>>().len(), TUNNELS);
    assert!(!engine.resume_spi(world.now, &mut world.entropy, spis[1]));
}

#[test]
fn a_leader_that_steps_down_in_the_midst_of_it_goes_on_with_nothing() {
    let (mut world, mut engine) = taken_over();
    engine.resume_some(world.now, &mut world.entropy, 10);
    engine.step_down();
    assert_eq!(engine.waiting(), 0);
    assert!(commits(&mut engine).0.is_empty());
    assert_eq!(engine.resume_some(world.now, &mut world.entropy, 10), 0);
    assert!(engine.status(world.now).is_empty());
}

#[test]
fn one_that_is_adopted_later_comes_to_the_others_and_takes_nothing_from_them() {
    let (mut world, mut engine) = taken_over_but(1);
    let waiting = TUNNELS - 1;
    assert_eq!(engine.waiting(), waiting);
    let (ike, (version, body)) = world.hosts[B].records.iter().next_back().unwrap();
    engine.store(world.now, *ike, *version, body).unwrap();
    let adopted = *ike;
    engine.adopt(world.now, &mut world.entropy, adopted);
    let (ikes, installed) = commits(&mut engine);
    assert_eq!(installed.len(), 1);
    assert!(ikes.iter().all(|ike| *ike == adopted), "{ikes:?}");
    assert_eq!(engine.ike_of(installed[0]), Some(adopted));
    assert_eq!(engine.waiting(), waiting);
    assert_eq!(engine.status(world.now).len(), TUNNELS);
    let first = engine.status(world.now)[0].local_spi;
    engine.handle(world.now, &mut world.entropy, Input::Liveness(first));
    assert_eq!(commits(&mut engine).0, [first, first]);
    while engine.resume_some(world.now, &mut world.entropy, 50) > 0 {}
    assert_eq!(commits(&mut engine).1.len(), waiting - 1);
}

/// A's IKE SA is rekeyed by one of them and used: its records from before, and from after.
fn rekeyed_by(host: usize) -> (World, Records, Records) {
    let mut world = World::established(1);
    let before = world.hosts[A].records.clone();
    let old = world.ike(host);
    world.input(host, Input::RekeyIke(old));
    world.run(SECOND);
    let ike = world.ike(B);
    world.input(B, Input::Liveness(ike));
    world.run(SECOND);
    let heir = world.ike(A);
    let mut after = world.hosts[A].records.clone();
    after.retain(|ike, _| *ike == heir);
    (world, before, after)
}

/// The Child SA is there once, the new IKE SA has it, and goes on without the old one.
fn assert_heir_goes_on(world: &mut World, heir: &Records) {
    world.run(160 * SECOND);
    world.assert_agreement(1);
    assert_eq!(heir.keys().copied().collect::<Vec<_>>(), [world.ike(A)]);
    let again = |e: &Event| matches!(e, Event::IkeEstablished { .. });
    assert!(!world.hosts[A].saw(again), "no new IKE_AUTH");
}

/// Who has led before, and learns, may have the new IKE SA beside the old one as it was then.
#[test]
fn a_successor_in_use_goes_before_an_old_record_of_its_predecessor() {
    for host in [A, B] {
        let (mut world, mut records, heir) = rekeyed_by(host);
        records.extend(heir.clone());
        assert_eq!(records.len(), 2);
        world.fail_over_with(A, records, Resume::Probe);
        assert_heir_goes_on(&mut world, &heir);
    }
}

/// The same where the old record is had from elsewhere, when the takeover has begun.
#[test]
fn an_old_record_that_comes_late_takes_nothing_from_the_successor() {
    let (mut world, old, heir) = rekeyed_by(A);
    world.fail_over_with(A, heir.clone(), Resume::Probe);
    let (ike, (version, body)) = old.first_key_value().unwrap();
    let engine = &mut world.hosts[A].engine;
    engine.store(world.now, *ike, *version, body).unwrap();
    engine.take_in(*ike);
    assert!(engine.go_on_with(world.now, &mut world.entropy, *ike));
    assert_heir_goes_on(&mut world, &heir);
}
