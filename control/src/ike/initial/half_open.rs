//! The half-open IKE SAs that peers initiate: the largest table that strangers fill.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hitless_sa::IkeSpi;

use super::Responder;
use crate::ike::crowd::Source;

/// Octets of fragments that wait in all half-open IKE SAs together. Their senders have done a key
/// exchange with us and are nobody yet.
const MOST_WAITING: usize = 16 << 20;

/// By our SPI, by what an IKE_SA_INIT request names, and counted by source.
#[derive(Default)]
pub(in crate::ike) struct HalfOpen {
    responders: BTreeMap<IkeSpi, Responder>,
    names: BTreeMap<(SocketAddr, IkeSpi), IkeSpi>,
    sources: BTreeMap<Source, usize>,
    waiting: usize,
}

impl HalfOpen {
    pub fn len(&self) -> usize {
        self.responders.len()
    }

    /// How many a source has.
    pub fn of(&self, source: Source) -> usize {
        self.sources.get(&source).copied().unwrap_or_default()
    }

    pub fn get(&self, spi: IkeSpi) -> Option<&Responder> {
        self.responders.get(&spi)
    }

    /// The one that was made for an IKE_SA_INIT request from there.
    pub fn named(&self, remote: SocketAddr, spi: IkeSpi) -> Option<&Responder> {
        self.responders.get(self.names.get(&(remote, spi))?)
    }

    pub fn insert(&mut self, responder: Responder) {
        self.remove(responder.spi);
        let remote = responder.path.remote;
        *self.sources.entry(Source::of(remote.ip())).or_default() += 1;
        self.names
            .insert((remote, responder.remote_spi), responder.spi);
        self.waiting += responder.waiting();
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
        self.waiting = self.waiting.saturating_sub(responder.waiting());
        Some(responder)
    }

    /// Lets one take a message in; false if it had to give up the fragments that wait in it, because
    /// too many do.
    pub fn with<T>(
        &mut self,
        spi: IkeSpi,
        action: impl FnOnce(&mut Responder) -> T,
    ) -> Option<(T, bool)> {
        let responder = self.responders.get_mut(&spi)?;
        let others = self.waiting.saturating_sub(responder.waiting());
        let result = action(responder);
        let fits = others + responder.waiting() <= MOST_WAITING;
        if !fits {
            responder.forget_fragments();
        }
        self.waiting = others + responder.waiting();
        Some((result, fits))
    }

    pub fn clear(&mut self) {
        *self = HalfOpen::default();
    }
}
