//! Traffic selectors that both sides allow (RFC 7296 section 2.9), and of how many of them a Child SA
//! may be: each pair of ours and the peer's is a policy of every member, and of every worker. A
//! peer that asks for more gets the first of them, and is told that there is more to be had.

use hitless_sa::{SaId, TrafficSelector};

use super::established::IkeSa;
use super::room;
use super::settings::Child;

/// Selectors of one list: their number is an octet (RFC 7296 section 3.13).
const LONGEST: usize = u8::MAX as usize;
/// Pairs of one Child SA, and of all in one IKE SA, unless more are configured.
const PAIRS: usize = 256;
const PAIRS_IN_ALL: usize = 1024;

/// What both lists allow (RFC 7296 section 2.9), in the order of `ours`. Where that is too much to be
/// said, one more than can be.
pub(super) fn narrow(ours: &[TrafficSelector], theirs: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut narrowed = Vec::new();
    for selector in ours {
        for other in theirs {
            if narrowed.len() > LONGEST {
                return narrowed;
            }
            if let Some(both) = selector.intersection(other)
                && !narrowed.contains(&both)
            {
                narrowed.push(both);
            }
        }
    }
    narrowed
}

/// Whether every selector lies within one of ours: what a responder may answer.
pub(super) fn within(narrowed: &[TrafficSelector], ours: &[TrafficSelector]) -> bool {
    let contained = |n: &TrafficSelector| ours.iter().any(|o| o.intersection(n) == Some(*n));
    !narrowed.is_empty() && narrowed.iter().all(contained)
}

/// Pairs of one of ours and one of the peer's: no packet has an address of each family.
pub(super) fn pairs(local: &[TrafficSelector], remote: &[TrafficSelector]) -> usize {
    let four = |list: &[TrafficSelector]| list.iter().filter(|ts| ts.start.is_ipv4()).count();
    let (local_four, remote_four) = (four(local), four(remote));
    local_four * remote_four + (local.len() - local_four) * (remote.len() - remote_four)
}

/// Pairs that a Child SA may have.
pub(super) fn most(child: &Child) -> usize {
    pairs(&child.local_ts, &child.remote_ts).max(PAIRS)
}

/// Pairs that one more Child SA may have, in the place of `replaced`, beside those that stay.
pub(super) fn room(ike: &IkeSa, replaced: Option<SaId>) -> usize {
    let of_each = |child: &Child| room::most_of(child) * pairs(&child.local_ts, &child.remote_ts);
    let configured = ike.connection.children.iter().map(of_each);
    let children = ike.children.iter();
    let stay = children.filter(|child| room::stays(child) && Some(child.sa.id) != replaced);
    let taken = stay.map(|child| pairs(&child.sa.local_ts, &child.sa.remote_ts));
    let in_all = configured.sum::<usize>().max(PAIRS_IN_ALL);
    in_all.saturating_sub(taken.sum::<usize>())
}

/// Whether they are no more pairs than that, and can be said.
pub(super) fn fits(local: &[TrafficSelector], remote: &[TrafficSelector], most: usize) -> bool {
    local.len() <= LONGEST && remote.len() <= LONGEST && pairs(local, remote) <= most
}

/// Leaves the first of each: whether some are left out; nothing if no pair can stay.
pub(super) fn clip(
    local: &mut Vec<TrafficSelector>,
    remote: &mut Vec<TrafficSelector>,
    most: usize,
) -> Option<bool> {
    if fits(local, remote, most) {
        return Some(false);
    }
    local.truncate(LONGEST);
    remote.truncate(LONGEST);
    while pairs(local, remote) > most {
        match local.len() >= remote.len() {
            true => local.pop(),
            false => remote.pop(),
        };
    }
    (pairs(local, remote) > 0).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(count: u8) -> Vec<TrafficSelector> {
        let one = |n| TrafficSelector::prefix([10, 1, 0, n].into(), 32).unwrap();
        (0..count).map(one).collect()
    }

    fn everything() -> Vec<TrafficSelector> {
        vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]
    }

    #[test]
    fn rfc7296_section_2_9_a_greedy_peer_gets_the_first_ones() {
        let (mut local, mut remote) = (hosts(255), hosts(255));
        assert_eq!(clip(&mut local, &mut remote, 256), Some(true));
        assert_eq!((local.len(), remote.len()), (16, 16));
        assert_eq!(local, hosts(16));
        let (mut local, mut remote) = (hosts(1), hosts(255));
        assert_eq!(clip(&mut local, &mut remote, 256), Some(false));
        assert_eq!(remote.len(), 255);
        assert_eq!(clip(&mut local, &mut remote, 0), None);
        // Of either family, as many as there are pairs.
        let (mut local, mut remote) = (everything(), everything());
        assert_eq!(pairs(&local, &remote), 2);
        assert_eq!(clip(&mut local, &mut remote, 2), Some(false));
    }

    /// With overlapping selectors of ours more are allowed than a payload has room for.
    #[test]
    fn rfc7296_section_3_13_no_list_is_longer_than_can_be_said() {
        let ours: Vec<_> = (8..24)
            .map(|length| TrafficSelector::prefix([10, 1, 0, 0].into(), length).unwrap())
            .chain(hosts(200))
            .collect();
        let theirs: Vec<_> = (8..24)
            .map(|length| TrafficSelector::prefix([10, 1, 0, 0].into(), length).unwrap())
            .chain(hosts(255))
            .collect();
        let mut local = narrow(&ours, &theirs);
        assert_eq!(local.len(), 256);
        assert_eq!(clip(&mut local, &mut everything(), 1 << 20), Some(true));
        assert_eq!(local.len(), 255);
        assert!(within(&local, &ours));
    }
}
