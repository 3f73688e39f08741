//! A takeover of very many SAs, a few at a time: each turn goes on with some of the inherited IKE SAs,
//! so that packets, heartbeats and whatever peers ask for have their turns in between. What packets
//! arrive for comes first (`Engine::resume_spi`).

use std::time::Duration;

use hitless_sa::{Entropy, Instant};

use super::Gateway;

/// IKE SAs that one turn goes on with: a few milliseconds of it, a fraction of a heartbeat.
const A_TURN: usize = 64;
/// From one publication of the policies to the next, of which each takes as long as there are SAs: so
/// much for every thousand, and while a takeover goes on so much more.
const PAUSE_FOR_A_THOUSAND: Duration = Duration::from_millis(2);
const PAUSE: Duration = Duration::from_millis(10);

/// When the workers are given the policies.
#[derive(Default)]
pub(super) struct Publication {
    /// Inherited IKE SAs that wait.
    pub left: usize,
    /// The workers have policies for an SA that is gone, while another is there.
    pub urgent: bool,
    last: Instant,
}

impl Gateway {
    /// Goes on with some of the inherited IKE SAs; returns how many wait.
    pub(super) fn go_on(&mut self, now: Instant, entropy: &mut dyn Entropy) -> usize {
        if !self.handing_over {
            let before = self.publication.left;
            self.publication.left = self.engine.resume_some(now, entropy, A_TURN);
            // The last of them waits for no pause.
            self.publication.urgent |= before > 0 && self.publication.left == 0;
        }
        self.publication.left
    }

    /// Inherited IKE SAs that this member has not gone on with yet.
    pub fn taking_over(&self) -> usize {
        self.publication.left
    }

    /// Whether the policies may be published now. Most SAs wait for no other one, and come in
    /// crowds: with thousands of them one publication is for all that came in a while.
    pub(super) fn publication_due(&mut self, now: Instant) -> bool {
        let thousands = u32::try_from(self.children.len() / 1000).unwrap_or(u32::MAX);
        let mut pause = PAUSE_FOR_A_THOUSAND.saturating_mul(thousands);
        if self.publication.left > 0 {
            pause += PAUSE;
        }
        let due = self.publication.urgent || now.since(self.publication.last) >= pause;
        if due {
            self.publication.last = now;
            self.publication.urgent = false;
        }
        due
    }
}
