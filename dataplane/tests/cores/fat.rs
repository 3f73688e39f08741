//! One SA on several workers, beside others.

use hitless_dataplane::verdict::DropReason;

use crate::bed::{Gate, Spread, sealed, too_big};

#[test]
fn one_fat_sa_sends_on_all_workers_and_repeats_no_number() {
    let mut gate = Gate::new(2);
    gate.install(1, Spread::All);
    for n in 0..1000u32 {
        gate.host_sends((n % 2) as usize, 1, &n.to_be_bytes());
        if n % 100 == 99 {
            gate.settle();
        }
    }
    // The peer's window has refused none, so none was repeated.
    let mut heard = gate.heard[&1].clone();
    heard.sort_unstable();
    assert_eq!(heard, (1..=1000).collect::<Vec<_>>());
    assert_eq!(gate.drops(), 0);
    assert_eq!(gate.counted(1), [(0, 500), (0, 500)]);
}

#[test]
fn rfc4303_section_3_4_3_one_fat_sa_receives_on_all_workers_with_one_truth() {
    let mut gate = Gate::new(3);
    gate.install(1, Spread::All);
    // Every packet comes to one worker, and copies of it to all of them.
    for number in 1..=600u64 {
        gate.bring(
            (number % 3) as usize,
            &sealed(1, number, &number.to_be_bytes()),
        );
        if number % 50 == 0 {
            for copy in number - 49..=number {
                for queue in 0..3 {
                    gate.bring(queue, &sealed(1, copy, &copy.to_be_bytes()));
                }
            }
            gate.settle();
        }
    }
    let mut payloads = gate.payloads();
    payloads.sort();
    let expected: Vec<Vec<u8>> = (1..=600u64).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(payloads, expected);
    assert_eq!(gate.dropped(DropReason::Replay), 1800);
    assert_eq!(gate.drops(), 1800);
    let counted = gate.counted(1);
    assert_eq!(
        counted.iter().map(|(received, _)| received).sum::<u64>(),
        600
    );
    assert!(counted.iter().all(|(received, _)| *received > 0));
}

#[test]
fn of_eight_copies_that_come_to_all_workers_at_once_one_is_accepted() {
    let mut gate = Gate::new(2);
    gate.install(1, Spread::All);
    for number in [5, 4, 900] {
        for copy in 0..8 {
            gate.bring(copy % 2, &sealed(1, number, b"copy"));
        }
        gate.settle();
        assert_eq!(gate.payloads().len(), 1);
    }
    assert_eq!(gate.dropped(DropReason::Replay), 21);
}

#[test]
fn multi_sa_packets_that_alternate_one_by_one_all_arrive() {
    for sas in [2u32, 3] {
        for spread in [Spread::Receives(0), Spread::All, Spread::Bound(1)] {
            let mut gate = Gate::new(2);
            for sa in 1..=sas {
                gate.install(sa, spread);
            }
            for n in 0..2046u32 {
                gate.peer_sends(0, 1 + n % sas, &n.to_be_bytes());
                gate.host_sends(0, 1 + n % sas, &n.to_be_bytes());
                if n % 200 == 199 {
                    gate.settle();
                }
            }
            gate.settle();
            assert_eq!(gate.drops(), 0);
            let numbers: Vec<Vec<u8>> = (0..2046u32).map(|n| n.to_be_bytes().to_vec()).collect();
            assert_eq!(gate.payloads(), numbers);
            for sa in 1..=sas {
                let heard = &gate.heard[&sa];
                assert_eq!(*heard, (1..=u64::from(2046 / sas)).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn a_mixed_burst_over_own_shared_and_handed_over_sas_all_arrives() {
    // In batches that no ring between workers is too small for, and otherwise at once.
    let mut gate = Gate::new(2);
    gate.install(1, Spread::Receives(0));
    gate.install(2, Spread::All);
    gate.install(3, Spread::Bound(1));
    for n in 0..3069u32 {
        let sa = 1 + n % 3;
        gate.peer_sends(0, sa, &n.to_be_bytes());
        gate.host_sends(0, sa, &n.to_be_bytes());
    }
    gate.settle();
    assert_eq!(gate.drops(), 0);
    let mut payloads = gate.payloads();
    payloads.sort();
    let numbers: Vec<Vec<u8>> = (0..3069u32).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(payloads, numbers);
    for sa in 1..=3 {
        assert_eq!(gate.heard[&sa].len(), 1023);
    }
    assert_eq!(gate.counted(1), [(1023, 1023), (0, 0)]);
    assert_eq!(gate.counted(2), [(1023, 1023), (0, 0)]);
    assert_eq!(gate.counted(3), [(0, 0), (1023, 1023)]);
}

#[test]
fn rfc4303_section_3_4_4_a_bad_icv_counts_where_it_was_found() {
    let mut gate = Gate::new(2);
    gate.install(1, Spread::All);
    gate.install(2, Spread::Bound(1));
    for (queue, sa) in [(0, 1), (1, 1), (0, 2), (1, 2)] {
        for number in 1..=5 {
            let mut packet = sealed(sa, number + 100 * queue as u64, b"damaged");
            *packet.last_mut().unwrap() ^= 1;
            gate.bring(queue, &packet);
        }
    }
    gate.settle();
    let integrity = |core: usize| {
        let counters = &gate.cores[core].handle.counters;
        counters.dropped(DropReason::Integrity)
    };
    assert_eq!([integrity(0), integrity(1)], [5, 15]);
    assert_eq!(gate.drops(), 20);
    assert!(gate.delivered.is_empty());
}

#[test]
fn rfc4301_section_8_2_a_path_mtu_that_one_worker_learns_holds_for_all() {
    let mut gate = Gate::new(3);
    gate.install(1, Spread::All);
    // A router's error about the SA's packets, in the queue of a worker that has sent none.
    gate.bring(1, &too_big(1300, 1));
    gate.settle();
    assert_eq!(gate.dropped(DropReason::PathMtu), 1);
    // 1,350 octets of IP with DF: the first link would take them, the path does not.
    for queue in 0..3 {
        gate.host_sends(queue, 1, &[7; 1350 - 28]);
        gate.settle();
        assert_eq!(gate.dropped(DropReason::TooBig), 1 + queue as u64);
        assert_eq!(gate.heard[&1], [], "queue {queue}");
    }
    // What fits goes.
    gate.host_sends(0, 1, &[7; 1200]);
    gate.settle();
    assert_eq!(gate.heard[&1], [1]);
}

#[test]
fn rfc4301_section_8_2_an_error_reaches_the_one_worker_that_has_the_sa() {
    let mut gate = Gate::new(3);
    gate.install(1, Spread::Bound(2));
    gate.bring(0, &too_big(1300, 1));
    gate.settle();
    assert_eq!(gate.cores[0].handle.counters.esp().handed_over, 1);
    assert_eq!(gate.dropped(DropReason::PathMtu), 1);
    for queue in 0..3 {
        gate.host_sends(queue, 1, &[7; 1350 - 28]);
    }
    gate.settle();
    assert_eq!(gate.dropped(DropReason::TooBig), 3);
    assert_eq!(gate.heard[&1], []);
    // Of an SA that has gone nobody hears.
    gate.counted(1);
    gate.bring(0, &too_big(1200, 1));
    gate.settle();
    assert_eq!(gate.dropped(DropReason::IcmpRefused), 1);
    assert_eq!(gate.cores[0].handle.counters.esp().handed_over, 2);
}
