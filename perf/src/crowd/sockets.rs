//! Many IKE SAs over UDP sockets of the kernel: to a responder of ours beside us, or to any gateway.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::answerer::Answerer;
use super::flock::{Flock, Kept, NAT_PORT, Road, SetUp, Wish};
use super::meter::Meter;
use crate::machine::Pin;

/// Addresses that the initiators have between them: not one, for limits count by address.
pub const ADDRESSES: u32 = 32;
/// The first of them on loopback.
const ON_LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Task {
    pub sas: u32,
    pub dpd: Duration,
    pub hold: Duration,
    pub pin: Pin,
}

/// What came of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sockets {
    pub responder: String,
    pub sas: u32,
    /// Until all of them were there.
    pub seconds: f64,
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Requests that were sent more than once.
    pub repeated: u64,
    /// IKE SAs with a Child SA for each second that the responder was on a core.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub per_core_second: Option<f64>,
    /// What the responder's memory grew by for each of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub octets: Option<u64>,
    pub held_seconds: f64,
    pub signs_of_life: u64,
    /// IKE SAs that gave one in that time and have their Child SA.
    pub alive: u32,
}

impl fmt::Display for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} IKE SAs with a Child SA each in {:.1} s, {:.0} a second, p50 {:.0} us, p99 {:.0} us, {} requests repeated",
            self.responder,
            self.sas,
            self.seconds,
            self.per_second,
            self.p50_us,
            self.p99_us,
            self.repeated
        )?;
        if let Some(rate) = self.per_core_second {
            writeln!(f, "  for each second of the responder on a core: {rate:.0}")?;
        }
        if let Some(octets) = self.octets {
            writeln!(f, "  memory of the responder: {octets} octets each")?;
        }
        writeln!(
            f,
            "  after {:.0} s: {} alive, {} signs of life",
            self.held_seconds, self.alive, self.signs_of_life
        )
    }
}

/// A responder of ours in a thread, on loopback.
pub fn here(task: &Task) -> Result<Sockets, Box<dyn Error>> {
    let cores = task.pin.cores();
    let answerer = Answerer::start(cores.clone())?;
    cores.take(1);
    let roads = roads(ON_LOOPBACK, 0)?;
    // Both ends are in this process.
    let mut sockets = play(task, answerer.address, roads, Some(&answerer.meter))?;
    sockets.responder = "our engine on a UDP socket".to_owned();
    sockets.octets = sockets.octets.map(|octets| octets / 2);
    let held = answerer.end()?;
    match held == task.sas as usize {
        true => Ok(sockets),
        false => Err(format!("the responder has {held} of {} IKE SAs", task.sas).into()),
    }
}

/// A gateway somewhere.
pub fn against(
    task: &Task,
    gateway: IpAddr,
    from: Ipv4Addr,
    meter: Option<&Meter>,
) -> Result<Sockets, Box<dyn Error>> {
    task.pin.cores().take(0);
    let roads = roads(from, NAT_PORT)?;
    play(task, SocketAddr::new(gateway, NAT_PORT), roads, meter)
}

fn roads(first: Ipv4Addr, port: u16) -> Result<Vec<Road>, Box<dyn Error>> {
    let addresses = (0..ADDRESSES).map(|number| Ipv4Addr::from(u32::from(first) + number));
    addresses
        .map(|address| Road::open(address.into(), port))
        .collect()
}

fn play(
    task: &Task,
    gateway: SocketAddr,
    roads: Vec<Road>,
    meter: Option<&Meter>,
) -> Result<Sockets, Box<dyn Error>> {
    let wish = Wish {
        gateway,
        sas: task.sas,
        dpd: task.dpd,
    };
    let mut flock = Flock::new(&wish, roads)?;
    let read = |meter: &Meter| Ok::<_, Box<dyn Error>>((meter.on_core()?, meter.resident()?));
    let before = meter.map(read).transpose()?;
    let SetUp {
        took,
        rate,
        repeated,
    } = flock.establish()?;
    let after = meter.map(read).transpose()?;
    let grown = before.zip(after).map(|(before, after)| {
        let octets = after.1.saturating_sub(before.1) / u64::from(task.sas);
        (after.0.saturating_sub(before.0), octets)
    });
    let Kept { signs, alive } = flock.keep(task.hold)?;
    if alive != task.sas {
        let trouble = flock.trouble().unwrap_or("no sign of life from the others");
        return Err(format!("{alive} of {} IKE SAs are left: {trouble}", task.sas).into());
    }
    let sas = f64::from(task.sas);
    Ok(Sockets {
        responder: gateway.to_string(),
        sas: task.sas,
        seconds: took.as_secs_f64(),
        per_second: sas / took.as_secs_f64(),
        p50_us: rate.p50_us,
        p99_us: rate.p99_us,
        repeated,
        per_core_second: grown.map(|(time, _)| sas / time.as_secs_f64()),
        octets: grown.map(|(_, octets)| octets),
        held_seconds: task.hold.as_secs_f64(),
        signs_of_life: signs,
        alive,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ike_sas_over_sockets_are_set_up_and_stay_alive() {
        let task = Task {
            sas: 60,
            dpd: Duration::from_millis(300),
            hold: Duration::from_millis(400),
            pin: Pin::default(),
        };
        let sockets = here(&task).unwrap();
        assert_eq!(sockets.alive, 60);
        assert!(sockets.signs_of_life >= 60, "{sockets}");
        assert!(sockets.per_core_second.is_some_and(|rate| rate > 0.0));
    }
}
