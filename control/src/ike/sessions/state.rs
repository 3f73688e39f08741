//! What an IKE SA remembers of its session, and its record (fields 1 to 9 of field 100).

use hitless_sa::Instant;
use zeroize::Zeroize;

/// Goes with one IKE SA; a successor begins with its own.
#[derive(Clone, Default)]
pub(in crate::ike) struct SessionState {
    /// What the peer will show when it has lost this IKE SA (RFC 6290 section 4.1).
    pub peer_token: Option<Vec<u8>>,
    /// When the last NAT keepalive of this member left.
    pub kept_alive: Option<Instant>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::ike) struct SessionRecord {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub peer_token: Option<Vec<u8>>,
}

impl Zeroize for SessionRecord {
    fn zeroize(&mut self) {
        self.peer_token.zeroize();
    }
}

impl SessionState {
    pub fn to_record(&self) -> SessionRecord {
        SessionRecord {
            peer_token: self.peer_token.clone(),
        }
    }

    /// What an older version left out is unknown.
    pub fn from_record(record: Option<&SessionRecord>) -> SessionState {
        let Some(record) = record else {
            return SessionState::default();
        };
        SessionState {
            peer_token: record.peer_token.clone(),
            ..SessionState::default()
        }
    }
}
