//! The network of the scenarios, built and removed for real. Without root, or without the programs
//! that it takes, there is nothing to test and it says so; `testbeds/test` runs it with both.

use std::os::unix::fs::MetadataExt;

use hitless::audit::pcap::PcapReader;
use hitless_testbeds::capture::{Capture, Direction};
use hitless_testbeds::netns;
use hitless_testbeds::process::{self, Program};
use hitless_testbeds::scenario::Bench;
use hitless_testbeds::topology::{self, OUTSIDE, PORT_PEER, Topology};

fn possible() -> bool {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let installed = ["ip", "tcpdump", "ethtool", "sysctl", "setpriv", "ping"]
        .iter()
        .all(|program| process::require(program, "").is_ok());
    if !(root && installed) {
        eprintln!("not tested: this takes root, iproute2, tcpdump, ethtool and iputils-ping");
    }
    root && installed
}

fn ours() -> Vec<String> {
    let prefix = format!("hitless-{}-", std::process::id());
    let listed = Program::new(["ip", "netns", "list"]).run().expect("a list");
    let names = listed.lines().filter(|line| line.starts_with(&prefix));
    names.map(str::to_owned).collect()
}

#[test]
fn the_network_carries_frames_and_is_removed() {
    if !possible() {
        return;
    }
    let lab = Topology::new().expect("the network");
    assert_eq!(ours().len(), 6);
    let removed = netns::remove_leftovers().expect("a look around");
    assert!(
        removed.iter().all(|name| !ours().contains(name)),
        "this run's own were removed"
    );
    assert_eq!(ours().len(), 6);

    // Host to gateway through the kernel, and one made-up frame through the switch.
    let ping = Program::new(["ping", "-c", "1", "-W", "5", "10.1.0.1"]).inside(&lab.host_a);
    ping.run().expect("an answer");
    let bench = Bench::new().expect("a directory");
    let directory = bench.directory();
    let capture =
        Capture::start(&lab.peer, OUTSIDE, Direction::In, "test", directory).expect("a capture");
    let mut frame = vec![0xff; 12];
    frame.extend_from_slice(&[0x88, 0xb5]);
    frame.extend_from_slice(&[0x5a; 46]);
    let frames = [frame.as_slice()];
    let sent = topology::inject(&lab.switch, PORT_PEER, frames.into_iter()).expect("sent");
    assert_eq!(sent, 1);
    let file = capture.stop().expect("a whole capture");
    let mut seen = PcapReader::new(&file)
        .expect("a capture")
        .map_while(Result::ok);
    assert!(seen.any(|record| record.frame == frame));

    bench.discard().expect("removed");
    drop(lab);
    assert_eq!(ours(), Vec::<String>::new());
}
