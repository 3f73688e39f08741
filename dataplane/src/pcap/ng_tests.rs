//! pcapng: what is written is read, other writers' dialects, and files that lie.

use proptest::prelude::*;

use super::super::{Direction, Entry, PcapReader, PcapngWriter};
use super::*;

fn written(frames: &[(Duration, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = PcapngWriter::new(&mut file).unwrap();
    for name in ["inside", "outside"] {
        writer.interface(name, LinkType::Ethernet).unwrap();
    }
    for (index, (time, frame)) in frames.iter().enumerate() {
        let dropped = index % 3 == 2;
        let entry = Entry {
            interface: index as u32 % 2,
            time: *time,
            direction: Direction::Unknown,
            length: frame.len() as u32,
            octets: frame,
            comment: if dropped { "dropped: replay" } else { "" },
        };
        writer.packet(&entry).unwrap();
    }
    file
}

type Frames = Vec<(Duration, Vec<u8>)>;

fn read(file: &[u8]) -> Result<Frames, PcapError> {
    PcapReader::new(file)?
        .map(|record| record.map(|record| (record.time, record.frame.to_vec())))
        .collect()
}

/// Blocks in the byte order that is asked for.
struct Builder(bool);

impl Builder {
    fn words(&self, words: &[u32]) -> Vec<u8> {
        let put = |word: &u32| match self.0 {
            true => word.to_be_bytes(),
            false => word.to_le_bytes(),
        };
        words.iter().flat_map(put).collect()
    }

    fn block(&self, kind: u32, body: &[u8]) -> Vec<u8> {
        let length = (body.len() + FRAMING) as u32;
        [
            &self.words(&[kind, length])[..],
            body,
            &self.words(&[length])[..],
        ]
        .concat()
    }

    fn section(&self) -> Vec<u8> {
        let version = if self.0 { 0x0001_0000 } else { 1 };
        self.block(
            SECTION,
            &self.words(&[BYTE_ORDER, version, u32::MAX, u32::MAX]),
        )
    }

    /// An interface whose time has this resolution.
    fn interface(&self, resolution: u8) -> Vec<u8> {
        let ethernet = if self.0 { 1 << 16 } else { 1 };
        let option = if self.0 {
            [0, RESOLUTION as u8, 0, 1]
        } else {
            [RESOLUTION as u8, 0, 1, 0]
        };
        let mut body = self.words(&[ethernet, 65_536]);
        body.extend(option);
        body.extend([resolution, 0, 0, 0]);
        body.extend([0; 4]);
        self.block(INTERFACE, &body)
    }

    fn packet(&self, interface: u32, time: u64, frame: &[u8]) -> Vec<u8> {
        let length = frame.len() as u32;
        let mut body = self.words(&[interface, (time >> 32) as u32, time as u32, length, length]);
        body.extend_from_slice(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        self.block(ENHANCED_PACKET, &body)
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        frames in prop::collection::vec(
            ((0u64..1 << 32, 0u32..1_000_000_000), prop::collection::vec(any::<u8>(), 0..200)),
            0..20,
        ),
    ) {
        let frames: Frames = frames
            .into_iter()
            .map(|((seconds, rest), frame)| (Duration::new(seconds, rest), frame))
            .collect();
        prop_assert_eq!(read(&written(&frames)), Ok(frames));
    }

    /// Any octet of a good file changed to anything, and anything behind a good file.
    #[test]
    fn no_bytes_make_the_reader_panic_or_read_beyond(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        tail in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut file = written(&[(Duration::new(1, 2), vec![7; 61]), (Duration::ZERO, vec![])]);
        for (place, value) in changes {
            let place = place.index(file.len());
            file[place] = value;
        }
        file.extend(tail);
        if let Ok(reader) = PcapReader::new(&file) {
            let total: usize = reader.filter_map(Result::ok).map(|r| r.frame.len()).sum();
            prop_assert!(total <= file.len());
        }
    }
}

#[test]
fn a_capture_cut_at_any_length_gives_its_whole_frames_and_says_so() {
    let file = written(&[
        (Duration::new(1, 5), vec![1; 60]),
        (Duration::new(2, 6), vec![2; 71]),
    ]);
    // A section, two interfaces of equal length, two packets.
    let empty = written(&[]).len();
    let one = written(&[(Duration::new(1, 5), vec![1; 60])]).len();
    let section = word(&file, 4, false).unwrap() as usize;
    let boundaries = [section, (section + empty) / 2, empty, one, file.len()];
    for cut in 0..=file.len() {
        let Ok(reader) = PcapReader::new(&file[..cut]) else {
            assert!(cut < section);
            continue;
        };
        let records: Vec<_> = reader.collect();
        let whole = records.iter().filter(|record| record.is_ok()).count();
        assert_eq!(
            whole,
            usize::from(cut >= one) + usize::from(cut == file.len())
        );
        assert_eq!(
            records.iter().all(Result::is_ok),
            boundaries.contains(&cut),
            "{cut}"
        );
        if let Some(Err(error)) = records.last() {
            assert!(matches!(error, PcapError::Truncated { .. }));
        }
    }
}

#[test]
fn both_byte_orders_and_several_sections_are_read() {
    let mut file = Vec::new();
    for builder in [Builder(false), Builder(true)] {
        file.extend(builder.section());
        file.extend(builder.interface(9));
        file.extend(builder.block(0x0bad, &[0; 8])); // unknown, passed over
        file.extend(builder.packet(0, 1_000_000_007, &[1, 2, 3, 4, 5]));
    }
    let expected = (Duration::new(1, 7), vec![1, 2, 3, 4, 5]);
    assert_eq!(read(&file), Ok(vec![expected.clone(), expected]));
}

#[test]
fn time_has_many_resolutions() {
    let builder = Builder(false);
    for (resolution, ticks, seconds, nanoseconds) in [
        (0, 5, 5, 0),
        (3, 5_001, 5, 1_000_000),
        (6, 5_000_001, 5, 1_000),
        (9, 5_000_000_001, 5, 1),
        (12, 5_000_000_000_999, 5, 0),
        (127, u64::MAX, 0, 0),
        (0x80, 5, 5, 0),
        (0x80 | 1, 11, 5, 500_000_000),
        (0x80 | 32, (5 << 32) + (1 << 30), 5, 250_000_000),
        (0xff, u64::MAX, 0, 0),
    ] {
        let file = [
            builder.section(),
            builder.interface(resolution),
            builder.packet(0, ticks, &[]),
        ]
        .concat();
        let time = Duration::new(seconds, nanoseconds);
        assert_eq!(read(&file), Ok(vec![(time, Vec::new())]), "{resolution}");
    }
}

#[test]
fn simple_packets_have_no_time_and_end_at_the_snapshot_length() {
    let builder = Builder(false);
    let mut interface = builder.interface(6);
    interface[12..16].copy_from_slice(&4u32.to_le_bytes());
    let packet = [&9u32.to_le_bytes()[..], &[1, 2, 3, 4]].concat();
    let file = [
        builder.section(),
        interface,
        builder.block(SIMPLE_PACKET, &packet),
    ]
    .concat();
    let record = PcapReader::new(&file).unwrap().next().unwrap().unwrap();
    assert_eq!(
        (record.frame, record.original_length),
        (&[1, 2, 3, 4][..], 9)
    );
}

#[test]
fn lies_are_named() {
    let builder = Builder(false);
    let (section, interface) = (builder.section(), builder.interface(9));
    let start = section.len() + interface.len();
    let with = |block: Vec<u8>| read(&[&section[..], &interface, &block].concat());
    let packet = builder.packet(0, 1, &[0; 60]);

    let unknown = PcapError::Interface {
        offset: start,
        number: 1,
    };
    assert_eq!(with(builder.packet(1, 1, &[0; 60])), Err(unknown));
    let changed = |at: usize, value: u32| {
        let mut packet = packet.clone();
        packet[at..at + 4].copy_from_slice(&value.to_le_bytes());
        with(packet)
    };
    let block = Err(PcapError::Block { offset: start });
    assert_eq!(changed(packet.len() - 4, 8), block, "the lengths differ");
    assert_eq!(changed(4, 10), block, "no multiple of four");
    assert_eq!(changed(4, 8), block, "shorter than its framing");
    assert_eq!(changed(20, 61 + 64), block, "the frame leaves the block");
    let long = |length| {
        Err(PcapError::TooLong {
            offset: start,
            length,
        })
    };
    assert_eq!(changed(4, u32::MAX), long(u32::MAX));
    assert_eq!(changed(20, u32::MAX), long(u32::MAX));
    assert_eq!(
        changed(4, 1024),
        Err(PcapError::Truncated { offset: start })
    );

    let mut order = section.clone();
    order[8] = 0;
    assert_eq!(read(&order), Err(PcapError::Block { offset: 0 }));
    assert_eq!(
        read(&section[..20]),
        Err(PcapError::Truncated { offset: 0 })
    );
    let many = [section.clone(), interface.repeat(INTERFACES + 1)].concat();
    assert!(matches!(read(&many), Err(PcapError::Block { .. })));
}

/// As `hitless capture` writes them: frames, and packets in clear that begin with an IP header.
#[test]
fn packets_of_other_links_are_passed_over_beside_frames_and_refused_alone() {
    let builder = Builder(false);
    let (section, ethernet) = (builder.section(), builder.interface(9));
    let mut other = ethernet.clone();
    other[8] = LinkType::Ip as u8;
    let packets = [0, 1].map(|interface| builder.packet(interface, 7, &[interface as u8; 60]));
    let both = [&section[..], &ethernet, &other, &packets[1], &packets[0]].concat();
    let mut reader = PcapReader::new(&both).unwrap();
    let frames: Vec<_> = reader
        .by_ref()
        .map(|record| record.unwrap().frame)
        .collect();
    assert_eq!(frames, [[0; 60]]);
    assert_eq!(reader.passed_over(), 1);
    let alone = [&section[..], &other, &packets[0]].concat();
    assert_eq!(read(&alone), Err(PcapError::LinkType(101)));
}
