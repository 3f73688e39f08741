//! Which Child SAs in the dataplane belong together: of the same child for the same selectors, and of
//! the same peer. One among tens of thousands is found without a look at the others.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use hitless_sa::{Instant, SaId};

use super::children::Carried;

/// Kept in step with the SAs by `Children`.
#[derive(Default)]
pub(super) struct Kin {
    /// By a digest of what makes them alike: others may share it.
    alike: BTreeMap<u64, BTreeSet<SaId>>,
    /// How many have their peer there.
    remotes: BTreeMap<IpAddr, usize>,
    /// When a peer of some was last heard on an SPI that nobody knows. A note for each peer: whoever
    /// forges such packets pays for one look, not we for one at each of its SAs.
    foreign: BTreeMap<IpAddr, Instant>,
}

impl Kin {
    pub fn insert(&mut self, carried: &Carried) {
        let sa = carried.child.id;
        self.alike.entry(digest(carried)).or_default().insert(sa);
        let remote = carried.child.remote;
        *self.remotes.entry(remote).or_default() += 1;
    }

    pub fn remove(&mut self, carried: &Carried) {
        let sa = carried.child.id;
        take(&mut self.alike, digest(carried), sa);
        let remote = carried.child.remote;
        if let Some(count) = self.remotes.get_mut(&remote) {
            *count -= 1;
            if *count == 0 {
                self.remotes.remove(&remote);
                self.foreign.remove(&remote);
            }
        }
    }

    /// Those that may be of the same child for the same selectors, itself included.
    pub fn alike(&self, carried: &Carried) -> impl Iterator<Item = SaId> + use<'_> {
        self.alike
            .get(&digest(carried))
            .into_iter()
            .flatten()
            .copied()
    }

    /// The peer there was heard on an SPI that nobody knows.
    pub fn hears_foreign(&mut self, now: Instant, remote: IpAddr) {
        if self.remotes.contains_key(&remote) {
            self.foreign.insert(remote, now);
        }
    }

    /// When it last was.
    pub fn foreign(&self, remote: IpAddr) -> Option<Instant> {
        self.foreign.get(&remote).copied()
    }
}

fn take<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<SaId>>, key: K, sa: SaId) {
    if let Some(set) = sets.get_mut(&key) {
        set.remove(&sa);
        if set.is_empty() {
            sets.remove(&key);
        }
    }
}

fn digest(carried: &Carried) -> u64 {
    let mut hasher = DefaultHasher::new();
    carried.connection.hash(&mut hasher);
    carried.name.hash(&mut hasher);
    carried.child.local_ts.hash(&mut hasher);
    carried.child.remote_ts.hash(&mut hasher);
    hasher.finish()
}
