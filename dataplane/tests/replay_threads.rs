//! The shared replay window on real threads against the oracle that counts: every number that was
//! sent is accepted once, or lost, never both and never twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;

use hitless_dataplane::replay::{ReplayWindow, SharedWindow};
use hitless_sa::SequenceNumber;

/// A walk through numbers that is the same on every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

/// Several threads take numbers from one sender, each somewhat out of order and many of them again.
fn storm(size: u32, start: u64, threads: u64, numbers: u64, stride: u64) {
    let mut before = ReplayWindow::new(size);
    before.leap(SequenceNumber(start));
    let window = Arc::new(SharedWindow::new(&before));
    let accepted: Arc<[AtomicU8]> = (0..=numbers).map(|_| AtomicU8::new(0)).collect();
    let sent = Arc::new(AtomicU64::new(1));
    let workers = (0..threads).map(|seed| {
        let (window, accepted, sent) = (window.clone(), accepted.clone(), sent.clone());
        thread::spawn(move || {
            let mut draw = Draw(seed);
            loop {
                let n = sent.fetch_add(1, Ordering::Relaxed);
                if n > numbers {
                    return;
                }
                // The packet itself, a copy, and others of its neighbourhood.
                let around = n.saturating_sub(draw.below(u64::from(size) * 2)).max(1);
                let ahead = (n + draw.below(3)).min(numbers);
                let all = [n, around, n, ahead, around];
                let numbers = all.map(|n| SequenceNumber(start + n * stride));
                // One by one, or in one go as the packets of a burst are.
                let each = match draw.below(2) {
                    0 => numbers.chunks(1),
                    _ => numbers.chunks(numbers.len()),
                };
                let mut marked = all.iter();
                for numbers in each {
                    let fresh: Vec<bool> =
                        numbers.iter().map(|n| window.check(*n).is_ok()).collect();
                    let told = window.mark_all(numbers);
                    for ((at, fresh), n) in fresh.iter().enumerate().zip(&mut marked) {
                        if told >> at & 1 != 0 {
                            assert!(fresh, "accepted what the check had refused");
                            accepted[*n as usize].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }
        })
    });
    let workers: Vec<_> = workers.collect();
    for worker in workers {
        worker.join().unwrap();
    }
    let top = window.top().0;
    assert_eq!(top, start + numbers * stride);
    let times = |n: u64| accepted[n as usize].load(Ordering::Relaxed);
    assert!(
        (1..=numbers).all(|n| times(n) <= 1),
        "a number was accepted twice"
    );
    // Exact whatever the threads did: left of the window each number was accepted or lost.
    let left = top.saturating_sub(u64::from(size)).saturating_sub(start);
    let taken = (1..=left / stride).filter(|&n| times(n) == 1).count() as u64;
    assert_eq!(window.lost(), left - taken);
    let quiet = window.to_window();
    for n in 1..=numbers {
        let number = SequenceNumber(start + n * stride);
        let expected = number.0 + u64::from(size) > top && times(n) == 0;
        assert_eq!(quiet.check(number).is_ok(), expected, "{n}");
    }
}

#[test]
fn rfc4303_section_3_4_3_exactly_once_on_several_cores_in_the_smallest_window() {
    storm(64, 0, 3, 60_000, 1);
}

#[test]
fn rfc4303_section_3_4_3_exactly_once_on_several_cores_in_the_largest_window() {
    storm(65_536, 12_345, 3, 200_000, 1);
}

#[test]
fn rfc4303_appendix_a2_exactly_once_on_several_cores_across_an_epoch() {
    storm(128, (1 << 32) - 30_000, 3, 60_000, 1);
}

#[test]
fn lost_is_exact_on_several_cores_when_the_peer_leaps() {
    storm(64, 7, 3, 30_000, 37);
    storm(256, 7, 3, 3_000, 1 << 20);
}
