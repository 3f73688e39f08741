//! Grants keep ahead of traffic that grows: no worker waits for one.

use std::time::Duration;

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
