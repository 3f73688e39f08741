//! Lifetimes by traffic, a whole cluster that restarts, and what an operator asks for.

use std::time::Duration;

use hitless::api::Choice;
use hitless::config::Config;
use hitless::gateway::{Event, Gateway};
use hitless::ike;
use hitless::ike::sessions::Volume;
use hitless::lab::Topology;
use hitless_dataplane::port::memory;

use crate::world::{PEER, World};

const SECOND: Duration = Duration::from_secs(1);

/// Every member's configuration and the peer's, changed.
fn world(seed: u64, count: u8, change: impl Fn(&mut Config, bool)) -> World {
    let topology = Topology::new(count, "open sesame".to_owned());
    let mut members: Vec<Config> = (1..=count).map(|id| topology.member(id).unwrap()).collect();
    let mut peer = topology.peer().unwrap();
    members.iter_mut().for_each(|member| change(member, true));
    change(&mut peer, false);
    let mut world = World::with(seed, members, peer);
    world.come_up();
    world
}

fn rekeyed(world: &World) -> usize {
    let of_child = |event: &Event| matches!(event, Event::Ike(ike::Event::ChildRekeyed { .. }));
    let events = world.events.iter();
    events
        .filter(|(_, who, e)| *who != PEER && of_child(e))
        .count()
}

fn packets(world: &mut World, who: u8) -> u64 {
    let sas = world.list_sas(who);
    sas[0]
        .children
        .iter()
        .map(|child| child.packets_in)
        .max()
        .unwrap()
}

/// A successor counts on where the last checkpoint of its predecessor was, and so replaces the SA
/// when the traffic of both together says so.
#[test]
fn packets_are_counted_on_after_a_takeover_and_bound_the_life_of_a_key() {
    let limit = 4000;
    // Of three, so that the successor has a standby and no other reason to rekey.
    let mut world = world(41, 3, |config, ours| {
        if ours {
            let lifetimes = &mut config.connections[0].children[0].lifetimes;
            lifetimes.packets = Volume {
                rekey: limit,
                life: 0,
                rand: 0,
            };
        }
    });
    let active = world.leader().unwrap();
    world.until("half of it", |world| packets(world, active) >= limit / 2);
    assert_eq!(rekeyed(&world), 0);
    let before = packets(&mut world, active);
    world.kill(active);
    world.until("a takeover", |world| world.leader().is_some());
    world.traffic_flows();
    let successor = world.leader().unwrap();
    let after = packets(&mut world, successor);
    assert!(after + 500 > before, "{before}, then {after}");
    let taken_over = world.now;
    world.until("a rekeying", |world| rekeyed(world) > 0);
    // A packet a millisecond: far less than the whole limit took.
    let rest = world.now.since(taken_over);
    assert!(rest < Duration::from_millis(limit * 3 / 4), "{rest:?}");
    world.run(SECOND);
    world.traffic_flows();
    world.audit();
}

/// RFC 6290: the whole cluster loses power, and any member that comes back makes the tokens that it
/// gave: the peer learns of it with the next liveness check that is answered.
#[test]
fn rfc6290_section_5_1_a_cluster_that_lost_everything_says_so_and_is_back() {
    let mut world = world(42, 2, |config, _| {
        let connection = &mut config.connections[0];
        connection.session.crash_detection = true;
        connection.dpd_delay = SECOND;
    });
    for member in [1, 2] {
        world.kill(member);
    }
    let dark = world.now;
    for member in [1, 2] {
        world.start(member);
    }
    world.until("a leader", |world| world.leader().is_some());
    let back = world.now;
    world.until("the end of the old one", |world| {
        world.happened(PEER, |event| match event {
            Event::Ike(ike::Event::IkeDeleted { reason, .. }) => reason.contains("6290"),
            _ => false,
        })
    });
    assert!(
        world.now.since(back) < SECOND * 3,
        "{:?}",
        world.now.since(back)
    );
    world.traffic_flows();
    assert!(world.now.since(dark) < SECOND * 12);
    world.audit();
}

/// RFC 6290 section 8: it leads on nothing behind a cut link, and the other one carries the IKE SA that it
/// made itself before it died.
#[test]
fn rfc6290_section_8_no_token_for_an_ike_sa_that_another_member_may_carry() {
    let mut world = world(44, 2, |config, _| {
        let connection = &mut config.connections[0];
        connection.session.crash_detection = true;
        connection.dpd_delay = SECOND;
    });
    let first = world.leader().unwrap();
    let peers = world.gateway(PEER).ike_sas();
    world.kill(first);
    world.until("a takeover", |world| world.leader().is_some());
    world.traffic_flows();
    world.traffic = false;
    // Nobody hears it, and what the peer sends goes to the one that leads last.
    let second = world.leader().unwrap();
    let (nowhere, _) = memory::link(64, 1500);
    world.outside.plug(usize::from(second), nowhere);
    world.network.isolated.insert(first);
    world.start(first);
    world.until("both to lead", |world| world.leaders().len() == 2);
    world.until("a liveness check", |world| {
        let reasons = [
            "ike_unknown_ike_sa",
            "ike_unknown_ike_sa__crash_token_shown",
        ];
        reasons.map(|reason| world.drops(first, reason)) != [0, 0]
    });
    world.run(SECOND);
    assert_eq!(world.gateway(PEER).ike_sas(), peers);
}

fn said<T: ToString>(
    world: &mut World,
    who: u8,
    ask: impl FnOnce(
        &mut Gateway,
        hitless_sa::Instant,
        &mut hitless::entropy::SeededEntropy,
    ) -> Result<T, String>,
) -> Result<String, String> {
    let mut result = Err(String::new());
    world.ask(who, |gateway, now, entropy| {
        result = ask(gateway, now, entropy).map(|said| said.to_string());
    });
    result
}

fn choice(ike: Option<&str>, child: Option<&str>) -> Choice {
    Choice {
        ike: ike.map(str::to_owned),
        child: child.map(str::to_owned),
        ..Choice::default()
    }
}

#[test]
fn an_operator_rekeys_closes_and_brings_up_by_name() {
    let mut world = world(43, 2, |_, _| {});
    let active = world.leader().unwrap();
    let standby = 3 - active;
    let child = || choice(None, Some("net"));
    let refused = said(&mut world, standby, |g, now, e| g.rekey(now, e, &child()));
    assert!(refused.unwrap_err().contains("not active"));
    let refused = said(&mut world, active, |g, now, e| {
        g.rekey(now, e, &choice(Some("nobody"), None))
    });
    assert!(refused.unwrap_err().contains("list-sas"));
    // Nothing named is nothing meant.
    let refused = said(&mut world, active, |g, now, e| {
        g.terminate(now, e, &Choice::default())
    });
    assert!(refused.is_err());

    let done = said(&mut world, active, |g, now, e| g.rekey(now, e, &child()));
    assert_eq!(done.unwrap(), "rekeying 1 CHILD_SA");
    world.until("a rekeying", |world| rekeyed(world) == 1);
    world.traffic_flows();

    let done = said(&mut world, PEER, |g, now, e| g.terminate(now, e, &child()));
    let again = "start_action starts tunnel.net again at a takeover or a reload";
    assert_eq!(done.unwrap(), format!("closing 1 CHILD_SA; {again}"));
    world.run(SECOND * 5);
    assert!(
        world.list_sas(PEER)[0].children.is_empty(),
        "and it stays closed"
    );
    let done = said(&mut world, PEER, |g, now, e| {
        g.initiate(now, e, "net", None)
    });
    assert!(done.unwrap().contains("tunnel.net"));
    world.run(SECOND);
    world.traffic_flows();

    let ike = || choice(Some("tunnel"), None);
    let done = said(&mut world, PEER, |g, now, e| g.terminate(now, e, &ike()));
    assert_eq!(done.unwrap(), format!("closing 1 IKE_SA; {again}"));
    world.run(SECOND * 5);
    assert!(world.list_sas(PEER).is_empty() && world.list_sas(active).is_empty());
    let refused = said(&mut world, active, |g, now, e| {
        g.initiate(now, e, "nett", None)
    });
    assert!(refused.unwrap_err().contains("nett"));
    let done = said(&mut world, PEER, |g, now, e| {
        g.initiate(now, e, "net", Some("tunnel"))
    });
    done.unwrap();
    world.run(SECOND);
    world.traffic_flows();
    world.audit();
}

/// RFC 5685 section 5, by command: the peer is the client, and says so in the initial exchange.
#[test]
fn an_operator_sends_a_client_to_another_gateway() {
    let mut world = world(45, 2, |_, _| {});
    let active = world.leader().unwrap();
    let to = |last| std::net::IpAddr::from([192, 0, 2, last]);
    let tunnel = || choice(Some("tunnel"), None);
    let refused = said(&mut world, 3 - active, |g, now, e| {
        g.redirect(now, e, &tunnel(), to(77))
    });
    assert!(refused.unwrap_err().contains("not active"));
    let refused = said(&mut world, active, |g, now, e| {
        g.redirect(now, e, &choice(None, Some("net")), to(77))
    });
    assert!(refused.unwrap_err().contains("all its SAs"));
    // A gateway does not go where its client sends it.
    let refused = said(&mut world, PEER, |g, now, e| {
        g.redirect(now, e, &tunnel(), to(77))
    });
    assert!(refused.unwrap_err().contains("none was redirected"));
    let here = world.list_sas(active)[0].local_host.parse().unwrap();
    let refused = said(&mut world, active, |g, now, e| {
        g.redirect(now, e, &tunnel(), here)
    });
    assert!(refused.unwrap_err().contains("there already"));
    world.traffic_flows();
    let done = said(&mut world, active, |g, now, e| {
        g.redirect(now, e, &tunnel(), to(77))
    });
    assert_eq!(done.unwrap(), "redirecting 1 IKE_SA to 192.0.2.77");
    world.until("the client asks the other gateway", |world| {
        let sas = world.list_sas(PEER);
        sas.iter().any(|sa| sa.remote_host == "192.0.2.77")
    });
    // Which is nowhere: until this one closes the IKE SA nothing is lost.
    world.traffic_flows();
    world.audit();
}

#[test]
fn a_reload_leaves_alone_what_did_not_change() {
    let mut world = world(44, 2, |_, _| {});
    let mut config = Topology::new(2, "open sesame".to_owned()).peer().unwrap();
    let mut restart = config.clone();
    restart.ports[0].addresses.clear();
    let refused = said(&mut world, PEER, |g, now, e| g.reload(now, e, restart));
    assert!(refused.unwrap_err().contains("[ports]"));

    let before = world.list_sas(PEER)[0].children[0].spi_in.clone();
    config.connections[0].children[0].rekey_time = SECOND * 77;
    let same = config.clone();
    let done = said(&mut world, PEER, |g, now, e| g.reload(now, e, same));
    assert_eq!(
        done.unwrap(),
        "connections loaded: 1; IKE_SAs that stay: 1, SAs closed: 0"
    );
    world.run(SECOND);
    assert_eq!(world.list_sas(PEER)[0].children[0].spi_in, before);
    world.traffic_flows();
    // The new settings hold for what is made from now on.
    said(&mut world, PEER, |g, now, e| {
        g.rekey(now, e, &choice(None, Some("net")))
    })
    .unwrap();
    world.run(SECOND * 2);
    let child = world.list_sas(PEER)[0].children[0].clone();
    assert_ne!(child.spi_in, before);
    assert!(child.rekey_time.unwrap() <= 77);
    world.traffic_flows();

    // A connection that is gone is closed, and comes back with the file.
    let mut without = config.clone();
    without.connections.clear();
    let done = said(&mut world, PEER, |g, now, e| g.reload(now, e, without));
    assert_eq!(
        done.unwrap(),
        "connections loaded: 0; IKE_SAs that stay: 0, SAs closed: 1"
    );
    world.run(SECOND * 3);
    assert!(world.list_sas(PEER).is_empty());
    said(&mut world, PEER, |g, now, e| g.reload(now, e, config)).unwrap();
    world.run(SECOND * 2);
    world.traffic_flows();
    world.audit();
}
