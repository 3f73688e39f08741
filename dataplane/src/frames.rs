//! A worker's pool and counters together: what every step needs to be rid of a packet.

use std::sync::Arc;

use crate::counters::Counters;
use crate::pool::{Packet, Pool};
use crate::verdict::DropReason;

/// The frames of one worker.
pub(crate) struct Frames {
    pub(crate) pool: Pool,
    pub(crate) counters: Arc<Counters>,
}

impl Frames {
    /// Takes the packet back and counts why.
    pub(crate) fn drop(&mut self, packet: Packet, reason: DropReason) {
        self.counters.count_drop(reason);
        self.pool.free(packet);
    }
}
