//! A peer that logs in with EAP (RFC 7296 section 2.16): we sign first, then it shows that it knows
//! its password, and both ends show that they have the key that came out of that.

use std::sync::Arc;

use super::{Admitted, Responder};
use crate::ike::auth::{self, Authenticated, Claimed, EapUsers, LocalAuth, RemoteAuth};
use crate::ike::contents::Contents;
use crate::ike::eap::{self, Accounts, Answer, Login, Server};
use crate::ike::initial::{Progress, local_identity};
use crate::ike::keys::Side;
use crate::ike::message::{Exchange, IdBody, NotifyKind, Payload, PayloadKind, emit_payloads};
use crate::ike::nat::Path;
use crate::ike::output::Event;
use crate::ike::proposal::Identification;
use crate::ike::settings::Connection;
use crate::ike::turn::Turn;

/// Octets of the first request that are kept until the login is over.
const LONGEST_REQUEST: usize = 8 << 10;

/// A login under way.
pub(super) struct LoggingIn {
    server: Server,
    /// It succeeded.
    proven: Option<Login>,
    /// What we called ourselves, and signed.
    local: IdBody,
    peer: IdBody,
    /// The first IKE_AUTH request, which says what the IKE SA is for.
    request: Vec<Payload>,
}

/// A login that fails: what EAP says of it, and why, if that has not been told.
struct Refusal {
    packet: Option<Vec<u8>>,
    reason: Option<String>,
}

impl From<String> for Refusal {
    fn from(reason: String) -> Refusal {
        Refusal {
            packet: None,
            reason: Some(reason),
        }
    }
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Refusal {
        Refusal::from(reason.to_owned())
    }
}

fn users(connection: &Connection) -> Option<&EapUsers> {
    match &connection.auth.remote {
        RemoteAuth::Eap(users) => Some(users),
        RemoteAuth::Psk | RemoteAuth::Pubkey(_) => None,
    }
}

/// The connection that a user means, of those that speak for what we called ourselves: one that
/// names the user before one that takes anybody.
fn meant<'c>(
    (local, peer): (&IdBody, &IdBody),
    candidates: &[&'c Arc<Connection>],
    path: Path,
    user: &Identification,
) -> Option<&'c Arc<Connection>> {
    let fits = |c: &&&'c Arc<Connection>| {
        users(c).is_some_and(|users| users.include(user, &peer.id))
            && local_identity(c, path) == local.id
    };
    let anybody = |c: &&&'c Arc<Connection>| users(c).is_some_and(EapUsers::is_anybody);
    let fitting = candidates.iter().filter(fits);
    fitting.min_by_key(anybody).copied()
}

/// How far a login has come, as far as its source pays for that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::ike) enum LoginStands {
    Nowhere,
    Begun,
    Refused,
}

impl Responder {
    /// Where the login stands; it stays refused.
    pub fn login_stands(&self) -> LoginStands {
        match self.rounds {
            0 => LoginStands::Nowhere,
            _ if self.refused || self.guessed => LoginStands::Refused,
            _ => LoginStands::Begun,
        }
    }

    /// An IKE_AUTH request without AUTH, or one of a login that has begun.
    pub(super) fn login(
        &mut self,
        turn: &mut Turn<'_>,
        connections: &[Arc<Connection>],
        path: Path,
        request: &[u8],
        contents: &Contents<'_>,
    ) -> Progress {
        let result = match self.login.take() {
            // It asks again, and may be able to pay then.
            None if !self.may_log_in => {
                turn.drop(path.remote, "login above init_rate_ip");
                return Progress::Waiting;
            }
            None => self.begin_login(turn, connections, path, request, contents),
            Some(login) => match &login.proven {
                None => self.go_on(turn, connections, path, request, (login, contents)),
                Some(proven) => {
                    let ended = (&*login, proven);
                    match self.conclude_login(turn, connections, path, ended, contents) {
                        Ok(admitted) => {
                            // What the login itself said besides counts too.
                            let mut whole = Contents::of(&login.request);
                            whole.notifies.extend(contents.notifies.iter().copied());
                            return self.admitted(turn, path, request, &whole, admitted);
                        }
                        Err(reason) => Err(Refusal::from(reason)),
                    }
                }
            },
        };
        if let Err(Refusal { packet, reason }) = result {
            let peer = path.remote;
            let event = |reason| Event::AuthenticationFailed { peer, reason };
            turn.events.extend(reason.map(event));
            let mut refusal = Vec::from_iter(packet.map(eap::payload));
            refusal.push(Payload::notify(NotifyKind::AUTHENTICATION_FAILED, &[]));
            self.refuse(turn, path, request, &refusal);
        }
        Progress::Waiting
    }

    /// Proves who we are, and begins to ask.
    fn begin_login(
        &mut self,
        turn: &mut Turn<'_>,
        connections: &[Arc<Connection>],
        path: Path,
        request: &[u8],
        contents: &Contents<'_>,
    ) -> Result<(), Refusal> {
        let id = contents.initiator_id;
        let id = id.ok_or("request without identity")?;
        let wanted = contents.responder_id.map(|id| &id.id);
        let candidates = self.meant(connections, path, &id.id, wanted);
        let mut candidates = candidates.into_iter();
        let found = candidates.find_map(|connection| Some((connection, users(connection)?)));
        let (connection, users) =
            found.ok_or_else(|| format!("no connection for {} without AUTH", id.id))?;
        if !matches!(connection.auth.local, LocalAuth::Pubkey(_)) {
            return Err("EAP without a certificate of ours".into());
        }
        let kept = contents.payloads.iter();
        let kept = kept.filter(|p| !matches!(p, Payload::Unknown { .. } | Payload::VendorId(_)));
        let kept: Vec<Payload> = kept.cloned().collect();
        if emit_payloads(&kept).len() > LONGEST_REQUEST {
            return Err("request that is too long to be kept".into());
        }
        let local = IdBody::new(local_identity(connection, path));
        self.fragmenting = self.fragmenting.on(connection);
        let int_auth = self.intermediate.int_auth();
        let signed = self.signed(&self.keys, Side::Responder, &local, &int_auth);
        let secrets = &turn.settings.secrets;
        let proof = auth::prove(secrets, connection, &local.id, &id.id, &self.wishes, signed);
        let proof = proof?;
        let identity = match users {
            EapUsers::Asked(_) => None,
            EapUsers::ByIkeIdentity => Some(id.id.name()),
        };
        let (server, packet) = Server::begin(turn.entropy, identity);
        let auth = proof.auth();
        let mut payloads = vec![Payload::IdResponder(local.clone())];
        payloads.extend(proof.certificates);
        payloads.extend([auth, eap::payload(packet)]);
        let login = LoggingIn {
            server,
            proven: None,
            local,
            peer: id.clone(),
            request: kept,
        };
        self.answer_round(turn, path, request, &payloads, login);
        Ok(())
    }

    /// Answers, and waits for the next request.
    fn answer_round(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        request: &[u8],
        payloads: &[Payload],
        login: LoggingIn,
    ) {
        self.login = Some(Box::new(login));
        if let Some(bytes) = self.seal(turn, Exchange::IkeAuth, payloads) {
            self.remember(turn, path, request.to_vec(), bytes);
            self.rounds += 1;
        }
    }

    fn go_on(
        &mut self,
        turn: &mut Turn<'_>,
        connections: &[Arc<Connection>],
        path: Path,
        request: &[u8],
        (mut login, contents): (Box<LoggingIn>, &Contents<'_>),
    ) -> Result<(), Refusal> {
        let packet = contents.of_kind(PayloadKind::EAP).next();
        let packet = packet.ok_or("login that stops")?;
        let candidates = self.meant(connections, path, &login.peer.id, None);
        let ends = (&login.local, &login.peer);
        let accounts = Accounts {
            secrets: &turn.settings.secrets,
            welcome: &|user| meant(ends, &candidates, path, user).is_some(),
        };
        let packet = match login.server.receive(turn.entropy, accounts, packet) {
            Answer::Request(packet) => packet,
            Answer::Refusal(packet, reason) => {
                // Whoever guesses does not stay to acknowledge it.
                self.guessed = true;
                let peer = path.remote;
                turn.events
                    .push(Event::AuthenticationFailed { peer, reason });
                packet
            }
            Answer::Success(packet, proven) => {
                login.proven = Some(proven);
                packet
            }
            Answer::Failure(packet, reason) => {
                return Err(Refusal {
                    packet: Some(packet),
                    reason,
                });
            }
        };
        self.answer_round(turn, path, request, &[eap::payload(packet)], *login);
        Ok(())
    }

    /// AUTH with the key of the login, from both.
    fn conclude_login(
        &self,
        turn: &Turn<'_>,
        connections: &[Arc<Connection>],
        path: Path,
        (login, proven): (&LoggingIn, &Login),
        contents: &Contents<'_>,
    ) -> Result<Admitted, String> {
        let auth = contents.auth.ok_or("login without AUTH at its end")?;
        // All of it may have changed since it began.
        let candidates = self.meant(connections, path, &login.peer.id, None);
        let connection = meant((&login.local, &login.peer), &candidates, path, &proven.user);
        let connection = connection.ok_or_else(|| format!("no connection for {}", proven.user))?;
        let secret = proven.still_counts(&turn.settings.secrets);
        let secret = secret.ok_or_else(|| format!("another password of {}", proven.user))?;
        let int_auth = self.intermediate.int_auth();
        let local = &login.local;
        let claimed = Claimed {
            user: &proven.user,
            secret,
            msk: &proven.msk,
        };
        let proven = auth::check_user(
            turn.settings,
            connection,
            &local.id,
            turn.settings.time_of_day.at(turn.now),
            claimed,
            auth,
            self.signed(&self.keys, Side::Initiator, &login.peer, &int_auth),
        )?;
        let signed = self.signed(&self.keys, Side::Responder, local, &int_auth);
        let authenticated = Authenticated {
            proven,
            ..Authenticated::default()
        };
        Ok(Admitted {
            connection: connection.clone(),
            local_id: local.id.clone(),
            payloads: vec![auth::prove_user(claimed.msk, signed)],
            authenticated: authenticated.after_answering(turn, connection),
            keys: self.keys.clone(),
        })
    }
}
