//! Courses of the simulator that broke a promise once, each with its story. The plans are written
//! out: what a seed draws changes whenever there is more to draw.

use std::time::Duration;

use hitless::ike::settings::Withheld;
use hitless_testbeds::sim::broken;
use hitless_testbeds::sim::plan::Fault::{
    ClockJumps, ClusterRekeysChild, ClusterRekeysIke, Crash, CrashAfter, Deaf, DiskFails, Frozen,
    Healed, PeerRekeysChild, PeerRekeysIke, Plugged, Replay, Restart, Switchover, Unplugged,
};
use hitless_testbeds::sim::plan::{Noise, Part, Plan, lease_sizes};

const fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

fn noise(loss: u32, duplication: u32, longest: u64) -> Noise {
    Noise {
        loss,
        duplication,
        delay: (micros(50), micros(longest)),
    }
}

/// Both members led for 50 ms; the deposed one replaced the Child SA with the peer and died. The
/// peer deleted the old one at last, and sent on the new one that nobody else had ever heard of,
/// for ever: its SPI is what the leader sees of it.
#[test]
fn seed_369_a_child_that_only_a_dead_leader_knew_is_replaced() {
    let faults = vec![
        (micros(1_604_868), Crash(1)),
        (micros(1_712_521), PeerRekeysChild),
        (micros(1_712_521), CrashAfter(2, 25)),
        (micros(1_904_657), ClusterRekeysIke),
        (micros(1_904_657), CrashAfter(2, 24)),
        (micros(2_074_868), Restart(1)),
        (micros(2_142_521), Restart(2)),
        (micros(2_675_657), Restart(2)),
    ];
    let plan = Plan {
        outside: noise(1_000, 1_000, 8_000),
        sync: noise(0, 0, 300),
        leases: Some(lease_sizes(16, 64)),
        probe_every: micros(1_057),
        aftermath: Duration::from_secs(40),
        ..Plan::with(2, faults)
    };
    for seed in [369, 1, 2] {
        assert_eq!(broken(plan.clone(), seed), Vec::<String>::new(), "{seed}");
    }
}

/// A switchover was handed over to a member whose disk took nothing for 1.7 s. The one that had
/// handed over led again meanwhile, on nothing, and asked the peer for new keys; then the other one
/// led at last, and still called its Message IDs exact (S4).
#[test]
fn seed_917_a_handover_vouches_for_message_ids_no_longer_than_its_sender_is_silent() {
    let faults = vec![
        (
            micros(1_553_636),
            Frozen(1, Part::All, Duration::from_millis(246)),
        ),
        (micros(1_903_413), DiskFails(1, u32::MAX)),
        (micros(1_903_413), Switchover),
        (micros(3_114_516), Deaf { from: 1, to: 2 }),
        (micros(3_485_516), Healed),
        (micros(3_531_421), DiskFails(1, u32::MAX)),
        (micros(3_531_421), Switchover),
    ];
    let plan = Plan {
        outside: noise(100, 1_000, 60),
        sync: noise(10, 1_000, 8_000),
        leases: Some(lease_sizes(16, 64)),
        drift: [-4_259, 1_489, -306, 3_536],
        ike_proposal: "aes128-sha256-prfsha256-x25519",
        esp_proposal: "aes256gcm16-x25519",
        takeover: "exact",
        probe_every: micros(2_849),
        ..Plan::with(2, faults)
    };
    for seed in [917, 1, 2] {
        assert_eq!(broken(plan.clone(), seed), Vec::<String>::new(), "{seed}");
    }
}

/// Both sides replaced the IKE SA at once, and the cluster forgot everything before the peer had the
/// answer to its own request. The peer gave up the old IKE SA after 63.5 s and only then asked on
/// the new one, for as long again.
#[test]
fn seed_898_a_lost_ike_sa_and_its_lost_successor_are_found_out_at_the_same_time() {
    let faults = vec![
        (micros(1_359_705), DiskFails(2, 4)),
        (micros(1_359_705), Switchover),
        (micros(2_195_795), PeerRekeysIke),
        (micros(2_195_795), ClusterRekeysIke),
        (micros(2_197_647), ClusterRekeysChild),
        (micros(2_202_568), Crash(2)),
        (micros(2_505_568), Restart(2)),
        (micros(2_617_106), Crash(1)),
        (micros(2_680_106), Crash(2)),
        (micros(3_246_106), Restart(1)),
        (micros(3_309_106), Restart(2)),
    ];
    let plan = Plan {
        withheld: Withheld {
            message_id_sync: true,
            replay_counter_sync: false,
        },
        outside: noise(0, 1_000, 2_000),
        sync: noise(0, 100, 2_000),
        ike_proposal: "aes128-sha256-prfsha256-x25519",
        window_size: 5,
        probe_every: micros(4_133),
        ..Plan::with(2, faults)
    };
    for seed in [898, 1, 2] {
        assert_eq!(broken(plan.clone(), seed), Vec::<String>::new(), "{seed}");
    }
}

/// Behind a partition member 1 replaced the IKE SA, and died with the new one. The old one was taken
/// from the other's copy, found dead, and then taken from the same copy again: its probes had
/// Message IDs that were used (S4).
#[test]
fn seed_1416_an_ike_sa_that_ended_is_not_taken_from_a_copy_again() {
    let faults = vec![
        (micros(1_566_135), Deaf { from: 2, to: 1 }),
        (micros(1_566_135), Deaf { from: 1, to: 2 }),
        (micros(1_713_135), Healed),
        (micros(2_612_281), Deaf { from: 1, to: 2 }),
        (micros(2_612_281), Deaf { from: 2, to: 1 }),
        (micros(2_750_781), ClusterRekeysIke),
        (micros(2_889_281), Crash(1)),
        (micros(2_889_281), Healed),
        (micros(3_166_281), Restart(1)),
    ];
    let plan = Plan {
        withheld: Withheld {
            message_id_sync: false,
            replay_counter_sync: false,
        },
        outside: noise(0, 100, 60),
        sync: noise(1_000, 100, 2_000),
        leases: Some(lease_sizes(64, 1024)),
        drift: [-3_528, -2_566, 2_335, 407],
        probe_every: micros(3_928),
        ..Plan::with(2, faults)
    };
    for seed in [1416, 1, 2] {
        assert_eq!(broken(plan.clone(), seed), Vec::<String>::new(), "{seed}");
    }
}

/// Two members led with the peer in turn, and the one that had made the IKE SA won: its requests had
/// Message IDs that were used, and it took that for a dead peer after 63.5 s. The peer sent on a Child
/// SA of the other one all the time.
#[test]
fn seed_926_whoever_leads_again_finds_out_its_message_ids() {
    let faults = vec![
        (micros(1_532_332), Unplugged(3)),
        (micros(1_599_332), Plugged(3)),
        (micros(1_637_101), DiskFails(1, 2)),
        (micros(1_637_101), Crash(3)),
        (micros(1_742_151), Deaf { from: 2, to: 1 }),
        (micros(1_742_151), Deaf { from: 1, to: 2 }),
        (micros(2_322_101), Restart(3)),
        (micros(2_420_151), Healed),
    ];
    let plan = Plan {
        outside: noise(0, 1_000, 300),
        sync: noise(100, 0, 2_000),
        ike_proposal: "aes128-sha256-prfsha256-x25519",
        probe_every: micros(3_702),
        ..Plan::with(3, faults)
    };
    for seed in [926, 1, 2] {
        assert_eq!(broken(plan.clone(), seed), Vec::<String>::new(), "{seed}");
    }
}

/// The same after the peer had been probed once already: it asked whether we live, again and again,
/// and answered nothing.
#[test]
fn seed_1351_a_peer_that_asks_and_does_not_answer_is_not_dead() {
    let faults = vec![
        (micros(2_012_163), ClockJumps(1, Duration::from_millis(280))),
        (micros(2_822_611), Deaf { from: 2, to: 1 }),
        (micros(2_822_611), Deaf { from: 1, to: 2 }),
        (
            micros(2_875_585),
            ClockJumps(2, Duration::from_millis(1644)),
        ),
        (
            micros(2_917_706),
            Frozen(1, Part::Control, Duration::from_millis(1014)),
        ),
        (micros(2_955_611), PeerRekeysChild),
        (micros(3_088_611), Crash(2)),
        (micros(3_088_611), Healed),
        (micros(3_354_611), Restart(2)),
    ];
    let plan = Plan {
        outside: noise(0, 1_000, 2_000),
        sync: noise(0, 1_000, 2_000),
        esp_proposal: "aes256gcm16-x25519",
        takeover: "probe",
        probe_every: micros(2_091),
        ..Plan::with(3, faults)
    };
    for seed in [1351, 1, 2] {
        assert_eq!(broken(plan.clone(), seed), Vec::<String>::new(), "{seed}");
    }
}

/// A worker was paused for 1.3 s, in which its member handed over, stood by and led again. What the worker
/// had sealed before for a router that it did not know yet left in the later leadership, with numbers
/// below those that the other member had used meanwhile (R14; no number was used twice).
#[test]
fn seed_13848_what_a_worker_sealed_leaves_in_the_same_leadership_or_not_at_all() {
    let faults = vec![
        (micros(1_893_277), Switchover),
        (
            micros(1_962_602),
            Frozen(2, Part::Worker, Duration::from_millis(1_330)),
        ),
        (micros(2_766_549), PeerRekeysChild),
        (micros(2_766_549), PeerRekeysChild),
        (micros(2_769_145), ClusterRekeysIke),
        (micros(3_104_621), Deaf { from: 1, to: 2 }),
        (micros(3_280_947), Deaf { from: 2, to: 1 }),
        (micros(3_280_947), Deaf { from: 1, to: 2 }),
        (micros(3_380_703), DiskFails(2, 1)),
        (micros(3_380_703), Crash(1)),
        (micros(3_408_447), PeerRekeysChild),
        (micros(3_515_939), Replay),
        (micros(3_535_947), Crash(2)),
        (micros(3_535_947), Healed),
        (micros(3_604_621), Healed),
        (micros(3_790_947), Restart(2)),
        (micros(3_802_939), Replay),
        (micros(3_896_703), Restart(1)),
    ];
    let plan = Plan {
        outside: noise(1_000, 100, 8_000),
        sync: noise(1_000, 100, 8_000),
        hub: true,
        leases: Some(lease_sizes(4, 16)),
        takeover: "message-id-sync",
        retransmit_tries: Some(4),
        probe_every: micros(2_644),
        aftermath: Duration::from_secs(20),
        ..Plan::with(2, faults)
    };
    for seed in [13_848, 1, 2] {
        assert_eq!(broken(plan.clone(), seed), Vec::<String>::new(), "{seed}");
    }
}
