//! We log in with EAP (RFC 7296 section 2.16): the gateway signs first, then we answer what it asks,
//! then both ends show that they have the key that came out of that.

use super::{AuthStage, Initiator};
use crate::ike::auth::{self, Authenticated, LocalAuth, RemoteAuth, SignedOctets};
use crate::ike::contents::Contents;
use crate::ike::crypto::prf::equal;
use crate::ike::eap::{self, Client, Msk, Reply};
use crate::ike::established::seal;
use crate::ike::initial::{Progress, local_identity};
use crate::ike::keys::Side;
use crate::ike::message::{Exchange, IdBody, Payload, PayloadKind};
use crate::ike::nat::Path;
use crate::ike::output::Event;
use crate::ike::turn::Turn;

/// A login under way.
pub(super) struct LoggingIn {
    client: Client,
    /// The gateway, once it has proved who it is.
    gateway: Option<(IdBody, Authenticated)>,
    /// The key of the login, once it has succeeded.
    msk: Option<Msk>,
}

impl LoggingIn {
    pub fn gateway(&self) -> Option<&IdBody> {
        self.gateway.as_ref().map(|(id, _)| id)
    }
}

impl Initiator {
    /// A login, if that is how we prove who we are, and a ticket does not do it.
    pub(super) fn log_in(&self) -> Option<LoggingIn> {
        let auth = &self.connection.auth;
        match (&auth.local, &auth.remote) {
            (LocalAuth::Eap(user), RemoteAuth::Pubkey(_)) if self.resuming.is_none() => {
                Some(LoggingIn {
                    client: Client::new(user.clone()),
                    gateway: None,
                    msk: None,
                })
            }
            _ => None,
        }
    }

    /// An IKE_AUTH response during the login.
    pub(super) fn login_response(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        mut stage: AuthStage,
        contents: &Contents<'_>,
    ) -> Progress {
        let Some(mut login) = stage.login.take() else {
            return Progress::Failed;
        };
        let next = self.next(turn, &mut stage, &mut login, contents);
        stage.login = Some(login);
        let reason = match next {
            Ok(Next::Send(payload)) => {
                stage.rounds += 1;
                let header = self.header(&stage, Exchange::IkeAuth, stage.message_id());
                let limit = stage.fragmenting.limit(self.path);
                if let Some(bytes) = seal(&stage.keys, turn, &header, &[payload], limit) {
                    self.auth = Some(stage);
                    self.send(turn, bytes);
                }
                return Progress::Waiting;
            }
            Ok(Next::Established(authenticated)) => {
                return self.established(turn, stage, path, contents, authenticated);
            }
            Err(reason) => reason,
        };
        turn.events.push(Event::AuthenticationFailed {
            peer: path.remote,
            reason,
        });
        if contents.error().is_none() {
            self.withdraw(turn, &stage);
        }
        Progress::Failed
    }

    fn next(
        &self,
        turn: &mut Turn<'_>,
        stage: &mut AuthStage,
        login: &mut LoggingIn,
        contents: &Contents<'_>,
    ) -> Result<Next, String> {
        if let (Some((gateway, authenticated)), Some(msk)) = (&login.gateway, &login.msk) {
            let refusal = contents.error().map(|n| n.kind.to_string());
            let refusal = refusal.unwrap_or_else(|| "response without AUTH".to_owned());
            let theirs = contents.auth.ok_or(refusal)?;
            return match self.auth_of(stage, Side::Responder, gateway, msk) {
                Payload::Auth { method, data } if method == theirs.0 && equal(&data, theirs.1) => {
                    Ok(Next::Established(authenticated.clone()))
                }
                _ => Err(format!("wrong AUTH of {} after the login", gateway.id)),
            };
        }
        if login.gateway.is_none() {
            // RFC 7296 section 2.16: the responder is authenticated with a public key, and first.
            let authenticated = self.verify(turn, stage, contents)?;
            let id = contents.responder_id.ok_or("no identity")?;
            login.gateway = Some((id.clone(), authenticated));
        }
        let packet = contents.of_kind(PayloadKind::EAP).next().ok_or_else(|| {
            let refusal = contents.error().map(|n| n.kind.to_string());
            refusal.unwrap_or_else(|| "the gateway does not go on with EAP".to_owned())
        })?;
        let reply = login
            .client
            .receive(turn.entropy, &turn.settings.secrets, packet)?;
        Ok(Next::Send(match reply {
            Reply::Response(packet) => eap::payload(packet),
            Reply::Done(msk) => {
                let own = IdBody::new(local_identity(&self.connection, self.path));
                let auth = self.auth_of(stage, Side::Initiator, &own, &msk);
                login.msk = Some(msk);
                auth
            }
        }))
    }

    /// What an end shows with the key of the login.
    fn auth_of(&self, stage: &AuthStage, side: Side, id: &IdBody, msk: &Msk) -> Payload {
        let (message, nonce) = match side {
            Side::Initiator => (&self.init, &stage.peer_nonce),
            Side::Responder => (&stage.init_response, &self.nonce),
        };
        let signed = SignedOctets {
            prf: stage.proposal.prf,
            message,
            nonce,
            sk_p: stage.keys.sk_p(side),
            id: &id.raw,
            intermediate: &stage.intermediate.int_auth(),
        };
        auth::prove_user(msk, signed)
    }
}

/// What follows a response.
enum Next {
    Send(Payload),
    Established(Authenticated),
}

#[cfg(test)]
mod tests;
