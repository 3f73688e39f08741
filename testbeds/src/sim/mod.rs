//! The simulator: the gateway's own code under a virtual clock, in a network that misbehaves.
//!
//! ```text
//!  seed -> plan.rs (which faults, when) -> world.rs (machines, cables, disks) -> one step at a time
//!                                                  | frames and probes
//!                                     oracle.rs (S1, S3, S4, no clear text, liveness)
//! ```
//!
//! Nothing is faked but the cables, the disk and the clock: workers, IKE, sync and leases are what
//! the daemon runs. The oracles stand outside: they see the wire and what the hosts received.

mod cable;
mod machine;
mod oracle;
mod plan;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use hitless::entropy::SeededEntropy;
use hitless::gateway::Tuning;
use serde::Serialize;

use plan::Plan;
use world::World;

/// What a run of many seeds found.
#[derive(Serialize, Debug, Default)]
pub struct Summary {
    pub seeds: u64,
    pub steps: u64,
    pub violations: Vec<Violation>,
    pub takeovers: u64,
    pub crashes: u64,
    pub restarts: u64,
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
    /// Of every frame that left a gateway and when: the same for the same seeds.
    pub digest: u64,
}

/// A promise that was broken.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
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
    /// Not random faults: one crash after each single output of each exchange. The seed is the
    /// number of the case.
    pub crash_points: bool,
    pub verbose: bool,
    /// What the members leave out, in tests of the simulator itself.
    pub tuning: Tuning,
}

impl Wish {
    /// So many seeds from that one on.
    pub fn seeds(first: u64, count: u64) -> Wish {
        Wish {
            first,
            count,
            crash_points: false,
            verbose: false,
            tuning: Tuning::default(),
        }
    }

    fn plan(&self, seed: u64) -> Option<Plan> {
        match self.crash_points {
            true => Plan::crash_point(seed),
            // Another sequence than the world's own.
            false => Some(Plan::draw(&mut SeededEntropy::new(!seed))),
        }
    }

    fn replay(&self, seed: u64) -> String {
        let kind = if self.crash_points {
            " --crash-points"
        } else {
            ""
        };
        format!(
            "cargo run --release -p hitless-testbeds -- sim{kind} --first {seed} --seeds 1 --verbose"
        )
    }
}

/// Runs; `progress` learns of each seed that is done, and of the violations so far.
pub fn run(wish: Wish, mut progress: impl FnMut(u64, usize)) -> Summary {
    let mut summary = Summary::default();
    for seed in wish.first..wish.first.saturating_add(wish.count) {
        let Some(plan) = wish.plan(seed) else { break };
        let mut world = World::new(plan, seed, wish.tuning, wish.verbose);
        let found = catch_unwind(AssertUnwindSafe(|| world.run()));
        let found = found.unwrap_or_else(|_| vec!["S7: a panic".to_owned()]);
        summary.seeds += 1;
        summary.absorb(seed, &world);
        let violations = found.into_iter().map(|what| Violation {
            seed,
            what,
            replay: wish.replay(seed),
        });
        summary.violations.extend(violations);
        progress(summary.seeds, summary.violations.len());
    }
    summary
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Summary {
            seeds,
            steps,
            takeovers,
            crashes,
            restarts,
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
        for Violation { seed, what, replay } in &self.violations {
            writeln!(f, "VIOLATION in seed {seed}: {what}\n  {replay}")?;
        }
        write!(f, "{} violations", self.violations.len())
    }
}

impl Summary {
    fn absorb(&mut self, seed: u64, world: &World) {
        self.steps += world.steps();
        self.digest = self.digest.rotate_left(1) ^ world.digest();
        let tally = world.tally();
        self.takeovers += tally.takeovers;
        self.crashes += tally.crashes;
        self.restarts += tally.restarts;
        self.greatest_skip = self.greatest_skip.max(tally.greatest_skip);
        let (sent, received) = world.probes();
        self.probes_sent += sent;
        self.probes_received += received;
        let recovery = tally.recovery.as_secs_f64();
        self.mean_recovery += (recovery - self.mean_recovery) / self.seeds as f64;
        if recovery > self.slowest_recovery {
            self.slowest_recovery = recovery;
            self.slowest_seed = seed;
        }
        self.virtual_seconds += world.virtual_time().as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use super::{Wish, run};

    #[test]
    fn a_hundred_seeds_keep_every_promise() {
        let summary = run(Wish::seeds(1, 120), |_, _| {});
        assert_eq!(summary.violations, Vec::new());
        assert!(summary.takeovers > 50, "{summary:?}");
        assert!(summary.probes_received > 10_000, "{summary:?}");
    }

    #[test]
    fn a_seed_always_takes_the_same_course() {
        let [first, second] = [(); 2].map(|()| run(Wish::seeds(7, 5), |_, _| {}));
        assert_eq!((first.steps, first.digest), (second.steps, second.digest));
        let other = run(Wish::seeds(8, 5), |_, _| {});
        assert_ne!(first.digest, other.digest);
    }
}
