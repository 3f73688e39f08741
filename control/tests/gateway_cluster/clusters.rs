//! Two clusters that are each other's peer (RFC 6311 appendix A.4): both active members die in one
//! step.
//!
//! ```text
//!  host a ---+--- member 9 ----+ outside +--- member 1 ---+--- host b
//!            +--- member 10 ---+         +--- member 2 ---+
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use hitless::entropy::SeededEntropy;
use hitless::gateway::{Event, GatewaySettings, Tuning};
use hitless::ike;
use hitless::lab::{Family, Host, Hub, MTU, Station, Switch, Topology, first_start};
use hitless_dataplane::port::memory::{self, MemoryPort};
use hitless_dataplane::worker::Worker;
use hitless_sa::Instant;

use crate::world::{ESP, carried, exchange};

const IKE_AUTH: u8 = 35;
const STEP: Duration = Duration::from_micros(250);
const ONE: [u8; 2] = [1, 2];
const OTHER: [u8; 2] = [9, 10];

struct Member {
    station: Station,
    worker: Worker,
}

/// Both clusters and the hosts behind them.
struct Clusters {
    now: Instant,
    entropy: SeededEntropy,
    hub: Hub,
    outside: Switch,
    /// Behind each cluster, with its host.
    inside: [Switch; 2],
    hosts: [Host; 2],
    addresses: [IpAddr; 2],
    members: BTreeMap<u8, Member>,
    /// Which member has which port of the outside switch.
    ports: Vec<u8>,
    events: Vec<(u8, Event)>,
    steps: u64,
    /// The hosts are silent.
    quiet: bool,
    /// A member whose control thread does not run.
    away: Option<u8>,
}

impl Clusters {
    fn new(seed: u64, takeover: &'static str) -> Clusters {
        Clusters::tuned(seed, takeover, Tuning::default())
    }

    fn tuned(seed: u64, takeover: &'static str, tuning: Tuning) -> Clusters {
        let mut topology = Topology::new(2, "open sesame".to_owned());
        topology.peers = 2;
        topology.takeover = takeover;
        let mut hub = Hub::default();
        let mut entropy = SeededEntropy::new(seed);
        let now = Instant(1_000_000_000);
        let (mut outside, mut insides) = (Vec::new(), [Vec::new(), Vec::new()]);
        let stations = Family::V4.stations();
        let mut hosts = Vec::new();
        let ends = [
            (stations.host_b, stations.cluster, 0xb),
            (stations.host_a, stations.peer, 0xa),
        ];
        for (side, (address, gateway, last)) in ends.into_iter().enumerate() {
            let (cable, end) = memory::link(1024, MTU);
            insides[side].push(cable);
            hosts.push(Host::new(end, [2, 0, 0, 0, last, 1], address, gateway, 200));
        }
        let (mut members, mut at_ports) = (BTreeMap::new(), Vec::new());
        for (side, ids) in [ONE, OTHER].into_iter().enumerate() {
            for (number, id) in ids.into_iter().enumerate() {
                let config = match side {
                    0 => topology.member(id),
                    _ => topology.peer_member(number as u8),
                };
                let (port, cable) = memory::link(1024, MTU);
                outside.push(cable);
                at_ports.push(id);
                let (protected, cable) = memory::link(1024, MTU);
                insides[side].push(cable);
                let config = config.unwrap();
                let mut ports: Vec<MemoryPort> = vec![port, protected];
                if config.ports[0].protected {
                    ports.reverse();
                }
                let settings = GatewaySettings::new(config).tuned(tuning);
                let (station, worker) =
                    Station::with(settings, ports, &mut hub, first_start(), now, &mut entropy)
                        .unwrap();
                members.insert(id, Member { station, worker });
            }
        }
        let [one, other] = insides;
        Clusters {
            now,
            entropy,
            hub,
            outside: Switch::new(outside),
            inside: [Switch::unrecorded(one), Switch::unrecorded(other)],
            hosts: hosts.try_into().ok().unwrap(),
            addresses: ends.map(|(address, ..)| address),
            members,
            ports: at_ports,
            events: Vec::new(),
            steps: 0,
            quiet: false,
            away: None,
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        self.steps += 1;
        let now = self.now;
        if self.steps.is_multiple_of(4) && !self.quiet {
            let [b, a] = self.addresses;
            self.hosts[0].send(now, a);
            self.hosts[1].send(now, b);
        }
        let events = &mut self.events;
        for (id, member) in &mut self.members {
            member.worker.turn(now);
            if self.away == Some(*id) {
                continue;
            }
            member.station.turn(
                now,
                &mut self.entropy,
                &mut self.hub,
                &mut |event| events.push((*id, event)),
                &mut |_| true,
            );
            member.worker.turn(now);
        }
        self.outside.turn(now);
        for side in 0..2 {
            self.inside[side].turn(now);
            self.hosts[side].turn(now);
        }
    }

    fn until(&mut self, what: &str, mut so: impl FnMut(&mut Clusters) -> bool) {
        for _ in 0..40_000 {
            self.step();
            if so(self) {
                return;
            }
        }
        panic!(
            "{what}: {:?}",
            &self.events[self.events.len().saturating_sub(8)..]
        );
    }

    fn leader(&mut self, of: [u8; 2]) -> Option<u8> {
        let mut members = self.members.iter_mut().filter(|(id, _)| of.contains(id));
        members.find_map(|(id, m)| m.station.gateway().leading().then_some(*id))
    }

    /// Whether the standby of this leader may take over.
    fn is_covered(&mut self, leader: u8) -> bool {
        let now = self.now;
        let gateway = self.members.get_mut(&leader).unwrap().station.gateway();
        let status = gateway.status(now);
        !status.degraded && status.members.iter().all(|member| member.bound)
    }

    fn come_up(&mut self) {
        self.until("both clusters with a standby and a tunnel", |world| {
            let leaders = [ONE, OTHER].map(|of| world.leader(of));
            let [Some(one), Some(other)] = leaders else {
                return false;
            };
            let up =
                |event: &Event| matches!(event, Event::Ike(ike::Event::ChildEstablished { .. }));
            world.is_covered(one)
                && world.is_covered(other)
                && world.events.iter().any(|(_, event)| up(event))
        });
        self.traffic_flows("traffic before");
    }

    fn received(&self) -> [usize; 2] {
        [0, 1].map(|side| self.hosts[side].received().len())
    }

    fn traffic_flows(&mut self, what: &str) {
        let before = self.received();
        self.until(what, |world| {
            let now = world.received();
            now[0] >= before[0] + 200 && now[1] >= before[1] + 200
        });
    }

    /// The numbers that a member sent.
    fn numbers(&self, member: u8) -> impl DoubleEndedIterator<Item = u64> {
        // The ports of the outside switch are in the order of the members.
        let port = self.ports.iter().position(|id| *id == member);
        let frames = self.outside.capture().iter();
        let frames = frames.filter(move |captured| Some(captured.port) == port);
        frames.filter_map(|captured| match carried(&captured.frame) {
            Some((ESP, esp)) => Some(u64::from_be_bytes(esp.get(8..16)?.try_into().ok()?)),
            _ => None,
        })
    }

    fn last_sent(&self, member: u8) -> Option<u64> {
        self.numbers(member).next_back()
    }

    /// No number of an SPI twice, no probe twice; gives the exchanges since then.
    fn audit(&self, since: Instant) -> Vec<u8> {
        let mut seen = BTreeSet::new();
        let mut exchanges = Vec::new();
        for captured in self.outside.capture() {
            match carried(&captured.frame) {
                Some((ESP, esp)) => {
                    let number: [u8; 8] = esp[8..16].try_into().unwrap();
                    assert!(seen.insert((esp[..4].to_vec(), number)), "sent twice");
                }
                _ if captured.at > since => exchanges.extend(exchange(&captured.frame)),
                _ => {}
            }
        }
        for host in &self.hosts {
            let numbers: BTreeSet<u64> = host.received().iter().map(|p| p.number).collect();
            assert_eq!(numbers.len(), host.received().len(), "a probe came twice");
            assert_eq!(host.altered(), 0);
        }
        exchanges
    }
}

/// The RFC's own example of a leap, asked of a cluster, by the original initiator and by the original
/// responder. The active that took it dies at once, or when it has sent numbers above it: the record that the
/// answer waited for grants numbers above it either way, and the successor sends no other.
#[test]
fn rfc6311_r18_r29_a_cluster_that_was_asked_to_leap_by_2_to_the_30_fails_over() {
    const LEAP: u64 = 1 << 30;
    for (asking, asked) in [(ONE, OTHER), (OTHER, ONE)] {
        for at_once in [true, false] {
            let mut world = Clusters::new(410, "auto");
            world.come_up();
            let leader = world.leader(asking).unwrap();
            let gateway = world.members.get_mut(&leader).unwrap().station.gateway();
            let ike = gateway.ike_sas()[0].0;
            let delta = LEAP;
            let sync = ike::Input::ReplayCounterSync { ike, delta };
            gateway.ike(world.now, &mut world.entropy, sync);
            let told = |event: &Event| {
                matches!(
                    event,
                    Event::Ike(ike::Event::ReplayCounterSync { delta: LEAP, .. })
                )
            };
            world.until("the leap", |world| {
                world.events.iter().any(|(_, event)| told(event))
            });
            let active = world.leader(asked).unwrap();
            if !at_once {
                world.until("numbers above the leap", |world| {
                    world.last_sent(active) > Some(LEAP)
                });
            }
            let died = world.now;
            world.members.remove(&active);
            world.until("a successor", |world| world.leader(asked).is_some());
            world.traffic_flows("traffic after");
            let successor = world.leader(asked).unwrap();
            let last = world.last_sent(successor).unwrap();
            assert!(last > LEAP, "{last}");
            assert!(last < LEAP + (1 << 30), "{last}");
            let exchanges = world.audit(died);
            assert!(!exchanges.contains(&IKE_AUTH), "{exchanges:?}");
        }
    }
}

/// What the successor of the active that asked has sent finds an IKE SA that waits for its turn: the
/// answer says that the leap is made, so it is, though there was no SA to make it with yet.
#[test]
fn rfc6311_r29_a_leap_asked_of_a_successor_that_has_not_gone_on_yet_is_made() {
    let tuning = Tuning {
        at_once: Some(0),
        ..Tuning::default()
    };
    let mut world = Clusters::tuned(411, "message-id-sync", tuning);
    world.come_up();
    let [asking, asked] = [OTHER, ONE].map(|of| world.leader(of).unwrap());
    let now = world.now;
    let gateway = world.members.get_mut(&asked).unwrap().station.gateway();
    let grant = gateway.status(now).leases[0].grant;
    world.quiet = true;
    world.members.remove(&asking);
    world.members.remove(&asked);
    world.until("the successor that is asked", |world| {
        world.leader(ONE).is_some()
    });
    // Its control thread comes back to a request that its worker has taken.
    let heir = world.leader(ONE).unwrap();
    world.away = Some(heir);
    let asks = |event: &Event| matches!(event, Event::Ike(ike::Event::MessageIdSyncSent { .. }));
    world.until("a request", |world| {
        world.events.iter().any(|(_, event)| asks(event))
    });
    for _ in 0..4_000 {
        world.step();
    }
    world.away = None;
    world.quiet = false;
    world.until("numbers of the successor", |world| {
        world.last_sent(heir).is_some()
    });
    let made = world.events.iter().find_map(|(who, event)| match event {
        Event::Ike(ike::Event::ReplayCounterSync { delta, .. }) if *who == heir => Some(*delta),
        _ => None,
    });
    let delta = made.expect("the successor was asked");
    let first = world.numbers(heir).next().unwrap();
    assert!(delta > 0);
    assert!(first > grant + delta, "{first} after {grant}, {delta}");
    world.traffic_flows("traffic after");
    world.audit(now);
}

#[test]
fn rfc6311_appendix_a4_two_clusters_that_are_each_other_s_peer_lose_both_actives_in_one_step() {
    for (seed, takeover) in [(400, "auto"), (401, "message-id-sync"), (402, "exact")] {
        let mut world = Clusters::new(seed, takeover);
        world.come_up();
        let died = world.now;
        for of in [ONE, OTHER] {
            let leader = world.leader(of).unwrap();
            world.members.remove(&leader);
        }
        let since = world.events.len();
        world.until("both successors", |world| {
            [ONE, OTHER].iter().all(|of| world.leader(*of).is_some())
        });
        let outage = world.now.since(died);
        assert!(outage < Duration::from_millis(50), "{outage:?}");
        world.traffic_flows("traffic after");
        // What the takeovers set going has come to its end.
        for _ in 0..40_000 {
            world.step();
        }
        world.traffic_flows("traffic long after");
        let exchanges = world.audit(died);
        assert!(!exchanges.contains(&IKE_AUTH), "{takeover}: {exchanges:?}");
        let synced =
            |event: &Event| matches!(event, Event::Ike(ike::Event::MessageIdSynced { .. }));
        let synced = world.events[since..]
            .iter()
            .filter(|(_, e)| synced(e))
            .count();
        assert_eq!(synced > 0, takeover == "message-id-sync", "{synced}");
    }
}
