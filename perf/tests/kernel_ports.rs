//! `hitless-perf pktgen` and `io` over the kernel's ports, in a network namespace without a name that is
//! gone when the command is. Without the right to make one they are skipped, and say so.

use std::process::{Command, Output};

use serde_json::Value;

/// Runs a script in a new namespace that has a veth pair, `left` and `right`. Nothing if that is not
/// permitted here.
fn in_namespace(script: &str) -> Option<Output> {
    let permitted = Command::new("unshare").args(["--net", "true"]).output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        println!("skipped: making a network namespace is not permitted");
        return None;
    }
    let cable = "set -e
        sysctl -q -w net.ipv6.conf.default.disable_ipv6=1
        ip link add left type veth peer name right
        for end in left right; do
            ethtool -K $end tx off tso off gso off gro off >/dev/null 2>&1
            ip link set $end up
        done";
    let script = format!("{cable}\n{script}");
    let output = Command::new("unshare")
        .args(["--net", "bash", "-c", &script])
        .env("PERF", env!("CARGO_BIN_EXE_hitless-perf"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(output)
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn packets_cross_a_veth_by_every_driver_and_are_accounted_for() {
    for (out, sink) in [
        ("af_packet", "af_packet"),
        ("af_xdp", "af_xdp"),
        ("af_packet", "af_xdp"),
    ] {
        let script = format!(
            "$PERF pktgen --port {out}:left --sink {sink}:right --dst-mac 02:68:70:00:00:02 --json \
             --size 64-1500 --flows 100 --window 64 --rate max --count 3000 --duration 30s --lost-after 2s"
        );
        let Some(output) = in_namespace(&script) else {
            return;
        };
        let said = json(&output);
        let number = |key: &str| said[key].as_u64().unwrap();
        assert_eq!(number("sent") + number("refused"), 3000, "{said}");
        assert_eq!(
            number("received"),
            number("sent"),
            "{out} to {sink}: {said}"
        );
        let wrong = ["lost", "duplicated", "reordered", "altered", "too_long"];
        assert!(wrong.iter().all(|key| number(key) == 0), "{said}");
    }
}

#[test]
fn frames_above_the_mtu_of_a_veth_are_not_sent() {
    let script = "$PERF pktgen --port af_packet:left --sink af_packet:right --size 1501 --rate max \
                  --dst-mac 02:68:70:00:00:02 --count 100 --duration 5s --drain 50ms --json";
    let Some(output) = in_namespace(script) else {
        return;
    };
    let said = json(&output);
    assert_eq!(
        (said["sent"].as_u64(), said["too_long"].as_u64()),
        (Some(0), Some(100))
    );
    assert_eq!(
        (said["received"].as_u64(), said["lost"].as_u64()),
        (Some(0), Some(0))
    );
}

#[test]
fn a_worker_stands_beside_a_bare_forwarder_over_every_driver() {
    // What is asserted is that all of it runs and no packet is lost; never a time.
    let Some(output) = in_namespace("$PERF io --rounds 3 --sizes 200 --json") else {
        return;
    };
    let said = json(&output);
    let lines = said["io"].as_array().unwrap();
    assert_eq!(lines.len(), 6);
    for line in lines {
        assert_eq!(line["lost"].as_u64(), Some(0), "{line}");
        assert!(line["ns_per_packet"].as_f64().unwrap() > 0.0, "{line}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let script = "set -o pipefail; \"$PERF\" pktgen --port memory --count 100 --rate max --drain 1ms 2>&1 | head -n 0";
    let output = Command::new("bash")
        .args(["-c", script])
        .env("PERF", env!("CARGO_BIN_EXE_hitless-perf"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
