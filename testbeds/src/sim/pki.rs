//! Another login than by a pre-shared key: certificates by way of an intermediate authority, which
//! were made once (`pki/`), and a user with a password. Their signatures are of kinds that no chance is
//! in, Ed25519 and PKCS #1: a seed is to take the same course each time.

use std::sync::Arc;
use std::time::Duration;

use hitless::config::Config;
use hitless::ike::auth::{
    Certificate, EapUsers, Family, LocalAuth, LocalCertificate, LocalCertificates, PrivateKey,
    RemoteAuth, RemoteCertificates, Revocation, SendCertificate, Trust,
};
use hitless::ike::proposal::Identification;
use hitless::ike::settings::Secret;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

/// 2030-01-01, within the certificates' hundred years.
pub const TODAY: Duration = Duration::from_secs(1_893_456_000);

const ANCHOR: &[u8] = include_bytes!("pki/anchor.pem");
const INTERMEDIATE: &[u8] = include_bytes!("pki/intermediate.pem");
/// Certificate and key.
const CLUSTER: &[u8] = include_bytes!("pki/cluster.pem");
const PEER: &[u8] = include_bytes!("pki/peer.pem");
const ECDSA_ANCHOR: &[u8] = include_bytes!("pki/ecdsa-anchor.pem");
const RSA_CLUSTER: &[u8] = include_bytes!("pki/rsa-cluster.pem");
const RSA_PEER: &[u8] = include_bytes!("pki/rsa-peer.pem");
const USER: &str = "carol";

/// How the two ends show who they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Login {
    #[default]
    Psk,
    Certificates,
    /// RSA, under an authority with ECDSA.
    Rsa,
    /// The peer is a user of EAP-MSCHAPv2, the cluster has a certificate.
    Password,
}

impl Login {
    /// Writes it into a configuration of one that has a pre-shared key.
    pub fn enter(self, config: &mut Config, peer: bool) -> Result<(), String> {
        // A witness has no connection.
        if self == Login::Psk || config.cluster.votes_only() {
            return Ok(());
        }
        let connection = config.connections.first_mut();
        let auth = &mut connection.ok_or("no connection")?.auth;
        let [anchor, cluster, own] = match self {
            Login::Rsa => [ECDSA_ANCHOR, RSA_CLUSTER, RSA_PEER],
            _ => [ANCHOR, CLUSTER, PEER],
        };
        let remote = RemoteAuth::Pubkey(Arc::new(believed(anchor)?));
        let local = |pem| Ok::<_, String>(LocalAuth::Pubkey(Arc::new(shown(pem)?)));
        let user = || Identification::user(USER.as_bytes()).ok_or("no user");
        (auth.local, auth.remote) = match (self, peer) {
            (Login::Password, true) => (LocalAuth::Eap(user()?), remote),
            (Login::Password, false) => {
                (local(cluster)?, RemoteAuth::Eap(EapUsers::Asked(user()?)))
            }
            (_, true) => (local(own)?, remote),
            (_, false) => (local(cluster)?, remote),
        };
        if self == Login::Password {
            config.secrets.push(Secret {
                ids: vec![user()?],
                secret: Zeroizing::new(b"a password".to_vec()),
            });
        }
        Ok(())
    }
}

/// What the cluster shows of itself, for one that speaks in its place.
pub fn cluster() -> Result<LocalCertificates, String> {
    shown(CLUSTER)
}

fn certificate(pem: &[u8]) -> Result<Certificate, String> {
    let der = CertificateDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
    Certificate::parse(&der).map_err(|error| format!("{error:?}"))
}

fn shown(pem: &[u8]) -> Result<LocalCertificates, String> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
    let key = PrivateKey::from_der(&key).map_err(|error| format!("{error:?}"))?;
    let (family, intermediates) = match key {
        PrivateKey::Rsa(_) => (Family::RsaPkcs1, Vec::new()),
        _ => (Family::Any, vec![certificate(INTERMEDIATE)?]),
    };
    Ok(LocalCertificates {
        certificates: vec![LocalCertificate {
            certificate: certificate(pem)?,
            intermediates,
            anchor: None,
            key: Arc::new(key),
        }],
        family,
        send: SendCertificate::IfAsked,
    })
}

fn believed(anchor: &[u8]) -> Result<RemoteCertificates, String> {
    let mut trust = Trust::new(Revocation::Relaxed);
    let added = trust.add_anchor(certificate(anchor)?);
    added.map_err(|error| error.to_string())?;
    Ok(RemoteCertificates {
        trust,
        family: Family::Any,
        crl_files: Vec::new(),
    })
}
