//! Messages that nobody authenticated change nothing.

use hitless::ike::{Event, Input};
use hitless_sa::Entropy;

use crate::world::{A, B, Packet, SECOND, World};

/// Everything that a host's state shows, but the events.
fn state(world: &World, host: usize) -> String {
    let host = &world.hosts[host];
    format!(
        "{:?} {:?} {:?}",
        host.engine.status(world.now),
        host.records,
        host.sad
    )
}

/// One message of every kind, with the world in front of its delivery.
fn messages() -> Vec<(World, Packet)> {
    let mut found = Vec::new();
    for kind in 0..8 {
        let mut world = if kind < 4 {
            World::pair(1)
        } else {
            World::established(1)
        };
        let (a, b) = (world.ike_sas(A), world.hosts[A].sad.keys().next().copied());
        match kind {
            4 | 5 => world.input(A, Input::RekeyChild(b.unwrap())),
            6 | 7 => world.input(A, Input::Terminate { ike: a[0] }),
            _ => {}
        }
        // Initial messages 1 to 4; then request and response of each exchange.
        let deliveries = if kind < 4 { kind } else { kind % 2 };
        for _ in 0..deliveries {
            let packet = world.intercept().remove(0);
            world.deliver(&packet);
        }
        let packet = world.intercept().remove(0);
        found.push((world, packet));
    }
    found
}

fn assert_refused(world: &mut World, packet: &Packet, what: &str) {
    for host in [A, B] {
        let before = state(world, host);
        let events = world.hosts[host].events.len();
        if packet.to.ip() == crate::world::address(host) {
            world.deliver(packet);
        }
        let new = &world.hosts[host].events[events..];
        assert_eq!(state(world, host), before, "{what}: {new:?}");
    }
}

#[test]
fn truncated_messages_change_nothing() {
    for (mut world, packet) in messages() {
        for length in 0..packet.payload.len() {
            let mut short = packet.clone();
            short.payload.truncate(length);
            assert_refused(&mut world, &short, &format!("cut to {length}"));
        }
        world.inject(packet);
        world.run(100 * SECOND);
        assert!(world.hosts[B].saw(|e| matches!(e, Event::IkeEstablished { .. })));
    }
}

#[test]
fn damaged_messages_change_nothing() {
    for (index, (mut world, packet)) in messages().into_iter().enumerate() {
        // IKE_SA_INIT is not authenticated when it arrives: AUTH covers it.
        if index < 2 {
            continue;
        }
        for bit in 0..packet.payload.len() * 8 {
            let mut damaged = packet.clone();
            damaged.payload[bit / 8] ^= 1 << (bit % 8);
            assert_refused(&mut world, &damaged, &format!("message {index}, bit {bit}"));
        }
        world.inject(packet);
        world.run(100 * SECOND);
        assert!(world.hosts[B].saw(|e| matches!(e, Event::IkeEstablished { .. })));
    }
}

#[test]
fn a_damaged_ike_sa_init_never_authenticates_rfc7296_2_15() {
    for (index, bits) in [(0, 28 * 8), (1, 28 * 8)] {
        let length = messages()[index].1.payload.len() * 8;
        for bit in (0..bits).step_by(3).chain((bits..length).step_by(37)) {
            let (mut world, mut packet) = messages().remove(index);
            packet.payload[bit / 8] ^= 1 << (bit % 8);
            world.deliver(&packet);
            world.intercept();
            // The original comes by retransmission.
            world.run(100 * SECOND);
            let (a, b) = (world.ike_sas(A).len(), world.ike_sas(B).len());
            assert_eq!((a, b), (1, 1), "message {index}, bit {bit}");
        }
    }
}

#[test]
fn noise_changes_nothing() {
    let mut world = World::established(2);
    let template = world.hosts[A].sent.clone();
    let from = "203.0.113.9:500".parse().unwrap();
    let to = std::net::SocketAddr::new(crate::world::address(B), 500);
    for round in 0..4000 {
        let length = (world.entropy.next() % 400) as usize;
        let mut payload = vec![0; length];
        world.entropy.fill(&mut payload);
        // Half of it with a real header.
        if round % 2 == 0 && length >= 28 {
            let header = &template[round / 2 % template.len()][..28];
            payload[..28].copy_from_slice(header);
            payload[24..28].copy_from_slice(&(length as u32).to_be_bytes());
        }
        let packet = Packet { from, to, payload };
        assert_refused(&mut world, &packet, &format!("round {round}"));
    }
    world.assert_agreement(1);
}

#[test]
fn a_message_reflected_to_its_sender_changes_nothing() {
    let mut world = World::established(3);
    let ike = world.ike(A);
    world.input(A, Input::Liveness(ike));
    let mut packet = world.intercept().remove(0);
    std::mem::swap(&mut packet.from, &mut packet.to);
    assert_refused(&mut world, &packet, "reflected");
}

#[test]
fn a_flood_of_requests_from_forged_addresses_keeps_a_peer_out_of_nothing() {
    let mut world = World::pair(4);
    let first = world.intercept().remove(0);
    for forged in 0..5000u32 {
        let mut packet = first.clone();
        packet.from.set_port(1024 + forged as u16);
        packet.payload[0..4].copy_from_slice(&forged.to_be_bytes());
        world.deliver(&packet);
        world.intercept();
    }
    world.inject(first);
    world.run(10 * SECOND);
    world.assert_agreement(1);
}
