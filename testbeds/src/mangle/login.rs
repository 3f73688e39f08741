//! A login with EAP-MSCHAPv2 (RFC 7296 section 2.16) in a bed, as far as whoever knows no password
//! comes: the gateway asks a mangling client who it is and for an answer to its challenge, or a
//! mangling gateway asks ours. EAP packets (RFC 3748 section 4) are written octet by octet here.

use hitless::config::Config;
use hitless::ike::auth::{Family, Hash, LocalCertificates};

use super::bed::{Bed, Stage};
use super::peer::Peer;
use super::wire::{self, AUTH, EAP, IDI, IDR, Raw};
use crate::sim::pki::{self, Login};

/// EAP codes and types.
pub const REQUEST: u8 = 1;
pub const RESPONSE: u8 = 2;
pub const SUCCESS: u8 = 3;
pub const FAILURE: u8 = 4;
pub const IDENTITY: u8 = 1;
pub const NOTIFICATION: u8 = 2;
pub const NAK: u8 = 3;
pub const MD5: u8 = 4;
pub const MSCHAPV2: u8 = 26;

/// SIGNATURE_HASH_ALGORITHMS with the one of Ed25519 (RFC 8420 section 2).
const HASHES: (u16, [u8; 2]) = (16431, [0, 5]);
/// The user that the gateway knows, and the IKE identity that a client of it has.
const USER: &[u8] = b"carol";
const CLIENT: &[u8] = b"carol.test";
/// Who is in the certificate.
const SERVER: &[u8] = b"cluster.lab";
const ID_FQDN: u8 = 2;
const X509_SIGNATURE: u8 = 4;
const CERT: u8 = 37;

/// The connection of those who log in, beside that of the pre-shared key.
const CONNECTION: &str = r#"
[connections.login]
local_addrs = ["192.0.2.1"]
remote_addrs = ["192.0.2.9"]
proposals = ["aes128gcm16-prfsha256-x25519"]
local = { auth = "psk", id = "OURS" }
remote = { auth = "psk", id = "THEIRS" }
dpd_delay = "1h"
[connections.login.children.inner]
esp_proposals = ["aes128gcm16-x25519"]
local_ts = ["10.1.0.0/16"]
remote_ts = ["10.9.0.0/16"]
start_action = "none"
"#;

impl Stage {
    /// Whether somebody logs in.
    pub fn logs_in(self) -> bool {
        matches!(
            self,
            Stage::LogIn | Stage::Challenged | Stage::AskedLogin | Stage::AskedUser
        )
    }

    /// What its configuration has more of.
    pub fn connection(self) -> String {
        let [client, server] = ["carol.test", "cluster.lab"];
        match self.logs_in() {
            false => String::new(),
            true if self.asks() => CONNECTION.replace("OURS", client).replace("THEIRS", server),
            true => CONNECTION.replace("OURS", server).replace("THEIRS", client),
        }
    }

    /// Certificates and passwords in the place of that pre-shared key.
    pub fn enter_login(self, config: &mut Config) -> Result<(), String> {
        match self.logs_in() {
            true => {
                // The one that it writes to.
                config.connections.sort_by_key(|c| c.name != "login");
                Login::Password.enter(config, self.asks())
            }
            false => Ok(()),
        }
    }
}

/// An EAP packet.
pub fn eap(code: u8, identifier: u8, rest: &[u8]) -> Raw {
    let [high, low] = (4 + rest.len() as u16).to_be_bytes();
    Raw::new(EAP, [&[code, identifier, high, low], rest].concat())
}

/// A message of MS-CHAPv2 in it.
pub fn mschapv2(code: u8, identifier: u8, (op, id): (u8, u8), rest: &[u8]) -> Raw {
    let [high, low] = (4 + rest.len() as u16).to_be_bytes();
    let head = [MSCHAPV2, op, id, high, low];
    eap(code, identifier, &[&head, rest].concat())
}

/// Who the user is.
pub fn identity(identifier: u8, name: &[u8]) -> Raw {
    eap(RESPONSE, identifier, &[&[IDENTITY], name].concat())
}

/// A challenge of so many octets.
pub fn challenge(identifier: u8, octets: u8) -> Raw {
    let value = [&[octets][..], &vec![7; usize::from(octets)], b"mangler"].concat();
    mschapv2(REQUEST, identifier, (1, identifier), &value)
}

impl Peer {
    /// IKE_SA_INIT of one who signs, or wants a signature.
    pub fn init_with_hashes(&self) -> wire::Message {
        let mut message = self.init();
        message.payloads.push(wire::notify(HASHES.0, &HASHES.1));
        message
    }

    /// The first IKE_AUTH of a client: no AUTH.
    pub fn login_payloads(&self) -> Vec<Raw> {
        let id = Peer::identity(ID_FQDN, CLIENT);
        let mut payloads = vec![Raw::new(IDI, id)];
        payloads.extend(self.child_payloads(super::peer::esp_transforms(false)));
        payloads
    }

    /// What a gateway answers: IDr, certificates, AUTH, and who are you?
    pub fn challenge_payloads(&self) -> Result<Vec<Raw>, String> {
        let LocalCertificates { certificates, .. } = pki::cluster()?;
        let shown = certificates.first().ok_or("no certificate")?;
        let id = Peer::identity(ID_FQDN, SERVER);
        let signed = self.signed(&id);
        let signature = shown.key.sign(Family::Any, &[Hash::Identity], &signed);
        let (method, signature) = signature.ok_or("no signature")?;
        let mut payloads = vec![Raw::new(IDR, id)];
        for certificate in [&shown.certificate].into_iter().chain(&shown.intermediates) {
            let body = [&[X509_SIGNATURE][..], certificate.der()].concat();
            payloads.push(Raw::new(CERT, body));
        }
        payloads.push(Raw::new(
            AUTH,
            [&[method, 0, 0, 0][..], &signature].concat(),
        ));
        payloads.push(eap(REQUEST, 7, &[IDENTITY]));
        Ok(payloads)
    }
}

impl Bed {
    /// A message of the login's, with the next Message ID or as the answer to what was asked.
    pub fn login_message(&mut self, payloads: Vec<Raw>) -> wire::Message {
        let mut message = self.peer.message(wire::IKE_AUTH, payloads);
        message.id = match self.peer.initiator {
            true => self.peer.next,
            false => self.asked(),
        };
        message
    }

    /// The same, sent: true if the gateway goes on with EAP.
    fn say(&mut self, payloads: Vec<Raw>) -> Option<()> {
        let message = self.login_message(payloads);
        let datagram = self.peer.seal(&message);
        self.sent.clear();
        self.deliver(&datagram);
        let answer = self.sent.last()?.clone();
        self.eap_of(&answer)?;
        match self.peer.initiator {
            true => {
                self.last = (datagram, answer);
                self.peer.next += 1;
            }
            false => self.last.0 = answer,
        }
        Some(())
    }

    /// The EAP packet of a message.
    fn eap_of(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let payloads = self.peer.open(datagram)?;
        payloads
            .into_iter()
            .find_map(|(kind, body)| (kind == EAP).then_some(body))
    }

    /// The identifier of the gateway's EAP packet, a request or a response.
    pub fn identifier(&self) -> u8 {
        let said = match self.peer.initiator {
            true => &self.last.1,
            false => &self.last.0,
        };
        self.eap_of(said)
            .and_then(|packet| packet.get(1).copied())
            .unwrap_or_default()
    }

    /// The way to a stage of a login.
    pub fn reach_login(&mut self, stage: Stage) -> Option<()> {
        if stage.asks() {
            self.initiate("login", "inner")?;
            let answer = self.peer.init_with_hashes();
            self.answer_init_with(&answer)?;
            if stage == Stage::AskedUser {
                self.log_in_honestly(Stage::AskedLogin)?;
            }
            return Some(());
        }
        let first = self.peer.init_with_hashes();
        self.begin_with(&first)?;
        self.peer.next = 1;
        let payloads = self.peer.login_payloads();
        self.say(payloads)?;
        if stage == Stage::Challenged {
            self.log_in_honestly(Stage::LogIn)?;
        }
        Some(())
    }

    /// What an honest one says at a stage; the gateway goes on with EAP.
    pub fn log_in_honestly(&mut self, stage: Stage) -> Option<()> {
        let identifier = self.identifier();
        let payloads = match stage {
            Stage::LogIn => vec![identity(identifier, USER)],
            // It knows no password, but how to answer.
            Stage::Challenged => vec![answer(identifier, identifier)],
            Stage::AskedLogin => self.peer.challenge_payloads().ok()?,
            _ => vec![challenge(identifier.wrapping_add(1), 16)],
        };
        self.say(payloads)
    }
}

/// An answer to a challenge, by one who knows no password.
pub fn answer(identifier: u8, id: u8) -> Raw {
    let value = [&[49][..], &[7; 16], &[0; 8], &[9; 24], &[0], USER].concat();
    mschapv2(RESPONSE, identifier, (2, id), &value)
}
