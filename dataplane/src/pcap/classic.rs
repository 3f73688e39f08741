//! Classic pcap files, written with nanosecond timestamps and read in all four dialects (two byte
//! orders, micro- and nanoseconds).

use std::io::{self, Write};
use std::time::Duration;

use super::{LinkType, PcapError, Record, SNAPSHOT_LENGTH, word};

const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// Writes frames to a capture file.
pub struct PcapWriter<W: Write> {
    sink: W,
}

impl<W: Write> PcapWriter<W> {
    /// Writes the file header.
    pub fn new(mut sink: W) -> io::Result<Self> {
        let mut header = Vec::with_capacity(FILE_HEADER);
        header.extend_from_slice(&MAGIC_NANOSECONDS.to_le_bytes());
        header.extend_from_slice(&2u16.to_le_bytes());
        header.extend_from_slice(&4u16.to_le_bytes());
        header.extend_from_slice(&[0; 8]);
        header.extend_from_slice(&(SNAPSHOT_LENGTH as u32).to_le_bytes());
        header.extend_from_slice(&(LinkType::Ethernet as u32).to_le_bytes());
        sink.write_all(&header)?;
        Ok(Self { sink })
    }

    /// Writes one frame; `time` counts from the Unix epoch. What is longer than
    /// [`SNAPSHOT_LENGTH`] is cut, as the format foresees.
    pub fn write(&mut self, time: Duration, frame: &[u8]) -> io::Result<()> {
        let kept = frame.get(..SNAPSHOT_LENGTH).unwrap_or(frame);
        // The format has 32 bits for the seconds, until 2106.
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let mut header = [0; RECORD_HEADER];
        header[..4].copy_from_slice(&seconds.to_le_bytes());
        header[4..8].copy_from_slice(&time.subsec_nanos().to_le_bytes());
        header[8..12].copy_from_slice(&(kept.len() as u32).to_le_bytes());
        header[12..].copy_from_slice(&length.to_le_bytes());
        self.sink.write_all(&header)?;
        self.sink.write_all(kept)
    }

    /// Hands what is buffered to the sink's own target.
    pub fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }

    /// Flushes and gives the sink back.
    pub fn finish(mut self) -> io::Result<W> {
        self.sink.flush()?;
        Ok(self.sink)
    }
}

/// Where the reading of a file stands.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
    big_endian: bool,
    nanoseconds: bool,
}

impl<'a> Reader<'a> {
    /// Checks the file header, which begins with `magic`.
    pub(super) fn new(bytes: &'a [u8], magic: u32) -> Result<Self, PcapError> {
        let swapped = magic.swap_bytes();
        let (big_endian, nanoseconds) = match (magic, swapped) {
            (MAGIC_MICROSECONDS, _) => (false, false),
            (MAGIC_NANOSECONDS, _) => (false, true),
            (_, MAGIC_MICROSECONDS) => (true, false),
            (_, MAGIC_NANOSECONDS) => (true, true),
            _ => return Err(PcapError::Magic(magic)),
        };
        let link_type = word(bytes, 20, big_endian).ok_or(PcapError::NoHeader)?;
        // The upper bits hold the length of a frame check sequence, if any.
        if link_type & 0x0fff_ffff != LinkType::Ethernet as u32 {
            return Err(PcapError::LinkType(link_type));
        }
        Ok(Self {
            bytes,
            offset: FILE_HEADER,
            big_endian,
            nanoseconds,
        })
    }

    /// The next record, unless the file is at its end.
    pub(super) fn record(&mut self) -> Result<Option<Record<'a>>, PcapError> {
        if self.offset >= self.bytes.len() {
            return Ok(None);
        }
        let offset = self.offset;
        let truncated = PcapError::Truncated { offset };
        let field = |at| word(self.bytes, offset + at, self.big_endian).ok_or(truncated);
        let (seconds, fraction) = (field(0)?, field(4)?);
        let (length, original_length) = (field(8)?, field(12)?);
        let scale = if self.nanoseconds { 1 } else { 1000 };
        let nanoseconds = fraction
            .checked_mul(scale)
            .filter(|&n| n < 1_000_000_000)
            .ok_or(PcapError::Time { offset })?;
        if length as usize > SNAPSHOT_LENGTH {
            return Err(PcapError::TooLong { offset, length });
        }
        let start = offset + RECORD_HEADER;
        let end = start + length as usize;
        let frame = self.bytes.get(start..end).ok_or(truncated)?;
        self.offset = end;
        Ok(Some(Record {
            time: Duration::new(u64::from(seconds), nanoseconds),
            frame,
            original_length,
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::PcapReader;
    use super::*;

    fn written(frames: &[(Duration, Vec<u8>)]) -> Vec<u8> {
        let mut writer = PcapWriter::new(Vec::new()).expect("a vector takes all");
        for (time, frame) in frames {
            writer.write(*time, frame).expect("a vector takes all");
        }
        writer.finish().expect("a vector takes all")
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            frames in prop::collection::vec(
                ((0u64..u64::from(u32::MAX), 0u32..1_000_000_000),
                 prop::collection::vec(any::<u8>(), 0..200)),
                0..20),
        ) {
            let frames: Vec<_> = frames
                .into_iter()
                .map(|((s, n), frame)| (Duration::new(s, n), frame))
                .collect();
            let file = written(&frames);
            let read: Result<Vec<_>, _> = PcapReader::new(&file).expect("our header").collect();
            let read: Vec<_> =
                read.expect("whole").iter().map(|r| (r.time, r.frame.to_vec())).collect();
            prop_assert_eq!(read, frames);
        }

        #[test]
        fn no_bytes_make_the_reader_panic_or_read_beyond(
            tail in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut file = written(&[]);
            file.extend_from_slice(&tail);
            let total: usize = PcapReader::new(&file)
                .expect("our header")
                .filter_map(Result::ok)
                .map(|record| record.frame.len() + RECORD_HEADER)
                .sum();
            prop_assert!(total <= tail.len());
        }
    }

    #[test]
    fn a_capture_cut_at_any_length_gives_its_whole_frames_and_says_so() {
        let file = written(&[
            (Duration::new(1, 5), vec![1; 60]),
            (Duration::new(2, 6), vec![2; 70]),
        ]);
        let boundaries = [FILE_HEADER, FILE_HEADER + 76, file.len()];
        for cut in 0..=file.len() {
            let Ok(reader) = PcapReader::new(&file[..cut]) else {
                assert!(cut < FILE_HEADER);
                continue;
            };
            let records: Vec<_> = reader.collect();
            let whole = records.iter().filter(|r| r.is_ok()).count();
            assert_eq!(whole, boundaries[1..].iter().filter(|&&b| b <= cut).count());
            assert_eq!(records.iter().all(Result::is_ok), boundaries.contains(&cut));
        }
    }

    #[test]
    fn all_four_dialects_are_read() {
        for (magic, big, fraction, nanoseconds) in [
            (MAGIC_MICROSECONDS, false, 7u32, 7000),
            (MAGIC_NANOSECONDS, false, 7, 7),
            (MAGIC_MICROSECONDS, true, 7, 7000),
            (MAGIC_NANOSECONDS, true, 7, 7),
        ] {
            let put = |v: u32| {
                if big {
                    v.to_be_bytes()
                } else {
                    v.to_le_bytes()
                }
            };
            let words = [magic, 0, 0, 0, 96, 1, 3, fraction, 2, 2];
            let mut file: Vec<u8> = words.iter().flat_map(|&w| put(w)).collect();
            file.extend_from_slice(&[0xaa, 0xbb]);
            let record = PcapReader::new(&file).expect("header").next();
            let record = record.expect("one").expect("whole");
            assert_eq!(record.time, Duration::new(3, nanoseconds));
            assert_eq!(record.frame, [0xaa, 0xbb]);
        }
    }

    #[test]
    fn lies_are_named() {
        assert_eq!(PcapReader::new(&[]).err(), Some(PcapError::NoHeader));
        assert_eq!(
            PcapReader::new(&[1, 2, 3, 4]).err(),
            Some(PcapError::Magic(0x0403_0201))
        );
        let mut file = written(&[(Duration::ZERO, vec![0; 4])]);
        file[20] = 113;
        assert_eq!(PcapReader::new(&file).err(), Some(PcapError::LinkType(113)));
        file[20] = 1;
        file[FILE_HEADER + 8..FILE_HEADER + 12].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = PcapReader::new(&file).expect("header").next();
        assert!(matches!(
            error,
            Some(Err(PcapError::TooLong {
                length: u32::MAX,
                ..
            }))
        ));
        file[FILE_HEADER + 4..FILE_HEADER + 8].copy_from_slice(&1_000_000_000u32.to_le_bytes());
        let error = PcapReader::new(&file).expect("header").next();
        assert!(matches!(error, Some(Err(PcapError::Time { .. }))));
    }
}
