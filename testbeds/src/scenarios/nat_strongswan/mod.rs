//! A real NAT between the cluster and strongSwan: two clients behind it, or the cluster itself. Its
//! mappings change, the active member dies, and every tunnel goes on without a new IKE_AUTH.
//!
//! ```text
//!   charon ----- peer, a router that masquerades ------ [outside switch] ------ the cluster
//!  10.1.0.2   10.1.0.1                     192.0.2.2                             192.0.2.1
//! ```

mod files;

use std::time::Duration;

use hitless::audit::pcap::PcapReader;
use hitless::audit::wire::{self, Frame};
use serde_json::Value;

use crate::clock;
use crate::error::LabError;
use crate::netns::Namespace;
use crate::ping;
use crate::process::{self, Program};
use crate::scenario::{Bench, Report, Scenario};
use crate::stage::Stage;
use crate::strongswan::StrongSwan;
use crate::topology::{HOST_B, HOST_INTERFACE, INSIDE, OUTSIDE, Topology};
use crate::tshark::Content;
use files::{CHARON_TOO, FAR_HOST};

pub const SCENARIO: Scenario = Scenario {
    name: "nat-strongswan",
    about: "strongSwan and we with a real NAT between us: mappings change, the active member dies",
    variants: &["clients", "cluster"],
    run: through_nat,
};

const ANSWER: Duration = Duration::from_secs(15);
/// UPDATE_SA_ADDRESSES (RFC 4555 section 4.2.1).
const MOVE: Content = Content::Notify(16400);

/// The router's address on one side, and the ports that it gives to what leaves there.
struct Mapping {
    interface: &'static str,
    address: &'static str,
    ports: (u16, u16),
}

const fn mapping(interface: &'static str, address: &'static str, first: u16) -> Mapping {
    Mapping {
        interface,
        address,
        ports: (first, first + 9_999),
    }
}

/// What clients come by, one after the other.
const OF_CLIENTS: [Mapping; 3] = [
    mapping(OUTSIDE, "192.0.2.2", 20_000),
    mapping(OUTSIDE, "192.0.2.3", 30_000),
    mapping(OUTSIDE, "192.0.2.2", 40_000),
];
/// What the cluster comes by.
const OF_CLUSTER: [Mapping; 2] = [
    mapping(INSIDE, "10.1.0.1", 20_000),
    mapping(INSIDE, "10.1.0.4", 30_000),
];

impl Mapping {
    /// Has the router use it, and forget the one before if there was one.
    fn begin(&self, router: &Namespace, before: Option<&Mapping>) -> Result<(), LabError> {
        let Mapping {
            interface,
            address,
            ports: (first, last),
        } = self;
        let rules = format!(
            "table ip nat\ndelete table ip nat\ntable ip nat {{\nchain out {{\n\
             type nat hook postrouting priority srcnat;\n\
             oifname \"{interface}\" meta l4proto udp masquerade to :{first}-{last}\n}}\n}}\n"
        );
        Program::new(["nft", &rules]).inside(router).run()?;
        if let Some(before) = before {
            // What was masqueraded by an address goes with it.
            let old = format!("{}/24", before.address);
            router.ip(&["addr", "del", &old, "dev", before.interface])?;
            router.address(interface, &format!("{address}/24"))?;
        }
        Ok(())
    }

    fn is(&self, host: &str, port: u64) -> bool {
        let (first, last) = self.ports;
        host == self.address && (u64::from(first)..=u64::from(last)).contains(&port)
    }
}

fn through_nat(bench: &Bench, variant: &str) -> Result<Report, LabError> {
    process::require("nft", "nftables")?;
    let router = Namespace::new("router")?;
    if let Err(error) = OF_CLIENTS[0].begin(&router, None) {
        let why = format!("this kernel does no NAT for nftables: {error}");
        return Ok(Report::skipped(SCENARIO.name, variant, &why));
    }
    drop(router);
    match variant {
        "clients" => clients(bench),
        _ => cluster(bench),
    }
}

/// The network with charon behind the router; the router masquerades.
fn network(bench: &Bench, first: &Mapping) -> Result<Topology, LabError> {
    bench.say("building the network");
    let lab = Topology::new()?;
    first.begin(&lab.peer, None)?;
    for address in [format!("{CHARON_TOO}/24"), format!("{FAR_HOST}/32")] {
        lab.host_a.address(HOST_INTERFACE, &address)?;
    }
    Ok(lab)
}

fn stage<'a>(
    bench: &'a Bench,
    variant: &str,
    lab: Topology,
    (charon, text): (&str, fn(usize, &std::path::Path) -> String),
) -> Result<Stage<'a>, LabError> {
    let directory = bench.subdirectory(&format!("{}-{variant}", SCENARIO.name))?;
    bench.say("starting the peer and the cluster");
    let peer = StrongSwan::start_with(&lab.host_a, "peer", &directory, charon, "")?;
    let report = Report::new(SCENARIO.name, variant);
    Stage::start(bench, report, &directory, (lab, peer), text)
}

/// Two clients behind one NAT; one of them has no MOBIKE.
fn clients(bench: &Bench) -> Result<Report, LabError> {
    let [first, second, third] = &OF_CLIENTS;
    let lab = network(bench, first)?;
    let ends = (
        &*files::clients(),
        files::gateway_of_clients as fn(usize, &std::path::Path) -> String,
    );
    let mut stage = stage(bench, "clients", lab, ends)?;
    for name in ["one", "two"] {
        let up = ["--initiate", "--child", name, "--timeout", "10"];
        stage.peer.swanctl(&up)?;
    }
    let authentications = stage.peer.said("IKE_AUTH");
    let addresses = seen(&mut stage, "at-first", first)?;
    carried(&mut stage, "at-first", &addresses)?;

    // charon knows a mapping from an answer to a question of its own, and a changed one from the next
    // (RFC 4555 section 3.8).
    let asked = stage.peer.said("sending DPD request");
    clock::until("questions of charon's", ANSWER, || {
        Ok((stage.peer.said("sending DPD request") >= asked + 4).then_some(()))
    })?;
    bench.say("the NAT forgets its mappings, and has another address");
    second.begin(&stage.lab.peer, Some(first))?;
    seen(&mut stage, "after-the-change", second)?;
    carried(&mut stage, "after-the-change", &addresses)?;

    bench.say("the active member dies");
    stage.active_dies()?;
    let again = seen(&mut stage, "after-the-takeover", second)?;
    let kept = format!("{addresses:?} -> {again:?}");
    stage
        .report
        .check("addresses-kept-over-the-takeover", again == addresses, kept);
    carried(&mut stage, "after-the-takeover", &addresses)?;

    bench.say("the NAT forgets its mappings again");
    third.begin(&stage.lab.peer, Some(second))?;
    seen(&mut stage, "after-the-second-change", third)?;
    carried(&mut stage, "after-the-second-change", &addresses)?;
    let again = stage.peer.said("IKE_AUTH") - authentications;
    stage.report.no_new_ike_auth(again);
    stage.members[stage.active].keep_status("end")?;
    stage.conclude(&[("tshark-sees-the-move", MOVE)])
}

/// Both clients come by this mapping, by ports of their own; gives the addresses that they have of us.
fn seen(stage: &mut Stage<'_>, moment: &str, by: &Mapping) -> Result<[String; 2], LabError> {
    let port = |sa: &Value| sa["remote_port"].as_u64().unwrap_or_default();
    let host = |sa: &Value| sa["remote_host"].as_str().unwrap_or_default().to_owned();
    let both = clock::until("both clients by this mapping", ANSWER, || {
        let mut sas = stage.ours("clients")?;
        sas.retain(|sa| by.is(&host(sa), port(sa)));
        sas.sort_by_key(|sa| sa["remote_id"].to_string());
        Ok((sas.len() == 2).then_some(sas))
    });
    let shown = |sa: &Value| format!("{} at {}:{}", sa["remote_id"], host(sa), port(sa));
    let detail = match &both {
        Ok(sas) => sas.iter().map(shown).collect::<Vec<_>>().join(", "),
        Err(error) => {
            let now: Vec<String> = stage.ours("clients")?.iter().map(shown).collect();
            format!("{error}: {}", now.join(", "))
        }
    };
    let sas = both.unwrap_or_default();
    let apart = sas.len() == 2 && port(&sas[0]) != port(&sas[1]);
    stage
        .report
        .check(&format!("both-by-the-nat-{moment}"), apart, detail);
    let address = |index: usize| -> String {
        let address = sas.get(index).and_then(|sa| sa["remote_vips"][0].as_str());
        address.unwrap_or_default().to_owned()
    };
    Ok([address(0), address(1)])
}

/// Traffic of both clients flows, begun from either side.
fn carried(stage: &mut Stage<'_>, moment: &str, addresses: &[String; 2]) -> Result<(), LabError> {
    for (address, client) in addresses.iter().zip(["one", "two"]) {
        for (from, source, target, way) in [
            (&stage.lab.host_b, HOST_B, &**address, "to"),
            (&stage.lab.host_a, &**address, HOST_B, "from"),
        ] {
            let flows = clock::until("traffic", ANSWER, || {
                Ok(ping::flows(from, source, target).then_some(()))
            });
            let name = format!("traffic-{way}-{client}-{moment}");
            let detail = format!("{source} to {target}");
            stage.report.check(&name, flows.is_ok(), detail);
        }
    }
    Ok(())
}

/// The cluster behind the NAT, which it keeps open; charon answers.
fn cluster(bench: &Bench) -> Result<Report, LabError> {
    let [first, second] = &OF_CLUSTER;
    let lab = network(bench, first)?;
    // charon's answers and what it protects go back by the NAT alone.
    let ends = (
        &*files::head(),
        files::behind as fn(usize, &std::path::Path) -> String,
    );
    let mut stage = stage(bench, "cluster", lab, ends)?;
    arrives(&mut stage, "at-first", first)?;
    let authentications = stage.peer.said("IKE_AUTH");

    bench.say("the active member dies");
    let died = stage.active_dies()?;
    arrives(&mut stage, "after-the-takeover", first)?;
    let kept_open = keepalives(&stage.so_far()?, died);
    let said = format!("{kept_open} keepalives after the death");
    stage
        .report
        .check("the-mapping-is-kept-open", kept_open > 0, said);

    bench.say("the NAT forgets its mapping, and has another address");
    second.begin(&stage.lab.peer, Some(first))?;
    arrives(&mut stage, "after-the-change", second)?;
    let again = stage.peer.said("IKE_AUTH") - authentications;
    stage.report.no_new_ike_auth(again);
    stage.members[stage.active].keep_status("end")?;
    stage.conclude(&[])
}

/// charon sees us by this mapping, and traffic flows, begun from either side.
fn arrives(stage: &mut Stage<'_>, moment: &str, by: &Mapping) -> Result<(), LabError> {
    let there = clock::until("us by this mapping", ANSWER, || {
        let sa = stage.peer.established()?;
        Ok(sa.filter(|sa| by.is(&sa.remote_host, sa.remote_port) && sa.installed().is_some()))
    });
    let detail = match &there {
        Ok(sa) => format!("{}:{}", sa.remote_host, sa.remote_port),
        Err(error) => error.to_string(),
    };
    let name = format!("seen-by-the-nat-{moment}");
    stage.report.check(&name, there.is_ok(), detail);
    for (from, source, target, way) in [
        (&stage.lab.host_b, HOST_B, FAR_HOST, "from-us"),
        (&stage.lab.host_a, FAR_HOST, HOST_B, "to-us"),
    ] {
        let flows = clock::until("traffic", ANSWER, || {
            Ok(ping::flows(from, source, target).then_some(()))
        });
        let name = format!("traffic-{way}-{moment}");
        let detail = format!("{source} to {target}");
        stage.report.check(&name, flows.is_ok(), detail);
    }
    Ok(())
}

/// NAT keepalives (RFC 3948 section 2.3) from then on. charon, which is behind no NAT, sends none.
fn keepalives(file: &[u8], from: Duration) -> usize {
    let records = PcapReader::new(file).into_iter().flatten();
    let late = records.map_while(Result::ok).filter(|r| r.time >= from);
    late.filter(|record| matches!(wire::decode(record.frame), Frame::Keepalive))
        .count()
}
