//! What each policy has handled: exact, without lock or locked instruction for workers that the
//! database was made for. A count outlives its database, since the next one may go on with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use hitless_sa::TrafficSelector;

use super::{Action, Direction, Policy};
use crate::prefetch::prefetch;

/// Packets and octets that a policy matched: on their way out, and those that came in clear to the
/// unprotected side. What its SAs deliver is counted with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PolicyTraffic {
    pub packets_out: u64,
    pub bytes_out: u64,
    pub packets_in: u64,
    pub bytes_in: u64,
}

#[derive(Default, Debug)]
struct Counts {
    outbound: [AtomicU64; 2],
    inbound: [AtomicU64; 2],
}

/// The counts of one policy: a share for each worker, and a last one for all others.
#[derive(Clone, Debug)]
pub(super) struct Tally(Arc<[CachePadded<Counts>]>);

impl Tally {
    pub(super) fn new(workers: usize) -> Tally {
        Tally((0..=workers).map(|_| CachePadded::default()).collect())
    }

    /// The share of a worker, and whether it is its own.
    #[inline]
    fn share(&self, worker: usize) -> Option<(&Counts, bool)> {
        let (others, own) = self.0.split_last()?;
        Some(match own.get(worker) {
            Some(own) => (own, true),
            None => (others, false),
        })
    }

    /// Asks for a worker's share.
    #[inline]
    pub(super) fn prefetch_counts(&self, worker: usize) {
        if let Some((counts, _)) = self.share(worker) {
            prefetch(counts);
        }
    }

    #[inline]
    pub(super) fn add(&self, worker: usize, direction: Direction, packets_and_octets: [u64; 2]) {
        let Some((counts, own)) = self.share(worker) else {
            return;
        };
        let pair = match direction {
            Direction::Outbound => &counts.outbound,
            Direction::Inbound => &counts.inbound,
        };
        for (count, more) in pair.iter().zip(packets_and_octets) {
            if own {
                // A single writer needs no locked instruction.
                let now = count.load(Ordering::Relaxed);
                count.store(now.wrapping_add(more), Ordering::Relaxed);
            } else {
                count.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn read(&self) -> PolicyTraffic {
        let mut sum = PolicyTraffic::default();
        for counts in self.0.iter() {
            let [packets_out, bytes_out] = &counts.outbound;
            let [packets_in, bytes_in] = &counts.inbound;
            let add = |sum: &mut u64, count: &AtomicU64| {
                *sum = sum.wrapping_add(count.load(Ordering::Relaxed));
            };
            add(&mut sum.packets_out, packets_out);
            add(&mut sum.bytes_out, bytes_out);
            add(&mut sum.packets_in, packets_in);
            add(&mut sum.bytes_in, bytes_in);
        }
        sum
    }
}

/// What makes a policy the same in the next database: an SA may have taken another's place.
type Identity = (TrafficSelector, TrafficSelector, u8);

fn identity(policy: &Policy) -> Identity {
    let kind = match policy.action {
        Action::Protect(Some(_)) => 0,
        Action::Protect(None) => 1,
        Action::Bypass => 2,
        Action::Discard => 3,
    };
    (policy.local, policy.remote, kind)
}

/// The tallies of a database whose successor is being made.
pub(super) struct Inheritance(BTreeMap<Identity, Vec<Tally>>);

impl Inheritance {
    pub(super) fn new(policies: &[Policy], tallies: &[Tally]) -> Inheritance {
        let mut left: BTreeMap<Identity, Vec<Tally>> = BTreeMap::new();
        // Backwards, so that of several alike the first is taken first.
        for (policy, tally) in policies.iter().zip(tallies).rev() {
            left.entry(identity(policy))
                .or_default()
                .push(tally.clone());
        }
        Inheritance(left)
    }

    pub(super) fn take(&mut self, policy: &Policy) -> Option<Tally> {
        self.0.get_mut(&identity(policy))?.pop()
    }
}
