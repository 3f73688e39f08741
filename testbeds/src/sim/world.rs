//! Machines, cables and disks of one run, one step after another.

use std::time::Duration;

use hitless::config::Config;
use hitless::entropy::SeededEntropy;
use hitless::gateway::Event;
use hitless::ike::Input;
use hitless::lab::{
    CLUSTER_INSIDE, HOST_A, HOST_B, Host, MTU, PEER_INSIDE, Station, Switch, Topology, first_start,
    sync_address,
};
use hitless_dataplane::port::memory::{self, MemoryPort};
use hitless_dataplane::worker::Worker;
use hitless_sa::{Entropy, Incarnation, Instant};
use hitless_sync::Durable;

use super::cable::{Cable, SyncCables};
use super::oracle::Oracle;
use super::plan::{Fault, Plan};

const MEMBERS: u8 = 2;
/// The peer is machine 0.
const PEER: u8 = 0;
const CABLE: usize = 256;
const PROBE: usize = 120;
/// Longest step of the virtual clock.
const STEP: Duration = Duration::from_micros(600);
/// Traffic must flow both ways within this after the last fault.
const LIVENESS: Duration = Duration::from_secs(90);
/// So many probes in a row, each way, show that it does.
const ALIVE: usize = 20;
/// The virtual clock starts here, as no real one starts at zero.
const EPOCH: Instant = Instant(1_000_000_000);

/// A computer: what is plugged in, what is on its disk, and perhaps a process.
struct Machine {
    who: u8,
    config: Config,
    disk: Durable,
    disk_fails: bool,
    running: Option<(Station, Worker)>,
    frozen_until: Instant,
    outside: Cable,
    entropy: SeededEntropy,
}

/// Counts over one run.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    pub takeovers: u64,
    pub crashes: u64,
    pub restarts: u64,
    pub greatest_skip: u64,
    /// From the last fault until traffic flowed both ways.
    pub recovery: Duration,
}

/// One run.
pub struct World {
    now: Instant,
    plan: Plan,
    entropy: SeededEntropy,
    machines: Vec<Machine>,
    outside: Switch,
    protected: Switch,
    sync: SyncCables,
    a: Host,
    b: Host,
    oracle: Oracle,
    next_probe: Instant,
    steps: u64,
    tally: Tally,
    verbose: bool,
    broken: Vec<String>,
}

impl World {
    /// Everything in place for a seed; no time has passed.
    pub fn new(seed: u64, verbose: bool) -> World {
        let mut entropy = SeededEntropy::new(seed);
        let plan = Plan::draw(&mut entropy);
        let draw: &mut dyn Entropy = &mut entropy;
        let secret = format!("{:016x}{:016x}", draw.u64(), draw.u64());
        let topology = Topology {
            ike_proposal: plan.ike_proposal,
            esp_proposal: plan.esp_proposal,
            takeover: plan.takeover,
            dpd_delay: "2s",
            ..Topology::new(MEMBERS, secret)
        };
        let mut outside_ends = Vec::new();
        let mut protected_ends = Vec::new();
        let mut machines = Vec::new();
        let mut starts = Vec::new();
        let (peer_protected, a) = memory::link(CABLE, MTU);
        let mut peer_protected = Some(peer_protected);
        for who in PEER..=MEMBERS {
            let (gateway_end, world_end) = memory::link(CABLE, MTU);
            let (cable_end, switch_end) = memory::link(CABLE, MTU);
            outside_ends.push(switch_end);
            let protected = peer_protected.take().unwrap_or_else(|| {
                let (gateway_end, switch_end) = memory::link(CABLE, MTU);
                protected_ends.push(switch_end);
                gateway_end
            });
            let config = if who == PEER {
                topology.peer()
            } else {
                topology.member(who)
            };
            machines.push(Machine {
                who,
                config: config.expect("the simulator's own configuration is valid"),
                disk: Durable {
                    incarnation: Incarnation(0),
                    ..first_start()
                },
                disk_fails: false,
                running: None,
                frozen_until: EPOCH,
                outside: Cable::new(world_end, cable_end, plan.outside),
                entropy: SeededEntropy::new(draw.u64()),
            });
            starts.push(vec![gateway_end, protected]);
        }
        let (host_b, switch_end) = memory::link(CABLE, MTU);
        protected_ends.push(switch_end);
        let sync = SyncCables::new(plan.sync, Box::new(SeededEntropy::new(draw.u64())));
        let mut world = World {
            now: EPOCH,
            plan,
            entropy,
            machines,
            outside: Switch::unrecorded(outside_ends),
            protected: Switch::unrecorded(protected_ends),
            sync,
            a: Host::new(a, [2, 0, 0, 0, 0xa, 1], HOST_A, PEER_INSIDE, PROBE),
            b: Host::new(host_b, [2, 0, 0, 0, 0xb, 1], HOST_B, CLUSTER_INSIDE, PROBE),
            oracle: Oracle::default(),
            next_probe: EPOCH + Duration::from_millis(300),
            steps: 0,
            tally: Tally::default(),
            verbose,
            broken: Vec::new(),
        };
        for (who, cables) in starts.into_iter().enumerate() {
            world.boot(who as u8, cables);
        }
        world
    }

    /// Runs the plan to its end and says what was broken.
    pub fn run(&mut self) -> Vec<String> {
        if self.verbose {
            eprintln!("{:?}", self.plan);
        }
        for (at, fault) in std::mem::take(&mut self.plan.faults) {
            self.run_until(EPOCH + at);
            self.strike(fault);
        }
        self.run_until(EPOCH + self.plan.calm);
        self.calm();
        self.expect_life();
        let mut broken = std::mem::take(&mut self.broken);
        broken.extend(self.oracle.verdict([&self.a, &self.b]));
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

    fn run_until(&mut self, end: Instant) {
        while self.now < end {
            self.step();
        }
    }

    /// A little time passes, and everybody who is awake does something.
    fn step(&mut self) {
        let draw: &mut dyn Entropy = &mut self.entropy;
        let span = STEP.mul_f64(0.2 + 0.8 * f64::from(draw.u32()) / f64::from(u32::MAX));
        let first = draw.u32() as usize;
        self.now += span;
        self.steps += 1;
        if self.now >= self.next_probe {
            self.next_probe = self.now + self.plan.probe_every;
            self.a.send(self.now, HOST_B);
            self.b.send(self.now, HOST_A);
        }
        let count = self.machines.len();
        for index in 0..count {
            self.turn_machine((first + index) % count);
        }
        self.outside.turn(self.now);
        self.protected.turn(self.now);
        self.a.turn(self.now);
        self.b.turn(self.now);
    }

    fn turn_machine(&mut self, index: usize) {
        let now = self.now;
        let machine = &mut self.machines[index];
        let who = machine.who;
        let mut events = Vec::new();
        if machine.frozen_until <= now
            && let Some((station, worker)) = &mut machine.running
        {
            worker.turn(now);
            let (disk, fails) = (&mut machine.disk, &mut machine.disk_fails);
            let mut persist = |durable| {
                let written = !std::mem::take(fails);
                if written {
                    *disk = durable;
                }
                written
            };
            let mut tell = |event| events.push(event);
            station.turn(
                now,
                &mut machine.entropy,
                &mut self.sync,
                &mut tell,
                &mut persist,
            );
            worker.turn(now);
        }
        let oracle = &mut self.oracle;
        machine
            .outside
            .turn(now, &mut self.entropy, |frame| oracle.sent(now, who, frame));
        for event in events {
            self.hear(who, &event);
        }
    }

    fn hear(&mut self, who: u8, event: &Event) {
        if self.verbose {
            let at = self.virtual_time().as_secs_f64();
            eprintln!("{at:9.4} machine {who}: {event:?}");
        }
        if who == PEER {
            return;
        }
        self.oracle.said(self.now, who, event);
        if let Event::Leads {
            inherits: true,
            skip,
            ..
        } = event
        {
            self.tally.takeovers += 1;
            self.tally.greatest_skip = self.tally.greatest_skip.max(*skip);
        }
    }

    fn boot(&mut self, who: u8, cables: Vec<MemoryPort>) {
        let machine = &mut self.machines[usize::from(who)];
        machine.disk.incarnation.0 += 1;
        let station = Station::new(
            machine.config.clone(),
            cables,
            &mut self.sync,
            machine.disk,
            self.now,
            &mut machine.entropy,
        );
        match station {
            Ok(running) => machine.running = Some(running),
            Err(error) => self
                .broken
                .push(format!("machine {who} did not start: {error}")),
        }
    }

    fn strike(&mut self, fault: Fault) {
        if self.verbose {
            eprintln!("{:9.4} {fault:?}", self.virtual_time().as_secs_f64());
        }
        match fault {
            Fault::Crash(who) => {
                if self.machines[usize::from(who)].running.take().is_some() {
                    self.tally.crashes += 1;
                }
            }
            Fault::Restart(who) => self.restart(who),
            Fault::Deaf { from, to } => self.sync.deafen(sync_address(from), sync_address(to)),
            Fault::Healed => self.sync.heal(),
            Fault::Unplugged(who) => self.machines[usize::from(who)].outside.plugged = false,
            Fault::Plugged(who) => self.machines[usize::from(who)].outside.plugged = true,
            Fault::Frozen(who, span) => {
                self.machines[usize::from(who)].frozen_until = self.now + span;
            }
            Fault::DiskFails(who) => self.machines[usize::from(who)].disk_fails = true,
            Fault::Switchover => {
                let now = self.now;
                for machine in &mut self.machines[1..] {
                    if let Some((station, _)) = &mut machine.running
                        && station.gateway().leading()
                    {
                        station.gateway().switchover(now, &mut machine.entropy);
                    }
                }
            }
            Fault::PeerRekeysChild => self.rekey(true, false),
            Fault::PeerRekeysIke => self.rekey(true, true),
            Fault::ClusterRekeysChild => self.rekey(false, false),
            Fault::ClusterRekeysIke => self.rekey(false, true),
        }
    }

    fn restart(&mut self, who: u8) {
        if self.machines[usize::from(who)].running.is_some() {
            return;
        }
        self.tally.restarts += 1;
        let (outside, world_end) = memory::link(CABLE, MTU);
        self.machines[usize::from(who)].outside.replug(world_end);
        let (protected, switch_end) = memory::link(CABLE, MTU);
        self.protected.plug(usize::from(who) - 1, switch_end);
        self.boot(who, vec![outside, protected]);
    }

    /// The machines that lead rekey all of their SAs of one kind.
    fn rekey(&mut self, peer: bool, ike: bool) {
        let now = self.now;
        let chosen = if peer { 0..1 } else { 1..self.machines.len() };
        for machine in &mut self.machines[chosen] {
            let Some((station, _)) = &mut machine.running else {
                continue;
            };
            let gateway = station.gateway();
            if !gateway.leading() {
                continue;
            }
            for sa in gateway.ike_sas() {
                let inputs: Vec<Input<'_>> = match ike {
                    true => vec![Input::RekeyIke(sa.0)],
                    false => sa.1.into_iter().map(Input::RekeyChild).collect(),
                };
                for input in inputs {
                    gateway.ike(now, &mut machine.entropy, input);
                }
            }
        }
    }

    /// All faults are over: everybody runs, every cable is good.
    fn calm(&mut self) {
        self.sync.heal();
        self.sync.calm();
        for who in 1..=MEMBERS {
            self.machines[usize::from(who)].frozen_until = self.now;
            self.restart(who);
        }
        for machine in &mut self.machines {
            machine.outside.calm();
            machine.disk_fails = false;
        }
    }

    fn expect_life(&mut self) {
        let calm = self.now;
        let end = calm + LIVENESS;
        let mut since = calm;
        while self.now < end {
            self.step();
            // The last probes of each direction, all sent after the storm and in a row.
            let alive = [&self.a, &self.b].iter().all(|host| {
                let received = host.received();
                received.len() >= ALIVE && received[received.len() - ALIVE].at > since
            });
            if alive {
                self.tally.recovery = self.now.since(calm);
                return;
            }
            if self.now.since(since) > Duration::from_secs(1) {
                since += Duration::from_millis(500);
            }
        }
        let seconds = LIVENESS.as_secs();
        self.broken.push(format!(
            "liveness: no traffic within {seconds} s after the last fault"
        ));
    }
}
