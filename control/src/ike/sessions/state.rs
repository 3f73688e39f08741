//! What an IKE SA remembers of its session, and its record (fields 1 to 9 and 100 of field 100).

use std::time::Duration;

use hitless_sa::{IkeSpi, Instant};
use zeroize::Zeroize;

use crate::ike::resume::{Held, HeldRecord};

/// Goes with one IKE SA; a successor begins with its own.
#[derive(Clone, Default)]
pub(in crate::ike) struct SessionState {
    /// What the peer will show when it has lost this IKE SA (RFC 6290 section 4.1).
    pub peer_token: Option<Vec<u8>>,
    /// For when the peer is lost.
    pub ticket: Option<Held>,
    /// The IKE SA whose IKE_AUTH it came of, if that was another one.
    pub origin: Option<IkeSpi>,
    /// When it ends, if nothing has replaced it.
    pub life_at: Option<Instant>,
    /// When the last NAT keepalive of this member left.
    pub kept_alive: Option<Instant>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::ike) struct SessionRecord {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub peer_token: Option<Vec<u8>>,
    /// Nanoseconds.
    #[prost(uint64, optional, tag = "2")]
    pub life_in: Option<u64>,
    #[prost(message, optional, tag = "3")]
    pub ticket: Option<HeldRecord>,
    // 4 and 5 named the ticket that it came of.
    #[prost(fixed64, optional, tag = "100")]
    pub origin: Option<u64>,
}

impl Zeroize for SessionRecord {
    fn zeroize(&mut self) {
        self.peer_token.zeroize();
        self.ticket.zeroize();
    }
}

impl SessionState {
    pub fn to_record(&self, now: Instant) -> SessionRecord {
        SessionRecord {
            peer_token: self.peer_token.clone(),
            life_in: self.life_at.map(|at| nanoseconds(at.since(now))),
            ticket: self.ticket.as_ref().map(|held| held.to_record(now)),
            origin: self.origin.map(|spi| spi.0),
        }
    }

    /// What an older version left out is unknown.
    pub fn from_record(record: Option<&SessionRecord>, now: Instant) -> SessionState {
        let Some(record) = record else {
            return SessionState::default();
        };
        SessionState {
            peer_token: record.peer_token.clone(),
            ticket: record
                .ticket
                .as_ref()
                .and_then(|t| Held::from_record(t, now)),
            origin: record.origin.map(IkeSpi),
            life_at: record.life_in.map(|time| now + Duration::from_nanos(time)),
            ..SessionState::default()
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
