//! Workers that are stuck again and again. Each time the lead moves, and the service waits for that: so
//! a worker that was stuck before counts as ill for longer each time, though it runs, and its member
//! takes the lead back later and later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hitless_sa::Instant;

/// Once is forgiven. From then on it is not trusted for so long, twice as long the next time, and no
/// longer than that.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(300);
/// A worker that ran for so long has been stuck never.
const FORGOTTEN: Duration = Duration::from_secs(900);

/// What is remembered of one worker.
struct Relapse {
    times: u32,
    last: Instant,
    until: Instant,
}

#[derive(Default)]
pub(super) struct Relapses(BTreeMap<usize, Relapse>);

impl Relapses {
    /// These workers were stuck, and now those are.
    pub fn note(&mut self, now: Instant, before: &BTreeSet<usize>, stuck: &BTreeSet<usize>) {
        self.0
            .retain(|_, relapse| now.since(relapse.last) < FORGOTTEN);
        for worker in before.union(stuck) {
            let relapse = self.0.entry(*worker).or_insert(Relapse {
                times: 0,
                last: now,
                until: now,
            });
            relapse.last = now;
            relapse.times += u32::from(!before.contains(worker));
            relapse.until = match stuck.contains(worker) {
                true => now,
                false => now + rest(relapse.times),
            };
        }
    }

    /// Workers that run and are not trusted yet, and how often they were stuck.
    pub fn resting(&self, now: Instant) -> impl Iterator<Item = (usize, u32)> {
        let resting = self.0.iter().filter(move |(_, r)| now < r.until);
        resting.map(|(worker, relapse)| (*worker, relapse.times))
    }
}

fn rest(times: u32) -> Duration {
    match times.checked_sub(2) {
        None => Duration::ZERO,
        Some(again) => LONGEST.min(FIRST.saturating_mul(1 << again.min(16))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Worker 3 is stuck for a second; how long it rests.
    fn stick(relapses: &mut Relapses, now: &mut Instant) -> Duration {
        let (none, one) = (BTreeSet::new(), BTreeSet::from([3]));
        relapses.note(*now, &none, &one);
        relapses.note(*now, &one, &one);
        *now += SECOND;
        assert_eq!(relapses.resting(*now).count(), 0, "it is stuck");
        relapses.note(*now, &one, &none);
        let mut rests = Duration::ZERO;
        while relapses.resting(*now + rests).count() > 0 {
            rests += SECOND;
        }
        rests
    }

    #[test]
    fn a_worker_rests_longer_each_time_and_is_forgiven_once_it_ran_for_long() {
        let mut relapses = Relapses::default();
        let mut now = Instant(1_000_000_000);
        let rests: Vec<u64> = (0..9)
            .map(|_| stick(&mut relapses, &mut now).as_secs())
            .collect();
        assert_eq!(rests, [0, 5, 10, 20, 40, 80, 160, 300, 300]);
        now += FORGOTTEN;
        relapses.note(now, &BTreeSet::new(), &BTreeSet::new());
        assert!(relapses.0.is_empty());
        assert_eq!(stick(&mut relapses, &mut now), Duration::ZERO);
    }
}
