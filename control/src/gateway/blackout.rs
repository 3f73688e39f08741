//! The end of the blackout that a strict takeover leaves.
//!
//! Everything up to the recorded high water counts as seen after a takeover (RFC 6027 section 3.5),
//! so a peer is not heard until its numbers have passed it. When a packet is refused for that, a
//! peer that negotiated RFC 6311 is asked, once for each takeover, to skip as many numbers as may
//! be missing: `H - c`, where `c` is the last checkpoint. With other peers it takes some ten
//! milliseconds at the rate that the lease was made for; an SA that became slow or idle may need
//! minutes (`lease-holes` D10) and is replaced: its successor starts with nothing seen.

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
            Blackout::None => {
                carried.blackout = Blackout::Since(now);
                self.synchronise_replay_counters(now, entropy, sa);
            }
            Blackout::Since(first) if now.since(first) >= GRACE => {
                carried.blackout = Blackout::Ended;
                self.tell_ike(now, entropy, Input::RekeyChild(sa));
            }
            Blackout::Since(_) | Blackout::Ended => {}
        }
    }

    /// Asks for the greatest delta over all Child SAs of the IKE SA, for the peer applies it to all
    /// of them (RFC 6311 section 5.2), and at most once for each takeover (section 7, R35).
    fn synchronise_replay_counters(&mut self, now: Instant, entropy: &mut dyn Entropy, sa: SaId) {
        let Some(ike) = self.engine.ike_of(sa) else {
            return;
        };
        let mut greatest = 0;
        for child in self.engine.children(ike) {
            if let Some(carried) = self.children.get_mut(child) {
                greatest = greatest.max(std::mem::take(&mut carried.delta));
            }
        }
        if greatest > 0 {
            let delta = greatest;
            self.tell_ike(now, entropy, Input::ReplayCounterSync { ike, delta });
        }
    }
}
