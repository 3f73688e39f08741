//! What a worker tells the control thread: answers, which always have room, and hints, which are
//! limited so that nothing on the wire can crowd the answers out.

use std::time::Duration;

use hitless_sa::Instant;
use rtrb::Producer;

use crate::command::Event;

/// Slots of the event ring that hints leave to answers.
const RESERVE: usize = 64;
/// The most answers that one command has.
const ANSWERS: usize = 2;
/// Hints of one kind in each [`PERIOD`].
const ALLOWANCE: u32 = 16;
const PERIOD: Duration = Duration::from_millis(100);

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
        if now >= self.period_end {
            self.period_end = now + PERIOD;
            self.spent = 0;
        }
        self.spent += 1;
        self.spent <= ALLOWANCE
    }
}

/// The worker's end of the event ring.
pub(crate) struct Reports {
    events: Producer<Event>,
    limiters: [Limiter; KINDS],
}

impl Reports {
    pub(crate) fn new(events: Producer<Event>) -> Reports {
        Reports {
            events,
            limiters: [Limiter::default(); KINDS],
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
        if self.allow(kind, now) {
            self.offer(event());
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
    fn hints_are_limited_by_kind_and_leave_room_for_answers() {
        let (events, mut received) = rtrb::RingBuffer::new(RESERVE + 20);
        let mut reports = Reports::new(events);
        let at = |ms| Instant::default() + Duration::from_millis(ms);
        for _ in 0..100 {
            reports.hint(Kind::Acquire, at(0), || Event::Barrier(1));
        }
        assert_eq!(received.slots(), ALLOWANCE as usize);
        for _ in 0..100 {
            reports.hint(Kind::UnknownSpi, at(0), || Event::Barrier(2));
            reports.hint(Kind::Acquire, at(100), || Event::Barrier(3));
        }
        assert_eq!(received.slots(), 20);
        for _ in 0..RESERVE {
            assert!(received.pop().is_ok() || reports.has_room());
            reports.answer(Event::Barrier(4));
        }
    }
}
