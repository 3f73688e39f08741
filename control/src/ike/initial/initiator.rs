//! The initiator's half of IKE_SA_INIT and IKE_AUTH. Protected messages, and the exchanges between
//! these two, go through `exchange.rs`; a login with EAP through `login.rs`.

mod addresses;
mod elsewhere;
mod exchange;
mod login;
mod resume;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use hitless_sa::{IkeSpi, Instant, MessageId, SaId, Spi};

use super::{
    Nonces, Progress, extensions, fragmenting, install_first, is_specific, local_identity,
};
use crate::ike::auth::{self, Authenticated, Ppk, Proof, Proven, Shown, Wishes};
use crate::ike::child;
use crate::ike::contents::{Contents, wanted_group};
use crate::ike::counter_sync::{capabilities, negotiated};
use crate::ike::create::key_exchange;
use crate::ike::crypto::kex::KeyPair;
use crate::ike::ends::Ends;
use crate::ike::established::{Birth, IkeSa, seal};
use crate::ike::fragments::{Fragmenting, Reassembly};
use crate::ike::inform;
use crate::ike::intermediate::Intermediate;
use crate::ike::keys::{IkeKeys, Inputs, Side};
use crate::ike::message::{Delete, Exchange, Header, IdBody, NotifyKind, Payload, emit};
use crate::ike::mobike;
use crate::ike::nat::{self, Nat, Path};
use crate::ike::output::Event;
use crate::ike::proposal::{
    Additional, Ask, Identification, IkeProposal, KeyExchangeMethod, accepted,
};
use crate::ike::redirect;
use crate::ike::resume::{self as tickets, Held};
use crate::ike::sessions::crash;
use crate::ike::settings::{Childless, Connection, Mobike};
use crate::ike::tasks::Task;
use crate::ike::turn::{Effect, Turn};
use crate::ike::virtual_ip;
use crate::ike::window::{Window, set_window_size};

use elsewhere::{first_path, pairs};
use login::LoggingIn;

/// New IKE_SA_INIT requests for cookies and groups before giving up.
const RESTARTS: u8 = 6;

/// An IKE SA that we initiate.
pub(in crate::ike) struct Initiator {
    pub connection: Arc<Connection>,
    /// The first goes into IKE_AUTH, the others follow.
    pub children: Vec<String>,
    pub spi: IkeSpi,
    pub path: Path,
    /// The IKE SA that it takes the place of (RFC 7296 section 2.8.3).
    pub replaces: Option<IkeSpi>,
    /// A ticket to begin with, in the place of a key exchange (RFC 5723).
    resuming: Option<Box<Held>>,
    /// Virtual addresses to ask for.
    pub vips: Vec<IpAddr>,
    pub initial_contact: bool,
    key: KeyPair,
    nonce: Vec<u8>,
    cookie: Option<Vec<u8>>,
    restarts: u8,
    /// The last IKE_SA_INIT request, which AUTH signs.
    init: Vec<u8>,
    /// What to retransmit: `init` or the IKE_AUTH request.
    request: Vec<u8>,
    sent: u32,
    pub(in crate::ike::initial) resend_at: Instant,
    pub(in crate::ike::initial) auth: Option<AuthStage>,
    /// Parts of a response that has not arrived in full.
    reassembly: Reassembly,
    /// The gateway that sent us to this one (RFC 5685).
    redirected_from: Option<IpAddr>,
    /// Our and the peer's other addresses, to be tried when this pair comes to nothing.
    untried: VecDeque<(IpAddr, IpAddr)>,
    /// Somebody said for the peer that it knows nothing of this one.
    pub(in crate::ike::initial) disowned: bool,
    /// How often it was begun anew for that.
    renewed: u8,
    /// There is more than one pair.
    several: bool,
}

/// After IKE_SA_INIT.
pub(in crate::ike::initial) struct AuthStage {
    intermediate: Intermediate,
    fragmenting: Fragmenting,
    pub(in crate::ike::initial) remote_spi: IkeSpi,
    proposal: IkeProposal,
    keys: IkeKeys,
    nat: Nat,
    peer_nonce: Vec<u8>,
    /// The IKE_SA_INIT response, which the peer's AUTH signs.
    init_response: Vec<u8>,
    child: Option<(String, SaId, Spi)>,
    wishes: Wishes,
    /// A PPK to be mixed in, behind all key exchanges, if the peer has it too.
    ppk: Option<Ppk>,
    /// We log in with EAP (RFC 7296 section 2.16).
    login: Option<Box<LoggingIn>>,
    /// IKE_AUTH exchanges of the login so far.
    rounds: u32,
}

impl AuthStage {
    /// Of the exchange that is outstanding, or due.
    pub(in crate::ike::initial) fn message_id(&self) -> MessageId {
        MessageId(self.intermediate.message_id().0 + self.rounds)
    }
}

impl Initiator {
    /// Sends IKE_SA_INIT. `initial_contact`: we know no other IKE SA with this peer.
    pub fn start(
        turn: &mut Turn<'_>,
        connection: Arc<Connection>,
        child: Option<String>,
        initial_contact: bool,
        held: Option<Box<Held>>,
    ) -> Option<Initiator> {
        Initiator::begin(turn, connection, child, initial_contact, held, None)
    }

    /// The same, or with the first of two gateways, to which the second sent us.
    pub fn begin(
        turn: &mut Turn<'_>,
        connection: Arc<Connection>,
        child: Option<String>,
        initial_contact: bool,
        held: Option<Box<Held>>,
        redirect: Option<(IpAddr, IpAddr)>,
    ) -> Option<Initiator> {
        let mut untried = match redirect {
            Some((to, _)) => pairs(&connection, &[to]),
            None => pairs(&connection, &connection.remote_addrs),
        };
        let path = first_path(&connection, untried.pop_front()?);
        let key = turn.key_pair(connection.proposals.first()?.key_exchange)?;
        let mut initiator = Initiator {
            children: child.into_iter().collect(),
            spi: turn.ids.ike_spi(turn.entropy),
            path,
            replaces: None,
            resuming: held,
            vips: connection.roads.vips.clone(),
            initial_contact,
            key,
            nonce: turn.nonce(),
            cookie: None,
            restarts: 0,
            init: Vec::new(),
            request: Vec::new(),
            sent: 0,
            resend_at: turn.now,
            auth: None,
            reassembly: Reassembly::default(),
            redirected_from: redirect.map(|(_, from)| from),
            several: !untried.is_empty(),
            untried,
            disowned: false,
            renewed: 0,
            connection,
        };
        initiator.send_init(turn);
        Some(initiator)
    }

    pub fn deadline(&self) -> Instant {
        self.resend_at
    }

    fn send_init(&mut self, turn: &mut Turn<'_>) {
        if let Some(ticket) = self.resuming.as_ref().map(|held| held.ticket.clone()) {
            return self.send_resume(turn, &ticket);
        }
        let header = Header {
            initiator_spi: self.spi,
            responder_spi: IkeSpi(0),
            exchange: Exchange::IkeSaInit,
            initiator: true,
            response: false,
            message_id: MessageId(0),
        };
        let mut payloads = Vec::new();
        // RFC 7296 section 2.6: the cookie comes first, all else is as it was.
        if let Some(cookie) = &self.cookie {
            payloads.push(Payload::notify(NotifyKind::COOKIE, cookie));
        }
        let proposals = IkeProposal::offer(&self.connection.proposals, None);
        payloads.push(Payload::SecurityAssociation(proposals));
        payloads.push(key_exchange(&self.key));
        payloads.push(Payload::Nonce(self.nonce.clone()));
        let fake = turn.fake_source(self.connection.encap);
        payloads.extend(nat::notifications(self.spi, IkeSpi(0), self.path, fake));
        let auth = &self.connection.auth;
        payloads.extend(auth::announcements(std::iter::once(auth), None));
        payloads.extend(extensions(std::iter::once(&*self.connection)));
        let announced = redirect::announcement(&self.connection, self.redirected_from);
        payloads.extend(announced);
        self.init = emit(&header, &payloads);
        let bytes = self.init.clone();
        self.send(turn, bytes);
    }

    fn send(&mut self, turn: &mut Turn<'_>, bytes: Vec<u8>) {
        turn.immediate.push(self.path.transmit(bytes.clone()));
        self.request = bytes;
        self.sent = 1;
        self.resend_at = turn.now + turn.backoff().after(1);
    }

    /// Retransmits, or goes on with the peer's next address; false when it answers at none.
    pub fn tick(&mut self, turn: &mut Turn<'_>) -> bool {
        if turn.now < self.resend_at {
            return true;
        }
        if self.sent > self.tries(turn) {
            turn.events.push(Event::NegotiationFailed {
                peer: self.path.remote,
                reason: "no answer".to_owned(),
            });
            return self.begin_anew(turn) || self.go_elsewhere(turn);
        }
        if self.resumes_in_vain() {
            self.begin_in_full(turn);
            return true;
        }
        self.sent += 1;
        self.resend_at = turn.now + turn.backoff().after(self.sent);
        self.divide(turn);
        turn.immediate
            .push(self.path.transmit(self.request.clone()));
        true
    }

    /// An IKE_SA_INIT response: not authenticated, so that what it refuses is only noted
    /// (RFC 7296 section 2.21.1), and the request goes on until it is answered or times out.
    pub fn init_response(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        header: &Header,
        payloads: &[Payload],
        datagram: &[u8],
    ) {
        let due = self.auth.is_none() && self.resuming.is_none();
        if !due || !header.response || header.message_id != MessageId(0) {
            return turn.drop(path.remote, "unexpected IKE_SA_INIT");
        }
        let contents = Contents::of(payloads);
        if contents.proposals.is_some() {
            return match self.agree(turn, path, header, &contents, datagram) {
                Ok(stage) => self.proceed(turn, stage),
                Err(reason) => turn.events.push(Event::NegotiationFailed {
                    peer: path.remote,
                    reason: reason.to_owned(),
                }),
            };
        }
        if let Some(cookie) = contents.valid_cookie() {
            self.cookie = Some(cookie.to_vec());
            return self.restart(turn);
        }
        if contents.has(NotifyKind::REDIRECT) {
            return self.redirect(turn, &contents);
        }
        let Some(error) = contents.error() else {
            return turn.drop(path.remote, "IKE_SA_INIT response without content");
        };
        let group = wanted_group(error)
            .filter(|_| error.kind == NotifyKind::INVALID_KE_PAYLOAD)
            .and_then(KeyExchangeMethod::from_number)
            .filter(|g| *g != self.key.method())
            .filter(|g| {
                self.connection
                    .proposals
                    .iter()
                    .any(|p| p.key_exchange == *g)
            });
        if let Some(key) = group.and_then(|group| turn.key_pair(group)) {
            self.key = key;
            return self.restart(turn);
        }
        turn.events.push(Event::NegotiationFailed {
            peer: path.remote,
            reason: error.kind.to_string(),
        });
    }

    /// RFC 5685 section 3: begins anew with the gateway that the first one names.
    fn redirect(&mut self, turn: &mut Turn<'_>, contents: &Contents<'_>) {
        let (connection, from) = (self.connection.clone(), self.path.remote);
        if let Some(to) = redirect::followed(turn, &connection, from, contents, &self.nonce) {
            self.path.remote.set_ip(to);
            self.redirected_from = Some(from.ip());
            // RFC 5723 section 4.3.1: and without the ticket of the other one.
            self.begin_in_full(turn);
        }
    }

    fn restart(&mut self, turn: &mut Turn<'_>) {
        if self.restarts >= RESTARTS {
            return turn.drop(self.path.remote, "too many new IKE_SA_INIT requests");
        }
        self.restarts += 1;
        self.send_init(turn);
    }

    fn agree(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        header: &Header,
        contents: &Contents<'_>,
        datagram: &[u8],
    ) -> Result<AuthStage, &'static str> {
        let proposals = contents.proposals.ok_or("no proposal")?;
        let (_, chosen) = accepted(&self.connection.proposals, proposals)
            .ok_or("the peer chose a proposal that was not offered")?;
        let nonce = contents.valid_nonce().ok_or("no nonce")?;
        let remote_spi = header.responder_spi;
        let public = contents
            .key_exchange
            .filter(|(group, _)| *group == chosen.key_exchange.number())
            .filter(|_| chosen.key_exchange == self.key.method());
        let (_, public) = public.ok_or("another key exchange than was offered")?;
        if remote_spi == IkeSpi(0) {
            return Err("no responder SPI");
        }
        let shared = self.key.agree(public).map_err(|_| "invalid public key")?;
        let inputs = Inputs {
            initiator_nonce: &self.nonce,
            responder_nonce: nonce,
            initiator_spi: self.spi,
            responder_spi: remote_spi,
        };
        let keys = IkeKeys::derive(&chosen, &inputs, &shared);
        if !chosen.additional.is_empty()
            && !contents.has(NotifyKind::INTERMEDIATE_EXCHANGE_SUPPORTED)
        {
            return Err("additional key exchanges without IKE_INTERMEDIATE");
        }
        let agreed = (chosen, keys, chosen.additional);
        self.stage(turn, path, header, contents, (agreed, datagram))
    }

    /// What both first messages leave behind, whichever exchange they were.
    fn stage(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        header: &Header,
        contents: &Contents<'_>,
        (agreed, datagram): ((IkeProposal, IkeKeys, Additional), &[u8]),
    ) -> Result<AuthStage, &'static str> {
        let (proposal, keys, additional) = agreed;
        let wishes = Wishes::of(contents);
        let ppk = match &self.resuming {
            // It is in the old keys, if it was there.
            Some(_) => None,
            None => self.ppk(&wishes)?,
        };
        let remote_spi = header.responder_spi;
        let peer_nonce = contents.valid_nonce().ok_or("no nonce")?.to_vec();
        let mut nat = nat::detect(
            self.spi,
            remote_spi,
            path,
            contents.notifies.iter().copied(),
        );
        nat.forced = self.connection.encap;
        if floats(&self.connection, nat, contents) {
            self.path.float();
        }
        let childless = childless(&self.connection, contents)?;
        let first = self.children.first().filter(|_| !childless);
        let child = first.and_then(|name| {
            let id = turn.ids.sa();
            Some((name.clone(), id, turn.ids.spi(turn.entropy)?))
        });
        Ok(AuthStage {
            intermediate: Intermediate::new(additional),
            fragmenting: fragmenting(&self.connection, contents),
            remote_spi,
            proposal,
            keys,
            nat,
            peer_nonce,
            init_response: datagram.to_vec(),
            child,
            wishes,
            ppk,
            login: None,
            rounds: 0,
        })
    }

    /// The PPK to propose (RFC 8784 section 3).
    fn ppk(&self, wishes: &Wishes) -> Result<Option<Ppk>, &'static str> {
        let Some(settings) = &self.connection.auth.ppk else {
            return Ok(None);
        };
        if !wishes.ppk && settings.required {
            return Err("the peer uses no PPK, and one is required");
        }
        let first = settings.keys.first().filter(|_| wishes.ppk);
        Ok(first.cloned())
    }

    fn authenticate(&mut self, turn: &mut Turn<'_>, mut stage: AuthStage) {
        let connection = self.connection.clone();
        let body = IdBody::new(local_identity(&connection, self.path));
        let mixed = stage.ppk.as_ref().map(|ppk| stage.keys.with_ppk(&ppk.key));
        let keys = mixed.as_ref().unwrap_or(&stage.keys);
        stage.login = self.log_in().map(Box::new);
        // RFC 7296 section 2.16: who wants EAP leaves AUTH out.
        let proof = match stage.login {
            Some(_) => Ok(None),
            None => self.prove(turn, &stage, &body, keys).map(Some),
        };
        // RFC 8784 section 3: a second AUTH for a peer that turns out not to have the PPK.
        let optional = connection.auth.ppk.as_ref().is_some_and(|p| !p.required);
        let plain = (stage.ppk.is_some() && optional)
            .then(|| self.prove(turn, &stage, &body, &stage.keys))
            .transpose();
        let (proof, plain) = match (proof, plain) {
            (Ok(proof), Ok(plain)) => (proof, plain),
            (Err(reason), _) | (_, Err(reason)) => {
                self.abandon(turn, stage);
                return turn.events.push(Event::AuthenticationFailed {
                    peer: self.path.remote,
                    reason,
                });
            }
        };
        let mut payloads = vec![Payload::IdInitiator(body)];
        let auth = proof.as_ref().map(Proof::auth);
        payloads.extend(proof.into_iter().flat_map(|proof| proof.certificates));
        let window = self.connection.roads.window_size.get();
        payloads.extend((window > 1).then(|| set_window_size(window)));
        if self.initial_contact {
            payloads.push(Payload::notify(NotifyKind::INITIAL_CONTACT, &[]));
        }
        if self.resuming.is_none() {
            let own = std::iter::once(&connection.auth);
            payloads.extend(auth::certificate_request(own));
        }
        if is_specific(&connection.remote_id) {
            let id = IdBody::new(connection.remote_id.clone());
            payloads.push(Payload::IdResponder(id));
        }
        payloads.extend(auth);
        payloads.extend(stage.ppk.as_ref().map(Ppk::identity));
        payloads.extend(plain.map(|plain| auth::without(&plain.data)));
        payloads.extend(virtual_ip::request(&self.vips));
        if let Some((name, _, spi)) = &stage.child
            && let Some(config) = connection.children.iter().find(|c| c.name == *name)
        {
            let offered = Ends::asking(&connection, self.path).resolve(config);
            payloads.extend(child::offer(&offered, *spi, Ask::First));
        }
        payloads.extend(capabilities(&connection, None));
        payloads.extend(mobike::capabilities(&connection, self.path, None));
        payloads.extend(tickets::request(&connection));
        let spis = (self.spi, stage.remote_spi);
        payloads.extend(crash::offer(turn.settings, &connection, spis));
        let header = self.header(&stage, Exchange::IkeAuth, stage.message_id());
        let limit = stage.fragmenting.limit(self.path);
        let Some(bytes) = seal(&stage.keys, turn, &header, &payloads, limit) else {
            return self.abandon(turn, stage);
        };
        // No longer needed, and not small.
        stage.wishes.authorities = None;
        self.auth = Some(stage);
        self.send(turn, bytes);
    }

    fn prove(
        &self,
        turn: &Turn<'_>,
        stage: &AuthStage,
        id: &IdBody,
        keys: &IkeKeys,
    ) -> Result<Proof, String> {
        if let Some(proof) = self.prove_resumed(keys) {
            return Ok(proof);
        }
        let int_auth = stage.intermediate.int_auth();
        let signed = self.signed(stage, keys, Side::Initiator, id, &int_auth);
        let (secrets, remote) = (&turn.settings.secrets, &self.connection.remote_id);
        auth::prove(
            secrets,
            &self.connection,
            &id.id,
            remote,
            &stage.wishes,
            signed,
        )
    }

    fn header(&self, stage: &AuthStage, exchange: Exchange, message_id: MessageId) -> Header {
        Header {
            initiator_spi: self.spi,
            responder_spi: stage.remote_spi,
            exchange,
            initiator: true,
            response: false,
            message_id,
        }
    }

    /// An IKE_AUTH response.
    fn auth_response(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        mut stage: AuthStage,
        contents: &Contents<'_>,
    ) -> Progress {
        if let Some(login) = stage.login.take() {
            return self.login_response(turn, path, (stage, login), contents);
        }
        match self.verify(turn, &mut stage, contents) {
            Ok(proven) => self.established(turn, stage, path, contents, proven),
            Err(reason) => {
                turn.events.push(Event::AuthenticationFailed {
                    peer: path.remote,
                    reason,
                });
                if contents.auth.is_some() {
                    self.withdraw(turn, &stage);
                }
                self.auth = Some(stage);
                self.refused(turn)
            }
        }
    }

    fn verify(
        &self,
        turn: &Turn<'_>,
        stage: &mut AuthStage,
        contents: &Contents<'_>,
    ) -> Result<Authenticated, String> {
        let (Some(id), Some((method, data))) = (contents.responder_id, contents.auth) else {
            let own = &self.connection.auth.local;
            return Err(auth::refusal(contents, own, &stage.wishes));
        };
        if !id.id.matches(&self.connection.remote_id) {
            return Err(format!("the peer is {}", id.id));
        }
        let shown = (method, data);
        let resumed = self.verify_resumed(&stage.keys, &stage.init_response, id, shown);
        if let Some(resumed) = resumed {
            return resumed;
        }
        // RFC 8784 section 3: the responder says whether it has the PPK.
        let mixed = contents.has(NotifyKind::PPK_IDENTITY);
        let ppk = stage.ppk.take();
        let required = self
            .connection
            .auth
            .ppk
            .as_ref()
            .is_some_and(|p| p.required);
        match &ppk {
            Some(ppk) if mixed => stage.keys = stage.keys.with_ppk(&ppk.key),
            _ if mixed => return Err(format!("{} uses a PPK that was not offered", id.id)),
            _ if required => return Err(format!("{} does not use the PPK", id.id)),
            _ => {}
        }
        let shown = Shown {
            id: &id.id,
            method,
            data,
            ppk: ppk.as_ref().filter(|_| mixed),
        };
        let proven = self.check(turn, stage, id, shown, contents)?;
        Ok(Authenticated {
            proven,
            ppk: mixed,
            replaces: self.replaces,
            ..Authenticated::default()
        })
    }

    fn check(
        &self,
        turn: &Turn<'_>,
        stage: &AuthStage,
        id: &IdBody,
        shown: Shown<'_>,
        contents: &Contents<'_>,
    ) -> Result<Proven, String> {
        let local: Identification = local_identity(&self.connection, self.path);
        let int_auth = stage.intermediate.int_auth();
        let signed = self.signed(stage, &stage.keys, Side::Responder, id, &int_auth);
        let time = turn.settings.time_of_day.at(turn.now);
        auth::check(
            turn.settings,
            &self.connection,
            &local,
            time,
            shown,
            contents,
            signed,
        )
    }

    /// Tells a responder that believes in the IKE SA that we do not (RFC 7296 section 2.21.2).
    fn withdraw(&self, turn: &mut Turn<'_>, stage: &AuthStage) {
        let message_id = stage.message_id().next();
        let header = self.header(stage, Exchange::Informational, message_id);
        let payloads = [
            Payload::notify(NotifyKind::AUTHENTICATION_FAILED, &[]),
            Payload::Delete(Delete::Ike),
        ];
        if let Some(bytes) = seal(&stage.keys, turn, &header, &payloads, None) {
            turn.immediate.push(self.path.transmit(bytes));
        }
    }

    fn established(
        &mut self,
        turn: &mut Turn<'_>,
        mut stage: AuthStage,
        path: Path,
        contents: &Contents<'_>,
        authenticated: Authenticated,
    ) -> Progress {
        let (message_id_sync, replay_counter_sync) = self.asserted(&stage, contents);
        let next_request = stage.message_id().next();
        let first = stage.login.as_deref().and_then(LoggingIn::gateway);
        let remote_id = first.or(contents.responder_id).map(|id| id.id.clone());
        let mut ike = IkeSa::new(
            turn,
            Birth {
                connection: self.connection.clone(),
                initiator: true,
                local_spi: self.spi,
                remote_spi: stage.remote_spi,
                proposal: stage.proposal,
                keys: stage.keys,
                path: self.path,
                nat: stage.nat,
                local_id: local_identity(&self.connection, self.path),
                remote_id: remote_id.unwrap_or(self.connection.remote_id.clone()),
                message_id_sync,
                replay_counter_sync,
                fragmenting: stage.fragmenting,
                window: Window::new(
                    next_request,
                    MessageId(0),
                    self.connection.roads.window_size.get(),
                ),
            },
        );
        let authenticated = authenticated.after_asking(turn, &self.connection, contents);
        ike.rest_on(authenticated, turn);
        ike.take_token(turn, contents);
        ike.take_ticket(turn, contents);
        turn.events.extend(stage.intermediate.log());
        turn.events.push(Event::IkeEstablished {
            ike: ike.local_spi,
            connection: self.connection.name.clone(),
        });
        let window_size = contents.window_size().into_iter();
        window_size.for_each(|size| ike.window.peer_allows(size));
        // IKE_AUTH has told the peer.
        ike.window.announced = true;
        ike.mobike = mobike::negotiated(&self.connection, true, self.path, contents);
        turn.effects.extend(self.connection.others(true, contents));
        virtual_ip::accept(&mut ike, contents);
        let nonces = Nonces {
            initiator: self.nonce.clone(),
            responder: stage.peer_nonce,
        };
        let asked = usize::from(stage.child.is_some());
        if contents.has(NotifyKind::REDIRECT) || self.has_no_address(contents) {
            return self.leave(turn, ike, stage.child, contents);
        }
        if let Some((name, id, spi)) = stage.child {
            first_child(&mut ike, turn, &nonces, contents, (name, id, spi));
        }
        for name in self.children.drain(..).skip(asked) {
            ike.schedule(turn.now, Task::CreateChild(name));
        }
        ike.alive(turn, path);
        ike.advance(turn);
        turn.dirty = true;
        Progress::Established(Box::new(ike))
    }
}

impl Initiator {
    /// What both can of RFC 6311. Of a login every answer counts, the last one too (H6).
    fn asserted(&self, stage: &AuthStage, contents: &Contents<'_>) -> (bool, bool) {
        let login = stage.login.as_deref().map(LoggingIn::asserted);
        login.unwrap_or_else(|| negotiated(&self.connection, contents))
    }

    /// RFC 5685 section 6: the gateway that has authenticated us sends us to another one, and makes
    /// no Child SA. Or it has no address for us.
    fn leave(
        &mut self,
        turn: &mut Turn<'_>,
        mut ike: IkeSa,
        child: Option<(String, SaId, Spi)>,
        contents: &Contents<'_>,
    ) -> Progress {
        if let Some((_, _, spi)) = child {
            turn.ids.release(spi);
        }
        if !contents.has(NotifyKind::REDIRECT) {
            return self.give_up(turn, ike);
        }
        let children = std::mem::take(&mut self.children);
        let remote = ike.path.remote;
        let to = redirect::followed(turn, &self.connection, remote, contents, &[]);
        match to {
            Some(to) => turn.effects.push(Effect::Redirected(to, children)),
            None => turn.effects.extend(children.into_iter().map(Effect::Lost)),
        }
        ike.schedule(turn.now, Task::DeleteIke);
        ike.advance(turn);
        turn.dirty = true;
        Progress::Established(Box::new(ike))
    }
}

/// RFC 7296 section 2.23: with a NAT in the path all else goes over port 4500; RFC 4555 section 3.3:
/// and with MOBIKE, as there may be one in the next.
fn floats(connection: &Connection, nat: Nat, contents: &Contents<'_>) -> bool {
    let traverses = contents.has(NotifyKind::NAT_DETECTION_SOURCE_IP);
    nat.detected() || connection.roads.mobike == Mobike::Offer && traverses
}

/// Whether IKE_AUTH goes without a Child SA, which follows with a key exchange of its own
/// (RFC 6023).
fn childless(connection: &Connection, contents: &Contents<'_>) -> Result<bool, &'static str> {
    let can = contents.has(NotifyKind::CHILDLESS_IKEV2_SUPPORTED);
    match connection.roads.childless {
        Childless::Force if !can => Err("the peer makes no IKE SA without a Child SA"),
        Childless::Force | Childless::Prefer => Ok(can),
        Childless::Allow | Childless::Never => Ok(false),
    }
}

/// The Child SA that IKE_AUTH asked for. Without it the IKE SA stays (RFC 7296 section 1.2).
fn first_child(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    nonces: &Nonces,
    contents: &Contents<'_>,
    (name, id, spi): (String, SaId, Spi),
) {
    let connection = ike.connection.clone();
    let Some(config) = connection.children.iter().find(|c| c.name == name) else {
        return;
    };
    let refusal = contents.error().filter(|_| contents.proposals.is_none());
    let offered = Ends::asking(&connection, ike.path).resolve(config);
    let reason = match (refusal, child::accept(ike, &offered, contents, Ask::First)) {
        (Some(error), _) => {
            turn.ids.release(spi);
            child::refusal(&name, error.kind)
        }
        (None, Ok(terms)) => return install_first(ike, turn, nonces, terms, (id, spi)),
        (None, Err(reason)) => {
            inform::delete_later(ike, turn, turn.now, spi);
            format!("child `{name}`: {reason}")
        }
    };
    turn.events.push(Event::NegotiationFailed {
        peer: ike.path.remote,
        reason,
    });
    turn.effects.push(Effect::Lost(name));
}
