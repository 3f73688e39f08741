//! The benchmark's stopwatch, the one place here that reads a clock.
#![expect(
    unsafe_code,
    reason = "the time that this thread has had of a core is asked of the C library"
)]

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

/// What this thread has had of a core so far: other programs on the machine do not count.
pub fn had() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock is a constant and the structure is ours, writable and of the right type.
    let asked = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    debug_assert_eq!(asked, 0, "every Linux has this clock");
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
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
