//! The bare cipher: aws-lc-rs on as many octets as the ESP path encrypts, and nothing else.

use std::time::Duration;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use hitless_sa::EspSuite;

use crate::clock::time;

/// SPI and sequence number, without and with the high half (RFC 4106 section 5).
const AAD: [u8; 12] = [0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const ICV: usize = 16;

/// Buffers of the lengths to encrypt, as many as the ESP path has in flight.
pub struct Bare {
    key: LessSafeKey,
    aad: &'static [u8],
    buffers: Vec<Vec<u8>>,
    sealed: Vec<Vec<u8>>,
    counter: u64,
}

impl Bare {
    /// One buffer for each length.
    pub fn new(suite: EspSuite, esn: bool, lengths: &[usize]) -> Result<Bare, Unspecified> {
        let algorithm = match suite.key_length() {
            16 => &AES_128_GCM,
            _ => &AES_256_GCM,
        };
        let key = [7; 32];
        let key = key.get(..suite.key_length()).ok_or(Unspecified)?;
        Ok(Bare {
            key: LessSafeKey::new(UnboundKey::new(algorithm, key)?),
            aad: AAD.get(..if esn { 12 } else { 8 }).unwrap_or(&AAD),
            buffers: lengths.iter().map(|length| vec![0x5a; *length]).collect(),
            sealed: lengths.iter().map(|length| vec![0; length + ICV]).collect(),
            counter: 0,
        })
    }

    /// Time to seal every buffer once.
    pub fn seal(&mut self) -> Result<Duration, Unspecified> {
        let mut result = Ok(());
        let elapsed = time(|| {
            for buffer in &mut self.buffers {
                self.counter += 1;
                let nonce = nonce(self.counter);
                let tag = self
                    .key
                    .seal_in_place_separate_tag(nonce, Aad::from(self.aad), buffer);
                result = result.and(tag.map(|tag| {
                    std::hint::black_box(tag.as_ref());
                }));
            }
        });
        result.map(|()| elapsed)
    }

    /// Time to open every buffer once; sealing them first is not timed.
    pub fn open(&mut self) -> Result<Duration, Unspecified> {
        let first = self.counter + 1;
        for (plain, sealed) in self.buffers.iter().zip(&mut self.sealed) {
            self.counter += 1;
            let (text, tag) = sealed.split_at_mut(plain.len());
            text.copy_from_slice(plain);
            let nonce = nonce(self.counter);
            let made = self
                .key
                .seal_in_place_separate_tag(nonce, Aad::from(self.aad), text)?;
            tag.copy_from_slice(made.as_ref());
        }
        let mut result = Ok(());
        let elapsed = time(|| {
            for (counter, sealed) in (first..).zip(&mut self.sealed) {
                let opened = self
                    .key
                    .open_in_place(nonce(counter), Aad::from(self.aad), sealed);
                result = result.and(opened.map(|text| {
                    std::hint::black_box(text);
                }));
            }
        });
        result.map(|()| elapsed)
    }
}

/// Salt, then the counter as IV (RFC 4106 section 4).
fn nonce(counter: u64) -> Nonce {
    let mut octets = [0; 12];
    octets[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(octets)
}
