//! Wrong messages amid a login with EAP (RFC 7296 section 2.16), to a gateway that asks and to one that is
//! asked. RFC 3748 would have most of them discarded in silence; in IKE_AUTH each request has an
//! answer, and so the login is over (RFC 7296 section 2.21.2). What is none of IKE_AUTH is dropped.

use hitless::ike::message::NotifyKind;

use crate::mangle::bed::Bed;
use crate::mangle::judge::Expected::{
    self, Again, FailedGone, GoesOn, Refused, Silence, WithdrawnIke,
};
use crate::mangle::login::{
    FAILURE, IDENTITY, MD5, NAK, NOTIFICATION, REQUEST, RESPONSE, SUCCESS, answer, challenge, eap,
    identity, mschapv2,
};
use crate::mangle::peer::{SECRET, Sealing};
use crate::mangle::wire::{self, AUTH, EAP, Message, Raw, notify};
use crate::mangle::{Case, case};

const NOT_AUTHENTICATED: Expected = Refused(NotifyKind::AUTHENTICATION_FAILED);
/// More than a link has to carry (RFC 3748 section 3.1), and nearly what an IKE message can.
const LONG: usize = 2_000;
const LONGEST: usize = 60_000;

fn say(bed: &mut Bed, payloads: Vec<Raw>) -> Vec<Vec<u8>> {
    let message = bed.login_message(payloads);
    vec![bed.peer.seal(&message)]
}

/// An honest next message with another header.
fn header(bed: &mut Bed, packet: Raw, change: impl FnOnce(&mut Message)) -> Vec<Vec<u8>> {
    let mut message = bed.login_message(vec![packet]);
    change(&mut message);
    vec![bed.peer.seal(&message)]
}

/// An EAP packet whose last octet is missing, and one that claims another length.
fn cut(mut packet: Raw) -> Raw {
    packet.body.pop();
    packet
}

fn claiming(mut packet: Raw, length: u16) -> Raw {
    packet.body[2..4].copy_from_slice(&length.to_be_bytes());
    packet
}

fn who(bed: &Bed) -> Raw {
    identity(bed.identifier(), b"carol")
}

fn proof(bed: &Bed) -> Raw {
    let id = crate::mangle::peer::Peer::our_identity();
    Raw::new(AUTH, bed.peer.proof(SECRET, &id))
}

/// The gateway has asked who it is.
pub const LOG_IN: &[Case] = &[
    case(
        "an EAP response with another identifier",
        "RFC 3748 4.1",
        NOT_AUTHENTICATED,
        |b| {
            let packet = identity(b.identifier().wrapping_add(1), b"carol");
            say(b, vec![packet])
        },
    ),
    case(
        "an EAP response of another type",
        "RFC 3748 5",
        NOT_AUTHENTICATED,
        |b| {
            let packet = eap(RESPONSE, b.identifier(), &[MD5, 16, 1, 2, 3]);
            say(b, vec![packet])
        },
    ),
    case("an EAP Nak", "RFC 3748 5.3.1", NOT_AUTHENTICATED, |b| {
        let packet = eap(RESPONSE, b.identifier(), &[NAK, MD5]);
        say(b, vec![packet])
    }),
    case(
        "an EAP response without type",
        "RFC 3748 4.1",
        NOT_AUTHENTICATED,
        |b| {
            let packet = eap(RESPONSE, b.identifier(), &[]);
            say(b, vec![packet])
        },
    ),
    case(
        "an EAP packet cut by one octet",
        "RFC 7296 3.16",
        NOT_AUTHENTICATED,
        |b| {
            let packet = cut(who(b));
            say(b, vec![packet])
        },
    ),
    case(
        "an EAP packet that claims more",
        "RFC 7296 3.16",
        NOT_AUTHENTICATED,
        |b| {
            let packet = claiming(who(b), 0xffff);
            say(b, vec![packet])
        },
    ),
    case(
        "an EAP packet that claims 3 octets",
        "RFC 7296 3.16",
        NOT_AUTHENTICATED,
        |b| {
            let packet = claiming(who(b), 3);
            say(b, vec![packet])
        },
    ),
    case(
        "an EAP payload without content",
        "RFC 7296 3.16",
        NOT_AUTHENTICATED,
        |b| say(b, vec![Raw::new(EAP, [])]),
    ),
    case(
        "an EAP packet of 2,000 octets",
        "RFC 3748 3.1",
        NOT_AUTHENTICATED,
        |b| {
            let packet = identity(b.identifier(), &[b'c'; LONG]);
            say(b, vec![packet])
        },
    ),
    case(
        "an EAP packet of 60,000 octets",
        "RFC 3748 3.1",
        NOT_AUTHENTICATED,
        |b| {
            let packet = identity(b.identifier(), &[b'c'; LONGEST]);
            say(b, vec![packet])
        },
    ),
    case(
        "an EAP request of the client",
        "RFC 3748 4.1",
        NOT_AUTHENTICATED,
        |b| {
            let packet = eap(REQUEST, b.identifier(), &[IDENTITY]);
            say(b, vec![packet])
        },
    ),
    case(
        "EAP Success of the client",
        "RFC 3748 4.2",
        NOT_AUTHENTICATED,
        |b| {
            let packet = eap(SUCCESS, b.identifier(), &[]);
            say(b, vec![packet])
        },
    ),
    case(
        "an EAP packet of unknown code",
        "RFC 3748 4",
        NOT_AUTHENTICATED,
        |b| {
            let packet = eap(9, b.identifier(), &[IDENTITY]);
            say(b, vec![packet])
        },
    ),
    case(
        "IKE_AUTH without EAP amid a login",
        "RFC 7296 2.16",
        NOT_AUTHENTICATED,
        |b| say(b, Vec::new()),
    ),
    case(
        "AUTH before EAP has succeeded",
        "RFC 7296 2.16",
        NOT_AUTHENTICATED,
        |b| {
            let payloads = vec![proof(b)];
            say(b, payloads)
        },
    ),
    case(
        "the whole of an honest IKE_AUTH amid a login",
        "RFC 7296 2.16",
        NOT_AUTHENTICATED,
        |b| {
            let payloads = b.peer.auth_payloads();
            say(b, payloads)
        },
    ),
    case(
        "AUTH beside the EAP response",
        "RFC 7296 2.16",
        GoesOn,
        |b| {
            let payloads = vec![who(b), proof(b)];
            say(b, payloads)
        },
    ),
    case("a user whom nobody knows", "RFC 3748 5.1", GoesOn, |b| {
        let packet = identity(b.identifier(), b"mallory");
        say(b, vec![packet])
    }),
    case("a user without a name", "RFC 3748 5.1", GoesOn, |b| {
        let packet = identity(b.identifier(), b"");
        say(b, vec![packet])
    }),
    case("EAP in CREATE_CHILD_SA", "RFC 7296 1.2", Silence, |b| {
        let packet = who(b);
        header(b, packet, |m| m.exchange = wire::CREATE_CHILD_SA)
    }),
    case("EAP in INFORMATIONAL", "RFC 7296 1.2", Silence, |b| {
        let packet = who(b);
        header(b, packet, |m| m.exchange = wire::INFORMATIONAL)
    }),
    case(
        "EAP with the Message ID after the next",
        "RFC 7296 2.2",
        Silence,
        |b| {
            let packet = who(b);
            header(b, packet, |m| m.id += 1)
        },
    ),
    case("EAP with a wrong ICV", "RFC 7296 2.21.2", Silence, |b| {
        let packet = who(b);
        let message = b.login_message(vec![packet]);
        vec![b.peer.seal_as(&message, Sealing::forged())]
    }),
    case(
        "the first IKE_AUTH of the login again",
        "RFC 7296 2.1",
        Again,
        |b| vec![b.last.0.clone()],
    ),
];

/// The gateway has sent its challenge.
pub const CHALLENGED: &[Case] = &[
    case(
        "an answer to another EAP request",
        "RFC 3748 4.1",
        NOT_AUTHENTICATED,
        |b| {
            let identifier = b.identifier();
            say(b, vec![answer(identifier.wrapping_sub(1), identifier)])
        },
    ),
    case(
        "an answer to another challenge",
        "RFC 2759 4",
        NOT_AUTHENTICATED,
        |b| {
            let identifier = b.identifier();
            say(b, vec![answer(identifier, identifier.wrapping_sub(1))])
        },
    ),
    case(
        "an answer cut by one octet",
        "RFC 7296 3.16",
        NOT_AUTHENTICATED,
        |b| {
            let identifier = b.identifier();
            say(b, vec![cut(answer(identifier, identifier))])
        },
    ),
    case(
        "an answer of 48 octets",
        "RFC 2759 4",
        NOT_AUTHENTICATED,
        |b| {
            let identifier = b.identifier();
            let value = [&[48][..], &[7; 48], b"carol"].concat();
            say(
                b,
                vec![mschapv2(RESPONSE, identifier, (2, identifier), &value)],
            )
        },
    ),
    case(
        "an identity where the answer belongs",
        "RFC 3748 5.1",
        NOT_AUTHENTICATED,
        |b| {
            let packet = who(b);
            say(b, vec![packet])
        },
    ),
    case(
        "MS-CHAPv2 Success of the client, too early",
        "RFC 3748 4.2",
        NOT_AUTHENTICATED,
        |b| {
            let packet = eap(RESPONSE, b.identifier(), &[26, 3]);
            say(b, vec![packet])
        },
    ),
    case(
        "AUTH in the place of an answer",
        "RFC 7296 2.16",
        NOT_AUTHENTICATED,
        |b| {
            let payloads = vec![proof(b)];
            say(b, payloads)
        },
    ),
    // MS-CHAPv2 says so itself, in one more round.
    case("a wrong password", "RFC 2759 6", GoesOn, |b| {
        let identifier = b.identifier();
        say(b, vec![answer(identifier, identifier)])
    }),
];

/// The first answer with something else in it: IDr, two CERTs, AUTH, EAP.
fn first(bed: &mut Bed, change: impl FnOnce(&mut Vec<Raw>)) -> Vec<Vec<u8>> {
    let mut payloads = bed.peer.challenge_payloads().unwrap_or_default();
    change(&mut payloads);
    say(bed, payloads)
}

/// The gateway has begun to log in.
pub const ASKED_LOGIN: &[Case] = &[
    case("EAP without AUTH", "RFC 7296 2.16", WithdrawnIke, |b| {
        first(b, |p| p.retain(|raw| raw.kind != AUTH))
    }),
    case(
        "a wrong signature before EAP",
        "RFC 7296 2.16",
        WithdrawnIke,
        |b| {
            first(b, |p| {
                for raw in p.iter_mut().filter(|raw| raw.kind == AUTH) {
                    raw.body
                        .iter_mut()
                        .next_back()
                        .into_iter()
                        .for_each(|octet| *octet ^= 1);
                }
            })
        },
    ),
    case(
        "AUTH by a secret before EAP",
        "RFC 7296 2.16",
        WithdrawnIke,
        |b| {
            let proof = proof(b);
            first(b, |p| {
                for raw in p.iter_mut().filter(|raw| raw.kind == AUTH) {
                    raw.body.clone_from(&proof.body);
                }
            })
        },
    ),
    case(
        "EAP without certificates",
        "RFC 7296 2.16",
        WithdrawnIke,
        |b| first(b, |p| p.retain(|raw| raw.kind != 37)),
    ),
    case("AUTH without EAP", "RFC 7296 2.16", WithdrawnIke, |b| {
        first(b, |p| p.retain(|raw| raw.kind != EAP))
    }),
    case(
        "EAP Success in the first answer",
        "RFC 3748 4.2",
        WithdrawnIke,
        |b| {
            first(b, |p| {
                p.last_mut()
                    .into_iter()
                    .for_each(|raw| *raw = eap(SUCCESS, 7, &[]))
            })
        },
    ),
    case(
        "AUTHENTICATION_FAILED in the place of EAP",
        "RFC 7296 2.21.2",
        FailedGone,
        |b| say(b, vec![notify(24, &[])]),
    ),
];

/// It has said who its user is.
pub const ASKED_USER: &[Case] = &[
    case(
        "an EAP request of another type",
        "RFC 3748 5.3.1",
        GoesOn,
        |b| say(b, vec![eap(REQUEST, 8, &[MD5, 4, 1, 2, 3, 4])]),
    ),
    case("an EAP Notification", "RFC 3748 5.2", GoesOn, |b| {
        say(b, vec![eap(REQUEST, 8, &[NOTIFICATION, b'!'])])
    }),
    case(
        "the EAP request of the round before",
        "RFC 3748 4.1",
        GoesOn,
        |b| say(b, vec![eap(REQUEST, 7, &[IDENTITY])]),
    ),
    case(
        "a challenge cut by one octet",
        "RFC 7296 3.16",
        WithdrawnIke,
        |b| say(b, vec![cut(challenge(8, 16))]),
    ),
    case(
        "a challenge of 15 octets",
        "RFC 2759 3",
        WithdrawnIke,
        |b| say(b, vec![challenge(8, 15)]),
    ),
    case(
        "an EAP request of 2,000 octets",
        "RFC 3748 3.1",
        WithdrawnIke,
        |b| say(b, vec![eap(REQUEST, 8, &[IDENTITY; LONG])]),
    ),
    case(
        "EAP Success before the challenge",
        "RFC 3748 4.2",
        WithdrawnIke,
        |b| say(b, vec![eap(SUCCESS, 8, &[])]),
    ),
    case(
        "MS-CHAPv2 Success before the challenge",
        "RFC 2759 5",
        WithdrawnIke,
        |b| {
            let text = format!("S={}", "0".repeat(40));
            say(b, vec![mschapv2(REQUEST, 8, (3, 8), text.as_bytes())])
        },
    ),
    case("EAP Failure alone", "RFC 3748 4.2", WithdrawnIke, |b| {
        say(b, vec![eap(FAILURE, 8, &[])])
    }),
    case(
        "EAP Failure and AUTHENTICATION_FAILED",
        "RFC 7296 2.16",
        FailedGone,
        |b| say(b, vec![eap(FAILURE, 8, &[]), notify(24, &[])]),
    ),
    case(
        "an EAP response of the gateway",
        "RFC 3748 4.1",
        WithdrawnIke,
        |b| say(b, vec![eap(RESPONSE, 8, &[IDENTITY, b'x'])]),
    ),
    case(
        "IKE_AUTH without EAP in answer to EAP",
        "RFC 7296 2.16",
        WithdrawnIke,
        |b| say(b, Vec::new()),
    ),
    case(
        "AUTH and a Child SA before EAP has succeeded",
        "RFC 7296 2.16",
        WithdrawnIke,
        |b| {
            let payloads = b.peer.auth_payloads();
            say(b, payloads)
        },
    ),
    case(
        "EAP in an INFORMATIONAL response",
        "RFC 7296 2.2",
        Silence,
        |b| header(b, challenge(8, 16), |m| m.exchange = wire::INFORMATIONAL),
    ),
    case(
        "EAP in a CREATE_CHILD_SA response",
        "RFC 7296 2.2",
        Silence,
        |b| header(b, challenge(8, 16), |m| m.exchange = wire::CREATE_CHILD_SA),
    ),
    case(
        "EAP with the Message ID of the round before",
        "RFC 7296 2.2",
        Silence,
        |b| header(b, challenge(8, 16), |m| m.id -= 1),
    ),
    case(
        "an EAP request with a wrong ICV",
        "RFC 7296 2.21.2",
        Silence,
        |b| {
            let message = b.login_message(vec![challenge(8, 16)]);
            vec![b.peer.seal_as(&message, Sealing::forged())]
        },
    ),
];
