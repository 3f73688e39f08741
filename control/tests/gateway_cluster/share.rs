//! Very much that is due at one instant: each turn does a share of it, and heartbeats go on.

use std::collections::BTreeSet;
use std::time::Duration;

use hitless::api::{Choice, IkeState};
use hitless::config::Config;
use hitless::gateway::Event;
use hitless::ike::Input;
use hitless::ike::settings::{Childless, Connection, Cookies, Unique};
use hitless::ike::work::Share;
use hitless::lab::Topology;

use crate::world::{PEER, World};

const IKE_SAS: usize = 5_000;

/// A cluster with so many clients to come, all behind one address, without Child SAs.
pub fn before_a_crowd(seed: u64, clients: usize) -> World {
    before_a_crowd_with(seed, clients, |_| {})
}

/// The same with members as they are told.
pub fn before_a_crowd_with(seed: u64, clients: usize, tell: impl Fn(&mut Config)) -> World {
    let childless = |client: &mut Connection| {
        client.roads.childless = Childless::Force;
        client.children.clear();
    };
    before_a_crowd_in(seed, clients, childless, tell)
}

/// The same with clients as they are made.
pub fn before_a_crowd_of(seed: u64, clients: usize, make: impl Fn(&mut Connection)) -> World {
    before_a_crowd_in(seed, clients, make, |_| {})
}

fn before_a_crowd_in(
    seed: u64,
    clients: usize,
    make: impl Fn(&mut Connection),
    tell: impl Fn(&mut Config),
) -> World {
    let topology = Topology::new(2, "open sesame".to_owned());
    let alike = |config: &mut Config| {
        config.connections[0].roads.unique = Unique::Never;
        config.ike.cookies = Cookies::Never;
        config.ike.init_limit_half_open = clients;
        config.ike.block_threshold = clients;
        (config.ike.init_rate, config.ike.init_rate_ip) = (0, 0);
        config.ike.ikesa_limit_id = 0;
    };
    let members = [1, 2].map(|id| {
        let mut config = topology.member(id).unwrap();
        alike(&mut config);
        tell(&mut config);
        config
    });
    let mut peer = topology.peer().unwrap();
    alike(&mut peer);
    for n in 1..clients {
        let mut client = peer.connections[0].clone();
        client.name = format!("client-{n}");
        make(&mut client);
        peer.connections.push(client);
    }
    let mut world = World::with(seed, members.into(), peer);
    world.come_up();
    world.traffic = false;
    world
}

/// All of them begin.
pub fn crowd_in(world: &mut World, clients: usize) {
    world.ask(PEER, |gateway, now, entropy| {
        for n in 1..clients {
            let connection = format!("client-{n}");
            let child = None;
            gateway.ike(now, entropy, Input::Initiate { connection, child });
        }
    });
}

fn crowded(seed: u64) -> World {
    let mut world = before_a_crowd(seed, IKE_SAS);
    crowd_in(&mut world, IKE_SAS);
    now_and_then(&mut world, "all clients", |world| {
        let active = world.leader().unwrap();
        let sas = world.list_sas(active);
        let up = sas.iter().filter(|sa| sa.state == IkeState::Established);
        up.count() == IKE_SAS
    });
    world
}

/// A look at thousands of them costs more than the steps in between.
fn now_and_then(world: &mut World, what: &str, mut so: impl FnMut(&mut World) -> bool) {
    for _ in 0..1_000 {
        world.run(Duration::from_millis(50));
        if so(world) {
            return;
        }
    }
    panic!("{what}");
}

/// Packets have their share, and so do timers and orders; each may be exceeded by one piece of work.
const MOST: u64 = 2 * Share::OF_A_TURN + 3 * 300;

#[test]
fn thousands_of_rekeyings_and_deletions_at_one_instant_leave_turns_short() {
    let mut world = crowded(90);
    let active = world.leader().unwrap();
    let since = world.events.len();
    let all = Choice {
        ike: Some("tunnel".to_owned()),
        ..Choice::default()
    };
    let old = world.gateway(active).ike_sas();
    let old: BTreeSet<_> = old.into_iter().map(|(sa, _)| sa).collect();
    world.busiest.clear();
    world.ask(active, |gateway, now, entropy| {
        let share = Share::new(MOST);
        let told = gateway.rekey(now, entropy, &all).unwrap();
        assert_eq!(told.to_string(), format!("rekeying {IKE_SAS} IKE_SAs"));
        assert!(!share.is_spent(), "{}", share.used());
    });
    now_and_then(&mut world, "all of them rekeyed", |world| {
        let sas = world.gateway(active).ike_sas();
        sas.len() == IKE_SAS && sas.iter().all(|(sa, _)| !old.contains(sa))
    });
    assert!(world.busiest[&active] > Share::OF_A_TURN / 2);
    world.ask(active, |gateway, now, entropy| {
        let share = Share::new(MOST);
        let told = gateway.terminate(now, entropy, &all).unwrap();
        assert_eq!(told.to_string(), format!("closing {IKE_SAS} IKE_SAs"));
        assert!(!share.is_spent(), "{}", share.used());
    });
    now_and_then(&mut world, "all of them closed", |world| {
        world.gateway(active).ike_sas().is_empty()
    });
    assert!(world.busiest[&active] <= MOST, "{:?}", world.busiest);
    // Nobody was suspected meanwhile.
    world.run(Duration::from_millis(500));
    assert_eq!(world.leader(), Some(active));
    let leads = |event: &Event| matches!(event, Event::Leads { .. });
    assert!(!world.since(since).any(|(_, event)| leads(event)));
    world.audit();
}
