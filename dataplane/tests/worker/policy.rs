//! RFC 4301 policies at work in a worker: what each does, in which order, after a change, and what
//! is counted.

use std::net::IpAddr;
use std::sync::Arc;

use hitless_dataplane::command::Command;
use hitless_dataplane::fib::{Fib, Route};
use hitless_dataplane::spd::{Action, Policy, Spd};
use hitless_dataplane::verdict::DropReason;

use crate::bed::{
    Bed, HOST_A, HOST_B, HOST6_A, INSIDE, OUTSIDE, echo, hops_later, policy, raw, sa_id, udp,
    udp_ports, udp6, v6,
};
use crate::tunnel::route_default;

const OUTSIDER: [u8; 4] = [203, 0, 113, 9];
const PROTECT: Action = Action::Protect(Some(hitless_sa::SaId {
    creator: hitless_sa::MemberId(1),
    incarnation: hitless_sa::Incarnation(1),
    counter: 1,
}));

/// A bed whose side A has these policies for one worker, and a default route.
fn bed(policies: Vec<Policy>) -> (Bed, Arc<Spd>) {
    assert_eq!(PROTECT, Action::Protect(Some(sa_id(1))));
    let mut bed = Bed::new();
    bed.warm_up();
    route_default(&mut bed);
    let spd = Arc::new(Spd::for_workers(policies, 2));
    set(&mut bed, &spd);
    (bed, spd)
}

fn set(bed: &mut Bed, spd: &Arc<Spd>) {
    bed.a.send(Command::Policies(Arc::clone(spd)));
    bed.settle();
}

/// What becomes of a packet of host A.
#[derive(PartialEq, Eq, Debug)]
enum Fate {
    Protected,
    Clear,
    Dropped(DropReason),
}

fn fate(bed: &mut Bed, packet: &[u8]) -> Fate {
    let before: Vec<_> = bed.a.handle.counters.drops().collect();
    bed.wire.clear();
    bed.a.host_sends(packet);
    bed.settle();
    let frame = bed.wire.first().map(|frame| &frame[14..]);
    match frame {
        Some(sent) if sent == hops_later(packet, 1) => Fate::Clear,
        Some(sent) => {
            assert_eq!(sent[9], 50, "neither clear nor ESP");
            Fate::Protected
        }
        None => {
            let drops = bed.a.handle.counters.drops();
            let new = drops.filter(|drop| !before.contains(drop)).last();
            Fate::Dropped(new.map(|(reason, _)| reason).unwrap())
        }
    }
}

/// Policies that match nothing here, so that flows are remembered rather than searched for.
fn padding() -> impl Iterator<Item = Policy> {
    (0..40).map(|n| {
        policy(
            &format!("172.16.{n}.0/24"),
            "172.17.0.0/16",
            Action::Discard,
        )
    })
}

#[test]
fn rfc4301_section_5_1_each_packet_is_protected_bypassed_or_discarded_by_its_first_policy() {
    let list = [
        policy("10.1.0.0/16", "203.0.113.9[udp/53]", Action::Bypass),
        policy("10.1.0.5", "203.0.113.9", Action::Discard),
        policy("10.1.0.0/16", "10.2.0.0/16[icmp/8]", Action::Discard),
        policy("10.1.0.0/16", "10.2.0.0/16", PROTECT),
    ];
    for padded in [false, true] {
        let all = list.iter().cloned().chain(padding().filter(|_| padded));
        let (mut bed, _) = bed(all.collect());
        // Twice: searched for, then remembered.
        for _ in 0..2 {
            let dns = udp_ports(HOST_A, OUTSIDER, 4000, 53, b"?");
            assert_eq!(fate(&mut bed, &dns), Fate::Clear);
            let other = udp_ports(HOST_A, OUTSIDER, 4000, 54, b"?");
            let discarded = Fate::Dropped(DropReason::PolicyDiscard);
            assert_eq!(fate(&mut bed, &other), discarded);
            assert_eq!(fate(&mut bed, &echo(HOST_A, HOST_B)), discarded);
            assert_eq!(fate(&mut bed, &udp(HOST_A, HOST_B, b"x")), Fate::Protected);
            let unknown = Fate::Dropped(DropReason::NoPolicy);
            assert_eq!(fate(&mut bed, &udp(HOST_A, [8, 8, 8, 8], b"x")), unknown);
        }
    }
}

#[test]
fn rfc4301_section_4_4_1_a_policy_added_removed_or_moved_counts_from_the_next_packet_on() {
    let base: Vec<Policy> = padding()
        .chain([policy("10.1.0.0/16", "203.0.113.0/24", Action::Bypass)])
        .collect();
    let (mut bed, first) = bed(base.clone());
    let packet = udp(HOST_A, OUTSIDER, b"x");
    assert_eq!(fate(&mut bed, &packet), Fate::Clear);
    // Added in front.
    let discard = policy("10.1.0.5", "203.0.113.9", Action::Discard);
    let mut list = base.clone();
    list.insert(0, discard.clone());
    let second = Arc::new(first.successor(list));
    set(&mut bed, &second);
    assert_eq!(
        fate(&mut bed, &packet),
        Fate::Dropped(DropReason::PolicyDiscard)
    );
    // Moved behind.
    let mut list = base.clone();
    list.push(discard);
    let third = Arc::new(second.successor(list));
    set(&mut bed, &third);
    assert_eq!(fate(&mut bed, &packet), Fate::Clear);
    // All removed but those that do not match.
    let last = Arc::new(third.successor(padding().collect()));
    set(&mut bed, &last);
    assert_eq!(fate(&mut bed, &packet), Fate::Dropped(DropReason::NoPolicy));
    // Each counted for the time it was there, over all databases.
    let counts: Vec<u64> = [40, 41]
        .iter()
        .filter_map(|n| third.traffic(*n))
        .map(|traffic| traffic.packets_out)
        .collect();
    assert_eq!(counts, [2, 1]);
}

#[test]
fn policy_counters_are_exact_in_both_directions() {
    let (mut bed, spd) = bed(vec![
        policy("10.1.0.0/16", "203.0.113.66", Action::Discard),
        policy("10.1.0.0/16", "203.0.113.0/24", Action::Bypass),
        policy("10.1.0.0/16", "198.51.100.0/24", Action::Protect(None)),
        policy("10.1.0.0/16", "10.2.0.0/16", PROTECT),
    ]);
    let sizes = [1usize, 30, 777];
    let mut octets = 0;
    for size in sizes {
        let payload = vec![7; size];
        octets += 28 + size as u64;
        for to in [[203, 0, 113, 66], OUTSIDER, [198, 51, 100, 1], HOST_B] {
            bed.a.host_sends(&udp(HOST_A, to, &payload));
            bed.a.wire_brings(&udp(to, HOST_A, &payload));
            bed.settle();
        }
    }
    for n in 0..4 {
        let traffic = spd.traffic(n).unwrap();
        assert_eq!(
            (traffic.packets_out, traffic.bytes_out),
            (3, octets),
            "policy {n}"
        );
        assert_eq!(
            (traffic.packets_in, traffic.bytes_in),
            (3, octets),
            "policy {n}"
        );
    }
    // What came in clear: discarded, let in, and twice refused because policy wants it protected.
    assert_eq!(bed.a.dropped(DropReason::PolicyDiscard), 6);
    assert_eq!(bed.a.delivered.len(), 3);
    assert_eq!(bed.a.dropped(DropReason::ClearText), 6);
    assert_eq!(bed.a.dropped(DropReason::NoSa), 3);
}

#[test]
fn rfc4301_section_5_2_clear_text_that_matches_no_policy_is_dropped_by_default() {
    let (mut bed, _) = bed(padding().collect());
    bed.a.wire_brings(&udp(OUTSIDER, HOST_A, b"x"));
    bed.a.wire_brings(&raw(OUTSIDER, HOST_A, 47, b"gre"));
    bed.settle();
    assert!(bed.a.delivered.is_empty());
    assert_eq!(bed.a.dropped(DropReason::NoPolicy), 2);
}

#[test]
fn rfc4301_section_5_2_clear_text_that_policy_wants_protected_is_dropped_in_its_order_only() {
    let (mut bed, _) = bed(vec![
        policy("10.1.0.0/16", "10.2.0.5[udp/4000]", Action::Bypass),
        policy("10.1.0.0/16", "10.2.0.0/16", PROTECT),
    ]);
    bed.a.wire_brings(&udp_ports(HOST_B, HOST_A, 4000, 9, b"x"));
    bed.settle();
    assert_eq!(bed.a.delivered.len(), 1);
    bed.a.wire_brings(&udp_ports(HOST_B, HOST_A, 4001, 9, b"x"));
    bed.settle();
    assert_eq!(bed.a.delivered.len(), 1);
    assert_eq!(bed.a.dropped(DropReason::ClearText), 1);
}

#[test]
fn rfc4301_section_7_a_later_fragment_is_never_bypassed_by_a_policy_for_a_port() {
    let (mut bed, _) = bed(vec![
        policy("10.1.0.0/16", "203.0.113.9[udp/53]", Action::Bypass),
        policy("10.1.0.0/16", "203.0.113.9[udp/opaque]", Action::Discard),
        policy("10.1.0.0/16", "203.0.113.0/24", Action::Bypass),
    ]);
    let mut fragment = udp_ports(HOST_A, OUTSIDER, 4000, 53, &[0; 64]);
    (fragment[6], fragment[7]) = (0, 100);
    let fragment = hops_later(&fragment, 0);
    let discarded = Fate::Dropped(DropReason::PolicyDiscard);
    assert_eq!(fate(&mut bed, &fragment), discarded);
    let whole = udp_ports(HOST_A, OUTSIDER, 4000, 53, b"?");
    assert_eq!(fate(&mut bed, &whole), Fate::Clear);
}

#[test]
fn rfc4301_section_7_4_a_later_fragment_of_what_may_be_protected_or_discarded_is_not_bypassed() {
    for (action, padded) in [
        (PROTECT, false),
        (PROTECT, true),
        (Action::Discard, false),
        (Action::Discard, true),
    ] {
        let list = [
            policy("10.1.0.0/16", "203.0.113.77", Action::Bypass),
            policy("10.1.0.0/16[tcp]", "203.0.113.0/24[tcp/22]", action),
            policy("10.1.0.0/16", "0.0.0.0/0", Action::Bypass),
        ];
        // Padded behind: then flows are remembered, and later searched for together.
        let all = list.iter().cloned().chain(padding().filter(|_| padded));
        let (mut bed, _) = bed(all.collect());
        let later = |to, protocol| {
            let mut packet = raw([10, 1, 0, 5], to, protocol, b"secret payload..");
            packet[7] = 8;
            hops_later(&packet, 0)
        };
        for _ in 0..2 {
            let refused = Fate::Dropped(DropReason::NoPolicy);
            assert_eq!(fate(&mut bed, &later(OUTSIDER, 6)), refused);
            // Nothing doubtful: another protocol, another host, an earlier BYPASS.
            assert_eq!(fate(&mut bed, &later(OUTSIDER, 17)), Fate::Clear);
            assert_eq!(fate(&mut bed, &later([203, 0, 113, 77], 6)), Fate::Clear);
        }
        // Nor is one let in that may be of what must not come in clear.
        let mut arriving = raw(OUTSIDER, HOST_A, 6, b"forged payload..");
        arriving[7] = 8;
        bed.a.wire_brings(&hops_later(&arriving, 0));
        bed.settle();
        assert!(bed.a.delivered.is_empty());
    }
}

#[test]
fn rfc4301_section_7_4_over_ipv6_neither_hidden_ports_nor_a_hidden_protocol_are_bypassed() {
    let (mut bed, _) = bed(vec![
        policy("2001:db8:1::/64[tcp]", "2001:db8:9::/64[tcp/22]", PROTECT),
        policy("2001:db8:1::/64", "::/0", Action::Bypass),
    ]);
    let later = |next_header: u8| {
        let mut packet = udp6(HOST6_A, v6(9, 9), &[7; 64]);
        packet[6] = 44;
        packet[40..48].copy_from_slice(&[next_header, 0, 0, 64, 0, 0, 0, 7]);
        packet
    };
    for (next_header, reason) in [
        (6, DropReason::NoPolicy),
        // Destination options, and whatever follows them.
        (60, DropReason::NoPolicy),
        // Bypassed, and without a route from here.
        (17, DropReason::NoRoute),
    ] {
        let fate = fate(&mut bed, &later(next_header));
        assert_eq!(fate, Fate::Dropped(reason), "{next_header}");
    }
}

#[test]
fn ten_thousand_policies_decide_like_one() {
    let wide = (0..10_000u32).map(|n| {
        let [_, _, c, d] = n.to_be_bytes();
        policy(
            "10.1.0.0/16",
            &format!("10.{}.{d}.0/24", 100 + c),
            Action::Discard,
        )
    });
    let last = policy("10.1.0.0/16", "10.2.0.0/16", PROTECT);
    let (mut bed, spd) = bed(wide.chain([last]).collect());
    assert_eq!(fate(&mut bed, &udp(HOST_A, HOST_B, b"x")), Fate::Protected);
    let discarded = Fate::Dropped(DropReason::PolicyDiscard);
    assert_eq!(
        fate(&mut bed, &udp(HOST_A, [10, 139, 15, 1], b"x")),
        discarded
    );
    assert_eq!(spd.traffic(9_999).map(|t| t.packets_out), Some(1));
    assert_eq!(spd.traffic(10_000).map(|t| t.packets_out), Some(1));
}

/// Where side A's protected side is, and the way to everything else.
fn routes_of_a(bed: &mut Bed, wide: bool) -> Vec<(IpAddr, u8)> {
    let route = |prefix: [u8; 4], length, port, next_hop: Option<[u8; 4]>| Route {
        prefix: (prefix.into(), length),
        port,
        next_hop: next_hop.map(IpAddr::from),
    };
    let mut routes = vec![
        route([10, 1, 0, 0], 16, INSIDE, None),
        route([192, 0, 2, 0], 24, OUTSIDE, None),
        route([0, 0, 0, 0], 0, OUTSIDE, Some([192, 0, 2, 2])),
    ];
    if wide {
        // The office's own router knows the way to all of its networks, it is thought.
        routes.push(route([10, 0, 0, 0], 8, INSIDE, Some(HOST_A)));
    }
    bed.a.send(Command::Routes(Arc::new(Fib::new(&routes))));
    bed.settle();
    let inside = routes.iter().filter(|route| route.port == INSIDE);
    inside.map(|route| route.prefix).collect()
}

#[test]
fn what_policy_protects_does_not_follow_a_wider_route_of_the_protected_side() {
    let mut bed = Bed::new();
    bed.warm_up();
    let inside = routes_of_a(&mut bed, true);
    let list = vec![policy("10.1.0.0/16", "10.2.0.0/16", PROTECT)];
    let spd = Arc::new(Spd::for_workers(list.clone(), 2).beside(&inside));
    set(&mut bed, &spd);
    // Twice: searched for, then remembered.
    for _ in 0..2 {
        assert_eq!(fate(&mut bed, &udp(HOST_A, HOST_B, b"x")), Fate::Protected);
    }
    // Also by the policies that succeed these.
    set(&mut bed, &Arc::new(spd.successor(list)));
    assert_eq!(fate(&mut bed, &udp(HOST_A, HOST_B, b"x")), Fate::Protected);
    // What no policy protects stays on the protected side, as the route says.
    for (from, to) in [(HOST_A, [10, 3, 0, 1]), ([10, 9, 0, 1], HOST_B)] {
        let packet = udp(from, to, b"x");
        bed.wire.clear();
        bed.a.delivered.clear();
        bed.a.host_sends(&packet);
        bed.settle();
        assert_eq!(bed.wire.len(), 0);
        let sent = &bed.a.delivered;
        assert!(
            sent.iter()
                .any(|frame| frame[14..] == hops_later(&packet, 1))
        );
    }
}

#[test]
fn what_comes_out_of_a_tunnel_is_protected_again_if_its_destination_is_behind_another_policy() {
    let mut bed = Bed::new();
    bed.warm_up();
    let inside = routes_of_a(&mut bed, false);
    let own = policy("10.1.0.0/16", "10.2.0.0/16", PROTECT);
    // A client of a pool in the office's own network, whose tunnel is not up.
    let client = policy("10.0.0.0/8", "10.1.0.5", Action::Protect(None));
    let without = Arc::new(Spd::for_workers(vec![own.clone()], 2).beside(&inside));
    let with = Arc::new(without.successor(vec![client, own]));
    for _ in 0..2 {
        for (spd, delivered) in [(&without, true), (&with, false)] {
            set(&mut bed, spd);
            for _ in 0..3 {
                bed.a.delivered.clear();
                let refused = bed.a.dropped(DropReason::NoSa);
                bed.b.host_sends(&udp(HOST_B, HOST_A, b"x"));
                bed.settle();
                assert_eq!(!bed.a.delivered.is_empty(), delivered);
                let refused = bed.a.dropped(DropReason::NoSa) - refused;
                assert_eq!(refused, u64::from(!delivered));
            }
        }
    }
}
