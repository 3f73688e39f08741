//! So much at once, and so much on the whole: what strangers may have us do.

use std::time::Duration;

use hitless_sa::Instant;

/// Each thing that is done costs its time; some may be done ahead of it.
#[derive(Default)]
pub(crate) struct Allowance {
    /// Until when what was done takes its time.
    paid_until: Instant,
}

impl Allowance {
    /// Whether there is room for one more, where so much of the time may be spent ahead.
    pub fn is_left(&self, now: Instant, ahead: Duration) -> bool {
        self.paid_until.since(now) < ahead
    }

    pub fn spend(&mut self, now: Instant, cost: Duration) {
        self.paid_until = self.paid_until.max(now) + cost;
    }
}
