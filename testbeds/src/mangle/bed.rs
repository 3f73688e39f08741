//! The bed of one case: the mangling peer and a gateway's IKE engine with nothing between them, or a
//! daemon at the other end of a socket.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use hitless::config::Config;
use hitless::entropy::SeededEntropy;
use hitless::gateway::GatewaySettings;
use hitless::ike::auth::TimeOfDay;
use hitless::ike::{ChildChange, Engine, Event, Input, Output, Resume};
use hitless_sa::{Incarnation, Instant, SaId};

use super::far::{Daemon, ONE_PACKET, Target};
use super::peer::{Peer, SECRET};
use super::wire;
use crate::sim::pki::TODAY;

/// How far the two have come when the wrong message is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Nothing was said.
    Nothing,
    /// As many others are half-open that cookies are demanded.
    Busy,
    /// The peer has the answer to its IKE_SA_INIT.
    HalfOpen,
    /// The peer, who initiated, is authenticated and has a Child SA.
    Established,
    /// The peer logs in with EAP, and was asked who it is.
    LogIn,
    /// It has said so, and has a challenge to answer.
    Challenged,
    /// The gateway logs in with EAP: it has sent an IKE_AUTH without AUTH.
    AskedLogin,
    /// It has said who its user is.
    AskedUser,
    /// The gateway has sent IKE_SA_INIT.
    AskedInit,
    /// The gateway has sent IKE_AUTH.
    AskedAuth,
    /// The gateway, who initiated, has asked for one more Child SA.
    AskedChild,
    /// The gateway, who initiated, has asked for a new IKE SA.
    AskedRekey,
    /// The gateway, who initiated, has asked for a sign of life.
    AskedLife,
}

impl Stage {
    /// Whether the gateway is the original initiator.
    pub fn asks(self) -> bool {
        matches!(
            self,
            Stage::AskedLogin
                | Stage::AskedUser
                | Stage::AskedInit
                | Stage::AskedAuth
                | Stage::AskedChild
                | Stage::AskedRekey
                | Stage::AskedLife
        )
    }

    /// Whether a peer can bring it about by itself, with a gateway that has others to think of, too.
    pub fn far(self) -> bool {
        !self.asks() && !self.logs_in() && self != Stage::Busy
    }
}

/// Why an IKE SA does not come about.
pub const NOT_AUTHENTICATED: &str = "authentication failed";
/// Half-open IKE SAs that a bed's gateway keeps at most.
const HALF_OPEN: usize = 8;

/// The gateway.
enum Gateway {
    Engine(Box<Near>),
    Daemon(Daemon),
}

/// An engine in this process, and what it has installed.
struct Near {
    engine: Engine,
    now: Instant,
    there: SocketAddr,
    children: BTreeSet<SaId>,
    /// How often a request is sent before the gateway gives up.
    tries: usize,
}

/// Gateway and peer.
pub struct Bed {
    gateway: Gateway,
    pub entropy: SeededEntropy,
    pub here: SocketAddr,
    pub peer: Peer,
    /// What the gateway sent since the last look, and why it dropped what it dropped.
    pub sent: Vec<Vec<u8>>,
    pub dropped: Vec<String>,
    /// Rekeyings of the IKE SA since the last look.
    pub rekeyed: usize,
    /// The last request and the answer that it got.
    pub last: (Vec<u8>, Vec<u8>),
}

fn configuration(second: bool) -> String {
    let second = match second {
        false => "",
        true => {
            r#"
[connections.mangler.children.more]
esp_proposals = ["aes128gcm16-x25519"]
local_ts = ["10.1.0.0/16"]
remote_ts = ["10.9.0.0/16"]
"#
        }
    };
    format!(
        r#"[cluster]
name = "mangle"
id = 1
secret = "0x000102030405060708090a0b0c0d0e0f"
[ports.outside]
driver = "memory"
addresses = ["192.0.2.1/24"]
protected = false
[ports.inside]
driver = "memory"
addresses = ["10.1.0.1/24"]
protected = true
[connections.mangler]
local_addrs = ["192.0.2.1"]
remote_addrs = ["192.0.2.9"]
proposals = ["aes128gcm16-prfsha256-x25519", "aes128gcm16-prfsha256-ecp256"]
local = {{ auth = "psk", id = "gateway.test" }}
remote = {{ auth = "psk", id = "mangler.test" }}
dpd_delay = "1h"
[connections.mangler.children.net]
esp_proposals = ["aes128gcm16-x25519"]
local_ts = ["10.1.0.0/16"]
remote_ts = ["10.9.0.0/16"]
start_action = "none"
{second}
[secrets.mangler]
secret = "{SECRET}"
"#
    )
}

impl Near {
    fn note(&mut self, change: ChildChange) {
        match change {
            ChildChange::Install { child, .. } => {
                self.children.insert(child.id);
            }
            ChildChange::Remove(id) => {
                self.children.remove(&id);
            }
            ChildChange::Send(_) | ChildChange::Update(_) => {}
        }
    }
}

impl Bed {
    /// A bed at a stage; the reason if it does not come so far.
    pub fn at(stage: Stage) -> Result<Bed, String> {
        let text = configuration(stage == Stage::AskedChild) + &stage.connection();
        let mut config = Config::parse("mangle.toml", &text, Path::new("."))
            .map_err(|error| error.to_string())?;
        stage.enter_login(&mut config)?;
        let mut settings = GatewaySettings::new(config).engine(Incarnation(1));
        settings.limits.init_limit_half_open = HALF_OPEN;
        settings.limits.cookie_threshold = HALF_OPEN / 2;
        let entropy = SeededEntropy::new(stage as u64 + 1);
        let tries = settings.retransmit_tries;
        let now = Instant(1_000_000_000_000);
        settings.time_of_day = TimeOfDay::new(now, TODAY);
        let near = Near {
            tries: tries as usize,
            engine: Engine::new(settings),
            now,
            there: SocketAddr::from(([192, 0, 2, 1], 500)),
            children: BTreeSet::new(),
        };
        let here = SocketAddr::from(([192, 0, 2, 9], 500));
        let mut bed = Bed::new(Gateway::Engine(Box::new(near)), stage, entropy, here);
        bed.lead();
        bed.arrive(stage)
    }

    /// A bed with a daemon, at a stage that a peer can bring about by itself. `seed` differs from case
    /// to case: the daemon remembers.
    pub fn toward(target: &Target, stage: Stage, seed: u64) -> Result<Bed, String> {
        let daemon = Daemon::open(target)?;
        let here = daemon.here()?;
        let entropy = SeededEntropy::new(seed);
        Bed::new(Gateway::Daemon(daemon), stage, entropy, here).arrive(stage)
    }

    fn new(gateway: Gateway, stage: Stage, mut entropy: SeededEntropy, here: SocketAddr) -> Bed {
        Bed {
            gateway,
            peer: Peer::new(&mut entropy, !stage.asks()),
            entropy,
            here,
            sent: Vec::new(),
            dropped: Vec::new(),
            rekeyed: 0,
            last: Default::default(),
        }
    }

    fn arrive(mut self, stage: Stage) -> Result<Bed, String> {
        self.reach(stage).ok_or_else(|| {
            let (sent, dropped) = (self.sent.len(), &self.dropped);
            format!("no way to {stage:?}: {sent} messages, {dropped:?}")
        })?;
        self.look();
        Ok(self)
    }

    fn lead(&mut self) {
        if let Gateway::Engine(near) = &mut self.gateway {
            let lead = &mut |_| Resume::Exact;
            near.engine.lead(near.now, &mut self.entropy, lead);
        }
        self.drain();
    }

    fn reach(&mut self, stage: Stage) -> Option<()> {
        match stage {
            Stage::Nothing => Some(()),
            Stage::Busy => {
                for _ in 0..HALF_OPEN / 2 {
                    self.peer = Peer::new(&mut self.entropy, true);
                    self.begin()?;
                }
                self.peer = Peer::new(&mut self.entropy, true);
                Some(())
            }
            Stage::HalfOpen => self.begin(),
            Stage::Established => self.establish(),
            Stage::LogIn | Stage::Challenged | Stage::AskedLogin | Stage::AskedUser => {
                self.reach_login(stage)
            }
            Stage::AskedInit => self.initiate("mangler", "net"),
            Stage::AskedAuth => self
                .initiate("mangler", "net")
                .and_then(|()| self.answer_init()),
            Stage::AskedChild | Stage::AskedRekey | Stage::AskedLife => {
                self.initiate("mangler", "net")?;
                self.answer_init()?;
                self.answer_auth()?;
                self.look();
                self.ask(stage)
            }
        }
    }

    /// Tells the gateway to ask for something.
    pub fn ask(&mut self, stage: Stage) -> Option<()> {
        let Gateway::Engine(near) = &self.gateway else {
            return None;
        };
        let ike = near.engine.status(near.now).first()?.local_spi;
        match stage {
            Stage::AskedChild => self.input(Input::Initiate {
                connection: "mangler".to_owned(),
                child: Some("more".to_owned()),
            }),
            Stage::AskedRekey => self.input(Input::RekeyIke(ike)),
            _ => self.input(Input::Liveness(ike)),
        }
        self.last.0 = self.sent.last()?.clone();
        Some(())
    }

    fn input(&mut self, input: Input<'_>) {
        if let Gateway::Engine(near) = &mut self.gateway {
            near.engine.handle(near.now, &mut self.entropy, input);
        }
        self.drain();
    }

    /// A datagram of ours arrives.
    pub fn deliver(&mut self, datagram: &[u8]) {
        match &mut self.gateway {
            Gateway::Engine(near) => {
                let (local, remote) = (near.there, self.here);
                self.input(Input::Datagram {
                    local,
                    remote,
                    payload: datagram,
                });
            }
            Gateway::Daemon(daemon) => match daemon.exchange(datagram) {
                Ok(heard) => {
                    self.sent.extend(heard.sent);
                    self.dropped.extend(heard.dropped);
                }
                Err(reason) => self.dropped.push(reason),
            },
        }
    }

    fn drain(&mut self) {
        let Gateway::Engine(near) = &mut self.gateway else {
            return;
        };
        while let Some(output) = near.engine.poll_output() {
            match output {
                Output::Transmit(transmit) | Output::Retransmit { transmit, .. } => {
                    self.sent.push(transmit.payload);
                }
                Output::Commit(commit) => {
                    for change in commit.changes {
                        near.note(change);
                    }
                    let transmits = commit.transmits.into_iter();
                    self.sent.extend(transmits.map(|t| t.payload));
                }
                Output::Event(Event::Dropped { reason, .. }) => {
                    self.dropped.push(reason.to_owned());
                }
                Output::Event(Event::NegotiationFailed { .. }) => {
                    self.dropped.push("negotiation failed".to_owned());
                }
                Output::Event(Event::AuthenticationFailed { .. }) => {
                    self.dropped.push(NOT_AUTHENTICATED.to_owned());
                }
                Output::Event(Event::IkeRekeyed { .. }) => self.rekeyed += 1,
                Output::Event(_) => {}
            }
        }
    }

    /// What was sent and dropped is seen and forgotten.
    pub fn look(&mut self) {
        self.sent.clear();
        self.dropped.clear();
        self.rekeyed = 0;
    }

    /// Nothing arrives at a gateway that waits, until the next thing is due; false if nothing is.
    pub fn wait(&mut self) -> bool {
        let Gateway::Engine(near) = &mut self.gateway else {
            return false;
        };
        let Some(at) = near.engine.poll_timeout() else {
            return false;
        };
        near.now = near.now.max(at);
        self.input(Input::Timeout);
        true
    }

    /// Whether the gateway has no IKE SA at all, not even one that is half-open.
    pub fn empty(&self) -> bool {
        match &self.gateway {
            Gateway::Engine(near) => near.engine.status(near.now).is_empty(),
            Gateway::Daemon(daemon) => daemon.sas().0 == 0,
        }
    }

    /// How often the gateway repeats a request that nobody answers.
    pub fn tries(&self) -> usize {
        match &self.gateway {
            Gateway::Engine(near) => near.tries,
            Gateway::Daemon(_) => 0,
        }
    }

    /// Established IKE SAs.
    pub fn ike_sas(&self) -> usize {
        match &self.gateway {
            Gateway::Engine(near) => {
                let sas = near.engine.status(near.now);
                sas.iter()
                    .filter(|sa| sa.state.name() != "CONNECTING")
                    .count()
            }
            Gateway::Daemon(daemon) => daemon.sas().0,
        }
    }

    /// Whether this takes more IP packets than one to the gateway, whose packet path puts short ones
    /// together again, and refuses the others.
    pub fn in_fragments(&self, datagram: &[u8]) -> bool {
        matches!(self.gateway, Gateway::Daemon(_)) && datagram.len() > ONE_PACKET
    }

    /// Child SAs.
    pub fn children(&self) -> usize {
        match &self.gateway {
            Gateway::Engine(near) => near.children.len(),
            Gateway::Daemon(daemon) => daemon.sas().1,
        }
    }

    /// Another peer in the old one's place, of whom the gateway knows nothing.
    pub fn start_anew(&mut self) {
        self.peer = Peer::new(&mut self.entropy, true);
        self.look();
    }

    /// IKE_SA_INIT, as initiator; with a cookie if one is demanded.
    pub fn begin(&mut self) -> Option<()> {
        let first = self.peer.init();
        self.begin_with(&first)
    }

    pub fn begin_with(&mut self, first: &wire::Message) -> Option<()> {
        let request = first.octets();
        self.peer.sent_init(&request);
        self.deliver(&request);
        let mut answer = self.sent.last()?.clone();
        if let Some(cookie) = self.demanded(&answer) {
            let request = self.with_cookie(&cookie);
            self.peer.sent_init(&request);
            self.deliver(&request);
            answer = self.sent.last()?.clone();
        }
        self.last = (request, answer);
        let answer = self.last.1.clone();
        self.peer.learn(&answer)
    }

    /// The cookie that an answer demands.
    pub fn demanded(&self, answer: &[u8]) -> Option<Vec<u8>> {
        let header = wire::read_header(answer)?;
        let payloads = wire::read_chain(header.first, answer.get(28..)?)?;
        let mut notifies = payloads.iter().filter(|(kind, _)| *kind == wire::NOTIFY);
        notifies.find_map(|(_, body)| {
            let (kind, data) = wire::read_notify(body)?;
            (kind == 16390).then_some(data)
        })
    }

    /// The same IKE_SA_INIT with a cookie in front.
    pub fn with_cookie(&self, cookie: &[u8]) -> Vec<u8> {
        let mut message = self.peer.init();
        message.payloads.insert(0, wire::notify(16390, cookie));
        message.octets()
    }

    /// The whole way to an IKE SA with a Child SA, as initiator.
    pub fn establish(&mut self) -> Option<()> {
        if self.peer.other == 0 {
            self.begin()?;
        }
        let message = self.peer.message(wire::IKE_AUTH, self.peer.auth_payloads());
        let request = self.peer.seal(&message);
        self.sent.clear();
        self.deliver(&request);
        let answer = self.sent.last()?.clone();
        let payloads = self.peer.open(&answer)?;
        let sa = payloads.iter().find(|(kind, _)| *kind == wire::SA)?;
        self.peer.other_esp = wire::read_spi(&sa.1)?.try_into().ok()?;
        self.peer.next = 2;
        self.last = (request, answer);
        Some(())
    }

    /// An empty INFORMATIONAL with this Message ID is answered.
    pub fn lives(&mut self, id: u32) -> bool {
        self.sent.clear();
        let mut message = self.peer.message(wire::INFORMATIONAL, Vec::new());
        message.id = id;
        let request = self.peer.seal(&message);
        self.deliver(&request);
        self.sent.iter().any(|answer| {
            let header = wire::read_header(answer);
            let right = header.is_some_and(|h| h.id == id && h.flags & wire::RESPONSE != 0);
            right && self.peer.open(answer).is_some()
        })
    }

    /// Tells the gateway to begin.
    pub fn initiate(&mut self, connection: &str, child: &str) -> Option<()> {
        self.input(Input::Initiate {
            connection: connection.to_owned(),
            child: Some(child.to_owned()),
        });
        let request = self.sent.last()?.clone();
        self.last.0.clone_from(&request);
        self.peer.learn(&request)
    }

    /// The right answer to the gateway's IKE_SA_INIT; true if IKE_AUTH follows.
    pub fn answer_init(&mut self) -> Option<()> {
        let answer = self.peer.init();
        self.answer_init_with(&answer)
    }

    pub fn answer_init_with(&mut self, answer: &wire::Message) -> Option<()> {
        let answer = answer.octets();
        self.peer.sent_init(&answer);
        self.sent.clear();
        self.deliver(&answer);
        let request = self.sent.last()?.clone();
        self.peer.open(&request)?;
        self.last.0 = request;
        Some(())
    }

    /// The right answer to its IKE_AUTH; it has an IKE SA with a Child SA then.
    pub fn answer_auth(&mut self) -> Option<()> {
        let message = self.peer.message(wire::IKE_AUTH, self.peer.auth_payloads());
        let answer = self.peer.seal(&message);
        self.deliver(&answer);
        let up = self.ike_sas() == 1 && self.children() == 1;
        up.then_some(())
    }

    /// Reads the gateway's new IKE_SA_INIT, after a refusal of the one before.
    pub fn relearn(&mut self) -> Option<()> {
        let request = self.sent.last()?.clone();
        self.peer.learn(&request)
    }

    /// The Message ID of the gateway's last request.
    pub fn asked(&self) -> u32 {
        wire::read_header(&self.last.0).map_or(0, |header| header.id)
    }
}
