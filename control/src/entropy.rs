//! Where randomness comes from: the operating system, or a seed in the simulator.

use hitless_sa::Entropy;

/// Unpredictable octets of the operating system, through AWS-LC's generator.
#[derive(Clone, Copy, Default, Debug)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one source that everything else is given"
        )]
        let filled = aws_lc_rs::rand::fill(out);
        // Going on with octets that an attacker can guess would be worse than to stop.
        assert!(filled.is_ok(), "the system gave no randomness");
    }
}

/// The same octets for the same seed, for simulations: predictable, so never for real keys.
/// The generator is xoshiro256++ (Blackman and Vigna), its state drawn by splitmix64.
#[derive(Clone, Debug)]
pub struct SeededEntropy([u64; 4]);

impl SeededEntropy {
    pub fn new(seed: u64) -> SeededEntropy {
        let mut state = seed;
        SeededEntropy(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let out = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let t = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= t;
        *d = d.rotate_left(45);
        out
    }
}

impl Entropy for SeededEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let octets = self.next().to_le_bytes();
            for (to, from) in chunk.iter_mut().zip(octets) {
                *to = from;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let draw = |seed| {
            let mut out = [0; 100];
            SeededEntropy::new(seed).fill(&mut out);
            out
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_ne!(draw(0), [0; 100]);
    }

    #[test]
    fn the_generator_is_xoshiro256_plus_plus() {
        // The reference implementation's first outputs for the state 1, 2, 3, 4.
        let mut entropy = SeededEntropy([1, 2, 3, 4]);
        let out: Vec<u64> = (0..5).map(|_| entropy.next()).collect();
        assert_eq!(
            out,
            [
                41_943_041,
                58_720_359,
                3_588_806_011_781_223,
                3_591_011_842_654_386,
                9_228_616_714_210_784_205
            ]
        );
    }

    #[test]
    fn the_system_does_not_repeat() {
        let mut octets = [[0; 32]; 2];
        for out in &mut octets {
            SystemEntropy.fill(out);
        }
        assert_ne!(octets[0], octets[1]);
        SystemEntropy.fill(&mut []);
    }
}
