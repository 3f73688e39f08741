//! The gateway's side: asks who the client is and whether it knows the password.

use hitless_sa::Entropy;
use zeroize::Zeroizing;

use super::packet::{self, Challenge, IDENTITY, MSCHAPV2, NAK, Packet, Response, Typed};
use super::{Msk, account, mschapv2};
use crate::ike::crypto::prf::equal;
use crate::ike::proposal::Identification;
use crate::ike::settings::Secret;

/// Our name in the challenge, which has to have an octet at least.
const NAME: &[u8] = b"hitless";

/// Who may log in.
#[derive(Clone, Copy)]
pub(in crate::ike) struct Accounts<'a> {
    pub secrets: &'a [Secret],
    /// Whether a connection is meant for that user.
    pub welcome: &'a dyn Fn(&Identification) -> bool,
}

/// Who logged in.
pub(in crate::ike) struct Login {
    /// As the configuration writes it.
    pub user: Identification,
    pub msk: Msk,
    /// Of the password that was proven.
    hash_hash: Zeroizing<[u8; 16]>,
}

impl Login {
    /// The secret, if it is still the same.
    pub fn still_counts<'s>(&self, secrets: &'s [Secret]) -> Option<&'s Zeroizing<Vec<u8>>> {
        let (_, secret) = account(secrets, &self.user)?;
        let password = mschapv2::password_hash(std::str::from_utf8(secret).ok()?);
        let same = equal(&*mschapv2::hash(&*password), &*self.hash_hash);
        same.then_some(secret)
    }
}

/// What to send.
pub(in crate::ike) enum Answer {
    Request(Vec<u8>),
    /// The request that tells of a failure. With the reason, which only we learn, and now: many
    /// clients answer no more.
    Refusal(Vec<u8>, String),
    Success(Vec<u8>, Login),
    /// The end, with the reason unless that was told before.
    Failure(Vec<u8>, Option<String>),
}

/// One login, of one attempt.
pub(in crate::ike) struct Server {
    /// Of the request that is outstanding.
    identifier: u8,
    stage: Stage,
}

enum Stage {
    Identity,
    Challenge {
        challenge: [u8; packet::CHALLENGE],
        /// MS-CHAPv2-ID.
        id: u8,
        /// The EAP identity as it came.
        identity: Vec<u8>,
    },
    /// The client knows the password, and is told that we do.
    Proven(Option<Login>),
    /// It is told that it failed.
    Refused,
}

impl Server {
    /// Begins; without an identity by asking for one.
    pub fn begin(entropy: &mut dyn Entropy, identity: Option<&[u8]>) -> (Server, Vec<u8>) {
        let mut first = [0];
        entropy.fill(&mut first);
        let mut server = Server {
            identifier: first[0],
            stage: Stage::Identity,
        };
        let request = match identity {
            None => packet::request(server.identifier, IDENTITY, &[]),
            Some(identity) => server.challenge(entropy, identity),
        };
        (server, request)
    }

    fn challenge(&mut self, entropy: &mut dyn Entropy, identity: &[u8]) -> Vec<u8> {
        let mut challenge = [0; packet::CHALLENGE];
        entropy.fill(&mut challenge);
        let id = self.identifier;
        self.stage = Stage::Challenge {
            challenge,
            id,
            identity: identity.to_vec(),
        };
        let message = Challenge {
            id,
            challenge,
            name: NAME,
        };
        packet::request(self.identifier, MSCHAPV2, &message.write())
    }

    /// Takes the client's answer to the request that is outstanding.
    pub fn receive(
        &mut self,
        entropy: &mut dyn Entropy,
        accounts: Accounts<'_>,
        octets: &[u8],
    ) -> Answer {
        match self.answer(entropy, accounts, octets) {
            Ok(answer) => answer,
            Err(reason) => Answer::Failure(packet::failure(self.identifier), Some(reason)),
        }
    }

    fn answer(
        &mut self,
        entropy: &mut dyn Entropy,
        accounts: Accounts<'_>,
        octets: &[u8],
    ) -> Result<Answer, String> {
        let Packet::Response(response) = Packet::read(octets)? else {
            return Err("EAP packet that is no response".to_owned());
        };
        // RFC 3748 section 4.1: it "MUST match the Identifier field from the outstanding Request".
        if response.identifier != self.identifier {
            return Err("EAP response to another request".to_owned());
        }
        let stage = std::mem::replace(&mut self.stage, Stage::Proven(None));
        if matches!(stage, Stage::Refused) {
            return Ok(Answer::Failure(packet::failure(self.identifier), None));
        }
        if response.kind == NAK {
            return Err("the client does not take EAP-MSCHAPv2".to_owned());
        }
        match stage {
            Stage::Identity if response.kind == IDENTITY => {
                self.identifier = self.identifier.wrapping_add(1);
                Ok(Answer::Request(self.challenge(entropy, response.data)))
            }
            Stage::Challenge {
                challenge,
                id,
                identity,
            } if response.kind == MSCHAPV2 => {
                let response = Response::read(response.data)?;
                self.verify(entropy, accounts, (&challenge, id, &identity), response)
            }
            Stage::Proven(Some(login)) if acknowledges(response) => {
                Ok(Answer::Success(packet::success(self.identifier), login))
            }
            _ => Err("unexpected EAP response".to_owned()),
        }
    }

    /// Whoever it is, the arithmetic is the same.
    fn verify(
        &mut self,
        entropy: &mut dyn Entropy,
        accounts: Accounts<'_>,
        (challenge, id, identity): (&[u8; packet::CHALLENGE], u8, &[u8]),
        response: Response<'_>,
    ) -> Result<Answer, String> {
        if response.id != id {
            return Err("MS-CHAPv2 response to another challenge".to_owned());
        }
        let user = Identification::user(identity);
        let found = user.as_ref().and_then(|user| {
            let (known, secret) = account(accounts.secrets, user)?;
            let password = std::str::from_utf8(secret).ok()?;
            (accounts.welcome)(known).then_some((known, password))
        });
        let password = found.map_or("nobody's", |(_, password)| password);
        let password = mschapv2::password_hash(password);
        let hash_hash = mschapv2::hash(&*password);
        let hashed = mschapv2::challenge_hash(&response.peer_challenge, challenge, response.name);
        let expected = mschapv2::nt_response(&password, &hashed);
        let knows = equal(&expected, &response.nt_response);
        let proof = mschapv2::authenticator_response(&hash_hash, &expected, &hashed);
        let msk = mschapv2::msk(&hash_hash, &expected);
        // Who is asked is who answers: the policy goes by the one, the password by the other.
        let same = mschapv2::without_domain(identity) == mschapv2::without_domain(response.name);
        self.identifier = self.identifier.wrapping_add(1);
        let request =
            |identifier, message: Vec<u8>| packet::request(identifier, MSCHAPV2, &message);
        Ok(match found {
            Some((known, _)) if knows && same => {
                let user = known.clone();
                let login = Login {
                    user,
                    msk,
                    hash_hash,
                };
                self.stage = Stage::Proven(Some(login));
                let message = packet::write_success(id, &proof);
                Answer::Request(request(self.identifier, message))
            }
            _ => {
                let reason = match (user, found) {
                    (None, _) => "EAP identity that is no name".to_owned(),
                    (Some(user), None) => format!("no secret or connection for {user}"),
                    (Some(user), Some(_)) if same => format!("wrong password of {user}"),
                    (Some(user), Some(_)) => format!("{user} answers as another"),
                };
                self.stage = Stage::Refused;
                let mut next = [0; packet::CHALLENGE];
                entropy.fill(&mut next);
                let message = packet::write_failure(id, &next);
                Answer::Refusal(request(self.identifier, message), reason)
            }
        })
    }
}

/// The client has verified our proof.
fn acknowledges(response: Typed<'_>) -> bool {
    response.kind == MSCHAPV2 && response.data.first() == Some(&packet::OP_SUCCESS)
}
