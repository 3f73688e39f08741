//! Cables that lose, delay, repeat and reorder: Ethernet between a gateway and a switch, and the
//! sync network.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use hitless::lab::SyncNetwork;
use hitless_dataplane::port::memory::MemoryPort;
use hitless_sa::{Entropy, Instant};

use super::nat::Nat;
use super::plan::Noise;
use super::secrecy::Secrecy;

/// When and how often something arrives.
fn fate(
    entropy: &mut dyn Entropy,
    noise: &Noise,
    now: Instant,
) -> impl Iterator<Item = Instant> + use<> {
    let copies = match entropy.u32() % 10_000 {
        n if n < noise.loss => 0,
        n if n < noise.loss + noise.duplication => 2,
        _ => 1,
    };
    let (shortest, longest) = noise.delay;
    // Always as many draws: what is lost changes nothing else.
    let draws = [entropy.u32(), entropy.u32()];
    let arrival = move |draw| {
        let spread = (longest - shortest).mul_f64(f64::from(draw) / f64::from(u32::MAX));
        now + shortest + spread
    };
    draws.into_iter().take(copies).map(arrival)
}

/// Datagrams that somebody between the members remembers.
const OVERHEARD: usize = 64;

/// Cuts the octets, or changes some of them, none before `from`.
pub fn damage(entropy: &mut dyn Entropy, octets: &mut Vec<u8>, from: usize) {
    let room = octets.len().saturating_sub(from).max(1);
    for _ in 0..1 + entropy.u32() % 3 {
        let at = from + entropy.u32() as usize % room;
        match entropy.u32() % 4 {
            0 => octets.truncate(at),
            1 => octets.extend_from_slice(&[0xff; 7]),
            _ => {
                if let Some(octet) = octets.get_mut(at) {
                    *octet ^= 1 << (entropy.u32() % 8);
                }
            }
        }
    }
}

/// Things on their way, in the order of their arrival.
struct Flight<T>(BTreeMap<(Instant, u64), T>, u64);

impl<T> Flight<T> {
    fn new() -> Flight<T> {
        Flight(BTreeMap::new(), 0)
    }

    fn add(&mut self, at: Instant, thing: T) {
        self.1 += 1;
        self.0.insert((at, self.1), thing);
    }

    fn due(&mut self, now: Instant) -> Option<T> {
        let entry = self.0.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToSwitch,
    ToGateway,
}

/// Between a gateway's port and a switch.
pub struct Cable {
    gateway: MemoryPort,
    switch: MemoryPort,
    flight: Flight<(Way, Vec<u8>)>,
    noise: Noise,
    pub plugged: bool,
    /// In the middle of it.
    pub nat: Option<Nat>,
}

impl Cable {
    pub fn new(gateway: MemoryPort, switch: MemoryPort, noise: Noise) -> Cable {
        Cable {
            gateway,
            switch,
            flight: Flight::new(),
            noise,
            plugged: true,
            nat: None,
        }
    }

    /// Another gateway at this end: the machine has started again.
    pub fn replug(&mut self, gateway: MemoryPort) {
        self.gateway = gateway;
    }

    /// Moves what has arrived. `tap` sees each frame as it leaves the gateway, before anything can
    /// happen to it, and says whether it has left.
    pub fn turn(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        mut tap: impl FnMut(&[u8]) -> bool,
    ) {
        let (noise, flight, plugged) = (&self.noise, &mut self.flight, self.plugged);
        let nat = self.nat;
        let mut carry = |way, frame: &[u8]| {
            let passed = match (nat, way) {
                (None, _) => Some(frame.to_vec()),
                (Some(nat), Way::ToSwitch) => nat.outwards(frame),
                (Some(nat), Way::ToGateway) => nat.inwards(frame),
            };
            let Some(frame) = passed.filter(|_| plugged) else {
                return;
            };
            for at in fate(entropy, noise, now) {
                flight.add(at, (way, frame.clone()));
            }
        };
        while self.gateway.pop_frame(|frame| {
            if tap(frame) {
                carry(Way::ToSwitch, frame);
            }
        }) {}
        while self.switch.pop_frame(|frame| carry(Way::ToGateway, frame)) {}
        while let Some((way, frame)) = self.flight.due(now) {
            // A full ring loses the frame, as a real one does.
            let _ = match way {
                Way::ToSwitch => self.switch.push_frame(&frame),
                Way::ToGateway => self.gateway.push_frame(&frame),
            };
        }
    }
}

type Letter = (SocketAddr, SocketAddr, Vec<u8>);

/// The sync network of the simulator.
pub struct SyncCables {
    flight: Flight<Letter>,
    arrived: BTreeMap<SocketAddr, VecDeque<(SocketAddr, Vec<u8>)>>,
    noise: Noise,
    deaf: BTreeSet<(SocketAddr, SocketAddr)>,
    slow: BTreeMap<SocketAddr, Duration>,
    /// What was sent last, for those who damage it.
    overheard: VecDeque<Letter>,
    /// Reads along.
    pub secrecy: Secrecy,
    entropy: Box<dyn Entropy>,
}

impl SyncCables {
    pub fn new(noise: Noise, entropy: Box<dyn Entropy>) -> SyncCables {
        SyncCables {
            flight: Flight::new(),
            arrived: BTreeMap::new(),
            noise,
            deaf: BTreeSet::new(),
            slow: BTreeMap::new(),
            overheard: VecDeque::new(),
            secrecy: Secrecy::default(),
            entropy,
        }
    }

    /// Nothing from the first reaches the second any more.
    pub fn deafen(&mut self, from: SocketAddr, to: SocketAddr) {
        self.deaf.insert((from, to));
    }

    /// Whatever comes from there or goes there takes so much longer.
    pub fn slow_down(&mut self, address: SocketAddr, delay: Duration) {
        self.slow.insert(address, delay);
    }

    /// Everything passes again, and in time.
    pub fn heal(&mut self) {
        self.deaf.clear();
        self.slow.clear();
    }

    /// Damaged copies of what was sent last arrive.
    pub fn garble(&mut self, now: Instant) {
        for (from, to, mut datagram) in std::mem::take(&mut self.overheard) {
            damage(&mut *self.entropy, &mut datagram, 0);
            self.flight.add(now, (from, to, datagram));
        }
    }

    /// No more loss; delays stay.
    pub fn calm(&mut self) {
        self.noise.loss = 0;
        self.noise.delay.1 = self.noise.delay.1.min(Duration::from_millis(1));
    }
}

impl SyncNetwork for SyncCables {
    fn open(&mut self, address: SocketAddr) {
        // What is under way to a predecessor still arrives: old datagrams are part of the game.
        self.arrived.insert(address, VecDeque::new());
    }

    fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        self.secrecy.between_members(from, &datagram);
        if self.deaf.contains(&(from, to)) {
            return;
        }
        let delay = |address| self.slow.get(address).copied().unwrap_or_default();
        let slow = delay(&from) + delay(&to);
        for at in fate(&mut *self.entropy, &self.noise, now) {
            self.flight.add(at + slow, (from, to, datagram.clone()));
        }
        if self.overheard.len() >= OVERHEARD {
            self.overheard.pop_front();
        }
        self.overheard.push_back((from, to, datagram));
    }

    fn receive(&mut self, now: Instant, address: SocketAddr) -> Option<(SocketAddr, Vec<u8>)> {
        while let Some((from, to, datagram)) = self.flight.due(now) {
            if let Some(arrived) = self.arrived.get_mut(&to) {
                arrived.push_back((from, datagram));
            }
        }
        self.arrived.get_mut(&address)?.pop_front()
    }
}

impl Cable {
    /// No more loss; delays stay.
    pub fn calm(&mut self) {
        self.plugged = true;
        self.noise.loss = 0;
        self.noise.delay.1 = self.noise.delay.1.min(Duration::from_millis(1));
    }
}
