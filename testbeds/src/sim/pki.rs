//! Another login than by a pre-shared key: certificates by way of an intermediate authority, which
//! were made once (`pki/`, Ed25519, whose signatures no chance is in), and a user with a password.

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
const USER: &str = "carol";

/// How the two ends show who they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Login {
    #[default]
    Psk,
    Certificates,
    /// The peer is a user of EAP-MSCHAPv2, the cluster has a certificate.
    Password,
}

impl Login {
    /// Writes it into a configuration of one that has a pre-shared key.
    pub fn enter(self, config: &mut Config, peer: bool) -> Result<(), String> {
        let connection = config.connections.first_mut();
        let auth = &mut connection.ok_or("no connection")?.auth;
        let remote = || Ok::<_, String>(RemoteAuth::Pubkey(Arc::new(believed()?)));
        let local = |pem| Ok::<_, String>(LocalAuth::Pubkey(Arc::new(shown(pem)?)));
        let user = || Identification::user(USER.as_bytes()).ok_or("no user");
        match (self, peer) {
            (Login::Psk, _) => return Ok(()),
            (Login::Certificates, true) => (auth.local, auth.remote) = (local(PEER)?, remote()?),
            (Login::Certificates, false) => {
                (auth.local, auth.remote) = (local(CLUSTER)?, remote()?);
            }
            (Login::Password, true) => {
                (auth.local, auth.remote) = (LocalAuth::Eap(user()?), remote()?);
            }
            (Login::Password, false) => {
                auth.local = local(CLUSTER)?;
                auth.remote = RemoteAuth::Eap(EapUsers::Asked(user()?));
            }
        }
        if self == Login::Password {
            config.secrets.push(Secret {
                ids: vec![user()?],
                secret: Zeroizing::new(b"a password".to_vec()),
            });
        }
        Ok(())
    }
}

fn certificate(pem: &[u8]) -> Result<Certificate, String> {
    let der = CertificateDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
    Certificate::parse(&der).map_err(|error| format!("{error:?}"))
}

fn shown(pem: &[u8]) -> Result<LocalCertificates, String> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
    let key = PrivateKey::from_der(&key).map_err(|error| format!("{error:?}"))?;
    Ok(LocalCertificates {
        certificates: vec![LocalCertificate {
            certificate: certificate(pem)?,
            intermediates: vec![certificate(INTERMEDIATE)?],
            anchor: None,
            key: Arc::new(key),
        }],
        family: Family::Any,
        send: SendCertificate::IfAsked,
    })
}

fn believed() -> Result<RemoteCertificates, String> {
    let mut trust = Trust::new(Revocation::Relaxed);
    let added = trust.add_anchor(certificate(ANCHOR)?);
    added.map_err(|error| error.to_string())?;
    Ok(RemoteCertificates {
        trust,
        family: Family::Any,
        crl_files: Vec::new(),
    })
}
