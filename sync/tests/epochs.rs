//! Epochs that are forged, sessions that are over, and a successor that came back without memory
//! (`lease-holes` A15, C4, D9, and S7 for the sync channel).

mod cluster;

use cluster::intercept::{CHECKSUM, sealed};
use cluster::{Weather, World};
use hitless_sa::{Epoch, Incarnation, MemberId};
use hitless_sync::{Event, Input, Mutant, Role};
use prost::encoding::{WireType, encode_key, encode_varint};

const ONE: MemberId = MemberId(1);
const TWO: MemberId = MemberId(2);
/// Fields of the packet.
const LED: u32 = 11;
const ROLE: u32 = 12;
const EPOCH: u32 = 13;
const BARE: u32 = 14;
/// Roles.
const ADMITTED: u64 = 3;
const LEADING: u64 = 5;

/// (counter, leader, incarnation)
type Claim = (u64, u64, u64);

fn settled(seed: u64, members: u8, mutant: Mutant) -> World {
    let mut world = World::new(seed, members, Weather::CALM, mutant);
    world.keep_leads = true;
    world.restarts = false;
    assert!(world.run_until(3_000, World::settled));
    world.run(100);
    assert_eq!(world.leader(), Some(0));
    world
}

fn number(body: &mut Vec<u8>, tag: u32, value: u64) {
    encode_key(tag, WireType::Varint, body);
    encode_varint(value, body);
}

/// The packet with other claims: fields at the end replace those before.
fn forged(packet: &[u8], role: Option<u64>, claims: &[(u32, Claim)]) -> Vec<u8> {
    let mut body = packet[CHECKSUM..].to_vec();
    for (tag, (counter, leader, incarnation)) in claims {
        let mut epoch = Vec::new();
        for (tag, value) in [(1, *counter), (2, *leader), (3, *incarnation)] {
            number(&mut epoch, tag, value);
        }
        encode_key(*tag, WireType::LengthDelimited, &mut body);
        encode_varint(epoch.len() as u64, &mut body);
        body.extend_from_slice(&epoch);
    }
    if let Some(role) = role {
        number(&mut body, ROLE, role);
        number(&mut body, BARE, 0);
    }
    sealed(&body)
}

#[test]
fn an_epoch_of_another_member_and_a_lower_one_depose_nobody() {
    // What 2, whose epoch file says incarnation 1, claims while 1 leads.
    let leads = |claim: Claim| (Some(LEADING), vec![(EPOCH, claim)]);
    let follows = |claim: Claim| (Some(ADMITTED), vec![(EPOCH, claim)]);
    let led = |claim: Claim| (None, vec![(LED, claim)]);
    let claims = [
        ("leads an epoch of the leader's", leads((99, 1, 1))),
        ("leads an epoch of a third", leads((99, 3, 1))),
        (
            "leads an epoch of another incarnation of its own",
            leads((99, 2, 7)),
        ),
        ("leads a lower epoch", leads((0, 2, 1))),
        ("follows an epoch of the leader's", follows((99, 1, 1))),
        ("follows itself", follows((99, 2, 1))),
        ("follows a stranger", follows((99, 9, 1))),
        ("follows a lower epoch", follows((0, 3, 1))),
        ("has led an epoch of the leader's", led((99, 1, 1))),
        ("has led an epoch of a third", led((99, 3, 1))),
        ("has led a lower epoch", led((0, 2, 1))),
    ];
    for members in [2, 3] {
        for (what, (role, claim)) in &claims {
            let mut world = settled(31, members, Mutant::default());
            let leads = world.sites[0].leads.len();
            world.heard_as(TWO, ONE, 40, |packet| forged(packet, *role, claim));
            assert_eq!(world.role(0), Some(Role::Leading), "{members}: {what}");
            assert_eq!(world.sites[0].leads.len(), leads, "{members}: {what}");
            world.check().unwrap();
            assert!(world.run_until(3_000, World::settled), "{members}: {what}");
        }
    }
}

#[test]
fn an_epoch_of_its_own_deposes_the_leader_which_repeats_no_number() {
    let mut world = settled(32, 2, Mutant::default());
    let claim = [(EPOCH, (99, 2, 1))];
    world.heard_as(TWO, ONE, 20, |packet| forged(packet, Some(LEADING), &claim));
    assert_ne!(world.role(0), Some(Role::Leading));
    world.run(2_000);
    assert!(world.settled());
    world.check().unwrap();
}

#[test]
fn a15_a_stale_admit_does_not_arm_who_has_resigned() {
    for seed in 1..=4 {
        let mut world = settled(seed, 2, Mutant::default());
        let admits = world.overhear(ONE, TWO, 60);
        world.handle(1, Input::Shutdown);
        let released = |world: &World| {
            let mut events = world.sites[0].events.iter();
            events.any(|event| matches!(event, Event::SessionReleased { .. }))
        };
        assert!(world.run_until(500, released), "seed {seed}");
        for _ in 0..20 {
            for packet in &admits {
                world.launch(ONE, TWO, packet.clone(), 100_000);
            }
            world.run(5);
            assert_eq!(world.role(1), Some(Role::Out), "seed {seed}");
        }
        world.crash(0);
        world.run(1_000);
        assert!(world.sites[1].leads.iter().all(|(base, _)| base.is_none()));
        world.check().unwrap();
    }
}

/// Whether acknowledgements of an earlier session release what was committed in this one.
fn old_acknowledgements_release(mutant: Mutant) -> bool {
    let mut world = settled(33, 2, mutant);
    world.exchanges = false;
    // So many that the old session counts further than the new one.
    let object = world.sites[0].gateway.any_object().unwrap();
    for _ in 0..50 {
        let change = world.sites[0].gateway.touch(object);
        world.commit(0, change);
        world.run(2);
    }
    let old = world.overhear(TWO, ONE, 40);
    for from in [0, 1] {
        world.run(30);
        world.handle(from, Input::Switchover);
        let done = |world: &World| world.settled() && world.leader() == Some(1 - from);
        assert!(world.run_until(1_000, done));
    }
    world.run(30);
    let change = world.sites[0].gateway.touch(object);
    let version = change.version;
    world.capture = Some((TWO, ONE));
    world.commit(0, change);
    for packet in old {
        world.launch(TWO, ONE, packet, 100_000);
    }
    world.run(20);
    let mut committed = world.sites[0].committed.iter();
    committed.any(|(_, o, v, _)| (*o, *v) == (object, version))
}

#[test]
fn c4_an_acknowledgement_of_an_earlier_session_releases_nothing() {
    let any_session = Mutant {
        any_session: true,
        ..Mutant::default()
    };
    assert!(
        old_acknowledgements_release(any_session),
        "the story has no point"
    );
    assert!(!old_acknowledgements_release(Mutant::default()));
}

#[test]
fn d9_a_leader_whose_successor_came_back_without_memory_goes_on_with_new_keys() {
    for seed in 1..=4 {
        let mut world = settled(seed, 2, Mutant::default());
        world.cut.extend([(ONE, TWO), (TWO, ONE)]);
        assert!(world.run_until(300, |world| world.role(1) == Some(Role::Leading)));
        world.run(50);
        assert_eq!(world.role(0), Some(Role::Leading));
        let old = world.sites[0].leads.len();
        // It has led, and has lost everything, before anybody heard of that.
        world.crash(1);
        world.start(1);
        world.cut.clear();
        let again = |world: &World| world.sites[0].leads.len() > old && world.settled();
        assert!(world.run_until(3_000, again), "seed {seed}");
        assert_eq!(world.leader(), Some(0), "seed {seed}: who has the copies");
        let (base, objects) = &world.sites[0].leads[old];
        assert!(base.is_none() && !objects.is_empty(), "seed {seed}");
        let mut children = objects.iter().flat_map(|object| &object.children);
        assert!(children.all(|child| child.rekey_only), "seed {seed}");
        let before = world.oracle.packets;
        world.run(300);
        assert!(world.oracle.packets > before);
        world.check().unwrap();
    }
}

/// R1: every epoch is above all that were promised. Nobody gets to the end but by a lie or a disk that
/// is not what was written; then nobody leads, rather than lead an epoch twice.
#[test]
fn r1_above_the_last_epoch_there_is_none_to_lead() {
    let mut world = settled(90, 2, Mutant::default());
    for index in 0..2 {
        world.crash(index);
        let site = &mut world.sites[index];
        site.disk.promised = Some(Epoch {
            counter: u64::MAX,
            leader: site.id,
            incarnation: Incarnation(site.incarnation),
        });
        world.start(index);
    }
    let leads = |world: &World| (0..2).any(|index| world.role(index) == Some(Role::Leading));
    assert!(!world.run_until(5_000, leads));
    world.check().unwrap();
}
