//! A gateway's daemon at the other end of a UDP socket, whose control socket tells what became of
//! each message.
//!
//! Silence has no end of its own. So behind each message goes a question that is answered at once and
//! leaves nothing behind: an IKE_SA_INIT with a key exchange that the gateway does not want. What it
//! had to say to the message before comes before the answer, or very soon after.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use hitless::api::client::call;
use hitless::api::{IkeState, Reply, Request};

use super::peer::ike_proposal;
use super::wire::{self, INITIATOR, Message, NONCE, Raw};

const NAT_PORT: u16 = 4500;
const FIRST_PORT: u16 = 10_000;
const MARKER: [u8; 4] = [0; 4];
const LONGEST: usize = 65_536;
/// What one IP packet of the bed's cable carries of an IKE message.
pub const ONE_PACKET: usize = 1500 - 20 - 8 - MARKER.len();
/// How long the question's answer is waited for, and what may still come behind it.
const PATIENCE: Duration = Duration::from_secs(2);
const BEHIND: Duration = Duration::from_millis(15);
/// The question is asked so often before the gateway counts as gone.
const TRIES: usize = 3;
/// A group that no connection of the bed has: MODP-1024, which RFC 8247 forbids, too.
const UNWANTED: (u16, usize) = (2, 128);
/// The initiator's SPI of each question, but for its number.
const QUESTION: u64 = 0x7175_6573_7469_0000;
/// What the question itself adds to the counters.
const OF_THE_QUESTION: &str = "ike_negotiation_failed";

/// Where the daemon is.
#[derive(Clone, Debug)]
pub struct Target {
    pub gateway: Ipv4Addr,
    pub from: Ipv4Addr,
    /// Its control socket.
    pub socket: PathBuf,
}

/// The daemon, as one peer has it: each bed speaks from a port of its own, by which its SAs are told
/// from those of earlier ones.
#[derive(Debug)]
pub struct Daemon {
    udp: UdpSocket,
    socket: PathBuf,
    questions: u64,
    counts: BTreeMap<String, u64>,
}

/// A port that no earlier bed had: the kernel gives one out again as soon as it is free.
fn bind(from: Ipv4Addr) -> std::io::Result<UdpSocket> {
    static NEXT: AtomicU16 = AtomicU16::new(FIRST_PORT);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        match UdpSocket::bind((from, port)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && port >= FIRST_PORT => {}
            bound => return bound,
        }
    }
}

/// What came of a message.
#[derive(Debug, Default)]
pub struct Heard {
    pub sent: Vec<Vec<u8>>,
    pub dropped: Vec<String>,
}

impl Daemon {
    pub fn open(target: &Target) -> Result<Daemon, String> {
        let udp = bind(target.from)
            .and_then(|udp| udp.connect((target.gateway, NAT_PORT)).map(|()| udp))
            .map_err(|error| format!("UDP from {}: {error}", target.from))?;
        let mut daemon = Daemon {
            udp,
            socket: target.socket.clone(),
            questions: 0,
            counts: BTreeMap::new(),
        };
        daemon.counts = daemon.drops()?;
        Ok(daemon)
    }

    pub fn here(&self) -> Result<SocketAddr, String> {
        self.udp.local_addr().map_err(|error| error.to_string())
    }

    /// Sends a message of ours and waits for all that the gateway has to say to it.
    pub fn exchange(&mut self, datagram: &[u8]) -> Result<Heard, String> {
        self.send(datagram)?;
        let mut heard = Heard::default();
        // The first answer shows that the message was read, the second that it was dealt with.
        let asked = self.question(&mut heard)? + self.question(&mut heard)?;
        self.listen(None, BEHIND, &mut heard)?;
        // A late answer to an earlier question.
        let own = |octets: &Vec<u8>| {
            wire::read_header(octets).is_some_and(|header| header.initiator >> 16 == QUESTION >> 16)
        };
        heard.sent.retain(|octets| !own(octets));
        heard.dropped = self.dropped(asked)?;
        Ok(heard)
    }

    /// Asks the question until it is answered, and takes what comes meanwhile; how often it was asked.
    fn question(&mut self, heard: &mut Heard) -> Result<usize, String> {
        for asked in 1..=TRIES {
            let spi = self.ask()?;
            if self.listen(Some(spi), PATIENCE, heard)? {
                return Ok(asked);
            }
        }
        Err("the gateway does not answer any more".to_owned())
    }

    fn send(&self, datagram: &[u8]) -> Result<(), String> {
        let sent = self.udp.send(&[&MARKER[..], datagram].concat());
        sent.map(drop).map_err(|error| format!("sending: {error}"))
    }

    /// Asks the question; gives the SPI that its answer will have.
    fn ask(&mut self) -> Result<u64, String> {
        self.questions += 1;
        let spi = QUESTION | self.questions;
        let (group, octets) = UNWANTED;
        let message = Message {
            initiator: spi,
            responder: 0,
            version: 0x20,
            exchange: wire::IKE_SA_INIT,
            flags: INITIATOR,
            id: 0,
            length: None,
            payloads: vec![
                wire::security_association(&[ike_proposal()]),
                wire::key_exchange(group, &vec![1; octets]),
                Raw::new(NONCE, vec![7; 32]),
            ],
        };
        self.send(&message.octets()).map(|()| spi)
    }

    /// Takes what comes until the answer to the question with this SPI, or for this long.
    fn listen(
        &self,
        until: Option<u64>,
        limit: Duration,
        heard: &mut Heard,
    ) -> Result<bool, String> {
        let failed = |error: std::io::Error| format!("receiving: {error}");
        self.udp.set_read_timeout(Some(limit)).map_err(failed)?;
        let mut room = vec![0; LONGEST];
        loop {
            let length = match self.udp.recv(&mut room) {
                Ok(length) => length,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(failed(error)),
            };
            let octets = room.get(..length).and_then(|all| all.strip_prefix(&MARKER));
            let Some(octets) = octets else {
                continue;
            };
            let answers = wire::read_header(octets).map(|header| header.initiator);
            if answers.is_some() && answers == until {
                return Ok(true);
            }
            heard.sent.push(octets.to_vec());
        }
    }

    /// Why the daemon dropped what it dropped since the last look, as far as the questions are not
    /// the reason.
    fn dropped(&mut self, questions: usize) -> Result<Vec<String>, String> {
        let now = self.drops()?;
        let mut found = Vec::new();
        for (reason, count) in &now {
            let before = self.counts.get(reason).copied().unwrap_or(0);
            let own = match reason.as_str() {
                OF_THE_QUESTION => questions as u64,
                _ => 0,
            };
            if count.saturating_sub(before) > own {
                let words = reason.strip_prefix("ike_").unwrap_or(reason);
                found.push(words.replace('_', " "));
            }
        }
        self.counts = now;
        Ok(found)
    }

    fn drops(&self) -> Result<BTreeMap<String, u64>, String> {
        let reply = call(&self.socket, &Request::Status {}).map_err(|error| error.to_string())?;
        let Reply::Status(status) = reply else {
            return Err("the daemon tells no status".to_owned());
        };
        let ours = |reason: &str| {
            let of_packets = reason.contains("fragment") || reason.contains("punt");
            reason.starts_with("ike_") || of_packets
        };
        let drops = status.drops.into_iter();
        let drops = drops.map(|drop| (drop.reason, drop.packets));
        Ok(drops.filter(|(reason, _)| ours(reason)).collect())
    }

    /// Our established IKE SAs and their Child SAs. One that is being deleted has been.
    pub fn sas(&self) -> (usize, usize) {
        let Ok(Reply::Sas { sas }) = call(&self.socket, &Request::ListSas { connection: None })
        else {
            return (0, 0);
        };
        let port = self.here().map_or(0, |here| here.port());
        let ours = sas.iter().filter(|sa| sa.remote_port == port);
        let there = |sa: &&_| {
            let sa: &hitless::api::IkeSaStatus = sa;
            sa.state != IkeState::Connecting
        };
        ours.filter(there).fold((0, 0), |(ike, children), sa| {
            (ike + 1, children + sa.children.len())
        })
    }
}
