//! A planned switchover in progress: what the workers still owe, and what they have said (R14, R15).

use std::collections::BTreeMap;

use hitless_dataplane::replay::WindowState;
use hitless_sa::SaId;

/// Everything that the workers are asked names the drain that it is asked for. One that was taken back
/// may be answered when the next has begun, and packets were delivered in between.
pub(super) struct Drain {
    barrier: u64,
    /// Workers that have not passed the barrier yet.
    waiting: Vec<usize>,
    /// Windows of the SAs that the peers send on, as they are now for good.
    windows: BTreeMap<SaId, WindowState>,
}

impl Drain {
    pub fn new(barrier: u64, workers: usize) -> Drain {
        Drain {
            barrier,
            waiting: (0..workers).collect(),
            windows: BTreeMap::new(),
        }
    }

    /// What a receiving half has seen.
    pub fn known(&mut self, sa: SaId, question: u64, state: WindowState) {
        if question == self.barrier {
            self.windows.insert(sa, state);
        }
    }

    /// A worker has passed a barrier; whether it was this one, and all the others have passed it.
    pub fn passed(&mut self, worker: usize, barrier: u64) -> bool {
        if barrier != self.barrier {
            return false;
        }
        self.waiting.retain(|waiting| *waiting != worker);
        self.waiting.is_empty()
    }

    pub fn into_windows(self) -> BTreeMap<SaId, WindowState> {
        self.windows
    }
}

#[cfg(test)]
mod tests {
    use hitless_dataplane::replay::AntiReplay;
    use hitless_sa::{Incarnation, MemberId, SequenceNumber};

    use super::*;

    fn seen(top: u64) -> WindowState {
        let window = AntiReplay::new(64, SequenceNumber(top));
        window.export().expect("it is not shared")
    }

    /// The first switchover was taken back before a worker had answered, and the second asks another
    /// worker, for the half has moved: the late answer is of a time before the last deliveries.
    #[test]
    fn r15_a_late_answer_to_a_switchover_that_was_taken_back_is_none_to_the_next() {
        let sa = |counter| SaId {
            creator: MemberId(1),
            incarnation: Incarnation(1),
            counter,
        };
        let mut second = Drain::new(2, 2);
        assert!(!second.passed(1, 2));
        second.known(sa(1), 2, seen(900));
        second.known(sa(1), 1, seen(500));
        second.known(sa(2), 1, seen(500));
        assert!(!second.passed(0, 1));
        assert!(second.passed(0, 2));
        let windows = second.into_windows();
        let tops: Vec<_> = windows.iter().map(|(sa, w)| (*sa, w.top)).collect();
        assert_eq!(tops, [(sa(1), SequenceNumber(900))]);
    }
}
