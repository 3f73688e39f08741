//! The database against a plain list of selectors, its rules, and its counts.

use std::net::{Ipv4Addr, Ipv6Addr};

use hitless_sa::{Incarnation, MemberId};
use proptest::prelude::*;

use super::*;

fn policy(local: &str, remote: &str, action: Action) -> Policy {
    Policy {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        action,
    }
}

fn flow(source: &str, destination: &str) -> Flow {
    Flow {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol: 17,
        ports: Ports::Of(1000, 2000),
    }
}

fn action(found: Option<Match>) -> Option<Action> {
    found.map(|m| m.action)
}

#[test]
fn rfc4301_section_4_4_1_first_match_wins() {
    let spd = Spd::new(vec![
        policy("10.1.0.0/16", "10.2.0.9", Action::Discard),
        policy("10.1.0.0/16", "10.2.0.0/16", Action::Protect(None)),
        policy("10.1.0.0/16", "0.0.0.0/0", Action::Bypass),
    ]);
    let out = |to| action(spd.outbound(&flow("10.1.0.1", to)));
    assert_eq!(out("10.2.0.9"), Some(Action::Discard));
    assert_eq!(out("10.2.0.8"), Some(Action::Protect(None)));
    assert_eq!(out("8.8.8.8"), Some(Action::Bypass));
    assert_eq!(spd.outbound(&flow("10.9.0.1", "10.2.0.8")), None);
}

#[test]
fn rfc4301_section_4_4_1_overlapping_ranges_follow_the_order_whichever_way_they_stand() {
    let wide = policy("10.1.0.0..10.1.0.99", "10.2.0.0..10.2.0.99", Action::Bypass);
    let narrow = policy("10.1.0.50..10.1.0.150", "10.2.0.0/16", Action::Discard);
    let both = flow("10.1.0.70", "10.2.0.1");
    let only_narrow = flow("10.1.0.120", "10.2.0.1");
    let one = Spd::new(vec![wide.clone(), narrow.clone()]);
    let other = Spd::new(vec![narrow, wide]);
    assert_eq!(action(one.outbound(&both)), Some(Action::Bypass));
    assert_eq!(action(other.outbound(&both)), Some(Action::Discard));
    for spd in [one, other] {
        assert_eq!(action(spd.outbound(&only_narrow)), Some(Action::Discard));
    }
}

#[test]
fn inbound_is_the_mirror_image_of_outbound() {
    let spd = Spd::new(vec![policy(
        "10.1.0.0/16[udp/2000]",
        "10.2.0.0/16",
        Action::Protect(None),
    )]);
    assert!(spd.inbound(&flow("10.2.0.1", "10.1.0.1")).is_some());
    assert!(spd.inbound(&flow("10.1.0.1", "10.2.0.1")).is_none());
    assert!(
        spd.outbound(&flow("10.1.0.1", "10.2.0.1")).is_none(),
        "from port 1000"
    );
}

#[test]
fn rfc4301_section_7_a_later_fragment_matches_only_policies_for_every_or_opaque_ports() {
    let narrow = policy("10.1.0.0/16", "10.2.0.0/16[0/2000]", Action::Bypass);
    let opaque = policy("10.1.0.0/16", "10.2.0.0/16[0/opaque]", Action::Discard);
    let any = policy("10.1.0.0/16", "10.2.0.0/16", Action::Protect(None));
    let spd = Spd::new(vec![narrow.clone()]);
    let mut packet = flow("10.1.0.1", "10.2.0.1");
    assert!(spd.outbound(&packet).is_some());
    packet.ports = Ports::Opaque;
    assert!(spd.outbound(&packet).is_none());
    let spd = Spd::new(vec![narrow, opaque, any]);
    assert_eq!(action(spd.outbound(&packet)), Some(Action::Discard));
    packet.ports = Ports::Of(1, 65535);
    assert_eq!(action(spd.outbound(&packet)), Some(Action::Protect(None)));
}

#[test]
fn rfc4301_section_4_4_1_1_icmp_type_and_code_choose_the_policy_in_both_families() {
    for (net, host, icmp) in [("0.0.0.0/0", "10.1.0.1", 1), ("::/0", "fd00::1", 58)] {
        let selector = |types: &str| format!("{net}[{icmp}/{types}]");
        let spd = Spd::new(vec![
            policy(&selector("8"), &selector("8"), Action::Bypass),
            policy(net, &selector("3-3(255)"), Action::Discard),
            policy(net, &format!("{net}[{icmp}]"), Action::Protect(None)),
        ]);
        let out = |kind, code| {
            let port = u16::from_be_bytes([kind, code]);
            let ports = Ports::Of(port, port);
            let protocol = icmp;
            action(spd.outbound(&Flow {
                protocol,
                ports,
                ..flow(host, host)
            }))
        };
        assert_eq!(out(8, 0), Some(Action::Bypass));
        assert_eq!(out(3, 0), Some(Action::Discard));
        assert_eq!(out(3, 13), Some(Action::Discard));
        assert_eq!(out(11, 0), Some(Action::Protect(None)));
        assert_eq!(action(spd.outbound(&flow(host, host))), None, "UDP");
    }
}

#[test]
fn selectors_that_contradict_each_other_match_nothing() {
    let spd = Spd::new(vec![
        policy("10.1.0.0/16", "fd00::/8", Action::Bypass),
        policy("10.1.0.0/16[tcp]", "10.2.0.0/16[udp]", Action::Bypass),
    ]);
    assert_eq!(spd.outbound(&flow("10.1.0.1", "10.2.0.1")), None);
    assert_eq!(spd.outbound(&flow("fd00::1", "fd00::2")), None);
    let mut turned = policy("10.1.0.0/16", "10.2.0.0/16", Action::Bypass);
    (turned.local.start, turned.local.end) = (turned.local.end, turned.local.start);
    let spd = Spd::new(vec![turned]);
    assert_eq!(spd.outbound(&flow("10.1.0.1", "10.2.0.1")), None);
}

/// The list that the tree must agree with.
fn naive(spd: &Spd, flow: &Flow, direction: Direction) -> Option<usize> {
    let matches = |policy: &Policy| {
        let Policy { local, remote, .. } = policy;
        match direction {
            Direction::Outbound => flow.source_within(local) && flow.destination_within(remote),
            Direction::Inbound => flow.source_within(remote) && flow.destination_within(local),
        }
    };
    let found = spd.policies().iter().position(matches)?;
    // RFC 4301 section 7.4: what cannot be seen may be what an earlier policy keeps from going in
    // clear.
    let veiled = |policy: &Policy| {
        let Policy { local, remote, .. } = policy;
        let wide = |side: &TrafficSelector| TrafficSelector {
            protocol: if flow.hides_protocol() {
                0
            } else {
                side.protocol
            },
            start_port: 0,
            end_port: u16::MAX,
            ..*side
        };
        let possible =
            local.protocol == 0 || remote.protocol == 0 || local.protocol == remote.protocol;
        let (local, remote) = ([wide(local)], [wide(remote)]);
        let within = match direction {
            Direction::Outbound => flow.matches_outbound(&local, &remote),
            Direction::Inbound => flow.matches_inbound(&local, &remote),
        };
        policy.action != Action::Bypass && possible && within
    };
    let (earlier, policy) = (&spd.policies()[..found], &spd.policies()[found]);
    let doubtful = flow.ports == Ports::Opaque && policy.action == Action::Bypass;
    (!doubtful || !earlier.iter().any(veiled)).then_some(found)
}

fn any_address(v4: bool) -> BoxedStrategy<IpAddr> {
    // Few enough to meet each other's ranges.
    let low = prop_oneof![0u8..8, any::<u8>()];
    if v4 {
        low.prop_map(|n| Ipv4Addr::new(10, n & 1, n & 2, n).into())
            .boxed()
    } else {
        let address =
            |n: u8| Ipv6Addr::from((0xfd00u128 << 112) | u128::from(n) << 60 | u128::from(n & 3));
        low.prop_map(move |n| address(n).into()).boxed()
    }
}

fn any_selector(v4: bool) -> impl Strategy<Value = TrafficSelector> {
    let prefix = (any_address(v4), 0u8..=32).prop_map(move |(address, bits)| {
        TrafficSelector::prefix(address, if v4 { bits } else { bits * 4 }).unwrap()
    });
    let range = (any_address(v4), any_address(v4)).prop_map(|(a, b)| TrafficSelector {
        start: a.min(b),
        end: a.max(b),
        ..TrafficSelector::prefix(a, 0).unwrap()
    });
    let protocol = prop_oneof![Just(0), Just(6), Just(17), Just(1)];
    let ports = prop_oneof![
        Just((0, u16::MAX)),
        Just((u16::MAX, 0)),
        (0u16..4, 0u16..4).prop_map(|(a, b)| (a.min(b), a.max(b))),
        Just((1, u16::MAX)),
    ];
    (prop_oneof![prefix, range], protocol, ports).prop_map(
        |(selector, protocol, (start_port, end_port))| TrafficSelector {
            protocol,
            start_port,
            end_port,
            ..selector
        },
    )
}

fn any_policy() -> impl Strategy<Value = Policy> {
    any::<bool>().prop_flat_map(|v4| {
        let action = prop_oneof![
            Just(Action::Bypass),
            Just(Action::Discard),
            Just(Action::Protect(None)),
        ];
        (any_selector(v4), any_selector(v4), action).prop_map(|(local, remote, action)| Policy {
            local,
            remote,
            action,
        })
    })
}

fn any_flow() -> impl Strategy<Value = Flow> {
    let ports = prop_oneof![
        Just(Ports::Opaque),
        (0u16..5, 0u16..5).prop_map(|(a, b)| Ports::Of(a, b)),
        any::<(u16, u16)>().prop_map(|(a, b)| Ports::Of(a, b)),
    ];
    let protocol = prop_oneof![Just(6u8), Just(17), Just(1), Just(50), Just(0)];
    (any::<bool>(), protocol, ports).prop_flat_map(|(v4, protocol, ports)| {
        (any_address(v4), any_address(v4)).prop_map(move |(source, destination)| Flow {
            source,
            destination,
            protocol,
            ports,
        })
    })
}

proptest! {
    #[test]
    fn rfc4301_section_4_4_1_every_database_decides_as_a_search_of_the_list_does(
        policies in prop::collection::vec(any_policy(), 0..60),
        flows in prop::collection::vec(any_flow(), 40),
    ) {
        let spd = Spd::new(policies);
        let mut cache = FlowCache::new();
        let mut all = vec![None; flows.len()];
        spd.outbound_all(&flows, &mut all);
        let remembered: Vec<_> = flows
            .chunks(32)
            .chain(flows.chunks(32))
            .flat_map(|flows| cache.outbound(&spd, flows))
            .collect();
        prop_assert_eq!(&remembered[..flows.len()], all.as_slice());
        prop_assert_eq!(&remembered[flows.len()..], all.as_slice());
        for (flow, searched) in flows.iter().zip(&all) {
            let outbound = naive(&spd, flow, Direction::Outbound);
            prop_assert_eq!(spd.outbound(flow).map(|m| m.policy), outbound);
            prop_assert_eq!(searched.map(|m| m.policy), outbound);
            let inbound = naive(&spd, flow, Direction::Inbound);
            prop_assert_eq!(spd.inbound(flow).map(|m| m.policy), inbound);
        }
    }
}

fn traffic(spd: &Spd) -> Vec<(u64, u64, u64, u64)> {
    let each = |n| {
        spd.traffic(n)
            .map(|t| (t.packets_out, t.bytes_out, t.packets_in, t.bytes_in))
    };
    (0..spd.policies().len()).filter_map(each).collect()
}

#[test]
fn counts_are_exact_whether_the_database_knows_the_worker_or_not() {
    let policies = || vec![policy("10.1.0.0/16", "10.2.0.0/16", Action::Bypass)];
    for workers in [0, 1, 2] {
        let spd = Spd::for_workers(policies(), workers);
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let spd = &spd;
                scope.spawn(move || {
                    for _ in 0..10_000 {
                        spd.count(worker, 0, Direction::Outbound, 3);
                        spd.count(worker, 0, Direction::Inbound, 5);
                    }
                });
            }
        });
        // A second unknown worker shares what the first one uses.
        spd.count(9, 0, Direction::Inbound, 1);
        spd.count(0, 7, Direction::Inbound, 1);
        assert_eq!(
            traffic(&spd),
            [(20_000, 60_000, 20_001, 100_001)],
            "{workers}"
        );
        assert_eq!(spd.traffic(1), None);
    }
}

#[test]
fn a_successor_goes_on_counting_what_stays_also_over_a_rekey() {
    let id = |counter| SaId {
        creator: MemberId(1),
        incarnation: Incarnation(1),
        counter,
    };
    let net = |action| policy("10.1.0.0/16", "10.2.0.0/16", action);
    let old = Spd::for_workers(
        vec![
            net(Action::Protect(Some(id(1)))),
            net(Action::Protect(None)),
            policy("10.1.0.0/16", "0.0.0.0/0", Action::Bypass),
        ],
        1,
    );
    for (policy, times) in [(0, 3), (1, 2), (2, 1)] {
        for _ in 0..times {
            old.count(0, policy, Direction::Outbound, 10);
        }
    }
    let new = old.successor(vec![
        policy("10.9.0.0/16", "0.0.0.0/0", Action::Bypass),
        net(Action::Protect(Some(id(2)))),
        net(Action::Protect(None)),
        net(Action::Protect(None)),
    ]);
    // A worker that has not changed over yet is still counted.
    old.count(0, 0, Direction::Outbound, 10);
    let packets: Vec<u64> = traffic(&new).iter().map(|t| t.0).collect();
    assert_eq!(packets, [0, 4, 2, 0]);
}
