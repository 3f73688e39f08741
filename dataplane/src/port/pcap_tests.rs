//! Captures in and out, at both paces, and files that are refused.

use std::cell::Cell;

use proptest::prelude::*;

use super::*;

thread_local! {
    /// The tests' clock, in seconds.
    static NOW: Cell<u64> = const { Cell::new(1_700_000_000) };
}

fn now() -> Duration {
    Duration::from_secs(NOW.get())
}

/// A file of this test that goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let name = format!("hitless-{}-{name}", std::process::id());
        Scratch(std::env::temp_dir().join(name))
    }

    fn with(name: &str, octets: &[u8]) -> Scratch {
        let scratch = Scratch::new(name);
        fs::write(&scratch.0, octets).unwrap();
        scratch
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn settings(input: Option<&Scratch>, output: Option<&Scratch>) -> PcapSettings {
    PcapSettings {
        input: input.map(|file| file.0.clone()),
        output: output.map(|file| file.0.clone()),
        pace: Pace::Fast,
        mtu: 9000,
        clock: now,
    }
}

fn capture(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = PcapWriter::new(&mut file).unwrap();
    for (seconds, frame) in frames {
        let time = Duration::from_secs(*seconds);
        writer.write(time, frame).unwrap();
    }
    file
}

fn receive(port: &mut PcapPort, pool: &mut Pool) -> Vec<Vec<u8>> {
    let mut burst = Burst::new();
    port.receive(pool, &mut burst);
    assert_eq!(pool.available() + burst.len(), pool.packets());
    assert_eq!(port.frames_held(), 0);
    let octets = burst.iter().map(|packet| pool.bytes(packet).to_vec());
    let octets = octets.collect();
    burst.into_iter().for_each(|packet| pool.free(packet));
    octets
}

fn frame_of(number: usize) -> Vec<u8> {
    vec![number as u8; 60 + number * 100]
}

/// What one port writes the next one reads, in both formats; closed and opened again.
#[test]
fn what_is_sent_is_received_from_the_capture() {
    for name in ["round.pcap", "round.pcapng"] {
        let file = Scratch::new(name);
        let mut pool = Pool::with_runs(64, 4).unwrap();
        let mut port = PcapPort::open(&settings(None, Some(&file))).unwrap();
        let numbers: Vec<usize> = (0..40).collect();
        for chunk in numbers.chunks(4) {
            let mut burst = Burst::new();
            for number in chunk {
                burst.push(pool.copy_in(&frame_of(*number)).unwrap());
            }
            port.transmit(&mut pool, &mut burst);
            assert_eq!((burst.len(), pool.available()), (0, 68));
        }
        port.poll(&mut pool);
        let flushed = fs::read(&file.0).unwrap();
        assert!(flushed.len() > 40 * 2000, "{}", flushed.len());
        assert_eq!(Box::new(port).close(&mut pool), 0);

        let times: Vec<_> = PcapReader::new(&flushed)
            .unwrap()
            .map(|record| record.unwrap().time)
            .collect();
        assert_eq!(times, vec![now(); 40]);
        let mut port = PcapPort::open(&settings(Some(&file), None)).unwrap();
        assert_eq!(port.remaining(), 40);
        let mut received = Vec::new();
        while port.remaining() > 0 {
            received.extend(receive(&mut port, &mut pool));
        }
        let expected: Vec<_> = numbers.iter().map(|number| frame_of(*number)).collect();
        assert_eq!(received, expected);
        assert!(receive(&mut port, &mut pool).is_empty());
        assert_eq!(port.counters(), PortCounters::default());
    }
}

#[test]
fn recorded_frames_come_as_far_apart_as_they_were_captured() {
    let times = [(100, vec![1; 60]), (100, vec![2; 60]), (103, vec![3; 60])];
    // The last one was captured before the first: it is due at once.
    let back = (50, vec![4; 60]);
    let file = Scratch::with("paced", &capture(&[&times[..], &[back]].concat()));
    let mut pool = Pool::new(8).unwrap();
    let mut port = PcapPort::open(&PcapSettings {
        pace: Pace::Recorded,
        ..settings(Some(&file), None)
    })
    .unwrap();
    let first = |frames: Vec<Vec<u8>>| frames.iter().map(|frame| frame[0]).collect::<Vec<_>>();
    assert_eq!(first(receive(&mut port, &mut pool)), [1, 2]);
    NOW.set(NOW.get() + 2);
    assert!(receive(&mut port, &mut pool).is_empty());
    NOW.set(NOW.get() + 1);
    assert_eq!(first(receive(&mut port, &mut pool)), [3, 4]);
}

#[test]
fn a_pool_without_room_makes_frames_wait_and_one_without_runs_refuses_long_ones() {
    let frames = [(1, vec![1; 60]), (1, vec![2; 5000]), (1, vec![3; 60])];
    let file = Scratch::with("wait", &capture(&frames));
    let mut pool = Pool::new(1).unwrap();
    let mut port = PcapPort::open(&settings(Some(&file), None)).unwrap();
    assert_eq!(receive(&mut port, &mut pool), [vec![1; 60]]);
    assert_eq!(receive(&mut port, &mut pool), [vec![3; 60]]);
    assert_eq!((port.counters().malformed, port.remaining()), (1, 0));
}

#[test]
fn what_is_too_long_or_cannot_be_written_is_counted() {
    let mut pool = Pool::with_runs(8, 1).unwrap();
    let file = Scratch::new("long");
    let mut port = PcapPort::open(&PcapSettings {
        mtu: 100,
        ..settings(None, Some(&file))
    })
    .unwrap();
    let mut burst: Burst = [118, 119]
        .iter()
        .map(|length| pool.copy_in(&vec![0; *length]).unwrap())
        .collect();
    port.transmit(&mut pool, &mut burst);
    assert_eq!((port.counters().malformed, pool.available()), (1, 9));

    // A device that is always full takes the header into the buffer, and nothing after that.
    let full = Scratch(PathBuf::from("/dev/full"));
    let mut port = PcapPort::open(&settings(None, Some(&full))).unwrap();
    std::mem::forget(full);
    for sent in 1..=3 {
        let mut burst = Burst::new();
        burst.push(pool.copy_in(&[0; 60]).unwrap());
        port.transmit(&mut pool, &mut burst);
        port.poll(&mut pool);
        assert_eq!((port.counters().transmit_full, pool.available()), (sent, 9));
    }
    assert!(port.failure().is_some());
}

/// Every file that is refused is named with what is wrong and where.
#[test]
fn files_that_lie_or_end_early_are_refused_when_the_port_is_opened() {
    let whole = capture(&[(1, vec![1; 60]), (2, vec![2; 60])]);
    let refused = |octets: &[u8], what: &str| {
        let file = Scratch::with("lies", octets);
        let error = PcapPort::open(&settings(Some(&file), None)).err();
        let text = error.expect(what).to_string();
        assert!(text.starts_with(&file.0.display().to_string()), "{text}");
        assert!(text.contains(what), "{text}");
    };
    refused(b"", "shorter than");
    refused(b"#!/bin/sh\n", "neither pcap nor pcapng");
    refused(&whole[..whole.len() - 1], "cut off in the record at offset");
    let mut lie = whole.clone();
    let at = whole.len() - 92;
    lie[at + 20..at + 24].copy_from_slice(&u32::MAX.to_le_bytes());
    refused(&lie, "claims 4294967295 octets");
    let mut cut = whole.clone();
    cut[at + 24..at + 28].copy_from_slice(&1514u32.to_le_bytes());
    refused(&cut, "frame 2 has 60 of its 1514 octets");

    let absent = Scratch::new("absent");
    let error = PcapPort::open(&settings(Some(&absent), None)).err();
    assert!(error.unwrap().to_string().starts_with("cannot read "));
    let directory = Scratch(std::env::temp_dir().join("no-such-directory/out.pcap"));
    let error = PcapPort::open(&settings(None, Some(&directory))).err();
    assert!(error.unwrap().to_string().starts_with("cannot create "));
}

proptest! {
    /// Whatever a capture says, opening it ends, and what it holds comes whole or not at all.
    #[test]
    fn a_hostile_capture_is_an_error_or_frames_of_its_own(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut octets = capture(&[(1, vec![1; 60]), (2, vec![2; 90])]);
        for (place, value) in changes {
            let place = place.index(octets.len());
            octets[place] = value;
        }
        let path = Path::new("x");
        if let Ok(found) = frames(path, &octets) {
            prop_assert!(found.iter().all(|(_, place)| place.end <= octets.len()));
        }
    }
}
