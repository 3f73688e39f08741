//! Two engines, one virtual clock, a seeded source of randomness, and a network between them that
//! can lose, duplicate, delay and translate.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hitless::ike::auth::AuthSettings;
use hitless::ike::fragments::Fragmentation;
use hitless::ike::proposal::Identification;
use hitless::ike::settings::{Child, Connection, EngineSettings, Secret, Takeover};
use hitless::ike::{ChildChange, Commit, Engine, Event, Input, Output, Resume};
use hitless_sa::{
    ChildSa, Entropy, IkeSpi, Incarnation, Instant, MemberId, Mode, SaId, TrafficSelector,
};
use zeroize::Zeroizing;

/// splitmix64.
pub struct Seeded(pub u64);

impl Seeded {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn chance(&mut self, permille: u64) -> bool {
        self.next() % 1000 < permille
    }
}

impl Entropy for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let octets = self.next().to_be_bytes();
            chunk.copy_from_slice(&octets[..chunk.len()]);
        }
    }
}

/// What the network does to datagrams, in permille, and the greatest delay.
#[derive(Clone, Copy, Default, Debug)]
pub struct Faults {
    pub loss: u64,
    pub duplication: u64,
    pub delay: Duration,
}

pub const SECOND: Duration = Duration::from_secs(1);
pub const A: usize = 0;
pub const B: usize = 1;

/// One end: an engine and a model of its dataplane.
pub struct Host {
    pub engine: Engine,
    pub settings: EngineSettings,
    pub events: Vec<Event>,
    /// Newest record of each IKE SA.
    pub records: Records,
    pub sad: BTreeMap<SaId, (Arc<ChildSa>, String, bool)>,
    /// Every datagram that was released, in order.
    pub sent: Vec<Vec<u8>>,
    /// The host is dead: what is sent to it is lost.
    pub dead: bool,
    /// Commits that the standby has not acknowledged, with the time when it will have.
    held: VecDeque<(Instant, Commit)>,
    /// The version of each IKE SA that is released.
    released: BTreeMap<IkeSpi, u64>,
}

#[derive(Clone)]
pub struct Packet {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub payload: Vec<u8>,
}

/// The newest record of each IKE SA of a host.
pub type Records = BTreeMap<IkeSpi, (u64, Vec<u8>)>;

pub struct World {
    pub now: Instant,
    pub entropy: Seeded,
    pub hosts: [Host; 2],
    pub faults: Faults,
    /// How long a commit waits for the standby.
    pub lag: Duration,
    wire: BTreeMap<(Instant, u64), Packet>,
    serial: u64,
    /// Addresses that no datagram reaches.
    pub unreachable: Vec<std::net::IpAddr>,
    /// A NAT in front of A: address and port that B sees.
    pub nat: Option<SocketAddr>,
    /// What A was last seen to use behind the NAT.
    inner: Option<SocketAddr>,
    /// Every datagram that was released, in order, as a capture has it.
    pub captured: Vec<Packet>,
    /// The key log of both ends: a line of Wireshark's for each IKE SA that came to be.
    pub key_log: BTreeSet<String>,
    /// The request that each host answered last, and the answer.
    pub answered: [Option<(Packet, Vec<u8>)>; 2],
}

pub fn address(host: usize) -> std::net::IpAddr {
    ["192.0.2.1", "192.0.2.2"][host].parse().unwrap()
}

pub fn identity(host: usize) -> Identification {
    Identification::Fqdn(["a.test", "b.test"][host].to_owned())
}

fn selectors(text: &str) -> Vec<TrafficSelector> {
    vec![text.parse().unwrap()]
}

pub fn child(host: usize, name: &str, start: bool) -> Child {
    let mut sides = ["10.1.0.0/16", "10.2.0.0/16"];
    if host == B {
        sides.reverse();
    }
    Child {
        name: name.to_owned(),
        mode: Mode::Tunnel,
        esp_proposals: vec!["aes128gcm16-x25519-esn".parse().unwrap()],
        local_ts: selectors(sides[0]),
        remote_ts: selectors(sides[1]),
        dynamic: Default::default(),
        per_cpu_sas: 0,
        rekey_time: Duration::ZERO,
        lifetimes: Default::default(),
        replay_window: 1024,
        options: hitless_sa::SaOptions::default(),
        start,
    }
}

/// So many children with selectors of their own; A starts them.
pub fn several(host: usize, count: usize) -> Vec<Child> {
    let one = |number: usize| {
        let mut one = child(host, &format!("net{number}"), host == A);
        let mut sides = [10, 20].map(|first| selectors(&format!("{first}.{number}.0.0/16")));
        if host == B {
            sides.reverse();
        }
        [one.local_ts, one.remote_ts] = sides;
        one
    };
    (0..count).map(one).collect()
}

/// Settings of one end; A starts the child `net`.
pub fn settings(host: usize) -> EngineSettings {
    let other = 1 - host;
    EngineSettings::new(
        MemberId(host as u8 + 1),
        Incarnation(1),
        vec![Connection {
            name: "peer".to_owned(),
            local_addrs: vec![address(host)],
            remote_addrs: vec![address(other)],
            remote_port: 500,
            fragmentation: Fragmentation::Yes,
            fragment_size: 1280,
            proposals: vec!["aes128gcm16-prfsha256-x25519".parse().unwrap()],
            local_id: identity(host),
            remote_id: identity(other),
            encap: false,
            dpd_delay: Duration::from_secs(20),
            rekey_time: Duration::ZERO,
            takeover: Takeover::Auto,
            inbound: Default::default(),
            roads: Default::default(),
            session: Default::default(),
            auth: AuthSettings::default(),
            children: vec![child(host, "net", host == A)],
        }],
        vec![Secret {
            ids: Vec::new(),
            secret: Zeroizing::new(b"0123456789abcdef".to_vec()),
        }],
    )
}

impl Host {
    pub fn new(settings: EngineSettings) -> Host {
        Host {
            engine: Engine::new(settings.clone()),
            settings,
            events: Vec::new(),
            records: BTreeMap::new(),
            sad: BTreeMap::new(),
            sent: Vec::new(),
            dead: false,
            held: VecDeque::new(),
            released: BTreeMap::new(),
        }
    }

    fn apply(&mut self, change: ChildChange) {
        match change {
            ChildChange::Install {
                child, name, send, ..
            } => {
                let id = child.id;
                assert!(
                    self.sad.insert(id, (child, name, send)).is_none(),
                    "{id} installed twice"
                );
            }
            ChildChange::Send(id) => {
                let entry = self.sad.get_mut(&id).expect("only what is installed sends");
                assert!(!entry.2, "{id} sends already");
                entry.2 = true;
            }
            ChildChange::Update(child) => {
                let entry = self
                    .sad
                    .get_mut(&child.id)
                    .expect("only what is installed moves");
                entry.0 = child;
            }
            ChildChange::Remove(id) => {
                assert!(
                    self.sad.remove(&id).is_some(),
                    "{id} removed, not installed"
                );
            }
        }
    }

    pub fn saw(&self, matches: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(matches)
    }

    pub fn count(&self, matches: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|e| matches(e)).count()
    }
}

/// Applies a commit to a standby's records.
fn record(records: &mut Records, commit: &Commit) {
    match &commit.record {
        Some(record) => {
            records.insert(commit.ike, (commit.version, record.body.to_vec()));
        }
        None => {
            records.remove(&commit.ike);
        }
    }
}

/// Whether a datagram is an IKE response.
pub fn is_response(payload: &[u8]) -> bool {
    payload.get(19).is_some_and(|flags| flags & 0x20 != 0)
}

/// The Message ID of a datagram.
pub fn message_id(packet: &Packet) -> u32 {
    u32::from_be_bytes(packet.payload[20..24].try_into().unwrap())
}

impl World {
    pub fn new(seed: u64, a: EngineSettings, b: EngineSettings) -> World {
        let mut world = World {
            now: Instant(1_000_000_000_000),
            entropy: Seeded(seed),
            hosts: [Host::new(a), Host::new(b)],
            faults: Faults::default(),
            lag: Duration::ZERO,
            wire: BTreeMap::new(),
            serial: 0,
            unreachable: Vec::new(),
            nat: None,
            inner: None,
            captured: Vec::new(),
            key_log: BTreeSet::new(),
            answered: [None, None],
        };
        // B first: what starts on A finds it.
        world.lead(B, Resume::Exact);
        world.lead(A, Resume::Exact);
        world
    }

    /// Two ends with default settings.
    pub fn pair(seed: u64) -> World {
        World::new(seed, settings(A), settings(B))
    }

    /// Two ends that have established everything.
    pub fn established(seed: u64) -> World {
        let mut world = World::pair(seed);
        world.run(Duration::from_secs(1));
        world.assert_agreement(1);
        world
    }

    pub fn lead(&mut self, host: usize, resume: Resume) {
        let engine = &mut self.hosts[host].engine;
        engine.lead(self.now, &mut self.entropy, &mut |_| resume);
        self.drain(host);
    }

    /// What the time of day is, for both ends.
    pub fn set_time_of_day(&mut self, since_1970: Duration) {
        for host in &mut self.hosts {
            host.engine.set_time_of_day(self.now, since_1970);
        }
    }

    pub fn input(&mut self, host: usize, input: Input<'_>) {
        self.hosts[host]
            .engine
            .handle(self.now, &mut self.entropy, input);
        self.drain(host);
    }

    fn drain(&mut self, host: usize) {
        while let Some(output) = self.hosts[host].engine.poll_output() {
            match output {
                Output::Transmit(transmit) => self.send(host, transmit),
                Output::Retransmit {
                    ike,
                    version,
                    transmit,
                } => {
                    let released = self.hosts[host].released.get(&ike);
                    if released.is_some_and(|released| *released >= version) {
                        self.send(host, transmit);
                    }
                }
                Output::Commit(commit) => {
                    let at = self.now + self.lag;
                    self.hosts[host].held.push_back((at, commit));
                    if self.lag.is_zero() {
                        self.release(host);
                    }
                }
                Output::Event(event) => {
                    self.log_keys(host, &event);
                    self.hosts[host].events.push(event);
                }
            }
        }
    }

    /// As the gateway writes `control.key_log`.
    fn log_keys(&mut self, host: usize, event: &Event) {
        let ike = match event {
            Event::IkeEstablished { ike, .. } => *ike,
            Event::IkeRekeyed { new, .. } => *new,
            _ => return,
        };
        if let Some(lines) = self.hosts[host].engine.key_lines(ike) {
            self.key_log.insert(lines.expose().to_owned());
        }
    }

    /// Releases the commits that the standby has acknowledged.
    fn release(&mut self, host: usize) {
        while let Some((_, commit)) = self.hosts[host]
            .held
            .pop_front_if(|(at, _)| *at <= self.now)
        {
            let end = &mut self.hosts[host];
            let known = end.released.insert(commit.ike, commit.version);
            assert!(
                known.is_none_or(|known| commit.version > known),
                "versions rise"
            );
            record(&mut end.records, &commit);
            for change in commit.changes {
                end.apply(change);
            }
            for transmit in commit.transmits {
                self.send(host, transmit);
            }
        }
    }

    fn send(&mut self, host: usize, transmit: hitless::ike::Transmit) {
        let mut packet = Packet {
            from: transmit.local,
            to: transmit.remote,
            payload: transmit.payload,
        };
        self.hosts[host].sent.push(packet.payload.clone());
        if let Some(outside) = self.nat {
            if host == A {
                self.inner = Some(packet.from);
                packet.from = outside;
            } else if packet.to.ip() == outside.ip() {
                packet.to = self.inner.expect("A spoke first");
            }
        }
        self.captured.push(packet.clone());
        if self.entropy.chance(self.faults.loss) {
            return;
        }
        let copies = 1 + u32::from(self.entropy.chance(self.faults.duplication));
        for _ in 0..copies {
            let most = self.faults.delay.as_nanos() as u64;
            let delay = 1_000_000
                + if most > 0 {
                    self.entropy.next() % most
                } else {
                    0
                };
            let at = self.now + Duration::from_nanos(delay);
            self.serial += 1;
            self.wire.insert((at, self.serial), packet.clone());
        }
    }

    /// Puts a datagram on the wire, as anybody can.
    pub fn inject(&mut self, packet: Packet) {
        self.serial += 1;
        self.wire.insert((self.now, self.serial), packet);
    }

    /// Takes everything off the wire.
    pub fn intercept(&mut self) -> Vec<Packet> {
        std::mem::take(&mut self.wire).into_values().collect()
    }

    /// Hands a datagram to its receiver at once.
    pub fn deliver(&mut self, packet: &Packet) {
        let of_a = &self.hosts[A].settings.connections[0].local_addrs;
        let host = usize::from(!of_a.contains(&packet.to.ip()));
        if self.hosts[host].dead || self.unreachable.contains(&packet.to.ip()) {
            return;
        }
        let before = self.hosts[host].sent.len();
        self.input(
            host,
            Input::Datagram {
                local: packet.to,
                remote: packet.from,
                payload: &packet.payload,
            },
        );
        let answer = self.hosts[host].sent[before..]
            .iter()
            .find(|p| is_response(p));
        if let Some(answer) = answer {
            self.answered[host] = Some((packet.clone(), answer.clone()));
        }
    }

    /// A point on the wire's time line, for `unsend`.
    pub fn mark(&self) -> u64 {
        self.serial
    }

    /// Takes back what a host sent since `mark`: it was held, and the host died with it.
    pub fn unsend(&mut self, host: usize, mark: u64) {
        let ours = |packet: &Packet| (packet.to.ip() == address(A)) == (host == B);
        self.wire
            .retain(|(_, serial), packet| *serial <= mark || !ours(packet));
    }

    /// Does the next thing that is due until `end`; false when nothing is.
    pub fn step(&mut self, end: Instant) -> bool {
        let arrival = self.wire.keys().next().map(|(at, _)| *at);
        let timeout = |host: usize| {
            let host = &self.hosts[host];
            host.engine.poll_timeout().filter(|_| !host.dead)
        };
        let (a, b) = (timeout(A), timeout(B));
        let held = self
            .hosts
            .iter()
            .filter_map(|h| h.held.front().map(|(at, _)| *at))
            .min();
        let next = [arrival, a, b, held].into_iter().flatten().min();
        let Some(next) = next.filter(|at| *at <= end) else {
            return false;
        };
        self.now = self.now.max(next);
        if held == Some(next) {
            self.release(A);
            self.release(B);
        } else if arrival == Some(next) {
            if let Some((_, packet)) = self.wire.pop_first() {
                self.deliver(&packet);
            }
        } else {
            self.input(if a == Some(next) { A } else { B }, Input::Timeout);
        }
        true
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        while self.step(end) {
            steps += 1;
            assert!(steps < 200_000, "the engines do not come to rest");
        }
        self.now = end;
    }

    /// The IKE SAs of a host that are established.
    pub fn ike_sas(&self, host: usize) -> Vec<IkeSpi> {
        let status = self.hosts[host].engine.status(self.now);
        let established = status.iter().filter(|s| s.state.name() == "ESTABLISHED");
        established.map(|s| s.local_spi).collect()
    }

    pub fn ike(&self, host: usize) -> IkeSpi {
        let sas = self.ike_sas(host);
        assert_eq!(sas.len(), 1, "one IKE SA");
        sas[0]
    }

    /// The one Child SA that a host sends on.
    pub fn sa(&self, host: usize) -> Arc<ChildSa> {
        let mut sending = self.hosts[host].sad.values().filter(|(_, _, send)| *send);
        let (sa, _, _) = sending.next().expect("a Child SA");
        sa.clone()
    }

    /// Both ends have the same number of Child SAs, in pairs with the same keys, and one IKE SA.
    pub fn assert_agreement(&self, children: usize) {
        for (host, other) in [(A, B), (B, A)] {
            assert_eq!(self.ike_sas(host).len(), 1, "IKE SAs of {host}");
            let sad = &self.hosts[host].sad;
            assert_eq!(sad.len(), children, "Child SAs of {host}");
            for (sa, name, _) in sad.values() {
                let peer = self.hosts[other].sad.values();
                let mut peer = peer.filter(|(p, _, _)| p.inbound_spi == sa.outbound_spi);
                let (peer, _, _) = peer.next().unwrap_or_else(|| panic!("{name} has no peer"));
                assert_eq!(peer.outbound_spi, sa.inbound_spi);
                assert_eq!(peer.inbound_key, sa.outbound_key);
                assert_eq!(peer.outbound_key, sa.inbound_key);
                assert_eq!((peer.esn, peer.suite), (sa.esn, sa.suite));
                assert_eq!(peer.remote_ts, sa.local_ts);
                assert_eq!(peer.local_ts, sa.remote_ts);
            }
        }
    }

    /// Records of IKE SAs that live; the others are graves.
    pub fn living(&self, host: usize) -> usize {
        let host = &self.hosts[host];
        let living = host.records.keys();
        living.filter(|ike| !host.engine.buried(**ike)).count()
    }

    /// The host dies; another member with its records takes its place.
    pub fn fail_over(&mut self, host: usize, resume: Resume) {
        let records = self.hosts[host].records.clone();
        self.fail_over_with(host, records, resume);
    }

    /// The host dies with commits that are held; the standby has recorded the first few of them,
    /// but its acknowledgements are lost.
    pub fn fail_over_held(&mut self, host: usize, recorded: usize, resume: Resume) {
        let mut records = self.hosts[host].records.clone();
        for (_, commit) in self.hosts[host].held.iter().take(recorded) {
            record(&mut records, commit);
        }
        self.fail_over_with(host, records, resume);
    }

    pub fn fail_over_with(&mut self, host: usize, records: Records, resume: Resume) {
        let mut settings = self.hosts[host].settings.clone();
        settings.member = MemberId(settings.member.0 + 10);
        self.go_on_with(host, (settings, None), records, resume);
    }

    /// The host dies; the member that takes its place reads this file, after what it stored or `before`.
    pub fn fail_over_reloaded(&mut self, host: usize, mut file: EngineSettings, before: bool) {
        file.member = MemberId(file.member.0 + 10);
        let records = self.hosts[host].records.clone();
        let files = match before {
            true => (file, None),
            false => {
                let mut old = self.hosts[host].settings.clone();
                old.member = file.member;
                (old, Some(file))
            }
        };
        self.go_on_with(host, files, records, Resume::Exact);
    }

    /// The same member once more, with nothing that it had.
    pub fn restart(&mut self, host: usize) {
        let mut settings = self.hosts[host].settings.clone();
        settings.incarnation.0 += 1;
        self.go_on_with(host, (settings, None), Records::new(), Resume::Exact);
    }

    fn go_on_with(
        &mut self,
        host: usize,
        (settings, file): (EngineSettings, Option<EngineSettings>),
        records: Records,
        resume: Resume,
    ) {
        let mut next = Host::new(settings);
        for (ike, (version, body)) in &records {
            next.engine
                .store(self.now, *ike, *version, body)
                .expect("a good record");
        }
        if let Some(file) = file {
            next.settings.connections.clone_from(&file.connections);
            next.engine.reload(self.now, &mut self.entropy, file);
        }
        next.released = records.iter().map(|(ike, (v, _))| (*ike, *v)).collect();
        next.records = records;
        next.sent = std::mem::take(&mut self.hosts[host].sent);
        self.hosts[host] = next;
        self.lead(host, resume);
    }
}
