//! The end of the blackout that a strict takeover leaves on a slow SA.
//!
//! Everything up to the recorded high water counts as seen after a takeover (RFC 6027 section 3.5),
//! so a peer is not heard until its numbers have passed it. At the rate that the lease was made for
//! that takes some ten milliseconds; an SA that became slow or idle may need minutes
//! (`lease-holes` D10). Such an SA is replaced: its successor starts at number 1 with nothing seen.

use std::time::Duration;

use hitless_sa::{Entropy, Instant, SaId};

use super::Gateway;
use crate::ike::Input;

/// Packets that are refused for longer than this are not the tail of a busy lease.
const GRACE: Duration = Duration::from_millis(300);

/// How far the blackout of one SA has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Blackout {
    #[default]
    None,
    /// The first packet was refused then.
    Since(Instant),
    /// The SA is being replaced: once for each takeover, because anybody who replays an old packet
    /// can make it look like a blackout.
    Ended,
}

impl Gateway {
    /// A worker refused a packet of an inherited SA on which nothing has been accepted yet.
    pub(super) fn below_floor(&mut self, now: Instant, entropy: &mut dyn Entropy, sa: SaId) {
        let Some(carried) = self.children.get_mut(sa) else {
            return;
        };
        match carried.blackout {
            Blackout::None => carried.blackout = Blackout::Since(now),
            Blackout::Since(first) if now.since(first) >= GRACE => {
                carried.blackout = Blackout::Ended;
                self.engine.handle(now, entropy, Input::RekeyChild(sa));
            }
            Blackout::Since(_) | Blackout::Ended => {}
        }
    }
}
