//! The same kill to strongSwan's `ha` plugin: two charons that exchange keys and Message IDs, and
//! no sequence numbers. What moves the addresses is not part of the plugin; here that is done as
//! soon as the survivor says that it takes over, so nothing of the outage is the mover's.

use std::path::Path;
use std::time::Duration;

use hitless::audit::Audit;

use super::audit::Question;
use super::bed;
use super::expected::{Cost, Expected, Takeover};
use super::judge::Evidence;
use super::kinds::Diary;
use super::waits::Waited;
use super::{BEFORE, LAST, Row, Wish};
use crate::capture::Capture;
use crate::clock;
use crate::error::LabError;
use crate::gateway;
use crate::process::Program;
use crate::scenario::{Bench, milliseconds};
use crate::strongswan::{PLUGINS, StrongSwan};
use crate::topology::{
    CLUSTER_INSIDE, CLUSTER_OUTSIDE, INSIDE, OUTSIDE, OUTSIDE_PREFIX, SYNC, Topology,
};

pub const PREFIX: &str = "strongswan-ha";
const TAKES_OVER: &str = "HA segment 1 activated";
const PATIENCE: Duration = Duration::from_secs(20);
const INSIDE_PREFIX: u8 = 24;
/// It has been measured to take eight seconds until traffic flows.
const AFTER: Duration = Duration::from_secs(30);

/// Nothing is asked of it.
const MEASURED: Expected = Expected {
    takeover: Takeover::AtAnyTime,
    cost: Cost::Anything,
    silence: AFTER,
    missed: None,
    split: true,
};

/// Runs the kill and tells what it cost.
pub fn run(bench: &Bench, wish: &Wish) -> Result<Row, LabError> {
    let directory = bench.subdirectory("strongswan-ha")?;
    bench.say("strongSwan's ha plugin: building the network");
    let lab = Topology::new()?;
    bed::peer_addresses(&lab, wish.tunnels, &directory)?;
    let mut first = member(&lab, 0, &directory)?;
    give_addresses(&lab, 0)?;
    clock::until("the first charon leading", PATIENCE, || {
        Ok(first.log().contains(TAKES_OVER).then_some(()))
    })?;
    let second = member(&lab, 1, &directory)?;
    let text = bed::peer_connections(wish.tunnels, true).unwrap_or_default();
    let peer = StrongSwan::start_with(&lab.peer, "peer", &directory, &text, "")?;
    bed::wait_for_tunnels(&peer, wish.tunnels)?;
    clock::pass(BEFORE)?;
    let before = bed::spis(&peer)?;
    let captures = bed::captures(&lab, PREFIX, &directory)?;
    let traffic = bed::traffic(&lab, wish)?;
    clock::pass(BEFORE)?;
    let mut diary = Diary::default();
    bench.say("SIGKILL to the charon that leads");
    let struck = diary.note("kill");
    first.kill()?;
    take_addresses(&lab, 0)?;
    clock::until("the second charon taking over", PATIENCE, || {
        Ok(second.log().contains(TAKES_OVER).then_some(()))
    })?;
    diary.note("takes over");
    give_addresses(&lab, 1)?;
    let moved = clock::wall();
    let flows = clock::until("traffic through every tunnel", AFTER, || {
        Ok(traffic.flows_since(moved).then_some(()))
    });
    let said = match flows {
        Ok(()) => "traffic everywhere",
        Err(_) => "some tunnel is still silent",
    };
    let whole = diary.note(said).saturating_sub(struck);
    clock::pass(LAST)?;
    let end = clock::wall();
    let flow = traffic.stop()?;
    let captured = captures.map(Capture::stop);
    let row = Row {
        fault: format!("{PREFIX} kill"),
        what: "strongSwan's ha plugin: SIGKILL to the active".to_owned(),
        times: 1,
        whole_again_ms: flows.ok().map(|()| milliseconds(whole)),
        ..Row::default()
    };
    let evidence = Evidence {
        flow,
        captured,
        active: 0,
        struck,
        end,
        tunnels: wish.tunnels,
        busy: wish.busy(),
        rate: wish.rate,
        expected: MEASURED,
        said: String::new(),
        question: Question::about(&gateway::binary()?, &directory, PREFIX),
        waited: Waited::default(),
        sas: [before, bed::spis(&peer)?],
    };
    Ok(row.finish(evidence, diary, &mut Audit::default()))
}

/// Starts the charon of a member, with the cluster's addresses on its loopback.
fn member(lab: &Topology, index: usize, directory: &Path) -> Result<StrongSwan, LabError> {
    let namespace = &lab.members[index];
    namespace.sysctl("net.ipv4.ip_forward", "1")?;
    // charon installs a route only where it finds the address; nobody hears of it there.
    namespace.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
    for address in [CLUSTER_OUTSIDE, CLUSTER_INSIDE] {
        namespace.address("lo", &format!("{address}/32"))?;
    }
    let ha = format!(
        "  load = {PLUGINS} ha\n  plugins {{\n    ha {{\n      local = {}\n      \
         remote = {}\n      segment_count = 1\n      fifo_interface = no\n      \
         monitor = yes\n      resync = yes\n    }}\n  }}\n",
        SYNC[index],
        SYNC[1 - index]
    );
    let name = format!("ha-{}", index + 1);
    let text = bed::stand_in_connections();
    StrongSwan::start_with(namespace, &name, directory, &text, &ha)
}

fn give_addresses(lab: &Topology, index: usize) -> Result<(), LabError> {
    let member = &lab.members[index];
    for (interface, address, prefix) in [
        (OUTSIDE, CLUSTER_OUTSIDE, OUTSIDE_PREFIX),
        (INSIDE, CLUSTER_INSIDE, INSIDE_PREFIX),
    ] {
        member.address(interface, &format!("{address}/{prefix}"))?;
        // Neighbours learn of it at once.
        Program::new([
            "arping", "-q", "-U", "-c", "2", "-w", "1", "-I", interface, address,
        ])
        .inside(member)
        .run()
        .ok();
    }
    Ok(())
}

fn take_addresses(lab: &Topology, index: usize) -> Result<(), LabError> {
    for interface in [OUTSIDE, INSIDE] {
        lab.members[index].ip(&["link", "set", interface, "down"])?;
    }
    Ok(())
}
