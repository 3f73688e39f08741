//! Key exchange: X25519 (RFC 8031) and ECP groups 19 and 20 (RFC 5903).
//!
//! A pending exchange is part of what is replicated, hence a private key that can be exported.

use std::fmt;

use aws_lc_rs::agreement::{self, Algorithm, PrivateKey, UnparsedPublicKey};
use hitless_sa::Entropy;
use zeroize::Zeroizing;

use crate::ike::proposal::KeyExchangeMethod;

/// An ephemeral private key and its public value. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct KeyPair {
    method: KeyExchangeMethod,
    private: Zeroizing<Vec<u8>>,
    public: Vec<u8>,
}

/// Why a key exchange failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KexError {
    /// The peer's value has the wrong length for the method.
    PublicLength {
        method: KeyExchangeMethod,
        octets: usize,
    },
    /// The peer's value is no point of the curve, or of low order (RFC 7748 section 6.1).
    InvalidPublic(KeyExchangeMethod),
    /// The octets are no private key of the method.
    InvalidPrivate(KeyExchangeMethod),
    /// The source of randomness yields no private key however often it is asked.
    NoEntropy,
}

impl fmt::Display for KexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KexError::PublicLength { method, octets } => {
                write!(
                    f,
                    "a public value of {octets} octets does not fit {}",
                    method.name()
                )
            }
            KexError::InvalidPublic(method) => {
                write!(f, "the public value is no valid point of {}", method.name())
            }
            KexError::InvalidPrivate(method) => {
                write!(f, "the octets are no private key of {}", method.name())
            }
            KexError::NoEntropy => write!(f, "randomness yields no private key"),
        }
    }
}

impl std::error::Error for KexError {}

impl KeyExchangeMethod {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            KeyExchangeMethod::X25519 => &agreement::X25519,
            KeyExchangeMethod::Ecp256 => &agreement::ECDH_P256,
            KeyExchangeMethod::Ecp384 => &agreement::ECDH_P384,
        }
    }

    /// Octets of a private key, and of one coordinate of a public value.
    const fn scalar_length(self) -> usize {
        match self {
            KeyExchangeMethod::X25519 | KeyExchangeMethod::Ecp256 => 32,
            KeyExchangeMethod::Ecp384 => 48,
        }
    }

    /// Octets of Key Exchange Data: a u coordinate, or x and y (RFC 5903 section 7).
    pub const fn public_length(self) -> usize {
        match self {
            KeyExchangeMethod::X25519 => 32,
            KeyExchangeMethod::Ecp256 => 64,
            KeyExchangeMethod::Ecp384 => 96,
        }
    }
}

/// Octet that marks an uncompressed point in SEC 1, which IKE leaves out.
const UNCOMPRESSED: u8 = 4;

impl KeyPair {
    /// Draws private keys until one is valid: for the ECP groups nearly always the first.
    pub fn generate(
        method: KeyExchangeMethod,
        entropy: &mut dyn Entropy,
    ) -> Result<KeyPair, KexError> {
        let mut private = Zeroizing::new(vec![0; method.scalar_length()]);
        for _ in 0..64 {
            entropy.fill(&mut private);
            if let Ok(pair) = KeyPair::import(method, &private) {
                return Ok(pair);
            }
        }
        Err(KexError::NoEntropy)
    }

    /// The key pair that was exported.
    pub fn import(method: KeyExchangeMethod, private: &[u8]) -> Result<KeyPair, KexError> {
        let invalid = KexError::InvalidPrivate(method);
        let key = PrivateKey::from_private_key(method.algorithm(), private).map_err(|_| invalid)?;
        let public = key.compute_public_key().map_err(|_| invalid)?;
        let public = match method {
            KeyExchangeMethod::X25519 => public.as_ref(),
            _ => public
                .as_ref()
                .strip_prefix(&[UNCOMPRESSED])
                .ok_or(invalid)?,
        };
        Ok(KeyPair {
            method,
            private: Zeroizing::new(private.to_vec()),
            public: public.to_vec(),
        })
    }

    /// The private key, for replication only.
    pub fn export(&self) -> Zeroizing<Vec<u8>> {
        self.private.clone()
    }

    pub fn method(&self) -> KeyExchangeMethod {
        self.method
    }

    /// Key Exchange Data to send.
    pub fn public(&self) -> Vec<u8> {
        self.public.clone()
    }

    /// g^ir from the peer's Key Exchange Data. For the ECP groups it is the x coordinate
    /// (RFC 5903 section 7).
    pub fn agree(&self, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, KexError> {
        let method = self.method;
        if peer.len() != method.public_length() {
            return Err(KexError::PublicLength {
                method,
                octets: peer.len(),
            });
        }
        let mut point = Vec::with_capacity(1 + peer.len());
        if method != KeyExchangeMethod::X25519 {
            point.push(UNCOMPRESSED);
        }
        point.extend(peer);
        let private = PrivateKey::from_private_key(method.algorithm(), &self.private)
            .map_err(|_| KexError::InvalidPrivate(method))?;
        agreement::agree(
            &private,
            UnparsedPublicKey::new(method.algorithm(), point),
            KexError::InvalidPublic(method),
            |shared| Ok(Zeroizing::new(shared.to_vec())),
        )
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({}, redacted)", self.method.keyword())
    }
}
