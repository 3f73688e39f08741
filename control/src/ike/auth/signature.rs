//! Digital signatures in AUTH: method 14 (RFC 7427, RFC 8420), and the methods 1, 9 and 10 of peers
//! that do not know it (RFC 7296 section 3.8, RFC 4754). SHA-1 is not accepted anywhere: a
//! collision of it forges the transcript (RFC 8247 section 3.2.1).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED,
    RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY as RSA_WITH_SHA1, UnparsedPublicKey,
    VerificationAlgorithm,
};
use rustls_pki_types::{AlgorithmIdentifier, SignatureVerificationAlgorithm, alg_id};
use webpki::aws_lc_rs as algorithms;
use webpki::{EndEntityCert, Error};

use super::certificate::Certificate;
use crate::ike::work;

/// AUTH methods (RFC 7296 section 3.8, RFC 4754, RFC 7427).
pub const METHOD_RSA: u8 = 1;
pub const METHOD_ECDSA_256: u8 = 9;
pub const METHOD_ECDSA_384: u8 = 10;
pub const METHOD_DIGITAL_SIGNATURE: u8 = 14;

/// A hash function of SIGNATURE_HASH_ALGORITHMS (RFC 7427 section 7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hash {
    Sha256,
    Sha384,
    Sha512,
    /// The algorithm hashes by itself: Ed25519 (RFC 8420 section 2).
    Identity,
}

impl Hash {
    pub const ALL: [Hash; 4] = [Hash::Sha256, Hash::Sha384, Hash::Sha512, Hash::Identity];

    pub const fn number(self) -> u16 {
        match self {
            Hash::Sha256 => 2,
            Hash::Sha384 => 3,
            Hash::Sha512 => 4,
            Hash::Identity => 5,
        }
    }

    /// Those of a SIGNATURE_HASH_ALGORITHMS notification that we know.
    pub fn list(data: &[u8]) -> Vec<Hash> {
        let (numbers, _) = data.as_chunks::<2>();
        let known = numbers.iter().filter_map(|number| {
            let number = u16::from_be_bytes(*number);
            Hash::ALL.into_iter().find(|hash| hash.number() == number)
        });
        known.take(Hash::ALL.len()).collect()
    }

    /// The data of our SIGNATURE_HASH_ALGORITHMS.
    pub fn announcement() -> Vec<u8> {
        let numbers = Hash::ALL.iter().map(|hash| hash.number().to_be_bytes());
        numbers.flatten().collect()
    }
}

/// How a signature is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// Salt as long as the hash (RFC 7427 section 4 with RFC 4055).
    RsaPss(Hash),
    RsaPkcs1(Hash),
    Ecdsa(Hash),
    Ed25519,
}

impl Scheme {
    pub(super) const ALL: [Scheme; 10] = [
        Scheme::RsaPss(Hash::Sha256),
        Scheme::RsaPss(Hash::Sha384),
        Scheme::RsaPss(Hash::Sha512),
        Scheme::RsaPkcs1(Hash::Sha256),
        Scheme::RsaPkcs1(Hash::Sha384),
        Scheme::RsaPkcs1(Hash::Sha512),
        Scheme::Ecdsa(Hash::Sha256),
        Scheme::Ecdsa(Hash::Sha384),
        Scheme::Ecdsa(Hash::Sha512),
        Scheme::Ed25519,
    ];

    pub const fn hash(self) -> Hash {
        match self {
            Scheme::RsaPss(hash) | Scheme::RsaPkcs1(hash) | Scheme::Ecdsa(hash) => hash,
            Scheme::Ed25519 => Hash::Identity,
        }
    }

    /// What goes into the AlgorithmIdentifier (RFC 7427 appendix A, RFC 8420 appendix A).
    fn identifier(self) -> Option<AlgorithmIdentifier> {
        Some(match self {
            Scheme::RsaPss(Hash::Sha256) => alg_id::RSA_PSS_SHA256,
            Scheme::RsaPss(Hash::Sha384) => alg_id::RSA_PSS_SHA384,
            Scheme::RsaPss(Hash::Sha512) => alg_id::RSA_PSS_SHA512,
            Scheme::RsaPkcs1(Hash::Sha256) => alg_id::RSA_PKCS1_SHA256,
            Scheme::RsaPkcs1(Hash::Sha384) => alg_id::RSA_PKCS1_SHA384,
            Scheme::RsaPkcs1(Hash::Sha512) => alg_id::RSA_PKCS1_SHA512,
            Scheme::Ecdsa(Hash::Sha256) => alg_id::ECDSA_SHA256,
            Scheme::Ecdsa(Hash::Sha384) => alg_id::ECDSA_SHA384,
            Scheme::Ecdsa(Hash::Sha512) => alg_id::ECDSA_SHA512,
            Scheme::Ed25519 => alg_id::ED25519,
            Scheme::RsaPss(_) | Scheme::RsaPkcs1(_) | Scheme::Ecdsa(_) => return None,
        })
    }

    /// AUTH data of method 14: length, AlgorithmIdentifier, signature (RFC 7427 section 3).
    pub fn wrap(self, signature: &[u8]) -> Option<Vec<u8>> {
        let content = self.identifier()?;
        let identifier = sequence(&[&content]);
        let mut data = vec![u8::try_from(identifier.len()).ok()?];
        data.extend(identifier);
        data.extend(signature);
        Some(data)
    }

    /// Takes the AUTH data of method 14 apart.
    pub fn unwrap(data: &[u8]) -> Result<(Scheme, &[u8]), SignatureError> {
        let (length, rest) = data.split_first().ok_or(SignatureError::Malformed)?;
        let (identifier, signature) = rest
            .split_at_checked(usize::from(*length))
            .ok_or(SignatureError::Malformed)?;
        let scheme = Scheme::ALL.into_iter().find(|s| s.is_named_by(identifier));
        Ok((scheme.ok_or(SignatureError::UnknownAlgorithm)?, signature))
    }

    /// Whether this is one of the encodings of the scheme. Parameters that say NULL may be absent
    /// (RFC 4055 sections 2.1 and 3.1).
    fn is_named_by(self, identifier: &[u8]) -> bool {
        let Some(content) = self.identifier() else {
            return false;
        };
        let content: &[u8] = &content;
        if identifier == sequence(&[content]) {
            return true;
        }
        let Some(bare) = content.strip_suffix(NULL) else {
            return match self {
                Scheme::RsaPss(hash) => pss_variants(hash).any(|v| v == identifier),
                _ => false,
            };
        };
        identifier == sequence(&[bare])
    }

    /// For keys of each kind, what verifies.
    fn algorithms(self) -> Vec<&'static dyn SignatureVerificationAlgorithm> {
        match self {
            Scheme::RsaPss(Hash::Sha256) => vec![algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY],
            Scheme::RsaPss(Hash::Sha384) => vec![algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY],
            Scheme::RsaPss(Hash::Sha512) => vec![algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY],
            Scheme::RsaPkcs1(Hash::Sha256) => vec![algorithms::RSA_PKCS1_2048_8192_SHA256],
            Scheme::RsaPkcs1(Hash::Sha384) => vec![algorithms::RSA_PKCS1_2048_8192_SHA384],
            Scheme::RsaPkcs1(Hash::Sha512) => vec![algorithms::RSA_PKCS1_2048_8192_SHA512],
            Scheme::Ecdsa(Hash::Sha256) => vec![
                algorithms::ECDSA_P256_SHA256,
                algorithms::ECDSA_P384_SHA256,
                algorithms::ECDSA_P521_SHA256,
            ],
            Scheme::Ecdsa(Hash::Sha384) => vec![
                algorithms::ECDSA_P256_SHA384,
                algorithms::ECDSA_P384_SHA384,
                algorithms::ECDSA_P521_SHA384,
            ],
            Scheme::Ecdsa(Hash::Sha512) => vec![
                algorithms::ECDSA_P256_SHA512,
                algorithms::ECDSA_P384_SHA512,
                algorithms::ECDSA_P521_SHA512,
            ],
            Scheme::Ed25519 => vec![algorithms::ED25519],
            Scheme::RsaPss(_) | Scheme::RsaPkcs1(_) | Scheme::Ecdsa(_) => vec![],
        }
    }

    /// Whether `signature` is the certificate's over `message`.
    fn verify(
        self,
        certificate: &Certificate,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        let holder = EndEntityCert::try_from(certificate.der());
        let holder = holder.map_err(|_| SignatureError::Certificate)?;
        for algorithm in self.algorithms() {
            match holder.verify_signature(algorithm, message, signature) {
                Ok(()) => return Ok(()),
                Err(Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)) => {}
                Err(_) => return Err(SignatureError::Wrong),
            }
        }
        Err(SignatureError::OtherKey)
    }
}

const NULL: &[u8] = &[5, 0];
const PSS: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
const MGF1: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8];

/// One DER element of less than 128 octets.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag, u8::try_from(content.len()).unwrap_or(u8::MAX)];
    out.extend(content);
    out
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, parts)
}

/// The trailerField with its default, which DER leaves out and RFC 7427 section A.4.3 prints.
const TRAILER: &[u8] = &[0xa3, 3, 2, 1, 1];

/// RSASSA-PSS-params (RFC 4055 section 3.1) with and without what may be absent: NULLs, the trailerField.
fn pss_variants(hash: Hash) -> impl Iterator<Item = Vec<u8>> {
    let (last, salt) = match hash {
        Hash::Sha384 => (2, 48),
        Hash::Sha512 => (3, 64),
        Hash::Sha256 | Hash::Identity => (1, 32),
    };
    let oid = [6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, last];
    let nulls: [(&[u8], &[u8]); 4] = [(NULL, NULL), (NULL, &[]), (&[], NULL), (&[], &[])];
    let both = |(outer, inner)| [&[][..], TRAILER].map(|trailer| (outer, inner, trailer));
    nulls
        .into_iter()
        .flat_map(both)
        .map(move |(outer, inner, trailer)| {
            let mask = sequence(&[MGF1, &sequence(&[&oid, inner])]);
            let parameters = sequence(&[
                &element(0xa0, &[&sequence(&[&oid, outer])]),
                &element(0xa1, &[&mask]),
                &element(0xa2, &[&[2, 1, salt]]),
                trailer,
            ]);
            sequence(&[PSS, &parameters])
        })
}

/// Why a signature does not authenticate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignatureError {
    Malformed,
    UnknownAlgorithm,
    /// The method is none of ours.
    UnknownMethod(u8),
    /// Made by another kind of key than the certificate has.
    OtherKey,
    Certificate,
    /// Made with SHA-1, which proves nothing.
    Sha1,
    Wrong,
}

impl std::fmt::Display for SignatureError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SignatureError::Malformed => write!(f, "malformed signature"),
            SignatureError::UnknownAlgorithm => write!(
                f,
                "signature algorithm is not accepted (SHA-1, or another one than RSA, ECDSA, Ed25519)"
            ),
            SignatureError::UnknownMethod(method) => {
                write!(f, "authentication method {method} is not accepted here")
            }
            SignatureError::OtherKey => {
                write!(
                    f,
                    "signature of another kind than the certificate's key makes"
                )
            }
            SignatureError::Certificate => write!(f, "certificate with an unusable key"),
            SignatureError::Sha1 => write!(
                f,
                "RSA signature with SHA-1 is not accepted: the peer did not say \
                 SIGNATURE_HASH_ALGORITHMS (RFC 7427); with an ECDSA certificate it needs none"
            ),
            SignatureError::Wrong => write!(f, "wrong signature"),
        }
    }
}

/// Microseconds of one verification (`work.rs`), by the slowest kind of key that is common.
const VERIFYING: u32 = 150;

/// Verifies AUTH of any signature method; gives what made it.
pub fn verify(
    certificate: &Certificate,
    method: u8,
    data: &[u8],
    message: &[u8],
) -> Result<Scheme, SignatureError> {
    work::count(VERIFYING);
    let fixed = |algorithm: &'static dyn VerificationAlgorithm, scheme| {
        let key = UnparsedPublicKey::new(algorithm, certificate.public_key());
        let verified = key.verify(message, data);
        verified.map(|()| scheme).map_err(|_| SignatureError::Wrong)
    };
    match method {
        METHOD_DIGITAL_SIGNATURE => {
            let (scheme, signature) = Scheme::unwrap(data)?;
            scheme.verify(certificate, message, signature)?;
            Ok(scheme)
        }
        // RFC 7296 section 3.8: "a receiver can determine the hash function by parsing".
        METHOD_RSA => {
            let candidates = [Hash::Sha256, Hash::Sha384, Hash::Sha512].map(Scheme::RsaPkcs1);
            for scheme in candidates {
                match scheme.verify(certificate, message, data) {
                    Ok(()) => return Ok(scheme),
                    Err(SignatureError::Wrong) => {}
                    Err(error) => return Err(error),
                }
            }
            // It names what is wrong, and opens nothing.
            let sha1 = fixed(&RSA_WITH_SHA1, Scheme::RsaPkcs1(Hash::Sha256));
            Err(match sha1 {
                Ok(_) => SignatureError::Sha1,
                Err(error) => error,
            })
        }
        METHOD_ECDSA_256 => fixed(&ECDSA_P256_SHA256_FIXED, Scheme::Ecdsa(Hash::Sha256)),
        METHOD_ECDSA_384 => fixed(&ECDSA_P384_SHA384_FIXED, Scheme::Ecdsa(Hash::Sha384)),
        other => Err(SignatureError::UnknownMethod(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7427 appendix A: the AlgorithmIdentifiers as they stand there.
    #[test]
    fn rfc7427_appendix_a_the_identifiers_of_the_algorithms() {
        let octets = |scheme: Scheme| scheme.wrap(&[]).unwrap();
        let known = [
            (
                Scheme::RsaPkcs1(Hash::Sha256),
                "300d06092a864886f70d01010b0500",
            ),
            (
                Scheme::RsaPkcs1(Hash::Sha384),
                "300d06092a864886f70d01010c0500",
            ),
            (
                Scheme::RsaPkcs1(Hash::Sha512),
                "300d06092a864886f70d01010d0500",
            ),
            (Scheme::Ecdsa(Hash::Sha256), "300a06082a8648ce3d040302"),
            (Scheme::Ecdsa(Hash::Sha384), "300a06082a8648ce3d040303"),
            (Scheme::Ecdsa(Hash::Sha512), "300a06082a8648ce3d040304"),
            (Scheme::Ed25519, "300506032b6570"),
            (
                Scheme::RsaPss(Hash::Sha256),
                "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886\
                 f70d010108300d06096086480165030402010500a203020120",
            ),
        ];
        for (scheme, hex) in known {
            let hex: String = hex.split_whitespace().collect();
            let expected = crate::ike::octets(&hex);
            assert_eq!(octets(scheme)[1..], expected, "{scheme:?}");
        }
    }

    #[test]
    fn rfc7427_section_3_auth_data_comes_apart_as_it_was_put_together() {
        for scheme in Scheme::ALL {
            let data = scheme.wrap(b"signature").unwrap();
            assert_eq!(Scheme::unwrap(&data), Ok((scheme, &b"signature"[..])));
            let identifier = usize::from(data[0]) + 1;
            for cut in 0..identifier {
                assert!(Scheme::unwrap(&data[..cut]).is_err(), "{scheme:?} {cut}");
            }
            for at in 1..identifier {
                let mut flipped = data.clone();
                flipped[at] ^= 0x40;
                assert_ne!(Scheme::unwrap(&flipped), Ok((scheme, &b"signature"[..])));
            }
        }
    }

    /// RFC 4055 section 2.1: "implementations MUST accept both" encodings of the hash.
    #[test]
    fn rfc4055_section_2_1_null_parameters_of_hashes_may_be_absent() {
        for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
            for variant in pss_variants(hash) {
                let mut data = vec![variant.len() as u8];
                data.extend(variant);
                assert_eq!(Scheme::unwrap(&data), Ok((Scheme::RsaPss(hash), &[][..])));
            }
        }
    }

    #[test]
    fn rfc7427_section_a_4_3_the_trailer_field_may_be_said() {
        for (hash, last, salt) in [
            (Hash::Sha256, 1, 32),
            (Hash::Sha384, 2, 48),
            (Hash::Sha512, 3, 64),
        ] {
            let oid = [
                0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, last,
            ];
            let mut data = vec![
                72, 0x30, 0x46, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d,
            ];
            data.extend([0x01, 0x01, 0x0a, 0x30, 0x39, 0xa0, 0x0f, 0x30, 0x0d]);
            data.extend(oid);
            data.extend([
                0x05, 0x00, 0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48,
            ]);
            data.extend([0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, 0x30, 0x0d]);
            data.extend(oid);
            data.extend([0x05, 0x00, 0xa2, 0x03, 0x02, 0x01, salt]);
            data.extend([0xa3, 0x03, 0x02, 0x01, 0x01]);
            data.extend(b"signature");
            let unwrapped = Scheme::unwrap(&data);
            assert_eq!(unwrapped, Ok((Scheme::RsaPss(hash), &b"signature"[..])));
        }
    }

    /// RFC 7427 section 4: unknown hash functions are skipped, and repetitions cost nothing.
    #[test]
    fn rfc7427_section_4_hashes_that_we_know_are_taken_from_the_list() {
        assert_eq!(Hash::list(&Hash::announcement()), Hash::ALL);
        assert_eq!(Hash::list(&[0, 1, 0, 3, 9, 9, 0]), [Hash::Sha384]);
        assert_eq!(Hash::list(&[]), []);
        assert!(Hash::list(&[0, 2].repeat(1000)).len() <= 4);
    }
}
