//! Later versions, payloads that nobody knows, and the critical flag (RFC 7296 section 2.5).

use hitless::ike::Event;
use hitless::ike::message::{NotifyKind, Parsed, Payload, PayloadKind, emit, parse};

use crate::world::{A, B, Packet, SECOND, World, address};

/// A's first request, on its way.
fn first() -> (World, Packet) {
    let mut world = World::pair(1);
    let packet = world.intercept().remove(0);
    (world, packet)
}

/// What B answers to a datagram.
fn answer(world: &mut World, packet: &Packet) -> Option<Vec<u8>> {
    let before = world.hosts[B].sent.len();
    world.deliver(packet);
    world.hosts[B].sent[before..].first().cloned()
}

fn refusal(answer: &[u8]) -> (NotifyKind, Vec<u8>) {
    let Ok(Parsed::Clear { header, payloads }) = parse(answer) else {
        panic!("an answer in clear");
    };
    assert!(header.response && !header.initiator);
    match payloads.as_slice() {
        [Payload::Notify(notify)] => (notify.kind, notify.data.clone()),
        other => panic!("{other:?}"),
    }
}

/// The request with one more payload at its end.
fn with(packet: &Packet, critical: bool) -> Packet {
    let Ok(Parsed::Clear {
        header,
        mut payloads,
    }) = parse(&packet.payload)
    else {
        panic!("a request in clear");
    };
    payloads.push(Payload::Unknown {
        kind: PayloadKind(199),
        critical,
        body: vec![1, 2, 3],
    });
    Packet {
        payload: emit(&header, &payloads),
        ..packet.clone()
    }
}

#[test]
fn rfc7296_section_2_5_a_request_of_a_later_major_version_is_dropped_and_told_of_ours() {
    let (mut world, mut packet) = first();
    packet.payload[17] = 0x30;
    let answer_to = |world: &mut World, packet: &Packet| answer(world, packet);
    let said = answer_to(&mut world, &packet).expect("INVALID_MAJOR_VERSION");
    assert_eq!(refusal(&said), (NotifyKind::INVALID_MAJOR_VERSION, vec![2]));
    assert_eq!(said[..8], packet.payload[..8]);
    // Never a response to a response, nor to an earlier version or to scraps.
    packet.payload[19] |= 0x20;
    assert_eq!(answer_to(&mut world, &packet), None);
    packet.payload[19] &= !0x20;
    packet.payload[17] = 0x10;
    assert_eq!(answer_to(&mut world, &packet), None);
    packet.payload[17] = 0x30;
    packet.payload.truncate(27);
    assert_eq!(answer_to(&mut world, &packet), None);
}

#[test]
fn rfc7296_section_2_5_a_later_minor_version_and_reserved_bits_do_not_matter() {
    let (mut world, mut packet) = first();
    packet.payload[17] = 0x2f;
    let said = answer(&mut world, &packet).expect("an answer");
    assert_eq!(said[17], 0x20, "our own version");
    assert!(matches!(parse(&said), Ok(Parsed::Clear { payloads, .. }) if payloads.len() > 2));
}

#[test]
fn rfc7296_section_2_5_an_unknown_payload_is_skipped_unless_it_is_critical() {
    let (mut world, packet) = first();
    let critical = with(&packet, true);
    let said = answer(&mut world, &critical).expect("UNSUPPORTED_CRITICAL_PAYLOAD");
    let wanted = (NotifyKind::UNSUPPORTED_CRITICAL_PAYLOAD, vec![199]);
    assert_eq!(refusal(&said), wanted);
    let skipped = with(&packet, false);
    let said = answer(&mut world, &skipped).expect("an answer");
    assert!(matches!(parse(&said), Ok(Parsed::Clear { payloads, .. }) if payloads.len() > 2));
}

/// What the responder cannot read it has kept nothing of: the peer goes on as if it was lost.
#[test]
fn rfc7296_section_2_21_1_a_refusal_in_clear_leaves_nothing_behind() {
    let (mut world, packet) = first();
    world.deliver(&with(&packet, true));
    for refusal in world.intercept() {
        assert_eq!(refusal.to.ip(), address(A));
        world.inject(refusal);
    }
    world.run(20 * SECOND);
    world.assert_agreement(1);
    assert!(world.hosts[A].saw(|e| matches!(e, Event::NegotiationFailed { .. })));
}

/// Who forges its source has us send to others no more than so much.
#[test]
fn rfc7296_section_2_21_1_refusals_in_clear_are_bounded_in_rate() {
    for critical in [false, true] {
        let (mut world, packet) = first();
        let mut forged = with(&packet, true);
        if !critical {
            forged.payload[17] = 0x30;
        }
        let told = |world: &mut World| {
            let answers = (0..1000)
                .filter(|_| answer(world, &forged).is_some())
                .count();
            world.intercept();
            answers
        };
        assert_eq!(told(&mut world), 256);
        world.run(SECOND / 2);
        world.intercept();
        assert_eq!(told(&mut world), 128);
    }
}
