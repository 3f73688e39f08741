//! Which IKE SAs there are, by connection, by peer and by Child SA.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hitless_sa::{IkeSpi, SaId};

use super::established::IkeSa;
use super::proposal::Identification;

/// Kept in step with the IKE SAs by `Engine::commit`.
#[derive(Default)]
pub(super) struct Index {
    connections: BTreeMap<String, BTreeSet<IkeSpi>>,
    /// By the identity of the peer (of the user, with EAP), then by ours towards it: where many share
    /// one, as the clients of a gateway in one process do, the other tells them apart. Both folded: who
    /// spells its name otherwise is authorised as the same, and is no other.
    peers: BTreeMap<Identification, BTreeMap<Identification, BTreeSet<IkeSpi>>>,
    children: BTreeMap<SaId, IkeSpi>,
    /// By the address of the peer.
    addresses: BTreeMap<IpAddr, BTreeSet<IkeSpi>>,
    located: BTreeMap<IkeSpi, IpAddr>,
    /// SPIs that are offered in exchanges under way, by the IKE SA that is being rekeyed.
    offers: BTreeMap<IkeSpi, IkeSpi>,
    offered: BTreeSet<IkeSpi>,
    /// Each with the one whose IKE_AUTH it came of in front.
    lines: BTreeSet<(IkeSpi, IkeSpi)>,
}

impl Index {
    pub fn insert(&mut self, ike: &IkeSa) {
        let spi = ike.local_spi;
        self.locate(spi, ike.path.remote.ip());
        self.lines.insert((ike.origin(), spi));
        self.forget_offer(spi);
        if let Some(offer) = ike.rekeying() {
            self.offers.insert(spi, offer.spi);
            self.offered.insert(offer.spi);
        }
        if let Some(spis) = self.connections.get_mut(&ike.connection.name) {
            spis.insert(spi);
        } else {
            let name = ike.connection.name.clone();
            self.connections.insert(name, BTreeSet::from([spi]));
        }
        let (peer, local) = (ike.peer().folded(), ike.local_id.folded());
        let towards = match self.peers.get_mut(&*peer) {
            Some(towards) => towards,
            None => self.peers.entry(peer.into_owned()).or_default(),
        };
        if let Some(spis) = towards.get_mut(&*local) {
            spis.insert(spi);
        } else {
            towards.insert(local.into_owned(), BTreeSet::from([spi]));
        }
    }

    pub fn remove(&mut self, ike: &IkeSa) {
        let spi = ike.local_spi;
        self.leave(spi);
        self.lines.remove(&(ike.origin(), spi));
        self.forget_offer(spi);
        if let Some(spis) = self.connections.get_mut(&ike.connection.name) {
            spis.remove(&spi);
            if spis.is_empty() {
                self.connections.remove(&ike.connection.name);
            }
        }
        let (peer, local) = (ike.peer().folded(), ike.local_id.folded());
        let Some(towards) = self.peers.get_mut(&*peer) else {
            return;
        };
        if let Some(spis) = towards.get_mut(&*local) {
            spis.remove(&spi);
            if spis.is_empty() {
                towards.remove(&*local);
            }
        }
        if towards.is_empty() {
            self.peers.remove(&*peer);
        }
    }

    /// A peer may move.
    fn locate(&mut self, spi: IkeSpi, address: IpAddr) {
        if self.located.get(&spi) != Some(&address) {
            self.leave(spi);
            self.located.insert(spi, address);
            self.addresses.entry(address).or_default().insert(spi);
        }
    }

    fn leave(&mut self, spi: IkeSpi) {
        let Some(address) = self.located.remove(&spi) else {
            return;
        };
        if let Some(spis) = self.addresses.get_mut(&address) {
            spis.remove(&spi);
            if spis.is_empty() {
                self.addresses.remove(&address);
            }
        }
    }

    fn forget_offer(&mut self, ike: IkeSpi) {
        if let Some(offered) = self.offers.remove(&ike) {
            self.offered.remove(&offered);
        }
    }

    /// Whether an IKE SA with that SPI of ours may be on its way.
    pub fn is_offered(&self, spi: IkeSpi) -> bool {
        self.offered.contains(&spi)
    }

    pub fn of_connection(&self, name: &str) -> impl Iterator<Item = IkeSpi> + '_ {
        self.connections.get(name).into_iter().flatten().copied()
    }

    /// Those between the same two.
    pub fn between(
        &self,
        local: &Identification,
        remote: &Identification,
    ) -> impl Iterator<Item = IkeSpi> + '_ {
        self.spis_between(local, remote)
            .into_iter()
            .flatten()
            .copied()
    }

    fn spis_between(
        &self,
        local: &Identification,
        remote: &Identification,
    ) -> Option<&BTreeSet<IkeSpi>> {
        self.peers.get(&*remote.folded())?.get(&*local.folded())
    }

    /// How many those are.
    pub fn count_between(&self, local: &Identification, remote: &Identification) -> usize {
        self.spis_between(local, remote).map_or(0, BTreeSet::len)
    }

    /// Those that came of one IKE_AUTH by rekeying.
    pub fn line(&self, origin: IkeSpi) -> impl Iterator<Item = IkeSpi> + '_ {
        let all = (origin, IkeSpi(0))..=(origin, IkeSpi(u64::MAX));
        self.lines.range(all).map(|(_, spi)| *spi)
    }

    /// Those whose peer is there.
    pub fn at(&self, address: IpAddr) -> impl Iterator<Item = IkeSpi> + '_ {
        self.addresses.get(&address).into_iter().flatten().copied()
    }

    pub fn of_child(&self, sa: SaId) -> Option<IkeSpi> {
        self.children.get(&sa).copied()
    }

    pub fn insert_child(&mut self, sa: SaId, ike: IkeSpi) {
        self.children.insert(sa, ike);
    }

    pub fn remove_child(&mut self, sa: SaId) {
        self.children.remove(&sa);
    }
}
