//! How long the threads of the members that a takeover waits for had to wait for a core: what the
//! machine, not hitless, adds to it. The kernel counts it (`/proc/PID/task/TID/schedstat`, the second
//! figure).

use std::collections::BTreeMap;
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

/// When it was looked, and how long each thread had waited by then.
#[derive(Clone, Debug, Default)]
pub struct Waited(Vec<(Duration, Threads)>);

/// By thread id.
type Threads = BTreeMap<u32, Duration>;

impl Waits {
    /// Watches these processes; one that ends has no part from then on.
    pub fn start(processes: Vec<u32>) -> Waits {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watch = std::thread::spawn(move || {
            let mut waited = Waited::default();
            while !stopped.load(Ordering::Relaxed) {
                let now = processes.iter().flat_map(|process| of_process(*process));
                waited.0.push((clock::wall(), now.collect()));
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

/// Whether a takeover waits for a thread of this name: control, which has the name of the program, its
/// disk, and the workers. Logs are written beside.
fn matters(name: &str) -> bool {
    let name = name.trim_end();
    name == "hitless" || name == "disk" || name.starts_with("worker-")
}

/// Of all threads that matter; one that has just ended is not missed.
fn of_process(process: u32) -> Vec<(u32, Duration)> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let each = threads.filter_map(|thread| {
        let id = thread.file_name().to_str()?.parse().ok()?;
        let name = std::fs::read_to_string(thread.path().join("comm")).ok()?;
        let figures = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        matters(&name).then_some((id, Duration::from_nanos(waited(&figures)?)))
    });
    each.collect()
}

/// Ran, waited, time slices; nanoseconds.
fn waited(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().nth(1)?.parse().ok()
}

impl Waited {
    /// For tests of who judges by it: one thread.
    #[cfg(test)]
    pub fn of(looks: Vec<(Duration, Duration)>) -> Waited {
        let looks = looks.into_iter();
        Waited(looks.map(|(at, sum)| (at, [(1, sum)].into())).collect())
    }

    /// What all threads together waited from one moment to another, and in the look before and
    /// after.
    pub fn between(&self, from: Duration, to: Duration) -> Duration {
        self.each(from, to).sum()
    }

    /// What each of them waited.
    fn each(&self, from: Duration, to: Duration) -> impl Iterator<Item = Duration> {
        let begin = self.0.partition_point(|(at, _)| *at <= from);
        let begin = self.0.get(begin.saturating_sub(1));
        let end = self.0.partition_point(|(at, _)| *at < to);
        let end = self.0.get(end).or(self.0.last());
        let pairs = begin.into_iter().zip(end);
        pairs.flat_map(|((_, before), (_, after))| {
            let known = after
                .iter()
                .filter_map(|(id, after)| Some((before.get(id)?, after)));
            known.map(|(before, after)| after.saturating_sub(*before))
        })
    }

    /// The most that one thread waited in any time of this length, and the longest that this watch
    /// itself was kept from looking.
    pub fn worst_within(&self, span: Duration) -> Duration {
        let spans = self.0.iter().flat_map(|(at, _)| self.each(*at, *at + span));
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
        let waited = Waited::of(looks.map(|(time, sum)| (at(time), at(sum))).to_vec());
        assert_eq!(waited.between(at(4), at(8)), at(8));
        assert_eq!(waited.between(at(8), at(12)), at(0));
        assert_eq!(waited.between(at(0), at(99)), at(10));
        // The watch itself was not run for 28 ms where it would have looked after 4.
        assert_eq!(waited.worst_within(at(8)), at(24));
        assert_eq!(Waited::default().worst_within(at(8)), at(0));
    }

    #[test]
    fn the_sum_is_of_all_threads_and_the_worst_of_one() {
        let look = |time, a, b| (at(time), Threads::from([(7, at(a)), (8, at(b))]));
        let waited = Waited(vec![look(0, 0, 5), look(4, 3, 7), look(8, 3, 7)]);
        assert_eq!(waited.between(at(0), at(8)), at(5));
        assert_eq!(waited.worst_within(at(4)), at(3));
        // A thread that is new has waited for nothing yet.
        let waited = Waited(vec![(at(0), Threads::new()), look(4, 9, 9)]);
        assert_eq!(waited.between(at(0), at(4)), at(0));
    }

    #[test]
    fn the_kernel_counts_for_this_process() {
        assert_eq!(waited("690711 1187771 2\n"), Some(1_187_771));
        assert_eq!(waited("1"), None);
        let beside = std::thread::Builder::new().name("worker-7".to_owned());
        let threads = beside.spawn(|| of_process(std::process::id()));
        assert!(!threads.unwrap().join().unwrap().is_empty());
        assert!(of_process(u32::MAX).is_empty());
        assert!(matters("hitless\n") && matters("disk\n") && !matters("hitless-testbed\n"));
    }
}
