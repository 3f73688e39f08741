//! A gateway with two workers behind a network card that spreads its packets over two queues.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hitless::entropy::SeededEntropy;
use hitless::gateway::{Event, Gateway, GatewaySettings, Output};
use hitless::lab::{
    CLUSTER_INSIDE, HOST_A, HOST_B, Host, Hub, MTU, PEER_INSIDE, Station, Switch, Topology,
    first_start,
};
use hitless_dataplane::handover;
use hitless_dataplane::port::Port;
use hitless_dataplane::port::memory::{self, MemoryPort};
use hitless_dataplane::worker::{self, Leadership, Worker, WorkerSettings};
use hitless_sa::Instant;

const CABLE: usize = 1024;
const STEP: Duration = Duration::from_micros(250);

/// A network card with two queues: ESP goes to one of them, all else to the first.
struct Card {
    cable: MemoryPort,
    queues: [MemoryPort; 2],
}

impl Card {
    fn turn(&mut self, esp_queue: usize) {
        let mut frames = Vec::new();
        while self.cable.pop_frame(|octets| frames.push(octets.to_vec())) {}
        for frame in frames.drain(..) {
            let esp = frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&50);
            self.queues[if esp { esp_queue } else { 0 }].push_frame(&frame);
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
    gateway: Gateway,
    workers: Vec<Option<Worker>>,
    peer: (Station, Worker),
    a: Host,
    b: Host,
    events: Vec<Event>,
    traffic: bool,
    rounds: u32,
}

impl World {
    fn new(seed: u64) -> World {
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
        let settings = GatewaySettings::new(topology.member(1).unwrap());
        let leadership = Leadership::new(false);
        let (cable, card_end) = memory::link(CABLE, MTU);
        let (inside_cable, b) = memory::link(CABLE, MTU);
        let (inside, inside_queue) = memory::link(CABLE, MTU);
        let (other_inside, other_inside_queue) = memory::link(CABLE, MTU);
        let (first, first_queue) = memory::link(CABLE, MTU);
        let (second, second_queue) = memory::link(CABLE, MTU);
        let ports = [[first, inside], [second, other_inside]];
        let made = ports.into_iter().enumerate().map(|(id, ports)| {
            let settings = WorkerSettings {
                pool_frames: 1024,
                pool_runs: 0,
                sa_capacity: 64,
                ..settings.worker(id, &[MTU, MTU])
            };
            let ports = ports.map(|port| Box::new(port) as Box<dyn Port>).into();
            worker::worker(settings, ports, Arc::clone(&leadership)).unwrap()
        });
        let (mut workers, handles): (Vec<_>, Vec<_>) = made.unzip();
        handover::connect(&mut workers);
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
            },
            inside: Card {
                cable: inside_cable,
                queues: [inside_queue, other_inside_queue],
            },
            esp_queue: 0,
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
        let mut world = World::new(seed);
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
                Output::SyncTransmit(..) => {}
            }
        }
        self.card.turn(self.esp_queue);
        self.inside.turn(0);
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

    fn replays(&self) -> u64 {
        let drops = self.gateway.status(self.now).drops;
        let replays = drops.iter().filter(|drop| drop.reason == "replay");
        replays.map(|drop| drop.packets).sum()
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
    let numbers: BTreeSet<u64> = world
        .b
        .received()
        .iter()
        .map(|probe| probe.number)
        .collect();
    assert_eq!(
        numbers.len(),
        world.b.received().len(),
        "a probe came twice"
    );
}

#[test]
fn a_replay_is_refused_on_whichever_worker_it_arrives() {
    // The window moves with the half: there is never a second one.
    let mut world = World::up(91);
    world.traffic = false;
    world.run(Duration::from_millis(50));
    let old: Vec<Vec<u8>> = world
        .outside
        .capture()
        .iter()
        .filter(|c| c.port == 0 && c.frame.get(23) == Some(&50))
        .map(|c| c.frame.clone())
        .collect();
    let (received, replays) = (world.received(), world.replays());
    for (index, frames) in old.chunks(8).enumerate() {
        world.esp_queue = index % 2;
        for frame in frames {
            world.outside.inject(frame);
        }
        world.run(Duration::from_millis(30));
    }
    // What was lost on the way to a worker is new when it comes for the first time; nothing is twice.
    let numbers: BTreeSet<u64> = world.b.received().iter().map(|p| p.number).collect();
    assert_eq!(
        numbers.len(),
        world.b.received().len(),
        "a probe came twice"
    );
    assert_eq!(
        world.received()[0],
        received[0],
        "nothing was replayed to that side"
    );
    assert!(world.replays() > replays + 100, "{}", world.replays());
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
