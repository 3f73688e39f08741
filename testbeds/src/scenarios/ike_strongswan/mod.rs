//! The key exchange and the message layer with strongSwan as the other end, in both roles: every
//! group, cipher and PRF that both have, cookies, another group after INVALID_KE_PAYLOAD, IKE
//! fragments, forced small on both sides, peers that come twice (`unique.rs`), and peers that are
//! sent elsewhere (`redirect.rs`).

mod decrypt;
mod files;
mod redirect;
mod unique;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::files::{ADDITIONAL, LINES, Line, NARROW};
use crate::capture::{Capture, Direction};
use crate::clock;
use crate::error::LabError;
use crate::gateway::{self, Member};
use crate::process::Program;
use crate::scenario::{Bench, Report, Scenario};
use crate::strongswan::{self, IkeSa, StrongSwan};
use crate::topology::{HOST_B, OUTSIDE, PEER_OUTSIDE, Topology};

pub const SCENARIO: Scenario = Scenario {
    name: "ike-strongswan",
    about: "every group and cipher, cookies, fragments and group retries with strongSwan, both roles",
    variants: &["psk", "rfc9370"],
    run: exchanges,
};

const ANSWER: Duration = Duration::from_secs(15);
/// The script is written beside the logs: nothing of the tree need be installed.
const HALF_OPEN: &str = include_str!("half_open.py");

/// What tells an SA from its successor.
type SpiOf = fn(&IkeSa) -> Option<String>;

/// One gateway and one charon, with all connections at once.
struct Trial {
    lines: Vec<&'static Line>,
    report: Report,
    directory: PathBuf,
    gateway: Member,
    peer: StrongSwan,
    lab: Topology,
}

fn exchanges(bench: &Bench, variant: &str) -> Result<Report, LabError> {
    let lines: Vec<&Line> = match variant {
        "psk" => LINES.iter().collect(),
        _ => {
            let mlkem = strongswan::knows("strongSwan with ML-KEM", b"EVP_PKEY_encapsulate");
            ADDITIONAL
                .iter()
                .filter(|line| mlkem || !line.mlkem)
                .collect()
        }
    };
    if variant == "rfc9370" && !strongswan::knows("strongSwan 6", b"IKE_FOLLOWUP_KE") {
        let why = "this strongSwan is older than 6.0; testbeds/strongswan6 fetches one";
        return Ok(Report::skipped(SCENARIO.name, variant, why));
    }
    let directory = bench.subdirectory(&format!("{}-{variant}", SCENARIO.name))?;
    let mut trial = Trial::start(bench, &directory, variant, lines)?;
    let wire = Capture::start(
        &trial.lab.peer,
        OUTSIDE,
        Direction::Both,
        "outside",
        &directory,
    )?;
    bench.say("the gateway initiates");
    trial.outbound()?;
    bench.say("strongSwan initiates");
    trial.inbound();
    trial.narrowed()?;
    bench.say("strongSwan rekeys every IKE SA");
    trial.rekeyed()?;
    bench.say("the gateway rekeys every IKE SA and Child SA");
    trial.rekeyed_by_us()?;
    if variant == "psk" {
        bench.say("strongSwan comes twice");
        trial.twice()?;
        trial.windows()?;
        bench.say("each end sends the other one elsewhere");
        trial.redirected()?;
    }
    trial.judge(variant);
    drop(wire.stop()?);
    trial.decrypted(variant)?;
    if variant == "psk" {
        trial.dissected()?;
    }
    trial.gateway.check_running()?;
    Ok(trial.report.conclude())
}

impl Trial {
    fn start(
        bench: &Bench,
        directory: &Path,
        variant: &str,
        lines: Vec<&'static Line>,
    ) -> Result<Self, LabError> {
        bench.say("starting the gateway and the peer");
        let lab = Topology::new()?;
        let conf = files::swanctl(&lines);
        let peer = StrongSwan::start_with(&lab.peer, "peer", directory, &conf, &files::options())?;
        let script = directory.join("half_open.py");
        std::fs::write(&script, HALF_OPEN).map_err(LabError::io("writing the script"))?;
        let mut report = Report::new(SCENARIO.name, variant);
        // To itself: charon is busy from now on, and asks everybody for a cookie.
        let half_open = Program::new(["python3", &script.display().to_string(), PEER_OUTSIDE])
            .inside(&lab.peer)
            .run()?;
        report.check("half-open", true, half_open.trim());
        let binary = gateway::binary()?;
        gateway::write_configuration(directory, &files::gateway(directory, &lines))?;
        let gateway = Member::run(&binary, &lab.members[0], "gateway", directory, &[])?;
        Ok(Self {
            lines,
            report,
            directory: directory.to_owned(),
            gateway,
            peer,
            lab,
        })
    }

    /// The one established IKE SA of a connection that has a child: its SPIs and its algorithms.
    fn established(&self, name: &str) -> Result<Option<(String, String)>, LabError> {
        Ok(match self.gateway.tunnels(name)?.as_slice() {
            [sa] => {
                let spis = format!("{}{}", sa["initiator_spi"], sa["responder_spi"]);
                Some((spis, sa["algorithms"].to_string()))
            }
            _ => None,
        })
    }

    fn outbound(&mut self) -> Result<(), LabError> {
        for Line { name, .. } in self.lines.clone().iter().filter(|line| line.starts) {
            let up = clock::until(name, ANSWER, || self.established(name));
            let detail = match &up {
                Ok((_, algorithms)) => algorithms.clone(),
                Err(error) => error.to_string(),
            };
            self.report.check(name, up.is_ok(), detail);
        }
        Ok(())
    }

    fn inbound(&mut self) {
        for Line { name, .. } in self.lines.clone().iter().filter(|line| !line.starts) {
            let words = ["--initiate", "--child", name, "--timeout", "5"];
            let initiated = self.peer.swanctl(&words);
            let up = self.established(name).ok().flatten();
            let detail = match (&initiated, &up) {
                (Ok(_), Some((_, algorithms))) => algorithms.clone(),
                (Ok(_), None) => "not up here".to_owned(),
                (Err(error), _) => error.to_string(),
            };
            let passed = initiated.is_ok() && up.is_some();
            self.report.check(name, passed, detail);
        }
        let ping = Program::new(["ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", HOST_B])
            .inside(&self.lab.host_a)
            .run();
        let detail = ping
            .as_ref()
            .map_or_else(ToString::to_string, |_| "answered".to_owned());
        self.report.check("ping", ping.is_ok(), detail);
    }

    /// What is left of the selectors that the responder narrowed (RFC 7296 section 2.9).
    fn narrowed(&mut self) -> Result<(), LabError> {
        for Line { name, .. } in self.lines.clone().iter().filter(|line| line.narrowed) {
            let sas = self.gateway.tunnels(name)?;
            let ours = sas
                .first()
                .map(|sa| sa["children"][0]["local_ts"].to_string());
            let detail = ours.unwrap_or_default();
            let narrow = detail.contains(NARROW);
            self.report.check(&format!("{name}-to"), narrow, detail);
        }
        Ok(())
    }

    /// CREATE_CHILD_SA with each group, in fragments too.
    fn rekeyed(&mut self) -> Result<(), LabError> {
        for &Line { name, rekeys, .. } in self.lines.clone() {
            let first = self.established(name)?.map(|(spis, _)| spis);
            let asked = self.peer.swanctl(&["--rekey", "--ike", name]);
            let next = clock::until("a rekeyed IKE SA", ANSWER, || {
                let now = self.established(name)?.map(|(spis, _)| spis);
                Ok(now.filter(|now| Some(now) != first.as_ref()))
            });
            let detail = format!("{first:?} -> {:?}", next.as_ref().ok());
            let passed = asked.is_ok() && first.is_some() && next.is_ok();
            self.report.check(&format!("rekey-{name}"), passed, detail);
            if rekeys {
                let child = self.peer.swanctl(&["--rekey", "--child", name]);
                let detail = child
                    .as_ref()
                    .map_or_else(ToString::to_string, Clone::clone);
                let name = format!("rekey-child-{name}");
                self.report.check(&name, child.is_ok(), detail.trim());
            }
        }
        Ok(())
    }

    /// The same from this end.
    fn rekeyed_by_us(&mut self) -> Result<(), LabError> {
        let kinds: [(&str, &str, SpiOf); 2] = [
            ("--child", "we-rekey-child", |sa| {
                sa.installed().map(|child| child.spi_in.clone())
            }),
            ("--ike", "we-rekey", |sa| Some(sa.initiator_spi.clone())),
        ];
        for &Line { name, .. } in self.lines.clone() {
            for (kind, check, spi) in kinds {
                let first = self.only(name)?.as_ref().and_then(spi);
                let asked = self.gateway.order(&["rekey", kind, name]);
                let next = clock::until("an SA that we rekeyed", ANSWER, || {
                    let now = self.only(name)?.as_ref().and_then(spi);
                    Ok(now.filter(|now| Some(now) != first.as_ref()))
                });
                let passed = asked.is_ok() && first.is_some() && next.is_ok();
                let detail = format!("{first:?} -> {:?}", next.ok());
                self.report
                    .check(&format!("{check}-{name}"), passed, detail);
            }
        }
        Ok(())
    }

    /// charon's one established IKE SA of a connection.
    fn only(&self, name: &str) -> Result<Option<IkeSa>, LabError> {
        let mut sas = self.peer.list_sas()?;
        sas.retain(|sa| sa.name == name && sa.state == "ESTABLISHED");
        Ok(if sas.len() == 1 { sas.pop() } else { None })
    }

    /// What charon's log says of the exchanges.
    fn judge(&mut self, variant: &str) {
        let log = self.peer.log();
        let count = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        if variant != "psk" {
            let exchanges = count("IKE_INTERMEDIATE") + count("IKE_FOLLOWUP_KE");
            let detail = format!("{exchanges} messages of additional key exchanges");
            return self
                .report
                .check("additional-key-exchanges", exchanges > 20, detail);
        }
        let long = LINES.iter().filter(|line| line.long).count();
        let starts = LINES.iter().filter(|line| line.starts).count();
        let inbound = LINES
            .iter()
            .filter(|line| line.retries && !line.starts)
            .count();
        let outbound = LINES
            .iter()
            .filter(|line| line.retries && line.starts)
            .count();
        for (name, what, least) in [
            ("it-sends-fragments", "splitting IKE message", long),
            ("it-gets-fragments", "received fragment #", 2 * long),
            (
                "it-asks-for-cookies",
                "generating IKE_SA_INIT response 0 [ N(COOKIE) ]",
                starts,
            ),
            (
                "we-ask-for-cookies",
                "parsed IKE_SA_INIT response 0 [ N(COOKIE) ]",
                LINES.len() - starts,
            ),
            (
                "it-refuses-a-group",
                "generating IKE_SA_INIT response 0 [ N(INVAL_KE) ]",
                outbound,
            ),
            (
                "we-refuse-a-group",
                "parsed IKE_SA_INIT response 0 [ N(INVAL_KE) ]",
                inbound,
            ),
        ] {
            let found = count(what);
            let detail = format!("{found} times {what:?}, at least {least}");
            self.report.check(name, found >= least, detail);
        }
    }
}
