//! Many initiators in one engine, on UDP sockets of the kernel: each sets up an IKE SA with a Child
//! SA, some at once and never too many, and asks for signs of life afterwards.
//!
//! All speak from port 4500 on, with the non-ESP marker (RFC 7296 section 2.23), so that one socket
//! for each address does.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use hitless::entropy::SystemEntropy;
use hitless::ike::{Engine, Event, Input, Output, Resume, Transmit};
use hitless_dataplane::thread::{Readiness, wait};
use hitless_sa::{IkeSpi, Instant};

use crate::clock::Moment;
use crate::ike::crowd_of_peers;
use crate::progress::Progress;
use crate::rate::Rate;
use crate::results::RateLine;

pub const NAT_PORT: u16 = 4500;
const MARKER: [u8; 4] = [0; 4];
/// Longest datagram.
const LONGEST: usize = 65_536;
/// Datagrams taken from a socket before the next one has its turn.
const AT_ONCE: usize = 32;
/// Handshakes that are under way: more only fill the sockets' buffers, and are sent again.
const UNDER_WAY: u32 = 32;
/// Without a new IKE SA for so long there will be no more.
const PATIENCE: Duration = Duration::from_secs(15);
/// What a failover interrupts is begun anew, for a half-open IKE SA is with one member alone: after
/// so many repetitions, the first of which comes a second after the request.
const REPEATED: u32 = 4;
/// Without a new one for so long it is looked who has given up.
const STUCK: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(1);
/// The first address behind an initiator.
const BEHIND: u32 = 0x0a40_0000;
/// How often the progress is shown, in IKE SAs.
const SHOWN: u32 = 500;
/// For the IKE SAs' timers, which must not begin at zero.
const BEGINNING: Instant = Instant(1_000_000_000);

/// A socket, and the address that the engine knows it by.
#[derive(Debug)]
pub struct Road {
    socket: UdpSocket,
    local: SocketAddr,
}

impl Road {
    /// On port 4500, or on any if that is not to be had.
    pub fn open(address: IpAddr, port: u16) -> Result<Road, Box<dyn Error>> {
        let socket = UdpSocket::bind((address, port))
            .map_err(|error| format!("UDP {address}, port {port}: {error}"))?;
        socket.set_nonblocking(true)?;
        Ok(Road {
            socket,
            local: SocketAddr::new(address, NAT_PORT),
        })
    }

    pub fn address(&self) -> Result<SocketAddr, Box<dyn Error>> {
        Ok(self.socket.local_addr()?)
    }

    /// Sends a datagram; one that does not fit any more is lost, as on any network.
    pub fn send(&self, transmit: &Transmit) -> Result<(), Box<dyn Error>> {
        let datagram = [&MARKER[..], &transmit.payload].concat();
        match self.socket.send_to(&datagram, transmit.remote) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                Err(format!("to {}: {error}", transmit.remote).into())
            }
            _ => Ok(()),
        }
    }

    /// The next IKE message that has come, and from whom; what is none is passed over.
    pub fn receive<'a>(&self, room: &'a mut [u8]) -> Option<(SocketAddr, &'a [u8])> {
        loop {
            // An error here is an ICMP error of an earlier datagram, or nothing there.
            let (length, from) = self.socket.recv_from(room).ok()?;
            if room.get(..length)?.starts_with(&MARKER) {
                return Some((from, room.get(MARKER.len()..length)?));
            }
        }
    }

    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Waits until one of them has something, or the time is over.
    pub fn wait<'a>(roads: impl IntoIterator<Item = &'a Road>, longest: Duration) {
        let descriptors = roads.into_iter();
        let descriptors = descriptors.map(|road| (road.socket.as_raw_fd(), Readiness::Read));
        wait(descriptors, longest);
    }
}

/// What is asked of the initiators.
#[derive(Clone, Debug)]
pub struct Wish {
    pub gateway: SocketAddr,
    pub sas: u32,
    /// Each asks after so long for a sign of life.
    pub dpd: Duration,
}

/// What came of setting them up.
#[derive(Debug)]
pub struct SetUp {
    pub took: Duration,
    pub rate: RateLine,
    /// Requests beyond the two that each needs.
    pub repeated: u64,
}

/// What came of keeping them.
#[derive(Debug)]
pub struct Kept {
    pub signs: u64,
    /// IKE SAs with a Child SA whose peer has shown that it is there.
    pub alive: u32,
}

/// The initiators.
pub struct Flock {
    engine: Engine,
    entropy: SystemEntropy,
    roads: Vec<Road>,
    began: Moment,
    /// When each was started.
    started: Vec<Moment>,
    /// Those of them that are not established.
    under_way: BTreeSet<u32>,
    wanted: u32,
    established: u32,
    children: u32,
    /// Requests that set up an IKE SA.
    sent: u64,
    rate: Rate,
    signs: u64,
    dpd: Duration,
    /// The last of each.
    alive: BTreeMap<IkeSpi, Moment>,
    /// The last thing that went wrong.
    trouble: Option<String>,
    room: Vec<u8>,
}

impl Flock {
    pub fn new(wish: &Wish, roads: Vec<Road>) -> Result<Flock, Box<dyn Error>> {
        let first = roads.first().ok_or("no address to speak from")?;
        let (IpAddr::V4(local), IpAddr::V4(remote)) = (first.local.ip(), wish.gateway.ip()) else {
            return Err("IPv4 addresses, please".into());
        };
        let mut settings = crowd_of_peers(wish.sas as usize, local, remote, BEHIND)?;
        for (connection, road) in settings.connections.iter_mut().zip(roads.iter().cycle()) {
            connection.local_addrs = vec![road.local.ip()];
            connection.remote_port = wish.gateway.port();
            connection.encap = true;
            connection.dpd_delay = wish.dpd;
            for child in &mut connection.children {
                child.esp_proposals = vec!["aes128gcm16".parse()?];
            }
        }
        settings.retransmit_tries = REPEATED;
        let mut flock = Flock {
            engine: Engine::new(settings),
            entropy: SystemEntropy,
            roads,
            began: Moment::now(),
            started: Vec::new(),
            under_way: BTreeSet::new(),
            wanted: wish.sas,
            established: 0,
            children: 0,
            sent: 0,
            rate: Rate::new("handshake")?,
            signs: 0,
            dpd: wish.dpd,
            alive: BTreeMap::new(),
            trouble: None,
            room: vec![0; LONGEST],
        };
        let now = flock.now();
        let lead = &mut |_| Resume::Exact;
        flock.engine.lead(now, &mut flock.entropy, lead);
        flock.obey()?;
        Ok(flock)
    }

    fn now(&self) -> Instant {
        BEGINNING + self.began.elapsed()
    }

    /// Sets all of them up.
    pub fn establish(&mut self) -> Result<SetUp, Box<dyn Error>> {
        let mut progress = Progress::new("crowd", (self.wanted / SHOWN) as usize + 1);
        let began = Moment::now();
        let (mut last, mut again, mut shown) = (Moment::now(), Moment::now(), 0);
        while self.established < self.wanted || self.children < self.wanted {
            if self.established >= shown {
                progress.step("IKE SAs");
                shown += SHOWN;
            }
            let before = self.established;
            self.start_some()?;
            self.pump()?;
            if self.established > before {
                last = Moment::now();
                again = last;
            } else if again.elapsed() > STUCK {
                again = Moment::now();
                let all: Vec<u32> = self.under_way.iter().copied().collect();
                self.initiate(all)?;
            } else if last.elapsed() > PATIENCE {
                return Err(self.stuck().into());
            }
        }
        let rate = std::mem::replace(&mut self.rate, Rate::new("handshake")?);
        Ok(SetUp {
            took: began.elapsed(),
            rate: rate.line(),
            repeated: self.sent.saturating_sub(2 * u64::from(self.wanted)),
        })
    }

    fn stuck(&self) -> String {
        let Flock {
            established,
            children,
            wanted,
            ..
        } = self;
        let trouble = self.trouble.as_deref().unwrap_or("no answer");
        format!(
            "{established} of {wanted} IKE SAs and {children} Child SAs, and no more: {trouble}"
        )
    }

    fn start_some(&mut self) -> Result<(), Box<dyn Error>> {
        let started = self.started.len() as u32;
        let room = UNDER_WAY.saturating_sub(started - self.established);
        let some: Vec<u32> = (started..self.wanted.min(started + room)).collect();
        self.started.extend(some.iter().map(|_| Moment::now()));
        self.under_way.extend(&some);
        self.initiate(some)
    }

    /// Has them begun, those that are not under way.
    fn initiate(&mut self, numbers: Vec<u32>) -> Result<(), Box<dyn Error>> {
        for number in numbers {
            let now = self.now();
            let initiate = Input::Initiate {
                connection: format!("c{number}"),
                child: None,
            };
            self.engine.handle(now, &mut self.entropy, initiate);
            self.obey()?;
        }
        Ok(())
    }

    /// Keeps them for a time, and on until everybody has given a sign of life, within patience.
    pub fn keep(&mut self, time: Duration) -> Result<Kept, Box<dyn Error>> {
        let mut progress = Progress::new("crowd", time.as_secs() as usize + 1);
        (self.signs, self.alive) = (0, BTreeMap::new());
        let (began, mut shown) = (Moment::now(), 0);
        let all = |flock: &Flock| flock.alive().count() == flock.wanted as usize;
        while began.elapsed() < time || began.elapsed() < time + PATIENCE && !all(self) {
            if began.elapsed().as_secs() >= shown {
                progress.step("seconds kept alive");
                shown += 1;
            }
            self.pump()?;
        }
        let there = |ike: &&IkeSpi| self.engine.children(**ike).len() == 1;
        Ok(Kept {
            signs: self.signs,
            alive: self.alive().filter(there).count() as u32,
        })
    }

    /// Who has given a sign of life in the last round of questions: what came before is long ago.
    fn alive(&self) -> impl Iterator<Item = &IkeSpi> {
        let (now, round) = (Moment::now(), self.dpd + PATIENCE);
        let signs = self.alive.iter();
        signs.filter_map(move |(ike, last)| (now.since(*last) <= round).then_some(ike))
    }

    /// Why one was lost, if one was.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Takes what has come, waiting for it a little, and lets timers run.
    fn pump(&mut self) -> Result<(), Box<dyn Error>> {
        Road::wait(&self.roads, TICK);
        for index in 0..self.roads.len() {
            self.take_from(index)?;
        }
        let now = self.now();
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle(now, &mut self.entropy, Input::Timeout);
            self.obey()?;
        }
        Ok(())
    }

    fn take_from(&mut self, index: usize) -> Result<(), Box<dyn Error>> {
        let mut room = std::mem::take(&mut self.room);
        for _ in 0..AT_ONCE {
            let now = self.now();
            let Some(road) = self.roads.get(index) else {
                break;
            };
            let Some((remote, payload)) = road.receive(&mut room) else {
                break;
            };
            let input = Input::Datagram {
                local: road.local,
                remote,
                payload,
            };
            self.engine.handle(now, &mut self.entropy, input);
            self.obey()?;
        }
        self.room = room;
        Ok(())
    }

    fn obey(&mut self) -> Result<(), Box<dyn Error>> {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Transmit(transmit) | Output::Retransmit { transmit, .. } => {
                    self.send(&transmit)?;
                }
                Output::Commit(commit) => {
                    for transmit in &commit.transmits {
                        self.send(transmit)?;
                    }
                }
                Output::Event(event) => self.note(event),
            }
        }
        Ok(())
    }

    fn send(&mut self, transmit: &Transmit) -> Result<(), Box<dyn Error>> {
        let mut roads = self.roads.iter();
        let road = roads.find(|road| road.local.ip() == transmit.local.ip());
        // IKE_SA_INIT and IKE_AUTH (RFC 7296 section 3.1), not signs of life.
        let sets_up = matches!(transmit.payload.get(18), Some(34 | 35));
        self.sent += u64::from(sets_up);
        road.ok_or("a message from an address that is not ours")?
            .send(transmit)
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::IkeEstablished { connection, .. } => {
                self.established += 1;
                let number = connection.get(1..).and_then(|digits| digits.parse().ok());
                if let Some(number) = number
                    && self.under_way.remove(&number)
                    && let Some(begun) = self.started.get(number as usize)
                {
                    self.rate.note(begun.elapsed());
                }
            }
            Event::ChildEstablished { .. } => self.children += 1,
            Event::LivenessConfirmed { ike } => {
                self.signs += 1;
                self.alive.insert(ike, Moment::now());
            }
            Event::IkeDeleted {
                connection, reason, ..
            } => self.trouble = Some(format!("{connection}: {reason}")),
            Event::AuthenticationFailed { reason, .. }
            | Event::NegotiationFailed { reason, .. } => self.trouble = Some(reason),
            _ => {}
        }
    }
}
