//! Authentic packets that wait for their SA's high water to rise (rule R8 of the lease protocol).
//! Bounded; a packet does not outlive its cell, nor wait longer than it is worth.

use std::collections::VecDeque;
use std::time::Duration;

use hitless_sa::{Instant, SequenceNumber};

use crate::pool::Packet;

/// Packets that wait at the same time on one worker.
pub const CAPACITY: usize = 256;
/// How long a packet may wait; a high water that takes longer is a standby that is gone.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// A decrypted inner packet that has not been marked as seen.
pub(crate) struct Parked {
    pub(crate) packet: Packet,
    pub(crate) slot: u32,
    pub(crate) number: SequenceNumber,
    pub(crate) since: Instant,
}

/// The ring.
pub(crate) struct Park(VecDeque<Parked>);

impl Park {
    pub(crate) fn new() -> Park {
        Park(VecDeque::with_capacity(CAPACITY))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes a packet in, or gives it back if there is no room.
    pub(crate) fn push(&mut self, parked: Parked) -> Result<(), Parked> {
        if self.0.len() >= CAPACITY {
            return Err(parked);
        }
        self.0.push_back(parked);
        Ok(())
    }

    /// The one that has waited longest.
    pub(crate) fn pop(&mut self) -> Option<Parked> {
        self.0.pop_front()
    }
}
