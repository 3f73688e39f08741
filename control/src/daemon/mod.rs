//! `hitless run`: the one loop of the process, and all that touches the world.
//!
//! ```text
//!  sync socket, control socket, disk thread, signals -> poll(2), 1 ms at most -> Gateway::turn
//!  worker threads (pinned, poll mode) <-- rings --> Gateway
//! ```
//!
//! The loop moves octets and time and decides nothing. `ports.rs` opens the ports, `sync_socket.rs`
//! that of the members; off this thread `carrier.rs` watches links, `disk.rs` writes durable state and
//! `reloads.rs` reads the configuration again; `answer.rs` answers operators as far as `asked.rs` gives
//! it time and `awaited.rs` those who wait for what they ordered, `turns.rs` measures how long the loop
//! is away; `keylog.rs` and `ledger.rs` are the files that threads of their own append to for it
//! (`appended.rs`), `crls.rs` those that it reads again; `secrecy.rs` keeps its memory off disks;
//! `error.rs` says why a member does not start.

mod answer;
mod appended;
mod asked;
mod awaited;
mod carrier;
mod crls;
mod disk;
mod error;
mod keylog;
mod ledger;
mod ports;
mod reloads;
mod secrecy;
mod sync_socket;
mod turns;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hitless_dataplane::aead::Engine;
use hitless_dataplane::handover;
use hitless_dataplane::pool::Pool;
use hitless_dataplane::thread::{Idle, Readiness, spawn, wait};
use hitless_dataplane::worker::{Leadership, Worker, WorkerHandle, worker_with_pool};
use hitless_sa::{Incarnation, Instant};
use hitless_sync::Event as SyncEvent;

use crate::api::Server;
use crate::aside::Aside;
use crate::clock;
use crate::config::{Config, IdlePolicy};
use crate::durable::{DurableFile, Identity};
use crate::entropy::SystemEntropy;
use crate::gateway::{
    Beside, Event, Gateway, GatewaySettings, Granted, LARGEST_PAYLOAD, Output, Pacemaker,
};
use crate::keylog::KeyLines;

use answer::{Loading, Reader};
use asked::Asked;
use awaited::Awaited;
use carrier::Carriers;
use crls::CrlFiles;
use disk::Disk;
pub use error::DaemonError;
use keylog::KeyFiles;
use ledger::LedgerFile;
use reloads::Reloads;
use turns::Turns;

/// The control thread looks at the rings at least this often.
const TICK: Duration = Duration::from_millis(1);
/// Datagrams taken from the sync socket in one round.
const DATAGRAMS_A_ROUND: usize = 256;
/// How long a member that was asked to end waits for its successor, and for so many takeover
/// times: the sync protocol gives up after five.
const FAREWELL: Duration = Duration::from_secs(2);
const FAREWELL_TAKEOVERS: u32 = 6;

/// Runs one member until SIGTERM or SIGINT; SIGHUP is `hitless reload`.
pub fn run(config: Config) -> Result<ExitCode, DaemonError> {
    // Before any secret is used.
    secrecy::keep_memory_here();
    // Before anything that could disturb a daemon that already runs here.
    let mut server = Server::bind(&config.control.socket)?;
    let identity = Identity {
        cluster: config.cluster.name.clone(),
        member: config.cluster.id,
    };
    let file = DurableFile::open(&config.cluster.state_dir, identity)?;
    let durable = file.state();
    let keys = open_keys(&config)?;
    let ledger = LedgerFile::configured(config.control.grant_log.as_deref())?;
    let sync = config.cluster.sync.as_ref();
    let socket = sync
        .map(|sync| sync_socket::open(sync.listen))
        .transpose()?;
    let leadership = Leadership::new(false);
    let stop = flag_of_signals()?;
    let reloads = Reloads::on_signal().map_err(DaemonError::Signals)?;
    let takeover = config.cluster.heartbeat * config.cluster.missed;
    let farewell = FAREWELL.max(takeover * FAREWELL_TAKEOVERS);
    let crls = CrlFiles::of(&config);
    let settings = with_engine(GatewaySettings::new(config))?;
    let workers_stop = Arc::new(AtomicBool::new(false));
    let (workers, modes) = open_workers(&settings, &leadership)?;
    let carriers = Carriers::watch(&settings.config().ports).map_err(DaemonError::Thread)?;
    let (threads, handles) = start_workers(&settings, workers, &workers_stop)?;
    say_started(&settings, durable.incarnation, threads.len());
    let now = clock::now();
    let mut gateway = Gateway::new(
        settings,
        durable,
        handles,
        leadership,
        now,
        &mut SystemEntropy,
    );
    equip(&mut gateway, modes, socket.as_ref());
    let disk = Disk::start(file).map_err(DaemonError::Thread)?;
    let mut member = Member {
        gateway,
        entropy: SystemEntropy,
        socket,
        disk,
        keys,
        ledger,
        crls,
        farewell,
        stopped: false,
        asked: Asked::default(),
        awaited: Awaited::default(),
        readers: Vec::new(),
        reloads,
        loading: Vec::new(),
        carriers,
        turns: Turns::new(takeover),
        busy: false,
    };
    member.serve(&mut server, &stop);
    member.flush();
    workers_stop.store(true, Ordering::Relaxed);
    for thread in threads {
        // A worker that panicked has said so; there is nothing left to do for it.
        drop(thread.join());
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn say_started(settings: &GatewaySettings, incarnation: Incarnation, workers: usize) {
    tracing::info!(
        cluster = %settings.config().cluster.name,
        member = %settings.config().cluster.id,
        %incarnation,
        workers,
        "started"
    );
}

/// Gives a gateway what only a process has: threads, a clock, the sync socket.
fn equip(gateway: &mut Gateway, modes: Vec<String>, socket: Option<&Arc<UdpSocket>>) {
    gateway.set_port_modes(modes);
    gateway.set_builder(Box::new(Beside::default()));
    if let Some(socket) = socket {
        gateway.set_pacemaker(Box::new(Heart(Arc::clone(socket))));
    }
}

/// The key log, if the configuration names one.
fn open_keys(config: &Config) -> Result<Option<Aside<KeyLines>>, DaemonError> {
    let keys = config.control.key_log.as_deref();
    keys.map(KeyFiles::open).transpose()
}

/// The engine for ESP that `HITLESS_AEAD` names, or the configuration, if this CPU has it.
fn with_engine(settings: GatewaySettings) -> Result<GatewaySettings, DaemonError> {
    let forced = Engine::from_environment().map_err(DaemonError::Aead)?;
    let engine = forced.unwrap_or(settings.aead());
    let engine = engine.checked().map_err(DaemonError::Aead)?;
    tracing::info!(aead = engine.name(), "engine for ESP");
    Ok(settings.with_aead(engine))
}

/// A flag that SIGTERM and SIGINT set.
fn flag_of_signals() -> Result<Arc<AtomicBool>, DaemonError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(DaemonError::Signals)?;
    }
    Ok(stop)
}

/// The workers with their control ends, not running yet.
type Workers = Vec<(Worker, WorkerHandle)>;

/// Opens every port before any thread starts, so that a port that cannot be opened leaves nothing
/// behind. Beside the workers, what each port's driver came to.
fn open_workers(
    settings: &GatewaySettings,
    leadership: &Arc<Leadership>,
) -> Result<(Workers, Vec<String>), DaemonError> {
    let config = settings.config();
    let mut opener = ports::Opener::default();
    let workers = (0..config.dataplane.workers).map(|index| {
        let dataplane = &config.dataplane;
        let pool = Pool::for_worker(dataplane.frames, dataplane.jumbo_packets);
        let mut pool = pool.map_err(DaemonError::Memory)?;
        let ports = opener.open(&config.ports, index, &mut pool)?;
        let mtus: Vec<usize> = ports.iter().map(|port| port.mtu()).collect();
        let worker = settings.worker(index, &mtus);
        worker_with_pool(pool, worker, ports, Arc::clone(leadership)).map_err(DaemonError::Memory)
    });
    let workers = workers.collect::<Result<_, _>>()?;
    Ok((workers, opener.into_modes()))
}

fn start_workers(
    settings: &GatewaySettings,
    workers: Workers,
    stop: &Arc<AtomicBool>,
) -> Result<(Vec<JoinHandle<Worker>>, Vec<WorkerHandle>), DaemonError> {
    let config = settings.config();
    let idle = match config.dataplane.idle {
        IdlePolicy::Adaptive => Idle::default(),
        IdlePolicy::Spin => Idle::DEDICATED,
    };
    let mut threads = Vec::new();
    let (mut workers, handles): (Vec<_>, Vec<_>) = workers.into_iter().unzip();
    handover::connect(&mut workers);
    for (index, worker) in workers.into_iter().enumerate() {
        let core = config.dataplane.cores.get(index).copied();
        let thread = spawn(worker, core, clock::now, idle, Arc::clone(stop));
        threads.push(thread.map_err(DaemonError::Thread)?);
    }
    Ok((threads, handles))
}

/// Heartbeats in the middle of a turn.
struct Heart(Arc<UdpSocket>);

impl Pacemaker for Heart {
    fn now(&mut self) -> Instant {
        clock::now()
    }

    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        let _ = self.0.send_to(datagram, to);
    }
}

/// What the loop owns.
struct Member {
    gateway: Gateway,
    entropy: SystemEntropy,
    socket: Option<Arc<UdpSocket>>,
    disk: Disk,
    keys: Option<Aside<KeyLines>>,
    ledger: Option<Aside<Granted>>,
    crls: CrlFiles,
    farewell: Duration,
    stopped: bool,
    /// What operators want to know and have done.
    asked: Asked,
    /// Whose orders are under way.
    awaited: Awaited,
    /// Clients that wait for captured packets.
    readers: Vec<Reader>,
    /// Whose configuration is being read.
    reloads: Reloads,
    /// Whose configuration is loaded, and not with the workers yet.
    loading: Vec<Loading>,
    carriers: Carriers,
    turns: Turns,
    /// The last turn left something to do.
    busy: bool,
}

impl Member {
    fn serve(&mut self, server: &mut Server, stop: &AtomicBool) {
        let mut farewell: Option<Instant> = None;
        let mut buffer = vec![0; LARGEST_PAYLOAD + 1024];
        while !self.stopped {
            self.wait(server);
            let now = clock::now();
            self.turns.begin(now);
            if stop.load(Ordering::Relaxed) && farewell.is_none() {
                tracing::info!("asked to end: handing over");
                farewell = Some(now + self.farewell);
                self.gateway.shut_down(now, &mut self.entropy);
            }
            if farewell.is_some_and(|end| now >= end) {
                tracing::warn!("nobody took over in time");
                return;
            }
            self.receive(&mut buffer);
            // Not before what was received: a standby judges by it whether it may vouch (R16).
            let now = clock::now();
            while let Some(written) = self.disk.finished() {
                self.gateway.persisted(now, &mut self.entropy, written);
            }
            for (port, up) in self.carriers.changes() {
                self.gateway.set_link(now, &mut self.entropy, port, up);
            }
            self.gateway.set_time_of_day(now, clock::time_of_day());
            if self.crls.look(now) {
                self.gateway.relist(now, &mut self.entropy);
            }
            self.gateway.beat();
            self.busy = self.gateway.turn(now, &mut self.entropy) > 0;
            // What the standbys owe an answer to counts from now, and an operator's list takes long.
            self.drain();
            self.answer(server, now);
            self.drain();
            let pause = self.gateway.rest();
            self.gateway.note_turn(self.turns.end(pause));
        }
    }

    /// The process ends: what waits for the files is written, if their disk lets it.
    fn flush(&self) {
        self.keys.iter().for_each(Aside::flush);
        self.ledger.iter().for_each(Aside::flush);
    }

    /// Sleeps until a socket has something or the tick is over.
    fn wait(&self, server: &Server) {
        let sync = self
            .socket
            .iter()
            .map(|socket| (socket.as_raw_fd(), Readiness::Read));
        let control = server.descriptors().map(|(descriptor, write)| match write {
            true => (descriptor, Readiness::Write),
            false => (descriptor, Readiness::Read),
        });
        // A turn does a bounded share of what waits, so that heartbeats have theirs: the rest follows
        // at once. So does a takeover of many.
        let patience = match self.busy || self.gateway.taking_over() > 0 {
            true => Duration::ZERO,
            false => TICK,
        };
        wait(sync.chain(control), patience);
    }

    fn receive(&mut self, buffer: &mut [u8]) {
        let Some(socket) = &self.socket else { return };
        let (gateway, entropy) = (&mut self.gateway, &mut self.entropy);
        let each = |now, from, datagram: &[u8]| gateway.sync_datagram(now, entropy, from, datagram);
        sync_socket::receive(socket, buffer, DATAGRAMS_A_ROUND, clock::now, each);
    }

    fn drain(&mut self) {
        while let Some(output) = self.gateway.poll_output() {
            self.gateway.beat();
            match output {
                Output::SyncTransmit(to, datagram) => {
                    if let Some(socket) = &self.socket {
                        // Lost like any datagram: the protocol repeats what matters.
                        let _ = socket.send_to(&datagram, to);
                    }
                }
                Output::Persist(durable) => self.disk.write(durable),
                Output::KeyLog(lines) => {
                    if let Some(keys) = &self.keys {
                        keys.put(lines);
                    }
                }
                Output::Granted(granted) => {
                    if let Some(ledger) = &self.ledger {
                        ledger.put(granted);
                    }
                }
                Output::Event(event) => {
                    self.stopped |= event == Event::Sync(SyncEvent::Stopped);
                    self.awaited.hears(&event);
                    crate::log::gateway_event(&event);
                }
            }
        }
    }
}
