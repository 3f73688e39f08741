//! Grants keep ahead of traffic that grows: no worker waits for one.

use std::time::Duration;

use hitless::audit::Permits;
use hitless::lab::Topology;

use crate::world::World;

/// Numbers that a worker wanted and did not have.
fn stalls(world: &mut World, who: u8) -> u64 {
    let leases = world.status(who).leases;
    leases.iter().map(|lease| lease.stalls).sum()
}

#[test]
fn a_flow_that_grows_a_hundredfold_never_waits_for_a_grant() {
    for seed in [140, 141] {
        let topology = Topology {
            // 32-bit numbers have the shortest leases.
            esp_proposal: "aes256gcm16-x25519",
            ..Topology::new(2, "open sesame".to_owned())
        };
        let mut world = World::of(seed, &topology);
        world.come_up();
        let active = world.leader().unwrap();
        let grant = |world: &mut World| world.status(active).leases[0].grant;
        let first = grant(&mut world);
        for pace in [100, 10, 1] {
            world.pace = Duration::from_millis(pace);
            world.run(Duration::from_secs(2));
            assert_eq!(stalls(&mut world, active), 0, "every {pace} ms");
        }
        world.traffic = false;
        world.run(Duration::from_millis(50));
        assert_eq!(stalls(&mut world, active), 0);
        assert!(grant(&mut world) > first);
        // What came too early for the high water waited, and was delivered.
        assert_eq!(world.drops(active, "high_water"), 0);
        assert_eq!(world.a.sent().len(), world.received()[1]);
        assert_eq!(world.b.sent().len(), world.received()[0]);
        world.audit();
    }
}

/// S5, as the ledgers of both say it: what the dead member was granted is not its successor's, not even
/// what it had not sent.
#[test]
fn s5_the_ledger_of_a_successor_begins_above_all_that_its_predecessor_was_granted() {
    let topology = Topology::new(2, "open sesame".to_owned());
    let members = (1..=2).map(|id| {
        let mut config = topology.member(id).unwrap();
        config.control.grant_log = Some("/nowhere".into());
        config
    });
    let mut world = World::with(142, members.collect(), topology.peer().unwrap());
    world.come_up();
    world.run(Duration::from_secs(1));
    let active = world.leader().unwrap();
    let permits = |world: &World, who| Permits::parse(&world.ledger(who).join("\n")).unwrap();
    let before = permits(&world, active);
    world.kill(active);
    world.until("a takeover", |world| world.leader().is_some());
    world.traffic_flows();
    world.run(Duration::from_secs(1));
    let after = permits(&world, 3 - active);
    let spi = world.esp().last().unwrap().spi;
    let last = before.last(spi).unwrap();
    assert!(after.last(spi).unwrap() > last + 1);
    let first = (1..).find(|number| after.holds(spi, *number)).unwrap();
    assert!(first > last, "{first} after {last}");
    // And what it leaves out is the predecessor's rest.
    assert!(after.greatest_gap(spi).unwrap() >= first - last);
    world.audit();
}
