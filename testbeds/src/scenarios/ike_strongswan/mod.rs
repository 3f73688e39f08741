//! The key exchange and the message layer with strongSwan as the other end, in both roles: every
//! group, cipher and PRF that both have, cookies, another group after INVALID_KE_PAYLOAD, IKE
//! fragments, forced small on both sides, and peers that come twice (`unique.rs`).

mod files;
mod unique;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::files::{ADDITIONAL, LINES, Line};
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
        let mut report = Report::new(SCENARIO.name, variant);
        let how = "left out: this strongSwan is older than 6.0; testbeds/strongswan6 fetches one";
        report.check("additional-key-exchanges", true, how);
        return Ok(report.conclude());
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
    bench.say("strongSwan rekeys every IKE SA");
    trial.rekeyed()?;
    bench.say("the gateway rekeys every IKE SA and Child SA");
    trial.rekeyed_by_us()?;
    if variant == "psk" {
        bench.say("strongSwan comes twice");
        trial.twice()?;
        trial.windows()?;
    }
    trial.judge(variant);
    drop(wire.stop()?);
    trial.decrypted()?;
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
        std::fs::create_dir_all(directory.join(".config/wireshark"))
            .map_err(LabError::io("making the place of the key log"))?;
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
        let mut sas = self.gateway.list_sas()?;
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
        for &Line { name, .. } in self.lines.clone() {
            let (child, _) = self.spis(name)?;
            let asked = self.gateway.order(&["rekey", "--child", name]);
            let next = clock::until("a rekeyed Child SA", ANSWER, || {
                let (now, _) = self.spis(name)?;
                Ok((now.is_some() && now != child).then_some(now))
            });
            let passed = asked.is_ok() && child.is_some() && next.is_ok();
            let detail = format!("{child:?} -> {:?}", next.ok().flatten());
            let check = format!("we-rekey-child-{name}");
            self.report.check(&check, passed, detail);

            let (_, ike) = self.spis(name)?;
            let asked = self.gateway.order(&["rekey", "--ike", name]);
            let next = clock::until("a rekeyed IKE SA", ANSWER, || {
                let (_, now) = self.spis(name)?;
                Ok((now.is_some() && now != ike).then_some(now))
            });
            let passed = asked.is_ok() && ike.is_some() && next.is_ok();
            let detail = format!("{ike:?} -> {:?}", next.ok().flatten());
            let check = format!("we-rekey-{name}");
            self.report.check(&check, passed, detail);
        }
        Ok(())
    }

    /// charon's inbound SPI of a connection's Child SA, and the initiator's SPI of its IKE SA.
    fn spis(&self, name: &str) -> Result<(Option<String>, Option<String>), LabError> {
        let sas = self.peer.list_sas()?;
        let wanted = |sa: &IkeSa| sa.name == name && sa.state == "ESTABLISHED";
        let [sa] = sas.iter().filter(|sa| wanted(sa)).collect::<Vec<_>>()[..] else {
            return Ok((None, None));
        };
        let child = sa.installed().map(|child| child.spi_in.clone());
        Ok((child, Some(sa.initiator_spi.clone())))
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

    /// tshark decrypts what it has a key for, by the daemon's own key log: every message after
    /// IKE_SA_INIT but those of IKE_INTERMEDIATE and of ChaCha20-Poly1305, fragments too.
    fn decrypted(&mut self) -> Result<(), LabError> {
        let capture = self.directory.join("outside.pcap").display().to_string();
        let read = |filter: &str| {
            let mut words = vec!["tshark", "-r", &capture, "-n", "-Y", filter, "-T", "fields"];
            words.extend(["-e", "isakmp.ispi", "-e", "isakmp.enc.iv"]);
            words.extend(["-e", "isakmp.enc.decrypted", "-e", "isakmp.nextpayload"]);
            Program::new(words).env("HOME", &self.directory).run()
        };
        let table = self
            .directory
            .join(".config/wireshark/ikev2_decryption_table");
        let table = std::fs::read_to_string(table).map_err(LabError::io("reading the key log"))?;
        let known = |spi: &str| table.lines().any(|line| line.starts_with(spi));
        let said = read("isakmp.exchangetype in {35,36,37,44}")?;
        let rows: Vec<Vec<&str>> = said.lines().map(|l| l.split('\t').collect()).collect();
        let (mut readable, mut dark) = (0, 0);
        for row in rows.iter().filter(|row| known(row[0])) {
            match row.get(2) {
                Some(decrypted) if !decrypted.is_empty() => readable += 1,
                _ => dark += 1,
            }
        }
        let detail = format!("{readable} messages, {dark} of them not");
        self.report
            .check("tshark-decrypts", readable > 20 && dark == 0, detail);
        let bad = read("isakmp and _ws.expert.message contains \"checksum\"")?;
        self.report
            .check("tshark-verifies", bad.is_empty(), bad.trim());
        let whole = read("isakmp.fragments")?.lines().count();
        let detail = format!("{whole} messages put together of fragments");
        self.report.check("tshark-reassembles", whole > 0, detail);
        Ok(())
    }
}
