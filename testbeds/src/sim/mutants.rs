//! Planted bugs, each of which breaks an invariant: a simulator that finds nothing must have been
//! shown that it can. They are switches that only [`Tuning`] reaches, never a configuration. Rules
//! of the sync protocol that need longer delays to be missed have their mutants in its own tests
//! (`sync/tests/simulation.rs` and `holes.rs`).

use std::time::Duration;

use hitless::gateway::Tuning;
use serde::Serialize;

use super::plan::{self, Plan};
use super::{Wish, each};

/// A planted bug.
struct Planted {
    name: &'static str,
    /// What the members do wrong.
    says: &'static str,
    /// How a violation begins that is its doing.
    breaks: &'static [&'static str],
    plant: fn(&mut Tuning),
    members: u8,
    /// The weather in which it matters.
    weather: fn(&mut Plan),
}

impl Planted {
    /// Whether what was broken is its doing.
    fn did(&self, what: &str) -> bool {
        self.breaks.iter().any(|promise| what.starts_with(promise))
    }

    /// So many seeds with this bug.
    fn wish(&self, seeds: u64) -> Wish {
        let mut tuning = Tuning::default();
        (self.plant)(&mut tuning);
        Wish {
            tuning,
            among: Some(self.members),
            weather: self.weather,
            ..Wish::seeds(1, seeds)
        }
    }
}

/// S1 or its stronger form S5: which of them shows first is chance.
const NUMBERS: &[&str] = &["S1", "S5"];

const ALL: &[Planted] = &[
    Planted {
        name: "guessed-skip",
        says: "takes over a checkpoint interval above the last checkpoint (RFC 6027 section 3.4)",
        breaks: NUMBERS,
        plant: |tuning| tuning.sync.guessed_skip = Some(16),
        members: 2,
        weather: |plan| {
            plan.checkpoint = (16, "500ms");
            plan.leases = None;
        },
    },
    Planted {
        name: "at-the-grant",
        says: "takes over at the recorded grant, not one above it",
        breaks: NUMBERS,
        plant: |tuning| tuning.sync.no_plus_one = true,
        members: 2,
        weather: small_leases,
    },
    Planted {
        name: "ack-before-record",
        says: "a standby acknowledges an extension that it does not record",
        breaks: NUMBERS,
        plant: |tuning| tuning.sync.ack_unrecorded = true,
        members: 2,
        weather: small_leases,
    },
    Planted {
        name: "record-last",
        says: "a standby records the grant that came last, not the highest",
        breaks: NUMBERS,
        plant: |tuning| tuning.sync.record_last = true,
        members: 2,
        weather: reordering,
    },
    Planted {
        name: "zombie-extends",
        says: "an active uses numbers as soon as it has offered them: alone, it never starves",
        breaks: &["S5"],
        plant: |tuning| tuning.sync.unacknowledged = true,
        members: 2,
        weather: small_leases,
    },
    Planted {
        name: "epoch-not-durable",
        says: "a member leads before its epoch is on disk",
        breaks: &["S"],
        plant: |tuning| tuning.sync.lead_before_durable = true,
        members: 2,
        weather: forgotten_epoch,
    },
    Planted {
        name: "no-majority",
        says: "one of three takes over without a vote",
        breaks: &["S"],
        plant: |tuning| tuning.sync.no_majority = true,
        members: 3,
        weather: small_leases,
    },
    Planted {
        name: "high-water-ignored",
        says: "packets above the recorded high water are delivered",
        breaks: &["S3"],
        plant: |tuning| tuning.no_high_water = true,
        members: 2,
        weather: replays,
    },
    Planted {
        name: "nothing-seen",
        says: "after a takeover no inbound number counts as seen",
        breaks: &["S3"],
        plant: |tuning| tuning.no_floor = true,
        members: 2,
        weather: replays,
    },
    Planted {
        name: "final-too-soon",
        says: "a switchover tells the ends of the leases while the workers go on (A4)",
        breaks: NUMBERS,
        plant: |tuning| tuning.final_too_soon = true,
        members: 2,
        weather: switchovers,
    },
    Planted {
        name: "old-cells",
        says: "a member that leads again goes on with its cells of before (A5)",
        breaks: NUMBERS,
        plant: |tuning| tuning.old_cells = true,
        members: 2,
        weather: switchovers,
    },
    Planted {
        name: "released-unmarked",
        says: "packets that waited for their high water are delivered without a look at the window (B1)",
        breaks: &["S3"],
        plant: |tuning| tuning.releases_unmarked = true,
        members: 2,
        weather: parked_replays,
    },
    Planted {
        name: "shared-sk-ivs",
        says: "the IVs of IKE messages do not say which member sends, nor in which life (S2)",
        breaks: &["an IKE SA's IV was used twice"],
        plant: |tuning| tuning.sk_iv_shared = true,
        members: 2,
        weather: exchanges,
    },
    Planted {
        name: "response-before-ack",
        says: "IKE messages leave before a standby has acknowledged their state",
        breaks: &["S4"],
        plant: |tuning| tuning.no_output_commit = true,
        members: 2,
        weather: exchanges,
    },
    Planted {
        name: "no-vouch-wait",
        says: "a silent standby holds no IKE message back, and is not told",
        breaks: &["S4"],
        plant: |tuning| tuning.sync.no_vouch_wait = true,
        members: 2,
        weather: exchanges,
    },
    Planted {
        name: "unchecked-length",
        says: "reads a sync datagram before it knows that it is long enough",
        breaks: &["S7"],
        plant: |tuning| tuning.unchecked = true,
        members: 2,
        weather: garbage,
    },
    Planted {
        name: "sync-in-clear",
        says: "a copy of each sync message leaves beside its protection",
        breaks: &["S6"],
        plant: |tuning| tuning.sync_in_clear = true,
        members: 2,
        weather: |_| {},
    },
    Planted {
        name: "forgets",
        says: "takes over on nothing: the peer makes everything anew",
        breaks: &["continuity"],
        plant: |tuning| tuning.sync.forgets = true,
        members: 2,
        weather: one_death,
    },
    Planted {
        name: "never-vouches",
        says: "never knows that it has heard all: each takeover has to ask the peers",
        breaks: &["continuity"],
        plant: |tuning| tuning.sync.never_vouches = true,
        members: 2,
        weather: one_death,
    },
    Planted {
        name: "no-extension",
        says: "no lease is ever extended",
        breaks: &["liveness"],
        plant: |tuning| tuning.sync.no_extension = true,
        members: 2,
        weather: starving,
    },
];

fn small_leases(plan: &mut Plan) {
    plan.hub = true;
    plan.leases = Some(plan::lease_sizes(4, 16));
}

fn reordering(plan: &mut Plan) {
    small_leases(plan);
    plan.sync.delay.1 = Duration::from_millis(8);
    plan.sync.duplication = 1_000;
}

/// The standby takes over behind a partition, on a disk that takes nothing, and dies. The old active
/// hears of a newcomer that has never led.
fn forgotten_epoch(plan: &mut Plan) {
    use plan::Fault::{Crash, Deaf, DiskFails, Healed, Restart};
    small_leases(plan);
    plan.degraded = "strict";
    plan.outside = plan::Noise::NONE;
    plan.sync = plan::Noise::NONE;
    let start = plan.faults.first().map_or(Duration::ZERO, |(at, _)| *at);
    let faults = [
        (0, DiskFails(2, u32::MAX)),
        (0, Deaf { from: 1, to: 2 }),
        (0, Deaf { from: 2, to: 1 }),
        (150, Crash(2)),
        (200, Restart(2)),
        (210, Healed),
    ];
    let after = |ms| start + Duration::from_millis(ms);
    plan.faults = faults.map(|(ms, fault)| (after(ms), fault)).to_vec();
    plan.calm = plan.calm.max(after(800));
}

/// Whatever was sent comes again, just when somebody has taken over.
fn replays(plan: &mut Plan) {
    plan.hub = true;
    plan.takeover = "exact";
    let again: Vec<_> = plan.faults.iter().map(|(at, _)| *at).collect();
    for at in again {
        let soon = at + Duration::from_millis(60);
        plan.faults.push((soon, plan::Fault::Replay));
    }
    plan.faults.sort_by_key(|(at, _)| *at);
}

/// The same where the standbys are asked all the time, and slowly: packets wait for them.
fn parked_replays(plan: &mut Plan) {
    replays(plan);
    small_leases(plan);
    plan.sync.delay.1 = Duration::from_millis(8);
    plan.outside.duplication = 1_000;
}

/// To and fro under traffic, with workers that sleep through it.
fn switchovers(plan: &mut Plan) {
    use plan::Fault::{Frozen, Switchover};
    plan.sync.delay.1 = Duration::from_millis(8);
    plan.probe_every = Duration::from_micros(500);
    let start = plan::QUIET;
    let after = |ms| start + Duration::from_millis(ms);
    let nap = Duration::from_millis(40);
    plan.faults = vec![
        (after(0), Switchover),
        (after(600), Frozen(2, plan::Part::Worker, nap)),
        (after(601), Switchover),
        (after(1200), Switchover),
    ];
    plan.calm = plan.calm.max(after(1500));
}

/// Damaged packets from everywhere, between all faults.
fn garbage(plan: &mut Plan) {
    let moments: Vec<_> = plan.faults.iter().map(|(at, _)| *at).collect();
    plan.faults
        .extend(moments.into_iter().map(|at| (at, plan::Fault::Garbage)));
    plan.faults.sort_by_key(|(at, _)| *at);
}

/// The active dies, once, on good cables.
fn one_death(plan: &mut Plan) {
    let at = plan::QUIET;
    plan.outside = plan::Noise::NONE;
    plan.sync = plan::Noise::NONE;
    plan.faults = vec![
        (at, plan::Fault::Crash(1)),
        (at + Duration::from_millis(500), plan::Fault::Restart(1)),
    ];
}

/// Nobody may replace what is used up.
fn starving(plan: &mut Plan) {
    small_leases(plan);
    plan.degraded = "strict";
}

/// In the midst of each fault there is an exchange.
fn exchanges(plan: &mut Plan) {
    plan.takeover = "exact";
    let moments: Vec<_> = plan.faults.iter().map(|(at, _)| *at).collect();
    for at in moments {
        for (wait, rekey) in [
            (0, plan::Fault::PeerRekeysChild),
            (15, plan::Fault::ClusterRekeysChild),
            (40, plan::Fault::PeerRekeysChild),
        ] {
            let at = at + Duration::from_millis(wait);
            plan.faults.push((at, rekey));
        }
    }
    plan.faults.sort_by_key(|(at, _)| *at);
}

/// What became of a planted bug.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Caught {
    pub mutant: &'static str,
    pub says: &'static str,
    /// The first seed that showed it.
    pub seed: Option<u64>,
    pub violation: String,
}

/// All of them.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// No mutant was given more.
    pub patience: u64,
    pub mutants: Vec<Caught>,
}

impl Table {
    pub fn all_caught(&self) -> bool {
        self.mutants.iter().all(|caught| caught.seed.is_some())
    }
}

/// Runs each planted bug until a seed shows it, for at most `patience` seeds. `tell` hears of each.
pub fn run(patience: u64, mut tell: impl FnMut(&Caught)) -> Table {
    let mut mutants = Vec::new();
    for planted in ALL {
        let caught = hunt(planted, patience);
        tell(&caught);
        mutants.push(caught);
    }
    Table { patience, mutants }
}

fn hunt(planted: &Planted, patience: u64) -> Caught {
    let wish = planted.wish(patience);
    let mut caught = Caught {
        mutant: planted.name,
        says: planted.says,
        seed: None,
        violation: String::new(),
    };
    each(&wish, |course| {
        let Some(what) = course.found.iter().find(|what| planted.did(what)) else {
            return true;
        };
        caught.seed = Some(course.seed);
        caught.violation.clone_from(what);
        false
    });
    caught
}

impl std::fmt::Display for Caught {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (verdict, seed) = match self.seed {
            Some(seed) => ("caught", format!("seed {seed}")),
            None => ("MISSED", "no seed".to_owned()),
        };
        let violation: String = self.violation.chars().take(60).collect();
        write!(
            f,
            "{verdict} {:<20} {seed:<9} {violation}\n       {}",
            self.mutant, self.says
        )
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for caught in &self.mutants {
            writeln!(f, "{caught}")?;
        }
        let caught = self.mutants.iter().filter(|m| m.seed.is_some()).count();
        let (all, patience) = (self.mutants.len(), self.patience);
        write!(
            f,
            "{caught} of {all} mutants caught within {patience} seeds each"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::run;
    use super::*;

    /// What is caught is the bug.
    #[test]
    fn without_its_bug_no_weather_breaks_anything() {
        for planted in ALL {
            let sound = Wish {
                tuning: Tuning::default(),
                ..planted.wish(8)
            };
            let found = run(sound, |_| true).violations;
            assert!(found.is_empty(), "{}: {}", planted.name, found[0].what);
        }
    }

    /// Recovery hides these from all others: traffic flows again, and nothing is repeated.
    #[test]
    fn what_only_one_oracle_can_see_it_sees_at_once() {
        for name in ["sync-in-clear", "forgets", "never-vouches"] {
            let planted = ALL.iter().find(|planted| planted.name == name);
            let planted = planted.expect("it is in the list");
            let found = run(planted.wish(2), |_| true).violations;
            assert!(!found.is_empty(), "{name}");
            for violation in found {
                let what = &violation.what;
                assert!(planted.did(what), "{name}: {what}");
            }
        }
    }
}
