//! SAs that come and go while packets flow (RFC 4301 section 4.5, RFC 7296 section 2.8).

use hitless_dataplane::command::Command;
use hitless_dataplane::verdict::DropReason;

use crate::bed::{Gate, Spread, sealed};
use crate::packets::sa_id;

#[test]
fn rfc7296_section_2_8_several_inbound_sas_of_a_tunnel_overlap_while_it_is_rekeyed() {
    for spread in [Spread::Receives(0), Spread::All, Spread::Bound(1)] {
        let mut gate = Gate::new(2);
        gate.install(1, spread);
        gate.peer_sends(0, 1, b"old");
        gate.host_sends(0, 1, b"old");
        gate.settle();
        // The new one receives before it sends; both receive.
        gate.install(2, spread);
        for queue in [0, 1] {
            gate.peer_sends(queue, 2, b"new");
            gate.peer_sends(queue, 1, b"old");
        }
        gate.settle();
        assert_eq!(gate.payloads().len(), 5);
        // Outbound is switched: what was for SA 1's policy is for SA 2 now.
        gate.policies(&[2]);
        gate.host_sends(0, 2, b"new");
        gate.settle();
        assert_eq!((gate.heard[&1].len(), gate.heard[&2].len()), (1, 1));
        // The old one is deleted: its packets are refused, whichever worker they come to.
        let old = gate.counted(1);
        assert_eq!(old.iter().map(|(received, _)| received).sum::<u64>(), 3);
        assert_eq!(old.iter().map(|(_, sent)| sent).sum::<u64>(), 1);
        for queue in [0, 1] {
            gate.peer_sends(queue, 1, b"too late");
            gate.peer_sends(queue, 2, b"new");
        }
        gate.settle();
        assert_eq!(gate.dropped(DropReason::UnknownSpi), 2);
        assert_eq!(gate.payloads(), [b"new", b"new"]);
        let new = gate.counted(2);
        assert_eq!(new.iter().map(|(received, _)| received).sum::<u64>(), 4);
        assert_eq!(gate.drops(), 2);
    }
}

#[test]
fn an_sa_that_is_removed_while_traffic_flows_leaves_none_in_clear_and_can_be_added_again() {
    for spread in [Spread::Receives(1), Spread::All, Spread::Bound(1)] {
        let mut gate = Gate::new(2);
        gate.install(1, spread);
        let both_ways = |gate: &mut Gate| {
            for n in 0..100 {
                gate.peer_sends(n % 2, 1, b"in");
                gate.host_sends(n % 2, 1, b"out");
            }
        };
        both_ways(&mut gate);
        // In the middle: some are in the queues, some on their way between the workers.
        gate.turn(0);
        gate.broadcast(|| Command::Remove(sa_id(1)));
        both_ways(&mut gate);
        gate.settle();
        let (received, sent) = (gate.payloads().len() as u64, gate.heard[&1].len() as u64);
        assert!(received < 200 && sent < 200);
        let unknown = gate.dropped(DropReason::UnknownSpi);
        let without = gate.dropped(DropReason::NoSa);
        assert_eq!((received + unknown, sent + without), (200, 200));
        assert_eq!(gate.drops(), unknown + without);
        assert_eq!(gate.clear, 0, "nothing left in clear");
        // Again, under new numbers.
        gate.install(1, spread);
        both_ways(&mut gate);
        gate.settle();
        assert_eq!((gate.payloads().len(), gate.heard[&1].len()), (100, 100));
    }
}

#[test]
fn a_tunnel_that_is_down_drops_both_ways() {
    let mut gate = Gate::new(2);
    gate.install(1, Spread::All);
    gate.broadcast(|| Command::Remove(sa_id(1)));
    for n in 0..257 {
        gate.bring(n % 2, &sealed(1, n as u64 + 1, b"in"));
        gate.host_sends(n % 2, 1, b"out");
    }
    gate.settle();
    assert_eq!(gate.dropped(DropReason::UnknownSpi), 257);
    assert_eq!(gate.dropped(DropReason::NoSa), 257);
    assert_eq!((gate.delivered.len(), gate.clear), (0, 0));
    // The whole gateway, by a flag that every worker looks at once a burst.
    gate.install(1, Spread::All);
    gate.leadership.set(false);
    for n in 0..257 {
        gate.bring(n % 2, &sealed(1, n as u64 + 1, b"in"));
        gate.host_sends(n % 2, 1, b"out");
    }
    gate.settle();
    assert_eq!(gate.dropped(DropReason::NotActive), 514);
    assert_eq!((gate.delivered.len(), gate.clear), (0, 0));
    assert!(gate.heard[&1].is_empty());
}

#[test]
fn a_packet_on_its_way_does_not_get_into_another_sa_that_took_the_slot() {
    let mut gate = Gate::new(2);
    gate.install(1, Spread::Bound(1));
    gate.host_sends(0, 1, b"for SA 1");
    while gate.turn(0) > 0 {}
    // SA 1 goes, and another one gets its slot, before the owner looks.
    gate.broadcast(|| Command::Remove(sa_id(1)));
    let child = hitless_sa::ChildSa {
        id: sa_id(7),
        ..crate::bed::child(7)
    };
    let half = hitless_dataplane::sad::OutboundSa::new(
        &child,
        gate.cells[&1].clone(),
        1,
        hitless_dataplane::aead::Engine::AwsLc,
    );
    gate.send(1, Command::InstallOutbound(Box::new(half.unwrap())));
    gate.settle();
    assert_eq!(gate.dropped(DropReason::NoSa), 1);
    assert_eq!(gate.clear, 0);
}
