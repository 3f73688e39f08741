//! Children that are to be started, and started again when they are lost (`start_action`).

use std::collections::BTreeMap;
use std::time::Duration;

use hitless_sa::Instant;

use super::timers::Timers;

/// Before the first new attempt; doubles with each failure.
const RETRY: Duration = Duration::from_secs(1);
/// At most this many doublings: about a minute.
const MAX_DOUBLINGS: u32 = 6;

/// A connection's and a child's name.
pub(super) type Name = (String, String);

/// When to try which child.
pub(super) struct Starts {
    timers: Timers<Name>,
    failures: BTreeMap<Name, u32>,
}

impl Starts {
    pub fn new() -> Starts {
        Starts {
            timers: Timers::new(),
            failures: BTreeMap::new(),
        }
    }

    pub fn at(&mut self, connection: String, child: String, at: Instant) {
        self.timers.set((connection, child), Some(at));
    }

    /// No later than that.
    pub fn by(&mut self, connection: &str, child: &str, at: Instant) {
        let name = (connection.to_owned(), child.to_owned());
        let at = self.timers.of(&name).map_or(at, |other| other.min(at));
        self.timers.set(name, Some(at));
    }

    /// Tries again, later with each loss in a row.
    pub fn lost(&mut self, connection: &str, child: &str, now: Instant) {
        let name = (connection.to_owned(), child.to_owned());
        let failures = self.failures.entry(name.clone()).or_insert(0);
        let delay = RETRY * (1 << (*failures).min(MAX_DOUBLINGS));
        *failures = failures.saturating_add(1);
        self.timers.set(name, Some(now + delay));
    }

    /// It is up.
    pub fn succeeded(&mut self, connection: &str, child: &str) {
        self.failures
            .remove(&(connection.to_owned(), child.to_owned()));
    }

    /// Whether it is to be tried now.
    pub fn is_due(&self, connection: &str, child: &str, now: Instant) -> bool {
        let name = (connection.to_owned(), child.to_owned());
        self.timers.of(&name).is_some_and(|at| at <= now)
    }

    pub fn first(&self) -> Option<Instant> {
        self.timers.first()
    }

    /// The first that is due.
    pub fn due(&mut self, now: Instant) -> Option<Name> {
        self.timers.due(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_grow_rarer_until_one_succeeds() {
        let mut starts = Starts::new();
        let now = Instant(0);
        let mut delays = Vec::new();
        for _ in 0..9 {
            starts.lost("a", "b", now);
            delays.push(starts.first().unwrap().since(now).as_secs());
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        starts.succeeded("a", "b");
        starts.lost("a", "b", now);
        assert_eq!(starts.first(), Some(now + RETRY));
        assert_eq!(
            starts.due(now + RETRY),
            Some(("a".to_owned(), "b".to_owned()))
        );
        assert_eq!(starts.first(), None);
    }
}
