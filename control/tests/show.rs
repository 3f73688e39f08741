//! `hitless show` as text and as JSON.

use hitless::api::{
    DropCount, DropStatus, Frames, InboundReport, LeaseStatus, NeighbourReport, OutboundReport,
    PolicyCount, PolicyReport, Reply, RouteReport, SaReport, Shown, TrafficReport, UdpPorts,
    WindowReport, WorkerCount, WorkerPort, WorkerReport, show,
};

fn count(worker: u64, packets: u64) -> WorkerCount {
    WorkerCount { worker, packets }
}

fn drops() -> Vec<DropCount> {
    let drop = |reason: &str, xfrm: &str, packets, workers: &[WorkerCount]| DropCount {
        reason: reason.into(),
        xfrm: xfrm.into(),
        packets,
        workers: workers.into(),
    };
    vec![
        drop(
            "replay",
            "XfrmInStateSeqError",
            1234,
            &[count(0, 1200), count(1, 34)],
        ),
        drop("not_active", "", 1, &[count(0, 1), count(1, 0)]),
        drop("ike_no_such_sa", "", 7, &[]),
    ]
}

fn sa() -> SaReport {
    SaReport {
        connection: "office".into(),
        child: "net".into(),
        sa: "1.4.7".into(),
        mode: "TUNNEL".into(),
        suite: "AES_GCM_16-128".into(),
        esn: true,
        local: "203.0.113.1".into(),
        remote: "198.51.100.7".into(),
        encapsulation: Some(UdpPorts {
            local: 4500,
            remote: 41000,
        }),
        local_ts: vec!["10.1.0.0/16".into(), "10.3.0.0/16".into()],
        remote_ts: vec!["10.2.0.0/16".into()],
        inbound: InboundReport {
            spi: "c8fb5536".into(),
            key: "[redacted, 20 octets]".into(),
            worker: 1,
            window: WindowReport {
                top: 900,
                size_packets: 4096,
                lost_packets: 2,
            },
            traffic: TrafficReport {
                packets: 898,
                bytes: 1_000_000,
                used_seconds_ago: Some(3),
                workers: vec![count(0, 98), count(1, 800)],
                drops: vec![
                    DropStatus {
                        reason: "replay".into(),
                        xfrm: "XfrmInStateSeqError".into(),
                        packets: 34,
                    },
                    DropStatus {
                        reason: "dummy".into(),
                        xfrm: String::new(),
                        packets: 5,
                    },
                ],
            },
        },
        outbound: OutboundReport {
            spi: "ce825208".into(),
            key: "[redacted, 20 octets]".into(),
            used_by_policies: false,
            traffic: TrafficReport::default(),
        },
        lease: LeaseStatus {
            sa: "1.4.7".into(),
            child: "office.net".into(),
            next: 1,
            grant: 65536,
            inbound_top: 900,
            high_water: 66436,
            stalls: 0,
        },
        lease_left: 65536,
        high_water_left: 65536,
    }
}

fn worker() -> WorkerReport {
    WorkerReport {
        worker: 0,
        core: Some(2),
        aead: "aws-lc-rs".into(),
        calls: 1000,
        busy_calls: 10,
        rx_packets: 125,
        rx_bursts: 10,
        packets_per_burst: 12.5,
        esp_in_packets: 98,
        esp_in_bytes: 9800,
        esp_out_packets: 7,
        esp_out_bytes: 700,
        punted_packets: 4,
        dropped_packets: 1201,
        lease_stalls: 1,
        parked_packets: 6,
        handed_over_packets: 3,
        taken_over_packets: 2,
        ports: vec![WorkerPort {
            port: "outside".into(),
            driver: "af_xdp".into(),
            rx_packets: 125,
            rx_bytes: 12500,
            tx_packets: 8,
            tx_bytes: 800,
            dropped_packets: 0,
        }],
        frames: Frames {
            total: 16384,
            free: 12282,
            in_ports: 4096,
            parked: 4,
            held: 2,
        },
    }
}

#[test]
fn drops_stand_in_columns_with_the_kernel_s_names() {
    let wanted = "\
reason          kernel's name        packets  worker 0  worker 1
replay          XfrmInStateSeqError     1234      1200        34
not_active      -                          1         1         0
ike_no_such_sa  -                          7         -         -
";
    assert_eq!(show(&Shown::Drops { drops: drops() }), wanted);
    let none = Shown::Drops { drops: Vec::new() };
    assert_eq!(show(&none), "no packet was dropped\n");
}

#[test]
fn an_sa_shows_numbers_window_lease_and_drops_but_never_a_key() {
    let wanted = "\
office.net: {1.4.7}, TUNNEL, ESP:AES_GCM_16-128/ESN
  tunnel     203.0.113.1 === 198.51.100.7, UDP 4500 === 41000
  local      10.1.0.0/16 10.3.0.0/16
  remote     10.2.0.0/16
  in         spi c8fb5536, key [redacted, 20 octets], worker 1
    carried  898 packets, 1000000 bytes, last 3 s ago
             worker 0: 98, worker 1: 800
    window   top 900, size 4096, lost 2
    lease    heard 900, high water 66436 (65536 left)
    dropped  replay                XfrmInStateSeqError       34
             dummy                 -                         5
  out        spi ce825208, key [redacted, 20 octets], not used by policies
    carried  0 packets, 0 bytes
    lease    next 1, grant 65536 (65536 left), 0 stalls
    dropped  none
";
    let text = show(&Shown::Sas { sas: vec![sa()] });
    assert_eq!(text, wanted);
    assert!(text.lines().all(|line| line.len() <= 80));
    let none = show(&Shown::Sas { sas: Vec::new() });
    assert!(none.starts_with("no Child SA is carried here"), "{none}");
}

#[test]
fn a_worker_shows_calls_bursts_ports_and_where_its_frames_are() {
    let wanted = "\
worker 0, core 2, AEAD aws-lc-rs
  calls   1000, 10 of them busy; 12.5 packets for each of 10 bursts
  esp     in 98 packets, 9800 bytes; out 7 packets, 700 bytes
  also    4 punted, 1201 dropped, 6 parked, 1 lease stalls
  cores   3 given to the worker of their SA, 2 got from others
  frames  16384 = 12282 free + 4096 in ports + 4 parked + 2 held
  port     driver  rx packets  rx bytes  tx packets  tx bytes  dropped
  outside  af_xdp         125     12500           8       800        0
";
    let workers = vec![worker()];
    assert_eq!(show(&Shown::Workers { workers }), wanted);
}

#[test]
fn routes_policies_and_neighbours() {
    let route = |prefix: &str, via: Option<&str>| RouteReport {
        prefix: prefix.into(),
        port: "outside".into(),
        via: via.map(Into::into),
    };
    let routes = vec![
        route("203.0.113.0/24", None),
        route("0.0.0.0/0", Some("203.0.113.254")),
    ];
    let wanted = "\
prefix          port     via
203.0.113.0/24  outside  connected
0.0.0.0/0       outside  203.0.113.254
";
    assert_eq!(show(&Shown::Routes { routes }), wanted);
    let policies = vec![PolicyReport {
        policy: 0,
        local: "10.1.0.0/16".into(),
        remote: "10.2.0.0/16".into(),
        action: "PROTECT".into(),
        sa: Some("office.net{1.4.7}".into()),
        traffic: PolicyCount {
            packets_out: 12,
            bytes_out: 1200,
            packets_in: 0,
            bytes_in: 0,
        },
    }];
    let wanted = "\
policy  action   local        remote       packets out  in clear  sa
     0  PROTECT  10.1.0.0/16  10.2.0.0/16           12         0  office.net{1.4.7}
what no policy matches is discarded
";
    assert_eq!(show(&Shown::Policies { policies }), wanted);
    let neighbours = vec![NeighbourReport {
        address: "203.0.113.254".into(),
        port: "outside".into(),
        mac: "02:00:00:00:00:01".into(),
        worker: 0,
        seconds_ago: 12,
    }];
    let wanted = "\
address        port     mac                worker  seconds ago
203.0.113.254  outside  02:00:00:00:00:01       0           12
";
    assert_eq!(show(&Shown::Neighbours { neighbours }), wanted);
}

#[test]
fn every_view_survives_json_and_names_its_units() {
    let views = [
        Shown::Drops { drops: drops() },
        Shown::Sas { sas: vec![sa()] },
        Shown::Workers {
            workers: vec![worker()],
        },
    ];
    for shown in views {
        let reply = Reply::Shown { shown };
        let text = serde_json::to_string(&reply).unwrap();
        assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), reply);
    }
    let text = serde_json::to_string(&sa()).unwrap();
    for key in [
        "\"used_seconds_ago\":3",
        "\"size_packets\":4096",
        "\"lost_packets\":2",
    ] {
        assert!(text.contains(key), "{key}: {text}");
    }
}
