//! How long an election takes (`lease-holes` R10): what a copy vouches for does not last (R16).

mod cluster;

use std::time::Duration;

use cluster::{Weather, World};

/// Of the 60 ms for which a gateway's copies vouch, a death takes 30 to be noticed, and the newest echo
/// is older than the leader's last word by a heartbeat and a round trip. An election that waits for
/// heartbeats, for that of a voter that heard the leader a moment later, or for one behind a write, takes
/// the rest.
#[test]
fn r16_an_election_leaves_message_ids_exact() {
    let mut late = Vec::new();
    for seed in 1..=60 {
        let mut world = World::with(seed, 3, Weather::CALM, |settings| {
            settings.vouch = Duration::from_millis(60);
        });
        world.restarts = false;
        world.keep_leads = true;
        assert!(world.run_until(3_000, World::settled), "{seed}");
        let leader = world.leader().expect("it is settled");
        world.run(200 + seed % 10);
        let died = world.now;
        world.crash(leader);
        assert!(world.run_until(200, |world| world.leader().is_some_and(|it| it != leader)));
        let successor = world.leader().expect("somebody leads");
        let (_, objects) = world.sites[successor].leads.last().expect("it leads");
        if !objects.iter().all(|object| object.exact) {
            late.push((seed, (world.now - died) / 1_000_000));
        }
        world.check().unwrap();
    }
    assert_eq!(late, []);
}
