//! AES-GCM and ChaCha20-Poly1305 by one of the scalar engines. Both verify before they give out
//! plaintext, or wipe it.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit, Nonce as PortableNonce, Tag as PortableTag};
use aes_gcm::aes::Aes192;
use aes_gcm::aes::cipher::consts::U12;
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm};
use aws_lc_rs::aead::{
    AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use chacha20poly1305::ChaCha20Poly1305;
use hitless_sa::EspSuite;
use zeroize::Zeroize;

use super::{Engine, ICV_LENGTH, IV_LENGTH};

/// Octets of salt, which go in front of the IV to make the nonce.
const SALT_LENGTH: usize = 4;
const NONCE_LENGTH: usize = SALT_LENGTH + IV_LENGTH;

type Aes192Gcm = AesGcm<Aes192, U12>;

/// Key and salt.
pub(super) struct Combined {
    cipher: Cipher,
    salt: [u8; SALT_LENGTH],
}

/// Each of them wipes its key schedule when dropped: aws-lc cleanses what it frees, the portable ones
/// are built with `zeroize`.
enum Cipher {
    AwsLc(LessSafeKey),
    Aes128(Box<Aes128Gcm>),
    Aes192(Box<Aes192Gcm>),
    Aes256(Box<Aes256Gcm>),
    ChaCha(Box<ChaCha20Poly1305>),
}

impl Combined {
    /// None if the lengths are not the suite's, or the suite is none of these.
    pub(super) fn new(
        engine: Engine,
        suite: EspSuite,
        key: &[u8],
        salt: &[u8],
    ) -> Option<Combined> {
        let cipher = match engine {
            // What a burst kernel does not do, aws-lc does.
            Engine::Burst(_) | Engine::AwsLc => {
                let algorithm = match suite {
                    EspSuite::Aes128Gcm16
                    | EspSuite::Aes128Gmac
                    | EspSuite::Aes128Gcm16ImplicitIv => &AES_128_GCM,
                    EspSuite::Aes192Gcm16
                    | EspSuite::Aes192Gmac
                    | EspSuite::Aes192Gcm16ImplicitIv => &AES_192_GCM,
                    EspSuite::Aes256Gcm16
                    | EspSuite::Aes256Gmac
                    | EspSuite::Aes256Gcm16ImplicitIv => &AES_256_GCM,
                    EspSuite::ChaCha20Poly1305 | EspSuite::ChaCha20Poly1305ImplicitIv => {
                        &CHACHA20_POLY1305
                    }
                    EspSuite::Aes128CbcHmacSha256
                    | EspSuite::Aes192CbcHmacSha256
                    | EspSuite::Aes256CbcHmacSha256
                    | EspSuite::Aes128CbcHmacSha384
                    | EspSuite::Aes192CbcHmacSha384
                    | EspSuite::Aes256CbcHmacSha384
                    | EspSuite::Aes128CbcHmacSha512
                    | EspSuite::Aes192CbcHmacSha512
                    | EspSuite::Aes256CbcHmacSha512 => return None,
                };
                Cipher::AwsLc(LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?))
            }
            Engine::AesGcm => Cipher::portable(suite, key)?,
        };
        Some(Combined {
            cipher,
            salt: salt.try_into().ok()?,
        })
    }

    /// Encrypts in place and returns the ICV. None if the engine refuses, which it does for texts of
    /// gigabytes only; the text is then zeros, so that no plaintext may leave (S6).
    #[inline]
    pub(super) fn seal(
        &self,
        iv: [u8; IV_LENGTH],
        aad: &[u8],
        text: &mut [u8],
    ) -> Option<[u8; ICV_LENGTH]> {
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
            Cipher::Aes128(key) => seal_portable(&**key, nonce, aad, text),
            Cipher::Aes192(key) => seal_portable(&**key, nonce, aad, text),
            Cipher::Aes256(key) => seal_portable(&**key, nonce, aad, text),
            Cipher::ChaCha(key) => seal_portable(&**key, nonce, aad, text),
        };
        if icv.is_none() {
            text.fill(0);
        }
        icv
    }

    /// Verifies and decrypts in place. False if the ICV is wrong; the text is then wiped or still
    /// the ciphertext.
    #[inline]
    #[must_use]
    pub(super) fn open(
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
            Cipher::Aes128(key) => open_portable(&**key, nonce, aad, text, icv),
            Cipher::Aes192(key) => open_portable(&**key, nonce, aad, text, icv),
            Cipher::Aes256(key) => open_portable(&**key, nonce, aad, text, icv),
            Cipher::ChaCha(key) => open_portable(&**key, nonce, aad, text, icv),
        }
    }

    /// Salt, then IV (RFC 4106 section 4, RFC 7634 section 2, RFC 4543 section 3.2).
    #[inline]
    fn nonce(&self, iv: [u8; IV_LENGTH]) -> [u8; NONCE_LENGTH] {
        let mut nonce = [0; NONCE_LENGTH];
        nonce[..SALT_LENGTH].copy_from_slice(&self.salt);
        nonce[SALT_LENGTH..].copy_from_slice(&iv);
        nonce
    }
}

impl Cipher {
    fn portable(suite: EspSuite, key: &[u8]) -> Option<Cipher> {
        Some(match suite {
            EspSuite::Aes128Gcm16 | EspSuite::Aes128Gmac | EspSuite::Aes128Gcm16ImplicitIv => {
                Cipher::Aes128(Box::new(Aes128Gcm::new_from_slice(key).ok()?))
            }
            EspSuite::Aes192Gcm16 | EspSuite::Aes192Gmac | EspSuite::Aes192Gcm16ImplicitIv => {
                Cipher::Aes192(Box::new(Aes192Gcm::new_from_slice(key).ok()?))
            }
            EspSuite::Aes256Gcm16 | EspSuite::Aes256Gmac | EspSuite::Aes256Gcm16ImplicitIv => {
                Cipher::Aes256(Box::new(Aes256Gcm::new_from_slice(key).ok()?))
            }
            EspSuite::ChaCha20Poly1305 | EspSuite::ChaCha20Poly1305ImplicitIv => {
                Cipher::ChaCha(Box::new(ChaCha20Poly1305::new_from_slice(key).ok()?))
            }
            EspSuite::Aes128CbcHmacSha256
            | EspSuite::Aes192CbcHmacSha256
            | EspSuite::Aes256CbcHmacSha256
            | EspSuite::Aes128CbcHmacSha384
            | EspSuite::Aes192CbcHmacSha384
            | EspSuite::Aes256CbcHmacSha384
            | EspSuite::Aes128CbcHmacSha512
            | EspSuite::Aes192CbcHmacSha512
            | EspSuite::Aes256CbcHmacSha512 => return None,
        })
    }
}

#[inline]
fn seal_portable<A: AeadInOut<NonceSize = U12>>(
    key: &A,
    nonce: [u8; NONCE_LENGTH],
    aad: &[u8],
    text: &mut [u8],
) -> Option<[u8; ICV_LENGTH]> {
    let nonce = PortableNonce::<A>::from(nonce);
    let tag = key.encrypt_inout_detached(&nonce, aad, InOutBuf::from(&mut *text));
    tag.ok()?.as_slice().try_into().ok()
}

#[inline]
fn open_portable<A: AeadInOut<NonceSize = U12>>(
    key: &A,
    nonce: [u8; NONCE_LENGTH],
    aad: &[u8],
    text: &mut [u8],
    icv: &[u8; ICV_LENGTH],
) -> bool {
    let nonce = PortableNonce::<A>::from(nonce);
    let Ok(tag) = PortableTag::<A>::try_from(icv.as_slice()) else {
        return false;
    };
    let text = InOutBuf::from(&mut *text);
    key.decrypt_inout_detached(&nonce, aad, text, &tag).is_ok()
}

impl Drop for Combined {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}
