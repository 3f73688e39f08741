//! The cipher of hitless by itself, a burst at a time, and what the CPU could do at best.

use std::error::Error;
use std::time::Duration;

use hitless_dataplane::port::BURST;
use hitless_gcm::{Job, Key, bound};
use hitless_sa::EspSuite;

use super::bench::Direction;
use crate::clock::time;

/// SPI, number and IV in front of the text, ICV behind it.
const OVERHEAD: usize = 32;

/// Packets of the lengths to encrypt.
pub struct BurstCipher {
    key: Box<Key>,
    high: Option<u32>,
    /// Of the suite's AES.
    rounds: usize,
    packets: Vec<Vec<u8>>,
}

impl BurstCipher {
    /// One packet for each length of text; nothing on a CPU that lacks the instructions.
    pub fn new(suite: EspSuite, esn: bool, lengths: &[usize]) -> Option<BurstCipher> {
        let key = vec![7; suite.key_length()];
        Some(BurstCipher {
            key: Key::new(&key, [1; 4])?,
            high: esn.then_some(0),
            rounds: suite.key_length() / 4 + 6,
            packets: lengths
                .iter()
                .map(|length| vec![0x5a; length + OVERHEAD])
                .collect(),
        })
    }

    /// Time to seal or open every packet once.
    pub fn round(&mut self, direction: Direction) -> Result<Duration, Box<dyn Error>> {
        if direction == Direction::Encrypt {
            return Ok(time(|| self.each(hitless_gcm::seal)));
        }
        self.each(hitless_gcm::seal);
        let mut good = true;
        let elapsed = time(|| {
            self.each(|jobs| {
                hitless_gcm::open(jobs);
                good &= jobs.iter().all(|job| job.ok);
            });
        });
        match good {
            true => Ok(elapsed),
            false => Err("the burst cipher refused what it had sealed".into()),
        }
    }

    fn each(&mut self, mut act: impl FnMut(&mut [Job<'_>])) {
        for packets in self.packets.chunks_mut(BURST) {
            let job = |esp| Job {
                key: &self.key,
                esp,
                high: self.high,
                ok: false,
            };
            let mut jobs: Vec<Job<'_>> = packets.iter_mut().map(|packet| job(packet)).collect();
            act(&mut jobs);
        }
    }

    /// Time for the instructions alone; nothing on a CPU that lacks the best of them.
    pub fn bound(&mut self) -> Option<Duration> {
        let mut packets: Vec<&mut [u8]> = self.packets.iter_mut().map(Vec::as_mut_slice).collect();
        let mut done = false;
        let elapsed = time(|| done = bound::run(self.rounds, &mut packets));
        done.then_some(elapsed)
    }
}
