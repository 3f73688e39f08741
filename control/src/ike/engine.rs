//! The engine: every IKE SA of a member, by our SPI, and what moves between them.
//!
//! A new engine stands by: it keeps what `store` gives it and drops datagrams. `lead` makes it the
//! active member's, with the stored IKE SAs, and starts the children that are to be started.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hitless_sa::{ChildSa, Entropy, IkeSpi, Instant, MessageId, SaId, Spi};

use super::auth::TimeOfDay;
use crate::allowance::Allowance;
use crate::keylog::KeyLines;

use super::child::{self, Installed};
use super::cookie::Cookies;
use super::counter_sync;
use super::crowd::Crowd;
use super::due;
use super::established::{DELETE_GRACE, IkeSa, State};
use super::export::{self, ImportError, Imported};
use super::fragments;
use super::governor::Governor;
use super::graves::Graves;
use super::index::Index;
use super::initial::{HalfOpen, Initiators};
use super::meant::Meant;
use super::message::Exchange;
use super::mobike;
use super::nat::Path;
use super::output::{ChildChange, Commit, Event, Output, Resume};
use super::reload;
use super::resume::Held;
use super::resuming::Resuming;
use super::sessions::crash::Shown;
use super::settings::{Connection, EngineSettings};
use super::starts::Starts;
use super::status::{self, IkeSaStatus};
use super::takeover::{Facts, Questions};
use super::tasks::{Scheduled, Task};
use super::timers::Timers;
use super::turn::{Effect, Ids, Results, Turn};
use super::work;

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
    /// `--terminate --child`: delete a Child SA; it is not started again.
    TerminateChild(SaId),
    RekeyIke(IkeSpi),
    RekeyChild(SaId),
    /// After a takeover with exact Message IDs: ask the peer to skip what counts as seen (RFC 6311
    /// section 5 case 2). Ignored if the peer cannot, or a request is outstanding.
    ReplayCounterSync {
        ike: IkeSpi,
        delta: u64,
    },
    /// This end of an IKE SA has another address now (RFC 4555).
    Relocate {
        ike: IkeSpi,
        local: IpAddr,
    },
    /// Send a client to another gateway (RFC 5685 section 5).
    Redirect {
        ike: IkeSpi,
        to: IpAddr,
    },
    /// Ask the peer for a sign of life.
    Liveness(IkeSpi),
    /// Authenticated inbound ESP was seen on this Child SA.
    Traffic {
        sa: SaId,
    },
    /// What this Child SA has carried since it was made, under every leader, in the direction that
    /// carried more: it may have to be replaced for that.
    Carried {
        sa: SaId,
        bytes: u64,
        packets: u64,
    },
    /// The peer there sends on an SPI of this cluster that nobody here knows: a former leader made a
    /// Child SA with it and told nobody.
    UnknownSpi {
        source: IpAddr,
        spi: Spi,
    },
    /// Authenticated ESP came from another address or port (RFC 7296 section 2.23).
    ChildPeerMoved {
        sa: SaId,
        remote: SocketAddr,
    },
}

/// IKE for one group of members.
pub struct Engine {
    pub(super) settings: EngineSettings,
    /// In the order of the configuration.
    pub(super) connections: Vec<Arc<Connection>>,
    pub(super) by_name: BTreeMap<String, Arc<Connection>>,
    pub(super) meant: Meant,
    pub(super) ids: Ids,
    pub(super) leading: bool,
    /// Another member may lead beside this one.
    pub(super) replicated: bool,
    pub(super) sas: BTreeMap<IkeSpi, Box<IkeSa>>,
    pub(super) passive: BTreeMap<IkeSpi, Box<IkeSa>>,
    pub(super) resuming: Resuming,
    pub(super) governor: Governor,
    pub(super) initiators: Initiators,
    pub(super) half_open: HalfOpen,
    pub(super) crowd: Crowd,
    pub(super) graves: Graves,
    pub(super) foreign: Questions,
    /// Successors that were discarded at the takeover, with the version of that: the repeated
    /// exchange makes them again, and versions rise.
    pub(super) discarded: BTreeMap<IkeSpi, u64>,
    pub(super) index: Index,
    pub(super) cookies: Cookies,
    pub(super) starts: Starts,
    pub(super) tokens: Shown,
    pub(super) hints: Shown,
    /// For errors that are told in clear.
    pub(super) refusals: Allowance,
    /// For the connections whose IKE SA was lost.
    pub(super) tickets: BTreeMap<String, Box<Held>>,
    pub(super) timers: Timers<IkeSpi>,
    /// What orders have taken since the last timeout, in microseconds.
    pub(super) ordered: u64,
    pub(super) outputs: VecDeque<Output>,
}

impl Engine {
    pub fn new(settings: EngineSettings) -> Engine {
        let connections: Vec<Arc<Connection>> =
            settings.connections.iter().cloned().map(Arc::new).collect();
        let by_name = connections
            .iter()
            .map(|c| (c.name.clone(), c.clone()))
            .collect();
        Engine {
            by_name,
            meant: Meant::new(&connections),
            connections,
            ids: Ids::new(
                settings.member,
                settings.incarnation,
                settings.pools.clone(),
            ),
            settings,
            leading: false,
            replicated: false,
            sas: BTreeMap::new(),
            passive: BTreeMap::new(),
            resuming: Resuming::default(),
            governor: Governor::default(),
            initiators: Initiators::default(),
            half_open: HalfOpen::default(),
            crowd: Crowd::new(),
            graves: Graves::default(),
            foreign: Questions::default(),
            discarded: BTreeMap::new(),
            index: Index::default(),
            cookies: Cookies::new(),
            starts: Starts::new(),
            tokens: Shown::default(),
            hints: Shown::default(),
            refusals: Allowance::default(),
            tickets: BTreeMap::new(),
            timers: Timers::new(),
            ordered: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Breaks R17 of the lease rules, for a simulator that is to notice it.
    pub(crate) fn share_ivs(&mut self) {
        self.ids.share_ivs();
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
                self.initiate_in_turn(now, entropy, connection, child);
            }
            Input::Terminate { ike } => self.terminate(now, entropy, ike),
            Input::TerminateChild(sa) => self.order_of_child(now, entropy, sa, |ike| {
                ike.close_child(now, sa, false);
            }),
            Input::RekeyIke(ike) => self.task(now, entropy, ike, Task::RekeyIke),
            Input::RekeyChild(sa) => self.rekey_child(now, entropy, sa),
            Input::ReplayCounterSync { ike, delta } => {
                self.with(now, entropy, ike, |ike, turn| match ike.owed {
                    Some(_) => ike.need(),
                    None => counter_sync::replay_only(ike, turn, delta),
                })
            }
            Input::Relocate { ike, local } => self.with(now, entropy, ike, |ike, turn| {
                mobike::move_to(ike, turn, local);
                ike.advance(turn);
            }),
            Input::Redirect { ike, to } => self.task(now, entropy, ike, Task::Redirect(to)),
            Input::Liveness(ike) => self.task(now, entropy, ike, Task::Liveness),
            Input::Traffic { sa } => self.with_child(now, entropy, sa, |ike, turn| {
                ike.heard = turn.now;
                child::send_on(ike, turn, sa);
            }),
            Input::Carried { sa, bytes, packets } => {
                self.carried(now, entropy, sa, (bytes, packets));
            }
            Input::UnknownSpi { source, spi } => self.unknown_spi(now, entropy, source, spi),
            Input::ChildPeerMoved { sa, remote } => {
                self.with_child(now, entropy, sa, |ike, turn| {
                    if ike.nat.remote && !ike.nat.local {
                        ike.moved(turn, remote);
                    }
                });
            }
        }
    }

    /// What the time of day is at `now`: certificates are valid by it.
    pub fn set_time_of_day(&mut self, now: Instant, since_1970: Duration) {
        self.settings.time_of_day = TimeOfDay::new(now, since_1970);
    }

    /// The next output, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        let mut output = self.outputs.pop_front()?;
        match &mut output {
            Output::Commit(commit) => {
                let transmits = std::mem::take(&mut commit.transmits);
                commit.transmits = transmits.into_iter().flat_map(fragments::split).collect();
            }
            Output::Transmit(transmit) | Output::Retransmit { transmit, .. } => {
                let first = fragments::datagrams(&transmit.payload)
                    .next()
                    .map(<[u8]>::len);
                let length = first.unwrap_or_default();
                if length < transmit.payload.len() {
                    let mut rest = transmit.clone();
                    rest.payload.drain(..length);
                    transmit.payload.truncate(length);
                    let rest = match &output {
                        Output::Retransmit { ike, version, .. } => Output::Retransmit {
                            ike: *ike,
                            version: *version,
                            transmit: rest,
                        },
                        _ => Output::Transmit(rest),
                    };
                    self.outputs.push_front(rest);
                }
            }
            Output::Event(_) => {}
        }
        Some(output)
    }

    /// When `Input::Timeout` is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.leading {
            return None;
        }
        let due = [
            self.timers.first(),
            self.starts.first(),
            self.graves.first(),
            self.governor.first(&self.settings.limits),
        ];
        due.into_iter().flatten().min()
    }

    /// Keeps the record of an IKE SA that another member leads, in place of an older one.
    pub fn store(
        &mut self,
        now: Instant,
        ike: IkeSpi,
        version: u64,
        body: &[u8],
    ) -> Result<(), ImportError> {
        let imported = export::import(now, &self.by_name, &mut self.ids, version, body)?;
        let named = match &imported {
            Imported::IkeSa(sa) => sa.local_spi,
            Imported::Grave(spi, _) => *spi,
        };
        if named != ike {
            return Err(ImportError::OtherIkeSa(named));
        }
        self.forget(ike);
        match imported {
            Imported::IkeSa(sa) => self.keep(sa),
            // One that had to make room here makes room at the leader too.
            Imported::Grave(_, grave) => {
                self.graves.insert(ike, grave);
            }
        }
        Ok(())
    }

    /// Forgets a stored IKE SA.
    pub fn forget(&mut self, ike: IkeSpi) {
        self.drop_kept(ike);
        self.graves.remove(ike);
    }

    /// Leads: every stored IKE SA becomes ours, resumed as `plan` says.
    pub fn lead(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        plan: &mut dyn FnMut(IkeSpi) -> Resume,
    ) {
        for spi in self.passive.keys().copied().collect::<Vec<_>>() {
            self.plan(spi, plan(spi));
        }
        self.lead_planned(now, entropy, false);
    }

    /// Starts the children that are to be started.
    pub(super) fn start_all(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        let children = self.connections.iter().flat_map(|connection| {
            let started = connection.children.iter().filter(|c| c.start);
            started.map(|child| (connection.name.clone(), child.name.clone()))
        });
        for (connection, child) in children.collect::<Vec<_>>() {
            self.starts.at(connection, child, now);
        }
        self.start_children(now, entropy);
    }

    /// Nothing more is asked of the peer but what ends something, and after the way back that follows
    /// nothing more is given to it: there is no room for more.
    pub fn want_no_more(&mut self, ike: IkeSpi) {
        if let Some(sa) = self.sas.get_mut(&ike) {
            sa.want_no_more();
        }
    }

    /// Goes back to the state that was released last, or to none: what came after `version` and
    /// before was never sent, and a silent standby may have its secrets (`lease-holes` D0). The
    /// exchange is made anew, with fresh ones, when the peer repeats its request or our timer asks; what
    /// we wanted of the peer we still want.
    pub fn roll_back(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        ike: IkeSpi,
        version: u64,
        released: Option<&[u8]>,
    ) -> Result<(), ImportError> {
        let undone = self.sas.remove(&ike);
        let connection = undone.as_ref().map(|undone| undone.connection.clone());
        let promised = undone.as_ref().map(|undone| undone.promised(now));
        let back = self.replace_undone(now, entropy, ike, version, undone, released);
        // Nobody asks for these again: not the peer, for which they are there.
        if let Some((connection, children)) = connection.zip(promised) {
            for child in children {
                if !self.serves(&connection.name, &child, |_| true) {
                    self.lost(now, &connection.name, &child);
                }
            }
        }
        back
    }

    fn replace_undone(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        ike: IkeSpi,
        version: u64,
        undone: Option<Box<IkeSa>>,
        released: Option<&[u8]>,
    ) -> Result<(), ImportError> {
        let inherited = undone.as_ref().is_some_and(|undone| undone.inherited);
        let synchronised = undone.as_ref().is_some_and(|undone| undone.synchronised);
        let full = undone.as_ref().is_some_and(|undone| undone.full.is_some());
        let wanted = undone.as_ref().map(|undone| undone.wants(now));
        let terminated = undone.as_ref().is_some_and(|undone| undone.terminated);
        if let Some(undone) = undone {
            self.index.remove(&undone);
            self.ids.leases.release(&undone);
            for pending in undone.pending.values() {
                pending.release(&mut self.ids);
            }
            for child in &undone.children {
                if self.index.of_child(child.sa.id) == Some(ike) {
                    self.index.remove_child(child.sa.id);
                }
            }
        }
        self.timers.set(ike, None);
        self.governor.forget(ike);
        self.graves.remove(ike);
        let Some(body) = released else { return Ok(()) };
        let mut imported = match export::import(now, &self.by_name, &mut self.ids, version, body)? {
            Imported::IkeSa(sa) => sa,
            Imported::Grave(..) => return Err(ImportError::Field("state")),
        };
        (imported.inherited, imported.synchronised) = (inherited, synchronised);
        imported.full = full.then_some(imported.children.len());
        imported.terminated |= terminated;
        imported.want(wanted.unwrap_or_default());
        for child in &imported.children {
            self.index.insert_child(child.sa.id, ike);
        }
        self.sas.insert(ike, imported);
        self.with(now, entropy, ike, |ike, turn| {
            turn.dirty = true;
            // Where the record has an address that is ours no more.
            mobike::took_over(ike, turn);
            // A reload since then may be in none.
            let connection = ike.connection.clone();
            reload::hold_to(ike, turn, Some(&connection));
        });
        Ok(())
    }

    /// Leads no more: another member does. All state and all outputs are dropped.
    pub fn step_down(&mut self) {
        self.leading = false;
        self.sas.clear();
        self.initiators.clear();
        self.half_open.clear();
        self.graves.clear();
        self.discarded.clear();
        self.tickets.clear();
        self.index = Index::default();
        self.resuming = Resuming::default();
        self.governor = Governor::default();
        self.ids.leases.clear();
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

    /// The keys of an IKE SA for Wireshark, if this member leads it.
    pub fn key_lines(&self, ike: IkeSpi) -> Option<KeyLines> {
        let sa = self.sas.get(&ike)?;
        let header = sa.header(Exchange::Informational, false, MessageId(0));
        let (initiator, responder) = (header.initiator_spi, header.responder_spi);
        Some(KeyLines::of_ike(initiator, responder, &sa.keys))
    }

    /// The IKE SA that carries a Child SA, if this member leads it.
    pub fn ike_of(&self, sa: SaId) -> Option<IkeSpi> {
        self.index.of_child(sa)
    }

    /// The Child SAs of an IKE SA, stored or led.
    pub fn children(&self, ike: IkeSpi) -> Vec<SaId> {
        let sa = self.find(ike);
        sa.map_or_else(Vec::new, |sa| sa.children.iter().map(|c| c.sa.id).collect())
    }

    /// The same, with their keys.
    pub fn child_sas(&self, ike: IkeSpi) -> Vec<Arc<ChildSa>> {
        let sa = self.find(ike);
        sa.map_or_else(Vec::new, |sa| {
            sa.children.iter().map(|c| c.sa.clone()).collect()
        })
    }

    pub(super) fn find(&self, ike: IkeSpi) -> Option<&IkeSa> {
        let kept = || self.passive.get(&ike);
        self.sas.get(&ike).or_else(kept).map(|ike| &**ike)
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

    /// One of them.
    pub fn status_of(&self, now: Instant, ike: IkeSpi) -> Option<IkeSaStatus> {
        let of = |sas: &BTreeMap<IkeSpi, Box<IkeSa>>, passive| {
            let sa = sas.get(&ike)?;
            Some(status::established(sa, now, passive))
        };
        let connecting = || self.initiators.get(&ike).map(status::connecting);
        let known = of(&self.sas, false).or_else(|| of(&self.passive, true));
        known.or_else(connecting)
    }

    /// The names of all, the oldest first.
    pub fn by_age(&self) -> Vec<(u32, IkeSpi)> {
        let known = self.sas.values().chain(self.passive.values());
        let known = known.map(|sa| (sa.unique, sa.local_spi));
        let connecting = self.initiators.spis().map(|ike| (0, ike));
        let mut all: Vec<_> = known.chain(connecting).collect();
        all.sort_by_key(|(unique, _)| *unique);
        all
    }

    /// How many that are.
    pub fn count(&self) -> usize {
        self.sas.len() + self.passive.len() + self.initiators.len()
    }

    pub(super) fn with_child(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        sa: SaId,
        action: impl FnOnce(&mut IkeSa, &mut Turn<'_>),
    ) {
        if let Some(ike) = self.index.of_child(sa) {
            self.with(now, entropy, ike, action);
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
        self.go_on_with(now, entropy, spi);
        let Some(mut ike) = self.sas.remove(&spi) else {
            return;
        };
        work::count(work::MESSAGE);
        let crowded = !self.gives_successor(&ike);
        let mut turn = Turn::new(now, entropy, &self.settings, &mut self.ids);
        turn.dirty = std::mem::take(&mut ike.ordered);
        turn.crowded = crowded;
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
        mut ike: Box<IkeSa>,
        mut results: Results,
    ) {
        let (mut others, mut unused) = (Vec::new(), None);
        for effect in std::mem::take(&mut results.effects) {
            if let Effect::Reauthenticate(children) = effect {
                self.reauthenticate(now, entropy, &ike, children);
                continue;
            }
            if let Effect::Redirected(to, children) = effect {
                self.redirected(now, entropy, &ike, to, children);
                continue;
            }
            if let Effect::Recall(heir) = effect {
                unused = self.recall(now, entropy, &mut ike, heir);
                continue;
            }
            others.extend(self.apply(now, &ike, effect, &mut results.changes));
        }
        others.sort_unstable();
        others.dedup();
        for other in others {
            self.with(now, entropy, other, |ike, turn| ike.affected(turn));
        }
        self.commit(ike, results);
        // Behind that, or the Child SAs would go with it.
        if let Some(unused) = unused {
            self.forget_unused(now, entropy, unused);
        }
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
            Effect::Created(mut successor) => {
                let spi = successor.local_spi;
                successor.version = self.discarded.remove(&spi).unwrap_or(0);
                self.sas.insert(spi, successor);
                vec![spi]
            }
            Effect::Inherit {
                to,
                owed,
                children,
                queue,
            } => {
                if let Some(successor) = self.sas.get_mut(&to) {
                    successor.inherit_owed(owed);
                }
                self.inherit(now, ike, to, children, queue, changes)
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
                // Where a rekeying left a successor nothing is lost.
                let succeeded = ike.children.iter().any(|other| other.name == child);
                match succeeded {
                    _ if ike.terminated && !ike.replaced => {}
                    true => self.lost_one(now, ike, &child),
                    false => self.lost(now, &ike.connection.name, &child),
                }
                Vec::new()
            }
            Effect::InitialContact => self.supersede(ike, |_| true),
            Effect::Resumed(old) => self.resumed(ike, old),
            Effect::Resumable(connection, held) => {
                self.tickets.insert(connection, held);
                Vec::new()
            }
            Effect::Replace => self.replace(now, ike),
            // `settle` has done it.
            Effect::Reauthenticate(_) | Effect::Redirected(..) | Effect::Recall(_) => Vec::new(),
        }
    }

    /// Moves Child SAs and tasks to the IKE SA that succeeds theirs.
    fn inherit(
        &mut self,
        now: Instant,
        ike: &IkeSa,
        to: IkeSpi,
        children: Vec<Installed>,
        queue: Vec<Scheduled>,
        changes: &mut Vec<ChildChange>,
    ) -> Vec<IkeSpi> {
        let replaced = self.still_replaces(ike, to);
        let Some(successor) = self.sas.get_mut(&to) else {
            // Deleted by the peer meanwhile: nobody carries them on.
            changes.extend(children.iter().map(|c| ChildChange::Remove(c.sa.id)));
            for child in &children {
                self.ids.release(child.sa.inbound_spi);
            }
            let closed = |child: &Installed| ike.terminated || child.stays_closed();
            for child in children.iter().filter(|child| !closed(child)) {
                self.lost(now, &ike.connection.name, &child.name);
            }
            return Vec::new();
        };
        for child in &children {
            self.index.insert_child(child.sa.id, to);
        }
        successor.undecided = false;
        successor.forget_at = None;
        if let Some(mobike) = &ike.mobike {
            // It may have moved since the successor was made.
            let newest = successor.mobike.as_ref().map(|mobike| mobike.newest);
            successor.mobike = Some(mobike.handed_on(newest.unwrap_or_default()));
            (successor.path, successor.nat) = (ike.path, ike.nat);
            successor.proven = ike.proven;
        }
        successor.children.extend(children);
        successor.queue.extend(queue);
        if ike.terminated {
            // Whoever asked for its end did not mean to be outrun by a rekeying.
            successor.terminated = true;
            successor.schedule(now, Task::DeleteIke);
        }
        replaced.into_iter().chain([to]).collect()
    }

    /// The commit of one IKE SA, with what goes along.
    fn commit(&mut self, mut ike: Box<IkeSa>, results: Results) {
        let spi = ike.local_spi;
        let gone = ike.state == State::Gone;
        if results.dirty {
            ike.version += 1;
        }
        let version = ike.version;
        for change in &results.changes {
            match change {
                ChildChange::Install { child, .. } => {
                    self.index.insert_child(child.id, spi);
                }
                ChildChange::Remove(id) => {
                    self.index.remove_child(*id);
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
        self.governor.note(results.now, &ike);
        let deadline = ike.deadline().filter(|_| !gone);
        self.timers.set(spi, due::again(results.now, deadline));
        if gone {
            self.index.remove(&ike);
            self.ids.leases.release(&ike);
        } else {
            self.index.insert(&ike);
            self.ids.leases.hold(&ike);
            self.sas.insert(spi, ike);
        }
    }
}
