//! A cluster, a peer gateway and a host behind each, on one thread and in virtual time.
//!
//! ```text
//!  host a --- peer ---+ outside switch +--- member 1 ---+ protected switch +--- host b
//!                     |                +--- member 2 ---+
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use hitless::api::{GatewayStatus, IkeSaStatus};
use hitless::config::Config;
use hitless::entropy::SeededEntropy;
use hitless::gateway::{Event, Gateway, GatewaySettings, Tuning};
use hitless::ike;
use hitless::ike::work::Share;
use hitless::keylog::KeyLines;
use hitless::lab::{
    Family, Host, Hub, MTU, Station, Stations, Switch, SyncNetwork, Topology, first_start,
    sync_address,
};
use hitless_dataplane::port::memory::{self, MemoryPort};
use hitless_dataplane::wire::ip::Ip;
use hitless_dataplane::worker::Worker;
use hitless_sa::Instant;
use hitless_sync::{Durable, Event as SyncEvent};

use crate::nat::Nat;

/// The peer's number; it is no member.
pub const PEER: u8 = 0;
const CABLE: usize = 1024;
const PROBE: usize = 200;
const STEP: Duration = Duration::from_micros(250);
const PROBE_EVERY: Duration = Duration::from_millis(1);
/// No step of a story takes longer, in virtual time.
const PATIENCE: Duration = Duration::from_secs(180);

/// What becomes of a sync datagram: it may be altered, or dropped (false).
pub type Fate = Box<dyn FnMut(u8, u8, &mut Vec<u8>) -> bool>;

/// The sync network, with faults.
pub struct Network {
    hub: Hub,
    /// Members that hear nobody and are heard by nobody.
    pub isolated: BTreeSet<u8>,
    pub fate: Option<Fate>,
    /// What was sent, if wanted.
    pub recorded: Option<Vec<(u8, u8, Vec<u8>)>>,
}

impl Network {
    /// Puts a datagram into a member's mailbox, as anybody on the network can.
    pub fn forge(&mut self, from: SocketAddr, to: u8, datagram: Vec<u8>) {
        self.hub.send(Instant(0), from, sync_address(to), datagram);
    }
}

fn member_at(address: SocketAddr) -> u8 {
    (1..=9)
        .find(|id| sync_address(*id) == address)
        .expect("a member's address")
}

impl SyncNetwork for Network {
    fn open(&mut self, address: SocketAddr) {
        self.hub.open(address);
    }

    fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, mut datagram: Vec<u8>) {
        let (sender, receiver) = (member_at(from), member_at(to));
        if self.isolated.contains(&sender) || self.isolated.contains(&receiver) {
            return;
        }
        if let Some(recorded) = &mut self.recorded {
            recorded.push((sender, receiver, datagram.clone()));
        }
        let arrives = self
            .fate
            .as_mut()
            .is_none_or(|fate| fate(sender, receiver, &mut datagram));
        if arrives {
            self.hub.send(now, from, to, datagram);
        }
    }

    fn receive(&mut self, now: Instant, address: SocketAddr) -> Option<(SocketAddr, Vec<u8>)> {
        self.hub.receive(now, address)
    }
}

struct Running {
    station: Station,
    worker: Worker,
}

pub struct World {
    pub now: Instant,
    entropy: SeededEntropy,
    pub network: Network,
    pub outside: Switch,
    pub protected: Switch,
    pub a: Host,
    pub b: Host,
    stations: Stations,
    configs: BTreeMap<u8, Config>,
    running: BTreeMap<u8, Running>,
    disks: BTreeMap<u8, Durable>,
    /// Members whose disk refuses.
    pub broken_disks: BTreeSet<u8>,
    /// Gateways whose worker does nothing.
    pub stuck: BTreeSet<u8>,
    /// Gateways whose control thread is busy or away.
    pub away: BTreeSet<u8>,
    /// Members whose copies are broken, from their next start on.
    pub broken_copies: BTreeSet<u8>,
    pub events: Vec<(Instant, u8, Event)>,
    /// What the busiest turn of each gateway took, as IKE counts its work.
    pub busiest: BTreeMap<u8, u64>,
    /// In front of the peer, if there is one.
    pub nat: Option<Nat>,
    /// Whether hosts send probes.
    pub traffic: bool,
    /// Time between two of them.
    pub pace: Duration,
    next_probe: Instant,
    members: u8,
    at_once: Option<usize>,
    /// What gateways do otherwise than others.
    tunings: BTreeMap<u8, Tuning>,
}

impl World {
    /// Two members and a peer with equal settings.
    pub fn new(seed: u64) -> World {
        World::of(seed, &Topology::new(2, "open sesame".to_owned()))
    }

    /// Everything that one topology says.
    pub fn of(seed: u64, topology: &Topology) -> World {
        let members = (1..=topology.members).map(|id| topology.member(id).unwrap());
        World::with(seed, members.collect(), topology.peer().unwrap())
    }

    /// Members with configurations of their own, and a peer.
    pub fn with(seed: u64, members: Vec<Config>, peer: Config) -> World {
        World::tuned(seed, members, peer, BTreeMap::new())
    }

    /// The same, of which some (the peer is 0) do something otherwise.
    pub fn tuned(
        seed: u64,
        members: Vec<Config>,
        peer: Config,
        tunings: BTreeMap<u8, Tuning>,
    ) -> World {
        let count = members.len() as u8;
        let cable = || memory::link(CABLE, MTU).0;
        let (a, b) = (cable(), cable());
        let stations = Family::of(peer.ports[1].addresses[0].address).stations();
        let mut world = World {
            now: Instant(1_000_000_000),
            entropy: SeededEntropy::new(seed),
            network: Network {
                hub: Hub::default(),
                isolated: BTreeSet::new(),
                fate: None,
                recorded: None,
            },
            outside: Switch::new((0..=count).map(|_| cable()).collect()),
            protected: Switch::new((0..=count).map(|_| cable()).collect()),
            a: host_a(a, &stations),
            b: host_b(b, &stations),
            stations,
            configs: BTreeMap::new(),
            running: BTreeMap::new(),
            disks: BTreeMap::new(),
            broken_disks: BTreeSet::new(),
            stuck: BTreeSet::new(),
            away: BTreeSet::new(),
            broken_copies: BTreeSet::new(),
            events: Vec::new(),
            busiest: BTreeMap::new(),
            nat: None,
            traffic: false,
            pace: PROBE_EVERY,
            next_probe: Instant(0),
            members: count,
            // Half of the tests go on with what is inherited as if there were very much of it.
            at_once: (seed % 2 == 1).then_some(0),
            tunings,
        };
        let (end, b) = memory::link(CABLE, MTU);
        world.protected.plug(0, end);
        world.b = host_b(b, &stations);
        world.configs.insert(PEER, peer);
        for (index, config) in members.into_iter().enumerate() {
            world.configs.insert(index as u8 + 1, config);
        }
        for who in 0..=count {
            world.start(who);
        }
        world
    }

    /// Starts a gateway, with what its disk says and nothing else.
    pub fn start(&mut self, who: u8) {
        let config = self.configs[&who].clone();
        let (outside, end) = memory::link(CABLE, MTU);
        self.outside.plug(usize::from(who), end);
        let (protected, end) = memory::link(CABLE, MTU);
        if who == PEER {
            self.a = host_a(end, &self.stations);
        } else {
            self.protected.plug(usize::from(who), end);
        }
        let durable = match self.disks.get(&who) {
            None => first_start(),
            Some(last) => Durable {
                incarnation: hitless_sa::Incarnation(last.incarnation.0 + 1),
                ..*last
            },
        };
        self.disks.insert(who, durable);
        let mut ports: Vec<MemoryPort> = vec![outside, protected];
        if config.ports[0].protected {
            ports.reverse();
        }
        let tuning = Tuning {
            at_once: self.at_once,
            broken_copies: self.broken_copies.contains(&who),
            ..self.tunings.get(&who).copied().unwrap_or_default()
        };
        let (station, worker) = Station::with(
            GatewaySettings::new(config).tuned(tuning),
            ports,
            &mut self.network,
            durable,
            self.now,
            &mut self.entropy,
        )
        .unwrap();
        self.running.insert(who, Running { station, worker });
    }

    /// The configuration that a gateway was started with.
    pub fn config(&self, who: u8) -> Config {
        self.configs[&who].clone()
    }

    /// Ends a gateway: nothing is flushed.
    pub fn kill(&mut self, who: u8) {
        self.running.remove(&who).expect("it runs");
    }

    pub fn gateway(&mut self, who: u8) -> &mut Gateway {
        self.running
            .get_mut(&who)
            .expect("it runs")
            .station
            .gateway()
    }

    /// A request to a gateway.
    pub fn ask(
        &mut self,
        who: u8,
        request: impl FnOnce(&mut Gateway, Instant, &mut SeededEntropy),
    ) {
        let gateway = self
            .running
            .get_mut(&who)
            .expect("it runs")
            .station
            .gateway();
        request(gateway, self.now, &mut self.entropy);
    }

    /// One round of everybody.
    pub fn step(&mut self) {
        self.now += STEP;
        let now = self.now;
        if self.traffic && now >= self.next_probe {
            self.a.send(now, self.stations.host_b);
            self.b.send(now, self.stations.host_a);
            self.next_probe = now + self.pace;
        }
        let (disks, events) = (&mut self.disks, &mut self.events);
        for (who, running) in &mut self.running {
            let healthy = !self.broken_disks.contains(who);
            let mut persist = |durable| {
                if healthy {
                    disks.insert(*who, durable);
                }
                healthy
            };
            let mut tell = |event| events.push((now, *who, event));
            if !self.stuck.contains(who) {
                running.worker.turn(now);
            }
            if !self.away.contains(who) {
                let share = Share::new(0);
                running.station.turn(
                    now,
                    &mut self.entropy,
                    &mut self.network,
                    &mut tell,
                    &mut persist,
                );
                let busiest = self.busiest.entry(*who).or_default();
                *busiest = share.used().max(*busiest);
            }
            if !self.stuck.contains(who) {
                running.worker.turn(now);
            }
        }
        if let Some(nat) = &mut self.nat {
            nat.turn();
        }
        self.outside.turn(now);
        self.protected.turn(now);
        self.a.turn(now);
        self.b.turn(now);
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    /// Runs until it is so.
    pub fn until(&mut self, what: &str, mut so: impl FnMut(&mut World) -> bool) {
        let end = self.now + PATIENCE;
        while !so(self) {
            self.step();
            assert!(
                self.now < end,
                "{what}: not in {PATIENCE:?}; {}",
                self.tail()
            );
        }
    }

    /// The end of the log, for a failed test.
    fn tail(&self) -> String {
        let last = self.events.iter().rev().take(12).rev();
        last.map(|(at, who, event)| format!("\n  {at:?} {who}: {event:?}"))
            .collect()
    }

    /// Up with a standby that may take over, a tunnel, and traffic both ways.
    pub fn with_traffic(seed: u64) -> World {
        let mut world = World::new(seed);
        world.come_up();
        world
    }

    pub fn come_up(&mut self) {
        self.until("a tunnel with a standby", |world| {
            world.tunnel_is_up() && (world.members < 2 || world.standby_is_ready())
        });
        self.traffic = true;
        self.run(Duration::from_millis(300));
        assert!(
            self.received().iter().all(|n| *n > 100),
            "{:?}",
            self.received()
        );
    }

    /// Whether the peer has a Child SA.
    pub fn tunnel_is_up(&self) -> bool {
        self.happened(PEER, |event| {
            matches!(event, Event::Ike(ike::Event::ChildEstablished { .. }))
        })
    }

    /// Whether the active one says that each other running member may take over.
    pub fn standby_is_ready(&mut self) -> bool {
        let Some(leader) = self.leader() else {
            return false;
        };
        let status = self.status(leader);
        let others: Vec<u8> = self
            .running
            .keys()
            .copied()
            .filter(|w| *w != PEER)
            .collect();
        status
            .members
            .iter()
            .filter(|member| others.contains(&member.id))
            .all(|member| member.bound)
            && !status.degraded
    }

    /// The one member that carries traffic.
    pub fn leader(&mut self) -> Option<u8> {
        let leaders = self.leaders();
        match leaders.as_slice() {
            [leader] => Some(*leader),
            _ => None,
        }
    }

    pub fn leaders(&mut self) -> Vec<u8> {
        let members = self.running.iter_mut().filter(|(who, _)| **who != PEER);
        members
            .filter_map(|(who, running)| running.station.gateway().leading().then_some(*who))
            .collect()
    }

    /// The key log of a gateway: a line for each direction of each Child SA.
    pub fn key_log(&self, who: u8) -> String {
        let keys = self.running[&who].station.keys().iter();
        keys.map(KeyLines::expose).collect()
    }

    /// The ledger of a gateway, as its file would have it.
    pub fn ledger(&self, who: u8) -> Vec<String> {
        let grants = self.running[&who].station.grants().iter();
        grants.map(ToString::to_string).collect()
    }

    pub fn status(&mut self, who: u8) -> GatewayStatus {
        let now = self.now;
        self.gateway(who).status(now)
    }

    pub fn list_sas(&mut self, who: u8) -> Vec<IkeSaStatus> {
        let now = self.now;
        self.gateway(who).list_sas(now)
    }

    /// How many a gateway has dropped for a reason.
    pub fn drops(&mut self, who: u8, reason: &str) -> u64 {
        let drops = self.status(who).drops;
        drops
            .iter()
            .filter(|d| d.reason == reason)
            .map(|d| d.packets)
            .sum()
    }

    pub fn happened(&self, who: u8, what: impl Fn(&Event) -> bool) -> bool {
        self.since(0).any(|(w, event)| w == who && what(event))
    }

    /// What happened since the log was so long.
    pub fn since(&self, length: usize) -> impl Iterator<Item = (u8, &Event)> {
        self.events[length..]
            .iter()
            .map(|(_, who, event)| (*who, event))
    }

    pub fn sync_happened(&self, who: u8, what: impl Fn(&SyncEvent) -> bool) -> bool {
        self.happened(
            who,
            |event| matches!(event, Event::Sync(event) if what(event)),
        )
    }

    /// Probes received by each host.
    pub fn received(&self) -> [usize; 2] {
        [self.a.received().len(), self.b.received().len()]
    }

    /// Traffic still flows both ways; gives up soon.
    pub fn traffic_flows(&mut self) {
        let before = self.received();
        self.until("traffic both ways", |world| {
            let now = world.received();
            now[0] >= before[0] + 50 && now[1] >= before[1] + 50
        });
    }

    /// What must hold in every story: no ESP number twice for one SPI, and no probe twice.
    pub fn audit(&self) {
        let mut seen = BTreeSet::new();
        for packet in self.esp() {
            assert!(
                seen.insert((packet.spi, packet.number)),
                "number {} of SPI {:08x} was sent twice",
                packet.number,
                packet.spi
            );
        }
        for host in [&self.a, &self.b] {
            let numbers: BTreeSet<u64> = host.received().iter().map(|probe| probe.number).collect();
            assert_eq!(numbers.len(), host.received().len(), "a probe came twice");
            assert_eq!(host.altered(), 0);
        }
    }

    /// Every ESP packet that crossed the outside switch.
    pub fn esp(&self) -> Vec<Esp> {
        let frames = self.outside.capture().iter();
        let esp = frames.filter_map(|captured| {
            let (protocol, payload) = carried(&captured.frame)?;
            if protocol != ESP {
                return None;
            }
            Some(Esp {
                port: captured.port,
                spi: u32::from_be_bytes(payload.get(..4)?.try_into().ok()?),
                // Invariant S2: the IV is the 64-bit number.
                number: u64::from_be_bytes(payload.get(8..16)?.try_into().ok()?),
                frame: captured.frame.clone(),
            })
        });
        esp.collect()
    }

    /// Exchange types of the IKE messages that crossed the outside switch since then.
    pub fn exchanges_since(&self, since: Instant) -> Vec<u8> {
        let frames = self.outside.capture().iter().filter(|c| c.at >= since);
        frames.filter_map(|c| exchange(&c.frame)).collect()
    }
}

/// The exchange type of the IKE message in a frame.
pub fn exchange(frame: &[u8]) -> Option<u8> {
    let (protocol, udp) = carried(frame)?;
    if protocol != UDP {
        return None;
    }
    let ike = match udp.get(2..4)? == [0x01, 0xf4] {
        true => udp.get(8..)?,
        // Else it is ESP (RFC 3948 section 2.2).
        false => udp.get(8..)?.strip_prefix(&[0; 4])?,
    };
    ike.get(18).copied()
}

pub const ESP: u8 = 50;
pub const UDP: u8 = 17;

fn host_a(cable: MemoryPort, stations: &Stations) -> Host {
    let mac = [2, 0, 0, 0, 0xa, 1];
    Host::new(cable, mac, stations.host_a, stations.peer, PROBE)
}

fn host_b(cable: MemoryPort, stations: &Stations) -> Host {
    let mac = [2, 0, 0, 0, 0xb, 1];
    Host::new(cable, mac, stations.host_b, stations.cluster, PROBE)
}

/// What the IP packet in a frame carries: its protocol, and the octets.
pub fn carried(frame: &[u8]) -> Option<(u8, &[u8])> {
    match Ip::parse(frame.get(14..)?).ok()? {
        Ip::V4(ip) => Some((ip.protocol(), ip.payload())),
        Ip::V6(ip) => Some((ip.next_header(), ip.payload())),
    }
}

/// An ESP packet on the wire.
pub struct Esp {
    /// Of the outside switch: 0 is the peer, else the member.
    pub port: usize,
    pub spi: u32,
    pub number: u64,
    pub frame: Vec<u8>,
}
