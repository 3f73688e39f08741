//! Chance from a seed, and what it does to a frame.

use hitless::entropy::SeededEntropy;
use hitless_sa::Entropy;

/// Lengths, limits and header octets that code is likely to compare with.
const INTERESTING: [u16; 24] = [
    0, 1, 2, 4, 7, 8, 19, 20, 21, 28, 40, 48, 255, 256, 500, 1280, 1500, 1518, 4500, 0x4500,
    0x6000, 0x7fff, 0x8000, 0xffff,
];
/// No frame grows beyond what a cable with an MTU of 1500 takes.
const LONGEST: usize = 1514;

/// A generator that gives the same for the same seed.
pub struct Dice(SeededEntropy);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(SeededEntropy::new(seed))
    }

    /// A number below `end`, 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let mut octets = [0; 8];
        self.0.fill(&mut octets);
        let drawn = u64::from_le_bytes(octets);
        (drawn % (end.max(1) as u64)) as usize
    }

    pub fn octets(&mut self, count: usize) -> Vec<u8> {
        let mut octets = vec![0; count];
        self.0.fill(&mut octets);
        octets
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }

    /// A place in a frame: in every second case among the headers.
    fn place(&mut self, length: usize) -> usize {
        match self.below(2) {
            0 => self.below(length.min(64)),
            _ => self.below(length),
        }
    }

    /// Changes a frame, or the part behind its first `keep` octets, in one to four ways.
    pub fn mutate(&mut self, frame: &mut Vec<u8>, keep: usize, other: &[u8]) {
        for _ in 0..=self.below(4) {
            let length = frame.len().saturating_sub(keep);
            if length == 0 {
                return;
            }
            let at = keep + self.place(length);
            self.change(frame, at, keep, other);
            frame.truncate(LONGEST);
        }
    }

    fn change(&mut self, frame: &mut Vec<u8>, at: usize, keep: usize, other: &[u8]) {
        let end = frame.len();
        match self.below(11) {
            0 | 1 => {
                let bit = 1 << self.below(8);
                write(frame, at, |octet| octet ^ bit);
            }
            2 => {
                let value = self.below(256) as u8;
                write(frame, at, |_| value);
            }
            3 | 4 => {
                let chosen = self.pick(&INTERESTING).copied().unwrap_or(0);
                let near = (end as u16).wrapping_sub(self.below(60) as u16);
                let value = if self.below(4) == 0 { near } else { chosen };
                let [high, low] = value.to_be_bytes();
                write(frame, at, |_| high);
                write(frame, at + 1, |_| low);
            }
            5 => frame.truncate(at),
            6 => {
                let more = self.below(64);
                frame.extend(self.octets(more));
            }
            7 => {
                let count = self.below(end - at).min(64);
                frame.drain(at..at + count);
            }
            8 => {
                let more = self.below(40);
                let inserted = self.octets(more);
                frame.splice(at..at, inserted);
            }
            9 => {
                frame.truncate(at);
                frame.extend(other.get(at..).unwrap_or_default());
            }
            _ => {
                let to = keep + self.below(end - keep);
                frame.swap(at, to);
            }
        }
    }
}

fn write(frame: &mut [u8], at: usize, change: impl FnOnce(u8) -> u8) {
    if let Some(octet) = frame.get_mut(at) {
        *octet = change(*octet);
    }
}

/// Makes the length and the header checksum of an IPv4 packet right again, so that the damage
/// reaches what lies behind them.
pub fn mend(packet: &mut [u8], length_too: bool) {
    let Some(first) = packet.first().copied() else {
        return;
    };
    let length = packet.len() as u16;
    if first >> 4 == 6 && length_too && packet.len() >= 40 {
        packet[4..6].copy_from_slice(&(length - 40).to_be_bytes());
    }
    let header = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 || header < 20 || packet.len() < header {
        return;
    }
    if length_too {
        packet[2..4].copy_from_slice(&length.to_be_bytes());
    }
    packet[10..12].fill(0);
    let sum = packet[..header]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = !((folded & 0xffff) + (folded >> 16)) as u16;
    packet[10..12].copy_from_slice(&folded.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mended_header_is_the_example_of_rfc_1071() {
        let mut packet = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,
            0xc7,
        ];
        mend(&mut packet, false);
        assert_eq!(packet[10..12], [0xb8, 0x61]);
        mend(&mut packet, true);
        assert_eq!(packet[2..4], [0, 20]);
    }

    #[test]
    fn the_same_seed_gives_the_same_frames_and_none_grows_too_long() {
        let run = |seed| {
            let mut dice = Dice::new(seed);
            let mut frame = vec![7; 1500];
            for _ in 0..1000 {
                dice.mutate(&mut frame, 14, &[9; 1500]);
                assert!(frame.len() <= LONGEST);
                if frame.len() < 100 {
                    frame = vec![7; 1500];
                }
                assert_eq!(frame[..14], [7; 14]);
            }
            frame
        };
        assert_eq!(run(3), run(3));
    }
}
