//! Courses of the simulator that broke a promise once, each with its story. The plans are written
//! out: what a seed draws changes whenever there is more to draw.

use std::time::Duration;

use hitless::ike::settings::Withheld;
use hitless::lab::{Extras, Family};
use hitless_testbeds::sim::broken;
use hitless_testbeds::sim::plan::Fault::{
    ClockJumps, ClusterRekeysChild, ClusterRekeysIke, Crash, CrashAfter, Deaf, DiskFails, Frozen,
    Garbage, Healed, PeerRekeysChild, PeerRekeysIke, Plugged, Replay, Restart, ShutDown,
    Switchover, Unplugged,
};
use hitless_testbeds::sim::plan::{Part, Plan, lease_sizes};

mod plans;

use plans::{assert_kept, micros, nanos, noise};

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
    assert_kept(&plan, 369);
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
    assert_kept(&plan, 917);
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
    assert_kept(&plan, 898);
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
    assert_kept(&plan, 1416);
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
    assert_kept(&plan, 926);
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
    assert_kept(&plan, 1351);
}

/// A worker was paused for 1.3 s, in which its member handed over, stood by and led again. What the
/// worker had sealed before for a router that it did not know yet left in the later leadership, with
/// numbers below those that the other member had used meanwhile (R14; no number was used twice).
#[test]
fn seed_13848_what_a_worker_sealed_leaves_in_the_same_leadership_or_not_at_all() {
    let faults = vec![
        (nanos(1_893_277_049), Switchover),
        (
            nanos(1_962_601_759),
            Frozen(2, Part::Worker, nanos(1_330_000_000)),
        ),
        (nanos(2_766_548_982), PeerRekeysChild),
        (nanos(2_766_548_982), PeerRekeysChild),
        (nanos(2_769_144_982), ClusterRekeysIke),
        (nanos(3_104_621_166), Deaf { from: 1, to: 2 }),
        (nanos(3_280_947_269), Deaf { from: 2, to: 1 }),
        (nanos(3_280_947_269), Deaf { from: 1, to: 2 }),
        (nanos(3_380_702_981), DiskFails(2, 1)),
        (nanos(3_380_702_981), Crash(1)),
        (nanos(3_408_447_269), PeerRekeysChild),
        (nanos(3_515_938_732), Replay),
        (nanos(3_535_947_269), Crash(2)),
        (nanos(3_535_947_269), Healed),
        (nanos(3_604_621_166), Healed),
        (nanos(3_790_947_269), Restart(2)),
        (nanos(3_802_938_732), Replay),
        (nanos(3_896_702_981), Restart(1)),
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
    assert_kept(&plan, 13_848);
}

/// Behind a partition the IKE SA was replaced. The leader got the new one from the deposed member, and
/// probed for its Message IDs while the peer synchronised them (RFC 6311): the answer declared Message
/// IDs that probes had had already, and the next request used one again (S4, R20).
#[test]
fn seed_15850_a_message_id_that_a_probe_had_is_not_used_again() {
    let faults = vec![
        (nanos(1_420_768_297), Replay),
        (nanos(1_580_538_578), Crash(1)),
        (nanos(2_042_538_578), Restart(1)),
        (nanos(2_115_768_297), Replay),
        (
            nanos(2_891_184_754),
            Frozen(1, Part::All, nanos(926_000_000)),
        ),
        (nanos(3_299_214_359), PeerRekeysIke),
        (nanos(3_299_214_359), ClusterRekeysChild),
        (nanos(3_299_597_359), PeerRekeysIke),
        (nanos(3_304_526_829), Deaf { from: 2, to: 1 }),
        (nanos(3_304_526_829), Deaf { from: 1, to: 2 }),
        (nanos(4_034_526_829), Healed),
    ];
    let plan = Plan {
        outside: noise(10, 0, 2_000),
        sync: noise(10, 100, 2_000),
        leases: Some(lease_sizes(64, 1_024)),
        esp_proposal: "aes256gcm16-x25519",
        takeover: "message-id-sync",
        retransmit_tries: Some(4),
        probe_every: micros(1_049),
        ..Plan::with(2, faults)
    };
    assert_kept(&plan, 15_850);
}

/// The same with an IKE SA of ours, and a cipher of two parts.
#[test]
fn seed_29779_a_message_id_that_a_probe_had_is_not_used_again() {
    let faults = vec![
        (nanos(1_353_437_958), Replay),
        (nanos(1_972_437_958), Replay),
        (nanos(1_981_634_771), PeerRekeysIke),
        (nanos(1_981_634_771), CrashAfter(2, 25)),
        (nanos(2_492_141_581), PeerRekeysChild),
        (nanos(2_492_141_581), PeerRekeysChild),
        (nanos(2_493_842_581), PeerRekeysChild),
        (nanos(2_670_634_771), Restart(2)),
        (nanos(3_504_434_776), Deaf { from: 1, to: 2 }),
        (nanos(3_504_434_776), Deaf { from: 2, to: 1 }),
        (nanos(3_621_316_106), PeerRekeysIke),
        (nanos(3_621_316_106), ClusterRekeysChild),
        (nanos(3_621_797_106), ClusterRekeysIke),
        (nanos(4_018_434_776), Healed),
    ];
    let plan = Plan {
        outside: noise(10, 1_000, 2_000),
        sync: noise(0, 100, 2_000),
        leases: Some(lease_sizes(16, 64)),
        ike_proposal: "aes128-sha256-prfsha256-x25519",
        esp_proposal: "aes256gcm16-x25519",
        takeover: "message-id-sync",
        probe_every: micros(2_675),
        ..Plan::with(2, faults)
    };
    assert_kept(&plan, 29_779);
}

/// A leader that had handed over to nobody led again, and asked for a Child SA in place of the one that
/// it had no right to. One of its standbys fell silent in between: the exchange was undone, and the wish
/// with it, so that no traffic ever flowed again.
#[test]
fn seed_21557_what_a_discard_undoes_is_still_wanted() {
    let faults = vec![
        (nanos(2_339_947_135), Crash(2)),
        (nanos(2_374_281_181), Garbage),
        (nanos(2_552_267_707), ClusterRekeysChild),
        (nanos(2_552_267_707), CrashAfter(2, 46)),
        (nanos(2_924_281_181), Garbage),
        (nanos(2_952_267_707), Restart(2)),
        (nanos(3_010_947_135), Restart(2)),
        (nanos(3_101_520_467), DiskFails(1, u32::MAX)),
        (nanos(3_101_520_467), Switchover),
        (
            nanos(3_416_445_299),
            Frozen(3, Part::Control, nanos(219_000_000)),
        ),
    ];
    let plan = Plan {
        outside: noise(1_000, 100, 2_000),
        sync: noise(0, 1_000, 300),
        esp_proposal: "aes256gcm16-x25519",
        takeover: "message-id-sync",
        window_size: 5,
        retransmit_tries: Some(4),
        probe_every: micros(4_128),
        ..Plan::with(3, faults)
    };
    assert_kept(&plan, 21_557);
}

/// A cluster had lost everything. Its peer, a cluster too that had taken over meanwhile, repeated a
/// request for 63.5 s, and then asked for Message IDs for 22.5 s more.
#[test]
fn seed_23055_a_peer_that_was_silent_for_a_minute_is_given_up_soon() {
    let faults = vec![
        (nanos(1_350_483_271), Replay),
        (
            nanos(1_434_934_500),
            Frozen(2, Part::Worker, nanos(542_000_000)),
        ),
        (
            nanos(1_560_584_324),
            Frozen(1, Part::All, nanos(318_000_000)),
        ),
        (nanos(1_824_647_807), Crash(3)),
        (nanos(1_844_647_807), Crash(1)),
        (nanos(1_882_128_339), Crash(3)),
        (nanos(1_882_128_339), Crash(1)),
        (nanos(1_926_483_271), Replay),
        (nanos(2_191_647_807), Restart(3)),
        (nanos(2_198_128_339), Restart(3)),
        (nanos(2_198_128_339), Restart(1)),
        (nanos(2_211_647_807), Restart(1)),
        (nanos(2_469_032_330), DiskFails(1, 1)),
        (nanos(2_469_032_330), Crash(2)),
        (nanos(2_558_602_573), Crash(0)),
        (nanos(2_558_602_573), Crash(1)),
        (nanos(2_590_032_330), Restart(2)),
        (
            nanos(2_892_400_049),
            Frozen(1, Part::All, nanos(738_000_000)),
        ),
        (nanos(2_897_602_573), Restart(0)),
        (nanos(2_897_602_573), Restart(1)),
        (nanos(2_950_226_205), DiskFails(1, 2)),
        (nanos(2_950_226_205), Switchover),
    ];
    let plan = Plan {
        peers: 2,
        outside: noise(1_000, 100, 300),
        sync: noise(0, 100, 8_000),
        hub: true,
        leases: Some(lease_sizes(64, 1_024)),
        ike_proposal: "aes128-sha256-prfsha256-x25519",
        esp_proposal: "aes256gcm16-x25519",
        takeover: "rekey",
        degraded: "strict",
        window_size: 5,
        probe_every: micros(1_584),
        ..Plan::with(2, faults)
    };
    assert_kept(&plan, 23_055);
}

/// Members at addresses of their own. The first had moved the tunnel to its address, and the second
/// to its own after that; behind a partition the first had heard nothing of it. When the second was
/// stopped the first went on as if it were where it had been, and the peer sent to the other address,
/// for ever.
#[test]
fn seed_10340_rfc4555_whoever_cannot_know_where_the_tunnel_is_says_where_it_is() {
    let faults = vec![
        (nanos(1_248_509_667), Deaf { from: 1, to: 2 }),
        (nanos(1_248_509_667), Deaf { from: 2, to: 1 }),
        (nanos(1_885_509_667), Healed),
        (nanos(2_447_286_996), Deaf { from: 1, to: 2 }),
        (nanos(3_104_418_730), ShutDown(2)),
        (nanos(3_235_286_996), Healed),
        (nanos(3_401_418_730), Restart(2)),
    ];
    let plan = Plan {
        outside: noise(0, 0, 2_000),
        sync: noise(1_000, 1_000, 60),
        hub: true,
        drift: [-2_939, 4_515, -422, -3_852],
        esp_proposal: "aes256gcm16-x25519",
        takeover: "probe",
        degraded: "strict",
        retransmit_tries: Some(4),
        probe_every: micros(923),
        extras: Extras {
            mobike: true,
            ..Extras::default()
        },
        ..Plan::with(2, faults)
    };
    assert_kept(&plan, 10_340);
}

/// Two workers on either side, of whose cards one queue has all that is no flow. The answers of hosts
/// came to the first worker, whichever had asked: in IPv6 the second never had any, and in IPv4 none
/// after the first 30 s.
#[test]
fn seed_18_every_worker_hears_what_its_neighbours_answer() {
    for inside in [Family::V4, Family::V6] {
        let plan = Plan {
            aftermath: Duration::from_secs(40),
            families: [inside; 2],
            extras: Extras {
                per_cpu_sas: true,
                more_children: 2,
                ..Extras::default()
            },
            ..Plan::with(2, vec![(micros(1_500_000), Crash(1))])
        };
        assert_eq!(broken(plan, 18), Vec::<String>::new(), "{inside:?}");
    }
}
