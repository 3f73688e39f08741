//! Bursts drawn from a seed, and what two other implementations of AES-GCM make of them.

use std::ops::Range;

use aes_gcm::aead::consts::U12;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aes::Aes192;
use aes_gcm::{AeadInOut, Aes128Gcm, Aes256Gcm, AesGcm, KeyInit};
use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hitless_gcm::{HEADER, ICV, Job, Key, OVERHEAD, Tier, open, seal};

/// Octets between packets that nobody may write.
const GUARD: usize = 80;

/// What is in them.
const GUARDED: u8 = 0xa5;

/// The tiers that this CPU can run.
pub fn tiers() -> Vec<Tier> {
    Tier::KERNELS
        .into_iter()
        .filter(|tier| tier.is_available())
        .collect()
}

/// SplitMix64: a seed gives the same cases everywhere.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    pub fn fill(&mut self, octets: &mut [u8]) {
        for chunk in octets.chunks_mut(8) {
            chunk.copy_from_slice(&self.roll().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// A key as the kernels and as the others have it.
pub struct Keys {
    pub ours: Box<Key>,
    aws_lc: LessSafeKey,
    aes_gcm: RustCrypto,
    salt: [u8; 4],
}

enum RustCrypto {
    Aes128(Box<Aes128Gcm>),
    Aes192(Box<AesGcm<Aes192, U12>>),
    Aes256(Box<Aes256Gcm>),
}

impl Keys {
    /// A key of 16, 24 or 32 octets.
    pub fn new(tier: Tier, aes_key: &[u8], salt: [u8; 4]) -> Keys {
        let (algorithm, aes_gcm) = match aes_key.len() {
            16 => (
                &AES_128_GCM,
                RustCrypto::Aes128(Box::new(Aes128Gcm::new_from_slice(aes_key).unwrap())),
            ),
            24 => (
                &AES_192_GCM,
                RustCrypto::Aes192(Box::new(AesGcm::new_from_slice(aes_key).unwrap())),
            ),
            _ => (
                &AES_256_GCM,
                RustCrypto::Aes256(Box::new(Aes256Gcm::new_from_slice(aes_key).unwrap())),
            ),
        };
        Keys {
            ours: Key::with_tier(tier, aes_key, salt).unwrap(),
            aws_lc: LessSafeKey::new(UnboundKey::new(algorithm, aes_key).unwrap()),
            aes_gcm,
            salt,
        }
    }

    pub fn random(tier: Tier, octets: usize, dice: &mut Dice) -> Keys {
        let mut aes_key = [0; 32];
        dice.fill(&mut aes_key);
        let mut salt = [0; 4];
        dice.fill(&mut salt);
        Keys::new(tier, &aes_key[..octets], salt)
    }

    /// RFC 4106 section 4: salt, then IV.
    fn nonce(&self, esp: &[u8]) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(&esp[8..HEADER]);
        nonce
    }

    /// Seals an ESP packet with aws-lc.
    pub fn seal_by_aws_lc(&self, esp: &mut [u8], high: Option<u32>) {
        let nonce = Nonce::assume_unique_for_key(self.nonce(esp));
        let additional = additional(esp, high);
        let end = esp.len() - ICV;
        let (text, icv) = esp[HEADER..].split_at_mut(end - HEADER);
        let tag = self
            .aws_lc
            .seal_in_place_separate_tag(nonce, Aad::from(additional), text)
            .unwrap();
        icv.copy_from_slice(tag.as_ref());
    }

    /// Seals an ESP packet with aes-gcm.
    pub fn seal_by_aes_gcm(&self, esp: &mut [u8], high: Option<u32>) {
        let nonce = self.nonce(esp).into();
        let additional = additional(esp, high);
        let end = esp.len() - ICV;
        let (text, icv) = esp[HEADER..].split_at_mut(end - HEADER);
        let text = InOutBuf::from(text);
        let tag = match &self.aes_gcm {
            RustCrypto::Aes128(key) => key.encrypt_inout_detached(&nonce, &additional, text),
            RustCrypto::Aes192(key) => key.encrypt_inout_detached(&nonce, &additional, text),
            RustCrypto::Aes256(key) => key.encrypt_inout_detached(&nonce, &additional, text),
        };
        icv.copy_from_slice(&tag.unwrap());
    }
}

/// RFC 4106 section 5: SPI and number, with ESN the high half between them.
fn additional(esp: &[u8], high: Option<u32>) -> Vec<u8> {
    match high {
        None => esp[..8].to_vec(),
        Some(high) => [&esp[..4], &high.to_be_bytes(), &esp[4..8]].concat(),
    }
}

/// One packet to draw: its octets of text, the octets skipped before it, its key.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub length: usize,
    pub skip: usize,
    pub key: usize,
    pub extended: bool,
}

/// Packets with guards around them, in one piece of memory.
pub struct Burst {
    memory: Vec<u8>,
    packets: Vec<(Range<usize>, Wanted, Option<u32>)>,
}

impl Burst {
    pub fn draw(wanted: &[Wanted], dice: &mut Dice) -> Burst {
        let mut memory = Vec::new();
        let mut packets = Vec::new();
        for &packet in wanted {
            memory.resize(memory.len() + GUARD + packet.skip, GUARDED);
            let start = memory.len();
            memory.resize(start + OVERHEAD + packet.length, 0);
            dice.fill(&mut memory[start..]);
            let high = packet.extended.then(|| dice.roll() as u32);
            packets.push((start..memory.len(), packet, high));
        }
        memory.resize(memory.len() + GUARD, GUARDED);
        Burst { memory, packets }
    }

    /// The whole of it as jobs, in order.
    fn jobs<'a>(&'a mut self, keys: &'a [Keys]) -> Vec<Job<'a>> {
        let mut jobs = Vec::new();
        let (mut rest, mut at) = (self.memory.as_mut_slice(), 0);
        for (range, packet, high) in &self.packets {
            let (_, from) = rest.split_at_mut(range.start - at);
            let (esp, after) = from.split_at_mut(range.len());
            (rest, at) = (after, range.end);
            jobs.push(Job {
                key: &keys[packet.key].ours,
                esp,
                high: *high,
                ok: false,
            });
        }
        jobs
    }

    fn seal_by(&mut self, keys: &[Keys], seal: fn(&Keys, &mut [u8], Option<u32>)) {
        for (range, packet, high) in &self.packets {
            seal(&keys[packet.key], &mut self.memory[range.clone()], *high);
        }
    }

    /// Seals the burst and compares every octet of the memory with what aws-lc makes of it, and with
    /// what aes-gcm makes of it if `both`. Then opens it, with about every tenth packet damaged: those
    /// that are whole must come out as they were, the text of the others must be zero, and nothing else
    /// may change.
    pub fn check(mut self, keys: &[Keys], both: bool, dice: &mut Dice) {
        let plain = self.memory.clone();
        self.seal_by(keys, Keys::seal_by_aws_lc);
        let expected = std::mem::replace(&mut self.memory, plain.clone());
        if both {
            self.seal_by(keys, Keys::seal_by_aes_gcm);
            assert!(self.memory == expected, "the other two disagree");
            self.memory.copy_from_slice(&plain);
        }
        let mut jobs = self.jobs(keys);
        seal(&mut jobs);
        assert!(jobs.iter().all(|job| job.ok), "sealing failed");
        self.compare("sealing", &expected);
        self.check_open(keys, plain, dice);
    }

    /// What `plain` has been sealed to is opened, some of it damaged.
    fn check_open(&mut self, keys: &[Keys], mut expected: Vec<u8>, dice: &mut Dice) {
        let mut good = Vec::new();
        for (range, _, high) in &mut self.packets {
            let icv = range.end - ICV;
            expected[icv..range.end].copy_from_slice(&self.memory[icv..range.end]);
            let damage = dice.below(10) == 0;
            good.push(!damage);
            if !damage {
                continue;
            }
            // A bit of the packet, header and ICV included, or of the high half of the number.
            match high {
                Some(high) if dice.below(8) == 0 => *high ^= 1 << dice.below(32),
                _ => {
                    let at = match dice.below(4) {
                        0 => range.start + dice.below(HEADER),
                        1 => icv + dice.below(ICV),
                        _ => range.start + dice.below(range.len()),
                    };
                    let bit = 1 << dice.below(8);
                    self.memory[at] ^= bit;
                    expected[range.start..range.start + HEADER]
                        .copy_from_slice(&self.memory[range.start..range.start + HEADER]);
                    expected[icv..range.end].copy_from_slice(&self.memory[icv..range.end]);
                }
            }
            expected[range.start + HEADER..icv].fill(0);
        }
        let mut jobs = self.jobs(keys);
        open(&mut jobs);
        let verdicts: Vec<bool> = jobs.iter().map(|job| job.ok).collect();
        assert_eq!(
            verdicts,
            good,
            "verdicts of {}",
            self.describe(0..good.len())
        );
        self.compare("opening", &expected);
    }

    fn compare(&self, what: &str, expected: &[u8]) {
        if self.memory == expected {
            return;
        }
        let at = (0..expected.len()).find(|&i| self.memory[i] != expected[i]);
        let wrong = self
            .packets
            .iter()
            .position(|(range, ..)| at < Some(range.end));
        let wrong = wrong.unwrap_or(0);
        let start = self.packets[wrong].0.start;
        panic!(
            "{what}: octet {:?} from packet {wrong}, which starts at {start}, is wrong: {}",
            at,
            self.describe(wrong..wrong + 1)
        );
    }

    fn describe(&self, which: Range<usize>) -> String {
        let packets = self.packets.iter().enumerate().skip(which.start);
        packets
            .take(which.len())
            .map(|(i, (_, p, high))| {
                format!("{i}: {} octets, key {}, high {high:?}; ", p.length, p.key)
            })
            .collect()
    }
}
