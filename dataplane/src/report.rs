//! What a worker tells the control thread: answers, which always have room, and hints, which are
//! limited so that nothing on the wire can crowd the answers out.

use std::hash::{BuildHasher, Hash};
use std::net::SocketAddr;
use std::time::Duration;

use foldhash::fast::FixedState;
use hitless_sa::{Instant, Spi};
use rtrb::Producer;

use crate::command::Event;

/// Slots of the event ring that hints leave to answers.
const RESERVE: usize = 64;
/// The most answers that one command has.
const ANSWERS: usize = 2;
/// Hints of one kind in each [`PERIOD`].
const ALLOWANCE: u32 = 16;
const PERIOD: Duration = Duration::from_millis(100);
/// Of SAs that are missing more: after a split brain every tunnel of a peer may have one, and a new
/// leader installs those first for which packets come.
const SPIS: u32 = 256;
/// An SPI that was named is not named again before this.
const SPI_PAUSE: Duration = Duration::from_millis(250);
/// SPIs of which that is known.
const SPI_PLACES: usize = 512;
/// A thing that was named is not named again before this.
const PAUSE: Duration = Duration::from_millis(50);
/// Things of which that is known.
const PLACES: usize = 1024;
/// Hints of one kind in each [`PERIOD`], about things that are named once in a [`PAUSE`].
const NAMED: u32 = 64;

/// A kind of thing that the wire may cause, and that is limited on its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Acquire,
    UnknownSpi,
    PeerMoved,
    HighWater,
    Neighbour,
    IcmpError,
    Strayed,
    Answered,
}

const KINDS: usize = 8;

/// So many in a period, then none until the next one.
#[derive(Clone, Copy, Default)]
pub(crate) struct Limiter {
    period_end: Instant,
    spent: u32,
}

impl Limiter {
    pub(crate) fn allow(&mut self, now: Instant) -> bool {
        self.allow_of(now, ALLOWANCE)
    }

    fn allow_of(&mut self, now: Instant, allowance: u32) -> bool {
        if now >= self.period_end {
            self.period_end = now + PERIOD;
            self.spent = 0;
        }
        self.spent = self.spent.saturating_add(1);
        self.spent <= allowance
    }
}

/// The worker's end of the event ring.
pub(crate) struct Reports {
    events: Producer<Event>,
    limiters: [Limiter; KINDS],
    /// Unknown SPIs that were named lately, and when that was: steady traffic on some would else
    /// spend what all may say, and the others would never be heard of.
    spis: Box<[(Spi, Instant); SPI_PLACES]>,
    /// The same of other things, each by what its kind and name come to.
    named: Box<[(u64, Instant); PLACES]>,
    hasher: FixedState,
}

impl Reports {
    pub(crate) fn new(events: Producer<Event>) -> Reports {
        Reports {
            events,
            limiters: [Limiter::default(); KINDS],
            spis: Box::new([(Spi(0), Instant::default()); SPI_PLACES]),
            named: Box::new([(0, Instant::default()); PLACES]),
            hasher: FixedState::default(),
        }
    }

    /// Whether a command may be taken: all its answers would fit.
    pub(crate) fn has_room(&self) -> bool {
        self.events.slots() >= ANSWERS
    }

    /// Sends an answer. The caller made sure of room with [`Reports::has_room`].
    pub(crate) fn answer(&mut self, event: Event) {
        let sent = self.events.push(event);
        debug_assert!(sent.is_ok(), "a command was taken without room to answer");
    }

    /// Whether one more of this kind is within its limit now.
    pub(crate) fn allow(&mut self, kind: Kind, now: Instant) -> bool {
        self.limiters
            .get_mut(kind as usize)
            .is_some_and(|limiter| limiter.allow(now))
    }

    /// Sends a hint if it is within its limit and the ring is not nearly full.
    pub(crate) fn hint(&mut self, kind: Kind, now: Instant, event: impl FnOnce() -> Event) {
        let allowance = match kind {
            Kind::Acquire => SPIS,
            _ => ALLOWANCE,
        };
        let limiter = self.limiters.get_mut(kind as usize);
        if limiter.is_some_and(|limiter| limiter.allow_of(now, allowance)) {
            self.offer(event());
        }
    }

    /// As [`Reports::hint`], about one of many things, an SA or a policy: steady traffic on some keeps
    /// nobody from hearing of the others.
    pub(crate) fn hint_of(
        &mut self,
        kind: Kind,
        thing: impl Hash,
        now: Instant,
        event: impl FnOnce() -> Event,
    ) {
        let name = self.hasher.hash_one((kind as usize, thing));
        let Some((named, at)) = self.named.get_mut(name as usize % PLACES) else {
            return;
        };
        if *named == name && now.since(*at) < PAUSE {
            return;
        }
        let limiter = self.limiters.get_mut(kind as usize);
        if limiter.is_some_and(|limiter| limiter.allow_of(now, NAMED)) {
            (*named, *at) = (name, now);
            self.offer(event());
        }
    }

    /// Names an SPI of which no SA is known, if it was not named just now.
    pub(crate) fn unknown_spi(&mut self, now: Instant, spi: Spi, source: SocketAddr) {
        // Fibonacci hashing: the SPIs of a cluster begin with the same octet.
        let place = spi.0.wrapping_mul(0x9e37_79b9) as usize >> 16;
        let Some((named, at)) = self.spis.get_mut(place % SPI_PLACES) else {
            return;
        };
        if *named == spi && now.since(*at) < SPI_PAUSE {
            return;
        }
        let limiter = self.limiters.get_mut(Kind::UnknownSpi as usize);
        if limiter.is_some_and(|limiter| limiter.allow_of(now, SPIS)) {
            (*named, *at) = (spi, now);
            self.offer(Event::UnknownSpi { spi, source });
        }
    }

    /// Sends a hint that is limited already, unless the ring is nearly full.
    pub(crate) fn offer(&mut self, event: Event) {
        if self.events.slots() > RESERVE {
            let _ = self.events.push(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unknown_spi_is_heard_of_however_steady_the_traffic_on_the_others_is() {
        let (events, mut received) = rtrb::RingBuffer::new(8192);
        let mut reports = Reports::new(events);
        let mut named = std::collections::BTreeMap::new();
        // 300 SPIs, each ten times a second, always in the same order.
        for ms in 0..1000 {
            let now = Instant(1_000_000_000) + Duration::from_millis(ms);
            for spi in (0..300).filter(|spi| u64::from(spi % 100) == ms % 100) {
                reports.unknown_spi(now, Spi(0x0100_0000 + spi), ([192, 0, 2, 9], 4500).into());
            }
        }
        while let Ok(Event::UnknownSpi { spi, .. }) = received.pop() {
            *named.entry(spi).or_insert(0) += 1;
        }
        assert_eq!(named.len(), 300);
        // Those that share a place push each other out of it.
        assert!(
            named.values().all(|count| (3..=10).contains(count)),
            "{named:?}"
        );
    }

    #[test]
    fn no_policy_and_no_sa_silences_the_others_of_its_kind() {
        let (events, mut received) = rtrb::RingBuffer::new(8192);
        let mut reports = Reports::new(events);
        let mut named = std::collections::BTreeMap::new();
        // One of 40 sends all the time, in front of all others, each of which sends now and then.
        for ms in 0..1000 {
            let now = Instant(1_000_000_000) + Duration::from_millis(ms);
            for _ in 0..100 {
                reports.hint_of(Kind::Acquire, 0u64, now, || Event::Barrier(0));
            }
            if ms % 100 < 40 {
                let name = ms % 100;
                reports.hint_of(Kind::Acquire, name, now, || Event::Barrier(name));
            }
        }
        while let Ok(Event::Barrier(name)) = received.pop() {
            *named.entry(name).or_insert(0) += 1;
        }
        assert_eq!(named.len(), 40);
        assert!(
            named.values().all(|count| (10..=20).contains(count)),
            "{named:?}"
        );
        // What has a like name but is of another kind is another thing; a flood of things is limited.
        let now = Instant(5_000_000_000);
        reports.hint_of(Kind::PeerMoved, 0u64, now, || Event::Barrier(1));
        reports.hint_of(Kind::Strayed, 0u64, now, || Event::Barrier(2));
        assert_eq!(received.slots(), 2);
        for name in 0..10_000u64 {
            reports.hint_of(Kind::HighWater, name, now, || Event::Barrier(3));
        }
        assert_eq!(received.slots(), 2 + NAMED as usize);
    }

    #[test]
    fn a_flood_of_unknown_spis_is_limited() {
        let (events, received) = rtrb::RingBuffer::new(8192);
        let mut reports = Reports::new(events);
        for spi in 1..100_000u32 {
            reports.unknown_spi(Instant(1), Spi(spi), ([192, 0, 2, 9], 4500).into());
        }
        assert_eq!(received.slots(), SPIS as usize);
    }

    #[test]
    fn hints_are_limited_by_kind_and_leave_room_for_answers() {
        let (events, mut received) = rtrb::RingBuffer::new(RESERVE + 20);
        let mut reports = Reports::new(events);
        let at = |ms| Instant::default() + Duration::from_millis(ms);
        for _ in 0..100 {
            reports.hint(Kind::PeerMoved, at(0), || Event::Barrier(1));
        }
        assert_eq!(received.slots(), ALLOWANCE as usize);
        for _ in 0..100 {
            reports.hint(Kind::UnknownSpi, at(0), || Event::Barrier(2));
            reports.hint(Kind::PeerMoved, at(100), || Event::Barrier(3));
        }
        assert_eq!(received.slots(), 20);
        for _ in 0..RESERVE {
            assert!(received.pop().is_ok() || reports.has_room());
            reports.answer(Event::Barrier(4));
        }
    }
}
