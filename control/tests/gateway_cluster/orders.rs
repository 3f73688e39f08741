//! How what an operator orders comes out, for one who waits for it.

use std::time::Duration;

use hitless::api::Choice;
use hitless::entropy::SeededEntropy;
use hitless::gateway::{Gateway, Ordered, Progress};
use hitless::lab::Topology;
use hitless_sa::Instant;

use crate::world::{PEER, World};

const PATIENCE: Duration = Duration::from_secs(30);

fn of(ike: Option<&str>, child: Option<&str>) -> Choice {
    Choice {
        ike: ike.map(str::to_owned),
        child: child.map(str::to_owned),
        ..Choice::default()
    }
}

/// What comes of an order, and after how long.
fn outcome(
    world: &mut World,
    who: u8,
    give: impl FnOnce(&mut Gateway, Instant, &mut SeededEntropy) -> Result<Ordered, String>,
) -> (Progress, Duration) {
    let mut heard = world.events.len();
    let mut ordered = None;
    world.ask(who, |gateway, now, entropy| {
        ordered = Some(give(gateway, now, entropy).unwrap());
    });
    let (mut ordered, began) = (ordered.unwrap(), world.now);
    loop {
        for (_, _, event) in world.events[heard..].iter().filter(|(_, by, _)| *by == who) {
            ordered.hears(event);
        }
        heard = world.events.len();
        let now = world.now;
        let progress = world.gateway(who).progress(now, &mut ordered);
        let took = now.since(began);
        if progress == Progress::Waits && took >= PATIENCE {
            return (Progress::Failed(ordered.given_up()), took);
        }
        if progress != Progress::Waits {
            return (progress, took);
        }
        world.run(Duration::from_millis(10));
    }
}

fn done(outcome: (Progress, Duration)) -> String {
    let (progress, took) = outcome;
    assert!(took < Duration::from_secs(2), "{took:?}");
    let Progress::Done(message) = progress else {
        panic!("{progress:?}");
    };
    message
}

fn failed(outcome: (Progress, Duration)) -> (String, Duration) {
    let (progress, took) = outcome;
    let Progress::Failed(reason) = progress else {
        panic!("{progress:?}");
    };
    (reason, took)
}

#[test]
fn an_order_is_done_when_its_effect_is_there() {
    let mut world = World::new(71);
    world.come_up();
    let before = world.list_sas(PEER)[0].clone();
    let child = outcome(&mut world, PEER, |g, now, e| {
        g.rekey(now, e, &of(None, Some("net")))
    });
    assert_eq!(done(child), "rekeyed 1 CHILD_SA");
    let ike = outcome(&mut world, PEER, |g, now, e| {
        g.rekey(now, e, &of(Some("tunnel"), None))
    });
    assert_eq!(done(ike), "rekeyed 1 IKE_SA");
    let after = world.list_sas(PEER);
    let newest = after.last().unwrap();
    assert_ne!(newest.initiator_spi, before.initiator_spi);
    assert!(
        newest
            .children
            .iter()
            .all(|c| c.spi_in != before.children[0].spi_in)
    );

    let closed = outcome(&mut world, PEER, |g, now, e| {
        g.terminate(now, e, &of(Some("tunnel"), None))
    });
    let message = done(closed);
    assert!(
        message.starts_with("closed 1 IKE_SA; start_action starts tunnel.net"),
        "{message}"
    );
    assert!(world.list_sas(PEER).is_empty());

    let up = outcome(&mut world, PEER, |g, now, e| {
        g.initiate(now, e, "net", None)
    });
    assert_eq!(done(up), "tunnel.net is up");
    world.traffic_flows();
    let again = outcome(&mut world, PEER, |g, now, e| {
        g.initiate(now, e, "net", None)
    });
    assert_eq!(again.1, Duration::ZERO, "it is up already");
    done(again);

    let active = world.leader().unwrap();
    let over = outcome(&mut world, active, |g, now, e| g.switch_over(now, e));
    assert_eq!(done(over), format!("member {} leads", 3 - active));
    assert_eq!(world.leader(), Some(3 - active));
    world.traffic_flows();
    world.audit();
}

#[test]
fn an_order_fails_with_what_the_peer_said() {
    let topology = Topology::new(2, "open sesame".to_owned());
    let members = (1..=2).map(|id| topology.member(id).unwrap()).collect();
    let mut peer = Topology::new(2, "close sesame".to_owned()).peer().unwrap();
    let children = &mut peer.connections[0].children;
    children.iter_mut().for_each(|child| child.start = false);
    let mut world = World::with(72, members, peer);
    world.run(Duration::from_secs(5));
    let refused = outcome(&mut world, PEER, |g, now, e| {
        g.initiate(now, e, "net", None)
    });
    let (reason, took) = failed(refused);
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(
        reason.starts_with("tunnel.net is not up: 192.0.2.") && reason.contains("AUTHENTICATION"),
        "{reason}"
    );
}

#[test]
fn nobody_waits_for_ever_for_a_peer_that_is_silent() {
    let mut world = World::new(73);
    world.come_up();
    let closed = outcome(&mut world, PEER, |g, now, e| {
        g.terminate(now, e, &of(Some("tunnel"), None))
    });
    done(closed);
    for member in [1, 2] {
        world.kill(member);
    }
    let silent = outcome(&mut world, PEER, |g, now, e| {
        g.initiate(now, e, "net", None)
    });
    let (reason, took) = failed(silent);
    assert!(took >= PATIENCE, "{took:?}");
    assert_eq!(reason, "still initiating tunnel.net: no answer yet");
}
