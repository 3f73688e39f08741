//! Our private keys, and how they sign.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING,
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding,
};
use rustls_pki_types::PrivateKeyDer;

use super::signature::{
    Hash, METHOD_DIGITAL_SIGNATURE, METHOD_ECDSA_256, METHOD_ECDSA_384, METHOD_RSA, Scheme,
};
use crate::ike::work;

/// A key of ours. AWS-LC wipes it when it is dropped; it is never printed.
pub enum PrivateKey {
    Rsa(rsa::KeyPair),
    EcdsaP256 {
        /// Signatures in DER for method 14, as two numbers for method 9.
        der: EcdsaKeyPair,
        fixed: EcdsaKeyPair,
    },
    EcdsaP384 {
        der: EcdsaKeyPair,
        fixed: EcdsaKeyPair,
    },
    Ed25519(Ed25519KeyPair),
}

/// The octets are no private key of a kind that we use, or not whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnusableKey;

/// Which signatures `auth` allows: `pubkey`, `rsa`, `rsa/pss`, `ecdsa`, `ed25519`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Family {
    /// RSA signs with PSS.
    #[default]
    Any,
    RsaPkcs1,
    RsaPss,
    Ecdsa,
    Ed25519,
}

impl Family {
    pub fn allows(self, scheme: Scheme) -> bool {
        match self {
            Family::Any => true,
            Family::RsaPkcs1 => matches!(scheme, Scheme::RsaPkcs1(_)),
            Family::RsaPss => matches!(scheme, Scheme::RsaPss(_)),
            Family::Ecdsa => matches!(scheme, Scheme::Ecdsa(_)),
            Family::Ed25519 => scheme == Scheme::Ed25519,
        }
    }

    /// The same for a scheme by its name in [`Proven::method`](super::Proven).
    pub(super) fn allows_named(self, method: &str) -> bool {
        let mut schemes = Scheme::ALL
            .into_iter()
            .filter(|scheme| self.allows(*scheme));
        schemes.any(|scheme| format!("{scheme:?}") == method)
    }
}

impl PrivateKey {
    /// Reads PKCS #8, PKCS #1 or SEC 1.
    pub fn from_der(der: &PrivateKeyDer<'_>) -> Result<PrivateKey, UnusableKey> {
        let octets = der.secret_der();
        let rsa = match der {
            PrivateKeyDer::Pkcs1(_) => rsa::KeyPair::from_der(octets).ok(),
            PrivateKeyDer::Pkcs8(_) => rsa::KeyPair::from_pkcs8(octets).ok(),
            _ => None,
        };
        if let Some(rsa) = rsa {
            return Ok(PrivateKey::Rsa(rsa));
        }
        let ecdsa = |asn1, raw| {
            let der = EcdsaKeyPair::from_private_key_der(asn1, octets).ok()?;
            let fixed = EcdsaKeyPair::from_private_key_der(raw, octets).ok()?;
            Some((der, fixed))
        };
        if let Some((der, fixed)) = ecdsa(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            &ECDSA_P256_SHA256_FIXED_SIGNING,
        ) {
            return Ok(PrivateKey::EcdsaP256 { der, fixed });
        }
        if let Some((der, fixed)) = ecdsa(
            &ECDSA_P384_SHA384_ASN1_SIGNING,
            &ECDSA_P384_SHA384_FIXED_SIGNING,
        ) {
            return Ok(PrivateKey::EcdsaP384 { der, fixed });
        }
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(octets)
            .map(PrivateKey::Ed25519)
            .map_err(|_| UnusableKey)
    }

    /// The public key as the BIT STRING of a certificate has it.
    pub fn public_key(&self) -> &[u8] {
        match self {
            PrivateKey::Rsa(key) => key.public_key().as_ref(),
            PrivateKey::EcdsaP256 { der, .. } | PrivateKey::EcdsaP384 { der, .. } => {
                der.public_key().as_ref()
            }
            PrivateKey::Ed25519(key) => key.public_key().as_ref(),
        }
    }

    /// What this key signs with for a peer that accepts `hashes`. With RSA the shortest hash that
    /// the peer takes: all are stronger than the key.
    pub fn scheme(&self, family: Family, hashes: &[Hash]) -> Option<Scheme> {
        let candidates: Vec<Scheme> = match self {
            PrivateKey::Rsa(_) => {
                let hashes = [Hash::Sha256, Hash::Sha384, Hash::Sha512];
                let pss = hashes.map(Scheme::RsaPss);
                pss.into_iter()
                    .chain(hashes.map(Scheme::RsaPkcs1))
                    .collect()
            }
            PrivateKey::EcdsaP256 { .. } => vec![Scheme::Ecdsa(Hash::Sha256)],
            PrivateKey::EcdsaP384 { .. } => vec![Scheme::Ecdsa(Hash::Sha384)],
            PrivateKey::Ed25519(_) => vec![Scheme::Ed25519],
        };
        let mut usable = candidates
            .into_iter()
            .filter(|s| family.allows(*s) && hashes.contains(&s.hash()));
        usable.next()
    }

    /// Whether a certificate with this key can serve a connection of this `auth`.
    pub fn serves(&self, family: Family) -> bool {
        self.scheme(family, &Hash::ALL).is_some()
    }

    /// Whether it signs so that a peer takes it that knows no RFC 7427: of such a peer's RSA signatures
    /// those with SHA-1 alone are known (RFC 7296 section 3.8).
    pub fn signs_of_old(&self) -> bool {
        matches!(
            self,
            PrivateKey::EcdsaP256 { .. } | PrivateKey::EcdsaP384 { .. }
        )
    }

    /// Whether a peer that announced `hashes` takes what it signs.
    pub fn suits(&self, family: Family, hashes: &[Hash]) -> bool {
        self.scheme(family, hashes).is_some() || self.signs_of_old()
    }

    /// AUTH over `message`: method and data. `hashes`: what the peer announced (RFC 7427 section
    /// 4); with none of ours among them the older methods are left.
    pub fn sign(&self, family: Family, hashes: &[Hash], message: &[u8]) -> Option<(u8, Vec<u8>)> {
        work::count(self.cost());
        if let Some(scheme) = self.scheme(family, hashes) {
            let signature = self.signature(scheme, message)?;
            return Some((METHOD_DIGITAL_SIGNATURE, scheme.wrap(&signature)?));
        }
        match self {
            PrivateKey::EcdsaP256 { fixed, .. } => {
                let digest = digest::digest(&digest::SHA256, message);
                let signature = fixed.sign_digest(&digest).ok()?;
                Some((METHOD_ECDSA_256, signature.as_ref().to_vec()))
            }
            PrivateKey::EcdsaP384 { fixed, .. } => {
                let digest = digest::digest(&digest::SHA384, message);
                let signature = fixed.sign_digest(&digest).ok()?;
                Some((METHOD_ECDSA_384, signature.as_ref().to_vec()))
            }
            PrivateKey::Rsa(_) if family != Family::RsaPss => {
                let signature = self.signature(Scheme::RsaPkcs1(Hash::Sha256), message)?;
                Some((METHOD_RSA, signature))
            }
            PrivateKey::Rsa(_) | PrivateKey::Ed25519(_) => None,
        }
    }

    /// Microseconds of a signature (`work.rs`). With RSA it is the cube of the modulus' length.
    fn cost(&self) -> u32 {
        match self {
            PrivateKey::Rsa(key) => {
                let kilobits = u32::try_from(key.public_modulus_len() / 128).unwrap_or(u32::MAX);
                kilobits.min(64).pow(3).saturating_mul(90)
            }
            PrivateKey::EcdsaP256 { .. } | PrivateKey::Ed25519(_) => 30,
            PrivateKey::EcdsaP384 { .. } => 200,
        }
    }

    fn signature(&self, scheme: Scheme, message: &[u8]) -> Option<Vec<u8>> {
        let algorithm = match scheme.hash() {
            Hash::Sha384 => &digest::SHA384,
            Hash::Sha512 => &digest::SHA512,
            Hash::Sha256 | Hash::Identity => &digest::SHA256,
        };
        match (self, scheme) {
            (PrivateKey::Ed25519(key), Scheme::Ed25519) => {
                Some(key.sign(message).as_ref().to_vec())
            }
            (
                PrivateKey::EcdsaP256 { der, .. } | PrivateKey::EcdsaP384 { der, .. },
                Scheme::Ecdsa(_),
            ) => {
                let digest = digest::digest(algorithm, message);
                Some(der.sign_digest(&digest).ok()?.as_ref().to_vec())
            }
            (PrivateKey::Rsa(key), _) => {
                let encoding: &'static dyn RsaEncoding = match scheme {
                    Scheme::RsaPss(Hash::Sha256) => &RSA_PSS_SHA256,
                    Scheme::RsaPss(Hash::Sha384) => &RSA_PSS_SHA384,
                    Scheme::RsaPss(Hash::Sha512) => &RSA_PSS_SHA512,
                    Scheme::RsaPkcs1(Hash::Sha256) => &RSA_PKCS1_SHA256,
                    Scheme::RsaPkcs1(Hash::Sha384) => &RSA_PKCS1_SHA384,
                    Scheme::RsaPkcs1(Hash::Sha512) => &RSA_PKCS1_SHA512,
                    _ => return None,
                };
                let digest = digest::digest(algorithm, message);
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign_digest(encoding, &digest, &mut signature).ok()?;
                Some(signature)
            }
            _ => None,
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PrivateKey::Rsa(_) => "PrivateKey(RSA, redacted)",
            PrivateKey::EcdsaP256 { .. } => "PrivateKey(ECDSA P-256, redacted)",
            PrivateKey::EcdsaP384 { .. } => "PrivateKey(ECDSA P-384, redacted)",
            PrivateKey::Ed25519(_) => "PrivateKey(Ed25519, redacted)",
        })
    }
}
