//! A member that holds the cluster's key and lies about what it has recorded (S7, and the list in
//! the crate's documentation): the leader's numbers stay unique, and the lie ends with its session.
//! What the liar repeats if it takes over itself is its own doing, and is the mutant
//! `ack_unrecorded` of `simulation.rs` and of the simulator.

mod cluster;

use cluster::intercept::{CHECKSUM, sealed};
use cluster::{Weather, World};
use hitless_sa::{MemberId, SaId};

const ONE: MemberId = MemberId(1);
const TWO: MemberId = MemberId(2);

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The packet says more than its sender has done: every record is applied, every lease recorded as
/// far as a number goes. Fields at the end of a protobuf message are added to, or replace, those
/// before.
fn lie(packet: &[u8], sas: &[SaId]) -> Vec<u8> {
    let mut body = packet[CHECKSUM..].to_vec();
    varint(&mut body, 30 << 3);
    varint(&mut body, u64::MAX);
    for sa in sas {
        let mut grant = Vec::new();
        let fields = [
            u64::from(sa.creator.0),
            u64::from(sa.incarnation.0),
            u64::from(sa.counter),
            u64::MAX,
            u64::MAX,
        ];
        for (tag, value) in (1u64..).zip(fields) {
            varint(&mut grant, tag << 3);
            varint(&mut grant, value);
        }
        varint(&mut body, 31 << 3 | 2);
        varint(&mut body, grant.len() as u64);
        body.extend_from_slice(&grant);
    }
    sealed(&body)
}

/// 1 leads, and for so long everything that 2 says claims too much.
fn lied_to(seed: u64, milliseconds: u64) -> World {
    let mut world = World::with(seed, 2, Weather::CALM, |_| {});
    world.keep_leads = true;
    world.restarts = false;
    assert!(world.run_until(2_000, World::settled));
    for _ in 0..milliseconds {
        let packets = world.intercept(TWO, ONE, 1);
        let sas: Vec<SaId> = world.sites[0].gateway.cells.keys().copied().collect();
        for packet in packets {
            world.launch(TWO, ONE, lie(&packet, &sas), 200_000);
        }
    }
    world
}

#[test]
fn a_lie_about_acknowledgements_repeats_no_number_of_the_leader() {
    for seed in 1..=4 {
        let mut world = lied_to(seed, 50);
        let before = world.oracle.packets;
        world = {
            let lied = lied_to(seed, 1_000);
            assert!(lied.oracle.packets > before, "traffic goes on");
            lied
        };
        assert_eq!(world.leader(), Some(0));
        world.check().unwrap();
        // What was acknowledged beyond the offer is cut to it: no lease is without an end.
        for cell in world.sites[0].gateway.cells.values() {
            assert!(cell.lease.grant.0 < 1 << 32, "{}", cell.lease.grant.0);
        }
    }
}

#[test]
fn a_lie_ends_with_the_session_of_the_liar() {
    for seed in 1..=4 {
        let mut world = lied_to(seed, 400);
        // It starts again and is honest: what it claimed before counts for nothing any more.
        world.crash(1);
        world.start(1);
        assert!(world.run_until(4_000, World::settled), "seed {seed}");
        world.run(300);
        let takeovers = world.oracle.takeovers;
        world.crash(0);
        world.run(500);
        assert_eq!(world.leader(), Some(1), "seed {seed}");
        assert!(world.oracle.takeovers > takeovers);
        world.check().unwrap();
    }
}
