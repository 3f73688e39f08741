//! The end of the blackout that a strict takeover leaves.
//!
//! Everything up to the recorded high water counts as seen after a takeover (RFC 6027 section 3.5),
//! so a peer is not heard until its numbers have passed it. When a packet is refused for that, a
//! peer that negotiated RFC 6311 is asked, once for each takeover, to skip as many numbers as may
//! be missing: `H - c`, where `c` is the last checkpoint. With other peers it takes some ten
//! milliseconds at the rate that the lease was made for; an SA that became slow or idle may need
//! minutes (`lease-holes` D10) and is replaced: its successor starts with nothing seen. Anybody who
//! replays an old packet can make it look like that, so it happens once for each SA and takeover,
//! and to a few SAs at a time.

use std::collections::VecDeque;
use std::time::Duration;

use hitless_sa::{Entropy, Instant, SaId};

use super::Gateway;
use crate::ike::Input;

/// SAs that are replaced in one look at most: their exchanges must not keep leases from being
/// extended.
const REPLACED_AT_ONCE: usize = 16;
/// What a renewal of a lease may take beyond the time that the lease is made for.
const MARGIN: Duration = Duration::from_millis(50);

/// The SAs of which a packet was refused since the takeover, in the order of time.
pub(super) type Blackouts = VecDeque<(Instant, SaId)>;

impl Gateway {
    /// A worker refused a packet of an inherited SA on which nothing has been accepted yet.
    pub(super) fn below_floor(&mut self, now: Instant, entropy: &mut dyn Entropy, sa: SaId) {
        let Some(carried) = self.children.get_mut(sa).filter(|c| !c.refused) else {
            return;
        };
        carried.refused = true;
        self.blackouts.push_back((now, sa));
        self.synchronise_replay_counters(now, entropy, sa);
    }

    /// Replaces what has been refused for longer than the tail of a busy lease takes: those are made
    /// for four heartbeats.
    pub(super) fn end_blackouts(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        let lease = self.settings.config().cluster.heartbeat * 4;
        let grace = lease.max(MARGIN) + MARGIN;
        for _ in 0..REPLACED_AT_ONCE {
            let due = |(since, _): &mut (Instant, SaId)| now.since(*since) >= grace;
            let Some((_, sa)) = self.blackouts.pop_front_if(due) else {
                return;
            };
            let carried = self.children.get(sa);
            if carried.is_some_and(|carried| carried.cell.inbound_top().0 == 0) {
                self.tell_ike(now, entropy, Input::RekeyChild(sa));
            }
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
        // What is owed brings its own delta.
        if greatest > 0 || self.engine.owes(ike) {
            let delta = greatest;
            self.tell_ike(now, entropy, Input::ReplayCounterSync { ike, delta });
        }
    }
}
