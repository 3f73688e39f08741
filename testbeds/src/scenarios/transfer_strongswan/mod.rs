//! ESP in UDP to strongSwan's userspace ESP, in tunnel mode: pings, datagrams and a stream of every
//! size around the MTU, both ways, before and after strongSwan rekeys. strongSwan is told to force
//! encapsulation (`encap = yes`); its kernel-libipsec does nothing else.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hitless::audit::{Audit, TapId};

use crate::capture::{Capture, Direction};
use crate::clock;
use crate::error::LabError;
use crate::gateway::{self, Member};
use crate::netns::Namespace;
use crate::process::{Process, Program};
use crate::scenario::{Bench, Report, Scenario};
use crate::strongswan::{self, StrongSwan};
use crate::topology::{
    CLUSTER_NETWORK, CLUSTER_OUTSIDE, HOST_A, HOST_B, OUTSIDE, PEER_NETWORK, PEER_OUTSIDE,
    Topology, V4,
};

pub const SCENARIO: Scenario = Scenario {
    name: "transfer-strongswan",
    about: "packets of every size around the MTU through ESP in UDP, to strongSwan and back",
    variants: &[
        "aes256gcm16",
        "chacha20poly1305",
        "aes128-sha256",
        "aes192-sha384",
        "aes256-sha512",
    ],
    run: transfer,
};

const PROPOSALS: &str = "aes128gcm16-prfsha256-x25519";
const SECRET: &str = "not-so-secret-psk-0123456789";
const PEER_ID: &str = "peer.test";
const CLUSTER_ID: &str = "cluster.test";
/// Long enough to stay out of the way.
const DPD_DELAY: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(10);
/// The script is written beside the logs: nothing of the tree need be installed.
const SCRIPT: &str = include_str!("transfer.py");
/// Payloads of pings that may be fragmented on the way.
const PINGS: &[u16] = &[
    0, 1, 48, 49, 1000, 1372, 1373, 1400, 1414, 1415, 1472, 1473, 3000,
];
/// Payloads of datagrams: an empty one, one block more or less, and around each MTU on the way:
/// 1400 of strongSwan's TUN, 1500 less ESP in UDP, and 1500.
const DATAGRAMS: &str = "1,2,15,16,17,47,48,49,100,1000,1371,1372,1373,1380,1400,1408,1409,1410,\
                         1411,1412,1413,1414,1415,1416,1417,1418,1420,1471,1472,1473,1500,2000,4000";
/// The payload of a ping that fits into 1500 octets and not into the tunnel.
const TOO_LONG: &str = "1472";

struct Trial<'a> {
    bench: &'a Bench,
    directory: PathBuf,
    script: String,
    report: Report,
    /// Processes before namespaces: fields are dropped in this order.
    servers: Vec<Process>,
    _members: [Member; 2],
    peer: StrongSwan,
    outside: Capture,
    lab: Topology,
}

fn transfer(bench: &Bench, variant: &str) -> Result<Report, LabError> {
    let mut trial = Trial::new(bench, variant)?;
    trial.both_ways("before")?;
    trial.rekey()?;
    trial.both_ways("after-rekey")?;
    trial.judge()
}

impl<'a> Trial<'a> {
    fn new(bench: &'a Bench, esp_proposals: &str) -> Result<Self, LabError> {
        let directory = bench.subdirectory(&format!("{}-{esp_proposals}", SCENARIO.name))?;
        let script = directory.join("transfer.py");
        std::fs::write(&script, SCRIPT).map_err(LabError::io("writing the script"))?;
        let script = script.display().to_string();
        bench.say("building the network");
        let lab = Topology::new()?;
        let at = directory.as_path();
        let outside = Capture::start(&lab.peer, OUTSIDE, Direction::Both, "outside", at)?;
        bench.say("starting the gateway and the peer");
        let members = start_members(&lab, at, esp_proposals)?;
        let peer = start_peer(&lab, at, esp_proposals)?;
        peer.initiate()?;
        let serve = |host: &Namespace, address, name| {
            let mut server = Program::new(["python3", &script, "serve", address])
                .inside(host)
                .spawn(name, at)?;
            server.wait_for_output("serving", ANSWER)?;
            Ok::<_, LabError>(server)
        };
        let servers = vec![
            serve(&lab.host_a, HOST_A, "server-a")?,
            serve(&lab.host_b, HOST_B, "server-b")?,
        ];
        Ok(Self {
            bench,
            report: Report::new(SCENARIO.name, esp_proposals),
            servers,
            _members: members,
            peer,
            outside,
            lab,
            script,
            directory,
        })
    }

    fn both_ways(&mut self, moment: &str) -> Result<(), LabError> {
        for (from, way) in [(0, "to-the-cluster"), (1, "from-the-cluster")] {
            self.bench.say(&format!("{moment}: {way}"));
            let (host, target) = match from {
                0 => (&self.lab.host_a, HOST_B),
                _ => (&self.lab.host_b, HOST_A),
            };
            let unanswered = unanswered(host, target);
            let too_long = Program::new([
                "ping", "-n", "-M", "do", "-c", "1", "-W", "1", "-s", TOO_LONG, target,
            ]);
            let told = match too_long.inside(host).run() {
                // Not forced to fit: the MTU of the path was forgotten or never told.
                Ok(said) => (false, said),
                Err(error) => (
                    error.to_string().to_lowercase().contains("mtu"),
                    error.to_string(),
                ),
            };
            let sent = Program::new(["python3", &self.script, "client", target, DATAGRAMS])
                .inside(host)
                .run();
            let (passed, said) = match sent {
                Ok(said) => (true, said),
                Err(error) => (false, error.to_string()),
            };
            let all = format!("{} sizes, unanswered: {unanswered:?}", PINGS.len());
            let name = |what: &str| format!("{what}-{way}-{moment}");
            self.report
                .check(&name("pings"), unanswered.is_empty(), all);
            let last = told
                .1
                .lines()
                .find(|line| line.contains("mtu"))
                .unwrap_or(&told.1);
            self.report.check(&name("mtu-told"), told.0, last.trim());
            self.report
                .check(&name("transfer"), passed, said.trim().replace('\n', "; "));
        }
        Ok(())
    }

    fn rekey(&mut self) -> Result<(), LabError> {
        self.bench.say("strongSwan rekeys the Child SA");
        let spi = |peer: &StrongSwan| {
            let sa = peer.established()?;
            let child = sa.as_ref().and_then(|sa| sa.installed());
            Ok::<_, LabError>(child.map(|child| child.spi_in.clone()))
        };
        let old = spi(&self.peer)?;
        self.peer
            .swanctl(&["--rekey", "--child", strongswan::CHILD])?;
        let new = clock::until("a new Child SA", ANSWER, || {
            Ok(spi(&self.peer)?.filter(|new| Some(new) != old.as_ref()))
        });
        let detail = format!("{old:?} -> {:?}", new.as_ref().ok());
        self.report
            .check("rekeyed", old.is_some() && new.is_ok(), detail);
        Ok(())
    }

    /// What the wire shows: ESP in UDP and nothing of the hosts in clear, no number twice.
    fn judge(mut self) -> Result<Report, LabError> {
        for server in &mut self.servers {
            server.check_running()?;
        }
        let file = self.outside.stop()?;
        let mut audit = Audit::default();
        let read = audit.observe_pcap(TapId(0), &file);
        read.map_err(|error| LabError::Unreadable {
            what: self.directory.join("outside.pcap").display().to_string(),
            detail: error.to_string(),
        })?;
        let wire = audit.report();
        let bare = wire.streams.values().filter(|s| !s.encapsulated).count();
        let encapsulated = bare == 0 && wire.streams.len() >= 4;
        let report = &mut self.report;
        report.check(
            "all-esp-in-udp",
            encapsulated,
            format!("{} SAs, {bare} of them without UDP", wire.streams.len()),
        );
        let repeated = wire.repeated_sequence_numbers();
        report.repeated_sequence_numbers = Some(repeated);
        let packets = format!("{repeated} of {} packets", wire.esp_packets());
        report.check(
            "no-number-twice",
            repeated == 0 && wire.esp_packets() > 0,
            packets,
        );
        let leaked = wire.leaked(|address| match address {
            IpAddr::V4(address) => address.octets()[0] == 10,
            IpAddr::V6(_) => false,
        });
        report.check("nothing-in-clear", leaked == 0, format!("{leaked} packets"));
        let malformed = format!("{:?}", wire.malformed);
        report.check("nothing-malformed", wire.malformed.is_empty(), malformed);
        Ok(self.report.conclude())
    }
}

/// The sizes of which not every ping was answered.
fn unanswered(host: &Namespace, target: &str) -> Vec<u16> {
    let lost = |size: &&u16| {
        let size = size.to_string();
        let ping = Program::new([
            "ping", "-n", "-M", "dont", "-c", "4", "-i", "0.01", "-W", "2", "-s", &size, target,
        ]);
        !ping
            .inside(host)
            .run()
            .is_ok_and(|said| said.contains(" 0% packet loss"))
    };
    PINGS.iter().filter(lost).copied().collect()
}

fn start_members(
    lab: &Topology,
    directory: &Path,
    esp_proposals: &str,
) -> Result<[Member; 2], LabError> {
    let settings = gateway::Settings {
        at: V4,
        start_action: "none",
        proposals: PROPOSALS,
        esp_proposals,
        takeover: "auto",
        local_id: CLUSTER_ID,
        remote_id: PEER_ID,
        secret: SECRET,
        dpd_delay: DPD_DELAY,
    };
    let text = |index, own: &Path| gateway::member(&settings, index, own);
    let mut members = gateway::start_pair(lab, directory, text)?;
    gateway::wait_for_roles(&mut members, ANSWER)?;
    Ok(members)
}

fn start_peer(
    lab: &Topology,
    directory: &Path,
    esp_proposals: &str,
) -> Result<StrongSwan, LabError> {
    let settings = strongswan::Settings {
        local: PEER_OUTSIDE,
        remote: CLUSTER_OUTSIDE,
        local_id: PEER_ID,
        remote_id: CLUSTER_ID,
        local_ts: PEER_NETWORK,
        remote_ts: CLUSTER_NETWORK,
        proposals: PROPOSALS,
        esp_proposals,
        secret: SECRET,
        dpd_delay: DPD_DELAY,
    };
    StrongSwan::start(&lab.peer, "peer", directory, &settings)
}
