//! The transforms of ESP over whole packets, in place, one at a time or a burst in one go.
//!
//! ```text
//!              | SPI 4 | number 4 | IV        | text                   | ICV 16; with HMAC half of the hash
//!  AES-GCM, ChaCha20-Poly1305       8            encrypted                        RFC 4106, 7634
//!  the same with an implicit IV     0: it is the number                           RFC 8750
//!  AES-GMAC                         8            authenticated only               RFC 4543
//!  AES-CBC with HMAC                16           encrypted                        RFC 3602, 4868
//! ```
//!
//! Combined modes are computed by one of several engines, which give identical octets; the tests hold
//! each against the others. Whatever computes them verifies before it gives out plaintext, or wipes
//! it, and compares ICVs in constant time.

mod cbc;
mod combined;
mod engine;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use hitless_sa::{EspSuite, KeyMaterial, SequenceNumber, Transform};
use smallvec::SmallVec;
use zeroize::Zeroize;

use self::cbc::Cbc;
use self::combined::Combined;
pub use self::engine::{Engine, EngineError};
pub use hitless_gcm::Tier;

use crate::prefetch::prefetch_range;

/// Octets of SPI and sequence number.
const HEADER_LENGTH: usize = 8;
/// Octets of IV in the nonce of a combined mode.
const IV_LENGTH: usize = 8;
/// Octets of the ICV of a combined mode.
const ICV_LENGTH: usize = 16;
/// Packets that are handed to a kernel at once.
const BURST: usize = 32;

/// Why key material cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyError {
    /// Not the length of the suite's keys and salt.
    Length { suite: EspSuite, octets: usize },
    /// The engine refused the key.
    Engine(Engine),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Length { suite, octets } => write!(
                f,
                "{octets} octets of key material for {}, which needs {}",
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
    pub ok: &'a mut bool,
}

/// Encrypts every text in place and writes every ICV.
///
/// One IV must never be used twice with one key; ours are the sequence number (S2), or one-to-one
/// with it.
#[inline]
pub fn seal_burst<'a>(jobs: impl Iterator<Item = Job<'a>>) {
    run(jobs, hitless_gcm::seal, EspKey::seal_packet);
}

/// Packets to seal in one go, as with [`seal_burst`]: 32 at most.
pub(crate) struct Together<'a> {
    jobs: SmallVec<[hitless_gcm::Job<'a>; BURST]>,
    packets: u32,
    /// Which packets the jobs are, and which are sealed already: a bit for each.
    waiting: u32,
    sealed: u32,
}

impl<'a> Together<'a> {
    #[inline]
    pub(crate) fn new() -> Together<'a> {
        Together {
            jobs: SmallVec::new(),
            packets: 0,
            waiting: 0,
            sealed: 0,
        }
    }

    /// One more packet; what has no kernel for bursts is sealed at once.
    #[inline]
    pub(crate) fn push(&mut self, key: &'a EspKey, esp: &'a mut [u8], high: Option<u32>) {
        let bit = 1u32.unbounded_shl(self.packets);
        self.packets += 1;
        match &key.cipher {
            Cipher::Burst(key) => self.wait(bit, key, esp, high),
            _ if key.seal_packet(esp, high) => self.sealed |= bit,
            _ => {}
        }
    }

    /// The same by a kernel's key.
    #[inline]
    pub(crate) fn push_for_kernel(
        &mut self,
        key: &'a hitless_gcm::Key,
        esp: &'a mut [u8],
        high: Option<u32>,
    ) {
        let bit = 1u32.unbounded_shl(self.packets);
        self.packets += 1;
        self.wait(bit, key, esp, high);
    }

    #[inline]
    fn wait(&mut self, bit: u32, key: &'a hitless_gcm::Key, esp: &'a mut [u8], high: Option<u32>) {
        self.waiting |= bit;
        let ok = false;
        self.jobs.push(hitless_gcm::Job { key, esp, high, ok });
    }

    /// Seals what is left. Says which packets are sealed, the first in the lowest bit.
    #[inline]
    pub(crate) fn seal(mut self) -> u32 {
        hitless_gcm::seal(&mut self.jobs);
        for job in &self.jobs {
            let first = self.waiting & self.waiting.wrapping_neg();
            self.waiting &= !first;
            if job.ok {
                self.sealed |= first;
            }
        }
        self.sealed
    }
}

/// Verifies every ICV and decrypts every text in place, each by itself: one that is bad changes
/// nothing for the others.
#[inline]
pub fn open_burst<'a>(jobs: impl Iterator<Item = Job<'a>>) {
    run(jobs, hitless_gcm::open, EspKey::open_packet);
}

/// What has a kernel for bursts goes to it together, the rest one by one.
#[inline]
fn run<'a>(
    jobs: impl Iterator<Item = Job<'a>>,
    burst: fn(&mut [hitless_gcm::Job<'_>]),
    single: fn(&EspKey, &mut [u8], Option<u32>) -> bool,
) {
    let mut together: SmallVec<[hitless_gcm::Job<'_>; BURST]> = SmallVec::new();
    let mut verdicts: SmallVec<[&mut bool; BURST]> = SmallVec::new();
    for Job { key, esp, high, ok } in jobs {
        let Cipher::Burst(key) = &key.cipher else {
            *ok = single(key, esp, high);
            continue;
        };
        together.push(hitless_gcm::Job {
            key,
            esp,
            high,
            ok: false,
        });
        verdicts.push(ok);
        if together.len() == BURST {
            run_together(&mut together, &mut verdicts, burst);
        }
    }
    run_together(&mut together, &mut verdicts, burst);
}

/// Runs the kernel, and says of each packet what came of it.
#[inline]
fn run_together(
    jobs: &mut SmallVec<[hitless_gcm::Job<'_>; BURST]>,
    verdicts: &mut SmallVec<[&mut bool; BURST]>,
    burst: fn(&mut [hitless_gcm::Job<'_>]),
) {
    burst(jobs);
    for (job, ok) in jobs.iter().zip(verdicts.drain(..)) {
        *ok = job.ok;
    }
    jobs.clear();
}

/// The keys of one direction of an SA, ready for use. Wiped when dropped, never printed.
pub struct EspKey {
    suite: EspSuite,
    cipher: Cipher,
}

enum Cipher {
    /// AES-GCM of whole packets, many at once.
    Burst(Arc<hitless_gcm::Key>),
    /// The IV is in the packet.
    Explicit(Box<Combined>),
    /// The IV is the number.
    Implicit(Box<Combined>),
    /// No encryption.
    Integrity(Box<Combined>),
    Cbc(Box<Cbc>),
}

/// Octets of stack, in words, that building keys uses at most: a few copies of the largest schedule.
const BUILT_IN: usize = 16 * 1024 / 8;

/// Builds what holds expanded keys and belongs on the heap. The crates give such things by value, so
/// that copies of them stay on the stack where they have been: overwrites that.
#[inline(never)]
fn leaving_nothing<T>(build: impl FnOnce() -> Option<Box<T>>) -> Option<Box<T>> {
    let built = below(build);
    below(|| {
        let mut stack = [0u64; BUILT_IN];
        stack.zeroize();
        std::hint::black_box(&stack);
    });
    built
}

/// Calls in a frame of its own, which lies where that of the next call will lie.
#[inline(never)]
fn below<T>(call: impl FnOnce() -> T) -> T {
    call()
}

impl EspKey {
    /// Expands the keys.
    pub fn new(
        engine: Engine,
        suite: EspSuite,
        material: &KeyMaterial,
    ) -> Result<EspKey, KeyError> {
        let parts = material.parts(suite).ok_or(KeyError::Length {
            suite,
            octets: material.expose().len(),
        })?;
        let refused = KeyError::Engine(engine);
        let combined = || {
            let keys = || Combined::new(engine, suite, parts.key, parts.salt).map(Box::new);
            leaving_nothing(keys).ok_or(refused)
        };
        let hashed = |hash| {
            let keys = || Cbc::new(hash, parts.key, parts.integrity).map(Box::new);
            leaving_nothing(keys).map(Cipher::Cbc).ok_or(refused)
        };
        let cipher = match (suite.transform(), engine) {
            (Transform::AesGcm16, Engine::Burst(tier)) => {
                let salt = parts.salt.try_into().map_err(|_| refused)?;
                let key = hitless_gcm::Key::shared(tier, parts.key, salt);
                Cipher::Burst(key.ok_or(refused)?)
            }
            (Transform::AesGcm16 | Transform::ChaCha20Poly1305, _) => Cipher::Explicit(combined()?),
            (Transform::AesGcm16ImplicitIv | Transform::ChaCha20Poly1305ImplicitIv, _) => {
                Cipher::Implicit(combined()?)
            }
            (Transform::AesGmac, _) => Cipher::Integrity(combined()?),
            (Transform::AesCbcHmacSha256, _) => hashed(hmac::HMAC_SHA256)?,
            (Transform::AesCbcHmacSha384, _) => hashed(hmac::HMAC_SHA384)?,
            (Transform::AesCbcHmacSha512, _) => hashed(hmac::HMAC_SHA512)?,
        };
        Ok(EspKey { suite, cipher })
    }

    /// What the key is for.
    #[inline]
    pub fn suite(&self) -> EspSuite {
        self.suite
    }

    /// Asks for what a packet with so much text needs of the key.
    #[inline]
    pub(crate) fn prefetch(&self, text: usize) {
        if let Cipher::Burst(key) = &self.cipher {
            prefetch_kernel(key, text, self.is_aes128());
        }
    }

    /// Whether a kernel for bursts reads the fewest round keys.
    #[inline]
    pub(crate) fn is_aes128(&self) -> bool {
        self.suite == EspSuite::Aes128Gcm16
    }

    /// The key of a kernel for bursts, if there is one.
    pub(crate) fn kernel(&self) -> Option<&Arc<hitless_gcm::Key>> {
        match &self.cipher {
            Cipher::Burst(key) => Some(key),
            _ => None,
        }
    }

    /// Writes the IV of a number, in as many octets as the suite has. No other number has the same.
    #[inline]
    pub fn write_iv(&self, number: SequenceNumber, iv: &mut [u8]) {
        match &self.cipher {
            Cipher::Burst(_) | Cipher::Explicit(_) | Cipher::Integrity(_) => {
                iv.copy_from_slice(&number.0.to_be_bytes());
            }
            Cipher::Implicit(_) => {}
            Cipher::Cbc(key) => iv.copy_from_slice(&key.iv(number.0)),
        }
    }

    /// As [`seal_burst`], of one packet. False if it is too short to be ESP, or not aligned as the
    /// suite needs it.
    #[inline]
    #[must_use]
    pub fn seal_packet(&self, esp: &mut [u8], high: Option<u32>) -> bool {
        let seal = |key: &Combined, parts: Parts<'_>| {
            let (aad, length) = parts.aad(high);
            let icv = key.seal(parts.iv, &aad[..length], parts.text);
            icv.map(|icv| *parts.icv = icv)
        };
        match &self.cipher {
            Cipher::Burst(key) => alone(key, esp, high, hitless_gcm::seal).then_some(()),
            Cipher::Explicit(key) => Parts::explicit(esp).and_then(|parts| seal(key, parts)),
            Cipher::Implicit(key) => Parts::implicit(esp, high).and_then(|parts| seal(key, parts)),
            Cipher::Integrity(key) => seal_in_clear(key, esp, high),
            Cipher::Cbc(key) => key.seal(esp, high).then_some(()),
        }
        .is_some()
    }

    /// As [`open_burst`], of one packet. False also if it is too short to be ESP, or not aligned as
    /// the suite needs it.
    #[inline]
    #[must_use]
    pub fn open_packet(&self, esp: &mut [u8], high: Option<u32>) -> bool {
        let open = |key: &Combined, parts: Parts<'_>| {
            let (aad, length) = parts.aad(high);
            key.open(parts.iv, &aad[..length], parts.text, parts.icv)
        };
        match &self.cipher {
            Cipher::Burst(key) => alone(key, esp, high, hitless_gcm::open),
            Cipher::Explicit(key) => Parts::explicit(esp).is_some_and(|parts| open(key, parts)),
            Cipher::Implicit(key) => {
                Parts::implicit(esp, high).is_some_and(|parts| open(key, parts))
            }
            Cipher::Integrity(key) => open_in_clear(key, esp, high),
            Cipher::Cbc(key) => key.open(esp, high),
        }
    }
}

impl fmt::Debug for EspKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EspKey(redacted)")
    }
}

/// Asks for what a packet with so much text needs of a kernel's key.
#[inline]
pub(crate) fn prefetch_kernel(key: &hitless_gcm::Key, text: usize, aes128: bool) {
    prefetch_range(key, hitless_gcm::Key::read_for(text, aes128));
}

/// A burst of one packet.
fn alone(
    key: &hitless_gcm::Key,
    esp: &mut [u8],
    high: Option<u32>,
    burst: fn(&mut [hitless_gcm::Job<'_>]),
) -> bool {
    let ok = false;
    let mut jobs = [hitless_gcm::Job { key, esp, high, ok }];
    burst(&mut jobs);
    let [job] = jobs;
    job.ok
}

/// The parts of a whole ESP packet of a combined mode.
struct Parts<'a> {
    header: [u8; HEADER_LENGTH],
    iv: [u8; IV_LENGTH],
    text: &'a mut [u8],
    icv: &'a mut [u8; ICV_LENGTH],
}

impl<'a> Parts<'a> {
    #[inline]
    fn explicit(esp: &'a mut [u8]) -> Option<Parts<'a>> {
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

    /// RFC 8750 section 4: the IV is the 64-bit number; a 32-bit one has zeros in front.
    #[inline]
    fn implicit(esp: &'a mut [u8], high: Option<u32>) -> Option<Parts<'a>> {
        let (header, rest) = esp.split_first_chunk_mut::<HEADER_LENGTH>()?;
        let (text, icv) = rest.split_last_chunk_mut()?;
        let mut iv = *header;
        iv[..4].copy_from_slice(&high.unwrap_or(0).to_be_bytes());
        Some(Parts {
            header: *header,
            iv,
            text,
            icv,
        })
    }

    /// SPI and sequence number as the ICV covers them: with ESN the whole number (RFC 4106 section 5,
    /// RFC 7634 section 2.1). The second half is how many octets count.
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

/// AES-GMAC: text and IV are authenticated and stay in clear (RFC 4543 sections 3.2 and 3.3).
fn seal_in_clear(key: &Combined, esp: &mut [u8], high: Option<u32>) -> Option<()> {
    let iv = iv_in_clear(esp)?;
    let icv = with_whole_number(esp, high, |aad| key.seal(iv, aad, &mut []))??;
    *esp.last_chunk_mut()? = icv;
    Some(())
}

fn open_in_clear(key: &Combined, esp: &mut [u8], high: Option<u32>) -> bool {
    let (Some(iv), Some(icv)) = (iv_in_clear(esp), esp.last_chunk().copied()) else {
        return false;
    };
    with_whole_number(esp, high, |aad| key.open(iv, aad, &mut [], &icv)).unwrap_or(false)
}

fn iv_in_clear(esp: &[u8]) -> Option<[u8; IV_LENGTH]> {
    esp.get(HEADER_LENGTH..)?.first_chunk().copied()
}

/// Gives the packet without its ICV, and with the whole number in it as RFC 4543 section 3.3 wants it
/// authenticated with ESN. For that its octets move by four, into the place of the ICV, and back.
fn with_whole_number<R>(
    esp: &mut [u8],
    high: Option<u32>,
    compute: impl FnOnce(&[u8]) -> R,
) -> Option<R> {
    let end = esp.len().checked_sub(ICV_LENGTH)?;
    if end < HEADER_LENGTH + IV_LENGTH {
        return None;
    }
    let Some(high) = high else {
        return Some(compute(&esp[..end]));
    };
    let icv: [u8; ICV_LENGTH] = *esp.last_chunk()?;
    esp.copy_within(4..end, HEADER_LENGTH);
    esp[4..HEADER_LENGTH].copy_from_slice(&high.to_be_bytes());
    let result = compute(&esp[..end + 4]);
    esp.copy_within(HEADER_LENGTH..end + 4, 4);
    esp[end..].copy_from_slice(&icv);
    Some(result)
}

#[cfg(all(test, not(loom)))]
mod tests;
