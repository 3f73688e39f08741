//! A computer of the simulator: what is plugged in, what is on its disk, and perhaps a process.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use hitless::config::Config;
use hitless::entropy::SeededEntropy;
use hitless::gateway::{ClusterSecret, Event, Gateway, GatewaySettings, Tuning};
use hitless::ike::Input;
use hitless::lab::{Station, SyncNetwork};
use hitless_dataplane::port::memory::MemoryPort;
use hitless_dataplane::worker::Worker;
use hitless_sa::{Entropy, Instant, Spi};
use hitless_sync::{Durable, Event as SyncEvent};

use super::cable::{Cable, SyncCables};
use super::card::Card;
use super::pki::TODAY;
use super::plan::Part;
use super::world::EPOCH;

/// What the machine is made of.
pub struct Machine {
    /// 0 is the peer.
    pub who: u8,
    config: Config,
    tuning: Tuning,
    /// Slow to derive, and the same for each process of each member of a cluster.
    secret: ClusterSecret,
    disk: Durable,
    /// So many writes will fail.
    disk_fails: u32,
    running: Option<Process>,
    frozen: Option<(Part, Instant)>,
    fuse: Fuse,
    /// Fuses that did not burn down: whatever it was to die in the midst of was over.
    pub unreached: u64,
    /// How much faster its clock runs, in millionths, and how far it has jumped.
    drift: i64,
    jumped: Duration,
    pub outside: Cable,
    entropy: SeededEntropy,
}

/// What runs on it.
struct Process {
    station: Station,
    workers: Vec<Worker>,
    /// None where a worker has the cables for itself.
    cards: Vec<Card>,
}

impl Process {
    fn work(&mut self, now: Instant) {
        self.cards.iter_mut().for_each(Card::turn);
        for worker in &mut self.workers {
            worker.turn(now);
        }
        self.cards.iter_mut().for_each(Card::turn);
    }
}

/// What a machine did in one round.
pub struct Turned {
    pub events: Vec<Event>,
    /// What left on the outside.
    pub sent: Vec<Vec<u8>>,
    /// Which keys there are for it.
    pub keys: Vec<(Spi, u64)>,
}

/// Counts what leaves the process; when it has burnt down the process is dead, in the midst of
/// whatever it does.
#[derive(Default)]
struct Fuse(Cell<Option<u32>>);

impl Fuse {
    /// Something is about to leave: whether it does.
    fn passes(&self) -> bool {
        match self.0.get() {
            None => true,
            Some(0) => false,
            Some(left) => {
                self.0.set(Some(left - 1));
                true
            }
        }
    }

    fn burnt(&self) -> bool {
        self.0.get() == Some(0)
    }

    fn burns(&self) -> bool {
        self.0.get().is_some_and(|left| left > 0)
    }
}

/// The sync network as a process sees it that may die between two datagrams.
struct Fused<'a> {
    cables: &'a mut SyncCables,
    fuse: &'a Fuse,
}

impl SyncNetwork for Fused<'_> {
    fn open(&mut self, address: SocketAddr) {
        self.cables.open(address);
    }

    fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        if self.fuse.passes() {
            self.cables.send(now, from, to, datagram);
        }
    }

    fn receive(&mut self, now: Instant, address: SocketAddr) -> Option<(SocketAddr, Vec<u8>)> {
        self.cables.receive(now, address)
    }
}

impl Machine {
    pub fn new(
        who: u8,
        (config, tuning, secret): (Config, Tuning, ClusterSecret),
        drift: i64,
        outside: Cable,
        entropy: SeededEntropy,
    ) -> Machine {
        Machine {
            who,
            config,
            tuning,
            secret,
            disk: Durable::default(),
            disk_fails: 0,
            running: None,
            frozen: None,
            fuse: Fuse::default(),
            unreached: 0,
            drift,
            jumped: Duration::ZERO,
            outside,
            entropy,
        }
    }

    /// Starts the process, with another incarnation.
    pub fn boot(
        &mut self,
        now: Instant,
        ports: Vec<MemoryPort>,
        cables: &mut SyncCables,
    ) -> Result<(), String> {
        self.disk.incarnation.0 += 1;
        let settings = GatewaySettings::new(self.config.clone()).tuned(self.tuning);
        let settings = settings.knowing(&self.secret);
        cables.secrecy.marked(&settings.node().config_hash);
        let (disk, now, entropy) = (self.disk, self.local(now), &mut self.entropy);
        let (mut cards, mut queues) = (Vec::new(), vec![ports]);
        // Each with a queue of every card.
        let workers = self.config.dataplane.workers;
        if workers == 0 {
            // A witness carries nothing.
            queues.clear();
        } else if workers > 1 {
            let ports = std::mem::take(&mut queues[0]);
            queues.resize_with(workers, Vec::new);
            for port in ports {
                let (card, ends) = Card::new(port, workers);
                cards.push(card);
                queues
                    .iter_mut()
                    .zip(ends)
                    .for_each(|(queue, end)| queue.push(end));
            }
        }
        let started = Station::spread(settings, queues, cables, disk, now, entropy);
        let started = started.map_err(|error| format!("machine {}: {error}", self.who));
        let (mut station, workers) = started?;
        let since = Duration::from_nanos(now.0);
        station.gateway().set_time_of_day(now, TODAY + since);
        self.running = Some(Process {
            station,
            workers,
            cards,
        });
        self.frozen = None;
        self.fuse = Fuse::default();
        Ok(())
    }

    /// One round of everything that runs.
    pub fn turn(
        &mut self,
        now: Instant,
        cables: &mut SyncCables,
        entropy: &mut dyn Entropy,
    ) -> Turned {
        let mut events = Vec::new();
        let mut sent = Vec::new();
        let local = self.local(now);
        let frozen = self
            .frozen
            .filter(|(_, until)| now < *until)
            .map(|(part, _)| part);
        let works = !matches!(frozen, Some(Part::All | Part::Worker));
        let controls = !matches!(frozen, Some(Part::All | Part::Control));
        let fuse = &self.fuse;
        let mut work = 0;
        if let Some(process) = &mut self.running {
            if works {
                process.work(local);
            }
            if controls {
                let (disk, fails) = (&mut self.disk, &mut self.disk_fails);
                let mut persist = |durable| {
                    let written = *fails == 0 && fuse.passes();
                    *fails = fails.saturating_sub(1);
                    if written {
                        *disk = durable;
                    }
                    written
                };
                let mut tell = |event| events.push(event);
                let mut network = Fused { cables, fuse };
                let own = &mut self.entropy;
                work = process
                    .station
                    .turn(local, own, &mut network, &mut tell, &mut persist);
            }
            if works && work > 0 && !fuse.burnt() {
                process.work(local);
            }
        }
        self.outside.turn(now, entropy, |frame| {
            let leaves = fuse.passes();
            if leaves {
                sent.push(frame.to_vec());
            }
            leaves
        });
        let keys = match sent.is_empty() {
            true => Vec::new(),
            false => self.outbound_keys(),
        };
        let stopped = |event: &Event| *event == Event::Sync(SyncEvent::Stopped);
        if self.fuse.burnt() || events.iter().any(stopped) {
            self.kill();
        }
        Turned { events, sent, keys }
    }

    /// Which key each of its outbound SPIs stands for.
    pub fn outbound_keys(&mut self) -> Vec<(Spi, u64)> {
        let station = self.running.as_mut().map(|process| &mut process.station);
        station.map_or_else(Vec::new, |station| station.gateway().outbound_keys())
    }

    /// What an operator would see.
    pub fn status(&mut self, now: Instant) -> String {
        let now = self.local(now);
        let Some(Process { station, .. }) = &mut self.running else {
            return "not running".to_owned();
        };
        let gateway = station.gateway();
        format!("{:?}\n{:?}", gateway.status(now), gateway.list_sas(now))
    }

    /// What somebody asks of its control plane, by its own clock.
    pub fn order<T>(
        &mut self,
        now: Instant,
        order: impl FnOnce(&mut Gateway, Instant, &mut dyn Entropy) -> T,
    ) -> Option<T> {
        let now = self.local(now);
        let station = self.running.as_mut().map(|process| &mut process.station)?;
        Some(order(station.gateway(), now, &mut self.entropy))
    }

    /// If it leads: each child's name and the SPIs of an SA of it, in and out.
    pub fn child_sas(&mut self, now: Instant) -> Vec<[String; 3]> {
        let now = self.local(now);
        let Some(Process { station, .. }) = &mut self.running else {
            return Vec::new();
        };
        let gateway = station.gateway();
        if !gateway.leading() {
            return Vec::new();
        }
        let ike_sas = gateway.list_sas(now).into_iter();
        let children = ike_sas.flat_map(|ike| ike.children);
        children
            .map(|sa| [sa.name, sa.spi_in, sa.spi_out])
            .collect()
    }

    /// The children that its configuration has.
    pub fn children(&self) -> impl Iterator<Item = &str> {
        self.named().map(|(_, child)| child)
    }

    /// The same, each behind its connection.
    pub fn named(&self) -> impl Iterator<Item = (&str, &str)> {
        let connections = self.config.connections.iter();
        connections.flat_map(|connection| {
            let children = connection.children.iter();
            children.map(|child| (&*connection.name, &*child.name))
        })
    }

    /// The process is gone. Whether there was one.
    pub fn kill(&mut self) -> bool {
        self.put_out();
        self.running.take().is_some()
    }

    pub fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Dies after so many more datagrams, frames and writes.
    pub fn light(&self, outputs: u32) {
        if self.runs() {
            self.fuse.0.set(Some(outputs));
        }
    }

    /// A part of it stands still for a while.
    pub fn freeze(&mut self, part: Part, until: Instant) {
        self.frozen = Some((part, until));
    }

    /// Its clock goes on from a later time, as after a suspension that it did not count.
    pub fn jump(&mut self, span: Duration) {
        self.jumped += span;
    }

    pub fn fail_writes(&mut self, count: u32) {
        self.disk_fails = count;
    }

    /// From now on nothing goes wrong here.
    pub fn calm(&mut self) {
        self.frozen = None;
        self.disk_fails = 0;
        self.put_out();
        self.outside.calm();
    }

    fn put_out(&mut self) {
        self.unreached += u64::from(self.fuse.burns());
        self.fuse = Fuse::default();
    }

    /// The operator wants another one to lead.
    pub fn switch_over(&mut self, now: Instant) {
        let now = self.local(now);
        if let Some(Process { station, .. }) = &mut self.running
            && station.gateway().leading()
        {
            station.gateway().switchover(now, &mut self.entropy);
        }
    }

    /// The operator stops it.
    pub fn shut_down(&mut self, now: Instant) {
        let now = self.local(now);
        if let Some(Process { station, .. }) = &mut self.running {
            station.gateway().shut_down(now, &mut self.entropy);
        }
    }

    /// If it leads, rekeys all of its SAs of one kind.
    pub fn rekey(&mut self, now: Instant, ike: bool) {
        let now = self.local(now);
        let Some(Process { station, .. }) = &mut self.running else {
            return;
        };
        let gateway = station.gateway();
        if !gateway.leading() {
            return;
        }
        for (spi, children) in gateway.ike_sas() {
            let inputs: Vec<Input<'_>> = match ike {
                true => vec![Input::RekeyIke(spi)],
                false => children.into_iter().map(Input::RekeyChild).collect(),
            };
            for input in inputs {
                gateway.ike(now, &mut self.entropy, input);
            }
        }
    }

    /// Its own clock: no two run alike.
    fn local(&self, now: Instant) -> Instant {
        // Hours in nanoseconds, times thousands, fit.
        let passed = i64::try_from(now.0 - EPOCH.0).unwrap_or(i64::MAX);
        let drifted = passed.saturating_add(passed.saturating_mul(self.drift) / 1_000_000);
        EPOCH + Duration::from_nanos(u64::try_from(drifted).unwrap_or(0)) + self.jumped
    }
}
