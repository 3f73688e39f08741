//! Carries a trial out, step by step, and gathers what the checks need.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hitless::audit::pcap::PcapReader;
use hitless::audit::wire::{self, Esp, Frame};

use super::evidence::{Evidence, Rekey, Snapshot};
use super::heard::Heard;
use super::{Gateway, Plan};
use crate::capture::{Capture, Direction};
use crate::clock;
use crate::error::LabError;
use crate::gateway::{self, Member};
use crate::ping::{Ping, PingLog};
use crate::scenario::{Bench, Report};
use crate::strongswan::{self, StrongSwan};
use crate::topology::{
    self, Addresses, HOST_INTERFACE, INSIDE, OUTSIDE, PORT_MEMBERS, PORT_PEER, Topology,
};
use crate::tshark::Listed;

const SECRET: &str = "not-so-secret-psk-0123456789";
const PEER_ID: &str = "peer.test";
const CLUSTER_ID: &str = "cluster.test";
const ESP_PROPOSALS: &str = "aes128gcm16";
/// charon knows when a packet last came in whole seconds: with one second it would ask for ever,
/// and its asking would be a sign of life to the other end.
const DPD_DELAY: Duration = Duration::from_secs(2);
const PING_INTERVAL: Duration = Duration::from_millis(15);
const BEFORE_KILL: Duration = Duration::from_secs(3);
const AFTER_KILL: Duration = Duration::from_secs(5);
/// Long enough for several liveness checks.
const ONE_WAY: Duration = Duration::from_secs(6);
const ANSWER: Duration = Duration::from_secs(10);
/// The attack at the takeover: the last packets again and again, from the kill on.
const ATTACK_ROUNDS: usize = 20;
const ATTACK_PACKETS: usize = 64;
const ATTACK_PAUSE: Duration = Duration::from_millis(25);
/// Replays are sent in bursts that every queue on the way has room for.
const BURST: usize = 32;
const BURST_PAUSE: Duration = Duration::from_millis(5);

/// Runs one variant.
pub fn carry_out(bench: &Bench, plan: &Plan, variant: &str) -> Result<Report, LabError> {
    let mut trial = Trial::new(bench, plan, variant)?;
    let mut evidence = trial.fail_over()?;
    trial.replay(&mut evidence)?;
    trial.check_liveness(&mut evidence)?;
    trial.rekey(&mut evidence)?;
    let heard = trial.finish(&mut evidence)?;
    let mut report = evidence.judge(plan, variant);
    if let Some(heard) = heard {
        heard.judge(&mut report, plan, evidence.killed)?;
    }
    Ok(report.conclude())
}

/// What acts as the gateway.
enum Cluster {
    Hitless {
        members: Box<[Member; 2]>,
        active: usize,
    },
    /// At m1; kept for its process.
    StrongSwan { _charon: StrongSwan },
}

/// The running experiment. Fields are dropped in this order: processes before namespaces.
struct Trial<'a> {
    bench: &'a Bench,
    at: &'static Addresses,
    /// The gateway initiates, and rekeys.
    starts: bool,
    directory: PathBuf,
    cluster: Cluster,
    peer: StrongSwan,
    members: [Capture; 2],
    outside: Option<Capture>,
    hosts: Option<[Capture; 2]>,
    lab: Topology,
}

impl<'a> Trial<'a> {
    /// Builds the network, starts captures, gateways and the peer, and brings the tunnel up.
    fn new(bench: &'a Bench, plan: &Plan, variant: &str) -> Result<Self, LabError> {
        let directory = bench.subdirectory(&format!("{}-{variant}", plan.scenario))?;
        let at = directory.as_path();
        bench.say("building the network");
        let lab = Topology::of(plan.at)?;
        let on_port =
            |i: usize, name| Capture::start(&lab.switch, PORT_MEMBERS[i], Direction::In, name, at);
        let members = [on_port(0, "member-1")?, on_port(1, "member-2")?];
        let outside = Capture::start(&lab.peer, OUTSIDE, Direction::Both, "peer-1", at)?;
        let at_host = |host, name| Capture::start(host, HOST_INTERFACE, Direction::In, name, at);
        let hosts = [
            at_host(&lab.host_a, "host-a")?,
            at_host(&lab.host_b, "host-b")?,
        ];
        bench.say("starting the gateway and the peer");
        // Whoever initiates comes last.
        let (cluster, peer) = if plan.starts {
            let peer = start_peer(&lab, at, plan)?;
            (start_cluster(&lab, at, plan)?, peer)
        } else {
            let cluster = start_cluster(&lab, at, plan)?;
            (cluster, start_peer(&lab, at, plan)?)
        };
        if !plan.starts {
            bench.say("strongSwan initiates");
            peer.initiate()?;
        }
        clock::until("a Child SA at strongSwan", ANSWER, || {
            let sa = peer.established()?;
            Ok(sa.filter(|sa| sa.installed().is_some()))
        })?;
        Ok(Self {
            bench,
            at: plan.at,
            starts: plan.starts,
            directory,
            cluster,
            peer,
            members,
            outside: Some(outside),
            hosts: Some(hosts),
            lab,
        })
    }

    /// Pings both ways, the kill, and the time after it.
    fn fail_over(&mut self) -> Result<Evidence, LabError> {
        self.bench.say("pinging both ways");
        let mut pings = [
            self.ping_from(0, "ping-a-to-b")?,
            self.ping_from(1, "ping-b-to-a")?,
        ];
        for ping in &mut pings {
            ping.wait_for_answer(ANSWER)?;
        }
        clock::pass(BEFORE_KILL)?;
        let before = self.snapshot()?;
        let recent = self.recent_packets()?;
        let moment = match &mut self.cluster {
            Cluster::Hitless { members, active } => {
                for member in members.iter() {
                    member.keep_status("before")?;
                }
                self.bench.say(&format!("SIGKILL to m{}", *active + 1));
                members[*active].kill()?
            }
            Cluster::StrongSwan { .. } => clock::wall(),
        };
        self.bench
            .say("replaying the last packets while the standby takes over");
        let mut attacks = 0;
        for _ in 0..ATTACK_ROUNDS {
            let frames = recent.iter().map(Vec::as_slice);
            attacks += topology::inject(&self.lab.peer, OUTSIDE, frames)?;
            clock::pass(ATTACK_PAUSE)?;
        }
        clock::pass(AFTER_KILL)?;
        if let Cluster::Hitless { members, active } = &mut self.cluster {
            let survivor = &mut members[1 - *active];
            survivor.check_running()?;
            survivor.keep_status("after")?;
        }
        let [a, b] = pings;
        let pings = [a.stop()?, b.stop()?];
        let after = self.snapshot()?;
        Ok(Evidence::new(moment, before, after, pings, attacks))
    }

    /// Which member carries the tunnel after the kill.
    fn survivor(&self) -> usize {
        match self.cluster {
            Cluster::Hitless { active, .. } => 1 - active,
            Cluster::StrongSwan { .. } => 0,
        }
    }

    fn ping_from(&self, host: usize, name: &str) -> Result<Ping, LabError> {
        let (namespace, target) = match host {
            0 => (&self.lab.host_a, self.at.host_b),
            _ => (&self.lab.host_b, self.at.host_a),
        };
        Ping::start(namespace, target, PING_INTERVAL, name, &self.directory)
    }

    /// What strongSwan says of its IKE SA.
    fn snapshot(&self) -> Result<Snapshot, LabError> {
        let sa = self.peer.established()?;
        Ok(Snapshot {
            sa,
            time: clock::wall(),
        })
    }

    /// The frames of the last ESP packets that the peer sent.
    fn recent_packets(&self) -> Result<Vec<Vec<u8>>, LabError> {
        let Some(outside) = &self.outside else {
            return Ok(Vec::new());
        };
        let file = outside.so_far()?;
        let sent = esp_frames(&file, |esp| from(esp, self.at.peer_outside))?;
        let early = sent.len().saturating_sub(ATTACK_PACKETS);
        Ok(sent.into_iter().skip(early).map(<[u8]>::to_vec).collect())
    }

    /// Sends every ESP packet of the capture again, to both ends; hosts must see nothing twice.
    fn replay(&mut self, evidence: &mut Evidence) -> Result<(), LabError> {
        self.bench.say("replaying every packet, to both ends");
        let first = self.end_outside_capture()?;
        let port = PORT_MEMBERS[self.survivor()];
        let at = self.directory.as_path();
        let arriving = Capture::start(&self.lab.switch, port, Direction::Out, "replays", at)?;
        let from_peer = esp_frames(&first, |esp| from(esp, self.at.peer_outside))?;
        let to_peer = esp_frames(&first, |esp| from(esp, self.at.cluster_outside))?;
        for frames in from_peer.chunks(BURST) {
            let frames = frames.iter().copied();
            evidence.replayed_to_cluster += topology::inject(&self.lab.peer, OUTSIDE, frames)?;
            clock::pass(BURST_PAUSE)?;
        }
        for frames in to_peer.chunks(BURST) {
            let frames = frames.iter().copied();
            evidence.replayed_to_peer += topology::inject(&self.lab.switch, PORT_PEER, frames)?;
            clock::pass(BURST_PAUSE)?;
        }
        let arrived = arriving.stop()?;
        let of_peer = esp_frames(&arrived, |esp| from(esp, self.at.peer_outside))?;
        evidence.replays_arrived = of_peer.len() as u64;
        if let Some([a, b]) = self.hosts.take() {
            evidence.hosts = vec![a.stop()?, b.stop()?];
        }
        evidence.outside.push(first);
        let next = Capture::start(&self.lab.peer, OUTSIDE, Direction::Both, "peer-2", at)?;
        self.outside = Some(next);
        Ok(())
    }

    /// Lets traffic flow one way only, first to the cluster, then to the peer: the end that hears
    /// nothing must ask whether the other is alive (RFC 7296 section 2.4).
    fn check_liveness(&mut self, evidence: &mut Evidence) -> Result<(), LabError> {
        self.bench
            .say("one-way traffic, so that each end in turn checks the other's liveness");
        let hosts = [
            (&self.lab.host_a, self.at.host_a),
            (&self.lab.host_b, self.at.host_b),
        ];
        for (speaker, (silent, other)) in [(0, (1, 0)), (1, (0, 1))] {
            let (namespace, address) = (hosts[silent].0, hosts[other].1);
            self.lab.mute(namespace, address)?;
            let start = clock::wall();
            let ping = self.ping_from(speaker, &format!("ping-one-way-{speaker}"))?;
            clock::pass(ONE_WAY)?;
            ping.stop()?;
            self.lab.unmute(namespace, address)?;
            evidence.one_way.push((start, clock::wall()));
        }
        Ok(())
    }

    /// Whoever initiated rekeys the IKE SA, then the Child SA while the hosts ping.
    fn rekey(&mut self, evidence: &mut Evidence) -> Result<(), LabError> {
        let spi = |snapshot: &Snapshot| snapshot.sa.as_ref().map(|sa| sa.initiator_spi.clone());
        let last = self.snapshot()?;
        let first = spi(&last);
        evidence.last = Some(last);
        let who = if self.starts {
            "the survivor"
        } else {
            "strongSwan"
        };
        self.bench.say(&format!("{who} rekeys the IKE SA"));
        let asked = match self.starts {
            true => self.order_rekey(["--ike", gateway::CONNECTION]),
            false => self.order_rekey(["--ike", strongswan::CONNECTION]),
        };
        let next = clock::until("a rekeyed IKE SA", ANSWER, || {
            let now = spi(&self.snapshot()?);
            Ok(now.filter(|now| Some(now) != first.as_ref()))
        });
        evidence.ike_rekey = asked.and(next).map_err(|error| error.to_string());
        self.bench.say(&format!("{who} rekeys the Child SA"));
        let ping = self.ping_from(0, "ping-rekey")?;
        let child = |sa: &Snapshot| sa.sa.as_ref().and_then(|sa| sa.installed().cloned());
        let Some(old) = child(&self.snapshot()?) else {
            return Ok(());
        };
        let outcome = self.order_rekey(["--child", strongswan::CHILD]);
        let replaced = clock::until("a new Child SA", ANSWER, || {
            let now = child(&self.snapshot()?);
            Ok(now.filter(|now| now.spi_in != old.spi_in))
        });
        clock::pass(Duration::from_secs(1))?;
        let during = ping.stop()?;
        let mut after = self.ping_from(0, "ping-after-rekey")?;
        let answered = after.wait_for_answer(ANSWER).is_ok();
        clock::pass(Duration::from_secs(1))?;
        evidence.rekey = Some(Rekey {
            command: outcome.map(drop).map_err(|error| error.to_string()),
            old,
            new: replaced.ok(),
            during,
            after: after.stop().ok().filter(|_: &PingLog| answered),
        });
        Ok(())
    }

    /// Lets whoever initiated rekey what it has by that name.
    fn order_rekey(&self, [kind, name]: [&str; 2]) -> Result<String, LabError> {
        match &self.cluster {
            Cluster::Hitless { members, active } if self.starts => {
                members[1 - *active].order(&["rekey", kind, name])
            }
            _ => self.peer.swanctl(&["--rekey", kind, name]),
        }
    }

    /// Ends what is still running and takes the last captures.
    fn finish(mut self, evidence: &mut Evidence) -> Result<Option<Heard>, LabError> {
        let last = self.end_outside_capture()?;
        evidence.outside.push(last);
        evidence.charon_log = self.peer.log();
        let heard = match &self.cluster {
            Cluster::Hitless { members, active } => {
                members[1 - *active].keep_status("end")?;
                members[1 - *active].list_sas()?;
                let ends = members.iter().map(Member::listed);
                let ends: Vec<Listed> = ends.chain([self.peer.listed()]).collect();
                let listed = Listed::of(&ends);
                Some(Heard::new(&self.directory, 1 - *active, listed)?)
            }
            Cluster::StrongSwan { .. } => None,
        };
        let survivor = self.survivor();
        let [m1, m2] = self.members;
        evidence.members = vec![m1.stop()?, m2.stop()?];
        if survivor == 0 {
            evidence.members.reverse();
        }
        Ok(heard)
    }

    fn end_outside_capture(&mut self) -> Result<Vec<u8>, LabError> {
        match self.outside.take() {
            Some(capture) => capture.stop(),
            None => Err(LabError::Unreadable {
                what: "the capture at the peer".to_owned(),
                detail: "it has been ended already".to_owned(),
            }),
        }
    }
}

fn start_cluster(lab: &Topology, directory: &Path, plan: &Plan) -> Result<Cluster, LabError> {
    if plan.gateway == Gateway::StrongSwan {
        return start_stand_in(lab, directory, plan);
    }
    let settings = gateway::Settings {
        at: plan.at,
        start_action: if plan.starts { "start" } else { "none" },
        proposals: plan.proposals,
        esp_proposals: ESP_PROPOSALS,
        takeover: plan.takeover,
        local_id: CLUSTER_ID,
        remote_id: PEER_ID,
        secret: SECRET,
        dpd_delay: DPD_DELAY,
    };
    let text = |index, own: &Path| gateway::member(&settings, index, own);
    let mut members = gateway::start_pair(lab, directory, text)?;
    let active = gateway::wait_for_roles(&mut members, ANSWER)?;
    Ok(Cluster::Hitless {
        members: Box::new(members),
        active,
    })
}

/// strongSwan in m1's place, with the cluster's addresses in its kernel.
fn start_stand_in(lab: &Topology, directory: &Path, plan: &Plan) -> Result<Cluster, LabError> {
    let m1 = &lab.members[0];
    let at = plan.at;
    m1.address(OUTSIDE, &at.with_prefix(at.cluster_outside))?;
    m1.address(INSIDE, &at.with_prefix(at.cluster_inside))?;
    at.forward(m1)?;
    let settings = strongswan::Settings {
        local: at.cluster_outside,
        remote: at.peer_outside,
        local_id: CLUSTER_ID,
        remote_id: PEER_ID,
        local_ts: at.cluster_network,
        remote_ts: at.peer_network,
        proposals: plan.proposals,
        esp_proposals: ESP_PROPOSALS,
        secret: SECRET,
        dpd_delay: DPD_DELAY,
    };
    let charon = StrongSwan::start(m1, "stand-in", directory, &settings)?;
    Ok(Cluster::StrongSwan { _charon: charon })
}

fn start_peer(lab: &Topology, directory: &Path, plan: &Plan) -> Result<StrongSwan, LabError> {
    let at = plan.at;
    let settings = strongswan::Settings {
        local: at.peer_outside,
        remote: at.cluster_outside,
        local_id: PEER_ID,
        remote_id: CLUSTER_ID,
        local_ts: at.peer_network,
        remote_ts: at.cluster_network,
        proposals: plan.proposals,
        esp_proposals: ESP_PROPOSALS,
        secret: SECRET,
        dpd_delay: DPD_DELAY,
    };
    StrongSwan::start(&lab.peer, "peer", directory, &settings)
}

fn from(esp: &Esp<'_>, address: &str) -> bool {
    esp.source.to_string() == address
}

/// The frames of a capture that hold ESP packets of interest. The capture may still be growing.
fn esp_frames(file: &[u8], wanted: impl Fn(&Esp<'_>) -> bool) -> Result<Vec<&[u8]>, LabError> {
    let reader = PcapReader::new(file).map_err(|error| LabError::Unreadable {
        what: "a capture".to_owned(),
        detail: error.to_string(),
    })?;
    let frames = reader.map_while(Result::ok).map(|record| record.frame);
    let wanted = frames.filter(|frame| match wire::decode(frame) {
        Frame::Esp(esp) => wanted(&esp),
        _ => false,
    });
    Ok(wanted.collect())
}
