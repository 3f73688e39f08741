//! Runs of hours: bounded by time, told of on the way, taken up again, and summed up.

use std::fmt;
use std::time::{Duration, Instant};

use super::Summary;
use crate::clock;

/// From one word about a run to the next.
const WORD: Duration = Duration::from_secs(10);

/// Follows a run on stderr, and says when it has lasted long enough.
pub struct Watch {
    began: Instant,
    told: Instant,
    /// Seeds in all, if it ends by itself.
    seeds: Option<u64>,
    limit: Option<Duration>,
}

impl Watch {
    /// A run that begins now.
    pub fn begin(seeds: Option<u64>, limit: Option<Duration>) -> Watch {
        let now = clock::now();
        Watch {
            began: now,
            told: now,
            seeds,
            limit,
        }
    }

    /// A seed is done: whether to go on with the next. A signal ends a run as its time does, so that
    /// what was found is printed.
    pub fn goes_on(&mut self, so_far: &Summary) -> bool {
        let now = clock::now();
        if now.duration_since(self.told) >= WORD {
            self.told = now;
            eprintln!("{}", self.progress(so_far, now.duration_since(self.began)));
        }
        let late = |limit| now.duration_since(self.began) >= limit;
        !self.limit.is_some_and(late) && clock::pass(Duration::ZERO).is_ok()
    }

    fn progress(&self, so_far: &Summary, spent: Duration) -> String {
        let done = so_far.seeds;
        let rate = done as f64 / spent.as_secs_f64().max(1e-3);
        let by_count = self
            .seeds
            .map(|all| all.saturating_sub(done) as f64 / rate.max(1e-3));
        let by_time = self
            .limit
            .map(|limit| limit.saturating_sub(spent).as_secs_f64());
        let left = match (by_count, by_time) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let of = self.seeds.map_or(String::new(), |all| format!(" of {all}"));
        let ends = left.map_or(String::new(), |left| format!(", {left:.0} s to go"));
        let violations = so_far.violations.len();
        format!("{done}{of} seeds, {rate:.1}/s{ends}, {violations} violations")
    }
}

/// Why two runs are not one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overlap(pub u64);

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seed = self.0;
        write!(
            f,
            "seed {seed} is in two of the runs; leave one of them out"
        )
    }
}

impl Summary {
    /// Another run joins this one.
    ///
    /// # Errors
    /// If a seed is in both.
    pub fn join(&mut self, other: Summary) -> Result<(), Overlap> {
        let mut ranges = std::mem::take(&mut self.ranges);
        ranges.extend(&other.ranges);
        ranges.sort_unstable();
        for (first, next) in ranges {
            match self.ranges.last_mut() {
                Some((_, end)) if first < *end => return Err(Overlap(first)),
                Some((_, end)) if first == *end => *end = next,
                _ => self.ranges.push((first, next)),
            }
        }
        self.add(other);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Wish, run};
    use super::*;

    #[test]
    fn two_halves_are_the_whole() {
        let halves = || [Wish::seeds(1, 3), Wish::seeds(4, 2)].map(|half| run(half, |_| true));
        let whole = run(Wish::seeds(1, 5), |_| true);
        for order in [[0, 1], [1, 0]] {
            let halves = halves();
            let mut joined = Summary::default();
            for half in order {
                let text = serde_json::to_string(&halves[half]).unwrap();
                joined.join(serde_json::from_str(&text).unwrap()).unwrap();
            }
            assert_eq!(joined.ranges, [(1, 6)]);
            assert_eq!((joined.seeds, joined.steps), (whole.seeds, whole.steps));
            assert_eq!(joined.digest, whole.digest);
            assert_eq!(joined.slowest_seed, whole.slowest_seed);
            assert!((joined.mean_recovery - whole.mean_recovery).abs() < 1e-9);
        }
    }

    #[test]
    fn a_seed_that_was_counted_is_not_counted_again() {
        let over = |first, next| Summary {
            ranges: vec![(first, next)],
            ..Summary::default()
        };
        let mut whole = over(1, 100);
        assert_eq!(whole.join(over(100, 200)), Ok(()));
        assert_eq!(whole.join(over(150, 160)), Err(Overlap(150)));
    }

    #[test]
    fn who_stops_early_is_told_where_to_go_on() {
        let summary = run(Wish::seeds(7, 5), |so_far| so_far.seeds < 2);
        assert_eq!((summary.seeds, summary.next()), (2, Some(9)));
    }

    #[test]
    fn progress_says_how_far_how_fast_and_how_long() {
        let so_far = Summary {
            seeds: 50,
            ..Summary::default()
        };
        let watch = |seeds, minutes: Option<u64>| {
            let limit = minutes.map(|minutes| Duration::from_secs(minutes * 60));
            Watch::begin(seeds, limit).progress(&so_far, Duration::from_secs(10))
        };
        assert_eq!(
            watch(Some(100), None),
            "50 of 100 seeds, 5.0/s, 10 s to go, 0 violations"
        );
        assert_eq!(
            watch(None, Some(1)),
            "50 seeds, 5.0/s, 50 s to go, 0 violations"
        );
    }
}
