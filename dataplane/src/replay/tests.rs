//! The window's rules one by one, with RFC 4303's own examples.

use super::*;

fn marked(window: &mut ReplayWindow, numbers: impl IntoIterator<Item = u64>) -> Vec<bool> {
    numbers
        .into_iter()
        .map(|n| window.mark(SequenceNumber(n)))
        .collect()
}

fn at(size: u32, top: u64) -> ReplayWindow {
    let mut window = ReplayWindow::new(size);
    window.leap(SequenceNumber(top));
    window
}

#[test]
fn sizes_are_powers_of_two_from_64_to_65536() {
    for (asked, got) in [(0, 64), (64, 64), (65, 128), (1000, 1024), (65_536, 65_536)] {
        assert_eq!(ReplayWindow::new(asked).size(), got);
    }
    assert_eq!(ReplayWindow::new(u32::MAX).size(), 65_536);
}

#[test]
fn the_edges_of_the_window() {
    for size in [64, 1024, 65_536] {
        let width = u64::from(size);
        let mut window = ReplayWindow::new(size);
        assert!(!window.mark(SequenceNumber(0)), "0 is never sent");
        assert_eq!(
            marked(&mut window, [1, 1, width + 100, width + 100]),
            [true, false, true, false]
        );
        let bottom = 101;
        assert_eq!(
            window.check(SequenceNumber(bottom - 1)),
            Err(ReplayReject::TooOld)
        );
        assert_eq!(
            marked(&mut window, [bottom, bottom, 200, 200]),
            [true, false, true, false]
        );
        assert_eq!(marked(&mut window, [width + 99, width + 101]), [true, true]);
        assert_eq!(
            window.check(SequenceNumber(bottom)),
            Err(ReplayReject::TooOld)
        );
    }
}

#[test]
fn rfc4303_appendix_a2_case_a_the_window_within_one_subspace() {
    let window = at(64, 2 << 32 | 1000);
    for (low, high) in [
        (1000, 2),
        (937, 2),
        (936, 3),
        (0, 3),
        (1001, 2),
        (u32::MAX, 2),
    ] {
        assert_eq!(
            window.infer(low, true),
            SequenceNumber(u64::from(high as u32) << 32 | u64::from(low))
        );
    }
    // Tl = W - 1 is the last of case A: the window begins at low half 0.
    assert_eq!(at(64, 2 << 32 | 63).infer(0, true).high(), 2);
    assert_eq!(at(64, 2 << 32 | 63).infer(u32::MAX, true).high(), 2);
}

#[test]
fn rfc4303_appendix_a2_case_b_the_window_over_two_subspaces() {
    let window = at(64, 2 << 32 | 10);
    let bottom = 10u32.wrapping_sub(63);
    for (low, high) in [
        (10, 2),
        (0, 2),
        (11, 2),
        (bottom - 1, 2),
        (bottom, 1),
        (u32::MAX, 1),
    ] {
        assert_eq!(
            window.infer(low, true),
            SequenceNumber(u64::from(high as u32) << 32 | u64::from(low))
        );
    }
    // Tl = W - 2 is the last of case B: the window begins one before the subspace.
    assert_eq!(at(64, 2 << 32 | 62).infer(u32::MAX, true).high(), 1);
}

#[test]
fn no_subspace_lies_before_the_first() {
    let window = ReplayWindow::new(64);
    assert_eq!(window.infer(u32::MAX, true), SequenceNumber(0xffff_ffff));
    assert_eq!(window.infer(1, true), SequenceNumber(1));
}

#[test]
fn nothing_overflows_at_the_last_numbers() {
    let mut window = at(64, u64::MAX - 1);
    assert_eq!(
        window.infer(5, true),
        SequenceNumber(5),
        "the high half wraps"
    );
    assert_eq!(window.check(SequenceNumber(5)), Err(ReplayReject::TooOld));
    assert_eq!(
        marked(&mut window, [u64::MAX, u64::MAX, u64::MAX - 1]),
        [true, false, false]
    );
    window.leap(SequenceNumber(u64::MAX));
    assert!(ReplayWindow::new(64).mark(SequenceNumber(u64::MAX)));
    assert!(!window.mark(SequenceNumber(1)));
}

#[test]
fn epochs_are_crossed_both_ways() {
    // The ESN wrap rows of the ESP conformance list.
    let mut window = at(64, 0xffff_fff0);
    assert_eq!(window.infer(5, true), SequenceNumber(0x1_0000_0005));
    assert!(window.mark(SequenceNumber(0x1_0000_0005)));
    assert_eq!(window.infer(0xffff_fffd, true), SequenceNumber(0xffff_fffd));
    assert_eq!(
        marked(&mut window, [0xffff_fffd, 0xffff_fffd]),
        [true, false]
    );
    // 32-bit numbers do not cross.
    assert_eq!(window.infer(5, false), SequenceNumber(5));
}

#[test]
fn lost_is_zero_until_the_window_was_filled_and_exact_then() {
    let mut window = ReplayWindow::new(64);
    marked(&mut window, (1..=64).filter(|&n| n != 7));
    assert_eq!(window.lost(), 0);
    marked(&mut window, 65..=71);
    assert_eq!(window.lost(), 1, "7 has left");
    marked(&mut window, (72..172).step_by(2).chain(172..=236));
    assert_eq!(window.lost(), 51, "every second of 100");
    marked(&mut window, 337..=401);
    assert_eq!(window.lost(), 151, "a hole of 100");
}

#[test]
fn a_leap_counts_everything_up_to_the_floor_as_seen() {
    let mut window = ReplayWindow::new(64);
    marked(&mut window, [10, 20, 100]);
    window.leap(SequenceNumber(60));
    assert_eq!(
        marked(&mut window, [50, 60, 61, 99, 100]),
        [false, false, true, true, false]
    );
    window.leap(SequenceNumber(1000));
    assert_eq!(window.top(), SequenceNumber(1000));
    assert_eq!(
        marked(&mut window, [937, 999, 1000, 1001]),
        [false, false, false, true]
    );
    window.leap(SequenceNumber(3));
    assert_eq!(window.top(), SequenceNumber(1001));
}

#[test]
fn rfc4303_appendix_a2_2_without_anti_replay_all_workers_infer_from_one_horizon() {
    let mut busy = AntiReplay::new(0, SequenceNumber(0)).share();
    let mut idle = busy.clone();
    assert!(busy.is_shared() && !busy.is_on());
    for n in 1..=5u64 {
        assert!(busy.mark(SequenceNumber(n << 30)));
    }
    // 2^30 + 7 in the next epoch, which the idle one has heard nothing of.
    let number = SequenceNumber((5 << 30) + 7);
    assert_eq!(idle.infer(7 + (1 << 30), true), number);
    // An older number changes nothing, and a newer one counts from either side.
    idle.mark(SequenceNumber(9));
    assert_eq!(
        (busy.top(), idle.top()),
        (SequenceNumber(5 << 30), SequenceNumber(5 << 30))
    );
    idle.mark(number);
    assert_eq!(busy.top(), number);
    // The last clone is a single worker's again.
    let Err(busy) = busy.unshare() else {
        panic!("another worker still has it");
    };
    drop(idle);
    let alone = busy.unshare().ok().filter(|alone| !alone.is_shared());
    assert_eq!(alone.map(|alone| alone.top()), Some(number));
}

/// A member of another version hands its windows over: top, then the words, of eight octets each.
#[test]
fn a_window_is_written_and_read_as_its_golden_file_says() {
    let state = WindowState {
        top: SequenceNumber(0x0001_0000_0000_0085),
        bitmap: vec![u64::MAX, 0x0123_4567_89ab_cdef],
    };
    let hex: String = state
        .to_bytes()
        .iter()
        .map(|o| format!("{o:02x}"))
        .collect();
    let golden = include_str!("../../tests/golden/window.hex").trim();
    assert_eq!(hex, golden);
    assert_eq!(WindowState::from_bytes(&state.to_bytes()), Some(state));
}
