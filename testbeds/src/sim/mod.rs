//! The simulator: the gateway's own code under a virtual clock, in a network that misbehaves.
//!
//! ```text
//!  seed -> plan.rs (which faults, when) -> world.rs (machines, cables, disks) -> one step at a time
//!                                                  | frames and probes
//!                                     oracle.rs (S1 to S6, liveness)
//! ```
//!
//! Nothing is faked but the cables, the disk and the clock: workers, IKE, sync and leases are what
//! the daemon runs. The oracles stand outside: they see the wire and what the hosts received. That
//! they would notice is shown by `mutants.rs`: a planted bug for each invariant.

mod cable;
mod card;
mod continuity;
#[cfg(test)]
mod coverage;
mod extras;
pub mod features;
mod long;
mod machine;
mod mutants;
mod nat;
mod oracle;
mod orders;
pub mod pki;
pub mod plan;
mod points;
mod secrecy;
mod world;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use hitless::entropy::SeededEntropy;
use hitless::gateway::Tuning;
use serde::{Deserialize, Serialize};

use features::Feature;
pub use long::{Overlap, Watch};
pub use mutants::{Caught, Table, run as run_mutants};
use plan::Plan;
use world::{Tally, World};

/// What a run of many seeds found.
#[derive(Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct Summary {
    /// The first seed, and the one behind the last, of each run that is summed up here.
    pub ranges: Vec<(u64, u64)>,
    pub seeds: u64,
    pub steps: u64,
    pub violations: Vec<Violation>,
    pub takeovers: u64,
    pub crashes: u64,
    pub restarts: u64,
    /// Crashes in the midst of something that was over before.
    pub unreached: u64,
    /// Probes that the hosts sent, and those that arrived.
    pub probes_sent: u64,
    pub probes_received: u64,
    /// Greatest skip of a takeover.
    pub greatest_skip: u64,
    pub virtual_seconds: f64,
    /// From the last fault until traffic flowed both ways, in virtual seconds: the slowest seed, and
    /// all seeds together.
    pub slowest_recovery: f64,
    pub slowest_seed: u64,
    pub mean_recovery: f64,
    /// Seeds in which tunnels were to go on as they are, and the longest silence in one of them.
    pub continuous: u64,
    pub longest_silence: f64,
    pub silent_seed: u64,
    /// Of every frame that left a gateway and when: the same for the same seeds, in any order.
    pub digest: u64,
}

/// A promise that was broken.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub seed: u64,
    pub what: String,
    /// The command that shows it again.
    pub replay: String,
}

/// Which runs to make.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub first: u64,
    pub count: u64,
    /// From one seed to the next.
    pub every: u64,
    /// Not random faults: one crash after each single output of each exchange. The seed is the
    /// number of the case.
    pub crash_points: bool,
    pub verbose: bool,
    /// What every plan has beside what its seed draws.
    pub with: Option<&'static Feature>,
    /// What the members leave out, in tests of the simulator itself, and in which weather.
    pub tuning: Tuning,
    among: Option<u8>,
    weather: fn(&mut Plan),
}

impl Wish {
    /// So many seeds from that one on.
    pub fn seeds(first: u64, count: u64) -> Wish {
        Wish {
            first,
            count,
            every: 1,
            crash_points: false,
            verbose: false,
            with: None,
            tuning: Tuning::default(),
            among: None,
            weather: |_| {},
        }
    }

    fn plan(&self, seed: u64) -> Option<Plan> {
        if self.crash_points {
            return Plan::crash_point(seed);
        }
        // Another sequence than the world's own.
        let mut entropy = SeededEntropy::new(!seed);
        let mut plan = match self.among {
            Some(members) => Plan::among(members, &mut entropy),
            None => Plan::draw(&mut entropy),
        };
        if let Some(feature) = self.with {
            feature.give(&mut entropy, &mut plan);
        }
        (self.weather)(&mut plan);
        Some(plan)
    }

    fn replay(&self, seed: u64) -> String {
        let kind = match (self.crash_points, self.with) {
            (true, _) => " --crash-points".to_owned(),
            (false, Some(feature)) => format!(" --with {}", feature.name),
            (false, None) => String::new(),
        };
        format!(
            "cargo run --release -p hitless-testbeds -- sim{kind} --first {seed} --seeds 1 --verbose"
        )
    }
}

/// What one seed came to.
struct Course {
    seed: u64,
    steps: u64,
    digest: u64,
    tally: Tally,
    probes: (u64, u64),
    virtual_time: Duration,
    found: Vec<String>,
}

/// Runs; `goes_on` learns after each seed what was found so far, and says whether that is enough.
pub fn run(wish: Wish, mut goes_on: impl FnMut(&Summary) -> bool) -> Summary {
    let mut summary = Summary::default();
    summary.ranges.push((wish.first, wish.first));
    each(&wish, |course| {
        summary.add(Summary::of(&course));
        let violations = course.found.into_iter().map(|what| Violation {
            seed: course.seed,
            what,
            replay: wish.replay(course.seed),
        });
        summary.violations.extend(violations);
        if let [(_, next)] = &mut summary.ranges[..] {
            *next = course.seed + wish.every.max(1);
        }
        goes_on(&summary)
    });
    summary
}

/// What a course of a plan breaks; the seed is that of chance within it.
pub fn broken(plan: Plan, seed: u64) -> Vec<String> {
    World::new(plan, seed, Tuning::default(), false).run()
}

/// Runs the seeds on all cores. `take` gets them in their order, and says whether to go on.
fn each(wish: &Wish, mut take: impl FnMut(Course) -> bool) {
    let every = wish.every.max(1);
    let end = wish.first.saturating_add(wish.count.saturating_mul(every));
    let next = AtomicU64::new(wish.first);
    let cores = match wish.verbose {
        true => 1,
        false => thread::available_parallelism().map_or(1, usize::from),
    };
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(cores * 4);
        for _ in 0..cores {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(every, Ordering::Relaxed);
                    if seed >= end || sender.send((seed, carry_out(wish, seed))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut due = wish.first;
        for (seed, course) in receiver {
            early.insert(seed, course);
            while let Some(course) = early.remove(&due) {
                due += every;
                // Behind the last crash point there is nothing.
                if !course.is_some_and(&mut take) {
                    next.store(end, Ordering::Relaxed);
                    return;
                }
            }
        }
    });
}

fn carry_out(wish: &Wish, seed: u64) -> Option<Course> {
    let mut world = World::new(wish.plan(seed)?, seed, wish.tuning, wish.verbose);
    let found = catch_unwind(AssertUnwindSafe(|| world.run()));
    Some(Course {
        seed,
        steps: world.steps(),
        digest: world.digest(),
        tally: world.tally(),
        probes: world.probes(),
        virtual_time: world.virtual_time(),
        found: found.unwrap_or_else(|_| vec!["S7: a panic".to_owned()]),
    })
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Summary {
            seeds,
            steps,
            takeovers,
            crashes,
            restarts,
            unreached,
            ..
        } = self;
        writeln!(
            f,
            "{seeds} seeds, {steps} steps, {:.0} virtual seconds",
            self.virtual_seconds
        )?;
        writeln!(
            f,
            "{crashes} crashes, {restarts} restarts, {takeovers} takeovers"
        )?;
        if *unreached > 0 {
            writeln!(f, "{unreached} crashes not reached: nothing left to die in")?;
        }
        writeln!(
            f,
            "{} of {} probes arrived",
            self.probes_received, self.probes_sent
        )?;
        writeln!(
            f,
            "traffic again {:.1} s after the last fault, {:.1} s at most (seed {})",
            self.mean_recovery, self.slowest_recovery, self.slowest_seed
        )?;
        writeln!(
            f,
            "{} seeds promised continuity: {:.3} s of silence at most (seed {})",
            self.continuous, self.longest_silence, self.silent_seed
        )?;
        for Violation { seed, what, replay } in &self.violations {
            writeln!(f, "VIOLATION in seed {seed}: {what}\n  {replay}")?;
        }
        write!(f, "{} violations", self.violations.len())
    }
}

impl Summary {
    /// The seed to go on from.
    pub fn next(&self) -> Option<u64> {
        self.ranges.last().map(|(_, next)| *next)
    }

    /// Of one seed.
    fn of(course: &Course) -> Summary {
        let mut hasher = DefaultHasher::new();
        (course.seed, course.digest).hash(&mut hasher);
        let tally = course.tally;
        let (probes_sent, probes_received) = course.probes;
        let recovery = tally.recovery.as_secs_f64();
        let silence = tally.silence.map(|silence| silence.as_secs_f64());
        Summary {
            ranges: Vec::new(),
            seeds: 1,
            steps: course.steps,
            violations: Vec::new(),
            takeovers: tally.takeovers,
            crashes: tally.crashes,
            restarts: tally.restarts,
            unreached: tally.unreached,
            probes_sent,
            probes_received,
            greatest_skip: tally.greatest_skip,
            virtual_seconds: course.virtual_time.as_secs_f64(),
            slowest_recovery: recovery,
            slowest_seed: course.seed,
            mean_recovery: recovery,
            continuous: u64::from(silence.is_some()),
            longest_silence: silence.unwrap_or_default(),
            silent_seed: course.seed,
            digest: hasher.finish(),
        }
    }

    /// All of another one but its ranges.
    fn add(&mut self, other: Summary) {
        let seeds = self.seeds + other.seeds;
        if other.seeds > 0 {
            let share = other.seeds as f64 / seeds as f64;
            self.mean_recovery += (other.mean_recovery - self.mean_recovery) * share;
        }
        if other.slowest_recovery > self.slowest_recovery {
            self.slowest_recovery = other.slowest_recovery;
            self.slowest_seed = other.slowest_seed;
        }
        if other.longest_silence > self.longest_silence {
            self.longest_silence = other.longest_silence;
            self.silent_seed = other.silent_seed;
        }
        self.continuous += other.continuous;
        self.seeds = seeds;
        self.steps += other.steps;
        self.violations.extend(other.violations);
        self.takeovers += other.takeovers;
        self.crashes += other.crashes;
        self.restarts += other.restarts;
        self.unreached += other.unreached;
        self.probes_sent += other.probes_sent;
        self.probes_received += other.probes_received;
        self.greatest_skip = self.greatest_skip.max(other.greatest_skip);
        self.virtual_seconds += other.virtual_seconds;
        self.digest = self.digest.wrapping_add(other.digest);
    }
}

#[cfg(test)]
mod tests {
    use super::{Wish, run};

    #[test]
    fn a_hundred_seeds_keep_every_promise() {
        let summary = run(Wish::seeds(1, 120), |_| true);
        assert_eq!(summary.violations, Vec::new());
        assert!(summary.takeovers > 50, "{summary:?}");
        assert!(summary.probes_received > 10_000, "{summary:?}");
    }

    #[test]
    fn a_seed_always_takes_the_same_course() {
        let [first, second] = [(); 2].map(|()| run(Wish::seeds(7, 5), |_| true));
        assert_eq!((first.steps, first.digest), (second.steps, second.digest));
        let other = run(Wish::seeds(8, 5), |_| true);
        assert_ne!(first.digest, other.digest);
    }
}
