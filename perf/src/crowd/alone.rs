//! Many IKE SAs with a Child SA each, in two engines on one core: what a responder needs to make
//! one, what each weighs, and what it costs to keep all of them alive by timers.
//!
//! Time is virtual, so that the dead peer detection of minutes is a matter of work alone. Memory is
//! the growth of this process, which has both ends of every IKE SA in it.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hitless::entropy::SeededEntropy;
use hitless::ike::proposal::Identification;
use hitless::ike::settings::EngineSettings;
use hitless::ike::{Engine, Event, Input, Output, Resume, Transmit};
use hitless_sa::Instant;
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

/// What came of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Crowd {
    pub sas: u32,
    /// IKE_SA_INIT and IKE_AUTH, as responder.
    pub answered: RateLine,
    /// Octets of each end of an IKE SA with one Child SA.
    pub octets: u64,
    /// A turn of the timers: one peer is asked for a sign of life.
    pub turn: RateLine,
    /// Its answer.
    pub sign_of_life: RateLine,
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} IKE SAs with one Child SA each, {}",
            self.sas, PROPOSALS[0].0
        )?;
        writeln!(f, "  memory of each end: {} octets", self.octets)?;
        for line in [&self.answered, &self.turn, &self.sign_of_life] {
            writeln!(
                f,
                "  {:<44} {:>9.0} a second, p50 {:.1} us, p99 {:.1} us",
                line.what, line.per_second, line.p50_us, line.p99_us
            )?;
        }
        Ok(())
    }
}

/// Makes them all, and lets each be asked for a sign of life.
pub fn run(sas: u32, pin: &Pin) -> Result<Crowd, Box<dyn Error>> {
    pin.cores().take(0);
    let mut bed = Bed::new(sas)?;
    let meter = Meter::process(std::process::id());
    let before = meter.resident()?;
    let answered = bed.establish(sas)?;
    let grown = meter.resident()?.saturating_sub(before);
    let (turn, sign_of_life) = bed.keep_alive(sas)?;
    Ok(Crowd {
        sas,
        answered,
        octets: grown / (2 * u64::from(sas)),
        turn,
        sign_of_life,
    })
}

fn name(client: u32) -> String {
    format!("client-{client}")
}

fn address(client: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + client).into()
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
    established: usize,
    alive: usize,
}

impl Bed {
    fn new(count: u32) -> Result<Bed, Box<dyn Error>> {
        let mut bed = Bed {
            engines: [Engine::new(clients(count)?), Engine::new(gateway(count)?)],
            entropy: SeededEntropy::new(1),
            now: Instant(1_000_000_000),
            wire: Vec::new(),
            spent: Duration::ZERO,
            established: 0,
            alive: 0,
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

    /// Until every peer has been asked once.
    fn keep_alive(&mut self, count: u32) -> Result<(RateLine, RateLine), Box<dyn Error>> {
        let mut turn = Rate::new("a turn of the timers")?;
        let mut answer = Rate::new("a sign of life taken")?;
        let mut progress = Progress::new("crowd", count as usize / SHOWN + 1);
        let mut shown = 0;
        while self.alive < count as usize {
            if self.alive >= shown {
                progress.step("signs of life");
                shown += SHOWN;
            }
            let due = self.engines[GATEWAY].poll_timeout();
            self.now = self.now.max(due.ok_or("nothing is due")?);
            self.spent = Duration::ZERO;
            self.tell(GATEWAY, Input::Timeout);
            turn.note(self.spent);
            let before = self.alive;
            self.spent = Duration::ZERO;
            self.settle();
            for _ in before..self.alive {
                answer.note(self.spent / (self.alive - before) as u32);
            }
        }
        Ok((turn.line(), answer.line()))
    }

    fn tell(&mut self, host: usize, input: Input<'_>) {
        let engine = &mut self.engines[host];
        let begun = Moment::now();
        engine.handle(self.now, &mut self.entropy, input);
        let mut sent = Vec::new();
        while let Some(output) = engine.poll_output() {
            match output {
                Output::Transmit(transmit) | Output::Retransmit { transmit, .. } => {
                    sent.push(transmit);
                }
                Output::Commit(commit) => sent.extend(commit.transmits),
                Output::Event(Event::IkeEstablished { .. }) if host == GATEWAY => {
                    self.established += 1;
                }
                Output::Event(Event::LivenessConfirmed { .. }) => self.alive += 1,
                Output::Event(_) => {}
            }
        }
        if host == GATEWAY {
            self.spent += begun.elapsed();
        }
        self.wire
            .extend(sent.into_iter().map(|transmit| (host, transmit)));
    }

    /// Hands datagrams over until nobody has anything to say.
    fn settle(&mut self) {
        while !self.wire.is_empty() {
            for (from, transmit) in std::mem::take(&mut self.wire) {
                let input = Input::Datagram {
                    local: transmit.remote,
                    remote: transmit.local,
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
    fn every_ike_sa_is_made_and_asked_for_a_sign_of_life() {
        let mut bed = Bed::new(50).unwrap();
        bed.establish(50).unwrap();
        assert_eq!(bed.engines[GATEWAY].status(bed.now).len(), 50);
        bed.keep_alive(50).unwrap();
        assert_eq!(bed.alive, 50);
    }
}
