//! Takeovers from a leader that was not dead. A network that loses a heartbeat now and then, or a
//! machine that is too busy, looks like a death, and each takeover costs numbers and inbound packets. So
//! a standby that finds the one whom it succeeded alive is twice as patient the next time, for a while:
//! not more, for then it could not vouch for its copy any longer when it takes over (R16).

use std::time::Duration;

use hitless_sa::{Epoch, Instant, MemberId};

use crate::node::{Node, State};

/// After so long without another one it is what it was.
const FORGOTTEN: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Haste {
    /// Whom this member succeeded was found alive then.
    last: Option<Instant>,
    /// Whose epoch this member wants to succeed for its leader's silence.
    silent: Option<Epoch>,
}

impl Haste {
    pub fn suspects(&mut self, epoch: Epoch) {
        self.silent = Some(epoch);
    }

    fn found(&mut self, now: Instant) {
        (self.last, self.silent) = (Some(now), None);
    }

    fn is_remembered(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now.since(last) < FORGOTTEN)
    }
}

impl Node {
    /// A member is heard. If it is the very process whom this one has succeeded for its silence, and it
    /// is heard so soon, it was not dead.
    pub(crate) fn note_haste(&mut self, from: MemberId, incarnation: u32) {
        let State::Leading(leading) = &self.state else {
            return;
        };
        let soon = self.reigns.age(self.now) < self.settings.patience();
        let succeeded = leading.base.filter(|_| self.haste.silent == leading.base);
        let alive = |epoch: Epoch| epoch.leader == from && epoch.incarnation.0 == incarnation;
        if soon && succeeded.is_some_and(alive) {
            self.haste.found(self.now);
        }
    }

    /// How many times as long as the settings say a leader may be silent, and a preferred member has
    /// to wait until it leads.
    pub(crate) fn caution(&self) -> u32 {
        match self.haste.is_remembered(self.now) {
            true => 2,
            false => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_forgotten_after_a_minute() {
        let at = |seconds| Instant(1_000_000_000) + Duration::from_secs(seconds);
        let mut haste = Haste::default();
        assert!(!haste.is_remembered(at(0)));
        for second in [1, 3] {
            haste.found(at(second));
            assert!(haste.is_remembered(at(second)));
        }
        assert!(haste.is_remembered(at(62)) && !haste.is_remembered(at(63)));
    }
}
