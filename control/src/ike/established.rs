//! An established IKE SA: what it consists of, its beginning, takeover and end.
//!
//! Messages go through it in `receive.rs`, its duties are in `tasks.rs`, and each exchange has a
//! room of its own: `create.rs` and `rekey.rs` (CREATE_CHILD_SA), `inform.rs`, `counter_sync.rs`
//! (RFC 6311) and `probe.rs`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hitless_sa::{ChildSa, IkeSpi, Instant, MessageId, SaId, Spi};
use zeroize::Zeroizing;

use super::auth::Authenticated;
use super::child::Installed;
use super::counter_sync::{AnsweredSync, CounterSync};
use super::crypto::Opened;
use super::followup::HalfMade;
use super::fragments::{self, Fragmenting, Reassembly};
use super::governor::Owed;
use super::keys::{IkeKeys, Side};
use super::message::{Exchange, Header, MessageError, Payload, emit_payloads, first_kind};
use super::mobike::{self, Mobike};
use super::nat::{Nat, Path};
use super::output::{ChildChange, Event, Resume};
use super::probe::Probe;
use super::proposal::{Identification, IkeProposal};
use super::purpose::Purpose;
use super::rekey::IkeOffer;
use super::sessions::{SessionState, lifetimes};
use super::settings::Connection;
use super::takeover::Facts;
use super::tasks::{Pending, Scheduled, Task};
use super::turn::{Effect, Turn};
use super::unanswered::Unanswered;
use super::virtual_ip::Internal;
use super::window::Window;
use super::{child, counter_sync, followup, rekey, reload};

/// How long a replaced SA waits for the peer's Delete before we send one.
pub(super) const DELETE_GRACE: Duration = Duration::from_secs(30);

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
    /// Between whom that says, or said, that it is.
    pub purpose: Option<Purpose>,
    /// At which addresses of ours the peer was told, or is about to be.
    pub addressed: Option<Purpose>,
    pub unique: u32,
    /// We sent the first message of the exchange that made it.
    pub initiator: bool,
    pub local_spi: IkeSpi,
    pub remote_spi: IkeSpi,
    pub proposal: IkeProposal,
    pub keys: IkeKeys,
    pub path: Path,
    /// Where the peer has shown that it receives what we send: what `dynamic` stands for. The address of
    /// a message shows nothing.
    pub proven: IpAddr,
    pub nat: Nat,
    pub local_id: Identification,
    pub remote_id: Identification,
    /// Both sides asserted IKEV2_MESSAGE_ID_SYNC_SUPPORTED (R6, R7, RFC 6311 section 5).
    pub message_id_sync: bool,
    /// Both sides asserted IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED.
    pub replay_counter_sync: bool,
    /// Virtual addresses, given or taken.
    pub addresses: Internal,
    pub mobike: Option<Mobike>,
    /// The digest of where the peer sees us behind a NAT, as it said last.
    pub mapping: Option<Vec<u8>>,
    pub fragmenting: Fragmenting,
    /// Parts of messages that have not arrived in full.
    pub reassembly: Reassembly,
    /// What the peer is making with several key exchanges.
    pub half_made: Vec<HalfMade>,
    pub window: Window,
    /// What each outstanding request is for.
    pub pending: BTreeMap<MessageId, Pending>,
    pub queue: Vec<Scheduled>,
    pub sync: Option<CounterSync>,
    pub answered_sync: Option<AnsweredSync>,
    pub probe: Option<Probe>,
    /// The peer has not been asked yet where it stands (`governor.rs`).
    pub owed: Option<Owed>,
    /// The peer's next request may be ahead of what we recorded: take its Message ID once.
    pub accept_jump: bool,
    /// Another member led it before, and may have lived on for a while without our knowledge.
    pub inherited: bool,
    /// This leadership has synchronised Message IDs. Not in the record: whoever takes over may.
    pub synchronised: bool,
    /// No record has room for more Child SAs than so many. Not in the record: whoever takes over finds
    /// out what fits by its own limits.
    pub full: Option<usize>,
    /// Another member led it, and this one has not gone on with it yet.
    pub waiting: bool,
    /// What that one had asked is repeated first.
    pub unanswered: Option<Unanswered>,
    /// It did: SPIs of this cluster on which the peer sends and that are not in our record.
    pub foreign: Vec<Spi>,
    /// How often its Message IDs were doubted in this leadership.
    pub doubts: u8,
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
    /// Something was asked of it that its record does not show yet.
    pub ordered: bool,
    /// The operator gave its connection other addresses: it has to move, or to say so.
    pub readdressed: bool,
    /// The peer said that it has another one and only that (RFC 7296 section 2.4).
    pub superseded: bool,
    /// Another one of its connection is in its place, and no operator wished for that: its children are
    /// wanted as before.
    pub replaced: bool,
    /// Made by the peer while we were rekeying the same IKE SA ourselves: it is not known yet
    /// whether this one inherits the Child SAs (RFC 7296 section 2.8.2).
    pub undecided: bool,
    /// Lost a simultaneous rekey: forgotten then, unless the peer deletes it first.
    pub forget_at: Option<Instant>,
    /// How the peer proved who it is, and when it has to again.
    pub authenticated: Authenticated,
    /// What outlives it, and bounds it.
    pub session: SessionState,
    /// The peer began it, and can be sent to another gateway (RFC 5685).
    pub redirectable: bool,
    /// The gateway that the peer sent us to.
    pub redirected_to: Option<IpAddr>,
}

impl IkeSa {
    pub fn facts(&self) -> Facts {
        Facts {
            message_id_sync: self.message_id_sync,
            replay_counter_sync: self.synchronises_replay(),
            combined_mode: self.proposal.integrity.is_none(),
        }
    }

    /// The IKE SA whose IKE_AUTH this one came of, by our SPI: this one, or an ancestor.
    pub fn origin(&self) -> IkeSpi {
        self.session.origin.unwrap_or(self.local_spi)
    }

    /// Who the peer is to policy: the user who logged in with EAP, else the IKE identity.
    pub fn peer(&self) -> &Identification {
        let user = self.authenticated.proven.user.as_ref();
        user.unwrap_or(&self.remote_id)
    }

    /// SPIs of the original initiator and responder.
    pub fn spis(&self) -> (IkeSpi, IkeSpi) {
        match self.initiator {
            true => (self.local_spi, self.remote_spi),
            false => (self.remote_spi, self.local_spi),
        }
    }

    /// Header of a message of ours.
    pub fn header(&self, exchange: Exchange, response: bool, message_id: MessageId) -> Header {
        let (initiator_spi, responder_spi) = self.spis();
        Header {
            initiator_spi,
            responder_spi,
            exchange,
            initiator: self.initiator,
            response,
            message_id,
        }
    }

    /// Encrypts a message of ours; `None` when there is no IV left.
    pub fn seal(
        &self,
        turn: &mut Turn<'_>,
        header: &Header,
        payloads: &[Payload],
    ) -> Option<Vec<u8>> {
        let limit = self.fragmenting.limit(self.path);
        seal(&self.keys, turn, header, payloads, limit)
    }

    /// Sends a request, as soon as the peer's window allows, and makes it an outstanding one.
    pub fn request(
        &mut self,
        turn: &mut Turn<'_>,
        exchange: Exchange,
        payloads: &[Payload],
        pending: Pending,
    ) {
        let id = self.window.next_request;
        let header = self.header(exchange, false, id);
        let mut payloads = payloads.to_vec();
        payloads.extend(self.window.announce());
        let Some(bytes) = self.seal(turn, &header, &payloads) else {
            return;
        };
        self.pending.insert(id, pending);
        turn.dirty = true;
        if self.window.request(turn.now, turn.backoff(), bytes.clone()) {
            self.transmit(turn, bytes);
        }
    }

    /// Sends with the record.
    pub fn transmit(&self, turn: &mut Turn<'_>, payload: Vec<u8>) {
        turn.transmits.push(self.path.transmit(payload));
        turn.dirty = true;
    }

    pub fn child(&self, id: SaId) -> Option<&Installed> {
        self.children.iter().find(|c| c.sa.id == id)
    }

    pub fn child_mut(&mut self, id: SaId) -> Option<&mut Installed> {
        self.children.iter_mut().find(|c| c.sa.id == id)
    }

    /// The names of its children, each once.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.children.iter().map(|c| c.name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The child that the peer means by its inbound SPI.
    pub fn child_by_peer_spi(&self, spi: Spi) -> Option<SaId> {
        let found = self.children.iter().find(|c| c.sa.outbound_spi == spi);
        found.map(|c| c.sa.id)
    }

    /// Ends the IKE SA and its Child SAs here and now.
    pub fn destroy(&mut self, turn: &mut Turn<'_>, reason: &str) {
        if let Some(theirs) = self.rekeying().and_then(|offer| offer.collision.as_ref()) {
            // Our own rekeying is over, the peer's succeeded.
            let to = theirs.ike;
            rekey::inherit(self, turn, to);
            self.forget_asked(turn);
        }
        // What was still being made is lost with it, also in place of one that is not there any more.
        let lost = self.missing();
        while let Some(id) = self.children.first().map(|c| c.sa.id) {
            child::remove(self, turn, id);
        }
        turn.effects.extend(lost.into_iter().map(Effect::Lost));
        self.forget_asked(turn);
        for scheduled in self.queue.drain(..) {
            if let Task::DeleteSpi(spi) = scheduled.task {
                turn.ids.release(spi);
            }
        }
        followup::discard(self, turn);
        self.window.outstanding.clear();
        self.sync = None;
        self.probe = None;
        self.owed = None;
        self.unanswered = None;
        self.state = State::Gone;
        turn.dirty = true;
        turn.events.push(Event::IkeDeleted {
            ike: self.local_spi,
            connection: self.connection.name.clone(),
            reason: reason.to_owned(),
        });
    }

    /// The new one may lack some of its children. One of another connection does not count: each would
    /// begin anew what the other one ends.
    pub fn is_replaced_by(&mut self, other: &IkeSa) {
        self.replaced |= other.connection.name == self.connection.name;
    }

    fn forget_asked(&mut self, turn: &mut Turn<'_>) {
        for pending in std::mem::take(&mut self.pending).into_values() {
            pending.release(turn.ids);
        }
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

    /// Goes on with an IKE SA that another member led; `at_once` if the peer may be asked now. Our
    /// file has this connection for it.
    pub fn resume(
        &mut self,
        turn: &mut Turn<'_>,
        (how, at_once): (Resume, bool),
        connection: Option<&Arc<Connection>>,
    ) {
        turn.dirty = true;
        (self.inherited, self.synchronised) = (true, false);
        self.answered();
        self.doubts = 0;
        let recorded: Vec<Arc<ChildSa>> = self.children.iter().map(|c| c.sa.clone()).collect();
        mobike::took_over(self, turn);
        // Installed as the record has it, for that is what the policies were made of; it moves then.
        let moved = std::mem::take(&mut turn.changes);
        for (child, recorded) in self.children.iter().zip(recorded) {
            turn.changes.push(ChildChange::Install {
                child: recorded,
                connection: self.connection.name.clone(),
                name: child.name.clone(),
                send: child.sending,
            });
        }
        turn.changes.extend(moved);
        self.window.restart(turn.now);
        self.owe(turn, how, at_once);
        if let Some(to) = self.redirected_to
            && self.state == State::Established
        {
            // What the other member had begun with the new gateway ended with it.
            self.move_on(turn, to);
        }
        // Whoever led it may have had another file.
        reload::hold_to(self, turn, connection);
        self.tick(turn);
    }

    /// The peer has answered a request: our Message IDs are those that it expects.
    pub fn answered(&mut self) {
        self.foreign.clear();
    }

    /// Finds out where the peer stands.
    pub fn resynchronise(&mut self, turn: &mut Turn<'_>, how: Resume) {
        match how {
            Resume::Exact => {}
            Resume::MessageIdSync { replay_delta } => {
                counter_sync::start(self, turn, replay_delta);
            }
            // What a synchronisation declared, the peer may hold us to: it goes on.
            Resume::Probe if self.sync.is_some() => counter_sync::start(self, turn, None),
            Resume::Probe => {
                self.accept_jump = true;
                self.probe.get_or_insert_with(|| Probe::new(turn.now));
            }
            Resume::Rekey => self.replace_children(turn),
        }
    }

    /// Whether a synchronisation or probes are under way.
    pub fn is_finding_out(&self) -> bool {
        self.sync.is_some() || self.probe.is_some()
    }

    /// Asks the peer for a successor of every Child SA, or learns that it has one no more.
    pub fn replace_children(&mut self, turn: &Turn<'_>) {
        for id in self.children.iter().map(|c| c.sa.id).collect::<Vec<_>>() {
            self.schedule(turn.now, Task::RekeyChild(id));
        }
    }
}

/// Encrypts, in fragments if the message would be longer than `limit`; every IV is unique to this
/// member, its life and the datagram (R17 of the lease rules).
pub(super) fn seal(
    keys: &IkeKeys,
    turn: &mut Turn<'_>,
    header: &Header,
    payloads: &[Payload],
    limit: Option<usize>,
) -> Option<Vec<u8>> {
    let keys = keys.sk_keys(Side::of_initiator(header.initiator)).ok()?;
    let content = Zeroizing::new(emit_payloads(payloads));
    fragments::seal(&keys, turn, header, (first_kind(payloads), &content), limit)
}

/// Verifies and decrypts a datagram of the peer.
pub(super) fn open(
    keys: &IkeKeys,
    header: &Header,
    datagram: &[u8],
) -> Result<Opened, MessageError> {
    let keys = keys.sk_keys(Side::of_initiator(header.initiator));
    keys.map_err(|_| MessageError::NotProtected)?
        .open_part(datagram)
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
    pub fragmenting: Fragmenting,
    pub window: Window,
}

impl IkeSa {
    /// A new IKE SA, just established.
    pub fn new(turn: &mut Turn<'_>, birth: Birth) -> IkeSa {
        let rekey_at = lifetimes::ike_rekey_at(&birth.connection, turn);
        let life_at = lifetimes::ike_life_at(&birth.connection, turn.now);
        let mut ike = IkeSa::with(birth, turn.ids.unique(), turn.now, rekey_at);
        ike.session.life_at = life_at;
        ike
    }

    /// An IKE SA with nothing going on.
    pub fn with(birth: Birth, unique: u32, now: Instant, rekey_at: Option<Instant>) -> IkeSa {
        IkeSa {
            purpose: Some(Purpose::of_ends(&birth.connection)),
            addressed: Some(Purpose::of_addresses(&birth.connection)),
            connection: birth.connection,
            unique,
            initiator: birth.initiator,
            local_spi: birth.local_spi,
            remote_spi: birth.remote_spi,
            proposal: birth.proposal,
            keys: birth.keys,
            path: birth.path,
            proven: birth.path.remote.ip(),
            nat: birth.nat,
            local_id: birth.local_id,
            remote_id: birth.remote_id,
            message_id_sync: birth.message_id_sync,
            replay_counter_sync: birth.replay_counter_sync,
            addresses: Internal::default(),
            mobike: None,
            mapping: None,
            fragmenting: birth.fragmenting,
            reassembly: Reassembly::default(),
            half_made: Vec::new(),
            window: birth.window,
            pending: BTreeMap::new(),
            queue: Vec::new(),
            sync: None,
            answered_sync: None,
            probe: None,
            owed: None,
            accept_jump: false,
            inherited: false,
            synchronised: false,
            full: None,
            waiting: false,
            foreign: Vec::new(),
            doubts: 0,
            children: Vec::new(),
            state: State::Established,
            established: now,
            heard: now,
            rekey_at,
            version: 0,
            predecessor: None,
            successors: Vec::new(),
            terminated: false,
            ordered: false,
            readdressed: false,
            superseded: false,
            replaced: false,
            unanswered: None,
            undecided: false,
            forget_at: None,
            authenticated: Authenticated::default(),
            session: SessionState::default(),
            redirectable: false,
            redirected_to: None,
        }
    }

    /// A successor is being asked for.
    pub fn is_rekeying(&self) -> bool {
        self.rekeying().is_some()
    }

    /// Our offer of a successor, which is the only request outstanding.
    pub fn rekeying(&self) -> Option<&IkeOffer> {
        self.pending.values().find_map(|pending| match pending {
            Pending::RekeyIke(offer) => Some(offer),
            _ => None,
        })
    }

    /// A Child SA is being asked for.
    pub fn is_making(&self) -> bool {
        let mut pending = self.pending.values();
        pending.any(|p| matches!(p, Pending::CreateChild(_)))
    }
}
