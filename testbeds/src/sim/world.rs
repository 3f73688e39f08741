//! Machines, cables and hosts of one run, one step after another.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use hitless::audit::wire::{self, Frame, Ike};
use hitless::config::Config;
use hitless::entropy::SeededEntropy;
use hitless::gateway::{ClusterSecret, Event, GatewaySettings, Tuning};
use hitless::ike;
use hitless::lab::{Host, Lane, MTU, Probe, Switch, Topology, sync_address};
use hitless_dataplane::port::memory::{self, MemoryPort};
use hitless_sa::{Entropy, Instant};

use super::cable::{Cable, SyncCables, damage};
use super::card::ip;
use super::machine::Machine;
use super::nat::Nat;
use super::oracle::Oracle;
use super::plan::{Fault, Plan};

/// The peer is machine 0; its second member, if it is a cluster, is behind ours.
const PEER: u8 = 0;
const CABLE: usize = 96;
const PROBE: usize = 120;
/// Longest step of the virtual clock.
const STEP: Duration = Duration::from_micros(600);
/// The same while nothing but timers of seconds is waited for.
const PATIENT_STEP: Duration = Duration::from_millis(8);
const PATIENT: Duration = Duration::from_millis(1500);
/// And while the last fault is long ago: time matters little.
const QUIET_STEP: Duration = Duration::from_millis(2);
/// Time between two probes once everybody is patient.
const PATIENT_PROBE: Duration = Duration::from_millis(20);
/// Steps are small this long before a fault, and after it.
const WARM_UP: Duration = Duration::from_millis(20);
const UPROAR: Duration = Duration::from_millis(150);
/// Traffic must flow both ways within this after the last fault. A peer takes 63.5 s to find out
/// that a cluster has forgotten everything.
const LIVENESS: Duration = Duration::from_secs(90);
/// The same with `takeover = exact`, where a member trusts its Message IDs until the peer is dead
/// for it, and the peer finds out after that.
const LIVENESS_EXACT: Duration = Duration::from_secs(180);
/// How much longer it may take a client that was redirected five times, and does not follow again until
/// five minutes have passed (RFC 5685 section 7); then it tries again every other minute.
const REDIRECTED: Duration = Duration::from_secs(300 + 128);
/// So many probes in a row, each way, show that it does.
const ALIVE: usize = 20;
/// And of those before them so many may still be under way.
const OVERTAKEN: u64 = 3;
/// Frames that a replayer remembers, and sends in one step.
const RECORDED: usize = 3000;
const REPLAYED: usize = 48;
/// Frames that are damaged in one go.
const GARBAGE: usize = 400;
/// Behind Ethernet and the header of IPv4.
const IPV4_PAYLOAD: usize = 34;
const UDP: u8 = 17;
/// In a UDP header.
const UDP_CHECKSUM: std::ops::Range<usize> = 6..8;
/// The virtual clock starts here, as no real one starts at zero.
pub const EPOCH: Instant = Instant(1_000_000_000);

/// Counts over one run.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    pub takeovers: u64,
    pub crashes: u64,
    pub restarts: u64,
    pub greatest_skip: u64,
    /// Crashes in the midst of something that was over before.
    pub unreached: u64,
    /// From the last fault until traffic flowed both ways.
    pub recovery: Duration,
    /// The longest time without traffic where continuity is promised.
    pub silence: Option<Duration>,
}

/// What operators have asked for, and what came of it.
#[derive(Default)]
struct Orders {
    /// How often the peer has gone from one of its addresses to the other.
    moves: usize,
    /// The peer's operator wants no Child SA.
    closed: bool,
    /// He wants them again, and has been told by nobody that the order is carried out.
    opened: bool,
    /// A client said that it was redirected often enough.
    redirected_out: bool,
}

/// One run.
pub struct World {
    now: Instant,
    plan: Plan,
    entropy: SeededEntropy,
    machines: Vec<Machine>,
    outside: Switch,
    protected: Switch,
    /// Between the members of the peer and host a.
    near: Switch,
    sync: SyncCables,
    a: Host,
    b: Host,
    oracle: Oracle,
    recorded: Vec<Vec<u8>>,
    replayed: VecDeque<Vec<u8>>,
    next_probe: Instant,
    /// Between which addresses of the hosts, and so by which Child SA: probe by probe, the next one.
    lanes: Vec<Lane>,
    lane: usize,
    /// The addresses of the cluster and of the peer on the outside.
    doors: [[IpAddr; 2]; 2],
    orders: Orders,
    /// Longest step.
    longest: Duration,
    steps: u64,
    tally: Tally,
    digest: DefaultHasher,
    verbose: bool,
    broken: Vec<String>,
}

impl World {
    /// Everything in place for a plan; no time has passed.
    pub fn new(plan: Plan, seed: u64, tuning: Tuning, verbose: bool) -> World {
        let mut entropy = SeededEntropy::new(seed);
        let draw: &mut dyn Entropy = &mut entropy;
        let secret = format!("{:016x}{:016x}", draw.u64(), draw.u64());
        let topology = topology(&plan, secret);
        let mut sync = SyncCables::new(plan.sync, Box::new(SeededEntropy::new(draw.u64())));
        let (mut outside_ends, mut protected_ends) = (Vec::new(), Vec::new());
        let mut near_ends = Vec::new();
        let mut machines = Vec::new();
        let mut broken = Vec::new();
        let mut secrets = BTreeMap::new();
        for who in PEER..plan.members + plan.peers {
            let (gateway_end, world_end) = memory::link(CABLE, MTU);
            let (cable_end, switch_end) = memory::link(CABLE, MTU);
            outside_ends.push(switch_end);
            let (protected, switch_end) = memory::link(CABLE, MTU);
            let own_part = match part(&plan, who, &topology, tuning, &mut secrets) {
                Ok(part) => part,
                Err(error) => {
                    broken.push(format!("machine {who}: {error}"));
                    continue;
                }
            };
            match plan.peer(who) {
                Some(_) => near_ends.push(switch_end),
                None => protected_ends.push(switch_end),
            }
            let mut cable = Cable::new(world_end, cable_end, plan.outside);
            cable.nat = (plan.extras.nat && who == PEER).then(Nat::new);
            let own = SeededEntropy::new(draw.u64());
            let drift = plan.drift.get(usize::from(who)).copied().unwrap_or(0);
            let mut machine = Machine::new(who, own_part, drift, cable, own);
            let booted = machine.boot(EPOCH, vec![gateway_end, protected], &mut sync);
            broken.extend(booted.err());
            machines.push(machine);
        }
        let (a, b) = hosts(&topology, &mut near_ends, &mut protected_ends);
        let mut outside = Switch::unrecorded(outside_ends);
        outside.hub = plan.hub;
        let mut oracle = Oracle::watching(&plan, EPOCH);
        let marks = sync.secrecy.marks();
        marks.iter().for_each(|mark| oracle.marked(mark));
        World {
            now: EPOCH,
            plan,
            entropy,
            machines,
            outside,
            protected: Switch::unrecorded(protected_ends),
            near: Switch::unrecorded(near_ends),
            sync,
            a,
            b,
            oracle,
            recorded: Vec::new(),
            replayed: VecDeque::new(),
            next_probe: EPOCH + Duration::from_millis(300),
            lanes: topology.lanes(),
            lane: 0,
            doors: topology.outside.doors(),
            orders: Orders::default(),
            longest: QUIET_STEP,
            steps: 0,
            tally: Tally::default(),
            digest: DefaultHasher::new(),
            verbose,
            broken,
        }
    }

    /// Runs the plan to its end and says what was broken.
    pub fn run(&mut self) -> Vec<String> {
        if self.verbose {
            eprintln!("{:?}", self.plan);
        }
        if self.broken.is_empty() {
            let faults = std::mem::take(&mut self.plan.faults);
            for (at, fault) in faults {
                self.run_towards(EPOCH + at);
                self.strike(fault);
            }
            self.run_towards(EPOCH + self.plan.calm);
            self.calm();
            self.expect_life();
            self.watch_aftermath();
        }
        let mut broken = std::mem::take(&mut self.broken);
        self.tally.silence = self.oracle.silence([&self.a, &self.b], self.now);
        broken.extend(self.sync.secrecy.found());
        broken.extend(self.oracle.verdict([&self.a, &self.b], self.now));
        broken
    }

    pub fn steps(&self) -> u64 {
        self.steps
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Probes sent and received, both directions.
    pub fn probes(&self) -> (u64, u64) {
        let sent = self.a.sent().len() + self.b.sent().len();
        let received = self.a.received().len() + self.b.received().len();
        (sent as u64, received as u64)
    }

    pub fn virtual_time(&self) -> Duration {
        self.now.since(EPOCH)
    }

    /// Of every frame that left a gateway, and when.
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    fn run_until(&mut self, end: Instant) {
        while self.now < end {
            self.step();
        }
    }

    /// The same towards a fault, in small steps only where something is to be expected.
    fn run_towards(&mut self, end: Instant) {
        if self.steps > 0 {
            self.longest = STEP;
            self.run_until(end.min(self.now + UPROAR));
        }
        self.longest = QUIET_STEP;
        self.run_until(end.saturating_sub(WARM_UP));
        self.longest = STEP;
        self.run_until(end);
    }

    /// A little time passes, and everybody who is awake does something.
    fn step(&mut self) {
        let draw: &mut dyn Entropy = &mut self.entropy;
        let span = self
            .longest
            .mul_f64(0.2 + 0.8 * f64::from(draw.u32()) / f64::from(u32::MAX));
        let first = draw.u32() as usize;
        self.now += span;
        self.steps += 1;
        if self.now >= self.next_probe {
            let pause = match self.longest == PATIENT_STEP {
                true => self.plan.probe_every.max(PATIENT_PROBE),
                false => self.plan.probe_every,
            };
            self.next_probe = self.now + pause;
            self.lane = (self.lane + 1) % self.lanes.len();
            let Lane { host_a, host_b, .. } = self.lanes[self.lane];
            self.a.send_from(self.now, self.lane, host_b);
            self.b.send_from(self.now, self.lane, host_a);
        }
        for _ in 0..REPLAYED {
            if let Some(frame) = self.replayed.pop_front() {
                self.outside.inject(&frame);
            }
        }
        let count = self.machines.len();
        for index in 0..count {
            self.turn_machine((first + index) % count);
        }
        self.outside.turn(self.now);
        self.protected.turn(self.now);
        self.near.turn(self.now);
        self.a.turn(self.now);
        self.b.turn(self.now);
    }

    fn turn_machine(&mut self, index: usize) {
        let now = self.now;
        let machine = &mut self.machines[index];
        let who = machine.who;
        let running = machine.runs();
        let turned = machine.turn(now, &mut self.sync, &mut self.entropy);
        if running && !machine.runs() {
            self.tally.crashes += 1;
            self.say(&format!("machine {who} is dead"));
        }
        for event in turned.events {
            self.hear(who, &event);
        }
        for frame in turned.sent {
            (now.0, who, &frame).hash(&mut self.digest);
            if self.verbose
                && let Frame::Ike(ike) = wire::decode(&frame)
            {
                let what = if ike.response { "response" } else { "request" };
                let Ike {
                    exchange,
                    message_id,
                    initiator_spi,
                    message,
                    ..
                } = ike;
                let octets = message.len();
                self.say(&format!(
                    "machine {who} sends {what} {message_id} of exchange {exchange}, {octets} octets, \
                     IKE SA of {initiator_spi:016x}"
                ));
            }
            self.oracle.sent(now, who, &frame, &turned.keys);
            // As it arrives: an attacker is not between the peer and its NAT.
            let frame = match self.machines[index].outside.nat {
                Some(nat) => nat.outwards(&frame),
                None => Some(frame),
            };
            if self.recorded.len() < RECORDED {
                self.recorded.extend(frame);
            }
        }
    }

    fn say(&self, what: &str) {
        if self.verbose {
            eprintln!("{:9.4} {what}", self.virtual_time().as_secs_f64());
        }
    }

    fn hear(&mut self, who: u8, event: &Event) {
        if self.verbose {
            self.say(&format!("machine {who}: {event:?}"));
        }
        self.oracle.said(self.now, who, event);
        if let Event::Ike(ike::Event::NegotiationFailed { reason, .. }) = event {
            self.orders.redirected_out |= reason.starts_with("redirected more than");
        }
        let skip = match event {
            Event::Leads {
                base: Some(_),
                skip,
                ..
            } => {
                self.tally.takeovers += 1;
                skip.unwrap_or_default()
            }
            Event::Inherited { skip } => *skip,
            _ => return,
        };
        self.tally.greatest_skip = self.tally.greatest_skip.max(skip);
    }

    fn strike(&mut self, fault: Fault) {
        self.say(&format!("{fault:?}"));
        let now = self.now;
        match fault {
            Fault::Crash(who) => {
                self.tally.crashes += u64::from(self.machine(who).kill());
                // The order may have died with whom it was given to: its operator sees that, and
                // gives it again.
                self.orders.closed |= self.orders.opened && self.plan.peer(who).is_some();
            }
            Fault::CrashAfter(who, outputs) => self.machine(who).light(outputs),
            Fault::Restart(who) => self.restart(who),
            Fault::ShutDown(who) => self.machine(who).shut_down(now),
            Fault::Deaf { from, to } => self.sync.deafen(sync_address(from), sync_address(to)),
            Fault::Slow(who, delay) => self.sync.slow_down(sync_address(who), delay),
            Fault::Healed => self.sync.heal(),
            Fault::Unplugged(who) => self.machine(who).outside.plugged = false,
            Fault::Plugged(who) => self.machine(who).outside.plugged = true,
            Fault::Frozen(who, part, span) => self.machine(who).freeze(part, now + span),
            Fault::ClockJumps(who, span) => {
                self.oracle.clocks_jump();
                self.machine(who).jump(span);
            }
            Fault::DiskFails(who, writes) => self.machine(who).fail_writes(writes),
            Fault::Switchover => {
                for machine in &mut self.machines[1..] {
                    machine.switch_over(now);
                }
            }
            Fault::PeerRekeysChild => self.rekey(true, false),
            Fault::PeerRekeysIke => self.rekey(true, true),
            Fault::ClusterRekeysChild => self.rekey(false, false),
            Fault::ClusterRekeysIke => self.rekey(false, true),
            Fault::NatForgets => {
                if let Some(nat) = &mut self.machine(PEER).outside.nat {
                    nat.forget();
                }
            }
            Fault::ClusterRedirects => {
                let [doors, _] = self.doors;
                self.each_of(false, |machine| machine.redirect(now, doors));
            }
            Fault::PeerClosesChildren => {
                self.orders.closed = true;
                self.each_of(true, |machine| machine.close_children(now));
            }
            Fault::PeerOpensChildren => self.open_children(),
            Fault::PeerMoves => {
                self.orders.moves += 1;
                let to = self.doors[1][self.orders.moves % 2];
                self.each_of(true, |machine| machine.move_to(now, to));
            }
            Fault::Replay => self.replayed.extend(self.recorded.iter().cloned()),
            Fault::Garbage => self.damage_all(now),
        }
    }

    /// Damaged copies of what was sent arrive everywhere. What is not authenticated at all (ARP, IP
    /// headers) stays as it is: whoever can forge that on a segment owns it.
    fn damage_all(&mut self, now: Instant) {
        let entropy = &mut self.entropy;
        let packets = self.recorded.iter().rev();
        let packets = packets.filter_map(|frame| {
            let (protocol, addresses) = ip(frame)?;
            let payload = addresses.end;
            (frame.len() > payload + 8).then_some((frame, payload, protocol))
        });
        for (frame, payload, protocol) in packets.take(GARBAGE) {
            let mut frame = frame.clone();
            if protocol == UDP {
                // No checksum, where there may be none: it is IKE that has to notice.
                let sum = payload + UDP_CHECKSUM.start..payload + UDP_CHECKSUM.end;
                if payload == IPV4_PAYLOAD {
                    frame[sum.clone()].fill(0);
                }
                damage(entropy, &mut frame, sum.end);
            } else {
                damage(entropy, &mut frame, payload);
            }
            self.replayed.push_back(frame);
        }
        self.sync.garble(now);
    }

    fn machine(&mut self, who: u8) -> &mut Machine {
        &mut self.machines[usize::from(who)]
    }

    fn restart(&mut self, who: u8) {
        if self.machine(who).runs() {
            return;
        }
        self.tally.restarts += 1;
        let (outside, world_end) = memory::link(CABLE, MTU);
        self.machine(who).outside.replug(world_end);
        let (protected, switch_end) = memory::link(CABLE, MTU);
        let cut = match self.plan.peer(who) {
            Some(number) => self.near.plug(usize::from(number), switch_end),
            None => self.protected.plug(usize::from(who) - 1, switch_end),
        };
        drop(cut);
        let ports: Vec<MemoryPort> = vec![outside, protected];
        let machine = &mut self.machines[usize::from(who)];
        let started = machine.boot(self.now, ports, &mut self.sync);
        self.broken.extend(started.err());
    }

    /// Whoever leads on that side rekeys all of its SAs of one kind.
    fn rekey(&mut self, peer: bool, ike: bool) {
        let now = self.now;
        self.each_of(peer, |machine| machine.rekey(now, ike));
    }

    fn each_of(&mut self, peer: bool, what: impl Fn(&mut Machine)) {
        for machine in &mut self.machines {
            if self.plan.peer(machine.who).is_some() == peer {
                what(machine);
            }
        }
    }

    /// The children that were closed are wanted again.
    fn open_children(&mut self) {
        let now = self.now;
        (self.orders.closed, self.orders.opened) = (false, true);
        self.each_of(true, |machine| machine.open_children(now));
    }

    /// All faults are over: everybody runs, every cable is good.
    fn calm(&mut self) {
        self.sync.heal();
        self.sync.calm();
        self.replayed.clear();
        for machine in &mut self.machines {
            machine.calm();
        }
        for who in PEER..self.plan.members + self.plan.peers {
            self.restart(who);
        }
        self.tally.unreached = self.machines.iter().map(|machine| machine.unreached).sum();
        // An IKE SA without children carries nothing until somebody wants one.
        if self.orders.closed {
            self.open_children();
        }
    }

    /// How long it may take until traffic flows.
    fn patience(&self) -> Duration {
        let plain = match self.plan.takeover {
            "exact" => LIVENESS_EXACT,
            _ => LIVENESS,
        };
        match self.orders.redirected_out {
            true => plain + REDIRECTED,
            false => plain,
        }
    }

    fn expect_life(&mut self) {
        let calm = self.now;
        let mut since = calm;
        while self.now.since(calm) < self.patience() {
            self.longest = match self.now.since(calm) {
                time if time > PATIENT => PATIENT_STEP,
                time if time > UPROAR => QUIET_STEP,
                _ => STEP,
            };
            self.step();
            if self.alive(since) && self.agree() {
                self.tally.recovery = self.now.since(calm);
                self.say("traffic both ways");
                return;
            }
            if self.now.since(since) > Duration::from_secs(1) {
                since += Duration::from_millis(500);
            }
        }
        let seconds = self.patience().as_secs();
        for machine in &mut self.machines {
            if self.verbose {
                eprintln!("{}", machine.status(self.now));
            }
        }
        self.broken.push(format!(
            "liveness: no traffic within {seconds} s after the last fault"
        ));
    }

    /// The last probes of each direction arrived in a row, all of them after that.
    fn alive(&self, since: Instant) -> bool {
        [&self.a, &self.b]
            .iter()
            .all(|host| in_a_row(host.received(), since))
    }

    /// Both sides have an SA of each child, the same one: not all of them carry what hosts send.
    fn agree(&mut self) -> bool {
        let now = self.now;
        let told = |machine: &mut Machine| machine.name_servers(now) > 0;
        if self.plan.extras.dns && !self.machines.iter_mut().any(told) {
            return false;
        }
        if !self.plan.extras.transport {
            return true;
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for machine in &mut self.machines {
            match self.plan.peer(machine.who) {
                Some(_) => theirs.extend(machine.child_sas(now)),
                None => ours.extend(machine.child_sas(now)),
            }
        }
        self.machines[0].children().all(|child| {
            let mut own = ours.iter().filter(|[name, ..]| name == child);
            own.any(|[name, spi_in, spi_out]| {
                let mirrored = [name, spi_out, spi_in];
                theirs.iter().any(|sa| sa.each_ref() == mirrored)
            })
        })
    }

    /// What was forgotten on the way shows itself when timers run out; then the rules of liveness
    /// hold once more.
    fn watch_aftermath(&mut self) {
        if self.plan.aftermath.is_zero() || !self.broken.is_empty() {
            return;
        }
        let recovery = self.tally.recovery;
        self.longest = PATIENT_STEP;
        self.run_until(self.now + self.plan.aftermath);
        self.expect_life();
        self.tally.recovery = self.tally.recovery.max(recovery);
    }
}

/// The last probes came one after the other since then: half of them, for ever, are no life.
fn in_a_row(received: &[Probe], since: Instant) -> bool {
    let Some(last) = received.last_chunk::<ALIVE>() else {
        return false;
    };
    let numbers = last.map(|probe| probe.number);
    let span = numbers.iter().max().zip(numbers.iter().min());
    let whole = span.is_some_and(|(max, min)| max - min < ALIVE as u64 + OVERTAKEN);
    whole && last.iter().all(|probe| probe.at > since)
}

/// What a machine is told: a peer is sound, and may know less of RFC 6311. `secrets`: those of the
/// cluster and of the peer, each derived once.
fn part(
    plan: &Plan,
    who: u8,
    topology: &Topology,
    tuning: Tuning,
    secrets: &mut BTreeMap<bool, ClusterSecret>,
) -> Result<(Config, Tuning, ClusterSecret), String> {
    let number = plan.peer(who);
    let config = match number {
        Some(number) => topology.peer_member(number),
        None => topology.member(who),
    };
    let mut config = config.map_err(|error| error.to_string())?;
    plan.login.enter(&mut config, number.is_some())?;
    let tuning = match number {
        Some(_) => Tuning {
            withheld: plan.withheld,
            retransmit_tries: plan.retransmit_tries,
            ..Tuning::default()
        },
        None => Tuning {
            leases: plan.leases,
            // Every second member goes on with what it inherits as if there were very much of it.
            at_once: who.is_multiple_of(2).then_some(0),
            retransmit_tries: plan.retransmit_tries,
            ..tuning
        },
    };
    let secret = secrets.entry(number.is_some());
    let secret = secret.or_insert_with(|| GatewaySettings::cluster_secret_of(&config));
    let secret = secret.clone();
    Ok((config, tuning, secret))
}

/// Behind the peer and behind the cluster.
fn hosts(
    topology: &Topology,
    near: &mut Vec<MemoryPort>,
    protected: &mut Vec<MemoryPort>,
) -> (Host, Host) {
    let stations = topology.inside.stations();
    let host = |ends: &mut Vec<MemoryPort>, mac, gateway, own: fn(&Lane) -> IpAddr| {
        let (cable, end) = memory::link(CABLE, MTU);
        ends.push(end);
        let addresses: Vec<IpAddr> = topology.lanes().iter().map(own).collect();
        let host = Host::new(cable, mac, addresses[0], gateway, PROBE);
        host.with_more(addresses.into_iter().skip(1))
    };
    (
        host(near, [2, 0, 0, 0, 0xa, 1], stations.peer, |lane| {
            lane.host_a
        }),
        host(protected, [2, 0, 0, 0, 0xb, 1], stations.cluster, |lane| {
            lane.host_b
        }),
    )
}

fn topology(plan: &Plan, secret: String) -> Topology {
    Topology {
        peers: plan.peers,
        ike_proposal: plan.ike_proposal,
        esp_proposal: plan.esp_proposal,
        takeover: plan.takeover,
        degraded: plan.degraded,
        checkpoint: plan.checkpoint,
        window_size: plan.window_size,
        dpd_delay: "2s",
        outside: plan.families[0],
        inside: plan.families[1],
        extras: plan.extras,
        ..Topology::new(plan.members, secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_probe_is_no_life() {
        let received = |step: u64| {
            let probe = |number| Probe {
                number: number * step,
                at: Instant(number + 1),
            };
            (0..ALIVE as u64).map(probe).collect::<Vec<_>>()
        };
        assert!(in_a_row(&received(1), Instant(0)));
        assert!(!in_a_row(&received(1), Instant(1)), "too old");
        assert!(!in_a_row(&received(1)[1..], Instant(0)), "too few");
        assert!(!in_a_row(&received(2), Instant(0)));
        let mut swapped = received(1);
        swapped.swap(3, 4);
        swapped[19].number = 20;
        assert!(in_a_row(&swapped, Instant(0)), "overtaken");
    }
}
