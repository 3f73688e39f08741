//! Both directions of authentication within the initial exchanges: what we show, and what we
//! demand of the peer.

use std::sync::Arc;
use std::time::Duration;

use super::grounds::{self, Grounds};
use super::key::Family;
use super::octets::SignedOctets;
use super::path::CertificationPath;
use super::psk::{psk_auth, secret};
use super::settings::{
    AuthSettings, LocalAuth, LocalCertificate, LocalCertificates, RemoteAuth, SendCertificate,
};
use super::signature::{self, Hash, Scheme};
use super::{Ppk, payloads, ppk};
use crate::ike::contents::Contents;
use crate::ike::crypto::prf::equal;
use crate::ike::message::{AUTH_METHOD_PSK, NotifyKind, Payload};
use crate::ike::proposal::Identification;
use crate::ike::settings::{Connection, EngineSettings, Secret};

/// What the peer's messages so far say about the proof that it wants.
#[derive(Clone, Default)]
pub(in crate::ike) struct Wishes {
    /// SIGNATURE_HASH_ALGORITHMS (RFC 7427 section 4).
    pub hashes: Vec<Hash>,
    /// CERTREQ; `None` if there was none.
    pub authorities: Option<Vec<[u8; 20]>>,
    /// USE_PPK (RFC 8784 section 3).
    pub ppk: bool,
}

impl Wishes {
    /// What one message says.
    pub fn of(contents: &Contents<'_>) -> Wishes {
        let mut wishes = Wishes::default();
        wishes.learn(contents);
        wishes
    }

    /// Takes them out of one more message.
    pub fn learn(&mut self, contents: &Contents<'_>) {
        if let Some(notify) = contents.notify(NotifyKind::SIGNATURE_HASH_ALGORITHMS) {
            self.hashes = Hash::list(&notify.data);
        }
        if contents
            .of_kind(crate::ike::message::PayloadKind::CERTREQ)
            .next()
            .is_some()
        {
            let known = self.authorities.get_or_insert_default();
            known.extend(payloads::requested(contents));
            known.truncate(1024);
        }
        self.ppk |= contents.has(NotifyKind::USE_PPK);
    }
}

/// What goes into our IKE_SA_INIT message about authentication. `asked`: the request that it
/// answers, if it is the response.
pub(in crate::ike) fn announcements<'c>(
    connections: impl Iterator<Item = &'c AuthSettings> + Clone,
    asked: Option<&Contents<'_>>,
) -> Vec<Payload> {
    let mut out = Vec::new();
    // RFC 7296 section 1.2: the responder asks for certificates here, the initiator in IKE_AUTH.
    if asked.is_some() {
        out.extend(certificate_request(connections.clone()));
    }
    if connections.clone().any(AuthSettings::uses_certificates) {
        let data = Hash::announcement();
        out.push(Payload::notify(
            NotifyKind::SIGNATURE_HASH_ALGORITHMS,
            &data,
        ));
    }
    let wanted = asked.is_none_or(|contents| contents.has(NotifyKind::USE_PPK));
    if wanted && connections.clone().any(|auth| auth.ppk.is_some()) {
        out.push(ppk::announcement());
    }
    out
}

/// CERTREQ for all anchors of these connections.
pub(in crate::ike) fn certificate_request<'c>(
    connections: impl Iterator<Item = &'c AuthSettings>,
) -> Option<Payload> {
    let anchors = connections.filter_map(|auth| match &auth.remote {
        RemoteAuth::Pubkey(remote) => Some(remote),
        RemoteAuth::Psk | RemoteAuth::Eap(_) => None,
    });
    payloads::request(
        anchors
            .flat_map(|remote| remote.trust.anchors())
            .map(super::Certificate::authority),
    )
}

/// Our proof.
pub(in crate::ike) struct Proof {
    pub certificates: Vec<Payload>,
    pub method: u8,
    pub data: Vec<u8>,
}

impl Proof {
    pub fn auth(&self) -> Payload {
        Payload::Auth {
            method: self.method,
            data: self.data.clone(),
        }
    }
}

/// Proves that we are `local` to `remote`.
pub(in crate::ike) fn prove(
    secrets: &[Secret],
    connection: &Connection,
    local: &Identification,
    remote: &Identification,
    wishes: &Wishes,
    signed: SignedOctets<'_>,
) -> Result<Proof, String> {
    let own = match &connection.auth.local {
        LocalAuth::Psk => {
            let secret = secret(secrets, local, remote)
                .ok_or_else(|| format!("no secret for {local} and {remote}"))?;
            return Ok(Proof {
                certificates: Vec::new(),
                method: AUTH_METHOD_PSK,
                data: psk_auth(secret, signed),
            });
        }
        LocalAuth::Pubkey(own) => own,
        LocalAuth::Eap(user) => {
            return Err(format!(
                "{user} logs in with EAP, as a client of a gateway that signs"
            ));
        }
    };
    let certificate = choose(own, wishes).ok_or("no certificate of our own")?;
    let shown = match own.send {
        SendCertificate::Always => true,
        SendCertificate::IfAsked => wishes.authorities.is_some(),
        SendCertificate::Never => false,
    };
    let chain = std::iter::once(&certificate.certificate).chain(&certificate.intermediates);
    let (method, data) = certificate
        .key
        .sign(own.family, &wishes.hashes, &signed.to_vec())
        .ok_or("the peer accepts no signature that our key can make")?;
    Ok(Proof {
        certificates: match shown {
            true => payloads::certificates(chain),
            false => Vec::new(),
        },
        method,
        data,
    })
}

/// The certificate of ours that a peer believes most likely.
fn choose<'a>(own: &'a LocalCertificates, wishes: &Wishes) -> Option<&'a LocalCertificate> {
    let wanted = |certificate: &LocalCertificate| match (&wishes.authorities, certificate.anchor) {
        (Some(authorities), Some(anchor)) => authorities.contains(&anchor),
        _ => false,
    };
    let suits = |c: &LocalCertificate| c.key.suits(own.family, &wishes.hashes);
    let certificates = own.certificates.iter();
    certificates.min_by_key(|certificate| (!suits(certificate), !wanted(certificate)))
}

/// Why there is no AUTH in a response, with what the user can do if it is our key that the peer cannot
/// believe. `wishes`: what it said before.
pub(in crate::ike) fn refusal(contents: &Contents<'_>, own: &LocalAuth, wishes: &Wishes) -> String {
    let refusal = contents.refusal("response without AUTH");
    let LocalAuth::Pubkey(own) = own else {
        return refusal;
    };
    if !contents.has(NotifyKind::AUTHENTICATION_FAILED) {
        return refusal;
    }
    if own.needs_rfc_7427() && wishes.hashes.is_empty() {
        return format!(
            "{refusal}: the peer did not say SIGNATURE_HASH_ALGORITHMS (RFC 7427), and may take RSA \
             with SHA-1 alone, which is not used here; it needs an ECDSA certificate of ours"
        );
    }
    // SIGNATURE_HASH_ALGORITHMS names hashes, not paddings (RFC 7427 section 4).
    let scheme = choose(own, wishes).and_then(|c| c.key.scheme(own.family, &wishes.hashes));
    match (own.family, scheme) {
        (Family::Any, Some(Scheme::RsaPss(_))) => format!(
            "{refusal}: we signed with RSASSA-PSS, which the peer may not know; if our certificate is \
             one that it believes, try auth = \"rsa\" in local (PKCS #1 v1.5)"
        ),
        _ => refusal,
    }
}

/// What a peer proved.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Proven {
    /// How: `psk`, or the kind of signature.
    pub method: String,
    /// SHA-256 of its certificate.
    pub certificate: Option<[u8; 32]>,
    /// When that expires, in seconds since 1970.
    pub not_after: Option<u64>,
    /// What to look at again, should it come back with a ticket.
    pub grounds: Option<Arc<Grounds>>,
    /// What to look at again when a list or an anchor changes.
    pub path: Option<Arc<CertificationPath>>,
    /// The user, if the peer logged in with EAP: whom policy goes by.
    pub user: Option<Identification>,
}

/// A user and the password that was proven.
#[derive(Clone, Copy)]
pub(in crate::ike) struct Claimed<'a> {
    pub user: &'a Identification,
    pub secret: &'a [u8],
    pub msk: &'a [u8],
}

/// AUTH after EAP: the MSK is the shared key (RFC 7296 section 2.16).
pub(in crate::ike) fn prove_user(msk: &[u8], signed: SignedOctets<'_>) -> Payload {
    Payload::Auth {
        method: AUTH_METHOD_PSK,
        data: psk_auth(msk, signed),
    }
}

/// Whether the AUTH of the other end shows that it has the MSK too.
pub(in crate::ike) fn shows_key(
    msk: &[u8],
    (method, data): (u8, &[u8]),
    signed: SignedOctets<'_>,
) -> bool {
    method == AUTH_METHOD_PSK && equal(&psk_auth(msk, signed), data)
}

/// Whether the client that logged in is the one that began the IKE SA.
pub(in crate::ike) fn check_user(
    settings: &EngineSettings,
    connection: &Connection,
    local: &Identification,
    time: Option<Duration>,
    claimed: Claimed<'_>,
    auth: (u8, &[u8]),
    signed: SignedOctets<'_>,
) -> Result<Proven, String> {
    let user = claimed.user;
    if !shows_key(claimed.msk, auth, signed) {
        return Err(format!("wrong AUTH after the login of {user}"));
    }
    let evidence = grounds::Evidence::Secret {
        secret: claimed.secret,
        local,
        remote: user,
    };
    Ok(Proven {
        method: "eap-mschapv2".to_owned(),
        grounds: Grounds::of(settings, connection, time, evidence, None),
        user: Some(user.clone()),
        ..Proven::default()
    })
}

/// What the peer showed: identity, method and data of AUTH (or of NO_PPK_AUTH).
#[derive(Clone, Copy)]
pub(in crate::ike) struct Shown<'a> {
    pub id: &'a Identification,
    pub method: u8,
    pub data: &'a [u8],
    /// What was mixed into the keys.
    pub ppk: Option<&'a Ppk>,
}

/// Whether the peer is who it says, to a connection that is meant for it. `time`: the wall clock.
pub(in crate::ike) fn check(
    settings: &EngineSettings,
    connection: &Connection,
    local: &Identification,
    time: Option<Duration>,
    shown: Shown<'_>,
    contents: &Contents<'_>,
    signed: SignedOctets<'_>,
) -> Result<Proven, String> {
    let id = shown.id;
    let accepted = match &connection.auth.remote {
        RemoteAuth::Psk => {
            let secret = secret(&settings.secrets, local, id);
            let secret = secret.ok_or_else(|| format!("no secret for {id}"))?;
            if shown.method != AUTH_METHOD_PSK {
                return Err(format!("{id} does not authenticate by pre-shared key"));
            }
            if !equal(&psk_auth(secret, signed), shown.data) {
                return Err(format!("wrong secret of {id}"));
            }
            let evidence = grounds::Evidence::Secret {
                secret,
                local,
                remote: id,
            };
            return Ok(Proven {
                method: "psk".to_owned(),
                grounds: Grounds::of(settings, connection, time, evidence, shown.ppk),
                ..Proven::default()
            });
        }
        RemoteAuth::Pubkey(accepted) => accepted,
        RemoteAuth::Eap(_) => return Err(format!("{id} does not authenticate with EAP")),
    };
    if shown.method == AUTH_METHOD_PSK {
        return Err(format!(
            "{id} authenticates by pre-shared key, not by certificate"
        ));
    }
    let time = time.ok_or("the time of day is not known")?;
    let chain = payloads::chain(contents).map_err(|fault| format!("{id}: {fault}"))?;
    let verified = accepted.trust.verify(&chain, time);
    let verified = verified.map_err(|error| format!("{id}: {error}"))?;
    let certificate = &verified.certificate;
    if !certificate.confirms(id) {
        return Err(format!(
            "the certificate of {certificate:?} is not for {id}"
        ));
    }
    let scheme = signature::verify(certificate, shown.method, shown.data, &signed.to_vec())
        .map_err(|error| format!("{id}: {error}"))?;
    if !accepted.family.allows(scheme) {
        return Err(format!(
            "{id}: signature of a kind that remote.auth excludes"
        ));
    }
    let chain = grounds::Evidence::Chain(verified.path());
    Ok(Proven {
        method: format!("{scheme:?}"),
        certificate: Some(certificate.fingerprint()),
        not_after: Some(certificate.not_after()),
        grounds: Grounds::of(settings, connection, Some(time), chain, shown.ppk),
        path: CertificationPath::of(&verified),
        user: None,
    })
}
