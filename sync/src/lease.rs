//! How far a lease reaches: arithmetic and nothing else (`lease-holes`, SIZES).

use std::time::Duration;

use hitless_sa::{Instant, SaId};
use std::collections::BTreeSet;

use crate::Settings;

/// The last number of a 32-bit SA (RFC 4303 section 3.3.3: it must not cycle).
pub(crate) const LAST_SHORT: u64 = u32::MAX as u64;
/// Where extended numbers are stopped, far below any wrap.
pub(crate) const LAST_EXTENDED: u64 = 1 << 63;
/// All that takeovers may skip in the life of an SA with extended numbers: the peer infers the
/// high half as long as a jump stays below 2^32 less the window (RFC 4303 appendix A2).
const SKIP_EXTENDED: u64 = 1 << 31;
/// The same with 32-bit numbers, where a skip is lost for good.
const SKIP_SHORT: u64 = 1 << 28;
/// Where a 32-bit SA is replaced.
const SOFT_SHORT: u64 = 1 << 31;

/// How long packets are counted for one sample: much less would take a short burst for the rate,
/// and the standby would have to drop that much more.
const SAMPLE: Duration = Duration::from_millis(20);
const SAMPLES_A_SECOND: u64 = 50;

/// Packets per second of one direction: rises at once, falls slowly.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Rate {
    per_second: u64,
    last: Option<(Instant, u64)>,
}

impl Rate {
    /// A counter read at `now`.
    pub fn note(&mut self, now: Instant, counter: u64) {
        let Some((then, before)) = self.last else {
            self.last = Some((now, counter));
            return;
        };
        let elapsed = now.since(then);
        if elapsed < SAMPLE {
            // So much it will be at least when the sample is complete: a flow that starts fast
            // must not wait for that with a lease made for a slow one.
            let least = counter
                .saturating_sub(before)
                .saturating_mul(SAMPLES_A_SECOND);
            self.per_second = self.per_second.max(least);
            return;
        }
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX).max(1);
        let moved = u128::from(counter.saturating_sub(before)) * 1_000_000_000;
        let sample = u64::try_from(moved / u128::from(nanos)).unwrap_or(u64::MAX);
        let decayed = self.per_second - self.per_second / 8;
        self.per_second = sample.max(decayed);
        self.last = Some((now, counter));
    }

    fn over(self, time: Duration) -> u64 {
        let packets = u128::from(self.per_second) * time.as_nanos() / 1_000_000_000;
        u64::try_from(packets).unwrap_or(u64::MAX)
    }
}

/// How far ahead of the cursor an outbound lease reaches. Large on purpose: a skip costs nothing
/// with extended numbers, a short lease costs a stall once the standby is gone (hole D11).
pub(crate) fn outbound(settings: &Settings, rate: Rate, esn: bool) -> u64 {
    let sizes = &settings.leases;
    let (floor, cap) = if esn {
        sizes.outbound
    } else {
        sizes.outbound_short
    };
    let time = settings.heartbeat * 3 + settings.vouch + sizes.exchange;
    let wanted = rate.over(time).checked_next_power_of_two().unwrap_or(cap);
    wanted.clamp(floor.min(cap), cap).max(1)
}

/// How far above the highest authenticated number an inbound lease reaches. Small on purpose: it
/// is what a strict takeover drops (hole D10).
pub(crate) fn inbound(settings: &Settings, rate: Rate) -> u64 {
    let (floor, cap) = settings.leases.inbound;
    let time = (settings.heartbeat * 4).max(Duration::from_millis(50));
    rate.over(time).clamp(floor.min(cap), cap).max(1)
}

/// The last number that an SA may ever use.
pub(crate) fn ceiling(esn: bool) -> u64 {
    if esn { LAST_EXTENDED } else { LAST_SHORT }
}

/// Whether takeovers have skipped so much that the next one might be one too many (hole D14).
pub(crate) fn skipped_too_much(skip_sum: u64, lease: u64, esn: bool) -> bool {
    let bound = if esn { SKIP_EXTENDED } else { SKIP_SHORT };
    skip_sum.saturating_add(lease.saturating_mul(2)) >= bound
}

/// Whether 32-bit numbers come to their end.
pub(crate) fn runs_out(grant: u64, esn: bool) -> bool {
    !esn && grant >= SOFT_SHORT
}

/// The SA numbers of this incarnation that have been used once: an SA that is gone never comes
/// back as a new one (holes A11, A12).
#[derive(Default)]
pub(crate) struct Spent {
    below: u32,
    above: BTreeSet<u32>,
}

/// Numbers kept one by one before the gaps among them are given up as spent.
const GAPS: usize = 65_536;

impl Spent {
    /// Marks it; false if it was spent before.
    pub fn spend(&mut self, sa: SaId) -> bool {
        if sa.counter < self.below || !self.above.insert(sa.counter) {
            return false;
        }
        while self.above.len() > GAPS {
            if let Some(lowest) = self.above.pop_first() {
                self.below = lowest.saturating_add(1);
            }
        }
        while self.above.first() == Some(&self.below) && self.below != u32::MAX {
            self.above.pop_first();
            self.below += 1;
        }
        true
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use hitless_sa::{Incarnation, MemberId};

    pub fn sa(counter: u32) -> SaId {
        SaId {
            creator: MemberId(1),
            incarnation: Incarnation(1),
            counter,
        }
    }

    #[test]
    fn an_sa_number_is_spent_once() {
        let mut spent = Spent::default();
        for counter in [1, 0, 5, 2, u32::MAX] {
            assert!(spent.spend(sa(counter)), "{counter}");
            assert!(!spent.spend(sa(counter)), "{counter}");
        }
        assert!(!spent.spend(sa(2)));
        assert!(spent.spend(sa(3)));
    }

    #[test]
    fn a_lease_follows_the_rate_between_its_bounds() {
        let settings = Settings::new(MemberId(1), Vec::new(), [0; 32]);
        let mut rate = Rate::default();
        assert_eq!(outbound(&settings, rate, true), 1 << 16);
        rate.note(Instant(0), 0);
        rate.note(Instant(1_000_000_000), 1_000_000);
        // 1 Mpps over 330 ms
        assert_eq!(outbound(&settings, rate, true), 1 << 19);
        assert_eq!(inbound(&settings, rate), 50_000);
        rate.note(Instant(1_020_000_000), u64::MAX);
        assert_eq!(outbound(&settings, rate, true), 1 << 29);
        assert_eq!(outbound(&settings, rate, false), 1 << 23);
    }

    #[test]
    fn a_flow_that_starts_fast_has_a_lease_for_it_before_its_first_sample_is_complete() {
        let settings = Settings::new(MemberId(1), Vec::new(), [0; 32]);
        let mut rate = Rate::default();
        assert_eq!(inbound(&settings, rate), 8);
        rate.note(Instant(0), 1);
        rate.note(Instant(1_000_000), 101);
        assert_eq!(inbound(&settings, rate), 250);
        // Complete, it says the same of a burst: it was not taken for the rate of its moment.
        rate.note(Instant(20_000_000), 101);
        assert_eq!(inbound(&settings, rate), 250);
        rate.note(Instant(40_000_000), 101);
        assert_eq!(inbound(&settings, rate), 218);
    }

    #[test]
    fn skips_are_bounded_over_the_life_of_an_sa() {
        assert!(!skipped_too_much(0, 1 << 29, true));
        assert!(skipped_too_much(1 << 30, 1 << 29, true));
        assert!(skipped_too_much(1 << 28, 1, false));
        assert!(runs_out(1 << 31, false) && !runs_out(1 << 31, true));
    }
}
