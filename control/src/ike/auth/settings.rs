//! What the configuration says about authentication, validated. Names are swanctl's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::certificate::Certificate;
use super::chain::Trust;
use super::key::{Family, PrivateKey};
use super::ppk::PpkSettings;
use crate::ike::proposal::Identification;

/// `connections.<name>`: how the two ends prove who they are.
#[derive(Clone, Debug, Default)]
pub struct AuthSettings {
    pub local: LocalAuth,
    pub remote: RemoteAuth,
    /// RFC 8784.
    pub ppk: Option<PpkSettings>,
    /// A new IKE SA with a new IKE_AUTH takes the place of one this old; zero for never.
    pub reauth_time: Duration,
}

/// `local.auth`.
#[derive(Clone, Debug, Default)]
pub enum LocalAuth {
    #[default]
    Psk,
    Pubkey(Arc<LocalCertificates>),
    /// EAP-MSCHAPv2, as this user.
    Eap(Identification),
}

/// Our certificates: one of them is shown to a peer.
#[derive(Debug)]
pub struct LocalCertificates {
    /// Never empty.
    pub certificates: Vec<LocalCertificate>,
    pub family: Family,
    pub send: SendCertificate,
}

/// `send_cert`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SendCertificate {
    Always,
    /// If the peer sent a CERTREQ. Where users log in with EAP, the configuration's default is `Always`.
    #[default]
    IfAsked,
    Never,
}

/// A certificate of ours with its chain and its key.
#[derive(Debug)]
pub struct LocalCertificate {
    pub certificate: Certificate,
    /// Intermediates, the issuer first; without the anchor.
    pub intermediates: Vec<Certificate>,
    /// SHA-1 of the anchor's key, if the anchor is known.
    pub anchor: Option<[u8; 20]>,
    pub key: Arc<PrivateKey>,
}

impl LocalCertificates {
    /// Whether peers without RFC 7427 cannot believe any of them.
    pub fn needs_rfc_7427(&self) -> bool {
        !self.certificates.iter().any(|c| c.key.signs_of_old())
    }
}

/// `remote.auth`.
#[derive(Clone, Debug, Default)]
pub enum RemoteAuth {
    #[default]
    Psk,
    Pubkey(Arc<RemoteCertificates>),
    /// EAP-MSCHAPv2, by these users (`eap_id`).
    Eap(EapUsers),
}

impl RemoteAuth {
    /// Whether it takes no more to be believed by one than by the other. Which secret or account it is
    /// depends on the identities alone.
    pub fn is_as_good_as(&self, other: &RemoteAuth) -> bool {
        match (self, other) {
            (RemoteAuth::Psk, RemoteAuth::Psk) | (RemoteAuth::Eap(_), RemoteAuth::Eap(_)) => true,
            (RemoteAuth::Pubkey(one), RemoteAuth::Pubkey(other)) => {
                Arc::ptr_eq(one, other) || one.is_as_good_as(other)
            }
            _ => false,
        }
    }
}

/// Which users may log in, and how they say who they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EapUsers {
    /// They are asked; the pattern is `%any` or the name of users.
    Asked(Identification),
    /// The IKE identity is the user's name.
    ByIkeIdentity,
}

impl EapUsers {
    /// Whether it names none of them.
    pub fn is_anybody(&self) -> bool {
        !matches!(self, EapUsers::Asked(Identification::Eap(_)))
    }

    /// Whether a user is meant who calls itself `ike` in IKE.
    pub fn include(&self, user: &Identification, ike: &Identification) -> bool {
        match self {
            EapUsers::Asked(pattern) => user.matches(pattern),
            EapUsers::ByIkeIdentity => {
                Identification::user(ike.name()).is_some_and(|named| named.matches(user))
            }
        }
    }

    /// Whether a user may be meant, whatever it calls itself in IKE.
    pub fn may_include(&self, user: &Identification) -> bool {
        match self {
            EapUsers::Asked(pattern) => user.matches(pattern),
            EapUsers::ByIkeIdentity => true,
        }
    }
}

/// Which certificates of peers are accepted.
#[derive(Debug)]
pub struct RemoteCertificates {
    pub trust: Trust,
    pub family: Family,
    /// Where the CRLs came from, to be read again when they change.
    pub crl_files: Vec<PathBuf>,
}

impl RemoteCertificates {
    fn is_as_good_as(&self, other: &RemoteCertificates) -> bool {
        self.trust.is_as_good_as(&other.trust)
            && self.family == other.family
            && self.crl_files == other.crl_files
    }
}

impl AuthSettings {
    /// Whether certificates are spoken of at all.
    pub fn uses_certificates(&self) -> bool {
        matches!(self.local, LocalAuth::Pubkey(_)) || matches!(self.remote, RemoteAuth::Pubkey(_))
    }
}
