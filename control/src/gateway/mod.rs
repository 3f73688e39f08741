//! The gateway: IKE, the sync node, the link between members and the workers, composed sans-IO.
//!
//! ```text
//!   workers --punt, events, checkpoints--> Gateway::turn --commands, lease raises--> workers
//!                                           |      ^
//!        Engine --Commit--> Node --Committed--> release messages and SAs (output commit)
//!                            | ^
//!                           Link (IKE and ESP between members) <--> sync socket
//! ```
//!
//! One value, driven by `turn(now)`, `sync_datagram` and `persisted`; what it wants of the world
//! comes out of [`Gateway::poll_output`]. The daemon runs it with sockets and a clock, the demo
//! with memory ports, the simulator with virtual time: always this very code.
//!
//! `settle.rs` carries what one part says to the others, `children.rs` knows the SAs in the
//! workers, `silence.rs` which of them hear nothing, `dataplane.rs` the workers, `link.rs` the other
//! members, `punt.rs` IP and UDP around IKE, `settings.rs` what the configuration becomes,
//! `status.rs` what an operator sees.

mod children;
mod dataplane;
mod install;
mod link;
mod punt;
mod settings;
mod settle;
mod silence;
mod status;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hitless_dataplane::command::{Command, Event as WorkerEvent};
use hitless_dataplane::worker::{Leadership, WorkerHandle};
use hitless_sa::{Entropy, IkeSpi, Instant, MemberId, SaId};
use hitless_sync::{
    Checkpoint, DrainedSa, Durable, Event as SyncEvent, Input as SyncInput, Node, TakeoverSa, Usage,
};

use zeroize::Zeroizing;

use crate::ike::{self, ChildChange, Engine, Input, Transmit};

pub use link::LARGEST_PAYLOAD;
pub use settings::GatewaySettings;

use children::Children;
use dataplane::Dataplane;
use link::Link;

/// Events taken from the workers in one turn.
const EVENTS_A_TURN: usize = 1024;
/// Punted packets taken in one turn.
const PUNTS_A_TURN: usize = 128;
/// How often the cells of all SAs are looked at (`lease-holes` R7: 1 ms at most).
const SCAN: Duration = Duration::from_millis(1);

/// What the gateway wants of the world.
#[derive(Debug)]
pub enum Output {
    /// Send from the sync socket.
    SyncTransmit(SocketAddr, Vec<u8>),
    /// Write durably, then call [`Gateway::persisted`].
    Persist(Durable),
    /// For the log, the demo's progress and tests.
    Event(Event),
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Ike(ike::Event),
    /// IKE between members.
    Link(ike::Event),
    Sync(SyncEvent),
    /// This member leads; the skip is the greatest over all SAs.
    Leads {
        epoch: hitless_sa::Epoch,
        inherits: bool,
        sas: usize,
        skip: u64,
        /// Every inherited IKE SA goes on with exact Message IDs (invariant S4).
        exact: bool,
    },
    SteppedDown {
        reason: hitless_sync::StepDown,
    },
    Degraded {
        on: bool,
    },
    /// An inherited SA sends and hears nothing: it is replaced.
    Silent {
        sa: SaId,
    },
    /// An SA that the new active could not carry on.
    Unusable {
        sa: SaId,
        reason: String,
    },
}

/// What of one IKE SA waits until the standby has recorded the state that it implies.
#[derive(Default)]
struct Waiting {
    /// The state that was released last, to go back to; `None` if there was none.
    released: Option<Zeroizing<Vec<u8>>>,
    outputs: VecDeque<Held>,
}

/// The outputs of one commit.
struct Held {
    version: u64,
    changes: Vec<ChildChange>,
    transmits: Vec<Transmit>,
    since: Instant,
}

/// One gateway: a member of a cluster, or a cluster of one.
pub struct Gateway {
    settings: GatewaySettings,
    engine: Engine,
    node: Node,
    link: Option<Link>,
    dataplane: Dataplane,
    children: Children,
    held: BTreeMap<IkeSpi, Waiting>,
    /// Where to start the SAs that were inherited and are not installed yet.
    inherited: BTreeMap<SaId, TakeoverSa>,
    outputs: VecDeque<Output>,
    drain: Option<Drain>,
    barriers: u64,
    last_scan: Instant,
    /// When this process started, for ages in `status`.
    started: Instant,
    skip: u64,
    packet: Vec<u8>,
    punt_refused: u64,
    ike_dropped: u64,
}

/// A planned switchover in progress: which workers have not passed the barrier yet.
struct Drain {
    barrier: u64,
    waiting: Vec<usize>,
}

impl Gateway {
    /// A gateway that knows its past (`durable`, already raised and written for this start).
    pub fn new(
        settings: GatewaySettings,
        durable: Durable,
        workers: Vec<WorkerHandle>,
        leadership: Arc<Leadership>,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> Gateway {
        let incarnation = durable.incarnation;
        let mut dataplane = Dataplane::new(workers, leadership);
        let routes = Arc::new(settings.fib());
        dataplane.broadcast(|| Command::Routes(Arc::clone(&routes)));
        let mut gateway = Gateway {
            engine: Engine::new(settings.engine(incarnation)),
            node: Node::new(settings.node(), durable, now),
            link: settings
                .link(incarnation)
                .map(|link| Link::new(link, now, entropy)),
            settings,
            dataplane,
            children: Children::default(),
            held: BTreeMap::new(),
            inherited: BTreeMap::new(),
            outputs: VecDeque::new(),
            drain: None,
            barriers: 0,
            last_scan: now,
            started: now,
            skip: 0,
            packet: Vec::new(),
            punt_refused: 0,
            ike_dropped: 0,
        };
        gateway.publish_policies();
        gateway
    }

    /// Does everything that is due: the workers' events and packets, timers, leases. Returns how
    /// much there was to do.
    pub fn turn(&mut self, now: Instant, entropy: &mut dyn Entropy) -> usize {
        self.dataplane.flush();
        let work = self.take_events(now, entropy) + self.take_punts(now, entropy);
        if now.since(self.last_scan) >= SCAN {
            self.last_scan = now;
            self.scan(now, entropy);
        }
        if self.node.poll_timeout().is_some_and(|at| at <= now) {
            self.node.handle(now, entropy, SyncInput::Timeout);
        }
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.engine.handle(now, entropy, Input::Timeout);
        }
        if let Some(link) = &mut self.link {
            link.turn(now, entropy);
        }
        self.settle(now, entropy);
        work
    }

    /// A datagram that arrived at the sync socket.
    pub fn sync_datagram(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        from: SocketAddr,
        datagram: &[u8],
    ) {
        if let Some(link) = &mut self.link {
            link.receive(now, entropy, from, datagram);
        }
        self.settle(now, entropy);
    }

    /// Answers [`Output::Persist`].
    pub fn persisted(&mut self, now: Instant, entropy: &mut dyn Entropy, written: bool) {
        let input = if written {
            SyncInput::Persisted
        } else {
            SyncInput::PersistFailed
        };
        self.node.handle(now, entropy, input);
        self.settle(now, entropy);
    }

    /// Who would take over in a planned switchover now, or why nobody can.
    pub fn can_switch_over(&self, now: Instant) -> Result<MemberId, String> {
        let node = self.node.status(now);
        if node.role != hitless_sync::Role::Leading {
            let leader = node
                .leader
                .filter(|leader| *leader != self.settings.config().cluster.id);
            return Err(match leader {
                Some(leader) => format!("this member is not active; ask member {leader}"),
                None => "this member is not active".to_owned(),
            });
        }
        let ready = node
            .members
            .iter()
            .filter(|member| member.bound && member.healthy);
        let best = ready.max_by_key(|member| (member.priority, member.id));
        best.map(|member| member.id).ok_or_else(|| {
            "no standby holds every lease; `hitless status` says what it waits for".to_owned()
        })
    }

    /// The operator wants another member to lead.
    pub fn switchover(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.node.handle(now, entropy, SyncInput::Switchover);
        self.settle(now, entropy);
    }

    /// The process is about to end: hand over or resign; done at `SyncEvent::Stopped`.
    pub fn shut_down(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.node.handle(now, entropy, SyncInput::Shutdown);
        self.settle(now, entropy);
    }

    /// Every IKE SA of this member with its Child SAs, passive ones included.
    pub fn ike_sas(&self) -> Vec<(IkeSpi, Vec<SaId>)> {
        let sas = self.engine.status(Instant(0)).into_iter();
        sas.map(|sa| (sa.local_spi, self.engine.children(sa.local_spi)))
            .collect()
    }

    /// A request to IKE: initiate, rekey, terminate.
    pub fn ike(&mut self, now: Instant, entropy: &mut dyn Entropy, input: Input<'_>) {
        self.engine.handle(now, entropy, input);
        self.settle(now, entropy);
    }

    /// The next output, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether this member carries the cluster's traffic.
    pub fn leading(&self) -> bool {
        self.dataplane.leading()
    }

    fn take_events(&mut self, now: Instant, entropy: &mut dyn Entropy) -> usize {
        let mut work = 0;
        while work < EVENTS_A_TURN {
            let Some((worker, event)) = self.dataplane.poll_event() else {
                break;
            };
            work += 1;
            self.worker_event(now, entropy, worker, event);
        }
        let mut checkpoints = Vec::new();
        self.dataplane
            .drain_checkpoints(|checkpoint| checkpoints.push(checkpoint));
        work += checkpoints.len();
        for c in checkpoints {
            let checkpoint = Checkpoint {
                outbound_next: c.outbound_next,
                inbound_top: c.inbound_top,
                packets_out: c.packets_out,
                bytes_out: c.bytes_out,
                packets_in: c.packets_in,
                bytes_in: c.bytes_in,
            };
            self.note_counters(now, c.sa, checkpoint);
            self.node.handle(
                now,
                entropy,
                SyncInput::Checkpoint {
                    sa: c.sa,
                    checkpoint,
                },
            );
        }
        work
    }

    fn worker_event(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        worker: usize,
        event: WorkerEvent,
    ) {
        match event {
            // Dropped here, so that no worker ever frees memory.
            WorkerEvent::Retired(_) => {}
            WorkerEvent::Barrier(barrier) => self.barrier_passed(now, entropy, worker, barrier),
            WorkerEvent::NeighbourLearned { port, address, mac } => {
                for other in (0..self.dataplane.len()).filter(|other| *other != worker) {
                    self.dataplane
                        .send(other, Command::Neighbour { port, address, mac });
                }
            }
            WorkerEvent::PeerMoved { sa, remote } => {
                self.engine
                    .handle(now, entropy, Input::ChildPeerMoved { sa, remote });
            }
            WorkerEvent::Refused { sa, conflict } => {
                self.unusable(sa, format!("the worker refused it: {conflict:?}"));
            }
            WorkerEvent::UnknownSpi { source, .. } => {
                let from = self.children.iter_mut();
                for carried in from.filter(|c| c.child.remote == source.ip()) {
                    if let Some(silence) = &mut carried.silence {
                        silence.foreign(now);
                    }
                }
            }
            // Hints that nobody asks for yet: the scan sees the high water, traps are not
            // initiated.
            WorkerEvent::Acquire { .. }
            | WorkerEvent::HighWater { .. }
            | WorkerEvent::Window { .. } => {}
        }
    }

    fn take_punts(&mut self, now: Instant, entropy: &mut dyn Entropy) -> usize {
        let mut work = 0;
        let mut packet = std::mem::take(&mut self.packet);
        while work < PUNTS_A_TURN && self.dataplane.poll_punt(&mut packet) {
            work += 1;
            match punt::ike_datagram(&packet) {
                Some((local, remote, payload)) => {
                    self.engine.handle(
                        now,
                        entropy,
                        Input::Datagram {
                            local,
                            remote,
                            payload,
                        },
                    );
                    // One message, one commit: outputs leave before the next input is taken.
                    self.settle(now, entropy);
                }
                None => self.punt_refused += 1,
            }
        }
        self.packet = packet;
        work
    }

    /// Looks at every cell: the level, not an edge, decides when a lease is extended.
    fn scan(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        let mut usage = Vec::new();
        let mut seen = Vec::new();
        let mut silent = Vec::new();
        for carried in self.children.iter_mut() {
            let inbound_top = carried.cell.inbound_top();
            let cursor = carried.cell.cursor();
            if let Some(silence) = &mut carried.silence
                && silence.note(now, cursor, inbound_top)
            {
                silent.push(carried.child.id);
            }
            if inbound_top > carried.seen_top {
                carried.seen_top = inbound_top;
                seen.push(carried.child.id);
            }
            usage.push(Usage {
                sa: carried.child.id,
                cursor,
                inbound_top,
                esn: carried.child.esn,
            });
        }
        if self.dataplane.leading() && !usage.is_empty() {
            self.node.handle(now, entropy, SyncInput::Usage(usage));
        }
        for sa in seen {
            self.engine.handle(now, entropy, Input::Traffic { sa });
        }
        for sa in silent {
            self.outputs.push_back(Output::Event(Event::Silent { sa }));
            self.engine.handle(now, entropy, Input::RekeyChild(sa));
        }
    }

    fn start_drain(&mut self) {
        self.dataplane.set_leading(false);
        self.barriers += 1;
        let barrier = self.barriers;
        self.drain = Some(Drain {
            barrier,
            waiting: (0..self.dataplane.len()).collect(),
        });
        self.dataplane.broadcast(|| Command::Barrier(barrier));
    }

    /// Every worker has passed a burst boundary since leadership went off: what the cells say now
    /// is final (`lease-holes` A4, R15).
    fn barrier_passed(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        worker: usize,
        barrier: u64,
    ) {
        let Some(drain) = &mut self.drain else { return };
        if drain.barrier != barrier {
            return;
        }
        drain.waiting.retain(|waiting| *waiting != worker);
        if !drain.waiting.is_empty() {
            return;
        }
        self.drain = None;
        let drained = self.children.iter().map(|carried| DrainedSa {
            sa: carried.child.id,
            lease: carried.cell.used(),
            window: Vec::new(),
        });
        let drained = drained.collect();
        for carried in self.children.iter() {
            carried.cell.freeze();
        }
        self.node.handle(now, entropy, SyncInput::Drained(drained));
    }
}
