//! Addresses that change (RFC 4555), also by a responder and by a member that took over.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hitless::ike::settings::{EngineSettings, Mobike, WindowSize};
use hitless::ike::{Event, Input, Resume};
use hitless_sa::Mode;

use crate::world::{A, B, Packet, SECOND, World, address, is_response, settings};

const MOVED: [&str; 2] = ["198.51.100.1", "198.51.100.2"];

pub fn moved(host: usize) -> IpAddr {
    MOVED[host].parse().unwrap()
}

/// Both ends have a second address; A offers MOBIKE.
pub fn mobile(host: usize) -> EngineSettings {
    let mut settings = settings(host);
    let connection = &mut settings.connections[0];
    connection.local_addrs.push(moved(host));
    connection.remote_addrs.push(moved(1 - host));
    if host == A {
        connection.roads.mobike = Mobike::Offer;
    }
    settings
}

pub fn up(seed: u64) -> World {
    let mut world = World::new(seed, mobile(A), mobile(B));
    world.run(SECOND);
    world.assert_agreement(1);
    world
}

pub fn relocate(world: &mut World, host: usize, local: IpAddr) {
    let ike = world.ike(host);
    world.input(host, Input::Relocate { ike, local });
}

/// Both ends agree on where they are, with IKE and with ESP.
pub fn assert_at(world: &World, a: IpAddr, b: IpAddr) {
    world.assert_agreement(1);
    for (host, local, remote) in [(A, a, b), (B, b, a)] {
        let sa = world.sa(host);
        assert_eq!((sa.local, sa.remote), (local, remote), "ESP of {host}");
        let status = &world.hosts[host].engine.status(world.now)[0];
        assert_eq!((status.local.ip(), status.remote.ip()), (local, remote));
    }
}

/// A request in both directions shows that the windows are right.
pub fn talk(world: &mut World) {
    for host in [A, B] {
        let before = world.hosts[host].count(|e| matches!(e, Event::LivenessConfirmed { .. }));
        let ike = world.ike(host);
        world.input(host, Input::Liveness(ike));
        world.run(SECOND);
        let after = world.hosts[host].count(|e| matches!(e, Event::LivenessConfirmed { .. }));
        assert_eq!(after, before + 1);
    }
}

#[test]
fn rfc4555_section_3_3_both_change_to_port_4500_though_there_is_no_nat() {
    let world = up(1);
    assert_at(&world, address(A), address(B));
    let status = &world.hosts[A].engine.status(world.now)[0];
    assert_eq!((status.local.port(), status.remote.port()), (4500, 4500));
    assert_eq!(world.sa(A).encapsulation, None);
}

#[test]
fn rfc4555_section_3_5_the_initiator_moves_and_all_follows_at_once() {
    let mut world = up(2);
    relocate(&mut world, A, moved(A));
    assert_eq!(world.sa(A).local, moved(A), "at once");
    world.run(SECOND);
    assert_at(&world, moved(A), address(B));
    // Section 3.7: the responder asked back with COOKIE2.
    let status = &world.hosts[B].engine.status(world.now)[0];
    assert_eq!(status.next_request.0, 1);
    talk(&mut world);
    relocate(&mut world, A, address(A));
    world.run(SECOND);
    assert_at(&world, address(A), address(B));
    talk(&mut world);
}

#[test]
fn a_responder_that_moved_is_provisional_until_it_answers_from_there() {
    let mut world = up(3);
    relocate(&mut world, B, moved(B));
    // UPDATE_SA_ADDRESSES reaches A.
    let end = world.now + SECOND;
    while world.hosts[A].engine.status(world.now)[0]
        .expected_request
        .0
        == 0
    {
        assert!(world.step(end));
    }
    assert_eq!(world.sa(A).remote, address(B), "draft-vidya section 6");
    world.run(SECOND);
    assert_at(&world, address(A), moved(B));
    talk(&mut world);
}

#[test]
fn a_false_address_of_a_responder_moves_nothing() {
    let mut world = up(4);
    world.unreachable.push(moved(B));
    relocate(&mut world, B, moved(B));
    world.run(Duration::from_millis(10));
    // B is back, and its first word is forgotten.
    relocate(&mut world, B, address(B));
    world.run(20 * SECOND);
    assert_at(&world, address(A), address(B));
    talk(&mut world);
}

#[test]
fn rfc4555_section_3_10_an_initiator_tries_the_other_addresses_of_its_peer() {
    let mut world = up(5);
    world.unreachable.push(address(B));
    let ike = world.ike(A);
    world.input(A, Input::Liveness(ike));
    world.run(60 * SECOND);
    assert_at(&world, address(A), moved(B));
    talk(&mut world);
}

#[test]
fn without_mobike_an_end_moves_and_only_it_knows() {
    for refuses in [A, B] {
        let mut both = [mobile(A), mobile(B)];
        both[refuses].connections[0].roads.mobike = Mobike::Refuse;
        let [a, b] = both;
        let mut world = World::new(6, a, b);
        world.run(SECOND);
        relocate(&mut world, A, moved(A));
        world.run(SECOND);
        assert_eq!(world.sa(A).local, moved(A));
        assert_eq!(world.sa(B).remote, address(A));
        // IKE answers to where it is asked from (RFC 7296 section 2.11).
        let ike = world.ike(A);
        world.input(A, Input::Liveness(ike));
        world.run(SECOND);
        assert!(world.hosts[A].saw(|e| matches!(e, Event::LivenessConfirmed { .. })));
    }
}

#[test]
fn what_was_outstanding_is_repeated_from_the_new_address_rfc4555_section_3_5() {
    let mut world = up(7);
    let ike = world.ike(A);
    world.input(A, Input::RekeyIke(ike));
    world.intercept();
    let local = moved(A);
    world.input(A, Input::Relocate { ike, local });
    world.run(20 * SECOND);
    assert_at(&world, moved(A), address(B));
    assert_ne!(world.ike(A), ike);
    // The successor speaks MOBIKE as well.
    relocate(&mut world, B, moved(B));
    world.run(SECOND);
    assert_at(&world, moved(A), moved(B));
    talk(&mut world);
}

#[test]
fn a_member_dies_at_every_step_of_an_update() {
    for mover in [A, B] {
        for victim in [A, B] {
            for steps in 0..10 {
                let mut world = up(8);
                relocate(&mut world, mover, moved(mover));
                let end = world.now + SECOND;
                let taken = (0..steps).take_while(|_| world.step(end)).count();
                world.fail_over(victim, Resume::Exact);
                world.run(60 * SECOND);
                eprintln!("{mover} moves, {victim} dies after {steps} steps");
                let (mut a, mut b) = (address(A), address(B));
                [&mut a, &mut b][mover].clone_from(&moved(mover));
                assert_at(&world, a, b);
                talk(&mut world);
                if taken < steps {
                    break;
                }
            }
        }
    }
}

/// The same over IPv6, where a NAT is not to be expected and addresses change all the same.
#[test]
fn rfc4555_section_3_5_either_end_moves_over_ipv6_and_a_member_dies_meanwhile() {
    let at = |host: usize, away: bool| -> IpAddr {
        let net = if away { "2001:db8:51" } else { "2001:db8:1" };
        format!("{net}::{}", host + 1).parse().unwrap()
    };
    let six = |host: usize| {
        let mut settings = mobile(host);
        let connection = &mut settings.connections[0];
        connection.local_addrs = vec![at(host, false), at(host, true)];
        connection.remote_addrs = vec![at(1 - host, false), at(1 - host, true)];
        settings
    };
    for mover in [A, B] {
        for victim in [None, Some(A), Some(B)] {
            for steps in [0, 1, 3, 6] {
                let mut world = World::new(20, six(A), six(B));
                world.run(SECOND);
                assert_at(&world, at(A, false), at(B, false));
                relocate(&mut world, mover, at(mover, true));
                let end = world.now + SECOND;
                for _ in 0..steps {
                    world.step(end);
                }
                if let Some(victim) = victim {
                    world.fail_over(victim, Resume::Exact);
                }
                world.run(60 * SECOND);
                assert_at(&world, at(A, mover == A), at(B, mover == B));
                talk(&mut world);
                let again = |e: &Event| matches!(e, Event::IkeEstablished { .. });
                assert!(world.hosts.iter().all(|host| host.count(again) <= 1));
            }
        }
    }
}

/// The operator gives the connection these addresses, in the file of `host`; how many IKE SAs stay and
/// how many SAs are closed.
fn reload(world: &mut World, host: usize, local_addrs: Vec<IpAddr>) -> (usize, usize) {
    let mut settings = world.hosts[host].settings.clone();
    settings.connections[0].local_addrs = local_addrs;
    world.hosts[host].settings = settings.clone();
    let engine = &mut world.hosts[host].engine;
    let reloaded = engine.reload(world.now, &mut world.entropy, settings);
    world.input(host, Input::Timeout);
    world.run(SECOND);
    (reloaded.kept, reloaded.closed)
}

#[test]
fn rfc4555_section_3_5_a_reload_with_another_address_moves_the_ike_sa() {
    for host in [A, B] {
        let mut world = up(13);
        let reloaded = reload(&mut world, host, vec![moved(host)]);
        assert_eq!(reloaded, (1, 0));
        let (mut a, mut b) = (address(A), address(B));
        [&mut a, &mut b][host].clone_from(&moved(host));
        assert_at(&world, a, b);
        talk(&mut world);
        // And it survives the member that reloaded.
        world.fail_over(host, Resume::Exact);
        world.run(SECOND);
        assert_at(&world, a, b);
    }
}

#[test]
fn rfc4555_section_3_6_a_reload_that_leaves_the_address_in_use_tells_of_the_others() {
    let mut world = up(14);
    let third: IpAddr = "198.51.100.9".parse().unwrap();
    let reloaded = reload(&mut world, B, vec![address(B), third]);
    assert_eq!(reloaded, (1, 0));
    assert_at(&world, address(A), address(B));
    // The initiator knows where to go on if that fails.
    world.unreachable.push(address(B));
    let ike = world.ike(A);
    world.input(A, Input::Liveness(ike));
    world.run(60 * SECOND);
    assert_at(&world, address(A), third);
}

#[test]
fn without_mobike_a_reload_with_another_address_closes_the_ike_sa() {
    let mut both = [mobile(A), mobile(B)];
    both[B].connections[0].roads.mobike = Mobike::Refuse;
    let [a, b] = both;
    let mut world = World::new(15, a, b);
    world.run(SECOND);
    let reloaded = reload(&mut world, A, vec![moved(A)]);
    assert_eq!(reloaded, (0, 1));
    assert!(!world.hosts[A].saw(|e| matches!(e, Event::Relocated { .. })));
}

/// A member takes over that has only the other address.
fn fail_over_elsewhere(world: &mut World, host: usize) {
    world.hosts[host].settings.connections[0].local_addrs = vec![moved(host)];
    world.unreachable.push(address(host));
    world.fail_over(host, Resume::Exact);
    world.run(30 * SECOND);
}

#[test]
fn v11_a_member_with_another_address_takes_over_and_tells_the_peer() {
    for host in [A, B] {
        let mut world = up(9);
        fail_over_elsewhere(&mut world, host);
        let (mut a, mut b) = (address(A), address(B));
        [&mut a, &mut b][host].clone_from(&moved(host));
        assert_at(&world, a, b);
        talk(&mut world);
        assert!(!world.hosts[host].saw(|e| matches!(e, Event::IkeEstablished { .. })));
    }
}

#[test]
fn v11_the_address_need_not_have_been_known_before() {
    let mut b = mobile(B);
    b.connections[0].local_addrs.pop();
    let mut world = World::new(10, mobile(A), b);
    world.run(SECOND);
    fail_over_elsewhere(&mut world, B);
    assert_at(&world, address(A), moved(B));
    talk(&mut world);
}

#[test]
fn v11_transport_mode_moves_with_its_selectors() {
    for host in [A, B] {
        let mut both = [mobile(A), mobile(B)];
        for settings in &mut both {
            let child = &mut settings.connections[0].children[0];
            child.mode = Mode::Transport;
            child.local_ts = vec!["0.0.0.0/0".parse().unwrap()];
            child.remote_ts = child.local_ts.clone();
            child.dynamic.local = child.local_ts.clone();
            child.dynamic.remote = child.local_ts.clone();
        }
        let [a, b] = both;
        let mut world = World::new(11, a, b);
        world.run(SECOND);
        world.assert_agreement(1);
        fail_over_elsewhere(&mut world, host);
        let (mut a, mut b) = (address(A), address(B));
        [&mut a, &mut b][host].clone_from(&moved(host));
        assert_at(&world, a, b);
        let sa = world.sa(A);
        assert_eq!((sa.local_ts[0].start, sa.local_ts[0].end), (a, a));
        assert_eq!((sa.remote_ts[0].start, sa.remote_ts[0].end), (b, b));
        // And from there it is rekeyed.
        let old = sa.id;
        world.input(A, Input::RekeyChild(old));
        world.run(SECOND);
        assert_at(&world, a, b);
        assert_ne!(world.sa(A).id, old);
    }
}

/// B protects whatever address A has, and lets it have several requests outstanding.
fn bound_to_an_address(seed: u64, mobike: bool) -> World {
    let mut ends = [mobile(A), mobile(B)];
    let any = vec!["0.0.0.0/0".parse().unwrap()];
    ends[B].connections[0].roads.window_size = WindowSize::new(4).unwrap();
    ends[A].connections[0].children[0].local_ts = any.clone();
    ends[B].connections[0].children[0].remote_ts = any.clone();
    ends[B].connections[0].children[0].dynamic.remote = any;
    if !mobike {
        ends[A].connections[0].roads.mobike = Mobike::Refuse;
        ends[B].connections[0].remote_addrs = Vec::new();
    }
    let [a, b] = ends;
    World::new(seed, a, b)
}

/// What B's SAs protect at the other end.
fn protected(world: &World) -> Vec<IpAddr> {
    let sas = world.hosts[B].sad.values();
    sas.map(|(sa, ..)| sa.remote_ts[0].start).collect()
}

/// Anybody can write any source address: what is sent to an address is not protected for whoever only
/// says that it is there.
#[test]
fn rfc4555_section_3_7_dynamic_is_an_address_where_the_peer_has_answered() {
    for failover in [false, true] {
        let mut world = bound_to_an_address(13, true);
        world.run(SECOND);
        assert_eq!(protected(&world), [address(A)]);
        world.unreachable.push(moved(A));
        relocate(&mut world, A, moved(A));
        world.run(Duration::from_millis(10));
        assert_eq!(world.sa(B).remote, moved(A), "it is followed");
        if failover {
            world.fail_over(B, Resume::Exact);
        }
        let old = world.sa(A).id;
        world.input(A, Input::RekeyChild(old));
        world.run(Duration::from_millis(300));
        assert_eq!(protected(&world), [address(A)], "and nothing made for it");
        // It was there.
        world.unreachable.clear();
        world.run(20 * SECOND);
        let old = world.sa(A).id;
        world.input(A, Input::RekeyChild(old));
        world.run(5 * SECOND);
        assert_at(&world, moved(A), address(B));
        assert_eq!(protected(&world), [moved(A)]);
    }
}

/// Who cannot be asked keeps the address at which it began.
#[test]
fn rfc7296_section_2_23_dynamic_does_not_follow_a_nat_that_cannot_be_asked() {
    let first: SocketAddr = "203.0.113.7:4500".parse().unwrap();
    let second: SocketAddr = "203.0.113.8:4500".parse().unwrap();
    let mut world = bound_to_an_address(14, false);
    world.intercept();
    world.nat = Some(first);
    world.run(3 * SECOND);
    assert_eq!(protected(&world), [first.ip()]);
    world.nat = Some(second);
    let ike = world.ike(A);
    world.input(A, Input::Liveness(ike));
    world.run(SECOND);
    assert_eq!(world.sa(B).remote, second.ip(), "it is followed");
    let old = world.sa(A).id;
    world.input(A, Input::RekeyChild(old));
    world.run(SECOND);
    assert_ne!(world.sa(A).id, old);
    assert_eq!(protected(&world), [first.ip()]);
}

#[test]
fn rfc7296_section_2_23_only_what_is_authentic_and_new_moves_a_peer_behind_a_nat() {
    let mut b = settings(B);
    b.connections[0].remote_addrs = Vec::new();
    let mut world = World::new(12, settings(A), b);
    world.intercept();
    world.nat = Some("198.51.100.7:61234".parse().unwrap());
    world.run(3 * SECOND);
    world.assert_agreement(1);
    let ports = |world: &World| world.sa(B).encapsulation.unwrap().remote_port;
    assert_eq!(ports(&world), 61234);
    let thief = "203.0.113.66:4500".parse().unwrap();
    let ike = world.ike(A);
    world.input(A, Input::Liveness(ike));
    let sent: Vec<Packet> = world.intercept();
    // Forged: every octet of the SK payload flipped once.
    for position in 28..sent[0].payload.len() {
        let mut forged = sent[0].clone();
        forged.from = thief;
        forged.payload[position] ^= 1;
        world.deliver(&forged);
        assert_eq!(
            (world.sa(B).remote, ports(&world)),
            ("198.51.100.7".parse().unwrap(), 61234)
        );
    }
    // Authentic, but a repetition.
    world.deliver(&sent[0]);
    let mut again = sent[0].clone();
    again.from = thief;
    world.deliver(&again);
    world.run(SECOND);
    assert_eq!(
        (world.sa(B).remote, ports(&world)),
        ("198.51.100.7".parse().unwrap(), 61234)
    );
}

#[test]
fn rfc3948_section_4_who_is_behind_a_nat_keeps_the_mapping_alive_also_after_a_failover() {
    let mut b = settings(B);
    b.connections[0].remote_addrs = Vec::new();
    let mut world = World::new(13, settings(A), b);
    world.intercept();
    world.nat = Some("198.51.100.7:61234".parse().unwrap());
    world.run(3 * SECOND);
    assert_eq!(world.sa(A).options.keepalive, Some(20 * SECOND));
    assert_eq!(world.sa(B).options.keepalive, None);
    world.fail_over(A, Resume::Exact);
    world.run(SECOND);
    assert_eq!(world.sa(A).options.keepalive, Some(20 * SECOND));
    let sa = world.sa(A).id;
    world.input(A, Input::RekeyChild(sa));
    world.run(SECOND);
    assert_ne!(world.sa(A).id, sa);
    assert_eq!(world.sa(A).options.keepalive, Some(20 * SECOND));
}

/// The same for a Child SA that was made where there was no NAT: its next rekeying may be hours away.
#[test]
fn rfc3948_section_4_who_moves_behind_a_nat_keeps_the_mapping_alive_until_it_leaves_it() {
    for fails_over in [false, true] {
        let mut ends = [mobile(A), mobile(B)];
        ends[B].connections[0].remote_addrs = Vec::new();
        let [a, b] = ends;
        let mut world = World::new(23, a, b);
        world.run(SECOND);
        world.assert_agreement(1);
        let sa = world.sa(A).id;
        assert_eq!(world.sa(A).options.keepalive, None);
        world.nat = Some("203.0.113.7:61234".parse().unwrap());
        relocate(&mut world, A, moved(A));
        world.run(SECOND);
        assert_eq!(world.sa(A).options.keepalive, Some(20 * SECOND));
        assert_eq!(world.sa(B).options.keepalive, None);
        if fails_over {
            world.fail_over(A, Resume::Exact);
            world.run(SECOND);
            assert_eq!(world.sa(A).options.keepalive, Some(20 * SECOND));
        }
        world.nat = None;
        relocate(&mut world, A, address(A));
        world.run(SECOND);
        assert_eq!((world.sa(A).id, world.sa(A).options.keepalive), (sa, None));
    }
}

/// What A asked of B meanwhile.
fn asked(world: &mut World, act: impl FnOnce(&mut World)) -> usize {
    let before = world.hosts[A].sent.len();
    act(world);
    let sent = world.hosts[A].sent[before..].iter();
    sent.filter(|payload| !is_response(payload)).count()
}

fn check_liveness(world: &mut World) -> usize {
    asked(world, |world| {
        let ike = world.ike(A);
        world.input(A, Input::Liveness(ike));
        world.run(SECOND);
    })
}

/// RFC 4555 section 3.8: the initiator is the one to notice that its NAT maps it to another address or
/// port, for which it compares what the peer says of where it sees it; and the one to say so.
#[test]
fn rfc4555_section_3_8_an_initiator_behind_a_nat_notices_another_mapping() {
    for fails_over in [false, true] {
        let mut ends = [mobile(A), mobile(B)];
        for end in &mut ends {
            end.connections[0].dpd_delay = Duration::ZERO;
        }
        ends[B].connections[0].remote_addrs = Vec::new();
        let [a, b] = ends;
        let mut world = World::new(22, a, b);
        world.intercept();
        world.nat = Some("203.0.113.7:61234".parse().unwrap());
        world.run(3 * SECOND);
        world.assert_agreement(1);
        assert_eq!(
            check_liveness(&mut world),
            1,
            "the first answer tells nothing"
        );
        assert_eq!(check_liveness(&mut world), 1);
        if fails_over {
            world.fail_over(A, Resume::Exact);
            world.run(SECOND);
        }
        world.nat = Some("203.0.113.7:50000".parse().unwrap());
        assert_eq!(check_liveness(&mut world), 2, "UPDATE_SA_ADDRESSES");
        assert_eq!(check_liveness(&mut world), 1);
        // The digest of a successor is another one, of the same mapping.
        let ike = world.ike(A);
        world.input(A, Input::RekeyIke(ike));
        world.run(SECOND);
        assert_eq!(check_liveness(&mut world), 1);
        world.nat = Some("203.0.113.7:50001".parse().unwrap());
        assert_eq!(check_liveness(&mut world), 2);
    }
}

/// RFC 4555 section 3.8: "The host not behind a NAT MUST NOT use these dynamic updates for IKEv2 packets,
/// but MAY use them for ESP packets."
#[test]
fn rfc4555_section_3_8_with_mobike_esp_is_followed_and_an_ike_message_is_not() {
    let mut ends = [mobile(A), mobile(B)];
    ends[B].connections[0].remote_addrs = Vec::new();
    let [a, b] = ends;
    let mut world = World::new(23, a, b);
    world.intercept();
    let mappings = ["203.0.113.7:61234", "203.0.113.8:50000", "203.0.113.9:4500"];
    let [first, second, third]: [SocketAddr; 3] = mappings.map(|at| at.parse().unwrap());
    world.nat = Some(first);
    world.run(3 * SECOND);
    world.assert_agreement(1);
    check_liveness(&mut world);
    world.nat = Some(second);
    let old = world.sa(A).id;
    world.input(A, Input::RekeyChild(old));
    world.run(SECOND);
    assert_ne!(world.sa(A).id, old, "it is answered where it came from");
    assert_eq!(world.sa(B).remote, first.ip());
    let sa = world.sa(B).id;
    let moved = Input::ChildPeerMoved { sa, remote: second };
    world.input(B, moved);
    assert_eq!(world.sa(B).remote, second.ip());
    // And what the initiator says counts.
    world.nat = Some(third);
    check_liveness(&mut world);
    assert_eq!(world.sa(B).remote, third.ip());
}

/// Seed 2617 of the simulator: a responder died with a request before it, and its successor is elsewhere.
/// The request filled the initiator's window and was repeated where nobody was, so that nobody asked
/// whether there was somebody at the new address.
#[test]
fn what_a_responder_left_unanswered_is_asked_where_its_successor_says_that_it_is() {
    let mut world = up(21);
    world.unreachable.push(address(B));
    let child = world.sa(A).id;
    world.input(A, Input::RekeyChild(child));
    world.run(Duration::from_millis(10));
    relocate(&mut world, B, moved(B));
    world.run(SECOND / 4);
    assert_at(&world, address(A), moved(B));
    assert_ne!(world.sa(A).id, child);
    talk(&mut world);
}
