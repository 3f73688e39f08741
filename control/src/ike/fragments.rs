//! IKE fragmentation (RFC 7383): messages that are longer than the path likes are sent as several
//! datagrams, each encrypted and authenticated by itself.
//!
//! A message to send is a *flight*: its datagrams one behind another, each of which says its length
//! in its header. So a flight is kept, exported and sent again like any message, byte for byte, and
//! is taken apart where it leaves the engine. What arrives is put together in a [`Reassembly`],
//! which each IKE SA has for itself, and which only authentic fragments enter.

use std::collections::BTreeMap;
use std::time::Duration;

use hitless_sa::{Instant, MessageId};
use zeroize::Zeroizing;

use super::crypto::sk::IvSource;
use super::crypto::{Opened, SkKeys};
use super::established;
use super::keys::{IkeKeys, Side};
use super::message::{
    Exchange, FragmentPlace, HEADER_LENGTH, Header, MAX_MESSAGE_LENGTH, PayloadKind,
};
use super::nat::Path;
use super::output::Transmit;
use super::settings::Connection;
use super::turn::Turn;

/// The longest IP datagram of a fragment unless the configuration says another: every IPv6 link
/// carries it, and nearly every IPv4 path (RFC 7383 section 2.5.1).
pub const DEFAULT_FRAGMENT_SIZE: u16 = 1280;
/// The most fragments of a message that are put together.
pub const MAX_FRAGMENTS: u16 = 128;
/// How long the fragments of a message are waited for; the sender repeats all of them.
const PATIENCE: Duration = Duration::from_secs(30);
/// IPv4 datagrams that every host takes (RFC 791), and the RFC's own suggestion (RFC 7383 section
/// 2.5.1: "576 bytes for IPv4"); IPv6 links carry 1280.
const SMALLEST_IPV4: u16 = 576;
const SMALLEST_IPV6: u16 = 1280;
/// Transmissions that stay unanswered before smaller fragments are tried (RFC 7383 section 2.5.2).
pub(super) const PATIENT_TRANSMISSIONS: u32 = 3;

/// `fragmentation = yes | accept | no`, as in swanctl.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fragmentation {
    /// Negotiated; long messages are sent in fragments.
    #[default]
    Yes,
    /// Negotiated, but nothing is sent in fragments.
    Accept,
    No,
}

impl Fragmentation {
    /// Whether IKEV2_FRAGMENTATION_SUPPORTED is sent.
    pub const fn negotiates(self) -> bool {
        !matches!(self, Fragmentation::No)
    }
}

/// What an IKE SA negotiated about fragments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Fragmenting {
    /// Both sides said IKEV2_FRAGMENTATION_SUPPORTED in IKE_SA_INIT.
    pub negotiated: bool,
    /// The longest IP datagram that we send; zero if we send no fragments.
    pub size: u16,
}

impl Fragmenting {
    /// From the settings of a connection and what the peer said.
    pub fn new(connection: &Connection, theirs: bool) -> Fragmenting {
        let said = Fragmenting {
            negotiated: theirs && connection.fragmentation.negotiates(),
            size: 0,
        };
        said.on(connection)
    }

    /// What goes for this connection of those that IKE_SA_INIT may have been for. What was negotiated
    /// there stays so: the peer sends fragments.
    pub fn on(self, connection: &Connection) -> Fragmenting {
        let sends = self.negotiated && connection.fragmentation == Fragmentation::Yes;
        Fragmenting {
            size: if sends { connection.fragment_size } else { 0 },
            ..self
        }
    }

    /// The longest IKE message to send in one datagram on this path; `None` for any.
    pub fn limit(self, path: Path) -> Option<usize> {
        let ip = if path.remote.is_ipv4() { 20 } else { 40 };
        // UDP, and the non-ESP marker, which comes with the float to port 4500.
        let udp = 8 + 4;
        let sends = self.negotiated && self.size > 0;
        sends.then(|| usize::from(self.size).saturating_sub(ip + udp))
    }

    /// Smaller fragments, if there are any that are sensible.
    pub fn lowered(self, path: Path) -> Option<Fragmenting> {
        let size = if path.remote.is_ipv4() {
            SMALLEST_IPV4
        } else {
            SMALLEST_IPV6
        };
        let lower = self.negotiated && self.size > size;
        lower.then_some(Fragmenting { size, ..self })
    }
}

/// The datagrams of a flight.
pub(super) fn datagrams(flight: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = flight;
    std::iter::from_fn(move || {
        let length = rest
            .get(HEADER_LENGTH - 4..HEADER_LENGTH)
            .and_then(|octets| octets.try_into().ok())
            .map(u32::from_be_bytes)
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| *length >= HEADER_LENGTH)
            .unwrap_or(rest.len());
        let (datagram, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        rest = after;
        (!datagram.is_empty()).then_some(datagram)
    })
}

/// What leaves the engine for a flight.
pub(super) fn split(transmit: Transmit) -> Vec<Transmit> {
    if datagrams(&transmit.payload).nth(1).is_none() {
        return vec![transmit];
    }
    let parts = datagrams(&transmit.payload).map(|datagram| Transmit {
        local: transmit.local,
        remote: transmit.remote,
        payload: datagram.to_vec(),
    });
    parts.collect()
}

/// Encrypts a message, in fragments if it would be longer than `limit`; `None` when this process
/// has no IV left for that IKE SA, or there is no room for anything in a fragment.
pub(super) fn seal(
    keys: &SkKeys,
    turn: &mut Turn<'_>,
    header: &Header,
    (first, content): (PayloadKind, &[u8]),
    limit: Option<usize>,
) -> Option<Vec<u8>> {
    let ours = match header.initiator {
        true => header.initiator_spi,
        false => header.responder_spi,
    };
    let mut sealed = |place, first, part: &[u8]| {
        let unique = turn.ids.iv(ours)?;
        let iv = IvSource {
            unique,
            entropy: turn.entropy,
        };
        Some(keys.seal_part(header, place, first, part, iv))
    };
    // With an SK payload there is room for four octets more than in a fragment.
    let capacity = limit.map_or(Some(MAX_MESSAGE_LENGTH), |limit| keys.capacity(limit + 4))?;
    if content.len() <= capacity {
        return sealed(None, first, content);
    }
    let capacity = limit.and_then(|limit| keys.capacity(limit))?;
    let total = u16::try_from(content.len().div_ceil(capacity)).ok()?;
    let mut flight = Vec::new();
    for (number, part) in (1..=total).zip(content.chunks(capacity)) {
        // RFC 7383 section 2.5: the first says what comes first, the others say nothing.
        let first = if number == 1 {
            first
        } else {
            PayloadKind::NONE
        };
        let place = FragmentPlace { number, total };
        flight.extend(sealed(Some(place), first, part)?);
    }
    Some(flight)
}

/// A flight of ours divided anew into datagrams of at most `limit`; `None` if they are that small.
pub(super) fn divide(
    keys: &IkeKeys,
    turn: &mut Turn<'_>,
    flight: &[u8],
    limit: Option<usize>,
) -> Option<Vec<u8>> {
    datagrams(flight).find(|datagram| limit.is_some_and(|limit| datagram.len() > limit))?;
    let header = Header::parse(datagrams(flight).next()?).ok()?;
    let keys = keys.sk_keys(Side::of_initiator(header.initiator)).ok()?;
    let mut first = None;
    let mut content = Zeroizing::new(Vec::with_capacity(flight.len()));
    for datagram in datagrams(flight) {
        let opened = keys.open_part(datagram).ok()?;
        first.get_or_insert(opened.first);
        content.extend_from_slice(&opened.content);
    }
    seal(&keys, turn, &header, (first?, &content), limit)
}

/// Opens what came for a half-open IKE SA: a whole message, or a part of one, which gives nothing
/// until the last of them is here.
pub(super) fn arrive(
    reassembly: &mut Reassembly,
    keys: &IkeKeys,
    now: Instant,
    header: &Header,
    (place, datagram): (Option<FragmentPlace>, &[u8]),
) -> Result<Option<Whole>, &'static str> {
    if let Some(place) = place {
        reassembly.wants(header, place)?;
    }
    let opened = established::open(keys, header, datagram).map_err(|error| error.reason())?;
    match place {
        Some(place) => reassembly.add(now, header, place, datagram, opened),
        None => Ok(Some(Whole {
            head: datagram.to_vec(),
            first: opened.first,
            content: opened.content,
        })),
    }
}

/// A message that was put together.
pub struct Whole {
    /// The datagram, or that of the first fragment.
    pub head: Vec<u8>,
    pub first: PayloadKind,
    pub content: Zeroizing<Vec<u8>>,
}

/// The fragments of one message that have arrived.
struct Partial {
    exchange: Exchange,
    id: MessageId,
    total: u16,
    since: Instant,
    head: Vec<u8>,
    first: PayloadKind,
    octets: usize,
    parts: BTreeMap<u16, Zeroizing<Vec<u8>>>,
}

/// Where the fragments of the peer's messages wait for each other: one request and one response at
/// a time, at most [`MAX_FRAGMENTS`] and 64 KiB of each, for half a minute. Not replicated: the
/// sender repeats the whole message to whoever leads then.
#[derive(Default)]
pub struct Reassembly {
    request: Option<Partial>,
    response: Option<Partial>,
}

impl Reassembly {
    fn slot(&mut self, response: bool) -> &mut Option<Partial> {
        if response {
            &mut self.response
        } else {
            &mut self.request
        }
    }

    /// Whether a fragment is worth decrypting; else why not (RFC 7383 section 2.6). `header` is not
    /// authenticated yet.
    pub fn wants(&self, header: &Header, place: FragmentPlace) -> Result<(), &'static str> {
        if place.total > MAX_FRAGMENTS {
            return Err("too many fragments");
        }
        let slot = if header.response {
            &self.response
        } else {
            &self.request
        };
        match slot {
            Some(partial) if partial.id == header.message_id => {
                if place.total < partial.total {
                    // "the receiver MUST silently discard": of an older, coarser attempt.
                    Err("fragment of a coarser division")
                } else if place.total == partial.total && partial.parts.contains_key(&place.number)
                {
                    Err("fragment seen before")
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }

    /// Takes an authentic fragment that is wanted; gives the message if it was the last one missing.
    pub fn add(
        &mut self,
        now: Instant,
        header: &Header,
        place: FragmentPlace,
        datagram: &[u8],
        opened: Opened,
    ) -> Result<Option<Whole>, &'static str> {
        let slot = self.slot(header.response);
        // RFC 7383 section 2.6: more fragments mean that the sender divides anew, more finely.
        slot.take_if(|p| p.id != header.message_id || p.total < place.total);
        let partial = slot.get_or_insert_with(|| Partial {
            exchange: header.exchange,
            id: header.message_id,
            total: place.total,
            since: now,
            head: Vec::new(),
            first: PayloadKind::NONE,
            octets: 0,
            parts: BTreeMap::new(),
        });
        if partial.exchange != header.exchange {
            return Err("fragments of different exchanges");
        }
        partial.octets += opened.content.len();
        if partial.octets > MAX_MESSAGE_LENGTH {
            *slot = None;
            return Err("fragments of too long a message");
        }
        if place.number == 1 {
            partial.first = opened.first;
            partial.head = datagram.to_vec();
        }
        partial.parts.insert(place.number, opened.content);
        if partial.parts.len() < usize::from(partial.total) {
            return Ok(None);
        }
        let whole = slot.take().map(|partial| {
            let mut content = Zeroizing::new(Vec::with_capacity(partial.octets));
            for part in partial.parts.values() {
                content.extend_from_slice(part);
            }
            Whole {
                head: partial.head,
                first: partial.first,
                content,
            }
        });
        Ok(whole)
    }

    /// Since when parts of a request wait for the others, and how many octets of them.
    pub fn held(&self) -> Option<(Instant, usize)> {
        let partial = self.request.as_ref()?;
        Some((partial.since, partial.octets + partial.head.len()))
    }

    /// When to look whether something has waited too long.
    pub fn deadline(&self) -> Option<Instant> {
        let waiting = [&self.request, &self.response].into_iter().flatten();
        waiting.map(|p| p.since + PATIENCE).min()
    }

    /// Gives up what has waited too long.
    pub fn expire(&mut self, now: Instant) {
        for slot in [&mut self.request, &mut self.response] {
            slot.take_if(|p| p.since + PATIENCE <= now);
        }
    }
}

#[cfg(test)]
mod tests;
