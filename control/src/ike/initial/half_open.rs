//! The half-open IKE SAs that peers initiate: the largest table that strangers fill.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hitless_sa::{IkeSpi, Instant};

use super::Responder;
use crate::ike::crowd::Source;

/// By our SPI, by what an IKE_SA_INIT request names, and counted by source.
#[derive(Default)]
pub(in crate::ike) struct HalfOpen {
    responders: BTreeMap<IkeSpi, Responder>,
    names: BTreeMap<(SocketAddr, IkeSpi), IkeSpi>,
    sources: BTreeMap<Source, usize>,
    networks: Networks,
    waiting: Waiting,
}

impl HalfOpen {
    pub fn len(&self) -> usize {
        self.responders.len()
    }

    /// How many a source has.
    pub fn of(&self, source: Source) -> usize {
        self.sources.get(&source).copied().unwrap_or_default()
    }

    /// Whether one of another network gives way to one from there, once there is no more room: one of
    /// the network that has most, if that is more than this one would have then.
    pub fn displaces(&self, remote: IpAddr) -> bool {
        self.networks.most() > self.networks.of(Network::of(remote)) + 1
    }

    /// Which one does: the oldest of that network.
    pub fn gives_way(&self) -> Option<IkeSpi> {
        self.networks.oldest_of_most()
    }

    pub fn get(&self, spi: IkeSpi) -> Option<&Responder> {
        self.responders.get(&spi)
    }

    pub fn values(&self) -> impl Iterator<Item = &Responder> {
        self.responders.values()
    }

    /// The one that was made for an IKE_SA_INIT request from there.
    pub fn named(&self, remote: SocketAddr, spi: IkeSpi) -> Option<&Responder> {
        self.responders.get(self.names.get(&(remote, spi))?)
    }

    pub fn insert(&mut self, responder: Responder) {
        self.remove(responder.spi);
        let remote = responder.path.remote;
        *self.sources.entry(Source::of(remote.ip())).or_default() += 1;
        self.networks
            .insert(Network::of(remote.ip()), responder.expires, responder.spi);
        self.names
            .insert((remote, responder.remote_spi), responder.spi);
        self.responders.insert(responder.spi, responder);
    }

    pub fn remove(&mut self, spi: IkeSpi) -> Option<Responder> {
        let responder = self.responders.remove(&spi)?;
        let remote = responder.path.remote;
        self.names.remove(&(remote, responder.remote_spi));
        let source = Source::of(remote.ip());
        if let Some(count) = self.sources.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
        self.networks
            .remove(Network::of(remote.ip()), responder.expires, spi);
        self.waiting.note(spi, responder.waiting(), None);
        Some(responder)
    }

    /// Lets one take a message in. If fragments of more than `most` octets wait in all afterwards,
    /// those that have waited longest are given up: of how many IKE SAs is told.
    pub fn with<T>(
        &mut self,
        spi: IkeSpi,
        most: usize,
        action: impl FnOnce(&mut Responder) -> T,
    ) -> Option<(T, usize)> {
        let responder = self.responders.get_mut(&spi)?;
        let before = responder.waiting();
        let result = action(responder);
        self.waiting.note(spi, before, responder.waiting());
        let mut given_up = 0;
        while self.waiting.octets > most {
            let Some((_, oldest)) = self.waiting.order.first().copied() else {
                break;
            };
            if let Some(responder) = self.responders.get_mut(&oldest) {
                let before = responder.waiting();
                responder.forget_fragments();
                self.waiting.note(oldest, before, None);
            }
            given_up += 1;
        }
        Some((result, given_up))
    }

    pub fn clear(&mut self) {
        *self = HalfOpen::default();
    }
}

/// What one holder of addresses has of them: an IPv4 /24, an IPv6 /48.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Network(IpAddr);

impl Network {
    fn of(address: IpAddr) -> Network {
        Network(match address {
            IpAddr::V4(four) => {
                let [a, b, c, _] = four.octets();
                Ipv4Addr::new(a, b, c, 0).into()
            }
            IpAddr::V6(six) => {
                let [a, b, c, ..] = six.segments();
                Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
            }
        })
    }
}

/// The networks that they are from.
#[derive(Default)]
struct Networks {
    /// The oldest first, which is the first to expire.
    each: BTreeMap<Network, BTreeSet<(Instant, IkeSpi)>>,
    by_count: BTreeSet<(usize, Network)>,
}

impl Networks {
    fn of(&self, network: Network) -> usize {
        self.each.get(&network).map_or(0, BTreeSet::len)
    }

    fn most(&self) -> usize {
        self.by_count.last().map_or(0, |(count, _)| *count)
    }

    fn oldest_of_most(&self) -> Option<IkeSpi> {
        let (_, network) = self.by_count.last()?;
        let (_, spi) = self.each.get(network)?.first()?;
        Some(*spi)
    }

    fn insert(&mut self, network: Network, expires: Instant, spi: IkeSpi) {
        let all = self.each.entry(network).or_default();
        self.by_count.remove(&(all.len(), network));
        all.insert((expires, spi));
        self.by_count.insert((all.len(), network));
    }

    fn remove(&mut self, network: Network, expires: Instant, spi: IkeSpi) {
        let Some(all) = self.each.get_mut(&network) else {
            return;
        };
        self.by_count.remove(&(all.len(), network));
        all.remove(&(expires, spi));
        if all.is_empty() {
            self.each.remove(&network);
        } else {
            self.by_count.insert((all.len(), network));
        }
    }
}

/// Since when fragments wait, and how many octets of them.
pub(in crate::ike) type Held = Option<(Instant, usize)>;

/// The fragments that wait in all of them.
#[derive(Default)]
struct Waiting {
    octets: usize,
    order: BTreeSet<(Instant, IkeSpi)>,
}

impl Waiting {
    fn note(&mut self, spi: IkeSpi, before: Held, after: Held) {
        if let Some((since, octets)) = before {
            self.order.remove(&(since, spi));
            self.octets = self.octets.saturating_sub(octets);
        }
        if let Some((since, octets)) = after {
            self.order.insert((since, spi));
            self.octets += octets;
        }
    }
}
