//! The sync link: how members talk to each other.
//!
//! Members authenticate each other with our own IKEv2 and protect every sync datagram with our own
//! ESP in UDP (draft-vidya-ipsec-failover-redundancy-00 sections 4.1 and 6: MUST be protected by an
//! IPsec SA, with confidentiality, integrity and replay protection). On the wire it is RFC 3948 on
//! one port: IKE behind a non-ESP marker, ESP in transport mode around UDP 4510. These SAs are
//! made afresh at each start and are never replicated.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hitless_dataplane::aead::{Engine as AeadEngine, EspKey};
use hitless_dataplane::esp;
use hitless_dataplane::replay::AntiReplay;
use hitless_sa::{
    ChildSa, Entropy, IkeSpi, Incarnation, Instant, MemberId, Mode, SaId, SequenceNumber, Spi,
    TrafficSelector,
};
use zeroize::Zeroizing;

use crate::ike::auth::{AuthSettings, TimeOfDay};
use crate::ike::fragments::{DEFAULT_FRAGMENT_SIZE, Fragmentation};
use crate::ike::proposal::{
    Additional, Encryption, EspProposal, Identification, IkeProposal, KeyExchangeMethod, Prf,
};
use crate::ike::settings::{Child, Connection, EngineSettings, Limits, Secret, Takeover};
use crate::ike::{ChildChange, Engine, Event, Input, Output, Resume};

/// UDP port inside the transport-mode SA; the port that strongSwan's `ha` plugin uses too.
const SYNC_PORT: u16 = 4510;
const NON_ESP_MARKER: [u8; 4] = [0; 4];
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
/// A link that stays silent for this long is made anew, and for this many heartbeats.
const SILENCE: Duration = Duration::from_millis(400);
const SILENT_BEATS: u32 = 8;
/// Least time between two attempts that a member's datagrams on an unknown link cause.
const INTRODUCTION: Duration = Duration::from_millis(50);
/// The member with the higher id leaves the initiative to the other for so many times as long.
const COURTESY: u32 = 6;
/// Octets of a datagram, UDP's own limit less the ESP overhead.
pub const LARGEST_PAYLOAD: usize = 60_000;

/// Another member, as configured.
#[derive(Clone, Debug)]
pub struct LinkMember {
    pub id: MemberId,
    pub address: SocketAddr,
}

/// What the link needs to know.
pub struct LinkSettings {
    pub me: MemberId,
    pub incarnation: Incarnation,
    /// Our own sync address.
    pub local: SocketAddr,
    pub others: Vec<LinkMember>,
    /// Part of the identities, so that two clusters cannot be mixed up.
    pub cluster: String,
    pub secret: Zeroizing<Vec<u8>>,
    /// How often a member sends at least.
    pub heartbeat: Duration,
}

/// What the link gives back.
#[derive(Debug)]
pub enum LinkOutput {
    /// Send it from the sync socket.
    Transmit(SocketAddr, Vec<u8>),
    /// A sync datagram that a member authenticated.
    Received(MemberId, Zeroizing<Vec<u8>>),
    /// For the log: what happened between members.
    Event(Event),
}

/// Datagrams that were dropped, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkCounters {
    pub unknown_sender: u64,
    pub unknown_spi: u64,
    /// Not authentic, a replay, or too short.
    pub refused: u64,
    /// Datagrams of ours for a member that no link leads to.
    pub no_link: u64,
    pub ike_dropped: u64,
    pub authentication_failed: u64,
}

struct Outbound {
    sa: SaId,
    spi: Spi,
    key: EspKey,
    next: SequenceNumber,
}

struct Inbound {
    sa: SaId,
    key: EspKey,
    window: AntiReplay,
    member: MemberId,
}

struct Peer {
    address: SocketAddr,
    /// The newest is the one that we send on; it may be taken back, when both members made one.
    outbound: Vec<Outbound>,
    /// IKE SAs that the one that is being made replaces.
    stale: Vec<IkeSpi>,
    heard: Instant,
    tried: Instant,
}

/// The links to all other members.
pub struct Link {
    me: MemberId,
    engine: Engine,
    peers: BTreeMap<MemberId, Peer>,
    inbound: BTreeMap<Spi, Inbound>,
    local: SocketAddr,
    silence: Duration,
    outputs: VecDeque<LinkOutput>,
    counters: LinkCounters,
}

impl Link {
    /// Links to `settings.others`, none of them up yet.
    pub fn new(settings: LinkSettings, now: Instant, entropy: &mut dyn Entropy) -> Link {
        let mut engine = Engine::new(engine_settings(&settings));
        // Links are nobody else's: this engine leads from the start.
        engine.lead(now, entropy, &mut |_| Resume::Exact);
        let silence = SILENCE.max(settings.heartbeat * SILENT_BEATS);
        let peers = settings.others.iter().map(|member| {
            // The member with the lower id begins at once.
            let since = match settings.me < member.id {
                true => now.saturating_sub(silence),
                false => now,
            };
            let peer = Peer {
                address: member.address,
                outbound: Vec::new(),
                stale: Vec::new(),
                heard: since,
                tried: since,
            };
            (member.id, peer)
        });
        Link {
            me: settings.me,
            engine,
            peers: peers.collect(),
            inbound: BTreeMap::new(),
            local: settings.local,
            silence,
            outputs: VecDeque::new(),
            counters: LinkCounters::default(),
        }
    }

    /// A datagram that arrived at the sync socket.
    pub fn receive(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        from: SocketAddr,
        datagram: &[u8],
    ) {
        if !self
            .peers
            .values()
            .any(|peer| peer.address.ip() == from.ip())
        {
            self.counters.unknown_sender += 1;
            return;
        }
        match datagram.strip_prefix(&NON_ESP_MARKER) {
            Some(payload) => {
                let input = Input::Datagram {
                    local: self.local,
                    remote: from,
                    payload,
                };
                self.engine.handle(now, entropy, input);
                self.drain_engine(now, entropy);
            }
            None => self.receive_esp(now, entropy, from, datagram),
        }
    }

    /// Protects a sync datagram and sends it; dropped while there is no link, because the sync
    /// protocol repeats what matters.
    pub fn send(&mut self, to: MemberId, payload: &[u8]) {
        if let Some((address, datagram)) = self.protect(to, payload) {
            let output = LinkOutput::Transmit(address, datagram);
            self.outputs.push_back(output);
        }
    }

    /// The same for a caller that sends it ahead of all that waits.
    pub fn protect(&mut self, to: MemberId, payload: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        let peer = self.peers.get_mut(&to)?;
        let Some(outbound) = peer.outbound.last_mut() else {
            self.counters.no_link += 1;
            return None;
        };
        let number = outbound.next;
        outbound.next = SequenceNumber(number.0 + 1);
        let Ok(length) = u16::try_from(UDP_HEADER + payload.len()) else {
            debug_assert!(
                false,
                "the sync protocol promises {LARGEST_PAYLOAD} octets at most"
            );
            return None;
        };
        let mut inner = Zeroizing::new(Vec::with_capacity(usize::from(length)));
        inner.extend_from_slice(&SYNC_PORT.to_be_bytes());
        inner.extend_from_slice(&SYNC_PORT.to_be_bytes());
        inner.extend_from_slice(&length.to_be_bytes());
        inner.extend_from_slice(&[0, 0]);
        inner.extend_from_slice(payload);
        let sealed = esp::seal_datagram(&outbound.key, outbound.spi, number, true, UDP, &inner);
        match sealed {
            Ok(datagram) => Some((peer.address, datagram)),
            Err(_) => {
                self.counters.no_link += 1;
                None
            }
        }
    }

    /// Where a member is.
    pub fn address(&self, member: MemberId) -> Option<SocketAddr> {
        self.peers.get(&member).map(|peer| peer.address)
    }

    /// Runs the timers: IKE's, and the watch over silent links.
    pub fn turn(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.engine.handle(now, entropy, Input::Timeout);
        }
        let mut silent = Vec::new();
        for (id, peer) in &self.peers {
            let patience = match self.me < *id {
                true => self.silence,
                false => self.silence * COURTESY,
            };
            if now.since(peer.heard) >= patience && now.since(peer.tried) >= patience {
                silent.push(*id);
            }
        }
        for id in silent {
            self.initiate(now, entropy, id);
        }
        self.drain_engine(now, entropy);
    }

    /// The next output, until there is none.
    pub fn poll_output(&mut self) -> Option<LinkOutput> {
        self.outputs.pop_front()
    }

    /// What was dropped.
    pub fn counters(&self) -> LinkCounters {
        self.counters
    }

    /// Makes a link to a member, in place of what there is once it stands: the member may hear us on
    /// the old one, though we do not hear it, and would take our silence for our death.
    fn initiate(&mut self, now: Instant, entropy: &mut dyn Entropy, member: MemberId) {
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        peer.tried = now;
        let connection = connection_name(member);
        let status = self.engine.status(now).into_iter();
        let stale = status.filter(|sa| sa.name == connection && sa.established_ago.is_some());
        peer.stale = stale.map(|sa| sa.local_spi).collect();
        let input = Input::Initiate {
            connection,
            child: None,
        };
        self.engine.handle(now, entropy, input);
    }

    /// A member sends on a link that we do not know: we have started again and it has not noticed.
    /// Anybody may forge that, so it only hastens what is due anyway, and not often.
    fn introduce(&mut self, now: Instant, entropy: &mut dyn Entropy, from: SocketAddr) {
        let unknown = |peer: &Peer| {
            peer.address.ip() == from.ip()
                && peer.outbound.is_empty()
                && now.since(peer.tried) >= INTRODUCTION
        };
        let member = self
            .peers
            .iter()
            .find(|(_, peer)| unknown(peer))
            .map(|(id, _)| *id);
        if let Some(member) = member {
            self.initiate(now, entropy, member);
            self.drain_engine(now, entropy);
        }
    }

    fn receive_esp(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        from: SocketAddr,
        datagram: &[u8],
    ) {
        let spi = match datagram.first_chunk::<4>() {
            Some(spi) => Spi(u32::from_be_bytes(*spi)),
            None => {
                self.counters.refused += 1;
                return;
            }
        };
        let Some(inbound) = self.inbound.get_mut(&spi) else {
            self.counters.unknown_spi += 1;
            self.introduce(now, entropy, from);
            return;
        };
        let mut buffer = Zeroizing::new(datagram.to_vec());
        let opened = esp::open_datagram(&inbound.key, true, &mut inbound.window, &mut buffer);
        let payload = match opened {
            Ok((UDP, range)) => buffer.get(range).and_then(|inner| inner.get(UDP_HEADER..)),
            _ => None,
        };
        let Some(payload) = payload else {
            self.counters.refused += 1;
            return;
        };
        let member = inbound.member;
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.heard = now;
        }
        self.outputs.push_back(LinkOutput::Received(
            member,
            Zeroizing::new(payload.to_vec()),
        ));
    }

    fn drain_engine(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Transmit(transmit) | Output::Retransmit { transmit, .. } => {
                    self.transmit(transmit.remote, &transmit.payload);
                }
                Output::Commit(commit) => {
                    let mut replaced = Vec::new();
                    for change in commit.changes {
                        replaced.extend(self.apply(now, commit.ike, change));
                    }
                    for transmit in commit.transmits {
                        self.transmit(transmit.remote, &transmit.payload);
                    }
                    for ike in replaced {
                        self.engine.handle(now, entropy, Input::Terminate { ike });
                    }
                }
                Output::Event(event) => {
                    match &event {
                        Event::Dropped { .. } => self.counters.ike_dropped += 1,
                        Event::AuthenticationFailed { .. } | Event::NegotiationFailed { .. } => {
                            self.counters.authentication_failed += 1;
                        }
                        _ => {}
                    }
                    self.outputs.push_back(LinkOutput::Event(event));
                }
            }
        }
    }

    fn transmit(&mut self, to: SocketAddr, payload: &[u8]) {
        let datagram = [&NON_ESP_MARKER, payload].concat();
        self.outputs.push_back(LinkOutput::Transmit(to, datagram));
    }

    /// Gives the IKE SAs whose place another one has taken.
    fn apply(&mut self, now: Instant, ike: IkeSpi, change: ChildChange) -> Vec<IkeSpi> {
        let mut replaced = Vec::new();
        match change {
            ChildChange::Install {
                child,
                connection,
                send,
                ..
            } => {
                if let Some(member) = self.member_of(&connection) {
                    self.install(now, member, &child, send);
                    let peer = self.peers.get_mut(&member);
                    if let Some(peer) = peer.filter(|peer| !peer.stale.contains(&ike)) {
                        replaced = std::mem::take(&mut peer.stale);
                    }
                }
            }
            ChildChange::Send(sa) => {
                for peer in self.peers.values_mut() {
                    let at = peer.outbound.iter().position(|o| o.sa == sa);
                    if let Some(outbound) = at.map(|at| peer.outbound.remove(at)) {
                        peer.outbound.push(outbound);
                    }
                }
            }
            ChildChange::Update(_) => {}
            ChildChange::Remove(sa) => {
                self.inbound.retain(|_, inbound| inbound.sa != sa);
                for peer in self.peers.values_mut() {
                    peer.outbound.retain(|outbound| outbound.sa != sa);
                }
            }
        }
        replaced
    }

    /// The last SA is the one that we send on. One that replaces it waits until the other member is
    /// known to have it (RFC 7296 section 2.8): the answer that says so may be lost, and a heartbeat
    /// must not be. Older ones stay for what is under way.
    fn install(&mut self, now: Instant, member: MemberId, child: &Arc<ChildSa>, send: bool) {
        let key = |material| EspKey::new(AeadEngine::default(), child.suite, material);
        let (Ok(inbound), Ok(outbound)) = (key(&child.inbound_key), key(&child.outbound_key))
        else {
            return;
        };
        let inbound = Inbound {
            sa: child.id,
            key: inbound,
            window: AntiReplay::new(child.replay_window, SequenceNumber(0)),
            member,
        };
        self.inbound.insert(child.inbound_spi, inbound);
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.heard = now;
            let at = peer.outbound.len().saturating_sub(usize::from(!send));
            let outbound = Outbound {
                sa: child.id,
                spi: child.outbound_spi,
                key: outbound,
                next: SequenceNumber(1),
            };
            peer.outbound.insert(at, outbound);
        }
    }

    fn member_of(&self, connection: &str) -> Option<MemberId> {
        self.peers
            .keys()
            .copied()
            .find(|id| connection_name(*id) == connection)
    }
}

fn connection_name(member: MemberId) -> String {
    format!("member-{member}")
}

fn identity(cluster: &str, member: MemberId) -> Identification {
    Identification::Fqdn(format!("member-{member}.{cluster}"))
}

fn engine_settings(settings: &LinkSettings) -> EngineSettings {
    let connections = settings
        .others
        .iter()
        .map(|other| connection(settings, other))
        .collect();
    EngineSettings {
        member: settings.me,
        incarnation: settings.incarnation,
        connections,
        pools: Vec::new(),
        secrets: vec![Secret {
            ids: Vec::new(),
            secret: settings.secret.clone(),
        }],
        cluster_secret: Default::default(),
        limits: Limits::default(),
        retransmit_timeout: Duration::from_millis(100),
        retransmit_tries: 3,
        key_log: false,
        time_of_day: TimeOfDay::default(),
    }
}

fn connection(settings: &LinkSettings, other: &LinkMember) -> Connection {
    let host = |address: SocketAddr| {
        let length = if address.is_ipv4() { 32 } else { 128 };
        TrafficSelector::prefix(address.ip(), length).map(|any| TrafficSelector {
            protocol: UDP,
            start_port: SYNC_PORT,
            end_port: SYNC_PORT,
            ..any
        })
    };
    Connection {
        name: connection_name(other.id),
        local_addrs: vec![settings.local.ip()],
        remote_addrs: vec![other.address.ip()],
        remote_port: other.address.port(),
        fragmentation: Fragmentation::Yes,
        fragment_size: DEFAULT_FRAGMENT_SIZE,
        proposals: vec![IkeProposal {
            encryption: Encryption::Aes256Gcm16,
            integrity: None,
            prf: Prf::HmacSha256,
            key_exchange: KeyExchangeMethod::X25519,
            additional: Additional::NONE,
        }],
        local_id: identity(&settings.cluster, settings.me),
        remote_id: identity(&settings.cluster, other.id),
        encap: false,
        dpd_delay: Duration::ZERO,
        rekey_time: Duration::from_secs(4 * 3600),
        takeover: Takeover::Auto,
        inbound: Default::default(),
        roads: Default::default(),
        session: Default::default(),
        auth: AuthSettings::default(),
        children: vec![Child {
            name: "sync".to_owned(),
            mode: Mode::Transport,
            esp_proposals: vec![EspProposal {
                suite: hitless_sa::EspSuite::Aes256Gcm16,
                key_exchange: None,
                additional: Additional::NONE,
                esn: true,
            }],
            local_ts: host(settings.local).into_iter().collect(),
            remote_ts: host(other.address).into_iter().collect(),
            dynamic: Default::default(),
            per_cpu_sas: 0,
            rekey_time: Duration::from_secs(3600),
            lifetimes: Default::default(),
            replay_window: 4096,
            options: hitless_sa::SaOptions::default(),
            start: false,
        }],
    }
}

#[cfg(test)]
mod tests;
