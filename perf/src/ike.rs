//! IKEv2 without a network: two engines in one thread, datagrams handed over as they are. What one
//! core can establish and rekey; half of it is the peer's work.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hitless::entropy::SeededEntropy;
use hitless::ike::auth::AuthSettings;
use hitless::ike::fragments::Fragmentation;
use hitless::ike::proposal::Identification;
use hitless::ike::settings::{Child, Connection, EngineSettings, Secret, Takeover};
use hitless::ike::{Engine, Event, Input, Output, Resume, Transmit};
use hitless_sa::{Incarnation, Instant, MemberId, Mode, SaId, SaOptions};

use crate::clock::Moment;
use crate::progress::Progress;
use crate::rate::Rate;
use crate::results::RateLine;

const HANDSHAKES: usize = 300;
const REKEYS: usize = 300;
pub const PROPOSALS: [(&str, &str); 2] = [
    ("aes128gcm16-prfsha256-x25519", "aes128gcm16-x25519-esn"),
    ("aes256gcm16-prfsha384-ecp384", "aes256gcm16-ecp384-esn"),
];

/// Both rates with each suite.
pub fn run() -> Result<Vec<RateLine>, Box<dyn Error>> {
    let mut progress = Progress::new("ike", 2 * PROPOSALS.len());
    let mut lines = Vec::new();
    for (ike, esp) in PROPOSALS {
        progress.step(ike);
        let mut rate = Rate::new(&format!("IKE SA with Child SA, {ike}"))?;
        for seed in 0..HANDSHAKES {
            let begun = Moment::now();
            Pair::new(seed as u64, ike, esp)?.establish()?;
            rate.note(begun.elapsed());
        }
        lines.push(rate.line());
        progress.step(esp);
        let mut rate = Rate::new(&format!("rekeyed Child SA, {esp}"))?;
        let mut pair = Pair::new(1, ike, esp)?;
        let mut sa = pair.establish()?;
        for _ in 0..REKEYS {
            let begun = Moment::now();
            sa = pair.rekey(sa)?;
            rate.note(begun.elapsed());
        }
        lines.push(rate.line());
    }
    Ok(lines)
}

/// An initiator and a responder.
struct Pair {
    engines: [Engine; 2],
    entropy: SeededEntropy,
    now: Instant,
    wire: Vec<(usize, Transmit)>,
    events: Vec<Event>,
}

fn address(host: usize) -> IpAddr {
    [192, 0, 2, host as u8 + 1].into()
}

pub fn settings(host: usize, ike: &str, esp: &str) -> Result<EngineSettings, Box<dyn Error>> {
    let name = |host: usize| Identification::Fqdn(format!("{host}.test"));
    let nets = ["10.1.0.0/16", "10.2.0.0/16"];
    let net = |host: usize| -> Result<_, Box<dyn Error>> {
        Ok(vec![nets.get(host).ok_or("two hosts only")?.parse()?])
    };
    let other = 1 - host;
    let child = Child {
        name: "net".to_owned(),
        mode: Mode::Tunnel,
        esp_proposals: vec![esp.parse()?],
        local_ts: net(host)?,
        remote_ts: net(other)?,
        dynamic: Default::default(),
        per_cpu_sas: 0,
        rekey_time: Duration::ZERO,
        lifetimes: Default::default(),
        replay_window: 1024,
        start: host == 0,
        options: SaOptions::default(),
    };
    Ok(EngineSettings::new(
        MemberId(host as u8 + 1),
        Incarnation(1),
        vec![Connection {
            name: "peer".to_owned(),
            local_addrs: vec![address(host)],
            remote_addrs: vec![address(other)],
            remote_port: 500,
            fragmentation: Fragmentation::Yes,
            fragment_size: 1280,
            proposals: vec![ike.parse()?],
            local_id: name(host),
            remote_id: name(other),
            encap: false,
            dpd_delay: Duration::ZERO,
            rekey_time: Duration::ZERO,
            takeover: Takeover::Auto,
            inbound: Default::default(),
            roads: Default::default(),
            session: Default::default(),
            auth: AuthSettings::default(),
            children: vec![child],
        }],
        vec![Secret {
            ids: Vec::new(),
            secret: b"0123456789abcdef".to_vec().into(),
        }],
    ))
}

/// The settings of as many peers as are wanted, in one engine: all at one address, with a connection
/// and an address behind it for each.
pub fn crowd_of_peers(
    count: usize,
    local: Ipv4Addr,
    remote: Ipv4Addr,
    behind: u32,
) -> Result<EngineSettings, Box<dyn Error>> {
    let mut settings = settings(0, PROPOSALS[0].0, "aes128gcm16-esn")?;
    let one = settings.connections.pop().ok_or("no connection")?;
    let connections = (0..count).map(|number| {
        let mut connection = one.clone();
        connection.name = format!("c{number}");
        connection.local_addrs = vec![local.into()];
        connection.remote_addrs = vec![remote.into()];
        connection.local_id = Identification::Fqdn(format!("c{number}.peer.test"));
        connection.remote_id = Identification::Fqdn("cluster.test".to_owned());
        for child in &mut connection.children {
            let address = Ipv4Addr::from(behind + u32::try_from(number)?);
            child.local_ts = vec![format!("{address}/32").parse()?];
            child.remote_ts = vec!["10.2.0.0/24".parse()?];
            child.start = false;
        }
        Ok::<_, Box<dyn Error>>(connection)
    });
    settings.connections = connections.collect::<Result<_, _>>()?;
    Ok(settings)
}

impl Pair {
    fn new(seed: u64, ike: &str, esp: &str) -> Result<Pair, Box<dyn Error>> {
        let engine = |host| Ok::<_, Box<dyn Error>>(Engine::new(settings(host, ike, esp)?));
        Ok(Pair {
            engines: [engine(0)?, engine(1)?],
            entropy: SeededEntropy::new(seed),
            now: Instant(1_000_000_000),
            wire: Vec::new(),
            events: Vec::new(),
        })
    }

    /// The first Child SA, as the initiator names it.
    fn establish(&mut self) -> Result<SaId, Box<dyn Error>> {
        // The responder first: what the initiator starts finds it.
        for host in [1, 0] {
            let engine = &mut self.engines[host];
            engine.lead(self.now, &mut self.entropy, &mut |_| Resume::Exact);
            self.collect(host);
        }
        self.settle();
        let established = self.events.iter().find_map(|event| match event {
            Event::ChildEstablished { sa, .. } => Some(*sa),
            _ => None,
        });
        established.ok_or_else(|| format!("no Child SA: {:?}", self.events).into())
    }

    /// The Child SA that takes this one's place.
    fn rekey(&mut self, sa: SaId) -> Result<SaId, Box<dyn Error>> {
        self.events.clear();
        self.now += Duration::from_millis(1);
        self.engines[0].handle(self.now, &mut self.entropy, Input::RekeyChild(sa));
        self.collect(0);
        self.settle();
        let rekeyed = self.events.iter().find_map(|event| match event {
            Event::ChildRekeyed { old, new, .. } if *old == sa => Some(*new),
            _ => None,
        });
        rekeyed.ok_or_else(|| format!("not rekeyed: {:?}", self.events).into())
    }

    /// Hands datagrams over until nobody has anything to say, timers that are due included.
    fn settle(&mut self) {
        loop {
            for host in 0..2 {
                if self.engines[host]
                    .poll_timeout()
                    .is_some_and(|at| at <= self.now)
                {
                    self.engines[host].handle(self.now, &mut self.entropy, Input::Timeout);
                    self.collect(host);
                }
            }
            if self.wire.is_empty() {
                return;
            }
            for (from, transmit) in std::mem::take(&mut self.wire) {
                let input = Input::Datagram {
                    local: transmit.remote,
                    remote: transmit.local,
                    payload: &transmit.payload,
                };
                self.engines[1 - from].handle(self.now, &mut self.entropy, input);
                self.collect(1 - from);
            }
        }
    }

    /// Obeys an engine; there is no standby to wait for. Only the initiator's events count.
    fn collect(&mut self, host: usize) {
        while let Some(output) = self.engines[host].poll_output() {
            match output {
                Output::Transmit(transmit) | Output::Retransmit { transmit, .. } => {
                    self.wire.push((host, transmit));
                }
                Output::Commit(commit) => {
                    let transmits = commit.transmits.into_iter();
                    self.wire.extend(transmits.map(|transmit| (host, transmit)));
                }
                Output::Event(event) if host == 0 => self.events.push(event),
                Output::Event(_) => {}
            }
        }
    }
}
