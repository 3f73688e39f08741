//! The replay windows against a naive model: a set of all numbers ever seen, and a floor. The
//! window of one worker and the one that several share are driven side by side.

use std::collections::BTreeSet;

use hitless_dataplane::replay::{
    AntiReplay, ReplayReject, ReplayWindow, SharedWindow, WindowState,
};
use hitless_sa::SequenceNumber;
use proptest::prelude::*;

/// What RFC 4303 section 3.4.3 says, said in sets.
#[derive(Clone)]
struct Model {
    size: u64,
    seen: BTreeSet<u64>,
    /// Everything up to here counts as seen.
    floor: u64,
    top: u64,
    /// What left the window neither seen nor below the floor.
    lost: u64,
}

impl Model {
    fn new(size: u64) -> Model {
        Model {
            size,
            seen: BTreeSet::new(),
            floor: 0,
            top: 0,
            lost: 0,
        }
    }

    fn rise(&mut self, top: u64) {
        let left = top.saturating_sub(self.size);
        let first = (self.top + 1).saturating_sub(self.size).max(self.floor + 1);
        if first <= left {
            let seen = self.seen.range(first..=left).count() as u64;
            self.lost += left - first + 1 - seen;
        }
        self.top = self.top.max(top);
    }

    /// Left edge of the window, which may lie before the first number.
    fn bottom(&self) -> i128 {
        i128::from(self.top) - i128::from(self.size) + 1
    }

    fn check(&self, n: u64) -> Result<(), ReplayReject> {
        if i128::from(n) < self.bottom() {
            Err(ReplayReject::TooOld)
        } else if n <= self.floor || self.seen.contains(&n) {
            Err(ReplayReject::Seen)
        } else {
            Ok(())
        }
    }

    fn mark(&mut self, n: u64) -> bool {
        let fresh = self.check(n).is_ok();
        if fresh {
            self.rise(n);
            self.seen.insert(n);
        }
        fresh
    }

    fn leap(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        self.top = self.top.max(floor);
    }

    /// Appendix A2 in closed form: the one number with this low half that lies neither left of the
    /// window nor 2^32 or more right of its left edge.
    fn infer(&self, low: u32) -> u64 {
        let bottom = self.bottom().max(0) as u64;
        let ahead = low.wrapping_sub(bottom as u32);
        bottom + u64::from(ahead)
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A number relative to the top, seen `copies` times.
    Packet(i64, u8),
    Leap(i64),
    /// Off to another member, into a window of this size, and back.
    Move(u32),
    /// Another member's window joins: of this size, with its top so far from ours, and these seen
    /// of the numbers before its top.
    Join(u32, i64, Vec<u64>),
    /// Several workers receive from now on, or one of them again.
    Share,
}

fn step(size: i64) -> impl Strategy<Value = Step> {
    let packet =
        |offsets| (offsets, 1u8..3).prop_map(|(offset, copies)| Step::Packet(offset, copies));
    prop_oneof![
        20 => packet((-2 * size..3 * size).boxed()),
        20 => packet((-8i64..8).boxed()),
        6 => packet(prop_oneof![Just(-size - 1), Just(-size), Just(-size + 1),
                                Just(size - 1), Just(size), Just(size + 1)].boxed()),
        2 => packet((1i64 << 30..1 << 31).boxed()),
        1 => (-2 * size..2 * size).prop_map(Step::Leap),
        1 => (6u32..9).prop_map(|bits| Step::Move(1 << bits)),
        1 => (6u32..9, -2 * size..2 * size, proptest::collection::vec(0u64..300, 0..40))
            .prop_map(|(bits, top, seen)| Step::Join(1 << bits, top, seen)),
        1 => Just(Step::Share),
    ]
}

/// A size, a place to start, often near an epoch's end, and what happens.
fn life() -> impl Strategy<Value = (u32, u64, Vec<Step>)> {
    let sizes = prop_oneof![4 => 6u32..=10, 1 => 11u32..=16].prop_map(|bits| 1u32 << bits);
    let starts = prop_oneof![
        Just(0u64),
        0u64..2000,
        (1u64..5, -2000i64..2000).prop_map(|(epoch, near)| ((epoch << 32) as i64 + near) as u64),
        any::<u32>().prop_map(u64::from),
    ];
    (sizes, starts).prop_flat_map(|(size, start)| {
        let steps = proptest::collection::vec(step(i64::from(size)), 1..150);
        (Just(size), Just(start), steps)
    })
}

fn near(top: u64, offset: i64) -> u64 {
    top.saturating_add_signed(offset)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn rfc4303_section_3_4_3_numbers_marked_in_one_go_are_as_if_one_by_one(
        (size, start, _) in life(),
        bursts in prop::collection::vec(
            prop::collection::vec((-200i64..200, prop::sample::select(vec![1i64, 1, 17, 64, 1 << 20])), 0..40),
            1..8,
        ),
    ) {
        let mut window = ReplayWindow::new(size);
        window.leap(SequenceNumber(start));
        let shared = SharedWindow::new(&window);
        for burst in bursts {
            let top = window.top().0;
            let numbers: Vec<SequenceNumber> = burst
                .iter()
                .map(|(offset, step)| SequenceNumber(near(top, offset * step)))
                .take(32)
                .collect();
            let told = shared.mark_all(&numbers);
            for (at, number) in numbers.iter().enumerate() {
                prop_assert_eq!(told >> at & 1 != 0, window.mark(*number), "{:?} {}", number, at);
            }
            prop_assert_eq!((shared.top(), shared.lost()), (window.top(), window.lost()));
        }
    }

    #[test]
    fn rfc4303_section_3_4_3_the_window_is_the_set_of_numbers_seen(
        (size, start, steps) in life(), esn: bool,
    ) {
        let mut window = ReplayWindow::new(size);
        let mut model = Model::new(u64::from(size));
        window.leap(SequenceNumber(start));
        model.leap(start);
        let mut shared = SharedWindow::new(&window);
        for step in steps {
            match step {
                Step::Packet(offset, copies) => for _ in 0..copies {
                    let sent = near(model.top, offset);
                    // Only what the wire carries: the window infers the rest.
                    let expected = if esn { model.infer(sent as u32) } else { sent & 0xffff_ffff };
                    prop_assert_eq!(window.infer(sent as u32, esn).0, expected);
                    prop_assert_eq!(shared.infer(sent as u32, esn).0, expected);
                    let number = SequenceNumber(sent);
                    let verdict = model.check(sent);
                    for _ in 0..2 {
                        prop_assert_eq!(window.check(number), verdict, "a check changes nothing");
                        prop_assert_eq!(shared.check(number), verdict);
                    }
                    let fresh = model.mark(sent);
                    prop_assert_eq!(window.mark(number), fresh);
                    prop_assert_eq!(shared.mark(number), fresh);
                },
                Step::Leap(offset) => {
                    let floor = near(model.top, offset);
                    window.leap(SequenceNumber(floor));
                    model.leap(floor);
                    shared = SharedWindow::new(&window);
                }
                Step::Move(other) => {
                    let mut elsewhere = ReplayWindow::new(other);
                    prop_assert!(elsewhere.import(&window.export()));
                    let mut back = ReplayWindow::new(size);
                    prop_assert!(back.import(&elsewhere.export()));
                    // What did not fit into the smaller window on the way counts as seen.
                    let kept = u64::from(other.max(64)).min(u64::from(size));
                    model.leap_to_window(kept);
                    model.lost = 0;
                    window = back;
                    shared = SharedWindow::new(&window);
                }
                Step::Join(other, top, seen) => {
                    let top = near(model.top, top);
                    let mut theirs = Model::new(u64::from(other));
                    let mut joining = ReplayWindow::new(other);
                    for back in seen.into_iter().rev() {
                        let n = top.saturating_sub(back);
                        prop_assert_eq!(joining.mark(SequenceNumber(n)), theirs.mark(n));
                    }
                    prop_assert!(window.import(&joining.export()));
                    model.join(&theirs);
                    shared = SharedWindow::new(&window);
                }
                Step::Share => {
                    let again = SharedWindow::new(&shared.to_window());
                    prop_assert_eq!(again.to_window().export(), window.export());
                    shared = again;
                }
            }
            prop_assert_eq!(window.top().0, model.top);
            prop_assert_eq!(shared.top().0, model.top);
            prop_assert_eq!(window.lost(), model.lost);
            prop_assert_eq!(shared.lost(), model.lost);
        }
    }

    /// Without anti-replay nothing is refused, and a number is taken for one of the next 2^32 if
    /// its low half is more than 2^30 behind.
    #[test]
    fn rfc4303_section_3_4_3_without_anti_replay_only_the_high_half_is_kept(
        top in 0u64..1 << 40, offset in -(1i64 << 30)..(1 << 32) - (1 << 30),
    ) {
        let mut off = AntiReplay::new(0, SequenceNumber(0));
        prop_assert!(!off.is_on() && off.export().is_none());
        prop_assert!(off.mark(SequenceNumber(top)));
        let sent = SequenceNumber(near(top, offset));
        prop_assert_eq!(off.infer(sent.low(), true), sent);
        prop_assert_eq!(off.infer(sent.low(), false).0, u64::from(sent.low()));
        for _ in 0..2 {
            prop_assert_eq!(off.check(sent), Ok(()));
            prop_assert!(off.mark(sent));
        }
        prop_assert_eq!(off.top().0, top.max(sent.0));
        prop_assert_eq!(off.lost(), 0);
    }

    /// A number inside the window or up to 2^32 - size ahead of it is always inferred right: the
    /// bound on a takeover's jump.
    #[test]
    fn inference_is_right_up_to_the_documented_jump(
        bits in 6u32..=16, top: u64, offset: u64,
    ) {
        let size = 1u64 << bits;
        let top = top >> 2;
        let mut window = ReplayWindow::new(size as u32);
        window.leap(SequenceNumber(top));
        let bottom = (top + 1).saturating_sub(size);
        let sent = bottom + offset % (1 << 32);
        prop_assert_eq!(window.infer(sent as u32, true), SequenceNumber(sent));
        prop_assert_ne!(window.infer(sent as u32, true), SequenceNumber(bottom + (1 << 32) + offset % (1 << 32)));
    }

    /// Numbers that leave the window unseen are lost, and nothing else is.
    #[test]
    fn lost_counts_what_left_unseen(
        bits in 6u32..=8,
        steps in proptest::collection::vec((1u64..600, -300i64..300), 1..200),
    ) {
        let size = 1u64 << bits;
        let mut window = ReplayWindow::new(size as u32);
        let mut seen = BTreeSet::new();
        let mut top = 0u64;
        for (forward, back) in steps {
            for n in [top + forward % (if forward < 500 { 4 } else { 600 }), near(top, back)] {
                if n > 0 && window.mark(SequenceNumber(n)) {
                    seen.insert(n);
                    top = top.max(n);
                }
            }
            let left = top.saturating_sub(size);
            prop_assert_eq!(window.lost(), left - seen.range(..=left).count() as u64);
        }
    }

    /// Merging two members' windows accepts nothing that either has seen or given up.
    #[test]
    fn an_import_is_a_union(
        a in proptest::collection::vec(1u64..500, 0..80),
        b in proptest::collection::vec(1u64..500, 0..80),
        sizes in (6u32..9, 6u32..9),
    ) {
        let mut one = ReplayWindow::new(1 << sizes.0);
        let mut other = ReplayWindow::new(1 << sizes.1);
        a.iter().for_each(|&n| { one.mark(SequenceNumber(n)); });
        b.iter().for_each(|&n| { other.mark(SequenceNumber(n)); });
        let mut merged = one.clone();
        prop_assert!(merged.import(&other.export()));
        prop_assert_eq!(merged.size(), one.size());
        prop_assert_eq!(merged.top(), one.top().max(other.top()));
        for n in (0..1200).map(SequenceNumber) {
            let fresh = one.check(n).is_ok() && other.check(n).is_ok();
            let in_window = n.0 + u64::from(merged.size()) > merged.top().0;
            prop_assert_eq!(merged.check(n).is_ok(), fresh && in_window, "{}", n);
        }
    }

    /// RFC 6027 section 3.5: what a successor is given is what its predecessor had, and a torn or
    /// longer text is none.
    #[test]
    fn a_window_survives_the_wire((size, start, steps) in life()) {
        let mut window = ReplayWindow::new(size);
        window.leap(SequenceNumber(start));
        for step in steps {
            if let Step::Packet(offset, _) = step {
                window.mark(SequenceNumber(near(window.top().0, offset)));
            }
        }
        let octets = window.export().to_bytes();
        let state = WindowState::from_bytes(&octets);
        prop_assert_eq!(state.as_ref(), Some(&window.export()));
        let heir = AntiReplay::inherit(size, &window.export());
        prop_assert_eq!(heir.and_then(|heir| heir.export()), Some(window.export()));
        for length in (0..octets.len()).step_by(3) {
            let state = WindowState::from_bytes(&octets[..length]);
            let taken = state.and_then(|state| AntiReplay::inherit(size, &state));
            prop_assert!(taken.is_none() || (length - 8).is_power_of_two());
        }
    }

    /// S7: a state from the wire that is no window's changes nothing and never panics.
    #[test]
    fn an_import_of_anything_is_safe(top: u64, words in proptest::collection::vec(any::<u64>(), 0..40)) {
        let mut window = ReplayWindow::new(64);
        window.mark(SequenceNumber(5));
        let valid = words.len().is_power_of_two();
        let state = WindowState { top: SequenceNumber(top), bitmap: words };
        prop_assert_eq!(window.import(&state), valid);
        prop_assert!(window.check(SequenceNumber(5)).is_err());
        prop_assert_eq!(window.top().0, if valid { top.max(5) } else { 5 });
    }
}

impl Model {
    /// Forgets all but the last `kept` numbers, as a passage through a smaller window does.
    fn leap_to_window(&mut self, kept: u64) {
        self.floor = self.floor.max(self.top.saturating_sub(kept));
    }

    /// What either has seen or given up counts as seen from now on.
    fn join(&mut self, other: &Model) {
        self.top = self.top.max(other.top);
        self.floor = self.floor.max(other.top.saturating_sub(other.size));
        self.seen.extend(&other.seen);
    }
}

#[test]
fn rfc4303_without_anti_replay_more_than_2_30_behind_is_a_wrap() {
    // VPP's verify_hi_seq_num, which its own suite has switched off.
    let top = SequenceNumber(3 << 32 | 0x8000_0000);
    let off = AntiReplay::new(0, top);
    let behind = |by: u32| off.infer(top.low() - by, true).high();
    assert_eq!(behind(1 << 30), 3, "old, and accepted");
    assert_eq!(behind((1 << 30) + 1), 4, "the next epoch");
    // Just after a wrap, a straggler belongs to the epoch before.
    let off = AntiReplay::new(0, SequenceNumber(3 << 32 | 5));
    assert_eq!(off.infer(0xffff_fffd, true).high(), 2);
    assert_eq!(off.infer(0xc000_0000, true).high(), 3);
}

#[test]
fn a_window_is_shared_and_taken_back_only_by_the_last_holder() {
    let mut one = AntiReplay::new(64, SequenceNumber(10));
    assert!(one.mark(SequenceNumber(12)));
    let mut shared = one.share();
    let mut other = shared.clone();
    assert!(other.mark(SequenceNumber(11)));
    assert!(!shared.mark(SequenceNumber(11)), "one truth");
    let Err(mut shared) = shared.unshare() else {
        panic!("another worker still marks in it");
    };
    assert!(shared.mark(SequenceNumber(80)));
    drop(other);
    let Ok(AntiReplay::Own(mut window)) = shared.unshare() else {
        panic!("nobody else has it");
    };
    assert_eq!(
        (window.top().0, window.lost()),
        (80, 4),
        "13 to 16 were never seen"
    );
    for n in [10, 11, 12, 80] {
        assert!(!window.mark(SequenceNumber(n)));
    }
    assert!(window.mark(SequenceNumber(17)));
}
