//! We log in with EAP (RFC 7296 section 2.16): the gateway signs first, then we answer what it asks,
//! then both ends show that they have the key that came out of that.

use super::{AuthStage, Initiator};
use crate::ike::auth::{self, Authenticated, LocalAuth, RemoteAuth};
use crate::ike::contents::Contents;
use crate::ike::counter_sync;
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
    /// What it has said that it can of RFC 6311, in any of its answers (H6).
    asserted: (bool, bool),
}

impl LoggingIn {
    /// One more answer: what it asserts counts for the IKE SA.
    fn heard(&mut self, (message_ids, replay_counters): (bool, bool)) {
        self.asserted.0 |= message_ids;
        self.asserted.1 |= replay_counters;
    }

    pub fn asserted(&self) -> (bool, bool) {
        self.asserted
    }

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
                    asserted: (false, false),
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
        (mut stage, mut login): (AuthStage, Box<LoggingIn>),
        contents: &Contents<'_>,
    ) -> Progress {
        login.heard(counter_sync::negotiated(&self.connection, contents));
        let next = self.next(turn, &mut stage, &mut login, contents);
        stage.login = Some(login);
        let reason = match next {
            Ok(Next::Send(payload)) => {
                stage.rounds += 1;
                let header = self.header(&stage, Exchange::IkeAuth, stage.message_id());
                let limit = stage.fragmenting.limit(self.path);
                match seal(&stage.keys, turn, &header, &[payload], limit) {
                    Some(bytes) => {
                        self.auth = Some(stage);
                        self.send(turn, bytes);
                    }
                    None => self.abandon(turn, stage),
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
        self.abandon(turn, stage);
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
            let theirs = contents.auth;
            let theirs = theirs.ok_or_else(|| contents.refusal("response without AUTH"))?;
            let int_auth = stage.intermediate.int_auth();
            let signed = self.signed(stage, &stage.keys, Side::Responder, gateway, &int_auth);
            return match auth::shows_key(msk, theirs, signed) {
                true => Ok(Next::Established(authenticated.clone())),
                false => Err(format!("wrong AUTH of {} after the login", gateway.id)),
            };
        }
        if login.gateway.is_none() {
            // RFC 7296 section 2.16: the responder is authenticated with a public key, and first.
            let authenticated = self.verify(turn, stage, contents)?;
            let id = contents.responder_id.ok_or("no identity")?;
            login.gateway = Some((id.clone(), authenticated));
        }
        let packet = contents.of_kind(PayloadKind::EAP).next();
        let packet =
            packet.ok_or_else(|| contents.refusal("the gateway does not go on with EAP"))?;
        let reply = login
            .client
            .receive(turn.entropy, &turn.settings.secrets, packet)?;
        Ok(Next::Send(match reply {
            Reply::Response(packet) => eap::payload(packet),
            Reply::Done(msk) => {
                let own = IdBody::new(local_identity(&self.connection, self.path));
                let int_auth = stage.intermediate.int_auth();
                let signed = self.signed(stage, &stage.keys, Side::Initiator, &own, &int_auth);
                let auth = auth::prove_user(&msk, signed);
                login.msk = Some(msk);
                auth
            }
        }))
    }
}

/// What follows a response.
enum Next {
    Send(Payload),
    Established(Authenticated),
}

#[cfg(test)]
mod tests;
