//! What is due, a share of it at a time: timers, children to be started, what an operator or the
//! gateway asks of IKE SAs. Tens of thousands of them may be due at one instant - rekeyings after a
//! takeover, everything that an operator closes, the Deletes to clients that were redirected - and
//! heartbeats and packets have their turns in between.
//!
//! Nothing is lost and nothing overtakes what was due before it: what is left stays due, and so
//! [`Engine::poll_timeout`] says that the next turn is now.

use std::time::Duration;

use hitless_sa::{Entropy, IkeSpi, Instant, SaId};

use super::engine::Engine;
use super::established::{IkeSa, State};
use super::tasks::Task;
use super::work::{self, Share};

/// Timers may take so much of a turn, and so may orders from one timeout to the next.
pub(super) const A_SHARE: u64 = Share::OF_A_TURN / 2;

/// Who is due at once again waits until others have had their turn.
const AGAIN: Duration = Duration::from_nanos(1);

/// When an IKE SA that has just had its turn is due again.
pub(super) fn again(now: Instant, deadline: Option<Instant>) -> Option<Instant> {
    deadline.map(|at| at.max(now + AGAIN))
}

impl Engine {
    /// The time of something has come.
    pub(super) fn timeout(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        let share = Share::new(A_SHARE);
        self.ordered = 0;
        while !share.is_spent() {
            let (timer, start) = (self.timers.first(), self.starts.first());
            let started = start.is_some_and(|start| timer.is_none_or(|timer| start < timer));
            if started && let Some((connection, child)) = self.starts.due(now) {
                self.start_child(now, entropy, &connection, child);
            } else if let Some(spi) = self.timers.due(now) {
                self.tick(now, entropy, spi);
            } else {
                break;
            }
        }
        self.govern(now, entropy, &Share::new(A_SHARE));
        self.level_graves(now, &share);
    }

    fn tick(&mut self, now: Instant, entropy: &mut dyn Entropy, spi: IkeSpi) {
        if self.sas.contains_key(&spi) {
            self.with(now, entropy, spi, |ike, turn| ike.tick(turn));
        } else {
            self.half_open_timeout(now, entropy, spi);
        }
    }

    /// Starts what is due and not up; the rest when its turn has come.
    pub(super) fn start_children(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        while self.ordered < A_SHARE {
            let Some((connection, child)) = self.starts.due(now) else {
                break;
            };
            self.at_once(|engine| engine.start_child(now, entropy, &connection, child));
        }
    }

    fn start_child(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        connection: &str,
        child: String,
    ) {
        work::count(1);
        match self.serves(connection, &child, |_| true) {
            true => self.complete(now, entropy, connection, &child),
            false => self.initiate(now, entropy, connection, Some(child)),
        }
    }

    /// The operator asks for a child, or a packet does: it is begun now, or where so much was asked
    /// already, as what is to be started is. What is being deleted is no reason not to, and would be
    /// one then.
    pub(super) fn initiate_in_turn(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        connection: String,
        child: Option<String>,
    ) {
        let first = || {
            let children = &self.by_name.get(&connection)?.children;
            children.first().map(|child| child.name.clone())
        };
        let spent = self.ordered >= A_SHARE && self.leading;
        match child.or_else(first) {
            Some(child) if spent && !self.serves(&connection, &child, |_| true) => {
                self.starts.at(connection, child, now);
            }
            child => self.at_once(|engine| engine.initiate(now, entropy, &connection, child)),
        }
    }

    /// Whether a child is on its way: asked of a peer, or about to be.
    pub fn is_making(&self, now: Instant, connection: &str, child: &str) -> bool {
        let stays = |sa: &IkeSa| sa.state != State::Deleting;
        self.serves(connection, child, stays)
            || self.initiators.any_makes(connection, child)
            || self.starts.is_due(connection, child, now)
    }

    /// The Child SAs of a name that this member leads.
    pub fn child_sas_of(&self, connection: &str, child: &str) -> impl Iterator<Item = SaId> {
        let spis = self.index.of_connection(connection);
        let sas = spis.filter_map(|spi| self.sas.get(&spi));
        let all = sas.flat_map(|sa| &sa.children);
        all.filter(move |one| one.name == child)
            .map(|one| one.sa.id)
    }

    fn at_once(&mut self, action: impl FnOnce(&mut Engine)) {
        let share = Share::new(0);
        action(self);
        self.ordered = self.ordered.saturating_add(share.used());
    }

    /// Something is asked of an IKE SA: `mark` says it to that, and what it takes is done now, or in
    /// a turn to come where so much was asked of others.
    pub(super) fn order(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        spi: IkeSpi,
        mark: impl FnOnce(&mut IkeSa),
    ) {
        let Some(ike) = self.sas.get_mut(&spi) else {
            return;
        };
        mark(ike);
        // A standby would do it, too.
        ike.ordered = true;
        if self.ordered >= A_SHARE {
            return self.timers.set(spi, Some(now));
        }
        self.at_once(|engine| {
            engine.with(now, entropy, spi, |ike, turn| ike.advance(turn));
        });
    }

    pub(super) fn order_of_child(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        sa: SaId,
        mark: impl FnOnce(&mut IkeSa),
    ) {
        if let Some(ike) = self.index.of_child(sa) {
            self.order(now, entropy, ike, mark);
        }
    }

    pub(super) fn task(
        &mut self,
        now: Instant,
        entropy: &mut dyn Entropy,
        ike: IkeSpi,
        task: Task,
    ) {
        self.order(now, entropy, ike, |ike| ike.schedule(now, task));
    }

    pub(super) fn terminate(&mut self, now: Instant, entropy: &mut dyn Entropy, ike: IkeSpi) {
        self.remove_initiator(ike);
        self.order(now, entropy, ike, |ike| {
            ike.terminated = true;
            ike.schedule(now, Task::DeleteIke);
        });
    }

    pub(super) fn rekey_child(&mut self, now: Instant, entropy: &mut dyn Entropy, sa: SaId) {
        self.order_of_child(now, entropy, sa, |ike| {
            ike.schedule(now, Task::RekeyChild(sa));
        });
    }
}
