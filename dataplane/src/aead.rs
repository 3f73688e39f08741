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
/// Octets of SPI and sequence number.
const HEADER_LENGTH: usize = 8;

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

/// A whole ESP packet to seal or to open: SPI, sequence number, IV, text, room for the ICV. No two of
/// a burst overlap.
pub struct Job<'a> {
    pub key: &'a EspKey,
    /// Header and IV are in place.
    pub esp: &'a mut [u8],
    /// The high half of the sequence number, which the ICV covers but the packet does not carry
    /// (RFC 4303 section 2.2.1). Only with ESN.
    pub high: Option<u32>,
    /// Whether the packet was sealed, or verified and decrypted. If not, its text is wiped or still
    /// the ciphertext.
    pub ok: bool,
}

/// Encrypts every text in place and writes every ICV.
///
/// One IV must never be used twice with one key; the caller's is the sequence number (S2).
#[inline]
pub fn seal_burst(jobs: &mut [Job<'_>]) {
    for job in jobs {
        job.ok = job.key.seal_packet(job.esp, job.high);
    }
}

/// Verifies every ICV and decrypts every text in place, each by itself: one that is bad changes
/// nothing for the others.
#[inline]
pub fn open_burst(jobs: &mut [Job<'_>]) {
    for job in jobs {
        job.ok = job.key.open_packet(job.esp, job.high);
    }
}

/// The parts of a whole ESP packet.
struct Parts<'a> {
    header: [u8; HEADER_LENGTH],
    iv: [u8; IV_LENGTH],
    text: &'a mut [u8],
    icv: &'a mut [u8; ICV_LENGTH],
}

impl<'a> Parts<'a> {
    #[inline]
    fn of(esp: &'a mut [u8]) -> Option<Parts<'a>> {
        let (header, rest) = esp.split_first_chunk_mut()?;
        let (iv, rest) = rest.split_first_chunk_mut()?;
        let (text, icv) = rest.split_last_chunk_mut()?;
        Some(Parts {
            header: *header,
            iv: *iv,
            text,
            icv,
        })
    }

    /// SPI and sequence number as the ICV covers them: with ESN the whole number (RFC 4106 section
    /// 5). The second half is how many octets count.
    #[inline]
    fn aad(&self, high: Option<u32>) -> ([u8; HEADER_LENGTH + 4], usize) {
        let mut aad = [0; HEADER_LENGTH + 4];
        aad[..HEADER_LENGTH].copy_from_slice(&self.header);
        let Some(high) = high else {
            return (aad, HEADER_LENGTH);
        };
        aad.copy_within(4..HEADER_LENGTH, HEADER_LENGTH);
        aad[4..HEADER_LENGTH].copy_from_slice(&high.to_be_bytes());
        (aad, HEADER_LENGTH + 4)
    }
}

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

    /// As [`seal_burst`], of one packet. False if it is too short to be ESP.
    #[inline]
    pub fn seal_packet(&self, esp: &mut [u8], high: Option<u32>) -> bool {
        let Some(parts) = Parts::of(esp) else {
            return false;
        };
        let (aad, length) = parts.aad(high);
        *parts.icv = self.seal(parts.iv, &aad[..length], parts.text);
        true
    }

    /// As [`open_burst`], of one packet. False if it is too short to be ESP.
    #[inline]
    #[must_use]
    pub fn open_packet(&self, esp: &mut [u8], high: Option<u32>) -> bool {
        let Some(parts) = Parts::of(esp) else {
            return false;
        };
        let (aad, length) = parts.aad(high);
        self.open(parts.iv, &aad[..length], parts.text, parts.icv)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ENGINES: [Engine; 2] = [Engine::AwsLc, Engine::AesGcm];

    fn octets(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    fn esp_key(engine: Engine, key: &[u8], salt: &[u8]) -> EspKey {
        let suite = match key.len() {
            16 => EspSuite::Aes128Gcm16,
            _ => EspSuite::Aes256Gcm16,
        };
        EspKey::new(engine, suite, &KeyMaterial::new(&[key, salt].concat())).unwrap()
    }

    /// The GCM specification (McGrew and Viega), appendix B, cases 1, 2, 4, 13, 14 and 16: key,
    /// nonce, AAD, plaintext, ciphertext, tag.
    const VECTORS: [[&str; 6]; 6] = [
        [
            "00000000000000000000000000000000",
            "000000000000000000000000",
            "",
            "",
            "",
            "58e2fccefa7e3061367f1d57a4e7455a",
        ],
        [
            "00000000000000000000000000000000",
            "000000000000000000000000",
            "",
            "00000000000000000000000000000000",
            "0388dace60b6a392f328c2b971b2fe78",
            "ab6e47d42cec13bdf53a67b21257bddf",
        ],
        [
            "feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
             1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e\
             21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
            "5bc94fbc3221a5db94fae95ae7121a47",
        ],
        [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "000000000000000000000000",
            "",
            "",
            "",
            "530f8afbc74536b9a963b4f1c4cb738b",
        ],
        [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "000000000000000000000000",
            "",
            "00000000000000000000000000000000",
            "cea7403d4d606b6e074ec5d3baf39d18",
            "d0d1c8a799996bf0265b98b5d48ab919",
        ],
        [
            "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
             1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
             8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            "76fc6ece0f4e1768cddf8853bb2d551b",
        ],
    ];

    #[test]
    fn both_engines_give_the_vectors_of_the_gcm_specification() {
        for [key, nonce, aad, plain, cipher, tag] in VECTORS.map(|v| v.map(octets)) {
            let iv: [u8; IV_LENGTH] = nonce[SALT_LENGTH..].try_into().unwrap();
            for engine in ENGINES {
                let esp_key = esp_key(engine, &key, &nonce[..SALT_LENGTH]);
                let mut text = plain.clone();
                let icv = esp_key.seal(iv, &aad, &mut text);
                assert_eq!(
                    (&text, icv.as_slice()),
                    (&cipher, tag.as_slice()),
                    "{engine:?}"
                );
                assert!(esp_key.open(iv, &aad, &mut text, &icv));
                assert_eq!(text, plain);
            }
        }
    }

    #[test]
    fn the_engines_agree_at_every_length() {
        let plain: Vec<u8> = (0..=2000u32).map(|i| (i * 7) as u8).collect();
        for key_octets in [16, 32] {
            let [one, other] = ENGINES.map(|engine| esp_key(engine, &plain[..key_octets], b"salt"));
            for length in 0..=2000usize {
                let iv = (length as u64).to_be_bytes();
                let aad = &plain[..8 + length % 2 * 4];
                let (mut a, mut b) = (plain[..length].to_vec(), plain[..length].to_vec());
                assert_eq!(
                    one.seal(iv, aad, &mut a),
                    other.seal(iv, aad, &mut b),
                    "{length}"
                );
                assert_eq!(a, b, "{length}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_one_engine_seals_the_other_opens_and_damage_is_never_given_out(
            key in prop_oneof![any::<[u8; 16]>().prop_map(|k| k.to_vec()),
                               any::<[u8; 32]>().prop_map(|k| k.to_vec())],
            salt: [u8; 4],
            iv: [u8; 8],
            aad in prop_oneof![any::<[u8; 8]>().prop_map(|a| a.to_vec()),
                               any::<[u8; 12]>().prop_map(|a| a.to_vec())],
            plain in proptest::collection::vec(any::<u8>(), 0..=2000),
            damage: (usize, u8),
        ) {
            for (sealer, opener) in [(ENGINES[0], ENGINES[1]), (ENGINES[1], ENGINES[0])] {
                let mut text = plain.clone();
                let icv = esp_key(sealer, &key, &salt).seal(iv, &aad, &mut text);
                let sealed = text.clone();
                let opener = esp_key(opener, &key, &salt);
                // Damage one bit of AAD, text or ICV.
                let (mut bad_aad, mut bad_icv) = (aad.clone(), icv);
                let at = damage.0 % (aad.len() + text.len() + icv.len());
                let bit = 1 << (damage.1 % 8);
                match at.checked_sub(aad.len()) {
                    None => bad_aad[at] ^= bit,
                    Some(at) if at < text.len() => text[at] ^= bit,
                    Some(at) => bad_icv[at - text.len()] ^= bit,
                }
                let received = text.clone();
                prop_assert!(!opener.open(iv, &bad_aad, &mut text, &bad_icv));
                prop_assert!(text == received || text.iter().all(|&octet| octet == 0));
                text.copy_from_slice(&sealed);
                prop_assert!(opener.open(iv, &aad, &mut text, &icv));
                prop_assert_eq!(&text, &plain);
            }
        }
    }

    #[test]
    fn refuses_key_material_of_another_length() {
        for engine in ENGINES {
            for octets in [0, 4, 16, 19, 21, 32, 36] {
                let material = KeyMaterial::new(&vec![0; octets]);
                let suite = EspSuite::Aes128Gcm16;
                assert_eq!(
                    EspKey::new(engine, suite, &material).err(),
                    Some(KeyError::Length { suite, octets })
                );
            }
        }
    }

    #[test]
    fn engines_are_found_by_name_and_keys_are_not_printed() {
        for engine in ENGINES {
            assert_eq!(engine.name().parse(), Ok(engine));
            let key = esp_key(engine, &[0x5a; 16], &[0x5a; 4]);
            assert_eq!(format!("{key:?}"), "EspKey(redacted)");
        }
        assert!("openssl".parse::<Engine>().is_err());
    }
}
