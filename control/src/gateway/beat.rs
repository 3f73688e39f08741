//! Heartbeats whatever the control thread is doing. It looks after everything: a takeover of tens of
//! thousands of SAs, a crowd of handshakes, an operator's list of all of them. Between two pieces of
//! such work it looks at the clock, and what the other members are owed by then leaves at once, ahead
//! of all that waits. A thread that does not get on with its work beats for nobody; nor does one whose
//! turn does not come to its end, for leases are extended, workers watched and peers answered once in a
//! turn: a member that does none of it is no better than one that is dead, and a standby takes over. Its
//! workers, which have a clock of their own, learn of each look and stop without one.

use std::net::SocketAddr;
use std::ops::Bound;
use std::time::Duration;

use hitless_sa::Instant;
use hitless_sync::{Node, Reckoning, Risk};

use super::Gateway;
use super::children::Carried;
use super::link::Link;

/// No heartbeat amid a turn that has run for so long: far above what a turn takes that does its share,
/// and below what a lease lasts for under load.
const LONGEST_TURN: Duration = Duration::from_secs(1);

/// How often workers are told that this thread gets on: they read it in each turn.
const ATTENDED_EVERY: Duration = Duration::from_millis(20);

/// Workers lead for so long without this thread, or twice what others take to notice a death, if that
/// is longer: it beats no longer than [`LONGEST_TURN`] in one turn, so they have taken over by then.
const UNATTENDED: Duration = Duration::from_secs(2);

/// SAs of which a figure or two are read between two heartbeats: some microseconds.
const A_PIECE: usize = 64;

/// What the world lends to a gateway in the middle of its work.
pub trait Pacemaker: Send {
    /// What time it is by now.
    fn now(&mut self) -> Instant;
    /// Sends from the sync socket.
    fn send(&mut self, to: SocketAddr, datagram: &[u8]);
}

/// When other members heard of this one in the middle of its work.
#[derive(Default)]
pub(super) struct Beats {
    pacemaker: Option<Box<dyn Pacemaker>>,
    /// The first look at the clock in this turn.
    began: Option<Instant>,
    /// The last one at which a heartbeat could leave, and the longest time from one to the next in one
    /// turn and in all.
    looked: Option<Instant>,
    /// The workers were last told that this thread gets on.
    attended: Option<Instant>,
    pause: Duration,
    pub longest_pause: Duration,
    /// Sent in the middle of work.
    pub sent: u64,
}

impl Beats {
    /// Sends what is due.
    pub fn look(&mut self, node: &mut Node, link: Option<&mut Link>) {
        let Some(pacemaker) = &mut self.pacemaker else {
            return;
        };
        let now = pacemaker.now();
        if !self.may_leave(now) {
            return;
        }
        let (Some(link), Some(pacemaker)) = (link, &mut self.pacemaker) else {
            return;
        };
        for (to, payload) in node.beat(now) {
            if let Some((address, datagram)) = link.protect(to, &payload) {
                pacemaker.send(address, &datagram);
                self.sent += 1;
            }
        }
    }

    /// Whether the turn is short enough so far.
    fn may_leave(&mut self, now: Instant) -> bool {
        let began = *self.began.get_or_insert(now);
        let before = *self.looked.get_or_insert(now);
        self.pause = self.pause.max(now.since(before));
        let may = now.since(began) <= LONGEST_TURN;
        if may {
            self.looked = Some(now);
        }
        may
    }

    /// When to tell the workers that this thread got on, if it is time to.
    fn attends(&mut self) -> Option<Instant> {
        let looked = self.looked?;
        let due = |told: Instant| looked.since(told) >= ATTENDED_EVERY;
        let tells = self.attended.is_none_or(due);
        tells.then(|| *self.attended.insert(looked))
    }

    /// The caller waits for more to do; gives the longest time that a heartbeat may have waited for
    /// a piece of work since it last did.
    fn rest(&mut self) -> Duration {
        (self.began, self.looked) = (None, None);
        self.longest_pause = self.longest_pause.max(self.pause);
        std::mem::take(&mut self.pause)
    }
}

impl Gateway {
    /// Lends it a clock and the sync socket: without them heartbeats wait for the end of a turn.
    pub fn set_pacemaker(&mut self, pacemaker: Box<dyn Pacemaker>) {
        self.beats.pacemaker = Some(pacemaker);
    }

    /// Between two pieces of work: heartbeats that are due leave now.
    pub fn beat(&mut self) {
        self.beats.look(&mut self.node, self.link.as_mut());
        if let Some(now) = self.beats.attends() {
            let cluster = &self.settings.config().cluster;
            let takeover = cluster.heartbeat * cluster.missed;
            self.dataplane.attend(now + UNATTENDED.max(takeover * 2));
        }
    }

    /// Looks at every SA, heartbeats in between.
    pub(super) fn look_at_all(&mut self, mut look: impl FnMut(&Carried)) {
        let mut behind = Bound::Unbounded;
        loop {
            let mut looked = 0;
            for carried in self.children.behind(behind).take(A_PIECE) {
                looked += 1;
                behind = Bound::Excluded(carried.child.id);
                look(carried);
            }
            if looked < A_PIECE {
                return;
            }
            self.beat();
        }
    }

    /// What would be lost if the active died now; heartbeats in between.
    pub(super) fn reckon(&mut self) -> Risk {
        let mut reckoning = Reckoning::default();
        while self.node.reckon(&mut reckoning, A_PIECE) {
            self.beat();
        }
        reckoning.risk()
    }

    /// The thread that runs this has nothing more to do for now. Gives the longest time that a
    /// heartbeat may have waited for since it last had.
    pub fn rest(&mut self) -> Duration {
        self.beat();
        self.beats.rest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_without_end_beats_for_a_second_and_no_longer() {
        let at = |milliseconds: u64| Instant(7) + Duration::from_millis(milliseconds);
        let mut beats = Beats::default();
        for milliseconds in (0..=1_000).step_by(10) {
            assert!(beats.may_leave(at(milliseconds)));
        }
        assert!(!beats.may_leave(at(1_010)) && !beats.may_leave(at(5_000)));
        // It is told how long they waited, and the next turn has its own.
        assert_eq!(beats.rest(), Duration::from_secs(4));
        assert!(beats.may_leave(at(5_001)));
        assert_eq!(beats.rest(), Duration::ZERO);
    }

    #[test]
    fn workers_are_told_now_and_then_that_the_thread_gets_on_and_not_that_it_hangs() {
        let at = |milliseconds: u64| Instant(7) + Duration::from_millis(milliseconds);
        let mut beats = Beats::default();
        assert_eq!(beats.attends(), None, "nobody has a clock");
        let mut told = Vec::new();
        for milliseconds in (0..=3_000).step_by(5) {
            beats.may_leave(at(milliseconds));
            told.extend(beats.attends());
        }
        let expected: Vec<Instant> = (0..=1_000).step_by(20).map(at).collect();
        assert_eq!(told, expected);
        beats.rest();
        assert!(beats.may_leave(at(3_001)));
        assert_eq!(beats.attends(), Some(at(3_001)));
    }
}
