//! Which inherited IKE SAs find out next where their peers stand (R33, R37, RFC 6311 section 7).
//!
//! A takeover of tens of thousands of IKE SAs without exact Message IDs would ask as many peers at
//! once, and every answer costs us as much as them. So an IKE SA that has to ask owes it
//! (`IkeSa::owed`), and asks when the governor lets it: first those whose synchronisation is needed,
//! then those of connections with `sync_after_takeover = "eager"`; with `"lazy"` only when it is
//! needed. So many exchanges are outstanding at most, and so many begin in a second. What a peer
//! sends needs no leave: one authentic message of a peer makes one of ours.
//!
//! Until it has asked, an IKE SA sends nothing; its Child SAs are carried like any other. That it
//! owes is in its record: another member that takes over meanwhile asks in our place. What is owed is
//! paid once: one synchronisation for each IKE SA and failover (R35).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use hitless_sa::{Entropy, IkeSpi, Instant};

use super::engine::Engine;
use super::established::{IkeSa, State};
use super::mobike;
use super::output::Resume;
use super::settings::{Limits, SyncAfterTakeover};
use super::takeover::MAX_REPLAY_DELTA;
use super::turn::Turn;
use super::work::Share;

/// An exchange that is not answered by then does not hold up others any more: the peer is gone, or
/// far away.
const SLOT: Duration = Duration::from_secs(2);
/// How much of a second's exchanges may begin at once.
const BURST: u32 = 8;

/// A synchronisation that has not begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Owed {
    /// By which way; never [`Resume::Exact`].
    pub how: Resume,
    /// Something waits for it.
    pub needed: bool,
}

/// How urgent it is; the least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Class {
    Needed,
    Eager,
    Lazy,
}

/// Who owes, and what is outstanding.
#[derive(Default)]
pub(super) struct Governor {
    /// In the order of their turns.
    queue: BTreeMap<(Class, u64), IkeSpi>,
    places: BTreeMap<IkeSpi, (Class, u64)>,
    next_place: u64,
    outstanding: BTreeSet<IkeSpi>,
    /// When they began, the oldest first; those that were answered as well.
    begun: VecDeque<(Instant, IkeSpi)>,
    /// When the next one would begin if all came evenly.
    even: Instant,
}

impl Governor {
    /// An IKE SA after its turn.
    pub fn note(&mut self, now: Instant, ike: &IkeSa) {
        let spi = ike.local_spi;
        let waits = ike.state != State::Gone && ike.unanswered.is_none();
        let Some(owed) = ike.owed.filter(|_| waits) else {
            let owed = self.leave(spi);
            if !ike.is_asking() {
                self.outstanding.remove(&spi);
            } else if owed {
                self.began(now, spi);
            }
            return;
        };
        let class = match ike.connection.roads.sync_after_takeover {
            _ if owed.needed => Class::Needed,
            SyncAfterTakeover::Eager => Class::Eager,
            SyncAfterTakeover::Lazy => Class::Lazy,
        };
        if self.places.get(&spi).is_none_or(|(was, _)| *was != class) {
            self.leave(spi);
            let place = (class, self.next_place);
            self.next_place += 1;
            self.queue.insert(place, spi);
            self.places.insert(spi, place);
        }
    }

    fn began(&mut self, now: Instant, spi: IkeSpi) {
        self.outstanding.insert(spi);
        self.begun.push_back((now, spi));
    }

    /// Whether it had a place.
    fn leave(&mut self, spi: IkeSpi) -> bool {
        let place = self.places.remove(&spi);
        place.is_some_and(|place| self.queue.remove(&place).is_some())
    }

    /// The IKE SA is no more, or another member's.
    pub fn forget(&mut self, spi: IkeSpi) {
        self.leave(spi);
        self.outstanding.remove(&spi);
    }

    /// When the next one may begin, if one wants to.
    pub fn first(&self, limits: &Limits) -> Option<Instant> {
        let ((class, _), _) = self.queue.first_key_value()?;
        (*class != Class::Lazy).then(|| self.opens(limits))
    }

    fn opens(&self, limits: &Limits) -> Instant {
        let even = self.even.saturating_sub(tolerance(limits));
        let full = self.outstanding.len() >= limits.takeover_sync_limit;
        match self.begun.front().filter(|_| full) {
            Some((oldest, _)) => even.max(*oldest + SLOT),
            None => even,
        }
    }

    /// Takes leave for one; false if it has to wait.
    fn admit(&mut self, now: Instant, limits: &Limits) -> bool {
        while let Some((begun, spi)) = self.begun.front().copied() {
            let over = now >= begun + SLOT;
            if self.outstanding.contains(&spi) && !over {
                break;
            }
            self.outstanding.remove(&spi);
            self.begun.pop_front();
        }
        let admits = self.opens(limits) <= now;
        if admits {
            self.even = self.even.max(now) + gap(limits);
        }
        admits
    }

    /// IKE SAs that owe.
    pub fn owing(&self) -> usize {
        self.queue.len()
    }
}

/// From one to the next.
fn gap(limits: &Limits) -> Duration {
    match limits.takeover_sync_rate {
        0 => Duration::ZERO,
        rate => Duration::from_secs(1) / rate,
    }
}

fn tolerance(limits: &Limits) -> Duration {
    gap(limits) * (limits.takeover_sync_rate / BURST)
}

impl IkeSa {
    /// The peer has to be asked where it stands; at once, if that may be.
    pub fn owe(&mut self, turn: &mut Turn<'_>, how: Resume, at_once: bool) {
        if how == Resume::Rekey {
            self.replace_children(turn);
        }
        let how = inherited(self.owed.take(), how);
        if matches!(how, Resume::Exact | Resume::Rekey) {
            return;
        }
        let needed = !self.window.outstanding.is_empty() || self.has_something_due(turn.now);
        self.owed = Some(Owed { how, needed });
        // What a predecessor has asked goes on.
        if at_once || self.is_asking() {
            self.pay(turn);
        }
    }

    /// Asks the peer where it stands, if that is owed.
    pub fn pay(&mut self, turn: &mut Turn<'_>) {
        if self.unanswered.is_some() {
            return;
        }
        if let Some(owed) = self.owed.take() {
            turn.dirty = true;
            if !self.repeats_first(turn, owed) {
                self.settle(turn, owed);
            }
        }
    }

    /// The same once it is as good as known that the peer answers nothing of what was asked before.
    pub fn settle_owed(&mut self, turn: &mut Turn<'_>) {
        self.unanswered = None;
        if let Some(owed) = self.owed.take() {
            turn.dirty = true;
            self.settle(turn, owed);
        }
    }

    fn settle(&mut self, turn: &mut Turn<'_>, owed: Owed) {
        self.window.restart(turn.now);
        self.resynchronise(turn, owed.how);
        self.repeat(turn);
        mobike::tell_again(self, turn);
    }

    /// Something waits for what is owed.
    pub fn need(&mut self) {
        if let Some(owed) = &mut self.owed {
            owed.needed = true;
        }
    }

    /// It has asked, and there is no answer yet.
    fn is_asking(&self) -> bool {
        let repeats = self.unanswered.is_some();
        repeats || self.sync.is_some() || self.probe.as_ref().is_some_and(|probe| !probe.answered)
    }

    /// It owes, and nothing waits for that yet.
    pub fn rests(&self) -> bool {
        self.owed.is_some_and(|owed| !owed.needed)
    }

    fn has_something_due(&self, now: Instant) -> bool {
        self.queue.iter().any(|scheduled| scheduled.at <= now)
    }

    /// A request that is due needs what is owed.
    pub fn need_for_tasks(&mut self, now: Instant) {
        if self.rests() && self.has_something_due(now) {
            self.need();
        }
    }
}

/// What is to be done, if a predecessor owed something and did not come to it.
fn inherited(before: Option<Owed>, how: Resume) -> Resume {
    let Some(before) = before else {
        return how;
    };
    match (before.how, how) {
        (how, Resume::Exact | Resume::Rekey) => how,
        // The peer was not asked for what the predecessor would have left out.
        (
            Resume::MessageIdSync {
                replay_delta: first,
            },
            Resume::MessageIdSync {
                replay_delta: second,
            },
        ) => Resume::MessageIdSync {
            replay_delta: match (first, second) {
                (Some(first), Some(second)) => first.checked_add(second),
                (first, second) => first.or(second),
            }
            .filter(|delta| *delta <= MAX_REPLAY_DELTA),
        },
        (_, how) => how,
    }
}

impl Engine {
    /// IKE SAs that have not found out yet where their peers stand, and wait for their turn.
    pub fn owing(&self) -> usize {
        self.governor.owing()
    }

    /// Whether this one does.
    pub fn owes(&self, ike: IkeSpi) -> bool {
        self.sas.get(&ike).is_some_and(|ike| ike.owed.is_some())
    }

    /// Lets those ask whose turn has come, one at least, and as many as the turn has time for.
    pub(super) fn govern(&mut self, now: Instant, entropy: &mut dyn Entropy, share: &Share) {
        let mut some = false;
        while self.governor.first(&self.settings.limits).is_some() {
            if some && share.is_spent() || !self.governor.admit(now, &self.settings.limits) {
                return;
            }
            let Some((_, spi)) = self.governor.queue.first_key_value() else {
                return;
            };
            let spi = *spi;
            some = true;
            self.with(now, entropy, spi, |ike, turn| {
                ike.pay(turn);
                ike.tick(turn);
            });
            // Whatever became of it, its turn is over.
            self.governor.leave(spi);
        }
    }

    /// Whether an IKE SA that goes on like this may ask at once.
    pub(super) fn asks_at_once(&mut self, now: Instant, ike: &IkeSa, how: Resume) -> bool {
        let asks = ike.owed.is_some() || !matches!(how, Resume::Exact | Resume::Rekey);
        let eager = ike.connection.roads.sync_after_takeover == SyncAfterTakeover::Eager;
        let first = self.governor.first(&self.settings.limits).is_none();
        asks && eager && first && self.governor.admit(now, &self.settings.limits)
    }

    /// One that asked at once.
    pub(super) fn note_begun(&mut self, now: Instant, spi: IkeSpi) {
        if self.sas.get(&spi).is_some_and(|ike| ike.is_asking()) {
            self.governor.began(now, spi);
        }
    }
}
