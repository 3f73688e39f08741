//! Where a datagram belongs, and half-open IKE SAs.

use std::sync::Arc;
use std::time::Duration;

use hitless_sa::{Entropy, IkeSpi, Instant};

use super::contents::Contents;
use super::crowd::{LONGEST_FIRST_REQUEST, Request, Source, Verdict};
use super::engine::Engine;
use super::established::{IkeSa, State};
use super::initial::{Admission, Initiator, LoginStands, Progress, Responder, stateless};
use super::message::{
    Exchange, FragmentPlace, Header, MessageError, NotifyKind, Parsed, Payload, emit, parse,
};
use super::nat::Path;
use super::output::{Event, Output, Transmit};
use super::proposal::KeyExchangeMethod;
use super::settings::Connection;
use super::tasks::Task;
use super::turn::Turn;
use super::work;

/// Refusals in clear, in all, at once and in each [`ALL_REFUSALS`].
const REFUSALS: u32 = 256;
const ALL_REFUSALS: Duration = Duration::from_secs(1);

impl Engine {
    pub(super) fn dropped(&mut self, path: Path, reason: &'static str) {
        self.outputs.push_back(Output::Event(Event::Dropped {
            peer: path.remote,
            reason,
        }));
    }

    pub(super) fn datagram(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        path: Path,
        datagram: &[u8],
    ) {
        if !self.leading {
            return self.dropped(path, "standing by");
        }
        work::count(work::MESSAGE);
        if datagram.len() > LONGEST_FIRST_REQUEST && is_long_first_request(datagram) {
            return self.dropped(path, "IKE_SA_INIT too long");
        }
        match parse(datagram) {
            Ok(Parsed::Clear { header, payloads }) if header.exchange.is_first() => {
                self.init(now, entropy, path, &header, &payloads, datagram);
            }
            Ok(Parsed::Clear { header, payloads }) => {
                self.in_clear(now, entropy, path, &header, &payloads);
            }
            Ok(Parsed::Protected { header, .. }) => {
                self.protected(now, entropy, path, &header, (None, datagram));
            }
            Ok(Parsed::Fragment { header, place, .. }) => {
                self.protected(now, entropy, path, &header, (Some(place), datagram));
            }
            Err(error) => {
                self.dropped(path, error.reason());
                self.refuse(now, path, &error, datagram);
            }
        }
    }

    /// RFC 7296 sections 2.5 and 2.21.1: the few errors that are told in clear, and only to a
    /// first request, and that of section 2.5 to any request of a later major version: "MUST drop
    /// the message and SHOULD send an unauthenticated Notify message of type
    /// INVALID_MAJOR_VERSION containing the highest (closest) version number it supports". Whoever
    /// forges its source has us send no more of them than [`REFUSALS`] a second.
    fn refuse(&mut self, now: Instant, path: Path, error: &MessageError, datagram: &[u8]) {
        let Some(refusal) = refusal(path, error, datagram) else {
            return;
        };
        if !self.refusals.is_left(now, ALL_REFUSALS) {
            return;
        }
        self.refusals.spend(now, ALL_REFUSALS / REFUSALS);
        self.outputs.push_back(Output::Transmit(refusal));
    }

    fn init(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        path: Path,
        header: &Header,
        payloads: &[Payload],
        datagram: &[u8],
    ) {
        if is_first_request(header) {
            return self.first_request(now, entropy, path, header, payloads, datagram);
        }
        let asked = header.initiator_spi;
        let Some(mut initiator) = self.initiators.remove(&asked) else {
            return self.dropped(path, "unknown IKE SA");
        };
        if header.initiator || path.remote.ip() != initiator.path.remote.ip() {
            self.initiators.insert(initiator);
            return self.dropped(path, "IKE_SA_INIT from elsewhere");
        }
        // Another may have come up meanwhile, and must not be ended by it.
        initiator.initial_contact &= self.is_only_contact(&initiator.connection);
        let mut turn = Turn::new(now, entropy, &self.settings, &mut self.ids);
        match header.exchange {
            Exchange::IkeSessionResume => {
                initiator.resume_response(&mut turn, path, header, payloads, datagram);
            }
            _ => initiator.init_response(&mut turn, path, header, payloads, datagram),
        }
        let results = turn.finish();
        self.emit(results.immediate, results.events);
        self.goes_on(asked, initiator);
    }

    /// It may go on under another SPI.
    pub(super) fn goes_on(&mut self, spi: IkeSpi, initiator: Initiator) {
        self.timers.set(spi, None);
        self.timers.set(initiator.spi, Some(initiator.deadline()));
        self.initiators.insert(initiator);
    }

    /// An IKE_SA_INIT request.
    fn first_request(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        path: Path,
        header: &Header,
        payloads: &[Payload],
        datagram: &[u8],
    ) {
        let known = self.half_open.named(path.remote, header.initiator_spi);
        if let Some(responder) = known {
            // RFC 7296 section 2.1: a repetition gets the same answer; another request from the
            // same place must not disturb the first.
            if responder.request != datagram {
                return self.dropped(path, "half-open already");
            }
            let limits = &self.settings.limits;
            let source = Source::of(path.remote.ip());
            if !self.crowd.repeats(now, limits, source) {
                return self.dropped(path, "IKE_SA_INIT repeated too often");
            }
            let answer = path.transmit(responder.response.clone());
            return self.outputs.push_back(Output::Transmit(answer));
        }
        if !self.admits(now, entropy, path, header, &Contents::of(payloads)) {
            return;
        }
        let meant = self.meant.among(&self.connections, path);
        let mut turn = Turn::new(now, entropy, &self.settings, &mut self.ids);
        let admission = match header.exchange {
            // A ticket names its connection.
            Exchange::IkeSessionResume => {
                let all = &self.connections;
                Responder::resume(&mut turn, all, path, header, payloads, datagram)
            }
            _ => Responder::admit(&mut turn, &meant, path, header, payloads, datagram),
        };
        let results = turn.finish();
        self.emit(results.immediate, results.events);
        if let Admission::HalfOpen(responder) = admission {
            self.timers.set(responder.spi, Some(responder.expires));
            self.half_open.insert(*responder);
            self.make_way(path);
        }
    }

    /// RFC 8019 section 4: what is full of the half-open IKE SAs of a few keeps nobody else out.
    fn make_way(&mut self, path: Path) {
        let most = self.settings.limits.init_limit_half_open;
        while self.half_open.len() > most
            && let Some(spi) = self.half_open.gives_way()
        {
            self.half_open.remove(spi);
            self.timers.set(spi, None);
            self.dropped(path, "a half-open IKE SA gave way to another");
        }
    }

    /// Whether a first request is to be served now. Else it was dropped, or a cookie was demanded
    /// of it (RFC 7296 section 2.6), for which nothing is kept.
    fn admits(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        path: Path,
        header: &Header,
        contents: &Contents<'_>,
    ) -> bool {
        let Some(nonce) = contents.valid_nonce() else {
            self.dropped(path, "IKE_SA_INIT without nonce");
            return false;
        };
        let spi = header.initiator_spi;
        let brought = contents.notify(NotifyKind::COOKIE);
        let verified =
            brought.is_some_and(|c| self.cookies.verify(path.remote, spi, nonce, &c.data));
        let method = contents.key_exchange.map(|(method, _)| method);
        let method = method.and_then(KeyExchangeMethod::from_number);
        let source = Source::of(path.remote.ip());
        let request = Request {
            source,
            verified,
            // A ticket may name a whole chain of certificates.
            costly: header.exchange == Exchange::IkeSessionResume
                || method.is_some_and(KeyExchangeMethod::is_costly),
            half_open: self.half_open.len(),
            of_source: self.half_open.of(source),
            displaces: self.half_open.displaces(path.remote.ip()),
        };
        match self.crowd.judge(now, &self.settings.limits, request) {
            Verdict::Serve => return true,
            Verdict::Drop(reason) => self.dropped(path, reason),
            Verdict::DemandCookie => {
                self.dropped(
                    path,
                    match brought {
                        Some(_) => "not a cookie of ours",
                        None => "cookie demanded",
                    },
                );
                let cookie = self.cookies.issue(now, entropy, path.remote, spi, nonce);
                if let Some(cookie) = cookie {
                    let demand = Payload::notify(NotifyKind::COOKIE, &cookie);
                    let answer = stateless(path, header, demand);
                    self.outputs.push_back(Output::Transmit(answer));
                }
            }
        }
        false
    }

    fn protected(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        path: Path,
        header: &Header,
        (place, datagram): (Option<FragmentPlace>, &[u8]),
    ) {
        // The I flag tells which of the SPIs its sender chose.
        let (ours, theirs) = if header.initiator {
            (header.responder_spi, header.initiator_spi)
        } else {
            (header.initiator_spi, header.responder_spi)
        };
        if let Some(ike) = self.sas.get(&ours) {
            if ike.remote_spi != theirs {
                return self.dropped(path, "unknown IKE SA");
            }
            self.with(now, entropy, ours, |ike, turn| match place {
                None => ike.receive(turn, path, header, datagram),
                Some(place) => ike.receive_fragment(turn, path, header, place, datagram),
            });
            return self.bury(now, ours, datagram);
        }
        if let Some(responder) = self.half_open.get(ours) {
            if responder.remote_spi != theirs {
                return self.dropped(path, "unknown IKE SA");
            }
            return self.respond(now, entropy, ours, path, header, (place, datagram));
        }
        if self.initiators.contains(&ours) {
            return self.conclude(now, entropy, ours, path, header, (place, datagram));
        }
        if !self.show_token(now, path, header) && !self.disown(now, path, header, place) {
            self.exhume(path, ours, datagram);
        }
    }

    /// A message for an IKE SA that a peer initiates.
    fn respond(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        spi: IkeSpi,
        path: Path,
        header: &Header,
        message: (Option<FragmentPlace>, &[u8]),
    ) {
        let connections = &self.meant.among(&self.connections, path);
        let mut turn = Turn::new(now, entropy, &self.settings, &mut self.ids);
        let most = self.settings.limits.waiting_fragments;
        // Where it completed IKE_SA_INIT: a copy of its datagram can come from anywhere.
        let completed = self.half_open.get(spi).map_or(path, |r| r.path);
        let source = Source::of(completed.remote.ip());
        let limits = &self.settings.limits;
        let may_log_in = self.crowd.may_log_in(now, limits, source);
        let progress = self.half_open.with(spi, most, |responder| {
            responder.may_log_in = may_log_in;
            let before = responder.login_stands();
            let progress =
                responder.protected_request(&mut turn, connections, path, header, message);
            (progress, before, responder.login_stands())
        });
        let Some(((mut progress, before, after), given_up)) = progress else {
            return;
        };
        if before != after && after != LoginStands::Nowhere {
            let failed = after == LoginStands::Refused;
            self.crowd.logs_in(now, limits, source, failed);
        }
        for _ in 0..given_up {
            turn.drop(path.remote, "too many fragments for half-open IKE SAs");
        }
        let mut results = turn.finish();
        if let Progress::Established(ike) = &progress
            && let Some(reason) = self.turns_away(now, ike, &results.effects)
        {
            for child in &ike.children {
                self.ids.release(child.sa.inbound_spi);
            }
            let mut turn = Turn::new(now, entropy, &self.settings, &mut self.ids);
            let kind = NotifyKind::AUTHENTICATION_FAILED;
            let reason = reason.to_owned();
            self.half_open.with(spi, most, |responder| {
                responder.turn_away(&mut turn, path, message.1, kind, reason);
            });
            (results, progress) = (turn.finish(), Progress::Waiting);
        }
        self.emit(std::mem::take(&mut results.immediate), Vec::new());
        match progress {
            Progress::Waiting => self.emit(Vec::new(), results.events),
            Progress::Established(ike) => {
                self.half_open.remove(spi);
                self.settle(now, entropy, ike, results);
            }
            Progress::Failed => {
                self.emit(Vec::new(), results.events);
                self.half_open.remove(spi);
                self.timers.set(spi, None);
            }
        }
    }

    /// An IKE_AUTH response for an IKE SA that we initiate.
    fn conclude(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        spi: IkeSpi,
        path: Path,
        header: &Header,
        message: (Option<FragmentPlace>, &[u8]),
    ) {
        let Some(mut initiator) = self.initiators.remove(&spi) else {
            return;
        };
        initiator.initial_contact &= self.is_only_contact(&initiator.connection);
        let mut turn = Turn::new(now, entropy, &self.settings, &mut self.ids);
        let progress = initiator.protected_response(&mut turn, path, header, message);
        let mut results = turn.finish();
        self.emit(std::mem::take(&mut results.immediate), Vec::new());
        match progress {
            Progress::Waiting => {
                self.emit(Vec::new(), results.events);
                self.goes_on(spi, initiator);
            }
            Progress::Established(ike) => {
                if ike.authenticated.replaces != initiator.replaces {
                    self.redirect_failed(&initiator);
                }
                self.settle(now, entropy, ike, results);
            }
            Progress::Failed => {
                self.emit(Vec::new(), results.events);
                self.timers.set(spi, None);
                self.abandoned(now, &mut initiator);
            }
        }
    }

    pub(super) fn half_open_timeout(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        spi: IkeSpi,
    ) {
        self.half_open.remove(spi);
        let Some(mut initiator) = self.initiators.remove(&spi) else {
            return;
        };
        let mut turn = Turn::new(now, entropy, &self.settings, &mut self.ids);
        let goes_on = initiator.tick(&mut turn);
        let results = turn.finish();
        self.emit(results.immediate, results.events);
        if goes_on {
            self.goes_on(spi, initiator);
        } else {
            self.abandoned(now, &mut initiator);
        }
    }

    fn abandoned(&mut self, now: Instant, initiator: &mut Initiator) {
        initiator.release(&mut self.ids);
        self.redirect_failed(initiator);
        for child in &initiator.children {
            self.lost(now, &initiator.connection.name, child);
        }
    }

    pub(super) fn remove_initiator(&mut self, spi: IkeSpi) {
        if let Some(mut initiator) = self.initiators.remove(&spi) {
            initiator.release(&mut self.ids);
            self.timers.set(spi, None);
        }
    }

    pub(super) fn emit(&mut self, immediate: Vec<Transmit>, events: Vec<Event>) {
        self.outputs
            .extend(immediate.into_iter().map(Output::Transmit));
        self.outputs.extend(events.into_iter().map(Output::Event));
    }

    /// Initiates a child: on the IKE SA that is there, or with a new one.
    pub(super) fn initiate(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        name: &str,
        child: Option<String>,
    ) {
        let found = self.by_name.get(name).cloned();
        let Some(connection) = found.filter(|_| self.leading) else {
            return;
        };
        let child = child.or_else(|| connection.children.first().map(|c| c.name.clone()));
        // What is being deleted is no reason not to: whoever asks knows that.
        let kept = |child: &String| {
            let sas = self.index.of_connection(name);
            let mut sas = sas.filter_map(|spi| self.sas.get(&spi));
            sas.any(|sa| sa.state != State::Deleting && sa.keeps(child))
        };
        if child.as_ref().is_some_and(kept) {
            return;
        }
        let mut sas = self
            .index
            .of_connection(name)
            .filter_map(|spi| self.sas.get(&spi));
        let usable = sas
            .find(|sa| sa.state == State::Established)
            .map(|sa| sa.local_spi);
        drop(sas);
        if let Some(spi) = usable {
            return self.with(now, entropy, spi, |ike, turn| {
                if let Some(child) = child {
                    ike.schedule(turn.now, Task::CreateChild(child));
                }
                ike.advance(turn);
            });
        }
        if let Some(initiator) = self.initiators.of_connection(name) {
            initiator
                .children
                .extend(child.filter(|c| !initiator.children.contains(c)));
            return;
        }
        self.connect(now, entropy, connection, child);
    }

    fn connect(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        connection: Arc<Connection>,
        child: Option<String>,
    ) {
        // RFC 7296 section 2.4: only if this is our one IKE SA with the peer.
        let initial_contact = self.is_first_contact(&connection);
        let held = self.ticket(now, &connection);
        let mut turn = Turn::new(now, entropy, &self.settings, &mut self.ids);
        let initiator = Initiator::start(&mut turn, connection, child, initial_contact, held);
        let results = turn.finish();
        self.emit(results.immediate, results.events);
        if let Some(initiator) = initiator {
            self.timers.set(initiator.spi, Some(initiator.deadline()));
            self.initiators.insert(initiator);
        }
    }

    /// A child ended or was refused: if it is to be up, try again.
    pub(super) fn lost(&mut self, now: Instant, connection: &str, child: &str) {
        let found = self.by_name.get(connection);
        if found.is_some_and(|c| c.children.iter().any(|c| c.name == child && c.start)) {
            self.starts.lost(connection, child, now);
        }
    }

    /// Whether a child is up or being made on an IKE SA that `counts`.
    pub(super) fn serves(
        &self,
        connection: &str,
        child: &str,
        counts: impl Fn(&IkeSa) -> bool,
    ) -> bool {
        let mut sas = self
            .index
            .of_connection(connection)
            .filter_map(|spi| self.sas.get(&spi));
        sas.any(|sa| counts(sa) && sa.serves(child))
    }
}

/// What is told in clear to the sender of something that cannot be read, if anything is.
fn refusal(path: Path, error: &MessageError, datagram: &[u8]) -> Option<Transmit> {
    if let Some(request) = Header::of_later_version(datagram).filter(|h| !h.response) {
        let header = Header {
            response: true,
            initiator: !request.initiator,
            ..request
        };
        let refusal = Payload::notify(NotifyKind::INVALID_MAJOR_VERSION, &[2]);
        return Some(path.transmit(emit(&header, &[refusal])));
    }
    let MessageError::UnsupportedCritical(kind) = error else {
        return None;
    };
    let header = Header::parse(datagram).ok().filter(is_first_request)?;
    let refusal = Payload::notify(NotifyKind::UNSUPPORTED_CRITICAL_PAYLOAD, &[kind.0]);
    Some(stateless(path, &header, refusal))
}

/// Something in clear that nobody has a reason to make long.
fn is_long_first_request(datagram: &[u8]) -> bool {
    Header::parse(datagram).is_ok_and(|header| header.exchange.is_first())
}

/// An IKE_SA_INIT request.
fn is_first_request(header: &Header) -> bool {
    header.exchange.is_first()
        && header.initiator
        && !header.response
        && header.responder_spi == IkeSpi(0)
        && header.message_id.0 == 0
}
