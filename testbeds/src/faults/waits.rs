//! How long the threads of the members had to wait for a core: what the machine, not hitless, adds
//! to a takeover. The kernel counts it (`/proc/PID/task/TID/schedstat`, the second figure).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock;

/// From one look to the next.
const EVERY: Duration = Duration::from_millis(4);

/// Looks again and again.
pub struct Waits {
    stop: Arc<AtomicBool>,
    watch: Option<JoinHandle<Waited>>,
}

/// When it was looked, and how long all threads together had waited by then.
#[derive(Clone, Debug, Default)]
pub struct Waited(Vec<(Duration, Duration)>);

impl Waits {
    /// Watches these processes; one that ends has no part from then on.
    pub fn start(processes: Vec<u32>) -> Waits {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watch = std::thread::spawn(move || {
            let mut waited = Waited::default();
            let mut last: Vec<Option<Duration>> = vec![None; processes.len()];
            let mut sum = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                for (process, last) in processes.iter().zip(&mut last) {
                    let now = of_process(*process);
                    if let (Some(now), Some(before)) = (now, *last) {
                        sum += now.saturating_sub(before);
                    }
                    *last = now;
                }
                waited.0.push((clock::wall(), sum));
                if clock::pass(EVERY).is_err() {
                    break;
                }
            }
            waited
        });
        Waits {
            stop,
            watch: Some(watch),
        }
    }

    pub fn stop(mut self) -> Waited {
        self.stop.store(true, Ordering::Relaxed);
        let waited = self.watch.take().and_then(|watch| watch.join().ok());
        waited.unwrap_or_default()
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Of all threads that it has.
fn of_process(process: u32) -> Option<Duration> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let files = threads
        .flatten()
        .map(|thread| thread.path().join("schedstat"));
    // One that has just ended is not missed.
    let waited = files.filter_map(|file| waited(&std::fs::read_to_string(file).ok()?));
    Some(Duration::from_nanos(waited.sum()))
}

/// Ran, waited, time slices; nanoseconds.
fn waited(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().nth(1)?.parse().ok()
}

impl Waited {
    /// For tests of who judges by it.
    #[cfg(test)]
    pub fn of(looks: Vec<(Duration, Duration)>) -> Waited {
        Waited(looks)
    }

    /// What was waited from one moment to another, and in the look before and after.
    pub fn between(&self, from: Duration, to: Duration) -> Duration {
        let begin = self.0.partition_point(|(at, _)| *at <= from);
        let begin = self.0.get(begin.saturating_sub(1));
        let end = self.0.partition_point(|(at, _)| *at < to);
        let end = self.0.get(end).or(self.0.last());
        match (begin, end) {
            (Some((_, before)), Some((_, after))) => after.saturating_sub(*before),
            _ => Duration::ZERO,
        }
    }

    /// The most that was waited in any time of this length, and the longest that this watch itself
    /// was kept from looking.
    pub fn worst_within(&self, span: Duration) -> Duration {
        let spans = self.0.iter().map(|(at, _)| self.between(*at, *at + span));
        let looks = self.0.windows(2).map(|pair| match pair {
            [(before, _), (after, _)] => after.saturating_sub(*before + EVERY),
            _ => Duration::ZERO,
        });
        spans.chain(looks).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn waits_are_those_of_the_time_that_is_asked_for() {
        let looks = [(0, 0), (4, 1), (8, 9), (12, 9), (40, 10)];
        let waited = Waited(looks.map(|(time, sum)| (at(time), at(sum))).to_vec());
        assert_eq!(waited.between(at(4), at(8)), at(8));
        assert_eq!(waited.between(at(8), at(12)), at(0));
        assert_eq!(waited.between(at(0), at(99)), at(10));
        // The watch itself was not run for 28 ms where it would have looked after 4.
        assert_eq!(waited.worst_within(at(8)), at(24));
        assert_eq!(Waited::default().worst_within(at(8)), at(0));
    }

    #[test]
    fn the_kernel_counts_for_this_process() {
        assert_eq!(waited("690711 1187771 2\n"), Some(1_187_771));
        assert_eq!(waited("1"), None);
        assert!(of_process(std::process::id()).is_some());
        assert!(of_process(u32::MAX).is_none());
    }
}
