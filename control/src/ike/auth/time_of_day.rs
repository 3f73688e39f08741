//! The time of day, by which certificates are valid or not. It enters from outside, beside the
//! clock that everything else goes by.

use std::time::Duration;

use hitless_sa::Instant;

/// What the wall clock said, and when. Unknown until it is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimeOfDay(Option<(Instant, Duration)>);

impl TimeOfDay {
    /// At `now` it was `since_1970`.
    pub fn new(now: Instant, since_1970: Duration) -> TimeOfDay {
        TimeOfDay(Some((now, since_1970)))
    }

    pub fn at(self, now: Instant) -> Option<Duration> {
        let (then, time) = self.0?;
        Some(time + now.since(then))
    }
}
