//! What the courses of `sim_found.rs` and `sim_missed.rs` are written with.

use std::time::Duration;

use hitless_testbeds::sim::broken;
use hitless_testbeds::sim::plan::{Noise, Plan};

pub const fn nanos(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

pub const fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

pub fn noise(loss: u32, duplication: u32, longest: u64) -> Noise {
    Noise {
        loss,
        duplication,
        delay: (micros(50), micros(longest)),
    }
}

/// With the seed that found it, and two others.
pub fn assert_kept(plan: &Plan, seed: u64) {
    for seed in [seed, 1, 2] {
        assert_eq!(broken(plan.clone(), seed), Vec::<String>::new(), "{seed}");
    }
}
