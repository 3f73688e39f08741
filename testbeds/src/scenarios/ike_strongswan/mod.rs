//! The key exchange and the message layer with strongSwan as the other end, in both roles: every
//! group, cipher and PRF that both have, cookies, another group after INVALID_KE_PAYLOAD, and IKE
//! fragments, forced small on both sides.

mod files;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::files::{LINES, Line};
use crate::clock;
use crate::error::LabError;
use crate::gateway;
use crate::process::{Process, Program};
use crate::scenario::{Bench, Report, Scenario};
use crate::strongswan::StrongSwan;
use crate::topology::{HOST_B, PEER_OUTSIDE, Topology};

pub const SCENARIO: Scenario = Scenario {
    name: "ike-strongswan",
    about: "every group and cipher, cookies, fragments and group retries with strongSwan, both roles",
    variants: &["psk"],
    run: exchanges,
};

const READY: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(15);
/// The script is written beside the logs: nothing of the tree need be installed.
const HALF_OPEN: &str = include_str!("half_open.py");

/// One gateway and one charon, with all connections at once.
struct Trial {
    report: Report,
    binary: PathBuf,
    socket: PathBuf,
    daemon: Process,
    peer: StrongSwan,
    lab: Topology,
}

fn exchanges(bench: &Bench, variant: &str) -> Result<Report, LabError> {
    let directory = bench.subdirectory(SCENARIO.name)?;
    let mut trial = Trial::start(bench, &directory, variant)?;
    bench.say("the gateway initiates");
    trial.outbound()?;
    bench.say("strongSwan initiates");
    trial.inbound();
    bench.say("strongSwan rekeys every IKE SA");
    trial.rekeyed()?;
    trial.judge();
    trial.daemon.check_running()?;
    Ok(trial.report.conclude())
}

impl Trial {
    fn start(bench: &Bench, directory: &Path, variant: &str) -> Result<Self, LabError> {
        bench.say("starting the gateway and the peer");
        let lab = Topology::new()?;
        let conf = files::swanctl();
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
        let file = directory.join("hitless.toml");
        let socket = directory.join("hitless.sock");
        std::fs::create_dir_all(directory.join("state"))
            .and_then(|()| std::fs::write(&file, files::gateway(directory)))
            .map_err(LabError::io("writing the gateway's configuration"))?;
        let (shown, file) = (binary.display().to_string(), file.display().to_string());
        let daemon = Program::new([&shown, "run", "--config", &file])
            .inside(&lab.members[0])
            .spawn("gateway", directory)?;
        let mut trial = Self {
            report,
            binary,
            socket,
            daemon,
            peer,
            lab,
        };
        clock::until("the gateway's control socket", READY, || {
            trial.daemon.check_running()?;
            Ok(trial.ours().ok().map(drop))
        })?;
        Ok(trial)
    }

    /// `hitless list-sas --json`.
    fn ours(&self) -> Result<Vec<serde_json::Value>, LabError> {
        let binary = self.binary.display().to_string();
        let socket = self.socket.display().to_string();
        let text = Program::new([&binary, "list-sas", "--json", "--socket", &socket]).run()?;
        let unreadable = |detail: String| LabError::Unreadable {
            what: "hitless list-sas --json".to_owned(),
            detail,
        };
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
        let list = value.as_array().or_else(|| value["ike_sas"].as_array());
        list.cloned().ok_or_else(|| unreadable(text))
    }

    /// The one established IKE SA of a connection that has a child: its SPIs and its algorithms.
    fn established(&self, name: &str) -> Result<Option<(String, String)>, LabError> {
        let mut sas = self.ours()?;
        sas.retain(|sa| {
            let child = sa["children"].as_array().is_some_and(|c| !c.is_empty());
            sa["name"] == name && sa["state"] == "ESTABLISHED" && child
        });
        Ok(match sas.as_slice() {
            [sa] => {
                let spis = format!("{}{}", sa["initiator_spi"], sa["responder_spi"]);
                Some((spis, sa["algorithms"].to_string()))
            }
            _ => None,
        })
    }

    fn outbound(&mut self) -> Result<(), LabError> {
        for Line { name, .. } in LINES.iter().filter(|line| line.starts) {
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
        for Line { name, .. } in LINES.iter().filter(|line| !line.starts) {
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

    /// CREATE_CHILD_SA with each group, in fragments too.
    fn rekeyed(&mut self) -> Result<(), LabError> {
        for Line { name, .. } in LINES {
            let first = self.established(name)?.map(|(spis, _)| spis);
            let asked = self.peer.swanctl(&["--rekey", "--ike", name]);
            let next = clock::until("a rekeyed IKE SA", ANSWER, || {
                let now = self.established(name)?.map(|(spis, _)| spis);
                Ok(now.filter(|now| Some(now) != first.as_ref()))
            });
            let detail = format!("{first:?} -> {:?}", next.as_ref().ok());
            let passed = asked.is_ok() && first.is_some() && next.is_ok();
            self.report.check(&format!("rekey-{name}"), passed, detail);
        }
        Ok(())
    }

    /// What charon's log says of the exchanges.
    fn judge(&mut self) {
        let log = self.peer.log();
        let count = |what: &str| log.lines().filter(|line| line.contains(what)).count();
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
