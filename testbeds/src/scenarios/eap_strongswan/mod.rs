//! Users with passwords: strongSwan logs in to us with EAP-MSCHAPv2, and we to strongSwan. The one who
//! got in stays in over the death of the active member; who does not know a password learns nothing.

mod files;

use std::path::PathBuf;
use std::time::Duration;

use super::certs_strongswan::pki;
use crate::clock;
use crate::error::LabError;
use crate::gateway::only_spis;
use crate::ping::{Ping, flows};
use crate::process;
use crate::scenario::{Bench, Report, Scenario};
use crate::stage::Stage;
use crate::strongswan::{self, StrongSwan};
use crate::topology::{HOST_A, HOST_B, HOST_INTERFACE, Topology};
use crate::tshark::Content;
use files::{OURS, TAKEN};

pub const SCENARIO: Scenario = Scenario {
    name: "eap-strongswan",
    about: "users with EAP-MSCHAPv2, strongSwan as client and as gateway, over a takeover",
    variants: &["mschapv2"],
    run: users,
};

/// EAP-Success (RFC 3748 section 4.2).
const SUCCESS: Content = Content::Eap(3);
const MSCHAPV2: &str = "/usr/lib/ipsec/plugins/libstrongswan-eap-mschapv2.so";
const READY: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_millis(50);

struct Trial<'a> {
    stage: Stage<'a>,
}

fn users(bench: &Bench, variant: &str) -> Result<Report, LabError> {
    process::require("pki", "strongswan-pki")?;
    process::require(MSCHAPV2, "libcharon-extauth-plugins")?;
    let directory = bench.subdirectory(SCENARIO.name)?;
    bench.say("issuing certificates");
    pki::issue(&directory)?;
    let mut trial = Trial::new(bench, directory, variant)?;
    trial.we_log_in()?;
    let address = trial.alice()?;
    trial.refused("bob", "wrong password of bob")?;
    trial.refused("mallory", "no secret or connection for mallory")?;
    trial.takeover(&address)?;
    trial.rekeyed(&address)?;
    trial.stage.members[trial.stage.active].keep_status("end")?;
    trial.decrypted()
}

impl<'a> Trial<'a> {
    fn new(bench: &'a Bench, directory: PathBuf, variant: &str) -> Result<Self, LabError> {
        bench.say("starting the peer and the cluster");
        let lab = Topology::new()?;
        lab.host_b.address(HOST_INTERFACE, &format!("{TAKEN}/24"))?;
        let conf = files::swanctl();
        let plugins = strongswan::PLUGINS;
        let options = format!("  load = {plugins} eap-identity eap-mschapv2\n");
        let peer = StrongSwan::start_with(&lab.peer, "peer", &directory, &conf, &options)?;
        let report = Report::new(SCENARIO.name, variant);
        let stage = Stage::start(bench, report, &directory, (lab, peer), files::member)?;
        Ok(Self { stage })
    }

    /// tshark reads all of it, with the key logs of both members.
    fn decrypted(self) -> Result<Report, LabError> {
        self.stage.conclude(&[("tshark-sees-eap-success", SUCCESS)])
    }

    /// strongSwan is the gateway.
    fn we_log_in(&mut self) -> Result<(), LabError> {
        self.stage.bench.say("we log in at charon's");
        let sa = clock::until("an address of charon's", ANSWER, || {
            let mut sas = self.stage.ours("head")?;
            sas.retain(|sa| sa["local_vips"][0] == TAKEN);
            Ok(sas.pop())
        });
        let detail = match &sa {
            Ok(sa) => format!("charon authenticated by {}", sa["authenticated"]),
            Err(error) => error.to_string(),
        };
        self.stage.report.check("we-log-in", sa.is_ok(), detail);
        let listed = self.stage.peer.swanctl(&["--list-sas"])?;
        let known = listed.contains(&format!("EAP: '{OURS}'"));
        self.stage
            .report
            .check("charon-knows-our-user", known, OURS);
        let answered = flows(&self.stage.lab.host_b, TAKEN, HOST_A);
        self.stage
            .report
            .check("our-login-carries-traffic", answered, TAKEN);
        Ok(())
    }

    /// strongSwan is the client, and knows the password.
    fn alice(&mut self) -> Result<String, LabError> {
        self.stage.bench.say("alice logs in");
        let initiated =
            self.stage
                .peer
                .swanctl(&["--initiate", "--child", "alice", "--timeout", "10"]);
        let sas = self.stage.ours("users")?;
        let sa = sas.first().cloned().unwrap_or_default();
        let up = initiated.is_ok() && sas.len() == 1 && sa["remote_eap_id"] == "alice";
        let detail = match &initiated {
            Ok(_) => format!("{} as {}", sa["authenticated"], sa["remote_eap_id"]),
            Err(error) => error.to_string(),
        };
        self.stage.report.check("charon-logs-in", up, detail);
        let address = sa["remote_vips"][0].as_str().unwrap_or_default().to_owned();
        let fits = address.starts_with("10.3.0.");
        self.stage
            .report
            .check("charon-gets-an-address", fits, &*address);
        self.traffic("at-first", &address);
        Ok(address)
    }

    fn traffic(&mut self, moment: &str, address: &str) {
        let answered = flows(&self.stage.lab.peer, address, HOST_B);
        let detail = format!("{address} to {HOST_B}");
        self.stage
            .report
            .check(&format!("traffic-{moment}"), answered, detail);
    }

    /// A login that fails, whatever the reason: charon reads the same error.
    fn refused(&mut self, user: &str, why: &str) -> Result<(), LabError> {
        self.stage.bench.say(&format!("{user} does not get in"));
        let (ours, theirs) = (
            self.stage.members[self.stage.active].log().len(),
            self.stage.peer.log().len(),
        );
        let initiated = self
            .stage
            .peer
            .swanctl(&["--initiate", "--child", user, "--timeout", "5"]);
        let said = self.stage.members[self.stage.active].log();
        let told = said.get(ours..).is_some_and(|said| said.contains(why));
        let read = self.stage.peer.log();
        let error = "ERROR_AUTHENTICATION_FAILURE";
        let read = read.get(theirs..).is_some_and(|read| read.contains(error));
        let users = self.stage.ours("users")?.len();
        let detail = format!("IKE SAs of users: {users}, told {why:?}: {told}, E=691: {read}");
        let passed = initiated.is_err() && users == 1 && told && read;
        self.stage
            .report
            .check(&format!("refused-{user}"), passed, detail);
        Ok(())
    }

    /// The active member dies under traffic: nobody logs in again.
    fn takeover(&mut self, address: &str) -> Result<(), LabError> {
        self.stage.bench.say("the active member dies");
        let mut stream = Ping::start(
            &self.stage.lab.peer,
            HOST_B,
            INTERVAL,
            "stream",
            &self.stage.directory,
        )?;
        stream.wait_for_answer(READY)?;
        let before = self.stage.peer.said("IKE_AUTH");
        let moment = self.stage.active_dies()?;
        let sas = self.stage.ours("users")?;
        let kept = sas.len() == 1
            && sas[0]["remote_vips"][0] == address
            && sas[0]["remote_eap_id"] == "alice";
        let detail = sas
            .first()
            .map(|sa| format!("{} at {}", sa["remote_eap_id"], sa["remote_vips"]));
        self.stage.report.check(
            "the-user-outlives-a-member",
            kept,
            detail.unwrap_or_default(),
        );
        let (source, from) = (address.to_owned(), &self.stage.lab.peer);
        clock::until("traffic after the takeover", ANSWER, || {
            Ok(flows(from, &source, HOST_B).then_some(()))
        })?;
        let log = stream.stop()?;
        let late = log.answers.iter().filter(|at| **at > moment).count();
        let detail = format!(
            "{} of {} answered, {late} after it died",
            log.received, log.transmitted
        );
        self.stage
            .report
            .check("the-stream-goes-on", late > 5, detail);
        let auth = self.stage.peer.said("IKE_AUTH") - before;
        self.stage.report.no_new_ike_auth(auth);
        Ok(())
    }

    /// What a login began is an IKE SA like any other.
    fn rekeyed(&mut self, address: &str) -> Result<(), LabError> {
        self.stage.bench.say("rekeying, from both sides");
        for side in ["charon-rekeys", "we-rekey"] {
            let first = only_spis(&self.stage.ours("users")?);
            let asked = match side {
                "we-rekey" => {
                    self.stage.members[self.stage.active].order(&["rekey", "--ike", "users"])
                }
                _ => self.stage.peer.swanctl(&["--rekey", "--ike", "alice"]),
            };
            let next = clock::until(side, ANSWER, || {
                let mut sas = self.stage.ours("users")?;
                sas.retain(|sa| sa["remote_eap_id"] == "alice");
                Ok(only_spis(&sas).filter(|now| Some(now) != first.as_ref()))
            });
            let detail = format!("{first:?} -> {:?}", next.as_ref().ok());
            let passed = asked.is_ok() && next.is_ok();
            self.stage.report.check(side, passed, detail);
        }
        self.traffic("after-rekeying", address);
        Ok(())
    }
}
