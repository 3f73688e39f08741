//! ESP algorithm suites and the keys that they need.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// How packets are encrypted and authenticated. None of them leaves a packet without integrity: no
/// suite is NULL with NULL (RFC 4303 section 3.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transform {
    /// RFC 4106.
    AesGcm16,
    /// RFC 7634.
    ChaCha20Poly1305,
    /// Integrity alone (RFC 4543).
    AesGmac,
    /// RFC 3602 with RFC 4868: HMAC-SHA2-256-128, 384-192 and 512-256.
    AesCbcHmacSha256,
    AesCbcHmacSha384,
    AesCbcHmacSha512,
    /// AES-GCM without an IV on the wire (RFC 8750).
    AesGcm16ImplicitIv,
    /// ChaCha20-Poly1305 without an IV on the wire (RFC 8750).
    ChaCha20Poly1305ImplicitIv,
}

/// The algorithms of an ESP SA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EspSuite {
    Aes128Gcm16,
    Aes192Gcm16,
    Aes256Gcm16,
    ChaCha20Poly1305,
    Aes128Gmac,
    Aes192Gmac,
    Aes256Gmac,
    Aes128CbcHmacSha256,
    Aes192CbcHmacSha256,
    Aes256CbcHmacSha256,
    Aes128CbcHmacSha384,
    Aes192CbcHmacSha384,
    Aes256CbcHmacSha384,
    Aes128CbcHmacSha512,
    Aes192CbcHmacSha512,
    Aes256CbcHmacSha512,
    Aes128Gcm16ImplicitIv,
    Aes192Gcm16ImplicitIv,
    Aes256Gcm16ImplicitIv,
    ChaCha20Poly1305ImplicitIv,
}

impl EspSuite {
    /// All of them.
    pub const ALL: &'static [EspSuite] = &[
        EspSuite::Aes128Gcm16,
        EspSuite::Aes192Gcm16,
        EspSuite::Aes256Gcm16,
        EspSuite::ChaCha20Poly1305,
        EspSuite::Aes128Gmac,
        EspSuite::Aes192Gmac,
        EspSuite::Aes256Gmac,
        EspSuite::Aes128CbcHmacSha256,
        EspSuite::Aes192CbcHmacSha256,
        EspSuite::Aes256CbcHmacSha256,
        EspSuite::Aes128CbcHmacSha384,
        EspSuite::Aes192CbcHmacSha384,
        EspSuite::Aes256CbcHmacSha384,
        EspSuite::Aes128CbcHmacSha512,
        EspSuite::Aes192CbcHmacSha512,
        EspSuite::Aes256CbcHmacSha512,
        EspSuite::Aes128Gcm16ImplicitIv,
        EspSuite::Aes192Gcm16ImplicitIv,
        EspSuite::Aes256Gcm16ImplicitIv,
        EspSuite::ChaCha20Poly1305ImplicitIv,
    ];

    pub const fn transform(self) -> Transform {
        match self {
            EspSuite::Aes128Gcm16 | EspSuite::Aes192Gcm16 | EspSuite::Aes256Gcm16 => {
                Transform::AesGcm16
            }
            EspSuite::ChaCha20Poly1305 => Transform::ChaCha20Poly1305,
            EspSuite::Aes128Gmac | EspSuite::Aes192Gmac | EspSuite::Aes256Gmac => {
                Transform::AesGmac
            }
            EspSuite::Aes128CbcHmacSha256
            | EspSuite::Aes192CbcHmacSha256
            | EspSuite::Aes256CbcHmacSha256 => Transform::AesCbcHmacSha256,
            EspSuite::Aes128CbcHmacSha384
            | EspSuite::Aes192CbcHmacSha384
            | EspSuite::Aes256CbcHmacSha384 => Transform::AesCbcHmacSha384,
            EspSuite::Aes128CbcHmacSha512
            | EspSuite::Aes192CbcHmacSha512
            | EspSuite::Aes256CbcHmacSha512 => Transform::AesCbcHmacSha512,
            EspSuite::Aes128Gcm16ImplicitIv
            | EspSuite::Aes192Gcm16ImplicitIv
            | EspSuite::Aes256Gcm16ImplicitIv => Transform::AesGcm16ImplicitIv,
            EspSuite::ChaCha20Poly1305ImplicitIv => Transform::ChaCha20Poly1305ImplicitIv,
        }
    }

    /// The suite of a transform with keys of so many octets.
    pub fn new(transform: Transform, key_length: usize) -> Option<EspSuite> {
        let mut all = EspSuite::ALL.iter().copied();
        all.find(|suite| suite.transform() == transform && suite.key_length() == key_length)
    }

    /// Octets of the cipher's key, without the salt.
    pub const fn key_length(self) -> usize {
        match self {
            EspSuite::Aes128Gcm16
            | EspSuite::Aes128Gmac
            | EspSuite::Aes128CbcHmacSha256
            | EspSuite::Aes128CbcHmacSha384
            | EspSuite::Aes128CbcHmacSha512
            | EspSuite::Aes128Gcm16ImplicitIv => 16,
            EspSuite::Aes192Gcm16
            | EspSuite::Aes192Gmac
            | EspSuite::Aes192CbcHmacSha256
            | EspSuite::Aes192CbcHmacSha384
            | EspSuite::Aes192CbcHmacSha512
            | EspSuite::Aes192Gcm16ImplicitIv => 24,
            EspSuite::Aes256Gcm16
            | EspSuite::ChaCha20Poly1305
            | EspSuite::Aes256Gmac
            | EspSuite::Aes256CbcHmacSha256
            | EspSuite::Aes256CbcHmacSha384
            | EspSuite::Aes256CbcHmacSha512
            | EspSuite::Aes256Gcm16ImplicitIv
            | EspSuite::ChaCha20Poly1305ImplicitIv => 32,
        }
    }

    /// Octets of salt that follow the key (RFC 4106 section 8.1, RFC 7634 section 2, RFC 4543
    /// section 5.2).
    pub const fn salt_length(self) -> usize {
        match self.integrity_key_length() {
            0 => 4,
            _ => 0,
        }
    }

    /// Octets of the integrity algorithm's key (RFC 4868 section 2.1.1).
    pub const fn integrity_key_length(self) -> usize {
        match self.transform() {
            Transform::AesCbcHmacSha256 => 32,
            Transform::AesCbcHmacSha384 => 48,
            Transform::AesCbcHmacSha512 => 64,
            Transform::AesGcm16
            | Transform::ChaCha20Poly1305
            | Transform::AesGmac
            | Transform::AesGcm16ImplicitIv
            | Transform::ChaCha20Poly1305ImplicitIv => 0,
        }
    }

    /// Octets of key material to derive for one direction.
    pub const fn key_material_length(self) -> usize {
        self.key_length() + self.salt_length() + self.integrity_key_length()
    }

    /// Octets of IV in each packet (RFC 4106 section 3.1, RFC 3602 section 3, RFC 8750 section 4).
    pub const fn iv_length(self) -> usize {
        match self.transform() {
            Transform::AesGcm16 | Transform::ChaCha20Poly1305 | Transform::AesGmac => 8,
            Transform::AesCbcHmacSha256
            | Transform::AesCbcHmacSha384
            | Transform::AesCbcHmacSha512 => 16,
            Transform::AesGcm16ImplicitIv | Transform::ChaCha20Poly1305ImplicitIv => 0,
        }
    }

    /// Octets of ICV (RFC 4106 section 6, RFC 7634 section 2, RFC 4543 section 3.4; RFC 4868 section
    /// 2.3: half of what the hash gives).
    pub const fn icv_length(self) -> usize {
        match self.integrity_key_length() {
            0 => 16,
            octets => octets / 2,
        }
    }

    /// Payload, padding and trailer fill a multiple of this (RFC 4303 section 2.4).
    pub const fn alignment(self) -> usize {
        match self.integrity_key_length() {
            0 => 4,
            _ => 16,
        }
    }

    /// The name in `list-sas`, as strongSwan prints it.
    pub const fn name(self) -> &'static str {
        match self {
            EspSuite::Aes128Gcm16 => "AES_GCM_16-128",
            EspSuite::Aes192Gcm16 => "AES_GCM_16-192",
            EspSuite::Aes256Gcm16 => "AES_GCM_16-256",
            EspSuite::ChaCha20Poly1305 => "CHACHA20_POLY1305",
            EspSuite::Aes128Gmac => "NULL_AES_GMAC-128",
            EspSuite::Aes192Gmac => "NULL_AES_GMAC-192",
            EspSuite::Aes256Gmac => "NULL_AES_GMAC-256",
            EspSuite::Aes128CbcHmacSha256 => "AES_CBC-128/HMAC_SHA2_256_128",
            EspSuite::Aes192CbcHmacSha256 => "AES_CBC-192/HMAC_SHA2_256_128",
            EspSuite::Aes256CbcHmacSha256 => "AES_CBC-256/HMAC_SHA2_256_128",
            EspSuite::Aes128CbcHmacSha384 => "AES_CBC-128/HMAC_SHA2_384_192",
            EspSuite::Aes192CbcHmacSha384 => "AES_CBC-192/HMAC_SHA2_384_192",
            EspSuite::Aes256CbcHmacSha384 => "AES_CBC-256/HMAC_SHA2_384_192",
            EspSuite::Aes128CbcHmacSha512 => "AES_CBC-128/HMAC_SHA2_512_256",
            EspSuite::Aes192CbcHmacSha512 => "AES_CBC-192/HMAC_SHA2_512_256",
            EspSuite::Aes256CbcHmacSha512 => "AES_CBC-256/HMAC_SHA2_512_256",
            EspSuite::Aes128Gcm16ImplicitIv => "AES_GCM_16_IIV-128",
            EspSuite::Aes192Gcm16ImplicitIv => "AES_GCM_16_IIV-192",
            EspSuite::Aes256Gcm16ImplicitIv => "AES_GCM_16_IIV-256",
            EspSuite::ChaCha20Poly1305ImplicitIv => "CHACHA20_POLY1305_IIV",
        }
    }

    /// The words in `esp_proposals`: strongSwan's, and for implicit IVs, which it does not have, the
    /// same with `iiv`.
    pub const fn keyword(self) -> &'static str {
        match self {
            EspSuite::Aes128Gcm16 => "aes128gcm16",
            EspSuite::Aes192Gcm16 => "aes192gcm16",
            EspSuite::Aes256Gcm16 => "aes256gcm16",
            EspSuite::ChaCha20Poly1305 => "chacha20poly1305",
            EspSuite::Aes128Gmac => "aes128gmac",
            EspSuite::Aes192Gmac => "aes192gmac",
            EspSuite::Aes256Gmac => "aes256gmac",
            EspSuite::Aes128CbcHmacSha256 => "aes128-sha256",
            EspSuite::Aes192CbcHmacSha256 => "aes192-sha256",
            EspSuite::Aes256CbcHmacSha256 => "aes256-sha256",
            EspSuite::Aes128CbcHmacSha384 => "aes128-sha384",
            EspSuite::Aes192CbcHmacSha384 => "aes192-sha384",
            EspSuite::Aes256CbcHmacSha384 => "aes256-sha384",
            EspSuite::Aes128CbcHmacSha512 => "aes128-sha512",
            EspSuite::Aes192CbcHmacSha512 => "aes192-sha512",
            EspSuite::Aes256CbcHmacSha512 => "aes256-sha512",
            EspSuite::Aes128Gcm16ImplicitIv => "aes128gcm16iiv",
            EspSuite::Aes192Gcm16ImplicitIv => "aes192gcm16iiv",
            EspSuite::Aes256Gcm16ImplicitIv => "aes256gcm16iiv",
            EspSuite::ChaCha20Poly1305ImplicitIv => "chacha20poly1305iiv",
        }
    }
}

/// The keys of one direction of an SA. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct KeyMaterial(Box<[u8]>);

/// Key material, cut up. Secret.
pub struct KeyParts<'a> {
    pub key: &'a [u8],
    pub salt: &'a [u8],
    pub integrity: &'a [u8],
}

impl KeyMaterial {
    /// Key and salt, then integrity key, as the KEYMAT of RFC 7296 section 2.17 yields them.
    pub fn new(octets: &[u8]) -> KeyMaterial {
        KeyMaterial(octets.into())
    }

    /// All octets: for derivation, installation and replication only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The keys in it, if it is as long as the suite needs.
    pub fn parts(&self, suite: EspSuite) -> Option<KeyParts<'_>> {
        if self.0.len() != suite.key_material_length() {
            return None;
        }
        let (key, rest) = self.0.split_at_checked(suite.key_length())?;
        let (salt, integrity) = rest.split_at_checked(suite.salt_length())?;
        Some(KeyParts {
            key,
            salt,
            integrity,
        })
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyMaterial({} octets, redacted)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_material_is_not_printed() {
        let printed = format!("{:?}", KeyMaterial::new(&[0xab; 20]));
        assert_eq!(printed, "KeyMaterial(20 octets, redacted)");
    }

    #[test]
    fn key_material_is_cut_into_key_salt_and_integrity_key() {
        let octets: Vec<u8> = (0..100).collect();
        for &suite in EspSuite::ALL {
            let length = suite.key_material_length();
            let material = KeyMaterial::new(&octets[..length]);
            let parts = material.parts(suite).unwrap();
            assert_eq!(parts.key.len(), suite.key_length());
            assert_eq!(parts.salt.len(), suite.salt_length());
            assert_eq!(parts.integrity.len(), suite.integrity_key_length());
            let joined = [parts.key, parts.salt, parts.integrity].concat();
            assert_eq!(joined, octets[..length]);
            for wrong in [0, length - 1, length + 1] {
                assert!(KeyMaterial::new(&octets[..wrong]).parts(suite).is_none());
            }
        }
    }

    /// RFC 4303 section 3.2: "both algorithms MUST NOT be simultaneously NULL"; and every suite is
    /// told apart by transform and key length, by name and by keyword.
    #[test]
    fn rfc4303_section_3_2_every_suite_has_integrity_and_is_named_once() {
        for (index, &suite) in EspSuite::ALL.iter().enumerate() {
            let tag = [16, 24, 32].contains(&suite.icv_length());
            assert!(tag && (suite.icv_length() == 16 || suite.alignment() == 16));
            let same = EspSuite::new(suite.transform(), suite.key_length());
            assert_eq!(same, Some(suite));
            for other in &EspSuite::ALL[..index] {
                assert_ne!(suite.name(), other.name());
                assert_ne!(suite.keyword(), other.keyword());
            }
        }
        assert_eq!(EspSuite::new(Transform::ChaCha20Poly1305, 16), None);
    }
}
