//! Who leads, as the workers of a group see it: one word, set by the control thread, and when that
//! thread was last seen to get on.
//!
//! The word is another one after each change. So a worker that was paused while its member stopped
//! leading and began again knows that what waits with it is of a leadership that is over (rule R14):
//! whether the member leads now would say nothing of that.

use hitless_sa::Instant;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::verdict::DropReason;
use crate::worker::Worker;

/// For ever: nobody promised to say that the control thread gets on.
const UNWATCHED: u64 = u64::MAX;

/// Whether this member leads: one flag for all workers of a group, set by the control thread.
/// A worker looks at it once a burst.
#[derive(Debug)]
pub struct Leadership {
    word: AtomicU64,
    /// How long workers lead without another word of the control thread, or [`UNWATCHED`].
    until: AtomicU64,
}

/// What the word was at some time: the state in the lowest bits, and how often it has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Term(pub(crate) u64);

const STATE: u64 = 0b11;
const CHANGE: u64 = STATE + 1;
const FOLLOWS: u64 = 0;
const LEADS: u64 = 1;
const FORWARDS: u64 = 2;

impl Term {
    pub(crate) fn leads(self) -> bool {
        self.0 & STATE == LEADS
    }

    /// Whether this member has handed over a moment ago, and gives packets that still come to it to
    /// the control thread ([`Parcel::Late`](crate::parcel::Parcel::Late)).
    pub(crate) fn forwards(self) -> bool {
        self.0 & STATE == FORWARDS
    }
}

impl Leadership {
    /// A flag that says so.
    pub fn new(leading: bool) -> Arc<Leadership> {
        Arc::new(Leadership {
            word: AtomicU64::new(u64::from(leading)),
            until: AtomicU64::new(UNWATCHED),
        })
    }

    /// The control thread gets on. From the first time on it must go on saying so, by the clock of the
    /// workers: after `until` they act as if this member did not lead, until it does. Numbers are safe
    /// for ever (rules R3 and R4): this is for the answers to neighbours and the keepalives, which would
    /// go on telling switches and NATs that the cluster's addresses are here.
    pub fn attend(&self, until: Instant) {
        self.until.store(until.0, Ordering::Relaxed);
    }

    /// Whether the control thread gets on, or nobody promised to tell.
    pub(crate) fn is_attended(&self, now: Instant) -> bool {
        now.0 <= self.until.load(Ordering::Relaxed)
    }

    pub(crate) fn term(&self) -> Term {
        Term(self.word.load(Ordering::Acquire))
    }

    /// Whether this member leads.
    pub fn leading(&self) -> bool {
        self.term().leads()
    }

    /// As `set(false)`, but what still comes is forwarded.
    pub fn hand_over(&self) {
        self.change(FORWARDS);
    }

    /// Takes effect at each worker's next burst. After `set(false)`, a [`Command::Barrier`] that is
    /// answered means that nothing more leaves that worker. One that was paused meanwhile heeds it
    /// before its next burst, even if the member leads again by then.
    ///
    /// [`Command::Barrier`]: crate::command::Command::Barrier
    pub fn set(&self, leading: bool) {
        self.change(if leading { LEADS } else { FOLLOWS });
    }

    fn change(&self, state: u64) {
        let other = |word: u64| (word & STATE != state).then(|| (word & !STATE) + CHANGE + state);
        // Refused where nothing changes.
        let _ = self
            .word
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, other);
    }
}

impl Worker {
    /// Whether this member leads; asked once a burst (rule R3). In another term than before, nothing
    /// of what has not left by now is to leave or to be delivered later (rule R14).
    #[inline]
    pub(crate) fn leads(&mut self) -> bool {
        let term = self.leadership.term();
        if term != self.term {
            self.term = term;
            // Those that are missing go on as well: nobody else can put them together.
            while term.forwards()
                && let Some(fragment) = self.reassembly.pop()
            {
                self.not_active_any_more(fragment);
            }
            self.forget_what_waits();
            self.links.doubt_neighbours();
        }
        term.leads() && self.attended
    }

    /// Looks whether the control thread gets on; once a turn. What waits when it does not is not to
    /// leave later.
    pub(crate) fn look_for_control(&mut self, now: Instant) {
        let attended = self.leadership.is_attended(now);
        if attended != self.attended {
            self.attended = attended;
            self.forget_what_waits();
        }
    }

    #[cold]
    pub(crate) fn forget_what_waits(&mut self) {
        self.announcement = None;
        self.drop_parked(|_| true, DropReason::NotActive);
        self.links
            .drop_unsent(&mut self.frames, DropReason::NotActive);
        self.reassembly
            .clear(&mut self.frames, DropReason::NotActive);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn without_its_control_thread_a_worker_does_not_lead_for_long() {
        let at = |ms: u64| Instant(7_000_000_000) + Duration::from_millis(ms);
        let leadership = Leadership::new(true);
        assert!(leadership.is_attended(at(0)) && leadership.is_attended(Instant(u64::MAX)));
        leadership.attend(at(2_000));
        // A worker's clock was read before, perhaps.
        assert!(leadership.is_attended(Instant(0)));
        assert!(leadership.is_attended(at(2_000)) && !leadership.is_attended(at(2_001)));
        leadership.attend(at(7_000));
        assert!(leadership.is_attended(at(6_000)));
        assert!(
            leadership.leading(),
            "that is for the control thread to change"
        );
    }

    #[test]
    fn each_change_makes_another_term_and_nothing_else_does() {
        let leadership = Leadership::new(true);
        let first = leadership.term();
        leadership.set(true);
        assert_eq!(leadership.term(), first);
        leadership.set(false);
        assert!(!leadership.leading() && !leadership.term().forwards());
        leadership.set(true);
        assert!(leadership.leading());
        let second = leadership.term();
        assert_ne!(second, first, "led, followed, and leads again");
        leadership.hand_over();
        assert!(leadership.term().forwards() && !leadership.leading());
        leadership.set(true);
        assert!(![first, second].contains(&leadership.term()));
    }
}
