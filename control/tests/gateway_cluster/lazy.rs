//! A cluster that asks its peer where it stands when it needs to know (R33, R37, RFC 6311 section 7).

use std::time::Duration;

use hitless::gateway::Event;
use hitless::ike;
use hitless::ike::settings::SyncAfterTakeover;
use hitless::lab::Topology;

use crate::world::World;

const INFORMATIONAL: u8 = 37;

#[test]
fn rfc6311_r33_r37_a_lazy_cluster_asks_when_esp_needs_it_and_says_so_until_then() {
    let topology = Topology {
        takeover: "message-id-sync",
        ..Topology::new(2, "open sesame".to_owned())
    };
    let members = (1..=2).map(|id| {
        let mut config = topology.member(id).unwrap();
        for connection in &mut config.connections {
            connection.roads.sync_after_takeover = SyncAfterTakeover::Lazy;
        }
        config
    });
    let mut world = World::with(601, members.collect(), topology.peer().unwrap());
    world.come_up();
    world.traffic = false;
    world.run(Duration::from_millis(100));
    let active = world.leader().unwrap();
    let crash = world.now;
    world.kill(active);
    world.until("a takeover", |world| world.leader().is_some());
    let standby = world.leader().unwrap();
    world.run(Duration::from_secs(2));
    assert!(!world.exchanges_since(crash).contains(&INFORMATIONAL));
    let waiting = |world: &mut World| {
        let now = world.now;
        let gateway = world.gateway(standby);
        let text = hitless::api::cluster(&gateway.cluster(now));
        let told = text.contains("waiting to be synchronised: 1 IKE SAs");
        let metrics = hitless::api::metrics(&gateway.metrics(now));
        let figure = metrics.contains("hitless_unsynchronised_ike_sas 1\n");
        assert_eq!(told, figure, "{text}");
        told
    };
    assert!(waiting(&mut world));
    // The peer's numbers count as seen.
    world.traffic = true;
    world.run(Duration::from_millis(200));
    world.traffic_flows();
    assert!(!waiting(&mut world));
    world.run(Duration::from_secs(1));
    let asked = |(_, who, event): &&(_, u8, Event)| {
        let sent = matches!(event, Event::Ike(ike::Event::MessageIdSyncSent { .. }));
        *who == standby && sent
    };
    assert_eq!(world.events.iter().filter(asked).count(), 1, "R35");
    world.audit();
}
