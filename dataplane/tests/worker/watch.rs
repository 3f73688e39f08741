//! What an operator watches: the way of single packets, and copies of them.

use hitless_dataplane::command::{Command, Event, Retired};
use hitless_dataplane::verdict::DropReason;
use hitless_dataplane::watch::Watched;
use hitless_dataplane::watch::capture::{Captured, Captures, Choice, Place, capture};
use hitless_dataplane::watch::trace::{Filter, Note, SaFilter, Stage, Traces, trace};
use hitless_sa::Spi;

use crate::bed::*;

fn begin_trace(gateway: &mut Gateway, packets: u32, filter: Filter) -> Traces {
    let frames = gateway.worker.frame_account().total;
    let (tracer, traces) = trace(packets, filter, frames);
    gateway.send(Command::Trace(Some(tracer)));
    traces
}

fn begin_capture(gateway: &mut Gateway, choice: Choice) -> Captures {
    let (tap, captures) = capture(100, choice);
    gateway.send(Command::Capture(Some(tap)));
    captures
}

fn stages(traces: &mut Traces, packet: u32) -> Vec<Stage> {
    let notes: Vec<Note> = std::iter::from_fn(|| traces.next_note()).collect();
    let notes = notes.iter().filter(|note| note.packet == packet);
    notes.map(|note| note.stage).collect()
}

fn captured(captures: &mut Captures) -> Vec<Captured> {
    std::iter::from_fn(|| captures.next_packet()).collect()
}

#[test]
fn a_trace_shows_every_stage_of_a_packet_in_both_directions() {
    let mut bed = Bed::new();
    bed.warm_up();
    let number = bed.a.cell.cursor();
    let mut sending = begin_trace(&mut bed.a, 1, Filter::default());
    let mut receiving = begin_trace(&mut bed.b, 1, Filter::default());
    let packet = udp(HOST_A, HOST_B, b"watched");
    bed.a.host_sends(&packet);
    bed.settle();
    let sent = stages(&mut sending, 0);
    let length = packet.len() + 14;
    let [
        Stage::Received {
            port: INSIDE,
            length: came,
        },
        Stage::Flow(flow),
        Stage::Policy(Some(found)),
        Stage::OutboundSa(sa),
        Stage::Way {
            port: OUTSIDE,
            next_hop,
        },
        Stage::Drawn(drawn),
        Stage::Sealed,
        Stage::Sent {
            port: OUTSIDE,
            length: left,
        },
    ] = sent.as_slice()
    else {
        panic!("{sent:?}");
    };
    assert_eq!((*came, *sa, *drawn), (length, sa_id(1), number));
    assert_eq!(flow.destination, std::net::IpAddr::from(HOST_B));
    assert_eq!(*next_hop, std::net::IpAddr::from(OUTSIDE_B));
    assert_eq!(found.policy, 3);
    assert!(left > came);
    let received = stages(&mut receiving, 0);
    let [
        Stage::Received { port: OUTSIDE, .. },
        Stage::Esp { spi, low },
        Stage::InboundSa(sa),
        Stage::Fresh(fresh),
        Stage::Verified,
        Stage::Admitted,
        Stage::Sent {
            port: INSIDE,
            length: delivered,
        },
    ] = received.as_slice()
    else {
        panic!("{received:?}");
    };
    assert_eq!((*spi, *low), (Spi(0xbbbb_0001), number.low()));
    assert_eq!((*sa, *fresh, *delivered), (sa_id(1), number, length));
    assert_eq!(bed.b.delivered.len(), 1);
}

#[test]
fn a_trace_ends_with_the_reason_of_a_drop() {
    let mut bed = Bed::new();
    bed.warm_up();
    let mut esp = bed.seal(&udp(HOST_A, HOST_B, b"x"));
    *esp.last_mut().unwrap() ^= 1;
    let mut outside = begin_trace(&mut bed.b, 2, Filter::default());
    bed.b.wire_brings(&esp);
    bed.b.wire_brings(&udp(HOST_A, HOST_B, b"in clear"));
    bed.settle();
    let notes: Vec<Note> = std::iter::from_fn(|| outside.next_note()).collect();
    let ends: Vec<(u32, Stage)> = notes
        .iter()
        .filter(|note| note.stage.is_last())
        .map(|note| (note.packet, note.stage))
        .collect();
    let wanted = [
        (1, Stage::Dropped(DropReason::ClearText)),
        (0, Stage::Dropped(DropReason::Integrity)),
    ];
    assert_eq!(ends, wanted);
    assert!(!notes.iter().any(|note| note.stage == Stage::Verified));
}

#[test]
fn a_trace_can_be_of_one_sa_or_of_one_port() {
    let mut bed = Bed::new();
    bed.warm_up();
    let child = bed.child(true);
    let filter = Filter {
        port: Some(INSIDE),
        sa: Some(SaFilter {
            inbound_spi: child.inbound_spi,
            outbound_spi: child.outbound_spi,
            local_ts: child.local_ts.as_slice().into(),
            remote_ts: child.remote_ts.as_slice().into(),
        }),
    };
    let mut traces = begin_trace(&mut bed.a, 10, filter);
    bed.a.host_sends(&udp(HOST_A, [8, 8, 8, 8], b"not its"));
    bed.a.host_sends(&udp(HOST_A, HOST_B, b"its"));
    bed.a.wire_brings(&raw(
        OUTSIDE_B,
        OUTSIDE_A,
        50,
        &[0xaa, 0xaa, 0, 1, 0, 0, 0, 9],
    ));
    bed.settle();
    let notes: Vec<Note> = std::iter::from_fn(|| traces.next_note()).collect();
    let came = notes
        .iter()
        .filter(|note| matches!(note.stage, Stage::Received { .. }));
    assert_eq!(came.count(), 1);
    assert!(notes.iter().any(|note| note.stage == Stage::Sealed));
}

#[test]
fn a_capture_has_the_clear_packet_with_its_sa_and_number_and_the_frames_around_it() {
    let mut bed = Bed::new();
    bed.warm_up();
    let number = bed.a.cell.cursor();
    let both = Choice {
        outer: true,
        inner: true,
        ..Choice::default()
    };
    let mut sending = begin_capture(&mut bed.a, both.clone());
    let mut receiving = begin_capture(&mut bed.b, both);
    let packet = udp(HOST_A, HOST_B, b"copied");
    bed.a.host_sends(&packet);
    bed.settle();
    let frame = bed.wire.last().unwrap().clone();
    let hop = hops_later(&packet, 1);
    let sa = Some((sa_id(1), number));
    let sent = captured(&mut sending);
    assert_eq!(sent.len(), 2);
    assert_eq!((sent[0].place, sent[0].sa), (Place::Sealing, sa));
    assert_eq!(sent[0].octets(), hop);
    assert_eq!(sent[1].place, Place::Sent { port: OUTSIDE });
    assert_eq!(sent[1].octets(), frame);
    let received = captured(&mut receiving);
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].place, Place::Received { port: OUTSIDE });
    assert_eq!(received[0].octets(), frame);
    assert_eq!((received[1].place, received[1].sa), (Place::Opened, sa));
    assert_eq!(received[1].octets(), hop);
}

#[test]
fn a_capture_has_what_was_dropped_and_why() {
    let mut bed = Bed::new();
    bed.warm_up();
    let choice = Choice {
        inner: true,
        ..Choice::default()
    };
    let mut captures = begin_capture(&mut bed.a, choice);
    let packet = udp(HOST_A, [8, 8, 8, 8], b"no policy");
    bed.a.host_sends(&packet);
    bed.settle();
    let dropped = captured(&mut captures);
    assert_eq!(dropped.len(), 1);
    assert_eq!(dropped[0].place, Place::Dropped(DropReason::NoPolicy));
    assert_eq!(dropped[0].octets(), hops_later(&packet, 1));
}

#[test]
fn what_watched_comes_back_to_the_control_thread() {
    let mut bed = Bed::new();
    bed.warm_up();
    bed.a.events();
    let _traces = begin_trace(&mut bed.a, 1, Filter::default());
    let _captures = begin_capture(&mut bed.a, Choice::default());
    bed.a.send(Command::Trace(None));
    bed.a.send(Command::Capture(None));
    bed.a.send(Command::Capture(None));
    bed.settle();
    let back = bed.a.events().into_iter().filter_map(|event| match event {
        Event::Retired(Retired::Watched(Watched::Trace(_))) => Some("trace"),
        Event::Retired(Retired::Watched(Watched::Capture(_))) => Some("capture"),
        _ => None,
    });
    assert_eq!(back.collect::<Vec<_>>(), ["trace", "capture"]);
}
