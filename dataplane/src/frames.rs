//! A worker's pool and counters together: what every step needs to be rid of a packet, and who
//! watches.

use std::sync::Arc;

use crate::counters::{Counters, SaCounters};
use crate::pool::{Packet, Pool};
use crate::verdict::DropReason;
use crate::watch::Watch;

/// The frames of one worker.
pub(crate) struct Frames {
    pub(crate) pool: Pool,
    pub(crate) counters: Arc<Counters>,
    /// What an operator watches of them.
    pub(crate) watch: Watch,
}

impl Frames {
    /// Takes the packet back and counts why.
    pub(crate) fn drop(&mut self, packet: Packet, reason: DropReason) {
        self.counters.count_drop(reason);
        if self.watch.on {
            self.watch.dropped(&self.pool, &packet, reason);
        }
        self.pool.free(packet);
    }
    /// As [`Frames::drop`], for a packet of an SA, which counts it too.
    pub(crate) fn drop_of(&mut self, sa: &SaCounters, packet: Packet, reason: DropReason) {
        sa.count_drop(reason);
        self.drop(packet, reason);
    }
}
