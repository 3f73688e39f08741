//! AES-GCM for ESP (RFC 4106), in place, by one of two engines that give identical octets.
//!
//! aws-lc-rs is the fast one and the default; aes-gcm is portable Rust, and the oracle that the tests
//! hold the other against. Both verify before they give out plaintext, or wipe it.

use std::fmt;
use std::str::FromStr;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes128Gcm, Aes256Gcm, KeyInit};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hitless_sa::{EspSuite, ICV_LENGTH, IV_LENGTH, KeyMaterial, SALT_LENGTH};
use zeroize::Zeroize;

/// Octets of nonce: salt, then IV (RFC 4106 section 4).
const NONCE_LENGTH: usize = SALT_LENGTH + IV_LENGTH;

/// Which implementation computes AES-GCM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Engine {
    #[default]
    AwsLc,
    AesGcm,
}

impl Engine {
    /// The environment variable that forces an engine.
    pub const VARIABLE: &'static str = "HITLESS_AEAD";

    /// The engine that `HITLESS_AEAD` names, or the default one if it is not set.
    pub fn from_environment() -> Result<Engine, UnknownEngine> {
        match std::env::var(Engine::VARIABLE) {
            Ok(name) => name.parse(),
            Err(std::env::VarError::NotPresent) => Ok(Engine::default()),
            Err(std::env::VarError::NotUnicode(name)) => {
                Err(UnknownEngine(name.to_string_lossy().into_owned()))
            }
        }
    }

    /// The name in `status` and in `HITLESS_AEAD`.
    pub const fn name(self) -> &'static str {
        match self {
            Engine::AwsLc => "aws-lc",
            Engine::AesGcm => "aes-gcm",
        }
    }
}

impl FromStr for Engine {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Engine, UnknownEngine> {
        [Engine::AwsLc, Engine::AesGcm]
            .into_iter()
            .find(|engine| engine.name() == name)
            .ok_or_else(|| UnknownEngine(name.to_owned()))
    }
}

/// No engine has this name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownEngine(String);

impl fmt::Display for UnknownEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no AEAD engine `{}`; use aws-lc or aes-gcm", self.0)
    }
}

impl std::error::Error for UnknownEngine {}

/// Why key material cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyError {
    /// Not the length of the suite's key and salt.
    Length { suite: EspSuite, octets: usize },
    /// The engine refused the key.
    Engine(Engine),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Length { suite, octets } => write!(
                f,
                "{octets} octets of key material for {}, which needs {} (key and salt)",
                suite.name(),
                suite.key_material_length()
            ),
            KeyError::Engine(engine) => {
                write!(f, "{} refused the key; try the other engine", engine.name())
            }
        }
    }
}

impl std::error::Error for KeyError {}

/// Key and salt of one direction of an SA, ready for use. Wiped when dropped, never printed.
pub struct EspKey {
    cipher: Cipher,
    salt: [u8; SALT_LENGTH],
}

/// Each of them wipes its key schedule when dropped: aws-lc cleanses what it frees, aes-gcm is built
/// with `zeroize`.
enum Cipher {
    AwsLc(LessSafeKey),
    Aes128(Box<Aes128Gcm>),
    Aes256(Box<Aes256Gcm>),
}

impl EspKey {
    /// Expands the key. The salt is the last four octets of the material (RFC 4106 section 8.1).
    pub fn new(
        engine: Engine,
        suite: EspSuite,
        material: &KeyMaterial,
    ) -> Result<EspKey, KeyError> {
        let length = || KeyError::Length {
            suite,
            octets: material.expose().len(),
        };
        if material.expose().len() != suite.key_material_length() {
            return Err(length());
        }
        let (key, salt) = material
            .expose()
            .split_last_chunk::<SALT_LENGTH>()
            .ok_or_else(length)?;
        let refused = |_| KeyError::Engine(engine);
        let cipher = match (engine, suite) {
            (Engine::AwsLc, EspSuite::Aes128Gcm16) => {
                let key = UnboundKey::new(&AES_128_GCM, key).map_err(refused)?;
                Cipher::AwsLc(LessSafeKey::new(key))
            }
            (Engine::AwsLc, EspSuite::Aes256Gcm16) => {
                let key = UnboundKey::new(&AES_256_GCM, key).map_err(refused)?;
                Cipher::AwsLc(LessSafeKey::new(key))
            }
            (Engine::AesGcm, EspSuite::Aes128Gcm16) => Cipher::Aes128(Box::new(
                Aes128Gcm::new_from_slice(key).map_err(|_| length())?,
            )),
            (Engine::AesGcm, EspSuite::Aes256Gcm16) => Cipher::Aes256(Box::new(
                Aes256Gcm::new_from_slice(key).map_err(|_| length())?,
            )),
        };
        Ok(EspKey {
            cipher,
            salt: *salt,
        })
    }

    /// Encrypts in place and returns the ICV.
    ///
    /// One IV must never be used twice with one key; the caller's is the sequence number (S2).
    #[inline]
    pub fn seal(&self, iv: [u8; IV_LENGTH], aad: &[u8], text: &mut [u8]) -> [u8; ICV_LENGTH] {
        let nonce = self.nonce(iv);
        let icv: Option<[u8; ICV_LENGTH]> = match &self.cipher {
            Cipher::AwsLc(key) => key
                .seal_in_place_separate_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(aad),
                    text,
                )
                .ok()
                .and_then(|tag| tag.as_ref().try_into().ok()),
            Cipher::Aes128(key) => key
                .encrypt_inout_detached(&nonce.into(), aad, InOutBuf::from(&mut *text))
                .ok()
                .map(Into::into),
            Cipher::Aes256(key) => key
                .encrypt_inout_detached(&nonce.into(), aad, InOutBuf::from(&mut *text))
                .ok()
                .map(Into::into),
        };
        // Engines refuse only texts of gigabytes. If one ever does, no plaintext may leave (S6):
        // zeros do, which the peer drops.
        icv.unwrap_or_else(|| {
            text.fill(0);
            [0; ICV_LENGTH]
        })
    }

    /// Verifies and decrypts in place. False if the ICV is wrong; the text is then wiped or still
    /// the ciphertext.
    #[inline]
    #[must_use]
    pub fn open(
        &self,
        iv: [u8; IV_LENGTH],
        aad: &[u8],
        text: &mut [u8],
        icv: &[u8; ICV_LENGTH],
    ) -> bool {
        let nonce = self.nonce(iv);
        match &self.cipher {
            Cipher::AwsLc(key) => key
                .open_in_place_separate_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(aad),
                    icv,
                    text,
                )
                .is_ok(),
            Cipher::Aes128(key) => key
                .decrypt_inout_detached(&nonce.into(), aad, text.into(), &(*icv).into())
                .is_ok(),
            Cipher::Aes256(key) => key
                .decrypt_inout_detached(&nonce.into(), aad, text.into(), &(*icv).into())
                .is_ok(),
        }
    }

    /// Salt, then IV (RFC 4106 section 4).
    #[inline]
    fn nonce(&self, iv: [u8; IV_LENGTH]) -> [u8; NONCE_LENGTH] {
        let mut nonce = [0; NONCE_LENGTH];
        nonce[..SALT_LENGTH].copy_from_slice(&self.salt);
        nonce[SALT_LENGTH..].copy_from_slice(&iv);
        nonce
    }
}

impl fmt::Debug for EspKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EspKey(redacted)")
    }
}

impl Drop for EspKey {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}
