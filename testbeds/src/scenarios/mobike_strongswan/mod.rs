//! MOBIKE (RFC 4555) with us as the initiator and strongSwan as the responder. The active member
//! dies, and the one that takes over is at another address; then an operator gives that one another
//! address still. Each time UPDATE_SA_ADDRESSES tells charon, and the IKE SA goes on without a new
//! IKE_AUTH.

mod files;

use std::time::Duration;

use crate::clock;
use crate::error::LabError;
use crate::gateway::{self, Member};
use crate::ping;
use crate::scenario::{Bench, Report, Scenario};
use crate::stage::Stage;
use crate::strongswan::StrongSwan;
use crate::topology::{CLUSTER_OUTSIDE, HOST_A, HOST_B, Topology};
use crate::tshark::Content;
use files::{SECOND, THIRD};

pub const SCENARIO: Scenario = Scenario {
    name: "mobike-strongswan",
    about: "our address moves while strongSwan is the responder: by a takeover, by a reload",
    variants: &["initiator"],
    run: moves,
};

/// UPDATE_SA_ADDRESSES (RFC 4555 section 4.2.1).
const MOVE: Content = Content::Notify(16400);
const READY: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(15);

struct Trial<'a> {
    stage: Stage<'a>,
}

fn moves(bench: &Bench, variant: &str) -> Result<Report, LabError> {
    let mut trial = Trial::new(bench, variant)?;
    bench.say("the first member initiates");
    trial.arrives("at-first", CLUSTER_OUTSIDE)?;
    let authentications = trial.stage.peer.said("IKE_AUTH");
    trial.rekeyed()?;
    bench.say("the first member dies, the second is at another address");
    trial.takeover()?;
    trial.arrives("after-the-takeover", SECOND)?;
    bench.say("the second member moves");
    trial.reload()?;
    trial.arrives("after-the-reload", THIRD)?;
    let updates = trial.stage.peer.said("N(UPD_SA_ADDR)");
    let told = format!("{updates} messages");
    trial
        .stage
        .report
        .check("charon-is-told", updates >= 2, told);
    let again = trial.stage.peer.said("IKE_AUTH") - authentications;
    trial.stage.report.no_new_ike_auth(again);
    trial.stage.members[1].keep_status("end")?;
    trial.decrypted()
}

impl<'a> Trial<'a> {
    fn new(bench: &'a Bench, variant: &str) -> Result<Self, LabError> {
        let directory = bench.subdirectory(SCENARIO.name)?;
        bench.say("building the network");
        let lab = Topology::new()?;
        bench.say("starting the peer and the cluster");
        let peer = StrongSwan::start_with(&lab.peer, "peer", &directory, &files::swanctl(), "")?;
        let report = Report::new(SCENARIO.name, variant);
        let ends = (lab, peer);
        let mut stage = Stage::start(bench, report, &directory, ends, files::member)?;
        // The first has the higher priority.
        clock::until("the first member as the active one", READY, || {
            stage
                .members
                .iter_mut()
                .try_for_each(Member::check_running)?;
            let roles = [stage.members[0].role()?, stage.members[1].role()?];
            Ok((roles == ["active", "standby"]).then_some(()))
        })?;
        stage.active = 0;
        Ok(Self { stage })
    }

    /// tshark reads all of it, with the key logs of both members.
    fn decrypted(self) -> Result<Report, LabError> {
        self.stage.conclude(&[("tshark-sees-the-move", MOVE)])
    }

    /// charon has one IKE SA, and that with `address`; and traffic flows both ways.
    fn arrives(&mut self, moment: &str, address: &str) -> Result<(), LabError> {
        let there = clock::until("our address at charon", ANSWER, || {
            let sa = self.stage.peer.established()?;
            let here = sa.filter(|sa| sa.remote_host == address && sa.installed().is_some());
            Ok(here)
        });
        let detail = match &there {
            Ok(sa) => format!("{} with {}", sa.initiator_spi, sa.remote_host),
            Err(error) => error.to_string(),
        };
        let name = format!("our-address-{moment}");
        self.stage.report.check(&name, there.is_ok(), detail);
        // kernel-libipsec cannot move an SA: charon replaces the Child SA.
        for (name, from, source, target) in [
            ("traffic-from-us", &self.stage.lab.host_b, HOST_B, HOST_A),
            ("traffic-to-us", &self.stage.lab.host_a, HOST_A, HOST_B),
        ] {
            let flows = clock::until("traffic", ANSWER, || {
                Ok(ping::flows(from, source, target).then_some(()))
            });
            let detail = format!("{source} to {target}");
            self.stage
                .report
                .check(&format!("{name}-{moment}"), flows.is_ok(), detail);
        }
        Ok(())
    }

    /// charon rekeys the IKE SA: we are its initiator still, and may move (RFC 4555 section 1.3).
    fn rekeyed(&mut self) -> Result<(), LabError> {
        self.stage.bench.say("charon rekeys the IKE SA");
        let spis = |member: &Member| -> Result<_, LabError> {
            Ok(gateway::only_spis(&member.established("head")?))
        };
        let first = spis(&self.stage.members[0])?;
        self.stage.peer.swanctl(&["--rekey", "--ike", "branch"])?;
        let next = clock::until("a rekeyed IKE SA", ANSWER, || {
            let now = spis(&self.stage.members[0])?;
            Ok(now.filter(|now| Some(now) != first.as_ref()))
        });
        let detail = format!("{first:?} -> {:?}", next.as_ref().ok());
        self.stage
            .report
            .check("charon-rekeys", next.is_ok(), detail);
        Ok(())
    }

    fn takeover(&mut self) -> Result<(), LabError> {
        clock::until("a standby that has it all", READY, || {
            let sas = self.stage.members[1].list_sas()?;
            Ok((!sas.is_empty()).then_some(()))
        })?;
        self.stage.active_dies().map(drop)
    }

    /// The operator's way: another address in the file, and `hitless reload`.
    fn reload(&mut self) -> Result<(), LabError> {
        let own = self.stage.directory.join("m2");
        let text = files::elsewhere(&files::member(1, &own), THIRD);
        gateway::write_configuration(&own, &text)?;
        let said = self.stage.members[1].order(&["reload"])?;
        self.stage.bench.say(said.trim());
        let kept = said.contains("IKE_SAs that stay: 1");
        self.stage
            .report
            .check("kept-by-the-reload", kept, said.trim());
        Ok(())
    }
}
