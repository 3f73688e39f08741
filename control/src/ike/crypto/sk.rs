//! The SK payload (RFC 7296 section 3.14, RFC 5282 for AES-GCM, RFC 7634 for ChaCha20-Poly1305).
//!
//! ```text
//!  AEAD      IKE header | SK header | IV 8  | payloads, padding, pad length | ICV 16
//!            <------ AAD -------->          <--------- encrypted ---------->
//!  AES-CBC   IKE header | SK header | IV 16 | payloads, padding, pad length | ICV
//!            <----------------------- HMAC ------------------------------->
//! ```
//!
//! In an SKF payload (RFC 7383) the fragment's number and their total stand in front of the IV, and
//! belong to the AAD.

use std::collections::BTreeMap;
use std::fmt;

use aes::{Aes128, Aes192, Aes256};
use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use cbc::cipher::array::Array;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use hitless_sa::{Entropy, IkeSpi, Incarnation, MemberId};
use zeroize::Zeroizing;

use super::prf::equal;
use crate::ike::message::{
    FragmentPlace, HEADER_LENGTH, Header, MessageError, PAYLOAD_HEADER_LENGTH, Payload,
    PayloadKind, SkFault, emit_header, emit_payloads, first_kind, locate_sealed, parse_payloads,
};
use crate::ike::proposal::{Encryption, Integrity};

/// Octets of salt that follow the AEAD key (RFC 5282 section 4).
const SALT_LENGTH: usize = 4;
/// Octets of explicit IV with an AEAD (RFC 5282 section 3.1, RFC 7634 section 3).
const AEAD_IV_LENGTH: usize = 8;
/// Octets of an AEAD's ICV (RFC 5282 section 3.3).
const AEAD_ICV_LENGTH: usize = 16;
const BLOCK: usize = 16;
/// Octets of Fragment Number and Total Fragments (RFC 7383 section 2.5).
const PLACE_LENGTH: usize = 4;

impl Encryption {
    /// Octets of SK_ei and SK_er, with the salt.
    pub const fn key_material_length(self) -> usize {
        match self {
            Encryption::Aes128Gcm16 => 16 + SALT_LENGTH,
            Encryption::Aes192Gcm16 => 24 + SALT_LENGTH,
            // RFC 7634 section 2: a salt of 32 bits here as well.
            Encryption::Aes256Gcm16 | Encryption::ChaCha20Poly1305 => 32 + SALT_LENGTH,
            Encryption::Aes128Cbc => 16,
            Encryption::Aes192Cbc => 24,
            Encryption::Aes256Cbc => 32,
        }
    }
}

impl Integrity {
    /// Octets of SK_ai and SK_ar (RFC 4868 section 2.1.1).
    pub const fn key_length(self) -> usize {
        match self {
            Integrity::HmacSha256_128 => 32,
            Integrity::HmacSha384_192 => 48,
            Integrity::HmacSha512_256 => 64,
        }
    }

    /// Octets of ICV: half of the output (RFC 4868 section 2.3).
    pub const fn icv_length(self) -> usize {
        self.key_length() / 2
    }

    fn algorithm(self) -> hmac::Algorithm {
        match self {
            Integrity::HmacSha256_128 => hmac::HMAC_SHA256,
            Integrity::HmacSha384_192 => hmac::HMAC_SHA384,
            Integrity::HmacSha512_256 => hmac::HMAC_SHA512,
        }
    }
}

/// The unique part of AEAD nonces: member (8 bits), incarnation (24), counter (32). No two
/// members and no two lives of one member share a value, so that any of them may use the keys of
/// an IKE SA at any time (`lease-holes` R17).
///
/// The counter is the IKE SA's own, so that what is said to many peers is used up by none of them. It
/// is no part of the IKE SA, which may go back to an older record or come again from another member: no
/// value comes back in this life.
#[derive(Debug)]
pub struct IvCounter {
    prefix: u64,
    /// The next value of each IKE SA, by our SPI; beyond 32 bits there is none.
    next: BTreeMap<IkeSpi, u64>,
    /// That of all others: nobody who was forgotten has drawn it.
    floor: u64,
}

/// IKE SAs that are remembered.
const REMEMBERED: usize = 1 << 17;
/// Who is so far ahead of the others is not forgotten, lest all others follow.
const AHEAD: u64 = 1 << 16;

impl IvCounter {
    /// `None` if the incarnation no longer fits: then no IKE SA may be resumed, only made anew.
    pub fn new(member: MemberId, incarnation: Incarnation) -> Option<IvCounter> {
        let fits = incarnation.0 < 1 << 24;
        fits.then(|| IvCounter {
            prefix: u64::from(member.0) << 56 | u64::from(incarnation.0) << 32,
            next: BTreeMap::new(),
            floor: 0,
        })
    }

    /// A value that was never given before for the IKE SA with this SPI of ours; `None` once all are
    /// used up.
    pub fn draw(&mut self, ike: IkeSpi) -> Option<[u8; 8]> {
        if self.next.len() >= REMEMBERED && !self.next.contains_key(&ike) {
            self.forget();
        }
        let next = self.next.entry(ike).or_insert(self.floor);
        let counter = u32::try_from(*next).ok()?;
        *next += 1;
        Some((self.prefix | u64::from(counter)).to_be_bytes())
    }

    /// All go on from where the first of them is.
    fn forget(&mut self) {
        let ahead = self.floor.saturating_add(AHEAD);
        let mut floor = self.floor;
        self.next.retain(|_, next| {
            let stays = *next > ahead;
            if !stays {
                floor = floor.max(*next);
            }
            stays
        });
        self.floor = floor;
    }
}

/// What a message's IV is made of; each cipher takes what it needs.
pub struct IvSource<'a> {
    /// Never the same twice for one key: the IV of an AEAD.
    pub unique: [u8; 8],
    /// Unpredictable: the IV of AES-CBC.
    pub entropy: &'a mut dyn Entropy,
}

/// Keys of the wrong length for their algorithm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyLengthError {
    pub expected: usize,
    pub actual: usize,
}

impl fmt::Display for KeyLengthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} octets of keys where {} are needed",
            self.actual, self.expected
        )
    }
}

impl std::error::Error for KeyLengthError {}

/// What an SK or SKF payload holds, authenticated and decrypted.
pub struct Opened {
    /// The place of a fragment; `None` for a whole message.
    pub place: Option<FragmentPlace>,
    /// Type of the first payload; of a fragment only the first says it.
    pub first: PayloadKind,
    pub content: Zeroizing<Vec<u8>>,
}

/// Keys of one direction of an IKE SA, ready to use. Never printed.
pub struct SkKeys(Cipher);

enum Cipher {
    Aead {
        key: Box<LessSafeKey>,
        salt: [u8; SALT_LENGTH],
    },
    Cbc {
        key: CbcKey,
        mac: Box<hmac::Key>,
        icv_length: usize,
    },
}

enum CbcKey {
    Aes128(Zeroizing<[u8; 16]>),
    Aes192(Zeroizing<[u8; 24]>),
    Aes256(Zeroizing<[u8; 32]>),
}

impl fmt::Debug for SkKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SkKeys(redacted)")
    }
}

impl SkKeys {
    /// From SK_e (with the salt) and, unless the cipher is an AEAD, SK_a.
    pub fn new(
        encryption: Encryption,
        integrity: Option<Integrity>,
        sk_e: &[u8],
        sk_a: &[u8],
    ) -> Result<SkKeys, KeyLengthError> {
        let wrong = KeyLengthError {
            expected: encryption.key_material_length(),
            actual: sk_e.len(),
        };
        let key = match encryption {
            Encryption::Aes128Gcm16 => return aead_keys(&aead::AES_128_GCM, sk_e).ok_or(wrong),
            Encryption::Aes192Gcm16 => return aead_keys(&aead::AES_192_GCM, sk_e).ok_or(wrong),
            Encryption::Aes256Gcm16 => return aead_keys(&aead::AES_256_GCM, sk_e).ok_or(wrong),
            Encryption::ChaCha20Poly1305 => {
                return aead_keys(&aead::CHACHA20_POLY1305, sk_e).ok_or(wrong);
            }
            Encryption::Aes128Cbc => {
                CbcKey::Aes128(Zeroizing::new(sk_e.try_into().map_err(|_| wrong)?))
            }
            Encryption::Aes192Cbc => {
                CbcKey::Aes192(Zeroizing::new(sk_e.try_into().map_err(|_| wrong)?))
            }
            Encryption::Aes256Cbc => {
                CbcKey::Aes256(Zeroizing::new(sk_e.try_into().map_err(|_| wrong)?))
            }
        };
        // A proposal has an integrity algorithm exactly when its cipher is not combined-mode.
        let integrity = integrity.unwrap_or(Integrity::HmacSha256_128);
        if sk_a.len() != integrity.key_length() {
            return Err(KeyLengthError {
                expected: integrity.key_length(),
                actual: sk_a.len(),
            });
        }
        Ok(SkKeys(Cipher::Cbc {
            key,
            mac: Box::new(hmac::Key::new(integrity.algorithm(), sk_a)),
            icv_length: integrity.icv_length(),
        }))
    }

    /// Writes a message whose only payload is an SK payload with `payloads` inside.
    pub fn seal(&self, header: &Header, payloads: &[Payload], iv: IvSource<'_>) -> Vec<u8> {
        self.seal_padded(header, payloads, iv, 0)
    }

    /// Padding is minimal (none with an AEAD, RFC 5282 section 3), plus `blocks` of 16 octets.
    fn seal_padded(
        &self,
        header: &Header,
        payloads: &[Payload],
        iv: IvSource<'_>,
        blocks: u8,
    ) -> Vec<u8> {
        let content = Zeroizing::new(emit_payloads(payloads));
        self.seal_content(header, None, first_kind(payloads), &content, iv, blocks)
    }

    /// Writes a datagram with a part of a message's content in an SKF payload, or with all of it in
    /// an SK payload if `place` is `None`. `first` is the type of the first payload inside.
    pub fn seal_part(
        &self,
        header: &Header,
        place: Option<FragmentPlace>,
        first: PayloadKind,
        content: &[u8],
        iv: IvSource<'_>,
    ) -> Vec<u8> {
        self.seal_content(header, place, first, content, iv, 0)
    }

    fn seal_content(
        &self,
        header: &Header,
        place: Option<FragmentPlace>,
        first: PayloadKind,
        content: &[u8],
        iv: IvSource<'_>,
        blocks: u8,
    ) -> Vec<u8> {
        let (iv_length, icv_length) = self.overhead();
        let minimal = match self.0 {
            Cipher::Aead { .. } => 0,
            Cipher::Cbc { .. } => (BLOCK - (content.len() + 1) % BLOCK) % BLOCK,
        };
        let padding = (minimal + BLOCK * usize::from(blocks)).min(255);
        let place_length = place.map_or(0, |_| PLACE_LENGTH);
        let body = place_length + iv_length + content.len() + padding + 1 + icv_length;
        let length = HEADER_LENGTH + PAYLOAD_HEADER_LENGTH + body;

        let mut out = Vec::with_capacity(length);
        let kind = place.map_or(PayloadKind::SK, |_| PayloadKind::SKF);
        emit_header(&mut out, header, kind, length);
        out.extend([first.0, 0]);
        let body = u16::try_from(PAYLOAD_HEADER_LENGTH + body).unwrap_or(u16::MAX);
        out.extend(body.to_be_bytes());
        if let Some(place) = place {
            out.extend(place.number.to_be_bytes());
            out.extend(place.total.to_be_bytes());
        }

        let mut plain = Zeroizing::new(Vec::with_capacity(content.len() + padding + 1));
        plain.extend(content.iter());
        plain.resize(content.len() + padding, 0);
        plain.push(u8::try_from(padding).unwrap_or(u8::MAX));
        match &self.0 {
            Cipher::Aead { key, salt } => seal_aead(&mut out, key, salt, iv.unique, &mut plain),
            Cipher::Cbc {
                key,
                mac,
                icv_length,
            } => {
                let mut octets = [0; BLOCK];
                iv.entropy.fill(&mut octets);
                key.encrypt(&octets, &mut plain);
                out.extend(octets);
                out.extend(plain.iter());
                let icv = hmac::sign(mac, &out);
                out.extend(icv.as_ref().iter().take(*icv_length));
            }
        }
        out
    }

    /// Octets of content that fit into a fragment of `limit` octets of IKE message, with minimal
    /// padding; `None` if there is no room for any.
    pub fn capacity(&self, limit: usize) -> Option<usize> {
        let (iv_length, icv_length) = self.overhead();
        let around = HEADER_LENGTH + PAYLOAD_HEADER_LENGTH + PLACE_LENGTH + iv_length + icv_length;
        let room = limit.checked_sub(around)?;
        let room = match self.0 {
            Cipher::Aead { .. } => room,
            Cipher::Cbc { .. } => room - room % BLOCK,
        };
        room.checked_sub(1).filter(|room| *room > 0)
    }

    /// Checks the integrity of a datagram with an SK payload and reads what is inside.
    ///
    /// An error whose [`MessageError::notify`] is not `None` was found inside authentic content:
    /// it may be answered. With any other error nothing in the datagram is authentic.
    pub fn open(&self, datagram: &[u8]) -> Result<Vec<Payload>, MessageError> {
        match self.open_part(datagram)? {
            Opened {
                place: None,
                first,
                content,
            } => parse_payloads(first, &content),
            Opened { .. } => Err(MessageError::NotProtected),
        }
    }

    /// Checks the integrity of a datagram with an SK or SKF payload and decrypts it.
    pub fn open_part(&self, datagram: &[u8]) -> Result<Opened, MessageError> {
        let sealed = locate_sealed(datagram).map_err(|_| MessageError::NotProtected)?;
        let (before, body) = datagram
            .split_at_checked(sealed.body)
            .ok_or(MessageError::NotProtected)?;
        let plain = match &self.0 {
            Cipher::Aead { key, salt } => open_aead(key, salt, before, body),
            Cipher::Cbc {
                key,
                mac,
                icv_length,
            } => open_cbc(key, mac, *icv_length, before, body),
        };
        let mut plain = plain.map_err(MessageError::Protection)?;
        // RFC 7296 section 3.14: the recipient must accept any length of padding, whatever its
        // content.
        let (padding, rest) = plain.split_last().ok_or(MessageError::Padding)?;
        let length = rest.len().checked_sub(usize::from(*padding));
        plain.truncate(length.ok_or(MessageError::Padding)?);
        Ok(Opened {
            place: sealed.place,
            first: sealed.first,
            content: plain,
        })
    }

    /// Octets of IV and of ICV.
    fn overhead(&self) -> (usize, usize) {
        match self.0 {
            Cipher::Aead { .. } => (AEAD_IV_LENGTH, AEAD_ICV_LENGTH),
            Cipher::Cbc { icv_length, .. } => (BLOCK, icv_length),
        }
    }
}

fn aead_keys(algorithm: &'static aead::Algorithm, sk_e: &[u8]) -> Option<SkKeys> {
    let (key, salt) = sk_e.split_last_chunk()?;
    let key = Box::new(LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?));
    Some(SkKeys(Cipher::Aead { key, salt: *salt }))
}

/// Salt, then IV (RFC 5282 section 4).
fn aead_nonce(salt: &[u8; SALT_LENGTH], iv: [u8; AEAD_IV_LENGTH]) -> Nonce {
    let [a, b, c, d] = *salt;
    let [e, f, g, h, i, j, k, l] = iv;
    Nonce::assume_unique_for_key([a, b, c, d, e, f, g, h, i, j, k, l])
}

fn seal_aead(
    out: &mut Vec<u8>,
    key: &LessSafeKey,
    salt: &[u8; SALT_LENGTH],
    iv: [u8; AEAD_IV_LENGTH],
    plain: &mut [u8],
) {
    let nonce = aead_nonce(salt, iv);
    // RFC 5282 section 5.1: the associated data ends before the IV.
    let tag = key
        .seal_in_place_separate_tag(nonce, Aad::from(out.as_slice()), plain)
        .expect("an AEAD refuses only what is longer than 2^36 octets");
    out.extend(iv);
    out.extend(plain.iter());
    out.extend(tag.as_ref());
}

fn open_aead(
    key: &LessSafeKey,
    salt: &[u8; SALT_LENGTH],
    aad: &[u8],
    body: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SkFault> {
    let (iv, sealed) = body
        .split_first_chunk()
        .filter(|(_, sealed)| sealed.len() > AEAD_ICV_LENGTH)
        .ok_or(SkFault::TooShort(body.len()))?;
    let mut plain = Zeroizing::new(sealed.to_vec());
    let length = key
        .open_in_place(aead_nonce(salt, *iv), Aad::from(aad), &mut plain)
        .map_err(|_| SkFault::Icv)?
        .len();
    plain.truncate(length);
    Ok(plain)
}

fn open_cbc(
    key: &CbcKey,
    mac: &hmac::Key,
    icv_length: usize,
    before: &[u8],
    body: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SkFault> {
    let too_short = SkFault::TooShort(body.len());
    let covered = body.len().checked_sub(icv_length).ok_or(too_short)?;
    let (covered, icv) = body.split_at_checked(covered).ok_or(too_short)?;
    let (iv, sealed) = covered.split_first_chunk().ok_or(too_short)?;
    if sealed.is_empty() {
        return Err(too_short);
    }
    if !sealed.len().is_multiple_of(BLOCK) {
        return Err(SkFault::Blocks(sealed.len()));
    }
    let mut context = hmac::Context::with_key(mac);
    context.update(before);
    context.update(covered);
    let expected = context.sign();
    let expected = expected.as_ref().get(..icv_length).ok_or(SkFault::Icv)?;
    if !equal(expected, icv) {
        return Err(SkFault::Icv);
    }
    let mut plain = Zeroizing::new(sealed.to_vec());
    key.decrypt(iv, &mut plain);
    Ok(plain)
}

impl CbcKey {
    /// In place; `octets` is a whole number of blocks.
    fn encrypt(&self, iv: &[u8; BLOCK], octets: &mut [u8]) {
        let (blocks, _) = Array::slice_as_chunks_mut(octets);
        match self {
            CbcKey::Aes128(key) => {
                cbc::Encryptor::<Aes128>::new(&(**key).into(), &(*iv).into()).encrypt_blocks(blocks)
            }
            CbcKey::Aes192(key) => {
                cbc::Encryptor::<Aes192>::new(&(**key).into(), &(*iv).into()).encrypt_blocks(blocks)
            }
            CbcKey::Aes256(key) => {
                cbc::Encryptor::<Aes256>::new(&(**key).into(), &(*iv).into()).encrypt_blocks(blocks)
            }
        }
    }

    /// In place; `octets` is a whole number of blocks.
    fn decrypt(&self, iv: &[u8; BLOCK], octets: &mut [u8]) {
        let (blocks, _) = Array::slice_as_chunks_mut(octets);
        match self {
            CbcKey::Aes128(key) => {
                cbc::Decryptor::<Aes128>::new(&(**key).into(), &(*iv).into()).decrypt_blocks(blocks)
            }
            CbcKey::Aes192(key) => {
                cbc::Decryptor::<Aes192>::new(&(**key).into(), &(*iv).into()).decrypt_blocks(blocks)
            }
            CbcKey::Aes256(key) => {
                cbc::Decryptor::<Aes256>::new(&(**key).into(), &(*iv).into()).decrypt_blocks(blocks)
            }
        }
    }
}

#[cfg(test)]
mod tests;
