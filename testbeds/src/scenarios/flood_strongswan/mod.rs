//! A flood of forged IKE_SA_INIT requests at running members, inside the namespaces and bounded in
//! number. What was there goes on: traffic, signs of life in both directions, rekeying, the members'
//! heartbeats, so that nobody takes over. And a peer that is no forgery comes in meanwhile.
//!
//! `forged.rs` makes the requests, `files.rs` has the configuration.

mod files;
mod forged;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hitless::audit::pcap::PcapReader;
use hitless::audit::wire::{self, Frame};
use hitless::audit::{Audit, TapId};
use serde_json::Value;

use self::files::{EARLY, LATE, LATE_ADDRESS};
use self::forged::{Forged, THERE};
use crate::capture::{Capture, Direction};
use crate::clock;
use crate::error::LabError;
use crate::gateway::{self, Member};
use crate::ping::{self, Ping, PingLog};
use crate::process::Program;
use crate::scenario::{Bench, Report, Scenario, milliseconds};
use crate::strongswan::StrongSwan;
use crate::topology::{self, CLUSTER_OUTSIDE, HOST_A, HOST_B, OUTSIDE, Topology};

pub const SCENARIO: Scenario = Scenario {
    name: "flood-strongswan",
    about: "forged IKE_SA_INIT at running members: a tunnel to strongSwan lives on, another comes up",
    variants: &["forged"],
    run: flood,
};

const CLUSTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const ANSWER: Duration = Duration::from_secs(10);
/// No more than this, whatever happens; a few thousand a second.
const MOST: u32 = 200_000;
const BURST: u32 = 100;
const PAUSE: Duration = Duration::from_millis(8);
const PING_INTERVAL: Duration = Duration::from_millis(20);
const BOTH_WAYS: Duration = Duration::from_secs(3);
/// Long enough for a sign of life, which charon asks for after whole seconds.
const ONE_WAY: Duration = Duration::from_secs(4);
/// Hosts may hear nothing for so long.
const SILENCE: Duration = Duration::from_secs(1);
/// Of a hundred pings so many may be lost: two cores carry the flood, both ends and all captures.
const LOSS: u64 = 10;
const COOKIE: [u8; 2] = 16390_u16.to_be_bytes();

struct Trial<'a> {
    bench: &'a Bench,
    directory: PathBuf,
    /// Processes before namespaces: fields are dropped in this order.
    members: [Member; 2],
    active: usize,
    peer: StrongSwan,
    wire: Capture,
    lab: Topology,
}

/// What was seen while the flood went on.
struct Seen {
    began: Duration,
    ended: Duration,
    pings: [PingLog; 2],
    /// To the cluster, then from it.
    one_way: [(Duration, Duration); 2],
    rekeyed: Result<String, String>,
    late: Result<String, String>,
}

fn flood(bench: &Bench, variant: &str) -> Result<Report, LabError> {
    let mut trial = Trial::new(bench)?;
    let before = trial.standing()?;
    let forged = trial.forged()?;
    let over = AtomicBool::new(false);
    let lab = &trial.lab;
    let (sent, seen) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(lab, &forged, &over));
        let seen = trial.live();
        over.store(true, Ordering::Relaxed);
        let sent = sender.join().unwrap_or(Err(LabError::Interrupted));
        (sent, seen)
    });
    let (sent, seen) = (sent?, seen?);
    trial
        .members
        .iter_mut()
        .try_for_each(Member::check_running)?;
    let after = trial.standing()?;
    let mut report = Report::new(SCENARIO.name, variant);
    judge_standing(&mut report, &before, &after);
    judge_seen(&mut report, &seen);
    let capture = trial.wire.stop()?;
    judge_wire(&mut report, &capture, sent, &seen)?;
    Ok(report.conclude())
}

/// The flood: bursts until enough is enough.
fn send(lab: &Topology, forged: &Forged, over: &AtomicBool) -> Result<u64, LabError> {
    let mut sent = 0;
    for first in (0..MOST).step_by(BURST as usize) {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let frames: Vec<Vec<u8>> = (first..first + BURST).map(|n| forged.frame(n)).collect();
        sent += topology::inject(&lab.peer, OUTSIDE, frames.iter().map(Vec::as_slice))?;
        clock::pass(PAUSE)?;
    }
    Ok(sent)
}

/// Who leads, since when, and what charon has.
struct Standing {
    roles: [String; 2],
    epochs: [String; 2],
    healthy: [bool; 2],
    /// It has one IKE SA with that name, and a Child SA on it.
    carries: bool,
    authentications: usize,
}

impl<'a> Trial<'a> {
    fn new(bench: &'a Bench) -> Result<Self, LabError> {
        let directory = bench.subdirectory(SCENARIO.name)?;
        bench.say("building the network");
        let lab = Topology::new()?;
        // Addresses of the forgers that can be found, and that of the second tunnel.
        lab.peer
            .ip(&["route", "add", "local", THERE, "dev", "lo"])?;
        lab.peer.address("lo", &format!("{LATE_ADDRESS}/32"))?;
        let wire = Capture::start(&lab.peer, OUTSIDE, Direction::Both, "outside", &directory)?;
        bench.say("starting the cluster and the peer");
        let mut members = gateway::start_pair(&lab, &directory, files::member)?;
        let active = gateway::wait_for_roles(&mut members, ANSWER)?;
        let peer = StrongSwan::start_with(&lab.peer, "peer", &directory, &files::swanctl(), "")?;
        peer.swanctl(&["--initiate", "--child", EARLY.0, "--timeout", "10"])?;
        Ok(Self {
            bench,
            directory,
            members,
            active,
            peer,
            wire,
            lab,
        })
    }

    fn standing(&self) -> Result<Standing, LabError> {
        let status = [self.members[0].status()?, self.members[1].status()?];
        let word =
            |status: &Value, name: &str| status[name].as_str().unwrap_or_default().to_owned();
        let mut sas = self.peer.list_sas()?;
        sas.retain(|sa| sa.name == EARLY.0 && sa.state == "ESTABLISHED");
        Ok(Standing {
            roles: status.each_ref().map(|status| word(status, "role")),
            epochs: status.each_ref().map(|status| word(status, "epoch")),
            healthy: status
                .each_ref()
                .map(|s| s["members"][0]["healthy"] == true),
            carries: matches!(&sas[..], [sa] if sa.installed().is_some()),
            authentications: self.peer.said("IKE_AUTH request"),
        })
    }

    /// The cluster's station, as the peer has learned it, and the peer's own.
    fn forged(&self) -> Result<Forged, LabError> {
        let neighbour = self.lab.peer.ip(&["neigh", "show", CLUSTER_OUTSIDE])?;
        let own = Program::new(["cat", &format!("/sys/class/net/{OUTSIDE}/address")]);
        let own = own.inside(&self.lab.peer).run()?;
        let mut words = neighbour
            .split_whitespace()
            .skip_while(|word| *word != "lladdr");
        match (words.nth(1).and_then(station), station(own.trim())) {
            (Some(there), Some(here)) => Ok(Forged {
                stations: [there, here],
                to: CLUSTER,
            }),
            _ => Err(LabError::Unreadable {
                what: "a station's address".to_owned(),
                detail: format!("{neighbour} and {own}"),
            }),
        }
    }

    /// What honest ends do meanwhile.
    fn live(&self) -> Result<Seen, LabError> {
        let began = clock::wall();
        self.bench.say("forged requests; pinging both ways");
        let mut pings = [self.ping(0, "ping-a-to-b")?, self.ping(1, "ping-b-to-a")?];
        for ping in &mut pings {
            ping.wait_for_answer(ANSWER)?;
        }
        clock::pass(BOTH_WAYS)?;
        self.bench.say("both ends rekey");
        let by_charon = self.peer.swanctl(&["--rekey", "--child", EARLY.0]);
        let by_us = self.members[self.active].order(&["rekey", "--ike", EARLY.0]);
        let rekeyed = match (by_charon, by_us) {
            (Ok(_), Ok(_)) => self.rekeyed(),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        self.bench.say("another peer comes in");
        let late = self.late();
        let [a, b] = pings;
        let pings = [a.stop()?, b.stop()?];
        let one_way = [self.one_way(0)?, self.one_way(1)?];
        Ok(Seen {
            began,
            ended: clock::wall(),
            pings,
            one_way,
            rekeyed: rekeyed.map_err(|error| error.to_string()),
            late: late.map_err(|error| error.to_string()),
        })
    }

    fn ping(&self, from: usize, name: &str) -> Result<Ping, LabError> {
        let (host, target) = match from {
            0 => (&self.lab.host_a, HOST_B),
            _ => (&self.lab.host_b, HOST_A),
        };
        Ping::start(host, target, PING_INTERVAL, name, &self.directory)
    }

    fn rekeyed(&self) -> Result<String, LabError> {
        clock::until("new SAs at charon", ANSWER, || {
            let log = self.peer.log();
            let child = log.contains(&format!("outbound CHILD_SA {}{{2}} established", EARLY.0));
            let ike = log.contains("IKE_SA early[2] rekeyed between");
            Ok(
                (child && ike)
                    .then(|| "a Child SA by charon, the IKE SA by the cluster".to_owned()),
            )
        })
    }

    fn late(&self) -> Result<String, LabError> {
        let (name, _) = LATE;
        let words = ["--initiate", "--child", name, "--timeout", "8"];
        self.peer.swanctl(&words)?;
        let cookies = self.peer.said("N(COOKIE)");
        let flows = ping::flows(&self.lab.peer, LATE_ADDRESS, HOST_B);
        match flows {
            true => Ok(format!(
                "its traffic flows; {cookies} messages with a cookie"
            )),
            false => Err(LabError::Unreadable {
                what: "traffic of the second tunnel".to_owned(),
                detail: "none".to_owned(),
            }),
        }
    }

    /// Traffic from one host alone: the end that hears nothing asks for a sign of life (RFC 7296
    /// section 2.4).
    fn one_way(&self, speaker: usize) -> Result<(Duration, Duration), LabError> {
        let (silent, other) = match speaker {
            0 => (&self.lab.host_b, HOST_A),
            _ => (&self.lab.host_a, HOST_B),
        };
        self.lab.mute(silent, other)?;
        let start = clock::wall();
        let ping = self.ping(speaker, &format!("ping-one-way-{speaker}"))?;
        clock::pass(ONE_WAY)?;
        ping.stop()?;
        self.lab.unmute(silent, other)?;
        Ok((start, clock::wall()))
    }
}

/// `02:00:00:00:00:01`
fn station(text: &str) -> Option<[u8; 6]> {
    let octets: Option<Vec<u8>> = text
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16).ok())
        .collect();
    octets?.try_into().ok()
}

/// Nobody took over, and nobody thinks that another is gone; charon has the IKE SA that it had, under
/// new SPIs, for we have rekeyed it.
fn judge_standing(report: &mut Report, before: &Standing, after: &Standing) {
    let same = before.roles == after.roles && before.epochs == after.epochs;
    let detail = format!(
        "{:?} in epochs {:?}, then {:?} in {:?}",
        before.roles, before.epochs, after.roles, after.epochs
    );
    report.check("no-takeover", same, detail);
    let healthy = after.healthy == [true, true];
    let detail = format!("each hears the other: {:?}", after.healthy);
    report.check("heartbeats", healthy, detail);
    // One more: that of the peer that came in.
    let again = after.authentications - before.authentications;
    let detail = format!("{again} new IKE_AUTH requests, of which one is the other peer's");
    let kept = before.carries && after.carries && again <= 1;
    report.check("no-new-ike-auth", kept, detail);
}

fn judge_seen(report: &mut Report, seen: &Seen) {
    let mut longest = Duration::ZERO;
    for (name, log) in ["pings-a-to-b", "pings-b-to-a"].iter().zip(&seen.pings) {
        let silence = log.longest_gap_after(seen.began);
        let detail = format!(
            "{} sent, {} lost, longest silence {:?}",
            log.transmitted,
            log.lost(),
            silence
        );
        let few = log.lost() * 100 <= log.transmitted * LOSS;
        let flows = few && silence.is_some_and(|silence| silence <= SILENCE);
        report.check(name, flows, detail);
        longest = longest.max(silence.unwrap_or(Duration::MAX));
    }
    report.outage_ms = Some(milliseconds(longest));
    report.packets_lost = Some(seen.pings.iter().map(PingLog::lost).sum());
    for (name, outcome) in [("rekeyed", &seen.rekeyed), ("a-peer-comes-in", &seen.late)] {
        let detail = outcome.as_ref().unwrap_or_else(|error| error);
        report.check(name, outcome.is_ok(), detail.clone());
    }
}

/// What the capture has of the flood, of the answers to it, and of signs of life.
fn judge_wire(report: &mut Report, capture: &[u8], sent: u64, seen: &Seen) -> Result<(), LabError> {
    let mut audit = Audit::default();
    let (mut forged, mut cookies, mut served) = (0_u64, 0_u64, 0_u64);
    let unreadable = |error: &dyn std::fmt::Display| LabError::Unreadable {
        what: "the capture".to_owned(),
        detail: error.to_string(),
    };
    for record in PcapReader::new(capture).map_err(|error| unreadable(&error))? {
        let record = record.map_err(|error| unreadable(&error))?;
        let Frame::Ike(ike) = wire::decode(record.frame) else {
            continue;
        };
        let strange = |address: IpAddr| ![CLUSTER.into(), PEER.into()].contains(&address);
        if strange(ike.source) {
            forged += 1;
        } else if strange(ike.destination) {
            // A notification alone, or the payloads of a responder that has done the work.
            match ike.message.get(16) {
                Some(41) if ike.message.get(34..36) == Some(&COOKIE) => cookies += 1,
                _ => served += 1,
            }
        } else {
            audit.observe(TapId(0), record.time, record.frame);
        }
    }
    let seconds = seen.ended.saturating_sub(seen.began).as_secs_f64();
    let rate = forged as f64 / seconds;
    let detail = format!(
        "{forged} forged requests of {sent} in {seconds:.1} s ({rate:.0} a second): {cookies} \
         answered with a cookie, {served} otherwise"
    );
    // It outlasted what was tried under it. Few are served; of the others those are asked for a cookie
    // whose station is found, while so many wait for the answers of stations that are not there.
    let whole = forged == sent && sent > 10_000 && sent < u64::from(MOST);
    let flooded = whole && cookies > 100 && served * 20 < forged;
    report.check("flooded", flooded, detail);
    let audit = audit.report();
    let [to_cluster, from_cluster] = seen.one_way;
    report.liveness("liveness-by-peer", &audit, PEER.into(), to_cluster);
    report.liveness("liveness-by-cluster", &audit, CLUSTER.into(), from_cluster);
    Ok(())
}
