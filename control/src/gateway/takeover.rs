//! A takeover of very many SAs, a few at a time: each turn goes on with some of the inherited IKE SAs,
//! so that packets, heartbeats and whatever peers ask for have their turns in between. What packets
//! arrive for comes first (`Engine::resume_spi`).

use std::time::Duration;

use hitless_sa::{Entropy, Instant};

use super::Gateway;

/// IKE SAs that one turn goes on with: a few milliseconds of it, a fraction of a heartbeat.
const A_TURN: usize = 64;
/// From one publication of the policies to the next while the SAs come, of which each takes as long
/// as there are SAs: so much, and so much again for every thousand.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_FOR_A_THOUSAND: Duration = Duration::from_millis(2);

/// When the workers were given the policies while a takeover goes on.
#[derive(Default)]
pub(super) struct Publication {
    /// Inherited IKE SAs that wait.
    pub left: usize,
    last: Instant,
}

impl Gateway {
    /// Goes on with some of the inherited IKE SAs; returns how many wait.
    pub(super) fn go_on(&mut self, now: Instant, entropy: &mut dyn Entropy) -> usize {
        if !self.handing_over {
            self.publication.left = self.engine.resume_some(now, entropy, A_TURN);
        }
        self.publication.left
    }

    /// Inherited IKE SAs that this member has not gone on with yet.
    pub fn taking_over(&self) -> usize {
        self.publication.left
    }

    /// Whether the policies may be published now: always, but for the time of a takeover.
    pub(super) fn publication_due(&mut self, now: Instant) -> bool {
        let thousands = u32::try_from(self.children.len() / 1000).unwrap_or(u32::MAX);
        let pause = PAUSE + PAUSE_FOR_A_THOUSAND.saturating_mul(thousands);
        let due = self.publication.left == 0 || now.since(self.publication.last) >= pause;
        if due {
            self.publication.last = now;
        }
        due
    }
}
