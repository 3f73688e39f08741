//! What IKE's work costs, counted where it is done: by whatever way an exchange comes to a key
//! exchange, a signature or a chain of certificates, it is that which counts, and not what is sent
//! afterwards. Whoever has much to do takes a [`Share`] of it at a time.
//!
//! The count is one for each thread, and only ever rises: so nothing has to be handed down to the
//! primitives, no exchange can forget to, and what somebody else did before does not matter. Costs
//! are nominal, microseconds of one core of 2025, so that what a turn does is the same wherever and
//! whenever it is done.

use std::cell::Cell;

thread_local! {
    static DONE: Cell<u64> = const { Cell::new(0) };
}

/// A message that is taken apart, or one input to an IKE SA with the record of what came of it.
pub(super) const MESSAGE: u32 = 10;

/// So much has been done.
pub(super) fn count(microseconds: u32) {
    DONE.with(|done| done.set(done.get().wrapping_add(u64::from(microseconds))));
}

fn done() -> u64 {
    DONE.with(Cell::get)
}

/// What may be done at a time: heartbeats, leases and packets have their turns in between.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    begun: u64,
    microseconds: u64,
}

impl Share {
    /// What the peers' messages may take of one turn of the gateway, and what timers and operators
    /// may: a fraction of a heartbeat.
    pub const OF_A_TURN: u64 = 2_000;

    pub fn of_a_turn() -> Share {
        Share::new(Share::OF_A_TURN)
    }

    pub fn new(microseconds: u64) -> Share {
        Share {
            begun: done(),
            microseconds,
        }
    }

    /// What was done since it began.
    pub fn used(&self) -> u64 {
        done().wrapping_sub(self.begun)
    }

    /// Whether the rest has to wait. What is begun is done: a share may be exceeded by one piece of
    /// work.
    pub fn is_spent(&self) -> bool {
        self.used() >= self.microseconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_sees_what_was_done_since_it_began() {
        count(5);
        let share = Share::new(20);
        assert_eq!((share.used(), share.is_spent()), (0, false));
        count(19);
        assert!(!share.is_spent());
        count(1);
        assert!(share.is_spent());
        assert!(!Share::new(1).is_spent());
    }
}
