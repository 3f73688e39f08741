//! A gateway with two workers behind a network card that spreads its packets over two queues.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hitless::api::{Show, Shown};
use hitless::entropy::SeededEntropy;
use hitless::gateway::{Event, Gateway, GatewaySettings, Output};
use hitless::lab::{
    CLUSTER_INSIDE, HOST_A, HOST_B, Host, Hub, MTU, PEER_INSIDE, Station, Switch, Topology,
    first_start,
};
use hitless_dataplane::handover;
use hitless_dataplane::port::Port;
use hitless_dataplane::port::memory::{self, MemoryPort};
use hitless_dataplane::worker::{self, Leadership, Worker, WorkerHandle, WorkerSettings};
use hitless_sa::{Instant, Workers};

const CABLE: usize = 1024;
const STEP: Duration = Duration::from_micros(250);

/// In place of a queue: to each in turn, packet by packet.
const SPRAY: usize = 2;

/// A network card with two queues: IP packets but IKE go to one of them, all else to the first.
struct Card {
    cable: MemoryPort,
    queues: [MemoryPort; 2],
    sprayed: usize,
}

impl Card {
    fn turn(&mut self, queue: usize) {
        let mut frames = Vec::new();
        while self.cable.pop_frame(|octets| frames.push(octets.to_vec())) {}
        for frame in frames.drain(..) {
            let ip = frame.get(12..14) == Some(&[8, 0]);
            let ike = frame.get(23) == Some(&17) && frame.get(36..38) == Some(&[1, 244]);
            let queue = match (ip && !ike, queue) {
                (false, _) => 0,
                (true, SPRAY) => {
                    self.sprayed += 1;
                    self.sprayed % 2
                }
                (true, queue) => queue,
            };
            self.queues[queue].push_frame(&frame);
        }
        for queue in &mut self.queues {
            while queue.pop_frame(|octets| frames.push(octets.to_vec())) {}
        }
        for frame in frames {
            self.cable.push_frame(&frame);
        }
    }
}

struct World {
    now: Instant,
    entropy: SeededEntropy,
    hub: Hub,
    outside: Switch,
    card: Card,
    inside: Card,
    /// Where the card puts ESP.
    esp_queue: usize,
    /// Where the other card puts what the host sends.
    inside_queue: usize,
    gateway: Gateway,
    workers: Vec<Option<Worker>>,
    peer: (Station, Worker),
    a: Host,
    b: Host,
    events: Vec<Event>,
    traffic: bool,
    rounds: u32,
}

/// Two workers that hand packets over to each other.
fn connected_workers(
    settings: &GatewaySettings,
    ports: [[MemoryPort; 2]; 2],
    leadership: &Arc<Leadership>,
) -> (Vec<Worker>, Vec<WorkerHandle>) {
    let made = ports.into_iter().enumerate().map(|(id, ports)| {
        let settings = WorkerSettings {
            pool_frames: 1024,
            pool_runs: 0,
            sa_capacity: 64,
            ..settings.worker(id, &[MTU, MTU])
        };
        let ports = ports.map(|port| Box::new(port) as Box<dyn Port>).into();
        worker::worker(settings, ports, Arc::clone(leadership)).unwrap()
    });
    let (mut workers, handles): (Vec<_>, Vec<_>) = made.unzip();
    handover::connect(&mut workers);
    (workers, handles)
}

impl World {
    fn new(seed: u64, workers: Workers) -> World {
        let mut entropy = SeededEntropy::new(seed);
        let mut hub = Hub::default();
        let now = Instant(1_000_000_000);
        let topology = Topology::new(1, "open sesame".to_owned());
        let (peer_outside, peer_end) = memory::link(CABLE, MTU);
        let (peer_inside, a) = memory::link(CABLE, MTU);
        let peer = Station::new(
            topology.peer().unwrap(),
            vec![peer_outside, peer_inside],
            &mut hub,
            first_start(),
            now,
            &mut entropy,
        );
        let mut config = topology.member(1).unwrap();
        config.connections[0].children[0].options.workers = workers;
        let settings = GatewaySettings::new(config);
        let leadership = Leadership::new(false);
        let (cable, card_end) = memory::link(CABLE, MTU);
        let (inside_cable, b) = memory::link(CABLE, MTU);
        let (inside, inside_queue) = memory::link(CABLE, MTU);
        let (other_inside, other_inside_queue) = memory::link(CABLE, MTU);
        let (first, first_queue) = memory::link(CABLE, MTU);
        let (second, second_queue) = memory::link(CABLE, MTU);
        let ports = [[first, inside], [second, other_inside]];
        let (workers, handles) = connected_workers(&settings, ports, &leadership);
        let gateway = Gateway::new(
            settings,
            first_start(),
            handles,
            leadership,
            now,
            &mut entropy,
        );
        World {
            now,
            entropy,
            hub,
            outside: Switch::new(vec![peer_end, card_end]),
            card: Card {
                cable,
                queues: [first_queue, second_queue],
                sprayed: 0,
            },
            inside: Card {
                cable: inside_cable,
                queues: [inside_queue, other_inside_queue],
                sprayed: 0,
            },
            esp_queue: 0,
            inside_queue: 0,
            gateway,
            workers: workers.into_iter().map(Some).collect(),
            peer: peer.unwrap(),
            a: Host::new(a, [2, 0, 0, 0, 0xa, 1], HOST_A, PEER_INSIDE, 200),
            b: Host::new(b, [2, 0, 0, 0, 0xb, 1], HOST_B, CLUSTER_INSIDE, 200),
            events: Vec::new(),
            traffic: false,
            rounds: 0,
        }
    }

    fn up(seed: u64) -> World {
        World::with(seed, Workers::Any)
    }

    fn with(seed: u64, workers: Workers) -> World {
        let mut world = World::new(seed, workers);
        world.traffic = true;
        world.run(Duration::from_millis(300));
        world.traffic_flows();
        world
    }

    fn step(&mut self) {
        self.now += STEP;
        self.rounds += 1;
        let now = self.now;
        if self.traffic && self.rounds.is_multiple_of(4) {
            self.a.send(now, HOST_B);
            self.b.send(now, HOST_A);
        }
        let (station, worker) = &mut self.peer;
        worker.turn(now);
        station.turn(
            now,
            &mut self.entropy,
            &mut self.hub,
            &mut |_| {},
            &mut |_| true,
        );
        for worker in self.workers.iter_mut().flatten() {
            worker.turn(now);
        }
        self.gateway.turn(now, &mut self.entropy);
        while let Some(output) = self.gateway.poll_output() {
            match output {
                Output::Persist(_) => self.gateway.persisted(now, &mut self.entropy, true),
                Output::Event(event) => self.events.push(event),
                Output::SyncTransmit(..) | Output::KeyLog(_) | Output::Granted(_) => {}
            }
        }
        self.card.turn(self.esp_queue);
        self.inside.turn(self.inside_queue);
        self.outside.turn(now);
        self.a.turn(now);
        self.b.turn(now);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn received(&self) -> [usize; 2] {
        [self.a.received().len(), self.b.received().len()]
    }

    #[track_caller]
    fn traffic_flows(&mut self) {
        let before = self.received();
        self.run(Duration::from_millis(200));
        let now = self.received();
        assert!(now[0] >= before[0] + 150, "towards a: {before:?} {now:?}");
        assert!(now[1] >= before[1] + 150, "towards b: {before:?} {now:?}");
    }

    /// Packets sent that did not arrive since the last time, once nothing is under way.
    fn lost(&mut self) -> [usize; 2] {
        self.traffic = false;
        self.run(Duration::from_millis(100));
        self.traffic = true;
        let [a, b] = self.received();
        [self.a.sent().len() - b, self.b.sent().len() - a]
    }

    fn replays(&mut self) -> u64 {
        self.drops("replay")
    }

    /// The ESP packets that came out of the cluster's outside port so far.
    fn esp_of_the_cluster(&self) -> Vec<Vec<u8>> {
        let seen = self.outside.capture();
        let esp = seen
            .iter()
            .filter(|seen| seen.port == 0 && seen.frame.get(23) == Some(&50));
        esp.map(|seen| seen.frame.clone()).collect()
    }

    fn no_probe_came_twice(&self) {
        let received = self.b.received();
        let numbers: BTreeSet<u64> = received.iter().map(|probe| probe.number).collect();
        assert_eq!(numbers.len(), received.len(), "a probe came twice");
    }

    fn drops(&mut self, reason: &str) -> u64 {
        let drops = self.gateway.status(self.now).drops;
        let drops = drops.iter().filter(|drop| drop.reason == reason);
        drops.map(|drop| drop.packets).sum()
    }
}

#[test]
fn the_receiving_half_follows_the_peers_packets_from_worker_to_worker() {
    let mut world = World::up(90);
    for round in 0..6 {
        world.esp_queue = round % 2;
        world.run(Duration::from_millis(20));
        world.traffic_flows();
    }
    world.no_probe_came_twice();
}

#[test]
fn a_replay_is_refused_on_whichever_worker_it_arrives() {
    // The window moves with the half: there is never a second one.
    let mut world = World::up(91);
    world.traffic = false;
    world.run(Duration::from_millis(50));
    let old = world.esp_of_the_cluster();
    let (received, replays) = (world.received(), world.replays());
    for (index, frames) in old.chunks(8).enumerate() {
        world.esp_queue = index % 2;
        for frame in frames {
            world.outside.inject(frame);
        }
        world.run(Duration::from_millis(30));
    }
    // What was lost on the way to a worker is new when it comes for the first time; nothing is twice.
    world.no_probe_came_twice();
    assert_eq!(
        world.received()[0],
        received[0],
        "nothing was replayed to that side"
    );
    assert!(world.replays() > replays + 100, "{}", world.replays());
}

#[test]
fn no_packet_is_lost_when_the_card_changes_its_mind() {
    let mut world = World::up(94);
    let before = world.lost();
    for round in 0..8 {
        world.esp_queue = (round + 1) % 2;
        // Once before the half may move again, once after.
        let time = if round < 4 { 30 } else { 150 };
        world.run(Duration::from_millis(time));
    }
    assert_eq!(world.lost(), before);
    assert_eq!(world.drops("unknown_spi") + world.drops("hand_over"), 0);
    world.traffic_flows();
}

#[test]
fn a_fat_sa_is_received_and_sent_on_all_workers_and_refuses_replays_on_each() {
    let mut world = World::with(95, Workers::All);
    let before = world.lost();
    (world.esp_queue, world.inside_queue) = (SPRAY, SPRAY);
    world.run(Duration::from_millis(500));
    assert_eq!(world.lost(), before);
    world.traffic = false;
    let old = world.esp_of_the_cluster();
    let (received, replays) = (world.received(), world.replays());
    for frames in old.chunks(8) {
        for frame in frames {
            world.outside.inject(frame);
        }
        world.run(Duration::from_millis(5));
    }
    assert_eq!(world.received(), received);
    // With ESN those left of the window are taken for the next epoch.
    let refused = world.replays() - replays + world.drops("integrity");
    assert_eq!(refused, old.len() as u64);
    world.run(Duration::from_millis(300));
    let child = world.gateway.list_sas(world.now)[0].children[0].clone();
    let [a, b] = world.received();
    assert_eq!((child.packets_in, child.packets_out), (b as u64, a as u64));
    assert_eq!(world.drops("hand_over") + world.drops("unknown_spi"), 0);
}

#[test]
fn an_sa_of_one_worker_keeps_the_order_whatever_the_cards_do() {
    let mut world = World::with(96, Workers::One);
    let before = world.lost();
    let from = world.received();
    (world.esp_queue, world.inside_queue) = (SPRAY, SPRAY);
    world.run(Duration::from_millis(500));
    assert_eq!(world.lost(), before);
    for (host, from) in [(&world.a, from[0]), (&world.b, from[1])] {
        let numbers = host.received()[from..].iter().map(|probe| probe.number);
        assert!(numbers.is_sorted(), "one path, one order");
    }
}

#[test]
fn counters_are_the_sum_over_workers_wherever_the_half_was() {
    let mut world = World::up(92);
    for round in 0..4 {
        world.esp_queue = round % 2;
        world.run(Duration::from_millis(150));
    }
    world.traffic = false;
    world.run(Duration::from_millis(300));
    let child = world.gateway.list_sas(world.now)[0].children[0].clone();
    let [a, b] = world.received();
    assert_eq!(child.packets_in, b as u64);
    assert_eq!(child.packets_out, a as u64);
    assert!(child.bytes_in > 0 && child.bytes_in.is_multiple_of(child.packets_in));
}

#[test]
fn a_worker_that_ends_is_told_of() {
    let mut world = World::up(93);
    world.workers[1] = None;
    world.run(Duration::from_millis(5));
    let lost = world
        .events
        .iter()
        .filter(|e| matches!(e, Event::WorkerLost { worker: 1 }));
    assert_eq!(lost.count(), 1);
}

#[test]
fn show_is_exact_on_both_workers_in_both_directions() {
    let mut world = World::up(94);
    for round in 0..4 {
        world.esp_queue = round % 2;
        world.run(Duration::from_millis(150));
    }
    world.traffic = false;
    world.run(Duration::from_millis(5));
    let [a, b] = world.received();
    let Ok(Shown::Sas { sas }) = show(&mut world, &Show::Sas { which: None }) else {
        panic!("no SAs");
    };
    let [sa] = sas.as_slice() else {
        panic!("{sas:?}");
    };
    // No checkpoint has told of the last packets, and yet they are counted.
    assert_eq!(sa.inbound.traffic.packets, b as u64);
    assert_eq!(sa.outbound.traffic.packets, a as u64);
    assert_eq!(sa.inbound.traffic.workers.len(), 2, "{sa:?}");
    assert!(sa.inbound.traffic.workers.iter().all(|w| w.packets > 0));
    assert_eq!(sa.inbound.window.top, sa.lease.inbound_top);
    assert_eq!(sa.lease_left, sa.lease.grant + 1 - sa.lease.next);
    assert_eq!(sa.inbound.key, "[redacted, 20 octets]");
    for name in [
        "tunnel",
        "net",
        "tunnel.net",
        &sa.sa,
        &sa.inbound.spi,
        &format!("0x{}", sa.outbound.spi),
    ] {
        let which = Some(name.to_owned());
        let found = show(&mut world, &Show::Sas { which }).unwrap();
        assert_eq!(found, Shown::Sas { sas: sas.clone() }, "{name}");
    }
    let which = Some("nobody".to_owned());
    let error = show(&mut world, &Show::Sas { which }).unwrap_err();
    assert!(
        error.contains("no Child SA is called \"nobody\""),
        "{error}"
    );
    let Ok(Shown::Workers { workers }) = show(&mut world, &Show::Workers {}) else {
        panic!("no workers");
    };
    for worker in &workers {
        assert!(worker.calls > worker.busy_calls && worker.busy_calls > 0);
        assert!(
            (1.0..=32.0).contains(&worker.packets_per_burst),
            "{worker:?}"
        );
        let f = worker.frames;
        assert_eq!(f.total, f.free + f.in_ports + f.parked + f.held, "{f:?}");
    }
    let out: u64 = workers.iter().map(|worker| worker.esp_out_packets).sum();
    assert_eq!(out, a as u64);
}

#[test]
fn a_drop_is_counted_by_its_worker_and_by_its_sa_and_once() {
    let mut world = World::up(95);
    world.traffic = false;
    world.run(Duration::from_millis(50));
    let esp = world.esp_of_the_cluster();
    let mut damaged = esp.last().unwrap().clone();
    *damaged.last_mut().unwrap() ^= 1;
    // A number that was never sent, so that the ICV is what fails.
    damaged[38..42].copy_from_slice(&100_000u32.to_be_bytes());
    world.outside.inject(&damaged);
    world.outside.inject(esp.last().unwrap());
    world.run(Duration::from_millis(5));
    let Ok(Shown::Sas { sas }) = show(&mut world, &Show::Sas { which: None }) else {
        panic!("no SAs");
    };
    let of_sa: Vec<_> = sas[0]
        .inbound
        .traffic
        .drops
        .iter()
        .map(|drop| (drop.reason.as_str(), drop.xfrm.as_str(), drop.packets))
        .collect();
    let wanted = [
        ("replay", "XfrmInStateSeqError", 1),
        ("integrity", "XfrmInStateProtoError", 1),
    ];
    assert_eq!(of_sa, wanted);
    for worker in [None, Some(0)] {
        let Ok(Shown::Drops { drops }) = show(&mut world, &Show::Drops { worker, all: false })
        else {
            panic!("no drops");
        };
        for (reason, xfrm, packets) in wanted {
            let drop = drops.iter().find(|drop| drop.reason == reason).unwrap();
            assert_eq!((drop.xfrm.as_str(), drop.packets), (xfrm, packets));
        }
    }
    let other = Show::Drops {
        worker: Some(1),
        all: true,
    };
    let Ok(Shown::Drops { drops }) = show(&mut world, &other) else {
        panic!("no drops");
    };
    let replays = drops.iter().find(|drop| drop.reason == "replay");
    assert_eq!(replays.map(|drop| drop.packets), Some(0));
    let nobody = Show::Drops {
        worker: Some(2),
        all: false,
    };
    let error = show(&mut world, &nobody).unwrap_err();
    assert_eq!(error, "there is no worker 2; they are 0 to 1");
}

fn show(world: &mut World, what: &Show) -> Result<Shown, String> {
    world.gateway.show(world.now, what)
}
