//! Late packets: after a planned switchover the network needs a moment to learn where the cluster's
//! addresses are. What still comes to the old active goes to the new one over the sync link, which
//! treats it as if it had come in by the same port: so a switchover loses no packet.
//!
//! ```text
//!  old active:  Drain -> workers label what comes -> here -> sync link     for `cluster.late` long
//!  new active:  sync link -> held here until its SAs are installed -> its workers
//! ```
//!
//! Very many SAs take longer than anybody forwards. So what waits has its own IKE SA gone on with at once,
//! and passes; and this member announces itself in the middle of that time at the latest.
//!
//! The same gate holds ESP whose SPI no worker knows, and packets that would leave as ESP, while the
//! SAs that this member inherits are being installed: hundreds take a moment, and nobody waits. The
//! switches bring both as soon as the first SAs are at work, or the first IKE message has left.
//!
//! Nothing is delivered twice by that: the new active's windows see ESP that came both ways, and a
//! switch gives any other packet to one member only.

use std::collections::VecDeque;
use std::time::Duration;

use hitless_dataplane::command::Command;
use hitless_dataplane::parcel::Parcel;
use hitless_sa::{Entropy, Instant, MemberId};
use hitless_sync::{Event as SyncEvent, Input as SyncInput};

use super::{Event, Gateway};
use crate::config::PortConfig;

/// Packets in one sync datagram, unless it is one long packet.
const DATAGRAM: usize = 1200;
/// Packets that the new active holds while its SAs are being installed, and how long at least.
const HELD: usize = 4096;
const INSTALL: Duration = Duration::from_millis(250);
/// The ends of the old one may take so long to come (`sync::switchover`).
const ENDS: Duration = Duration::from_secs(1);
/// Packets whose IKE SAs one turn goes on with: a few milliseconds of it.
const TRIED: usize = 64;
/// Packets that would leave are at most so many of them: what nobody has an SA for comes as well.
const DEPARTING: usize = HELD / 2;
/// The workers may take so long to install everything.
const GATE: Duration = Duration::from_secs(2);

/// How far a new active is with its SAs.
#[derive(Default)]
enum Gate {
    /// The workers have them, or there was nothing to wait for.
    #[default]
    Open,
    /// This member has just begun to lead: their commands are being given.
    Settling {
        /// It is over then, however often the policies have changed again. From when nothing is left to
        /// inherit.
        until: Option<Instant>,
    },
    /// The commands are followed by a barrier, which these workers have not passed.
    Barrier {
        number: u64,
        waiting: Vec<usize>,
        /// It opens then, whatever a worker does.
        until: Instant,
    },
}

/// See the module.
#[derive(Default)]
pub(super) struct Late {
    /// The new active, or who is about to be, and until when it gets what comes here: that is known once
    /// it leads, or might.
    to: Option<(MemberId, Option<Instant>)>,
    batch: Vec<Vec<u8>>,
    /// As the new active, or about to be: labelled packets of the old one, and when they came.
    held: VecDeque<(Instant, Vec<u8>)>,
    /// So many of them, the oldest, came before this member led: nothing was done for them yet.
    untried: usize,
    /// Since when it leads, if nothing has been announced.
    unannounced: Option<Instant>,
    gate: Gate,
    /// When it opened.
    opened: Option<Instant>,
    /// The end of this process waits for that of forwarding.
    stopped: bool,
    pub counts: LateCounts,
}

/// What became of late packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct LateCounts {
    /// As the old active.
    pub forwarded: u64,
    /// As the new one.
    pub taken: u64,
    /// Packets that came before their SA was installed.
    pub early: u64,
    /// They waited in vain, or too many did.
    pub expired: u64,
    /// Packets whose SA did not come.
    pub unknown: u64,
    /// Without a label of ours.
    pub malformed: u64,
}

impl Late {
    /// A worker has passed a barrier.
    pub fn passed(&mut self, worker: usize, barrier: u64) {
        if let Gate::Barrier {
            number, waiting, ..
        } = &mut self.gate
            && barrier >= *number
        {
            waiting.retain(|waiting| *waiting != worker);
        }
    }

    /// This member begins to lead; if it was handed the lead, it announces itself once it has
    /// everything, for until then nothing is lost.
    pub fn lead(&mut self, now: Instant, announce: bool) {
        self.to = None;
        self.batch.clear();
        self.untried = self.held.len();
        self.unannounced = announce.then_some(now);
        self.gate = Gate::Settling { until: None };
    }

    fn hold(&mut self, now: Instant, packet: Vec<u8>) {
        let departing = matches!(Parcel::parse(&packet), Some((Parcel::Departing, ..)));
        let room = if departing { DEPARTING } else { HELD };
        match self.held.len() < room {
            true => self.held.push_back((now, packet)),
            false => self.counts.expired += 1,
        }
    }

    /// Whether what came to the workers goes elsewhere.
    pub fn forwards(&self) -> bool {
        self.to.is_some()
    }
}

/// In a label between members: the packet came from the protected side. Behind it the place of its port
/// among [`networks`]. Whatever is wrong with that, what comes from outside is not taken for what comes
/// from within.
const PROTECTED: usize = 0x80;

/// The ports in an order that all members have, whatever that of their files and the names in it is: by
/// side, and by what networks are there (`Config::layout`).
fn networks(ports: &[PortConfig]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ports.len()).collect();
    order.sort_by_key(|port| ports.get(*port).map(PortConfig::place));
    order
}

impl Gateway {
    fn patience(&self) -> Duration {
        self.settings.config().cluster.late
    }

    /// Leadership goes off for a planned switchover.
    pub(super) fn stop_carrying(&mut self) {
        let successor = self.node.successor();
        let patience = self.patience();
        match successor.filter(|_| !patience.is_zero()) {
            Some(successor) => {
                self.late.to = Some((successor, None));
                self.dataplane.hand_over();
            }
            None => self.dataplane.set_leading(false),
        }
    }

    /// The other one leads: from now on it is to be found, and until then what comes here goes there.
    pub(super) fn handed_over(&mut self, now: Instant) {
        let until = now + self.patience();
        if let Some((_, ends)) = &mut self.late.to {
            *ends = Some(until);
        }
    }

    /// It goes on after all: what came to the workers meanwhile is theirs again.
    pub(super) fn take_back(&mut self, now: Instant) {
        self.late.to = None;
        self.late.batch.clear();
        if matches!(self.late.gate, Gate::Open) {
            self.late.opened = Some(now);
        }
        self.dataplane.set_leading(true);
    }

    /// This member has stepped down: unless it handed over, nothing is forwarded.
    pub(super) fn stop_forwarding(&mut self) {
        self.late.to = None;
        self.late.batch.clear();
        self.late.gate = Gate::Open;
        (self.late.untried, self.late.unannounced) = (0, None);
        self.dataplane.set_leading(false);
    }

    /// A packet that came to a worker of this member while it forwards.
    pub(super) fn forward_late(&mut self, now: Instant, entropy: &mut dyn Entropy, packet: &[u8]) {
        let (port, packet) = match Parcel::parse(packet) {
            Some((_, port, packet)) => (port, packet),
            // IKE that was punted just before; it is the same by whatever port it comes.
            None => (0, packet),
        };
        let ports = &self.settings.config().ports;
        let network = networks(ports).iter().position(|of| *of == port);
        let side = ports.get(port).filter(|port| port.protected);
        let side = side.map_or(0, |_| PROTECTED);
        let network = network.filter(|network| *network < PROTECTED);
        let Some(label) = network.and_then(|network| Parcel::Late.label(network | side)) else {
            self.late.counts.malformed += 1;
            return;
        };
        let labelled = [&label, packet].concat();
        let waiting: usize = self.late.batch.iter().map(Vec::len).sum();
        if waiting + labelled.len() > DATAGRAM {
            self.send_late(now, entropy);
        }
        self.late.batch.push(labelled);
    }

    fn send_late(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        let packets = std::mem::take(&mut self.late.batch);
        if let Some((to, _)) = self.late.to.filter(|_| !packets.is_empty()) {
            self.late.counts.forwarded += packets.len() as u64;
            let input = SyncInput::Late { to, packets };
            self.node.handle(now, entropy, input);
        }
    }

    /// A packet that a worker has no SA for.
    pub(super) fn take_early(&mut self, now: Instant, entropy: &mut dyn Entropy, packet: &[u8]) {
        let just_opened = self.late.opened.is_some_and(|at| now.since(at) < INSTALL);
        if !matches!(self.late.gate, Gate::Open) {
            self.late.counts.early += 1;
            if self.go_on_for(now, entropy, packet) {
                return self.dataplane.inject(packet.to_vec());
            }
            self.late.hold(now, packet.to_vec());
        } else if just_opened && self.dataplane.leading() {
            // It waited in the ring for longer than the gate was shut.
            self.late.counts.early += 1;
            self.dataplane.inject(packet.to_vec());
        } else {
            self.late.counts.unknown += 1;
        }
    }

    /// Packets that came late to the member that led before this one.
    pub(super) fn take_late(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        packets: Vec<Vec<u8>>,
    ) {
        let ports = &self.settings.config().ports;
        let networks = networks(ports);
        let sides: Vec<bool> = ports.iter().map(|port| port.protected).collect();
        for mut packet in packets {
            let late = Parcel::parse(&packet).filter(|(parcel, ..)| *parcel == Parcel::Late);
            let port = late.and_then(|(_, label, _)| {
                let port = networks.get(label & !PROTECTED)?;
                let protected = label & PROTECTED != 0;
                (*sides.get(*port)? == protected).then_some(*port)
            });
            let label = port.and_then(|port| Parcel::Late.label(port));
            match (label, packet.first_chunk_mut()) {
                (Some(label), Some(space)) => {
                    *space = label;
                    self.late.counts.taken += 1;
                    self.pass_or_hold(now, entropy, (now, packet));
                }
                _ => self.late.counts.malformed += 1,
            }
        }
        self.open_gate(now);
    }

    /// A packet for which the workers have its SA by now, as that one is gone on with first, is theirs.
    fn pass_or_hold(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        (came, packet): (Instant, Vec<u8>),
    ) {
        match self.dataplane.leading() && self.go_on_for(now, entropy, &packet) {
            true => self.dataplane.inject(packet),
            false => self.late.hold(came, packet),
        }
    }

    /// The same of those that came before this member led, some in each turn.
    fn try_held(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        let tried = self.late.untried.min(TRIED);
        self.late.untried -= tried;
        for _ in 0..tried {
            if let Some(held) = self.late.held.pop_front() {
                self.pass_or_hold(now, entropy, held);
            }
        }
    }

    /// Nobody forwards for ever: whoever looks for this member has to find it before.
    fn announce(&mut self) {
        // Whoever hands over in the midst of it pulls nothing back.
        if self.dataplane.leading() && self.late.unannounced.take().is_some() {
            self.dataplane.broadcast(|| Command::Announce);
        }
    }

    /// The commands of everything that this leadership begins with have been given.
    pub(super) fn settled(&mut self, now: Instant) {
        let published = self.published();
        if let Gate::Settling { until } = &mut self.late.gate
            && self.publication.left == 0
            && (published || now >= *until.get_or_insert(now + GATE))
        {
            self.barriers += 1;
            let number = self.barriers;
            self.dataplane.broadcast(|| Command::Barrier(number));
            self.late.gate = Gate::Barrier {
                number,
                waiting: (0..self.dataplane.len()).collect(),
                until: now + GATE,
            };
        }
    }

    /// Lets in what waits, once the workers have all SAs.
    fn open_gate(&mut self, now: Instant) {
        if let Gate::Barrier { waiting, until, .. } = &self.late.gate
            && (waiting.is_empty() || now >= *until)
        {
            self.late.gate = Gate::Open;
            self.late.opened = Some(now);
            self.dataplane.broadcast(|| Command::Strangers(false));
            self.announce();
        }
        if matches!(self.late.gate, Gate::Open) && self.dataplane.leading() {
            for (_, packet) in self.late.held.drain(..) {
                self.dataplane.inject(packet);
            }
        }
    }

    /// What is over by now.
    pub(super) fn tend_late(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.send_late(now, entropy);
        let patience = self.patience();
        let since = self.late.unannounced;
        if since.is_some_and(|since| now.since(since) >= patience / 2) {
            self.announce();
        }
        if self.dataplane.leading() {
            self.try_held(now, entropy);
        }
        self.open_gate(now);
        let ends = self.late.to.and_then(|(_, until)| until);
        if ends.is_some_and(|until| now >= until) {
            self.stop_forwarding();
        }
        if self.late.stopped && !self.late.forwards() {
            self.late.stopped = false;
            let event = Event::Sync(SyncEvent::Stopped);
            self.tell(event);
        }
        if matches!(self.late.gate, Gate::Settling { .. }) {
            return;
        }
        // Who is about to lead may wait for the ends of very many.
        let patience = match self.dataplane.leading() {
            true => patience.max(INSTALL),
            false => patience.max(INSTALL) + ENDS,
        };
        let held = self.late.held.len();
        let young = |(at, _): &(Instant, Vec<u8>)| now.since(*at) <= patience;
        self.late.held.retain(young);
        self.late.counts.expired += (held - self.late.held.len()) as u64;
    }

    /// Whether the end of this process waits until nothing is forwarded any more.
    pub(super) fn stops_later(&mut self, event: &SyncEvent) -> bool {
        let later = *event == SyncEvent::Stopped && self.late.forwards();
        self.late.stopped |= later;
        later
    }
}
