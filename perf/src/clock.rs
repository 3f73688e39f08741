//! The benchmark's stopwatch, the one place here that reads a clock.

use std::time::{Duration, Instant};

/// A point in time, to measure from.
#[derive(Clone, Copy)]
pub struct Moment(Instant);

impl Moment {
    /// Now.
    pub fn now() -> Moment {
        #[expect(
            clippy::disallowed_methods,
            reason = "measuring time is what this program is for"
        )]
        let now = Instant::now();
        Moment(now)
    }

    /// How long ago it was.
    pub fn elapsed(self) -> Duration {
        Moment::now().since(self)
    }

    /// How long before this one the other was; nothing if it was not.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

/// How long `work` takes.
pub fn time(work: impl FnOnce()) -> Duration {
    let start = Moment::now();
    work();
    start.elapsed()
}

/// The middle of what was measured; sorts it.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
