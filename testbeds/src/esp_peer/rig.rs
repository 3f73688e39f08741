//! One gateway on cables of memory, under a clock that only its owner moves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hitless_dataplane::aead::Engine;
use hitless_dataplane::cell::Cell;
use hitless_dataplane::command::{Command, Event};
use hitless_dataplane::counters::Counters;
use hitless_dataplane::fib::{Fib, Route};
use hitless_dataplane::neighbour::News;
use hitless_dataplane::port::memory::{self, MemoryPort};
use hitless_dataplane::port::{MacAddress, Port};
use hitless_dataplane::replay::WindowState;
use hitless_dataplane::sad::{InboundSa, OutboundSa};
use hitless_dataplane::spd::{Policy, Spd};
use hitless_dataplane::worker::{
    CheckpointSettings, Interface, Leadership, Worker, WorkerHandle, WorkerSettings, worker,
};
use hitless_sa::{ChildSa, Instant, Lease, SaId, SequenceNumber, UdpEncapsulation};

use super::Refused;

/// Frames that fit onto each cable; fewer of jumbo frames.
const CABLE: usize = 512;
const JUMBO_CABLE: usize = 64;
const USUAL_MTU: usize = 2000;
/// Bounds that a rig never reaches: leases are tested elsewhere.
const PLENTY: Lease = Lease {
    grant: SequenceNumber(1 << 60),
    high_water: SequenceNumber(1 << 60),
};
/// SAs at most.
const CAPACITY: usize = 64;
/// Turns after which a gateway that still has something to do is at fault.
const TURNS: usize = 100_000;

/// See the module.
pub struct Rig {
    worker: Worker,
    handle: WorkerHandle,
    leadership: Arc<Leadership>,
    cables: Vec<MemoryPort>,
    engine: Engine,
    now: Instant,
    slots: BTreeMap<SaId, u32>,
    /// What the worker told that was no answer to a question.
    refusals: Vec<String>,
    windows: BTreeMap<SaId, Option<WindowState>>,
}

impl Rig {
    /// A gateway that leads, without SAs, policies and routes.
    ///
    /// # Errors
    /// If there is no memory for its frames.
    pub fn new(
        interfaces: Vec<Interface>,
        frames: u32,
        runs: u32,
        engine: Engine,
    ) -> Result<Rig, Refused> {
        let (mut ports, mut cables): (Vec<Box<dyn Port>>, Vec<_>) = (Vec::new(), Vec::new());
        for interface in &interfaces {
            let jumbo = interface.mtu > USUAL_MTU;
            let capacity = if jumbo { JUMBO_CABLE } else { CABLE };
            let (inner, outer) = memory::link(capacity, interface.mtu);
            ports.push(Box::new(inner));
            cables.push(outer);
        }
        let settings = WorkerSettings {
            id: 0,
            interfaces,
            pool_frames: frames,
            pool_runs: runs,
            checkpoint: CheckpointSettings::default(),
            sa_capacity: CAPACITY,
        };
        let leadership = Leadership::new(true);
        let (worker, handle) = worker(settings, ports, Arc::clone(&leadership))
            .map_err(|error| Refused(error.to_string()))?;
        Ok(Rig {
            worker,
            handle,
            leadership,
            cables,
            engine,
            now: Instant::default() + Duration::from_secs(100),
            slots: BTreeMap::new(),
            refusals: Vec::new(),
            windows: BTreeMap::new(),
        })
    }

    /// Gives the worker a command, and lets it obey.
    ///
    /// # Errors
    /// If it takes none.
    fn command(&mut self, command: Command) -> Result<(), Refused> {
        let sent = self.handle.send(command);
        sent.map_err(|_| Refused("the worker takes no command".to_owned()))?;
        self.worker.turn(self.now);
        self.hear();
        match self.refusals.pop() {
            Some(text) => Err(Refused(text)),
            None => Ok(()),
        }
    }

    /// # Errors
    /// As the worker says.
    pub fn routes(&mut self, routes: &[Route]) -> Result<(), Refused> {
        self.command(Command::Routes(Arc::new(Fib::new(routes))))
    }

    /// # Errors
    /// As the worker says.
    pub fn policies(&mut self, policies: Vec<Policy>) -> Result<(), Refused> {
        self.command(Command::Policies(Arc::new(Spd::new(policies))))
    }

    /// # Errors
    /// As the worker says.
    pub fn neighbour(
        &mut self,
        port: usize,
        address: IpAddr,
        mac: MacAddress,
    ) -> Result<(), Refused> {
        self.command(Command::Neighbour(News::certain(port, address, mac)))
    }

    /// Installs both halves; the first number to send, and those up to `floor` counted as received.
    ///
    /// # Errors
    /// If the SA cannot be carried.
    pub fn install(&mut self, child: &ChildSa, first: u64, floor: u64) -> Result<(), Refused> {
        let slot = self.slot_for(child.id);
        let cell = Arc::new(Cell::new(SequenceNumber(first), PLENTY));
        let refused = |error: hitless_dataplane::sad::SaError| Refused(error.to_string());
        let floor = SequenceNumber(floor);
        let inbound = InboundSa::new(child, Arc::clone(&cell), floor, slot, self.engine);
        let outbound = OutboundSa::new(child, cell, slot, self.engine);
        self.command(Command::InstallInbound(Box::new(inbound.map_err(refused)?)))?;
        self.command(Command::InstallOutbound(Box::new(
            outbound.map_err(refused)?,
        )))
    }

    /// The slot of an SA: its own, or the first that is free.
    fn slot_for(&mut self, id: SaId) -> u32 {
        let taken = |slot: &u32| self.slots.values().any(|used| used == slot);
        let free = (0..).find(|slot| !taken(slot)).unwrap_or(u32::MAX);
        *self.slots.entry(id).or_insert(free)
    }

    /// # Errors
    /// As the worker says.
    pub fn update(
        &mut self,
        sa: SaId,
        local: IpAddr,
        remote: IpAddr,
        encapsulation: Option<UdpEncapsulation>,
    ) -> Result<(), Refused> {
        self.command(Command::Update {
            sa,
            local,
            remote,
            encapsulation,
            keepalive: None,
        })
    }

    /// # Errors
    /// As the worker says.
    pub fn remove(&mut self, sa: SaId) -> Result<(), Refused> {
        self.slots.remove(&sa);
        self.command(Command::Remove(sa))
    }

    /// Takes effect at the next burst.
    pub fn lead(&mut self, leading: bool) {
        self.leadership.set(leading);
    }

    /// Puts a frame onto a port's cable; false if there is no such port or no room.
    pub fn push(&mut self, port: usize, frame: &[u8]) -> bool {
        self.cables
            .get_mut(port)
            .is_some_and(|cable| cable.push_frame(frame))
    }

    /// Takes the oldest frame that came out of a port.
    pub fn pop(&mut self, port: usize, handle: impl FnOnce(&[u8])) -> bool {
        self.cables
            .get_mut(port)
            .is_some_and(|cable| cable.pop_frame(handle))
    }

    /// How many ports there are.
    pub fn ports(&self) -> usize {
        self.cables.len()
    }

    /// Moves the clock.
    pub fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    /// Does all that there is to do.
    ///
    /// # Errors
    /// If that never ends.
    pub fn run(&mut self) -> Result<(), Refused> {
        for _ in 0..TURNS {
            let handled = self.worker.turn(self.now);
            self.hear();
            // IKE is not spoken here: what was punted is counted, and thrown away.
            while self.handle.punt.pop_frame(|_| ()) {}
            if handled == 0 {
                return Ok(());
            }
        }
        Err(Refused(format!("not at rest after {TURNS} turns")))
    }

    fn hear(&mut self) {
        while let Some(event) = self.handle.poll_event() {
            match event {
                Event::Refused { conflict, .. } => self.refusals.push(format!("{conflict:?}")),
                Event::Window { sa, state, .. } => {
                    self.windows.insert(sa, state);
                }
                _ => {}
            }
        }
    }

    /// The receive window of an SA, as a standby would get it.
    ///
    /// # Errors
    /// As the worker says.
    pub fn window(&mut self, sa: SaId) -> Result<Option<WindowState>, Refused> {
        self.command(Command::QueryWindow { sa, question: 0 })?;
        Ok(self.windows.remove(&sa).flatten())
    }

    /// The SAs that are installed.
    pub fn installed(&self) -> Vec<SaId> {
        self.slots.keys().copied().collect()
    }

    pub fn counters(&self) -> &Counters {
        &self.handle.counters
    }

    /// Packets that wait inside the worker: for a neighbour, or for a high water to rise.
    pub fn waiting(&self) -> u64 {
        let account = self.worker.frame_account();
        (account.parked + account.held) as u64
    }

    /// Frames of the pool that are nowhere; 0 is right.
    pub fn leaked(&self) -> i64 {
        let account = self.worker.frame_account();
        let found = account.free + account.in_ports + account.parked + account.held;
        account.total as i64 - found as i64
    }
}
