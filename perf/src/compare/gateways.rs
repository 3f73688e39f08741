//! Whole gateways: two of a kind with a tunnel between them, each in a namespace, and `pktgen` at both
//! ends of them in a closed loop. `testbeds/gateways` makes them.

use std::error::Error;
use std::process::Command;

use serde::{Deserialize, Serialize};

const SCRIPT: &str = include_str!("../../../testbeds/gateways");
pub const PACKAGES: [&str; 5] = [
    "charon-systemd",
    "strongswan-swanctl",
    "libcharon-extra-plugins",
    "iproute2",
    "ethtool",
];
/// What is compared, and how the script calls it.
pub const KINDS: [(&str, &str); 3] = [
    ("hitless", "hitless, af_xdp"),
    ("strongswan", "strongSwan, kernel-libipsec"),
    ("none", "Linux, forwarding only"),
];
pub const SIZES: [usize; 3] = [64, 512, 1300];
/// Packets on their way at most.
const WINDOW: &str = "256";
const DURATION: &str = "3s";

/// What two gateways of a kind carry at one size.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct GatewayLine {
    pub what: String,
    pub size: usize,
    pub pps: f64,
    pub lost: u64,
    pub p50_us: f64,
    /// hitless carries so many times as many packets.
    pub hitless_ratio: f64,
}

/// Of what pktgen says.
#[derive(Deserialize)]
struct Said {
    received_pps: f64,
    lost: u64,
    p50_us: f64,
}

/// Runs one kind at one size.
pub fn measure(kind: &str, what: &str, size: usize) -> Result<GatewayLine, Box<dyn Error>> {
    let own = std::env::current_exe()?;
    let mut command = Command::new("bash");
    command
        .args(["-c", SCRIPT, "gateways", kind, "--"])
        .arg(&own);
    command.args([
        "pktgen",
        "--port",
        "af_packet:left",
        "--sink",
        "af_packet:right",
    ]);
    command.args(["--gateway", "10.1.0.1", "--rate", "max", "--window", WINDOW]);
    command.args([
        "--size",
        &size.to_string(),
        "--duration",
        DURATION,
        "--json",
    ]);
    crate::machine::name_hitless(&mut command, &own);
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().find(|line| line.contains("gateways:"));
        return Err(last
            .or(said.lines().last())
            .unwrap_or("it said nothing")
            .into());
    }
    let said: Said = serde_json::from_slice(&output.stdout)?;
    Ok(GatewayLine {
        what: what.to_owned(),
        size,
        pps: said.received_pps,
        lost: said.lost,
        p50_us: said.p50_us,
        hitless_ratio: f64::NAN,
    })
}
