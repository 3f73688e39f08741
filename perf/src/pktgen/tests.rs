//! What the sink says against what a port that lies on purpose did.

use hitless_dataplane::port::fault::{FaultPort, Faults};
use hitless_dataplane::port::memory;

use super::*;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn options(line: &str) -> Options {
    use clap::Parser;
    let words = ["pktgen"].into_iter().chain(line.split(' '));
    Line::try_parse_from(words).unwrap().options
}

#[test]
fn everything_arrives_once_and_in_order_where_nothing_is_lost() {
    for line in [
        "--port memory --count 5000 --rate max --duration 60s --flows 7 --size imix --json",
        "--port memory --count 3000 --rate max --duration 60s --size 90-200 --json --src fd00::1 --dst fd00::2",
    ] {
        let options = options(line);
        let result = run(&options).unwrap();
        let count = options.count.unwrap();
        // A full ring refuses; what it took arrives.
        assert_eq!(result.sent + result.refused, count);
        assert_eq!(result.arrivals.received, result.sent, "{result}");
        assert_eq!(result.lost, 0);
        let wrong = [
            result.arrivals.duplicated,
            result.arrivals.altered,
            result.arrivals.foreign,
        ];
        assert_eq!(wrong, [0; 3]);
    }
}

#[test]
fn what_a_faulty_wire_does_is_counted_as_it_was_done() {
    let options = options("--port memory --count 20000 --rate max --duration 60s --flows 3 --json");
    let (near, far) = memory::link(1024, 1500);
    let faults = Faults {
        loss: 50_000,
        duplication: 30_000,
        ..Faults::default()
    };
    let (src, dst) = (options.src, options.dst);
    let faulty = FaultPort::new(Box::new(far), 5, faults, Faults::default());
    let mut ends = Ends {
        out: End::new(Box::new(near), [2, 0, 0, 0, 0, 1], src).unwrap(),
        into: Some(End::new(Box::new(faulty), [2, 0, 0, 0, 0, 2], dst).unwrap()),
    };
    let result = run_between(&options, &mut ends).unwrap();
    let arrivals = &result.arrivals;
    assert!(result.lost > 500 && arrivals.duplicated > 300, "{result}");
    assert_eq!(
        result.sent,
        result.lost + arrivals.received - arrivals.duplicated
    );
    assert_eq!((arrivals.altered, arrivals.foreign), (0, 0));
    // Every packet with a bit flipped is found out, wherever it was flipped.
    let (near, far) = memory::link(1024, 1500);
    let faults = Faults {
        corruption: 1_000_000,
        ..Faults::default()
    };
    let faulty = FaultPort::new(Box::new(far), 5, faults, Faults::default());
    ends.out = End::new(Box::new(near), [2, 0, 0, 0, 0, 1], src).unwrap();
    ends.into = Some(End::new(Box::new(faulty), [2, 0, 0, 0, 0, 2], dst).unwrap());
    let result = run_between(&options, &mut ends).unwrap();
    let wrong = result.arrivals.altered + result.arrivals.foreign;
    assert!(wrong > result.sent * 7 / 10, "{result}");
}

#[test]
fn frames_above_the_mtu_are_told_and_not_sent() {
    let options = options(
        "--port memory --count 60 --rate max --duration 60s --size 1400-1600 --drain 1ms --json",
    );
    let (near, far) = memory::link(1024, 1450);
    let mut ends = Ends {
        out: End::new(Box::new(near), [2, 0, 0, 0, 0, 1], options.src).unwrap(),
        into: Some(End::new(Box::new(far), [2, 0, 0, 0, 0, 2], options.dst).unwrap()),
    };
    let result = run_between(&options, &mut ends).unwrap();
    // 1400 to 1450 are sent.
    assert_eq!((result.sent, result.too_long), (51, 9));
    assert_eq!((result.arrivals.received, result.lost), (51, 0));
}

#[test]
fn a_window_keeps_its_pace_with_what_arrives_and_goes_on_after_a_loss() {
    let line = "--port memory --count 20000 --rate max --duration 60s --window 64 --lost-after 1ms";
    let lossless = run(&options(&format!("{line} --json"))).unwrap();
    assert_eq!(
        (lossless.sent, lossless.refused, lossless.lost),
        (20_000, 0, 0)
    );
    let options = options(&format!("{line} --json"));
    let (near, far) = memory::link(1024, 1500);
    let faults = Faults {
        loss: 10_000,
        ..Faults::default()
    };
    let faulty = FaultPort::new(Box::new(far), 5, faults, Faults::default());
    let mut ends = Ends {
        out: End::new(Box::new(near), [2, 0, 0, 0, 0, 1], options.src).unwrap(),
        into: Some(End::new(Box::new(faulty), [2, 0, 0, 0, 0, 2], options.dst).unwrap()),
    };
    let result = run_between(&options, &mut ends).unwrap();
    assert_eq!((result.sent, result.refused), (20_000, 0));
    assert!(result.lost > 100, "{result}");
}

#[test]
fn a_capture_is_written_and_sent_again() {
    let path = std::env::temp_dir().join(format!("hitless-pktgen-{}.pcap", std::process::id()));
    let spec = path.display();
    let written = run(&options(&format!(
        "--port pcap:{spec} --count 40 --rate max --duration 60s --size imix --drain 1ms --json"
    )));
    assert_eq!(written.unwrap().sent, 40);
    let frames = port::frames_of(&path).unwrap();
    assert_eq!(frames.len(), 40);
    let replayed = run(&options(&format!(
        "--port memory --replay {spec} --count 100 --rate max --duration 60s --drain 1ms --json"
    )));
    let _ = std::fs::remove_file(&path);
    let result = replayed.unwrap();
    // They are of another run: seen, not counted as this one's.
    assert_eq!(
        (
            result.arrivals.received,
            result.arrivals.foreign,
            result.lost
        ),
        (0, 100, 0)
    );
}

#[test]
fn words_are_read_and_nonsense_is_refused() {
    assert_eq!("1.5M".parse(), Ok(PacketRate::Packets(1.5e6)));
    assert_eq!("10kpps".parse(), Ok(PacketRate::Packets(1e4)));
    assert_eq!("2.5Gbps".parse(), Ok(PacketRate::Bits(2.5e9)));
    assert_eq!("max".parse(), Ok(PacketRate::Max));
    assert_eq!("imix".parse(), Ok(Sizes::Imix));
    assert_eq!("64-100".parse(), Ok(Sizes::Range(64, 100)));
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!("02:00:00:00:00:0a".parse(), Ok(Mac([2, 0, 0, 0, 0, 10])));
    for rate in ["", "k", "-1", "0", "1G", "nan", "bps", "5Gpps"] {
        assert!(rate.parse::<PacketRate>().is_err(), "{rate}");
    }
    for size in ["", "10", "9001", "200-100", "x"] {
        assert!(size.parse::<Sizes>().is_err(), "{size}");
    }
    for time in ["", "10", "s", "-1s", "3h"] {
        assert!(duration(time).is_err(), "{time}");
    }
    for port in ["", "eth0", "af_xdp:", "memory:x", "dpdk:0"] {
        assert!(port.parse::<PortSpec>().is_err(), "{port}");
    }
    for mac in ["", "02:00", "02:00:00:00:00:00:00", "zz:00:00:00:00:00"] {
        assert!(mac.parse::<Mac>().is_err(), "{mac}");
    }
}
