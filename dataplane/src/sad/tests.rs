//! The SAD: slots, conflicts, admission under the high water.

use hitless_sa::{EspSuite, Incarnation, KeyMaterial, Lease, MemberId};

use super::*;
use crate::flow::Flow;

fn child(counter: u32, spi: u32) -> ChildSa {
    ChildSa {
        id: SaId {
            creator: MemberId(1),
            incarnation: Incarnation(1),
            counter,
        },
        mode: Mode::Tunnel,
        inbound_spi: Spi(spi),
        outbound_spi: Spi(spi + 1000),
        suite: EspSuite::Aes128Gcm16,
        esn: true,
        inbound_key: KeyMaterial::new(&[1; 20]),
        outbound_key: KeyMaterial::new(&[2; 20]),
        local: IpAddr::from([192, 0, 2, 1]),
        remote: IpAddr::from([198, 51, 100, 2]),
        encapsulation: None,
        local_ts: vec!["10.1.0.0/16".parse().unwrap()],
        remote_ts: vec!["10.2.0.0/16".parse().unwrap()],
        replay_window: 64,
        options: SaOptions::default(),
    }
}

fn cell() -> Arc<Cell> {
    let lease = Lease {
        grant: SequenceNumber(100),
        high_water: SequenceNumber(100),
    };
    Arc::new(Cell::new(SequenceNumber(1), lease))
}

fn inbound(child: &ChildSa, slot: u32) -> Box<InboundSa> {
    let floor = SequenceNumber(0);
    Box::new(InboundSa::new(child, cell(), floor, slot, Engine::AwsLc).unwrap())
}

fn outbound(child: &ChildSa, slot: u32) -> Box<OutboundSa> {
    Box::new(OutboundSa::new(child, cell(), slot, Engine::AwsLc).unwrap())
}

fn conflict<T>(result: Result<Option<T>, (T, Conflict)>) -> Option<Conflict> {
    result.err().map(|(_, conflict)| conflict)
}

#[test]
fn sas_are_found_by_spi_and_slot_until_removed() {
    let mut sad = Sad::new(4);
    let children = [child(1, 300), child(2, 301)];
    for (slot, child) in (2..).zip(&children) {
        assert!(
            sad.insert_inbound(inbound(child, slot))
                .is_ok_and(|old| old.is_none())
        );
        assert!(
            sad.insert_outbound(outbound(child, slot))
                .is_ok_and(|old| old.is_none())
        );
    }
    assert_eq!(sad.len(), 2);
    assert_eq!(sad.inbound(Spi(301)).map(|sa| sa.id), Some(children[1].id));
    assert_eq!(sad.inbound_in_slot(2).map(|sa| sa.spi), Some(Spi(300)));
    assert_eq!(sad.outbound_mut(3).map(|sa| sa.spi), Some(Spi(1301)));
    assert!(sad.outbound_mut(0).is_none() && sad.outbound_mut(99).is_none());
    assert_eq!(sad.slot_of(children[0].id), Some(2));

    let (gone_in, gone_out) = sad.remove(children[0].id);
    assert_eq!(gone_in.map(|sa| sa.id), Some(children[0].id));
    assert_eq!(gone_out.map(|sa| sa.id), Some(children[0].id));
    assert!(sad.inbound(Spi(300)).is_none() && sad.outbound_mut(2).is_none());
    assert!(sad.inbound_in_slot(2).is_none() && sad.checkpoint(2).is_none());
    assert!(matches!(sad.remove(children[0].id), (None, None)));
    assert!(sad.inbound(Spi(301)).is_some());
    assert_eq!(sad.len(), 1);
}

#[test]
fn another_leadership_replaces_the_halves_of_the_same_child() {
    let mut sad = Sad::new(1);
    let first = child(1, 300);
    let _ = sad.insert_inbound(inbound(&first, 0));
    let _ = sad.insert_outbound(outbound(&first, 0));
    for _ in 0..7 {
        sad.inbound_in_slot(0).unwrap().counters.count_packets(1, 1);
    }
    let old = sad.insert_inbound(inbound(&first, 0)).ok().flatten();
    assert_eq!(old.map(|sa| sa.counters.packets()), Some(7));
    assert!(
        sad.insert_outbound(outbound(&first, 0))
            .is_ok_and(|old| old.is_some())
    );
    assert_eq!(
        sad.inbound(Spi(300)).map(|sa| sa.counters.packets()),
        Some(0)
    );
    assert_eq!(sad.len(), 1);
}

#[test]
fn conflicts_are_refused_and_change_nothing() {
    let mut sad = Sad::new(2);
    let first = child(1, 300);
    let _ = sad.insert_inbound(inbound(&first, 0));
    let same_spi = child(2, 300);
    assert_eq!(
        conflict(sad.insert_inbound(inbound(&same_spi, 1))),
        Some(Conflict::SpiTaken)
    );
    let other = child(2, 301);
    assert_eq!(
        conflict(sad.insert_inbound(inbound(&other, 0))),
        Some(Conflict::SlotTaken)
    );
    assert_eq!(
        conflict(sad.insert_outbound(outbound(&other, 0))),
        Some(Conflict::SlotTaken)
    );
    assert_eq!(
        conflict(sad.insert_inbound(inbound(&other, 2))),
        Some(Conflict::NoSuchSlot)
    );
    assert_eq!(
        conflict(sad.insert_outbound(outbound(&first, 1))),
        Some(Conflict::OtherSlot)
    );
    assert_eq!(sad.len(), 1);
    assert_eq!(sad.inbound(Spi(300)).map(|sa| sa.id), Some(first.id));
    assert!(sad.insert_inbound(inbound(&other, 1)).is_ok());
}

#[test]
fn rfc4301_section_8_2_errors_find_their_sa_though_another_peer_chose_the_same_spi() {
    let mut sad = Sad::new(8);
    let remote = |slot: u32| IpAddr::from([198, 51, 100, slot as u8]);
    for slot in 0..6 {
        let child = ChildSa {
            remote: remote(slot),
            outbound_spi: Spi(7),
            ..child(slot, 300 + slot)
        };
        let _ = sad.insert_outbound(outbound(&child, slot));
    }
    let quoted = |sad: &mut Sad, slot| {
        let error = TooBig {
            mtu: 1400,
            source: [192, 0, 2, 1].into(),
            destination: remote(slot),
            ports: None,
            spi: Spi(7),
        };
        assert_eq!(sad.quoted_elsewhere(&error), None);
        sad.quoted_by(&error).map(|sa| sa.slot)
    };
    for slot in 0..6 {
        assert_eq!(quoted(&mut sad, slot), Some(slot));
    }
    for gone in [5, 0, 3] {
        sad.remove(child(gone, 0).id);
        assert_eq!(quoted(&mut sad, gone), None);
        assert_eq!(quoted(&mut sad, 4), Some(4));
    }
    for gone in 0..6 {
        sad.remove(child(gone, 0).id);
    }
    assert!(sad.senders.is_empty());
}

#[test]
fn a_checkpoint_holds_both_halves() {
    let mut sad = Sad::new(1);
    let child = child(1, 300);
    assert!(sad.checkpoint(0).is_none());
    let _ = sad.insert_outbound(outbound(&child, 0));
    let sa = sad.outbound_mut(0).unwrap();
    assert_eq!(sa.cell.draw(5).len(), 5);
    for _ in 0..5 {
        sa.counters.count_packets(1, 100);
    }
    let _ = sad.insert_inbound(inbound(&child, 0));
    let sa = sad.inbound_in_slot(0).unwrap();
    let admitted = sa.admit(SequenceNumber(9));
    sa.count(77, Instant(3));
    assert_eq!(admitted, Ok(Admission::Deliver));
    sa.authenticated = SequenceNumber(9);
    assert_eq!(
        sad.checkpoint(0),
        Some(Checkpoint {
            sa: child.id,
            outbound_next: SequenceNumber(6),
            inbound_top: SequenceNumber(9),
            packets_out: 5,
            bytes_out: 500,
            packets_in: 1,
            bytes_in: 77,
        })
    );
}

#[test]
fn what_workers_cannot_carry_is_not_installed() {
    let engine = Engine::AwsLc;
    let floor = SequenceNumber(0);
    let both = |child: &ChildSa| {
        (
            InboundSa::new(child, cell(), floor, 0, engine).err(),
            OutboundSa::new(child, cell(), 0, engine).err(),
        )
    };
    let v6 = ChildSa {
        remote: "2001:db8::1".parse().unwrap(),
        ..child(1, 300)
    };
    assert_eq!(both(&v6).1, Some(SaError::MixedFamilies));
    let short = KeyMaterial::new(&[0; 16]);
    let short = ChildSa {
        inbound_key: short.clone(),
        outbound_key: short,
        ..child(1, 300)
    };
    assert!(matches!(
        both(&short),
        (Some(SaError::Key(_)), Some(SaError::Key(_)))
    ));
}

#[test]
fn an_endpoint_moves_and_a_bad_one_changes_nothing() {
    let mut sa = outbound(&child(1, 300), 0);
    let remote = IpAddr::from([203, 0, 113, 9]);
    let nat = Some(UdpEncapsulation {
        local_port: 4500,
        remote_port: 7777,
    });
    assert_eq!(sa.inner_mtu(1500), 1500 - 20 - 32 - 2);
    assert_eq!(
        sa.set_endpoint(sa.local, "::1".parse().unwrap(), None),
        Err(SaError::MixedFamilies)
    );
    assert_eq!(sa.remote, IpAddr::from([198, 51, 100, 2]));
    assert_eq!(sa.set_endpoint(sa.local, remote, nat), Ok(()));
    let mut header = [0; 28];
    let inner = crate::outer::Inner {
        tos: 0,
        dont_fragment: false,
    };
    assert!(sa.outer.write(&mut header, inner, 0));
    assert_eq!(
        (&header[16..20], &header[22..24]),
        (&[203, 0, 113, 9][..], &7777u16.to_be_bytes()[..])
    );
}

#[test]
fn rfc4301_section_5_2_the_inner_packet_must_match_the_selectors() {
    let sa = inbound(&child(1, 300), 0);
    let packet = |source: [u8; 4], destination: [u8; 4]| {
        let mut packet = Vec::new();
        etherparse::PacketBuilder::ipv4(source, destination, 9)
            .udp(1, 2)
            .write(&mut packet, &[])
            .unwrap();
        packet
    };
    let allows = |inner: &[u8]| Flow::parse(inner).is_some_and(|flow| sa.allows(&flow));
    assert!(allows(&packet([10, 2, 0, 1], [10, 1, 0, 1])));
    assert!(!allows(&packet([10, 1, 0, 1], [10, 2, 0, 1])));
    assert!(!allows(&packet([10, 3, 0, 1], [10, 1, 0, 1])));
    assert!(!allows(&[]));
}

#[test]
fn an_heir_sends_for_those_before_it_until_that_is_taken_back() {
    let mut sad = Sad::new(4);
    let children = [child(1, 300), child(2, 301), child(3, 302)];
    for (slot, child) in (0..).zip(&children) {
        assert!(sad.insert_outbound(outbound(child, slot)).is_ok());
    }
    let [first, second, third] = children.map(|child| child.id);
    sad.succeed(first, Some(second));
    assert_eq!(sad.sending_slot(first), Some(1));
    assert_eq!(sad.sending_slot(second), Some(1));
    assert_eq!(sad.slot_of(first), Some(0), "it still receives");
    // The next one sends for both, and for the one that is gone.
    sad.succeed(second, Some(third));
    sad.remove(first);
    assert_eq!(sad.sending_slot(first), Some(2));
    assert_eq!(sad.sending_slot(second), Some(2));
    // The third ends: the second sends again, and for the first.
    sad.succeed(third, Some(second));
    sad.remove(third);
    for id in [first, second, third] {
        assert_eq!(sad.sending_slot(id), Some(1), "{id}");
    }
    // An heir that is not here sends nothing.
    sad.succeed(second, Some(third));
    assert_eq!(sad.sending_slot(second), Some(1));
    for id in [first, second, third] {
        sad.succeed(id, None);
    }
    assert_eq!(sad.sending_slot(first), None);
    // However many there are: no memory is asked for.
    for counter in 10..10_000 {
        sad.succeed(child(counter, 1).id, Some(child(counter + 10_000, 1).id));
    }
    let heir = |counter| sad.heirs.of(child(counter, 1).id);
    assert_eq!(heir(10), Some(child(10_010, 1).id));
    assert_eq!(heir(9_999), None);
}
