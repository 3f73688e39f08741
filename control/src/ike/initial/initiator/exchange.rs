//! Protected messages of an initiator: IKE_INTERMEDIATE, and the way to IKE_AUTH's response.

use super::{AuthStage, Initiator};
use crate::ike::auth::SignedOctets;
use crate::ike::contents::Contents;
use crate::ike::create::key_exchange;
use crate::ike::established::seal;
use crate::ike::fragments::{self, PATIENT_TRANSMISSIONS};
use crate::ike::initial::Progress;
use crate::ike::keys::{IkeKeys, Inputs, Side};
use crate::ike::message::{
    Exchange, FragmentPlace, Header, IdBody, PayloadKind, emit_payloads, parse_payloads,
};
use crate::ike::nat::Path;
use crate::ike::output::Event;
use crate::ike::turn::Turn;

impl Initiator {
    /// Divides a request that stays unanswered into smaller fragments (RFC 7383 section 2.5.2).
    pub(super) fn divide(&mut self, turn: &mut Turn<'_>) {
        let Some(stage) = self
            .auth
            .as_mut()
            .filter(|_| self.sent > PATIENT_TRANSMISSIONS)
        else {
            return;
        };
        if let Some(smaller) = stage.fragmenting.lowered(self.path) {
            let limit = smaller.limit(self.path);
            if let Some(flight) = fragments::divide(&stage.keys, turn, &self.request, limit) {
                self.request = flight;
            }
            stage.fragmenting = smaller;
        }
    }

    /// The next exchange: IKE_INTERMEDIATE for each additional key exchange, then IKE_AUTH.
    pub(super) fn proceed(&mut self, turn: &mut Turn<'_>, mut stage: AuthStage) {
        let Some(method) = stage.intermediate.due() else {
            return self.authenticate(turn, stage);
        };
        let Some(key) = turn.key_pair(method) else {
            return self.abandon(turn, stage);
        };
        let payloads = [key_exchange(&key)];
        let message_id = stage.message_id();
        let header = self.header(&stage, Exchange::IkeIntermediate, message_id);
        let limit = stage.fragmenting.limit(self.path);
        let Some(bytes) = seal(&stage.keys, turn, &header, &payloads, limit) else {
            return self.abandon(turn, stage);
        };
        let content = emit_payloads(&payloads);
        stage
            .intermediate
            .absorb(&stage.keys, &header, (PayloadKind::KE, &content));
        stage.intermediate.key = Some(key);
        self.auth = Some(stage);
        self.send(turn, bytes);
    }

    /// A protected response of the initial exchanges, or a part of one.
    pub fn protected_response(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        header: &Header,
        message: (Option<FragmentPlace>, &[u8]),
    ) -> Progress {
        let Some(mut stage) = self.auth.take_if(|stage| {
            let exchange = match stage.intermediate.key {
                Some(_) => Exchange::IkeIntermediate,
                None => Exchange::IkeAuth,
            };
            let fits = header.response && !header.initiator && header.exchange == exchange;
            fits && header.message_id == stage.message_id()
                && stage.remote_spi == header.responder_spi
        }) else {
            turn.drop(path.remote, "unexpected response");
            return Progress::Waiting;
        };
        let arrived = match message.0 {
            Some(_) if !stage.fragmenting.negotiated => Err("fragments were not negotiated"),
            _ => fragments::arrive(&mut self.reassembly, &stage.keys, turn.now, header, message),
        };
        let whole = match arrived {
            Ok(Some(whole)) => whole,
            Ok(None) => {
                self.auth = Some(stage);
                return Progress::Waiting;
            }
            Err(reason) => {
                self.auth = Some(stage);
                turn.drop(path.remote, reason);
                return Progress::Waiting;
            }
        };
        let payloads = match parse_payloads(whole.first, &whole.content) {
            Ok(payloads) => payloads,
            Err(error) => {
                self.auth = Some(stage);
                turn.drop(path.remote, error.reason());
                return Progress::Waiting;
            }
        };
        let contents = Contents::of(&payloads);
        if stage.intermediate.key.is_none() {
            return self.auth_response(turn, path, stage, &contents);
        }
        let message = (whole.first, whole.content.as_slice());
        stage.intermediate.absorb(&stage.keys, header, message);
        match self.mix(&mut stage, &contents, turn.settings.key_log) {
            Ok(()) => {
                self.proceed(turn, stage);
                Progress::Waiting
            }
            Err(reason) => {
                self.abandon(turn, stage);
                turn.events.push(Event::NegotiationFailed {
                    peer: path.remote,
                    reason,
                });
                self.refused(turn)
            }
        }
    }

    /// What one end signs.
    pub(super) fn signed<'a>(
        &'a self,
        stage: &'a AuthStage,
        keys: &'a IkeKeys,
        side: Side,
        id: &'a IdBody,
        int_auth: &'a [u8],
    ) -> SignedOctets<'a> {
        let (message, nonce) = match side {
            Side::Initiator => (&self.init, &stage.peer_nonce),
            Side::Responder => (&stage.init_response, &self.nonce),
        };
        SignedOctets {
            prf: stage.proposal.prf,
            message,
            nonce,
            sk_p: keys.sk_p(side),
            id: &id.raw,
            intermediate: int_auth,
        }
    }

    /// New keys from an additional key exchange (RFC 9370 section 2.2.2).
    fn mix(&self, stage: &mut AuthStage, contents: &Contents<'_>, log: bool) -> Result<(), String> {
        let key = stage.intermediate.key.as_ref();
        let (Some(key), Some((method, public))) = (key, contents.key_exchange) else {
            return Err(contents.refusal("IKE_INTERMEDIATE without KE"));
        };
        if method != key.method().number() {
            return Err("IKE_INTERMEDIATE with another key exchange method".to_owned());
        }
        let shared = key.agree(public).map_err(|error| error.to_string())?;
        let inputs = Inputs {
            initiator_nonce: &self.nonce,
            responder_nonce: &stage.peer_nonce,
            initiator_spi: self.spi,
            responder_spi: stage.remote_spi,
        };
        stage.intermediate.advance(log, &stage.keys, &inputs);
        stage.keys = stage.keys.follow(&inputs, &shared);
        Ok(())
    }
}
