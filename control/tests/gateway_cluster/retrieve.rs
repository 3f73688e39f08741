//! SA_Retr by SPI (draft-vidya-ipsec-failover-redundancy section 5.1.2).

use std::time::Duration;

use hitless::api;
use hitless::gateway::Event;
use hitless::ike::{self, Input};
use hitless::lab::MTU;
use hitless_dataplane::port::memory::{self, MemoryPort};

use crate::world::{PEER, World};

const IKE_AUTH: u8 = 35;

fn figure(world: &mut World, who: u8, event: &str) -> u64 {
    let now = world.now;
    let text = api::metrics(&world.gateway(who).metrics(now));
    let series = format!("hitless_sa_retr_total{{event=\"{event}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    value.unwrap().parse().unwrap()
}

/// The switches learn again that the cluster is behind this member.
fn draw_to(world: &mut World, member: u8) {
    let now = world.now;
    for switch in [&mut world.outside, &mut world.protected] {
        let announced = switch.capture().iter().find(|captured| {
            let frame = &captured.frame;
            captured.port == usize::from(member) && frame.get(12..14) == Some(&[0x08, 0x06])
        });
        let frame = announced.unwrap().frame.clone();
        switch.carry(now, usize::from(member), &frame);
    }
}

/// Two that lead, of whom `old` alone has a cable to the peer, and `new` stays in the end: of two that
/// inherit the later one wins, whatever the other one has made meanwhile.
struct Split {
    old: u8,
    new: u8,
    cables: [MemoryPort; 2],
}

impl Split {
    fn new(world: &mut World) -> Split {
        let new = world.leader().unwrap();
        let old = 3 - new;
        world.ask(new, |gateway, now, entropy| {
            gateway.switchover(now, entropy)
        });
        world.until("a switchover", |world| world.leader() == Some(old));
        world.until("a standby", World::standby_is_ready);
        world.network.isolated.insert(1);
        world.until("two leaders", |world| world.leaders().len() == 2);
        let cut = || memory::link(64, MTU).0;
        let outside = world.outside.plug(usize::from(new), cut());
        let protected = world.protected.plug(usize::from(new), cut());
        draw_to(world, old);
        Split {
            old,
            new,
            cables: [outside, protected],
        }
    }

    fn heal(self, world: &mut World) {
        let [outside, protected] = self.cables;
        world.outside.plug(usize::from(self.new), outside);
        world.protected.plug(usize::from(self.new), protected);
        world.network.isolated.clear();
        world.until("one leader", |world| world.leader().is_some());
        assert_eq!(world.leader(), Some(self.new));
        draw_to(world, self.new);
    }
}

#[test]
fn an_sa_that_a_deposed_member_made_alone_is_retrieved_by_its_spi_without_ike_auth() {
    let mut world = World::with_traffic(120);
    let split = Split::new(&mut world);
    let (old, new) = (split.old, split.new);
    let from = world.events.len();
    world.ask(PEER, |gateway, now, entropy| {
        let ike = gateway.ike_sas()[0].0;
        gateway.ike(now, entropy, Input::Terminate { ike });
    });
    world.run(Duration::from_secs(1));
    world.ask(PEER, |gateway, now, entropy| {
        if gateway.ike_sas().is_empty() {
            let connection = "tunnel".to_owned();
            let child = None;
            gateway.ike(now, entropy, Input::Initiate { connection, child });
        }
    });
    world.until("a tunnel with the old one", |world| {
        world.since(from).any(|(who, event)| {
            who == PEER && matches!(event, Event::Ike(ike::Event::ChildEstablished { .. }))
        })
    });
    world.traffic_flows();
    let spi = world.list_sas(PEER)[0].responder_spi.clone();
    assert!(world.list_sas(new).iter().all(|sa| sa.responder_spi != spi));

    let healed = world.now;
    split.heal(&mut world);
    world.until("the answer", |world| figure(world, new, "adopted") == 1);
    assert_eq!(figure(&mut world, old, "answered"), 1);
    world.traffic_flows();
    // The first question may come before the deposed member has yielded; the next is 5 s later.
    let took = world.now.since(healed);
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert!(!world.exchanges_since(healed).contains(&IKE_AUTH));
    assert!(world.list_sas(new).iter().any(|sa| sa.responder_spi == spi));
    world.until("a standby", World::standby_is_ready);
    world.audit();
}

/// Behind a partition a member goes on with the tunnel for longer than would be found by trying; then
/// the other one leads. The last request of the first may have been lost, and the peer waits for it.
fn went_on(seed: u64, loses_its_last: bool) {
    let mut world = World::with_traffic(seed);
    let split = Split::new(&mut world);
    let (old, new) = (split.old, split.new);
    let spi = world.list_sas(PEER)[0].responder_spi.clone();
    let rekey = |world: &mut World| {
        world.ask(old, |gateway, now, entropy| {
            let child = gateway.ike_sas()[0].1[0];
            gateway.ike(now, entropy, Input::RekeyChild(child));
        });
    };
    for _ in 0..12 {
        let from = world.events.len();
        rekey(&mut world);
        world.until("a rekeying", |world| {
            world.since(from).any(|(who, event)| {
                who == old && matches!(event, Event::Ike(ike::Event::ChildDeleted { .. }))
            })
        });
    }
    world.traffic_flows();
    if loses_its_last {
        let (nowhere, _) = memory::link(64, MTU);
        world.outside.plug(usize::from(old), nowhere);
        rekey(&mut world);
        world.run(Duration::from_millis(100));
    }

    let healed = world.now;
    split.heal(&mut world);
    world.until("the answer", |world| figure(world, new, "overtaken") == 1);
    world.traffic_flows();
    let took = world.now.since(healed);
    assert!(took < Duration::from_secs(7), "{took:?}");
    assert!(!world.exchanges_since(healed).contains(&IKE_AUTH));
    assert_eq!(world.list_sas(new)[0].responder_spi, spi);
    world.until("a standby", World::standby_is_ready);
    world.audit();
}

/// Seed 41809 of the simulator: probes of Message IDs could not find where the deposed member had come
/// to, and the tunnel was dead until the IKE SA was given up.
#[test]
fn an_ike_sa_that_a_deposed_member_went_on_with_is_carried_on_from_where_it_came_to() {
    went_on(122, false);
}

#[test]
fn rfc7296_section_2_3_what_a_deposed_member_asked_last_is_asked_again_first() {
    went_on(123, true);
}

#[test]
fn an_spi_that_nobody_knows_is_asked_for_at_a_bounded_rate_and_its_packets_are_counted() {
    let mut world = World::with_traffic(121);
    let active = world.leader().unwrap();
    let mut frame = world
        .esp()
        .iter()
        .find(|esp| esp.port == 0)
        .unwrap()
        .frame
        .clone();
    let before = world.drops(active, "unknown_spi");
    for n in 0..500u16 {
        // Behind Ethernet and IPv4; in this member's part of the space.
        frame[34..38].copy_from_slice(&[active, 0xee, (n >> 8) as u8, n as u8]);
        assert!(world.outside.inject(&frame));
        world.run(Duration::from_millis(2));
    }
    assert_eq!(world.drops(active, "unknown_spi"), before + 500);
    let asked = figure(&mut world, active, "asked");
    assert!((5..=11).contains(&asked), "{asked} in a second");
    assert_eq!(figure(&mut world, active, "adopted"), 0);
    assert_eq!(figure(&mut world, 3 - active, "answered"), 0);
    world.traffic_flows();
    world.audit();
}
