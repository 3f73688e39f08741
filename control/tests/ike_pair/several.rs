//! Several Child SAs on one IKE SA, and selectors that are narrowed (RFC 7296 sections 1.3.1, 2.9).

use hitless::ike::settings::EngineSettings;
use hitless::ike::{Event, Input, Resume};
use hitless_sa::TrafficSelector;

use crate::world::{A, B, SECOND, World, child, settings};

const CHILDREN: usize = 12;

/// Every third child is started by A, every third by B, the rest by whoever has traffic.
fn many(host: usize) -> EngineSettings {
    let mut settings = settings(host);
    let children = (0..CHILDREN).map(|n| {
        let mut one = child(host, &format!("net{n}"), n % 3 == host);
        let nets = [
            format!("10.{}.0.0/16", 2 * n),
            format!("10.{}.0.0/16", 2 * n + 1),
        ];
        one.local_ts = vec![nets[host].parse().unwrap()];
        one.remote_ts = vec![nets[1 - host].parse().unwrap()];
        one
    });
    settings.connections[0].children = children.collect();
    settings
}

fn up(seed: u64) -> World {
    // B waits for A's IKE SA, so that there is one.
    let mut b = many(B);
    for child in &mut b.connections[0].children {
        child.start = false;
    }
    let mut world = World::new(seed, many(A), b);
    world.run(SECOND);
    for n in (0..CHILDREN).filter(|n| n % 3 != A) {
        let host = if n % 3 == B { B } else { A };
        world.input(
            host,
            Input::Initiate {
                connection: "peer".to_owned(),
                child: Some(format!("net{n}")),
            },
        );
    }
    world.run(5 * SECOND);
    world.assert_agreement(CHILDREN);
    world
}

#[test]
fn rfc7296_section_1_3_1_any_number_of_children_started_by_either_end() {
    let world = up(1);
    assert_eq!(world.ike_sas(A).len(), 1);
}

#[test]
fn several_children_are_rekeyed_and_survive_failovers_of_both_ends() {
    let mut world = up(2);
    for host in [A, B] {
        world.fail_over(host, Resume::Exact);
        let sas: Vec<_> = world.hosts[host].sad.keys().copied().collect();
        for sa in &sas {
            world.input(host, Input::RekeyChild(*sa));
        }
        world.run(20 * SECOND);
        world.assert_agreement(CHILDREN);
        assert!(sas.iter().all(|sa| !world.hosts[host].sad.contains_key(sa)));
        let ike = world.ike(host);
        world.input(host, Input::RekeyIke(ike));
        world.run(5 * SECOND);
        world.assert_agreement(CHILDREN);
    }
}

fn selectors(list: &[&str]) -> Vec<TrafficSelector> {
    list.iter().map(|s| s.parse().unwrap()).collect()
}

fn narrowed(ours: [&[&str]; 2], theirs: [&[&str]; 2]) -> World {
    let mut both = [settings(A), settings(B)];
    for (host, [local, remote]) in [(A, ours), (B, theirs)] {
        let child = &mut both[host].connections[0].children[0];
        child.local_ts = selectors(local);
        child.remote_ts = selectors(remote);
    }
    let [a, b] = both;
    let mut world = World::new(3, a, b);
    world.run(SECOND / 2);
    world
}

#[test]
fn rfc7296_section_2_9_several_selectors_are_narrowed_to_what_both_have() {
    let world = narrowed(
        [
            &["10.1.0.0/16", "10.5.0.0/16", "2001:db8:1::/48"],
            &["10.2.0.0/16", "2001:db8:2::/48"],
        ],
        [
            &["10.2.4.0/24", "2001:db8:2::/48"],
            &["10.0.0.0/8[tcp/443]", "2001:db8:1:7::/64"],
        ],
    );
    world.assert_agreement(1);
    let sa = world.sa(A);
    assert_eq!(
        sa.local_ts,
        selectors(&[
            "10.1.0.0/16[tcp/443]",
            "10.5.0.0/16[tcp/443]",
            "2001:db8:1:7::/64"
        ])
    );
    assert_eq!(sa.remote_ts, selectors(&["10.2.4.0/24", "2001:db8:2::/48"]));
}

#[test]
fn rfc7296_section_2_9_selectors_without_anything_in_common_are_unacceptable() {
    for theirs in [
        ["10.2.0.0/16[udp]", "10.1.0.0/16"],
        ["2001:db8::/32", "10.1.0.0/16"],
    ] {
        let ours: [&[&str]; 2] = [&["10.1.0.0/16"], &["10.2.0.0/16[tcp]"]];
        let world = narrowed(ours, [&theirs[..1], &theirs[1..]]);
        world.assert_agreement(0);
        let refused = |e: &Event| matches!(e, Event::NegotiationFailed { reason, .. } if reason.contains("TS_UNACCEPTABLE"));
        assert!(world.hosts[A].saw(refused));
    }
}
