//! Takeovers from a leader that was not dead. A network that loses a heartbeat now and then, or a
//! machine that is too busy, looks like a death, and each takeover costs numbers and inbound packets. So
//! a standby that finds the one whom it succeeded alive is more patient the next time, for a while.

use std::time::Duration;

use hitless_sa::{Epoch, Instant, MemberId};

use crate::node::{Node, State};

/// Times that the patience grows by itself at most.
const MOST: u32 = 3;
/// After so long without another one it is what it was.
const FORGOTTEN: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Haste {
    times: u32,
    last: Instant,
    /// Whose epoch this member wants to succeed for its leader's silence.
    silent: Option<Epoch>,
}

impl Haste {
    pub fn suspects(&mut self, epoch: Epoch) {
        self.silent = Some(epoch);
    }

    fn found(&mut self, now: Instant) {
        self.times = (self.times_at(now) + 1).min(MOST);
        (self.last, self.silent) = (now, None);
    }

    fn times_at(&self, now: Instant) -> u32 {
        match now.since(self.last) < FORGOTTEN {
            true => self.times,
            false => 0,
        }
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
        1 + self.haste.times_at(self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_count_at_most_and_all_are_forgotten() {
        let at = |seconds| Instant(1_000_000_000) + Duration::from_secs(seconds);
        let mut haste = Haste::default();
        assert_eq!(haste.times_at(at(0)), 0);
        for (second, times) in [(1, 1), (3, 2), (4, 3), (5, 3)] {
            haste.found(at(second));
            assert_eq!(haste.times_at(at(second)), times);
        }
        assert_eq!(haste.times_at(at(64)), 3);
        assert_eq!(haste.times_at(at(65)), 0);
        haste.found(at(66));
        assert_eq!(haste.times_at(at(66)), 1);
    }
}
