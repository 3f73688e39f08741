//! What one member says to another, taken off the wire by a test, changed, and put back.

use hitless_sa::MemberId;

use super::World;

/// Octets in front of a packet's body.
pub const CHECKSUM: usize = 8;

/// A packet of this body: what comes by the wire has FNV-1a in front of it.
pub fn sealed(body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, octet| {
        (sum ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    });
    [&sum.to_be_bytes(), body].concat()
}

impl World {
    /// Everything that `from` says to `to` for a while, kept from arriving.
    pub fn intercept(&mut self, from: MemberId, to: MemberId, milliseconds: u64) -> Vec<Vec<u8>> {
        self.capture = Some((from, to));
        self.run(milliseconds);
        self.capture = None;
        std::mem::take(&mut self.captured)
    }

    /// For so long `to` hears of `from` only what is made of its words. Gives back its words.
    pub fn heard_as(
        &mut self,
        from: MemberId,
        to: MemberId,
        milliseconds: u64,
        alter: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        for _ in 0..milliseconds {
            let packets = self.intercept(from, to, 1);
            for packet in &packets {
                self.launch(from, to, alter(packet), 200_000);
            }
            heard.extend(packets);
        }
        heard
    }

    /// Everything that `from` says to `to` for a while, while it arrives too.
    pub fn overhear(&mut self, from: MemberId, to: MemberId, milliseconds: u64) -> Vec<Vec<u8>> {
        self.heard_as(from, to, milliseconds, <[u8]>::to_vec)
    }
}
