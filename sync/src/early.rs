//! Records that have overtaken others on the way. Links of several queues or cables reorder a burst;
//! were what comes too early thrown away, a burst of N records would take up to N rounds.

use std::collections::BTreeMap;

use prost::Message;

use crate::message::Record;
use crate::session::FLIGHT_OCTETS;

/// What keeping a record takes beside its octets.
const KEPT: usize = 64;

/// Not applied and not acknowledged: a record is neither before the one that precedes it is (R6). No
/// more of them than a leader may have on their way.
#[derive(Default)]
pub(crate) struct Early {
    records: BTreeMap<u64, Record>,
    octets: usize,
}

impl Early {
    /// Takes one whose predecessors have not all come, if there is room.
    pub fn keep(&mut self, applied: u64, record: &mut Record) {
        let octets = self.octets + size(record);
        let room = octets <= FLIGHT_OCTETS && record.n > applied;
        if room && !self.records.contains_key(&record.n) {
            self.octets = octets;
            self.records.insert(record.n, std::mem::take(record));
        }
    }

    /// The one that follows `applied`, if it has come already.
    pub fn after(&mut self, applied: u64) -> Option<Record> {
        while let Some(first) = self.records.first_entry() {
            if *first.key() > applied.saturating_add(1) {
                return None;
            }
            let (n, record) = first.remove_entry();
            self.octets = self.octets.saturating_sub(size(&record));
            if n > applied {
                return Some(record);
            }
        }
        None
    }
}

fn size(record: &Record) -> usize {
    record.encoded_len() + KEPT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u64, octets: usize) -> Record {
        let mut record = Record::default();
        record.n = n;
        record.body = vec![1; octets];
        record
    }

    #[test]
    fn what_came_early_is_given_once_and_in_order() {
        let mut early = Early::default();
        for n in [9, 7, 8, 7] {
            early.keep(5, &mut record(n, 10));
        }
        assert!(early.after(5).is_none());
        let mut applied = 6;
        while let Some(next) = early.after(applied) {
            assert_eq!(next.n, applied + 1);
            applied = next.n;
        }
        assert_eq!(applied, 9);
        assert!(early.records.is_empty() && early.octets == 0);
    }

    #[test]
    fn one_that_came_again_in_its_turn_is_forgotten() {
        let mut early = Early::default();
        early.keep(1, &mut record(3, 10));
        assert!(early.after(3).is_none());
        assert!(early.records.is_empty() && early.octets == 0);
    }

    #[test]
    fn a_leader_that_sends_more_than_it_may_fills_no_memory() {
        let mut early = Early::default();
        for n in 2..10_000 {
            early.keep(0, &mut record(n, 0));
        }
        assert!(early.records.len() < 5_000 && early.octets <= FLIGHT_OCTETS);
        let mut early = Early::default();
        for n in 2..60 {
            early.keep(0, &mut record(n, FLIGHT_OCTETS / 10));
        }
        assert!(early.records.len() < 10 && early.octets <= FLIGHT_OCTETS);
    }
}
