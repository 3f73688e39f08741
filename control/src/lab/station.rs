//! A gateway in the lab: its workers, its control plane and its place on the sync network, as a
//! value that somebody turns.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hitless_dataplane::handover;
use hitless_dataplane::port::Port;
use hitless_dataplane::port::memory::MemoryPort;
use hitless_dataplane::worker::{self, Leadership, Worker, WorkerHandle, WorkerSettings};
use hitless_sa::{Entropy, Incarnation, Instant};
use hitless_sync::Durable;

use super::SyncNetwork;
use crate::config::Config;
use crate::gateway::{Event, Gateway, GatewaySettings, Granted, Output};
use crate::keylog::KeyLines;

/// Payload of a lab cable's frames.
pub const MTU: usize = 1500;

/// What a lab gateway has room for.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub frames: u32,
    pub sas: usize,
}

impl Default for Room {
    /// Small: a simulation makes thousands.
    fn default() -> Room {
        Room {
            frames: 1024,
            sas: 256,
        }
    }
}

/// The control plane of a lab gateway. Durable state lives outside, as a disk does.
pub struct Station {
    gateway: Gateway,
    sync_address: Option<SocketAddr>,
    keys: Vec<KeyLines>,
    grants: Vec<Granted>,
}

impl Station {
    /// A gateway with one worker, its ports plugged in, in the order of the configuration.
    pub fn new(
        config: Config,
        ports: Vec<MemoryPort>,
        network: &mut dyn SyncNetwork,
        durable: Durable,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> io::Result<(Station, Worker)> {
        let settings = GatewaySettings::new(config);
        Station::with(settings, ports, network, durable, now, entropy)
    }

    /// The same with settings that a configuration cannot express.
    pub fn with(
        settings: GatewaySettings,
        ports: Vec<MemoryPort>,
        network: &mut dyn SyncNetwork,
        durable: Durable,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> io::Result<(Station, Worker)> {
        let room = Room::default();
        Station::sized(settings, ports, network, durable, room, now, entropy)
    }

    /// The same with more room than a simulation needs.
    pub fn sized(
        settings: GatewaySettings,
        ports: Vec<MemoryPort>,
        network: &mut dyn SyncNetwork,
        durable: Durable,
        room: Room,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> io::Result<(Station, Worker)> {
        let leadership = Leadership::new(false);
        let (worker, handle) = one(&settings, 0, ports, room, &leadership)?;
        let made = Station::over(
            settings,
            vec![handle],
            leadership,
            network,
            durable,
            now,
            entropy,
        );
        Ok((made, worker))
    }

    /// The same with a worker for each set of ports, which are the queues of its cards.
    pub fn spread(
        settings: GatewaySettings,
        queues: Vec<Vec<MemoryPort>>,
        network: &mut dyn SyncNetwork,
        durable: Durable,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> io::Result<(Station, Vec<Worker>)> {
        let leadership = Leadership::new(false);
        let (mut workers, mut handles) = (Vec::new(), Vec::new());
        for (index, ports) in queues.into_iter().enumerate() {
            let (worker, handle) = one(&settings, index, ports, Room::default(), &leadership)?;
            workers.push(worker);
            handles.push(handle);
        }
        handover::connect(&mut workers);
        let made = Station::over(
            settings, handles, leadership, network, durable, now, entropy,
        );
        Ok((made, workers))
    }

    fn over(
        settings: GatewaySettings,
        handles: Vec<WorkerHandle>,
        leadership: Arc<Leadership>,
        network: &mut dyn SyncNetwork,
        durable: Durable,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> Station {
        let sync_address = settings.config().cluster.sync.as_ref();
        let sync_address = sync_address.map(|sync| sync.listen);
        let gateway = Gateway::new(settings, durable, handles, leadership, now, entropy);
        if let Some(address) = sync_address {
            network.open(address);
        }
        Station {
            gateway,
            sync_address,
            keys: Vec::new(),
            grants: Vec::new(),
        }
    }

    /// One round of the control plane. `events` learns what happened, `persist` is the disk: it
    /// returns whether the write succeeded.
    pub fn turn(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        network: &mut dyn SyncNetwork,
        events: &mut dyn FnMut(Event),
        persist: &mut dyn FnMut(Durable) -> bool,
    ) -> usize {
        let mut work = 0;
        if let Some(address) = self.sync_address {
            while let Some((from, datagram)) = network.receive(now, address) {
                self.gateway.sync_datagram(now, entropy, from, &datagram);
                work += 1;
            }
        }
        work += self.gateway.turn(now, entropy);
        while let Some(output) = self.gateway.poll_output() {
            work += 1;
            match output {
                Output::SyncTransmit(to, datagram) => {
                    if let Some(from) = self.sync_address {
                        network.send(now, from, to, datagram);
                    }
                }
                Output::Persist(durable) => {
                    let written = persist(durable);
                    self.gateway.persisted(now, entropy, written);
                }
                Output::KeyLog(keys) => self.keys.push(keys),
                Output::Granted(granted) => self.grants.push(granted),
                Output::Event(event) => events(event),
            }
        }
        work
    }

    /// The keys of its Child SAs, if its configuration names a key log; a lab has no files.
    pub fn keys(&self) -> &[KeyLines] {
        &self.keys
    }

    /// What was granted, if its configuration names a ledger.
    pub fn grants(&self) -> &[Granted] {
        &self.grants
    }

    /// The control plane itself, for requests.
    pub fn gateway(&mut self) -> &mut Gateway {
        &mut self.gateway
    }
}

/// A worker with its ports plugged in.
fn one(
    settings: &GatewaySettings,
    index: usize,
    ports: Vec<MemoryPort>,
    room: Room,
    leadership: &Arc<Leadership>,
) -> io::Result<(Worker, WorkerHandle)> {
    let mtus = vec![MTU; ports.len()];
    let ports = ports.into_iter();
    let ports = ports.map(|port| Box::new(port) as Box<dyn Port>).collect();
    let settings = WorkerSettings {
        pool_frames: room.frames,
        pool_runs: 0,
        sa_capacity: room.sas,
        ..settings.worker(index, &mtus)
    };
    worker::worker(settings, ports, Arc::clone(leadership))
}

/// The durable state of a member that starts for the first time.
pub fn first_start() -> Durable {
    Durable {
        incarnation: Incarnation(1),
        ..Durable::default()
    }
}
