//! A packet of a burst as the caller gives it, and as the kernels want it.

use std::marker::PhantomData;

use crate::key::Key;

/// Octets before the text: SPI, number, IV.
pub const HEADER: usize = 16;

/// Octets after the text.
pub const ICV: usize = 16;

/// Octets of an ESP packet besides its text.
pub const OVERHEAD: usize = HEADER + ICV;

/// Octets of text that a packet may have.
pub const MOST_TEXT: usize = 65_535;

/// An ESP packet to seal or to open.
#[derive(Debug)]
pub struct Job<'a> {
    pub key: &'a Key,
    /// SPI 4, number 4, IV 8, text, ICV 16. Header and IV are in place.
    pub esp: &'a mut [u8],
    /// The high half of an extended sequence number; the additional data is 12 octets then (RFC 4106
    /// section 5), else 8.
    pub high: Option<u32>,
    /// Whether the packet was sealed, or opened with the right ICV.
    pub ok: bool,
}

/// What a kernel knows of a packet: a `Job` that has been looked at, and is the kernel's for now.
pub(crate) struct Task<'a> {
    key: &'a Key,
    /// The first octet of the text. From 16 before it to 16 after its end it is ours to read and write.
    text: *mut u8,
    length: usize,
    /// The additional data as a block of GHASH, octets reversed.
    additional: u128,
    /// The lengths as the last block of GHASH, octets reversed.
    lengths: u128,
    packet: PhantomData<&'a mut [u8]>,
}

/// Whether there is room for header and ICV, and no more text than any kernel counts.
#[inline]
pub(crate) fn fits(esp: &[u8]) -> bool {
    (OVERHEAD..=OVERHEAD + MOST_TEXT).contains(&esp.len())
}

impl<'a> Task<'a> {
    /// `None` if the packet does not fit.
    #[inline]
    pub(crate) fn new(job: &'a mut Job<'_>) -> Option<Task<'a>> {
        if !fits(job.esp) {
            return None;
        }
        let header = u128::from(u64::from_be_bytes(*job.esp.first_chunk()?)) << 64;
        let (additional, octets) = match job.high {
            None => (header, 8),
            // SPI, high half, low half.
            Some(high) => {
                let low = (header >> 64) as u32;
                let high = (u128::from(high) << 64) | (u128::from(low) << 32);
                (((header >> 96) << 96) | high, 12)
            }
        };
        Some(Task::of(job.key, job.esp, additional, octets))
    }

    /// A packet with additional data of any length up to a block, which ESP does not have: published
    /// vectors do.
    pub(crate) fn with_additional(
        key: &'a Key,
        esp: &'a mut [u8],
        additional: &[u8],
    ) -> Option<Task<'a>> {
        let mut block = [0; 16];
        block
            .get_mut(..additional.len())?
            .copy_from_slice(additional);
        let additional_octets = additional.len() as u128;
        fits(esp).then(|| Task::of(key, esp, u128::from_be_bytes(block), additional_octets))
    }

    /// A packet that fits.
    #[inline]
    fn of(key: &'a Key, esp: &'a mut [u8], additional: u128, octets: u128) -> Task<'a> {
        let length = esp.len() - OVERHEAD;
        Task {
            key,
            text: esp.as_mut_ptr().wrapping_add(HEADER),
            length,
            additional,
            lengths: ((octets * 8) << 64) | (length as u128 * 8),
            packet: PhantomData,
        }
    }

    #[inline]
    pub(crate) fn key(&self) -> &'a Key {
        self.key
    }

    /// The first octet of the text: 16 octets before it, the text, and 16 after the text are valid for
    /// reads and writes, and nobody else's while the task lives.
    #[inline]
    pub(crate) fn text(&self) -> *mut u8 {
        self.text
    }

    /// Octets of text.
    #[inline]
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Blocks of text, the last one perhaps not full.
    #[inline]
    pub(crate) fn blocks(&self) -> usize {
        self.length.div_ceil(16)
    }

    #[inline]
    pub(crate) fn additional(&self) -> &u128 {
        &self.additional
    }

    #[inline]
    pub(crate) fn lengths(&self) -> &u128 {
        &self.lengths
    }
}

/// The numbers in a set, the least first.
#[inline]
pub(crate) fn members(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let least = set.trailing_zeros() as usize;
        set &= set.checked_sub(1)?;
        Some(least)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc4106_section_5_additional_data_of_short_and_extended_numbers() {
        let Some(key) = Key::new(&[0; 16], [0; 4]) else {
            return;
        };
        let mut esp = [0; OVERHEAD + 5];
        esp[..8].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        for (high, additional, bits) in [
            (None, 0x0102_0304_0506_0708 << 64, 64),
            (Some(0x0a0b_0c0d), 0x0102_0304_0a0b_0c0d_0506_0708 << 32, 96),
        ] {
            let mut job = Job {
                key: &key,
                esp: &mut esp,
                high,
                ok: false,
            };
            let task = Task::new(&mut job).unwrap();
            assert_eq!(*task.additional(), additional);
            assert_eq!(*task.lengths(), (bits << 64) | 40);
            assert_eq!((task.length(), task.blocks()), (5, 1));
        }
    }

    #[test]
    fn refuses_what_is_not_an_esp_packet() {
        let Some(key) = Key::new(&[0; 16], [0; 4]) else {
            return;
        };
        for (octets, accepted) in [
            (0, false),
            (OVERHEAD - 1, false),
            (OVERHEAD, true),
            (OVERHEAD + MOST_TEXT, true),
            (OVERHEAD + MOST_TEXT + 1, false),
        ] {
            let mut job = Job {
                key: &key,
                esp: &mut vec![0; octets],
                high: None,
                ok: false,
            };
            assert_eq!(Task::new(&mut job).is_some(), accepted, "{octets}");
        }
    }
}
