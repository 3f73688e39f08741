//! 500 tunnels between one gateway and one strongSwan: it brings them up, or we do; then every one of
//! them is there at both ends, and some of them carry traffic.

use std::net::IpAddr;
use std::time::Duration;

use crate::clock;
use crate::error::LabError;
use crate::faults::bed;
use crate::gateway::{self, Member};
use crate::ping;
use crate::scenario::{Bench, Report, Scenario};
use crate::strongswan::StrongSwan;
use crate::topology::{HOST_B, Topology};

pub const SCENARIO: Scenario = Scenario {
    name: "tunnels-strongswan",
    about: "500 tunnels with strongSwan, which brings them up, and which we bring up",
    variants: &["responder", "initiator"],
    run,
};

const TUNNELS: u16 = 500;
/// Those that are seen to carry traffic.
const SEEN: [u16; 5] = [0, 1, 250, 498, 499];
/// All of ours come from one address, and charon lets few IKE SAs of one address be half open: a
/// `block_threshold` of 0 is no way out, as charon raises it above `cookie_threshold_ip`.
const OPTIONS: &str = "  dos_protection = no\n";
const UP: Duration = Duration::from_secs(60);

fn run(bench: &Bench, variant: &str) -> Result<Report, LabError> {
    let initiates = variant == "initiator";
    let directory = bench.subdirectory(&format!("{}-{variant}", SCENARIO.name))?;
    let mut report = Report::new(SCENARIO.name, variant);
    let lab = Topology::new()?;
    bed::peer_addresses(&lab, TUNNELS, &directory)?;
    let theirs = bed::peer_connections(TUNNELS, !initiates).unwrap_or_default();
    let start_peer = || StrongSwan::start_with(&lab.peer, "peer", &directory, &theirs, OPTIONS);
    let start_gateway = || {
        let connections = bed::member_connections(TUNNELS, initiates).unwrap_or_default();
        let own = directory.join("m1");
        let text = gateway::configuration(0, &own, gateway::PATIENT, &connections);
        Member::start_with(&gateway::binary()?, &lab, 0, &directory, &text, &[])
    };
    bench.say("starting both ends");
    let begun = clock::now();
    // Whoever answers is there first.
    let (mut member, peer) = if initiates {
        let peer = start_peer()?;
        (start_gateway()?, peer)
    } else {
        let mut member = start_gateway()?;
        member.wait_until_active(UP)?;
        (member, start_peer()?)
    };
    let all = clock::until("500 tunnels at both ends", UP, || {
        clock::pass(Duration::from_millis(500))?;
        let (ours, theirs) = (tunnels(&member)?, bed::spis(&peer)?.len());
        let all = usize::from(TUNNELS);
        Ok((ours == all && theirs == all).then_some(()))
    });
    let took = clock::now().duration_since(begun).as_secs_f64();
    let (ours, theirs) = (tunnels(&member)?, bed::spis(&peer)?.len());
    let detail = format!("{ours} here and {theirs} there, after {took:.1} s");
    report.check("all-tunnels-up", all.is_ok(), detail);
    bench.say("traffic");
    for tunnel in SEEN {
        let inner = bed::inner_address(tunnel);
        let answered = answered(&lab, inner);
        report.check(&format!("tunnel-{tunnel}"), answered, inner.to_string());
    }
    member.keep_status("end")?;
    member.check_running()?;
    Ok(report.conclude())
}

/// Our established IKE SAs with a Child SA.
fn tunnels(member: &Member) -> Result<usize, LabError> {
    let sas = member.list_sas()?;
    let up = sas.iter().filter(|sa| {
        let child = sa["children"].as_array().is_some_and(|c| c.len() == 1);
        sa["state"] == "ESTABLISHED" && child
    });
    Ok(up.count())
}

/// Both ways: the echo and its answer.
fn answered(lab: &Topology, inner: IpAddr) -> bool {
    ping::flows(&lab.host_b, HOST_B, &inner.to_string())
}
