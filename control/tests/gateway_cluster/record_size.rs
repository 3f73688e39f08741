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
const HOSTS: u8 = 120;
const FURTHER: u8 = 20;

/// Gives the connection more children, each between hosts of its own.
fn give_children(config: &mut Config, local: u8, remote: u8) {
    let hosts = |net: u8, child: u8| {
        let host = move |host| Ipv4Addr::new(net, 77, child, 2 * host);
        let one = move |number| TrafficSelector::prefix(host(number).into(), 32).unwrap();
        (0..HOSTS).map(one).collect::<Vec<_>>()
    };
    let children = &mut config.connections[0].children;
    for number in 0..FURTHER {
        let mut child = children[0].clone();
        child.name = format!("further{number}");
        child.local_ts = hosts(local, number);
        child.remote_ts = hosts(remote, number);
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
        give_children(member, 20, 30);
    }
    give_children(&mut peer, 30, 20);
    let mut world = World::with(93, members, peer);
    world.until("a refusal", |world| {
        let refused = |event: &SyncEvent| matches!(event, SyncEvent::CommitRefused { .. });
        (0..=2).any(|who| world.sync_happened(who, refused))
    });
    world.come_up();
    let before = established(&world, PEER);
    assert!(
        (2..usize::from(FURTHER)).contains(&before),
        "{before} children"
    );
    let spi = world.list_sas(PEER)[0].initiator_spi.clone();
    world.run(std::time::Duration::from_secs(2));
    world.traffic_flows();
    let sas = world.list_sas(PEER);
    assert_eq!(sas.len(), 1);
    assert_eq!(sas[0].initiator_spi, spi, "the IKE SA is the same");
    assert!(
        !(0..=2).any(|who| world.happened(who, |event| matches!(event, Event::Unreadable { .. })))
    );
    world.audit();
}
