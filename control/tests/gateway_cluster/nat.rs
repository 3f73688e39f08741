//! A NAT in front of the peer, which forgets its mappings and makes others: IKE and ESP follow the
//! peer, before a takeover and after it (RFC 7296 section 2.23).

use hitless::lab::{MTU, Topology};
use hitless_dataplane::port::memory::{self, MemoryPort};
use hitless_dataplane::wire::ip::Ip;

use crate::world::{PEER, UDP, World};

const IKE_SA_INIT: u8 = 34;
const IKE_AUTH: u8 = 35;

/// Translates the source ports of what is behind it, and nothing else. Every mapping is of the last
/// age: what comes to an older one is lost.
pub struct Nat {
    inside: MemoryPort,
    outside: MemoryPort,
    age: u16,
}

impl Nat {
    /// On the peer's cable to the outside.
    fn before_the_peer(world: &mut World) {
        let (far, outside) = memory::link(1024, MTU);
        let inside = world.outside.plug(usize::from(PEER), far);
        let age = 1;
        world.nat = Some(Nat {
            inside,
            outside,
            age,
        });
    }

    /// What the outside sees of a port.
    fn mapped(&self, port: u16) -> u16 {
        10_000 + self.age * 5000 + port
    }

    pub fn turn(&mut self) {
        let offset = self.mapped(0);
        let out = |port: u16| port.checked_add(offset);
        carry(&mut self.inside, &mut self.outside, 0, out);
        let back = |port: u16| port.checked_sub(offset);
        carry(&mut self.outside, &mut self.inside, 2, back);
    }
}

/// Moves what waits, with another port at `at` of each UDP header.
fn carry(from: &mut MemoryPort, to: &mut MemoryPort, at: usize, port: impl Fn(u16) -> Option<u16>) {
    let mut frames = Vec::new();
    while from.pop_frame(|octets| frames.push(octets.to_vec())) {}
    for mut frame in frames {
        // IPv4 without options.
        let udp = match frame.get(14..).map(Ip::parse) {
            Some(Ok(Ip::V4(ip))) if ip.protocol() == UDP => Some(34),
            _ => None,
        };
        if let Some(udp) = udp {
            let field = udp + at..udp + at + 2;
            let known = u16::from_be_bytes(frame[field.clone()].try_into().unwrap());
            let Some(port) = port(known) else {
                continue;
            };
            frame[field].copy_from_slice(&port.to_be_bytes());
            // None is a checksum too (RFC 768).
            frame[udp + 6..udp + 8].fill(0);
        }
        to.push_frame(&frame);
    }
}

fn forget_mappings(world: &mut World) {
    world.nat.as_mut().unwrap().age += 1;
}

/// The peer's port, as a member has it.
fn port(world: &mut World, who: u8) -> u16 {
    world.list_sas(who)[0].remote_port
}

fn mapped(world: &World) -> u16 {
    world.nat.as_ref().unwrap().mapped(4500)
}

#[test]
fn rfc7296_section_2_23_a_mapping_that_changes_before_at_and_after_a_takeover_is_followed() {
    for seed in [120, 121] {
        let mut topology = Topology::new(2, "open sesame".to_owned());
        // Nothing but ESP tells that the mapping is another one.
        topology.dpd_delay = "0s";
        let mut world = World::of(seed, &topology);
        Nat::before_the_peer(&mut world);
        world.come_up();
        let active = world.leader().unwrap();
        let successor = 3 - active;
        assert_eq!(port(&mut world, active), mapped(&world));

        forget_mappings(&mut world);
        world.traffic_flows();
        assert_eq!(port(&mut world, active), mapped(&world));
        assert_eq!(port(&mut world, successor), mapped(&world), "recorded");

        let crash = world.now;
        world.kill(active);
        forget_mappings(&mut world);
        world.until("a takeover", |world| world.leader() == Some(successor));
        world.traffic_flows();
        assert_eq!(port(&mut world, successor), mapped(&world));

        forget_mappings(&mut world);
        world.traffic_flows();
        assert_eq!(port(&mut world, successor), mapped(&world));
        let exchanges = world.exchanges_since(crash);
        assert!(!exchanges.contains(&IKE_SA_INIT) && !exchanges.contains(&IKE_AUTH));
        world.audit();
    }
}
