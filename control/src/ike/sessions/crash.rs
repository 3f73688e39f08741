//! Quick crash detection (RFC 6290): a token that each end gives the other over the IKE SA, and
//! shows in clear once it knows that IKE SA no more.
//!
//! The token is a function of the cluster's secret and the SPIs, so that each member makes it, and
//! one that was restarted too (section 5.1). A member shows it only while it leads: a standby must
//! not, for the IKE SA lives (section 8, RFC 6311 section 3.9), and its engine answers nothing.
//! A leader knows every IKE SA that was ever released to it, those that wait for their end included;
//! but of what another member makes alone, behind a partition, it knows nothing. So a member shows
//! tokens for the SPIs of its own part only: other peers find out by their liveness checks. And one that
//! leads on nothing shows none before it hears all the others: whoever took its IKE SAs over may carry
//! them still.
//!
//! What RFC 6290 section 9 asks to be considered:
//!
//! * Tokens are 32 octets of HMAC-SHA-256, whose key is stretched from the cluster's secret: neither
//!   to be guessed, nor to be told from random without that secret (9.1).
//! * An attacker that asks for tokens gets none for an IKE SA that lives, is half-open, in its grave
//!   or may be another member's; and the rate of all is bounded (9.2, 9.3).
//! * A shown token ends an IKE SA only while an own request is unanswered, for both SPIs, from the
//!   peer's address, and by a comparison in constant time. What ends it lets the peer be asked
//!   anew, with a ticket or in full.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use hitless_sa::{Entropy, IkeSpi, Instant};

use crate::ike::contents::Contents;
use crate::ike::crowd::Source;
use crate::ike::crypto::prf::equal;
use crate::ike::engine::Engine;
use crate::ike::established::{IkeSa, State};
use crate::ike::message::{Exchange, Header, NotifyKind, Payload};
use crate::ike::nat::Path;
use crate::ike::settings::{Connection, EngineSettings};
use crate::ike::tasks::{Pending, Task};
use crate::ike::turn::Turn;

/// RFC 6290 section 4.1: TOKEN_SECRET_DATA has 16 to 128 octets.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=128;
/// Tokens that are shown in one interval at most, of all: who floods us learns nothing more, and
/// the others find out by their liveness checks.
const SHOWN: u32 = 256;
/// Of them to one source: a stranger leaves the rest to the others.
const SHARE: u32 = 16;
const INTERVAL: Duration = Duration::from_secs(1);

/// How often something was said in clear lately: tokens, or hints (`initial/disowned.rs`).
#[derive(Default)]
pub(in crate::ike) struct Shown {
    since: Option<Instant>,
    count: u32,
    /// As many as were shown, at most.
    sources: BTreeMap<Source, u32>,
}

impl Shown {
    pub(in crate::ike) fn may(&mut self, now: Instant, remote: IpAddr) -> bool {
        if self.since.is_none_or(|since| now.since(since) >= INTERVAL) {
            *self = Shown {
                since: Some(now),
                ..Shown::default()
            };
        }
        if self.count >= SHOWN {
            return false;
        }
        let shown = self.sources.entry(Source::of(remote)).or_default();
        let may = *shown < SHARE;
        if may {
            *shown += 1;
            self.count += 1;
        }
        may
    }
}

/// Our token for an IKE SA with these SPIs, the original initiator's first.
fn token(settings: &EngineSettings, (initiator, responder): (IkeSpi, IkeSpi)) -> Option<Payload> {
    let mut spis = [0; 16];
    let (first, second) = spis.split_at_mut(8);
    first.copy_from_slice(&initiator.0.to_be_bytes());
    second.copy_from_slice(&responder.0.to_be_bytes());
    let data = settings.cluster_secret.derive("crash token", &spis)?;
    // RFC 6290 section 4.1 with erratum 3449: no protocol.
    Some(Payload::notify(NotifyKind::QUICK_CRASH_DETECTION, &data))
}

/// Our token for IKE_AUTH, if the connection wants crashes detected (RFC 6290 section 4.2).
pub(in crate::ike) fn offer(
    settings: &EngineSettings,
    connection: &Connection,
    spis: (IkeSpi, IkeSpi),
) -> Option<Payload> {
    let wanted = connection.session.crash_detection;
    wanted.then(|| token(settings, spis)).flatten()
}

/// The peer's token, if the connection wants crashes detected and the peer gave one.
pub(in crate::ike) fn taken(connection: &Connection, contents: &Contents<'_>) -> Option<Vec<u8>> {
    let given = contents.notify(NotifyKind::QUICK_CRASH_DETECTION)?;
    let fits = connection.session.crash_detection && LENGTHS.contains(&given.data.len());
    fits.then(|| given.data.clone())
}

impl IkeSa {
    /// The peer replaces its token, as after each rekeying (RFC 6290 sections 4.3 and 4.4).
    pub fn take_token(&mut self, turn: &mut Turn<'_>, contents: &Contents<'_>) {
        if let Some(token) = taken(&self.connection, contents) {
            self.session.peer_token = Some(token);
            turn.dirty = true;
        }
    }

    /// A successor has other SPIs: the peer needs another token. Whoever initiated the rekeying can
    /// make it no sooner than now; the other, if its answer had none, not before the peer knows the
    /// successor.
    pub fn give_token_later(&mut self, turn: &mut Turn<'_>) {
        if self.connection.session.crash_detection {
            let wait = match self.initiator {
                true => Duration::ZERO,
                false => turn.pause(),
            };
            self.schedule(turn.now + wait, Task::CrashToken);
        }
    }

    /// Gives our token in an exchange of its own.
    pub fn give_token(&mut self, turn: &mut Turn<'_>) {
        if let Some(token) = offer(turn.settings, &self.connection, self.spis()) {
            let told = Pending::Duty(Task::CrashToken);
            self.request(turn, Exchange::Informational, &[token], told);
        }
    }

    /// Whether a message in clear proves that the peer knows this IKE SA no more: it answers our
    /// request and shows the token (RFC 6290 section 4.5).
    fn is_forgotten(&self, path: Path, header: &Header, contents: &Contents<'_>) -> bool {
        let asked = !self.window.outstanding.is_empty() || self.is_finding_out();
        let Some(token) = &self.session.peer_token else {
            return false;
        };
        let mut shown = contents
            .notifies
            .iter()
            .filter(|n| n.kind == NotifyKind::QUICK_CRASH_DETECTION);
        let from_peer = path.remote.ip() == self.path.remote.ip();
        let ours = self.spis() == (header.initiator_spi, header.responder_spi);
        // All that are shown: old and new tokens of a maker (section 4.5).
        asked && ours && from_peer && shown.any(|n| equal(token, &n.data))
    }
}

impl Engine {
    /// Shows the token for a request on an IKE SA that nobody here knows (RFC 6290 section 4.5);
    /// true if it did. Such an answer is as long as an empty request, and no reason to answer.
    pub(in crate::ike) fn show_token(&mut self, now: Instant, path: Path, header: &Header) -> bool {
        let lives = self.replicated || self.may_know(header);
        if header.response || lives || !self.is_our_own(header) {
            return false;
        }
        if !self.meant.any(path) || !self.tokens.may(now, path.remote.ip()) {
            return false;
        }
        let meant = self.meant.among(&self.connections, path);
        if !meant.iter().any(|c| c.session.crash_detection) {
            return false;
        }
        let spis = (header.initiator_spi, header.responder_spi);
        let Some(token) = token(&self.settings, spis) else {
            return false;
        };
        self.say_unknown(path, header, Some(token));
        self.dropped(path, "unknown IKE SA, crash token shown");
        true
    }

    /// Whether this member, or one that it was before a restart, made our SPI.
    fn is_our_own(&self, header: &Header) -> bool {
        let ours = match header.initiator {
            true => header.responder_spi,
            false => header.initiator_spi,
        };
        ours.0.to_be_bytes().first() == Some(&self.settings.member.0)
    }

    /// Whether either SPI is one of ours, live or buried, or may become one as soon as an answer is
    /// here: never a token for those.
    pub(in crate::ike) fn may_know(&self, header: &Header) -> bool {
        [header.initiator_spi, header.responder_spi]
            .iter()
            .any(|spi| {
                self.sas.contains_key(spi)
                    || self.half_open.get(*spi).is_some()
                    || self.initiators.contains(spi)
                    || self.buried(*spi)
                    || self.index.is_offered(*spi)
            })
    }

    /// A message in clear. One that proves that the peer has lost an IKE SA ends that at once, and
    /// what was up on it is made anew (RFC 6290 section 4.5).
    pub(in crate::ike) fn in_clear(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        path: Path,
        header: &Header,
        payloads: &[Payload],
    ) {
        let contents = Contents::of(payloads);
        if self.disowned(now, entropy, path, header, &contents) {
            return;
        }
        let spis = [header.initiator_spi, header.responder_spi];
        let lost = contents.has(NotifyKind::INVALID_IKE_SPI) && header.response;
        let found = spis.iter().filter_map(|spi| self.sas.get(spi)).find(|ike| {
            lost && ike.state != State::Gone && ike.is_forgotten(path, header, &contents)
        });
        let Some(ike) = found else {
            return self.dropped(path, "not protected");
        };
        let (spi, connection) = (ike.local_spi, ike.connection.clone());
        let again = !ike.terminated && (ike.authenticated.asked || started(&connection));
        let children = ike.names();
        self.with(now, entropy, spi, |ike, turn| {
            ike.lose(turn, "the peer has lost it (RFC 6290)");
        });
        if again {
            for child in children {
                self.starts.at(connection.name.clone(), child, now);
            }
            self.start_children(now, entropy);
        }
    }
}

fn started(connection: &Connection) -> bool {
    connection.children.iter().any(|child| child.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_shown_at_a_bounded_rate_rfc6290_section_9_2() {
        let mut shown = Shown::default();
        let start = Instant(7);
        let count = |shown: &mut Shown, now| {
            let sources = (0..10_000u32).map(|n| IpAddr::V4(n.into()));
            sources.filter(|source| shown.may(now, *source)).count()
        };
        assert_eq!(count(&mut shown, start), SHOWN as usize);
        assert_eq!(count(&mut shown, start + INTERVAL / 2), 0);
        assert_eq!(count(&mut shown, start + INTERVAL), SHOWN as usize);
        assert!(shown.sources.len() <= SHOWN as usize);
    }
}
