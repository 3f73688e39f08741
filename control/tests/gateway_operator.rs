//! What an operator asks for on a running gateway: children on demand, the key log.

use std::time::Duration;

use hitless::api::{
    CaptureDirection, CaptureSide, CapturedPacket, LinkType, Show, Shown, WatchFilter,
};
use hitless::config::Config;
use hitless::entropy::SeededEntropy;
use hitless::gateway::{Event, Gateway, Output};
use hitless::keylog::KeyTable;
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

    /// With the tunnel up.
    fn up(seed: u64) -> Pair {
        let mut pair = Pair::new(seed, |_| {});
        pair.run(Duration::from_secs(2));
        assert_eq!(pair.sas(), 1);
        pair.host_a.send(pair.now, HOST_B);
        pair.run(Duration::from_millis(5));
        assert_eq!(pair.host_b.received().len(), 1);
        // Afterwards each gateway knows its host.
        pair.host_b.send(pair.now, HOST_A);
        pair.run(Duration::from_millis(5));
        assert_eq!(pair.host_a.received().len(), 1);
        pair
    }

    /// The initiator's gateway.
    fn gateway(&mut self) -> &mut Gateway {
        self.a.0.gateway()
    }

    fn captured(&mut self, capture: u64) -> Vec<CapturedPacket> {
        let now = self.now;
        let report = self.gateway().capture_read(now, capture).unwrap();
        assert_eq!(report.lost_packets, 0);
        report.packets
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
                    Output::Event(_) | Output::SyncTransmit(..) | Output::Granted(_) => {}
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
        // An IKE SA and its child.
        assert_eq!(lines.len(), 2 * usize::from(wanted));
        let now = pair.now;
        let status = pair.a.0.gateway().status(now);
        assert_eq!(status.key_log.is_some(), wanted);
        for keys in lines {
            let text = keys.expose();
            let (count, begin) = match keys.table() {
                KeyTable::Ike | KeyTable::Intermediate(_) => (1, ""),
                KeyTable::Esp => (2, "\"IPv4\",\"192.0.2."),
            };
            assert_eq!(text.lines().count(), count, "{text}");
            assert!(text.lines().all(|line| line.starts_with(begin)), "{text}");
        }
    }
}

#[test]
fn a_trace_tells_the_way_of_each_packet_in_words() {
    let mut pair = Pair::up(5);
    assert_eq!(pair.gateway().trace_show().wanted_packets, 0);
    let everything = WatchFilter::default();
    assert!(pair.gateway().trace_add(0, &everything).is_err());
    pair.gateway().trace_add(2, &everything).unwrap();
    pair.run(Duration::from_millis(2));
    pair.host_a.send(pair.now, HOST_B);
    pair.run(Duration::from_millis(2));
    pair.host_b.send(pair.now, HOST_A);
    pair.run(Duration::from_millis(2));
    let report = pair.gateway().trace_show();
    assert_eq!((report.packets.len(), report.lost_steps), (2, 0));
    let stages = |packet: usize| {
        let steps = report.packets[packet].steps.iter();
        steps.map(|step| step.stage.as_str()).collect::<Vec<_>>()
    };
    let out = [
        "receive", "classify", "spd", "sa", "route", "lease", "aead", "send",
    ];
    assert_eq!(stages(0), out);
    let into = [
        "receive", "classify", "sad", "replay", "aead", "admit", "send",
    ];
    assert_eq!(stages(1), into);
    assert!(report.packets.iter().all(|packet| packet.ended));
    let text = hitless::api::trace(&report);
    for part in [
        "worker 0, packet 0\n",
        "port protected, 214 octets",
        "10.1.0.10 === 10.2.0.10, protocol 17",
        "PROTECT by tunnel.net{9.1.",
        "ICV good, decrypted",
        "below high water, marked, selectors match",
        "2 packets so far; 2 of each worker were asked for\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    pair.gateway().trace_clear();
    assert_eq!(pair.gateway().trace_show().wanted_packets, 0);
}

#[test]
fn a_filter_that_names_nothing_is_refused_with_what_there_is() {
    let mut pair = Pair::up(6);
    let filter = |sa: Option<&str>, port: Option<&str>| WatchFilter {
        sa: sa.map(str::to_owned),
        port: port.map(str::to_owned),
    };
    let error = pair.gateway().trace_add(1, &filter(None, Some("eth0")));
    assert_eq!(
        error.unwrap_err(),
        "there is no port \"eth0\"; there is outside, protected"
    );
    let error = pair.gateway().trace_add(1, &filter(Some("nobody"), None));
    assert!(
        error
            .unwrap_err()
            .contains("no Child SA is called \"nobody\"")
    );
    let good = filter(Some("tunnel.net"), Some("protected"));
    pair.gateway().trace_add(1, &good).unwrap();
}

#[test]
fn a_capture_names_sa_number_and_reason_and_ends_when_nobody_reads() {
    let mut pair = Pair::up(7);
    let everything = WatchFilter::default();
    let now = pair.now;
    let gateway = pair.gateway();
    let capture = gateway
        .capture_start(now, CaptureSide::Both, 1000, &everything)
        .unwrap();
    let second = gateway.capture_start(now, CaptureSide::Both, 1, &everything);
    assert_eq!(second.unwrap_err(), "a capture runs already; one at a time");
    pair.run(Duration::from_millis(2));
    pair.host_a.send(pair.now, HOST_B);
    pair.host_a.send(pair.now, [8, 8, 8, 8]);
    pair.run(Duration::from_millis(2));
    let packets = pair.captured(capture);
    let find = |interface: &str| {
        let mut found = packets
            .iter()
            .filter(|packet| packet.interface == interface);
        let first = found.next().unwrap_or_else(|| panic!("{packets:?}"));
        assert!(found.next().is_none(), "{packets:?}");
        first
    };
    let (inner, outer, dropped) = (find("inner"), find("outside"), find("dropped"));
    assert_eq!(
        (inner.link, inner.direction),
        (LinkType::Ip, CaptureDirection::Out)
    );
    assert!(
        inner.comment.starts_with("tunnel.net{9.1."),
        "{}",
        inner.comment
    );
    assert!(inner.comment.ends_with(", number 2"), "{}", inner.comment);
    assert_eq!((inner.length_bytes, inner.octets.len()), (200, 400));
    assert_eq!(outer.link, LinkType::Ethernet);
    assert!(
        outer.comment.ends_with(", low half of the number 2"),
        "{}",
        outer.comment
    );
    assert_eq!(dropped.link, LinkType::Ip);
    assert_eq!(dropped.comment, "dropped: no_policy (XfrmInNoPols)");
    pair.run(Duration::from_secs(6));
    let now = pair.now;
    let late = pair.gateway().capture_read(now, capture);
    assert_eq!(late.unwrap_err(), "that capture is over");
    let again = pair
        .gateway()
        .capture_start(now, CaptureSide::AfterEsp, 1, &everything);
    assert!(again.is_ok());
}

#[test]
fn a_capture_is_done_after_as_many_packets_as_were_asked_for() {
    let mut pair = Pair::up(8);
    let now = pair.now;
    let of_sa = WatchFilter {
        sa: Some("tunnel.net".to_owned()),
        port: None,
    };
    let gateway = pair.gateway();
    let capture = gateway
        .capture_start(now, CaptureSide::BeforeEsp, 3, &of_sa)
        .unwrap();
    for _ in 0..5 {
        pair.host_a.send(pair.now, HOST_B);
        pair.host_a.send(pair.now, [8, 8, 8, 8]);
        pair.run(Duration::from_millis(2));
    }
    let now = pair.now;
    let report = pair.gateway().capture_read(now, capture).unwrap();
    assert_eq!((report.packets.len(), report.done), (3, true));
    assert!(report.packets.iter().all(|p| p.interface == "inner"));
    assert!(pair.gateway().capture_read(now, capture).is_err());
}
