//! Roads of IKE and ESP with strongSwan at the other end: virtual addresses and name servers given
//! and taken, several children, an address that moves by MOBIKE; and all of it carried over the death
//! of the active member.

mod files;

use std::time::Duration;

use serde_json::Value;

use crate::clock;
use crate::error::LabError;
use crate::gateway::{self};
use crate::ping;
use crate::scenario::{Bench, Report, Scenario};
use crate::stage::Stage;
use crate::strongswan::StrongSwan;
use crate::topology::{HOST_A, HOST_B, HOST_INTERFACE, OUTSIDE, Topology};
use crate::tshark::Content;
use files::{ALSO, MOVED, OTHER_HOST, OUR_DNS, TAKEN, THEIR_DNS};

pub const SCENARIO: Scenario = Scenario {
    name: "roads-strongswan",
    about: "virtual addresses, several children and MOBIKE with strongSwan, over a takeover",
    variants: &["psk"],
    run: roads,
};

/// What must be seen in the messages: CFG_REPLY (RFC 7296 section 3.15), UPDATE_SA_ADDRESSES (RFC 4555
/// section 4.2.1).
const CONTENTS: [(&str, Content); 2] = [
    ("tshark-sees-cfg-reply", Content::Configuration(2)),
    ("tshark-sees-the-move", Content::Notify(16400)),
];
const ANSWER: Duration = Duration::from_secs(15);

struct Trial<'a> {
    stage: Stage<'a>,
}

fn roads(bench: &Bench, variant: &str) -> Result<Report, LabError> {
    let mut trial = Trial::new(bench, variant)?;
    trial.taken()?;
    let address = trial.given()?;
    trial.rekeyed()?;
    trial.moves(&address)?;
    trial.takeover(&address)?;
    trial.second_client(&address)?;
    trial.decrypted()
}

impl<'a> Trial<'a> {
    fn new(bench: &'a Bench, variant: &str) -> Result<Self, LabError> {
        let directory = bench.subdirectory(SCENARIO.name)?;
        bench.say("building the network");
        let lab = Topology::new()?;
        for address in [TAKEN, OTHER_HOST] {
            lab.host_b
                .address(HOST_INTERFACE, &format!("{address}/24"))?;
        }
        // The address that it had goes, the one that it moves to stays.
        lab.peer
            .sysctl("net.ipv4.conf.all.promote_secondaries", "1")?;
        lab.peer
            .sysctl(&format!("net.ipv4.conf.{OUTSIDE}.promote_secondaries"), "1")?;
        bench.say("starting the peer and the cluster");
        let conf = files::swanctl();
        // What it protects has to be its own.
        lab.peer.address("lo", &format!("{ALSO}/32"))?;
        let peer = StrongSwan::start_with(&lab.peer, "peer", &directory, &conf, "")?;
        let report = Report::new(SCENARIO.name, variant);
        let stage = Stage::start(bench, report, &directory, (lab, peer), files::member)?;
        Ok(Self { stage })
    }

    /// tshark reads all of it, with the key logs of both members.
    fn decrypted(self) -> Result<Report, LabError> {
        self.stage.conclude(&CONTENTS)
    }

    /// We get an address and a name server of charon's.
    fn taken(&mut self) -> Result<(), LabError> {
        self.stage.bench.say("charon gives us an address");
        let sa = clock::until("an address of charon's", ANSWER, || {
            let mut sas = self.stage.ours("head")?;
            sas.retain(|sa| sa["local_vips"][0] == TAKEN);
            let both = |sa: &Value| sa["children"].as_array().is_some_and(|c| c.len() == 2);
            Ok(sas.pop().filter(both))
        })?;
        self.stage
            .report
            .check("we-begin-several-children", true, "2 children");
        let dns = &sa["dns"][0];
        let told = format!("name server {dns}");
        self.stage
            .report
            .check("we-get-a-name-server", dns == THEIR_DNS, told);
        let answered = ping::flows(&self.stage.lab.host_b, TAKEN, HOST_A);
        self.stage
            .report
            .check("our-address-carries-traffic", answered, TAKEN);
        Ok(())
    }

    /// charon gets an address and a name server of ours, and two children.
    fn given(&mut self) -> Result<String, LabError> {
        self.stage.bench.say("charon gets an address of ours");
        for child in ["net", "more"] {
            self.stage
                .peer
                .swanctl(&["--initiate", "--child", child, "--timeout", "10"])?;
        }
        let sas = self.stage.ours("clients")?;
        let address = sas
            .first()
            .and_then(|sa| sa["remote_vips"][0].as_str())
            .unwrap_or_default()
            .to_owned();
        let children = sas.first().and_then(|sa| sa["children"].as_array());
        let children = children.map_or(0, Vec::len);
        let all = format!("{} IKE SAs, {children} children", sas.len());
        self.stage
            .report
            .check("several-children", sas.len() == 1 && children == 2, all);
        let fits = address.starts_with("10.3.0.");
        self.stage
            .report
            .check("charon-gets-an-address", fits, &*address);
        // charon says so even if it has no use for it.
        let told = self.stage.peer.log().contains("CPRP(ADDR DNS)");
        self.stage
            .report
            .check("charon-is-told-of-dns", told, OUR_DNS);
        self.traffic("at-first", &address);
        Ok(address)
    }

    fn traffic(&mut self, moment: &str, address: &str) {
        for (host, child) in [(HOST_B, "net"), (OTHER_HOST, "more")] {
            let answered = ping::flows(&self.stage.lab.peer, address, host);
            let name = format!("traffic-of-{child}-{moment}");
            let detail = format!("{address} to {host}");
            self.stage.report.check(&name, answered, detail);
        }
    }

    /// We rekey what charon began: it is its initiator still, and may move (RFC 4555 section 1.3).
    fn rekeyed(&mut self) -> Result<(), LabError> {
        self.stage.bench.say("we rekey the IKE SA of charon");
        let first = gateway::only_spis(&self.stage.ours("clients")?);
        self.stage.members[self.stage.active].order(&["rekey", "--ike", "clients"])?;
        let next = clock::until("a rekeyed IKE SA", ANSWER, || {
            let now = gateway::only_spis(&self.stage.ours("clients")?);
            Ok(now.filter(|now| Some(now) != first.as_ref()))
        });
        let detail = format!("{first:?} -> {:?}", next.as_ref().ok());
        self.stage.report.check("we-rekey", next.is_ok(), detail);
        Ok(())
    }

    /// charon has another address: MOBIKE tells us, and traffic goes on.
    fn moves(&mut self, address: &str) -> Result<(), LabError> {
        self.stage.bench.say("charon moves");
        let outside = format!("{MOVED}/24");
        self.stage.lab.peer.address(OUTSIDE, &outside)?;
        self.stage
            .lab
            .peer
            .ip(&["addr", "del", "192.0.2.2/24", "dev", OUTSIDE])?;
        let moved = clock::until("the peer's new address", ANSWER, || {
            let mut sas = self.stage.ours("clients")?;
            sas.retain(|sa| sa["remote_host"] == MOVED);
            Ok(sas.pop())
        });
        let detail = match &moved {
            Ok(sa) => format!("{}:{}", sa["remote_host"], sa["remote_port"]),
            Err(error) => error.to_string(),
        };
        self.stage
            .report
            .check("mobike-moves-it", moved.is_ok(), detail);
        self.settled()?;
        self.traffic("after-the-move", address);
        Ok(())
    }

    /// Until charon has replaced what kernel-libipsec cannot move, and the standby has all of it.
    fn settled(&mut self) -> Result<(), LabError> {
        clock::until("two children with charon", ANSWER, || {
            let sas = self.stage.peer.list_sas()?;
            let installed = |sa: &crate::strongswan::IkeSa| {
                let installed = sa.children.iter().filter(|c| c.state == "INSTALLED");
                installed.count() == 2 && sa.children.len() == 2
            };
            Ok(sas.iter().any(installed).then_some(()))
        })
    }

    /// The active member dies: the address, the children and where charon is outlive it.
    fn takeover(&mut self, address: &str) -> Result<(), LabError> {
        self.stage.bench.say("the active member dies");
        let before = self.stage.peer.said("IKE_AUTH");
        self.stage.active_dies()?;
        let sas = self.stage.ours("clients")?;
        let kept =
            sas.len() == 1 && sas[0]["remote_vips"][0] == address && sas[0]["remote_host"] == MOVED;
        let detail = sas
            .first()
            .map(|sa| format!("{} at {}", sa["remote_vips"], sa["remote_host"]));
        self.stage
            .report
            .check("kept-over-the-takeover", kept, detail.unwrap_or_default());
        // What the predecessor might have delivered counts as seen (`strict`), until the children
        // are rekeyed.
        let source = address.to_owned();
        for host in [HOST_B, OTHER_HOST] {
            clock::until("traffic after the takeover", ANSWER, || {
                Ok(ping::flows(&self.stage.lab.peer, &source, host).then_some(()))
            })?;
        }
        self.traffic("after-the-takeover", address);
        let auth = self.stage.peer.said("IKE_AUTH") - before;
        self.stage.report.no_new_ike_auth(auth);
        Ok(())
    }

    /// Another client gets another address from the member that took over.
    fn second_client(&mut self, first: &str) -> Result<(), LabError> {
        self.stage.bench.say("a second client");
        let up = self
            .stage
            .peer
            .swanctl(&["--initiate", "--child", "second", "--timeout", "10"]);
        let sas = self.stage.ours("clients")?;
        let mut addresses: Vec<&str> = sas
            .iter()
            .filter_map(|sa| sa["remote_vips"][0].as_str())
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        let different = up.is_ok() && addresses.len() == 2 && addresses.contains(&first);
        self.stage
            .report
            .check("no-address-given-twice", different, addresses.join(", "));
        self.stage.members[self.stage.active].keep_status("end")?;
        let listed = format!(
            "{:#}",
            Value::Array(self.stage.members[self.stage.active].list_sas()?)
        );
        std::fs::write(self.stage.directory.join("list-sas.json"), listed)
            .map_err(LabError::io("keeping the list of SAs"))
    }
}
