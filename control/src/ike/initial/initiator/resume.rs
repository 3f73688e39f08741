//! IKE_SESSION_RESUME in the place of IKE_SA_INIT (RFC 5723 section 4.3): Ni and the ticket, then
//! IKE_AUTH. Whatever goes wrong before that, the full exchange follows.

use super::Initiator;
use crate::ike::auth::{Authenticated, Proof};
use crate::ike::contents::Contents;
use crate::ike::initial::extensions;
use crate::ike::keys::{IkeKeys, Inputs, Side};
use crate::ike::message::{Exchange, Header, IdBody, NotifyKind, Payload, emit};
use crate::ike::nat::{self, Path};
use crate::ike::output::Event;
use crate::ike::proposal::Additional;
use crate::ike::redirect;
use crate::ike::resume;
use crate::ike::turn::Turn;
use hitless_sa::{IkeSpi, MessageId};

/// A peer that knows no IKE_SESSION_RESUME says nothing: after so many it is asked in full.
const TRIES: u32 = 2;

impl Initiator {
    pub(super) fn send_resume(&mut self, turn: &mut Turn<'_>, ticket: &[u8]) {
        let header = Header {
            initiator_spi: self.spi,
            responder_spi: IkeSpi(0),
            exchange: Exchange::IkeSessionResume,
            initiator: true,
            response: false,
            message_id: MessageId(0),
        };
        let mut payloads = Vec::new();
        if let Some(cookie) = &self.cookie {
            payloads.push(Payload::notify(NotifyKind::COOKIE, cookie));
        }
        payloads.push(Payload::Nonce(self.nonce.clone()));
        payloads.push(Payload::notify(NotifyKind::TICKET_OPAQUE, ticket));
        let fake = turn.fake_source(self.connection.encap);
        payloads.extend(nat::notifications(self.spi, IkeSpi(0), self.path, fake));
        payloads.extend(extensions(std::iter::once(&*self.connection)));
        // RFC 5685 section 3, of the exchange whose place this one takes.
        payloads.extend(redirect::announcement(&self.connection, None));
        self.init = emit(&header, &payloads);
        let bytes = self.init.clone();
        self.send(turn, bytes);
    }

    /// Whether the full exchange has to be tried now.
    pub(super) fn resumes_in_vain(&self) -> bool {
        self.resuming.is_some() && self.auth.is_none() && self.sent > TRIES
    }

    /// The full exchange after all, without the ticket, which is for one use (section 4.3.1). It is
    /// another attempt, with an SPI of its own (RFC 7296 section 2.6): a gateway that has taken the
    /// ticket, and whose answer was lost, still has the half-open IKE SA of the other one.
    pub(super) fn begin_in_full(&mut self, turn: &mut Turn<'_>) {
        self.resuming = None;
        self.cookie = None;
        self.restarts = 0;
        self.spi = turn.ids.ike_spi(turn.entropy);
        self.nonce = turn.nonce();
        self.send_init(turn);
    }

    /// An IKE_SESSION_RESUME response. It is not authenticated, but only the peer can go on with
    /// keys from what the ticket holds; a refusal costs us no more than the full exchange.
    pub fn resume_response(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        header: &Header,
        payloads: &[Payload],
        datagram: &[u8],
    ) {
        let due = header.response && header.message_id == MessageId(0);
        if !due || self.auth.is_some() || self.resuming.is_none() {
            return turn.drop(path.remote, "unexpected IKE_SESSION_RESUME");
        }
        let contents = Contents::of(payloads);
        if contents.has(NotifyKind::TICKET_NACK) {
            return self.begin_in_full(turn);
        }
        if contents.has(NotifyKind::REDIRECT) {
            return self.redirect(turn, &contents);
        }
        if contents.nonce.is_some() {
            return match self.agree_to_resume(turn, path, header, &contents, datagram) {
                Ok(()) => {}
                Err(reason) => turn.events.push(Event::NegotiationFailed {
                    peer: path.remote,
                    reason: reason.to_owned(),
                }),
            };
        }
        if let Some(cookie) = contents.valid_cookie() {
            self.cookie = Some(cookie.to_vec());
            return self.restart(turn);
        }
        turn.drop(path.remote, "IKE_SESSION_RESUME response without content");
    }

    fn agree_to_resume(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        header: &Header,
        contents: &Contents<'_>,
        datagram: &[u8],
    ) -> Result<(), &'static str> {
        let held = self.resuming.as_ref().ok_or("no ticket")?;
        let nonce = contents.valid_nonce().ok_or("no nonce")?;
        let remote_spi = header.responder_spi;
        if remote_spi == IkeSpi(0) {
            return Err("no responder SPI");
        }
        let inputs = Inputs {
            initiator_nonce: &self.nonce,
            responder_nonce: nonce,
            initiator_spi: self.spi,
            responder_spi: remote_spi,
        };
        let keys = IkeKeys::resume(&held.proposal, &inputs, &held.sk_d);
        let proposal = held.proposal;
        let agreed = (proposal, keys, Additional::NONE);
        let stage = self.stage(turn, path, header, contents, (agreed, datagram))?;
        self.authenticate(turn, stage);
        Ok(())
    }

    /// Our proof with the keys of a resumed IKE SA.
    pub(super) fn prove_resumed(&self, keys: &IkeKeys) -> Option<Proof> {
        let prove = || resume::prove(keys, Side::Initiator, &self.init);
        self.resuming.is_some().then(prove)
    }

    /// The peer's, which has to be the one that gave the ticket.
    pub(super) fn verify_resumed(
        &self,
        keys: &IkeKeys,
        init_response: &[u8],
        id: &IdBody,
        auth: (u8, &[u8]),
    ) -> Option<Result<Authenticated, String>> {
        let held = self.resuming.as_ref()?;
        Some(if id.id != held.remote_id {
            Err(format!("the peer is {}, the ticket another's", id.id))
        } else if !resume::proof(keys, Side::Responder, init_response, auth) {
            Err(format!("wrong keys of {} in a resumed IKE SA", id.id))
        } else {
            Ok(Authenticated {
                proven: held.proven.clone(),
                ppk: held.ppk,
                replaces: self.replaces,
                ..Authenticated::default()
            })
        })
    }
}
