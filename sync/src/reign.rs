//! Reigns on nothing that come to nothing. A member without rights that does not hear its leader
//! takes it for dead and leads on nothing (R12). If the leader is only slow, that costs it and the
//! peers a fight over the cluster's addresses, and the member the copy that it was being given. So
//! whoever knows of a better leader waits for longer, and after each such reign longer again.

use std::time::Duration;

use hitless_sa::Instant;

use crate::StepDown;
use crate::node::{Node, State};
use crate::peer::Peer;

/// The longest rest is two to the power of that, less one, times the patience of a member without
/// rights; and [`LONGEST`] at most, where heartbeats are slow: the leader may be dead at last.
const LONGEST_REST: u32 = 5;
const LONGEST: Duration = Duration::from_secs(10);

/// What this member's own reigns came to.
#[derive(Default)]
pub(crate) struct Reigns {
    /// In a row: on nothing, short, and over because another member is the better leader.
    vain: u32,
    began: Instant,
    /// The copy is that of a session that this member was admitted in.
    pub complete: bool,
}

impl Reigns {
    pub fn began(&mut self, now: Instant) {
        self.began = now;
        self.complete = false;
    }

    pub fn age(&self, now: Instant) -> Duration {
        now.since(self.began)
    }

    fn over(&mut self, now: Instant, patience: Duration, reason: StepDown) {
        self.complete = false;
        if let StepDown::Outranked { .. } = reason {
            let long = now.since(self.began) >= patience * (1 << LONGEST_REST);
            self.vain = if long { 1 } else { self.vain.saturating_add(1) };
        }
    }

    /// It has everything that its leader has.
    pub fn admitted(&mut self) {
        self.complete = true;
        self.vain = 0;
    }
}

impl Node {
    /// How much longer than otherwise nobody must be heard before this member leads on nothing.
    pub(crate) fn rest_from_leading(&self) -> Duration {
        let longer = (1 << self.reigns.vain.min(LONGEST_REST)) - 1;
        let rest = (self.settings.patience() * longer).min(LONGEST);
        let own = self.store.objects.len();
        let holds_more = |peer: &Peer| {
            let leader = peer.said.filter(|said| said.leads().is_some());
            leader.is_some_and(|said| said.objects as usize > own)
        };
        let better = !self.reigns.complete && self.peers.values().any(holds_more);
        if better {
            rest + self.settings.hold
        } else {
            rest
        }
    }

    /// A leadership of this member ends.
    pub(crate) fn reign_over(&mut self, reason: StepDown) {
        if let State::Leading(_) = &self.state {
            let patience = self.settings.patience();
            self.reigns.over(self.now, patience, reason);
        }
    }
}
