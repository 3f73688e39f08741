//! How often something can be done, and how long each time takes.

use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};

use crate::results::RateLine;

/// Longest time that is told apart: a minute, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// A series of timings.
pub struct Rate {
    what: String,
    total: Duration,
    histogram: Histogram<u64>,
}

impl Rate {
    pub fn new(what: &str) -> Result<Rate, CreationError> {
        Ok(Rate {
            what: what.to_owned(),
            total: Duration::ZERO,
            histogram: Histogram::new_with_max(LONGEST, 3)?,
        })
    }

    /// Once took this long.
    pub fn note(&mut self, took: Duration) {
        self.total += took;
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(LONGEST);
        self.histogram.saturating_record(nanoseconds.max(1));
    }

    pub fn line(self) -> RateLine {
        let microseconds = |q| self.histogram.value_at_quantile(q) as f64 / 1e3;
        RateLine {
            per_second: self.histogram.len() as f64 / self.total.as_secs_f64(),
            p50_us: microseconds(0.5),
            p99_us: microseconds(0.99),
            what: self.what,
        }
    }
}
