//! Key exchange: X25519 (RFC 8031), ECP groups 19 to 21 (RFC 5903), MODP groups 14 to 16
//! (RFC 3526), and ML-KEM-768.
//!
//! The initiator keeps a [`KeyPair`]; the responder answers at once, by [`respond`], for a KEM has
//! no half that could be made without the other side's. A pending exchange is part of what is
//! replicated, hence a private key that can be exported.

mod ml_kem;
mod modp;

use std::fmt;

use aws_lc_rs::agreement::{self, Algorithm, PrivateKey, UnparsedPublicKey};
use hitless_sa::Entropy;
use zeroize::Zeroizing;

use self::modp::Modp;
use crate::ike::proposal::KeyExchangeMethod;
use crate::ike::work;

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
    /// The peer's value is no point of the curve, of low order (RFC 7748 section 6.1), outside of
    /// its group (RFC 6989), or no encapsulation key (FIPS 203 section 7.2).
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
                write!(f, "the public value is none of {}", method.name())
            }
            KexError::InvalidPrivate(method) => {
                write!(f, "the octets are no private key of {}", method.name())
            }
            KexError::NoEntropy => write!(f, "randomness yields no private key"),
        }
    }
}

impl std::error::Error for KexError {}

/// What computes a method.
enum Kind {
    Curve(&'static Algorithm),
    Modp(Modp),
    MlKem,
}

impl KeyExchangeMethod {
    fn kind(self) -> Kind {
        match self {
            KeyExchangeMethod::X25519 => Kind::Curve(&agreement::X25519),
            KeyExchangeMethod::Ecp256 => Kind::Curve(&agreement::ECDH_P256),
            KeyExchangeMethod::Ecp384 => Kind::Curve(&agreement::ECDH_P384),
            KeyExchangeMethod::Ecp521 => Kind::Curve(&agreement::ECDH_P521),
            KeyExchangeMethod::Modp2048 => Kind::Modp(Modp::Bits2048),
            KeyExchangeMethod::Modp3072 => Kind::Modp(Modp::Bits3072),
            KeyExchangeMethod::Modp4096 => Kind::Modp(Modp::Bits4096),
            KeyExchangeMethod::MlKem768 => Kind::MlKem,
        }
    }

    /// Octets of a private key as it is exported.
    const fn private_length(self) -> usize {
        match self {
            KeyExchangeMethod::X25519 | KeyExchangeMethod::Ecp256 => 32,
            KeyExchangeMethod::Ecp384 => 48,
            KeyExchangeMethod::Ecp521 => 66,
            KeyExchangeMethod::Modp2048 => Modp::Bits2048.exponent_length(),
            KeyExchangeMethod::Modp3072 => Modp::Bits3072.exponent_length(),
            KeyExchangeMethod::Modp4096 => Modp::Bits4096.exponent_length(),
            KeyExchangeMethod::MlKem768 => ml_kem::SEED_LENGTH,
        }
    }

    /// Octets of the initiator's Key Exchange Data: a u coordinate, x and y (RFC 5903 section 7), a
    /// number as long as the modulus (RFC 7296 section 3.4), or an encapsulation key.
    pub const fn public_length(self) -> usize {
        match self {
            KeyExchangeMethod::X25519 => 32,
            KeyExchangeMethod::Ecp256 => 64,
            KeyExchangeMethod::Ecp384 => 96,
            KeyExchangeMethod::Ecp521 => 132,
            KeyExchangeMethod::Modp2048 => Modp::Bits2048.length(),
            KeyExchangeMethod::Modp3072 => Modp::Bits3072.length(),
            KeyExchangeMethod::Modp4096 => Modp::Bits4096.length(),
            KeyExchangeMethod::MlKem768 => ml_kem::ENCAPSULATION_KEY_LENGTH,
        }
    }

    /// Octets of the responder's Key Exchange Data.
    pub const fn response_length(self) -> usize {
        match self {
            KeyExchangeMethod::MlKem768 => ml_kem::CIPHERTEXT_LENGTH,
            _ => self.public_length(),
        }
    }

    /// Microseconds that one operation takes (`work.rs`): a public value, or a shared secret.
    const fn cost(self) -> u32 {
        match self {
            KeyExchangeMethod::X25519 | KeyExchangeMethod::Ecp256 | KeyExchangeMethod::MlKem768 => {
                40
            }
            KeyExchangeMethod::Ecp384 => 200,
            KeyExchangeMethod::Ecp521 => 350,
            KeyExchangeMethod::Modp2048 => 1_000,
            KeyExchangeMethod::Modp3072 => 3_000,
            KeyExchangeMethod::Modp4096 => 7_000,
        }
    }

    /// Whether it costs a responder so much that a flood of forged requests would hurt: a cookie
    /// is demanded for it earlier (RFC 7296 section 2.6).
    pub const fn is_costly(self) -> bool {
        matches!(
            self,
            KeyExchangeMethod::Modp2048 | KeyExchangeMethod::Modp3072 | KeyExchangeMethod::Modp4096
        )
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
        let mut private = Zeroizing::new(vec![0; method.private_length()]);
        for _ in 0..64 {
            entropy.fill(&mut private);
            // A scalar of P-521 has 521 bits in 66 octets: else hardly any draw would be valid.
            if method == KeyExchangeMethod::Ecp521
                && let Some(first) = private.first_mut()
            {
                *first &= 1;
            }
            if let Ok(pair) = KeyPair::import(method, &private) {
                return Ok(pair);
            }
        }
        Err(KexError::NoEntropy)
    }

    /// The key pair that was exported.
    pub fn import(method: KeyExchangeMethod, private: &[u8]) -> Result<KeyPair, KexError> {
        let invalid = KexError::InvalidPrivate(method);
        work::count(method.cost());
        let public = match method.kind() {
            Kind::Curve(algorithm) => curve_public(algorithm, private),
            Kind::Modp(group) => group.public(private),
            Kind::MlKem => ml_kem::public(private),
        };
        Ok(KeyPair {
            method,
            private: Zeroizing::new(private.to_vec()),
            public: public.ok_or(invalid)?,
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

    /// The shared secret, from the responder's Key Exchange Data. For the ECP groups it is the x
    /// coordinate (RFC 5903 section 7).
    pub fn agree(&self, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, KexError> {
        let method = self.method;
        check_length(method, method.response_length(), peer)?;
        work::count(method.cost());
        let shared = match method.kind() {
            Kind::Curve(algorithm) => curve_agree(algorithm, &self.private, peer),
            Kind::Modp(group) => group.agree(&self.private, peer),
            Kind::MlKem => ml_kem::decapsulate(&self.private, peer),
        };
        shared.ok_or(KexError::InvalidPublic(method))
    }
}

/// As responder: the Key Exchange Data to answer with, and the shared secret.
pub fn respond(
    method: KeyExchangeMethod,
    entropy: &mut dyn Entropy,
    peer: &[u8],
) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), KexError> {
    if method == KeyExchangeMethod::MlKem768 {
        check_length(method, method.public_length(), peer)?;
        work::count(method.cost());
        let mut message = Zeroizing::new([0; ml_kem::MESSAGE_LENGTH]);
        entropy.fill(message.as_mut_slice());
        return ml_kem::encapsulate(peer, message.as_slice())
            .ok_or(KexError::InvalidPublic(method));
    }
    // Before the work of a key pair: whoever sends what cannot be shall not get that for nothing.
    check_length(method, method.public_length(), peer)?;
    if let Kind::Modp(group) = method.kind()
        && !group.admits(peer)
    {
        return Err(KexError::InvalidPublic(method));
    }
    let ours = KeyPair::generate(method, entropy)?;
    let shared = ours.agree(peer)?;
    Ok((ours.public, shared))
}

fn check_length(method: KeyExchangeMethod, wanted: usize, peer: &[u8]) -> Result<(), KexError> {
    let octets = peer.len();
    let fits = octets == wanted;
    fits.then_some(())
        .ok_or(KexError::PublicLength { method, octets })
}

/// Key Exchange Data of a curve's private key: without the mark of SEC 1.
fn curve_public(algorithm: &'static Algorithm, private: &[u8]) -> Option<Vec<u8>> {
    let key = PrivateKey::from_private_key(algorithm, private).ok()?;
    let public = key.compute_public_key().ok()?;
    let octets = public.as_ref();
    let marked = algorithm != &agreement::X25519;
    let octets = if marked {
        octets.strip_prefix(&[UNCOMPRESSED])?
    } else {
        octets
    };
    Some(octets.to_vec())
}

fn curve_agree(
    algorithm: &'static Algorithm,
    private: &[u8],
    peer: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let mut point = Vec::with_capacity(1 + peer.len());
    if algorithm != &agreement::X25519 {
        point.push(UNCOMPRESSED);
    }
    point.extend(peer);
    let private = PrivateKey::from_private_key(algorithm, private).ok()?;
    let peer = UnparsedPublicKey::new(algorithm, point);
    agreement::agree(&private, peer, (), |shared| {
        Ok(Zeroizing::new(shared.to_vec()))
    })
    .ok()
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({}, redacted)", self.method.keyword())
    }
}

#[cfg(test)]
mod tests;
