//! A cluster under a virtual clock: nodes, their processes and disks, and a network that loses,
//! delays, repeats and reorders. Everything follows from one seed.

#![expect(dead_code, reason = "each test binary uses its part")]

pub mod gateway;
pub mod intercept;
pub mod oracle;
pub mod random;
pub mod weather;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::time::Duration;

use hitless_sa::{Epoch, Incarnation, Instant, Lease, MemberId, SaId};
use hitless_sync::{
    Durable, Event, Input, LeaseSizes, Member, Mutant, Node, ObjectId, Output, Role, Settings,
    Status, TakeoverObject,
};

use gateway::{Change, Gateway, body};
use oracle::Oracle;
use random::Random;
pub use weather::Weather;

pub const MILLISECOND: u64 = 1_000_000;

/// When, which object and version, and the leases of its children.
pub type Released = (u64, ObjectId, u64, Vec<(SaId, Lease)>);

/// What becomes of the writes of a member, for as long as a test says so.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    Works,
    /// So long, each of them.
    Takes(u64),
    /// EIO.
    Refuses,
    /// No answer at all.
    Hangs,
}

/// One configured member: a disk, and sometimes a process.
pub struct Site {
    pub id: MemberId,
    pub disk: Durable,
    pub writes: Disk,
    /// What is being written, and when it will be done.
    writing: Option<(u64, Durable)>,
    pub node: Option<Node>,
    pub gateway: Gateway,
    clock: u64,
    /// Parts per million that its clock runs fast or slow.
    drift: i64,
    /// The control thread does nothing until then; the workers go on.
    pub paused_until: u64,
    restart_at: u64,
    doom: Option<u64>,
    pub events: Vec<Event>,
    pub committed: Vec<Released>,
    pub discarded: Vec<(ObjectId, u64)>,
    pub leads: Vec<(Option<Epoch>, Vec<TakeoverObject>)>,
    pub incarnation: u32,
}

impl Site {
    /// What its clock shows.
    pub fn time(&self, now: u64) -> Instant {
        let drifted = now as i64 + now as i64 / 1_000_000 * self.drift;
        Instant(drifted as u64 + self.clock)
    }

    /// When its clock will show that.
    fn when(&self, at: Instant) -> u64 {
        let shown = at.0.saturating_sub(self.clock) as i64;
        let mut now = shown - shown / 1_000_000 * self.drift;
        while self.time(now as u64) < at {
            now += 1 + (at.0 - self.time(now as u64).0) as i64;
        }
        now as u64
    }
}

struct Flying {
    to: usize,
    from: MemberId,
    payload: Vec<u8>,
}

pub struct World {
    pub random: Random,
    pub now: u64,
    pub sites: Vec<Site>,
    pub oracle: Oracle,
    pub weather: Weather,
    pub settings: Settings,
    /// (from, to) that hear nothing.
    pub cut: BTreeSet<(MemberId, MemberId)>,
    heal_at: u64,
    wire: BinaryHeap<Reverse<(u64, u64, usize)>>,
    flying: Vec<Option<Flying>>,
    /// Packets held back by a test: (from, to) are captured instead of sent.
    pub capture: Option<(MemberId, MemberId)>,
    pub captured: Vec<Vec<u8>>,
    pub keep_leads: bool,
    pub restarts: bool,
    pub traffic: bool,
    pub exchanges: bool,
    next_work: u64,
}

impl World {
    pub fn new(seed: u64, members: u8, weather: Weather, mutant: Mutant) -> World {
        World::with(seed, members, weather, |settings| settings.mutant = mutant)
    }

    /// In calm weather, with settings of its own, and long settled: the first member leads.
    pub fn settled_with(seed: u64, members: u8, adjust: impl FnOnce(&mut Settings)) -> World {
        let mut world = World::with(seed, members, Weather::CALM, adjust);
        world.restarts = false;
        world.keep_leads = true;
        assert!(world.run_until(3_000, World::settled), "seed {seed}");
        world.run(200);
        assert_eq!(world.leader(), Some(0), "seed {seed}");
        world
    }

    /// With settings of its own.
    pub fn with(
        seed: u64,
        members: u8,
        weather: Weather,
        adjust: impl FnOnce(&mut Settings),
    ) -> World {
        let list: Vec<Member> = (1..=members)
            .map(|id| Member {
                id: MemberId(id),
                priority: 10 * (members + 1 - id),
            })
            .collect();
        let mut settings = Settings::new(MemberId(0), list, [7; 32]);
        settings.leases = LeaseSizes {
            first: lease(8),
            outbound: (16, 16),
            outbound_short: (16, 16),
            inbound: (12, 12),
            exchange: Duration::from_millis(20),
        };
        settings.hold = Duration::from_millis(200);
        adjust(&mut settings);
        let mut random = Random(seed);
        let sites = (1..=members)
            .map(|id| Site {
                id: MemberId(id),
                disk: Durable::default(),
                writes: Disk::Works,
                writing: None,
                node: None,
                gateway: Gateway::new(MemberId(id), Incarnation(0)),
                clock: random.below(1 << 40),
                drift: random.below(9_000) as i64 - 4_500,
                paused_until: 0,
                restart_at: 0,
                doom: None,
                events: Vec::new(),
                committed: Vec::new(),
                discarded: Vec::new(),
                leads: Vec::new(),
                incarnation: 0,
            })
            .collect();
        let mut world = World {
            random,
            now: 0,
            sites,
            oracle: Oracle::default(),
            weather,
            settings,
            cut: BTreeSet::new(),
            heal_at: 0,
            wire: BinaryHeap::new(),
            flying: Vec::new(),
            capture: None,
            captured: Vec::new(),
            keep_leads: false,
            restarts: true,
            traffic: true,
            exchanges: true,
            next_work: 0,
        };
        for site in 0..world.sites.len() {
            world.start(site);
        }
        world
    }

    pub fn start(&mut self, index: usize) {
        let site = &mut self.sites[index];
        // The boot counter is raised and written before the node is made.
        site.disk.incarnation = Incarnation(site.disk.incarnation.0 + 1);
        site.incarnation = site.disk.incarnation.0;
        let mut settings = self.settings.clone();
        settings.me = site.id;
        let now = site.time(self.now);
        site.node = Some(Node::new(settings, site.disk, now));
        site.gateway = Gateway::new(site.id, site.disk.incarnation);
        site.paused_until = 0;
    }

    /// The process dies; a write that is under way is on disk or not.
    pub fn crash(&mut self, index: usize) {
        let down = self.random.range(1, 300) * MILLISECOND;
        let flip = self.random.chance(500);
        let site = &mut self.sites[index];
        site.doom = None;
        site.node = None;
        site.gateway.leading = false;
        site.gateway.cells.clear();
        if let Some((_, durable)) = site.writing.take()
            && flip
        {
            site.disk = durable;
        }
        site.restart_at = self.now + down;
    }

    pub fn handle(&mut self, index: usize, input: Input<'_>) {
        let site = &mut self.sites[index];
        let now = site.time(self.now);
        let Some(node) = &mut site.node else { return };
        node.handle(now, &mut self.random, input);
        self.drain(index);
    }

    fn drain(&mut self, index: usize) {
        loop {
            let site = &mut self.sites[index];
            let Some(node) = &mut site.node else { return };
            let Some(output) = node.poll_output() else {
                if let (Some(epoch), true) = (node_epoch(node, self.now), site.gateway.leading) {
                    self.oracle.name(epoch, site.gateway.term);
                }
                return;
            };
            // A process may die between any two effects.
            if self.weather.crash > 0 && self.random.below(40_000) < self.weather.crash {
                return self.crash(index);
            }
            site.gateway.obey(&output, &mut self.oracle);
            match output {
                Output::Datagram { to, payload } => {
                    let from = site.id;
                    self.transmit(from, to, &payload);
                }
                Output::Persist(durable) => {
                    let delay = self.random.range(1, self.weather.write_delay);
                    let site = &mut self.sites[index];
                    let at = match site.writes {
                        Disk::Works | Disk::Refuses => self.now + delay,
                        Disk::Takes(time) => self.now + time,
                        Disk::Hangs => u64::MAX,
                    };
                    assert!(site.writing.is_none(), "one write at a time");
                    site.writing = Some((at, durable));
                }
                Output::Event(event) => site.events.push(event),
                Output::Freeze => {
                    let ends = site.gateway.ends();
                    let now = site.time(self.now);
                    if let Some(node) = &mut site.node {
                        node.handle(now, &mut self.random, Input::Ends(ends));
                    }
                }
                Output::Committed {
                    object,
                    version,
                    leases,
                } => site.committed.push((self.now, object, version, leases)),
                Output::Discard { object, version } => site.discarded.push((object, version)),
                Output::Lead { objects, base, .. } if self.keep_leads => {
                    site.leads.push((base, objects));
                }
                Output::Lead { .. } if self.random.chance(self.weather.short_life) => {
                    site.doom = Some(self.now + self.random.range(1, 40) * MILLISECOND);
                }
                _ => {}
            }
        }
    }

    fn transmit(&mut self, from: MemberId, to: MemberId, payload: &[u8]) {
        assert!(payload.len() <= 60_000);
        if self.capture == Some((from, to)) {
            self.captured.push(payload.to_vec());
            return;
        }
        let weather = self.weather;
        let copies = 1 + u64::from(self.random.chance(weather.duplicate));
        for _ in 0..copies {
            if self.cut.contains(&(from, to)) || self.random.chance(weather.loss) {
                continue;
            }
            let mut delay = self.random.range(100_000, 1_500_000);
            if self.random.chance(weather.straggle) {
                delay += self.random.below(weather.long_delay);
            }
            self.launch(from, to, payload.to_vec(), delay);
        }
    }

    /// Puts a datagram on the wire, come what may.
    pub fn launch(&mut self, from: MemberId, to: MemberId, payload: Vec<u8>, delay: u64) {
        let Some(index) = self.sites.iter().position(|site| site.id == to) else {
            return;
        };
        let at = self.now + delay;
        let slot = self.flying.len();
        self.flying.push(Some(Flying {
            to: index,
            from,
            payload,
        }));
        self.wire.push(Reverse((at, slot as u64, slot)));
    }

    /// Runs for so many milliseconds, or until something is violated.
    pub fn run(&mut self, milliseconds: u64) {
        self.run_until(milliseconds, |_| false);
    }

    /// Runs until it holds; false if it does not in that time.
    pub fn run_until(&mut self, milliseconds: u64, holds: impl Fn(&World) -> bool) -> bool {
        let end = self.now + milliseconds * MILLISECOND;
        while self.now < end && self.oracle.violation.is_none() {
            if holds(self) {
                return true;
            }
            self.step(end);
        }
        holds(self)
    }

    fn step(&mut self, end: u64) {
        let wire = self.wire.peek().map(|Reverse((at, _, _))| *at);
        let timers = self.sites.iter().filter_map(|site| {
            let at = site.node.as_ref()?.poll_timeout()?;
            Some(site.when(at).max(site.paused_until))
        });
        let writes = self
            .sites
            .iter()
            .filter_map(|site| site.writing.map(|(at, _)| at));
        let next = timers
            .chain(writes)
            .chain(wire)
            .chain([self.next_work])
            .min();
        self.now = next.unwrap_or(end).clamp(self.now, end);
        if wire.is_some_and(|at| at <= self.now) {
            if let Some(Reverse((_, _, slot))) = self.wire.pop()
                && let Some(flying) = self.flying[slot].take()
            {
                self.arrive(flying);
            }
            return;
        }
        for index in 0..self.sites.len() {
            self.finish_write(index);
            self.wake(index);
        }
        if self.now >= self.next_work {
            self.next_work = self.now + MILLISECOND;
            self.trouble();
            self.work();
        }
    }

    fn arrive(&mut self, flying: Flying) {
        let paused_until = self.sites[flying.to].paused_until;
        if paused_until > self.now {
            // It waits in the socket.
            let Flying { to, from, payload } = flying;
            let to = self.sites[to].id;
            self.launch(from, to, payload, paused_until - self.now);
            return;
        }
        let input = Input::Datagram {
            from: flying.from,
            payload: &flying.payload,
        };
        self.handle(flying.to, input);
    }

    fn finish_write(&mut self, index: usize) {
        let failure = self.random.chance(self.weather.write_failure);
        let flip = self.random.chance(500);
        let site = &mut self.sites[index];
        let Some((_, durable)) = site.writing.filter(|(at, _)| *at <= self.now) else {
            return;
        };
        site.writing = None;
        let refused = site.writes == Disk::Refuses;
        let failure = failure || refused;
        if !failure || flip && !refused {
            site.disk = durable;
        }
        let input = if failure {
            Input::PersistFailed
        } else {
            Input::Persisted
        };
        self.handle(index, input);
    }

    fn wake(&mut self, index: usize) {
        let site = &self.sites[index];
        let due = site.node.as_ref().and_then(Node::poll_timeout);
        let now = site.time(self.now);
        if site.paused_until <= self.now && due.is_some_and(|at| at <= now) {
            self.handle(index, Input::Timeout);
        }
    }

    fn trouble(&mut self) {
        let weather = self.weather;
        if self.now >= self.heal_at && self.heal_at != 0 {
            self.cut.clear();
            self.heal_at = 0;
        }
        if self.random.chance(weather.partition) && self.heal_at == 0 {
            let both = self.random.chance(600);
            let a = self.random.below(self.sites.len() as u64) as usize;
            let id = self.sites[a].id;
            for other in self.sites.iter().map(|site| site.id).filter(|o| *o != id) {
                self.cut.insert((id, other));
                if both {
                    self.cut.insert((other, id));
                }
            }
            self.heal_at = self.now + self.random.range(5, 400) * MILLISECOND;
        }
        for index in 0..self.sites.len() {
            if self.sites[index].node.is_none() {
                if self.restarts && self.now >= self.sites[index].restart_at {
                    self.start(index);
                }
                continue;
            }
            let doomed = self.sites[index].doom.is_some_and(|at| at <= self.now);
            if doomed || self.random.chance(weather.crash) {
                self.crash(index);
            } else if self.random.chance(weather.pause) {
                let pause = self.random.range(1, 150) * MILLISECOND;
                self.sites[index].paused_until = self.now + pause;
            } else if self.random.chance(weather.switchover) {
                self.handle(index, Input::Switchover);
            }
        }
    }

    /// A millisecond of work: packets through the cells, exchanges, the control thread's scan.
    pub fn work(&mut self) {
        for index in 0..self.sites.len() {
            if self.traffic {
                let site = &mut self.sites[index];
                site.gateway.draw(&mut self.random, &mut self.oracle);
            }
            if self.sites[index].paused_until > self.now || self.sites[index].node.is_none() {
                continue;
            }
            self.scan(index);
            if self.sites[index].gateway.drain && self.random.chance(300) {
                self.sites[index].gateway.drain = false;
                self.handle(index, Input::Drained);
            }
            let changes = self.sites[index].gateway.repair();
            for change in changes {
                self.commit(index, change);
            }
            if self.exchanges && self.sites[index].gateway.leading {
                self.engine(index);
            }
        }
        if self.traffic {
            self.peers();
        }
    }

    fn scan(&mut self, index: usize) {
        if !self.sites[index].gateway.leading || self.random.chance(300) {
            return;
        }
        let usage = self.sites[index].gateway.usage();
        self.handle(index, Input::Usage(usage));
        if self.random.chance(100) {
            for (sa, checkpoint) in self.sites[index].gateway.checkpoints() {
                self.handle(index, Input::Checkpoint { sa, checkpoint });
            }
        }
    }

    fn engine(&mut self, index: usize) {
        let gateway = &mut self.sites[index].gateway;
        let changes = if gateway.cells.len() < 4 && self.random.chance(100) {
            vec![gateway.create()]
        } else if self.random.chance(60) {
            gateway.exchange(&mut self.random)
        } else {
            Vec::new()
        };
        for change in changes {
            self.commit(index, change);
        }
    }

    pub fn commit(&mut self, index: usize, change: Change) {
        if !self.sites[index].gateway.holds(&change) {
            return;
        }
        if change.delete {
            self.oracle.deleting.insert(change.object);
        }
        let input = Input::Commit {
            object: change.object,
            version: change.version,
            body: body(&change),
            children: change.children,
        };
        self.handle(index, input);
    }

    /// The peers send, and somebody repeats what they sent before.
    fn peers(&mut self) {
        let mut sas = BTreeSet::new();
        for site in &self.sites {
            sas.extend(site.gateway.cells.keys().copied());
        }
        for sa in sas {
            let top = *self.oracle.peers.entry(sa).or_default();
            let count = self.random.below(4);
            let replays = self.random.below(3);
            let mut numbers: Vec<u64> = (top + 1..=top + count).collect();
            self.oracle.peers.insert(sa, top + count);
            for _ in 0..replays {
                let back = self.random.below(24);
                numbers.push((top + count).saturating_sub(back).max(1));
            }
            for n in numbers.into_iter().filter(|n| *n <= top + count) {
                for site in &mut self.sites {
                    if !self.random.chance(100) {
                        site.gateway.receive(sa, n, &mut self.oracle);
                    }
                }
            }
        }
    }

    /// The storm is over.
    pub fn calm(&mut self) {
        self.weather = Weather::CALM;
        self.cut.clear();
        for site in &mut self.sites {
            site.doom = None;
        }
        self.heal_at = 0;
    }

    pub fn status(&self, index: usize) -> Option<Status> {
        let site = &self.sites[index];
        let now = site.time(self.now);
        site.node.as_ref().map(|node| node.status(now))
    }

    pub fn role(&self, index: usize) -> Option<Role> {
        self.status(index).map(|status| status.role)
    }

    pub fn leader(&self) -> Option<usize> {
        let leads = |index: &usize| self.role(*index) == Some(Role::Leading);
        (0..self.sites.len()).find(leads)
    }

    /// One leads, all others may take over, nothing is held for long.
    pub fn settled(&self) -> bool {
        let count = |role| {
            let all = 0..self.sites.len();
            all.filter(|index| self.role(*index) == Some(role)).count()
        };
        let witnesses = usize::from(self.settings.witness.is_some());
        count(Role::Leading) == 1 && count(Role::Admitted) == self.sites.len() - 1 - witnesses
    }

    pub fn check(&self) -> Result<(), String> {
        match &self.oracle.violation {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }
}

fn node_epoch(node: &Node, now: u64) -> Option<Epoch> {
    let status = node.status(Instant(now));
    matches!(status.role, Role::Leading | Role::HandingOver)
        .then_some(status.epoch)
        .flatten()
}

pub fn lease(n: u64) -> hitless_sa::Lease {
    hitless_sa::Lease {
        grant: hitless_sa::SequenceNumber(n),
        high_water: hitless_sa::SequenceNumber(n),
    }
}
