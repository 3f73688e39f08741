//! IKE_SA_INIT to a gateway that responds: header, payload headers, KE, Nonce, notifications, and
//! cookies. Nothing is authenticated yet, so that most of it is met with silence (RFC 7296 section
//! 2.21.1), and INVALID_SYNTAX is never told in clear (section 3.10.1).

use hitless::ike::message::NotifyKind;

use crate::mangle::bed::Bed;
use crate::mangle::judge::Expected::{Again, OneOf, Refused, RefusedWith, Silence, Usual};
use crate::mangle::wire::{
    self, CRITICAL, INITIATOR, Message, NONCE, RESPONSE, Raw, UNKNOWN, VENDOR, notify,
};
use crate::mangle::{Case, case, peer};

/// IKE_SA_INIT with something changed.
pub fn init(bed: &mut Bed, change: impl FnOnce(&mut Message)) -> Vec<Vec<u8>> {
    let mut message = bed.peer.init();
    change(&mut message);
    vec![message.octets()]
}

/// IKE_SA_INIT with the payload at a place changed: SA, KE, Nonce, Notify.
pub fn payload(bed: &mut Bed, place: usize, change: impl FnOnce(&mut Raw)) -> Vec<Vec<u8>> {
    init(bed, |message| change(&mut message.payloads[place]))
}

pub const NOTHING: &[Case] = &[
    // The header.
    case(
        "major version 3",
        "RFC 7296 2.5",
        RefusedWith(NotifyKind::INVALID_MAJOR_VERSION, &[2]),
        |bed| init(bed, |m| m.version = 0x30),
    ),
    case(
        "major version 3 in a response",
        "RFC 7296 2.5",
        Silence,
        |bed| init(bed, |m| (m.version, m.flags) = (0x30, INITIATOR | RESPONSE)),
    ),
    case("major version 1", "RFC 7296 2.5", Silence, |bed| {
        init(bed, |m| m.version = 0x10)
    }),
    case("minor version 7", "RFC 7296 2.5", Usual, |bed| {
        init(bed, |m| m.version = 0x27)
    }),
    case("version flag", "RFC 7296 3.1", Usual, |bed| {
        init(bed, |m| m.flags |= 0x10)
    }),
    case("reserved flags", "RFC 7296 3.1", Usual, |bed| {
        init(bed, |m| m.flags |= 0xc7)
    }),
    case("no initiator flag", "RFC 7296 3.1", Silence, |bed| {
        init(bed, |m| m.flags = 0)
    }),
    case("response flag", "RFC 7296 3.1", Silence, |bed| {
        init(bed, |m| m.flags |= RESPONSE)
    }),
    case(
        "length above the datagram's",
        "RFC 7296 3.1",
        Silence,
        |bed| init(bed, |m| m.length = Some(4000)),
    ),
    case(
        "length below the datagram's",
        "RFC 7296 3.1",
        Silence,
        |bed| init(bed, |m| m.length = Some(28)),
    ),
    case("length zero", "RFC 7296 3.1", Silence, |bed| {
        init(bed, |m| m.length = Some(0))
    }),
    case("length 2^32 - 1", "RFC 7296 3.1", Silence, |bed| {
        init(bed, |m| m.length = Some(u32::MAX))
    }),
    case("27 octets", "RFC 7296 3.1", Silence, |bed| {
        vec![bed.peer.init().octets()[..27].to_vec()]
    }),
    case("an empty datagram", "RFC 7296 3.1", Silence, |_| {
        vec![Vec::new()]
    }),
    case("initiator's SPI zero", "RFC 7296 3.1", Silence, |bed| {
        init(bed, |m| m.initiator = 0)
    }),
    case("responder's SPI not zero", "RFC 7296 3.1", Silence, |bed| {
        init(bed, |m| m.responder = 9)
    }),
    case("Message ID 1", "RFC 7296 2.2", Silence, |bed| {
        init(bed, |m| m.id = 1)
    }),
    case("Message ID 2^32 - 1", "RFC 7296 2.2", Silence, |bed| {
        init(bed, |m| m.id = u32::MAX)
    }),
    case("IKE_AUTH in clear", "RFC 7296 2.21.1", Silence, |bed| {
        init(bed, |m| m.exchange = wire::IKE_AUTH)
    }),
    case(
        "INFORMATIONAL in clear",
        "RFC 7296 2.21.4",
        Silence,
        |bed| init(bed, |m| m.exchange = wire::INFORMATIONAL),
    ),
    case(
        "unknown exchange type 240",
        "RFC 7296 3.1",
        Silence,
        |bed| init(bed, |m| m.exchange = 240),
    ),
    case("IKEv1 exchange type", "RFC 7296 3.1", Silence, |bed| {
        init(bed, |m| m.exchange = 2)
    }),
    // Payload headers.
    case(
        "unknown critical payload",
        "RFC 7296 2.5",
        RefusedWith(NotifyKind::UNSUPPORTED_CRITICAL_PAYLOAD, &[UNKNOWN]),
        |bed| {
            init(bed, |m| {
                m.payloads
                    .push(Raw::new(UNKNOWN, [1, 2, 3]).flagged(CRITICAL))
            })
        },
    ),
    case(
        "unknown payload, not critical",
        "RFC 7296 2.5",
        Usual,
        |bed| init(bed, |m| m.payloads.insert(1, Raw::new(UNKNOWN, [1, 2, 3]))),
    ),
    case(
        "critical flag on known payloads",
        "RFC 7296 2.5",
        Usual,
        |bed| {
            init(bed, |m| {
                m.payloads.iter_mut().for_each(|p| p.flags = CRITICAL)
            })
        },
    ),
    case(
        "reserved bits of payload headers",
        "RFC 7296 3.2",
        Usual,
        |bed| init(bed, |m| m.payloads.iter_mut().for_each(|p| p.flags = 0x7f)),
    ),
    case("payload length 3", "RFC 7296 3.2", Silence, |bed| {
        payload(bed, 1, |p| p.length = Some(3))
    }),
    case("payload length zero", "RFC 7296 3.2", Silence, |bed| {
        payload(bed, 0, |p| p.length = Some(0))
    }),
    case(
        "payload length past the end",
        "RFC 7296 3.2",
        Silence,
        |bed| payload(bed, 3, |p| p.length = Some(900)),
    ),
    case(
        "chain ends before the message",
        "RFC 7296 3.2",
        Silence,
        |bed| payload(bed, 2, |p| p.next = Some(0)),
    ),
    case(
        "chain goes on past the message",
        "RFC 7296 3.2",
        Silence,
        |bed| payload(bed, 3, |p| p.next = Some(NONCE)),
    ),
    case("payloads in another order", "RFC 7296 2.5", Usual, |bed| {
        init(bed, |m| m.payloads.reverse())
    }),
    case("10,000 payloads", "RFC 7296 2.21.1", Silence, |bed| {
        init(bed, |m| {
            m.payloads.extend(vec![Raw::new(VENDOR, []); 10_000])
        })
    }),
    case("no payloads", "RFC 7296 3.10.1", Silence, |bed| {
        init(bed, |m| m.payloads.clear())
    }),
    case("an SK payload", "RFC 7296 1.2", Silence, |bed| {
        init(bed, |m| m.payloads.push(Raw::new(wire::SK, [0; 64])))
    }),
    case("an SKF payload", "RFC 7383 2.5", Silence, |bed| {
        let body: Vec<u8> = [&[0, 1, 0, 2][..], &[0; 60]].concat();
        init(bed, |m| m.payloads = vec![Raw::new(wire::SKF, body)])
    }),
    // KE and Nonce.
    case("no SA", "RFC 7296 3.10.1", Silence, |bed| {
        init(bed, |m| drop(m.payloads.remove(0)))
    }),
    case(
        "no KE",
        "RFC 7296 3.10.1",
        OneOf(&[Silence, Refused(NotifyKind::INVALID_KE_PAYLOAD)]),
        |bed| init(bed, |m| drop(m.payloads.remove(1))),
    ),
    case("no Nonce", "RFC 7296 3.10.1", Silence, |bed| {
        init(bed, |m| drop(m.payloads.remove(2)))
    }),
    case(
        "two SA payloads",
        "RFC 7296 2.21.1",
        OneOf(&[Silence, Usual]),
        |bed| init(bed, |m| m.payloads.push(m.payloads[0].clone())),
    ),
    case(
        "two KE payloads",
        "RFC 7296 2.21.1",
        OneOf(&[Silence, Usual]),
        |bed| init(bed, |m| m.payloads.push(wire::key_exchange(19, &[7; 64]))),
    ),
    case(
        "two Nonces",
        "RFC 7296 2.21.1",
        OneOf(&[Silence, Usual]),
        |bed| init(bed, |m| m.payloads.push(Raw::new(NONCE, [9; 32]))),
    ),
    case("a nonce of 15 octets", "RFC 7296 3.9", Silence, |bed| {
        payload(bed, 2, |p| p.body.truncate(15))
    }),
    case("a nonce of 16 octets", "RFC 7296 3.9", Usual, |bed| {
        payload(bed, 2, |p| p.body.truncate(16))
    }),
    case("a nonce of 256 octets", "RFC 7296 3.9", Usual, |bed| {
        payload(bed, 2, |p| p.body = vec![7; 256])
    }),
    case("a nonce of 257 octets", "RFC 7296 3.9", Silence, |bed| {
        payload(bed, 2, |p| p.body = vec![7; 257])
    }),
    case(
        "KE of another group",
        "RFC 7296 1.2",
        RefusedWith(NotifyKind::INVALID_KE_PAYLOAD, &[0, peer::GROUP as u8]),
        |bed| payload(bed, 1, |p| *p = wire::key_exchange(14, &[7; 256])),
    ),
    case(
        "KE of an unknown group",
        "RFC 7296 1.2",
        RefusedWith(NotifyKind::INVALID_KE_PAYLOAD, &[0, peer::GROUP as u8]),
        |bed| payload(bed, 1, |p| *p = wire::key_exchange(999, &[7; 32])),
    ),
    case("KE of 31 octets", "RFC 8031 3.1", Silence, |bed| {
        payload(bed, 1, |p| p.body.truncate(35))
    }),
    case("KE of 33 octets", "RFC 8031 3.1", Silence, |bed| {
        payload(bed, 1, |p| p.body.push(1))
    }),
    case("KE without data", "RFC 7296 3.4", Silence, |bed| {
        payload(bed, 1, |p| p.body.truncate(4))
    }),
    case(
        "KE that ends in its group",
        "RFC 7296 3.4",
        Silence,
        |bed| payload(bed, 1, |p| p.body.truncate(1)),
    ),
    case("KE zero", "RFC 8031 3.2", Silence, |bed| {
        payload(bed, 1, |p| *p = wire::key_exchange(peer::GROUP, &[0; 32]))
    }),
    case("KE of low order", "RFC 8031 3.2", Silence, |bed| {
        let mut one = [0; 32];
        one[0] = 1;
        payload(bed, 1, |p| *p = wire::key_exchange(peer::GROUP, &one))
    }),
    case("reserved bits of KE", "RFC 7296 3.4", Usual, |bed| {
        payload(bed, 1, |p| p.body[2..4].copy_from_slice(&[0xff, 0xff]))
    }),
    // Notifications.
    case(
        "unknown error notification",
        "RFC 7296 3.10.1",
        Usual,
        |bed| init(bed, |m| m.payloads.push(notify(8000, &[1]))),
    ),
    case(
        "unknown status notification",
        "RFC 7296 3.10.1",
        Usual,
        |bed| init(bed, |m| m.payloads.push(notify(40_000, &[1; 100]))),
    ),
    case(
        "NO_PROPOSAL_CHOSEN in a request",
        "RFC 7296 3.10.1",
        Usual,
        |bed| init(bed, |m| m.payloads.push(notify(14, &[]))),
    ),
    case(
        "Notify whose SPI is longer than itself",
        "RFC 7296 3.10",
        Silence,
        |bed| {
            init(bed, |m| {
                m.payloads.push(Raw::new(wire::NOTIFY, [0, 200, 0x40, 4]))
            })
        },
    ),
    case("Notify of 3 octets", "RFC 7296 3.10", Silence, |bed| {
        init(bed, |m| {
            m.payloads.push(Raw::new(wire::NOTIFY, [0, 0, 0x40]))
        })
    }),
    case(
        "NAT detection digest of 3 octets",
        "RFC 7296 2.23",
        Usual,
        |bed| {
            init(bed, |m| {
                m.payloads
                    .extend([notify(16388, &[1, 2, 3]), notify(16389, &[])])
            })
        },
    ),
    case(
        "1,500 NAT detection digests",
        "RFC 7296 2.23",
        Silence,
        |bed| {
            init(bed, |m| {
                m.payloads.extend(vec![notify(16388, &[7; 20]); 1500])
            })
        },
    ),
    case(
        "a cookie that nobody asked for",
        "RFC 7296 2.6",
        Usual,
        |bed| vec![bed.with_cookie(&[7; 33])],
    ),
];

pub const HALF_OPEN: &[Case] = &[
    // Repetitions.
    case("IKE_SA_INIT again", "RFC 7296 2.1", Again, |bed| {
        vec![bed.last.0.clone()]
    }),
    case(
        "another IKE_SA_INIT with the same SPI",
        "RFC 7296 2.1",
        Silence,
        |bed| {
            let mut message = bed.peer.init();
            message.responder = 0;
            message.payloads.push(Raw::new(VENDOR, [1]));
            vec![message.octets()]
        },
    ),
];

pub const BUSY: &[Case] = &[
    // Cookies.
    case(
        "no cookie where one is demanded",
        "RFC 7296 2.6",
        Refused(NotifyKind::COOKIE),
        |bed| init(bed, |_| {}),
    ),
    case(
        "a wrong cookie",
        "RFC 7296 2.6",
        Refused(NotifyKind::COOKIE),
        |bed| vec![bed.with_cookie(&[7; 33])],
    ),
    case(
        "an empty cookie",
        "RFC 7296 2.6",
        Refused(NotifyKind::COOKIE),
        |bed| vec![bed.with_cookie(&[])],
    ),
    case(
        "a cookie of 4000 octets",
        "RFC 7296 2.6",
        OneOf(&[Silence, Refused(NotifyKind::COOKIE)]),
        |bed| vec![bed.with_cookie(&[7; 4000])],
    ),
    case(
        "the cookie of another nonce",
        "RFC 7296 2.6",
        Refused(NotifyKind::COOKIE),
        |bed| {
            let cookie = cookie(bed);
            bed.peer.nonce = vec![8; 32];
            vec![bed.with_cookie(&cookie)]
        },
    ),
    case(
        "the cookie of another SPI",
        "RFC 7296 2.6",
        Refused(NotifyKind::COOKIE),
        |bed| {
            let cookie = cookie(bed);
            bed.peer.spi += 1;
            vec![bed.with_cookie(&cookie)]
        },
    ),
    case(
        "the cookie of another address",
        "RFC 7296 2.6",
        Refused(NotifyKind::COOKIE),
        |bed| {
            let cookie = cookie(bed);
            bed.here.set_port(501);
            vec![bed.with_cookie(&cookie)]
        },
    ),
    case("the right cookie", "RFC 7296 2.6", Usual, |bed| {
        let cookie = cookie(bed);
        vec![bed.with_cookie(&cookie)]
    }),
    case(
        "no nonce where a cookie is demanded",
        "RFC 7296 2.6",
        Silence,
        |bed| init(bed, |m| drop(m.payloads.remove(2))),
    ),
];

/// The cookie that the gateway demands for our request.
fn cookie(bed: &mut Bed) -> Vec<u8> {
    let request = bed.peer.init().octets();
    bed.deliver(&request);
    let demand = bed.sent.last().and_then(|answer| bed.demanded(answer));
    bed.look();
    demand.unwrap_or_default()
}
