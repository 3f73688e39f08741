//! AES-CBC with HMAC-SHA2-256-128, 384-192 or 512-256 (RFC 3602, RFC 4868): encrypt, then authenticate.
//!
//! ```text
//!  SPI 4 | number 4 | IV 16 | text, whole blocks | ICV 16, 24 or 32
//!                             --- encrypted ---
//!  ------------- authenticated, then the high half of the number with ESN -----
//! ```
//!
//! CBC wants an IV that nobody can predict (RFC 3602 section 3), and it must not come twice. Ours is
//! the 64-bit sequence number as one block, encrypted under a key of its own, HKDF-Expand (RFC 5869)
//! of the cipher's key: one number gives one IV, a number is sent once over any failover (S1), and
//! who does not know the key cannot tell the IV from a random one.

use aes::cipher::{Array, BlockCipherEncrypt, InnerIvInit, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use aws_lc_rs::hmac;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt};
use zeroize::Zeroizing;

use super::HEADER_LENGTH;

pub(super) const BLOCK: usize = 16;
/// What the IV key is derived from the cipher's key with.
const IV_LABEL: &[u8] = b"hitless ESP AES-CBC IV";

/// How many octets the IV key has.
struct IvKey;

impl KeyType for IvKey {
    fn len(&self) -> usize {
        BLOCK
    }
}

/// The keys of one direction. Where they lie in the end they are wiped when dropped: aws-lc cleanses
/// its HMAC state, the AES ones are built with `zeroize`. Copies that moving them has left behind are
/// not; who builds them sees to that (`EspKey::new`).
pub(super) struct Cbc {
    cipher: Cipher,
    iv: Aes128,
    integrity: hmac::Key,
    icv_length: usize,
}

enum Cipher {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

impl Cbc {
    /// None if the cipher's key has a length that AES does not know.
    pub(super) fn new(hash: hmac::Algorithm, key: &[u8], integrity: &[u8]) -> Option<Cbc> {
        let cipher = match key.len() {
            16 => Cipher::Aes128(Aes128::new_from_slice(key).ok()?),
            24 => Cipher::Aes192(Aes192::new_from_slice(key).ok()?),
            32 => Cipher::Aes256(Aes256::new_from_slice(key).ok()?),
            _ => return None,
        };
        let mut iv_key = Zeroizing::new([0; BLOCK]);
        let secret = Prk::new_less_safe(HKDF_SHA256, key);
        let derived = secret.expand(&[IV_LABEL], IvKey).ok()?;
        derived.fill(&mut *iv_key).ok()?;
        Some(Cbc {
            cipher,
            iv: Aes128::new_from_slice(&*iv_key).ok()?,
            integrity: hmac::Key::new(hash, integrity),
            // RFC 4868 section 2.3: the first half.
            icv_length: hash.digest_algorithm().output_len() / 2,
        })
    }

    /// The IV of a number.
    pub(super) fn iv(&self, number: u64) -> [u8; BLOCK] {
        let mut block = Array::from(u128::from(number).to_be_bytes());
        self.iv.encrypt_block(&mut block);
        block.into()
    }

    /// False if the text is not whole blocks.
    pub(super) fn seal(&self, esp: &mut [u8], high: Option<u32>) -> bool {
        let Some((covered, icv)) = self.covered(esp) else {
            return false;
        };
        let Some((iv, text)) = iv_and_text(covered) else {
            return false;
        };
        self.cipher.encrypt(iv, text);
        let tag = self.tag(covered, high);
        let Some(tag) = tag.as_ref().get(..icv.len()) else {
            return false;
        };
        icv.copy_from_slice(tag);
        true
    }

    /// False if the ICV is wrong or the text is not whole blocks; it is then still the ciphertext.
    pub(super) fn open(&self, esp: &mut [u8], high: Option<u32>) -> bool {
        let Some((covered, icv)) = self.covered(esp) else {
            return false;
        };
        let tag = self.tag(covered, high);
        let same = |tag: &[u8]| verify_slices_are_equal(tag, icv).is_ok();
        if !tag.as_ref().get(..icv.len()).is_some_and(same) {
            return false;
        }
        let Some((iv, text)) = iv_and_text(covered) else {
            return false;
        };
        self.cipher.decrypt(iv, text);
        true
    }

    /// What the ICV covers of a packet, and the ICV.
    fn covered<'a>(&self, esp: &'a mut [u8]) -> Option<(&'a mut [u8], &'a mut [u8])> {
        let end = esp.len().checked_sub(self.icv_length)?;
        esp.split_at_mut_checked(end)
    }

    /// RFC 4303 section 2.2.1: with a separate integrity algorithm "the high-order 32 bits are included
    /// as part of the ICV computation", after the packet (section 3.3.2.1).
    pub(super) fn tag(&self, covered: &[u8], high: Option<u32>) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.integrity);
        context.update(covered);
        if let Some(high) = high {
            context.update(&high.to_be_bytes());
        }
        context.sign()
    }
}

/// Behind SPI and number: the IV, and whole blocks of text.
fn iv_and_text(covered: &mut [u8]) -> Option<([u8; BLOCK], &mut [u8])> {
    let (_, rest) = covered.split_at_mut_checked(HEADER_LENGTH)?;
    let (iv, text) = rest.split_first_chunk_mut::<BLOCK>()?;
    text.len().is_multiple_of(BLOCK).then_some((*iv, text))
}

impl Cipher {
    /// In place; the text is a whole number of blocks.
    fn encrypt(&self, iv: [u8; BLOCK], text: &mut [u8]) {
        let (blocks, _) = Array::slice_as_chunks_mut(text);
        let iv = iv.into();
        match self {
            Cipher::Aes128(key) => cbc::Encryptor::inner_iv_init(key, &iv).encrypt_blocks(blocks),
            Cipher::Aes192(key) => cbc::Encryptor::inner_iv_init(key, &iv).encrypt_blocks(blocks),
            Cipher::Aes256(key) => cbc::Encryptor::inner_iv_init(key, &iv).encrypt_blocks(blocks),
        }
    }

    /// In place; the text is a whole number of blocks.
    fn decrypt(&self, iv: [u8; BLOCK], text: &mut [u8]) {
        let (blocks, _) = Array::slice_as_chunks_mut(text);
        let iv = iv.into();
        match self {
            Cipher::Aes128(key) => cbc::Decryptor::inner_iv_init(key, &iv).decrypt_blocks(blocks),
            Cipher::Aes192(key) => cbc::Decryptor::inner_iv_init(key, &iv).decrypt_blocks(blocks),
            Cipher::Aes256(key) => cbc::Decryptor::inner_iv_init(key, &iv).decrypt_blocks(blocks),
        }
    }
}
