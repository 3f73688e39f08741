//! Anti-replay as a worker does it (RFC 4303 section 3.4.3 and Appendix A2): which packets come
//! through, why the others do not, and what moves the window. Each case with the smallest and the
//! largest window, of one worker and shared, with 32-bit numbers and with ESN.

use std::sync::Arc;

use hitless_dataplane::aead::{Engine, EspKey};
use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::{Command, Event, Retired};
use hitless_dataplane::esp;
use hitless_dataplane::replay::AntiReplay;
use hitless_dataplane::sad::InboundSa;
use hitless_dataplane::verdict::DropReason;
use hitless_sa::{ChildSa, EspSuite, KeyMaterial, SequenceNumber, Spi};

use crate::bed::*;

const EPOCH: u64 = 1 << 32;

/// A receiving gateway, and a peer that sends whatever number it likes.
struct Receiver {
    bed: Bed,
    key: EspKey,
    width: u64,
    esn: bool,
    shared: bool,
    /// Drops counted so far.
    counted: Vec<(DropReason, u64)>,
}

/// What became of a packet.
type Verdict = Result<(), DropReason>;
const REPLAY: Verdict = Err(DropReason::Replay);
const INTEGRITY: Verdict = Err(DropReason::Integrity);

fn peer_key(seed: u8) -> EspKey {
    EspKey::new(
        Engine::AwsLc,
        EspSuite::Aes256Gcm16,
        &KeyMaterial::new(&[seed; 36]),
    )
    .unwrap()
}

impl Receiver {
    fn new(width: u32, esn: bool, shared: bool) -> Receiver {
        let settings = Settings {
            esn,
            ..Settings::default()
        };
        let mut bed = Bed::with(settings);
        bed.warm_up();
        let mut receiver = Receiver {
            bed,
            key: peer_key(2),
            width: width.into(),
            esn,
            shared,
            counted: Vec::new(),
        };
        receiver.start_at(0);
        receiver
    }

    /// All four kinds, with a window of each size.
    fn kinds() -> impl Iterator<Item = Receiver> {
        [64, 65_536].into_iter().flat_map(|width| {
            [(false, false), (false, true), (true, false), (true, true)]
                .map(|(esn, shared)| Receiver::new(width, esn, shared))
        })
    }

    fn with_esn() -> impl Iterator<Item = Receiver> {
        Receiver::kinds().filter(|receiver| receiver.esn)
    }

    /// A fresh window with every number up to `floor` seen.
    fn start_at(&mut self, floor: u64) {
        let child = ChildSa {
            replay_window: self.width as u32,
            ..self.bed.child(false)
        };
        let mut window = AntiReplay::new(child.replay_window, SequenceNumber(floor));
        if self.shared {
            window = window.share();
        }
        let cell = Arc::new(Cell::new(SequenceNumber(1), PLENTY));
        // The peer has been heard: this is no takeover.
        cell.note_inbound_top(SequenceNumber(1));
        let sa = InboundSa::with_window(&child, cell, window, 0, Engine::AwsLc).unwrap();
        self.bed.b.send(Command::InstallInbound(Box::new(sa)));
        self.bed.settle();
        self.bed.b.events();
        self.bed.b.delivered.clear();
        self.counted = self.bed.b.handle.counters.drops().collect();
    }

    fn packet(&self, key: &EspKey, number: u64) -> Vec<u8> {
        let inner = udp(HOST_A, HOST_B, b"numbered");
        let (spi, number) = (Spi(0xbbbb_0001), SequenceNumber(number));
        let esp = esp::seal_datagram(key, spi, number, self.esn, 4, &inner).unwrap();
        raw(OUTSIDE_A, OUTSIDE_B, 50, &esp)
    }

    /// Packets that come in one burst: how many were delivered, and why the others were not.
    fn burst(&mut self, packets: &[Vec<u8>]) -> (usize, Vec<(DropReason, u64)>) {
        for chunk in packets.chunks(128) {
            for packet in chunk {
                self.bed.b.wire_brings(packet);
            }
            self.bed.settle();
        }
        let now: Vec<_> = self.bed.b.handle.counters.drops().collect();
        let before = std::mem::replace(&mut self.counted, now);
        let earlier = |reason| before.iter().find(|(r, _)| *r == reason).map_or(0, |b| b.1);
        let drops = self.counted.iter();
        let drops = drops.map(|(reason, count)| (*reason, count - earlier(*reason)));
        let drops = drops.filter(|(_, count)| *count > 0).collect();
        (std::mem::take(&mut self.bed.b.delivered).len(), drops)
    }

    /// The peer's packet with this number.
    fn bring(&mut self, number: u64) -> Verdict {
        let packet = self.packet(&self.key, number);
        match self.burst(&[packet]) {
            (1, drops) if drops.is_empty() => Ok(()),
            (0, drops) if drops.len() == 1 && drops[0].1 == 1 => Err(drops[0].0),
            other => panic!("one packet, one verdict: {other:?}"),
        }
    }

    fn bring_all(&mut self, numbers: impl IntoIterator<Item = u64>) -> Vec<Verdict> {
        numbers.into_iter().map(|n| self.bring(n)).collect()
    }

    /// Left of the window: known for a replay with 32-bit numbers; with ESN it is taken for a
    /// number of the next epoch, and its ICV says otherwise.
    fn too_old(&self) -> DropReason {
        match self.esn {
            true => DropReason::Integrity,
            false => DropReason::Replay,
        }
    }

    /// The SA as the worker gives it back.
    fn retire(mut self) -> Box<InboundSa> {
        self.bed.b.send(Command::Remove(sa_id(1)));
        self.bed.settle();
        let events = self.bed.b.events().into_iter();
        let mut retired = events.filter_map(|event| match event {
            Event::Retired(Retired::Inbound(sa)) => Some(sa),
            _ => None,
        });
        retired.next().unwrap()
    }
}

#[test]
fn rfc4303_section_3_4_3_every_replay_is_dropped_and_counted() {
    for mut receiver in Receiver::kinds() {
        let first: Vec<_> = (1..=33)
            .map(|n| receiver.packet(&receiver.key, n))
            .collect();
        assert_eq!(receiver.burst(&first), (33, vec![]));
        assert_eq!(receiver.burst(&first), (0, vec![(DropReason::Replay, 33)]));
        assert_eq!(receiver.bring(34), Ok(()));
        assert_eq!(receiver.retire().counters.packets(), 34);
    }
}

#[test]
fn rfc4303_section_3_4_3_of_eight_copies_in_a_burst_one_is_accepted() {
    for mut receiver in Receiver::kinds() {
        for number in [7, 40, 8] {
            let copies = vec![receiver.packet(&receiver.key, number); 8];
            assert_eq!(receiver.burst(&copies), (1, vec![(DropReason::Replay, 7)]));
        }
    }
}

#[test]
fn rfc4303_section_3_4_3_the_edges_of_the_window() {
    for mut receiver in Receiver::kinds() {
        let width = receiver.width;
        let too_old = Err(receiver.too_old());
        assert_eq!(receiver.bring(1), Ok(()));
        assert_eq!(receiver.bring_all([width + 100; 2]), [Ok(()), REPLAY]);
        // The left edge is 101.
        assert_eq!(
            receiver.bring_all([100, 101, 101]),
            [too_old, Ok(()), REPLAY]
        );
        let old = 130;
        assert_eq!(receiver.bring_all([old, old]), [Ok(()), REPLAY]);
        // The right edge and the one behind it, which moves the left one.
        assert_eq!(
            receiver.bring_all([width + 99, width + 101, 101, 102]),
            [Ok(()), Ok(()), too_old, Ok(())]
        );
    }
}

#[test]
fn rfc4303_section_3_4_4_a_wrong_key_moves_no_window() {
    for mut receiver in Receiver::kinds() {
        assert_eq!(receiver.bring(100), Ok(()));
        let forged = vec![receiver.packet(&peer_key(9), 100 + 2 * receiver.width); 17];
        assert_eq!(
            receiver.burst(&forged),
            (0, vec![(DropReason::Integrity, 17)])
        );
        // Had the window moved, this would be left of it.
        assert_eq!(receiver.bring_all([99, 99]), [Ok(()), REPLAY]);
        // And the number that was forged is the peer's still.
        assert_eq!(receiver.bring(100 + 2 * receiver.width), Ok(()));
    }
}

#[test]
fn rfc4303_section_3_4_2_runts_are_counted_and_move_no_window() {
    for mut receiver in Receiver::kinds() {
        assert_eq!(receiver.bring(100), Ok(()));
        let whole = receiver.packet(&receiver.key, 101 + receiver.width);
        // An IP header, then less than ESP header, IV, four octets and ICV.
        for length in [0, 3, 4, 7, 8, 16, 24, 35] {
            let runts = vec![raw(OUTSIDE_A, OUTSIDE_B, 50, &whole[20..20 + length]); 17];
            let counted = vec![(DropReason::Runt, 17)];
            assert_eq!(receiver.burst(&runts), (0, counted), "{length} octets");
        }
        assert_eq!(receiver.bring_all([99, 99]), [Ok(()), REPLAY]);
    }
}

#[test]
fn rfc4303_section_3_4_3_out_of_window_is_a_replay_without_esn_and_a_possible_wrap_with_it() {
    for mut receiver in Receiver::kinds() {
        assert_eq!(receiver.bring(receiver.width + 200), Ok(()));
        let old = (1..=17).map(|n| receiver.packet(&receiver.key, n));
        let old: Vec<_> = old.collect();
        assert_eq!(receiver.burst(&old), (0, vec![(receiver.too_old(), 17)]));
        assert_eq!(receiver.bring(receiver.width + 199), Ok(()));
    }
}

#[test]
fn a_bad_packet_in_a_burst_leaves_the_others_alone() {
    for mut receiver in Receiver::kinds() {
        let width = receiver.width;
        assert_eq!(receiver.bring_all([width, width + 300]), [Ok(()), Ok(())]);
        let burst = [width + 300, 5, width + 301].map(|n| receiver.packet(&receiver.key, n));
        let (delivered, drops) = receiver.burst(&burst);
        assert_eq!(delivered, 1);
        let expected = match receiver.esn {
            true => vec![(DropReason::Replay, 1), (DropReason::Integrity, 1)],
            false => vec![(DropReason::Replay, 2)],
        };
        assert_eq!(drops, expected);
    }
}

#[test]
fn rfc4303_appendix_a2_the_receiver_crosses_epochs_forward_and_back() {
    for mut receiver in Receiver::with_esn() {
        let width = receiver.width;
        receiver.start_at(EPOCH - 16);
        // Forward; then a straggler of the epoch before, once.
        assert_eq!(
            receiver.bring_all([0x1_0000_0005, 0xffff_fffd, 0xffff_fffd, 0x1_0000_0005]),
            [Ok(()), Ok(()), REPLAY, REPLAY]
        );
        // Two epochs ahead cannot be told from one.
        assert_eq!(receiver.bring(0x2_0000_0999), INTEGRITY);
        // The window lies within epoch 1: what is left of it is taken for epoch 2.
        assert_eq!(receiver.bring(EPOCH + width + 0x555), Ok(()));
        assert_eq!(receiver.bring_all([0x2_0000_0444; 2]), [Ok(()), REPLAY]);
        assert_eq!(receiver.bring(EPOCH + width + 0x554), INTEGRITY);
    }
}

/// Every row of the table, as numbers relative to the highest one: what comes first, and what comes
/// of a copy. A copy of what was refused is refused for the same reason.
fn table(receiver: &mut Receiver, top: u64, rows: &[(i64, Verdict)]) {
    for &(offset, verdict) in rows {
        receiver.start_at(top - receiver.width);
        assert_eq!(receiver.bring(top), Ok(()));
        let number = top.checked_add_signed(offset).unwrap();
        let copy = match verdict {
            Ok(()) => REPLAY,
            refused => refused,
        };
        let what = format!("{number:#x}, top {top:#x}, window {}", receiver.width);
        assert_eq!(receiver.bring(number), verdict, "{what}");
        assert_eq!(receiver.bring(number), copy, "a copy of {what}");
        // Whatever it was, the window is where it was or at that number.
        let next = top.max(number * u64::from(verdict.is_ok())) + 1;
        assert_eq!(receiver.bring(next), Ok(()));
    }
}

#[test]
fn rfc4303_appendix_a2_the_whole_table_with_the_window_in_one_epoch() {
    for mut receiver in Receiver::with_esn() {
        let width = receiver.width as i64;
        let far = EPOCH as i64;
        // The window from the first number of the epoch on, in its middle, and up to its last.
        for top in [
            3 * EPOCH + receiver.width - 1,
            3 * EPOCH + 0x8000_0000,
            4 * EPOCH - 1,
        ] {
            let to_end = (4 * EPOCH - 1 - top) as i64;
            table(
                &mut receiver,
                top,
                &[
                    // The low half below the window: of the epoch after it is ahead, the farthest
                    // that can be told; of this one it is too old.
                    (far - width, Ok(())),
                    (-width, INTEGRITY),
                    // Within.
                    (1 - width, Ok(())),
                    (-1, Ok(())),
                    (0, REPLAY),
                    // Above.
                    (1, Ok(())),
                    (to_end.max(2), Ok(())),
                    ((to_end + 1).min(far - width), Ok(())),
                    // What lies further ahead looks like something nearer.
                    (far - width + 1, INTEGRITY),
                    (far, REPLAY),
                    (far + 1, INTEGRITY),
                    (1 - far, INTEGRITY),
                ],
            );
        }
    }
}

#[test]
fn rfc4303_appendix_a2_the_whole_table_with_the_window_over_two_epochs() {
    for mut receiver in Receiver::with_esn() {
        let width = receiver.width as i64;
        let far = EPOCH as i64;
        // One number of the new epoch in the window, half of them, and all but one.
        for into in [0, width / 2, width - 2] {
            let top = 3 * EPOCH + into as u64;
            table(
                &mut receiver,
                top,
                &[
                    // The low half left of the window, which is ahead in the new epoch.
                    (far - width, Ok(())),
                    (-width, INTEGRITY),
                    // Within, in the old epoch and in the new one.
                    (1 - width, Ok(())),
                    (-into - 1, Ok(())),
                    (if into == 0 { -1 } else { -into }, Ok(())),
                    (0, REPLAY),
                    // Above.
                    (1, Ok(())),
                    (0x8000_0000, Ok(())),
                    (far - width + 1, INTEGRITY),
                    (far, REPLAY),
                    (-far, REPLAY),
                ],
            );
        }
    }
}

#[test]
fn rfc4303_section_3_4_3_thirty_two_bit_numbers_know_no_epoch() {
    for mut receiver in Receiver::kinds().filter(|receiver| !receiver.esn) {
        let top = 0x8000_0000;
        let width = receiver.width as i64;
        table(
            &mut receiver,
            top,
            &[
                (-width, REPLAY),
                (1 - width, Ok(())),
                (-1, Ok(())),
                (0, REPLAY),
                (1, Ok(())),
                (0x7000_0000, Ok(())),
                (-0x7000_0000, REPLAY),
            ],
        );
        // The last number is accepted, and nothing comes after it.
        receiver.start_at(u64::from(u32::MAX) - 2);
        let last = u64::from(u32::MAX);
        let verdicts = receiver.bring_all([last, last, 1, last - 1]);
        assert_eq!(verdicts, [Ok(()), REPLAY, REPLAY, Ok(())]);
    }
}

#[test]
fn rfc4303_section_3_4_3_without_anti_replay_copies_pass_and_esn_still_wraps() {
    for esn in [false, true] {
        let mut receiver = Receiver::new(0, esn, false);
        let copies = vec![receiver.packet(&receiver.key, 500); 8];
        assert_eq!(receiver.burst(&copies), (8, vec![]));
        assert_eq!(receiver.bring_all([3, 499, 3]), [Ok(()); 3]);
        let forged = vec![receiver.packet(&peer_key(9), 900); 17];
        assert_eq!(
            receiver.burst(&forged),
            (0, vec![(DropReason::Integrity, 17)])
        );
    }
    let mut receiver = Receiver::new(0, true, false);
    let (top, far) = (3 * EPOCH + 0x8000_0000, 1 << 30);
    receiver.start_at(top);
    assert_eq!(receiver.bring(top - far), Ok(()), "old");
    assert_eq!(receiver.bring(top - far - 1), INTEGRITY, "taken for a wrap");
    assert_eq!(receiver.bring(top + EPOCH - far - 1), Ok(()), "a wrap");
    // The numbers up to the floor of a takeover count as nothing special.
    receiver.start_at(1000);
    assert_eq!(receiver.bring_all([1, 1000]), [Ok(()); 2]);
}

#[test]
fn rfc4303_section_3_3_3_a_sender_that_has_used_all_32_bit_numbers_sends_nothing() {
    let mut bed = Bed::with(Settings {
        esn: false,
        ..Settings::default()
    });
    bed.warm_up();
    bed.install_from(SequenceNumber(u64::from(u32::MAX)), PLENTY, PLENTY);
    bed.settle();
    bed.wire.clear();
    for _ in 0..6 {
        bed.a.host_sends(&udp(HOST_A, HOST_B, b"x"));
    }
    bed.settle();
    assert_eq!((bed.wire.len(), bed.b.delivered.len()), (1, 1));
    assert_eq!(bed.a.dropped(DropReason::SequenceOverflow), 5);
}

#[test]
fn rfc4303_section_2_2_1_with_esn_the_sender_goes_on_in_the_next_epoch() {
    let mut bed = Bed::new();
    bed.warm_up();
    bed.install_from(SequenceNumber(u64::from(u32::MAX)), PLENTY, PLENTY);
    let child = bed.child(false);
    let floor = SequenceNumber(EPOCH - 2);
    let cell = Arc::clone(&bed.b.cell);
    let sa = InboundSa::new(&child, cell, floor, 0, Engine::AwsLc).unwrap();
    bed.b.send(Command::InstallInbound(Box::new(sa)));
    bed.settle();
    bed.wire.clear();
    for _ in 0..6 {
        bed.a.host_sends(&udp(HOST_A, HOST_B, b"x"));
    }
    bed.settle();
    assert_eq!((bed.wire.len(), bed.b.delivered.len()), (6, 6));
    let low = |frame: &Vec<u8>| u32::from_be_bytes(frame[38..42].try_into().unwrap());
    let sent: Vec<u32> = bed.wire.iter().map(low).collect();
    assert_eq!(sent, [u32::MAX, 0, 1, 2, 3, 4]);
    assert_eq!(bed.b.cell.inbound_top(), SequenceNumber(EPOCH + 4));
}

#[test]
fn lost_is_zero_until_the_window_has_been_filled_and_exact_then() {
    for mut receiver in Receiver::kinds() {
        let width = receiver.width;
        let mut expected = 0;
        let mut send = |receiver: &mut Receiver, numbers: Vec<u64>| {
            let packets = numbers.into_iter();
            let packets: Vec<_> = packets.map(|n| receiver.packet(&receiver.key, n)).collect();
            let count = packets.len();
            assert_eq!(receiver.burst(&packets), (count, vec![]));
            expected += count as u64;
        };
        // One is skipped, and nothing is lost before the window has been filled and gone past it.
        send(&mut receiver, vec![1, 2, 4]);
        // Then every second of 100, and a hole of 100.
        send(&mut receiver, (width..width + 100).step_by(2).collect());
        send(&mut receiver, vec![width + 200]);
        let top = 2 * width + 200;
        send(&mut receiver, vec![top]);
        let lost = receiver.retire().window.lost();
        assert_eq!(
            lost,
            top - width - expected + 1,
            "the last one is in the window"
        );
    }
}

#[test]
fn who_is_more_than_a_window_below_the_floor_of_a_takeover_is_told_of() {
    // Appendix A2 takes such a number for one of the next epoch; only until the first authentic
    // packet has come is it tried as what it is as well.
    let mut receiver = Receiver::new(64, true, false);
    let child = receiver.bed.child(false);
    let floor = SequenceNumber(EPOCH + 500_000);
    let takeover = |receiver: &mut Receiver| {
        let cell = Arc::new(Cell::new(SequenceNumber(1), PLENTY));
        let sa = InboundSa::new(&child, cell, floor, 0, Engine::AwsLc).unwrap();
        receiver.bed.b.send(Command::InstallInbound(Box::new(sa)));
        receiver.bed.settle();
        receiver.bed.b.events();
    };
    let told = |receiver: &mut Receiver| {
        let events = receiver.bed.b.events();
        events.iter().any(|e| matches!(e, Event::BelowFloor { .. }))
    };
    takeover(&mut receiver);
    for number in [EPOCH + 10, EPOCH + 400_000, EPOCH - 5] {
        assert_eq!(receiver.bring(number), REPLAY, "{number:#x}");
        assert!(told(&mut receiver));
    }
    // Nobody but the peer may say so.
    let forged = receiver.packet(&peer_key(9), EPOCH + 10);
    assert_eq!(
        receiver.burst(&[forged]),
        (0, vec![(DropReason::Integrity, 1)])
    );
    assert!(!told(&mut receiver));
    // A wrap is a wrap all the same.
    assert_eq!(receiver.bring(2 * EPOCH + 10), Ok(()));
    takeover(&mut receiver);
    assert_eq!(receiver.bring(floor.0 + 1), Ok(()));
    assert_eq!(
        receiver.bring(EPOCH + 10),
        INTEGRITY,
        "as the appendix says"
    );
    assert!(!told(&mut receiver));
}
