//! Authentication: pre-shared keys, X.509 certificates with digital signatures (RFC 7427, RFC
//! 4945), users with EAP (RFC 7296 section 2.16), postquantum preshared keys (RFC 8784) and
//! reauthentication.
//!
//! ```text
//!  exchange.rs  what we show and what we demand, for initial/
//!    psk.rs  signature.rs + key.rs  certificate.rs -> chain.rs (anchors, CRLs),
//!      verdicts.rs (chains that were good)  payloads.rs
//!  grounds.rs (why a peer was believed)  path.rs (by which certificates)  ppk.rs  reauth.rs  state.rs (what an IKE SA remembers and exports)
//! ```
//!
//! Certificates and names are parsed by `x509-cert`, paths and CRLs verified by `rustls-webpki`,
//! signatures made and verified by AWS-LC. Nothing is ever fetched.

mod certificate;
mod chain;
mod crl;
pub(crate) mod dn;
mod exchange;
mod grounds;
mod key;
mod octets;
mod path;
mod payloads;
mod ppk;
mod psk;
mod reauth;
mod settings;
mod signature;
mod state;
mod time_of_day;
mod verdicts;

pub use certificate::{Certificate, UnreadableCertificate};
pub use chain::{ChainError, Revocation, Trust, Verified};
pub use crl::RevocationList;
pub use dn::DistinguishedName;
pub use exchange::Proven;
pub use grounds::Grounds;
pub use key::{Family, PrivateKey, UnusableKey};
pub use octets::SignedOctets;
pub use path::CertificationPath;
pub use ppk::{Ppk, PpkSettings};
pub use psk::psk_auth;
pub use settings::{
    AuthSettings, EapUsers, LocalAuth, LocalCertificate, LocalCertificates, RemoteAuth,
    RemoteCertificates, SendCertificate,
};
pub use signature::{Hash, Scheme, SignatureError, verify as verify_signature};
pub use time_of_day::TimeOfDay;

pub(in crate::ike) use grounds::GroundsRecord;
pub(in crate::ike) use ppk::{offered_without, without};
pub(in crate::ike) use reauth::lifetime;
pub(in crate::ike) use state::{Authenticated, AuthenticatedRecord};

pub(in crate::ike) use exchange::{
    Claimed, Proof, Shown, Wishes, announcements, certificate_request, check, check_user, prove,
    prove_user, refusal, shows_key,
};
