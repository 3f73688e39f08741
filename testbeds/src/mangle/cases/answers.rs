//! Wrong answers to a gateway that has sent IKE_SA_INIT. Nobody signs them, so that they must not
//! end anything (RFC 7296 section 2.21.1): the honest answer that comes later counts.

use hitless::ike::message::NotifyKind;

use crate::mangle::bed::Bed;
use crate::mangle::judge::Expected::{NextExchange, Retried, Silence};
use crate::mangle::peer::{GROUP, ike_transforms};
use crate::mangle::wire::{
    self, CRITICAL, INITIATOR, Message, PROTOCOL_IKE, Raw, UNKNOWN, aes_gcm, notify, proposal,
    security_association, transform,
};
use crate::mangle::{Case, case};

/// An IKE_SA_INIT response with something changed: SA, KE, Nonce, Notify.
fn init(bed: &mut Bed, change: impl FnOnce(&mut Message)) -> Vec<Vec<u8>> {
    let mut message = bed.peer.init();
    change(&mut message);
    vec![message.octets()]
}

/// An IKE_SA_INIT response that refuses.
fn refuse(bed: &mut Bed, kind: NotifyKind, data: &[u8]) -> Vec<Vec<u8>> {
    let mut message = bed.peer.init();
    message.responder = 0;
    message.payloads = vec![notify(kind.0, data)];
    vec![message.octets()]
}

pub const ASKED_INIT: &[Case] = &[
    // IKE_SA_INIT: refusals that nobody signed.
    case("a demand for a cookie", "RFC 7296 2.6", Retried, |b| {
        refuse(b, NotifyKind::COOKIE, &[7; 64])
    }),
    case("a cookie of 65 octets", "RFC 7296 2.6", Silence, |b| {
        refuse(b, NotifyKind::COOKIE, &[7; 65])
    }),
    case("a cookie of no octets", "RFC 7296 2.6", Silence, |b| {
        refuse(b, NotifyKind::COOKIE, &[])
    }),
    case(
        "one demand for a cookie after the other",
        "RFC 7296 2.21.1",
        Silence,
        |b| {
            for octet in 0..50 {
                let demand = refuse(b, NotifyKind::COOKIE, &[octet; 8]);
                b.deliver(&demand[0]);
            }
            b.look();
            refuse(b, NotifyKind::COOKIE, &[99; 8])
        },
    ),
    case(
        "INVALID_KE_PAYLOAD for a group that was offered",
        "RFC 7296 1.2",
        Retried,
        |b| refuse(b, NotifyKind::INVALID_KE_PAYLOAD, &[0, 19]),
    ),
    case(
        "INVALID_KE_PAYLOAD for the group that was sent",
        "RFC 7296 2.21.1",
        Silence,
        |b| refuse(b, NotifyKind::INVALID_KE_PAYLOAD, &[0, 31]),
    ),
    case(
        "INVALID_KE_PAYLOAD for a group that was not offered",
        "RFC 7296 2.21.1",
        Silence,
        |b| refuse(b, NotifyKind::INVALID_KE_PAYLOAD, &[0, 2]),
    ),
    case(
        "INVALID_KE_PAYLOAD without group",
        "RFC 7296 2.21.1",
        Silence,
        |b| refuse(b, NotifyKind::INVALID_KE_PAYLOAD, &[0]),
    ),
    case(
        "NO_PROPOSAL_CHOSEN in clear",
        "RFC 7296 2.21.1",
        Silence,
        |b| refuse(b, NotifyKind::NO_PROPOSAL_CHOSEN, &[]),
    ),
    case(
        "INVALID_MAJOR_VERSION in clear",
        "RFC 7296 2.21.1",
        Silence,
        |b| refuse(b, NotifyKind::INVALID_MAJOR_VERSION, &[3]),
    ),
    case(
        "AUTHENTICATION_FAILED in answer to IKE_SA_INIT",
        "RFC 7296 2.21.1",
        Silence,
        |b| refuse(b, NotifyKind::AUTHENTICATION_FAILED, &[]),
    ),
    case(
        "an unknown error in clear",
        "RFC 7296 2.21.1",
        Silence,
        |b| refuse(b, NotifyKind(8111), &[]),
    ),
    case(
        "an IKE_SA_INIT response without payloads",
        "RFC 7296 2.21.1",
        Silence,
        |b| init(b, |m| m.payloads.clear()),
    ),
    // IKE_SA_INIT: the header.
    case(
        "major version 3 in the response",
        "RFC 7296 2.5",
        Silence,
        |b| init(b, |m| m.version = 0x30),
    ),
    case("no response flag", "RFC 7296 3.1", Silence, |b| {
        init(b, |m| m.flags = 0)
    }),
    case(
        "initiator flag in the response",
        "RFC 7296 3.1",
        Silence,
        |b| init(b, |m| m.flags |= INITIATOR),
    ),
    case(
        "an SPI that the gateway did not choose",
        "RFC 7296 2.21.4",
        Silence,
        |b| init(b, |m| m.initiator ^= 1),
    ),
    case("responder's SPI zero", "RFC 7296 3.1", Silence, |b| {
        init(b, |m| m.responder = 0)
    }),
    case(
        "Message ID 1 in the response",
        "RFC 7296 2.2",
        Silence,
        |b| init(b, |m| m.id = 1),
    ),
    case(
        "a response from another address",
        "RFC 7296 2.11",
        Silence,
        |b| {
            let response = init(b, |_| {});
            let here = std::mem::replace(&mut b.here, ([192, 0, 2, 77], 500).into());
            b.deliver(&response[0]);
            b.here = here;
            Vec::new()
        },
    ),
    case(
        "a response in clear to IKE_AUTH",
        "RFC 7296 2.21.1",
        Silence,
        |b| init(b, |m| m.exchange = wire::IKE_AUTH),
    ),
    // IKE_SA_INIT: the payloads.
    case(
        "unknown payload in the response",
        "RFC 7296 2.5",
        NextExchange,
        |b| {
            let response = init(b, |m| m.payloads.push(Raw::new(UNKNOWN, [1])));
            b.peer.sent_init(&response[0]);
            response
        },
    ),
    case(
        "the response's payloads in another order",
        "RFC 7296 2.5",
        NextExchange,
        |b| {
            let response = init(b, |m| m.payloads.reverse());
            b.peer.sent_init(&response[0]);
            response
        },
    ),
    case(
        "unknown critical payload in the response",
        "RFC 7296 2.5",
        Silence,
        |b| {
            init(b, |m| {
                m.payloads.push(Raw::new(UNKNOWN, [1]).flagged(CRITICAL))
            })
        },
    ),
    case(
        "a cipher that was not offered",
        "RFC 7296 2.7",
        Silence,
        |b| {
            let mut transforms = ike_transforms();
            transforms[0] = aes_gcm(256);
            init(b, |m| {
                m.payloads[0] = security_association(&[proposal(1, PROTOCOL_IKE, &[], transforms)])
            })
        },
    ),
    case("two ciphers chosen", "RFC 7296 3.3.6", Silence, |b| {
        let mut transforms = ike_transforms();
        transforms.push(transform(4, 19));
        init(b, |m| {
            m.payloads[0] = security_association(&[proposal(1, PROTOCOL_IKE, &[], transforms)])
        })
    }),
    case("two proposals chosen", "RFC 7296 2.7", Silence, |b| {
        let chosen = |number| proposal(number, PROTOCOL_IKE, &[], ike_transforms());
        init(b, |m| {
            m.payloads[0] = security_association(&[chosen(1), chosen(2)])
        })
    }),
    case("no PRF chosen", "RFC 7296 2.7", Silence, |b| {
        let mut transforms = ike_transforms();
        transforms.remove(1);
        init(b, |m| {
            m.payloads[0] = security_association(&[proposal(1, PROTOCOL_IKE, &[], transforms)])
        })
    }),
    case("no KE in the response", "RFC 7296 1.2", Silence, |b| {
        init(b, |m| drop(m.payloads.remove(1)))
    }),
    case(
        "KE of another group in the response",
        "RFC 7296 1.2",
        Silence,
        |b| init(b, |m| m.payloads[1] = wire::key_exchange(19, &[7; 64])),
    ),
    case("KE zero in the response", "RFC 8031 3.2", Silence, |b| {
        init(b, |m| m.payloads[1] = wire::key_exchange(GROUP, &[0; 32]))
    }),
    case("no Nonce in the response", "RFC 7296 1.2", Silence, |b| {
        init(b, |m| drop(m.payloads.remove(2)))
    }),
    case(
        "a nonce of 8 octets in the response",
        "RFC 7296 3.9",
        Silence,
        |b| init(b, |m| m.payloads[2].body.truncate(8)),
    ),
];
