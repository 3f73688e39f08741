//! Users with passwords: strongSwan logs in to us with EAP-MSCHAPv2, and we to strongSwan. The one who
//! got in stays in over the death of the active member; who does not know a password learns nothing.

mod files;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::certs_strongswan::pki;
use crate::capture::{Capture, Direction};
use crate::clock;
use crate::error::LabError;
use crate::gateway::{self, Member, only_spis};
use crate::ping::{Ping, flows};
use crate::process;
use crate::scenario::{Bench, Report, Scenario};
use crate::strongswan::{self, StrongSwan};
use crate::topology::{HOST_A, HOST_B, HOST_INTERFACE, OUTSIDE, Topology};
use crate::tshark::{self, Content};
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
    bench: &'a Bench,
    report: Report,
    directory: PathBuf,
    /// Processes before namespaces: fields are dropped in this order.
    members: [Member; 2],
    active: usize,
    peer: StrongSwan,
    wire: Capture,
    lab: Topology,
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
    trial.members[trial.active].keep_status("end")?;
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
        let wire = Capture::start(&lab.peer, OUTSIDE, Direction::Both, "outside", &directory)?;
        let mut members = gateway::start_pair(&lab, &directory, files::member)?;
        let active = gateway::wait_for_roles(&mut members, READY)?;
        Ok(Self {
            bench,
            report: Report::new(SCENARIO.name, variant),
            directory,
            members,
            active,
            peer,
            wire,
            lab,
        })
    }

    /// tshark reads all of it, with the key logs of both members.
    fn decrypted(self) -> Result<Report, LabError> {
        let ends = (&self.members, &self.peer);
        let contents = [("tshark-sees-eap-success", SUCCESS)];
        tshark::conclude(self.report, &self.directory, ends, self.wire, &contents)
    }

    /// Our IKE SAs of a connection that are up.
    fn ours(&self, connection: &str) -> Result<Vec<Value>, LabError> {
        self.members[self.active].established(connection)
    }

    /// strongSwan is the gateway.
    fn we_log_in(&mut self) -> Result<(), LabError> {
        self.bench.say("we log in at charon's");
        let sa = clock::until("an address of charon's", ANSWER, || {
            let mut sas = self.ours("head")?;
            sas.retain(|sa| sa["local_vips"][0] == TAKEN);
            Ok(sas.pop())
        });
        let detail = match &sa {
            Ok(sa) => format!("charon authenticated by {}", sa["authenticated"]),
            Err(error) => error.to_string(),
        };
        self.report.check("we-log-in", sa.is_ok(), detail);
        let listed = self.peer.swanctl(&["--list-sas"])?;
        let known = listed.contains(&format!("EAP: '{OURS}'"));
        self.report.check("charon-knows-our-user", known, OURS);
        let answered = flows(&self.lab.host_b, TAKEN, HOST_A);
        self.report
            .check("our-login-carries-traffic", answered, TAKEN);
        Ok(())
    }

    /// strongSwan is the client, and knows the password.
    fn alice(&mut self) -> Result<String, LabError> {
        self.bench.say("alice logs in");
        let initiated = self
            .peer
            .swanctl(&["--initiate", "--child", "alice", "--timeout", "10"]);
        let sas = self.ours("users")?;
        let sa = sas.first().cloned().unwrap_or_default();
        let up = initiated.is_ok() && sas.len() == 1 && sa["remote_eap_id"] == "alice";
        let detail = match &initiated {
            Ok(_) => format!("{} as {}", sa["authenticated"], sa["remote_eap_id"]),
            Err(error) => error.to_string(),
        };
        self.report.check("charon-logs-in", up, detail);
        let address = sa["remote_vips"][0].as_str().unwrap_or_default().to_owned();
        let fits = address.starts_with("10.3.0.");
        self.report.check("charon-gets-an-address", fits, &*address);
        self.traffic("at-first", &address);
        Ok(address)
    }

    fn traffic(&mut self, moment: &str, address: &str) {
        let answered = flows(&self.lab.peer, address, HOST_B);
        let detail = format!("{address} to {HOST_B}");
        self.report
            .check(&format!("traffic-{moment}"), answered, detail);
    }

    /// A login that fails, whatever the reason: charon reads the same error.
    fn refused(&mut self, user: &str, why: &str) -> Result<(), LabError> {
        self.bench.say(&format!("{user} does not get in"));
        let (ours, theirs) = (self.members[self.active].log().len(), self.peer.log().len());
        let initiated = self
            .peer
            .swanctl(&["--initiate", "--child", user, "--timeout", "5"]);
        let said = self.members[self.active].log();
        let told = said.get(ours..).is_some_and(|said| said.contains(why));
        let read = self.peer.log();
        let error = "ERROR_AUTHENTICATION_FAILURE";
        let read = read.get(theirs..).is_some_and(|read| read.contains(error));
        let users = self.ours("users")?.len();
        let detail = format!("IKE SAs of users: {users}, told {why:?}: {told}, E=691: {read}");
        let passed = initiated.is_err() && users == 1 && told && read;
        self.report
            .check(&format!("refused-{user}"), passed, detail);
        Ok(())
    }

    /// The active member dies under traffic: nobody logs in again.
    fn takeover(&mut self, address: &str) -> Result<(), LabError> {
        self.bench.say("the active member dies");
        let mut stream = Ping::start(&self.lab.peer, HOST_B, INTERVAL, "stream", &self.directory)?;
        stream.wait_for_answer(READY)?;
        let before = self.peer.said("IKE_AUTH");
        let died = self.active;
        self.members[died].keep_status("before")?;
        let moment = self.members[died].kill()?;
        self.active = 1 - died;
        self.members[self.active].wait_until_active(READY)?;
        let sas = self.ours("users")?;
        let kept = sas.len() == 1
            && sas[0]["remote_vips"][0] == address
            && sas[0]["remote_eap_id"] == "alice";
        let detail = sas
            .first()
            .map(|sa| format!("{} at {}", sa["remote_eap_id"], sa["remote_vips"]));
        self.report.check(
            "the-user-outlives-a-member",
            kept,
            detail.unwrap_or_default(),
        );
        let (source, from) = (address.to_owned(), &self.lab.peer);
        clock::until("traffic after the takeover", ANSWER, || {
            Ok(flows(from, &source, HOST_B).then_some(()))
        })?;
        let log = stream.stop()?;
        let late = log.answers.iter().filter(|at| **at > moment).count();
        let detail = format!(
            "{} of {} answered, {late} after it died",
            log.received, log.transmitted
        );
        self.report.check("the-stream-goes-on", late > 5, detail);
        let auth = self.peer.said("IKE_AUTH") - before;
        self.report.no_new_ike_auth(auth);
        Ok(())
    }

    /// What a login began is an IKE SA like any other.
    fn rekeyed(&mut self, address: &str) -> Result<(), LabError> {
        self.bench.say("rekeying, from both sides");
        for side in ["charon-rekeys", "we-rekey"] {
            let first = only_spis(&self.ours("users")?);
            let asked = match side {
                "we-rekey" => self.members[self.active].order(&["rekey", "--ike", "users"]),
                _ => self.peer.swanctl(&["--rekey", "--ike", "alice"]),
            };
            let next = clock::until(side, ANSWER, || {
                let mut sas = self.ours("users")?;
                sas.retain(|sa| sa["remote_eap_id"] == "alice");
                Ok(only_spis(&sas).filter(|now| Some(now) != first.as_ref()))
            });
            let detail = format!("{first:?} -> {:?}", next.as_ref().ok());
            let passed = asked.is_ok() && next.is_ok();
            self.report.check(side, passed, detail);
        }
        self.traffic("after-rekeying", address);
        Ok(())
    }
}
