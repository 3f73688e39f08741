//! Protected messages of a half-open responder: IKE_INTERMEDIATE, and the way to IKE_AUTH.

use std::sync::Arc;

use super::Responder;
use crate::ike::asked::Asked;
use crate::ike::contents::Contents;
use crate::ike::create::exchange_keys;
use crate::ike::fragments::{self, Whole};
use crate::ike::initial::Progress;
use crate::ike::keys::Inputs;
use crate::ike::message::{
    Exchange, FragmentPlace, Header, MessageError, Payload, PayloadKind, emit_payloads,
    parse_payloads,
};
use crate::ike::nat::Path;
use crate::ike::output::Event;
use crate::ike::proposal::KeyExchangeMethod;
use crate::ike::receive::refusal;
use crate::ike::settings::Connection;
use crate::ike::turn::Turn;

impl Responder {
    /// A protected request of the initial exchanges, or a part of one.
    pub fn protected_request(
        &mut self,
        turn: &mut Turn<'_>,
        connections: &[Arc<Connection>],
        path: Path,
        header: &Header,
        message: (Option<FragmentPlace>, &[u8]),
    ) -> Progress {
        let remote = path.remote.ip();
        let elsewhere = remote != self.path.remote.ip() && remote != self.seen;
        if let Some((request, answer)) = &self.answered
            && request == message.1
        {
            // What we say in IKE_AUTH is long, and a copy of a request can come from anywhere.
            if elsewhere {
                turn.drop(path.remote, "half-open IKE SA of another address");
            } else {
                turn.immediate.push(path.transmit(answer.clone()));
            }
            return Progress::Waiting;
        }
        // Behind a NAT another port may be mapped to another address (RFC 7296 sections 2.11 and 2.23).
        // Where no connection lets the peer be, a copy must not bring it a refusal.
        if elsewhere && !connections.iter().any(|c| self.may_mean_from(path, c)) {
            turn.drop(path.remote, "half-open IKE SA of another address");
            return Progress::Waiting;
        }
        let exchange = match self.intermediate.due() {
            Some(_) => Exchange::IkeIntermediate,
            None => Exchange::IkeAuth,
        };
        let fits = !header.response && header.initiator && header.message_id == self.message_id();
        if !fits || header.exchange != exchange || self.refused {
            turn.drop(path.remote, "unexpected message for a half-open IKE SA");
            return Progress::Waiting;
        }
        let arrived = match message.0 {
            Some(_) if !self.fragmenting.negotiated => Err("fragments were not negotiated"),
            _ => fragments::arrive(&mut self.reassembly, &self.keys, turn.now, header, message),
        };
        let whole = match arrived {
            Ok(Some(whole)) => whole,
            Ok(None) => return Progress::Waiting,
            Err(reason) => {
                turn.drop(path.remote, reason);
                return Progress::Waiting;
            }
        };
        self.seen = remote;
        let payloads = match parse_payloads(whole.first, &whole.content) {
            Ok(payloads) => payloads,
            Err(error) => return self.refuse_sealed(turn, path, exchange, whole, &error),
        };
        let contents = Contents::of(&payloads);
        match self.intermediate.due() {
            Some(method) => self.mix(turn, path, header, whole, &contents, method),
            None => {
                let parts = message.0.map_or(1, |place| place.total);
                let asked = Asked::new(&whole.head, parts, &whole.content);
                let mut progress =
                    self.auth_request(turn, connections, path, &whole.head, &contents);
                if let Progress::Established(ike) = &mut progress {
                    ike.window.recognise(asked);
                }
                progress
            }
        }
    }

    /// What is inside is authentic and cannot be read (RFC 7296 sections 2.5 and 2.21.2).
    fn refuse_sealed(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        exchange: Exchange,
        whole: Whole,
        error: &MessageError,
    ) -> Progress {
        turn.drop(path.remote, error.reason());
        if let Some(notify) = refusal(error)
            && let Some(bytes) = self.seal(turn, exchange, &[Payload::Notify(notify)])
        {
            self.remember(turn, path, whole.head, bytes);
            self.refused = true;
        }
        Progress::Waiting
    }

    /// An IKE_INTERMEDIATE request with an additional key exchange (RFC 9370 section 2.2.2).
    fn mix(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        request: &Header,
        whole: Whole,
        contents: &Contents<'_>,
        method: KeyExchangeMethod,
    ) -> Progress {
        let (payload, shared) = match exchange_keys(turn, contents, method) {
            Ok(exchanged) => exchanged,
            Err(refusal) => {
                turn.events.push(Event::NegotiationFailed {
                    peer: path.remote,
                    reason: "IKE_INTERMEDIATE request refused".to_owned(),
                });
                // RFC 9242 section 3.1: "the IKE SA is not established"; the peer starts again.
                if let Some(bytes) = self.seal(turn, request.exchange, &[refusal]) {
                    turn.immediate.push(path.transmit(bytes));
                }
                return Progress::Failed;
            }
        };
        let message = (whole.first, whole.content.as_slice());
        self.intermediate.absorb(&self.keys, request, message);
        let payloads = [payload];
        let Some(bytes) = self.seal(turn, request.exchange, &payloads) else {
            return Progress::Failed;
        };
        let content = emit_payloads(&payloads);
        let header = self.header(request.exchange);
        self.intermediate
            .absorb(&self.keys, &header, (PayloadKind::KE, &content));
        let inputs = Inputs {
            initiator_nonce: &self.nonces.initiator,
            responder_nonce: &self.nonces.responder,
            initiator_spi: self.remote_spi,
            responder_spi: self.spi,
        };
        let log = turn.settings.key_log;
        self.intermediate.advance(log, &self.keys, &inputs);
        self.keys = self.keys.follow(&inputs, &shared);
        self.remember(turn, path, whole.head, bytes);
        Progress::Waiting
    }
}
