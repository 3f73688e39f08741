//! A peer that has the right keys and no good intentions, before one engine: what it says in an IKE SA
//! that is established, or in IKE_AUTH, is authentic and otherwise anything.
//!
//! The first octet of an input says how it begins: bit 0 who is the original initiator, bits 1 and 2 the
//! stage, bits 3 to 5 settings. Then steps follow, each of them an operation (its low four bits; the
//! high ones choose among the IKE SAs), an argument, a length of two octets and so much content, of
//! which the first octet is the type of the first payload. Where the octets fe ed fe stand in it, they
//! and the next one give way to an SPI of a Child SA, which nobody can guess: low four bits which
//! one, bit 4 whose.
//!
//! After each step what left the engine is bounded and in order, every record of it is one that a
//! standby can hold, and what is in the dataplane is what the IKE SAs have, within the configured
//! selectors. In the end an IKE SA is there or its end was told, and a standby that takes over has the
//! same ones with the same Child SAs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hitless::entropy::SeededEntropy;
use hitless::ike::auth::AuthSettings;
use hitless::ike::crypto::SkKeys;
use hitless::ike::crypto::sk::IvSource;
use hitless::ike::fragments::Fragmentation;
use hitless::ike::message::{Exchange, FragmentPlace, Header, PayloadKind};
use hitless::ike::proposal::{Encryption, Identification};
use hitless::ike::settings::{
    Child, Connection, EngineSettings, Mobike, Secret, Takeover, Unique, WindowSize,
};
use hitless::ike::status::{IkeSaStatus, SaState};
use hitless::ike::{ChildChange, Commit, Engine, Event, Input, Output, Resume};
use hitless_sa::{
    ChildSa, IkeSpi, Incarnation, Instant, MemberId, MessageId, Mode, SaId, SaOptions,
    TrafficSelector,
};

/// The engine that is tried, and the peer that is played.
const US: usize = 0;
const PEER: usize = 1;
/// Steps of one input.
const STEPS: usize = 64;
/// Outputs that one step may have, and octets of them. A peer that says nothing any more has its
/// requests repeated, and time passes by the hour here.
const OUTPUTS: usize = 400;
const OCTETS: usize = 1 << 20;
/// The record of an IKE SA with two configured Child SAs and as many more as a peer may have.
const RECORD: usize = 1 << 17;
/// IKE SAs that one peer may have at a time by rekeying, those included that are about to go.
const IKE_SAS: usize = 24;
/// Turns of the timers, and how many more in each second: a peer that says nothing is asked again and
/// again, and what is always due would stall everybody.
const TURNS: u64 = 500;
const TURNS_A_SECOND: u64 = 2;
/// One request at a time may be answered late by us, or never.
const LONGEST: usize = 20_000;
/// Of the IKE SAs, the one that was made last.
const NEWEST: usize = 15;
/// An SPI belongs here.
const PLACE: [u8; 3] = [0xfe, 0xed, 0xfe];

/// How an input begins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Beginning(u8);

impl Beginning {
    /// Who is the original initiator.
    fn first(self) -> usize {
        usize::from(self.0 & 1)
    }

    /// Datagrams of IKE_SA_INIT and IKE_AUTH that are exchanged before the peer turns hostile.
    fn exchanged(self) -> usize {
        match self.0 >> 1 & 3 {
            // The peer has IKE_AUTH to say: the request, or the response to ours.
            0 => 2 + usize::from(self.first() == US),
            _ => 4,
        }
    }

    fn children(self) -> usize {
        usize::from(self.0 >> 1 & 3).clamp(1, 2)
    }
}

fn address(host: usize) -> IpAddr {
    [192, 0, 2, host as u8 + 1].into()
}

fn road(host: usize) -> SocketAddr {
    SocketAddr::new(address(host), 4500)
}

fn selector(host: usize, child: usize) -> Vec<TrafficSelector> {
    let address = [10, host as u8 + 1, child as u8, 0].into();
    Vec::from_iter(TrafficSelector::prefix(address, 24))
}

fn read<T: std::str::FromStr>(text: &str) -> T {
    match text.parse() {
        Ok(read) => read,
        Err(_) => panic!("{text} is not read"),
    }
}

fn child(beginning: Beginning, host: usize, number: usize) -> Child {
    Child {
        name: format!("net{number}"),
        mode: Mode::Tunnel,
        esp_proposals: vec![read("aes128gcm16-x25519-esn"), read("aes128gcm16-esn")],
        local_ts: selector(host, number),
        remote_ts: selector(1 - host, number),
        dynamic: Default::default(),
        per_cpu_sas: 0,
        rekey_time: Duration::from_secs(3600),
        lifetimes: Default::default(),
        replay_window: 1024,
        start: host == beginning.first(),
        options: SaOptions::default(),
    }
}

fn settings(beginning: Beginning, host: usize, member: usize) -> EngineSettings {
    let name = |host: usize| Identification::Fqdn(format!("{host}.test"));
    let flag = |bit: u8| beginning.0 >> bit & 1 == 1;
    let mut connection = Connection {
        name: "peer".to_owned(),
        local_addrs: vec![address(host)],
        remote_addrs: vec![address(1 - host)],
        remote_port: 4500,
        fragmentation: Fragmentation::Yes,
        fragment_size: 1280,
        proposals: vec![read("aes128gcm16-prfsha256-x25519")],
        local_id: name(host),
        remote_id: name(1 - host),
        encap: false,
        dpd_delay: Duration::from_secs(30),
        rekey_time: Duration::from_secs(14_400),
        takeover: Takeover::Auto,
        inbound: Default::default(),
        roads: Default::default(),
        session: Default::default(),
        auth: AuthSettings::default(),
        children: (0..beginning.children())
            .map(|number| child(beginning, host, number))
            .collect(),
    };
    if flag(3) {
        connection.roads.mobike = Mobike::Offer;
    }
    if flag(4) {
        connection.roads.window_size = WindowSize::new(4).unwrap_or_default();
    }
    if flag(5) {
        connection.roads.unique = Unique::Replace;
    }
    EngineSettings::new(
        MemberId(member as u8),
        Incarnation(1),
        vec![connection],
        vec![Secret {
            ids: Vec::new(),
            secret: b"0123456789abcdef".to_vec().into(),
        }],
    )
}

/// Two engines from the first message on.
struct Handshake {
    engines: [Engine; 2],
    entropy: [SeededEntropy; 2],
    now: Instant,
    outputs: [Vec<Output>; 2],
}

impl Handshake {
    /// Until so many datagrams have arrived. What is drawn by chance is the same each time.
    fn new(beginning: Beginning, datagrams: usize) -> Handshake {
        let mut both = Handshake {
            engines: [US, PEER].map(|host| Engine::new(settings(beginning, host, host + 1))),
            entropy: [US, PEER].map(|host| SeededEntropy::new(host as u64 + 1)),
            now: Instant(1_000_000_000_000),
            outputs: Default::default(),
        };
        let first = beginning.first();
        for host in [1 - first, first] {
            let (now, entropy) = (both.now, &mut both.entropy[host]);
            both.engines[host].lead(now, entropy, &mut |_| Resume::Exact);
        }
        let mut host = first;
        let mut sent = both.drain(host);
        for _ in 0..datagrams {
            let Some(datagram) = (!sent.is_empty()).then(|| sent.remove(0)) else {
                break;
            };
            host = 1 - host;
            both.give(host, &datagram);
            sent.extend(both.drain(host));
        }
        both
    }

    fn give(&mut self, host: usize, payload: &[u8]) {
        let input = Input::Datagram {
            local: road(host),
            remote: road(1 - host),
            payload,
        };
        self.engines[host].handle(self.now, &mut self.entropy[host], input);
    }

    /// The datagrams that an engine sends; all else it gives is kept.
    fn drain(&mut self, host: usize) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        while let Some(output) = self.engines[host].poll_output() {
            for payload in datagrams(&output) {
                sent.push(payload.to_vec());
            }
            self.outputs[host].push(output);
        }
        sent
    }
}

fn datagrams(output: &Output) -> impl Iterator<Item = &[u8]> {
    let (one, more) = match output {
        Output::Transmit(transmit) | Output::Retransmit { transmit, .. } => {
            (Some(transmit), &[][..])
        }
        Output::Commit(commit) => (None, &commit.transmits[..]),
        Output::Event(_) => (None, &[][..]),
    };
    one.into_iter().chain(more).map(|t| &t.payload[..])
}

/// The keys and salts that initiator and responder seal with, as Wireshark is told them.
fn keys(engine: &Engine, ike: IkeSpi) -> Option<[Vec<u8>; 2]> {
    let lines = engine.key_lines(ike)?;
    let mut fields = lines.expose().split(',').skip(2).map(|hex| {
        let octets = hex.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).unwrap_or_default();
            u8::from_str_radix(pair, 16).unwrap_or_default()
        });
        octets.collect::<Vec<u8>>()
    });
    Some([fields.next()?, fields.next()?])
}

/// An IKE SA as its peer sees it.
#[derive(Clone, Debug)]
struct Sight {
    initiator_spi: IkeSpi,
    responder_spi: IkeSpi,
    /// The peer is its original initiator.
    initiator: bool,
    keys: [Vec<u8>; 2],
}

/// The one of a handshake, which needs a whole one to be known.
fn first_sight(beginning: Beginning) -> Sight {
    static KNOWN: OnceLock<[OnceLock<Sight>; 64]> = OnceLock::new();
    let known = KNOWN.get_or_init(|| [const { OnceLock::new() }; 64]);
    let make = || {
        let whole = Handshake::new(beginning, 4);
        let engine = &whole.engines[US];
        let found = engine.status(whole.now);
        let Some(sight) = found.first().and_then(|sa| sight(engine, sa)) else {
            panic!("no IKE SA: {beginning:?}");
        };
        sight
    };
    known[usize::from(beginning.0)].get_or_init(make).clone()
}

fn sight(engine: &Engine, sa: &IkeSaStatus) -> Option<Sight> {
    let (initiator_spi, responder_spi) = match sa.initiator {
        true => (sa.local_spi, sa.remote_spi),
        false => (sa.remote_spi, sa.local_spi),
    };
    Some(Sight {
        initiator_spi,
        responder_spi,
        initiator: !sa.initiator,
        keys: keys(engine, sa.local_spi)?,
    })
}

impl Sight {
    fn seal(
        &self,
        (exchange, response, id): (Exchange, bool, u32),
        place: Option<FragmentPlace>,
        content: &[u8],
        iv: u64,
    ) -> Vec<u8> {
        let header = Header {
            initiator_spi: self.initiator_spi,
            responder_spi: self.responder_spi,
            exchange,
            initiator: self.initiator,
            response,
            message_id: MessageId(id),
        };
        let key = &self.keys[usize::from(!self.initiator)];
        let Ok(keys) = SkKeys::new(Encryption::Aes128Gcm16, None, key, &[]) else {
            panic!("{} octets of key", key.len());
        };
        let (first, text) = content.split_first().unwrap_or((&0, &[]));
        let iv = IvSource {
            unique: iv.to_be_bytes(),
            entropy: &mut SeededEntropy::new(iv),
        };
        keys.seal_part(&header, place, PayloadKind(*first), text, iv)
    }
}

/// One of the steps of an input.
struct Step<'a> {
    operation: u8,
    which: usize,
    argument: u8,
    content: &'a [u8],
}

fn steps(octets: &[u8]) -> Vec<Step<'_>> {
    let (mut steps, mut rest) = (Vec::new(), octets);
    while let Some(([operation, argument, high, low], behind)) = rest.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let length = length.min(behind.len()).min(LONGEST);
        let (content, behind) = behind.split_at(length);
        steps.push(Step {
            operation: operation & 15,
            which: usize::from(operation >> 4),
            argument: *argument,
            content,
        });
        rest = behind;
        if steps.len() == STEPS {
            break;
        }
    }
    steps
}

/// What is tried, and everything that is known of it from outside.
struct Trial {
    engine: Engine,
    standby: Engine,
    beginning: Beginning,
    entropy: SeededEntropy,
    now: Instant,
    first: Sight,
    iv: u64,
    member: usize,
    /// The newest record of each IKE SA.
    records: BTreeMap<IkeSpi, (u64, Vec<u8>)>,
    versions: BTreeMap<IkeSpi, u64>,
    /// What the dataplane has.
    installed: BTreeMap<SaId, Arc<ChildSa>>,
    /// IKE SAs that were there, and those of which an end was told.
    seen: BTreeSet<IkeSpi>,
    ended: BTreeSet<IkeSpi>,
    /// Our requests, by IKE SA: exchange and Message ID.
    asked: BTreeMap<IkeSpi, (Exchange, u32)>,
    /// The last request of the peer in an IKE SA, and what came of it.
    last: Option<(Vec<u8>, Vec<Vec<u8>>)>,
    reached: Reached,
}

/// How far a hostile peer came.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Reached {
    pub installed: u32,
    pub removed: u32,
    pub rekeyed: u32,
    pub ended: u32,
    pub refused: u32,
}

/// What a hostile peer says.
pub fn run(octets: &[u8]) -> Reached {
    let Some((first, rest)) = octets.split_first() else {
        return Reached::default();
    };
    let mut trial = Trial::new(Beginning(first & 63));
    for step in steps(rest) {
        trial.take(&step);
        trial.check();
    }
    trial.end()
}

impl Trial {
    fn new(beginning: Beginning) -> Trial {
        let mut begun = Handshake::new(beginning, beginning.exchanged());
        let outputs = std::mem::take(&mut begun.outputs[US]);
        let [engine, _] = begun.engines;
        let [entropy, _] = begun.entropy;
        let mut trial = Trial {
            engine,
            standby: Engine::new(settings(beginning, US, 11)),
            beginning,
            entropy,
            now: begun.now,
            first: first_sight(beginning),
            iv: 1 << 40,
            member: 11,
            records: BTreeMap::new(),
            versions: BTreeMap::new(),
            installed: BTreeMap::new(),
            seen: BTreeSet::new(),
            ended: BTreeSet::new(),
            asked: BTreeMap::new(),
            last: None,
            reached: Reached::default(),
        };
        for output in outputs {
            trial.heed(output);
        }
        trial.check();
        trial
    }

    fn established(&self) -> Vec<IkeSaStatus> {
        let mut all = self.engine.status(self.now);
        all.retain(|sa| sa.state != SaState::Connecting);
        all
    }

    /// The IKE SA that a step is about: its peer's sight of it, and the Message ID that it expects.
    fn about(&self, step: &Step<'_>) -> (Sight, u32, IkeSpi) {
        let all = self.established();
        let own = match self.first.initiator {
            true => self.first.responder_spi,
            false => self.first.initiator_spi,
        };
        let chosen = match step.which {
            NEWEST => all.iter().max_by_key(|sa| sa.unique_id),
            which => all.get(which % all.len().max(1)),
        };
        let chosen = chosen.and_then(|sa| Some((sight(&self.engine, sa)?, sa)));
        match chosen {
            Some((sight, sa)) => (sight, sa.expected_request.0, sa.local_spi),
            None => (self.first.clone(), 1, own),
        }
    }

    /// The content with the SPIs of an IKE SA's children in their places.
    fn filled(&self, ike: IkeSpi, content: &[u8]) -> Vec<u8> {
        let children = self.engine.child_sas(ike);
        let mut filled = content.to_vec();
        let last = filled.len().saturating_sub(3);
        for at in 0..last {
            let Some([a, b, c, which]) = filled[at..].first_chunk::<4>() else {
                break;
            };
            let child = children.get(usize::from(which & 15) % children.len().max(1));
            if let (Some(child), true) = (child, [*a, *b, *c] == PLACE) {
                let ours = which & 16 != 0;
                let spi = if ours {
                    child.inbound_spi
                } else {
                    child.outbound_spi
                };
                filled[at..at + 4].copy_from_slice(&spi.0.to_be_bytes());
            }
        }
        filled
    }

    fn take(&mut self, step: &Step<'_>) {
        let (sight, expected, ike) = self.about(step);
        let content = &self.filled(ike, step.content)[..];
        let argument = step.argument;
        let exchange = match argument & 7 {
            0 | 1 => Exchange::CreateChildSa,
            2 | 3 => Exchange::Informational,
            4 => Exchange::IkeAuth,
            5 => Exchange::IkeIntermediate,
            6 => Exchange::IkeFollowupKe,
            _ => Exchange::IkeSessionResume,
        };
        self.iv += 1;
        let iv = self.iv;
        match step.operation {
            0..=3 => {
                let datagram = sight.seal((exchange, false, expected), None, content, iv);
                let answers = self.give(&datagram);
                self.last = Some((datagram, answers));
                return;
            }
            4..=7 => {
                let (asked, id) = self.asked.get(&ike).copied().unwrap_or((exchange, 0));
                let exchange = if argument & 8 == 0 { asked } else { exchange };
                let datagram = sight.seal((exchange, true, id), None, content, iv);
                self.give(&datagram);
            }
            8 => {
                let id = expected.wrapping_add_signed(i32::from(argument as i8 >> 3));
                let datagram = sight.seal((exchange, false, id), None, content, iv);
                self.give(&datagram);
            }
            9 => self.wait(Duration::from_secs(1 << (argument & 15).min(12))),
            10 | 11 => self.order(ike, argument),
            12 => return self.repeat(),
            13 => {
                let place = FragmentPlace {
                    number: u16::from(argument >> 6) + 1,
                    total: u16::from(argument >> 4 & 3) + 1,
                };
                let response = argument & 8 != 0;
                let id = match self.asked.get(&ike) {
                    Some((_, id)) if response => *id,
                    _ => expected,
                };
                let datagram = sight.seal((exchange, response, id), Some(place), content, iv);
                self.give(&datagram);
            }
            14 => self.take_over(argument),
            _ => {
                // In clear, under any SPIs.
                let mut datagram = content.to_vec();
                if let Some(spis) = datagram.get_mut(..16).filter(|_| argument & 1 == 0) {
                    spis[..8].copy_from_slice(&sight.initiator_spi.0.to_be_bytes());
                    spis[8..].copy_from_slice(&sight.responder_spi.0.to_be_bytes());
                }
                self.give(&datagram);
            }
        }
        self.last = None;
    }

    fn give(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.tell(Input::Datagram {
            local: road(US),
            remote: road(PEER),
            payload: datagram,
        })
    }

    fn tell(&mut self, input: Input<'_>) -> Vec<Vec<u8>> {
        self.engine.handle(self.now, &mut self.entropy, input);
        self.drain()
    }

    /// Everything that the engine has to say; gives the datagrams.
    fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut count = 0;
        let mut sent: Vec<Vec<u8>> = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            sent.extend(datagrams(&output).map(<[u8]>::to_vec));
            count += 1;
            let octets: usize = sent.iter().map(Vec::len).sum();
            assert!(
                count < OUTPUTS && octets < OCTETS,
                "{count}: {octets} octets"
            );
            self.heed(output);
        }
        sent
    }

    fn heed(&mut self, output: Output) {
        for datagram in datagrams(&output) {
            if let Ok(header) = Header::parse(datagram)
                && !header.response
            {
                let ike = match header.initiator {
                    true => header.initiator_spi,
                    false => header.responder_spi,
                };
                self.asked
                    .insert(ike, (header.exchange, header.message_id.0));
            }
        }
        match output {
            Output::Commit(commit) => self.commit(commit),
            Output::Event(Event::IkeDeleted { ike, .. }) => {
                self.reached.ended += 1;
                self.ended.insert(ike);
            }
            Output::Event(Event::IkeRekeyed { old, .. }) => {
                self.reached.rekeyed += 1;
                self.ended.insert(old);
            }
            Output::Event(Event::NegotiationFailed { .. }) => self.reached.refused += 1,
            _ => {}
        }
    }

    fn commit(&mut self, commit: Commit) {
        let Commit {
            ike,
            version,
            record,
            changes,
            ..
        } = commit;
        let last = self.versions.insert(ike, version);
        assert!(
            last.is_none_or(|last| last < version),
            "{last:?}: {version}"
        );
        match record {
            Some(record) => {
                let body = record.body.to_vec();
                assert!(body.len() < RECORD, "a record of {} octets", body.len());
                let stored = self.standby.store(self.now, ike, version, &body);
                assert_eq!(stored, Ok(()), "a standby cannot hold this");
                self.records.insert(ike, (version, body));
            }
            None => {
                self.standby.forget(ike);
                self.records.remove(&ike);
            }
        }
        for change in changes {
            self.install(change);
        }
    }

    fn install(&mut self, change: ChildChange) {
        match change {
            ChildChange::Install { child, name, .. } => {
                let number = usize::from(name != "net0");
                for (of, host) in [(&child.local_ts, US), (&child.remote_ts, PEER)] {
                    let most = selector(host, number);
                    let within = |ts: &TrafficSelector| {
                        most.iter().any(|most| most.intersection(ts) == Some(*ts))
                    };
                    assert!(!of.is_empty() && of.iter().all(within), "{name}: {of:?}");
                }
                self.reached.installed += 1;
                self.installed.insert(child.id, child);
            }
            ChildChange::Send(id) => {
                assert!(self.installed.contains_key(&id), "{id:?} is not there");
            }
            ChildChange::Update(child) => {
                let old = self.installed.insert(child.id, child);
                assert!(old.is_some(), "an SA that is not there has moved");
            }
            ChildChange::Remove(id) => {
                self.reached.removed += 1;
                self.installed.remove(&id);
            }
        }
    }

    /// Time passes, a turn at each time that something is due.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        let most = TURNS + TURNS_A_SECOND * time.as_secs();
        for turn in 0.. {
            let Some(due) = self.engine.poll_timeout().filter(|due| *due <= end) else {
                break;
            };
            assert!(turn < most, "timers that are always due");
            self.now = self.now.max(due);
            self.tell(Input::Timeout);
        }
        self.now = end;
    }

    fn order(&mut self, ike: IkeSpi, argument: u8) {
        let child = self.engine.children(ike).into_iter();
        let child = child.cycle().nth(usize::from(argument >> 4));
        let input = match (argument & 15, child) {
            (0 | 1, _) => Input::RekeyIke(ike),
            (2 | 3, Some(child)) => Input::RekeyChild(child),
            (4, _) => Input::Terminate { ike },
            (5, Some(child)) => Input::TerminateChild(child),
            (6, _) => Input::ReplayCounterSync { ike, delta: 1000 },
            (7, _) => Input::Initiate {
                connection: "peer".to_owned(),
                child: Some("net0".to_owned()),
            },
            (8, _) => Input::Redirect {
                ike,
                to: [192, 0, 2, 9].into(),
            },
            (9, _) => Input::Relocate {
                ike,
                local: address(US),
            },
            (10, Some(sa)) => Input::Carried {
                sa,
                bytes: u64::MAX,
                packets: u64::MAX,
            },
            _ => Input::Liveness(ike),
        };
        self.tell(input);
    }

    /// A request that comes again has the same answer, byte for byte (RFC 7296 section 2.1).
    fn repeat(&mut self) {
        let Some((datagram, answers)) = self.last.take() else {
            return;
        };
        let responses = |datagrams: &[Vec<u8>]| {
            let mut responses = datagrams.to_vec();
            responses.retain(|d| Header::parse(d).is_ok_and(|header| header.response));
            responses
        };
        let again = self.give(&datagram);
        let synchronises = Header::parse(&datagram).is_ok_and(|h| h.message_id.0 == 0);
        if !synchronises && !responses(&answers).is_empty() {
            assert_eq!(responses(&answers), responses(&again), "another answer");
        }
        self.last = Some((datagram, answers));
    }

    /// The standby leads on, and has a standby of its own.
    fn take_over(&mut self, argument: u8) {
        let how = match argument & 3 {
            0 | 1 => Resume::Exact,
            2 => Resume::MessageIdSync { replay_delta: None },
            _ => Resume::Rekey,
        };
        self.member = if self.member >= 200 {
            11
        } else {
            self.member + 1
        };
        let next = Engine::new(settings(self.beginning, US, self.member));
        self.engine = std::mem::replace(&mut self.standby, next);
        for (ike, (version, body)) in &self.records {
            let stored = self.standby.store(self.now, *ike, *version, body);
            assert_eq!(stored, Ok(()), "a second standby cannot hold this");
        }
        self.engine.lead(self.now, &mut self.entropy, &mut |_| how);
        self.drain();
    }

    fn check(&mut self) {
        let all = self.established();
        assert!(all.len() < IKE_SAS, "{} IKE SAs", all.len());
        let there: BTreeSet<IkeSpi> = all.iter().map(|sa| sa.local_spi).collect();
        for ike in self.seen.difference(&there) {
            assert!(
                self.ended.contains(ike),
                "{ike:?} is gone, and nobody was told"
            );
        }
        self.seen = there;
        let theirs = all.iter().flat_map(|sa| &sa.children);
        let theirs: BTreeSet<SaId> = theirs.map(|child| child.sa).collect();
        let ours: BTreeSet<SaId> = self.installed.keys().copied().collect();
        assert_eq!(theirs, ours, "the dataplane has other Child SAs");
    }

    /// A standby has what the engine has.
    fn end(mut self) -> Reached {
        let all = |engine: &Engine, now: Instant| {
            let all = engine.status(now).into_iter();
            let all = all.filter(|sa| sa.state != SaState::Connecting);
            all.map(|sa| {
                let children = sa
                    .children
                    .iter()
                    .map(|child| (child.sa, child.inbound_spi));
                let ids = (sa.next_request, sa.expected_request);
                (sa.local_spi, ids, children.collect::<Vec<_>>())
            })
            .collect::<Vec<_>>()
        };
        let led = all(&self.engine, self.now);
        assert_eq!(led, all(&self.standby, self.now), "the standby has others");
        self.take_over(0);
        self.check();
        self.reached
    }
}
