//! A NAT in front of us forgets an IKE SA that carries no Child SA, as nothing else passes it: the
//! keepalives of RFC 3948 section 2.3 are ours to send then. With a Child SA the dataplane does.

use std::time::Duration;

use hitless_sa::Instant;

use crate::ike::established::{IkeSa, State};
use crate::ike::nat;
use crate::ike::turn::Turn;

/// The whole payload of a keepalive, without non-ESP marker.
pub(in crate::ike) const OCTETS: [u8; 1] = [0xff];

impl IkeSa {
    /// When the next keepalive is due.
    pub fn keepalive_at(&self) -> Option<Instant> {
        let alone = self.nat.local && self.children.is_empty();
        let since = self.session.kept_alive.unwrap_or(self.established);
        (alone && self.state == State::Established).then(|| since + self.keepalive_interval())
    }

    fn keepalive_interval(&self) -> Duration {
        let mut children = self.connection.children.iter();
        let configured = children.find_map(|child| child.options.keepalive);
        configured.unwrap_or(nat::KEEPALIVE)
    }

    /// Sends a keepalive when it is time.
    pub fn keep_mapping(&mut self, turn: &mut Turn<'_>) {
        if self.keepalive_at().is_some_and(|at| at <= turn.now) {
            self.session.kept_alive = Some(turn.now);
            turn.immediate.push(self.path.transmit(OCTETS.to_vec()));
        }
    }
}
