//! A standby that beats and does not acknowledge: it is stuck behind its socket, or it lies. It loses
//! its say like one that is dead, within a bound, and gets it back when it answers again.

mod cluster;

use std::cell::Cell;

use cluster::intercept::{CHECKSUM, sealed};
use cluster::{MILLISECOND, Weather, World};
use hitless_sa::{MemberId, SaId};
use hitless_sync::{Degraded, Event, Input, Mutant, Role};
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, decode_key, skip_field};

const ONE: MemberId = MemberId(1);
const TWO: MemberId = MemberId(2);
/// "Every record up to here is applied", and "so far I have recorded these leases".
const APPLIED: u32 = 30;
const RECORDED: u32 = 31;
/// The leader's records.
const RECORDS: u32 = 21;
/// D of `lease-holes` R16, as `Settings::new` has it.
const VOUCH: u64 = 100;

/// The packet without these fields.
fn without(packet: &[u8], fields: &[u32]) -> Vec<u8> {
    with(packet, fields, &[])
}

/// The packet without these fields, and with others.
fn with(packet: &[u8], fields: &[u32], others: &[u8]) -> Vec<u8> {
    let mut rest = &packet[CHECKSUM..];
    let mut body = others.to_vec();
    while rest.has_remaining() {
        let field = rest;
        let (tag, wire) = decode_key(&mut rest).unwrap();
        skip_field(wire, tag, &mut rest, DecodeContext::default()).unwrap();
        if !fields.contains(&tag) {
            body.extend_from_slice(&field[..field.len() - rest.len()]);
        }
    }
    sealed(&body)
}

fn settled(seed: u64, members: u8, degraded: Degraded) -> World {
    let mut world = World::with(seed, members, Weather::CALM, |settings| {
        settings.degraded = degraded;
    });
    world.restarts = false;
    assert!(world.run_until(3_000, World::settled), "seed {seed}");
    assert_eq!(world.leader(), Some(0));
    world.run(100);
    world
}

/// 2 has crashed and joins again.
fn rejoining(seed: u64) -> World {
    let mut world = settled(seed, 2, Degraded::Rekey);
    world.crash(1);
    world.run(50);
    world.start(1);
    world
}

/// For so long 1 hears 2 without these words, until it holds.
fn mute(
    world: &mut World,
    milliseconds: u64,
    fields: &[u32],
    holds: impl Fn(&World) -> bool,
) -> bool {
    for _ in 0..milliseconds {
        world.heard_as(TWO, ONE, 1, |packet| without(packet, fields));
        if holds(world) {
            return true;
        }
    }
    false
}

/// For a millisecond 2 hears no record.
fn deafen(world: &mut World) {
    world.heard_as(ONE, TWO, 1, |packet| without(packet, &[RECORDS]));
}

fn degraded(world: &World) -> bool {
    world.status(0).is_some_and(|status| status.degraded)
}

#[test]
fn r16_a_standby_that_beats_and_does_not_acknowledge_holds_ike_for_2_d_at_most() {
    for seed in 1..=6 {
        let mut world = settled(seed, 2, Degraded::Rekey);
        world.exchanges = false;
        mute(&mut world, 20, &[APPLIED, RECORDED], |_| false);
        let object = world.sites[0].gateway.any_object().unwrap();
        let change = world.sites[0].gateway.touch(object);
        let (at, version) = (world.now, change.version);
        world.commit(0, change);
        let released = move |world: &World| {
            let mut committed = world.sites[0].committed.iter();
            committed.any(|(_, o, v, _)| (*o, *v) == (object, version))
        };
        let bound = 2 * VOUCH + 15;
        assert!(
            mute(&mut world, bound, &[APPLIED, RECORDED], released),
            "seed {seed}"
        );
        assert!(
            world.now - at >= VOUCH * MILLISECOND,
            "not before the standby stops vouching"
        );
        assert!(degraded(&world));
        world.check().unwrap();
    }
}

#[test]
fn r20_who_does_not_acknowledge_is_worked_around_and_comes_back() {
    for (seed, fields) in [
        (1, &[APPLIED, RECORDED][..]),
        (2, &[RECORDED]),
        (3, &[APPLIED]),
    ] {
        let mut world = settled(seed, 2, Degraded::Rekey);
        mute(&mut world, 3 * VOUCH, fields, |_| false);
        for window in 0..6 {
            let before = world.oracle.packets;
            mute(&mut world, 300, fields, |_| false);
            let sent = world.oracle.packets - before;
            assert!(sent > 0, "seed {seed}, window {window}: nothing was sent");
        }
        world.check().unwrap();
        assert_eq!(world.leader(), Some(0));
        assert!(
            world.run_until(3_000, |world| world.settled() && !degraded(world)),
            "{fields:?}"
        );
        world.run(300);
        let takeovers = world.oracle.takeovers;
        world.crash(0);
        assert!(world.run_until(300, |world| world.leader() == Some(1)));
        assert!(world.oracle.takeovers > takeovers);
        world.run(300);
        world.check().unwrap();
    }
}

#[test]
fn r16_a_copy_that_was_not_acknowledged_is_not_called_exact() {
    let mut released = 0;
    for seed in 1..=20 {
        let mut world = settled(seed, 2, Degraded::Rekey);
        world.exchanges = false;
        let object = world.sites[0].gateway.any_object().unwrap();
        let change = world.sites[0].gateway.touch(object);
        let version = change.version;
        world.capture = Some((ONE, TWO));
        world.commit(0, change);
        let leaves = move |world: &World| {
            let mut committed = world.sites[0].committed.iter();
            committed.any(|(_, o, v, _)| (*o, *v) == (object, version))
        };
        // It hears its leader all the time, but no record, and not in the moment in which that says
        // that it waits no longer.
        for _ in 0..2 * VOUCH - 15 {
            deafen(&mut world);
        }
        world.cut.insert((ONE, TWO));
        if mute(&mut world, 30, &[APPLIED, RECORDED], leaves) && world.leader() == Some(0) {
            released += usize::from(world.role(1) == Some(Role::Admitted));
        }
        world.crash(0);
        assert!(
            world.run_until(500, |world| world.leader() == Some(1)),
            "seed {seed}"
        );
        world.check().unwrap();
    }
    assert!(released > 10, "{released}");
}

#[test]
fn r12_three_members_re_elect_past_who_does_not_acknowledge() {
    for seed in 1..=4 {
        let mut world = settled(seed, 3, Degraded::Rekey);
        let before = world.status(0).unwrap().epoch;
        let fields = [APPLIED, RECORDED];
        let elected = mute(&mut world, 1_000, &fields, |world| {
            world
                .status(0)
                .is_some_and(|s| s.role == Role::Leading && s.epoch > before && !s.degraded)
        });
        assert!(elected, "seed {seed}");
        assert!(mute(&mut world, 1_000, &fields, |world| world.role(2)
            == Some(Role::Admitted)));
        // What it does not acknowledge does not hold the others up, and gives it no right.
        for _ in 0..4 {
            let before = world.oracle.packets;
            mute(&mut world, 300, &fields, |_| false);
            assert!(world.oracle.packets > before, "seed {seed}");
            assert_ne!(world.role(1), Some(Role::Admitted), "seed {seed}");
        }
        assert!(world.run_until(5_000, World::settled), "seed {seed}");
        world.check().unwrap();
    }
}

#[test]
fn strict_waits_for_who_does_not_acknowledge() {
    let mut world = settled(3, 2, Degraded::Strict);
    mute(&mut world, 600, &[APPLIED, RECORDED], |_| false);
    let (before, released) = (world.oracle.packets, world.sites[0].committed.len());
    mute(&mut world, 300, &[APPLIED, RECORDED], |_| false);
    assert!(degraded(&world));
    assert_eq!(
        (world.oracle.packets, world.sites[0].committed.len()),
        (before, released)
    );
    assert!(world.run_until(2_000, |world| world.settled() && !degraded(world)));
    world.run(100);
    assert!(world.oracle.packets > before);
    world.check().unwrap();
}

/// In how many of so many windows of 30 ms the leader sends nothing, with what 2 is heard to say
/// meanwhile.
fn windows_without_packets(world: &mut World, windows: u32, said: impl Fn(&mut World, u64)) -> u32 {
    let mut starved = 0;
    for _ in 0..windows {
        let before = world.oracle.packets;
        said(world, 30);
        starved += u32::from(world.oracle.packets == before);
    }
    starved
}

fn sessions(world: &World) -> usize {
    let events = world.sites[0].events.iter();
    let opened = |e: &&Event| matches!(e, Event::SessionOpened { member, .. } if *member == TWO);
    events.filter(opened).count()
}

#[test]
fn d7_a_joiner_that_never_acknowledges_holds_nothing_however_often_it_joins() {
    for seed in 1..=4 {
        let mut world = rejoining(seed);
        let fields = [APPLIED, RECORDED];
        // Until the old session is released.
        mute(&mut world, 500, &fields, |_| false);
        let before = sessions(&world);
        let starved = windows_without_packets(&mut world, 60, |world, milliseconds| {
            mute(world, milliseconds, &fields, |_| false);
        });
        assert_eq!(starved, 0, "seed {seed}");
        assert!(sessions(&world) > before, "seed {seed}");
        assert!(world.run_until(5_000, World::settled), "seed {seed}");
        world.check().unwrap();
    }
}

/// TWO answers the first record of each session, and no other.
fn answers_the_first_record_alone(world: &mut World, milliseconds: u64) {
    let first = [&[0xf0, 0x01][..], &[1]].concat();
    world.heard_as(TWO, ONE, milliseconds, |packet| {
        with(packet, &[APPLIED, RECORDED], &first)
    });
}

#[test]
fn d7_a_joiner_that_stops_to_acknowledge_gets_its_next_session_later_and_later() {
    for seed in 1..=4 {
        let mut world = rejoining(seed);
        let said = answers_the_first_record_alone;
        said(&mut world, 500);
        let before = sessions(&world);
        let starved = windows_without_packets(&mut world, 200, said);
        let opened = sessions(&world) - before;
        assert!((1..=10).contains(&opened), "seed {seed}: {opened} in 6 s");
        assert!(starved < 40, "seed {seed}: {starved} of 200 windows");
        // One that answers again is let in.
        assert!(world.run_until(5_000, World::settled), "seed {seed}");
        world.check().unwrap();
    }
}

#[test]
fn d7_a_joiner_that_stalls_is_abandoned_and_holds_nothing() {
    let mut world = rejoining(5);
    let abandoned = |world: &World| {
        let mut events = world.sites[0].events.iter();
        events.any(|event| matches!(event, Event::SessionAbandoned { member } if *member == TWO))
    };
    assert!(mute(&mut world, 1_500, &[APPLIED, RECORDED], abandoned));
    let before = (world.oracle.packets, world.sites[0].committed.len());
    mute(&mut world, 1_000, &[APPLIED, RECORDED], |_| false);
    assert!(world.oracle.packets > before.0 && world.sites[0].committed.len() > before.1);
    assert!(world.run_until(3_000, World::settled));
    world.check().unwrap();
}

#[test]
fn d7_a_learner_that_was_silent_for_a_while_goes_on_with_its_copy_and_held_nothing() {
    for seed in 1..=4 {
        let mut world = rejoining(seed);
        // It is behind a busy machine: what it says of all but the first record comes late.
        let said = answers_the_first_record_alone;
        for _ in 0..1_000 {
            if world.role(1) == Some(Role::Learning) {
                break;
            }
            said(&mut world, 1);
        }
        let before = sessions(&world);
        let starved = windows_without_packets(&mut world, 30, said);
        assert!(starved <= 2 + VOUCH as u32 / 30, "seed {seed}: {starved}");
        assert_eq!(world.role(1), Some(Role::Learning), "seed {seed}");
        assert!(world.run_until(1_000, World::settled), "seed {seed}");
        assert_eq!(sessions(&world), before, "seed {seed}");
        world.check().unwrap();
    }
}

#[test]
fn a_halted_member_hands_over_what_its_standby_was_not_told_while_it_was_silent() {
    for seed in 60..64 {
        let mut world = settled(seed, 2, Degraded::Rekey);
        world.keep_leads = true;
        let fields = [APPLIED, RECORDED];
        // SAs are made meanwhile that it is told nothing of.
        mute(&mut world, 400, &fields, |_| false);
        world.exchanges = false;
        mute(&mut world, 300, &fields, |_| false);
        let backlog = |world: &World| world.status(0).unwrap().members[0].backlog;
        assert!(degraded(&world) && backlog(&world) > 0, "seed {seed}");
        let able = |world: &World| world.status(0).unwrap().members[0].able;
        assert!(world.run_until(500, able), "seed {seed}");
        let (healthy, halted) = (false, true);
        world.handle(0, Input::Health { healthy, halted });
        let mut newest = std::collections::BTreeMap::new();
        for (_, object, version, _) in &world.sites[0].committed {
            newest.insert(*object, *version);
        }
        assert!(world.run_until(1_000, |world| world.leader() == Some(1)));
        let (base, objects) = world.sites[1].leads.last().unwrap();
        assert!(base.is_some());
        for object in objects {
            assert_eq!(
                newest.get(&object.object),
                Some(&object.version),
                "seed {seed}"
            );
            assert!(object.exact, "seed {seed}");
        }
        world.run(200);
        world.check().unwrap();
    }
}

/// The control thread of a leader is away for long, and beats on: what its standby wrote meanwhile
/// waits, and answers nothing that the leader said at the end.
#[test]
fn r16_a_leader_that_was_away_itself_does_not_call_its_standby_silent() {
    for seed in 1..=4 {
        let mut world = World::with(seed, 2, Weather::CALM, |settings| settings.missed = 100);
        world.restarts = false;
        assert!(world.run_until(9_000, World::settled), "seed {seed}");
        assert_eq!(world.leader(), Some(0));
        world.run(100);
        for _ in 0..20 {
            world.sites[0].paused_until = world.now + 3 * VOUCH * MILLISECOND;
            // What was offered last reaches the standby with the end of the turn.
            world.cut.insert((ONE, TWO));
            world.run(1);
            world.cut.clear();
            let silent = world.run_until(4 * VOUCH, degraded);
            assert!(!silent, "seed {seed}");
        }
        assert_eq!(world.role(0), Some(Role::Leading), "seed {seed}");
        // Who is silent is still found to be.
        world.crash(1);
        assert!(world.run_until(2 * VOUCH, degraded), "seed {seed}");
        world.check().unwrap();
    }
}

/// Three members, of which 2 does not acknowledge and 3 does: what leaves before D, and what is known
/// of it once 1 and 3 are gone.
fn one_of_two_acknowledges(seed: u64, mutant: Mutant) -> Result<(), String> {
    let mut world = World::new(seed, 3, Weather::CALM, mutant);
    world.restarts = false;
    assert!(world.run_until(3_000, World::settled), "seed {seed}");
    assert_eq!(world.leader(), Some(0));
    world.run(100);
    world.exchanges = false;
    world.run(50);
    let object = world.sites[0].gateway.any_object().unwrap();
    let change = world.sites[0].gateway.touch(object);
    let version = change.version;
    // It hears no record either: it can not know what it does not acknowledge.
    world.capture = Some((ONE, TWO));
    world.commit(0, change);
    let left = move |world: &World| {
        let mut committed = world.sites[0].committed.iter();
        committed.any(|(_, o, v, _)| (*o, *v) == (object, version))
    };
    let released = world.run_until(20, left);
    // Both that know it die; one comes back at once with nothing, and votes for the third.
    world.capture = None;
    world.crash(0);
    world.crash(2);
    world.run(1);
    world.start(2);
    world.run(600);
    world.check()?;
    match released {
        true => Err(format!("seed {seed}: released before D")),
        false => Ok(()),
    }
}

#[test]
fn c3_of_two_standbys_both_must_acknowledge_before_an_answer_leaves() {
    let mutant = Mutant {
        any_standby: true,
        ..Mutant::default()
    };
    let mut found = Vec::new();
    for seed in 1..=20 {
        one_of_two_acknowledges(seed, Mutant::default()).unwrap();
        found.extend(one_of_two_acknowledges(seed, mutant).err());
    }
    let lost = found.iter().filter(|what| what.starts_with("S4"));
    assert!(lost.count() > 0, "{found:?}");
}

/// An IKE SA that waits to be told of is rekeyed while the standby is not heard. Its heir is told of
/// first: a standby that hears of the loss alone would forget the Child SAs, and what it has recorded of
/// them, which the leader goes by (S1).
#[test]
fn s1_an_sa_that_moves_to_another_object_is_never_without_one() {
    const LARGE: usize = 2_000;
    for seed in 1..=6 {
        let mut world = settled(seed, 2, Degraded::Strict);
        world.keep_leads = true;
        world.exchanges = false;
        world.run(30);
        world.cut.insert((TWO, ONE));
        world.run(150);
        let gateway = &mut world.sites[0].gateway;
        let object = gateway.any_object().unwrap();
        let mut changes = vec![gateway.touch(object)];
        changes.extend(gateway.rekey(object).unwrap());
        let children = changes[1].children.clone();
        // The old one is not deleted yet.
        changes.pop();
        for mut change in changes {
            change.octets = LARGE;
            world.commit(0, change);
        }
        world.run(15);
        world.cut.clear();
        // It hears the first of those records, and nothing else of them.
        let heard = Cell::new(false);
        let first_alone = |packet: &[u8]| match packet.len() > LARGE && heard.replace(true) {
            true => without(packet, &[RECORDS]),
            false => packet.to_vec(),
        };
        world.heard_as(ONE, TWO, 30, first_alone);
        assert!(heard.get());
        world.crash(0);
        assert!(world.run_until(200, |world| world.role(1) == Some(Role::Leading)));
        world.check().unwrap();
        let (_, objects) = world.sites[1].leads.last().expect("it led");
        let known: Vec<SaId> = objects
            .iter()
            .flat_map(|o| o.children.iter().map(|c| c.sa))
            .collect();
        assert!(children.iter().all(|sa| known.contains(sa)), "seed {seed}");
        world.run(300);
        world.check().unwrap();
    }
}
