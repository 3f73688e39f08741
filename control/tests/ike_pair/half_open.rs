//! Half-open IKE SAs that the responder has lost: what it says to their initiators in clear, and what
//! those make of it (RFC 7296 sections 1.5 and 2.21.4).

use std::time::Duration;

use hitless::ike::message::{Exchange, Header, NotifyKind, Parsed, Payload, emit, parse};
use hitless::ike::settings::EngineSettings;
use hitless::ike::{Event, Input};

use crate::world::{A, B, Packet, SECOND, World, address, settings};

/// An IKE SA with B that A has asked for IKE_AUTH; that request is on the wire.
fn half_open(seed: u64, a: EngineSettings) -> World {
    let mut world = World::new(seed, a, settings(B));
    while world.hosts[A].sent.last().is_none_or(|d| !is_auth(d)) {
        assert!(world.step(world.now + SECOND));
    }
    world
}

fn header(datagram: &[u8]) -> Header {
    Header::parse(datagram).unwrap()
}

fn is_auth(datagram: &[u8]) -> bool {
    header(datagram).exchange == Exchange::IkeAuth
}

fn asked(world: &World) -> usize {
    world.hosts[A].sent.iter().filter(|d| is_auth(d)).count()
}

/// What anybody can write who has seen A's last message.
fn hint(world: &World) -> (Header, Packet) {
    let request = header(world.hosts[A].sent.last().unwrap());
    let header = Header {
        response: true,
        initiator: false,
        ..request
    };
    (header, in_clear(&header))
}

fn in_clear(header: &Header) -> Packet {
    let [to, from] = [A, B].map(|end| (address(end), 500).into());
    let unknown = Payload::notify(NotifyKind::INVALID_IKE_SPI, &[]);
    Packet {
        from,
        to,
        payload: emit(header, &[unknown]),
    }
}

#[test]
fn rfc7296_section_1_5_an_initiator_is_told_that_its_half_open_ike_sa_is_lost() {
    let unreachable = "192.0.2.66".parse().unwrap();
    let mut a = settings(A);
    // It begins anew where it was told so, and not elsewhere.
    a.connections[0].remote_addrs = vec![address(B), unreachable];
    let mut world = half_open(1, a);
    world.unreachable.push(unreachable);
    world.restart(B);
    world.run(SECOND * 15);
    world.assert_agreement(1);
    assert_eq!(world.sa(A).remote, address(B));
    let said = world.hosts[B].sent.iter().filter_map(|d| match parse(d) {
        Ok(Parsed::Clear { header, payloads }) if !header.exchange.is_first() => {
            Some((header, payloads))
        }
        _ => None,
    });
    let unknown = Payload::notify(NotifyKind::INVALID_IKE_SPI, &[]);
    for (answer, payloads) in said {
        // "the Message ID and Exchange Type are copied from the request. The Response flag is set".
        assert!(answer.response && !answer.initiator);
        assert_eq!(
            (answer.exchange, answer.message_id.0),
            (Exchange::IkeAuth, 1)
        );
        assert_eq!(payloads, std::slice::from_ref(&unknown));
    }
}

/// Section 2.21.4: it "MUST NOT change the state of any existing SAs" and may be answered by finding out
/// whether the peer lives.
#[test]
fn rfc7296_section_2_21_4_hints_take_no_repetition_away() {
    let mut world = half_open(2, settings(A));
    let request = world.intercept();
    world.unreachable.push(address(B));
    let (began, (_, hint)) = (world.now, hint(&world));
    let failed = |e: &Event| matches!(e, Event::NegotiationFailed { .. });
    while !world.hosts[A].saw(failed) {
        world.inject(hint.clone());
        world.run(SECOND / 10);
    }
    assert_eq!(asked(&world), 6, "as often as without a hint");
    assert!(world.now.since(began) >= SECOND * 2 * 5, "and not at once");

    // The answer counts, whatever was said before.
    let mut world = half_open(2, settings(A));
    assert_eq!(world.intercept().len(), request.len());
    world.inject(hint);
    world.run(SECOND / 10);
    world.deliver(&request[0]);
    world.run(SECOND);
    world.assert_agreement(1);
}

#[test]
fn only_what_answers_the_outstanding_request_is_a_hint() {
    let mut world = half_open(3, settings(A));
    world.unreachable.push(address(B));
    // The next repetition is in four seconds.
    world.run(SECOND * 4);
    let due = world.hosts[A].engine.poll_timeout();
    let (header, genuine) = hint(&world);
    let mut others = Vec::new();
    let mut other = header;
    other.responder_spi.0 ^= 1;
    others.push(in_clear(&other));
    let mut other = header;
    other.message_id.0 += 1;
    others.push(in_clear(&other));
    let mut other = header;
    other.response = false;
    others.push(in_clear(&other));
    let mut other = header;
    other.exchange = Exchange::Informational;
    others.push(in_clear(&other));
    let mut elsewhere = genuine.clone();
    elsewhere.from = "192.0.2.66:500".parse().unwrap();
    others.push(elsewhere);
    for packet in others {
        world.deliver(&packet);
        assert_eq!(world.hosts[A].engine.poll_timeout(), due);
    }
    world.deliver(&genuine);
    let sooner = world.hosts[A].engine.poll_timeout();
    assert!(sooner < due, "{sooner:?} {due:?}");
    assert_eq!(sooner, Some(world.now + SECOND * 2));
}

/// Nothing is said of what was established, for which RFC 6290 has a proof, and nothing to strangers.
#[test]
fn only_initiators_that_are_meant_are_told() {
    let mut world = World::established(4);
    let old = world.ike(A);
    world.restart(B);
    let before = world.hosts[B].sent.len();
    world.input(A, Input::Liveness(old));
    world.run(SECOND);
    assert_eq!(world.hosts[B].sent.len(), before);

    let mut world = half_open(4, settings(A));
    let request = world.intercept().remove(0);
    world.restart(B);
    let before = world.hosts[B].sent.len();
    let stranger = Packet {
        from: "192.0.2.66:500".parse().unwrap(),
        ..request.clone()
    };
    world.deliver(&stranger);
    assert_eq!(world.hosts[B].sent.len(), before);
    world.deliver(&request);
    assert_eq!(world.hosts[B].sent.len(), before + 1);
    world.run(Duration::ZERO);
}
