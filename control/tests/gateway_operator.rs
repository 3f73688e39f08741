//! What an operator asks for on a running gateway: children on demand, the key log.

use std::time::Duration;

use hitless::api::{Show, Shown};
use hitless::config::Config;
use hitless::entropy::SeededEntropy;
use hitless::gateway::{Event, Gateway, Output};
use hitless::lab::{
    CLUSTER_INSIDE, HOST_A, HOST_B, Host, Hub, MTU, PEER_INSIDE, Station, Topology, first_start,
};
use hitless_dataplane::port::memory;
use hitless_dataplane::worker::Worker;
use hitless_sa::Instant;

const CABLE: usize = 1024;
const STEP: Duration = Duration::from_micros(250);

/// Two gateways on one cable, each a cluster of one, with a host behind each. `a` initiates.
struct Pair {
    now: Instant,
    entropy: SeededEntropy,
    hub: Hub,
    a: (Station, Worker),
    b: (Station, Worker),
    host_a: Host,
    host_b: Host,
    events: Vec<Event>,
}

impl Pair {
    /// `change` may alter the initiator's configuration.
    fn new(seed: u64, change: impl FnOnce(&mut Config)) -> Pair {
        let mut entropy = SeededEntropy::new(seed);
        let mut hub = Hub::default();
        let now = Instant(1_000_000_000);
        let topology = Topology::new(1, "open sesame".to_owned());
        let (wire_a, wire_b) = memory::link(CABLE, MTU);
        let (inside_a, host_a) = memory::link(CABLE, MTU);
        let (inside_b, host_b) = memory::link(CABLE, MTU);
        let mut config = topology.peer().unwrap();
        change(&mut config);
        let mut station = |config, ports| {
            Station::new(config, ports, &mut hub, first_start(), now, &mut entropy).unwrap()
        };
        let a = station(config, vec![wire_a, inside_a]);
        let b = station(topology.member(1).unwrap(), vec![wire_b, inside_b]);
        Pair {
            now,
            entropy,
            hub,
            a,
            b,
            host_a: Host::new(host_a, [2, 0, 0, 0, 0xa, 1], HOST_A, PEER_INSIDE, 200),
            host_b: Host::new(host_b, [2, 0, 0, 0, 0xb, 1], HOST_B, CLUSTER_INSIDE, 200),
            events: Vec::new(),
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            let now = self.now;
            for (station, worker) in [&mut self.a, &mut self.b] {
                worker.turn(now);
                station.turn(
                    now,
                    &mut self.entropy,
                    &mut self.hub,
                    &mut |event| self.events.push(event),
                    &mut |_| true,
                );
            }
            self.host_a.turn(now);
            self.host_b.turn(now);
        }
    }

    fn sas(&mut self) -> usize {
        let now = self.now;
        match self.a.0.gateway().show(now, &Show::Sas { which: None }) {
            Ok(Shown::Sas { sas }) => sas.len(),
            other => panic!("{other:?}"),
        }
    }

    fn acquired(&self) -> usize {
        let acquired = |event: &&Event| matches!(event, Event::Acquired { .. });
        self.events.iter().filter(acquired).count()
    }
}

fn on_demand(config: &mut Config) {
    config.connections[0].children[0].start = false;
    config
        .on_demand
        .insert(("tunnel".to_owned(), "net".to_owned()));
}

#[test]
fn a_trapped_child_comes_up_with_its_first_packet_rfc_4301_section_4_4_1_2() {
    let mut pair = Pair::new(1, on_demand);
    pair.run(Duration::from_secs(5));
    assert_eq!(
        (pair.sas(), pair.acquired()),
        (0, 0),
        "nobody has asked yet"
    );
    pair.host_a.send(pair.now, HOST_B);
    pair.run(Duration::from_millis(500));
    assert_eq!((pair.sas(), pair.acquired()), (1, 1));
    // The one that asked is lost, as a router loses a packet; those that follow get through.
    for _ in 0..10 {
        pair.host_a.send(pair.now, HOST_B);
        pair.run(Duration::from_millis(5));
    }
    assert_eq!(pair.host_b.received().len(), 10);
    assert_eq!(pair.acquired(), 1);
}

#[test]
fn packets_for_a_child_that_cannot_come_up_ask_once_a_second_at_most() {
    let mut pair = Pair::new(2, |config| {
        on_demand(config);
        // Nobody answers there.
        let nobody: std::net::IpAddr = "192.0.2.77".parse().unwrap();
        config.connections[0].remote_addrs = vec![nobody];
    });
    pair.run(Duration::from_secs(2));
    for _ in 0..600 {
        pair.host_a.send(pair.now, HOST_B);
        pair.run(Duration::from_millis(5));
    }
    assert_eq!(pair.sas(), 0);
    assert!((3..=4).contains(&pair.acquired()), "{}", pair.acquired());
}

#[test]
fn a_child_that_the_peer_starts_is_not_acquired() {
    let mut pair = Pair::new(3, |config| {
        config.connections[0].children[0].start = false;
    });
    pair.run(Duration::from_secs(2));
    pair.host_a.send(pair.now, HOST_B);
    pair.run(Duration::from_secs(1));
    assert_eq!((pair.sas(), pair.acquired()), (0, 0));
}

#[test]
fn keys_are_given_out_only_if_the_configuration_asks() {
    for wanted in [false, true] {
        let mut pair = Pair::new(4, |config| {
            config.control.key_log = wanted.then(|| "/nonexistent/esp_sa".into());
        });
        let mut lines = Vec::new();
        for _ in 0..8000 {
            pair.now += STEP;
            let now = pair.now;
            pair.a.1.turn(now);
            pair.b.1.turn(now);
            let gateway: &mut Gateway = pair.a.0.gateway();
            gateway.turn(now, &mut pair.entropy);
            while let Some(output) = gateway.poll_output() {
                match output {
                    Output::Persist(_) => gateway.persisted(now, &mut pair.entropy, true),
                    Output::KeyLog(keys) => lines.push(keys),
                    Output::Event(_) | Output::SyncTransmit(..) => {}
                }
            }
            let (station, _) = &mut pair.b;
            station.turn(
                now,
                &mut pair.entropy,
                &mut pair.hub,
                &mut |_| {},
                &mut |_| true,
            );
        }
        assert_eq!(pair.sas(), 1);
        assert_eq!(lines.len(), usize::from(wanted));
        let now = pair.now;
        let status = pair.a.0.gateway().status(now);
        assert_eq!(status.key_log.is_some(), wanted);
        for keys in lines {
            let text = keys.expose();
            assert_eq!(text.lines().count(), 2, "{text}");
            for line in text.lines() {
                assert!(line.starts_with("\"IPv4\",\"192.0.2."), "{line}");
            }
        }
    }
}
