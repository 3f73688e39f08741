//! Algorithms and proposals (RFC 7296 section 3.3), in strongSwan's keywords.

mod identity;
mod keyword;
mod negotiate;

use std::net::IpAddr;

use hitless_sa::EspSuite;

use super::auth::DistinguishedName;

pub use identity::IdentificationError;
pub use keyword::ProposalError;
pub use negotiate::{Ask, accepted, accepted_esp, select, select_esp};

/// Encryption of SK payloads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encryption {
    Aes128Gcm16,
    Aes256Gcm16,
    Aes128Cbc,
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
}

/// One choice of everything that an IKE SA needs: `aes128gcm16-prfsha256-x25519`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IkeProposal {
    pub encryption: Encryption,
    /// Present exactly when `encryption` is not combined-mode.
    pub integrity: Option<Integrity>,
    pub prf: Prf,
    pub key_exchange: KeyExchangeMethod,
}

/// One choice of everything that a Child SA needs: `aes128gcm16-x25519-esn`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EspProposal {
    pub suite: EspSuite,
    /// Fresh key exchange in CREATE_CHILD_SA; `None` derives from SK_d alone.
    pub key_exchange: Option<KeyExchangeMethod>,
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
    /// A type that we do not know, as a peer sent it.
    Other {
        kind: u8,
        data: Vec<u8>,
    },
}
