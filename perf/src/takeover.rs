//! A takeover of very many tunnels through two whole gateways: from the death of the active member to
//! the lead of the standby, to the first packet, and to the last tunnel.
//!
//! ```text
//!  peers (one IKE engine) --- outside cable --- member 1, member 2 --- protected cable --- host
//! ```
//!
//! One thread plays everybody. The clock is the sum of what the surviving member's control thread
//! took of a core and of the steps in between; its worker has a core of its own in real life, and
//! costs nothing here. Nor does what else runs on the machine.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use hitless::config::Config;
use hitless::entropy::SeededEntropy;
use hitless::gateway::{Beside, Event, GatewaySettings};
use hitless::ike::{ChildChange, Engine, Input, Output, Resume, Transmit};
use hitless::lab::{Hub, Room, Station, first_start, sync_address};
use hitless_dataplane::aead::{Engine as AeadEngine, EspKey};
use hitless_dataplane::esp;
use hitless_dataplane::port::memory::{self, MemoryPort};
use hitless_dataplane::wire::ipv4;
use hitless_dataplane::worker::Worker;
use hitless_sa::{ChildSa, Instant, SequenceNumber, Spi};
use hitless_sync::Event as SyncEvent;

use crate::clock;
use crate::progress::Progress;
use crate::results::CrowdLine;

const CLUSTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 10);
/// Behind the peers: one address for each tunnel.
const BEHIND: u32 = 0x0a40_0000;
const OUTSIDE_MAC: [u8; 6] = [2, 0, 0, 0, 0xc, 1];
const PROTECTED_MAC: [u8; 6] = [2, 0, 0, 0, 0xc, 2];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0xa, 1];
const STEP: Duration = Duration::from_micros(100);
/// Handshakes under way at once.
const AT_ONCE: usize = 48;
/// Tunnels that send after the death, and how often all of them do.
const BUSY: usize = 200;
const PROBE_EVERY: Duration = Duration::from_millis(2);
/// Above every floor: what a strict takeover refuses is not what is measured.
const NUMBER: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(600);
const MTU: usize = 1500;
const UDP: u8 = 17;
const ESP: u8 = 50;
const IP_IN_IP: u8 = 4;

/// One takeover of so many tunnels.
pub fn run(tunnels: usize) -> Result<CrowdLine, Box<dyn Error>> {
    let mut progress = Progress::new("takeover", 3);
    progress.step(&format!("{tunnels} tunnels come up"));
    let mut stage = Stage::new(tunnels)?;
    stage.come_up(tunnels)?;
    progress.step("the standby holds them");
    stage.until("an admitted standby", |stage| stage.ready)?;
    progress.step("the active dies");
    stage.measure(tunnels)
}

/// A member with its ends of the cables.
struct Member {
    station: Station,
    worker: Worker,
    outside: MemoryPort,
    protected: MemoryPort,
}

struct Stage {
    now: Instant,
    entropy: SeededEntropy,
    hub: Hub,
    members: Vec<Member>,
    /// What it had is not given back: it would be in its own process, and the survivor's allocator
    /// has no part in that.
    dead: Option<Member>,
    leader: Option<usize>,
    ready: bool,
    peers: Engine,
    waiting: VecDeque<usize>,
    up: Vec<std::sync::Arc<ChildSa>>,
    /// When each busy tunnel was first heard by the host.
    heard: BTreeMap<Ipv4Addr, Instant>,
    /// What the control thread of the survivor takes counts.
    costs: bool,
    longest: Duration,
    led: Option<Instant>,
}

impl Stage {
    fn new(tunnels: usize) -> Result<Stage, Box<dyn Error>> {
        let now = Instant(1_000_000_000);
        let mut entropy = SeededEntropy::new(7);
        let mut hub = Hub::default();
        let mut members = Vec::new();
        for id in 1..=2 {
            let settings = GatewaySettings::new(member(id)?);
            let (outside, far_outside) = memory::link(4096, MTU);
            let (protected, far_protected) = memory::link(4096, MTU);
            let room = Room {
                frames: 16_384,
                sas: 128 * 1024,
            };
            let (mut station, worker) = Station::sized(
                settings,
                vec![outside, protected],
                &mut hub,
                first_start(),
                room,
                now,
                &mut entropy,
            )?;
            station.gateway().set_builder(Box::new(Beside::default()));
            members.push(Member {
                station,
                worker,
                outside: far_outside,
                protected: far_protected,
            });
        }
        let mut peers = Engine::new(crate::ike::crowd_of_peers(tunnels, PEER, CLUSTER, BEHIND)?);
        peers.lead(now, &mut entropy, &mut |_| Resume::Exact);
        Ok(Stage {
            now,
            entropy,
            hub,
            members,
            dead: None,
            leader: None,
            ready: false,
            peers,
            waiting: (0..tunnels).collect(),
            up: Vec::new(),
            heard: BTreeMap::new(),
            costs: false,
            longest: Duration::ZERO,
            led: None,
        })
    }

    fn come_up(&mut self, tunnels: usize) -> Result<(), Box<dyn Error>> {
        self.until("a leader", |stage| stage.leader.is_some())?;
        let mut begun = 0;
        self.until("every tunnel", |stage| {
            while begun - stage.up.len().min(begun) < AT_ONCE
                && let Some(tunnel) = stage.waiting.pop_front()
            {
                begun += 1;
                let input = Input::Initiate {
                    connection: format!("c{tunnel}"),
                    child: None,
                };
                stage.peers.handle(stage.now, &mut stage.entropy, input);
            }
            stage.up.len() >= tunnels
        })?;
        self.ready = false;
        // Checkpoints and leases settle.
        let end = self.now + Duration::from_secs(1);
        self.until("a second", |stage| {
            stage.ready = true;
            stage.now >= end
        })
    }

    fn until(
        &mut self,
        what: &str,
        mut so: impl FnMut(&mut Stage) -> bool,
    ) -> Result<(), Box<dyn Error>> {
        let end = self.now + PATIENCE;
        while !so(self) {
            self.round();
            if self.now >= end {
                return Err(format!("no {what} in {PATIENCE:?}: {} are up", self.up.len()).into());
            }
        }
        Ok(())
    }

    fn measure(&mut self, tunnels: usize) -> Result<CrowdLine, Box<dyn Error>> {
        let active = self.leader.ok_or("nobody leads")?;
        let survivor = self.members.remove(1 - active);
        self.dead = self.members.pop();
        self.members.push(survivor);
        (self.leader, self.led) = (None, None);
        let died = self.now;
        self.costs = true;
        let share = (self.up.len() / BUSY).max(1);
        let busy: Vec<_> = self.up.iter().step_by(share).take(BUSY).cloned().collect();
        let mut probes = Vec::new();
        for sa in &busy {
            probes.push(Probe::new(sa)?);
        }
        let (mut next, mut round) = (died, 0);
        let mut all = None;
        self.until("packet of every busy tunnel", |stage| {
            if stage.now >= next {
                next = stage.now + PROBE_EVERY;
                round += 1;
                for probe in &probes {
                    stage.push(0, true, &probe.frame(NUMBER + round));
                }
            }
            let installed = stage
                .members
                .first_mut()
                .is_some_and(|member| member.station.gateway().taking_over() == 0);
            if installed && all.is_none() && stage.led.is_some() {
                all = Some(stage.now);
            }
            stage.heard.len() >= busy.len() && all.is_some()
        })?;
        let after =
            |at: Option<Instant>| at.map_or(f64::NAN, |at| at.since(died).as_secs_f64() * 1000.0);
        Ok(CrowdLine {
            tunnels: tunnels as u64,
            lead_ms: after(self.led),
            first_packet_ms: after(self.heard.values().min().copied()),
            last_busy_ms: after(self.heard.values().max().copied()),
            all_ms: after(all),
            longest_turn_ms: self.longest.as_secs_f64() * 1000.0,
        })
    }

    /// One round of everybody.
    fn round(&mut self) {
        self.now += STEP;
        for index in 0..self.members.len() {
            self.turn(index);
        }
        self.turn_peers();
        for index in 0..self.members.len() {
            self.listen(index);
        }
    }

    fn turn(&mut self, index: usize) {
        let Stage {
            members,
            hub,
            entropy,
            leader,
            ready,
            led,
            ..
        } = self;
        let Some(member) = members.get_mut(index) else {
            return;
        };
        member.worker.turn(self.now);
        let now = self.now;
        let begun = clock::had();
        let mut tell = |event| match event {
            Event::Leads { .. } => {
                *leader = Some(index);
                *led = Some(now);
            }
            Event::Sync(SyncEvent::Admitted { .. }) => *ready = true,
            _ => {}
        };
        member
            .station
            .turn(now, entropy, hub, &mut tell, &mut |_| true);
        let cost = clock::had().saturating_sub(begun);
        if self.costs {
            self.longest = self.longest.max(cost);
            self.now += cost;
        }
        if self.led == Some(now) {
            self.led = Some(self.now);
        }
        member.worker.turn(self.now);
    }

    fn turn_peers(&mut self) {
        if self.costs {
            return;
        }
        if self.peers.poll_timeout().is_some_and(|at| at <= self.now) {
            self.peers
                .handle(self.now, &mut self.entropy, Input::Timeout);
        }
        while let Some(output) = self.peers.poll_output() {
            match output {
                Output::Transmit(transmit) | Output::Retransmit { transmit, .. } => {
                    self.transmit(&transmit);
                }
                Output::Commit(commit) => {
                    for change in commit.changes {
                        if let ChildChange::Install { child, .. } = change {
                            self.up.push(child);
                        }
                    }
                    for transmit in &commit.transmits {
                        self.transmit(transmit);
                    }
                }
                Output::Event(_) => {}
            }
        }
    }

    fn transmit(&mut self, transmit: &Transmit) {
        let ports = [transmit.local.port(), transmit.remote.port()];
        let marker: &[u8] = if ports[1] == 4500 { &[0; 4] } else { &[] };
        let length = 8 + marker.len() + transmit.payload.len();
        let mut udp = Vec::with_capacity(length);
        for field in [ports[0], ports[1], length as u16, 0] {
            udp.extend_from_slice(&field.to_be_bytes());
        }
        udp.extend_from_slice(marker);
        udp.extend_from_slice(&transmit.payload);
        let packet = packet(PEER, CLUSTER, UDP, &udp);
        let leader = self.leader.unwrap_or(0);
        self.push(leader, true, &frame(OUTSIDE_MAC, [8, 0], &packet));
    }

    fn push(&mut self, member: usize, outside: bool, frame: &[u8]) {
        if let Some(member) = self.members.get_mut(member) {
            let cable = match outside {
                true => &mut member.outside,
                false => &mut member.protected,
            };
            // A full cable loses it, as cables do.
            let _ = cable.push_frame(frame);
        }
    }

    /// What a member sends on both sides.
    fn listen(&mut self, index: usize) {
        for outside in [true, false] {
            let mut frames = Vec::new();
            if let Some(member) = self.members.get_mut(index) {
                let cable = match outside {
                    true => &mut member.outside,
                    false => &mut member.protected,
                };
                while cable.pop_frame(|octets| frames.push(octets.to_vec())) {}
            }
            for octets in frames {
                match octets.get(12..14) {
                    Some([8, 6]) => self.arp(index, outside, &octets),
                    Some([8, 0]) if outside => self.at_peers(&octets[14..]),
                    Some([8, 0]) => self.at_host(&octets[14..]),
                    _ => {}
                }
            }
        }
    }

    /// Whoever is asked for is here (RFC 826).
    fn arp(&mut self, index: usize, outside: bool, request: &[u8]) {
        let (Some([0, 1]), Some(asker), Some(wanted)) = (
            request.get(20..22),
            request.get(22..32),
            request.get(38..42),
        ) else {
            return;
        };
        if wanted == CLUSTER.octets() || wanted == &asker[6..10] {
            return;
        }
        let mut answer = vec![0, 1, 8, 0, 6, 4, 0, 2];
        answer.extend_from_slice(&OTHER_MAC);
        answer.extend_from_slice(wanted);
        answer.extend_from_slice(asker);
        let to = if outside { OUTSIDE_MAC } else { PROTECTED_MAC };
        self.push(index, outside, &frame(to, [8, 6], &answer));
    }

    fn at_peers(&mut self, packet: &[u8]) {
        let (Some(UDP), Some(udp)) = (packet.get(9).copied(), packet.get(ipv4::HEADER..)) else {
            return;
        };
        let port = |at: usize| {
            let octets = udp
                .get(at..at + 2)
                .and_then(|o| <[u8; 2]>::try_from(o).ok());
            u16::from_be_bytes(octets.unwrap_or_default())
        };
        let skip = if port(0) == 4500 { 12 } else { 8 };
        let input = Input::Datagram {
            local: SocketAddr::from((PEER, port(2))),
            remote: SocketAddr::from((CLUSTER, port(0))),
            payload: udp.get(skip..).unwrap_or_default(),
        };
        self.peers.handle(self.now, &mut self.entropy, input);
    }

    fn at_host(&mut self, packet: &[u8]) {
        let source = packet.get(12..16).and_then(|o| <[u8; 4]>::try_from(o).ok());
        if let Some(source) = source {
            self.heard.entry(source.into()).or_insert(self.now);
        }
    }
}

/// What a busy tunnel sends.
struct Probe {
    key: EspKey,
    spi: Spi,
    esn: bool,
    inner: Vec<u8>,
}

impl Probe {
    fn new(sa: &ChildSa) -> Result<Probe, Box<dyn Error>> {
        let key = EspKey::new(AeadEngine::default(), sa.suite, &sa.outbound_key)?;
        let source = match sa.local_ts.first().map(|selector| selector.start) {
            Some(std::net::IpAddr::V4(source)) => source,
            _ => return Err("a tunnel without an IPv4 address".into()),
        };
        Ok(Probe {
            key,
            spi: sa.outbound_spi,
            esn: sa.esn,
            inner: packet(source, HOST, UDP, &[0; 16]),
        })
    }

    fn frame(&self, number: u64) -> Vec<u8> {
        let number = SequenceNumber(number);
        let sealed =
            esp::seal_datagram(&self.key, self.spi, number, self.esn, IP_IN_IP, &self.inner);
        let packet = packet(PEER, CLUSTER, ESP, &sealed.unwrap_or_default());
        frame(OUTSIDE_MAC, [8, 0], &packet)
    }
}

fn packet(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; ipv4::HEADER];
    packet.extend_from_slice(payload);
    let written = ipv4::write(&mut packet, from, to, protocol);
    debug_assert!(written, "it is as long as its header at least");
    packet
}

fn frame(to: [u8; 6], kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&to[..], &OTHER_MAC, &kind, payload].concat()
}

/// Every member has one connection, for all peers.
fn member(id: u8) -> Result<Config, Box<dyn Error>> {
    let list = [1, 2].map(|id| format!("{{ id = {id}, sync_addr = \"{}\" }}", sync_address(id)));
    let mac = |mac: [u8; 6]| mac.map(|octet| format!("{octet:02x}")).join(":");
    let text = format!(
        r#"
[cluster]
name = "crowd"
id = {id}
members = [{}]
secret = "0123456789abcdef0123456789abcdef"
hold = "1s"
[ports.outside]
driver = "memory"
addresses = ["{CLUSTER}/24"]
mac = "{}"
protected = false
[ports.protected]
driver = "memory"
addresses = ["10.2.0.1/24"]
mac = "{}"
protected = true
[connections.peers]
local_addrs = ["{CLUSTER}"]
remote_addrs = ["%any"]
proposals = ["aes128gcm16-prfsha256-x25519"]
local = {{ auth = "psk", id = "cluster.test" }}
remote = {{ auth = "psk", id = "*.peer.test" }}
dpd_delay = "0s"
[connections.peers.children.net]
esp_proposals = ["aes128gcm16-esn"]
local_ts = ["10.2.0.0/24"]
remote_ts = ["10.64.0.0/10"]
[secrets.peers]
secret = "0123456789abcdef"
"#,
        list.join(", "),
        mac(OUTSIDE_MAC),
        mac(PROTECTED_MAC),
    );
    Ok(Config::parse("crowd", &text, Path::new("."))?)
}
