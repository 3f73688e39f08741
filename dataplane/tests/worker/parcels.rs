//! Packets that come too late for a member that has handed over, and too early for one that takes
//! over.

use hitless_dataplane::command::{Command, Retired};
use hitless_dataplane::parcel::{LABEL, Parcel};
use hitless_dataplane::verdict::DropReason;

use crate::bed::*;

#[test]
fn what_comes_after_a_handover_is_labelled_and_goes_on_at_the_successor() {
    let mut bed = Bed::new();
    bed.warm_up();
    let sealed = bed.seal(&udp(HOST_A, HOST_B, b"late in"));
    bed.b.events();
    bed.b.leadership.hand_over();
    bed.b.wire_brings(&sealed);
    bed.b.host_sends(&udp(HOST_B, HOST_A, b"late out"));
    bed.settle();
    assert!(bed.b.delivered.is_empty() && bed.wire.is_empty());
    let parcels = drain(&mut bed.b.handle.punt);
    let mut ports = Vec::new();
    for parcel in &parcels {
        let (kind, port, packet) = Parcel::parse(parcel).unwrap();
        assert_eq!((kind, packet[0]), (Parcel::Late, 0x45));
        ports.push(port);
    }
    ports.sort_unstable();
    assert_eq!(ports, [INSIDE, OUTSIDE]);
    assert_eq!(bed.b.dropped(DropReason::NotActive), 0);
    // The same worker stands for the successor: both go their ways as if they had just come.
    bed.b.leadership.set(true);
    let before = bed.b.delivered.len();
    for parcel in &parcels {
        assert!(bed.b.handle.inject(parcel));
    }
    bed.settle();
    assert_eq!(bed.b.delivered.len(), before + 1);
    assert!(
        bed.a
            .delivered
            .iter()
            .any(|frame| frame.ends_with(b"late out"))
    );
    // ESP that came both ways is delivered once.
    bed.b.wire_brings(&sealed);
    bed.settle();
    assert_eq!(bed.b.delivered.len(), before + 1);
    assert_eq!(bed.b.dropped(DropReason::Replay), 1);
    bed.b.assert_no_leak();
}

#[test]
fn who_only_follows_forwards_nothing_and_a_parcel_of_no_port_is_dropped() {
    let mut bed = Bed::new();
    bed.warm_up();
    let mut parcel = Parcel::Late.label(9).unwrap().to_vec();
    parcel.extend_from_slice(&udp(HOST_B, HOST_A, b"nowhere"));
    assert!(bed.b.handle.inject(&parcel));
    bed.settle();
    assert_eq!(bed.b.dropped(DropReason::Malformed), 1);
    bed.b.leadership.set(false);
    bed.b.host_sends(&udp(HOST_B, HOST_A, b"not ours"));
    bed.settle();
    assert_eq!(bed.b.dropped(DropReason::NotActive), 1);
    assert!(drain(&mut bed.b.handle.punt).is_empty());
    bed.b.assert_no_leak();
}

#[test]
fn esp_of_an_unknown_spi_waits_with_the_control_thread_if_that_installs_sas() {
    let mut bed = Bed::new();
    bed.warm_up();
    bed.b.events();
    let early = bed.seal(&udp(HOST_A, HOST_B, b"early"));
    bed.b.send(Command::Remove(sa_id(1)));
    bed.b.send(Command::Strangers(true));
    bed.settle();
    bed.b.wire_brings(&early);
    bed.settle();
    assert_eq!(bed.b.dropped(DropReason::UnknownSpi), 0);
    let parcels = drain(&mut bed.b.handle.punt);
    let (kind, _, packet) = Parcel::parse(&parcels[0]).unwrap();
    assert_eq!((kind, packet), (Parcel::Stranger, &early[..]));
    // The SA is installed now.
    let before = bed.b.delivered.len();
    for event in bed.b.events() {
        if let hitless_dataplane::command::Event::Retired(Retired::Inbound(half)) = event {
            bed.b.send(Command::InstallInbound(half));
        }
    }
    bed.b.send(Command::Strangers(false));
    assert!(bed.b.handle.inject(&parcels[0]));
    bed.settle();
    assert_eq!(bed.b.delivered.len(), before + 1);
    bed.b.wire_brings(&raw(OUTSIDE_A, OUTSIDE_B, 50, &[9; 64]));
    bed.settle();
    assert_eq!(bed.b.dropped(DropReason::UnknownSpi), 1);
    bed.b.assert_no_leak();
}

#[test]
fn what_has_no_sa_to_leave_by_waits_with_the_control_thread_if_that_installs_sas() {
    let mut bed = Bed::new();
    bed.warm_up();
    bed.a.events();
    bed.a.send(Command::Remove(sa_id(1)));
    bed.a.send(Command::Strangers(true));
    bed.settle();
    bed.a.host_sends(&udp(HOST_A, HOST_B, b"early out"));
    bed.settle();
    assert_eq!(bed.a.dropped(DropReason::NoSa), 0);
    let parcels = drain(&mut bed.a.handle.punt);
    let (kind, _, packet) = Parcel::parse(&parcels[0]).unwrap();
    assert_eq!((kind, parcels.len()), (Parcel::Departing, 1));
    assert!(packet.ends_with(b"early out"));
    // RFC 4301 section 5.1.2.1: its hop is counted once, however often it comes by.
    let hops = packet[8];
    for _ in 0..3 {
        assert!(bed.a.handle.inject(&parcels[0]));
        bed.settle();
        let again = drain(&mut bed.a.handle.punt);
        assert_eq!(again, parcels);
        assert_eq!(again[0][LABEL + 8], hops);
    }
    for event in bed.a.events() {
        if let hitless_dataplane::command::Event::Retired(Retired::Outbound(half)) = event {
            bed.a.send(Command::InstallOutbound(half));
        }
    }
    bed.a.send(Command::Strangers(false));
    assert!(bed.a.handle.inject(&parcels[0]));
    bed.settle();
    assert!(bed.b.delivered.last().unwrap().ends_with(b"early out"));
    // Nobody installs anything now.
    bed.a.send(Command::Remove(sa_id(1)));
    bed.a.host_sends(&udp(HOST_A, HOST_B, b"too early"));
    bed.settle();
    assert_eq!(bed.a.dropped(DropReason::NoSa), 1);
    assert!(drain(&mut bed.a.handle.punt).is_empty());
    bed.a.assert_no_leak();
}
