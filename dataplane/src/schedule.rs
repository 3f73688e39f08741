//! When a worker publishes checkpoints: after so many packets of an SA, and so long after the first
//! packet that none has told of yet (RFC 6027 section 3.3's figures by default).

use std::collections::VecDeque;
use std::time::Duration;

use hitless_sa::Instant;

use crate::memory;
use crate::prefetch::prefetch;

/// How often checkpoints are published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointSettings {
    /// Packets of one SA, both directions together.
    pub packets: u32,
    /// Longest time that a packet goes untold.
    pub interval: Duration,
}

impl Default for CheckpointSettings {
    fn default() -> CheckpointSettings {
        CheckpointSettings {
            packets: 10_000,
            interval: Duration::from_millis(500),
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Slot {
    untold: u32,
    queued: bool,
}

/// The schedule of one worker. As the interval is the same for all SAs, the queue of those with
/// untold packets is in the order of their deadlines.
pub(crate) struct Schedule {
    settings: CheckpointSettings,
    slots: Box<[Slot]>,
    queue: VecDeque<(Instant, u32)>,
}

impl Schedule {
    /// For SAs in slots below `capacity`. It allocates all that it ever needs.
    pub(crate) fn new(settings: CheckpointSettings, capacity: usize) -> Schedule {
        Schedule {
            settings,
            slots: memory::table(capacity, Slot::default),
            queue: VecDeque::with_capacity(capacity),
        }
    }

    /// So many packets of the SA in this slot have been sent or delivered. True if that makes a
    /// checkpoint due at once.
    #[inline]
    pub(crate) fn note(&mut self, slot: u32, now: Instant, packets: u32) -> bool {
        let Some(entry) = self.slots.get_mut(slot as usize) else {
            return false;
        };
        entry.untold = entry.untold.saturating_add(packets);
        if !entry.queued {
            entry.queued = true;
            self.queue.push_back((now + self.settings.interval, slot));
        }
        let due = entry.untold >= self.settings.packets;
        if due {
            entry.untold = 0;
        }
        due
    }

    /// Asks for what [`Schedule::note`] needs.
    #[inline]
    pub(crate) fn prefetch(&self, slot: u32) {
        if let Some(entry) = self.slots.get(slot as usize) {
            prefetch(entry);
        }
    }

    /// The next slot whose interval has passed with packets untold.
    pub(crate) fn next_due(&mut self, now: Instant) -> Option<u32> {
        while let Some(&(deadline, slot)) = self.queue.front() {
            if deadline > now {
                return None;
            }
            self.queue.pop_front();
            let entry = self.slots.get_mut(slot as usize)?;
            entry.queued = false;
            if std::mem::take(&mut entry.untold) > 0 {
                return Some(slot);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    fn schedule() -> Schedule {
        let settings = CheckpointSettings {
            packets: 3,
            interval: Duration::from_millis(500),
        };
        Schedule::new(settings, 2)
    }

    #[test]
    fn every_so_many_packets_rfc_6027_section_3_3() {
        let mut schedule = schedule();
        let due: Vec<bool> = (0..7).map(|_| schedule.note(0, at(0), 1)).collect();
        assert_eq!(due, [false, false, true, false, false, true, false]);
        assert!(!schedule.note(9, at(0), 1), "no such slot");
    }

    #[test]
    fn so_long_after_the_first_untold_packet_and_not_without_one() {
        let mut schedule = schedule();
        schedule.note(1, at(0), 1);
        schedule.note(0, at(100), 1);
        schedule.note(1, at(499), 1);
        assert_eq!(schedule.next_due(at(499)), None);
        assert_eq!(schedule.next_due(at(500)), Some(1));
        assert_eq!(schedule.next_due(at(500)), None);
        assert_eq!(schedule.next_due(at(900)), Some(0));
        for _ in 0..3 {
            schedule.note(0, at(1000), 1);
        }
        assert_eq!(schedule.next_due(at(5000)), None, "all told already");
    }
}
