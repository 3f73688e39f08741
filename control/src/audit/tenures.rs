//! Which tap an address sends from: with each failover it goes over to another one. Where it goes to
//! and fro, members led at once, each for itself: a split.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::report::TapId;

/// An address that is back at a tap after no longer than this was there all the while.
const AT_ONCE: Duration = Duration::from_secs(1);
/// A member that leads beside another one without traffic is heard now and then: a split lasts from
/// one such time to the next, and may have begun as long before the first.
const LASTING: Duration = Duration::from_secs(10);
/// But one that has traffic was not silent for longer than it takes for so many packets.
const SILENT_PACKETS: u32 = 10;

/// An address was sent from at two taps at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Split {
    /// When the second tap sent first, and when one of them sent last beside the other.
    pub from: Duration,
    pub to: Duration,
    /// The second tap, what it sent in [`LASTING`] after its first packet, and the last of that.
    second: TapId,
    packets: u32,
    last: Duration,
    /// When the tap that sent last in it was next followed by another one: what it sent until then
    /// is of the split too. [`LASTING`] at most, for it may be the one that led on.
    until: Duration,
}

impl Split {
    /// Whether the other member may not have heard of what was sent then.
    fn hides(&self, time: Duration) -> bool {
        (self.from.saturating_sub(self.silent())..=self.until).contains(&time)
    }

    /// How long the second tap may have led before it was heard.
    fn silent(&self) -> Duration {
        match self.packets < SILENT_PACKETS {
            true => LASTING,
            false => {
                let pause = (self.last - self.from) / self.packets;
                (pause * SILENT_PACKETS).clamp(AT_ONCE, LASTING)
            }
        }
    }

    /// A tap sends.
    fn note(&mut self, tap: TapId, time: Duration) {
        if tap == self.second && (self.from..=self.from + LASTING).contains(&time) {
            self.packets += 1;
            self.last = self.last.max(time);
        }
    }
}

/// All addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Tenures(BTreeMap<IpAddr, Tenure>);

#[derive(Clone, Debug)]
struct Tenure {
    tap: TapId,
    /// How often the tap had changed.
    changes: u64,
    changed: Option<Duration>,
    splits: Vec<Split>,
}

impl Tenures {
    /// An address sends; gives how often it had changed its tap.
    pub fn note(&mut self, source: IpAddr, tap: TapId, time: Duration) -> u64 {
        let tenure = self.0.entry(source).or_insert(Tenure {
            tap,
            changes: 0,
            changed: None,
            splits: Vec::new(),
        });
        if let Some(split) = tenure.splits.last_mut() {
            split.note(tap, time);
        }
        if tenure.tap != tap {
            let second = std::mem::replace(&mut tenure.tap, tap);
            tenure.changes += 1;
            let before = tenure.changed.replace(time);
            if let Some(last) = tenure
                .splits
                .last_mut()
                .filter(|split| before == Some(split.to))
            {
                last.until = time.min(last.to + LASTING);
            }
            if let Some(from) = before.filter(|before| time.saturating_sub(*before) <= AT_ONCE) {
                let goes_on = |split: &&mut Split| from.saturating_sub(split.to) <= LASTING;
                match tenure.splits.last_mut().filter(goes_on) {
                    Some(split) => (split.to, split.until) = (time, time),
                    None => tenure.splits.push(Split {
                        from,
                        to: time,
                        second,
                        packets: 0,
                        last: from,
                        until: time,
                    }),
                }
            }
        }
        tenure.changes
    }

    pub fn into_splits(self) -> BTreeMap<IpAddr, Vec<Split>> {
        let all = self.0.into_iter();
        let split = all.filter(|(_, tenure)| !tenure.splits.is_empty());
        split
            .map(|(source, tenure)| (source, tenure.splits))
            .collect()
    }
}

/// Whether what was sent then from one tap is not known at the other.
pub(super) fn hidden(
    splits: &BTreeMap<IpAddr, Vec<Split>>,
    source: IpAddr,
    time: Duration,
) -> bool {
    let splits = splits.get(&source).map_or(&[][..], Vec::as_slice);
    splits.iter().any(|split| split.hides(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn splits(sent: &[(u64, u16)]) -> Vec<Split> {
        let mut tenures = Tenures::default();
        for (at, tap) in sent {
            tenures.note(CLUSTER, TapId(*tap), Duration::from_millis(*at));
        }
        tenures.into_splits().remove(&CLUSTER).unwrap_or_default()
    }

    fn split(from: u64, to: u64) -> Split {
        split_until(from, to, to)
    }

    fn split_until(from: u64, to: u64, until: u64) -> Split {
        let [from, to, until] = [from, to, until].map(Duration::from_millis);
        Split {
            from,
            to,
            second: TapId(1),
            packets: 0,
            last: from,
            until,
        }
    }

    /// What the second tap said is counted beside.
    fn times(splits: &[Split]) -> Vec<(Duration, Duration, Duration)> {
        splits.iter().map(|s| (s.from, s.to, s.until)).collect()
    }

    #[test]
    fn a_failover_is_no_split_and_neither_is_one_back_later() {
        assert_eq!(splits(&[(0, 0), (10, 0), (50, 1), (60, 1)]), []);
        assert_eq!(splits(&[(0, 0), (50, 1), (1_051, 0), (3_000, 1)]), []);
    }

    #[test]
    fn members_that_send_in_turn_led_at_once() {
        let sent = [(0, 0), (50, 1), (51, 0), (52, 0), (700, 1), (9_000, 0)];
        assert_eq!(times(&splits(&sent)), times(&[split_until(50, 700, 9_000)]));
        let now_and_then = [(0, 0), (50, 1), (60, 0), (5_000, 1), (5_100, 0)];
        assert_eq!(times(&splits(&now_and_then)), times(&[split(50, 5_100)]));
        let again = [(0, 0), (50, 1), (60, 0), (15_000, 1), (15_100, 0)];
        let both = [split_until(50, 60, 10_060), split(15_000, 15_100)];
        assert_eq!(times(&splits(&again)), times(&both));
    }

    /// The deposed one may say more after its last word beside the other, which has not heard it.
    #[test]
    fn what_the_last_to_send_in_a_split_says_until_the_other_leads_on_is_hidden() {
        let sent = [
            (0, 0),
            (50, 1),
            (700, 0),
            (2_500, 0),
            (4_000, 1),
            (30_000, 1),
        ];
        let splits = BTreeMap::from([(CLUSTER, splits(&sent))]);
        let hidden = |at| hidden(&splits, CLUSTER, Duration::from_millis(at));
        assert!(hidden(2_500) && hidden(4_000) && !hidden(4_001) && !hidden(30_000));
    }

    #[test]
    fn what_left_before_a_split_or_in_it_is_hidden_and_nothing_later() {
        let splits = BTreeMap::from([(CLUSTER, vec![split(50_000, 60_000)])]);
        let hidden = |at| hidden(&splits, CLUSTER, Duration::from_millis(at));
        assert!(!hidden(39_999) && hidden(40_000) && hidden(60_000) && !hidden(60_001));
    }

    /// A member that has traffic sends it as soon as it leads: what the other one said long before
    /// that it has to know.
    #[test]
    fn what_left_a_second_before_a_split_amid_traffic_is_not_hidden() {
        let mut sent = vec![(0, 0), (20_000, 1), (20_001, 0)];
        sent.extend((1..500).map(|number| (20_001 + 10 * number, 1)));
        let splits = BTreeMap::from([(CLUSTER, splits(&sent))]);
        let hidden = |at| hidden(&splits, CLUSTER, Duration::from_millis(at));
        assert!(!hidden(18_999) && hidden(19_000) && hidden(20_000));
    }
}
