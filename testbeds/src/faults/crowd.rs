//! Takeovers of very many SAs over namespaces: the peers are the initiators of `hitless-perf crowd`,
//! many IKE SAs in one process on UDP sockets, where strongSwan would need a tunnel device and a
//! thread for each. They ask for signs of life all the time, so in the end each IKE SA has shown that
//! it outlived every kill.
//!
//! ```text
//!  hitless-perf crowd --- [outside switch] --- m1, m2 --- [inside switch] --- host: datagrams to
//!  32 addresses, N IKE SAs                                                    some of the tunnels
//! ```
//!
//! ESP is watched where it leaves the members; the peers do not open it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hitless::audit::Audit;

use super::audit::Question;
use super::bed::{self, HOST};
use super::judge::{Evidence, esp_of_cluster};
use super::kinds::{Diary, Fault};
use super::takeovers::{BUSY, Measured, judge};
use super::traffic::{self, Flow};
use super::waits::Waits;
use super::{BEFORE, LAST, Row, Wish};
use crate::capture::Capture;
use crate::clock;
use crate::error::LabError;
use crate::gateway::{self, Member};
use crate::process::{Process, Program};
use crate::scenario::{Bench, milliseconds};
use crate::syscall;
use crate::topology::{CLUSTER_NETWORK, CLUSTER_OUTSIDE, OUTSIDE, OUTSIDE_PREFIX, Topology};

/// What `hitless-perf crowd --against` says of itself: the secret, and its addresses.
const SECRET: &str = "0123456789abcdef";
const ADDRESSES: u32 = 32;
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 3, 1);
/// Behind the peers: one address for each tunnel.
const BEHIND: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
const PORT: u16 = 7000;
/// Signs of life that all of them ask for in a second, and how often one asks at least.
const SIGNS: u32 = 500;
const DPD: Duration = Duration::from_secs(10);
/// Two cores make some hundred IKE SAs a second with both ends and two members on them.
const SET_UP_EACH: Duration = Duration::from_millis(20);
const SET_UP: Duration = Duration::from_secs(60);
/// For a member that starts to have every SA from the other one.
const JOIN: Duration = Duration::from_secs(20);
const JOIN_EACH: Duration = Duration::from_millis(1);

/// What was sent last has left the members by then.
const UNDER_WAY: Duration = Duration::from_millis(100);

/// Kills in a row.
const KILLS: u32 = 3;

/// Kills one active after the other under so many SAs.
pub fn run(bench: &Bench, wish: &Wish, sas: u32) -> Result<Row, LabError> {
    let name = format!("takeover of {sas}");
    let mut whole = Row {
        fault: name.clone(),
        what: format!(
            "SIGKILL to the active with {sas} IKE SAs and Child SAs, {} times",
            KILLS
        ),
        passed: true,
        audit: "clean".to_owned(),
        ..Row::default()
    };
    let mut crowd = Crowd::new(bench, wish, sas)?;
    let (mut measured, mut wire) = (Vec::new(), Audit::default());
    for number in 1..=KILLS {
        let row = crowd.kill(number, &mut wire)?;
        measured.extend(Measured::of(&row));
        whole.add(row);
    }
    crowd.stay(&mut whole)?;
    whole.judge_all(wire);
    judge(&mut whole, &measured, wish);
    Ok(whole)
}

/// Fields are dropped in this order: processes before namespaces.
struct Crowd<'a> {
    bench: &'a Bench,
    wish: Wish,
    sas: u32,
    directory: PathBuf,
    binary: PathBuf,
    peers: Process,
    members: [Option<Member>; 2],
    lab: Topology,
}

impl<'a> Crowd<'a> {
    /// Builds the network, starts members and peers, and waits until the standby has every SA.
    fn new(bench: &'a Bench, wish: &Wish, sas: u32) -> Result<Crowd<'a>, LabError> {
        bench.say("building the network");
        let directory = bench.subdirectory("crowd")?;
        let lab = Topology::new()?;
        let first = u32::from(FIRST_ADDRESS);
        for address in (first..first + ADDRESSES).map(Ipv4Addr::from) {
            lab.peer
                .address(OUTSIDE, &format!("{address}/{OUTSIDE_PREFIX}"))?;
        }
        let binary = gateway::binary()?;
        let start = |index| start(&binary, &lab, index, &directory, wish);
        let mut members = [Some(start(0)?), Some(start(1)?)];
        bed::wait_for_roles(&mut members)?;
        bench.say(&format!("{sas} IKE SAs come up"));
        let (dpd, hold) = (dpd(sas), dpd(sas) * 2 + kill(sas) * KILLS);
        let peers = Program::new([
            gateway::beside("hitless-perf")?.display().to_string(),
            "crowd".to_owned(),
            format!("--against={CLUSTER_OUTSIDE}"),
            format!("--from={FIRST_ADDRESS}"),
            format!("--sas={sas}"),
            format!("--dpd={}s", dpd.as_secs()),
            format!("--hold={}s", hold.as_secs()),
            "--json".to_owned(),
        ])
        .inside(&lab.peer)
        .spawn("peers", &directory)?;
        let mut crowd = Crowd {
            bench,
            wish: wish.clone(),
            sas,
            directory,
            binary,
            peers,
            members,
            lab,
        };
        crowd.settle(SET_UP + SET_UP_EACH * sas)?;
        Ok(crowd)
    }

    /// Waits until one member leads, the other one could take over, and both have every SA; gives the
    /// leader.
    fn settle(&mut self, limit: Duration) -> Result<usize, LabError> {
        let mut told = 0;
        clock::until("every SA at both members", limit, || {
            self.peers.check_running()?;
            let mut have = Vec::new();
            for member in self.members.iter().flatten() {
                let status = member.status()?;
                let count = |name: &str| status[name].as_u64().unwrap_or_default();
                have.push(count("ike_sas").min(count("child_sas")));
            }
            let least = have.iter().copied().min().unwrap_or_default();
            if least / 5_000 != told / 5_000 {
                self.bench.say(&format!("{least} at both members"));
                told = least;
            }
            clock::pass(Duration::from_millis(200))?;
            Ok((have.len() == 2 && least >= u64::from(self.sas)).then_some(()))
        })?;
        bed::wait_for_roles(&mut self.members)
    }

    /// One kill, and everything that has to come of it; after the last one every tunnel carries
    /// something. Nobody answers, so the cluster replaces what it inherited and used: fifty thousand new
    /// SPIs after each of them would soon be some of the old ones.
    fn kill(&mut self, number: u32, wire: &mut Audit) -> Result<Row, LabError> {
        let (name, last) = (&format!("crowd-{number:03}"), number == KILLS);
        self.bench.say(&format!("{name}: SIGKILL to the active"));
        let captures = bed::captures(&self.lab, name, &self.directory)?;
        let quiet = Arc::new(AtomicBool::new(false));
        let sender = self.send(&quiet)?;
        let watched = self.members.iter().flatten().map(Member::id);
        let waits = Waits::start(watched.collect());
        clock::pass(BEFORE)?;
        let active = bed::wait_for_roles(&mut self.members)?;
        let log = |crowd: &Self| {
            let other = crowd.members[1 - active].as_ref();
            other.map(Member::log).unwrap_or_default()
        };
        let before_it = log(self).len();
        let mut diary = Diary::default();
        let struck = diary.note("kill");
        if let Some(mut member) = self.members[active].take() {
            member.kill()?;
        }
        clock::pass(self.wish.after)?;
        quiet.store(true, Ordering::Relaxed);
        let sent = sender.join().ok().and_then(Result::ok).unwrap_or_default();
        clock::pass(UNDER_WAY)?;
        let whole = clock::wall();
        if last {
            self.every_tunnel(&mut diary)?;
        }
        clock::pass(LAST)?;
        let (waited, end) = (waits.stop(), clock::wall());
        let captured = captures.map(Capture::stop);
        let said = log(self).get(before_it..).unwrap_or_default().to_owned();
        let mut row = Row {
            fault: name.to_owned(),
            times: 1,
            ..Row::default()
        };
        let silent = self.silent_tunnels(&captured[1 - active], struck);
        row.problems.extend(silent.filter(|_| last));
        let traffic = Traffic::of(&sent, &captured, whole);
        let evidence = Evidence {
            flow: Flow::default(),
            captured,
            active,
            struck,
            end,
            tunnels: 0,
            busy: 0,
            rate: self.wish.rate,
            expected: Fault::Kill.expected(&self.wish),
            question: Question::about(&self.binary, &self.directory, name)
                .with_ledgers(&self.directory),
            waited,
            said,
            sas: Default::default(),
        };
        let mut row = row.finish(evidence, diary, wire);
        traffic.tell(&mut row);
        self.members[active] = Some(start(
            &self.binary,
            &self.lab,
            active,
            &self.directory,
            &self.wish,
        )?);
        self.settle(kill(self.sas))?;
        row.whole_again_ms = Some(milliseconds(clock::wall().saturating_sub(struck)));
        Ok(row)
    }

    /// Whether ESP of each of them was seen after the kill: each is one SPI of its peer.
    fn silent_tunnels(&self, file: &Result<Vec<u8>, LabError>, struck: Duration) -> Option<String> {
        let sent = file.as_deref().map(esp_of_cluster).into_iter().flatten();
        let after = sent.filter(|(at, _)| *at >= struck);
        let tunnels = after.map(|(_, spi)| spi).collect::<BTreeSet<u32>>().len();
        let all = self.sas as usize;
        (tunnels < all).then(|| format!("{tunnels} of {all} tunnels carried something out"))
    }

    /// Datagrams to some of the tunnels, from the host behind the cluster.
    fn send(&self, quiet: &Arc<AtomicBool>) -> Result<traffic::Sender, LabError> {
        let busy = self.sas.min(u32::from(BUSY));
        let share = (self.sas / busy.max(1)).max(1);
        let targets: Vec<_> = (0..busy).map(|tunnel| behind(tunnel * share)).collect();
        let (socket, quiet, rate) = (self.socket()?, Arc::clone(quiet), self.wish.rate);
        Ok(std::thread::spawn(move || {
            traffic::send(&[socket], &targets, rate, &quiet)
        }))
    }

    fn socket(&self) -> Result<std::net::UdpSocket, LabError> {
        syscall::udp_socket(&self.lab.host_b.path(), SocketAddr::new(HOST, 0))
            .map_err(LabError::io("opening the socket of the traffic"))
    }

    /// A datagram to each of the tunnels, no faster than a worker takes them.
    fn every_tunnel(&self, diary: &mut Diary) -> Result<(), LabError> {
        const AT_ONCE: usize = 20;
        let socket = self.socket()?;
        let all: Vec<u32> = (0..self.sas).collect();
        diary.note("one to every tunnel");
        for some in all.chunks(AT_ONCE) {
            for tunnel in some {
                socket
                    .send_to(&[0; 64], behind(*tunnel))
                    .map_err(LabError::io("a datagram to a tunnel"))?;
            }
            clock::pass(Duration::from_millis(1))?;
        }
        Ok(())
    }

    /// Every IKE SA outlives all that: the peers have had signs of life of each of them in the last
    /// round of questions.
    fn stay(&mut self, whole: &mut Row) -> Result<(), LabError> {
        self.bench.say("signs of life of every IKE SA");
        let limit = dpd(self.sas) * 4 + kill(self.sas) * KILLS;
        let status = clock::until("the end of the peers", limit, || self.peers.ended())?;
        let said = self.peers.log();
        match status.success() {
            true => whole.notes.push(format!(
                "all {} IKE SAs gave signs of life after the last kill",
                self.sas
            )),
            false => {
                let last = said.lines().last().unwrap_or_default();
                whole.fail(format!("the peers: {last}"));
            }
        }
        Ok(())
    }
}

/// What became of the datagrams to some of the tunnels, seen where the members send.
struct Traffic {
    sent: u64,
    lost: u64,
    /// The longest time without any.
    outage: Option<Duration>,
}

impl Traffic {
    /// Each datagram is one ESP packet, and nothing else is until `whole`.
    fn of(
        sent: &[Vec<Duration>],
        captured: &[Result<Vec<u8>, LabError>; 2],
        whole: Duration,
    ) -> Traffic {
        let asked = || sent.iter().flatten().copied();
        let files = captured.iter().flatten();
        let left = files.flat_map(|file| esp_of_cluster(file));
        let since = asked().min().unwrap_or(whole);
        let left = left.map(|(at, _)| at);
        let mut left: Vec<_> = left.filter(|at| (since..whole).contains(at)).collect();
        left.sort_unstable();
        let gaps = left.windows(2).map(|pair| match pair {
            [before, after] => after.saturating_sub(*before),
            _ => Duration::ZERO,
        });
        let sent = asked().count() as u64;
        Traffic {
            sent,
            lost: sent.saturating_sub(left.len() as u64),
            outage: gaps.max(),
        }
    }

    fn tell(&self, row: &mut Row) {
        row.packets_sent = self.sent;
        row.packets_lost = self.lost;
        row.outage_out_ms = self.outage.map(milliseconds);
    }
}

/// How often one of so many asks for a sign of life.
fn dpd(sas: u32) -> Duration {
    DPD.max(Duration::from_secs(1) * (sas / SIGNS))
}

/// What a kill and all that belongs to it takes at most.
fn kill(sas: u32) -> Duration {
    JOIN + JOIN_EACH * sas
}

fn behind(tunnel: u32) -> SocketAddr {
    let address = Ipv4Addr::from(u32::from(BEHIND) + tunnel);
    SocketAddr::new(IpAddr::V4(address), PORT)
}

fn start(
    binary: &std::path::Path,
    lab: &Topology,
    index: usize,
    directory: &std::path::Path,
    wish: &Wish,
) -> Result<Member, LabError> {
    let own = directory.join(format!("m{}", index + 1));
    let text = gateway::configuration(index, &own, &bed::heartbeats(wish), &anybody());
    // Of so many SAs the rest would be long.
    let text = text.replace("log = \"debug\"", "log = \"info\"");
    Member::start_with(binary, lab, index, directory, &text, &[])
}

/// As many as come: what strangers may cost is not the question here.
fn anybody() -> String {
    format!(
        r#"[ike]
cookies = "never"
init_rate = 0
init_rate_ip = 0
[connections.anybody]
local_addrs = ["{CLUSTER_OUTSIDE}"]
proposals = ["{}"]
local = {{ auth = "psk", id = "cluster.test" }}
remote = {{ auth = "psk", id = "%any" }}
dpd_delay = "0"
rekey_time = "0"
takeover = "auto"
[connections.anybody.children.net]
esp_proposals = ["aes128gcm16"]
local_ts = ["{CLUSTER_NETWORK}"]
remote_ts = ["10.64.0.0/10"]
rekey_time = "0"
start_action = "none"
[secrets.all]
secret = "{SECRET}"
"#,
        bed::IKE
    )
}
