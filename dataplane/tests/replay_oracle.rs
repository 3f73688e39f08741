//! The replay window against a naive model: a set of all numbers ever seen, and a floor.

use std::collections::BTreeSet;

use hitless_dataplane::replay::{ReplayReject, ReplayWindow, WindowState};
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
}

impl Model {
    fn new(size: u64) -> Model {
        Model {
            size,
            seen: BTreeSet::new(),
            floor: 0,
            top: 0,
        }
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
            self.seen.insert(n);
            self.top = self.top.max(n);
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
    fn the_window_is_the_set_of_numbers_seen((size, start, steps) in life(), esn: bool) {
        let mut window = ReplayWindow::new(size);
        let mut model = Model::new(u64::from(size));
        window.leap(SequenceNumber(start));
        model.leap(start);
        for step in steps {
            match step {
                Step::Packet(offset, copies) => for _ in 0..copies {
                    let sent = near(model.top, offset);
                    // Only what the wire carries: the window infers the rest.
                    let inferred = window.infer(sent as u32, esn);
                    let expected = if esn { model.infer(sent as u32) } else { sent & 0xffff_ffff };
                    prop_assert_eq!(inferred.0, expected);
                    let number = SequenceNumber(sent);
                    let verdict = window.check(number);
                    prop_assert_eq!(verdict, model.check(sent));
                    prop_assert_eq!(window.check(number), verdict, "check must change nothing");
                    prop_assert_eq!(window.mark(number), model.mark(sent));
                },
                Step::Leap(offset) => {
                    let floor = near(model.top, offset);
                    window.leap(SequenceNumber(floor));
                    model.leap(floor);
                }
                Step::Move(other) => {
                    let mut elsewhere = ReplayWindow::new(other);
                    prop_assert!(elsewhere.import(&window.export()));
                    let mut back = ReplayWindow::new(size);
                    prop_assert!(back.import(&elsewhere.export()));
                    // What did not fit into the smaller window on the way counts as seen.
                    let kept = u64::from(other.max(64)).min(u64::from(size));
                    model.leap_to_window(kept);
                    window = back;
                }
            }
            prop_assert_eq!(window.top().0, model.top);
        }
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
}
