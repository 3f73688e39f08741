//! `[ports.NAME]`: the drivers and their keys, and what a user reads about a wrong one.

use std::path::{Path, PathBuf};

use hitless::config::{AfXdpConfig, AfXdpMode, Config, ConfigError, Driver, EXAMPLE, PcapConfig};
use hitless_dataplane::port::pcap::Pace;

const OUTSIDE: &str = "driver = \"af_xdp\"\ninterface = \"eth0\"\n";

/// The example whose outside port has other lines in place of its driver and interface, and whose
/// dataplane has some more.
fn with(port: &str, dataplane: &str) -> Result<Config, ConfigError> {
    let own = |line: &&str| {
        !["queue", "mode", "workers"]
            .iter()
            .any(|key| line.starts_with(key))
    };
    let mut text = EXAMPLE.lines().filter(own).collect::<Vec<_>>().join("\n");
    let at = text.find("driver = \"af_xdp\"").expect("a driver");
    let end = text[at..].find("addresses").expect("addresses") + at;
    text.replace_range(at..end, &format!("{port}\n"));
    let header = "[dataplane]\n";
    assert!(text.contains(header));
    let text = text.replacen(header, &format!("{header}{dataplane}\n"), 1);
    Config::parse("gateway.toml", &text, Path::new("/nonexistent"))
}

fn driver(port: &str) -> Driver {
    let config = with(port, "").unwrap_or_else(|error| panic!("{error}"));
    config.ports[0].driver.clone()
}

#[test]
fn every_driver_has_its_keys_and_their_defaults() {
    assert_eq!(driver(OUTSIDE), Driver::AfXdp(AfXdpConfig::default()));
    let all = "mode = \"native\"\nzero_copy = true\nring_size = 512\n";
    let expected = AfXdpConfig {
        mode: AfXdpMode::Native,
        zero_copy: true,
        ring_size: 512,
    };
    assert_eq!(driver(&format!("{OUTSIDE}{all}")), Driver::AfXdp(expected));
    let packet = "driver = \"af_packet\"\ninterface = \"eth0\"\n";
    assert_eq!(driver(packet), Driver::AfPacket);
    let tap = "driver = \"tap\"\ninterface = \"tap0\"\n";
    assert_eq!(driver(tap), Driver::Tap { mtu: None });
    let wide = format!("{tap}mtu = 9216\n");
    assert_eq!(driver(&wide), Driver::Tap { mtu: Some(9216) });
    assert_eq!(driver("driver = \"memory\""), Driver::Memory);
    let capture = PcapConfig {
        read: None,
        write: None,
        pace: Pace::Fast,
        mtu: 1500,
    };
    assert_eq!(driver("driver = \"pcap\""), Driver::Pcap(capture));
    let capture = PcapConfig {
        read: Some(PathBuf::from("/in.pcap")),
        write: Some(PathBuf::from("/out.pcapng")),
        pace: Pace::Recorded,
        mtu: 9000,
    };
    let text = "driver = \"pcap\"\nread = \"/in.pcap\"\nwrite = \"/out.pcapng\"\n\
                pace = \"recorded\"\nmtu = 9000\n";
    assert_eq!(driver(text), Driver::Pcap(capture));
}

#[test]
fn packet_memory_has_settings() {
    let config = with(OUTSIDE, "frames = 4096\njumbo_packets = 256\n").unwrap();
    let dataplane = &config.dataplane;
    assert_eq!((dataplane.frames, dataplane.jumbo_packets), (4096, 256));
    let config = with(OUTSIDE, "").unwrap();
    let dataplane = &config.dataplane;
    assert_eq!((dataplane.frames, dataplane.jumbo_packets), (16_384, 0));
}

/// What stands for the port, what in `[dataplane]`, and what a user reads.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    (
        "driver = \"tap\"",
        "",
        "missing key `ports.outside.interface`",
        "eth0",
    ),
    (
        "TAP mode = \"skb\"",
        "",
        "unknown key",
        "only the driver `af_xdp`",
    ),
    (
        "PACKET queue = 3",
        "",
        "unknown key",
        "only the driver `af_xdp`",
    ),
    (
        "PACKET mtu = 9000",
        "",
        "unknown key",
        "ip link set IF mtu N",
    ),
    (
        "PACKET read = \"/x\"",
        "",
        "unknown key",
        "only the driver `pcap`",
    ),
    (
        "driver = \"memory\"\ninterface = \"x\"",
        "",
        "unknown key",
        "leave it out",
    ),
    ("TAP mtu = 9217", "", "out of range", "between 576 and 9216"),
    ("XDP ring_size = 100", "", "not a power of two", "write 128"),
    ("XDP ring_size = 32", "", "out of range", "between 64"),
    (
        "XDP mode = \"skb\"\nzero_copy = true",
        "",
        "not with mode = \"skb\"",
        "mode = \"auto\"",
    ),
    (
        "driver = \"pcap\"\nread = \"x.pcap\"",
        "",
        "does not start with /",
        "whole path",
    ),
    (
        "driver = \"pcap\"",
        "workers = 2",
        "one queue",
        "dataplane.workers = 1",
    ),
    (
        "driver = \"pcap\"\npace = \"slow\"",
        "",
        "`slow` is not known",
        "\"recorded\"",
    ),
    ("XDP ", "frames = 10", "out of range", "between 1024"),
    ("XDP ", "jumbo_packets = -1", "out of range", "between 0"),
];

/// Each mistake with the file, its line, and what to do.
#[test]
fn what_a_driver_does_not_have_is_refused_with_what_to_do() {
    for (port, dataplane, title, help) in MISTAKES {
        let port = port
            .replace("XDP ", OUTSIDE)
            .replace("TAP ", "driver = \"tap\"\ninterface = \"tap0\"\n")
            .replace("PACKET ", "driver = \"af_packet\"\ninterface = \"eth0\"\n");
        let error = with(&port, dataplane).expect_err(title).to_string();
        assert!(error.contains("gateway.toml:"), "{error}");
        assert!(error.contains(title), "{title}: {error}");
        assert!(error.contains(help), "{help}: {error}");
    }
}
