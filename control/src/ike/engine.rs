//! The engine: every IKE SA of a member, by our SPI, and what moves between them.
//!
//! A new engine stands by: it keeps what `store` gives it and drops datagrams. `lead` makes it the
//! active member's, with the stored IKE SAs, and starts the children that are to be started.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use hitless_sa::{Entropy, IkeSpi, Instant, SaId};

use super::child;
use super::cookie::Cookies;
use super::established::{DELETE_GRACE, IkeSa, State, Task};
use super::export::{self, ImportError};
use super::initial::{Initiator, Responder};
use super::nat::Path;
use super::output::{ChildChange, Commit, Event, Output, Resume, Transmit};
use super::settings::{Connection, EngineSettings};
use super::starts::Starts;
use super::status::{self, IkeSaStatus};
use super::takeover::Facts;
use super::timers::Timers;
use super::turn::{Effect, Ids, Results, Turn};

/// What the engine is told.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A UDP datagram, without non-ESP marker.
    Datagram {
        local: SocketAddr,
        remote: SocketAddr,
        payload: &'a [u8],
    },
    /// The time of `poll_timeout` has come.
    Timeout,
    /// `--initiate`: a child of a connection, or its first one.
    Initiate {
        connection: String,
        child: Option<String>,
    },
    /// `--terminate`: delete an IKE SA; it is not started again.
    Terminate {
        ike: IkeSpi,
    },
    RekeyIke(IkeSpi),
    RekeyChild(SaId),
    /// Ask the peer for a sign of life.
    Liveness(IkeSpi),
    /// Authenticated inbound ESP was seen on this Child SA.
    Traffic {
        sa: SaId,
    },
    /// Authenticated ESP came from another address or port (RFC 7296 section 2.23).
    ChildPeerMoved {
        sa: SaId,
        remote: SocketAddr,
    },
}

/// A response that ended an IKE SA, for the peer whose copy of it was lost.
pub(super) struct Grave {
    pub request: Vec<u8>,
    pub version: u64,
    pub response: Transmit,
}

/// IKE for one group of members.
pub struct Engine {
    pub(super) settings: EngineSettings,
    pub(super) connections: Vec<Arc<Connection>>,
    pub(super) ids: Ids,
    pub(super) leading: bool,
    pub(super) sas: BTreeMap<IkeSpi, IkeSa>,
    pub(super) passive: BTreeMap<IkeSpi, IkeSa>,
    pub(super) initiators: BTreeMap<IkeSpi, Initiator>,
    pub(super) responders: BTreeMap<IkeSpi, Responder>,
    /// Half-open IKE SAs by what an IKE_SA_INIT request names.
    pub(super) half_open: BTreeMap<(SocketAddr, IkeSpi), IkeSpi>,
    pub(super) graves: BTreeMap<IkeSpi, Grave>,
    pub(super) children: BTreeMap<SaId, IkeSpi>,
    pub(super) cookies: Cookies,
    pub(super) starts: Starts,
    pub(super) timers: Timers<IkeSpi>,
    pub(super) outputs: VecDeque<Output>,
}

impl Engine {
    pub fn new(settings: EngineSettings) -> Engine {
        let connections = settings.connections.iter().cloned().map(Arc::new).collect();
        Engine {
            connections,
            ids: Ids::new(settings.member, settings.incarnation),
            settings,
            leading: false,
            sas: BTreeMap::new(),
            passive: BTreeMap::new(),
            initiators: BTreeMap::new(),
            responders: BTreeMap::new(),
            half_open: BTreeMap::new(),
            graves: BTreeMap::new(),
            children: BTreeMap::new(),
            cookies: Cookies::new(),
            starts: Starts::new(),
            timers: Timers::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Handles one input; drain `poll_output` afterwards.
    pub fn handle(&mut self, now: Instant, entropy: &mut dyn Entropy, input: Input<'_>) {
        match input {
            Input::Datagram {
                local,
                remote,
                payload,
            } => self.datagram(now, entropy, Path { local, remote }, payload),
            Input::Timeout => self.timeout(now, entropy),
            Input::Initiate { connection, child } => {
                self.initiate(now, entropy, &connection, child);
            }
            Input::Terminate { ike } => self.terminate(now, entropy, ike),
            Input::RekeyIke(ike) => self.task(now, entropy, ike, Task::RekeyIke),
            Input::RekeyChild(sa) => self.rekey_child(now, entropy, sa),
            Input::Liveness(ike) => self.task(now, entropy, ike, Task::Liveness),
            Input::Traffic { sa } => self.with_child(now, entropy, sa, |ike, turn| {
                ike.heard = turn.now;
                child::send_on(ike, turn, sa);
            }),
            Input::ChildPeerMoved { sa, remote } => {
                self.with_child(now, entropy, sa, |ike, turn| {
                    if ike.nat.remote && !ike.nat.local {
                        ike.moved(turn, remote);
                    }
                });
            }
        }
    }

    /// The next output, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `Input::Timeout` is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.leading {
            return None;
        }
        [self.timers.first(), self.starts.first()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Keeps the record of an IKE SA that another member leads, in place of an older one.
    pub fn store(
        &mut self,
        now: Instant,
        ike: IkeSpi,
        version: u64,
        body: &[u8],
    ) -> Result<(), ImportError> {
        let mut imported = export::import(now, &self.connections, &mut self.ids, body)?;
        if imported.local_spi != ike {
            return Err(ImportError::OtherIkeSa(imported.local_spi));
        }
        imported.version = version;
        self.passive.insert(ike, imported);
        Ok(())
    }

    /// Forgets a stored IKE SA.
    pub fn forget(&mut self, ike: IkeSpi) {
        self.passive.remove(&ike);
    }

    /// Leads: every stored IKE SA becomes ours, resumed as `plan` says.
    pub fn lead(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        plan: &mut dyn FnMut(IkeSpi) -> Resume,
    ) {
        self.leading = true;
        let (kept, unborn) = export::reconcile(std::mem::take(&mut self.passive));
        for ike in kept {
            let spi = ike.local_spi;
            self.sas.insert(spi, ike);
            let resume = plan(spi);
            self.with(now, entropy, spi, |ike, turn| ike.resume(turn, resume));
        }
        // After its predecessor has been recorded with the Child SAs: the standbys forget it too,
        // for without the predecessor they would take it for a finished one later.
        for ike in unborn {
            self.outputs.push_back(Output::Commit(Commit {
                ike: ike.local_spi,
                version: ike.version + 1,
                record: None,
                transmits: Vec::new(),
                changes: Vec::new(),
            }));
        }
        let children = self.connections.iter().flat_map(|connection| {
            let started = connection.children.iter().filter(|c| c.start);
            started.map(|child| (connection.name.clone(), child.name.clone()))
        });
        for (connection, child) in children.collect::<Vec<_>>() {
            self.starts.at(connection, child, now);
        }
        self.start_children(now, entropy);
    }

    /// Goes back to the state that was released last, or to none: what came after `version` and
    /// before was never sent, and a silent standby may have its secrets (`lease-holes` D0). The
    /// exchange is made anew, with fresh ones, when the peer repeats its request or our timer asks.
    pub fn roll_back(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        ike: IkeSpi,
        version: u64,
        released: Option<&[u8]>,
    ) -> Result<(), ImportError> {
        let inherited = self.sas.remove(&ike).is_some_and(|sa| sa.inherited);
        self.timers.set(ike, None);
        self.children.retain(|_, owner| *owner != ike);
        let Some(body) = released else { return Ok(()) };
        let mut imported = export::import(now, &self.connections, &mut self.ids, body)?;
        imported.version = version;
        imported.inherited = inherited;
        for child in &imported.children {
            self.children.insert(child.sa.id, ike);
        }
        self.sas.insert(ike, imported);
        self.with(now, entropy, ike, |_, turn| turn.dirty = true);
        Ok(())
    }

    /// Leads no more: another member does. All state and all outputs are dropped.
    pub fn step_down(&mut self) {
        self.leading = false;
        self.sas.clear();
        self.initiators.clear();
        self.responders.clear();
        self.half_open.clear();
        self.graves.clear();
        self.children.clear();
        self.starts = Starts::new();
        self.timers.clear();
        self.outputs.clear();
    }

    /// What is known of an IKE SA that decides how to resume it, stored or led.
    pub fn facts(&self, ike: IkeSpi) -> Option<Facts> {
        self.find(ike).map(IkeSa::facts)
    }

    /// The connection of an IKE SA, stored or led.
    pub fn connection(&self, ike: IkeSpi) -> Option<&Connection> {
        self.find(ike).map(|sa| &*sa.connection)
    }

    /// The Child SAs of an IKE SA, stored or led.
    pub fn children(&self, ike: IkeSpi) -> Vec<SaId> {
        let sa = self.find(ike);
        sa.map_or_else(Vec::new, |sa| sa.children.iter().map(|c| c.sa.id).collect())
    }

    fn find(&self, ike: IkeSpi) -> Option<&IkeSa> {
        self.sas.get(&ike).or_else(|| self.passive.get(&ike))
    }

    /// Every IKE SA, for `list-sas`.
    pub fn status(&self, now: Instant) -> Vec<IkeSaStatus> {
        let active = self
            .sas
            .values()
            .map(|sa| status::established(sa, now, false));
        let passive = self
            .passive
            .values()
            .map(|sa| status::established(sa, now, true));
        let connecting = self.initiators.values().map(status::connecting);
        active.chain(passive).chain(connecting).collect()
    }

    fn timeout(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        for spi in self.timers.due(now) {
            if self.sas.contains_key(&spi) {
                self.with(now, entropy, spi, |ike, turn| ike.tick(turn));
            } else {
                self.half_open_timeout(now, entropy, spi);
            }
        }
        self.start_children(now, entropy);
    }

    fn task(&mut self, now: Instant, entropy: &mut dyn Entropy, ike: IkeSpi, task: Task) {
        self.with(now, entropy, ike, |ike, turn| {
            ike.schedule(turn.now, task);
            ike.advance(turn);
        });
    }

    fn terminate(&mut self, now: Instant, entropy: &mut dyn Entropy, ike: IkeSpi) {
        self.remove_initiator(ike);
        self.with(now, entropy, ike, |ike, turn| {
            ike.terminated = true;
            ike.schedule(turn.now, Task::DeleteIke);
            ike.advance(turn);
        });
    }

    fn rekey_child(&mut self, now: Instant, entropy: &mut dyn Entropy, sa: SaId) {
        self.with_child(now, entropy, sa, |ike, turn| {
            ike.schedule(turn.now, Task::RekeyChild(sa));
            ike.advance(turn);
        });
    }

    fn with_child(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        sa: SaId,
        action: impl FnOnce(&mut IkeSa, &mut Turn<'_>),
    ) {
        if let Some(ike) = self.children.get(&sa) {
            self.with(now, entropy, *ike, action);
        }
    }

    /// One input to one IKE SA, and everything that follows from it.
    pub(super) fn with(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        spi: IkeSpi,
        action: impl FnOnce(&mut IkeSa, &mut Turn<'_>),
    ) {
        let Some(mut ike) = self.sas.remove(&spi) else {
            return;
        };
        let mut turn = Turn::new(now, entropy, &self.settings, &mut self.ids);
        action(&mut ike, &mut turn);
        let results = turn.finish();
        self.settle(now, entropy, ike, results);
    }

    /// Lets a turn take effect: first on other IKE SAs, so that a successor is recorded before the
    /// message that makes the peer use it is released; then as the commit of this one.
    pub(super) fn settle(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        ike: IkeSa,
        mut results: Results,
    ) {
        let mut others = Vec::new();
        for effect in std::mem::take(&mut results.effects) {
            others.extend(self.apply(now, &ike, effect, &mut results.changes));
        }
        others.sort_unstable();
        others.dedup();
        for other in others {
            self.with(now, entropy, other, |ike, turn| ike.affected(turn));
        }
        self.commit(ike, results);
    }

    /// Applies an effect; gives the other IKE SA that it changed.
    fn apply(
        &mut self,
        now: Instant,
        ike: &IkeSa,
        effect: Effect,
        changes: &mut Vec<ChildChange>,
    ) -> Vec<IkeSpi> {
        match effect {
            Effect::Created(successor) => {
                let spi = successor.local_spi;
                self.sas.insert(spi, *successor);
                vec![spi]
            }
            Effect::Inherit {
                to,
                children,
                queue,
            } => {
                let Some(successor) = self.sas.get_mut(&to) else {
                    // Deleted by the peer meanwhile: nobody carries them on.
                    changes.extend(children.iter().map(|c| ChildChange::Remove(c.sa.id)));
                    for child in children {
                        self.lost(now, &ike.connection.name, &child.name);
                    }
                    return Vec::new();
                };
                for child in &children {
                    self.children.insert(child.sa.id, to);
                }
                successor.undecided = false;
                successor.children.extend(children);
                successor.queue.extend(queue);
                vec![to]
            }
            Effect::Redundant(spi) => {
                if let Some(redundant) = self.sas.get_mut(&spi) {
                    redundant.forget_at = Some(now + DELETE_GRACE);
                }
                vec![spi]
            }
            Effect::Delete(spi) => {
                if let Some(redundant) = self.sas.get_mut(&spi) {
                    redundant.schedule(now, Task::DeleteIke);
                }
                vec![spi]
            }
            Effect::Lost(child) => {
                if !ike.terminated {
                    self.lost(now, &ike.connection.name, &child);
                }
                Vec::new()
            }
            Effect::InitialContact => {
                // RFC 7296 section 2.4: the other IKE SAs with this peer are dead.
                let same = |other: &&IkeSa| {
                    other.local_id == ike.local_id
                        && other.remote_id == ike.remote_id
                        && other.local_spi != ike.local_spi
                };
                let dead: Vec<IkeSpi> = self
                    .sas
                    .values()
                    .filter(same)
                    .map(|sa| sa.local_spi)
                    .collect();
                for spi in &dead {
                    if let Some(sa) = self.sas.get_mut(spi) {
                        sa.superseded = true;
                    }
                }
                dead
            }
        }
    }

    /// The commit of one IKE SA, with what goes along.
    fn commit(&mut self, mut ike: IkeSa, results: Results) {
        let spi = ike.local_spi;
        let gone = ike.state == State::Gone;
        if results.dirty {
            ike.version += 1;
        }
        let version = ike.version;
        for change in &results.changes {
            match change {
                ChildChange::Install { child, .. } => {
                    self.children.insert(child.id, spi);
                }
                ChildChange::Remove(id) => {
                    self.children.remove(id);
                }
                ChildChange::Send(_) | ChildChange::Update(_) => {}
            }
        }
        if results.dirty {
            self.outputs.push_back(Output::Commit(Commit {
                ike: spi,
                version,
                record: (!gone).then(|| export::export(&ike, results.now)),
                transmits: results.transmits,
                changes: results.changes,
            }));
        }
        for event in &results.events {
            if let Event::ChildEstablished { child, .. } = event {
                self.starts.succeeded(&ike.connection.name, child);
            }
        }
        let retransmits = results
            .immediate
            .into_iter()
            .map(|transmit| Output::Retransmit {
                ike: spi,
                version,
                transmit,
            });
        self.outputs.extend(retransmits);
        self.outputs
            .extend(results.events.into_iter().map(Output::Event));
        self.timers.set(spi, ike.deadline().filter(|_| !gone));
        if !gone {
            self.sas.insert(spi, ike);
        }
    }
}
