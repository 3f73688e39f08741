//! An IKE SA with more than one record has room for.

use std::net::Ipv4Addr;

use hitless::config::Config;
use hitless::gateway::Event;
use hitless::ike;
use hitless::lab::Topology;
use hitless_sa::TrafficSelector;
use hitless_sync::Event as SyncEvent;

use crate::world::{PEER, World};

/// Hosts that each further child protects, and how many of these children there are: together their
/// selectors take far more than a record.
const HOSTS: u8 = 200;
const FURTHER: u8 = 20;

/// Gives the connection of a member, or of the peer, more children.
fn give_children(config: &mut Config, member: bool) {
    let one =
        |address: [u8; 4]| TrafficSelector::prefix(Ipv4Addr::from(address).into(), 32).unwrap();
    let children = &mut config.connections[0].children;
    for number in 0..FURTHER {
        let hosts = (0..HOSTS).map(|host| one([20, 77, number, host]));
        let ends = (hosts.collect(), vec![one([30, 77, number, 1])]);
        let mut child = children[0].clone();
        // Begun in the order of their names: behind the one that has the traffic.
        child.name = format!("other{number}");
        (child.local_ts, child.remote_ts) = match member {
            true => ends,
            false => (ends.1, ends.0),
        };
        children.push(child);
    }
}

fn established(world: &World, who: u8) -> usize {
    let made = |event: &&Event| matches!(event, Event::Ike(ike::Event::ChildEstablished { .. }));
    let of = world.events.iter().filter(|(_, by, _)| *by == who);
    of.map(|(_, _, event)| event).filter(made).count()
}

#[test]
fn a_child_too_many_for_the_record_is_refused_and_the_others_go_on() {
    let topology = Topology::new(2, "open sesame".to_owned());
    let mut members: Vec<Config> = (1..=2).map(|id| topology.member(id).unwrap()).collect();
    let mut peer = topology.peer().unwrap();
    for member in &mut members {
        give_children(member, true);
    }
    give_children(&mut peer, false);
    let mut world = World::with(93, members, peer);
    world.until("a refusal", |world| {
        let refused = |event: &SyncEvent| matches!(event, SyncEvent::CommitRefused { .. });
        (0..=2).any(|who| world.sync_happened(who, refused))
    });
    let spi = world.list_sas(PEER)[0].initiator_spi.clone();
    // The peer asks again, and is told that there is no more room (RFC 7296 section 1.3).
    world.run(std::time::Duration::from_secs(3));
    world.come_up();
    let count = established(&world, PEER);
    assert!(
        (2..usize::from(FURTHER)).contains(&count),
        "{count} children"
    );
    world.traffic_flows();
    let sas = world.list_sas(PEER);
    assert_eq!(sas.len(), 1);
    assert_eq!(sas[0].initiator_spi, spi, "the IKE SA is the same");
    let given_up = |event: &Event| matches!(event, Event::Unreadable { .. });
    assert!(!(0..=2).any(|who| world.happened(who, given_up)));
    world.audit();
}
