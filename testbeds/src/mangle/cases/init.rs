//! IKE_SA_INIT to a gateway that responds: header, payload headers, KE, Nonce, notifications, and
//! cookies. Nothing is authenticated yet, so that most of it is met with silence (RFC 7296 section
//! 2.21.1), and INVALID_SYNTAX is never told in clear (section 3.10.1).

use hitless::ike::message::NotifyKind;

use crate::mangle::bed::{Bed, Stage};
use crate::mangle::judge::Expected::{self, Again, OneOf, Refused, RefusedWith, Silence, Usual};
use crate::mangle::wire::{
    self, CRITICAL, INITIATOR, Message, NONCE, RESPONSE, Raw, UNKNOWN, VENDOR, notify,
};
use crate::mangle::{Case, peer};

const fn first(
    name: &'static str,
    rfc: &'static str,
    expected: Expected,
    send: fn(&mut Bed) -> Vec<Vec<u8>>,
) -> Case {
    Case {
        name,
        rfc,
        stage: Stage::Nothing,
        expected,
        send,
    }
}

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

pub const CASES: &[Case] = &[
    // The header.
    first(
        "major version 3",
        "RFC 7296 2.5",
        RefusedWith(NotifyKind::INVALID_MAJOR_VERSION, &[2]),
        |bed| init(bed, |m| m.version = 0x30),
    ),
    first(
        "major version 3 in a response",
        "RFC 7296 2.5",
        Silence,
        |bed| init(bed, |m| (m.version, m.flags) = (0x30, INITIATOR | RESPONSE)),
    ),
    first("major version 1", "RFC 7296 2.5", Silence, |bed| {
        init(bed, |m| m.version = 0x10)
    }),
    first("minor version 7", "RFC 7296 2.5", Usual, |bed| {
        init(bed, |m| m.version = 0x27)
    }),
    first("version flag", "RFC 7296 3.1", Usual, |bed| {
        init(bed, |m| m.flags |= 0x10)
    }),
    first("reserved flags", "RFC 7296 3.1", Usual, |bed| {
        init(bed, |m| m.flags |= 0xc7)
    }),
    first("no initiator flag", "RFC 7296 3.1", Silence, |bed| {
        init(bed, |m| m.flags = 0)
    }),
    first("response flag", "RFC 7296 3.1", Silence, |bed| {
        init(bed, |m| m.flags |= RESPONSE)
    }),
    first(
        "length above the datagram's",
        "RFC 7296 3.1",
        Silence,
        |bed| init(bed, |m| m.length = Some(4000)),
    ),
    first(
        "length below the datagram's",
        "RFC 7296 3.1",
        Silence,
        |bed| init(bed, |m| m.length = Some(28)),
    ),
    first("length zero", "RFC 7296 3.1", Silence, |bed| {
        init(bed, |m| m.length = Some(0))
    }),
    first("length 2^32 - 1", "RFC 7296 3.1", Silence, |bed| {
        init(bed, |m| m.length = Some(u32::MAX))
    }),
    first("27 octets", "RFC 7296 3.1", Silence, |bed| {
        vec![bed.peer.init().octets()[..27].to_vec()]
    }),
    first("an empty datagram", "RFC 7296 3.1", Silence, |_| {
        vec![Vec::new()]
    }),
    first("initiator's SPI zero", "RFC 7296 3.1", Silence, |bed| {
        init(bed, |m| m.initiator = 0)
    }),
    first("responder's SPI not zero", "RFC 7296 3.1", Silence, |bed| {
        init(bed, |m| m.responder = 9)
    }),
    first("Message ID 1", "RFC 7296 2.2", Silence, |bed| {
        init(bed, |m| m.id = 1)
    }),
    first("Message ID 2^32 - 1", "RFC 7296 2.2", Silence, |bed| {
        init(bed, |m| m.id = u32::MAX)
    }),
    first("IKE_AUTH in clear", "RFC 7296 2.21.1", Silence, |bed| {
        init(bed, |m| m.exchange = wire::IKE_AUTH)
    }),
    first(
        "INFORMATIONAL in clear",
        "RFC 7296 2.21.4",
        Silence,
        |bed| init(bed, |m| m.exchange = wire::INFORMATIONAL),
    ),
    first(
        "unknown exchange type 240",
        "RFC 7296 3.1",
        Silence,
        |bed| init(bed, |m| m.exchange = 240),
    ),
    first("IKEv1 exchange type", "RFC 7296 3.1", Silence, |bed| {
        init(bed, |m| m.exchange = 2)
    }),
    // Payload headers.
    first(
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
    first(
        "unknown payload, not critical",
        "RFC 7296 2.5",
        Usual,
        |bed| init(bed, |m| m.payloads.insert(1, Raw::new(UNKNOWN, [1, 2, 3]))),
    ),
    first(
        "critical flag on known payloads",
        "RFC 7296 2.5",
        Usual,
        |bed| {
            init(bed, |m| {
                m.payloads.iter_mut().for_each(|p| p.flags = CRITICAL)
            })
        },
    ),
    first(
        "reserved bits of payload headers",
        "RFC 7296 3.2",
        Usual,
        |bed| init(bed, |m| m.payloads.iter_mut().for_each(|p| p.flags = 0x7f)),
    ),
    first("payload length 3", "RFC 7296 3.2", Silence, |bed| {
        payload(bed, 1, |p| p.length = Some(3))
    }),
    first("payload length zero", "RFC 7296 3.2", Silence, |bed| {
        payload(bed, 0, |p| p.length = Some(0))
    }),
    first(
        "payload length past the end",
        "RFC 7296 3.2",
        Silence,
        |bed| payload(bed, 3, |p| p.length = Some(900)),
    ),
    first(
        "chain ends before the message",
        "RFC 7296 3.2",
        Silence,
        |bed| payload(bed, 2, |p| p.next = Some(0)),
    ),
    first(
        "chain goes on past the message",
        "RFC 7296 3.2",
        Silence,
        |bed| payload(bed, 3, |p| p.next = Some(NONCE)),
    ),
    first("payloads in another order", "RFC 7296 2.5", Usual, |bed| {
        init(bed, |m| m.payloads.reverse())
    }),
    first("10,000 payloads", "RFC 7296 2.21.1", Silence, |bed| {
        init(bed, |m| {
            m.payloads.extend(vec![Raw::new(VENDOR, []); 10_000])
        })
    }),
    first("no payloads", "RFC 7296 3.10.1", Silence, |bed| {
        init(bed, |m| m.payloads.clear())
    }),
    first("an SK payload", "RFC 7296 1.2", Silence, |bed| {
        init(bed, |m| m.payloads.push(Raw::new(wire::SK, [0; 64])))
    }),
    first("an SKF payload", "RFC 7383 2.5", Silence, |bed| {
        let body: Vec<u8> = [&[0, 1, 0, 2][..], &[0; 60]].concat();
        init(bed, |m| m.payloads = vec![Raw::new(wire::SKF, body)])
    }),
    // KE and Nonce.
    first("no SA", "RFC 7296 3.10.1", Silence, |bed| {
        init(bed, |m| drop(m.payloads.remove(0)))
    }),
    first(
        "no KE",
        "RFC 7296 3.10.1",
        OneOf(&[Silence, Refused(NotifyKind::INVALID_KE_PAYLOAD)]),
        |bed| init(bed, |m| drop(m.payloads.remove(1))),
    ),
    first("no Nonce", "RFC 7296 3.10.1", Silence, |bed| {
        init(bed, |m| drop(m.payloads.remove(2)))
    }),
    first(
        "two SA payloads",
        "RFC 7296 2.21.1",
        OneOf(&[Silence, Usual]),
        |bed| init(bed, |m| m.payloads.push(m.payloads[0].clone())),
    ),
    first(
        "two KE payloads",
        "RFC 7296 2.21.1",
        OneOf(&[Silence, Usual]),
        |bed| init(bed, |m| m.payloads.push(wire::key_exchange(19, &[7; 64]))),
    ),
    first(
        "two Nonces",
        "RFC 7296 2.21.1",
        OneOf(&[Silence, Usual]),
        |bed| init(bed, |m| m.payloads.push(Raw::new(NONCE, [9; 32]))),
    ),
    first("a nonce of 15 octets", "RFC 7296 3.9", Silence, |bed| {
        payload(bed, 2, |p| p.body.truncate(15))
    }),
    first("a nonce of 16 octets", "RFC 7296 3.9", Usual, |bed| {
        payload(bed, 2, |p| p.body.truncate(16))
    }),
    first("a nonce of 256 octets", "RFC 7296 3.9", Usual, |bed| {
        payload(bed, 2, |p| p.body = vec![7; 256])
    }),
    first("a nonce of 257 octets", "RFC 7296 3.9", Silence, |bed| {
        payload(bed, 2, |p| p.body = vec![7; 257])
    }),
    first(
        "KE of another group",
        "RFC 7296 1.2",
        RefusedWith(NotifyKind::INVALID_KE_PAYLOAD, &[0, peer::GROUP as u8]),
        |bed| payload(bed, 1, |p| *p = wire::key_exchange(14, &[7; 256])),
    ),
    first(
        "KE of an unknown group",
        "RFC 7296 1.2",
        RefusedWith(NotifyKind::INVALID_KE_PAYLOAD, &[0, peer::GROUP as u8]),
        |bed| payload(bed, 1, |p| *p = wire::key_exchange(999, &[7; 32])),
    ),
    first("KE of 31 octets", "RFC 8031 3.1", Silence, |bed| {
        payload(bed, 1, |p| p.body.truncate(35))
    }),
    first("KE of 33 octets", "RFC 8031 3.1", Silence, |bed| {
        payload(bed, 1, |p| p.body.push(1))
    }),
    first("KE without data", "RFC 7296 3.4", Silence, |bed| {
        payload(bed, 1, |p| p.body.truncate(4))
    }),
    first(
        "KE that ends in its group",
        "RFC 7296 3.4",
        Silence,
        |bed| payload(bed, 1, |p| p.body.truncate(1)),
    ),
    first("KE zero", "RFC 8031 3.2", Silence, |bed| {
        payload(bed, 1, |p| *p = wire::key_exchange(peer::GROUP, &[0; 32]))
    }),
    first("KE of low order", "RFC 8031 3.2", Silence, |bed| {
        let mut one = [0; 32];
        one[0] = 1;
        payload(bed, 1, |p| *p = wire::key_exchange(peer::GROUP, &one))
    }),
    first("reserved bits of KE", "RFC 7296 3.4", Usual, |bed| {
        payload(bed, 1, |p| p.body[2..4].copy_from_slice(&[0xff, 0xff]))
    }),
    // Notifications.
    first(
        "unknown error notification",
        "RFC 7296 3.10.1",
        Usual,
        |bed| init(bed, |m| m.payloads.push(notify(8000, &[1]))),
    ),
    first(
        "unknown status notification",
        "RFC 7296 3.10.1",
        Usual,
        |bed| init(bed, |m| m.payloads.push(notify(40_000, &[1; 100]))),
    ),
    first(
        "NO_PROPOSAL_CHOSEN in a request",
        "RFC 7296 3.10.1",
        Usual,
        |bed| init(bed, |m| m.payloads.push(notify(14, &[]))),
    ),
    first(
        "Notify whose SPI is longer than itself",
        "RFC 7296 3.10",
        Silence,
        |bed| {
            init(bed, |m| {
                m.payloads.push(Raw::new(wire::NOTIFY, [0, 200, 0x40, 4]))
            })
        },
    ),
    first("Notify of 3 octets", "RFC 7296 3.10", Silence, |bed| {
        init(bed, |m| {
            m.payloads.push(Raw::new(wire::NOTIFY, [0, 0, 0x40]))
        })
    }),
    first(
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
    first(
        "1,500 NAT detection digests",
        "RFC 7296 2.23",
        Silence,
        |bed| {
            init(bed, |m| {
                m.payloads.extend(vec![notify(16388, &[7; 20]); 1500])
            })
        },
    ),
    first(
        "a cookie that nobody asked for",
        "RFC 7296 2.6",
        Usual,
        |bed| vec![bed.with_cookie(&[7; 33])],
    ),
    // Repetitions.
    Case {
        name: "IKE_SA_INIT again",
        rfc: "RFC 7296 2.1",
        stage: Stage::HalfOpen,
        expected: Again,
        send: |bed| vec![bed.last.0.clone()],
    },
    Case {
        name: "another IKE_SA_INIT with the same SPI",
        rfc: "RFC 7296 2.1",
        stage: Stage::HalfOpen,
        expected: Silence,
        send: |bed| {
            let mut message = bed.peer.init();
            message.responder = 0;
            message.payloads.push(Raw::new(VENDOR, [1]));
            vec![message.octets()]
        },
    },
    // Cookies.
    Case {
        name: "no cookie where one is demanded",
        rfc: "RFC 7296 2.6",
        stage: Stage::Busy,
        expected: Refused(NotifyKind::COOKIE),
        send: |bed| init(bed, |_| {}),
    },
    Case {
        name: "a wrong cookie",
        rfc: "RFC 7296 2.6",
        stage: Stage::Busy,
        expected: Refused(NotifyKind::COOKIE),
        send: |bed| vec![bed.with_cookie(&[7; 33])],
    },
    Case {
        name: "an empty cookie",
        rfc: "RFC 7296 2.6",
        stage: Stage::Busy,
        expected: Refused(NotifyKind::COOKIE),
        send: |bed| vec![bed.with_cookie(&[])],
    },
    Case {
        name: "a cookie of 4000 octets",
        rfc: "RFC 7296 2.6",
        stage: Stage::Busy,
        expected: OneOf(&[Silence, Refused(NotifyKind::COOKIE)]),
        send: |bed| vec![bed.with_cookie(&[7; 4000])],
    },
    Case {
        name: "the cookie of another nonce",
        rfc: "RFC 7296 2.6",
        stage: Stage::Busy,
        expected: Refused(NotifyKind::COOKIE),
        send: |bed| {
            let cookie = cookie(bed);
            bed.peer.nonce = vec![8; 32];
            vec![bed.with_cookie(&cookie)]
        },
    },
    Case {
        name: "the cookie of another SPI",
        rfc: "RFC 7296 2.6",
        stage: Stage::Busy,
        expected: Refused(NotifyKind::COOKIE),
        send: |bed| {
            let cookie = cookie(bed);
            bed.peer.spi += 1;
            vec![bed.with_cookie(&cookie)]
        },
    },
    Case {
        name: "the cookie of another address",
        rfc: "RFC 7296 2.6",
        stage: Stage::Busy,
        expected: Refused(NotifyKind::COOKIE),
        send: |bed| {
            let cookie = cookie(bed);
            bed.here.set_port(501);
            vec![bed.with_cookie(&cookie)]
        },
    },
    Case {
        name: "the right cookie",
        rfc: "RFC 7296 2.6",
        stage: Stage::Busy,
        expected: Usual,
        send: |bed| {
            let cookie = cookie(bed);
            vec![bed.with_cookie(&cookie)]
        },
    },
    Case {
        name: "no nonce where a cookie is demanded",
        rfc: "RFC 7296 2.6",
        stage: Stage::Busy,
        expected: Silence,
        send: |bed| init(bed, |m| drop(m.payloads.remove(2))),
    },
];

/// The cookie that the gateway demands for our request.
fn cookie(bed: &mut Bed) -> Vec<u8> {
    let request = bed.peer.init().octets();
    bed.deliver(&request);
    let demand = bed.sent.last().and_then(|answer| bed.demanded(answer));
    bed.look();
    demand.unwrap_or_default()
}
