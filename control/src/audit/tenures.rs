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

/// An address was sent from at two taps at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Split {
    /// When the second tap sent first, and when one of them sent last beside the other.
    pub from: Duration,
    pub to: Duration,
}

impl Split {
    /// Whether the other member may not have heard of what was sent then.
    fn hides(&self, time: Duration) -> bool {
        (self.from.saturating_sub(LASTING)..=self.to).contains(&time)
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
        if tenure.tap != tap {
            (tenure.tap, tenure.changes) = (tap, tenure.changes + 1);
            let before = tenure.changed.replace(time);
            if let Some(from) = before.filter(|before| time.saturating_sub(*before) <= AT_ONCE) {
                let goes_on = |split: &&mut Split| from.saturating_sub(split.to) <= LASTING;
                match tenure.splits.last_mut().filter(goes_on) {
                    Some(split) => split.to = time,
                    None => tenure.splits.push(Split { from, to: time }),
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
        let [from, to] = [from, to].map(Duration::from_millis);
        Split { from, to }
    }

    #[test]
    fn a_failover_is_no_split_and_neither_is_one_back_later() {
        assert_eq!(splits(&[(0, 0), (10, 0), (50, 1), (60, 1)]), []);
        assert_eq!(splits(&[(0, 0), (50, 1), (1_051, 0), (3_000, 1)]), []);
    }

    #[test]
    fn members_that_send_in_turn_led_at_once() {
        let sent = [(0, 0), (50, 1), (51, 0), (52, 0), (700, 1), (9_000, 0)];
        assert_eq!(splits(&sent), [split(50, 700)]);
        let now_and_then = [(0, 0), (50, 1), (60, 0), (5_000, 1), (5_100, 0)];
        assert_eq!(splits(&now_and_then), [split(50, 5_100)]);
        let again = [(0, 0), (50, 1), (60, 0), (15_000, 1), (15_100, 0)];
        assert_eq!(splits(&again), [split(50, 60), split(15_000, 15_100)]);
    }

    #[test]
    fn what_left_before_a_split_or_in_it_is_hidden_and_nothing_later() {
        let splits = BTreeMap::from([(CLUSTER, vec![split(50_000, 60_000)])]);
        let hidden = |at| hidden(&splits, CLUSTER, Duration::from_millis(at));
        assert!(!hidden(39_999) && hidden(40_000) && hidden(60_000) && !hidden(60_001));
    }
}
