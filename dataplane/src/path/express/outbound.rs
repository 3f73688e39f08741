//! The lane from the inner packet to ESP (RFC 4301 section 5.1, RFC 4303 section 3.3).

use hitless_sa::Instant;

use super::{Leavings, Rest};
use crate::worker::Worker;

impl Worker {
    /// Takes what it can; the rest goes the plain way as it came.
    pub(super) fn express_outbound(
        &mut self,
        _now: Instant,
        leaving: &mut Leavings,
        rest: &mut Rest,
    ) {
        for packet in leaving.drain(..) {
            rest.take(packet.packet, packet.place);
        }
    }
}
