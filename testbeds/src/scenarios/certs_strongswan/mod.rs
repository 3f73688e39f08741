//! Certificates and postquantum pre-shared keys with strongSwan as the other end: each kind of key
//! in both roles, and what must be refused. Everything is issued by strongSwan's own `pki` anew.

mod files;
pub(super) mod pki;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::capture::{Capture, Direction};
use crate::clock;
use crate::error::LabError;
use crate::gateway::{self, Member, only_spis};
use crate::process::{self, Program};
use crate::scenario::{Bench, Report, Scenario};
use crate::strongswan::StrongSwan;
use crate::topology::{HOST_B, OUTSIDE, Topology};
use crate::tshark::{TABLE, Tshark};

pub const SCENARIO: Scenario = Scenario {
    name: "certs-strongswan",
    about: "certificates and PPKs with strongSwan in both roles: who is let in, and who is not",
    variants: &["x509", WITHOUT_RFC_7427],
    run: certificates,
};

/// Neither end says SIGNATURE_HASH_ALGORITHMS to the other, as old peers do not: ECDSA then has methods
/// of its own, and RSA nothing but SHA-1.
const WITHOUT_RFC_7427: &str = "without-rfc7427";

const ANSWER: Duration = Duration::from_secs(15);
/// The reauthentication that the gateway starts by itself, and some more.
const REAUTHENTICATED: Duration = Duration::from_secs(20);

/// What strongSwan initiates.
struct Inbound {
    name: &'static str,
    /// What the gateway must say of it; `None` if it must come up.
    refusal: Option<&'static str>,
}

const INBOUND: &[Inbound] = &[
    accepted("ecdsa"),
    accepted("ecdsa384"),
    accepted("rsa-pss"),
    accepted("rsa-pkcs1"),
    accepted("rsa-whole"),
    accepted("ed25519"),
    accepted("both"),
    accepted("subject"),
    accepted("ppk"),
    refused("revoked", "revoked"),
    refused("expired", "expired"),
    refused("stranger", "no chain"),
    refused("wrong-id", "no connection"),
    refused("no-ppk", "PPK"),
];

/// What the gateway initiates, and what it must say of it; `None` if it must come up.
const OUTBOUND: &[(&str, Option<&str>)] = &[
    ("our-ecdsa", None),
    ("our-ecdsa384", None),
    ("our-rsa-pss", None),
    ("our-rsa-pkcs1", None),
    ("our-rsa-whole", None),
    ("our-ed25519", None),
    ("our-both", None),
    ("our-ppk", None),
    ("our-revoked", Some("certificate revoked")),
    ("our-expired", Some("certificate expired")),
    ("our-stranger", Some("no chain")),
];

/// The same without RFC 7427.
const OLD_INBOUND: &[Inbound] = &[
    accepted("ecdsa"),
    accepted("ecdsa384"),
    accepted("both"),
    accepted("ppk"),
    refused("revoked", "revoked"),
    refused("rsa-pss", "SHA-1"),
];
const OLD_OUTBOUND: &[(&str, Option<&str>)] = &[
    ("our-ecdsa", None),
    ("our-ecdsa384", None),
    ("our-both", None),
    ("our-ppk", None),
    ("our-revoked", Some("certificate revoked")),
    ("our-rsa-pss", Some("RFC 7427")),
];

/// The one that the gateway reauthenticates soon.
const REAUTHENTICATES: &str = "our-ecdsa";

const fn accepted(name: &'static str) -> Inbound {
    Inbound {
        name,
        refusal: None,
    }
}

const fn refused(name: &'static str, why: &'static str) -> Inbound {
    Inbound {
        name,
        refusal: Some(why),
    }
}

/// One gateway and one charon, with all connections at once.
struct Trial {
    report: Report,
    directory: PathBuf,
    wire: Capture,
    gateway: Member,
    peer: StrongSwan,
    lab: Topology,
}

fn certificates(bench: &Bench, variant: &str) -> Result<Report, LabError> {
    process::require("pki", "strongswan-pki")?;
    let directory = bench.subdirectory(&format!("{}-{variant}", SCENARIO.name))?;
    bench.say("issuing certificates");
    pki::issue(&directory)?;
    let mut trial = Trial::start(bench, &directory, variant)?;
    bench.say("the gateway initiates");
    let (inbound, outbound) = match variant {
        WITHOUT_RFC_7427 => (OLD_INBOUND, OLD_OUTBOUND),
        _ => (INBOUND, OUTBOUND),
    };
    trial.outbound(outbound)?;
    bench.say("strongSwan initiates");
    trial.inbound(inbound);
    bench.say("reauthentication, from both sides");
    trial.reauthentication()?;
    trial.gateway.check_running()?;
    trial.decrypted()
}

impl Trial {
    fn start(bench: &Bench, directory: &Path, variant: &str) -> Result<Self, LabError> {
        bench.say("starting the gateway and the peer");
        let lab = Topology::new()?;
        let options = match variant {
            WITHOUT_RFC_7427 => "  make_before_break = yes\n  signature_authentication = no\n",
            _ => "  make_before_break = yes\n  rsa_pss = yes\n",
        };
        let conf = files::swanctl();
        let peer = StrongSwan::start_with(&lab.peer, "peer", directory, &conf, options)?;
        let binary = gateway::binary()?;
        let file = gateway::write_configuration(
            directory,
            &gateway::with_key_log(directory, &files::gateway(directory)),
        )?;
        let wire = Capture::start(&lab.peer, OUTSIDE, Direction::Both, "outside", directory)?;
        let shown = binary.display().to_string();
        let file = file.display().to_string();
        let mut report = Report::new(SCENARIO.name, variant);
        let checked = Program::new([&shown, "config", "check", &file]).run();
        let said = match &checked {
            Ok(said) => said.clone(),
            Err(error) => error.to_string(),
        };
        report.check("config-check", checked.is_ok(), said.trim());
        let gateway = Member::run(&binary, &lab.members[0], "gateway", directory, &[])?;
        Ok(Self {
            report,
            directory: directory.to_owned(),
            wire,
            gateway,
            peer,
            lab,
        })
    }

    /// tshark reads all of it, certificates in fragments too.
    fn decrypted(self) -> Result<Report, LabError> {
        let Trial {
            mut report,
            directory,
            wire,
            gateway,
            ..
        } = self;
        gateway.list_sas()?;
        drop(wire.stop()?);
        let table = gateway::key_table(&directory, TABLE);
        let tshark = Tshark::new(directory.join("tshark"), &[table])?;
        let messages = tshark.read(&[directory.join("outside.pcap")])?;
        tshark.judge(&mut report, &gateway.listed(), &messages, &[]);
        Ok(report.conclude())
    }

    fn outbound(&mut self, expected: &[(&str, Option<&str>)]) -> Result<(), LabError> {
        let (up, down): (Vec<_>, Vec<_>) = expected.iter().partition(|(_, why)| why.is_none());
        for (name, _) in up {
            let up = clock::until(name, ANSWER, || {
                Ok(self.gateway.tunnels(name)?.into_iter().next())
            });
            let detail = match &up {
                Ok(sa) => format!(
                    "authenticated by {}, PPK: {}",
                    sa["authenticated"], sa["ppk"]
                ),
                Err(error) => error.to_string(),
            };
            self.report.check(name, up.is_ok(), detail);
        }
        for (name, why) in down {
            let why = why.unwrap_or_default();
            let told = self.gateway.wait_for_output(why, ANSWER).is_ok();
            let none = self.gateway.tunnels(name)?.is_empty();
            self.report
                .check(name, told && none, format!("refused: {why}"));
        }
        Ok(())
    }

    fn inbound(&mut self, expected: &[Inbound]) {
        for Inbound { name, refusal } in expected {
            let before = self.gateway.log().len();
            let initiated = self
                .peer
                .swanctl(&["--initiate", "--child", name, "--timeout", "5"]);
            let said = self
                .gateway
                .log()
                .get(before..)
                .unwrap_or_default()
                .to_owned();
            let up = self.gateway.tunnels(name).is_ok_and(|sas| sas.len() == 1);
            match refusal {
                None => {
                    let detail = match &initiated {
                        Ok(_) => format!("up: {up}"),
                        Err(error) => last_line(&error.to_string()),
                    };
                    self.report.check(name, initiated.is_ok() && up, detail);
                }
                Some(why) => {
                    let told = said.contains(why);
                    let detail = format!("up: {up}, told {why:?}: {told}");
                    let passed = initiated.is_err() && !up && told;
                    self.report.check(name, passed, detail);
                }
            }
        }
        let ping = Program::new(["ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", HOST_B])
            .inside(&self.lab.host_a)
            .run();
        let detail = match &ping {
            Ok(_) => "answered".to_owned(),
            Err(error) => last_line(&error.to_string()),
        };
        self.report.check("ping", ping.is_ok(), detail);
    }

    fn reauthentication(&mut self) -> Result<(), LabError> {
        let first = only_spis(&self.gateway.tunnels(REAUTHENTICATES)?);
        let next = clock::until("a reauthenticated IKE SA", REAUTHENTICATED, || {
            let now = only_spis(&self.gateway.tunnels(REAUTHENTICATES)?);
            Ok(now.filter(|now| Some(now) != first.as_ref()))
        });
        let detail = format!("{first:?} -> {:?}", next.as_ref().ok());
        self.report.check("we-reauthenticate", next.is_ok(), detail);
        let first = only_spis(&self.gateway.tunnels("ecdsa")?);
        let asked = self
            .peer
            .swanctl(&["--rekey", "--ike", "ecdsa", "--reauth"]);
        let next = clock::until("an IKE SA that strongSwan reauthenticated", ANSWER, || {
            let now = only_spis(&self.gateway.tunnels("ecdsa")?);
            Ok(now.filter(|now| Some(now) != first.as_ref()))
        });
        let detail = format!("{first:?} -> {:?}", next.as_ref().ok());
        let passed = asked.is_ok() && first.is_some() && next.is_ok();
        self.report
            .check("strongswan-reauthenticates", passed, detail);
        Ok(())
    }
}

fn last_line(text: &str) -> String {
    let mut lines = text.lines().rev();
    lines
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default()
        .to_owned()
}
