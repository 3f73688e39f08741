//! Output commit (S4) in the whole gateway: what leaves when, and what never does.

use std::time::Duration;

use hitless::gateway::Event;
use hitless::ike::{self, Input};

use crate::world::{PEER, World};

const CREATE_CHILD_SA: u8 = 36;

/// The peer asks to rekey its Child SA.
fn peer_rekeys(world: &mut World) {
    let child = world.gateway(PEER).ike_sas()[0].1[0];
    world.ask(PEER, |gateway, now, entropy| {
        gateway.ike(now, entropy, Input::RekeyChild(child));
    });
}

fn rekeyed(world: &World, from: usize) -> bool {
    world.since(from).any(|(who, event)| {
        who == PEER && matches!(event, Event::Ike(ike::Event::ChildRekeyed { .. }))
    })
}

#[test]
fn an_answer_waits_for_the_standby() {
    let mut world = World::with_traffic(80);
    let active = world.leader().unwrap();
    // Whatever the standby says is lost: the active hears no acknowledgement.
    world.network.fate = Some(Box::new(move |from, _, _| from == active));
    world.run(Duration::from_millis(2));
    let (from, asked) = (world.events.len(), world.now);
    peer_rekeys(&mut world);
    world.run(Duration::from_millis(20));
    assert!(world.status(active).sync.held > 0);
    assert!(world.status(active).sync.lag >= 10);
    // The peer repeats its request: what is held may not leave as a repetition either.
    let frames: Vec<Vec<u8>> = world
        .outside
        .capture()
        .iter()
        .filter(|c| c.at >= asked && c.port == 0 && c.frame.get(23) == Some(&17))
        .map(|c| c.frame.clone())
        .collect();
    for frame in &frames {
        assert!(world.outside.inject(frame));
    }
    world.run(Duration::from_millis(10));
    let sent =
        world.outside.capture().iter().filter(|c| {
            c.at >= asked && c.port == usize::from(active) && c.frame.get(23) == Some(&17)
        });
    assert_eq!(sent.count(), 0);
    assert!(!rekeyed(&world, from));
    // As soon as it is heard again, the answer leaves.
    world.network.fate = None;
    world.until("the answer", |world| rekeyed(world, from));
    assert_eq!(world.status(active).sync.held, 0);
    world.traffic_flows();
    world.audit();
}

#[test]
fn keys_that_a_silent_standby_may_know_are_made_anew() {
    // Hole D0: the exchange was offered and never acknowledged.
    let mut world = World::with_traffic(81);
    let active = world.leader().unwrap();
    world.kill(3 - active);
    world.run(Duration::from_millis(1));
    let (from, asked) = (world.events.len(), world.now);
    peer_rekeys(&mut world);
    world.until("new keys", |world| rekeyed(world, from));
    assert!(
        world.now.since(asked) >= Duration::from_millis(55),
        "D must pass first"
    );
    assert_eq!(world.status(active).sync.held, 0);
    assert!(world.exchanges_since(asked).contains(&CREATE_CHILD_SA));
    world.traffic_flows();
    let unusable = world.happened(active, |event| matches!(event, Event::Unusable { .. }));
    assert!(!unusable);
    world.audit();
}

#[test]
fn an_ike_sa_of_which_nothing_was_released_leaves_nothing_behind() {
    let mut world = World::with_traffic(82);
    let active = world.leader().unwrap();
    world.kill(PEER);
    world.kill(3 - active);
    world.run(Duration::from_millis(1));
    let from = world.events.len();
    world.start(PEER);
    world.run(Duration::from_millis(500));
    // The old IKE SA is still there; of the new one nothing, neither here nor for a standby.
    let sas = world.list_sas(active).len() as u64;
    assert_eq!(world.status(active).sync.objects, sas);
    world.until("a tunnel", |world| {
        world.since(from).any(|(who, event)| {
            who == PEER && matches!(event, Event::Ike(ike::Event::ChildEstablished { .. }))
        })
    });
    world.traffic_flows();
    let status = world.status(active);
    assert_eq!(status.sync.objects, world.list_sas(active).len() as u64);
    world.start(3 - active);
    world.until("a standby", World::standby_is_ready);
    assert_eq!(
        world.list_sas(3 - active).len(),
        world.list_sas(active).len()
    );
    world.audit();
}
