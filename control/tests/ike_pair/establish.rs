//! IKE_SA_INIT and IKE_AUTH.

use std::time::Duration;

use hitless::ike::settings::Cookies;
use hitless::ike::work::Share;
use hitless::ike::{Event, Input};
use hitless_sa::Mode;
use zeroize::Zeroizing;

use crate::world::{A, B, SECOND, World, address, child, identity, settings};

#[test]
fn establishes_an_ike_sa_and_the_first_child_rfc7296_1_2() {
    let world = World::established(1);
    assert_eq!(world.hosts[A].sent.len(), 2);
    assert_eq!(world.hosts[B].sent.len(), 2);
    let status = &world.hosts[A].engine.status(world.now)[0];
    assert_eq!(
        status.proposal,
        "AES_GCM_16-128/PRF_HMAC_SHA2_256/CURVE_25519"
    );
    assert_eq!(status.children[0].proposal, "AES_GCM_16-128/ESN");
    assert!(status.message_id_sync && status.replay_counter_sync);
    assert_eq!(world.sa(A).encapsulation, None);
    assert_eq!(world.sa(A).remote, address(B));
    assert_eq!(world.sa(A).inbound_spi.0 >> 24, 1, "the member's part");
    assert_eq!(world.ike(B).0 >> 56, 2, "the member's part");
}

#[test]
fn every_cipher_works() {
    let proposals = [
        "aes128-sha256-x25519",
        "aes192-sha256-ecp256",
        "aes192gcm16-prfsha384-x25519",
        "aes256-sha384-ecp384",
        "aes256-sha512-ecp256",
        "aes256gcm16-prfsha512-ecp256",
    ];
    for text in proposals {
        let (mut a, mut b) = (settings(A), settings(B));
        a.connections[0].proposals = vec![text.parse().unwrap()];
        b.connections[0].proposals = vec![text.parse().unwrap()];
        let mut world = World::new(2, a, b);
        world.run(SECOND);
        world.assert_agreement(1);
    }
}

#[test]
fn tries_the_group_that_the_responder_wants_rfc7296_1_3() {
    let (mut a, mut b) = (settings(A), settings(B));
    a.connections[0].proposals = vec![
        "aes128gcm16-prfsha256-x25519".parse().unwrap(),
        "aes128gcm16-prfsha256-ecp256".parse().unwrap(),
    ];
    b.connections[0].proposals = vec!["aes128gcm16-prfsha256-ecp256".parse().unwrap()];
    let mut world = World::new(3, a, b);
    world.run(SECOND);
    world.assert_agreement(1);
    assert_eq!(world.hosts[A].sent.len(), 3, "one more IKE_SA_INIT");
}

#[test]
fn brings_back_the_cookie_that_is_demanded_under_load_rfc7296_2_6() {
    let mut b = settings(B);
    b.limits.cookies = Cookies::Always;
    let mut world = World::new(4, settings(A), b);
    world.run(SECOND);
    world.assert_agreement(1);
    assert_eq!(world.hosts[A].sent.len(), 3);
    assert_eq!(world.hosts[B].sent.len(), 3);
}

#[test]
fn the_half_open_table_is_bounded() {
    let mut b = settings(B);
    b.limits.cookie_threshold = 2;
    let mut world = World::new(5, settings(A), b);
    let first = world.intercept().remove(0);
    for spi in 1..50u8 {
        let mut packet = first.clone();
        packet.payload[7] = packet.payload[7].wrapping_add(spi);
        world.deliver(&packet);
    }
    // Two are kept; all the others are answered with a cookie and forgotten.
    let demands = world
        .intercept()
        .iter()
        .filter(|p| p.payload.len() < 100)
        .count();
    assert_eq!(demands, 47);
    world.deliver(&first);
    world.run(40 * SECOND);
    world.assert_agreement(1);
}

#[test]
fn a_wrong_secret_authenticates_nobody_rfc7296_2_15() {
    let mut b = settings(B);
    b.secrets[0].secret = Zeroizing::new(b"another".to_vec());
    let mut world = World::new(6, settings(A), b);
    world.run(SECOND);
    for host in [A, B] {
        assert!(world.ike_sas(host).is_empty());
        assert!(world.hosts[host].sad.is_empty());
        assert!(world.hosts[host].saw(|e| matches!(e, Event::AuthenticationFailed { .. })));
    }
}

#[test]
fn an_unknown_peer_is_refused() {
    let mut a = settings(A);
    a.connections[0].local_id = "stranger.test".parse().unwrap();
    let mut world = World::new(7, a, settings(B));
    world.run(SECOND);
    let refused = |e: &Event| matches!(e, Event::AuthenticationFailed { reason, .. } if reason.contains("stranger"));
    assert!(world.hosts[B].saw(refused));
    assert!(world.ike_sas(B).is_empty());
}

#[test]
fn the_initiator_refuses_another_responder() {
    let mut b = settings(B);
    b.connections[0].local_id = "impostor.test".parse().unwrap();
    let mut a = settings(A);
    a.connections[0].remote_id = "*.other.test".parse().unwrap();
    let mut world = World::new(8, a, b);
    world.run(Duration::from_millis(500));
    assert!(world.hosts[A].saw(|e| matches!(e, Event::AuthenticationFailed { .. })));
    assert!(world.ike_sas(A).is_empty());
    assert!(world.ike_sas(B).is_empty(), "the responder was told");
}

#[test]
fn secrets_are_chosen_by_identity() {
    let mut b = settings(B);
    let mut wrong = b.secrets[0].clone();
    wrong.secret = Zeroizing::new(b"for another peer".to_vec());
    wrong.ids = vec!["c.test".parse().unwrap(), identity(B)];
    b.secrets[0].ids = vec![identity(A), identity(B)];
    b.secrets.insert(0, wrong);
    let mut world = World::new(9, settings(A), b);
    world.run(SECOND);
    world.assert_agreement(1);
}

#[test]
fn no_common_proposal_is_no_ike_sa_and_is_tried_until_it_times_out_rfc7296_2_21_1() {
    let mut b = settings(B);
    b.connections[0].proposals = vec!["aes256gcm16-prfsha384-ecp384".parse().unwrap()];
    let mut world = World::new(10, settings(A), b);
    world.run(SECOND / 2);
    let failed = |e: &Event| matches!(e, Event::NegotiationFailed { reason, .. } if reason.contains("NO_PROPOSAL"));
    assert!(world.hosts[A].saw(failed));
    // What is not authenticated ends nothing: a genuine answer still gets through.
    assert_eq!(world.hosts[A].engine.status(world.now).len(), 1);
}

#[test]
fn the_responder_narrows_traffic_selectors_rfc7296_2_9() {
    let mut b = settings(B);
    b.connections[0].children[0].local_ts = vec!["10.2.7.0/24".parse().unwrap()];
    let mut world = World::new(11, settings(A), b);
    world.run(SECOND);
    world.assert_agreement(1);
    assert_eq!(world.sa(A).remote_ts, vec!["10.2.7.0/24".parse().unwrap()]);
}

/// Each pair is a policy of every member, and of every worker.
#[test]
fn rfc7296_section_2_9_a_peer_that_asks_for_65025_pairs_of_selectors_gets_256() {
    let mut a = settings(A);
    let hosts = |net: u8| (0..255).map(move |n| format!("10.{net}.3.{n}/32").parse().unwrap());
    a.connections[0].children[0].local_ts = hosts(1).collect();
    a.connections[0].children[0].remote_ts = hosts(2).collect();
    let mut world = World::new(11, a, settings(B));
    world.run(SECOND);
    // What is said is what both have.
    world.assert_agreement(1);
    let sa = world.sa(B);
    assert_eq!((sa.local_ts.len(), sa.remote_ts.len()), (16, 16));
    assert_eq!(sa.local_ts, hosts(2).take(16).collect::<Vec<_>>());
}

#[test]
fn unacceptable_selectors_or_algorithms_leave_the_ike_sa_rfc7296_1_2() {
    let mut other_net = settings(B);
    other_net.connections[0].children[0].local_ts = vec!["10.9.0.0/16".parse().unwrap()];
    let mut other_suite = settings(B);
    other_suite.connections[0].children[0].esp_proposals = vec!["aes256gcm16".parse().unwrap()];
    for (b, refusal) in [
        (other_net, "TS_UNACCEPTABLE"),
        (other_suite, "NO_PROPOSAL_CHOSEN"),
    ] {
        let mut world = World::new(12, settings(A), b);
        world.run(SECOND / 2);
        world.assert_agreement(0);
        let failed = |e: &Event| matches!(e, Event::NegotiationFailed { reason, .. } if reason.contains(refusal));
        assert!(world.hosts[A].saw(failed), "{refusal}");
    }
}

#[test]
fn transport_mode_is_negotiated_rfc7296_1_3_1() {
    let (mut a, mut b) = (settings(A), settings(B));
    a.connections[0].children[0].mode = Mode::Transport;
    b.connections[0].children[0].mode = Mode::Transport;
    let mut world = World::new(13, a.clone(), b);
    world.run(SECOND);
    world.assert_agreement(1);
    assert_eq!(world.sa(A).mode, Mode::Transport);
    assert_eq!(world.sa(B).mode, Mode::Transport);

    // A responder that wants tunnel mode gets no Child SA from an initiator that does not.
    let mut world = World::new(13, a, settings(B));
    world.run(SECOND / 2);
    world.assert_agreement(0);
}

#[test]
fn other_children_follow_by_create_child_sa_rfc7296_1_3_1() {
    let (mut a, mut b) = (settings(A), settings(B));
    for (host, settings) in [(A, &mut a), (B, &mut b)] {
        let mut more = child(host, "more", host == A);
        more.local_ts = vec![["10.3.0.0/16", "10.4.0.0/16"][host].parse().unwrap()];
        more.remote_ts = vec![["10.4.0.0/16", "10.3.0.0/16"][host].parse().unwrap()];
        settings.connections[0].children.push(more);
    }
    let mut world = World::new(14, a, b);
    world.run(SECOND);
    world.assert_agreement(2);
}

#[test]
fn a_nat_makes_ike_and_esp_use_port_4500_rfc7296_2_23() {
    let mut b = settings(B);
    b.connections[0].remote_addrs = Vec::new();
    let mut world = World::new(15, settings(A), b);
    world.intercept();
    world.nat = Some("198.51.100.7:61234".parse().unwrap());
    world.run(3 * SECOND);
    world.assert_agreement(1);
    let (a, b) = (world.sa(A), world.sa(B));
    let ports = a.encapsulation.expect("UDP encapsulation");
    assert_eq!((ports.local_port, ports.remote_port), (4500, 4500));
    let ports = b.encapsulation.expect("UDP encapsulation");
    assert_eq!((ports.local_port, ports.remote_port), (4500, 61234));
    assert_eq!(
        b.remote,
        "198.51.100.7".parse::<std::net::IpAddr>().unwrap()
    );

    // The mapping changes: the next authenticated message moves IKE and ESP alike.
    world.nat = Some("198.51.100.7:50000".parse().unwrap());
    let ike = world.ike(A);
    world.input(A, Input::Liveness(ike));
    world.run(SECOND);
    assert_eq!(world.sa(B).encapsulation.unwrap().remote_port, 50000);

    // ESP that was authenticated moves them too.
    let sa = world.sa(B).id;
    let remote = "198.51.100.7:50001".parse().unwrap();
    world.input(B, Input::ChildPeerMoved { sa, remote });
    assert_eq!(world.sa(B).encapsulation.unwrap().remote_port, 50001);
}

#[test]
fn forced_encapsulation_makes_both_sides_encapsulate() {
    for side in [A, B] {
        let mut both = [settings(A), settings(B)];
        both[side].connections[0].encap = true;
        let [a, b] = both;
        let mut world = World::new(16, a, b);
        world.run(SECOND);
        world.assert_agreement(1);
        for host in [A, B] {
            let ports = world.sa(host).encapsulation.expect("UDP encapsulation");
            assert_eq!((ports.local_port, ports.remote_port), (4500, 4500));
        }
    }
}

#[test]
fn can_start_at_port_4500() {
    let mut a = settings(A);
    a.connections[0].remote_port = 4500;
    let mut world = World::new(17, a, settings(B));
    world.run(SECOND);
    world.assert_agreement(1);
}

#[test]
fn initial_contact_replaces_the_ike_sa_that_died_with_the_peer_rfc7296_2_4() {
    let mut world = World::established(18);
    let old = world.ike(B);
    // A restarts without memory.
    world.hosts[A] = crate::world::Host::new(settings(A));
    world.lead(A, hitless::ike::Resume::Exact);
    world.run(SECOND);
    world.assert_agreement(1);
    assert_ne!(world.ike(B), old);
}

#[test]
fn responder_and_initiator_survive_simultaneous_initiation() {
    let mut b = settings(B);
    b.connections[0].children[0].start = true;
    let mut world = World::new(19, settings(A), b);
    world.run(5 * SECOND);
    for host in [A, B] {
        assert!(!world.hosts[host].sad.is_empty());
    }
    let count = world.hosts[A].sad.len();
    assert_eq!(count, world.hosts[B].sad.len());
}

#[test]
fn an_engine_that_stands_by_answers_nothing() {
    let mut world = World::pair(20);
    world.hosts[B].engine.step_down();
    world.run(SECOND);
    assert!(world.hosts[B].sent.is_empty());
    assert!(world.hosts[B].saw(|e| matches!(e, Event::Dropped { .. })));
    assert_eq!(world.hosts[B].engine.poll_timeout(), None);
}

/// An operator, or a script of one, asks for everything at once: no more of it is begun in a turn than
/// of what is to be started, and all of it in the turns that follow.
#[test]
fn what_is_initiated_in_a_burst_is_begun_a_share_at_a_time() {
    const MANY: u8 = 200;
    let mut a = settings(A);
    let only = a.connections.remove(0);
    for n in 0..MANY {
        let mut connection = only.clone();
        connection.name = format!("peer{n}");
        connection.remote_addrs = vec![[198, 51, 100, n].into()];
        connection.children[0].start = false;
        a.connections.push(connection);
    }
    let mut world = World::new(90, a, settings(B));
    let begun = |world: &World| {
        let names = world.hosts[A].engine.status(world.now);
        names.len()
    };
    let share = Share::new(0);
    for n in 0..MANY {
        let child = (n % 2 == 0).then(|| "net".to_owned());
        let connection = format!("peer{n}");
        world.input(A, Input::Initiate { connection, child });
    }
    assert!(share.used() <= Share::OF_A_TURN, "{}", share.used());
    let at_once = begun(&world);
    assert!(at_once > 1 && at_once < usize::from(MANY), "{at_once}");
    world.run(SECOND);
    assert_eq!(begun(&world), usize::from(MANY));
}
