//! How long the control thread is away from its sockets, and how long heartbeats wait for it: those
//! leave between two pieces of work, so only a piece that takes as long as a takeover, or a turn without
//! end, has the standby take over.

use std::time::Duration;

use hitless_sa::Instant;

use crate::clock;

/// From one warning to the next.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// The turns of this process.
pub(super) struct Turns {
    /// Half of the silence that makes a standby take over.
    alarming: Duration,
    began: Instant,
    spent: Duration,
    told: Option<Instant>,
}

impl Turns {
    pub fn new(takeover: Duration) -> Turns {
        Turns {
            alarming: takeover / 2,
            began: Instant::default(),
            spent: Duration::ZERO,
            told: None,
        }
    }

    /// The thread has something to do.
    pub fn begin(&mut self, now: Instant) {
        self.began = now;
        self.spent = clock::thread_time();
    }

    /// It is about to sleep; gives what it took. Heartbeats waited for `pause` at most.
    pub fn end(&mut self, pause: Duration) -> Duration {
        let now = clock::now();
        let took = now.since(self.began);
        if self.is_due(now, pause) {
            let worked = clock::thread_time().saturating_sub(self.spent);
            // The difference is the machine's doing: others ran meanwhile.
            tracing::warn!(
                pause_ms = pause.as_millis() as u64,
                took_ms = took.as_millis() as u64,
                worked_ms = worked.as_millis() as u64,
                "the control thread was slow; if others keep the cores busy, give it one, or more \
                 time: cluster.heartbeat, cluster.missed"
            );
        }
        took
    }

    fn is_due(&mut self, now: Instant, pause: Duration) -> bool {
        let quiet = self.told.is_some_and(|told| now.since(told) < TOLD_EVERY);
        let due = pause >= self.alarming && !quiet;
        if due {
            self.told = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_told_of_now_and_then() {
        let mut turns = Turns::new(Duration::from_millis(30));
        let at = |ms| Instant(1_000_000_000) + Duration::from_millis(ms);
        let ms = Duration::from_millis;
        assert!(!turns.is_due(at(0), ms(14)));
        assert!(turns.is_due(at(1), ms(15)));
        assert!(!turns.is_due(at(9_999), ms(99)));
        assert!(turns.is_due(at(10_001), ms(99)));
    }

    #[test]
    fn a_turn_that_sleeps_takes_longer_than_it_works() {
        let mut turns = Turns::new(Duration::from_secs(1));
        turns.begin(clock::now());
        let mut sum = 0u64;
        for number in 0..100_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(number));
        }
        let worked = clock::thread_time().saturating_sub(turns.spent);
        assert!(worked > Duration::ZERO && sum > 0);
        assert!(turns.end(Duration::ZERO) > Duration::ZERO);
    }
}
