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
//! ```text
//!  the parts     settle.rs what one part says to the others, dataplane.rs the rings of the workers,
//!                workers.rs what the workers report, link.rs the other members, punt.rs IP and UDP
//!                around IKE, beat.rs heartbeats in the middle of work, settings.rs what the
//!                configuration becomes
//!  the lead      roles.rs leading, handing over, stepping down; commit.rs output commit: what is
//!                held back; takeover.rs a few inherited IKE SAs at a time; retrieve.rs SAs that
//!                another member made alone; grants.rs the ledger of grants
//!  the SAs       children.rs those in the workers, install.rs how they come there with their leases,
//!                policies.rs what the workers decide by, protected.rs what it is made of, acquire.rs children that the first packet
//!                brings up, kin.rs which SAs belong together, and
//!                whose peer is heard on an SPI that nobody knows; broken.rs rules that a simulator may
//!                have switched off
//!  a takeover    blackout.rs what a strict one leaves, and its end; silence.rs inherited SAs that the
//!                peer has no more, foreign.rs those that it has and we have not; late.rs packets that
//!                come to the old active after a switchover; drill.rs a standby tries what it would
//!                carry
//!  health        health.rs stuck workers and links that are down, relapse.rs workers that are stuck
//!                again and again, next_hops.rs next hops that do not answer
//!  an operator   operate.rs asks of IKE; status.rs, show.rs, cluster.rs, metrics.rs, watch.rs (traces
//!                and captures) and neighbours.rs show, listing.rs what is long a slice at a time; counts.rs counts bad input by reason
//! ```

mod acquire;
mod beat;
mod blackout;
mod broken;
mod children;
mod cluster;
mod commit;
mod counts;
mod dataplane;
mod drain;
mod drill;
mod foreign;
mod grants;
mod health;
mod install;
mod kin;
mod late;
mod link;
mod listing;
mod metrics;
mod neighbours;
mod next_hops;
mod operate;
mod ordered;
mod policies;
mod protected;
mod punt;
mod relapse;
mod retrieve;
mod roles;
mod settings;
mod settle;
mod show;
mod silence;
mod status;
mod takeover;
mod watch;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hitless_dataplane::command::Command;
use hitless_dataplane::spd::Spd;
use hitless_dataplane::worker::{Leadership, WorkerHandle};
use hitless_sa::{Entropy, IkeSpi, Instant, MemberId, SaId, SequenceNumber};
use hitless_sync::{
    Durable, Event as SyncEvent, Input as SyncInput, NoSwitchover, Node, RekeyReason, TakeoverSa,
};

use crate::ike::{self, Engine, Input};
use crate::keylog::KeyLines;

pub use crate::ike::sessions::ClusterSecret;
pub use beat::Pacemaker;
pub use grants::Granted;
pub use link::LARGEST_PAYLOAD;
pub use listing::{Listing, Row, SLICE};
pub use ordered::{Ordered, Progress};
pub use policies::{AtOnce, Beside, Builder, Job};
pub use settings::{GatewaySettings, Tuning};

use acquire::Asked;
use beat::Beats;
use blackout::Blackouts;
use children::Children;
use commit::Waiting;
use counts::Counts;
use dataplane::Dataplane;
use drain::Drain;
use drill::Drill;
use foreign::Foreign;
use health::Health;
use late::Late;
use link::Link;
use neighbours::Neighbours;
use next_hops::NextHops;
use policies::Publication;
use retrieve::Retrieval;
use watch::Watching;

/// An ESP packet of the sync network is never shorter: SPI, number, IV and check value.
const HEADERS: usize = 32;
/// How often the cells of all SAs are looked at (`lease-holes` R7: 1 ms at most).
const SCAN: Duration = Duration::from_millis(1);

/// What the gateway wants of the world.
#[derive(Debug)]
pub enum Output {
    /// Send from the sync socket.
    SyncTransmit(SocketAddr, Vec<u8>),
    /// Write durably, then call [`Gateway::persisted`].
    Persist(Durable),
    /// Append to the key log: only if the configuration names one.
    KeyLog(KeyLines),
    /// For the ledger of grants, if there is one.
    Granted(Granted),
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
    /// This member leads; the skip is the greatest over all SAs, if it has gone on with each of them.
    Leads {
        epoch: hitless_sa::Epoch,
        /// Whose record it goes on from; without one there is nothing to go on with.
        base: Option<hitless_sa::Epoch>,
        sas: usize,
        skip: Option<u64>,
        /// Every inherited IKE SA goes on with exact Message IDs (invariant S4).
        exact: bool,
    },
    /// It has gone on with the last of very many; the skip is the greatest over all their SAs.
    Inherited {
        skip: u64,
    },
    SteppedDown {
        reason: hitless_sync::StepDown,
    },
    Degraded {
        on: bool,
    },
    /// A packet wants a child that is to be brought up by its first one.
    Acquired {
        connection: String,
        child: String,
    },
    /// An SA that must not go on with its keys: it is replaced.
    Spent {
        sa: SaId,
        reason: RekeyReason,
    },
    /// An inherited SA sends and hears nothing: it is replaced.
    Silent {
        sa: SaId,
    },
    /// A Child SA that the workers cannot carry: its traffic is dropped.
    Unusable {
        sa: SaId,
        reason: String,
    },
    /// An IKE SA that cannot be read back, or that has outgrown its record: it is given up.
    Unreadable {
        ike: IkeSpi,
        reason: String,
    },
    /// A copy that reads well, and that this member would not go on with: by its own file some or all of
    /// its Child SAs would be closed, or its peer would not find them.
    WouldClose {
        ike: IkeSpi,
        sa: SaId,
        reason: &'static str,
    },
    /// What keeps this member from all the work of an active; nothing, if it could do it again.
    Health {
        ailments: Vec<String>,
    },
    /// The thread of a worker has ended, or it took no command for so long that they were dropped: this
    /// member cannot do the work of an active.
    WorkerLost {
        worker: usize,
    },
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
    /// How often changes of an IKE SA were refused because no record has room for them.
    too_large: BTreeMap<IkeSpi, u32>,
    /// Where to start the SAs that were inherited and are not installed yet.
    inherited: BTreeMap<SaId, TakeoverSa>,
    /// The workers do not know yet which SAs are up.
    policies_changed: bool,
    publication: Publication,
    /// What they decide by, and count in.
    policies: Arc<Spd>,
    /// How far the SAs that are not installed yet are to leap when they are: their peers were told that
    /// they have.
    leaps: BTreeMap<SaId, u64>,
    /// Inherited SAs that the predecessor may have replaced or deleted: to be replaced, once they are
    /// installed.
    doubtful: BTreeSet<SaId>,
    /// Installed without a right to use them: to be replaced.
    rightless: Vec<SaId>,
    outputs: VecDeque<Output>,
    /// From the order to drain until the step-down: IKE rests, whatever it would do is refused.
    handing_over: bool,
    drain: Option<Drain>,
    /// What was discarded since it began, of each IKE SA from which version on.
    refused: BTreeMap<IkeSpi, u64>,
    barriers: u64,
    health: Health,
    drilled: Drill,
    /// Takeovers by this member since it started.
    takeovers: u64,
    /// What the driver of each port came to.
    port_modes: Vec<String>,
    last_scan: Instant,
    /// When this process started, for ages in `status`.
    started: Instant,
    skip: u64,
    /// Inherited IKE SAs wait for their turns, which has not been told to be over.
    gradual: bool,
    packet: Vec<u8>,
    counts: Counts,
    asked: Asked,
    foreign: Foreign,
    /// When a member joined last, while this one led.
    joined: Option<Instant>,
    late: Late,
    retrieval: Retrieval,
    blackouts: Blackouts,
    watching: Watching,
    /// What the workers have learned of the links' neighbours, for `show`.
    neighbours: Neighbours,
    next_hops: NextHops,
    beats: Beats,
    /// Where the cells of earlier leaderships stopped, if a simulator wants them used again.
    former: BTreeMap<SaId, SequenceNumber>,
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
        let policies = Spd::for_workers(Vec::new(), dataplane.len());
        let policies = Arc::new(policies.beside(&settings.routes_inside()));
        let ports = settings.config().ports.iter().enumerate();
        let next_hops = NextHops::new(ports.map(|(index, port)| (index, port.monitor.as_slice())));
        let routes = Arc::new(settings.fib());
        dataplane.broadcast(|| Command::Routes(Arc::clone(&routes)));
        let mut engine = Engine::new(settings.engine(incarnation));
        if settings.tuning().sk_iv_shared {
            engine.share_ivs();
        }
        let mut gateway = Gateway {
            engine,
            node: Node::new(settings.node(), durable, now),
            link: settings
                .link(incarnation)
                .map(|link| Link::new(link, now, entropy)),
            settings,
            dataplane,
            children: Children::default(),
            held: BTreeMap::new(),
            too_large: BTreeMap::new(),
            inherited: BTreeMap::new(),
            leaps: BTreeMap::new(),
            policies_changed: false,
            publication: Publication::default(),
            policies,
            doubtful: BTreeSet::new(),
            rightless: Vec::new(),
            outputs: VecDeque::new(),
            handing_over: false,
            drain: None,
            refused: BTreeMap::new(),
            barriers: 0,
            port_modes: Vec::new(),
            health: Health::default(),
            drilled: Drill::default(),
            takeovers: 0,
            last_scan: now,
            started: now,
            skip: 0,
            gradual: false,
            packet: Vec::new(),
            counts: Counts::default(),
            asked: Asked::default(),
            foreign: Foreign::default(),
            joined: None,
            late: Late::default(),
            retrieval: Retrieval::default(),
            blackouts: Blackouts::default(),
            watching: Watching::default(),
            neighbours: Neighbours::default(),
            next_hops,
            beats: Beats::default(),
            former: BTreeMap::new(),
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
            self.watch_next_hops(now);
            self.review_health(now, entropy);
            self.retrieval.tend(now);
            self.tend_drill(now, entropy);
            self.tend_watching(now);
        }
        if self.node.poll_timeout().is_some_and(|at| at <= now) {
            self.node.handle(now, entropy, SyncInput::Timeout);
        }
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.tell_ike(now, entropy, Input::Timeout);
        }
        if let Some(link) = &mut self.link {
            link.turn(now, entropy);
        }
        self.tend_late(now, entropy);
        let resumed = self.go_on(now, entropy);
        self.settle(now, entropy);
        // IKE does a share of what is due in each turn.
        let due = self.engine.poll_timeout().filter(|_| !self.handing_over);
        work + resumed + usize::from(due.is_some_and(|at| at <= now))
    }

    /// A datagram that arrived at the sync socket.
    pub fn sync_datagram(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        from: SocketAddr,
        datagram: &[u8],
    ) {
        let unchecked = self.settings.tuning().unchecked;
        assert!(!unchecked || datagram.len() >= HEADERS, "a planted bug");
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
        self.node.switchover_target(now).map_err(|reason| {
            match (reason, self.node.status(now).leader) {
                (NoSwitchover::NotLeading, Some(leader)) => {
                    format!("{reason}; ask member {leader}")
                }
                _ => reason.to_string(),
            }
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
        self.tell_ike(now, entropy, input);
        self.settle(now, entropy);
    }

    /// Every input of the engine goes this way: while this member hands over, each commit would be
    /// refused, and IKE would make it anew for ever.
    fn tell_ike(&mut self, now: Instant, entropy: &mut dyn Entropy, input: Input<'_>) {
        if !self.handing_over {
            self.engine.handle(now, entropy, input);
        }
    }

    /// What the time of day is at `now`: certificates are valid by it.
    pub fn set_time_of_day(&mut self, now: Instant, since_1970: std::time::Duration) {
        self.engine.set_time_of_day(now, since_1970);
    }

    /// The next output, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Whether this member carries the cluster's traffic.
    pub fn leading(&self) -> bool {
        self.dataplane.leading()
    }
}
