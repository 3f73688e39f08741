//! What one half of a Child SA has carried and dropped on one worker. The worker that has the half
//! is the only writer; the control thread reads the same numbers at any time, so `show sa` is exact
//! and waits for no checkpoint.

use hitless_sa::SequenceNumber;

use super::{Count, REASONS};
use crate::prefetch::prefetch_start;
use crate::verdict::DropReason;

/// Counters of the receiving or of the sending half. Those of every packet are on one cache line.
#[repr(C, align(64))]
pub struct SaCounters {
    packets: Count,
    bytes: Count,
    window_top: Count,
    window_lost: Count,
    drops: [Count; REASONS],
}

impl Default for SaCounters {
    fn default() -> SaCounters {
        SaCounters {
            packets: Count::default(),
            bytes: Count::default(),
            window_top: Count::default(),
            window_lost: Count::default(),
            drops: std::array::from_fn(|_| Count::default()),
        }
    }
}

impl SaCounters {
    /// Packets sent, or delivered.
    pub fn packets(&self) -> u64 {
        self.packets.get()
    }

    /// Octets of their inner packets.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// The right edge of the replay window (RFC 4303 section 3.4.3).
    pub fn window_top(&self) -> SequenceNumber {
        SequenceNumber(self.window_top.get())
    }

    /// Numbers that left the window without having come.
    pub fn window_lost(&self) -> u64 {
        self.window_lost.get()
    }

    /// Packets of this half that were dropped for that reason. They are counted with the worker's
    /// as well.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).map_or(0, Count::get)
    }

    /// Every reason that has been counted, with its count.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> {
        let all = DropReason::ALL.iter();
        all.map(|reason| (*reason, self.dropped(*reason)))
            .filter(|(_, count)| *count > 0)
    }

    /// Asks for the line that every packet is counted in.
    #[inline]
    pub(crate) fn prefetch(&self) {
        prefetch_start(self, size_of::<Count>());
    }

    #[inline]
    pub(crate) fn count_packets(&self, packets: usize, bytes: usize) {
        self.packets.add(packets as u64);
        self.bytes.add(bytes as u64);
    }

    pub(crate) fn count_drop(&self, reason: DropReason) {
        if let Some(count) = self.drops.get(reason as usize) {
            count.add(1);
        }
    }

    pub(crate) fn note_window(&self, top: SequenceNumber, lost: u64) {
        self.window_top.set(top.0);
        self.window_lost.set(lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_octets_window_and_each_reason_are_counted_apart() {
        let counters = SaCounters::default();
        counters.count_packets(1, 100);
        counters.count_packets(1, 60);
        counters.note_window(SequenceNumber(9), 3);
        counters.count_drop(DropReason::Replay);
        counters.count_drop(DropReason::Replay);
        counters.count_drop(DropReason::Integrity);
        assert_eq!((counters.packets(), counters.bytes()), (2, 160));
        assert_eq!(counters.window_top(), SequenceNumber(9));
        assert_eq!(counters.window_lost(), 3);
        let drops: Vec<_> = counters.drops().collect();
        assert_eq!(drops, [(DropReason::Replay, 2), (DropReason::Integrity, 1)]);
    }
}
