//! Many IKE SAs with a Child SA each, in two engines on one core: what a responder needs to make
//! one, what each weighs, and what it costs to keep all of them alive by timers, round by round.
//!
//! Time is virtual, so that the dead peer detection of minutes is a matter of work alone. Memory is
//! the growth of this process, which has both ends of every IKE SA in it.
//!
//! Every client is behind a NAT. Where an IKE SA has a Child SA the dataplane sends the keepalives of
//! RFC 3948 section 2.3, where it has none the engine does: so one in ten has none.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hitless::entropy::SeededEntropy;
use hitless::ike::message::{Exchange, Header};
use hitless::ike::proposal::Identification;
use hitless::ike::settings::{Childless, EngineSettings};
use hitless::ike::status::SaState;
use hitless::ike::{Engine, Event, Input, Output, Resume, Transmit};
use hitless_sa::{IkeSpi, Instant};
use serde::Serialize;

use super::meter::Meter;
use crate::clock::Moment;
use crate::ike::{PROPOSALS, settings};
use crate::machine::Pin;
use crate::progress::Progress;
use crate::rate::Rate;
use crate::results::RateLine;

const CLIENT: usize = 0;
const GATEWAY: usize = 1;
/// Between two IKE SAs that are made.
const STEP: Duration = Duration::from_millis(1);
/// How often the progress is shown, in IKE SAs.
const SHOWN: usize = 1000;
/// One in so many has no Child SA.
const CHILDLESS: u32 = 10;
/// What a NAT adds to the address of a client.
const MAPPED: u32 = 0x0100_0000;
/// A NAT keepalive (RFC 3948 section 2.3).
const KEEPALIVE: [u8; 1] = [0xff];

/// What came of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Crowd {
    pub sas: u32,
    /// IKE_SA_INIT and IKE_AUTH, as responder.
    pub answered: RateLine,
    /// Octets of each end of an IKE SA, when all are there.
    pub octets: u64,
    /// The same after the last round.
    pub octets_after: u64,
    /// A turn of the timers: peers are asked for a sign of life.
    pub turn: RateLine,
    /// Its answer.
    pub sign_of_life: RateLine,
    /// Of dead peer detection.
    pub rounds: Vec<Round>,
    /// NAT keepalives of the clients without a Child SA.
    pub keepalives: u64,
    /// Virtual time from the last handshake to the end of the last round.
    pub kept_seconds: f64,
    /// What the responder was busy for in one second of that.
    pub busy_ms_per_second: f64,
    /// IKE SAs that are established at both ends in the end, with the Child SA that they had.
    pub alive: u32,
}

/// Every peer is asked for a sign of life.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Round {
    /// Requests, repeated ones too.
    pub asked: u64,
    pub answered: u64,
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} IKE SAs, nine in ten with a Child SA, {}",
            self.sas, PROPOSALS[0].0
        )?;
        writeln!(
            f,
            "  memory of each end: {} octets, after the last round {}",
            self.octets, self.octets_after
        )?;
        for line in [&self.answered, &self.turn, &self.sign_of_life] {
            writeln!(
                f,
                "  {:<44} {:>9.0} a second, p50 {:.1} us, p99 {:.1} us",
                line.what, line.per_second, line.p50_us, line.p99_us
            )?;
        }
        for (number, Round { asked, answered }) in (1..).zip(&self.rounds) {
            writeln!(
                f,
                "  round {number} of dead peer detection: {asked} asked, {answered} answered"
            )?;
        }
        writeln!(
            f,
            "  kept for {:.0} s of virtual time, {} NAT keepalives; the responder was busy for {:.2} ms of each second",
            self.kept_seconds, self.keepalives, self.busy_ms_per_second
        )?;
        writeln!(f, "  alive in the end: {} of {}", self.alive, self.sas)
    }
}

/// Makes them all, and lets each be asked for so many signs of life.
pub fn run(sas: u32, rounds: u32, pin: &Pin) -> Result<Crowd, Box<dyn Error>> {
    pin.cores().take(0);
    let mut bed = Bed::new(sas)?;
    let meter = Meter::process(std::process::id());
    let before = meter.resident()?;
    let each = |resident: u64| resident.saturating_sub(before) / (2 * u64::from(sas));
    let answered = bed.establish(sas)?;
    let octets = each(meter.resident()?);
    let began = bed.now;
    let (turn, sign_of_life) = bed.keep_alive(sas, rounds)?;
    let octets_after = each(meter.resident()?);
    let kept_seconds = bed.now.since(began).as_secs_f64();
    let alive = bed.alive();
    if alive != sas {
        return Err(format!("{alive} of {sas} IKE SAs are left").into());
    }
    Ok(Crowd {
        sas,
        answered,
        octets,
        octets_after,
        turn,
        sign_of_life,
        keepalives: bed.keepalives,
        kept_seconds,
        busy_ms_per_second: 1e3 * bed.busy.as_secs_f64() / kept_seconds,
        rounds: bed.rounds,
        alive,
    })
}

fn name(client: u32) -> String {
    format!("client-{client}")
}

fn address(client: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + client).into()
}

fn is_childless(client: u32) -> bool {
    client % CHILDLESS == CHILDLESS - 1
}

/// What the NAT makes of an address of a client, and what it makes of that on the way back.
fn mapped(address: SocketAddr, back: bool) -> SocketAddr {
    let IpAddr::V4(ip) = address.ip() else {
        return address;
    };
    let ip = u32::from(ip);
    let ip = if back { ip - MAPPED } else { ip + MAPPED };
    SocketAddr::new(Ipv4Addr::from(ip).into(), address.port())
}

/// One connection for each client.
fn clients(count: u32) -> Result<EngineSettings, Box<dyn Error>> {
    let (ike, esp) = PROPOSALS[0];
    let mut settings = settings(CLIENT, ike, esp)?;
    let mut model = settings.connections.remove(0);
    for child in &mut model.children {
        child.start = false;
    }
    settings.connections = (0..count)
        .map(|client| {
            let mut connection = model.clone();
            connection.name = name(client);
            connection.local_addrs = vec![address(client)];
            connection.local_id = Identification::Fqdn(format!("{client}.test"));
            if is_childless(client) {
                connection.children.clear();
                connection.roads.childless = Childless::Prefer;
            }
            connection
        })
        .collect();
    Ok(settings)
}

/// One connection for anybody.
fn gateway(count: u32) -> Result<EngineSettings, Box<dyn Error>> {
    let (ike, esp) = PROPOSALS[0];
    let mut settings = settings(GATEWAY, ike, esp)?;
    for connection in &mut settings.connections {
        connection.remote_addrs.clear();
        connection.remote_id = Identification::Any;
        // After the last of them is there.
        connection.dpd_delay = STEP * (count + 1000) * 2;
    }
    Ok(settings)
}

struct Bed {
    engines: [Engine; 2],
    entropy: SeededEntropy,
    now: Instant,
    wire: Vec<(usize, Transmit)>,
    /// Time that the gateway took since it was asked last.
    spent: Duration,
    /// The same since the last handshake.
    busy: Duration,
    established: usize,
    /// Signs of life, in all and of each peer.
    signs: usize,
    of_peer: BTreeMap<IkeSpi, u32>,
    rounds: Vec<Round>,
    keepalives: u64,
}

impl Bed {
    fn new(count: u32) -> Result<Bed, Box<dyn Error>> {
        let mut bed = Bed {
            engines: [Engine::new(clients(count)?), Engine::new(gateway(count)?)],
            entropy: SeededEntropy::new(1),
            now: Instant(1_000_000_000),
            wire: Vec::new(),
            spent: Duration::ZERO,
            busy: Duration::ZERO,
            established: 0,
            signs: 0,
            of_peer: BTreeMap::new(),
            rounds: Vec::new(),
            keepalives: 0,
        };
        for engine in &mut bed.engines {
            engine.lead(bed.now, &mut bed.entropy, &mut |_| Resume::Exact);
        }
        Ok(bed)
    }

    fn establish(&mut self, count: u32) -> Result<RateLine, Box<dyn Error>> {
        let mut rate = Rate::new("answered: IKE_SA_INIT and IKE_AUTH")?;
        let mut progress = Progress::new("crowd", count as usize / SHOWN + 1);
        for client in 0..count {
            if (client as usize).is_multiple_of(SHOWN) {
                progress.step("IKE SAs");
            }
            self.now += STEP;
            let connection = name(client);
            self.tell(
                CLIENT,
                Input::Initiate {
                    connection,
                    child: None,
                },
            );
            self.spent = Duration::ZERO;
            self.settle();
            rate.note(self.spent);
        }
        match self.established == count as usize {
            true => Ok(rate.line()),
            false => Err(format!("{} of {count} established", self.established).into()),
        }
    }

    /// Until every peer has given so many signs of life.
    fn keep_alive(
        &mut self,
        count: u32,
        rounds: u32,
    ) -> Result<(RateLine, RateLine), Box<dyn Error>> {
        let mut turn = Rate::new("a turn of the timers")?;
        let mut answer = Rate::new("a sign of life taken")?;
        let wanted = count as usize * rounds as usize;
        let mut progress = Progress::new("crowd", wanted / SHOWN + 1);
        let mut shown = 0;
        self.busy = Duration::ZERO;
        let done = |bed: &Bed| bed.rounds.get(rounds as usize - 1).copied();
        while done(self).is_none_or(|round| round.answered < u64::from(count)) {
            if self.signs >= shown {
                progress.step("signs of life");
                shown += SHOWN;
            }
            let due = [CLIENT, GATEWAY].map(|host| self.engines[host].poll_timeout());
            let first = due.iter().flatten().min().ok_or("nothing is due")?;
            self.now = self.now.max(*first);
            for host in [CLIENT, GATEWAY] {
                if due[host].is_none_or(|at| at > self.now) {
                    continue;
                }
                self.spent = Duration::ZERO;
                self.tell(host, Input::Timeout);
                if host == GATEWAY {
                    turn.note(self.spent);
                }
                let before = self.signs;
                self.spent = Duration::ZERO;
                self.settle();
                for _ in before..self.signs {
                    answer.note(self.spent / (self.signs - before) as u32);
                }
            }
        }
        Ok((turn.line(), answer.line()))
    }

    /// IKE SAs that are established at both ends, with a Child SA where they are to have one.
    fn alive(&self) -> u32 {
        let [theirs, ours] = [CLIENT, GATEWAY].map(|host| {
            let sas = self.engines[host].status(self.now).into_iter();
            let sas = sas.filter(|sa| sa.state == SaState::Established);
            sas.map(|sa| {
                // Either end has its own SPI first.
                let spis = [sa.local_spi, sa.remote_spi];
                let [first, second] = if host == CLIENT { [0, 1] } else { [1, 0] };
                ((spis[first], spis[second]), (sa.name, sa.children.len()))
            })
            .collect::<BTreeMap<_, _>>()
        });
        let stays = |(spis, (name, children)): &(_, (String, usize))| {
            let client = name.trim_start_matches("client-").parse().map(is_childless);
            let wanted = usize::from(client == Ok(false));
            *children == wanted && ours.get(spis).is_some_and(|(_, ours)| *ours == wanted)
        };
        theirs.into_iter().filter(stays).count() as u32
    }

    fn tell(&mut self, host: usize, input: Input<'_>) {
        let engine = &mut self.engines[host];
        let begun = Moment::now();
        engine.handle(self.now, &mut self.entropy, input);
        let mut outputs = Vec::new();
        while let Some(output) = engine.poll_output() {
            outputs.push(output);
        }
        if host == GATEWAY {
            let took = begun.elapsed();
            self.spent += took;
            self.busy += took;
        }
        for output in outputs {
            self.heed(host, output);
        }
    }

    fn heed(&mut self, host: usize, output: Output) {
        let sent = match output {
            Output::Transmit(transmit) | Output::Retransmit { transmit, .. } => vec![transmit],
            Output::Commit(commit) => commit.transmits,
            Output::Event(Event::IkeEstablished { .. }) if host == GATEWAY => {
                self.established += 1;
                return;
            }
            Output::Event(Event::LivenessConfirmed { ike }) => return self.answered(ike),
            Output::Event(_) => return,
        };
        for transmit in sent {
            if host == CLIENT && transmit.payload == KEEPALIVE {
                // The NAT is whom it is for; the gateway leaves it at its door.
                self.keepalives += 1;
                continue;
            }
            if host == GATEWAY {
                self.asked(&transmit.payload);
            }
            self.wire.push((host, transmit));
        }
    }

    /// A request of the gateway, which is every client's responder, belongs to the round after the
    /// last that was answered.
    fn asked(&mut self, datagram: &[u8]) {
        let Ok(header) = Header::parse(datagram) else {
            return;
        };
        if header.exchange == Exchange::Informational && !header.response {
            let round = self.of_peer.get(&header.responder_spi);
            self.round(round.copied().unwrap_or(0)).asked += 1;
        }
    }

    fn answered(&mut self, ike: IkeSpi) {
        self.signs += 1;
        let signs = self.of_peer.entry(ike).or_default();
        *signs += 1;
        let round = *signs - 1;
        self.round(round).answered += 1;
    }

    fn round(&mut self, number: u32) -> &mut Round {
        let number = number as usize;
        if self.rounds.len() <= number {
            self.rounds.resize(number + 1, Round::default());
        }
        &mut self.rounds[number]
    }

    /// Hands datagrams over until nobody has anything to say.
    fn settle(&mut self) {
        while !self.wire.is_empty() {
            for (from, transmit) in std::mem::take(&mut self.wire) {
                let (local, remote) = match from {
                    CLIENT => (transmit.remote, mapped(transmit.local, false)),
                    _ => (mapped(transmit.remote, true), transmit.local),
                };
                let input = Input::Datagram {
                    local,
                    remote,
                    payload: &transmit.payload,
                };
                self.tell(1 - from, input);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ike_sa_is_made_and_asked_for_signs_of_life_round_by_round() {
        let mut bed = Bed::new(50).unwrap();
        bed.establish(50).unwrap();
        assert_eq!(bed.engines[GATEWAY].status(bed.now).len(), 50);
        let began = bed.now;
        bed.keep_alive(50, 3).unwrap();
        let round = Round {
            asked: 50,
            answered: 50,
        };
        assert_eq!(bed.rounds, [round; 3]);
        assert_eq!(bed.alive(), 50);
        // The five without a Child SA speak to their NATs every 20 seconds.
        let each = bed.now.since(began).as_secs() / 20;
        assert!(bed.keepalives.abs_diff(5 * each) <= 5, "{}", bed.keepalives);
    }
}
