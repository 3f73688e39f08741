//! Seeds of the simulator that broke a promise once, each with its story.

use hitless_testbeds::sim::{Wish, run};

/// Both members led for 50 ms; the deposed one replaced the Child SA with the peer and died. The
/// peer deleted the old one at last, and sent on the new one that nobody else had ever heard of,
/// for ever: its SPI is what the leader sees of it.
#[test]
fn seed_369_a_child_that_only_a_dead_leader_knew_is_replaced() {
    let summary = run(Wish::seeds(369, 1), |_, _| {});
    assert_eq!(summary.violations, Vec::new());
}
