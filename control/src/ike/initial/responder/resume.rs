//! The responder's half of IKE_SESSION_RESUME (RFC 5723 section 4.3).

use std::sync::Arc;

use super::{Admission, Admitted, Begun, Responder, childless, detected, stateless, supported};
use crate::ike::contents::Contents;
use crate::ike::initial::{Nonces, fragmenting};
use crate::ike::keys::{IkeKeys, Inputs, Side};
use crate::ike::message::{Header, IdBody, NotifyKind, Payload};
use crate::ike::nat::{self, Path};
use crate::ike::output::Event;
use crate::ike::proposal::Additional;
use crate::ike::resume::{self, Session};
use crate::ike::settings::Connection;
use crate::ike::turn::{Effect, Turn};

/// A session that a peer resumes, for the connection that the ticket was given for.
pub(super) struct Resumed {
    session: Session,
    connection: Arc<Connection>,
}

impl Resumed {
    pub fn is_of(&self, connection: &Connection) -> bool {
        self.session.connection == connection.name
    }
}

impl Responder {
    /// Answers an IKE_SESSION_RESUME request. A ticket that does not count is refused in clear, and
    /// the peer comes back with IKE_SA_INIT.
    pub fn resume(
        turn: &mut Turn<'_>,
        connections: &[Arc<Connection>],
        path: Path,
        header: &Header,
        payloads: &[Payload],
        datagram: &[u8],
    ) -> Admission {
        let contents = Contents::of(payloads);
        let ticket = contents.notify(NotifyKind::TICKET_OPAQUE);
        let (Some(peer_nonce), Some(ticket)) = (contents.valid_nonce(), ticket) else {
            turn.drop(path.remote, "IKE_SESSION_RESUME without nonce or ticket");
            return Admission::Refused;
        };
        match resume::is_welcome(turn, connections, path, &ticket.data) {
            Ok((connection, session)) => {
                let resumed = Resumed {
                    session,
                    connection,
                };
                let inputs = (path, header, &contents, peer_nonce);
                let responder = Responder::of_session(turn, inputs, resumed, datagram);
                Admission::HalfOpen(Box::new(responder))
            }
            Err(reason) => {
                turn.drop(path.remote, reason);
                let refusal = Payload::notify(NotifyKind::TICKET_NACK, &[]);
                turn.immediate.push(stateless(path, header, refusal));
                Admission::Refused
            }
        }
    }

    fn of_session(
        turn: &mut Turn<'_>,
        (path, header, contents, peer_nonce): (Path, &Header, &Contents<'_>, &[u8]),
        resumed: Resumed,
        datagram: &[u8],
    ) -> Responder {
        let connection = resumed.connection.clone();
        let nonce = turn.nonce();
        let spi = turn.ids.ike_spi(turn.entropy);
        let initiator_spi = header.initiator_spi;
        let inputs = Inputs {
            initiator_nonce: peer_nonce,
            responder_nonce: &nonce,
            initiator_spi,
            responder_spi: spi,
        };
        let proposal = resumed.session.proposal;
        let keys = IkeKeys::resume(&proposal, &inputs, &resumed.session.sk_d);
        let mut payloads = vec![Payload::Nonce(nonce.clone())];
        let fake = turn.fake_source(connection.encap);
        payloads.extend(nat::notifications(initiator_spi, spi, path, fake));
        payloads.extend(childless(std::iter::once(&connection)));
        payloads.extend(supported(std::iter::once(&*connection), contents));
        let begun = Begun {
            spi,
            nonces: Nonces {
                initiator: peer_nonce.to_vec(),
                responder: nonce,
            },
            proposal,
            keys,
            additional: Additional::NONE,
            nat: detected(header, path, contents, connection.encap),
            fragmenting: fragmenting(&connection, contents),
            resumed: Some(Box::new(resumed)),
        };
        begun.answer(turn, (path, header, contents), &payloads, datagram)
    }

    /// The peer has the keys of the session, and is who it was; the ticket still counts.
    pub(super) fn admit_resumed(
        &self,
        turn: &Turn<'_>,
        connections: &[Arc<Connection>],
        resumed: &Resumed,
        id: &IdBody,
        auth: (u8, &[u8]),
    ) -> Result<Admitted, String> {
        let session = &resumed.session;
        if id.id != session.remote_id {
            return Err(format!("the peer is {}, the ticket another's", id.id));
        }
        // All of it may have changed since the ticket came.
        let connection = session.counts(turn, connections, self.path);
        let connection = connection.map_err(|why| format!("{}: {why}", id.id))?;
        if !resume::proof(&self.keys, Side::Initiator, &self.request, auth) {
            return Err(format!("wrong keys of {} in a resumed IKE SA", id.id));
        }
        let proof = resume::prove(&self.keys, Side::Responder, &self.response);
        let local = IdBody::new(session.local_id.clone());
        let mut authenticated = session.authenticated(turn);
        let renewed = session
            .authenticated(turn)
            .after_answering(turn, &connection);
        let limits = [authenticated.reauth_at, renewed.reauth_at];
        authenticated.reauth_at = limits.into_iter().flatten().min();
        Ok(Admitted {
            connection,
            local_id: local.id.clone(),
            payloads: vec![Payload::IdResponder(local), proof.auth()],
            authenticated,
            keys: self.keys.clone(),
        })
    }

    /// The IKE SA that the ticket was given on is over (section 4.3.4).
    pub(super) fn resumed(&self, turn: &mut Turn<'_>) {
        let Some(resumed) = &self.resumed else {
            return;
        };
        let old = resumed.session.ike;
        turn.effects.push(Effect::Resumed(old));
        turn.events.push(Event::IkeResumed { old, new: self.spi });
    }
}
