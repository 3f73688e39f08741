//! Which of many things is due first.

use std::collections::{BTreeMap, BTreeSet};

use hitless_sa::Instant;

/// One deadline for each key.
pub(super) struct Timers<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_key: BTreeMap<K, Instant>,
}

impl<K: Ord + Clone> Timers<K> {
    pub fn new() -> Timers<K> {
        Timers {
            by_time: BTreeSet::new(),
            by_key: BTreeMap::new(),
        }
    }

    /// Sets or clears the deadline of a key.
    pub fn set(&mut self, key: K, at: Option<Instant>) {
        if let Some(old) = self.by_key.remove(&key) {
            self.by_time.remove(&(old, key.clone()));
        }
        if let Some(at) = at {
            self.by_key.insert(key.clone(), at);
            self.by_time.insert((at, key));
        }
    }

    /// When a key is due.
    pub fn of(&self, key: &K) -> Option<Instant> {
        self.by_key.get(key).copied()
    }

    pub fn first(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// The key that was due first, of those that are due; its deadline is cleared.
    pub fn due(&mut self, now: Instant) -> Option<K> {
        self.first().filter(|at| *at <= now)?;
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    pub fn clear(&mut self) {
        self.by_time.clear();
        self.by_key.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_deadline_and_is_due_once() {
        let mut timers = Timers::new();
        timers.set('a', Some(Instant(5)));
        timers.set('b', Some(Instant(3)));
        timers.set('a', Some(Instant(2)));
        assert_eq!(timers.first(), Some(Instant(2)));
        assert_eq!(timers.due(Instant(1)), None);
        assert_eq!(timers.due(Instant(3)), Some('a'));
        assert_eq!(timers.due(Instant(3)), Some('b'));
        assert_eq!(timers.first(), None);
        timers.set('c', Some(Instant(9)));
        timers.set('c', None);
        assert_eq!(timers.due(Instant(9)), None);
    }
}
