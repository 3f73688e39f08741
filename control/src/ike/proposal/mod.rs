//! Algorithms and proposals (RFC 7296 section 3.3), in strongSwan's keywords.

mod identity;
mod keyword;
mod negotiate;

use std::net::IpAddr;

use hitless_sa::EspSuite;

use super::auth::DistinguishedName;

pub use identity::IdentificationError;
pub use keyword::{ProposalError, is_keyword};
pub use negotiate::{Ask, accepted, accepted_esp, select, select_esp};

/// Encryption of SK payloads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encryption {
    Aes128Gcm16,
    Aes192Gcm16,
    Aes256Gcm16,
    ChaCha20Poly1305,
    Aes128Cbc,
    Aes192Cbc,
    Aes256Cbc,
}

/// Integrity of SK payloads where the cipher has none of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Integrity {
    HmacSha256_128,
    HmacSha384_192,
    HmacSha512_256,
}

/// Pseudorandom function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prf {
    HmacSha256,
    HmacSha384,
    HmacSha512,
}

/// Key exchange method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyExchangeMethod {
    X25519,
    Ecp256,
    Ecp384,
    Ecp521,
    Modp2048,
    Modp3072,
    Modp4096,
    MlKem768,
}

/// The most additional key exchanges (RFC 9370 section 2: transform types 6 to 12).
pub const MAX_ADDITIONAL: usize = 7;

/// Additional key exchanges, by their number less one (RFC 9370). Those that are `None` are left
/// out, and the others follow each other in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Additional([Option<KeyExchangeMethod>; MAX_ADDITIONAL]);

impl Additional {
    pub const NONE: Additional = Additional([None; MAX_ADDITIONAL]);

    pub fn is_empty(&self) -> bool {
        self.methods().next().is_none()
    }

    /// The methods, in the order of their exchanges.
    pub fn methods(&self) -> impl Iterator<Item = KeyExchangeMethod> + '_ {
        self.0.iter().copied().flatten()
    }

    /// The methods with their numbers, which count from one.
    pub fn numbered(&self) -> impl Iterator<Item = (u8, KeyExchangeMethod)> + '_ {
        (1..)
            .zip(&self.0)
            .filter_map(|(n, method)| Some((n, (*method)?)))
    }
}

/// One choice of everything that an IKE SA needs: `aes128gcm16-prfsha256-x25519`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IkeProposal {
    pub encryption: Encryption,
    /// Present exactly when `encryption` is not combined-mode.
    pub integrity: Option<Integrity>,
    pub prf: Prf,
    pub key_exchange: KeyExchangeMethod,
    /// In IKE_INTERMEDIATE or IKE_FOLLOWUP_KE (RFC 9370).
    pub additional: Additional,
}

/// One choice of everything that a Child SA needs: `aes128gcm16-x25519-esn`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EspProposal {
    pub suite: EspSuite,
    /// Fresh key exchange in CREATE_CHILD_SA; `None` derives from SK_d alone.
    pub key_exchange: Option<KeyExchangeMethod>,
    /// In IKE_FOLLOWUP_KE after that (RFC 9370); only with `key_exchange`.
    pub additional: Additional,
    pub esn: bool,
}

/// Identity of a peer (RFC 7296 section 3.5).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Identification {
    /// `%any`: matches every identity, sent by nobody.
    Any,
    Address(IpAddr),
    Fqdn(String),
    Email(String),
    KeyId(Vec<u8>),
    /// The subject of a certificate.
    Dn(DistinguishedName),
    /// The name of a user who logs in with EAP: never in an ID payload, and never the same as an
    /// identity that was in one.
    Eap(String),
    /// A type that we do not know, as a peer sent it.
    Other {
        kind: u8,
        data: Vec<u8>,
    },
}
