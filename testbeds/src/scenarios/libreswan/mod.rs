//! The IKE part with libreswan, in both roles: a pre-shared key and RSA certificates, rekeying of
//! both kinds from both sides, a failover in the middle. libreswan knows no RFC 6311, so that only
//! exact Message IDs carry its IKE SAs over. ESP is left out where the kernel has none.

mod files;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::capture::{Capture, Direction};
use crate::clock;
use crate::error::LabError;
use crate::gateway::{self, Member};
use crate::libreswan::{self, Libreswan};
use crate::process::Program;
use crate::scenario::{Bench, Report, Scenario};
use crate::topology::{CLUSTER_OUTSIDE, OUTSIDE, PEER_OUTSIDE, Topology};
use crate::tshark;

pub const SCENARIO: Scenario = Scenario {
    name: "libreswan",
    about: "IKE with libreswan: PSK and certificates, both roles, rekeying from both sides, failover",
    variants: &["ike"],
    run,
};

const ANSWER: Duration = Duration::from_secs(30);

struct Trial {
    report: Report,
    directory: PathBuf,
    members: [Member; 2],
    active: usize,
    peer: Libreswan,
    /// From the first message on.
    wire: Option<Capture>,
    lab: Topology,
}

fn run(bench: &Bench, variant: &str) -> Result<Report, LabError> {
    let Some(root) = libreswan::root() else {
        let why = "no HITLESS_LIBRESWAN; testbeds/libreswan unpacks one";
        return Ok(Report::skipped(SCENARIO.name, variant, why));
    };
    let directory = bench.subdirectory(SCENARIO.name)?;
    let mut trial = Trial::start(bench, &root, &directory, variant)?;
    bench.say("libreswan initiates");
    trial.inbound()?;
    trial.ordered()?;
    bench.say("the gateway initiates, and rekeys");
    trial.outbound()?;
    trial.cookies_and_fragments()?;
    bench.say("the active member is killed");
    trial.failover()?;
    trial.decrypted()?;
    trial.peer.check_running()?;
    Ok(trial.report.conclude())
}

impl Trial {
    fn start(
        bench: &Bench,
        root: &Path,
        directory: &Path,
        variant: &str,
    ) -> Result<Self, LabError> {
        bench.say("starting the members and pluto");
        let lab = Topology::new()?;
        files::certificates(directory)?;
        let pkcs12 = directory.join("peer.p12");
        let peer = Libreswan::start(root, &lab.peer, directory, files::SECRETS, &pkcs12)?;
        for connection in files::PEER {
            let said = peer.whack(connection)?;
            if !said.contains("added IKEv2 connection") {
                return Err(LabError::Unreadable {
                    what: "whack --name".to_owned(),
                    detail: said,
                });
            }
        }
        peer.whack(&["--ddos-busy"])?;
        let wire = Capture::start(&lab.peer, OUTSIDE, Direction::Both, "before", directory)?;
        let text = |index: usize, own: &Path| files::member(index, own, directory);
        let mut members = gateway::start_pair(&lab, directory, text)?;
        let active = gateway::wait_for_roles(&mut members, ANSWER)?;
        Ok(Self {
            report: Report::new(SCENARIO.name, variant),
            directory: directory.to_owned(),
            members,
            active,
            peer,
            wire: Some(wire),
            lab,
        })
    }

    /// Asks pluto for something, which has to say this of it.
    fn asks(&mut self, name: &str, words: &[&str], wanted: &str) -> Result<(), LabError> {
        let said = self.peer.whack(words)?;
        let line = said.lines().find(|line| line.contains(wanted));
        let detail = line.unwrap_or(&said).to_owned();
        self.report.check(name, line.is_some(), detail.trim());
        Ok(())
    }

    /// The established IKE SA of a connection with a Child SA: IKE SPIs and inbound SPI.
    fn up(&self, connection: &str) -> Result<Option<(String, String)>, LabError> {
        let sas = self.members[self.active].tunnels(connection)?;
        Ok(sas.first().map(|sa| {
            let ike = format!("{}{}", sa["initiator_spi"], sa["responder_spi"]);
            (ike, sa["children"].to_string())
        }))
    }

    fn inbound(&mut self) -> Result<(), LabError> {
        for (name, method) in [
            ("in-psk", "authby=secret"),
            ("in-cert", "RSASSA-PSS with SHA2_256' digital signature"),
        ] {
            let words = ["--name", name, "--initiate"];
            self.asks(&format!("{name}-authenticates"), &words, method)?;
            let up = clock::until(name, ANSWER, || self.up(name));
            let detail = format!("{:?}", up.map(|(ike, _)| ike));
            self.report.check(name, detail.starts_with("Ok"), detail);
            let words = ["--name", name, "--rekey-ipsec"];
            self.asks(&format!("{name}-rekeys-child"), &words, "rekeyed Child SA")?;
            let words = ["--name", name, "--rekey-ike"];
            self.asks(&format!("{name}-rekeys-ike"), &words, "rekeyed IKE SA")?;
        }
        Ok(())
    }

    /// What the gateway starts, and rekeys after some seconds.
    fn outbound(&mut self) -> Result<(), LabError> {
        for name in ["out-psk", "out-cert"] {
            let first = clock::until(name, ANSWER, || self.up(name));
            let detail = format!("{:?}", first.as_ref().map(|(ike, _)| ike));
            self.report.check(name, first.is_ok(), detail);
        }
        self.rekeyed_by_us("rekeyed-by-us");
        for (name, what, word) in [
            ("out-psk", "rekeys-ike", "rekeyed IKE SA"),
            ("out-cert", "rekeys-child", "rekeyed Child SA"),
        ] {
            let order = match what {
                "rekeys-ike" => "--rekey-ike",
                _ => "--rekey-ipsec",
            };
            self.asks(&format!("{name}-{what}"), &["--name", name, order], word)?;
        }
        Ok(())
    }

    /// The operator's orders to rekey what pluto began.
    fn ordered(&mut self) -> Result<(), LabError> {
        for (what, order) in [
            ("IKE SA", ["--ike", "in-psk"]),
            ("Child SA", ["--child", "net"]),
        ] {
            let before = self.rekeyings("in-psk", what).len();
            let said = self.members[self.active].order(&["rekey", order[0], order[1]])?;
            let seen = clock::until("a rekeying by the gateway", ANSWER, || {
                Ok(self.rekeyings("in-psk", what).get(before).cloned())
            });
            let detail = seen.as_ref().map_or_else(ToString::to_string, Clone::clone);
            let check = format!("in-psk-rekeyed-by-us-{}", order[0].trim_start_matches('-'));
            let detail = format!("{} {detail}", said.trim());
            self.report.check(&check, seen.is_ok(), detail);
        }
        Ok(())
    }

    /// pluto answers once more to each rekeying that the gateway begins every few seconds.
    fn rekeyed_by_us(&mut self, check: &str) {
        let rekeyings = [("out-psk", "Child SA"), ("out-cert", "IKE SA")];
        let before = rekeyings.map(|(name, what)| self.rekeyings(name, what).len());
        for ((name, what), before) in rekeyings.into_iter().zip(before) {
            let seen = clock::until("a rekeying by the gateway", ANSWER, || {
                let lines = self.rekeyings(name, what);
                Ok(lines.get(before).cloned())
            });
            let detail = seen.as_ref().map_or_else(ToString::to_string, Clone::clone);
            let name = format!("{name}-{check}");
            self.report.check(&name, seen.is_ok(), detail);
        }
    }

    /// The lines of pluto's log on what the gateway has rekeyed of a connection.
    fn rekeyings(&self, connection: &str, what: &str) -> Vec<String> {
        let said = format!("\"{connection}\"");
        let rekeyed = format!("responder rekeyed {what}");
        let log = self.peer.log();
        let lines = log.lines();
        let found = lines.filter(|line| line.contains(&said) && line.contains(&rekeyed));
        found.map(str::to_owned).collect()
    }

    /// What both ends were made to send.
    fn cookies_and_fragments(&mut self) -> Result<(), LabError> {
        drop(self.wire.take().map(Capture::stop).transpose()?);
        for (whose, source) in [("we", CLUSTER_OUTSIDE), ("it", PEER_OUTSIDE)] {
            for (what, filter) in [
                (
                    "cookies",
                    "isakmp.exchangetype == 34 && isakmp.flag_r == 1 && isakmp.notify.msgtype == 16390",
                ),
                ("fragments", "isakmp.nextpayload == 53"),
            ] {
                let count = self.seen("before", &format!("ip.src == {source} && {filter}"))?;
                let name = format!("{whose}-sent-{what}");
                let detail = format!("{count} messages from {source}");
                self.report.check(&name, count > 1, detail);
            }
        }
        Ok(())
    }

    /// tshark reads all of it, with the key logs of both members.
    fn decrypted(&mut self) -> Result<(), LabError> {
        let listed = self.members.each_ref().map(Member::listed);
        let captures = ["before.pcap", "after.pcap"];
        tshark::judge_cluster(&mut self.report, &self.directory, &captures, &listed, &[])
    }

    /// How many messages of a capture pass a display filter of tshark's.
    fn seen(&self, capture: &str, filter: &str) -> Result<usize, LabError> {
        let file = self.directory.join(format!("{capture}.pcap"));
        let file = file.display().to_string();
        let said = Program::new(["tshark", "-r", &file, "-n", "-Y", filter]).run()?;
        Ok(said.lines().count())
    }

    /// The other member takes over; libreswan goes on, in exchanges that either end begins.
    fn failover(&mut self) -> Result<(), LabError> {
        let wire = Capture::start(
            &self.lab.peer,
            OUTSIDE,
            Direction::Both,
            "after",
            &self.directory,
        )?;
        self.members[self.active].kill()?;
        self.active = 1 - self.active;
        let took = self.members[self.active].wait_until_active(ANSWER);
        self.report
            .check("takeover", took.is_ok(), format!("{took:?}"));
        for name in ["in-psk", "in-cert"] {
            let words = ["--name", name, "--rekey-ipsec"];
            let check = format!("{name}-rekeys-child-after-failover");
            self.asks(&check, &words, "rekeyed Child SA")?;
            let words = ["--name", name, "--rekey-ike"];
            let check = format!("{name}-rekeys-ike-after-failover");
            self.asks(&check, &words, "rekeyed IKE SA")?;
        }
        self.rekeyed_by_us("rekeyed-by-us-after-failover");
        for name in ["in-psk", "in-cert", "out-psk", "out-cert"] {
            let up = clock::until(name, ANSWER, || self.up(name));
            let check = format!("{name}-after-failover");
            self.report
                .check(&check, up.is_ok(), "established, with its Child SA");
        }
        drop(wire.stop()?);
        let count = self.seen("after", "isakmp.exchangetype == 35")?;
        self.report.ike_auth_after_failover = Some(count as u64);
        let detail = format!("{count} messages of IKE_AUTH after the kill");
        self.report.check("no-ike-auth", count == 0, detail);
        Ok(())
    }
}
