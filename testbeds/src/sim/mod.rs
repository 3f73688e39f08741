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
mod oracle;
mod plan;
mod world;

use serde::Serialize;

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
}

/// A promise that was broken.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub seed: u64,
    pub what: String,
    /// The command that shows it again.
    pub replay: String,
}

/// Runs `count` seeds from `first` on; `progress` learns of each that is done.
pub fn run(first: u64, count: u64, verbose: bool, mut progress: impl FnMut(u64, usize)) -> Summary {
    let mut summary = Summary::default();
    for seed in first..first.saturating_add(count) {
        let mut world = World::new(seed, verbose);
        let found = world.run();
        summary.seeds += 1;
        summary.absorb(seed, &world);
        summary
            .violations
            .extend(found.into_iter().map(|what| Violation {
            seed,
            what,
            replay: format!(
                "cargo run --release -p hitless-testbeds -- sim --first {seed} --seeds 1 --verbose"
            ),
        }));
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
    #[test]
    fn a_hundred_seeds_keep_every_promise() {
        let summary = super::run(1, 100, false, |_, _| {});
        assert_eq!(summary.violations, Vec::new());
        assert!(summary.takeovers > 20, "{summary:?}");
        assert!(summary.probes_received > 1000, "{summary:?}");
    }
}
