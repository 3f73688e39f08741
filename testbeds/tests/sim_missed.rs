//! More courses of the simulator that broke a promise once, each with its story (see `sim_found.rs`):
//! children that nobody asked for any more, tunnels that moved, votes that took too long.

use std::time::Duration;

use hitless::ike::settings::Withheld;
use hitless::lab::{Extras, Family, Redirect};
use hitless_testbeds::sim::plan::Fault::{
    ClockJumps, ClusterRedirects, ClusterRekeysChild, ClusterRekeysIke, Crash, CrashAfter, Deaf,
    DiskFails, Frozen, Garbage, Healed, PeerClosesChildren, PeerOpensChildren, PeerRekeysChild,
    PeerRekeysIke, Plugged, Replay, Restart, ShutDown, Slow, Switchover, Unplugged,
};
use hitless_testbeds::sim::plan::{Part, Plan, lease_sizes};

mod plans;

use plans::{assert_kept, micros, nanos, noise};

/// Not combined-mode: then `auto` synchronises Message IDs (RFC 6311).
const CBC: &str = "aes128-sha256-prfsha256-x25519";

/// A tunnel of three was taken over, and the voter had heard the leader a moment later than the
/// candidate: it refused the first word, and the second came with the next heartbeat. Then nothing was
/// left of the time for which the copies vouch, and the Message IDs had to be found out.
#[test]
fn seed_7720_a_candidate_does_not_wait_for_its_heartbeat_to_ask_again() {
    let faults = vec![
        (nanos(1_583_234_524), Crash(1)),
        (nanos(1_648_234_524), Restart(1)),
    ];
    let plan = Plan {
        outside: noise(0, 1_000, 60),
        sync: noise(0, 1_000, 2_000),
        leases: Some(lease_sizes(16, 64)),
        window_size: 5,
        retransmit_tries: Some(4),
        probe_every: micros(4_364),
        extras: Extras {
            more_children: 2,
            ..Extras::default()
        },
        ..Plan::with(3, faults)
    };
    assert_kept(&plan, 7_720);
}

/// Members at addresses of their own. One died with a request of the peer's before it, which filled the
/// peer's window and was repeated where nobody was: so nobody asked whether there was somebody at the
/// address that its successor gave. Until the request was given up the child's lifetime ended, and with
/// the request went the wish for the child.
#[test]
fn seed_2617_a_request_is_repeated_where_the_successor_says_that_it_is() {
    let faults = vec![
        (nanos(1_800_859_157), Crash(1)),
        (nanos(2_095_859_157), Restart(1)),
        (nanos(2_100_284_135), DiskFails(1, 4)),
        (nanos(2_100_284_135), Crash(2)),
        (nanos(2_477_284_135), Restart(2)),
        (nanos(3_257_736_334), Crash(4)),
        (nanos(3_317_736_334), Crash(1)),
        (nanos(3_446_629_776), ClusterRekeysIke),
        (nanos(3_446_629_776), CrashAfter(1, 17)),
        (nanos(3_507_629_776), Restart(1)),
        (nanos(4_036_736_334), Restart(4)),
        (nanos(4_096_736_334), Restart(1)),
    ];
    let plan = Plan {
        peers: 2,
        outside: noise(10, 1_000, 60),
        sync: noise(0, 100, 8_000),
        leases: Some(lease_sizes(64, 1_024)),
        esp_proposal: "aes256gcm16-x25519",
        takeover: "exact",
        retransmit_tries: Some(4),
        probe_every: micros(825),
        aftermath: Duration::from_secs(20),
        extras: Extras {
            packets: Some(200),
            mobike: true,
            ..Extras::default()
        },
        ..Plan::with(3, faults)
    };
    assert_kept(&plan, 2_617);
}

/// The peer, a cluster too, was left alone while it made the tunnel: all that nobody else had recorded
/// was undone, which was the whole IKE SA, and nobody made it anew.
#[test]
fn seed_9638_an_ike_sa_that_is_undone_is_made_anew() {
    let faults = vec![
        (nanos(1_751_940_907), Crash(4)),
        (nanos(1_771_940_907), Crash(1)),
        (nanos(2_409_683_530), Crash(0)),
        (nanos(2_409_683_530), Crash(2)),
        (nanos(2_460_683_530), Restart(0)),
        (nanos(2_460_683_530), Restart(2)),
        (nanos(2_467_940_907), Restart(4)),
        (nanos(2_487_940_907), Restart(1)),
        (nanos(2_636_668_746), Crash(4)),
        (nanos(2_656_668_746), Crash(1)),
        (nanos(2_820_073_262), Slow(1, Duration::from_millis(200))),
        (nanos(2_959_377_198), ShutDown(2)),
        (nanos(2_994_377_198), Restart(2)),
        (nanos(3_208_668_746), Restart(4)),
        (nanos(3_228_668_746), Restart(1)),
        (nanos(3_365_073_262), Healed),
    ];
    let plan = Plan {
        peers: 2,
        outside: noise(0, 100, 8_000),
        sync: noise(100, 0, 8_000),
        hub: true,
        drift: [4_991, -8, -3_957, -571],
        takeover: "probe",
        retransmit_tries: Some(4),
        probe_every: micros(510),
        extras: Extras {
            more_children: 2,
            ml_kem: true,
            ..Extras::default()
        },
        ..Plan::with(3, faults)
    };
    assert_kept(&plan, 9_638);
}

/// The same with one IKE SA for each login, made before the old one was deleted.
#[test]
fn seed_12640_an_ike_sa_that_is_undone_is_made_anew_also_when_it_was_to_replace_one() {
    let faults = vec![
        (nanos(1_574_482_857), Crash(4)),
        (nanos(1_634_482_857), Crash(1)),
        (nanos(1_976_079_888), Crash(0)),
        (nanos(1_976_079_888), Crash(1)),
        (nanos(2_060_482_857), Restart(4)),
        (nanos(2_120_482_857), Restart(1)),
        (nanos(2_440_079_888), Restart(0)),
        (nanos(2_440_079_888), Restart(1)),
        (
            nanos(2_892_555_198),
            Frozen(3, Part::Control, nanos(363_500_000)),
        ),
        (nanos(2_899_812_565), Crash(4)),
        (nanos(2_899_812_565), Crash(1)),
        (nanos(3_352_812_565), Restart(4)),
        (nanos(3_352_812_565), Restart(1)),
    ];
    let plan = Plan {
        peers: 2,
        outside: noise(1_000, 100, 300),
        sync: noise(100, 1_000, 300),
        drift: [-4_350, -2_604, -1_603, 4_002],
        probe_every: micros(1_821),
        extras: Extras {
            reauthentication: true,
            per_cpu_sas: true,
            ..Extras::default()
        },
        ..Plan::with(3, faults)
    };
    assert_kept(&plan, 12_640);
}

/// Both ends replaced a Child SA, and the peer's request was lost until the cluster's successor had come
/// to its end. Then it was refused, as one for an SA that the cluster had no more; and since the cluster
/// had replaced that, the peer thought that there was another one.
#[test]
fn seed_14131_a_rekeying_that_comes_to_nothing_leaves_no_child_missing() {
    let faults = vec![
        (nanos(1_296_950_040), Garbage),
        (nanos(1_370_950_040), Garbage),
        (nanos(3_089_315_599), Deaf { from: 2, to: 1 }),
        (nanos(3_214_315_599), Healed),
        (
            nanos(3_333_587_310),
            Frozen(1, Part::Control, nanos(75_375_000)),
        ),
    ];
    let plan = Plan {
        outside: noise(1_000, 100, 300),
        sync: noise(1_000, 1_000, 300),
        drift: [-4_793, -157, -1_100, -2_989],
        retransmit_tries: Some(4),
        probe_every: micros(1_146),
        aftermath: Duration::from_secs(20),
        extras: Extras {
            encap: true,
            resumption: true,
            packets: Some(200),
            ..Extras::default()
        },
        ..Plan::with(2, faults)
    };
    assert_kept(&plan, 14_131);
}

/// A failover lost a half-open IKE SA. The peer repeated IKE_AUTH where nobody knew of that any more, and
/// in silence, ever more rarely; and then began with the next address instead, that of a standby.
#[test]
fn seed_20399_an_initiator_is_told_that_its_half_open_ike_sa_is_lost() {
    let frozen = |machine, nanoseconds| Frozen(machine, Part::Control, nanos(nanoseconds));
    let faults = vec![
        (nanos(1_409_715_011), frozen(1, 145_500_000)),
        (nanos(1_479_036_898), Replay),
        (nanos(1_484_036_898), Replay),
        (nanos(2_504_485_278), frozen(2, 428_000_000)),
        (nanos(2_732_223_978), ClusterRekeysIke),
        (nanos(2_732_223_978), PeerRekeysChild),
        (nanos(2_732_246_978), ClusterRekeysIke),
        (nanos(2_775_178_126), Garbage),
        (nanos(3_497_632_613), DiskFails(3, 1)),
        (nanos(3_497_632_613), Switchover),
        (nanos(3_565_178_126), Garbage),
        (nanos(3_584_565_254), Replay),
        (nanos(4_281_565_254), Replay),
    ];
    let plan = Plan {
        outside: noise(1_000, 0, 60),
        sync: noise(100, 1_000, 8_000),
        hub: true,
        leases: Some(lease_sizes(16, 64)),
        ike_proposal: CBC,
        esp_proposal: "aes256gcm16-x25519",
        takeover: "rekey",
        probe_every: micros(3_035),
        extras: Extras {
            more_children: 2,
            mobike: true,
            ..Extras::default()
        },
        ..Plan::with(3, faults)
    };
    assert_kept(&plan, 20_399);
}

/// Both members led behind a partition and both heard that the peer wants a new IKE SA. It took the
/// refusal of the one; the other made the IKE SA, and refused all that was asked on the old one until it
/// was time to delete that.
#[test]
fn seed_21724_a_successor_that_the_peer_never_had_gives_everything_back() {
    let faults = vec![
        (nanos(1_788_722_179), DiskFails(2, 4)),
        (nanos(1_788_722_179), Crash(1)),
        (nanos(2_182_722_179), Restart(1)),
        (
            nanos(2_404_590_816),
            Frozen(2, Part::Worker, nanos(146_000_000)),
        ),
        (nanos(3_479_007_174), Deaf { from: 2, to: 1 }),
        (nanos(3_479_007_174), Deaf { from: 1, to: 2 }),
        (nanos(3_589_507_174), PeerRekeysIke),
        (nanos(3_670_069_092), Replay),
        (nanos(3_700_007_174), Crash(2)),
        (nanos(3_700_007_174), Healed),
        (nanos(3_921_007_174), Restart(2)),
        (nanos(4_083_069_092), Replay),
    ];
    let plan = Plan {
        outside: noise(0, 100, 300),
        sync: noise(1_000, 100, 8_000),
        hub: true,
        leases: Some(lease_sizes(64, 1_024)),
        ike_proposal: CBC,
        takeover: "probe",
        window_size: 5,
        probe_every: micros(2_872),
        extras: Extras {
            virtual_ip: true,
            small_fragments: true,
            ..Extras::default()
        },
        ..Plan::with(2, faults)
    };
    assert_kept(&plan, 21_724);
}

/// A leader that was split off went on with the peer to Message ID 2, while the other one's probes up to
/// 4 waited for its word, and then for the peer's Ethernet address, where all but the first were lost.
/// When what the deposed one had done was known, the probes began anew at 5, and the peer waited for 3.
#[test]
fn seed_21191_probes_that_may_be_due_are_sent_again_behind_a_deposed_leader() {
    let faults = vec![
        (nanos(1_204_282_137), Garbage),
        (nanos(1_285_282_137), Garbage),
        (nanos(1_342_211_473), Switchover),
        (nanos(1_342_211_473), CrashAfter(1, 5)),
        (nanos(1_393_211_473), Restart(1)),
        (nanos(2_624_104_408), Slow(2, Duration::from_millis(200))),
        (nanos(3_091_104_408), Healed),
        (nanos(3_119_750_054), Crash(2)),
        (nanos(3_634_750_054), Restart(2)),
        (nanos(4_138_750_054), Crash(1)),
        (nanos(4_653_750_054), Restart(1)),
    ];
    let plan = Plan {
        outside: noise(10, 100, 60),
        sync: noise(1_000, 100, 300),
        leases: Some(lease_sizes(16, 64)),
        drift: [1_606, -1_665, 3_707, 3_805],
        ike_proposal: "aes128-sha256-prfsha256-x25519",
        takeover: "probe",
        probe_every: micros(1_789),
        ..Plan::with(2, faults)
    };
    assert_kept(&plan, 21_191);
}

/// Members at addresses of their own: one died before the peer had logged in. The peer waited a minute
/// for the answer, and then another at the address of the standby, which gives none.
#[test]
fn seed_22505_where_there_are_other_addresses_none_is_asked_in_vain_for_long() {
    let faults = vec![
        (
            nanos(1_889_237_424),
            Frozen(2, Part::All, nanos(168_500_000)),
        ),
        (nanos(3_276_820_587), PeerRekeysIke),
        (nanos(3_276_820_587), CrashAfter(1, 59)),
        (nanos(4_016_820_587), Restart(1)),
    ];
    let plan = Plan {
        outside: noise(1_000, 100, 60),
        sync: noise(1_000, 100, 2_000),
        hub: true,
        drift: [4_215, -3_500, 18, -1_800],
        ike_proposal: "aes128-sha256-prfsha256-x25519",
        esp_proposal: "aes256gcm16-x25519",
        probe_every: micros(911),
        extras: Extras {
            ml_kem: true,
            mobike: true,
            ..Extras::default()
        },
        ..Plan::with(2, faults)
    };
    assert_kept(&plan, 22_505);
}

/// Of two workers one had asked for the host behind the cluster, and had its answer, when the tunnel's
/// packets began to come to the other one. The answer to its question came too soon after the first to be
/// passed on, and the next question is asked after a second or two.
#[test]
fn seed_21595_workers_do_not_ask_for_the_same_host_one_after_the_other() {
    let faults = vec![
        (nanos(2_294_279_075), Crash(1)),
        (nanos(2_636_279_075), Restart(1)),
    ];
    let plan = Plan {
        outside: noise(0, 100, 8_000),
        sync: noise(0, 0, 2_000),
        hub: true,
        leases: Some(lease_sizes(64, 1_024)),
        drift: [-2_486, 1_773, 2_820, -2_264],
        esp_proposal: "aes256gcm16-x25519",
        retransmit_tries: Some(4),
        probe_every: micros(681),
        extras: Extras {
            per_cpu_sas: true,
            ..Extras::default()
        },
        families: [Family::V4, Family::V6],
        ..Plan::with(3, faults)
    };
    assert_kept(&plan, 21_595);
}

/// The standby died a moment before the lead was handed to it, and nobody had noticed. The active gave
/// its epoch up all the same, led on nothing a while later, and every SA got new keys.
#[test]
fn a_switchover_to_a_standby_that_has_just_died_is_taken_back() {
    for (members, restarts) in [(2, 700), (3, 700), (2, 60)] {
        let at = micros(1_500_000);
        let faults = vec![
            (at, Crash(2)),
            (at, Switchover),
            (at + micros(restarts * 1_000), Restart(2)),
        ];
        let plan = Plan {
            sync: noise(0, 0, 300),
            ..Plan::with(members, faults)
        };
        assert_kept(&plan, 3);
    }
}

/// A client that never says that it comes in anew did, while its former IKE SA still had the only address
/// of the pool. It kept the IKE SA that had none, and asked on it for a child again and again that
/// could never be: addresses are given in IKE_AUTH alone.
#[test]
fn seed_15_with_name_servers_a_client_without_an_address_begins_anew() {
    let faults = vec![
        (nanos(3_022_199_274), ClusterRekeysChild),
        (nanos(3_022_199_274), CrashAfter(2, 2)),
        (nanos(3_114_199_274), Restart(2)),
        (nanos(3_144_881_013), DiskFails(3, 2)),
        (nanos(3_144_881_013), Switchover),
        (micros(3_387_000), Crash(0)),
        (nanos(3_686_066_689), Unplugged(1)),
        (micros(3_804_000), Restart(0)),
        (nanos(4_093_066_689), Plugged(1)),
    ];
    let plan = Plan {
        outside: noise(1_000, 100, 60),
        sync: noise(0, 0, 2_000),
        drift: [2_372, -4_913, -923, 4_580],
        esp_proposal: "aes256gcm16-x25519",
        takeover: "message-id-sync",
        retransmit_tries: Some(4),
        probe_every: micros(2_379),
        extras: Extras {
            ppk: true,
            virtual_ip: true,
            dns: true,
            unique: Some("never"),
            ..Extras::default()
        },
        ..Plan::with(3, faults)
    };
    assert_kept(&plan, 15);
}

/// A client was sent to the other address of the same cluster, and did not ask there for the address that
/// it has: the pool had no other one. It left the IKE SA that worked for one without a child.
#[test]
fn seed_211_with_redirects_a_client_that_is_sent_elsewhere_keeps_its_address() {
    let faults = vec![
        (micros(1_379_000), ClusterRedirects),
        (micros(2_323_000), ClusterRedirects),
        (nanos(3_686_222_530), Replay),
        (nanos(4_134_222_530), Replay),
    ];
    let plan = Plan {
        outside: noise(10, 0, 60),
        sync: noise(0, 100, 60),
        leases: Some(lease_sizes(16, 64)),
        drift: [3_950, 3_209, 3_363, 2_371],
        ike_proposal: CBC,
        esp_proposal: "aes256gcm16-x25519",
        degraded: "strict",
        retransmit_tries: Some(4),
        probe_every: micros(3_991),
        aftermath: Duration::from_secs(20),
        extras: Extras {
            ppk: true,
            virtual_ip: true,
            packets: Some(600),
            octets: Some(20_000),
            redirect: Some(Redirect::Later),
            ..Extras::default()
        },
        ..Plan::with(3, faults)
    };
    assert_kept(&plan, 211);
}

/// The operator closed a child, and wanted it again while the Delete still waited for the answer to
/// another request. The order was taken for one that was carried out already; the cluster had forgotten
/// the IKE SA, and when the peer noticed it there was nothing to begin again.
#[test]
fn seed_85_with_childless_a_child_that_is_wanted_again_before_its_delete_has_left_is_made() {
    let faults = vec![
        (nanos(1_250_291_750), PeerRekeysChild),
        (nanos(1_250_291_750), CrashAfter(2, 22)),
        (nanos(1_272_817_695), Deaf { from: 1, to: 3 }),
        (nanos(1_289_291_750), Restart(2)),
        (nanos(1_331_513_254), Crash(1)),
        (nanos(1_433_817_695), Healed),
        (nanos(2_026_513_254), Restart(1)),
        (
            nanos(2_472_611_989),
            ClockJumps(2, Duration::from_millis(112)),
        ),
        (micros(2_508_000), PeerClosesChildren),
        (nanos(2_696_273_132), Crash(3)),
        (nanos(2_918_579_004), Crash(1)),
        (nanos(3_045_273_132), Restart(3)),
        (micros(3_245_000), PeerOpensChildren),
        (nanos(3_564_579_004), Restart(1)),
    ];
    let plan = Plan {
        withheld: Withheld {
            message_id_sync: false,
            replay_counter_sync: true,
        },
        outside: noise(1_000, 0, 300),
        sync: noise(0, 1_000, 300),
        takeover: "probe",
        retransmit_tries: Some(4),
        probe_every: micros(720),
        extras: Extras {
            ppk: true,
            per_cpu_sas: true,
            childless: true,
            ..Extras::default()
        },
        ..Plan::with(3, faults)
    };
    assert_kept(&plan, 85);
}
