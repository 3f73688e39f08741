//! Nanoseconds a packet: this package, aws-lc-rs and the bound, taken in turn in one process.
//!
//! `cargo run --release -p hitless-gcm --example speed -- [--tier NAME] [--bits 128|192|256]
//! [--keys N] [--burst N] [--esn]`

use std::env;
use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hitless_gcm::{HEADER, ICV, Job, Key, OVERHEAD, Tier, bound, open, seal, tier};

/// Packets in flight, each in a buffer of 2 KiB.
const BUFFERS: usize = 256;
const BUFFER: usize = 2048;

/// Where a packet begins in its buffer: after Ethernet and IPv4.
const HEADROOM: usize = 162;

/// How often everything is measured; the best counts.
const ROUNDS: usize = 400;

/// Octets of text; several are a mix, each as often as it is listed.
const TEXTS: [(&str, &[usize]); 11] = [
    ("64", &[64]),
    ("80", &[80]),
    ("128", &[128]),
    ("180", &[180]),
    ("256", &[256]),
    ("512", &[512]),
    ("576", &[576]),
    ("1024", &[1024]),
    ("1400", &[1400]),
    ("1500", &[1500]),
    (
        "IMIX",
        &[64, 64, 576, 64, 64, 1500, 64, 576, 64, 64, 576, 576],
    ),
];

struct Settings {
    tier: Tier,
    bits: usize,
    keys: usize,
    burst: usize,
    high: Option<u32>,
}

impl Settings {
    fn read() -> Result<Settings, Box<dyn Error>> {
        let mut settings = Settings {
            tier: tier(),
            bits: 128,
            keys: 1,
            burst: 32,
            high: None,
        };
        let mut words = env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--tier" => settings.tier = value()?.parse()?,
                "--bits" => settings.bits = value()?.parse()?,
                "--keys" => settings.keys = value()?.parse()?,
                "--burst" => settings.burst = value()?.parse()?,
                "--esn" => settings.high = Some(7),
                _ => return Err(format!("unknown word {word}").into()),
            }
        }
        Ok(settings)
    }
}

/// The best time of a kind of work.
struct Best(Duration);

impl Best {
    #[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
    fn time(&mut self, work: impl FnOnce()) {
        let start = Instant::now();
        work();
        self.0 = self.0.min(start.elapsed());
    }

    /// Nanoseconds a packet.
    fn each(&self) -> f64 {
        self.0.as_secs_f64() * 1e9 / BUFFERS as f64
    }
}

/// Takes the packets through one of ours, burst by burst.
fn ours(settings: &Settings, packets: &mut [(&Key, &mut [u8])], work: fn(&mut [Job<'_>])) {
    let mut jobs = Vec::with_capacity(settings.burst);
    for burst in packets.chunks_mut(settings.burst) {
        for (key, esp) in burst {
            jobs.push(Job {
                key,
                esp,
                high: settings.high,
                ok: false,
            });
        }
        work(&mut jobs);
        assert!(jobs.iter().all(|job| job.ok));
        jobs.clear();
    }
}

/// The nonce of a packet whose IV is in place.
fn nonce(esp: &[u8]) -> Nonce {
    let mut nonce = [7; 12];
    nonce[4..].copy_from_slice(&esp[8..HEADER]);
    Nonce::assume_unique_for_key(nonce)
}

fn their_seal(packets: &mut [(&LessSafeKey, &mut [u8])]) {
    for (key, esp) in packets {
        let (nonce, aad) = (
            nonce(esp),
            Aad::from(<[u8; 8]>::try_from(&esp[..8]).unwrap()),
        );
        let end = esp.len() - ICV;
        let (text, icv) = esp[HEADER..].split_at_mut(end - HEADER);
        let tag = key.seal_in_place_separate_tag(nonce, aad, text).unwrap();
        icv.copy_from_slice(tag.as_ref());
    }
}

fn their_open(packets: &mut [(&LessSafeKey, &mut [u8])]) {
    for (key, esp) in packets {
        let (nonce, aad) = (
            nonce(esp),
            Aad::from(<[u8; 8]>::try_from(&esp[..8]).unwrap()),
        );
        black_box(key.open_in_place(nonce, aad, &mut esp[HEADER..]).unwrap());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::read()?;
    let octets = settings.bits / 8;
    let aes_key = |i: usize| (0..octets).map(|at| (i * 31 + at * 7) as u8).collect();
    let secrets: Vec<Vec<u8>> = (0..settings.keys).map(aes_key).collect();
    let algorithm = match octets {
        16 => &AES_128_GCM,
        24 => &AES_192_GCM,
        _ => &AES_256_GCM,
    };
    let mut our_keys = Vec::new();
    let mut their_keys = Vec::new();
    for secret in &secrets {
        let key = Key::with_tier(settings.tier, secret, [7; 4]);
        our_keys.push(key.ok_or("this CPU cannot run the tier, or no such key length")?);
        their_keys.push(LessSafeKey::new(UnboundKey::new(algorithm, secret)?));
    }
    println!(
        "{} AES-{} keys {} burst {}; ns a packet: seal, open, (ratio to) aws-lc-rs, bound",
        settings.tier, settings.bits, settings.keys, settings.burst
    );
    for (name, texts) in TEXTS {
        let mut memory = vec![0x5au8; BUFFERS * BUFFER];
        let mut best: [Best; 5] = std::array::from_fn(|_| Best(Duration::MAX));
        let [
            seal_best,
            open_best,
            their_seal_best,
            their_open_best,
            bound_best,
        ] = &mut best;
        for round in 0..ROUNDS {
            let key_of = |i: usize| ((i + round * BUFFERS) * 389) % settings.keys;
            let lengths = texts.iter().cycle();
            let mut row: Vec<&mut [u8]> = memory
                .chunks_exact_mut(BUFFER)
                .zip(lengths)
                .map(|(buffer, length)| &mut buffer[HEADROOM..HEADROOM + OVERHEAD + length])
                .collect();
            bound_best.time(|| {
                black_box(bound::run(6 + octets / 4, &mut row));
            });
            let mut packets: Vec<(&LessSafeKey, &mut [u8])> = (row.iter_mut().enumerate())
                .map(|(i, esp)| (&their_keys[key_of(i)], &mut **esp))
                .collect();
            their_seal_best.time(|| their_seal(&mut packets));
            their_open_best.time(|| their_open(&mut packets));
            let mut packets: Vec<(&Key, &mut [u8])> = (row.iter_mut().enumerate())
                .map(|(i, esp)| (&*our_keys[key_of(i)], &mut **esp))
                .collect();
            seal_best.time(|| ours(&settings, &mut packets, seal));
            open_best.time(|| ours(&settings, &mut packets, open));
        }
        let [seal, open, their_seal, their_open, bound] = best.map(|best| best.each());
        println!(
            "{name:>5}  {seal:6.1} {open:6.1}   {their_seal:6.1} ({:.3}) {their_open:6.1} ({:.3})   {bound:6.1} ({:.2})",
            seal / their_seal,
            open / their_open,
            seal / bound
        );
    }
    Ok(())
}
