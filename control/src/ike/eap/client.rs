//! The client's side: answers for a user, once the gateway has signed.

use hitless_sa::Entropy;

use super::packet::{
    self, Challenge, IDENTITY, MSCHAPV2, NAK, NOTIFICATION, OP_FAILURE, OP_SUCCESS, Packet,
    Response, Typed,
};
use super::{Msk, account, mschapv2};
use crate::ike::crypto::prf::equal;
use crate::ike::proposal::Identification;
use crate::ike::settings::Secret;

/// EAP requests of one login that are answered.
const MOST_REQUESTS: u8 = 10;

/// What to do next.
pub(in crate::ike) enum Reply {
    Response(Vec<u8>),
    /// Both know the password: AUTH is next.
    Done(Msk),
}

/// One login.
pub(in crate::ike) struct Client {
    user: Identification,
    stage: Stage,
    requests: u8,
}

enum Stage {
    Begun,
    /// The gateway has our answer, and owes its own.
    Answered {
        proof: [u8; 20],
        msk: Msk,
    },
    /// It gave it.
    Proven(Msk),
}

impl Client {
    pub fn new(user: Identification) -> Client {
        Client {
            user,
            stage: Stage::Begun,
            requests: 0,
        }
    }

    /// Takes a packet of the gateway's. With an error it is over.
    pub fn receive(
        &mut self,
        entropy: &mut dyn Entropy,
        secrets: &[Secret],
        octets: &[u8],
    ) -> Result<Reply, String> {
        match Packet::read(octets)? {
            Packet::Request(request) => {
                self.requests += 1;
                if self.requests > MOST_REQUESTS {
                    return Err("too many EAP requests".to_owned());
                }
                self.answer(entropy, secrets, request).map(Reply::Response)
            }
            Packet::Success(_) => match std::mem::replace(&mut self.stage, Stage::Begun) {
                Stage::Proven(msk) => Ok(Reply::Done(msk)),
                _ => Err("EAP success without the gateway's proof".to_owned()),
            },
            Packet::Failure(_) => Err(format!("EAP failure for {}", self.user)),
            Packet::Response(_) => Err("EAP response where a request belongs".to_owned()),
        }
    }

    fn answer(
        &mut self,
        entropy: &mut dyn Entropy,
        secrets: &[Secret],
        request: Typed<'_>,
    ) -> Result<Vec<u8>, String> {
        let name = self.user.to_string();
        let reply = |kind, data: &[u8]| packet::response(request.identifier, kind, data);
        match (request.kind, request.data.first()) {
            (IDENTITY, _) => Ok(reply(IDENTITY, name.as_bytes())),
            // RFC 3748 section 5.2: answered, whatever it says.
            (NOTIFICATION, _) => Ok(reply(NOTIFICATION, &[])),
            (MSCHAPV2, Some(&OP_SUCCESS)) => {
                let theirs = packet::read_success(request.data)?;
                match std::mem::replace(&mut self.stage, Stage::Begun) {
                    Stage::Answered { proof, msk } if equal(&proof, &theirs) => {
                        self.stage = Stage::Proven(msk);
                        Ok(reply(MSCHAPV2, &[OP_SUCCESS]))
                    }
                    _ => Err("the gateway does not know the password".to_owned()),
                }
            }
            (MSCHAPV2, Some(&OP_FAILURE)) => {
                self.stage = Stage::Begun;
                let error = packet::read_failure(request.data)?;
                tracing::debug!(error, "EAP-MSCHAPv2 failure");
                Ok(reply(MSCHAPV2, &[OP_FAILURE]))
            }
            (MSCHAPV2, _) => {
                let challenge = Challenge::read(request.data)?;
                let response = self.respond(entropy, secrets, challenge, name.as_bytes())?;
                Ok(reply(MSCHAPV2, &response))
            }
            // RFC 3748 section 5.3.1: the method that we would take.
            _ => Ok(reply(NAK, &[MSCHAPV2])),
        }
    }

    fn respond(
        &mut self,
        entropy: &mut dyn Entropy,
        secrets: &[Secret],
        asked: Challenge<'_>,
        name: &[u8],
    ) -> Result<Vec<u8>, String> {
        let secret = account(secrets, &self.user);
        let (_, secret) = secret.ok_or_else(|| format!("no secret for {}", self.user))?;
        let password = std::str::from_utf8(secret);
        let password = password.map_err(|_| format!("the password of {} is no text", self.user))?;
        let mut peer_challenge = [0; packet::CHALLENGE];
        entropy.fill(&mut peer_challenge);
        let password = mschapv2::password_hash(password);
        let hash_hash = mschapv2::hash(&*password);
        let hashed = mschapv2::challenge_hash(&peer_challenge, &asked.challenge, name);
        let nt_response = mschapv2::nt_response(&password, &hashed);
        self.stage = Stage::Answered {
            proof: mschapv2::authenticator_response(&hash_hash, &nt_response, &hashed),
            msk: mschapv2::msk(&hash_hash, &nt_response),
        };
        let response = Response {
            id: asked.id,
            peer_challenge,
            nt_response,
            name,
        };
        Ok(response.write())
    }
}
