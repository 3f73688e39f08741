//! The benchmark's stopwatch, the one place here that reads a clock.

use std::time::Duration;

/// How long `work` takes.
pub fn time(work: impl FnOnce()) -> Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "measuring time is what this program is for"
    )]
    let start = std::time::Instant::now();
    work();
    start.elapsed()
}
