//! An established IKE SA: what it consists of, and the way of a message through it.
//!
//! The exchanges themselves are in rooms of their own: `create.rs` and `rekey.rs`
//! (CREATE_CHILD_SA), `inform.rs`, `counter_sync.rs` (RFC 6311) and `probe.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hitless_sa::{IkeSpi, Instant, MessageId, SaId, Spi};

use super::child::{ChildState, Installed};
use super::contents::Contents;
use super::counter_sync::{AnsweredSync, CounterSync};
use super::create::ChildOffer;
use super::crypto::sk::IvSource;
use super::keys::{IkeKeys, Side};
use super::message::{Delete, Exchange, Header, MessageError, Notify, NotifyKind, Payload};
use super::nat::{Nat, Path};
use super::output::{ChildChange, Event, Resume};
use super::probe::Probe;
use super::proposal::{Identification, IkeProposal};
use super::rekey::IkeOffer;
use super::settings::Connection;
use super::takeover::Facts;
use super::turn::{Effect, Turn};
use super::window::{Due, Sequence, Window};
use super::{child, counter_sync, create, inform, probe, rekey, takeover};

/// How long a replaced SA waits for the peer's Delete before we send one.
pub(super) const DELETE_GRACE: Duration = Duration::from_secs(30);

/// Something to ask of the peer, when the window allows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Task {
    CreateChild(String),
    RekeyChild(SaId),
    RekeyIke,
    DeleteChild(SaId),
    /// The peer made a Child SA that we could not use.
    DeleteSpi(Spi),
    DeleteIke,
    Liveness,
}

/// A task and the earliest time for it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Scheduled {
    pub at: Instant,
    pub task: Task,
}

/// The request that is outstanding, with all that is needed to use its response.
pub(super) enum Pending {
    CreateChild(ChildOffer),
    RekeyIke(IkeOffer),
    DeleteChildren(Vec<SaId>),
    DeleteIke,
    Liveness,
}

impl Pending {
    /// The task to do again when the request was given up.
    pub fn task(&self) -> Option<Task> {
        match self {
            Pending::CreateChild(offer) => Some(match offer.replaces {
                Some(old) => Task::RekeyChild(old),
                None => Task::CreateChild(offer.child.clone()),
            }),
            Pending::RekeyIke(_) => Some(Task::RekeyIke),
            Pending::DeleteChildren(ids) => ids.first().copied().map(Task::DeleteChild),
            Pending::DeleteIke => Some(Task::DeleteIke),
            Pending::Liveness => None,
        }
    }
}

/// Where an IKE SA stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Established,
    /// Another IKE SA has taken over its Child SAs; whoever initiated that deletes this one.
    Rekeyed {
        delete_at: Instant,
    },
    /// We asked the peer to delete it.
    Deleting,
    /// To be removed when the turn ends.
    Gone,
}

/// An established IKE SA.
pub(super) struct IkeSa {
    pub connection: Arc<Connection>,
    pub unique: u32,
    /// We sent the first message of the exchange that made it.
    pub initiator: bool,
    pub local_spi: IkeSpi,
    pub remote_spi: IkeSpi,
    pub proposal: IkeProposal,
    pub keys: IkeKeys,
    pub path: Path,
    pub nat: Nat,
    pub local_id: Identification,
    pub remote_id: Identification,
    /// Both sides asserted IKEV2_MESSAGE_ID_SYNC_SUPPORTED (R6, R7, RFC 6311 section 5).
    pub message_id_sync: bool,
    /// Both sides asserted IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED.
    pub replay_counter_sync: bool,
    pub window: Window,
    pub pending: Option<Pending>,
    pub queue: Vec<Scheduled>,
    pub sync: Option<CounterSync>,
    pub answered_sync: Option<AnsweredSync>,
    pub probe: Option<Probe>,
    /// The peer's next request may be ahead of what we recorded: take its Message ID once.
    pub accept_jump: bool,
    /// Another member led it before, and may have lived on for a while without our knowledge.
    pub inherited: bool,
    pub children: Vec<Installed>,
    pub state: State,
    pub established: Instant,
    /// Last authenticated sign of life.
    pub heard: Instant,
    pub rekey_at: Option<Instant>,
    pub version: u64,
    /// The IKE SA whose exchange made this one.
    pub predecessor: Option<IkeSpi>,
    /// IKE SAs that exchanges of this one made.
    pub successors: Vec<IkeSpi>,
    /// Deleted on demand: not to be started again.
    pub terminated: bool,
    /// The peer said that it has another one and only that (RFC 7296 section 2.4).
    pub superseded: bool,
    /// Made by the peer while we were rekeying the same IKE SA ourselves: it is not known yet
    /// whether this one inherits the Child SAs (RFC 7296 section 2.8.2).
    pub undecided: bool,
    /// Lost a simultaneous rekey: forgotten then, unless the peer deletes it first.
    pub forget_at: Option<Instant>,
}

impl IkeSa {
    pub fn facts(&self) -> Facts {
        Facts {
            message_id_sync: self.message_id_sync,
            replay_counter_sync: self.replay_counter_sync,
            combined_mode: self.proposal.integrity.is_none(),
        }
    }

    /// Header of a message of ours.
    pub fn header(&self, exchange: Exchange, response: bool, message_id: MessageId) -> Header {
        let (initiator_spi, responder_spi) = if self.initiator {
            (self.local_spi, self.remote_spi)
        } else {
            (self.remote_spi, self.local_spi)
        };
        Header {
            initiator_spi,
            responder_spi,
            exchange,
            initiator: self.initiator,
            response,
            message_id,
        }
    }

    /// Encrypts a message of ours; `None` when this process has no IV left.
    pub fn seal(
        &self,
        turn: &mut Turn<'_>,
        header: &Header,
        payloads: &[Payload],
    ) -> Option<Vec<u8>> {
        seal(&self.keys, turn, header, payloads)
    }

    /// Sends a request and makes it the outstanding one.
    pub fn request(
        &mut self,
        turn: &mut Turn<'_>,
        exchange: Exchange,
        payloads: &[Payload],
        pending: Pending,
    ) {
        let header = self.header(exchange, false, self.window.next_request);
        let Some(bytes) = self.seal(turn, &header, payloads) else {
            return;
        };
        self.window.request(turn.now, turn.backoff(), bytes.clone());
        self.pending = Some(pending);
        self.transmit(turn, bytes);
    }

    /// Sends with the record.
    pub fn transmit(&self, turn: &mut Turn<'_>, payload: Vec<u8>) {
        turn.transmits.push(self.path.transmit(payload));
        turn.dirty = true;
    }

    /// Puts a task in the queue, once.
    pub fn schedule(&mut self, at: Instant, task: Task) {
        if !self.queue.iter().any(|s| s.task == task) {
            self.queue.push(Scheduled { at, task });
        }
    }

    pub fn child(&self, id: SaId) -> Option<&Installed> {
        self.children.iter().find(|c| c.sa.id == id)
    }

    pub fn child_mut(&mut self, id: SaId) -> Option<&mut Installed> {
        self.children.iter_mut().find(|c| c.sa.id == id)
    }

    /// The child that the peer means by its inbound SPI.
    pub fn child_by_peer_spi(&self, spi: Spi) -> Option<SaId> {
        let found = self.children.iter().find(|c| c.sa.outbound_spi == spi);
        found.map(|c| c.sa.id)
    }

    /// Whether a Child SA of that name lives or is being made.
    pub fn serves(&self, child: &str) -> bool {
        let pending = match &self.pending {
            Some(Pending::CreateChild(offer)) => offer.child == child,
            _ => false,
        };
        let queued = self
            .queue
            .iter()
            .any(|s| matches!(&s.task, Task::CreateChild(name) if name == child));
        let lives = self
            .children
            .iter()
            .any(|c| c.name == child && c.state != ChildState::Deleting);
        pending || queued || lives
    }

    /// A message for this IKE SA. Nothing changes before its integrity is verified.
    pub fn receive(&mut self, turn: &mut Turn<'_>, path: Path, header: &Header, datagram: &[u8]) {
        if header.initiator == self.initiator {
            return turn.drop(path.remote, "reflected");
        }
        let opened = match open(&self.keys, header, datagram) {
            Ok(payloads) => Ok(payloads),
            Err(error) => match refusal(&error) {
                Some(notify) if !header.response => Err(notify),
                _ => return turn.drop(path.remote, error.reason()),
            },
        };
        match opened {
            Ok(payloads) if header.response => self.response(turn, path, header, &payloads),
            Ok(payloads) => self.incoming_request(turn, path, header, datagram, Ok(payloads)),
            Err(notify) => self.incoming_request(turn, path, header, datagram, Err(notify)),
        }
    }

    fn incoming_request(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        header: &Header,
        datagram: &[u8],
        payloads: Result<Vec<Payload>, Notify>,
    ) {
        if let Ok(payloads) = &payloads
            && counter_sync::is_request(header, payloads)
        {
            return counter_sync::answer(self, turn, path, datagram, payloads);
        }
        // R38, RFC 6311 section 8.1: nothing else until the synchronisation is complete.
        if self.sync.is_some() {
            return turn.drop(path.remote, "synchronising");
        }
        if self.accept_jump && header.message_id > self.window.expected {
            self.window.expected = header.message_id;
        }
        if header.message_id > self.window.expected {
            // It had answers that are not in our record.
            takeover::doubt(self, turn);
        }
        match self.window.sequence(header.message_id) {
            Sequence::New => {}
            Sequence::Repeated => {
                if let Some(response) = &self.window.response {
                    let payload = response.bytes.clone();
                    turn.immediate.push(path.transmit(payload));
                }
                return;
            }
            Sequence::Old => return turn.drop(path.remote, "message ID below the window"),
            Sequence::Ahead => return turn.drop(path.remote, "message ID above the window"),
        }
        if self.undecided && !payloads.as_ref().is_ok_and(|p| deletes_ike(p)) {
            // The peer knows more than we do and asks again; by then we know too.
            return turn.drop(path.remote, "rekeying is not decided");
        }
        self.accept_jump = false;
        self.alive(turn, path);
        let answer = match payloads {
            Ok(payloads) => self.process(turn, header, &payloads),
            Err(notify) => vec![Payload::Notify(notify)],
        };
        // RFC 7296 section 2.11: to where the request came from.
        let reply = self.header(header.exchange, true, header.message_id);
        let Some(bytes) = self.seal(turn, &reply, &answer) else {
            return;
        };
        self.window.answered(header.message_id, bytes.clone());
        turn.transmits.push(path.transmit(bytes));
        turn.dirty = true;
        self.advance(turn);
    }

    fn process(
        &mut self,
        turn: &mut Turn<'_>,
        header: &Header,
        payloads: &[Payload],
    ) -> Vec<Payload> {
        let contents = Contents::of(payloads);
        if let Some(size) = contents.window_size() {
            self.window.peer_window = size;
        }
        match header.exchange {
            Exchange::Informational => inform::answer(self, turn, &contents),
            Exchange::CreateChildSa if contents.rekeys_ike() => {
                rekey::answer(self, turn, &contents)
            }
            Exchange::CreateChildSa => create::answer(self, turn, &contents),
            _ => vec![Payload::notify(NotifyKind::INVALID_SYNTAX, &[])],
        }
    }

    fn response(&mut self, turn: &mut Turn<'_>, path: Path, header: &Header, payloads: &[Payload]) {
        if self.sync.is_some() {
            return counter_sync::complete(self, turn, path, header, payloads);
        }
        if self.probe.is_some() && probe::complete(self, turn, path, header) {
            return;
        }
        if !self.window.confirm(header.message_id) {
            return turn.drop(path.remote, "unexpected response");
        }
        self.alive(turn, path);
        turn.dirty = true;
        let contents = Contents::of(payloads);
        match self.pending.take() {
            Some(Pending::CreateChild(offer)) => create::complete(self, turn, offer, &contents),
            Some(Pending::RekeyIke(offer)) => rekey::complete(self, turn, offer, &contents),
            Some(Pending::DeleteChildren(ids)) => {
                for id in ids {
                    child::remove(self, turn, id);
                }
            }
            Some(Pending::DeleteIke) => self.destroy(turn, "deleted by us"),
            Some(Pending::Liveness) | None => turn.events.push(Event::LivenessConfirmed {
                ike: self.local_spi,
            }),
        }
        self.advance(turn);
    }

    /// An authenticated message that is not a repetition: the peer lives, and perhaps moved.
    pub fn alive(&mut self, turn: &mut Turn<'_>, path: Path) {
        self.heard = turn.now;
        // RFC 7296 section 2.23: follow a peer behind NAT; whoever is itself behind one does not.
        if self.nat.remote && !self.nat.local {
            self.moved(turn, path.remote);
        }
    }

    /// The peer's NAT mapping changed.
    pub fn moved(&mut self, turn: &mut Turn<'_>, remote: SocketAddr) {
        if self.path.remote == remote {
            return;
        }
        self.path.remote = remote;
        turn.dirty = true;
        let (path, nat) = (self.path, self.nat);
        for child in &mut self.children {
            let mut sa = (*child.sa).clone();
            sa.remote = remote.ip();
            sa.encapsulation = nat.encapsulation(path);
            child.sa = Arc::new(sa);
            turn.changes.push(ChildChange::Update(child.sa.clone()));
        }
    }

    /// Whether a request may be sent now.
    fn is_free(&self) -> bool {
        self.pending.is_none()
            && self.window.outstanding.is_none()
            && self.sync.is_none()
            && self.probe.is_none()
            && !self.undecided
    }

    /// Starts what is due while the window is free.
    pub fn advance(&mut self, turn: &mut Turn<'_>) {
        while self.is_free() && self.state != State::Gone {
            let due = self.queue.iter().position(|s| s.at <= turn.now);
            let Some(scheduled) = due.map(|position| self.queue.remove(position)) else {
                break;
            };
            turn.dirty = true;
            let busy = self.state != State::Established;
            match scheduled.task {
                Task::DeleteIke => inform::delete_ike(self, turn),
                _ if busy => {}
                Task::CreateChild(name) => create::request(self, turn, &name, None, None),
                Task::RekeyChild(id) => create::rekey(self, turn, id),
                Task::RekeyIke => rekey::request(self, turn, None),
                Task::DeleteChild(id) => inform::delete_child(self, turn, id),
                Task::DeleteSpi(spi) => inform::delete_spi(self, turn, spi),
                Task::Liveness => {
                    self.request(turn, Exchange::Informational, &[], Pending::Liveness);
                }
            }
        }
    }

    /// Timers.
    pub fn tick(&mut self, turn: &mut Turn<'_>) {
        counter_sync::tick(self, turn);
        probe::tick(self, turn);
        match self.window.due(turn.now, turn.backoff()) {
            Due::Nothing => {}
            Due::Resend(bytes) => {
                turn.immediate.push(self.path.transmit(bytes));
                if self.window.transmissions() > takeover::PATIENCE {
                    takeover::doubt(self, turn);
                }
            }
            Due::Dead => return self.destroy(turn, "no answer"),
        }
        if self.forget_at.is_some_and(|at| at <= turn.now) {
            return self.destroy(turn, "redundant");
        }
        if let State::Rekeyed { delete_at } = self.state
            && delete_at <= turn.now
        {
            self.state = State::Rekeyed {
                delete_at: turn.now + DELETE_GRACE,
            };
            self.schedule(turn.now, Task::DeleteIke);
        }
        if self.state == State::Established {
            self.lifetimes(turn);
        }
        self.advance(turn);
    }

    fn lifetimes(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        if self.rekey_at.is_some_and(|at| at <= now) {
            self.rekey_at = None;
            self.schedule(now, Task::RekeyIke);
        }
        let mut tasks = Vec::new();
        for child in &mut self.children {
            if child.rekey_at.is_some_and(|at| at <= now) {
                child.rekey_at = None;
                tasks.push(match child.state {
                    ChildState::Installed => Task::RekeyChild(child.sa.id),
                    // Replaced, and the peer that should have deleted it did not.
                    _ => Task::DeleteChild(child.sa.id),
                });
            }
        }
        for task in tasks {
            self.schedule(now, task);
        }
        if self.liveness_at().is_some_and(|at| at <= now) {
            self.schedule(now, Task::Liveness);
        }
    }

    fn liveness_at(&self) -> Option<Instant> {
        let delay = self.connection.dpd_delay;
        let idle = self.pending.is_none() && self.queue.is_empty();
        (!delay.is_zero() && idle && self.state == State::Established).then(|| self.heard + delay)
    }

    /// When `tick` is needed next.
    pub fn deadline(&self) -> Option<Instant> {
        let established = self.state == State::Established;
        let free = self.is_free();
        let delete_at = match self.state {
            State::Rekeyed { delete_at } => Some(delete_at),
            _ => None,
        };
        let children = self.children.iter().filter_map(|c| c.rekey_at).min();
        let queued = self.queue.iter().map(|s| s.at).min();
        [
            self.window.deadline(),
            self.sync.as_ref().map(|s| s.resend_at),
            self.probe.as_ref().and_then(|p| p.deadline()),
            self.forget_at,
            delete_at,
            self.rekey_at.filter(|_| established),
            children.filter(|_| established),
            queued.filter(|_| free),
            self.liveness_at().filter(|_| free),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Ends the IKE SA and its Child SAs here and now.
    pub fn destroy(&mut self, turn: &mut Turn<'_>, reason: &str) {
        if let Some(Pending::RekeyIke(offer)) = &self.pending
            && let Some(theirs) = &offer.collision
        {
            // Our own rekeying is over, the peer's succeeded.
            let to = theirs.ike;
            self.pending = None;
            rekey::inherit(self, turn, to);
        }
        while let Some(id) = self.children.first().map(|c| c.sa.id) {
            child::remove(self, turn, id);
        }
        // What was still being made is lost with it.
        let pending = self.pending.take().and_then(|p| p.task());
        let queued = std::mem::take(&mut self.queue);
        for task in pending
            .into_iter()
            .chain(queued.into_iter().map(|s| s.task))
        {
            if let Task::CreateChild(name) = task {
                turn.effects.push(Effect::Lost(name));
            }
        }
        self.window.outstanding = None;
        self.sync = None;
        self.probe = None;
        self.state = State::Gone;
        turn.dirty = true;
        turn.events.push(Event::IkeDeleted {
            ike: self.local_spi,
            connection: self.connection.name.clone(),
            reason: reason.to_owned(),
        });
    }

    /// What an effect of another IKE SA's turn left to do.
    pub fn affected(&mut self, turn: &mut Turn<'_>) {
        turn.dirty = true;
        if self.superseded {
            self.terminated = true;
            return self.destroy(turn, "replaced by INITIAL_CONTACT");
        }
        self.advance(turn);
    }

    /// Goes on with an IKE SA that another member led.
    pub fn resume(&mut self, turn: &mut Turn<'_>, how: Resume) {
        turn.dirty = true;
        self.inherited = true;
        for child in &self.children {
            turn.changes.push(ChildChange::Install {
                child: child.sa.clone(),
                connection: self.connection.name.clone(),
                name: child.name.clone(),
                send: child.sending,
            });
        }
        self.window.restart(turn.now);
        self.resynchronise(turn, how);
        self.tick(turn);
    }

    /// Finds out where the peer stands.
    pub fn resynchronise(&mut self, turn: &mut Turn<'_>, how: Resume) {
        match how {
            Resume::Exact => {}
            Resume::MessageIdSync { replay_delta } => {
                counter_sync::start(self, turn, replay_delta);
            }
            Resume::Probe => {
                self.sync = None;
                self.accept_jump = true;
                self.probe.get_or_insert_with(|| Probe::new(turn.now));
            }
            Resume::Rekey => self.replace_children(turn),
        }
    }

    /// Asks the peer for a successor of every Child SA, or learns that it has one no more.
    pub fn replace_children(&mut self, turn: &Turn<'_>) {
        for id in self.children.iter().map(|c| c.sa.id).collect::<Vec<_>>() {
            self.schedule(turn.now, Task::RekeyChild(id));
        }
    }

    /// Gives up the outstanding request; its task is done anew.
    pub fn abandon(&mut self, turn: &mut Turn<'_>) {
        self.window.outstanding = None;
        if let Some(task) = self.pending.take().and_then(|p| p.task()) {
            self.queue.insert(0, Scheduled { at: turn.now, task });
        }
    }
}

/// Encrypts; the IV is unique to this member, its life and the message (R17 of the lease rules).
pub(super) fn seal(
    keys: &IkeKeys,
    turn: &mut Turn<'_>,
    header: &Header,
    payloads: &[Payload],
) -> Option<Vec<u8>> {
    let keys = keys.sk_keys(Side::of_initiator(header.initiator)).ok()?;
    let unique = turn.ids.iv()?;
    let iv = IvSource {
        unique,
        entropy: turn.entropy,
    };
    Some(keys.seal(header, payloads, iv))
}

/// Verifies and decrypts a message of the peer.
pub(super) fn open(
    keys: &IkeKeys,
    header: &Header,
    datagram: &[u8],
) -> Result<Vec<Payload>, MessageError> {
    let keys = keys.sk_keys(Side::of_initiator(header.initiator));
    keys.map_err(|_| MessageError::NotProtected)?.open(datagram)
}

/// What an IKE SA is born with.
pub(super) struct Birth {
    pub connection: Arc<Connection>,
    pub initiator: bool,
    pub local_spi: IkeSpi,
    pub remote_spi: IkeSpi,
    pub proposal: IkeProposal,
    pub keys: IkeKeys,
    pub path: Path,
    pub nat: Nat,
    pub local_id: Identification,
    pub remote_id: Identification,
    pub message_id_sync: bool,
    pub replay_counter_sync: bool,
    pub window: Window,
}

impl IkeSa {
    /// A new IKE SA, just established.
    pub fn new(turn: &mut Turn<'_>, birth: Birth) -> IkeSa {
        let rekey_at = turn.lifetime(birth.connection.rekey_time);
        IkeSa::with(birth, turn.ids.unique(), turn.now, rekey_at)
    }

    /// An IKE SA with nothing going on.
    pub fn with(birth: Birth, unique: u32, now: Instant, rekey_at: Option<Instant>) -> IkeSa {
        IkeSa {
            connection: birth.connection,
            unique,
            initiator: birth.initiator,
            local_spi: birth.local_spi,
            remote_spi: birth.remote_spi,
            proposal: birth.proposal,
            keys: birth.keys,
            path: birth.path,
            nat: birth.nat,
            local_id: birth.local_id,
            remote_id: birth.remote_id,
            message_id_sync: birth.message_id_sync,
            replay_counter_sync: birth.replay_counter_sync,
            window: birth.window,
            pending: None,
            queue: Vec::new(),
            sync: None,
            answered_sync: None,
            probe: None,
            accept_jump: false,
            inherited: false,
            children: Vec::new(),
            state: State::Established,
            established: now,
            heard: now,
            rekey_at,
            version: 0,
            predecessor: None,
            successors: Vec::new(),
            terminated: false,
            superseded: false,
            undecided: false,
            forget_at: None,
        }
    }

    /// A successor is being asked for.
    pub fn is_rekeying(&self) -> bool {
        matches!(self.pending, Some(Pending::RekeyIke(_)))
    }
}

fn deletes_ike(payloads: &[Payload]) -> bool {
    payloads.contains(&Payload::Delete(Delete::Ike))
}

/// The notification that an authenticated but unusable request is answered with
/// (RFC 7296 sections 2.5 and 2.21.3).
fn refusal(error: &MessageError) -> Option<Notify> {
    let kind = error.notify()?;
    let data = match error {
        MessageError::UnsupportedCritical(kind) => vec![kind.0],
        _ => Vec::new(),
    };
    Some(Notify::new(kind, &data))
}
