//! Which Child SAs in the dataplane belong together: of the same child for the same selectors, and of
//! the same peer. One among tens of thousands is found without a look at the others.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use hitless_sa::SaId;

use super::children::Carried;

/// Kept in step with the SAs by `Children`.
#[derive(Default)]
pub(super) struct Kin {
    /// By a digest of what makes them alike: others may share it.
    alike: BTreeMap<u64, BTreeSet<SaId>>,
    remotes: BTreeMap<IpAddr, BTreeSet<SaId>>,
}

impl Kin {
    pub fn insert(&mut self, carried: &Carried) {
        let sa = carried.child.id;
        self.alike.entry(digest(carried)).or_default().insert(sa);
        let remote = carried.child.remote;
        self.remotes.entry(remote).or_default().insert(sa);
    }

    pub fn remove(&mut self, carried: &Carried) {
        let sa = carried.child.id;
        take(&mut self.alike, digest(carried), sa);
        take(&mut self.remotes, carried.child.remote, sa);
    }

    /// Those that may be of the same child for the same selectors, itself included.
    pub fn alike(&self, carried: &Carried) -> impl Iterator<Item = SaId> + use<'_> {
        self.alike
            .get(&digest(carried))
            .into_iter()
            .flatten()
            .copied()
    }

    /// Those whose peer is there.
    pub fn of_remote(&self, remote: IpAddr) -> impl Iterator<Item = SaId> + use<'_> {
        self.remotes.get(&remote).into_iter().flatten().copied()
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
