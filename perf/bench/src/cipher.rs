//! The cipher of hitless by itself, a burst at a time, and what the CPU could do at best.

use hitless_dataplane::port::BURST;
use hitless_gcm::{Job, Key, bound};
use hitless_sa::EspSuite;

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
        let packet = |length: &usize| vec![0x5a; length + OVERHEAD];
        Some(BurstCipher {
            key: Key::new(&key, [1; 4])?,
            high: esn.then_some(0),
            rounds: suite.key_length() / 4 + 6,
            packets: lengths.iter().map(packet).collect(),
        })
    }

    /// Seals every packet once.
    pub fn seal(&mut self) -> bool {
        self.each(hitless_gcm::seal)
    }

    /// Opens every packet once; false unless they were sealed since they were opened last.
    pub fn open(&mut self) -> bool {
        self.each(hitless_gcm::open)
    }

    fn each(&mut self, act: impl Fn(&mut [Job<'_>])) -> bool {
        let mut good = true;
        for packets in self.packets.chunks_mut(BURST) {
            let job = |esp| Job {
                key: &self.key,
                esp,
                high: self.high,
                ok: false,
            };
            let mut jobs: Vec<Job<'_>> = packets.iter_mut().map(|packet| job(packet)).collect();
            act(&mut jobs);
            good &= jobs.iter().all(|job| job.ok);
        }
        good
    }

    /// The instructions of AES-GCM alone; false on a CPU that lacks the best of them.
    pub fn bound(&mut self) -> bool {
        let mut packets: Vec<&mut [u8]> = self.packets.iter_mut().map(Vec::as_mut_slice).collect();
        bound::run(self.rounds, &mut packets)
    }
}
