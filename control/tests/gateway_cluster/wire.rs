//! What a takeover puts on the wire besides ESP and IKE: announcements on both sides, keepalives; and
//! next hops that are watched.

use std::net::Ipv6Addr;
use std::time::Duration;

use hitless::gateway::Event;
use hitless::lab::{Captured, Family, Topology};
use hitless_dataplane::port::memory;
use hitless_sa::Instant;

use crate::world::{UDP, World, carried};

const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Flags of one (RFC 4861 section 4.4).
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// Gratuitous ARP (RFC 5227 section 3) among captured frames: when, and from which port.
fn gratuitous(frames: &[Captured], since: Instant) -> Announcements {
    let arp = frames.iter().filter(|captured| {
        let frame = &captured.frame;
        captured.at >= since
            && frame.get(12..14) == Some(&[0x08, 0x06])
            && frame.get(28..32) == frame.get(38..42)
            && frame[..6] == [0xff; 6]
    });
    arp.map(|captured| (captured.at.since(since), captured.port))
        .collect()
}

/// Unsolicited neighbour advertisements (RFC 4861 section 7.2.6): to all nodes, not solicited, and to
/// override what is in caches.
fn unsolicited(frames: &[Captured], since: Instant) -> Announcements {
    let na = frames.iter().filter(|captured| {
        let frame = &captured.frame;
        captured.at >= since
            && frame.get(12..14) == Some(&[0x86, 0xdd])
            && frame.get(20) == Some(&ICMPV6)
            && frame.get(54) == Some(&NEIGHBOUR_ADVERTISEMENT)
            && frame.get(38..54) == Some(&Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets())
            && frame
                .get(58)
                .is_some_and(|flags| flags & SOLICITED == 0 && flags & OVERRIDE != 0)
    });
    na.map(|captured| (captured.at.since(since), captured.port))
        .collect()
}

#[test]
fn rfc5227_section_3_a_new_active_announces_itself_thrice_on_both_sides_at_once() {
    announces_itself(World::with_traffic(110), 1, gratuitous);
}

#[test]
fn rfc4861_section_7_2_6_a_new_active_announces_itself_thrice_on_both_sides_over_ipv6() {
    let topology = Topology {
        outside: Family::V6,
        inside: Family::V6,
        ..Topology::new(2, "open sesame".to_owned())
    };
    let mut world = World::of(114, &topology);
    world.come_up();
    announces_itself(world, 2, unsolicited);
}

/// After how long each announcement came, and at which port.
type Announcements = Vec<(Duration, usize)>;

/// With so many `addresses` on each side, each announced at the same moments.
fn announces_itself(
    mut world: World,
    addresses: usize,
    announcements: fn(&[Captured], Instant) -> Announcements,
) {
    let active = world.leader().unwrap();
    let successor = 3 - active;
    world.kill(active);
    world.until("a takeover", |world| world.leader() == Some(successor));
    let led = world.now;
    world.run(Duration::from_secs(10));
    let since = led.saturating_sub(Duration::from_millis(1));
    let sides = [&world.outside, &world.protected].map(|switch| {
        let announced = announcements(switch.capture(), since).into_iter();
        let own = announced.filter(|(_, port)| *port == usize::from(successor));
        let moments: Vec<_> = own.map(|(after, _)| after.as_millis()).collect();
        let each = moments.chunks(addresses).map(|at_once| {
            assert_eq!(at_once, vec![at_once[0]; addresses]);
            at_once[0]
        });
        each.collect::<Vec<_>>()
    });
    assert_eq!(sides[0], sides[1], "both sides move together");
    let [first, second, third] = sides[0][..] else {
        panic!("three and no more: {:?}", sides[0]);
    };
    assert!(first < 5 && (200..210).contains(&second) && (1000..1010).contains(&third));
    world.traffic_flows();
}

fn watching(seed: u64) -> World {
    let topology = Topology::new(2, "open sesame".to_owned());
    let peer = topology.peer().unwrap();
    let hop = peer.ports[0].addresses[0].address;
    let members = (1..=2).map(|id| {
        let mut config = topology.member(id).unwrap();
        config.ports[0].monitor = vec![hop];
        config
    });
    let mut world = World::with(seed, members.collect(), peer);
    world.come_up();
    // The hold of a standby that has just joined.
    world.run(Duration::from_secs(2));
    world
}

#[test]
fn a_member_whose_next_hop_does_not_answer_yields_and_both_sides_move() {
    let mut world = watching(111);
    let first = world.leader().unwrap();
    let second = 3 - first;
    let now = world.now;
    assert_eq!(
        world.gateway(first).cluster(now).ailments,
        Vec::<String>::new()
    );
    // Its cable to the outside is cut; the carrier stays.
    world
        .outside
        .plug(usize::from(first), memory::link(64, 1500).0);
    world.until("the other one to lead", |world| {
        world.leader() == Some(second)
    });
    let ill = |event: &Event| matches!(event, Event::Health { ailments } if ailments.iter().any(|a| a.contains("does not answer")));
    assert!(world.happened(first, ill));
    world.traffic_flows();
    world.run(Duration::from_secs(5));
    assert_eq!(world.leader(), Some(second));
    world.audit();
}

#[test]
fn two_members_behind_one_dead_next_hop_do_not_hand_the_lead_to_and_fro() {
    let mut world = watching(112);
    let from = world.events.len();
    world.outside.plug(0, memory::link(64, 1500).0);
    world.run(Duration::from_secs(30));
    let led = world
        .since(from)
        .filter(|(_, event)| matches!(event, Event::Leads { .. }));
    assert!(led.count() <= 1);
    assert!(world.leader().is_some());
}

#[test]
fn rfc3948_section_4_a_nat_keepalive_leaves_at_once_after_a_takeover() {
    let mut topology = Topology::new(2, "open sesame".to_owned());
    topology.dpd_delay = "0s";
    let members = (1..=2).map(|id| {
        let mut config = topology.member(id).unwrap();
        config.connections[0].encap = true;
        config.connections[0].children[0].options.keepalive = Some(Duration::from_secs(20));
        config
    });
    let mut world = World::with(113, members.collect(), topology.peer().unwrap());
    world.come_up();
    world.traffic = false;
    world.run(Duration::from_secs(5));
    let active = world.leader().unwrap();
    let successor = 3 - active;
    world.kill(active);
    world.until("a takeover", |world| world.leader() == Some(successor));
    let led = world.now;
    world.run(Duration::from_millis(10));
    let keepalives = world.outside.capture().iter().filter(|captured| {
        let udp = carried(&captured.frame).filter(|(protocol, _)| *protocol == UDP);
        let payload = udp.and_then(|(_, udp)| udp.get(8..));
        captured.at >= led && captured.port == usize::from(successor) && payload == Some(&[0xff])
    });
    assert_eq!(keepalives.count(), 1);
    world.traffic = true;
    world.traffic_flows();
    world.audit();
}
