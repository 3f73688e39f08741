//! Make-before-break reauthentication (RFC 7296 section 2.8.3): a new IKE SA with Child SAs of its
//! own, then the Delete of the old one. Who sent IKE_AUTH does it again; who answered it says by
//! when (AUTH_LIFETIME, RFC 4478), and ends an IKE SA that the peer lets pass.

use std::time::Duration;

use hitless_sa::{Entropy, IkeSpi, Instant};

use super::state::Authenticated;
use crate::ike::contents::Contents;
use crate::ike::engine::Engine;
use crate::ike::established::{IkeSa, State};
use crate::ike::initial::Initiator;
use crate::ike::message::{NotifyKind, Payload};
use crate::ike::settings::Connection;
use crate::ike::tasks::Task;
use crate::ike::turn::{Effect, Turn};

/// What a peer may be late by, as a part of its time.
const PATIENCE: u32 = 10;
/// How long before it has to a peer may come, in such parts: most come when they still have a tenth or two
/// of what they were told.
const EARLY: u32 = 4;
/// A peer that asks for new IKE_AUTHs faster than this gets them this often.
const SHORTEST: Duration = Duration::from_secs(10);

/// AUTH_LIFETIME for the IKE_AUTH response (RFC 4478 section 3): what is left until we end the
/// IKE SA, which after a resumption is less than `reauth_time`, without what a peer may be late by.
pub(in crate::ike) fn lifetime(now: Instant, authenticated: &Authenticated) -> Option<Payload> {
    let left = authenticated.reauth_at?.since(now);
    let time = left / (PATIENCE + 1) * PATIENCE;
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1);
    Some(Payload::notify(
        NotifyKind::AUTH_LIFETIME,
        &seconds.to_be_bytes(),
    ))
}

/// Within what time the peer wants a new IKE_AUTH of us.
fn demanded(contents: &Contents<'_>) -> Option<Duration> {
    let told = contents.notify(NotifyKind::AUTH_LIFETIME)?;
    let seconds = u32::from_be_bytes(told.data.as_slice().try_into().ok()?);
    // A tenth early, so that the new one is there in time.
    Some((Duration::from_secs(seconds.into()) / 10 * 9).max(SHORTEST))
}

impl Authenticated {
    /// After an IKE_AUTH that we sent: earlier than we want it or the peer demands it, by chance.
    pub fn after_asking(
        mut self,
        turn: &mut Turn<'_>,
        connection: &Connection,
        contents: &Contents<'_>,
    ) -> Authenticated {
        self.asked = true;
        let own = self.left(turn, connection.auth.reauth_time);
        let time = demanded(contents)
            .filter(|demanded| own.is_zero() || *demanded < own)
            .unwrap_or(own);
        // The peer may show a fresh certificate before the one that it has shown expires.
        let valid = self.valid_for(turn).map(|valid| valid.max(SHORTEST));
        let time = valid
            .filter(|valid| time.is_zero() || *valid < time)
            .unwrap_or(time);
        self.reauth_at = turn.lifetime(time);
        self
    }

    /// What is left of the certificate that the peer showed: "not after" is its last second (RFC 5280
    /// section 4.1.2.5).
    fn valid_for(&self, turn: &Turn<'_>) -> Option<Duration> {
        let today = turn.settings.time_of_day.at(turn.now)?;
        let end = Duration::from_secs(self.proven.not_after?.saturating_add(1));
        Some(end.saturating_sub(today))
    }

    /// When the peer is nobody any more whom it has proven to be.
    pub fn expires_at(&self, turn: &Turn<'_>) -> Option<Instant> {
        self.valid_for(turn).map(|left| turn.now + left)
    }

    /// What is left of a time that began with the last IKE_AUTH in full: a resumption is none
    /// (RFC 5723 section 5).
    fn left(&self, turn: &Turn<'_>, time: Duration) -> Duration {
        if time.is_zero() {
            return time;
        }
        let began = self.proven.grounds.as_ref();
        let began = began.map(|grounds| Duration::from_secs(grounds.at()));
        let today = turn.settings.time_of_day.at(turn.now);
        let passed = began
            .zip(today)
            .map(|(began, today)| today.saturating_sub(began));
        time.saturating_sub(passed.unwrap_or_default())
            .max(SHORTEST.min(time))
    }

    /// After an IKE_AUTH that we answered.
    pub fn after_answering(mut self, turn: &Turn<'_>, connection: &Connection) -> Authenticated {
        let time = connection.auth.reauth_time;
        let at = (!time.is_zero()).then(|| turn.now + time + time / PATIENCE);
        // With a certificate that is about to expire the peer has to come sooner.
        let expires_at = self.expires_at(turn);
        self.reauth_at = at.map(|at| expires_at.map_or(at, |end| end.min(at)));
        self
    }
}

impl IkeSa {
    /// RFC 4478 section 3: who answered IKE_AUTH may say by when it wants a new one in an INFORMATIONAL
    /// exchange, too. What is due sooner stays: this is a limit, and not the only one.
    pub fn take_auth_lifetime(&mut self, turn: &mut Turn<'_>, contents: &Contents<'_>) {
        let Some(demanded) = demanded(contents).filter(|_| self.authenticated.asked) else {
            return;
        };
        let at = turn.lifetime(demanded);
        let at = at.into_iter().chain(self.authenticated.reauth_at).min();
        turn.dirty |= at != self.authenticated.reauth_at;
        self.authenticated.reauth_at = at;
    }

    /// Whether a new IKE_AUTH is due, and what then.
    pub fn reauthenticate(&mut self, turn: &mut Turn<'_>) {
        if self.authenticated.reauth_at.is_none_or(|at| at > turn.now) {
            return;
        }
        turn.dirty = true;
        if !self.authenticated.asked {
            self.authenticated.reauth_at = None;
            return self.schedule(turn.now, Task::DeleteIke);
        }
        // Once more if this attempt leads nowhere.
        let again = turn.long_pause();
        self.authenticated.reauth_at = Some(turn.now + again);
        turn.effects.push(Effect::Reauthenticate(self.names()));
    }

    /// Whether the peer's new IKE_AUTH is to be expected.
    pub fn is_to_come_again(&self, now: Instant) -> bool {
        let time = self.connection.auth.reauth_time / PATIENCE * EARLY;
        let at = self.authenticated.reauth_at;
        !self.authenticated.asked && at.is_some_and(|at| at <= now + time)
    }

    /// Deletes the IKE SA that this one replaces once it carries what that one did.
    pub fn replace_old(&mut self, turn: &mut Turn<'_>) {
        let Some(old) = self.authenticated.replaces else {
            return;
        };
        let making = self.is_making();
        let mut queue = self.queue.iter();
        let waiting = queue.any(|s| matches!(s.task, Task::CreateChild(_)));
        if making || waiting || self.state != State::Established {
            return;
        }
        self.authenticated.replaces = None;
        turn.dirty = true;
        turn.effects.push(Effect::Delete(old));
    }
}

impl Engine {
    /// What is to take the place of an IKE SA that was rekeyed meanwhile, by whichever side, takes that of
    /// its successor; gives what is established of it.
    pub(in crate::ike) fn still_replaces(&mut self, old: &IkeSa, to: IkeSpi) -> Vec<IkeSpi> {
        // There are few of a connection that we initiate.
        if !old.authenticated.asked || !self.sas.contains_key(&to) {
            return Vec::new();
        }
        let (of_old, connection) = (Some(old.local_spi), &old.connection.name);
        self.initiators
            .replace_instead(connection, old.local_spi, to);
        let mut changed = Vec::new();
        for spi in self.index.of_connection(connection) {
            let other = self.sas.get_mut(&spi);
            if let Some(other) = other.filter(|other| other.authenticated.replaces == of_old) {
                other.authenticated.replaces = Some(to);
                changed.push(spi);
            }
        }
        changed
    }

    /// Starts the IKE SA that takes the place of this one.
    pub(in crate::ike) fn reauthenticate(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        old: &IkeSa,
        children: Vec<String>,
    ) {
        let replaces = |i: &Initiator| i.replaces == Some(old.local_spi);
        if self.initiators.values().any(replaces) {
            return;
        }
        let mut turn = Turn::new(now, entropy, &self.settings, &mut self.ids);
        let mut children = children.into_iter();
        let first = children.next();
        // No INITIAL_CONTACT: the old one lives (RFC 7296 section 2.8.3).
        let started = Initiator::start(&mut turn, old.connection.clone(), first, false, None);
        let results = turn.finish();
        self.emit(results.immediate, results.events);
        if let Some(mut initiator) = started {
            initiator.children.extend(children);
            initiator.replaces = Some(old.local_spi);
            initiator.keep_addresses(old);
            self.timers.set(initiator.spi, Some(initiator.deadline()));
            self.initiators.insert(initiator);
        }
    }
}
