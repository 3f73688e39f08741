//! This member's disk: what it is asked to keep, and what follows when it refuses or does not answer.
//!
//! A takeover needs a write (`lease-holes` R1), a reign on nothing needs none. So a standby that
//! cannot write gives its right up after a while and serves on new keys, or follows who else leads:
//! a dead disk of one member must not be the end of the service.

use std::time::Duration;

use hitless_sa::{Epoch, Instant};

use crate::node::Node;
use crate::{Durable, Event, Output, Role};

/// A disk that has written nothing for so long is taken for dead. A healthy one that is very busy
/// takes a second at worst, and who waits for it keeps every key.
pub(crate) const DEAD: Duration = Duration::from_secs(2);
/// From one try to the next of a disk that refused, while nothing needs to be written.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A write of an epoch was given up and may still be done: it is on disk then, and was never led.
#[derive(Clone, Copy)]
pub(crate) struct Forsworn {
    epoch: Epoch,
    /// What was led last before it.
    before: Option<Epoch>,
}

/// Writes that did not come to anything yet.
#[derive(Clone, Copy)]
pub(crate) struct Unwritten {
    /// When the first of them was asked for.
    since: Instant,
    /// One was refused.
    refused: bool,
}

impl Node {
    /// Asks for a write, unless it is already done or another one is under way. Epochs on disk
    /// only rise (R1).
    pub(crate) fn want(&mut self, promised: Option<Epoch>, led: Option<Epoch>) {
        let durable = Durable {
            incarnation: self.durable.incarnation,
            promised: self.durable.promised.max(promised),
            led: self.durable.led.max(led),
        };
        if durable != self.durable && self.writing.is_none() && self.now >= self.write_after {
            self.write(durable);
        }
    }

    fn write(&mut self, durable: Durable) {
        let first = Unwritten {
            since: self.now,
            refused: false,
        };
        self.unwritten.get_or_insert(first);
        self.writing = Some(durable);
        self.outputs.push_back(Output::Persist(durable));
    }

    /// This process will not lead the epoch that it wanted to.
    pub(crate) fn forswear(&mut self, epoch: Epoch) {
        let before = self.led();
        if before < Some(epoch) {
            self.forsworn = Some(Forsworn { epoch, before });
        }
    }

    /// What this member has led last. Others take it for the end of what they lead (R14): so it must
    /// not say so of an epoch that is only on disk.
    pub(crate) fn led(&self) -> Option<Epoch> {
        let led = self.durable.led;
        match self.forsworn {
            Some(forsworn) if led <= Some(forsworn.epoch) => forsworn.before,
            _ => led,
        }
    }

    /// The highest promise that is on disk or may be about to be.
    pub(crate) fn promised(&self) -> Option<Epoch> {
        let writing = self.writing.and_then(|writing| writing.promised);
        self.durable.promised.max(writing)
    }

    pub(crate) fn persisted(&mut self) {
        if let Some(written) = self.writing.take() {
            self.durable = written;
            self.unwritten = None;
        }
        self.tell_promise();
    }

    pub(crate) fn persist_failed(&mut self) {
        if self.writing.take().is_none() {
            return;
        }
        self.write_after = self.now + self.settings.takeover();
        self.try_after = self.now + TRY_AGAIN;
        if let Some(unwritten) = &mut self.unwritten {
            unwritten.refused = true;
        }
        self.event(Event::PersistFailed);
        self.abort_takeover();
    }

    /// Who needs nothing written hears of a disk that works again by writing once more what it knows.
    pub(crate) fn review_disk(&mut self) {
        let refused = self.unwritten.is_some_and(|unwritten| unwritten.refused);
        if refused && self.writing.is_none() && self.now >= self.try_after {
            self.write(self.durable);
        }
    }

    /// Since when this member's disk has been in trouble: it refused, or owes an answer for longer than
    /// any member is waited for.
    pub(crate) fn disk_fails(&self) -> Option<Instant> {
        let fails =
            |it: &Unwritten| it.refused || self.now.since(it.since) >= self.settings.patience();
        let unwritten = self.unwritten.filter(fails);
        unwritten.map(|unwritten| unwritten.since)
    }

    /// Whether nothing was written in all the time that a healthy disk takes, of what has been wanted
    /// since then.
    pub(crate) fn disk_is_dead(&self, wanted: Instant) -> bool {
        let over = |it: Unwritten| self.now >= it.since.max(wanted) + DEAD;
        self.unwritten.is_some_and(over)
    }

    /// A role in which the next thing to do needs the disk.
    pub(crate) fn needs_disk(role: Role) -> bool {
        matches!(role, Role::Learning | Role::Admitted | Role::TakingOver)
    }
}
