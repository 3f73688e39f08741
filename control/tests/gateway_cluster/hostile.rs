//! Bad input from the wire, from peers and from members: each is refused with a reason, counted,
//! and harms nobody else.

use std::time::Duration;

use hitless::config::Config;
use hitless::gateway::Event;
use hitless::ike;
use hitless::lab::{Topology, sync_address};
use hitless_sync::Event as SyncEvent;

use crate::world::{PEER, World};

/// Two members of one topology and the peer of another.
fn at_odds(seed: u64, members: &Topology, peer: &Topology) -> World {
    let members = [1, 2].map(|id| members.member(id).unwrap());
    World::with(seed, members.into(), peer.peer().unwrap())
}

fn topology() -> Topology {
    Topology::new(2, "open sesame".to_owned())
}

fn refused(world: &World, who: u8) -> Vec<String> {
    let reasons = world.since(0).filter(|(w, _)| *w == who);
    let reasons = reasons.filter_map(|(_, event)| match event {
        Event::Ike(
            ike::Event::AuthenticationFailed { reason, .. }
            | ike::Event::NegotiationFailed { reason, .. },
        ) => Some(reason.clone()),
        _ => None,
    });
    reasons.collect()
}

fn counted(world: &mut World, who: u8, prefix: &str) -> u64 {
    let drops = world.status(who).drops;
    drops
        .iter()
        .filter(|d| d.reason.starts_with(prefix))
        .map(|d| d.packets)
        .sum()
}

#[test]
fn a_wrong_psk_fails_on_both_sides_with_a_reason() {
    let other = Topology::new(2, "close sesame".to_owned());
    let mut world = at_odds(60, &topology(), &other);
    world.until("a refusal", |world| !refused(world, PEER).is_empty());
    let active = world.leader().unwrap();
    assert_eq!(refused(&world, active)[0], "wrong secret of peer.lab");
    assert!(
        refused(&world, PEER)[0].contains("AUTHENTICATION_FAILED"),
        "{:?}",
        refused(&world, PEER)
    );
    assert!(world.drops(active, "ike_authentication_failed") > 0);
    assert!(world.drops(PEER, "ike_authentication_failed") > 0);
    assert!(!world.tunnel_is_up() && world.list_sas(active).is_empty());
}

#[test]
fn proposals_that_do_not_match_fail_with_a_reason() {
    let mut other = topology();
    other.ike_proposal = "aes256gcm16-prfsha384-ecp384";
    let mut world = at_odds(61, &topology(), &other);
    world.until("a refusal", |world| !refused(world, PEER).is_empty());
    let active = world.leader().unwrap();
    for who in [active, PEER] {
        let reasons = refused(&world, who);
        assert!(
            reasons[0].contains("NO_PROPOSAL_CHOSEN") || reasons[0].contains("proposal"),
            "{reasons:?}"
        );
        assert!(world.drops(who, "ike_negotiation_failed") > 0);
    }
}

#[test]
fn esp_proposals_that_do_not_match_fail_with_a_reason() {
    let mut other = topology();
    other.esp_proposal = "aes256gcm16-x25519-esn";
    let mut world = at_odds(62, &topology(), &other);
    world.until("a refusal", |world| !refused(world, PEER).is_empty());
    let active = world.leader().unwrap();
    for who in [active, PEER] {
        assert!(
            world.drops(who, "ike_negotiation_failed") > 0,
            "{:?}",
            refused(&world, who)
        );
    }
    assert!(!world.tunnel_is_up());
}

#[test]
fn a_stranger_is_not_answered_as_a_peer() {
    let mut world = World::with_traffic(63);
    let active = world.leader().unwrap();
    let first = ike_frames(&world, 0).remove(0);
    let before = (
        counted(&mut world, active, "ike_"),
        world.list_sas(active).len(),
    );
    // The peer's own IKE_SA_INIT, from an address that no connection has.
    let mut frame = first;
    frame[14 + 15] = 77;
    checksums(&mut frame);
    assert!(world.outside.inject(&frame));
    world.run(Duration::from_millis(20));
    assert!(counted(&mut world, active, "ike_") > before.0);
    assert_eq!(world.list_sas(active).len(), before.1);
    world.traffic_flows();
}

#[test]
fn ike_that_is_truncated_or_altered_is_counted_and_changes_nothing() {
    let mut world = World::with_traffic(64);
    let active = world.leader().unwrap();
    // The peer rekeys: a protected message to play with.
    let (ike, child) = {
        let sas = world.gateway(PEER).ike_sas();
        (sas[0].0, sas[0].1[0])
    };
    world.ask(PEER, |gateway, now, entropy| {
        gateway.ike(now, entropy, ike::Input::RekeyChild(child));
    });
    world.run(Duration::from_millis(50));
    world.traffic = false;
    world.run(Duration::from_millis(50));
    let frame = ike_frames(&world, 0).pop().unwrap();
    let sas = world.list_sas(active);

    let before = counted(&mut world, active, "");
    let mut sent = 0;
    for length in 14..frame.len() {
        sent += u64::from(world.outside.inject(&frame[..length]));
        world.run(Duration::from_micros(500));
    }
    for position in 14 + 20 + 8..frame.len() {
        let mut altered = frame.clone();
        altered[position] ^= 0x20;
        checksums(&mut altered);
        sent += u64::from(world.outside.inject(&altered));
        world.run(Duration::from_micros(500));
    }
    world.run(Duration::from_millis(20));
    let dropped = counted(&mut world, active, "") - before;
    // A message that was altered into a first IKE_SA_INIT is answered, not dropped.
    assert!(dropped + 16 >= sent && sent > 150, "{dropped} of {sent}");
    let after = world.list_sas(active);
    assert_eq!(after[0].expected_message_id, sas[0].expected_message_id);
    assert_eq!(after[0].children[0].spi_in, sas[0].children[0].spi_in);
    assert!(
        world
            .gateway(active)
            .ike_sas()
            .iter()
            .any(|(spi, _)| *spi != ike)
    );
    world.traffic = true;
    world.traffic_flows();
}

#[test]
fn esp_that_is_truncated_or_altered_is_counted_and_moves_no_window() {
    let mut world = World::with_traffic(65);
    world.traffic = false;
    world.run(Duration::from_millis(50));
    let active = world.leader().unwrap();
    // With a number that was never seen: one that was would be dropped before its ICV is looked at.
    let mut packet = world
        .esp()
        .into_iter()
        .rfind(|esp| esp.port == usize::from(PEER))
        .unwrap();
    let number = packet.number + 3;
    packet.frame[38..42].copy_from_slice(&(number as u32).to_be_bytes());
    packet.frame[42..50].copy_from_slice(&number.to_be_bytes());
    let received = world.received();
    let lease = world.status(active).leases[0].clone();

    let mut sent = 0;
    let before = counted(&mut world, active, "");
    for length in 14 + 20..packet.frame.len() {
        let mut short = packet.frame[..length].to_vec();
        let total = (length - 14) as u16;
        short[16..18].copy_from_slice(&total.to_be_bytes());
        checksums(&mut short);
        sent += u64::from(world.outside.inject(&short));
        world.run(Duration::from_micros(500));
    }
    for position in 14 + 20..packet.frame.len() {
        let mut altered = packet.frame.clone();
        altered[position] ^= 0x04;
        sent += u64::from(world.outside.inject(&altered));
        world.run(Duration::from_micros(500));
    }
    assert_eq!(counted(&mut world, active, "") - before, sent);
    assert!(world.drops(active, "integrity") > 100);
    assert!(world.drops(active, "unknown_spi") >= 4);
    assert!(world.drops(active, "runt") > 20);
    // B6: what is not authentic raises neither window nor high water.
    let now = world.status(active).leases[0].clone();
    assert_eq!(
        (now.inbound_top, now.high_water),
        (lease.inbound_top, lease.high_water)
    );
    assert_eq!(world.received(), received);
    world.traffic = true;
    world.traffic_flows();
}

#[test]
fn a_member_with_another_clusters_key_stays_outside() {
    let other = Topology::new(2, "another cluster".to_owned());
    let configs = vec![topology().member(1).unwrap(), other.member(2).unwrap()];
    let mut world = World::with(66, configs, topology().peer().unwrap());
    world.run(Duration::from_secs(5));
    let failed = |world: &World, who| {
        world.happened(who, |event| {
            matches!(event, Event::Link(ike::Event::AuthenticationFailed { .. }))
        })
    };
    assert!(failed(&world, 1) && failed(&world, 2));
    assert!(world.drops(1, "sync_authentication_failed") > 0);
    assert!(world.drops(2, "sync_authentication_failed") > 0);
    assert!(!world.sync_happened(1, |event| matches!(event, SyncEvent::SessionOpened { .. })));
    assert!(world.list_sas(2).is_empty());
    assert!(
        world
            .status(1)
            .members
            .iter()
            .all(|member| !member.bound && member.role.is_none())
    );
}

#[test]
fn a_member_with_another_configuration_is_refused_and_told_of_once_a_second() {
    let three = Topology::new(3, "open sesame".to_owned());
    let configs: Vec<Config> = vec![topology().member(1).unwrap(), three.member(2).unwrap()];
    let mut world = World::with(67, configs, topology().peer().unwrap());
    world.until("a refusal", |world| {
        world.drops(1, "sync_config_mismatch") > 0
    });
    let from = world.events.len();
    world.run(Duration::from_secs(3));
    assert!(world.drops(1, "sync_config_mismatch") > 20);
    assert!(world.drops(2, "sync_config_mismatch") > 20);
    let told = world.since(from).filter(|(who, event)| {
        *who == 1 && matches!(event, Event::Sync(SyncEvent::ConfigMismatch { .. }))
    });
    assert!(told.count() <= 3);
    assert!(!world.sync_happened(1, |event| matches!(event, SyncEvent::SessionOpened { .. })));
    // One of them leads, and each says with whom it disagrees.
    assert!(world.leader().is_some(), "{:?}", world.leaders());
    let now = world.now;
    for who in [1, 2] {
        let ailments = world.gateway(who).cluster(now).ailments;
        let named = format!("the [cluster] section of member {} differs", 3 - who);
        assert!(
            ailments.iter().any(|ailment| ailment.contains(&named)),
            "{ailments:?}"
        );
    }
}

#[test]
fn sync_datagrams_that_are_altered_truncated_or_replayed_are_refused() {
    let mut world = World::with_traffic(68);
    let active = world.leader().unwrap();
    let standby = 3 - active;
    world.network.recorded = Some(Vec::new());
    world.run(Duration::from_millis(50));
    let recorded = world.network.recorded.take().unwrap();
    let to_standby: Vec<Vec<u8>> = recorded
        .into_iter()
        .filter(|(_, to, _)| *to == standby)
        .map(|(_, _, datagram)| datagram)
        .collect();
    assert!(!to_standby.is_empty());
    let before = counted(&mut world, standby, "sync_");
    let mut forged = 0;
    for datagram in &to_standby {
        world
            .network
            .forge(sync_address(active), standby, datagram.clone());
        forged += 1;
    }
    let last = to_standby.last().unwrap();
    for length in 0..last.len() {
        world
            .network
            .forge(sync_address(active), standby, last[..length].to_vec());
        let mut altered = last.clone();
        altered[length] ^= 1;
        world.network.forge(sync_address(active), standby, altered);
        forged += 2;
    }
    world.run(Duration::from_millis(20));
    assert_eq!(counted(&mut world, standby, "sync_") - before, forged);
    assert!(world.drops(standby, "sync_refused") > 100);
    assert!(world.drops(standby, "sync_unknown_spi") > 0);
    assert_eq!(
        world.leader(),
        Some(active),
        "a flood is no reason to take over"
    );
    assert!(world.standby_is_ready());
}

#[test]
fn a_stranger_on_the_sync_network_is_counted() {
    let mut world = World::with_traffic(69);
    for octets in [vec![], vec![0; 4], vec![0; 40], vec![7; 2000]] {
        world.network.forge(sync_address(9), 1, octets);
    }
    world.run(Duration::from_millis(10));
    assert_eq!(world.drops(1, "sync_unknown_sender"), 4);
}

#[test]
fn ike_garbage_from_a_members_address_is_counted_and_the_link_stays() {
    let mut world = World::with_traffic(70);
    for length in 0..300 {
        let mut octets = vec![0; 4];
        octets.extend((0..length).map(|i| (i * 7) as u8));
        world.network.forge(sync_address(2), 1, octets);
    }
    world.run(Duration::from_millis(50));
    assert_eq!(world.drops(1, "sync_ike_dropped"), 300);
    assert!(world.standby_is_ready());
    world.traffic_flows();
}

#[test]
fn a_sync_network_that_loses_and_repeats_is_no_failover() {
    let mut world = World::with_traffic(71);
    let active = world.leader().unwrap();
    let mut count = 0u32;
    world.network.fate = Some(Box::new(move |_, _, _| {
        count += 1;
        !count.is_multiple_of(3)
    }));
    world.run(Duration::from_secs(3));
    assert_eq!(world.leader(), Some(active));
    world.traffic_flows();
    world.audit();
}

#[test]
fn a_flood_of_punted_packets_stalls_neither_leases_nor_heartbeats() {
    let mut world = World::with_traffic(72);
    let active = world.leader().unwrap();
    let frame = ike_frames(&world, 0).pop().unwrap();
    let mut garbage = frame.clone();
    garbage[14 + 20 + 8..].fill(0xa5);
    checksums(&mut garbage);
    let before = world.received();
    for _ in 0..1000 {
        for _ in 0..40 {
            world.outside.inject(&garbage);
        }
        world.step();
    }
    assert!(counted(&mut world, active, "ike_") > 1000);
    assert_eq!(world.leader(), Some(active));
    assert!(world.received()[1] > before[1] + 200);
    world.traffic_flows();
    world.audit();
}

/// Frames with IKE from a port of the outside switch.
pub fn ike_frames(world: &World, port: usize) -> Vec<Vec<u8>> {
    let frames = world.outside.capture().iter().filter(|c| c.port == port);
    let ike = frames.filter(|c| c.frame.get(14 + 9) == Some(&17));
    ike.map(|c| c.frame.clone()).collect()
}

/// Makes the IPv4 header's checksum right and takes the UDP checksum away (RFC 768).
pub fn checksums(frame: &mut [u8]) {
    if frame.get(23) == Some(&17) && frame.len() >= 14 + 20 + 8 {
        frame[14 + 26..14 + 28].fill(0);
    }
    frame[24..26].fill(0);
    let header = &frame[14..34];
    let mut sum: u32 = header
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !(sum as u16);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}
