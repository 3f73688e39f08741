//! The responder's half of IKE_SA_INIT and IKE_AUTH. Protected messages, and the exchanges between
//! these two, go through `exchange.rs`; a login with EAP through `login.rs`.

mod exchange;
mod login;
mod resume;

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use hitless_sa::{IkeSpi, Instant, MessageId};

use super::half_open::Held;
use super::{
    Nonces, Progress, addresses_match, extensions, fragmenting, install_first, local_identity,
};
use crate::ike::auth::{
    self, AuthSettings, Authenticated, Ppk, Shown, SignedOctets, Wishes, lifetime, offered_without,
};
use crate::ike::child;
use crate::ike::contents::Contents;
use crate::ike::counter_sync::{capabilities, negotiated};
use crate::ike::create::exchange_keys;
use crate::ike::established::{Birth, DELETE_GRACE, IkeSa, seal};
use crate::ike::fragments::{Fragmenting, Reassembly};
use crate::ike::intermediate::Intermediate;
use crate::ike::keys::{IkeKeys, Inputs, Side};
use crate::ike::message::{Exchange, Header, IdBody, NotifyKind, Payload, Proposal, emit};
use crate::ike::mobike;
use crate::ike::nat::{self, Nat, Path};
use crate::ike::output::{Event, Transmit};
use crate::ike::proposal::{Additional, Ask, Identification, IkeProposal, select};
use crate::ike::redirect::{self, Redirectable};
use crate::ike::resume as tickets;
use crate::ike::sessions::crash;
use crate::ike::settings::{Childless, Connection};
use crate::ike::turn::Turn;
use crate::ike::virtual_ip;
use crate::ike::window::Window;

use login::LoggingIn;
pub(in crate::ike) use login::LoginStands;
use resume::Resumed;

/// A half-open IKE SA that a peer initiates.
pub(in crate::ike) struct Responder {
    pub spi: IkeSpi,
    pub remote_spi: IkeSpi,
    /// Of IKE_SA_INIT.
    pub path: Path,
    /// Where the last authentic request came from.
    seen: IpAddr,
    pub expires: Instant,
    /// The IKE_SA_INIT request and our response, which AUTH signs; the response is repeated for
    /// the identical request.
    pub request: Vec<u8>,
    pub response: Vec<u8>,
    nonces: Nonces,
    proposal: IkeProposal,
    keys: IkeKeys,
    nat: Nat,
    wishes: Wishes,
    intermediate: Intermediate,
    fragmenting: Fragmenting,
    /// Parts of a request that has not arrived in full.
    reassembly: Reassembly,
    /// The request that was answered last, or its first fragment, and the answer: of
    /// IKE_INTERMEDIATE, or the refusal of IKE_AUTH.
    answered: Option<(Vec<u8>, Vec<u8>)>,
    /// IKE_AUTH was refused.
    refused: bool,
    redirectable: Redirectable,
    /// It resumes a session (RFC 5723).
    resumed: Option<Box<Resumed>>,
    /// The peer logs in with EAP (RFC 7296 section 2.16).
    login: Option<Box<LoggingIn>>,
    /// IKE_AUTH exchanges of the login so far.
    rounds: u32,
    /// The login failed; the client may have yet to say that it knows.
    guessed: bool,
    /// Whether its source can pay for one (`crowd.rs`).
    pub may_log_in: bool,
}

/// What the first exchange decides, whichever it is.
struct Begun {
    spi: IkeSpi,
    nonces: Nonces,
    proposal: IkeProposal,
    keys: IkeKeys,
    /// Key exchanges that follow.
    additional: Additional,
    nat: Nat,
    fragmenting: Fragmenting,
    resumed: Option<Box<Resumed>>,
}

impl Begun {
    /// Answers the request with these payloads; the IKE SA is half-open.
    fn answer(
        self,
        turn: &mut Turn<'_>,
        (path, header, contents): (Path, &Header, &Contents<'_>),
        payloads: &[Payload],
        request: &[u8],
    ) -> Responder {
        let response = emit(&response_header(header, self.spi), payloads);
        turn.immediate.push(path.transmit(response.clone()));
        Responder {
            spi: self.spi,
            remote_spi: header.initiator_spi,
            path,
            seen: path.remote.ip(),
            expires: turn.now + turn.settings.limits.half_open_timeout,
            request: request.to_vec(),
            response,
            nonces: self.nonces,
            proposal: self.proposal,
            keys: self.keys,
            nat: self.nat,
            wishes: Wishes::of(contents),
            intermediate: Intermediate::new(self.additional),
            fragmenting: self.fragmenting,
            reassembly: Reassembly::default(),
            answered: None,
            refused: false,
            redirectable: Redirectable::of(contents),
            resumed: self.resumed,
            login: None,
            rounds: 0,
            guessed: false,
            may_log_in: true,
        }
    }
}

/// A peer that proved who it is, and our proof for it.
struct Admitted {
    connection: Arc<Connection>,
    local_id: Identification,
    payloads: Vec<Payload>,
    authenticated: Authenticated,
    keys: IkeKeys,
}

/// What came of an IKE_SA_INIT request.
pub(in crate::ike) enum Admission {
    HalfOpen(Box<Responder>),
    /// Answered without keeping anything.
    Refused,
}

/// Header of a response to an IKE_SA_INIT request; SPI zero when nothing is kept.
fn response_header(request: &Header, responder_spi: IkeSpi) -> Header {
    Header {
        initiator_spi: request.initiator_spi,
        responder_spi,
        exchange: request.exchange,
        initiator: false,
        response: true,
        message_id: MessageId(0),
    }
}

/// A stateless answer to an IKE_SA_INIT request.
pub(in crate::ike) fn stateless(path: Path, request: &Header, payload: Payload) -> Transmit {
    path.transmit(emit(&response_header(request, IkeSpi(0)), &[payload]))
}

/// The proposal of theirs that the connections take, and which of ours it is. Only IKE_AUTH says which
/// connection the peer means, and that one has to have it: what most of them have goes first.
fn choose<'p>(
    candidates: impl Iterator<Item = &'p Arc<Connection>>,
    contents: &Contents<'_>,
    proposals: &'p [Proposal],
) -> Option<(&'p Proposal, IkeProposal)> {
    // RFC 9370 section 2.2.1: additional key exchanges need IKE_INTERMEDIATE.
    let intermediate = contents.has(NotifyKind::INTERMEDIATE_EXCHANGE_SUPPORTED);
    let usable = |p: &&IkeProposal| intermediate || p.additional.is_empty();
    let mut shared: Vec<(IkeProposal, usize)> = Vec::new();
    for own in candidates.flat_map(|c| c.proposals.iter().filter(usable)) {
        match shared.iter_mut().find(|(known, _)| known == own) {
            Some((_, connections)) => *connections += 1,
            None => shared.push((*own, 1)),
        }
    }
    shared.sort_by_key(|(_, connections)| Reverse(*connections));
    let ours: Vec<IkeProposal> = shared.into_iter().map(|(own, _)| own).collect();
    // RFC 7296 section 3.3.1: "For an initial IKE SA negotiation, this field MUST be zero".
    select(&ours, proposals).filter(|(theirs, _)| theirs.spi.is_empty())
}

/// Of our extensions those that the peer supports too: the others are of no use.
fn supported<'c>(
    candidates: impl Iterator<Item = &'c Connection> + Clone,
    contents: &Contents<'_>,
) -> impl Iterator<Item = Payload> {
    let mut ours = extensions(candidates);
    ours.retain(|p| matches!(p, Payload::Notify(n) if contents.has(n.kind)));
    ours.into_iter()
}

/// Says whether an IKE SA may begin without a Child SA (RFC 6023): if every connection that the peer
/// may mean lets it.
fn childless<'c>(mut meant: impl Iterator<Item = &'c Arc<Connection>>) -> Option<Payload> {
    let allowed = |c: &Arc<Connection>| c.roads.childless != Childless::Never;
    let supported = || Payload::notify(NotifyKind::CHILDLESS_IKEV2_SUPPORTED, &[]);
    meant.all(allowed).then(supported)
}

fn nothing_in_common(turn: &mut Turn<'_>, path: Path) -> Option<Payload> {
    turn.events.push(Event::NegotiationFailed {
        peer: path.remote,
        reason: "no common IKE proposal".to_owned(),
    });
    Some(Payload::notify(NotifyKind::NO_PROPOSAL_CHOSEN, &[]))
}

/// What we say in IKE_SA_INIT for the connections that the peer may mean.
fn announcements<'c>(
    meant: impl Iterator<Item = &'c Arc<Connection>> + Clone,
    contents: &Contents<'_>,
) -> Vec<Payload> {
    let mut payloads = Vec::from_iter(childless(meant.clone()));
    payloads.extend(supported(meant.clone().map(|c| &**c), contents));
    let meant = meant.map(|c| -> &AuthSettings { &c.auth });
    payloads.extend(auth::announcements(meant, Some(contents)));
    payloads
}

/// Sends the client to another gateway, if every connection that it may mean does (RFC 5685
/// section 3).
fn elsewhere<'c>(
    turn: &mut Turn<'_>,
    candidates: impl Iterator<Item = &'c Arc<Connection>>,
    path: Path,
    contents: &Contents<'_>,
) -> Result<(), Option<Payload>> {
    let nonce = contents.valid_nonce().unwrap_or_default();
    match redirect::in_common(candidates.map(|c| &**c), contents) {
        Some(to) => {
            turn.drop(path.remote, "redirected to another gateway");
            Err(Some(redirect::order(to, nonce)))
        }
        None => Ok(()),
    }
}

impl Responder {
    /// Fragments that wait for others.
    pub fn waiting(&self) -> Held {
        self.reassembly.held()
    }

    pub fn forget_fragments(&mut self) {
        self.reassembly = Reassembly::default();
    }

    /// Whether the peer may still mean a connection, as far as it has said.
    pub fn may_mean(&self, connection: &Connection) -> bool {
        self.may_mean_from(self.path, connection)
    }

    /// Whether it may, seen from there.
    fn may_mean_from(&self, path: Path, connection: &Connection) -> bool {
        let named = |resumed: &Resumed| resumed.is_of(connection);
        addresses_match(connection, path)
            && connection.proposals.contains(&self.proposal)
            && self.resumed.as_deref().is_none_or(named)
    }

    /// Answers an IKE_SA_INIT request.
    pub fn admit(
        turn: &mut Turn<'_>,
        connections: &[Arc<Connection>],
        path: Path,
        header: &Header,
        payloads: &[Payload],
        datagram: &[u8],
    ) -> Admission {
        let contents = Contents::of(payloads);
        match Responder::agree(turn, connections, path, header, &contents, datagram) {
            Ok(responder) => Admission::HalfOpen(Box::new(responder)),
            Err(Some(refusal)) => {
                // RFC 7296 section 3.10.1: INVALID_SYNTAX "may only be returned for and in an
                // encrypted packet".
                if refusal == Payload::notify(NotifyKind::INVALID_SYNTAX, &[]) {
                    turn.drop(path.remote, "invalid IKE_SA_INIT");
                } else {
                    turn.immediate.push(stateless(path, header, refusal));
                }
                Admission::Refused
            }
            Err(None) => Admission::Refused,
        }
    }

    fn agree(
        turn: &mut Turn<'_>,
        connections: &[Arc<Connection>],
        path: Path,
        header: &Header,
        contents: &Contents<'_>,
        datagram: &[u8],
    ) -> Result<Responder, Option<Payload>> {
        let (Some(proposals), Some(peer_nonce)) = (contents.proposals, contents.valid_nonce())
        else {
            return Err(Some(Payload::notify(NotifyKind::INVALID_SYNTAX, &[])));
        };
        let candidates = connections.iter().filter(|c| addresses_match(c, path));
        elsewhere(turn, candidates.clone(), path, contents)?;
        let chosen = choose(candidates.clone(), contents, proposals);
        let (theirs, chosen) = chosen.ok_or_else(|| nothing_in_common(turn, path))?;
        let meant = candidates.filter(|c| c.proposals.contains(&chosen));
        let encap = meant.clone().any(|c| c.encap);
        // Any of them will take what it was told that we take.
        let mut fragments = meant.clone().map(|c| fragmenting(c, contents));
        let fragments = fragments.find(|f| f.negotiated).unwrap_or_default();
        let (ke, shared) = exchange_keys(turn, contents, chosen.key_exchange).map_err(Some)?;
        let (nonce, spi) = (turn.nonce(), turn.ids.ike_spi(turn.entropy));
        let inputs = Inputs {
            initiator_nonce: peer_nonce,
            responder_nonce: &nonce,
            initiator_spi: header.initiator_spi,
            responder_spi: spi,
        };
        let keys = IkeKeys::derive(&chosen, &inputs, &shared);
        let nat = detected(header, path, contents, encap);
        let mut payloads = vec![
            Payload::SecurityAssociation(vec![chosen.to_proposal(theirs.number, None)]),
            ke,
            Payload::Nonce(nonce.clone()),
        ];
        let fake = turn.fake_source(encap);
        payloads.extend(nat::notifications(header.initiator_spi, spi, path, fake));
        payloads.extend(announcements(meant, contents));
        let begun = Begun {
            spi,
            nonces: Nonces {
                initiator: peer_nonce.to_vec(),
                responder: nonce,
            },
            proposal: chosen,
            keys,
            additional: chosen.additional,
            nat,
            fragmenting: fragments,
            resumed: None,
        };
        let answered = (path, header, contents);
        Ok(begun.answer(turn, answered, &payloads, datagram))
    }

    /// An IKE_AUTH request; `request` is the datagram that began it.
    fn auth_request(
        &mut self,
        turn: &mut Turn<'_>,
        connections: &[Arc<Connection>],
        path: Path,
        request: &[u8],
        contents: &Contents<'_>,
    ) -> Progress {
        self.wishes.learn(contents);
        let logs_in = self.login.is_some();
        // RFC 7296 section 2.16: "An initiator indicates a desire to use EAP by leaving out the AUTH
        // payload from the first message in the IKE_AUTH exchange."
        if logs_in || contents.auth.is_none() && self.resumed.is_none() {
            return self.login(turn, connections, path, request, contents);
        }
        let admitted = match self.verify(turn, connections, path, contents) {
            Ok(admitted) => admitted,
            Err(reason) => {
                self.turn_away(
                    turn,
                    path,
                    request,
                    NotifyKind::AUTHENTICATION_FAILED,
                    reason,
                );
                return Progress::Waiting;
            }
        };
        self.admitted(turn, path, request, contents, admitted)
    }

    /// The peer has proved who it is.
    fn admitted(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        request: &[u8],
        contents: &Contents<'_>,
        admitted: Admitted,
    ) -> Progress {
        // RFC 6023 section 4: it was not told CHILDLESS_IKEV2_SUPPORTED, so its request is malformed.
        let never = admitted.connection.roads.childless == Childless::Never;
        if never && contents.proposals.is_none() {
            let reason = "no IKE SA without a Child SA here".to_owned();
            self.turn_away(turn, path, request, NotifyKind::INVALID_SYNTAX, reason);
            return Progress::Waiting;
        }
        self.established(turn, path, contents, admitted)
    }

    /// Refuses the IKE SA, and gives the same answer to the same request until it expires.
    pub fn turn_away(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        request: &[u8],
        kind: NotifyKind,
        reason: String,
    ) {
        let peer = path.remote;
        turn.events.push(match kind {
            NotifyKind::AUTHENTICATION_FAILED => Event::AuthenticationFailed { peer, reason },
            _ => Event::NegotiationFailed { peer, reason },
        });
        let refusal = [Payload::notify(kind, &[])];
        self.refuse(turn, path, request, &refusal);
    }

    fn refuse(&mut self, turn: &mut Turn<'_>, path: Path, request: &[u8], refusal: &[Payload]) {
        if let Some(bytes) = self.seal(turn, Exchange::IkeAuth, refusal) {
            self.remember(turn, path, request.to_vec(), bytes);
            self.refused = true;
        }
    }

    /// Sends the answer to a request, and keeps it for the same request.
    fn remember(&mut self, turn: &mut Turn<'_>, path: Path, request: Vec<u8>, bytes: Vec<u8>) {
        turn.immediate.push(path.transmit(bytes.clone()));
        self.answered = Some((request, bytes));
    }

    fn header(&self, exchange: Exchange) -> Header {
        Header {
            initiator_spi: self.remote_spi,
            responder_spi: self.spi,
            exchange,
            initiator: false,
            response: true,
            message_id: self.message_id(),
        }
    }

    /// Of the exchange that is due.
    fn message_id(&self) -> MessageId {
        MessageId(self.intermediate.message_id().0 + self.rounds)
    }

    fn seal(
        &self,
        turn: &mut Turn<'_>,
        exchange: Exchange,
        payloads: &[Payload],
    ) -> Option<Vec<u8>> {
        let limit = self.fragmenting.limit(self.path);
        seal(&self.keys, turn, &self.header(exchange), payloads, limit)
    }

    /// Authenticates the peer: by the first connection that is meant for it and that it satisfies.
    fn verify(
        &self,
        turn: &Turn<'_>,
        connections: &[Arc<Connection>],
        path: Path,
        contents: &Contents<'_>,
    ) -> Result<Admitted, String> {
        let (Some(id), Some((method, data))) = (contents.initiator_id, contents.auth) else {
            return Err("request without identity or AUTH".to_owned());
        };
        if let Some(resumed) = &self.resumed {
            return self.admit_resumed(turn, connections, resumed, id, (method, data));
        }
        let wanted = contents.responder_id.map(|id| &id.id);
        let mut refusal = None;
        for connection in self.meant(connections, path, &id.id, wanted) {
            match self.admit_to(turn, connection, path, id, (method, data), contents) {
                Ok(admitted) => return Ok(admitted),
                Err(reason) => refusal = refusal.or(Some(reason)),
            }
        }
        Err(refusal.unwrap_or_else(|| format!("no connection for {}", id.id)))
    }

    /// The connections that are meant for a peer: those that name it before those that take anybody.
    fn meant<'c>(
        &self,
        connections: &'c [Arc<Connection>],
        path: Path,
        id: &Identification,
        wanted: Option<&Identification>,
    ) -> Vec<&'c Arc<Connection>> {
        let candidates = connections.iter().filter(|c| {
            addresses_match(c, path)
                && c.proposals.contains(&self.proposal)
                && id.matches(&c.remote_id)
                && wanted.is_none_or(|w| w.matches(&local_identity(c, path)))
        });
        let mut candidates: Vec<_> = candidates.collect();
        candidates.sort_by_key(|c| c.remote_id != *id);
        candidates
    }

    /// Checks the peer's proof for one connection, and makes ours.
    fn admit_to(
        &self,
        turn: &Turn<'_>,
        connection: &Arc<Connection>,
        path: Path,
        id: &IdBody,
        (method, data): (u8, &[u8]),
        contents: &Contents<'_>,
    ) -> Result<Admitted, String> {
        let local = IdBody::new(local_identity(connection, path));
        let secrets = &turn.settings.secrets;
        let (keys, data, ppk) = self.mixed(connection, data, contents)?;
        let int_auth = self.intermediate.int_auth();
        let signed = self.signed(&keys, Side::Initiator, id, &int_auth);
        let shown = Shown {
            id: &id.id,
            method,
            data,
            ppk,
        };
        let time = turn.settings.time_of_day.at(turn.now);
        let settings = turn.settings;
        let proven = auth::check(
            settings, connection, &local.id, time, shown, contents, signed,
        )?;
        let signed = self.signed(&keys, Side::Responder, &local, &int_auth);
        let proof = auth::prove(secrets, connection, &local.id, &id.id, &self.wishes, signed)?;
        let authenticated = Authenticated {
            proven,
            ppk: ppk.is_some(),
            ..Authenticated::default()
        };
        let auth = proof.auth();
        let mut payloads = vec![Payload::IdResponder(local.clone())];
        payloads.extend(proof.certificates);
        payloads.push(auth);
        if ppk.is_some() {
            payloads.push(Payload::notify(NotifyKind::PPK_IDENTITY, &[]));
        }
        Ok(Admitted {
            connection: connection.clone(),
            local_id: local.id,
            payloads,
            authenticated: authenticated.after_answering(turn, connection),
            keys,
        })
    }

    /// What one end signs.
    fn signed<'a>(
        &'a self,
        keys: &'a IkeKeys,
        side: Side,
        id: &'a IdBody,
        int_auth: &'a [u8],
    ) -> SignedOctets<'a> {
        let (message, nonce) = match side {
            Side::Initiator => (&self.request, &self.nonces.responder),
            Side::Responder => (&self.response, &self.nonces.initiator),
        };
        SignedOctets {
            prf: self.proposal.prf,
            message,
            nonce,
            sk_p: keys.sk_p(side),
            id: &id.raw,
            intermediate: int_auth,
        }
    }

    /// The keys and the AUTH data that count, by whether both ends have the PPK that the request
    /// names (the table of RFC 8784 section 3).
    fn mixed<'a>(
        &self,
        connection: &'a Connection,
        data: &'a [u8],
        contents: &Contents<'a>,
    ) -> Result<(IkeKeys, &'a [u8], Option<&'a Ppk>), String> {
        let settings = connection.auth.ppk.as_ref();
        let named = contents.has(NotifyKind::PPK_IDENTITY);
        if let Some(ppk) = settings.and_then(|s| s.named(contents)) {
            return Ok((self.keys.with_ppk(&ppk.key), data, Some(ppk)));
        }
        if settings.is_some_and(|s| s.required) {
            return Err("the peer uses no PPK that is known here, and one is required".to_owned());
        }
        if !named {
            return Ok((self.keys.clone(), data, None));
        }
        let without =
            offered_without(contents).ok_or("the peer insists on a PPK that is not known here")?;
        Ok((self.keys.clone(), without, None))
    }

    fn established(
        &mut self,
        turn: &mut Turn<'_>,
        path: Path,
        contents: &Contents<'_>,
        admitted: Admitted,
    ) -> Progress {
        let Admitted {
            connection,
            local_id,
            mut payloads,
            authenticated,
            keys,
        } = admitted;
        self.fragmenting = self.fragmenting.on(&connection);
        let (message_id_sync, replay_counter_sync) = negotiated(&connection, contents);
        let peer_id = contents.initiator_id.map(|id| id.id.clone());
        let mut ike = IkeSa::new(
            turn,
            Birth {
                connection: connection.clone(),
                initiator: false,
                local_spi: self.spi,
                remote_spi: self.remote_spi,
                proposal: self.proposal,
                keys,
                // RFC 7296 section 2.23: the peer may have floated to port 4500.
                path,
                nat: self.nat,
                local_id,
                remote_id: peer_id.unwrap_or(Identification::Any),
                message_id_sync,
                replay_counter_sync,
                fragmenting: self.fragmenting,
                window: Window::new(
                    MessageId(0),
                    self.message_id(),
                    connection.roads.window_size.get(),
                ),
            },
        );
        turn.events.extend(self.intermediate.log());
        turn.events.push(Event::IkeEstablished {
            ike: ike.local_spi,
            connection: connection.name.clone(),
        });
        ike.mobike = mobike::negotiated(&connection, false, path, contents);
        turn.effects.extend(connection.others(false, contents));
        ike.rest_on(authenticated, turn);
        self.resumed(turn);
        payloads.extend(lifetime(turn.now, &ike.authenticated));
        payloads.extend(self.child_or_redirect(&mut ike, turn, contents));
        payloads.extend(besides(&mut ike, turn, path, contents));
        let Some(bytes) = self.seal(turn, Exchange::IkeAuth, &payloads) else {
            return Progress::Failed;
        };
        ike.window.answered(self.message_id(), None, bytes.clone());
        turn.transmits.push(path.transmit(bytes));
        turn.dirty = true;
        Progress::Established(Box::new(ike))
    }

    /// RFC 5685 section 6: a client that is sent elsewhere gets no Child SA, and deletes the IKE SA.
    fn child_or_redirect(
        &self,
        ike: &mut IkeSa,
        turn: &mut Turn<'_>,
        contents: &Contents<'_>,
    ) -> Vec<Payload> {
        ike.redirectable = self.redirectable.is_able();
        let to = ike.connection.roads.redirect_to;
        let Some(to) = to.filter(|to| self.redirectable.can_go(*to)) else {
            return self.first_child(ike, turn, contents);
        };
        ike.forget_at = Some(turn.now + DELETE_GRACE);
        vec![redirect::order(to, &[])]
    }

    /// The Child SA that the request asks for; a refusal leaves the IKE SA (RFC 7296 section 1.2).
    fn first_child(
        &self,
        ike: &mut IkeSa,
        turn: &mut Turn<'_>,
        contents: &Contents<'_>,
    ) -> Vec<Payload> {
        let mut payloads = match virtual_ip::answer(ike, turn, contents) {
            Ok(configuration) => Vec::from_iter(configuration),
            Err(kind) => return vec![refused(ike, turn, kind)],
        };
        if contents.proposals.is_none() {
            return payloads;
        }
        // RFC 6023: whoever asks all the same gets the IKE SA alone.
        if ike.connection.roads.childless == Childless::Force {
            payloads.push(refused(ike, turn, NotifyKind::NO_ADDITIONAL_SAS));
            return payloads;
        }
        match child::choose(ike, contents, None, Ask::First) {
            Ok(terms) => match turn.ids.spi(turn.entropy) {
                Some(spi) => {
                    let id = turn.ids.sa();
                    payloads.extend(child::answer(&terms, spi, Ask::First));
                    install_first(ike, turn, &self.nonces, terms, (id, spi));
                }
                None => payloads.push(refused(ike, turn, NotifyKind::NO_ADDITIONAL_SAS)),
            },
            Err(kind) => payloads.push(refused(ike, turn, kind)),
        }
        payloads
    }
}

/// What we can besides, in answer to what the peer can.
fn besides(
    ike: &mut IkeSa,
    turn: &mut Turn<'_>,
    path: Path,
    contents: &Contents<'_>,
) -> Vec<Payload> {
    let connection = ike.connection.clone();
    if let Some(size) = contents.window_size() {
        ike.window.peer_allows(size);
    }
    ike.take_token(turn, contents);
    let mut payloads = Vec::new();
    payloads.extend(capabilities(&connection, Some(contents)));
    payloads.extend(mobike::capabilities(&connection, path, Some(contents)));
    payloads.extend(ike.window.announce());
    payloads.extend(crash::offer(turn.settings, &connection, ike.spis()));
    payloads.extend(tickets::grant(ike, turn, contents));
    payloads
}

/// Where a NAT is, by the first request.
fn detected(header: &Header, path: Path, contents: &Contents<'_>, forced: bool) -> Nat {
    let found = contents.notifies.iter().copied();
    Nat {
        forced,
        ..nat::detect(header.initiator_spi, IkeSpi(0), path, found)
    }
}

fn refused(ike: &IkeSa, turn: &mut Turn<'_>, kind: NotifyKind) -> Payload {
    turn.events.push(Event::NegotiationFailed {
        peer: ike.path.remote,
        reason: format!("first child: {kind}"),
    });
    Payload::notify(kind, &[])
}
