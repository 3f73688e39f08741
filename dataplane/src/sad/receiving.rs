//! The receiving half of a Child SA.

mod endpoint;

use std::net::IpAddr;
use std::sync::Arc;

use hitless_sa::{
    ChildSa, Instant, Mode, SaId, SaOptions, SequenceNumber, Spi, TrafficSelector, UdpEncapsulation,
};

use super::SaError;
use crate::aead::{Engine, EspKey};
use crate::cell::Cell;
use crate::counters::SaCounters;
use crate::flow::Flow;
use crate::prefetch::prefetch_start;
use crate::replay::AntiReplay;
use crate::report::Limiter;
use crate::verdict::DropReason;

/// What to do with an authentic packet (R8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Marked as seen: deliver it.
    Deliver,
    /// Above the high water and not marked: ask for more and admit it again when that has risen.
    Wait,
}

/// The receiving half of a Child SA, in one leadership. What a packet touches comes first, on
/// [`HOT`] octets: with many SAs that is what the caches hold.
#[repr(C, align(64))]
pub struct InboundSa {
    pub window: AntiReplay,
    /// The highest number whose ICV verified here, delivered or not; 0 before the first. Unlike the
    /// window's top it owes nothing to the floor: the peer has really sent it, which is what the
    /// delta of RFC 6311 must count from.
    pub authenticated: SequenceNumber,
    pub cell: Arc<Cell>,
    pub key: EspKey,
    /// What this worker has delivered and dropped of it.
    pub counters: Arc<SaCounters>,
    /// When a packet was last delivered.
    pub last_use: Instant,
    usual: Usual,
    pub slot: u32,
    pub esn: bool,
    pub mode: Mode,
    copies_dscp: bool,
    pub id: SaId,
    pub spi: Spi,
    pub encapsulation: Option<UdpEncapsulation>,
    pub local: IpAddr,
    pub remote: IpAddr,
    pub local_ts: Box<[TrafficSelector]>,
    pub remote_ts: Box<[TrafficSelector]>,
    pub options: SaOptions,
    /// Limits what forgeries below the floor cost; those of one SA leave the others theirs.
    pub(crate) below_floor: Limiter,
    /// What waited is delivered without a look at the window: only a simulator that is to notice it
    /// breaks that rule (B1).
    #[doc(hidden)]
    pub releases_unmarked: bool,
}

/// Octets in which the fields up to `id` of a receiving half lie.
const HOT: usize = 128;
const _: () = assert!(std::mem::offset_of!(InboundSa, id) <= HOT);

/// Octets around the text of an ESP packet, as kernels for bursts know it.
const AROUND: usize = 16 + 16;

/// The IPv4 addresses, from first to last, that an SA may carry packets of from anywhere to anywhere
/// behind them, whatever their protocol and ports: most SAs have such selectors, and need no others.
#[derive(Clone, Copy)]
struct Usual {
    local: (u32, u32),
    remote: (u32, u32),
}

impl Usual {
    fn of(local: &[TrafficSelector], remote: &[TrafficSelector]) -> Usual {
        Usual {
            local: Usual::range(local),
            remote: Usual::range(remote),
        }
    }

    /// None, if the first selector is not one of these.
    fn range(selectors: &[TrafficSelector]) -> (u32, u32) {
        match selectors.first() {
            Some(selector) if selector.protocol == 0 && selector.is_any_port() => {
                match (selector.start, selector.end) {
                    (IpAddr::V4(start), IpAddr::V4(end)) => (start.into(), end.into()),
                    _ => (1, 0),
                }
            }
            _ => (1, 0),
        }
    }

    #[inline]
    fn allows(&self, source: u32, destination: u32) -> bool {
        (self.remote.0..=self.remote.1).contains(&source)
            && (self.local.0..=self.local.1).contains(&destination)
    }
}

impl InboundSa {
    /// An SA on which every number up to `floor` counts as seen.
    pub fn new(
        child: &ChildSa,
        cell: Arc<Cell>,
        floor: SequenceNumber,
        slot: u32,
        engine: Engine,
    ) -> Result<InboundSa, SaError> {
        let window = AntiReplay::new(child.replay_window, floor);
        InboundSa::with_window(child, cell, window, slot, engine)
    }

    /// An SA with this window: of a predecessor, or one that other workers share.
    pub fn with_window(
        child: &ChildSa,
        cell: Arc<Cell>,
        window: AntiReplay,
        slot: u32,
        engine: Engine,
    ) -> Result<InboundSa, SaError> {
        Ok(InboundSa {
            copies_dscp: child.options.copy_dscp_in,
            usual: Usual::of(&child.local_ts, &child.remote_ts),
            id: child.id,
            mode: child.mode,
            spi: child.inbound_spi,
            esn: child.esn,
            key: EspKey::new(engine, child.suite, &child.inbound_key)?,
            window,
            authenticated: SequenceNumber(0),
            cell,
            slot,
            local: child.local,
            remote: child.remote,
            encapsulation: child.encapsulation,
            local_ts: child.local_ts.as_slice().into(),
            remote_ts: child.remote_ts.as_slice().into(),
            options: child.options,
            counters: Arc::default(),
            last_use: Instant::default(),
            below_floor: Limiter::default(),
            releases_unmarked: false,
        })
    }

    /// Whether the SA was taken over and nothing authentic has come since, to whichever worker: the
    /// peer may still be below the floor under which everything counts as seen.
    #[inline]
    pub fn is_below_floor(&self) -> bool {
        self.authenticated.0 == 0
            && self.window.is_on()
            && self.window.top().0 > 0
            && self.cell.inbound_top().0 == 0
    }

    /// Asks for what every packet touches of it.
    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch_start(self, HOT);
    }

    /// Asks for what else a packet of so many octets with this low half of its number touches.
    #[inline]
    pub(crate) fn prefetch_rest(&self, octets: usize, low: u32) {
        self.key.prefetch(octets.saturating_sub(AROUND));
        self.cell.prefetch_receiving();
        self.counters.prefetch();
        self.window.prefetch(low);
    }

    /// Asks for what another worker may have written since the last burst, and this one will.
    #[inline]
    pub(crate) fn prefetch_shared(&self, low: u32) {
        if self.window.shared().is_some() {
            self.window.prefetch(low);
        }
    }

    /// Whether an inner packet of this flow is one that this SA may carry (RFC 4301 section 5.2,
    /// step 4).
    #[inline]
    pub fn allows(&self, flow: &Flow) -> bool {
        flow.matches_inbound(&self.local_ts, &self.remote_ts)
    }

    /// Whether inner packets take the outer header's DSCP (RFC 2983).
    #[inline]
    pub(crate) fn copies_dscp(&self) -> bool {
        self.copies_dscp
    }

    /// The same of a packet between these IPv4 addresses, as far as they alone decide: true if so.
    #[inline]
    pub(crate) fn allows_usual(&self, source: u32, destination: u32) -> bool {
        self.usual.allows(source, destination)
    }

    /// The second half of receiving, after [`esp::unwrap`] and again when a packet that waited
    /// is released (B1, B3): the high-water check, then check-and-mark in one step (R8).
    #[inline]
    pub fn admit(&mut self, number: SequenceNumber) -> Result<Admission, DropReason> {
        if !self.cell.may_deliver(number) {
            return match self.cell.frozen() {
                true => Err(DropReason::NotActive),
                false => Ok(Admission::Wait),
            };
        }
        if !self.window.mark(number) {
            return Err(DropReason::Replay);
        }
        Ok(Admission::Deliver)
    }

    /// The same for a packet that waited.
    pub(crate) fn admit_again(&mut self, number: SequenceNumber) -> Result<Admission, DropReason> {
        match self.releases_unmarked && self.cell.may_deliver(number) {
            true => Ok(Admission::Deliver),
            false => self.admit(number),
        }
    }

    /// Counts a packet whose number has been marked and that matches the selectors; `octets` is its
    /// inner length.
    #[inline]
    pub fn count(&mut self, octets: usize, now: Instant) {
        self.counters.count_packets(1, octets);
        self.last_use = now;
    }
}
