//! Gateways whose network loses, repeats, reorders, corrupts and delays: what arrives is what was
//! sent, once, and every frame is accounted for after every turn.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hitless_dataplane::command::Command;
use hitless_dataplane::neighbour::News;
use hitless_dataplane::port::fault::Faults;
use hitless_dataplane::verdict::DropReason;

use crate::bed::*;

fn faulty_bed(seed: u64, faults: Faults) -> Bed {
    let mut bed = Bed::with(Settings {
        faults: Some((seed, faults)),
        runs: 64,
        inside_mtu: 4000,
        outside_mtu: 9000,
        ..Settings::default()
    });
    // Nobody has to ask, so that what is lost is ESP.
    let (a, b) = (bed.a.outside_mac, bed.b.outside_mac);
    let (host_a, host_b) = (bed.a.host_mac, bed.b.host_mac);
    for (gateway, neighbours) in [
        (
            &mut bed.a,
            [(OUTSIDE, OUTSIDE_B, b), (INSIDE, HOST_A, host_a)],
        ),
        (
            &mut bed.b,
            [(OUTSIDE, OUTSIDE_A, a), (INSIDE, HOST_B, host_b)],
        ),
    ] {
        for (port, address, mac) in neighbours {
            gateway.send(Command::Neighbour(News::certain(
                port,
                IpAddr::from(address),
                mac,
            )));
        }
    }
    bed.settle();
    bed
}

/// Sends numbered packets, some of them jumbo; the numbers that arrived, each whole.
fn numbers_that_arrive(bed: &mut Bed, count: u32) -> Vec<u32> {
    let packet = |number: u32| {
        let length = if number.is_multiple_of(7) { 3000 } else { 100 };
        let payload = [&number.to_be_bytes()[..], &vec![number as u8; length]].concat();
        udp(HOST_A, HOST_B, &payload)
    };
    for first in (0..count).step_by(32) {
        for number in first..count.min(first + 32) {
            bed.a.host_sends(&packet(number));
        }
        bed.settle();
    }
    // What is delayed comes while nothing else does.
    for _ in 0..100 {
        bed.step();
        bed.a.assert_no_leak();
        bed.b.assert_no_leak();
    }
    let number = |delivered: &Vec<u8>| {
        let number = u32::from_be_bytes(delivered[42..46].try_into().unwrap());
        assert_eq!(delivered[14..], hops_later(&packet(number), 2));
        number
    };
    bed.b.delivered.iter().map(number).collect()
}

fn all_free(bed: &Bed) -> bool {
    [&bed.a, &bed.b].iter().all(|gateway| {
        let account = gateway.worker.frame_account();
        account.free == account.total
    })
}

#[test]
fn rfc4303_section_3_4_3_whatever_the_network_does_nothing_is_delivered_twice_or_changed() {
    let faults = Faults {
        loss: 50_000,
        duplication: 100_000,
        corruption: 50_000,
        reordering: 100_000,
        overtakers: 20,
        delay: 100_000,
        turns: 10,
    };
    for seed in 0..10 {
        let mut bed = faulty_bed(seed, faults);
        let arrived = numbers_that_arrive(&mut bed, 500);
        let distinct: BTreeSet<u32> = arrived.iter().copied().collect();
        assert_eq!(
            distinct.len(),
            arrived.len(),
            "seed {seed}: a packet came twice"
        );
        assert!((300..500).contains(&arrived.len()), "{}", arrived.len());
        assert!(!arrived.is_sorted());
        assert!(bed.b.dropped(DropReason::Replay) > 0);
        assert!(bed.b.dropped(DropReason::Integrity) > 0);
        assert!(all_free(&bed), "seed {seed}");
    }
}

/// Loss is the network's alone: with nothing but duplicates and another order, all arrive.
#[test]
fn rfc4303_section_3_4_3_duplicates_and_another_order_cost_nothing() {
    let faults = Faults {
        duplication: 500_000,
        reordering: 500_000,
        overtakers: 30,
        ..Faults::default()
    };
    let mut bed = faulty_bed(1, faults);
    let mut arrived = numbers_that_arrive(&mut bed, 500);
    arrived.sort_unstable();
    assert_eq!(arrived, (0..500).collect::<Vec<_>>());
    let copies = bed.b.dropped(DropReason::Replay);
    assert!(copies > 300, "{copies}");
    assert!(all_free(&bed));
}
