//! The seam through which randomness enters.

/// A source of unpredictable octets. The daemon's is the operating system; the simulator's is a
/// seed. Nothing else in the workspace draws random numbers.
pub trait Entropy {
    /// Fills the whole of `out`.
    fn fill(&mut self, out: &mut [u8]);
}

impl dyn Entropy + '_ {
    /// Eight octets as a number.
    pub fn u64(&mut self) -> u64 {
        let mut octets = [0; 8];
        self.fill(&mut octets);
        u64::from_be_bytes(octets)
    }

    /// Four octets as a number.
    pub fn u32(&mut self) -> u32 {
        let mut octets = [0; 4];
        self.fill(&mut octets);
        u32::from_be_bytes(octets)
    }
}
