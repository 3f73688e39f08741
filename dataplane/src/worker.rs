//! A worker: one thread's share of the gateway. It owns a queue of every port, a pool, an SAD and
//! everything else that it touches; what it shares are the leases' cells and the leadership flag,
//! both atomic. [`Worker::turn`] does one round of work and returns, so that a thread, a simulator
//! or a test can drive it alike.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hitless_sa::{Instant, SaId, UdpEncapsulation};
use rtrb::{Consumer, Producer, RingBuffer};
use smallvec::SmallVec;

use crate::checkpoint::{self, Collector, Publisher};
use crate::classify::Addresses;
use crate::command::{Command, Event, Retired};
use crate::counters::Counters;
use crate::fib::Fib;
use crate::frames::Frames;
use crate::handover::Ways;
use crate::keepalive::Keepalives;
use crate::leadership::Term;
use crate::links::Links;
use crate::local::TOLD;
use crate::neighbour::{Neighbour, News};
use crate::park::Park;
use crate::path::{Departure, Express};
use crate::pool::{LARGEST_IN_RUN, Pool};
use crate::port::memory::{self, MemoryPort};
use crate::port::{BURST, Port};
use crate::reassembly::Reassembly;
use crate::report::Reports;
use crate::sad::{Conflict, Sad};
use crate::schedule::Schedule;
use crate::spd::{FlowCache, Spd};
use crate::verdict::DropReason;
use crate::watch::Watch;

pub use crate::leadership::Leadership;
pub use crate::links::Interface;
pub use crate::schedule::CheckpointSettings;

/// Commands taken in one turn: installing many SAs must not starve packets.
const COMMANDS_PER_TURN: usize = 64;
/// Slots of the command and of the event ring.
const RING: usize = 1024;
/// IP packets on their way to or from the control thread, each as long as a run: RFC 7296 section 2
/// wants IKE messages of 3,000 octets to pass, and a chain of RSA certificates is longer still.
pub(crate) const PUNT: usize = 256;
/// How often a worker tells where its frames are.
const ACCOUNT: Duration = Duration::from_millis(100);
/// When gratuitous ARP and unsolicited advertisements go out after [`Command::Announce`].
const ANNOUNCEMENTS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_secs(1),
];

/// What a worker is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerSettings {
    /// Which of the gateway's workers it is, from 0: its place among those that
    /// [`connect`](crate::handover::connect) connects, and its share of what policies count.
    pub id: usize,
    /// One for each port, in the same order.
    pub interfaces: Vec<Interface>,
    /// Frames in the pool: enough for the ports' rings and for what waits (some 500 packets).
    pub pool_frames: u32,
    /// Runs of the pool, for packets too long for a frame (jumbo frames).
    pub pool_runs: u32,
    pub checkpoint: CheckpointSettings,
    /// Child SAs at most; their slots are below this.
    pub sa_capacity: usize,
}

/// The control thread's end of a worker.
pub struct WorkerHandle {
    commands: Producer<Command>,
    events: Consumer<Event>,
    /// IKE packets for the control thread: whole IP packets without Ethernet. Those from it go by
    /// [`WorkerHandle::inject`].
    pub punt: MemoryPort,
    pub checkpoints: Collector,
    pub counters: Arc<Counters>,
    leadership: Arc<Leadership>,
}

impl WorkerHandle {
    /// Queues a command; gives it back if the worker has not taken enough of the earlier ones yet.
    pub fn send(&mut self, command: Command) -> Result<(), Command> {
        self.commands
            .push(command)
            .map_err(|rtrb::PushError::Full(command)| command)
    }

    /// Gives the worker an IP packet of ours to send, or a parcel. It does so in this leadership or
    /// not at all. False if there is no room, or if it never fits.
    pub fn inject(&mut self, packet: &[u8]) -> bool {
        self.punt.push_marked(self.leadership.term().0, packet)
    }

    /// Commands that can be queued now.
    pub fn command_slots(&self) -> usize {
        self.commands.slots()
    }

    /// The oldest event that has not been taken.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop().ok()
    }

    /// Whether the worker is gone.
    pub fn is_abandoned(&self) -> bool {
        self.events.is_abandoned()
    }
}

/// Where the frames of a worker are, a run counting as one. All but `total` add up to `total` between turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameAccount {
    pub total: usize,
    pub free: usize,
    /// In the ports' rings.
    pub in_ports: usize,
    /// Waiting for a high water to rise.
    pub parked: usize,
    /// Waiting for a neighbour's address, or for the rest of their datagram.
    pub held: usize,
}

/// See the module.
pub struct Worker {
    id: usize,
    /// In front of the frames: a driver's sockets close before the memory that they use goes.
    pub(crate) links: Links,
    pub(crate) frames: Frames,
    pub(crate) addresses: Addresses,
    pub(crate) sad: Sad,
    pub(crate) spd: Arc<Spd>,
    pub(crate) flows: FlowCache,
    pub(crate) express: Express,
    pub(crate) fib: Arc<Fib>,
    pub(crate) park: Park,
    pub(crate) keepalives: Keepalives,
    pub(crate) reassembly: Reassembly,
    pub(crate) reports: Reports,
    pub(crate) leadership: Arc<Leadership>,
    /// What it said when this worker looked at it last.
    pub(crate) term: Term,
    /// Whether the control thread got on when this turn began.
    pub(crate) attended: bool,
    pub(crate) punt: MemoryPort,
    pub(crate) ways: Ways,
    commands: Consumer<Command>,
    publisher: Publisher,
    pub(crate) schedule: Schedule,
    /// When the announcement under way began, and how many of its parts have gone out.
    pub(crate) announcement: Option<(Instant, usize)>,
    /// Packets of unknown SPIs are given to the control thread.
    pub(crate) strangers: bool,
    /// When the frames are counted next.
    account_due: Instant,
    /// Of the last packet that was sent from here.
    identification: u32,
    /// Errors that go through a tunnel at the end of the turn.
    pub(crate) told: Vec<Departure>,
}

/// Makes a worker and the control thread's end of it. All memory that packets ever need is
/// allocated here.
///
/// # Errors
/// If the memory cannot be mapped, or if there is not one interface for each port.
pub fn worker(
    settings: WorkerSettings,
    ports: Vec<Box<dyn Port>>,
    leadership: Arc<Leadership>,
) -> io::Result<(Worker, WorkerHandle)> {
    worker_with_pool(
        Pool::for_worker(settings.pool_frames, settings.pool_runs)?,
        settings,
        ports,
        leadership,
    )
}

/// As [`worker`], with a pool whose memory the ports know already (an AF_XDP socket's UMEM).
///
/// # Errors
/// If there is not one interface for each port.
pub fn worker_with_pool(
    pool: Pool,
    settings: WorkerSettings,
    ports: Vec<Box<dyn Port>>,
    leadership: Arc<Leadership>,
) -> io::Result<(Worker, WorkerHandle)> {
    if settings.interfaces.len() != ports.len() {
        let text = format!(
            "worker {}: {} interfaces for {} ports; give one for each",
            settings.id,
            settings.interfaces.len(),
            ports.len()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut settings = settings;
    for interface in &mut settings.interfaces {
        interface.add_link_local();
    }
    let (command_sender, commands) = RingBuffer::new(RING);
    let (event_sender, events) = RingBuffer::new(RING);
    let (punt, control_punt) = memory::link(PUNT, LARGEST_IN_RUN - memory::OVERHEAD);
    let (publisher, checkpoints) = checkpoint::channel(settings.sa_capacity);
    let counters = Arc::new(Counters::new(ports.len()));
    let addresses = Addresses::new(settings.interfaces.iter().flat_map(|i| &i.addresses));
    let id = settings.id;
    let worker = Worker {
        id,
        frames: Frames {
            pool,
            counters: Arc::clone(&counters),
            watch: Watch::default(),
        },
        links: Links::new(ports, settings.interfaces),
        addresses,
        sad: Sad::new(settings.sa_capacity),
        spd: Arc::default(),
        flows: FlowCache::new(),
        express: Express::new(settings.sa_capacity),
        fib: Arc::default(),
        park: Park::new(),
        keepalives: Keepalives::new(settings.sa_capacity),
        reassembly: Reassembly::new(),
        reports: Reports::new(event_sender),
        term: leadership.term(),
        attended: true,
        leadership: Arc::clone(&leadership),
        punt,
        ways: Ways::default(),
        commands,
        publisher,
        schedule: Schedule::new(settings.checkpoint, settings.sa_capacity),
        announcement: None,
        strangers: false,
        account_due: Instant::default(),
        // Both halves begin apart in each worker: IPv4 has room for the lower one only.
        identification: (id as u32).wrapping_mul(0x9e37_79b9),
        told: Vec::with_capacity(TOLD),
    };
    let handle = WorkerHandle {
        commands: command_sender,
        events,
        punt: control_punt,
        checkpoints,
        counters,
        leadership,
    };
    Ok((worker, handle))
}

impl Worker {
    /// One round: commands, timers, injected packets, then a burst from every port. Returns the
    /// packets and commands handled; 0 means idle.
    pub fn turn(&mut self, now: Instant) -> usize {
        self.look_for_control(now);
        // 1. Commands, at a burst boundary: everything earlier has been given to the ports.
        let mut handled = self.take_commands(now);
        if self.frames.watch.on {
            self.frames.watch.set_time(now);
        }
        // 2. What waits: released, asked for again, or dropped because we no longer lead.
        self.timers(now);
        // 3. The control thread's packets.
        handled += self.inject(now);
        // 4. A burst from every other worker, which has waited longer, and from every port.
        handled += self.take_over(now);
        for port in 0..self.links.len() {
            handled += self.receive(port, now);
        }
        if !self.told.is_empty() {
            self.tell_refused(now);
        }
        // 5. Checkpoints that are due, and the ports' housekeeping.
        self.publish_due(now);
        self.links.poll(&mut self.frames);
        // 6. What the turn came to.
        self.frames.counters.count_turn(handled > 0);
        if now >= self.account_due {
            self.account_due = now + ACCOUNT;
            self.frames.counters.note_frames(self.frame_account());
        }
        handled
    }

    /// The number given in its settings.
    pub fn id(&self) -> usize {
        self.id
    }

    /// Whether packets for which everything is known take the express lane, as they do unless told
    /// otherwise. It changes nothing but what they cost.
    pub fn set_express(&mut self, on: bool) {
        self.express.set(on);
    }

    /// Packets that have taken the express lane.
    pub fn express_packets(&self) -> u64 {
        self.express.taken()
    }

    /// Names a packet that may be fragmented on its way: one count for all SAs, for several may have
    /// the same two endpoints (RFC 8200 section 4.5, RFC 6864 section 4.3).
    pub(crate) fn next_identification(&mut self) -> u32 {
        self.identification = self.identification.wrapping_add(1);
        self.identification
    }

    /// As [`Worker::next_identification`], of so many packets: those behind the one that it returns.
    pub(crate) fn take_identifications(&mut self, packets: usize) -> u32 {
        let before = self.identification;
        self.identification = before.wrapping_add(packets as u32);
        before
    }

    /// Where the frames are.
    pub fn frame_account(&self) -> FrameAccount {
        FrameAccount {
            total: self.frames.pool.packets(),
            free: self.frames.pool.available(),
            in_ports: self.links.ports().map(Port::frames_held).sum(),
            parked: self.park.len(),
            held: self.links.held() + self.reassembly.held(),
        }
    }

    /// Descriptors that become readable when packets wait, for sleeping when idle.
    pub fn wake_descriptors(&self) -> impl Iterator<Item = std::os::fd::RawFd> {
        self.links.ports().filter_map(Port::wake_descriptor)
    }

    fn timers(&mut self, now: Instant) {
        if !self.leads() {
            return;
        }
        if self.park.len() > 0 {
            self.release(now);
        }
        if let Some((begun, sent)) = self.announcement
            && let Some(after) = ANNOUNCEMENTS.get(sent)
            && now >= begun + *after
        {
            self.links.announce(&mut self.frames);
            let more = sent + 1 < ANNOUNCEMENTS.len();
            self.announcement = more.then_some((begun, sent + 1));
        }
        self.links.tick(&mut self.frames, now);
        self.keep_alive(now);
        self.reassembly.tick(&mut self.frames, now);
        self.links.flush(&mut self.frames);
    }

    fn take_commands(&mut self, now: Instant) -> usize {
        for taken in 0..COMMANDS_PER_TURN {
            if !self.reports.has_room() {
                return taken;
            }
            let Ok(command) = self.commands.pop() else {
                return taken;
            };
            self.obey(command, now);
        }
        COMMANDS_PER_TURN
    }

    fn obey(&mut self, command: Command, now: Instant) {
        // What waits is of the leadership before, and the command may be of this one.
        let leads = self.leads();
        self.forget_slot_of(&command);
        match command {
            Command::InstallInbound(sa) => {
                let (id, slot) = (sa.id, sa.slot);
                match self.sad.insert_inbound(sa) {
                    Ok(None) => {}
                    Ok(Some(old)) => {
                        // What was parked under the old cell dies with it (rule R8).
                        self.drop_parked_of(slot, &old.counters);
                        self.retire(Retired::Inbound(old));
                    }
                    Err((sa, conflict)) => self.refuse_sa(id, conflict, Retired::Inbound(sa)),
                }
            }
            Command::InstallOutbound(mut sa) => {
                let id = sa.id;
                self.keepalives.begin(&mut sa, now);
                match self.sad.insert_outbound(sa) {
                    Ok(None) => {}
                    Ok(Some(old)) => self.retire(Retired::Outbound(old)),
                    Err((sa, conflict)) => self.refuse_sa(id, conflict, Retired::Outbound(sa)),
                }
            }
            Command::Update {
                sa,
                local,
                remote,
                encapsulation,
                keepalive,
            } => self.update(sa, local, remote, encapsulation, keepalive),
            Command::Bind { sa, slot, bound } => {
                if let Err(conflict) = self.sad.bind(sa, slot, bound) {
                    self.reports.answer(Event::Refused { sa, conflict });
                }
            }
            Command::Unbind(id) => self.sad.unbind(id),
            Command::Move { sa, to, counters } => self.move_half(sa, to, counters),
            Command::Succeed { old, new } => self.sad.succeed(old, new),
            Command::Remove(id) => self.remove(id),
            Command::Policies(spd) => self.replace_policies(spd),
            Command::Routes(fib) => {
                let old = self.replace_routes(fib);
                self.retire(Retired::Routes(old));
            }
            Command::Neighbour(news) => self.learn_neighbour(news, now),
            Command::Dummies { sa, count, octets } => self.send_dummies(now, sa, count, octets),
            Command::Probe { port, address, ask } => {
                self.probe_neighbour(Neighbour { port, address }, ask && leads)
            }
            Command::Announce => self.announcement = Some((now, 0)),
            Command::Trace(trace) => {
                if let Some(old) = self.frames.watch.set_trace(trace) {
                    self.retire(Retired::Watched(old));
                }
            }
            Command::Capture(capture) => {
                if let Some(old) = self.frames.watch.set_capture(capture) {
                    self.retire(Retired::Watched(old));
                }
            }
            Command::Barrier(number) => self.reports.answer(Event::Barrier(number)),
            Command::QueryWindow { sa, question } => self.answer_window(sa, question),
            Command::Strangers(on) => self.strangers = on,
        }
    }

    fn replace_policies(&mut self, spd: Arc<Spd>) {
        let old = std::mem::replace(&mut self.spd, spd);
        self.flows.clear();
        self.express.forget_flows();
        if old.claims_any() || self.spd.claims_any() {
            self.express.forget_sides();
        }
        self.judge_held_again(&old);
        self.retire(Retired::Policies(old));
    }

    /// What the lane knows of an SA does not outlive a command about it.
    fn forget_slot_of(&mut self, command: &Command) {
        let slot = match command {
            Command::InstallInbound(sa) => Some(sa.slot),
            Command::InstallOutbound(sa) => Some(sa.slot),
            Command::Bind { slot, .. } => Some(*slot),
            Command::Update { sa, .. }
            | Command::Move { sa, .. }
            | Command::Unbind(sa)
            | Command::Succeed { old: sa, .. }
            | Command::Remove(sa) => self.sad.slot_of(*sa),
            _ => None,
        };
        if let Some(slot) = slot {
            self.express.forget_slot(slot);
        }
    }

    fn answer_window(&mut self, sa: SaId, question: u64) {
        let slot = self.sad.slot_of(sa);
        let state = slot
            .and_then(|slot| self.sad.inbound_in_slot(slot))
            .and_then(|half| half.window.export());
        self.reports.answer(Event::Window {
            sa,
            question,
            state,
        });
    }

    fn update(
        &mut self,
        id: SaId,
        local: IpAddr,
        remote: IpAddr,
        encapsulation: Option<UdpEncapsulation>,
        keepalive: Option<Duration>,
    ) {
        let Some(slot) = self.sad.slot_of(id) else {
            return;
        };
        if let Some(sa) = self.sad.outbound_mut(slot)
            && sa.set_endpoint(local, remote, encapsulation).is_err()
        {
            // An endpoint of another family: the SA goes on as it was.
            return;
        }
        if let Some(sa) = self.sad.inbound_in_slot(slot) {
            sa.set_endpoint(local, remote, encapsulation);
        }
        self.keep_alive_every(slot, keepalive);
    }

    fn remove(&mut self, id: SaId) {
        if let Some(slot) = self.sad.slot_of(id) {
            self.publish(slot);
            self.drop_parked(|parked| parked == slot, DropReason::HighWater);
        }
        let (inbound, outbound) = self.sad.remove(id);
        if let Some(sa) = inbound {
            self.retire(Retired::Inbound(sa));
        }
        if let Some(sa) = outbound {
            self.retire(Retired::Outbound(sa));
        }
    }

    fn probe_neighbour(&mut self, neighbour: Neighbour, ask: bool) {
        self.links.probe(&mut self.frames, neighbour, ask);
    }

    fn learn_neighbour(&mut self, news: News, now: Instant) {
        if news.neighbour.port < self.links.len() {
            let (neighbour, mac, trust) = (news.neighbour, news.mac, news.trust);
            self.links
                .learn(&mut self.frames, neighbour, mac, trust, now);
        }
    }

    fn refuse_sa(&mut self, sa: SaId, conflict: Conflict, retired: Retired) {
        self.reports.answer(Event::Refused { sa, conflict });
        self.retire(retired);
    }

    fn retire(&mut self, retired: Retired) {
        self.reports.answer(Event::Retired(retired));
    }

    /// Notes that a packet of the SA was sent or delivered.
    pub(crate) fn note_use(&mut self, slot: u32, now: Instant) {
        self.note_uses(slot, now, 1);
    }

    /// The same of several packets.
    #[inline]
    pub(crate) fn note_uses(&mut self, slot: u32, now: Instant, packets: u32) {
        if self.schedule.note(slot, now, packets) {
            self.publish(slot);
        }
    }

    /// Publishes what is due. With many SAs all of it lies in memory: each step asks for what the next
    /// one reads, of several SAs at once.
    fn publish_due(&mut self, now: Instant) {
        loop {
            let mut due: SmallVec<[u32; BURST]> = SmallVec::new();
            while due.len() < BURST
                && let Some(slot) = self.schedule.next_due(now)
            {
                self.sad.prefetch_slot(slot);
                self.publisher.prefetch(slot);
                due.push(slot);
            }
            for slot in &due {
                self.sad.prefetch_inbound(*slot);
                self.sad.prefetch_outbound(*slot);
            }
            for slot in &due {
                self.sad.prefetch_counts(*slot);
            }
            for slot in &due {
                self.publish(*slot);
            }
            if due.len() < BURST {
                return;
            }
        }
    }

    pub(crate) fn publish(&mut self, slot: u32) {
        if let Some(checkpoint) = self.sad.checkpoint(slot) {
            self.publisher.publish(slot, &checkpoint);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.forget_what_waits();
    }
}
